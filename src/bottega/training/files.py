"""The files that trainings write: kohya's names and A1111's layouts, with what other workbenches look for inside."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bottega.errors import FileError
from bottega.formats import safetensors
from bottega.formats.atomic import atomic
from bottega.runtime.weights import rows
from bottega.training.data import Picture
from bottega.training.recipe import TrainingRecipe

RECIPE = "bottega.training"  # the metadata entry that holds a training's recipe
_PART = {"lora": "lora", "embedding": "textual-inversion", "hypernetwork": "hypernetwork"}


def metadata(
    recipe: TrainingRecipe, names: Mapping[str, str], own: Mapping[str, str], pictures: Sequence[Picture], path: Path
) -> dict[str, str]:
    """What a file says of itself: kohya's entries, ModelSpec's, and the recipe of the training.

    `names` is what LoRA for the same model say of their base, `own` what the kind adds. There is no date in it, so
    that equal trainings give equal files.
    """
    assert recipe.model is not None
    ours = [each for each in pictures if not each.regular]
    architecture = names["modelspec.architecture"].removesuffix("/lora")
    part = _PART.get(recipe.kind)
    told = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.architecture": f"{architecture}/{part}" if part else architecture,
        "modelspec.title": path.stem,
        "modelspec.resolution": f"{recipe.resolution}x{recipe.resolution}",
        "ss_base_model_version": names["ss_base_model_version"],
        "ss_output_name": path.stem,
        "ss_sd_model_name": recipe.model.name,
        "ss_new_sd_model_hash": str(recipe.model.sha256),
        "ss_learning_rate": str(recipe.rate),
        "ss_unet_lr": str(recipe.rate),
        "ss_text_encoder_lr": str(recipe.text_rate),
        "ss_optimizer": recipe.optimizer,
        "ss_lr_scheduler": recipe.schedule,
        "ss_lr_warmup_steps": str(recipe.warmup),
        "ss_max_train_steps": str(recipe.steps),
        "ss_steps": str(recipe.steps),
        "ss_total_batch_size": str(recipe.batch),
        "ss_gradient_accumulation_steps": str(recipe.accumulate),
        "ss_gradient_checkpointing": str(recipe.checkpointing),
        "ss_mixed_precision": {"bfloat16": "bf16", "float16": "fp16"}.get(recipe.precision, "no"),
        "ss_seed": str(recipe.seed),
        "ss_resolution": f"({recipe.resolution}, {recipe.resolution})",
        "ss_enable_bucket": str(recipe.buckets),
        "ss_clip_skip": str(recipe.clip_skip),
        "ss_min_snr_gamma": str(recipe.min_snr or None),
        "ss_noise_offset": str(recipe.noise_offset or None),
        "ss_caption_dropout_rate": str(recipe.dropout),
        "ss_num_train_images": str(sum(each.repeats for each in ours)),
        "ss_num_reg_images": str(sum(each.repeats for each in pictures if each.regular)),
        "ss_tag_frequency": json.dumps({"pictures": dict(_tags(ours).most_common(200))}, ensure_ascii=False),
        RECIPE: _without_places(recipe).to_json(),
    }
    if recipe.word:
        told["modelspec.trigger_phrase"] = recipe.word
    return {**told, **own}


def _without_places(recipe: TrainingRecipe) -> TrainingRecipe:
    """The recipe with the names of its folders only: files are passed on, and tell nothing of the machine."""
    return recipe.model_copy(
        update={
            field: tuple(each.model_copy(update={"path": Path(each.path).name}) for each in getattr(recipe, field))
            for field in ("data", "regularisation")
        }
    )


def _tags(pictures: Sequence[Picture]) -> Counter[str]:
    """How often each part of the captions, between commas, occurs."""
    parts = (part.strip() for each in pictures for part in each.caption.split(","))
    return Counter(part for part in parts if part)


def write(path: Path, kind: str, tensors: Mapping[str, Tensor], told: Mapping[str, str]) -> None:
    """Write what was trained, whole or not at all; a LoRA or a hypernetwork in float16. Raises SaveError."""
    if path.suffix == ".pt":
        with atomic(path) as file:
            file.write(_pickled(kind, tensors, told, path.stem))
        return
    if kind in ("lora", "hypernetwork"):
        tensors = {name: tensor.half() for name, tensor in tensors.items()}
    safetensors.write(path, rows(tensors), dict(told))


def _pickled(kind: str, tensors: Mapping[str, Tensor], told: Mapping[str, str], name: str) -> bytes:
    """A1111's own layouts, which its loader reads: dictionaries with tensors, numbers and texts."""
    common = {
        "name": told.get("name", name),
        "step": int(told["ss_steps"]),
        "sd_checkpoint": told["ss_new_sd_model_hash"][:10],
        "sd_checkpoint_name": told["ss_sd_model_name"],
        RECIPE: told[RECIPE],
    }
    content: dict[Any, Any]
    if kind == "embedding":
        if "emb_params" not in tensors:
            raise FileError(f"{name}.pt", "can hold vectors for one text encoder", "write it as .safetensors")
        content = {"string_to_token": {"*": 265}, "string_to_param": {"*": tensors["emb_params"]}, **common}
    else:
        content = dict(common)
        for full, tensor in tensors.items():
            width, half, own = full.split(".", 2)
            content.setdefault(int(width), ({}, {}))[int(half)][own] = tensor
        content |= {
            "layer_structure": json.loads(told["layer_structure"]),
            "activation_func": told["activation_func"],
            "is_layer_norm": told["is_layer_norm"] == "True",
            "weight_initialization": told["weight_initialization"],
            "activate_output": False,
            "use_dropout": False,
            "last_layer_dropout": False,
            "dropout_structure": None,
            "optional_info": "",
        }
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()
