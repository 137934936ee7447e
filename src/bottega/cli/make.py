"""Make content from words: `bottega make image "a red house by the sea at sunset, watercolor"`."""

from __future__ import annotations

import argparse
import re
import sys
from contextlib import closing
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottega.cli.progress import Progress
from bottega.cli.terminal import print_json, printable
from bottega.errors import BottegaError, FieldProblem, InvalidRecipe
from bottega.events import Done, Made, Note, Preview, Started, Step
from bottega.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Collection, Generator

    from bottega.events import Event
    from bottega.recipe import KnobValue, Recipe


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega make`."""
    parser.add_argument("medium", choices=("image",), help="what to make")
    parser.add_argument("prompt", metavar="PROMPT", help="what it shall show, in A1111's prompt grammar")
    parser.add_argument(
        "--model", type=model_name, metavar="M", help="a model's name, hash or path (default: starter-image)"
    )
    parser.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="NAME[:F]",
        help="use a LoRA, F times (1); NAME:F:F for text encoder and UNet; more with :unet=F :start=F :end=F :BLOCK=F",
    )
    parser.add_argument(
        "--embedding",
        type=model_name,
        action="append",
        default=[],
        metavar="NAME",
        help="use an embedding; its name goes to the end of the prompt where neither prompt has it",
    )
    parser.add_argument(
        "--hypernetwork", action="append", default=[], metavar="NAME[:F]", help="use a hypernetwork, F times (1)"
    )
    parser.add_argument(
        "--vae",
        type=model_name,
        metavar="NAME",
        help="decode with this VAE, or with the model's own (none); by default as A1111 does",
    )
    parser.add_argument("--negative", metavar="T", default="", help="what it shall not show")
    parser.add_argument("--steps", type=int, metavar="N", help="sampling steps")
    parser.add_argument("--cfg", type=float, metavar="F", help="how closely to follow the prompt (guidance scale)")
    parser.add_argument("--sampler", metavar="S", help='such as "DPM++ 2M", "Euler a", DDIM')
    parser.add_argument("--schedule", metavar="S", help="such as Karras, Exponential, Uniform")
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed makes the same picture (-1: draw one)")
    parser.add_argument("--size", type=size, metavar="WxH", help="pixels, multiples of 8")
    parser.add_argument("--count", type=int, metavar="N", default=1, help="how many pictures, with seeds N, N+1, ...")
    parser.add_argument("--init", type=Path, metavar="FILE", help="start from this picture")
    parser.add_argument("--strength", type=float, metavar="F", help="how much of it to make anew, 0 to 1")
    parser.add_argument("--mask", type=Path, metavar="FILE", help="repaint only where this picture is white")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KNOB=VALUE", help="any other setting of the model"
    )
    parser.add_argument("--out", metavar="FILE_OR_FOLDER", help="where to write (.png, .jpg, .webp, or a folder)")
    parser.add_argument("--json", action="store_true", help="print one JSON document about what was made")
    parser.add_argument("--preview", action="store_true", help="keep a rough picture of the work up to date on disk")


def model_name(text: str) -> str:
    """A model's name as it is; an empty one is more likely a script's mistake than the wish for the default."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; name a model, or leave the option out")
    return text


def size(text: str) -> tuple[int, int]:
    """`512x768` as (width, height)."""
    found = re.fullmatch(r"(\d{1,6})[xX×](\d{1,6})", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write it as 512x768")
    return int(found[1]), int(found[2])


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Make what the arguments say."""
    with Progress(sys.stderr) as progress:
        progress.wait("starting")

        from bottega.cli.server import running

        server = running(settings)
        if server and not is_too_much(args):
            from bottega.cli.make_there import make_there

            made, recipe = make_there(server, args, settings, progress)
        else:
            made, recipe = make_here(args, settings, progress)
    report(made, recipe, as_json=args.json)
    return 0


def is_too_much(args: argparse.Namespace) -> bool:
    """Whether no server takes this, so that it is made here, as without one."""
    from bottega.api.caps import MOST_PICTURES, MOST_PIXELS, MOST_STEPS

    width, height = args.size or (0, 0)
    return width * height > MOST_PIXELS or (args.steps or 0) > MOST_STEPS or args.count > MOST_PICTURES


def make_here(args: argparse.Namespace, settings: Settings, progress: Progress) -> tuple[list[Made], dict[str, Any]]:
    """Make it in this process; what was made, and the recipe as plain data."""
    from bottega.workbench import Workbench

    workbench = Workbench(settings, progress.hashing())
    inputs = [workbench.keep_input(path, role) for role, path in inputs_of(args)]
    recipe = workbench.resolve(draft(args, [media.model_dump() for media in inputs]), out=args.out)
    made = follow(workbench.run(recipe, out=args.out, previews=args.preview), progress)
    put_on_record(made, settings, progress)
    return made, recipe.model_dump(mode="json", exclude_none=True)


def put_on_record(made: list[Made], settings: Settings, progress: Progress) -> None:
    """Have the gallery know what was made; it is made all the same where that can't be."""
    from bottega.gallery import Gallery
    from bottega.gallery.reading import read_output
    from bottega.jobs.job import OWNER

    try:
        with Gallery(settings.home / "gallery.sqlite", settings.outputs) as gallery:
            for output in made:
                gallery.add(read_output(Path(output.path), owner=OWNER))
    except BottegaError as error:
        progress.say(f"not in the gallery: {error}")


def inputs_of(args: argparse.Namespace) -> list[tuple[str, Path]]:
    """The pictures that the arguments name, with what they are for."""
    if args.mask and not args.init:
        raise InvalidRecipe([FieldProblem("inputs", "a mask needs a picture", "give it with --init")])
    return [(role, path) for role, path in (("init", args.init), ("mask", args.mask)) if path]


def draft(args: argparse.Namespace, inputs: list[dict[str, Any]]) -> Recipe:
    """The recipe as far as the arguments say it."""
    from bottega.recipe import recipe_from

    return recipe_from(told(args, inputs))


def told(args: argparse.Namespace, inputs: list[dict[str, Any]]) -> dict[str, Any]:
    """What the arguments say of a recipe, as plain data.

    Raises InvalidRecipe for what can't be read, and for an empty prompt: a model takes it, but here it is more likely a
    script's mistake.
    """
    words = prompt(args)
    if not words.strip():
        raise InvalidRecipe([FieldProblem("prompt", "is empty", "say what to make")])
    return {
        "task": ("text-to-image", "image-to-image", "inpaint")[len(inputs)],
        "model": {"name": args.model} if args.model else None,
        "prompt": words,
        "negative": args.negative,
        "adapters": uses(args),
        "inputs": inputs,
        "sampling": {
            "sampler": args.sampler,
            "schedule": args.schedule,
            "steps": args.steps,
            "guidance": args.cfg,
            "seed": args.seed,
            "strength": args.strength,
        },
        "size": {"width": args.size[0], "height": args.size[1]} if args.size else None,
        "count": args.count,
        "knobs": knobs(args.set) if args.set else {},
    }


def uses(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The adapters that the arguments name, as plain data; InvalidRecipe for what can't be read."""
    strong = [("lora", text) for text in args.lora] + [("hypernetwork", text) for text in args.hypernetwork]
    named = [("embedding", name) for name in args.embedding] + ([("vae", args.vae)] if args.vae else [])
    told = [{"kind": kind, "ref": {"name": name}} for kind, name in named]
    if not strong:
        return told
    from bottega.engine.uses import use_of

    return [*(use_of(kind, text).model_dump(exclude_none=True) for kind, text in strong), *told]


def prompt(args: argparse.Namespace) -> str:
    """The prompt, with the embeddings at its end that the arguments name and no prompt does."""
    if not args.embedding:
        return str(args.prompt)
    from bottega.engine.automatic import likely
    from bottega.library.reading import word_of

    words = [word_of(Path(name)) for name in args.embedding]
    written = set(likely(words, (args.prompt, args.negative)))
    return ", ".join([args.prompt, *(word for word in dict.fromkeys(words) if word not in written)])


def knobs(settings: list[str]) -> dict[str, KnobValue]:
    """`["clip_skip=2", "Zero-SNR=yes"]` as the knobs and values that are meant.

    Raises InvalidRecipe with every setting that has no value, or a name that is no knob's.
    """
    from bottega.families import all_families

    known = {knob.name: knob for face in all_families() for knob in face.knobs}
    told: dict[str, KnobValue] = {}
    problems: list[FieldProblem] = []
    for setting in settings:
        written, equals, value = setting.partition("=")
        name = written.strip().casefold().replace("-", "_")
        if not equals:
            problems.append(FieldProblem(f"knobs.{setting}", "has no value", "write --set NAME=VALUE"))
        elif name not in known:
            problems.append(FieldProblem(f"knobs.{name}", "is no setting of any model", nearest(name, known)))
        else:
            told[name] = known[name].value_of(value.strip())
    if problems:
        raise InvalidRecipe(problems)
    return told


def nearest(name: str, known: Collection[str]) -> str:
    """The knobs that may have been meant, as a remedy; all of them if none is near."""
    near = get_close_matches(name, known, n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"


def follow(events: Generator[Event], progress: Progress) -> list[Made]:
    """Show a job's events as they come; what was made."""
    made: list[Made] = []
    count = 1
    with closing(events):  # an interrupt that comes between two events stops the work too
        for event in events:
            if isinstance(event, Started):
                count = event.count
                made.clear()  # begun anew, a job makes all of it again
            elif isinstance(event, Step):
                which = f"picture {len(made) + 1} of {count}: " if count > 1 and event.phase != "load" else ""
                progress.update(f"{which}{event.phase}", event.done, event.total)
            elif isinstance(event, Made):
                made.append(event)
            elif isinstance(event, Note):
                progress.say(event.text)
            elif isinstance(event, Preview) and event.step == 1 and event.image == 0:
                progress.say(f"preview: {event.path}")
            elif isinstance(event, Done):
                progress.finish()
    return made


def report(made: list[Made], recipe: dict[str, Any], *, as_json: bool) -> None:
    """Tell what was made: paths, one to a line, or one JSON document."""
    if not as_json:
        for output in made:
            print(printable(output.path))
        return
    outputs = [
        {key: value for key, value in output.to_json().items() if key not in ("event", "image", "output")}
        for output in made
    ]
    # The first output also stands at the top, so that a script that makes one picture needs no list.
    print_json({**outputs[0], "outputs": outputs, "recipe": recipe})
