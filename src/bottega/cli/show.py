"""Tell what a file carries: the recipe that made it, or what another program wrote into it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottega.cli.terminal import cut, labelled, pairs, print_json
from bottega.formats import comfyui, fooocus, infotext, invokeai, media, strictjson, swarmui
from bottega.formats.header import shown
from bottega.settings import Settings

if TYPE_CHECKING:
    from bottega.recipe import KnobValue, Recipe

Row = tuple[str, str]

LONGEST = 200  # columns of a text of which nothing is known


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega show`."""
    parser.add_argument("file", type=Path, metavar="FILE", help="a picture")
    parser.add_argument("--json", action="store_true", help="print one JSON document, with all that is in the file")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Print what the file carries, if anything."""
    carried = media.read(args.file)
    recipe = recipe_of(carried)
    told = {
        "path": str(args.file.resolve()),
        "format": carried.format,
        "width": carried.width,
        "height": carried.height,
        "written": datetime.fromtimestamp(args.file.stat().st_mtime).isoformat(timespec="seconds"),
        **contents(carried, recipe),
    }
    if args.json:
        print_json(told)
    else:
        print(pairs(list(page(told, recipe))))
    return 0


def recipe_of(carried: media.Carried) -> Recipe | None:
    """The recipe of ours, if there is one; raises InvalidRecipe for one that is damaged or of a newer Bottega."""
    if carried.recipe is None:
        return None
    from bottega.recipe import read_recipe

    return read_recipe(carried.recipe)


def contents(carried: media.Carried, recipe: Recipe | None) -> dict[str, Any]:
    """All that is in the file by the program that wrote it, other programs' words in A1111's terms beside it."""
    told: dict[str, Any] = {}
    if carried.recipe is not None and recipe is not None:
        told |= {"recipe": json.loads(carried.recipe), "digest": recipe.digest}
    if carried.parameters is not None:
        told |= {"a1111": in_words(infotext.parse(carried.parameters)), "parameters": carried.parameters}
    texts = carried.foreign
    read = {name: value for name, text in texts.items() if (value := strictjson.object_or_none(text)) is not None}
    graph, workflow = read.get("prompt"), read.get("workflow")
    if graph is not None or workflow is not None:
        told["comfyui"] = {**in_words(comfyui.describe(graph or {})), "graph": graph, "workflow": workflow}
    if (metadata := read.get("invokeai_metadata")) is not None:
        told["invokeai"] = {**in_words(invokeai.describe(metadata)), "metadata": metadata}
    for program, describe in (("fooocus", fooocus.describe), ("swarmui", swarmui.describe)):
        if (metadata := read.get(program)) is not None:
            told[program] = {**in_words(describe(metadata)), "metadata": metadata}
    if (novelai := read.get("Comment")) is not None:
        told["novelai"] = novelai
    if rest := {**carried.texts, **{name: text for name, text in texts.items() if name not in read}}:
        told["texts"] = rest
    if carried.too_long:
        told["too_long"] = list(carried.too_long)
    return told


def in_words(text: infotext.Infotext) -> dict[str, Any]:
    """What a program says, for programs."""
    return {"prompt": text.prompt, "negative": text.negative, "fields": text.fields}


# --- for people ------------------------------------------------------------------------------------------------------


def page(told: Mapping[str, Any], recipe: Recipe | None) -> Iterator[Row]:
    """What is told, as names and values that a person reads: the prompt, then what matters most."""
    yield "file", told["path"]
    yield "picture", f"{told['format']}, {told['width']}x{told['height']}, written {told['written']}"
    for name in told.get("too_long", ()):
        yield "left out", f"the text {shown(name)}, longer than the {media.MAX_TEXT:,} bytes that are read"
    if recipe is not None:
        yield from recipe_rows(recipe)
        yield "digest", told["digest"]
        return
    # A1111's text is that of many programs.
    programs = {"a1111": "", "comfyui": "ComfyUI", "invokeai": "InvokeAI", "fooocus": "Fooocus", "swarmui": "SwarmUI"}
    for key, program in programs.items():
        if key in told:
            yield from [("made with", program)] if program else []
            yield from foreign_rows(told[key], f"{told['width']}x{told['height']}")
    if not programs.keys() & told.keys():
        yield "carries", "nothing that says how it was made"
        for name, text in told.get("texts", {}).items():
            yield name, cut(text, LONGEST)


def recipe_rows(recipe: Recipe) -> Iterator[Row]:
    """A recipe of ours: what is as usual is left out."""
    from bottega.engine.uses import WITHOUT_STRENGTH, strengths

    sampling = recipe.sampling
    yield from labelled("prompt", recipe.prompt.splitlines())
    yield from labelled("negative", recipe.negative.splitlines())
    if recipe.model is not None:
        yield "model", f"{recipe.model.name} [{(recipe.model.sha256 or 'unknown')[:10]}]"
    for use in recipe.adapters:
        yield use.kind, use.ref.name if use.kind in WITHOUT_STRENGTH else f"{use.ref.name}, {strengths(use)}"
    for given in recipe.inputs:
        yield given.role, f"the picture with the SHA-256 {given.sha256[:10]}..."
    if sampling.strength is not None:
        yield "strength", f"{sampling.strength:g}"
    guidance = None if sampling.guidance is None else f"{sampling.guidance:g}"
    if walked := sampling_text(sampling.sampler, sampling.schedule, sampling.steps, guidance):
        yield "sampling", walked
    if sampling.seed is not None:
        yield "seed", str(sampling.seed)
    if set_otherwise := knob_texts(recipe.knobs):
        yield "knobs", ", ".join(set_otherwise)
    if recipe.made is not None:
        versions = ", ".join(f"{name} {version}" for name, version in recipe.made.versions.items())
        yield "made by", f"{recipe.made.app} on {recipe.made.device} ({versions})"


def knob_texts(knobs: Mapping[str, KnobValue]) -> list[str]:
    """The knobs that differ from their defaults, as `--set` takes them; what `auto` came to is among them."""
    from bottega.families import all_families

    defaults = {knob.name: knob.default for face in all_families() for knob in face.knobs}
    other = {name: value for name, value in knobs.items() if value != defaults.get(name)}
    return [f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in other.items()]


def foreign_rows(told: Mapping[str, Any], size: str) -> Iterator[Row]:
    """What another program says: the essentials first, and then the rest as it stands there."""
    fields = {name: str(value) for name, value in infotext.joined_sizes(told["fields"]).items()}
    yield from labelled("prompt", told["prompt"].splitlines())
    yield from labelled("negative", told["negative"].splitlines())
    model, short_hash = fields.pop("Model", ""), fields.pop("Model hash", "")
    if model or short_hash:
        yield "model", f"{model} [{short_hash}]".strip() if short_hash else model
    names = ("Sampler", "Schedule type", "Steps", "CFG scale")
    if sampling := sampling_text(*(fields.pop(name, None) for name in names)):
        yield "sampling", sampling
    if "Seed" in fields:
        yield "seed", fields.pop("Seed")
    if fields.get("Size") == size:
        del fields["Size"]  # the picture's, which is told
    yield from ((name.lower() if name == "Size" else name, value) for name, value in fields.items())
    if not told["prompt"] and not told["fields"]:
        yield "", "in a way of which Bottega understands nothing; --json gives all of it"


def sampling_text(sampler: str | None, schedule: str | None, steps: object, guidance: object) -> str:
    """`DPM++ 2M, Karras, 20 steps, CFG 7`, as far as it is known."""
    said = [sampler, schedule, f"{steps} steps" if steps else None, f"CFG {guidance}" if guidance is not None else None]
    return ", ".join(filter(None, said))
