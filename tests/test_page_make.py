"""The room Make in a real browser: everything that somebody does there, from a first picture to an inpainted one."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from browser import PALE, Watched, chromium, link_into, post, watched_page
from door_server import Server, serving
from PIL import Image, ImageChops
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Browser, Locator, Page, Route, expect

import bottega
from bottega.families.sd1 import family as sd1
from bottega.formats import safetensors

pytestmark = pytest.mark.slow
HOUSE = "a red house by the sea at sunset, watercolor"
TENT = "a green tent in a forest at noon, flat"
PACKAGE = Path(bottega.__file__).parent
LONG = 180_000  # ms: the worker has to import torch before the first picture


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose shelves hold the starter and a LoRA, and were never looked through: the page sees to that."""
    home = tmp_path_factory.mktemp("make") / "home"
    write_lora(home / "models" / "neon_night.safetensors")
    with serving(home) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def seen(server: Server, browser: Browser) -> Iterator[tuple[Page, Watched]]:
    """A fresh browser that is signed in and shows the room, and what it does wrong."""
    with room(server, browser) as (page, watched):
        yield page, watched


@pytest.fixture
def page(seen: tuple[Page, Watched]) -> Page:
    return seen[0]


@contextmanager
def room(server: Server, browser: Browser, **options: Any) -> Iterator[tuple[Page, Watched]]:
    """A browser that shows the room, once all of its form is there, and what was made before."""
    with watched_page(browser, server.url, **options) as (page, watched):
        page.goto(link_into(server.home, server.url))
        page.locator(".result.is-empty, .recent .print").first.wait_for(state="attached", timeout=LONG)
        page.locator("#rooms a").first.wait_for(state="attached")
        page.get_by_text("DPM++ 2M Karras · 20 steps · 7").wait_for(timeout=LONG)
        yield page, watched


def write_lora(path: Path) -> None:
    """A tiny LoRA of Stable Diffusion 1."""
    module = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    tensors = [
        (f"{module}.lora_down.weight", "F16", (4, 320), bytes(2 * 4 * 320)),
        (f"{module}.lora_up.weight", "F16", (320, 4), bytes(2 * 4 * 320)),
    ]
    path.parent.mkdir(parents=True)
    safetensors.write(path, tensors, {"ss_base_model_version": "sd_v1"})


def ask(page: Page, prompt: str, *, steps: int | None = None, seed: int | None = None) -> None:
    """Fill the form in, but for the last key."""
    page.get_by_label("Prompt", exact=True).fill(prompt)
    if seed is not None:
        page.get_by_label("Seed", exact=True).fill(str(seed))
    if steps is not None:
        fold(page, "Sampling").click()
        page.get_by_label("Steps").fill(str(steps))


def make(page: Page) -> None:
    page.keyboard.press("Control+Enter")


def fold(page: Page, title: str) -> Locator:
    """The line that opens a part of the form."""
    return page.locator("summary", has_text=title)


def made(page: Page) -> Locator:
    """The pictures of the strip."""
    return page.locator(".recent .is-made")


def open_jobs(page: Page) -> Locator:
    return page.locator(".recent .is-waiting, .recent .is-running")


def shown(page: Page) -> Locator:
    """The picture in the large frame, once it is an output."""
    return page.locator('.stage-picture[src^="/api/outputs/"][src$="/file"]')


def picture(page: Page, address: str | None) -> Image.Image:
    """A picture of the server, fetched as this page may."""
    assert address is not None
    return Image.open(io.BytesIO(page.request.get(address).body())).convert("RGB")


def make_one(page: Page, prompt: str = HOUSE, **settings: Any) -> str:
    """Make a picture and wait for it; its address."""
    ask(page, prompt, **settings)
    before = made(page).count()
    make(page)
    made(page).nth(before).wait_for(timeout=LONG)
    page.locator(f'.stage-picture[alt="{prompt}"][src$="/file"]').wait_for()
    address = shown(page).get_attribute("src")
    assert address is not None
    return address


# ---------------------------------------------------------------------------------------------------------- first


def test_a_look_at_the_room_has_no_model_hashed(page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.post_data or "") if "/resolve" in request.url else None)
    page.reload()
    page.get_by_text("DPM++ 2M Karras · 20 steps · 7").wait_for()
    with page.expect_request("**/api/resolve"):
        page.get_by_label("Prompt", exact=True).fill(HOUSE)
    assert asked and all(HOUSE in text for text in asked)


def test_what_the_room_needs_first_is_asked_for_once_and_before_its_code_is_there(page: Page) -> None:
    told = page.evaluate("performance.getEntriesByType('resource').map((one) => [one.name, one.initiatorType])")
    how: dict[str, list[str]] = {}
    for name, by in told:
        how.setdefault(name.partition("//")[2].partition("/")[2], []).append(by)
    for address in ("api/me", "api/forms", "api/outputs?limit=60"):
        assert how[address] == ["link"]


