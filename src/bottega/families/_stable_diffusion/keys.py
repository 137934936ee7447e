"""Where each tensor of a network lies in a model file: one mapping, read one way to load and the other to save.

Networks carry diffusers' and transformers' names. The names in single files (LDM's, OpenCLIP's) follow from the
dimensions: each module of a network has one place in the file, and a tensor's name is its module's and the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bottega.families._stable_diffusion.layout import TextShape, UnetShape, VaeShape
from bottega.formats.header import BYTES_OF_DTYPE, TensorInfo

if TYPE_CHECKING:
    import torch

Pairs = Iterator[tuple[str, str]]  # (module of the network, module in the file)


@dataclass(frozen=True, slots=True)
class Source:
    """The place of one tensor: its name in the file and how it is stored there.

    `third` is which of the three that are stacked there (query, key, value); `transposed` a matrix the other way
    round; `convolved` a linear layer that is stored as a 1x1 convolution.
    """

    name: str
    third: int | None = None
    transposed: bool = False
    convolved: bool = False


Finder = Callable[[str], Source]


# --- the two directions ----------------------------------------------------------------------------------------------


def take(source: Source, stored: torch.Tensor) -> torch.Tensor:
    """The network's tensor as a view of the stored one: nothing is copied."""
    if source.third is not None:
        rows = stored.shape[0] // 3
        stored = stored.narrow(0, source.third * rows, rows)
    if source.convolved:
        stored = stored.flatten(1)
    return stored.T if source.transposed else stored


def pack(state: Mapping[str, torch.Tensor], find: Finder) -> dict[str, torch.Tensor]:
    """A network's tensors under the names, and in the form, of a file: the inverse of `take`."""
    import torch

    packed: dict[str, torch.Tensor] = {}
    thirds: dict[str, dict[int, torch.Tensor]] = {}
    for name, tensor in state.items():
        source = find(name)
        stored = tensor.T if source.transposed else tensor
        if source.convolved:
            stored = stored[:, :, None, None]
        if source.third is None:
            packed[source.name] = stored.contiguous()
        else:
            thirds.setdefault(source.name, {})[source.third] = stored
    for name, parts in thirds.items():
        packed[name] = torch.cat([parts[index] for index in range(3)])
    return packed


def view(source: Source, stored: TensorInfo) -> TensorInfo:
    """`take` for the description of a tensor: where in the file the network's tensor is, without reading it."""
    shape, strides = list(stored.shape), list(stored.strides or steps(stored.shape))
    start = stored.start
    if source.third is not None:
        shape[0] //= 3
        start += int(source.third * shape[0] * strides[0] * BYTES_OF_DTYPE[stored.dtype])
    if source.convolved:
        shape, strides = shape[:2], strides[:2]
    if source.transposed:
        shape, strides = shape[::-1], strides[::-1]
    return placed(stored, start, shape, strides)


def stow(source: Source, ours: TensorInfo) -> TensorInfo:
    """The inverse of `view`, but for the joining of thirds: the network's tensor in the form of the file."""
    shape, strides = list(ours.shape), list(ours.strides or steps(ours.shape))
    if source.transposed:
        shape, strides = shape[::-1], strides[::-1]
    if source.convolved and len(shape) == 2:
        shape, strides = [*shape, 1, 1], [*strides, 1, 1]
    return placed(ours, ours.start, shape, strides)


def placed(info: TensorInfo, start: int, shape: Sequence[int], strides: Sequence[int]) -> TensorInfo:
    """Another view of the same bytes: `strides` in elements, left out where the elements follow each other."""
    elements = 0 if 0 in shape else 1 + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    end = start + int(elements * BYTES_OF_DTYPE[info.dtype])
    plain = all(size == 1 or step == usual for size, step, usual in zip(shape, strides, steps(shape), strict=True))
    apart = None if plain else tuple(strides)
    return TensorInfo(info.dtype, tuple(shape), info.file, start, end, apart, info.packed, info.big_endian)


