"""From the tree that a pickle is to tensors with dotted names, the way a state dict has them, and to plain metadata.

No walk recurses, follows a circle, goes deeper than MAX_DEPTH or takes more than MAX_STEPS: a few bytes can describe a
tree with more leaves than there are atoms.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from bottega.formats.header import shown
from bottega.formats.pickled.values import Broken, Name, Node, Table, Tensor, Unreadable

MAX_DEPTH = 100
MAX_STEPS = 500_000
MAX_LETTERS = 64 << 20  # of all names together
MAX_METADATA = 4 << 20
_MAX_VALUE = 64 << 10
_MAX_JSON_DEPTH = 8
_MAX_JSON_ITEMS = 4_096

# Keys that a checkpoint wraps its tensors in; the first that is there counts, and only one is taken off.
WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "params_ema", "params", "model", "module", "net", "netG",
    "generator", "network", "weights", "ema",
)  # fmt: skip
_CERTAIN_WRAPPERS = WRAPPERS[:3]
# What training keeps for itself to go on later.
_LEFTOVER = re.compile(
    r"optim|(^|_)(sched|scaler|ema|rng)|random_state|callbacks|^loops$|hyper_?param|hparams|^(args|cfg|config|amp)$"
    r"|momentum|^loss|criterion|metric|^best_|^train_|^updates$|epoch|step$|history",
    re.IGNORECASE,
)
_INNER = (Table, Node, list, tuple)


@dataclass
class Flat:
    """A checkpoint's tensors by name; plain values beside them as text; what was left out, and what can't be read."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    leftovers: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)


def flatten(root: object) -> Flat:
    """The tensors of a checkpoint without its outer wrapper and without what training left in it."""
    flat, walk = Flat(), _Walk()
    model = root
    if type(root) is Table:
        keys = _keys(root)
        _keep_plain(flat, keys)
        wrapper, flat.leftovers = _wrapper(keys, walk)
        if wrapper is not None:
            model = keys[wrapper]
            if type(model) is Table:
                _keep_plain(flat, _keys(model))
        elif flat.leftovers:
            model = Table(item for key, value in keys.items() if key not in flat.leftovers for item in (key, value))
    for name, leaf in walk.leaves(model):
        if name in flat.tensors or name in flat.unreadable:
            raise Broken(f"two tensors in it are called {shown(name)}")
        if type(leaf) is Tensor:
            flat.tensors[name] = leaf
        elif type(leaf) is Unreadable:
            flat.unreadable[name] = leaf.why
    return flat


# --- the wrapper and the leftovers -----------------------------------------------------------------------------------


def _wrapper(keys: dict[str, object], walk: _Walk) -> tuple[str | None, list[str]]:
    """The key whose value is the model, if it is one key, and the keys that hold tensors and are not the model."""
    groups = {key for key, value in keys.items() if type(value) in _INNER and walk.holds_tensors(value)}
    holding = [key for key, value in keys.items() if key in groups or type(value) in (Tensor, Unreadable)]
    for wrapper in WRAPPERS:
        if wrapper in groups:
            others = [key for key in holding if key != wrapper]
            if wrapper in _CERTAIN_WRAPPERS or all(key in WRAPPERS or _LEFTOVER.search(key) for key in others):
                return wrapper, others
    leftovers = [key for key in holding if key in groups and _LEFTOVER.search(key)]
    return None, leftovers if len(leftovers) < len(holding) else []


# --- walking ---------------------------------------------------------------------------------------------------------


class _Walk:
    """Looks for tensors in trees, within one budget of steps for all of them."""

    def __init__(self) -> None:
        self._steps = self._letters = 0
        self._barren: set[int] = set()  # what holds no tensor need not be walked again

    def holds_tensors(self, value: object) -> bool:
        """Whether there is a tensor in or under a value."""
        return next(iter(self.leaves(value)), None) is not None

    def leaves(self, root: object) -> Iterator[tuple[str, Tensor | Unreadable]]:
        """Each tensor under `root` with its dotted name; `root` itself is called `tensor`."""
        if type(root) is Tensor or type(root) is Unreadable:
            yield "tensor", root
            return
        if type(root) not in _INNER:
            return
        path = [_Branch("", root)]
        above = {id(root)}
        while path:
            branch = path[-1]
            for key, child in branch.children:
                self._steps += 1
                kind = type(child)
                if kind is Tensor or kind is Unreadable:
                    branch.bears = True
                    self._letters += len(branch.prefix) + len(key)
                    if self._letters > MAX_LETTERS:
                        raise Broken("the names of its tensors are too long")
                    yield branch.prefix + key, child  # type: ignore[misc]
                elif kind in _INNER and id(child) not in above and id(child) not in self._barren:
                    if len(path) >= MAX_DEPTH:
                        raise Broken(f"it is nested more than {MAX_DEPTH} levels deep")
                    self._letters += len(branch.prefix) + len(key)
                    if self._letters > MAX_LETTERS:
                        raise Broken("the names of its tensors are too long")
                    path.append(_Branch(f"{branch.prefix}{key}.", child))
                    above.add(id(child))
                    break
            else:
                path.pop()
                above.discard(id(branch.value))
                if not branch.bears:
                    self._barren.add(id(branch.value))
                elif path:
                    path[-1].bears = True
            if self._steps > MAX_STEPS:
                raise Broken("it holds the same things over and over again")


