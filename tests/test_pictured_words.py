"""Embeddings in pictures: found where stable-diffusion-webui finds them, used by name, and no others taken for them."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from conftest import Command
from pictured_words import in_pixels, in_text, told
from PIL import Image

from bottega.errors import FormatError
from bottega.families._stable_diffusion import toy
from bottega.formats import read_bytes, read_header
from bottega.library import open_catalog

WIDTH = 32  # of the toys' text encoder
VECTORS = [[random.Random(7 * row + column).gauss() for column in range(WIDTH)] for row in range(3)]
CONTENT = told(VECTORS, "Lighthouse")
AS_STORED = b"".join(struct.pack(f"<{WIDTH}f", *row) for row in VECTORS)


def write(kind: str, path: Path) -> Path:
    if kind == "text":
        return in_text(path, CONTENT)
    options = {"format": "WEBP", "lossless": True, "exact": True} if kind == "webp" else {"format": "PNG"}
    in_pixels(CONTENT).save(path, **options)
    return path


@pytest.mark.parametrize("kind", ["text", "pixels", "webp"])
def test_the_vectors_are_those_that_were_written(kind: str, tmp_path: Path) -> None:
    header = read_header(write(kind, tmp_path / "word"))
    ((name, info),) = header.tensors.items()
    assert (header.format, name, info.dtype, info.shape) == ("picture", "string_to_param.*", "F32", (3, WIDTH))
    assert read_bytes(info) == AS_STORED
    assert header.metadata["name"] == "Lighthouse" and header.metadata["step"] == "500"


def test_many_vectors_and_words_of_several_names(tmp_path: Path) -> None:
    content = b'{"string_to_param": {"a": {"TORCHTENSOR": [[1, 2]]}, "b": {"TORCHTENSOR": [[3, 4], [5, 6.5]]}}}'
    header = read_header(in_text(tmp_path / "two.png", content))
    read = {name: struct.unpack(f"<{info.elements}f", read_bytes(info)) for name, info in header.tensors.items()}
    assert read == {"string_to_param.a": (1, 2), "string_to_param.b": (3, 4, 5, 6.5)}
    large = [[0.123456789 * row - column for column in range(768)] for row in range(75)]
    (info,) = read_header(in_text(tmp_path / "large.png", told(large))).tensors.values()
    assert struct.unpack("<768f", read_bytes(info)[-768 * 4 :])[1] == pytest.approx(0.123456789 * 74 - 1)


def test_other_pictures_are_pictures(tmp_path: Path) -> None:
    framed = Image.new("RGB", (96, 96))
    framed.paste(Image.effect_noise((32, 80), 60).convert("RGB"), (8, 8))
    framed.paste(Image.effect_noise((32, 80), 60).convert("RGB"), (56, 8))
    pictures = {"plain": Image.radial_gradient("L"), "black": Image.new("RGB", (32, 32)), "framed": framed}
    for name, picture in pictures.items():
        picture.save(tmp_path / f"{name}.png")
    in_pixels(CONTENT).save(tmp_path / "lossy.webp", quality=60)
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(FormatError, match="picture"):
            read_header(path)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"[]", "no JSON object"),
        (b"{", "Expecting"),
        (b"{}", "names no vectors"),
        (b'{"string_to_param": {"*": {"TORCHTENSOR": []}}}', "no lists"),
        (b'{"string_to_param": {"*": {"TORCHTENSOR": [[1, 2], [3]]}}}', "one width"),
        (b'{"string_to_param": {"*": {"TORCHTENSOR": [[1, "2"]]}}}', "no number"),
        (b'{"string_to_param": {"*": {"TORCHTENSOR": [[1, true]]}}}', "no number"),
        (b'{"string_to_param": {"*": {"TORCHTENSOR": [[1, 1e39]]}}}', "no number"),
        (b'{"string_to_param": {"*": {"TORCHTENSOR": [[1, NaN]]}}}', "NaN"),
        (b'{"a": ' * 19_000, "nested|deep|Expecting"),
        (b'{"a": [' + b"[]," * 30_000 + b"[]]}", "too many lists"),
        (b'{"x": {%b}}' % b",".join(b'"%d": 1' % index for index in range(20_001)), "too many keys"),
        (b'{"x": [' + b"1," * 3_000_001 + b"1]}", "too many keys or numbers"),
    ],
)
def test_what_is_damaged_says_so(content: bytes, why: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=f"damaged .*{why}"):
        read_header(in_text(tmp_path / "word.png", content))


def test_a_cut_or_changed_file_never_escapes_as_another_error(tmp_path: Path) -> None:
    rng = random.Random(5)
    whole = [write(kind, tmp_path / kind).read_bytes() for kind in ("text", "pixels", "webp")]
    for number in range(150):
        content = bytearray(rng.choice(whole))
        if number % 2:
            del content[rng.randrange(1, len(content)) :]
        else:
            content[rng.randrange(12, len(content))] ^= 1 << rng.randrange(8)
        path = tmp_path / "changed"
        path.write_bytes(content)
        try:
            for info in read_header(path).tensors.values():
                read_bytes(info)
        except FormatError:
            pass


# --- on the shelf ----------------------------------------------------------------------------------------------------


@pytest.fixture
def shelf(home: Path) -> Path:
    """The home's folder for embeddings, with a picture beside a model, a preview, and a picture of nothing."""
    folder = home / "models" / "embeddings" / "deep"
    folder.mkdir(parents=True)
    toy.write_single_file(home / "models" / "toy.safetensors", "sd1")
    Image.radial_gradient("L").save(folder / f"{'long' * 62}.png")
    (folder / "broken.png").write_bytes(
        write("pixels", folder / "broken.png").read_bytes()[:-12] + b"\0\0\0\0iCCP" + bytes(4) + bytes(4) + b"IEND"
    )
    (folder / "other.safetensors").write_bytes(b"not here yet")
    for name in ("other.png", "lighthouse.preview.png"):
        write("text", folder / name)
    Image.radial_gradient("L").save(folder / "nothing.png")
    write("text", home / "models" / "elsewhere.png")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["text", "webp"])
