"""Trainings over HTTP: pictures in, a model on the shelf out, however often it is stopped, and no path on the way."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from native import Api, studio
from PIL import Image
from running_server import Running, running

from bottega.backup import backup, restore
from bottega.engine.train import Prepared
from bottega.errors import FileError
from bottega.events import Result
from bottega.jobs.job import MAKE, TRAIN
from bottega.settings import Settings
from bottega.starter.scenes import Scene, Thing, draw
from bottega.training.recipe import TrainingRecipe
from bottega.workshop import Workshop

QUICK = {"kind": "lora", "steps": 4, "batch": 1, "resolution": 64, "rank": 2, "precision": "float32"}


def png(number: int, side: int = 128) -> bytes:
    content = io.BytesIO()
    scene = Scene(("dawn", "noon", "night")[number % 3], "sea", (Thing("red", "house", "middle"),), "neon")
    draw(scene, number).crop((0, 0, side, side)).save(content, "png")
    return content.getvalue()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with studio(tmp_path_factory.mktemp("home")) as opened:
        yield opened


def filled(api: Api, count: int = 3) -> str:
    """The id of a dataset with so many pictures."""
    id: str = api.post("/datasets", {"name": "houses"}, 201)["id"]
    for number in range(count):
        add(api, id, png(number), f"a%20red%20house%20{number}")
    return id


def add(api: Api, id: str, content: bytes, caption: str = "", status: int = 201) -> Any:
    path = f"/datasets/{id}/pictures?caption={caption}"
    return api.post(path, content, status, content_type="image/png", x_bottega_upload="1")


def problems(told: tuple[int, dict[str, Any]]) -> dict[str, str]:
    status, error = told
    assert status == 422, error
    return {each["field"]: each["what"] for each in error["problems"]}


# --- datasets


def test_a_dataset_is_what_was_put_into_it(api: Api) -> None:
    id = filled(api, 2)
    told = api.get(f"/datasets/{id}")
    first, second = told["pictures"]
    assert (told["name"], told["count"], first["caption"]) == ("houses", 2, "a red house 0")
    assert api("GET", f"/datasets/{id}/pictures/{first['id']}").body == png(0)
    small = api("GET", f"/datasets/{id}/pictures/{first['id']}/thumbnail?size=64")
    assert Image.open(io.BytesIO(small.body)).size == (64, 64)
    assert add(api, id, png(0), "again")["id"] == first["id"]
    assert api("PATCH", f"/datasets/{id}/pictures/{second['id']}", {"caption": "a boat,\n blue"}).status == 200
    captions = {each["id"]: each["caption"] for each in api.get(f"/datasets/{id}")["pictures"]}
    assert captions == {first["id"]: "again", second["id"]: "a boat, blue"}
    assert api("DELETE", f"/datasets/{id}/pictures/{second['id']}").status == 204
    assert [each["id"] for each in api.get(f"/datasets/{id}")["pictures"]] == [first["id"]]
    assert api("PATCH", f"/datasets/{id}", {"name": "others"}).json["name"] == "others"
    assert id in [each["id"] for each in api.get("/datasets")["items"]]
    assert api("DELETE", f"/datasets/{id}").status == 204
    assert api.refused("GET", f"/datasets/{id}")[0] == 404
    assert not api.shop.datasets.place(id).exists()


def test_a_dataset_tells_how_many_trainings_could_not_go_on_without_it(api: Api) -> None:
    learned, regular = filled(api, 1), filled(api, 1)
    training = {**QUICK, "data": [learned], "regularisation": [regular]}
    stopped, begun = (
        api.post("/trainings", {"training": training, "name": name}, 202)["id"] for name in ("sooner", "later")
    )
    api.post(f"/jobs/{stopped}/cancel")
    assert [api.get(f"/datasets/{id}")["unfinished"] for id in (learned, regular, filled(api, 1))] == [2, 2, 0]
    assert [job.id for job in api.shop.queue.lease(MAKE, "worker")] == [begun]
    api.shop.queue.finish(begun, Result({}))
    assert api("PATCH", f"/datasets/{learned}", {"name": "others"}).json["unfinished"] == 1


@pytest.mark.parametrize(("content", "word"), ((b"no picture", "picture"), (png(0, 32), "32x32")))
def test_what_nothing_can_be_learned_from_is_not_taken_in(api: Api, content: bytes, word: str) -> None:
    id = filled(api, 0)
    status, error = api.refused(
        "POST", f"/datasets/{id}/pictures", content, content_type="image/png", x_bottega_upload="1"
    )
    assert status == 422 and word in error["what"] and "/" not in error["what"]
    assert list(api.shop.datasets.place(id).iterdir()) == [api.shop.datasets.place(id) / "dataset.json"]


def test_datasets_and_trainings_are_their_owners(api: Api) -> None:
    id = filled(api, 1)
    job = api.post("/trainings", {"training": {**QUICK, "data": [id]}, "name": "mine"}, 202)["id"]
    other = api.user("other", "read", "generate", "manage")
    assert other.get("/datasets")["items"] == [] == other.get("/trainings")["items"]
    assert other.refused("GET", f"/datasets/{id}")[0] == 404 == other.refused("GET", f"/trainings/{job}")[0]
    assert other.refused("POST", "/trainings/check", {"training": {**QUICK, "data": [id]}})[0] == 404
    maker = api.user("maker", "read", "generate")
    for method, path, body in (
        ("POST", "/datasets", {"name": "a"}),
        ("POST", "/trainings", {"training": QUICK, "name": "a"}),
        ("POST", "/trainings/check", {"training": QUICK}),
        ("DELETE", f"/trainings/{job}", None),
    ):
        assert maker.refused(method, path, body)[0] == 403
    api.post(f"/jobs/{job}/cancel")


def test_nobody_replaces_what_somebody_else_has_trained(api: Api) -> None:
    bob, eve = (api.user(name, "read", "generate", "manage") for name in ("bob", "eve"))
    place = api.shop.settings.models / "loras" / "bobs.safetensors"
    place.parent.mkdir(parents=True, exist_ok=True)

    def trained(by: Api) -> str:
        asked = {"training": {**QUICK, "data": [filled(by, 1)]}, "name": "bobs", "force": True}
        id: str = by.post("/trainings", asked, 202)["id"]
        (job,) = api.shop.queue.lease(MAKE, "a worker")
        assert job.id == id
        place.write_bytes(id.encode())
        api.shop.queue.finish(id, Result({"sha256": "ab" * 32}))
        return id

    first = trained(bob)
    assert bob.get(f"/trainings/{first}")["model"]
    refused = eve.refused(
        "POST", "/trainings", {"training": {**QUICK, "data": [filled(eve, 1)]}, "name": "bobs", "force": True}
    )
    assert "somebody else" in problems(refused)["name"] and place.read_bytes() == first.encode()
    second = trained(bob)
    assert bob.get(f"/trainings/{second}")["model"] and bob.get(f"/trainings/{first}")["model"] is None
    trained(api)
    assert bob.get(f"/trainings/{second}")["model"] is None
    place.unlink()


# --- before the start


def test_a_check_tells_what_a_training_will_be(api: Api) -> None:
    id = filled(api)
    told = api.post("/trainings/check", {"training": {**QUICK, "data": [id], "word": "neon"}})
    assert (told["pictures"], told["buckets"]) == (3, [{"width": 64, "height": 64, "pictures": 3}])
    assert told["recipe"]["data"] == [id] and told["recipe"]["rate"] == 2e-4
    assert told["memory"]["fits"] and told["memory"]["needed"] > 0
    assert any("neon" in note for note in told["notes"])
    assert str(api.shop.settings.home) not in json.dumps(told)


@pytest.mark.parametrize(
    ("fields", "field"),
    (
        ({"data": []}, "training.data"),
        ({"kind": "embedding", "rank": 16}, "training.word"),
        ({"kind": "full", "rank": 8}, "training.rank"),
        ({"rank": 0}, "training.rank"),
        ({"patience": 3}, "training.patience"),
        ({"model": {}}, "training.model"),
        ({"data": ["0" * 21]}, "training.data.0"),
        ({"structure": [2.0, 1.0]}, "training"),
        ({"rate": 1e9}, "training.rate"),
    ),
)
def test_what_can_not_be_trained_is_told_at_its_field(api: Api, fields: dict[str, Any], field: str) -> None:
    kind = fields.get("kind", "hypernetwork" if "structure" in fields else "lora")
    draft = {"kind": kind, "data": [filled(api, 1)], **fields}
    assert field in problems(api.refused("POST", "/trainings/check", {"training": draft}))


def test_an_empty_dataset_is_told_at_its_field(api: Api) -> None:
    told = problems(api.refused("POST", "/trainings/check", {"training": {**QUICK, "data": [filled(api, 0)]}}))
    assert "no pictures" in told["training.data"] and "/" not in told["training.data"]


def test_a_name_is_free_and_leads_nowhere(api: Api) -> None:
    training = {**QUICK, "data": [filled(api, 1)]}
    for name in ("", "../../x", "a/b", ".hidden"):
        assert "name" in problems(api.refused("POST", "/trainings", {"training": training, "name": name}))
    job = api.post("/trainings", {"training": training, "name": "once"}, 202, idempotency_key="k1")
    again = api.post("/trainings", {"training": training, "name": "once"}, 202, idempotency_key="k1")
    assert job["id"] == again["id"]
    other = {"training": training, "name": "once", "priority": -1}
    assert api.refused("POST", "/trainings", other, idempotency_key="k1")[0] == 409
    assert "name" in problems(api.refused("POST", "/trainings", {"training": training, "name": "once"}))
    api.post(f"/jobs/{job['id']}/cancel")
    place = api.shop.settings.models / "loras" / "once.safetensors"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"there")
    assert "name" in problems(api.refused("POST", "/trainings", {"training": training, "name": "once"}))
    forced = api.post("/trainings", {"training": training, "name": "once", "force": True}, 202)
    api.post(f"/jobs/{forced['id']}/cancel")
    place.unlink()


def test_two_trainings_of_one_name_never_get_in_each_others_way(api: Api) -> None:
    asked = {"training": {**QUICK, "data": [filled(api, 1)]}, "name": "dup"}
    first = api.post("/trainings", asked, 202)["id"]
    state = api.shop.training_folder(api.shop.queue.job(first)) / "state"
    api.post(f"/jobs/{first}/cancel")
    second = api.post("/trainings", asked, 202)["id"]
    state.parent.mkdir(parents=True)
    state.write_bytes(b"how far the second one is")
    status, error = api.refused("DELETE", f"/trainings/{first}")
    assert (status, error["class"]) == (409, "WrongState") and state.exists()
    assert "being trained" in problems(api.refused("POST", f"/jobs/{first}/retry"))["name"]
    api.post(f"/jobs/{second}/cancel")
    place = api.shop.settings.models / "loras" / "dup.safetensors"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"trained meanwhile")
    assert "already" in problems(api.refused("POST", f"/jobs/{first}/retry"))["name"]
    forced = api.post("/trainings", {**asked, "force": True}, 202)["id"]
    api.post(f"/jobs/{forced}/cancel")
    assert api.post(f"/jobs/{forced}/retry")["state"] == "waiting"
    api.post(f"/jobs/{forced}/cancel")
    place.unlink()
    api.post(f"/jobs/{first}/retry")
    api.post(f"/jobs/{first}/cancel")
    assert api("DELETE", f"/trainings/{second}").status == 204 and not state.parent.exists()


@pytest.mark.parametrize("key", ["k2", None])
def test_what_is_begun_while_the_pictures_are_read_counts(
    api: Api, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    asked = {"training": {**QUICK, "data": [filled(api, 1)]}, "name": "both"}
    headers = {"idempotency_key": key} if key else {}
    prepare, begun = api.shop.prepare_training, list[str]()

    def read(draft: TrainingRecipe) -> Prepared:
        with monkeypatch.context() as patch:
            patch.setattr(api.shop, "prepare_training", prepare)
            begun.append(api.post("/trainings", asked, 202, **headers)["id"])
        return prepare(draft)

    monkeypatch.setattr(api.shop, "prepare_training", read)
    if key:
        assert api.post("/trainings", asked, 202, **headers)["id"] == begun[0]
    else:
        assert "being trained" in problems(api.refused("POST", "/trainings", asked))["name"]
    api.post(f"/jobs/{begun[0]}/cancel")


def test_what_does_not_fit_into_memory_is_refused_with_what_to_change(api: Api) -> None:
    draft = {"kind": "full", "data": [filled(api, 1)], "resolution": 4096, "batch": 512}
    assert not api.post("/trainings/check", {"training": draft})["memory"]["fits"]
    status, error = api.refused("POST", "/trainings", {"training": draft, "name": "huge"})
    assert status == 507 and "smaller batch" in error["what"]


def test_a_training_goes_where_its_home_went(api: Api, tmp_path: Path) -> None:
    data, regular = filled(api, 1), filled(api, 1)
    training = {**QUICK, "data": [data], "regularisation": [regular]}
    id = api.post("/trainings", {"training": training, "name": "moved"}, 202)["id"]
    backup(api.shop.settings, tmp_path / "a.tar", lambda *_: None)
    settings = Settings(tmp_path / "home", outputs=tmp_path / "home" / "outputs")
    restore(settings, tmp_path / "a.tar", lambda *_: None)
    shop = Workshop(settings)
    job = shop.queue.job(id)
    begun = shop.foreman.ready(job)
    shop.queue.close()
    shop.gallery.close()
    api.post(f"/jobs/{id}/cancel")
    assert str(api.shop.settings.home) not in json.dumps(job.request)
    assert begun is not None and begun.request["out"] == str(settings.models / "loras" / "moved.safetensors")
    told = begun.request["training"]
    assert [source["path"] for source in told["data"]] == [str(settings.datasets / data)]
    assert [source["path"] for source in told["regularisation"]] == [str(settings.datasets / regular)]


def test_a_training_of_an_older_version_is_begun_with_the_paths_it_was_kept_with(api: Api) -> None:
    settings = api.shop.settings
    request = kept(str(settings.models.absolute() / "loras" / "x.safetensors"), str(settings.datasets.absolute() / "d"))
    job = api.shop.queue.submit(TRAIN, request, lane=MAKE, owner="ann")
    begun = api.shop.foreman.ready(job)
    assert begun is not None and begun.request == request
    assert api.get(f"/trainings/{job.id}")["training"]["data"] == ["d"]
    api.post(f"/jobs/{job.id}/cancel")


@pytest.mark.parametrize("out", ("/tmp/x.safetensors", "../x.safetensors", "loras/../../x.safetensors"))
def test_no_training_writes_beside_the_shelf(api: Api, out: str) -> None:
    job = api.shop.queue.submit(TRAIN, kept(out, "d"), lane=MAKE, owner="ann")
    with pytest.raises(FileError, match=r"x\.safetensors: is not in .*models"):
        api.shop.foreman.ready(job)
    assert api.get(f"/trainings/{job.id}")["file"] == "x.safetensors"
    api.post(f"/jobs/{job.id}/cancel")


@pytest.mark.parametrize("data", ("/etc", "../inputs"))
def test_no_training_learns_from_beside_the_datasets(api: Api, data: str) -> None:
    job = api.shop.queue.submit(TRAIN, kept("loras/x.safetensors", data), lane=MAKE, owner="ann")
    with pytest.raises(FileError, match=r"is not in .*datasets"):
        api.shop.foreman.ready(job)
    api.post(f"/jobs/{job.id}/cancel")


def test_no_output_is_written_beside_its_folder(api: Api) -> None:
    job = api.shop.queue.submit("make", {}, lane=MAKE, owner="ann")
    assert api.shop.foreman.folder(job).parent == api.shop.settings.outputs
    with pytest.raises(FileError, match="is not in"):
        api.shop.foreman.folder(replace(job, id="../../x"))
    api.post(f"/jobs/{job.id}/cancel")


def kept(out: str, data: str) -> dict[str, Any]:
    """The request of a training as a queue has it."""
    return {"training": {"version": 1, "kind": "lora", "data": [{"path": data}], "regularisation": []}, "out": out}


def test_forms_tell_every_field(api: Api) -> None:
    told = api.get("/trainings/forms")
    settings = {each["name"]: each for each in told["settings"]}
    assert settings["rank"] == {
        "name": "rank", "type": "int", "default": 16, "help": "of linear layers and 1x1 convolutions", "low": 1,
        "high": 1024, "choices": [],
    }  # fmt: skip
    assert settings["steps"]["default"] is None and settings["optimizer"]["choices"] == [
        "adamw",
        "prodigy",
        "adafactor",
    ]
    kinds = {each["id"]: each for each in told["kinds"]}
    assert "rank" in kinds["lora"]["settings"] and "rank" not in kinds["embedding"]["settings"]
    assert set(kinds["full"]["settings"]) <= set(settings) and kinds["full"]["steps"] == 1000


# --- real ones


def sent(server: Running, count: int = 3) -> str:
    """The id of a dataset with so many pictures on a server."""
    id: str = server.ask("POST", "/api/datasets", {"name": "houses"})["id"]
    for number in range(count):
        headers = {"Authorization": f"Bearer {server.key}", "Content-Type": "image/png", "X-Bottega-Upload": "1"}
        path = f"/api/datasets/{id}/pictures?caption=a%20red%20house%20{number}"
        with urlopen(Request(server.url + path, png(number), headers, method="POST"), timeout=60) as answer:
            assert answer.status == 201
    return id


def begun(server: Running, data: str, name: str, **fields: Any) -> str:
    training = {**QUICK, "data": [data], "word": "neon", "rate": 1e-2, **fields}
    id: str = server.ask("POST", "/api/trainings", {"training": training, "name": name})["id"]
    return id


def past(server: Running, id: str, step: int) -> None:
    """Wait until a training has made so many steps."""
    end = time.monotonic() + 120
    while (told := server.ask("GET", f"/api/trainings/{id}"))["step"] < step:
        assert told["state"] in ("waiting", "running") and time.monotonic() < end, told
        threading.Event().wait(0.02)


def events_of(server: Running, id: str) -> list[tuple[str, dict[str, Any]]]:
    request = Request(f"{server.url}/api/jobs/{id}/events", headers={"Authorization": f"Bearer {server.key}"})
    with urlopen(request, timeout=120) as answer:
        blocks = answer.read().decode().split("\n\n")
    told = [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]
    return [(each["event"], json.loads(each["data"])) for each in told if "event" in each]


def workers(server: Running) -> list[int]:
    """The processes that work for a server."""
    children = [each.read_text().split() for each in Path(f"/proc/{server.process.pid}/task").glob("*/children")]
    return [int(pid) for pids in children for pid in pids]


def tensors(path: Path) -> bytes:
    """What is in a .safetensors file behind its header, which tells the file's own name."""
    content = path.read_bytes()
    return content[8 + int.from_bytes(content[:8], "little") :]


