"""From bytes that have arrived to a model on a shelf: what it is decides where it goes, and whether it may stay."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from bottega.errors import DangerousModel, FileError, FormatError, SaveError
from bottega.formats import Header, read_header
from bottega.formats.atomic import atomic, settle_new, sync_folder, sync_tree
from bottega.formats.sniff import sniff
from bottega.library import companions
from bottega.library.catalog import Catalog, Entry
from bottega.library.disk import MODEL_SUFFIXES, stamp_of
from bottega.library.find import identify_path
from bottega.library.hashes import folder_sha256, hash_file, sha256_of
from bottega.library.identify import identify
from bottega.library.sources.cards import beside, fetch_extras, sources_under, write_beside
from bottega.library.sources.client import Client
from bottega.library.sources.download import Fetched, discard, forget_state, is_whole
from bottega.library.sources.errors import NetworkError, Refused
from bottega.library.sources.names import safe_name
from bottega.library.sources.offers import Offer
from bottega.spec import Recogniser

# The folder for each kind, under the names that ComfyUI gives them where it has one.
FOLDERS = {
    "checkpoint": "checkpoints", "lora": "loras", "embedding": "embeddings", "hypernetwork": "hypernetworks",
    "vae": "vae", "vae_approx": "vae_approx", "controlnet": "controlnet", "t2i_adapter": "controlnet",
    "upscaler": "upscale_models", "text_encoder": "text_encoders", "diffusion_model": "diffusion_models",
    "language_model": "language_models", "clip_vision": "clip_vision", "motion_module": "motion_modules",
    "ip_adapter": "ip_adapters", "unknown": "other", "": "other",
}  # fmt: skip
_SUFFIXES = {"safetensors": ".safetensors", "gguf": ".gguf"}
_PICKLES = (".ckpt", ".pt", ".pth", ".bin")


@dataclass(frozen=True)
class Target:
    """Where the user wants a model: in which folder (None: the home's folder for its kind), under which name, and
    whether also if its pickle mentions names beside the harmless ones."""

    folder: Path | None = None
    name: str = ""
    allow_unusual: bool = False


@dataclass(frozen=True)
class Installed:
    """A model that is on a shelf now. `fetched` is false where it was there before."""

    offer: Offer
    entry: Entry
    fetched: bool
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The result as plain data."""
        return {
            "reference": self.offer.reference,
            "status": "installed" if self.fetched else "already here",
            "path": str(self.entry.path),
            "name": self.entry.name,
            "kind": self.entry.kind,
            "family": self.entry.family,
            "size": self.entry.size,
            "sha256": self.entry.sha256,
            "page": self.offer.page,
            "licence": self.offer.licence,
            "source": dict(self.offer.source),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Shelf:
    """Where things are put, and how they are recognised and remembered."""

    root: Path
    catalog: Catalog
    recognisers: Sequence[Recogniser]

    def entry(self, path: Path, sha256: str = "") -> Entry:
        """The model at a path, on record with the hash that was just computed of its bytes."""
        entry = identify_path(self.catalog, path, self.recognisers)
        if path.is_relative_to(self.root) and entry.shelf != self.root:
            entry = replace(entry, shelf=self.root)
            self.catalog.put([entry])
        return self.catalog.keep(entry, {"sha256": sha256}) if sha256 else entry


def already_here(shelf: Shelf, offer: Offer, client: Client, target: Target) -> Entry | None:
    """The model that has the very bytes of an offer, if it is on a shelf, or in the folder that the user named; nothing
    is downloaded to find out.

    What nobody hashed since it changed is hashed, as files of the same size are: that is quicker than to fetch it
    again. Raises Refused where other bytes lie in the place of what was fetched, unless the new one gets another name.
    """
    root = target.folder or shelf.root
    changed = None
    for path, told in sources_under(root):
        if told.get("key") == offer.short_key and _is_still_offered(told, offer, client):
            if entry := _unchanged(shelf, path, told, offer):
                return entry
            changed = path
    sha256 = None if offer.is_folder else offer.files[0].sha256
    if sha256 is not None and (twin := _twin(shelf, sha256, offer.files[0].size, target)):
        return twin
    if changed and not target.name:
        raise Refused(
            f"{changed}: it has other bytes than were fetched: it was changed or damaged since",
            "move it away and get it again, or give the new one another name",
        )
    return None


def _is_still_offered(told: Mapping[str, Any], offer: Offer, client: Client) -> bool:
    """Whether a site still has what was fetched from it; commits and versions never change."""
    wanted = None if offer.is_folder else offer.files[0].sha256
    if wanted or offer.source["site"] != "url":
        return wanted in (None, told.get("sha256"))
    etag = told.get("etag")
    if not isinstance(etag, str) or not etag.isascii() or not etag.isprintable() or not etag:
        return False
    try:
        with client.get(offer.files[0].urls[0], {"If-None-Match": etag, "Range": "bytes=0-0"}) as response:
            return response.status == 304
    except NetworkError:
        return False  # the download will say what is wrong


def _unchanged(shelf: Shelf, path: Path, told: Mapping[str, Any], offer: Offer) -> Entry | None:
    """The model at a path, if its bytes are those that were fetched; to a folder the user may have added files."""
    folder = path.parent if offer.main else path
    try:
        entry = sha256_of(shelf.catalog, shelf.entry(path))
        if entry.sha256 == told.get("sha256") and not offer.main:
            return entry
        whole = offer.is_folder and all(is_whole(folder / file.path, file) for file in offer.files)
        return entry if whole else None
    except (FileError, OSError):  # it is no model any more
        return None


def _twin(shelf: Shelf, sha256: str, size: int | None, target: Target) -> Entry | None:
    """A model with this SHA-256 where the user wants one, also one of which only the size is known so far."""
    same_size = [] if size is None else shelf.catalog.of_size(size)
    candidates = {entry.path: entry for entry in (*shelf.catalog.with_sha256(sha256), *same_size)}
    for entry in candidates.values():
        if entry.error or not _is_wanted_there(entry, shelf, target):
            continue
        try:
            if stamp_of(entry.path) == entry.stamp and sha256_of(shelf.catalog, entry).sha256 == sha256:
                return entry
        except (OSError, FileError):
            continue
    return None


def _is_wanted_there(entry: Entry, shelf: Shelf, target: Target) -> bool:
    """Whether a model lies where the user wants it: what was only used by its path may go at any time."""
    if target.folder:
        return entry.path.is_relative_to(target.folder)
    return entry.shelf is not None or entry.path.is_relative_to(shelf.root)


def install_file(client: Client, shelf: Shelf, offer: Offer, fetched: Fetched, target: Target) -> Installed:
    """Put one file that arrived on the shelf, if it is a model that may be there.

    Raises FormatError and its kin for what is none (nothing of it is kept), Refused where the user has to say more.
    """
    header = _inspected(fetched.path, offer, target)
    kind, notes = _kind(header, offer, shelf.recognisers)
    notes = (*offer.notes, *notes, *header.notes)
    suffix = _suffix(header, offer, fetched)
    suggested = target.name or (fetched.suggested_name if offer.source["site"] == "url" else offer.files[0].path)
    folder = target.folder or shelf.root / folder_of(kind)
    path = folder / safe_name(suggested, suffix)
    if twin := _twin(shelf, fetched.sha256, None, target):
        discard(fetched.path)
        return Installed(offer, twin, False, (*notes, "what arrived is the same as this, which was here before"))
    extras = fetch_extras(client, offer)
    folder.mkdir(parents=True, exist_ok=True)
    if _settle(fetched, path):
        forget_state(fetched.path)
    else:
        discard(fetched.path)
    notes += write_beside(path, offer, extras, fetched, fetched.sha256, fetched.size)
    return Installed(offer, shelf.entry(path, fetched.sha256), True, notes)


def install_folder(
    client: Client, shelf: Shelf, offer: Offer, staging: Path, target: Target, hashes: Mapping[str, str]
) -> Installed:
    """Put a folder that arrived on the shelf, all at once; `hashes` are the SHA-256 of its files by their names."""
    header = _inspected(staging, offer, target)
    kind, notes = _kind(header, offer, shelf.recognisers)
    folder = target.folder or shelf.root / folder_of(kind)
    path = folder / safe_name(target.name or offer.title.rpartition("/")[2], "")
    folder.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(path):
        raise Refused(f"{path}: there is something else of that name", "give it another name")
    try:
        sync_tree(staging)  # the files in it have just got their names
        os.rename(staging, path)
    except OSError as error:
        raise SaveError(
            f"{path}: could not be put there ({error.strerror or error})", "choose a folder on the same disk"
        ) from error
    sync_folder(folder)
    size = sum(file.size or 0 for file in offer.files)
    sha256 = hashes[offer.main] if offer.main else folder_sha256(hashes)
    written = write_beside(path / offer.main, offer, fetch_extras(client, offer), None, sha256, size)
    return Installed(
        offer, shelf.entry(path / offer.main, sha256), True, (*offer.notes, *notes, *header.notes, *written)
    )


def complete_beside(client: Client, installed: Entry, offer: Offer, root: Path) -> None:
    """Write what belongs beside a model that was there before, where it lies on our own shelf and has none of it."""
    if installed.path.is_relative_to(root) and not beside(installed.path, companions.SOURCE).exists():
        extras = fetch_extras(client, offer)
        write_beside(installed.path, offer, extras, None, installed.sha256 or "", installed.size)


def folder_of(kind: str) -> str:
    """The folder of a shelf for models of this kind."""
    return FOLDERS.get(kind) or f"{kind}s"


def _inspected(path: Path, offer: Offer, target: Target) -> Header:
    """The header of what arrived; what is refused is thrown away, what is unusual waits for the user to allow it."""
    main = path / offer.main
    try:
        header = read_header(main)
    except FormatError as error:
        _throw_away(path)
        raise _renamed(error, main, offer.title) from None
    if not header.tensors:
        _throw_away(path)
        raise Refused(f"{offer.title}: it holds no tensors, so it is no model", "choose another file of it")
    if header.safety.verdict != "clean" and not target.allow_unusual:
        reasons = "; ".join(header.safety.reasons or header.safety.names)[:300]
        raise Refused(
            f"{offer.title}: it is unusual ({reasons}) and was not put on a shelf",
            "nothing in it is ever run; to have it anyway get it again and allow unusual names",
        )
    return header


def _renamed(error: FormatError, path: Path, title: str) -> FormatError:
    """The same error, about what the user asked for instead of a temporary file."""
    what = error.what.removeprefix(f"{path}: ").replace(str(path), path.name)
    remedy = error.remedy
    if isinstance(error, DangerousModel):
        return DangerousModel(title, f"{what}; it was thrown away", remedy, error.names)
    return FormatError(title, f"{what}; it was thrown away", remedy)


def _throw_away(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        discard(path)


def _kind(header: Header, offer: Offer, recognisers: Sequence[Recogniser]) -> tuple[str, tuple[str, ...]]:
    """The kind that the header shows, else the one that the site tells, with a note where they differ."""
    found = identify(header, recognisers).match.kind
    if found in ("", "unknown"):
        return offer.kind or "unknown", ()
    if offer.kind and offer.kind != found and folder_of(offer.kind) != folder_of(found):
        return found, (f"its site calls it a {offer.kind}, its header shows a {found}",)
    return found, ()


def _suffix(header: Header, offer: Offer, fetched: Fetched) -> str:
    """The ending that says what is inside, whatever the name was that it came with."""
    told = PurePosixPath(offer.files[0].path or fetched.suggested_name).suffix.lower()
    if header.format == "pickle":
        return told if told in _PICKLES else ".pt"
    if header.format == "picture":
        return f".{sniff(header.path)}"
    return _SUFFIXES.get(header.format) or (told if told in MODEL_SUFFIXES else ".bin")


def _settle(fetched: Fetched, path: Path) -> bool:
    """Give the file its name; false where the same bytes have it already. Raises Refused where others have it."""
    try:
        try:
            settle_new(fetched.path, path)
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with fetched.path.open("rb") as source, atomic(path, settle_new) as out:  # the folder is on another disk
                shutil.copyfileobj(source, out, 4 << 20)
            fetched.path.unlink()
    except FileExistsError:
        if path.is_file() and path.stat().st_size == fetched.size and hash_file(path) == fetched.sha256:
            return False
        raise Refused(
            f"{path}: a different file of that name is there",
            "give the new one another name; it has arrived",
        ) from None
    sync_folder(path.parent)
    return True
