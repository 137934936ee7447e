"""Models that are there twice are found without reading all files, and become links only when that is asked for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Command
from small_models import FAMILIES, write_model

from bottega.errors import BottegaError, FileError, Interrupted
from bottega.formats import safetensors
from bottega.library import Catalog, open_catalog
from bottega.library import duplicates as module
from bottega.library.duplicates import Group, duplicates, link, replace_by_link
from bottega.library.scan import scan


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with open_catalog(tmp_path / "home" / "catalog.sqlite") as opened:
        yield opened


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    folder = tmp_path / "shelf"
    folder.mkdir()
    return folder


def copied(source: Path, *targets: Path) -> None:
    for target in targets:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def aged(path: Path, seconds: int) -> Path:
    """The file, made to look as if it came at this time."""
    os.utime(path, (seconds, seconds))
    return path


def groups_of(catalog: Catalog, shelf: Path) -> list[Group]:
    scan(catalog, [shelf], FAMILIES)
    return duplicates(catalog)


def shown(groups: list[Group]) -> list[tuple[str, list[list[str]]]]:
    return [(group.same, [[entry.name for entry in copy] for copy in group.copies]) for group in groups]


def test_the_same_bytes_are_found_and_nothing_else_is_hashed(catalog: Catalog, shelf: Path) -> None:
    first = aged(write_model(shelf / "a.safetensors", width=30), 1000)
    copied(first, shelf / "sub" / "b.safetensors", shelf / "c.safetensors")
    write_model(shelf / "same size.safetensors", width=30, fill=1)
    write_model(shelf / "other.safetensors", width=31)
    (group,) = groups_of(catalog, shelf)
    assert shown([group]) == [("bytes", [["a"], ["c"], ["b"]])] or shown([group]) == [("bytes", [["a"], ["b"], ["c"]])]
    assert group.kept.path == first and group.saved == 2 * first.stat().st_size
    hashed = {entry.name for entry in catalog.entries() if entry.sha256}
    assert hashed == {"a", "b", "c"}


def test_the_same_tensors_under_other_metadata(catalog: Catalog, shelf: Path) -> None:
    write_model(shelf / "a.safetensors", metadata={"title": "one"})
    write_model(shelf / "b.safetensors", metadata={"title": "another title"})
    write_model(shelf / "c.safetensors", metadata={"title": "one"}, fill=3)
    (group,) = groups_of(catalog, shelf)
    assert group.same == "tensors" and not group.can_be_linked
    assert {entry.name for copy in group.copies for entry in copy} == {"a", "b"}
    assert link(catalog, group) == ([], 0)


def test_two_names_of_one_file_are_no_duplicates(catalog: Catalog, shelf: Path) -> None:
    path = write_model(shelf / "a.safetensors")
    os.link(path, shelf / "b.safetensors")
    (shelf / "c.safetensors").symlink_to(path)
    assert groups_of(catalog, shelf) == []
    copied(path, shelf / "d.safetensors")
    (group,) = groups_of(catalog, shelf)
    assert shown([group]) == [("bytes", [["a", "b", "c"], ["d"]])]  # the one with most names is kept
    assert group.saved == path.stat().st_size


def test_folders_are_compared_and_not_linked(catalog: Catalog, shelf: Path) -> None:
    for name in ("one", "two"):
        write_model(shelf / name / "unet" / "diffusion_pytorch_model.safetensors")
        (shelf / name / "unet" / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
        (shelf / name / "model_index.json").write_text(
            '{"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}'
        )
    (group,) = groups_of(catalog, shelf)
    assert (group.same, group.can_be_linked) == ("bytes", False)
    assert link(catalog, group) == ([], 0)


def test_what_is_gone_is_told(catalog: Catalog, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_model(shelf / "a.safetensors")
    copied(path, shelf / "b.safetensors")
    scan(catalog, [shelf], FAMILIES)

    def vanish(*_: object) -> None:
        raise FileError(path, "is gone")

    for name in ("sha256_of", "hashes_of"):
        monkeypatch.setattr(module, name, vanish)
    failed: list[BottegaError | OSError] = []
    assert duplicates(catalog, failed=failed.append) == []
    assert len(failed) == 4


def test_copies_become_links(catalog: Catalog, shelf: Path) -> None:
    first = aged(write_model(shelf / "a.safetensors", width=50), 1000)
    os.link(first, shelf / "a name that the catalog does not know")
    copied(first, *(shelf / f"{name}.safetensors" for name in "bde"))
    os.link(shelf / "b.safetensors", shelf / "c.safetensors")
    os.link(aged(shelf / "e.safetensors", 500), shelf / "f.safetensors")
    raw = first.read_bytes()
    (group,) = groups_of(catalog, shelf)
    linked, freed = link(catalog, group)
    assert group.kept.path.name == "e.safetensors"  # as old as none, and none has more names
    assert {each.path.name[0]: each.kind for each in linked} == dict.fromkeys("abcd", "hard")
    models = [shelf / f"{name}.safetensors" for name in "abcdef"]
    assert len({path.stat().st_ino for path in models}) == 1
    assert all(path.read_bytes() == raw for path in models)
    assert freed == 2 * len(raw)  # what a was still has a name
    assert not list(shelf.glob(".bottega-*"))
    assert all(entry.is_current() for entry in catalog.entries())
    assert duplicates(catalog) == []


def test_a_store_keeps_its_own_file(catalog: Catalog, shelf: Path) -> None:
    plain = aged(write_model(shelf / "a.safetensors"), 1000)
    snapshot = shelf / "models--org--x" / "snapshots" / "r"
    snapshot.mkdir(parents=True)
    copied(plain, shelf / "models--org--x" / "blobs" / "abc")
    (snapshot / "x.safetensors").symlink_to("../../blobs/abc")
    (group,) = groups_of(catalog, shelf)
    assert group.kept.path == snapshot / "x.safetensors"
    link(catalog, group)
    assert plain.stat().st_ino == (shelf / "models--org--x" / "blobs" / "abc").stat().st_ino
    assert (snapshot / "x.safetensors").is_symlink()


def test_a_symbolic_link_where_no_hard_one_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, path = tmp_path / "kept.bin", tmp_path / "copy.bin"
    for each in (kept, path):
        each.write_bytes(b"the same")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    assert replace_by_link(path, kept) == "symbolic"
    assert path.is_symlink() and path.read_bytes() == b"the same"


def test_bytes_are_compared_once_more(tmp_path: Path) -> None:
    kept, path = tmp_path / "kept.bin", tmp_path / "copy.bin"
    kept.write_bytes(b"a" * 100)
    path.write_bytes(b"a" * 99 + b"b")
    with pytest.raises(FileError, match="not the same"):
        replace_by_link(path, kept)
    assert path.read_bytes().endswith(b"b") and len(list(tmp_path.iterdir())) == 2


def test_a_copy_that_changes_at_the_last_moment_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, path = tmp_path / "kept.bin", tmp_path / "copy.bin"
    for each in (kept, path):
        each.write_bytes(b"the same")
    real = os.link

    def meanwhile(*paths: Path) -> None:
        path.write_bytes(b"something else")
        real(*paths)

    monkeypatch.setattr(os, "link", meanwhile)
    with pytest.raises(FileError, match="changed"):
        replace_by_link(path, kept)
    assert path.read_bytes() == b"something else" and len(list(tmp_path.iterdir())) == 2


# --- the command -----------------------------------------------------------------------------------------------------


def test_it_stops_when_it_is_told_to(catalog: Catalog, shelf: Path) -> None:
    copied(write_model(shelf / "a.safetensors", width=30), shelf / "b.safetensors")
    scan(catalog, [shelf], FAMILIES)

    def stop(done: int, total: int) -> None:
        raise Interrupted("stopped")

    failed: list[BottegaError | OSError] = []
    with pytest.raises(Interrupted):
        duplicates(catalog, stop, failed.append)
    assert failed == []


def test_models_duplicates(bottega: Command, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    first = aged(write_model(shelf / "a.safetensors"), 1000)
    copied(first, shelf / "b.safetensors")
    safetensors.write(shelf / "c.safetensors", [("x", "F16", (2,), b"abcd")])
    bottega("models", "scan", shelf)
    size = first.stat().st_size

    ran = bottega("models", "duplicates")
    assert ran.code == 0 and "2 times the same bytes" in ran.out and str(first) in ran.out
    assert (shelf / "b.safetensors").stat().st_ino != first.stat().st_ino

    ran = bottega("models", "duplicates", "--json")
    assert ran.json["could_be_saved"] == size and ran.json["linked"] == [] and ran.json["freed"] == 0
    assert ran.json["groups"][0]["copies"] == [[str(first)], [str(shelf / "b.safetensors")]]

    ran = bottega("models", "duplicates", "--link", "--json")
    assert ran.code == 0 and ran.json["freed"] == size
    assert ran.json["linked"] == [{"path": str(shelf / "b.safetensors"), "to": str(first), "kind": "hard"}]
    assert (shelf / "b.safetensors").stat().st_ino == first.stat().st_ino
    assert "No model is there twice" in bottega("models", "duplicates").out
