"""Hypernetworks: small networks, one for each width of a UNet's keys and values, that change what attention hears."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bottega.adapters._fits import LIGHTWEIGHT, settle
from bottega.errors import FormatError
from bottega.events import Note
from bottega.formats.header import Header, View, shown
from bottega.spec import CHECKPOINT_OF_FAMILY, Adapter, Attachment, Emit, Match

# The widths that cross-attention hears; self-attention's (320, 640, 1280) are the same in every family.
_FAMILY_OF_SIZE: Mapping[int, str] = {768: "sd1", 1024: "sd2", 2048: "sdxl"}
_LONGEST_NUMBER = 5
_TOLD = ("layer_structure", "activation_func", "is_layer_norm", "activate_output", "last_layer_dropout")


def recognise(header: Header) -> Match | None:
    """The match of a file whose tensors lie under widths: `768.0` changes keys, `768.1` values."""
    first = next(iter(header.tensors), "")
    if not _is_number(first.partition(".")[0]) or not all(map(_is_number, header.roots)):
        return None
    sizes = sorted(int(root) for root in header.roots)
    layouts = {_layout(header.under(f"{size}.{half}."), size) for size in sizes for half in (0, 1)}
    if len(layouts) != 1 or None in layouts:
        return None
    (structure,) = layouts
    families = [family for size, family in _FAMILY_OF_SIZE.items() if size in sizes]
    fit = settle(families or ["sd1", "sd2"], f"networks for the widths {', '.join(map(str, sizes))}", header.metadata)
    told = {key: header.metadata[key] for key in _TOLD if key in header.metadata}
    because = ["pairs of small networks, one of a pair for keys and one for values", *fit.because]
    because += [f"{key} is {shown(value)}" for key, value in told.items()]
    if checkpoint := header.metadata.get("sd_checkpoint_name", "").strip():
        because.append(f"made on {shown(checkpoint)}")
    return Match(
        variant="",
        dimensions={"sizes": sizes, "structure": structure, **told},
        because=tuple(because),
        guess=fit.guess,
        kind="hypernetwork",
        category=LIGHTWEIGHT,
        family=fit.family,
        requires=fit.requires,
    )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _LONGEST_NUMBER


def _layout(half: View, size: int) -> tuple[float, ...] | None:
    """The widths of one network's layers as multiples of `size`, from the input on; None if it is no such network."""
    layers = sorted(
        (int(words[1]), name)
        for name in half.names
        if len(words := name.split(".")) == 3 and words[0] == "linear" and words[2] == "weight" and _is_number(words[1])
    )
    names = [name for _, name in layers] or [name for name in ("linear1.weight", "linear2.weight") if name in half]
    widths = [size]
    for name in names:
        shape = half.shape(name)
        if shape is None or len(shape) > 2 or (len(shape) == 2 and shape[1] != widths[-1]):
            return None
        if len(shape) == 2:  # a norm between the layers has one axis and changes no width
            widths.append(shape[0])
    return tuple(width / size for width in widths) if size and len(widths) > 1 and widths[-1] == size else None


# --- putting it to work ----------------------------------------------------------------------------------------------


def _widths(what: Attachment) -> tuple[int, set[int]]:
    """How wide the text is that a model's attention hears, and how wide the pictures' parts are that do."""
    unet = what.base_match.dimensions["unet"]
    levels = zip(unet["channels"], unet["down"], strict=True)
    own = {width for width, depths in levels if any(depths)}
    return unet["context"], own | ({unet["channels"][-1]} if unet["middle"] else set())


def unfit(what: Attachment) -> str:
    """Why a hypernetwork does not fit a model, by the widths of what its networks and the model's attention hear."""
    context, own = _widths(what)
    sizes = set(what.match.dimensions["sizes"])
    others = sorted(size for size in sizes & _FAMILY_OF_SIZE.keys() if size != context)
    if others and context not in sizes:
        whose = CHECKPOINT_OF_FAMILY[_FAMILY_OF_SIZE[others[0]]]
        return f"it hears text of width {others[0]}, as {whose} does, and this model's is {context} wide"
    if not sizes & {context, *own}:
        heard = ", ".join(map(str, sorted({context, *own})))
        return f"it has networks for the widths {', '.join(map(str, sorted(sizes)))}, and this model has {heard}"
    return ""


def attach(pipe: Any, what: Attachment, emit: Emit) -> Callable[[], None]:
    """Have the attention of a loaded model hear what the networks make of its keys' and values' input.

    Raises FormatError for networks that are not built as the file says.
    """
    from bottega.runtime import hypernetworks
    from bottega.runtime.weights import MappedTensors

    context, own = _widths(what)
    use, sizes = what.use, what.match.dimensions["sizes"]
    if left := [size for size in sizes if size not in {context, *own}]:
        emit(Note(f"{use.ref.name}: not used: its networks for the width {', '.join(map(str, left))}"))
    stored = MappedTensors(what.header)
    try:
        options = hypernetworks.read_options(what.header.metadata, what.match.dimensions["structure"])
        pairs = {
            size: hypernetworks.build(
                {name: stored[f"{size}.{name}"] for name in what.header.under(f"{size}.").names},
                options,
                size,
                pipe.place.torch_device,
            )
            for size in sizes
            if size not in left
        }
    except ValueError as error:
        raise FormatError(what.header.path, str(error), "get the file again, or leave it out") from None

    def works() -> bool:
        return bool(use.start <= pipe.share and (pipe.share < use.end or use.end >= 1))

    detach: Callable[[], None] = hypernetworks.attach(pipe.unet, pairs, use.strength("unet"), works)
    return detach


def weigh(what: Attachment, dtypes: Mapping[str, str]) -> dict[str, int]:
    """The bytes of its networks, which compute in float32."""
    return {f"{what.use.kind} {what.use.ref.sha256}": 4 * what.header.parameters}


adapter = Adapter("hypernetwork", "Hypernetworks", recognise, attach=attach, unfit=unfit, weigh=weigh)
