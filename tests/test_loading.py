"""Loading gives exactly the weights that were saved, and networks that compute what diffusers' own compute."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch

from bottega.diffusion.guidance import Conditioning, Denoiser, Guidance, Guided
from bottega.diffusion.samplers import euler
from bottega.diffusion.schedules import SigmaTable, stable_diffusion_alphas
from bottega.errors import UnsupportedModel
from bottega.families import sd1, sd2, sdxl
from bottega.families._stable_diffusion import toy
from bottega.families._stable_diffusion.keys import pack, source_of, take
from bottega.families._stable_diffusion.load import Pipe, parts_of
from bottega.formats import read_header
from bottega.runtime.place import Place, choose

FAMILIES = {face.family.id: face.family for face in (sd1, sd2, sdxl)}
MODELS = [
    ("sd1", "base"),
    ("sd1", "inpainting"),
    ("sd1", "instruct-pix2pix"),
    ("sd2", "base"),
    ("sd2", "v-prediction"),
    ("sdxl", "base"),
    ("sdxl", "refiner"),
    ("sdxl", "inpainting"),
]
PIPELINES = [("sd1", "base"), ("sd2", "base"), ("sd2", "v-prediction"), ("sdxl", "base")]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Networks this small lose more to waiting for threads than they win."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def place(precision: str = "float32") -> Place:
    return choose("cpu", precision)


def opened(path: Path, family: str, precision: str = "float32", **options: Any) -> Pipe:
    header = read_header(path)
    match = FAMILIES[family].recognise(header)
    assert match is not None
    return FAMILIES[family].load(header, match, place(precision), **options)


def networks_of(pipe: Pipe) -> dict[str, torch.nn.Module]:
    encoders = ("text_encoder", "text_encoder_2")[-len(pipe.text_encoders) :]
    if pipe.variant != "refiner":
        encoders = ("text_encoder", "text_encoder_2")[: len(pipe.text_encoders)]
    read = {name: encoder.model for name, encoder in zip(encoders, pipe.text_encoders, strict=True)}
    return {"unet": pipe.unet, "vae": pipe.vae, **read}


def assert_equal(pipe: Pipe, states: Mapping[str, toy.State], stored: str, run: str) -> None:
    """The networks hold the numbers that were saved in one dtype, cast to the other, to the bit."""
    networks = networks_of(pipe)
    assert set(networks) == set(states)
    for part, network in networks.items():
        loaded = network.state_dict()
        assert loaded.keys() == states[part].keys()
        for name, tensor in states[part].items():
            want = tensor.to(getattr(torch, stored)).to(getattr(torch, run))
            assert loaded[name].dtype == want.dtype
            assert torch.equal(loaded[name], want), f"{part}: {name}"


# --- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "variant"), MODELS)
def test_single_file(tmp_path: Path, family: str, variant: str) -> None:
    path = toy.write_single_file(tmp_path / "toy.safetensors", family, variant)
    pipe = opened(path, family)
    assert (pipe.variant, pipe.notes) == (variant, ())
    assert_equal(pipe, toy.states(family, variant), "float16", "float32")


@pytest.mark.slow
@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("run", ["float32", "bfloat16"])
def test_every_dtype(tmp_path: Path, stored: str, run: str) -> None:
    path = toy.write_single_file(tmp_path / "toy.safetensors", "sdxl", dtype=stored)
    assert_equal(opened(path, "sdxl", run), toy.states("sdxl"), stored, run)


@pytest.mark.parametrize("family", FAMILIES)
def test_old_names_averages_and_what_training_left(tmp_path: Path, family: str) -> None:
    path = toy.write_single_file(tmp_path / "toy.safetensors", family, old_names=True, ema=True)
    pipe = opened(path, family)
    assert pipe.notes == ()
    assert_equal(pipe, toy.states(family), "float16", "float32")


@pytest.mark.parametrize(
    ("family", "variant", "options"),
    [
        *((family, variant, {}) for family, variant in MODELS),
        ("sd1", "base", {"shards": 3}),
        ("sdxl", "base", {"shards": 3}),
        ("sd2", "base", {"old_vae": True}),
    ],
)
def test_folder(tmp_path: Path, family: str, variant: str, options: dict[str, Any]) -> None:
    path = toy.write_folder(tmp_path / "toy", family, variant, **options)
    pipe = opened(path, family)
    assert (pipe.variant, pipe.notes) == (variant, ())
    assert_equal(pipe, toy.states(family, variant), "float16", "float32")


def test_bare_unets_and_parts_of_other_models(tmp_path: Path) -> None:
    bare = toy.write_single_file(
        tmp_path / "bare.safetensors", "sd1", without=("vae", "text_encoder"), dtype="float32", seed=1
    )
    with pytest.raises(UnsupportedModel, match="has no text_encoder and no vae"):
        opened(bare, "sd1")
    header = read_header(toy.write_single_file(tmp_path / "whole.safetensors", "sd1", dtype="float32"))
    match = sd1.family.recognise(header)
    assert match is not None
    borrowed = {name: part for name, part in parts_of(header, match).items() if name != "unet"}
    pipe = opened(bare, "sd1", instead=borrowed)
    own = toy.states("sd1", seed=1)["unet"]
    assert_equal(pipe, {**toy.states("sd1"), "unet": own}, "float32", "float32")


def test_an_average_takes_the_place_of_what_is_missing(tmp_path: Path) -> None:
    header = read_header(toy.write_single_file(tmp_path / "toy.safetensors", "sd1", dtype="float32", ema=True))
    match = sd1.family.recognise(header)
    assert match is not None
    lost = "model.diffusion_model.input_blocks.1.0.in_layers.2.bias"
    tensors = {name: info for name, info in header.tensors.items() if name != lost}
    pipe = sd1.family.load(replace(header, tensors=tensors), match, place())
    want = toy.states("sd1")["unet"]["down_blocks.0.resnets.0.conv1.bias"] * 0.5
    assert torch.equal(pipe.unet.down_blocks[0].resnets[0].conv1.bias, want)


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    header = read_header(toy.write_single_file(tmp_path / "toy.safetensors", "sd1"))
    match = sd1.family.recognise(header)
    assert match is not None
    tensors = {name: info for name, info in header.tensors.items() if "middle_block.1.proj_out" not in name}
    with pytest.raises(UnsupportedModel, match=r"its unet lacks model\.diffusion_model\.middle_block\.1\.proj_out"):
        sd1.family.load(replace(header, tensors=tensors), match, place())


def test_float8_with_scales_is_refused(tmp_path: Path) -> None:
    header = read_header(toy.write_single_file(tmp_path / "toy.safetensors", "sd1", dtype="float8_e4m3fn"))
    match = sd1.family.recognise(header)
    assert match is not None
    some = next(iter(header.tensors.values()))
    with pytest.raises(UnsupportedModel, match="scales of their own"):
        sd1.family.load(
            replace(header, tensors={**header.tensors, "model.diffusion_model.scaled_fp8": some}), match, place()
        )


def test_leftovers_are_told(tmp_path: Path) -> None:
    header = read_header(toy.write_single_file(tmp_path / "toy.safetensors", "sd1"))
    match = sd1.family.recognise(header)
    assert match is not None
    some = next(iter(header.tensors.values()))
    pipe = sd1.family.load(replace(header, tensors={**header.tensors, "stray.weight": some}), match, place())
    assert pipe.notes == (f"{header.path.name}: not used: stray.weight",)


@pytest.mark.parametrize(("family", "variant"), MODELS)
def test_names_go_there_and_back(family: str, variant: str) -> None:
    shapes = toy.shapes(family, variant)
    for part, state in toy.states(family, variant).items():
        for naming in {"unet": ("ldm",), "vae": ("ldm", "diffusers-old")}.get(part, ("openclip", "transformers-flat")):
            find = source_of(replace(shapes[part], naming=naming))
            packed = pack(state, find)
            for name, tensor in state.items():
                source = find(name)
                assert torch.equal(take(source, packed[source.name]), tensor)


# --- against diffusers -----------------------------------------------------------------------------------------------

ATTENDED = ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D")
ATTENDED_XL = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")


def diffusers_pipeline(family: str, variant: str) -> Any:
    """diffusers' pipeline with the toy's weights, its networks configured by hand as diffusers' own files do it."""
    from diffusers import (
        AutoencoderKL,
        EulerDiscreteScheduler,
        StableDiffusionPipeline,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    states = toy.states(family, variant)
    xl = family == "sdxl"
    heads = {"sd1": 8, "sd2": [1, 1, 2], "sdxl": [1, 1, 2]}[family]
    down = ATTENDED_XL if xl else ATTENDED
    unet = UNet2DConditionModel(
        block_out_channels=(32, 64, 128),
        layers_per_block=1,
        down_block_types=down,
        up_block_types=tuple(name.replace("Down", "Up") for name in reversed(down)),
        cross_attention_dim=96 if xl else 32,
        attention_head_dim=heads,
        use_linear_projection=family != "sd1",
        **(
            {
                "transformer_layers_per_block": [1, 1, 2],
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 8,
                "projection_class_embeddings_input_dim": 96,
            }
            if xl
            else {}
        ),
    )
    vae = AutoencoderKL(
        block_out_channels=(32, 32, 64, 64),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        scaling_factor=0.13025 if xl else 0.18215,
    )
    common = {"vocab_size": 49408, "max_position_embeddings": 77, "bos_token_id": 49406, "eos_token_id": 49407}
    first = CLIPTextConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=1,
        hidden_act="gelu" if family == "sd2" else "quick_gelu",
        **common,
    )
    second = CLIPTextConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=1,
        hidden_act="gelu",
        projection_dim=48,
        **common,
    )
    networks = {"unet": unet, "vae": vae, "text_encoder": CLIPTextModel(first)}
    if xl:
        networks["text_encoder_2"] = CLIPTextModelWithProjection(second)
    for part, network in networks.items():
        network.load_state_dict(states[part])
        network.eval()
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction" if variant == "v-prediction" else "epsilon",
        timestep_spacing="linspace",
    )
    if xl:
        return StableDiffusionXLPipeline(
            **networks, scheduler=scheduler, tokenizer=None, tokenizer_2=None, add_watermarker=False
        )
    return StableDiffusionPipeline(
        **networks,
        scheduler=scheduler,
        tokenizer=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


TOKENS = torch.tensor([[49406, 320, 736, 1579, 539, 518, 2102, *[49407] * 70], [49406, *[49407] * 76]])


@torch.no_grad()
def encoded(encoder: torch.nn.Module, family: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    told = encoder(TOKENS, output_hidden_states=True)
    if family == "sdxl":
        return told.hidden_states[-2], getattr(told, "text_embeds", None)
    return told.last_hidden_state, None


def to_the_bit(test: Callable[..., None]) -> Callable[..., None]:
    """Where MKL makes products of matrices differ with where they lie in memory, as for some processors, the test is
    done once more in a process in which it may not: then it has to hold."""

    @wraps(test)
    def once_more(tmp_path: Path, family: str, variant: str) -> None:
        try:
            test(tmp_path, family, variant)
        except AssertionError:
            if "MKL_CBWR" in os.environ:
                raise
            this = f"{__file__}::{test.__name__}[{family}-{variant}]"
            environment = {**os.environ, "MKL_CBWR": "AUTO,STRICT", "PYTEST_ADDOPTS": ""}
            if subprocess.run([sys.executable, "-m", "pytest", "-q", "-n", "0", this], env=environment).returncode:
                raise

    return once_more


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # diffusers' and torch's own
@pytest.mark.parametrize(("family", "variant"), PIPELINES)
@to_the_bit
def test_networks_compute_what_diffusers_compute(tmp_path: Path, family: str, variant: str) -> None:
    theirs = diffusers_pipeline(family, variant)
    ours = opened(toy.write_single_file(tmp_path / "toy.safetensors", family, variant, dtype="float32"), family)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    context: list[torch.Tensor] = []
    added: dict[str, torch.Tensor] = {}
    for name in ("text_encoder", "text_encoder_2")[: len(ours.text_encoders)]:
        mine, pooled = encoded(networks_of(ours)[name], family)
        want, want_pooled = encoded(getattr(theirs, name), family)
        assert torch.equal(mine, want)
        context.append(mine)
        if pooled is not None:
            assert want_pooled is not None
            assert torch.allclose(pooled, want_pooled, atol=1e-6)
            added = {"text_embeds": pooled, "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2)}
    inputs = (noise, torch.tensor(500), torch.cat(context, dim=-1))
    with torch.no_grad():
        mine = ours.unet(*inputs, added_cond_kwargs=added).sample
        want = theirs.unet(*inputs, added_cond_kwargs=added).sample
        assert torch.equal(mine, want)
        assert torch.equal(ours.vae.decode(noise).sample, theirs.vae.decode(noise).sample)
        picture = torch.rand(1, 3, 64, 64)
        assert torch.equal(ours.vae.encode(picture).latent_dist.mean, theirs.vae.encode(picture).latent_dist.mean)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("family", "variant"), [("sd1", "base"), ("sd2", "base"), ("sdxl", "base"), ("sdxl", "refiner")]
)
def test_single_files_mean_to_us_what_they_mean_to_diffusers(tmp_path: Path, family: str, variant: str) -> None:
    """Our names for the tensors of a single file against an independent reading of them."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
    from safetensors.torch import load_file

    path = toy.write_single_file(tmp_path / "toy.safetensors", family, variant, dtype="float32")
    pipe = opened(path, family)
    unet = convert_ldm_unet_checkpoint(load_file(path), {**pipe.unet.config, "layers_per_block": 1})
    vae = convert_ldm_vae_checkpoint(load_file(path), dict(pipe.vae.config))
    for network, converted in ((pipe.unet, unet), (pipe.vae, vae)):
        loaded = network.state_dict()
        assert loaded.keys() == converted.keys()
        for name, tensor in loaded.items():
            assert torch.equal(tensor, converted[name].reshape(tensor.shape)), name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("family", "variant"), PIPELINES)
@to_the_bit
def test_latents_are_those_of_diffusers(tmp_path: Path, family: str, variant: str) -> None:
    """The same noise, Euler, guidance of 5: our network and sampler against diffusers' whole pipeline."""
    theirs = diffusers_pipeline(family, variant)
    theirs.set_progress_bar_config(disable=True)
    ours = opened(toy.write_single_file(tmp_path / "toy.safetensors", family, variant, dtype="float32"), family)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    told = [encoded(encoder.model, family) for encoder in ours.text_encoders]
    contexts = torch.cat([context for context, _ in told], dim=-1).split(1)
    pooled = told[-1][1].split(1) if told[-1][1] is not None else (None, None)
    prompts = {"prompt_embeds": contexts[0], "negative_prompt_embeds": contexts[1]}
    if family == "sdxl":
        prompts |= {"pooled_prompt_embeds": pooled[0], "negative_pooled_prompt_embeds": pooled[1]}
    # Four steps fall on whole timesteps (999, 666, 333, 0), where all ways to interpolate sigmas agree.
    asked = {"num_inference_steps": 4, "guidance_scale": 5.0, "height": 64, "width": 64, "output_type": "latent"}
    want = theirs(**prompts, **asked, latents=noise.clone()).images

    def network(x: torch.Tensor, timestep: torch.Tensor, cond: Conditioning) -> torch.Tensor:
        added = {}
        if cond.vector is not None:
            sizes = torch.tensor([[64.0, 64, 0, 0, 64, 64]] * len(x))
            added = {"text_embeds": cond.vector, "time_ids": sizes}
        return ours.unet(x, timestep, cond.context, added_cond_kwargs=added).sample

    denoiser = Denoiser(network, SigmaTable(stable_diffusion_alphas()), ours.prediction)
    positive, negative = (Conditioning(context, vector) for context, vector in zip(contexts, pooled, strict=True))
    guided = Guided(denoiser, lambda _: [(positive, 1.0)], lambda _: [(negative, 1.0)], Guidance(5.0), calls=4)
    sigmas = theirs.scheduler.sigmas.cpu()
    with torch.no_grad():
        latents = euler(guided, noise * sigmas[0], sigmas, noise=lambda *_: torch.zeros(()), step=lambda *_: None)
    assert (latents - want).abs().max() < 1e-4


# --- memory ----------------------------------------------------------------------------------------------------------

_MEASURE = """
import sys
from bottega.families import sd1
from bottega.formats import read_header
from bottega.runtime.place import choose
header = read_header(sys.argv[1])
match = sd1.family.recognise(header)
first = sd1.family.load(header, match, choose("cpu", sys.argv[2]))  # imports and vocabulary, before anything is counted
def own():
    # Memory of its own, without the mapped file.
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("RssAnon")) * 1024
before = own()
pipe = sd1.family.load(header, match, choose("cpu", sys.argv[2]))
peak = own() - before
print(peak, header.parameters)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("stored", "run", "copies"),
    [("float32", "float32", 0), ("float16", "bfloat16", 2)],
)
def test_no_second_copy(tmp_path: Path, stored: str, run: str, copies: int) -> None:
    path = toy.write_single_file(tmp_path / "toy.safetensors", "sd1", dtype=stored)
    command = [sys.executable, "-W", "ignore", "-c", _MEASURE, str(path), run]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    taken, parameters = int(told[0]), int(told[1])
    slack = 6 << 20  # modules, and what the allocator rounds up
    assert taken < copies * parameters + slack
