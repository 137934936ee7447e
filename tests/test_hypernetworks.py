"""A hypernetwork changes what attention hears exactly as it is defined, with every option of its training."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bottega.adapters.hypernetwork import adapter
from bottega.errors import FormatError
from bottega.events import Note
from bottega.families import sd1, sd2, sdxl
from bottega.families._stable_diffusion import toy
from bottega.families._stable_diffusion.load import Pipe
from bottega.formats import read_header, safetensors
from bottega.recipe import Ref, Use
from bottega.runtime.place import choose
from bottega.runtime.weights import rows
from bottega.spec import Attachment

FAMILIES = {face.family.id: face.family for face in (sd1, sd2, sdxl)}
SIZES = {"sd1": (32, 64, 128), "sd2": (32, 64, 128), "sdxl": (64, 96, 128)}  # of the toys' attention, text included

# What training calls the functions, in float64 as their papers have them.
FUNCTIONS: Mapping[str, Any] = {
    "relu": lambda x: x.clamp(min=0),
    "leakyrelu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "elu": lambda x: torch.where(x > 0, x, x.exp() - 1),
    "swish": lambda x: x * (x + 3).clamp(0, 6) / 6,
    "tanh": torch.tanh,
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "gelu": lambda x: x * (1 + torch.erf(x / math.sqrt(2))) / 2,
    "mish": lambda x: x * torch.tanh((1 + x.exp()).log()),
    "softsign": lambda x: x / (1 + x.abs()),
    "hardtanh": lambda x: x.clamp(-1, 1),
    "rrelu": lambda x: torch.where(x > 0, x, (1 / 8 + 1 / 3) / 2 * x),
    "linear": lambda x: x,
}


@dataclass(frozen=True)
class Trained:
    """A hypernetwork as training leaves it, with what its file says beside the tensors."""

    structure: tuple[float, ...] = (1, 2, 1)
    told: dict[str, Any] = field(default_factory=dict)
    function: str = "linear"
    norm: bool = False
    last: bool = True  # whether the function follows the last layer too
    dropout: tuple[float, ...] = ()
    old: bool = False

    def layers(self) -> Iterator[tuple[str, str]]:
        """What is in `nn.Sequential`, and its number there."""
        number = 0
        for index in range(1, len(self.structure)):
            parts = ["linear"]
            if self.function != "linear" and (index < len(self.structure) - 1 or self.last):
                parts.append("function")
            parts += ["norm"] * self.norm
            parts += ["dropout"] if index < len(self.dropout) and self.dropout[index] else []
            for part in parts:
                yield part, f"linear{index}" if self.old else f"linear.{number}"
                number += 1

    def half(self, size: int, generator: torch.Generator) -> dict[str, Tensor]:
        made: dict[str, Tensor] = {}
        widths = iter(self.structure)
        width = int(size * next(widths))
        for part, name in self.layers():
            if part == "linear":
                before, width = width, int(size * next(widths))
                made[f"{name}.weight"] = torch.randn((width, before), generator=generator) / math.sqrt(before)
                made[f"{name}.bias"] = torch.randn(width, generator=generator)
            elif part == "norm":
                made[f"{name}.weight"] = 1 + 0.3 * torch.randn(width, generator=generator)
                made[f"{name}.bias"] = 0.3 * torch.randn(width, generator=generator)
            elif part == "function" and self.function == "prelu":
                made[f"{name}.weight"] = torch.tensor([0.4])
        return made

    def defined(self, x: Tensor, half: Mapping[str, Tensor]) -> Tensor:
        """What it makes of vectors, in float64."""
        x = x.double()
        for part, name in self.layers():
            if part == "linear":
                x = x @ half[f"{name}.weight"].double().T + half[f"{name}.bias"].double()
            elif part == "norm":
                x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
                x = x * half[f"{name}.weight"].double() + half[f"{name}.bias"].double()
            elif part == "function" and self.function == "prelu":
                x = torch.where(x > 0, x, half[f"{name}.weight"].double() * x)
            elif part == "function":
                x = FUNCTIONS[self.function](x)
        return x


OPTIONS = {
    "plain": Trained(told={"layer_structure": [1, 2, 1]}),
    "old": Trained(old=True),
    "function": Trained(function="relu", told={"activation_func": "relu"}),
    "not at the end": Trained(function="relu", last=False, told={"activation_func": "relu", "activate_output": False}),
    "deep": Trained((1, 1.5, 2, 1), function="mish", told={"activation_func": "mish", "activate_output": True}),
    "norms": Trained(function="gelu", norm=True, told={"activation_func": "gelu", "is_layer_norm": True}),
    "norms alone": Trained(norm=True, told={"activation_func": None, "is_layer_norm": True}),
    "dropout": Trained(
        (1, 2, 2, 1), function="relu", dropout=(0, 0.3, 0, 0), told={"activation_func": "relu", "use_dropout": True}
    ),
    "dropout at the end": Trained(
        (1, 2, 2, 1),
        dropout=(0, 0.3, 0.3, 0),
        told={"activation_func": "linear", "use_dropout": True, "last_layer_dropout": True},
    ),
    "dropout told": Trained(
        (1, 2, 2, 1),
        norm=True,
        dropout=(0, 0, 0.1, 0),
        told={"dropout_structure": [0, 0, 0.1, 0], "is_layer_norm": True},
    ),
    "learnt function": Trained(function="prelu", told={"activation_func": "prelu"}),
    **{name: Trained(function=name, told={"activation_func": name}) for name in FUNCTIONS},
}


@pytest.fixture(scope="module")
def pipes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Pipe]]:
    """A tiny model of each family, loaded."""
    made = {}
    for id, face in FAMILIES.items():
        path = toy.write_single_file(tmp_path_factory.mktemp("toys") / f"{id}.safetensors", id, dtype="float32")
        header = read_header(path)
        match = face.recognise(header)
        assert match is not None
        made[id] = path, face.load(header, match, choose("cpu", "float32"))
    return made


def halves_of(trained: Trained, sizes: tuple[int, ...], seed: int = 0) -> dict[int, list[dict[str, Tensor]]]:
    generator = torch.Generator().manual_seed(seed)
    return {size: [trained.half(size, generator) for _ in range(2)] for size in sizes}


def write(path: Path, trained: Trained, halves: Mapping[int, list[dict[str, Tensor]]]) -> Path:
    torch.save({**halves, "step": 100, "name": path.stem, "sd_checkpoint": None, **trained.told}, path)
    return path


def attachment(file: Path, model: Path, **use: Any) -> Attachment:
    header, base, face = read_header(file), read_header(model), FAMILIES[model.stem]
    match, base_match = adapter.recognise(header), face.recognise(base)
    assert match is not None and base_match is not None
    asked = Use(kind="hypernetwork", ref=Ref(name=file.stem), **use)
    return Attachment(asked, header, match, base, base_match, face)


class Defined(nn.Module):
    """A layer of keys or values that hears, by definition, `x + strength * network(x)` for each of some networks."""

    def __init__(self, layer: nn.Linear, networks: list[tuple[Trained, Mapping[str, Tensor], float]]) -> None:
        super().__init__()
        self.layer, self.networks = layer, networks

    def forward(self, x: Tensor) -> Tensor:
        for trained, half, strength in self.networks:
            x = x + strength * trained.defined(x, half)
        return self.layer(x)


Networks = list[tuple[Trained, Mapping[int, list[dict[str, Tensor]]], float]]


def by_definition(pipe: Pipe, networks: Networks) -> nn.Module:
    """The model's UNet in float64 with hypernetworks in it, by name and not by any hook."""
    unet = copy.deepcopy(pipe.unet).double()
    for name, module in list(unet.named_modules()):
        for half, child in enumerate(("to_k", "to_v")):
            layer = getattr(module, child, None)
            if name.endswith(("attn1", "attn2")) and isinstance(layer, nn.Linear):
                mine = [
                    (one, halves[layer.in_features][half], s)
                    for one, halves, s in networks
                    if layer.in_features in halves
                ]
                setattr(module, child, Defined(layer, mine))
    return unet


