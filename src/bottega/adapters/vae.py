"""Autoencoders: the part that turns a model's latents into pictures, films or sound, published by itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bottega.adapters._fits import PART, Fit, has_base_model, lone_config, lone_part, settle, told_family
from bottega.formats.header import Header, View
from bottega.spec import Adapter, Attachment, Emit, Match

_PREFIXES = ("first_stage_model.", "vae.", "module.", "pretransform.model.")

# Autoencoders whose shapes are the same differ in the scale of their latents, which diffusers' configs tell.
_FAMILY_OF_SCALE: Mapping[float, str] = {
    0.18215: "sd1",
    0.13025: "sdxl",
    1.5305: "sd3",
    0.3611: "flux",
    0.476986: "hunyuan-video",
    0.41407: "sana",
}
_FAMILY_OF_CLASS: Mapping[str, str] = {
    "AutoencoderKLWan": "wan", "AutoencoderKLQwenImage": "qwen-image", "AutoencoderKLHunyuanVideo": "hunyuan-video",
    "AutoencoderKLFlux2": "flux2",
}  # fmt: skip


@dataclass(frozen=True)
class _Found:
    """What one reader found: families that have such an autoencoder, the likeliest first."""

    variant: str
    families: tuple[str, ...]
    why: str
    channels: int | None = None  # of a latent
    dimensions: Mapping[str, Any] = field(default_factory=dict)


def recognise(header: Header) -> Match | None:
    """The match of an autoencoder, or of one half of it, without the model that works on its latents."""
    for prefix in (lone_part(header), *_PREFIXES):
        for sign, read in _READERS.items():
            if prefix + sign in header.tensors:
                if has_base_model(header):
                    return None
                if (found := read(header.under(prefix))) is not None:
                    return _answer(header, prefix, found)
    return None


def _answer(header: Header, prefix: str, found: _Found) -> Match:
    fit = _fit(header, found)
    dimensions = {"latent_channels": found.channels, **found.dimensions}
    because = [found.why, *fit.because]
    encoder = any(name.startswith((f"{prefix}encoder.", f"{prefix}taesd_encoder.")) for name in header.tensors)
    if not encoder:
        because.append("there is no part called encoder in it")
    return Match(
        variant=found.variant,
        dimensions={**dimensions, "encoder": encoder},
        parts={"vae": prefix},
        because=tuple(because),
        guess=fit.guess,
        kind="vae",
        category=PART,
        family=fit.family,
        requires=fit.requires,
    )


def _fit(header: Header, found: _Found) -> Fit:
    """The family: a config decides between autoencoders of one shape, else metadata does, else it is a guess."""
    config = lone_config(header)
    scale, name = config.get("scaling_factor"), config.get("_class_name")
    family = _FAMILY_OF_SCALE.get(scale, "") if isinstance(scale, float) else ""
    if family in found.families:
        return Fit(family, (f"its config scales latents by {scale}",))
    family = _FAMILY_OF_CLASS.get(name, "") if isinstance(name, str) else ""
    if family in found.families:
        return Fit(family, (f"its config is of the class {name}",))
    channels = f"latents of {found.channels} channels" if found.channels else "latents"
    return settle(found.families, channels, header.metadata)


# --- pictures --------------------------------------------------------------------------------------------------------

_FOUR = ("sd1", "sd2", "sdxl")  # the first two share one; SD XL's has the same shapes and other weights
_SIXTEEN = ("flux", "sd3", "z-image", "lumina2")  # the last two use FLUX's
_WIDEST_CODE = 16
_TINY_WIDTH = 64
# The first convolution of a tiny decoder, and one in its first block; the original publishes each half by itself.
_TINY = {
    "diffusers": ("decoder.layers.0.weight", "decoder.layers.2.conv.0.weight"),
    "comfyui": ("taesd_decoder.1.weight", "taesd_decoder.3.conv.0.weight"),
    "original": ("1.weight", "3.conv.0.weight"),
}


def _tiny(view: View) -> _Found | None:
    """TAESD and its relatives, in diffusers' names, ComfyUI's, or the original's of one half."""
    naming = next((naming for naming, names in _TINY.items() if any(name in view for name in names)), None)
    if naming is None or (naming == "original" and _TINY[naming][1] not in view):  # `1.weight` could be anybody's
        return None
    shape = view.shape(_TINY[naming][0])
    if shape is None or len(shape) != 4 or shape[0] != _TINY_WIDTH or shape[2:] != (3, 3):
        return None
    return _tiny_of(shape[1], f"a tiny autoencoder in {naming} names", view)


def _tiny_encoder(view: View) -> _Found | None:
    """The other half of the original's TAESD."""
    last = view.shape("14.weight")
    if last is None or len(last) != 4 or last[1] != _TINY_WIDTH or view.size("0.weight", 1) != 3:
        return None
    return _tiny_of(last[0], "the encoder of a tiny autoencoder", view)


