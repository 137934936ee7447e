"""Folders of pictures with captions, read and checked before anything is trained: what is wrong is told early."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bottega.errors import FileError
from bottega.formats import media
from bottega.training.buckets import bucket_of

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
CAPTIONS = (".txt", ".caption")
MASK = "-masklabel.png"  # behind a picture's stem, as OneTrainer names them
SMALLEST = 64  # pixels along a picture's short side: one latent cell is 8
LONGEST_CAPTION = 20_000
_REPEATS = re.compile(r"(\d{1,5})_(.*)")
_LISTS = ("metadata.jsonl", "captions.jsonl")


@dataclass(frozen=True)
class Picture:
    """One picture to learn from: its file, what it shows, how often it counts, and where a mask lies, if it has one.

    `sha256` is that of its file. A `regular` one keeps the model from forgetting what it knew.
    """

    path: Path
    caption: str
    size: tuple[int, int]
    sha256: str
    repeats: int = 1
    mask: Path | None = None
    regular: bool = False


@dataclass(frozen=True)
class Checked:
    """What a look at the data found: pictures, their buckets, and what somebody should know before the start."""

    pictures: tuple[Picture, ...]
    buckets: Mapping[tuple[int, int], int]
    tokens: Mapping[str, int]
    notes: tuple[str, ...] = ()


def read_folder(path: str | Path, *, regular: bool = False) -> list[Picture]:
    """Every picture of a folder and of the folders in it, by name, with its caption.

    A caption is in `NAME.txt` or `NAME.caption`, or in the folder's `metadata.jsonl` (`file_name`, and `text` or
    `caption`); without one it is what a folder named as kohya's trainer has it, `10_a red fox`, says behind the
    number, which is how often its pictures count. Raises FileError with the first thing that is wrong and how many
    more there are.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise FileError(root, "is no folder" if root.exists() else "is not there", "name a folder of pictures")
    pictures: list[Picture] = []
    wrong: list[FileError] = []
    for folder in [root, *sorted(each for each in root.rglob("*") if each.is_dir())]:
        repeats, words = _told_by(folder.name)
        try:
            listed = _listed(folder)
        except FileError as error:
            wrong.append(error)
            continue
        for file in sorted(folder.iterdir()):
            if file.suffix.lower() not in ENDINGS or file.name.endswith(MASK) or not file.is_file():
                continue
            try:
                pictures.append(_picture(file, listed, repeats, words, regular))
            except FileError as error:
                wrong.append(error)
    if wrong:
        more = f"; {len(wrong) - 1} more files can't be used either" if len(wrong) > 1 else ""
        raise FileError(wrong[0].path, wrong[0].what.removeprefix(f"{wrong[0].path}: "), wrong[0].remedy + more)
    if not pictures:
        raise FileError(root, "holds no pictures", f"put some in it ({', '.join(ENDINGS[:5])} ...)")
    return pictures


def _told_by(name: str) -> tuple[int, str]:
    """The repeats and the words that kohya's trainer reads out of a folder's name."""
    found = _REPEATS.fullmatch(name)
    return (max(int(found[1]), 1), found[2].strip()) if found else (1, "")


def _listed(folder: Path) -> dict[str, str]:
    """The captions of a folder's list, by file name."""
    captions: dict[str, str] = {}
    for name in _LISTS:
        if not (file := folder / name).is_file():
            continue
        for number, line in enumerate(_text(file).splitlines(), 1):
            if not line.strip():
                continue
            try:
                told = json.loads(line)
                captions[told["file_name"]] = _checked(told.get("text", told.get("caption", "")))
            except (ValueError, KeyError, TypeError, AttributeError):
                what = f"line {number} is no object with file_name and text"
                raise FileError(file, what, 'write {"file_name": "1.png", "text": "..."}') from None
    return captions


def _checked(caption: object) -> str:
    if not isinstance(caption, str):
        raise TypeError
    return caption


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise FileError(file, "is no text in UTF-8", "save it as UTF-8, or take it away") from None