def test_a_picture_grows_in_the_frame_that_was_reserved_for_it(page: Page) -> None:
    ask(page, HOUSE)
    held: list[Route] = []
    page.route("**/api/jobs", lambda route: held.append(route), times=1)
    with page.expect_request("**/api/jobs"):
        make(page)
    open_jobs(page).first.wait_for()  # before the server has said anything
    held[0].continue_()
    frame = page.locator(".stage-picture")
    reserved = frame.bounding_box()
    preview = page.locator('.stage-picture[src*="/preview"]')
    preview.wait_for(timeout=LONG)
    expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuetext", re.compile("."))
    page.locator(".caption", has_text=re.compile(r"Step \d+ of 20 · .* left")).wait_for()
    shown(page).wait_for(timeout=LONG)
    assert frame.bounding_box() == reserved, "nothing jumps"
    expect(frame).to_have_attribute("alt", HOUSE)
    expect(made(page)).to_have_count(1)
    page.locator("#said", has_text="Done").wait_for(state="attached")


def test_several_wait_and_esc_stops_one_after_the_other(page: Page) -> None:
    ask(page, TENT, steps=150)
    page.get_by_label("Width", exact=True).fill("512")  # so that none is done before it is stopped
    page.get_by_label("Height", exact=True).fill("512")
    before = made(page).count()
    for _ in range(3):
        make(page)
    open_jobs(page).nth(2).wait_for()
    page.locator(".recent .is-running").wait_for(timeout=LONG)
    for left in (2, 1, 0):
        page.keyboard.press("Escape")
        open_jobs(page).nth(left).wait_for(state="detached")
    # One that the server had begun before it heard of the key is seen once more while it stops.
    expect(page.locator("button.stop")).to_be_hidden(timeout=LONG)
    expect(open_jobs(page)).to_have_count(0)
    expect(made(page)).to_have_count(before)


def test_what_is_stopped_can_be_had_back(page: Page) -> None:
    ask(page, TENT, steps=150)
    page.get_by_label("Width", exact=True).fill("512")
    page.get_by_label("Height", exact=True).fill("512")
    make(page)
    running, toast = page.locator(".recent .is-running"), page.locator(".toast", has_text=f"Cancelled: {TENT}")
    running.wait_for(timeout=LONG)
    page.keyboard.press("Escape")
    with page.expect_response("**/retry", timeout=LONG):  # once it has stopped
        toast.get_by_role("button", name="Undo").click()
    running.wait_for(timeout=LONG)
    make(page)
    waiting = page.locator(".recent .is-waiting")
    waiting.hover()
    waiting.get_by_role("button", name="Take out of the queue").click()
    waiting.wait_for(state="detached")
    toast.get_by_role("button", name="Undo").click()
    waiting.wait_for()
    expect(page.locator(".toast.error")).to_have_count(0)
    for left in (1, 0):
        page.get_by_role("button", name="Stop", exact=False).first.click()
        open_jobs(page).nth(left).wait_for(state="detached")


def test_what_the_server_began_while_it_was_stopped_is_stopped_once(page: Page) -> None:
    """A job that waits may be begun before the server hears that it shall not be: then it is seen to stop."""
    told = page.evaluate(
        """async () => {
          const frame = document.querySelector("script[type=module]").src;
          const { Jobs, cancel } = await import(new URL("parts/jobs.js", frame));
          const asked = [];
          const never = (path) => { asked.push(path); return new Promise(() => {}); };
          let hear;
          const jobs = new Jobs({ get: never, post: never }, { listen(run) { hear = run; }, onState() {} });
          const context = { api: jobs.api, jobs };
          const states = [jobs.put({ id: "one", kind: "make", state: "waiting", seen: 7 })];
          cancel(context, jobs.get("one"));
          states.push(jobs.get("one"));
          hear({ number: "8", kind: "started", job: "one", at: 1 });
          states.push(jobs.get("one"));
          cancel(context, jobs.get("one"));
          const told = states.map(({ state, cancelling = false }) => [state, cancelling]);
          return [told, asked.filter((path) => path.endsWith("/cancel"))];
        }"""
    )
    assert told == [[["waiting", False], ["cancelled", True], ["running", True]], ["/api/jobs/one/cancel"]]


def test_a_late_answer_undoes_nothing_that_was_heard(page: Page) -> None:
    """What a request answers may be older than the events that came meanwhile; then the server is asked again."""
    told = page.evaluate(
        """async () => {
          const frame = document.querySelector("script[type=module]").src;
          const { Jobs } = await import(new URL("parts/jobs.js", frame));
          const running = { id: "one", kind: "make", state: "running", seen: 7 };
          const answers = [{ ...running, state: "done", seen: 9 }];
          const api = { get: async (path) => (path.endsWith("/one") && answers.pop()) || new Promise(() => {}) };
          let hear;
          const jobs = new Jobs(api, { listen(run) { hear = run; }, onState() {} });
          const states = [];
          jobs.watch((job) => states.push(job.state));
          hear({ number: "8", kind: "done", job: "one", at: 1 }); // before any list has told of it
          jobs.take(running);
          while (jobs.asking.size) await Promise.resolve();
          jobs.take(running);
          hear({ number: "10", kind: "retried", job: "one", attempt: 1 });
          jobs.take({ ...running, seen: 11 });
          return states;
        }"""
    )
    assert told == ["running", "done", "waiting", "running"]


