"""A1111's options, as far as they change a picture: what each means here, and what each user has chosen."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any

from bottega.engine.a1111 import SETTINGS, SWITCH_OPTIONS
from bottega.engine.save import write_whole
from bottega.errors import FieldProblem, FileError, InvalidRecipe
from bottega.families import all_families
from bottega.recipe import KnobValue, Output

FORMATS = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp"}
AUTOMATIC_VAE = ("", "automatic")
NOTHING = ("", "none")  # what an option says that chooses no adapter
# A1111's options that choose an adapter, and of what kind each is.
ADAPTERS: Mapping[str, str] = {"sd_vae": "vae", "sd_hypernetwork": "hypernetwork", "sd_lora": "lora"}
MODEL, HASH = "sd_model_checkpoint", "sd_checkpoint_hash"

# A1111's options that are knobs of ours.
KNOBS: Mapping[str, str] = {
    **{setting.option: setting.knob for setting in SETTINGS if setting.option},
    **{option: knob for knob, (option, _, _) in SWITCH_OPTIONS.items()},
    "randn_source": "noise_source",
}
_OFF_AND_ON = {option: (off, on) for option, off, on in SWITCH_OPTIONS.values()}

# What an option is until somebody changes it.
DEFAULTS: Mapping[str, KnobValue] = {
    "samples_format": "png",
    "jpeg_quality": Output().quality,
    "sd_vae": "Automatic",
    "sd_hypernetwork": "None",
    "sd_lora": "None",
    "extra_networks_default_multiplier": 1.0,
    "randn_source": "CPU",
    **{setting.option: setting.default for setting in SETTINGS if setting.option},
    **{option: off for option, (off, _) in _OFF_AND_ON.items()},
}
# What clients may ask for and can't change: every picture is saved, with its recipe, and there are no grids.
FIXED: Mapping[str, KnobValue] = {
    "samples_save": True,
    "grid_save": False,
    "return_grid": False,
    "enable_pnginfo": True,
    "save_txt": False,
    "live_previews_enable": True,
    "img2img_fix_steps": False,
    "img2img_color_correction": False,
}


def checked(name: str, value: Any) -> KnobValue:
    """An option's value as it is kept: numbers also as texts, whole numbers also as 2.0.

    Raises InvalidRecipe, with the option as the field, for a value that it can't have.
    """
    if name == MODEL:
        if isinstance(value, str):
            return value
        raise _problem(name, f"{value!r} is no model's title", "see /sdapi/v1/sd-models")
    if name == "samples_format":
        if isinstance(value, str) and value.lower() in FORMATS:
            return value.lower()
        raise _problem(name, f"{value!r} is no format of ours", f"use one of {', '.join(FORMATS)}")
    if name in _OFF_AND_ON:
        for each in _OFF_AND_ON[name]:
            if value == each:  # 1 is true, and told as that
                return each
        raise _problem(name, f"{value!r} can't be had", "use one of {}, {}".format(*_OFF_AND_ON[name]))
    default = DEFAULTS[name]
    typed = _as(type(default), value)
    if typed is None:
        raise _problem(name, f"{value!r} is not what this option takes", f"such as {default!r}")
    if name in ADAPTERS and not typed:
        return default
    if name == "jpeg_quality" and not 1 <= float(typed) <= 100:
        raise _problem(name, f"{value!r} is not between 1 and 100")
    if wrong := _knob_problem(KNOBS.get(name), typed):
        raise _problem(name, wrong)
    return typed


def _as(kind: type, value: Any) -> KnobValue | None:
    if kind is str:
        return "" if value is None else value if isinstance(value, str) else None
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    if not isfinite(number):  # which no recipe can hold, nor any JSON that is told
        return None
    if kind is float:
        return number
    return int(number) if number.is_integer() else None


def _knob_problem(name: str | None, value: KnobValue) -> str | None:
    known = {knob.name: knob for face in all_families() for knob in face.knobs}
    return known[name].check(value) if name in known else None


def _problem(name: str, what: str, remedy: str = "") -> InvalidRecipe:
    return InvalidRecipe([FieldProblem(name, what, remedy)])


def known_options(told: Mapping[str, Any]) -> dict[str, KnobValue]:
    """Those of some options that are known here, checked; strangers are left out, as A1111's clients send many.

    Raises InvalidRecipe for values that can't be used, all at once.
    """
    known: dict[str, KnobValue] = {}
    problems: list[FieldProblem] = []
    for name, value in told.items():
        if value is None or (name != MODEL and name not in DEFAULTS):  # null leaves an option as it is
            continue
        try:
            known[name] = checked(name, value)
        except InvalidRecipe as error:
            problems += error.problems
    if problems:
        raise InvalidRecipe(problems)
    return known


def knob_value(option: str, value: KnobValue) -> KnobValue:
    """What an option's value is as the value of its knob."""
    return value == _OFF_AND_ON[option][1] if option in _OFF_AND_ON else value


class Chosen:
    """What each user has chosen, kept in one file of the home; safe to use from several threads."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._all: dict[str, dict[str, KnobValue]] | None = None

    def of(self, owner: str) -> dict[str, KnobValue]:
        """The options of this user that are not as they were to begin with."""
        with self._lock:
            return dict(self._read().get(owner, {}))

    def change(self, owner: str, options: Mapping[str, KnobValue]) -> None:
        """Keep these options for this user; those that are as they were to begin with are forgotten.

        Raises SaveError where the home can't be written.
        """
        with self._lock:
            kept = {**self._read().get(owner, {}), **options}
            kept = {name: value for name, value in kept.items() if value != DEFAULTS.get(name, "")}
            told = {**self._read(), owner: kept}
            write_whole(self._file, json.dumps(told, indent=1, ensure_ascii=False).encode())
            self._all = told

    def _read(self) -> dict[str, dict[str, KnobValue]]:
        if self._all is None:
            try:
                told = json.loads(self._file.read_bytes())
            except FileNotFoundError:
                told = {}
            except ValueError as error:
                raise FileError(self._file, f"is no valid JSON ({error})", "move it away") from None
            self._all = {owner: _still_known(options) for owner, options in told.items()}
        return self._all


def _still_known(kept: Mapping[str, Any]) -> dict[str, KnobValue]:
    """Kept options without those that an earlier version took and this one does not."""
    known: dict[str, KnobValue] = {}
    for name, value in kept.items():
        with suppress(InvalidRecipe):
            known |= known_options({name: value})
    return known
