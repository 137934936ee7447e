"""Weight adapters on loaded models: what they do is what their papers say, and it can be taken back to the bit."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from weight_adapters import KINDS, Change, takes

from bottega.adapters.lora import adapter, attach, recognise
from bottega.engine.resolve import Chosen, Device, resolve
from bottega.errors import FileError
from bottega.events import Event, Note
from bottega.families import family
from bottega.families._stable_diffusion import tasks, toy
from bottega.formats import Header, read_header, safetensors
from bottega.recipe import Recipe, Ref, Sampling, Size, Use
from bottega.runtime.place import choose
from bottega.runtime.weights import rows
from bottega.spec import Attachment, Match, Place


class Silent:
    """Hears everything and shows nothing."""

    previews = False

    def __init__(self) -> None:
        self.heard: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.heard.append(event)

    def preview(self, image: int, step: int, picture: Image.Image) -> None:
        raise AssertionError("nobody asked for one")


@dataclass(frozen=True)
class Model:
    """A toy in memory, in float32, and what its header says."""

    family: str
    header: Header
    match: Match
    pipe: Any

    @property
    def places(self) -> Mapping[tuple[str, str], Place]:
        anatomy = family(self.family).anatomy
        assert anatomy is not None
        return {(place.part, place.name): place for place in anatomy.places(self.header, self.match)}

    @property
    def parts(self) -> set[str]:
        return {part for part, _ in self.places}

    @property
    def weights(self) -> dict[tuple[str, str], torch.nn.Parameter]:
        return {(part, name): it for part, found in self.pipe.patcher._parameters.items() for name, it in found.items()}

    def attachment(self, path: Path, **use: Any) -> Attachment:
        header = read_header(path)
        match = recognise(header)
        assert match is not None
        told = Use(kind="lora", ref=Ref(name=path.stem, sha256="0" * 64), **use)
        return Attachment(told, header, match, self.header, self.match, family(self.family))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Model]:
    """The toy of each family, loaded once."""
    folder, loaded = tmp_path_factory.mktemp("toys"), dict[str, Model]()

    def model(id: str) -> Model:
        if id not in loaded:
            face = family(id)
            header = read_header(toy.write_single_file(folder / f"{id}.safetensors", id, dtype="float32"))
            match = face.recognise(header)
            assert match is not None
            pipe = face.load(header, match, choose("cpu", "float32"), lambda done, total: None)
            loaded[id] = Model(id, header, match, pipe)
        return loaded[id]

    return model


def changes_of(model: Model, kind: str, seed: int = 0) -> dict[Place, Change]:
    """A change of this kind to every fourth weight that takes one, in all networks."""
    generator = torch.Generator().manual_seed(seed)
    fit = [place for place in model.places.values() if place.name.endswith("weight") and takes(kind, place.shape)]
    return {place: KINDS[kind](place.shape, generator) for place in fit[seed % 4 :: 4] if "embedding" not in place.name}


def write(path: Path, changes: Mapping[Place, Change]) -> Path:
    tensors = {f"{place.key}.{end}": it for place, change in changes.items() for end, it in change.tensors.items()}
    safetensors.write(path, rows(tensors))
    return path


def recipe_for(model: Model, steps: int = 2) -> Recipe:
    face = family(model.family)
    chosen = Chosen("toy", "0" * 64, face, face.defaults(model.header, model.match), {})
    draft = Recipe(
        prompt="a red [house|tower]",
        sampling=Sampling(seed=1, steps=steps, sampler="Euler"),
        size=Size(width=64, height=64),
        knobs={"precision": "float32"},
    )
    return resolve(draft, chosen, Device("float32", lambda size: False))


@pytest.fixture
def picture(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., torch.Tensor]]:
    """The picture of a model as numbers from -1 to 1, before they are rounded."""
    caught: list[torch.Tensor] = []

    def decode(pipe: Any, latents: torch.Tensor, *, tiled: bool) -> list[Image.Image]:
        caught.append(pipe.vae.decode(latents / pipe.scale_factor, return_dict=False)[0].clamp(-1, 1))
        return []

    monkeypatch.setattr(tasks, "decode", decode)

    def made(model: Model, steps: int = 2) -> torch.Tensor:
        tasks.make(model.pipe, [recipe_for(model, steps)], {}, Silent())
        return caught[-1]

    yield made


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("id", ["sd1", "sd2", "sdxl"])
def test_a_picture_is_that_of_the_definition(
    id: str, kind: str, models: Callable[[str], Model], picture: Callable[..., torch.Tensor], tmp_path: Path
) -> None:
    model = models(id)
    plain = picture(model)
    changes = changes_of(model, kind)
    assert len(changes) > 5 and (kind in ("norm", "tucker") or {place.part for place in changes} == model.parts)
    path = write(tmp_path / "it.safetensors", changes)
    for strength in (1.0, 0.6):
        take_away = attach(model.pipe, model.attachment(path, weight=strength), Silent())
        model.pipe.settle()
        made = picture(model)
        take_away()
        model.pipe.settle()

        originals = {key: weight.data for key, weight in model.weights.items()}
        for place, change in changes.items():
            weight = model.weights[place.part, place.name]
            weight.data = change.define(weight.data.double(), strength).float()
        model.pipe.prompts.forget()
        expected = picture(model)
        for key, weight in model.weights.items():
            weight.data = originals[key]
        model.pipe.prompts.forget()
        assert (made - expected).abs().max() < 1e-4
        assert (made - plain).abs().max() > 0.01
    assert torch.equal(picture(model), plain)


@pytest.mark.slow
@pytest.mark.parametrize("id", ["sd1", "sd2", "sdxl"])
def test_taken_away_in_any_order_every_weight_is_equal_to_the_bit(
    id: str, models: Callable[[str], Model], tmp_path: Path
) -> None:
    model, order = models(id), random.Random(0)
    files = {
        kind: write(tmp_path / f"{kind}.safetensors", changes_of(model, kind, seed)) for seed, kind in enumerate(KINDS)
    }
    before = {key: (weight.data_ptr(), weight.data.clone()) for key, weight in model.weights.items()}
    held: dict[str, Callable[[], None]] = {}
    changed = 0
    for _ in range(100):
        kind = order.choice(list(KINDS))
        if kind in held:
            held.pop(kind)()
        else:
            what = model.attachment(files[kind], weight=order.choice([1.0, -0.5]))
            held[kind] = attach(model.pipe, what, Silent())
        if order.random() < 0.5:
            model.pipe.settle()
            changed += any(weight.data_ptr() != before[key][0] for key, weight in model.weights.items())
    assert changed > 30
    for take_away in order.sample(list(held.values()), len(held)):
        take_away()
    model.pipe.settle()
    for key, weight in model.weights.items():
        assert weight.data_ptr() == before[key][0] and torch.equal(weight.data, before[key][1])
    assert model.pipe.patcher.bytes == 0


def test_several_change_a_weight_one_after_the_other_whatever_was_there_before(
    models: Callable[[str], Model], tmp_path: Path
) -> None:
    model = models("sd1")
    one = changes_of(model, "lora", 0)
    two = {place: KINDS["dora"](place.shape, torch.Generator().manual_seed(9)) for place in one}
    paths = write(tmp_path / "one.safetensors", one), write(tmp_path / "two.safetensors", two)
    made = []
    for before in (0, 1):  # where another was attached first, and taken away
        gone = attach(model.pipe, model.attachment(paths[1], weight=2.0), Silent()) if before else lambda: None
        model.pipe.settle()
        gone()
        held = [
            attach(model.pipe, model.attachment(path, weight=strength), Silent())
            for path, strength in zip(paths, (1.0, 0.5), strict=True)
        ]
        model.pipe.settle()
        made.append({place: model.weights[place.part, place.name].data.clone() for place in one})
        for take_away in held:
            take_away()
        model.pipe.settle()
    for place in one:
        assert torch.equal(made[0][place], made[1][place])
        first = one[place].define(model.weights[place.part, place.name].data.double(), 1.0)
        expected = two[place].define(first, 0.5)
        assert (made[0][place] - expected).abs().max() < 1e-5


def test_a_part_and_a_block_have_strengths_of_their_own(models: Callable[[str], Model], tmp_path: Path) -> None:
    model = models("sd1")
    changes = changes_of(model, "lora")
    path = write(tmp_path / "it.safetensors", changes)
    anatomy = family("sd1").anatomy
    assert anatomy is not None
    blocks = {place: anatomy.block(model.match, place.tensor) for place in changes}
    chosen = next(block for block in blocks.values() if block.startswith("IN"))
    use = {"weight": 1.0, "unet": 0.5, "blocks": {chosen: 0.1, "BASE": 2.0}}
    take_away = attach(model.pipe, model.attachment(path, **use), Silent())
    model.pipe.settle()
    made = {place: model.weights[place.part, place.name].data.clone() for place in changes}
    take_away()
    model.pipe.settle()
    for place, change in changes.items():
        strength = 2.0 if place.part == "text_encoder" else 0.05 if blocks[place] == chosen else 0.5
        expected = change.define(model.weights[place.part, place.name].data.double(), strength)
        assert (made[place] - expected).abs().max() < 1e-5


def test_it_works_from_one_step_to_another(
    models: Callable[[str], Model],
    picture: Callable[..., torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Which weights the network has at each call; a part of the steps that is all of them is no other picture."""
    model = models("sd1")
    changes = changes_of(model, "lora")
    path = write(tmp_path / "it.safetensors", changes)
    place = next(place for place in changes if place.part == "unet")
    text = next(place for place in changes if place.part == "text_encoder")
    weight, of_text = model.weights[place.part, place.name], model.weights[text.part, text.name]
    own = weight.data_ptr()
    seen: list[bool] = []
    hook = model.pipe.unet.register_forward_pre_hook(lambda *_: seen.append(weight.data_ptr() != own))
    pictures = {}
    for start, end in ((0.0, 1.0), (0.25, 0.5), (0.0, 0.5), (0.5, 1.0), (0.0, 0.0)):
        take_away = attach(model.pipe, model.attachment(path, start=start, end=end), Silent())
        model.pipe.settle()
        seen.clear()
        pictures[start, end] = picture(model, 4)
        assert seen == [start <= step / 4 < end for step in range(4)]
        take_away()
        model.pipe.settle()
    hook.remove()
    assert torch.equal(pictures[0.0, 0.0], picture(model, 4))
    assert len({tuple(it.flatten().tolist()) for it in pictures.values()}) == 5
    # The words are read as the text encoder is at that part of the steps.
    encoded: list[bool] = []
    usual = of_text.data_ptr()
    model.pipe.text_encoders[0].model.register_forward_pre_hook(lambda *_: encoded.append(of_text.data_ptr() != usual))
    take_away = attach(model.pipe, model.attachment(path, start=0.5), Silent())
    model.pipe.settle()
    model.pipe.prompts.forget()
    picture(model, 4)
    take_away()
    model.pipe.settle()
    assert set(encoded) == {False, True}