def test_everything_is_kept_when_the_page_is_loaded_again_in_the_middle(page: Page) -> None:
    ask(page, "a white tower in the snow at night, pixel art", steps=60, seed=5)
    make(page)
    page.locator(".recent .is-running").wait_for(timeout=LONG)
    page.reload()
    page.locator(".recent .is-running").wait_for()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a white tower in the snow at night, pixel art")
    expect(page.get_by_label("Seed", exact=True)).to_have_value("5")
    expect(page.get_by_label("Steps")).to_have_value("60")
    page.locator('.stage-picture[src*="/preview"]').wait_for(timeout=LONG)
    shown(page).wait_for(timeout=LONG)
    page.get_by_text("seed 5", exact=True).wait_for()


def test_a_job_that_fails_says_why_and_can_be_tried_again(seen: tuple[Page, Watched], server: Server) -> None:
    page, watched = seen
    watched.allowed += ["404", "422"]
    doomed = sd1.toy(server.home / "models" / "doomed.safetensors")
    scan(page)
    page.get_by_role("button", name=re.compile("^Model: ")).click()
    page.get_by_role("option", name="doomed").click()
    ask(page, HOUSE, steps=4)
    # The queue rests until the file is gone: a worker that had loaded it before would make the picture all the same.
    post(page, "/api/queue/pause")
    with page.expect_response(lambda answer: answer.request.method == "POST" and answer.url.endswith("/api/jobs")):
        make(page)
    doomed.unlink()
    post(page, "/api/queue/resume")
    failure = page.locator(".failure")
    failure.wait_for(timeout=LONG)
    assert "doomed" in failure.inner_text()
    page.locator(".recent .is-failed").first.wait_for()
    failure.get_by_role("button", name="Try again").click()
    page.get_by_text(re.compile("no model|doomed")).first.wait_for()
    page.evaluate("localStorage.clear()")


def scan(page: Page) -> None:
    """Have the shelves looked through, and wait for it."""
    job = post(page, "/api/models/scan")
    page.request.get(f"/api/jobs/{job['id']}/events").body()  # the events of a job end when it does


def test_a_seed_of_64_bits_keeps_all_its_digits(page: Page) -> None:
    make_one(page, HOUSE, seed=2**62 + 1, steps=4)
    page.get_by_text(f"seed {2**62 + 1}", exact=True).wait_for()
    page.reload()
    page.get_by_text(f"seed {2**62 + 1}", exact=True).wait_for()
    expect(page.get_by_label("Seed", exact=True)).to_have_value(str(2**62 + 1))


# ---------------------------------------------------------------------------------------------------------- prompt


def test_what_is_wrong_stands_beside_its_field_and_nothing_typed_is_lost(seen: tuple[Page, Watched]) -> None:
    page, watched = seen
    watched.allowed.append("422")
    page.get_by_label("Width", exact=True).fill("131")
    page.get_by_label("Negative prompt").evaluate("field => field.closest('details').open = true")
    page.get_by_label("Negative prompt").fill("<lora:a:1>")
    page.get_by_label("Prompt", exact=True).fill("a boat")
    make(page)
    page.get_by_text("Negative prompt names the adapter <lora:a>").wait_for()
    page.get_by_text("131 is no multiple of 8; use 128 or 136").wait_for()
    expect(page.get_by_label("Negative prompt")).to_be_focused()
    expect(page.get_by_label("Width", exact=True)).to_have_attribute("aria-invalid", "true")
    expect(open_jobs(page)).to_have_count(0)
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a boat")
    page.get_by_label("Negative prompt").fill("houses")
    page.get_by_text("Negative prompt names the adapter").wait_for(state="hidden")


def test_the_prompt_shows_how_it_is_read(seen: tuple[Page, Watched]) -> None:
    page, watched = seen
    watched.allowed.append("422")  # there is no such LoRA, and no other that fits
    prompt = page.get_by_label("Prompt", exact=True)
    prompt.fill("a (purple:1.4) boat by the [sea], <lora:neon_night:0.8> <lora:neon_nigt:1>")
    page.locator(".prompt-sheet .heavy", has_text="purple").wait_for()
    expect(page.locator(".prompt-sheet .light")).to_have_text("sea")
    expect(page.locator(".prompt-sheet .network:not(.stranger)")).to_have_text("<lora:neon_night:0.8>")
    expect(page.locator(".prompt-sheet .stranger")).to_have_text("<lora:neon_nigt:1>")
    page.get_by_text("neon_nigt is not on the shelf; did you mean neon_night?").wait_for()
    page.get_by_role("button", name="Use neon_night").click()
    expect(prompt).to_have_value(re.compile("<lora:neon_night:1>$"))
    page.locator(".prompt-sheet .stranger").wait_for(state="detached")
    prompt.fill("word " * 100)
    page.get_by_text("100 / 150").wait_for()
    expect(page.locator(".chunk-end")).to_have_count(1)