def _picture(file: Path, listed: Mapping[str, str], repeats: int, words: str, regular: bool) -> Picture:
    caption = listed.get(file.name)
    for ending in CAPTIONS:
        beside = file.with_suffix(ending)
        if caption is None and beside.is_file():
            caption = " ".join(_text(beside).split())
            if "\0" in caption or len(caption) > LONGEST_CAPTION:
                raise FileError(beside, "is no caption but something else", "write one line that says what is shown")
    size, sha256 = _look(file)
    if min(size) < SMALLEST:
        remedy = f"take it away; {SMALLEST} pixels is the least that can be learned from"
        raise FileError(file, f"is only {size[0]}x{size[1]} pixels", remedy)
    mask = file.with_name(file.stem + MASK)
    if mask.is_file():
        _look(mask)
    return Picture(
        path=file,
        caption=words if caption is None else caption,
        size=size,
        sha256=sha256,
        repeats=repeats,
        mask=mask if mask.is_file() else None,
        regular=regular,
    )


def _look(file: Path) -> tuple[tuple[int, int], str]:
    """A picture's size as it is seen, and the hash of its file; FileError if it can't be decoded to its end."""
    return open_picture(file).size, hashlib.sha256(file.read_bytes()).hexdigest()


def open_picture(file: Path):  # type: ignore[no-untyped-def]  # PIL is imported late
    """The picture in a file, upright and in RGB, on white where it is transparent. Raises FileError if it is broken."""
    from PIL import Image, ImageOps

    try:
        with Image.open(media.for_pillow(file)) as stored:
            picture = ImageOps.exif_transpose(stored)
            if picture.has_transparency_data:
                seen = picture.convert("RGBA")
                return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")
            return picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise FileError(file, f"is no picture that can be read ({error})", "take it away, or save it anew") from None


def digest_of(pictures: Sequence[Picture]) -> str:
    """SHA-256 of all that a folder teaches: pictures, captions, repeats and masks in order, but no names."""
    seen = hashlib.sha256()
    for each in pictures:
        mask = hashlib.sha256(each.mask.read_bytes()).hexdigest() if each.mask else None
        seen.update(json.dumps([each.sha256, each.caption, each.repeats, mask]).encode() + b"\n")
    return seen.hexdigest()


def with_word(pictures: Sequence[Picture], word: str) -> list[Picture]:
    """The pictures with a word before each caption that does not have it; regular pictures keep theirs."""
    whole = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE)

    def told(each: Picture) -> Picture:
        if each.regular or not word or whole.search(each.caption):
            return each
        return replace(each, caption=f"{word}, {each.caption}" if each.caption else word)

    return [told(each) for each in pictures]


def check(
    pictures: Sequence[Picture], resolution: int, square: bool, word: str, encode: Callable[[str], list[str]]
) -> Checked:
    """What the pictures and captions are: their buckets, what their words become, and what looks like a mistake.

    `encode` tells the tokens of a text, as text.
    """
    sizes = Counter((resolution, resolution) if square else bucket_of(each.size, resolution) for each in pictures)
    tokens = {each.caption: len(encode(each.caption)) for each in pictures}
    return Checked(tuple(pictures), dict(sizes), tokens, tuple(_notes(pictures, resolution, word, tokens, encode)))


def _notes(
    pictures: Sequence[Picture],
    resolution: int,
    word: str,
    tokens: Mapping[str, int],
    encode: Callable[[str], list[str]],
) -> Iterator[str]:
    by_hash: dict[str, list[Picture]] = {}
    for each in pictures:
        by_hash.setdefault(each.sha256, []).append(each)
    twins = [same for same in by_hash.values() if len(same) > 1]
    if twins:
        first, second = twins[0][:2]
        yield f"{len(twins)} pictures are there more than once: {first.path.name} and {second.path.name}"
    small = [each for each in pictures if each.size[0] * each.size[1] < resolution * resolution * 0.8]
    if small:
        yield f"{len(small)} pictures are smaller than {resolution}x{resolution} and are enlarged: {small[0].path.name}"
    bare = [each for each in pictures if not each.caption]
    if bare:
        yield f"{len(bare)} pictures have no caption: {bare[0].path.name}"
    long = [caption for caption, count in tokens.items() if count > 75]
    if long:
        yield f"{len(long)} captions have more than 75 tokens and take more than one chunk: {long[0][:60]}..."
    if word:
        pieces = encode(word)
        plural = f"{len(pieces)} tokens: {' '.join(pieces)}" if len(pieces) > 1 else f"one token: {pieces[0]}"
        yield f"the word {word!r} is {plural}"
