"""/controlnet: what clients of A1111's ControlNet extension ask, answered by a server that has no ControlNet yet."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, HTTPException

from bottega.api.a1111 import lists
from bottega.api.a1111.making import Maker, Reader

router = APIRouter(prefix="/controlnet", tags=["a1111"])


@router.get("/version")
def version(caller: Reader) -> dict[str, int]:
    """The version of the API that is spoken."""
    return {"version": 2}


@router.get("/model_list")
def model_list(caller: Reader) -> dict[str, list[str]]:
    """The ControlNet models: none that can be used."""
    return {"model_list": []}


@router.get("/module_list")
def module_list(caller: Reader) -> dict[str, Any]:
    """The preprocessors: none."""
    return {"module_list": ["none"], "module_detail": {}}


@router.get("/control_types")
def control_types(caller: Reader) -> dict[str, Any]:
    """The kinds of control, with the models of each."""
    return {"control_types": dict(lists.CONTROL_TYPES)}


@router.get("/settings")
def settings(caller: Reader) -> dict[str, Any]:
    """How many units a request may have."""
    return dict(lists.CONTROL_SETTINGS)


@router.post("/detect")
def detect(told: Annotated[dict[str, Any], Body()], caller: Maker) -> dict[str, Any]:
    """What a preprocessor makes of pictures; `none` gives them back."""
    module = told.get("controlnet_module", "none")
    if module not in ("none", "None"):
        raise HTTPException(422, f"no preprocessor is called {module!r}")
    pictures = told.get("controlnet_input_images") or told.get("controlnet_images")
    if not isinstance(pictures, list) or not pictures or not all(isinstance(picture, str) for picture in pictures):
        raise HTTPException(422, "No image selected")
    return {"images": [picture.rpartition(",")[2] for picture in pictures], "info": "Success"}
