"""What the catalog knows of one model, and how that is written as a row of its table."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from bottega.formats.database import string
from bottega.library.about import About
from bottega.library.disk import Stamp, model_name, stamp_of
from bottega.library.identify import reader
from bottega.library.search import folded, indexed
from bottega.spec import CHECKPOINT_OF_FAMILY

CLEAN, UNUSUAL, REFUSED = "clean", "unusual", "refused"
CORRECTABLE = ("kind", "category", "family", "variant")
NOTHING = About()
WHOLE = ("checkpoint", "diffusion_model")  # what makes pictures, with whatever changes or completes it
# What is put to work with the models of one family.
ADDED = (
    "lora", "embedding", "hypernetwork", "vae", "controlnet", "t2i_adapter", "ip_adapter", "motion_module",
    "style_model", "gligen", "photomaker",
)  # fmt: skip
HASHES = ("sha256", "autov1", "autov3", "crc32", "blake3")


@dataclass(frozen=True, slots=True)
class Entry:
    """What the catalog knows of one model.

    `error` says why its header was refused; what the header would tell is empty then. `read_by` names the code and the
    recognisers that read the header: others may see more in it. `missing` models were here and may come back.

    What the user says wins: `kind`, `category`, `family` and `variant` are as `corrected`, and `told` keeps what the
    header said of those. `guess`, `because` and `requires` are the header's; `is_guess`, `evidence` and `needs` are
    what is left of them by what the user says. `called` is the name by which the model's own program knows it, where
    its path does not tell; `beside` is a number that changes with the files beside the model. `runs` says that a family
    here can run it.
    """

    path: Path
    shelf: Path | None
    stamp: Stamp
    kind: str = "unknown"
    category: str = "unknown"
    family: str = ""
    variant: str = ""
    format: str = ""
    dtype: str = ""
    parameters: int = 0
    bytes: int = 0
    dimensions: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    because: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    guess: bool = False
    error: str = ""
    read_by: str = ""
    sha256: str | None = None
    hashed_at: float | None = None
    missing: bool = False
    called: str = ""
    beside: int = 0
    recogniser: str = ""
    runs: bool = False
    requires: tuple[str, ...] = ()
    verdict: str = CLEAN
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    about: About = NOTHING
    autov1: str | None = None
    autov3: str | None = None
    crc32: str | None = None
    blake3: str | None = None
    tags: tuple[str, ...] = ()
    favourite: bool = False
    note: str = ""
    corrected: Mapping[str, str] = field(default_factory=dict)
    told: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What people call it."""
        return self.called or model_name(self.path)

    @property
    def a_kind(self) -> str:
        """Its kind with the article, for sentences."""
        return f"{'an' if self.kind[0] in 'aeiou' else 'a'} {self.kind}"

    @property
    def guessed(self) -> str:
        """What the header left open, by the names of CORRECTABLE; empty if nothing."""
        # A family knows its own models, and may only guess which variant one is.
        return ("variant" if self.runs else "family") if self.guess else ""

    @property
    def is_guess(self) -> bool:
        """Whether the header left something open, and the user has not decided it."""
        return self.guess and not self.corrected.keys() & {"kind", "family", self.guessed}

    @property
    def evidence(self) -> tuple[str, ...]:
        """Why it is taken for that: what was found in the header, and what was corrected or confirmed by hand."""
        said = [f"{name} {value} (its header says: {self.told[name] or 'nothing'})" for name, value in self._changed()]
        confirmed = [f"{name} {value}" for name, value in self.corrected.items() if value == self.told[name]]
        by_hand = (("corrected", said), ("confirmed", confirmed))
        return (*self.because, *(f"{what} by hand: {', '.join(those)}" for what, those in by_hand if those))

    def _changed(self) -> list[tuple[str, str]]:
        """What the user says otherwise than the header, by its name."""
        return [(name, value) for name, value in self.corrected.items() if value != self.told[name]]

    @property
    def needs(self) -> tuple[str, ...]:
        """What else it takes to make something with it, in words: what the header tells, as far as that still counts
        for the kind and the family that the user says."""
        changed = dict(self._changed())
        if not changed.keys() & {"kind", "family"}:
            return self.requires
        if self.kind not in ADDED:
            return ()
        model = CHECKPOINT_OF_FAMILY.get(self.family)
        others = () if "kind" in changed else self.requires
        return (*([model] if model else []), *(each for each in others if each not in CHECKPOINT_OF_FAMILY.values()))

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self.stamp.size

    def is_current(self) -> bool:
        """Whether the file is still the one whose header was read, and this code the one that read it."""
        try:
            return self.stamp == stamp_of(self.path) and self.read_by.partition(" ")[0] == reader()
        except OSError:
            return False

    @property
    def autov2(self) -> str | None:
        """The short hash by which A1111 and Civitai know the file."""
        return self.sha256[:10] if self.sha256 else None

    def to_json(self) -> dict[str, Any]:
        """The entry as plain data."""
        return {
            "name": self.name,
            "path": str(self.path),
            "shelf": str(self.shelf) if self.shelf else None,
            "kind": self.kind,
            "category": self.category,
            "family": self.family,
            "variant": self.variant,
            "format": self.format,
            "dtype": self.dtype,
            "parameters": self.parameters,
            "size": self.size,
            "tensor_bytes": self.bytes,
            "dimensions": dict(self.dimensions),
            "parts": dict(self.parts),
            "because": list(self.evidence),
            "guess": self.is_guess,
            "recogniser": self.recogniser or None,
            "runs": self.runs,
            "requires": list(self.needs),
            "verdict": self.verdict,
            "names": list(self.names),
            "notes": list(self.notes),
            "about": self.about.to_json(),
            "metadata": dict(self.metadata),
            "tags": list(self.tags),
            "favourite": self.favourite,
            "note": self.note,
            "corrected": dict(self.corrected),
            "told": dict(self.told),
            "missing": self.missing,
            "sha256": self.sha256,
            "autov1": self.autov1 or None,
            "autov2": self.autov2,
            "autov3": self.autov3,
            "crc32": self.crc32,
            "blake3": self.blake3,
            "error": self.error or None,
        }


