"""From the tree that a pickle is to tensors with dotted names, the way a state dict has them, and to plain metadata.

No walk recurses, follows a circle, goes deeper than MAX_DEPTH or takes more than MAX_STEPS: a few bytes can describe a
tree with more leaves than there are atoms. What is looked at is paid for before, item by item; and a key is turned into
text once, however often it is there.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from bottega.formats.pickled.values import Broken, Name, Node, Table, Tensor, Unreadable
from bottega.formats.tensor_bytes import BYTES_OF_ELEMENT

MAX_DEPTH = 100
MAX_STEPS = 500_000
MAX_KEY = 128 << 10  # letters
MAX_LETTERS = 64 << 20  # of all names together
MAX_METADATA = 4 << 20
# Tensors may share what is stored, as tied blocks of a network do, but a small file may not hold gigabytes of them.
MAX_SHARING = 128
FREE_SHARING = 64 << 20
_MAX_VALUE = 64 << 10
_MAX_JSON_DEPTH = 8
_MAX_JSON_ITEMS = 4_096
_JSON_ITEM = 4  # letters that an item takes at least, with what is around it
_MAX_BITS = 64  # of a whole number that is a key

# Keys that a checkpoint wraps its tensors in; the first that is there counts, and only one is taken off.
WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "params_ema", "params", "model", "module", "net", "netG",
    "generator", "network", "weights", "ema",
)  # fmt: skip
_CERTAIN_WRAPPERS = WRAPPERS[:3]
# What training keeps for itself to go on later.
_LEFTOVER = re.compile(
    r"optim|(^|_)(sched|scaler|ema|rng)|random_state|callbacks|^loops$|hyper_?param|hparams|^(args|cfg|config|amp)$"
    r"|momentum(s|_buffers?)?$|^loss(es|_fn|_func|_scale)?$|(^|_)(criterion|metrics?)$|^best_|^train_|^updates$|epoch|step$|history",
    re.IGNORECASE,
)
_MAX_LEFTOVER = 200  # letters of such a key
_INNER = (Table, Node, list, tuple)
_ARRAY = Unreadable("is a numpy array")
# What numpy makes arrays with, before version 2 and since, up to protocol 4 and with 5.
_ARRAY_MAKERS = frozenset(
    f"numpy.{core}.{maker}"
    for core in ("core", "_core")
    for maker in ("multiarray._reconstruct", "numeric._frombuffer")
)


@dataclass
class Flat:
    """A checkpoint's tensors by name; plain values beside them as text; what was left out, what can't be read, and the
    numpy arrays among the tensors."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    leftovers: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    arrays: list[str] = field(default_factory=list)


def flatten(root: object, stored: int) -> Flat:
    """The tensors of a checkpoint without its outer wrapper and without what training left in it.

    Broken if they are much more than the `stored` bytes that they are made of.
    """
    flat, walk = Flat(), _Walk()
    model = root
    if type(root) is Table:
        keys = walk.keys(root)
        _keep_plain(flat, keys, walk)
        wrapper, flat.leftovers = _wrapper(keys, walk)
        if wrapper is not None:
            model = keys[wrapper]
            if type(model) is Table:
                _keep_plain(flat, walk.keys(model), walk)
        elif flat.leftovers:
            model = walk.without(root, {*flat.leftovers})
    made = 0
    for name, leaf in walk.leaves(model):
        if name in flat.tensors or name in flat.unreadable:
            flat.unreadable[name] = "is there twice, by two ways to write its name: the first one counts"
        elif type(leaf) is Tensor:
            flat.tensors[name] = leaf
            if leaf.strides is None:
                made += leaf.end - leaf.start
            else:
                made += math.prod(leaf.shape) * BYTES_OF_ELEMENT[leaf.dtype]
        elif leaf is _ARRAY:
            flat.arrays.append(name)
        elif type(leaf) is Unreadable:
            flat.unreadable[name] = leaf.why
    if made > max(FREE_SHARING, MAX_SHARING * stored):
        raise Broken(f"its tensors of {made:,} bytes are made of {stored:,} that are stored")
    return flat


# --- the wrapper and the leftovers -----------------------------------------------------------------------------------


def _wrapper(keys: dict[str, object], walk: _Walk) -> tuple[str | None, list[str]]:
    """The key whose value is the model, if it is one key, and the keys that hold tensors and are not the model."""
    groups = {key for key, value in keys.items() if type(value) in _INNER and walk.holds_tensors(value)}
    holding = [key for key, value in keys.items() if key in groups or type(value) in (Tensor, Unreadable)]
    for wrapper in WRAPPERS:
        if wrapper in groups:
            others = [key for key in holding if key != wrapper]
            # Other parts of a model are kept beside it under their names; only `params` are those before an average.
            before = {"params"} if wrapper == "params_ema" else set()
            if wrapper in _CERTAIN_WRAPPERS or all(key in before or _is_leftover(key) for key in others):
                return wrapper, others
    leftovers = [key for key in holding if key in groups and _is_leftover(key)]
    return None, leftovers if len(leftovers) < len(holding) else []


