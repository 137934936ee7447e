"""What the actions share by which a user says something of a model: which model, and what is said of it now."""

from __future__ import annotations

import sys

from bottega.cli.models.shelves import all_shelves
from bottega.cli.progress import Progress
from bottega.cli.terminal import labelled, pairs, print_json
from bottega.library import Catalog, Entry
from bottega.settings import Settings


def meant(reference: str, settings: Settings, catalog: Catalog) -> Entry:
    """The model that a reference means; where it is a hash that is not known yet, models are hashed to find it."""
    from bottega.library.find import find
    from bottega.recognisers import all_recognisers

    with Progress(sys.stderr) as progress:
        return find(
            catalog,
            reference,
            all_recognisers(),
            all_shelves(settings, catalog),
            hashing=progress.hashing(),
        )


def tell(entry: Entry, *, as_json: bool) -> None:
    """What the user says of a model, all of it."""
    if as_json:
        print_json(entry.to_json())
        return
    said = [
        ("tags", ", ".join(entry.tags)),
        ("favourite", "yes" if entry.favourite else ""),
        *labelled("note", entry.note.splitlines()),
        *((name, f"{value} (its header says: {entry.told[name] or 'nothing'})") for name, value in
          entry.corrected.items()),
    ]  # fmt: skip
    print(pairs([("model", entry.name), *((name, value) for name, value in said if value or not name)], sys.stdout))
