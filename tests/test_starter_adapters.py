"""The adapters that come along are what their cards say, and do what they were taught."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from PIL import Image, ImageFilter
from starters import ADAPTERS, CHECKPOINTS, NAMES

from bottega.formats import read_header
from bottega.library.identify import identify
from bottega.recognisers import all_recognisers
from bottega.settings import STARTER_SHELF, Settings
from bottega.starter import adapters
from bottega.starter.measure_adapters import MEASURED, paint
from bottega.starter.scenes import Scene, Thing, draw
from bottega.training.files import RECIPE
from bottega.training.recipe import read_training
from bottega.workbench import Workbench

TAUGHT = sorted(adapters.ADAPTERS)


def test_everything_that_comes_along_has_a_card() -> None:
    assert {*CHECKPOINTS, *ADAPTERS} == NAMES == {"starter-image", *TAUGHT}
    assert all((STARTER_SHELF / f"{name}.md").read_text(encoding="utf-8").startswith(f"# {name}\n") for name in NAMES)


@pytest.mark.parametrize("name", TAUGHT)
def test_each_carries_the_recipe_that_the_command_has(name: str, tmp_path: Path) -> None:
    header = read_header(STARTER_SHELF / f"{name}.safetensors")
    found = identify(header, all_recognisers())
    assert (found.match.kind, found.family) == (ADAPTERS.get(name, "checkpoint"), "sd1")
    recipe = read_training(header.metadata[RECIPE])
    taught = adapters.ADAPTERS[name]
    assert recipe.kind == taught.kind
    assert {option: getattr(recipe, option) for option in taught.options} == dict(taught.options)


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURED)
def test_the_judge_tells_drawings_apart(name: str) -> None:
    measured, rng = MEASURED[name], random.Random(3)
    for seed in range(3):
        trial = measured.trial(rng)
        plain = Thing("blue", "house", trial.scene.things[0].place if trial.scene.things else "middle")
        other = Scene(trial.scene.when, trial.scene.where, (plain,), "flat")
        right, wrong = (draw(scene, 200 + seed).filter(ImageFilter.GaussianBlur(1)) for scene in (trial.scene, other))
        assert measured.judge(right, trial) and not measured.judge(wrong, trial)


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURED)
def test_what_was_taught_is_shown(name: str, tmp_path: Path) -> None:
    """Of 100 seeds at least 85 are right, see docs/training.md; here a few are made."""
    workbench = Workbench(Settings(home=tmp_path / "home", outputs=tmp_path / "outputs", device="cpu"))
    measured, rng = MEASURED[name], random.Random(7)
    right = 0
    for seed in range(6):
        trial = measured.trial(rng)
        path = paint(workbench, trial, seed, measured.model, measured.uses, tmp_path / "pictures")
        with Image.open(path) as picture:
            right += measured.judge(picture.convert("RGB"), trial)
    assert right >= 4
