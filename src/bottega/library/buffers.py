"""Memory that files are read into, and compared, at the machine's full pace."""

from __future__ import annotations

import ctypes
import os
from functools import cache

_PAGE, _PAST = 4096, 256  # bytes of a page, and from where one begins to where it is well read into


def read_buffer(size: int) -> bytearray:
    """As many zeros, to be read into.

    The kernel copies with `rep movsb`, which AMD's Zen 3 and 4 do at a fifth of their pace where the destination lies a
    few bytes further into its page than the source into its own (glibc bug 30994). Files begin where a page does, and a
    large bytearray 16 bytes into one, as a rule: the worst case, every time.
    """
    buffer = bytearray(size + _PAGE)
    at = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    del buffer[: (_PAST - at) % _PAGE]  # which moves where it begins, and no bytes
    del buffer[size:]
    return buffer


def same_bytes(one: memoryview, other: memoryview) -> bool:
    """Whether two writable stretches of memory hold the same bytes.

    They are compared without Python's lock, which whoever computes meanwhile needs after every step.
    """
    if len(one) != len(other):
        return False
    ours, theirs = ((ctypes.c_char * len(each)).from_buffer(each) for each in (one, other))
    return bool(_c_library().memcmp(ours, theirs, ctypes.c_size_t(len(one))) == 0)


@cache
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL("msvcrt" if os.name == "nt" else None)
