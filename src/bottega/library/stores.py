"""The stores of programs that keep models under names which nobody can read: InvokeAI, Hugging Face's cache, ollama."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time
import zlib
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from bottega.formats.sniff import open_regular
from bottega.library.layouts import read_settings_text, read_yaml

MAX_MODELS = 200_000  # in one program's database
PATIENCE = 5.0  # seconds for another program's database to answer

OLLAMA_MODEL = "application/vnd.ollama.image.model"
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")


class Stored(NamedTuple):
    """A model in a store: where it lies, what its program calls it, a number that changes with what is said of it."""

    path: Path
    name: str
    beside: int


# --- ollama ----------------------------------------------------------------------------------------------------------


class Layer(NamedTuple):
    """One part of what ollama calls a model: its media type, and the file that it is kept in."""

    media: str
    path: Path


class Manifest(NamedTuple):
    """One name in ollama's store, with the layers that it stands for."""

    name: str
    layers: tuple[Layer, ...]
    text: str


def is_ollama(names: Collection[str]) -> bool:
    """Whether a folder with these names in it is ollama's store."""
    return "manifests" in names and "blobs" in names


def ollama_models(store: Path) -> Iterator[Stored]:
    """The models of ollama's store, each once: under its first name, `latest` last as it says least. Their numbers
    change with all their names."""
    first: dict[Path, Stored] = {}
    for manifest in sorted(ollama_manifests(store), key=lambda each: (each.name.endswith(":latest"), each.name)):
        for layer in manifest.layers:
            if layer.media == OLLAMA_MODEL:
                stored = first.get(layer.path) or Stored(layer.path, manifest.name, 0)
                number = _number(f"{stored.beside} {manifest.name} {manifest.text}")
                first[layer.path] = stored._replace(beside=number)
    yield from first.values()


def ollama_manifests(store: Path) -> Iterator[Manifest]:
    """What ollama's store has names for: `manifests/<registry>/<namespace>/<model>/<tag>`, each a short JSON file."""
    root = store / "manifests"
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for tag in sorted(files):
            parts = Path(place, tag).relative_to(root).parts
            if tag.startswith(".") or not 3 <= len(parts) <= 5:
                continue
            try:
                text = read_settings_text(Path(place, tag))
                layers = tuple(_layers(store, json.loads(text)))
            except (OSError, ValueError, RecursionError):
                continue  # half written, or no manifest
            yield Manifest(_ollama_name(parts), layers, text)


def _ollama_name(parts: tuple[str, ...]) -> str:
    """The name as ollama lists it: without the registry and the namespace that go without saying."""
    registry, *middle, model, tag = parts
    outer = [registry, *middle]
    if registry == "registry.ollama.ai":
        outer = [] if middle == ["library"] else middle
    return f"{'/'.join([*outer, model])}:{tag}"


def _layers(store: Path, manifest: object) -> Iterator[Layer]:
    layers = manifest.get("layers") if isinstance(manifest, dict) else None
    for layer in layers if isinstance(layers, list) else ():
        media, digest = (layer.get("mediaType"), layer.get("digest")) if isinstance(layer, dict) else (None, None)
        if isinstance(media, str) and isinstance(digest, str) and (match := _DIGEST.fullmatch(digest)):
            yield Layer(media, store / "blobs" / f"sha256-{match[1]}")


# --- Hugging Face's cache --------------------------------------------------------------------------------------------


def hub_name(folder: str, names: Collection[str]) -> str | None:
    """The repository that a folder of the cache with these names in it holds: `models--org--name` is `org/name`."""
    if folder.startswith("models--") and "snapshots" in names:
        return folder.removeprefix("models--").replace("--", "/")
    return None


def is_checkout(folder: Path) -> bool:
    """Whether a folder is a repository of Hugging Face: only then its README is about each file in it."""
    return folder.parent.name == "snapshots" or (folder / ".gitattributes").is_file()


def hub_revisions(repository: Path) -> list[Path]:
    """The snapshots of a repository, the one that `main` is first, then the newest."""
    try:
        with open_regular(repository / "refs" / "main") as file:
            main = file.read(64).decode("ascii").strip()
    except (OSError, ValueError):
        main = ""
    try:
        with os.scandir(repository / "snapshots") as listing:
            dated = [(entry.name == main, entry.stat().st_mtime_ns, entry.path) for entry in listing if entry.is_dir()]
    except OSError:
        return []
    return [Path(path) for _, _, path in sorted(dated, reverse=True)]


# --- InvokeAI --------------------------------------------------------------------------------------------------------


def is_invokeai(folder: Path, names: Collection[str]) -> bool:
    """Whether InvokeAI keeps its models in a folder with these names in it."""
    return "invokeai.yaml" in names or ("databases" in names and (folder / "databases" / "invokeai.db").is_file())


def invokeai_models(root: Path, troubles: dict[Path, str]) -> tuple[Path, list[Stored]]:
    """InvokeAI's own folder of models, and what its database has on record, wherever that lies.

    What can't be read is put into `troubles` with the reason.
    """
    settings: dict[str, str] = {}
    if (file := root / "invokeai.yaml").is_file():
        try:
            settings = _invokeai_settings(read_yaml(file))
        except (OSError, ValueError) as error:
            troubles[file] = str(error)
    models = Path(os.path.normpath(root / settings.get("models_dir", "models")))
    database = root / settings.get("db_dir", "databases") / "invokeai.db"
    if not database.is_file():
        return models, []
    try:
        rows = _rows(database)
    except (sqlite3.Error, OSError, ValueError) as error:
        troubles[database] = str(error)
        return models, []
    return models, [
        Stored(Path(os.path.normpath(models / path)), name, _number(name))
        for name, path in rows
        if isinstance(name, str) and isinstance(path, str) and path and "\0" not in path
    ]


def _invokeai_settings(config: object) -> dict[str, str]:
    """`models_dir` and `db_dir`, which version 4 has at the top and version 3 under `InvokeAI` and `Paths`."""
    for key in ("InvokeAI", "Paths"):
        if isinstance(config, dict) and isinstance(config.get(key), dict):
            config = config[key]
    told = config if isinstance(config, dict) else {}
    return {key: told[key] for key in ("models_dir", "db_dir") if isinstance(told.get(key), str) and told[key]}


def _rows(database: Path) -> list[tuple[object, object]]:
    """Name and path of each model, read without a file being made beside the database or a lock being left on it.

    SQLite would make files even to read a database in WAL mode, unless its program is running and has made them.
    """
    with database.open("rb") as file:
        in_wal_mode = file.read(20)[18:20] == b"\2\2"
    has_wal = database.with_name(f"{database.name}-wal").exists()
    uri = f"{database.absolute().as_uri()}?mode=ro{'&immutable=1' if in_wal_mode and not has_wal else ''}"
    deadline = time.monotonic() + PATIENCE
    with closing(sqlite3.connect(uri, uri=True, timeout=PATIENCE)) as connection:
        # The file may be anybody's, and `models` a view that computes for ever.
        connection.set_progress_handler(lambda: time.monotonic() > deadline, 100_000)
        return connection.execute(f"SELECT name, path FROM models LIMIT {MAX_MODELS}").fetchall()


def _number(text: str) -> int:
    return zlib.crc32(text.encode("utf-8", "surrogateescape"))
