"""Names of tensors without the wrappers that a network was in when it was saved: those of torch, and of training.

A wrapped network computes the same, and whoever tells or loads it looks for the names that it has by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from bottega.formats.header import Header, LaidOut, TensorInfo
from bottega.formats.layout import Layout, once_a_layout

# torch.compile and FSDP, which wrap blocks too: nothing else has such names, wherever they stand.
_ANYWHERE = re.compile(r"(^|[./])((?:(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.)+)")
_FLAT = "__orig_mod_"  # torch.compile's in kohya's names
_SIGNS = ("module.", "_orig_mod")

# Words that others use too: wrappers only where all of a network, or all of a file, lies under them.
_NETWORKS = (
    "model.diffusion_model.", "diffusion_model.", "unet.", "transformer.", "base_model.model.", "first_stage_model.",
    "vae.", "model.",
)  # fmt: skip
_OF_A_NETWORK = "module."  # DistributedDataParallel
_OF_A_FILE = ("module.", "ema.", "state_dict.")
# What lies right under `model.` only where all of a file was put there: a checkpoint's parts, an autoencoder's ends.
_WHOLE = tuple(
    f"model.{name}"
    for name in (
        "model.diffusion_model.", "first_stage_model.", "cond_stage_model.", "conditioner.", "encoder.conv_in.",
        "decoder.conv_in.",
    )
)  # fmt: skip
_DEEPEST = 4  # wrappers around wrappers; a hostile file can have any number

# Bark's own files were saved so, which tells its stages from GPT-2.
_PUBLISHED_SO = ("_orig_mod.transformer.wte.weight", "_orig_mod.transformer.wtes.0.weight")


def unwrapped(header: Header) -> Header:
    """The same tensors under the names that they have without wrappers, if there are any; bytes stay where they are."""
    found = _unwrapped(header.layout)
    if found is None:
        return header
    names, wrappers = found
    tensors = header.tensors
    stored = dict(zip(names, tensors, strict=True))
    plain: Mapping[str, TensorInfo] = {name: tensors[inside] for name, inside in stored.items()}
    if isinstance(tensors, LaidOut):
        rows = zip(names, tensors.layout.rows.values(), strict=True)
        plain = tensors.laid_out(Layout(dict(rows)))
    return replace(header, tensors=plain, wrappers=wrappers, stored_names=stored)


@once_a_layout
def _unwrapped(layout: Layout) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """The names without wrappers, in their order, and the wrappers; None if there are none."""
    if not _may_be_wrapped(layout) or any(name in layout.rows for name in _PUBLISHED_SO):
        return None
    names, wrappers = list(layout.rows), set[str]()
    for at, name in enumerate(names):
        wrappers.update(f"{word}." for match in _ANYWHERE.finditer(name) for word in match[2].split(".")[:-1])
        if _FLAT in name:
            wrappers.add("_orig_mod_")
        names[at] = _ANYWHERE.sub(r"\1", name).replace(_FLAT, "_")
    for _ in range(_DEEPEST):
        if (found := next(_around(names), None)) is None:
            break
        before, wrapper = found
        wrappers.add(wrapper)
        whole = before + wrapper
        names = [before + name[len(whole) :] if name.startswith(whole) else name for name in names]
    # Of two copies the names alone tell which is which.
    if not wrappers or "" in names or len(set(names)) < len(names):
        return None
    return tuple(names), tuple(sorted(wrappers))


def _may_be_wrapped(layout: Layout) -> bool:
    """Whether it is worth while to look at each name: nearly all files have no wrapper."""
    if len(layout.roots) == 1 and f"{next(iter(layout.roots))}." in (*_OF_A_FILE, "model."):
        return True
    names = "\n".join(layout.rows)
    return any(sign in names for sign in _SIGNS)


def _around(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What stands before a wrapper, and the wrapper, where everything that begins so goes on with it."""
    for wrapper in _OF_A_FILE:
        if all(name.startswith(wrapper) for name in names):
            yield "", wrapper
    if any(name.startswith(_WHOLE) for name in names) and all(name.startswith("model.") for name in names):
        yield "", "model."
    for network in _NETWORKS:
        inside = [name for name in names if name.startswith(network)]
        if inside and all(name.startswith(network + _OF_A_NETWORK) for name in inside):
            yield network, _OF_A_NETWORK
