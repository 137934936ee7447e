"""The library over HTTP: found among thousands, told without a path, corrected for good, worked on by jobs."""

from __future__ import annotations

import json
import logging
import re
import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from door_server import until
from native import Api, studio
from PIL import Image
from served import WITHIN
from starters import NAMES

from bottega.api.warmup import FIRST, warm_up
from bottega.formats import safetensors
from bottega.library import Entry, hashes
from bottega.library.about import About
from bottega.library.disk import Stamp, stamp_of
from bottega.library.find import identify_path
from bottega.recognisers import all_recognisers
from bottega.settings import STARTER_SHELF

HOSTILE = "<img src=x onerror=alert(1)>"
KINDS = ("checkpoint", "lora", "embedding", "vae")
FAMILIES = ("sd1", "sdxl", "llama", "")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shelf")


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, shelf: Path) -> Iterator[Api]:
    """A server with 240 models on record, of which only the records exist, and one whose files do."""
    with studio(tmp_path_factory.mktemp("home")) as opened:
        catalog = opened.shop.catalog
        catalog.put([record(shelf, number) for number in range(240)])
        catalog.put([pictured(shelf)])
        yield opened


def record(shelf: Path, number: int) -> Entry:
    return Entry(
        shelf / "deep" / f"model {number:03}.safetensors",
        shelf,
        Stamp(number * 7919 % 1000, number, number),
        kind=KINDS[number % 4],
        family=FAMILIES[number // 4 % 4],
        verdict="refused" if number % 40 == 39 else "unusual" if number % 40 == 38 else "clean",
        error="cut short" if number % 40 == 39 else "",
    )


def pictured(shelf: Path) -> Entry:
    """A LoRA that says hostile things of itself, with a picture beside it."""
    path = shelf / f"{HOSTILE}.safetensors".replace("/", "_")
    path.write_bytes(b"a model")
    preview = path.with_suffix(".preview.png")
    Image.new("RGB", (1000, 500), "olive").save(preview)
    about = About(title=HOSTILE, description=f"{HOSTILE} and more", triggers=("olive",), preview=str(preview))
    return replace(Entry(path, shelf, stamp_of(path)), kind="lora", family="sd1", about=about, sha256="a" * 64)


def only(api: Api, query: str) -> Any:
    (item,) = api.get(f"/models?{query}")["items"]
    return item


def starter_of(api: Api) -> Any:
    (item,) = [each for each in api.get("/models?runs=true")["items"] if each["name"] == "starter-image"]
    return item


def test_every_model_is_on_one_page_and_none_on_two(api: Api) -> None:
    found, next = [], ""
    while True:
        page = api.get(f"/models?limit=50&sort=size{next}")
        found += page["items"]
        if page["next"] is None:
            break
        next = f"&after={page['next']}"
    assert len(found) == len({each["id"] for each in found}) == page["total"] == 241 + len(NAMES) - 6  # 6 are refused
    assert [each["size"] for each in found] == sorted((each["size"] for each in found), reverse=True)
    assert api.get("/models?limit=5&offset=100&sort=size")["items"] == found[100:105]


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("kind=lora", {"kind": "lora"}),
        ("kind=LoRA&family=SDXL", {"kind": "lora", "family": "sdxl"}),
        ("medium=text", {"family": "llama"}),
        ("verdict=refused", {"verdict": "refused", "error": "cut short"}),
        ("runs=true", {"kind": "checkpoint", "family": "sd1"}),
        ("q=model%20111", {"name": "model 111"}),
    ],
)
def test_models_are_found_by_what_they_are(api: Api, query: str, wanted: dict[str, Any]) -> None:
    items = api.get(f"/models?limit=500&{query}")["items"]
    assert items
    for item in items:
        assert {name: item[name] for name in wanted} == wanted


def test_facets_count_what_a_click_on_them_would_show(api: Api) -> None:
    for query in (
        "",
        "kind=lora",
        "kind=lora&family=sd1",
        "medium=image&verdict=unusual",
        "q=model",
        "favourite=false",
    ):
        facets = api.get(f"/models/facets?{query}")
        assert facets["total"] == api.get(f"/models?{query}")["total"]
        for facet in ("kind", "family", "medium", "verdict"):
            others = "&".join(part for part in query.split("&") if part and not part.startswith(f"{facet}="))
            for value, count in facets[facet].items():
                assert api.get(f"/models?limit=1&{others}&{facet}={value}")["total"] == count, (query, facet, value)


