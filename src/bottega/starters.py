"""The models that come with Bottega: on record before anybody scans, so that even the first list shows something."""

from __future__ import annotations

from bottega.library import Catalog
from bottega.settings import STARTER_SHELF


def know_starter(catalog: Catalog) -> None:
    """Scan the shelf that comes with Bottega where that was not done since it changed."""
    known = catalog.entries(STARTER_SHELF)
    if known and all(entry.is_current() for entry in known):
        return
    from bottega.library.scan import scan
    from bottega.recognisers import all_recognisers

    scan(catalog, [STARTER_SHELF], all_recognisers())
