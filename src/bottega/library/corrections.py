"""What a user can say that a model is, where its header can't tell or tells it wrongly."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from bottega.library.catalog import Catalog
from bottega.spec import Recogniser

KINDS = (
    "checkpoint", "lora", "embedding", "hypernetwork", "vae", "controlnet", "t2i_adapter", "ip_adapter",
    "diffusion_model", "text_encoder", "image_encoder", "motion_module", "upscaler", "language_model", "unknown",
)  # fmt: skip
CATEGORIES = ("base", "full fine-tune", "lightweight fine-tune", "part")


def correctable(catalog: Catalog, recognisers: Sequence[Recogniser]) -> dict[str, Collection[str]]:
    """The kinds, families and categories that a model may be said to be of: those that are known anywhere here."""
    sorts = catalog.sorts()
    return {
        "kind": {*KINDS, *(kind for _, kind, _, _ in sorts)},
        "family": {*(each.id for each in recognisers), *(family for _, _, family, _ in sorts if family)},
        "category": CATEGORIES,
    }
