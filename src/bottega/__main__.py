"""The command `bottega`, also as `python -m bottega`: whenever Ctrl-C or SIGTERM comes, it ends clean with code 130."""

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
        import gc
        import signal

        from bottega.cli import main

        usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        obeyed = [number for number, handler in usual.items() if signal.getsignal(number) is handler]  # not ignored
        for number in obeyed:
            signal.signal(number, interrupt)
        code = main()
        for number in obeyed:
            # What is left is the interpreter's own end, in which an exception would print a trace.
            signal.signal(number, leave)
        gc.freeze()  # all that is left goes with the process: looking for garbage in torch takes a third of a second
        return code
    except KeyboardInterrupt:
        leave()


def interrupt(signum: int, frame: FrameType | None) -> None:
    """Answer Ctrl-C, or SIGTERM, with KeyboardInterrupt; while a module is imported, with the end at once.

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