def test_what_is_gone_is_listed_by_itself_and_keeps_what_is_said_of_it(api: Api, shelf: Path) -> None:
    gone = only(api, "q=model+008")
    assert not gone["missing"]
    api.shop.catalog.mark_missing([shelf / "deep" / "model 008.safetensors"])
    try:
        assert api.get("/models?q=model+008")["items"] == []
        assert only(api, "missing=true") == {**gone, "missing": True}
        counted = api.get("/models/facets?missing=true")
        assert counted["total"] == 1 and counted["kind"] == {gone["kind"]: 1}
        assert api("PATCH", f"/models/{gone['id']}", {"note": "lent to Ann"}).json["missing"]
        assert api.get(f"/models/{gone['id']}")["note"] == "lent to Ann"
        for path in (f"/models/{gone['id']}/form", f"/models/{gone['id']}/preview"):
            assert api.refused("GET", path)[0] == 404
        assert api.refused("POST", f"/models/{gone['id']}/hash", {})[0] == 404
    finally:
        api.shop.catalog.put([record(shelf, 8)])


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"), ("limit=501", "limit"), ("sort=path", "sort"), ("kindd=lora", "kindd"),
        ("after=nonsense", "after"), ("after=W10", "after"), ("offset=-1", "offset"), ("runs=maybe", "runs"),
        ("after=WyJzaXplIiwxXQ&sort=size", "after"), ("after=WyJuYW1lIiwiYSIsMV0&sort=size", "after"),
        ("q=a&after=WyJiZXN0IiwtMTAwMF0", "after"), ("q=a&after=WyJiZXN0Iiw5MjIzMzcyMDM2ODU0Nzc1ODA3XQ", "after"),
    ],
)  # fmt: skip
def test_what_can_not_be_asked_for_is_refused_by_name(api: Api, query: str, field: str) -> None:
    status, error = api.refused("GET", f"/models?{query}")
    assert status == 422 and field in [each["field"] for each in error["problems"]]


def test_a_model_tells_what_it_is_and_nothing_of_where_it_lies(api: Api, shelf: Path) -> None:
    item = only(api, "q=olive")
    told = api.get(f"/models/{item['id']}")
    assert told["name"] == HOSTILE and told["about"]["title"] == HOSTILE, "as text, whatever it says"
    assert told["fits"]["checkpoint"], "the checkpoints of its family"
    for path in ("/models?limit=500&sort=kind", f"/models/{item['id']}", "/models?verdict=refused"):
        assert str(shelf.parent) not in json.dumps(api.get(path))


@pytest.mark.parametrize("id", ["0" * 16, "..%2f..%2fx", "0" * 15, "G" * 16, "%2e%2e", "a" * 400])
def test_what_is_no_model_is_not_found(api: Api, id: str) -> None:
    for path in (f"/models/{id}", f"/models/{id}/preview", f"/models/{id}/form"):
        assert api.refused("GET", path)[0] in (400, 404, 414, 422)


def test_a_model_whose_file_is_another_or_gone_has_no_form_of_before(api: Api, tmp_path: Path) -> None:
    starter = STARTER_SHELF / "starter-image.safetensors"
    path = tmp_path / "short-lived.safetensors"
    shutil.copyfile(starter, path)
    identify_path(api.shop.catalog, path, all_recognisers())
    address = f"/models/{only(api, 'q=short-lived')['id']}/form"
    assert api.get(address)["family"] == "sd1"
    safetensors.write(path, [("embedding", "F32", (1, 768), bytes(4 * 768))], {})
    status, error = api.refused("GET", address)
    assert (status, error["class"]) == (422, "UnsupportedModel")
    path.unlink()
    assert api.refused("GET", address)[0] == 404


