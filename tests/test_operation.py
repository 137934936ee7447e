"""/health and /metrics answer whatever happens; pictures are fetched where that is allowed, and from nowhere else."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from native import Api, studio
from PIL import Image
from site_server import Served, Site, answer, running, stall

from bottega.api import pictures
from bottega.api.pictures import fetched, is_address
from bottega.errors import InvalidRecipe
from bottega.settings import Settings


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with studio(tmp_path / "home") as api:
        yield api


def test_health_does_not_wait_for_a_disk_or_a_queue_that_hangs(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    assert api.served("GET", "/health").json == {"status": "ok", "reasons": [], "version": api.get("/me")["version"]}
    hangs = threading.Event()
    monkeypatch.setattr("bottega.api.operation.FRESH", 0.0)
    monkeypatch.setattr(api.shop.queue, "counts", lambda owner=None: hangs.wait(30))
    took = []
    for _ in range(20):
        began = time.monotonic()
        told = api.served("GET", "/health").json
        took.append(time.monotonic() - began)
        assert told["status"] == "degraded" and "does not answer" in told["reasons"][0]
    hangs.set()
    # The middle: on a machine that others keep busy the end says more of them.
    assert sorted(took)[10] < 0.2
    assert api.served("GET", "/metrics", as_owner=True).status == 200


def test_health_tells_what_is_wrong(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bottega.api.operation.FRESH", 0.0)
    monkeypatch.setattr("bottega.api.operation.READY_WITHIN", 0.0)
    monkeypatch.setattr("bottega.api.operation.LOW_DISK", 1 << 60)
    api.served("GET", "/health")
    reasons = api.served("GET", "/health").json["reasons"]
    assert any("the disk of the outputs has only" in reason for reason in reasons)
    assert any("does not start" in reason for reason in reasons)
    assert not any("library" in reason or str(api.shop.settings.home.name) + "/" in reason for reason in reasons)


def test_health_tells_that_somebody_has_found_the_queue_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bottega.api.operation.FRESH", 0.0)
    with studio(tmp_path / "home") as api:
        api.post("/jobs", {"recipe": {"prompt": "a"}}, 202)
    with (tmp_path / "home" / "queue.sqlite").open("r+b") as file:  # where the jobs are
        file.seek(4096)
        file.write(bytes(4096))
    with studio(tmp_path / "home") as api:
        status, error = api.refused("GET", "/jobs")
        assert (status, error["class"]) == (503, "QueueError") and "malformed" in error["what"]
        assert api.served("GET", "/health").json["reasons"] == ["the file of the queue is damaged"]


def test_metrics_tell_of_devices_and_requests(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {"lane": 'cu"da:0', "state": "idle", "memory": 1000, "free": 400, "models": [{"bytes": 300}]}
    monkeypatch.setattr(api.shop.foreman, "devices", lambda: [told])
    api.served("GET", "/health")
    text = api.served("GET", "/metrics", as_owner=True).body.decode()
    for line in (
        'bottega_worker_state{lane="cu\\"da:0",state="idle"} 1',
        'bottega_device_memory_bytes{lane="cu\\"da:0"} 1000',
        'bottega_device_memory_free_bytes{lane="cu\\"da:0"} 400',
        'bottega_device_models_bytes{lane="cu\\"da:0"} 300',
        'bottega_requests_total{door="health",status="200"} 1',
        'bottega_request_seconds_bucket{door="health",le="+Inf"} 1',
        "bottega_healthy 1",
    ):
        assert line in text.splitlines()


# --- pictures by their address ---------------------------------------------------------------------------------------


@pytest.fixture
def site() -> Iterator[Site]:
    with running() as site:
        yield site


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path, fetch_pictures=True, allow_loopback=True)


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(buffer, "PNG")
    return buffer.getvalue()


def test_a_picture_is_fetched_where_that_is_allowed(site: Site, settings: Settings, tmp_path: Path) -> None:
    site.files["/a.png"] = Served(png())
    url = f"{site.url}/a.png"
    assert is_address(url) and not is_address("iVBORw0KGgo")
    assert fetched(f" {url}", "init_images", settings) == png()
    with pytest.raises(InvalidRecipe, match="fetch_pictures"):
        fetched(url, "init_images", Settings(tmp_path, allow_loopback=True))
    with pytest.raises(InvalidRecipe, match="could not be fetched"):
        fetched(url, "init_images", Settings(tmp_path, fetch_pictures=True))
    assert len(site.requests) == 1


def test_why_a_picture_could_not_be_fetched_is_not_told(
    site: Site, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "MOST_BYTES", 100)
    site.files["/large"] = Served(bytes(101))
    site.files["/denied"] = Served(b"secret", faults=[answer(403, b"secret of the intranet")])
    site.files["/slow"] = Served(bytes(50), faults=[stall(10)])
    settings = replace(settings, stall_seconds=0.3)
    said = set()
    for path in ("/large", "/denied", "/slow", "/none"):
        with pytest.raises(InvalidRecipe) as refused:
            fetched(f"{site.url}{path}", "mask", settings)
        said.add(str(refused.value))
    assert len(said) == 1 and "secret" not in said.pop()


def test_only_some_pictures_are_fetched_at_once(
    site: Site, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "_fetching", threading.BoundedSemaphore(1))
    site.files["/a.png"] = Served(png())
    with pictures._fetching, pytest.raises(InvalidRecipe, match="others are being fetched"):
        fetched(f"{site.url}/a.png", "mask", settings)
    assert fetched(f"{site.url}/a.png", "mask", settings) == png()
