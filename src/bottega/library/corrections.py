"""What a user can say that a model is, where its header can't tell or tells it wrongly."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import get_close_matches

from bottega.library.catalog import Catalog
from bottega.spec import Recogniser

KINDS = (
    "checkpoint", "lora", "embedding", "hypernetwork", "vae", "controlnet", "t2i_adapter", "ip_adapter",
    "diffusion_model", "text_encoder", "image_encoder", "motion_module", "style_model", "gligen", "photomaker",
    "upscaler", "language_model", "unknown",
)  # fmt: skip
MOST_NAMED = 20
CATEGORIES = ("base", "full fine-tune", "lightweight fine-tune", "part")


def correctable(catalog: Catalog, recognisers: Sequence[Recogniser]) -> dict[str, Collection[str]]:
    """The kinds, families and categories that a model may be said to be of: those that are known anywhere here."""
    sorts = catalog.sorts()
    return {
        "kind": {*KINDS, *(kind for _, kind, _, _ in sorts)},
        "family": {*(each.id for each in recognisers), *(family for _, _, family, _ in sorts if family)},
        "category": CATEGORIES,
    }


def advice(word: str, known: Collection[str]) -> str:
    """What may be said in the place of a word that is not among those that are known."""
    # Looser, and words that only end alike would be taken for what was meant.
    if near := get_close_matches(word.casefold(), known, n=3, cutoff=0.75):
        return f"did you mean {' or '.join(near)}?"
    more = f" ... ({len(known)} in all, see docs/reference.md)" if len(known) > MOST_NAMED else ""
    return f"use one of {', '.join(sorted(known)[:MOST_NAMED])}{more}"
