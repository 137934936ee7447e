"""Hugging Face: repositories of models, at a branch, a tag or a commit. https://huggingface.co/docs/hub/api

Whatever the reference says, the files are fetched at the commit that it means now: a repository that changes while it
is downloaded, or between two attempts, can't mix two states.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from bottega.formats.folder import adapter_weights, installable
from bottega.formats.gguf import later_part_of
from bottega.library import companions
from bottega.library.disk import MODEL_SUFFIXES
from bottega.library.sources.client import Client
from bottega.library.sources.errors import BadReference, HttpError, NetworkError, Refused
from bottega.library.sources.names import check_paths
from bottega.library.sources.offers import Choice, Offer, RemoteFile
from bottega.library.sources.tokens import Site

HOSTS = frozenset(("huggingface.co", "www.huggingface.co", "hf.co"))
PRECISIONS = ("fp16", "bf16", "fp32", "ema", "non_ema")  # variants in the names of diffusers' weights

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_REPO = re.compile(
    rf"(?P<repo>{_NAME}/{_NAME}|{_NAME}(?=@|$))(@(?P<revision>refs/[a-z]+/[^/]+|[^/]+))?(/(?P<path>.+))?"
)
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,200}")
_WEIGHTS = (".safetensors", ".gguf")
_SHARD = re.compile(r"-[0-9]{5}-of-[0-9]{5}$")
_PIECE = re.compile(r"(?P<stem>.+)-[0-9]{5}-of-(?P<count>(?!00000)[0-9]{5})\.gguf")
_LISTED = 12  # files that an error names


class _Chosen(NamedTuple):
    """The files to fetch, and the folder of the repository that they are (empty for its root), or None for one file.

    `main` is the piece that stands for all where they are those of a split model.
    """

    files: list[RemoteFile]
    folder: str | None = None
    main: str = ""


@dataclass(frozen=True)
class Reference:
    """A repository, at a revision, and a file or a folder in it (empty for all of it)."""

    repo: str
    revision: str = "main"
    path: str = ""


def read_reference(text: str, url: str) -> Reference | None:
    """What a text means at Hugging Face, or None if it means nothing there.

    `hf:ORG/NAME`, `hf:ORG/NAME/FILE`, `hf:ORG/NAME@REVISION/FILE`, and the addresses of pages and files, on Hugging
    Face or its mirror at `url`.
    """
    if text.lower().startswith("hf:"):
        match = _REPO.fullmatch(text[3:].strip("/"))
        if match and _REVISION.fullmatch(match["revision"] or "main"):
            return Reference(match["repo"], match["revision"] or "main", _plain(match["path"] or ""))
        raise BadReference(f"{text!r} names no repository", "write hf:ORG/NAME or hf:ORG/NAME@REVISION/FILE")
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not (parts.hostname in HOSTS or text.startswith(f"{url}/")):
        return None
    prefix = urlsplit(url).path if text.startswith(f"{url}/") else ""
    words = [unquote(word) for word in parts.path.removeprefix(prefix).strip("/").split("/")]
    if words[0] in ("datasets", "spaces", "papers", "collections", "docs", "api"):
        raise BadReference(
            f"{parts.path}: this page of Hugging Face is no model's", "use the address of a model's page"
        )
    action = next((index for index in (1, 2) if words[index : index + 1] and words[index] in _ACTIONS), None)
    repo = "/".join(words[:action] if action else words[:2])
    rest = words[action + 1 :] if action else []
    length = 3 if rest[:1] == ["refs"] else 1
    revision, path = "/".join(rest[:length]) or "main", "/".join(rest[length:])
    if not re.fullmatch(rf"{_NAME}(/{_NAME})?", repo) or not _REVISION.fullmatch(revision):
        raise BadReference(f"{parts.path}: this page of Hugging Face shows no model", "write hf:ORG/NAME")
    return Reference(repo, revision, _plain(path))


def _plain(path: str) -> str:
    """A path in a repository; raises BadReference for one that leads up, or nowhere."""
    if path and not {"", ".", ".."}.isdisjoint(path.split("/")):
        raise BadReference(f"{path!r} is no path in a repository", "write it as the repository's page does")
    return path


_ACTIONS = ("blob", "resolve", "tree", "raw")


def offer(client: Client, site: Site, text: str, reference: Reference, choice: Choice) -> Offer:
    """What Hugging Face has under a reference. Raises BadReference, Refused, or a NetworkError."""
    told = repository(client, site, reference)
    commit = told["sha"]
    files = {file.path: file for file in _files(site, reference.repo, commit, told)}
    chosen, folder, main = _chosen(reference, choice, files)
    source = {"site": "huggingface", "repo": reference.repo, "revision": reference.revision, "commit": commit}
    card = told.get("cardData")
    facts: Mapping[str, Any] = card if isinstance(card, dict) else {}
    licence = {
        key: facts[key] for key in ("license", "license_name", "license_link") if isinstance(facts.get(key), str)
    }
    page = f"{site.url}/{reference.repo}"
    if len(chosen) == 1 and folder is None:
        path = chosen[0].path
        return Offer(
            reference=text,
            title=f"{reference.repo}/{path}",
            files=(chosen[0],),
            source={**source, "path": path},
            page=f"{page}/blob/{commit}/{quote(path)}",
            licence=licence or None,
            texts=_texts(files),
        )
    check_paths([file.path for file in chosen])
    return Offer(
        reference=text,
        title=_joined(reference.repo, folder, _SHARD.sub("", PurePosixPath(main).stem)),
        files=tuple(chosen),
        source={**source, "path": _joined(folder, main)},
        page=f"{page}/tree/{commit}",
        is_folder=True,
        main=main,
        licence=licence or None,
        texts=_texts(files) if main else {},
    )


def _joined(*names: str | None) -> str:
    return "/".join(filter(None, names))


def repository(client: Client, site: Site, reference: Reference) -> dict[str, Any]:
    """What Hugging Face says of a repository: `sha`, `siblings` with sizes and hashes, `cardData` and more."""
    revision = quote(reference.revision, safe="")
    try:
        told = client.json(f"{site.url}/api/models/{reference.repo}/revision/{revision}?blobs=true", site)
    except HttpError as error:
        if error.status == 404 or error.code == "RevisionNotFound":
            raise HttpError(
                f"Hugging Face does not know {reference.repo}@{reference.revision}", error.remedy, 404
            ) from None
        if error.status == 401 and not site.token and error.code in ("", "RepoNotFound"):
            # This is how it answers for repositories that are not there, too.
            what = f"Hugging Face has no model {reference.repo}, or only for those who log in"
            raise HttpError(what, f"check the name; else {site.how_to_log_in()}", 401) from None
        raise
    if not re.fullmatch("[0-9a-f]{40,64}", str(told.get("sha"))):
        raise NetworkError(
            "Hugging Face's answer names no commit", "the site may have changed: look for a newer Bottega"
        )
    return told


def remote_file(site: Site, repo: str, commit: str, entry: Mapping[str, Any]) -> RemoteFile | None:
    """One entry of `siblings` as a file that can be fetched."""
    path = entry.get("rfilename")
    if not isinstance(path, str) or not path:
        return None
    lfs = entry.get("lfs")
    hashes = {}
    if isinstance(lfs, dict) and re.fullmatch("[0-9a-f]{64}", str(lfs.get("sha256"))):
        hashes["sha256"] = str(lfs["sha256"])
    elif not lfs and re.fullmatch("[0-9a-f]{40}", str(entry.get("blobId"))):
        hashes["git"] = str(entry["blobId"])
    size = (lfs.get("size") if isinstance(lfs, dict) else None) or entry.get("size")
    known = isinstance(size, int) and not isinstance(size, bool) and size >= 0
    return RemoteFile(
        key=f"huggingface {repo} {commit} {path}",
        urls=(f"{site.url}/{repo}/resolve/{commit}/{quote(path)}",),
        path=path,
        size=size if known else None,
        exact=known,
        hashes=hashes,
        site=site,
        is_model=PurePosixPath(path).suffix.lower() in MODEL_SUFFIXES,
    )


def _files(site: Site, repo: str, commit: str, told: Mapping[str, Any]) -> list[RemoteFile]:
    siblings = told.get("siblings")
    entries = [each for each in siblings if isinstance(each, dict)] if isinstance(siblings, list) else []
    return [file for entry in entries if (file := remote_file(site, repo, commit, entry))]


def _chosen(reference: Reference, choice: Choice, files: Mapping[str, RemoteFile]) -> _Chosen:
    wanted = reference.path or choice.file
    if wanted in files and not _needs_config(wanted, files):
        if not files[wanted].is_model:
            raise BadReference(f"{reference.repo}/{wanted}: this is no model file", _listed(files))
        if piece := _PIECE.fullmatch(wanted):
            return _pieces(reference, piece, files)
        if _SHARD.search(PurePosixPath(wanted).stem):
            raise BadReference(f"{reference.repo}/{wanted}: this is one piece of a model", f"write hf:{reference.repo}")
        return _Chosen([files[wanted]])
    folder = wanted.rpartition("/")[0] if wanted in files else wanted.strip("/")
    inside = _inside(folder, files)
    if not inside:
        raise BadReference(f"{reference.repo}@{reference.revision}: it has no file {wanted}", _listed(files))
    names = _of_folder(inside, choice.variant)
    if names:
        prefix = f"{folder}/" if folder else ""
        return _Chosen([replace(files[f"{prefix}{name}"], path=name) for name in sorted(names)], folder)
    models = [name for name in sorted(inside) if _is_whole_model(files[_joined(folder, name)])]
    if choice.variant:
        models = [name for name in models if choice.variant.casefold() in name.casefold()]
    if len(models) == 1:
        return _chosen(replace(reference, path=_joined(folder, models[0])), choice, files)
    if not models:
        raise BadReference(f"{reference.repo}: nothing of it is a model that Bottega reads", _listed(files))
    raise BadReference(
        f"{reference.repo}: it has {len(models)} models", f"write hf:{reference.repo}/FILE; {_listed(files)}"
    )


def _pieces(reference: Reference, piece: re.Match[str], files: Mapping[str, RemoteFile]) -> _Chosen:
    """All pieces of the split model that one of them belongs to."""
    folder, _, stem = piece["stem"].rpartition("/")
    names = [f"{stem}-{number:05}-of-{piece['count']}.gguf" for number in range(1, int(piece["count"]) + 1)]
    if missing := [name for name in names if _joined(folder, name) not in files]:
        what = f"{reference.repo}/{piece[0]}: {len(missing)} of its {len(names)} pieces are not there"
        raise BadReference(f"{what}: {', '.join(missing[:3])}", _listed(files))
    return _Chosen([replace(files[_joined(folder, name)], path=name) for name in names], folder, names[0])


def _is_whole_model(file: RemoteFile) -> bool:
    """Whether a file is a model, or the piece of one that stands for all."""
    return file.is_model and later_part_of(PurePosixPath(file.path).name) is None


def _inside(folder: str, files: Mapping[str, RemoteFile]) -> set[str]:
    """The names that files have within a folder of the repository, or within all of it."""
    prefix = f"{folder}/" if folder else ""
    return {path.removeprefix(prefix) for path in files if path.startswith(prefix)}


def _needs_config(path: str, files: Mapping[str, RemoteFile]) -> bool:
    """Whether these are weights of an adapter whose strength stands in the config beside them, so that both are one."""
    folder, _, name = path.rpartition("/")
    return name.endswith(".safetensors") and name == adapter_weights(_inside(folder, files))


def _of_folder(names: set[str], variant: str) -> set[str]:
    """The files that make up a folder in diffusers', transformers' or PEFT's layout; none where it is in no such.

    Of each part's weights one precision is taken: the one asked for, else the plain one, else the first there is.
    """
    allowed = {name for name in names if installable(name)}
    if "model_index.json" in names:
        weights = {name for name in allowed if name.endswith(_WEIGHTS) and "/" in name}
    elif "config.json" in names:
        weights = {name for name in allowed if name.endswith(".safetensors") and "/" not in name}
        if not weights and any(name.endswith(".gguf") for name in allowed):
            return set()
    elif adapter := adapter_weights(names):
        weights = allowed & {adapter}
    else:
        return set()
    if not weights:
        raise Refused(
            "its weights are only there in formats that can hide code",
            "look for a version in safetensors, or get one file: hf:ORG/NAME/FILE",
        )
    chosen = {name for name in allowed if not name.endswith(_WEIGHTS) and not _is_index(name)}
    indexes = {name for name in allowed if _is_index(name)}
    for part in {name.rpartition("/")[0] for name in weights}:
        here = {name for name in weights | indexes if name.rpartition("/")[0] == part}
        by_variant: dict[str, set[str]] = {}
        for name in here:
            by_variant.setdefault(_variant(name), set()).add(name)
        with_weights = [
            each for each, members in by_variant.items() if any(name.endswith(_WEIGHTS) for name in members)
        ]
        chosen |= by_variant[min(with_weights, key=lambda each: (each != variant, each != "", each))]
    return chosen


def _variant(name: str) -> str:
    """`fp16` for `model.fp16.safetensors`, `model.fp16-00001-of-00002.safetensors` and their index; else empty."""
    words = _SHARD.sub("", PurePosixPath(name).name.removesuffix(".safetensors")).split(".")
    return next((word for word in words[1:] if word in PRECISIONS), "")


def _is_index(name: str) -> bool:
    return ".safetensors.index" in name and name.endswith(".json")


def _texts(files: Mapping[str, RemoteFile]) -> dict[str, RemoteFile]:
    """The card and the licence of a repository, by the endings under which they are kept beside a file of it."""
    texts = {}
    if "README.md" in files:
        texts[".md"] = files["README.md"]
    for name in ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE"):
        if name in files:
            texts[companions.LICENCE] = files[name]
            break
    return texts


def _listed(files: Mapping[str, RemoteFile]) -> str:
    models = sorted(path for path, file in files.items() if _is_whole_model(file))
    shown: Sequence[str] = [ascii(path)[1:-1][:120] for path in models[:_LISTED]]
    more = f" and {len(models) - _LISTED} more" if len(models) > _LISTED else ""
    return f"its model files are {', '.join(shown)}{more}" if shown else "it has no model files"
