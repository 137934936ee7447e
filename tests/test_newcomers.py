"""What is put into the folder for it a moment ago is noticed, and looking costs nothing where nothing was."""

from __future__ import annotations

from pathlib import Path

import pytest

from bottega.formats import safetensors
from bottega.library import open_catalog
from bottega.library.newcomers import Looked, notice
from bottega.recognisers import all_recognisers


def embedding(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.write(path, [("emb_params", "F32", (2, 768), bytes(8 * 768))], {})
    return path


def test_only_a_folder_that_changed_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf, looked = tmp_path / "shelf", Looked()
    first = embedding(shelf / "embeddings" / "one.safetensors")
    with open_catalog(tmp_path / "catalog.sqlite") as catalog:

        def names() -> list[str]:
            notice(catalog, [shelf], all_recognisers(), ("embedding", "vae"), looked)
            return sorted(path.name for path in catalog.paths())

        assert names() == ["one.safetensors"]
        with monkeypatch.context() as patched:
            patched.setattr("bottega.library.newcomers._files", lambda *given: pytest.fail("nothing has changed"))
            assert names() == ["one.safetensors"]
        half = first.with_name("two.safetensors")
        half.write_bytes(first.read_bytes()[:100])
        assert names() == ["one.safetensors"], "it is not complete yet"
        half.write_bytes(first.read_bytes())
        assert names() == ["one.safetensors", "two.safetensors"], "though the folder has not changed since"
        embedding(shelf / "embeddings" / "deep" / "three.safetensors")
        assert names() == ["one.safetensors", "three.safetensors", "two.safetensors"]
        embedding(tmp_path / "other" / "embeddings" / "four.safetensors")
        notice(catalog, [shelf, tmp_path / "other"], all_recognisers(), ("embedding", "vae"), looked)
        assert len(catalog.paths()) == 4
