"""The room Queue in a real browser: the order of what waits, pausing, cancelling, failures, and a reload."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from browser import PALE, chromium, sign_in, watched_page
from door_server import Server, serving
from playwright.sync_api import Browser, Locator, Page, expect

pytestmark = pytest.mark.slow
PROMPTS = ("a red house", "a blue boat", "a green tent", "a white tower")
LONG = 180_000  # ms: the worker has to import torch before the first picture


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


class Line:
    """A server whose queue rests, with four jobs in it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        key = json.loads((server.home / "serve.json").read_text())["key"]
        self.client = httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {key}"}, timeout=60.0)
        self.post("/api/queue/pause")
        for prompt in PROMPTS:
            self.post("/api/jobs", {"recipe": {"prompt": prompt, "sampling": {"steps": 2}}})

    def post(self, path: str, body: Any = None) -> Any:
        answer = self.client.post(path, json=body or {})
        assert answer.status_code in (200, 202), answer.text
        return answer.json()

    def close(self) -> None:
        self.client.close()

    def waiting(self) -> list[str]:
        """The prompts of what waits, in its order."""
        answer = self.client.get("/api/jobs", params={"state": ["waiting", "paused"]})
        return [job["title"] for job in answer.json()["items"]]


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    home = tmp_path / "home"
    home.mkdir()
    (home / "settings.toml").write_text(
        'civitai_url = "https://127.0.0.1:9"\n'
    )  # what is asked for there fails at once
    with serving(home) as server, closing(Line(server)) as line:
        yield line


@contextmanager
def room(browser: Browser, line: Line, **options: Any) -> Iterator[Page]:
    """The room with all that waits."""
    with watched_page(browser, line.server.url, **options) as (page, watched):
        watched.allowed.append("404")  # a preview may be gone before it is fetched
        sign_in(page, line.server.home, line.server.url)
        page.goto("/queue")
        page.get_by_role("list", name="Waiting").get_by_role("listitem").nth(3).wait_for()
        page.get_by_text("The queue rests.").wait_for()  # it comes above them, and moves them
        yield page


@pytest.fixture
def page(browser: Browser, line: Line) -> Iterator[Page]:
    with room(browser, line) as page:
        yield page


def row(page: Page, title: str) -> Any:
    return page.locator(".job", has_text=title)


def shown(page: Page) -> Locator:
    """The prompts of what waits as the page shows them."""
    return page.get_by_role("list", name="Waiting").locator(".job-title")


def test_what_waits_is_put_in_order_by_dragging(page: Page, line: Line) -> None:
    expect(shown(page)).to_have_text(list(PROMPTS))
    grip, goal = row(page, "a white tower").locator(".job-grip"), row(page, "a blue boat").bounding_box()
    assert goal is not None
    grip.hover()
    page.mouse.down()
    page.mouse.move(goal["x"] + 10, goal["y"] + goal["height"] / 2, steps=6)
    with page.expect_response("**/move") as moved:
        page.mouse.up()
    assert moved.value.ok
    order = ["a red house", "a white tower", "a blue boat", "a green tent"]
    expect(shown(page)).to_have_text(order)
    assert line.waiting() == order
    grip = row(page, "a red house").locator(".job-grip")
    grip.hover()
    page.mouse.down()
    page.mouse.move(goal["x"] + 10, goal["y"] + 300, steps=6)
    page.keyboard.press("Escape")
    page.mouse.up()
    expect(shown(page), "Escape puts it back").to_have_text(order)
    page.reload()
    row(page, "a green tent").wait_for()
    expect(shown(page)).to_have_text(order)


def test_a_job_that_is_cancelled_while_it_is_dragged_is_let_go(page: Page, line: Line) -> None:
    goal = row(page, "a blue boat").bounding_box()
    assert goal is not None
    dragged = row(page, "a white tower")
    id = dragged.get_attribute("data-id")
    dragged.locator(".job-grip").hover()
    page.mouse.down()
    page.mouse.move(goal["x"] + 10, goal["y"] + goal["height"] / 2, steps=6)
    key = json.loads((line.server.home / "serve.json").read_text())["key"]
    with line.server.client(headers={"Authorization": f"Bearer {key}"}) as client:
        assert client.post(f"/api/jobs/{id}/cancel").status_code == 200
    expect(page.locator(".is-sorting")).to_have_count(0)
    page.mouse.up()
    expect(shown(page)).to_have_text([prompt for prompt in PROMPTS if prompt != "a white tower"])
    expect(page.locator(".toast")).to_have_count(0)


