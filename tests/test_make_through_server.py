"""`bottega make` and `bottega jobs` with a real server on the home, and without one: the same files, the same words."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_files import taesd, write_taesd
from conftest import Command, Ran
from PIL import Image
from running_server import Running, running

from bottega.cli.server import Server
from bottega.families._stable_diffusion.toy import write_single_file
from bottega.formats import safetensors
from bottega.gallery import Gallery
from bottega.jobs.job import MAKE, OWNER
from bottega.jobs.queue import Queue
from bottega.runtime.weights import rows

QUICK = ("--steps", 2, "--size", "64x64", "--seed", 7)


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that all tests of this module share."""
    with running(tmp_path_factory.mktemp("there") / "home") as server:
        yield server


@pytest.fixture
def through(there: Running, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`bottega WORDS...` on the server's home."""
    from bottega.cli import main

    def run(*words: object) -> Ran:
        monkeypatch.setenv("BOTTEGA_HOME", str(there.home))
        capsys.readouterr()
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def both(bottega: Command, home: Path, through: Command, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Ran]]:
    """The same command inline and through the server."""

    def run(*words: object) -> list[Ran]:
        monkeypatch.setenv("BOTTEGA_HOME", str(home))
        return [bottega(*words), through(*words)]

    return run


def command(there: Running, *words: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "BOTTEGA_HOME": str(there.home), "PYTHONPATH": os.pathsep.join(sys.path)}
    told = [sys.executable, "-m", "bottega", *map(str, words)]
    return subprocess.Popen(told, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_the_file_is_the_same_to_the_byte(both: Callable[..., list[Ran]], suffix: str, tmp_path: Path) -> None:
    contents = []
    out = tmp_path / f"out.{suffix}"
    for ran in both("make", "image", "a red house by the sea", *QUICK, "--count", 2, "--out", out):
        assert ran.code == 0, ran.err
        first, second = (tmp_path / f"out-{number}.{suffix}" for number in (1, 2))
        assert ran.out.split() == [str(first), str(second)]
        contents.append((first.read_bytes(), second.read_bytes()))
    assert contents[0] == contents[1]


@pytest.mark.slow
def test_what_is_told_is_the_same(both: Callable[..., list[Ran]], tmp_path: Path) -> None:
    init, mask = tmp_path / "init.png", tmp_path / "mask.png"
    Image.radial_gradient("L").resize((64, 64)).convert("RGB").save(init)
    Image.linear_gradient("L").resize((64, 64)).save(mask)
    inputs = ("--init", init, "--mask", mask, "--strength", 0.8)
    words = ("make", "image", "a tent", "--negative", "rain", *QUICK, *inputs, "--set", "clip-skip=2", "--json")
    here, there = both(*words, "--out", tmp_path / "out.png")
    assert here.json == there.json
    assert here.json["recipe"]["knobs"]["clip_skip"] == 2


@pytest.mark.slow
def test_words_and_vaes_mean_the_same(
    both: Callable[..., list[Ran]], home: Path, there: Running, tmp_path: Path
) -> None:
    vectors, vae = torch.randn((2, 128), generator=torch.Generator().manual_seed(1)), taesd()
    for shelf in (home / "models", there.home / "models"):
        (shelf / "embeddings").mkdir(parents=True)
        safetensors.write(shelf / "embeddings" / "lighthouse.safetensors", rows({"emb_params": vectors}))
        write_taesd(shelf / "rough.safetensors", "decoder", vae)
    out, digests = tmp_path / "out.png", set()
    for words in (
        ("a lighthouse",),
        ("a lighthouse", "--vae", "none"),
        ("a", "--embedding", "lighthouse", "--vae", "rough"),
    ):
        here, far = both("make", "image", *words, *QUICK, "--json", "--out", out)
        assert here.code == far.code == 0, here.err + far.err
        assert here.json == far.json
        assert here.json["recipe"]["adapters"][0]["ref"]["name"] == "lighthouse"
        digests.add(here.json["digest"])
    assert len(digests) == 2


@pytest.mark.slow
def test_a_model_named_by_its_path_and_one_that_no_scan_has_seen(
    both: Callable[..., list[Ran]], there: Running, through: Command, tmp_path: Path
) -> None:
    toy = write_single_file(tmp_path / "toy.safetensors", "sd1")
    here, through_server = both("make", "image", "a", "--model", toy, *QUICK, "--out", tmp_path / "a.png", "--json")
    assert here.json == through_server.json
    (there.home / "models").mkdir(exist_ok=True)
    write_single_file(there.home / "models" / "new-toy.safetensors", "sd1")
    assert through("make", "image", "a", "--model", "new-toy", *QUICK, "--out", tmp_path / "b.png").code == 0


@pytest.mark.slow
def test_what_no_server_takes_is_made_as_without_one(through: Command, tmp_path: Path) -> None:
    ran = through("make", "image", "a", "--steps", 1, "--count", 65, "--size", "64x64", "--out", tmp_path / "a.png")
    assert ran.code == 0, ran.err
    assert len(os.listdir(tmp_path)) == 65


@pytest.mark.slow
def test_without_out_the_outputs_lie_in_the_home_and_the_gallery_knows_them(
    both: Callable[..., list[Ran]], there: Running, home: Path
) -> None:
    for ran, place in zip(both("make", "image", "a boat", *QUICK), (home, there.home), strict=True):
        path = Path(ran.out.strip())
        assert path.is_file() and path.is_relative_to(place / "outputs")
        with Gallery(place / "gallery.sqlite", place / "outputs") as gallery:
            (output,) = gallery.outputs(text="boat").items
        assert (output.path, output.seed, output.owner) == (path, 7, "owner")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a house", "--model", "starter-imge"], "did you mean starter-image"),
        (["a house", "--size", "100x64"], "size"),
        (["a house", "--steps", "0"], "sampling.steps"),
        (["a house", "--sampler", "Eulr"], "did you mean"),
        (["a house", "--set", "clip_skip=99"], "knobs.clip_skip"),
        (["a house", "--init", "absent.png"], "absent.png"),
        ([""], "prompt: is empty"),
    ],
)
def test_what_is_wrong_ends_in_one_clear_line(words: list[str], told: str, through: Command) -> None:
    ran = through("make", "image", *words)
    assert ran.code == 2, ran.err
    assert told in ran.err and ran.err.count("\n") == 1
    assert ran.out == ""


