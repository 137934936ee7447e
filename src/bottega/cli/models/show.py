"""Tell what a model is and why, how to use it, what fits it, and what is in it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bottega.cli.models.shelves import all_shelves, plural, sort_text
from bottega.cli.progress import Progress
from bottega.cli.terminal import (
    Whole,
    count_text,
    folded,
    labelled,
    pairs,
    print_json,
    size_text,
    table,
    window,
    wrapped,
)
from bottega.library import Catalog, Entry
from bottega.settings import Settings

if TYPE_CHECKING:
    from bottega.formats import Header
    from bottega.library.fits import Fits

DESCRIPTION = "Tell what a model is and by what evidence, how to use it, what fits it, and what is in it."
HASHED_AT_ONCE = 256 << 20  # bytes; a larger model's hash takes seconds, which is for `models hash` to spend
# The option of `bottega make` that adds each kind of adapter.
ADDED = {"lora": "--lora", "embedding": "--embedding", "hypernetwork": "--hypernetwork", "vae": "--vae"}
MOST_NAMES = 6  # of the models that fit one
MOST_DESCRIBED = 1200  # characters of a description; `--json` has all of it


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega models show`."""
    parser.add_argument("model", metavar="NAME_OR_PATH", help="a name, a path, or the beginning of a hash")


def run(args: argparse.Namespace, settings: Settings, catalog: Catalog) -> int:
    """Tell all about one model."""
    from bottega.formats import read_header
    from bottega.library.find import find, shortest_of
    from bottega.library.fits import fits
    from bottega.library.hashes import sha256_of
    from bottega.recognisers import all_recognisers

    with Progress(sys.stderr) as progress:
        hashing = progress.hashing()
        entry = find(catalog, args.model, all_recognisers(), all_shelves(settings, catalog), hashing=hashing)
        header = read_header(entry.path)
        if entry.size <= HASHED_AT_ONCE:
            entry = sha256_of(catalog, entry, hashing)
    parts = part_rows(header, entry.parts)
    fitting = fits(catalog, entry)
    if args.json:
        told = {**entry.to_json(), "parts": parts, "dtypes": dict(header.dtypes)}
        print_json({**told, "notes": list(header.notes), "fits": fitting.to_json()})
        return 0
    print(show_text(entry, shortest_of(catalog, entry), header, parts, fitting))
    return 0


# --- what is in it ---------------------------------------------------------------------------------------------------


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
    from bottega.formats.layout import Layout

    layout = Layout({name: header.tensors[name] for name in names})
    return {
        "tensors": len(layout.rows),
        "parameters": layout.parameters,
        "bytes": sum(layout.dtypes.values()),
        "dtypes": sorted(layout.dtypes),
    }


# --- for people ------------------------------------------------------------------------------------------------------


def show_text(entry: Entry, called: str, header: Header, parts: Sequence[Mapping[str, Any]], fitting: Fits) -> str:
    """All about one model, for people: the answers first, the evidence behind them, the innards last.

    `called` is what to type for it.
    """
    paragraphs = [
        "\n  ".join(folded(f"{entry.name}: {sort_text(entry)}", window(sys.stdout))),
        pairs([*use_rows(entry, called), *labelled("fits", fits_lines(fitting))], sys.stdout),
        pairs([*evidence_rows(entry), *safety_rows(entry), *labelled("note", header.notes)], sys.stdout),
        pairs(about_rows(entry), sys.stdout),
        description(entry),
        pairs(file_rows(entry, header), sys.stdout),
        parts_table(entry, parts),
        dimension_lines(entry),
    ]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def use_rows(entry: Entry, called: str) -> list[tuple[str, str]]:
    """How to use it: the command, what it takes besides, and the words that wake it."""
    about = entry.about
    rows = [("to use it", line) for line in [use_line(entry, called)]]
    rows += labelled("it takes", list(entry.needs))
    if about.triggers:
        rows.append(("trigger words", ", ".join(about.triggers)))
    if about.weight is not None:
        rows.append(("weight", f"{about.weight:g}"))
    if about.resolution:
        rows.append(("resolution", about.resolution))
    return rows


def use_line(entry: Entry, called: str) -> str:
    """The command that makes something with it, or why there is none."""
    from bottega.adapters._fits import serves
    from bottega.families import family_ids

    if entry.runs:
        return Whole(f'bottega make image "..." {option("--model", called)}')
    if entry.kind in ADDED and any(serves(entry.kind, entry.family, family) for family in family_ids()):
        return Whole(f'bottega make image "..." {option(ADDED[entry.kind], called)}')
    if entry.kind == "unknown":
        return "Bottega does not know what it is; if you do, tell it: `bottega models correct`"
    return "Bottega knows what it is, and can't use it yet"


