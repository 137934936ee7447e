"""Files that torch itself writes, as odd as they get."""

from __future__ import annotations

import argparse
import io
import sys
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

DTYPES = [
    "uint8", "int8", "int16", "int32", "int64", "bool", "float16", "bfloat16", "float32", "float64", "complex64",
    "complex128", "uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz",
    "float8_e5m2fnuz", "float8_e8m0fnu", "complex32", "float4_e2m1fn_x2", "bits8", "bits16", "bits1x8", "bits2x4",
    "bits4x2"
]  # fmt: skip


def saved(value: object, **options: Any) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some dtypes are called experimental
        torch.save(value, file, **options)
    return file.getvalue()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def state(layers: int = 3) -> OrderedDict[str, torch.Tensor]:
    """A small network's weights in half precision, one of them tied to another one."""
    made = OrderedDict((f"blocks.{index}.weight", noise(8, 4, seed=index).half()) for index in range(layers))
    made["head.weight"] = made["blocks.0.weight"]
    return made


def dtypes() -> dict[str, torch.Tensor]:
    """One tensor of each dtype that can be stored as plain numbers, with all bytes that it can have."""
    raw = torch.arange(256, dtype=torch.uint8)
    return {name: (raw % 2 if name == "bool" else raw).clone().view(getattr(torch, name)) for name in DTYPES}


def views() -> dict[str, torch.Tensor]:
    """Tensors that look into one storage in every way that a view can."""
    base = noise(6, 8, 10)
    return {
        "base": base,
        "transposed": base.transpose(0, 2),
        "slice": base[1:4, ::3, 2:9:2],
        "column": base[:, 3, 5],
        "number": base[2, 3, 4],
        "expanded": base[0, 0].expand(5, 10),
        "diagonal": base[0].diagonal(),
        "flipped": base.permute(1, 2, 0)[2:],
        "complex": torch.view_as_complex(noise(4, 6, 2, seed=3)).t(),
        "channels_last": noise(2, 3, 4, 5, seed=4).to(memory_format=torch.channels_last),
    }


def empties() -> dict[str, torch.Tensor]:
    return {
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0),
        "none": torch.empty(4, 0, 3),
        "end": noise(4)[4:],
        "number": torch.tensor(7),
    }


def embedding() -> dict[str, object]:
    """A1111's textual inversion."""
    return {
        "string_to_token": {"*": 265},
        "string_to_param": nn.ParameterDict({"*": nn.Parameter(noise(2, 768))}),
        "name": "my-style",
        "step": 1500,
        "sd_checkpoint": "a1b2c3d4",
        "sd_checkpoint_name": None,
    }


def hypernetwork() -> dict[object, object]:
    """A1111's hypernetwork, whose keys are numbers."""
    layers: dict[object, object] = {
        width: tuple(
            OrderedDict({"linear.0.weight": noise(width * 2, width), "linear.0.bias": noise(width * 2, seed=part)})
            for part in range(2)
        )
        for width in (8, 16)
    }
    return layers | {
        "step": 900,
        "name": "hyper",
        "layer_structure": [1, 2, 1],
        "activation_func": "relu",
        "is_layer_norm": False,
        "last_layer_dropout": None,
    }


def training() -> dict[str, object]:
    """What a training run keeps to go on later."""
    network = nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(network.parameters())
    network(noise(2, 4)).sum().backward()
    optimizer.step()
    random = np.random.RandomState(1).get_state()
    return {
        "state_dict": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "ema": {"shadow": noise(4)},
        "epoch": 3,
        "best_loss": np.float64(0.25),
        "lr": 1e-4,
        "args": argparse.Namespace(batch=4, path="runs"),
        "rng": torch.get_rng_state(),
        "numpy_rng": random,
        "history": np.arange(6, dtype=np.float32).reshape(2, 3),
    }


def lightning(callback: type) -> dict[str, object]:
    """PyTorch Lightning's checkpoint, which has a callback's class for a key."""
    return {
        "epoch": 1,
        "global_step": 470000,
        "pytorch-lightning_version": "1.4.2",
        "state_dict": state(),
        "callbacks": {callback: {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [{"state": {0: {"exp_avg": noise(3)}}}],
        "lr_schedulers": [],
    }


class TinyNetwork(nn.Module):
    """A network that is saved whole, as detectors are."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.names = {0: "face"}
        self.register_buffer("anchors", noise(2))
        self.register_buffer("passing", noise(2), persistent=False)


def frozen() -> torch.jit.ScriptModule:
    """A small network whose weights TorchScript has made constants of its script."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.freeze(torch.jit.script(nn.Sequential(nn.Linear(3, 4)).eval()))


def script() -> tuple[nn.Module, bytes]:
    """A network and its TorchScript archive."""
    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather have torch.export used
        torch.jit.save(torch.jit.trace(network, noise(1, 4)), file)
    return network, file.getvalue()


def repacked(data: bytes, *, drop: tuple[str, ...] = (), order: str = "", deflate: bool = True) -> bytes:
    """An archive packed again by another program; `order` is written as its byte order, `drop` are left out."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        for info in old.infolist():
            if info.filename.endswith(drop) if drop else False:
                continue
            content = order.encode() if order and info.filename.endswith("byteorder") else old.read(info)
            fresh = zipfile.ZipInfo(info.filename, (2026, 1, 1, 0, 0, 0))
            new.writestr(fresh, content, zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED)
    return file.getvalue()


@contextmanager
def pretended(module: str, name: str) -> Iterator[Any]:
    """A class of a package that is not installed, to be pickled by its name."""
    parts = module.split(".")
    made = {".".join(parts[: end + 1]): ModuleType(parts[end]) for end in range(len(parts))}
    known = type(name, (), {"__module__": module, "__qualname__": name})
    setattr(made[module], name, known)
    sys.modules |= made
    try:
        yield known
    finally:
        for each in made:
            del sys.modules[each]
