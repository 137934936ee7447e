"""On a device too small for all of a model its parts take turns, and the picture is the same to the byte."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from test_lora import write_lora
from test_words import write_embedding, write_hypernetwork, write_vae
from torch import nn

from bottega.errors import OutOfMemory
from bottega.events import Event, Made, Note, Step
from bottega.families._stable_diffusion.toy import write_single_file
from bottega.recipe import Recipe, Ref, Sampling, Size, Use
from bottega.runtime import turns
from bottega.runtime.plan import WAITING, MemoryPlan
from bottega.runtime.turns import Turns
from bottega.settings import Settings
from bottega.workbench import Workbench

BESIDE, ALL = WAITING[1], WAITING[2]
ROOM = 1 << 40


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny checkpoint of each family."""
    folder = tmp_path_factory.mktemp("toys")
    return {id: write_single_file(folder / f"{id}.safetensors", id) for id in ("sd1", "sd2", "sdxl")}


class Small:
    """A workbench on a device of this machine, taken for one that has memory of its own, and little of it."""

    def __init__(self, home: Path, device: str = "cpu") -> None:
        settings = Settings(home=home, outputs=home / "outputs", device=device)
        here = Workbench(settings).facts
        self.memory, self.waiting = ROOM, ROOM
        self.bench = Workbench(settings, facts=lambda: replace(here, free=self.free, waiting=self.waiting))

    @property
    def free(self) -> int:
        return self.memory - sum(model["bytes"] for model in self.bench.loaded)

    def fit(self, recipe: Recipe, away: frozenset[str]) -> MemoryPlan:
        """Have just so much memory that these parts have to wait."""
        self.memory = ROOM
        whole = self.bench.memory_plan(recipe)
        plan = replace(whole, away=away & whole.weights.keys())
        self.memory = plan.needed
        return plan

    def make(self, recipe: Recipe) -> tuple[bytes, list[Event]]:
        events = list(self.bench.run(recipe, previews=True))
        (made,) = (event for event in events if isinstance(event, Made))
        with Image.open(made.path) as picture:
            return picture.tobytes(), events

    @property
    def pipe(self) -> Any:
        (loaded,) = self.bench._loader.kept.loaded.values()
        return loaded.pipe


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Small]:
    made = Small(tmp_path / "home")
    yield made
    made.bench.let_go()


def draft(model: Path, **fields: Any) -> Recipe:
    sampling = Sampling(**{"steps": 4, "seed": 3, **fields.pop("sampling", {})})
    given = {"prompt": "a house", "model": Ref(name=str(model)), "size": Size(width=64, height=64), **fields}
    return Recipe(knobs={"precision": "float32", "vae_tiling": "off"}, sampling=sampling, **given)


def networks(pipe: Any) -> dict[str, nn.Module]:
    return {"unet": pipe.unet, "vae": pipe.vae, **{each.part: each.model for each in pipe.text_encoders}}


def lies(network: nn.Module) -> list[int]:
    return [parameter.data_ptr() for parameter in network.parameters()]


def loads(events: list[Event]) -> int:
    return sum(isinstance(event, Step) and event.phase == "load" and event.done == 0 for event in events)


@pytest.mark.slow
@pytest.mark.parametrize("id", ["sd1", "sd2", "sdxl"])
def test_the_picture_is_the_same_wherever_parts_wait(id: str, small: Small, toys: dict[str, Path]) -> None:
    recipe = small.bench.resolve(draft(toys[id], prompt="a (house:1.2) [and|or] a tree", negative="rain"))
    made = {}
    for away in (frozenset[str](), BESIDE, ALL):
        small.bench.let_go()
        plan = small.fit(recipe, away)
        assert small.bench.memory_plan(recipe).away == plan.away
        made[away], events = small.make(recipe)
        assert loads(events) == 1 and small.pipe.place.away == plan.away
        assert any("take turns" in event.text for event in events if isinstance(event, Note)) == bool(away)
    assert len(set(made.values())) == 1


