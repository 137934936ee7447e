"""Which pages may ask: this server's own. What another page sends with a user's cookie is refused with 403."""

from __future__ import annotations

from bottega.api.access.refusal import NotAllowed

_OWN = "open Bottega's own page, or use a program with a key"


def check_origin(
    *,
    reading: bool,
    visiting: bool,
    own: str,
    origin: str | None,
    fetch_site: str | None,
    fetch_mode: str | None,
    with_cookie: bool,
) -> None:
    """Raise NotAllowed for a request that another site's page made.

    `reading` is a GET or HEAD, which changes nothing; `visiting`: it asks for a page, to which other sites may link.
    `own` is the origin of the server's pages. A browser tells where a request comes from (`Origin`, `Sec-Fetch-Site`),
    a program need not; a cookie alone is not enough to change something, because browsers send it by themselves.
    """
    if reading:
        if origin is not None and origin != own:
            raise NotAllowed("this page belongs to another site", _OWN)
        foreign = fetch_site in ("cross-site", "same-site")
        if foreign and not (visiting and fetch_mode == "navigate"):
            raise NotAllowed("another site's page asked for this", _OWN)
        return
    if origin is None:
        if with_cookie:
            raise NotAllowed("it is not known which page sent this (no Origin header)", _OWN)
    elif origin != own:
        raise NotAllowed("another site's page sent this", _OWN)
    if fetch_site is not None and fetch_site != "same-origin":
        raise NotAllowed("another site's page sent this", _OWN)
