"""What a file is, told from its first bytes and never from its name, and the words to refuse it with."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from bottega.errors import FormatError
from bottega.formats import strictjson
from bottega.formats.header import shown

_AGAIN = "download it again"
_FORMAT = "choose a model in another format for this, or convert it first"
_PICTURE = "choose the model's .safetensors file (this may be its preview); to see a picture's recipe, show the picture"
OTHER_RUNTIME = "Bottega runs none of these: look on the model's page for a .safetensors or .gguf version"
_UNPACK = "unpack it where you can look at what is in it, and choose the model inside"
_NO_MODEL = "no model is kept like this: choose the model's weights"
_PROGRAM = "no model is a program: don't start it, and delete it if you expected a model"
_SITE = "the download probably ended on a login or error page: log in there, then " + _AGAIN
_SITE_SAYS = "this may be a site's answer instead of the model: see what it says, then " + _AGAIN

# For every kind that sniff() answers: what to call it, and what to do with it where a model is wanted.
KINDS: dict[str, tuple[str, str]] = {
    "safetensors": ("a safetensors file", ""),
    "gguf": ("a GGUF model", _FORMAT),
    "pickle": ("a pickle checkpoint", _FORMAT),
    "zip": ("a zip archive", "if it is a checkpoint, convert it first; if not, " + _UNPACK),
    "folder": ("a folder", "choose a file, or a model's folder (it holds model_index.json or config.json)"),
    "empty": ("an empty file", _AGAIN),
    "zeros": ("nothing but zeros", "a download made room for the model and never filled it: " + _AGAIN),
    "aria2": ("aria2's notes on a download", "let aria2 finish the download, and choose the file beside this one"),
    "lfs-pointer": ("a git-LFS pointer", "it only names the real file: run `git lfs pull` in its folder"),
    "html": ("a web page", _SITE),
    "json": ("JSON text", _SITE_SAYS),
    "xml": ("XML text", _SITE_SAYS),
    "text": ("plain text", _SITE_SAYS),
    "config": ("a model's config, not its weights", "choose the folder that it lies in, or the weights beside it"),
    "index": ("the index of a model in several files", "choose the folder that it lies in"),
    "ggml": ("a GGML model from before GGUF", "nothing reads these any more: look for a .gguf version"),
    "onnx": ("an ONNX model", OTHER_RUNTIME),
    "openvino": ("an OpenVINO model", OTHER_RUNTIME),
    "tensorflow": ("a TensorFlow model", OTHER_RUNTIME),
    "tflite": ("a TensorFlow Lite model", OTHER_RUNTIME),
    "coreml": ("a Core ML model", OTHER_RUNTIME),
    "tensorrt": ("a TensorRT engine", OTHER_RUNTIME),
    "executorch": ("an ExecuTorch model", OTHER_RUNTIME),
    "litert-lm": ("a LiteRT-LM model", OTHER_RUNTIME),
    "flax": ("weights of Flax (msgpack)", OTHER_RUNTIME),
    "hdf5": ("an HDF5 file (Keras and TensorFlow keep weights so)", OTHER_RUNTIME),
    "joblib": ("a compressed pickle of an old joblib", "load it in the program that made it, and save it as "
               ".safetensors"),
    "npy": ("a NumPy array", "convert it to .safetensors with the program that made it"),
    "sentencepiece": ("a tokenizer (SentencePiece)", "choose the folder of the language model that it belongs to"),
    "7z": ("a 7z archive", _UNPACK),
    "rar": ("a RAR archive", _UNPACK),
    "tar": ("a tar archive", _UNPACK),
    "torch-tar": ("a checkpoint of PyTorch before version 0.2 (a tar archive)", "load it in an old PyTorch and save it "
                  "anew, or look for a .safetensors version"),
    "gzip": ("a file packed with gzip", _UNPACK),
    "xz": ("a file packed with xz", _UNPACK),
    "bzip2": ("a file packed with bzip2", _UNPACK),
    "zstd": ("a file packed with Zstandard", _UNPACK),
    "gpt-sovits": ("a voice model of GPT-SoVITS (a checkpoint with its version in the place of `PK`)",
                   "it runs in GPT-SoVITS only"),
    "lz4": ("a file packed with LZ4", _UNPACK),
    "png": ("a PNG picture", _PICTURE),
    "jpeg": ("a JPEG picture", _PICTURE),
    "webp": ("a WebP picture", _PICTURE),
    "gif": ("a GIF picture", _PICTURE),
    "picture": ("a picture", _PICTURE),
    "video": ("a video", _NO_MODEL),
    "audio": ("a sound file", _NO_MODEL),
    "pdf": ("a PDF document", _NO_MODEL),
    "sqlite": ("an SQLite database", _NO_MODEL),
    "program": ("a program", _PROGRAM),
    "script": ("a script", _PROGRAM),
    "python": ("Python source", "Bottega runs no code that comes with models: choose the model's weights"),
    "key": ("a key or certificate (PEM)", "keep it where nobody sees it; it is no model"),
    "shortcut": ("a shortcut to another file", "choose the file itself"),
    "resource-fork": ("what macOS keeps beside a file", "choose the file of the same name without `._` before it"),
    "special": ("no regular file", "choose a model file or folder"),
    "unknown": ("no format that Bottega knows", "choose a .safetensors or .gguf file or a model's folder; if it is "
                "one, it is damaged: " + _AGAIN),
}  # fmt: skip

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"GGUF", "gguf"),
    (b"PK\3\4", "zip"),
    (b"PK\5\6", "zip"),
    (b"PK\7\x08", "zip"),
    *((b"0%d\3\4" % version, "gpt-sovits") for version in range(10)),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\0", "picture"),
    (b"MM\0*", "picture"),
    (b"8BPS", "picture"),
    (b"version https://git-lfs.github.com/spec/", "lfs-pointer"),
    (b"version https://hawser.github.com/spec/", "lfs-pointer"),
    (b"lmgg", "ggml"),
    (b"fmgg", "ggml"),
    (b"tjgg", "ggml"),
    (b"algg", "ggml"),
    (b"ftrt", "tensorrt"),
    (b"LITERTLM", "litert-lm"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "rar"),
    (b"\x1f\x8b\x08", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x93NUMPY", "npy"),
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (b"ZF0x", "joblib"),
    (b"%PDF-", "pdf"),
    (b"fLaC", "audio"),
    (b"OggS", "audio"),
    (b"ID3", "audio"),
    (b"\x1a\x45\xdf\xa3", "video"),
    (b"SQLite format 3\0", "sqlite"),
    (b"\x7fELF", "program"),
    (b"\0asm", "program"),
    (b"\xca\xfe\xba\xbe", "program"),
    (b"\xfe\xed\xfa\xce", "program"),
    (b"\xfe\xed\xfa\xcf", "program"),
    (b"\xce\xfa\xed\xfe", "program"),
    (b"\xcf\xfa\xed\xfe", "program"),
    (b"#!", "script"),
    (b"-----BEGIN ", "key"),
    (b"L\0\0\0\x01\x14\x02\0", "shortcut"),
    (b"[InternetShortcut]", "shortcut"),
    (b"book\0\0\0\0mark", "shortcut"),
    (b"XSym\n", "shortcut"),
    (b"\0\5\x16\7", "resource-fork"),
)
_RIFF = {b"WEBP": "webp", b"WAVE": "audio", b"AVI ": "video"}
_HTML = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<!--")
_TORCH_TAR = (b"sys_info", b"pickle", b"storages", b"tensors")
_JSON_SPACE = b" \t\r\n"
_PYTHON = re.compile(rb"^(?:import [\w.]+|from [\w.]+ import |def \w+\(|class \w+[(:]|@\w+)", re.MULTILINE)
_SHELL = re.compile(rb"(?i)@echo off|param\s*\(|rem ")
# Protocols 0 and 1 of pickle have no magic: what they begin with is a name to import, or a mark and what follows it.
_OLD_PICKLE = re.compile(
    rb"c[A-Za-z_][\w.]*\n[A-Za-z_][\w.]*\n|\((?:c[A-Za-z_][\w.]*\n[\w.]+\n|i[\w.]+\n|[dl]p\d+\n|S['\"]|V[^\n]*\np\d)"
    rb"|[\]})]q.[(.]"
)
_HEAD = 512
_BEGINNING = 4096  # bytes that are read of a file which is refused, for the words it says


def sniff(path: str | Path) -> str:
    """The kind of a file or folder: a key of KINDS. Reads half a kilobyte, and of some kinds as much once more."""
    path = Path(path)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            return "folder"
        if not stat.S_ISREG(status.st_mode):
            return "special"  # opening a pipe would wait for ever
        with path.open("rb", buffering=0) as file:
            head = file.read(_HEAD)
            kind = sniff_bytes(head)
            if kind == "unknown" and head.count(0) == len(head):
                file.seek(status.st_size // 2)
                middle = file.read(_HEAD)
                return "zeros" if middle.count(0) == len(middle) else "unknown"
            return kind
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
    if head[0] == 0x80 and head[1:2] <= b"\x05":
        return "pickle"
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if kind := _inner_magic(head):
        return kind
    if kind := _text(head):
        return kind
    if head[8:].lstrip(_JSON_SPACE)[:1] == b"{":
        return "safetensors"  # with a length that nobody believes
    return _protobuf(head) or ("flax" if _is_msgpack(head) else "unknown")


def refusal(path: str | Path, kind: str, wanted: str = "a model") -> FormatError:
    """The error that says what `path` is instead of what was wanted, with the words that it says itself."""
    words = ""
    if kind in _WORDS:
        kind, words = _WORDS[kind](_beginning(path))
    name, remedy = KINDS[kind]
    return FormatError(path, f"this is {name}{words}, not {wanted} that Bottega can read", remedy)


def unreadable(path: str | Path, error: OSError) -> FormatError:
    """The error for a file that the system does not let us read."""
    remedy = "check what it is, its permissions and its disk"
    return FormatError(path, f"can't be read ({error.strerror or error})", remedy)


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read it; OSError for a pipe or a device too: from one nothing may ever come, or no end."""
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115  closed by the caller
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
    return file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


