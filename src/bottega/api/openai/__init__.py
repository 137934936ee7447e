"""OpenAI's API, as far as it is about pictures: the same paths with /v1 and without, translated and nothing more."""

from __future__ import annotations

from fastapi import APIRouter

from bottega.api.openai import absent, images, models

router = APIRouter(tags=["openai"])
for prefix in ("/v1", ""):
    for module in (models, images, absent):
        router.include_router(module.router, prefix=prefix, include_in_schema=bool(prefix))
