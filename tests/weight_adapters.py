"""Weight adapters of every kind as their papers define them: the numbers of a file, and what they do, in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Weight = torch.Tensor
Define = Callable[[Weight, float], Weight]


@dataclass(frozen=True)
class Change:
    """The tensors of one module, by the ends of their names, and the weight that they make at a strength."""

    tensors: Mapping[str, torch.Tensor]
    define: Define


def numbers(generator: torch.Generator, *sizes: int) -> torch.Tensor:
    return torch.randn(sizes, generator=generator) / 4


def towards(full: Callable[[Weight], Weight]) -> Define:
    """What goes in a straight line from the weight to what it is at full strength."""
    return lambda weight, strength: weight + strength * (full(weight) - weight)


def adding(change: torch.Tensor) -> Define:
    return lambda weight, strength: weight + strength * change.reshape(weight.shape)


def lora(shape: tuple[int, ...], generator: torch.Generator) -> Change:
    """Hu et al. 2021: W + alpha / r B A."""
    kernel = shape[2:]
    up, down = numbers(generator, shape[0], 4, *[1 for _ in kernel]), numbers(generator, 4, *shape[1:])
    product = up.double().flatten(1) @ down.double().flatten(1)
    tensors = {"lora_up.weight": up, "lora_down.weight": down, "alpha": torch.tensor(2.0)}
    return Change(tensors, adding(product * 2 / 4))


def tucker(shape: tuple[int, ...], generator: torch.Generator) -> Change:
    """LoCon with a core: a 1x1 convolution, one of the kernel's size, and a 1x1 convolution."""
    up, mid = numbers(generator, shape[0], 4, 1, 1), numbers(generator, 4, 4, *shape[2:])
    down = numbers(generator, 4, shape[1], 1, 1)
    core = torch.einsum("on,nmkl,mi->oikl", up.double()[..., 0, 0], mid.double(), down.double()[..., 0, 0])
    return Change({"lora_up.weight": up, "lora_mid.weight": mid, "lora_down.weight": down}, adding(core))


def dora(shape: tuple[int, ...], generator: torch.Generator, axis: int = 0) -> Change:
    """Liu et al. 2024: m (W + B A) / |W + B A|, with lengths of the rows, or of the columns."""
    plain = lora(shape, generator)
    lengths = numbers(generator, *[size if place == axis else 1 for place, size in enumerate(shape)]) + 2
    others = [place for place in range(len(shape)) if place != axis]

    def full(weight: Weight) -> Weight:
        moved = plain.define(weight, 1)
        return lengths.double() * moved / moved.square().sum(dim=others, keepdim=True).sqrt()

    return Change({**plain.tensors, "dora_scale": lengths}, towards(full))


def dora_of_columns(shape: tuple[int, ...], generator: torch.Generator) -> Change:
    return dora(shape, generator, 1)


def loha(shape: tuple[int, ...], generator: torch.Generator) -> Change:
    """Hyeon-Woo et al. 2021: W + alpha / r (A1 B1) * (A2 B2)."""
    columns = torch.Size(shape[1:]).numel()
    factors = [numbers(generator, *sizes) for sizes in ((shape[0], 4), (4, columns)) * 2]
    one, two = (factors[first].double() @ factors[first + 1].double() for first in (0, 2))
    names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    return Change({**dict(zip(names, factors, strict=True)), "alpha": torch.tensor(3.0)}, adding(one * two * 3 / 4))


