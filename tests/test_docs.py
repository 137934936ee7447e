"""The documents tell the truth: tables match the code, links lead somewhere, and every command and example works."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import Command

from bottega import events
from bottega.adapters import all_adapters
from bottega.cli import COMMANDS
from bottega.diffusion.names import SAMPLERS, SCHEDULES
from bottega.families import all_families, known
from bottega.settings import Settings, read_settings

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(bottega [^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
SHAPE = re.compile(r"<!-- shape: (\w+) -->\n```json\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# Objects of which the guide shows a part, because their members depend on the model or the machine.
OPEN = {
    "about",
    "corrected",
    "dimensions",
    "facts",
    "fields",
    "knobs",
    "metadata",
    "parts",
    "told",
    "unreadable",
    "versions",
}


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """docs/generate.py as a module."""
    spec = spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of a page in one of these languages."""
    return [text for language, text in FENCE.findall(page.read_text(encoding="utf-8")) if language in languages]


# --- the reference ---------------------------------------------------------------------------------------------------


def test_the_reference_is_up_to_date(generate: ModuleType) -> None:
    told = (DOCS / "reference.md").read_text(encoding="utf-8")
    assert told == generate.reference(), "run `python docs/generate.py`"


def everything() -> Iterator[str]:
    """The first cell of the row that each thing must have."""
    for face in all_families():
        yield f"`{face.id}`"
        yield from (f"`{task}`" for task in face.tasks)
        yield from (f"`{knob.name}`" for knob in face.knobs)
    yield from (f"`{face.id}`" for face in (*known(), *all_adapters()))
    yield from (sampler.name for sampler in SAMPLERS)
    yield from (schedule.name for schedule in SCHEDULES)
    yield from (f"`{setting.name}`" for setting in fields(Settings) if setting.name != "home")
    yield from (f"`{kind.__name__}`" for kind in events.Event.__subclasses__())


def test_everything_has_its_row_in_the_reference() -> None:
    told = (DOCS / "reference.md").read_text(encoding="utf-8")
    assert [thing for thing in everything() if f"\n| {thing} |" not in told] == []


def test_every_command_is_in_the_reference(generate: ModuleType) -> None:
    told = (DOCS / "reference.md").read_text(encoding="utf-8")
    assert all(f"### `bottega {command}" in told for command in COMMANDS)


# --- links and commands ----------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The names by which the headings of a page can be linked to, as GitHub makes them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    dead = []
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


def command_lines(page: Path) -> list[str]:
    """Every `bottega ...` of a page: lines of its shell blocks, up to a pipe, and what is in the type of code."""
    lines = [line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()]
    shell = [line.partition(" | ")[0] for line in lines if line.startswith("bottega ")]
    return shell + INLINE.findall(FENCE.sub("", page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_line_parses(page: Path, generate: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    parsers = {command: generate.parser_of(command) for command in COMMANDS}
    leaves = {leaf.prog for parser in parsers.values() for leaf in generate.leaves(parser)}
    # A command that is only named needs no arguments.
    named = leaves | {f"bottega {command}" for command in COMMANDS} | {"bottega make image"}
    wrong = []
    for line in command_lines(page):
        words = shlex.split(line, comments=True)[1:]
        if line in named or words == ["--help"]:
            continue
        try:
            parsers[words[0]].parse_args(words[1:])
        except KeyError:
            wrong.append(line)
        except SystemExit as stop:
            if stop.code != 0:
                wrong.append(f"{line}: {capsys.readouterr().err}")
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_make_target_is_in_the_makefile(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^make ([a-z]+)", "\n".join(blocks(page, "sh")), re.MULTILINE)
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


def test_the_settings_in_the_guide_are_read(tmp_path: Path) -> None:
    [text] = blocks(DOCS / "guide.md", "toml")
    (tmp_path / "settings.toml").write_text(text, encoding="utf-8")
    settings = read_settings({"BOTTEGA_HOME": str(tmp_path)})
    assert set(tomllib.loads(text)) == {setting.name for setting in fields(Settings)} - {"home", "allow_loopback"}
    assert settings.model == "castles"


# --- what runs -------------------------------------------------------------------------------------------------------


def differences(told: Any, real: Any, place: str = "") -> Iterator[str]:
    """Where a document in the guide has other members than the real one."""
    if isinstance(told, Mapping):
        if not isinstance(real, Mapping):
            yield f"{place} is {real!r}"
            return
        if place.rpartition(".")[2] not in OPEN:
            yield from (f"{place}.{key} is missing in the guide" for key in real.keys() - told.keys())
        yield from (f"{place}.{key} is only in the guide" for key in told.keys() - real.keys())
        for key in told.keys() & real.keys():
            yield from differences(told[key], real[key], f"{place}.{key}")
    elif isinstance(told, list):
        if not isinstance(real, list):
            yield f"{place} is {real!r}"
        elif told and real:
            yield from differences(told[0], real[0], f"{place}.0")
    elif real is not None and told is not None and type(told) is not type(real):
        yield f"{place} is {real!r}"


@pytest.mark.slow
def test_json_has_the_shape_that_the_guide_shows(bottega: Command, tmp_path: Path) -> None:
    out, shelf = tmp_path / "out.png", tmp_path / "shelf"
    shelf.mkdir()
    (shelf / "old.ckpt").write_bytes(b"<html>")
    real = {
        "make": bottega("make", "image", "a red house", "--steps", 2, "--out", out, "--json").json,
        "show": bottega("show", out, "--json").json,
        "check": bottega("replay", out, "--check", "--json").json,
        "scan": bottega("models", "scan", shelf, "--json").json,
        "list": next(each for each in bottega("models", "list", "--json").json if each["name"] == "starter-image"),
        "doctor": bottega("doctor", "--json").json,
    }
    told = {kind: json.loads(text) for kind, text in SHAPE.findall((DOCS / "guide.md").read_text(encoding="utf-8"))}
    assert told.keys() == real.keys()
    assert [line for kind in told for line in differences(told[kind], real[kind], kind)] == []


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(blocks(DOCS / "python.md", "python"))))
def test_the_python_in_the_docs_runs(index: int, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = blocks(DOCS / "python.md", "python")[index].replace("steps=20", "steps=2")
    exec(compile(text, f"docs/python.md, block {index}", "exec"), {"__name__": "docs"})  # noqa: S102  our own text


def run_script(script: str, *words: object) -> subprocess.CompletedProcess[str]:
    """A script of the repository in a process of its own, which must end well and warn of nothing."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / script), *map(str, words)],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran


@pytest.mark.slow
def test_the_examples_run(home: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    made = run_script("examples/make_a_picture.py", "a red house", "--steps", 2, "--out", pictures)
    assert "seed " in made.stdout

    words = ("--samplers", "Euler a", "DDIM", "--steps", 1, 2, "--out", tmp_path / "grid.png")
    assert "Euler a, 2" in run_script("examples/grid.py", "a red house", *words).stdout
    assert (tmp_path / "grid.png").exists()

    header, row = run_script("examples/recipes_to_csv.py", pictures).stdout.splitlines()
    assert header.startswith("file,width,height,model")
    assert "128,128,starter-image,DPM++ 2M,2," in row and row.endswith("a red house,")


@pytest.mark.slow
def test_the_picture_of_the_readme_can_be_made_again(home: Path, tmp_path: Path) -> None:
    run_script("docs/make_pictures.py", "--steps", 1, "--out", tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").exists()


def test_every_example_is_tested() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    assert [path.name for path in (ROOT / "examples").glob("*.py") if f"examples/{path.name}" not in here] == []