# --- what has no magic at its beginning -------------------------------------------------------------------------------


def _inner_magic(head: bytes) -> str:
    """Kinds whose magic stands behind their first bytes."""
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12], "audio")
    if head[4:8] == b"ftyp":
        return "picture" if head[8:12] in (b"avif", b"heic", b"heix", b"mif1") else "video"
    if head[4:8] == b"TFL3":
        return "tflite"
    if head[4:6] == b"ET" and head[6:8].isdigit():
        return "executorch"
    if head[257:262] == b"ustar":
        return "torch-tar" if head[:100].rstrip(b"/\0").partition(b"/")[0] in _TORCH_TAR else "tar"
    if head[:2] == b"MZ" and (len(head) < 64 or 0 < int.from_bytes(head[60:64], "little") < 1 << 20):
        return "program"
    if head[1:4] == b"\x0d\x0d\x0a":  # a .pyc file: its version, then this
        return "program"
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return "picture"
    if head[:2] in (b"\xff\xfb", b"\xff\xf3", b"\xff\xf2"):
        return "audio"
    # aria2's control file: version 1, no extension, and the length of a torrent's hash, which is 0 or 20.
    if head[:5] == b"\0\1\0\0\0" and head[6:9] == bytes(3) and head[9:10] in (b"\0", b"\x14"):
        return "aria2"
    return ""