def test_weights_change_as_users_of_a1111_expect(seen: tuple[Page, Watched]) -> None:
    page, watched = seen
    watched.allowed.append("422")
    prompt = page.get_by_label("Prompt", exact=True)

    def press(text: str, start: int, end: int, *keys: str) -> str:
        prompt.fill(text)
        prompt.evaluate("(field, at) => field.setSelectionRange(...at)", [start, end])
        for key in keys:
            page.keyboard.press(key)
        return prompt.input_value()

    up, down = "Control+ArrowUp", "Control+ArrowDown"
    assert press("a red house", 3, 3, up) == "a (red:1.1) house"
    assert press("a red house", 3, 3, up, up) == "a (red:1.2) house"
    assert press("a red house", 3, 3, up, down) == "a red house"
    assert press("a red house", 2, 11, down) == "a (red house:0.9)"
    assert press("a (red) house", 4, 4, up) == "a (red:1.2) house"
    assert press("<lora:neon:0.8>", 8, 8, up) == "<lora:neon:0.85>"
    assert press("一只猫，在海边。", 1, 1, up) == "(一只猫:1.1)，在海边。"
    assert press("一只猫，在「海边」！", 6, 6, down) == "一只猫，在「(海边:0.9)」！"
    assert press("don't", 2, 2, up) == "(don't:1.1)"
    assert press("a red house", 3, 3, up, "Control+z") == "a red house", "the browser's own undo knows of it"


def test_a_name_is_completed_to_what_was_typed_however_late_the_server_answers(seen: tuple[Page, Watched]) -> None:
    page, watched = seen
    watched.allowed.append("422")
    prompt = page.get_by_label("Prompt", exact=True)
    prompt.fill("a boat ")
    prompt.press_sequentially("<lora:neon")
    page.get_by_role("option", name="neon LoRA", exact=True).wait_for()
    page.route("**/api/models?*", lambda _: None)  # it is asked, and does not answer
    prompt.press_sequentially("_")
    expect(page.get_by_role("option", name="neon LoRA", exact=True)).to_have_count(0)
    page.keyboard.press("Enter")
    expect(prompt).to_have_value("a boat <lora:neon_night:1>")


def test_names_from_the_shelf_are_completed_with_the_keyboard(seen: tuple[Page, Watched]) -> None:
    page, watched = seen
    watched.allowed.append("422")
    prompt = page.get_by_label("Prompt", exact=True)
    prompt.fill("a boat ")
    prompt.press_sequentially("<lora:neon_")
    page.get_by_role("option", name="neon_night").wait_for()
    page.keyboard.press("Enter")
    expect(prompt).to_have_value("a boat <lora:neon_night:1>")
    prompt.press_sequentially(" <lo")
    page.get_by_role("option", name="neon_night").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("option").first.wait_for(state="hidden")
    expect(prompt).to_have_value("a boat <lora:neon_night:1> <lo")


def test_the_server_is_asked_for_words_that_may_be_names(page: Page) -> None:
    asked: list[str] = []
    page.route("**/api/models?*", lambda route: (asked.append(query(route.request.url)), route.continue_()))
    prompt = page.get_by_label("Prompt", exact=True)
    for before in ["一只猫，", "一只猫。", "一只猫、", "“", '"', "（", "【", "cat, "]:
        prompt.fill(before)
        with page.expect_response("**/api/models?*"):
            prompt.press_sequentially("li")
    assert asked == ["li"] * 8
    with page.expect_response("**/api/tokens"):
        prompt.fill("海" * 3040)
    with page.expect_response("**/api/tokens"):
        prompt.fill("<lora:" + "x" * 3040)
    assert asked == ["li"] * 8


def query(address: str) -> str:
    """What an address searches for."""
    return parse_qs(urlsplit(address).query).get("q", [""])[0]


# -------------------------------------------------------------------------------------------------------- settings


def test_the_form_is_what_the_family_says_of_itself(page: Page, server: Server) -> None:
    model = page.request.get("/api/models?runs=true").json()["items"][0]
    form = page.request.get(f"/api/models/{model['id']}/form").json()
    fold(page, "More settings").click()
    for knob in form["knobs"]:
        field = page.locator(f'.control[data-name="{knob["name"]}"]')
        wanted = {"bool": "[role=switch]", "str": "select" if knob["choices"] else "[type=text]"}
        expect(field.locator(wanted.get(knob["type"], "[type=number]")), knob["name"]).to_have_count(1)
    page.get_by_label("Clip skip").fill("2")
    page.get_by_label("Zero SNR").check()
    fold(page, "More settings").click()
    page.get_by_text("Zero SNR on · Clip skip 2").wait_for()
    fold(page, "More settings").click()
    page.locator('.control[data-name="clip_skip"] .reset').click()
    expect(page.get_by_label("Clip skip")).to_have_value("1")


def test_the_model_is_picked_with_the_keyboard(page: Page) -> None:
    page.get_by_role("button", name="Model: starter-image").focus()
    page.keyboard.press("Enter")
    page.keyboard.type("starter")
    page.get_by_role("option", name="starter-image").wait_for()
    expect(page.get_by_role("option", name="neon_night"), "only what runs").to_have_count(0)
    page.keyboard.press("Enter")
    page.get_by_role("option").first.wait_for(state="hidden")
    expect(page.get_by_role("button", name="Model: starter-image")).to_be_focused()


