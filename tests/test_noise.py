"""Noise is the same on every machine, for every image alone, and as A1111 draws it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from bottega.diffusion.noise import BrownianTree, Noise, PhiloxStream, TorchStream, slerp

FIGURES = Path(__file__).parents[1] / ".." / "shared" / "parity" / "noise.npz"
SHAPE = (4, 8, 8)
ANY = torch.tensor(1.0)


def figure_names() -> list[str]:
    if not FIGURES.exists():
        return []
    with np.load(FIGURES) as figures:
        return list(figures)


def noise_called(name: str, shape: tuple[int, ...]) -> Noise:
    """CPU_5_sub6_0.35, NV_5_resize64, CPU_42_ensd31337_first: what the name of a figure asks for."""
    source, seed, *rest = name.split("_")
    asked: dict = {"source": source}
    for part, after in zip(rest, [*rest[1:], ""], strict=True):
        if part.startswith("sub"):
            asked |= {"variation_seeds": [int(part[3:])], "variation_strength": float(after)}
        elif part.startswith("resize"):
            asked["resize_from"] = (int(part[6:]) // 8,) * 2
        elif part.startswith("ensd"):
            asked["ensd"] = int(part[4:])
    return Noise(shape, [int(seed)], **asked)


@pytest.mark.skipif(not FIGURES.exists(), reason=f"no figures at {FIGURES}")
@pytest.mark.parametrize("name", figure_names())
def test_gives_the_figures_of_a1111(name: str) -> None:
    with np.load(FIGURES) as figures:
        wanted = figures[name]
    noise = noise_called(name, wanted.shape[1:])
    drawn = noise.step(ANY, ANY) if name.endswith("_second") else noise.initial
    far = np.abs(drawn.numpy() - wanted).max()
    assert far <= 1e-6, f"{name} is {far:.2e} away"


def test_philox_draws_what_an_nvidia_gpu_draws() -> None:
    drawn = PhiloxStream(0).draw((3, 4))
    wanted = [
        [-0.92466259, -0.42534415, -2.6438457, 0.14518388],
        [-0.12086647, -0.57972564, -0.62285122, -0.32838709],
        [-1.07454231, -0.36314407, -1.67105067, 2.26550497],
    ]
    torch.testing.assert_close(drawn, torch.tensor(wanted), rtol=0, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_philox_agrees_with_the_gpu_in_this_machine() -> None:
    ours, theirs = PhiloxStream(7), TorchStream(7, "cuda")
    for _ in range(2):
        torch.testing.assert_close(ours.draw(SHAPE), theirs.draw(SHAPE).cpu(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("source", ["CPU", "NV"])
def test_an_image_does_not_depend_on_its_neighbours(source: str) -> None:
    low, high = torch.tensor(0.03), torch.tensor(14.0)
    together = Noise(SHAPE, [5, 6], source=source, variation_seeds=[8, 9], variation_strength=0.2, ensd=3)
    alone = Noise(SHAPE, [6], source=source, variation_seeds=[9], variation_strength=0.2, ensd=3)
    assert together.initial[1].equal(alone.initial[0])
    assert together.step(ANY, ANY)[1].equal(alone.step(ANY, ANY)[0])
    assert together.brownian(0.03, 14.0)(high, low)[1].equal(alone.brownian(0.03, 14.0)(high, low)[0])


def test_ensd_changes_the_steps_and_not_the_start() -> None:
    plain, delta = Noise(SHAPE, [1]), Noise(SHAPE, [1], ensd=31337)
    assert plain.initial.equal(delta.initial)
    assert delta.step(ANY, ANY).equal(TorchStream(1 + 31337).draw(SHAPE)[None])


def test_a_variation_goes_from_one_seed_to_the_other() -> None:
    one, other = TorchStream(1).draw(SHAPE), TorchStream(2).draw(SHAPE)
    torch.testing.assert_close(slerp(0.0, one, other), one)
    torch.testing.assert_close(slerp(1.0, one, other), other)
    assert slerp(0.5, one, other).std() == pytest.approx(1.0, abs=0.1)
    torch.testing.assert_close(slerp(0.3, one, one), one)


@pytest.mark.parametrize("small", [(4, 4), (12, 12), (4, 12), (5, 3), (9, 11), (8, 8)])
def test_resized_noise_keeps_the_middle(small: tuple[int, int]) -> None:
    noise = Noise(SHAPE, [1], resize_from=small).initial[0]
    source = TorchStream(1).draw((4, *small))
    assert noise.shape == SHAPE
    # The middle of the one is somewhere in the other, unchanged.
    assert torch.isin(noise[:, 3:5, 3:5], source).all() if min(small) > 3 else torch.isin(source, noise).any()


def test_a_brownian_path_is_one_path_however_it_is_asked() -> None:
    def tree() -> BrownianTree:
        return BrownianTree(0.03, 14.6, 1, lambda seed: TorchStream(seed).draw(SHAPE))

    whole = tree().increment(1.0, 9.0)
    parts = tree()
    pieces = parts.increment(7.7, 9.0) + parts.increment(1.0, 2.5) + parts.increment(2.5, 7.7)
    torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-5)
    assert not parts.increment(3.0, 3.0).any()
    many = torch.stack(
        [BrownianTree(0.0, 4.0, s, lambda x: TorchStream(x).draw(SHAPE)).increment(1, 3) for s in range(40)]
    )
    assert many.std().item() == pytest.approx(2**0.5, rel=0.03)


def test_the_brownian_tree_is_torchsdes() -> None:
    torchsde = pytest.importorskip("torchsde")
    sigmas = torch.linspace(14.5, 0.25, 20)
    low, high = sigmas.min().item(), sigmas.max().item()
    ours = Noise(SHAPE, [7]).brownian(low, high)
    theirs = torchsde.BrownianTree(low, torch.zeros(SHAPE), high, entropy=7)
    for sigma, sigma_next in pairwise(sigmas):
        wanted = -theirs(sigma_next.item(), sigma.item()) / (sigma - sigma_next).sqrt()
        torch.testing.assert_close(ours(sigma, sigma_next)[0], wanted, rtol=0, atol=1e-5)


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(ValueError, match="CPU, NV, GPU"):
        Noise(SHAPE, [1], source="dice")