def test_what_has_no_place_is_told_in_one_note(models: Callable[[str], Model], tmp_path: Path) -> None:
    model, heard = models("sd1"), Silent()
    changes = changes_of(model, "lora")
    tensors = {f"{place.key}.{end}": it for place, change in changes.items() for end, it in change.tensors.items()}
    tensors |= {f"lora_unet_nobody_{number}.lora_up.weight": torch.ones(2, 2) for number in range(5)}
    safetensors.write(tmp_path / "it.safetensors", rows(tensors))
    attach(model.pipe, model.attachment(tmp_path / "it.safetensors"), heard)()
    names = ", ".join(f"'lora_unet_nobody_{number}.lora_up.weight'" for number in range(3))
    assert heard.heard == [Note(f"it: not used: {names} and 2 more")]


def test_a_pattern_of_peft_that_is_not_used_is_told(models: Callable[[str], Model], tmp_path: Path) -> None:
    model, heard = models("sd1"), Silent()
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
    out, incoming = model.places["unet", f"{name}.weight"].shape
    tensors = {f"unet.{name}.lora_B.weight": torch.ones(out, 1), f"unet.{name}.lora_A.weight": torch.ones(1, incoming)}
    told = {"unet.r": 1, "unet.lora_alpha": 2, "unet.alpha_pattern": {"(?=to)to_q": 9}}
    safetensors.write(tmp_path / "it.safetensors", rows(tensors), {"lora_adapter_metadata": json.dumps(told)})
    attach(model.pipe, model.attachment(tmp_path / "it.safetensors"), heard)()
    what = "its config gives strengths for modules by patterns that can't be matched here, so not used: '(?=to)to_q'"
    assert heard.heard == [Note(f"it: {what}")]


