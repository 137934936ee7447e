"""What runs on a device keeps to it: every sampler, input and adapter, on one that refuses to compute with two."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapter_files import taesd, write_taesd
from PIL import Image, ImageOps
from pretend_device import DEVICE, OnTwoDevices, pretended
from test_words import write_embedding, write_hypernetwork, write_vae

from bottega.diffusion.names import SAMPLERS
from bottega.engine.adapters import Ready
from bottega.events import Learned
from bottega.families import family
from bottega.families._stable_diffusion import tasks
from bottega.families._stable_diffusion.toy import write_single_file
from bottega.formats import read_header
from bottega.recipe import Recipe, Ref, Sampling, Size, Use
from bottega.runtime import place as places
from bottega.runtime import weights
from bottega.runtime.place import Place, choose
from bottega.settings import Settings
from bottega.training.recipe import TrainingRecipe
from bottega.workbench import Workbench

FLOAT32 = dict.fromkeys(("unet", "vae", "text_encoder", "text_encoder_2"), "float32")


class Shown:
    """Has previews made and shows them to nobody."""

    previews = True

    def __call__(self, event: object) -> None: ...

    def preview(self, image: int, step: int, picture: Image.Image) -> None: ...


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny checkpoint of each family."""
    folder = tmp_path_factory.mktemp("toys")
    return {id: write_single_file(folder / f"{id}.safetensors", id) for id in ("sd1", "sd2", "sdxl")}


@pytest.fixture(scope="module")
def pipes(toys: dict[str, Path]) -> dict[str, tuple[Any, Any]]:
    """Each of them in main memory, and on the device."""
    both = {}
    for id, path in toys.items():
        header, face = read_header(path), family(id)
        match = face.recognise(header)
        assert match is not None
        with pretended():
            there = face.load(header, match, Place(str(DEVICE), FLOAT32, ""), lambda done, total: None)
        both[id] = face.load(header, match, choose("cpu", "float32"), lambda done, total: None), there
    return both


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(Settings(home=tmp_path / "home", outputs=tmp_path / "outputs", device="cpu"))


def draft(model: Path, **fields: Any) -> Recipe:
    sampling = Sampling(**{"steps": 3, "seed": 3, **fields.pop("sampling", {})})
    knobs = {"precision": "float32", **fields.pop("knobs", {})}
    given = {"prompt": "a (house:1.2) AND a tree", "negative": "rain", "size": Size(width=64, height=64), **fields}
    return Recipe(model=Ref(name=str(model)), knobs=knobs, sampling=sampling, **given)


def apart(pipes: tuple[Any, Any], recipe: Recipe, **inputs: Image.Image) -> int:
    """How far the pictures of both are from each other, in any colour of any pixel; they are two of one batch."""
    batch = [recipe.changed(sampling=recipe.sampling.model_copy(update={"seed": seed})) for seed in (3, 4)]
    here, there = pipes
    make = tasks.make.__wrapped__  # type: ignore[attr-defined]  # in torch's mode of inference nothing can be pretended
    with torch.no_grad():
        made = make(here, batch, inputs, Shown())
        with pretended():
            made += make(there, batch, inputs, Shown())
    one, two, other, another = (np.asarray(picture, dtype=np.int16) for picture in made)
    assert np.ptp(one) > 8 and np.abs(one - two).max() > 8
    return int(max(np.abs(one - other).max(), np.abs(two - another).max()))


def test_the_device_refuses_to_compute_with_main_memory() -> None:
    with torch.no_grad(), pretended():
        there, here = torch.ones(2, 3, device=DEVICE), torch.ones(2, 3)
        assert there.device == DEVICE and (there + there.to("cpu").to(DEVICE)).cpu().sum() == 12
        for wrong in (lambda: there + here, lambda: here @ there.T, lambda: torch.cat([there, here])):
            with pytest.raises(OnTwoDevices):
                wrong()
        with pytest.raises(OnTwoDevices):
            torch.nn.functional.embedding(torch.tensor([1]), there)


@pytest.mark.parametrize("id", ["sd1", "sd2", "sdxl"])
def test_all_of_a_model_is_on_its_device(id: str, pipes: dict[str, tuple[Any, Any]]) -> None:
    there = pipes[id][1]
    for network in (there.unet, there.vae, *(each.model for each in there.text_encoders)):
        assert {tensor.device for tensor in (*network.parameters(), *network.buffers())} == {DEVICE}


def test_weights_come_to_the_device_without_taking_room_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_PIECE", 1000)
    whole = torch.arange(5000, dtype=torch.float32) / 7
    tensors = {"a": whole[:3000].view(30, 100), "b": whole[3000:].view(100, 20).T}
    for dtype, most in ((torch.float32, 0), (torch.float16, 1000)):
        with torch.no_grad(), pretended() as arrived:
            there = weights.gathered(tensors, dtype, DEVICE)
            assert max(arrived, default=0) == most
            assert all(torch.equal(there[name].cpu(), tensor.to(dtype)) for name, tensor in tensors.items())
            assert {tensor.device for tensor in there.values()} == {DEVICE}


@pytest.mark.parametrize("id", ["sd1", "sd2", "sdxl"])
def test_each_family_makes_its_pictures_there(
    id: str, bench: Workbench, toys: dict[str, Path], pipes: dict[str, tuple[Any, Any]]
) -> None:
    assert apart(pipes[id], bench.resolve(draft(toys[id]))) <= 2


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [sampler.name for sampler in SAMPLERS])
def test_every_sampler_keeps_to_the_device(
    sampler: str, bench: Workbench, toys: dict[str, Path], pipes: dict[str, tuple[Any, Any]]
) -> None:
    asked = draft(toys["sd1"], sampling={"sampler": sampler, "steps": 2})
    assert apart(pipes["sd1"], bench.resolve(asked)) <= 2