@pytest.mark.slow
def test_a_training_makes_a_model_that_pictures_are_made_with(tmp_path: Path) -> None:
    with running(tmp_path / "home") as server:
        id = begun(server, sent(server), "glow", samples=["a red house"], sample_every=2, validation=0.3)
        told = events_of(server, id)
        assert server.over(id)["state"] == "done"
        kinds = [kind for kind, _ in told]
        assert [kind for kind in kinds if kind not in ("step", "note")][-2:] == ["trained", "result"]
        learned = [data for kind, data in told if kind == "learned"]
        assert learned[-1]["step"] == 4 and learned[-1]["loss"] > 0
        sampled = [data for kind, data in told if kind == "sampled"]
        assert [(each["step"], each["prompt"]) for each in sampled] == [(step, "a red house") for step in (0, 2, 4)]
        found = server.ask("GET", f"/api/trainings/{id}")
        assert (found["step"], found["steps"], found["file"]) == (4, 4, "glow.safetensors")
        assert [each["step"] for each in found["samples"]] == [0, 2, 4]
        log = server.ask("GET", f"/api/trainings/{id}/log?after=1")
        assert [line["step"] for line in log["items"]] == [2, 3, 4] and log["next"] == 4
        for path in (f"samples/{sampled[0]['path']}", "curve"):
            request = Request(
                f"{server.url}/api/trainings/{id}/{path}", headers={"Authorization": f"Bearer {server.key}"}
            )
            with urlopen(request, timeout=60) as answer:
                assert Image.open(io.BytesIO(answer.read())).format == "PNG"
        assert str(tmp_path) not in json.dumps([told, found, server.ask("GET", f"/api/jobs/{id}")])
        model = server.ask("GET", f"/api/models/{found['model']}")
        assert (model["kind"], model["name"], model["sha256"]) == ("lora", "glow", found["result"]["sha256"])
        recipe = {"prompt": "a red house", "adapters": [{"kind": "lora", "ref": {"id": found["model"]}, "weight": 0.5}]}
        sampling = {"sampling": {"steps": 2, "seed": 1}}
        made = server.ask("POST", "/api/jobs", {"recipe": {**recipe, **sampling}})
        assert server.over(made["id"])["state"] == "done"


