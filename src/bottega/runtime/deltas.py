"""What an adapter does to a weight, by the definitions of LoRA and LyCORIS; and an adapter from a difference.

Numbers come by their role in the adapter's file: `up` and `down` for LoRA, `mid` in the Tucker form of a convolution,
`up_b` for the bias beside `up`, `hada_*` for LoHa, `lokr_*` for LoKr, `diff` for all of it, `a1` to `b2` for GLoRA,
`oft_*` for OFT and BOFT (`oft_R` for peft's OFT), `ia3` and `ia3_l` for IA3; `alpha` scales by alpha / rank,
`dora_scale` (kohya, LyCORIS) or `magnitude` (peft) makes it DoRA.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isqrt
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from bottega.spec import Rotation

Numbers = Mapping[str, torch.Tensor]
_WHOLE = ("diff", "diff_b", "w_norm", "b_norm")
_PLAIN = frozenset({"up", "down", "alpha"})


def patched(
    weight: torch.Tensor,
    numbers: Numbers,
    strength: float,
    scale: float | None = None,
    rotation: Rotation | None = None,
) -> torch.Tensor:
    """`change` of a copy."""
    made = weight.clone(memory_format=torch.contiguous_format)
    change(made, numbers, strength, scale, rotation)
    return made


def change(
    weight: torch.Tensor,
    numbers: Numbers,
    strength: float,
    scale: float | None = None,
    rotation: Rotation | None = None,
) -> None:
    """Give a contiguous weight an adapter's change in place, `strength` times; ValueError if it does not fit.

    `scale` is alpha / rank where no `alpha` says it, `rotation` what peft's OFT has to know beside its numbers.
    """
    if set(numbers) <= _PLAIN and "up" in numbers and "down" in numbers:
        _add_product(weight, numbers, strength, scale)
        return
    if "oft_R" in numbers:
        _turn_as_peft(weight, numbers["oft_R"], strength, rotation)
        return
    for role, way in _MULTIPLYING.items():
        if role in numbers:
            way(weight, numbers, strength)
            return
    added = _glora(weight, numbers) if "a1" in numbers else delta(numbers, scale)
    if added.numel() != weight.numel():
        raise ValueError(f"{_times(added)} numbers for a weight of {_times(weight)}")
    added = added.reshape(weight.shape)
    if "a1" in numbers:
        added = added * _scale(numbers, min(numbers["a1"].shape[:2]), scale)
    if "dora_scale" not in numbers and "magnitude" not in numbers:
        weight.add_(added, alpha=strength)
        return
    # DoRA (Liu et al. 2024): the sum's direction, at lengths of its own along one axis.
    moved = weight + added
    axis, length = _lengths(numbers, weight)
    others = [other for other in range(weight.ndim) if other != axis]
    norm = torch.linalg.vector_norm(moved, dim=others, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
    shape = [1] * weight.ndim
    shape[axis] = weight.shape[axis]
    weight.lerp_(moved.mul_(length.reshape(shape) / norm), strength)


def _add_product(weight: torch.Tensor, numbers: Numbers, strength: float, scale: float | None) -> None:
    """LoRA (Hu et al. 2021): the product goes straight into the weight."""
    up, down = numbers["up"].flatten(1), numbers["down"].flatten(1)
    if up.shape[0] * down.shape[1] != weight.numel() or up.shape[0] != weight.shape[0]:
        raise ValueError(f"{up.shape[0]}x{down.shape[1]} numbers for a weight of {_times(weight)}")
    if up.shape[1] != down.shape[0]:
        raise ValueError(f"factors of rank {up.shape[1]} and {down.shape[0]}")
    weight.view(weight.shape[0], -1).addmm_(up, down, alpha=strength * _scale(numbers, down.shape[0], scale))


def _scale(numbers: Numbers, rank: int, told: float | None) -> float:
    """alpha / rank: what the file's numbers say, else what was told, else 1."""
    if "alpha" in numbers:
        return numbers["alpha"].item() / rank if rank else 1.0
    return 1.0 if told is None else told


