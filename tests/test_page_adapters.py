"""Adapters in the room Make, in a browser: chosen among what fits, weighed, told of, and had back with a picture."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from adapter_files import taesd, write_taesd
from browser import Watched, chromium
from door_server import Server, serving
from playwright.sync_api import Browser, Locator, Page, expect
from starters import ADAPTERS
from test_lora import write_lora
from test_page_make import HOUSE, LONG, NAMELESS, PALE, ask, drop, fold, make, make_one, picture, room, scan

from bottega.families._stable_diffusion import toy
from bottega.formats import safetensors
from bottega.runtime.weights import rows
from bottega.settings import STARTER_SHELF

pytestmark = pytest.mark.slow
QUICK = {"steps": 4, "seed": 5}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with adapters that fit the starter, one that fits another model, and that model."""
    home = tmp_path_factory.mktemp("adapters") / "home"
    shelf = home / "models"
    starter = STARTER_SHELF / "starter-image.safetensors"
    write_lora(shelf / "glow.safetensors", starter, metadata={"ss_base_model_version": "sd_v1"})
    (shelf / "glow.json").write_text(json.dumps({"activation text": "glowing tubes", "preferred weight": 0.3}))
    safetensors.write(shelf / "lamp.safetensors", rows({"emb_params": torch.randn(2, 128)}))
    write_taesd(shelf / "taesd.safetensors", "diffusers", taesd())
    toy.write_single_file(shelf / "toy-xl.safetensors", "sdxl")
    write_lora(shelf / "grand.safetensors", shelf / "toy-xl.safetensors", "sdxl")
    with serving(home) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(server: Server, browser: Browser) -> Iterator[Page]:
    with opened(server, browser) as (page, _):
        yield page


@pytest.fixture
def seen(server: Server, browser: Browser) -> Iterator[tuple[Page, Watched]]:
    with opened(server, browser) as (page, watched):
        yield page, watched


def opened(server: Server, browser: Browser, **options: Any) -> Any:
    return room(server, browser, **options)


def add(page: Page, name: str) -> None:
    """Choose an adapter as the keyboard does."""
    page.get_by_role("button", name="Add an adapter").click()
    page.keyboard.type(name)
    page.get_by_role("option", name=re.compile(f"^{name} ?")).wait_for()
    page.keyboard.press("Enter")
    page.locator(".picker-panel .picker-card").first.wait_for(state="hidden")


def add_row(page: Page, name: str) -> None:
    """Choose an adapter that gets a row, whose weight is to be typed next; wait until it is told what comes of it."""
    with page.expect_response("**/api/resolve"):
        add(page, name)
        page.locator(f'.adapter[data-name="{name}"] .adapter-weight:focus').wait_for()


def row(page: Page, name: str) -> Locator:
    return page.locator(f'.adapter[data-name="{name}"]')


def weight(page: Page, name: str) -> Locator:
    return page.get_by_label(f"Weight of {name}")


def recipe_of(page: Page, address: str) -> Any:
    """The recipe of the output whose file is there."""
    return page.request.get(address.removesuffix("/file")).json()["recipe"]


def uses(page: Page, address: str) -> list[tuple[str, str, float]]:
    return [(use["kind"], use["ref"]["name"], use["weight"]) for use in recipe_of(page, address)["adapters"]]


def test_only_what_fits_is_offered_and_the_keyboard_takes_it(page: Page) -> None:
    page.get_by_role("button", name="Add an adapter").click()
    cards = page.locator(".picker-panel .picker-card")
    expect(cards.locator(".picker-name")).to_have_count(3 + len(ADAPTERS))
    assert set(cards.locator(".picker-name").all_text_contents()) == {"lamp", "glow", "taesd", *ADAPTERS}
    page.get_by_role("button", name="LoRA", exact=True).click()
    page.get_by_role("option", name=re.compile("lamp")).wait_for(state="detached")
    loras = {name for name, kind in ADAPTERS.items() if kind == "lora"}
    expect(cards.locator(".picker-name")).to_have_count(1 + len(loras))
    assert set(cards.locator(".picker-name").all_text_contents()) == {"glow", *loras}
    page.keyboard.press("Escape")
    add_row(page, "glow")
    expect(weight(page, "glow"), "the weight that its card suggests").to_have_value("0.3")
    expect(weight(page, "glow")).to_be_focused()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Shift+ArrowUp")
    expect(weight(page, "glow")).to_have_value("0.85")
    page.get_by_role("button", name="Remove glow").click()
    row(page, "glow").wait_for(state="detached")
    page.get_by_role("button", name="Undo").click()
    expect(weight(page, "glow")).to_have_value("0.85")


