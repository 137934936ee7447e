"""Hypernetworks: small networks, one for each width of a UNet's keys and values, that change what attention hears."""

from __future__ import annotations

from collections.abc import Mapping

from bottega.adapters._fits import LIGHTWEIGHT, settle
from bottega.formats.header import Header, View, shown
from bottega.spec import Adapter, Match

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


adapter = Adapter("hypernetwork", "Hypernetworks", recognise)
