"""The models on the shelves: look for them, list them, tell what they are, check, convert, merge and get them."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from bottega.cli.terminal import printable
from bottega.library import open_catalog
from bottega.library.catalog import CatalogError
from bottega.settings import Settings

# Each action with what `--help` says of it; its code is in the module of the same name: `DESCRIPTION`,
# `configure(parser)` and `run(args, settings, catalog) -> int`, which gives the exit code.
ACTIONS = {
    "scan": "look through the shelves for models",
    "list": "list the models that are known",
    "show": "tell what one model is",
    "check": "tell whether a model file is safe, without running anything in it",
    "hash": "tell the hashes by which sites know a model",
    "duplicates": "find the models that are there more than once",
    "tag": "give a model tags, or make it a favourite",
    "note": "write down something about a model",
    "correct": "say what a model really is",
    "convert": "write a model as safetensors or as a folder, in another dtype",
    "merge": "make one model of several, or of a model and LoRA",
    "extract": "make a LoRA of what sets two checkpoints apart",
    "get": "fetch models from Civitai, Hugging Face or any address",
    "check-updates": "ask the sites of models for newer versions",
    "identify-online": "look models up at Civitai by their hash",
}
KEPT = ("tag", "note", "correct")  # what these are told must be kept
MODULES = {"list": "listing"}  # where the action's name is taken


def configure(parser: argparse.ArgumentParser, named: str = "") -> None:
    """The arguments of `bottega models`: of every action, or of the `named` one alone, whose module is all it takes."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, summary in ACTIONS.items():
        if named not in ("", name):
            continue
        module = import_module(f"{__name__}.{MODULES.get(name, name.replace('-', '_'))}")
        action = actions.add_parser(name, help=summary, description=module.DESCRIPTION)
        module.configure(action)
        action.add_argument("--json", action="store_true", help="print one JSON document")
        action.set_defaults(work=module.run)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do what the action says."""
    with open_catalog(settings.catalog) as catalog:
        if catalog.note and args.action in KEPT:
            raise CatalogError(catalog.note, "make Bottega's home writable: what you say would be lost")
        if catalog.note:
            print(f"note: {printable(catalog.note)}", file=sys.stderr)
        code = args.work(args, settings, catalog)
    assert isinstance(code, int)
    return code
