"""Measures one training step of a rank-16 LoRA on a full-size Stable Diffusion 1.5, beside diffusers and peft.

Both train the same layers of the same weights in the same number format, one picture of 256x256 at a time, whose latent
and words are encoded already. Each has a process of its own, and they take turns; peaks are those of the steps.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from bottega.bench.full_size import full_size_model
from bottega.bench.machine import describe, forget_peak, peak_memory, synchronize
from bottega.errors import BottegaError
from bottega.families import family
from bottega.formats import read_header
from bottega.settings import STARTER_SHELF, Settings

RANK = 16
SIDE = 256  # pixels
STEPS = 4  # that count in each round, after one that does not
ROUNDS = 3
# The layers that kohya's trainer changes, by the ends of their names in diffusers' UNet.
LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")


@dataclass(frozen=True)
class Side:
    """Of one of the two: seconds of a step in each round, and the most bytes that its process held."""

    seconds: tuple[float, ...]
    peak: int


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Measure, and tell; 1 if a step takes longer, or more memory, than the plain way."""
    model = STARTER_SHELF / "starter-image.safetensors" if args.quick else full_size_model(settings.home / "bench")
    ours: list[Side] = []
    theirs: list[Side] = []
    for number in range(ROUNDS):
        for name, sides in (("ours", ours), ("theirs", theirs)):
            print(f"round {number + 1} of {ROUNDS}: {name}", file=sys.stderr)
            sides.append(_child(name, model, settings.device))
    told = figures(ours, theirs)
    if args.json:
        print(json.dumps(told, indent=2))
    else:
        print("\n".join(_lines(told)))
    return 0 if told["faster"] >= 1 and told["less_memory"] >= 1 else 1


def figures(ours: list[Side], theirs: list[Side]) -> dict[str, Any]:
    """Medians of the steps' seconds, the highest peaks, and how many times ours the other's are."""
    seconds = [median(second for side in sides for second in side.seconds) for sides in (ours, theirs)]
    peaks = [max(side.peak for side in sides) for sides in (ours, theirs)]
    return {
        "rank": RANK,
        "size": SIDE,
        "seconds": seconds[0],
        "seconds_peft": seconds[1],
        "faster": seconds[1] / seconds[0],
        "peak": peaks[0],
        "peak_peft": peaks[1],
        "less_memory": peaks[1] / peaks[0],
        "machine": _machine(),
    }


def _machine() -> Mapping[str, str]:
    from bottega.runtime.place import choose

    return describe(choose().torch_device)


def _lines(told: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{name}: {words}" for name, words in told["machine"].items())
    yield f"a step of rank {RANK} at {SIDE}x{SIDE}: {told['seconds']:.2f} s, at most {told['peak'] / 1e9:.2f} GB"
    yield (
        f"diffusers and peft: {told['seconds_peft']:.2f} s ({told['faster']:.2f} times as long), "
        f"at most {told['peak_peft'] / 1e9:.2f} GB ({told['less_memory']:.2f} times as much)"
    )


def _child(name: str, model: Path, device: str) -> Side:
    """One of the two in a process of its own."""
    words = [sys.executable, "-m", "bottega.bench.training", name, str(model), device]
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise BottegaError(f"{name} failed: {(ran.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
    told = json.loads(ran.stdout)
    return Side(tuple(told["seconds"]), told["peak"])


def _measured(step: Callable[[], object], device: Any) -> Side:
    """A warm step, again and again; the peak is that of the steps, not of the loading before them."""
    import torch

    forget_peak()
    seconds = []
    for _ in range(STEPS + 1):
        synchronize(device)
        began = perf_counter()
        step()
        synchronize(device)
        seconds.append(perf_counter() - began)
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    else:
        peak = peak_memory() or 0
    return Side(tuple(seconds[1:]), peak)


def _loaded(model: Path, device: str) -> tuple[Any, Any, Any, Any]:
    """The family, the header, the match and the pipe of a model, without what training does not need."""
    from bottega.runtime.place import choose, keep_memory, keep_precision

    keep_memory()
    keep_precision()
    face, header = family("sd1"), read_header(model)
    match = face.recognise(header)
    assert match is not None
    return face, header, match, face.load(header, match, choose(device))


def _ours(model: Path, device: str) -> Side:
    """A step as `bottega train lora` makes it."""
    import torch

    from bottega.spec import Shown
    from bottega.training.optimizers import optimizer_of
    from bottega.training.pupils import pupil_of
    from bottega.training.recipe import TrainingRecipe

    face, header, match, pipe = _loaded(model, device)
    lesson = face.train
    recipe = TrainingRecipe(kind="lora", rank=RANK, alpha=float(RANK), rate=1e-4, precision=pipe.place.precision)
    lesson.ready(pipe, False)
    pupil = pupil_of(recipe, pipe, lesson, face.anatomy.places(header, match))
    weights = list(pupil.groups["unet"].values())
    optimizer = optimizer_of(recipe, [{"params": weights, "lr": 1e-4}])
    latents, noise = torch.randn(1, 4, SIDE // 8, SIDE // 8), torch.randn(1, 4, SIDE // 8, SIDE // 8)
    with torch.no_grad():
        said = lesson.say(pipe, ["a house"], 1, 1, {})
    shown = [Shown((SIDE, SIDE), (0, 0), (SIDE, SIDE))]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        lesson.errors(pipe, latents, said, shown, noise, torch.tensor([500])).mean().backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()

    return _measured(step, pipe.place.torch_device)


def _theirs(model: Path, device: str) -> Side:
    """The same step as diffusers' own example for LoRA makes it with peft."""
    import torch
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
    from peft import LoraConfig

    _, _, _, pipe = _loaded(model, device)
    unet, place = pipe.unet, pipe.place
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=list(LAYERS)))
    weights = [weight for weight in unet.parameters() if weight.requires_grad]
    for weight in weights:
        weight.data = weight.data.float()
    optimizer = torch.optim.AdamW(weights, lr=1e-4)
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    latents, noise = (torch.randn(1, 4, SIDE // 8, SIDE // 8, device=place.torch_device) for _ in range(2))
    text = pipe.text_encoders[0].model
    ids = torch.full((1, 77), 49_407, device=place.torch_device)
    with torch.no_grad():
        words = text(input_ids=ids).last_hidden_state

    def step() -> None:
        times = torch.tensor([500], device=place.torch_device)
        noisy = scheduler.add_noise(latents, noise, times)
        with torch.autocast(place.torch_device.type, unet.dtype, enabled=unet.dtype != torch.float32):
            guess = unet(noisy.to(unet.dtype), times, words).sample
        torch.nn.functional.mse_loss(guess.float(), noise).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return _measured(step, place.torch_device)


def main() -> None:
    """One of the two, as a process of its own: its figures as one line of JSON."""
    name, model, device = sys.argv[1:]
    side = {"ours": _ours, "theirs": _theirs}[name](Path(model), device)
    print(json.dumps(vars(side)))


if __name__ == "__main__":
    main()
