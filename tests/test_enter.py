"""The way in, in a real browser: a link, a key, and what a used link says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import chromium, watched_page
from native import Api, studio

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with studio(tmp_path / "home") as api:
        yield api


@pytest.fixture
def page(browser: Browser, api: Api) -> Iterator[Page]:
    with watched_page(browser, api.served.origin) as (page, watched):
        watched.allowed += ["401 (Unauthorized)"]
        yield page


def test_a_link_leads_into_the_page_and_leaves_no_token_behind(page: Page, api: Api) -> None:
    page.goto(f"/?token={api.served.accounts.new_link()}")
    page.wait_for_selector("#rooms a")
    assert "token" not in page.url
    [cookie] = page.context.cookies()
    assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"
    page.reload()
    page.wait_for_selector("#rooms a")


def test_a_used_link_says_how_to_get_another(page: Page, api: Api) -> None:
    link = f"/?token={api.served.accounts.new_link()}"
    assert api.served("GET", link).status == 303
    page.goto(link)
    assert page.locator("section:visible .used").is_visible()
    assert page.get_by_text("bottega serve --link").is_visible()
    page.goto("/gallery")
    assert page.locator("section:visible .used").is_hidden()


def test_a_key_signs_in_and_out(page: Page, api: Api) -> None:
    key = api.served.accounts.add("ada", ["read", "generate"])
    page.goto("/")
    page.get_by_label("Or sign in with your key").fill("wrong")
    page.keyboard.press("Enter")
    page.get_by_text("this key is not known").wait_for()
    page.get_by_label("Or sign in with your key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_selector("#rooms a")
    assert page.evaluate("fetch('/api/me').then((answer) => answer.json())")["name"] == "ada"
    assert page.evaluate("fetch('/api/session', {method: 'DELETE'}).then((answer) => answer.status)") == 204
    assert page.evaluate("fetch('/api/me').then((answer) => answer.status)") == 401


def test_who_comes_from_another_sites_link_is_let_in_by_the_cookie(browser: Browser, api: Api) -> None:
    page = browser.new_page(base_url=api.served.origin)
    page.goto(f"/?token={api.served.accounts.new_link()}")
    page.wait_for_selector("#rooms a")
    # `localhost` is another site than 127.0.0.1: what it links to is asked for without the cookie at first.
    page.goto(f"http://localhost:{api.served.port}/enter")
    visits: list[int] = []
    page.on("response", lambda told: visits.append(told.status) if told.request.is_navigation_request() else None)
    page.evaluate(
        "(url) => { const a = document.createElement('a'); a.href = url; document.body.append(a); a.click(); }",
        f"{api.served.origin}/",
    )
    page.wait_for_selector("#rooms a")
    assert visits == [401, 200]
    page.close()


def test_it_speaks_chinese_and_fits_a_phone(browser: Browser, api: Api) -> None:
    options = {"locale": "zh-CN", "viewport": {"width": 360, "height": 640}, "color_scheme": "dark"}
    with watched_page(browser, api.served.origin, **options) as (page, watched):
        watched.allowed += ["401 (Unauthorized)"]
        page.goto("/enter")
        assert page.get_by_role("button", name="登录").is_visible()
        assert page.get_by_text("Or sign in").is_hidden()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
