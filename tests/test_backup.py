"""A home goes into one archive and comes out of it as it was; nothing else comes out of an archive."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import Command
from gallery_outputs import recipe_of, write_output

from bottega.backup import backup, restore
from bottega.errors import BottegaError, FileError, FormatError, SaveError
from bottega.gallery import Adopted, Gallery
from bottega.jobs.lock import HomeLock
from bottega.settings import Settings


@dataclass
class Home:
    """A home with something of everything in it."""

    settings: Settings

    @property
    def path(self) -> Path:
        return self.settings.home

    @property
    def gallery(self) -> Gallery:
        return Gallery(self.settings.gallery, self.settings.outputs)

    def files(self) -> dict[str, bytes]:
        return {
            path.relative_to(self.path).as_posix(): path.read_bytes()
            for path in self.path.rglob("*")
            if path.is_file() and path.name != "serve.lock"
        }


def home_at(path: Path) -> Home:
    return Home(Settings(path, outputs=path / "outputs"))


@pytest.fixture
def full(tmp_path: Path) -> Home:
    home = home_at(tmp_path / "full")
    with home.gallery as gallery:
        for number in range(3):
            output = write_output(home.settings.outputs / "2026-11-28", recipe_of(seed=number), id=f"j{number}-0")
            os.utime(output.path, ns=(1_790_000_000_123_456_789,) * 2)
            gallery.add(output)
        gallery.mark("j1-0", favourite=True, folder="houses")
    for name in ("queue.sqlite", "catalog.sqlite", "access.sqlite"):
        with closing(sqlite3.connect(home.path / name)) as connection:
            connection.executescript("CREATE TABLE t (name); INSERT INTO t VALUES ('kept')")
    (home.path / "settings.toml").write_text('proxy = "http://me:secret@proxy:3128"\n')
    (home.path / "tokens.toml").write_text('civitai = "secret"\n')
    (home.path / "a1111-options.json").write_text('{"ann": {"samples_format": "jpg"}}')
    (home.path / "serve.json").write_text('{"key": "secret"}')
    for folder in ("models", "thumbnails", "logs"):
        (home.path / folder).mkdir()
        (home.path / folder / "secret.bin").write_bytes(b"secret")
    for name, content in {
        "inputs/" + "ab" * 32: b"an input",
        "cards/x.json": b"{}",
        "outputs/山 水: 1.png": b"x",
        "training/dog/log.jsonl": b"{}",
    }.items():
        path = home.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (home.path / "training" / "dog" / "latents").mkdir()
    (home.path / "training" / "dog" / "latents" / "a.safetensors").write_bytes(b"secret")
    return home


def quiet(phase: str, done: int, total: int) -> None:
    assert 0 <= done <= total


def names_in(path: Path) -> list[str]:
    with tarfile.open(path) as archive:
        return archive.getnames()


# --- there and back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "A.TGZ"])
def test_a_home_comes_back_as_it_was(full: Home, tmp_path: Path, name: str) -> None:
    saved = backup(full.settings, tmp_path / name, quiet)
    assert saved.left_out == ()
    empty = home_at(tmp_path / "new" / "home")
    restored = restore(empty.settings, tmp_path / name, quiet)
    assert restored.files == saved.files and restored.aside is None
    before, after = full.files(), empty.files()
    kept = {name for name in before if name.partition("/")[0] in ("inputs", "cards", "training", "outputs")}
    kept = {name for name in kept if "latents" not in name}
    databases = {"queue.sqlite", "gallery.sqlite", "catalog.sqlite"}
    assert after.keys() == kept | databases | {"settings.toml", "a1111-options.json"}
    assert after["a1111-options.json"] == before["a1111-options.json"]
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert after["settings.toml"] == b'proxy = "http://proxy:3128"\n'
    with empty.gallery as gallery:
        assert gallery.adopt(gallery.folder) == Adopted(files=4)
        assert [output.id for output in gallery.outputs().items] == ["j2-0", "j1-0", "j0-0"]
        assert gallery.output("j1-0").favourite and gallery.output("j1-0").folder == "houses"
        assert gallery.output("j1-0").path.stat().st_mtime_ns == 1_790_000_000_123_456_789
    with closing(sqlite3.connect(empty.path / "queue.sqlite")) as connection:
        assert connection.execute("SELECT name FROM t").fetchall() == [("kept",)]


def test_no_secret_is_in_it_unless_asked_for(full: Home, tmp_path: Path) -> None:
    backup(full.settings, tmp_path / "a.tar", quiet)
    assert b"secret" not in (tmp_path / "a.tar").read_bytes()
    backup(full.settings, tmp_path / "b.tar", quiet, keys=True)
    restored = home_at(tmp_path / "home")
    restore(restored.settings, tmp_path / "b.tar", quiet)
    assert (restored.path / "tokens.toml").read_text() == 'civitai = "secret"\n'
    assert (restored.path / "tokens.toml").stat().st_mode & 0o777 == 0o600
    assert (restored.path / "access.sqlite").exists()
    assert "secret@" in (restored.path / "settings.toml").read_text()


@pytest.mark.parametrize("keys", [False, True])
def test_nobody_else_may_read_it(full: Home, tmp_path: Path, keys: bool) -> None:
    (tmp_path / "a.tar").touch(0o644)
    before = os.umask(0o022)
    try:
        backup(full.settings, tmp_path / "a.tar", quiet, keys=keys)
    finally:
        os.umask(before)
    assert (tmp_path / "a.tar").stat().st_mode & 0o777 == 0o600


def test_outputs_can_be_left_out(full: Home, tmp_path: Path) -> None:
    backup(full.settings, tmp_path / "a.tar", quiet, outputs=False)
    assert not [name for name in names_in(tmp_path / "a.tar") if name.startswith("outputs")]


def test_outputs_from_elsewhere_come_into_the_home(full: Home, tmp_path: Path) -> None:
    elsewhere = tmp_path / "pictures"
    (full.path / "outputs").rename(elsewhere)
    (full.path / "settings.toml").write_text(f'outputs = "{elsewhere}"\n')
    backup(Settings(full.path, outputs=elsewhere), tmp_path / "a.tar", quiet)
    new = home_at(tmp_path / "home")
    restored = restore(new.settings, tmp_path / "a.tar", quiet)
    assert (new.path / "outputs" / "2026-11-28" / "j0-0.png").exists()
    assert f"outputs lie in {elsewhere}" in restored.notes[0] and "models are not" in restored.notes[1]


def test_what_no_archive_can_hold_is_told(full: Home, tmp_path: Path) -> None:
    (full.path / "outputs" / "line\nend.png").write_bytes(b"x")
    (full.path / "outputs" / os.fsdecode(b"\xff.png")).write_bytes(b"x")
    (full.path / "outputs" / "link.png").symlink_to(full.path / "tokens.toml")
    saved = backup(full.settings, tmp_path / "a.tar", quiet)
    assert len(saved.left_out) == 3 and "outputs/link.png: is a link to a file elsewhere" in saved.left_out
    assert sum("no archive can hold this name" in line for line in saved.left_out) == 2
    assert "outputs/link.png" not in names_in(tmp_path / "a.tar")
    restore(home_at(tmp_path / "home").settings, tmp_path / "a.tar", quiet)


def test_outputs_in_folders_that_links_lead_to_are_in_it(full: Home, tmp_path: Path) -> None:
    """As the gallery shows them; and links that lead in a circle do not have it go on for ever."""
    day = full.settings.outputs / "2026-11-28"
    day.rename(tmp_path / "large disk")
    day.symlink_to(tmp_path / "large disk")
    (full.settings.outputs / "again").symlink_to(full.settings.outputs)
    saved = backup(full.settings, tmp_path / "a.tar", quiet)
    assert saved.left_out == ()
    assert "outputs/2026-11-28/j0-0.png" in names_in(tmp_path / "a.tar")
    assert not any("again" in name for name in names_in(tmp_path / "a.tar"))


def test_what_a_killed_backup_left_goes_with_the_next(full: Home, tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib; from bottega.backup import backup; from bottega.settings import Settings; "
        "backup(Settings(pathlib.Path(sys.argv[1])), pathlib.Path(sys.argv[2]), lambda *told: os._exit(9))"
    )
    words = [sys.executable, "-c", code, str(full.path), str(tmp_path / "a.tar")]
    assert subprocess.run(words, check=False).returncode == 9
    left = [path for path in tmp_path.iterdir() if path.name.startswith(".bottega-")]
    (copies,) = [path for path in left if path.is_dir()]
    assert len(left) == 2 and copies.stat().st_mode & 0o077 == 0
    backup(full.settings, tmp_path / "a.tar", quiet)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "full"]


def test_a_file_that_goes_meanwhile_is_told(full: Home, tmp_path: Path) -> None:
    victim = full.path / "outputs" / "2026-11-28" / "j2-0.png"
    saved = backup(full.settings, tmp_path / "a.tar", lambda *told: victim.unlink(missing_ok=True))
    assert saved.left_out == ("outputs/2026-11-28/j2-0.png: No such file or directory",)


def test_a_file_that_shrinks_meanwhile_ends_it(full: Home, tmp_path: Path) -> None:
    large = full.path / "outputs" / "large.bin"
    large.write_bytes(bytes(1 << 20))

    def cut(phase: str, done: int, total: int) -> None:
        if done > 1 << 19:
            os.truncate(large, 1000)

    with pytest.raises(FileError, match=r"large\.bin: became shorter"):
        backup(full.settings, tmp_path / "a.tar", cut)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_a_database_is_copied_as_it_is_at_one_moment(full: Home, tmp_path: Path) -> None:
    with closing(sqlite3.connect(full.path / "queue.sqlite", isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("INSERT INTO t VALUES ('in the log')")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO t VALUES ('not yet')")
        backup(full.settings, tmp_path / "a.tar", quiet)
    new = home_at(tmp_path / "home")
    restore(new.settings, tmp_path / "a.tar", quiet)
    with closing(sqlite3.connect(new.path / "queue.sqlite")) as connection:
        assert connection.execute("SELECT name FROM t").fetchall() == [("kept",), ("in the log",)]


@pytest.mark.parametrize("name", ["a.zip", "a.tar.xz", "a", "tar"])
def test_another_ending_is_refused(full: Home, tmp_path: Path, name: str) -> None:
    with pytest.raises(FileError, match=r"end its name with \.tar"):
        backup(full.settings, tmp_path / name, quiet)


def test_a_home_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no home here"):
        backup(home_at(tmp_path / "none").settings, tmp_path / "a.tar", quiet)


def test_a_place_that_is_not_there_is_said(full: Home, tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="make its folder first"):
        backup(full.settings, tmp_path / "none" / "a.tar", quiet)


def test_an_interrupt_leaves_nothing(full: Home, tmp_path: Path) -> None:
    def interrupt(phase: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    (tmp_path / "a.tar").write_bytes(b"the last one")
    with pytest.raises(KeyboardInterrupt):
        backup(full.settings, tmp_path / "a.tar", interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "full"]
    assert (tmp_path / "a.tar").read_bytes() == b"the last one"
    backup(full.settings, tmp_path / "a.tar", quiet)
    with pytest.raises(KeyboardInterrupt):
        restore(home_at(tmp_path / "home").settings, tmp_path / "a.tar", interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "full"]


# --- a home that is in use -------------------------------------------------------------------------------------------


def test_a_home_with_something_in_it_is_only_touched_when_forced(full: Home, tmp_path: Path) -> None:
    backup(full.settings, tmp_path / "a.tar", quiet)
    with full.gallery as gallery:
        gallery.add(write_output(full.settings.outputs, recipe_of("newer", seed=50), id="newer-0"))
    before = full.files()
    with pytest.raises(BottegaError, match=r"is in use; .*--force"):
        restore(full.settings, tmp_path / "a.tar", quiet)
    assert full.files() == before
    (full.path / "gallery.sqlite-wal").write_bytes(b"of the old one")
    restored = restore(full.settings, tmp_path / "a.tar", quiet, force=True)
    again = restore(full.settings, tmp_path / "a.tar", quiet, force=True)  # within the same second, as a rule
    assert restored.aside is not None and again.aside not in (None, restored.aside)
    assert (restored.aside / "outputs" / "newer-0.png").exists()
    assert (restored.aside / "gallery.sqlite-wal").read_bytes() == b"of the old one"
    with full.gallery as gallery:
        assert gallery.outputs().total == 3
    after = full.files()
    untouched = {"tokens.toml", "serve.json", "access.sqlite", "models/secret.bin", "logs/secret.bin"}
    assert {name: after[name] for name in untouched} == {name: before[name] for name in untouched}


def test_a_home_that_is_served_is_not_touched(full: Home, tmp_path: Path) -> None:
    backup(full.settings, tmp_path / "a.tar", quiet)
    before = full.files()
    served = "import sys\nfrom pathlib import Path\nfrom bottega.jobs.lock import HomeLock\n" \
             "with HomeLock(Path(sys.argv[1])):\n    print('locked', flush=True)\n    sys.stdin.read()\n"  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-c", served, str(full.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None and server.stdout.readline()
        with pytest.raises(BottegaError, match="a server runs"):
            restore(full.settings, tmp_path / "a.tar", quiet, force=True)
    assert full.files() == before


def test_a_disk_without_room_is_said_before_anything(
    full: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup(full.settings, tmp_path / "a.tar", quiet)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))  # type: ignore[attr-defined]
    with pytest.raises(FileError, match="has 0 bytes free"):
        restore(home_at(tmp_path / "home").settings, tmp_path / "a.tar", quiet)
    assert not (tmp_path / "home").exists()


# --- archives that are none ------------------------------------------------------------------------------------------


def member(name: str, content: bytes = b"x", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


HEAD = member("bottega-backup.json", json.dumps({"version": 1, "created": 5.0}).encode())


def archive_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    "name",
    [
        "../evil", "/etc/evil", "outputs/../../evil", "outputs/../settings.toml", "outputs//x", "outputs/./x",
        "outputs/", "outputs", "models/x.safetensors", "serve.json", "serve.lock", "thumbnails/x", "outputs/.hidden",
        "C:\\evil",         "outputs/a\\..\\b", "outputs/" + "a/" * 12 + "b", "outputs/" + "x" * 300,
        "inputs/a\nb", "",         "gallery.sqlite-wal", "./settings.toml", "OUTPUTS/x",
    ],
)  # fmt: skip
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    path = whole(tmp_path / "a.tar", member(name))
    with pytest.raises(FormatError, match=r"which no backup has|holds '' where it can't be"):
        restore(home_at(tmp_path / "home").settings, path, quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


@pytest.mark.parametrize(
    "fields",
    [
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0},
        {"type": tarfile.LNKTYPE, "linkname": "settings.toml", "size": 0},
        {"type": tarfile.CHRTYPE, "size": 0},
        {"type": tarfile.BLKTYPE, "size": 0},
        {"type": tarfile.FIFOTYPE, "size": 0},
        {"type": tarfile.DIRTYPE, "size": 0},
        {"type": tarfile.CONTTYPE},
        {"type": tarfile.GNUTYPE_SPARSE},
        {"pax_headers": {"GNU.sparse.map": "0,1", "GNU.sparse.size": "9999999999999"}},
    ],
)
def test_members_that_are_no_plain_files_are_refused(tmp_path: Path, fields: dict[str, object]) -> None:
    path = whole(tmp_path / "a.tar", member("outputs/x", b"", **fields))
    with pytest.raises(FormatError, match="which is no plain file"):
        restore(home_at(tmp_path / "home").settings, path, quiet)
    assert not (tmp_path / "home").exists()


def whole(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    """A backup that is as it should be, but for its members."""
    return archive_of(
        path, HEAD, *members, sums(**{info.name: hashlib.sha256(content).hexdigest() for info, content in members})
    )


def test_a_file_that_is_also_a_folder_is_refused(tmp_path: Path) -> None:
    path = whole(tmp_path / "a.tar", member("outputs/a"), member("outputs/a/b/c"))
    with pytest.raises(FormatError, match="as a file and as a folder"):
        restore(home_at(tmp_path / "home").settings, path, quiet)


@pytest.mark.parametrize("version", [0, -1, True, 1.0, "1", None])
def test_a_version_that_there_never_was_is_refused(tmp_path: Path, version: object) -> None:
    head = member("bottega-backup.json", json.dumps({"version": version, "created": 5.0}).encode())
    with pytest.raises(FormatError, match="is damaged"):
        restore(home_at(tmp_path / "home").settings, archive_of(tmp_path / "a.tar", head, sums()), quiet)


def test_a_new_home_is_its_owners_alone(tmp_path: Path) -> None:
    """Prompts and pictures are in it."""
    restore(home_at(tmp_path / "deep" / "home").settings, whole(tmp_path / "a.tar"), quiet)
    assert (tmp_path / "deep" / "home").stat().st_mode & 0o777 == 0o700
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o750)
    restore(home_at(shared).settings, whole(tmp_path / "a.tar"), quiet)
    assert shared.stat().st_mode & 0o777 == 0o750


def test_a_backup_made_by_hand_is_one(tmp_path: Path) -> None:
    home = home_at(tmp_path / "home")
    restore(home.settings, whole(tmp_path / "a.tar", member("outputs/a/b.png"), member("settings.toml", b"")), quiet)
    assert home.files() == {"outputs/a/b.png": b"x", "settings.toml": b""}


def sums(**told: str) -> tuple[tarfile.TarInfo, bytes]:
    return member("checksums.json", json.dumps(told).encode())


@pytest.mark.parametrize(
    ("members", "what"),
    [
        ([], "no backup of Bottega"),
        ([member("settings.toml"), HEAD], "no backup of Bottega"),
        ([HEAD], "cut short"),
        ([HEAD, member("settings.toml")], "cut short"),
        ([HEAD, sums(**{"settings.toml": "ab"})], "does not hold the files"),
        ([HEAD, member("settings.toml"), sums()], "does not hold the files"),
        ([HEAD, member("settings.toml"), member("settings.toml"), sums()], "where it can't be"),
        ([HEAD, sums(), member("settings.toml")], "where it can't be"),
        ([HEAD, HEAD], "where it can't be"),
        ([HEAD, member("settings.toml"), sums(**{"settings.toml": "ab" * 32})], "settings.toml is damaged"),
        ([member("bottega-backup.json", b'{"version": 2}'), sums()], "newer Bottega"),
        ([member("bottega-backup.json", b"{}"), sums()], "is damaged"),
        ([member("bottega-backup.json", b"[]"), sums()], "damaged"),
        ([member("bottega-backup.json", b"{"), sums()], "damaged"),
        ([HEAD, member("checksums.json", b"nothing")], "damaged"),
        ([HEAD, member("checksums.json", b"[" * 100_000)], "nested without end"),
        ([member("bottega-backup.json", b"[" * 100_000), sums()], "nested without end"),
        *(
            ([member("bottega-backup.json", b'{"version": 1, "created": %s}' % when), sums()], "damaged")
            for when in (b"NaN", b"-1", b"1e300", b"9" * 400, b"9" * 5000, b'"now"', b"null")
        ),
    ],
)
def test_what_is_no_whole_backup_is_refused(
    tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]], what: str
) -> None:
    path = archive_of(tmp_path / "a.tar", *members)
    with pytest.raises(FormatError, match=what):
        restore(home_at(tmp_path / "home").settings, path, quiet)
    assert not (tmp_path / "home").exists()


def header(kind: bytes, content: bytes, size: int | None = None) -> bytes:
    """A header of tar's that tells something of the member after it; it says that its content has that size."""
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, len(content) if size is None else size
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def pax(key: str, value: str) -> bytes:
    text = f" {key}={value}\n"
    return f"{len(text) + 2:02}{text}".encode()


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize(
    "told",
    [
        header(tarfile.GNUTYPE_LONGNAME, b"outputs/" + b"x" * (16 << 20)),
        header(tarfile.GNUTYPE_LONGNAME, b"outputs/x", size=400 << 20),
        header(tarfile.GNUTYPE_LONGLINK, b"", size=1 << 40),
        header(tarfile.XHDTYPE, pax("size", "99999999999999")),
        header(tarfile.XHDTYPE, pax("size", "9" * 40)),
        header(tarfile.XHDTYPE, pax("size", "-512")),
        header(tarfile.XHDTYPE, b"", size=400 << 20),
        header(tarfile.XGLTYPE, pax("comment", "x")),
        header(tarfile.GNUTYPE_LONGNAME, b"") * 2000,
        header(tarfile.XHDTYPE, pax("comment", "x")) * 2000,
        header(tarfile.GNUTYPE_SPARSE, b"")[:482] + b"\1" + bytes(29) + (bytes(504) + b"\1" + bytes(7)) * 2000,
    ],
    ids=range(11),
)  # fmt: skip
def test_headers_without_end_are_refused_within_bounds(
    full: Home, tmp_path: Path, told: bytes, pack: Callable[[bytes], bytes]
) -> None:
    content = whole(tmp_path / "a.tar", member("outputs/x")).read_bytes()
    at = content.index(b"outputs/x\0")
    (tmp_path / "a.tar").write_bytes(pack(content[:at] + told + content[at:]))
    before = full.files()
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            restore(full.settings, tmp_path / "a.tar", quiet, force=True)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert full.files() == before


