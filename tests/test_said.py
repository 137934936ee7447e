"""What a user says of a model is kept: through scans, moves, other names, other disks and other versions; and wins."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from small_models import BLUE, FAMILIES, RED, write_model

from bottega.errors import Interrupted, UnknownModel
from bottega.library import Catalog, Entry, open_catalog
from bottega.library.catalog import CatalogError, Move
from bottega.library.disk import Stamp, fingerprint_of
from bottega.library.find import find
from bottega.library.hashes import hashes_of, sha256_of
from bottega.library.scan import scan
from bottega.library.schema import MIGRATIONS


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with open_catalog(tmp_path / "home" / "catalog.sqlite") as opened:
        yield opened


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    folder = tmp_path / "shelf"
    folder.mkdir()
    return folder


def said_of(catalog: Catalog, path: Path) -> Entry:
    entry = catalog.entry(path)
    assert entry is not None
    return entry


def spoken(catalog: Catalog, shelf: Path, name: str = "a.safetensors", fill: int = 0) -> Path:
    """A model of which the user says all that can be said."""
    path = write_model(shelf / name, fill=fill)
    scan(catalog, [shelf], FAMILIES)
    entry = said_of(catalog, path)
    catalog.say(entry, tags=["Good  One", "ink"], favourite=True, note="for faces", corrected={"family": "blue"})
    return path


def is_spoken(entry: Entry) -> bool:
    return (entry.tags, entry.favourite, entry.note, entry.family, entry.corrected) == (
        ("good one", "ink"), True, "for faces", "blue", {"family": "blue"},
    )  # fmt: skip


# --- saying ----------------------------------------------------------------------------------------------------------


def test_what_is_said_is_on_record(catalog: Catalog, shelf: Path) -> None:
    entry = said_of(catalog, spoken(catalog, shelf))
    assert is_spoken(entry)
    assert entry.told == {"family": "red"}
    told = entry.to_json()
    assert (told["family"], told["corrected"], told["told"]) == ("blue", {"family": "blue"}, {"family": "red"})
    assert catalog.tags() == {"good one": 1, "ink": 1}


def test_what_is_not_said_stays_as_it_is(catalog: Catalog, shelf: Path) -> None:
    entry = said_of(catalog, spoken(catalog, shelf))
    assert catalog.say(entry, note="  other ").tags == ("good one", "ink")
    assert catalog.say(entry, favourite=False).note == "other"
    assert catalog.say(entry, tags=[]).corrected == {"family": "blue"}
    assert said_of(catalog, entry.path).note == "other"


def test_everything_can_be_taken_back(catalog: Catalog, shelf: Path) -> None:
    path = spoken(catalog, shelf)
    catalog.say(said_of(catalog, path), tags=(), favourite=False, note="", corrected={})
    entry = said_of(catalog, path)
    assert (entry.tags, entry.favourite, entry.note, entry.family, entry.corrected, entry.told) == (
        (), False, "", "red", {}, {},
    )  # fmt: skip
    assert catalog.search("faces") == []


def test_a_correction_that_says_what_the_header_says_is_none(catalog: Catalog, shelf: Path) -> None:
    entry = said_of(catalog, spoken(catalog, shelf))
    again = catalog.say(entry, corrected={"family": "red", "kind": "lora"})
    assert (again.family, again.kind, again.corrected, again.told) == (
        "red", "lora", {"kind": "lora"}, {"kind": "checkpoint"},
    )  # fmt: skip
    assert said_of(catalog, entry.path) == again


def test_a_scan_that_knew_nothing_of_it_takes_nothing_away(catalog: Catalog, shelf: Path) -> None:
    path = spoken(catalog, shelf)
    stale = said_of(catalog, path)
    catalog.say(stale, note="newer")
    catalog.put([stale])  # another process that read the header in the meantime
    assert said_of(catalog, path).note == "newer"
    assert said_of(catalog, path).told == {"family": "red"}


def test_it_survives_another_scan_and_other_recognisers(catalog: Catalog, shelf: Path) -> None:
    path = spoken(catalog, shelf)
    for recognisers in (FAMILIES, [RED], [BLUE], FAMILIES):
        scan(catalog, [shelf], recognisers)
        assert is_spoken(said_of(catalog, path))
    assert said_of(catalog, path).told == {"family": "red"}


def test_it_survives_other_bytes_under_the_same_name(catalog: Catalog, shelf: Path) -> None:
    path = spoken(catalog, shelf)
    write_model(path, width=3)
    assert scan(catalog, [shelf], FAMILIES).changed == 1
    assert is_spoken(said_of(catalog, path))


def test_it_survives_that_the_file_is_gone_and_comes_back(catalog: Catalog, shelf: Path, tmp_path: Path) -> None:
    path = spoken(catalog, shelf)
    copy = shutil.copy(path, tmp_path / "backup")
    path.unlink()
    assert scan(catalog, [shelf], FAMILIES).gone == (path,)
    (missing,) = catalog.gone()
    assert missing.missing and is_spoken(missing)
    shutil.copyfile(copy, path)
    scan(catalog, [shelf], FAMILIES)
    assert is_spoken(said_of(catalog, path)) and catalog.gone() == []


# --- moving ----------------------------------------------------------------------------------------------------------


def test_it_goes_with_a_renamed_file(catalog: Catalog, shelf: Path) -> None:
    path = spoken(catalog, shelf)
    new = path.rename(shelf / "b.safetensors")
    report = scan(catalog, [shelf], FAMILIES)
    assert (report.moved, report.gone, report.new) == (((path, new),), (), 0)
    assert is_spoken(said_of(catalog, new))
    assert catalog.entry(path) is None
    assert [entry.path for entry in catalog.search("faces")] == [new]


def test_it_goes_with_a_renamed_folder(catalog: Catalog, shelf: Path) -> None:
    for index in range(5):
        spoken(catalog, shelf, f"old/{index}.safetensors", fill=index)
    (shelf / "old").rename(shelf / "new")
    report = scan(catalog, [shelf], FAMILIES)
    assert len(report.moved) == 5 and report.gone == ()
    assert all(is_spoken(entry) for entry in catalog.entries())


def test_it_goes_with_the_bytes_to_another_disk(catalog: Catalog, shelf: Path) -> None:
    """A copy under another name and time, and the original deleted: only the hash tells."""
    path = spoken(catalog, shelf)
    for index in range(3):  # of the same size
        write_model(shelf / f"other{index}.safetensors", fill=index + 1)
    hashed = sha256_of(catalog, said_of(catalog, path))
    new = Path(shutil.copyfile(path, shelf / "renamed.safetensors"))
    path.unlink()
    told: list[tuple[int, int]] = []
    report = scan(catalog, [shelf], FAMILIES, hashing=lambda done, total: told.append((done, total)))
    assert report.moved == ((path, new),)
    assert is_spoken(said_of(catalog, new)) and said_of(catalog, new).sha256 == hashed.sha256
    assert told[-1][0] == told[-1][1] > 0


@pytest.mark.parametrize("seen", [False, True], ids=["copied and deleted at once", "copied and seen, then deleted"])
def test_it_goes_with_bytes_that_nobody_hashed(seen: bool, catalog: Catalog, tmp_path: Path) -> None:
    shelf, disk = tmp_path / "shelf", tmp_path / "disk"
    path = spoken(catalog, shelf)
    for index in range(3):  # of the same size
        write_model(disk / f"b{index}.safetensors", fill=index + 1)
    scan(catalog, [disk], FAMILIES)
    new = Path(shutil.copyfile(path, disk / "renamed.safetensors"))
    if seen:
        scan(catalog, [shelf, disk], FAMILIES)
        assert said_of(catalog, new).tags == () and is_spoken(said_of(catalog, path))
    path.unlink()
    report = scan(catalog, [shelf, disk], FAMILIES)
    assert (report.moved, report.gone, report.new) == (((path, new),), (), 0)
    assert is_spoken(said_of(catalog, new)) and said_of(catalog, new).sha256 is None
    assert [entry.path for entry in catalog.entries(missing=True) if entry.tags] == [new]
    assert [entry.path for entry in catalog.search("faces")] == [new]


def test_what_was_away_for_a_while_is_known_by_its_bytes(catalog: Catalog, shelf: Path, tmp_path: Path) -> None:
    path = spoken(catalog, shelf)
    away = path.rename(tmp_path / "away")
    stranger = write_model(shelf / "stranger.safetensors", fill=1)
    scan(catalog, [shelf], FAMILIES)
    assert said_of(catalog, path).missing and said_of(catalog, stranger).tags == ()
    catalog.say(said_of(catalog, path), favourite=False)
    new = Path(shutil.copyfile(away, shelf / "back.safetensors"))
    assert scan(catalog, [shelf], FAMILIES).moved == ((path, new),)
    assert said_of(catalog, new).tags == ("good one", "ink") and not said_of(catalog, new).favourite


def test_a_copy_of_which_something_else_was_said_keeps_that(catalog: Catalog, shelf: Path) -> None:
    path = spoken(catalog, shelf)
    copy = Path(shutil.copyfile(path, shelf / "copy.safetensors"))
    scan(catalog, [shelf], FAMILIES)
    catalog.say(said_of(catalog, copy), note="its own")
    path.unlink()
    assert scan(catalog, [shelf], FAMILIES).moved == ()
    assert said_of(catalog, copy).note == "its own" and said_of(catalog, path).missing


def test_a_fingerprint_tells_models_apart_and_not_their_copies(tmp_path: Path) -> None:
    model = tmp_path / "a.safetensors"
    model.write_bytes(os.urandom(3 << 20))
    copy = Path(shutil.copyfile(model, tmp_path / "b.safetensors"))
    assert fingerprint_of(copy) == fingerprint_of(model)
    for place in (0, 1 << 20, (1 << 20) + 0xFFFF, -1):
        body = bytearray(model.read_bytes())
        body[place] ^= 1
        copy.write_bytes(body)
        assert fingerprint_of(copy) != fingerprint_of(model)
    folders = [write_model(tmp_path / name / "unet/w.safetensors").parents[1] for name in ("one", "two")]
    assert fingerprint_of(folders[0]) == fingerprint_of(folders[1])
    write_model(folders[1] / "unet/w.safetensors", fill=1)
    assert fingerprint_of(folders[0]) != fingerprint_of(folders[1])


def stop(done: int, total: int) -> None:
    """What the user's Ctrl-C makes of telling how far the work is."""
    raise Interrupted("stopped")


