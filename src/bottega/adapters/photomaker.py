"""PhotoMaker: photos of a person become a word of a prompt, with a LoRA that belongs to it."""

from __future__ import annotations

from bottega.adapters._fits import PART
from bottega.formats.header import Header
from bottega.spec import CHECKPOINT_OF_FAMILY, Adapter, Match

# Its image encoder answers in SD XL's two text widths: CLIP ViT-L's own, and a second projection of PhotoMaker's.
_PROJECTION = "visual_projection_2.weight"
# What tells it, and what that begins with.
_SIGNS = {
    f"id_encoder.{_PROJECTION}": "id_encoder.",
    "id_encoder.fuse_module.mlp1.fc1.weight": "id_encoder.",
    _PROJECTION: "",
}
_SECOND = "qformer_perceiver.token_norm.weight"


def recognise(header: Header) -> Match | None:
    """The match of PhotoMaker's encoder, with its LoRA (as published) or without it."""
    prefix = next((prefix for sign, prefix in _SIGNS.items() if sign in header.tensors), None)
    if prefix is None:
        return None
    second = prefix + _SECOND in header.tensors
    lora = "lora_weights" in header.roots
    requires = [CHECKPOINT_OF_FAMILY["sdxl"]]
    if second:
        requires.append("a face recognition model of 512 numbers (InsightFace)")
    because = ["an image encoder with a second projection, to be fused with a word: PhotoMaker's"]
    because.append("a perceiver of faces: version 2" if second else "no perceiver of faces: version 1")
    if not lora:
        because.append("its LoRA is not in it")
    return Match(
        variant="v2" if second else "v1",
        dimensions={"width": header.under(prefix).size(_PROJECTION, 0), "lora": lora},
        parts={"id_encoder": prefix} | ({"lora": "lora_weights."} if lora else {}),
        because=tuple(because),
        kind="photomaker",
        category=PART,
        family="sdxl",
        requires=tuple(requires),
    )


adapter = Adapter("photomaker", "PhotoMaker", recognise)
