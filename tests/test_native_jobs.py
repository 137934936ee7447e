"""Jobs and their outputs over HTTP, with a real worker: made once, found again, seen by their owners alone."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from native import Api, studio
from PIL import Image
from starters import CHECKPOINTS

from bottega.api.access.accounts import Quota
from bottega.families import family
from bottega.formats import media, read_header
from bottega.library.scan import scan
from bottega.recognisers import all_recognisers

DRAFT = {"prompt": "a red house by the sea", "sampling": {"seed": 5, "steps": 2}}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with studio(tmp_path_factory.mktemp("home"), working=True) as opened:
        yield opened


@pytest.fixture(scope="module")
def made(api: Api) -> dict[str, Any]:
    """A job of two pictures that is done."""
    return finished(api, api.post("/jobs", {"recipe": {**DRAFT, "count": 2}}, 202)["id"])


@pytest.fixture
def paused(api: Api) -> Iterator[Api]:
    """The server while it begins no job."""
    api.post("/queue/pause")
    yield api
    for job in api.get("/jobs?state=waiting&state=paused")["items"]:
        api.post(f"/jobs/{job['id']}/cancel")
    api.post("/queue/resume")


def finished(api: Api, id: str) -> dict[str, Any]:
    over = api.shop.wait(id, 120)
    assert over.state == "done", over.error
    told: dict[str, Any] = api.get(f"/jobs/{id}")
    return told


def path_of(api: Api, id: str) -> Path:
    return api.shop.gallery.output(id).path


# --- making


def test_a_recipe_becomes_outputs_that_carry_it(api: Api, made: dict[str, Any]) -> None:
    assert (
        made["state"] == "done" and made["digest"] == api.post("/resolve", {"recipe": {**DRAFT, "count": 2}})["digest"]
    )
    assert [output["index"] for output in made["outputs"]] == [0, 1]
    for output in made["outputs"]:
        answer = api("GET", f"/outputs/{output['id']}/file")
        assert answer.headers["content-type"] == "image/png" and answer.headers["etag"] == f'"{output["sha256"]}"'
        assert "immutable" in answer.headers["cache-control"] and answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-disposition"].startswith("inline")
        assert hashlib.sha256(answer.body).hexdigest() == output["sha256"]
        assert answer.body == path_of(api, output["id"]).read_bytes()
        carried = media.read(path_of(api, output["id"])).recipe
        detail = api.get(f"/outputs/{output['id']}")
        assert detail["recipe"] == json.loads(carried or "")
        assert api.post("/resolve", {"recipe": detail["recipe"]})["digest"] == output["digest"]
        assert api("GET", f"/outputs/{output['id']}/file", if_none_match=answer.headers["etag"]).status == 304


def test_nothing_that_is_answered_tells_where_it_lies(api: Api, made: dict[str, Any]) -> None:
    home = str(api.shop.settings.home)
    output = made["outputs"][0]["id"]
    for path in (
        "/jobs", f"/jobs/{made['id']}", "/outputs", f"/outputs/{output}", f"/outputs/{output}/lineage", "/queue",
        f"/outputs/{output}/compare/{made['outputs'][1]['id']}", "/system", "/system/log", "/settings", "/folders",
        "/models", "/forms", "/me", "/users", "/openapi.json",
    ):  # fmt: skip
        text = json.dumps(api.get(path))
        assert home not in text and str(Path.home()) not in text and "site-packages" not in text, path
    events = api("GET", f"/jobs/{made['id']}/events").body.decode()
    assert "event: made" in events and home not in events and '"output":' in events


def test_the_starter_is_there_before_anything_was_made_or_scanned(tmp_path: Path) -> None:
    with studio(tmp_path / "home", working=True) as fresh:
        assert {model["name"] for model in fresh.get("/models?runs=true")["items"]} == CHECKPOINTS


def test_a_failure_tells_why_and_not_where(paused: Api) -> None:
    models = paused.shop.settings.models
    models.mkdir(exist_ok=True)
    path = family("sd1").toy(models / "toy.safetensors")
    scan(paused.shop.catalog, [models], all_recognisers())
    id = paused.post("/jobs", {"recipe": {**DRAFT, "model": {"name": "toy"}}}, 202)["id"]
    path.write_bytes(b"not a model any more")
    paused.post("/queue/resume")
    assert paused.shop.wait(id, 60).state == "failed"
    error = paused.get(f"/jobs/{id}")["error"]
    assert error["what"] and str(models.parent) not in json.dumps(error)
    events = paused("GET", f"/jobs/{id}/events").body.decode()
    assert "event: failed" in events and str(models.parent) not in events


def test_the_same_key_makes_one_job_and_another_request_is_refused(paused: Api) -> None:
    first = paused.post("/jobs", {"recipe": DRAFT}, 202, idempotency_key="a-key")
    again = paused.post("/jobs", {"recipe": DRAFT}, 202, idempotency_key="a-key")
    assert first["id"] == again["id"]
    for other in (
        {"recipe": {**DRAFT, "prompt": "x"}},
        {"recipe": DRAFT, "priority": -1},
        {"recipe": DRAFT, "reuse": True},
    ):
        status, error = paused.refused("POST", "/jobs", other, idempotency_key="a-key")
        assert (status, error["class"]) == (409, "KeyReused")
    for wrong in ("", "with space", "x" * 201):
        assert paused.refused("POST", "/jobs", {"recipe": DRAFT}, idempotency_key=wrong)[0] == 422


def test_what_is_sent_again_with_its_key_counts_once(paused: Api) -> None:
    key = paused.served.accounts.add("kate", ("read", "generate"), quota=Quota(per_minute=1, pixels_per_day=600_000))
    kate = Api(paused.served, paused.shop, paused.app, key)
    together = threading.Barrier(6)

    def ask(_: int) -> str:
        together.wait()
        return str(kate.post("/jobs", {"recipe": DRAFT}, 202, idempotency_key="once")["id"])

    with ThreadPoolExecutor(6) as threads:
        assert len(set(threads.map(ask, range(6)))) == 1
    assert kate.refused("POST", "/jobs", {"recipe": {**DRAFT, "prompt": "x"}}, idempotency_key="once")[0] == 409
    assert kate.refused("POST", "/jobs", {"recipe": DRAFT}, idempotency_key="twice")[0] == 429
    assert kate.get("/jobs")["total"] == 1


def test_a_full_queue_says_when_to_come_back(paused: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paused.shop.queue, "cap", 1)
    paused.post("/jobs", {"recipe": DRAFT}, 202)
    answer = paused("POST", "/jobs", {"recipe": DRAFT})
    assert answer.status == 429 and int(answer.headers["retry-after"]) > 0
    assert answer.json["error"]["class"] == "QueueFull"
    first = paused.get("/jobs")["items"][0]["id"]
    paused.post(f"/jobs/{first}/cancel")
    paused.post("/jobs", {"recipe": DRAFT}, 202)
    assert paused.refused("POST", f"/jobs/{first}/retry")[0] == 429


def test_jobs_are_held_moved_and_ended(paused: Api) -> None:
    first, second, third = (paused.post("/jobs", {"recipe": DRAFT}, 202)["id"] for _ in range(3))
    waiting = "/jobs?state=waiting&state=paused&state=running"
    assert paused.post(f"/jobs/{first}/pause")["state"] == "paused"
    assert paused.get("/queue") | {"done": 0, "failed": 0, "cancelled": 0} == {
        "paused": True, "waiting": 2, "held": 1, "running": 0, "done": 0, "failed": 0, "cancelled": 0,
    }  # fmt: skip
    assert paused.post(f"/jobs/{first}/resume")["state"] == "waiting"
    paused.post(f"/jobs/{third}/move", {"before": first})
    assert [job["id"] for job in paused.get(waiting)["items"]] == [third, first, second]
    paused.post(f"/jobs/{third}/move", {"before": None})
    assert paused("PATCH", f"/jobs/{second}", {"priority": 5}).json["priority"] == 5
    assert [job["id"] for job in paused.get(waiting)["items"]] == [second, first, third]
    assert paused.post(f"/jobs/{first}/cancel")["state"] == "cancelled"
    assert paused.refused("POST", f"/jobs/{first}/pause")[0] == 409
    assert paused.refused("POST", f"/jobs/{first}/move", {"before": second})[0] == 409
    assert paused.refused("POST", f"/jobs/{second}/retry")[0] == 409
    assert paused.post(f"/jobs/{first}/retry")["state"] == "waiting"
    page = paused.get(f"{waiting}&limit=2")
    assert [job["id"] for job in page["items"]] == [second, first] and page["total"] == 3
    assert [job["id"] for job in paused.get(f"{waiting}&limit=2&before={page['next']}")["items"]] == [third]


def test_a_job_starts_from_what_another_one_makes(api: Api, made: dict[str, Any]) -> None:
    first = api.post("/jobs", {"recipe": {**DRAFT, "sampling": {"seed": 99, "steps": 2}}}, 202)["id"]
    start = {"role": "init", "job": first, "index": 0}
    second = api.post("/jobs", {"recipe": {**DRAFT, "task": "image-to-image", "inputs": [start]}}, 202)
    assert second["after"] == [first]
    (output,) = finished(api, second["id"])["outputs"]
    (parent,) = api.get(f"/jobs/{first}")["outputs"]
    graph = api.get(f"/outputs/{output['id']}/lineage")
    assert {"source": parent["id"], "target": output["id"], "kind": "init"} in graph["edges"]
    by_output = {**DRAFT, "task": "image-to-image", "inputs": [{"role": "init", "output": parent["id"]}]}
    assert api.post("/resolve", {"recipe": by_output})["recipe"]["inputs"][0]["sha256"] == parent["sha256"]
    status, error = api.refused("POST", "/resolve", {"recipe": {**by_output, "inputs": [start]}})
    assert status == 422 and error["problems"][0]["field"] == "recipe.inputs.0.job"


def test_models_are_merged_with_a_lora(api: Api) -> None:
    finished(api, api.post("/models/scan", {}, 202)["id"])
    known = {each["name"]: each["id"] for each in api.get("/models")["items"]}
    loras = [{"id": known["neon"], "weight": 0.5}]
    asked = {"models": [known["starter-image"], known["chilly"]], "weight": 0.25, "loras": loras, "name": "mix"}
    done = finished(api, api.post("/models/merge", asked, 202)["id"])
    assert done["result"]["file"] == "mix.safetensors" and done["result"]["patched"]["neon"] > 0
    assert "mix" in [each["name"] for each in api.get("/models?q=mix")["items"]]
    (mix,) = api.shop.settings.models.rglob("mix.safetensors")
    told = json.loads(read_header(mix).metadata["bottega.merge"])
    assert [each["name"] for each in told["models"]] == ["starter-image", "chilly"]
    assert (told["weight"], told["loras"][0]["name"], told["loras"][0]["weight"]) == (0.25, "neon", 0.5)


def test_what_was_made_before_can_be_the_answer(api: Api, made: dict[str, Any]) -> None:
    again = finished(api, api.post("/jobs", {"recipe": {**DRAFT, "count": 2}, "reuse": True}, 202)["id"])
    assert [output["id"] for output in again["outputs"]] == [output["id"] for output in made["outputs"]]


def test_a_preview_is_a_picture_and_gone_with_its_job(api: Api, made: dict[str, Any]) -> None:
    assert api.refused("GET", f"/jobs/{made['id']}/preview")[0] == 404
    id = api.post("/jobs", {"recipe": {**DRAFT, "sampling": {"seed": 1, "steps": 150}}}, 202)["id"]
    with_preview = None
    while with_preview is None or with_preview.status != 200:
        with_preview = api("GET", f"/jobs/{id}/preview")
        assert api.get(f"/jobs/{id}")["state"] in ("waiting", "running")
    assert with_preview.headers["content-type"] == "image/png" and with_preview.body.startswith(b"\x89PNG")
    api.post(f"/jobs/{id}/cancel")
    assert api.shop.wait(id, 60).state == "cancelled"
    assert api.refused("GET", f"/jobs/{id}/preview")[0] == 404


# --- whose


def test_nobody_sees_or_steers_what_others_make(paused: Api) -> None:
    one, other, chief = paused.user("anna"), paused.user("bert"), paused.user("carla", "admin")
    hers = one.post("/jobs", {"recipe": DRAFT}, 202)["id"]
    assert one.get("/jobs")["total"] == 1 and other.get("/jobs")["total"] == 0
    assert other.get("/queue")["waiting"] == 0
    for method, path, body in (
        ("GET", f"/jobs/{hers}", None), ("GET", f"/jobs/{hers}/preview", None), ("POST", f"/jobs/{hers}/cancel", None),
        ("PATCH", f"/jobs/{hers}", {"priority": 1}), ("POST", f"/jobs/{hers}/pause", None),
        ("POST", f"/jobs/{hers}/resume", None), ("POST", f"/jobs/{hers}/retry", None),
        ("POST", f"/jobs/{hers}/move", {"before": None}),
    ):  # fmt: skip
        assert other.refused(method, path, body)[0] == 404, path
    assert other.refused("POST", "/jobs", {"recipe": DRAFT, "after": [hers]})[0] == 422
    assert one.get(f"/jobs/{hers}")["state"] == "waiting"
    assert one.refused("PATCH", f"/jobs/{hers}", {"priority": 1})[0] == 403  # before everybody else
    assert one.refused("POST", "/jobs", {"recipe": DRAFT, "priority": 1})[0] == 403
    assert one("PATCH", f"/jobs/{hers}", {"priority": -1}).json["priority"] == -1
    assert chief("PATCH", f"/jobs/{hers}", {"priority": 1}).json["priority"] == 1
    later = one.post("/jobs", {"recipe": DRAFT}, 202)["id"]
    assert one.refused("POST", f"/jobs/{later}/move", {"before": hers})[0] == 403  # whose priority it would take
    assert one.get(f"/jobs/{later}")["priority"] == 0
    assert one.post(f"/jobs/{hers}/move", {"before": later})["priority"] == 0
    assert chief.get(f"/jobs/{hers}")["owner"] == "anna"
    assert chief.post(f"/jobs/{hers}/cancel")["state"] == "cancelled"
    assert other.refused("POST", "/queue/pause")[0] == 403
    reader = paused.user("dora", "read")
    assert reader.refused("POST", "/jobs", {"recipe": DRAFT})[0] == 403


def test_who_may_manage_but_not_make_ends_what_they_began(api: Api) -> None:
    keeper, looker = api.user("hugo", "read", "manage"), api.user("ines", "read")
    scan = keeper.post("/models/scan", {}, 202)["id"]
    assert looker.refused("POST", f"/jobs/{scan}/cancel")[0] == 403
    keeper.post(f"/jobs/{scan}/cancel")


def test_nobody_tries_again_what_they_may_not_begin_any_more(api: Api) -> None:
    id = api.user("jane").post("/jobs", {"recipe": DRAFT}, 202)["id"]
    api.served.accounts.remove("jane")
    jane = api.user("jane", "read", "manage")
    jane.post(f"/jobs/{id}/cancel")
    assert jane.refused("POST", f"/jobs/{id}/retry")[0] == 403


def test_nobody_sees_or_takes_what_others_have_made(api: Api, made: dict[str, Any]) -> None:
    other = api.user("emil")
    id = made["outputs"][0]["id"]
    assert other.get("/outputs")["total"] == 0
    for path in (f"/outputs/{id}", f"/outputs/{id}/file", f"/outputs/{id}/thumbnail", f"/outputs/{id}/lineage"):
        assert other.refused("GET", path)[0] == 404
    assert other.refused("GET", f"/outputs/{id}/compare/{id}")[0] == 404
    assert other.refused("PATCH", f"/outputs/{id}", {"favourite": True})[0] == 404
    for path in ("/outputs/delete", "/outputs/restore", "/outputs/export"):
        assert other.refused("POST", path, {"ids": [id]})[0] == 404
    stolen = {"task": "image-to-image", "prompt": "x", "inputs": [{"role": "init", "output": id}]}
    assert other.refused("POST", "/resolve", {"recipe": stolen})[0] == 422


# --- what was made


def test_outputs_are_found_by_what_made_them(api: Api, made: dict[str, Any]) -> None:
    ids = {output["id"] for output in made["outputs"]}
    for query in ("q=house%20sea", "model=starter", "task=text-to-image", "field.steps=2", "field.sampling.seed=5"):
        found = {item["id"] for item in api.get(f"/outputs?{query}")["items"]}
        assert found & ids, query
    assert api.get("/outputs?q=submarine")["total"] == api.get("/outputs?until=1000")["total"] == 0
    for wrong in ("limit=0", "limit=501", "color=red", "field.=1", "since=NaN", "before=x", "favourite=perhaps"):
        assert api.refused("GET", f"/outputs?{wrong}")[0] == 422, wrong


def test_outputs_are_kept_in_order_by_their_owner(api: Api, made: dict[str, Any]) -> None:
    first, second = (output["id"] for output in made["outputs"])
    told = api("PATCH", f"/outputs/{first}", {"favourite": True, "folder": "Houses"}).json
    assert told["favourite"] and told["folder"] == "Houses"
    assert api.get("/folders")["items"] == [{"name": "Houses", "outputs": 1}]
    assert [item["id"] for item in api.get("/outputs?favourite=true")["items"]] == [first]
    assert api("PATCH", f"/outputs/{first}", {"folder": ""}).json["folder"] == ""
    api.post("/outputs/delete", {"ids": [second]}, 204)
    assert second in [item["id"] for item in api.get("/outputs?deleted=true")["items"]]
    assert second not in [item["id"] for item in api.get("/outputs")["items"]]
    api.post("/outputs/restore", {"ids": [second]}, 204)
    assert second in [item["id"] for item in api.get("/outputs")["items"]]
    assert api.refused("POST", "/outputs/delete", {"ids": [first, "0" * 20 + "-0"]})[0] == 404
    assert first in [item["id"] for item in api.get("/outputs")["items"]], "all of them, or none"


def test_two_outputs_are_compared_field_by_field(api: Api, made: dict[str, Any]) -> None:
    first, second = (output["id"] for output in made["outputs"])
    told = api.get(f"/outputs/{first}/compare/{second}")
    assert told["differences"] == [{"field": "seed", "a": 5, "b": 6}]


def test_a_thumbnail_is_small(api: Api, made: dict[str, Any]) -> None:
    answer = api("GET", f"/outputs/{made['outputs'][0]['id']}/thumbnail?size=128")
    with Image.open(BytesIO(answer.body)) as small:
        assert small.format == "WEBP" and max(small.size) <= 128


def test_outputs_are_exported_as_they_are(api: Api, made: dict[str, Any]) -> None:
    ids = [output["id"] for output in made["outputs"]]
    answer = api("POST", "/outputs/export", {"ids": ids})
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(BytesIO(answer.body)) as archive:
        contents = {hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}
    assert contents == {output["sha256"] for output in made["outputs"]}


@pytest.mark.parametrize("what", ["changed", "gone", "link", "folder", "pipe"])
def test_a_file_that_is_not_what_was_made_is_gone(api: Api, made: dict[str, Any], tmp_path: Path, what: str) -> None:
    id = made["outputs"][1]["id"]
    path = path_of(api, id)
    content = path.read_bytes()
    path.unlink()
    try:
        if what == "changed":
            path.write_bytes(content + b"!")
        elif what == "link":
            (tmp_path / "same.png").write_bytes(content)
            path.symlink_to(tmp_path / "same.png")
        elif what == "folder":
            path.mkdir()
        elif what == "pipe":
            os.mkfifo(path)
        status, error = api.refused("GET", f"/outputs/{id}/file")
        assert status == 410 and error["remedy"]
    finally:
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        path.write_bytes(content)
    assert api("GET", f"/outputs/{id}/file").status == 200


@pytest.mark.parametrize("id", ["..%2f..%2fsettings", "%2e%2e", "settings.toml", "a" * 400, "x%00y", "*", "-"])
def test_no_id_leads_out_of_the_gallery(api: Api, id: str) -> None:
    for path in (
        f"/jobs/{id}",
        f"/outputs/{id}",
        f"/outputs/{id}/file",
        f"/outputs/{id}/thumbnail",
        f"/jobs/{id}/events",
    ):
        assert api.refused("GET", path)[0] in (400, 404, 414, 422)


# --- the machine


def test_the_machine_tells_how_it_is(api: Api, made: dict[str, Any]) -> None:
    told = api.get("/system")
    device = next(each for each in told["devices"] if each["lane"] != "library")
    assert device["state"] in ("idle", "working") and device["memory_total"] > 0
    assert told["disk"]["outputs"] >= sum(output["bytes"] for output in made["outputs"])
    assert told["disk"]["total"] > told["disk"]["free"] > 0 and told["uptime"] > 0


def test_models_are_let_go_of_when_asked_to(api: Api, made: dict[str, Any]) -> None:
    def held() -> list[str]:
        return [model["name"] for device in api.get("/system")["devices"] for model in device["models"]]

    assert held()
    assert api.user("looker", "read").refused("POST", "/system/unload")[0] == 403 and held()
    api.post("/system/unload", None, 204)
    assert not held()
    again = finished(api, api.post("/jobs", {"recipe": {**DRAFT, "count": 2}}, 202)["id"])
    assert [each["sha256"] for each in again["outputs"]] == [each["sha256"] for each in made["outputs"]] and held()


def test_only_an_admin_sees_the_log_and_the_users(api: Api) -> None:
    maker = api.user("frieda")
    for method, path, body in (
        ("GET", "/system/log", None), ("GET", "/users", None), ("POST", "/users", {"name": "eve"}),
        ("DELETE", "/users/frieda", None), ("PATCH", "/settings", {"model": "starter-image"}),
        ("POST", "/users/frieda/key", None), ("PATCH", "/users/frieda", {"scopes": ["admin"]}),
    ):  # fmt: skip
        assert maker.refused(method, path, body)[0] == 403
    assert maker.get("/me") == {
        "name": "frieda", "scopes": ["read", "generate"], "version": api.get("/me")["version"],
        "quota": {"waiting": None, "per_minute": None, "pixels_per_day": None},
    }  # fmt: skip


def test_users_come_and_go_and_no_key_is_told_twice(api: Api) -> None:
    key = api.post("/users", {"name": "gino", "scopes": ["read"], "quota": {"waiting": 3}}, 201)["key"]
    gino = Api(api.served, api.shop, api.app, key)
    assert gino.get("/me")["quota"]["waiting"] == 3
    assert key not in json.dumps(api.get("/users")) and "gino" in json.dumps(api.get("/users"))
    newer = api.post("/users/gino/key", None, 201)["key"]
    assert gino("GET", "/me").status == 401
    assert Api(api.served, api.shop, api.app, newer).get("/me")["name"] == "gino"
    assert api("DELETE", "/users/gino").status == 204
    assert Api(api.served, api.shop, api.app, newer)("GET", "/me").status == 401
    for wrong in ({"name": "Gino"}, {"name": "owner"}, {"name": "x", "scopes": []}, {"name": "x", "scopes": ["god"]}):
        assert api.refused("POST", "/users", wrong)[0] == 422


def test_what_a_user_may_do_is_changed_at_once_for_keys_and_browsers(api: Api) -> None:
    hanna = api.user("hanna")
    session = f"{api.served.access.cookie}={api.served.accounts.open_session('hanna')}"

    def in_browser() -> Any:
        return api.served("GET", "/api/me", cookie=session).json

    limits = {"waiting": 9, "per_minute": 2, "pixels_per_day": 100_000}
    told = api("PATCH", "/users/hanna", {"scopes": ["generate", "read", "manage"], "quota": limits})
    assert told.status == 200 and told.json == next(
        each for each in api.get("/users")["items"] if each["name"] == "hanna"
    )
    assert told.json["quota"] == limits and told.json["keys"]
    for me in (hanna.get("/me"), in_browser()):
        assert (me["scopes"], me["quota"]) == (["read", "generate", "manage"], limits)
    job = {"recipe": {"prompt": "a red house", "size": {"width": 256, "height": 256}}}
    hanna.post("/jobs", job, 202)
    assert "34,464 are left" in hanna.refused("POST", "/jobs", job)[1]["what"]
    # What is left out stays, and null is no limit.
    assert api("PATCH", "/users/hanna", {"quota": {"pixels_per_day": None}}).status == 200
    assert in_browser()["quota"] == hanna.get("/me")["quota"] == {**limits, "pixels_per_day": None}
    hanna.post("/jobs", job, 202)
    assert "2 jobs a minute" in hanna.refused("POST", "/jobs", job)[1]["what"]
    assert api("PATCH", "/users/hanna", {"scopes": ["read"]}).json["quota"] == {**limits, "pixels_per_day": None}
    assert in_browser()["scopes"] == ["read"]
    own = {"cookie": session, "origin": api.served.origin}
    assert api.served("POST", "/api/jobs", job, **own).status == hanna("POST", "/jobs", job).status == 403
    before = api.get("/users")
    assert api("PATCH", "/users/hanna", {}).status == 200
    for wrong in (
        {"scopes": []}, {"scopes": ["god"]}, {"quota": {"waiting": 0}}, {"quota": {"per_minute": "3"}},
        {"quota": {"jobs": 1}}, {"name": "otto"},
    ):  # fmt: skip
        assert api.refused("PATCH", "/users/hanna", wrong)[0] == 422, wrong
    for name in ("nobody", "owner", "No%20Body"):
        assert api.refused("PATCH", f"/users/{name}", {"scopes": ["read"]})[0] == 404, name
    assert api.get("/users") == before


def test_what_nobody_has_is_not_found_whatever_it_is_called(api: Api) -> None:
    for method, path in (
        ("GET", "/jobs/zz"), ("POST", "/jobs/zz/cancel"), ("GET", "/outputs/zz"), ("GET", "/outputs/zz/file"),
        ("GET", "/models/zz"), ("GET", "/inputs/zz"), ("GET", "/datasets/zz"), ("DELETE", "/users/nobody"),
        ("POST", "/users/nobody/key"), ("DELETE", "/users/No%20Body"),
    ):  # fmt: skip
        status, error = api.refused(method, path)
        assert status == 404 and error["what"] and "pattern" not in error["what"], (path, error)
    assert api.refused("GET", "/jobs/zz")[0] == api.refused("GET", f"/jobs/{'z' * 20}")[0]


def test_nobody_is_added_under_a_name_that_has_left_something(api: Api) -> None:
    leaver = api.user("leaver")
    leaver.post("/jobs", {"recipe": {"prompt": "a red house"}}, 202)
    assert api("DELETE", "/users/leaver").status == 204
    status, error = api.refused("POST", "/users", {"name": "leaver"})
    assert status == 422 and "earlier 'leaver'" in error["what"]
    assert api.post("/users", {"name": "leaver", "again": True}, 201)["key"].startswith("bottega_")


def test_no_answer_waits_for_the_client_to_acknowledge_the_one_before() -> None:
    """asyncio leaves Nagle's delay on, 40 ms for each answer on a kept connection, unless a socket says it is TCP."""
    import socket

    from bottega.api.server import listen

    for each in listen("127.0.0.1", 0):
        with each:
            assert each.proto == socket.IPPROTO_TCP
