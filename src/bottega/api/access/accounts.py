"""Who may use this server: users, their keys, signed-in browsers and one-time links, kept as hashes in one file.

Keys, cookies and links are 256 random bits, so a plain SHA-256 of them tells nobody anything, and is quick to look up.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from bottega.api.access.refusal import AccountError, LeftBehind, UnknownUser
from bottega.formats.atomic import private_folder
from bottega.formats.database import Schema, connect, explained, prepare, transaction
from bottega.jobs.job import OWNER as OWNER
from bottega.settings import Settings

SCOPES = ("read", "generate", "manage", "admin")
KEY_PREFIX = "bottega_"
LINK_LASTS = 12 * 3600.0  # seconds
SESSION_LASTS = 30 * 86400.0
_RENEW_AFTER = 86400.0  # a session that is used is prolonged once a day

_SCHEMA = Schema(
    what="list of users",
    table="users",
    migrations=(
        """
        CREATE TABLE users (name TEXT PRIMARY KEY, scopes TEXT NOT NULL, created REAL NOT NULL,
            waiting INTEGER, per_minute INTEGER, pixels_per_day INTEGER) STRICT;
        CREATE TABLE keys (hash BLOB PRIMARY KEY, user TEXT NOT NULL, created REAL NOT NULL) STRICT, WITHOUT ROWID;
        CREATE TABLE sessions (hash BLOB PRIMARY KEY, user TEXT NOT NULL, expires REAL NOT NULL) STRICT, WITHOUT ROWID;
        CREATE TABLE links (hash BLOB PRIMARY KEY, user TEXT NOT NULL, expires REAL NOT NULL) STRICT, WITHOUT ROWID;
        CREATE TABLE usage (user TEXT NOT NULL, day INTEGER NOT NULL, pixels INTEGER NOT NULL,
            PRIMARY KEY (user, day)) STRICT, WITHOUT ROWID;
        """,
    ),
    error=AccountError,
    newer="update Bottega",
    damaged="move it away: then nobody is known, and users are added again",
)


@dataclass(frozen=True)
class Quota:
    """How much a user may ask for; None is no limit. `waiting` jobs at once, jobs `per_minute`, `pixels_per_day`."""

    waiting: int | None = None
    per_minute: int | None = None
    pixels_per_day: int | None = None


@dataclass(frozen=True)
class User:
    """Somebody who may use this server. `keys` are the first digits of the hashes of their keys."""

    name: str
    scopes: frozenset[str]
    quota: Quota = field(default_factory=Quota)
    created: float = 0.0
    keys: tuple[str, ...] = ()


THE_OWNER = User(OWNER, frozenset(SCOPES))


class Accounts:
    """The file of users, keys, sessions and links; safe to use from several threads and processes.

    It is readable by nobody else. Raises AccountError where it can't be opened.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.RLock()
        self._used: set[bytes] = set()  # links
        self._changes = 0  # made here
        self._unsaved: dict[bytes, tuple[str, float]] = {}  # sessions that a full disk did not take
        try:
            private_folder(path.parent)
            # Made with its mode, not given it later: there is no moment in which others could open it.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            if os.name != "nt":
                os.chmod(path, 0o600)
        except OSError as error:
            reason = error.strerror or str(error)
            raise AccountError(f"{path}: can't be opened ({reason})", "check who may write it, and the disk") from None
        with explained(path, _SCHEMA):
            self._db = connect(str(path), check_same_thread=False)
            try:
                prepare(self._db, _SCHEMA)
                self._db.execute("PRAGMA synchronous = FULL")
                self._db.execute("PRAGMA busy_timeout = 2000")
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    # --- users ---------------------------------------------------------------------------------------------------

    def users(self) -> list[User]:
        """Everybody but the owner, by name."""
        with self._lock:
            keys: dict[str, list[str]] = {}
            for digest, name in self._db.execute("SELECT hash, user FROM keys ORDER BY created"):
                keys.setdefault(name, []).append(digest.hex()[:8])
            rows = self._db.execute(f"SELECT {_USER} FROM users ORDER BY name").fetchall()
        return [_user(row, tuple(keys.get(row[0], ()))) for row in rows]

    def add_new(self, name: str, scopes: Sequence[str], quota: Quota, settings: Settings) -> str:
        """Add somebody who finds nothing of an earlier user's under their name; AccountError where they would."""
        from bottega.belongings import owns_anything

        with self._lock:
            known = self._user(name)
        if known is None and owns_anything(settings, name):
            what = f"an earlier {name!r} has left jobs, outputs, pictures or datasets, which this user would see"
            raise LeftBehind(what, "choose another name, or have the same person come back (again)")
        return self.add(name, scopes, quota)

    def add(self, name: str, scopes: Sequence[str] = ("read", "generate"), quota: Quota | None = None) -> str:
        """A new user; the key that is theirs, which is not kept and can't be shown again. Raises AccountError."""
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,31}", name) or name == OWNER:
            raise AccountError(
                f"{name!r} can't be the name of a user", "use up to 32 of a-z, 0-9, dot, dash; not 'owner'"
            )
        words, quota = _words(scopes), quota or Quota()
        with self._writing():
            if self._db.execute("SELECT 1 FROM users WHERE name = ?", (name,)).fetchone():
                raise AccountError(f"there is a user {name!r} already", "make a new key for them instead")
            self._db.execute(
                "INSERT INTO users VALUES (?, ?, ?, ?, ?, ?)",
                (name, words, self._clock(), quota.waiting, quota.per_minute, quota.pixels_per_day),
            )
            return self._new_key(name)

    def change(
        self, name: str, scopes: Sequence[str] | None = None, limits: Mapping[str, int | None] | None = None
    ) -> User:
        """Let a user do and ask for something else from now on; the user as they are then.

        `limits` are those fields of their Quota that change. Scopes of None stay, and so does what `limits` does not
        name. Raises UnknownUser, and AccountError for what are no scopes.
        """
        with self._writing():
            self._must_be(name)
            before = next(user for user in self.users() if user.name == name)
            words = _words(before.scopes if scopes is None else scopes)
            quota = replace(before.quota, **(limits or {}))
            self._db.execute(
                "UPDATE users SET scopes = ?, waiting = ?, per_minute = ?, pixels_per_day = ? WHERE name = ?",
                (words, quota.waiting, quota.per_minute, quota.pixels_per_day, name),
            )
        return replace(before, scopes=frozenset(words.split()), quota=quota)

    def remove(self, name: str) -> None:
        """Remove a user with all keys, sessions and links; what they made stays. Raises UnknownUser."""
        with self._writing():
            self._must_be(name)
            self._db.execute("DELETE FROM users WHERE name = ?", (name,))
            for table in ("keys", "sessions", "links"):
                self._db.execute(f"DELETE FROM {table} WHERE user = ?", (name,))

    def replace_key(self, name: str) -> str:
        """A new key for a user; the old ones, and the browsers that are signed in, are no longer let in."""
        with self._writing():
            self._must_be(name)
            self._db.execute("DELETE FROM keys WHERE user = ?", (name,))
            self._db.execute("DELETE FROM sessions WHERE user = ?", (name,))
            return self._new_key(name)

    def quota(self, name: str) -> Quota:
        """How much a user may ask for; the owner, and who is a user no longer, anything."""
        with self._lock:
            found = self._user(name)
        return found.quota if found else Quota()

    def anybody(self) -> bool:
        """Whether there is a user besides the owner."""
        with self._lock:
            return self._db.execute("SELECT 1 FROM users LIMIT 1").fetchone() is not None

    @property
    def changes(self) -> tuple[int, int]:
        """Something that is another when anything was changed since, by this process or by another one."""
        with self._lock:
            return self._db.execute("PRAGMA data_version").fetchone()[0], self._changes

    # --- who it is -----------------------------------------------------------------------------------------------

    def by_key(self, secret: str) -> User | None:
        """Whose key this is."""
        return self._who(secret, "SELECT user, NULL FROM keys WHERE hash = ?")

    def by_session(self, secret: str) -> User | None:
        """Whose browser this is."""
        digest = _hash(secret)
        if unsaved := self._unsaved.get(digest):
            return self._user(unsaved[0]) if unsaved[1] > self._clock() else None
        return self._who(secret, "SELECT user, expires FROM sessions WHERE hash = ?")

    def _who(self, secret: str, query: str) -> User | None:
        digest = _hash(secret)
        with self._lock:
            row = self._db.execute(query, (digest,)).fetchone()
            if row is None or (row[1] is not None and row[1] <= self._clock()):
                return None
            return self._user(row[0])

    # --- browsers ------------------------------------------------------------------------------------------------

    def new_link(self, user: str = OWNER) -> str:
        """A token that signs one browser in, once, within twelve hours."""
        token = secrets.token_urlsafe(32)
        with self._writing():
            self._db.execute("DELETE FROM links WHERE expires <= ?", (self._clock(),))
            self._db.execute("INSERT INTO links VALUES (?, ?, ?)", (_hash(token), user, self._clock() + LINK_LASTS))
        return token

    def redeem(self, token: str) -> str | None:
        """The session that a link's token is worth, once; None for one that is used, too old or made up."""
        digest = _hash(token)
        with self._lock:
            row = self._db.execute("SELECT user, expires FROM links WHERE hash = ?", (digest,)).fetchone()
            if row is None or row[1] <= self._clock() or digest in self._used:
                return None
            self._used.add(digest)
            try:
                with self._writing():
                    gone = self._db.execute("DELETE FROM links WHERE hash = ?", (digest,)).rowcount
            except sqlite3.OperationalError:
                gone = 1  # the disk is full: that it was used is known as long as this process lives
        return self.open_session(row[0]) if gone else None

    def open_session(self, user: str) -> str:
        """A new session of a user: the value of the cookie. With a full disk it lasts as long as this process."""
        secret = secrets.token_urlsafe(32)
        row = (_hash(secret), user, self._clock() + SESSION_LASTS)
        try:
            with self._writing():
                self._db.execute("DELETE FROM sessions WHERE expires <= ?", (self._clock(),))
                self._db.execute("INSERT INTO sessions VALUES (?, ?, ?)", row)
        except sqlite3.OperationalError:
            self._unsaved[row[0]] = row[1:]
        return secret

    def renewed(self, secret: str) -> bool:
        """Prolong a session that has been in use for a day; whether its cookie should be sent again."""
        digest, now = _hash(secret), self._clock()
        with self._lock:
            row = self._db.execute("SELECT expires FROM sessions WHERE hash = ?", (digest,)).fetchone()
        if row is None or row[0] - now > SESSION_LASTS - _RENEW_AFTER:
            return False
        try:
            with self._writing():
                self._db.execute("UPDATE sessions SET expires = ? WHERE hash = ?", (now + SESSION_LASTS, digest))
        except sqlite3.OperationalError:
            return False  # it stays as it was: the next request tries again
        return True

    def close_session(self, secret: str) -> None:
        """Sign a browser out."""
        self._unsaved.pop(_hash(secret), None)
        with self._writing():
            self._db.execute("DELETE FROM sessions WHERE hash = ?", (_hash(secret),))

    # --- what was used -------------------------------------------------------------------------------------------

    def pixels_today(self, user: str) -> int:
        """How many pixels a user asked for since midnight, UTC."""
        with self._lock:
            row = self._db.execute(
                "SELECT pixels FROM usage WHERE user = ? AND day = ?", (user, self._day())
            ).fetchone()
        return int(row[0]) if row else 0

    def spend_pixels(self, user: str, pixels: int) -> None:
        """Count pixels that a user asked for."""
        with self._writing():
            self._db.execute("DELETE FROM usage WHERE day < ?", (self._day() - 31,))
            self._db.execute(
                "INSERT INTO usage VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET pixels = pixels + excluded.pixels",
                (user, self._day(), pixels),
            )

    def _day(self) -> int:
        return int(self._clock() // 86400)

    # --- within --------------------------------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock:
            self._changes += 1
            with transaction(self._db):
                yield

    def _new_key(self, name: str) -> str:
        key = KEY_PREFIX + secrets.token_urlsafe(32)
        self._db.execute("INSERT INTO keys VALUES (?, ?, ?)", (_hash(key), name, self._clock()))
        return key

    def _must_be(self, name: str) -> None:
        if not self._db.execute("SELECT 1 FROM users WHERE name = ?", (name,)).fetchone():
            raise UnknownUser(name)

    def _user(self, name: str) -> User | None:
        if name == OWNER:
            return THE_OWNER
        row = self._db.execute(f"SELECT {_USER} FROM users WHERE name = ?", (name,)).fetchone()
        return _user(row) if row else None


_USER = "name, scopes, created, waiting, per_minute, pixels_per_day"


def _user(row: tuple[str, str, float, int | None, int | None, int | None], keys: tuple[str, ...] = ()) -> User:
    name, scopes, created, *quota = row
    return User(name, frozenset(scopes.split()), Quota(*quota), created, keys)


def _words(scopes: Collection[str]) -> str:
    """Scopes as the file has them; AccountError for what are none."""
    if not scopes or not set(scopes) <= set(SCOPES):
        raise AccountError(f"{', '.join(scopes)!r} are no scopes", f"the scopes are {', '.join(SCOPES)}")
    return " ".join(sorted(set(scopes)))


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def same(secret: str, other: str) -> bool:
    """Whether two secrets are equal, in a time that does not tell how far they are."""
    return hmac.compare_digest(_hash(secret), _hash(other))
