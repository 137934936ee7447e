"""All hashes of a file from one reading, as they are defined, remembered, and told by `bottega models hash`."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from blake3 import blake3
from conftest import Command
from small_models import FAMILIES, write_model

from bottega.cli.models.hash import hash_all
from bottega.cli.progress import Progress
from bottega.errors import FileError, Interrupted
from bottega.formats import safetensors
from bottega.library import Catalog, Entry, hashes, open_catalog
from bottega.library.hashes import CHUNK, Hashes, hash_file, hash_file_all, hashes_of, sha256_of
from bottega.library.scan import scan


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with open_catalog(tmp_path / "home" / "catalog.sqlite") as opened:
        yield opened


def scanned(catalog: Catalog, shelf: Path) -> Entry:
    (entry,) = scan(catalog, [shelf], FAMILIES).entries
    return entry


def expected(raw: bytes, autov3: str | None) -> Hashes:
    """The hashes by their definitions."""
    return Hashes(
        sha256=hashlib.sha256(raw).hexdigest(),
        autov1=hashlib.sha256(raw[0x100000:0x110000]).hexdigest()[:8] if len(raw) > 0x100000 else "",
        autov3=autov3,
        crc32=f"{zlib.crc32(raw):08X}",
        blake3=blake3(raw).hexdigest(),
    )


@pytest.mark.parametrize(
    "size",
    [0, 1, 0xFFFFF, 0x100000, 0x100001, 0x10FFFF, 0x110000, 0x110001, CHUNK, CHUNK + 1, 5 * CHUNK, 9 * CHUNK - 7],
)
def test_hashes_of_any_file(tmp_path: Path, size: int) -> None:
    raw = b"\xff" + os.urandom(max(0, size - 1)) if size else b""
    path = tmp_path / "a.ckpt"
    path.write_bytes(raw)
    told: list[int] = []
    assert hash_file_all(path, told.append) == expected(raw, None)
    assert told == sorted(told) and (told[-1:] or [0]) == [size]


@pytest.mark.parametrize("tensor_bytes", [0, 2, CHUNK, 3 * CHUNK + 5])
def test_autov3_is_of_the_tensors(tmp_path: Path, tensor_bytes: int) -> None:
    tensors = os.urandom(tensor_bytes)
    digest = hashlib.sha256(tensors).hexdigest()
    seen = set()
    for metadata in ({"a": "b"}, {"a": "longer" * 1000}):
        path = tmp_path / "a.safetensors"
        safetensors.write(path, [("x", "U8", (tensor_bytes,), tensors)], metadata)
        hashes = hash_file_all(path)
        assert hashes == expected(path.read_bytes(), digest)
        seen.add(hashes.sha256)
    assert len(seen) == 2


def test_a_header_that_claims_more_than_there_is_has_no_autov3(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes((1 << 20).to_bytes(8, "little") + b'{"x":')
    assert hash_file_all(path).autov3 is None


def test_a_reader_can_be_stopped(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(8 * CHUNK))
    before = threading.active_count()

    def stop(done: int) -> None:
        if done > CHUNK:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hash_file_all(path, stop)
    assert threading.active_count() == before


def test_a_file_that_changes_meanwhile_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(3 * CHUNK))

    def change(done: int) -> None:
        if done == CHUNK:
            with path.open("ab") as file:
                file.write(b"more")

    with pytest.raises(FileError, match="changed while"):
        hash_file_all(path, change)


def test_hashes_are_remembered_until_the_file_changes(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_model(tmp_path / "shelf" / "a.safetensors")
    entry = scanned(catalog, path.parent)
    hashed = hashes_of(catalog, entry)
    wanted = hash_file_all(path)
    told = {"sha256", "autov1", "autov3", "crc32", "blake3"}
    assert {name: getattr(hashed, name) for name in told} == {name: getattr(wanted, name) for name in told}
    kept = catalog.entry(path)
    assert kept is not None and (kept.sha256, kept.blake3) == (wanted.sha256, wanted.blake3)
    with monkeypatch.context() as patched:
        patched.setattr("bottega.library.hashes.hash_file_all", lambda path, told: pytest.fail("read again"))
        assert hashes_of(catalog, kept) == kept
        assert sha256_of(catalog, kept) == kept
    write_model(path, fill=9)
    changed = scanned(catalog, path.parent)
    assert (changed.sha256, changed.blake3, changed.autov3) == (None, None, None)
    assert hashes_of(catalog, changed).blake3 == hash_file_all(path).blake3


@pytest.mark.parametrize("compute", [sha256_of, hashes_of])
def test_what_several_threads_ask_for_is_computed_once(
    compute: Callable[[Catalog, Entry], Entry], catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_model(tmp_path / "shelf" / "a.safetensors")
    entry, wanted = scanned(catalog, path.parent), hash_file(path)
    begun: list[Path] = []
    found: list[str | None] = []

    def slow(which: str) -> None:
        usual = getattr(hashes, which)

        def hash_it(path: Path, told: Callable[[int], None]) -> object:
            begun.append(path)
            deadline = time.monotonic() + 60
            while hashes._hashing[path][1] < 3:  # until the others wait for it
                assert time.monotonic() < deadline
                time.sleep(0.001)
            return usual(path, told)

        monkeypatch.setattr(hashes, which, hash_it)

    def ask() -> None:
        with open_catalog(tmp_path / "home" / "catalog.sqlite") as own:
            found.append(compute(own, entry).sha256)

    slow("hash_file")
    slow("hash_file_all")
    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (begun, found, hashes._hashing) == ([path], [wanted] * 3, {})


def test_the_sha256_alone_asks_for_no_other(catalog: Catalog, tmp_path: Path) -> None:
    path = write_model(tmp_path / "shelf" / "a.safetensors")
    entry = sha256_of(catalog, scanned(catalog, path.parent))
    assert entry.sha256 == hash_file(path) and not entry.blake3
    assert hashes_of(catalog, entry).blake3


def test_a_folder_has_a_sha256_only(catalog: Catalog, tmp_path: Path) -> None:
    folder = tmp_path / "shelf" / "model"
    write_model(folder / "unet" / "diffusion_pytorch_model.safetensors")
    (folder / "unet" / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    (folder / "model_index.json").write_text(
        '{"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}'
    )
    entry = scanned(catalog, tmp_path / "shelf")
    hashed = hashes_of(catalog, entry)
    assert hashed.sha256 == sha256_of(catalog, entry).sha256
    assert (hashed.autov1, hashed.autov3, hashed.crc32, hashed.blake3) == ("", None, "", "")


# --- the command -----------------------------------------------------------------------------------------------------


def test_models_hash(bottega: Command, tmp_path: Path) -> None:
    path = write_model(tmp_path / "shelf" / "some name.safetensors")
    bottega("models", "scan", path.parent)
    hashes = hash_file_all(path)
    ran = bottega("models", "hash", "some name", "--json")
    assert ran.code == 0
    assert (
        ran.json
        == [
            {
                "name": "some name",
                "path": str(path),
                "size": path.stat().st_size,
                "sha256": hashes.sha256,
                "autov1": None,  # it is too short for one
                "autov2": hashes.sha256[:10],
                "autov3": hashes.autov3,
                "crc32": hashes.crc32,
                "blake3": hashes.blake3,
            }
        ]
    )
    ran = bottega("models", "hash", path)
    assert ran.code == 0 and hashes.blake3 in ran.out and hashes.crc32 in ran.out


def test_models_hash_all_goes_on_after_a_file_that_it_can_not_read(bottega: Command, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    for name in "abc":
        write_model(shelf / f"{name}.safetensors", fill=ord(name))
    bottega("models", "scan", shelf)
    (shelf / "b.safetensors").unlink()
    ran = bottega("models", "hash", "--all", "--json")
    assert ran.code == 1 and "b.safetensors" in ran.err
    assert [each["name"] for each in ran.json if each["path"].startswith(str(shelf))] == ["a", "c"]
    assert bottega("models", "hash").code == 2
    assert bottega("models", "hash", "a", "--all").code == 2


def test_models_hash_stops_when_it_is_told_to(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "shelf" / "a.safetensors")
    entry = scanned(catalog, tmp_path / "shelf")

    def stop(*_: object) -> None:
        raise Interrupted("stopped")

    monkeypatch.setattr(Progress, "update", stop)
    with pytest.raises(Interrupted):
        hash_all(catalog, [entry])
