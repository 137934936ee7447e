"""Tell what this machine has and what it can do; problems come first, each with what to do about it."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bottega.cli.models.shelves import all_shelves, plural
from bottega.cli.terminal import pairs, print_json, printable, size_text
from bottega.errors import BottegaError
from bottega.library import Catalog, Entry, open_catalog
from bottega.settings import STARTER_SHELF, Settings
from bottega.starters import know_starter
from bottega.version import __version__

LIBRARIES = ("torch", "diffusers", "transformers", "tokenizers", "numpy", "scipy", "pillow", "pydantic")
STARTER = "starter-image"
LITTLE_DISK = 2_000_000_000  # bytes; less holds no model, and soon no picture
LITTLE_MEMORY = 2_000_000_000


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be; with a `fatal` one no picture can be made."""

    what: str
    remedy: str
    fatal: bool = False


@dataclass
class Findings:
    """What was found, by name, and what is wrong with it."""

    facts: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def can_make(self) -> bool:
        """Whether pictures can be made here."""
        return not any(problem.fatal for problem in self.problems)


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega doctor`."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Examine the machine; exit code 1 if it can't make pictures."""
    findings = examine(settings)
    if args.json:
        problems = [asdict(problem) for problem in findings.problems]
        print_json({"can_make_images": findings.can_make, "problems": problems, "facts": findings.facts})
    else:
        print(report(findings))
    return 0 if findings.can_make else 1


def report(findings: Findings) -> str:
    """What was found, for people."""
    verdict = "This machine can make pictures." if findings.can_make else "This machine can't make pictures yet."
    lines = [
        f"{'problem' if problem.fatal else 'note'}: {printable(problem.what)}; {printable(problem.remedy)}"
        for problem in sorted(findings.problems, key=lambda problem: not problem.fatal)
    ]
    return "\n\n".join(filter(None, ["\n".join(lines), pairs(list(findings.facts.items())), verdict]))


def examine(settings: Settings) -> Findings:
    """Look at everything that a picture needs."""
    findings = Findings()
    findings.facts["bottega"] = f"{__version__} in {Path(__file__).parents[1]}"
    findings.facts["python"] = f"{platform.python_version()} ({sys.executable})"
    findings.facts["system"] = f"{platform.system()} {platform.release()}, {platform.machine()}"
    findings.facts["sqlite"] = sqlite3.sqlite_version
    _examine_libraries(findings)
    if findings.can_make:
        _examine_device(findings, settings)
    _examine_memory(findings)
    _examine_folder(findings, "home", settings.home)
    _examine_folder(findings, "outputs", settings.outputs, fatal=True)
    try:
        with open_catalog(settings.catalog) as catalog:
            _examine_models(findings, settings, catalog)
    except BottegaError as error:
        findings.problems.append(Problem(error.what, error.remedy, fatal=True))
    return findings


def _examine_libraries(findings: Findings) -> None:
    for name in LIBRARIES:
        try:
            findings.facts[name] = version(name)
        except PackageNotFoundError:
            findings.facts[name] = "not there"
            remedy = "install Bottega again: pip install --force-reinstall bottega"
            findings.problems.append(Problem(f"the library {name} is not installed", remedy, fatal=True))


def _examine_device(findings: Findings, settings: Settings) -> None:
    try:
        import torch

        from bottega.runtime import place
    except (ImportError, OSError) as error:  # a broken build of torch fails to load its libraries
        remedy = "install Bottega again: pip install --force-reinstall bottega"
        findings.problems.append(Problem(f"torch can't be loaded ({error})", remedy, fatal=True))
        return
    findings.facts["torch"] += f", {plural(torch.get_num_threads(), 'thread')}"
    try:
        chosen = place.choose(settings.device, settings.precision)
    except BottegaError as error:
        findings.problems.append(Problem(error.what, error.remedy or "mend settings.toml", fatal=True))
        return
    findings.facts["device"] = f"{chosen.device}, {place.device_name(chosen.device)}"
    findings.facts["precision"] = f"{chosen.precision}: {chosen.why}"
    findings.facts["device memory"] = f"{size_text(chosen.memory)} free"
    if chosen.memory < LITTLE_MEMORY:
        remedy = "close other programs; starter-image and small pictures may still do"
        findings.problems.append(Problem(f"only {size_text(chosen.memory)} of memory are free", remedy))


def _examine_memory(findings: Findings) -> None:
    from bottega.runtime.plan import available_memory

    findings.facts["memory"] = f"{size_text(available_memory())} free, {plural(os.cpu_count() or 1, 'processor')}"


def _examine_folder(findings: Findings, name: str, folder: Path, *, fatal: bool = False) -> None:
    """Whether a folder, or the one in which it will be made, can be written and has room."""
    there = next((place for place in (folder, *folder.parents) if place.is_dir()), Path("/"))
    free = shutil.disk_usage(there).free
    findings.facts[name] = f"{folder}, {size_text(free)} free"
    if not os.access(there, os.W_OK | os.X_OK):
        remedy = "change its permissions, or set BOTTEGA_HOME to another folder"
        findings.problems.append(Problem(f"{name} can't be written: {there} is read-only", remedy, fatal))
    elif free < LITTLE_DISK:
        findings.problems.append(Problem(f"only {size_text(free)} are free at {there}", "free some space"))


def _examine_models(findings: Findings, settings: Settings, catalog: Catalog) -> None:
    if catalog.note:
        findings.problems.append(Problem(catalog.note, "models are looked for anew by every command"))
    know_starter(catalog)
    entries = catalog.entries()
    for shelf in all_shelves(settings, catalog):
        count = sum(entry.shelf == shelf and not entry.error for entry in entries)
        there = "" if shelf.is_dir() else ", not there"
        findings.facts[f"shelf {shelf}"] = plural(count, "model") + there
        if there and shelf != settings.home / "models":  # that one comes to be when something is put on it
            findings.problems.append(Problem(f"the shelf {shelf} is not there", "mount it, or name another one"))
    usable = [entry for entry in entries if entry.kind == "checkpoint" and entry.family and not entry.error]
    findings.facts["checkpoints"] = f"{len(usable)} that can be used"
    findings.problems += _starter_problems(catalog, entries)
    if not usable:
        remedy = "put a checkpoint on a shelf and run `bottega models scan`"
        findings.problems.append(Problem("there is no model to make pictures with", remedy, fatal=True))


def _starter_problems(catalog: Catalog, entries: list[Entry]) -> Iterator[Problem]:
    """What is wrong with the model that comes with Bottega: missing, refused, or other bytes than were shipped."""
    from bottega.library.hashes import sha256_of

    again = "install Bottega again"
    starter = next((entry for entry in entries if entry.shelf == STARTER_SHELF and entry.name == STARTER), None)
    if starter is None or not starter.path.exists():
        yield Problem(f"{STARTER} is not there", again)
    elif starter.error:
        yield Problem(f"{STARTER}: {starter.error}", again)
    elif (shipped := shipped_hash(starter.path)) and sha256_of(catalog, starter).sha256 != shipped:
        yield Problem(f"{STARTER} is not the file that was shipped", again)


def shipped_hash(path: Path) -> str:
    """The SHA-256 that the file had when it was shipped, from `NAME.sha256` beside it; empty if there is none."""
    beside = path.with_suffix(".sha256")
    return beside.read_text(encoding="ascii").split()[0] if beside.is_file() else ""
