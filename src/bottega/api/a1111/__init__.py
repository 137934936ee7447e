"""A1111's API, as its clients speak it: /sdapi/v1, /internal and /controlnet, translated and nothing more."""

from __future__ import annotations

from bottega.api.a1111 import controlnet, internal, making, sdapi

routes = [route for each in (making, sdapi, internal, controlnet) for route in each.router.routes]
