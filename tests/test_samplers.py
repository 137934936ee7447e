"""Every sampler gives A1111's figures, converges as its theory says, and treats every image of a batch alone."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bottega.diffusion import names
from bottega.diffusion.noise import Noise
from bottega.diffusion.plan import SAMPLERS, Keep, Plan, exact_steps, make_plan, partial_steps
from bottega.diffusion.schedules import SigmaTable, stable_diffusion_alphas

PARITY = Path(__file__).parents[1] / ".." / "shared" / "parity"
CASES = json.loads((PARITY / "samplers.json").read_text()) if (PARITY / "samplers.json").exists() else []
TABLE = SigmaTable(stable_diffusion_alphas())
SHAPE = (4, 8, 8)


class Formula:
    """The denoiser of `shared/parity/README.md`; without a prompt it sees the same."""

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        s = sigma.view(-1, 1, 1, 1)
        return 0.9 * torch.tanh(1.5 * x / torch.sqrt(1 + s * s)) + 0.05 * torch.sin(3 * x / (1 + s))

    def pair(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        return self(x, sigma), self(x, sigma)


def silent(i: int, sigma: Tensor, x: Tensor, denoised: Tensor) -> None:
    pass


def run(plan: Plan, seeds: list[int], **options: float) -> Tensor:
    noise = Noise(SHAPE, seeds)
    return plan.sample(Formula(), plan.start(noise.initial), noise, step=silent, **options)


# Goes from sigma to its logarithm and back, and asks the Brownian path there: where the last bit of a logarithm
# differs, so does the noise, in the fourth digit.
SENSITIVE = "DPM++ SDE"
MADE_THERE = """
import sys
import numpy as np
from test_samplers import CASES, SENSITIVE, TABLE, make_plan, run
made = {}
for case in CASES:
    if case["sampler"] == SENSITIVE:
        made[case["key"]] = run(make_plan(SENSITIVE, case["schedule"], case["steps"], TABLE), case["seeds"])
np.savez(sys.argv[1], **made)
"""


@pytest.fixture(scope="session")
def made_there(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Latents of SENSITIVE, by their key, with logarithms rounded as where the figures are from: not by one maker's
    processors in their own way, which MKL has for them."""
    path = tmp_path_factory.mktemp("made") / "there.npz"
    environment = {**os.environ, "MKL_CBWR": "COMPATIBLE", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", MADE_THERE, str(path)], env=environment, check=True)
    with np.load(path) as made:
        return dict(made)


@pytest.mark.skipif(not CASES, reason=f"no figures at {PARITY}")
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['sampler']}-{c['schedule']}-{c['steps']}".replace(" ", "_"))
def test_gives_the_figures_of_a1111(case: dict, request: pytest.FixtureRequest) -> None:
    with np.load(PARITY / "samplers.npz") as figures:
        latents = figures[f"{case['key']}_latents"]
        sigmas = figures.get(f"{case['key']}_sigmas")  # none for the timestep samplers
    plan = make_plan(case["sampler"], case["schedule"], case["steps"], TABLE)
    if sigmas is not None:
        assert plan.schedule.shape == sigmas.shape
        assert np.abs(plan.schedule.numpy() - sigmas).max() <= 1e-4
    if case["sampler"] == SENSITIVE:
        made = request.getfixturevalue("made_there")[case["key"]]
    else:
        made = run(plan, case["seeds"]).numpy()
    far = np.abs(made - latents).max()
    assert far <= 1e-4, f"{case['sampler']} on {case['schedule']}, {case['steps']} steps: latents are {far:.2e} away"


@pytest.mark.parametrize("sampler", names.SAMPLERS, ids=lambda s: s.id)
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_every_number_of_steps_ends_in_a_finite_picture(sampler: names.Sampler, steps: int) -> None:
    for schedule in names.SCHEDULES:
        result = run(make_plan(sampler.name, schedule.name, steps, TABLE), [1])
        assert result.shape == (1, *SHAPE)
        assert result.isfinite().all(), schedule.name
        if sampler.timesteps:
            break  # they take no schedule


