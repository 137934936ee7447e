"""What is worth knowing of a device, as plain data: a process without torch plans with it as one with torch does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bottega.errors import FieldProblem, InvalidRecipe


@dataclass(frozen=True)
class Facts:
    """One device of a machine, as torch tells of it.

    `device` is torch's name for it (`cpu`, `cuda:0`) and `name` what it calls itself; `memory` are its bytes, used or
    not, and `free` those that could be taken when this was written. `waiting` are the bytes of main memory in which
    parts of a model could wait; 0 for a device that computes in main memory itself. `automatic` is the precision that
    `auto` means. `dtypes` are those of the parts of a model in each precision that it computes in; `refused` says of
    the others why. `others` are the devices beside it that could do the same work.
    """

    device: str
    name: str
    memory: int
    free: int
    automatic: str
    dtypes: Mapping[str, Mapping[str, str]]
    refused: Mapping[str, tuple[str, str]]
    versions: Mapping[str, str]
    app: str
    threads: int | None = None
    capability: str | None = None
    others: tuple[str, ...] = ()
    waiting: int = 0

    def precision(self, wanted: str) -> str:
        """The precision that is meant; InvalidRecipe for one that the device can't compute in."""
        wanted = self.automatic if wanted == "auto" else wanted
        if wanted not in self.dtypes:
            what, remedy = self.refused.get(wanted, (f"{wanted!r} is none of {', '.join(self.dtypes)}", "use auto"))
            raise InvalidRecipe([FieldProblem("knobs.precision", what, remedy)])
        return wanted

    def to_json(self) -> dict[str, Any]:
        """The facts as plain data."""
        return asdict(self)


def facts_from(told: Mapping[str, Any]) -> Facts:
    """Facts from plain data; TypeError or KeyError if it is not that of this version."""
    refused = {name: (str(what), str(remedy)) for name, (what, remedy) in told["refused"].items()}
    return Facts(**{**told, "refused": refused, "others": tuple(told["others"])})
