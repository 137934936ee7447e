"""The state of a training on disk: everything that it goes on from after a kill, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bottega.formats import read_header, safetensors
from bottega.runtime.weights import MappedTensors, rows

_TREE = "tree"  # the tensor that holds, as JSON, what is no tensor


def save(state: Mapping[str, Any], path: Path) -> None:
    """Write a state of nested dictionaries and lists, tensors, numbers, texts and None; equal states, equal bytes.

    A crash leaves the old file or the new one. Raises SaveError where it can't be written.
    """
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_taken(state, tensors)).encode()
    safetensors.write(path, rows({**tensors, _TREE: torch.frombuffer(bytearray(tree), dtype=torch.uint8)}))


def load(path: Path) -> dict[str, Any]:
    """The state that `save` wrote, its tensors copied into memory. Raises FormatError for anything else."""
    mapped = MappedTensors(read_header(path))
    tree = json.loads(bytes(mapped[_TREE].numpy().tobytes()))
    restored = _restored(tree, mapped)
    assert isinstance(restored, dict)
    return restored


def _taken(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The value as JSON: a tensor as the name that it gets, a dictionary as pairs, so that keys keep their types."""
    if isinstance(value, Tensor):
        name = f"{len(tensors):06}"
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"pairs": [[key, _taken(each, tensors)] for key, each in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_taken(each, tensors) for each in value]
    return value


def _restored(told: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(told, list):
        return [_restored(each, tensors) for each in told]
    if not isinstance(told, dict):
        return told
    if "tensor" in told:
        return tensors[told["tensor"]].clone()
    return {key: _restored(each, tensors) for key, each in told["pairs"]}
