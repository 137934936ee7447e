"""The catalog keeps what is known, through crashes, other processes and read-only disks; and models are found in it."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sqlite3
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from small_models import FAMILIES, write_model

from bottega.errors import FileError, FormatError, UnknownModel
from bottega.formats.database import prepare
from bottega.library import Catalog, Entry, open_catalog
from bottega.library.about import About
from bottega.library.catalog import CatalogError
from bottega.library.disk import Stamp
from bottega.library.find import AmbiguousModel, find, on_record
from bottega.library.fits import fits
from bottega.library.hashes import hashes_of, sha256_of
from bottega.library.scan import scan
from bottega.library.schema import SCHEMA
from bottega.settings import STARTER_SHELF

ENTRY = Entry(
    path=Path("/shelf/a.safetensors"),
    shelf=Path("/shelf"),
    stamp=Stamp(10, 20, 30),
    kind="checkpoint",
    family="red",
    dimensions={"unet": {"width": 2}},
    parts={"unet": "unet."},
    because=("it is red",),
    metadata={"title": "A \ud800 model"},
    read_by="1 red",
)
SHA = "ab" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "catalog.sqlite"


@pytest.fixture
def catalog(path: Path) -> Iterator[Catalog]:
    with open_catalog(path) as opened:
        yield opened


# --- keeping ---------------------------------------------------------------------------------------------------------


def test_what_is_put_is_there_when_it_is_opened_again(path: Path) -> None:
    not_unicode = replace(ENTRY, path=Path(os.fsdecode(b"/shelf/\xff.safetensors")))
    with open_catalog(path) as catalog:
        catalog.put([ENTRY, not_unicode])
        catalog.add_shelf(Path("/shelf"))
        catalog.add_shelf(Path("/shelf"))
    with open_catalog(path) as catalog:
        assert catalog.entries() == [ENTRY, not_unicode] == catalog.entries(Path("/shelf"))
        assert catalog.entry(not_unicode.path) == not_unicode
        assert catalog.entries(Path("/other")) == []
        assert catalog.shelves() == (Path("/shelf"),)
        assert catalog.note == ""


def test_a_hash_is_kept_until_the_bytes_change(catalog: Catalog) -> None:
    catalog.put([ENTRY])
    catalog.keep(ENTRY, {"sha256": SHA})
    catalog.put([replace(ENTRY, family="blue")])  # another process that read the header knows of no hash
    assert [entry.family for entry in catalog.with_sha256("ABAB")] == ["blue"]
    catalog.put([replace(ENTRY, stamp=Stamp(10, 21, 30))])
    assert catalog.with_sha256("abab") == []
    catalog.keep(ENTRY, {"sha256": SHA})  # of the bytes that were there before
    assert catalog.with_sha256("abab") == []


def test_missing_and_forgotten(catalog: Catalog) -> None:
    catalog.put([ENTRY])
    catalog.mark_missing([ENTRY.path])
    assert (catalog.entries(), len(catalog.entries(missing=True))) == ([], 1)
    catalog.forget([ENTRY.path])
    assert catalog.entries(missing=True) == []


def test_all_that_moved_is_handed_over_at_once(catalog: Catalog) -> None:
    old = [replace(ENTRY, path=Path(f"/shelf/{n}.safetensors"), stamp=Stamp(10, n, n + 1)) for n in range(300)]
    new = [replace(entry, path=Path(f"/shelf/sub/{entry.path.name}")) for entry in old]
    catalog.put([*old, *new])
    catalog.mark_missing(entry.path for entry in old)
    done: list[str] = []
    catalog._connection.set_trace_callback(done.append)
    moved = catalog.reunite({entry.path for entry in new})
    catalog._connection.set_trace_callback(None)
    assert sorted(moved) == sorted((one.path, other.path) for one, other in zip(old, new, strict=True))
    assert sum(statement.startswith("COMMIT") for statement in done) == 1


def test_what_takes_so_many_bytes_and_what_is_of_a_family(catalog: Catalog) -> None:
    other = replace(ENTRY, path=Path("/shelf/sha256-abc"), called="llama3:8b", stamp=Stamp(11, 1, 1), kind="lora")
    catalog.put([ENTRY, other, replace(other, path=Path("/shelf/c"), family="blue", called="")])
    assert catalog.of_size(10) == [ENTRY] and len(catalog.of_size(11)) == 2 and catalog.of_size(12) == []
    assert catalog.of_family("red") == [("a", "checkpoint", None), ("llama3:8b", "lora", None)]
    assert fits(catalog, ENTRY).to_json() == {"lora": ["llama3:8b"]}


def test_what_hears_text_of_another_width_does_not_fit(catalog: Catalog) -> None:
    lora = replace(ENTRY, path=Path("/shelf/lora"), kind="lora", stamp=Stamp(11, 1, 1), dimensions={"context": 768})
    word = replace(lora, path=Path("/shelf/word"), kind="embedding", dimensions={"width": 128})
    catalog.put([lora, word])
    assert fits(catalog, replace(ENTRY, dimensions={"unet": {"context": 768}})).to_json() == {"lora": ["lora"]}
    assert fits(catalog, replace(ENTRY, dimensions={"unet": {"context": 128}})).to_json() == {"embedding": ["word"]}


def test_what_a_site_says_is_of_the_bytes_and_stays_with_them(catalog: Catalog) -> None:
    other = replace(ENTRY, path=Path("/shelf/b.safetensors"), about=About(title="Mine"))
    catalog.put([ENTRY, other])
    catalog.keep(ENTRY, {"sha256": SHA})
    told = About(title="Theirs", author="somebody", description="it paints vermilion", triggers=("ochre",))
    catalog.learn(SHA, told)
    assert [entry.about for entry in catalog.entries()] == [told, other.about]
    assert [entry.path for entry in catalog.search("vermilion")] == [ENTRY.path]
    catalog.put([ENTRY])  # its header was read again
    assert [entry.about for entry in catalog.search("ochre")] == [told]
    catalog.keep(other, {"sha256": SHA})
    assert {entry.about.title for entry in catalog.search("ochre somebody")} == {"Theirs", "Mine"}
    moved = replace(ENTRY, path=Path("/shelf/sub/a.safetensors"))
    catalog.mark_missing([ENTRY.path])
    catalog.put([moved])
    assert catalog.reunite({moved.path}) == [(ENTRY.path, moved.path)]
    assert moved.path in [entry.path for entry in catalog.search("vermilion")]
    catalog.learn(SHA, About(author="nobody"))
    assert catalog.search("vermilion") == []
    assert {entry.about.author for entry in catalog.search("nobody")} == {"nobody"}


def test_all_of_a_batch_or_nothing(catalog: Catalog) -> None:
    broken = replace(ENTRY, path=Path("/b"), parameters=2**70)
    with pytest.raises(OverflowError):
        catalog.put([ENTRY, broken])
    assert catalog.entries() == []
    catalog.put([ENTRY])
    assert catalog.entries() == [ENTRY]


def test_a_catalog_of_an_older_version_is_brought_up_to_date(path: Path) -> None:
    path.parent.mkdir()
    sqlite3.connect(path).close()  # version 0: nothing in it
    with open_catalog(path) as catalog:
        assert catalog.entries() == []


def test_what_another_process_brings_up_to_date_meanwhile_is_no_strangers(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:

        def meanwhile(statement: str) -> None:
            if "sqlite_master" in statement and not path.stat().st_size:
                open_catalog(path).close()

        connection.set_trace_callback(meanwhile)
        prepare(connection, SCHEMA)
        assert connection.execute("SELECT count(*) FROM models").fetchone() == (0,)


def test_a_catalog_of_a_newer_version_is_left_alone(path: Path) -> None:
    open_catalog(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(CatalogError, match="newer Bottega"):
        open_catalog(path)


def test_a_file_that_is_no_catalog(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"something else entirely, long enough to be looked at" * 10)
    with pytest.raises(CatalogError, match=r"not a database.*move it away"):
        open_catalog(path)


def test_an_impossible_home_still_gives_a_catalog(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with open_catalog(tmp_path / "file" / "catalog.sqlite") as catalog:
        assert "not kept" in catalog.note
        catalog.put([ENTRY])
        assert catalog.entries() == [ENTRY]


def look_as_nobody(path: Path) -> None:
    os.setgid(65534)
    os.setuid(65534)
    with open_catalog(path) as catalog:
        assert catalog.note == f"the catalog is not kept: {path.parent} is read-only"
        assert catalog.entries() == [ENTRY]
        catalog.forget([ENTRY.path])
        assert catalog.entries() == []


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="needs root, to become someone else")
def test_a_read_only_home_is_read_into_memory(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    path = tmp_path / "catalog.sqlite"
    with open_catalog(path) as catalog:
        catalog.put([ENTRY])
    before = path.read_bytes()
    process = multiprocessing.get_context("fork").Process(target=look_as_nobody, args=(path,))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    assert path.read_bytes() == before


# --- hashes ----------------------------------------------------------------------------------------------------------


def test_the_hash_of_a_file(catalog: Catalog, tmp_path: Path) -> None:
    path = write_model(tmp_path / "shelf" / "a.safetensors")
    (entry,) = scan(catalog, [path.parent], FAMILIES).entries
    steps: list[tuple[int, int]] = []
    hashed = sha256_of(catalog, entry, lambda done, total: steps.append((done, total)))
    assert hashed.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert hashed.autov2 == hashed.sha256[:10]
    assert steps[-1] == (entry.size, entry.size)
    assert catalog.entry(path) == hashed

    steps.clear()
    assert sha256_of(catalog, hashed, lambda done, total: steps.append((done, total))) is hashed
    assert steps == []
    write_model(path, fill=9)
    with pytest.raises(FileError, match="changed"):
        sha256_of(catalog, hashed)


def test_the_hash_of_a_folder(catalog: Catalog, tmp_path: Path) -> None:
    folder = tmp_path / "shelf" / "model"
    write_model(folder / "unet" / "diffusion_pytorch_model.safetensors")
    (folder / "unet" / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    (folder / "model_index.json").write_text('{"unet": ["diffusers", "UNet2DConditionModel"]}')
    (folder / ".hidden").write_text("no part of it")
    (entry,) = scan(catalog, [tmp_path / "shelf"], FAMILIES).entries
    names = ["model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors"]
    lines = "".join(f"{name}\0{hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n" for name in names)
    steps: list[tuple[int, int]] = []
    hashed = sha256_of(catalog, entry, lambda done, total: steps.append((done, total)))
    assert hashed.sha256 == hashlib.sha256(lines.encode()).hexdigest()
    assert steps == sorted(steps) and steps[-1] == (entry.size, entry.size)


# --- finding ---------------------------------------------------------------------------------------------------------

Look = Callable[..., Entry]


@pytest.fixture
def shelf(tmp_path: Path, catalog: Catalog) -> Path:
    folder = tmp_path / "shelf"
    write_model(folder / "Stable-diffusion" / "Dream Shaper_v8.safetensors", fill=1)
    write_model(folder / "Stable-diffusion" / "sub" / "anime.safetensors", fill=2)
    write_model(folder / "Lora" / "twin.safetensors", "green", fill=3)
    write_model(folder / "Stable-diffusion" / "twin.safetensors", fill=4)
    write_model(folder / "Stable-diffusion" / "Größe.safetensors", fill=5)
    scan(catalog, [folder], FAMILIES)
    return folder


@pytest.fixture
def look(catalog: Catalog, shelf: Path) -> Look:
    return lambda reference, **more: find(catalog, reference, FAMILIES, **more)


@pytest.mark.parametrize(
    "reference",
    [
        "Dream Shaper_v8",
        "Dream Shaper_v8.safetensors",
        "dream shaper_V8",
        "Stable-diffusion/Dream Shaper_v8.safetensors",
        "Stable-diffusion/Dream Shaper_v8",
        "stable-diffusion/dream shaper_v8",
    ],
)
def test_names(look: Look, shelf: Path, reference: str) -> None:
    assert look(reference).path == shelf / "Stable-diffusion" / "Dream Shaper_v8.safetensors"


def test_the_end_of_a_path_will_do(look: Look, shelf: Path) -> None:
    assert look("sub/anime").path == look("sub/anime.safetensors").path == look(str(look("anime").path)).path


def test_letters_composed_or_not(look: Look) -> None:
    assert look(unicodedata.normalize("NFD", "größe")).name == unicodedata.normalize("NFC", "Größe")


def test_paths_from_here(look: Look, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shelf / "Stable-diffusion")
    assert look("./sub/anime.safetensors").path == shelf / "Stable-diffusion" / "sub" / "anime.safetensors"
    assert look("../Lora/twin.safetensors").path == shelf / "Lora" / "twin.safetensors"


def test_hashes_and_titles(look: Look, catalog: Catalog) -> None:
    sha256 = sha256_of(catalog, look("anime")).sha256
    assert sha256 is not None
    for reference in (sha256, sha256[:10], sha256[:8].upper(), f"anime [{sha256[:10]}]", f"sub/anime [{sha256[:10]}]"):
        assert look(reference).name == "anime"
    assert look(f"renamed since [{sha256[:10]}]").name == "anime"
    assert look(f"[{sha256[:10]}]").name == "anime"
    with pytest.raises(
        UnknownModel, match=rf"the hash of anime is {sha256[:10]}, not 0123456789; .* the model 'anime'"
    ):
        look("anime [0123456789]")
    with pytest.raises(UnknownModel, match=r"no model has the hash 0123456789, .* 'anime_2'; did you mean anime\?"):
        look("anime_2 [0123456789]")


def test_a_title_is_checked_although_the_hash_was_never_computed(look: Look, catalog: Catalog, shelf: Path) -> None:
    path = shelf / "Stable-diffusion" / "Dream Shaper_v8.safetensors"
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert look(f"Dream Shaper_v8.safetensors [{sha256[:10]}]").sha256 == sha256


def test_ambiguous_names_list_the_candidates(look: Look, shelf: Path) -> None:
    with pytest.raises(AmbiguousModel) as caught:
        look("twin")
    assert len(caught.value.candidates) == 2
    assert str(shelf / "Lora" / "twin.safetensors") in str(caught.value)
    assert look("twin", kind="checkpoint").path == shelf / "Stable-diffusion" / "twin.safetensors"


def test_the_users_own_goes_before_what_comes_along(look: Look, catalog: Catalog, shelf: Path) -> None:
    scan(catalog, [STARTER_SHELF], FAMILIES)
    assert look("neon").path == STARTER_SHELF / "neon.safetensors"
    write_model(shelf / "Lora" / "neon.safetensors", "green", fill=6)
    scan(catalog, [STARTER_SHELF, shelf], FAMILIES)
    assert look("neon").path == shelf / "Lora" / "neon.safetensors"
    assert look("starter/neon").path == STARTER_SHELF / "neon.safetensors"


def test_a_hash_of_tensors_means_any_lora_that_has_them(catalog: Catalog, shelf: Path) -> None:
    for name in ("one", "other"):
        write_model(shelf / "Lora" / f"{name}.safetensors", fill=9, metadata={"ss_output_name": name})
    entries = [replace(entry, kind="lora") for entry in scan(catalog, [shelf / "Lora"], FAMILIES).entries]
    catalog.put(entries)
    one, other = (hashes_of(catalog, entry) for entry in entries if entry.name != "twin")
    assert one.autov3 == other.autov3 and one.sha256 != other.sha256
    for reference in (f"renamed [{str(one.autov3)[:12]}]", str(one.autov3)[:12].upper()):
        assert on_record(catalog, reference, kind="lora").path == one.path
    catalog.put([replace(one, kind="checkpoint"), replace(other, kind="checkpoint")])
    with pytest.raises(AmbiguousModel):
        on_record(catalog, f"renamed [{str(one.autov3)[:12]}]")


def test_a_hash_that_a_lora_tells_of_its_tensors_means_it(look: Look, catalog: Catalog, shelf: Path) -> None:
    told = "0123456789ABCDEF" * 4
    lora = shelf / "Lora" / "told.safetensors"
    write_model(lora, fill=9, metadata={"sshs_model_hash": told})
    write_model(shelf / "Stable-diffusion" / "told.safetensors", fill=8, metadata={"sshs_model_hash": told})
    catalog.put([replace(entry, kind="lora") for entry in scan(catalog, [shelf / "Lora"], FAMILIES).entries])
    scan(catalog, [shelf / "Stable-diffusion"], FAMILIES)
    for reference in (told, told[:12], f"renamed [{told[:12].lower()}]", f"told [{told[:12]}]"):
        assert on_record(catalog, reference, kind="lora").path == lora
    with pytest.raises(UnknownModel):
        on_record(catalog, told[:11])
    with pytest.raises(UnknownModel):
        on_record(catalog, f"renamed [{told[:11]}0]")


def test_two_copies_of_the_same_bytes_are_one_model(look: Look, catalog: Catalog, shelf: Path) -> None:
    (shelf / "copy").mkdir()
    (shelf / "copy" / "anime.safetensors").write_bytes((shelf / "Stable-diffusion/sub/anime.safetensors").read_bytes())
    for entry in scan(catalog, [shelf], FAMILIES).entries:
        sha256_of(catalog, entry)
    assert look("anime").name == "anime"


@pytest.mark.parametrize("reference", ["anmie", "Anime.safetensor", "Dreamshaper v8"])
def test_unknown_names_come_with_the_nearest(look: Look, reference: str) -> None:
    with pytest.raises(UnknownModel) as caught:
        look(reference)
    assert caught.value.nearest


@pytest.mark.parametrize(
    "reference", ["", " ", "/", "~nobody", "a" * 5000, "a\0b", "a" * 5000 + ".pt", "[", "x [zz]", "../../nothing"]
)
def test_strange_references(look: Look, reference: str) -> None:
    with pytest.raises((UnknownModel, FormatError)):
        look(reference)


def test_a_path_that_was_never_scanned_is_identified_and_recorded(look: Look, catalog: Catalog, tmp_path: Path) -> None:
    path = write_model(tmp_path / "downloads" / "new.safetensors", "blue")
    entry = look(str(path))
    assert (entry.family, entry.shelf, catalog.entry(path)) == ("blue", None, entry)
    assert look("new") == entry


def test_the_weights_of_a_peft_folder_mean_the_folder(look: Look, tmp_path: Path) -> None:
    path = write_model(tmp_path / "style" / "adapter_model.safetensors", "blue")
    assert look(str(path)).path == path
    path.with_name("adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert look(str(path)).path == path.parent


def test_a_file_that_was_just_put_on_a_shelf_is_found(look: Look, shelf: Path) -> None:
    write_model(shelf / "fresh.safetensors")
    with pytest.raises(UnknownModel):
        look("fresh")
    assert look("fresh", shelves=[shelf]).name == "fresh"


def test_a_changed_file_is_identified_anew(look: Look, shelf: Path) -> None:
    assert look("anime").family == "red"
    write_model(shelf / "Stable-diffusion" / "sub" / "anime.safetensors", "blue")
    assert look("anime").family == "blue"


def test_a_removed_file_is_unknown_and_a_refused_one_says_why(look: Look, shelf: Path, catalog: Catalog) -> None:
    (shelf / "Stable-diffusion" / "sub" / "anime.safetensors").unlink()
    with pytest.raises(UnknownModel):
        look("anime")
    (shelf / "broken.safetensors").write_bytes(b"<html>")
    scan(catalog, [shelf], FAMILIES)
    with pytest.raises(FormatError, match="web page"):
        look("broken")
    with pytest.raises(FormatError, match="web page"):
        look(str(shelf / "broken.safetensors"))
