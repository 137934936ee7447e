"""What is trained beside a network: LoRA, DoRA, LoHa and LoKr on its layers, by the definitions of their papers.

A change is a module that hears what its layer hears, and adds to what the layer says; the layer itself stays as it is.
Its numbers have the names and the forms in which kohya's trainer and LyCORIS write them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Change(nn.Module):
    """A change of one linear layer or convolution, of a rank that its `scale` (alpha / rank) belongs to."""

    def __init__(self, layer: nn.Module, rank: int, alpha: float) -> None:
        super().__init__()
        self.layer = (layer,)  # in a tuple, so that its weights are not taken for ours
        self.rank = rank
        self.alpha = alpha

    @property
    def scale(self) -> float:
        """What the change is multiplied by."""
        return self.alpha / self.rank

    @property
    def shape(self) -> torch.Size:
        """That of the layer's weight."""
        return self.layer[0].weight.shape

    def delta(self) -> Tensor:
        """What is added to the layer's weight, in the weight's shape and in float32."""
        raise TypeError(type(self).__name__)

    def said(self, heard: Tensor) -> Tensor:
        """What is added to what the layer says."""
        return applied(self.layer[0], heard, self.delta().to(heard.dtype))

    def hook(self, layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """The layer's forward hook."""
        return output + self.said(args[0])

    def numbers(self) -> dict[str, Tensor]:
        """Its tensors as files name them, behind the name of the layer."""
        named = {name.replace("__", "."): value.detach().float() for name, value in self.named_parameters()}
        return {**named, "alpha": torch.tensor(float(self.alpha))}


def applied(layer: nn.Module, heard: Tensor, weight: Tensor) -> Tensor:
    """What a layer with this weight, and without a bias, says."""
    if isinstance(layer, nn.Conv2d):
        return functional.conv2d(heard, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    return functional.linear(heard, weight)


def _random(shape: tuple[int, ...], generator: torch.Generator, deviation: float) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape, generator=generator) * deviation)