def delta(numbers: Numbers, scale: float | None = None) -> torch.Tensor:
    """What is added to a weight whatever that is, at full strength and without DoRA.

    Its shape may lack the axes of a 1x1 convolution. ValueError for numbers that make nothing.
    """
    if whole := next((role for role in _WHOLE if role in numbers), None):
        return numbers[whole]
    if "up" in numbers and "down" in numbers:
        made, rank = _product(numbers["up"], numbers["down"], numbers.get("mid")), numbers["down"].shape[0]
    elif "hada_w1_a" in numbers:
        made, rank = _hadamard(numbers), numbers["hada_w1_b"].shape[0]
    elif "lokr_w1" in numbers or "lokr_w1_a" in numbers:
        made, rank = _kronecker(numbers)
    elif "up_b" in numbers:
        made, rank = numbers["up_b"], 0
    else:
        raise ValueError(f"only {', '.join(sorted(numbers))} of it")
    made = made * _scale(numbers, rank, scale)
    return made * numbers["scalar"] if "scalar" in numbers else made


def _product(up: torch.Tensor, down: torch.Tensor, mid: torch.Tensor | None) -> torch.Tensor:
    inner = down.shape[0] if mid is None else mid.shape[0]
    if up.flatten(1).shape[1] != inner or (mid is not None and mid.shape[1] != down.shape[0]):
        raise ValueError(f"factors of {_times(up)} and {_times(down)}, which have no product")
    if mid is not None:
        return torch.einsum("nmkl,in,mj->ijkl", mid, up.flatten(1), down.flatten(1))
    return (up.flatten(1) @ down.flatten(1)).reshape(up.shape[0], *down.shape[1:])


def _hadamard(numbers: Numbers) -> torch.Tensor:
    """LoHa (Hyeon-Woo et al. 2021): two products, multiplied number by number."""
    factors = []
    for which in "12":
        a, b, t = (numbers.get(name.format(which)) for name in ("hada_w{}_a", "hada_w{}_b", "hada_t{}"))
        factors.append(_factor(a, b, t))
    if factors[0].shape != factors[1].shape:
        raise ValueError(f"products of {_times(factors[0])} and {_times(factors[1])}")
    return factors[0] * factors[1]


def _glora(weight: torch.Tensor, numbers: Numbers) -> torch.Tensor:
    """GLoRA (Chavan et al. 2023) as LyCORIS has it: the weight's own product with A, and a product B.

    Early files have the two factors of each the other way round.
    """
    roles = ("a1", "a2", "b1", "b2")
    if missing := [role for role in roles if role not in numbers]:
        raise ValueError(f"no {' and no '.join(missing)}")
    a1, a2, b1, b2 = (numbers[role].flatten(1) for role in roles)
    inner = weight.shape[1] if weight.ndim > 1 else 0
    # Of a square weight, early factors chain both ways round: only A's own outer axis tells them.
    if a1.shape[0] != inner or not b1.shape[1] == b2.shape[0] == a1.shape[1] == a2.shape[0]:
        a1, a2, b1, b2 = a2, a1, b2, b1
    if a1.shape[0] != inner or a2.shape[1] != inner or a1.shape[1] != a2.shape[0]:
        raise ValueError(f"factors of {_times(a1)} and {_times(a2)} for a weight of {_times(weight)}")
    added = _product(numbers["b1"], numbers["b2"], numbers["bm"]) if "bm" in numbers else _product(b1, b2, None)
    if added.numel() != weight.numel():
        raise ValueError(f"{_times(added)} numbers for a weight of {_times(weight)}")
    return torch.einsum("oi...,ij,jk->ok...", weight, a1, a2) + added.reshape(weight.shape)


