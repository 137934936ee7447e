"""The native API as its clients have it: a real server on a home of its own, and requests to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from served import Answer, Served, serving

from bottega.api.access import Access
from bottega.api.app import create_app
from bottega.settings import Settings
from bottega.starters import know_starter
from bottega.version import __version__
from bottega.workshop import Workshop

# What a worker on a CPU tells of it: without a worker, recipes are resolved as on that one.
PARTS = ("unet", "text_encoder", "text_encoder_2", "vae")
FACTS = {
    "device": "cpu",
    "name": "a processor",
    "memory": 16 << 30,
    "free": 8 << 30,
    "automatic": "float32",
    "dtypes": {"float32": dict.fromkeys(PARTS, "float32")},
    "refused": {"float16": ["CPUs can't compute in float16 at a usable speed", "use auto"]},
    "versions": {},
    "app": f"bottega {__version__}",
    "others": [],
}


@dataclass
class Api:
    """A server, what it works with, and who asks it."""

    served: Served
    shop: Workshop
    app: FastAPI
    key: str = ""

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Ask as the owner, or as whose key it is."""
        headers.setdefault("authorization", f"Bearer {self.key or self.served.access.machine_key}")
        return self.served(method, f"/api{path}", body, **headers)

    def get(self, path: str) -> Any:
        """What a GET answers, which must be granted."""
        answer = self("GET", path)
        assert answer.status == 200, answer.body
        return answer.json

    def post(self, path: str, body: Any = None, status: int = 200, **headers: str) -> Any:
        """What a POST answers, which must have this status."""
        answer = self("POST", path, body, **headers)
        assert answer.status == status, answer.body
        return answer.json if answer.body else None

    def refused(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
        """The status and the error of a request that must not be granted."""
        answer = self(method, path, body, **headers)
        assert answer.status >= 400, answer.body
        return answer.status, answer.json["error"]

    def user(self, name: str, *scopes: str) -> Api:
        """The same server, asked by a new user."""
        key = self.served.accounts.add(name, scopes or ("read", "generate"))
        return Api(self.served, self.shop, self.app, key)


@contextmanager
def studio(home: Path, *, working: bool = False) -> Iterator[Api]:
    """A server whose starter model is on record; where nothing is `working` jobs stay where they are put."""
    home.mkdir(parents=True, exist_ok=True)
    settings = Settings(home, outputs=home / "outputs")
    if not working:
        (home / "devices.json").write_text(json.dumps({"for": f"{__version__} {settings.device}", "facts": FACTS}))
    shop = Workshop(settings)
    if working:
        shop.start()
    else:
        know_starter(shop.catalog)
    apps: list[FastAPI] = []
    try:

        def make(access: Access) -> FastAPI:
            apps.append(create_app(shop, access))
            return apps[0]

        with serving(home, make, requests_per_second=10_000) as served:
            yield Api(served, shop, apps[0])
    finally:
        for app in apps:
            app.state.intake.close()
        if working:
            shop.stop()
        else:
            shop.queue.close()
            shop.gallery.close()
