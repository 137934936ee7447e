"""Datasets: folders of pictures with captions that a server keeps for its users, as trainings read them."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bottega.errors import BottegaError, FieldProblem, FileError, InvalidRecipe, SaveError
from bottega.formats import media
from bottega.formats.atomic import atomic
from bottega.training.data import SMALLEST

ABOUT, LIST = "dataset.json", "metadata.jsonl"
MOST_PICTURES = 10_000
_ENDINGS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}


class UnknownDataset(BottegaError):
    """There is no dataset, or no picture in it, of this id."""

    exit_code = 2


@dataclass(frozen=True)
class Kept:
    """A picture of a dataset: `id` is the SHA-256 of its bytes, width and height are in pixels."""

    id: str
    file: str
    caption: str
    width: int
    height: int
    bytes: int


@dataclass(frozen=True)
class Dataset:
    """A folder of pictures; `created` in unix seconds."""

    id: str
    name: str
    owner: str
    created: float
    pictures: tuple[Kept, ...] = ()


class Datasets:
    """The datasets below a folder, one folder each; safe to use from several threads.

    A dataset's folder is one that `bottega train` takes, too: its captions are in its `metadata.jsonl`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def create(self, name: str, owner: str) -> Dataset:
        """A new one, with nothing in it. Raises SaveError where it can't be written."""
        made = Dataset(secrets.token_hex(10), name, owner, time.time())
        try:
            self.place(made.id).mkdir(parents=True)
        except OSError as error:
            reason = error.strerror or str(error)
            raise SaveError(
                f"{self._folder}: can't be made ({reason})", "set BOTTEGA_HOME to a folder of yours"
            ) from None
        self._write_about(made)
        return made

    def all(self) -> list[Dataset]:
        """Every dataset, the newest first."""
        found = []
        for about in self._folder.glob(f"*/{ABOUT}"):
            try:
                found.append(self.dataset(about.parent.name))
            except UnknownDataset:
                continue  # it is being deleted
        return sorted(found, key=lambda each: -each.created)

    def dataset(self, id: str) -> Dataset:
        """The one of that id. Raises UnknownDataset."""
        try:
            about = json.loads((self.place(id) / ABOUT).read_bytes())
        except FileNotFoundError:
            raise UnknownDataset(f"there is no dataset {id!r}", "see /api/datasets") from None
        return Dataset(id, about["name"], about["owner"], about["created"], tuple(self._pictures(id)))

    def place(self, id: str) -> Path:
        """The folder of a dataset."""
        return self._folder / id

    def picture(self, id: str, picture: str) -> Kept:
        """A picture of a dataset. Raises UnknownDataset."""
        found = next((each for each in self.dataset(id).pictures if each.id == picture), None)
        if found is None:
            raise UnknownDataset(f"there is no picture {picture[:12]!r} in this dataset", "see GET /api/datasets/{id}")
        return found

    def path(self, id: str, picture: str) -> Path:
        """The file of a picture, as it was sent. Raises UnknownDataset."""
        path = self.place(id) / self.picture(id, picture).file
        if not path.is_file():
            raise UnknownDataset(f"the file of the picture {picture[:12]} is gone", "send it again")
        return path

    def add(self, id: str, content: bytes, caption: str | None) -> Kept:
        """Take a PNG, JPEG or WebP in; one that is there already gets this caption, or keeps its own if there is none.

        Raises FileError for what is no picture to learn from, InvalidRecipe for more than MOST_PICTURES of them,
        UnknownDataset, and SaveError where it can't be written.
        """
        known = self.dataset(id)
        sha256 = hashlib.sha256(content).hexdigest()
        part = self.place(id) / f".{sha256}-{threading.get_ident()}"
        try:
            with atomic(part) as file:
                file.write(content)
            media.check_picture(part)
            told = media.read(part)
            width, height = told.width, told.height
            if min(width, height) < SMALLEST:
                remedy = f"{SMALLEST} pixels is the least that can be learned from"
                raise FileError("the picture", f"is only {width}x{height} pixels", remedy)
            with self._lock:
                there = self._pictures(id)
                others = [each for each in there if each.id != sha256]
                said = next((each.caption for each in there if each.id == sha256), "") if caption is None else caption
                kept = Kept(sha256, f"{sha256}{_ENDINGS[told.format]}", said, width, height, len(content))
                if len(others) >= MOST_PICTURES:
                    raise InvalidRecipe(
                        [FieldProblem("pictures", f"{known.name} has {MOST_PICTURES:,} of them already")]
                    )
                part.replace(self.place(id) / kept.file)
                self._write_list(id, [*others, kept])
        finally:
            part.unlink(missing_ok=True)
        return kept

    def say(self, id: str, picture: str, caption: str) -> Kept:
        """Give a picture another caption. Raises UnknownDataset, SaveError."""
        with self._lock:
            changed = replace(self.picture(id, picture), caption=caption)
            self._write_list(id, [changed if each.id == picture else each for each in self._pictures(id)])
        return changed

    def remove(self, id: str, picture: str) -> None:
        """Take a picture out. Raises UnknownDataset, SaveError."""
        with self._lock:
            gone = self.picture(id, picture)
            self._write_list(id, [each for each in self._pictures(id) if each.id != picture])
            (self.place(id) / gone.file).unlink(missing_ok=True)

    def rename(self, id: str, name: str) -> Dataset:
        """Call a dataset otherwise. Raises UnknownDataset, SaveError."""
        with self._lock:
            renamed = replace(self.dataset(id), name=name)
            self._write_about(renamed)
        return renamed

    def delete(self, id: str) -> None:
        """Delete a dataset with all that is in it. Raises UnknownDataset."""
        with self._lock:
            self.dataset(id)
            (self.place(id) / ABOUT).unlink(missing_ok=True)  # from here on it is none
            shutil.rmtree(self.place(id), ignore_errors=True)

    def _pictures(self, id: str) -> list[Kept]:
        try:
            text = (self.place(id) / LIST).read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        told: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
        return [
            Kept(each["id"], each["file_name"], each["text"], each["width"], each["height"], each["bytes"])
            for each in told
        ]

    def _write_list(self, id: str, pictures: Sequence[Kept]) -> None:
        lines = []
        for each in pictures:
            told = asdict(each)
            told["file_name"], told["text"] = told.pop("file"), told.pop("caption")
            lines.append(json.dumps(told) + "\n")
        with atomic(self.place(id) / LIST) as file:
            file.write("".join(lines).encode())

    def _write_about(self, dataset: Dataset) -> None:
        told = {"name": dataset.name, "owner": dataset.owner, "created": dataset.created}
        with atomic(self.place(dataset.id) / ABOUT) as file:
            file.write(json.dumps(told).encode())
