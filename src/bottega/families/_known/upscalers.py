"""Networks that enlarge and restore pictures and faces, under the names of their own repositories.

Names and the rules of their scales are facts of the published files; `params_ema` and other wrappers are taken off
already. https://openmodeldb.info lists hundreds of such files.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt

from bottega.families._known._signature import Is, Naming, Signature, Variant, known
from bottega.formats.header import View

_PREFIXES = ("", "module.", "generator.", "model.")
_UPSCALER, _FACES = "upscaler", "face_restorer"


def _shuffled(last: str, incoming: str) -> Callable[[View], int | None]:
    """The scale of a pixel shuffle: the last convolution makes the square of it for each channel of the picture."""

    def scale(view: View) -> int | None:
        made, channels = view.size(last, 0), view.size(incoming, 1)
        return isqrt(made // channels) if made and channels else None

    return scale


def _doubled(pattern: str, first: int = 1, stride: int = 1) -> Callable[[View], int | None]:
    """The scale of convolutions that each follow a doubling: `pattern` counts them."""

    def scale(view: View) -> int | None:
        doublings = 0
        while doublings < 6 and pattern.format(first + stride * doublings) in view:
            doublings += 1
        return int(2**doublings)

    return scale


def _shuffles(view: View) -> int | None:
    """The scale of pixel shuffles one after the other: `upsample.0`, `upsample.2`, ..."""
    scale = 1
    for index in range(0, 8, 2):
        made, into = view.size(f"upsample.{index}.weight", 0), view.size(f"upsample.{index}.weight", 1)
        if made and into:
            scale *= isqrt(made // into)
    return scale


def _swin_scale(view: View) -> int | None:
    """The scale of SwinIR's four kinds of ends, and of those who took them over."""
    if "conv_up1.weight" in view:
        return _doubled("conv_up{}.weight")(view)
    if "conv_before_upsample.0.weight" in view:
        return _shuffles(view)
    return _shuffled("upsample.0.weight", "conv_first.weight")(view) if "upsample.0.weight" in view else 1


def _real_esrgan_scale(view: View) -> int | None:
    """Two doublings, less what a pixel unshuffle in front took away (12 channels for 3: a half)."""
    channels, colours = view.size("conv_first.weight", 1), view.size("conv_last.weight", 0)
    if not channels or not colours:
        return None
    return 4 // (isqrt(channels // colours) or 1)


def _compact_scale(view: View) -> int | None:
    """The scale of SRVGG: its last layer is a pixel shuffle's convolution."""
    last = 0
    while f"body.{last + 1}.weight" in view:
        last += 1
    return _shuffled(f"body.{last}.weight", "body.0.weight")(view)


def _plksr_scale(view: View) -> int | None:
    """The scale of PLKSR: behind its blocks, and a dropout in the real one, comes a pixel shuffle's convolution."""
    last = 1
    while f"feats.{last}.lk.conv.weight" in view:
        last += 1
    if f"feats.{last}.weight" not in view:
        last += 1
    return _shuffled(f"feats.{last}.weight", "feats.0.weight")(view)


def _upscaler(id: str, title: str, *namings: Naming, kind: str = _UPSCALER, types: tuple[str, ...] = ()) -> Signature:
    return Signature(id, title, "image", namings, types, kind=kind, part="network", prefixes=_PREFIXES)


_FIRST = {"width": ("conv_first.weight", 0), "in_channels": ("conv_first.weight", 1)}
_SWIN = "layers.0.residual_group.blocks.0."

