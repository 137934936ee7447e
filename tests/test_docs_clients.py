"""What docs/clients.md says of clients is true: its programs run against a real server, its options are those there."""

from __future__ import annotations

import re
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
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # they leave closing to the end of the program
@pytest.mark.parametrize("index", range(len(PROGRAMS)))
def test_its_programs_run(index: int, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = PROGRAMS[index].replace("7680", str(server.port)).replace("20", "2")
    exec(compile(text, f"docs/clients.md, program {index}", "exec"), {"__name__": "docs"})  # noqa: S102  our own text
    assert (tmp_path / "house.png").stat().st_size > 1000


def test_it_names_every_option() -> None:
    (listed,) = re.findall(r"The options that change something: (.*?)\. ", PAGE, re.DOTALL)
    assert set(re.findall(r"`(\w+)`", listed)) - {"CPU", "GPU", "NV"} == {MODEL, *DEFAULTS}
