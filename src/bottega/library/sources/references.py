"""From what a user writes to what a site offers: `civitai:123`, `hf:org/name`, the address of a page or of a file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace

from bottega.library.sources import civitai, huggingface, url
from bottega.library.sources.client import Client, shown_url
from bottega.library.sources.errors import BadReference, Refused
from bottega.library.sources.offers import Choice, Offer
from bottega.library.sources.tokens import site
from bottega.settings import Settings


def look_up(
    client: Client, settings: Settings, text: str, choice: Choice, environment: Mapping[str, str] = os.environ
) -> Offer:
    """What a reference offers. Raises what `read` and its site raise."""
    text = text.strip()
    if choice.sha256 and not re.fullmatch("[0-9a-f]{64}", choice.sha256):
        raise BadReference(f"{choice.sha256!r} is no SHA-256", "it has 64 digits from 0 to 9 and a to f")
    match meant := read(text, settings):
        case civitai.Reference():
            offered = civitai.offer(client, site("civitai", settings, environment), text, meant, choice)
        case huggingface.Reference():
            offered = huggingface.offer(client, site("huggingface", settings, environment), text, meant, choice)
        case _:
            offered = meant
    offered = replace(offered, reference=shown_reference(text))
    return _with_sha256(offered, choice.sha256) if choice.sha256 else offered


def read(text: str, settings: Settings) -> civitai.Reference | huggingface.Reference | Offer:
    """What a reference means, without asking anybody; of an address elsewhere nothing more can be known beforehand.

    Raises BadReference or RefusedAddress for one that can never be fetched.
    """
    try:
        meant = civitai.read_reference(text, settings.civitai_url) or huggingface.read_reference(
            text, settings.huggingface_url
        )
    except ValueError:
        what = f"{shown_reference(text)}: this is no address of a file"
        raise BadReference(what, "write it as https://SITE/FILE") from None
    if meant:
        return meant
    if "://" in text:
        return url.offer(text, settings.allow_loopback)
    raise BadReference(
        f"{text!r} is no reference", "write civitai:MODEL[@VERSION], hf:ORG/NAME[/FILE] or an https:// address"
    )


def shown_reference(text: str) -> str:
    """A reference as it may be shown and kept: an address without its query, which may hold a key."""
    return shown_url(text) if "://" in text else text


def _with_sha256(offer: Offer, sha256: str) -> Offer:
    """The offer with what the user says its bytes must be; where its site says otherwise one of them is wrong."""
    if offer.is_folder:
        raise BadReference(f"{offer.title}: it is a folder, which has no SHA-256", "leave the SHA-256 out")
    (file,) = offer.files
    if (told := file.hashes.get("sha256")) and not sha256.startswith(told):
        raise Refused(f"{file.path}: its site says that its SHA-256 is {told}", "check the one that you gave")
    return replace(offer, files=(replace(file, hashes={**file.hashes, "sha256": sha256}),))
