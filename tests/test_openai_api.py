"""What OpenAI's clients depend on beside their happy paths: envelopes, retries, forms, addresses of pictures."""

from __future__ import annotations

import base64
import io
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from door_server import PROMPT, Server, serving, until
from PIL import Image

from bottega.api.access.accounts import Accounts
from bottega.api.errors import response
from bottega.api.intake import Intake
from bottega.api.models import ids
from bottega.api.openai.asked import Making
from bottega.api.openai.door import Door
from bottega.api.openai.translate import draft
from bottega.api.waiting import Waiting, failure
from bottega.errors import FileError, InvalidRecipe
from bottega.families import family
from bottega.formats import media
from bottega.jobs.job import Job
from bottega.library import open_catalog
from bottega.library.disk import Stamp
from bottega.library.entry import Entry
from bottega.library.find import on_record
from bottega.library.scan import scan
from bottega.recipe import Media, Recipe, Ref
from bottega.recognisers import all_recognisers
from bottega.settings import STARTER_SHELF, Settings
from bottega.workshop import Workshop

QUICK = {"prompt": PROMPT, "steps": 3, "seed": 7, "size": "128x128"}


def named(kind: str, name: str) -> Ref:
    return Ref(name=name)


# --- translation


def test_a_request_that_says_nothing_leaves_everything_to_the_model() -> None:
    assert draft(Making(prompt="a house"), named) == Recipe(prompt="a house")
    asked = {"prompt": "a house", "size": "auto", "quality": "hd", "style": "vivid", "user": "me", "moderation": "low"}
    assert draft(Making.model_validate(asked), named) == Recipe(prompt="a house")


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_field_that_is_null_or_empty_is_not_asked_for(nothing: Any) -> None:
    told = {**dict.fromkeys(Making.model_fields, nothing), "loras": None, "prompt": "a house"}
    assert draft(Making.model_validate(told), named) == Recipe(prompt="a house")


def test_fields_that_other_servers_gave_names_to() -> None:
    told = {"prompt": "a house", "guidance_scale": "4.5", "num_inference_steps": 9, "sampler_name": "Euler", "seed": -1}
    sampling = draft(Making.model_validate(told), named).sampling
    assert (sampling.guidance, sampling.steps, sampling.sampler, sampling.seed) == (4.5, 9, "Euler", None)


@pytest.mark.parametrize(
    "told",
    ["ink:0.5", {"name": "ink", "weight": 0.5}, {"path": "ink", "multiplier": 0.5}, {"name": "ink", "scale": 0.5}],
)
def test_loras_as_servers_take_them(told: Any) -> None:
    (use,) = draft(Making(prompt="a house", loras=[told]), named).adapters
    assert (use.kind, use.ref.name, use.weight) == ("lora", "ink", 0.5)


@pytest.mark.parametrize("weight", [10**401, "9" * 401, "nan", "-inf", None, "heavy"])
def test_a_weight_that_is_no_finite_number_is_refused(weight: Any) -> None:
    with pytest.raises(InvalidRecipe, match="loras"):
        draft(Making(prompt="a house", loras=[{"name": "ink", "weight": weight}]), named)


def test_pictures_decide_the_task() -> None:
    init, mask = Media(role="init", sha256="0" * 64), Media(role="mask", sha256="1" * 64)
    tasks = [draft(Making(prompt="a house", strength=0.5), named, given).task for given in ((), (init,), (init, mask))]
    assert tasks == ["text-to-image", "image-to-image", "inpaint"]


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(InvalidRecipe) as refused:
        draft(Making(prompt=" ", size="big", background="transparent", loras=[{}]), named)
    assert {problem.field for problem in refused.value.problems} == {"prompt", "size", "background", "loras"}


