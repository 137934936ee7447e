"""Bottega: one workbench for AI-generated content, from a model file to a picture that can be made again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bottega.version import __version__

if TYPE_CHECKING:
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
