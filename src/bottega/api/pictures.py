"""Pictures that a request names by their address: fetched from public https:// sites only, where that is allowed."""

from __future__ import annotations

import logging
import re
import threading
from functools import lru_cache

from bottega.errors import FieldProblem, InvalidRecipe
from bottega.library.sources.client import HEADERS_WITHIN, Client, client_for
from bottega.library.sources.errors import NetworkError
from bottega.settings import Settings

LOG = logging.getLogger("bottega.server")

MOST_BYTES = 32 << 20
AT_ONCE = 4  # fetches; each may take a thread for a minute

_ADDRESS = re.compile(r"\s*https?://", re.IGNORECASE)
_fetching = threading.BoundedSemaphore(AT_ONCE)


def is_address(text: str) -> bool:
    """Whether a text names a picture instead of being one."""
    return _ADDRESS.match(text) is not None


def fetched(url: str, field: str, settings: Settings) -> bytes:
    """What lies at an address, at most 32 MiB; blocks for a minute at most.

    Every name and every redirect on the way is checked as for models: encrypted, on the public internet, no password.
    Raises InvalidRecipe for this field, which does not say why: else one could look around in the server's network.
    """
    if not settings.fetch_pictures:
        raise _problem(
            field, "names an address", "send the picture itself, or set fetch_pictures = true in settings.toml"
        )
    if not _fetching.acquire(blocking=False):
        raise _problem(field, "can't be fetched now: others are being fetched", "try again")
    try:
        return _whole(_client(settings), url.strip())
    except NetworkError as error:
        LOG.info("a picture was not fetched: %s", error.what)
        raise _problem(field, "could not be fetched from that address", "send the picture itself") from None
    finally:
        _fetching.release()


def _whole(client: Client, url: str) -> bytes:
    with client.get(url, {"Accept": "image/png, image/jpeg, image/webp"}, body_within=HEADERS_WITHIN) as response:
        if response.status != 200:
            raise NetworkError(f"{response.url}: answered {response.status}")
        content = bytearray()
        while part := response.read(1 << 16):
            content += part
            if len(content) > MOST_BYTES:
                raise NetworkError(f"{response.url}: the answer is larger than {MOST_BYTES >> 20} MiB")
        return bytes(content)


@lru_cache(maxsize=1)
def _client(settings: Settings) -> Client:
    return client_for(settings)


def _problem(field: str, what: str, remedy: str) -> InvalidRecipe:
    return InvalidRecipe([FieldProblem(field, what, remedy)])
