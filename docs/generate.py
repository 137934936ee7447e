"""Write docs/reference.md from the code: `python docs/generate.py`, or with `--check` tell whether it is up to date."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import bottega
from bottega import events
from bottega.adapters import all_adapters
from bottega.cli import COMMANDS
from bottega.diffusion.names import SAMPLERS, SCHEDULES, Sampler
from bottega.errors import BottegaError
from bottega.families import all_families, known
from bottega.settings import Settings
from bottega.spec import Family, Knob

REFERENCE = Path(__file__).with_name("reference.md")

HEAD = """\
# Reference

Every command, family, known model, adapter, task, knob, sampler, schedule, setting, event and error, in tables. The
[guide](guide.md) explains them.

This file is written by `python docs/generate.py` from the code. Don't edit it.
"""

# Settings is the one face without words of its own: its fields are plain.
SETTINGS = {
    "shelves": (
        "list of folders",
        "more shelves, read in place; within `BOTTEGA_HOME` unless they begin with `/` or `~`",
    ),
    "outputs": (
        "folder",
        "where outputs go when `--out` does not say; within `BOTTEGA_HOME` unless it begins with `/`",
    ),
    "model": ("model", "the model that is used when `--model` does not say: a name, a path or a hash"),
    "device": ("`auto`, `cuda`, `cuda:1`, `mps`, `cpu`", "where models run; `BOTTEGA_DEVICE` goes before it"),
    "precision": (
        "`auto`, `float32`, `bfloat16`, `float16`",
        "the number format of the networks where the recipe says `auto`",
    ),
    "civitai_url": ("`https` address", "where `models get` asks for Civitai's models: the site, or a mirror of it"),
    "huggingface_url": ("`https` address", "the same for Hugging Face"),
    "proxy": (
        "empty, `environment`, or an address",
        "connect directly, as `https_proxy` and `no_proxy` say, or through this proxy",
    ),
    "parallel_downloads": ("1 to 8", "how many files are fetched at once"),
    "keep_free_mb": ("MiB", "what a download leaves free on the disk"),
    "stall_seconds": ("seconds", "how long a download waits for a server that has fallen silent"),
    "trash_days": ("days", "how long deleted outputs stay in the trash, from where they can be restored"),
    "model_memory_mb": (
        "MiB",
        "how much of the device's memory models may hold while no job needs them; 0 is a share of what it has",
    ),
    "host": ("address", "where `serve` listens: this machine only, unless it is told otherwise"),
    "port": ("0 to 65535", "the port of `serve`"),
    "names": (
        "list of names",
        "further names that `serve` answers under: `studio.lan`, or `https://studio.example` behind a program that "
        "keeps the certificate",
    ),
    "open_doors": (
        "`true`, `false`",
        "whether this machine's programs may use the APIs of other workbenches without a key, as long as nobody else "
        "can reach the server",
    ),
    "requests_per_second": ("number", "how many requests one caller may send in the long run"),
    "fetch_pictures": ("`true`, `false`", "whether a request may name a picture by its `https` address"),
    "allow_loopback": (
        "never in the file",
        "for tests: with `BOTTEGA_ALLOW_LOOPBACK=1` this machine's own addresses may be fetched from, "
        "also without encryption",
    ),
}

# What a sampler's flags mean to somebody who chooses one.
TRAITS = {
    "timesteps": "takes no schedule",
    "spans": "of the schedule only the ends count",
    "adaptive": "decides the number of steps itself",
    "second_order": "counts two network calls a step",
}

# Where classes of errors are; the rooms beyond need torch and raise only these.
ROOMS = ("api", "cli", "engine", "formats", "library")


def reference() -> str:
    """The whole page."""
    families = all_families()
    chapters = (
        ("Commands", commands()),
        ("Families", family_table(families)),
        ("Known models", known_table()),
        ("Adapters and parts", adapter_table()),
        ("Tasks", task_table(families)),
        ("Knobs", knob_table(families)),
        ("Samplers", sampler_table()),
        ("Schedules", schedule_table()),
        ("Settings", setting_table()),
        ("Events", event_table()),
        ("Errors", error_table()),
    )
    return "\n".join([HEAD, *(f"## {title}\n\n{text}\n" for title, text in chapters)])


def commands() -> str:
    """Each command's usage, and what its arguments mean."""
    return "\n\n".join(command_text(parser) for name in COMMANDS for parser in leaves(parser_of(name)))