# ------------------------------------------------------------------------------------------------- what was made


def test_a_dropped_picture_gives_its_recipe(page: Page) -> None:
    address = make_one(page, TENT, seed=77, steps=8)
    content = page.request.get(address).body()
    page.evaluate("localStorage.clear()")
    ask(page, "something else", seed=1)
    drop(page, content)
    page.get_by_role("button", name="Use its recipe").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value(TENT)
    expect(page.get_by_label("Seed", exact=True)).to_have_value("77")
    page.get_by_text("DPM++ 2M Karras · 8 steps · 7").wait_for(state="attached")
    make(page)
    page.locator(".recent .is-made").nth(1).wait_for(timeout=LONG)
    page.get_by_text("seed 77", exact=True).wait_for()
    assert picture(page, shown(page).get_attribute("src")).tobytes() == picture(page, address).tobytes()


def drop(page: Page, *contents: bytes) -> None:
    """Drop PNGs in the middle of the room."""
    data = page.evaluate_handle(
        """contents => {
          const data = new DataTransfer();
          for (const [at, bytes] of contents.entries()) {
            data.items.add(new File([new Uint8Array(bytes)], `picture${at + 1}.png`, { type: "image/png" }));
          }
          return data;
        }""",
        [list(content) for content in contents],
    )
    target = page.locator(".room-make")
    target.dispatch_event("dragenter", {"dataTransfer": data})
    page.get_by_text("Drop it to start from it").wait_for()
    target.dispatch_event("drop", {"dataTransfer": data})


def test_pictures_of_a1111_give_their_recipe_or_at_least_their_words(page: Page) -> None:
    text = "a blue boat\nNegative prompt: fog\nSteps: 9, Sampler: Euler a, CFG scale: 5, Seed: 42, Size: 128x192"
    drop(page, with_parameters(text))
    page.get_by_role("button", name="Use its recipe").click()
    page.get_by_text("Euler a · 9 steps · 5").wait_for(state="attached")
    expect(page.get_by_label("Seed", exact=True)).to_have_value("42")
    expect(page.get_by_label("Height", exact=True)).to_have_value("192")
    # One that was made in a way that can't be repeated here.
    drop(
        page, with_parameters("a white tower\nNegative prompt: rain\nSteps: 9, Sampler: Euler, Denoising strength: 0.5")
    )
    page.get_by_text("Only its words can be taken: inputs: it was made from another picture").wait_for()
    page.get_by_role("button", name="Use its words").click()
    page.get_by_text("Only the words were taken").wait_for()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a white tower")
    expect(page.get_by_label("Seed", exact=True)).to_have_value("42")  # as it was
    page.get_by_text("Euler a · 9 steps · 5").wait_for(state="attached")


def test_a_name_from_right_to_left_leaves_the_numbers_in_their_places(page: Page) -> None:
    said = "a blue boat\nSteps: 9, Sampler: Euler a, CFG scale: 5, Seed: 42, Size: 128x192, Model: \u05d3\u05d2\u05dd"
    drop(page, with_parameters(said))
    line = page.get_by_role("dialog").get_by_text("128 × 192")
    assert line.evaluate(LEFT, "\u05d3\u05d2\u05dd") < line.evaluate(LEFT, "128 × 192")


# Where a part of an element's one text begins on the screen.
LEFT = """(element, part) => {
  const range = new Range();
  const at = element.firstChild.data.indexOf(part);
  range.setStart(element.firstChild, at);
  range.setEnd(element.firstChild, at + part.length);
  return range.getBoundingClientRect().left;
}"""


def with_parameters(text: str) -> bytes:
    """A PNG that carries A1111's text."""
    told, target = PngInfo(), io.BytesIO()
    told.add_text("parameters", text)
    Image.new("RGB", (128, 192), "navy").save(target, "png", pnginfo=told)
    return target.getvalue()


def test_what_is_no_picture_is_refused_beside_the_start(seen: tuple[Page, Watched], tmp_path: Path) -> None:
    page, watched = seen
    watched.allowed.append("422")
    (tmp_path / "fake.png").write_bytes(b"no picture at all")
    page.get_by_label("Choose a picture").set_input_files(tmp_path / "fake.png")
    page.locator(".fold", has_text="Start from a picture").locator(".wrong", has_text="picture").wait_for()


def test_of_several_dropped_pictures_it_is_said_which_one_was_taken(page: Page) -> None:
    drop(page, plain(192, 128), plain(64, 64), plain(32, 32))
    page.get_by_text("only picture1.png was taken, of 3").wait_for()
    expect(page.locator(".start-picture img")).to_have_js_property("naturalWidth", 192)


def test_who_takes_the_start_away_goes_on_from_there(page: Page) -> None:
    drop(page, with_parameters("a house"))
    page.get_by_role("dialog").get_by_role("button", name="Start from it").click()
    page.get_by_role("button", name="Remove", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.locator(".start-choose")).to_be_focused()


