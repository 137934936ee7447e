"""The room Gallery in a real browser: outputs are found again, looked at, compared, kept and deleted; also 100,000."""

from __future__ import annotations

import io
import os
import re
import sqlite3
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from browser import chromium, sign_in, watched_page
from door_server import Server, serving
from gallery_outputs import added, recipe_of, write_output
from playwright.sync_api import Browser, Page, expect

from bottega.gallery import Gallery

pytestmark = pytest.mark.slow
DAY = 86_400
PROMPTS = ("a red house by the sea", "a blue boat at dawn", "a green tent in the snow")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def fill(home: Path) -> None:
    """Ten outputs, a day between two; the newest of them was started from the one before."""
    with Gallery(home / "gallery.sqlite", home / "outputs") as gallery:
        for index in range(9):
            recipe = recipe_of(PROMPTS[index % 3], seed=index, steps=20 + index)
            at = (index - 10) * DAY
            last = added(gallery, write_output(home / "outputs", recipe, id=f"picture{index}-0", at=at, owner="owner"))
        child = recipe_of("the same with a boat", seed=99, init=last.sha256, task="image-to-image")
        gallery.add(write_output(home / "outputs", child, id="picture-of-it-0", at=-1, owner="owner"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of which nothing is changed."""
    home = tmp_path_factory.mktemp("gallery") / "home"
    fill(home)
    with serving(home) as server:
        yield server


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    """A server that a test may change."""
    fill(tmp_path / "home")
    with serving(tmp_path / "home") as server:
        yield server


@contextmanager
def room(browser: Browser, server: Server, allowed: str = "", **options: Any) -> Iterator[Page]:
    """The room with all of its pictures; `allowed` is an answer that a test expects."""
    with watched_page(browser, server.url, **options) as (page, watched):
        watched.allowed.append("404")  # of an output that is not there any more
        watched.allowed += [allowed] if allowed else []
        sign_in(page, server.home, server.url)
        page.goto("/gallery")
        page.locator("#rooms a").first.wait_for(state="attached")
        page.locator(".piece img").nth(9).wait_for()
        yield page


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    with room(browser, server) as page:
        yield page


@pytest.fixture
def own_page(browser: Browser, own: Server) -> Iterator[Page]:
    with room(browser, own) as page:
        yield page


def tiles(page: Page) -> Any:
    return page.get_by_role("option")


def search(page: Page, text: str, count: int) -> None:
    """Type a search, and wait until there are so many."""
    page.keyboard.press("/")
    page.get_by_role("searchbox").fill(text)
    page.wait_for_url("**q=*")
    page.locator(f'.piece[aria-setsize="{count}"]').first.wait_for()
    expect(tiles(page)).to_have_count(count)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("boat", 4),
        ("seed:7", 1),
        ("house steps:23", 1),
        ('model:starter sampler:"Euler a" sea', 3),
        ("task:image-to-image", 1),
        ("since:2026-09-19", 2),
        ("until:2026-09-15", 5),
    ],
)
def test_outputs_are_found_by_words_recipe_and_day(page: Page, text: str, count: int) -> None:
    search(page, text, count)
    page.reload()
    page.locator(f'.piece[aria-setsize="{count}"]').first.wait_for()
    expect(page.get_by_role("searchbox"), "a search is kept").to_have_value(text)


def test_what_is_searched_for_wrongly_or_in_vain_says_so_and_is_kept(page: Page) -> None:
    field = page.get_by_role("searchbox")
    field.fill("since:tomorrow")
    page.get_by_text("tomorrow is no day").wait_for()
    field.fill("(cat:1.2) unicorn")
    page.get_by_text("Nothing that was made is like that.").wait_for()
    page.get_by_role("button", name="Clear the search").click()
    page.locator('.piece[aria-setsize="10"]').first.wait_for()


@pytest.mark.parametrize("day", ["2026-02-31", "2026-13-01", "26-1-1"])
def test_a_day_that_is_none_is_told(page: Page, day: str) -> None:
    page.get_by_role("searchbox").fill(f"since:{day}")
    page.get_by_text(f"{day} is no day").wait_for()


def test_days_of_another_age_and_signs_find_what_there_is(page: Page) -> None:
    in_vain = ("until:1800-01-01", "since:9999-12-31", "🎈")
    for text, count in (*((each, 0) for each in in_vain), ("since:1800-01-01", 10)):
        with page.expect_response("**/api/outputs?*") as answered:
            page.get_by_role("searchbox").fill(text)
        assert answered.value.json()["total"] == count, text


def test_every_button_has_a_name(browser: Browser, server: Server) -> None:
    with room(browser, server, viewport={"width": 390, "height": 800}) as page:
        page.get_by_role("button", name="Select").click()
        tiles(page).first.click()
        page.get_by_text("1 selected").wait_for()
        assert not re.findall(r"^\s*- button$", page.locator("body").aria_snapshot(), re.MULTILINE)


def test_narrowing_down_writes_into_the_search_field(page: Page) -> None:
    page.get_by_role("button", name="Narrow down").click()
    panel = page.locator(".narrowing")
    panel.get_by_label("Seed").fill("4")
    panel.get_by_label("Seed").press("Tab")
    page.locator('.piece[aria-setsize="1"]').first.wait_for()
    expect(page.get_by_role("searchbox")).to_have_value("seed:4")


def test_one_is_looked_at_with_the_keyboard_alone(page: Page) -> None:
    page.keyboard.press("/")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")
    expect(page.locator(":focus")).to_have_attribute("data-index", "1")
    page.keyboard.press("Enter")
    look = page.get_by_role("dialog")
    look.get_by_text("2 of 10").wait_for()
    look.get_by_text("a green tent in the snow").wait_for()
    look.get_by_text("Euler a").wait_for()
    look.get_by_role("img", name="a green tent in the snow").first.wait_for()
    page.keyboard.press("ArrowRight")
    look.get_by_text("3 of 10").wait_for()
    page.keyboard.press("i")
    expect(look.get_by_text("Euler a")).to_be_hidden()
    page.keyboard.press("Escape")
    look.wait_for(state="detached")
    expect(page.locator(":focus"), "the focus is where one looked last").to_have_attribute("data-index", "2")


def test_every_picture_says_what_it_shows(page: Page) -> None:
    expect(page.locator(".piece img").first).to_have_attribute("alt", "the same with a boat")
    expect(page.locator(".piece img").nth(1)).to_have_attribute("alt", "a green tent in the snow")
    expect(page.locator('.piece img[alt=""]')).to_have_count(0)


def test_exact_numbers_are_copied_with_one_press(browser: Browser, server: Server) -> None:
    with room(browser, server, permissions=["clipboard-read", "clipboard-write"]) as page:
        tiles(page).first.click()
        shown = page.request.get("/api/outputs/picture-of-it-0").json()
        made = datetime.fromtimestamp(shown["created"], UTC).isoformat(timespec="milliseconds")
        for name, exact in (
            ("Made", made.replace("+00:00", "Z")),
            ("Took", "1.5"),
            ("Size of the file", str(shown["bytes"])),
        ):
            page.get_by_role("button", name=f"Copy {name}", exact=True).click()
            page.locator(".toast", has_text="Copied").wait_for()
            assert page.evaluate("navigator.clipboard.readText()") == exact
            page.locator(".toast").get_by_role("button", name="Close").click()


def test_one_searches_from_every_room(page: Page) -> None:
    field = page.get_by_role("searchbox")
    for room in ("queue", "train", "system"):
        page.goto(f"/{room}")
        page.locator(f".room-{room} > *").first.wait_for()
        page.keyboard.press("/")
        page.wait_for_url("**/gallery")
        expect(field).to_be_focused()
    page.keyboard.type("1/2")
    expect(field, "while one types it is a letter like another").to_have_value("1/2")
    page.goto("/")
    page.get_by_role("textbox", name="Prompt", exact=True).wait_for()
    sign = page.locator("#tools").get_by_role("button", name="Search")
    sign.click()
    page.wait_for_url("**/gallery")
    expect(field).to_be_focused()
    page.get_by_role("link", name="Library").click()
    page.wait_for_url("**/library")
    sign.click()
    expect(page.get_by_role("searchbox", name="Search")).to_be_focused()
    assert page.url.endswith("/library"), "a room that can be searched is"


def test_what_is_looked_at_gives_way_to_a_search(page: Page) -> None:
    tiles(page).first.click()
    page.get_by_text("1 of 10").wait_for()
    page.keyboard.press("/")
    page.get_by_role("dialog").wait_for(state="detached")
    expect(page.get_by_role("searchbox")).to_be_focused()


def test_a_phone_searches_by_the_menu(browser: Browser, server: Server) -> None:
    size = {"width": 360, "height": 740}
    with room(browser, server, viewport=size, has_touch=True, is_mobile=True) as page:
        page.get_by_role("link", name="Queue").click()
        page.locator(".room-queue").wait_for()
        assert page.locator("#rooms").evaluate("rooms => rooms.scrollWidth - rooms.clientWidth") <= 0
        page.locator("#tools").get_by_role("button", name="More").click()
        page.get_by_role("menuitem", name="Search").click()
        page.wait_for_url("**/gallery")
        expect(page.get_by_role("searchbox")).to_be_focused()


def test_an_address_shows_its_output_and_back_leaves_it(page: Page) -> None:
    tiles(page).nth(4).click()
    page.get_by_text("5 of 10").wait_for()
    expect(page).to_have_url(re.compile("output=picture5-0"))
    page.reload()
    page.get_by_text("5 of 10").wait_for()
    page.go_back()
    page.get_by_role("dialog").wait_for(state="detached")
    page.goto("/gallery?output=no-picture-0")
    page.get_by_text("This output is not here any more.").wait_for()


def test_back_after_a_look_leaves_the_gallery(page: Page) -> None:
    page.goto("/queue")
    page.get_by_role("link", name="Gallery").click()
    for _ in range(2):
        tiles(page).nth(4).click()
        page.get_by_text("5 of 10").wait_for()
        page.keyboard.press("ArrowRight")
        page.get_by_text("6 of 10").wait_for()
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
        page.get_by_role("dialog").wait_for(state="detached")
    expect(page).to_have_url(re.compile("/gallery$"))
    page.go_back()
    expect(page).to_have_url(re.compile("/queue$"))


def test_zooming_and_walking_do_not_leave_the_picture(page: Page) -> None:
    tiles(page).first.click()
    stage = page.locator(".stage")
    stage.wait_for()
    page.keyboard.press("+")
    page.locator(".stage.is-zoomed").wait_for()
    box = stage.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, -600)
    page.mouse.down()
    page.mouse.move(box["x"] + 9000, box["y"] + 9000)
    page.mouse.up()
    picture = page.locator(".stage-picture").bounding_box()
    assert picture is not None
    assert picture["x"] <= box["x"] + box["width"], "it cannot be pushed out of sight"
    page.keyboard.press("0")
    page.locator(".stage:not(.is-zoomed)").wait_for()


def test_what_came_of_what_is_a_graph_to_walk_in(page: Page) -> None:
    tiles(page).first.click()
    node = page.locator("button.lineage-node").first
    node.wait_for()
    expect(page.locator(".lineage-node.is-here")).to_have_count(1)
    expect(page.locator(".lineage-node.is-here img")).to_have_attribute("alt", "the same with a boat")
    expect(node, "its picture names it").to_have_accessible_name("a green tent in the snow")
    expect(page.locator(".lineage-line title").first).to_have_text("started from it")
    node.click()
    page.get_by_text("2 of 10").wait_for()


def test_two_are_compared_by_the_fields_in_which_they_differ(page: Page) -> None:
    for index in (1, 4):  # the same prompt, other seeds and steps
        tiles(page).nth(index).hover()
        tiles(page).nth(index).locator("[data-check]").click()
    page.get_by_text("2 selected").wait_for()
    page.keyboard.press("c")
    dialog = page.get_by_role("dialog", name="Compare")
    dialog.get_by_role("row").nth(2).wait_for()
    expect(dialog.get_by_role("rowheader")).to_have_count(2)
    assert sorted(dialog.get_by_role("rowheader").all_text_contents()) == ["Seed", "Steps"]
    cut = dialog.locator(".beside-place .stage").first
    before = cut.get_attribute("style") or ""
    assert "clip-path" in before
    page.keyboard.press("ArrowRight")
    expect(cut, "the line moves with the arrow keys").not_to_have_attribute("style", before)
    dialog.get_by_role("button", name="Side by side").click()
    page.locator(".beside-place.is-side").wait_for()
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")


def test_favourites_and_folders(own_page: Page, own: Server) -> None:
    page = own_page
    page.keyboard.press("/")
    page.keyboard.press("Enter")
    page.keyboard.press("f")
    tiles(page).first.locator(".piece-star").wait_for()
    page.get_by_role("button", name="Favourites").click()
    page.locator('.piece[aria-setsize="1"]').wait_for()
    page.get_by_role("button", name="All", exact=True).click()
    page.locator('.piece[aria-setsize="10"]').first.wait_for()
    for index in (2, 3):
        tiles(page).nth(index).click(modifiers=["Control"])
    strip = page.locator(".chosen-bar")
    strip.get_by_role("button", name="Folder").click()
    page.get_by_label("Name of the folder").fill("Sea pieces")
    page.keyboard.press("Enter")
    page.get_by_text("2 in Sea pieces").wait_for()
    page.get_by_role("button", name="Select none").click()
    page.locator(".tabs").get_by_role("button", name="Folder").click()
    page.get_by_role("menuitemradio", name="Sea pieces").click()
    page.locator('.piece[aria-setsize="2"]').first.wait_for()
    with Gallery(own.home / "gallery.sqlite", own.home / "outputs") as gallery:
        assert [folder.name for folder in gallery.folders("owner")] == ["Sea pieces"]
        assert gallery.outputs(favourite=True).total == 1
    tiles(page).first.click(modifiers=["Control"])
    strip.get_by_role("button", name="Folder").click()
    page.get_by_role("button", name="No folder").click()
    page.locator('.piece[aria-setsize="1"]').wait_for()


def test_every_key_is_shown(page: Page) -> None:
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keys")
    dialog.locator("dt", has=page.get_by_text("+", exact=True)).wait_for()
    assert all(dialog.locator("kbd").all_text_contents())


def test_what_is_deleted_can_be_had_again(own_page: Page) -> None:
    page = own_page
    tiles(page).nth(2).click(modifiers=["Control"])
    tiles(page).nth(5).click(modifiers=["Shift"])
    page.get_by_text("4 selected").wait_for()
    page.keyboard.press("Delete")
    page.locator('.piece[aria-setsize="6"]').first.wait_for()
    page.get_by_role("button", name="Undo").click()
    page.locator('.piece[aria-setsize="10"]').first.wait_for()
    tiles(page).first.click()
    page.get_by_text("1 of 10").wait_for()
    page.keyboard.press("Delete")
    page.get_by_text("1 of 9").wait_for()  # the next one is shown
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Trash").click()
    page.locator('.piece[aria-setsize="1"]').click()
    page.get_by_role("button", name="Restore").click()
    page.get_by_text("The trash is empty.").wait_for()
    page.get_by_role("button", name="All", exact=True).click()
    page.locator('.piece[aria-setsize="10"]').first.wait_for()


def test_what_another_tab_deletes_is_gone_here_too(own_page: Page) -> None:
    other = own_page.context.new_page()
    other.goto("/gallery")
    tiles(other).nth(9).wait_for()
    other.keyboard.press("/")
    other.keyboard.press("Enter")
    other.keyboard.press("Delete")
    other.get_by_text("1 deleted").wait_for()
    own_page.locator('.piece[aria-setsize="9"]').first.wait_for()
    other.get_by_role("button", name="Undo").click()
    own_page.locator('.piece[aria-setsize="10"]').first.wait_for()


def test_what_is_deleted_can_be_had_again_from_another_room(own_page: Page) -> None:
    page = own_page
    page.keyboard.press("/")
    page.keyboard.press("Enter")
    page.keyboard.press("Delete")
    page.get_by_text("1 deleted").wait_for()
    page.keyboard.press("1")
    made = page.locator(".recent .is-made")
    expect(made).to_have_count(9)
    page.get_by_role("button", name="Undo").click()
    page.get_by_text("1 restored").wait_for()
    expect(made).to_have_count(10)
    made.nth(3).locator(".print").click()
    page.get_by_role("button", name="Recipe").focus()
    page.keyboard.press("Delete")
    expect(made).to_have_count(9)
    page.get_by_text("Deleted", exact=True).wait_for()
    page.keyboard.press("3")
    page.locator('.piece[aria-setsize="9"]').first.wait_for()
    page.get_by_role("button", name="Undo").click()
    page.locator('.piece[aria-setsize="10"]').first.wait_for()


def test_what_another_tab_deletes_is_gone_from_the_strip_of_the_room_make(own_page: Page) -> None:
    make = own_page.context.new_page()
    make.goto("/")
    made = make.locator(".recent .is-made")
    expect(made).to_have_count(10)
    shown = make.locator(".stage-picture")
    expect(shown).to_have_attribute("alt", "the same with a boat")
    own_page.keyboard.press("/")
    own_page.keyboard.press("Enter")
    own_page.keyboard.press("Delete")
    expect(made).to_have_count(9)
    expect(shown).to_have_attribute("alt", PROMPTS[2])
    own_page.get_by_role("button", name="Undo").click()
    expect(made).to_have_count(10)


def test_what_is_selected_is_exported(page: Page) -> None:
    page.keyboard.press("/")
    page.keyboard.press("Enter")
    page.keyboard.press("Control+a")
    page.get_by_text("10 selected").wait_for()
    with page.expect_download() as waited:
        page.locator(".chosen-bar").get_by_role("button", name="Export").click()
    assert re.fullmatch(r"bottega-\d{4}-\d\d-\d\d-10\.zip", waited.value.suggested_filename)
    content = Path(waited.value.path()).read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert len([name for name in archive.namelist() if name.endswith(".png")]) == 10


def test_what_is_made_meanwhile_comes_in_without_moving_what_is_looked_at(own_page: Page, own: Server) -> None:
    page = own_page
    tiles(page).nth(3).click()
    page.get_by_text("4 of 10").wait_for()
    with own.client() as client:
        key = (own.home / "serve.json").read_text().split('"key": "')[1].split('"')[0]
        recipe = {"prompt": "a lighthouse", "sampling": {"steps": 1}}
        asked = client.post("/api/jobs", json={"recipe": recipe}, headers={"Authorization": f"Bearer {key}"})
    assert asked.status_code == 202
    page.get_by_text("5 of 11").wait_for(timeout=60_000)
    expect(page.locator(".recipe-words").first).to_have_text(PROMPTS[0])
    page.keyboard.press("Escape")
    page.get_by_role("option", name="a lighthouse").wait_for()


def test_the_first_pictures_stand_where_they_stay(browser: Browser, server: Server) -> None:
    with watched_page(browser, server.url) as (page, _):
        sign_in(page, server.home, server.url)
        page.route("**/api/outputs/ratios*", lambda route: None)  # of which only the first page is known, then
        page.goto("/gallery")
        first = page.locator(".piece img").first
        first.wait_for()
        box = first.bounding_box()
        assert box and box["width"] == pytest.approx(box["height"], rel=0.02), "the pictures are square"


def test_a_picture_that_is_alone_on_its_page_is_shown(browser: Browser, own: Server) -> None:
    with Gallery(own.home / "gallery.sqlite", own.home / "outputs") as gallery:
        for index in range(91):
            recipe = recipe_of("one of many", seed=index)
            added(
                gallery, write_output(own.home / "outputs", recipe, id=f"further{index}-0", at=-99 * DAY, owner="owner")
            )
    with room(browser, own) as page:
        page.locator('.piece[aria-setsize="101"]').first.focus()
        page.keyboard.press("End")
        page.locator('.piece[data-index="100"] img[src]').wait_for()


def test_a_list_that_comes_after_none_is_seen_from_its_beginning(browser: Browser, server: Server) -> None:
    with room(browser, server) as page:
        page.set_viewport_size({"width": 500, "height": 400})
        page.locator(".gallery-scroll").evaluate("(box) => { box.scrollTop = 200; }")
        page.get_by_role("searchbox").fill("unicorn")
        page.get_by_role("button", name="Clear the search").click()
        page.locator('.piece[aria-setsize="10"]').first.wait_for()
        assert page.locator(".gallery-scroll").evaluate("(box) => box.scrollTop") == 0


def test_the_way_back_to_make(browser: Browser, server: Server) -> None:
    """The recipe is there as it was, although its model is another by now, which the server says."""
    with room(browser, server, allowed="422") as page:
        tiles(page).nth(1).click()
        page.get_by_text("2 of 10").wait_for()
        with page.expect_response("**/api/resolve") as answered:
            page.get_by_role("button", name="Open in Make").click()
            page.locator(".room-make").wait_for()
            page.get_by_role("textbox", name="Prompt", exact=True).wait_for()
            expect(page.get_by_role("textbox", name="Prompt", exact=True)).to_have_value("a green tent in the snow")
        assert answered.value.status == 422


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a hundred thousand outputs, of which most are copies of the rows of six."""
    home = tmp_path_factory.mktemp("many") / "home"
    with Gallery(home / "gallery.sqlite", home / "outputs") as gallery:
        for index in range(6):
            told = write_output(
                home / "outputs",
                recipe_of(PROMPTS[index % 3], seed=index),
                id=f"picture{index}-0",
                at=index,
                owner="owner",
            )
            gallery.add(told)
    multiply(home, 100_000)
    with serving(home) as server:
        yield server


def multiply(home: Path, total: int) -> None:
    """Copy the rows of a gallery, and link their files, until there are so many: each a minute older than the last."""
    with closing(sqlite3.connect(home / "gallery.sqlite")) as connection, connection:
        connection.row_factory = sqlite3.Row
        for table in ("outputs", "details"):
            rows = [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY id")]
            copies = (copied(rows[number % len(rows)], number // len(rows)) for number in range(len(rows), total))
            names = ", ".join(rows[0])
            holders = ", ".join(f":{name}" for name in rows[0])
            connection.executemany(f"INSERT INTO {table} ({names}) VALUES ({holders})", copies)
        for (path,) in connection.execute("SELECT path FROM details WHERE path LIKE 'copies/%'"):
            (home / "outputs" / path).parent.mkdir(exist_ok=True)
            os.link(home / "outputs" / path.partition("-of-")[2], home / "outputs" / path)


def copied(row: dict[str, Any], turn: int) -> dict[str, Any]:
    other = {**row, "id": row["id"] - turn * 60_000_000}
    if "width" in row:
        return {**other, "width": 100 + turn % 7 * 30, "height": 160}
    return {**other, "name": f"copy{turn}-of-{row['name']}", "path": f"copies/{turn}-of-{row['path']}"}


def test_the_next_one_is_shown_when_one_of_many_is_deleted(many: Server, browser: Browser) -> None:
    """Where the list is longer than what was asked for of it, too."""
    with watched_page(browser, many.url) as (page, _):
        sign_in(page, many.home, many.url)
        page.goto("/gallery")
        page.locator('.piece[aria-setsize="100000"]').first.wait_for()
        tiles(page).nth(2).click()
        page.get_by_text("3 of 100,000").wait_for()
        page.keyboard.press("Delete")
        page.get_by_text("3 of 99,999").wait_for()
        page.get_by_role("button", name="Undo").click()
        page.locator('.piece[aria-setsize="100000"]').first.wait_for(state="attached")


def test_a_hundred_thousand_outputs_scroll(many: Server, browser: Browser) -> None:
    """Their heights are reserved at once, and little of them all is drawn, wherever one looks."""
    with watched_page(browser, many.url, viewport={"width": 1440, "height": 900}) as (page, _):
        sign_in(page, many.home, many.url)
        page.goto("/gallery")
        page.locator('.piece[aria-setsize="100000"]').first.wait_for()
        scroller = page.locator(".gallery-scroll")
        high = scroller.evaluate("element => element.scrollHeight")
        for top in (*range(0, 20_000, 1500), *range(high // 4, high // 4 + 60_000, 12_000), high // 2, high, 0):
            scroller.evaluate(
                """async (element, top) => {
                    element.scrollTop = top;
                    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
                }""",
                top,
            )
            assert page.locator(".piece").count() < 150
        assert scroller.evaluate("element => element.scrollHeight") == high, "nothing jumps when pictures come"
        scroller.evaluate("(element, top) => { element.scrollTop = top; }", high)
        page.locator('.piece[aria-posinset="100000"]').wait_for()
        page.locator('.piece[aria-posinset="100000"] img').wait_for()


def test_pictures_are_fetched_few_in_a_frame(many: Server, browser: Browser) -> None:
    """Many at once take so long that the next frame comes too late; those on the screen come first."""
    with watched_page(browser, many.url, viewport={"width": 1440, "height": 900}) as (page, _):
        sign_in(page, many.home, many.url)
        page.goto("/gallery")
        begun, all_of_them = page.evaluate(
            """async () => {
              const frame = document.querySelector("script[type=module]").src;
              const { cells, Window } = await import(new URL("parts/window.js", frame));
              const scroller = document.createElement("div");
              scroller.style.cssText = "position: fixed; inset: 0; overflow: auto;";
              document.body.append(scroller);
              const drawn = (index) => {
                const picture = document.createElement("img");
                picture.dataset.src = `/static/icon.svg?${index}`;
                const element = document.createElement("div");
                element.append(picture);
                return element;
              };
              const layout = (width) => cells(400, width, { least: 120, height: () => 90, gap: 6 });
              const window = new Window(scroller, { label: "all", layout, draw: drawn });
              const begun = [];
              const look = () => [...scroller.querySelectorAll("img[src]")]
                .map((picture) => Number(picture.closest("[data-index]").dataset.index));
              window.renew();
              for (let each = 0; each < 60; each++) {
                begun.push(look());
                await new Promise((shown) => requestAnimationFrame(shown));
              }
              const left = scroller.querySelectorAll("img[data-src]").length;
              window.close();
              scroller.remove();
              return [begun, left];
            }"""
        )
    counts = [len(each) for each in begun]
    assert max(after - before for before, after in zip([0, *counts], counts, strict=False)) == 4
    assert begun[0] == [0, 1, 2, 3]
    assert (all_of_them, counts[-1]) == (0, max(counts)) and counts[-1] > 60


def test_who_rushes_past_pictures_does_not_fetch_them_and_who_arrives_or_strolls_does(
    many: Server, browser: Browser
) -> None:
    """In a quarter of a screen each frame all goes by, in a fiftieth it is looked at; time passes only as told here."""
    moved = """async (element, share) => {
        const scrolled = new Promise((done) => element.addEventListener("scroll", done, { once: true }));
        element.scrollTop += Math.round(share * element.clientHeight);
        await scrolled;
    }"""
    with watched_page(browser, many.url, viewport={"width": 1440, "height": 900}) as (page, _):
        sign_in(page, many.home, many.url)
        page.clock.install()
        page.goto("/gallery")
        page.locator('.piece[aria-setsize="100000"]').first.wait_for()
        page.clock.pause_at(page.evaluate("Date.now() + 10_000"))
        scroller, unfetched = page.locator(".gallery-scroll"), page.locator(".piece img[data-src]")
        page.clock.run_for(500)
        expect(unfetched).to_have_count(0)
        for _ in range(12):
            scroller.evaluate(moved, 0.25)
            page.clock.run_for(16)
        page.locator(".piece img[data-src]").nth(9).wait_for()
        page.clock.run_for(500)
        expect(unfetched).to_have_count(0)
        drawn = page.locator(".piece").last.get_attribute("aria-posinset")
        for _ in range(30):
            scroller.evaluate(moved, 0.02)
            page.clock.run_for(64)  # a row is fetched in more than one frame
            expect(unfetched).to_have_count(0)
        assert page.locator(".piece").last.get_attribute("aria-posinset") != drawn, "others have come"
