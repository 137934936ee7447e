"""What a model says about itself: in its own metadata, and in the cards that people and programs put beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bottega.library.about.facts import About

if TYPE_CHECKING:
    from bottega.formats.header import Header

__all__ = ["About", "about"]


def about(header: Header, path: Path) -> About:
    """All that is said of the model at this path, whose header was read: in it, and in what lies beside it.

    Nothing that is said there is trusted: it stays text, too much of it is left out, and no address in it is opened.
    A card that is too large, or can't be read, is passed over and named in `extra`.
    """
    from bottega.library.about.sources import gather  # which a listing, that only shows what is known, does not need

    return gather(header, path)