def test_a_scan_and_a_search_by_hash_stop_when_they_are_told_to(catalog: Catalog, shelf: Path) -> None:
    path = spoken(catalog, shelf)
    sha256 = sha256_of(catalog, said_of(catalog, path)).sha256
    assert sha256
    shutil.copyfile(path, shelf / "renamed.safetensors")
    path.unlink()
    with pytest.raises(Interrupted):
        scan(catalog, [shelf], FAMILIES, stop)
    with pytest.raises(Interrupted):
        scan(catalog, [shelf], FAMILIES, hashing=stop)
    with pytest.raises(Interrupted):
        find(catalog, sha256[:10], FAMILIES, hashing=stop)


def test_only_files_that_may_be_it_are_hashed(catalog: Catalog, shelf: Path) -> None:
    path = spoken(catalog, shelf, "big.safetensors")
    with path.open("ab") as file:
        file.truncate(path.stat().st_size)
    big = write_model(shelf / "large.safetensors", width=800, fill=1)
    scan(catalog, [shelf], FAMILIES)
    hashes_of(catalog, said_of(catalog, big))
    big.unlink()
    same_size = write_model(shelf / "stranger.safetensors", width=800, fill=2)
    report = scan(catalog, [shelf], FAMILIES)
    assert report.moved == ()
    assert said_of(catalog, same_size).sha256 is None  # AutoV1 told enough


