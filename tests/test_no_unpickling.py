"""No line of the project runs code that is hidden in a model file, or lets a library do it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Where the danger itself is needed: to compare with it, to guard against it, or to be attacked with it.
ALLOWED = {
    "src/bottega/runtime/guard.py": {"torch.load", "torch.serialization.load"},
    "src/bottega/bench/pickles.py": {"torch.load"},  # the peer, of a file that the benchmark wrote
    "src/bottega/bench/diffusers_peer.py": {"from_single_file"},  # of a safetensors file that the benchmark wrote
    "tests/test_convert.py": {"from_pretrained"},  # the peer, of a folder that the test wrote
    "tests/test_docs.py": {"exec"},  # the examples of our own documents
    "tests/test_pickled.py": {"torch.load", "pickle"},  # the peer; what it writes for us to read
    "tests/test_guard.py": {
        "torch.load",
        "torch.serialization.load",
        "pickle",
        "os.system",
        "os.execv",
        "os.posix_spawn",
    },
    "tests/test_no_unpickling.py": set(),
}
MODULES = (
    "pickle",
    "_pickle",
    "cPickle",
    "pickle5",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "jsonpickle",
)
CALLS = (
    "torch.load", "torch.serialization.load", "torch.hub", "torch.jit.load", "torch.package", "torch.utils.model_zoo",
    "torch.storage._load_from_bytes", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen",
    "os.execv", "os.posix_spawn", "eval", "exec",
)  # fmt: skip
ALIASES = {"np": "numpy"}
# Methods whatever they are called on, and arguments that may not be true.
METHODS = ("from_pretrained", "from_single_file", "load_lora_weights", "read_pickle", "load_state_dict_from_url")
SWITCHES = ("allow_pickle", "trust_remote_code")


def files() -> list[Path]:
    folders = ("src", "tests", "benchmarks", "examples", "docs")
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def dangers(source: str) -> Iterator[str]:
    """What a program names or does that could unpickle, fetch or run what a file says."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (each.name.split(".")[0] for each in names if each.name.split(".")[0] in MODULES)
            case ast.ImportFrom(module=str(module), names=names):
                if module.split(".")[0] in MODULES:
                    yield module.split(".")[0]
                yield from (full for each in names if (full := f"{module}.{each.name}") in CALLS)
            case ast.Attribute() if is_call(full := dotted(node)):
                yield full
            case ast.Call(func=ast.Name(id=word)) if word in CALLS:
                yield word
            case ast.Attribute(attr=word) if word in METHODS:
                yield word
            case ast.keyword(arg=str(word), value=value) if word in SWITCHES:
                if not (isinstance(value, ast.Constant) and value.value is False):
                    yield word


def is_call(full: str) -> bool:
    return any(full == call or full.startswith(f"{call}.") for call in CALLS)


def dotted(node: ast.expr) -> str:
    """The name that an expression spells, if it spells one."""
    words: list[str] = []
    while isinstance(node, ast.Attribute):
        words.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([ALIASES.get(node.id, node.id), *reversed(words)])


@pytest.mark.parametrize("path", files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_unpickles(path: Path) -> None:
    allowed = ALLOWED.get(path.relative_to(ROOT).as_posix(), set())
    found = set(dangers(path.read_text(encoding="utf-8"))) - allowed
    assert not found, f"{path}: {sorted(found)}; read models with bottega.formats"


def test_documents_advise_none_of_it() -> None:
    told = re.compile(r"torch\.load\(|pickle\.loads?\(|trust_remote_code=True|allow_pickle=True|torch\.hub\.load\(")
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")]:
        assert not told.search(path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize(
    ("source", "danger"),
    [
        ("import pickle", "pickle"),
        ("from pickle import loads", "pickle"),
        ("import torch\nx = torch.load('x')", "torch.load"),
        ("from torch import load", "torch.load"),
        ("import torch\nload = torch.serialization.load", "torch.serialization.load"),
        ("import numpy as np\nnp.load('x', allow_pickle=True)", "allow_pickle"),
        ("x.from_pretrained('y')", "from_pretrained"),
        ("f(trust_remote_code=flag)", "trust_remote_code"),
        ("import torch\ntorch.hub.load('x')", "torch.hub.load"),
        ("import yaml\nyaml.load(x)", "yaml.load"),
        ("import joblib", "joblib"),
        ("eval(x)", "eval"),
    ],
)
def test_the_test_sees_them(source: str, danger: str) -> None:
    assert danger in set(dangers(source))


def test_what_is_allowed_is_still_needed() -> None:
    for name, allowed in ALLOWED.items():
        assert allowed <= set(dangers((ROOT / name).read_text(encoding="utf-8"))), name