def steps(shape: Sequence[int]) -> list[int]:
    """The strides of a tensor whose elements follow each other."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return strides[::-1]


def _finder(pairs: Iterable[tuple[str, str]]) -> Finder:
    """Finds a tensor by the longest of its name's beginnings that is a known module."""
    modules = dict(pairs)

    def find(name: str) -> Source:
        module = name
        while "." in module:
            module = module.rpartition(".")[0]
            if module in modules:
                return Source(modules[module] + name[len(module) :])
        return Source(name)

    return find


# --- whole files -----------------------------------------------------------------------------------------------------

# Where the parts lie in the single files that people exchange, and in which naming.
SINGLE_FILE: dict[str, dict[str, tuple[str, str]]] = {
    "sd1": {
        "unet": ("model.diffusion_model.", "ldm"),
        "vae": ("first_stage_model.", "ldm"),
        "text_encoder": ("cond_stage_model.transformer.", "transformers"),
    },
    "sd2": {
        "unet": ("model.diffusion_model.", "ldm"),
        "vae": ("first_stage_model.", "ldm"),
        "text_encoder": ("cond_stage_model.model.", "openclip"),
    },
    "sdxl": {
        "unet": ("model.diffusion_model.", "ldm"),
        "vae": ("first_stage_model.", "ldm"),
        "text_encoder": ("conditioner.embedders.0.transformer.", "transformers"),
        "text_encoder_2": ("conditioner.embedders.1.model.", "openclip"),
    },
}
REFINER_ENCODER = ("conditioner.embedders.0.model.", "openclip")


def source_of(shape: UnetShape | VaeShape | TextShape) -> Finder:
    """Finds the tensors of a network of this shape, in the naming that the shape names."""
    if isinstance(shape, UnetShape):
        return unet_source(shape)
    return vae_source(shape) if isinstance(shape, VaeShape) else text_source(shape)


def single_file(
    family: str,
    shapes: Mapping[str, UnetShape | VaeShape | TextShape],
    states: Mapping[str, Mapping[str, torch.Tensor]],
    *,
    refiner: bool = False,
) -> dict[str, torch.Tensor]:
    """The tensors of networks, by part, as one single file of this family holds them."""
    layout = dict(SINGLE_FILE[family])
    if refiner:
        layout["text_encoder_2"] = REFINER_ENCODER
    tensors: dict[str, torch.Tensor] = {}
    for part, state in states.items():
        prefix, naming = layout[part]
        find = source_of(replace(shapes[part], naming=naming))
        tensors.update((prefix + name, tensor) for name, tensor in pack(state, find).items())
    return tensors


# --- UNet ------------------------------------------------------------------------------------------------------------


def unet_source(shape: UnetShape) -> Finder:
    """Finds a UNet's tensors in a file of this naming."""
    return _finder(_unet_pairs(shape) if shape.naming == "ldm" else ())