def test_a_weight_is_dragged_or_typed(page: Page) -> None:
    add_row(page, "glow")
    page.locator("main").focus()
    field = weight(page, "glow")
    box = field.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y, steps=6)
    page.mouse.up()
    expect(field).to_have_value("0.8")
    page.mouse.click(x, y)  # without a drag it is typed
    page.keyboard.type("1.25")
    expect(field).to_have_value("1.25")
    page.reload()
    page.get_by_text("DPM++ 2M Karras · 20 steps · 7").wait_for(timeout=LONG)
    expect(weight(page, "glow")).to_have_value("1.25")


def test_a_picture_is_made_with_it_and_gives_it_back(seen: tuple[Page, Watched], server: Server) -> None:
    page, watched = seen
    plain = make_one(page, HOUSE, **QUICK)
    add_row(page, "glow")
    weight(page, "glow").fill("0.5")
    page.get_by_role("button", name="glow: settings").click()
    page.get_by_label("UNet and text encoder apart").check()
    page.get_by_label("Text encoder", exact=True).fill("0.2")
    page.keyboard.press("Escape")
    glow = make_one(page, HOUSE)
    (use,) = recipe_of(page, glow)["adapters"]
    assert (use["ref"]["name"], use["unet"], use["weight"]) == ("glow", 0.5, 0.2)
    assert picture(page, glow).tobytes() != picture(page, plain).tobytes()
    page.get_by_role("switch", name="glow: in use").uncheck()
    assert picture(page, make_one(page, HOUSE)).tobytes() == picture(page, plain).tobytes(), "off is as without it"
    page.get_by_role("button", name="Remove glow").click()
    drop(page, page.request.get(glow).body())
    page.get_by_role("button", name="Use its recipe").click()
    row(page, "glow").get_by_text(re.compile("UNet 0.5 · Text encoder 0.2")).wait_for()
    # Its file gets another name: the hash finds it.
    watched.allowed += ["404", "422"]  # until it was looked for again
    (server.home / "models" / "glow.safetensors").rename(server.home / "models" / "renamed.safetensors")
    try:
        scan(page)
        page.reload()
        row(page, "glow").wait_for(timeout=LONG)
        page.get_by_text(re.compile("Karras · 4 steps · 7")).wait_for(state="attached")
        again = make_one(page, HOUSE)
        assert picture(page, again).tobytes() == picture(page, glow).tobytes()
        page.get_by_role("button", name="Recipe").click()
        page.locator(".drawer dd", has_text="renamed · UNet 0.5 · text encoder 0.2").wait_for()
    finally:
        (server.home / "models" / "renamed.safetensors").rename(server.home / "models" / "glow.safetensors")
        scan(page)


def test_one_whose_file_is_gone_says_so_at_its_row(seen: tuple[Page, Watched], server: Server) -> None:
    page, watched = seen
    watched.allowed.append("404")
    add_row(page, "glow")
    away = server.home / "glow.safetensors"
    (server.home / "models" / "glow.safetensors").rename(away)
    try:
        scan(page)
        page.get_by_label("Prompt", exact=True).fill("a house")
        row(page, "glow").get_by_text("glow is not on the shelf any more").wait_for()
        page.keyboard.press("Control+Enter")
        expect(weight(page, "glow")).to_be_focused()
    finally:
        away.rename(server.home / "models" / "glow.safetensors")
        scan(page)


def test_what_does_not_fit_says_so_at_its_row_and_in_the_prompt(seen: tuple[Page, Watched]) -> None:
    page, watched = seen
    watched.allowed.append("422")
    add_row(page, "glow")
    prompt = page.get_by_label("Prompt", exact=True)
    prompt.fill("a house <lora:glow:0.4> <lora:grand:1> <lora:nobody:1>")
    page.locator(".prompt-sheet .unfit").wait_for()
    expect(page.locator(".prompt-sheet .unfit")).to_have_text("<lora:grand:1>")
    expect(page.locator(".prompt-sheet .stranger")).to_have_text("<lora:nobody:1>")
    expect(page.locator(".prompt-sheet .network:not(.unfit, .stranger)")).to_have_text("<lora:glow:0.4>")
    page.get_by_text(re.compile("grand does not fit starter-image")).wait_for()
    prompt.fill("a house")
    page.locator(".prompt-unfit").wait_for(state="detached")
    page.get_by_role("button", name=re.compile("^Model: ")).click()
    page.get_by_role("option", name="toy-xl").click()
    wrong = row(page, "glow").locator(".wrong")
    wrong.filter(has_text="toy-xl").wait_for()
    make(page)
    page.locator(".adapter-weight:focus").wait_for()
    expect(page.locator(".recent .is-waiting, .recent .is-running")).to_have_count(0)
    page.get_by_role("switch", name="glow: in use").uncheck()
    wrong.wait_for(state="hidden")


