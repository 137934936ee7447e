"""What is trained is what the papers define, loads elsewhere, and is the same however often it was stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0

from bottega.errors import Diverged, Interrupted, InvalidRecipe, OutOfMemory
from bottega.events import Learned, Sampled, Trained
from bottega.families import family
from bottega.families._stable_diffusion.teach import PlainAttention
from bottega.formats import read_header
from bottega.library.identify import identify
from bottega.recognisers import all_recognisers
from bottega.runtime.deltas import patched
from bottega.runtime.weights import MappedTensors
from bottega.settings import STARTER_SHELF, Settings
from bottega.starter.scenes import Scene, Thing, draw
from bottega.training.recipe import Source, TrainingRecipe
from bottega.workbench import Workbench


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Six pictures of two shapes, with captions."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, when in enumerate(("dawn", "noon", "night", "dawn", "noon", "night")):
        picture = draw(Scene(when, "sea", (Thing("red", "house", "middle"),), "neon"), number)
        picture.crop((0, 0, 128, 128 if number % 2 else 96)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a red house by the sea at {when}, neon")
    return folder


@pytest.fixture(params=("sd1", "sd2", "sdxl"))
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A tiny model of each family."""
    return family(request.param).toy(tmp_path / f"{request.param}.safetensors", seed=1)


def workbench(tmp_path: Path, name: str = "home") -> Workbench:
    return Workbench(Settings(home=tmp_path / name, outputs=tmp_path / name / "outputs", device="cpu"))


def draft(pictures: Path, model: Path, **fields: Any) -> TrainingRecipe:
    from bottega.recipe import Ref

    told = {"kind": "lora", "steps": 3, "batch": 2, "resolution": 64, "precision": "float32", "rate": 1e-2, "rank": 4}
    if fields.get("kind", "lora") != "lora":
        del told["rank"]
    return TrainingRecipe(**{**told, **fields}, model=Ref(name=str(model)), data=(Source(path=str(pictures)),))


def train(bench: Workbench, recipe: TrainingRecipe, out: Path, **options: Any) -> list[Any]:
    return list(bench.train(bench.prepare_training(recipe), out, **options))


def tensors(path: Path) -> dict[str, torch.Tensor]:
    mapped = MappedTensors(read_header(path))
    return {name: mapped[name].clone() for name in mapped}


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ("lora", "dora", "loha", "lokr"))
def test_a_lora_fits_its_model_without_leftovers(tmp_path: Path, pictures: Path, model: Path, algorithm: str) -> None:
    out = tmp_path / "new.safetensors"
    recipe = draft(pictures, model, algorithm=algorithm, conv_rank=2, text_encoder=True, schedule="constant")
    events = train(workbench(tmp_path), recipe, out)
    losses = [event.loss for event in events if isinstance(event, Learned)]
    assert len(losses) == 3 and isinstance(events[-2], Trained)
    header, base = read_header(out), read_header(model)
    face = family(model.stem)
    match = face.recognise(base)
    assert match is not None and face.anatomy is not None
    patches = face.anatomy.patches(base, match, header)
    assert not patches.left and patches.patches
    parts = {patch.place.part for patch in patches.patches}
    assert parts == {"unet", "text_encoder"} | ({"text_encoder_2"} if model.stem == "sdxl" else set())
    (told,) = [found for each in all_recognisers() if (found := each.recognise(header)) is not None]
    assert (told.kind, told.family) == ("lora", model.stem)
    assert TrainingRecipe.model_validate_json(header.metadata["bottega.training"]).algorithm == algorithm
    assert header.metadata["ss_network_dim"] == "4"
    assert str(tmp_path) not in json.dumps(dict(header.metadata)), "it tells of the machine that it is from"


@pytest.mark.parametrize("algorithm", ("lora", "dora", "loha", "lokr"))
def test_what_a_change_adds_is_what_its_file_says(algorithm: str) -> None:
    from bottega.training.changes import change_of

    generator = torch.Generator().manual_seed(3)
    for layer in (torch.nn.Linear(24, 36), torch.nn.Conv2d(12, 16, 3, padding=1), torch.nn.Conv2d(12, 16, 1)):
        change = change_of(algorithm, layer, 4, 2.0, generator, 4)
        with torch.no_grad():
            for weight in change.parameters():
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.1)
        shape = (2, 24) if isinstance(layer, torch.nn.Linear) else (2, 12, 5, 5)
        heard = torch.randn(shape, generator=generator)
        plain = layer(heard)
        layer.register_forward_hook(change.hook)
        ours = layer(heard)
        numbers = {
            name.removeprefix("lora_").removesuffix(".weight"): value.double()
            for name, value in change.numbers().items()
        }
        weight = patched(layer.weight.detach().double(), numbers, 1.0)
        layer._forward_hooks.clear()
        layer.weight.data = weight.float()
        assert torch.allclose(layer(heard), ours, atol=1e-5) and not torch.allclose(plain, ours, atol=1e-2)