def option(name: str, value: str) -> str:
    """An option with its value as a shell takes it, whatever it begins with."""
    from shlex import quote

    return f"{name}{'=' if value.startswith('-') else ' '}{quote(value)}"


def fits_lines(fitting: Fits) -> list[str]:
    """What it goes together with on the shelves, by kind."""
    lines = []
    for kind, names in fitting.by_kind.items():
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        lines.append(f"{plural(len(names), kind.replace('_', ' '))}: {', '.join(names[:MOST_NAMES])}{more}")
    return lines


def evidence_rows(entry: Entry) -> list[tuple[str, str]]:
    """Why it is taken for that."""
    open_still = ["the header alone can't decide this"] if entry.is_guess else []
    return labelled("because", [*entry.evidence, *open_still])


def safety_rows(entry: Entry) -> list[tuple[str, str]]:
    """Whether it is nothing but data."""
    if entry.verdict == "clean":
        return [("safety", "clean: nothing in it but data")]
    named = ", ".join(entry.names[:4]) + (f" and {len(entry.names) - 4} more" if len(entry.names) > 4 else "")
    return [("safety", f"{entry.verdict}, and none of it is run" + (f": it names {named}" if named else ""))]


def about_rows(entry: Entry) -> list[tuple[str, str]]:
    """What the file and the cards beside it say."""
    about = entry.about
    rows = [
        ("title", about.title),
        ("version", about.version),
        ("author", about.author),
        ("made from", about.base_model),
        ("date", about.date),
        ("licence", " ".join(filter(None, (about.licence, about.extra.get("licence text", ""))))),
        *labelled("permissions", [f"{name}: {value}" for name, value in about.permissions.items()]),
        ("page", about.source),
        ("its tags", ", ".join(about.tags)),
        ("preview", Whole(about.preview or "")),
        *labelled("notes", about.notes.splitlines()),
        *((name, value) for name, value in about.extra.items() if name != "licence text"),
        ("your tags", ", ".join(entry.tags)),
        ("favourite", "yes" if entry.favourite else ""),
        *labelled("your note", entry.note.splitlines()),
    ]
    return [(name, value) for name, value in rows if value or not name]  # the empty lines of a note stay


def description(entry: Entry) -> str:
    """The description, folded to the window."""
    text = entry.about.description.strip()
    if len(text) > MOST_DESCRIBED:
        text = text[:MOST_DESCRIBED].rsplit(" ", 1)[0] + " ..."
    return wrapped(text, sys.stdout)


def file_rows(entry: Entry, header: Header) -> list[tuple[str, str]]:
    """The file itself."""
    dtypes = ", ".join(f"{dtype} ({size_text(count)})" for dtype, count in header.dtypes.items())
    rows = [
        ("format", entry.format),
        ("dtype", dtypes),
        ("size", f"{size_text(entry.size)}, {count_text(entry.parameters)} parameters"),
        ("sha256", f"{entry.sha256} (AutoV2 {entry.autov2})" if entry.sha256 else "`bottega models hash` computes it"),
        ("other hashes", other_hashes(entry)),
        ("shelf", Whole(entry.shelf or "none")),
        ("path", Whole(entry.path)),
    ]
    return [(name, value) for name, value in rows if value]


def other_hashes(entry: Entry) -> str:
    """The hashes that other programs and sites know the file by."""
    told = {"AutoV1": entry.autov1, "AutoV3": entry.autov3, "CRC32": entry.crc32, "BLAKE3": entry.blake3}
    return ", ".join(f"{name} {value}" for name, value in told.items() if value)


def parts_table(entry: Entry, parts: Sequence[Mapping[str, Any]]) -> str:
    """The parts with what they take, where the model has any."""
    if not entry.parts:
        return ""
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
    return table(headers, rows, sys.stdout, right=[2, 3, 4], spare=(5, 1))


def dimension_lines(entry: Entry) -> str:
    """The dimensions, where the header shows any."""
    if not entry.dimensions:
        return ""
    return "dimensions\n" + pairs([(f"  {name}", value) for name, value in flat(entry.dimensions)], sys.stdout)


def flat(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Nested dimensions as one line for each group: the plain ones by themselves, those of a part together."""
    lines = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            lines.append((name, ", ".join(f"{key} {inner}" for key, inner in value.items() if inner is not None)))
        else:
            lines.append((name, str(value)))
    return lines
