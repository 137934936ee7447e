"""How server and worker talk: one JSON object to a line, over pipes; and how a process is told from its namesakes."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

PIPE = 1 << 16  # bytes that a pipe holds on most systems


class Pipe:
    """The sending end of a conversation, safe to share between threads."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, *told: Mapping[str, Any]) -> None:
        """Send messages, in one go: whoever listens wakes up once; BrokenPipeError if nobody does any more."""
        texts = (json.dumps(message, ensure_ascii=False, separators=(",", ":")) for message in told)
        # A path may have bytes that are no UTF-8, which Python holds as half characters; `json.loads` takes them so.
        lines = [text.encode("utf-8", "surrogatepass") + b"\n" for text in texts]
        with self._lock:
            self._stream.write(b"".join(lines))
            self._stream.flush()

    def close(self) -> None:
        """Hang up."""
        with self._lock, suppress(OSError):
            self._stream.close()


def messages(stream: BufferedReader) -> Iterator[dict[str, Any]]:
    """What the other side says, until it hangs up; half a line, or one that is no message, means that it died."""
    for told in batches(stream):
        yield from told


def batches(stream: BufferedReader) -> Iterator[list[dict[str, Any]]]:
    """The same, and at a time all that is there: what was sent in one go mostly arrives so."""
    begun: list[bytes] = []  # of a line whose end has not come yet
    with suppress(OSError, ValueError):
        while came := stream.read1(PIPE):
            whole, newline, rest = came.rpartition(b"\n")
            if newline:
                lines = b"".join([*begun, whole]).split(b"\n")
                told = list(_understood(lines))
                yield told
                if len(told) < len(lines):
                    return
                begun.clear()
            begun.append(rest)


def _understood(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The messages on these lines, up to one that is none."""
    with suppress(ValueError):
        for line in lines:
            message = json.loads(line)
            if not isinstance(message, dict):
                return
            yield message


def identity(pid: int) -> str:
    """A process by number and, where the system tells it, the time it began: numbers are given out again."""
    with suppress(OSError, IndexError):
        return f"{pid}:{Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
    return f"{pid}:"


def lives(who: str) -> bool:
    """Whether the process of that identity is still there."""
    number, _, began = who.partition(":")
    if not number.isdecimal():
        return False
    if began:
        return identity(int(number)) == who and not _is_zombie(int(number))
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _is_zombie(pid: int) -> bool:
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    return True


def resident(pid: int) -> int:
    """Bytes of main memory that only this process holds, as far as the system tells it; 0 where it does not."""
    with suppress(OSError, IndexError, ValueError):
        pages = Path(f"/proc/{pid}/statm").read_text().split()
        return (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGE_SIZE")
    return 0


def kernel_kills() -> int:
    """How often the kernel has ended a process for want of memory, on this machine and in this control group."""
    total = 0
    for path, name in (("/proc/vmstat", "oom_kill"), ("/sys/fs/cgroup/memory.events", "oom_kill")):
        with suppress(OSError, ValueError):
            for line in Path(path).read_text().splitlines():
                key, _, value = line.partition(" ")
                if key == name:
                    total += int(value)
    return total