@pytest.mark.slow
def test_ctrl_c_cancels_the_job(there: Running) -> None:
    process = command(there, "make", "image", "a", "--steps", 500, "--size", "256x256")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("sample"):
            break
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "Traceback" not in rest
    newest = there.ask("GET", "/api/jobs?limit=1")["items"][0]
    assert there.over(newest["id"], 10)["state"] == "cancelled"


@pytest.mark.slow
def test_ctrl_c_before_the_answer_leaves_no_job_behind(
    there: Running, through: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    post, answers = Server.post, []

    def interrupted(server: Server, path: str, told: Any = None, **headers: str) -> Any:
        answers.append(post(server, path, told, **headers))
        if len(answers) == 1:
            raise KeyboardInterrupt
        return answers[-1]

    monkeypatch.setattr(Server, "post", interrupted)
    ran = through("make", "image", "a", "--steps", 500, "--size", "256x256", "--out", f"{tmp_path}/new/")
    assert ran.code == 130
    assert {job["id"] for job in answers} == {there.ask("GET", "/api/jobs?limit=1")["items"][0]["id"]}
    assert there.over(answers[0]["id"], 10)["state"] == "cancelled"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_server_that_comes_back_goes_on_with_the_job(tmp_path: Path) -> None:
    home = tmp_path / "home"
    server = Running(home)
    words = ("make", "image", "a", "--steps", 25, "--count", 2, "--seed", 7)
    process = command(server, *words, "--out", tmp_path / "out.png")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("picture 2"):
            break
    server.kill()
    server = Running(home)
    out, rest = process.communicate(timeout=120)
    assert process.returncode == 0, rest
    assert out.split() == [str(tmp_path / "out-1.png"), str(tmp_path / "out-2.png")]
    assert "begun anew" in rest and "picture 3" not in rest
    assert server.stop() == 0


@pytest.mark.slow
def test_jobs_are_shown_and_steered_with_a_server_and_without(through: Command, there: Running) -> None:
    there.ask("POST", "/api/queue/pause")
    try:
        told = {"recipe": {"prompt": "a tower", "sampling": {"steps": 1}}}
        first, second = (there.ask("POST", "/api/jobs", told)["id"] for _ in range(2))
        assert [job["id"] for job in through("jobs", "list", "--state", "waiting", "--json").json] == [first, second]
        assert through("jobs", "move", second, "--before", first).code == 0
        assert [job["id"] for job in through("jobs", "list", "--state", "waiting", "--json").json] == [second, first]
        assert "waiting" in through("jobs", "show", first[:8]).out
        assert through("jobs", "pause", first, "--json").json[0]["state"] == "paused"
        assert through("jobs", "resume", first, "--json").json[0]["state"] == "waiting"
        assert through("jobs", "cancel", first, second).code == 0
        assert through("jobs", "retry", first, "--json").json[0]["state"] == "waiting"
        assert through("jobs", "cancel", first).code == 0
        unknown = through("jobs", "retry", first, "nobody")
        assert unknown.code == 2 and "nobody" in unknown.err and unknown.out == ""
        assert through("jobs", "show", first, "--json").json["state"] == "cancelled"
    finally:
        assert through("jobs", "resume").code == 0


@pytest.mark.slow
def test_watching_a_job_to_its_end(through: Command, there: Running) -> None:
    job = there.ask("POST", "/api/jobs", {"recipe": {"prompt": "a tower", "sampling": {"steps": 1}}})
    ran = through("jobs", "watch", job["id"], "--json")
    assert ran.code == 0
    kinds = [json.loads(line)["event"] for line in ran.out.splitlines()]
    assert kinds[0] == "queued" and kinds[-1] == "done" and "made" in kinds


@pytest.mark.slow
def test_watching_a_job_that_was_tried_again_goes_on_to_its_last_end(through: Command, there: Running) -> None:
    assert through("jobs", "pause").code == 0
    try:
        job = there.ask("POST", "/api/jobs", {"recipe": {"prompt": "a boat", "sampling": {"steps": 1}}})
        assert through("jobs", "cancel", job["id"]).code == 0
        assert through("jobs", "retry", job["id"]).code == 0
    finally:
        assert through("jobs", "resume").code == 0
    ran = through("jobs", "watch", job["id"], "--json")
    kinds = [json.loads(line)["event"] for line in ran.out.splitlines()]
    assert ran.code == 0 and kinds.count("cancelled") == 1 and kinds[-1] == "done"


@pytest.mark.parametrize(
    "words",
    [
        ("show", ""),
        ("watch", ""),
        ("cancel", " "),
        ("pause", ""),
        ("move", "", "--last"),
        ("move", "a", "--before", ""),
    ],
)
def test_an_empty_id_is_nobodys(bottega: Command, home: Path, words: tuple[str, ...]) -> None:
    with closing(Queue(home / "queue.sqlite")) as queue:
        queue.submit("make", {}, lane=MAKE, owner=OWNER)
    ran = bottega("jobs", *words)
    assert ran.code == 2 and "is empty" in ran.err
    with closing(Queue(home / "queue.sqlite")) as queue:
        assert [job.state for job in queue.jobs()] == ["waiting"]


def test_of_several_jobs_none_is_touched_if_one_is_unknown_and_what_was_done_is_told(
    bottega: Command, home: Path
) -> None:
    with closing(Queue(home / "queue.sqlite")) as queue:
        first, second, last = (queue.submit("make", {}, lane=MAKE, owner=OWNER).id for _ in range(3))
        queue.cancel(second)
    ran = bottega("jobs", "pause", first, "deadbeef", last)
    assert ran.code == 2 and "deadbeef" in ran.err and ran.out == ""
    assert {job["id"]: job["state"] for job in bottega("jobs", "list", "--json").json} == {
        first: "waiting", second: "cancelled", last: "waiting"
    }  # fmt: skip
    ran = bottega("jobs", "pause", first, second, last)
    assert ran.code == 2 and second in ran.err
    assert ran.out == f"{first}: paused\n"


def test_what_a_killed_server_had_in_hand_waits_and_is_steered(bottega: Command, home: Path) -> None:
    with closing(Queue(home / "queue.sqlite")) as queue:
        id = queue.submit("make", {}, lane=MAKE, owner=OWNER).id
        queue.lease(MAKE, "99999999:1")
    assert [(job["state"], job["attempt"]) for job in bottega("jobs", "list", "--json").json] == [("waiting", 0)]
    assert bottega("jobs", "cancel", id).out == f"{id}: cancelled\n"


@pytest.mark.parametrize("limit", ["0", "-3", "many"])
def test_a_list_of_less_than_one_job_is_bad_usage(bottega: Command, limit: str) -> None:
    ran = bottega("jobs", "list", "--limit", limit)
    assert ran.code == 2 and "--limit" in ran.err and ran.out == ""


def test_jobs_without_a_server(bottega: Command, home: Path) -> None:
    assert bottega("jobs").out == "There are no jobs.\n"
    assert bottega("jobs", "pause").code == 0
    assert bottega("jobs", "resume").code == 0
    ran = bottega("jobs", "watch")
    assert ran.code == 1 and "no server runs" in ran.err


def test_a_file_that_a_killed_server_left_stands_in_nobodys_way(bottega: Command, home: Path, tmp_path: Path) -> None:
    home.mkdir()
    (home / "serve.json").write_text(json.dumps({"url": "http://127.0.0.1:9", "pid": os.getpid(), "key": "k"}))
    ran = bottega("make", "image", "a house", *QUICK, "--out", tmp_path / "out.png")
    assert ran.code == 0, ran.err


def test_the_client_loads_nothing_that_only_the_server_needs(tmp_path: Path) -> None:
    program = "import sys; import bottega.cli.make_there; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    modules = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    ).stdout.split()
    assert not {"torch", "pydantic", "numpy", "PIL", "fastapi", "bottega.families"} & set(modules)


@pytest.mark.slow
def test_a_second_server_says_that_there_is_one(there: Running) -> None:
    process = command(there, "serve", "--port", 0)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"already at {there.url}" in err