@pytest.mark.slow
@pytest.mark.parametrize("away", [BESIDE, ALL], ids=["beside", "all"])
def test_one_turn_is_on_the_device_at_a_time_and_none_at_the_end(
    away: frozenset[str], small: Small, toys: dict[str, Path]
) -> None:
    recipe = small.bench.resolve(draft(toys["sdxl"]))
    small.fit(recipe, away)
    small.make(recipe)
    parts = {name: network for name, network in networks(small.pipe).items() if name in away}
    waiting = {name: lies(network) for name, network in parts.items()}
    seen = []

    def looked(name: str) -> Any:
        def look(*_: Any) -> None:
            here = frozenset(name for name, network in parts.items() if lies(network) != waiting[name])
            sizes = [parameter.nbytes for name in here for parameter in parts[name].parameters()]
            assert small.pipe.moved == sum(sizes)
            seen.append((name, here))

        return look

    for name, network in networks(small.pipe).items():
        (network.decoder if name == "vae" else network).register_forward_hook(looked(name))
    small.pipe.preview_map = None  # it is made with the VAE, while the UNet is at work
    small.make(small.bench.resolve(draft(toys["sdxl"], prompt="a tree", sampling={"seed": 4})))
    encoders = frozenset({"text_encoder", "text_encoder_2"})
    assert set(seen) == {
        ("text_encoder", encoders),
        ("text_encoder_2", encoders),
        ("unet", frozenset({"unet"}) & away),
        ("vae", frozenset({"vae"})),
    }
    assert {name: lies(network) for name, network in parts.items()} == waiting


@pytest.mark.slow
def test_what_stays_is_not_moved(small: Small, toys: dict[str, Path]) -> None:
    recipe = small.bench.resolve(draft(toys["sd1"]))
    small.fit(recipe, BESIDE)
    small.make(recipe)
    stays, moved = lies(small.pipe.unet), set[bool]()
    small.pipe.unet.register_forward_hook(lambda *_: moved.add(lies(small.pipe.unet) != stays))
    small.make(recipe)
    assert moved == {False}