class _Branch:
    """What a walk is in the middle of: a value, the prefix of its names, and those of its children to come."""

    __slots__ = ("bears", "children", "prefix", "value")

    def __init__(self, prefix: str, value: object) -> None:
        self.prefix, self.value = prefix, value
        self.children = _children(value)
        self.bears = False  # whether a tensor was found under it


def _children(value: object) -> Iterator[tuple[str, object]]:
    """What lies directly in a dict, a list, a tuple or an object, with the name it has there."""
    if type(value) is Table:
        return zip(map(key_text, value[::2]), value[1::2], strict=True)
    if type(value) is Node:
        return _parts(value)
    assert isinstance(value, list | tuple)
    return ((str(index), item) for index, item in enumerate(value) if type(item) in (*_INNER, Tensor, Unreadable))


def _parts(node: Node) -> Iterator[tuple[str, object]]:
    """An object's attributes; of a network, what its `state_dict()` would hold."""
    states = node.state if type(node.state) is tuple else (node.state,)
    for state in states:
        if type(state) is not Table:
            continue
        attributes = _keys(state)
        if "_modules" in attributes and "_parameters" in attributes:
            yield from _network(attributes)
        else:
            yield from attributes.items()
    if node.entries is not None:
        yield from _children(node.entries)
    if node.items is not None:
        yield from _children(node.items)
    if node.state is None:
        yield from _children(node.args)


def _network(attributes: dict[str, object]) -> Iterator[tuple[str, object]]:
    """torch.nn.Module: parameters, those buffers that are saved, and the modules in it."""
    passing = attributes.get("_non_persistent_buffers_set")
    hidden = {name for name in passing if type(name) is str} if type(passing) is list else set()
    for group in ("_parameters", "_buffers", "_modules"):
        members = attributes.get(group)
        if type(members) is Table:
            for key, value in _keys(members).items():
                if group != "_buffers" or key not in hidden:
                    yield key, value


def _keys(table: Table) -> dict[str, object]:
    """A dict under the text of its keys; of keys that come twice the last counts, as in Python."""
    return dict(zip(map(key_text, table[::2]), table[1::2], strict=True))


def key_text(key: object) -> str:
    """A key as a word of a name; whole numbers in digits, as hypernetworks have them."""
    if type(key) is str:
        return key if key.isascii() else key.encode("utf-8", "replace").decode()
    if type(key) in (int, bool, float):
        return str(key)
    if type(key) is bytes:
        return key.decode("latin-1")
    return str(key) if type(key) is Name else f"<{type(key).__name__.lower()}>"


# --- plain values ----------------------------------------------------------------------------------------------------


def _keep_plain(flat: Flat, keys: dict[str, object]) -> None:
    """Keep what is plain and small as metadata: text as it is, all else as JSON."""
    left = MAX_METADATA - sum(map(len, flat.metadata.values()))
    for key, value in keys.items():
        if value is None or type(value) in (Tensor, Unreadable, Node, Name):
            continue
        try:
            plain = _plain(value, 0, [_MAX_JSON_ITEMS])
        except _NotPlain:
            continue
        text = plain if type(plain) is str else json.dumps(plain, ensure_ascii=False)
        left -= len(key) + len(text)
        if left < 0:
            return
        if len(text) <= _MAX_VALUE:
            flat.metadata.setdefault(key, text)


class _NotPlain(Exception):
    """A value that can't be said in JSON, or that is too large."""


def _plain(value: object, depth: int, left: list[int]) -> object:
    """A value as JSON has it; `left` counts down how many more there may be."""
    left[0] -= 1
    if depth > _MAX_JSON_DEPTH or left[0] < 0:
        raise _NotPlain
    kind = type(value)
    if value is None or kind is bool or kind is int:
        return value
    if kind is float:
        assert isinstance(value, float)
        return value if math.isfinite(value) else str(value)
    if kind is str:
        return key_text(value)
    if kind is Table:
        assert isinstance(value, Table)
        return {key: _plain(inner, depth + 1, left) for key, inner in _keys(value).items()}
    if kind in (list, tuple):
        assert isinstance(value, list | tuple)
        return [_plain(inner, depth + 1, left) for inner in value]
    raise _NotPlain