def _turn(weight: torch.Tensor, numbers: Numbers, strength: float) -> None:
    """OFT (Qiu et al. 2023) and BOFT (Liu et al. 2024): rotations of the output's features, in blocks.

    Four axes are BOFT's rounds, of which the i-th mixes features 2^i apart. A strength other than 1 moves each
    rotation towards none. `oft_diag`, of early files, are the rotations themselves.
    """
    blocks = numbers["oft_diag"] if "oft_diag" in numbers else numbers["oft_blocks"]
    size = blocks.shape[-1]
    if blocks.ndim not in (3, 4) or blocks.shape[-2] != size or blocks.shape[-3] * size != weight.shape[0]:
        raise ValueError(f"rotations of {_times(blocks)} for a weight of {_times(weight)}")
    unit = torch.eye(size, dtype=blocks.dtype, device=blocks.device)
    turns = blocks
    if "oft_diag" not in numbers:
        # Cayley's parametrisation of rotations by skew matrices, whose norm `alpha` may bound.
        skew = blocks - blocks.mT
        bound, norm = float(numbers.get("alpha", 0.0)) * weight.shape[0], float(skew.norm())
        if 0 < bound < norm:
            skew = skew * (bound / norm)
        turns = (unit + skew) @ torch.linalg.inv(unit - skew)
    turns = torch.lerp(unit, turns, strength).to(weight.dtype)
    rows = weight.flatten(1)
    if turns.ndim == 3:
        rows = torch.einsum("knm,kni->kmi", turns, rows.unflatten(0, (-1, size))).flatten(0, 1)
    else:
        for number, turn in enumerate(turns):
            apart = 2**number * (size // 2)
            paired = rows.unflatten(0, (-1, 2, apart)).transpose(1, 2).flatten(0, 2).unflatten(0, (-1, size))
            rows = torch.einsum("kij,kjn->kin", turn, paired).flatten(0, 1)
            rows = rows.unflatten(0, (-1, apart, 2)).transpose(1, 2).flatten(0, 2)
    if "rescale" in numbers:
        rows = rows * torch.lerp(torch.ones_like(rows[:, :1]), numbers["rescale"].reshape(-1, 1), strength)
    weight.copy_(rows.reshape(weight.shape))


def _turn_as_peft(weight: torch.Tensor, above: torch.Tensor, strength: float, rotation: Rotation | None) -> None:
    """OFT as peft has it: rotations of the input's features, in blocks, by what is above a skew matrix's diagonal.

    One block alone is that of all features (`block_share`).
    """
    if rotation is None:
        raise ValueError("the config that peft saved with it is missing, or not one that says how it turns")
    columns = weight.flatten(1).shape[1]
    size = (1 + isqrt(1 + 8 * above.shape[-1])) // 2
    fits = above.ndim == 2 and size * (size - 1) // 2 == above.shape[1] and columns % size == 0
    if not fits or above.shape[0] not in (1, columns // size):
        raise ValueError(f"rotations of {_times(above)} for a weight of {_times(weight)}")
    upper = torch.triu_indices(size, size, 1, device=above.device)
    skew = above.new_zeros(above.shape[0], size, size)
    skew[:, upper[0], upper[1]] = above
    skew = skew - skew.mT
    if rotation.bound is not None:
        bound, norm = rotation.bound / above.shape[0] ** 0.5, torch.linalg.vector_norm(skew, dim=(1, 2), keepdim=True)
        skew = torch.where(norm <= bound, skew, skew * (bound / norm))
    unit = torch.eye(size, dtype=above.dtype, device=above.device)
    if rotation.terms is None:
        turns = torch.linalg.solve(unit + skew, unit - skew, left=False)
    else:
        turns = _series(unit, skew, rotation.terms)
    turns = torch.lerp(unit, turns, strength).to(weight.dtype).expand(columns // size, -1, -1)
    blocks = weight.flatten(1).unflatten(1, (-1, size))
    weight.copy_(torch.einsum("obk,bck->obc", blocks, turns).reshape(weight.shape))


def _series(unit: torch.Tensor, skew: torch.Tensor, terms: int) -> torch.Tensor:
    """(1 + Q) / (1 - Q) as peft has it: 1 + 2Q + 2Q^2 ..., where the last power counts once.

    Of three terms it makes four.
    """
    turns = unit.expand_as(skew)
    if terms > 1:
        turns = turns + 2 * skew
    if terms > 2:
        power = skew @ skew
        turns = turns + 2 * power
        for _ in range(3, terms - 1):
            power = power @ skew
            turns = turns + 2 * power
        turns = turns + power @ skew
    return turns


def _stretch(weight: torch.Tensor, numbers: Numbers, strength: float) -> None:
    """IA3 (Liu et al. 2022) as LyCORIS has it: factors, less 1, of the output's features or of the input's."""
    factors = numbers["ia3"]
    _multiply(weight, factors.flatten(), int(bool(numbers["on_input"])), strength)


def _stretch_as_peft(weight: torch.Tensor, numbers: Numbers, strength: float) -> None:
    """IA3 as peft has it: (n, 1) factors of the output's features, or (1, n) of the input's."""
    factors = numbers["ia3_l"]
    _multiply(weight, factors.flatten() - 1, int(factors.shape[0] == 1), strength)


def _multiply(weight: torch.Tensor, more: torch.Tensor, axis: int, strength: float) -> None:
    if axis >= weight.ndim or weight.shape[axis] != more.numel():
        raise ValueError(f"{more.numel()} factors for a weight of {_times(weight)}")
    shape = [1] * weight.ndim
    shape[axis] = more.numel()
    weight.mul_(1 + strength * more.reshape(shape))


_MULTIPLYING: Mapping[str, Callable[[torch.Tensor, Numbers, float], None]] = {
    "oft_blocks": _turn,
    "oft_diag": _turn,
    "ia3": _stretch,
    "ia3_l": _stretch_as_peft,
}


def _kronecker(numbers: Numbers) -> tuple[torch.Tensor, int]:
    """LoKr: the Kronecker product of two matrices, whole or products themselves; and the rank, 0 if both are whole."""
    factors, rank = [], 0
    for which in "12":
        whole = numbers.get(f"lokr_w{which}")
        if whole is None:
            a, b = numbers[f"lokr_w{which}_a"], numbers[f"lokr_w{which}_b"]
            whole, rank = _factor(a, b, numbers.get(f"lokr_t{which}")), b.shape[0]
        factors.append(whole)
    first, second = factors
    first = first.reshape(*first.shape, *[1] * (second.ndim - first.ndim))
    return torch.kron(first.contiguous(), second.contiguous()), rank


def _factor(a: torch.Tensor | None, b: torch.Tensor | None, core: torch.Tensor | None) -> torch.Tensor:
    if a is None or b is None:
        raise ValueError("one factor of a product, and not the other")
    if (a.shape[1] if core is None else core.shape[1]) != b.shape[0] or (
        core is not None and core.shape[0] != a.shape[0]
    ):
        raise ValueError(f"factors of {_times(a)} and {_times(b)}, which have no product")
    if core is None:
        return a @ b.flatten(1) if b.ndim == 2 else (a @ b.flatten(1)).reshape(a.shape[0], *b.shape[1:])
    return torch.einsum("ijkl,jr,ip->prkl", core, b, a)


def _lengths(numbers: Numbers, weight: torch.Tensor) -> tuple[int, torch.Tensor]:
    """DoRA's lengths, and the axis along which they go: the only one that they have, else that of their shape.

    peft's are those of the output's features, though it stores a convolution's as (1, n, 1, 1).
    """
    length = numbers["magnitude" if "magnitude" in numbers else "dora_scale"]
    long = [axis for axis, size in enumerate(length.shape) if size > 1]
    axis = long[0] if long and length.ndim > 1 and "magnitude" not in numbers else 0
    if axis >= weight.ndim or length.numel() != weight.shape[axis]:
        raise ValueError(f"DoRA's {_times(length)} lengths for a weight of {_times(weight)}")
    return axis, length.to(weight.dtype)


def _times(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one"


# --- the other way ---------------------------------------------------------------------------------------------------

_SWEEPS, _MORE = 4, 16  # of the randomised SVD: passes that sharpen it, and directions beside those asked for


def factors(difference: torch.Tensor, rank: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, float]:
    """`up` and `down` of at most this rank that come nearest to a difference, and the share of its energy they hold.

    A convolution is taken as the matrix of its output channels. The singular values are shared between the two evenly.
    Halko, Martinsson, Tropp 2011.
    """
    matrix = difference.flatten(1)
    rank = min(rank, *matrix.shape)
    energy = torch.linalg.vector_norm(matrix).item() ** 2
    if energy == 0:
        up, down = matrix.new_zeros(matrix.shape[0], rank), matrix.new_zeros(rank, matrix.shape[1])
        return _as_weights(up, down, difference, 1.0)
    wide = min(rank + _MORE, *matrix.shape)
    if wide * 3 > min(matrix.shape):
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    else:
        left, values, right = _sketched(matrix, wide, seed)
    root = values[:rank].sqrt()
    kept = values[:rank].double().square().sum().item()
    up, down = left[:, :rank] * root, root[:, None] * right[:rank]
    return _as_weights(up, down, difference, min(1.0, kept / energy))


def _sketched(matrix: torch.Tensor, rank: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(matrix @ torch.randn(matrix.shape[1], rank, generator=generator))
    for _ in range(_SWEEPS):
        basis, _ = torch.linalg.qr(matrix.T @ basis)
        basis, _ = torch.linalg.qr(matrix @ basis)
    left, values, right = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
    return basis @ left, values, right


def _as_weights(
    up: torch.Tensor, down: torch.Tensor, like: torch.Tensor, share: float
) -> tuple[torch.Tensor, torch.Tensor, float]:
    if like.ndim == 4:
        return up[:, :, None, None], down.reshape(-1, *like.shape[1:]), share
    return up, down, share
