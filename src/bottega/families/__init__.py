"""The families of models that Bottega can run: one module each, found by being here."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from bottega.spec import Family


@cache
def family_ids() -> tuple[str, ...]:
    """The ids of all families, by name."""
    return tuple(sorted(module.name for module in iter_modules(__path__) if not module.name.startswith("_")))


def family(id: str) -> Family:
    """One family's face; KeyError for an id that is none."""
    if id not in family_ids():
        raise KeyError(id)
    face = import_module(f"{__name__}.{id}").family
    assert isinstance(face, Family)
    return face


def all_families() -> tuple[Family, ...]:
    """Every family's face."""
    return tuple(family(id) for id in family_ids())
