"""What a model says of itself in words and numbers: transformers' `config.json`, and GGUF's metadata.

https://huggingface.co/docs/transformers/main_classes/configuration and
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from bottega.formats.header import Header, TensorInfo, shown

# Dimensions by the names that configs have for them, the commonest first.
_IN_CONFIG: Mapping[str, tuple[str, ...]] = {
    "width": ("hidden_size", "n_embd", "d_model", "dim", "hidden_dim"),
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"),
    "experts": ("num_local_experts", "num_experts", "n_routed_experts"),
    "vocabulary": ("vocab_size",),
    "context": ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_target_positions"),
}
_INNER = (
    "text_config",
    "llm_config",
    "language_config",
    "thinker_config",
    "vision_config",
)  # of models of several parts

_IN_GGUF: Mapping[str, str] = {
    "width": "embedding_length",
    "layers": "block_count",
    "heads": "attention.head_count",
    "experts": "expert_count",
    "vocabulary": "vocab_size",
    "context": "context_length",
}

# `general.file_type`: llama.cpp's names of how most tensors are quantised.
_QUANTISATIONS: Mapping[str, str] = {
    "0": "F32", "1": "F16", "2": "Q4_0", "3": "Q4_1", "7": "Q8_0", "8": "Q5_0", "9": "Q5_1", "10": "Q2_K",
    "11": "Q3_K_S", "12": "Q3_K_M", "13": "Q3_K_L", "14": "Q4_K_S", "15": "Q4_K_M", "16": "Q5_K_S", "17": "Q5_K_M",
    "18": "Q6_K", "19": "IQ2_XXS", "20": "IQ2_XS", "21": "Q2_K_S", "22": "IQ3_XS", "23": "IQ3_XXS", "24": "IQ1_S",
    "25": "IQ4_NL", "26": "IQ3_S", "27": "IQ3_M", "28": "IQ2_S", "29": "IQ2_M", "30": "IQ4_XS", "31": "IQ1_M",
    "32": "BF16", "36": "TQ1_0", "37": "TQ2_0", "38": "MXFP4",
}  # fmt: skip

# What a network of transformers' is for, by the end of its class's name; the longer ends come first.
_KINDS_OF_CLASSES: tuple[tuple[str, str], ...] = (
    ("ForSequenceClassification", "text_classifier"),
    ("ForTokenClassification", "text_classifier"),
    ("ForQuestionAnswering", "text_classifier"),
    ("ForImageClassification", "image_classifier"),
    ("ForAudioClassification", "audio_classifier"),
    ("ForVideoClassification", "video_classifier"),
    ("ForObjectDetection", "detector"),
    ("ForDepthEstimation", "depth_estimator"),
    ("ForSemanticSegmentation", "segmenter"),
    ("ForUniversalSegmentation", "segmenter"),
    ("ForImageSuperResolution", "upscaler"),
    ("ForSpeechSeq2Seq", "speech_recognition"),
    ("ForCTC", "speech_recognition"),
    ("ForTextToSpeech", "text_to_speech"),
    ("ForTextToWaveform", "text_to_speech"),
    ("T5ForConditionalGeneration", "language_model"),  # mT5's and UMT5's too
    ("ForCausalLM", "language_model"),
    ("LMHeadModel", "language_model"),
    ("ForMaskedLM", "text_encoder"),
    ("EncoderModel", "text_encoder"),
    ("TextModel", "text_encoder"),
    ("TextModelWithProjection", "text_encoder"),
    ("VisionModel", "clip_vision"),
    ("VisionModelWithProjection", "clip_vision"),
)
_OVERRULING = frozenset({"text_classifier", "image_classifier", "audio_classifier", "video_classifier"})


def model_type(header: Header) -> str:
    """What `config.json` calls the architecture; empty if it doesn't."""
    told = header.configs.get("", {}).get("model_type")
    return told if isinstance(told, str) else ""


def class_name(header: Header) -> str:
    """The class that `config.json` names first; empty if none."""
    told = header.configs.get("", {}).get("architectures")
    return told[0] if isinstance(told, list) and told and isinstance(told[0], str) else ""


def kind_of_class(name: str) -> str:
    """What a class of transformers' is for, by the end of its name; empty if that says nothing."""
    return next((kind for end, kind in _KINDS_OF_CLASSES if name.endswith(end)), "")


def kind_told(header: Header, kind: str) -> str:
    """The kind of an architecture, unless its class makes a classifier of it, or of an encoder a whole model."""
    told = kind_of_class(class_name(header))
    return told if told in _OVERRULING or (kind, told) == ("text_encoder", "language_model") else kind


def config_dimensions(header: Header) -> dict[str, int | str]:
    """Dimensions that `config.json` names, its own before those of its parts, and how the weights are quantised."""
    config = header.configs.get("", {})
    places = [config, *(inner for name in _INNER if isinstance(inner := config.get(name), dict))]
    told: dict[str, int | str] = {}
    for dimension, names in _IN_CONFIG.items():
        value = next((value for place in places for name in names if _is_count(value := place.get(name))), None)
        if isinstance(value, int):
            told[dimension] = value
    quantisation = config.get("quantization_config")
    if isinstance(quantisation, dict) and isinstance(method := quantisation.get("quant_method"), str):
        told["quantisation"] = shown(method)[1:-1]
    return told


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def gguf_dimensions(header: Header) -> dict[str, int | str]:
    """Dimensions that GGUF's metadata names, how most tensors are quantised, and which part of how many this is."""
    told: dict[str, int | str] = {}
    architecture = header.metadata.get("general.architecture", "")
    for dimension, name in _IN_GGUF.items():
        if (value := _number(header.metadata.get(f"{architecture}.{name}"))) is not None:
            told[dimension] = value
    told |= quantisation(header)
    for dimension, name in (("shards", "split.count"), ("shard", "split.no")):
        if (value := _number(header.metadata.get(name))) is not None:
            told[dimension] = value + (name == "split.no")
    return told


def has_only_words(header: Header) -> bool:
    """Whether a GGUF file brings a language model's vocabulary and nothing of the model.

    The first of several pieces may have no tensors either.
    """
    metadata = header.metadata
    return not header.tensors and "tokenizer.ggml.tokens" in metadata and "split.count" not in metadata


def quantisation(header: Header) -> dict[str, str]:
    """How most tensors of a GGUF file are quantised: what it says, else what most bytes are."""
    name = _QUANTISATIONS.get(header.metadata.get("general.file_type", "")) or next(iter(header.dtypes), "")
    return {"quantisation": name} if name else {}


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 16 else None


_ORIGINAL_SHAPE = "comfy.gguf.orig_shape."


def with_original_shapes(header: Header) -> Header:
    """The header with the shapes that tensors had before a converter folded them into rows fit for quantising.

    https://github.com/city96/ComfyUI-GGUF notes them in the metadata.
    """
    tensors = dict(header.tensors)
    for name, told in header.metadata.items():
        if name.startswith(_ORIGINAL_SHAPE) and (info := tensors.get(name.removeprefix(_ORIGINAL_SHAPE))):
            shape = _shape(told)
            if shape:
                folded = name.removeprefix(_ORIGINAL_SHAPE)
                tensors[folded] = TensorInfo(info.dtype, shape, info.file, info.start, info.end)
    return replace(header, tensors=tensors)


def _shape(text: str) -> tuple[int, ...]:
    told = re.fullmatch(r"\[(\d{1,9}(?:, ?\d{1,9}){0,7})\]", text)
    return tuple(map(int, told[1].split(","))) if told else ()
