"""The layouts of published weight adapters: each algorithm's tensors, in each trainer's naming, for each family.

Modules are counted as the trainers count them (kohya's networks/lora.py, LyCORIS, PEFT, diffusers), from how the
networks are built; nothing is shared with the code that it tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache

from headers import stable_diffusion
from headers.layout import Layout

Shape = tuple[int, ...]
Shapes = dict[str, Shape]
Modules = Mapping[str, Shape]  # the weight of each module by its dotted name, (out, in) or (out, in, height, width)
Algorithm = Callable[[Shape], Shapes]  # what stands for one weight

RANK = 8


# --- what is changed -------------------------------------------------------------------------------------------------


@cache
def sdxl_unet() -> Modules:
    """SD XL's UNet in the original's names, as kohya's trainer changes it."""
    weights = stable_diffusion.sdxl_unet()
    return {name.removesuffix(".weight"): shape for name, shape in weights.items() if len(shape) > 1}


@cache
def diffusers_unet(channels: tuple[int, ...], depths: tuple[int, ...], context: int, linear: bool) -> Modules:
    """A UNet in diffusers' names: `depths` of the transformers by level, 0 for none."""
    modules: dict[str, Shape] = {"conv_in": (channels[0], 4, 3, 3)}

    def resnet(name: str, into: int, out: int) -> None:
        modules[f"{name}.conv1"] = (out, into, 3, 3)
        modules[f"{name}.time_emb_proj"] = (out, 4 * channels[0])
        modules[f"{name}.conv2"] = (out, out, 3, 3)
        if into != out:
            modules[f"{name}.conv_shortcut"] = (out, into, 1, 1)

    def transformer(name: str, width: int, depth: int) -> None:
        outer = (width, width) if linear else (width, width, 1, 1)
        modules[f"{name}.proj_in"] = outer
        for index in range(depth):
            block = f"{name}.transformer_blocks.{index}"
            for attention, heard in (("attn1", width), ("attn2", context)):
                modules[f"{block}.{attention}.to_q"] = (width, width)
                modules[f"{block}.{attention}.to_k"] = (width, heard)
                modules[f"{block}.{attention}.to_v"] = (width, heard)
                modules[f"{block}.{attention}.to_out.0"] = (width, width)
            modules[f"{block}.ff.net.0.proj"] = (8 * width, width)
            modules[f"{block}.ff.net.2"] = (width, 4 * width)
        modules[f"{name}.proj_out"] = outer

    skips, width = [channels[0]], channels[0]
    for level, (out, depth) in enumerate(zip(channels, depths, strict=True)):
        for layer in range(2):
            resnet(f"down_blocks.{level}.resnets.{layer}", width, out)
            width = out
            if depth:
                transformer(f"down_blocks.{level}.attentions.{layer}", width, depth)
            skips.append(width)
        if level != len(channels) - 1:
            modules[f"down_blocks.{level}.downsamplers.0.conv"] = (width, width, 3, 3)
            skips.append(width)
    middle = max(depths[-1], depths[-2])
    for layer in range(2):
        resnet(f"mid_block.resnets.{layer}", width, width)
    transformer("mid_block.attentions.0", width, middle)
    for place, (out, depth) in enumerate(reversed(list(zip(channels, depths, strict=True)))):
        for layer in range(3):
            resnet(f"up_blocks.{place}.resnets.{layer}", width + skips.pop(), out)
            width = out
            if depth:
                transformer(f"up_blocks.{place}.attentions.{layer}", width, depth)
        if place != len(channels) - 1:
            modules[f"up_blocks.{place}.upsamplers.0.conv"] = (width, width, 3, 3)
    modules["conv_out"] = (4, width, 3, 3)
    return modules


def sd1_unet() -> Modules:
    return diffusers_unet((320, 640, 1280, 1280), (1, 1, 1, 0), 768, False)


def sd2_unet() -> Modules:
    return diffusers_unet((320, 640, 1280, 1280), (1, 1, 1, 0), 1024, True)


def sdxl_diffusers_unet() -> Modules:
    return diffusers_unet((320, 640, 1280), (0, 2, 10), 2048, True)


def clip(width: int, layers: int) -> Modules:
    """A CLIP text encoder in transformers' names."""
    modules: dict[str, Shape] = {}
    for index in range(layers):
        layer = f"text_model.encoder.layers.{index}"
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            modules[f"{layer}.self_attn.{name}"] = (width, width)
        modules[f"{layer}.mlp.fc1"] = (4 * width, width)
        modules[f"{layer}.mlp.fc2"] = (width, 4 * width)
    return modules


def in_blocks(name: str, width: int, answer: int) -> Modules:
    """The fused projections of a language model whose blocks are called as GPT-2's are."""
    return blocks("transformer.h.{}", 12, {name: (answer, width)})


def only(modules: Modules, *words: str) -> Modules:
    """The modules whose names contain one of these."""
    return {name: shape for name, shape in modules.items() if any(word in name for word in words)}


def attention(modules: Modules) -> Modules:
    """What plain LoRA changes: the transformers, with their feed-forward layers, and no residual blocks."""
    return only(modules, "transformer_blocks", "proj_in", "proj_out", "text_model")


def blocks(pattern: str, count: int, inner: Modules) -> Modules:
    """The same modules in each of so many blocks."""
    return {f"{pattern.format(index)}.{name}": shape for index in range(count) for name, shape in inner.items()}


def flux(double: int = 19, single: int = 38, width: int = 3072, modulation: bool = True, ratio: int = 4) -> Modules:
    """FLUX's transformer in the original's names; FLUX.2 has gated blocks without modulation and a smaller ratio."""
    inner: dict[str, Shape] = {}
    into = 2 * ratio if ratio == 3 else ratio
    for stream in ("img", "txt"):
        if modulation:
            inner[f"{stream}_mod.lin"] = (6 * width, width)
        inner[f"{stream}_attn.qkv"] = (3 * width, width)
        inner[f"{stream}_attn.proj"] = (width, width)
        inner[f"{stream}_mlp.0"] = (into * width, width)
        inner[f"{stream}_mlp.2"] = (width, ratio * width)
    alone: dict[str, Shape] = {"linear1": ((3 + into) * width, width), "linear2": (width, (1 + ratio) * width)}
    if modulation:
        alone["modulation.lin"] = (3 * width, width)
    return {**blocks("double_blocks.{}", double, inner), **blocks("single_blocks.{}", single, alone)}


