"""Tell whether a file or a folder holds nothing but data, by what is in it; nothing is run and no shelf is asked."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bottega.cli.terminal import Whole, labelled, pairs, print_json
from bottega.errors import DangerousModel, FileError, FormatError
from bottega.library import Catalog
from bottega.settings import Settings

DESCRIPTION = (
    "Tell whether a model file or folder is clean (nothing but data), unusual (it names what Bottega does not know and "
    "ignores) or refused (broken, or it would run code). The exit code is 0, 1 or 2. Nothing in it is run."
)

EXIT_CODES = {"clean": 0, "unusual": 1, "refused": 2}
_MODEL_KINDS = ("safetensors", "pickle", "zip", "gguf")
_MODEL_SUFFIXES = (
    ".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".pt2", ".bin", ".gguf", ".pkl", ".pickle", ".p", ".joblib",
    ".dill", ".npy", ".npz",
)  # fmt: skip
_CODE_KINDS = ("program", "script", "python")
_PACKED_KINDS = ("7z", "rar", "tar", "torch-tar", "gzip", "xz", "bzip2", "zstd", "lz4")


@dataclass(frozen=True)
class Checked:
    """What was found out about one file or folder; `format` is empty where it is none that Bottega reads."""

    verdict: str
    format: str = ""
    names: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    tensors: int = 0


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega models check`."""
    parser.add_argument("path", type=Path, metavar="PATH", help="a model file, or a folder of them")


def run(args: argparse.Namespace, settings: Settings, catalog: Catalog) -> int:
    """Check one path."""
    if not os.path.lexists(args.path):
        raise FileError(args.path, "there is no such file", "check the path; `check` takes no names")
    checked = check_folder(args.path) if args.path.is_dir() else check(args.path)
    if args.json:
        print_json(to_json(args.path, checked))
    else:
        print(text(args.path, checked))
    return EXIT_CODES[checked.verdict]


def check(path: Path) -> Checked:
    """The verdict on one file, or on a folder as the one model that it is."""
    from bottega.formats import read_header

    try:
        header = read_header(path)
    except FormatError as error:
        what = error.what.removeprefix(f"{error.path}: ")
        inside = "" if error.path == path else f"{error.path.name}: "
        names = error.names if isinstance(error, DangerousModel) else ()
        return Checked("refused", "", names, (inside + what,), (error.remedy,) if error.remedy else ())
    safety = header.safety
    return Checked(safety.verdict, header.format, safety.names, safety.reasons, header.notes, len(header.tensors))


def check_folder(folder: Path) -> Checked:
    """The worst verdict on the files of a folder, and on the model that the folder itself is, if it is one."""
    from bottega.formats.folder import is_model as is_model_folder
    from bottega.formats.links import places_of

    is_model = is_model_folder([path.name for path in folder.iterdir()])
    checked = [check(folder)] if is_model else []
    places = places_of(folder)
    for path, kind in _files(folder):
        name = path.relative_to(folder)
        inner = _beside(kind) if kind in (*_CODE_KINDS, *_PACKED_KINDS) else _inside(path, places)
        checked.append(replace(inner, reasons=_in(name, inner.reasons), notes=_in(name, inner.notes), tensors=0))
        if not is_model:
            checked[-1] = replace(checked[-1], tensors=inner.tensors)
    if not checked:
        return Checked("refused", reasons=("there is no model in this folder",))
    worst = max(checked, key=lambda each: EXIT_CODES[each.verdict])
    return Checked(
        worst.verdict,
        checked[0].format if is_model else "folder",
        tuple(dict.fromkeys(name for each in checked for name in each.names)),
        tuple(dict.fromkeys(reason for each in checked for reason in each.reasons)),
        tuple(dict.fromkeys(note for each in checked for note in each.notes)),
        sum(each.tensors for each in checked),
    )


def _inside(path: Path, places: tuple[Path, ...]) -> Checked:
    """The verdict on a file of a folder; what is no model is not quoted where a link leads to it out of the folder."""
    from bottega.formats.links import check_place

    checked = check(path)
    if checked.verdict == "refused":
        try:
            check_place(path, places)
        except FormatError as error:
            return Checked("refused", reasons=(error.what.removeprefix(f"{error.path}: "),), notes=(error.remedy,))
    return checked


def _in(name: Path, lines: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{name}: {line}" for line in lines)


def _beside(kind: str) -> Checked:
    """The verdict on what is no model and lies beside one."""
    from bottega.formats.sniff import KINDS

    note = "which is not run" if kind in _CODE_KINDS else "which is not looked into"
    return Checked("unusual", reasons=(f"{KINDS[kind][0]}, {note}",))


def _files(folder: Path) -> Iterator[tuple[Path, str]]:
    """The files under a folder that are worth a verdict, with what sniffing says that they are: models and what is
    called like one, code, archives. Links to folders are not followed."""
    from bottega.formats.sniff import sniff

    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            try:
                kind = sniff(path)
            except FormatError:  # it can't be read: checking it says so
                yield path, ""
                continue
            is_called_so = kind != "special" and path.suffix.lower() in _MODEL_SUFFIXES
            if is_called_so or kind in (*_MODEL_KINDS, *_CODE_KINDS, *_PACKED_KINDS):
                yield path, "" if is_called_so else kind


def text(path: Path, checked: Checked) -> str:
    """The verdict for a terminal."""
    return pairs(
        [
            ("verdict", checked.verdict),
            ("path", Whole(path)),
            *([("format", checked.format)] if checked.format else []),
            *([("tensors", f"{checked.tensors:,}")] if checked.verdict != "refused" else []),
            *labelled("names", checked.names),
            *labelled("because", checked.reasons),
            *labelled("note", checked.notes),
        ],
        sys.stdout,
    )


def to_json(path: Path, checked: Checked) -> dict[str, Any]:
    """The verdict as the one document of `--json`; the SHA-256 is not computed."""
    return {
        "path": str(path),
        "verdict": checked.verdict,
        "format": checked.format or None,
        "names": list(checked.names),
        "reasons": list(checked.reasons),
        "notes": list(checked.notes),
        "tensors": checked.tensors,
        "sha256": None,
    }
