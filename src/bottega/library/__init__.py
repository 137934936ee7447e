"""The library: what models are on the shelves, what each of them is, and how to find one.

It is given the families and does not know them; it reads headers and runs nothing.
"""

from __future__ import annotations

from bottega.library.catalog import Catalog, Entry, open_catalog

__all__ = ["Catalog", "Entry", "open_catalog"]
