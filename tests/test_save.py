"""Outputs get where `--out` says, whole or not at all, and take no name that is taken."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from bottega.engine.save import Destination, Named, Target, destination
from bottega.errors import FileError, SaveError
from bottega.formats.atomic import atomic, settle_new

# --- what --out means ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("out", "name", "format"),
    [
        ("house.png", "house.png", "png"),
        ("house.JPG", "house.JPG", "jpeg"),
        ("a b.c.webp", "a b.c.webp", "webp"),
        ("pictures", None, None),
        ("pictures/", None, None),
        ("house.png/", None, None),
        ("house.gif/", None, None),
        ("v1.5", None, None),
        ("v1.5 x", None, None),
        ("Mr. Smith", None, None),
        ("no.pictures", None, None),
    ],
)
def test_a_folder_or_a_file(out: str, name: str | None, format: str | None, tmp_path: Path) -> None:
    text = f"{tmp_path}/{out}"
    folder = tmp_path if name else tmp_path / out
    assert destination(text, tmp_path) == (Destination(folder, name), format)
    if not out.endswith("/"):
        assert destination(Path(text), tmp_path) == (Destination(folder, name), format)


def test_a_folder_that_is_there_may_be_called_like_a_file(tmp_path: Path) -> None:
    (tmp_path / "house.png").mkdir()
    assert destination(tmp_path / "house.png", tmp_path) == (Destination(tmp_path / "house.png"), None)


@pytest.mark.parametrize("out", ["x.gif", "x.tiff", "x.mp4", "x.PN"])
def test_an_ending_of_no_format_of_ours_is_refused(out: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"no format is called \.\w+; use one of \.png, .*slash"):
        destination(tmp_path / out, tmp_path)


KILLED = """
import os, signal, sys
from bottega.formats.atomic import atomic
with atomic(sys.argv[1]) as file:
    file.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a file that is open can't be left behind there")
@pytest.mark.parametrize("sort", ["a folder", "a job"])
def test_what_was_written_when_a_process_was_killed_goes_and_what_is_written_stays(sort: str, tmp_path: Path) -> None:
    target: Target = Destination(tmp_path) if sort == "a folder" else Named(tmp_path, "job")
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "lost.png")]).returncode == -9
    (left,) = tmp_path.iterdir()
    with atomic(tmp_path / "kept.png") as file:
        target.prepare()
        assert not left.exists()
        file.write(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["kept.png"]


def test_a_folder_is_made_when_there_is_something_to_put_into_it(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target, _ = destination(f"{tmp_path}/there/new/newer/", tmp_path)
    target.prepare()
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]
    path = target.write(b"whole", 0, 1, 7, ".png")
    assert path == tmp_path / "there" / "new" / "newer" / "00000-7.png" and path.read_bytes() == b"whole"


def test_a_folder_that_can_not_be_made_is_said_and_nothing_of_it_is_left(tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"")
    target, _ = destination(f"{tmp_path}/new/newer/", tmp_path)
    with pytest.raises(SaveError, match="can't be written to"):
        target.prepare()
    with pytest.raises(SaveError, match="can't be made"):
        target.write(b"whole", 0, 1, 7, ".png")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_folder_of_outputs_that_is_read_only_is_named_with_a_remedy(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, honest = Named(tmp_path / "outputs", "job"), os.open

    def refuse(path: str, flags: int, *rest: int, **named: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(code, os.strerror(code), path)
        return honest(path, flags, *rest, **named)

    with monkeypatch.context() as refused:
        refused.setattr(os, "open", refuse)  # permissions would not stop root
        with pytest.raises(SaveError) as error:
            target.prepare()
        with pytest.raises(SaveError, match=r"job-0\.png: could not be written .*; choose a folder that you may write"):
            target.write(b"whole", 0, 1, 7, ".png")
    assert error.value.what == f"the folder of outputs {target.folder}: can't be written to ({os.strerror(code)})"
    assert "see that Bottega may write there, or name another folder for outputs" in error.value.remedy
    assert list(target.folder.iterdir()) == []
    target.prepare()
    assert target.write(b"whole", 0, 1, 7, ".png").read_bytes() == b"whole"


# --- whole or not at all ---------------------------------------------------------------------------------------------


def no_links(*_: object) -> NoReturn:
    raise OSError(errno.EPERM, "no links here")


@pytest.mark.parametrize("links", [True, False])
def test_a_new_name_is_taken_by_one_only(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "x"
    with atomic(path, settle_new) as file:
        file.write(b"first")
    with pytest.raises(FileExistsError), atomic(path, settle_new) as file:
        file.write(b"second")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken disk"), KeyboardInterrupt()])
def test_a_name_that_was_only_reserved_is_given_back(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> NoReturn:
        raise error

    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises((SaveError, KeyboardInterrupt)), atomic(tmp_path / "x", settle_new) as file:
        file.write(b"first")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_when_the_name_is_taken_stays_one(tmp_path: Path) -> None:
    def settle(temporary: Path, path: Path) -> NoReturn:
        os.replace(temporary, path)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), atomic(tmp_path / "x", settle) as file:
        file.write(b"whole")
    assert (tmp_path / "x").read_bytes() == b"whole"