def test_oft_of_peft_is_of_no_use_without_its_config(models: Callable[[str], Model], tmp_path: Path) -> None:
    model = models("sd1")
    name = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.oft_R.weight"
    safetensors.write(tmp_path / "it.safetensors", rows({name: torch.zeros(1, 28)}))
    what = model.attachment(tmp_path / "it.safetensors")
    assert adapter.unfit(what).startswith("how it turns weights stands in the config that peft saves with it")
    take_away = attach(model.pipe, what, Silent())
    with pytest.raises(FileError, match="the config that peft saved with it is missing"):
        model.pipe.settle()
    take_away()
    model.pipe.settle()


def test_what_does_not_fit_is_known_by_names_and_shapes(models: Callable[[str], Model], tmp_path: Path) -> None:
    sd1, sdxl = models("sd1"), models("sdxl")
    other = write(tmp_path / "xl.safetensors", changes_of(sdxl, "lora"))
    assert "have no place in the model" in adapter.unfit(sd1.attachment(other)) or "changes a weight" in adapter.unfit(
        sd1.attachment(other)
    )
    fitting = write(tmp_path / "it.safetensors", changes_of(sd1, "lora"))
    assert adapter.unfit(sd1.attachment(fitting)) == ""
    for kind in KINDS:
        assert adapter.unfit(sd1.attachment(write(tmp_path / "k.safetensors", changes_of(sd1, kind)))) == ""


