"""What a server does for its gallery while it starts to answer: old trash goes, new files are taken in."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import asdict

from bottega.errors import BottegaError, Interrupted
from bottega.gallery.index import Gallery

log = logging.getLogger(__name__)


class Upkeep:
    """Empties the trash of what lies there for `trash_seconds`, and adopts the outputs folder, on a thread of its own.

    It begins after `delay` seconds: whoever waits for a server that starts wants a page first. `owner_of` is as in
    `Gallery.adopt`. What goes wrong is logged: nobody waits for it.
    """

    def __init__(
        self, gallery: Gallery, trash_seconds: float, owner_of: Callable[[str], str], delay: float = 3.0
    ) -> None:
        self._gallery = gallery
        self._trash_seconds = trash_seconds
        self._owner_of = owner_of
        self._delay = delay
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gallery-upkeep", daemon=True)

    def start(self) -> None:
        """Begin; answers at once."""
        self._thread.start()

    def join(self) -> None:
        """Wait until it is done."""
        if self._thread.ident is not None:
            self._thread.join()

    def stop(self) -> None:
        """End with the files that are being read; the rest is done at the next start."""
        self._stop.set()
        self.join()

    def _run(self) -> None:
        if self._stop.wait(self._delay):
            return
        try:
            emptied = self._gallery.empty_trash(self._trash_seconds, told=self._told)
            adopted = self._gallery.adopt(self._gallery.folder, self._told, self._owner_of)
            self._gallery.tidy_thumbnails()
        except Interrupted:
            return
        except BottegaError as error:
            log.error("gallery: %s", error)
        else:
            told = {"out of the trash": emptied, **asdict(adopted), "files": 0}
            if what := ", ".join(f"{count} {name}" for name, count in told.items() if count):
                log.info("gallery: %s", what)

    def _told(self, done: int, total: int) -> None:
        if self._stop.is_set():
            raise Interrupted("stopped", "the rest is done at the next start")
