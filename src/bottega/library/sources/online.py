"""What sites know of models that are here already: newer versions, and the names of nameless files. Only when asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bottega.formats.atomic import atomic
from bottega.library import companions
from bottega.library.catalog import Entry
from bottega.library.sources import civitai, huggingface
from bottega.library.sources.cards import beside, card_path, known_of, write_new
from bottega.library.sources.client import Client
from bottega.library.sources.errors import HttpError
from bottega.library.sources.tokens import site
from bottega.settings import Settings


@dataclass(frozen=True)
class Newer:
    """What a site has that is newer than a model: the name of the version or commit, and how to get it."""

    name: str
    reference: str
    page: str
    base_model: str = ""
    published: str = ""


@dataclass(frozen=True)
class Update:
    """What was found out about one model; `problem` says why nothing could be."""

    entry: Entry
    source: Mapping[str, Any]
    newer: tuple[Newer, ...] = ()
    problem: str = ""


def source_of(entry: Entry, settings: Settings) -> dict[str, Any] | None:
    """Where a model is from, as far as anything beside it or in the home tells."""
    return known_of(entry.path, settings.cards, entry.sha256)


def check_updates(client: Client, settings: Settings, entry: Entry, source: Mapping[str, Any]) -> Update:
    """Ask the site of a model what it has that is newer. Raises a NetworkError where the site can't be asked."""
    try:
        newer = (
            _at_civitai(client, settings, source) if source["site"] == "civitai" else _at_hub(client, settings, source)
        )
    except HttpError as error:
        if error.status not in (401, 403, 404, 410, 451):
            raise
        return Update(entry, source, problem=error.what)
    return Update(entry, source, newer)


def _at_civitai(client: Client, settings: Settings, source: Mapping[str, Any]) -> tuple[Newer, ...]:
    there = site("civitai", settings)
    model = source["model"]
    return tuple(
        Newer(
            civitai.one_line(str(version.get("name"))),
            f"civitai:{model}@{version['id']}",
            f"{there.url}/models/{model}?modelVersionId={version['id']}",
            civitai.one_line(str(version.get("baseModel") or "")),
            str(version.get("publishedAt") or "")[:10],
        )
        for version in civitai.newer_versions(client, there, model, source["version"])
    )


def _at_hub(client: Client, settings: Settings, source: Mapping[str, Any]) -> tuple[Newer, ...]:
    """The newest commit of the branch that a model is from, if what was fetched is another there."""
    there = site("huggingface", settings)
    reference = huggingface.Reference(str(source["repo"]), str(source.get("revision") or "main"), str(source["path"]))
    told = huggingface.repository(client, there, reference)
    if told["sha"] == source.get("commit") or _is_same_file(told, source):
        return ()
    path = f"/{reference.path}" if reference.path else ""
    return (
        Newer(
            told["sha"][:12],
            f"hf:{reference.repo}@{told['sha']}{path}",
            f"{there.url}/{reference.repo}/tree/{told['sha']}",
            published=str(told.get("lastModified") or "")[:10],
        ),
    )


def _is_same_file(told: Mapping[str, Any], source: Mapping[str, Any]) -> bool:
    """Whether the commits since then left the one file alone that was fetched."""
    for entry in told.get("siblings") or ():
        if isinstance(entry, dict) and entry.get("rfilename") == source["path"] and isinstance(entry.get("lfs"), dict):
            return bool(source.get("sha256")) and entry["lfs"].get("sha256") == source.get("sha256")
    return False


def identify_online(client: Client, settings: Settings, sha256: str) -> dict[str, Any] | None:
    """The version at Civitai that has the file with this hash, as `.civitai.info` holds it; None if there is none."""
    return civitai.by_hash(client, site("civitai", settings), sha256)


def keep_card(entry: Entry, card: Mapping[str, Any], settings: Settings, *, write_beside: bool) -> Path:
    """Keep what Civitai told of a model; where that is.

    Beside a model of the home, or where the user says so; else in the home by its hash: other programs' shelves are
    read and not written to.
    """
    raw = json.dumps(card, indent=4).encode()
    if write_beside or entry.path.is_relative_to(settings.models):
        path = beside(entry.path, companions.CIVITAI)
        write_new(path, raw)
        return path
    assert entry.sha256
    path = card_path(settings.cards, entry.sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as out:
        out.write(raw)
    return path
