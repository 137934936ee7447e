"""Every published adapter and part is told for what it is by exactly one recogniser, by its header alone."""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from headers import lora as lora_layouts
from headers import stable_diffusion
from headers.adapters import LAYOUTS, MINIMAL
from headers.layout import Layout
from headers.stable_diffusion import Shapes, under

from bottega.adapters import all_adapters
from bottega.formats import safetensors
from bottega.formats.header import Header, TensorInfo
from bottega.library.identify import UNKNOWN, identify
from bottega.recognisers import all_recognisers
from bottega.spec import Match

KINDS = {
    "lora": "lightweight fine-tune",
    "embedding": "lightweight fine-tune",
    "hypernetwork": "lightweight fine-tune",
    **dict.fromkeys(
        ("vae", "controlnet", "t2i_adapter", "ip_adapter", "photomaker", "motion_module", "style_model", "gligen"),
        "part",
    ),
}


def header(shapes: Mapping[str, tuple[int, ...]], format: str = "safetensors", **fields: object) -> Header:
    """A header of these tensors in no file: a name can't have helped."""
    file = Path(os.devnull)
    tensors = {name: TensorInfo("F16", shape, file, 0, 0) for name, shape in shapes.items()}
    return Header(file, format, tensors, **fields)  # type: ignore[arg-type]


def header_of(layout: Layout) -> Header:
    return header(layout.shapes, layout.format, metadata=layout.metadata, configs=layout.configs)


def claims(model: Header) -> dict[str, Match]:
    """Who claims a header, but for those that are asked last."""
    found = {each.id: each.recognise(model) for each in all_recognisers() if not getattr(each, "asked_last", False)}
    return {id: match for id, match in found.items() if match is not None}


def only_claim(model: Header) -> Match:
    found = claims(model)
    assert len(found) == 1, found
    (match,) = found.values()
    return match


# --- what is published -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYOUTS)
def test_published_layouts(name: str) -> None:
    assert_told(LAYOUTS[name])


def assert_told(layout: Layout) -> None:
    match = only_claim(header_of(layout))
    told = (match.kind, match.family, match.variant, match.guess)
    assert told == (layout.kind, layout.family, layout.variant, layout.guess)
    assert match.category == KINDS[match.kind]
    assert match.because
    assert all(match.because)
    assert match.requires or not match.family
    json.dumps([match.dimensions, match.parts])  # the catalog keeps them so


@pytest.mark.parametrize("name", MINIMAL)
def test_what_is_decisive_is_enough(name: str) -> None:
    """Files cut down to the few tensors that tell a layout, as examples in other programs' tests are."""
    assert_told(MINIMAL[name])


def test_all_kinds_have_a_layout() -> None:
    assert {layout.kind for layout in LAYOUTS.values()} == set(KINDS)
    assert {each.id for each in all_adapters()} == set(KINDS)


def test_the_order_of_tensors_does_not_matter() -> None:
    shuffled = random.Random(3)
    for name, layout in LAYOUTS.items():
        names = list(layout.shapes)
        if len(names) > 400:
            continue
        shuffled.shuffle(names)
        mixed = Layout(
            {each: layout.shapes[each] for each in names}, layout.kind, layout.family, metadata=layout.metadata,
            configs=layout.configs, format=layout.format,
        )  # fmt: skip
        first, second = only_claim(header_of(layout)), only_claim(header_of(mixed))
        assert (first.family, first.variant, first.guess) == (second.family, second.variant, second.guess), name


def test_identify_gives_the_family_that_it_fits() -> None:
    identity = identify(header_of(LAYOUTS["lora/kohya-lora-sdxl"]), all_recognisers())
    assert (identity.recogniser, identity.family) == ("lora", "sdxl")
    assert identity.match.requires == ("a Stable Diffusion XL checkpoint",)


# --- dimensions ------------------------------------------------------------------------------------------------------


def test_dimensions_of_a_lora() -> None:
    match = only_claim(header_of(LAYOUTS["lora/kohya-lora-sdxl"]))
    assert match.dimensions == {
        "algorithm": "lora",
        "naming": "kohya",
        "modules": {"unet": 722, "text_encoder": 72, "text_encoder_2": 192},
        "dora": False,
        "context": 2048,
        "ranks": (8, 8),
    }
    assert match.parts == {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}


