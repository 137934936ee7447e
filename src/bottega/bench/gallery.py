"""Measures the gallery: opening, pages, search while somebody types, lineage, what a new output costs, and memory."""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bottega.bench.made_outputs import NOW, OWNERS, fill, made_outputs
from bottega.bench.times import Times, summed, time_of, times_of
from bottega.formats.media import encode
from bottega.gallery import Gallery
from bottega.settings import Settings

TYPED = (
    "lighthouse at night", "watercolor castle", "dragon intricate", "masterpiece", "realmix", "portrait film", "山水",
    "пейзаж", "best quality 8k", "low quality",
)  # fmt: skip
FIELDS = ({"sampler": "Euler a"}, {"sampling.steps": "30", "clip_skip": "2"}, {"width": "1024", "guidance": "7.5"})
NEW = 200  # outputs that are added one by one
FILES = 400  # pictures that are read anew


@dataclass(frozen=True)
class Report:
    """What was measured; pages have 100 outputs, with the total, and each asks what was not asked before, but for
    `page_again`. Memory is what opening and all of it added (bytes)."""

    outputs: int
    database_bytes: int
    open_ms: float
    first_page: Times
    page_again: Times
    deep_page: Times
    search: Times
    fields: Times
    lineage: Times
    add: Times
    thumbnail: Times
    look_through_s: float
    page_meanwhile: Times
    read_anew_per_s: float
    memory: int | None

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return asdict(self)

    @property
    def rows(self) -> list[tuple[str, str]]:
        """The report for people."""
        memory = "not told by this system" if self.memory is None else f"{self.memory / (1 << 20):.0f} MiB"
        return [
            ("outputs", f"{self.outputs:,}, {self.database_bytes / 1e6:,.0f} MB"),
            ("open", f"{self.open_ms:.1f} ms"),
            ("first page", str(self.first_page)),
            ("page again", str(self.page_again)),
            ("deep page", str(self.deep_page)),
            ("search", f"{self.search}, after every letter"),
            ("fields", str(self.fields)),
            ("lineage", str(self.lineage)),
            ("add", f"{self.add}, synced to disk"),
            ("thumbnail", f"{self.thumbnail}, of 512x512"),
            ("look through", f"{self.look_through_s:.2f} s for all files, when nothing is new"),
            ("meanwhile", f"first page {self.page_meanwhile}"),
            ("read anew", f"{self.read_anew_per_s:,.0f} pictures a second"),
            ("memory", memory),
        ]


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Measure with as many outputs as `args.outputs` says, and tell; as JSON if `args.json` says so."""
    with tempfile.TemporaryDirectory(prefix="bottega-gallery-") as folder:
        fill(Path(folder), args.outputs, content=b"")
        # In a process of its own, so that memory is the gallery's.
        command = [sys.executable, "-m", "bottega.bench.gallery", folder]
        told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    facts: dict[str, Any] = {name: Times(**each) if isinstance(each, dict) else each for name, each in told.items()}
    report = Report(**facts)
    if args.json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        print("\n".join(f"{name:<13}  {value}" for name, value in report.rows))
    return 0


def measure(home: Path) -> Report:
    """Measure the gallery of a home that `fill` filled."""
    from PIL import Image

    path, folder = home / "gallery.sqlite", home / "outputs"
    Image.init()
    before = _memory()
    began = time.perf_counter()
    gallery = Gallery(path, folder)
    opened = time.perf_counter() - began
    # From another moment on each time: what was counted for one question is not counted again for it.
    first = times_of(lambda since: gallery.outputs(owner=OWNERS[0], since=since), range(40))
    again = times_of(lambda _: gallery.outputs(owner=OWNERS[0], since=0), range(40))
    last = gallery.outputs(owner=OWNERS[0])
    total = gallery.outputs().total
    middle = str(int((NOW - total * 30) * 1e6))
    deep = times_of(lambda since: gallery.outputs(owner=OWNERS[0], before=middle, since=since), range(100, 140))
    search = times_of(lambda typed: gallery.outputs(owner=OWNERS[0], text=typed), [*_prefixes()] * 2)
    wishes = [(field, since) for since in range(10) for field in FIELDS]
    fields = times_of(lambda wish: gallery.outputs(owner=OWNERS[0], field=wish[0], since=wish[1]), wishes)
    lineage = times_of(lambda output: gallery.lineage(output.id), last.items[:50])
    after = _memory()
    picture = Image.effect_noise((512, 512), 40).convert("RGB")
    recipe = last.items[0].recipe
    (folder / "new").mkdir()
    for number in range(FILES):
        (folder / "new" / f"{number:05}-1.png").write_bytes(encode(picture.crop((0, 0, 64, 64)), "png", recipe=recipe))
    newest = last.items[0]
    small, large = newest.path.read_bytes(), encode(picture, "png", recipe=recipe)
    newest.path.write_bytes(large)
    gallery.add(replace(newest, bytes=len(large), sha256=hashlib.sha256(large).hexdigest()))
    thumbnail = times_of(lambda size: gallery.thumbnail(newest.id, size), (128, 256, 384, 512))
    newest.path.write_bytes(small)
    gallery.add(newest)
    began = time.perf_counter()
    gallery.adopt(folder / "new")
    anew = FILES / (time.perf_counter() - began)
    add = times_of(gallery.add, list(made_outputs(folder, NEW, seed=1)))
    looked, meanwhile = _look_through(gallery, folder)
    size = sum(file.stat().st_size for file in home.glob("gallery.sqlite*"))
    gallery.close()
    return Report(
        outputs=total,
        database_bytes=size,
        open_ms=opened * 1000,
        first_page=first,
        page_again=again,
        deep_page=deep,
        search=search,
        fields=fields,
        lineage=lineage,
        add=add,
        thumbnail=thumbnail,
        look_through_s=looked,
        page_meanwhile=meanwhile,
        read_anew_per_s=anew,
        memory=None if before is None or after is None else after - before,
    )


def _look_through(gallery: Gallery, folder: Path) -> tuple[float, Times]:
    """How long adopting takes when nothing is new, and pages while it goes on."""
    gallery.adopt(folder)  # which notes that the outputs that were added have no files
    took: list[float] = []

    def look() -> None:
        began = time.perf_counter()
        gallery.adopt(folder)
        took.append(time.perf_counter() - began)

    thread = threading.Thread(target=look)
    thread.start()
    pages: list[tuple[float, float]] = []
    while not pages or thread.is_alive():
        pages.append(time_of(lambda since: gallery.outputs(owner=OWNERS[0], since=since), len(pages)))
    thread.join()
    return took[0], summed(pages)


def _prefixes() -> Iterator[str]:
    """What stands in a search field after each key."""
    for text in TYPED:
        for length in range(1, len(text) + 1):
            yield text[:length]


def _memory() -> int | None:
    """What this process holds that no file gives back, where Linux tells it."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon"))


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1])).to_json()))
