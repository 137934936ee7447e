"""A1111's API, as its clients speak it: /sdapi/v1, /internal and /controlnet, translated and nothing more."""

from __future__ import annotations

from fastapi import APIRouter

from bottega.api.a1111 import controlnet, internal, making, sdapi

router = APIRouter(tags=["a1111"])
for module in (making, sdapi, internal, controlnet):
    router.include_router(module.router)