def test_kohya_changes_as_many_modules_as_its_trainer_says() -> None:
    """It prints `create LoRA for Text Encoder: 72 modules.` and `create LoRA for U-Net: 192 modules.`"""
    assert only_claim(header_of(LAYOUTS["lora/kohya-lora-sd1"])).dimensions["modules"] == {
        "unet": 192,
        "text_encoder": 72,
    }


@pytest.mark.parametrize(
    ("name", "naming"),
    [
        ("diffusers-processors", "diffusers"),
        ("diffusers-processors-bare", "original"),
        ("peft-sd1", "peft"),
        ("lycoris-sdxl", "lycoris"),
        ("flux-onetrainer", "onetrainer"),
        ("flux-xlabs", "xlabs"),
        ("flux-comfyui", "comfyui"),
        ("gguf", "llama.cpp"),
    ],
)
def test_naming_of_a_lora(name: str, naming: str) -> None:
    assert only_claim(header_of(LAYOUTS[f"lora/{name}"])).dimensions["naming"] == naming


def test_levels_of_an_autoencoder() -> None:
    for name, levels in (("vae-hunyuan-image", 4), ("vae-hunyuan-image-diffusers", 6)):
        assert only_claim(header_of(LAYOUTS[f"vae/{name}"])).dimensions["levels"] == levels


def test_ranks_that_differ() -> None:
    shapes = dict(LAYOUTS["lora/kohya-lora-sd1"].shapes)
    name = next(each for each in shapes if each.endswith("mlp_fc1.lora_down.weight"))
    shapes[name] = (64, 768)
    match = only_claim(header(shapes))
    assert match.dimensions["ranks"] == (8, 64)
    assert "rank 8 to 64" in match.because[0]


def test_the_size_of_a_block_is_told_of_half_its_numbers_too() -> None:
    module = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
    half = only_claim(header({f"{module}.oft_R.weight": (24, 496)}))  # peft's: 32 * 31 / 2, of 768 features
    assert (half.family, half.dimensions["ranks"]) == ("sd1", (32, 32))
    whole = only_claim(header({f"{module}.oft_blocks": (20, 32, 32), f"{module}.alpha": ()}))
    assert whole.dimensions["ranks"] == (32, 32)


def test_algorithms_beside_each_other() -> None:
    match = only_claim(header_of(LAYOUTS["lora/lokr-with-locon"]))
    assert match.dimensions["algorithm"] == "lokr"
    assert match.dimensions["algorithms"] == {"lokr": 192, "lora": 22}


def test_dora_is_said_of_every_algorithm() -> None:
    shapes = dict(LAYOUTS["lora/kohya-loha-sd1-unet"].shapes)
    shapes["lora_unet_conv_in.dora_scale"] = (320, 1, 1, 1)
    match = only_claim(header(shapes))
    assert (match.variant, match.dimensions["dora"]) == ("loha", True)


def test_shapes_win_over_metadata() -> None:
    match = only_claim(header_of(LAYOUTS["lora/sd1-with-wrong-metadata"]))
    assert match.family == "sd1"
    assert any("says otherwise" in words and "sdxl_base_v1-0" in words for words in match.because)


def test_metadata_that_decides_is_quoted() -> None:
    match = only_claim(header_of(LAYOUTS["lora/sd2-self-attention-told"]))
    assert any("sd_v2_v" in words for words in match.because)


def test_a_controlnet_is_not_told_by_the_width_of_its_middle() -> None:
    """InvokeAI takes 1280 for SD XL; SD 1's ControlNets are as wide there."""
    for family in ("sd1", "sdxl"):
        layout = LAYOUTS[f"controlnet/controlnet-diffusers-{family}"]
        assert layout.shapes["controlnet_mid_block.bias"] == (1280,)
        assert only_claim(header_of(layout)).family == family


