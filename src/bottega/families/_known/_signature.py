"""How an architecture is told by its tensors: names that decide, conditions on shapes, and what else can be read off.

A signature is a row of a table. Nearly every header that it is asked about is foreign, so the first question is a
cheap one: is one of the deciding names there at all?
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from bottega.families._known import _told
from bottega.families._known._pipelines import PIPELINES
from bottega.formats.header import Header, View, shown
from bottega.spec import Known, Match

BASE, PART = "base", "part"
CHECKPOINT, DIFFUSION_MODEL = "checkpoint", "diffusion_model"

# What a file puts before the names of its network; a folder puts the network's part.
PREFIXES = ("", "model.diffusion_model.", "diffusion_model.", "model.", "model.model.", "net.", "transformer.")
BARE = ("",)

# What lies beside the network in a file that holds more, by the first word of its names.
_COMPANIONS = {
    "first_stage_model": "vae",
    "vae": "vae",
    "pretransform": "vae",
    "audio_vae": "audio_vae",
    "vocoder": "vocoder",
    "cond_stage_model": "text_encoder",
    "conditioner": "text_encoder",
    "text_encoders": "text_encoder",
    "text_encoder": "text_encoder",
    "text_encoder_2": "text_encoder_2",
    "text_encoder_3": "text_encoder_3",
}

_NOTHING: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True)
class Is:
    """A condition: that a tensor is there, that one axis of it has one of some sizes, that it has so many axes."""

    name: str
    axis: int = 0
    sizes: tuple[int, ...] = ()
    rank: int | None = None

    def holds(self, view: View) -> bool:
        """Whether the tensors under a prefix are so."""
        shape = view.shape(self.name)
        if shape is None or (self.rank is not None and len(shape) != self.rank):
            return False
        return not self.sizes or view.size(self.name, self.axis) in self.sizes


@dataclass(frozen=True)
class Variant:
    """A variant of an architecture and what shows it; `family` where it fits another family than its signature says."""

    name: str
    where: tuple[Is, ...] = ()
    words: str = ""
    guess: bool = False
    family: str | None = None


@dataclass(frozen=True)
class Naming:
    """One way of naming an architecture's tensors.

    All `keys` are there, the first of which hardly any other architecture has, and none of those that are `absent`;
    `beside` and `not_beside` are such names without the network's prefix. `sizes` are dimensions by tensor and axis,
    `counts` by a name whose `{}` counts from 0, `measures` by a function. The first variant whose conditions hold is
    the one.
    """

    keys: tuple[str, ...]
    absent: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    not_beside: tuple[str, ...] = ()
    where: tuple[Is, ...] = ()
    sizes: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    counts: Mapping[str, str] = field(default_factory=dict)
    measures: Mapping[str, Callable[[View], int | None]] = field(default_factory=dict)
    variants: tuple[Variant, ...] = ()
    label: str = "original"

    def fits(self, view: View) -> bool:
        """Whether the tensors under a prefix are named so."""
        tensors = view.header.tensors
        return (
            all(key in view for key in self.keys)
            and not any(key in view for key in self.absent)
            and all(name in tensors for name in self.beside)
            and not any(name in tensors for name in self.not_beside)
            and all(condition.holds(view) for condition in self.where)
        )

    def dimensions(self, view: View) -> dict[str, int]:
        """What the shapes say of its size."""
        read: dict[str, int | None] = {name: view.size(key, axis) for name, (key, axis) in self.sizes.items()}
        read |= {name: _count(view, pattern) for name, pattern in self.counts.items()}
        read |= {name: measure(view) for name, measure in self.measures.items()}
        return {name: value for name, value in read.items() if value is not None}


@dataclass(frozen=True)
class Signature:
    """An architecture in all its namings.

    `part` is what the network is called among a model's parts; `requires` says in words which other parts it takes, by
    part; `named` are the names of published sizes by the dimension `width`. `prefixes` may have other parts beside
    them, those `alone` have none. `types` are its names in transformers' configs, `gguf` its names in GGUF's metadata.
    A network of kind `diffusion_model` that lies in one file with its autoencoder or text encoder is a checkpoint.
    """

    id: str
    title: str
    medium: str
    namings: tuple[Naming, ...] = ()
    types: tuple[str, ...] = ()
    gguf: tuple[str, ...] = ()
    kind: str = DIFFUSION_MODEL
    category: str = BASE
    part: str = "transformer"
    prefixes: tuple[str, ...] = PREFIXES
    alone: tuple[str, ...] = ()
    requires: Mapping[str, str] = field(default_factory=dict)
    named: Mapping[int, str] = field(default_factory=dict)
    family: str | None = None
    words: str = ""

    @cached_property
    def deciding(self) -> frozenset[str]:
        """Names one of which every file of this architecture has."""
        return frozenset(
            name
            for naming in self.namings
            for name in (naming.beside[:1] or [prefix + naming.keys[0] for prefix in (*self.prefixes, *self.alone)])
        )

    def recognise(self, header: Header) -> Match | None:
        """The match of a header, or None if it is no such architecture."""
        if header.format == "diffusers":
            return self._recognise_folder(header)
        if header.format == "transformers":
            return self._recognise_config(header) if self.types else None
        if header.format == "gguf" and self.gguf and header.metadata.get("general.architecture") in self.gguf:
            return self._recognise_gguf(header)
        if header.layout.rows.keys().isdisjoint(self.deciding):
            return None
        if header.format == "gguf":
            header = _told.with_original_shapes(header)
        found = self._find(header, self.prefixes) or self._find(header, tuple(self._alone_in(header)))
        return found and self._match(header, *found)

    def _alone_in(self, header: Header) -> Iterator[str]:
        for prefix in self.alone:
            last = "transformer." if prefix.endswith("transformer.") else "model."
            place = prefix.removesuffix(last)  # some keep a scale beside the network
            if all(name.startswith(place) for name in header.tensors):
                yield prefix

    def _recognise_config(self, header: Header) -> Match | None:
        told = _told.model_type(header)
        if told not in self.types:
            return None
        kind = _told.kind_told(header, self.kind)
        because = [f"config.json says that it is of type {told}"]
        if name := _told.class_name(header):
            because.append(f"it is of transformers' class {shown(name)}")
        dimensions = _told.config_dimensions(header)
        return Match(BASE, dimensions, {self.part: ""}, tuple(because), False, kind, self.category, self.family)

    def _recognise_gguf(self, header: Header) -> Match | None:
        if header.metadata.get("general.type", "model") != "model":  # an adapter or a projector for it
            return None
        if _told.has_only_words(header):
            return None
        because = (f"its metadata names the architecture {header.metadata['general.architecture']}",)
        dimensions = _told.gguf_dimensions(header)
        return Match(BASE, dimensions, {self.part: ""}, because, False, self.kind, self.category, self.family)

    def _recognise_folder(self, header: Header) -> Match | None:
        pipeline = header.configs.get("", _NOTHING).get("_class_name")
        owner = PIPELINES.get(pipeline) if isinstance(pipeline, str) else None
        if owner is not None and owner[0] != self.id:
            return None
        if pipeline is not None and self.kind != DIFFUSION_MODEL:  # a part of what another signature recognises
            return None
        found = self._find(header, tuple(f"{part}/" for part in header.configs if part))
        if found is None and owner is None:
            return None
        variant = owner[1] if owner else ""
        if found is None:
            because = (f"a pipeline of class {pipeline}",)
            return Match(variant or BASE, {}, _folders(header), because, False, CHECKPOINT, self.category, self.family)
        return self._match(header, *found, told=variant, pipeline=pipeline if isinstance(pipeline, str) else "")

    def _find(self, header: Header, prefixes: tuple[str, ...]) -> tuple[View, Naming] | None:
        for naming in self.namings:
            for prefix in prefixes:
                if prefix + naming.keys[0] in header.tensors:
                    view = header.under(prefix)
                    if naming.fits(view):
                        return view, naming
        return None

    def _match(self, header: Header, view: View, naming: Naming, *, told: str = "", pipeline: str = "") -> Match:
        dimensions: dict[str, object] = dict(naming.dimensions(view))
        if header.format == "gguf":
            dimensions |= _told.quantisation(header)
        variant = next((each for each in naming.variants if all(is_.holds(view) for is_ in each.where)), Variant(BASE))
        because = [
            f"{naming.label} names of {self.title} under {view.prefix or 'no prefix'!r}, such as {naming.keys[0]}"
        ]
        if told:
            variant = Variant(told, words=f"a pipeline of class {pipeline}", family=variant.family)
        because += filter(None, (variant.words, self.words))
        width = dimensions.get("width")
        if isinstance(width, int) and width in self.named:
            dimensions["size"] = self.named[width]
            because.append(f"width {width}: the published size {self.named[width]}")
        parts = _folders(header) if pipeline else {self.part: view.prefix} | _companions(header, view.prefix)
        kind = CHECKPOINT if self.kind == DIFFUSION_MODEL and len(parts) > 1 else self.kind
        return Match(
            variant=variant.name,
            dimensions=dimensions,
            parts=parts,
            because=tuple(because),
            guess=variant.guess,
            kind=kind,
            category=self.category,
            family=variant.family or self.family,
            requires=() if pipeline else tuple(words for part, words in self.requires.items() if part not in parts),
        )


def known(signatures: tuple[Signature, ...]) -> tuple[Known, ...]:
    """The rows of `KNOWN` for a table of signatures."""
    return tuple(Known(each.id, each.title, each.medium, each.recognise, deciding=each.deciding) for each in signatures)


def _count(view: View, pattern: str) -> int:
    count = 0
    while pattern.format(count) in view:
        count += 1
    return count


def _companions(header: Header, prefix: str) -> dict[str, str]:
    """The other parts that lie in the same file, with the prefix of each."""
    if prefix.partition(".")[0] in _COMPANIONS:
        return {}
    return dict(_lying_beside(header.roots))


def _lying_beside(roots: frozenset[str]) -> Iterator[tuple[str, str]]:
    for root, part in _COMPANIONS.items():
        if root in roots:
            yield part, f"{root}."


def _folders(header: Header) -> dict[str, str]:
    """The parts of a pipeline that have tensors."""
    return {part: f"{part}/" for part in header.configs if part in header.roots}
