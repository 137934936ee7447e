"""The room Library in a real browser: a LoRA among ten thousand models, what is said of it, and work on the shelves."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from browser import chromium, post, sign_in, watched_page
from door_server import Server, serving
from playwright.sync_api import Browser, Page, Route, expect
from starters import CHECKPOINTS, NAMES

from bottega.library import Entry, open_catalog
from bottega.library.about import About
from bottega.library.disk import Stamp
from bottega.settings import STARTER_SHELF

pytestmark = pytest.mark.slow
MANY = 10_000
WORDS = ("ink", "castle", "neon", "watercolor", "samurai", "portrait", "vintage", "film")
WIDER = """
[...document.querySelectorAll('.room-library *')]
    .filter((element) => element.scrollWidth > element.clientWidth + 1)
    .filter((element) => getComputedStyle(element).overflowX === "auto")
    .map((element) => element.className)
"""
LONG = 180_000  # ms: the worker of the shelves starts, and reads what it is about


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def entry(number: int) -> Entry:
    """A model on record: nine LoRA to one checkpoint, one in a hundred refused."""
    kind = "checkpoint" if number % 10 == 0 else "lora"
    refused = number % 100 == 51
    return Entry(
        Path("/shelf", kind, f"{WORDS[number % 8]}-{WORDS[number // 8 % 8]}-{number:05}.safetensors"),
        Path("/shelf"),
        Stamp(1_000_000 + number, 10**18 + number, number),
        kind=kind,
        category="base" if kind == "checkpoint" else "lightweight fine-tune",
        family=("sd1", "sdxl")[number % 2],
        verdict="refused" if refused else "clean",
        error="it would call os.system; nothing of it was run" if refused else "",
        names=("os.system",) if refused else (),
        because=("attention weights of rank 8",),
        format="safetensors",
        dtype="F16",
        runs=kind == "checkpoint",
        about=About(
            triggers=(f"word{number}", "glow"),
            weight=0.8,
            licence="openrail",
            permissions={"credit": "not needed", "commercial use": "none"},
            source="https://example.org/models/1",
        ),
    )


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with ten thousand models on record."""
    home = tmp_path_factory.mktemp("library") / "home"
    home.mkdir()
    with open_catalog(home / "catalog.sqlite") as catalog:
        catalog.put([entry(number) for number in range(MANY)])
    with serving(home) as server:
        yield server


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Server]:
    """A server whose shelves hold what comes along alone."""
    home = tmp_path / "home"
    environment = {"BOTTEGA_HOME": str(home), "PATH": "", "PYTHONPATH": ":".join(sys.path)}
    subprocess.run(
        [sys.executable, "-m", "bottega", "models", "scan"], env=environment, check=True, capture_output=True
    )
    with serving(home) as server:
        yield server


@contextmanager
def room(browser: Browser, server: Server, address: str = "/library", **options: Any) -> Iterator[Page]:
    """The room, once its models are there."""
    with watched_page(browser, server.url, **options) as (page, watched):
        watched.allowed += ["404", "422", "403", "409"]  # a browser says on its console what the tests provoke
        sign_in(page, server.home, server.url)
        page.goto(address)
        page.locator("#rooms a").first.wait_for(state="attached")
        page.locator(".card:not(.is-coming), .line:not(.is-coming)").first.wait_for()
        yield page


def test_what_the_shell_asks_for_first_is_what_the_room_asks_for(browser: Browser, many: Server) -> None:
    """Once: the room takes the answer that is under way."""
    asked: list[str] = []
    with room(browser, many) as page:
        page.on("request", lambda request: asked.append(request.url.removeprefix(many.url)))
        page.goto("/library")
        page.locator(".card:not(.is-coming)").first.wait_for()
        preloaded = page.locator("link[rel=preload][as=fetch]").evaluate_all(
            "(links) => links.map((link) => link.getAttribute('href'))"
        )
    (own,) = [address for address in preloaded if not address.startswith(("/api/me", "/api/jobs"))]
    assert [address for address in asked if urlsplit(address).path == urlsplit(own).path] == [own]


@pytest.fixture
def page(browser: Browser, many: Server) -> Iterator[Page]:
    with room(browser, many) as page:
        yield page


def told(server: Server, path: str) -> Any:
    """What the server answers to whom it belongs."""
    key = json.loads((server.home / "serve.json").read_text())["key"]
    with server.client(headers={"Authorization": f"Bearer {key}"}) as client:
        return client.get(path).json()


