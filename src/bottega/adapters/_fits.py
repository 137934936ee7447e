"""What the recognisers of adapters share: the families that an adapter can fit, by width and by its own metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bottega.formats.header import Header, View, shown
from bottega.spec import CHECKPOINT_OF_FAMILY

# Width of the text that the cross-attention of a UNet hears; SD XL's refiner hears its second text encoder only.
FAMILY_OF_CONTEXT: Mapping[int, str] = {768: "sd1", 1024: "sd2", 2048: "sdxl", 1280: "sdxl"}

# Families that share one autoencoder.
_SAME_VAE = frozenset({"sd1", "sd2"})


def serves(kind: str, made_for: str, family: str) -> bool:
    """Whether what was made for the models of one family can be used with those of another."""
    return made_for == family or (kind == "vae" and {made_for, family} <= _SAME_VAE)


LIGHTWEIGHT = "lightweight fine-tune"
PART = "part"

# How the architectures in `ss_base_model_version` and `modelspec.architecture` begin, in lower case and with hyphens
# for underscores and dots; the longer beginnings first.
_ARCHITECTURES: tuple[tuple[str, str], ...] = (
    ("stable-diffusion-v1", "sd1"), ("sd-v1", "sd1"), ("sd1", "sd1"),
    ("stable-diffusion-v2", "sd2"), ("sd-v2", "sd2"), ("sd2", "sd2"),
    ("stable-diffusion-xl", "sdxl"), ("sdxl", "sdxl"), ("pony", "sdxl"), ("illustrious", "sdxl"), ("noobai", "sdxl"),
    ("kolors", "kolors"),
    ("stable-diffusion-3", "sd3"), ("sd3", "sd3"), ("stable-cascade", "stable-cascade"),
    ("stable-video-diffusion", "svd"), ("flux-2", "flux2"), ("flux2", "flux2"), ("flux", "flux"), ("chroma", "chroma"),
    ("krea2", "krea2"), ("ideogram4", "ideogram4"), ("anima", "anima"), ("pixart", "pixart"), ("sana", "sana"),
    ("auraflow", "auraflow"), ("hidream", "hidream"), ("lumina", "lumina2"), ("z-image", "z-image"),
    ("zimage", "z-image"), ("qwen-image", "qwen-image"), ("hunyuan-dit", "hunyuan-dit"), ("hunyuandit", "hunyuan-dit"),
    ("hunyuan-image", "hunyuan-image"), ("hunyuan-video", "hunyuan-video"), ("hunyuanvideo", "hunyuan-video"),
    ("framepack", "hunyuan-video"), ("wan", "wan"), ("ltx", "ltx"), ("mochi", "mochi"), ("cogvideox", "cogvideox"),
    ("cogview", "cogview"), ("kandinsky5", "kandinsky5"), ("kandinsky-5", "kandinsky5"),
    ("cosmos", "cosmos"), ("ace-step", "ace-step"),
)  # fmt: skip
_LONGEST = 100
_TELLING = ("modelspec.architecture", "ss_base_model_version")


# Families of whose adapters the shapes are those of another's, and that are so rare that only metadata makes it one.
_SHAPED_LIKE: Mapping[str, str] = {"kolors": "sdxl"}


@dataclass(frozen=True)
class Fit:
    """Which family something fits, the evidence in words, and whether it had to be guessed."""

    family: str
    because: tuple[str, ...]
    guess: bool = False

    @property
    def requires(self) -> tuple[str, ...]:
        """What a user must have to put it to work."""
        words = CHECKPOINT_OF_FAMILY.get(self.family)
        return (words,) if words else ()


def told_family(metadata: Mapping[str, str]) -> tuple[str, str] | None:
    """The family that a file's metadata names, with the entry that names it, or None."""
    for key in _TELLING:
        value = metadata.get(key, "").strip()
        plain = value[:_LONGEST].lower().replace("_", "-").replace(".", "-")
        for beginning, family in _ARCHITECTURES:
            if plain.startswith(beginning):
                return family, f"{key} is {shown(value)}"
    if metadata.get("ss_v2", "").strip().lower() == "true":
        return "sd2", "ss_v2 is true"
    return None


def settle(candidates: Sequence[str], why: str, metadata: Mapping[str, str]) -> Fit:
    """The family among those that the shapes allow: metadata decides between equals; else the first is a guess.

    Shapes win where metadata contradicts them. No candidate means that nothing known has such shapes.
    """
    told = told_family(metadata)
    if not candidates:
        if told is None:
            return Fit("", (why,))
        return Fit(told[0], (why, f"by its metadata: {told[1]}"), guess=True)
    if told is None:
        if len(candidates) == 1:
            return Fit(candidates[0], (why,))
        others = " or ".join(candidates[1:])
        return Fit(candidates[0], (why, f"the header can't tell it from one for {others}"), guess=True)
    family, quoted = told
    if family in candidates or _SHAPED_LIKE.get(family) in candidates:
        return Fit(family, (why, f"its metadata says so too: {quoted}" if [family] == [*candidates] else quoted))
    contradiction = f"its metadata says otherwise ({quoted}), but shapes can't be wrong"
    return Fit(candidates[0], (why, contradiction), guess=len(candidates) > 1)


def lone_part(header: Header) -> str:
    """The prefix of the tensors of a diffusers folder that is one part by itself, else the empty text."""
    if header.format != "diffusers" or len(header.configs) != 1 or "" in header.configs:
        return ""
    return f"{next(iter(header.configs))}/"


def lone_config(header: Header) -> Mapping[str, object]:
    """The config of a diffusers folder that is one part by itself; empty if there is none."""
    return header.configs.get(lone_part(header).removesuffix("/"), {})


_BASE_MODELS = ("model.", "cond_stage_model.", "conditioner.", "unet.", "unet/", "transformer.", "transformer/")
WRAPPED_CONTROL = "model.control_model."  # a trainer's own name before a ControlNet


def has_base_model(header: Header) -> bool:
    """Whether the file holds a whole UNet or transformer beside what was found in it: then it is a checkpoint."""
    return any(name.startswith(_BASE_MODELS) and not name.startswith(WRAPPED_CONTROL) for name in header.tensors)


def context_of(view: View, leaf: str = "weight") -> int | None:
    """The width that a UNet's cross-attention hears, read from the shape of a `to_k` in any of its blocks.

    It goes through all names; motion modules are passed over, they hear other frames.
    """
    ending = f".attn2.to_k.{leaf}"
    names = sorted(name for name in view.names if name.endswith(ending) and "motion_modules." not in name)
    return next((width for name in names if (width := view.size(name, -1)) is not None), None)
