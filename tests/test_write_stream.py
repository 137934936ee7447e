"""What is written bit by bit is what is written at once; and what a kill leaves behind is cleared away."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bottega.errors import FormatError, SaveError
from bottega.formats import read_header
from bottega.formats.atomic import atomic, atomic_folder, remove_stale, settle_new
from bottega.formats.safetensors import file_order, file_size, write, write_stream

TENSORS = {
    "b": ("F16", (3, 5), bytes(range(30))),
    "a": ("F16", (2,), b"abcd"),
    "wide": ("F64", (1,), b"12345678"),
    "none": ("F32", (0, 4), b""),
    "ü": ("U8", (), b"!"),
}
METADATA = {"z": "1", "a": "Ö"}


def rows() -> list[tuple[str, str, tuple[int, ...]]]:
    return [(name, dtype, shape) for name, (dtype, shape, _) in TENSORS.items()]


def pieces(size: int) -> Iterator[tuple[str, bytes]]:
    for name, _, _ in file_order(rows()):
        raw = TENSORS[name][2]
        for at in range(0, max(1, len(raw)), size):
            yield name, raw[at : at + size]


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_equal_input_gives_equal_bytes(tmp_path: Path, size: int) -> None:
    write(tmp_path / "whole", [(name, *row) for name, row in TENSORS.items()], METADATA)
    write_stream(tmp_path / "bits", rows(), pieces(size), METADATA)
    assert (tmp_path / "bits").read_bytes() == (tmp_path / "whole").read_bytes()
    assert file_size("x", rows(), METADATA) == (tmp_path / "whole").stat().st_size


def test_the_final_metadata_may_come_last(tmp_path: Path) -> None:
    first, last = {"hash": "0" * 64, "more": "x"}, {"hash": "é" * 20, "more": "y"}
    write_stream(tmp_path / "a", rows(), pieces(3), first, seal=lambda: last)
    header = read_header(tmp_path / "a")
    assert header.metadata == last and len(header.tensors) == len(TENSORS)
    with pytest.raises(ValueError, match="the final header takes"):
        write_stream(tmp_path / "b", rows(), pieces(3), last, seal=lambda: {"hash": "0" * 200})
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda contents: contents[:-1],
        lambda contents: [*contents, ("a", b"x")],
        lambda contents: [(name, chunk + b"x") for name, chunk in contents],
        lambda contents: contents[::-1],
        lambda contents: [],
    ],
)
def test_contents_that_are_not_what_was_declared_are_no_file(tmp_path: Path, change: object) -> None:
    with pytest.raises(ValueError, match=r"are due|contents ended"):
        write_stream(tmp_path / "a", rows(), change(list(pieces(7))))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "row", [("a", "F16", (2,)), ("x", "F99", (2,)), ("__metadata__", "F16", (2,)), ("y", "F4", (3,))]
)
def test_what_could_not_be_read_is_not_written(tmp_path: Path, row: tuple[str, str, tuple[int, ...]]) -> None:
    with pytest.raises(FormatError):
        write_stream(tmp_path / "a", [*rows(), row], pieces(7))
    assert os.listdir(tmp_path) == []


def test_the_check_sees_all_and_decides(tmp_path: Path) -> None:
    seen = []

    def refuse(written: Path) -> None:
        seen.append((len(read_header(written).tensors), (tmp_path / "a").exists()))
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        write_stream(tmp_path / "a", rows(), pieces(7), check=refuse)
    assert seen == [(len(TENSORS), False)] and os.listdir(tmp_path) == []


def test_a_name_that_is_taken_stays(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        write_stream(tmp_path / "a", rows(), pieces(7), settle=settle_new)
    assert (tmp_path / "a").read_bytes() == b"mine" and os.listdir(tmp_path) == ["a"]


# --- folders ---------------------------------------------------------------------------------------------------------


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "a") as folder:
        (folder / "x").write_bytes(b"1")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a" / "x").read_bytes() == b"1"
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "b") as folder:
        (folder / "x").write_bytes(b"1")
        raise RuntimeError
    with pytest.raises(FileExistsError), atomic_folder(tmp_path / "a"):
        pass
    with atomic_folder(tmp_path / "a", tmp_path / "old") as folder:
        (folder / "x").write_bytes(b"2")
    assert (tmp_path / "a" / "x").read_bytes() == b"2" and (tmp_path / "old" / "x").read_bytes() == b"1"
    assert sorted(os.listdir(tmp_path)) == ["a", "old"]
    with pytest.raises(SaveError), atomic_folder(tmp_path / "nowhere" / "a"):
        pass


# --- what a kill leaves ----------------------------------------------------------------------------------------------

KILLED = """
import os, sys
from bottega.formats.atomic import atomic, atomic_folder
from pathlib import Path
with atomic(sys.argv[1] + "/a") as file, atomic_folder(sys.argv[1] + "/b") as folder:
    file.write(b"half")
    (folder / "x").write_bytes(b"half")
    os.kill(os.getpid(), 9)
"""


def test_what_a_kill_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False)
    assert len(left := os.listdir(tmp_path)) == 2 and all(name.startswith(".bottega-") for name in left)
    (tmp_path / ".bottega-mine").write_bytes(b"")
    (tmp_path / "x.part").write_bytes(b"")
    (tmp_path / ".bottega-link.part").symlink_to(tmp_path / "x.part")
    with atomic(tmp_path / "c") as file, atomic_folder(tmp_path / "d") as folder:
        file.write(b"1")
        (folder / "x").write_bytes(b"1")
        assert {path.name for path in remove_stale(tmp_path)} == set(left)
    assert sorted(os.listdir(tmp_path)) == [".bottega-link.part", ".bottega-mine", "c", "d", "x.part"]
    assert (tmp_path / "c").read_bytes() == b"1"
    assert remove_stale(tmp_path) == []
