"""What A1111's clients ask for: the fields of their requests that mean something here; all others are ignored."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _empty_is_none(value: Any) -> Any:
    return None if value == "" else value


Whole = Annotated[int | None, BeforeValidator(_empty_is_none)]
Number = Annotated[float | None, BeforeValidator(_empty_is_none)]
Text = str | None


class Making(BaseModel):
    """What txt2img and img2img have in common. None is what the request leaves open."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, coerce_numbers_to_str=True)

    prompt: Text = ""
    negative_prompt: Text = ""
    styles: list[str] | None = None
    seed: Whole = None
    subseed: Whole = None
    subseed_strength: Number = None
    seed_resize_from_h: Whole = None
    seed_resize_from_w: Whole = None
    sampler_name: Text = None
    sampler_index: Text = None
    scheduler: Text = None
    batch_size: Whole = None
    n_iter: Whole = None
    steps: Whole = None
    cfg_scale: Number = None
    width: Whole = None
    height: Whole = None
    restore_faces: bool | None = None
    tiling: bool | None = None
    denoising_strength: Number = None
    eta: Number = None
    s_min_uncond: Number = None
    s_churn: Number = None
    s_tmax: Number = None
    s_tmin: Number = None
    s_noise: Number = None
    refiner_checkpoint: Text = None
    override_settings: dict[str, Any] | None = None
    override_settings_restore_afterwards: bool | None = None
    script_name: Text = None
    script_args: list[Any] | None = None
    alwayson_scripts: dict[str, Any] | None = None
    disable_extra_networks: bool | None = None
    controlnet_units: list[Any] | None = None
    send_images: bool | None = None
    save_images: bool | None = None
    force_task_id: Text = None
    infotext: Text = None


class TextToImage(Making):
    """The body of txt2img."""

    enable_hr: bool | None = None
    hr_scale: Number = None
    hr_upscaler: Text = None
    hr_second_pass_steps: Whole = None
    hr_resize_x: Whole = None
    hr_resize_y: Whole = None


class ImageToImage(Making):
    """The body of img2img."""

    init_images: list[str] | None = None
    resize_mode: Whole = None
    image_cfg_scale: Number = None
    mask: Text = None
    mask_blur: Whole = None
    mask_blur_x: Whole = None
    mask_blur_y: Whole = None
    inpainting_fill: Whole = None
    inpaint_full_res: bool | None = None
    inpaint_full_res_padding: Whole = None
    inpainting_mask_invert: Whole = None
    initial_noise_multiplier: Number = None
    include_init_images: bool | None = None


class PngInfo(BaseModel):
    """The body of png-info."""

    image: str = ""


class Interrogate(BaseModel):
    """The body of interrogate."""

    model_config = ConfigDict(extra="ignore")
    image: str = ""
    model: str = "clip"


class ProgressOf(BaseModel):
    """The body of /internal/progress."""

    model_config = ConfigDict(extra="ignore")
    id_task: Text = None
    id_live_preview: Whole = Field(default=-1)
    live_preview: bool | None = True
