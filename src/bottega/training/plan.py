"""How much memory a training will take, before anything of it is loaded, and what to change where that is too much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bottega.runtime.plan import BYTES_OF
from bottega.training.recipe import TrainingRecipe

GIB = 1 << 30
_FIXED = 256 << 20  # what the libraries take for themselves
# Live copies of a level's picture that the way back needs: for each layer without attention, and for each transformer.
_KEPT_BY_LAYER, _KEPT_BY_BLOCK = 12, 34
_PLAIN_UP_TO = 1024  # positions up to which attention keeps all products on a CPU
_STATE = {"adamw": 2.0, "prodigy": 4.0, "adafactor": 0.1}  # numbers that the optimiser remembers of each weight


@dataclass(frozen=True)
class TrainingPlan:
    """Bytes that a training takes, against what the device has, and what to change where they are too many."""

    weights: Mapping[str, int]
    trained: int
    activations: int
    available: int
    advice: str

    @property
    def needed(self) -> int:
        """All of it together."""
        return _FIXED + sum(self.weights.values()) + self.trained + self.activations

    @property
    def fits(self) -> bool:
        """Whether the device has that much."""
        return self.needed <= self.available

    @property
    def words(self) -> str:
        """The plan in one sentence."""
        parts = [
            f"the model {_gib(sum(self.weights.values()))}",
            f"what is trained {_gib(self.trained)}",
            f"a step {_gib(self.activations)}",
        ]
        told = f"training needs {_gib(self.needed)} of memory ({', '.join(parts)}); {_gib(self.available)} is available"
        return told if self.fits else f"{told}: {self.advice}"


def plan(
    recipe: TrainingRecipe, weights: Mapping[str, int], count: int, unet: Mapping[str, Any], available: int, device: str
) -> TrainingPlan:
    """What a resolved training takes: `count` weights that are trained, of a UNet with these dimensions.

    `weights` are the bytes of the model's parts in the precision of the training.
    """
    each = 4 * (2 + _STATE[recipe.optimizer] + bool(recipe.ema) + bool(recipe.patience))  # weight and gradient first
    activations = step_bytes(recipe, unet, device)
    return TrainingPlan(weights, round(count * each), activations, available, _advice(recipe, device))


def step_bytes(recipe: TrainingRecipe, unet: Mapping[str, Any], device: str) -> int:
    """What the UNet keeps of one batch for the way back."""
    assert recipe.resolution is not None
    wide = BYTES_OF[recipe.precision]
    cells = recipe.resolution * recipe.resolution // 64
    kept = 0.0
    peak = 0.0
    heads = unet["heads"]
    for level, (width, depths) in enumerate(zip(unet["channels"], unet["down"], strict=True)):
        positions = max(cells >> (2 * level), 1)
        picture = width * positions * wide
        layers = len(depths) + len(unet["up"][-1 - level]) if level < len(unet["up"]) else len(depths)
        blocks = sum(depths) + (sum(unet["up"][-1 - level]) if level < len(unet["up"]) else 0)
        block = picture * _KEPT_BY_BLOCK
        if device == "cpu" and positions <= _PLAIN_UP_TO:
            block += heads[level] * positions * positions * wide * 3
        layer = picture * _KEPT_BY_LAYER
        kept += layers * layer + blocks * block
        peak = max(peak, layer * 2 + block * max([1, *depths]))
        if recipe.checkpointing:
            kept -= layers * layer + blocks * block - picture * (layers + blocks)
    return round((kept + (peak if recipe.checkpointing else 0)) * recipe.batch)


def _advice(recipe: TrainingRecipe, device: str) -> str:
    """What makes it smaller, what costs least first."""
    ways = []
    if recipe.batch > 1:
        ways.append(f"a smaller batch than {recipe.batch} (accumulate makes up for it)")
    if not recipe.checkpointing:
        ways.append("checkpointing")
    if recipe.precision == "float32":
        ways.append("precision bfloat16")
    if recipe.optimizer != "adafactor" and recipe.kind == "full":
        ways.append("the optimizer adafactor")
    ways.append(f"a smaller resolution than {recipe.resolution}")
    if recipe.kind == "full":
        ways.append("a LoRA instead of the whole model")
    return "use " + ", or ".join(ways)


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
