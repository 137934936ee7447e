"""The gallery: an index of everything that was made, with what its owners say of it."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Unpack

from bottega.errors import FileError
from bottega.formats.answers import Answers
from bottega.formats.database import is_full, string
from bottega.gallery import fields, rows, trash
from bottega.gallery.adopt import Adopted, adopt
from bottega.gallery.asked import Wishes, asked_for
from bottega.gallery.export import zipped
from bottega.gallery.fields import Difference
from bottega.gallery.lineage import Graph, graph
from bottega.gallery.output import BadCursor, Folder, GalleryError, Output, Page, UnknownOutput
from bottega.gallery.reading import hash_file
from bottega.gallery.schema import SCHEMA
from bottega.gallery.store import Store
from bottega.gallery.thumbnails import Thumbnails

MOST_ANSWERS = 64  # that are kept: counts, mostly
MOST_PLACES = 256  # of a list that are kept
MOST_RATIOS = 4  # lists that are kept; one of 100,000 outputs takes half a megabyte
INDEX_EVERY = 64  # outputs that are added: their words are put into the index together
_LARGEST = 2**63 - 1  # number that SQLite holds


class Gallery:
    """The open index of what was made; safe to share between threads, and readers never wait for who writes.

    `path` is its SQLite file, `outputs_folder` where outputs lie whose paths it keeps relative to it: they may move
    together. `thumbnails` is where small pictures are kept, a folder beside the file if it is not said. Raises
    GalleryError for a file that is none of this gallery's, or can't be written.
    """

    def __init__(self, path: Path, outputs_folder: Path, thumbnails: Path | None = None) -> None:
        self.folder = Path(os.path.abspath(outputs_folder))
        self._store = Store(path, SCHEMA)
        self._answers = Answers(MOST_ANSWERS)
        self._ratios = Answers(MOST_RATIOS)
        self._thumbnails = Thumbnails(thumbnails or path.parent / "thumbnails")
        self._added = 0

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._store.close()

    # --- what is on record

    def add(self, output: Output) -> None:
        """Record an output whose file is on disk.

        An output that is there already gets the new facts of its file and keeps what its owner said of it; so does one
        that was found at this path before anybody told of it.
        """
        with self._store.writing() as connection:
            rows.put(connection, self.folder, output)
            self._added += 1
            if self._added % INDEX_EVERY == 0:
                rows.index_words(connection)

    def output(self, id: str) -> Output:
        """The output of this id, in the trash too; UnknownOutput if there is none."""
        with self._store.reading() as connection:
            for output in rows.read(connection, self.folder, "details.name = ?", id):
                return output
        raise UnknownOutput(id)

    def outputs(
        self, *, limit: int = 100, before: str | None = None, offset: int = 0, **wishes: Unpack[Wishes]
    ) -> Page:
        """Outputs that meet all wishes, newest first.

        `before` is a page's `next`; BadCursor for anything else. `offset` leaves out so many from there on: a list that
        is scrolled can be looked at anywhere.
        """
        with self._looking(wishes) as connection:
            version = self._store.version_of(connection)
            asked = asked_for(connection, wishes)
            total = self._answers.of(version, ("count", *asked.question), asked.count)
            # Places of this list that were looked at before, and which output each is: SQLite counts off the others.
            places = self._answers.of(version, ("places", before, *asked.question), dict[int, int])
            near = max((place for place in [*places] if place <= offset), default=0)
            ids = asked.ids(places[near] + 1 if near else _place(before), limit + 1, offset - near)
            if ids and offset and len(places) < MOST_PLACES:
                places[offset] = ids[0]
            shown = ", ".join(map(str, ids[:limit]))
            items = rows.read(connection, self.folder, f"outputs.id IN ({shown}) ORDER BY outputs.id DESC")
        return Page(items, str(ids[limit - 1]) if len(ids) > limit else None, total)

    def newest(self, owner: str | None) -> Output | None:
        """The output that an owner, or anybody, made last; None if there is none outside of the trash."""
        with self._store.reading() as connection:
            ids = asked_for(connection, {"owner": owner}).ids(_place(None), 1)
            return rows.read(connection, self.folder, "outputs.id = ?", ids[0])[0] if ids else None

    def ratios(self, **wishes: Unpack[Wishes]) -> str:
        """Width over height in thousandths of every output that meets all wishes, newest first: enough to lay all of
        them out before any is looked at. A list in JSON; 1000 stands for what has no size."""
        with self._looking(wishes) as connection:
            version = self._store.version_of(connection)
            asked = asked_for(connection, wishes)
            return self._ratios.of(version, asked.question, asked.ratios)

    def _looking(self, wishes: Wishes) -> AbstractContextManager[sqlite3.Connection]:
        """A connection in which what is wished for can be found; what was added last has to be indexed for a text."""
        if wishes.get("text"):
            with self._store.reading() as connection:
                is_behind = connection.execute("SELECT 1 FROM unindexed").fetchone() is not None
            if is_behind:
                try:
                    with self._store.writing() as connection:
                        rows.index_words(connection)
                except GalleryError as error:
                    if not is_full(error):  # where all but the last ones are found nevertheless
                        raise
        return self._store.reading()

    def of_job(self, job: str) -> list[Output]:
        """The outputs of a job, in its order."""
        with self._store.reading() as connection:
            return rows.read(connection, self.folder, "job = ? AND job != '' ORDER BY number", job)

    def with_digest(self, digest: str, owner: str) -> list[Output]:
        """An owner's outputs of the recipe with this digest whose file is as it was made, the oldest first."""
        return self._sound("digest = ? AND digest != '' AND owners.name = ?", digest, owner)

    def by_sha256(self, sha256: str, owner: str | None = None) -> list[Output]:
        """The outputs, of an owner or of all, whose file has these bytes, the oldest first."""
        return self._sound("details.sha256 = ? AND (? IS NULL OR owners.name = ?)", sha256, owner, owner)

    def owns(self, owner: str) -> bool:
        """Whether there are outputs of this owner, those in the trash too, or pictures that they sent."""
        query = (
            "SELECT id FROM owners WHERE name = ? AND (EXISTS (SELECT 1 FROM outputs WHERE owner = owners.id) "
            "OR EXISTS (SELECT 1 FROM uploads WHERE owner = owners.id))"
        )
        with self._store.reading() as connection:
            return connection.execute(query, (owner,)).fetchone() is not None

    def add_upload(self, sha256: str, owner: str) -> None:
        """Record that this owner sent the picture with these bytes; others may have sent it too."""
        with self._store.writing() as connection:
            number = rows.kept(connection, "owners", owner)
            connection.execute("INSERT OR IGNORE INTO uploads (owner, sha256) VALUES (?, ?)", (number, sha256))

    def has_picture(self, sha256: str, owner: str) -> bool:
        """Whether this owner sent the picture with these bytes, or has an output that is it or was made from it."""
        query = (
            "SELECT id FROM owners WHERE name = :owner AND ("
            "EXISTS (SELECT 1 FROM uploads WHERE owner = owners.id AND sha256 = :sha256) OR "
            "EXISTS (SELECT 1 FROM details JOIN outputs USING (id) WHERE sha256 = :sha256 AND owner = owners.id) OR "
            "EXISTS (SELECT 1 FROM inputs JOIN outputs ON outputs.id = output "
            "WHERE sha256 = :sha256 AND owner = owners.id))"
        )
        with self._store.reading() as connection:
            return connection.execute(query, {"sha256": sha256, "owner": owner}).fetchone() is not None

    def size(self) -> int:
        """How many bytes all outputs take on disk, those in the trash too."""
        query = "SELECT coalesce(sum(size), 0) FROM details"
        with self._store.reading() as connection:
            version = self._store.version_of(connection)
            return self._answers.of(version, query, lambda: int(connection.execute(query).fetchone()[0]))

    def folders(self, owner: str) -> list[Folder]:
        """The folders in which outputs of this owner lie, by name."""
        query = (
            "SELECT name, many FROM (SELECT folder, count(*) AS many FROM outputs WHERE folder != 0 AND NOT deleted "
            "AND owner = (SELECT id FROM owners WHERE name = ?) GROUP BY folder) "
            "JOIN folders ON folders.id = folder ORDER BY name"
        )
        with self._store.reading() as connection:
            version = self._store.version_of(connection)
            found = self._answers.of(version, (query, owner), lambda: connection.execute(query, (owner,)).fetchall())
        return [Folder(*row) for row in found]

    # --- what came from what

    def lineage(self, id: str) -> Graph:
        """What an output was made from, what was made from it, and what shares its recipe; UnknownOutput."""
        with self._store.reading() as connection:
            for output in rows.read(connection, self.folder, "details.name = ?", id):
                return graph(connection, self.folder, output)
        raise UnknownOutput(id)

    def differences(self, first: str, second: str) -> list[Difference]:
        """The recipe's fields in which two outputs differ, in the recipe's order; UnknownOutput."""
        return fields.differences(self.output(first).recipe, self.output(second).recipe)

    # --- files

    def thumbnail(self, id: str, size: int) -> bytes:
        """A small WebP of an output, its longer side the next of 128, 256, 384 and 512 pixels from `size` on.

        Raises UnknownOutput, and FileError for a picture that is gone, damaged, too large, or none that was made.
        """
        output = self.output(id)
        check = (lambda: None) if output.changed else (lambda: _check_made(output))
        return self._thumbnails.of(output.path, self._shown(output), size, check)

    def kept_thumbnail(self, output: Output, size: int) -> bytes | None:
        """What `thumbnail` gives, if it was made before; None where that has to make it, or to say what is wrong."""
        try:
            return self._thumbnails.kept(self._shown(output), size)
        except FileError:
            return None

    def _shown(self, output: Output) -> str:
        """What names the bytes that are shown of an output; FileError where none of them may be."""
        if output.path.is_symlink():  # put there by whom, to have what shown?
            raise FileError(output.path, "is a link, and not what was made", "make it again")
        if not output.changed:
            return output.sha256
        if rows.is_elsewhere(self.folder, output.path):  # where nothing vouches for what is there now
            raise FileError(output.path, "was changed, and lies outside of the outputs folder", "make it again")
        # By others: what is shown is what is there now.
        size, mtime_ns = rows.stamp_of(output.path) or (0, 0)
        return hashlib.sha256(f"{output.sha256} {size} {mtime_ns}".encode()).hexdigest()

    def tidy_thumbnails(self) -> None:
        """Keep the thumbnails from taking too much room; takes a second where there are many."""
        self._thumbnails.tidy()

    def export(self, ids: Iterable[str]) -> Iterator[bytes]:
        """A ZIP of these outputs' files, piece by piece; UnknownOutput before the first of them.

        A file that is gone by then is named in `left-out.txt` within the archive.
        """
        return zipped([self.output(id) for id in dict.fromkeys(ids)])

    def adopt(
        self,
        folder: Path,
        told: Callable[[int, int], None] = lambda done, total: None,
        owner_of: Callable[[str], str] = lambda job: "",
    ) -> Adopted:
        """Look through a folder of outputs: record those that nobody told of, and note which are gone, back, moved or
        changed by others. Of all outputs if it is the outputs folder, else of those in it.

        Files are read once, and again when their size or time changes. `told(done, total)` counts those that have to
        be read; what it raises ends the work, and what is recorded by then stays. `owner_of` answers whose the outputs
        of a job are, with an empty text for what came without a job.
        """
        return adopt(self._store, self.folder, Path(os.path.abspath(folder)), told, owner_of)

    def empty_trash(
        self,
        older_than: float = 0.0,
        owner: str | None = None,
        told: Callable[[int, int], None] = lambda done, total: None,
    ) -> int:
        """Remove for good what lies in the trash, of an owner or of all, for at least so many seconds; how many.

        A file goes only if its bytes are the recorded ones: what others put in its place stays. What `told(done,
        total)` raises ends the work.
        """
        emptied = 0
        for sha256 in trash.empty(self._store, self.folder, time.time() - older_than, owner, told):
            emptied += 1
            if not self.by_sha256(sha256):
                self._thumbnails.forget(sha256)
        return emptied

    def forget_elsewhere(self) -> int:
        """Drop the outputs that lie outside of the outputs folder from the record; how many. Their files stay."""
        with self._store.writing() as connection:
            places = connection.execute("SELECT id, path FROM details").fetchall()
            numbers = [id for id, path in places if rows.is_elsewhere(self.folder, self.folder / string(path))]
            for number in numbers:
                rows.remove(connection, number)
        return len(numbers)

    # --- what the owner says

    def mark(self, id: str, *, favourite: bool | None = None, folder: str | None = None) -> Output:
        """Make an output a favourite, or none, or put it into a folder ("" takes it out); None leaves as it is."""
        with self._store.writing() as connection:
            number = rows.number_of(connection, id)
            if favourite is not None:
                connection.execute("UPDATE outputs SET favourite = ? WHERE id = ?", (favourite, number))
            if folder is not None:
                name = " ".join(folder.split())
                place = rows.kept(connection, "folders", name) if name else 0
                connection.execute("UPDATE outputs SET folder = ? WHERE id = ?", (place, number))
            (marked,) = rows.read(connection, self.folder, "outputs.id = ?", number)
        return marked

    def delete(self, ids: Iterable[str]) -> None:
        """Put outputs into the trash: they are hidden, their files stay where they are. UnknownOutput before any."""
        self._trash(ids, time.time())

    def restore(self, ids: Iterable[str]) -> None:
        """Take outputs out of the trash, as they were."""
        self._trash(ids, None)

    def _trash(self, ids: Iterable[str], at: float | None) -> None:
        with self._store.writing() as connection:
            numbers = [(rows.number_of(connection, id),) for id in ids]
            connection.executemany(f"UPDATE outputs SET deleted = {int(at is not None)} WHERE id = ?", numbers)
            connection.executemany(
                "UPDATE details SET deleted_at = CASE WHEN ? IS NULL THEN NULL ELSE coalesce(deleted_at, ?) END "
                "WHERE id = ?",
                [(at, at, number) for (number,) in numbers],
            )

    def _sound(self, where: str, *values: object) -> list[Output]:
        sound = "NOT deleted AND NOT missing AND NOT changed ORDER BY outputs.id"
        with self._store.reading() as connection:
            return rows.read(connection, self.folder, f"{where} AND {sound}", *values)


def _check_made(output: Output) -> None:
    """Raise FileError where an output's file is gone, or holds other bytes than those that were made."""
    try:
        digest = hash_file(output.path)
    except OSError as error:
        raise FileError(output.path, error.strerror or "can't be read", "make it again") from None
    if digest != output.sha256:
        raise FileError(output.path, "was changed since it was made", "make it again")


def _place(cursor: str | None) -> int:
    """Below which number a page begins."""
    if cursor is None:
        return rows.time_number(rows.LAST)
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 20 and int(cursor) <= _LARGEST):
        raise BadCursor(cursor)
    return int(cursor)