def test_a_model_that_goes_while_it_is_read_is_no_bug(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fleeting.safetensors"
    shutil.copyfile(STARTER_SHELF / "starter-image.safetensors", path)
    identify_path(api.shop.catalog, path, all_recognisers())
    hash_file = hashes.hash_file

    def gone_before(path: Path, *told: Any) -> str:
        path.unlink()
        return hash_file(path, *told)

    monkeypatch.setattr(hashes, "hash_file", gone_before)
    status, error = api.refused("POST", "/jobs", {"recipe": {"prompt": "a house", "model": {"name": "fleeting"}}})
    assert (status, error["class"], error["what"]) == (422, "FileError", "fleeting.safetensors: is gone")


# --- previews


def test_the_picture_beside_a_model_is_drawn_anew(api: Api, shelf: Path) -> None:
    item = only(api, "q=olive")
    assert item["preview"]
    answer = api("GET", f"/models/{item['id']}/preview?size=128")
    assert answer.headers["content-type"] == "image/webp" and answer.body[8:12] == b"WEBP"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert api("GET", f"/models/{item['id']}/preview?size=128").body == answer.body
    assert api("GET", f"/models/{item['id']}/preview?size=128", if_none_match=answer.headers["etag"]).status == 304
    assert api("GET", f"/models/{item['id']}/preview?size=256", if_none_match=answer.headers["etag"]).status == 200


@pytest.mark.parametrize("what", ["html", "svg", "bomb", "link", "gone"])
def test_nothing_but_a_picture_of_the_shelf_is_shown(api: Api, shelf: Path, tmp_path: Path, what: str) -> None:
    preview = shelf / f"{what}.png"
    secret = tmp_path / "private.png"
    Image.new("RGB", (64, 64)).save(secret)
    if what == "link":
        preview.symlink_to(secret)
    elif what == "bomb":
        preview.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\xea`\0\0\xea`\x08\2\0\0\0" + bytes(100))
    elif what != "gone":
        preview.write_bytes(f"<{what}><script>alert(1)</script>".encode())
    entry = replace(record(shelf, 900 + len(what)), path=shelf / f"{what}.ckpt", about=About(preview=str(preview)))
    api.shop.catalog.put([entry])
    item = only(api, f"q={what}&limit=1&sort=best")
    assert api.refused("GET", f"/models/{item['id']}/preview")[0] in (404, 422)


# --- what the user says


def test_what_is_said_of_a_model_stays_and_wins(api: Api) -> None:
    item = only(api, "q=model%20200")
    said = {"tags": ["Good  one", "good one"], "favourite": True, "note": " mine ", "corrected": {"family": "SDXL"}}
    told = api("PATCH", f"/models/{item['id']}", said).json
    assert (told["tags"], told["favourite"], told["note"]) == (["good one"], True, "mine")
    assert told["family"] == "sdxl" and told["corrected"] == {"family": "sdxl"}
    assert told["header_says"] == {"family": item["family"]}
    assert [each["id"] for each in api.get("/models?tag=Good%20One")["items"]] == [item["id"]]
    assert api.get("/models/facets")["tag"] == {"good one": 1}
    again = api("PATCH", f"/models/{item['id']}", {"corrected": {}}).json
    assert again["family"] == item["family"] and again["tags"] == ["good one"]


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"corrected": {"family": "no such"}}, "corrected.family"),
        ({"corrected": {"kind": "thing"}}, "corrected.kind"),
        ({"corrected": {"path": "/etc"}}, "corrected.path"),
        ({"tags": ["x" * 61]}, "tags.0"),
        ({"note": "x" * 10_001}, "note"),
        ({"favourite": "yes"}, "favourite"),
        ({"path": "/etc/passwd"}, "path"),
    ],
    ids=str,
)
def test_what_can_not_be_said_is_refused_by_name(api: Api, said: dict[str, Any], field: str) -> None:
    item = only(api, "q=model%20201")
    status, error = api.refused("PATCH", f"/models/{item['id']}", said)
    assert status == 422 and error["problems"][0]["field"] == field


