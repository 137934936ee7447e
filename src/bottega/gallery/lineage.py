"""What came from what: the inputs of an output, what it was an input of, and those that share its recipe."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bottega.gallery import rows
from bottega.gallery.output import Output

GENERATIONS = 6  # that are followed back and forth
CHILDREN = 12  # of one output that are shown
SIBLINGS = 12  # of its series that are shown, the nearest in time
REPLAY, VARIATION, SEED = "replay", "variation", "seed"
_KIN = "kin = ? AND kin != 0"  # its index holds no others


class Edge(NamedTuple):
    """`source` was used for `target`: as the input that `kind` says (`init`, `mask`), or with its recipe: the same one
    (`replay`), with another variation (`variation`) or another seed (`seed`)."""

    source: str
    target: str
    kind: str


class Node(NamedTuple):
    """An output, or an input that is none of them: a picture from elsewhere, known by its SHA-256."""

    id: str
    output: Output | None
    sha256: str


@dataclass(frozen=True)
class Graph:
    """The neighbourhood of an output: nodes and edges, the oldest first; `left_out` counts neighbours not shown."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    left_out: int


def graph(connection: sqlite3.Connection, folder: Path, output: Output) -> Graph:
    """The lineage of an output among the outputs of its owner that are not in the trash."""
    return _Lineage(connection, folder, output).drawn()


class _Lineage:
    def __init__(self, connection: sqlite3.Connection, folder: Path, output: Output) -> None:
        self._connection = connection
        self._folder = folder
        self._centre = output
        self._outputs = {output.id: output}
        self._foreign: dict[str, str] = {}  # inputs that are no outputs: their SHA-256 by their node's id
        self._edges: dict[Edge, None] = {}
        self._left_out = 0

    def drawn(self) -> Graph:
        for step in (self._parents, self._children):
            generation = [self._centre]
            for _ in range(GENERATIONS):
                generation = [each for output in generation for each in step(output)]
        self._siblings()
        foreign = [Node(id, None, sha256) for id, sha256 in sorted(self._foreign.items())]
        outputs = sorted(self._outputs.values(), key=lambda each: (each.created, each.id))
        nodes = (*foreign, *(Node(output.id, output, output.sha256) for output in outputs))
        place = {node.id: index for index, node in enumerate(nodes)}
        edges = sorted(self._edges, key=lambda edge: (place[edge.source], place[edge.target], edge.kind))
        return Graph(nodes, tuple(edges), self._left_out)

    def _parents(self, output: Output) -> Iterator[Output]:
        """The outputs that were inputs of this one; each as it was first made, if it was made several times."""
        query = "SELECT role, sha256 FROM inputs WHERE output = (SELECT id FROM details WHERE name = ?) ORDER BY role"
        for role, sha256 in self._connection.execute(query, (output.id,)).fetchall():
            makers = self._read("details.sha256 = ? AND outputs.id < ?", sha256, rows.time_number(output.created))
            if makers:
                yield from self._meet(makers[0], Edge(makers[0].id, output.id, role))
            else:
                id = f"input-{sha256}"
                self._foreign[id] = sha256
                self._edges[Edge(id, output.id, role)] = None

    def _children(self, output: Output) -> Iterator[Output]:
        """The outputs of which this one was an input."""
        number = rows.time_number(output.created)
        of_this = "outputs.id IN (SELECT output FROM inputs WHERE sha256 = ?) AND outputs.id > ?"
        mine = f"{of_this} AND NOT deleted AND owners.name = ?"
        values = (output.sha256, number, self._centre.owner)
        children = self._rows(f"{mine} ORDER BY outputs.id LIMIT ?", *values, CHILDREN)
        count = f"SELECT count(*) FROM outputs JOIN owners ON owners.id = owner WHERE {mine}"
        ((all_of_them,),) = self._connection.execute(count, values).fetchall()
        self._left_out += all_of_them - len(children)
        query = "SELECT role FROM inputs WHERE sha256 = ? AND output = (SELECT id FROM details WHERE name = ?)"
        for child in children:
            for (role,) in self._connection.execute(query, (output.sha256, child.id)).fetchall():
                yield from self._meet(child, Edge(output.id, child.id, role))

    def _siblings(self) -> None:
        """The outputs whose recipe is this one's but for the seeds."""
        number = rows.number_of(self._connection, self._centre.id)
        ((kin,),) = self._connection.execute("SELECT kin FROM details WHERE id = ?", (number,)).fetchall()
        if not kin:
            return
        series = f"{_KIN} AND details.id {{}} ? AND NOT deleted AND owners.name = ? ORDER BY details.id {{}} LIMIT ?"
        values = (kin, number, self._centre.owner)
        older = self._rows(series.format("<", "DESC"), *values, SIBLINGS)
        younger = self._rows(series.format(">", "ASC"), *values, SIBLINGS)
        half = SIBLINGS // 2
        shown = [*older[: max(half, SIBLINGS - len(younger))], *younger[: max(half, SIBLINGS - len(older))]]
        count = (
            "SELECT count(*) FROM details JOIN outputs USING (id) JOIN owners ON owners.id = owner "
            f"WHERE {_KIN} AND NOT deleted AND owners.name = ? AND outputs.id != ?"
        )
        ((all_of_them,),) = self._connection.execute(count, (kin, self._centre.owner, number)).fetchall()
        self._left_out += all_of_them - len(shown)
        for each in shown:
            self._outputs.setdefault(each.id, each)
            first, second = sorted((self._centre, each), key=lambda one: (one.created, one.id))
            self._edges[Edge(first.id, second.id, _kinship(first, second))] = None

    def _meet(self, output: Output, edge: Edge) -> Iterator[Output]:
        """Take an output and its edge in; it is followed further where it was not met before."""
        self._edges[edge] = None
        if output.id not in self._outputs:
            self._outputs[output.id] = output
            yield output

    def _read(self, where: str, *values: object) -> list[Output]:
        mine = "NOT deleted AND owners.name = ? ORDER BY outputs.id"
        return self._rows(f"{where} AND {mine}", *values, self._centre.owner)

    def _rows(self, where: str, *values: object) -> list[Output]:
        return rows.read(self._connection, self._folder, where, *values)


def _kinship(first: Output, second: Output) -> str:
    """How two outputs of one series are related."""
    if first.digest and first.digest == second.digest:
        return REPLAY
    if first.seed != second.seed:
        return SEED
    knobs = [json.loads(output.recipe).get("knobs", {}) for output in (first, second)]
    names = ("variation_seed", "variation_strength")
    return VARIATION if any(knobs[0].get(name) != knobs[1].get(name) for name in names) else REPLAY
