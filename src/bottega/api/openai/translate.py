"""From a request of OpenAI's to a draft recipe."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from math import isfinite, nan
from typing import Any

from bottega.api.openai.asked import Making
from bottega.errors import FieldProblem, InvalidRecipe
from bottega.recipe import Media, Output, Recipe, Ref, recipe_from

# The fields of a recipe under the names that OpenAI's clients know.
NAMES: Mapping[str, str] = {
    "negative": "negative_prompt",
    "sampling.sampler": "sampler",
    "sampling.schedule": "scheduler",
    "sampling.steps": "steps",
    "sampling.guidance": "cfg_scale",
    "sampling.seed": "seed",
    "sampling.strength": "strength",
    "size": "size",
    "count": "n",
    "inputs": "image",
    "adapters": "loras",
}
_SIZE = re.compile(r"(\d{1,6})\s*[xX×]\s*(\d{1,6})")

Find = Callable[[str, str], Ref | None]  # the model of a kind that a client's name means, None for the usual one


def draft(asked: Making, find: Find, inputs: Sequence[Media] = ()) -> Recipe:
    """The draft that a request describes, with the pictures that it brings.

    Raises InvalidRecipe, its fields named as the request names them.
    """
    problems = []
    if asked.prompt is None:
        problems.append(FieldProblem("prompt", "is empty", "say what to make"))
    if asked.background == "transparent":
        problems.append(FieldProblem("background", "this version makes no transparent pictures", "use auto"))
    size = _size(asked.size, problems)
    adapters = [_lora(told, find, problems) for told in asked.loras or ()]
    if problems:
        raise InvalidRecipe(problems)
    model = find("checkpoint", asked.model) if asked.model else None
    sampling = {
        "sampler": asked.sampler,
        "schedule": asked.scheduler,
        "steps": asked.steps,
        "guidance": asked.cfg_scale,
        "seed": None if asked.seed == -1 else asked.seed,
        "strength": asked.strength if inputs else None,
    }
    return recipe_from(
        {
            "task": ("text-to-image", "image-to-image", "inpaint")[len(inputs)],
            "model": model.model_dump() if model else None,
            "prompt": asked.prompt,
            "negative": asked.negative_prompt or "",
            "adapters": adapters,
            "inputs": [media.model_dump() for media in inputs],
            "sampling": sampling,
            "size": size,
            "count": asked.n or 1,
            "output": {"format": asked.output_format or "png", "quality": _quality(asked)},
        }
    )


def _size(text: str | None, problems: list[FieldProblem]) -> dict[str, int] | None:
    if text is None or text == "auto":
        return None
    if found := _SIZE.fullmatch(text.strip()):
        return {"width": int(found[1]), "height": int(found[2])}
    problems.append(FieldProblem("size", f"{text!r} is no size", "write it as 512x512, or auto"))
    return None


def _quality(asked: Making) -> int:
    """The quality of a lossy file: OpenAI says how much it may be compressed, 100 being not at all."""
    return Output().quality if asked.output_compression is None else max(1, asked.output_compression)


def _lora(told: Any, find: Find, problems: list[FieldProblem]) -> dict[str, Any]:
    """A LoRA as servers take it: a name, `name:weight`, or an object with a name and a weight."""
    name: Any = told
    weight: Any = 1.0
    if isinstance(told, dict):
        name = told.get("name") or told.get("path")
        weight = next((told[key] for key in ("weight", "scale", "multiplier") if key in told), 1.0)
    elif isinstance(told, str) and (found := re.fullmatch(r"(.+):(-?[\d.]+)", told)):
        name, weight = found[1], found[2]
    try:
        number = float(weight)
    except (TypeError, ValueError, OverflowError):
        number = nan
    if not isinstance(name, str) or not name or not isfinite(number):
        problems.append(FieldProblem("loras", f"{told!r} names no LoRA", 'write {"name": "...", "weight": 1.0}'))
        return {}
    reference = find("lora", name)
    return {"kind": "lora", "ref": reference.model_dump() if reference else {"name": name}, "weight": number}
