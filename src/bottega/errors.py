"""One tree of errors; each says what happened, to which file or field, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class BottegaError(Exception):
    """Everything that Bottega raises on purpose.

    `what` says what happened, `remedy` what the user can do about it; `exit_code` is what a command ends with
    (2: bad usage or refused input, 1: the work failed or differs).
    """

    exit_code = 1

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}" if self.remedy else self.what


class FileError(BottegaError):
    """A file that can't be used as what it was given for."""

    exit_code = 2

    def __init__(self, path: str | Path, what: str, remedy: str = "") -> None:
        super().__init__(f"{path}: {what}", remedy)
        self.path = Path(path)


class FormatError(FileError):
    """A file whose bytes break the rules of its format, or whose format is not one that Bottega reads."""


class DangerousModel(FormatError):
    """A model file that would run code in a program that trusted it; `names` are what it calls."""

    def __init__(self, path: str | Path, what: str, remedy: str = "", names: Sequence[str] = ()) -> None:
        super().__init__(path, what, remedy)
        self.names = tuple(names)


class UnknownModel(BottegaError):
    """No model on the shelves has this name; `nearest` are names that come close, `problems` where it was asked for."""

    exit_code = 2

    def __init__(self, name: str, nearest: Sequence[str] = ()) -> None:
        near = f"did you mean {' or '.join(nearest)}?" if nearest else "see the list of models"
        super().__init__(f"no model is called {name!r}", near)
        self.name = name
        self.nearest = tuple(nearest)
        self.problems: Sequence[FieldProblem] = ()


class UnsupportedModel(FileError):
    """A model that was recognised, or not recognised at all, and that Bottega can't run as asked."""


class FieldProblem:
    """One thing that is wrong with one field of a recipe."""

    __slots__ = ("field", "remedy", "what")

    def __init__(self, field: str, what: str, remedy: str = "") -> None:
        self.field, self.what, self.remedy = field, what, remedy

    def __str__(self) -> str:
        return f"{self.field}: {self.what}" + (f"; {self.remedy}" if self.remedy else "")


class InvalidRecipe(BottegaError):
    """A recipe with wrong fields: all problems at once, each at its field."""

    exit_code = 2

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        super().__init__(" | ".join(map(str, problems)))
        self.problems = tuple(problems)


class InvalidSetting(BottegaError):
    """A setting that can't be used; it says whether it stands in `settings.toml` or in an environment variable."""

    exit_code = 2


class OutOfMemory(BottegaError):
    """The plan does not fit into the device's memory, or the device ran out of it."""


class BrokenPicture(BottegaError):
    """The network answered with numbers that are no picture (NaN, or all one colour), twice."""


class SaveError(BottegaError):
    """An output could not be written; nothing of it was left behind."""


class Outdated(BottegaError):
    """Something that somebody else has changed since it was read, so that to change it would undo what they did."""


class Different(BottegaError):
    """A replay that did not give what it should have given."""


class Diverged(BottegaError):
    """A training whose weights went astray, so that going on teaches nothing."""


class Interrupted(BottegaError):
    """The user stopped the work."""

    exit_code = 130
