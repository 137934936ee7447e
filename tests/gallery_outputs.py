"""Outputs for the tests of the gallery: small pictures with recipes in them, written and read as real ones are."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from bottega.engine.run import encode_output
from bottega.gallery import Gallery, Output
from bottega.recipe import Media, Recipe, Ref, Sampling, Size

NOON = 1_790_000_000.0
MODEL = Ref(name="starter-image", sha256="ab" * 32)


def recipe_of(prompt: str = "a red house", seed: int = 7, **fields: Any) -> Recipe:
    """A resolved recipe; `sampling` fields and others by name, `init` the SHA-256 of an input."""
    sampling = {"sampler": "Euler a", "schedule": "Karras", "steps": 20, "guidance": 7.0}
    sampling |= {name: fields.pop(name) for name in tuple(fields) if name in Sampling.model_fields}
    inputs = (Media(role="init", sha256=fields.pop("init")),) if "init" in fields else ()
    return Recipe(
        model=fields.pop("model", MODEL),
        prompt=prompt,
        inputs=inputs,
        sampling=Sampling(**sampling, seed=seed),
        size=Size(width=8, height=8),
        **fields,
    )


def write_output(folder: Path, recipe: Recipe | None = None, /, *, id: str = "", at: float = 0, **facts: Any) -> Output:
    """Write a picture with its recipe inside, and what the gallery is to be told of it; `at` seconds after noon."""
    recipe = recipe or recipe_of()
    number = sum(1 for _ in folder.rglob("*.*"))
    id = id or f"job{number}-0"
    seed = recipe.sampling.seed or 0
    picture = Image.new("RGB", (8, 8), (seed % 256, number % 256, 90))
    content = encode_output(picture, recipe)
    path = folder / f"{id}.{ {'jpeg': 'jpg'}.get(recipe.output.format, recipe.output.format) }"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    model = recipe.model or MODEL
    output = Output(
        id=id,
        job=id.rpartition("-")[0],
        index=int(id.rpartition("-")[2]),
        owner="ann",
        path=path,
        medium="image",
        format=recipe.output.format,
        width=8,
        height=8,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        seed=seed,
        digest=recipe.digest,
        task=recipe.task,
        prompt=recipe.prompt,
        negative=recipe.negative,
        model=model.name,
        model_sha256=model.sha256 or "",
        created=NOON + (at or number),
        recipe=recipe.to_json(),
        seconds=1.5,
    )
    return replace(output, **facts)


def added(gallery: Gallery, output: Output) -> Output:
    """What is on record of an output once it was added."""
    gallery.add(output)
    return gallery.output(output.id)