def parser_of(name: str) -> argparse.ArgumentParser:
    """The parser of one command group, as the command line builds it."""
    parser = argparse.ArgumentParser(prog=f"bottega {name}", allow_abbrev=False)
    import_module(f"bottega.cli.{name}").configure(parser)
    return parser


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers of a group's actions, or the parser itself if it has none."""
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not inner:
        yield parser
    for action in inner:
        for child in action.choices.values():
            yield from leaves(child)


def command_text(parser: argparse.ArgumentParser) -> str:
    """One command: its name, and a table of its arguments."""
    rows = [
        (code(argument_text(action)), action.help or "")
        for action in parser._actions
        if not isinstance(action, argparse._HelpAction)
    ]
    return f"### `{parser.prog}`\n\n{table(('argument', 'meaning'), rows) if rows else 'It takes no arguments.'}"


def argument_text(action: argparse.Action) -> str:
    """An argument as one writes it: `--steps N`, `FILE`, `image`."""
    value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else "")
    value = value if isinstance(value, str) else " ".join(value)
    return " ".join(filter(None, (" | ".join(action.option_strings), value)))


def family_table(families: Sequence[Family]) -> str:
    """What models can be used."""
    rows = [
        (code(face.id), face.title, face.medium, ", ".join(map(code, face.tasks)))
        for face in sorted(families, key=lambda face: face.id)
    ]
    return table(("family", "title", "medium", "tasks"), rows)


def known_table() -> str:
    """What is told by its header, and can't be run yet."""
    rows = [(code(face.id), face.title, face.medium) for face in sorted(known(), key=lambda face: face.id)]
    return table(("id", "title", "medium"), rows)


def adapter_table() -> str:
    """What changes or completes models, and is told by its header."""
    return table(("id", "title"), [(code(face.id), face.title) for face in all_adapters()])


def task_table(families: Sequence[Family]) -> str:
    """What can be made from what."""
    tasks = {task.id: task for face in families for task in face.tasks.values()}
    rows = [
        (
            code(task.id),
            ", ".join(["words", *(f"a picture as {code(role)}" for role in task.needs)]),
            ", ".join(code(face.id) for face in families if task.id in face.tasks),
        )
        for task in tasks.values()
    ]
    return table(("task", "made from", "families"), rows)


def knob_table(families: Sequence[Family]) -> str:
    """The settings of a picture beside the options of the command, by `--set KNOB=VALUE`."""
    every = dict.fromkeys(knob for face in families for knob in face.knobs)
    rows = [
        (
            code(knob.name),
            code(written(knob.default)),
            allowed(knob),
            knob.help,
            whose(knob, families),
        )
        for knob in every
    ]
    return "Given as `--set KNOB=VALUE`. A model may bring another default.\n\n" + table(
        ("knob", "default", "values", "meaning", "families"), rows
    )


def whose(knob: Knob, families: Sequence[Family]) -> str:
    """The families that have a knob."""
    having = [face for face in families if knob in face.knobs]
    return "all" if len(having) == len(families) else ", ".join(code(face.id) for face in having)


