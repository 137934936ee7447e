"""Our recipe as XMP, the one metadata block that JPEG and WebP share, any tool can list and editors keep.

XMP parts 1 and 3 (ISO 16684). A packet of ours is read with two searches and not with an XML parser: entities and
nesting, which make XML dangerous, don't occur in it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping

FIELDS = ("recipe", "parameters")
_NAMESPACE = "urn:bottega:1#"
_NOTE_NAMESPACE = "http://ns.adobe.com/xmp/note/"


def write(texts: Mapping[str, str], extension: str | None = None) -> bytes:
    """A packet with these texts (under names out of FIELDS), or one that names its extension instead."""
    note = f' xmlns:xmpNote="{_NOTE_NAMESPACE}" xmpNote:HasExtendedXMP="{extension}"' if extension else ""
    elements = "".join(f"<bottega:{name}>{_escape(text)}</bottega:{name}>" for name, text in texts.items())
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmlns:bottega="{_NAMESPACE}"{note}>{elements}</rdf:Description>'
        "</rdf:RDF></x:xmpmeta>"
    )
    return packet.encode("utf-8")


def read(packet: bytes) -> dict[str, str]:
    """The texts of ours in a packet, if any."""
    texts = {}
    for name in FIELDS:
        opening, closing = f"<bottega:{name}>".encode(), f"</bottega:{name}>".encode()
        start, end = packet.find(opening), packet.find(closing)
        if 0 <= start < end:
            texts[name] = html.unescape(packet[start + len(opening) : end].decode("utf-8", "replace"))
    return texts


def extension_of(packet: bytes) -> str | None:
    """The name (an MD5 in hex) under which a JPEG keeps the rest of this packet, if it says so."""
    named = re.search(rb"xmpNote:HasExtendedXMP(?:=[\"']|>)([0-9A-F]{32})", packet)
    return named[1].decode() if named else None


def _escape(text: str) -> str:
    # A bare carriage return would become a line feed in any XML reader.
    return html.escape(text, quote=False).replace("\r", "&#13;")