def test_what_somebody_else_has_said_meanwhile_is_not_overwritten(api: Api) -> None:
    item = only(api, "q=model%20202")
    path = f"/models/{item['id']}"
    api("PATCH", path, {"tags": ["two", "one"], "note": "mine", "corrected": {"family": "sdxl"}})
    for was, field in (({"tags": ["one"]}, "tags"), ({"note": ""}, "note"), ({"corrected": {}}, "corrected")):
        status, error = api.refused("PATCH", path, {"note": "yours", "was": was})
        assert status == 409 and field in error["what"] and "model 202" in error["what"].lower()
    assert api.get(path)["note"] == "mine"
    was = {"tags": ["one", "two"], "note": "mine", "corrected": {"family": "sdxl"}}
    assert api("PATCH", path, {"note": "ours", "was": was}).json["note"] == "ours"


# --- work on the shelves


@pytest.mark.parametrize(
    "name",
    ["../evil", "..", ".hidden", "a/b", "a\\b", "/etc/x", "con", "NUL.x", "x.", "x ", " x", "", "a\0b", "e\u0301x",
     "x" * 121, "a:b", "a*b", "a\nb"],
)  # fmt: skip
def test_nothing_is_written_under_a_name_that_is_no_plain_one(api: Api, name: str) -> None:
    item = only(api, "q=model%20200")
    before = api.get("/jobs")["total"]
    for path, body in (
        (f"/models/{item['id']}/convert", {"name": name}),
        ("/models/merge", {"models": [item["id"], item["id"]], "name": name}),
    ):
        status, error = api.refused("POST", path, body)
        assert status in (400, 422) and (status == 400 or error["problems"][0]["field"] == "name"), (name, error)
    assert api.get("/jobs")["total"] == before


def test_a_link_in_the_home_leads_no_work_out_of_it(api: Api, tmp_path: Path) -> None:
    item = starter_of(api)
    models = api.shop.settings.models
    models.mkdir(exist_ok=True)
    (models / "checkpoints").symlink_to(tmp_path)
    status, error = api.refused("POST", f"/models/{item['id']}/convert", {"name": "mine"})
    (models / "checkpoints").unlink()
    assert status == 422 and error["problems"][0]["field"] == "name"


@pytest.mark.parametrize(
    ("asked", "field", "what"),
    [
        ({"method": "slerp"}, "method", "is a merge of two"),
        ({"method": "add-difference", "models": 2}, "method", "needs three models"),
        ({"weights": [0.5, 0.5]}, "weights", "and 2 weights are given"),
    ],
)
def test_a_merge_that_cannot_be_is_told_at_once(api: Api, asked: dict[str, Any], field: str, what: str) -> None:
    starter = starter_of(api)["id"]
    body = {**asked, "models": [starter] * asked.get("models", 3), "name": "mix"}
    status, error = api.refused("POST", "/models/merge", body)
    (problem,) = error["problems"]
    assert (status, problem["field"]) == (422, field) and what in str(problem)


def test_a_name_that_is_taken_is_told_at_once(api: Api) -> None:
    starter = starter_of(api)["id"]
    taken = api.shop.settings.models / "checkpoints" / "taken.safetensors"
    taken.parent.mkdir(parents=True, exist_ok=True)
    taken.write_bytes(b"")
    for path, body in (
        (f"/models/{starter}/convert", {"name": "taken"}),
        ("/models/merge", {"models": [starter, starter], "name": "taken"}),
    ):
        status, error = api.refused("POST", path, body)
        assert (status, error["problems"][0]["field"]) == (422, "name")
        assert api.post(path, {**body, "force": True}, 202)["state"] == "waiting"
        taken.unlink()
        first = api.post(path, body, 202, **{"idempotency-key": path})["id"]
        taken.write_bytes(b"")
        again = api.post(path, body, 202, **{"idempotency-key": path})["id"]
        assert again == first, "what is sent once more has made it itself"


