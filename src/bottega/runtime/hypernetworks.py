"""Hypernetworks as stable-diffusion-webui trains them: small networks that change what a UNet's attention hears."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

# By stable-diffusion-webui's names; its swish is the hard one.
ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    "relu": nn.ReLU, "leakyrelu": nn.LeakyReLU, "elu": nn.ELU, "swish": nn.Hardswish, "hardswish": nn.Hardswish,
    "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "celu": nn.CELU, "gelu": nn.GELU, "hardshrink": nn.Hardshrink,
    "hardsigmoid": nn.Hardsigmoid, "hardtanh": nn.Hardtanh, "logsigmoid": nn.LogSigmoid, "mish": nn.Mish,
    "prelu": nn.PReLU, "relu6": nn.ReLU6, "rrelu": nn.RReLU, "selu": nn.SELU, "silu": nn.SiLU, "softplus": nn.Softplus,
    "softshrink": nn.Softshrink, "softsign": nn.Softsign, "tanhshrink": nn.Tanhshrink,
}  # fmt: skip
LINEAR = "linear"


@dataclass(frozen=True)
class Options:
    """How the layers of a hypernetwork follow each other; `dropout` says behind which layers training left some out."""

    structure: tuple[float, ...] = (1, 2, 1)
    activation: str = LINEAR
    norm: bool = False
    activate_output: bool = True
    dropout: tuple[float, ...] = ()

    def modules(self, size: int) -> Iterator[nn.Module]:
        """The layers of one network for vectors of this size, as training puts them one behind the other."""
        widths = [round(size * multiple) for multiple in self.structure]
        for number, (width, after) in enumerate(pairwise(widths), start=1):
            yield nn.Linear(width, after)
            if self.activation != LINEAR and (number < len(widths) - 1 or self.activate_output):
                yield ACTIVATIONS[self.activation]()
            if self.norm:
                yield nn.LayerNorm(after)
            if number < len(self.dropout) and self.dropout[number]:
                yield nn.Identity()  # which it is outside of training


def read_options(metadata: Mapping[str, str], structure: Sequence[float]) -> Options:
    """The options that a file tells, of layers of this structure; what it does not tell is what webui takes for it.

    Raises ValueError for an activation that can't be had.
    """
    told = _Told(metadata)
    activation = metadata.get("activation_func", "").strip().lower() or LINEAR
    if activation in ("none", "null"):
        activation = LINEAR
    if activation != LINEAR and activation not in ACTIVATIONS:
        raise ValueError(f"its activation_func {activation[:40]!r} is none that can be had for vectors one by one")
    return Options(
        structure=tuple(structure),
        activation=activation,
        norm=told.yes("is_layer_norm"),
        activate_output=told.yes("activate_output", instead=True),
        dropout=told.dropout(len(structure)),
    )


class _Told:
    """Reads values out of metadata, where a pickle's are JSON and others whatever somebody wrote."""

    def __init__(self, metadata: Mapping[str, str]) -> None:
        self.metadata = metadata

    def yes(self, name: str, *, instead: bool = False) -> bool:
        text = self.metadata.get(name, "").strip().lower()
        return text in ("true", "1") if text not in ("", "none", "null") else instead

    def dropout(self, count: int) -> tuple[float, ...]:
        """The share that is left out behind each layer: 0.3 between the first and the last where it only says yes."""
        try:
            listed = json.loads(self.metadata.get("dropout_structure", "null"))
        except ValueError:
            listed = None
        if isinstance(listed, list) and all(isinstance(share, int | float) for share in listed):
            return tuple(listed)
        if not self.yes("use_dropout"):
            return ()
        return (0.0, *[0.3] * (count - 3), 0.3 if self.yes("last_layer_dropout") else 0.0, 0.0)


Pair = tuple[nn.Sequential, nn.Sequential]


def build(tensors: Mapping[str, Tensor], options: Options, size: int, device: torch.device) -> Pair:
    """The networks for keys and values of one size, from tensors `0.linear.0.weight`, `1.linear.2.bias`, ...

    In float32, whatever the UNet computes in. Raises ValueError where the tensors are not those of the options.
    """
    keys, values = (_half(_renamed(tensors, f"{half}."), options, size) for half in (0, 1))
    return keys.to(device), values.to(device)


# What the layers were called before there could be more than two.
_OLD = {"linear1": "linear.0", "linear2": "linear.1"}


def _renamed(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """One half's tensors under the names that they have in `nn.Sequential`."""
    found = {}
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            module, dot, kind = name.removeprefix(prefix).rpartition(".")
            found[f"{_OLD.get(module, module).removeprefix('linear.')}{dot}{kind}"] = tensor
    return found


def _half(tensors: Mapping[str, Tensor], options: Options, size: int) -> nn.Sequential:
    with torch.device("meta"):
        network = nn.Sequential(*options.modules(size))
    wanted = {name: tuple(like.shape) for name, like in network.state_dict().items()}
    there = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if wanted != there:
        wrong = next(name for name in (*there, *wanted) if wanted.get(name) != there.get(name))
        told = f"layer_structure {list(options.structure)}, activation_func {options.activation}"
        told += f", is_layer_norm {options.norm}, activate_output {options.activate_output}"
        raise ValueError(f"its layers for {size} are not those that its options mean ({told}): see linear.{wrong}")
    state = {name: tensor.to(torch.float32, copy=True) for name, tensor in tensors.items()}
    if not all(torch.isfinite(tensor).all() for tensor in state.values()):
        raise ValueError(f"its layers for {size} hold numbers that are not finite")
    network.load_state_dict(state, assign=True)
    return network.requires_grad_(False).eval()


def attach(
    unet: nn.Module, pairs: Mapping[int, Pair], strength: float, works: Callable[[], bool]
) -> Callable[[], None]:
    """Have each attention of a UNet hear what the networks of its size make of its input; what takes that back.

    Keys and values are then made of `x + strength * network(x)`, while `works()`; queries are left alone. Several
    hypernetworks follow each other in the order in which they are attached.
    """
    hooks = [
        module.register_forward_pre_hook(partial(_changed, pairs[module.in_features][half], strength, works))
        for half, module in _listeners(unet)
        if module.in_features in pairs
    ]

    def detach() -> None:
        for hook in hooks:
            hook.remove()

    return detach


def _listeners(unet: nn.Module) -> Iterator[tuple[int, nn.Module]]:
    """The layers that make keys (0) and values (1) of what an attention hears."""
    for name, module in unet.named_modules():
        half = {"to_k": 0, "to_v": 1}.get(name.rpartition(".")[2])
        if half is not None and hasattr(module, "in_features"):
            yield half, module


def _changed(
    network: nn.Sequential, strength: float, works: Callable[[], bool], module: nn.Module, inputs: tuple[Any, ...]
) -> tuple[Any, ...] | None:
    if not works():
        return None
    heard, *others = inputs
    exact = heard.float()
    return (exact + strength * network(exact)).to(heard.dtype), *others
