"""Shelves of other programs are read in place: told by what lies there, each model once, nothing written."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from small_models import FAMILIES, write_model

from bottega.errors import UnknownModel
from bottega.library import Catalog, companions, open_catalog
from bottega.library.disk import is_model_folder
from bottega.library.find import find
from bottega.library.hashes import sha256_of
from bottega.library.layouts import known_places, parse_yaml
from bottega.library.scan import scan
from bottega.library.shelves import Found, Walk, shelf_places


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    folder = tmp_path / "shelf"
    folder.mkdir()
    return folder


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with open_catalog(tmp_path / "home" / "catalog.sqlite") as opened:
        yield opened


def walked(*shelves: Path) -> list[Found]:
    walk = Walk(shelves)
    return [found for shelf in shelves for found in walk.models(shelf)]


def paths(shelf: Path) -> set[str]:
    """The models of a shelf, relative to it where they lie on it; each is found once."""
    found = walked(shelf)
    assert len({each.path for each in found}) == len(found)
    return {os.path.relpath(each.path, shelf) for each in found}


def names(shelf: Path) -> dict[str, str]:
    return {os.path.relpath(each.path, shelf): each.name for each in walked(shelf)}


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"model")


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything in a folder, with sizes and times."""
    return {
        os.path.relpath(path, folder): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
    }


# --- A1111, ComfyUI, Fooocus, Stability Matrix -----------------------------------------------------------------------


def test_a_folder_called_models_beside_embeddings_is_plain_without_a_sign_of_a1111(shelf: Path) -> None:
    touch(shelf / "models" / "a.safetensors", shelf / "embeddings" / "b.pt", shelf / "loras" / "c.safetensors")
    assert paths(shelf) == {"models/a.safetensors", "embeddings/b.pt", "loras/c.safetensors"}


def test_a1111_data_folder(shelf: Path) -> None:
    touch(shelf / "models" / "Stable-diffusion" / "a.vae.safetensors", shelf / "embeddings" / "b.pt")
    touch(shelf / "outputs" / "c.pt")
    assert paths(shelf) == {"models/Stable-diffusion/a.vae.safetensors", "embeddings/b.pt"}


def test_programs_are_told_in_any_folder_of_a_shelf(shelf: Path) -> None:
    touch(shelf / "one" / "webui.py", shelf / "one" / "models" / "Lora" / "a.safetensors", shelf / "one" / "x.pt")
    touch(shelf / "two" / "models" / "loras" / "b.safetensors", shelf / "two" / "custom_nodes" / "y.pt")
    touch(shelf / "python_embeded" / "z.pt")
    assert paths(shelf) == {"one/models/Lora/a.safetensors", "two/models/loras/b.safetensors"}


def comfyui(folder: Path, yaml: str) -> Path:
    (folder / "comfy").mkdir(parents=True)
    touch(folder / "models" / "checkpoints" / "own.safetensors")
    (folder / "extra_model_paths.yaml").write_text(yaml, encoding="utf-8")
    return folder