def _tiny_of(channels: int, why: str, view: View) -> _Found:
    told = told_family(view.header.metadata)
    family = told[0] if told else ""
    variant, families = {
        4: ("taesdxl" if family == "sdxl" else "taesd", _FOUR),
        16: ("taesd3" if family == "sd3" else "taef1", ("flux", "sd3")),
        32: ("taef2", ("flux2",)),
    }.get(channels, ("tae", ()))
    return _Found(variant, families, why, channels)


def _approximation(view: View) -> _Found | None:
    """A1111's quick approximation of a decoder, eight convolutions for previews."""
    if view.shape("conv1.weight") != (8, 4, 7, 7):
        return None
    return _Found("approximation", _FOUR, "eight convolutions that approximate a decoder, for previews", 4)


def _tiny_video(view: View) -> _Found | None:
    """TAEHV: tiny autoencoders of films."""
    shape = view.shape("decoder.1.weight")
    if shape is None or len(shape) != 4 or "decoder.3.conv.0.weight" not in view:
        return None
    families = {16: ("wan", "hunyuan-video", "cogvideox", "qwen-image"), 48: ("wan",), 12: ("mochi",), 128: ("ltx",)}
    return _Found("taehv", families.get(shape[1], ()), "a tiny autoencoder of films", shape[1])


def _picture(view: View) -> _Found | None:
    """LDM's autoencoder and those that grew from it: what they have more than it tells them apart."""
    shape = view.shape("decoder.conv_in.weight")
    if shape is None or len(shape) not in (4, 5):
        return None
    channels = shape[1]
    if len(shape) == 5:
        return _film(view, channels)
    naming = "ldm" if "decoder.mid.block_1.conv1.weight" in view else "diffusers"
    if naming == "diffusers" and "decoder.mid_block.attentions.0.query.weight" in view:
        naming = "diffusers-old"
    dimensions = {"naming": naming}
    if "decoder.mid.block_1.mix_factor" in view or "decoder.time_conv_out.weight" in view:
        return _Found("temporal", ("svd",), "a decoder that mixes frames", channels, dimensions)
    if "decoder.temp_conv_in.weight" in view:
        return _Found("film", ("allegro",), "convolutions over time beside those over pictures", channels, dimensions)
    if "bn.running_mean" in view:
        return _Found("kl", ("flux2",), "a norm of packed latents, as FLUX.2's has", channels, dimensions)
    if "quantize.embedding.weight" in view:
        return _quantised(view, channels, dimensions)
    if "decoder.condition_encoder.layers.0.weight" in view:
        return _Found("asymmetric", ("sd1",), "a decoder that sees the masked picture", channels, dimensions)
    if "decoder.up_blocks.0.0.conv.weight" in view or "decoder.up_blocks.0.1.conv1.weight" in view:
        return _Found("dc", ("sana",), "deep compression (DC-AE) in diffusers' names", channels, {"naming": naming})
    if "decoder.mid.block_1.conv1.weight" not in view and "decoder.mid_block.resnets.0.conv1.weight" not in view:
        return _bare(view, channels) if shape[2:] == (3, 3) else None
    levels = _levels(view)
    if channels == 4 and levels == 3:
        return _Found("kl-f4", ("sd-x4-upscaler",), "three levels: that of the upscaler of 4 times", 4, dimensions)
    families = {4: _FOUR, 16: _SIXTEEN, 64: ("hunyuan-image",)}.get(channels, ())
    why = f"an autoencoder of {levels} levels in {naming} names"
    return _Found("kl", families, why, channels, {**dimensions, "levels": levels})


def _levels(view: View) -> int:
    """At how many sizes of a picture its decoder works; diffusers numbers all blocks of HunyuanImage's in one row."""
    if "decoder.up_blocks.0.conv1.weight" in view:
        return 1 + sum(_LARGER.fullmatch(name) is not None for name in view.names)
    return max(view.count("decoder.up.{}.block.0."), view.count("decoder.up_blocks.{}.resnets.0."))


_LARGER = re.compile(r"decoder\.up_blocks\.[0-9]+\.conv\.weight")  # what makes the picture larger between two levels
_HALVES = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.", "loss.")
_FEWEST = {4: _FOUR, 16: _SIXTEEN, 32: ("flux2", "sana")}


def _bare(view: View, channels: int | None) -> _Found | None:
    """What shows no more than how its decoder begins: only a guess, and only where nothing else is in the file."""
    if not all(name.startswith(_HALVES) for name in view.names) or len(view.names) != len(view.header.tensors):
        return None
    families = _FOUR if channels is None else _FEWEST.get(channels)
    return _Found("kl", families, "the beginning of a decoder, and little else", channels) if families else None


