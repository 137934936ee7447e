"""Emptying the trash: the one place where files of outputs are removed, and only such as are still what was made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from bottega.formats import database
from bottega.gallery import rows
from bottega.gallery.reading import hash_file
from bottega.gallery.store import Store


def empty(store: Store, home: Path, until: float, owner: str | None, told: Callable[[int, int], None]) -> Iterator[str]:
    """Remove the outputs that lie in the trash since `until` (unix seconds) or longer, file by file; the SHA-256 of
    each that is gone for good. One whose file can't be removed stays there.

    A file goes before its record: whatever breaks off in between, nothing is on disk that the gallery does not know.
    """
    with store.reading() as connection:
        found = connection.execute(
            "SELECT id, path, sha256 FROM details JOIN outputs USING (id) WHERE deleted AND deleted_at <= ? "
            "AND (? IS NULL OR owner = (SELECT id FROM owners WHERE name = ?)) ORDER BY id",
            (until, owner, owner),
        ).fetchall()
    for done, (number, path, sha256) in enumerate(found):
        told(done, len(found))
        whole = home / database.string(path)
        ours = _is_ours(whole, sha256)
        with store.writing() as connection:
            still = "SELECT 1 FROM details JOIN outputs USING (id) WHERE id = ? AND deleted AND path = ?"
            if not connection.execute(still, (number, path)).fetchone():
                continue  # somebody took it out just now
            if ours and not _gone(whole):
                continue
            rows.remove(connection, number)
        yield sha256


def _is_ours(path: Path, sha256: str) -> bool:
    """Whether this is a plain file with exactly the bytes that were made."""
    try:
        return hash_file(path) == sha256
    except OSError:
        return False


def _gone(path: Path) -> bool:
    """Remove a file; whether it is gone now."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True
