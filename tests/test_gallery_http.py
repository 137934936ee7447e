"""The gallery over HTTP: each user has their own, and nobody learns where a file lies."""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from gallery_outputs import added, recipe_of, write_output
from native import Api, studio
from PIL import Image

from bottega.gallery import Gallery, GalleryError, Output
from bottega.web import STATIC

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with studio(tmp_path / "home") as opened:
        yield opened


def made(api: Api, id: str, prompt: str = "a red house", **recipe: object) -> Output:
    """An output of Ann's."""
    folder = api.shop.settings.outputs / "2026-11-28"
    return added(api.shop.gallery, write_output(folder, recipe_of(prompt, **recipe), id=id))


def test_a_list_has_what_was_asked_for_and_no_path(api: Api) -> None:
    first = made(api, "first_job-0", seed=1)
    made(api, "second_job-0", "a blue boat", seed=2, sampler="DPM++ 2M")
    ann = api.user("ann")
    page = ann.get("/outputs?limit=1")
    assert ([item["id"] for item in page["items"]], page["total"]) == (["second_job-0"], 2)
    assert [item["id"] for item in ann.get(f"/outputs?limit=1&before={page['next']}")["items"]] == ["first_job-0"]
    for query in (
        "q=hou",
        "field.sampler=euler%20a",
        "field.seed=1",
        "model=star&q=red",
        f"until={first.created + 0.5}",
    ):
        assert [item["id"] for item in ann.get(f"/outputs?{query}")["items"]] == ["first_job-0"], query
    detail = ann.get("/outputs/first_job-0")
    assert detail["recipe"] == json.loads(first.recipe) and detail["sha256"] == first.sha256
    one = "/first_job-0"
    paths = ("", one, f"{one}/lineage", f"{one}/compare/second_job-0")
    told = [ann("GET", f"/outputs{path}").body for path in paths]
    assert not [answer for answer in told if b"2026-11-28" in answer or str(api.shop.settings.home).encode() in answer]
    assert ann.refused("GET", "/outputs?before=x")[1]["class"] == "BadCursor"


def test_nobody_sees_what_others_made_but_an_admin(api: Api) -> None:
    made(api, "hers_job-0")
    bob = api.user("bob")
    assert bob.get("/outputs")["total"] == 0
    assert api.get("/outputs")["total"] == 1
    reads = ["", "/file", "/thumbnail", "/lineage", "/compare/hers_job-0"]
    for status, error in [bob.refused("GET", f"/outputs/hers_job-0{path}") for path in reads]:
        assert (status, error["class"]) == (404, "UnknownOutput")
    for path in ("delete", "restore", "export"):
        assert bob.refused("POST", f"/outputs/{path}", {"ids": ["hers_job-0"]})[0] == 404
    assert bob.refused("PATCH", "/outputs/hers_job-0", {"favourite": True})[0] == 404
    assert not api.shop.gallery.output("hers_job-0").favourite and api.shop.gallery.output("hers_job-0").deleted is None


def test_files_and_thumbnails_are_what_they_say(api: Api) -> None:
    output = made(api, "job_aa-0")
    ann = api.user("ann")
    answer = ann("GET", "/outputs/job_aa-0/file")
    assert hashlib.sha256(answer.body).hexdigest() == output.sha256 and answer.body.startswith(PNG)
    answer = ann("GET", "/outputs/job_aa-0/thumbnail?size=128")
    assert answer.headers["content-type"] == "image/webp"
    assert Image.open(io.BytesIO(answer.body)).size == (8, 8)
    assert ann("GET", "/outputs/job_aa-0/thumbnail?size=128", if_none_match=answer.headers["etag"]).status == 304
    output.path.write_bytes(PNG + b"something else")
    assert ann("GET", "/outputs/job_aa-0/file").status == 410
    output.path.unlink()
    assert ann("GET", "/outputs/job_aa-0/thumbnail?size=512").status == 410