@pytest.mark.parametrize("sampler", names.SAMPLERS, ids=lambda s: s.id)
def test_an_image_of_a_batch_equals_it_alone(sampler: names.Sampler) -> None:
    if sampler.adaptive:
        pytest.skip("its step size follows the error of the whole batch, as in k-diffusion and A1111")
    plan = make_plan(sampler.name, "Automatic", 22, TABLE)
    together = run(plan, [3, 4, 5])
    for i, seed in enumerate([3, 4, 5]):
        torch.testing.assert_close(together[i : i + 1], run(plan, [seed]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("sampler", names.SAMPLERS, ids=lambda s: s.id)
def test_raising_in_step_stops_the_sampler(sampler: names.Sampler) -> None:
    class Cancelled(Exception):
        pass

    seen: list[int] = []

    def cancel(i: int, sigma: Tensor, x: Tensor, denoised: Tensor) -> None:
        assert x.shape == denoised.shape == (1, *SHAPE)
        seen.append(i)
        if i == 1:
            raise Cancelled

    plan = make_plan(sampler.name, "Automatic", 8, TABLE)
    noise = Noise(SHAPE, [1])
    with pytest.raises(Cancelled):
        plan.sample(Formula(), plan.start(noise.initial), noise, step=cancel)
    assert seen == [0, 1]


ORDERS = {
    "euler": 1, "ddim": 1, "ddim_cfgpp": 1, "euler_ancestral": 1, "heunpp2": 1,
    "heun": 2, "dpm_2": 2, "dpm_2_ancestral": 2, "dpmpp_2s_ancestral": 2, "dpmpp_sde": 2, "dpmpp_2m": 2,
    "dpmpp_2m_sde": 2, "lms": 2, "ipndm": 2, "ipndm_v": 2, "deis": 2, "plms": 2, "unipc": 2, "dpm_fast": 2,
    "dpmpp_2m_sde_heun": 1.5, "dpmpp_3m_sde": 3,
}  # fmt: skip


@pytest.mark.parametrize("id", ORDERS)
def test_converges_to_the_exact_solution(id: str) -> None:
    """For data of variance c**2 the flow is known: x shrinks as sqrt(c**2 + sigma**2).

    Multistep methods start with a lower order, and that start is what remains of their error.
    """
    c, top, bottom = 0.8, 8.0, 0.5
    start = torch.randn(1, 4, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * top
    exact = start * math.sqrt((c**2 + bottom**2) / (c**2 + top**2))

    class Gaussian:
        def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
            return x * c**2 / (c**2 + sigma.view(-1, 1, 1, 1) ** 2)

        def pair(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
            return self(x, sigma), self(x, sigma)

    def error(steps: int) -> float:
        sigmas = torch.linspace(math.log(top), math.log(bottom), steps + 1, dtype=torch.float64).exp()
        calm = {"eta": 0.0} if "eta" in names.find_sampler(id).options else {}
        result = SAMPLERS[id](
            Gaussian(), start, sigmas, noise=lambda a, b: torch.zeros_like(start), step=silent, **calm
        )
        return ((result - exact).abs().max() / exact.abs().max()).item()

    coarse, fine = error(24), error(96)
    assert fine < 6e-3
    if id == "dpmpp_2m_sde_heun":
        assert fine < 1e-5  # its error changes sign between the two, so their ratio says nothing
    else:
        assert math.log2(coarse / fine) / 2 > ORDERS[id] - 0.15


def test_eta_zero_makes_an_ancestral_sampler_its_plain_self() -> None:
    for wild, calm in [("Euler a", "Euler"), ("DPM2 a", "DPM2"), ("DPM++ 2M SDE", "DPM++ 2M")]:
        still = run(make_plan(wild, "Karras", 12, TABLE), [1], eta=0.0)
        torch.testing.assert_close(still, run(make_plan(calm, "Karras", 12, TABLE), [1]), rtol=0, atol=1e-5)


def test_ddim_is_euler_on_the_trained_timesteps() -> None:
    plan = make_plan("DDIM", "Automatic", 10, TABLE)
    assert len(plan.sigmas) == 10
    assert plan.sigmas[[0, -1]].tolist() == TABLE.sigmas[[901, 1]].tolist()
    noise = Noise(SHAPE, [1])
    walked = SAMPLERS["euler"](Formula(), plan.start(noise.initial), plan.sigmas, noise=noise.step, step=silent)
    vp = walked / (1 + plan.sigmas[-1] ** 2).sqrt()
    torch.testing.assert_close(run(plan, [1]), vp, rtol=0, atol=1e-5)


def test_churn_adds_noise_only_within_its_bounds() -> None:
    plan = make_plan("Euler", "Karras", 10, TABLE)
    still = run(plan, [1])
    assert not torch.allclose(run(plan, [1], s_churn=5.0), still, atol=1e-3)
    torch.testing.assert_close(run(plan, [1], s_churn=5.0, s_tmin=100.0), still)


def test_an_image_starts_where_a1111_starts_it() -> None:
    latent, noise = torch.full((1, *SHAPE), 0.3), torch.ones(1, *SHAPE)
    steps, begin = partial_steps(20, 0.75)
    assert (steps, begin) == (20, 15)
    assert make_plan("Heun", "Karras", steps, TABLE, begin=begin).calls == 32
    plan = make_plan("Euler", "Karras", steps, TABLE, begin=begin)
    assert plan.sigmas.tolist() == plan.schedule[4:].tolist()
    torch.testing.assert_close(plan.start(noise, latent), latent + plan.schedule[4])
    torch.testing.assert_close(plan.start(noise, latent, extra=0.1), latent + plan.schedule[4] + 0.1)
    assert partial_steps(20, 1.0) == (20, 19)
    assert exact_steps(20, 0.5) == (40, 19)
    assert len(make_plan("Euler", "Karras", 40, TABLE, begin=19).sigmas) == 21

    # Timesteps 1, 51, ... 951: noise of number 15 (751), then down from number 14 (701).
    plan = make_plan("DDIM", "Automatic", steps, TABLE, begin=begin)
    alpha = 1 / (1 + TABLE.sigmas[751] ** 2)
    assert plan.sigmas[0] == TABLE.sigmas[701]
    assert len(plan.sigmas) == 15
    preserving = plan.start(noise, latent) / (1 + plan.sigmas[0] ** 2).sqrt()
    torch.testing.assert_close(preserving, latent * alpha.sqrt() + (1 - alpha).sqrt())


@pytest.mark.parametrize("sampler", names.SAMPLERS, ids=lambda s: s.id)
@pytest.mark.parametrize("strength", [0.0, 0.1, 0.6, 1.0])
def test_every_sampler_starts_from_an_image(sampler: names.Sampler, strength: float) -> None:
    steps, begin = partial_steps(20, strength)
    plan = make_plan(sampler.name, "Automatic", steps, TABLE, begin=begin)
    noise, latent = Noise(SHAPE, [1]), torch.full((1, *SHAPE), 0.5)
    result = plan.sample(Formula(), plan.start(noise.initial, latent), noise, step=silent)
    assert result.isfinite().all()


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M SDE", "DDIM", "DDIM CFG++", "UniPC"])
def test_inpainting_keeps_what_is_outside_the_mask(sampler: str) -> None:
    latent, mask = torch.full((2, *SHAPE), 0.5), torch.zeros(1, 1, 8, 8)
    mask[..., 4:] = 1
    plan = make_plan(sampler, "Automatic", 12, TABLE)
    noise = Noise(SHAPE, [1, 2])
    result = plan.sample(Formula(), plan.start(noise.initial), noise, step=silent, keep=Keep(latent, mask))
    assert (result[..., :4] == 0.5).all()
    assert (result[..., 4:] - 0.5).abs().mean() > 0.1


def test_timestep_samplers_show_the_model_the_image_without_noise() -> None:
    shown: list[Tensor] = []

    def watch(x: Tensor, sigma: Tensor) -> Tensor:
        shown.append(x / (1 + sigma.view(-1, 1, 1, 1) ** 2).sqrt())
        return x * 0

    plan, noise = make_plan("DDIM", "Automatic", 5, TABLE), Noise(SHAPE, [1])
    keep = Keep(torch.full((1, *SHAPE), 0.5), torch.zeros(1, 1, 8, 8))
    plan.sample(watch, plan.start(noise.initial), noise, step=silent, keep=keep)
    torch.testing.assert_close(shown, [torch.full((1, *SHAPE), 0.5)] * 4)


def test_unknown_names_are_refused_with_a_choice() -> None:
    with pytest.raises(ValueError, match="DPM\\+\\+ 2M"):
        make_plan("Eular", "Karras", 20, TABLE)
    with pytest.raises(ValueError, match="Karras"):
        make_plan("Euler", "Caras", 20, TABLE)
    with pytest.raises(ValueError, match="at least 1"):
        make_plan("Euler", "Karras", 0, TABLE)


def test_every_name_has_a_function_and_is_found_by_all_its_names() -> None:
    assert {sampler.id for sampler in names.SAMPLERS} == set(SAMPLERS)
    for sampler in names.SAMPLERS:
        for name in (sampler.name, sampler.name.upper(), sampler.id, *sampler.aliases):
            assert names.find_sampler(name) is sampler
    for schedule in names.SCHEDULES:
        for name in (schedule.name, schedule.name.lower(), schedule.id, *schedule.aliases):
            assert names.find_schedule(name) is schedule
    for name in ("k_dpm_2_ancestral", "k_dpmpp_2s_ancestral", "k_euler_ancestral"):
        assert names.find_sampler(name) is names.find_sampler(name.removeprefix("k_")), name
    assert names.find_sampler("nobody") is None
    assert names.find_schedule("") is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("DPM++ 2M Karras", ("DPM++ 2M", "Automatic")),
        ("DPM++ 2M SDE Karras", ("DPM++ 2M SDE", "Karras")),
        ("DPM++ 2M SDE Heun Exponential", ("DPM++ 2M SDE Heun", "Automatic")),
        ("DPM++ 3M SDE Exponential", ("DPM++ 3M SDE", "Automatic")),
        ("DPM2 a Karras", ("DPM2 a", "Automatic")),
        ("LMS Karras", ("LMS", "Karras")),
        ("Euler a SGMUniform", ("Euler a", "SGM Uniform")),
        ("Euler a", ("Euler a", "Automatic")),
        ("DDIM", ("DDIM", "Automatic")),
        ("DDIM CFG++", ("DDIM CFG++", "Automatic")),
        ("dpmpp_2m_karras", ("DPM++ 2M", "Automatic")),
        ("dpmpp_sde_gpu karras", ("DPM++ SDE", "Automatic")),
        ("euler_ancestral", ("Euler a", "Automatic")),
        ("k_dpmpp_2m_sde_ka", ("DPM++ 2M SDE", "Karras")),
        ("Undefined", None),
        ("Karras", None),
    ],
)
def test_reads_names_with_the_schedule_inside(old: str, new: tuple[str, str] | None) -> None:
    assert names.split_old_name(old) == new


def test_reads_the_names_of_comfyui() -> None:
    assert names.from_comfy("dpmpp_2m", "karras") == ("DPM++ 2M", "Automatic")
    assert names.from_comfy("euler", "normal") == ("Euler", "Normal")
    assert names.from_comfy("ddim", "ddim_uniform") == ("Euler", "DDIM")
    assert names.from_comfy("uni_pc", "simple") == ("UniPC", "Simple")
    assert names.from_comfy("res_multistep", "simple") is None
    assert names.from_comfy("euler", "linear_quadratic") is None


def test_names_come_without_torch() -> None:
    code = "import sys, bottega.diffusion.names; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
