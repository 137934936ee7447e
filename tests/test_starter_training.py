"""How starter-image is trained: processes that share the work do it as one would, and it goes on where it stopped."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bottega.families import sd1
from bottega.formats import read_header
from bottega.starter import learn_text, learn_unet, learn_vae, networks
from bottega.starter.captions import imagine_for, usual
from bottega.starter.crew import Crew, together
from bottega.starter.export import export
from bottega.starter.muon import Muon, orthogonal
from bottega.starter.progress import load, save
from bottega.starter.tokens import tokens
from bottega.starter.train import read_text, read_vae

CPU = torch.device("cpu")
MOMENT = 1e-12
"""Minutes: each training makes one step."""


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """A training of one thread, which takes over the signals that stop it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    torch.set_num_threads(threads)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_muon_steps_are_orthogonal() -> None:
    for shape in ((8, 32), (32, 8)):
        made = orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(1)))
        assert made.shape == shape
        assert all(0.6 < size < 1.3 for size in torch.linalg.svdvals(made).tolist())


def test_muon_decay_bounds_the_weights() -> None:
    weight = torch.nn.Parameter(torch.zeros(4, 4))
    tool = Muon([weight], lr=0.5, decay=0.5)
    for _ in range(60):
        weight.grad = torch.eye(4)
        tool.step()
    assert torch.linalg.matrix_norm(weight, 2) < 1.3 / 0.5


def _halves(crew: Crew, folder: Path) -> None:
    weights = [torch.nn.Parameter(torch.zeros(2, 3)), torch.nn.Parameter(torch.zeros(5))]
    for weight in weights:
        weight.grad = torch.full_like(weight, crew.rank + 1.0)
    crew.lead(over=crew.rank == 0, factor=0.25)
    word = crew.share_gradients(weights)
    parts = crew.divide(lambda part: part * 10, [torch.ones(2, 2), torch.full((3,), 2.0), torch.zeros(1)])
    means = {str(i): weight.grad for i, weight in enumerate(weights)}
    save({"means": means, "parts": parts, "word": list(word)}, folder / f"{crew.rank}.safetensors")


@pytest.mark.slow
def test_a_crew_means_gradients_and_divides_work(tmp_path: Path) -> None:
    together(Crew(2, 0, 11), _halves, tmp_path)
    for rank in (0, 1):
        told = load(tmp_path / f"{rank}.safetensors")
        assert [told["word"][i] for i in (0, 1)] == [True, 0.25]
        assert all((mean == 1.5).all() for mean in told["means"].values())
        assert [told["parts"][i].tolist() for i in range(3)] == [[[10, 10], [10, 10]], [20, 20, 20], [0]]


def test_checkpoints_keep_what_they_were_given(tmp_path: Path) -> None:
    tensors = {"a.b": torch.randn(3, 4).bfloat16(), "scalar": torch.tensor(7.0)}
    save(
        {"weights": tensors, "tools": [{0: {"momentum": torch.ones(2)}}], "step": 3, "spent": 1.5},
        tmp_path / "x.safetensors",
    )
    state = load(tmp_path / "x.safetensors")
    assert (state["step"], state["spent"]) == (3, 1.5)
    assert all(torch.equal(state["weights"][name], tensor) for name, tensor in tensors.items())
    assert state["tools"][0][0]["momentum"].tolist() == [1, 1]


def test_answers_name_what_stands_where() -> None:
    rng = random.Random(3)
    for _ in range(50):
        scene = imagine_for(rng, training=True)
        found = learn_text.answers(scene)
        sizes = [size for question in learn_text.QUESTIONS for size in question]
        assert all(0 <= choice < size for choice, size in zip(found, sizes, strict=True))
        assert len(scene.things) == sum(found[column] < sizes[column] - 1 for column in (3, 5, 7))


def test_tokens_fill_a_chunk() -> None:
    ids = tokens(["a red house", "", "house " * 100])
    assert ids.shape == (3, networks.TOKENS)
    assert ids[0, :5].tolist() == [networks.START_TOKEN, 320, 736, 1212, networks.END_TOKEN]
    assert (ids[1, 1:] == networks.END_TOKEN).all()
    assert ids[2, -1] == networks.END_TOKEN and ids[2, -2] != networks.END_TOKEN


@pytest.mark.slow
def test_every_stage_runs_resumes_and_ends_in_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learn_unet, "FIRST_SCENES", 64)
    crew = Crew(1, 256, 0)
    looks: list[int] = []
    for times in (1, 2):
        vae = learn_vae.settle(learn_vae.train(tmp_path, MOMENT, CPU), CPU, count=16)
        save(vae.state_dict(), tmp_path / "vae-settled.safetensors")
        text = learn_text.train(tmp_path, MOMENT, CPU)
        unet = learn_unet.train(
            read_vae(tmp_path / "vae-settled.safetensors", CPU),
            text, tmp_path, MOMENT, CPU, crew, lambda _, step: looks.append(step), look_every=0,
        )  # fmt: skip
        learn_vae.polish(crew, tmp_path, MOMENT, CPU)
        for stage in ("vae", "text", "unet", "polish"):
            assert load(tmp_path / f"{stage}.safetensors")["step"] == times
    assert looks == [1, 2]
    latents = load(tmp_path / "unet.safetensors")["latents"]
    assert latents.shape == (64 + 2 * learn_unet.GROWTH, 4, 16, 16) and latents.float().std() > 0.3

    save(text.state_dict(), tmp_path / "text-learned.safetensors")
    again = read_text(tmp_path / "text-learned.safetensors", CPU)
    polished = read_vae(tmp_path / "vae-polished.safetensors", CPU)
    export(polished, unet, again, tmp_path / "made.safetensors")
    match = sd1.family.recognise(read_header(tmp_path / "made.safetensors"))
    assert match is not None and set(match.parts) == {"unet", "vae", "text_encoder"}
    said = again(input_ids=tokens([usual(imagine_for(random.Random(1), training=False))])).last_hidden_state
    assert said.shape == (1, networks.TOKENS, networks.TEXT_WIDTH)
