"""A scan finds every model once, reads each header once, and survives whatever lies in a folder."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from small_models import BLUE, FAMILIES, RED, small_family, write_model

import bottega
from bottega.formats import read_header
from bottega.library import Catalog, open_catalog
from bottega.library.disk import folder_stamp
from bottega.library.hashes import sha256_of
from bottega.library.identify import hash_code, identify, reader, shown_metadata
from bottega.library.scan import Report, scan


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with open_catalog(tmp_path / "home" / "catalog.sqlite") as opened:
        yield opened


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    folder = tmp_path / "shelf"
    folder.mkdir()
    return folder


def found(report: Report, shelf: Path) -> set[str]:
    return {entry.path.relative_to(shelf).as_posix() for entry in report.entries if not entry.error}


# --- incremental -----------------------------------------------------------------------------------------------------


def test_the_second_scan_reads_no_header(catalog: Catalog, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(20):
        write_model(shelf / f"{index}.safetensors", "red" if index % 2 else "blue")
    (shelf / "broken.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    first = scan(catalog, [shelf], FAMILIES)
    assert (first.headers_read, first.new, len(first.refused)) == (21, 21, 1)

    def read_again(path: Path) -> None:
        raise AssertionError(f"{path} was read again")

    monkeypatch.setattr("bottega.library.reading.read_header", read_again)
    second = scan(catalog, [shelf], FAMILIES)
    assert (second.headers_read, second.new, second.changed, second.gone) == (0, 0, 0, ())
    assert second.entries == first.entries


def test_what_a_scan_records(catalog: Catalog, shelf: Path) -> None:
    path = write_model(shelf / "a.safetensors", width=4, metadata={"modelspec.title": "A model", "secret": "x"})
    (entry,) = scan(catalog, [shelf], FAMILIES).entries
    assert entry == catalog.entry(path)
    assert (entry.name, entry.kind, entry.category, entry.family, entry.variant) == (
        "a", "checkpoint", "base", "red", "base",
    )  # fmt: skip
    assert (entry.format, entry.dtype, entry.parameters, entry.bytes) == ("safetensors", "F16", 20, 48)
    assert entry.dimensions == {"unet": {"width": 4}}
    assert entry.parts == {"unet": "red.unet.", "vae": "red.vae."}
    assert entry.because == ("its tensors are called red",)
    assert entry.metadata == {"title": "A model"}
    assert (entry.size, entry.shelf, entry.sha256) == (path.stat().st_size, shelf, None)


def test_a_changed_file_is_read_again_and_loses_its_hash(catalog: Catalog, shelf: Path) -> None:
    path = write_model(shelf / "a.safetensors", "red")
    (entry,) = scan(catalog, [shelf], FAMILIES).entries
    sha256_of(catalog, entry)
    write_model(path, "blue")
    report = scan(catalog, [shelf], FAMILIES)
    assert (report.headers_read, report.changed) == (1, 1)
    assert (report.entries[0].family, report.entries[0].sha256) == ("blue", None)
    assert catalog.entry(path) == report.entries[0]


def test_same_size_and_time_but_another_file_is_read_again(catalog: Catalog, shelf: Path) -> None:
    path = write_model(shelf / "a.safetensors", fill=1)
    scan(catalog, [shelf], FAMILIES)
    before = path.stat()
    other = write_model(shelf / "b.safetensors", fill=2)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)
    assert scan(catalog, [shelf], FAMILIES).changed == 1


def test_a_moved_file_keeps_its_hash(catalog: Catalog, shelf: Path) -> None:
    path = write_model(shelf / "old.safetensors")
    (entry,) = scan(catalog, [shelf], FAMILIES).entries
    hashed = sha256_of(catalog, entry)
    (shelf / "sub").mkdir()
    path.rename(shelf / "sub" / "new.safetensors")
    report = scan(catalog, [shelf], FAMILIES)
    assert found(report, shelf) == {"sub/new.safetensors"}
    assert report.entries[0].sha256 == hashed.sha256
    assert [each.sha256 for each in catalog.entries(missing=True)] == [hashed.sha256]


def test_a_removed_file_is_missing_and_may_come_back(catalog: Catalog, shelf: Path, tmp_path: Path) -> None:
    path = write_model(shelf / "a.safetensors")
    (entry,) = scan(catalog, [shelf], FAMILIES).entries
    hashed = sha256_of(catalog, entry)
    aside = tmp_path / "aside.safetensors"
    path.rename(aside)
    report = scan(catalog, [shelf], FAMILIES)
    assert (report.entries, report.gone) == ((), (path,))
    assert catalog.entries() == []
    aside.rename(path)
    report = scan(catalog, [shelf], FAMILIES)
    assert report.headers_read == 0
    assert [each.sha256 for each in catalog.entries()] == [hashed.sha256]


def test_a_shelf_that_is_not_there(catalog: Catalog, shelf: Path) -> None:
    write_model(shelf / "a.safetensors")
    scan(catalog, [shelf], FAMILIES)
    shelf.rename(shelf.with_name("elsewhere"))
    report = scan(catalog, [shelf], FAMILIES)
    assert (report.absent, report.entries, len(report.gone)) == ((shelf,), (), 1)


def test_more_families_look_again(catalog: Catalog, shelf: Path) -> None:
    write_model(shelf / "a.safetensors", "blue")
    assert scan(catalog, [shelf], [RED]).entries[0].kind == "unknown"
    report = scan(catalog, [shelf], [RED, BLUE])
    assert (report.headers_read, report.entries[0].family) == (1, "blue")


# --- what is found ---------------------------------------------------------------------------------------------------


def test_other_code_looks_again_and_keeps_the_hash(
    catalog: Catalog, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(shelf / "a.safetensors")
    (entry,) = scan(catalog, [shelf], FAMILIES).entries
    hashed = sha256_of(catalog, entry)
    assert hashed.is_current()

    monkeypatch.setattr("bottega.library.identify.hash_code", lambda package: "other")
    reader.cache_clear()
    try:
        assert not hashed.is_current()
        assert scan(catalog, [shelf], FAMILIES).headers_read == 1
        (again,) = catalog.entries()
        assert again.is_current()
        assert again.sha256 == hashed.sha256
        assert scan(catalog, [shelf], FAMILIES).headers_read == 0
    finally:
        reader.cache_clear()


@pytest.mark.parametrize("room", ["families", "formats", "library"])
def test_the_hash_of_the_code_follows_what_reads_and_recognises(room: str, tmp_path: Path) -> None:
    package = Path(bottega.__file__).parent
    shutil.copytree(package, tmp_path, ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)
    before = hash_code(tmp_path)
    assert hash_code(tmp_path) == before
    changed = next((tmp_path / room).rglob("*.py"))
    changed.write_text(changed.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    assert hash_code(tmp_path) != before


def test_plain_folders(catalog: Catalog, shelf: Path) -> None:
    wanted = {"a.safetensors", "deep/er/b.SAFETENSORS", "mit leer zeichen.safetensors", "模型/三.safetensors"}
    skipped = {
        ".hidden.safetensors", ".git/c.safetensors", "~d.safetensors", "__pycache__/e.safetensors",
        "venv/lib/f.safetensors",
    }  # fmt: skip
    for name in wanted | skipped:
        write_model(shelf / name)
    for name in ("g.safetensors.part", "h.safetensors.tmp", "i.safetensors.crdownload", "j.txt", "k.png"):
        (shelf / name).write_bytes(b"half a model")
    write_model(shelf / "l.safetensors")
    (shelf / "l.safetensors.aria2").write_bytes(b"")  # aria2 makes the file at its full size and fills it
    report = scan(catalog, [shelf], FAMILIES)
    assert found(report, shelf) == wanted
    assert report.refused == ()


def test_a1111_installation(catalog: Catalog, shelf: Path) -> None:
    wanted = {
        "models/Stable-diffusion/sub/a.safetensors", "models/Lora/b.safetensors", "models/VAE/c.safetensors",
        "embeddings/d.safetensors", "extensions/sd-webui-controlnet/models/e.safetensors",
    }  # fmt: skip
    for name in wanted | {"outputs/f.safetensors", "repositories/x/g.safetensors"}:
        write_model(shelf / name)
    (shelf / "webui.py").touch()
    assert found(scan(catalog, [shelf], FAMILIES), shelf) == wanted


def test_a1111_models_folder_has_its_embeddings_beside(catalog: Catalog, shelf: Path) -> None:
    write_model(shelf / "models" / "Stable-diffusion" / "a.safetensors")
    embedding = write_model(shelf / "embeddings" / "b.safetensors")
    report = scan(catalog, [shelf / "models"], FAMILIES)
    assert found(report, shelf) == {"models/Stable-diffusion/a.safetensors", "embeddings/b.safetensors"}
    embedding.unlink()
    assert scan(catalog, [shelf / "models"], FAMILIES).gone == (embedding,)


def test_comfyui_installation(catalog: Catalog, shelf: Path) -> None:
    wanted = {f"models/{name}/a.safetensors" for name in ("checkpoints", "unet", "diffusion_models", "loras", "vae")}
    for name in wanted | {"custom_nodes/x/y.safetensors", "output/z.safetensors"}:
        write_model(shelf / name)
    (shelf / "comfy").mkdir()
    assert found(scan(catalog, [shelf], FAMILIES), shelf) == wanted


def diffusers_folder(folder: Path) -> Path:
    (folder / "unet").mkdir(parents=True)
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "unet" / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    write_model(folder / "unet" / "diffusion_pytorch_model.safetensors")
    return folder


def test_a_diffusers_folder_is_one_model(catalog: Catalog, shelf: Path) -> None:
    folder = diffusers_folder(shelf / "some" / "model.v1.5")
    (entry,) = scan(catalog, [shelf], FAMILIES).entries
    assert (entry.path, entry.name, entry.format, entry.error) == (folder, "model.v1.5", "diffusers", "")
    hashed = sha256_of(catalog, entry)
    assert scan(catalog, [shelf], FAMILIES).headers_read == 0
    write_model(folder / "unet" / "diffusion_pytorch_model.safetensors", fill=3)
    report = scan(catalog, [shelf], FAMILIES)
    assert (report.headers_read, report.changed) == (1, 1)
    assert sha256_of(catalog, report.entries[0]).sha256 != hashed.sha256


def test_whatever_changes_in_a_folder_changes_its_stamp(tmp_path: Path) -> None:
    folder = diffusers_folder(tmp_path / "model")
    stamps = [folder_stamp(folder)]
    (folder / "scheduler.json").write_text("{}")
    stamps.append(folder_stamp(folder))
    (folder / "scheduler.json").rename(folder / "renamed.json")
    stamps.append(folder_stamp(folder))
    (folder / "renamed.json").unlink()
    assert len(set(stamps)) == 3
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x").write_text("no part of the model")
    assert folder_stamp(folder) == stamps[0]


def test_links_and_loops(catalog: Catalog, shelf: Path, tmp_path: Path) -> None:
    write_model(shelf / "real" / "a.safetensors")
    write_model(tmp_path / "elsewhere" / "b.safetensors")
    (shelf / "again").symlink_to(shelf / "real")  # another way to the same folder: not a second model
    (shelf / "real" / "up").symlink_to(shelf)  # a loop
    (shelf / "linked").symlink_to(tmp_path / "elsewhere")
    (shelf / "alias.safetensors").symlink_to(tmp_path / "elsewhere" / "b.safetensors")
    (shelf / "dangling.safetensors").symlink_to(tmp_path / "nowhere")
    (shelf / "self.safetensors").symlink_to("self.safetensors")
    report = scan(catalog, [shelf], FAMILIES)
    assert found(report, shelf) == {"real/a.safetensors", "linked/b.safetensors", "alias.safetensors"}
    assert scan(catalog, [shelf], FAMILIES).headers_read == 0


def test_a_shelf_on_a_shelf_is_left_to_itself(catalog: Catalog, shelf: Path) -> None:
    inner = write_model(shelf / "inner" / "a.safetensors").parent
    outer = write_model(shelf / "b.safetensors")
    catalog.add_shelf(inner)
    scan(catalog, [inner], FAMILIES)
    report = scan(catalog, [shelf], FAMILIES)
    assert (found(report, shelf), report.gone) == ({"b.safetensors"}, ())
    assert {entry.path: entry.shelf for entry in catalog.entries()} == {inner / "a.safetensors": inner, outer: shelf}
    assert found(scan(catalog, [shelf, inner], FAMILIES), shelf) == {"b.safetensors", "inner/a.safetensors"}


# --- what is refused -------------------------------------------------------------------------------------------------


def test_refused_files_are_recorded_with_the_reason(catalog: Catalog, shelf: Path) -> None:
    good = write_model(shelf / "good.safetensors")
    (shelf / "cut.safetensors").write_bytes(good.read_bytes()[:-5])
    (shelf / "page.safetensors").write_text("<html>please log in</html>")
    (shelf / "empty.ckpt").touch()
    report = scan(catalog, [shelf], FAMILIES)
    assert found(report, shelf) == {"good.safetensors"}
    reasons = {entry.path.name: entry.error for entry in report.refused}
    assert set(reasons) == {"cut.safetensors", "page.safetensors", "empty.ckpt"}
    assert all(reasons.values()) and not any(str(shelf) in reason for reason in reasons.values())
    shutil.copy(good, shelf / "cut.safetensors")
    assert found(scan(catalog, [shelf], FAMILIES), shelf) == {"good.safetensors", "cut.safetensors"}


def test_a_pipe_is_no_model(catalog: Catalog, shelf: Path) -> None:
    os.mkfifo(shelf / "a.safetensors")
    assert scan(catalog, [shelf], FAMILIES).entries == ()


def test_a_family_that_stumbles_stops_no_scan(catalog: Catalog, shelf: Path) -> None:
    def stumble(header: object) -> None:
        raise IndexError("tuple index out of range")

    write_model(shelf / "a.safetensors")
    family = small_family("green")
    object.__setattr__(family, "recognise", stumble)
    (entry,) = scan(catalog, [shelf], [family]).refused
    assert "stumbled" in entry.error and "IndexError" in entry.error


def test_an_unreadable_file_is_tried_again(catalog: Catalog, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_model(shelf / "a.safetensors")

    def deny(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr("bottega.library.reading.read_header", deny)
        (entry,) = scan(catalog, [shelf], FAMILIES).refused
    assert entry.error == "Permission denied"
    report = scan(catalog, [shelf], FAMILIES)
    assert [each.path for each in report.entries if not each.error] == [path]


def test_hostile_names(catalog: Catalog, shelf: Path) -> None:
    names = [
        b"\xff\xfe not unicode.safetensors", b"\x1b[31mred\x1b[0m.safetensors", b"new\nline.safetensors",
        b"'; DROP TABLE models; --.safetensors", "\u202eevil.safetensors".encode(), b"%s{}.safetensors",
    ]  # fmt: skip
    model = write_model(shelf / "plain.safetensors").read_bytes()
    for name in names:
        with open(os.path.join(os.fsencode(shelf), name), "wb") as file:
            file.write(model)
    report = scan(catalog, [shelf], FAMILIES)
    assert {os.fsencode(entry.path.name) for entry in report.entries} == {*names, b"plain.safetensors"}
    assert scan(catalog, [shelf], FAMILIES).headers_read == 0
    json.dumps([entry.to_json() for entry in catalog.entries()])
    for name in names:
        os.unlink(os.path.join(os.fsencode(shelf), name))
    assert len(scan(catalog, [shelf], FAMILIES).gone) == len(names)


# --- identity --------------------------------------------------------------------------------------------------------


def test_exactly_one_family_must_claim_a_model(tmp_path: Path) -> None:
    header = read_header(write_model(tmp_path / "a.safetensors", "red"))
    assert identify(header, FAMILIES).family == "red"
    nobody = identify(header, [BLUE])
    assert (nobody.family, nobody.match.kind) == ("", "unknown") and "red.unet.weight" in nobody.match.because[0]
    both = identify(header, [RED, small_family("red")])
    assert (both.family, both.match.kind) == ("", "unknown") and "claim" in both.match.because[0]


def test_only_useful_metadata_is_shown() -> None:
    told = shown_metadata({"ss_output_name": "n", "modelspec.title": " t ", "license": "x" * 9999, "ss_bucket": "{}"})
    assert told["title"] == "t" and len(told["licence"]) < 1000 and set(told) == {"title", "alias", "licence"}


# --- interrupted, and several at once --------------------------------------------------------------------------------


def test_an_interrupted_scan_keeps_what_it_read(catalog: Catalog, shelf: Path) -> None:
    for index in range(40):
        write_model(shelf / f"{index:02}.safetensors")

    def interrupt(done: int, total: int) -> None:
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(catalog, [shelf], FAMILIES, interrupt)
    kept = len(catalog.entries())
    assert 10 <= kept < 40
    report = scan(catalog, [shelf], FAMILIES)
    assert (report.headers_read, len(report.entries)) == (40 - kept, 40)


def scan_in_a_process(home: Path, shelf: Path, together: Barrier) -> None:
    together.wait()
    with open_catalog(home / "catalog.sqlite") as catalog:
        assert len(scan(catalog, [shelf], FAMILIES).entries) == 300


def test_several_processes_scan_at_once(tmp_path: Path, shelf: Path) -> None:
    for index in range(300):
        write_model(shelf / f"{index}.safetensors")
    spawn = multiprocessing.get_context("spawn")
    together = spawn.Barrier(3)
    processes = [spawn.Process(target=scan_in_a_process, args=(tmp_path / "home", shelf, together)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    with open_catalog(tmp_path / "home" / "catalog.sqlite") as catalog:
        assert len(catalog.entries()) == 300
        assert scan(catalog, [shelf], FAMILIES).headers_read == 0
