"""Schedules, the sigma table and its edges; A1111's own figures are in `test_samplers.py`."""

from __future__ import annotations

import pytest
import torch

from bottega.diffusion import names
from bottega.diffusion.schedules import (
    ANCHORS_SDXL,
    SCHEDULES,
    Range,
    SigmaTable,
    discard_penultimate,
    rescale_zero_terminal_snr,
    sigmas_for,
    stable_diffusion_alphas,
    trained_timesteps,
)

TABLE = SigmaTable(stable_diffusion_alphas())


def test_stable_diffusion_has_its_known_ends() -> None:
    assert TABLE.sigma_min == pytest.approx(0.0291675, abs=1e-6)
    assert TABLE.sigma_max == pytest.approx(14.614642, abs=1e-5)


def test_timesteps_and_sigmas_are_each_others_inverse() -> None:
    t = torch.tensor([0.0, 0.25, 17.5, 500.0, 998.9, 999.0])
    torch.testing.assert_close(TABLE.timestep(TABLE.sigma(t)), t, rtol=0, atol=2e-2)
    rows = torch.arange(1000)
    assert TABLE.timestep(TABLE.sigmas).round().long().equal(rows)
    assert TABLE.timestep(torch.tensor([1e-6, 1e6])).tolist() == [0, 999]


def test_a_quantized_table_answers_with_trained_timesteps() -> None:
    table = SigmaTable(stable_diffusion_alphas(), quantize=True)
    between = TABLE.sigma(torch.tensor([10.3, 700.8]))
    assert table.timestep(between).tolist() == [10, 701]


def test_a_consistency_table_knows_every_twentieth_timestep() -> None:
    table = TABLE.consistency()
    assert len(table) == 50
    assert table.timestep(table.sigmas[[0, 49]]).tolist() == [19, 999]
    assert table.timestep(TABLE.sigmas[[31]]).tolist() == [39]
    torch.testing.assert_close(SCHEDULES["Uniform"](4, Range(table))[[0, -2]], TABLE.sigmas[[999, 19]])


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("n", [1, 2, 3, 11, 20, 50, 150])
def test_sigmas_fall_and_end(name: str, n: int) -> None:
    sigmas = SCHEDULES[name](n, Range(TABLE))
    assert sigmas.dtype == torch.float32
    assert (sigmas.diff() < 0).all()
    assert sigmas[0] <= 14.62
    if name != "DDIM":
        assert len(sigmas) == n + 1
    if name == "KL Optimal":
        assert sigmas[-1].item() == pytest.approx(TABLE.sigma_min, rel=1e-4)  # A1111's ends there
    else:
        assert sigmas[-1] == 0


def test_the_ends_and_the_shape_can_be_chosen() -> None:
    for name in ("Karras", "Exponential", "Polyexponential", "Normal", "Beta"):
        sigmas = SCHEDULES[name](10, Range(TABLE, sigma_min=0.1, sigma_max=10.0))
        assert sigmas[0].item() == pytest.approx(10.0, rel=1e-4)
        assert sigmas[-2].item() == pytest.approx(0.1, rel=1e-4)
    steep, flat = (SCHEDULES["Karras"](10, Range(TABLE, rho=rho)) for rho in (7.0, 1.0))
    assert (steep[1:-2] < flat[1:-2]).all()
    torch.testing.assert_close(flat[:-1], torch.linspace(TABLE.sigma_max, TABLE.sigma_min, 10))
    assert not torch.equal(
        SCHEDULES["Beta"](10, Range(TABLE, alpha=0.9, beta=0.4)), SCHEDULES["Beta"](10, Range(TABLE))
    )


def test_align_your_steps_has_a_table_for_each_family() -> None:
    one, xl = (SCHEDULES["Align Your Steps"](11, span) for span in (Range(TABLE), Range(TABLE, anchors=ANCHORS_SDXL)))
    assert one[1].item() == pytest.approx(6.475)
    assert xl[1].item() == pytest.approx(6.315)
    finer = SCHEDULES["Align Your Steps"](21, Range(TABLE))
    torch.testing.assert_close(finer[::2][:-1], one[:-2], rtol=1e-5, atol=0)


def test_turbo_takes_its_timesteps_from_the_top() -> None:
    assert SCHEDULES["Turbo"](1, Range(TABLE)).tolist() == [TABLE.sigma_max, 0]
    assert SCHEDULES["Turbo"](4, Range(TABLE)).tolist() == [*TABLE.sigmas[[999, 749, 499, 249]].tolist(), 0]


def test_automatic_is_the_samplers_own_and_some_drop_a_sigma() -> None:
    automatic = names.find_schedule("Automatic")
    karras = SCHEDULES["Karras"](21, Range(TABLE))
    assert sigmas_for(names.find_sampler("DPM2"), automatic, 20, Range(TABLE)).equal(discard_penultimate(karras))
    assert discard_penultimate(torch.tensor([3.0, 2.0, 1.0, 0.0])).tolist() == [3, 2, 0]


def test_the_timesteps_of_ddim() -> None:
    assert trained_timesteps(4, TABLE).tolist() == [1, 251, 501, 751]
    assert trained_timesteps(1, TABLE).tolist() == [1]
    assert len(trained_timesteps(30, TABLE)) == 31
    assert trained_timesteps(1000, TABLE)[-1] == 999


def test_zero_terminal_snr_ends_in_noise_and_begins_as_before() -> None:
    alphas = stable_diffusion_alphas()
    rescaled = rescale_zero_terminal_snr(alphas)
    assert rescaled[0].item() == pytest.approx(alphas[0].item(), rel=1e-9)
    assert rescaled[-1].item() == 4.8973451890853435e-08
    assert (rescaled.diff() < 0).all()
    table = SigmaTable(rescaled)
    assert table.sigma_max == pytest.approx(4518.75, abs=0.5)
    for name in SCHEDULES:
        assert SCHEDULES[name](20, Range(table)).isfinite().all(), name
