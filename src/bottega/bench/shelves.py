"""Measures the shelves: the first scan of many models, the second, search while somebody types, and memory."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bottega.bench.model_files import make_models
from bottega.bench.times import Times, times_of
from bottega.errors import BottegaError
from bottega.library import open_catalog
from bottega.library.browse import BEST, Wish, browse, counts, tag_counts
from bottega.settings import Settings

TAGGED = 10  # every so many are tagged
PAGE = 100  # models that the library's room asks for at a time
POLL = 0.02  # seconds between two looks at how much memory the processes hold
TYPED = (
    "dreamshape_v", "watercolor", "neon castle", "lora sdxl", "samuraicat", "checkpoint sd1", "水彩", "film grain 12",
    "vintage style", "пейзаж",
)  # fmt: skip


@dataclass(frozen=True)
class Scan:
    """One scan in a process of its own: seconds by the clock and of all processors, and the most bytes that it and
    the largest of its children held (None where the system does not tell)."""

    seconds: float
    processor_seconds: float
    headers_read: int
    peak: int | None
    peak_of_children: int | None


@dataclass(frozen=True)
class Report:
    """What was measured after each letter: what `bottega models list` finds, and a page and its counts as the
    library's room asks for them."""

    models: int
    header_bytes: int
    first: Scan
    second: Scan
    listed: int
    refused: int
    search: Times
    page: Times
    counts: Times
    catalog_bytes: int

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return asdict(self)

    @property
    def rows(self) -> list[tuple[str, str]]:
        """The report for people."""
        return [
            ("models", f"{self.models:,} files, {self.header_bytes / 1e6:,.0f} MB of headers"),
            ("first scan", _scan_text(self.first)),
            ("second scan", _scan_text(self.second)),
            ("catalog", f"{self.listed:,} models, {self.refused:,} refused, {self.catalog_bytes / 1e6:,.0f} MB"),
            ("search", f"{self.search}, while typing, 50 models each"),
            ("page", f"{self.page}, {PAGE} models each"),
            ("counts", str(self.counts)),
        ]


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Measure with as many models as `args.models` says, and tell; as JSON if `args.json` says so."""
    with tempfile.TemporaryDirectory(prefix="bottega-shelves-") as folder:
        report = measure(args.models, Path(folder))
    if args.json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        print("\n".join(f"{name:<11}  {value}" for name, value in report.rows))
    return 0


def measure(count: int, folder: Path) -> Report:
    """Make so many models in a folder, scan them twice with a new home, tag some, and search, page and count them."""
    shelf, home = folder / "shelf", folder / "home"
    header_bytes = make_models(count, shelf)
    first, second = _scan(home, shelf), _scan(home, shelf)
    with open_catalog(home / "catalog.sqlite") as catalog:
        for entry in catalog.entries()[::TAGGED]:
            catalog.say(entry, tags=["tried", entry.kind])
        typed = [*_prefixes()] * 3
        found = times_of(catalog.search, typed)
        paged = times_of(lambda text: browse(catalog, Wish(text), BEST, PAGE), typed)
        counted = times_of(lambda text: (counts(catalog, Wish(text)), tag_counts(catalog, Wish(text))), typed)
        listed, refused = len(catalog.sorts()), len(catalog.of_verdict("refused"))
    return Report(
        models=count,
        header_bytes=header_bytes,
        first=first,
        second=second,
        listed=listed,
        refused=refused,
        search=found,
        page=paged,
        counts=counted,
        catalog_bytes=sum(file.stat().st_size for file in home.iterdir() if file.is_file()),
    )


def _prefixes() -> Iterator[str]:
    """What stands in a search field after each key."""
    for text in TYPED:
        for length in range(1, len(text) + 1):
            yield text[:length]


def _scan(home: Path, shelf: Path) -> Scan:
    """`bottega models scan` in a process of its own, watched."""
    command = [sys.executable, "-m", "bottega", "models", "scan", str(shelf), "--json"]
    before = os.times()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, env={**os.environ, "BOTTEGA_HOME": str(home)}, stdout=output, stderr=subprocess.DEVNULL
        )
        peaks: dict[int, int] = {}
        while process.poll() is None:
            _note_peaks(process.pid, peaks)
            time.sleep(POLL)
        output.seek(0)
        told = output.read()
    after = os.times()
    if process.returncode:
        raise BottegaError(f"the scan ended with code {process.returncode}", "run `bottega models scan` by hand")
    report = json.loads(told)
    children = [peak for pid, peak in peaks.items() if pid != process.pid]
    return Scan(
        seconds=report["seconds"],
        processor_seconds=sum(after[2:4]) - sum(before[2:4]),
        headers_read=report["headers_read"],
        peak=peaks.get(process.pid),
        peak_of_children=max(children, default=None),
    )


def _note_peaks(pid: int, peaks: dict[int, int]) -> None:
    """The most that a process and those that it started have held so far, where Linux tells it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        tasks = [task.name for task in Path(f"/proc/{pid}/task").iterdir()]
        children = [Path(f"/proc/{pid}/task/{task}/children").read_text().split() for task in tasks]
    except OSError:  # it has ended; or this is no Linux
        return
    for line in status.splitlines():
        if line.startswith("VmHWM"):
            peaks[pid] = int(line.split()[1]) * 1024
    for child in {int(child) for started in children for child in started}:
        _note_peaks(child, peaks)


def _scan_text(scan: Scan) -> str:
    held = [
        f"{name} {peak / (1 << 20):.0f} MiB"
        for name, peak in (("held", scan.peak), ("its readers at most", scan.peak_of_children))
        if peak
    ]
    return f"{scan.seconds:.2f} s ({scan.processor_seconds:.1f} s of processors), " + ", ".join(
        (f"{scan.headers_read:,} headers read", *held)
    )
