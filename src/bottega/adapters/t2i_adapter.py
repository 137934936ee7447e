"""T2I-Adapters: small encoders whose features are added to a UNet's on the way down."""

from __future__ import annotations

from bottega.adapters._fits import PART, lone_part, settle
from bottega.formats.header import Header, View
from bottega.spec import Adapter, Match

_XL = (256, 768)  # input channels after every 16 x 16 pixels became one; SD 1's adapters take 8 x 8 (64, 192)

_LONE = "body.0.resnets.0.block1.weight"  # a network called adapter with such a block is diffusers'
_FULL_WIDTH = 320  # channels of the first block of a full adapter; a light one's are fewer
_BLOCKS = tuple(f"body.0.{inner}block{number}.weight" for inner in ("", "resnets.0.") for number in (1, 2))


def recognise(header: Header) -> Match | None:
    """The match of a T2I-Adapter, full or light, in the original's names or in diffusers'."""
    for prefix in (lone_part(header), "adapter.", f"{lone_part(header)}adapter."):
        view = header.under(prefix)
        if (first := view.shape("body.0.in_conv.weight")) is not None:
            return _match(view, "light", first, 1)
        if any(name in view for name in _BLOCKS) and (first := view.shape("conv_in.weight")) is not None:
            return _match(view, "full", first, 1)
        if prefix.endswith("adapter.") and (block := view.shape(_LONE)) is not None:
            return _match(view, "full" if block[:1] >= (_FULL_WIDTH,) else "light", None, 1)
    view = header.under(f"{lone_part(header)}adapters.0.adapter.")
    if (first := view.shape("conv_in.weight")) is not None:
        return _match(view, "multi", first, view.header.under(f"{lone_part(header)}adapters.").count("{}.adapter."))
    return None


def _match(view: View, variant: str, first: tuple[int, ...] | None, count: int) -> Match | None:
    """`first` is the shape of the first convolution; without it nothing tells SD XL's from SD 1's."""
    if first is not None and len(first) != 4:
        return None
    channels = first[1] if first else None
    side = 16 if variant != "light" and channels in _XL else 8
    if channels is None:
        families, why = ["sd1", "sdxl"], "blocks without the convolution before them"
    else:
        families = ["sdxl" if side == 16 else "sd1"]
        why = f"takes {channels} channels: every {side} x {side} pixels are one"
    fit = settle(families, why, view.header.metadata)
    pixels = None if channels is None else channels // side**2
    return Match(
        variant=variant,
        dimensions={"channels": channels, "pixels": pixels, "adapters": count},
        because=(f"an encoder of four levels: a {variant} T2I-Adapter", *fit.because),
        guess=fit.guess,
        kind="t2i_adapter",
        category=PART,
        family=fit.family,
        requires=fit.requires,
    )


adapter = Adapter("t2i_adapter", "T2I-Adapters", recognise)
