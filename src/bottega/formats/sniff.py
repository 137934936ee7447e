"""What a file is, told from its first bytes and never from its name, and the words to refuse it with."""

from __future__ import annotations

import stat
from pathlib import Path

from bottega.errors import FormatError

_AGAIN = "download it again"
_NOT_YET = "this version of Bottega reads safetensors and diffusers folders; look for one of those on the model's page"
_PICTURE = "choose the model's .safetensors file (this may be its preview); `bottega show` tells what a picture carries"

# For every kind that sniff() answers: what to call it, and what to do with it where a model is wanted.
KINDS: dict[str, tuple[str, str]] = {
    "safetensors": ("a safetensors file", ""),
    "folder": ("a folder", "choose a file, or a diffusers folder (it holds model_index.json)"),
    "empty": ("an empty file", _AGAIN),
    "png": ("a PNG picture", _PICTURE),
    "jpeg": ("a JPEG picture", _PICTURE),
    "webp": ("a WebP picture", _PICTURE),
    "gif": ("a GIF picture", _PICTURE),
    "html": ("a web page", "the download probably ended on a login or error page: log in there, then " + _AGAIN),
    "json": ("JSON text", "this may be a site's error message, or a model's config: choose the model's weights"),
    "lfs-pointer": ("a git-LFS pointer", "it only names the real file: run `git lfs pull` in its folder"),
    "pickle": ("a pickle checkpoint", _NOT_YET),
    "gguf": ("a GGUF model", _NOT_YET),
    "zip": ("a zip archive", "unpack it and choose the model inside"),
    "7z": ("a 7z archive", "unpack it and choose the model inside"),
    "tar": ("a tar archive", "if it is a model, it is of torch's first format: get a .safetensors version"),
    "archive": ("an archive", "unpack it and choose the model inside"),
    "program": ("a program", "no model is a program: delete it if you expected one"),
    "special": ("no regular file", "choose a model file or folder"),
    "unknown": ("no format that Bottega knows", "choose a .safetensors file or a diffusers folder; if it is one, "
                "it is damaged: " + _AGAIN),
}  # fmt: skip

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"GGUF", "gguf"),
    (b"version https://git-lfs.github.com/spec/", "lfs-pointer"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "archive"),
    (b"\x1f\x8b\x08", "archive"),
    (b"\x7fELF", "program"),
    (b"MZ\x90\x00", "program"),
)
_HTML = (b"<!doctype html", b"<html", b"<head", b"<?xml", b"<!--", b"<script")
_JSON_SPACE = b" \t\r\n"


def sniff(path: str | Path) -> str:
    """The kind of a file or folder: a key of KINDS. Reads half a kilobyte."""
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return "folder"
        if not stat.S_ISREG(mode):
            return "special"  # opening a pipe would wait for ever
        with path.open("rb") as file:
            return sniff_bytes(file.read(512))
    except FileNotFoundError:
        raise FormatError(path, "there is no such file", "check the path") from None
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError:
        raise FormatError(ascii(str(path)), "this is no path", "check it for stray characters") from None


def sniff_bytes(head: bytes) -> str:
    """The kind of a file that begins with `head` (512 bytes are enough)."""
    if not head:
        return "empty"
    # A safetensors file begins with the length of its header, whose lowest bytes may look like any other magic.
    if head[8:].lstrip(_JSON_SPACE)[:1] == b"{" and int.from_bytes(head[:8], "little") < 1 << 40:
        return "safetensors"
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[:2] == b"PK":
        return "zip"  # perhaps torch's: the names of its members tell, and they stand at its end
    if head[257:262] == b"ustar":
        return "tar"
    if head[0] == 0x80 and head[1:2] <= b"\x05":
        return "pickle"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(_HTML):
        return "html"
    if text[:1] in (b"{", b"["):
        return "json"
    return "safetensors" if head[8:].lstrip(_JSON_SPACE)[:1] == b"{" else "unknown"


def refusal(path: str | Path, kind: str, wanted: str = "a model") -> FormatError:
    """The error that says what `path` is instead of what was wanted."""
    name, remedy = KINDS[kind]
    return FormatError(path, f"this is {name}, not {wanted} that Bottega can read", remedy)


def unreadable(path: str | Path, error: OSError) -> FormatError:
    """The error for a file that the system does not let us read."""
    return FormatError(path, f"can't be read ({error.strerror or error})", "check its permissions and its disk")
