"""What OpenAI's clients ask for: the fields that mean something here; all others are ignored."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field


def _empty_is_none(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


Whole = Annotated[int | None, BeforeValidator(_empty_is_none)]
Number = Annotated[float | None, BeforeValidator(_empty_is_none)]
Switch = Annotated[bool | None, BeforeValidator(_empty_is_none)]
Text = Annotated[str | None, BeforeValidator(_empty_is_none)]


class Making(BaseModel):
    """What a client says of the pictures that it wants. None is what the request leaves open.

    What stands behind `stream` and `partial_images` are fields that OpenAI has not, under the names that other servers
    gave them.
    """

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    model: Text = None
    prompt: Text = None
    n: Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(_empty_is_none)] = None
    size: Text = None
    response_format: Annotated[Literal["url", "b64_json"] | None, BeforeValidator(_empty_is_none)] = None
    output_format: Annotated[Literal["png", "jpeg", "webp"] | None, BeforeValidator(_empty_is_none)] = None
    output_compression: Annotated[Annotated[int, Field(ge=0, le=100)] | None, BeforeValidator(_empty_is_none)] = None
    quality: Text = None
    background: Text = None
    stream: Switch = None
    partial_images: Annotated[Annotated[int, Field(ge=0, le=3)] | None, BeforeValidator(_empty_is_none)] = None
    negative_prompt: Text = None
    steps: Annotated[Whole, Field(validation_alias=AliasChoices("steps", "num_inference_steps"))] = None
    cfg_scale: Annotated[Number, Field(validation_alias=AliasChoices("cfg_scale", "guidance_scale"))] = None
    seed: Whole = None
    sampler: Annotated[Text, Field(validation_alias=AliasChoices("sampler", "sampler_name"))] = None
    scheduler: Annotated[Text, Field(validation_alias=AliasChoices("scheduler", "schedule"))] = None
    strength: Annotated[Number, Field(validation_alias=AliasChoices("strength", "denoising_strength"))] = None
    loras: list[Any] | None = None
