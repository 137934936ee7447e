"""Everything that was made: an index of outputs with their recipes, and what came from what."""

from __future__ import annotations

from bottega.gallery.adopt import Adopted
from bottega.gallery.asked import Wishes
from bottega.gallery.fields import Difference
from bottega.gallery.index import Gallery
from bottega.gallery.lineage import Edge, Graph, Node
from bottega.gallery.output import BadCursor, Folder, GalleryError, Output, Page, UnknownOutput
from bottega.gallery.reading import read_output
from bottega.gallery.upkeep import Upkeep

__all__ = [
    "Adopted",
    "BadCursor",
    "Difference",
    "Edge",
    "Folder",
    "Gallery",
    "GalleryError",
    "Graph",
    "Node",
    "Output",
    "Page",
    "UnknownOutput",
    "Upkeep",
    "Wishes",
    "read_output",
]
