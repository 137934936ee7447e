"""What is installed is what was pinned: every file of it has to have the hash that it had then."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def pins(name: str) -> dict[str, Requirement]:
    """The pins of a file by their names."""
    lines = re.sub(r"\\\n|#.*", "", (ROOT / name).read_text()).splitlines()
    told = [Requirement(HASH.sub("", line)) for line in lines if line.strip()]
    assert len(told) == len({each.name for each in told})
    return {canonicalize_name(each.name): each for each in told}


def test_everything_that_is_pinned_is_pinned_with_hashes_but_torch() -> None:
    core, dev = pins("requirements.txt"), pins("requirements-dev.txt")
    assert not core.keys() & dev.keys()
    told = {name: str(each.specifier) for name, each in pins("constraints.txt").items()}
    assert told.pop("torch")  # its files differ from one kind of machine to the other, and with what it is fetched from
    assert {name: str(each.specifier) for name, each in (core | dev).items()} == told
    for name in ("requirements.txt", "requirements-dev.txt"):
        for entry in re.split(r"\n(?=\S)", (ROOT / name).read_text()):
            assert entry.startswith("#") or HASH.search(entry), entry


def test_the_pins_are_what_the_ranges_admit() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {name: str(each.specifier).removeprefix("==") for name, each in pins("constraints.txt").items()}
    for line in (*told["dependencies"], *told["optional-dependencies"]["dev"], *told["optional-dependencies"]["train"]):
        wanted = Requirement(line)
        if wanted.name != "bottega":
            assert wanted.specifier.contains(pinned[canonicalize_name(wanted.name)]), line
