"""Whether a whole model was made from another one, by training all of it or by merging: where something says so."""

from __future__ import annotations

from collections.abc import Mapping

from bottega.library.about import About
from bottega.library.about.facts import parsed

FULL = "full fine-tune"
_RECIPE, _MERGED_FROM, _OURS = "sd_merge_recipe", "modelspec.merged_from", "bottega.merge"
_TRAINED = ("bottega.training", "ss_")  # how the entries begin that a trainer leaves


def made_from_another(metadata: Mapping[str, str], told: About) -> str:
    """The evidence that a model was made from another one, in words; empty where there is none."""
    if _is_merged(metadata):
        return "its metadata tells of which models it was merged"
    if any(name.startswith(_TRAINED) for name in metadata):
        return "its metadata tells how it was trained"
    if how := told.extra.get("made by"):
        return f"its card says that it was made by {how}"
    return ""


def _is_merged(metadata: Mapping[str, str]) -> bool:
    """A merge of one model alone is that model, with another VAE or dtype, unless a LoRA went into it."""
    if _RECIPE not in metadata:
        return bool(metadata.get(_MERGED_FROM, "").strip())
    alone = parsed(metadata[_RECIPE]).get("interp_method") == "No interpolation"
    return not alone or bool(parsed(metadata.get(_OURS)).get("loras"))
