"""While a model is loaded, nothing in this process may unpickle, start a program or let torch load a file.

Bottega reads pickles as data, so none of this ever happens; the guard is for the day when a library that is called
along the way, or a change of ours, does it after all. It works on the thread that loads, because the process may have
others with work of their own. Python's audit hooks can't be taken off again, so there is one, installed once.

Compiling, `marshal.loads` and `exec` are not guarded: they are how Python imports modules, which loading a model does.
So are programs that a module starts while it is imported (some ask `ldconfig` for a library).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, NoReturn

from bottega.errors import BottegaError

_UNPICKLING = frozenset({"pickle.find_class"})
_STARTING = frozenset(
    {
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.spawn",
        "os.startfile",
        "os.fork",
        "os.forkpty",
        "subprocess.Popen",
        "pty.spawn",
    }
)

_state = threading.local()
_installing = threading.Lock()
_installed = False


class ForbiddenWhileLoading(BottegaError):
    """Something tried to run code while a model was loaded; it was stopped before it did."""


@contextmanager
def guarded() -> Iterator[None]:
    """Until the block ends, this thread can't unpickle, start a program or call `torch.load`."""
    _install()
    _state.depth = getattr(_state, "depth", 0) + 1
    try:
        yield
    finally:
        _state.depth -= 1


def is_armed() -> bool:
    """Whether this thread is loading a model."""
    return getattr(_state, "depth", 0) > 0


def _install() -> None:
    global _installed
    with _installing:
        if not _installed:
            sys.addaudithook(_watch)
            _replace_torch_load()
            _installed = True


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if event in _UNPICKLING and is_armed():
        _refuse(f"unpickle {args[0]}.{args[1]}")
    if event in _STARTING and is_armed() and not _is_importing():
        _refuse(f"start a program ({event})")


def _refuse(what: str) -> NoReturn:
    raise ForbiddenWhileLoading(
        f"while a model was loaded, something tried to {what}, and was stopped", "report this to the project's issues"
    )


def _is_importing() -> bool:
    """Whether this happens in the body of a module that is being imported."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "_find_and_load" and frame.f_globals.get("__name__") == "importlib._bootstrap":
            return True
        frame = frame.f_back
    return False


def _replace_torch_load() -> None:
    """Make `torch.load`, whose unpickler raises no audit event, refuse while a model is loaded."""
    import torch

    replaced = _refusing(torch.serialization.load)
    torch.load = torch.serialization.load = replaced  # noqa: TID251


def _refusing(load: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(load)
    def guarded_load(*args: Any, **options: Any) -> Any:
        if is_armed():
            _refuse("call torch.load")
        return load(*args, **options)

    return guarded_load