def say(server: Server, id: str, said: dict[str, Any]) -> None:
    """Say something of a model, as somebody else would."""
    key = json.loads((server.home / "serve.json").read_text())["key"]
    with server.client(headers={"Authorization": f"Bearer {key}"}) as client:
        assert client.patch(f"/api/models/{id}", json=said).status_code == 200


def begin(server: Server, path: str) -> None:
    """Have the server begin some work on the shelves, as somebody else would."""
    key = json.loads((server.home / "serve.json").read_text())["key"]
    with server.client(headers={"Authorization": f"Bearer {key}"}) as client:
        assert client.post(path, json={}).status_code == 202


def listed(page: Page, count: int) -> None:
    """Wait until the list has so many models."""
    page.locator(f'[role="option"][aria-setsize="{count}"]').first.wait_for()


def expect_value(page: Page, label: str, value: str) -> None:
    expect(page.get_by_label(label)).to_have_value(value)


def open_model(page: Page, number: int) -> Any:
    """Find a model by the end of its name and open it; the panel that tells of it."""
    page.keyboard.press("/")
    page.get_by_role("searchbox").fill(f"{number:05}")
    page.wait_for_url(f"**q={number:05}*")
    listed(page, 1)
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    panel = page.get_by_role("complementary", name="What it is")
    panel.get_by_text("attention weights of rank 8").wait_for()
    return panel


def test_one_lora_is_found_among_ten_thousand_models(page: Page) -> None:
    panel = open_model(page, 4713)
    panel.get_by_role("heading", name="castle-portrait-04713").wait_for()
    panel.get_by_text("LoRA · SDXL · lightweight fine-tune").wait_for()
    panel.get_by_text("openrail").wait_for()
    panel.get_by_text("commercial use: none").wait_for()
    panel.get_by_text("https://example.org/models/1").wait_for()
    expect(panel.get_by_role("link"), "what a file says of its origin is never opened").to_have_count(0)
    expect(panel.get_by_role("button", name="Use in Make")).to_have_count(1)


def test_an_adapter_for_other_models_than_that_in_make_says_so(page: Page) -> None:
    model = {"id": "0" * 16, "name": "mine", "kind": "checkpoint", "family": "sd1"}
    page.evaluate("told => localStorage.setItem('bottega.make.draft', JSON.stringify(told))", {"model": model})
    panel = open_model(page, 4713)
    panel.get_by_text("Made for SDXL; the model in Make, mine, is SD 1.").wait_for()
    expect(panel.get_by_role("button", name="Use in Make")).to_have_count(0)


def test_trigger_words_are_copied(browser: Browser, many: Server) -> None:
    with room(browser, many, permissions=["clipboard-read", "clipboard-write"]) as page:
        open_model(page, 4713).get_by_role("button", name="word4713").click()
        page.get_by_text("Copied").wait_for()
        assert page.evaluate("navigator.clipboard.readText()") == "word4713"


def test_the_rail_narrows_down_and_counts(page: Page) -> None:
    rail = page.get_by_role("navigation", name="Filters")
    rail.get_by_role("button", name="Checkpoint").click()
    listed(page, 1000 + len(CHECKPOINTS))
    rail.get_by_role("button", name="SDXL").wait_for(state="detached")  # every tenth model is of the other family
    rail.get_by_role("button", name="Clear all").click()
    listed(page, MANY - 100 + len(NAMES))
    rail.get_by_role("button", name="Refused").click()
    listed(page, 100)
    page.locator(".card").first.click()
    panel = page.get_by_role("complementary", name="What it is")
    panel.get_by_text("it would call os.system; nothing of it was run").wait_for()
    panel.get_by_text("It names: os.system").wait_for()
    page.reload()
    listed(page, 100)
    panel.get_by_text("It names: os.system").wait_for()  # reloading keeps what was open


