"""Which of a file's vectors stand for a word in which text encoder of a model, and how a loaded model learns them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from bottega.errors import FormatError
from bottega.formats.header import Header
from bottega.spec import Match

# Names for the vectors of one text encoder, in files for several.
ENCODERS: Mapping[str, str] = {
    "clip_l": "text_encoder", "clip_g": "text_encoder_2", "t5xxl": "text_encoder_3", "t5": "text_encoder_3",
    "text_encoders_0": "text_encoder", "text_encoders_1": "text_encoder_2",
    "clip_l_out": "", "clip_g_out": "", "t5_out": "", "t5xxl_out": "",
}  # fmt: skip
_REFINER = "refiner"  # the variant of a model that only has the second of its family's text encoders
_BUNDLED = "bundle_emb."

Places = Mapping[str, tuple[str, int, int]]  # by the part: a tensor, and from where to where in its rows


def heard(base: Match) -> dict[str, int]:
    """The width of each text encoder of a model, in the order in which its UNet hears them."""
    dimensions = base.dimensions
    return {part: dimensions[part]["width"] for part in sorted(dimensions) if part.startswith("text_encoder")}


def places_of(shapes: Mapping[str, tuple[int, ...]], base: Match) -> Places:
    """Where the vectors for each text encoder of a model are among those of one word.

    Empty for what does not fit: vectors of another width, or for encoders that the model has not.
    """
    widths = heard(base)
    if set(shapes) <= set(ENCODERS):
        parts = {part: name for name, part in ENCODERS.items() if part and name in shapes}
        if base.variant == _REFINER:
            parts = {part: name for part, name in parts.items() if part in widths}
        if any(shapes[name][-1] != widths.get(part) for part, name in parts.items()):
            return {}
        return {part: (name, 0, widths[part]) for part, name in parts.items()}
    if len(shapes) != 1 or not widths:
        return {}
    ((name, shape),) = shapes.items()
    if shape[-1] != sum(widths.values()):
        return {}
    found, begin = {}, 0
    for part, width in widths.items():
        found[part] = name, begin, begin + width
        begin += width
    return found


def bundled(header: Header, base: Match) -> dict[str, Places]:
    """The words that a LoRA brings along (`bundle_emb.word.clip_l`), as far as they fit a model."""
    words: dict[str, dict[str, str]] = {}
    for name in header.tensors:
        if name.startswith(_BUNDLED):
            word, _, key = name.removeprefix(_BUNDLED).partition(".")
            words.setdefault(word, {})[key] = name
    found: dict[str, Places] = {}
    for word, names in words.items():
        shapes = {key: header.tensors[name].shape for key, name in names.items()}
        if word and all(shapes.values()) and (places := places_of(shapes, base)):
            found[word] = {part: (names[key], begin, end) for part, (key, begin, end) in places.items()}
    return found


def teach(
    pipe: Any, header: Header, words: Mapping[str, Places], *, into: MutableMapping[str, Any]
) -> Callable[[], None]:
    """Have a loaded model know words by vectors of a file, in one of the mappings of its embeddings; what ends that.

    Raises FormatError for vectors with numbers that are not finite.
    """
    from bottega.runtime.weights import read_vectors

    try:
        learnt = {
            word: {part: read_vectors(header, name, begin, end) for part, (name, begin, end) in places.items()}
            for word, places in words.items()
        }
    except ValueError as error:
        raise FormatError(header.path, str(error), "get the file again, or leave it out") from None
    into.update(learnt)
    _heard_anew(pipe, learnt)

    def forget() -> None:
        for word, vectors in learnt.items():
            if into.get(word) is vectors:
                del into[word]
        _heard_anew(pipe, learnt)

    return forget


def _heard_anew(pipe: Any, words: Mapping[str, Any]) -> None:
    """Keep nothing that was encoded: the same words may stand for something else than before."""
    if words and pipe.prompts is not None:
        pipe.prompts.forget()
