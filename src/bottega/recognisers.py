"""All that tells a model by its header: the families that run, the architectures that are known, the adapters."""

from __future__ import annotations

from functools import cache

from bottega.adapters import all_adapters
from bottega.families import all_families, known
from bottega.library.identify import Recognisers


@cache
def all_recognisers() -> Recognisers:
    """Every recogniser; each published layout is claimed by one of them."""
    return Recognisers((*all_families(), *known(), *all_adapters()))
