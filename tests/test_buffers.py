"""What files are read into begins where the kernel's copying is fast."""

from __future__ import annotations

import ctypes
import sys

import pytest

from bottega.library.buffers import read_buffer


@pytest.mark.parametrize("size", [0, 1, 100, 1 << 20])
def test_it_has_the_size_that_was_asked_for(size: int) -> None:
    buffer = read_buffer(size)
    assert buffer == bytes(size)
    memoryview(buffer)[:] = b"x" * size
    assert buffer == b"x" * size


@pytest.mark.skipif(sys.platform != "linux", reason="other systems place memory in other ways")
def test_a_large_one_does_not_begin_a_few_bytes_into_a_page() -> None:
    kept = [read_buffer(64 << 20) for _ in range(3)]  # so large that each is mapped by itself
    for buffer in kept:
        at = ctypes.addressof(ctypes.c_char.from_buffer(buffer)) % 4096
        assert at == 256, "a bytearray begins elsewhere than it used to: see what reading into it costs there"
