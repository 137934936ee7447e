"""Numbers are read from wherever they lie without holding more of them than a few blocks."""

from __future__ import annotations

import random
import tracemalloc
import zlib
from pathlib import Path

import pytest
import torch

from bottega.errors import FormatError, SaveError
from bottega.formats import tensor_bytes
from bottega.formats.header import Header, Packed, TensorInfo
from bottega.library import contents, unpacked
from bottega.library.contents import HELD, Reader, dtype_of
from bottega.library.convert import Wish, convert
from bottega.runtime.casts import Cast


def deflated(path: Path, raw: bytes) -> Packed:
    packer = zlib.compressobj(1, wbits=-15)
    path.write_bytes(packer.compress(raw) + packer.flush())
    return Packed(0, path.stat().st_size, len(raw))


def read(reader: Reader, info: TensorInfo, elements: int = 1 << 16) -> bytes:
    return b"".join(map(bytes, reader.blocks((info,), elements)))


@pytest.mark.parametrize("strides", [None, (1, 4096)])
def test_what_is_deflated_is_never_held(tmp_path: Path, strides: tuple[int, ...] | None) -> None:
    raw = bytes(64 << 20)
    packed = deflated(tmp_path / "a", raw)
    info = TensorInfo("F32", (4096, 4096), tmp_path / "a", 0, len(raw), strides, packed)
    tracemalloc.start()
    try:
        with Reader() as reader:
            assert sum(len(block) for block in reader.blocks((info,), 1 << 16)) == len(raw)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 << 20


@pytest.mark.parametrize("order", ["forwards", "backwards", "shuffled"])
def test_views_of_one_storage_unpack_it_at_most_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    raw = random.Random(0).randbytes(3 << 20)
    packed = deflated(tmp_path / "a", raw)
    times = []
    monkeypatch.setattr(unpacked, "inflate", lambda *a: times.append(a) or tensor_bytes.inflate(*a))
    step = 3 << 14
    infos = [TensorInfo("U8", (step,), tmp_path / "a", at, at + step, None, packed) for at in range(0, len(raw), step)]
    {"forwards": list, "backwards": list.reverse, "shuffled": random.Random(1).shuffle}[order](infos)
    with Reader() as reader:
        for info in infos:
            assert read(reader, info, 1000) == raw[info.start : info.end]
    assert len(times) == (1 if order == "forwards" else 2)


def test_a_large_scattered_tensor_is_read_tile_by_tile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = torch.arange(60 * 70, dtype=torch.float32).reshape(60, 70)
    (tmp_path / "a").write_bytes(numbers.numpy().tobytes())
    monkeypatch.setattr(contents, "MAPPED", 1000)
    tiles = list(contents._tiles(numbers.numpy().T))
    assert tiles[1] == (slice(None), slice(3, 6)) and len(tiles) == 20  # 3 of its columns lie in 1000 bytes
    for elements in (7, 500, 10_000):
        monkeypatch.setattr(contents, "ELEMENTS", elements)
        with Reader() as reader:
            info = TensorInfo("F32", (70, 60), tmp_path / "a", 0, numbers.nbytes, (1, 70))
            assert read(reader, info) == numbers.T.contiguous().numpy().tobytes()


def test_a_deflated_part_that_is_too_short_is_told(tmp_path: Path) -> None:
    packed = deflated(tmp_path / "a", bytes(100))
    info = TensorInfo("U8", (200,), tmp_path / "a", 0, 200, None, packed)
    with Reader() as reader, pytest.raises(FormatError, match="shorter than it claims"):
        read(reader, info)


def test_no_room_to_unpack_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = deflated(tmp_path / "a", bytes(64))
    info = TensorInfo("F32", (4, 4), tmp_path / "a", 0, 64, (1, 4), packed)
    monkeypatch.setattr(unpacked.tempfile, "tempdir", str(tmp_path / "nowhere"))
    with Reader() as reader, pytest.raises(SaveError, match="could not be unpacked"):
        read(reader, info)


def test_a_dtype_that_safetensors_lacks_is_not_called_quantised(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(64))
    header = Header(tmp_path / "a", "pickle", {"x": TensorInfo("C128", (4,), tmp_path / "a", 0, 64)})
    with pytest.raises(FormatError, match="C128, which safetensors lacks"):
        convert(header, tmp_path / "b.safetensors", Wish())
    with pytest.raises(FormatError, match="quantised"):
        dtype_of((TensorInfo("Q4_0", (32,), tmp_path / "a", 0, 18),))


def test_a_cast_keeps_as_many_results_as_are_held() -> None:
    cast = Cast("F32", "F16", 1, HELD)
    results = [cast.store(torch.tensor([float(number)])) for number in range(HELD + 1)]
    back = [torch.frombuffer(result, dtype=torch.float16).item() for result in results]
    assert back == [HELD, *range(1, HELD + 1)]
