"""What A1111's clients are answered: pictures as base64, the `info` text, and how far a job is."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from bottega.api.a1111.asked import ImageToImage, Making
from bottega.diffusion.names import find_schedule
from bottega.engine.a1111 import NO_HASHES, fields_of, text_of
from bottega.engine.uses import with_tags
from bottega.gallery import Output
from bottega.jobs.job import Job
from bottega.recipe import Recipe, read_recipe
from bottega.version import __version__

BEGUN = 0.01  # of a job; 0 means to clients that nothing is being done
_SAMPLING = 0.98  # the share of a picture's time that its steps take, by this measure


def made(
    asked: Making,
    recipe: Recipe,
    outputs: Sequence[Output],
    warnings: Sequence[str],
    created: float,
    hashes: Mapping[str, str],
) -> dict[str, Any]:
    """The answer to txt2img and img2img: pictures, what was asked, and `info`, which is JSON within JSON.

    `hashes` are those by which A1111 knows adapters, by SHA-256.
    """
    pictures = [] if asked.send_images is False else [_base64(output.content()) for output in outputs]
    told = asked.model_dump()
    if isinstance(asked, ImageToImage) and not asked.include_init_images:
        told |= {"init_images": None, "mask": None}
    return {
        "images": pictures,
        "parameters": told,
        "info": json.dumps(info(recipe, outputs, asked.batch_size or 1, warnings, created, hashes)),
    }


def info(
    recipe: Recipe,
    outputs: Sequence[Output],
    batch_size: int,
    warnings: Sequence[str],
    created: float,
    hashes: Mapping[str, str] = NO_HASHES,
) -> dict[str, Any]:
    """How the outputs of a resolved recipe were made, in A1111's words; `warnings` are ours.

    `batch_size` is the one that was asked for: how many pictures there are is told by the lists.
    """
    assert recipe.model is not None and recipe.model.sha256 is not None and recipe.size is not None
    singles = [read_recipe(output.recipe) for output in outputs]
    first = singles[0] if singles else recipe.single(0)
    seeds = [single.sampling.seed for single in singles]
    subseeds = [single.knobs.get("variation_seed", -1) for single in singles]
    prompt = with_tags(recipe)
    vae = next((use.ref for use in recipe.adapters if use.kind == "vae" and use.ref.sha256), None)
    schedule = find_schedule(recipe.sampling.schedule or "Automatic")
    return {
        "prompt": prompt,
        "all_prompts": [prompt] * len(singles),
        "negative_prompt": recipe.negative,
        "all_negative_prompts": [recipe.negative] * len(singles),
        "seed": first.sampling.seed,
        "all_seeds": seeds,
        "subseed": first.knobs.get("variation_seed", -1),
        "all_subseeds": subseeds,
        "subseed_strength": recipe.knobs.get("variation_strength", 0.0),
        "width": recipe.size.width,
        "height": recipe.size.height,
        "sampler_name": recipe.sampling.sampler,
        "scheduler": schedule.name if schedule else recipe.sampling.schedule,
        "cfg_scale": recipe.sampling.guidance,
        "steps": recipe.sampling.steps,
        "batch_size": batch_size,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": recipe.model.name,
        "sd_model_hash": recipe.model.sha256[:10],
        "sd_vae_name": vae.name if vae else None,
        "sd_vae_hash": str(vae.sha256)[:10] if vae else None,
        "seed_resize_from_w": recipe.knobs.get("seed_resize_width") or -1,
        "seed_resize_from_h": recipe.knobs.get("seed_resize_height") or -1,
        "denoising_strength": recipe.sampling.strength,
        "extra_generation_params": _extra(first, recipe.model.sha256, hashes),
        "index_of_first_image": 0,
        "infotexts": [text_of(single, hashes) for single in singles],
        "styles": [],
        "job_timestamp": datetime.fromtimestamp(created).strftime("%Y%m%d%H%M%S"),
        "clip_skip": recipe.knobs.get("clip_skip", 1),
        "is_using_inpainting_conditioning": recipe.task == "inpaint",
        "version": f"Bottega {__version__}",
        "warnings": list(warnings),
    }


# What `info` says in a field of its own.
_SAID = (
    "Steps", "Sampler", "CFG scale", "Seed", "Size", "Model hash", "Model", "Variation seed", "Variation seed strength",
    "Seed resize from", "Denoising strength", "Clip skip", "Version", "VAE", "VAE hash",
)  # fmt: skip


def _extra(single: Recipe, sha256: str, hashes: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in fields_of(single, sha256, hashes).items() if name not in _SAID}


@dataclass(frozen=True)
class Going:
    """A job that a client waits for, of which so many pictures are `made`.

    `before` are those that the client asked for together with these, and that are made or given up; `skipped` says that
    the present one is given up.
    """

    job: Job
    made: int
    before: int = 0
    skipped: bool = False

    @property
    def total(self) -> int:
        """How many pictures the client asked for."""
        return self.before + int(dict(self.job.request.get("recipe") or {}).get("count") or 1)

    @property
    def done(self) -> int:
        """How many of them are made or given up."""
        return min(self.before + self.made + self.skipped, self.total)


def progress(going: Going | None, now: float, preview: bytes | None) -> dict[str, Any]:
    """How far a job is, in A1111's words; without one everything is 0.

    `now` is in unix seconds, `preview` a PNG of what is being made.
    """
    if going is None:
        return {
            "progress": 0.0,
            "eta_relative": 0.0,
            "state": _state(),
            "current_image": None,
            "textinfo": None,
            "current_task": None,
        }
    return {
        "progress": fraction(going),
        "eta_relative": seconds_left(going, now),
        "state": _state(going),
        "current_image": _base64(preview) if preview else None,
        "textinfo": "Waiting..." if going.job.started is None else None,
        "current_task": going.job.id,
    }


def fraction(going: Going) -> float:
    """How much of what was asked for is done, from BEGUN to 1; every picture counts alike, and in each its steps."""
    is_at_one = going.done < going.total and not going.skipped
    share = _share(going.job.progress or {}) if is_at_one else 0.0
    return max(BEGUN, min(1.0, (going.done + share) / going.total))


def seconds_left(going: Going, now: float) -> float:
    """How long a job may still take, if it goes on as it went; 0 while nobody can tell."""
    job = going.job
    if job.eta is not None:
        return job.eta
    done = fraction(replace(going, before=0))
    return max(0.0, now - job.started) * (1 - done) / done if job.started and done > BEGUN else 0.0


def _share(told: Mapping[str, Any]) -> float:
    """How much of the picture that a job is at is done."""
    phase, total = told.get("phase"), told.get("total") or 0
    if phase == "sample" and total:
        return _SAMPLING * float(told.get("done") or 0) / float(total)
    return _SAMPLING if phase in ("decode", "save") else 0.0


def _state(going: Going | None = None) -> dict[str, Any]:
    job = going.job if going else None
    is_stopping = bool(going and going.job.cancelling and not going.skipped)
    told = (job.progress if job else None) or {}
    sampling = told.get("phase") == "sample"
    begun = datetime.fromtimestamp(job.started or job.created) if job else datetime.min
    return {
        "skipped": bool(going and going.skipped),
        "interrupted": is_stopping,
        "stopping_generation": is_stopping,
        "job": f"Batch {min(going.done + 1, going.total)} out of {going.total}" if going else "",
        "job_count": going.total if going else 0,
        "job_timestamp": begun.strftime("%Y%m%d%H%M%S") if job else "0",
        "job_no": going.done if going else 0,
        "sampling_step": int(told.get("done") or 0) if sampling else 0,
        "sampling_steps": int(told.get("total") or 0) if sampling else 0,
    }


def _base64(content: bytes) -> str:
    """Raw base64: a client decodes it as it is, and stumbles over a `data:` in front of it."""
    return base64.b64encode(content).decode("ascii")
