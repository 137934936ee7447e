"""The settings of the Stable Diffusion families beside the recipe's own fields, as A1111's users know them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bottega.errors import FieldProblem
from bottega.spec import Knob

KNOBS = (
    Knob("precision", str, "auto", "number format of the networks", choices=("auto", "float32", "bfloat16", "float16")),
    Knob("prediction", str, "auto", "what the network predicts", choices=("auto", "epsilon", "v")),
    Knob("zero_snr", bool, False, "rescale the noise schedule to zero terminal signal-to-noise (2305.08891)"),
    Knob("downcast_alphas", bool, False, "keep the noise schedule in half precision, as A1111 before 1.7.1 did"),
    Knob("old_prompt_editing", bool, False, "time prompt edits as A1111 before 1.6 did"),
    Knob(
        "clip_skip",
        int,
        1,
        "which layer of Stable Diffusion 1's text encoder is used, counted from the last",
        low=1,
        high=24,
    ),
    Knob(
        "emphasis",
        str,
        "Original",
        "how weights in the prompt act",
        choices=("Original", "No norm", "Ignore", "None"),
    ),
    Knob(
        "noise_source",
        str,
        "CPU",
        "whose random numbers: the CPU's, the GPU's, or CUDA's on any machine (NV)",
        choices=("CPU", "NV", "GPU"),
    ),
    Knob("variation_seed", int, 0, "seed of the noise that is mixed in", low=0, high=2**63 - 1),
    Knob("variation_strength", float, 0.0, "how much of the variation seed's noise is mixed in", low=0, high=1),
    Knob("seed_resize_width", int, 0, "draw the noise as for this width (0: as it is)", low=0, high=8192),
    Knob("seed_resize_height", int, 0, "draw the noise as for this height (0: as it is)", low=0, high=8192),
    Knob("ensd", int, 0, "eta noise seed delta: added to the seed of the noise of each step", low=-(2**31), high=2**31),
    Knob("eta", float, 1.0, "noise that ancestral samplers add", low=0, high=1),
    Knob("eta_ddim", float, 0.0, "noise that DDIM adds", low=0, high=1),
    Knob("s_churn", float, 0.0, "stochastic churn (Karras et al. 2022)", low=0, high=100),
    Knob("s_tmin", float, 0.0, "churn above this sigma only", low=0, high=1000),
    Knob("s_tmax", float, 0.0, "churn below this sigma only (0: everywhere)", low=0, high=1000),
    Knob("s_noise", float, 1.0, "strength of the added noise", low=0, high=2),
    Knob("sigma_min", float, 0.0, "last sigma of the schedule (0: the model's)", low=0, high=100),
    Knob("sigma_max", float, 0.0, "first sigma of the schedule (0: the model's)", low=0, high=1000),
    Knob(
        "rho",
        float,
        0.0,
        "curvature of the Karras and polyexponential schedules (0: the schedule's own)",
        low=0,
        high=50,
    ),
    Knob("guidance_rescale", float, 0.0, "keep the spread of guided predictions natural (2305.08891)", low=0, high=1),
    Knob("skip_early_guidance", float, 0.0, "part of the first steps done without guidance", low=0, high=1),
    Knob(
        "min_uncond_sigma",
        float,
        0.0,
        "below this sigma every second step leaves the negative prompt out",
        low=0,
        high=15,
    ),
    Knob(
        "image_guidance", float, 1.5, "how closely an instruct-pix2pix model follows the input picture", low=0, high=30
    ),
    Knob("mask_blur", int, 4, "softness of the mask's edge in pixels", low=0, high=256),
    Knob(
        "masked_content",
        str,
        "original",
        "what the masked area starts from",
        choices=("original", "fill", "latent noise", "latent nothing"),
    ),
    Knob("vae_tiling", str, "auto", "decode in tiles, which needs less memory", choices=("auto", "on", "off")),
)


def problems(knobs: Mapping[str, Any]) -> Iterator[FieldProblem]:
    """What is wrong with a noise schedule of these knobs."""
    if 0 < knobs["rho"] < 0.1:
        yield FieldProblem("knobs.rho", f"{knobs['rho']:g} is less than 0.1", "0 is the schedule's own")
    if knobs["sigma_max"] and knobs["sigma_min"] >= knobs["sigma_max"]:
        yield FieldProblem(
            "knobs.sigma_min", f"{knobs['sigma_min']:g} is not below the first sigma, {knobs['sigma_max']:g}"
        )
