"""Which addresses may be connected to: public ones. A name is looked up once, and what it leads to is checked.

The ranges are IANA's special-purpose registries; Python's `is_global` changed its mind between releases.
https://www.iana.org/assignments/iana-ipv4-special-registry, https://www.iana.org/assignments/iana-ipv6-special-registry
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from bottega.library.sources.errors import RefusedAddress, Unreachable

# Private networks, this machine, link-local (cloud metadata lives there), carrier-grade NAT, tests, multicast, future.
_NOT_PUBLIC_4 = tuple(map(IPv4Network, (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
    "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
)))  # fmt: skip
_PUBLIC_6 = IPv6Network("2000::/3")
# Teredo and its neighbours, documentation, 6to4: the first and the last carry an IPv4 address of anybody's choice.
_NOT_PUBLIC_6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "2620:4f:8000::/48")))
_NAT64 = IPv6Network("64:ff9b::/96")  # the last four bytes are the IPv4 address that is really meant

Resolve = Callable[[str, int], list[str]]


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address belongs to the public internet, whatever it is wrapped in."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    if address.ipv4_mapped:
        return is_public(address.ipv4_mapped)
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _PUBLIC_6 and not any(address in network for network in _NOT_PUBLIC_6)


def look_up(host: str, port: int) -> list[str]:
    """The addresses of a name, each once, in the order in which the system would try them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def spelled_out(host: str) -> list[str]:
    """The addresses that a host means without being looked up; none for a name, which only a look-up can tell.

    `127.1`, `0x7f.1` and `2130706433` are spellings of 127.0.0.1 to whatever asks the C library, as many proxies do.
    """
    bare = host.rstrip(".").lower()
    if re.search(r"(^|\.)(ip6-)?localhost(\.localdomain)?$", bare):
        return ["127.0.0.1", "::1"]
    try:
        return [str(ip_address(bare))]
    except ValueError:
        pass
    try:
        return [str(IPv4Address(socket.inet_aton(bare)))]
    except (OSError, ValueError):
        return []


def checked_addresses(host: str, port: int, resolve: Resolve, allow_loopback: bool) -> list[str]:
    """The addresses of a host, all of them fit to be connected to.

    A name that leads to a public and to another address is refused as a whole: that is how names are rebound.
    Raises RefusedAddress, or Unreachable if there is no such name.
    """
    try:
        found = resolve(host, port)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Unreachable(f"{host}: no address of it is known ({reason})", "check the name and the network") from None
    for text in found:
        address = ip_address(text)
        if not is_public(address) and not (allow_loopback and address.is_loopback):
            where = text if text == host else f"{host}, which is {text} here,"
            raise RefusedAddress(
                f"{where} is no public address", "models are fetched from the internet only; copy the file by hand"
            )
    if not found:
        raise Unreachable(f"{host}: no address of it is known", "check the name and the network")
    return found
