"""The kinds of models that change others, or complete them: one module each, found by being here."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from bottega.spec import Adapter


@cache
def all_adapters() -> tuple[Adapter, ...]:
    """Every adapter's face, by the names of their modules."""
    names = sorted(module.name for module in iter_modules(__path__) if not module.name.startswith("_"))
    return tuple(import_module(f"{__name__}.{name}").adapter for name in names)