@torch.no_grad()
def seen(unet: nn.Module, pipe: Pipe) -> Tensor:
    dtype = next(unet.parameters()).dtype
    generator = torch.Generator().manual_seed(3)
    x = torch.randn((2, 4, 8, 8), generator=generator).to(dtype)
    text = torch.randn((2, 77, unet.config.cross_attention_dim), generator=generator).to(dtype)
    added = None
    if pipe.sizes:
        vector = torch.randn((2, 48 + 6 * 8), generator=generator).to(dtype)
        added = {"text_embeds": vector[:, :48], "time_ids": torch.ones(2, 6).to(dtype)}
    return unet(x, 500, encoder_hidden_states=text, added_cond_kwargs=added, return_dict=False)[0]


def attach(pipe: Pipe, what: Attachment, said: list[object] | None = None):
    assert adapter.unfit(what) == "" and adapter.attach is not None
    return adapter.attach(pipe, what, ([] if said is None else said).append)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", OPTIONS)
def test_it_is_what_its_definition_says(
    name: str, family: str, pipes: Mapping[str, tuple[Path, Pipe]], tmp_path: Path
) -> None:
    model, pipe = pipes[family]
    trained = OPTIONS[name]
    halves = halves_of(trained, SIZES[family])
    before = seen(pipe.unet, pipe)
    detach = attach(pipe, attachment(write(tmp_path / "style.pt", trained, halves), model, weight=0.7))
    made = seen(pipe.unet, pipe)
    detach()
    exact = seen(by_definition(pipe, [(trained, halves, 0.7)]), pipe)
    assert (made.double() - exact).abs().max() < 1e-4 * max(1.0, exact.abs().max())
    assert (made - before).abs().max() > 0.01
    assert torch.equal(seen(pipe.unet, pipe), before)


