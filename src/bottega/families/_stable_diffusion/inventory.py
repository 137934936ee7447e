"""The names of all tensors of a network, from its dimensions alone: what a file must hold to be complete.

They are the networks' own names, diffusers' and transformers' (a text encoder's without `text_model.`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bottega.families._stable_diffusion.layout import TextShape, UnetShape, VaeShape


def names_of(shape: UnetShape | VaeShape | TextShape) -> Iterator[str]:
    """The names of the tensors of a network of this shape."""
    if isinstance(shape, UnetShape):
        return _unet(shape)
    return _vae(shape) if isinstance(shape, VaeShape) else _text(shape)


def _both(modules: Iterable[str], prefix: str = "") -> Iterator[str]:
    for module in modules:
        yield f"{prefix}{module}.weight"
        yield f"{prefix}{module}.bias"


# --- UNet ------------------------------------------------------------------------------------------------------------

_UNET_ENDS = ("conv_in", "time_embedding.linear_1", "time_embedding.linear_2", "conv_norm_out", "conv_out")
_UNBIASED = tuple(f"attn{which}.to_{name}.weight" for which in (1, 2) for name in "qkv")
_BIASED = ("norm1", "norm2", "norm3", "attn1.to_out.0", "attn2.to_out.0", "ff.net.0.proj", "ff.net.2")


def _unet(shape: UnetShape) -> Iterator[str]:
    yield from _both(_UNET_ENDS)
    if shape.adm is not None:
        yield from _both(("add_embedding.linear_1", "add_embedding.linear_2"))
    if shape.guidance_width is not None:
        yield "time_embedding.cond_proj.weight"
    before = shape.channels[0]
    for level, (width, depths) in enumerate(zip(shape.channels, shape.down, strict=True)):
        for layer, depth in enumerate(depths):
            yield from _residual(f"down_blocks.{level}.resnets.{layer}.", shortcut=before != width)
            yield from _attention(f"down_blocks.{level}.attentions.{layer}.", depth)
            before = width
        if level < len(shape.channels) - 1:
            yield from _both((f"down_blocks.{level}.downsamplers.0.conv",))
    if shape.middle >= 0:
        yield from _residual("mid_block.resnets.0.", shortcut=False)
        yield from _attention("mid_block.attentions.0.", shape.middle)
        if shape.middle:  # a middle without attention has one residual block
            yield from _residual("mid_block.resnets.1.", shortcut=False)
    for level, depths in enumerate(shape.up):
        for layer, depth in enumerate(depths):
            # What comes from below is joined by what was left on the way down, so it is always too wide.
            yield from _residual(f"up_blocks.{level}.resnets.{layer}.", shortcut=True)
            yield from _attention(f"up_blocks.{level}.attentions.{layer}.", depth)
        if level < len(shape.up) - 1:
            yield from _both((f"up_blocks.{level}.upsamplers.0.conv",))


def _residual(prefix: str, *, shortcut: bool) -> Iterator[str]:
    yield from _both(("norm1", "conv1", "time_emb_proj", "norm2", "conv2"), prefix)
    if shortcut:
        yield from _both(("conv_shortcut",), prefix)


def _attention(prefix: str, depth: int) -> Iterator[str]:
    if not depth:
        return
    yield from _both(("norm", "proj_in", "proj_out"), prefix)
    for index in range(depth):
        block = f"{prefix}transformer_blocks.{index}."
        yield from _both(_BIASED, block)
        yield from (block + name for name in _UNBIASED)


# --- autoencoder -----------------------------------------------------------------------------------------------------


def _vae(shape: VaeShape) -> Iterator[str]:
    yield from _coder("encoder", "down_blocks", shape.channels, shape.layers, "downsamplers")
    yield from _coder("decoder", "up_blocks", shape.channels[::-1], shape.layers + 1, "upsamplers")
    if shape.quantised:
        yield from _both(("quant_conv", "post_quant_conv"))


def _coder(side: str, blocks: str, channels: tuple[int, ...], layers: int, sampler: str) -> Iterator[str]:
    yield from _both(("conv_in", "conv_norm_out", "conv_out"), f"{side}.")
    before = channels[0]
    for level, width in enumerate(channels):
        for layer in range(layers):
            yield from _plain_residual(f"{side}.{blocks}.{level}.resnets.{layer}.", shortcut=before != width)
            before = width
        if level < len(channels) - 1:
            yield from _both((f"{side}.{blocks}.{level}.{sampler}.0.conv",))
    for layer in (0, 1):
        yield from _plain_residual(f"{side}.mid_block.resnets.{layer}.", shortcut=False)
    yield from _both(("group_norm", "to_q", "to_k", "to_v", "to_out.0"), f"{side}.mid_block.attentions.0.")


def _plain_residual(prefix: str, *, shortcut: bool) -> Iterator[str]:
    yield from _both(("norm1", "conv1", "norm2", "conv2"), prefix)
    if shortcut:
        yield from _both(("conv_shortcut",), prefix)


# --- text encoders ---------------------------------------------------------------------------------------------------

_TEXT_LAYER = (
    "layer_norm1",
    "layer_norm2",
    "mlp.fc1",
    "mlp.fc2",
    *(f"self_attn.{n}_proj" for n in ("q", "k", "v", "out")),
)


def _text(shape: TextShape) -> Iterator[str]:
    yield "embeddings.token_embedding.weight"
    yield "embeddings.position_embedding.weight"
    for layer in range(shape.layers):
        yield from _both(_TEXT_LAYER, f"encoder.layers.{layer}.")
    yield from _both(("final_layer_norm",))
    if shape.projection is not None:
        yield "text_projection.weight"
