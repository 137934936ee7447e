"""The recipe: everything that can change a result, in one structure that drafts, outputs and replays share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bottega.errors import FieldProblem, InvalidRecipe
from bottega.formats import strictjson
from bottega.validation import in_words

VERSION: Literal[1] = 1

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
KnobValue = bool | int | float | str


class _Part(BaseModel):
    """A frozen piece of a recipe; fields it doesn't know are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class Ref(_Part):
    """A model by name; once resolved also by the SHA-256 of its bytes."""

    name: str
    sha256: Sha256 | None = None


class Use(_Part):
    """An adapter, how strongly it is used, and when.

    `unet` and `text_encoder` are strengths of their own, `blocks` factors on top, by the names that the family gives
    the blocks of its network. It works from `start` to `end`, parts of the steps.
    """

    kind: str
    ref: Ref
    weight: float = 1.0
    unet: float | None = None
    text_encoder: float | None = None
    blocks: dict[str, float] = Field(default_factory=dict)
    start: float = 0.0
    end: float = 1.0

    def strength(self, part: str) -> float:
        """How strongly it changes that part of a model (`unet`, `text_encoder`, ...), blocks left aside."""
        own = self.text_encoder if part.startswith("text_encoder") else self.unet if part == "unet" else None
        return self.weight if own is None else own

    @property
    def is_idle(self) -> bool:
        """Whether it changes nothing, whatever it is."""
        return not self.strength("unet") and not self.strength("text_encoder")


class Media(_Part):
    """An input file in its role (`init`, `mask`), known by the SHA-256 of its bytes."""

    role: str
    sha256: Sha256


class Sampling(_Part):
    """How noise becomes a picture. `strength` (0 to 1) says how much of an input picture is made anew."""

    sampler: str | None = None
    schedule: str | None = None
    steps: int | None = None
    guidance: float | None = None
    seed: int | None = None
    strength: float | None = None


class Size(_Part):
    """Width and height in pixels."""

    width: int
    height: int


class Output(_Part):
    """The file that is written: its format, and for lossy ones the quality from 1 to 100."""

    format: Literal["png", "jpeg", "webp"] = "png"
    quality: int = Field(default=92, ge=1, le=100)


class Made(_Part):
    """By what an output was made; outside the digest, though any of it may change the last bits of a picture.

    `threads` (of a CPU) and `capability` (its instructions, or a GPU's generation) are unknown in older recipes.
    """

    app: str
    versions: dict[str, str]
    device: str
    threads: int | None = None
    capability: str | None = None


class Recipe(_Part):
    """What to make and how.

    A draft may leave out nearly everything; `engine.resolve` decides what is missing and pins the models. Only
    resolved recipes run. `count` pictures take the seeds `seed`, `seed + 1`, ...
    """

    version: Literal[1] = VERSION
    task: str = "text-to-image"
    model: Ref | None = None
    prompt: str = ""
    negative: str = ""
    adapters: tuple[Use, ...] = ()
    inputs: tuple[Media, ...] = ()
    sampling: Sampling = Sampling()
    size: Size | None = None
    count: int = 1
    output: Output = Output()
    knobs: dict[str, KnobValue] = Field(default_factory=dict)
    made: Made | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of all that can change the result."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    def canonical(self) -> str:
        """The recipe without `made` as JSON with sorted keys and no spaces, equal for equal recipes."""
        told = self.model_dump(mode="json", exclude={"made"}, exclude_none=True)
        return json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    def to_json(self) -> str:
        """The recipe as one line of JSON, as it stands in outputs."""
        told = self.model_dump(mode="json", exclude_none=True)
        return json.dumps(told, separators=(",", ":"), ensure_ascii=False)

    def input(self, role: str) -> Media | None:
        """The input in this role, if there is one."""
        return next((media for media in self.inputs if media.role == role), None)

    def changed(self, **fields: Any) -> Recipe:
        """A copy with other fields, validated like any recipe."""
        return Recipe.model_validate({**dict(self), **fields})

    def single(self, index: int) -> Recipe:
        """The recipe of picture `index` alone, resolved recipes only.

        As A1111 counts: the seed goes up by one from picture to picture, unless a variation is asked for, where only
        the variation seed does.
        """
        assert self.sampling.seed is not None
        if self.knobs.get("variation_strength"):
            knobs = {**self.knobs, "variation_seed": int(self.knobs["variation_seed"]) + index}
            return self.changed(count=1, knobs=knobs)
        sampling = self.sampling.model_copy(update={"seed": self.sampling.seed + index})
        return self.changed(count=1, sampling=sampling)


def read_recipe(text: str) -> Recipe:
    """A recipe from its JSON, of this or any older version.

    Raises InvalidRecipe with every wrong field.
    """
    try:
        told = json.loads(text)
        strictjson.check_depth(told)
    except (ValueError, RecursionError) as error:
        raise InvalidRecipe([FieldProblem("recipe", f"is no valid JSON ({strictjson.reason(error)})")]) from None
    if not isinstance(told, dict):
        raise InvalidRecipe([FieldProblem("recipe", "is no JSON object")])
    version = told.get("version", VERSION)
    if not isinstance(version, int) or not 1 <= version <= VERSION:
        remedy = "update Bottega" if isinstance(version, int) and version > VERSION else ""
        raise InvalidRecipe([FieldProblem("version", f"{version!r} is none that this Bottega knows", remedy)])
    for old in range(version, VERSION):
        told = MIGRATIONS[old](told)
    return recipe_from(told)


def recipe_from(told: Mapping[str, Any]) -> Recipe:
    """A recipe of this version from plain data, as JSON has it; InvalidRecipe names every wrong field."""
    try:
        return Recipe.model_validate_json(json.dumps(told))
    except ValidationError as error:
        problems = {_field(item["loc"]): in_words(item) for item in error.errors()}
        raise InvalidRecipe([FieldProblem(field, what) for field, what in problems.items()]) from None


def _field(place: tuple[int | str, ...]) -> str:
    """Where in a recipe a problem is; a knob has one place, however many types its value was tried as."""
    return ".".join(map(str, place[:2] if place[:1] == ("knobs",) else place)) or "recipe"


# From the version that is the key to the next one; every version that was ever written loads for ever.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
