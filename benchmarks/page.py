"""How soon the page shows what it is about, and how smoothly it scrolls, with many outputs and many models.

Needs what the tests need: Chromium, and `.[dev]`. Each room is opened several times by a browser that has seen nothing
of the page yet (cold), and each time once more (warm); the median is told, and in brackets the least and the most. Then
it is scrolled as a wheel does, slowly enough that all pictures are loaded on the way and so fast that they are not, as
a thumb that drags the bar does, and to places far apart, with a rest of 100 ms at each, in which no picture is loaded,
and of 250, in which many are. What a frame took is the time between two of them in which the page could have painted: a
page that does nothing has one every 16.7 ms.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from PIL import Image
from playwright.sync_api import sync_playwright

from bottega.bench import made_outputs
from bottega.bench.model_files import make_models
from bottega.bench.serving import Serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOMS = {"/": "", "/gallery": ".gallery-scroll", "/library": ".library-scroll", "/queue": "", "/system": ""}
MOST_PAINT, MOST_FRAME, MOST_CHIP = 500, 50, 100  # milliseconds
TIMES = 5
REST = 15.0  # seconds
SETTLED = 2.0  # seconds after a page was loaded: whatever was to be painted is
_PAINTED = """
new Promise((told) => {
  new PerformanceObserver((list) => told(Math.max(...list.getEntries().map((entry) => entry.startTime))))
    .observe({ type: "largest-contentful-paint", buffered: true });
  setTimeout(() => told(null), 1000);
})
"""
_WATCHED = """
() => {
  addEventListener("keydown", () => { window.pressed = performance.now(); }, { capture: true });
  new MutationObserver(() => {
    if (document.querySelector(".recent .is-waiting")) window.queued ??= performance.now();
  }).observe(document.querySelector(".recent"), { childList: true, subtree: true, attributes: true });
}
"""
_SCROLLED = """
async (place) => {
  const box = document.querySelector(place);
  const took = [];
  let last = performance.now();
  const frame = async () => {
    const now = await new Promise((shown) => requestAnimationFrame(() => shown(performance.now())));
    took.push(now - last);
    last = now;
  };
  await frame();
  took.length = 0;
  for (let step = 0; step < 240; step++) { box.scrollTop += 40; await frame(); }
  for (let step = 0; step < 240; step++) { box.scrollTop += 120; await frame(); }
  for (let step = 0; step < 120; step++) { box.scrollTop += 2500; await frame(); }
  for (const rest of [6, 15]) {
    for (let step = 0; step < 20; step++) {
      box.scrollTop = box.scrollHeight * ((step * 0.618 + rest * 0.0831) % 1);
      for (let wait = 0; wait < rest; wait++) await frame();
    }
  }
  return took.sort((one, other) => one - other);
}
"""


def main() -> int:
    """Measure, and tell; 1 if something took longer than it may."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--outputs", type=int, default=100_000)
    parser.add_argument("--models", type=int, default=10_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bottega-page-") as folder:
        home = Path(folder) / "home"
        home.mkdir()
        print(f"making {args.outputs:,} outputs and {args.models:,} models", file=sys.stderr)
        made_outputs.fill(home, args.outputs, _picture())
        (home / "models").mkdir()
        make_models(args.models, home / "models")
        _scan(home)
        os.sync()  # else the system would still be busy with what was just made
        time.sleep(REST)
        with Serving(home) as serving:
            serving.start()
            return _measure(serving)


def _scan(home: Path) -> None:
    command = [sys.executable, "-m", "bottega", "models", "scan"]
    subprocess.run(command, env={"BOTTEGA_HOME": str(home)}, check=True, capture_output=True)


def _measure(serving: Serving) -> int:
    missed = 0
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for address, place in ROOMS.items():
            cold, warm = [], []
            for _ in range(TIMES):
                page = _signed_in(browser, serving)
                cold.append(_paint(page, address))
                warm.append(_paint(page, address))
            line = f"{address:<9} largest contentful paint {_told(cold)} cold, {_told(warm)} warm"
            missed += max(median(cold), median(warm)) > MOST_PAINT
            if address == "/":
                chip = _asked(page)
                missed += chip > MOST_CHIP
                line += f"; from the key to the waiting picture {chip:.0f} ms"
            if place:
                took = page.evaluate(_SCROLLED, place)
                late = sum(each > MOST_FRAME for each in took)
                missed += late > 0
                line += f"; {len(took)} frames: median {took[len(took) // 2]:.1f} ms, longest {took[-1]:.1f} ms"
                line += f", {late} of more than {MOST_FRAME} ms"
            print(line, flush=True)
            for context in browser.contexts:
                context.close()
        browser.close()
    return 1 if missed else 0


def _asked(page: Page) -> float:
    """Milliseconds from the key that asks for a picture until it stands among the recent ones; no server is asked."""
    page.route("**/api/jobs", lambda route: None)
    page.get_by_label("Prompt", exact=True).fill("a red house")
    page.evaluate(_WATCHED)
    page.keyboard.press("Control+Enter")
    page.locator(".recent .is-waiting").first.wait_for()
    return float(page.evaluate("window.queued - window.pressed"))


def _told(paints: list[float]) -> str:
    return f"{median(paints):.0f} ms ({min(paints):.0f} to {max(paints):.0f})"


def _signed_in(browser: Browser, serving: Serving) -> Page:
    """A page of a browser without anything in its cache, signed in."""
    context = browser.new_context(base_url=_url(serving), viewport={"width": 1440, "height": 900})
    link = subprocess.run(
        [sys.executable, "-m", "bottega", "serve", "--link"],
        env={"BOTTEGA_HOME": str(serving.home)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    context.request.get(link)  # which leaves a cookie, and nothing in the cache
    return context.new_page()


def _url(serving: Serving) -> str:
    told: dict[str, Any] = json.loads((serving.home / "serve.json").read_text())
    return str(told["url"])


def _paint(page: Page, address: str) -> float:
    """Milliseconds from the request to the largest contentful paint."""
    page.goto(address)
    time.sleep(SETTLED)
    told = page.evaluate(_PAINTED)
    return float("inf") if told is None else float(told)


def _picture() -> bytes:
    content = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize((96, 64)).save(content, "PNG")
    return content.getvalue()


if __name__ == "__main__":
    sys.exit(main())
