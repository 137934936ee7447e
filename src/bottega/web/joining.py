"""Joins the modules of the page into one, as a browser would put them together, so that it has to ask only once.

Each of them costs a browser some 2 ms of the first paint. They stay plain modules of JavaScript; this only has to know
how imports and exports are written here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import NamedTuple

_IMPORT = re.compile(r'^import \{([^}]*)\} from "(\.[^"]+)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (default |(?:const|class|function|async function) (\w+))", re.MULTILINE)
_LINKS = re.compile(r"^(?:import|export)\b.*", re.MULTILINE)
_DEFAULT = "itself"  # the name, within its module, of what it exports without a name


def joined(name: str, read: Callable[[str], str]) -> str:
    """The module `name` and all that it imports as one module; `read` gives the text of one by its path.

    Each becomes a function that is called once, after those that it imports. Raises ValueError where an import or an
    export is written in a way that this does not know, where something is imported that is not exported, and where
    modules import each other in a circle.
    """
    parts: dict[str, _Part] = {}
    _add(name, read, parts, ())
    return "".join(part.text for part in parts.values())


class _Part(NamedTuple):
    text: str
    exports: frozenset[str]


def _add(name: str, read: Callable[[str], str], parts: dict[str, _Part], above: tuple[str, ...]) -> None:
    if name in above:
        raise ValueError(f"modules import each other: {' from '.join((name, *reversed(above)))}")
    text = read(name)
    for line in _LINKS.findall(text):
        if not (_IMPORT.fullmatch(line) or _EXPORT.match(line)):
            raise ValueError(f"{name}: can't be joined with others: {line[:80]}")
    imports = [(what, _place(name, told)) for what, told in _IMPORT.findall(text)]
    for what, other in imports:
        if other not in parts:
            _add(other, read, parts, (*above, name))
        if missing := {one.split(" as ")[0].strip() for one in what.split(",")} - parts[other].exports:
            raise ValueError(f"{name}: imports {' and '.join(sorted(missing))}, which {other} does not export")
    numbers = {other: number for number, other in enumerate(parts)}
    taken = "".join(f"const {{{what.replace(' as ', ': ')}}} = module{numbers[other]};\n" for what, other in imports)
    exports = [own for _, own in _EXPORT.findall(text)]
    given = ", ".join(own or f"default: {_DEFAULT}" for own in exports)
    body = _EXPORT.sub(lambda found: found[1] if found[2] else f"const {_DEFAULT} = ", _IMPORT.sub("", text))
    whole = f"const module{len(parts)} = (() => {{ // {name}\n{taken}{body}\nreturn {{ {given} }};\n}})();\n"
    parts[name] = _Part(whole, frozenset(own or "default" for own in exports))


def _place(name: str, told: str) -> str:
    """The path of a module that the module `name` calls by `told`: `../dom.js` in `parts/look.js` is `dom.js`."""
    parts = list(PurePosixPath(name).parent.parts)
    for part in PurePosixPath(told).parts:
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)
