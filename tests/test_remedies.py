"""What an error advises can be done at every door: below the commands none names an option or a command of ours."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1] / "src" / "bottega"
# Programs of their own, and what only a command ever raises.
AT_THE_COMMAND_LINE = ("cli", "bench", "starter", "backup.py", "api/server.py", "engine/replay.py")
OF_THE_COMMAND_LINE = re.compile(r"(?<![\w-])--[a-z]|`(?:bottega )?(?:make|models|show|train|jobs|users|doctor)\b")
ALLOWED = {
    "choose another place with --out",  # where a command writes; a server's jobs write to the folder of the settings
    "send a key (Authorization: Bearer KEY), or open the link that `bottega serve --link` prints",  # the way in
}


def files() -> list[Path]:
    found = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
    return [path for path in found if not any(path.is_relative_to(place) for place in AT_THE_COMMAND_LINE)]


def texts(source: str) -> Iterator[str]:
    """The texts of errors that a program raises, or puts together to be raised: all but what documents it."""
    tree = ast.parse(source)
    documenting = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documenting:
            yield node.value


def test_no_remedy_is_for_the_command_line_alone() -> None:
    found = [
        (path.as_posix(), text)
        for path in files()
        for text in texts((ROOT / path).read_text(encoding="utf-8"))
        if OF_THE_COMMAND_LINE.search(text)
    ]
    assert [each for each in found if each[1] not in ALLOWED] == [], "name the setting, as the page and the API have it"
