"""Resolving: every default is decided, every wrong field is named, and nothing is decided twice."""

from __future__ import annotations

from itertools import permutations

import pytest

from bottega.engine.resolve import MAX_PROMPT, Chosen, Device, resolve
from bottega.errors import InvalidRecipe
from bottega.families import family
from bottega.recipe import Media, Recipe, Sampling, Size, Use

DEFAULTS = {
    "sampler": "DPM++ 2M",
    "schedule": "Karras",
    "steps": 20,
    "guidance": 7.0,
    "size": (512, 512),
    "prediction": "epsilon",
    "zero_snr": False,
    "clip_skip": 1,
}
MODEL = Chosen("some-model", "a" * 64, family("sd1"), DEFAULTS, limits={"clip_skip": 12})
DEVICE = Device("bfloat16", needs_tiles=lambda size: size.width > 1000)


def resolved(draft: Recipe, picture: tuple[int, int] | None = None) -> Recipe:
    return resolve(draft, MODEL, DEVICE, picture)


def problems(draft: Recipe) -> set[str]:
    with pytest.raises(InvalidRecipe) as refused:
        resolved(draft)
    return {problem.field for problem in refused.value.problems}


def test_a_picture_of_no_words_is_one_too() -> None:
    recipe = resolved(Recipe(sampling=Sampling(seed=1)))
    assert (recipe.prompt, recipe.digest) == ("", resolved(recipe).digest)


def test_a_prompt_is_enough() -> None:
    recipe = resolved(Recipe(prompt="a house"))
    assert recipe.model is not None and recipe.model.sha256 == "a" * 64
    assert recipe.sampling.sampler == "DPM++ 2M" and recipe.sampling.schedule == "Karras"
    assert recipe.sampling.steps == 20 and recipe.sampling.guidance == 7.0
    assert recipe.sampling.seed is not None and 0 <= recipe.sampling.seed < 2**32
    assert recipe.size == Size(width=512, height=512)
    assert set(recipe.knobs) == {knob.name for knob in family("sd1").knobs}
    assert recipe.knobs["precision"] == "bfloat16" and recipe.knobs["prediction"] == "epsilon"
    assert "auto" not in recipe.knobs.values()


def test_the_order_of_settings_does_not_matter() -> None:
    knobs = {"ensd": 31337, "clip_skip": 2, "precision": "float32"}
    texts = {
        resolved(Recipe(prompt="a", sampling=Sampling(seed=1), knobs=dict(order))).to_json()
        for order in permutations(knobs.items())
    }
    assert len(texts) == 1


def test_resolving_twice_changes_nothing() -> None:
    once = resolved(Recipe(prompt="a house"))
    assert resolved(once) == once


def test_what_the_draft_says_wins() -> None:
    draft = Recipe(
        prompt="a",
        sampling=Sampling(sampler="euler_ancestral", steps=3, guidance=0.0, seed=0),
        size=Size(width=64, height=72),
        knobs={"precision": "float32", "clip_skip": 2},
    )
    recipe = resolved(draft)
    assert recipe.sampling.sampler == "Euler a"
    assert recipe.sampling.schedule == "Uniform"  # what "Automatic" means for it, not the model's Karras
    assert (recipe.sampling.steps, recipe.sampling.guidance, recipe.sampling.seed) == (3, 0.0, 0)
    assert recipe.size == Size(width=64, height=72)
    assert recipe.knobs["precision"] == "float32" and recipe.knobs["clip_skip"] == 2


def test_a_seed_of_minus_one_draws_one() -> None:
    seeds = {resolved(Recipe(prompt="a", sampling=Sampling(seed=-1))).sampling.seed for _ in range(4)}
    assert len(seeds) == 4


def test_large_pictures_are_decoded_in_tiles_where_the_device_needs_it() -> None:
    assert resolved(Recipe(prompt="a")).knobs["vae_tiling"] == "off"
    assert resolved(Recipe(prompt="a", size=Size(width=1024, height=64))).knobs["vae_tiling"] == "on"


@pytest.mark.parametrize(
    ("picture", "size"),
    [((512, 768), (512, 768)), ((501, 333), (504, 336)), ((4000, 3000), (592, 440)), ((100, 50), (728, 360))],
)
def test_an_input_picture_decides_the_size(picture: tuple[int, int], size: tuple[int, int]) -> None:
    draft = Recipe(task="image-to-image", prompt="a", inputs=(Media(role="init", sha256="b" * 64),))
    recipe = resolved(draft, picture)
    assert recipe.size is not None
    assert (recipe.size.width, recipe.size.height) == size
    assert recipe.sampling.strength == 0.75


