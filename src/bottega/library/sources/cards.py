"""What is kept beside a model that was fetched: where it is from, what its site says of it, its licence, a picture.

`<stem>.source.json` is ours; `.civitai.info` and `.preview.*` are read by other workbenches too. What belongs to models
on other programs' shelves, where we write nothing unasked, is kept in the home, by hash.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bottega.errors import SaveError
from bottega.formats import strictjson
from bottega.formats.atomic import atomic
from bottega.formats.sniff import open_regular, sniff_bytes
from bottega.library import companions
from bottega.library.disk import model_name
from bottega.library.sources.client import Client
from bottega.library.sources.download import Fetched
from bottega.library.sources.errors import NetworkError
from bottega.library.sources.offers import Offer
from bottega.version import __version__

MAX_CARD = 1 << 20
MAX_PREVIEW = 8 << 20
MAX_JSON = 16 << 20
_PICTURES = {"png": ".preview.png", "jpeg": ".preview.jpg", "webp": ".preview.webp", "gif": ".preview.gif"}


@dataclass(frozen=True)
class Extras:
    """What goes beside a model, by the ending of its name; and notes on what could not be had."""

    files: Mapping[str, bytes]
    notes: tuple[str, ...] = ()


def fetch_extras(client: Client, offer: Offer) -> Extras:
    """The card, the licence and the picture of an offer; what can't be had is a note, and keeps no model away."""
    files: dict[str, bytes] = {}
    notes = []
    if offer.card is not None:
        files[companions.CIVITAI] = json.dumps(offer.card, indent=4).encode()
    for ending, remote in offer.texts.items():
        try:
            files[ending] = client.small(remote.urls[0], MAX_CARD, remote.site)
        except NetworkError as error:
            notes.append(f"{remote.path} could not be fetched: {error.what}")
    if offer.preview:
        try:
            picture = client.small(offer.preview, MAX_PREVIEW)
            if ending := _PICTURES.get(sniff_bytes(picture[:512]), ""):
                files[ending] = picture
        except NetworkError as error:
            notes.append(f"the preview could not be fetched: {error.what}")
    return Extras(files, tuple(notes))


def write_beside(
    path: Path, offer: Offer, extras: Extras, fetched: Fetched | None, sha256: str, size: int
) -> tuple[str, ...]:
    """Put the extras and the source beside a model; what the user has there under those names stays.

    Answers with notes: on what could not be had, and on what could not be written.
    """
    source = {
        **offer.source,
        "key": offer.short_key,
        "reference": offer.reference,
        "page": offer.page,
        "title": offer.title,
        "licence": offer.licence,
        "name": path.name,
        "size": size,
        "sha256": sha256 or None,
        "etag": fetched.etag if fetched else None,
        "last_modified": fetched.last_modified if fetched else None,
        "url": fetched.url if fetched else None,
        "fetched": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "by": f"bottega {__version__}",
    }
    try:
        for ending, content in extras.files.items():
            write_new(beside(path, ending), content)
        with atomic(beside(path, companions.SOURCE)) as out:
            out.write(json.dumps(source, indent=2).encode())
    except SaveError as error:
        return (*extras.notes, str(error))  # the model itself is there
    return extras.notes


def write_new(path: Path, content: bytes) -> None:
    """Write a file unless there is one of that name."""
    if not path.exists():
        with atomic(path) as out:
            out.write(content)


def beside(path: Path, ending: str) -> Path:
    """The file of that ending that belongs to the model at `path`."""
    return path.with_name(f"{model_name(path)}{ending}")


def sources_under(root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every model under a folder, or up to two levels deeper, that was fetched and is still there, with its source."""
    for file in (path for depth in ("", "*/", "*/*/") for path in sorted(root.glob(f"{depth}*{companions.SOURCE}"))):
        told = read_json(file)
        name = told.get("name") if told else None
        if told and isinstance(name, str) and name.strip(".") and not re.search(r"[/\\\0]", name):
            path = file.with_name(name)
            if path.exists():
                yield path, told


def known_of(path: Path, cards: Path, sha256: str | None) -> dict[str, Any] | None:
    """Where a model is from, as far as anything beside it or in the home tells: `site` and what identifies it there."""
    if (told := read_json(beside(path, companions.SOURCE))) and told.get("site") in ("civitai", "huggingface"):
        return told
    for file in (beside(path, companions.CIVITAI), *([card_path(cards, sha256)] if sha256 else [])):
        if (told := read_json(file)) and _is_id(told.get("modelId")) and _is_id(told.get("id")):
            return {"site": "civitai", "model": told["modelId"], "version": told["id"]}
    told = read_json(beside(path, companions.STABILITY_MATRIX))  # Stability Matrix's
    if told and _is_id(told.get("ModelId")) and _is_id(told.get("VersionId")):
        return {"site": "civitai", "model": told["ModelId"], "version": told["VersionId"]}
    return None


def card_path(cards: Path, sha256: str) -> Path:
    """Where the home keeps what Civitai knows of the file with this hash."""
    return cards / f"{sha256}{companions.CIVITAI}"


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a small file; None where there is none."""
    try:
        with open_regular(path) as file:
            raw = file.read(MAX_JSON + 1)
    except OSError:
        return None
    return strictjson.object_or_none(raw.decode("utf-8-sig", "replace")) if len(raw) <= MAX_JSON else None


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
