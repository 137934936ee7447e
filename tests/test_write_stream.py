"""What is written bit by bit is what is written at once; and what a kill leaves behind is cleared away."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bottega.errors import FormatError, SaveError
from bottega.formats import read_header
from bottega.formats.atomic import atomic, atomic_folder, remove_stale, replace_folder, settle_new
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
    (tmp_path / "a.replaced").mkdir()  # somebody's own
    with atomic_folder(tmp_path / "a", replace_folder) as folder:
        (folder / "x").write_bytes(b"2")
    assert (tmp_path / "a" / "x").read_bytes() == b"2"
    assert sorted(os.listdir(tmp_path)) == ["a", "a.replaced"]
    with pytest.raises(SaveError), atomic_folder(tmp_path / "nowhere" / "a"):
        pass


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("moved", [False, True])
def test_a_folder_that_is_not_replaced_keeps_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], moved: bool
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"1")
    real, calls = os.rename, []

    def rename(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2 and not moved:  # the one that gives the new folder its name
            raise error
        real(source, target)
        if len(calls) == 1 and moved:
            raise error

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(SaveError if error is OSError else error), atomic_folder(tmp_path / "a", replace_folder) as new:
        (new / "x").write_bytes(b"2")
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a" / "x").read_bytes() == b"1"


def test_an_old_folder_that_cannot_be_removed_is_left_for_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", refuse)
        with atomic_folder(tmp_path / "a", replace_folder) as folder:
            (folder / "x").write_bytes(b"2")
    assert (tmp_path / "a" / "x").read_bytes() == b"2" and len(os.listdir(tmp_path)) == 2
    remove_stale(tmp_path)
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a" / "x").read_bytes() == b"2"


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


REPLACING = """
import os, sys
from bottega.formats.atomic import atomic_folder, replace_folder
real, calls = os.rename, []
def rename(source, target):
    real(source, target)
    calls.append(target)
    if len(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
os.rename = rename
with atomic_folder(sys.argv[1] + "/a", replace_folder) as folder:
    (folder / "x").write_bytes(b"2")
"""


@pytest.mark.parametrize(("renames", "content"), [(1, b"1"), (2, b"2")])
def test_a_folder_whose_replacing_was_killed_is_given_back(tmp_path: Path, renames: int, content: bytes) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"1")
    subprocess.run([sys.executable, "-c", REPLACING, tmp_path, str(renames)], check=False)
    assert (tmp_path / "a").exists() == (renames == 2)
    remove_stale(tmp_path)
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a" / "x").read_bytes() == content


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