def test_channels_of_hints() -> None:
    shapes = dict(LAYOUTS["controlnet/controlnet-sd1"].shapes)
    shapes["control_model.input_hint_block.0.weight"] = (16, 6, 3, 3)
    assert only_claim(header(shapes)).dimensions["hint_channels"] == 6


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ip-adapter-sd1", "a CLIP ViT-H image encoder"),
        ("ip-adapter-plus-sdxl", "a CLIP ViT-H image encoder"),
        ("ip-adapter-faceid", "a face recognition model of 512 numbers (InsightFace)"),
        ("instantid", "InstantID's ControlNet"),
        ("ip-adapter-sd3", "the image encoder SigLIP SO400M"),
    ],
)
def test_what_an_ip_adapter_needs(name: str, words: str) -> None:
    assert words in only_claim(header_of(LAYOUTS[f"ip_adapter/{name}"])).requires


def test_what_is_in_an_embedding() -> None:
    match = only_claim(header_of(LAYOUTS["embedding/a1111-sd1"]))
    assert (match.dimensions["vectors"], match.dimensions["width"]) == (8, 768)
    assert any("badhand" in words for words in match.because)


def test_what_is_in_a_hypernetwork() -> None:
    match = only_claim(header_of(LAYOUTS["hypernetwork/hypernetwork-norms"]))
    assert match.dimensions["sizes"] == [320, 640, 768, 1280]
    assert match.dimensions["structure"] == (1, 2, 2, 1)


# --- what is something else ------------------------------------------------------------------------------------------

_FLAT = lora_layouts.flat("lora_unet_", lora_layouts.attention(lora_layouts.sd1_unet()), lora_layouts.lora)


@pytest.mark.parametrize("name", stable_diffusion.PUBLISHED)
def test_no_adapter_claims_a_checkpoint(name: str) -> None:
    model = stable_diffusion.header(stable_diffusion.PUBLISHED[name][2])
    assert [each.id for each in all_adapters() if each.recognise(model)] == []


@pytest.mark.parametrize("name", ["depth2img", "x4-upscaler", "unclip", "svd", "zero123", "controlnet-whole",
                                  "animatediff-merged", "playground-2.5", "text-encoder", "nothing"])  # fmt: skip
def test_no_adapter_claims_a_stranger(name: str) -> None:
    model = stable_diffusion.header(stable_diffusion.STRANGERS[name])
    assert [each.id for each in all_adapters() if each.recognise(model)] == []


NEAR_MISSES: Mapping[str, Shapes] = {
    "a single weight": {"weight": (10, 768)},
    "a layer as wide as an embedding": {"proj.weight": (10, 768), "proj.bias": (10,)},
    "an embedding of no vectors": {"emb_params": (0, 768)},
    "an embedding of a whole vocabulary": {"emb_params": (49408, 768)},
    "a word of an odd width": {"my-style": (8, 512)},
    "an embedding of vectors of one number": {"emb_params": (8, 1)},
    "a vector as wide as T5's": {"cached": (77, 4096)},
    "an embedding and something else": {"emb_params": (8, 768), "other.weight": (3, 3)},
    "a hypernetwork with one half": {"768.0.linear.0.weight": (1536, 768), "768.0.linear.2.weight": (768, 1536)},
    "a hypernetwork of another width": {f"768.{half}.linear.0.weight": (640, 640) for half in (0, 1)},
    "a Sequential": {"0.weight": (64, 3, 3, 3), "0.bias": (64,), "2.weight": (64, 64, 3, 3)},
    "a decoder's first layer of an odd number of channels": {"decoder.conv_in.weight": (512, 7, 3, 3)},
    "a decoder's first layer and another network": {"decoder.conv_in.weight": (512, 4, 3, 3), "head.weight": (9, 9)},
    "the beginning of a film's decoder, of odd channels": {"decoder.conv1.weight": (384, 7, 3, 3, 3)},
    "a decoder of one pixel": {"decoder.conv_in.weight": (512, 4, 1, 1)},
    "a restorer of faces": stable_diffusion.vae(latent=256) | {"quantize.embedding.weight": (1024, 256)},
    "another tiny network": {"1.weight": (32, 4, 3, 3), "3.conv.0.weight": (32, 32, 3, 3)},
    "a part of an encoder of hints": {"controlnet_cond_embedding.blocks.0.weight": (16, 3, 3, 3)},
    "layers after blocks of nothing known": {"controlnet_blocks.0.weight": (3072, 3072)},
    "an IP-Adapter's keys in a UNet's names": {"mid_block.attn2.processor.to_k_ip.weight": (320, 768)},
    "positions": {"pos_embed": (197, 768)},
    "few positions": {"pos_embed": (17, 768)},
    "a class": {"cls_token": (1, 768)},
    "a classifier": {"head": (10, 768)},
    "a prompt for a language model": {"prompt_embeddings": (20, 1024)},
    "more vectors than a word has": {"vocabulary": (129, 768)},
    "a layer in words of three": {"one.two.three": (4, 768)},
    "a Sequential that begins as a tiny decoder": {"1.weight": (64, 4, 3, 3), "3.weight": (64, 64, 3, 3)},
    "an MLP": {"body.0.weight": (64, 3, 3, 3), "body.2.weight": (64, 64, 3, 3)},
    "a gated model": {"layers.0.a1.weight": (4, 4), "layers.0.b1.weight": (4, 4)},
    "names that are almost LoRA": {"layer.lora_downs.weight": (4, 4), "layer.lora_ups.weight": (4, 4)},
    "LLLite beside others": {"lllite_unet_x.down.0.weight": (4, 4), "other.weight": (4, 4)},
    "nothing": {},
}