def test_several_follow_each_other(pipes: Mapping[str, tuple[Path, Pipe]], tmp_path: Path) -> None:
    model, pipe = pipes["sd1"]
    one, other = OPTIONS["function"], OPTIONS["norms"]
    first, second = halves_of(one, (32, 64), 1), halves_of(other, (64, 128), 2)
    detach = [
        attach(pipe, attachment(write(tmp_path / "one.pt", one, first), model)),
        attach(pipe, attachment(write(tmp_path / "other.pt", other, second), model, weight=0.5)),
    ]
    made = seen(pipe.unet, pipe)
    for each in reversed(detach):
        each()
    exact = seen(by_definition(pipe, [(one, first, 1.0), (other, second, 0.5)]), pipe)
    turned = seen(by_definition(pipe, [(other, second, 0.5), (one, first, 1.0)]), pipe)
    assert (made.double() - exact).abs().max() < 1e-4 < (made.double() - turned).abs().max()


def test_a_hundred_times_on_and_off_leaves_nothing(pipes: Mapping[str, tuple[Path, Pipe]], tmp_path: Path) -> None:
    model, pipe = pipes["sdxl"]
    trained = OPTIONS["function"]
    what = attachment(write(tmp_path / "style.pt", trained, halves_of(trained, (64, 96))), model)
    before = {name: tensor.clone() for name, tensor in pipe.unet.state_dict().items()}
    for _ in range(100):
        attach(pipe, what)()
    assert all(torch.equal(tensor, before[name]) for name, tensor in pipe.unet.state_dict().items())
    assert not any(module._forward_pre_hooks for module in pipe.unet.modules())


def test_it_works_for_its_part_of_the_steps(pipes: Mapping[str, tuple[Path, Pipe]], tmp_path: Path) -> None:
    model, pipe = pipes["sd1"]
    trained = OPTIONS["function"]
    file = write(tmp_path / "style.pt", trained, halves_of(trained, (32,)))
    without = seen(pipe.unet, pipe)
    detach = attach(pipe, attachment(file, model, start=0.25, end=0.75))
    works = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        pipe.go_to(share)
        works.append(not torch.equal(seen(pipe.unet, pipe), without))
    detach()
    pipe.go_to(0.0)
    assert works == [False, True, True, False, False]


