"""diffusers' own pipeline with its defaults, as a program that takes turns with us: JSON lines in, JSON lines out.

    python -m bottega.bench.diffusers_peer WEIGHTS CONFIGS DEVICE

It loads the single file as diffusers does, in float32, and answers to {"do": "load"} and to {"do": "make", ...}.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from itertools import pairwise
from time import perf_counter
from typing import Any

from bottega.bench.machine import peak_memory, synchronize


class DiffusersPipeline:
    """The pipeline, and how long its phases take."""

    def __init__(self, weights: str, configs: str, device: str) -> None:
        import torch

        self._weights, self._configs, self._device = weights, configs, torch.device(device)
        self._pipe: Any = None

    def load(self) -> dict[str, float]:
        """The seconds from a path to a pipeline that is ready to run."""
        import torch  # noqa: F401  # its import is not a part of loading
        from diffusers import StableDiffusionPipeline

        self._pipe = None
        began = perf_counter()
        self._pipe = StableDiffusionPipeline.from_single_file(
            self._weights, config=self._configs, local_files_only=True
        ).to(self._device)
        self._pipe.set_progress_bar_config(disable=True)
        synchronize(self._device)
        return {"load": perf_counter() - began}

    def make(
        self, prompt: str, negative: str, steps: int, guidance: float, width: int, height: int, out: str | None = None
    ) -> dict[str, Any]:
        """The seconds that the text, each step, and the decoding of a picture took."""
        import torch

        pipe, began = self._pipe, perf_counter()
        with torch.no_grad():
            positive, empty = pipe.encode_prompt(prompt, self._device, 1, True, negative)
            synchronize(self._device)
            marks = [perf_counter()]

            def mark(*_: Any) -> dict[str, Any]:
                synchronize(self._device)
                marks.append(perf_counter())
                return {}

            latents = pipe(
                prompt_embeds=positive,
                negative_prompt_embeds=empty,
                num_inference_steps=steps,
                guidance_scale=guidance,
                width=width,
                height=height,
                output_type="latent",
                callback_on_step_end=mark,
            ).images
            sampled = perf_counter()
            pixels = pipe.vae.decode(latents / pipe.vae.config.scaling_factor, return_dict=False)[0]
            picture = pipe.image_processor.postprocess(pixels, output_type="pil")[0]
        ended = perf_counter()
        if out:
            picture.save(out)
        return {
            "text": marks[0] - began,
            "steps": [after - before for before, after in pairwise(marks)],
            "decode": ended - sampled,
            "total": ended - began,
            "peak": peak_memory(),
        }


def _main() -> None:
    pipeline = DiffusersPipeline(*sys.argv[1:])
    verbs: dict[str, Callable[..., dict[str, Any]]] = {"load": pipeline.load, "make": pipeline.make}
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(verbs[request.pop("do")](**request)), flush=True)


if __name__ == "__main__":
    _main()
