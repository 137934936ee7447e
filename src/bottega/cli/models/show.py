"""Tell what a model is, by what evidence, and what is in it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bottega.cli.models.about import about_rows
from bottega.cli.models.shelves import all_shelves
from bottega.cli.progress import Progress
from bottega.cli.terminal import count_text, labelled, pairs, print_json, size_text, table
from bottega.library import Catalog, Entry
from bottega.settings import Settings

if TYPE_CHECKING:
    from bottega.formats import Header
    from bottega.library.about import About

DESCRIPTION = "Tell what a model is, by what evidence, and what is in it."


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega models show`."""
    parser.add_argument("model", metavar="NAME_OR_PATH", help="a name, a path, or the beginning of a SHA-256")


def run(args: argparse.Namespace, settings: Settings, catalog: Catalog) -> int:
    """Tell all about one model."""
    from bottega.families import all_families
    from bottega.formats import read_header
    from bottega.library.about import about
    from bottega.library.find import find
    from bottega.library.hashes import sha256_of
    from bottega.recognisers import all_recognisers

    entry = find(catalog, args.model, all_recognisers(), all_shelves(settings, catalog))
    header = read_header(entry.path)
    with Progress(sys.stderr) as progress:
        entry = sha256_of(catalog, entry, lambda done, total: progress.update("hash", done, total, "bytes"))
    parts = part_rows(header, entry.parts)
    said = about(header, entry.path)
    if args.json:
        told = entry.to_json()
        print_json(
            {**told, "about": said.to_json(), "parts": parts, "dtypes": header.dtypes, "notes": list(header.notes)}
        )
        return 0
    title = next((family.title for family in all_families() if family.id == entry.family), "unknown")
    print(show_text(entry, header, said, title, parts))
    return 0


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


def show_text(entry: Entry, header: Header, said: About, title: str, parts: Sequence[Mapping[str, Any]]) -> str:
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
        *about_rows(said),
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