def test_a_model_that_is_gone_is_not_replaced_by_another(tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    file = shelf / "deep" / "willgo.safetensors"
    file.parent.mkdir(parents=True)
    shutil.copy(STARTER_SHELF / "starter-image.safetensors", file)
    shop = Workshop(Settings(tmp_path / "home", outputs=tmp_path / "outputs"))
    try:
        door = Door(shop, Intake(shop), Waiting(shop))
        scan(shop.catalog, [shelf], all_recognisers())
        assert door.find("checkpoint", "willgo") == Ref(name=str(file))
        file.unlink()
        scan(shop.catalog, [shelf], all_recognisers())
        for name in ("willgo", "WillGo.safetensors", "deep/willgo.safetensors"):
            with pytest.raises(FileError, match="was here at an earlier scan, and is gone"):
                door.find("checkpoint", name)
        assert door.find("checkpoint", "go.safetensors") is None
    finally:
        shop.queue.close()
        shop.gallery.close()


def test_models_that_share_a_name_are_told_apart_by_their_places(tmp_path: Path) -> None:
    shelf = Path("/shelf")
    names = ("a/same.safetensors", "b/same.safetensors", "other.safetensors", "same.safetensors", "shown.safetensors")
    entries = [Entry(shelf / name, shelf, Stamp(1, 2, 3)) for name in names]
    with open_catalog(tmp_path / "catalog.db") as catalog:
        catalog.put([*entries, Entry(shelf / "c/shown.safetensors", shelf, Stamp(1, 2, 3))])
        told = list(ids(catalog, entries))
        assert told == [*names[:2], "other", "shelf/same.safetensors", "shelf/shown.safetensors"]
        assert [on_record(catalog, name).path for name in told] == [entry.path for entry in entries]


@pytest.mark.parametrize(("name", "status"), [("OutOfMemory", 507), ("BrokenPicture", 500), ("WorkerCrashed", 500)])
def test_what_failed_in_a_worker_is_not_to_be_tried_again(name: str, status: int) -> None:
    error = {"error": name, "what": "it went wrong", "remedy": "make it smaller"}
    answer = response("/v1/images/generations", failure(job_with(error)), "id")
    assert (answer.status_code, answer.headers["x-should-retry"]) == (status, "false")
    told = json.loads(bytes(answer.body))["error"]
    assert (told["message"], told["code"]) == ("it went wrong; make it smaller", name)


def job_with(error: dict[str, str]) -> Job:
    return Job(
        id="1", kind="make", lane="make", owner="ann", state="failed", request={}, digest="", title="", priority=0,
        position=0.0, attempt=1, after=(), reuse=False, key=None, created=0.0, started=0.0, ended=1.0, progress=None,
        error=error, result=None,
    )  # fmt: skip


# --- a server

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("openai-api") / "home") as running:
        yield running


@pytest.fixture
def api(server: Server) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@slow
def test_a_retry_gets_the_picture_of_the_first_try(api: httpx.Client, server: Server) -> None:
    body = {**QUICK, "prompt": "a white boat", "response_format": "url", "seed": None}
    first = api.post("/v1/images/generations", json=body).json()["data"][0]["url"]
    again = api.post("/v1/images/generations", json=body, headers={"x-stainless-retry-count": "1"})
    assert again.json()["data"][0]["url"] == first
    anew = api.post("/v1/images/generations", json=body, headers={"x-stainless-retry-count": "0"})
    assert anew.json()["data"][0]["url"] != first


@slow
def test_a_retry_takes_up_the_job_that_its_lost_connection_left(api: httpx.Client, server: Server) -> None:
    body = {**QUICK, "prompt": "a yellow tent", "steps": 150, "response_format": "url"}
    with pytest.raises(httpx.ReadTimeout), httpx.Client(base_url=server.url, timeout=1.0) as impatient:
        impatient.post("/v1/images/generations", json=body)
    answer = api.post("/v1/images/generations", json=body, headers={"x-stainless-retry-count": "1"})
    assert answer.status_code == 200
    # One that was cancelled for want of a client would have answered with an error.
    assert answer.headers["X-Job-Id"] in answer.json()["data"][0]["url"]


@slow
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404), ("POST", "/v1/chat/completions", 404), ("POST", "/v1/audio/speech", 404),
        ("POST", "/v1/embeddings", 404), ("POST", "/v1/videos", 404), ("GET", "/v1/models/nothing", 404),
        ("POST", "/v1/models", 405), ("POST", "/v1/images/edits", 400), ("GET", "/v1/images/files/nothing", 404),
        ("POST", "/chat/completions", 404), ("GET", "/models/nothing", 404), ("GET", "/images/nothing", 404),
    ],
)  # fmt: skip
def test_every_error_has_openais_envelope(api: httpx.Client, method: str, path: str, status: int) -> None:
    answer = api.request(method, path, json={} if method == "POST" else None)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@slow
def test_a_body_that_is_no_json_or_of_wrong_types_is_told_of(api: httpx.Client) -> None:
    answer = api.post("/v1/images/generations", content=b"{", headers={"Content-Type": "application/json"})
    assert answer.status_code == 400 and "JSON" in answer.json()["error"]["message"]
    answer = api.post("/v1/images/generations", json={"prompt": 5, "n": "many"})
    assert answer.status_code == 400 and answer.json()["error"]["param"] in ("prompt", "n")


@slow
def test_lists_of_sound_and_videos_are_empty_and_not_missing(api: httpx.Client) -> None:
    assert api.get("/v1/audio/voices").json() == {"voices": []}
    assert api.get("/v1/audio/models").json() == {"models": []}
    assert api.get("/v1/videos").json()["data"] == []


def png(mode: str, colour: Any = 0) -> tuple[str, bytes, str]:
    buffer = io.BytesIO()
    Image.new(mode, (64, 64), colour).save(buffer, "PNG")
    return "picture.png", buffer.getvalue(), "image/png"


@slow
@pytest.mark.parametrize(
    ("files", "param"),
    [
        ([("mask", png("RGBA"))], "image"),
        ([("image", ("a.svg", b"<svg/>", "image/svg+xml"))], "image"),
        ([("image[]", png("RGB")), ("image[]", png("RGB"))], "image"),
        ([("image", png("RGB")), ("mask", png("RGB"))], "mask"),
        ([("image", png("RGB")), ("mask", png("RGBA", (0, 0, 0, 255)))], "mask"),
    ],
)
def test_forms_whose_pictures_cannot_be_used(api: httpx.Client, files: Any, param: str) -> None:
    # Without it a page of another site could send a form.
    headers = {"Authorization": "Bearer none"}
    answer = api.post("/v1/images/edits", files=files, data={"prompt": PROMPT}, headers=headers)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == param


