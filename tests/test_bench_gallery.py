"""The benchmark's galleries are what it says, and it measures what it tells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Command

from bottega.bench.made_outputs import OWNERS, fill
from bottega.gallery import Gallery


def test_the_outputs_are_as_years_of_work_leave_them(tmp_path: Path) -> None:
    fill(tmp_path, 500, content=b"")
    with Gallery(tmp_path / "gallery.sqlite", tmp_path / "outputs") as gallery:
        page = gallery.outputs(limit=500)
        assert (page.total, len({output.owner for output in page.items})) == (500, len(OWNERS))
        assert [output.created for output in page.items] == sorted((o.created for o in page.items), reverse=True)
        assert 0 < gallery.outputs(text="castle", field={"sampler": "Euler a"}).total < 100
        report = gallery.adopt(gallery.folder)
        assert (report.files, report.gone, report.new) == (500, 0, 0)


@pytest.mark.slow
def test_it_measures_what_it_tells(bottega: Command) -> None:
    told = json.loads(bottega("bench", "gallery", "--outputs", "600", "--json").out)
    assert told["outputs"] == 600 and told["database_bytes"] > 600 * 1000
    for name in (
        "first_page",
        "page_again",
        "deep_page",
        "search",
        "fields",
        "lineage",
        "add",
        "thumbnail",
        "page_meanwhile",
    ):
        assert 0 < told[name]["median"] <= told[name]["slowest"]
    ran = bottega("bench", "gallery", "--outputs", "600")
    assert "600" in ran.out and "look through" in ran.out


def test_a_file_is_refused_where_none_would_be_written(bottega: Command, tmp_path: Path) -> None:
    ran = bottega("bench", "gallery", "--outputs", "600", "--out", tmp_path / "figures.json")
    assert ran.code == 2 and "--out: is written for pictures only" in ran.err
