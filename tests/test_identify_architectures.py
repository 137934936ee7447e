"""Every published layout of an architecture that can't be run yet is told by exactly one recogniser."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from headers import stable_diffusion as sd
from headers.architectures import LAYOUTS, PUBLISHED
from headers.layout import Layout

from bottega.families import known
from bottega.formats.header import Header
from bottega.library.identify import UNKNOWN, Identity, identify
from bottega.recognisers import all_recognisers


def header_of(layout: Layout) -> Header:
    header = sd.header(layout.shapes, layout.dtype, metadata=layout.metadata, configs=layout.configs)
    return Header(header.path, layout.format, header.tensors, header.metadata, header.configs)


def identified(layout: Layout) -> Identity:
    return identify(header_of(layout), all_recognisers())


@pytest.mark.parametrize("name", LAYOUTS)
def test_published_layouts(name: str) -> None:
    layout = LAYOUTS[name]
    found = identified(layout)
    match = found.match
    assert (match.kind, found.family, match.variant, match.guess) == (
        layout.kind, layout.family, layout.variant, layout.guess,
    ), match.because  # fmt: skip
    assert match.category in ("base", "part")
    assert match.because
    json.dumps(match.dimensions)  # the catalog keeps it so


def test_every_architecture_has_a_layout() -> None:
    told = {identified(layout).recogniser for layout in LAYOUTS.values()}
    assert {each.id for each in known() if not each.asked_last} <= told


def test_whoever_is_not_asked_would_not_claim() -> None:
    spared = 0
    for layout in LAYOUTS.values():
        header = header_of(layout)
        asked = all_recognisers().who_may_claim(header)
        others = [each for each in all_recognisers().first if each not in asked]
        assert [each.id for each in others if each.recognise(header)] == []
        spared += len(others)
    assert spared > 100 * len(FILES)


def test_ids_are_their_own() -> None:
    ids = [each.id for each in all_recognisers()]
    assert len(set(ids)) == len(ids)


FILES = [name for name, layout in LAYOUTS.items() if layout.format == "safetensors"]
NETWORKS = [name for name, published in PUBLISHED.items() if published.layout.kind == "diffusion_model"]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_prefix_does_not_matter(name: str) -> None:
    published = PUBLISHED[name]
    for prefix in ("", "model.diffusion_model."):
        shapes = sd.under(prefix, published.inner) | published.outer
        found = identified(Layout(shapes, "", ""))
        assert (found.family, found.match.variant) == (published.layout.family, published.layout.variant)


@pytest.mark.parametrize("name", [name for name, published in PUBLISHED.items() if published.scale])
def test_scales_of_upscalers(name: str) -> None:
    assert identified(LAYOUTS[name]).match.dimensions["scale"] == PUBLISHED[name].scale


def test_dtype_does_not_matter() -> None:
    for name in FILES:
        layout = replace(LAYOUTS[name], dtype="F8_E4M3")
        found = identified(layout)
        assert (found.match.kind, found.family) == (layout.kind, layout.family)


def test_the_order_of_tensors_does_not_matter() -> None:
    for name in FILES:
        layout = LAYOUTS[name]
        turned = replace(layout, shapes=dict(reversed(layout.shapes.items())))
        assert identified(turned) == identified(layout)


def test_dimensions_are_read_off_not_looked_up() -> None:
    """A network of the same design at another size is the same architecture."""
    for name in ("flux-dev", "sd3.5-large", "wan-t2v-14B", "qwen-image", "esrgan-new", "llama-8B", "t5-xxl"):
        layout = LAYOUTS[name]
        halved = {n: tuple(size // 2 if size >= 512 else size for size in shape) for n, shape in layout.shapes.items()}
        found, whole = identified(replace(layout, shapes=halved)), identified(layout)
        assert found.family == whole.family
        if "width" in whole.match.dimensions:
            assert found.match.dimensions["width"] in (whole.match.dimensions["width"] // 2, 64)


def test_dimensions_and_sizes() -> None:
    wan = identified(LAYOUTS["wan-i2v-14B"]).match.dimensions
    assert (wan["width"], wan["layers"], wan["in_channels"], wan["size"]) == (5120, 40, 36, "14B")
    flux = identified(LAYOUTS["flux-dev"]).match.dimensions
    assert (flux["width"], flux["double_layers"], flux["single_layers"]) == (3072, 19, 38)
    t5 = identified(LAYOUTS["t5-xxl"]).match.dimensions
    assert (t5["width"], t5["layers"], t5["vocabulary"], t5["size"]) == (4096, 24, 32128, "XXL")
    llama = identified(LAYOUTS["llama-folder"]).match.dimensions
    assert (llama["width"], llama["layers"], llama["vocabulary"]) == (4096, 32, 32000)


def test_gguf_says_how_it_is_quantised() -> None:
    llama = identified(LAYOUTS["llama-gguf"]).match.dimensions
    assert llama == {"width": 4096, "layers": 32, "context": 8192, "quantisation": "Q4_K_M"}
    assert identified(LAYOUTS["flux-gguf"]).match.dimensions["quantisation"] == "Q4_K_S"
    shard = identified(LAYOUTS["llama-shard-gguf"]).match.dimensions
    assert (shard["shard"], shard["shards"]) == (2, 3)
    unsaid = replace(LAYOUTS["llama-gguf"], metadata={"general.architecture": "llama"})
    assert identified(unsaid).match.dimensions == {"quantisation": "F32"}


def test_says_which_parts_are_there_and_which_it_takes() -> None:
    bare = identified(LAYOUTS["flux-dev"]).match
    assert bare.requires == ("the text encoders CLIP-L and T5-XXL", "FLUX's autoencoder (16 channels)")
    whole = identified(LAYOUTS["flux-dev-whole"]).match
    assert whole.requires == ()
    assert whole.parts == {
        "transformer": "model.diffusion_model.",
        "vae": "vae.",
        "text_encoder": "text_encoders.",
    }
    without_text = identified(LAYOUTS["ltx-0.9-whole"]).match
    assert len(without_text.requires) == 1
    folder = identified(LAYOUTS["flux-folder"]).match
    assert set(folder.parts) == {"transformer", "text_encoder", "text_encoder_2", "vae"}


def test_a_config_s_inner_sizes_are_read_and_nonsense_is_not() -> None:
    config = {"model_type": "llava", "text_config": {"hidden_size": 4096}, "num_hidden_layers": -3, "vocab_size": "big"}
    layout = replace(LAYOUTS["llava-folder"], configs={"": config | {"quantization_config": {"quant_method": "awq"}}})
    assert identified(layout).match.dimensions == {"width": 4096, "quantisation": "awq"}


NEAR_MISSES = {
    "flux without its end": ("flux-dev", "final_layer.linear.weight"),
    "wan without its head": ("wan-t2v-1.3B", "head.modulation"),
    "qwen-image without its end": ("qwen-image-2.1", "proj_out.weight"),
    "lumina without its captions": ("lumina2", "cap_embedder.1.weight"),
    "clip without its tokens": ("clip-l", "text_model.embeddings.token_embedding.weight"),
    "t5 without its end": ("t5-xxl", "encoder.final_layer_norm.weight"),
    "codeformer without its codes": ("codeformer", "quantize.embedding.weight"),
    "esrgan without its beginning": ("realesrgan-x4", "conv_first.weight"),
    "llama without its norm": ("llama-8B", "model.layers.0.input_layernorm.weight"),
}


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_near_misses_are_never_taken_for_whole(name: str) -> None:
    """What lacks a part that every such model has is at most guessed, from the names that decide."""
    source, missing = NEAR_MISSES[name]
    layout = LAYOUTS[source]
    assert missing in layout.shapes
    shapes = {name: shape for name, shape in layout.shapes.items() if name != missing}
    found = identified(replace(layout, shapes=shapes))
    assert found.match.kind == UNKNOWN or (found.recogniser == "incomplete" and found.match.guess)


def test_a_controlnet_that_begins_as_flux_does_is_no_flux() -> None:
    """XLabs' has the first blocks of FLUX, and a convolution to nothing after each."""
    layout = LAYOUTS["flux-dev"]
    shapes = dict(layout.shapes) | {"controlnet_blocks.0.weight": (3072, 3072)}
    assert identified(replace(layout, shapes=shapes)).recogniser != "flux"


