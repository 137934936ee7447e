"""A request of A1111's means the same recipe as the command line's arguments, and what can't be had is said."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from bottega.api.a1111.asked import ImageToImage, TextToImage
from bottega.api.a1111.options import DEFAULTS, FIXED, HASH, MODEL, Chosen, known_options
from bottega.api.a1111.translate import Inputs, Translated, from_picture, from_text
from bottega.api.waiting import renamed
from bottega.cli.make import draft as draft_of_arguments
from bottega.errors import FieldProblem, InvalidRecipe
from bottega.recipe import Media, Recipe, Ref, Size

INIT = Media(role="init", sha256="0" * 64)
MASK = Media(role="mask", sha256="1" * 64)


def named(kind: str, name: str) -> Ref:
    return Ref(name=name)


def text(options: dict[str, Any] | None = None, **fields: Any) -> Translated:
    return from_text(TextToImage.model_validate({"prompt": "a red house", **fields}), options or {}, named)


def picture(options: dict[str, Any] | None = None, mask: bool = False, **fields: Any) -> Translated:
    asked = ImageToImage.model_validate({"prompt": "a red house", "init_images": ["x"], **fields})
    inputs = Inputs(INIT, (96, 160), MASK if mask else None)
    return from_picture(asked, options or {}, named, inputs)


def command_line(*words: str) -> Recipe:
    import argparse

    from bottega.cli.make import configure

    parser = argparse.ArgumentParser()
    configure(parser)
    return draft_of_arguments(parser.parse_args(["image", "a red house", *words]), [])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, ()),
        ({"steps": 12, "cfg_scale": 5, "seed": 7}, ("--steps", "12", "--cfg", "5", "--seed", "7")),
        ({"negative_prompt": "dark", "width": 128, "height": 64}, ("--negative", "dark", "--size", "128x64")),
        ({"sampler_name": "DPM++ 2M Karras"}, ("--sampler", "DPM++ 2M Karras")),
        ({"sampler_index": "Euler a"}, ("--sampler", "Euler a")),
        ({"sampler_name": "Euler", "sampler_index": "LMS"}, ("--sampler", "Euler")),
        ({"sampler_name": "Euler", "scheduler": "automatic"}, ("--sampler", "Euler")),
        ({"sampler_name": "Euler", "scheduler": "Karras"}, ("--sampler", "Euler", "--schedule", "Karras")),
        ({"batch_size": 2, "n_iter": 3}, ("--count", "6")),
        ({"override_settings": {MODEL: "m"}}, ("--model", "m")),
        ({"override_settings": {"CLIP_stop_at_last_layers": 2}}, ("--set", "clip_skip=2")),
        ({"override_settings": {"eta_noise_seed_delta": 31337}}, ("--set", "ensd=31337")),
        ({"override_settings": {"randn_source": "NV"}}, ("--set", "noise_source=NV")),
        ({"override_settings": {"sd_noise_schedule": "Zero Terminal SNR"}}, ("--set", "zero_snr=yes")),
        ({"eta": 0.5, "sampler_name": "Euler a"}, ("--sampler", "Euler a", "--set", "eta=0.5")),
        ({"eta": 0.5, "sampler_name": "DDIM"}, ("--sampler", "DDIM", "--set", "eta_ddim=0.5")),
        ({"s_churn": 2.5, "s_noise": 1.1}, ("--set", "s_churn=2.5", "--set", "s_noise=1.1")),
        (
            {"subseed": 5, "subseed_strength": 0.5},
            ("--set", "variation_seed=5", "--set", "variation_strength=0.5"),
        ),
        (
            {"seed_resize_from_w": 64, "seed_resize_from_h": 96},
            ("--set", "seed_resize_width=64", "--set", "seed_resize_height=96"),
        ),
    ],
)
def test_a_request_means_what_the_same_arguments_mean(fields: dict[str, Any], words: tuple[str, ...]) -> None:
    translated = text(**fields)
    assert translated.recipe.canonical() == command_line(*words).canonical()
    assert translated.warnings == ()


def test_what_webuiapi_always_sends_changes_nothing() -> None:
    plain = {"eta": 1.0, "s_churn": 0, "s_tmax": 0, "s_tmin": 0, "s_noise": 1, "denoising_strength": 0.7, "seed": -1}
    other = {"subseed": -1, "subseed_strength": 0.0, "seed_resize_from_h": 0, "seed_resize_from_w": -1, "styles": []}
    assert text(**plain, **other).recipe.canonical() == text().recipe.canonical()


def test_numbers_may_be_texts_and_what_is_unknown_is_ignored() -> None:
    asked = text(steps="12", seed="", url="http://secret", auth="user:password")
    assert asked.recipe.sampling.steps == 12
    assert "secret" not in repr(asked)


def test_a_field_that_is_null_is_not_asked_for() -> None:
    nothing = {**dict.fromkeys(TextToImage.model_fields), "prompt": "a red house"}
    assert text(**nothing).recipe.canonical() == text().recipe.canonical()
    nothing = {**dict.fromkeys(ImageToImage.model_fields), "prompt": "a red house"}
    assert picture(**nothing).recipe.canonical() == picture().recipe.canonical()


def test_a_subseed_of_minus_one_is_drawn() -> None:
    seeds = {text(subseed=-1, subseed_strength=0.3).recipe.knobs["variation_seed"] for _ in range(3)}
    assert len(seeds) == 3


def test_a_side_that_is_no_multiple_of_eight_is_cut_and_said() -> None:
    translated = text(width=130, height=128)
    assert translated.recipe.size is not None and translated.recipe.size.width == 128
    assert translated.warnings == ("width: 130 is no multiple of 8; 128 was made",)


def test_a_text_of_a1111s_fills_what_the_request_leaves_open() -> None:
    told = (
        "a blue boat\nNegative prompt: dark\nSteps: 9, Sampler: Euler, CFG scale: 4, Seed: 3, Size: 64x96, Clip skip: 2"
    )
    recipe = text(prompt="", infotext=told, steps=11).recipe
    assert (recipe.prompt, recipe.negative, recipe.sampling.steps, recipe.sampling.seed) == (
        "a blue boat",
        "dark",
        11,
        3,
    )
    assert recipe.size is not None and recipe.size.height == 96 and recipe.knobs["clip_skip"] == 2


def test_what_is_wrong_with_an_adapter_is_told_where_it_was_named() -> None:
    told = "a house <lora:glow:1>\nSteps: 9, Sampler: Euler, Seed: 7, VAE: soft.safetensors"
    translated = text(prompt="", infotext=told, override_settings={"sd_lora": "neon"})
    fields = [f"adapters.{index}.weight" for index in range(3)]
    error = renamed(InvalidRecipe([FieldProblem(field, field) for field in fields]), translated.names)
    assert [use.kind for use in translated.recipe.adapters] == ["lora", "lora", "vae"]
    assert [problem.field for problem in error.problems] == ["infotext", "override_settings", "infotext"]


def test_an_option_that_is_null_is_not_asked_for() -> None:
    nothing = dict.fromkeys((MODEL, "CLIP_stop_at_last_layers", "sd_vae", "samples_format", "sd_noise_schedule"))
    assert text(override_settings=nothing).recipe == text().recipe


def test_a_prompt_is_told_as_a_png_can_hold_it() -> None:
    recipe = text(prompt="a red\0 house", negative_prompt="\0dark").recipe
    assert (recipe.prompt, recipe.negative) == ("a red house", "dark")


# --- pictures


def test_a_text_of_a_picture_from_a_picture_is_taken_where_there_is_one() -> None:
    told = "a boat\nSteps: 9, Sampler: Euler, CFG scale: 4, Seed: 3, Size: 64x96, Denoising strength: 0.5"
    recipe = picture(infotext=told, denoising_strength=0.25).recipe
    assert (recipe.inputs, recipe.sampling.steps, recipe.sampling.strength) == ((INIT,), 9, 0.25)
    with pytest.raises(InvalidRecipe, match="another picture"):
        text(infotext=told)


def test_a_picture_and_its_strength() -> None:
    recipe = picture(denoising_strength=0.4, width=64, height=64).recipe
    assert (recipe.task, recipe.inputs, recipe.sampling.strength) == ("image-to-image", (INIT,), 0.4)


def test_a_mask_with_its_blur_and_what_it_starts_from() -> None:
    recipe = picture(mask=True, mask_blur=2, inpainting_fill=2).recipe
    assert (recipe.task, recipe.inputs) == ("inpaint", (INIT, MASK))
    assert recipe.knobs == {"mask_blur": 2, "masked_content": "latent noise"}


@pytest.mark.parametrize(
    ("blurs", "blur", "is_said"),
    [
        ({"mask_blur_x": 0, "mask_blur_y": 8}, 8, True),
        ({"mask_blur_x": 8, "mask_blur_y": 0}, 8, True),
        ({"mask_blur_x": 2, "mask_blur_y": 2}, 2, False),
        ({"mask_blur_y": 0}, None, True),  # across it is A1111's usual one
        ({"mask_blur": 2, "mask_blur_x": 4, "mask_blur_y": 6}, 2, False),
    ],
)
def test_a_blur_for_each_direction_is_one_for_both_and_said(blurs: dict[str, int], blur: Any, is_said: bool) -> None:
    translated = picture(mask=True, **blurs)
    assert translated.recipe.knobs.get("mask_blur") == blur
    assert ["mask_blur_x" in warning for warning in translated.warnings] == [True] * is_said


def test_extra_networks_can_be_left_out() -> None:
    off = {"disable_extra_networks": True, "override_settings": {"sd_lora": "glow", "sd_vae": "kl-f8"}}
    recipe = text(prompt="a house <lora:neon:1> by the sea", **off).recipe
    assert recipe.prompt == "a house by the sea" and [use.kind for use in recipe.adapters] == ["vae"]
    told = "a house <hypernet:vivid:1>\nSteps: 9, Sampler: Euler, Seed: 7"
    recipe = text(prompt="", infotext=told, disable_extra_networks=True).recipe
    assert recipe.prompt == "a house" and [use.kind for use in recipe.adapters] == ["vae"]


def test_tags_of_other_programs_are_left_out_and_said() -> None:
    translated = text(prompt="a house <wildcard:colours> by <lora:neon:0.5> the sea <a:b>")
    assert [tag for tag in translated.warnings if "left out of the prompt" in tag] == [
        f"{tag} was left out of the prompt: there are lora, lyco, hypernet" for tag in ("<wildcard:colours>", "<a:b>")
    ]
    assert translated.recipe.prompt == "a house by <lora:neon:0.5> the sea "


def test_only_masked_keeps_the_size_of_the_picture_and_says_how_it_is_made() -> None:
    translated = picture(mask=True, inpaint_full_res=True, width=512, height=512)
    assert translated.recipe.size is not None
    assert (translated.recipe.size.width, translated.recipe.size.height) == (96, 160)
    assert "inpaint_full_res" in translated.warnings[0]


def test_only_masked_takes_any_number_for_a_size() -> None:
    size = picture(mask=True, inpaint_full_res=True, width=10**200, height=10**200).recipe.size
    assert size is not None and (size.width, size.height) == (96, 160)


@pytest.mark.parametrize(("side", "made"), [(104, (80, 136)), (64, (64, 104)), (32, (32, 32))])
def test_only_masked_makes_the_pixels_that_were_asked_for_if_a_model_can(side: int, made: tuple[int, int]) -> None:
    size = picture(mask=True, inpaint_full_res=True, width=side, height=side).recipe.size
    assert size is not None and (size.width, size.height) == made


# --- what can't be had


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"enable_hr": True}, "enable_hr"),
        ({"tiling": True}, "tiling"),
        ({"script_name": "X/Y/Z plot"}, "script_name"),
        ({"refiner_checkpoint": "x"}, "refiner_checkpoint"),
        ({"alwayson_scripts": {"ControlNet": {"args": [{"image": "x"}]}}}, "alwayson_scripts.ControlNet"),
        (
            {"alwayson_scripts": {"controlnet": {"args": [{"enabled": True, "model": "x"}]}}},
            "alwayson_scripts.ControlNet",
        ),
        ({"override_settings": {"CLIP_stop_at_last_layers": "x"}}, "CLIP_stop_at_last_layers"),
        ({"override_settings": {"samples_format": "gif"}}, "samples_format"),
    ],
)
def test_what_would_make_another_picture_is_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRecipe) as refused:
        text(**fields)
    assert [problem.field for problem in refused.value.problems] == [field]


@pytest.mark.parametrize("args", [[], [False], *([{"enabled": off, "image": "x"}] for off in (False, 0, "False"))])
def test_a_control_that_is_off_is_none(args: list[Any]) -> None:
    assert text(alwayson_scripts={"ControlNet": {"args": args}}).warnings == ()


def test_an_extension_whose_first_switch_is_off_is_not_missed() -> None:
    assert text(alwayson_scripts={"ADetailer": {"args": [False, False, {"ad_model": "None"}]}}).warnings == ()


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"alwayson_scripts": {"ADetailer": {"args": [True, True, {"ad_model": "face_yolov8n.pt"}]}}}, "ADetailer"),
        ({"restore_faces": True}, "restore_faces"),
        ({"styles": ["film"]}, "film"),
        ({"override_settings": {"no_such_option": 1}}, "no_such_option"),
    ],
)
def test_what_the_picture_is_made_without_is_said(fields: dict[str, Any], word: str) -> None:
    (warning,) = text(**fields).warnings
    assert word in warning


def test_a_vae_is_left_to_the_engine() -> None:
    assert text(override_settings={"sd_vae": "Automatic"}).recipe.adapters == ()
    (use,) = text(override_settings={"sd_vae": "kl-f8"}).recipe.adapters
    assert (use.kind, use.ref.name) == ("vae", "kl-f8")


# --- options


def test_every_option_is_taken_back() -> None:
    told = {**FIXED, **DEFAULTS, MODEL: "a [0123456789]", HASH: "x"}
    assert known_options(told) == {**DEFAULTS, MODEL: "a [0123456789]"}


@pytest.mark.parametrize("option", ["jpeg_quality", "rho", "extra_networks_default_multiplier"])
@pytest.mark.parametrize("value", [10**401, "9" * 401, "nan", float("nan"), "-Infinity", float("inf")])
def test_an_option_takes_finite_numbers_alone(option: str, value: Any) -> None:
    with pytest.raises(InvalidRecipe, match=option):
        known_options({option: value})


def test_an_option_is_told_as_a1111_writes_it() -> None:
    asked = {"use_old_scheduling": 1, "use_downcasted_alpha_bar": 0, "sd_vae": "", "sd_lora": "", "sd_hypernetwork": ""}
    told = {"use_old_scheduling": True, "use_downcasted_alpha_bar": False, "sd_vae": "Automatic", "sd_lora": "None",
            "sd_hypernetwork": "None"}  # fmt: skip
    known = known_options(asked)
    assert known == told and known["use_old_scheduling"] is True and known["use_downcasted_alpha_bar"] is False


def test_a_side_that_is_less_than_nothing_is_refused_as_it_was_sent() -> None:
    said = text(width=-64, height=-3)
    assert said.recipe.size == Size(width=-64, height=-3) and said.warnings == ()


def test_a_kept_option_that_is_no_longer_taken_is_as_it_was_to_begin_with(tmp_path: Path) -> None:
    (tmp_path / "options.json").write_text('{"ann": {"rho": NaN, "CLIP_stop_at_last_layers": 2}}')
    assert Chosen(tmp_path / "options.json").of("ann") == {"CLIP_stop_at_last_layers": 2}


def test_options_are_kept_for_each_user(tmp_path: Any) -> None:
    chosen = Chosen(tmp_path / "options.json")
    chosen.change("ann", {"CLIP_stop_at_last_layers": 2, "sd_vae": "Automatic"})
    assert chosen.of("ben") == {}
    again = Chosen(tmp_path / "options.json")
    assert again.of("ann") == {"CLIP_stop_at_last_layers": 2}
    assert text(again.of("ann")).recipe.knobs == {"clip_skip": 2}
    again.change("ann", {"CLIP_stop_at_last_layers": 1})
    assert Chosen(tmp_path / "options.json").of("ann") == {}


def test_a_request_overrides_its_users_options() -> None:
    options = {"CLIP_stop_at_last_layers": 2, "eta_ancestral": 0.5, MODEL: "mine"}
    recipe = text(options, override_settings={"CLIP_stop_at_last_layers": 1, MODEL: "this"}, eta=1.0).recipe
    assert recipe.knobs == {"clip_skip": 1}
    assert recipe.model == Ref(name="this")


def test_every_field_that_webuiapi_sends_is_known_or_means_nothing_here() -> None:
    import webuiapi

    sent = set(inspect.signature(webuiapi.WebUIApi.txt2img).parameters)
    known = set(TextToImage.model_fields)
    unknown = sent - known - {"self", "use_async", "use_deprecated_controlnet", "roop", "reactor", "sag", "adetailer"}
    assert unknown == {
        "animatediff", "do_not_save_grid", "do_not_save_samples", "firstphase_height", "firstphase_width",
        "hr_checkpoint_name", "hr_negative_prompt", "hr_prompt", "hr_sampler_name", "hr_scheduler",
    }  # fmt: skip
