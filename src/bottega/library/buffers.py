"""Memory that files are read into at the machine's full pace."""

from __future__ import annotations

_PAST = 240  # bytes from where a large bytearray begins, 16 bytes into a page, to where it is well read into


def read_buffer(size: int) -> bytearray:
    """As many zeros, to be read into.

    The kernel copies with `rep movsb`, which AMD's Zen 3 and 4 do at a fifth of their pace where the destination lies a
    few bytes further into its page than the source into its own (glibc bug 30994). Files begin where a page does, and a
    large bytearray 16 bytes into one: the worst case, every time.
    """
    buffer = bytearray(size + _PAST)
    del buffer[:_PAST]  # which moves where it begins, and no bytes
    return buffer
