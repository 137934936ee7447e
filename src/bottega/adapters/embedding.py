"""Embeddings (textual inversion): the vectors of new words, in all the layouts in which they are published."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bottega.adapters._fits import FAMILY_OF_CONTEXT, LIGHTWEIGHT, Fit, settle
from bottega.adapters._vectors import ENCODERS, heard, places_of, teach
from bottega.adapters.lora import ROLES
from bottega.events import Note
from bottega.formats.header import Header, shown
from bottega.spec import Adapter, Attachment, Emit, Match

_MOST_VECTORS = 1024  # a prompt holds 75; nobody publishes more
_MOST_BARE_VECTORS = 128  # where nothing but a width tells that they are words
_WIDEST = 16_384  # numbers in a vector
_MOST_TENSORS = 16  # of a library of words in one file

_WIDTHS = (*FAMILY_OF_CONTEXT, 4096)
# Names that a few vectors of some other network would have.
_NO_WORDS = frozenset({
    "weight", "bias", "scale", "mean", "std", "latents_mean", "latents_std", "gamma", "beta", "head", "proj", "pe",
    "pos_embed", "pos_embedding", "pos_embeds", "position_embedding", "position_embeddings", "positional_embedding",
    "cls_token", "class_token", "cls_embedding", "class_embedding", "mask_token", "dist_token", "reg_token",
    "register_tokens", "query_tokens", "latents", "queries", "query", "prompt_embeddings", "prompt_embeds",
    "running_mean", "running_var", "scale_shift_table", "modulation",
})  # fmt: skip


def recognise(header: Header) -> Match | None:
    """The match of a file that holds nothing but a few vectors as wide as a text encoder's."""
    if not 0 < len(header.tensors) <= _MOST_TENSORS:
        return None
    # The original repository keeps the tokens' numbers as tensors too.
    shapes = {name: info.shape for name, info in header.tensors.items() if not name.startswith("string_to_token.")}
    if not shapes or not all(_is_vectors(shape) for shape in shapes.values()):
        return None
    if set(shapes) <= set(ENCODERS):
        return _of_several(header, shapes)
    layout = _layout(shapes)
    widths = {shape[-1] for shape in shapes.values()}
    if layout is None or len(widths) != 1 or (layout not in _CERTAIN and not widths <= set(_WIDTHS)):
        return None
    (width,) = widths
    fit = _fit(width, layout, header)
    vectors = sum(shape[0] if len(shape) == 2 else 1 for shape in shapes.values())
    return _match(layout, {"vectors": vectors, "width": width, "words": len(shapes)}, fit, header)


def _is_vectors(shape: tuple[int, ...]) -> bool:
    return len(shape) in (1, 2) and 1 < shape[-1] <= _WIDEST and (len(shape) == 1 or 0 < shape[0] <= _MOST_VECTORS)


# Names that nothing else has, whatever the width of a text encoder: models need not be of a published size.
_CERTAIN = ("a1111", "emb_params")


