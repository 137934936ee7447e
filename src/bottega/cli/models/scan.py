"""Look through the shelves for models that are new or changed."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottega.cli.models.shelves import all_shelves, family_words, plural
from bottega.cli.progress import Progress
from bottega.cli.terminal import folded, print_json, printable, sentence, table, time_text, window
from bottega.errors import FileError
from bottega.library import Catalog
from bottega.settings import Settings

if TYPE_CHECKING:
    from bottega.library.scan import Report

DESCRIPTION = (
    "Look through the shelves for models that are new or changed, read their headers and tell what they are. "
    "A folder may be plain, or where stable-diffusion-webui, Forge, ComfyUI, InvokeAI, Fooocus, Stability Matrix, "
    "Hugging Face, LM Studio or ollama keeps models."
)
MOST = 20  # files of one sort that a scan names one by one


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega models scan`."""
    parser.add_argument(
        "folders", nargs="*", type=named_folder, metavar="FOLDER", help="only these; each becomes a shelf"
    )
    parser.add_argument(
        "--forget-missing",
        action="store_true",
        help="drop what is gone from these shelves, with your words about it, or a shelf that is named and gone itself",
    )


def named_folder(text: str) -> Path:
    """A folder that is named; an empty name is more likely a script's mistake than the wish for the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; name a folder, or leave it out to scan all shelves")
    return Path(text)


def run(args: argparse.Namespace, settings: Settings, catalog: Catalog) -> int:
    """Scan the folders that are named, or all shelves."""
    from bottega.inspector import COMMAND
    from bottega.library.scan import scan
    from bottega.recognisers import all_recognisers

    named = [folder.expanduser().absolute() for folder in args.folders]
    shelves = all_shelves(settings, catalog)
    dropped = [folder for folder in named if args.forget_missing and folder in shelves and not folder.exists()]
    for shelf in dropped:
        catalog.forget_shelf(shelf)
    folders = [checked_folder(folder) for folder in named if folder not in dropped]
    for folder in folders:
        if not any(folder.is_relative_to(shelf) for shelf in shelves):
            catalog.add_shelf(folder)
    looked = folders if args.folders else shelves
    with Progress(sys.stderr) as progress:
        report = scan(
            catalog,
            looked,
            all_recognisers(),
            lambda done, total: progress.update("headers", done, total) if total else None,
            inspector=COMMAND,
            hashing=lambda done, total: progress.update("hash", done, total, "bytes"),
        )
    forgotten = forget_missing(catalog, looked, dropped) if args.forget_missing else 0
    missing = gone_from(catalog, looked)
    if args.json:
        print_json(report_json(looked, report, missing, forgotten))
    else:
        print(report_text(looked, report, missing, forgotten))
        if not args.folders:
            suggest(shelves)
    return 0


def suggest(shelves: Sequence[Path]) -> None:
    """Name the places where other programs keep models here, as far as they are no shelves yet."""
    from bottega.library.layouts import known_places

    known = {os.path.realpath(shelf) for shelf in shelves}
    for place in known_places(os.environ):
        if not any(os.path.realpath(place).startswith(shelf) for shelf in known):
            print(f"there are models in {printable(str(place))}: `bottega models scan` it", file=sys.stderr)


def gone_from(catalog: Catalog, shelves: Sequence[Path]) -> list[Path]:
    """What is on record of these shelves, or folders on them, and no longer there."""
    return [
        entry.path
        for entry in catalog.gone()
        if entry.shelf in shelves or any(entry.path.is_relative_to(shelf) for shelf in shelves)
    ]


def forget_missing(catalog: Catalog, shelves: Sequence[Path], dropped: Sequence[Path]) -> int:
    """Drop what is gone from these shelves; one that is away as a whole may come back, and is spared unless dropped."""
    gone = {*gone_from(catalog, [*(shelf for shelf in shelves if shelf.is_dir()), *dropped])}
    gone |= {entry.path for shelf in dropped for entry in catalog.entries(shelf) if not os.path.lexists(entry.path)}
    catalog.forget(gone)
    return len(gone)


def checked_folder(folder: Path) -> Path:
    """The folder without links in its path; raises FileError if there is none."""
    if not folder.exists():
        raise FileError(folder, "there is no such folder", "check the path")
    if not folder.is_dir():
        raise FileError(folder, "this is no folder", "scan the folder that it is in, or `bottega models show` the file")
    return folder.resolve()


def report_text(shelves: Sequence[Path], report: Report, missing: Sequence[Path], forgotten: int) -> str:
    """What a scan found, for people."""
    summary = (
        f"{plural(report.sorts.total(), 'model')} on {plural(len(shelves), 'shelf', 'shelves')}, "
        f"in {time_text(report.seconds)}: {changes_text(report)}; {plural(report.headers_read, 'header')} read."
    )
    paragraphs = [sentence(summary, sys.stdout)]
    if report.sorts:
        groups: Counter[tuple[str, str]] = Counter()
        for (kind, family, variant), count in report.sorts.items():
            groups[kind, family_words(family, variant)] += count
        rows = [(kind, family, str(count)) for (kind, family), count in sorted(groups.items())]
        paragraphs.append(table(("kind", "family", "models"), rows, sys.stdout, right=[2]))
    moves = [(str(now), f"was {before}") for before, now in report.moved]
    paragraphs += listed(f"{plural(len(moves), 'model')} moved, with all that you said of them:", moves)
    unusual = [(str(entry.path), ", ".join(entry.names) or "; ".join(entry.notes)) for entry in report.unusual]
    paragraphs += listed(f"{plural(len(unusual), 'model')} unusual (nothing in them is run, only read):", unusual)
    refused = [(str(entry.path), entry.error) for entry in report.refused]
    paragraphs += listed(f"{plural(len(refused), 'file')} refused:", refused)
    away = {shelf: sum(path.is_relative_to(shelf) for path in missing) for shelf in report.absent}
    if left := sum(not any(path.is_relative_to(shelf) for shelf in away) for path in missing):
        told = (
            f"{plural(left, 'model on record is', 'models on record are')} missing: `bottega models list "
            "--missing` lists them, `bottega models scan --forget-missing` drops them."
        )
        paragraphs.append(sentence(told, sys.stdout))
    if forgotten:
        paragraphs.append(f"{plural(forgotten, 'missing model')} forgotten.")
    troubles = [f"{folder}: can't be read ({reason})" for folder, reason in report.unreadable.items()]
    # The home's own shelf comes to be when something is put on it.
    troubles += [
        f"{shelf}: this shelf is not there; `bottega models scan --forget-missing {shelf}` drops it"
        + (f", with {plural(count, 'model')} on record" if count else "")
        for shelf, count in away.items()
        if count or shelf.name != "models"
    ]
    paragraphs += [printable(trouble) for trouble in troubles]
    return "\n\n".join(paragraphs)


def changes_text(report: Report) -> str:
    """What is different since the last scan, in words."""
    counts = {"new": report.new, "changed": report.changed, "moved": len(report.moved), "gone": len(report.gone)}
    told = [f"{count} {what}" for what, count in counts.items() if count]
    return ", ".join(told) or "nothing has changed"


def listed(title: str, files: Sequence[tuple[str, ...]]) -> list[str]:
    """A paragraph: a title, and the lines of as many files as anybody reads; none where there are no files."""
    if not files:
        return []
    lines = folded(title, window(sys.stdout))
    for first, *more in files[:MOST]:
        lines += [f"  {printable(first)}", *(f"    {printable(line)}" for line in more)]
    if len(files) > MOST:
        lines.append(f"  and {len(files) - MOST} more, which `--json` tells")
    return ["\n".join(lines)]


def report_json(shelves: Sequence[Path], report: Report, missing: Sequence[Path], forgotten: int) -> dict[str, Any]:
    """What a scan found, for programs."""
    models = report.sorts.total()
    return {
        "shelves": [str(shelf) for shelf in shelves],
        "models": models,
        "headers_read": report.headers_read,
        "new": report.new,
        "changed": report.changed,
        "moved": [{"from": str(before), "to": str(now)} for before, now in report.moved],
        "gone": [str(path) for path in report.gone],
        "missing": [str(path) for path in missing],
        "forgotten": forgotten,
        "kinds": [
            {"kind": kind, "family": family or None, "variant": variant or None, "models": count}
            for (kind, family, variant), count in sorted(report.sorts.items())
        ],
        "verdicts": {
            "clean": models - len(report.unusual),
            "unusual": len(report.unusual),
            "refused": len(report.refused),
        },
        "unusual": [{"path": str(entry.path), "names": list(entry.names)} for entry in report.unusual],
        "refused": [{"path": str(entry.path), "error": entry.error} for entry in report.refused],
        "unreadable": {str(path): reason for path, reason in report.unreadable.items()},
        "absent": [str(shelf) for shelf in report.absent],
        "seconds": round(report.seconds, 3),
    }