@pytest.mark.slow
@pytest.mark.parametrize("source", ["CPU", "NV"])
def test_noise_and_every_way_to_begin_keep_to_the_device(
    source: str, bench: Workbench, toys: dict[str, Path], pipes: dict[str, tuple[Any, Any]], tmp_path: Path
) -> None:
    pictures = {
        "init": Image.merge(
            "RGB", [Image.linear_gradient("L"), Image.radial_gradient("L"), Image.new("L", (256, 256))]
        ),
        "mask": Image.radial_gradient("L").point(lambda value: 255 * (value < 128)),
    }
    for name, picture in pictures.items():
        picture.resize((64, 64)).save(tmp_path / f"{name}.png")
    kept = tuple(bench.keep_input(tmp_path / f"{name}.png", name) for name in pictures)
    knobs = {"noise_source": source, "variation_seed": 7, "variation_strength": 0.3, "seed_resize_width": 32}
    knobs = {**knobs, "seed_resize_height": 32, "guidance_rescale": 0.5}
    given = {name: Image.open(tmp_path / f"{name}.png").convert("RGB") for name in pictures}
    asked = {"sampling": {"strength": 0.7, "sampler": "Euler a"}}
    recipe = bench.resolve(draft(toys["sd1"], task="image-to-image", inputs=kept[:1], knobs=knobs, **asked))
    assert apart(pipes["sd1"], recipe, init=given["init"]) <= 2
    for content in ("fill", "original", "latent noise", "latent nothing"):
        more = {**knobs, "masked_content": content}
        recipe = bench.resolve(draft(toys["sd1"], task="inpaint", inputs=kept, knobs=more, **asked))
        assert apart(pipes["sd1"], recipe, **given) <= 2


@pytest.mark.slow
def test_adapters_keep_to_the_device(
    bench: Workbench, toys: dict[str, Path], pipes: dict[str, tuple[Any, Any]], tmp_path: Path
) -> None:
    shelf = tmp_path / "home" / "models"
    write_hypernetwork(shelf / "hyper.pt")
    write_embedding(shelf / "lighthouse.safetensors")
    write_vae(shelf / "other.vae.safetensors")
    tiny = write_taesd(shelf / "taesd.safetensors", "diffusers", taesd())
    plain = bench.resolve(draft(toys["sd1"]))
    other = Use(kind="vae", ref=Ref(name=str(shelf / "other.vae.safetensors")))
    rough = Use(kind="vae", ref=Ref(name=str(tiny)))
    for uses in ((), (other,), (rough,)):
        recipe = bench.resolve(draft(toys["sd1"], prompt="a lighthouse <hypernet:hyper:0.7>", adapters=uses))
        wanted = bench._shelf.ready(bench._checkpoint(recipe.model), recipe.adapters)
        assert len(wanted) == 2 + len(uses)
        taken = [attached(pipe, wanted) for pipe in pipes["sd1"]]
        assert apart(pipes["sd1"], recipe) <= 2
        for take_away in taken:
            take_away()
    assert apart(pipes["sd1"], plain) <= 2


def attached(pipe: Any, wanted: list[Ready]) -> Any:
    with pretended():
        taken = [ready.adapter.attach(pipe, ready.what, Shown()) for ready in wanted]  # type: ignore[misc,arg-type]
    return lambda: [take_away() for take_away in reversed(taken)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked",
    [
        {"kind": "lora", "rank": 4, "conv_rank": 2, "text_encoder": True, "ema": 0.9},
        {"kind": "lora", "rank": 2, "algorithm": "dora", "noise_offset": 0.1, "min_snr": 5.0, "optimizer": "prodigy"},
        {"kind": "embedding", "word": "lighthouse", "begin_with": "house", "vectors": 3},
        {"kind": "hypernetwork"},
        {"kind": "full", "text_encoder": True, "patience": 2},
    ],
    ids=lambda asked: asked.get("algorithm", asked["kind"]),
)
def test_what_is_trained_keeps_to_the_device(asked: dict[str, Any], toys: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, colour in enumerate(("red", "green", "blue")):
        drawn = ImageOps.colorize(Image.radial_gradient("L"), "black", "white", mid=colour)
        drawn.resize((64, 64)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a {colour} lighthouse")
    told = {
        "steps": 3,
        "seed": 1,
        "batch": 2,
        "resolution": 64,
        "precision": "float32",
        "validate_every": 1,
        "validation": 0.34,
    }
    recipe = TrainingRecipe.model_validate(
        {**told, **asked, "model": {"name": str(toys["sd1"])}, "data": ({"path": str(folder)},)}
    )
    learned = []
    for there in (False, True):
        bench = Workbench(Settings(home=tmp_path / f"home-{there}", outputs=tmp_path / "outputs", device="cpu"))
        prepared = bench.prepare_training(recipe)
        with pytest.MonkeyPatch.context() as patch, pretended() if there else nullcontext():
            if there:
                patch.setattr(places, "choose", lambda device, precision: Place(str(DEVICE), FLOAT32, ""))
            events = list(bench.train(prepared, tmp_path / f"made-{there}.safetensors"))
        learned.append([(event.loss, event.validation) for event in events if isinstance(event, Learned)])
    here, there = learned
    assert len(here) == 3 and all(validation for _, validation in here)
    assert np.allclose(here, there, atol=1e-3)