def test_numbers_that_are_none_are_refused_and_nothing_stays_attached(
    models: Callable[[str], Model], tmp_path: Path
) -> None:
    model = models("sd1")
    changes = changes_of(model, "lora")
    next(iter(changes.values())).tensors["lora_up.weight"].fill_(float("nan"))
    path = write(tmp_path / "it.safetensors", changes)
    before = {key: weight.data_ptr() for key, weight in model.weights.items()}
    take_away = attach(model.pipe, model.attachment(path), Silent())
    with pytest.raises(FileError, match=r"it.safetensors: has numbers for .* that are none \(NaN\); get it again"):
        model.pipe.settle()
    take_away()
    model.pipe.settle()
    assert {key: weight.data_ptr() for key, weight in model.weights.items()} == before


def test_memory_is_weighed_as_it_is_taken(models: Callable[[str], Model], tmp_path: Path) -> None:
    model = models("sd1")
    one = write(tmp_path / "one.safetensors", changes_of(model, "lora"))
    what = model.attachment(one)
    weighed = adapter.weigh(what, dict.fromkeys(("unet", "text_encoder"), "float32"))
    held = [attach(model.pipe, what, Silent()) for _ in range(2)]
    model.pipe.settle()
    assert model.pipe.patcher.bytes == sum(weighed.values()) > 0
    for take_away in held:
        take_away()
    model.pipe.settle()


def test_a_weight_is_computed_in_float32_and_rounded_once(tmp_path: Path) -> None:
    face = family("sd1")
    header = read_header(toy.write_single_file(tmp_path / "toy.safetensors", "sd1", dtype="float32"))
    match = face.recognise(header)
    assert match is not None
    pipe = face.load(header, match, choose("cpu", "bfloat16"), lambda done, total: None)
    model = Model("sd1", header, match, pipe)
    changes = changes_of(model, "lora")
    attach(pipe, model.attachment(write(tmp_path / "it.safetensors", changes)), Silent())
    before = {place: model.weights[place.part, place.name].data.clone() for place in changes}
    pipe.settle()
    for place, change in changes.items():
        exact = change.define(before[place].double(), 1.0)
        made = model.weights[place.part, place.name].data
        assert made.dtype == torch.bfloat16
        # Nothing nearer can be written in bfloat16, but for what float32 leaves open half way between two numbers.
        nearest = (exact.bfloat16().double() - exact).abs()
        assert ((made.double() - exact).abs() - nearest).max() < 1e-6