def _layout(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Who writes such names: A1111, its safetensors' followers, sd-concepts, or diffusers under any name."""
    if all(name.startswith("string_to_param.") for name in shapes):
        return "a1111"
    if set(shapes) == {"emb_params"}:
        return "emb_params"
    if all(name.startswith("<") and name.endswith(">") for name in shapes):
        return "sd-concepts"
    if len(shapes) == 1 and _is_word(*shapes.items()):
        return "bare"
    return None


def _is_word(lone: tuple[str, tuple[int, ...]]) -> bool:
    """Whether a file's only tensor can be a new word, by a name that no network's tensor has: `style`, `my.tok`."""
    name, shape = lone
    last = name.rpartition(".")[2]
    if name.count(".") > 1 or last in _NO_WORDS or ("." in name and last in ROLES):
        return False
    return shape[-1] in FAMILY_OF_CONTEXT and (len(shape) == 1 or shape[0] <= _MOST_BARE_VECTORS)


def _fit(width: int, layout: str, header: Header) -> Fit:
    """The family of words of one width; several encoders have the width 768, but only SD 1 has no other encoder."""
    family = FAMILY_OF_CONTEXT.get(width)
    why = f"vectors of width {width}"
    if width == 1280:
        why += ", as wide as SD XL's second text encoder"
    if layout == "bare" and family:
        found = settle([family], f"{why} under a name that nobody else uses", header.metadata)
        return Fit(found.family, (*found.because, "only their width tells that they are words"), guess=True)
    return settle([family] if family else [], why, header.metadata)


def _of_several(header: Header, shapes: Mapping[str, tuple[int, ...]]) -> Match | None:
    """An embedding for two or three text encoders: SD XL's, SD 3's or FLUX's."""
    widths = {part: shapes[name][-1] for name, part in ENCODERS.items() if name in shapes and part}
    if not widths:
        return None
    vectors = max(shape[0] if len(shape) == 2 else 1 for shape in shapes.values())
    why = "vectors for text encoders of width " + " and ".join(map(str, widths.values()))
    match sorted(widths.values()):
        case [768]:
            fit = settle(["sd1", "sdxl", "flux"], why, header.metadata)
        case [768, 1280]:
            fit = settle(["sdxl"], why, header.metadata)
        case [1280]:
            fit = settle(["sdxl"], why, header.metadata)
        case [768, 1280, 4096]:
            fit = settle(["sd3"], why, header.metadata)
        case [768, 4096]:
            fit = settle(["flux"], why, header.metadata)
        case [4096]:
            fit = settle(["flux", "sd3", "pixart"], why, header.metadata)
        case _ if {"clip_l", "clip_g"} == set(shapes):  # for SD XL's encoders at another size
            fit = settle(["sdxl"], why, header.metadata)
        case _:
            return None
    return _match("multi-encoder", {"vectors": vectors, "widths": widths}, fit, header)


def _match(layout: str, dimensions: Mapping[str, object], fit: Fit, header: Header) -> Match:
    because = [f"an embedding of {dimensions['vectors']} vectors in the layout {layout}", *fit.because]
    for key, words in (("name", "it calls itself"), ("sd_checkpoint_name", "made on")):
        if told := header.metadata.get(key, "").strip():
            because.append(f"{words} {shown(told)}")
    return Match(
        variant=layout,
        dimensions={**dimensions, "layout": layout},
        because=tuple(because),
        guess=fit.guess,
        kind="embedding",
        category=LIGHTWEIGHT,
        family=fit.family,
        requires=fit.requires,
    )


# --- putting it to work ----------------------------------------------------------------------------------------------


def _words(header: Header) -> dict[str, tuple[int, ...]]:
    """The shapes of a file's tensors that are vectors of words."""
    return {name: info.shape for name, info in header.tensors.items() if not name.startswith("string_to_token.")}


def vectors_in(match: Match) -> int:
    """How many tokens of a prompt an embedding takes."""
    return int(match.dimensions["vectors"])


def unfit(what: Attachment) -> str:
    """Why an embedding does not fit a model, by the widths of its vectors and of the model's text encoders."""
    dimensions = what.match.dimensions
    if dimensions.get("words", 1) > 1:
        return f"it holds {dimensions['words']} words, and a file of one is what can be used"
    if vectors_in(what.match) > _ROOM:
        return f"it has {vectors_in(what.match)} vectors, and {_ROOM} fit into one chunk of a prompt"
    if places_of(_words(what.header), what.base_match):
        return ""
    made_for = sorted(dimensions.get("widths", {}).values()) or [dimensions["width"]]
    widths = heard(what.base_match).values()
    if not widths:
        return "the model has no text encoder of its own"
    return f"its vectors are {_and(made_for)} wide, and the model's text encoder hears {_and(widths)}"


_ROOM = 75  # tokens of one chunk


def _and(widths: Iterable[int]) -> str:
    return " and ".join(map(str, widths))


def attach(pipe: Any, what: Attachment, emit: Emit) -> Callable[[], None]:
    """Teach a loaded model the word that is the use's name.

    Raises FormatError for vectors with numbers that are not finite.
    """
    word, words = what.use.ref.name, _words(what.header)
    places = places_of(words, what.base_match)
    left = sorted(words.keys() - {name for name, _, _ in places.values()})
    if left:
        emit(Note(f"{word}: not used: {', '.join(map(shown, left))}"))
    return teach(pipe, what.header, {word: places}, into=pipe.embeddings)


adapter = Adapter("embedding", "Embeddings (textual inversion)", recognise, attach=attach, unfit=unfit)
