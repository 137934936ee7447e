"""Fills galleries with outputs as years of work leave them: words that come again, a few models and settings, days."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bottega.diffusion.names import SAMPLERS
from bottega.gallery import Output, rows
from bottega.gallery.schema import SCHEMA
from bottega.gallery.store import Store
from bottega.recipe import Recipe, Ref, Sampling, Size

OWNERS = ("owner", "ann", "bob")
MODELS = 40
PER_DAY = 400
NOW = 1_790_000_000.0  # the newest of them was made then
_APART = 60.0  # seconds between two of them
_AT_ONCE = 5000
_SUBJECTS = (
    "house", "boat", "balloon", "tower", "tent", "tree", "lighthouse", "castle", "dragon", "portrait of a woman",
    "robot", "samurai", "cat", "street", "forest", "mountain", "desert", "城堡", "水彩 山水", "пейзаж",
)  # fmt: skip
_STYLES = (
    "watercolor", "oil painting", "pencil sketch", "pixel art", "photo", "film grain", "35mm", "anime", "ink", "flat",
    "studio lighting", "golden hour", "fog", "neon", "intricate", "sharp focus", "highly detailed", "masterpiece",
    "(best quality:1.2)", "8k", "by the sea", "in the snow", "at night", "at sunset", "wide angle", "vintage style",
)  # fmt: skip
_NEGATIVES = ("", "blurry, low quality", "bad anatomy, extra fingers, watermark, text, (worst quality:1.4)")
# As every resolved recipe has them.
_KNOBS: Mapping[str, Any] = {
    "precision": "bfloat16", "prediction": "epsilon", "zero_snr": False, "downcast_alphas": False,
    "old_prompt_editing": False, "clip_skip": 1, "emphasis": "Original", "noise_source": "CPU", "variation_seed": 0,
    "variation_strength": 0.0, "seed_resize_width": 0, "seed_resize_height": 0, "ensd": 0, "eta": 1.0, "eta_ddim": 0.0,
    "s_churn": 0.0, "s_tmin": 0.0, "s_tmax": 0.0, "s_noise": 1.0, "sigma_min": 0.0, "sigma_max": 0.0, "rho": 0.0,
    "guidance_rescale": 0.0, "skip_early_guidance": 0.0, "min_uncond_sigma": 0.0, "image_guidance": 1.5, "mask_blur": 4,
    "masked_content": "original", "vae_tiling": "off",
}  # fmt: skip


def fill(home: Path, count: int, content: bytes | None = None, seed: int = 0) -> None:
    """Put so many outputs into the gallery of a home, the same ones for the same seed.

    With `content`, a picture, each has a file of its own: that picture, with the output's id behind it.
    """
    folder = home / "outputs"
    store = Store(home / "gallery.sqlite", SCHEMA)
    made = made_outputs(folder, count, seed)
    for first in range(0, count, _AT_ONCE):
        with store.writing() as connection:
            for _, output in zip(range(min(_AT_ONCE, count - first)), made, strict=False):
                if content is not None:
                    own = content + output.id.encode()
                    output.path.parent.mkdir(parents=True, exist_ok=True)
                    output.path.write_bytes(own)
                    output = replace(output, bytes=len(own), sha256=hashlib.sha256(own).hexdigest())
                rows.put(connection, folder, output)
            rows.index_words(connection)
    store.close()


def made_outputs(folder: Path, count: int, seed: int = 0) -> Iterator[Output]:
    """So many outputs, the oldest first."""
    draw = random.Random(seed)
    samplers = [sampler.name for sampler in SAMPLERS][:12]
    models = [
        Ref(name=f"{draw.choice(('dream', 'real', 'ink', 'anima'))}Mix_v{number}", sha256=f"{number + 1:064x}")
        for number in range(MODELS)
    ]
    for number in range(count):
        words = [draw.choice(_SUBJECTS), *draw.sample(_STYLES, draw.randint(3, 14))]
        side = draw.choice((512, 768, 1024))
        recipe = Recipe(
            model=draw.choice(models),
            prompt=", ".join(words),
            negative=draw.choice(_NEGATIVES),
            sampling=Sampling(
                sampler=draw.choice(samplers),
                schedule=draw.choice(("Karras", "Automatic")),
                steps=draw.choice((20, 25, 30)),
                guidance=draw.choice((5.0, 7.0, 7.5)),
                seed=draw.randrange(2**32),
            ),
            size=Size(width=side, height=draw.choice((512, 768))),
            knobs={**_KNOBS, "clip_skip": draw.choice((1, 1, 1, 2))},
        )
        yield _output(folder, recipe, number, count, draw)


def _output(folder: Path, recipe: Recipe, number: int, count: int, draw: random.Random) -> Output:
    job = f"{draw.getrandbits(128):032x}"
    told = recipe.to_json()
    assert recipe.size is not None and recipe.model is not None
    versions = {"torch": "2.13.0+cpu", "diffusers": "0.42.1", "transformers": "5.23.0", "pillow": "13.0.0"}
    made = {"app": "bottega 0.1.0", "versions": versions, "device": "cpu", "threads": 2, "capability": "AVX512"}
    return Output(
        id=f"{job}-0",
        job=job,
        index=0,
        owner=draw.choices(OWNERS, (8, 1, 1))[0],
        path=folder / f"day-{number // PER_DAY:05}" / f"{job}-0.png",
        medium="image",
        format="png",
        width=recipe.size.width,
        height=recipe.size.height,
        bytes=draw.randrange(300_000, 900_000),
        sha256=hashlib.sha256(told.encode()).hexdigest(),
        seed=recipe.sampling.seed,
        digest=recipe.digest,
        task=recipe.task,
        prompt=recipe.prompt,
        negative=recipe.negative,
        model=recipe.model.name,
        model_sha256=recipe.model.sha256 or "",
        created=NOW - _APART * (count - number),
        recipe=json.dumps({**json.loads(told), "made": made}, separators=(",", ":"), ensure_ascii=False),
        favourite=draw.random() < 0.05,
        folder=draw.choice(("", "", "", "castles", "portraits")),
        seconds=draw.uniform(2, 9),
    )
