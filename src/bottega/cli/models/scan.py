"""Look through the shelves for models that are new or changed."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottega.cli.models.shelves import all_shelves, family_text, plural
from bottega.cli.progress import Progress
from bottega.cli.terminal import print_json, printable, table, time_text
from bottega.errors import FileError
from bottega.library import Catalog
from bottega.settings import Settings

if TYPE_CHECKING:
    from bottega.library.scan import Report

DESCRIPTION = (
    "Look through the shelves for models that are new or changed, read their headers and tell what they are. "
    "A folder may be plain, or an installation of stable-diffusion-webui, Forge or ComfyUI."
)
MOST_REFUSED = 20  # that a scan names one by one


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega models scan`."""
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="only these; each becomes a shelf")


def run(args: argparse.Namespace, settings: Settings, catalog: Catalog) -> int:
    """Scan the folders that are named, or all shelves."""
    from bottega.library.scan import scan
    from bottega.recognisers import all_recognisers

    shelves = all_shelves(settings, catalog)
    folders = [checked_folder(folder) for folder in args.folders]
    for folder in folders:
        if not any(folder.is_relative_to(shelf) for shelf in shelves):
            catalog.add_shelf(folder)
    with Progress(sys.stderr) as progress:
        report = scan(
            catalog,
            folders or shelves,
            all_recognisers(),
            lambda done, total: progress.update("headers", done, total) if total else None,
        )
    if args.json:
        print_json(report_json(folders or shelves, report))
    else:
        print(report_text(folders or shelves, report))
    return 0


def checked_folder(folder: Path) -> Path:
    """The folder by its full path; raises FileError if there is none."""
    folder = folder.expanduser()
    if not folder.exists():
        raise FileError(folder, "there is no such folder", "check the path")
    if not folder.is_dir():
        raise FileError(folder, "this is no folder", "scan the folder that it is in, or `bottega models show` the file")
    return folder.resolve()


def report_text(shelves: Sequence[Path], report: Report) -> str:
    """What a scan found, for people."""
    good = [entry for entry in report.entries if not entry.error]
    paragraphs = [
        f"{plural(len(good), 'model')} on {plural(len(shelves), 'shelf', 'shelves')}, in {time_text(report.seconds)}: "
        f"{report.new} new, {report.changed} changed, {len(report.gone)} gone; "
        f"{plural(report.headers_read, 'header')} read."
    ]
    if good:
        groups = Counter((entry.kind, family_text(entry)) for entry in good)
        rows = [(kind, family, str(count)) for (kind, family), count in sorted(groups.items())]
        paragraphs.append(table(("kind", "family", "models"), rows, sys.stdout, right=[2]))
    if report.refused:
        lines = [f"{plural(len(report.refused), 'file')} refused:"]
        for entry in report.refused[:MOST_REFUSED]:
            lines += [f"  {printable(str(entry.path))}", f"    {printable(entry.error)}"]
        if len(report.refused) > MOST_REFUSED:
            lines.append(f"  and {len(report.refused) - MOST_REFUSED} more, which `--json` tells")
        paragraphs.append("\n".join(lines))
    troubles = [f"{folder}: can't be entered ({reason})" for folder, reason in report.unreadable.items()]
    # The home's own shelf comes to be when something is put on it.
    troubles += [f"{shelf}: this shelf is not there" for shelf in report.absent if shelf.name != "models"]
    paragraphs += [printable(trouble) for trouble in troubles]
    return "\n\n".join(paragraphs)


def report_json(shelves: Sequence[Path], report: Report) -> dict[str, Any]:
    """What a scan found, for programs."""
    return {
        "shelves": [str(shelf) for shelf in shelves],
        "models": sum(not entry.error for entry in report.entries),
        "headers_read": report.headers_read,
        "new": report.new,
        "changed": report.changed,
        "gone": [str(path) for path in report.gone],
        "refused": [{"path": str(entry.path), "error": entry.error} for entry in report.refused],
        "unreadable": {str(path): reason for path, reason in report.unreadable.items()},
        "absent": [str(shelf) for shelf in report.absent],
        "seconds": round(report.seconds, 3),
    }
