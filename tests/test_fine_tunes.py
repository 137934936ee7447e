"""A model that was made from another one is told from a base where something says so, and only there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from small_models import FAMILIES, write_model

from bottega.library import Entry
from bottega.library.disk import stamp_of
from bottega.library.reading import read_entry


def read(path: Path) -> Entry:
    return read_entry(path, stamp_of(path), None, FAMILIES)


def merged(**recipe: str) -> dict[str, str]:
    return {"modelspec.merged_from": "a", "sd_merge_recipe": json.dumps(recipe)}


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"bottega.training": '{"kind": "full"}'}, "trained"),
        ({"ss_sd_model_name": "base.safetensors"}, "trained"),
        ({"modelspec.merged_from": "a, b"}, "merged"),
        (merged(interp_method="Weighted sum"), "merged"),
        ({**merged(interp_method="No interpolation"), "bottega.merge": '{"loras": [{"name": "x"}]}'}, "merged"),
        (merged(interp_method="No interpolation"), ""),
        ({"modelspec.title": "A base", "modelspec.merged_from": " "}, ""),
        ({"sd_merge_recipe": "[[[["}, "merged"),
        ({}, ""),
    ],
)
def test_its_metadata_tells(tmp_path: Path, metadata: dict[str, str], says: str) -> None:
    entry = read(write_model(tmp_path / "a.safetensors", metadata=metadata))
    assert entry.category == ("full fine-tune" if says else "base")
    assert says in entry.because[-1]


@pytest.mark.parametrize(
    ("card", "says"),
    [
        ({"checkpointType": "Merge"}, "merging"),
        ({"checkpointType": "TRAINED"}, "training"),
        ({"trainedWords": ["sks dog"]}, "training"),
        ({"trainedWords": []}, ""),
        ({"trainedWords": ["sks dog"], "baseModel": ""}, ""),
        ({"trainedWords": ["sks dog"], "model": {"type": "LORA"}}, ""),
    ],
)
def test_a_card_beside_it_tells(tmp_path: Path, card: dict[str, Any], says: str) -> None:
    path = write_model(tmp_path / "a.safetensors")
    told = {"modelId": 1, "id": 2, "baseModel": "SD 1.5", "model": {"type": "Checkpoint"}, **card}
    (tmp_path / "a.civitai.info").write_text(json.dumps(told))
    entry = read(path)
    assert entry.category == ("full fine-tune" if says else "base") and says in entry.because[-1]
    assert entry.about.extra.get("made by", "") == says


def test_what_changes_others_stays_what_it_is(bottega: Command) -> None:
    assert bottega("models", "show", "neon", "--json").json["category"] == "lightweight fine-tune"