def joint(width: int, *, added: bool = True, norm: bool = True) -> Modules:
    """One block with joint attention, in diffusers' names."""
    names = ["attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"]
    names += ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"] if added else []
    inner: dict[str, Shape] = dict.fromkeys(names, (width, width))
    for feed in ("ff", "ff_context") if norm else ():
        inner[f"{feed}.net.0.proj"] = (4 * width, width)
        inner[f"{feed}.net.2"] = (width, 4 * width)
    if norm:
        inner["norm1.linear"] = inner["norm1_context.linear"] = (6 * width, width)
    return inner


def flux_diffusers(double: int = 19, single: int = 38, width: int = 3072, norm: bool = True) -> Modules:
    """FLUX's transformer in diffusers' names; HunyuanVideo's are the same, in another number."""
    alone: dict[str, Shape] = {f"attn.to_{each}": (width, width) for each in "qkv"}
    if norm:
        alone |= {"norm.linear": (3 * width, width), "proj_mlp": (4 * width, width), "proj_out": (width, 5 * width)}
    return {
        **blocks("transformer_blocks.{}", double, joint(width, norm=norm)),
        **blocks("single_transformer_blocks.{}", single, alone),
    }


def hunyuan_video() -> Modules:
    """HunyuanVideo's transformer in the original's names."""
    width = 3072
    inner: dict[str, Shape] = {}
    for stream in ("img", "txt"):
        inner[f"{stream}_mod.linear"] = (6 * width, width)
        inner[f"{stream}_attn_qkv"] = (3 * width, width)
        inner[f"{stream}_attn_proj"] = (width, width)
        inner[f"{stream}_mlp.fc1"] = (4 * width, width)
        inner[f"{stream}_mlp.fc2"] = (width, 4 * width)
    alone = {"linear1": (7 * width, width), "linear2": (width, 5 * width), "modulation.linear": (3 * width, width)}
    return {**blocks("double_blocks.{}", 20, inner), **blocks("single_blocks.{}", 40, alone)}


def wan(width: int = 5120, count: int = 40, picture: bool = False) -> Modules:
    """Wan's transformer in the original's names; `picture` for the variants that see a first frame."""
    inner: dict[str, Shape] = {f"{kind}_attn.{each}": (width, width) for kind in ("self", "cross") for each in "qkvo"}
    if picture:
        inner |= {"cross_attn.k_img": (width, width), "cross_attn.v_img": (width, width)}
    inner |= {"ffn.0": (13824, width), "ffn.2": (width, 13824)}
    return blocks("blocks.{}", count, inner)


def crossed(width: int, count: int, heard: int | None = None, block: str = "transformer_blocks.{}") -> Modules:
    """Blocks with self- and cross-attention in diffusers' names (LTX, PixArt, Sana, Cosmos, Wan, CogVideoX)."""
    inner: dict[str, Shape] = {}
    for kind, into in (("attn1", width), ("attn2", heard or width)):
        inner |= {f"{kind}.to_q": (width, width), f"{kind}.to_k": (width, into), f"{kind}.to_v": (width, into)}
        inner[f"{kind}.to_out.0"] = (width, width)
    return blocks(block, count, inner)


def ltx2() -> Modules:
    """LTX-2's transformer: blocks for pictures and for sound beside each other, each of which hears the other."""
    inner: dict[str, Shape] = {}
    ways = [("attn1", 4096, 4096), ("attn2", 4096, 4096), ("audio_attn1", 2048, 2048), ("audio_attn2", 2048, 2048)]
    for kind, width, heard in (*ways, ("audio_to_video_attn", 4096, 2048), ("video_to_audio_attn", 2048, 4096)):
        inside = min(width, heard)
        inner |= {f"{kind}.to_q": (inside, width), f"{kind}.to_k": (inside, heard), f"{kind}.to_v": (inside, heard)}
        inner[f"{kind}.to_out.0"] = (width, inside)
    for feed, width in (("ff", 4096), ("audio_ff", 2048)):
        inner |= {f"{feed}.net.0.proj": (4 * width, width), f"{feed}.net.2": (width, 4 * width)}
    return blocks("transformer_blocks.{}", 48, inner)


def qwen_image() -> Modules:
    """Qwen-Image's transformer; its names are the same everywhere."""
    inner = dict(joint(3072, norm=False))
    for stream in ("img", "txt"):
        inner |= {f"{stream}_mlp.net.0.proj": (12288, 3072), f"{stream}_mlp.net.2": (3072, 12288)}
        inner[f"{stream}_mod.1"] = (18432, 3072)
    return blocks("transformer_blocks.{}", 60, inner)


def layers(width: int, fused: bool) -> Modules:
    """Lumina 2's and Z-Image's transformer."""
    inner: dict[str, Shape] = {f"feed_forward.w{each}": (width, width) for each in (1, 2, 3)}
    if fused:
        inner |= {"attention.qkv": (3 * width, width), "attention.out": (width, width)}
    else:
        inner |= {f"attention.to_{each}": (width, width) for each in ("q", "k", "v", "out.0")}
    return {**blocks("layers.{}", 30, inner), **blocks("noise_refiner.{}", 2, inner)}


def llama(width: int = 4096, count: int = 32) -> Modules:
    """A language model in the names that Llama, Mistral, Qwen and others share."""
    inner: dict[str, Shape] = {f"self_attn.{each}_proj": (width, width) for each in "qkvo"}
    inner |= {"mlp.gate_proj": (11008, width), "mlp.up_proj": (11008, width), "mlp.down_proj": (width, 11008)}
    return blocks("model.layers.{}", count, inner)


# --- what stands for a weight ----------------------------------------------------------------------------------------


def _features(shape: Shape) -> int:
    features = 1
    for size in shape[1:]:
        features *= size
    return features


def lora(shape: Shape) -> Shapes:
    ones = (1,) * (len(shape) - 2)
    return {
        "lora_down.weight": (RANK, *shape[1:]),
        "lora_up.weight": (shape[0], RANK, *ones),
        "alpha": (),
    }


def dora(shape: Shape) -> Shapes:
    return lora(shape) | {"dora_scale": (shape[0], *(1,) * (len(shape) - 1))}


def tucker(shape: Shape) -> Shapes:
    """LoCon with a core in the middle: the outer factors are one pixel wide."""
    if len(shape) == 2 or shape[2] == 1:
        return lora(shape)
    return {
        "lora_down.weight": (RANK, shape[1], 1, 1),
        "lora_mid.weight": (RANK, RANK, *shape[2:]),
        "lora_up.weight": (shape[0], RANK, 1, 1),
        "alpha": (),
    }


