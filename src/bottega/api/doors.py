"""Which path belongs to which door, and what follows from it: the shape of errors, limits, who is let in."""

from __future__ import annotations

from typing import Literal

Envelope = Literal["native", "openai", "a1111"]

# OpenAI's clients may be given the address with /v1 or without.
_BARE = (
    "/images",
    "/models",
    "/chat",
    "/completions",
    "/responses",
    "/embeddings",
    "/moderations",
    "/audio",
    "/videos",
)
_OPENAI = ("/v1", *_BARE)
_A1111 = ("/sdapi", "/internal", "/controlnet")
# The doors of clients that know nothing of keys; this machine's programs may use them without one.
_OPEN = (*_OPENAI, *_A1111, "/metrics")
_API = ("/api", "/health", *_OPEN)
PUBLIC = ("/health", "/enter", "/favicon.ico", "/api/session")


def within(path: str, prefixes: tuple[str, ...]) -> bool:
    """Whether a path is one of these, or lies below one."""
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes)


def envelope(path: str) -> Envelope:
    """The shape that errors have behind this path."""
    return "openai" if within(path, _OPENAI) else "a1111" if within(path, _A1111) else "native"


def is_api(path: str) -> bool:
    """Whether a program asks here; everything else belongs to the page."""
    return within(path, _API)


def may_be_open(path: str) -> bool:
    """Whether programs of this machine may be let in here without a key."""
    return within(path, _OPEN)


def is_public(path: str) -> bool:
    """Whether this tells nobody's secrets: the page's own files, the way in, and whether the server is well."""
    return path in PUBLIC or within(path, ("/static", "/enter"))


def is_foreign(path: str) -> bool:
    """Whether the clients of other programs ask here, which send pictures inside of JSON."""
    return within(path, (*_OPENAI, *_A1111))


def takes_forms(path: str) -> bool:
    """Whether clients send forms with files here, as OpenAI's do."""
    return within(path, _OPENAI)


def door(path: str) -> str:
    """The name of the door, for counting."""
    for prefix in (*_API, "/static", "/enter"):
        if within(path, (prefix,)):
            return prefix[1:]
    return "page"
