"""Kills and faults lose nothing: `bottega bench faults` in a shorter form, with a real server, worker and model."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from bottega.bench import faults
from bottega.bench.faults import Report, commit_faults, kill_while_working, text

pytestmark = pytest.mark.slow


def test_kills_of_server_and_worker_lose_double_and_change_nothing(tmp_path: Path) -> None:
    report = Report(jobs=40, clients=10)
    kill_while_working(tmp_path / "home", 3, report)
    assert report.wrong == [], text(report)
    assert (report.states, report.server_kills, report.worker_kills) == ({"done": 40}, 3, 3)


def test_workers_and_disks_that_fail_cost_their_own_job_only_and_the_server_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "FAULTS", ("abort", "hang", "eat", "full", "read-only", "forbidden"))
    report = Report()
    commit_faults(tmp_path / "home", report)
    assert report.wrong == [], text(report)
    assert report.health_asked > 50
    for fault, reason in (("read-only", "Read-only file system"), ("forbidden", "Permission denied")):
        day = date.today().isoformat()
        told = f"failed (the folder of outputs {day}: can't be written to ({reason})), then done"
        assert report.faults[fault] == told


def test_the_bench_sees_what_is_wrong(tmp_path: Path) -> None:
    report = Report(jobs=3, clients=1)
    kill_while_working(tmp_path / "home", 0, report)
    assert report.wrong == []
    taken = {path.stem.removesuffix("-0"): 0 for path in (tmp_path / "home" / "outputs").rglob("*.png")}
    changed, gone, _ = sorted((tmp_path / "home" / "outputs").rglob("*.png"))
    changed.write_bytes(changed.read_bytes() + b"x")
    gone.unlink()
    expected = dict.fromkeys(range(faults.RECIPES), "0" * 64)
    faults._look(tmp_path / "home", taken, expected, report)
    words = " ".join(report.wrong)
    assert "differs from the picture" in words and "left no file" in words and "2 files" in words
    faults._look(tmp_path / "home", {**taken, "nobody": 0}, expected, lost := Report(jobs=4))
    assert any("were taken and are gone" in line for line in lost.wrong)
