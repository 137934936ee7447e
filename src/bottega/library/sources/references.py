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
    """What a reference offers. Raises BadReference for one that means nothing, and what its site raises."""
    text = text.strip()
    if choice.sha256 and not re.fullmatch("[0-9a-f]{64}", choice.sha256):
        raise BadReference(f"{choice.sha256!r} is no SHA-256", "it has 64 digits from 0 to 9 and a to f")
    if at_civitai := civitai.read_reference(text, settings.civitai_url):
        offered = civitai.offer(client, site("civitai", settings, environment), text, at_civitai, choice)
    elif at_hub := huggingface.read_reference(text, settings.huggingface_url):
        offered = huggingface.offer(client, site("huggingface", settings, environment), text, at_hub, choice)
    elif "://" in text:
        offered = url.offer(text)
    else:
        raise BadReference(
            f"{text!r} is no reference", "write civitai:MODEL[@VERSION], hf:ORG/NAME[/FILE] or an https:// address"
        )
    offered = replace(offered, reference=shown_reference(text))
    return _with_sha256(offered, choice.sha256) if choice.sha256 else offered


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
