"""Recipes: one structure that survives JSON, refuses what it doesn't know, and names itself by a digest."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from bottega.errors import InvalidRecipe
from bottega.recipe import Made, Recipe, Ref, Sampling, Size, read_recipe
from bottega.training.recipe import read_training

# A recipe as version 1 writes it. It must load for ever: never edit it, add another one for another version.
GOLDEN = """{"version":1,"task":"text-to-image","model":{"name":"m","sha256":"%s"},
"prompt":"a \u96ea house","negative":"",
"adapters":[],"inputs":[],"sampling":{"sampler":"Euler a","schedule":"Uniform","steps":20,"guidance":7.0,"seed":7},
"size":{"width":512,"height":512},"count":1,"output":{"format":"png","quality":92},
"knobs":{"clip_skip":2,"zero_snr":false,"eta":1.0,"emphasis":"Original"}}""" % ("0" * 64)
GOLDEN_DIGEST = "f7ea7d333146593f51e645f1b80ff42ae8fc56c82b4c57965af42b82a0903841"


def test_a_recipe_of_version_1_loads_and_keeps_its_digest() -> None:
    recipe = read_recipe(GOLDEN)
    assert recipe.prompt == "a 雪 house"
    assert recipe.knobs["clip_skip"] == 2
    assert recipe.digest == GOLDEN_DIGEST


@pytest.mark.parametrize("read", [read_recipe, read_training])
@pytest.mark.parametrize(
    ("told", "why"),
    [
        ('{"a":' + "[" * 100_000 + "]" * 100_000 + "}", "is no valid JSON (it is nested without end)"),
        ('{"a":' + "[" * 500 + "]" * 500 + "}", "is no valid JSON (it is nested more than 32 levels deep)"),
        ('{"a":' + "9" * 5_000 + "}", "is no valid JSON (a number in it has too many digits)"),
        ("{} {}", "is no valid JSON (something follows its end (line 1, column 4))"),
    ],
)
def test_what_is_no_json_is_told_in_words(read: Callable[[str], object], told: str, why: str) -> None:
    with pytest.raises(InvalidRecipe) as caught:
        read(told)
    assert [(problem.field, problem.what) for problem in caught.value.problems] == [("recipe", why)]


def test_json_round_trip_gives_an_equal_recipe() -> None:
    recipe = Recipe(
        model=Ref(name="x", sha256="a" * 64),
        prompt='quotes " and \n lines 🎈',
        sampling=Sampling(seed=2**63 - 2, guidance=7.5),
        size=Size(width=64, height=72),
        knobs={"eta": 0.5, "zero_snr": True, "clip_skip": 1},
    )
    again = read_recipe(recipe.to_json())
    assert again == recipe
    assert again.digest == recipe.digest
    assert type(again.knobs["zero_snr"]) is bool
    assert type(again.knobs["clip_skip"]) is int


def test_the_digest_leaves_out_by_what_it_was_made_and_nothing_else() -> None:
    recipe = Recipe(prompt="a")
    assert recipe.changed(made=Made(app="x", versions={}, device="cpu")).digest == recipe.digest
    assert recipe.changed(prompt="b").digest != recipe.digest
    assert recipe.changed(sampling=Sampling(seed=1)).digest != recipe.digest
    assert recipe.changed(knobs={"eta": 1.0}).digest != recipe.digest


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("{", "recipe"),
        ("[]", "recipe"),
        ('{"version": 2}', "version"),
        ('{"version": "1"}', "version"),
        ('{"prompt": 3}', "prompt"),
        ('{"colour": "red"}', "colour"),
        ('{"sampling": {"stepz": 3}}', "sampling.stepz"),
        ('{"sampling": {"guidance": NaN}}', "sampling.guidance"),
        ('{"model": {"name": "x", "sha256": "zz"}}', "model.sha256"),
        ("[" * 100_000, "recipe"),
    ],
)
def test_what_is_no_recipe_is_refused_at_its_field(text: str, field: str) -> None:
    with pytest.raises(InvalidRecipe) as refused:
        read_recipe(text)
    assert [problem.field for problem in refused.value.problems] == [field]


def test_every_wrong_field_is_named_at_once() -> None:
    with pytest.raises(InvalidRecipe) as refused:
        read_recipe(json.dumps({"prompt": 1, "count": "x", "more": 0}))
    assert {problem.field for problem in refused.value.problems} == {"prompt", "count", "more"}


def test_pictures_of_a_batch_count_their_seeds_as_a1111_does() -> None:
    recipe = Recipe(sampling=Sampling(seed=7), count=3)
    assert [recipe.single(index).sampling.seed for index in range(3)] == [7, 8, 9]
    assert recipe.single(2).count == 1
    varied = recipe.changed(knobs={"variation_strength": 0.2, "variation_seed": 5})
    assert [varied.single(index).sampling.seed for index in range(3)] == [7, 7, 7]
    assert [varied.single(index).knobs["variation_seed"] for index in range(3)] == [5, 6, 7]
