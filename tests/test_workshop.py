"""The workshop: what a server does with a home, with a real worker and the starter model; and it never needs torch."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import pixels
from PIL import Image

from bottega.engine.load import Keeping, Loaded
from bottega.engine.run import Part
from bottega.engine.save import Named
from bottega.errors import InvalidRecipe, UnknownModel
from bottega.events import Made, Note
from bottega.families._stable_diffusion.toy import write_single_file
from bottega.formats import media, safetensors
from bottega.gallery import Output
from bottega.jobs.foreman import Preview
from bottega.jobs.job import Job, UnknownJob
from bottega.recipe import Recipe, read_recipe, recipe_from
from bottega.settings import Settings, settings_from
from bottega.workbench import Workbench
from bottega.workshop import Awaited, Workshop, alike, read_draft

pytestmark = pytest.mark.slow


def draft(prompt: str = "a red house", **told: Any) -> Recipe:
    sampling = {"steps": 2, "seed": 7, **told.pop("sampling", {})}
    return recipe_from({"prompt": prompt, "sampling": sampling, "size": {"width": 64, "height": 64}, **told})


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home = tmp_path_factory.mktemp("workshop") / "home"
    return Settings(home=home, outputs=home / "outputs", device="cpu")


@pytest.fixture(scope="module")
def shop(settings: Settings) -> Iterator[Workshop]:
    """A workshop that all tests of this module share, so that torch and the model are loaded once."""
    shop = Workshop(settings)
    shop.start()
    yield shop
    shop.stop()


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    home = tmp_path_factory.mktemp("inline")
    return Workbench(Settings(home=home, outputs=home / "outputs", device="cpu"))


def made(shop: Workshop, job: Job, within: float = 120.0) -> list[Output]:
    """The outputs of a job that has to be done by then."""
    job = shop.wait(job.id, within)
    assert job.state == "done", job
    return shop.outputs(job.id)


def inline_file(inline: Workbench, recipe: Recipe) -> bytes:
    (path,) = (event.path for event in inline.run(inline.resolve(recipe)) if isinstance(event, Made))
    return Path(path).read_bytes()


# --- the same as without a server ------------------------------------------------------------------------------------


def test_a_recipe_is_resolved_as_the_workbench_does(shop: Workshop, inline: Workbench, tmp_path: Path) -> None:
    picture = tmp_path / "init.png"
    Image.radial_gradient("L").resize((96, 80)).convert("RGB").save(picture)
    init = shop.keep_input(picture.read_bytes(), "init")
    assert init == inline.keep_input(picture, "init")
    assert shop.input_path(init.sha256).read_bytes() == picture.read_bytes()
    for told in (
        draft(),
        draft(knobs={"precision": "float32", "clip_skip": 2}),
        Recipe(prompt="a", sampling=draft().sampling),
        Recipe(task="image-to-image", prompt="a", inputs=(init,), sampling=draft().sampling),
    ):
        assert shop.resolve(told).canonical() == inline.resolve(told).canonical()
    with pytest.raises(UnknownModel):
        shop.resolve(draft(model={"name": "starter-imge"}))
    with pytest.raises(InvalidRecipe, match="float16"):
        shop.resolve(draft(knobs={"precision": "float16"}))


def test_a_file_is_the_same_to_the_byte_and_the_gallery_knows_it(shop: Workshop, inline: Workbench) -> None:
    job = shop.submit(draft(), owner="ann")
    (output,) = made(shop, job)
    assert output.path == shop.output_folder(job) / f"{job.id}-0.png"
    assert output.path.read_bytes() == inline_file(inline, draft())
    assert (output.id, output.owner, output.job, output.index) == (f"{job.id}-0", "ann", job.id, 0)
    assert output.digest == job.digest == shop.resolve(draft()).digest
    assert output.recipe == media.read(output.path).recipe
    assert output.bytes == output.path.stat().st_size and output.seconds > 0


def test_the_pictures_of_a_count_have_one_name_each(shop: Workshop, inline: Workbench) -> None:
    outputs = made(shop, shop.submit(draft(count=3), owner="ann"))
    assert [output.seed for output in outputs] == [7, 8, 9]
    assert outputs[2].path.read_bytes() == inline_file(inline, draft(sampling={"seed": 9}))


def test_the_server_never_imports_torch(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from bottega.recipe import recipe_from
from bottega.settings import Settings
from bottega.workshop import Workshop
home = Path(sys.argv[1])
shop = Workshop(Settings(home=home, outputs=home / "outputs", device="cpu"))
shop.start()
recipe = shop.resolve(recipe_from({"prompt": "a", "sampling": {"steps": 1}, "size": {"width": 64, "height": 64}}))
print(shop.plan(recipe)["words"])
job = shop.submit(recipe, owner="ann")
print(shop.wait(job.id, 120).state, len(shop.outputs(job.id)))
shop.stop()
print(*sys.modules)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True, env=environment
    )
    words, state, modules = ran.stdout.splitlines()
    assert "64x64 needs" in words and state == "done 1"
    assert not {"torch", "diffusers", "transformers"} & set(modules.split())


def test_the_next_start_knows_the_device_before_its_worker_is_there(shop: Workshop, settings: Settings) -> None:
    shop.facts()
    later = Workshop(settings_from({**settings.plain, "home": str(settings.home)}))
    assert replace(later.facts(), free=0) == replace(shop.facts(), free=0)
    other = Workshop(replace(settings, device="auto"))
    assert not other._facts_told.is_set()  # what was told of one device says nothing of another
    for each in (later, other):
        each.queue.close()
        each.gallery.close()


# --- how it goes -----------------------------------------------------------------------------------------------------


def test_a_model_stays_loaded_and_previews_are_shown(shop: Workshop) -> None:
    made(shop, shop.submit(draft(), owner="ann"))
    seen: list[Preview] = []
    end = shop.foreman.subscribe(lambda told: seen.append(told) if isinstance(told, Preview) else None)
    steps: list[str] = []
    listening = shop.queue.listen(lambda told: steps.append(told.event.get("phase", "")))
    job = shop.submit(draft(sampling={"steps": 60}, size={"width": 128, "height": 128}), owner="ann")
    made(shop, job)
    end()
    listening()
    assert "sample" in steps and "load" not in steps
    assert seen and {each.job for each in seen} == {job.id}
    assert seen[0].png.startswith(b"\x89PNG")
    assert shop.preview(job.id) is None  # it is over
    (device, _) = shop.foreman.devices()
    assert [model["name"] for model in device["models"]] == ["starter-image"]
    assert device["lane"] == "cpu" and device["models"][0]["bytes"] > 1 << 20


def test_cancelling_a_running_job_stops_it_within_a_step(shop: Workshop) -> None:
    job = shop.submit(draft(sampling={"steps": 500}), owner="ann")
    begun = threading.Event()
    # Loading, which imports torch, can't be stopped on the way, and may take longer than a worker is given.
    end = shop.queue.listen(
        lambda told: begun.set() if told.job == job.id and told.event.get("phase") == "sample" else None
    )
    assert begun.wait(60)
    end()
    shop.queue.cancel(job.id)
    assert shop.wait(job.id, 10).state == "cancelled"
    assert shop.outputs(job.id) == []
    pid = shop.foreman.devices()[0]["pid"]
    made(shop, shop.submit(draft(), owner="ann"))
    assert shop.foreman.devices()[0]["pid"] == pid  # the worker obeyed: nobody had to kill it


def test_finished_waits_without_a_thread(shop: Workshop) -> None:
    job = shop.submit(draft("a tower"), owner="ann")
    assert asyncio.run(shop.finished(job.id)).state == "done"
    assert asyncio.run(shop.finished(job.id)).state == "done"


def test_what_a_job_can_not_do_fails_it_with_the_reason(shop: Workshop, tmp_path: Path) -> None:
    model = write_single_file(tmp_path / "gone.safetensors", "sd1")
    recipe = shop.resolve(draft(model={"name": str(model)}))
    shop.queue.pause_all()
    job = shop.submit(recipe, owner="ann")
    model.unlink()
    shop.queue.resume_all()
    job = shop.wait(job.id, 60)
    assert job.state == "failed" and job.error is not None
    assert "gone" in job.error["what"]
    made(shop, shop.submit(draft(), owner="ann"))


def test_a_picture_of_one_colour_fails_and_says_so_first(shop: Workshop, tmp_path: Path) -> None:
    toy = write_single_file(tmp_path / "toy.safetensors", "sd1")
    header = safetensors.read_header(toy)
    blank = [
        (name, info.dtype, info.shape, bytes(info.end - info.start) if "decoder.conv_out" in name else data)
        for name, info in header.tensors.items()
        for data in [safetensors.read_tensor(header, name)]
    ]
    safetensors.write(tmp_path / "blank.safetensors", blank, dict(header.metadata))
    job = shop.submit(draft(model={"name": str(tmp_path / "blank.safetensors")}), owner="ann")
    job = shop.wait(job.id, 60)
    assert job.state == "failed" and job.error is not None and job.error["error"] == "BrokenPicture"


# --- jobs after jobs, and what was made before -----------------------------------------------------------------------


def test_a_job_may_begin_with_what_another_one_makes(shop: Workshop, inline: Workbench) -> None:
    first = shop.submit(draft(count=2), owner="ann")
    told = {
        "task": "image-to-image",
        "prompt": "a blue house",
        "sampling": {"steps": 3, "seed": 1},
        "inputs": [{"role": "init", "job": first.id, "index": 1}],
    }
    recipe, awaited = read_draft(told)
    assert awaited == (Awaited("init", first.id, 1),)
    second = shop.submit(recipe, owner="ann", awaited=awaited)
    assert second.after == (first.id,)
    assert second.request["recipe"]["size"] == {"width": 128, "height": 128}  # where the model is at home
    (output,) = made(shop, second)
    source = shop.outputs(first.id)[1]
    done = read_recipe(output.recipe)
    assert [media.sha256 for media in done.inputs] == [source.sha256]
    job = shop.queue.job(second.id)
    assert job.digest == done.digest == output.digest
    alone = recipe.changed(inputs=(inline.keep_input(source.path, "init"),), size=done.size)
    assert output.path.read_bytes() == inline_file(inline, alone)


def test_what_can_not_be_awaited_is_refused_at_once(shop: Workshop) -> None:
    first = shop.submit(draft(), owner="ann")
    told = {"task": "image-to-image", "prompt": "a", "inputs": [{"role": "init", "job": first.id}]}
    recipe, awaited = read_draft(told)
    with pytest.raises(UnknownJob):
        shop.submit(recipe, owner="bob", awaited=awaited)
    with pytest.raises(InvalidRecipe, match="makes no output number 5"):
        shop.submit(recipe, owner="ann", awaited=[Awaited("init", first.id, 5)])
    with pytest.raises(InvalidRecipe, match="no use for another 'mask'"):
        shop.submit(recipe, owner="ann", awaited=[*awaited, Awaited("mask", first.id)])
    with pytest.raises(InvalidRecipe, match=r"inputs\.0: is no output of a job"):
        read_draft({**told, "inputs": [{"role": "init", "job": 5}]})


def test_a_recipe_that_was_made_before_is_answered_at_once_if_asked(shop: Workshop) -> None:
    once = draft("a lonely tent", count=2)
    outputs = made(shop, shop.submit(once, owner="ann"))
    again = shop.submit(once, owner="ann", reuse=True)
    assert again.state == "done"
    assert [output.id for output in shop.outputs(again.id)] == [output.id for output in outputs]
    assert [told.event["event"] for told in shop.queue.events(job=again.id)] == [
        "queued",
        "started",
        "made",
        "made",
        "done",
    ]
    assert shop.submit(once, owner="ann").state == "waiting"
    assert shop.submit(once, owner="bob", reuse=True).state == "waiting"  # what others made is theirs
    outputs[0].path.write_bytes(b"something else")
    assert shop.submit(once, owner="ann", reuse=True, key="k").state == "waiting"
    made(shop, shop.submit(once, owner="ann", key="last"))


def test_the_same_key_and_draft_is_the_same_job_whatever_seed_was_drawn(shop: Workshop) -> None:
    open_seed = recipe_from({"prompt": "a", "sampling": {"steps": 1}, "size": {"width": 64, "height": 64}})
    first = shop.submit(open_seed, owner="ann", key="seed")
    again = shop.submit(open_seed, owner="ann", key="seed")
    assert (again.id, again.request) == (first.id, first.request)
    made(shop, first)


def test_a_server_that_is_stopped_leaves_its_jobs_to_the_next(settings: Settings, inline: Workbench) -> None:
    settings = replace(settings, home=settings.home.with_name("second"), outputs=settings.home.with_name("outputs2"))
    shop = Workshop(settings)
    shop.start()
    recipe = draft("a boat", sampling={"steps": 40})
    job = shop.submit(recipe, owner="ann")
    begun = threading.Event()
    end = shop.queue.listen(lambda told: begun.set() if told.event["event"] == "step" else None)
    assert begun.wait(60)
    end()
    shop.stop()
    shop = Workshop(settings)
    assert (shop.queue.job(job.id).state, shop.queue.job(job.id).attempt) == ("waiting", 0)
    shop.start()
    (output,) = made(shop, job)
    shop.stop()
    assert output.path.read_bytes() == inline_file(inline, recipe)


# --- work on the shelves ---------------------------------------------------------------------------------------------


def test_work_on_the_shelves_is_done_and_tells_its_result(shop: Workshop, settings: Settings) -> None:
    settings.models.mkdir(parents=True, exist_ok=True)
    write_single_file(settings.models / "toy.safetensors", "sd1")

    def result(kind: str, **request: Any) -> Any:
        job = shop.wait(shop.submit_work(kind, request, owner="ann", title=kind).id, 120)
        assert job.state == "done", job.error
        return job.result

    assert result("scan")["new"] >= 1
    (hashed,) = result("hash", models=["toy"])
    assert len(hashed["sha256"]) == 64 and hashed["blake3"]
    converted = result("convert", source="toy", destination="half.safetensors", dtype="fp16")
    assert converted["file"] == "half.safetensors" and set(converted["dtypes"]) == {"F16"}
    merged = result("merge", models=["toy", "half"], out="both.safetensors", weight=0.25)
    assert merged["file"] == "both.safetensors"
    assert (settings.models / "both.safetensors").is_file()
    assert shop.resolve(draft(model={"name": "both"})).model is not None


@pytest.mark.parametrize(
    ("kind", "request_", "told"),
    [
        ("dance", {}, "no work called 'dance'"),
        ("scan", {"folder": "x"}, "no use for 'folder'"),
        ("hash", {"models": ["nobody"]}, "no model is called 'nobody'"),
        ("hash", {}, "no model is named"),
        ("merge", {"models": ["starter-image"], "out": "x.safetensors"}, "nothing to merge"),
        ("convert", {"source": "starter-image", "destination": "/tmp/x.safetensors"}, "is not in"),
        ("convert", {"source": "starter-image", "destination": "../x.safetensors"}, "is not in"),
        ("get", {"references": []}, "no model is named"),
        ("get", {"references": ["nonsense"]}, "nonsense"),
    ],
)
def test_work_that_can_not_be_done_fails_with_the_reason(
    shop: Workshop, kind: str, request_: dict[str, Any], told: str
) -> None:
    job = shop.wait(shop.submit_work(kind, request_, owner="ann", title=kind).id, 60)
    assert job.state == "failed" and job.error is not None
    assert told in job.error["what"]


# --- several at once, and what is kept in memory ---------------------------------------------------------------------


def test_recipes_are_alike_that_differ_in_seeds_and_count_only(shop: Workshop) -> None:
    one = shop.resolve(draft())
    assert alike(shop.resolve(draft(count=3, sampling={"seed": 1}))) == alike(one)
    for other in (
        draft("another"),
        draft(negative="rain"),
        draft(sampling={"steps": 3}),
        draft(size={"width": 72, "height": 64}),
        draft(knobs={"clip_skip": 2}),
        draft(output={"format": "webp"}),
    ):
        assert alike(shop.resolve(other)) != alike(one)
    assert alike(shop.resolve(draft(sampling={"sampler": "DPM adaptive"}))) == ""


def test_workers_get_alike_jobs_together_only_where_that_is_faster(shop: Workshop) -> None:
    shop.facts()
    assert shop.foreman.together("make") == 1
    assert shop._facts is not None
    here = shop._facts
    try:
        shop._facts = replace(here, device="cuda:0")
        assert shop.foreman.together("make") == 4
        assert shop.foreman.together("library") == 1
    finally:
        shop._facts = here


def test_what_is_made_together_is_as_if_made_alone(inline: Workbench, tmp_path: Path) -> None:
    drafts = [draft(count=2), draft(sampling={"seed": 20}), draft(count=2, sampling={"seed": 30})]
    recipes = [inline.resolve(told) for told in drafts]
    parts = [Part(recipe, Named(tmp_path, f"job{number}")) for number, recipe in enumerate(recipes)]
    heard: dict[int, list[str]] = {0: [], 1: [], 2: []}
    for which, event in inline.run_together(parts):
        for number in which:
            heard[number].append(event.to_json()["event"])
    for number, recipe in enumerate(recipes):
        told = heard[number]
        assert (told[0], told[-1], told.count("made")) == ("started", "done", recipe.count)
        alone = [Path(event.path) for event in inline.run(recipe) if isinstance(event, Made)]
        for index, path in enumerate(alone):
            assert (tmp_path / f"job{number}-{index}.png").read_bytes() == path.read_bytes()


def test_the_least_valuable_model_goes_first() -> None:
    keeping = Keeping(100)

    def put(name: str, bytes: int, seconds: float) -> None:
        keeping.make_room(bytes)
        keeping.put((name, "p"), Loaded(name, name, bytes, seconds))

    def names() -> set[str]:
        return {name for name, _ in keeping.loaded}

    put("dear", 40, 40.0)
    put("cheap", 40, 1.0)
    assert names() == {"dear", "cheap"} and keeping.bytes == 80
    put("new", 40, 5.0)
    assert names() == {"dear", "new"}
    for _ in range(10):
        assert keeping.use(("new", "p")) == "new"
    put("other", 40, 5.0)
    assert names() == {"new", "other"}  # the dear one was used once, and the new one so often that it is worth more
    put("huge", 500, 1.0)
    assert names() == {"huge"}  # larger than the budget: alone
    assert keeping.use(("dear", "p")) is None


def test_what_nobody_uses_goes_in_time_however_dear_it_was() -> None:
    keeping = Keeping(100)
    keeping.put(("dear", "p"), Loaded("dear", "dear", 50, 60.0))
    for number in range(40):
        key = (f"daily{number % 2}", "p")
        if keeping.use(key) is None:
            keeping.make_room(50, None)
            keeping.put(key, Loaded(key[0], key[0], 50, 3.0))
    assert ("dear", "p") not in keeping.loaded


def test_models_beyond_the_budget_go_and_none_is_loaded_twice(tmp_path: Path) -> None:
    toys = [str(write_single_file(tmp_path / f"{name}.safetensors", name)) for name in ("sd1", "sd2", "sdxl")]
    settings = Settings(home=tmp_path / "home", outputs=tmp_path / "outputs", device="cpu", model_memory_mb=1)
    bench = Workbench(settings)

    def run(model: str) -> list[str]:
        events = bench.run(bench.resolve(draft(model={"name": model}, sampling={"steps": 1})))
        return [event.to_json().get("phase", "") for event in events if not isinstance(event, Note)]

    assert "load" in run(toys[0]) and "load" not in run(toys[0])
    assert "load" in run(toys[1])
    assert sum(model["bytes"] for model in bench.loaded) <= 1 << 20 or len(bench.loaded) == 1
    roomy = Workbench(replace(settings, model_memory_mb=1000))
    bench = roomy
    for model in (*toys, *toys):
        run(model)
    assert sorted(model["name"] for model in bench.loaded) == ["sd1", "sd2", "sdxl"]
    assert pixels(next((tmp_path / "outputs").rglob("*.png"))).size == (64, 64)