# A table's columns: what is compared and filtered by comes first, long texts last. `folded` is the name as it is
# searched for; what follows `about` goes into the index of words.
COLUMNS = (
    "path", "shelf", "size", "mtime_ns", "inode", "beside", "read_by", "missing", "called", "folded",
    "kind", "category", "family", "variant", "recogniser", "runs", "verdict", "guess", "format", "dtype",
    "parameters", "bytes", *HASHES, "hashed_at", "error",
    "because", "requires", "names", "notes", "dimensions", "parts", "metadata", "about",
)  # fmt: skip
PLAIN = (
    "read_by", "kind", "category", "family", "variant", "recogniser", "verdict", "format", "dtype", "parameters",
    "bytes", *HASHES, "hashed_at", "error", "beside",
)  # fmt: skip
YES_OR_NO = ("missing", "runs", "guess")
LISTS = ("because", "requires", "names", "notes")
MAPPINGS = ("dimensions", "parts", "metadata")
INDEXED = ("name", "words", "text")  # of the index, the most telling first; the user's own words follow

Row = Sequence[Any]


def row_of(entry: Entry) -> list[Any]:
    """The entry as the values of COLUMNS and INDEXED, without what the user says: plain enough for JSON."""
    told = {
        **{name: getattr(entry, name) for name in (*PLAIN, *YES_OR_NO)},
        **{name: entry.told[name] for name in CORRECTABLE if name in entry.told},
        **{name: json.dumps(getattr(entry, name)) for name in LISTS},
        **{name: json.dumps(dict(getattr(entry, name))) for name in MAPPINGS},
        "path": str(entry.path),
        "shelf": str(entry.shelf) if entry.shelf else None,
        "called": entry.called,
        "size": entry.stamp.size,
        "mtime_ns": entry.stamp.mtime_ns,
        "inode": entry.stamp.inode,
        "folded": folded(entry.name),
        "about": json.dumps(entry.about.to_json()),
    }
    return [*(told[name] for name in COLUMNS), *_index_of(entry, told)]


# What json.loads adds is to look at what is around the value, which takes as long as the rest; all of this is the
# catalog's own.
_decoded = json.JSONDecoder().raw_decode


@lru_cache(maxsize=64)
def _shelf(told: str | bytes) -> Path:
    return Path(string(told))


def entry_of(row: Row) -> Entry:
    """The entry that the values of COLUMNS and of SAID make, and what a site said of its bytes."""
    told = dict(zip((*COLUMNS, *SAID, "learnt"), row, strict=True))
    corrected = {name: told[f"said_{name}"] for name in CORRECTABLE if told[f"said_{name}"] is not None}
    others: dict[str, Any] = {
        **{name: corrected.get(name, told[name]) for name in PLAIN},
        **{name: bool(told[name]) for name in YES_OR_NO},
        **{name: tuple(_decoded(told[name])[0]) for name in LISTS},
        **{name: _decoded(told[name])[0] for name in MAPPINGS},
    }
    return Entry(
        path=Path(string(told["path"])),
        shelf=_shelf(told["shelf"]) if told["shelf"] else None,
        stamp=Stamp(told["size"], told["mtime_ns"], told["inode"]),
        about=about_of(told["about"]).over(about_of(told["learnt"])) if told["learnt"] else about_of(told["about"]),
        tags=tuple(_decoded(told["tags"])[0]) if told["tags"] else (),
        favourite=bool(told["favourite"]),
        note=string(told["note"]) if told["note"] else "",
        called=string(told["called"]),
        corrected=corrected,
        told={name: told[name] for name in corrected},
        **others,
    )


def about_of(told: str | None) -> About:
    """What the catalog's JSON says of a model."""
    return About.from_json(_decoded(told)[0]) if told else NOTHING


# What the user says of a model, in a table of its own.
SAID = ("tags", "favourite", "note", *(f"said_{name}" for name in CORRECTABLE))


def _index_of(entry: Entry, told: Mapping[str, Any]) -> tuple[str, str, str]:
    words, texts = words_of(entry.about)
    words += [*(told[name] for name in CORRECTABLE), entry.recogniser]
    return indexed([entry.name]), indexed(words), indexed([_place(entry), *texts])


def words_of(about: About) -> tuple[list[str], list[str]]:
    """What a model can be found by of what is said of it: words, and texts, which tell less."""
    return (
        [*about.triggers, *about.tags, about.base_model],
        [about.title, about.author, about.version, about.notes, about.description],
    )


def _place(entry: Entry) -> str:
    """The path on the shelf."""
    path, shelf = str(entry.path), f"{entry.shelf}{os.sep}"
    return path.removeprefix(shelf) if entry.shelf else entry.path.name
