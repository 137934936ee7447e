"""Tiny model files and families for the tests of the library."""

from __future__ import annotations

from pathlib import Path

from bottega.formats import safetensors
from bottega.formats.header import Header
from bottega.spec import Family, Match


def write_model(
    path: Path, colour: str = "red", *, width: int = 2, fill: int = 0, metadata: dict[str, str] | None = None
) -> Path:
    """A model of the family `colour`; another `fill` gives other bytes in a file of the same size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = [
        (f"{colour}.unet.weight", "F16", (width, width), bytes([fill]) * (2 * width * width)),
        (f"{colour}.vae.weight", "F32", (width,), bytes(4 * width)),
    ]
    safetensors.write(path, tensors, metadata)
    return path


def small_family(colour: str) -> Family:
    """A family that knows its models by the colour in the names of their tensors."""

    def recognise(header: Header) -> Match | None:
        view = header.under(f"{colour}.")
        if not view:
            return None
        width = view.size("unet.weight", 0)
        parts = {"unet": f"{colour}.unet.", "vae": f"{colour}.vae."}
        return Match("base", {"unet": {"width": width}}, parts, (f"its tensors are called {colour}",))

    return Family(colour, colour.title(), "image", recognise, _never, {}, _no_defaults, (), _never)


def _never(*_: object) -> None:
    raise AssertionError("the library must not run models")


def _no_defaults(*_: object) -> dict[str, object]:
    return {}


RED, BLUE = small_family("red"), small_family("blue")
FAMILIES = (RED, BLUE)
