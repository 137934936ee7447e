"""The files of a model's folder: listed, checked where they lie, their JSON parsed, and what is odd about them kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

from bottega.errors import FormatError
from bottega.formats import strictjson
from bottega.formats.header import Header, Safety, TensorInfo, shown
from bottega.formats.links import check_place, places_of
from bottega.formats.sniff import open_regular, unreadable

MAX_CONFIG = 1 << 20

# What runs when it is opened, imported or unpickled.
CODE = frozenset((
    ".py", ".pyc", ".pyd", ".so", ".dylib", ".dll", ".exe", ".com", ".msi", ".scr", ".bat", ".cmd", ".ps1", ".vbs",
    ".js", ".sh", ".jar", ".app", ".pkl", ".pickle", ".joblib", ".dill",
))  # fmt: skip

# Keys that make diffusers, transformers or PEFT import code which lies in the folder or on the hub.
_CODE_KEYS = ("auto_map", "custom_pipeline", "custom_pipelines", "_module", "trust_remote_code")


@dataclass
class Files:
    """One folder, and what is noticed while it is read: `notes`, and `reasons` why it is unusual."""

    root: Path
    notes: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    _mentioned: list[str] = field(default_factory=list, init=False)

    def names(self, folder: Path) -> frozenset[str]:
        """The names of what lies in a folder."""
        try:
            return frozenset(entry.name for entry in folder.iterdir())
        except OSError as error:
            raise unreadable(folder, error) from error

    def check(self, path: Path) -> None:
        """FormatError for a file that is not there, or a link that leads out of the model."""
        check_place(path, self._places)

    def json(self, name: str, limit: int = MAX_CONFIG) -> dict[str, object]:
        """The object that a file of JSON holds."""
        value = self.value(name, limit)
        if not isinstance(value, dict):
            raise _no_config(self.root / name, "it is no JSON object")
        return value

    def value(self, name: str, limit: int = MAX_CONFIG) -> object:
        """What a file of JSON holds, be it an object or not."""
        path = self.root / name
        self.check(path)
        try:
            with open_regular(path) as file:
                raw = file.read(limit + 1)
        except OSError as error:
            raise unreadable(path, error) from error
        try:
            if len(raw) > limit:
                raise ValueError(f"it is larger than {limit:,} bytes")
            value = strictjson.parse(raw, constants=True)
            strictjson.check_depth(value)
        except ValueError as error:
            raise _no_config(path, str(error)) from None
        return value

    def config(self, name: str) -> dict[str, object]:
        """The same for a config that may not ask for code of its own."""
        config = self.json(name)
        if asked := code_asked_for(config):
            raise asks_for_code(self.root / name, asked)
        return config

    def look_for_code(self, folder: Path, names: frozenset[str]) -> None:
        """Keep the names of what would be code elsewhere; here it is never run."""
        found = sorted(name for name in names if PurePath(name).suffix.lower() in CODE)
        if found:
            inside = [shown((folder / name).relative_to(self.root).as_posix()) for name in found]
            more = f" and {len(inside) - 3} more" if len(inside) > 3 else ""
            self.reasons.append(f"it comes with code, which Bottega never runs: {', '.join(inside[:3])}{more}")

    def take(self, header: Header) -> Mapping[str, TensorInfo]:
        """The tensors of one of the files; what was noted of it is noted of the folder."""
        name = header.path.relative_to(self.root).as_posix()
        self.notes += (f"{shown(name)}: {note}" for note in header.notes)
        self.reasons += (f"{shown(name)}: {reason}" for reason in header.safety.reasons)
        self._mentioned += header.safety.names
        if header.safety.verdict != "clean" and not header.safety.reasons:
            self.reasons.append(f"{shown(name)} is unusual")
        return header.tensors

    def header(
        self, format: str, tensors: Mapping[str, TensorInfo], configs: Mapping[str, Mapping[str, object]]
    ) -> Header:
        """The header of the whole folder."""
        names = tuple(dict.fromkeys(self._mentioned))
        safety = Safety("unusual" if self.reasons else "clean", names, tuple(self.reasons))
        return Header(self.root, format, tensors, configs=configs, notes=tuple(self.notes), safety=safety)

    @cached_property
    def _places(self) -> tuple[Path, ...]:
        return places_of(self.root)


def code_asked_for(config: Mapping[str, object]) -> str:
    """The key with which a config asks for code of its own, and what it says; empty if it does not.

    The configs of the models that one is made of lie inside of it, and each of them may ask.
    """
    level: list[object] = [config]
    while level:
        for each in level:
            if not isinstance(each, dict):
                continue
            for key in _CODE_KEYS:
                if value := each.get(key):
                    return f"{key} {shown(value if isinstance(value, str) else json.dumps(value))}"
        level = [child for each in level for child in strictjson.children(each)]
    return ""


def asks_for_code(path: Path, what: str) -> FormatError:
    """The error for a model that is nothing without code of its own."""
    return FormatError(path, f"it asks to run code of its own ({what})", "Bottega never does: get a version without it")


def _no_config(path: Path, why: str) -> FormatError:
    return FormatError(path, f"this config can't be read: {why}", "download it again")


def is_plain(name: str) -> bool:
    """Whether a name can only mean something in the same folder, on any system."""
    return (
        name not in ("", ".", "..")
        and not any(character in name for character in "/\\:\0")
        and PurePosixPath(name).name == PureWindowsPath(name).name == name
    )
