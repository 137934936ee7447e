"""What files are read into begins where the kernel's copying is fast."""

from __future__ import annotations

import ctypes

import pytest

from bottega.library.buffers import read_buffer


@pytest.mark.parametrize("size", [0, 1, 100, 1 << 20])
def test_it_has_the_size_that_was_asked_for(size: int) -> None:
    buffer = read_buffer(size)
    assert buffer == bytes(size)
    memoryview(buffer)[:] = b"x" * size
    assert buffer == b"x" * size


@pytest.mark.parametrize("size", [1 << 20, (4 << 20) + 1, 64 << 20])
def test_a_large_one_begins_where_copying_is_fast(size: int) -> None:
    kept = [read_buffer(size) for _ in range(3)]
    assert {ctypes.addressof(ctypes.c_char.from_buffer(buffer)) % 4096 for buffer in kept} == {256}