@slow
def test_a_form_that_a_page_of_another_site_could_send_is_told_what_it_lacks(api: httpx.Client) -> None:
    answer = api.post("/v1/images/edits", files=[("image", png("RGB"))], data={"prompt": PROMPT})
    assert answer.status_code == 415 and "send Authorization" in answer.json()["error"]["message"]


@slow
@pytest.mark.parametrize("name", ["soraMix_v1", "gpt4all", "dall-e mine (pruned)"])
def test_a_model_on_the_shelf_is_meant_whatever_it_is_called(api: httpx.Client, server: Server, name: str) -> None:
    model = server.home / "models" / f"{name}.safetensors"
    model.parent.mkdir(exist_ok=True)
    family("sd1").toy(model)
    try:
        api.post("/sdapi/v1/refresh-checkpoints")
        assert api.get(f"/v1/models/{quote(name)}").json()["id"] == name
        body = {**QUICK, "steps": 1, "model": name, "response_format": "b64_json"}
        (told,) = api.post("/v1/images/generations", json=body).json()["data"]
        (server.home / "made.png").write_bytes(base64.b64decode(told["b64_json"]))
        assert json.loads(media.read(server.home / "made.png").recipe or "")["model"]["name"] == name
    finally:
        model.unlink()
        api.post("/sdapi/v1/refresh-checkpoints")


@slow
def test_a_job_that_somebody_stops_ends_the_wait(api: httpx.Client, server: Server) -> None:
    answers: list[httpx.Response] = []

    def ask() -> None:
        with server.client() as own:
            answers.append(own.post("/v1/images/generations", json={**QUICK, "steps": 500}))

    thread = threading.Thread(target=ask)
    thread.start()
    (job,) = until(server.running)
    server.cancel(job)
    thread.join()
    (answer,) = answers
    assert answer.status_code >= 400 and "stopped" in answer.json()["error"]["message"]
    assert answer.headers["x-should-retry"] == "false"


@slow
def test_a_stream_whose_client_goes_away_ends_its_job(api: httpx.Client, server: Server) -> None:
    body = {**QUICK, "steps": 500, "stream": True, "partial_images": 1}
    with server.client() as own, own.stream("POST", "/v1/images/generations", json=body) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        until(server.running)
    assert server.open_jobs() == 1  # the client may come back
    until(lambda: server.open_jobs() == 0)


@slow
@pytest.mark.parametrize("stream", [False, True])
def test_who_is_removed_while_a_request_waits_is_not_answered_with_pictures(server: Server, stream: bool) -> None:
    told: list[httpx.Response] = []
    with server.owner() as owner, server.client() as own:
        name = "listener" if stream else "leaver"
        key = owner.post("/api/users", json={"name": name}).raise_for_status().json()["key"]
        # A job that waits sends nothing at which its stream could end.
        owner.post("/api/queue/pause").raise_for_status()

        def ask() -> None:
            headers = {"Authorization": f"Bearer {key}"}
            told.append(own.post("/v1/images/generations", json={**QUICK, "stream": stream}, headers=headers))

        try:
            asking = threading.Thread(target=ask)
            asking.start()
            until(server.open_jobs)
            owner.delete(f"/api/users/{name}").raise_for_status()
            asking.join(60)
            assert not asking.is_alive()
            until(lambda: not server.open_jobs())
        finally:
            owner.post("/api/queue/resume").raise_for_status()
    [answer] = told
    assert (answer.status_code, answer.text) == (200, "") if stream else answer.status_code == 401


@slow
def test_a_failure_in_the_middle_of_a_stream_is_one_event(api: httpx.Client, server: Server) -> None:
    body = {**QUICK, "steps": 500, "stream": True, "partial_images": 1}
    with api.stream("POST", "/v1/images/generations", json=body) as answer:
        (job,) = until(server.running)
        server.cancel(job)
        lines = [line for line in answer.iter_lines() if line.startswith("data:")]
    assert '"error"' in lines[-1] and "stopped" in lines[-1]


@slow
def test_pictures_of_others_are_not_given_out(tmp_path: Any) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with closing(Accounts(Settings(home).accounts)) as accounts:
        keys = {name: accounts.add(name) for name in ("ann", "ben")}
    with serving(home) as server:
        ann, ben = (server.client(headers={"Authorization": f"Bearer {keys[name]}"}) for name in ("ann", "ben"))
        with ann, ben, server.client() as nobody:
            asked = {**QUICK, "response_format": "url"}
            url = ann.post("/v1/images/generations", json=asked).json()["data"][0]["url"]
            assert ann.get(url).headers["Content-Type"] == "image/png"
            assert ben.get(url).status_code == 404
            assert nobody.get(url).status_code == 401
            assert set(nobody.get("/v1/models").json()["error"]) == {"message", "type", "param", "code"}
