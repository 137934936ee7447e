"""Read models: what one is, from its header, and why it is refused where it can't be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from bottega.errors import BottegaError, DangerousModel
from bottega.formats import Header, read_header
from bottega.formats.sniff import open_regular
from bottega.library.about import about
from bottega.library.disk import PICTURE_SUFFIXES, Stamp, model_name
from bottega.library.entry import REFUSED, WHOLE, Entry
from bottega.library.fine_tunes import FULL, made_from_another
from bottega.library.identify import Recognisers, identify, reader, shown_metadata
from bottega.spec import Recogniser


class Job(NamedTuple):
    """A model to be read: where it lies, and what is known of it without reading."""

    path: Path
    shelf: Path | None
    stamp: Stamp
    called: str = ""
    beside: int = 0


def read_entry(
    path: Path,
    stamp: Stamp,
    shelf: Path | None,
    recognisers: Sequence[Recogniser],
    *,
    called: str = "",
    beside: int = 0,
) -> Entry:
    """What one model is, from its header. Raises BottegaError or OSError where it can't be read."""
    header = read_header(path)
    identity = identify(header, recognisers)
    match, told = identity.match, about(header, path)
    evidence = made_from_another(header.metadata, told) if match.category == "base" and match.kind in WHOLE else ""
    return Entry(
        path=path,
        shelf=shelf,
        stamp=stamp,
        kind=match.kind,
        category=FULL if evidence else match.category,
        family=identity.family,
        variant=match.variant,
        format=header.format,
        dtype=next(iter(header.dtypes), ""),
        parameters=header.parameters,
        bytes=header.bytes,
        dimensions=match.dimensions,
        parts=match.parts,
        because=(
            *match.because,
            *([evidence] if evidence else []),
            *_words_of_wrappers(header),
            *header.layout.quantised.because,
        ),
        metadata=shown_metadata(header.metadata),
        guess=match.guess,
        read_by=signature(recognisers),
        called=called or _word_of(header),
        beside=beside,
        recogniser=identity.recogniser,
        runs=identity.runs,
        requires=match.requires,
        verdict=header.safety.verdict,
        names=header.safety.names,
        notes=(*header.notes, *header.safety.reasons),
        about=told,
    )


def _words_of_wrappers(header: Header) -> Iterator[str]:
    if header.wrappers:
        yield f"its names were read without {' and '.join(header.wrappers)}, which a training program put around it"


def _word_of(header: Header) -> str:
    """The word that an embedding in a picture stands for, where that is not its file's name."""
    word = header.metadata.get("name", "") if header.format == "picture" else ""
    return word if len(word) <= 100 and word.isprintable() and not {"/", "\\"} & set(word) else ""


def word_of(path: Path) -> str:
    """What an embedding is called by which somebody names this path; a FormatError for a picture that holds none."""
    if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file():
        return _word_of(read_header(path)) or model_name(path)
    return model_name(path)


def read(job: Job, recognisers: Sequence[Recogniser]) -> Entry:
    """What one model is; a file that is refused is recorded with the reason."""
    path, read_by = job.path, signature(recognisers)
    names: tuple[str, ...] = ()
    try:
        return read_entry(path, job.stamp, job.shelf, recognisers, called=job.called, beside=job.beside)
    except BottegaError as error:
        reason = str(error).removeprefix(f"{path}: ")
        if isinstance(error.__cause__, OSError):
            read_by = ""  # it may become readable without being changed: the next scan tries again
        if isinstance(error, DangerousModel):
            names = error.names
    except OSError as error:
        reason, read_by = error.strerror or str(error), ""
    except MemoryError:
        reason = "reading it takes more memory than there is; no honest header does"
    except Exception as error:
        # A strange file that a reader or a recogniser stumbles over must not keep the others from being found.
        reason = f"Bottega stumbled over it ({type(error).__name__}: {error}); please report that as a bug"
    return refused(job, reason, read_by, names)


def refused(job: Job, reason: str, read_by: str, names: tuple[str, ...] = ()) -> Entry:
    """The record of a file that can't be read; one that nobody has read (`read_by` empty) is tried again."""
    reason = reason.encode(errors="backslashreplace").decode()
    return Entry(
        job.path,
        job.shelf,
        job.stamp,
        error=reason,
        read_by=read_by,
        called=job.called,
        beside=job.beside,
        verdict=REFUSED,
        names=names,
    )


def autov1_of(path: Path) -> str:
    """A1111's old hash, of 64 KiB at the first MiB: found in a moment, and so the first to be looked at.

    Empty for a file that ends before them: A1111 gives all of those the hash of nothing.
    """
    with open_regular(path) as file:
        file.seek(0x100000)
        hashed = file.read(0x10000)
    return sha256(hashed).hexdigest()[:8] if hashed else ""


def signature(recognisers: Sequence[Recogniser]) -> str:
    """Who reads headers: what this code and these recognisers make of one stays true until they change."""
    return f"{reader()} {Recognisers.of(recognisers).names}"
