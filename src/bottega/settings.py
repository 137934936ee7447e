"""Where things are and what to use: home, shelves, outputs, device; frozen, passed in, from TOML and environment."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from bottega.errors import FileError

STARTER_SHELF = Path(__file__).parent / "starter"


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
    """The settings of this home: `settings.toml` in it, over the defaults.

    Raises FileError for a file that is no TOML, an unknown name or a value of the wrong type.
    """
    home = default_home(environment)
    path = home / "settings.toml"
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        told = {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FileError(path, f"is no valid TOML ({error})", "mend it or move it away") from None
    known = {entry.name for entry in fields(Settings)} - {"home"}
    if unknown := sorted(set(told) - known):
        raise FileError(path, f"has no setting called {unknown[0]!r}", f"the settings are {', '.join(sorted(known))}")
    for name, value in told.items():
        wanted = list if name == "shelves" else str
        if not isinstance(value, wanted) or (wanted is list and not all(isinstance(item, str) for item in value)):
            raise FileError(path, f"{name} is {value!r}", "write a text in quotes, or a list of them for shelves")
    shelves = tuple(Path(shelf).expanduser() for shelf in told.get("shelves", ()))
    return Settings(
        home=home,
        shelves=shelves,
        outputs=home / Path(told.get("outputs", "outputs")).expanduser(),
        model=told.get("model", Settings.model),
        device=environment.get("BOTTEGA_DEVICE") or told.get("device", Settings.device),
        precision=told.get("precision", Settings.precision),
    )