def test_tags_become_rows_and_words_find_embeddings(page: Page) -> None:
    prompt = page.get_by_label("Prompt", exact=True)
    prompt.fill("a house <lora:glow:0.4>")
    page.get_by_role("button", name=re.compile("^LoRA ?glow")).click()
    page.get_by_role("menuitem", name="Make it a row here").click()
    expect(weight(page, "glow")).to_have_value("0.4")
    expect(prompt).to_have_value("a house")
    page.get_by_role("button", name="Put “glowing tubes” into the prompt").click()
    expect(prompt).to_have_value("a house, glowing tubes")
    page.get_by_role("button", name="Put “glowing tubes” into the prompt").wait_for(state="hidden")
    add(page, "lamp")
    page.get_by_role("button", name=re.compile("^Embedding ?lamp")).wait_for()
    expect(prompt).to_have_value("a house, glowing tubes, lamp")
    page.get_by_role("button", name="Move to the negative prompt").click()
    expect(prompt).to_have_value("a house, glowing tubes")
    expect(page.get_by_label("Negative prompt")).to_have_value("lamp")
    ask(page, HOUSE, **QUICK)
    made = make_one(page, HOUSE)
    assert uses(page, made) == [("lora", "glow", 0.4), ("embedding", "lamp", 1)]


def test_another_vae_is_a_setting(page: Page, server: Server) -> None:
    own = make_one(page, HOUSE, **QUICK)
    fold(page, "More settings").click()
    page.get_by_label("VAE", exact=True).select_option("taesd")
    other = make_one(page, HOUSE)
    assert uses(page, other) == [("vae", "taesd.safetensors", 1)]
    assert picture(page, own).tobytes() != picture(page, other).tobytes()
    page.get_by_label("VAE", exact=True).select_option("The model's own")
    fold(page, "More settings").click()
    page.get_by_text("VAE The model's own").wait_for()
    page.get_by_role("button", name="Reuse").click()
    page.get_by_role("menuitem", name="All settings").click()
    page.get_by_text("VAE taesd.safetensors").wait_for()
    # What was made without one is made without one again, though there is one beside the model now.
    beside = server.home / "models" / "starter-image.vae.safetensors"
    beside.write_bytes((server.home / "models" / "taesd.safetensors").read_bytes())
    try:
        scan(page)
        drop(page, page.request.get(own).body())
        page.get_by_role("button", name="Use its recipe").click()
        page.get_by_text("VAE The model's own").wait_for(timeout=LONG)
    finally:
        beside.unlink()
        scan(page)


def test_the_library_sends_adapters_that_fit(page: Page, server: Server) -> None:
    page.goto("/library")
    page.get_by_text("glow", exact=True).click()
    page.get_by_role("button", name="Use in Make").click()
    row(page, "glow").wait_for()
    expect(page, "the address is tidied").to_have_url(f"{server.url}/")


def test_a_phone_and_every_eye_and_ear_have_it_all(server: Server, browser: Browser) -> None:
    for options in ({"color_scheme": "light"}, {"color_scheme": "dark"}):
        phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True, **options}
        with opened(server, browser, **phone) as (page, _):
            add_row(page, "glow")
            page.get_by_label("Prompt", exact=True).fill("a lamp by the sea")
            page.get_by_role("button", name=re.compile("^Embedding ?lamp")).wait_for(timeout=LONG)
            page.get_by_role("button", name="glow: settings").click()
            page.get_by_label("UNet and text encoder apart").check()
            assert page.evaluate(NAMELESS) == []
            assert page.evaluate(PALE) == []
            widths = "[document.documentElement.scrollWidth, document.querySelector('main').scrollWidth]"
            assert page.evaluate(widths) == [360, 360]
