"""GLIGEN: gated attention for a UNet, which puts what a prompt names into boxes."""

from __future__ import annotations

from bottega.adapters._fits import FAMILY_OF_CONTEXT, PART, has_base_model, settle
from bottega.formats.header import Header
from bottega.spec import Adapter, Match

_PLACES = "position_net.null_positive_feature"  # what stands where a box is not used
_FUSERS = (
    "input_blocks.1.1.transformer_blocks.0.fuser.linear.weight",
    "down_blocks.0.attentions.0.transformer_blocks.0.fuser.linear.weight",
)
_UNETS = ("time_embed.0.weight", "time_embedding.linear_1.weight")


def recognise(header: Header) -> Match | None:
    """The match of GLIGEN's own weights, published without the UNet that they fit into."""
    if _PLACES not in header.tensors or any(name in header.tensors for name in _UNETS) or has_base_model(header):
        return None
    view = header.under("")
    width = next((width for name in _FUSERS if (width := view.size(name, -1)) is not None), None)
    if width is None:
        return None
    family = FAMILY_OF_CONTEXT.get(width)
    fit = settle([family] if family else [], f"gated attention that hears text of width {width}", header.metadata)
    return Match(
        variant="text-box",
        dimensions={"context": width},
        because=("gated attention (`fuser`) and a network for places (`position_net`)", *fit.because),
        guess=fit.guess,
        kind="gligen",
        category=PART,
        family=fit.family,
        requires=fit.requires,
    )


adapter = Adapter("gligen", "GLIGEN", recognise)
