"""What docs/clients.md says of clients is true: its programs run against a real server, its options are those there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from door_server import Server, serving

from bottega.api.a1111.options import DEFAULTS, MODEL

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "clients.md").read_text()
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("docs") / "home") as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(PROGRAMS)))
def test_its_programs_run(index: int, server: Server, tmp_path: Path) -> None:
    text = PROGRAMS[index].replace("7680", str(server.port)).replace("20", "2")
    ran = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "house.png").stat().st_size > 1000


def test_it_names_every_option() -> None:
    (listed,) = re.findall(r"The options that change something: (.*?)\. ", PAGE, re.DOTALL)
    assert set(re.findall(r"`(\w+)`", listed)) - {"CPU", "GPU", "NV"} == {MODEL, *DEFAULTS}
