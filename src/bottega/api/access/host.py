"""Under which names the server answers: a foreign name that is made to lead here (DNS rebinding) gets 421.

Comparing Origin with Host would not help: to the browser of a victim, both are the attacker's name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from bottega.api.access.refusal import Refusal

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?)(?::([0-9]{1,5}))?")


@dataclass(frozen=True)
class Names:
    """The hosts (`name:port`) that are answered, each with the origin of the pages that it serves.

    `any_own_address`: also the address, written as a number, at which a connection came in. No name can be rebound to
    it, because the browser would write the name.
    """

    origins: dict[str, str]
    any_own_address: bool

    def origin(self, host: str | None, server: tuple[str, int | None] | None) -> str:
        """The origin of a page under this Host header. Raises Refusal (421) for a name that is not ours."""
        told = _split((host or "").strip().lower())
        if told:
            name, given = told
            port = 80 if given is None else given
            found = self.origins.get(f"{name}:{port}")
            if found:
                return found
            # Clients leave out the port that is usual, and a proxy that keeps a certificate passes that on as it came.
            secure = f"https://{name}"
            if given is None and self.origins.get(f"{name}:443") == secure:
                return secure
            if self.any_own_address and server and port == server[1] and _same_address(name, server[0]):
                return f"http://{name}" if port == 80 else f"http://{name}:{port}"
        raise Refusal(
            421,
            "this server does not answer under that name",
            "use the address that `bottega serve` printed, or add the name to names in settings.toml",
        )


def names_for(port: int, configured: Sequence[str] = (), bound: Sequence[str] = ()) -> Names:
    """The names of a server on this port: those of this machine, those of the settings, the addresses it is bound to.

    A configured name is `studio.lan` (this port), `studio.lan:8080`, or `https://studio.example` where another program
    keeps the certificate and passes requests on.
    """
    origins = {f"{name}:{port}": _origin("http", name, port) for name in LOOPBACK}
    wide = False
    for address in bound:
        parsed = ip_address(address)
        name = f"[{parsed}]" if parsed.version == 6 else str(parsed)
        if parsed.is_unspecified:
            wide = True
        else:
            origins[f"{name}:{port}"] = _origin("http", name, port)
    for text in configured:
        scheme, name, its_port = parsed_name(text, port)
        origins[f"{name}:{its_port}"] = _origin(scheme, name, its_port)
    return Names(origins, wide)


def parsed_name(text: str, port: int) -> tuple[str, str, int]:
    """A configured name as scheme, host and port; ValueError for what is none."""
    parts = urlsplit(text if "://" in text else f"http://{text}")
    told = _split(parts.netloc.lower())
    if parts.scheme not in ("http", "https") or not told or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(f"{text!r} is no name of a server")
    standard = {"http": 80, "https": 443}[parts.scheme]
    return parts.scheme, told[0], parts.port if parts.port is not None else standard if "://" in text else port


def _split(host: str) -> tuple[str, int | None] | None:
    """The name and the port of a host; None for a port that is not told."""
    found = _HOST.fullmatch(host)
    return (found[1], int(found[2]) if found[2] else None) if found else None


def _origin(scheme: str, name: str, port: int) -> str:
    return f"{scheme}://{name}" if port == {"http": 80, "https": 443}[scheme] else f"{scheme}://{name}:{port}"


def _same_address(name: str, address: str) -> bool:
    try:
        return ip_address(name.strip("[]")) == ip_address(address)
    except ValueError:
        return False
