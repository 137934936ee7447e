"""How much one request may ask of a server that others use too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bottega.errors import FieldProblem, InvalidRecipe

if TYPE_CHECKING:
    from bottega.recipe import Recipe

MOST_PIXELS = 4096 * 4096
MOST_STEPS = 500
MOST_PICTURES = 64


def check(draft: Recipe) -> None:
    """Raise InvalidRecipe, with every field, for a draft that asks for more than this."""
    if problems := list(_too_much(draft)):
        raise InvalidRecipe(problems)


def _too_much(draft: Recipe) -> Iterator[FieldProblem]:
    size, steps = draft.size, draft.sampling.steps
    if size and size.width * size.height > MOST_PIXELS:
        yield FieldProblem(
            "size.width", f"{size.width}x{size.height} is too much for a server", "4096x4096 is the most"
        )
    if steps is not None and steps > MOST_STEPS:
        yield FieldProblem("sampling.steps", f"{steps} is too much for a server", f"{MOST_STEPS} is the most")
    if draft.count > MOST_PICTURES:
        yield FieldProblem("count", f"{draft.count} is too much for a server", f"{MOST_PICTURES} at once is the most")
