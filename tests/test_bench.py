"""`bottega bench` tells finite figures beside their limits, and leaves nothing behind but what it was asked for."""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import Command

from bottega.bench import adapters, full_size, machine, measure
from bottega.bench.figures import Figure, Peaks, Report
from bottega.bench.pictures import Work
from bottega.errors import SaveError
from bottega.families import sd1
from bottega.formats import read_header
from bottega.runtime.place import choose
from bottega.runtime.weights import MappedTensors

TINY = {
    "unet": replace(full_size.SHAPES["unet"], channels=(32, 32, 64, 64), context=32),
    "vae": replace(full_size.SHAPES["vae"], channels=(32, 32, 64, 64)),
    "text_encoder": replace(full_size.SHAPES["text_encoder"], width=32, layers=2, heads=1, mlp=64, vocabulary=49_408),
}


def test_ratios_are_one_at_best_whatever_is_better() -> None:
    slow = Figure("toy", "loading", "s", (3.0, 1.0, 2.0), limit=1.0, peer=6.0)
    assert (slow.value, slow.times_limit, slow.times_peer) == (2.0, 2.0, 3.0)
    fast = Figure("toy", "sampling", "steps/s", (5.0,), limit=10.0, peer=2.5)
    assert (fast.times_limit, fast.times_peer) == (2.0, 2.0)
    alone = Figure("toy", "likeness", "dB", (40.0,))
    assert (alone.times_limit, alone.times_peer) == (None, None)
    assert "limit" not in alone.to_json()


def test_the_page_has_a_row_for_every_figure() -> None:
    figures = [
        Figure("toy", "loading", "s", (2.0,), 1.0, "mapping the file", 6.0),
        Figure("toy", "its most memory", "bytes", (3e9,), 2e9, "the bytes of the weights"),
    ]
    report = Report(
        "bottega 0",
        "today",
        9.0,
        {"device": "cpu"},
        {},
        "float32",
        {"float32": Peaks(1e11, 2e11)},
        3e10,
        "diffusers",
        figures,
    )
    page = report.markdown()
    assert "| toy | loading | 2 s | 1 s | 2.00 | 6 s | 3.00 |" in page
    assert "| toy | its most memory | 3,000 MB | 2,000 MB | 1.50 | - | - |" in page
    assert "100 GFLOP/s matrix, 200 convolution" in page
    assert "- loading: mapping the file." in page
    assert "diffusers" not in replace(report, peer=None).markdown()


def test_the_least_time_is_that_of_arithmetic_or_of_reading() -> None:
    peaks = Peaks(matrix=10, convolution=20)
    assert Work(matrix=20, convolution=20, weights=1).least_seconds(peaks, bandwidth=1) == 3
    assert Work(matrix=20, convolution=20, weights=8).least_seconds(peaks, bandwidth=1) == 8


def test_the_full_size_model_has_the_layout_of_a_real_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full_size, "_NOISE", 1 << 21)
    path = full_size.full_size_model(tmp_path, TINY)
    header = read_header(path)
    match = sd1.family.recognise(header)
    assert match is not None and set(match.parts) == {"unet", "vae", "text_encoder"}
    assert {info.dtype for info in header.tensors.values()} == {"F16"}
    tensors = MappedTensors(header)
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    assert sd1.family.load(header, match, choose("cpu", "float32")).notes == ()
    written = path.stat().st_mtime_ns
    assert full_size.full_size_model(tmp_path, TINY).stat().st_mtime_ns == written


def test_the_full_size_model_is_as_large_as_a_real_one() -> None:
    from bottega.families._stable_diffusion import networks

    unet, vae, text = (full_size.SHAPES[part] for part in ("unet", "vae", "text_encoder"))
    modules = (networks.unet(unet), networks.vae(vae, 1.0), networks.text_encoder(text))
    counts = [sum(weights.numel() for weights in module.parameters()) for module in modules]
    assert counts == [859_520_964, 83_653_863, 123_060_480]
    assert 2 * sum(counts) < full_size.BYTES < 2.002 * sum(counts)


def test_a_full_disk_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = full_size.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(full_size.shutil, "disk_usage", lambda _: usage._replace(free=10**9))
    with pytest.raises(SaveError, match=r"1\.0 GB are free"):
        full_size.full_size_model(tmp_path / "bench")
    assert not list((tmp_path / "bench").iterdir())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's own, of its operation counter
def test_a_quick_bench_against_diffusers(bottega: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf, scratch = tmp_path / "shelf", tmp_path / "scratch"
    shelf.mkdir()
    scratch.mkdir()
    sd1.family.toy(shelf / "starter-image.safetensors")
    monkeypatch.setattr(measure, "STARTER_SHELF", shelf)
    monkeypatch.setattr(machine, "AT_LEAST", 0.01)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    ran = bottega("bench", "--quick", "--against", "diffusers", "--json", "--out", tmp_path / "results" / "toy.json")

    assert ran.code == 0, ran.err
    assert json.loads((tmp_path / "results" / "toy.json").read_text()) == ran.json
    figures = {figure["what"]: figure for figure in ran.json["figures"]}
    for what, figure in figures.items():
        numbers = [value for value in (*figure["runs"], *figure.values()) if isinstance(value, float)]
        assert numbers and all(math.isfinite(number) and number > 0 for number in numbers), what
        if "PSNR" not in what:
            assert {"times_limit", "times_peer"} <= set(figure), what
    assert {"load", "sampling", "VAE decoding", "its most memory", "first picture of a fresh process"} <= set(figures)
    assert figures["first picture of a fresh process"]["times_limit"] > 1
    assert "| sampling |" in (tmp_path / "results" / "toy.md").read_text()
    assert not list(scratch.iterdir())


@pytest.mark.slow
def test_a_quick_bench_of_adapters_against_diffusers(
    bottega: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, scratch = tmp_path / "shelf", tmp_path / "scratch"
    shelf.mkdir()
    scratch.mkdir()
    sd1.family.toy(shelf / "starter-image.safetensors")
    monkeypatch.setattr(adapters, "STARTER_SHELF", shelf)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    ran = bottega("bench", "adapters", "--quick", "--against", "diffusers", "--json")

    assert ran.code == (0 if ran.json["is_within"] else 1), ran.err
    assert ran.json["equal"] and ran.json["loads"] == 1
    for name in ("copy", "first", "attach", "switch", "detach", "diffusers_attach", "diffusers_detach"):
        assert 0 < ran.json[name] < 60, name
    assert ran.json["weights"] > 10 and 0 < ran.json["changed_after"] < 1
    assert not list(scratch.iterdir())


def test_adapters_that_are_slow_not_exact_or_load_twice_are_no_success() -> None:
    good = adapters.Figures({}, "bfloat16", 1, 1, copy=0.1, first=2.0, attach=0.4, switch=0.4, detach=0.05,
                            equal=True, loads=1)  # fmt: skip
    assert good.is_within
    assert replace(good, attach=0.9, copy=0.5).is_within
    for wrong in ({"equal": False}, {"loads": 2}, {"attach": 0.6}, {"switch": 0.6}, {"detach": 0.3}):
        assert not replace(good, **wrong).is_within