def test_it_is_found_where_the_prompt_has_its_name(
    kind: str, bottega: Command, shelf: Path, home: Path, tmp_path: Path
) -> None:
    words = ("--model", "toy", "--steps", 1, "--size", "64x64", "--seed", 7, "--json")
    plain = bottega("make", "image", "a lighthouse by the sea", *words)
    file = write(kind, shelf / ("00042-x.webp" if kind == "webp" else "00042-x.png"))
    found = bottega("make", "image", "a lighthouse by the sea", *words)  # that no scan has seen
    assert plain.code == found.code == 0, found.err
    assert plain.json["recipe"].get("adapters", []) == []
    (use,) = found.json["recipe"]["adapters"]  # named as the picture says, whatever its file is called
    assert (use["kind"], use["ref"]["name"]) == ("embedding", "Lighthouse")
    made, others = Path(found.json["path"]), Path(plain.json["path"])
    assert made.read_bytes() != others.read_bytes()
    assert bottega("replay", made, "--check").code == 0
    converted = tmp_path / "lighthouse.safetensors"
    assert bottega("models", "convert", file, converted).code == 0
    (info,) = read_header(converted).tensors.values()
    assert read_bytes(info) == AS_STORED
    file.unlink()
    (home / "models" / "embeddings" / "lighthouse.safetensors").write_bytes(converted.read_bytes())
    again = bottega("make", "image", "a lighthouse by the sea", *words)
    with Image.open(again.json["path"]) as one, Image.open(made) as other:
        assert one.tobytes() == other.tobytes()


def test_one_that_is_named_by_its_path_is_meant_by_the_word_in_it(
    bottega: Command, shelf: Path, tmp_path: Path
) -> None:
    words = ("--model", "toy", "--steps", 1, "--size", "64x64", "--seed", 7, "--json")
    hidden = write("pixels", tmp_path / "hidden.png")
    by_path = bottega("make", "image", "the sea", "--embedding", hidden, *words)
    assert by_path.code == 0, by_path.err
    assert by_path.json["recipe"]["prompt"] == "the sea, Lighthouse"
    assert [use["ref"]["name"] for use in by_path.json["recipe"]["adapters"]] == ["Lighthouse"]
    wrong = bottega("make", "image", "the sea", "--embedding", shelf / "nothing.png", *words)
    assert wrong.code == 2 and "PNG picture" in wrong.err and wrong.err.count("\n") == 1


def test_a_scan_takes_no_preview_for_an_embedding(bottega: Command, shelf: Path, home: Path) -> None:
    write("text", shelf / "found.png")
    write("webp", shelf / "hidden.webp")
    ran = bottega("models", "scan")
    assert ran.code in (0, 1), ran.err
    with open_catalog(home / "catalog.sqlite") as catalog:
        there = {Path(path).name for _, path, _ in catalog.of_kind("embedding")}
    assert {"found.png", "hidden.webp"} <= there
    assert not there & {"other.png", "lighthouse.preview.png", "nothing.png", "elsewhere.png"}
    told = bottega("models", "show", shelf / "found.png", "--json")
    assert told.code == 0 and told.json["kind"] == "embedding" and told.json["format"] == "picture"