def test_a_network_with_rests_of_a_lora_is_no_adapter() -> None:
    model = header(stable_diffusion.sd1_unet() | dict(list(_FLAT.items())[:30]))
    assert [each.id for each in all_adapters() if each.recognise(model)] == []
    assert identify(model, all_recognisers()).match.kind == "diffusion_model"


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_near_misses_are_unknown(name: str) -> None:
    model = header(NEAR_MISSES[name])
    assert [each.id for each in all_adapters() if each.recognise(model)] == []
    assert identify(model, all_recognisers()).match.kind == UNKNOWN


def test_a_model_in_pieces_is_not_taken_for_its_autoencoder() -> None:
    """A pipeline's folder, and a checkpoint whose tensors lie in any order, hold an autoencoder among others."""
    folder = under("vae/", stable_diffusion.vae()) | under("unet/", stable_diffusion.sd1_unet())
    whole = under("first_stage_model.", stable_diffusion.vae()) | {"model.diffusion_model.out.2.weight": (4, 320, 3, 3)}
    for shapes in (folder, whole):
        assert [each.id for each in all_adapters() if each.recognise(header(shapes))] == []


# --- hostile headers -------------------------------------------------------------------------------------------------

HOSTILE: tuple[tuple[int, ...], ...] = ((), (0,), (1,), (0, 0), (1 << 40,), (1,) * 64, (768,) * 5, (4, 1 << 40, 3, 3))


@pytest.mark.parametrize("shape", HOSTILE)
def test_no_shape_makes_a_recogniser_stumble(shape: tuple[int, ...]) -> None:
    for layout in LAYOUTS.values():
        if len(layout.shapes) < 400:
            model = header(dict.fromkeys(layout.shapes, shape), layout.format, metadata=layout.metadata)
            assert len([each for each in all_adapters() if each.recognise(model)]) <= 1


def test_shapes_that_are_mixed_up() -> None:
    dice = random.Random(7)
    for name, layout in LAYOUTS.items():
        for _ in range(3 if len(layout.shapes) < 200 else 0):
            shapes = {each: dice.choice((*HOSTILE, shape)) for each, shape in layout.shapes.items()}
            found = [each.id for each in all_adapters() if each.recognise(header(shapes, layout.format))]
            assert len(found) <= 1, name