def _diffusers(view: View) -> _Found | None:
    """A decoder in diffusers' names without its first convolution."""
    return None if "decoder.conv_in.weight" in view else _bare(view, None)


def _quantised(view: View, channels: int, dimensions: Mapping[str, str]) -> _Found | None:
    """Autoencoders with a codebook; those with wider codes (256) restore faces and aren't for a model's latents."""
    if channels > _WIDEST_CODE:
        return None
    if any(f"decoder.{middle}.norm1.conv_y.weight" in view for middle in ("mid.block_1", "mid_block.resnets.0")):
        return _Found("movq", ("kandinsky2",), "a codebook, and norms that see the codes: MoVQ", channels, dimensions)
    return _Found("vq", (), "a codebook: a VQ autoencoder", channels, dimensions)


def _consistency(view: View) -> _Found:
    return _Found("consistency", ("sd1", "sd2"), "a UNet as a decoder: the consistency decoder", 4)


def _cascade(view: View) -> _Found:
    return _Found("stage-a", ("stable-cascade",), "a codebook of Stable Cascade's stage A", 4)


def _effnet(view: View) -> _Found:
    return _Found("effnet", ("stable-cascade",), "EfficientNet: the encoder for Stable Cascade's stage C", 16)


def _previewer(view: View) -> _Found:
    return _Found("previewer", ("stable-cascade",), "the decoder of previews of Stable Cascade's stage C", 16)


def _dc(view: View) -> _Found:
    return _Found("dc", ("sana",), "deep compression (DC-AE)", view.size("decoder.project_in.conv.weight", 1))


# --- films -----------------------------------------------------------------------------------------------------------


def _film(view: View, channels: int) -> _Found:
    """Convolutions over time and place under `conv_in.weight`: Wan's and Qwen-Image's, Mochi's, or MagViT's."""
    if "decoder.block_in.resnets.0.conv1.conv.weight" in view:
        return _Found("film", ("mochi",), "Mochi's blocks in diffusers' names", channels, {"naming": "diffusers"})
    if "decoder.norm_out.gamma" in view:
        return _Found("film", _wan(channels), "Wan's blocks in diffusers' names", channels, {"naming": "diffusers"})
    if "decoder.mid_block.resnets.0.norm1.weight" in view or "decoder.mid.block_1.norm1.weight" in view:
        return _Found("film", (), "convolutions over time and place", channels)
    families = _wan(channels) if channels in _WAN_CHANNELS else ()
    return _Found("film", families, "convolutions over time and place, as Wan's decoder begins", channels)


_WAN_CHANNELS = (16, 48)


def _wan(channels: int | None) -> tuple[str, ...]:
    """Qwen-Image took the shapes of Wan 2.1's autoencoder; 2.2's has more channels."""
    return ("wan", "qwen-image") if channels == 16 else ("wan",)


def _wan_original(view: View) -> _Found:
    channels = view.size("decoder.conv1.weight", 1)
    return _Found("film", _wan(channels), "Wan's residual blocks", channels, {"naming": "original"})


def _wan_bare(view: View) -> _Found | None:
    """Wan's two first convolutions without the blocks after them."""
    shape = view.shape("decoder.conv1.weight")
    if shape is None or len(shape) != 5 or shape[1] not in _WAN_CHANNELS:
        return None
    return _Found("film", _wan(shape[1]), "a decoder that begins as Wan's", shape[1], {"naming": "original"})


def _causal(view: View) -> _Found | None:
    """Causal convolutions under `conv_in.conv.weight`."""
    shape = view.shape("decoder.conv_in.conv.weight")
    if shape is None or len(shape) not in (4, 5):
        return None
    channels = shape[1]
    if len(shape) == 4:
        return _Found("audio", ("ltx",), "causal convolutions over a spectrum: that for LTX-2's sound", channels)
    if channels == 128:
        return _Found("film", ("ltx",), "LTX-Video's causal convolutions", channels)
    if any(f"decoder.{middle}.norm1.conv_y.conv.weight" in view for middle in ("mid.block_1", "mid_block.resnets.0")):
        return _Found("film", ("cogvideox",), "norms that see the latents, as CogVideoX's do", channels)
    families = ("hunyuan-video",) if channels in (16, 32) else ()
    return _Found("film", families, "causal convolutions over time and place", channels)


def _ltx(view: View) -> _Found:
    channels = view.size("decoder.conv_in.conv.weight", 1)
    return _Found("film", ("ltx",), "LTX-Video's residual blocks", channels, {"naming": "original"})


def _mochi(view: View) -> _Found:
    return _Found("film", ("mochi",), "Mochi's stacks of blocks", 12, {"naming": "original"})


def _cosmos(view: View) -> _Found:
    return _Found("film", ("cosmos",), "wavelets, or convolutions split into place and time: Cosmos' tokenizer", 16)


