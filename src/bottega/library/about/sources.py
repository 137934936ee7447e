"""Where it is said what a model is: who wrote closest to the user goes first, then Civitai's cards, then the file."""

from __future__ import annotations

import codecs
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any

from bottega.formats import ldm_config, strictjson
from bottega.formats.header import Header
from bottega.library import companions
from bottega.library.about import cards
from bottega.library.about.facts import About, long_text, some, text, words
from bottega.library.about.markup import first_paragraph, heading, tidy
from bottega.library.about.metadata import said_in_metadata
from bottega.library.disk import model_name
from bottega.library.layouts import parse_yaml
from bottega.library.stores import is_checkout, ollama_manifests

MAX_CARD = 4 << 20  # bytes of a card; real ones have some thousand
MAX_README = 256 << 10  # characters of it that are looked at
_HUB = "https://huggingface.co"

_FRONT = re.compile(r"\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)  # YAML before the Markdown
_RESULTS = re.compile(r"^model-index:.*(?:\r?\n(?:[ \t-].*)?)*", re.MULTILINE)  # of benchmarks: megabytes, at times
_SHOULD_USE = re.compile(r"should use ((?:`[^`\n]{1,200}`[ ,]{0,3}(?:and |or )?){1,20})to trigger")
_OLLAMA = "application/vnd.ollama.image."


def gather(header: Header, path: Path) -> About:
    """What all sources say together; `about` says how."""
    return reduce(About.over, _sources(header, path), About())


def _sources(header: Header, path: Path) -> Iterator[About]:
    """What each source says, the one that is to be believed most first."""
    is_folder = path.is_dir()
    ignored: list[str] = []
    stem = os.fspath(path.with_name(model_name(path)))
    if is_folder:
        yield _hub_card(path, ignored)
        yield cards.from_source(_object(stem + companions.SOURCE, ignored))
    else:
        yield from _beside(stem, path.name, ignored)
    yield said_in_metadata(header)
    if not is_folder:
        if checkout := _checkout(path):
            yield _hub_card(checkout, ignored)
        if path.parent.name == "blobs" and path.name.startswith("sha256-"):
            yield _ollama(path)
    if ignored:
        yield About(extra={"not read": text(", ".join(ignored))})


# --- beside a file ---------------------------------------------------------------------------------------------------

_CARDS: tuple[tuple[str, Callable[[dict[str, Any], str], About]], ...] = (
    (".json", cards.from_json_card),
    (".metadata.json", cards.from_lora_manager),
    (companions.CIVITAI, lambda told, file: cards.from_json_card(told, file)),
    (companions.STABILITY_MATRIX, lambda told, file: cards.from_stability_matrix(told)),
    (companions.SOURCE, lambda told, file: cards.from_source(told)),
)


def _beside(stem: str, file: str, ignored: list[str]) -> Iterator[About]:
    for ending, read in _CARDS:
        if told := _object(stem + ending, ignored):
            yield read(told, file)
    for ending, shown in ((".txt", tidy), (companions.DESCRIPTION, tidy), (".md", first_paragraph)):
        if raw := _content(stem + ending, ignored):
            yield About(description=long_text(shown(_decoded(raw))))
    if raw := _content(stem + companions.LICENCE, ignored):
        yield About(licence=_first_line(raw))
    if raw := _content(f"{stem}.yaml", ignored):
        yield About(extra=some([("prediction", ldm_config.parameterization(raw))]))
    yield About(preview=_preview(stem))


def _preview(stem: str) -> str | None:
    """The first picture of a model that lies beside it."""
    names = (f"{stem}{ending}" for ending in companions.PREVIEWS)
    return next((name for name in names if _size(name) is not None), None)


def _size(path: str) -> int | None:
    """The size of a regular file; None if there is none (a pipe would have us wait for ever)."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _content(path: str, ignored: list[str]) -> bytes:
    """The bytes of a card; none if there is no such card, or if it can't be read: then it joins `ignored`."""
    size = _size(path)
    if not size or _leads_away(path):
        return b""
    if size > MAX_CARD:
        ignored.append(f"{os.path.basename(path)} (larger than {MAX_CARD >> 20} MiB)")
        return b""
    try:
        with open(path, "rb") as file:
            return file.read(MAX_CARD)
    except OSError as error:
        ignored.append(f"{os.path.basename(path)} ({error.strerror or error})")
        return b""


def _leads_away(path: str) -> bool:
    """Whether a card is a link to something of another sort: whoever packed it could have any file shown by it."""
    if not os.path.islink(path):
        return False
    real = os.path.realpath(path)
    ending = os.path.splitext(path)[1]
    same = real.endswith(ending) if ending else os.path.basename(real) == os.path.basename(path)
    return not same and os.path.basename(os.path.dirname(real)) != "blobs"  # of Hugging Face's cache


def _decoded(raw: bytes) -> str:
    """A text in UTF-8 or, where its first bytes say so, UTF-16; else in Latin-1, which old editors write."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16", "replace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _object(path: str, ignored: list[str]) -> dict[str, Any]:
    """The JSON object of a card; an empty one if it is none, or can't be read: then the card joins `ignored`."""
    raw = _content(path, ignored)
    if not raw:
        return {}
    try:
        told = json.loads(_decoded(raw))
        strictjson.check_depth(told)
    except (ValueError, RecursionError):
        ignored.append(f"{os.path.basename(path)} (its JSON is broken)")
        return {}
    return told if isinstance(told, dict) else {}


# --- Hugging Face's cards --------------------------------------------------------------------------------------------


def _checkout(path: Path) -> Path | None:
    """The repository of Hugging Face that a file lies in: only then a README is about each file beside it.

    In its cache a file may lie at any depth; elsewhere folders further up may be another program's repository.
    """
    for folder in path.parents:
        if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
            return folder
    return path.parent if is_checkout(path.parent) else None


def _hub_card(folder: Path, ignored: list[str]) -> About:
    """What a repository's README and licence say; and its name, where it lies in Hugging Face's cache."""
    raw = _content(os.fspath(folder / companions.README), ignored)
    told = _readme(_decoded(raw), ignored) if raw else About()
    if not told.licence:
        told = told.over(About(licence=_licence_file(folder)))
    repository = folder.parent.parent.name if folder.parent.name == "snapshots" else ""
    if repository.startswith("models--"):
        author, _, name = repository.removeprefix("models--").replace("--", "/").rpartition("/")
        source = f"{_HUB}/{author}/{name}" if author else f"{_HUB}/{name}"
        told = told.over(About(title=name, author=author, source=source))
    return told


def _readme(markdown: str, ignored: list[str]) -> About:
    """A model card: YAML between dashes, then Markdown. It joins `ignored` if its YAML can't be read."""
    front, body = {}, markdown
    if match := _FRONT.match(markdown):
        body = markdown[match.end() :]
        try:
            told = parse_yaml(_RESULTS.sub("", match[1]))
        except ValueError:
            ignored.append("README.md (its YAML is broken)")
            told = None
        front = told if isinstance(told, dict) else {}
    body = body[:MAX_README]
    should_use = [word for told in _SHOULD_USE.findall(body) for word in re.findall("`([^`]+)`", told)]
    prompt = front.get("instance_prompt")
    widget = front.get("widget")
    example = widget[0].get("text") if isinstance(widget, list) and widget and isinstance(widget[0], dict) else None
    return About(
        title=text(front.get("model_name")) or text(heading(body)),
        base_model=", ".join(words(_listed(front.get("base_model")))),
        description=long_text(first_paragraph(body)),
        triggers=words(_listed(prompt)) or words(should_use),
        licence=text(front.get("license_name")) or ", ".join(words(_listed(front.get("license")))),
        tags=words(_listed(front.get("tags"))),
        extra=some([
            ("made for", text(front.get("pipeline_tag"))),
            ("example", text(example)),
            ("licence text", text(front.get("license_link"))),
        ]),
    )  # fmt: skip


def _listed(told: object) -> list[object]:
    """What a card may give as one text or as a list of them, as a list."""
    return told if isinstance(told, list) else [told]


def _licence_file(folder: Path) -> str:
    """The first line of the licence that lies in a folder, which is its name as a rule."""
    for name in companions.LICENCES:
        if raw := _content(os.fspath(folder / name), []):
            return _first_line(raw)
    return ""


def _first_line(raw: bytes) -> str:
    lines = (line.strip("# \t\r") for line in raw[:4096].decode("utf-8", "replace").split("\n"))
    return next((line[:200] for line in lines if line), "")


# --- ollama ----------------------------------------------------------------------------------------------------------


def _ollama(blob: Path) -> About:
    """What the layers say that ollama keeps beside a model: its licence, its parameters, its adapters."""
    store = blob.parent.parent
    digest = blob.name.removeprefix("sha256-")
    manifests = [each for each in ollama_manifests(store) if digest in each.text]
    if not manifests:
        return About()
    layers: dict[str, list[Path]] = {}
    for layer in manifests[0].layers:
        layers.setdefault(layer.media.removeprefix(_OLLAMA), []).append(layer.path)
    licences = [_first_line(_content(os.fspath(path), [])) for path in layers.get("license", ())]
    parameters = {
        name: value
        for path in layers.get("params", ())
        for name, value in _object(os.fspath(path), []).items()
        if isinstance(value, (str, int, float, list))
    }
    system = b"".join(_content(os.fspath(path), []) for path in layers.get("system", ())[:1])
    return About(
        title=manifests[0].name,
        licence=", ".join(dict.fromkeys(filter(None, licences))),
        extra=some([
            ("names", ", ".join(each.name for each in manifests) if len(manifests) > 1 else ""),
            ("parameters", text(json.dumps(parameters, ensure_ascii=False)) if parameters else ""),
            ("system prompt", text(system.decode("utf-8", "replace"))),
            ("adapters", ", ".join(path.name for path in layers.get("adapter", ()))),
            ("projector", ", ".join(path.name for path in layers.get("projector", ()))),
        ]),
    )  # fmt: skip
