"""Bottega: one workbench for AI-generated content, from a model file to a picture that can be made again."""

from __future__ import annotations

from bottega.version import __version__

# Type checkers know the name. Importing typing for it would take longer than the rest of this, and an interrupt
# meanwhile would come before the command line is there to catch it.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bottega.recipe import Recipe
    from bottega.workbench import Workbench

__all__ = ["Recipe", "Workbench", "__version__"]


def __getattr__(name: str) -> Any:
    # Loaded when asked for, so that `import bottega` costs nothing.
    if name == "Workbench":
        from bottega.workbench import Workbench

        return Workbench
    if name == "Recipe":
        from bottega.recipe import Recipe

        return Recipe
    raise AttributeError(f"module 'bottega' has no attribute {name!r}")
