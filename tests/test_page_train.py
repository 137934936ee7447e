"""The room Train in a real browser: pictures in, a curve and samples to watch, a model out; stopped, and resumed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser import Watched, chromium, link_into, sign_in, watched_page
from door_server import Server, serving
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from test_native_trainings import png
from test_page_make import LONG, NAMELESS, PALE, UNTOLD, scan

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("train") / "home") as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three pictures, two of them with a caption beside."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(3):
        (folder / f"house{number}.png").write_bytes(png(number))
        if number < 2:
            (folder / f"house{number}.txt").write_text(f"a red house, {number}\n")
    return sorted(folder.iterdir())


@pytest.fixture
def seen(server: Server, browser: Browser) -> Iterator[tuple[Page, Watched]]:
    with room(server, browser) as (page, watched):
        yield page, watched


@pytest.fixture
def page(seen: tuple[Page, Watched]) -> Page:
    return seen[0]


@contextmanager
def room(server: Server, browser: Browser, **options: Any) -> Iterator[tuple[Page, Watched]]:
    """A browser that shows the room with a dataset that nothing is in yet."""
    with watched_page(browser, server.url, **options) as (page, watched):
        page.goto(link_into(server.home, server.url))
        scan(page)
        page.goto("/train")
        page.locator(".picker-name", has_text="starter-image").wait_for(timeout=LONG)
        page.locator(".pictures-part select, .ask select").first.select_option("")
        page.locator(".picture").first.wait_for(state="detached")
        yield page, watched


def take(page: Page, files: list[Path]) -> None:
    page.locator(".pictures-part input[type=file]").set_input_files(files)
    page.locator(".picture").nth(len([file for file in files if file.suffix == ".png"]) - 1).wait_for()


def fill(page: Page, word: str, steps: int) -> None:
    """Fill the form in for a small training."""
    page.get_by_label("Word that it shall learn").fill(word)
    page.get_by_label("Sample prompts").fill("a red house")
    page.get_by_label("Steps", exact=True).fill(str(steps))
    more(page)
    for name, value in (("Resolution", "64"), ("Batch", "1"), ("Sample every (steps)", "3")):
        page.get_by_label(name, exact=True).fill(value)
    more(page)


def more(page: Page) -> None:
    page.locator("summary", has_text="More settings").click()


def test_pictures_come_with_their_captions_and_a_check_tells_what_of(page: Page, files: list[Path]) -> None:
    take(page, files)
    expect(page.get_by_label("What picture 1 shows")).to_have_value("a red house, 0")
    page.get_by_text(re.compile(r"^3 pictures · 3 of 128 × 128 · ")).wait_for(timeout=LONG)
    page.locator(".train-notes", has_text="picture 3").wait_for()
    page.get_by_label("What picture 3 shows").fill("a red house at night")
    page.get_by_label("What picture 3 shows").blur()
    page.locator(".train-notes", has_text="no caption").wait_for(state="detached", timeout=LONG)
    page.get_by_role("button", name="Take picture 1 out").click()
    page.locator(".picture").nth(2).wait_for(state="detached")
    page.get_by_role("button", name="Undo").click()
    page.locator(".picture").nth(2).wait_for()
    page.reload()
    page.locator(".picture").nth(2).wait_for(timeout=LONG)
    captions = page.locator(".picture textarea")
    expect(captions).to_have_count(3)
    assert sorted(captions.nth(n).input_value() for n in range(3)) == [
        "a red house at night",
        "a red house, 0",
        "a red house, 1",
    ]


def test_a_picture_that_comes_again_keeps_what_is_said_of_it(
    seen: tuple[Page, Watched], files: list[Path], tmp_path: Path
) -> None:
    page, watched = seen
    watched.allowed.append("422")  # of the small picture
    take(page, files)
    first = page.get_by_label("What picture 1 shows")
    expect(first).to_have_value("a red house, 0")
    pictures = [file for file in files if file.suffix == ".png"]
    Image.new("RGB", (32, 32)).save(small := tmp_path / "small.png")
    page.locator(".pictures-part input[type=file]").set_input_files([*pictures, small])
    page.get_by_text("small.png: ").wait_for()
    expect(first).to_have_value("a red house, 0")
    page.get_by_text(re.compile(r"^3 pictures · ")).wait_for(timeout=LONG)
    expect(page.get_by_text("small.png: "), "a check of the others leaves it there").to_have_count(1)
    page.locator(".pictures-part input[type=file]").set_input_files([file for file in files if file.suffix == ".txt"])
    page.get_by_text("Choose the pictures together with their .txt files").wait_for()


def test_a_caption_that_is_being_typed_is_learned_too(page: Page, files: list[Path]) -> None:
    take(page, files)
    fill(page, "typed", 1)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(f"{request.method} {request.url.rpartition('/api/')[2]}"))
    page.get_by_label("What picture 1 shows").fill("said last")
    with page.expect_response("**/api/trainings") as begun:
        page.keyboard.press("Control+Enter")
    assert begun.value.ok
    said = next(index for index, each in enumerate(asked) if each.startswith("PATCH datasets/"))
    assert said < asked.index("POST trainings")


def test_what_is_wrong_stands_beside_its_field(seen: tuple[Page, Watched], files: list[Path], tmp_path: Path) -> None:
    page, watched = seen
    watched.allowed.append("422")
    page.get_by_role("button", name="Start training").click()
    page.locator(".pictures-part .wrong", has_text="Choose pictures first").wait_for()
    (tmp_path / "fake.png").write_bytes(b"no picture")
    page.locator(".pictures-part input[type=file]").set_input_files(tmp_path / "fake.png")
    page.locator(".pictures-part .wrong", has_text="fake.png").wait_for()
    take(page, files)
    page.get_by_role("button", name="Embedding").click()
    page.get_by_label("Name of the result").fill("lamp")
    page.get_by_role("button", name="Start training").click()
    page.locator(".field", has_text="Word that it shall learn").locator(".wrong").wait_for(timeout=LONG)
    expect(page.get_by_label("Word that it shall learn")).to_have_attribute("aria-invalid", "true")
    page.get_by_role("button", name="LoRA").click()
    page.get_by_label("Rank", exact=True).fill("0")
    page.locator('.control[data-name="rank"] .wrong').wait_for(timeout=LONG)


def test_a_training_is_watched_tried_and_used(page: Page, files: list[Path]) -> None:
    take(page, files)
    fill(page, "glow", 6)
    page.keyboard.press("Control+Enter")
    page.get_by_role("heading", name="glow").wait_for(timeout=LONG)
    page.locator(".sample-list img").first.wait_for(timeout=LONG)
    page.locator('.curve[aria-label^="Loss over 6 steps"]').wait_for(timeout=LONG)
    page.get_by_role("button", name="Use in Make").wait_for(timeout=LONG)
    page.locator(".sample-list li").nth(2).wait_for(timeout=LONG)
    expect(page.locator(".sample-list .number")).to_have_text(["step 6", "step 3", "step 0"])
    page.get_by_role("button", name="Make both").click()
    dialog = page.get_by_role("dialog", name="Compare")
    dialog.locator("tr", has_text="glow").first.wait_for(timeout=2 * LONG)
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")
    page.get_by_role("button", name="Use in Make").click()
    page.locator('.adapter[data-name="glow"]').wait_for(timeout=LONG)


def test_it_is_stopped_taken_up_again_and_its_settings_come_back(page: Page, files: list[Path]) -> None:
    take(page, files)
    fill(page, "storm", 80)
    page.get_by_role("button", name="Start training").click()
    page.get_by_role("heading", name="storm").wait_for(timeout=LONG)
    page.locator(".curve-loss").wait_for(timeout=LONG)
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Go on").wait_for(timeout=LONG)
    page.reload()
    page.get_by_role("heading", name="storm").wait_for(timeout=LONG)
    page.locator(".curve-loss").wait_for()
    page.locator("summary", has_text="Its settings").click()
    page.get_by_label("Steps", exact=True).fill("5")
    page.get_by_role("button", name="Put them into the form").click()
    expect(page.locator(".control[data-name=steps] input")).to_have_value("80")
    page.get_by_role("button", name="Go on").click()
    page.locator('.curve[aria-label^="Loss over 80 steps"]').wait_for(timeout=2 * LONG)
    page.get_by_role("button", name="Use in Make").wait_for(timeout=LONG)


def test_who_deletes_a_dataset_is_told_of_the_trainings_that_need_it(page: Page, files: list[Path]) -> None:
    dialog = page.get_by_role("dialog", name="Delete the dataset")
    take(page, files)
    fill(page, "gale", 80)
    page.get_by_role("button", name="Start training").click()
    page.get_by_role("heading", name="gale").wait_for(timeout=LONG)
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Go on").wait_for(timeout=LONG)
    page.get_by_role("button", name="Delete the dataset").click()
    expect(dialog).to_contain_text("not done: 1. Without it they can't go on.")


def test_a_deleted_dataset_can_be_had_back_until_the_page_is_left(page: Page, files: list[Path]) -> None:
    take(page, files)
    chosen = page.locator(".pictures-part select, .ask select").first
    id = chosen.input_value()
    delete, toast = page.get_by_role("button", name="Delete the dataset"), page.locator(".toast", has_text="3 pictures")
    delete.click()
    toast.wait_for()
    expect(chosen).not_to_have_value(id)
    page.get_by_role("link", name="Queue").click()
    page.get_by_role("link", name="Train").click()
    expect(page.get_by_role("button", name="Start training")).to_be_visible()
    expect(page.locator(f'option[value="{id}"]')).to_have_count(0)
    toast.get_by_role("button", name="Undo").click()
    expect(chosen).to_have_value(id)
    page.locator(".picture").nth(2).wait_for()
    assert page.request.get(f"/api/datasets/{id}").ok
    delete.click()
    toast.wait_for()
    page.goto("/queue")
    for _ in range(100):
        if page.request.get(f"/api/datasets/{id}").status == 404:
            break
        page.wait_for_timeout(100)
    assert page.request.get(f"/api/datasets/{id}").status == 404


def test_every_setting_is_told_of_in_chinese(server: Server, browser: Browser) -> None:
    with watched_page(browser, server.url, locale="zh-CN") as (page, _):
        sign_in(page, server.home, server.url)
        page.goto("/train")
        for kind in ("LoRA", "嵌入", "超网络", "整个模型"):
            page.get_by_role("button", name=kind, exact=True).click()
            helps = page.locator(".train-settings [id$='-help']")
            helps.nth(20).wait_for(state="attached", timeout=LONG)
            assert [text for text in helps.all_text_contents() if not re.search("[\u4e00-\u9fff]", text)] == []


def test_a_phone_and_every_eye_and_ear_have_it_all(server: Server, browser: Browser, files: list[Path]) -> None:
    for scheme in ("light", "dark"):
        phone = {
            "viewport": {"width": 360, "height": 740},
            "has_touch": True,
            "is_mobile": True,
            "color_scheme": scheme,
        }
        with room(server, browser, **phone) as (page, _):
            take(page, files)
            more(page)
            page.get_by_text(re.compile(r"^3 pictures · ")).wait_for(timeout=LONG)
            assert page.evaluate(NAMELESS) == []
            assert page.evaluate(PALE) == []
            widths = "[document.documentElement.scrollWidth, document.querySelector('main').scrollWidth]"
            assert page.evaluate(widths) == [360, 360]
            assert page.evaluate("(bar => bar.scrollWidth - bar.clientWidth)(document.querySelector('#rooms'))") == 0
            assert page.evaluate(UNTOLD) == []