def _is_leftover(key: str) -> bool:
    return len(key) <= _MAX_LEFTOVER and _LEFTOVER.search(key) is not None


# --- walking ---------------------------------------------------------------------------------------------------------


class _Walk:
    """Looks for tensors in trees, within one budget of steps for all of them."""

    def __init__(self) -> None:
        self._steps = self._letters = 0
        self._barren: set[int] = set()  # what holds no tensor need not be walked again
        self._words: dict[int, str] = {}  # the text of keys that it takes time to make
        self._tables: dict[int, list[str]] = {}  # the texts of a dict's keys

    def pay(self, steps: int) -> None:
        """Take so many steps from the budget."""
        self._steps += steps
        if self._steps > MAX_STEPS:
            raise Broken("it holds the same things over and over again")

    def holds_tensors(self, value: object) -> bool:
        """Whether there is a tensor in or under a value."""
        return any(leaf is not _ARRAY for _, leaf in self.leaves(value))

    def leaves(self, root: object) -> Iterator[tuple[str, Tensor | Unreadable]]:
        """Each tensor under `root` with its dotted name, and each numpy array; `root` itself is called `tensor`."""
        if type(root) is Tensor or type(root) is Unreadable:
            yield "tensor", root
            return
        if _is_array(root):
            yield "tensor", _ARRAY
            return
        if type(root) not in _INNER:
            return
        path = [_Branch("", root, self.children(root))]
        above = {id(root)}
        while path:
            branch = path[-1]
            for key, child in branch.children:
                kind = type(child)
                if kind is Node and _is_array(child):
                    kind, child = Unreadable, _ARRAY
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
                    path.append(_Branch(f"{branch.prefix}{key}.", child, self.children(child)))
                    above.add(id(child))
                    break
            else:
                path.pop()
                above.discard(id(branch.value))
                if not branch.bears:
                    self._barren.add(id(branch.value))
                elif path:
                    path[-1].bears = True

    def children(self, value: object) -> Iterator[tuple[str, object]]:
        """What lies directly in a dict, a list, a tuple or an object, with the name it has there."""
        if type(value) is Table:
            return self._items(value)
        if type(value) is Node:
            return self._parts(value)
        assert isinstance(value, list | tuple)
        self.pay(1 + len(value))
        return ((str(index), item) for index, item in enumerate(value) if type(item) in (*_INNER, Tensor, Unreadable))

    def keys(self, table: Table) -> dict[str, object]:
        """A dict under the text of its keys; of keys that come twice the last counts, as in Python."""
        return dict(self._items(table))

    def without(self, table: Table, words: set[str]) -> Table:
        """A dict without the keys whose text is among `words`."""
        self.pay(1 + len(table) // 2)
        kept = ((key, value) for key, value in zip(table[::2], table[1::2], strict=True) if self.word(key) not in words)
        return Table(item for pair in kept for item in pair)

    def word(self, key: object) -> str:
        """A key as a word of a name; whole numbers in digits, as hypernetworks have them."""
        if type(key) is str and len(key) <= MAX_KEY and key.isascii():
            return key
        if type(key) is not str and type(key) is not bytes:
            return _text(key)
        word = self._words.get(id(key))
        if word is None:
            if len(key) > MAX_KEY:
                raise Broken(f"a key in it is too long: {len(key):,} letters")
            word = self._words[id(key)] = _text(key)
        return word

    def _items(self, table: Table) -> Iterator[tuple[str, object]]:
        self.pay(1 + len(table) // 2)
        keys = table[::2]
        words = self._tables.get(id(table))
        if words is None:
            words = self._tables[id(table)] = list(map(self.word, keys))
        if len(set(words)) == len(words):
            return zip(words, table[1::2], strict=True)
        # Of one key the last value counts, as in Python; other keys may have the same text.
        known = {_identity(key, word): (word, value) for key, word, value in zip(keys, words, table[1::2], strict=True)}
        return _told_apart(known.values())

    def _parts(self, node: Node) -> Iterator[tuple[str, object]]:
        """An object's attributes; of a network, what its `state_dict()` would hold."""
        self.pay(1)
        states = node.state if type(node.state) is tuple else (node.state,)
        for state in states[:2]:
            if type(state) is not Table:
                continue
            items = list(self._items(state))
            attributes = dict(items)
            if "_modules" in attributes and "_parameters" in attributes:
                yield from self._network(attributes)
            else:
                yield from items
        if node.entries is not None:
            yield from self._items(node.entries)
        if node.items is not None:
            yield from self.children(node.items)
        if node.state is None:
            yield from self.children(node.args)

    def _network(self, attributes: dict[str, object]) -> Iterator[tuple[str, object]]:
        """torch.nn.Module: parameters, those buffers that are saved, and the modules in it."""
        passing = attributes.get("_non_persistent_buffers_set")
        hidden: set[str] = set()
        if type(passing) is list:
            self.pay(len(passing))
            hidden = {name for name in passing if type(name) is str}
        for group in ("_parameters", "_buffers", "_modules"):
            members = attributes.get(group)
            if type(members) is Table:
                for key, value in self._items(members):
                    if group != "_buffers" or key not in hidden:
                        yield key, value


def _is_array(value: object) -> bool:
    return type(value) is Node and str(value.function) in _ARRAY_MAKERS


class _Branch:
    """What a walk is in the middle of: a value, the prefix of its names, and those of its children to come."""

    __slots__ = ("bears", "children", "prefix", "value")

    def __init__(self, prefix: str, value: object, children: Iterator[tuple[str, object]]) -> None:
        self.prefix, self.value, self.children = prefix, value, children
        self.bears = False  # whether a tensor was found under it


def _text(key: object) -> str:
    """A key, or a text, as UTF-8 can say it; what has no text is called by its kind, in angle brackets."""
    if type(key) is str:
        return key if key.isascii() else key.encode("utf-8", "backslashreplace").decode()
    if type(key) is bytes:
        return key.decode("latin-1")
    if type(key) in (bool, float) or (type(key) is int and key.bit_length() <= _MAX_BITS):
        return str(key)
    return str(key) if type(key) is Name else f"<{type(key).__name__.lower()}>"


def _identity(key: object, word: str) -> tuple[type, object]:
    """What two keys share only if they are one key in Python; of what has no text of its own, each object is one."""
    if type(key) is str or type(key) is bytes:
        return type(key), key
    told = type(key) in (bool, int, float) and not word.startswith("<") and word != "nan"
    return type(key), word if told else id(key)


def _told_apart(items: Iterable[tuple[str, object]]) -> Iterator[tuple[str, object]]:
    """Items whose keys may have one text; those that are called by their kind are numbered from the second one on."""
    times: dict[str, int] = {}
    for word, value in items:
        if word.startswith("<") and word.endswith(">"):
            times[word] = times.get(word, 0) + 1
            if times[word] > 1:
                word = f"{word[:-1]} {times[word]}>"
        yield word, value


# --- plain values ----------------------------------------------------------------------------------------------------


def _keep_plain(flat: Flat, keys: dict[str, object], walk: _Walk) -> None:
    """Keep what is plain and small as metadata: text as it is, all else as JSON."""
    left = MAX_METADATA - sum(map(len, flat.metadata.values()))
    for key, value in keys.items():
        if value is None or type(value) in (Tensor, Unreadable, Node, Name):
            continue
        plain = _Plain(walk)
        try:
            made = plain.of(value, 0)
        except _NotPlain:
            made = None
        left -= len(key) + plain.size
        if left < 0:
            return
        if made is not None:
            text = made if type(made) is str else json.dumps(made, ensure_ascii=False)
            if len(text) <= _MAX_VALUE:
                flat.metadata.setdefault(key, text)


class _NotPlain(Exception):
    """A value that can't be said in JSON, or that is too large."""


class _Plain:
    """Turns one value into what JSON has; `size` is about how long its text is, even of one that is too large."""

    def __init__(self, walk: _Walk) -> None:
        self.size = 0
        self._walk = walk

    def of(self, value: object, depth: int) -> object:
        """The value, at some depth within others."""
        kind = type(value)
        if value is None or kind in (bool, float):
            self._grow(_JSON_ITEM)
            return value if kind is not float or math.isfinite(value) else str(value)  # type: ignore[arg-type]
        if kind is int:
            self._grow(_JSON_ITEM + value.bit_length() // 3)  # type: ignore[attr-defined]
            return value
        if kind is str:
            assert isinstance(value, str)
            self._grow(_JSON_ITEM * bool(depth) + len(value))
            return _text(value)
        if kind not in (Table, list, tuple) or depth > _MAX_JSON_DEPTH:
            raise _NotPlain
        assert isinstance(value, list | tuple)
        items = len(value) // 2 if kind is Table else len(value)
        if items > _MAX_JSON_ITEMS:
            raise _NotPlain
        self._grow(_JSON_ITEM * (1 + items))
        if kind is Table:
            made = {}
            for key, inner in self._walk.keys(value).items():  # type: ignore[arg-type]
                self._grow(len(key))
                made[key] = self.of(inner, depth + 1)
            return made
        return [self.of(inner, depth + 1) for inner in value]

    def _grow(self, letters: int) -> None:
        if self.size + letters > _MAX_VALUE:
            raise _NotPlain
        self.size += letters