def _text(head: bytes) -> str:
    """Kinds that people can read, or nothing for bytes that nobody can."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):  # UTF-16, as Windows saves web pages
        head = head.decode("utf-16", "ignore").encode()
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    lower = text.lower()
    if lower.startswith(_HTML):
        return "html"
    if lower.startswith((b"<?xml", b"<svg", b"<error", b"<net ")):
        return _xml(lower)
    if text[:1] in (b"{", b"["):
        return "json"
    if _OLD_PICKLE.match(head):
        return "pickle"
    if not _is_text(head):
        return ""
    if _SHELL.match(text):
        return "script"
    return "python" if _PYTHON.search(text) else "text"


def _xml(lower: bytes) -> str:
    for tag, kind in ((b"<svg", "picture"), (b"<net ", "openvino"), (b"<html", "html")):
        if tag in lower:
            return kind
    return "xml"


def _is_text(head: bytes) -> bool:
    """Whether these bytes are UTF-8 without control characters; the last character may be cut."""
    for cut in range(min(4, len(head))):
        try:
            text = head[: len(head) - cut].decode()
        except UnicodeDecodeError:
            continue
        return all(character.isprintable() or character in "\t\r\n\f\u00a0\ufeff" for character in text)
    return False


def _protobuf(head: bytes) -> str:
    """ONNX, TensorFlow, Core ML and SentencePiece have no magic, but each begins with fields that only it has."""
    if head[:1] == b"\x0a":  # a message or a text under number 1
        inner = _payload(head, 1)
        if b"<unk>" in head[:64]:
            return "sentencepiece"
        # A frozen TensorFlow graph: nodes of a name and an operation.
        name = _payload(inner, 1) if inner[:1] == b"\x0a" else b""
        return "tensorflow" if _is_word(name) and inner[2 + len(name) :][:1] == b"\x12" else ""
    if head[:1] != b"\x08" or not 1 <= int.from_bytes(head[1:2]) <= 32:  # a version under number 1
        return ""
    after = head[4:] if head[2:4] == b"\x12\0" else head[2:]
    if after[:1] == b"\x12":  # a text or a message under number 2
        inner = _payload(after, 1)
        if _is_word(inner):
            return "onnx"  # its producer, such as `pytorch`
        if inner[:1] == b"\x0a":  # Core ML: a description of inputs; TensorFlow: meta information
            third = _payload(inner, 1)
            return "coreml" if third[:1] == b"\x0a" and _is_word(_payload(third, 1)) else "tensorflow"
        return ""
    # ONNX without a producer: a domain, a version, a graph, its operators or metadata follow.
    return "onnx" if after[:1] in (b"\x1a", b"\x22", b"\x28", b"\x32", b"\x3a", b"\x42", b"\x72") else ""


def _payload(raw: bytes, at: int) -> bytes:
    """The bytes behind the length at this place, as far as they are there."""
    length = shift = 0
    for index in range(at, min(at + 5, len(raw))):
        length |= (raw[index] & 0x7F) << shift
        shift += 7
        if raw[index] < 0x80:
            return raw[index + 1 : index + 1 + length]
    return b""


def _is_word(raw: bytes) -> bool:
    return 0 < len(raw) < 256 and all(0x20 <= byte < 0x7F for byte in raw)


def _is_msgpack(head: bytes) -> bool:
    """Whether this is a map from a word to a map or an array: how Flax keeps weights."""
    if 0x81 <= head[0] <= 0x8F:
        at = 1
    elif head[0] in (0xDE, 0xDF):
        at = 3 if head[0] == 0xDE else 5
    else:
        return False
    kind = head[at : at + 1]
    if b"\xa1" <= kind <= b"\xbf":
        begin, length = at + 1, kind[0] & 0x1F
    elif kind == b"\xd9" and len(head) > at + 1:
        begin, length = at + 2, head[at + 1]
    else:
        return False
    after = head[begin + length : begin + length + 1]
    return _is_word(head[begin : begin + length]) and (
        b"\x80" <= after <= b"\x8f" or after in (b"\xde", b"\xdf", b"\xc7", b"\xc8", b"\xc9")
    )


# --- what a refused file says itself ----------------------------------------------------------------------------------


def _beginning(path: str | Path) -> bytes:
    """The first bytes of a file, or none if it can't be read any more."""
    try:
        with open(path, "rb") as file:
            return file.read(_BEGINNING)
    except OSError:
        return b""