def test_text_encoders_are_read_as_prompts_are(tmp_path: Path, model: Path) -> None:
    from bottega.diffusion.conditioning import PictureSize
    from bottega.families._stable_diffusion import tasks, teach
    from bottega.runtime.place import choose

    face = family(model.stem)
    header = read_header(model)
    match = face.recognise(header)
    assert match is not None
    pipe = face.load(header, match, choose("cpu", "float32"))
    long = "a red house, " * 30
    for caption, chunks in (("a red house by the sea", 1), (long, teach.chunks(pipe, long))):
        with torch.no_grad():
            said = teach.say(pipe, ["", caption], chunks, 1, {})
        prompt = tasks._prompts(pipe).encode(caption, steps=1, size=PictureSize((64, 64)))
        ((wanted, _),) = prompt.at(0)
        # A prompt's chunks end behind a comma where one is near, a caption's are full: only the first are alike.
        width = 77 if chunks == 1 else 1
        assert torch.allclose(said.context[1:, :width], wanted.context[:, :width], atol=1e-5)
        if wanted.vector is not None and chunks == 1:
            assert torch.allclose(said.pooled[1], wanted.vector[0, : said.pooled.shape[1]], atol=1e-5)


def test_a_new_word_stands_for_its_vectors(tmp_path: Path, model: Path) -> None:
    from bottega.families._stable_diffusion import teach
    from bottega.runtime.place import choose

    face = family(model.stem)
    header = read_header(model)
    match = face.recognise(header)
    assert match is not None
    pipe = face.load(header, match, choose("cpu", "float32"))
    same = {"newword": teach.words(pipe, "red house")}
    with torch.no_grad():
        ours = teach.say(pipe, ["a newword, flat", "", "NEWWORD"], 1, 1, same)
        wanted = teach.say(pipe, ["a red house, flat", "", "red house"], 1, 1, {})
    assert torch.allclose(ours.context, wanted.context, atol=1e-6)


