"""What was measured, always beside what it is to be compared with; as JSON, and as a table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

Unit = Literal["s", "steps/s", "bytes", "dB"]
_MORE_IS_BETTER = ("steps/s", "dB")


@dataclass(frozen=True)
class Figure:
    """One thing that was measured of one model, in several runs.

    `limit` is the best that it could be here, as `limit_is` says, measured in the same minutes; `peer` is the same
    thing done by the peer. Either may be missing.
    """

    model: str
    what: str
    unit: Unit
    runs: tuple[float, ...]
    limit: float | None = None
    limit_is: str = ""
    peer: float | None = None

    @property
    def value(self) -> float:
        """The median of the runs."""
        return median(self.runs)

    @property
    def times_limit(self) -> float | None:
        """How many times worse than the limit; 1 is the best there can be."""
        return None if self.limit is None else self._worse(self.value, self.limit)

    @property
    def times_peer(self) -> float | None:
        """How many times better than the peer."""
        return None if self.peer is None else self._worse(self.peer, self.value)

    def _worse(self, one: float, other: float) -> float:
        return other / one if self.unit in _MORE_IS_BETTER else one / other

    def to_json(self) -> dict[str, Any]:
        """The figure as plain data, with the ratios."""
        told = asdict(self) | {"value": self.value, "times_limit": self.times_limit, "times_peer": self.times_peer}
        return {name: value for name, value in told.items() if value is not None}


@dataclass(frozen=True)
class Peaks:
    """The most that a device computes in one number format, in floating-point operations per second."""

    matrix: float
    convolution: float


@dataclass(frozen=True)
class Report:
    """Everything that one run measured. `peaks` are by number format, `bandwidth` is in bytes read per second."""

    app: str
    when: str
    seconds: float
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    precision: str
    peaks: Mapping[str, Peaks]
    bandwidth: float
    peer: str | None
    figures: Sequence[Figure]

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return asdict(self) | {"figures": [figure.to_json() for figure in self.figures]}

    @property
    def headers(self) -> list[str]:
        """What stands above the columns of `rows`."""
        return ["model", "what", "here", "at best", "times that", *([self.peer, "times faster"] if self.peer else [])]

    @property
    def rows(self) -> list[list[str]]:
        """The figures as people read them."""
        return [_row(figure)[: len(self.headers)] for figure in self.figures]

    @property
    def facts(self) -> list[tuple[str, str]]:
        """By what, when and on what this was measured, and what the machine can do at best."""
        peaks = [
            (f"peak in {name}", f"{peak.matrix / 1e9:.0f} GFLOP/s matrix, {peak.convolution / 1e9:.0f} convolution")
            for name, peak in self.peaks.items()
        ]
        return [
            ("bottega", f"{self.app}, computing in {self.precision}"),
            ("when", f"{self.when}, in {self.seconds:.0f} s"),
            *self.machine.items(),
            ("versions", ", ".join(f"{name} {version}" for name, version in self.versions.items())),
            *peaks,
            ("memory", f"read at {self.bandwidth / 1e9:.1f} GB/s"),
        ]

    @property
    def limits(self) -> list[tuple[str, str]]:
        """What "at best" means for each thing that was measured."""
        return list({figure.what: figure.limit_is for figure in self.figures if figure.limit_is}.items())

    def markdown(self) -> str:
        """The report as a page."""
        ruler = ["---", "---", *["---:"] * (len(self.headers) - 2)]
        table = [self.headers, ruler, *self.rows]
        return "\n".join(
            [
                f"# Measured on {self.when}",
                "",
                *(f"- {name}: {value}" for name, value in self.facts),
                "",
                *(f"| {' | '.join(row)} |" for row in table),
                "",
                "What is measured, and what it is at best:",
                "",
                *(f"- {what}: {limit}." for what, limit in self.limits),
                "",
            ]
        )


def _row(figure: Figure) -> list[str]:
    limit, peer = figure.times_limit, figure.times_peer
    return [
        figure.model,
        figure.what,
        _amount(figure.value, figure.unit),
        "-" if figure.limit is None else _amount(figure.limit, figure.unit),
        "-" if limit is None else f"{limit:.2f}",
        "-" if figure.peer is None else _amount(figure.peer, figure.unit),
        "-" if peer is None else f"{peer:.2f}",
    ]


def _amount(value: float, unit: Unit) -> str:
    if unit == "bytes":
        return f"{value / 1e6:,.0f} MB"
    return f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"
