"""The command `bottega`, also as `python -m bottega`: whenever Ctrl-C comes, it ends with one line and code 130."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # as in bottega/__init__.py
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn


def run() -> int:
    """Run the command line as a program; its exit code."""
    try:
        import signal

        from bottega.cli import main

        obeyed = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else our caller wants it ignored
        if obeyed:
            signal.signal(signal.SIGINT, interrupt)
        code = main()
        if obeyed:
            # What is left is the interpreter's own end, in which an exception would print a trace.
            signal.signal(signal.SIGINT, leave)
        return code
    except KeyboardInterrupt:
        leave()


def interrupt(signum: int, frame: FrameType | None) -> None:
    """Answer Ctrl-C with KeyboardInterrupt; while a module is imported, with the end at once.

    Libraries in C++ swallow an exception that comes in the middle of their import, or abort, and there is nothing to
    clean up then.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            leave()
        frame = frame.f_back
    raise KeyboardInterrupt


def leave(*_: object) -> NoReturn:
    """End at once, with the line and the exit code of an interrupt."""
    try:
        if sys.stderr is not None:  # closed by our caller, its number may be another file's by now
            os.write(sys.stderr.fileno(), b"bottega: interrupted\n")  # the object may be in the middle of something
    finally:
        os._exit(130)


if __name__ == "__main__":
    sys.exit(run())
