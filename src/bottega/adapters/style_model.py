"""Style models: they turn what an image encoder saw into words of a prompt (FLUX Redux, the T2I style adapter)."""

from __future__ import annotations

from bottega.adapters._fits import PART, lone_part
from bottega.formats.header import Header
from bottega.spec import CHECKPOINT_OF_FAMILY, Adapter, Match

_ENCODER_OF_WIDTH = {1152: "the image encoder SigLIP SO400M", 1024: "a CLIP ViT-L image encoder"}


def recognise(header: Header) -> Match | None:
    """The match of Redux, or of the style adapter that T2I-Adapter published."""
    view = header.under(lone_part(header))
    if "redux_up.weight" in view and "redux_down.weight" in view:
        seen, heard = view.size("redux_up.weight", -1), view.size("redux_down.weight", 0)
        variant, family, because = "redux", "flux", "two layers called redux"
    elif "style_embedding" in view and "proj" in view:
        seen, heard = view.size("ln_pre.weight", 0), view.size("proj", -1)
        variant, family, because = "t2i-style", "sd1", "style embeddings and a projection: T2I-Adapter's style model"
    else:
        return None
    requires = [CHECKPOINT_OF_FAMILY[family]]
    if seen in _ENCODER_OF_WIDTH:
        requires.append(_ENCODER_OF_WIDTH[seen])
    return Match(
        variant=variant,
        dimensions={"image_width": seen, "text_width": heard},
        because=(because, f"from an image encoder of width {seen} to text of width {heard}"),
        kind="style_model",
        category=PART,
        family=family,
        requires=tuple(requires),
    )


adapter = Adapter("style_model", "Style models", recognise)
