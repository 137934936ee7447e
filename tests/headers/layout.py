"""One published layout of a model's header, and what it has to be recognised as."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Layout:
    """Names and shapes of a model's tensors, and the right answer; a lone `configs` is that of a folder."""

    shapes: Mapping[str, tuple[int, ...]]
    kind: str
    family: str
    variant: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    dtype: str = "F16"
    format: str = "safetensors"
    configs: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    guess: bool = False
