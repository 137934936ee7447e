"""A file at any https address: nothing is known of it but what the user says and what the server answers."""

from __future__ import annotations

from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from bottega.library.sources.client import allowed, shown_url
from bottega.library.sources.offers import Offer, RemoteFile


def offer(text: str, allow_loopback: bool) -> Offer:
    """The file at an address. Raises RefusedAddress for what is none, or none that may be fetched from."""
    url = allowed(text, allow_loopback).url
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    return Offer(
        reference=shown_url(text),
        title=name or shown_url(url),
        files=(RemoteFile(key=f"url {url}", urls=(url,), path=name),),
        source={"site": "url", "url": shown_url(url)},
        page=shown_url(url),
    )