def loha(shape: Shape) -> Shapes:
    factors: Shapes = {"alpha": ()}
    for number in (1, 2):
        factors |= {f"hada_w{number}_a": (shape[0], RANK), f"hada_w{number}_b": (RANK, _features(shape))}
    return factors


def lokr(shape: Shape) -> Shapes:
    """A small matrix, and a large one in two factors."""
    small = (4, 4) if shape[0] % 4 == 0 and shape[1] % 4 == 0 else (1, 1)
    rows, columns = shape[0] // small[0], _features(shape) // small[1]
    return {"lokr_w1": small, "lokr_w2_a": (rows, RANK), "lokr_w2_b": (RANK, columns), "alpha": ()}


def lokr_factored(shape: Shape) -> Shapes:
    """Both matrices in two factors (InvokeAI's detector misses these)."""
    whole = lokr(shape)
    rows, columns = whole.pop("lokr_w1")
    return whole | {"lokr_w1_a": (rows, RANK), "lokr_w1_b": (RANK, columns)}


def lokr_full(shape: Shape) -> Shapes:
    """Both matrices whole."""
    small = lokr(shape)["lokr_w1"]
    return {"lokr_w1": small, "lokr_w2": (shape[0] // small[0], shape[1] // small[1], *shape[2:]), "alpha": ()}


def oft(shape: Shape) -> Shapes:
    size = 4 if shape[0] % 4 == 0 else 1
    return {"oft_blocks": (shape[0] // size, size, size), "alpha": ()}


def oft_peft(shape: Shape) -> Shapes:
    return {"oft_R.weight": (shape[1] // 32, 32 * 31 // 2)}


def boft(shape: Shape) -> Shapes:
    size = 4 if shape[0] % 4 == 0 else 1
    return {"oft_blocks": (3, shape[0] // size, size, size), "rescale": (shape[0], 1), "alpha": ()}


def glora(shape: Shape) -> Shapes:
    into = shape[1]
    return {
        "a1.weight": (into, RANK),
        "a2.weight": (RANK, into),
        "b1.weight": (shape[0], RANK),
        "b2.weight": (RANK, into),
        "alpha": (),
    }


def ia3(shape: Shape) -> Shapes:
    return {"weight": (shape[0], 1), "on_input": ()}


def full(shape: Shape) -> Shapes:
    return {"diff": shape, "diff_b": shape[:1]}


def norm(shape: Shape) -> Shapes:
    return {"w_norm": shape[:1], "b_norm": shape[:1]}


def peft(shape: Shape) -> Shapes:
    return {
        "lora_A.weight": (RANK, *shape[1:]),
        "lora_B.weight": (shape[0], RANK, *(1,) * (len(shape) - 2)),
    }


def peft_named(shape: Shape) -> Shapes:
    return {"lora_A.default.weight": (RANK, shape[1]), "lora_B.default.weight": (shape[0], RANK)}


def peft_dora(shape: Shape) -> Shapes:
    return peft(shape) | {"lora_magnitude_vector": shape[:1]}


def dotted(shape: Shape) -> Shapes:
    """diffusers before PEFT."""
    return {"lora.down.weight": (RANK, shape[1]), "lora.up.weight": (shape[0], RANK)}


def linear_layer(shape: Shape) -> Shapes:
    return {"lora_linear_layer.down.weight": (RANK, shape[1]), "lora_linear_layer.up.weight": (shape[0], RANK)}


# --- how it is called ------------------------------------------------------------------------------------------------


def flat(prefix: str, modules: Modules, algorithm: Algorithm) -> Shapes:
    """kohya's and LyCORIS' naming: a prefix, and dots as underscores."""
    return {
        f"{prefix}{name.replace('.', '_')}.{leaf}": size
        for name, shape in modules.items()
        for leaf, size in algorithm(shape).items()
    }


def dots(prefix: str, modules: Modules, algorithm: Algorithm) -> Shapes:
    """Everybody else's: a prefix and the module's own name."""
    return {
        f"{prefix}{name}.{leaf}": size for name, shape in modules.items() for leaf, size in algorithm(shape).items()
    }


def processors(prefix: str, modules: Modules) -> Shapes:
    """diffusers' first naming: the attention's processor has the LoRA."""
    shapes: Shapes = {}
    for name, shape in only(modules, ".to_").items():
        attention, _, projection = name.removesuffix(".0").rpartition(".")
        for side, size in (("down", (RANK, shape[1])), ("up", (shape[0], RANK))):
            shapes[f"{prefix}{attention}.processor.{projection}_lora.{side}.weight"] = size
    return shapes


def xlabs() -> Shapes:
    """XLabs' FLUX LoRA."""
    width, shapes = 3072, {}
    for block in range(19):
        for number in (1, 2):
            for name, out in (("qkv", 3 * width), ("proj", width)):
                module = f"double_blocks.{block}.processor.{name}_lora{number}"
                shapes |= {f"{module}.down.weight": (16, width), f"{module}.up.weight": (out, 16)}
    return shapes


def control() -> Shapes:
    """Black Forest Labs' LoRA for edges and depth: with biases, norms, and a wider first layer."""
    shapes: Shapes = {}
    for name, shape in {**flux(), "img_in": (3072, 128)}.items():
        shapes |= {f"{name}.lora_A.weight": (128, shape[1]), f"{name}.lora_B.weight": (shape[0], 128)}
        shapes[f"{name}.lora_B.bias"] = shape[:1]
    for block in range(19):
        for stream in ("img", "txt"):
            for norm in ("query_norm", "key_norm"):
                shapes[f"double_blocks.{block}.{stream}_attn.norm.{norm}.scale"] = (128,)
    return shapes


def motion() -> Shapes:
    """AnimateDiff's motion LoRA."""
    shapes: Shapes = {}
    widths = (320, 640, 1280, 1280)
    for side, places in (("down_blocks", 2), ("up_blocks", 3)):
        for level, width in enumerate(widths if side == "down_blocks" else reversed(widths)):
            for place in range(places):
                module = f"{side}.{level}.motion_modules.{place}.temporal_transformer.transformer_blocks.0"
                for attention in (0, 1):
                    for name in ("to_q", "to_k", "to_v", "to_out"):
                        base = f"{module}.attention_blocks.{attention}.processor.{name}_lora"
                        shapes |= {f"{base}.down.weight": (32, width), f"{base}.up.weight": (width, 32)}
    return shapes


def gguf() -> Shapes:
    """A LoRA that llama.cpp converted."""
    shapes: Shapes = {}
    for block in range(32):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            shapes |= {f"blk.{block}.{name}.weight.lora_a": (8, 4096), f"blk.{block}.{name}.weight.lora_b": (4096, 8)}
    return shapes


# --- the table -------------------------------------------------------------------------------------------------------

UNETS: Mapping[str, tuple[Callable[[], Modules], Mapping[str, Modules]]] = {
    "sd1": (sd1_unet, {"lora_te_": clip(768, 12)}),
    "sd2": (sd2_unet, {"lora_te_": clip(1024, 23)}),
    "sdxl": (sdxl_unet, {"lora_te1_": clip(768, 12), "lora_te2_": clip(1280, 32)}),
}
# By variant: what is changed, how, and whether widths of what goes in can be read from it.
ALGORITHMS: Mapping[str, tuple[Callable[[Modules], Modules], Algorithm, bool]] = {
    "lora": (attention, lora, True),
    "locon": (dict, lora, True),
    "dora": (attention, dora, True),
    "loha": (dict, loha, True),
    "lokr": (dict, lokr, True),
    "oft": (attention, oft, False),
    "boft": (attention, boft, False),
    "glora": (attention, glora, True),
    "ia3": (lambda modules: only(modules, "to_k", "to_v", "ff.net.2", "k_proj", "v_proj", "fc2"), ia3, False),
    "full": (dict, full, True),
}


def _kohya() -> Iterator[tuple[str, Layout]]:
    """Every algorithm for every Stable Diffusion, with the text encoders and without them."""
    for family, (unet, encoders) in UNETS.items():
        for variant, (chosen, algorithm, wide) in ALGORITHMS.items():
            alone = flat("lora_unet_", chosen(unet()), algorithm)
            with_text = dict(alone)
            for prefix, encoder in encoders.items():
                with_text |= flat(prefix, chosen(encoder), algorithm)
            yield f"kohya-{variant}-{family}", Layout(with_text, "lora", family, variant)
            # SD 1 and 2 have the same modules: where no width tells them apart it is a guess, and SD 1 the likelier.
            guessed = not wide and family != "sdxl"
            found = "sd1" if guessed else family
            yield f"kohya-{variant}-{family}-unet", Layout(alone, "lora", found, variant, guess=guessed)


def _others() -> Iterator[tuple[str, Layout]]:
    """More ways to write the same, and what only some trainers write."""
    xl, diffusers_xl = sdxl_unet(), sdxl_diffusers_unet()
    wrapped = dots("unet.base_model.model.", attention(diffusers_xl), peft)
    yield "sdxl-wrapped", Layout(wrapped, "lora", "sdxl", "lora")
    yield "lokr-factored", Layout(flat("lora_unet_", attention(xl), lokr_factored), "lora", "sdxl", "lokr")
    yield "lokr-full", Layout(flat("lora_unet_", dict(xl), lokr_full), "lora", "sdxl", "lokr")
    yield "locon-tucker", Layout(flat("lora_unet_", dict(sd1_unet()), tucker), "lora", "sd1", "locon")
    mixed = flat("lora_unet_", attention(sd1_unet()), lokr) | flat("lora_unet_", only(sd1_unet(), "conv1"), lora)
    yield "lokr-with-locon", Layout(mixed, "lora", "sd1", "lokr")
    norms = {f"down_blocks.{level}.attentions.0.norm": (320,) for level in range(3)}
    yield "norms", Layout(flat("lora_unet_", norms, norm), "lora", "sd1", "norm", guess=True)
    with_norms = flat("lora_unet_", attention(sd1_unet()), loha) | flat("lora_unet_", norms, norm)
    yield "loha-with-norms", Layout(with_norms, "lora", "sd1", "loha")
    plain = flat("lora_unet_", attention(xl), lora)
    told = {"ss_network_module": "networks.lora_fa", "ss_base_model_version": "sdxl_base_v1-0"}
    yield "lora-fa", Layout(plain, "lora", "sdxl", "lora-fa", told)
    yield "dylora", Layout(plain, "lora", "sdxl", "dylora", {"ss_network_module": "networks.dylora"})
    refiner = diffusers_unet((384, 768, 1536, 1536), (0, 4, 4, 0), 1280, True)
    yield "refiner", Layout(flat("lora_unet_", attention(refiner), lora), "lora", "sdxl", "lora")
    self_only = flat("lora_unet_", only(xl, "attn1"), lora)
    yield "sdxl-self-attention", Layout(self_only, "lora", "sdxl", "lora")
    first = flat("lora_unet_", only(sd1_unet(), "attn1"), lora)
    yield "sd1-self-attention", Layout(first, "lora", "sd1", "lora", guess=True)
    sd2 = {"ss_base_model_version": "sd_v2_v", "ss_v2": "True"}
    yield "sd2-self-attention-told", Layout(first, "lora", "sd2", "lora", sd2)
    yield (
        "sd1-with-wrong-metadata",
        Layout(
            flat("lora_unet_", attention(sd1_unet()), lora),
            "lora",
            "sd1",
            "lora",
            {"ss_base_model_version": "sdxl_base_v1-0"},
        ),
    )
    yield "sd1-projections", Layout(flat("lora_unet_", only(sd1_unet(), "proj_in"), lora), "lora", "sd1", "lora")
    yield "sd2-projections", Layout(flat("lora_unet_", only(sd2_unet(), "proj_in"), lora), "lora", "sd2", "lora")
    yield "te-sd1", Layout(flat("lora_te_", clip(768, 12), lora), "lora", "sd1", "lora")
    yield "te-sd2", Layout(flat("lora_te_", clip(1024, 23), lora), "lora", "sd2", "lora")
    both = flat("lora_te1_", clip(768, 12), lora) | flat("lora_te2_", clip(1280, 32), lora)
    yield "te-sdxl", Layout(both, "lora", "sdxl", "lora", guess=True)
    yield "pony", Layout(plain, "lora", "sdxl", "lora", {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"})
    kolors = {"ss_base_model_version": "kolors"}
    yield "kolors", Layout(dots("unet.", attention(diffusers_xl), peft), "lora", "kolors", "lora", kolors)
    yield "kolors-self-attention", Layout(self_only, "lora", "kolors", "lora", kolors)
    yield "sd1-that-says-kolors", Layout(flat("lora_unet_", attention(sd1_unet()), lora), "lora", "sd1", "lora", kolors)

    # diffusers and PEFT
    yield "diffusers-processors-bare", Layout(processors("", sd1_unet()), "lora", "sd1", "lora")
    yield "diffusers-processors", Layout(processors("unet.", sd2_unet()), "lora", "sd2", "lora")
    dotted_xl = dots("unet.", attention(diffusers_xl), dotted)
    dotted_xl |= dots("text_encoder.", clip(768, 12), linear_layer) | dots(
        "text_encoder_2.", clip(1280, 32), linear_layer
    )
    yield "diffusers-dotted-sdxl", Layout(dotted_xl, "lora", "sdxl", "lora")
    for family, unet in (("sd1", sd1_unet()), ("sd2", sd2_unet()), ("sdxl", diffusers_xl)):
        yield f"diffusers-peft-{family}", Layout(dots("unet.", attention(unet), peft), "lora", family, "lora")
        yield f"peft-{family}", Layout(dots("base_model.model.", attention(unet), peft), "lora", family, "lora")
        yield f"peft-dora-{family}", Layout(dots("unet.", attention(unet), peft_dora), "lora", family, "dora")
        yield f"peft-loha-{family}", Layout(dots("base_model.model.", attention(unet), loha), "lora", family, "loha")
        yield f"lycoris-{family}", Layout(flat("lycoris_", attention(unet), lokr), "lora", family, "lokr")
        yield f"onetrainer-{family}", Layout(flat("lora_unet_", attention(unet), dora), "lora", family, "dora")
        yield f"comfyui-full-{family}", Layout(dots("diffusion_model.", dict(unet), full), "lora", family, "full")
    bundled = flat("lora_unet_", attention(diffusers_xl), lora)
    bundled |= {"bundle_emb.token.clip_l": (4, 768), "bundle_emb.token.clip_g": (4, 1280)}
    yield "onetrainer-with-embedding", Layout(bundled, "lora", "sdxl", "lora")

    # UNets that are built alike
    time = {"temporal_transformer_blocks.0.attn1.to_q": (320, 320), "transformer_blocks.0.attn2.to_k": (320, 1024)}
    video = {f"down_blocks.0.attentions.0.{name}": shape for name, shape in time.items()}
    yield "svd", Layout(dots("unet.", video, peft), "lora", "svd", "lora")
    film = {"down_blocks.0.temp_attentions.0.transformer_blocks.0.attn1.to_q": (320, 320)}
    film |= {"down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k": (320, 1024)}
    yield "modelscope", Layout(dots("unet.", film, peft), "lora", "modelscope-t2v", "lora")
    added = {f"down_blocks.1.attentions.0.{each}": (768, 768) for each in ("to_q", "add_k_proj", "add_v_proj")}
    yield "kandinsky2", Layout(dots("unet.", added, peft), "lora", "kandinsky2", "lora")

    # motion
    yield "motion", Layout(motion(), "lora", "sd1", "motion")


def _transformers() -> Iterator[tuple[str, Layout]]:
    def row(family: str, shapes: Shapes, variant: str = "lora", **more: object) -> Layout:
        return Layout(shapes, "lora", family, variant, **more)  # type: ignore[arg-type]

    # FLUX and its relatives
    yield "flux-kohya", row("flux", flat("lora_unet_", flux(), lora))
    with_text = flat("lora_unet_", flux(), lora) | flat("lora_te1_", clip(768, 12), lora)
    yield "flux-kohya-clip", row("flux", with_text)
    yield "flux-kohya-attention", row("flux", flat("lora_unet_", flux(modulation=False), lora), guess=True)
    told = {"ss_base_model_version": "flux1", "modelspec.architecture": "flux-1-dev/lora"}
    yield "flux-kohya-attention-told", row("flux", flat("lora_unet_", flux(modulation=False), lora), metadata=told)
    chroma = {"ss_base_model_version": "chroma"}
    yield "chroma-kohya-told", row("chroma", flat("lora_unet_", flux(modulation=False), lora), metadata=chroma)
    distilled = {**flux(modulation=False), "distilled_guidance_layer.layers.0.in_layer": (5120, 5120)}
    yield "chroma", row("chroma", dots("diffusion_model.", distilled, lora))
    yield "flux-diffusers", row("flux", dots("transformer.", flux_diffusers(), peft))
    yield "flux-diffusers-attention", row("flux", dots("transformer.", flux_diffusers(norm=False), peft), guess=True)
    yield "flux-onetrainer", row("flux", flat("lora_transformer_", flux_diffusers(), lora))
    yield "flux-simpletuner-lokr", row("flux", flat("lycoris_", flux_diffusers(), lokr), "lokr")
    yield "flux-comfyui", row("flux", dots("diffusion_model.", flux(), peft))
    yield "flux-peft", row("flux", dots("base_model.model.", flux(), peft))
    yield "flux-xlabs", row("flux", xlabs())
    yield (
        "flux-xlabs-single",
        row(
            "flux",
            {
                f"single_blocks.{block}.processor.{name}_lora.{side}.weight": (16, 16)
                for block in range(38)
                for name in ("qkv", "proj")
                for side in ("down", "up")
            },
        ),
    )
    yield "flux-control", row("flux", control())
    only_qkv = flat("lora_unet_", only(flux(), "attn.qkv"), lora)
    last = flat("lora_unet_", only(flux(), "linear2"), lora)
    yield "flux-kohya-only-linear2", row("flux", last, guess=True)
    yield "flux-kohya-only-qkv", row("flux", only_qkv, guess=True)
    for size, dimensions in {"dev": (8, 48, 6144), "klein-9b": (8, 24, 4096), "klein-4b": (5, 20, 3072)}.items():
        second = flux(*dimensions, modulation=False, ratio=3)
        yield f"flux2-{size}-kohya", row("flux2", flat("lora_unet_", second, lora))
        fewer = {name: shape for name, shape in second.items() if "mlp" not in name and "linear2" not in name}
        yield f"flux2-{size}-without-linear2", row("flux2", dots("diffusion_model.", fewer, peft))
        yield f"flux2-{size}-single", row("flux2", flat("lora_unet_", only(second, "single_blocks"), lora))
    image = blocks("double_blocks.{}", 20, {"img_attn_q": (3584, 3584), "txt_attn_q": (3584, 3584)})
    yield "hunyuan-image", row("hunyuan-image", flat("lora_unet_", image, lora))
    fused = blocks("single_transformer_blocks.{}", 48, {"attn.to_qkv_mlp_proj": (55296, 6144)})
    yield "flux2-diffusers", row("flux2", dots("transformer.", fused, peft))
    hunyuan = hunyuan_video()
    yield "hunyuan-video-musubi", row("hunyuan-video", flat("lora_unet_", hunyuan, lora))
    yield "hunyuan-video-comfyui", row("hunyuan-video", dots("diffusion_model.", hunyuan, peft))
    yield "hunyuan-video-diffusers", row("hunyuan-video", dots("transformer.", flux_diffusers(20, 40), peft))

    later = blocks("transformer_blocks.{}", 54, joint(2048))
    yield "hunyuan-video-15-diffusers", row("hunyuan-video", dots("transformer.", later, peft))
    yield "hunyuan-video-15-kohya", row("hunyuan-video", flat("lora_unet_", later, lora))
    yield "hunyuan-video-15-attention", row("hunyuan-video", dots("", only(later, "attn.to_"), peft))

    # joint attention
    inner = {"attn.qkv": (4608, 1536), "attn.proj": (1536, 1536), "mlp.fc1": (6144, 1536), "mlp.fc2": (1536, 6144)}
    both = {f"{stream}_block.{name}": shape for stream in ("x", "context") for name, shape in inner.items()}
    three = flat("lora_te1_", clip(768, 12), lora) | flat("lora_te2_", clip(1280, 32), lora)
    three |= flat("lora_te3_", {"encoder.block.0.layer.0.SelfAttention.q": (4096, 4096)}, lora)
    yield "sd3-kohya", row("sd3", flat("lora_unet_", blocks("joint_blocks.{}", 24, both), lora) | three)
    yield "sd3-te", row("sd3", three)
    yield "sd3-diffusers", row("sd3", dots("transformer.", blocks("transformer_blocks.{}", 24, joint(1536)), peft))
    large = blocks("transformer_blocks.{}", 38, joint(2432, norm=False))
    yield "sd35-diffusers", row("sd3", dots("transformer.", large, peft))
    yield "sd35-simpletuner", row("sd3", flat("lycoris_", large, lokr), "lokr")
    yield "qwen-image-diffusers", row("qwen-image", dots("transformer.", qwen_image(), peft))
    yield "qwen-image-musubi", row("qwen-image", flat("lora_unet_", qwen_image(), lora))
    yield "qwen-image-comfyui", row("qwen-image", dots("diffusion_model.", qwen_image(), lora))
    yield "qwen-image-diffsynth", row("qwen-image", dots("", qwen_image(), peft_named))
    yield "qwen-image-lokr", row("qwen-image", dots("diffusion_model.", qwen_image(), lokr), "lokr")
    only_attention = only(qwen_image(), "attn.to_")
    yield "qwen-image-attention", row("qwen-image", dots("transformer.", only_attention, peft))
    hidream = blocks("double_stream_blocks.{}", 16, {f"block.attn1.to_{each}": (2560, 2560) for each in "qkv"})
    yield "hidream", row("hidream", dots("diffusion_model.", hidream, peft))
    mochi = blocks("transformer_blocks.{}", 48, {"attn1.to_q": (3072, 3072), "attn1.add_q_proj": (3072, 1536)})
    yield "mochi-diffusers", row("mochi", dots("transformer.", mochi, peft))
    bare = {
        f"transformer_blocks.{block}.attn1.{name}.lora_{side}": (16, 3072)
        for block in range(48)
        for name in ("to_q", "add_k_proj")
        for side in ("A", "B")
    }
    yield "mochi-genmo", row("mochi", bare)
    aura = blocks("joint_transformer_blocks.{}", 4, joint(3072))
    yield "auraflow", row("auraflow", dots("transformer.", aura, peft))

    # self- and cross-attention
    yield "wan-comfyui", row("wan", dots("diffusion_model.", wan(), peft))
    yield "wan-lightx2v", row("wan", dots("diffusion_model.", wan(), lora))
    mixed = dots("diffusion_model.", wan(1536, 30), lora)
    mixed |= {f"diffusion_model.blocks.{block}.norm3.diff": (1536,) for block in range(30)}
    mixed |= {f"diffusion_model.blocks.{block}.self_attn.q.diff_b": (1536,) for block in range(30)}
    yield "wan-with-differences", row("wan", mixed)
    yield "wan-wrapped", row("wan", dots("base_model.model.diffusion_model.", wan(), peft))
    for width, inside in ((1536, 8960), (3072, 14336), (5120, 13824)):
        feed = blocks("blocks.{}", 30, {"ffn.0": (inside, width), "ffn.2": (width, inside)})
        yield f"wan-{width}-feed", row("wan", flat("lora_unet_", feed, lora))
        yield f"wan-{width}-last", row("wan", flat("lora_unet_", only(feed, "ffn.2"), lora))
    yield "wan-musubi", row("wan", flat("lora_unet_", wan(picture=True), lora))
    yield "wan-diffusers", row("wan", dots("transformer.", crossed(5120, 40, block="blocks.{}"), peft))
    two = dots("transformer.", crossed(5120, 40, block="blocks.{}"), peft)
    two |= dots("transformer_2.", crossed(5120, 40, block="blocks.{}"), peft)
    yield "wan22-diffusers", row("wan", two)
    yield "wan-diffsynth", row("wan", dots("", wan(1536, 30), peft_named))
    yield "wan-diffsynth-pipe", row("wan", dots("pipe.dit.", wan(1536, 30), peft_named))
    cosmos = blocks("blocks.{}", 28, {f"cross_attn.{each}_proj": (2048, 2048) for each in "qkv"})
    yield "cosmos-net", row("cosmos", dots("net.", cosmos, peft))
    yield "ltx-comfyui", row("ltx", dots("diffusion_model.", crossed(2048, 28), peft))
    yield "ltx-13b", row("ltx", dots("transformer.", crossed(4096, 48), peft))
    yield "ltx2-comfyui", row("ltx", dots("diffusion_model.", ltx2(), peft))
    yield "ltx2-kohya", row("ltx", flat("lora_unet_", ltx2(), lora))
    yield "ltx2-onetrainer", row("ltx", flat("lora_transformer_", ltx2(), lora))
    for kind in ("audio_attn1", "audio_to_video_attn", "video_to_audio_attn"):
        yield f"ltx2-{kind}", row("ltx", dots("transformer.", only(ltx2(), f".{kind}."), peft))
    for size, width, count in (("2b", 2048, 28), ("7b", 4096, 28), ("14b", 5120, 36)):
        predict2 = crossed(width, count, 1024)
        yield f"cosmos-{size}-diffusers", row("cosmos", dots("transformer.", predict2, peft))
        yield f"cosmos-{size}-kohya", row("cosmos", flat("lora_unet_", predict2, lora))
        yield f"cosmos-{size}-bare", row("cosmos", dots("", predict2, peft))
    for size, width in (("2b", 2048), ("13b", 4096)):
        questions = only(crossed(width, 28), ".to_q")
        yield f"ltx-{size}-only-q", row("ltx", dots("transformer.", questions, peft), guess=True)
    predict = blocks("blocks.{}", 28, {f"self_attn.{each}_proj": (2048, 2048) for each in "qkv"})
    yield "cosmos-original", row("cosmos", dots("diffusion_model.", predict, peft))
    yield "pixart", row("pixart", dots("transformer.", crossed(1152, 28), peft))
    yield "pixart-peft", row("pixart", dots("base_model.model.", crossed(1152, 28), peft))
    yield "sana", row("sana", dots("transformer.", crossed(2240, 20), peft))
    joint_only = only(crossed(3072, 42), "attn1")
    yield "cogvideox", row("cogvideox", dots("transformer.", joint_only, peft))
    genmo = only(crossed(3072, 48), "attn1")
    glm = only(crossed(4096, 28), "attn1")
    yield "cogview4", row("cogview", dots("transformer.", glm, peft), guess=True)
    yield "cogview4-kohya", row("cogview", flat("lora_unet_", glm, lora), guess=True)
    yield "cogview4-told", row("cogview", dots("", glm, peft), metadata={"modelspec.architecture": "cogview4/lora"})
    yield "cogview3-plus", row("cogview", dots("transformer.", only(crossed(2560, 30), "attn1"), peft))
    sber = {f"self_attention.to_{each}": (1792, 1792) for each in ("query", "key", "value")}
    sber |= {"feed_forward.in_layer": (7168, 1792), "feed_forward.out_layer": (1792, 7168)}
    both = blocks("visual_transformer_blocks.{}", 32, sber) | blocks("text_transformer_blocks.{}", 2, sber)
    yield "kandinsky5", row("kandinsky5", dots("transformer.", both, peft))
    yield "kandinsky5-kohya", row("kandinsky5", flat("lora_unet_", both, lora))
    yield "kandinsky5-attention", row("kandinsky5", dots("transformer.", only(both, ".to_"), peft))
    yield "mochi-attention", row("mochi", dots("transformer.", genmo, peft))
    yield "mochi-attention-kohya", row("mochi", flat("lora_unet_", genmo, lora))
    beginning = only(crossed(3072, 20), "attn1")
    yield "cogvideox-or-mochi", row("cogvideox", dots("transformer.", beginning, peft), guess=True)
    told = {"modelspec.architecture": "mochi/lora"}
    yield "mochi-told", row("mochi", dots("transformer.", beginning, peft), metadata=told)
    dit = blocks("blocks.{}", 40, {"attn1.Wqkv": (4224, 1408), "attn2.q_proj": (1408, 1408)})
    yield "hunyuan-dit", row("hunyuan-dit", flat("lora_unet_", dit, lora))
    yield "hunyuan-dit-diffusers", row("hunyuan-dit", dots("", crossed(1408, 40, 1024, "blocks.{}"), peft))

    # others
    yield "lumina2", row("lumina2", dots("diffusion_model.", layers(2304, True), peft))
    yield "z-image", row("z-image", dots("diffusion_model.", layers(3840, False), peft))
    yield "z-image-kohya", row("z-image", flat("lora_unet_", layers(3840, True), lora))
    cascade = {f"down_blocks.0.{place}.attention.to_{each}": (2048, 2048) for place in (2, 5) for each in "qkv"}
    yield "stable-cascade", row("stable-cascade", flat("lora_prior_unet_", cascade, lora))
    yield "stable-cascade-kohya", row("stable-cascade", flat("lora_unet_", cascade, lora))
    yield "stable-cascade-comfyui", row("stable-cascade", dots("diffusion_model.", cascade, peft))
    yield "stable-cascade-peft", row("stable-cascade", dots("", cascade, peft))
    wide = {f"up_blocks.3.{place}.channelwise.0": (1280, 320) for place in (0, 3)}
    yield "stable-cascade-b", row("stable-cascade", dots("unet.", wide, peft))
    turned = (("oft", "oft", oft), ("oft-peft", "oft", oft_peft), ("ia3", "ia3", ia3))
    for name, variant, algorithm in turned:
        yield f"lumina2-{name}", row("lumina2", flat("lora_unet_", layers(2304, True), algorithm), variant)
        yield f"z-image-{name}", row("z-image", flat("lora_unet_", layers(3840, False), algorithm), variant)
        yield f"sd35-{name}", row("sd3", flat("lora_transformer_", large, algorithm), variant)
    modulated = blocks("layers.{}", 30, {"adaLN_modulation.0": (15360, 256)})
    yield "z-image-modulation", row("z-image", flat("lora_unet_", modulated, lora))
    krea = blocks("blocks.{}", 4, {f"attn.w{each}": (4096, 4096) for each in "qkvo"})
    yield "krea2", row("krea2", dots("diffusion_model.", krea, peft))
    ideogram = blocks("layers.{}", 4, {"attention.qkv": (9216, 3072), "adaln_modulation": (12288, 512)})
    yield "ideogram4", row("ideogram4", dots("diffusion_model.", ideogram, peft))
    step = blocks("layers.{}", 4, {"self_attn.q_proj": (2048, 2048), "cross_attn.q_proj": (2048, 2048)})
    yield "ace-step", row("ace-step", dots("base_model.model.", step, peft))
    step = blocks("transformer_blocks.{}", 24, {"attn.to_q": (2560, 2560), "cross_attn.to_q": (2560, 2560)})
    yield "ace-step-diffusers", row("ace-step", dots("", step, peft))
    adapter = {"llm_adapter.blocks.0.self_attn.q_proj": (1024, 1024), "blocks.0.self_attn.q_proj": (2048, 2048)}
    yield "anima", row("anima", dots("diffusion_model.", adapter, peft))
    yield "unknown-names", row("", dots("diffusion_model.", {"some.new.layer": (64, 64)}, peft))

    # language models
    yield "llama", row("", dots("base_model.model.", llama(), peft))
    yield "llama-dora", row("", dots("base_model.model.", llama(), peft_dora), "dora")
    words = {f"model.layers.{layer}.self_attn.k_proj": (4096, 4096) for layer in range(32)}
    yield "llama-ia3", row("", {f"base_model.model.{name}.ia3_l": (4096, 1) for name in words}, "ia3")
    gpt2 = blocks("transformer.h.{}", 12, {"attn.c_attn": (2304, 768)})
    yield "gpt2", row("gpt2", dots("base_model.model.", gpt2, peft))
    yield "gpt2-wide", row("qwen", dots("base_model.model.", in_blocks("attn.c_attn", 4096, 12288), peft), guess=True)
    yield "starcoder", row("starcoder", dots("base_model.model.", in_blocks("attn.c_attn", 6144, 6400), peft))
    yield "codeshell", row("", dots("base_model.model.", in_blocks("attn.c_attn", 4096, 6144), peft))
    query = "self_attention.query_key_value"
    yield "bloom", row("bloom", dots("base_model.model.", in_blocks(query, 4096, 12288), peft), guess=True)
    yield "falcon", row("falcon", dots("base_model.model.", in_blocks(query, 4544, 4672), peft))
    chatglm = blocks("transformer.encoder.layers.{}", 28, {query: (4608, 4096)})
    yield "chatglm", row("chatglm", dots("base_model.model.", chatglm, peft))
    whisper = blocks("model.decoder.layers.{}", 4, {"self_attn.q_proj": (1280, 1280)})
    yield "whisper", row("", dots("base_model.model.", whisper, peft))
    neox = blocks("gpt_neox.layers.{}", 32, {"attention.query_key_value": (12288, 4096)})
    yield "gptneox", row("gpt-neox", dots("base_model.model.", neox, peft))
    told = {"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora"}
    yield "gguf", row("llama", gguf(), metadata=told, format="gguf")


def layouts() -> Iterator[tuple[str, Layout]]:
    """All of them by name."""
    yield from _kohya()
    yield from _others()
    yield from _transformers()


def fewest() -> Iterator[tuple[str, Layout]]:
    """Weight adapters of one module or two, which tell the family by one name or width alone."""

    def row(family: str, shapes: Shapes, variant: str = "lora", **more: object) -> Layout:
        return Layout(shapes, "lora", family, variant, **more)  # type: ignore[arg-type]

    place = "down_blocks.1.attentions.0.transformer_blocks.{}"
    for family, width in (("sd1", 768), ("sd2", 1024), ("sdxl", 2048)):
        heard = {f"{place.format(0)}.attn2.to_k": (640, width)}
        for name, algorithm in (("lora", lora), ("loha", loha), ("lokr", lokr), ("glora", glora), ("full", full)):
            yield f"heard-{name}-{family}", row(family, flat("lora_unet_", heard, algorithm), name)
        yield f"heard-peft-{family}", row(family, dots("unet.", heard, peft))
    for index in (1, 5, 10):
        deep = {f"{place.format(index)}.attn1.to_q": (1280, 1280)}
        yield f"deep-{index}", row("sdxl", flat("lora_unet_", deep, lora))
        yield f"deep-dots-{index}", row("sdxl", dots("unet.", deep, peft))
    listening = {f"{place.format(0)}.attn1.to_q": (640, 640)}
    only_self = flat("lora_unet_", listening, lora)
    yield "self-attention", row("sd1", only_self, guess=True)
    yield "self-attention-v2", row("sd2", only_self, metadata={"ss_v2": "True"})
    yield "self-attention-not-v2", row("sd1", only_self, metadata={"ss_v2": "False"}, guess=True)
    xl = {"ss_base_model_version": "sdxl_base_v1-0", "ss_v2": "False"}
    yield "self-attention-told", row("sdxl", only_self, metadata=xl)

    for level, of_xl, of_others in ((1, 640, 1280), (2, 320, 640)):
        for family, guess, out in (("sdxl", False, of_xl), ("sd1", True, of_others)):
            wide = {f"up_blocks.{level}.resnets.0.conv1": (out, 2 * out, 3, 3)}
            yield f"resnets-{level}-{family}", row(family, flat("lora_unet_", wide, lora), "locon", guess=guess)
            wide = {f"output_blocks.{3 * level}.0.in_layers.2": (out, 2 * out, 3, 3)}
            yield f"blocks-{level}-{family}", row(family, flat("lora_unet_", wide, lora), "locon", guess=guess)
    t5 = {"encoder.block.0.layer.0.SelfAttention.q": (4096, 4096)}
    yield "t5-as-second", row("flux", flat("lora_te2_", t5, lora), guess=True)
    yield "t5-as-second-dots", row("flux", dots("text_encoder_2.", t5, peft), guess=True)
    over_time = crossed(1152, 1) | crossed(1152, 1, block="temporal_transformer_blocks.{}")
    yield "latte", row("latte", flat("lora_unet_", over_time, lora))
    yield "latte-over-time", row("latte", dots("transformer.", only(over_time, "temporal"), peft))

    algorithms = (("oft", oft), ("boft", boft), ("ia3", ia3), ("norm", norm))
    for name, algorithm in algorithms:
        for family, width, layer in (("sd1", 768, 3), ("sd2", 1024, 3), ("sd2", 1024, 22)):
            module = "layer_norm1" if name == "norm" else "self_attn.q_proj"
            text = {f"text_model.encoder.layers.{layer}.{module}": (width,) if name == "norm" else (width, width)}
            encoder = flat("lora_te_", text, algorithm)
            yield f"text-{name}-{family}-{layer}", row(family, encoder, name)
            around = flat("lora_unet_", {"up_blocks.3.attentions.2.proj_in": (320, 320)}, algorithm)
            yield f"both-{name}-{family}-{layer}", row(family, encoder | around, name)
    for family, width in (("sd1", 768), ("sd2", 1024)):
        inner = {"text_model.encoder.layers.0.mlp.fc1": (4 * width, width)}
        yield f"text-inner-{family}", row(family, flat("lora_te_", inner, lora))
        outer = {"text_model.encoder.layers.0.mlp.fc2": (width, 4 * width)}
        yield f"text-outer-{family}", row(family, flat("lora_te_", outer, oft), "oft")
    beyond = flat("lora_te_", {"text_model.encoder.layers.22.mlp.fc1": (4096, 1024)}, oft)
    yield "text-oft-beyond", row("sd2", beyond, "oft")
