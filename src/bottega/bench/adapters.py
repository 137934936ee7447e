"""Measures how long a LoRA takes to be attached and taken away, beside the machine's memory and beside diffusers.

The LoRA have rank 32 and change all attention layers of the UNet of a full-size Stable Diffusion 1.5. The limit is the
time of a plain copy of the weights that they change: who wants the originals back has to move at least that much.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from bottega.adapters.lora import adapter
from bottega.bench.full_size import full_size_model
from bottega.bench.machine import describe, synchronize
from bottega.engine.adapters import Ready
from bottega.engine.attach import Attached
from bottega.events import Event, Step
from bottega.families import family
from bottega.formats import Header, read_header, safetensors
from bottega.library.hashes import sha256_of
from bottega.recipe import Recipe, Ref, Sampling, Size, Use
from bottega.settings import STARTER_SHELF, Settings
from bottega.spec import Attachment, Match, Place
from bottega.workbench import Workbench

RANK = 32
ROUNDS = 7
PICTURES = 10
MOST_ATTACH, MOST_DETACH, MOST_TIMES = 0.5, 0.1, 2.0  # what issue 5 asks for: seconds, or times the copy


@dataclass(frozen=True)
class Figures:
    """Medians in seconds; `first` is the first attaching of all, `changed_after` a share of diffusers' weights."""

    machine: Mapping[str, str]
    precision: str
    weights: int
    changed_bytes: int
    copy: float
    first: float
    attach: float
    switch: float
    detach: float
    equal: bool
    loads: int
    diffusers_attach: float | None = None
    diffusers_detach: float | None = None
    changed_after: float | None = None

    @property
    def is_within(self) -> bool:
        """Whether it is exact, loads the model once, and is as fast as issue 5 asks for."""
        fast = [
            seconds <= most or seconds <= MOST_TIMES * self.copy
            for seconds, most in ((self.attach, MOST_ATTACH), (self.switch, MOST_ATTACH), (self.detach, MOST_DETACH))
        ]
        return self.equal and self.loads == 1 and all(fast)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Measure, and tell; 1 if a weight was another afterwards, or anything took longer than issue 5 allows."""
    figures = measure(
        settings, partial(print, file=sys.stderr), quick=args.quick, against_diffusers=args.against == "diffusers"
    )
    if args.json:
        print(json.dumps({**vars(figures), "is_within": figures.is_within}, indent=2))
    else:
        print("\n".join(_lines(figures)))
    return 0 if figures.is_within else 1


def _lines(figures: Figures) -> Iterator[str]:
    yield from (f"{name}: {words}" for name, words in figures.machine.items())
    size = f"{figures.changed_bytes / 1e6:.0f} MB in {figures.precision}"
    yield f"LoRA of rank {RANK}, {figures.weights} weights, {size}; copying those takes {figures.copy:.3f} s"
    for what, seconds in (
        ("attached, the first time", figures.first),
        ("attached", figures.attach),
        ("another in its place", figures.switch),
        ("taken away", figures.detach),
    ):
        yield f"{what}: {seconds:.4f} s, {seconds / figures.copy:.2f} times the copy"
    yield f"afterwards every weight is {'equal to the bit' if figures.equal else 'NOT what it was'}"
    yield f"{PICTURES} pictures in turns with two of them: the model was loaded {figures.loads} time(s)"
    if figures.diffusers_attach and figures.diffusers_detach:
        faster, sooner = figures.diffusers_attach / figures.attach, figures.diffusers_detach / figures.detach
        yield (
            f"diffusers and peft: loaded and fused {figures.diffusers_attach:.2f} s ({faster:.1f} times as long), "
            f"unfused and unloaded {figures.diffusers_detach:.2f} s ({sooner:.0f} times), "
            f"{figures.changed_after or 0:.1%} of the numbers are others afterwards"
        )


def measure(
    settings: Settings, say: Callable[[str], None], *, quick: bool = False, against_diffusers: bool = False
) -> Figures:
    """The figures; `quick` takes the starter, whose figures tell little."""
    model = STARTER_SHELF / "starter-image.safetensors" if quick else full_size_model(settings.home / "bench")
    workbench = Workbench(settings)
    with tempfile.TemporaryDirectory(prefix="bottega-adapters-") as folder:
        base = _base(model)
        files = [_write_lora(Path(folder) / f"lora-{seed}.safetensors", base, seed) for seed in (0, 1)]
        ready = [_ready(workbench, file, base) for file in files]
        say("attaching and taking away")
        figures = _measure(workbench, base, ready, against_diffusers, files[0])
        say(f"{PICTURES} pictures")
        return Figures(**figures, loads=_loads(workbench, model, files, Path(folder)))


@dataclass(frozen=True)
class _Base:
    header: Header
    match: Match

    @property
    def places(self) -> list[Place]:
        """The matrices of the UNet's attention."""
        anatomy = family("sd1").anatomy
        assert anatomy is not None
        found = anatomy.places(self.header, self.match)
        return [place for place in found if ".attn" in place.name and place.name.endswith("weight")]


