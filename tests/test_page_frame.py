"""The page's frame: its files, its rooms, and what they may and may not do."""

from __future__ import annotations

import re
import shutil
from html import escape
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from bottega.web import STATIC, early, rooms, router, version
from bottega.web.joining import joined


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()
    app.include_router(router)
    return TestClient(app)


def test_the_shell_asks_for_two_scripts_and_every_room_is_in_one_of_them(client: TestClient) -> None:
    for room in rooms():
        before, everything = re.findall(r'<script[^>]* src="([^"]+)"', client.get(f"/{room}").text)
        assert before.endswith("/before.js")
        text = client.get(everything).text
        assert re.search(r"^(import|export)\b", text, re.MULTILINE) is None
        assert f"{{ // rooms/{room}.js\n" in text
    assert client.get("/nowhere").status_code == 404


def test_modules_are_joined_as_a_browser_would_load_them() -> None:
    modules = {
        "room.js": 'import { h, put as set } from "./parts/dom.js";\nimport { t } from "./words.js";\nset(h, t());\n',
        "parts/dom.js": 'import { t } from "../words.js";\nexport const h = t();\nexport function put() {}\n',
        "words.js": "export async function t() {}\nexport default {\n  id: 1,\n};\n",
    }
    assert joined("room.js", modules.__getitem__).splitlines() == [
        "const module0 = (() => { // words.js",
        "async function t() {}",
        "const itself = {",
        "  id: 1,",
        "};",
        "",
        "return { t, default: itself };",
        "})();",
        "const module1 = (() => { // parts/dom.js",
        "const { t } = module0;",
        "",
        "const h = t();",
        "function put() {}",
        "",
        "return { h, put };",
        "})();",
        "const module2 = (() => { // room.js",
        "const { h, put: set } = module1;",
        "const { t } = module0;",
        "",
        "",
        "set(h, t());",
        "",
        "return {  };",
        "})();",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('import * as dom from "./dom.js";', "can't be joined"),
        ('import "./dom.js";', "can't be joined"),
        ("export { one, other };", "can't be joined"),
        ("export let count = 0;", "can't be joined"),
        ('import { one } from "./room.js";', "import each other: room.js from room.js"),
        ('import { one, two as other } from "./dom.js";', "imports two, which dom.js does not export"),
    ],
)
def test_what_would_not_mean_the_same_is_not_joined(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        joined("room.js", {"room.js": text, "dom.js": "export const one = 1;"}.__getitem__)


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


def test_files_under_the_address_of_another_version_are_asked_for_again(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = version()
    monkeypatch.setattr("bottega.web.version", lambda: "0123456789ab")
    assert client.get(f"/static/{before}/all.js").headers["cache-control"] == "no-cache"
    assert client.get("/static/0123456789ab/all.js").headers["cache-control"].endswith("immutable")


def test_a_file_that_changes_changes_what_is_asked_for(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = tmp_path / "static"
    shutil.copytree(STATIC, copied)
    monkeypatch.setattr("bottega.web.STATIC", copied)
    known = {version()}
    changes = (
        ("parts/icons.js", "// told", ["js"]),
        ("rooms/make.css", "/* told */", ["css"]),
        ("new.js", "// new", []),
    )
    for name, told, joins in changes:
        client.get(f"/static/{version()}/all.js")
        with (copied / name).open("a") as file:
            file.write(f"{told}\n")
        now = version()
        assert now not in known, name
        known.add(now)
        everything = {kind: client.get(f"/static/{now}/all.{kind}").text for kind in ("css", "js")}
        assert [kind for kind, text in everything.items() if told in text] == joins, name


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
    for name in ("studio.js", "attic.js", "notes.txt"):
        (tmp_path / "rooms" / name).touch()
    assert rooms(tmp_path) == ["attic", "studio"]