def test_a_painted_mask_says_what_is_made_anew(page: Page) -> None:
    address = make_one(page, HOUSE, seed=3)
    page.get_by_role("button", name="Mask a part").click()
    canvas = page.get_by_role("application")
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.25)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.25, steps=5)
    page.mouse.up()
    # The same with the keyboard: a dab in the middle, taken back, and the mask turned around twice.
    canvas.press("Space")
    canvas.press("Control+z")
    canvas.press("i")
    canvas.press("i")
    canvas.press("Enter")
    expect(page.get_by_role("button", name="Change the mask")).to_be_focused()
    mask = picture(page, page.locator(".start-mask").get_attribute("src")).convert("L")
    assert mask.getpixel((64, 32)) == 255 and mask.getpixel((64, 100)) == 0 and mask.getpixel((5, 5)) == 0
    fold(page, "More settings").click()
    page.get_by_label("Mask blur").fill("0")
    result = picture(page, make_one(page, "a yellow balloon by the sea at noon, flat", seed=4))
    before = picture(page, address)
    changed = ImageChops.difference(before, result).convert("L")
    outside = Image.composite(Image.new("L", mask.size), changed, mask)
    inside = Image.composite(changed, Image.new("L", mask.size), mask)
    assert inside.getextrema()[1] > 60 and outside.getextrema()[1] <= 2


def plain(width: int, height: int) -> bytes:
    """A PNG that carries no recipe."""
    target = io.BytesIO()
    Image.new("RGB", (width, height), "navy").save(target, "png")
    return target.getvalue()


def ease(page: Page, width: int = 192, height: int = 128) -> Locator:
    """Start from a plain picture of this size, on the easel; what is painted on."""
    drop(page, plain(width, height))
    page.get_by_role("button", name="Paint a mask").click()
    return page.get_by_role("application")


def place(canvas: Locator, x: float, y: float) -> tuple[float, float]:
    """Where a part of the easel is on the page, once it lies still: 0.5, 0.5 is its middle."""
    canvas.click(trial=True)
    box = canvas.bounding_box()
    assert box is not None
    return box["x"] + box["width"] * x, box["y"] + box["height"] * y


def stroke(page: Page, canvas: Locator) -> None:
    """Paint from left to right through the middle."""
    page.mouse.move(*place(canvas, 0.3, 0.5))
    page.mouse.down()
    page.mouse.move(*place(canvas, 0.7, 0.5), steps=3)
    page.mouse.up()


def painted(canvas: Locator) -> bool:
    """Whether anything is painted."""
    return bool(
        canvas.evaluate(
            """canvas => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height)
              .data.some((value, at) => at % 4 === 3 && value > 0)"""
        )
    )


def test_a_mask_belongs_to_the_picture_that_it_was_painted_on(page: Page) -> None:
    stroke(page, ease(page))
    drop(page, plain(64, 64))
    page.get_by_role("application").wait_for(state="detached")
    expect(page.locator(".start-picture img")).to_have_js_property("naturalWidth", 64)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".start-picture img")).to_have_js_property("naturalWidth", 192)
    assert painted(page.get_by_role("application"))
    # The start is taken away before the server has the mask.
    held: list[Route] = []
    page.route("**/api/inputs", lambda route: held.append(route))
    with page.expect_request("**/api/inputs"):
        page.get_by_role("button", name="Use mask").click()
    page.get_by_role("button", name="Remove", exact=True).click()
    page.get_by_role("application").wait_for(state="detached")
    with page.expect_response("**/api/inputs") as answered:
        held[0].continue_()
    answered.value.finished()
    page.reload()
    page.locator(".start-choose").wait_for()
    assert page.evaluate("JSON.parse(localStorage.getItem('bottega.make.draft')).mask") is None


def test_what_is_painted_can_be_had_back_after_escape_and_is_kept_by_the_page(page: Page) -> None:
    canvas = ease(page)
    canvas.press("Escape")
    canvas.wait_for(state="detached")
    expect(page.get_by_role("button", name="Undo")).to_have_count(0)  # nothing was painted
    page.get_by_role("button", name="Paint a mask").click()
    stroke(page, canvas)
    canvas.press("Escape")
    canvas.wait_for(state="detached")
    page.get_by_role("button", name="Undo").click()
    assert painted(canvas)
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("link", name="Gallery").click()
    canvas.wait_for(state="detached")
    page.get_by_role("button", name="Undo").click()
    canvas.wait_for()
    assert painted(canvas)
    page.get_by_role("link", name="Gallery").click()
    canvas.wait_for(state="detached")
    page.get_by_role("link", name="Make").click()
    canvas.wait_for()
    page.reload()
    canvas.wait_for()
    page.get_by_role("button", name="Use mask").click()
    # What is painted on a mask that was there is kept with it.
    page.get_by_role("button", name="Change the mask").click()
    page.mouse.click(*place(canvas, 0.5, 0.9))
    page.reload()
    page.get_by_role("button", name="Use mask").click()
    canvas.wait_for(state="detached")
    mask = picture(page, page.locator(".start-mask").get_attribute("src")).convert("L")
    assert [mask.getpixel(at) for at in [(96, 64), (96, 115), (20, 20)]] == [255, 255, 0]


