"""What a Stable Diffusion model is made of, read from the names and shapes in its header: no torch, no tensor read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

NORM_GROUPS = 32  # every published model; only a folder's config can say otherwise
HEAD_WIDTH = 64  # of SD 2, SD XL and of every CLIP text encoder
SD1_HEADS = 8


@dataclass(frozen=True)
class UnetShape:
    """The dimensions of a UNet; `down`, `middle` and `up` hold the transformer depth of each residual block.

    A depth of 0 is a residual block without attention; a `middle` of -1 is a UNet without a middle block. `up` begins
    at the deepest level, as the names in both namings do.
    """

    naming: str  # "ldm" or "diffusers"
    in_channels: int
    out_channels: int
    channels: tuple[int, ...]
    down: tuple[tuple[int, ...], ...]
    middle: int
    up: tuple[tuple[int, ...], ...]
    context: int
    linear: bool
    heads: tuple[int, ...]
    adm: int | None = None  # width of what SD XL adds to the time embedding: pooled text and sizes
    size_width: int | None = None  # of the embedding of each of those sizes
    guidance_width: int | None = None  # of the guidance embedding that distilled (LCM) UNets take
    groups: int = NORM_GROUPS


@dataclass(frozen=True)
class VaeShape:
    """The dimensions of an autoencoder."""

    naming: str  # "ldm", "diffusers" or "diffusers-old" (query, key, value, proj_attn)
    in_channels: int
    latent_channels: int
    channels: tuple[int, ...]
    layers: int
    quantised: bool  # with the 1x1 convolutions around the latent
    groups: int = NORM_GROUPS
    force_upcast: bool = False

    @property
    def size_factor(self) -> int:
        """How many pixels one latent stands for, along each side."""
        return 2 ** (len(self.channels) - 1)


@dataclass(frozen=True)
class TextShape:
    """The dimensions of a CLIP text encoder; `layers` counts those that are run."""

    naming: str  # "transformers", "transformers-flat" (without `text_model.`) or "openclip"
    width: int
    layers: int
    heads: int
    mlp: int
    vocabulary: int
    positions: int
    activation: str
    projection: int | None = None
    eos: int | None = None


class Shapes(Protocol):
    """What the readers need of a header: is there a tensor of this name, and what is its shape."""

    def __contains__(self, name: object) -> bool: ...
    def shape(self, name: str) -> tuple[int, ...] | None: ...
    def size(self, name: str, axis: int) -> int | None: ...


# --- UNet ------------------------------------------------------------------------------------------------------------

_UNET_NAMES = {
    "ldm": {"in": "input_blocks.0.0", "out": "out.2", "time": "time_embed.0", "adm": "label_emb.0.0"},
    "diffusers": {
        "in": "conv_in",
        "out": "conv_out",
        "time": "time_embedding.linear_1",
        "adm": "add_embedding.linear_1",
    },
}
_GUIDANCE = "time_embedding.cond_proj.weight"


@dataclass
class _Blocks:
    """The residual blocks of a UNet while they are being walked through."""

    channels: list[int]
    down: list[list[int]]
    middle: int
    up: list[list[int]]
    attentions: list[str]  # prefixes of the transformers, in the order of the network


def read_unet(view: Shapes) -> tuple[UnetShape, str] | None:
    """The UNet under a prefix, with the prefix of its last transformer; None if it is no UNet of this design."""
    naming = next((naming for naming, names in _UNET_NAMES.items() if _has_ends(view, names)), None)
    if naming is None:
        return None
    names = _UNET_NAMES[naming]
    blocks = _walk_ldm(view) if naming == "ldm" else _walk_diffusers(view)
    if blocks is None:
        return None
    at = blocks.attentions[0]
    projection = view.shape(f"{at}proj_in.weight")
    context = view.size(f"{at}transformer_blocks.0.attn2.to_k.weight", 1)
    incoming, outgoing = view.shape(f"{names['in']}.weight"), view.shape(f"{names['out']}.weight")
    if projection is None or context is None or incoming is None or outgoing is None or len(incoming) != 4:
        return None
    linear = len(projection) == 2
    adm = view.size(f"{names['adm']}.weight", 1)
    shape = UnetShape(
        naming=naming,
        in_channels=incoming[1],
        out_channels=outgoing[0],
        channels=tuple(blocks.channels),
        down=tuple(map(tuple, blocks.down)),
        middle=blocks.middle,
        up=tuple(map(tuple, blocks.up)),
        context=context,
        linear=linear,
        heads=tuple(heads_of(width, linear) for width in blocks.channels),
        adm=adm,
        guidance_width=view.size(_GUIDANCE, 1),
    )
    return shape, blocks.attentions[-1]


def _has_ends(view: Shapes, names: Mapping[str, str]) -> bool:
    return all(f"{names[part]}.weight" in view for part in ("in", "out", "time"))


def heads_of(width: int, linear: bool) -> int:
    """SD 1 has eight heads at every width; its successors have heads of width 64."""
    heads = max(1, width // HEAD_WIDTH) if linear else SD1_HEADS
    while width % heads:
        heads -= 1
    return heads


def _depth(view: Shapes, prefix: str) -> int:
    depth = 0
    while f"{prefix}transformer_blocks.{depth}.norm1.weight" in view:
        depth += 1
    return depth


def _walk_ldm(view: Shapes) -> _Blocks | None:
    """`input_blocks` counts residual blocks and downsamplers alike; a downsampler begins a level."""
    blocks = _Blocks([], [[]], -1, [[]], [])

    def block(prefix: str, level: list[int]) -> int | None:
        width = view.size(f"{prefix}0.in_layers.2.weight", 0)
        if width is not None:
            level.append(_depth(view, f"{prefix}1."))
            if level[-1]:
                blocks.attentions.append(f"{prefix}1.")
        return width

    index = 1
    while True:
        if f"input_blocks.{index}.0.op.weight" in view:
            blocks.down.append([])
        else:
            width = block(f"input_blocks.{index}.", blocks.down[-1])
            if width is None:
                break
            if len(blocks.down[-1]) == 1:
                blocks.channels.append(width)
        index += 1
    if "middle_block.0.in_layers.2.weight" in view:
        blocks.middle = _depth(view, "middle_block.1.")
    index = 0
    while block(f"output_blocks.{index}.", blocks.up[-1]) is not None:
        if any(f"output_blocks.{index}.{place}.conv.weight" in view for place in (1, 2)):
            blocks.up.append([])
        index += 1
    return blocks if _is_whole(blocks) else None


def _walk_diffusers(view: Shapes) -> _Blocks | None:
    blocks = _Blocks([], [], -1, [], [])

    def level(prefix: str) -> list[int]:
        depths: list[int] = []
        while f"{prefix}resnets.{len(depths)}.conv1.weight" in view:
            attention = f"{prefix}attentions.{len(depths)}."
            depths.append(_depth(view, attention))
            if depths[-1]:
                blocks.attentions.append(attention)
        return depths

    while depths := level(f"down_blocks.{len(blocks.down)}."):
        width = view.size(f"down_blocks.{len(blocks.down)}.resnets.0.conv1.weight", 0)
        blocks.channels.append(width or 0)
        blocks.down.append(depths)
    if "mid_block.resnets.0.conv1.weight" in view:
        blocks.middle = _depth(view, "mid_block.attentions.0.")
    while depths := level(f"up_blocks.{len(blocks.up)}."):
        blocks.up.append(depths)
    return blocks if _is_whole(blocks) else None


def _is_whole(blocks: _Blocks) -> bool:
    """As many levels up as down, with one residual block more, and attention somewhere."""
    downs, ups = [len(level) for level in blocks.down], [len(level) for level in blocks.up]
    return bool(blocks.attentions) and 0 not in downs and [n + 1 for n in reversed(downs)] == ups


# --- autoencoder -----------------------------------------------------------------------------------------------------


def read_vae(view: Shapes) -> VaeShape | None:
    """The autoencoder under a prefix, or None."""
    incoming, latent = view.shape("encoder.conv_in.weight"), view.shape("decoder.conv_in.weight")
    if incoming is None or latent is None or len(incoming) != 4 or len(latent) != 4:
        return None
    naming = "ldm" if "encoder.mid.block_1.conv1.weight" in view else "diffusers"
    if "encoder.mid_block.attentions.0.query.weight" in view:
        naming = "diffusers-old"
    block = "down.{}.block.{}" if naming == "ldm" else "down_blocks.{}.resnets.{}"
    level = f"encoder.{block}.conv1.weight"
    channels: list[int] = []
    while (width := view.size(level.format(len(channels), 0), 0)) is not None:
        channels.append(width)
    layers = 0
    while level.format(0, layers) in view:
        layers += 1
    if not channels:
        return None
    quantised = "post_quant_conv.weight" in view
    return VaeShape(
        naming=naming,
        in_channels=incoming[1],
        latent_channels=latent[1],
        channels=tuple(channels),
        layers=layers,
        quantised=quantised,
    )


# --- text encoders ---------------------------------------------------------------------------------------------------


def read_text(view: Shapes, activation: str, *, penultimate: bool = False) -> TextShape | None:
    """The CLIP text encoder under a prefix, or None; `activation` is in no shape.

    `penultimate` is how SD 2 uses OpenCLIP: the last block is in the file and is never run. Converters that dropped
    it leave an odd number of blocks (23 of 24).
    """
    if "transformer.resblocks.0.attn.in_proj_weight" in view:
        return _read_openclip(view, activation, penultimate)
    for naming, inner in (("transformers", "text_model."), ("transformers-flat", "")):
        if f"{inner}encoder.layers.0.self_attn.q_proj.weight" in view:
            return _read_transformers(view, naming, inner, activation)
    return None


def _read_openclip(view: Shapes, activation: str, penultimate: bool) -> TextShape | None:
    layers = 0
    while f"transformer.resblocks.{layers}.ln_1.weight" in view:
        layers += 1
    tokens, positions = view.shape("token_embedding.weight"), view.size("positional_embedding", 0)
    mlp = view.size("transformer.resblocks.0.mlp.c_fc.weight", 0)
    if tokens is None or positions is None or mlp is None or len(tokens) != 2:
        return None
    return TextShape(
        naming="openclip",
        width=tokens[1],
        layers=layers - 1 if penultimate and layers % 2 == 0 else layers,
        heads=max(1, tokens[1] // HEAD_WIDTH),
        mlp=mlp,
        vocabulary=tokens[0],
        positions=positions,
        activation=activation,
        projection=None if penultimate else view.size("text_projection", 1),
    )


def _read_transformers(view: Shapes, naming: str, inner: str, activation: str) -> TextShape | None:
    layers = 0
    while f"{inner}encoder.layers.{layers}.layer_norm1.weight" in view:
        layers += 1
    tokens = view.shape(f"{inner}embeddings.token_embedding.weight")
    positions = view.size(f"{inner}embeddings.position_embedding.weight", 0)
    mlp = view.size(f"{inner}encoder.layers.0.mlp.fc1.weight", 0)
    if tokens is None or positions is None or mlp is None or len(tokens) != 2:
        return None
    return TextShape(
        naming=naming,
        width=tokens[1],
        layers=layers,
        heads=max(1, tokens[1] // HEAD_WIDTH),
        mlp=mlp,
        vocabulary=tokens[0],
        positions=positions,
        activation=activation,
        projection=view.size("text_projection.weight", 0),
    )


# --- what only a folder's configs can say ----------------------------------------------------------------------------


def configured_unet(shape: UnetShape, config: Mapping[str, object]) -> UnetShape:
    """The shape with what its `config.json` knows beyond the tensors' shapes."""
    heads = config.get("num_attention_heads") or config.get("attention_head_dim")  # diffusers misnames the heads
    if isinstance(heads, int):
        heads = [heads] * len(shape.channels)
    if isinstance(heads, list) and len(heads) == len(shape.channels) and all(isinstance(n, int) for n in heads):
        shape = replace(shape, heads=tuple(heads))
    return replace(
        shape,
        groups=_whole(config, "norm_num_groups") or shape.groups,
        size_width=_whole(config, "addition_time_embed_dim") or shape.size_width,
    )