class Lora(Change):
    """LoRA (Hu et al. 2021): two matrices of a low rank; for a convolution the first one has its kernel."""

    def __init__(self, layer: nn.Module, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__(layer, rank, alpha)
        out, inside, *kernel = self.shape
        bound = 1 / math.sqrt(inside * math.prod(kernel))
        down = (torch.rand((rank, inside, *kernel), generator=generator) * 2 - 1) * bound
        self.lora_down__weight = nn.Parameter(down)
        self.lora_up__weight = nn.Parameter(torch.zeros(out, rank, *[1] * len(kernel)))

    def said(self, heard: Tensor) -> Tensor:
        """Both matrices one after the other: the product is never made."""
        down, up = self.lora_down__weight.to(heard.dtype), self.lora_up__weight.to(heard.dtype)
        low = applied(self.layer[0], heard, down)
        whole = functional.conv2d(low, up) if up.ndim == 4 else functional.linear(low, up)
        return whole * self.scale

    def delta(self) -> Tensor:
        """The product."""
        product = self.lora_up__weight.flatten(1) @ self.lora_down__weight.flatten(1)
        return product.reshape(self.shape) * self.scale


class Dora(Lora):
    """DoRA (Liu et al. 2024): the direction of the sum, at lengths of its own, one for each output."""

    def __init__(self, layer: nn.Module, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__(layer, rank, alpha, generator)
        weight = layer.weight.detach().float()
        self.dora_scale = nn.Parameter(_lengths(weight))

    def said(self, heard: Tensor) -> Tensor:
        """What the new weight says, less what the old one does."""
        return applied(self.layer[0], heard, self.difference().to(heard.dtype))

    def difference(self) -> Tensor:
        """The new weight less the old one."""
        weight = self.layer[0].weight.detach().float()
        moved = weight + self.delta()
        # The lengths count as constants on the way back, as the paper has it (4.3).
        return moved * (self.dora_scale / _lengths(moved).detach()) - weight


def _lengths(weight: Tensor) -> Tensor:
    """(out, 1, ...): the length of what makes each output."""
    axes = list(range(1, weight.ndim))
    return torch.linalg.vector_norm(weight, dim=axes, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)


class Loha(Change):
    """LoHa (Hyeon-Woo et al. 2021): two products of a low rank, multiplied number by number."""

    def __init__(self, layer: nn.Module, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__(layer, rank, alpha)
        out, inside = self.shape[0], math.prod(self.shape[1:])
        self.hada_w1_a = _random((out, rank), generator, 0.1)
        self.hada_w1_b = _random((rank, inside), generator, 1.0)
        self.hada_w2_a = nn.Parameter(torch.zeros(out, rank))
        self.hada_w2_b = _random((rank, inside), generator, 1.0)

    def delta(self) -> Tensor:
        """The product of the products."""
        whole = (self.hada_w1_a @ self.hada_w1_b) * (self.hada_w2_a @ self.hada_w2_b)
        return whole.reshape(self.shape) * self.scale


class Lokr(Change):
    """LoKr: the Kronecker product of a small matrix and a larger one, the latter of a low rank where that is less.

    `factor` is the largest side of the small matrix. Where neither is of a low rank there is nothing to scale by.
    """

    def __init__(self, layer: nn.Module, rank: int, alpha: float, generator: torch.Generator, factor: int) -> None:
        super().__init__(layer, rank, alpha)
        out, inside, *kernel = self.shape
        (small_out, large_out), (small_in, large_in) = _split(out, factor), _split(inside, factor)
        self.lokr_w1 = nn.Parameter(
            (torch.rand((small_out, small_in), generator=generator) * 2 - 1) / math.sqrt(small_in)
        )
        large = large_in * math.prod(kernel)
        if rank * 2 < min(large_out, large):
            self.lokr_w2_a = nn.Parameter(torch.zeros(large_out, rank))
            bound = 1 / math.sqrt(large)
            self.lokr_w2_b = nn.Parameter((torch.rand((rank, large), generator=generator) * 2 - 1) * bound)
        else:
            self.lokr_w2 = nn.Parameter(torch.zeros(large_out, large_in, *kernel))
            self.alpha = float(rank)  # a scale of one: who reads it scales whole matrices by nothing

    def delta(self) -> Tensor:
        """The Kronecker product."""
        if hasattr(self, "lokr_w2"):
            second, scale = self.lokr_w2, 1.0
        else:
            second, scale = self.lokr_w2_a @ self.lokr_w2_b, self.scale
        # Flat as a matrix, a kernel's numbers come in the same order.
        return torch.kron(self.lokr_w1, second.flatten(1)).reshape(self.shape) * scale


def _split(size: int, factor: int) -> tuple[int, int]:
    """The largest divisor of a size that is at most `factor` and at most its root, and what is left of the size."""
    small = max(each for each in range(1, min(factor, math.isqrt(size)) + 1) if size % each == 0)
    return small, size // small


def change_of(
    algorithm: str, layer: nn.Module, rank: int, alpha: float, generator: torch.Generator, factor: int
) -> Change:
    """The change of a layer by one of `lora`, `dora`, `loha`, `lokr`."""
    out, inside = layer.weight.shape[0], layer.weight[0].numel()
    rank = min(rank, out, inside)
    if algorithm == "lokr":
        return Lokr(layer, rank, alpha, generator, factor)
    kinds: Mapping[str, type[Lora] | type[Loha]] = {"lora": Lora, "dora": Dora, "loha": Loha}
    return kinds[algorithm](layer, rank, alpha, generator)


# --- hypernetworks ---------------------------------------------------------------------------------------------------

_ACTIVATIONS = {
    "relu": nn.ReLU, "leakyrelu": nn.LeakyReLU, "elu": nn.ELU, "swish": nn.Hardswish, "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}  # fmt: skip


class Hyper(nn.Module):
    """One half of a hypernetwork's pair: a few layers whose outcome is added to what keys or values are made from.

    Built as A1111 builds it (2022, `HypernetworkModule`): after each layer but the last its activation, then its norm.
    """

    def __init__(
        self, width: int, structure: tuple[float, ...], activation: str, layer_norm: bool, generator: torch.Generator
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(pairwise(structure)):
            layer = nn.Linear(int(width * before), int(width * after))
            with torch.no_grad():
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * 0.01)
                layer.bias.zero_()
            layers.append(layer)
            if activation != "linear" and index < len(structure) - 2:
                layers.append(_ACTIVATIONS[activation]())
            if layer_norm:
                layers.append(nn.LayerNorm(int(width * after)))
        self.linear = nn.Sequential(*layers)

    def hook(self, layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The forward hook of what makes keys or values, before it hears anything."""
        heard, *more = args
        added = self.linear(heard.to(self.linear[0].weight.dtype))
        return (heard + added.to(heard.dtype), *more)
