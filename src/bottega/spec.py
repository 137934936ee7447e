"""The contracts between families, adapters, the library and the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from bottega.formats.header import Header

if TYPE_CHECKING:
    from PIL.Image import Image

    from bottega.errors import BrokenPicture
    from bottega.events import Event
    from bottega.recipe import Recipe


@dataclass(frozen=True)
class Match:
    """What a recogniser found in a header.

    `dimensions` are read from shapes; `parts` maps `unet`, `vae`, `text_encoder`, ... to the prefix of its tensors;
    `because` is the evidence in words; `guess` says that the header alone can't decide. `family` is the one that an
    adapter fits, or that a recogniser of several families found (empty if that can't be told); None stands for the
    recogniser's own id. `requires` says in words what else it takes to make something with it.
    """

    variant: str
    dimensions: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    because: tuple[str, ...] = ()
    guess: bool = False
    kind: str = "checkpoint"
    category: str = "base"
    family: str | None = None
    requires: tuple[str, ...] = ()


class Recogniser(Protocol):
    """Whatever tells models of one sort by their headers: a family, a known architecture, an adapter."""

    @property
    def id(self) -> str:
        """Its name: short, lower case, its own."""

    @property
    def recognise(self) -> Callable[[Header], Match | None]:
        """The match of a header, or None for what is not of its sort; at most one recogniser may claim a header."""


@dataclass(frozen=True)
class Known:
    """An architecture that is told apart by its header, though Bottega can't run it yet."""

    id: str
    title: str
    medium: str
    recognise: Callable[[Header], Match | None]


@dataclass(frozen=True)
class Adapter:
    """A kind of model that changes others: how it is told, and to which family it fits."""

    id: str
    title: str
    recognise: Callable[[Header], Match | None]


@dataclass(frozen=True)
class Knob:
    """One setting of a family: feeds validation, the command line, the HTTP schema and the form."""

    name: str
    type: type
    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    def check(self, value: object) -> str | None:
        """What is wrong with `value`, in words, or None."""
        if isinstance(value, bool) != (self.type is bool) or not isinstance(value, _ACCEPTED[self.type]):
            return f"{value!r} is not {_ARTICLE[self.type]}"
        low = -inf if self.low is None else self.low
        high = inf if self.high is None else self.high
        if isinstance(value, (int, float)) and not low <= value <= high:  # NaN is in no interval
            return f"{value!r} is not between {low:g} and {high:g}"
        if self.choices and value not in self.choices:
            return f"{value!r} is none of {', '.join(self.choices)}"
        return None

    def value_of(self, text: str) -> bool | int | float | str:
        """What a text that somebody typed means as this knob's value: `yes` and `on` are true, case does not matter.

        A text that means nothing here comes back as it is, for `check` to refuse.
        """
        if self.type is bool:
            return _SWITCH.get(text.casefold(), text)
        if self.type is str:
            return next((choice for choice in self.choices if choice.casefold() == text.casefold()), text)
        for number in (int, float):
            try:
                value = number(text)
            except ValueError:
                continue
            return value if -inf < value < inf else text  # no recipe can hold the others
        return text


_SWITCH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_ACCEPTED: dict[type, tuple[type, ...]] = {int: (int,), float: (int, float), bool: (bool,), str: (str,)}
_ARTICLE = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


class Emit(Protocol):
    """What a task tells the engine while it works; every call raises Interrupted once the user has stopped the job."""

    previews: bool

    def __call__(self, event: Event) -> None:
        """Say something."""

    def preview(self, image: int, step: int, picture: Image) -> None:
        """Show a rough picture of image `image` after `step` steps."""


@dataclass(frozen=True)
class Task:
    """What is made from what, under Hugging Face's name where there is one, and the function that makes it.

    `run(pipe, batch, inputs, emit)` gets resolved recipes for one picture each, which differ in their seeds only, and
    the input pictures by role; it answers with one picture for each recipe, or with what is wrong with that one.
    """

    id: str
    run: Callable[[Any, Sequence[Recipe], Mapping[str, Image], Emit], list[Image | BrokenPicture]]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """An architecture: how to recognise, load and run its models. A torch-free face; heavy imports inside functions.

    `load(header, match, place, told)` answers with the pipe; it calls `told(done, total)` before the first part and
    after each, and stops with whatever that raises. `limits(match)` are the highest values of those knobs that one
    model bounds more closely than its family. `varied(match, variant)` is the match of a model whose user knows its
    variant better than its header tells.
    """

    id: str
    title: str
    medium: str
    recognise: Callable[[Header], Match | None]
    load: Callable[..., Any]
    tasks: Mapping[str, Task]
    defaults: Callable[[Header, Match], Mapping[str, Any]]
    knobs: tuple[Knob, ...]
    toy: Callable[..., Any]
    limits: Callable[[Match], Mapping[str, int]] = lambda match: {}
    varied: Callable[[Match, str], Match] = lambda match, variant: replace(match, variant=variant)