def lokr(shape: tuple[int, ...], generator: torch.Generator) -> Change:
    """LyCORIS (Yeh et al. 2023): W + alpha / r C x (A B), x the Kronecker product."""
    kernel = shape[2:]
    whole, a = numbers(generator, 4, 2), numbers(generator, shape[0] // 4, 3)
    b = numbers(generator, 3, torch.Size((shape[1] // 2, *kernel)).numel())
    second = (a.double() @ b.double()).reshape(shape[0] // 4, shape[1] // 2, *kernel)
    made = torch.einsum("ac,bd...->abcd...", whole.double(), second).reshape(shape)
    return Change({"lokr_w1": whole, "lokr_w2_a": a, "lokr_w2_b": b, "alpha": torch.tensor(1.0)}, adding(made / 3))


def glora(shape: tuple[int, ...], generator: torch.Generator) -> Change:
    """Chavan et al. 2023: W + alpha / r (W A + B), A and B products of two."""
    ones = [1 for _ in shape[2:]]
    a1, a2 = numbers(generator, shape[1], 4, *ones), numbers(generator, 4, shape[1], *ones)
    b1, b2 = numbers(generator, shape[0], 4, *ones), numbers(generator, 4, *shape[1:])
    a = a1.double().flatten(1) @ a2.double().flatten(1)
    b = (b1.double().flatten(1) @ b2.double().flatten(1)).reshape(shape)

    def full(weight: Weight) -> Weight:
        return weight + (torch.einsum("oi...,ij->oj...", weight, a) + b) * 2 / 4

    tensors = {"a1.weight": a1, "a2.weight": a2, "b1.weight": b1, "b2.weight": b2, "alpha": torch.tensor(2.0)}
    return Change(tensors, towards(full))


def early_glora(shape: tuple[int, ...], generator: torch.Generator) -> Change:
    """As `glora`, with the two factors of each product the other way round: all that A1111 knows."""
    now = glora(shape, generator)
    other = {"a1.weight": "a2.weight", "a2.weight": "a1.weight", "b1.weight": "b2.weight", "b2.weight": "b1.weight"}
    return Change({other.get(name, name): tensor for name, tensor in now.tensors.items()}, now.define)


def cayley(blocks: torch.Tensor) -> torch.Tensor:
    """(I + Q) (I - Q)^-1 for the skew Q = A - A'."""
    skew, unit = blocks - blocks.mT, torch.eye(blocks.shape[-1], dtype=blocks.dtype)
    return torch.stack([(unit + q) @ torch.linalg.inv(unit - q) for q in skew.flatten(0, -3)]).reshape(blocks.shape)


def oft(shape: tuple[int, ...], generator: torch.Generator) -> Change:
    """Qiu et al. 2023: R' W, R a rotation made of blocks on the diagonal; each row then times a factor."""
    blocks, rescale = numbers(generator, shape[0] // 4, 4, 4), numbers(generator, shape[0], *[1] * (len(shape) - 1)) + 1
    turns = cayley(blocks.double())

    def define(weight: Weight, strength: float) -> Weight:
        turn = torch.block_diag(*(strength * one.T + (1 - strength) * torch.eye(4) for one in turns))
        factors = 1 + strength * (rescale.double() - 1)
        return (turn @ weight.flatten(1)).reshape(weight.shape) * factors

    return Change({"oft_blocks": blocks, "rescale": rescale, "alpha": torch.tensor(0.0)}, define)


def boft(shape: tuple[int, ...], generator: torch.Generator) -> Change:
    """Liu et al. 2024 (BOFT): R_m P_m ... R_1 P_1 W, in round i among features that lie 2^i half blocks apart."""
    size, rounds = 4, 3
    blocks = numbers(generator, rounds, shape[0] // size, size, size)
    turns = cayley(blocks.double())

    def define(weight: Weight, strength: float) -> Weight:
        rows = weight.flatten(1)
        for number in range(rounds):
            apart = 2**number * size // 2
            order = [
                base + which * apart + place
                for base in range(0, shape[0], 2 * apart)
                for place in range(apart)
                for which in (0, 1)
            ]
            turn = torch.block_diag(*(strength * one + (1 - strength) * torch.eye(size) for one in turns[number]))
            turned = turn @ rows[order]
            rows = torch.empty_like(rows)
            rows[order] = turned
        return rows.reshape(weight.shape)

    return Change({"oft_blocks": blocks, "alpha": torch.tensor(0.0)}, define)


def ia3(shape: tuple[int, ...], generator: torch.Generator, on_input: int = 0) -> Change:
    """Liu et al. 2022: the output's features, or the input's, each times 1 + its factor."""
    factors = numbers(generator, shape[on_input])
    stored = factors.reshape(1, -1, 1, 1) if len(shape) == 4 else factors
    along = [-1 if place == on_input else 1 for place in range(len(shape))]

    def define(weight: Weight, strength: float) -> Weight:
        return weight * (1 + strength * factors.double().reshape(along))

    return Change({"weight": stored, "on_input": torch.tensor(on_input)}, define)


def ia3_of_input(shape: tuple[int, ...], generator: torch.Generator) -> Change:
    return ia3(shape, generator, 1)


def full(shape: tuple[int, ...], generator: torch.Generator) -> Change:
    """All of the difference."""
    difference = numbers(generator, *shape)
    return Change({"diff": difference}, adding(difference.double()))


def norm(shape: tuple[int, ...], generator: torch.Generator) -> Change:
    """The difference of a norm's weight."""
    difference = numbers(generator, *shape)
    return Change({"w_norm": difference}, adding(difference.double()))


KINDS: Mapping[str, Callable[[tuple[int, ...], torch.Generator], Change]] = {
    "lora": lora, "tucker": tucker, "dora": dora, "dora of columns": dora_of_columns, "loha": loha, "lokr": lokr,
    "glora": glora, "early glora": early_glora, "oft": oft, "boft": boft, "ia3": ia3, "ia3 of the input": ia3_of_input,
    "full": full, "norm": norm,
}  # fmt: skip


def takes(kind: str, shape: tuple[int, ...]) -> bool:
    """Whether a weight of this shape can be changed so."""
    if kind == "norm":
        return len(shape) == 1
    wide = len(shape) == 4 and shape[-1] > 1
    return len(shape) > 1 and (wide or kind != "tucker") and shape[0] % 16 == 0 and shape[1] % 2 == 0