def _base(model: Path) -> _Base:
    header = read_header(model)
    match = family("sd1").recognise(header)
    assert match is not None
    return _Base(header, match)


def _write_lora(path: Path, base: _Base, seed: int) -> Path:
    """A LoRA as kohya's trainer writes one, in float16."""
    import torch

    from bottega.runtime.weights import rows

    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for place in base.places:
        sizes = {"lora_up.weight": (place.shape[0], RANK), "lora_down.weight": (RANK, place.shape[1])}
        for end, size in sizes.items():
            tensors[f"{place.key}.{end}"] = (torch.randn(size, generator=generator) / RANK).half()
        tensors[f"{place.key}.alpha"] = torch.tensor(float(RANK)).half()
    safetensors.write(path, rows(tensors))
    return path


def _ready(workbench: Workbench, file: Path, base: _Base) -> Ready:
    entry = sha256_of(workbench.catalog, workbench.find(str(file), "lora"))
    header = read_header(file)
    match = adapter.recognise(header)
    assert match is not None
    use = Use(kind="lora", ref=Ref(name=entry.name, sha256=entry.sha256))
    return Ready(entry, adapter, Attachment(use, header, match, base.header, base.match, family("sd1")))


class _Deaf:
    previews = False

    def __call__(self, event: Event) -> None: ...

    def preview(self, image: int, step: int, picture: Any) -> None: ...


def _measure(
    workbench: Workbench, base: _Base, ready: Sequence[Ready], against_diffusers: bool, file: Path
) -> dict[str, Any]:
    import torch

    from bottega.runtime.place import choose, keep_memory, keep_precision

    keep_memory()
    keep_precision()
    place = choose(workbench.facts.device, workbench.precision)
    pipe = family("sd1").load(base.header, base.match, place, lambda done, total: None)
    changed = [pipe.unet.get_parameter(each.name) for each in base.places]
    before = {id(each): each.data.clone() for each in changed}
    attached, emit = Attached(), _Deaf()

    def seconds(work: Callable[[], object]) -> float:
        synchronize(place.torch_device)
        began = perf_counter()
        work()
        synchronize(place.torch_device)
        return perf_counter() - began

    def become(*wanted: Ready) -> float:
        return seconds(lambda: attached.become(pipe, wanted, emit))

    one, other = ready
    first, attach, switch, detach, copy = become(one), [], [], [], []
    for _ in range(ROUNDS):
        detach.append(become())
        attach.append(become(one))
        switch.append(become(other))
        copy.append(seconds(lambda: [torch.empty_like(each).copy_(each) for each in changed]))
    become()
    told: dict[str, Any] = {
        "machine": describe(place.torch_device),
        "precision": place.precision,
        "weights": len(changed),
        "changed_bytes": sum(each.nbytes for each in changed),
        "copy": median(copy),
        "first": first,
        "attach": median(attach),
        "switch": median(switch),
        "detach": median(detach),
        "equal": all(torch.equal(each.data, before[id(each)]) for each in changed),
    }
    return told | (_peer(pipe.unet, base, file, seconds) if against_diffusers else {})


def _peer(unet: Any, base: _Base, file: Path, seconds: Callable[[Callable[[], object]], float]) -> dict[str, Any]:
    """How diffusers and peft do on the same network: load and fuse, then unfuse and unload."""
    import torch
    from safetensors.torch import load_file

    names = {place.key: place.name.removesuffix(".weight") for place in base.places}
    ends = {"lora_up.weight": "lora_B.weight", "lora_down.weight": "lora_A.weight"}
    before = {place.name: unet.get_parameter(place.name).data.clone() for place in base.places}

    def load() -> None:
        tensors = {}
        for name, tensor in load_file(file).items():
            key, _, end = name.partition(".")
            if end in ends:
                tensors[f"unet.{names[key]}.{ends[end]}"] = tensor
        unet.load_lora_adapter(tensors, prefix="unet", adapter_name="it")
        unet.fuse_lora()

    def unload() -> None:
        unet.unfuse_lora()
        unet.unload_lora()

    attach, detach = [], []
    for _ in range(3):
        attach.append(seconds(load))
        detach.append(seconds(unload))
    others = sum(int((unet.get_parameter(name).data != was).sum()) for name, was in before.items())
    return {
        "diffusers_attach": median(attach),
        "diffusers_detach": median(detach),
        "changed_after": others / sum(was.numel() for was in before.values() if isinstance(was, torch.Tensor)),
    }


def _loads(workbench: Workbench, model: Path, files: Sequence[Path], folder: Path) -> int:
    """How often the model is loaded for pictures that take turns with two LoRA."""
    loads = 0
    for number in range(PICTURES):
        use = Use(kind="lora", ref=Ref(name=str(files[number % 2])))
        draft = Recipe(
            prompt="a house",
            model=Ref(name=str(model)),
            adapters=(use,),
            sampling=Sampling(steps=1, seed=number, sampler="Euler"),
            size=Size(width=128, height=128),
        )
        for event in workbench.run(workbench.resolve(draft), out=f"{folder}{os.sep}"):
            loads += isinstance(event, Step) and event.phase == "load" and event.done == 0
    return loads