def test_ten_thousand_models_scroll(page: Page) -> None:
    """Any place can be looked at, and little of them all is drawn."""
    scroller = page.locator(".library-scroll")
    high = scroller.evaluate("element => element.scrollHeight")
    for top in (*range(0, 12_000, 1000), *range(high // 3, high // 3 + 40_000, 8000), high, 0, high // 2):
        scroller.evaluate(
            """async (element, top) => {
                element.scrollTop = top;
                await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
            }""",
            top,
        )
        assert page.locator(".card").count() < 120
    assert scroller.evaluate("element => element.scrollHeight") == high
    scroller.evaluate("(element, top) => { element.scrollTop = top; }", high)
    page.locator(f'.card[aria-posinset="{MANY - 100}"]:not(.is-coming)').wait_for()


def test_the_table_is_sorted_and_walked_with_the_keyboard(page: Page) -> None:
    page.keyboard.press("t")
    page.get_by_role("button", name="Size").click()
    page.wait_for_url("**sort=size*")
    first = page.locator(".line:not(.is-coming)").first
    first.get_by_text("chilly").wait_for()  # which is a few bytes larger than starter-image
    page.keyboard.press("/")
    page.keyboard.press("Enter")
    for key in ("ArrowDown", "ArrowDown", "End", "Home", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    page.get_by_role("heading", name="samurai-portrait-09998").or_(
        page.get_by_role("heading", level=2)
    ).first.wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("complementary", name="What it is").wait_for(state="hidden")
    expect(page.locator(":focus"), "the focus is where it was").to_have_attribute("data-index", "1")
    page.reload()
    page.locator(".line").first.wait_for()


def test_what_a_model_is_can_be_put_right_and_taken_back(page: Page, many: Server) -> None:
    panel = open_model(page, 1235)
    panel.get_by_text("Put right").click()
    panel.get_by_label("Family").select_option("sd1")
    page.get_by_text("Family is SD 1 now").wait_for()
    panel.get_by_text("The header says: SDXL").wait_for()
    page.locator(".card").get_by_text("LoRA · SD 1").wait_for()
    id = page.url.split("model=")[1].split("&")[0]
    assert told(many, f"/api/models/{id}")["family"] == "sd1"
    page.locator(".toast").get_by_role("button", name="Undo").click()
    page.locator(".card").get_by_text("LoRA · SDXL").wait_for()
    assert told(many, f"/api/models/{id}")["corrected"] == {}


def test_tags_note_and_favourite_are_kept(page: Page, many: Server) -> None:
    panel = open_model(page, 2222)
    panel.get_by_label("Add a tag").fill("best of all")
    page.keyboard.press("Enter")
    page.get_by_role("navigation", name="Filters").get_by_role("button", name="best of all").wait_for()
    panel.get_by_label("Note").fill("use it at 0.6")
    page.keyboard.press("Tab")
    page.get_by_text("The note is kept").wait_for()
    page.locator("body").press("Escape")
    page.keyboard.press("f")
    page.locator(".card-star").wait_for()
    page.goto("/library?favourite=1&tag=best of all")
    listed(page, 1)
    page.locator(".card").click()
    expect_value(page, "Note", "use it at 0.6")


def test_what_is_typed_is_not_drawn_over_when_work_ends(browser: Browser, shelf: Server) -> None:
    with room(browser, shelf) as page:
        page.get_by_role("option", name="starter-image").click()
        note = page.get_by_label("Note")
        written: list[Any] = []
        page.on("request", lambda asked: written.append(asked.post_data_json) if asked.method == "PATCH" else None)
        note.press_sequentially("half a")
        begin(shelf, "/api/models/scan")
        page.get_by_text("Done:").wait_for(timeout=LONG)
        with page.expect_response("**/api/models/*"):
            begin(shelf, f"/api/models/{page.url.split('model=')[1]}/hash")
        note.press_sequentially(" sentence")
        page.keyboard.press("Tab")
        page.get_by_text("The note is kept").wait_for()
        expect_value(page, "Note", "half a sentence")
        assert written == [{"note": "half a sentence", "was": {"note": ""}}], "nothing is handed in before it is done"


def test_what_can_not_be_kept_stays_in_its_field_until_it_is(browser: Browser, many: Server) -> None:
    """A note that the server refuses, one that it can't be told of, and one that a reload comes before."""
    with watched_page(browser, many.url) as (page, watched):
        watched.allowed += ["422", "net::ERR"]
        sign_in(page, many.home, many.url)
        page.goto("/library")
        page.locator(".card:not(.is-coming)").first.wait_for()
        panel = open_model(page, 5154)
        id = page.url.split("model=")[1].split("&")[0]
        note = panel.get_by_label("Note")
        note.fill("n" * 10_001)
        page.keyboard.press("Tab")
        panel.get_by_text("may have at most 10,000 characters").wait_for()
        expect(note).to_have_value("n" * 10_001)
        expect(note).to_have_accessible_description(re.compile("at most 10,000"))

        page.context.set_offline(True)
        note.fill("my long careful note")
        page.keyboard.press("Tab")
        panel.get_by_text("The server does not answer").wait_for()
        expect(note).to_have_value("my long careful note")
        page.context.set_offline(False)
        panel.get_by_role("button", name="Try again").click()
        page.get_by_text("The note is kept").wait_for()
        assert told(many, f"/api/models/{id}")["note"] == "my long careful note"
        expect(panel.get_by_text("The server does not answer")).to_have_count(0)

        note.press_sequentially(", and more")
        page.reload()
        expect(note).to_have_value("my long careful note, and more")
        panel.get_by_text("Not kept yet").wait_for()
        assert told(many, f"/api/models/{id}")["note"] == "my long careful note"
        panel.get_by_role("button", name="Keep it").click()
        page.get_by_text("The note is kept").wait_for()
        assert told(many, f"/api/models/{id}")["note"] == "my long careful note, and more"
        page.reload()
        expect(note).to_have_value("my long careful note, and more")
        expect(panel.get_by_text("Not kept yet")).to_have_count(0)


def test_what_is_put_right_wrongly_says_so_beside_its_field(page: Page) -> None:
    panel = open_model(page, 5152)
    panel.get_by_text("Put right").click()
    variant = panel.get_by_label("Variant")
    variant.fill("v" * 201)
    page.keyboard.press("Tab")
    expect(variant).to_have_accessible_description(re.compile("may have at most 200 characters"))
    expect(variant).to_have_value("v" * 201)
    page.keyboard.press("Escape")
    panel.wait_for(state="hidden")


def test_what_two_say_of_a_model_is_all_kept(page: Page, many: Server) -> None:
    """Somebody else, whom this page does not hear of, and another tab, of which it does."""
    panel = open_model(page, 5155)
    id = page.url.split("model=")[1].split("&")[0]
    say(many, id, {"tags": ["theirs"], "corrected": {"kind": "embedding"}})
    panel.get_by_label("Add a tag").press_sequentially("mine")
    page.keyboard.press("Enter")
    panel.get_by_text("mine", exact=True).wait_for()
    panel.get_by_text("theirs", exact=True).wait_for()
    panel.get_by_text("Put right").click()
    say(many, id, {"corrected": {"kind": "vae"}})
    panel.get_by_label("Family").select_option("sd1")
    page.get_by_text("Family is SD 1 now").wait_for()
    now = told(many, f"/api/models/{id}")
    assert (now["tags"], now["corrected"]) == (["mine", "theirs"], {"kind": "vae", "family": "sd1"})

    other = page.context.new_page()
    other.goto(page.url)
    theirs = other.get_by_role("complementary", name="What it is")
    theirs.get_by_role("button", name="Remove the tag theirs").click()
    panel.get_by_text("theirs", exact=True).wait_for(state="detached")
    theirs.get_by_label("Note").fill("of the other tab")
    other.keyboard.press("Tab")
    expect_value(page, "Note", "of the other tab")


def test_of_two_notes_one_is_chosen(page: Page, many: Server) -> None:
    panel = open_model(page, 5156)
    id = page.url.split("model=")[1].split("&")[0]
    note = panel.get_by_label("Note")
    note.press_sequentially("my note")
    say(many, id, {"note": "their note"})
    page.keyboard.press("Tab")
    panel.get_by_text("Somebody else has written meanwhile: their note").wait_for()
    expect(note).to_have_value("my note")
    assert told(many, f"/api/models/{id}")["note"] == "their note"
    panel.get_by_role("button", name="Keep it").click()
    page.get_by_text("The note is kept").wait_for()
    assert told(many, f"/api/models/{id}")["note"] == "my note"


@pytest.mark.parametrize("id", ["nosuch", "0" * 16])
def test_an_address_of_no_model_says_so_in_words(page: Page, id: str) -> None:
    page.goto(f"/library?model={id}")
    panel = page.get_by_role("complementary", name="What it is")
    expect(panel.get_by_role("alert")).to_contain_text("There is no such model here.")


def test_escape_leaves_a_note_and_keeps_it(page: Page, many: Server) -> None:
    panel = open_model(page, 5153)
    id = page.url.split("model=")[1].split("&")[0]
    panel.get_by_label("Note").press_sequentially("of 5153")
    with page.expect_response(f"**/api/models/{id}"):
        page.keyboard.press("Escape")
    panel.wait_for(state="hidden")
    assert told(many, f"/api/models/{id}")["note"] == "of 5153"


def test_a_list_that_is_looked_at_stays_where_it_is_when_work_ends(page: Page, many: Server) -> None:
    starter = told(many, "/api/models?q=starter-image")["items"][0]["id"]
    scroller = page.locator(".library-scroll")
    scroller.evaluate("element => { element.scrollTop = 9000; }")
    with page.expect_response("**/api/models/facets*"):
        begin(many, f"/api/models/{starter}/hash")
    assert scroller.evaluate("element => element.scrollTop") == 9000
    page.get_by_role("navigation", name="Filters").get_by_role("button", name="Checkpoint").click()
    listed(page, 1000 + len(CHECKPOINTS))
    assert scroller.evaluate("element => element.scrollTop") == 0, "another list is shown from its beginning"


def test_a_key_is_for_a_model_that_was_pointed_at(page: Page) -> None:
    written: list[str] = []
    page.on("request", lambda request: written.append(request.url) if request.method == "PATCH" else None)
    page.keyboard.press("f")
    page.keyboard.press("t")
    page.locator(".line").first.wait_for()
    assert not written


def test_marking_a_text_beyond_the_edge_of_a_dialog_leaves_it_open(page: Page) -> None:
    page.get_by_role("button", name="Get a model").click()
    dialog = page.get_by_role("dialog", name="Get a model")
    field = dialog.get_by_label("Which model")
    field.fill("civitai:123")
    box = field.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 60, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(2, box["y"])
    page.mouse.up()
    expect(field).to_have_value("civitai:123")
    page.mouse.click(2, 2)
    dialog.wait_for(state="detached")


@pytest.mark.parametrize("width", [390, 1440])
def test_every_button_has_a_name(browser: Browser, many: Server, width: int) -> None:
    with room(browser, many, viewport={"width": width, "height": 800}) as page:
        page.locator(".card").first.click()
        page.get_by_text("attention weights of rank 8").or_(page.get_by_text("SHA-256")).first.wait_for()
        assert not re.findall(r"^\s*- button$", page.locator("body").aria_snapshot(), re.MULTILINE)


def test_what_is_said_is_of_the_model_that_was_open(page: Page, many: Server) -> None:
    panel = open_model(page, 3333)
    id = page.url.split("model=")[1].split("&")[0]
    panel.get_by_label("Note").press_sequentially("of 3333")
    with page.expect_response("**/api/models/*") as written:
        page.go_back()
    assert written.value.request.method == "PATCH" and written.value.ok
    assert told(many, f"/api/models/{id}")["note"] == "of 3333"


def test_what_is_said_quickly_is_all_kept(page: Page, many: Server) -> None:
    panel = open_model(page, 3334)
    id = page.url.split("model=")[1].split("&")[0]
    held: list[Route] = []
    page.route(f"**/api/models/{id}", lambda route: held.append(route), times=1)
    with page.expect_request(f"**/api/models/{id}"):
        for tag in ("one", "two", "three"):
            panel.get_by_label("Add a tag").press_sequentially(tag)
            page.keyboard.press("Enter")
    panel.get_by_text("Put right").click()
    panel.get_by_label("Kind").select_option("embedding")
    panel.get_by_label("Family").select_option("sdxl")
    held[0].continue_()
    page.get_by_text("Family is SDXL now").wait_for()
    now = told(many, f"/api/models/{id}")
    assert sorted(now["tags"]) == ["one", "three", "two"]
    assert now["corrected"] == {"kind": "embedding", "family": "sdxl"}


def test_a_model_goes_to_make(browser: Browser, shelf: Server) -> None:
    with room(browser, shelf) as page:
        page.get_by_role("option", name="starter-image").click()
        page.get_by_role("button", name="Use in Make").click()
        page.locator(".room-make").get_by_role("button", name="Model: starter-image").wait_for()


def test_a_scan_finds_what_is_new_and_says_how_far_it_is(browser: Browser, shelf: Server) -> None:
    (shelf.home / "models").mkdir(exist_ok=True)
    shutil.copy(STARTER_SHELF / "starter-image.safetensors", shelf.home / "models" / "painter.safetensors")
    with room(browser, shelf) as page:
        page.get_by_role("button", name="Scan").click()
        page.locator(".work-line").get_by_text("Scanning").wait_for()
        page.get_by_role("option", name="painter").wait_for(timeout=LONG)
        page.locator(".work-line").wait_for(state="detached")


def test_work_that_is_stopped_can_be_had_back(browser: Browser, shelf: Server) -> None:
    with room(browser, shelf) as page:
        post(page, "/api/queue/pause")
        page.get_by_role("button", name="Scan").click()
        page.locator(".work-line").get_by_role("button", name="Stop").click()
        page.locator(".work-line").wait_for(state="detached")
        page.locator(".toast", has_text="Cancelled: Scan of the shelves").get_by_role("button", name="Undo").click()
        page.locator(".work-line").wait_for()
        post(page, "/api/queue/resume")
        page.locator(".toast", has_text="Done: Scanning").wait_for(timeout=LONG)


def test_what_is_gone_is_shown_by_itself_until_it_is_forgotten(browser: Browser, shelf: Server) -> None:
    (shelf.home / "models").mkdir(exist_ok=True)
    lent = shelf.home / "models" / "lent.safetensors"
    shutil.copy(STARTER_SHELF / "starter-image.safetensors", lent)
    with room(browser, shelf) as page:
        page.get_by_role("button", name="Scan").click()
        page.get_by_role("option", name="lent").wait_for(timeout=LONG)
        lent.unlink()
        page.get_by_role("button", name="Scan").click()
        page.get_by_role("option", name="lent").wait_for(state="detached", timeout=LONG)
        page.get_by_role("button", name="Gone").click()
        listed(page, 1)
        page.get_by_role("option", name="lent").click()
        panel = page.get_by_role("complementary", name="What it is")
        panel.get_by_text("Its file is not on the shelf any more.").wait_for()
        expect(panel.get_by_role("button", name="Convert …")).to_have_count(0)
        panel.get_by_role("button", name="Forget all that is gone").click()
        toast = page.locator(".toast", has_text="Will be forgotten, with your tags and notes: 1")
        toast.get_by_role("button", name="Undo").click()
        panel.get_by_role("button", name="Forget all that is gone").click()
        with page.expect_request("**/api/models/scan") as asked:
            toast.get_by_role("button", name="Close").click()
        assert asked.value.post_data_json == {"forget_missing": True}
        page.get_by_text("No model is like that.").wait_for(timeout=LONG)


def test_a_model_is_converted(browser: Browser, shelf: Server) -> None:
    with room(browser, shelf) as page:
        page.get_by_role("option", name="starter-image").click()
        page.get_by_role("button", name="Convert …").click()
        dialog = page.get_by_role("dialog", name="Convert starter-image")
        dialog.get_by_label("Name of the new model").fill("small/er")
        dialog.get_by_role("button", name="Convert").click()
        dialog.get_by_role("alert").wait_for()  # a name with a folder in it is refused, and kept to be mended
        dialog.get_by_label("Name of the new model").fill("smaller")
        dialog.get_by_role("button", name="Convert").click()
        dialog.wait_for(state="detached")
        page.get_by_text("Done:").wait_for(timeout=LONG)
        assert list((shelf.home / "models").rglob("smaller.safetensors"))
        page.get_by_role("option", name="smaller").wait_for()

        page.get_by_role("option", name="starter-image").click()
        page.get_by_role("button", name="Convert …").click()
        dialog.get_by_label("Name of the new model").fill("smaller")
        dialog.get_by_role("button", name="Convert").click()
        dialog.get_by_role("alert").wait_for()
        dialog.get_by_label("Replace what has this name").check()
        dialog.get_by_label("Name of the new model").fill("smaller ")
        assert not dialog.get_by_label("Replace what has this name").is_checked()  # another name is another model
        dialog.get_by_label("Replace what has this name").check()
        with page.expect_response("**/convert") as answered:
            dialog.get_by_role("button", name="Convert").click()
        assert answered.value.status == 202
        dialog.wait_for(state="detached")


def test_two_models_of_one_name_are_merged(browser: Browser, shelf: Server) -> None:
    """And nothing is handed in before both are chosen."""
    for folder, source in (("a", "starter-image"), ("b", "chilly")):
        (shelf.home / "models" / folder).mkdir(parents=True)
        shutil.copy(STARTER_SHELF / f"{source}.safetensors", shelf.home / "models" / folder / "photo.safetensors")
    with room(browser, shelf) as page:
        page.get_by_role("button", name="Scan").click()
        page.get_by_role("option", name="photo").first.wait_for(timeout=LONG)
        page.get_by_role("button", name="Merge").click()
        dialog = page.get_by_role("dialog", name="Merge models")
        dialog.get_by_label("Name of the new model").fill("both")
        for label, number in (("A", 0), ("B", 1)):
            dialog.get_by_role("button", name="Merge", exact=True).click()
            dialog.get_by_text("Choose a checkpoint", exact=True).locator("visible=true").wait_for()
            dialog.get_by_role("button", name=f"{label}: Choose a model").click()
            dialog.get_by_role("searchbox").or_(dialog.get_by_role("combobox", name="Search checkpoints")).fill("photo")
            dialog.get_by_role("option", name="photo").nth(number).click()
        with page.expect_request("**/api/models/merge") as asked:
            dialog.get_by_role("button", name="Merge", exact=True).click()
        one, other = asked.value.post_data_json["models"]
        assert one != other
        dialog.wait_for(state="detached")
        page.get_by_text("Done:").wait_for(timeout=LONG)
        page.get_by_role("option", name="both").wait_for()
    assert list((shelf.home / "models").rglob("both.safetensors"))


def test_what_cannot_be_had_says_why(browser: Browser, shelf: Server) -> None:
    with room(browser, shelf) as page:
        page.get_by_role("button", name="Get a model").click()
        dialog = page.get_by_role("dialog", name="Get a model")
        dialog.get_by_label("Which model").fill("https://127.0.0.1:9/model.safetensors")
        dialog.get_by_role("button", name="Get it").click()
        page.locator(".toast.error, .wrong:visible").first.wait_for(timeout=LONG)


def test_an_empty_library_says_what_to_do(browser: Browser, tmp_path: Path) -> None:
    with serving(tmp_path / "home") as server, watched_page(browser, server.url) as (page, _):
        sign_in(page, server.home, server.url)
        page.goto("/library?q=nothing-is-called-so")
        page.get_by_text("No model is like that.").wait_for()
        page.get_by_role("button", name="Clear the search").click()
        page.locator(".card").first.wait_for()


@pytest.mark.parametrize("width", [360, 768, 1024, 1440])
def test_nothing_scrolls_sideways(browser: Browser, many: Server, width: int) -> None:
    with room(browser, many, viewport={"width": width, "height": 800}) as page:
        page.locator(".card").first.click()
        page.get_by_role("complementary", name="What it is").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        wide = page.evaluate(WIDER)
        assert wide == []


def test_what_was_read_of_a_model_is_named_in_chinese(browser: Browser, tmp_path: Path) -> None:
    names = ["base model hash", "clip skip", "learning rate", "network arguments", "trained on", "training resolution"]
    with open_catalog(tmp_path / "catalog.sqlite") as catalog:
        catalog.put([replace(entry(1), about=About(extra=dict.fromkeys(names, "1")))])
    with serving(tmp_path) as server, room(browser, server, locale="zh-CN") as page:
        page.locator(".card", has_text="00001").click()
        page.locator(".facts dt", has_text="学习率").wait_for()
        said = page.locator(".library-drawer dt").all_text_contents()
        assert [text for text in said if not re.search("[\u4e00-\u9fff]", text)] == []


def test_a_name_turns_nothing_around(browser: Browser, tmp_path: Path) -> None:
    """A name that reads backwards hides its ending; it is shown as the command line shows it."""
    path = Path("/shelf/lora/neon\u202egnp\x07.safetensors")
    with open_catalog(tmp_path / "catalog.sqlite") as catalog:
        catalog.put([replace(entry(1), path=path)])
    with serving(tmp_path) as server, room(browser, server) as page:
        card = page.locator(".card", has_text=r"neon\u202egnp\x07")
        expect(card).to_have_attribute("aria-label", re.compile(r"^neon\\u202egnp\\x07,"))
        card.click()
        page.get_by_role("heading", name=r"neon\u202egnp\x07").wait_for()
        assert re.search("[\u202e\x07]", page.evaluate("document.body.innerText")) is None