STRANGERS = {
    "depth2img": ("checkpoint", "sd2", "depth2img"),
    "x4-upscaler": ("checkpoint", "sd-x4-upscaler", "base"),
    "unclip": ("checkpoint", "sd2", "unclip-h"),
    "unclip-unet": ("diffusion_model", "sd2", "unclip-h"),
    "svd": ("checkpoint", "svd", "base"),
    "zero123": ("checkpoint", "zero123", "base"),
    "altdiffusion": ("checkpoint", "altdiffusion", "base"),
    "controlnet-whole": ("checkpoint", "sd1", "with-controlnet"),
    "animatediff-merged": ("checkpoint", "sd1", "with-motion"),
    "text-encoder": ("text_encoder", "clip", "L"),
    "playground-2.5": ("checkpoint", "sdxl", "playground-2.5"),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_strangers_to_stable_diffusion_have_a_name_too(name: str) -> None:
    found = identified(Layout(sd.STRANGERS[name], "", ""))
    assert (found.match.kind, found.family, found.match.variant) == STRANGERS[name]


@pytest.mark.parametrize("shape", [(), (0,), (1,) * 64, (1 << 62, 1 << 62)])
def test_hostile_shapes_are_no_error(shape: tuple[int, ...]) -> None:
    for layout in LAYOUTS.values():
        header = header_of(replace(layout, shapes=dict.fromkeys(layout.shapes, shape)))
        for recogniser in all_recognisers():
            recogniser.recognise(header)


HOSTILE_CONFIGS: list[dict[str, object]] = [
    {},
    {"model_type": None, "architectures": None},
    {"model_type": ["llama"], "architectures": "LlamaForCausalLM"},
    {"model_type": "llama", "architectures": [None], "text_config": [1], "quantization_config": 4},
    {"model_type": "llama", "hidden_size": True, "num_hidden_layers": 1.5, "vocab_size": []},
    {"_class_name": ["FluxPipeline"]},
    {"_class_name": 7},
]


@pytest.mark.parametrize("config", HOSTILE_CONFIGS)
@pytest.mark.parametrize("format", ["transformers", "diffusers", "gguf", "safetensors"])
def test_hostile_configs_are_no_error(config: dict[str, object], format: str) -> None:
    header = header_of(Layout({"a": ()}, "", "", format=format, configs={"": config}))
    for recogniser in all_recognisers():
        recogniser.recognise(header)


@pytest.mark.parametrize("text", ["", "[", "[" * 100_000, "[1, -1]", '["a"]', "{}", "[1e9]", "[" + "1," * 99 + "1]"])
def test_hostile_metadata_is_no_error(text: str) -> None:
    names = (
        "general.architecture",
        "general.type",
        "general.file_type",
        "split.no",
        "comfy.gguf.orig_shape.img_in.weight",
    )
    for name in names:
        layout = LAYOUTS["flux-gguf"]
        header = header_of(replace(layout, metadata={**layout.metadata, name: text}))
        for recogniser in all_recognisers():
            recogniser.recognise(header)


def test_needs_no_torch() -> None:
    program = (
        "import sys; from bottega.recognisers import all_recognisers; all_recognisers(); "
        "assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