def test_the_mask_comes_before_what_is_made_with_it(page: Page) -> None:
    ease(page)
    page.get_by_label("Prompt", exact=True).fill(HOUSE)
    make(page)
    said = page.get_by_role("alert").get_by_text("use it or cancel it first")
    said.wait_for()
    page.get_by_role("button", name="Cancel").click()
    said.wait_for(state="hidden")
    assert open_jobs(page).count() == 0


def test_a_second_finger_takes_the_stroke_of_the_first_back(server: Server, browser: Browser) -> None:
    with room(server, browser, has_touch=True) as (page, _):
        canvas = ease(page)
        touch = page.context.new_cdp_session(page)

        def fingers(kind: str, *places: tuple[float, float]) -> None:
            points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        fingers("touchStart", place(canvas, 0.3, 0.3))
        fingers("touchMove", place(canvas, 0.4, 0.3))
        assert painted(canvas)
        fingers("touchStart", place(canvas, 0.4, 0.3), place(canvas, 0.6, 0.7))
        fingers("touchMove", place(canvas, 0.3, 0.2), place(canvas, 0.7, 0.8))
        fingers("touchEnd")
        assert not painted(canvas)
        fingers("touchStart", place(canvas, 0.3, 0.3))
        fingers("touchEnd")
        assert painted(canvas)


def test_what_is_undone_under_the_brush_stays_undone(page: Page) -> None:
    canvas = ease(page)
    page.mouse.move(*place(canvas, 0.3, 0.5))
    page.mouse.down()
    page.mouse.move(*place(canvas, 0.5, 0.5), steps=3)
    assert painted(canvas)
    canvas.press("Control+z")
    page.mouse.move(*place(canvas, 0.7, 0.5), steps=3)
    page.mouse.up()
    assert not painted(canvas)


def test_two_pictures_are_compared(page: Page) -> None:
    make_one(page, HOUSE, seed=8, steps=4)
    make_one(page, HOUSE, seed=9)
    page.get_by_role("button", name="Compare").click()
    made(page).nth(1).get_by_role("button").click()
    dialog = page.get_by_role("dialog", name="Compare")
    dialog.locator("tr", has_text="8").first.wait_for()
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")


def test_other_rooms_send_pictures_here(page: Page) -> None:
    address = make_one(page, HOUSE, seed=31, steps=4)
    id = address.split("/")[3]
    page.goto(f"/make?output={id}&as=start")
    page.get_by_alt_text("The picture to start from").wait_for()
    expect(page, "the address is tidied").to_have_url(re.compile("^http://[^/]+/$"))
    ask(page, "something else", seed=1)
    page.goto(f"/make?output={id}&as=recipe")
    expect(page.get_by_label("Seed", exact=True)).to_have_value("31")
    page.get_by_text("DPM++ 2M Karras · 4 steps · 7").wait_for(state="attached")


def test_variations_and_the_recipe_of_a_picture(page: Page) -> None:
    make_one(page, HOUSE, seed=11, steps=4)
    page.get_by_role("button", name="Vary").click()
    page.get_by_label("How many").last.fill("2")
    page.get_by_role("button", name="Make variations").click()
    made(page).nth(2).wait_for(timeout=LONG)
    page.locator(".recent .is-running").first.wait_for(state="detached", timeout=LONG)
    page.get_by_role("button", name="Recipe").click()
    page.locator(".drawer", has_text="starter-image").wait_for()
    page.keyboard.press("Escape")
    page.locator(".drawer").wait_for(state="detached")
    page.get_by_role("button", name="Reuse").click()
    page.get_by_role("menuitem", name="All settings").click()
    page.get_by_text(re.compile("Variation strength 0.2")).wait_for(state="attached")
    expect(page.get_by_label("Seed", exact=True)).to_have_value("11")


def test_an_open_menu_stays_whatever_is_made_meanwhile(page: Page) -> None:
    before = made(page).count()
    page.get_by_label("How many").fill("2")
    ask(page, HOUSE, seed=12, steps=60)
    make(page)
    made(page).nth(before).wait_for(timeout=LONG)
    page.get_by_role("button", name="Reuse").click()
    made(page).nth(before + 1).wait_for(timeout=LONG)
    page.get_by_label("Seed", exact=True).evaluate("input => input.value = ''")
    page.get_by_role("menuitem", name="The seed only").click()
    expect(page.get_by_label("Seed", exact=True)).to_have_value("12")
    page.get_by_role("button", name="seed 13").wait_for()


def test_a_deleted_picture_can_be_had_back(page: Page) -> None:
    make_one(page, HOUSE, seed=21, steps=4)
    expect(made(page).first.locator("img")).to_have_attribute("alt", HOUSE)
    count = made(page).count()
    page.locator(".recent .print[aria-pressed=true]").focus()
    page.keyboard.press("ArrowLeft")
    page.get_by_role("button", name="More", exact=True).last.click()
    page.get_by_role("menuitem", name="Delete").click()
    page.get_by_role("button", name="Undo").wait_for()
    expect(made(page)).to_have_count(count - 1)
    page.get_by_role("button", name="Undo").click()
    made(page).nth(count - 1).wait_for()