@pytest.mark.parametrize(
    ("draft", "field"),
    [
        (Recipe(prompt="x" * (MAX_PROMPT + 1)), "prompt"),
        (Recipe(prompt="a", negative="x" * (MAX_PROMPT + 1)), "negative"),
        (Recipe(prompt="a <lora:style:0.8>"), "prompt"),
        (Recipe(prompt="(" * 5000 + "a" + ")" * 5000), "prompt"),
        (Recipe(prompt=f"(a:{10**30})"), "prompt"),
        (Recipe(prompt=f"[b:(a:{10**30}):0.5]"), "prompt"),
        (Recipe(prompt=f"a AND b:-{10**400}"), "prompt"),
        (Recipe(prompt="a", negative=f"b, ((a:{10**10}):{10**10})"), "negative"),
        (Recipe(prompt="a", sampling=Sampling(steps=0)), "sampling.steps"),
        (Recipe(prompt="a", knobs={"rho": 0.05}), "knobs.rho"),
        (Recipe(prompt="a", knobs={"sigma_min": 100, "sigma_max": 1}), "knobs.sigma_min"),
        (Recipe(prompt="a", sampling=Sampling(steps=-5)), "sampling.steps"),
        (Recipe(prompt="a", sampling=Sampling(guidance=-1.0)), "sampling.guidance"),
        (Recipe(prompt="a", sampling=Sampling(seed=-2)), "sampling.seed"),
        (Recipe(prompt="a", sampling=Sampling(seed=2**63 - 1)), "sampling.seed"),
        (Recipe(prompt="a", sampling=Sampling(sampler="Eulr")), "sampling.sampler"),
        (Recipe(prompt="a", sampling=Sampling(schedule="Karas")), "sampling.schedule"),
        (Recipe(prompt="a", sampling=Sampling(strength=0.5)), "sampling.strength"),
        (Recipe(prompt="a", size=Size(width=100, height=64)), "size.width"),
        (Recipe(prompt="a", size=Size(width=64, height=-8)), "size.height"),
        (Recipe(prompt="a", size=Size(width=64, height=100_000)), "size.height"),
        (Recipe(prompt="a", count=0), "count"),
        (Recipe(prompt="a", task="text-to-soup"), "task"),
        (Recipe(prompt="a", task="inpaint"), "inputs"),
        (Recipe(prompt="a", inputs=(Media(role="init", sha256="b" * 64),)), "inputs.0"),
        (Recipe(prompt="a", knobs={"clip_skip": 0}), "knobs.clip_skip"),
        (Recipe(prompt="a", knobs={"clip_skip": True}), "knobs.clip_skip"),
        (Recipe(prompt="a", knobs={"clip_skip": 13}), "knobs.clip_skip"),  # 24 in other models
        (Recipe(prompt="a", knobs={"eta": "much"}), "knobs.eta"),
        (Recipe(prompt="a", knobs={"emphasis": "loud"}), "knobs.emphasis"),
        (Recipe(prompt="a", knobs={"cilp_skip": 2}), "knobs.cilp_skip"),
        (Recipe(prompt="a", adapters=(Use.model_validate({"kind": "lora", "ref": {"name": "x"}}),)), "adapters.0"),
    ],
)
def test_a_wrong_field_is_named(draft: Recipe, field: str) -> None:
    assert problems(draft) == {field}


def test_a_weight_beyond_all_numbers_is_named() -> None:
    with pytest.raises(InvalidRecipe, match="gives 'stormy sea' the weight inf, with which nothing can be computed"):
        resolved(Recipe(prompt="a ship, " + "(" * 9000 + "stormy sea" + ")" * 9000))
    assert resolved(Recipe(prompt="(a:999), [[[b]]], " + "[" * 5000 + "c")).prompt


def test_all_wrong_fields_are_named_at_once() -> None:
    draft = Recipe(
        prompt="<lora:a>", sampling=Sampling(steps=-1, sampler="none"), size=Size(width=7, height=8), knobs={"what": 1}
    )
    assert problems(draft) == {
        "prompt",
        "sampling.steps",
        "sampling.sampler",
        "size.width",
        "size.height",
        "knobs.what",
    }


def test_a_misspelt_sampler_is_told_its_nearest() -> None:
    with pytest.raises(InvalidRecipe, match=r"DPM\+\+ 2M"):
        resolved(Recipe(prompt="a", sampling=Sampling(sampler="DPM+ 2M")))


def test_an_old_name_says_sampler_and_schedule() -> None:
    recipe = resolved(Recipe(prompt="a", sampling=Sampling(sampler="Euler a Karras")))
    assert (recipe.sampling.sampler, recipe.sampling.schedule) == ("Euler a", "Karras")
    recipe = resolved(Recipe(prompt="a", sampling=Sampling(sampler="DPM++ 2M Karras", schedule="Exponential")))
    assert (recipe.sampling.sampler, recipe.sampling.schedule) == ("DPM++ 2M", "Exponential")


def test_a_schedule_that_is_not_walked_makes_no_other_digest() -> None:
    digests = {
        resolved(Recipe(prompt="a", sampling=Sampling(sampler="DDIM", schedule=name, seed=1))).digest
        for name in (None, "Karras", "Uniform")
    }
    assert len(digests) == 1


def test_a_whole_number_is_the_same_as_its_float() -> None:
    one, same = (resolved(Recipe(prompt="a", sampling=Sampling(seed=1), knobs={"eta": eta})) for eta in (1, 1.0))
    assert one.digest == same.digest