STRANGE_NAMES: tuple[tuple[str, ...], ...] = (
    ("." * 1000,),
    ("",),
    ("\0",),
    ("\ud800.lora_down.weight",),
    ("a\nb.lora_down.weight", "transformer.attn1_to_q\n.lora_A.weight"),
    ("lora_down.weight",),
    (".lora_down.weight",),
    ("weight",),
    (".weight",),
    ("9" * 5000 + ".0.linear.0.weight",),
    ("٣.0.linear.0.weight",),
    ("-1.0.linear.0.weight",),
    ("lora_unet_" + "down_blocks_" * 20_000 + ".lora_down.weight",),
    ("<>",),
    ("string_to_param.",),
    (f"controlnet_blocks.{'9' * 5000}.weight", "controlnet_blocks.0.weight"),
)


@pytest.mark.parametrize("names", STRANGE_NAMES)
def test_no_name_makes_a_recogniser_stumble(names: tuple[str, ...]) -> None:
    for shape in ((8, 768), (), (8,)):
        for each in all_adapters():
            each.recognise(header(dict.fromkeys(names, shape)))


def test_metadata_can_hold_anything() -> None:
    metadata = {
        "ss_base_model_version": "\x1b[31m" * 5000,
        "modelspec.architecture": "\ud800",
        "general.architecture": "",
    }
    match = only_claim(header(LAYOUTS["lora/sd1-self-attention"].shapes, metadata=metadata))
    assert match.family == "sd1"
    told = dict(metadata, ss_base_model_version="sd_v2" + "\x1b[31m" * 5000)
    match = only_claim(header(LAYOUTS["lora/sd1-self-attention"].shapes, metadata=told))
    assert match.family == "sd2"
    assert all(words.isascii() and words.isprintable() and len(words) < 300 for words in match.because)


# --- the networks themselves -----------------------------------------------------------------------------------------

FOUR_LEVELS = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "layers_per_block": 2,
}
SDXL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
NETWORKS: tuple[tuple[str, dict[str, Any], str, str, str], ...] = (
    ("AutoencoderKL", {**FOUR_LEVELS, "up_block_types": ("UpDecoderBlock2D",) * 4}, "vae", "sd1", "kl"),
    ("AutoencoderKLTemporalDecoder", FOUR_LEVELS, "vae", "svd", "temporal"),
    ("AutoencoderTiny", {}, "vae", "sd1", "taesd"),
    ("AutoencoderTiny", {"latent_channels": 16}, "vae", "flux", "taef1"),
    ("ConsistencyDecoderVAE", {}, "vae", "sd1", "consistency"),
    ("AutoencoderKLFlux2", {}, "vae", "flux2", "kl"),
    ("AutoencoderDC", {}, "vae", "sana", "dc"),
    ("AutoencoderKLWan", {}, "vae", "wan", "film"),
    ("AutoencoderKLQwenImage", {}, "vae", "wan", "film"),
    ("AutoencoderKLLTXVideo", {}, "vae", "ltx", "film"),
    ("AutoencoderKLHunyuanVideo", {}, "vae", "hunyuan-video", "film"),
    ("AutoencoderKLCogVideoX", {}, "vae", "cogvideox", "film"),
    ("AutoencoderKLMochi", {}, "vae", "mochi", "film"),
    ("AutoencoderKLCosmos", {}, "vae", "cosmos", "film"),
    ("AutoencoderKLAllegro", {}, "vae", "allegro", "film"),
    ("AutoencoderOobleck", {}, "vae", "stable-audio", "audio"),
    ("ControlNetModel", {"cross_attention_dim": 768}, "controlnet", "sd1", "plain"),
    ("ControlNetModel", {"cross_attention_dim": 1024}, "controlnet", "sd2", "plain"),
    ("ControlNetModel", SDXL, "controlnet", "sdxl", "plain"),
    ("ControlNetUnionModel", SDXL, "controlnet", "sdxl", "union"),
    ("SD3ControlNetModel", {"num_layers": 2}, "controlnet", "sd3", "instantx"),
    ("FluxControlNetModel", {"num_layers": 1, "num_single_layers": 1}, "controlnet", "flux", "instantx"),
    ("FluxControlNetModel", {"num_layers": 1, "num_single_layers": 1, "num_mode": 9}, "controlnet", "flux", "union"),
    ("QwenImageControlNetModel", {"num_layers": 1}, "controlnet", "qwen-image", "instantx"),
    ("SanaControlNetModel", {"num_layers": 1}, "controlnet", "sana", "sana"),
    ("SparseControlNetModel", {}, "controlnet", "sd1", "sparsectrl-rgb"),
    ("T2IAdapter", {}, "t2i_adapter", "sd1", "full"),
    ("T2IAdapter", {"adapter_type": "full_adapter_xl", "downscale_factor": 16}, "t2i_adapter", "sdxl", "full"),
    ("T2IAdapter", {"adapter_type": "light_adapter"}, "t2i_adapter", "sd1", "light"),
    ("MotionAdapter", {}, "motion_module", "sd1", "animatediff-v2"),
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")  # diffusers' own
@pytest.mark.parametrize(("name", "options", "kind", "family", "variant"), NETWORKS)
def test_the_networks_that_diffusers_builds(
    name: str, options: dict[str, Any], kind: str, family: str, variant: str
) -> None:
    """The fixtures above were written by hand; these names and shapes come from the networks, of no weights."""
    match = only_claim(header(_built(name, options)))
    assert (match.kind, match.family, match.variant) == (kind, family, variant)


@pytest.mark.slow
def test_lora_fixtures_change_modules_that_exist() -> None:
    linear = {"use_linear_projection": True, "attention_head_dim": (5, 10, 20, 20), "cross_attention_dim": 1024}
    xl = SDXL | {"up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")}
    for modules, options in (
        (lora_layouts.sd1_unet(), {"cross_attention_dim": 768}),
        (lora_layouts.sd2_unet(), linear),
        (lora_layouts.sdxl_diffusers_unet(), xl),
    ):
        real = _built("UNet2DConditionModel", options)
        assert {name: real.get(f"{name}.weight") for name in modules} == dict(modules)


