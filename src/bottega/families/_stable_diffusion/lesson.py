"""The torch-free face of teaching Stable Diffusion models: what they lend to the training loop."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from bottega.families._stable_diffusion.recognise import INPAINTING, PIX2PIX, REFINER, Design
from bottega.spec import Lesson, Match, Place


def lesson_of(design: Design) -> Lesson:
    """What the models of one design lend to the training loop."""
    return Lesson(
        refuse=refuse,
        ready=_later("ready"),
        networks=_later("networks"),
        encode=_later("encode"),
        chunks=_later("chunks"),
        say=_later("say"),
        errors=_later("errors"),
        signal=_later("signal"),
        group=group,
        hears=_later("hears"),
        tokens=tokens,
        words=_later("words"),
    )


def _later(name: str) -> Callable[..., Any]:
    """A function of `teach`, which imports torch, imported when it is first called."""

    def call(*args: Any) -> Any:
        return getattr(import_module("bottega.families._stable_diffusion.teach"), name)(*args)

    return call


def refuse(match: Match) -> str | None:
    """Why a model can't be taught by pictures and captions alone, or None."""
    if match.variant in (INPAINTING, PIX2PIX):
        return f"is an {match.variant} model, which sees more than noise: Bottega can't teach those yet"
    if match.variant == REFINER:
        return "is a refiner, which only sees nearly finished pictures: Bottega can't teach those yet"
    return None


def group(place: Place) -> str:
    """Whether a LoRA changes a tensor as kohya's trainer does: attention with what is around it, or convolutions."""
    name = place.name
    if len(place.shape) < 2 or not name.endswith(".weight"):
        return ""
    if place.part != "unet":
        return "linear" if ".self_attn." in name or ".mlp." in name else ""
    if ".attentions." in name:
        return "linear"
    inside = any(word in name for word in (".resnets.", ".downsamplers.", ".upsamplers."))
    return "convolution" if inside else ""


def tokens(text: str) -> list[str]:
    """CLIP's tokens of a text, as text."""
    from bottega.diffusion.clip_tokenizer import builtin_tokenizer

    tokenizer = builtin_tokenizer()
    plain = " ".join(text.split()).lower()
    return [plain[begin:end] for begin, end in tokenizer.offsets(plain)]