def test_what_a_narrow_row_cuts_off_is_its_title(page: Page) -> None:
    facts = row(page, "a white tower").locator(".job-facts")
    expect(facts).to_have_text(re.compile("×"))
    assert facts.get_attribute("title") == facts.text_content()


def test_what_waits_is_put_in_order_with_the_keyboard(page: Page, line: Line) -> None:
    row(page, "a green tent").focus()
    for _ in range(2):
        with page.expect_response("**/move"):
            page.keyboard.press("Alt+ArrowUp")
    assert line.waiting() == ["a green tent", "a red house", "a blue boat", "a white tower"]
    expect(page.locator(":focus"), "the focus goes with it").to_contain_text("a green tent")
    expect(page.locator("#said")).to_have_text("a green tent: place 1 of 4")
    with page.expect_response("**/move"):
        page.keyboard.press("Alt+ArrowDown")
    expect(page.locator("#said")).to_have_text("a green tent: place 2 of 4")
    page.keyboard.press("ArrowDown")
    expect(page.locator(":focus")).to_contain_text("a blue boat")
    assert line.waiting()[:2] == ["a red house", "a green tent"]


def test_one_is_made_next_by_its_menu(page: Page, line: Line) -> None:
    row(page, "a white tower").get_by_role("button", name="More").click()
    with page.expect_response("**/move"):
        page.get_by_role("menuitem", name="Make it next").click()
    assert line.waiting()[0] == "a white tower"
    row(page, "a blue boat").get_by_role("button", name="More").click()
    with page.expect_response(lambda answer: answer.request.method == "PATCH"):
        page.get_by_role("menuitemradio", name="High").click()
    row(page, "a blue boat").get_by_text("Priority: High").wait_for()
    assert line.waiting()[0] == "a blue boat"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast(browser: Browser, line: Line, scheme: Any) -> None:
    with room(browser, line, color_scheme=scheme, reduced_motion="reduce") as page:
        line.post(f"/api/jobs/{line.client.get('/api/jobs').json()['items'][0]['id']}/cancel")
        page.locator('.job[data-state="cancelled"]').get_by_role("button", name="Try again").wait_for()
        page.mouse.move(0, 0)
        page.evaluate("""async () => {
          const { toast } = await import("/static/parts/toast.js");
          const action = { text: "See it", run() {} };
          for (const kind of ["", "error"]) toast({ text: `It is over ${kind}`, kind, action });
          const coming = document.getElementById("toasts").getAnimations({ subtree: true });
          await Promise.all(coming.map((one) => one.finished));
        }""")
        page.get_by_role("button", name="See it").nth(1).wait_for()
        assert page.evaluate(PALE) == []


def test_what_is_cancelled_can_be_had_again(page: Page, line: Line) -> None:
    with page.expect_response("**/cancel"):
        row(page, "a blue boat").get_by_role("button", name="Cancel").click()
    history = page.get_by_role("list", name="History")
    history.get_by_text("a blue boat").wait_for()
    assert line.waiting() == ["a red house", "a green tent", "a white tower"]
    with page.expect_response("**/retry"):
        page.locator(".toast").get_by_role("button", name="Undo").click()
    page.get_by_role("list", name="Waiting").get_by_text("a blue boat").wait_for()
    assert line.waiting() == list(PROMPTS), "where it was"
    row(page, "a red house").focus()
    page.keyboard.press("Delete")
    history.get_by_text("a red house").wait_for()
    expect(page.locator(":focus"), "the next one has the focus").to_contain_text("a blue boat")


def test_a_paused_job_that_is_had_back_is_paused(page: Page, line: Line) -> None:
    row(page, "a blue boat").focus()
    page.keyboard.press("p")
    row(page, "a blue boat").get_by_text("paused").wait_for()
    with page.expect_response("**/cancel"):
        row(page, "a blue boat").get_by_role("button", name="Cancel").click()
    with page.expect_response("**/pause"):
        page.locator(".toast").get_by_role("button", name="Undo").click()
    page.get_by_role("list", name="Waiting").get_by_text("a blue boat").wait_for()
    row(page, "a blue boat").get_by_text("paused").wait_for()


