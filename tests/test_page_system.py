"""The room System in a real browser: memory, disk, the log, what can be set, who may come in; and all rooms' words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from browser import chromium, sign_in, watched_page
from door_server import Server, serving
from playwright.sync_api import APIResponse, Browser, Page, Route, expect

pytestmark = pytest.mark.slow
ROOMS = ("library", "gallery", "queue", "system")
NAMELESS = """
[...document.querySelectorAll("main button, main input, main select, main textarea")]
    .filter((element) => !element.getAttribute("aria-label") && !element.textContent.trim() && !element.title)
    .filter((element) => !element.labels?.[0]?.textContent.trim())
    .map((element) => element.outerHTML)
"""
LONG = 180_000  # ms: the worker has to import torch before the first picture


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("system") / "home") as server:
        yield server


@contextmanager
def room(browser: Browser, server: Server, **options: Any) -> Iterator[Page]:
    with watched_page(browser, server.url, **options) as (page, watched):
        watched.allowed += ["401", "404", "422"]  # a browser says on its console what the tests provoke
        sign_in(page, server.home, server.url)
        page.goto("/system")
        page.locator("#rooms a").first.wait_for(state="attached")
        page.locator(".device").first.wait_for()
        yield page


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    with room(browser, server) as page:
        yield page


def post(server: Server, path: str, body: Any) -> Any:
    key = json.loads((server.home / "serve.json").read_text())["key"]
    return httpx.post(server.url + path, json=body, headers={"Authorization": f"Bearer {key}"}, timeout=60.0).json()


def test_the_memory_of_a_device_shows_its_models(page: Page, server: Server) -> None:
    post(server, "/api/jobs", {"recipe": {"prompt": "a red house", "sampling": {"steps": 1}}})
    devices = page.get_by_role("region", name="Devices")
    devices.get_by_text("starter-image").wait_for(timeout=LONG)
    bar = devices.get_by_role("img").first
    expect(bar).to_have_attribute("aria-label", re.compile("starter-image"))
    pieces = bar.locator(".bytes-piece").evaluate_all(
        "pieces => pieces.map((piece) => piece.getBoundingClientRect().width)"
    )
    assert all(width > 0 for width in pieces)
    disk = page.get_by_role("region", name="Disk")
    disk.get_by_text("Free").wait_for()


def test_models_are_unloaded_at_the_press_of_a_button(page: Page, server: Server) -> None:
    post(server, "/api/jobs", {"recipe": {"prompt": "a red house", "sampling": {"steps": 1}}})
    devices = page.get_by_role("region", name="Devices")
    button = devices.get_by_role("button", name="Unload models")
    button.wait_for(timeout=LONG)
    button.click()
    button.wait_for(state="hidden")
    expect(devices.get_by_role("img").first).not_to_have_attribute("aria-label", re.compile("starter-image"))


def test_the_model_that_is_taken_unless_another_is_named(page: Page, server: Server) -> None:
    field = page.get_by_role("region", name="Settings").get_by_label("Model")
    field.wait_for()
    field.fill("no such model")
    field.press("Tab")
    page.get_by_role("region", name="Settings").get_by_role("alert").wait_for()
    expect(field, "what was typed is kept").to_have_value("no such model")
    field.fill("starter-image")
    field.press("Tab")
    page.get_by_text("Model is starter-image now").wait_for()


def test_a_users_key_is_shown_once_and_lets_in_until_removed(page: Page, server: Server) -> None:
    users = page.get_by_role("region", name="Users and keys")
    users.get_by_role("button", name="Add a user").click()
    page.get_by_role("dialog").get_by_label("Name").fill("ada")
    page.get_by_role("dialog").get_by_role("button", name="Add a user").click()
    dialog = page.get_by_role("dialog", name="The key of ada")
    key = dialog.locator("code").text_content() or ""
    assert httpx.get(f"{server.url}/api/me", headers={"Authorization": f"Bearer {key}"}).json()["name"] == "ada"
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")
    expect(users.get_by_role("button", name="Add a user")).to_be_focused()
    users.get_by_text("ada").wait_for()
    assert key not in page.content()
    users.get_by_role("button", name="New key: ada").click()
    page.get_by_role("dialog", name="New key").get_by_role("button", name="New key").click()
    renewed = dialog.locator("code").text_content() or ""
    assert renewed != key
    dialog.get_by_role("button", name="I have it").click()
    for told, status in ((key, 401), (renewed, 200)):
        assert httpx.get(f"{server.url}/api/me", headers={"Authorization": f"Bearer {told}"}).status_code == status
    dialog.wait_for(state="detached")
    users.get_by_role("button", name="Remove: ada").click()
    page.get_by_role("dialog", name="Remove").get_by_role("button", name="Remove").click()
    users.get_by_text("ada").wait_for(state="detached")
    expect(users.get_by_role("button", name="Add a user")).to_be_focused()
    assert httpx.get(f"{server.url}/api/me", headers={"Authorization": f"Bearer {renewed}"}).status_code == 401


def test_what_a_user_may_do_is_shown_and_changed(page: Page, server: Server) -> None:
    users = page.get_by_role("region", name="Users and keys")
    users.get_by_role("button", name="Add a user").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("cleo")
    dialog.get_by_label("Jobs a minute").fill("30")
    dialog.get_by_label("Pixels a day").fill("100000000")
    dialog.get_by_role("button", name="Add a user").click()
    key = page.get_by_role("dialog", name="The key of cleo").locator("code").text_content()
    page.keyboard.press("Escape")
    line = users.get_by_role("listitem").filter(has_text="cleo")
    expect(line).to_contain_text("Jobs a minute: 30 · Pixels a day: 100,000,000")

    def cleo() -> Any:
        return httpx.get(f"{server.url}/api/me", headers={"Authorization": f"Bearer {key}"}).json()

    change, dialog = users.get_by_role("button", name="Change: cleo"), page.get_by_role("dialog", name="Change cleo")
    change.click()
    expect(dialog.get_by_label("look")).to_be_focused()
    boxes = [dialog.get_by_label(name) for name in ("look", "make", "manage the models", "everything")]
    assert [box.is_checked() for box in boxes] == [True, True, False, False]
    fields = [dialog.get_by_label(name) for name in ("Jobs waiting at once", "Jobs a minute", "Pixels a day")]
    assert [field.input_value() for field in fields] == ["", "30", "100000000"]
    # Meanwhile somebody else changes what is not touched here.
    owner = {"Authorization": f"Bearer {json.loads((server.home / 'serve.json').read_text())['key']}"}
    elsewhere = {"quota": {"per_minute": 7}}
    httpx.patch(f"{server.url}/api/users/cleo", json=elsewhere, headers=owner).raise_for_status()
    boxes[2].check()
    fields[0].fill("200000")
    fields[2].fill("")
    dialog.get_by_role("button", name="Save").click()
    dialog.get_by_text("must be 100,000 or less").wait_for()
    expect(fields[0]).to_be_focused()
    assert cleo()["scopes"] == ["read", "generate"], "nothing of what is refused is done"
    fields[0].fill("2")
    expect(dialog.get_by_role("alert")).to_be_hidden()
    dialog.get_by_role("button", name="Save").click()
    dialog.wait_for(state="detached")
    expect(change).to_be_focused()
    expect(line).to_contain_text("look, make, manage the models")
    expect(line).to_contain_text("Jobs waiting at once: 2 · Jobs a minute: 7")
    expect(line).not_to_contain_text("Pixels")
    assert cleo()["scopes"] == ["read", "generate", "manage"]
    assert cleo()["quota"] == {"waiting": 2, "per_minute": 7, "pixels_per_day": None}
    change.click()
    httpx.delete(f"{server.url}/api/users/cleo", headers=owner).raise_for_status()
    dialog.get_by_role("button", name="Save").click()
    dialog.get_by_text("there is no user 'cleo'").wait_for()


def test_the_log_follows_what_happens(page: Page, server: Server) -> None:
    log = page.get_by_role("region", name="Log").get_by_role("list")
    log.get_by_role("listitem").first.wait_for()
    post(server, "/api/nowhere-at-all", {})
    log.get_by_text("/api/nowhere-at-all").first.wait_for()


def test_a_log_without_warnings_is_not_called_empty(page: Page) -> None:
    log = page.get_by_role("region", name="Log").get_by_role("list")
    log.get_by_role("listitem").first.wait_for()
    lines = [{"at": 1.0, "level": "INFO", "message": "all is well"}]
    page.route("**/api/system/log*", lambda route: route.fulfill(json={"lines": lines}))
    page.get_by_label("Only warnings and errors").check()
    page.reload()
    log.get_by_text("It holds no warnings and no errors.").wait_for()
    page.get_by_label("Only warnings and errors").uncheck()
    log.get_by_text("all is well").wait_for()
    lines.clear()
    page.reload()
    log.get_by_text("The log is empty.").wait_for()


def test_somebody_who_was_removed_comes_back(page: Page, server: Server) -> None:
    key = post(server, "/api/users", {"name": "bea", "scopes": ["read", "generate", "manage"]})["key"]
    headers = {"Authorization": f"Bearer {key}"}
    assert httpx.post(f"{server.url}/api/datasets", json={"name": "hers"}, headers=headers).status_code == 201
    owner = json.loads((server.home / "serve.json").read_text())["key"]
    httpx.delete(f"{server.url}/api/users/bea", headers={"Authorization": f"Bearer {owner}"}).raise_for_status()
    page.get_by_role("region", name="Users and keys").get_by_role("button", name="Add a user").click()
    dialog = page.get_by_role("dialog")
    add, again = dialog.get_by_role("button", name="Add a user"), dialog.get_by_label("It is the same person")
    expect(again).to_be_hidden()
    dialog.get_by_label("Name").fill("bea")
    add.click()
    dialog.get_by_text("has left jobs, outputs, pictures or datasets").wait_for()
    dialog.get_by_label("Name").fill("be")
    expect(dialog.get_by_role("alert")).to_be_hidden()
    expect(again).to_be_hidden()
    dialog.get_by_label("Name").fill("bea")
    add.click()
    again.check()
    add.click()
    told = page.get_by_role("dialog", name="The key of bea").locator("code").text_content()
    found = httpx.get(f"{server.url}/api/datasets", headers={"Authorization": f"Bearer {told}"}).json()["items"]
    assert [each["name"] for each in found] == ["hers"]


def test_others_see_no_settings_no_log_and_no_keys(browser: Browser, server: Server) -> None:
    key = post(server, "/api/users", {"name": "eve", "scopes": ["read", "generate"]})["key"]
    with watched_page(browser, server.url, extra_http_headers={"Authorization": f"Bearer {key}"}) as (page, _):
        page.goto("/system")
        page.get_by_role("region", name="Server").get_by_text("eve").wait_for()
        for name in ("Settings", "Log", "Users and keys"):
            expect(page.get_by_role("region", name=name, include_hidden=True)).to_be_hidden()


def test_signing_out_locks_this_browser_out(browser: Browser, server: Server) -> None:
    with room(browser, server) as page:
        page.evaluate("localStorage['bottega.make.draft'] = '{}'; localStorage['bottega.theme'] = 'dark'")
        page.get_by_role("button", name="Sign out").click()
        page.get_by_text("You are signed out.").wait_for()
        assert page.request.get("/api/me").status == 401
        assert page.evaluate("Object.keys(localStorage)") == ["bottega.theme"], "nobody else reads what was typed"


def test_signing_out_says_so_whatever_is_refused_before(browser: Browser, server: Server) -> None:
    held: list[tuple[Route, APIResponse]] = []
    with room(browser, server) as page:
        page.route("**/api/session", lambda route: held.append((route, route.fetch())))
        page.get_by_role("button", name="Sign out").click()
        page.locator(".trouble").wait_for()  # of what the page asks for all the time, and is refused by now
        ((route, answer),) = held
        route.fulfill(response=answer)
        page.get_by_text("You are signed out.").wait_for()


@pytest.mark.parametrize("tongue", ["en", "zh-CN"])
def test_numbers_are_written_as_the_language_writes_them(page: Page, tongue: str) -> None:
    values = [0, 7, 999, 1000, 12345, 1234567, -1234, 0.04, 0.06, 0.96, 9.94, 1234.56, 1e15, 0.1 + 0.2, -0.04]
    said = """
    async ([values, tongue]) => {
      const { number } = await import(`${new URL("words.js", document.querySelector("script[type=module]").src)}`);
      const rounded = (digits) => ({ maximumFractionDigits: digits, signDisplay: "negative" });
      const told = (digits) => new Intl.NumberFormat(tongue, rounded(digits));
      return [0, 1, 3].flatMap((digits) => values.map((value) => [number(value, digits), told(digits).format(value)]));
    }
    """
    for ours, theirs in page.evaluate(said, [values, tongue]):
        assert ours == theirs


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_says_everything_in_both_languages(page: Page, name: str) -> None:
    told = page.evaluate("async (name) => (await import(`/static/rooms/${name}.js`)).default.words", name)
    english, chinese = set(told["en"]), set(told["zh"])
    plain = {
        key for key in chinese - english if key.startswith("permit.")
    }  # what the catalog says in English by itself
    assert english == chinese - plain
    holes = {key: sorted(part.split("}")[0] for part in text.split("{")[1:]) for key, text in told["en"].items()}
    for key, wanted in holes.items():
        assert sorted(part.split("}")[0] for part in told["zh"][key].split("{")[1:]) == wanted, key


@pytest.mark.parametrize("name", ROOMS)
@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
def test_a_room_is_whole_on_a_phone(browser: Browser, server: Server, name: str, locale: str) -> None:
    """At 360 px nothing scrolls sideways, every control has a name, and no word is missing."""
    with room(browser, server, viewport={"width": 360, "height": 740}, locale=locale) as page:
        page.goto(f"/{name}")
        page.locator(f".room-{name} h1, .room-{name} h2").first.wait_for(state="attached")
        page.wait_for_load_state("load")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        nameless = page.evaluate(NAMELESS)
        assert nameless == []
        assert (
            page.evaluate(f"[...document.body.innerText.matchAll(/\\\\b{name}\\\\.[a-z.]+\\\\b/g)].map(String)") == []
        )


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("/", ".room-make .fold:has-text('DPM++')"),
        ("/library", "[role=option]"),
        ("/gallery", ".gallery-message .nothing"),
        ("/train", ".room-train .ask"),
        ("/queue", ".queue-sheet .nothing:not(.is-trouble)"),
        ("/system", ".users-add"),
    ],
)
def test_a_room_opened_while_the_server_was_away_opens_when_it_is_back(
    browser: Browser, server: Server, address: str, shown: str
) -> None:
    with watched_page(browser, server.url) as (page, watched):
        watched.allowed.append("net::ERR")
        sign_in(page, server.home, server.url)
        page.route("**/api/**", lambda route: route.abort())
        page.goto(address)
        page.get_by_role("button", name="Try again").wait_for()
        page.locator("#lost").wait_for()
        page.unroute("**/api/**")
        page.locator(shown).first.wait_for()
        page.locator("main").get_by_text("The server does not answer").first.wait_for(state="hidden")
        page.get_by_role("button", name="Try again").wait_for(state="hidden")
        if address == "/system":
            page.get_by_role("region", name="Settings").get_by_label("Model").wait_for()


def test_rooms_opened_without_a_network_open_when_it_is_back(browser: Browser, server: Server) -> None:
    with watched_page(browser, server.url) as (page, watched):
        watched.allowed.append("net::ERR")
        sign_in(page, server.home, server.url)
        page.goto("/")
        page.locator(".room-make .fold:has-text('DPM++')").wait_for()
        for name, shown in (
            ("Library", "[role=option]"),
            ("Gallery", ".gallery-message .nothing:not(.is-trouble), .gallery-scroll [role=option]"),
            ("Queue", ".queue-sheet .nothing:not(.is-trouble)"),
        ):
            page.context.set_offline(True)
            page.get_by_role("link", name=name).click()
            page.locator("main").get_by_text("The server does not answer").first.wait_for()
            expect(page.locator("#lost")).to_be_visible()
            page.context.set_offline(False)
            page.locator(shown).first.wait_for()
            expect(page.get_by_role("button", name="Try again")).to_have_count(0)
            expect(page.locator("#lost")).to_be_hidden()


def test_the_same_complaint_stands_there_once(browser: Browser, server: Server) -> None:
    with watched_page(browser, server.url) as (page, watched):
        watched.allowed.append("net::ERR")
        sign_in(page, server.home, server.url)
        page.goto("/queue")
        page.locator(".queue-sheet .nothing").wait_for()
        page.evaluate(
            """() => {
                const place = document.getElementById("toasts");
                window.told = [];
                new MutationObserver(() => told.push(place.children.length)).observe(place, { childList: true });
            }"""
        )
        page.context.set_offline(True)
        for turn in range(3):
            page.get_by_role("button", name="Pause").click()
            page.wait_for_function("turn => told.length > turn", arg=turn)
        assert set(page.evaluate("told")) == {1}


@pytest.mark.parametrize("width", [390, 1440])
def test_a_room_that_can_not_be_opened_says_so_in_the_middle(browser: Browser, server: Server, width: int) -> None:
    with watched_page(browser, server.url, viewport={"width": width, "height": 800}) as (page, watched):
        watched.allowed.append("net::ERR")
        sign_in(page, server.home, server.url)
        page.route("**/api/trainings*", lambda route: route.abort())
        page.goto("/train")
        page.get_by_role("button", name="Try again").wait_for()
        page.wait_for_function(  # it may be drawn once more
            """width => {
                const box = document.querySelector(".trouble")?.getBoundingClientRect();
                return box && Math.abs(box.x + box.width / 2 - width / 2) < 10;
            }""",
            arg=width,
        )


def test_an_address_where_nothing_is_says_so_and_leads_back(page: Page, server: Server) -> None:
    page.goto("/system/?q=1")
    expect(page).to_have_url(f"{server.url}/system?q=1")
    for language, said in (("en", "There is nothing at this address"), ("zh", "这个地址上什么也没有")):
        page.evaluate("language => localStorage.setItem('bottega.language', language)", language)
        answer = page.goto("/nowhere")
        assert answer and answer.status == 404
        expect(page.get_by_role("heading")).to_have_text(said)
        expect(page).to_have_title(re.compile(said))
    page.get_by_role("main").get_by_role("button").click()
    expect(page).to_have_url(f"{server.url}/")
    expect(page.locator(".room-make")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading")).to_have_text("这个地址上什么也没有")
    key = json.loads((server.home / "serve.json").read_text())["key"]
    headers = {"Authorization": f"Bearer {key}", "Accept": "text/html"}
    for path in ("/api/nowhere", "/sdapi/v1/nowhere", "/nowhere.json"):
        asked = headers if path != "/nowhere.json" else {**headers, "Accept": "application/json"}
        answer = httpx.get(server.url + path, headers=asked)
        assert answer.status_code == 404 and answer.headers["content-type"] == "application/json"
