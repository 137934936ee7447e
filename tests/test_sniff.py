"""Files are told by their content, never by their name, and each is called by its name with the words that it says."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from bottega.errors import FormatError
from bottega.formats import read_header
from bottega.formats.sniff import KINDS, refusal, sniff, sniff_bytes


def field(number: int, content: bytes) -> bytes:
    """A message or text of protobuf."""
    length = len(content)
    size = bytes([length]) if length < 128 else bytes([length & 0x7F | 0x80, length >> 7])
    return bytes([number << 3 | 2]) + size + content


def tar(name: str) -> bytes:
    return name.encode().ljust(257, b"\0") + b"ustar  \0" + bytes(247)


ONNX_GRAPH = field(7, field(1, field(1, b"x") + field(4, b"Conv")))
EXAMPLES = {
    "safetensors": [struct.pack("<Q", 2) + b"{}"],
    "gguf": [b"GGUF" + struct.pack("<IQQ", 3, 0, 0)],
    "pickle": [
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", b"\x80\x04\x95\x00", b"cos\nsystem\n(S'true'\ntR.",
        b"(dp0\nS'a'\np1\n", b"(S'true'\nios\nsystem\n.", b"}q\0(X", b"(lp0\n.", b"(cos\nsystem\n",
    ],
    "zip": [b"PK\3\4" + bytes(26), b"PK\5\6" + bytes(18)],
    "empty": [b""],
    "aria2": [bytes.fromhex("00010000000000000000 00100000 0000000100000000")],
    "lfs-pointer": [b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"],
    "html": [b"<!DOCTYPE html>", b"\n\n<html lang=en>", b"<?xml version='1.0'?><!DOCTYPE html><html xmlns='x'>",
             "<!DOCTYPE html><p>é".encode("utf-16"), b"\xfe\xff" + "<html>".encode("utf-16-be")],
    "json": [b'{"error": "x"}', b"\xef\xbb\xbf[1]"],
    "xml": [b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', b"<Error><Code>x</Code></Error>"],
    "text": [b"Entry not found", "Zugriff verweigert: läuft nicht\n".encode(), b"trigger: a, b", b"x" * 511 + b"\xc3"],
    "ggml": [b"lmgg\0\0", b"tjgg\3\0\0\0", b"algg\1\0\0\0"],
    "onnx": [
        b"\x08\x07" + field(2, b"pytorch") + field(3, b"2.1") + ONNX_GRAPH, b"\x08\x03" + ONNX_GRAPH,
        b"\x08\x0a\x12\x00\x3a\x02\x0a\x00",
    ],
    "openvino": [b'<?xml version="1.0"?>\n<net name="m" version="11">', b'<net name="m">'],
    "tensorflow": [
        b"\x08\x01" + field(2, field(1, field(2, field(1, b"Const")))),
        field(1, field(1, b"input") + field(2, b"Placeholder")),
    ],
    "tflite": [b"\x1c\0\0\0TFL3" + bytes(20)],
    "coreml": [b"\x08\x05" + field(2, field(1, field(1, b"image") + field(3, b"\x2a\0")))],
    "tensorrt": [b"ftrt\0\0\0\0\x10\x27"],
    "executorch": [b"\x1c\0\0\0ET12eh00" + bytes(20)],
    "litert-lm": [b"LITERTLM\1\0\0\0\4\0\0\0"],
    "flax": [b"\x81\xa6params\x82\xa1a\x81", b"\xde\x00\x10\xa5Dense\xc7\x10\x01"],
    "hdf5": [b"\x89HDF\r\n\x1a\n"],
    "joblib": [b"ZF0x1f4             x\x9c"],
    "npy": [b"\x93NUMPY\1\0v\0"],
    "sentencepiece": [field(1, field(1, b"<unk>") + b"\x15\0\0\0\0\x18\2")],
    "7z": [b"7z\xbc\xaf\x27\x1c\0\4"],
    "rar": [b"Rar!\x1a\x07\x01\0"],
    "tar": [tar("model/unet.bin")],
    "torch-tar": [tar("sys_info"), tar("storages")],
    "gzip": [b"\x1f\x8b\x08\0"],
    "xz": [b"\xfd7zXZ\0"],
    "bzip2": [b"BZh91AY&SY"],
    "zstd": [b"\x28\xb5\x2f\xfd\0"],
    "gpt-sovits": [b"05\3\4\0", b"03\3\4\0"],
    "lz4": [b"\x04\x22\x4d\x18\0"],
    "png": [b"\x89PNG\r\n\x1a\n"],
    "jpeg": [b"\xff\xd8\xff\xe1"],
    "webp": [b"RIFF\0\0\0\0WEBPVP8 "],
    "gif": [b"GIF89a"],
    "picture": [b"\0\0\0\x1cftypavif", b"BM\0\1\0\0\0\0\0\0\x36\0\0\0", b"II*\0", b"<svg xmlns='x'>", b"8BPS\0\1"],
    "video": [b"\0\0\0\x20ftypisom", b"\x1aE\xdf\xa3\1", b"RIFF\0\0\0\0AVI LIST"],
    "audio": [b"RIFF\0\0\0\0WAVEfmt ", b"fLaC\0", b"OggS\0\2", b"ID3\4\0", b"\xff\xfb\x90\0"],
    "pdf": [b"%PDF-1.7\n"],
    "sqlite": [b"SQLite format 3\0\x10\0"],
    "program": [
        b"\x7fELF\2\1\1", b"MZ\x90\0" + bytes(56) + struct.pack("<I", 128), b"\xcf\xfa\xed\xfe\7", b"\0asm\1\0\0\0",
        b"\xa7\r\r\n\0\0\0\0", b"\xca\xfe\xba\xbe\0\0",
    ],
    "script": [b"#!/bin/sh\nrm -rf x\n", b"#!/usr/bin/env python3\n", b"@echo off\r\n"],
    "python": [b"import torch\n", b'"""A model."""\n\nfrom torch import nn\n', b"# coding\nclass Net(Module):\n"],
    "key": [b"-----BEGIN OPENSSH PRIVATE KEY-----\n"],
    "shortcut": [b"L\0\0\0\1\x14\2\0\0", b"[InternetShortcut]\r\nURL=", b"XSym\n0004\n"],
    "resource-fork": [b"\0\5\x16\7\0\2\0\0Mac OS X"],
    "unknown": [b"\x01\x02\x03", b"\xff" * 64, b"\x08\x07\x99", b"\x81\xa6params\x01", b"\0" * 16 + b"\1"],
}  # fmt: skip


@pytest.mark.parametrize("kind", EXAMPLES)
def test_each_kind_is_called_by_its_name(tmp_path: Path, kind: str) -> None:
    for number, head in enumerate(EXAMPLES[kind]):
        path = tmp_path / f"{number}.safetensors"
        path.write_bytes(head)
        assert sniff(path) == kind, head
        error = refusal(path, kind)
        assert KINDS[kind][0] in str(error) and str(error).isprintable() and len(str(error)) < 500


def test_every_kind_is_tested() -> None:
    told_by_more = {"special", "folder", "zeros", "config", "index"}
    assert set(KINDS) == set(EXAMPLES) | told_by_more
    assert all(remedy for kind, (_, remedy) in KINDS.items() if kind != "safetensors")


def test_no_beginning_of_a_file_breaks_it() -> None:
    for heads in EXAMPLES.values():
        for head in heads:
            for length in range(len(head)):
                assert sniff_bytes(head[:length]) in KINDS
                assert sniff_bytes(head[length:]) in KINDS


def test_a_download_that_was_never_filled(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.touch()
    with path.open("r+b") as file:
        file.truncate(5 << 30)  # sparse
    with pytest.raises(FormatError, match=r"nothing but zeros.*never filled it: download it again"):
        read_header(path)
    with path.open("r+b") as file:
        file.seek(5 << 29)
        file.write(b"something")
    with pytest.raises(FormatError, match="no format that Bottega knows"):
        read_header(path)


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'ab' * 32}\nsize 4265380512\n".encode()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"error": "Invalid username or password."}', "JSON text that says 'Invalid username or password.'"),
        (b'{"error": {"code": 403, "message": "No access"}}', "JSON text that says 'No access'"),
        (b'{"message": "Rate\\u001b[31m limit"}', r"says 'Rate\x1b[31m limit'"),
        (b'{"detail": "' + b"x" * 300 + b'"}', "says 'xxxx"),
        (b'{"error": ', "this is JSON text, not"),
        (b'{"nodes": []}', "this is JSON text, not"),
        (b"[1, 2]", "this is JSON text, not"),
        (json.dumps({"architectures": ["X"], "model_type": "llama"}).encode(), "a model's config, not its weights"),
        (b'{"_class_name": "UNet2DConditionModel"}', "a model's config"),
        (b'{"metadata": {}, "weight_map": {"a": "b"}}', "the index of a model in several files"),
        (b"<html><head><title>Just a\n moment...</title>", "a web page that says 'Just a moment...'"),
        (b"<html></html>", "this is a web page, not"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>",
         "XML text that says 'Request has expired'"),
        (b"<Error><Code>NoSuchKey</Code></Error>", "XML text that says 'NoSuchKey'"),
        (b"Entry not found\nsecond line", "plain text that says 'Entry not found'"),
        (POINTER, f"pointer to 4,265,380,512 bytes with SHA-256 {'ab' * 32}"),
        (POINTER[:60], "this is a git-LFS pointer, not"),
    ],
)  # fmt: skip
def test_what_a_refused_file_says_is_told(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(content)
    with pytest.raises(FormatError) as caught:
        read_header(path)
    assert words in str(caught.value) and str(caught.value).isprintable() and len(str(caught.value)) < 600
    assert caught.value.remedy


def test_the_name_of_a_file_tells_nothing(tmp_path: Path) -> None:
    for name in ("model.gguf", "model.safetensors", "model.png", "model"):
        path = tmp_path / name
        path.write_bytes(EXAMPLES["onnx"][0])
        with pytest.raises(FormatError, match="an ONNX model"):
            read_header(path)
        path.write_bytes(struct.pack("<Q", 2) + b"{}")
        assert read_header(path).format == "safetensors"
