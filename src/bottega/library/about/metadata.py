"""What a file's own metadata says of it: SAI's ModelSpec, the trainers' notes, merge recipes, GGUF's general keys."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from bottega.formats.header import Header
from bottega.library.about.captions import trigger_words
from bottega.library.about.facts import About, address, inner, long_text, number, parsed, size, some, text, words

# What kohya's scripts call the models that they train on, as people call them.
_BASES = {
    "sd_v1": "Stable Diffusion 1", "sd_v2": "Stable Diffusion 2", "sd_v2_v": "Stable Diffusion 2, v-prediction",
    "sd_1.5": "Stable Diffusion 1.5", "sdxl_base_v0-9": "SDXL 0.9", "sdxl_base_v1-0": "SDXL 1.0",
    "sdxl_1.0": "SDXL 1.0", "flux1": "FLUX.1", "sd3": "Stable Diffusion 3", "sd3_5": "Stable Diffusion 3.5",
}  # fmt: skip

# What to call the trainers' own entries, and under which names they write them, the best first.
_TRAINING: Mapping[str, tuple[str, ...]] = {
    "rank": ("ss_network_dim",),
    "alpha": ("ss_network_alpha",),
    "network": ("ss_network_module",),
    "network arguments": ("ss_network_args",),
    "optimizer": ("ss_optimizer",),
    "learning rate": ("ss_learning_rate", "ss_unet_lr"),
    "epochs": ("ss_epoch", "ss_num_epochs"),
    "steps": ("ss_steps", "step"),
    "images": ("ss_num_train_images",),
    "training resolution": ("ss_resolution", "ss_datasets"),
    "clip skip": ("ss_clip_skip", "modelspec.encoder_layer"),
    "noise offset": ("ss_noise_offset",),
    "trained on": ("ss_sd_model_name", "sd_checkpoint_name"),
    "base model hash": ("ss_new_sd_model_hash", "ss_sd_model_hash", "sd_checkpoint"),
    "comment": ("ss_training_comment",),
    "tensor hash": ("sshs_model_hash",),
    "architecture": ("modelspec.architecture",),
    "prediction": ("modelspec.prediction_type",),
    "usage": ("modelspec.usage_hint",),
    "merged from": ("modelspec.merged_from",),
}
_EMBEDDING = ("emb_params", "string_to_param.*", "clip_l", "clip_g")  # tensors that only textual inversions have
_MOST_MERGED = 8  # models of a merge that are named


def said_in_metadata(header: Header) -> About:
    """What a header's metadata and configs say."""
    if header.format == "gguf":
        return _gguf(header.metadata)
    told = _configs(header.configs) if header.configs else About()
    metadata = header.metadata
    own_name = (header.path.stem,) if any(name in header.tensors for name in _EMBEDDING) else ()
    if not metadata:
        return About(triggers=own_name).over(told)
    base = text(metadata.get("ss_base_model_version"))
    return About(
        title=_first(metadata, "modelspec.title", "ss_output_name", "title", "name"),
        author=_first(metadata, "modelspec.author", "author"),
        version=_first(metadata, "modelspec.version", "version"),
        base_model=_BASES.get(base, base) or _first(metadata, "base_model"),
        description=long_text(metadata.get("modelspec.description") or metadata.get("description")),
        triggers=_triggers(metadata) or own_name,
        licence=_first(metadata, "modelspec.license", "license"),
        source=address(metadata.get("modelspec.url") or metadata.get("url")),
        tags=words(text(metadata.get("modelspec.tags") or metadata.get("tags")).split(",")),
        resolution=size(metadata.get("modelspec.resolution")) or _trained_at(metadata),
        date=_first(metadata, "modelspec.date") or _day(metadata.get("ss_training_finished_at")),
        extra=some(_extra(metadata)),
    ).over(told)


def _first(metadata: Mapping[str, str], *names: str) -> str:
    return next((told for name in names if (told := text(metadata.get(name)))), "")