def test_a_job_and_the_whole_line_rest_and_go_on(page: Page, line: Line) -> None:
    page.get_by_text("The queue rests.").wait_for()
    row(page, "a red house").focus()
    page.keyboard.press("p")
    row(page, "a red house").get_by_text("paused").wait_for()
    page.locator(".room-bar").get_by_role("button", name="Go on").click()
    page.get_by_text("The queue rests.").wait_for(state="hidden")
    history = page.get_by_role("list", name="History")
    history.get_by_text("a white tower").wait_for(timeout=LONG)
    expect(shown(page), "what is paused by itself still rests").to_have_text(["a red house"])
    history.locator(".job-picture img").first.wait_for()
    expect(row(page, "a white tower").locator(".job-picture img")).to_have_attribute("alt", "a white tower")
    page.reload()
    history.get_by_text("a white tower").wait_for()
    row(page, "a red house").get_by_role("button", name="Go on").click()
    history.get_by_text("a red house").wait_for(timeout=LONG)
    row(page, "a red house").get_by_role("button", name="See what came of it").click()
    page.get_by_role("dialog").get_by_role("img", name="a red house").wait_for()


def test_a_reload_amid_a_job_keeps_everything(page: Page, line: Line) -> None:
    slow = line.post("/api/jobs", {"recipe": {"prompt": "a slow one", "count": 4, "sampling": {"steps": 150}}})
    line.post(
        f"/api/jobs/{slow['id']}/move", {"before": line.client.get("/api/jobs?state=waiting").json()["items"][0]["id"]}
    )
    line.post("/api/queue/resume")
    running = page.get_by_role("list", name="Running")
    running.get_by_text("step").wait_for(timeout=LONG)
    page.reload()
    running.get_by_text("a slow one").wait_for()
    running.get_by_text("step").wait_for()
    running.get_by_text("left").wait_for()
    expect(running.locator("progress")).not_to_have_js_property("value", 0)
    running.get_by_role("button", name="Cancel").click()
    page.get_by_role("list", name="History").get_by_text("a slow one").wait_for(timeout=LONG)


def test_failures_stay_with_their_reason_and_are_tried_again(page: Page, line: Line) -> None:
    line.post("/api/models/get", {"reference": "civitai:1"})
    line.post("/api/queue/resume")
    failed = page.locator('.job[data-state="failed"]')
    failed.wait_for(timeout=LONG)
    assert failed.locator(".job-why strong").text_content()
    page.get_by_role("button", name="Failed", exact=True).click()
    page.get_by_role("list", name="History").get_by_role("listitem").first.wait_for()
    expect(page.get_by_role("list", name="History").get_by_role("listitem")).to_have_count(1)
    with page.expect_response("**/retry") as retried:
        failed.get_by_role("button", name="Try again").click()
    assert retried.value.ok


def test_a_picture_that_is_dropped_where_nobody_takes_it_takes_no_place(page: Page, line: Line) -> None:
    prevented = page.evaluate(
        """() => ["dragover", "drop"].map((kind) => {
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File(["x"], "x.png", { type: "image/png" }));
            const event = new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true });
            document.querySelector(".room-queue").dispatchEvent(event);
            return event.defaultPrevented;
        })"""
    )
    assert prevented == [True, True]


def test_an_empty_queue_says_what_it_is_for(browser: Browser, tmp_path: Path) -> None:
    with serving(tmp_path / "home") as server, watched_page(browser, server.url) as (page, _):
        sign_in(page, server.home, server.url)
        page.goto("/queue")
        page.get_by_text("Nothing waits.").wait_for()
        page.get_by_role("button", name="Make something").click()
        page.locator(".room-make").wait_for()


@pytest.mark.parametrize("width", [360, 900])
def test_nothing_scrolls_sideways(browser: Browser, line: Line, width: int) -> None:
    with room(browser, line, viewport={"width": width, "height": 800}) as page:
        assert page.locator(".queue-page").evaluate("page => page.scrollWidth - page.clientWidth") <= 0


def test_the_time_left_is_that_of_all_pictures(page: Page) -> None:
    """Of two pictures in 10 steps each, 15 steps took 7 s: the last 5 take about 2.5."""
    left = page.evaluate(
        """async () => {
          const frame = document.querySelector('script[type="module"]').src;
          const { Pace } = await import(new URL("parts/jobs.js", frame));
          const pace = new Pace();
          const job = { id: "one", kind: "make", recipe: { count: 2 }, eta: 99 };
          const before = pace.left(job);
          for (let step = 1; step <= 15; step += 1) {
            const [image, done] = step > 10 ? [1, step - 10] : [0, step];
            pace.hear(job, { phase: "sample", image, done, total: 10, at: step / 2 });
            pace.hear(job, { phase: "decode", image, done: 1, total: 1, at: step / 2 });
          }
          return [before, pace.left(job)];
        }"""
    )
    assert left[0] == 99
    assert left[1] == pytest.approx(2.5, abs=0.5)
