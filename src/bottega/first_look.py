"""The first look through the shelves of a home that no scan has seen: what a server does as it starts."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from bottega.errors import BottegaError, Interrupted
from bottega.library import Catalog
from bottega.settings import STARTER_SHELF, Settings
from bottega.starters import know_starter

log = logging.getLogger(__name__)


class FirstLook:
    """Puts the starter models on record, so that even the first list shows something, and scans a new home's shelves.

    The scan is done on a thread of its own, with the catalog that `catalog` gives there: a server answers meanwhile.
    """

    def __init__(self, settings: Settings, catalog: Callable[[], Catalog]) -> None:
        self._settings = settings
        self._catalog = catalog
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="first-look", daemon=True)

    def start(self) -> None:
        """Begin; answers once the starter models are known."""
        catalog = self._catalog()
        know_starter(catalog)
        if not catalog.holds_more_than(STARTER_SHELF):
            self._thread.start()

    def join(self, timeout: float | None = None) -> None:
        """Wait until it is over."""
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def stop(self) -> None:
        """End with the headers that are being read; a scan goes on from there."""
        self._stop.set()
        self.join()

    def _run(self) -> None:
        from bottega.inspector import COMMAND
        from bottega.library.scan import scan
        from bottega.recognisers import all_recognisers

        catalog = self._catalog()
        shelves = [shelf for shelf in self._settings.all_shelves if shelf.is_dir()]
        try:
            scan(catalog, [*shelves, *catalog.shelves()], all_recognisers(), self._told, inspector=COMMAND)
        except Interrupted:
            return
        except BottegaError as error:
            log.error("shelves: %s", error)

    def _told(self, done: int, total: int) -> None:
        if self._stop.is_set():
            raise Interrupted("stopped", "the next scan goes on from there")