# --- sound and shapes ------------------------------------------------------------------------------------------------


def _oobleck(view: View) -> _Found:
    return _Found("audio", ("stable-audio",), "snake activations over waves: Oobleck, of Stable Audio", 64)


def _music(view: View) -> _Found:
    return _Found("audio", ("ace-step",), "a vocoder and a deep compression of spectra: ACE-Step's", 8)


def _shape(view: View) -> _Found:
    return _Found("shape", ("hunyuan3d",), "a decoder of shapes that asks at points: Hunyuan3D's", 64)


# Names that only one sort of autoencoder has, and its reader; the general ones last.
_READERS: Mapping[str, Callable[[View], _Found | None]] = {
    "decoder_unet.conv_in.weight": _consistency,
    "vquantizer.codebook.weight": _cascade,
    "backbone.1.0.block.0.1.num_batches_tracked": _effnet,
    "encoder.backbone.1.0.block.0.1.num_batches_tracked": _effnet,
    "blocks.11.num_batches_tracked": _previewer,
    "vocoder.backbone.channel_layers.0.0.bias": _music,
    "geo_decoder.cross_attn_decoder.ln_1.bias": _shape,
    "decoder.layers.1.layers.0.beta": _oobleck,
    "encoder.snake1.beta": _oobleck,
    "decoder.block.0.snake1.beta": _oobleck,
    "blocks.2.blocks.3.stack.5.weight": _mochi,
    "decoder.blocks.2.blocks.3.stack.5.weight": _mochi,
    "layers.4.layers.1.attn_block.attn.qkv.weight": _mochi,
    "encoder.layers.4.layers.1.attn_block.attn.qkv.weight": _mochi,
    "decoder.up_blocks.0.res_blocks.0.conv1.conv.weight": _ltx,
    "decoder.unpatcher3d.wavelets": _cosmos,
    "decoder.conv_in.conv_s.weight": _cosmos,
    "decoder.middle.0.residual.0.gamma": _wan_original,
    "decoder.stages.1.op_list.0.main.conv.conv.bias": _dc,
    "decoder.conv_in.conv.weight": _causal,
    "decoder.conv_in.weight": _picture,
    "decoder.layers.0.weight": _tiny,
    "taesd_decoder.1.weight": _tiny,
    "1.weight": _tiny,
    "1.conv.0.weight": _tiny_encoder,
    "conv8.weight": _approximation,
    "decoder.1.weight": _tiny_video,
    "decoder.conv1.weight": _wan_bare,
    "decoder.up_blocks.0.resnets.0.norm1.weight": _diffusers,
}


# --- putting it to work ----------------------------------------------------------------------------------------------

TINY = ("taesd", "taesdxl")
_LEVELS_OF_TINY = 4
_USUAL: Mapping[str, Any] = {"latent_channels": 4, "channels": (128, 256, 512, 512)}  # of a model that has none


def is_tiny_decoder(header: Header, match: Match) -> bool:
    """Whether a file holds TAESD's decoder, which previews can be made with."""
    prefix = match.parts.get("vae", "")
    return match.variant in TINY and any(prefix + first in header.tensors for first, _ in _TINY.values())


def unfit(what: Attachment) -> str:
    """Why an autoencoder can't stand in for a model's own, by its sort, its latents, and what it says of itself."""
    match, own = what.match, what.base_match.dimensions.get("vae")
    if what.family.autoencoder is None:
        return f"{what.family.title} takes no other autoencoder than a model's own"
    if own is None and match.variant in TINY:
        return "it is a rough one, and the model has no other to fall back on"
    own = own or _USUAL
    if match.variant not in ("kl", *TINY):
        return f"it is of the sort {match.variant}, which turns no latents of this model into pictures"
    channels = match.dimensions["latent_channels"]
    if channels != own["latent_channels"]:
        return f"its latents have {channels} channels, and this model's have {own['latent_channels']}"
    levels = match.dimensions.get("levels", _LEVELS_OF_TINY)
    if levels != len(own["channels"]):
        return f"its pictures are {2 ** (levels - 1)} times as large as a latent, not {2 ** (len(own['channels']) - 1)}"
    return ""


def attach(pipe: Any, what: Attachment, emit: Emit) -> Callable[[], None]:
    """Put an autoencoder in the place of a loaded model's own, which comes back as it was.

    Raises UnsupportedModel for one that lacks tensors.
    """
    assert what.family.autoencoder is not None  # or it would not fit
    own = pipe.vae
    pipe.vae, pipe.preview_map = what.family.autoencoder(pipe, what.header, what.match), None

    def detach() -> None:
        pipe.vae, pipe.preview_map = own, None

    return detach


adapter = Adapter("vae", "Autoencoders (VAE)", recognise, attach=attach, unfit=unfit)