@pytest.mark.slow
def test_a_part_is_not_moved_for_what_is_remembered(
    small: Small, toys: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small.bench.resolve(draft(toys["sd1"]))
    small.fit(recipe, ALL)
    small.make(recipe)
    brought, bring = [], Turns._bring
    monkeypatch.setattr(Turns, "_bring", lambda self: (brought.extend(self._here), bring(self))[1])
    small.make(recipe)
    assert brought == [small.pipe.unet, small.pipe.vae]


@pytest.mark.slow
def test_adapters_change_what_waits_and_go_to_the_bit(small: Small, toys: dict[str, Path], tmp_path: Path) -> None:
    shelf = tmp_path / "home" / "models"
    write_lora(shelf / "neon.safetensors", toys["sd1"])
    write_hypernetwork(shelf / "hyper.pt")
    write_embedding(shelf / "lighthouse.safetensors")
    vae = write_vae(shelf / "other.vae.safetensors")
    prompts = (
        "a house",
        "a house <lora:neon:1>",
        "a lighthouse <lora:neon:0.5><hypernet:hyper:0.7>",
        "a house",
    )
    made: dict[frozenset[str], list[bytes]] = {}
    for away in (frozenset[str](), BESIDE, ALL):
        small.bench.let_go()
        made[away] = []
        for prompt in prompts:
            recipe = small.bench.resolve(draft(toys["sd1"], prompt=prompt))
            plan = small.fit(recipe, away)
            picture, events = small.make(recipe)
            made[away].append(picture)
            assert small.pipe.place.away == plan.away
            assert loads(events) == (len(made[away]) == 1)
        late = Use(kind="lora", ref=Ref(name="neon"), start=0.5)
        other = Use(kind="vae", ref=Ref(name=str(vae)))
        recipe = small.bench.resolve(draft(toys["sd1"], adapters=(late, other)))
        small.fit(recipe, away)
        made[away].append(small.make(recipe)[0])
    plain, *others = made.values()
    assert plain[0] == plain[3] and len(set(plain)) == 4
    assert all(pictures == plain for pictures in others)


@pytest.mark.slow
def test_a_picture_to_begin_with_is_encoded_in_the_turn_of_the_vae(
    small: Small, toys: dict[str, Path], tmp_path: Path
) -> None:
    for name, colours in (("init", "RGB"), ("mask", "L")):
        Image.linear_gradient("L").convert(colours).resize((64, 64)).save(tmp_path / f"{name}.png")
    kept = tuple(small.bench.keep_input(tmp_path / f"{name}.png", name) for name in ("init", "mask"))
    asked = draft(toys["sd1"], task="inpaint", inputs=kept, sampling={"strength": 0.8})
    recipe = small.bench.resolve(asked)
    made = set()
    for away in (frozenset[str](), ALL):
        small.bench.let_go()
        small.fit(recipe, away)
        made.add(small.make(recipe)[0])
    assert len(made) == 1


# --- the plan --------------------------------------------------------------------------------------------------------


def test_as_little_waits_as_can(small: Small, toys: dict[str, Path]) -> None:
    recipe = small.bench.resolve(draft(toys["sdxl"]))
    room = {away: small.fit(recipe, away).needed for away in WAITING}
    assert room[ALL] < room[BESIDE] < room[WAITING[0]]
    for away, needed in room.items():
        small.memory = needed
        assert small.bench.memory_plan(recipe).away == away
        small.memory = needed - 1
        assert small.bench.memory_plan(recipe).away != away or away == ALL
    plan = small.bench.memory_plan(recipe)
    assert not plan.fits
    assert plan.waiting == sum(plan.weights.values()) and plan.staying == 0


@pytest.mark.slow
def test_nothing_waits_where_there_is_no_memory_to_wait_in(small: Small, toys: dict[str, Path]) -> None:
    recipe = small.bench.resolve(draft(toys["sd1"]))
    plan = small.fit(recipe, ALL)
    small.waiting = plan.waiting - 1
    assert not small.bench.memory_plan(recipe).fits
    with pytest.raises(OutOfMemory):
        small.make(recipe)
    small.waiting = plan.waiting
    assert small.bench.memory_plan(recipe).fits


def test_a_processor_has_nowhere_else_to_wait(tmp_path: Path) -> None:
    assert Workbench(Settings(home=tmp_path, outputs=tmp_path, device="cpu")).facts.waiting == 0


@pytest.mark.slow
def test_a_model_stays_as_it_is_while_that_does(small: Small, toys: dict[str, Path]) -> None:
    one, larger = (small.bench.resolve(draft(toys["sd1"], size=Size(width=side, height=side))) for side in (64, 128))
    small.fit(larger, ALL)
    assert loads(small.make(larger)[1]) == 1
    small.memory = ROOM
    assert loads(small.make(one)[1]) == loads(small.make(larger)[1]) == 0
    assert small.pipe.place.away == ALL - {"text_encoder_2"}
    small.bench.let_go()
    assert loads(small.make(one)[1]) == 1 and small.pipe.place.away == frozenset()
    small.fit(larger, ALL)
    assert loads(small.make(larger)[1]) == 1 and small.pipe.place.away == ALL - {"text_encoder_2"}


@pytest.mark.slow
def test_what_waits_is_not_counted_as_held(small: Small, toys: dict[str, Path]) -> None:
    recipe = small.bench.resolve(draft(toys["sd1"]))
    for away in (ALL, BESIDE):
        small.bench.let_go()
        plan = small.fit(recipe, away)
        small.make(recipe)
        (told,) = small.bench.loaded
        assert told["bytes"] == plan.staying == (0 if away == ALL else plan.weights["unet"])


def two_that_take_turns() -> tuple[nn.Linear, nn.Linear, Turns]:
    one, two = nn.Linear(8, 8).requires_grad_(False), nn.Linear(8, 8).requires_grad_(False)
    return one, two, Turns([[one], [two]], torch.device("cpu"))


def test_weights_on_the_device_are_in_one_piece_of_memory() -> None:
    one, two, _ = two_that_take_turns()
    kept = [parameter.clone() for parameter in one.parameters()]
    one(torch.zeros(1, 8))
    storages = {parameter.untyped_storage().data_ptr() for parameter in one.parameters()}
    assert len(storages) == 1
    two(torch.zeros(1, 8))
    assert storages.isdisjoint(parameter.untyped_storage().data_ptr() for parameter in one.parameters())
    assert all(map(torch.equal, one.parameters(), kept))


def test_what_is_put_in_a_weights_place_is_copied_while_that_is_on_the_device() -> None:
    one, two, both = two_that_take_turns()
    new = torch.ones(8, 8)
    one(torch.zeros(1, 8))
    place = one.weight.data_ptr()
    for linear in (one, two):
        both.put(linear.weight, new)
        assert both.weight(linear.weight) is new
    assert torch.equal(one.weight, new) and one.weight.data_ptr() == place, "it has room there already"
    assert two.weight.data_ptr() == new.data_ptr()
    two(torch.zeros(1, 8))
    assert one.weight.data_ptr() == new.data_ptr() != two.weight.data_ptr() and torch.equal(two.weight, new)
    both.leave()
    assert two.weight.data_ptr() == new.data_ptr()


def test_what_has_come_goes_again_where_there_is_no_room_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = nn.Linear(8, 8).requires_grad_(False), nn.Linear(8, 8).requires_grad_(False)
    Turns([[one, two]], torch.device("cpu"))
    waiting, asked, gathered = lies(one) + lies(two), [], turns.gathered

    def full(*told: Any) -> Any:
        asked.append(told)
        if len(asked) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return gathered(*told)

    monkeypatch.setattr(turns, "gathered", full)
    with pytest.raises(torch.OutOfMemoryError):
        one(torch.zeros(1, 8))
    assert len(asked) == 2 and lies(one) + lies(two) == waiting
    one(torch.zeros(1, 8))
    assert len(asked) == 4 and set(lies(one) + lies(two)).isdisjoint(waiting)
