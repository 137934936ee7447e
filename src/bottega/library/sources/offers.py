"""What a site offers under a reference: the files to fetch, what their bytes must be, and what to keep beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from bottega.library.sources.tokens import Site


@dataclass(frozen=True)
class RemoteFile:
    """One file as a site describes it.

    `key` names its content at the site for good: by it a broken-off download is found again. `urls` are the addresses
    to ask, the next one where the one before is not found. `hashes` maps `sha256` (its beginning will do), `blake3`,
    `crc32`, `git` (SHA-1 of a git blob), `autov1` or `autov3` (of a part of the file) to hexadecimal digits. `size` is
    in bytes, or None; where it is not `exact` it only serves to see whether the disk has room. `path` is its name, in a
    folder with slashes.
    """

    key: str
    urls: tuple[str, ...]
    path: str
    size: int | None = None
    exact: bool = False
    hashes: Mapping[str, str] = field(default_factory=dict)
    site: Site | None = None
    is_model: bool = True

    @property
    def sha256(self) -> str | None:
        """The whole SHA-256, if it is known beforehand."""
        told = self.hashes.get("sha256", "")
        return told if len(told) == 64 else None

    @property
    def short_key(self) -> str:
        """A few digits that tell this content from others of the same name."""
        return _short(self.key)


@dataclass(frozen=True)
class Offer:
    """A model that can be had: one file, or those of a folder.

    `source` identifies it at its site and is kept beside the model; `page` is for people. `kind` is what the site
    says that it is (empty if it does not say). `card` is what to keep as `.civitai.info`, `texts` maps the endings of
    other files to keep beside it (`.md`) to where they are; `preview` is the address of a picture. `licence` is the
    licence's name, or what may be done, as the site says it. `main` is the file of a folder that stands for the model
    where the folder does not.
    """

    reference: str
    title: str
    files: tuple[RemoteFile, ...]
    source: Mapping[str, Any]
    page: str
    is_folder: bool = False
    main: str = ""
    kind: str = ""
    licence: Any = None
    card: Mapping[str, Any] | None = None
    texts: Mapping[str, RemoteFile] = field(default_factory=dict)
    preview: str = ""
    notes: tuple[str, ...] = ()

    @property
    def short_key(self) -> str:
        """A few digits that tell this model, as it is now, from all others."""
        return _short("\n".join(file.key for file in self.files))


@dataclass(frozen=True)
class Choice:
    """Which of a model's files is wanted: by name, and by precision (`fp16`); empty for the site's own choice.

    `sha256` is what the user says the bytes must be.
    """

    file: str = ""
    variant: str = ""
    sha256: str = ""


def _short(key: str) -> str:
    return sha256(key.encode()).hexdigest()[:12]
