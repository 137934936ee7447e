"""Models in pickles are found, identified and run like those in safetensors, and make the same pictures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command, pixels
from hostile import benign
from hostile.containers import checkpoint
from hostile.opcodes import call, pickle, table, text
from small_models import write_model

from bottega.families._stable_diffusion import toy
from bottega.formats import read_header
from bottega.runtime.weights import MappedTensors

QUICK = ("--steps", 2, "--size", "64x64", "--seed", 1)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model in safetensors, with the running averages that training leaves in a checkpoint."""
    return toy.write_single_file(tmp_path_factory.mktemp("toy") / "toy.safetensors", "sd1", ema=True)


@pytest.fixture(scope="module")
def state(original: Path) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in MappedTensors(read_header(original)).items()}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["zip", "legacy", "deflated", "training"])
def test_a_pickle_makes_the_same_picture(
    bottega: Command, tmp_path: Path, original: Path, state: dict[str, torch.Tensor], form: str
) -> None:
    leftovers: dict[str, Any] = {}
    if form == "training":
        leftovers = {"optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}], "callbacks": {}, "epoch": 2}
    data = benign.saved(
        {"state_dict": state, "global_step": 7, **leftovers}, _use_new_zipfile_serialization=form != "legacy"
    )
    path = tmp_path / "x.ckpt"
    path.write_bytes(benign.repacked(data) if form == "deflated" else data)
    for model, out in ((original, "a.png"), (path, "b.png")):
        ran = bottega("make", "image", "a red house", "--model", model, *QUICK, "--out", tmp_path / out)
        assert ran.code == 0, ran.err
    assert pixels(tmp_path / "a.png").tobytes() == pixels(tmp_path / "b.png").tobytes()


def test_a_network_is_given_no_weights_at_crooked_addresses(tmp_path: Path) -> None:
    from torch import nn

    from bottega.runtime.weights import assign

    weights = {"weight": benign.noise(5, 3), "bias": benign.noise(5, seed=2)}
    for pad in range(4):
        data = benign.saved({**weights, "x" * (pad + 1): 1}, _use_new_zipfile_serialization=False)
        (tmp_path / f"{pad}.pt").write_bytes(data)
        mapped = MappedTensors(read_header(tmp_path / f"{pad}.pt"))
        with torch.device("meta"):
            network = nn.Linear(3, 5)
        assign(network, mapped, torch.float32, torch.device("cpu"))
        for name, tensor in network.state_dict().items():
            assert tensor.data_ptr() % 4 == 0
            assert torch.equal(tensor, weights[name])


# --- bottega models check --------------------------------------------------------------------------------------------


def test_check_tells_clean_unusual_and_refused(bottega: Command, tmp_path: Path, original: Path) -> None:
    clean, unusual, evil = tmp_path / "clean.ckpt", tmp_path / "unusual.pt", tmp_path / "evil.bin"
    clean.write_bytes(benign.saved(benign.state()))
    unusual.write_bytes(benign.script()[1])
    evil.write_bytes(pickle(call("os", "system", text(f"echo > '{tmp_path / 'canary'}'"))))
    for path, code, word in (
        (original, 0, "clean"),
        (clean, 0, "clean"),
        (unusual, 1, "unusual"),
        (evil, 2, "refused"),
    ):
        ran = bottega("models", "check", path)
        assert (ran.code, ran.out.split()[:2]) == (code, ["verdict", word]), ran
        told = bottega("models", "check", path, "--json").json
        assert (told["verdict"], told["path"], told["sha256"]) == (word, str(path), None)
    assert set(told) == {"path", "verdict", "format", "names", "reasons", "notes", "tensors", "sha256"}
    assert told["names"] == ["os.system"] and "run code" in told["reasons"][0]
    assert not (tmp_path / "canary").exists()


def test_check_of_a_folder_gives_the_worst_of_its_files(bottega: Command, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "good.ckpt").write_bytes(benign.saved(benign.state()))
    (tmp_path / "notes.txt").write_text("nothing")
    assert bottega("models", "check", tmp_path).code == 0
    (tmp_path / "deep" / "page.ckpt").write_text("<!doctype html>")
    ran = bottega("models", "check", tmp_path, "--json")
    assert ran.code == 2 and ran.json["reasons"][0].startswith("deep/page.ckpt: this is a web page")
    assert ran.json["tensors"] == 4
    (tmp_path / "empty").mkdir()
    assert "no model in this folder" in bottega("models", "check", tmp_path / "empty").out


def test_check_of_a_diffusers_folder(bottega: Command, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    toy.write_folder(folder, "sd1")
    ran = bottega("models", "check", folder, "--json")
    assert (ran.code, ran.json["format"]) == (0, "diffusers") and ran.json["tensors"] > 100
    (folder / "unet" / "extra.bin").write_bytes(pickle(call("os", "system", text("x"))))
    assert bottega("models", "check", folder).code == 2


def test_check_show_and_scan_agree_on_a_folder_whose_shards_have_names_of_their_own(
    bottega: Command, tmp_path: Path
) -> None:
    folder = write_model(tmp_path / "shelf" / "whole" / "a.safetensors").parent
    (folder / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    index = folder / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"red.unet.weight": "a.safetensors"}}')
    assert bottega("models", "check", folder).code == bottega("models", "show", folder).code == 0
    index.write_text('{"weight_map": {"red.unet.weight": "a.safetensors", "x": "b.safetensors"}}')
    for action in ("check", "show"):
        ran = bottega("models", action, folder)
        assert ran.code == 2 and "b.safetensors: this shard" in ran.out + ran.err
    assert [each["path"] for each in bottega("models", "scan", folder.parent, "--json").json["refused"]] == [
        str(folder)
    ]


def test_check_of_pipes_links_and_what_is_not_there(bottega: Command, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.ckpt")
    assert bottega("models", "check", tmp_path / "pipe.ckpt").code == 2
    (tmp_path / "real.ckpt").write_bytes(benign.saved(benign.state()))
    (tmp_path / "real.ckpt").chmod(0o444)
    (tmp_path / "link.ckpt").symlink_to(tmp_path / "real.ckpt")
    assert bottega("models", "check", tmp_path / "link.ckpt").code == 0
    assert bottega("models", "check", tmp_path).code == 0
    assert "no such file" in bottega("models", "check", tmp_path / "none.ckpt").err


def test_check_of_a_folder_follows_no_link_out_of_it(bottega: Command, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("root:x:0:0")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "weights.bin").symlink_to(tmp_path / "secret.txt")
    ran = bottega("models", "check", folder)
    assert ran.code == 2 and "root:x" not in ran.out
    assert "this link leads out of the model's folder" in " ".join(ran.out.split())


def test_names_reach_no_terminal_raw(bottega: Command, tmp_path: Path) -> None:
    state = table({"\x1b[31mred": call("my\x1bcorp", "F\x9bo")})
    (tmp_path / "x.ckpt").write_bytes(checkpoint(pickle(state)))
    ran = bottega("models", "check", tmp_path / "x.ckpt")
    assert ran.code == 2 and "\x1b" not in ran.out and "\x9b" not in ran.out


def test_check_imports_no_torch(tmp_path: Path) -> None:
    import subprocess
    import sys

    (tmp_path / "x.ckpt").write_bytes(benign.saved(benign.state()))
    program = (
        "import sys; from bottega.cli import main; code = main(['models', 'check', sys.argv[1]]); "
        "assert code == 0 and not {'torch', 'numpy', 'pydantic', 'pickle'} & set(sys.modules), sorted(sys.modules)"
    )
    environment = {**os.environ, "BOTTEGA_HOME": str(tmp_path / "home"), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "x.ckpt")], check=True, env=environment)