def test_marks_folders_and_the_trash(api: Api) -> None:
    made(api, "job_aa-0", seed=1)
    made(api, "job_bb-0", seed=2)
    ann = api.user("ann")
    assert ann("PATCH", "/outputs/job_aa-0", {"favourite": True, "folder": "houses"}).json["folder"] == "houses"
    assert ann.get("/folders")["items"] == [{"name": "houses", "outputs": 1}]
    assert [item["id"] for item in ann.get("/outputs?favourite=true&folder=houses")["items"]] == ["job_aa-0"]
    ann.post("/outputs/delete", {"ids": ["job_aa-0"]}, 204)
    assert [item["id"] for item in ann.get("/outputs")["items"]] == ["job_bb-0"]
    assert [item["id"] for item in ann.get("/outputs?deleted=true")["items"]] == ["job_aa-0"]
    ann.post("/outputs/restore", {"ids": ["job_aa-0"]}, 204)
    assert ann.get("/outputs/job_aa-0")["favourite"] and ann.get("/outputs/job_aa-0")["deleted"] is None
    assert ann.refused("POST", "/outputs/delete", {"ids": ["job_aa-0", "nobody_job-0"]})[0] == 404
    assert ann.get("/outputs")["total"] == 2


def test_what_came_from_what_and_in_what_two_differ(api: Api) -> None:
    source = made(api, "source_job-0", "a sketch", seed=1)
    made(api, "target_job-0", "a painting", seed=2, init=source.sha256)
    ann = api.user("ann")
    lineage = ann.get("/outputs/target_job-0/lineage")
    assert [(node["id"], node["kind"]) for node in lineage["nodes"]] == [
        ("source_job-0", "output"),
        ("target_job-0", "output"),
    ]
    assert lineage["edges"] == [{"source": "source_job-0", "target": "target_job-0", "kind": "init"}]
    compared = ann.get("/outputs/source_job-0/compare/target_job-0")
    assert compared["differences"] == [
        {"field": "prompt", "a": "a sketch", "b": "a painting"},
        {"field": "init", "a": None, "b": source.sha256},
        {"field": "seed", "a": 1, "b": 2},
    ]


def test_an_export_is_sent_while_it_is_packed(api: Api) -> None:
    outputs = [made(api, f"job_{number}-0", seed=number) for number in range(3)]
    answer = api.user("ann")("POST", "/outputs/export", {"ids": [output.id for output in outputs]})
    assert answer.headers["content-type"] == "application/zip" and "content-length" not in answer.headers
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        assert [archive.read(name) for name in archive.namelist()] == [output.path.read_bytes() for output in outputs]


# --- the page's shell


def test_the_shell_is_there_where_the_gallery_can_not_be_read(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(gallery: Gallery, owner: str | None) -> NoReturn:
        raise GalleryError("it is damaged")

    monkeypatch.setattr(Gallery, "newest", broken)
    told = api.served("GET", "/", authorization=f"Bearer {api.served.access.machine_key}")
    assert told.status == 200 and b'id="room"' in told.body


def test_the_shell_asks_first_for_the_picture_that_will_be_shown(api: Api) -> None:
    def asked(who: Api, room: str = "/") -> list[str]:
        told = who.served("GET", room, authorization=f"Bearer {who.key or who.served.access.machine_key}")
        return re.findall(r'rel="preload" as="image" fetchpriority="high" href="([^"]+)"', told.body.decode())

    ann, bob, blind = api.user("ann"), api.user("bob"), api.user("blind", "generate")
    assert asked(api) == asked(ann) == []
    for id, owner, at in (
        ("job_aa-0", "ann", 0),
        ("job_bb-0", "ann", 1),
        ("job_cc-0", "bob", 2),
        ("job_dd-0", "bob", 3),
    ):
        api.shop.gallery.add(write_output(api.shop.settings.outputs, recipe_of(seed=at), id=id, at=at, owner=owner))
    api.shop.gallery.delete(["job_dd-0"])
    assert asked(ann) == ["/api/outputs/job_bb-0/thumbnail?size=256"]
    assert asked(bob) == asked(api) == ["/api/outputs/job_cc-0/thumbnail?size=256"]
    assert api("GET", asked(api)[0].removeprefix("/api")).status == 200
    # Another address than the room's own would be fetched for nothing.
    assert asked(api)[0].replace("job_cc-0", "${output.id}") in (STATIC / "parts/make/result.js").read_text()
    assert asked(ann, "/gallery") == asked(ann, "/?output=job_aa-0") == asked(blind) == []