def _triggers(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """The words that the file names itself, else those that its captions show."""
    if told := _first(metadata, "modelspec.trigger_phrase", "trigger_word", "trigger"):
        return words([told])
    if "ss_tag_frequency" not in metadata:
        return ()
    regularisation = set(parsed(metadata.get("ss_reg_dataset_dirs"))) | {
        os.path.basename(text(subset.get("image_dir")))
        for dataset in _datasets(metadata)
        for subset in _objects(dataset.get("subsets"))
        if subset.get("is_reg") is True
    }
    frequencies, folders = parsed(metadata["ss_tag_frequency"]), parsed(metadata.get("ss_dataset_dirs"))
    return trigger_words(frequencies, folders, regularisation)


def _trained_at(metadata: Mapping[str, str]) -> str:
    """The resolution of a training; kohya's scripts write it by dataset where these stand in a file of their own."""
    if told := size(metadata.get("ss_resolution")):
        return told
    every = [each.get("resolution") for each in _datasets(metadata)]
    return next((size(str(each)) for each in every if isinstance(each, (list, int))), "")


def _datasets(metadata: Mapping[str, str]) -> list[Mapping[str, object]]:
    return _objects(parsed(metadata.get("ss_datasets"), list))


def _objects(told: object) -> list[Mapping[str, object]]:
    return [each for each in told if isinstance(each, dict)] if isinstance(told, list) else []


def _extra(metadata: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, sources in _TRAINING.items():
        yield name, _trained_at(metadata) if name == "training resolution" else _first(metadata, *sources)
    if software := metadata.get("software"):  # ai-toolkit
        told = parsed(software)
        yield "trained with", " ".join(filter(None, (text(told.get("name")), text(told.get("version")))))
        training = parsed(metadata.get("training_info"))
        yield from ((name, text(training.get(key))) for name, key in (("steps", "step"), ("epochs", "epoch")))
    elif "ot_revision" in metadata or "ot_config" in metadata:
        yield "trained with", "OneTrainer"
        training = parsed(metadata.get("ot_config"))
        yield "rank", text(training.get("lora_rank"))
        yield "alpha", text(training.get("lora_alpha"))
    adapter = parsed(metadata.get("lora_adapter_metadata"))  # diffusers, for PEFT
    for key, told in adapter.items():
        if key.endswith((".r", ".lora_alpha")) or key in ("r", "lora_alpha"):
            yield "rank" if key.endswith("r") else "alpha", text(told)
    if "sd_merge_recipe" in metadata:
        yield from _merge(parsed(metadata["sd_merge_recipe"]), parsed(metadata.get("sd_merge_models")))


def _merge(recipe: Mapping[str, object], models: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """How A1111's merger, or one that writes as it does, made this file."""
    how = (text(recipe.get("interp_method")), text(recipe.get("multiplier")))
    yield "merge", " ".join(filter(None, how)) or text(recipe.get("type"))
    names = [told for model in models.values() if (told := text(inner({"": model}, "").get("name")))]
    more = f" and {len(names) - _MOST_MERGED} more" if len(names) > _MOST_MERGED else ""
    yield "merged from", ", ".join(names[:_MOST_MERGED]) + more


def _gguf(metadata: Mapping[str, str]) -> About:
    architecture = text(metadata.get("general.architecture"))
    base = ("general.base_model.0.organization", "general.base_model.0.name", "general.base_model.0.version")
    return About(
        title=_first(metadata, "general.name", "general.basename"),
        author=_first(metadata, "general.author", "general.organization"),
        version=_first(metadata, "general.version"),
        base_model=" ".join(filter(None, (text(metadata.get(name)) for name in base))),
        description=long_text(metadata.get("general.description")),
        licence=_first(metadata, "general.license.name", "general.license"),
        source=next(
            (told for name in ("url", "repo_url", "source.url") if (told := address(metadata.get(f"general.{name}")))),
            "",
        ),
        tags=words(parsed(metadata.get("general.tags"), list)),
        extra=some(
            (name, _first(metadata, *keys))
            for name, keys in {
                "quantized by": ("general.quantized_by",),
                "finetune": ("general.finetune",),
                "size": ("general.size_label",),
                "context": (f"{architecture}.context_length",),
                "licence text": ("general.license.link",),
                "base model page": ("general.base_model.0.repo_url",),
            }.items()
        ),
    )


def _configs(configs: Mapping[str, Mapping[str, object]]) -> About:
    """What the configs of a folder say: of an adapter its rank and what it was trained on."""
    told = configs.get("", {})
    rank = (("rank", text(told.get("r"))), ("alpha", text(told.get("lora_alpha")))) if "peft_type" in told else ()
    context = ("context", text(told.get("max_position_embeddings")))
    return About(base_model=text(told.get("base_model_name_or_path")), extra=some([*rank, context]))


def _day(seconds: object) -> str:
    """The day of a moment that a trainer wrote as seconds since 1970."""
    told = number(seconds)
    try:
        return datetime.fromtimestamp(told, UTC).date().isoformat() if told else ""
    except (OverflowError, OSError, ValueError):
        return ""
