"""The benchmarks of pickles measure what they say, and a fuzz run tells what broke and how to see it again."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Command

from bottega.bench import fuzz, pickles
from bottega.cli.bench import BENCHES


def test_a_fuzz_run_tells_its_verdicts(bottega: Command) -> None:
    ran = bottega("bench", "fuzz", "--mutations", 300, "--json")
    assert ran.code == 0, ran.out
    told = ran.json
    assert told["mutations"] == sum(told["verdicts"].values()) == 300
    assert set(told["verdicts"]) <= {"clean", "unusual", "dangerous", "refused"}
    assert told["verdicts"]["refused"] and told["verdicts"]["clean"] and told["failures"] == []
    assert told["slowest_seconds"] > 0 and told["per_second"] > 0


def test_a_mutation_is_known_by_its_number() -> None:
    sources = fuzz.samples()
    made = [fuzz.mutated(sources, 0, number) for number in range(60)]
    assert made == [fuzz.mutated(sources, 0, number) for number in range(60)]
    assert len(set(made)) > 50
    assert made != [fuzz.mutated(sources, 1, number) for number in range(60)]


def test_what_should_not_be_raised_is_told_with_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path) -> None:
        raise TypeError("oh")

    monkeypatch.setattr(fuzz, "read_header", broken)
    report = fuzz.read_all(fuzz.samples(), 0, range(3, 5))
    assert report.failures == ["number 3: TypeError: oh", "number 4: TypeError: oh"]
    assert report.verdicts == {"failed": 2}


@pytest.mark.slow
def test_reading_is_compared_with_the_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "REPEATS", 1)
    monkeypatch.setattr(pickles, "TENSORS", 24)
    figures = list(pickles.measure(tmp_path, 2_000_000))
    assert [figure.what for figure in figures] == [
        "archive: usable tensors",
        "archive: every number read",
        "old format: usable tensors",
        "old format: every number read",
    ]
    assert all(figure.to_json()["times_faster"] > 0 for figure in figures)
    assert "mmap=True" in figures[0].peer and "mmap" not in figures[2].peer
    assert not list(tmp_path.iterdir())


def test_every_bench_has_its_module() -> None:
    from importlib import import_module

    for name in BENCHES:
        if name != "pictures":
            assert callable(import_module(f"bottega.bench.{name}").run)
