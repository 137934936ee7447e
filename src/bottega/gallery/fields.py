"""A recipe as fields: what of it is shared by many outputs, what is searched for, and in what two recipes differ."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from bottega.library.search import folded

# What differs from picture to picture; everything else of a recipe is shared by many, and indexed once.
SINGLE = ("prompt", "negative", "sampling.seed", "knobs.variation_seed", "count", "model", "inputs")
# What recipes may differ in and still be those of one series.
_APART = ("sampling.seed", "knobs.variation_seed", "knobs.variation_strength", "count", "made")
# Where a field may stand that is named without its place.
PLACES = ("", "sampling.", "size.", "output.", "knobs.", "made.")


@dataclass(frozen=True)
class Parts:
    """A recipe as the index takes it: its shared settings (JSON), the number of its series (0 for none), and its inputs
    as pairs of role and SHA-256."""

    settings: str
    kin: int
    inputs: tuple[tuple[str, str], ...]

    @property
    def fields(self) -> Mapping[str, str]:
        """The fields of the shared settings, as they are searched for."""
        return {name: value_text(value) for name, value in flat(json.loads(self.settings))}


class Difference(NamedTuple):
    """A field in which two recipes differ, and what each says; None where it says nothing."""

    field: str
    first: Any
    second: Any


def parts_of(recipe: str) -> Parts:
    """The parts of a recipe's JSON; empty ones for an empty text."""
    if not recipe:
        return Parts("{}", 0, ())
    told = json.loads(recipe)
    return Parts(
        settings=_canonical(_without(told, SINGLE)),
        kin=int.from_bytes(hashlib.sha256(_canonical(_without(told, _APART)).encode()).digest()[:7], "big"),
        inputs=tuple((str(given["role"]), str(given["sha256"])) for given in told.get("inputs", ())),
    )


def value_text(value: Any) -> str:
    """A field's value as it is searched for: without case, and numbers in one way of writing them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return folded(str(value))


def asked_text(value: str) -> str:
    """What somebody asks for as `value_text` writes it: 7.0 is 7."""
    try:
        return value_text(float(value)) if "." in value else value_text(value)
    except ValueError:
        return value_text(value)


def flat(told: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of nested data with where it stands, in order: `sampling.steps`, `adapters.0.weight`."""
    for name, value in told.items():
        if isinstance(value, list):
            value = {str(index): item for index, item in enumerate(value)}
        if isinstance(value, Mapping):
            yield from flat(value, f"{place}{name}.")
        else:
            yield f"{place}{name}", value


def differences(first: str, second: str) -> list[Difference]:
    """The fields in which two recipes (JSON, or empty) differ, in the order of a recipe, by plain names.

    A field is called by its name alone (`steps`, `width`), an input by its role, an adapter by its kind and name; where
    that is taken it stands with its place. By what they were made (device, versions) comes last.
    """
    one, other = (_plain(json.loads(text)) if text else {} for text in (first, second))
    order = {part: index for index, part in enumerate(_ORDER)}
    names = sorted({**one, **other}, key=lambda name: order.get({**one, **other}[name][0], len(order)))
    values = [(name, one.get(name, _NOTHING)[1], other.get(name, _NOTHING)[1]) for name in names]
    return [Difference(name, before, after) for name, before, after in values if before != after]


_ORDER = ("version", "task", "model", "prompt", "negative", "adapters", "inputs", "sampling", "size", "count", "output",
          "knobs")  # fmt: skip
_NOTHING = ("", None)
_USUAL: Mapping[str, Any] = {
    "unet": None,
    "text_encoder": None,
    "blocks": {},
    "start": 0.0,
    "end": 1.0,
}  # of an adapter's use
_PLACE = re.compile(r"^(adapters|inputs|sampling|size|output|knobs|made\.versions|made)\.|(?<=^model)\.name$")


def _plain(told: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """The fields of a recipe by plain names, each with the part of the recipe that it is in, and its value."""
    uses: dict[str, Any] = {}
    for use in told.get("adapters", ()):
        name = f"{use['kind']} {use['ref']['name']}"
        uses |= {name: use["weight"], f"{name} sha256": use["ref"].get("sha256")}
        more = {key: use.get(key, usual) for key, usual in _USUAL.items() if use.get(key, usual) != usual}
        uses |= {f"{name} {key}": value for key, value in more.items()}
    inputs = {given["role"]: given["sha256"] for given in told.get("inputs", ())}
    plain: dict[str, tuple[str, Any]] = {}
    for place, value in flat({**told, "adapters": uses, "inputs": inputs}):
        name = _PLACE.sub("", place)
        plain[place if name in plain else name] = (place.partition(".")[0], value)
    return plain


def _without(told: Mapping[str, Any], places: tuple[str, ...]) -> dict[str, Any]:
    kept = {name: value for name, value in told.items() if name not in places}
    for place in places:
        part, dot, name = place.partition(".")
        if dot and isinstance(kept.get(part), Mapping):
            kept[part] = {key: value for key, value in kept[part].items() if key != name}
    return kept


def _canonical(told: Mapping[str, Any]) -> str:
    return json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