def test_from_a_pipe_nothing_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "backup.tar")
    with pytest.raises(FileError, match="is no regular file"):
        restore(Settings(tmp_path / "home"), pipe, lambda *_: None)


@pytest.mark.parametrize("break_it", [
    lambda whole: b"", lambda whole: b"a text, and no archive", lambda whole: gzip.compress(b"no archive"),
    lambda whole: whole[: len(whole) // 2], lambda whole: whole[:700], lambda whole: gzip.compress(whole)[:-900],
    lambda whole: whole.replace(b"an input", b"an inpuT"), lambda whole: gzip.compress(whole)[:200] + bytes(900),
])  # fmt: skip
def test_a_damaged_archive_changes_nothing(full: Home, tmp_path: Path, break_it: Callable[[bytes], bytes]) -> None:
    backup(full.settings, tmp_path / "a.tar", quiet)
    (tmp_path / "a.tar").write_bytes(break_it((tmp_path / "a.tar").read_bytes()))
    before = full.files()
    with pytest.raises(FormatError):
        restore(full.settings, tmp_path / "a.tar", quiet, force=True)
    assert full.files() == before
    with pytest.raises(FormatError):
        restore(home_at(tmp_path / "home").settings, tmp_path / "a.tar", quiet)
    assert not (tmp_path / "home").exists()


# --- the commands ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["queue.sqlite", "gallery.sqlite", "catalog.sqlite", "access.sqlite"])
def test_a_damaged_database_is_refused_by_name(tmp_path: Path, name: str) -> None:
    broken = b"SQLite format 3\0" + bytes(4000)
    archive = whole(tmp_path / "a.tar", member("settings.toml", b""), member(name, broken))
    with pytest.raises(FormatError, match=f"its {name} is damaged"):
        restore(home_at(tmp_path / "new").settings, archive, quiet)
    assert not (tmp_path / "new").exists()


def test_outputs_that_lie_elsewhere_leave_the_gallery(full: Home, tmp_path: Path) -> None:
    (full.path / "private.png").write_bytes(next(full.settings.outputs.rglob("*.png")).read_bytes())
    with closing(sqlite3.connect(full.settings.gallery)) as connection, connection:
        for name, path in {"j0-0": "../private.png", "j2-0": str(full.path / "private.png")}.items():
            connection.execute("UPDATE details SET path = ? WHERE name = ?", (path, name))
    backup(full.settings, tmp_path / "a.tar", quiet)
    new = home_at(tmp_path / "new")
    told = restore(new.settings, tmp_path / "a.tar", quiet)
    assert "2 outputs" in told.notes[0]
    with new.gallery as gallery:
        assert [each.id for each in gallery.outputs().items] == ["j1-0"]
    assert not list(new.path.glob("gallery.sqlite-*"))


def test_keys_that_an_archive_brings_are_told(full: Home, tmp_path: Path) -> None:
    for keys in (False, True):
        backup(full.settings, tmp_path / "a.tar", quiet, keys=keys)
        told = restore(home_at(tmp_path / str(keys)).settings, tmp_path / "a.tar", quiet)
        assert any("keys of users" in note for note in told.notes) == keys


def test_the_commands_tell_what_they_did(bottega: Command, home: Path, tmp_path: Path) -> None:
    (home / "outputs").mkdir(parents=True)
    (home / "outputs" / "a.png").write_bytes(b"x" * 2000)
    ran = bottega("backup", tmp_path / "a.tar")
    assert ran.code == 0 and "a.tar: 2 kB in 1 file; models are not in it" in ran.out
    assert bottega("backup", tmp_path / "b.tar.gz", "--json").json["files"] == 1
    ran = bottega("restore", tmp_path / "a.tar")
    assert ran.code == 2 and "is in use" in ran.err
    told = bottega("restore", tmp_path / "a.tar", "--force", "--json").json
    assert told["files"] == 1 and Path(told["aside"], "outputs", "a.png").exists()
    shutil.rmtree(home)
    ran = bottega("restore", tmp_path / "b.tar.gz")
    assert ran.code == 0 and "models are not part of a backup" in ran.out
    assert (home / "outputs" / "a.png").read_bytes() == b"x" * 2000
    assert bottega("restore", tmp_path / "none.tar").code == 2


def test_a_lock_of_our_own_is_no_server(full: Home, tmp_path: Path) -> None:
    backup(full.settings, tmp_path / "a.tar", quiet)
    empty = home_at(tmp_path / "home")
    with HomeLock(empty.path):
        pass
    assert restore(empty.settings, tmp_path / "a.tar", quiet).aside is None


@pytest.mark.slow
def test_ctrl_c_ends_a_backup_without_a_trace(home: Path, tmp_path: Path) -> None:
    (home / "outputs").mkdir(parents=True)
    with (home / "outputs" / "large.bin").open("wb") as file:
        file.truncate(3 << 30)
    process = subprocess.Popen(
        [sys.executable, "-m", "bottega", "backup", str(tmp_path / "a.tar")], stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stderr is not None and process.stderr.readline().startswith("save")
        process.send_signal(signal.SIGINT)
        assert "interrupted" in process.stderr.read()
    assert process.returncode == 130
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