SIGNATURES = (
    _upscaler(
        "esrgan",
        "ESRGAN",
        Naming(
            ("model.1.sub.0.RDB1.conv1.0.weight", "model.0.weight"),
            sizes={"width": ("model.0.weight", 0), "in_channels": ("model.0.weight", 1)},
            counts={"blocks": "model.1.sub.{}.RDB1.conv1.0.weight"},
            measures={"scale": _doubled("model.{}.weight", 3, 3)},
            variants=(
                Variant("plus", (Is("model.1.sub.0.RDB1.conv1x1.weight"),), "1x1 convolutions in its blocks: ESRGAN+"),
                Variant("old", (), "the old names"),
            ),
        ),
        Naming(
            ("RRDB_trunk.0.RDB1.conv1.weight", "conv_first.weight", "conv_last.weight"),
            sizes=_FIRST,
            counts={"blocks": "RRDB_trunk.{}.RDB1.conv1.weight"},
            measures={"scale": _doubled("upconv{}.weight")},
            variants=(Variant("new", (), "the new names, which BSRGAN and RealSR have too"),),
        ),
        Naming(
            ("body.0.rdb1.conv1.weight", "conv_first.weight", "conv_body.weight", "conv_last.weight"),
            sizes=_FIRST,
            counts={"blocks": "body.{}.rdb1.conv1.weight"},
            measures={"scale": _real_esrgan_scale},
            variants=(Variant("real", (), "Real-ESRGAN's names"),),
        ),
    ),
    _upscaler(
        "srvgg",
        "SRVGG (Real-ESRGAN compact)",
        Naming(
            ("body.0.weight", "body.1.weight", "body.2.weight"),
            absent=("conv_first.weight", "head.0.weight", "body.1.bias", "body.1.running_mean"),
            where=(Is("body.0.weight", rank=4), Is("body.1.weight", rank=1), Is("body.2.weight", rank=4)),
            sizes={"width": ("body.0.weight", 0), "in_channels": ("body.0.weight", 1)},
            measures={"scale": _compact_scale},
        ),
    ),
    _upscaler(
        "swinir",
        "SwinIR",
        *(
            Naming(
                (f"{_SWIN}attn.relative_position_bias_table", f"{_SWIN}norm1.weight", first),
                absent=("patch_embed.proj.weight", "layers.0.residual_group.overlap_attn.qkv.weight"),
                sizes={"width": (first, 0), "in_channels": (first, 1)},
                counts={"blocks": "layers.{}.residual_group.blocks.0.norm1.weight"},
                measures={"scale": _swin_scale},
            )
            for first in ("conv_first.weight", "conv_first.1.weight")
        ),
    ),
    _upscaler(
        "swin2sr",
        "Swin2SR",
        Naming(
            (f"{_SWIN}attn.logit_scale", f"{_SWIN}norm1.weight", "patch_embed.proj.weight", "conv_first.weight"),
            sizes=_FIRST,
            counts={"blocks": "layers.{}.residual_group.blocks.0.norm1.weight"},
            measures={"scale": _swin_scale},
        ),
        types=("swin2sr",),
    ),
    _upscaler(
        "hat",
        "HAT",
        Naming(
            ("layers.0.residual_group.overlap_attn.qkv.weight", f"{_SWIN}conv_block.cab.0.weight", "conv_first.weight"),
            sizes=_FIRST,
            counts={"blocks": "layers.{}.residual_group.overlap_attn.qkv.weight"},
            measures={"scale": _shuffles},
        ),
    ),
    _upscaler(
        "dat",
        "DAT",
        Naming(
            ("layers.0.blocks.0.attn.channel_interaction.1.weight", "before_RG.1.weight", "conv_first.weight"),
            sizes=_FIRST,
            counts={"blocks": "layers.{}.blocks.0.attn.qkv.weight"},
            measures={"scale": _swin_scale},
        ),
    ),
    _upscaler(
        "omnisr",
        "OmniSR",
        Naming(
            ("residual_layer.0.residual_layer.0.layer.0.fn.0.weight", "input.weight", "up.0.weight"),
            sizes={"width": ("input.weight", 0), "in_channels": ("input.weight", 1)},
            counts={"blocks": "residual_layer.{}.residual_layer.0.layer.0.fn.0.weight"},
            measures={"scale": _shuffled("up.0.weight", "input.weight")},
        ),
    ),
    _upscaler(
        "span",
        "SPAN",
        Naming(
            ("block_1.c1_r.eval_conv.weight", "conv_1.sk.weight", "conv_cat.weight", "upsampler.0.weight"),
            sizes={"width": ("conv_1.sk.weight", 0), "in_channels": ("conv_1.sk.weight", 1)},
            counts={},
            measures={"scale": _shuffled("upsampler.0.weight", "conv_1.sk.weight")},
        ),
    ),
    _upscaler(
        "plksr",
        "PLKSR",
        *(
            Naming(
                (f"feats.1.{mixer}.0.weight", "feats.1.lk.conv.weight", "feats.0.weight"),
                sizes={"width": ("feats.0.weight", 0), "in_channels": ("feats.0.weight", 1)},
                measures={"scale": _plksr_scale},
                variants=(Variant(variant, (), words),),
            )
            for mixer, variant, words in (
                ("channe_mixer", "base", "the mixer's name lacks a letter, as PLKSR's does"),
                ("channel_mixer", "real", "the mixer's full name: RealPLKSR"),
            )
        ),
    ),
    _upscaler(
        "atd",
        "ATD",
        Naming(
            ("layers.0.residual_group.layers.0.attn_atd.wq.weight", "layers.0.residual_group.td", "conv_first.weight"),
            sizes=_FIRST,
            counts={"blocks": "layers.{}.residual_group.td"},
            measures={"scale": _swin_scale},
        ),
    ),
    _upscaler(
        "drct",
        "DRCT",
        Naming(
            ("layers.0.swin1.attn.qkv.weight", "layers.0.adjust1.weight", "conv_first.weight"),
            sizes=_FIRST,
            counts={"blocks": "layers.{}.adjust1.weight"},
            measures={"scale": _shuffles},
        ),
    ),
    _upscaler(
        "scunet",
        "SCUNet",
        Naming(
            ("m_head.0.weight", "m_tail.0.weight", "m_body.0.conv1_1.weight"),
            sizes={"width": ("m_head.0.weight", 0), "in_channels": ("m_head.0.weight", 1)},
            measures={"scale": lambda view: 1},
            variants=(Variant("base", (), "it takes noise away and keeps the size"),),
        ),
    ),
    _upscaler(
        "real-cugan",
        "Real-CUGAN",
        Naming(("unet1.conv1.conv.0.weight", "unet2.conv1.conv.0.weight", "unet1.conv_bottom.weight")),
    ),
    _upscaler(
        "nafnet",
        "NAFNet",
        Naming(
            ("intro.weight", "ending.weight", "encoders.0.0.conv1.weight", "decoders.0.0.conv1.weight"),
            sizes={"width": ("intro.weight", 0), "in_channels": ("intro.weight", 1)},
            measures={"scale": lambda view: 1},
            variants=(Variant("base", (), "it sharpens or takes noise away, and keeps the size"),),
        ),
    ),
    _upscaler(
        "gfpgan",
        "GFPGAN",
        Naming(
            ("stylegan_decoder.style_mlp.1.weight", "toRGB.0.weight", "final_linear.weight"),
            sizes={"style": ("stylegan_decoder.style_mlp.1.weight", 0)},
        ),
        kind=_FACES,
    ),
    _upscaler(
        "codeformer",
        "CodeFormer",
        Naming(
            (
                "ft_layers.0.self_attn.in_proj_weight",
                "quantize.embedding.weight",
                "position_emb",
                "idx_pred_layer.1.weight",
            ),
            sizes={"width": ("position_emb", 1), "codes": ("quantize.embedding.weight", 0)},
            counts={"layers": "ft_layers.{}.self_attn.in_proj_weight"},
        ),
        kind=_FACES,
    ),
    _upscaler(
        "restoreformer",
        "RestoreFormer",
        *(
            Naming(
                (
                    f"{prefix}quantize.embedding.weight",
                    f"{prefix}encoder.down.5.block.0.norm1.weight",
                    f"{prefix}decoder.mid.attn_1.norm2.weight",
                ),
                sizes={
                    "codes": (f"{prefix}quantize.embedding.weight", 0),
                    "width": (f"{prefix}encoder.conv_in.weight", 0),
                },
            )
            for prefix in ("", "vqvae.")
        ),
        kind=_FACES,
    ),
)

KNOWN = known(SIGNATURES)
