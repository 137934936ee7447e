"""The models on the shelves: look for them, list them, and tell what one of them is."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottega.cli.progress import Progress
from bottega.cli.terminal import (
    count_text,
    labelled,
    pairs,
    print_json,
    printable,
    size_text,
    table,
    time_text,
)
from bottega.errors import FileError
from bottega.library import Catalog, Entry, open_catalog
from bottega.settings import STARTER_SHELF, Settings

if TYPE_CHECKING:
    from bottega.formats import Header
    from bottega.library.scan import Report

MOST_REFUSED = 20  # that a scan names one by one


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega models`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    scan = actions.add_parser("scan", help="look through the shelves for models", description=SCAN)
    scan.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="only these; each becomes a shelf")
    scan.set_defaults(work=run_scan)

    listing = actions.add_parser("list", help="list the models that are known", description=LIST)
    listing.add_argument("--kind", metavar="K", help="only of this kind, such as checkpoint")
    listing.add_argument("--family", metavar="F", help="only of this family, such as sd1")
    listing.set_defaults(work=run_list)

    show = actions.add_parser("show", help="tell what one model is", description=SHOW)
    show.add_argument("model", metavar="NAME_OR_PATH", help="a name, a path, or the beginning of a SHA-256")
    show.set_defaults(work=run_show)

    for action in (scan, listing, show):
        action.add_argument("--json", action="store_true", help="print one JSON document")


SCAN = (
    "Look through the shelves for models that are new or changed, read their headers and tell what they are. "
    "A folder may be plain, or an installation of stable-diffusion-webui, Forge or ComfyUI."
)
LIST = "List the models that the last scan found."
SHOW = "Tell what a model is, by what evidence, and what is in it."


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do what the action says."""
    with open_catalog(settings.catalog) as catalog:
        if catalog.note:
            print(f"note: {printable(catalog.note)}", file=sys.stderr)
        args.work(args, settings, catalog)
    return 0


# --- scan ------------------------------------------------------------------------------------------------------------


def run_scan(args: argparse.Namespace, settings: Settings, catalog: Catalog) -> None:
    """Scan the folders that are named, or all shelves."""
    from bottega.families import all_families
    from bottega.library.scan import scan

    shelves = all_shelves(settings, catalog)
    folders = [checked_folder(folder) for folder in args.folders]
    for folder in folders:
        if not any(folder.is_relative_to(shelf) for shelf in shelves):
            catalog.add_shelf(folder)
    with Progress(sys.stderr) as progress:
        report = scan(
            catalog,
            folders or shelves,
            all_families(),
            lambda done, total: progress.update("headers", done, total) if total else None,
        )
    if args.json:
        print_json(report_json(folders or shelves, report))
    else:
        print(report_text(folders or shelves, report))


def all_shelves(settings: Settings, catalog: Catalog) -> list[Path]:
    """The shelves of the settings and those that were named in earlier scans, each once."""
    return list(dict.fromkeys(path.absolute() for path in (*settings.all_shelves, *catalog.shelves())))


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


# --- list ------------------------------------------------------------------------------------------------------------


def run_list(args: argparse.Namespace, settings: Settings, catalog: Catalog) -> None:
    """List what is on record."""
    know_starter(catalog)
    known = catalog.entries()
    chosen = [
        entry
        for entry in known
        if not entry.error and wanted(args.kind, entry.kind) and wanted(args.family, entry.family)
    ]
    chosen.sort(key=lambda entry: (entry.kind, entry.family, entry.name.casefold(), entry.path))
    if args.json:
        print_json([entry.to_json() for entry in chosen])
        return
    if chosen:
        print(models_table(chosen))
    else:
        print("no model of that kind or family is known; `bottega models list` lists them all", file=sys.stderr)
    if refused := sum(bool(entry.error) for entry in known):
        print(f"{plural(refused, 'file')} refused; `bottega models scan` tells why", file=sys.stderr)


def wanted(told: str | None, real: str) -> bool:
    """Whether a filter, if there is one, lets this through; case does not matter."""
    return told is None or told.casefold() == real.casefold()


def know_starter(catalog: Catalog) -> None:
    """Scan the shelf that comes with Bottega where that was not done since: even the first listing shows something."""
    known = catalog.entries(STARTER_SHELF)
    if known and all(entry.is_current() for entry in known):
        return
    from bottega.families import all_families
    from bottega.library.scan import scan

    scan(catalog, [STARTER_SHELF], all_families())


def models_table(entries: Iterable[Entry]) -> str:
    """Models in columns."""
    rows = [
        (entry.name, entry.kind, family_text(entry), entry.dtype, size_text(entry.size), shelf_text(entry))
        for entry in entries
    ]
    return table(("name", "kind", "family", "dtype", "size", "folder"), rows, sys.stdout, right=[4])


