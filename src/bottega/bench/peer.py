"""Our side of the comparison with diffusers: it gets the same file, and a process that takes turns with ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import IO, Any

from bottega.bench.pictures import Timing
from bottega.errors import BottegaError
from bottega.recipe import Recipe


class Peer:
    """diffusers' pipeline over one model; a context manager that ends its process.

    `first_picture` is the time from the start of the process to a saved picture, imports and loading included.
    """

    def __init__(self, weights: Path, configs: Path, device: str) -> None:
        self._errors: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed by __exit__
        self._command = [sys.executable, "-m", "bottega.bench.diffusers_peer", str(weights), str(configs), device]

    def __enter__(self) -> Peer:
        self._began = perf_counter()
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def first_picture(self, recipe: Recipe, out: Path) -> tuple[float, int | None]:
        """The seconds from the start of its process to a saved picture, and the most bytes that it held."""
        self.load()
        told = self._make(recipe, out)
        return perf_counter() - self._began, told["peak"]

    def load(self) -> float:
        """The seconds that it takes to load the model once more."""
        return float(self._ask({"do": "load"})["load"])

    def make(self, recipe: Recipe) -> Timing:
        """How long the phases of a picture took."""
        told = self._make(recipe, None)
        return Timing(told["text"], tuple(told["steps"]), told["decode"], told["total"])

    def _make(self, recipe: Recipe, out: Path | None) -> dict[str, Any]:
        assert recipe.size is not None
        asked = {
            "prompt": recipe.prompt,
            "negative": recipe.negative,
            "steps": recipe.sampling.steps,
            "guidance": recipe.sampling.guidance,
            "width": recipe.size.width,
            "height": recipe.size.height,
            "out": out and str(out),
        }
        return self._ask({"do": "make", **asked})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self._errors.seek(0)
            why = (self._errors.read().strip().splitlines() or ["it said nothing"])[-1]
            raise BottegaError(f"diffusers' pipeline failed: {why}", "measure without --against")
        told = json.loads(answer)
        assert isinstance(told, dict)
        return told


def write_configs(folder: Path, pipe: Any) -> Path:
    """What diffusers needs beside a single file of this model: the configs and the tokenizer of a diffusers folder.

    In the form in which the published ones are, because its reader of single files understands no other. The scheduler
    is Euler, whose steps call the network once, as ours do; the published PNDM calls it once more.
    """
    from bottega.diffusion.clip_tokenizer import END, START, builtin_tokenizer

    unet, text = pipe.unet.config, pipe.text_encoders[0].model.config
    copied = ("in_channels", "out_channels", "block_out_channels", "down_block_types", "up_block_types")
    files: dict[str, dict[str, Any]] = {
        "unet/config.json": {
            "_class_name": "UNet2DConditionModel",
            **{name: unet[name] for name in (*copied, "cross_attention_dim")},
            "layers_per_block": layers if isinstance(layers := unet.layers_per_block, int) else layers[0],
            "attention_head_dim": heads if isinstance(heads := unet.attention_head_dim, int) else heads[0],
            "sample_size": 64,
        },
        "vae/config.json": dict(pipe.vae.config),
        "text_encoder/config.json": text.to_dict(),
        "tokenizer/tokenizer_config.json": {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": text.max_position_embeddings,
            "bos_token": START,
            **dict.fromkeys(("eos_token", "pad_token", "unk_token"), END),
        },
        "scheduler/scheduler_config.json": {
            "_class_name": "EulerDiscreteScheduler",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "steps_offset": 1,
        },
        "model_index.json": {
            "_class_name": "StableDiffusionPipeline",
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "scheduler": ["diffusers", "EulerDiscreteScheduler"],
            **{name: [None, None] for name in ("safety_checker", "feature_extractor", "image_encoder")},
            "requires_safety_checker": False,
        },
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, default=str), encoding="utf-8")
    builtin_tokenizer().save(folder / "tokenizer")
    return folder