_UNET_ENDS = (
    ("conv_in", "input_blocks.0.0"),
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("add_embedding.linear_1", "label_emb.0.0"),
    ("add_embedding.linear_2", "label_emb.0.2"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
)
_RESIDUAL = (
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
)


def _residual(ours: str, theirs: str) -> Pairs:
    for mine, their in _RESIDUAL:
        yield f"{ours}.{mine}", f"{theirs}.{their}"


def _unet_pairs(shape: UnetShape) -> Pairs:
    """LDM numbers the blocks of all levels through, downsamplers included; upsamplers ride on a level's last block."""
    yield from _UNET_ENDS
    index = 1
    for level, depths in enumerate(shape.down):
        for layer, depth in enumerate(depths):
            yield from _residual(f"down_blocks.{level}.resnets.{layer}", f"input_blocks.{index}.0")
            if depth:
                yield f"down_blocks.{level}.attentions.{layer}", f"input_blocks.{index}.1"
            index += 1
        yield f"down_blocks.{level}.downsamplers.0.conv", f"input_blocks.{index}.0.op"
        index += 1
    for layer in (0, 1):
        yield from _residual(f"mid_block.resnets.{layer}", f"middle_block.{2 * layer}")
    yield "mid_block.attentions.0", "middle_block.1"
    index = 0
    for level, depths in enumerate(shape.up):
        for layer, depth in enumerate(depths):
            yield from _residual(f"up_blocks.{level}.resnets.{layer}", f"output_blocks.{index}.0")
            if depth:
                yield f"up_blocks.{level}.attentions.{layer}", f"output_blocks.{index}.1"
            index += 1
        place = 2 if depths[-1] else 1
        yield f"up_blocks.{level}.upsamplers.0.conv", f"output_blocks.{index - 1}.{place}.conv"


# --- autoencoder -----------------------------------------------------------------------------------------------------

_VAE_LINEAR = {
    "ldm": {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"},
    "diffusers-old": {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"},
}


def vae_source(shape: VaeShape) -> Finder:
    """Finds an autoencoder's tensors in a file of this naming."""
    if shape.naming == "diffusers":
        return Source
    find = _finder(_vae_pairs(shape))
    if shape.naming != "ldm":
        return find
    projections = tuple(f".attn_1.{name}.weight" for name in ("q", "k", "v", "proj_out"))

    def find_convolved(name: str) -> Source:
        source = find(name)
        return replace(source, convolved=source.name.endswith(projections))

    return find_convolved


def _vae_pairs(shape: VaeShape) -> Pairs:
    """LDM counts the decoder's levels from the picture inwards, so the first that is run has the highest number."""
    attention = _VAE_LINEAR[shape.naming]
    for side in ("encoder", "decoder"):
        theirs = f"{side}.mid.attn_1" if shape.naming == "ldm" else f"{side}.mid_block.attentions.0"
        for mine, their in attention.items():
            yield f"{side}.mid_block.attentions.0.{mine}", f"{theirs}.{their}"
    if shape.naming != "ldm":
        return
    deepest = len(shape.channels) - 1
    for side in ("encoder", "decoder"):
        yield f"{side}.conv_norm_out", f"{side}.norm_out"
        for layer in (0, 1):
            yield from _shortcut(f"{side}.mid_block.resnets.{layer}", f"{side}.mid.block_{layer + 1}")
    for level in range(deepest + 1):
        down, up = f"encoder.down.{level}", f"decoder.up.{deepest - level}"
        for layer in range(shape.layers):
            yield from _shortcut(f"encoder.down_blocks.{level}.resnets.{layer}", f"{down}.block.{layer}")
        for layer in range(shape.layers + 1):
            yield from _shortcut(f"decoder.up_blocks.{level}.resnets.{layer}", f"{up}.block.{layer}")
        yield f"encoder.down_blocks.{level}.downsamplers.0.conv", f"{down}.downsample.conv"
        yield f"decoder.up_blocks.{level}.upsamplers.0.conv", f"{up}.upsample.conv"


def _shortcut(ours: str, theirs: str) -> Pairs:
    yield ours, theirs
    yield f"{ours}.conv_shortcut", f"{theirs}.nin_shortcut"


# --- text encoders ---------------------------------------------------------------------------------------------------

_OPENCLIP_ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_OPENCLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_THIRDS = {"self_attn.q_proj": 0, "self_attn.k_proj": 1, "self_attn.v_proj": 2}
INNER = "text_model."  # transformers has it or not, depending on its version, the class, and who wrote the file


def text_source(shape: TextShape) -> Finder:
    """Finds a text encoder's tensors in a file of this naming."""

    def find(name: str) -> Source:
        if name == "text_projection.weight":
            if shape.naming == "openclip":
                return Source("text_projection", transposed=True)
            return Source(name)
        name = name.removeprefix(INNER)
        if shape.naming == "openclip":
            return _openclip(name)
        return Source(INNER + name if shape.naming == "transformers" else name)

    return find


def _openclip(name: str) -> Source:
    if name in _OPENCLIP_ENDS:
        return Source(_OPENCLIP_ENDS[name])
    layer, _, rest = name.removeprefix("encoder.layers.").partition(".")
    module, _, leaf = rest.rpartition(".")
    block = f"transformer.resblocks.{layer}"
    if module in _THIRDS:
        return Source(f"{block}.attn.in_proj_{leaf}", third=_THIRDS[module])
    return Source(f"{block}.{_OPENCLIP_LAYER[module]}.{leaf}")
