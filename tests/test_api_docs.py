"""docs/api.md tells of every request, and its example does what it says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from native import Api, studio
from PIL import Image
from test_docs import DOCS, blocks

PAGE = DOCS / "api.md"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with studio(tmp_path_factory.mktemp("home"), working=True) as opened:
        yield opened


def test_every_request_has_its_row(api: Api) -> None:
    rows = set(re.findall(r"^\| `([A-Z]+ /api/[^`]*)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    described = {
        f"{method.upper()} {path}"
        for path, operations in api.get("/openapi.json")["paths"].items()
        for method in operations
        if path.startswith("/api/")
    }
    assert rows == described


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="the example is for curl, which is not here")
def test_the_example_works(api: Api, tmp_path: Path) -> None:
    script = "\n".join(["set -euo pipefail", *blocks(PAGE, "sh")])
    script = script.replace('"seed": 7', '"seed": 7, "steps": 2').replace(
        '"strength": 0.6', '"strength": 0.6, "steps": 2'
    )
    script = script.replace('"steps": 200', '"steps": 2, "batch": 1')
    told = {"URL": api.served.origin, "KEY": api.served.access.machine_key, "PATH": os.environ["PATH"]}
    ran = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=told, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert json.loads((tmp_path / "done.json").read_text())["state"] == "done"
    assert "event: done" in (tmp_path / "events.txt").read_text()
    with Image.open(tmp_path / "house.png") as picture:
        assert picture.size == (128, 128)
    assert [edge["kind"] for edge in json.loads((tmp_path / "lineage.json").read_text())["edges"]] == ["init"]
    assert json.loads(ran.stdout)["recipe"]["prompt"] == "snow"
    assert "event: learned" in (tmp_path / "learned.txt").read_text()
    trained = json.loads((tmp_path / "trained.json").read_text())
    assert trained["step"] == trained["steps"] == 2 and trained["model"]
