"""The page for those who may not do everything: each room shows what may be seen, and nothing that would be refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from browser import chromium, watched_page
from gallery_outputs import added, recipe_of, write_output
from native import Api, studio
from playwright.sync_api import Browser, Locator, Page, Route, expect
from test_native_trainings import QUICK, filled

pytestmark = pytest.mark.slow
WAITING, ENDED = "a blue boat", "a green tent"
NOTE = "good for houses"
PASTED = """
() => {
  const clipboardData = new DataTransfer();
  clipboardData.items.add(new File(["a picture"], "a.png", { type: "image/png" }));
  document.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A server on which jobs stay where they are put, and one model has been spoken of."""
    with studio(tmp_path_factory.mktemp("rights") / "home") as api:
        model = api.get("/models")["items"][0]["id"]
        assert api("PATCH", f"/models/{model}", {"tags": ["tried"], "note": NOTE}).status == 200
        yield api


def left_with(api: Api, name: str, *scopes: str) -> Api:
    """Somebody who once could do everything, and has something of it in each room, with no more than these scopes."""
    once = api.user(name, "read", "generate", "manage")
    for number in range(3):
        output = write_output(api.shop.settings.outputs, recipe_of(seed=number), id=f"{name}{number}-0", owner=name)
        added(api.shop.gallery, output)
    once.post("/outputs/delete", {"ids": [f"{name}0-0"]}, 204)
    jobs = [once.post("/jobs", {"recipe": {"prompt": prompt}}, 202)["id"] for prompt in (WAITING, ENDED)]
    once.post(f"/jobs/{jobs[1]}/cancel")
    once.post("/trainings", {"training": {**QUICK, "data": [filled(once, 1)]}, "name": name}, 202)
    api.served.accounts.remove(name)
    return api.user(name, *scopes)


def all_of(person: Api) -> Any:
    """Everything that somebody could have changed."""
    jobs = [(job["id"], job["state"], job["priority"]) for job in person.get("/jobs")["items"]]
    outputs = [(output["id"], output["favourite"]) for output in person.get("/outputs")["items"]]
    models = [(model["id"], model["favourite"]) for model in person.get("/models")["items"]]
    return jobs, outputs, models, person.get("/queue")["paused"], person.get("/datasets")["items"]


@contextmanager
def looking(browser: Browser, person: Api, room: str = "/") -> Iterator[Page]:
    """The page as somebody has it, who must be refused nothing; what is refused is an error on its console."""
    headers = {"Authorization": f"Bearer {person.key}"}
    with watched_page(browser, person.served.origin, extra_http_headers=headers) as (page, _):
        page.goto(room)
        expect(page.locator("html[data-lacks]")).to_be_attached()
        yield page


def go(page: Page, room: str) -> Locator:
    page.get_by_role("link", name=room).click()
    return page.locator(f".room-{room.lower()}")


def has(place: Page | Locator, *names: str) -> None:
    for name in names:
        expect(place.get_by_role("button", name=name, exact=True).first, name).to_be_visible()


def lacks(place: Page | Locator, *names: str) -> None:
    """None of these buttons can be found by anybody; ask once the place has what it shall have."""
    for name in names:
        expect(place.get_by_role("button", name=name, exact=True), name).to_have_count(0)


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def keys_told(page: Page) -> list[str]:
    """What the page says that keys do here."""
    page.keyboard.press("?")
    told = page.get_by_role("dialog", name="Keys").locator("dd").all_text_contents()
    page.keyboard.press("Escape")
    return told


def test_who_may_only_look_sees_every_room_and_can_change_nothing(browser: Browser, api: Api) -> None:
    person = left_with(api, "reader", "read")
    before = all_of(person)
    with looking(browser, person) as page:
        make = page.locator(".room-make")
        make.get_by_text("Your key is for looking around").wait_for()
        make.locator(".print").nth(1).click()
        has(make, "Recipe", "Compare", "More")
        lacks(
            make,
            "Make Ctrl Enter",
            "Stop Esc",
            "Take out of the queue",
            "Reuse",
            "Vary",
            "Start from it",
            "Mask a part",
        )
        expect(make.get_by_label("Prompt", exact=True)).to_be_hidden()
        make.get_by_role("button", name="More").click()
        expect(page.get_by_role("menuitem")).to_have_text(["Copy the prompt", "Copy the seed", re.compile("Zoom")])
        press(page, "Escape", "Control+Enter", "Delete")
        told = keys_told(page)
        assert "Zoom" in told and not {"Make it", "Stop what is being made", "Delete the picture"} & set(told)
        page.evaluate(PASTED)
        page.goto(f"/?output={person.get('/outputs')['items'][0]['id']}&as=recipe")  # as a link that somebody sent
        page.wait_for_url(f"{person.served.origin}/")

        library = go(page, "Library")
        lacks(library, "Scan", "Merge", "Get a model")
        library.locator(".card").first.click()
        drawer = library.get_by_role("complementary")
        drawer.get_by_text(NOTE).wait_for()
        drawer.locator(".chip", has_text="tried").wait_for()
        lacks(drawer, "Favourite", "Use in Make", "Convert …", "Compute", "Remove the tag tried")
        expect(drawer.get_by_role("textbox")).to_have_count(0)
        expect(drawer.get_by_text("Put right")).to_have_count(0)
        assert page.get_by_text("Settings taken").count() == 0
        press(page, "f", "u")
        assert not {"Favourite", "Use in Make"} & set(keys_told(page))

        gallery = go(page, "Gallery")
        gallery.locator(".piece img").nth(1).wait_for()
        press(page, "Control+a")
        has(gallery, "Compare", "Export")
        lacks(gallery, "Favourite", "Folder", "Delete")
        press(page, "f", "Delete", "Escape")
        gallery.locator(".piece").first.click()
        has(gallery, "Compare", "Back to the gallery")
        lacks(gallery, "Make again", "Vary", "Use as start", "Open in Make", "Favourite", "Folder", "Delete")
        press(page, "m", "v", "s", "f", "Delete")
        assert not {"Make again", "Vary", "Use as start", "Favourite", "Delete"} & set(keys_told(page))
        press(page, "Escape")
        gallery.get_by_role("button", name="Trash").click()
        expect(gallery.locator(".piece img")).to_have_count(1)
        press(page, "Control+a")
        gallery.get_by_text("1 selected").wait_for()
        lacks(gallery, "Restore")

        train = go(page, "Train")
        train.get_by_text("Teaching models takes a key").wait_for()
        train.get_by_role("heading", name="reader").wait_for()
        lacks(train, "Start training", "Check", "Choose pictures", "Stop", "Put them into the form")
        press(page, "Control+Enter", "Escape")

        queue = go(page, "Queue")
        line = queue.locator(".job", has_text=WAITING)
        has(line, f"More: {WAITING}")
        lacks(queue, "Pause the queue", f"Pause: {WAITING}", f"Cancel: {WAITING}", "Try again")
        expect(queue.locator(".job-grip:visible")).to_have_count(0)
        line.focus()
        press(page, "Alt+ArrowDown", "p", "Delete")
        queue.locator(".job", has_text=ENDED).focus()
        press(page, "r")
        line.get_by_role("button", name="More").click()
        expect(page.get_by_role("menuitem")).to_have_text(["Copy the id"])

        go(page, "System").get_by_text("reader").wait_for()
    assert all_of(person) == before


def test_who_may_make_but_not_manage_has_all_that_it_takes_to_make(browser: Browser, api: Api) -> None:
    person = left_with(api, "maker", "read", "generate")
    with looking(browser, person) as page:
        make = page.locator(".room-make")
        make.get_by_label("Prompt", exact=True).fill("a white tower")
        has(make, "Make Ctrl Enter", "Stop Esc")
        with page.expect_response(lambda answer: answer.request.method == "POST" and "jobs" in answer.url) as queued:
            press(page, "Control+Enter")
        assert queued.value.status == 202
        expect(make.get_by_text("Your key is for looking around")).to_be_hidden()

        library = go(page, "Library")
        library.locator(".card").first.click()
        has(library, "Use in Make")
        lacks(library, "Scan", "Merge", "Get a model", "Favourite", "Convert …", "Remove the tag tried")

        gallery = go(page, "Gallery")
        gallery.locator(".piece img").nth(1).wait_for()
        press(page, "Control+a")
        has(gallery, "Favourite", "Folder", "Delete")
        with page.expect_response(lambda answer: answer.request.method == "PATCH") as marked:
            press(page, "f")
        assert marked.value.status == 200

        train = go(page, "Train")
        train.get_by_text("Teaching models takes a key").wait_for()
        has(train, "Stop")
        lacks(train, "Start training", "Choose pictures", "Put them into the form")

        queue = go(page, "Queue")
        has(queue, f"Pause: {WAITING}", f"Cancel: {WAITING}", "Try again")
        lacks(queue, "Pause the queue")
        queue.get_by_role("button", name=f"More: {WAITING}").click()
        expect(page.get_by_role("menuitemradio")).to_have_text(["Normal", "Low"])
        expect(queue.locator(".job-grip:visible")).to_have_count(3)


def test_who_may_manage_but_not_make_ends_what_they_began(browser: Browser, api: Api) -> None:
    with looking(browser, left_with(api, "keeper", "read", "manage"), "/train") as page:
        has(page.locator(".room-train"), "Stop", "Start training")
        queue = go(page, "Queue")
        has(queue, f"Pause: {WAITING}", f"Cancel: {WAITING}", "Pause the queue")
        lacks(queue, "Try again", "Make something")
        with page.expect_response("**/cancel") as ended:
            queue.get_by_role("button", name=f"Cancel: {WAITING}").click()
        assert ended.value.status == 200


def test_nothing_is_asked_that_may_be_refused_before_it_is_known_who_looks(browser: Browser, api: Api) -> None:
    with looking(browser, api.user("late", "read"), "/system") as page:
        held: list[Route] = []
        page.route("**/api/me", lambda route: held.append(route))
        with page.expect_response("**/form"):
            page.goto("/")
        expect(page.get_by_label("Prompt", exact=True)).to_be_visible()
        held[0].continue_()
        page.get_by_text("Your key is for looking around").wait_for()
        go(page, "Library").locator(".card").first.wait_for()


def test_who_may_not_get_models_is_told_who_can_where_none_runs(browser: Browser, api: Api) -> None:
    with looking(browser, api.user("early", "read", "generate"), "/queue") as page:
        page.route("**/api/models?*", lambda route: route.fulfill(json={"items": [], "total": 0, "next": None}))
        go(page, "Make").get_by_text("whoever runs this server can get one").wait_for()


def test_an_empty_gallery_speaks_to_whoever_looks(browser: Browser, api: Api) -> None:
    with looking(browser, api.user("visitor", "read"), "/gallery") as page:
        page.get_by_text("What is made in your name hangs here").wait_for()
        lacks(page, "Make the first picture")
    with looking(browser, api.user("beginner", "read", "generate"), "/gallery") as page:
        page.get_by_text("What you make hangs here").wait_for()
        has(page, "Make the first picture")


def test_an_admin_may_do_everything_whatever_else_the_key_says(browser: Browser, api: Api) -> None:
    with looking(browser, api.user("chief", "admin")) as page:
        has(page, "Make Ctrl Enter")
        has(go(page, "Queue"), "Pause the queue")
        has(go(page, "Library"), "Scan")