def configured_vae(shape: VaeShape, config: Mapping[str, object]) -> VaeShape:
    """The shape with what its `config.json` knows beyond the tensors' shapes."""
    groups = _whole(config, "norm_num_groups") or shape.groups
    return replace(shape, groups=groups, force_upcast=config.get("force_upcast") is True)


def configured_text(shape: TextShape, config: Mapping[str, object]) -> TextShape:
    """The shape with what its `config.json` knows beyond the tensors' shapes."""
    activation = config.get("hidden_act")
    return replace(
        shape,
        heads=_whole(config, "num_attention_heads") or shape.heads,
        activation=activation if activation in ("gelu", "quick_gelu") else shape.activation,
        eos=_whole(config, "eos_token_id"),
    )


def _whole(config: Mapping[str, object], name: str) -> int | None:
    value = config.get(name)
    return value if isinstance(value, int) else None


def contradictions(shape: UnetShape, config: Mapping[str, object]) -> list[str]:
    """Where a UNet's `config.json` says otherwise than its tensors."""
    told = {
        "in_channels": shape.in_channels,
        "out_channels": shape.out_channels,
        "block_out_channels": list(shape.channels),
        "cross_attention_dim": shape.context,
        "projection_class_embeddings_input_dim": shape.adm,
    }
    return [name for name, value in told.items() if name in config and config[name] not in (value, None)]
