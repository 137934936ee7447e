"""OpenAI's API, as far as it is about pictures: the same paths with /v1 and without, translated and nothing more."""

from __future__ import annotations

from fastapi import APIRouter

from bottega.api.openai import absent, images, models

_router = APIRouter(tags=["openai"])
for _prefix in ("/v1", ""):
    for _module in (models, images, absent):
        _router.include_router(_module.router, prefix=_prefix, include_in_schema=bool(_prefix))
routes = _router.routes
