"""The page's frame: its files, its rooms, and what they may and may not do."""

from __future__ import annotations

import json
import re
from html import escape, unescape
from pathlib import Path
from urllib.parse import urljoin

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from bottega.web import STATIC, early, rooms, router, version


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()
    app.include_router(router)
    return TestClient(app)


def test_the_shell_names_every_room_and_what_each_takes_at_once(client: TestClient) -> None:
    for room in rooms():
        shell = client.get(f"/{room}").text
        told = re.search(r'name="bottega-rooms" content="([^"]+)"', shell)
        assert told and json.loads(unescape(told[1])) == rooms()
        told = re.findall(r'href="(/static/[^"]+\.js)"', shell)
        assert any(address.endswith(f"/rooms/{room}.js") for address in told)
        for address in told:
            imported = re.findall(r'from "(\.[^"]+)"', client.get(address).text)
            for name in imported:
                assert urljoin(address, name) in told, f"{name} would load late"
    assert client.get("/nowhere").status_code == 404


def test_the_shell_asks_first_for_what_its_modules_say(client: TestClient) -> None:
    for room in rooms():
        asked = re.findall(r'rel="preload" as="fetch" crossorigin href="([^"]+)"', client.get(f"/{room}").text)
        assert asked == [escape(address) for address in early(room, version())]
        assert "/api/me" in asked and ("/api/forms" in asked) == (room == "make")
        assert 'as="fetch"' not in client.get(f"/{room}?q=house").text


def test_the_shell_has_no_inline_script_or_style(client: TestClient) -> None:
    shell = client.get("/").text
    assert re.search(r"<script(?![^>]*\bsrc=)", shell) is None
    assert re.search(r"<style|\sstyle=|\son\w+=", shell) is None
    assert re.search(r"https?://", shell) is None, "nothing comes from another host"


def test_files_of_this_version_are_kept_for_ever(client: TestClient) -> None:
    kept = client.get(f"/static/{version()}/frame.js")
    assert kept.headers["cache-control"].endswith("immutable")
    other = client.get("/static/0123456789ab/frame.js")
    assert other.content == kept.content and other.headers["cache-control"] == "no-cache"


def test_all_styles_come_in_one_answer(client: TestClient) -> None:
    styles = client.get("/static/all.css").text
    for path in STATIC.rglob("*.css"):
        assert path.read_text() in styles


def test_files_have_our_types_and_are_sent_once(client: TestClient) -> None:
    first = client.get("/static/frame.js")
    assert first.headers["content-type"] == "text/javascript; charset=utf-8"
    again = client.get("/static/frame.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "name",
    [
        "../__init__.py",
        "..%2f__init__.py",
        "%2e%2e/templates/page.html",
        "rooms/../../__init__.py",
        "/etc/hostname",
        "parts",
        "frame.js.css",
        "frame.js%00.css",
    ],
)
def test_nothing_else_can_be_had(client: TestClient, name: str) -> None:
    assert client.get(f"/static/{name}").status_code == 404


def test_the_page_builds_no_markup_from_text() -> None:
    """What comes from a prompt or a model file is text, never markup or code."""
    banned = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|\.setAttribute\([\"']on"
    )
    found = [f"{path.name}: {hit[0]}" for path in STATIC.rglob("*.js") if (hit := banned.search(path.read_text()))]
    assert found == []


def test_a_file_in_the_folder_is_a_room(tmp_path: Path) -> None:
    (tmp_path / "rooms").mkdir()
    for name, order in (("studio.js", 1), ("attic.js", 2), ("notes.txt", 3)):
        says = f'// A room.\nexport const sign = {{ "order": {order}, "en": "{name}", "zh": "室" }};\n'
        (tmp_path / "rooms" / name).write_text(says, encoding="utf-8")
    assert list(rooms(tmp_path).items()) == [
        ("studio", {"en": "studio.js", "zh": "室"}),
        ("attic", {"en": "attic.js", "zh": "室"}),
    ]
    assert list(rooms()) == ["make", "library", "gallery", "train", "queue", "system"]
