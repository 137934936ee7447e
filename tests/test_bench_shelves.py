"""The benchmark's model files are what it says, and it measures what it tells."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from bottega.bench import model_files
from bottega.bench.shelves import measure
from bottega.formats import read_header
from bottega.library.identify import identify
from bottega.recognisers import all_recognisers


def test_the_layouts_are_the_published_ones(tmp_path: Path) -> None:
    counts = {name: len(model_files.shapes(name)) for name in ("sd1", "sd2", "sdxl", "sd1-lora-8", "sdxl-lora-8")}
    assert counts == {"sd1": 1130, "sd2": 1227, "sdxl": 2513, "sd1-lora-8": 792, "sdxl-lora-8": 2958}
    for family in ("sd1", "sd2", "sdxl"):
        path = tmp_path / f"{family}.safetensors"
        model_files._write_safetensors(path, family, {"modelspec.title": "T"})
        identity = identify(read_header(path), all_recognisers())
        assert (identity.family, identity.match.kind) == (family, "checkpoint")
        assert path.stat().st_size > 1e9 and path.stat().st_blocks * 512 < 1e6
    names = model_files.shapes("sdxl-lora-8")
    assert "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_up.weight" in names
    assert "lora_te2_text_model_encoder_layers_31_mlp_fc1.alpha" in names


def test_the_pickles_are_archives_with_holes(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    model_files._save(path, "sd1")
    assert path.stat().st_size > 2e9 and path.stat().st_blocks * 512 < 5e6
    with zipfile.ZipFile(path) as archive:
        assert {"model/data.pkl", "model/data/0", "model/data/1129"} <= set(archive.namelist())


def test_the_pickles_are_read_as_what_they_are(tmp_path: Path) -> None:
    pytest.importorskip("bottega.formats.pickled")
    path = tmp_path / "model.pt"
    model_files._save(path, "sd1-lora-8")
    tensors = read_header(path).tensors
    assert {name: info.shape for name, info in tensors.items()} == model_files.shapes("sd1-lora-8")
    assert {info.dtype for info in tensors.values()} == {"F16"}


@pytest.mark.slow
def test_what_is_measured(tmp_path: Path) -> None:
    report = measure(200, tmp_path)
    assert (report.models, report.first.headers_read, report.second.headers_read) == (200, 200, 0)
    assert report.listed + report.refused == 200 and report.refused > 0
    for times in (report.search, report.page, report.counts):
        assert 0 < times.median <= times.percentile_99 <= times.slowest
    json.dumps(report.to_json())
    assert [name for name, _ in report.rows] == [
        "models",
        "first scan",
        "second scan",
        "catalog",
        "search",
        "page",
        "counts",
    ]