def written(value: object) -> str:
    """A value as `--set` takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def allowed(knob: Knob) -> str:
    """What a knob may be."""
    if knob.choices:
        return ", ".join(map(code, knob.choices))
    if knob.type is bool:
        return "`true`, `false`"
    kind = "whole number" if knob.type is int else "number" if knob.type is float else "text"
    return kind if knob.low is None else f"{kind} from {bound(knob.low)} to {bound(knob.high)}"


def bound(value: float | None) -> str:
    """One end of a range, the long ones as powers of two."""
    if value is None:
        return "any"
    return {2**63 - 1: "2^63 - 1", 2**31: "2^31", -(2**31): "-2^31"}.get(int(value), f"{value:g}")


def sampler_table() -> str:
    """How noise becomes a picture."""
    rows = [
        (
            sampler.name,
            ", ".join(map(code, (sampler.id, *sampler.aliases))),
            "none" if sampler.timesteps else sampler.schedule,
            ", ".join(code(knob) for knob in knobs_of(sampler)),
            "; ".join(words for flag, words in TRAITS.items() if getattr(sampler, flag)),
        )
        for sampler in SAMPLERS
    ]
    text = "Case, hyphens and underscores in a name do not matter. The schedule is what `Automatic` means.\n\n"
    return text + table(("sampler", "also called", "schedule", "knobs it obeys", "good to know"), rows)


def knobs_of(sampler: Sampler) -> list[str]:
    """The knobs that change what a sampler does."""
    known = {knob.name for face in all_families() for knob in face.knobs}
    names = ["eta_ddim" if sampler.timesteps and option == "eta" else option for option in sampler.options]
    return [name for name in (*names, *(("ensd",) if sampler.uses_ensd else ())) if name in known]


def schedule_table() -> str:
    """How the noise is spread over the steps."""
    rows = [
        (
            schedule.name,
            ", ".join(map(code, dict.fromkeys((schedule.id, *schedule.aliases)))),
            "" if schedule.rho is None else f"{schedule.rho:g}",
        )
        for schedule in SCHEDULES
    ]
    text = "`Automatic` takes the sampler's own. `rho` can be changed with `--set rho=VALUE`.\n\n"
    return text + table(("schedule", "also called", "rho"), rows)


def setting_table() -> str:
    """What `settings.toml` may say."""
    rows = [
        (code(field.name), SETTINGS[field.name][0], code(default_text(field)), SETTINGS[field.name][1])
        for field in dataclasses.fields(Settings)
        if field.name != "home"  # it is where the file is found
    ]
    text = "In `settings.toml` in Bottega's home. All are optional, and none changes what a resolved recipe makes.\n\n"
    return text + table(("setting", "value", "default", "meaning"), rows)


def default_text(field: dataclasses.Field[object]) -> str:
    """A setting's default as TOML."""
    if field.default == ():
        return "[]"
    return f'"{field.default}"' if isinstance(field.default, str | Path) else str(field.default).lower()


def event_table() -> str:
    """What a job says while it runs."""
    kinds = [kind for kind in vars(events).values() if inspect.isclass(kind) and issubclass(kind, events.Event)]
    rows = [
        (code(kind.__name__), ", ".join(code(field.name) for field in dataclasses.fields(kind)), first_line(kind))
        for kind in kinds
        if kind is not events.Event
    ]
    text = "In `bottega.events`. `to_json()` gives the fields, and the name in lower case as `event`.\n\n"
    return text + table(("event", "fields", "meaning"), rows)


def error_table() -> str:
    """What can go wrong, and the exit code that it ends a command with."""
    for room in ROOMS:
        package = import_module(f"bottega.{room}")
        for module in walk_packages(package.__path__, f"bottega.{room}."):
            import_module(module.name)
    found = [
        kind
        for kind in descendants(BottegaError)
        if kind.__module__ == "bottega.errors" or kind.__module__.split(".")[1] in ROOMS
    ]
    rows = [
        (code(kind.__name__), code(kind.__module__), str(kind.exit_code), first_line(kind))
        for kind in sorted(found, key=lambda kind: kind.__name__)
    ]
    text = "All are `BottegaError`: `what` says what happened, `remedy` what to do, and `str()` gives both.\n\n"
    return text + table(("error", "module", "exit code", "meaning"), rows)


def descendants(kind: type[BottegaError]) -> Iterator[type[BottegaError]]:
    """All classes of Bottega's own that derive from this one."""
    for child in kind.__subclasses__():
        if child.__module__.split(".")[0] == bottega.__name__:
            yield child
            yield from descendants(child)


def first_line(kind: type) -> str:
    """The first sentence of a class's description."""
    return (inspect.getdoc(kind) or "").splitlines()[0]


def code(text: str) -> str:
    """Text in the type of code."""
    return f"`{text}`"


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def main() -> int:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the page is out of date")
    text = reference()
    if not parser.parse_args().check:
        REFERENCE.write_text(text, encoding="utf-8")
    elif not REFERENCE.exists() or REFERENCE.read_text(encoding="utf-8") != text:
        print("docs/reference.md is out of date; run `python docs/generate.py`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