def _built(name: str, options: dict[str, Any]) -> Shapes:
    import diffusers
    import torch

    with torch.device("meta"):
        network = getattr(diffusers, name)(**options)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


# --- real files, and speed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lora", "embedding", "vae", "controlnet"])
def test_a_real_file(tmp_path: Path, name: str) -> None:
    """Small ones on disk, called what every file could be called."""
    small: dict[str, tuple[Shapes, str]] = {
        "lora": (dict(list(_FLAT.items())[:60]), "sd1"),
        "embedding": ({"clip_l": (2, 768), "clip_g": (2, 1280)}, "sdxl"),
        "vae": (stable_diffusion.vae((32, 32, 32, 32)), "sd1"),
        "controlnet": ({"zero_convs.0.0.weight": (4, 4, 1, 1), "label_emb.0.0.weight": (4, 2816)}, "sdxl"),
    }
    shapes, family = small[name]
    path = tmp_path / "model.safetensors"
    rows = ((each, "F16", shape, bytes(2 * math.prod(shape))) for each, shape in shapes.items())
    safetensors.write(path, rows)
    identity = identify(safetensors.read_header(path), all_recognisers())
    assert (identity.match.kind, identity.family) == (name, family)


def test_a_foreign_header_costs_nearly_nothing() -> None:
    """All recognisers of adapters together take a fraction of one walk through the names of a checkpoint."""
    model = stable_diffusion.header(stable_diffusion.PUBLISHED["sdxl"][2])
    assert model.endings

    def ask() -> None:
        for each in all_adapters():
            each.recognise(model)

    def walk() -> None:
        for name in model.tensors:
            name.rpartition(".")

    assert _fastest(ask) < _fastest(walk)


def test_a_lora_takes_one_walk() -> None:
    """The time for a LoRA is that of a few walks through its names, not more with every algorithm or family."""
    model = header_of(LAYOUTS["lora/kohya-lora-sdxl"])
    assert model.endings

    def ask() -> None:
        for each in all_adapters():
            each.recognise(model)

    def walk() -> None:
        for name in model.tensors:
            name.rpartition(".")

    assert _fastest(ask) < 30 * _fastest(walk)


def _fastest(run: Callable[[], None]) -> float:
    def once() -> float:
        began = time.process_time()
        for _ in range(5):
            run()
        return time.process_time() - began

    return min(once() for _ in range(5))
