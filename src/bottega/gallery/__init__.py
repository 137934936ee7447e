"""Everything that was made: an index of outputs with their recipes, and what came from what."""

from __future__ import annotations

from bottega.gallery.index import Gallery
from bottega.gallery.output import BadCursor, Folder, GalleryError, Output, Page, UnknownOutput

__all__ = ["BadCursor", "Folder", "Gallery", "GalleryError", "Output", "Page", "UnknownOutput"]
