"""IP-Adapters: a picture as a prompt, through keys and values of its own in every cross-attention."""

from __future__ import annotations

import re

from bottega.adapters._fits import FAMILY_OF_CONTEXT, PART, Fit, has_base_model, settle
from bottega.formats.header import Header, View
from bottega.spec import CHECKPOINT_OF_FAMILY, Adapter, Match

_KEYS = re.compile(r"ip_adapter\.[0-9]+\.to_k_ip\.weight")  # a UNet's processors count self-attention too
_KEYS_END = "to_k_ip.weight"
_XLABS = re.compile(r"double_blocks\.[0-9]+\.processor\.ip_adapter_double_stream_k_proj\.weight")
_XLABS_END = "ip_adapter_double_stream_k_proj.weight"
_XLABS_PROJECTION = ("ip_adapter_proj_model.proj.weight", "ip_adapter_proj_model.norm.weight")
_PROJECTIONS = (
    "image_proj.proj.weight",
    "image_proj.proj.0.weight",
    "image_proj.latents",
    "image_proj.perceiver_resampler.proj_in.weight",
)
_WORDS = 4  # that a whole picture, or a face, becomes in all that are published
# Where an image projection shows the width of the text that it stands beside: a name, an axis, how many words that is.
_ANSWERS = (
    ("image_proj.norm.weight", -1, 1),
    ("image_proj.norm_out.weight", -1, 1),
    ("image_proj.proj_out.weight", 0, 1),
    ("image_proj.proj.3.weight", -1, 1),
    ("image_proj.perceiver_resampler.proj_out.weight", 0, 1),
    ("image_proj.proj.weight", 0, _WORDS),
    ("image_proj.proj.2.weight", 0, _WORDS),
    ("image_proj.latents", -1, 1),
)
# What a UNet or FLUX has that the adapter is merged into.
_BASES = ("time_embed.0.weight", "time_embedding.linear_1.weight", "img_in.weight", "x_embedder.weight")
_OF_SD3 = "ip_adapter.0.norm_ip.linear.weight"

_FACE = 512  # of what ArcFace sees in a face

# What an image encoder is told by: the width of its answer, or that of its last but one layer.
_LARGE, _HUGE, _GIANT = (f"a CLIP ViT-{size} image encoder" for size in ("L", "H", "bigG"))
_BY_ANSWER = {768: _LARGE, 1024: _HUGE, 1280: _GIANT}
_BY_LAYER = {1024: _LARGE, 1280: _HUGE, 1664: _GIANT, 1152: "the image encoder SigLIP SO400M"}
_FACE_MODEL = "a face recognition model of 512 numbers (InsightFace)"


def recognise(header: Header) -> Match | None:
    """The match of an image projection with the keys and values that hear it."""
    view = header.under("")
    ends = header.endings
    if _XLABS_END in ends or any(name in view for name in _XLABS_PROJECTION):
        return None if _is_merged(header) else _xlabs(view)
    if _KEYS_END not in ends and not any(name in view for name in _PROJECTIONS):
        return None
    first = min(filter(_KEYS.fullmatch, header.tensors), default=None)
    if _is_merged(header) or (first is None and not any(name in view for name in _PROJECTIONS)):
        return None
    width, hears = (view.size(first, 0), view.size(first, -1)) if first else (None, _answer_width(view))
    fit = _fit(view, width, hears)
    if first is None:
        fit = Fit(fit.family, (*fit.because, "there are no keys and values in it to hear the picture"), guess=True)
    variant, why, encoders = _variant(view)
    lora = any(".to_q_lora." in name for name in header.tensors)
    because = [why, *fit.because]
    if lora:
        because.append("a LoRA of the attention is in it")
    return Match(
        variant=variant,
        dimensions={"context": hears, "tokens": _tokens(view, hears), "lora": lora},
        because=tuple(because),
        guess=fit.guess,
        kind="ip_adapter",
        category=PART,
        family=fit.family,
        requires=(*fit.requires, *encoders),
    )


def _is_merged(header: Header) -> bool:
    return any(name in header.tensors for name in _BASES) or has_base_model(header)


def _answer_width(view: View) -> int | None:
    """The width of the words that an image projection makes of a picture, where a shape tells that."""
    sizes = ((view.size(name, axis), words) for name, axis, words in _ANSWERS)
    return next((size // words for size, words in sizes if size is not None), None)


def _fit(view: View, width: int | None, hears: int | None) -> Fit:
    metadata = view.header.metadata
    if _OF_SD3 in view:
        return settle(["sd3"], "norms that hear the time, as in Stable Diffusion 3", metadata)
    if hears == 4096 or width == 3072:
        return settle(["flux"], f"keys of width {width} that hear text of width {hears}", metadata)
    family = FAMILY_OF_CONTEXT.get(hears or 0)
    return settle([family] if family else [], f"made to hear text of width {hears}", metadata)


def _variant(view: View) -> tuple[str, str, tuple[str, ...]]:
    """Which image projection it is, the evidence, and what has to look at the picture."""
    if "image_proj.perceiver_resampler.proj_in.weight" in view:
        seen = view.size("image_proj.perceiver_resampler.proj_in.weight", -1)
        encoders = (_FACE_MODEL, *_encoder(_BY_LAYER, seen))
        return "faceid-plus", "a face and a resampler of the picture: FaceID Plus", encoders
    if "image_proj.latents" in view:
        seen = view.size("image_proj.proj_in.weight", -1)
        if seen == _FACE:
            return "instantid", "a resampler of a face: InstantID", (_FACE_MODEL, "InstantID's ControlNet")
        return "plus", "a resampler of the picture's parts: Plus", _encoder(_BY_LAYER, seen)
    seen = view.size("image_proj.proj.0.weight", -1)
    if seen == _FACE:
        return "faceid", "two layers over a face: FaceID", (_FACE_MODEL,)
    if seen is not None:
        return "full", "two layers over the picture's parts: Full", _encoder(_BY_LAYER, seen)
    seen = view.size("image_proj.proj.weight", -1)
    return "plain", "one layer over the whole picture: the plain one", _encoder(_BY_ANSWER, seen)


def _encoder(known: dict[int, str], width: int | None) -> tuple[str, ...]:
    if width is None:
        return ()
    return (known.get(width, f"an image encoder of width {width}"),)


def _tokens(view: View, hears: int | None) -> int | None:
    """How many words a picture becomes, where a shape tells that."""
    if (latents := view.size("image_proj.latents", 1)) is not None:
        return latents
    for name in ("image_proj.proj.weight", "image_proj.proj.2.weight"):
        rows = view.size(name, 0)
        if rows is not None and hears and "image_proj.proj.3.weight" not in view:
            return rows // hears
    return None


def _xlabs(view: View) -> Match:
    keys = min(filter(_XLABS.fullmatch, view.header.tensors), default="")
    hears = view.size(keys, -1) if keys else view.size("ip_adapter_proj_model.norm.weight", -1)
    seen = view.size("ip_adapter_proj_model.proj.weight", -1)
    rows = view.size("ip_adapter_proj_model.proj.weight", 0)
    return Match(
        variant="xlabs",
        dimensions={"context": hears, "tokens": rows // hears if rows and hears else None, "lora": False},
        because=("XLabs' processors for FLUX's double blocks", f"made to hear text of width {hears}"),
        kind="ip_adapter",
        category=PART,
        family="flux",
        requires=(CHECKPOINT_OF_FAMILY["flux"], *_encoder(_BY_ANSWER, seen)),
    )


adapter = Adapter("ip_adapter", "IP-Adapters", recognise)
