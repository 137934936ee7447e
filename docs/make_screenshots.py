"""Make the screenshots in the README, of a real server in a real browser: `python docs/make_screenshots.py`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from make_pictures import SCENES

if TYPE_CHECKING:
    from playwright.sync_api import Page

DOCS = Path(__file__).parent
SIZE = {"width": 1440, "height": 900}
SHAPES = ("128x128", "192x128", "128x192", "160x128")
# Without those out of sight, which are never loaded.
DECODED = """() => Promise.all([...document.images]
    .filter((image) => image.complete || image.loading !== "lazy")
    .map((image) => image.decode().catch(() => null)))"""
PROMPT, LORA = "a turquoise boat by the sea at sunset, watercolor", "turquoise"


@contextmanager
def server(home: Path) -> Iterator[str]:
    """A server on a home of its own; the link that it prints."""
    words = [sys.executable, "-m", "bottega", "serve", "--port", "0"]
    environment = {**os.environ, "BOTTEGA_HOME": str(home)}
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield next(found[0] for line in process.stdout if (found := re.search(r"http://\S+token=\S+", line)))
        finally:
            process.terminate()


def fill(home: Path, seeds: int) -> None:
    """Pictures for the gallery, the newest of `PROMPT`."""
    environment = {**os.environ, "BOTTEGA_HOME": str(home)}
    told = [
        (prompt, seed + more, SHAPES[(at + more) % 4])
        for more in range(seeds)
        for at, (prompt, seed) in enumerate(SCENES)
    ]
    for prompt, seed, size in [*told, (PROMPT, 7, "128x128")]:
        words = ["make", "image", prompt, "--seed", str(seed), "--size", size]
        words += ["--lora", LORA] if prompt == PROMPT else []
        subprocess.run(
            [sys.executable, "-m", "bottega", *words], env=environment, check=True, stdout=subprocess.DEVNULL
        )


def shoot(page: Page, name: str) -> None:
    """Write what the page shows."""
    from PIL import Image

    page.locator("main img").first.wait_for()
    page.evaluate(DECODED)
    with Image.open(BytesIO(page.screenshot())) as picture:
        picture.convert("RGB").save(DOCS / name, "WEBP", quality=88, method=6)


def main() -> None:
    """Make docs/make.webp and docs/gallery.webp."""
    from playwright.sync_api import sync_playwright

    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as link, sync_playwright() as playwright:
        fill(Path(folder), 1)
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        context = browser.new_context(viewport=SIZE, color_scheme="light", locale="en-US")
        page = context.new_page()
        page.goto(link)
        page.get_by_label("Prompt", exact=True).fill(PROMPT)
        page.get_by_role("button", name="Add an adapter").click()
        page.get_by_role("option", name=re.compile(f"^{LORA} ?")).click()
        page.locator(f'.adapter[data-name="{LORA}"]').wait_for()
        page.locator("#rooms a").first.wait_for()
        page.locator(".recent img").nth(8).wait_for()
        shoot(page, "make.webp")
        page.emulate_media(color_scheme="dark")
        page.get_by_role("link", name="Gallery").click()
        shoot(page, "gallery.webp")
        browser.close()


if __name__ == "__main__":
    main()
