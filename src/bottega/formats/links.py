"""Where the files of a model may really lie: whoever packed them could otherwise make us read any file by a link."""

from __future__ import annotations

from pathlib import Path

from bottega.errors import FormatError
from bottega.formats.header import shown


def places_of(folder: Path) -> tuple[Path, ...]:
    """Where the files of a folder may lie: in it, or among its blobs in Hugging Face's cache.

    The cache keeps `models--org--name/blobs/<sha256>` and fills `snapshots/<revision>/` with links to them.
    """
    real = folder.resolve()
    inside = next((place for place in (real, *real.parents) if place.parent.name == "snapshots"), None)
    return (real,) if inside is None else (real, inside.parent.parent / "blobs")


def check_place(path: Path, places: tuple[Path, ...]) -> None:
    """FormatError for a file that is not there, or that is a link which leads out of these places."""
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):
        raise FormatError(path, "there is no such file, or a link to none", "download the model again") from None
    if not any(real.is_relative_to(place) for place in places):
        what = f"this link leads out of the model's folder, to {shown(str(real))}"
        raise FormatError(path, what, "put the file itself here if you trust it")