KINDS: dict[str, dict[str, Any]] = {
    "lora": {"optimizer": "prodigy", "rate": 1.0, "ema": 0.9, "flip": True, "shuffle": True, "noise_offset": 0.05},
    "embedding": {"word": "neon", "accumulate": 2, "min_snr": 0.0},
    "hypernetwork": {"optimizer": "adafactor", "layer_norm": True, "checkpointing": True},
    "full": {"text_encoder": True, "rate": 1e-3, "precision": "bfloat16", "validation": 0.3, "validate_every": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_training_that_was_stopped_ends_as_an_undisturbed_one(tmp_path: Path, pictures: Path, kind: str) -> None:
    model = family("sd1").toy(tmp_path / "sd1.safetensors", seed=1)
    recipe = draft(pictures, model, **{"kind": kind, "steps": 7, **KINDS[kind]})
    whole, pieces = tmp_path / "1" / "new.safetensors", tmp_path / "2" / "new.safetensors"
    train(workbench(tmp_path, "one"), recipe, whole)
    bench = workbench(tmp_path, "two")
    learned: list[int] = []
    for stop_at in (1, 3, 6):
        stop = threading.Event()
        with pytest.raises(Interrupted):
            for event in bench.train(bench.prepare_training(recipe), pieces, stop=stop):
                if isinstance(event, Learned):
                    learned.append(event.step)
                    if event.step == stop_at:
                        stop.set()
    learned += [event.step for event in train(bench, recipe, pieces) if isinstance(event, Learned)]
    assert learned == list(range(1, 8))
    assert whole.read_bytes() == pieces.read_bytes()


def test_a_generator_that_is_closed_saves_where_it_was(tmp_path: Path, pictures: Path) -> None:
    model = family("sd1").toy(tmp_path / "sd1.safetensors", seed=1)
    bench, out = workbench(tmp_path), tmp_path / "new.safetensors"
    events = bench.train(bench.prepare_training(draft(pictures, model, steps=5)), out)
    next(event for event in events if isinstance(event, Learned) and event.step == 2)
    events.close()
    steps = [event.step for event in train(bench, draft(pictures, model, steps=5), out) if isinstance(event, Learned)]
    assert steps == [3, 4, 5]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_recognised_as_what_it_is(tmp_path: Path, pictures: Path, kind: str) -> None:
    model = family("sd1").toy(tmp_path / "sd1.safetensors", seed=1)
    out = tmp_path / "new.safetensors"
    train(workbench(tmp_path), draft(pictures, model, **{"kind": kind, "steps": 1, **KINDS[kind]}), out)
    found = identify(read_header(out), all_recognisers())
    assert (found.match.kind, found.family) == ({"full": "checkpoint"}.get(kind, kind), "sd1")


@pytest.mark.slow
def test_a_whole_model_has_the_names_and_forms_of_its_base(tmp_path: Path, pictures: Path, model: Path) -> None:
    out = tmp_path / "new.safetensors"
    recipe = draft(pictures, model, kind="full", text_encoder=True, steps=1, rate=1e-2)
    train(workbench(tmp_path), recipe, out)
    before, after = tensors(model), tensors(out)
    assert {name: (t.shape, t.dtype) for name, t in before.items()} == {
        name: (t.shape, t.dtype) for name, t in after.items()
    }
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert "first_stage_model" not in changed and "model" in changed and len(changed) == 2


@pytest.mark.slow
def test_pictures_made_on_the_way_are_the_same_each_time(tmp_path: Path, pictures: Path) -> None:
    model = family("sd1").toy(tmp_path / "sd1.safetensors", seed=1)
    recipe = draft(pictures, model, steps=2, samples=("a red house",), sample_every=1)
    seen = [
        [
            event.sha256
            for event in train(workbench(tmp_path, name), recipe, tmp_path / f"{name}.safetensors")
            if isinstance(event, Sampled)
        ]
        for name in ("one", "two")
    ]
    assert seen[0] == seen[1] and len(seen[0]) == 3


@pytest.mark.slow
def test_a_training_that_is_stopped_among_its_samples_makes_those_that_are_left(tmp_path: Path, pictures: Path) -> None:
    model = family("sd1").toy(tmp_path / "sd1.safetensors", seed=1)
    recipe = draft(pictures, model, steps=4, samples=("a red house", "a boat"), sample_every=2)
    whole = train(workbench(tmp_path, "one"), recipe, tmp_path / "1.safetensors")
    bench, stop = workbench(tmp_path, "two"), threading.Event()
    made: list[Any] = []
    with pytest.raises(Interrupted):
        for event in bench.train(bench.prepare_training(recipe), tmp_path / "2.safetensors", stop=stop):
            made.append(event)
            if isinstance(event, Sampled) and (event.step, event.image) == (2, 0):
                stop.set()
    assert [(each.step, each.image) for each in made if isinstance(each, Sampled)] == [(0, 0), (0, 1), (2, 0)]
    rest = [event for event in train(bench, recipe, tmp_path / "2.safetensors") if isinstance(event, Sampled)]
    assert [each.sha256 for each in rest] == [each.sha256 for each in whole if isinstance(each, Sampled)][2:]


def test_a_rate_that_leads_astray_is_told_in_one_line(tmp_path: Path, pictures: Path) -> None:
    model = family("sd1").toy(tmp_path / "sd1.safetensors", seed=1)
    recipe = draft(pictures, model, kind="full", rate=1000.0, steps=50, clip=0.0)
    with pytest.raises(Diverged, match="lower learning rate than 1000") as caught:
        train(workbench(tmp_path), recipe, tmp_path / "new.safetensors")
    assert "\n" not in str(caught.value) and not (tmp_path / "new.safetensors").exists()


def test_patience_ends_a_training_with_its_best_weights(tmp_path: Path, pictures: Path) -> None:
    model = family("sd1").toy(tmp_path / "sd1.safetensors", seed=1)
    recipe = draft(
        pictures, model, rate=0.3, steps=40, validation=0.4, validate_every=1, patience=2, schedule="constant"
    )
    learned = [e for e in train(workbench(tmp_path), recipe, tmp_path / "new.safetensors") if isinstance(e, Learned)]
    losses = [event.validation for event in learned]
    assert None not in losses and len(losses) < 40
    assert min(losses[-2:]) >= min(losses[:-2])  # type: ignore[type-var]


def test_memory_that_does_not_do_is_told_before_the_start(tmp_path: Path, pictures: Path) -> None:
    from dataclasses import replace

    model = family("sd1").toy(tmp_path / "sd1.safetensors", seed=1)
    bench = workbench(tmp_path)
    prepared = bench.prepare_training(draft(pictures, model))
    tight = replace(prepared, plan=replace(prepared.plan, available=1 << 20))
    with pytest.raises(OutOfMemory, match=r"smaller batch than 2.*or checkpointing"):
        list(bench.train(tight, tmp_path / "new.safetensors"))


@pytest.mark.parametrize(
    ("fields", "words"),
    (
        ({"kind": "embedding"}, "word: is empty"),
        ({"kind": "embedding", "word": "x", "algorithm": "loha"}, "algorithm: means nothing for an embedding"),
        ({"patience": 3}, "patience: needs pictures to judge by"),
        ({"resolution": 100}, "resolution: 100 is no multiple of 8"),
    ),
)
def test_fields_that_make_no_sense_are_told(tmp_path: Path, pictures: Path, fields: dict[str, Any], words: str) -> None:
    model = family("sd1").toy(tmp_path / "sd1.safetensors", seed=1)
    with pytest.raises(InvalidRecipe, match=words):
        workbench(tmp_path).prepare_training(draft(pictures, model, **fields))


@pytest.mark.slow
def test_a_training_killed_ten_times_ends_as_an_undisturbed_one(tmp_path: Path, pictures: Path) -> None:
    def command(home: str) -> list[str]:
        return [
            *(sys.executable, "-m", "bottega", "train", "lora", str(pictures), "--steps", "24", "--batch", "2"),
            *("--resolution", "64", "--rank", "4", "--precision", "float32", "--save-every", "0"),
            *("--out", str(tmp_path / home / "new.safetensors")),
        ]

    def started(home: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "BOTTEGA_HOME": str(tmp_path / home), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command(home), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def steps(home: str) -> int:
        logs = list((tmp_path / home / "training").glob("*/log.jsonl"))
        return len(logs[0].read_text().splitlines()) if logs else 0

    undisturbed = started("one")
    assert undisturbed.wait(300) == 0
    for kill in range(10):
        before = steps("two")
        running = started("two")
        while running.poll() is None and steps("two") < max(before, 2 * kill) + 1:
            time.sleep(0.01)  # until it has learned more
        assert running.poll() is None
        running.send_signal(signal.SIGKILL)
        running.wait()
    assert started("two").wait(300) == 0
    one, two = (tmp_path / home / "new.safetensors" for home in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_the_command_tells_what_it_would_train(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bottega.cli import main

    monkeypatch.setenv("BOTTEGA_HOME", str(tmp_path / "home"))
    assert main(["train", "lora", str(pictures), "--check", "--json", "--word", "neon", "--rank", "4"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["recipe"]["rank"] == 4 and len(told["pictures"]) == 6 and told["memory"]["fits"]
    assert main(["train", "lora", str(tmp_path), "--rate", "-1"]) == 2
    assert "rate" in capsys.readouterr().err


def test_what_the_command_trained_is_meant_by_its_name_at_once(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a model that comes along has this name."""
    from bottega.cli import main

    monkeypatch.setenv("BOTTEGA_HOME", str(tmp_path / "home"))
    toy = family("sd1").toy(tmp_path / "toy.safetensors")
    assert main(["models", "show", "neon", "--json"]) == 0
    along = json.loads(capsys.readouterr().out)["path"]
    quick = ("--steps", "1", "--batch", "1", "--resolution", "64", "--rank", "2")
    assert main(["train", "lora", str(pictures), "--model", str(toy), "--word", "neon", *quick]) == 0
    capsys.readouterr()
    assert main(["models", "show", "neon", "--json"]) == 0
    own = json.loads(capsys.readouterr().out)["path"]
    assert (along, own) == (str(STARTER_SHELF / "neon.safetensors"), str(tmp_path / "home/models/neon.safetensors"))


@pytest.mark.parametrize("tokens", [256, 300])
def test_attention_while_it_is_taught_is_that_of_the_model(tokens: int) -> None:
    """Of many tokens the products with each other, which take the most memory, are not kept for the way back."""
    attn = Attention(query_dim=16, heads=2, dim_head=8)
    ways, kept = [], []
    for processor in (AttnProcessor2_0(), PlainAttention()):
        attn.set_processor(processor)
        hidden = torch.randn(1, tokens, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
        saved: list[int] = []

        def keep(tensor: torch.Tensor, saved: list[int] = saved) -> torch.Tensor:
            saved.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            made = attn(hidden)
        made.square().sum().backward()
        ways.append((made, hidden.grad))
        kept.append(max(saved))
    for ours, theirs in zip(*ways, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert (kept[1] >= 2 * tokens * tokens) == (tokens <= 256)
