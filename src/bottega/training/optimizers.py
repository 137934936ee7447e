"""The optimisers that weights are trained with, all from libraries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from bottega.errors import FieldProblem, InvalidRecipe
from bottega.training.recipe import TrainingRecipe


def optimizer_of(recipe: TrainingRecipe, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimiser of a recipe over groups of weights, each with its learning rate under `lr`.

    Raises InvalidRecipe where the library that has it is not installed.
    """
    decay = recipe.weight_decay
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, weight_decay=decay, foreach=False)
    if recipe.optimizer == "adafactor":
        return torch.optim.Adafactor(groups, weight_decay=decay, foreach=False)
    try:
        from prodigyopt import Prodigy
    except ImportError:
        problem = FieldProblem("optimizer", "prodigy is not installed", "pip install 'bottega[train]', or use adamw")
        raise InvalidRecipe([problem]) from None
    return Prodigy(groups, weight_decay=decay, safeguard_warmup=recipe.warmup > 0, use_bias_correction=True)
