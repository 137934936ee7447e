"""A real browser on a real server: what the tests of the page share. Whatever goes wrong unseen fails them."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_PATIENCE = 60_000  # ms that an action or an `expect` waits: a loaded machine is slow, not wrong
# Told to the page before its own code: keeps what the content policy forbade.
_LISTEN = """
addEventListener("securitypolicyviolation", (event) => console.error("CSP", event.violatedDirective, event.blockedURI));
"""

# Visible texts whose colour is too near to what lies behind them (WCAG AA: 4.5, large ones 3).
PALE = """() => {
  const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 })
    .getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    pen.clearRect(0, 0, 1, 1); pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const light = ([r, g, b]) => [r, g, b].map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
  const behind = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] > 0.9) return colour;
    }
    return [255, 255, 255, 1];
  };
  const opacity = (one) => (one ? getComputedStyle(one).opacity * opacity(one.parentElement) : 1);
  const wrong = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const one = walker.currentNode.parentElement;
    const seen = one.checkVisibility({ opacityProperty: true, visibilityProperty: true });
    if (!seen || !walker.currentNode.data.trim()) continue;
    if (one.closest("[aria-hidden=true], .is-idle, :disabled, option, noscript, .unseen")) continue;
    const style = getComputedStyle(one);
    const [own, under] = [rgba(style.color), behind(one)];
    const seenAs = own.map((value, index) => value * opacity(one) + under[index] * (1 - opacity(one)));
    const [front, back] = [light(seenAs), light(under)].sort((a, b) => b - a);
    const contrast = (front + 0.05) / (back + 0.05);
    if (contrast < (parseFloat(style.fontSize) >= 18.66 ? 3 : 4.5)) {
      wrong.push(`${walker.currentNode.data.trim().slice(0, 40)}: ${contrast.toFixed(2)}`);
    }
  }
  return wrong;
}"""


@dataclass
class Watched:
    """What a page did that it should not have done: errors on the console, requests to other hosts, failed loads.

    `allowed` are parts of console messages that a test expects: Chromium tells every answer of 400 and above as one.
    """

    origin: str
    wrong: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)

    def follow(self, page: Page) -> None:
        """Listen to a page from its first moment."""
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(part in message.text for part in self.allowed):
            self.wrong.append(f"console {message.type}: {message.text} ({message.location.get('url')})")

    def _request(self, request: Request) -> None:
        told = urlsplit(request.url)
        if told.scheme in ("http", "https", "ws", "wss") and f"{told.scheme}://{told.netloc}" != self.origin:
            self.wrong.append(f"request to another host: {request.url}")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A Chromium without a window; the test is skipped where none is installed."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    expect.set_options(timeout=_PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def watched_page(browser: Browser, origin: str, **options: Any) -> Iterator[tuple[Page, Watched]]:
    """A fresh page of the server at `origin`, and what it does wrong, which fails the test at the end."""
    context: BrowserContext = browser.new_context(base_url=origin, **{"locale": "en-US", **options})
    context.set_default_timeout(_PATIENCE)
    context.add_init_script(_LISTEN)
    watched = Watched(origin)
    context.on("page", watched.follow)
    try:
        yield context.new_page(), watched
    finally:
        context.close()
    assert watched.wrong == [], "\n".join(watched.wrong)


@contextmanager
def serving(app: Any, host: str = "127.0.0.1") -> Iterator[str]:
    """An ASGI app served on a free port by a thread of this process; its origin."""
    import uvicorn

    listening = socket.create_server((host, 0))
    port = listening.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="serving")
    thread.start()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def sign_in(page: Page, home: Path, origin: str) -> None:
    """Sign a page's browser in without showing it a room: Make, where the link leads, remembers what it chose."""
    assert page.request.get(link_into(home, origin)).ok


def link_into(home: Path, origin: str) -> str:
    """An address that signs one browser in to the server that runs on this home, as `bottega serve` prints it."""
    from bottega.api.access.accounts import Accounts
    from bottega.settings import Settings

    accounts = Accounts(Settings(home).accounts)
    try:
        return f"{origin}/?token={accounts.new_link()}"
    finally:
        accounts.close()


def post(page: Page, route: str) -> Any:
    """Ask the server for something, as the page does."""
    answer = page.request.post(route, data={}, headers={"Origin": page.evaluate("location.origin")})
    assert answer.ok, answer.text()
    return answer.json()
