"""Teach a model from a folder of pictures: `bottega train lora pictures/ --word neon --out neon.safetensors`."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottega.cli.make import model_name
from bottega.cli.progress import Progress
from bottega.cli.terminal import print_json, printable
from bottega.errors import FileError
from bottega.events import Learned, Note, Sampled, Step, Trained
from bottega.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Generator

    from bottega.engine.train import Prepared
    from bottega.events import Event
    from bottega.training.recipe import TrainingRecipe

KINDS = ("lora", "embedding", "hypernetwork", "full")
TOLD = 10  # how many times on the way the mean loss is told
# Fields that are asked for in a way of their own.
_OTHERWISE = ("version", "kind", "model", "data", "regularisation", "samples", "structure")


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega train`: every field of the training's recipe is an option."""
    parser.add_argument("kind", choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("data", nargs="+", type=Path, metavar="FOLDER", help="pictures, with captions beside them")
    parser.add_argument("--model", type=model_name, metavar="M", help="the model to teach (default: starter-image)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="what to write (default: on the home's shelf)")
    parser.add_argument("--force", action="store_true", help="replace what is there")
    parser.add_argument("--check", action="store_true", help="only look at pictures, captions and memory")
    parser.add_argument(
        "--regularisation", action="append", type=Path, default=[], metavar="FOLDER", help="what is not to be forgotten"
    )
    parser.add_argument(
        "--sample", action="append", default=[], dest="samples", metavar="PROMPT", help="a picture to make as it goes"
    )
    parser.add_argument("--structure", metavar="1,2,1", help="widths of a hypernetwork's layers")
    parser.add_argument("--save-every", type=float, default=30.0, metavar="SECONDS", help="between two states (30)")
    parser.add_argument("--json", action="store_true", help="print one JSON document about what was made")
    for name, field in options().items():
        _add(parser, name, field)


def options() -> dict[str, Mapping[str, Any]]:
    """The fields of a training's recipe that are plain options, as their JSON schema has them."""
    from bottega.training.recipe import TrainingRecipe

    fields = TrainingRecipe.model_json_schema()["properties"]
    return {name: field for name, field in fields.items() if name not in _OTHERWISE}


def _add(parser: argparse.ArgumentParser, name: str, field: Mapping[str, Any]) -> None:
    kind: Mapping[str, Any] = field["anyOf"][0] if "anyOf" in field else field
    option = f"--{name.replace('_', '-')}"
    default = field.get("default")
    words = field.get("description", "").replace("%", "%%")
    told = f"{words} ({default})" if default not in (None, "", False) else words
    if kind["type"] == "boolean":
        parser.add_argument(option, action=argparse.BooleanOptionalAction, default=None, help=told)
    elif "enum" in kind:
        parser.add_argument(option, choices=kind["enum"], metavar="|".join(kind["enum"]), help=told)
    else:
        reader: type = {"integer": int, "number": float, "string": str}[kind["type"]]
        parser.add_argument(option, type=reader, metavar={int: "N", float: "F", str: "T"}[reader], help=told)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Train what the arguments say."""
    with Progress(sys.stderr) as progress:
        progress.wait("starting")

        from bottega.training.naming import MADE
        from bottega.workbench import Workbench

        out = destination(args, settings)
        workbench = Workbench(settings, progress.hashing())
        prepared = workbench.prepare_training(draft(args))
        for line in found(prepared):
            progress.say(line)
        if args.check:
            if args.json:
                print_json(checked_json(prepared))
            return 0 if prepared.plan.fits else 1
        progress.say(f"state, log and samples: {workbench.training_folder(prepared.recipe, out)}")
        with interruptible() as stop:
            events = workbench.train(prepared, out, save_every=args.save_every, stop=stop)
            trained = follow(events, progress)
        workbench.find(trained.path, MADE[prepared.recipe.kind])  # its name means it from now on
    if args.json:
        told = {key: value for key, value in trained.to_json().items() if key != "event"}
        print_json({**told, "recipe": prepared.recipe.model_dump(mode="json", exclude_none=True)})
    else:
        print(printable(trained.path))
    return 0


def destination(args: argparse.Namespace, settings: Settings) -> Path:
    """The file to write; FileError if it is there already."""
    from bottega.training.naming import ENDINGS, check_name

    name = args.word or args.data[0].resolve().name
    out: Path = args.out or settings.models / f"{name}{ENDINGS[args.kind][0]}"
    check_name(out, args.kind)
    if out.exists() and not args.force and not args.check:
        raise FileError(out, "is there already", "name another with --out, or replace it with --force")
    return out


def draft(args: argparse.Namespace) -> TrainingRecipe:
    """The recipe as far as the arguments say it."""
    from bottega.training.recipe import training_from

    told = {name: value for name in options() if (value := getattr(args, name)) is not None}
    if args.structure:
        told["structure"] = [number(part) for part in args.structure.split(",")]
    if args.model:
        told["model"] = {"name": args.model}
    return training_from(
        {
            **told,
            "kind": args.kind,
            "data": [{"path": str(path)} for path in args.data],
            "regularisation": [{"path": str(path)} for path in args.regularisation],
            "samples": args.samples,
        }
    )


def number(text: str) -> float | str:
    """A number, or the text as it is where it is none, for the recipe to refuse."""
    try:
        return float(text)
    except ValueError:
        return text


def found(prepared: Prepared) -> Iterator[str]:
    """What the look at the data found, and the memory plan, for people."""
    checked = prepared.checked
    ours = [each for each in checked.pictures if not each.regular]
    regular = len(checked.pictures) - len(ours)
    buckets = ", ".join(f"{count} of {width}x{height}" for (width, height), count in sorted(checked.buckets.items()))
    yield f"{len(ours)} pictures{f' and {regular} to keep what it knows' if regular else ''}: {buckets}"
    yield from checked.notes
    yield prepared.plan.words


def checked_json(prepared: Prepared) -> dict[str, Any]:
    """The same as plain data."""
    checked, plan = prepared.checked, prepared.plan
    return {
        "recipe": prepared.recipe.model_dump(mode="json", exclude_none=True),
        "pictures": [
            {"path": str(each.path), "caption": each.caption, "size": list(each.size), "repeats": each.repeats}
            for each in checked.pictures
        ],
        "buckets": [{"size": list(size), "pictures": count} for size, count in sorted(checked.buckets.items())],
        "notes": list(checked.notes),
        "memory": {"needed": plan.needed, "available": plan.available, "fits": plan.fits, "words": plan.words},
    }


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C, or SIGTERM, sets, so that a training saves its state; the second ends it now."""
    stop = threading.Event()

    def interrupt(*_: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def follow(events: Generator[Event], progress: Progress) -> Trained:
    """Show a training's events as they come; what was made."""
    trained: Trained | None = None
    losses: list[float] = []
    with closing(events):
        for event in events:
            if isinstance(event, Step):
                progress.update(event.phase, event.done, event.total)
            elif isinstance(event, Learned):
                if event.validation is not None:
                    progress.say(f"step {event.step}: loss on held-out pictures {event.validation:.4f}")
                losses.append(event.loss)
                if event.step * TOLD // event.total != (event.step - 1) * TOLD // event.total:
                    progress.say(f"step {event.step}: loss {sum(losses) / len(losses):.4f}")
                    losses.clear()
                progress.update("train", event.step, event.total)
            elif isinstance(event, Sampled):
                progress.say(f"sample after {event.step} steps: {event.path}")
            elif isinstance(event, Note):
                progress.say(event.text)
            elif isinstance(event, Trained):
                trained = event
    assert trained is not None
    return trained
