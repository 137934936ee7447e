"""Where things are and what to use: home, shelves, outputs, device; frozen, passed in, from TOML and environment."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from bottega.errors import FileError, InvalidSetting

STARTER_SHELF = Path(__file__).parent / "starter"
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Settings:
    """What a user may decide about this installation; a recipe, once resolved, no longer depends on any of it.

    `shelves` are read in place; the home's own `models` folder and the starter models always belong to them.
    """

    home: Path
    shelves: tuple[Path, ...] = ()
    outputs: Path = field(default=Path("outputs"))
    model: str = "starter-image"
    device: str = "auto"
    precision: str = "auto"

    @property
    def file(self) -> Path:
        """Where the user writes settings down."""
        return self.home / "settings.toml"

    @property
    def catalog(self) -> Path:
        """The SQLite file that knows every model."""
        return self.home / "catalog.sqlite"

    @property
    def inputs(self) -> Path:
        """Pictures that recipes were given, kept by hash."""
        return self.home / "inputs"

    @property
    def all_shelves(self) -> tuple[Path, ...]:
        """Every folder that is scanned, the starter models first."""
        return (STARTER_SHELF, self.home / "models", *self.shelves)


def default_home(environment: Mapping[str, str]) -> Path:
    """`BOTTEGA_HOME`, else the place where this system keeps a user's data."""
    if named := environment.get("BOTTEGA_HOME"):
        return Path(named).expanduser().resolve()
    data = environment.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "bottega"


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of this home: `settings.toml` in it, over the defaults. Its relative paths begin at the home.

    Raises FileError for a file that is no TOML, InvalidSetting for an unknown name or a value that can't be used.
    """
    defaults = Settings(default_home(environment))
    home, file = defaults.home, defaults.file
    try:
        told = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        told = {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FileError(file, f"is no valid TOML ({error})", "mend it or move it away") from None
    known = {entry.name for entry in fields(Settings)} - {"home"}
    for name, value in told.items():
        if name not in known:
            raise InvalidSetting(f"{file}: {name} is no setting", f"the settings are {', '.join(sorted(known))}")
        if remedy := _remedy(name, value):
            raise InvalidSetting(f"{file}: {name} is {value!r}", remedy)
    device = environment.get("BOTTEGA_DEVICE")
    if device and (remedy := _remedy("device", device)):
        raise InvalidSetting(f"BOTTEGA_DEVICE is {device!r}", remedy)
    return Settings(
        home=home,
        shelves=tuple(home / os.path.expanduser(shelf) for shelf in told.get("shelves", ())),
        outputs=home / os.path.expanduser(told.get("outputs", defaults.outputs)),
        model=told.get("model", defaults.model),
        device=device or told.get("device", defaults.device),
        precision=told.get("precision", defaults.precision),
    )


def _remedy(name: str, value: Any) -> str:
    """What to write instead of a value that this setting can't have; empty for one that it can."""
    if name == "shelves":
        is_list = isinstance(value, list) and all(isinstance(item, str) for item in value)
        return "" if is_list else "write a list of texts in quotes"
    if not isinstance(value, str):
        return "write a text in quotes"
    if name == "device" and not re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]+)?", value):
        return "use one of auto, cuda, cuda:1, mps, cpu"
    if name == "precision" and value not in PRECISIONS:
        return f"use one of {', '.join(PRECISIONS)}"
    return ""
