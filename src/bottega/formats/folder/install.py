"""Which files of a model's repository may be put on a shelf: weights, configs, vocabularies and texts, no code.

An allow-list, as whatever is not on it is not needed to use the model here. Pickles (`.bin`, `.ckpt`, `.pt`) are not on
it: whether one is taken is decided by its content, where the format is read.
"""

from __future__ import annotations

import re

from bottega.formats.folder.files import is_plain

_NAMES = frozenset((
    "model_index.json", "config.json", "scheduler_config.json", "generation_config.json", "adapter_config.json",
    "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json", "quantize_config.json",
    "image_processor_config.json", "feature_extractor_config.json", "params.json", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt",
    "bpe.codes", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model", "sentencepiece.model",
    "source.spm", "target.spm", "normalizer.json", "chat_template.json", "chat_template.jinja", "tekken.json",
    "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json",
))  # fmt: skip
_ENDINGS = (".safetensors", ".sft", ".gguf")
_INDEX = re.compile(r"[^/]+\.safetensors(?:\.index)?(?:\.\w+)?\.json")
_TEXTS = re.compile(r"(?i)(?:readme|licen[cs]e|notice|copying|model_?card|use_policy)[\w. -]*")
_TEXT_ENDINGS = re.compile(r"(?i)[^.]*(?:\.(?:md|txt|rst|pdf))?")
_PICTURES = (".png", ".jpg", ".jpeg", ".webp")
_RESERVED = re.compile(r"(?i)(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?")  # devices on Windows, whatever the ending
_MAX_DEPTH = 4
_MAX_NAME = 200


def installable(name: str) -> bool:
    """Whether a file of this name (`unet/config.json`) may be installed from a model's repository.

    Its content is another matter: links, and what a file really is, are for whoever writes it to check.
    """
    *folders, last = name.split("/")
    return len(folders) < _MAX_DEPTH and all(map(_is_safe, (*folders, last))) and _is_data(last)


def _is_safe(name: str) -> bool:
    """Whether any file system takes this for a plain and visible name."""
    return (
        is_plain(name)
        and name.isprintable()
        and name[0] not in ".~-"
        and name[-1] not in ". "
        and len(name.encode("utf-8", "surrogatepass")) <= _MAX_NAME
        and not any(character in name for character in '<>"|?*')
        and not _RESERVED.fullmatch(name)
    )


def _is_data(name: str) -> bool:
    lower = name.lower()
    return (
        lower in _NAMES
        or lower.endswith((*_ENDINGS, *_PICTURES))
        or _INDEX.fullmatch(lower) is not None
        or (_TEXTS.fullmatch(name) is not None and _TEXT_ENDINGS.fullmatch(name) is not None)
    )