def test_comfyui_with_extra_paths(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("OTHERS", str(tmp_path / "others"))
    yaml = f"""
        # two programs, and one section that is commented out
        a111:
            base_path: {tmp_path}/a1111/
            is_default: true
            checkpoints: models/Stable-diffusion
            loras: |
                models/Lora
                models/LyCORIS
            custom_nodes: nodes
        mine:
            base_path: ~/ai
            vae: vae
        variable:
            base_path: $OTHERS
            unet: unet
        relative:
            embeddings: ../near
        empty:
    """
    comfyui(shelf, yaml)
    wanted = {
        shelf / "models" / "checkpoints" / "own.safetensors",
        tmp_path / "a1111" / "models" / "Stable-diffusion" / "a.ckpt",
        tmp_path / "a1111" / "models" / "Lora" / "b.safetensors",
        tmp_path / "a1111" / "models" / "LyCORIS" / "c.safetensors",
        tmp_path / "me" / "ai" / "vae" / "d.safetensors",
        tmp_path / "others" / "unet" / "e.gguf",
        tmp_path / "near" / "f.pt",
    }
    touch(*wanted, tmp_path / "a1111" / "nodes" / "x.pt", tmp_path / "a1111" / "y.pt")
    assert {found.path for found in walked(shelf)} == wanted
    assert set(shelf_places(shelf)) == {shelf / "models", *(path.parent for path in wanted if "own" not in path.name)}


def test_what_an_extra_path_led_to_is_missed_when_it_is_gone(catalog: Catalog, shelf: Path, tmp_path: Path) -> None:
    comfyui(shelf, f"x:\n  base_path: {tmp_path}/far\n  loras: loras\n")
    (shelf / "models" / "checkpoints" / "own.safetensors").unlink()
    path = write_model(tmp_path / "far" / "loras" / "a.safetensors")
    assert [entry.path for entry in scan(catalog, [shelf], FAMILIES).entries] == [path]
    path.unlink()
    assert scan(catalog, [shelf], FAMILIES).gone == (path,)


def test_an_extra_path_that_is_a_shelf_is_left_to_it(shelf: Path, tmp_path: Path) -> None:
    comfyui(shelf, f"x:\n  base_path: {tmp_path}\n  loras: loras\n")
    touch(tmp_path / "loras" / "a.safetensors")
    found = list(Walk([shelf, tmp_path / "loras"]).models(shelf))
    assert [each.path.name for each in found] == ["own.safetensors"]


@pytest.mark.parametrize(
    ("yaml", "told"),
    [
        ("a:\n  base_path: [", "no valid YAML"),
        ("a: &a [x]\nb: *a", "aliases"),
        ("a: !!python/object/apply:os.system [exit]", "no valid YAML"),
        ("[" * 5000, "brackets"),
        ("[" * 900, "no valid YAML"),
        ("# " + "x" * (70 << 10), "longer"),
        ("a:\n  base_path: /\n  loras: .", "whole disk"),
        ("a: models", "no list of folders"),
        *(
            (f"a:\n  base_path: /x\n  loras: {value}", "no valid YAML")
            for value in ("!!bool maybe", "!!int ''", "!!timestamp soon", "59:" * 300 + "59.5")
        ),
    ],
)
def test_extra_paths_that_are_broken_are_reported(shelf: Path, yaml: str, told: str) -> None:
    comfyui(shelf, yaml)
    walk = Walk([shelf])
    assert [found.path.name for found in walk.models(shelf)] == ["own.safetensors"]
    ((path, reason),) = walk.unreadable.items()
    assert path == shelf / "extra_model_paths.yaml" and told in reason


@pytest.mark.parametrize("yaml", ["", "- a\n- b", "text", "a:\n  loras: [1, 2]", "a:\n  base_path: 5\n  loras: 7"])
def test_extra_paths_without_sense_are_none(shelf: Path, yaml: str) -> None:
    comfyui(shelf, yaml)
    walk = Walk([shelf])
    assert len(list(walk.models(shelf))) == 1 and walk.unreadable == {}


@pytest.mark.slow
def test_yaml_takes_no_long_time() -> None:
    began = time.process_time()
    for text in ("a: " + "1" * 60_000, "- " * 30_000, "{a: " * 9_000, "x:\n" + "  y: 1\n" * 8_000, "1:" * 30_000):
        try:
            parse_yaml(text)
        except ValueError:
            continue
    assert time.process_time() - began < 20


def test_fooocus_with_its_own_paths(shelf: Path, tmp_path: Path) -> None:
    touch(shelf / "launch.py", shelf / "models" / "checkpoints" / "a.safetensors", tmp_path / "far" / "b.safetensors")
    touch(shelf / "outputs" / "x.pt")
    config = {"path_checkpoints": ["models/checkpoints", str(tmp_path / "far")], "path_loras": "../far", "x": 1}
    (shelf / "config.txt").write_text(json.dumps({**config, "path_outputs": "outputs", "path_vae": [None, 7, "/"]}))
    assert paths(shelf) == {"models/checkpoints/a.safetensors", "../far/b.safetensors"}


def test_stability_matrix(shelf: Path) -> None:
    touch(shelf / "Data" / "Models" / "StableDiffusion" / "a.safetensors", shelf / "Data" / "settings.json")
    touch(shelf / "Data" / "Packages" / "ComfyUI" / "models" / "x.pt", shelf / "Data" / "Assets" / "y.pt")
    (shelf / "Data" / "Packages" / "ComfyUI" / "models" / "checkpoints").symlink_to(shelf / "Data" / "Models")
    for root in (shelf, shelf / "Data", shelf / "Data" / "Models"):
        assert [found.path for found in walked(root)] == [
            shelf / "Data" / "Models" / "StableDiffusion" / "a.safetensors"
        ]


# --- InvokeAI --------------------------------------------------------------------------------------------------------


def invokeai(root: Path, rows: list[tuple[object, object]], *, wal: bool = False) -> Path:
    """A database as InvokeAI keeps it: name and path are computed from a JSON text."""
    database = root / "databases" / "invokeai.db"
    database.parent.mkdir(parents=True)
    with closing(sqlite3.connect(database)) as connection:
        if wal:
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(
            "CREATE TABLE models (id TEXT PRIMARY KEY, config TEXT NOT NULL, "
            "name TEXT GENERATED ALWAYS AS (json_extract(config, '$.name')) VIRTUAL NOT NULL, "
            "path TEXT GENERATED ALWAYS AS (json_extract(config, '$.path')) VIRTUAL NOT NULL)"
        )
        for number, (name, path) in enumerate(rows):
            config = json.dumps({"name": name, "path": path})
            connection.execute("INSERT INTO models (id, config) VALUES (?, ?)", (str(number), config))
        connection.commit()
    return database


@pytest.mark.parametrize("wal", [False, True])
def test_invokeai(shelf: Path, tmp_path: Path, wal: bool) -> None:
    folder = shelf / "models" / "key2"
    touch(folder / "model_index.json", folder / "unet" / "diffusion_pytorch_model.safetensors")
    touch(shelf / "models" / "key1" / "file.safetensors", tmp_path / "far" / "in place.ckpt")
    touch(shelf / "models" / "not on record.safetensors", shelf / "outputs" / "x.pt")
    rows: list[tuple[object, object]] = [
        ("Deliberate", "key1/file.safetensors"),
        ("A pipeline", "key2"),
        ("Elsewhere", str(tmp_path / "far" / "in place.ckpt")),
        ("Gone", "key3/x.safetensors"),
        ("The disk", "/"),
        ("No model", "/etc/passwd"),
        (7, 8),
    ]
    invokeai(shelf, rows, wal=wal)
    before = snapshot(shelf)
    assert names(shelf) == {
        "models/key1/file.safetensors": "Deliberate",
        "models/key2": "A pipeline",
        "../far/in place.ckpt": "Elsewhere",
        "models/not on record.safetensors": "",
    }
    assert snapshot(shelf) == before


def test_invokeai_on_a_shelf_with_models_on_another(shelf: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    touch(shelf / "invoke" / "models" / "a.pt", other / "b.pt", tmp_path / "far" / "c.pt")
    invokeai(shelf / "invoke", [("A", "a.pt"), ("B", str(other / "b.pt")), ("C", str(tmp_path / "far" / "c.pt"))])
    walk = Walk([shelf, other])
    assert {found.name for found in walk.models(shelf)} == {"A", "C"}
    assert [found.path for found in walk.models(other)] == [other / "b.pt"]


def test_the_whole_disk_covers_everything() -> None:
    assert Walk([Path("/")]).covers(Path("/a/b.pt"), [Path("/")])


def test_invokeai_while_it_is_running(shelf: Path) -> None:
    touch(shelf / "models" / "a" / "x.safetensors")
    database = invokeai(shelf, [], wal=True)
    with closing(sqlite3.connect(database)) as running:
        config = json.dumps({"name": "New", "path": "a/x.safetensors"})
        running.execute("INSERT INTO models (id, config) VALUES ('1', ?)", (config,))
        running.commit()
        assert names(shelf) == {"models/a/x.safetensors": "New"}


@pytest.mark.parametrize(
    "yaml", ["schema_version: 4.0.2\nmodels_dir: ../big disk", "InvokeAI:\n  Paths:\n    models_dir: ../big disk\n"]
)
def test_invokeai_keeps_its_models_where_its_settings_say(shelf: Path, tmp_path: Path, yaml: str) -> None:
    (shelf / "invokeai.yaml").write_text(yaml)
    touch(tmp_path / "big disk" / "k" / "x.safetensors")
    invokeai(shelf, [("X", "k/x.safetensors")])
    assert names(shelf) == {"../big disk/k/x.safetensors": "X"}


def test_a_database_that_is_none_or_never_ends(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(shelf / "models" / "a.safetensors", shelf / "databases" / "invokeai.db")
    walk = Walk([shelf])
    assert len(list(walk.models(shelf))) == 1
    assert list(walk.unreadable) == [shelf / "databases" / "invokeai.db"]

    (shelf / "databases" / "invokeai.db").unlink()
    with closing(sqlite3.connect(shelf / "databases" / "invokeai.db")) as connection:
        connection.execute(
            "CREATE VIEW models AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
            "SELECT 'x' AS name, 'y' AS path FROM n WHERE i < 0"
        )
    monkeypatch.setattr("bottega.library.stores.PATIENCE", 0.2)
    walk = Walk([shelf])
    assert len(list(walk.models(shelf))) == 1  # it would never end if nobody lost patience
    assert list(walk.unreadable) == [shelf / "databases" / "invokeai.db"]


# --- Hugging Face's cache, LM Studio, ollama -------------------------------------------------------------------------


def hub_repository(hub: Path, name: str, revisions: dict[str, dict[str, bytes]], main: str) -> Path:
    """A repository as huggingface_hub keeps it: blobs by hash, snapshots full of links to them."""
    repository = hub / name
    for revision, files in revisions.items():
        for file, content in files.items():
            blob = repository / "blobs" / hashlib.sha256(content).hexdigest()
            blob.parent.mkdir(parents=True, exist_ok=True)
            blob.write_bytes(content)
            link = repository / "snapshots" / revision / file
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(main)
    return repository


def test_the_hub_cache(shelf: Path) -> None:
    one = {"config.json": b"{}", "model.safetensors": b"weights", "README.md": b"old"}
    hub_repository(
        shelf,
        "models--org--bert",
        {"aaa": one, "bbb": {**one, "README.md": b"new"}, "ccc": {**one, "model.safetensors": b"others"}},
        main="bbb",
    )
    files = {"q4.gguf": b"q4", "sub/q8.gguf": b"q8", "config.json": b"{}"}
    hub_repository(shelf, "models--TheBloke--x-GGUF", {"r1": files, "r2": {"q4.gguf": b"q4"}}, main="r2")
    hub_repository(shelf, "models--gpt2", {"r": {"pytorch_model.bin": b"x"}}, main="r")
    hub_repository(shelf, "datasets--org--pictures", {"r": {"data.bin": b"x"}}, main="r")
    touch(shelf / ".locks" / "x.bin")
    wanted = {
        "models--org--bert/snapshots/bbb": "org/bert",
        "models--org--bert/snapshots/ccc": "org/bert@ccc",
        "models--TheBloke--x-GGUF/snapshots/r2/q4.gguf": "TheBloke/x-GGUF/q4",
        "models--TheBloke--x-GGUF/snapshots/r1/sub/q8.gguf": "TheBloke/x-GGUF/sub/q8",
        "models--gpt2/snapshots/r/pytorch_model.bin": "gpt2/pytorch_model",
    }
    before = snapshot(shelf)
    assert names(shelf) == wanted
    assert snapshot(shelf) == before
    assert names(shelf / "models--gpt2") == {"snapshots/r/pytorch_model.bin": "gpt2/pytorch_model"}


def test_a_name_in_the_hub_cache_means_the_revision_that_main_is(catalog: Catalog, shelf: Path, tmp_path: Path) -> None:
    weights = [write_model(tmp_path / "w.safetensors", fill=fill).read_bytes() for fill in range(3)]
    revisions = {letter * 40: {"w.safetensors": content} for letter, content in zip("abc", weights, strict=True)}
    repository = hub_repository(shelf, "models--bob--two", revisions, main="b" * 40)
    scan(catalog, [shelf], FAMILIES)
    for name, letter in {"bob/two/w": "b", "bob/two/w@aaaaaaa": "a", "bob/two/w@ccccccc": "c"}.items():
        assert find(catalog, name, FAMILIES).path == repository / "snapshots" / (letter * 40) / "w.safetensors"
    (repository / "refs" / "main").write_text("c" * 40)
    scan(catalog, [shelf], FAMILIES)
    assert find(catalog, "bob/two/w", FAMILIES).path.parent.name == "c" * 40


def test_lm_studio(shelf: Path) -> None:
    models = shelf / "models"
    touch(models / "lmstudio-community" / "gemma-GGUF" / "gemma-Q4_K_M.gguf", models / "bartowski" / "x" / "y.gguf")
    for number in (1, 2, 3):
        touch(models / "bartowski" / "big" / f"big-0000{number}-of-00003.gguf")
    touch(shelf / ".internal" / "x.bin", shelf / "config-presets" / "a.json")
    wanted = {
        "lmstudio-community/gemma-GGUF/gemma-Q4_K_M.gguf": "lmstudio-community/gemma-GGUF/gemma-Q4_K_M",
        "bartowski/x/y.gguf": "bartowski/x/y",
        "bartowski/big/big-00001-of-00003.gguf": "bartowski/big/big",
    }
    assert names(models) == wanted
    assert names(shelf) == {f"models/{path}": name for path, name in wanted.items()}


def test_sorted_folders_are_no_lm_studio(shelf: Path) -> None:
    touch(shelf / "unet" / "flux" / "a.gguf")
    assert names(shelf) == {"unet/flux/a.gguf": ""}
    touch(shelf / "b.safetensors")
    (shelf / "unet").rename(shelf / "publisher")
    assert names(shelf) == {"publisher/flux/a.gguf": "", "b.safetensors": ""}


def ollama_model(store: Path, name: str, weights: bytes, layers: dict[str, bytes] | None = None) -> Path:
    """A model in ollama's store; the file with its weights."""
    blobs = {"model": weights, **(layers or {})}
    told = []
    for kind, content in blobs.items():
        digest = hashlib.sha256(content).hexdigest()
        touch(store / "blobs" / f"sha256-{digest}")
        (store / "blobs" / f"sha256-{digest}").write_bytes(content)
        told.append({"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{digest}", "size": 1})
    touch(store / "manifests" / name)
    (store / "manifests" / name).write_text(json.dumps({"schemaVersion": 2, "layers": told}))
    return store / "blobs" / f"sha256-{hashlib.sha256(weights).hexdigest()}"


def test_ollama(shelf: Path) -> None:
    store = shelf / ".ollama" / "models"
    wanted = {
        ollama_model(store, "registry.ollama.ai/library/llama3/8b", b"GGUF llama", {"license": b"MIT"}): "llama3:8b",
        ollama_model(store, "registry.ollama.ai/me/tuned/latest", b"GGUF tuned"): "me/tuned:latest",
        ollama_model(store, "hf.co/bartowski/x-GGUF/Q4_K_M", b"GGUF x"): "hf.co/bartowski/x-GGUF:Q4_K_M",
    }
    ollama_model(store, "registry.ollama.ai/library/llama3/latest", b"GGUF llama")
    ollama_model(store, "registry.ollama.ai/library/gone/latest", b"GGUF gone").unlink()
    for name, text in {
        "broken": "{",
        "list": "[]",
        "odd": '{"layers": [1, {"mediaType": 2}, {"digest": "../x"}]}',
    }.items():
        touch(store / "manifests" / "registry.ollama.ai" / "library" / name / "latest")
        (store / "manifests" / "registry.ollama.ai" / "library" / name / "latest").write_text(text)
    for root in (store, store.parent):
        found = walked(root)
        assert {each.path: each.name for each in found} == wanted
        assert all(each.beside for each in found)


def test_every_name_that_ollama_has_for_a_model_is_its_name(catalog: Catalog, shelf: Path, tmp_path: Path) -> None:
    weights = [write_model(tmp_path / "w.safetensors", fill=fill).read_bytes() for fill in range(2)]
    library = "registry.ollama.ai/library/llama3"
    model = ollama_model(shelf, f"{library}/8b", weights[0])
    ollama_model(shelf, "registry.ollama.ai/me/tuned/latest", weights[1])
    scan(catalog, [shelf], FAMILIES)
    ollama_model(shelf, f"{library}/latest", weights[0])  # as `ollama cp` does
    assert scan(catalog, [shelf], FAMILIES).changed == 1
    for name in ("llama3:8b", "llama3:latest", "llama3", "Llama3"):
        assert find(catalog, name, FAMILIES).path == model
    assert find(catalog, "me/tuned", FAMILIES).name == "me/tuned:latest"
    with pytest.raises(UnknownModel):
        find(catalog, "llama3:70b", FAMILIES)


def test_what_is_said_of_a_stored_name_outlives_its_bytes(catalog: Catalog, shelf: Path, tmp_path: Path) -> None:
    builds = [write_model(tmp_path / "builds" / f"{fill}.safetensors", fill=fill).read_bytes() for fill in range(3)]
    name = "registry.ollama.ai/library/llama3/8b"
    old = ollama_model(shelf, name, builds[0])
    other = ollama_model(shelf, "registry.ollama.ai/library/other/8b", builds[1])
    scan(catalog, [shelf], FAMILIES)
    for path in (old, other):
        entry = catalog.entry(path)
        assert entry
        catalog.say(sha256_of(catalog, entry), note=entry.name)
    old.unlink()
    new = ollama_model(shelf, name, builds[2])  # as a pull does
    report = scan(catalog, [shelf], FAMILIES)
    assert (report.changed, report.new, report.moved, report.gone, catalog.gone()) == (1, 0, (), (), [])
    assert {entry.path: entry.note for entry in catalog.entries()} == {new: "llama3:8b", other: "other:8b"}
    assert [entry.path for entry in catalog.search("llama3:8b")] == [new]
    assert catalog.with_sha256(old.name.removeprefix("sha256-")) == []


def test_pipes_on_a_shelf_are_not_waited_for(shelf: Path) -> None:
    one = {"config.json": b"{}", "model.safetensors": b"weights"}
    repository = hub_repository(shelf, "models--org--bert", {"aaa": one}, main="aaa")
    paths = comfyui(shelf / "program", "") / "extra_model_paths.yaml"
    for path in (
        repository / "refs" / "main",
        paths,
        shelf / ".ollama" / "models" / "manifests" / "registry.ollama.ai" / "library" / "tiny" / "latest",
        shelf / "embeddings" / "word.png",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    walk = Walk([shelf])
    assert {found.path.name for found in walk.models(shelf)} == {"aaa", "own.safetensors"}
    assert list(walk.unreadable) == [paths]


def test_known_places(tmp_path: Path) -> None:
    for name in ("ComfyUI", ".lmstudio/models", "hub", ".ollama/models"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / ".cache" / "lm-studio").mkdir(parents=True)
    (tmp_path / ".cache" / "lm-studio" / "models").symlink_to(tmp_path / ".lmstudio" / "models")
    environment = {"HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub"), "OLLAMA_MODELS": "/nowhere"}
    found = known_places(environment)
    assert {os.path.relpath(place, tmp_path) for place in found} == {"ComfyUI", ".lmstudio/models", "hub"}


# --- plain folders ---------------------------------------------------------------------------------------------------


def test_folders_that_are_one_model() -> None:
    assert is_model_folder({"model_index.json"})
    assert is_model_folder({"config.json", "model.safetensors"})
    assert is_model_folder({"config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors"})
    assert is_model_folder({"config.json", "diffusion_pytorch_model.fp16.safetensors"})
    assert is_model_folder({"adapter_config.json", "adapter_model.bin"})
    assert not is_model_folder({"config.json", "webui.py"})
    assert not is_model_folder({"config.json", "mine.gguf", "my lora.safetensors"})
    assert not is_model_folder({"model.safetensors"})


def test_shards_are_one_model(shelf: Path) -> None:
    for number in (1, 2, 3):
        touch(shelf / f"a-0000{number}-of-00003.gguf", shelf / f"b-0000{number}-of-00003.safetensors")
    touch(shelf / "b-00002-of-00004.safetensors", shelf / "c-1-of-2.gguf")
    assert names(shelf) == {
        "a-00001-of-00003.gguf": "a",
        "b-00001-of-00003.safetensors": "b",
        "b-00002-of-00004.safetensors": "b",  # the first is missing: which reading it tells
        "c-1-of-2.gguf": "",
    }


def test_half_downloads_and_rubbish_are_passed_over(shelf: Path) -> None:
    for ending in ("part", "crdownload", "aria2", "download", "incomplete", "tmp"):
        touch(shelf / f"a.safetensors.{ending}")
    touch(shelf / "b.safetensors", shelf / "b.safetensors.aria2", shelf / "c.safetensors", shelf / ".d.safetensors")
    touch(shelf / "$RECYCLE.BIN" / "e.safetensors", shelf / "node_modules" / "f.bin", shelf / "g.vae.pt")
    assert paths(shelf) == {"c.safetensors", "g.vae.pt"}


@pytest.mark.parametrize("ending", [*companions.CARDS, *companions.PREVIEWS])
def test_every_companion_that_is_read_is_noticed(shelf: Path, ending: str) -> None:
    touch(shelf / "a.b.safetensors")
    (before,) = walked(shelf)
    touch(shelf / f"a.b{ending}")
    (after,) = walked(shelf)
    assert before.beside == 0 != after.beside


def test_cards_and_previews_beside_a_model_make_a_number(shelf: Path) -> None:
    touch(shelf / "a.safetensors", shelf / "b.v1.ckpt", shelf / "c.safetensors")

    def beside() -> dict[str, int]:
        return {found.path.name: found.beside for found in walked(shelf)}

    assert beside() == {"a.safetensors": 0, "b.v1.ckpt": 0, "c.safetensors": 0}
    seen = [beside()]
    for name in ("a.json", "a.civitai.info", "a.preview.png", "a.cm-info.json", "a.metadata.json", "a.PNG", "a.txt"):
        touch(shelf / name)
        seen.append(beside())
    (shelf / "a.json").write_bytes(b"longer than before")
    seen.append(beside())
    os.utime(shelf / "a.txt", ns=(1, 1))
    seen.append(beside())
    (shelf / "a.PNG").unlink()
    seen.append(beside())
    assert len({each["a.safetensors"] for each in seen}) == len(seen)
    assert all((each["b.v1.ckpt"], each["c.safetensors"]) == (0, 0) for each in seen)
    touch(shelf / "b.v1.json", shelf / "b.png", shelf / "d.json")
    assert beside()["b.v1.ckpt"] and not beside()["c.safetensors"]
    assert beside() == beside()


@pytest.mark.parametrize("name", [companions.README, *companions.LICENCES])
def test_what_a_repository_says_of_its_models_is_noticed(name: str, catalog: Catalog, shelf: Path) -> None:
    for folder in ("checkout", "plain"):
        write_model(shelf / folder / "a.safetensors")
        (shelf / folder / name).write_text("MIT")
    (shelf / "checkout" / ".gitattributes").touch()
    scan(catalog, [shelf], FAMILIES)
    assert scan(catalog, [shelf], FAMILIES).headers_read == 0
    for folder in ("checkout", "plain"):
        (shelf / folder / name).write_text("another licence")
    assert scan(catalog, [shelf], FAMILIES).changed == 1
    (shelf / "checkout" / name).unlink()
    assert scan(catalog, [shelf], FAMILIES).changed == 1


def test_a_bottomless_folder(shelf: Path) -> None:
    folders = [shelf]
    for _ in range(1200):  # more than Python's own stack would bear
        folders.append(folders[-1] / "d")
        folders[-1].mkdir()
    path = folders[-1] / "a.safetensors"
    path.touch()
    try:
        assert [found.path for found in walked(shelf)] == [path]
    finally:
        path.unlink()
        for folder in reversed(folders):  # which pytest could not clear away
            folder.rmdir()


def test_a_folder_that_may_not_be_entered(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(shelf / "a" / "x.pt", shelf / "b.pt")
    scandir = os.scandir

    def refuse(folder: Path) -> Iterator[os.DirEntry[str]]:  # root may enter every folder
        if Path(folder) == shelf / "a":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    walk = Walk([shelf])
    assert [found.path.name for found in walk.models(shelf)] == ["b.pt"]
    assert walk.unreadable == {shelf / "a": "Permission denied"}


def test_ten_thousand_files(shelf: Path) -> None:
    for number in range(10_000):
        folder = shelf / f"folder {number % 50}"
        if number < 50:
            folder.mkdir()
        (folder / f"model {number}.safetensors").touch()
    spent = []
    for _ in range(3):
        began = time.process_time()
        assert sum(1 for _ in Walk([shelf]).models(shelf)) == 10_000
        spent.append(time.process_time() - began)
    assert min(spent) < 0.5  # 0.1 on the machine that this was written on
