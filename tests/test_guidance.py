"""Noise and velocity give the same picture, and guidance is the arithmetic that its papers write down."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bottega.diffusion.guidance import Conditioning, Denoiser, Guidance, Guided
from bottega.diffusion.noise import Noise
from bottega.diffusion.plan import make_plan
from bottega.diffusion.schedules import SigmaTable, rescale_zero_terminal_snr, stable_diffusion_alphas

TABLE = SigmaTable(stable_diffusion_alphas())
SHAPE = (4, 8, 8)


def clean(x: Tensor, sigma: Tensor) -> Tensor:
    """What an ideal model of unit-variance data sees in x."""
    return x / (1 + sigma.view(-1, 1, 1, 1) ** 2)


class Network:
    """Predicts as that model would, plus the mean of the prompt; remembers what it was asked."""

    def __init__(self, table: SigmaTable, prediction: str = "epsilon") -> None:
        self.table, self.prediction, self.asked = table, prediction, []

    def __call__(self, x: Tensor, timestep: Tensor, cond: Conditioning) -> Tensor:
        self.asked.append((x, timestep, cond))
        sigma = self.table.sigma(timestep).view(-1, 1, 1, 1)
        x = x[:, :4]
        unit = (1 + sigma**2).sqrt()
        wanted = clean(x * unit, sigma) + cond.context.mean(dim=(1, 2)).view(-1, 1, 1, 1)
        if self.prediction == "epsilon":
            return (x * unit - wanted) / sigma
        return (x / unit - wanted) * unit / sigma


def prompt(value: float, tokens: int = 77, vector: float | None = None) -> Conditioning:
    return Conditioning(torch.full((1, tokens, 8), value), None if vector is None else torch.full((1, 6), vector))


def guided(network: Network, parts: list, negative: Conditioning, guidance: Guidance, **more: object) -> Guided:
    denoiser = Denoiser(network, network.table, network.prediction)
    return Guided(denoiser, lambda call: parts, lambda call: [(negative, 1.0)], guidance, calls=20, **more)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_the_wrapped_network_sees_the_clean_latent(prediction: str) -> None:
    x, sigma = torch.randn(2, *SHAPE), TABLE.sigmas[[700, 20]]
    network = Network(TABLE, prediction)
    seen = Denoiser(network, TABLE, prediction)(x, sigma, prompt(0.0).expand(2))
    torch.testing.assert_close(seen, clean(x, sigma), rtol=1e-4, atol=1e-5)
    scaled, timestep, _ = network.asked[0]
    torch.testing.assert_close(timestep, torch.tensor([700.0, 20.0]))
    torch.testing.assert_close(scaled, x / (1 + sigma**2).sqrt().view(-1, 1, 1, 1))


@pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M", "DDIM", "UniPC"])
def test_noise_and_velocity_make_the_same_picture(sampler: str) -> None:
    results = []
    for prediction in ("epsilon", "v"):
        denoise = guided(Network(TABLE, prediction), [(prompt(0.4), 1.0)], prompt(-0.1), Guidance(5.0))
        plan, noise = make_plan(sampler, "Automatic", 12, TABLE), Noise(SHAPE, [1])
        results.append(plan.sample(denoise, plan.start(noise.initial), noise, step=lambda *_: None))
    torch.testing.assert_close(*results, rtol=0, atol=2e-4)


@pytest.mark.parametrize("sampler", ["Euler", "Euler a", "DPM++ 2M SDE", "DDIM", "UniPC"])
def test_a_zero_terminal_snr_model_starts_from_pure_noise(sampler: str) -> None:
    table = SigmaTable(rescale_zero_terminal_snr(stable_diffusion_alphas()))
    denoise = guided(Network(table, "v"), [(prompt(0.0), 1.0)], prompt(0.0), Guidance(5.0, rescale=0.7))
    plan, noise = make_plan(sampler, "SGM Uniform", 20, table), Noise(SHAPE, [1, 2])
    result = plan.sample(denoise, plan.start(noise.initial), noise, step=lambda *_: None)
    assert result.isfinite().all()
    assert 0.5 < result.std() < 1.5


def test_guidance_weighs_every_part_of_the_prompt() -> None:
    x, sigma = torch.zeros(2, *SHAPE), TABLE.sigmas[[500, 500]]
    network = Network(TABLE)
    denoise = guided(network, [(prompt(1.0), 0.5), (prompt(3.0), 0.25)], prompt(0.2), Guidance(4.0))
    wanted = 0.2 + 0.5 * 4 * (1.0 - 0.2) + 0.25 * 4 * (3.0 - 0.2)
    torch.testing.assert_close(denoise(x, sigma), torch.full_like(x, wanted), rtol=1e-4, atol=1e-4)
    assert len(network.asked) == 1
    assert len(network.asked[0][0]) == 6


def test_prompts_of_other_lengths_go_by_themselves() -> None:
    network = Network(TABLE)
    denoise = guided(network, [(prompt(1.0, 154), 1.0)], prompt(0.2), Guidance(2.0))
    x = denoise(torch.zeros(2, *SHAPE), TABLE.sigmas[[500, 500]])
    torch.testing.assert_close(x, torch.full_like(x, 1.8), rtol=1e-4, atol=1e-4)
    assert [tuple(cond.context.shape) for _, _, cond in network.asked] == [(2, 154, 8), (2, 77, 8)]


def test_vectors_and_extra_channels_reach_the_network() -> None:
    network = Network(TABLE)
    concat = torch.arange(5.0).view(1, 5, 1, 1).expand(1, 5, 8, 8)
    denoise = guided(network, [(prompt(1.0, vector=7.0), 1.0)], prompt(0.0, vector=3.0), Guidance(2.0), concat=concat)
    denoise(torch.zeros(2, *SHAPE), TABLE.sigmas[[500, 500]])
    x, _, cond = network.asked[0]
    assert cond.vector[:, 0].tolist() == [7, 7, 3, 3]
    assert x.shape == (4, 9, 8, 8)
    assert x[3, 4:, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_scale_one_asks_for_the_prompt_only() -> None:
    network = Network(TABLE)
    x, sigma = torch.zeros(1, *SHAPE), TABLE.sigmas[[500]]
    assert guided(network, [(prompt(1.0), 1.0)], prompt(9.0), Guidance(1.0))(x, sigma).mean() == pytest.approx(
        1, abs=1e-4
    )
    assert len(network.asked[-1][0]) == 1
    # With AND the weights may leave some of the negative over.
    two = guided(network, [(prompt(1.0), 1.0), (prompt(2.0), 1.0)], prompt(9.0), Guidance(1.0))
    assert two(x, sigma).mean() == pytest.approx(9 - 8 - 7, abs=1e-3)
    assert len(network.asked[-1][0]) == 3


def test_guidance_can_be_skipped_early_and_at_the_end() -> None:
    def sizes(guidance: Guidance, row: int, calls: int = 6) -> list[int]:
        network = Network(TABLE)
        denoise = guided(network, [(prompt(1.0), 1.0)], prompt(0.0), guidance)
        for _ in range(calls):
            denoise(torch.zeros(1, *SHAPE), TABLE.sigmas[[row]])
        return [len(x) for x, _, _ in network.asked]

    # Calls 0, 1 and 2 of 20 are within the first tenth: A1111 counts the boundary in.
    assert sizes(Guidance(7.0, skip_early=0.1), 500) == [1, 1, 1, 2, 2, 2]
    assert sizes(Guidance(7.0, min_sigma=1.0), 100) == [2, 1, 2, 1, 2, 1]
    assert sizes(Guidance(7.0, min_sigma=1.0, always_min=True), 100) == [1] * 6
    assert sizes(Guidance(7.0, min_sigma=1.0, always_min=True), 900) == [2] * 6


def test_rescaling_gives_back_the_spread_of_the_prompt() -> None:
    class Spread(Network):
        """The prompt says how wide the velocity spreads."""

        def __call__(self, x: Tensor, timestep: Tensor, cond: Conditioning) -> Tensor:
            pattern = torch.linspace(-1, 1, 256).view(1, *SHAPE)
            return pattern * cond.context.mean(dim=(1, 2)).view(-1, 1, 1, 1)

    x, sigma = torch.randn(1, *SHAPE), TABLE.sigmas[[500]]
    s = sigma.view(-1, 1, 1, 1)

    def velocity(rescale: float) -> float:
        denoise = guided(Spread(TABLE, "v"), [(prompt(2.0), 1.0)], prompt(1.0), Guidance(7.0, rescale=rescale))
        spread = (x / (s**2 + 1) - denoise(x, sigma)) * (s**2 + 1).sqrt() / s
        return (spread.std() / torch.linspace(-1, 1, 256).std()).item()

    assert velocity(0.0) == pytest.approx(8.0, rel=1e-4)  # 1 + 7 * (2 - 1)
    assert velocity(1.0) == pytest.approx(2.0, rel=1e-4)
    assert velocity(0.7) == pytest.approx(0.7 * 2 + 0.3 * 8, rel=1e-4)


def test_a_picture_guides_beside_the_prompt() -> None:
    class Edit(Network):
        """Sees the prompt, and ten times the picture."""

        def __call__(self, x: Tensor, timestep: Tensor, cond: Conditioning) -> Tensor:
            sigma = self.table.sigma(timestep).view(-1, 1, 1, 1)
            wanted = cond.context.mean(dim=(1, 2)).view(-1, 1, 1, 1) + 10 * x[:, 4:]
            return (x[:, :4] * (1 + sigma**2).sqrt() - wanted) / sigma

    x, sigma, picture = torch.zeros(2, *SHAPE), TABLE.sigmas[[500, 500]], torch.ones(2, *SHAPE)
    ask = Guidance(7.0, image_scale=1.5)
    denoise = guided(Edit(TABLE), [(prompt(2.0), 1.0)], prompt(1.0), ask, concat=picture)
    wanted = 1 + 7 * (12 - 11) + 1.5 * (11 - 1)
    torch.testing.assert_close(denoise(x, sigma), torch.full_like(x, wanted), rtol=1e-4, atol=1e-3)
    with pytest.raises(ValueError, match="AND"):
        guided(Edit(TABLE), [(prompt(2.0), 1.0)] * 2, prompt(1.0), ask, concat=picture)(x, sigma)
    with pytest.raises(ValueError, match="concat"):
        guided(Edit(TABLE), [(prompt(2.0), 1.0)], prompt(1.0), ask)(x, sigma)


def test_cfg_plus_plus_gets_both_answers() -> None:
    x, sigma = torch.zeros(1, *SHAPE), TABLE.sigmas[[500]]
    denoise = guided(Network(TABLE), [(prompt(1.0), 1.0)], prompt(0.2), Guidance(6.25))
    both, unconditional = denoise.pair(x, sigma)
    assert both.mean() == pytest.approx(0.6, abs=1e-4)
    assert unconditional.mean() == pytest.approx(0.2, abs=1e-4)
    plan, noise = make_plan("DDIM CFG++", "Automatic", 10, TABLE), Noise(SHAPE, [1])
    assert plan.sample(denoise, plan.start(noise.initial), noise, step=lambda *_: None).isfinite().all()
    assert denoise.call == 10


def test_prompts_are_looked_up_by_the_number_of_the_call() -> None:
    asked: list[int] = []

    def positive(call: int) -> list[tuple[Conditioning, float]]:
        asked.append(call)
        return [(prompt(float(call)), 1.0)]

    denoise = Guided(
        Denoiser(Network(TABLE), TABLE), positive, lambda call: [(prompt(0.0), 1.0)], Guidance(3.0), calls=8
    )
    plan, noise = make_plan("Heun", "Automatic", 4, TABLE), Noise(SHAPE, [1])
    plan.sample(denoise, plan.start(noise.initial), noise, step=lambda *_: None)
    assert asked == list(range(7))  # two calls a step, one for the last


def test_an_unknown_prediction_is_refused() -> None:
    with pytest.raises(ValueError, match="epsilon"):
        Denoiser(Network(TABLE), TABLE, "sample")