def family_text(entry: Entry) -> str:
    """The family, with the variant where it is not the plain one."""
    return " ".join(word for word in (entry.family, entry.variant) if word and word != "base")


def shelf_text(entry: Entry) -> str:
    """Where a model lies, as short as it can be said."""
    if entry.shelf == STARTER_SHELF:
        return "starter"
    folder, home = os.path.dirname(entry.path), os.path.expanduser("~")
    return f"~{folder[len(home) :]}" if f"{folder}/".startswith(f"{home}/") else folder


# --- show ------------------------------------------------------------------------------------------------------------


def run_show(args: argparse.Namespace, settings: Settings, catalog: Catalog) -> None:
    """Tell all about one model."""
    from bottega.families import all_families
    from bottega.formats import read_header
    from bottega.library.find import find
    from bottega.library.hashes import sha256_of

    families = all_families()
    entry = find(catalog, args.model, families, all_shelves(settings, catalog))
    header = read_header(entry.path)
    with Progress(sys.stderr) as progress:
        entry = sha256_of(catalog, entry, lambda done, total: progress.update("hash", done, total, "bytes"))
    parts = part_rows(header, entry.parts)
    if args.json:
        told = entry.to_json()
        print_json({**told, "parts": parts, "dtypes": header.dtypes, "notes": list(header.notes)})
        return
    title = next((family.title for family in families if family.id == entry.family), "unknown")
    print(show_text(entry, header, title, parts))


def part_rows(header: Header, parts: Mapping[str, str]) -> list[dict[str, Any]]:
    """What each part of a model takes; what belongs to no part comes last, without a name."""
    rows = []
    rest = set(header.tensors)
    for part, prefix in parts.items():
        names = {name for name in header.tensors if name.startswith(prefix)}
        rest -= names
        rows.append({"part": part, "prefix": prefix, **extent(header, names)})
    if rest:
        rows.append({"part": None, "prefix": None, **extent(header, rest)})
    return rows


def extent(header: Header, names: Iterable[str]) -> dict[str, Any]:
    """How many tensors, numbers and bytes these are, and of which dtypes."""
    tensors = [header.tensors[name] for name in names]
    return {
        "tensors": len(tensors),
        "parameters": sum(tensor.elements for tensor in tensors),
        "bytes": sum(tensor.end - tensor.start for tensor in tensors),
        "dtypes": sorted({tensor.dtype for tensor in tensors}),
    }


def show_text(entry: Entry, header: Header, title: str, parts: Sequence[Mapping[str, Any]]) -> str:
    """All about one model, for people."""
    dtypes = ", ".join(f"{dtype} ({size_text(count)})" for dtype, count in header.dtypes.items())
    facts = [
        ("name", entry.name),
        ("kind", f"{entry.kind} ({entry.category})" if entry.category != entry.kind else entry.kind),
        ("family", f"{title} ({entry.family}), {entry.variant}" if entry.family else "unknown"),
        *labelled("because", [*entry.because, *(["the header alone can't decide this"] if entry.guess else [])]),
        ("format", entry.format),
        ("dtype", dtypes),
        ("size", f"{size_text(entry.size)}, {count_text(entry.parameters)} parameters"),
        ("sha256", f"{entry.sha256} (A1111 and Civitai: {entry.autov2})"),
        ("shelf", str(entry.shelf) if entry.shelf else "none"),
        ("path", str(entry.path)),
        *entry.metadata.items(),
        *labelled("note", header.notes),
    ]
    paragraphs = [pairs(facts)]
    if entry.parts:
        rows = [
            (
                part["part"] or "(no part)",
                "" if part["prefix"] is None else part["prefix"] or "(none)",
                str(part["tensors"]),
                count_text(part["parameters"]),
                size_text(part["bytes"]),
                " ".join(part["dtypes"]),
            )
            for part in parts
        ]
        headers = ("part", "prefix", "tensors", "parameters", "size", "dtypes")
        paragraphs.append(table(headers, rows, sys.stdout, right=[2, 3, 4]))
    if entry.dimensions:
        paragraphs.append("dimensions\n" + pairs([(f"  {name}", value) for name, value in flat(entry.dimensions)]))
    return "\n\n".join(paragraphs)


def flat(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Nested dimensions as one line for each group: the plain ones by themselves, those of a part together."""
    lines = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            lines.append((name, ", ".join(f"{key} {inner}" for key, inner in value.items() if inner is not None)))
        else:
            lines.append((name, str(value)))
    return lines


def plural(count: int, one: str, many: str = "") -> str:
    """`1 model`, `2 models`."""
    return f"{count} {one if count == 1 else many or one + 's'}"