def test_exact_numbers_are_copied_with_one_press(server: Server, browser: Browser) -> None:
    with room(server, browser, permissions=["clipboard-read", "clipboard-write"]) as (page, _):
        address = make_one(page, HOUSE, seed=22, steps=4)
        shown = page.request.get(address.removesuffix("/file")).json()
        page.get_by_text(f"seed {shown['seed']}").wait_for()
        for name, exact in (("seed", str(shown["seed"])), ("size", "128x128"), ("seconds", str(shown["seconds"]))):
            page.get_by_title(f"Copy the {name}", exact=True).click()
            page.locator(".toast", has_text="Copied").wait_for()
            assert page.evaluate("navigator.clipboard.readText()") == exact
            page.locator(".toast").get_by_role("button", name="Close").click()


# --------------------------------------------------------------------------------------------------------- for all


def test_a_phone_has_everything_in_one_column(server: Server, browser: Browser) -> None:
    with room(server, browser, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True) as (page, _):
        make_one(page, HOUSE, steps=4)
        fold(page, "More settings").click()
        assert page.evaluate("[document.documentElement.scrollWidth, document.querySelector('main').scrollWidth]") == [
            360,
            360,
        ]
        button = page.get_by_role("button", name="Make", exact=False).last.bounding_box()
        assert button is not None and button["y"] + button["height"] <= 740


def test_every_control_has_a_name_and_every_text_enough_contrast(server: Server, browser: Browser) -> None:
    for scheme in ("light", "dark"):
        with room(server, browser, color_scheme=scheme) as (page, _):
            make_one(page, HOUSE, steps=4)
            for title in ("Sampling", "More settings", "Start from a picture", "Negative prompt"):
                fold(page, title).click()
            assert page.evaluate(NAMELESS) == []
            assert page.evaluate(PALE) == [], scheme


def test_the_page_speaks_chinese_to_those_who_read_it(server: Server, browser: Browser) -> None:
    with watched_page(browser, server.url, locale="zh-CN") as (page, _):
        page.goto(link_into(server.home, server.url))
        page.get_by_role("button", name="生成").first.wait_for()
        expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
        assert page.evaluate(UNTOLD) == []
        helps = page.locator(".folds [id$='-help']")
        helps.nth(20).wait_for(state="attached", timeout=LONG)
        english = [text for text in helps.all_text_contents() if not re.search("[\u4e00-\u9fff]", text)]
        assert english == [], "of every setting it is said in Chinese what it does"
        page.locator("#tools").get_by_role("button", name="更多").click()
        page.get_by_role("menuitemradio", name="English").click()
        page.get_by_role("button", name="Make", exact=False).last.wait_for()
        expect(page.locator("html")).to_have_attribute("lang", "en")


def test_refusals_are_said_in_chinese_too(server: Server, browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "fake.png").write_bytes(b"no picture at all")
    with watched_page(browser, server.url, locale="zh-CN") as (page, watched):
        watched.allowed.append("422")
        page.goto(link_into(server.home, server.url))
        page.get_by_text("DPM++ 2M Karras · 20").wait_for(timeout=LONG)
        prompt = page.get_by_label("提示词", exact=True)
        prompt.fill("<lora:nosuch>")
        make(page)
        page.get_by_text("没有名为 'nosuch' 的模型; 请查看模型列表").wait_for()
        prompt.fill("x" * 20_001)
        make(page)
        page.get_by_text("最多 20,000 个字符").wait_for()
        page.get_by_label("选择图片").set_input_files(tmp_path / "fake.png")
        page.get_by_text("图片: 这是纯文本，不是 PNG、JPEG 或 WebP; 请选择 PNG、JPEG 或 WebP 文件").wait_for()


def test_what_is_said_in_chinese_is_what_the_server_says() -> None:
    source = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    table = (PACKAGE / "web" / "static" / "refusals.js").read_text()
    said = re.findall(r'"([^"]+)": "[^"]*[\u4e00-\u9fff]', table)
    assert len(said) > 50
    parts = [part.strip() for text in said for part in re.split(r"\{\w+\}", text)]
    assert [part for part in parts if part not in source] == []


def test_the_keys_are_shown(page: Page) -> None:
    page.locator(".rooms a").first.wait_for()  # every room has brought its keys
    page.locator("main").focus()
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keys")
    dialog.get_by_text("Make it").wait_for()
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")


# The words that the page has in one language only.
UNTOLD = """() => import(new URL("words.js", document.querySelector("script[type=module]").src))
  .then((words) => words.untold())"""

# What can be pressed or filled in and has no name that is said.
NAMELESS = """() => [...document.querySelectorAll("button, input, select, textarea, a, summary, [tabindex='0']")]
  .filter((one) => one.checkVisibility() && !one.closest("[aria-hidden=true]"))
  .filter((one) => !(one.getAttribute("aria-label") || one.labels?.length || one.textContent.trim()
    || one.getAttribute("aria-labelledby")))
  .map((one) => one.outerHTML.slice(0, 200))"""
