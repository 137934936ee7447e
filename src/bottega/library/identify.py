"""Tell what a model is: exactly one of the recognisers that are given must claim its header.

Those that guess from a few names what a model was before parts of it got lost are asked last, about what is left over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import blake2b
from itertools import islice
from pathlib import Path

from bottega.formats.header import Header
from bottega.spec import Family, Known, Match, Recogniser
from bottega.version import __version__

UNKNOWN = "unknown"
TOLD_OTHERWISE = ("diffusers", "transformers", "gguf")  # formats in which a config or an architecture's name may decide
ROOMS = ("adapters", "families", "formats", "library")  # whose code decides what is made of a header

# What is worth showing of a file's metadata, and the names under which trainers write it, the best first.
SHOWN: Mapping[str, tuple[str, ...]] = {
    "title": ("modelspec.title", "ss_output_name", "title", "name"),
    "alias": ("ss_output_name",),
    "author": ("modelspec.author", "author"),
    "licence": ("modelspec.license", "license"),
    "description": ("modelspec.description", "description"),
    "resolution": ("modelspec.resolution", "ss_resolution"),
    "prediction": ("modelspec.prediction_type",),
    "architecture": ("modelspec.architecture", "ss_base_model_version"),
    "trigger": ("modelspec.trigger_phrase",),
    "usage": ("modelspec.usage_hint",),
    "date": ("modelspec.date",),
}
_LONGEST = 600  # metadata can hold a whole training log; nobody reads more than this in a listing


@dataclass(frozen=True)
class Identity:
    """What a model is: who recognised it (empty if nobody), the family it is of or fits to, and what was found.

    `runs` says that the recogniser is a family, which can run it.
    """

    recogniser: str
    family: str
    match: Match
    runs: bool = False


class Recognisers(tuple[Recogniser, ...]):
    """Recognisers in their order, and which of them have to be asked about a header: most of hundreds need not be."""

    @classmethod
    def of(cls, recognisers: Sequence[Recogniser]) -> Recognisers:
        """The same recognisers."""
        return recognisers if isinstance(recognisers, cls) else cls(recognisers)

    @cached_property
    def names(self) -> str:
        """A short hash of their ids, whatever their order."""
        return blake2b("\n".join(sorted(each.id for each in self)).encode(), digest_size=6).hexdigest()

    @cached_property
    def first(self) -> tuple[Recogniser, ...]:
        """Those that may be asked about any header."""
        return tuple(each for each in self if not _is_asked_last(each))

    @cached_property
    def last(self) -> tuple[Recogniser, ...]:
        """Those that are asked about what the others leave over."""
        return tuple(each for each in self if _is_asked_last(each))

    def who_may_claim(self, header: Header) -> Iterable[Recogniser]:
        """The first ones, without those of whose deciding names a header has none."""
        if header.format in TOLD_OTHERWISE:
            return self.first
        names = self._by_name.keys() & header.layout.rows.keys()
        return [self.first[number] for number in sorted(self._always.union(*(self._by_name[name] for name in names)))]

    @cached_property
    def _by_name(self) -> Mapping[str, Sequence[int]]:
        """By deciding names, the numbers of those for which they decide."""
        found: dict[str, list[int]] = {}
        for number, each in enumerate(self.first):
            for name in _deciding(each):
                found.setdefault(name, []).append(number)
        return found

    @cached_property
    def _always(self) -> frozenset[int]:
        return frozenset(number for number, each in enumerate(self.first) if not _deciding(each))


def _is_asked_last(recogniser: Recogniser) -> bool:
    return isinstance(recogniser, Known) and recogniser.asked_last


def _deciding(recogniser: Recogniser) -> frozenset[str]:
    return recogniser.deciding if isinstance(recogniser, Known) else frozenset()


def identify(header: Header, recognisers: Sequence[Recogniser]) -> Identity:
    """Ask the recognisers; what none claims, or more than one, is of kind "unknown" with a word why."""
    asked = Recognisers.of(recognisers)
    claims = _claims(header, asked.who_may_claim(header)) or _claims(header, asked.last)
    if len(claims) == 1:
        ((claimant, match),) = claims
        family = claimant.id if match.family is None else match.family
        return Identity(claimant.id, family, match, isinstance(claimant, Family))
    if claims:
        return _unknown(f"{' and '.join(each.id for each, _ in claims)} all claim it, and it can only be one of them")
    names = ", ".join(islice(header.tensors, 3))
    return _unknown(
        f"nothing known has these {len(header.tensors)} tensors ({names} ...)" if names else "it has no tensors"
    )


def _claims(header: Header, recognisers: Iterable[Recogniser]) -> list[tuple[Recogniser, Match]]:
    return [(each, match) for each in recognisers if (match := each.recognise(header)) is not None]


@cache
def reader() -> str:
    """Who reads headers: this version, and a hash of its code that reads and recognises them.

    What other code made of a header is not to be relied on, and an installation from a repository changes its code
    without changing its version. The files are only read: a listing imports no family.
    """
    return f"{__version__}+{hash_code(Path(__file__).parents[1])}"


def hash_code(package: Path) -> str:
    """A short hash of the source of the rooms that decide what a model is."""
    digest = blake2b(digest_size=6)
    for path in sorted(path for room in ROOMS for path in (package / room).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _unknown(because: str) -> Identity:
    return Identity("", "", Match(variant="", because=(because,), kind=UNKNOWN, category=UNKNOWN))


def shown_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """The few entries of a file's metadata that help to choose a model."""
    told = {}
    for name, sources in SHOWN.items():
        value = next((metadata[source].strip() for source in sources if metadata.get(source, "").strip()), "")
        if value:
            told[name] = value if len(value) <= _LONGEST else value[:_LONGEST] + " ..."
    return told