def test_a_file_moved_to_another_disk_with_its_time_needs_no_hash(catalog: Catalog, shelf: Path) -> None:
    path = spoken(catalog, shelf)
    (shelf / "sub").mkdir()
    new = Path(shutil.copy2(path, shelf / "sub" / path.name))  # as mv does between disks
    path.unlink()
    assert scan(catalog, [shelf], FAMILIES).moved == ((path, new),)
    assert is_spoken(said_of(catalog, new))


def test_a_stranger_of_the_same_size_and_time_inherits_nothing(catalog: Catalog, shelf: Path) -> None:
    path = spoken(catalog, shelf)
    time = path.stat().st_mtime_ns
    path.unlink()
    other = write_model(shelf / "b.safetensors", fill=7)
    os.utime(other, ns=(time, time))
    report = scan(catalog, [shelf], FAMILIES)
    if other.stat().st_ino == 0:
        pytest.skip("a file system without inodes")
    # The system may give the new file the inode of the one that is gone; then they can't be told apart unread.
    if not report.moved:
        assert said_of(catalog, other).tags == () and catalog.gone()[0].path == path


def test_a_file_that_was_found_before_the_old_place_was_looked_at(catalog: Catalog, tmp_path: Path) -> None:
    """Moved from one shelf to another, and the shelves scanned one after the other, the new one first."""
    old_shelf, new_shelf = tmp_path / "one", tmp_path / "two"
    new_shelf.mkdir()
    path = spoken(catalog, old_shelf)
    new = path.rename(new_shelf / path.name)
    scan(catalog, [new_shelf], FAMILIES)
    scan(catalog, [old_shelf], FAMILIES)
    assert is_spoken(said_of(catalog, new)) and catalog.gone() == []