def test_work_on_the_shelves_is_a_job_that_tells_no_path(api: Api, shelf: Path) -> None:
    starter = starter_of(api)["id"]
    lora = only(api, "q=olive")["id"]
    merge = {"models": [starter], "loras": [{"id": lora, "weight": 0.5}], "name": "mix"}
    for path, body, kind in (
        ("/models/scan", {}, "scan"),
        ("/models/get", {"reference": "civitai:123"}, "get"),
        (f"/models/{starter}/convert", {"name": "mine", "dtype": "fp16"}, "convert"),
        ("/models/merge", merge, "merge"),
        (f"/models/{starter}/hash", {}, "hash"),
    ):
        told = api.post(path, body, 202)
        assert (told["kind"], told["state"], told["recipe"]) == (kind, "waiting", None)
        text = json.dumps([told, api.get(f"/jobs/{told['id']}")])
        assert str(shelf.parent) not in text and str(api.shop.settings.home) not in text


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The hosts that anybody in this process has asked the system for: the server itself is one."""
    hosts = set()
    real = socket.getaddrinfo

    def getaddrinfo(host: str, *args: Any, **named: Any) -> Any:
        hosts.add(host)
        return real(host, *args, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return hosts


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("data:,x", "is no reference"),
        ("hf:../../x", "names no repository"),
        ("hf:a/b:../../../etc/passwd", "names no repository"),
        ("hf:a/b/../../../etc/passwd", "is no path in a repository"),
        ("https://huggingface.co/a/b/blob/main/%2e%2e/x.safetensors", "is no path in a repository"),
        ("civitai:../../1", "names no model"),
        ("file:///etc/passwd", "no address of a file"),
        ("https://[::1", "no address of a file"),
        ("http://127.0.0.1:22/x.safetensors", "only https:// addresses"),
        ("http://example.org/x.safetensors", "only https:// addresses"),
        ("https://127.0.0.1:22/x.safetensors", "no public address"),
        ("https://0x7f.1/x.safetensors", "no public address"),
        ("https://[::ffff:10.0.0.1]/x.safetensors", "no public address"),
        ("https://localhost/x.safetensors", "no public address"),
    ],
)
def test_a_reference_that_can_never_be_fetched_is_told_at_once(
    reference: str, told: str, api: Api, looked_up: set[str]
) -> None:
    before = api.get("/jobs")["total"]
    status, error = api.refused("POST", "/models/get", {"reference": reference})
    (problem,) = error["problems"]
    assert (status, problem["field"]) == (422, "reference") and told in problem["what"] and problem["remedy"]
    assert api.get("/jobs")["total"] == before and looked_up == {"127.0.0.1"}


@pytest.mark.parametrize("reference", ["https://example.org/x.safetensors", " hf:a/b@refs/pr/1/c/d.gguf "])
def test_a_reference_that_may_be_right_is_a_job(reference: str, api: Api, looked_up: set[str]) -> None:
    assert api.post("/models/get", {"reference": reference}, 202)["state"] == "waiting"
    assert looked_up == {"127.0.0.1"}


def test_only_who_may_manage_works_on_the_shelves(api: Api) -> None:
    starter = starter_of(api)["id"]
    maker, keeper = api.user("maker"), api.user("keeper", "read", "manage")
    assert maker.get("/models")["total"]
    for path in ("/models/scan", f"/models/{starter}/hash"):
        assert maker.refused("POST", path, {})[0] == 403
        keeper.post(path, {}, 202)
    assert maker.refused("PATCH", f"/models/{starter}", {"favourite": True})[0] == 403
    assert keeper.post("/models/get", {"reference": "hf:org/name"}, 202)["kind"] == "get"
    for address in ("https://example.org/x.safetensors", "http://169.254.169.254/", "file:///etc/passwd"):
        assert keeper.refused("POST", "/models/get", {"reference": address})[0] == 403


# --- before the first visitor


def test_the_server_asks_itself_for_what_the_page_asks_for_first(api: Api) -> None:
    before = answered(api)
    warm_up(api.served.origin, api.served.access.machine_key).join(WITHIN)
    # And what a model can do, and what fits it. A request is counted a moment after it is answered.
    until(lambda: answered(api) - before >= len(FIRST) + 2)


def answered(api: Api) -> int:
    """How many requests have been granted, those for the metrics apart."""
    told = api.served("GET", "/metrics", as_owner=True).body.decode()
    counts = re.findall(r'^bottega_requests_total\{door="(\w+)",status="200"\} (\d+)', told, re.MULTILINE)
    return sum(int(count) for door, count in counts if door != "metrics")


def test_a_server_that_is_gone_is_not_warmed_up(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bottega.server")
    warm_up("http://127.0.0.1:9", "").join(WITHIN)
    assert "was not warmed up" in caplog.text
