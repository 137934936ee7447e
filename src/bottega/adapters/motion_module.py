"""Motion modules: AnimateDiff's and its relatives', which make a UNet for pictures paint films."""

from __future__ import annotations

from bottega.adapters._fits import PART, lone_part, settle
from bottega.formats.header import Header, View
from bottega.spec import Adapter, Match

_MODULE = "down_blocks.0.motion_modules.0."
_TEMPORAL = f"{_MODULE}temporal_transformer."
_BLOCK = f"{_TEMPORAL}transformer_blocks.0.attention_blocks.0."
_HOTSHOT = "down_blocks.0.temporal_attentions.0.transformer_blocks.0.attention_blocks.0."
# Each layout by a tensor that it has, and its positions by name; diffusers keeps none.
_LAYOUTS = (
    ("original", f"{_BLOCK}to_q.weight", f"{_BLOCK}pos_encoder.pe"),
    ("diffusers", f"{_MODULE}transformer_blocks.0.attn1.to_q.weight", f"{_MODULE}transformer_blocks.0.pos_embed.pe"),
    ("hotshot", f"{_HOTSHOT}to_q.weight", f"{_HOTSHOT}pos_encoder.positional_encoding"),
)
_FRAMES_OF_V1 = 24

# With these it is a whole UNet, or a control network.
_STRANGERS = (
    "down_blocks.0.resnets.0.conv1.weight",
    "time_embedding.linear_1.weight",
    "controlnet_mid_block.weight",
    "controlnet_cond_embedding.conv_in.weight",
    "controlnet_cond_embedding.weight",
)
# On the way up SD XL's third level is the last, and as narrow as its first; SD 1 has one more.
_THIRD_LEVEL = tuple(f"up_blocks.2.motion_modules.{index}." for index in range(3))
_NARROWEST = 320


def recognise(header: Header) -> Match | None:
    """The match of a file that holds motion modules and no UNet around them."""
    for prefix in (lone_part(header), "module."):
        view = header.under(prefix)
        for layout, sign, positions in _LAYOUTS:
            if sign in view or positions in view:
                return None if any(name in view for name in _STRANGERS) else _match(view, layout, sign, positions)
    return None


def _match(view: View, layout: str, sign: str, positions: str) -> Match:
    middle = any(name.startswith("mid_block.") for name in view.names)
    levels = view.count("down_blocks.{}.")
    frames = view.size(positions, 1)
    xl = _is_xl(view, levels)
    variant, why = _version(view, layout, middle, xl, frames)
    where = f"motion modules at {levels} levels on the way down"
    fit = settle(["sdxl" if xl else "sd1"], f"{where}, as wide as SD {'XL' if xl else '1'}'s", view.header.metadata)
    because = [why, *fit.because]
    if frames:
        because.append(f"positions of {frames} frames")
    return Match(
        variant=variant,
        dimensions={"frames": frames, "levels": levels, "middle": middle, "naming": layout},
        because=tuple(because),
        guess=fit.guess,
        kind="motion_module",
        category=PART,
        family=fit.family,
        requires=fit.requires,
    )


def _is_xl(view: View, levels: int) -> bool:
    """Whether it fits SD XL's UNet: by the width of the third level on the way up, else by the number of levels."""
    norms = (f"{module}{inner}norm.weight" for module in _THIRD_LEVEL for inner in ("temporal_transformer.", ""))
    width = next((width for name in norms if (width := view.size(name, -1)) is not None), None)
    return levels == 3 if width is None else width == _NARROWEST


def _version(view: View, layout: str, middle: bool, xl: bool, frames: int | None) -> tuple[str, str]:
    if layout == "hotshot":
        return "hotshot-xl", "temporal attentions with a `positional_encoding`: Hotshot-XL's"
    if xl:
        return "animatediff-sdxl", "made for three levels: AnimateDiff's for SD XL"
    if "conv_in.weight" in view:
        return "pia", "a first convolution beside the motion modules: PIA's"
    if frames is None and layout == "original":
        return "animatelcm", "no positions in its attention: AnimateLCM's"
    if middle:
        return "animatediff-v2", "a motion module in the middle block: AnimateDiff 2's"
    if frames is not None and frames <= _FRAMES_OF_V1:
        return "animatediff-v1", "no motion module in the middle block, few frames: AnimateDiff 1's"
    return "animatediff-v3", "no motion module in the middle block: AnimateDiff 3's"


adapter = Adapter("motion_module", "Motion modules", recognise)