def test_a_shelf_that_is_away_keeps_its_own(catalog: Catalog, tmp_path: Path) -> None:
    disk, shelf = tmp_path / "disk", tmp_path / "shelf"
    shelf.mkdir()
    path = spoken(catalog, disk)
    sha256_of(catalog, said_of(catalog, path))
    copy = Path(shutil.copyfile(path, shelf / "copy.safetensors"))
    disk.rename(tmp_path / "unplugged")
    scan(catalog, [disk, shelf], FAMILIES)
    assert is_spoken(said_of(catalog, copy))
    (tmp_path / "unplugged").rename(disk)
    scan(catalog, [disk, shelf], FAMILIES)
    assert is_spoken(said_of(catalog, path)) and is_spoken(said_of(catalog, copy))


def on_another_disk(old: Path, new: Path) -> None:
    """As mv does between disks."""
    shutil.copytree(old, new)
    shutil.rmtree(old)


def copied_plainly(old: Path, new: Path) -> None:
    """Under other times and other names."""
    for index, path in enumerate(sorted(old.iterdir())):
        new.mkdir(exist_ok=True)
        shutil.copyfile(path, new / f"{index}.safetensors")
    shutil.rmtree(old)


@pytest.mark.parametrize("hashed", [False, True], ids=["", "hashed"])
@pytest.mark.parametrize("move", [Path.rename, on_another_disk, copied_plainly])
def test_it_goes_with_a_shelf_that_is_moved(
    move: Callable[[Path, Path], object], hashed: bool, catalog: Catalog, tmp_path: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    noted(catalog, old, "a", "b", hashed=hashed)
    move(old, new)
    report = scan(catalog, [new], FAMILIES)
    assert (len(report.moved), report.new, report.gone) == (2, 0, ())
    assert {entry.note for entry in catalog.entries()} == {"a", "b"}
    assert [(entry.note, entry.shelf) for entry in catalog.search("first")] == [("a", new)]
    catalog.forget(entry.path for entry in catalog.gone())
    assert scan(catalog, [old, new], FAMILIES).moved == ()
    assert {entry.note: entry.family for entry in catalog.entries(missing=True)} == {"a": "blue", "b": "red"}


@pytest.mark.parametrize("move", [Path.rename, on_another_disk])
def test_it_goes_with_a_shelf_that_is_moved_before_anything_else_is_said(
    move: Callable[[Path, Path], object], catalog: Catalog, tmp_path: Path
) -> None:
    path = spoken(catalog, tmp_path / "old")
    move(tmp_path / "old", tmp_path / "new")
    found = find(catalog, str(tmp_path / "new" / path.name), FAMILIES)
    assert is_spoken(said_of(catalog, found.path))
    catalog.say(said_of(catalog, found.path), note="other")
    scan(catalog, [tmp_path / "old", tmp_path / "new"], FAMILIES)
    assert said_of(catalog, found.path).tags == ("good one", "ink") and said_of(catalog, found.path).note == "other"


def test_two_that_were_spoken_of_are_never_made_one(catalog: Catalog, shelf: Path) -> None:
    path = spoken(catalog, shelf)
    copy = Path(shutil.copyfile(path, shelf / "copy.safetensors"))
    scan(catalog, [shelf], FAMILIES)
    for each in (path, copy):
        sha256_of(catalog, said_of(catalog, each))
    catalog.say(said_of(catalog, copy), note="its own")
    path.unlink()
    scan(catalog, [shelf], FAMILIES)
    assert said_of(catalog, copy).note == "its own"
    assert is_spoken(catalog.gone()[0])


def noted(catalog: Catalog, shelf: Path, *names: str, hashed: bool = False) -> list[Path]:
    """Models of one size, each with a note that is its name, and the first one tagged and corrected."""
    paths = [write_model(shelf / f"{name}.safetensors", fill=index) for index, name in enumerate(names)]
    scan(catalog, [shelf], FAMILIES)
    for path in paths:
        entry = said_of(catalog, path)
        entry = hashes_of(catalog, entry) if hashed else entry
        catalog.say(entry, note=path.stem)
    catalog.say(said_of(catalog, paths[0]), tags=["first"], corrected={"family": "blue"})
    return paths


def notes(catalog: Catalog) -> dict[str, str]:
    """What is noted of each model that is there, by its name."""
    return {entry.name: entry.note for entry in catalog.entries()}


def renamed(shelf: Path, **names: str) -> None:
    """Give files each other's names."""
    for name in names:
        (shelf / f"{name}.safetensors").rename(shelf / f"{name}.moving")
    for name, new in names.items():
        (shelf / f"{name}.moving").rename(shelf / f"{new}.safetensors")


@pytest.mark.parametrize(
    "names",
    [{"a": "b", "b": "a"}, {"a": "d", "b": "a"}, {"a": "b", "b": "c", "c": "a"}, {"a": "d", "b": "a", "c": "b"}],
    ids=["swapped", "handed on", "in a ring", "in a row"],
)
def test_it_goes_with_files_that_take_the_names_of_others(names: dict[str, str], catalog: Catalog, shelf: Path) -> None:
    noted(catalog, shelf, "a", "b", "c", hashed=True)
    known = {entry.name: entry.sha256 for entry in catalog.entries()}
    renamed(shelf, **names)
    report = scan(catalog, [shelf], FAMILIES)
    now = {name: names.get(name, name) for name in "abc"}
    assert notes(catalog) == {now[name]: name for name in "abc"}
    assert {entry.name: entry.sha256 for entry in catalog.entries()} == {now[name]: known[name] for name in "abc"}
    assert [entry.name for entry in catalog.entries() if entry.family == "blue"] == [now["a"]]
    assert {(before.stem, after.stem) for before, after in report.moved} == {*names.items()}
    assert (report.new, report.changed, report.gone, catalog.gone()) == (0, 0, (), [])
    assert [entry.name for entry in catalog.search("first")] == [now["a"]]
    assert scan(catalog, [shelf], FAMILIES).headers_read == 0


def test_a_link_to_the_bytes_of_what_was_gone_before_is_what_left_now(catalog: Catalog, shelf: Path) -> None:
    a = spoken(catalog, shelf)
    b = shelf / "b.safetensors"
    b.hardlink_to(a)
    scan(catalog, [shelf], FAMILIES)
    catalog.say(said_of(catalog, b), note="of b")
    a.unlink()
    scan(catalog, [shelf], FAMILIES)
    c = b.rename(shelf / "c.safetensors")
    assert scan(catalog, [shelf], FAMILIES).moved == ((b, c),)
    assert said_of(catalog, c).note == "of b" and is_spoken(said_of(catalog, a))


def test_a_scan_that_is_interrupted_leaves_what_is_said_with_its_file(catalog: Catalog, shelf: Path) -> None:
    noted(catalog, shelf, "a", "b")
    renamed(shelf, a="b", b="a")
    with pytest.raises(Interrupted):
        scan(catalog, [shelf], FAMILIES, stop)
    assert notes(catalog) == {"a": "b", "b": "a"}
    assert scan(catalog, [shelf], FAMILIES).headers_read == 2
    assert notes(catalog) == {"a": "b", "b": "a"}


def test_names_are_swapped_before_a_scan_knows_of_it(catalog: Catalog, shelf: Path) -> None:
    a, b = noted(catalog, shelf, "a", "b")
    renamed(shelf, a="b", b="a")
    assert find(catalog, str(a), FAMILIES).note == "b"
    assert find(catalog, str(b), FAMILIES).note == "a"
    scan(catalog, [shelf], FAMILIES)
    assert notes(catalog) == {"a": "b", "b": "a"} and catalog.gone() == []


def test_another_scan_was_quicker(catalog: Catalog, shelf: Path) -> None:
    noted(catalog, shelf, "a", "b")
    moves = [Move(str(shelf / "a"), str(shelf / "b"), Stamp(1, 2, 3), Stamp(1, 2, 3))]
    assert catalog.follow(moves) == {} and notes(catalog) == {"a": "a", "b": "b"}


def test_what_has_lost_its_name_and_is_not_found_is_missing(catalog: Catalog, shelf: Path, tmp_path: Path) -> None:
    a, b = noted(catalog, shelf, "a", "b", "c")[:2]
    a.rename(tmp_path / "elsewhere")
    b.rename(a)
    write_model(shelf / "a (replaced).safetensors", width=3)
    report = scan(catalog, [shelf], FAMILIES)
    assert notes(catalog) == {"a": "b", "c": "c", "a (replaced)": ""}
    (missing,) = catalog.gone()
    assert (missing.name, missing.note, report.gone) == ("a (replaced 2)", "a", (missing.path,))
    back = (tmp_path / "elsewhere").rename(shelf / "d.safetensors")
    assert scan(catalog, [shelf], FAMILIES).moved == ((missing.path, back),)
    assert notes(catalog)["d"] == "a" and catalog.gone() == []


def test_what_is_new_under_a_name_inherits_nothing_if_the_old_one_is_found(catalog: Catalog, shelf: Path) -> None:
    (a,) = noted(catalog, shelf, "a")
    a.rename(shelf / "old.safetensors")
    write_model(a, fill=5)
    report = scan(catalog, [shelf], FAMILIES)
    assert notes(catalog) == {"a": "", "old": "a"}
    assert (len(report.moved), report.new, report.changed) == (1, 1, 0)


def test_a_model_that_came_from_a_shelf_which_is_not_scanned(catalog: Catalog, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    (a,), (b,) = noted(catalog, one, "a"), noted(catalog, two, "b")
    a.rename(two / "c.safetensors")
    b.rename(a)
    scan(catalog, [one], FAMILIES)
    scan(catalog, [two], FAMILIES)
    assert notes(catalog) == {"a": "b", "c": "a"} and catalog.gone() == []


def test_copies_that_take_the_names_of_others_are_told_by_their_hash(catalog: Catalog, shelf: Path) -> None:
    """Copied, with other times and other inodes: a takes b's name, b takes c's, and c a new one."""
    noted(catalog, shelf, "a", "b", "c", hashed=True)
    copies = {path.stem: path.read_bytes() for path in shelf.iterdir()}
    for name, new in {"a": "b", "b": "c", "c": "d"}.items():
        (shelf / f"{new}.safetensors").unlink(missing_ok=True)
        (shelf / f"{new}.safetensors").write_bytes(copies[name])
    (shelf / "a.safetensors").unlink()
    report = scan(catalog, [shelf], FAMILIES)
    assert notes(catalog) == {"b": "a", "c": "b", "d": "c"} and catalog.gone() == []
    assert {(before.stem, now.stem) for before, now in report.moved} == {("a", "b"), ("b", "c"), ("c", "d")}


def test_what_is_touched_or_replaced_is_not_hashed_without_need(catalog: Catalog, shelf: Path) -> None:
    a, b, c = noted(catalog, shelf, "a", "b", "c")
    sha256_of(catalog, said_of(catalog, a))  # which tells no AutoV1
    for path in (a, b, c):
        os.utime(path, (1, 1))
    c.unlink()
    hashing: list[int] = []
    scan(catalog, [shelf], FAMILIES, hashing=lambda done, total: hashing.append(done))
    assert hashing == [] and notes(catalog) == {"a": "a", "b": "b"}


def test_forgotten_for_good(catalog: Catalog, shelf: Path) -> None:
    path = spoken(catalog, shelf)
    path.unlink()
    scan(catalog, [shelf], FAMILIES)
    catalog.forget(entry.path for entry in catalog.gone())
    write_model(path)
    scan(catalog, [shelf], FAMILIES)
    assert said_of(catalog, path).tags == () and catalog.search("faces") == []


# --- versions --------------------------------------------------------------------------------------------------------


def old_catalog(path: Path, models: int = 50) -> None:
    """A catalog as version 1 left it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    for statement in MIGRATIONS[0].split(";"):
        connection.execute(statement)
    names = (
        "path, shelf, size, mtime_ns, inode, kind, category, family, variant, format, dtype, parameters, bytes, "
        "dimensions, parts, because, metadata, guess, error, read_by, sha256, hashed_at, missing"
    )
    for index in range(models):
        connection.execute(
            f"INSERT INTO models ({names}) VALUES ({', '.join('?' * 23)})",
            (
                f"/shelf/Größe {index}.safetensors".encode() + b"\xff" if index == 7 else f"/shelf/Größe {index}.ckpt",
                "/shelf", index, 20, 30, "checkpoint", "base", "sd1", "base", "safetensors", "F16", 5, 10,
                '{"unet": {"width": 2}}', '{"unet": "u."}', '["it is red"]', '{"title": "T"}', 0,
                "cut short" if index == 8 else "", "0.1+abc sd1", "ab" * 32 if index == 9 else None, 1.5, index == 10,
            ),
        )  # fmt: skip
    connection.execute("INSERT INTO shelves VALUES ('/shelf', 1.0)")
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()


def check_old_catalog(catalog: Catalog) -> None:
    entries = catalog.entries(missing=True)
    assert len(entries) == 50 and catalog.shelves() == (Path("/shelf"),)
    by_size = {entry.size: entry for entry in entries}
    assert by_size[7].path == Path(os.fsdecode(b"/shelf/Gr\xc3\xb6\xc3\x9fe 7.safetensors\xff"))
    assert (by_size[8].error, by_size[8].verdict, by_size[0].verdict) == ("cut short", "refused", "clean")
    assert (by_size[9].sha256, by_size[9].hashed_at) == ("ab" * 32, 1.5)
    assert [entry.size for entry in entries if entry.missing] == [10]
    assert by_size[0].dimensions == {"unet": {"width": 2}} and by_size[0].metadata == {"title": "T"}
    assert [entry.size for entry in catalog.search("GROSSE 12")] == [12]


def test_a_catalog_of_version_1_opens_with_nothing_lost(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    old_catalog(path)
    for _ in range(2):
        with open_catalog(path) as catalog:
            check_old_catalog(catalog)
    with open_catalog(path) as catalog:
        catalog.say(catalog.entries()[0], note="something")
        assert [entry.note for entry in catalog.search("something")] == ["something"]


DIES = """
import os, signal, sys
from pathlib import Path
from bottega.library import catalog, open_catalog

left, real = int(sys.argv[2]), catalog.connect

def connect(*args, **options):
    connection = real(*args, **options)
    connection.set_trace_callback(count)
    return connection

def count(statement):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

catalog.connect = connect
open_catalog(Path(sys.argv[1])).close()
print("done")
"""


def test_the_old_one_is_kept_beside_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    old_catalog(path)
    (tmp_path / "catalog.sqlite.v1.part").write_bytes(b"broken off")
    for _ in range(2):
        with open_catalog(path) as catalog:
            check_old_catalog(catalog)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["catalog.sqlite", "catalog.sqlite.v1"]
    with closing(sqlite3.connect(tmp_path / "catalog.sqlite.v1")) as kept:
        assert kept.execute("PRAGMA user_version").fetchone() == (1,)
        assert kept.execute("SELECT count(*) FROM models").fetchone() == (50,)
    # An older Bottega, or we after something went wrong, can go on with it.
    (tmp_path / "catalog.sqlite.v1").rename(path)
    with open_catalog(path) as catalog:
        check_old_catalog(catalog)
    open_catalog(tmp_path / "new" / "catalog.sqlite").close()
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["catalog.sqlite"]


def test_without_room_for_the_copy_the_old_one_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    old_catalog(path)
    (tmp_path / "catalog.sqlite.v1").mkdir()  # nothing can be put in its place
    with pytest.raises(CatalogError, match="copy"):
        open_catalog(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["catalog.sqlite", "catalog.sqlite.v1"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs SIGKILL")
def test_killed_at_any_statement_it_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    old_catalog(tmp_path / "original.sqlite")
    finished = False
    for statement in [*range(1, 32, 2), 60, 120, 10_000]:
        path = tmp_path / f"{statement}.sqlite"
        shutil.copy(tmp_path / "original.sqlite", path)
        done = subprocess.run([sys.executable, "-c", DIES, str(path), str(statement)], capture_output=True, text=True)
        finished = done.stdout == "done\n"
        connection = sqlite3.connect(path)
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        connection.close()
        assert version in (1, len(MIGRATIONS)) and (version > 1) == ("said" in tables) == ("learnt" in tables)
        assert "models" in tables and "models_1" not in tables
        with open_catalog(path) as catalog:
            check_old_catalog(catalog)
    assert finished


# --- found by hash ---------------------------------------------------------------------------------------------------


def test_every_hash_finds_the_file(catalog: Catalog, shelf: Path) -> None:
    path = write_model(shelf / "a.safetensors", width=800)
    write_model(shelf / "b.safetensors", width=800, fill=1)
    scan(catalog, [shelf], FAMILIES)
    hashed = hashes_of(catalog, said_of(catalog, path))
    assert hashed.sha256 and hashed.autov1 and hashed.autov3 and hashed.crc32 and hashed.blake3
    for digits in (
        hashed.sha256, hashed.sha256[:10], hashed.autov1, hashed.autov1.upper(), hashed.autov3, hashed.autov3[:12],
        hashed.crc32, hashed.crc32.lower(), hashed.blake3,
    ):  # fmt: skip
        assert find(catalog, digits, FAMILIES).path == path
    told = said_of(catalog, path).to_json()
    assert told["autov1"] == hashed.autov1 and told["autov3"] == hashed.autov3 and told["blake3"] == hashed.blake3


def test_the_hash_of_nothing_is_no_models(catalog: Catalog, shelf: Path) -> None:
    path = write_model(shelf / "small.safetensors")
    scan(catalog, [shelf], FAMILIES)
    assert hashes_of(catalog, said_of(catalog, path)).to_json()["autov1"] is None
    catalog.keep(said_of(catalog, path), {"autov1": "e3b0c442"})  # as it was kept before
    with closing(sqlite3.connect(catalog.path)) as connection:
        connection.executescript("DROP INDEX models_by_state; PRAGMA user_version = 4")
    with open_catalog(catalog.path) as again:
        for reference in ("e3b0c442", "old [e3b0c442]", "small [e3b0c442]"):
            with pytest.raises(UnknownModel):
                find(again, reference, FAMILIES, hashing=lambda done, total: None)
        assert said_of(again, path).autov1 == ""


@pytest.mark.parametrize("sort", ["sha256", "autov2", "autov1", "autov3", "addnet"])
def test_a_hash_that_is_not_known_yet_is_looked_for(sort: str, catalog: Catalog, shelf: Path, tmp_path: Path) -> None:
    path = write_model(shelf / "renamed.safetensors", width=800, fill=3)
    write_model(shelf / "small.safetensors", fill=3)
    large = write_model(shelf / "large.safetensors", width=900)
    with open_catalog(tmp_path / "other" / "catalog.sqlite") as other:
        scan(other, [shelf], FAMILIES)
        hashed = hashes_of(other, said_of(other, path))
    wanted = {
        "sha256": hashed.sha256, "autov2": (hashed.sha256 or "")[:10], "autov1": hashed.autov1,
        "autov3": hashed.autov3, "addnet": (hashed.autov3 or "")[:12],
    }[sort]  # fmt: skip
    assert wanted
    scan(catalog, [shelf], FAMILIES)
    told: list[tuple[int, int]] = []
    for reference in (f"its old name [{wanted}]", wanted):
        assert find(catalog, reference, FAMILIES, hashing=lambda *step: told.append(step)).path == path
    assert said_of(catalog, large).sha256 is None  # the smallest come first, and no more than needed
    if sort != "autov1":
        assert told and all(done <= total for done, total in told)


def test_the_kind_that_is_asked_for_bounds_what_is_hashed(catalog: Catalog, shelf: Path) -> None:
    model = write_model(shelf / "model.safetensors", fill=1)
    lora = write_model(shelf / "lora.safetensors", fill=2)
    scan(catalog, [shelf], FAMILIES)
    catalog.say(said_of(catalog, lora), corrected={"kind": "lora"})
    with open_catalog(shelf.parent / "other" / "catalog.sqlite") as other:
        scan(other, [shelf], FAMILIES)
        wanted = hashes_of(other, said_of(other, lora)).autov3
    assert wanted
    found = find(catalog, wanted[:12], FAMILIES, kind="lora", hashing=lambda done, total: None)
    assert (found.path, found.kind) == (lora, "lora")
    assert said_of(catalog, model).sha256 is None
