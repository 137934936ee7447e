"""The server's log: JSON lines in the home, rotated; plain lines where somebody watches; no secret in either."""

from __future__ import annotations

import json
import logging
import os
import re
import stat
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path

MAX_BYTES = 8 << 20
KEPT = 5  # older files

_SECRETS = re.compile(
    r"""bottega_[A-Za-z0-9_-]{20,}           # our keys
    | \bhf_[A-Za-z0-9]{8,}                   # Hugging Face's
    | (?<=[?&]token=)[^&\s"']+               # links
    | (?<=\bbearer\ )[^\s"']+ | (?<=\bbasic\ )[^\s"']+
    | (?<=://)[^/@\s"']+(?=@)                # of addresses with a name and a password
    """,
    re.VERBOSE | re.IGNORECASE,
)
# Most lines have none of these, and looking for them takes a tenth of the time.
_MARKS = ("bottega_", "hf_", "token=", "bearer ", "basic ", "://")


class Redacted(logging.Filter):
    """Takes secrets out of what is written: those that look like one, and those that it is told."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._secrets = [secret for secret in secrets if len(secret) >= 8]

    def redact(self, text: str) -> str:
        """The text without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "[secret]")
        folded = text.casefold()
        return _SECRETS.sub("[secret]", text) if any(mark in folded for mark in _MARKS) else text


class JsonLines(logging.Formatter):
    """One JSON object to a line: `at` (unix seconds), `level`, `logger`, `message`, what it was told, `trace`."""

    def __init__(self, redacted: Redacted) -> None:
        super().__init__()
        self._redacted = redacted

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        line = {"at": round(record.created, 3), "level": record.levelname.lower(), "logger": record.name}
        line["message"] = record.getMessage()
        line.update(getattr(record, "told", {}))
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return self._redacted.redact(json.dumps(line, ensure_ascii=True, default=str))


class Plain(logging.Formatter):
    """Lines for people; the log file has the rest."""

    def __init__(self, redacted: Redacted) -> None:
        super().__init__()
        self._redacted = redacted

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record, without its trace."""
        error = f" ({record.exc_info[1]!r})" if record.exc_info and record.exc_info[1] else ""
        text = f"{time.strftime('%H:%M:%S', time.localtime(record.created))} {record.getMessage()}{error}"
        return self._redacted.redact(text).encode("unicode_escape").decode("ascii")


class Patient(RotatingFileHandler):
    """A log file whose disk may be full: then lines are lost, and the server goes on."""

    def shouldRollover(self, record: logging.LogRecord) -> bool:
        """Whether the file is full: the record is not made a line twice to know it, and may be what is too much."""
        if self.stream is None:
            self.stream = self._open()
        return os.fstat(self.stream.fileno()).st_size >= self.maxBytes

    def handleError(self, record: logging.LogRecord) -> None:
        """Lose the line, and try to open the file anew with the next one."""
        if self.stream:
            with suppress(OSError):  # what was buffered can't be written either
                self.stream.close()
            self.stream = None  # as its own close() does; it is opened when it is needed


def start_logging(folder: Path, secrets: Iterable[str] = ()) -> list[logging.Handler]:
    """Log to `serve.log` in this folder and to standard error; the handlers, to be given to `stop_logging`."""
    redacted = Redacted(secrets)
    told = logging.StreamHandler(sys.stderr)
    told.setFormatter(Plain(redacted))
    told.addFilter(lambda record: record.name != "bottega.requests")
    handlers: list[logging.Handler] = [told]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = Patient(folder / "serve.log", maxBytes=MAX_BYTES, backupCount=KEPT, encoding="utf-8", delay=False)
        if os.name != "nt":
            os.chmod(folder, stat.S_IRWXU)
        written.setFormatter(JsonLines(redacted))
        handlers.append(written)
    except OSError as error:
        print(f"bottega: no log is kept: {folder}: {error.strerror}", file=sys.stderr)
    logger = logging.getLogger("bottega")
    logger.setLevel(logging.INFO)
    for handler in handlers:
        logger.addHandler(handler)
    # It would tell in words of its own what is in our log, and at length what a hostile client did wrong.
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    return handlers


def stop_logging(handlers: Iterable[logging.Handler]) -> None:
    """Close what `start_logging` opened."""
    logger = logging.getLogger("bottega")
    for handler in handlers:
        logger.removeHandler(handler)
        handler.close()