def _html_words(raw: bytes) -> tuple[str, str]:
    return "html", _quoted(re.search(rb"(?is)<title[^>]*>(.*?)</title", raw))


def _xml_words(raw: bytes) -> tuple[str, str]:
    """The message of a storage service, which is what a download link that has run out leads to."""
    return "xml", _quoted(re.search(rb"(?s)<Message>(.*?)</Message>", raw) or re.search(rb"(?s)<Code>(.*?)</", raw))


def _json_words(raw: bytes) -> tuple[str, str]:
    """What a site says is wrong; or that this is a model's config or the index of its parts."""
    for mark, kind in ((b'"weight_map"', "index"), (b'"model_type"', "config"), (b'"_class_name"', "config")):
        if mark in raw:
            return kind, ""
    answer = strictjson.object_or_none(raw.decode("utf-8", "replace")) or {}
    for key in ("error", "message", "detail", "title", "error_description"):
        value = answer.get(key)
        if isinstance(value, dict):
            value = value.get("message") or value.get("detail")
        if isinstance(value, str) and value.strip():
            return "json", f" that says {shown(value.strip())}"
    return "json", ""


def _text_words(raw: bytes) -> tuple[str, str]:
    line = raw.decode("utf-8", "replace").strip().partition("\n")[0].strip()
    return "text", f" that says {shown(line)}" if line else ""


def _pointer_words(raw: bytes) -> tuple[str, str]:
    size = re.search(rb"(?m)^size ([0-9]{1,18})$", raw)
    digest = re.search(rb"(?m)^oid sha256:([0-9a-f]{64})$", raw)
    words = f" to {int(size[1]):,} bytes" if size else ""
    return "lfs-pointer", words + (f" with SHA-256 {digest[1].decode()}" if digest else "")


def _quoted(match: re.Match[bytes] | None) -> str:
    said = " ".join(match[1].decode("utf-8", "replace").split()) if match else ""
    return f" that says {shown(said)}" if said else ""


_WORDS: dict[str, Callable[[bytes], tuple[str, str]]] = {
    "html": _html_words,
    "xml": _xml_words,
    "json": _json_words,
    "text": _text_words,
    "lfs-pointer": _pointer_words,
}