def test_safetensors_say_their_options_in_metadata(pipes: Mapping[str, tuple[Path, Pipe]], tmp_path: Path) -> None:
    model, pipe = pipes["sd1"]
    trained = OPTIONS["not at the end"]
    halves = halves_of(trained, (32, 64))
    named = {
        f"{size}.{half}.{name}": tensor
        for size, both in halves.items()
        for half, tensors in enumerate(both)
        for name, tensor in tensors.items()
    }
    told = {"activation_func": "ReLU", "activate_output": "False", "layer_structure": "[1, 2, 1]"}
    safetensors.write(tmp_path / "style.safetensors", rows(named), told)
    detach = attach(pipe, attachment(tmp_path / "style.safetensors", model))
    made = seen(pipe.unet, pipe)
    detach()
    assert (made.double() - seen(by_definition(pipe, [(trained, halves, 1.0)]), pipe)).abs().max() < 1e-4


def test_half_precision_is_computed_in_float32(pipes: Mapping[str, tuple[Path, Pipe]], tmp_path: Path) -> None:
    model, _ = pipes["sd1"]
    header, face = read_header(model), FAMILIES["sd1"]
    match = face.recognise(header)
    assert match is not None
    pipe = face.load(header, match, choose("cpu", "bfloat16"))
    trained = OPTIONS["norms"]
    halves = halves_of(trained, (32,))
    attach(pipe, attachment(write(tmp_path / "style.pt", trained, halves), model))
    layer = pipe.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2.to_k
    x = torch.randn((1, 77, 32), generator=torch.Generator().manual_seed(1)).bfloat16()
    heard = (x.double() + trained.defined(x, halves[32][0])).float().bfloat16()
    assert torch.equal(layer(x), F.linear(heard, layer.weight))


# --- what does not fit -----------------------------------------------------------------------------------------------


def test_networks_without_a_place_are_noted(pipes: Mapping[str, tuple[Path, Pipe]], tmp_path: Path) -> None:
    model, pipe = pipes["sd1"]
    trained, said = OPTIONS["plain"], []
    attach(pipe, attachment(write(tmp_path / "style.pt", trained, halves_of(trained, (32, 48))), model), said)()
    assert said == [Note("style: not used: its networks for the width 48")]


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ((64, 768), "it hears text of width 768, as a Stable Diffusion 1 checkpoint does, and this model's is 32 wide"),
        ((48, 56), "it has networks for the widths 48, 56, and this model has 32, 64, 128"),
    ],
)
def test_what_does_not_fit_is_told(
    sizes: tuple[int, ...], told: str, pipes: Mapping[str, tuple[Path, Pipe]], tmp_path: Path
) -> None:
    model, _ = pipes["sd1"]
    trained = OPTIONS["plain"]
    file = write(tmp_path / "style.pt", trained, halves_of(trained, sizes))
    assert adapter.unfit(attachment(file, model)) == told


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"activation_func": "softmax"}, "its activation_func 'softmax' is none that can be had"),
        ({"activation_func": "no\nsuch"}, "is none that can be had"),
        ({"activation_func": "relu"}, "are not those that its options mean"),
        ({"is_layer_norm": True}, "are not those that its options mean"),
    ],
)
def test_options_that_contradict_the_layers_are_refused(
    told: dict[str, Any], words: str, pipes: Mapping[str, tuple[Path, Pipe]], tmp_path: Path
) -> None:
    model, pipe = pipes["sd1"]
    file = write(tmp_path / "style.pt", Trained(told=told), halves_of(Trained(), (32,)))
    with pytest.raises(FormatError, match=words):
        attach(pipe, attachment(file, model))


def test_numbers_that_are_not_finite_are_refused(pipes: Mapping[str, tuple[Path, Pipe]], tmp_path: Path) -> None:
    model, pipe = pipes["sd1"]
    halves = halves_of(Trained(), (32,))
    halves[32][1]["linear.1.bias"][0] = torch.nan
    with pytest.raises(FormatError, match="not finite"):
        attach(pipe, attachment(write(tmp_path / "style.pt", Trained(), halves), model))
