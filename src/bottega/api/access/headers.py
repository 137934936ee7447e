"""What every answer tells the browser: no foreign frames, no guessed types, no inline script, nothing kept."""

from __future__ import annotations

PAGE_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; img-src 'self' data: blob:; media-src 'self' blob:; connect-src 'self'"
)
# Of what users made or sent: nothing in it runs, even where a browser shows it by itself.
DATA_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"

_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)

Headers = list[tuple[bytes, bytes]]


def secured(headers: Headers, *, page: bool, request_id: str) -> Headers:
    """The headers of an answer with those that each must have; what a route set itself stays, but for its policy.

    `page`: it belongs to the page (HTML, styles, scripts), else it is data.
    """
    told = {name.lower() for name, _ in headers}
    policy = PAGE_POLICY if page else DATA_POLICY
    headers = [(name, value) for name, value in headers if name.lower() != b"content-security-policy"]
    headers += [header for header in _ALWAYS if header[0] not in told]
    headers.append((b"content-security-policy", policy.encode()))
    headers.append((b"x-request-id", request_id.encode()))
    if not page and b"cache-control" not in told:
        headers.append((b"cache-control", b"no-store"))
    return headers
