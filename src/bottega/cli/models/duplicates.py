"""Find the models that are there more than once, and replace them by links where that is asked for."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from bottega.cli.models.shelves import plural
from bottega.cli.progress import Progress
from bottega.cli.terminal import folded, print_json, printable, sentence, size_text, window
from bottega.library import Catalog
from bottega.settings import Settings

if TYPE_CHECKING:
    from bottega.library.duplicates import Group, Linked

DESCRIPTION = (
    "Find the models that are there more than once: with the same bytes, or with the same tensors under other "
    "metadata. Nothing is changed unless --link is given."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega models duplicates`."""
    parser.add_argument(
        "--link",
        action="store_true",
        help="replace each exact copy by a link to the one that is kept, wherever it lies; it is compared before",
    )


def run(args: argparse.Namespace, settings: Settings, catalog: Catalog) -> int:
    """List the duplicates; link them if told to."""
    from bottega.library.duplicates import duplicates, link

    failed: list[str] = []
    linked: list[Linked] = []
    freed = 0
    with Progress(sys.stderr) as progress:

        def fail(error: Exception) -> None:
            failed.append(str(error))
            progress.say(str(error))

        groups = duplicates(catalog, lambda done, total: progress.update("hash", done, total, "bytes"), fail)
        for done, group in enumerate(groups if args.link else (), 1):
            links, bytes_freed = link(catalog, group, fail)
            linked, freed = linked + links, freed + bytes_freed
            progress.update("link", done, len(groups))
    if args.json:
        print_json(report_json(groups, linked, freed, failed))
    else:
        print(report_text(groups))
        if args.link:
            print(sentence(f"{plural(len(linked), 'path')} became a link; {size_text(freed)} freed.", sys.stdout))
    return 1 if failed else 0


def report_json(groups: list[Group], linked: list[Linked], freed: int, failed: list[str]) -> dict[str, Any]:
    """All of it, for programs."""
    return {
        "groups": [
            {
                "same": group.same,
                "kept": str(group.kept.path),
                "copies": [[str(entry.path) for entry in copy] for copy in group.copies],
                "sha256": group.kept.sha256,
                "autov3": group.kept.autov3,
                "could_be_saved": group.saved,
            }
            for group in groups
        ],
        "could_be_saved": sum(group.saved for group in groups if group.same == "bytes"),
        "linked": [{"path": str(each.path), "to": str(each.kept), "kind": each.kind} for each in linked],
        "freed": freed,
        "failed": failed,
    }


def report_text(groups: list[Group]) -> str:
    """The groups, for people: what would be kept first."""
    if not groups:
        return "No model is there twice."
    paragraphs = []
    for group in groups:
        what = "the same bytes" if group.same == "bytes" else "the same tensors, other metadata"
        heading = f"{group.kept.name}: {len(group.copies)} times {what}; {size_text(group.saved)} could be saved"
        lines = folded(heading, window(sys.stdout))
        for copy in group.copies:
            marks = ["  keep  " if copy is group.copies[0] else "        ", *["   or   "] * (len(copy) - 1)]
            lines += [printable(f"{mark}{entry.path}") for mark, entry in zip(marks, copy, strict=True)]
        paragraphs.append("\n".join(lines))
    total = sum(group.saved for group in groups if group.can_be_linked)
    if total:
        paragraphs.append(sentence(f"Links in place of exact copies would save {size_text(total)}.", sys.stdout))
    return "\n\n".join(paragraphs)
