"""What no table knows: told by its class's end, by the vocabulary it brings, by GGUF's type, by what is left of it."""

from __future__ import annotations

import re

from bottega.families._known import _told, audio, encoders, language, upscalers, vision
from bottega.families._known._signature import BASE, PART
from bottega.formats.header import Header, shown
from bottega.spec import Known, Match

_TABLES = (*audio.SIGNATURES, *encoders.SIGNATURES, *language.SIGNATURES, *upscalers.SIGNATURES, *vision.SIGNATURES)
_TYPES = frozenset(type for each in _TABLES for type in each.types)
_ARCHITECTURES = frozenset(name for each in _TABLES for name in each.gguf)
# What the converters of ComfyUI and stable-diffusion.cpp name; the tensors of these have the names of other files.
_OTHERS_NAMES = frozenset({
    "flux", "sd1", "sdxl", "sd3", "aura", "hidream", "cosmos", "ltxv", "hyvid", "wan", "lumina2", "qwen_image",
    "chroma", "pig", "t5", "t5encoder",
})  # fmt: skip

_MADE_FOR = ("the language model that it was made for",)


def _other_folder(header: Header) -> Match | None:
    """A folder of a type that no table knows: what its class is for, by the end of its name."""
    if header.format != "transformers" or (told := _told.model_type(header)) in _TYPES:
        return None
    name = _told.class_name(header)
    kind = _told.kind_of_class(name)
    if not kind and name.endswith("ForConditionalGeneration"):
        kind = "vision_language_model" if "vision_config" in header.configs.get("", {}) else "text_to_text"
    if not kind:
        return None
    family = told if re.fullmatch(r"[\w.-]{1,60}", told, re.ASCII) else ""
    because = (f"config.json names the class {shown(name)}, whose end tells what it is for; its type is not known",)
    return Match(BASE, _told.config_dimensions(header), {"model": ""}, because, True, kind, BASE, family)


def _other_gguf(header: Header) -> Match | None:
    """A language model of an architecture that no table knows: it brings a vocabulary."""
    if header.format != "gguf" or header.metadata.get("general.type", "model") != "model":
        return None
    if _told.has_only_words(header):
        return None
    architecture = header.metadata.get("general.architecture", "")
    if architecture in _ARCHITECTURES or architecture in _OTHERS_NAMES or "tokenizer.ggml.model" not in header.metadata:
        return None
    family = architecture if re.fullmatch(r"[\w.-]{1,60}", architecture, re.ASCII) else ""
    because = ("it brings a vocabulary, so it is a language model; its architecture is not known",)
    return Match(BASE, _told.gguf_dimensions(header), {"model": ""}, because, True, "language_model", BASE, family)


def _gguf_projector(header: Header) -> Match | None:
    """What makes a language model see or hear, in GGUF."""
    if header.format != "gguf" or (
        header.metadata.get("general.type") != "mmproj" and header.metadata.get("general.architecture") != "clip"
    ):
        return None
    projector = header.metadata.get("clip.projector_type", header.metadata.get("clip.vision.projector_type", ""))[:40]
    because = ("its metadata says that it projects what an image or audio encoder sees into a language model",)
    dimensions = {"projector": shown(projector)[1:-1], **_told.quantisation(header)}
    return Match(BASE, dimensions, {}, because, False, "vision_projector", PART, "")


def _gguf_vocabulary(header: Header) -> Match | None:
    """What llama.cpp tests its tokenizers with: a language model's vocabulary, and no weights."""
    if header.format != "gguf" or not _told.has_only_words(header):
        return None
    because = ("it brings a vocabulary and no tensors, so there is nothing in it to run",)
    return Match(BASE, {}, {}, because, False, "vocabulary", PART, "")


def _gguf_control_vector(header: Header) -> Match | None:
    """What is added to a language model's layers, one direction each, to steer what it says."""
    if header.format != "gguf" or header.metadata.get("general.architecture") != "controlvector":
        return None
    made_for = header.metadata.get("controlvector.model_hint", "")
    because = ["general.architecture is 'controlvector'"]
    if made_for:
        because.append(f"made for a model called {shown(made_for)}")
    return Match(BASE, {}, {}, tuple(because), False, "control_vector", PART, "", _MADE_FOR)


def _gguf_importance_matrix(header: Header) -> Match | None:
    """How much each input of a language model's weights matters, which llama.cpp heeds as it quantises them."""
    if header.format != "gguf" or header.metadata.get("general.type") != "imatrix":
        return None
    because = ("general.type is 'imatrix': it helps to quantise a language model, and there is nothing in it to run",)
    return Match(BASE, {}, {}, because, False, "importance_matrix", PART, "", _MADE_FOR)


def _incomplete(header: Header) -> Match | None:
    """What is left of a model that nobody recognises as a whole."""
    from bottega.families._known._incomplete import recognise  # a large table, which few headers need

    return recognise(header)


KNOWN = (
    Known("transformers-other", "a model of transformers' whose type is not known", "text", _other_folder),
    Known("gguf-other", "a language model whose architecture is not known", "text", _other_gguf),
    Known("gguf-projector", "a projector for a language model", "text", _gguf_projector),
    Known("gguf-vocabulary", "the vocabulary of a language model", "text", _gguf_vocabulary),
    Known("gguf-control-vector", "a control vector for a language model", "text", _gguf_control_vector),
    Known("gguf-importance-matrix", "an importance matrix of a language model", "text", _gguf_importance_matrix),
    Known("incomplete", "a model of which parts are missing", "image", _incomplete, asked_last=True),
)