@pytest.mark.slow
def test_a_training_that_is_stopped_and_whose_worker_is_killed_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    with running(tmp_path / "home") as server:
        data = sent(server)
        calm = begun(server, data, "calm", steps=40)
        assert server.over(calm)["state"] == "done"
        id = begun(server, data, "stormy", steps=40)
        past(server, id, 5)
        server.ask("POST", f"/api/jobs/{id}/cancel")
        stopped = server.over(id)
        at = server.ask("GET", f"/api/trainings/{id}")["step"]
        assert stopped["state"] == "cancelled" and 5 <= at < 40
        server.ask("POST", f"/api/jobs/{id}/retry")
        past(server, id, at + 5)
        for worker in workers(server):
            os.kill(worker, signal.SIGKILL)
        assert server.over(id)["state"] == "done"
        results = [server.ask("GET", f"/api/trainings/{each}") for each in (calm, id)]
        models = [tmp_path / "home" / "models" / "loras" / each["file"] for each in results]
        assert tensors(models[0]) == tensors(models[1])
        logs = [server.ask("GET", f"/api/trainings/{each}/log")["items"] for each in (calm, id)]
        assert logs[0] == logs[1] and len(logs[0]) == 40
        assert any(kind == "retried" and data["why"] == "it was killed" for kind, data in events_of(server, id))
