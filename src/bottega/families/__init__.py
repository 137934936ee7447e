"""The families of models: those that Bottega can run, one module each, found by being here; and those that it knows."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from bottega.spec import Family, Known


@cache
def family_ids() -> tuple[str, ...]:
    """The ids of all families, by name."""
    return tuple(sorted(module.name for module in iter_modules(__path__) if not module.name.startswith("_")))


@cache
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


@cache
def known() -> tuple[Known, ...]:
    """The architectures that are told by their headers, but can't be run yet: tables in the modules of `_known`."""
    package = import_module(f"{__name__}._known")
    modules = (import_module(f"{package.__name__}.{module.name}") for module in iter_modules(package.__path__))
    return tuple(each for module in modules for each in getattr(module, "KNOWN", ()))
