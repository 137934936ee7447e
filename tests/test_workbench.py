"""The workbench with real models: every corner of a recipe makes its picture, and what can't be as asked is told."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Command, pixels
from PIL import Image

from bottega.diffusion.names import SAMPLERS
from bottega.engine.load import Loader
from bottega.errors import BottegaError, FileError, Interrupted, InvalidRecipe
from bottega.events import Event, Made, Note, Preview, Step
from bottega.families import family
from bottega.families._stable_diffusion.toy import write_single_file
from bottega.formats import media
from bottega.library import Entry
from bottega.library.find import AmbiguousModel
from bottega.library.hashes import sha256_of
from bottega.library.scan import scan
from bottega.recipe import Recipe, Ref, Sampling, Size, read_recipe
from bottega.recognisers import all_recognisers
from bottega.runtime.place import Place
from bottega.settings import Settings
from bottega.workbench import Workbench

QUICK = ("--steps", 1, "--size", "64x64", "--seed", 7)


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny checkpoint of each family."""
    folder = tmp_path_factory.mktemp("toys")
    return {id: write_single_file(folder / f"{id}.safetensors", id) for id in ("sd1", "sd2", "sdxl")}


@pytest.fixture(scope="session")
def workbench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """One workbench for all tests that only make pictures, so that its model is loaded once."""
    home = tmp_path_factory.mktemp("home")
    return Workbench(Settings(home=home, outputs=home / "outputs", device="cpu"))


@pytest.fixture
def init(tmp_path: Path) -> Path:
    """A picture that is half transparent, over colours that must not be seen."""
    picture = Image.merge("RGB", [Image.linear_gradient("L"), Image.radial_gradient("L"), Image.new("L", (256, 256))])
    picture = picture.resize((64, 64))
    picture.putalpha(Image.linear_gradient("L").resize((64, 64)))
    picture.save(tmp_path / "init.png")
    return tmp_path / "init.png"


def draft(toys: dict[str, Path], **fields: Any) -> Recipe:
    knobs = {"precision": "float32", **fields.pop("knobs", {})}
    given = {"prompt": "a house", "model": Ref(name=str(toys["sd1"])), "size": Size(width=64, height=64), **fields}
    return Recipe(knobs=knobs, **given)


def make(workbench: Workbench, recipe: Recipe) -> list[Image.Image]:
    events = workbench.run(workbench.resolve(recipe))
    return [pixels(Path(event.path)) for event in events if isinstance(event, Made)]


# --- looking up what a recipe means ----------------------------------------------------------------------------------


@pytest.fixture
def named(tmp_path: Path, toys: dict[str, Path]) -> tuple[Workbench, Path, Recipe]:
    """A workbench with a model of its own on its shelf, which a draft means by its name."""
    bench = Workbench(Settings(home=tmp_path, outputs=tmp_path / "outputs", device="cpu"))
    path = tmp_path / "models" / "mine.safetensors"
    path.parent.mkdir()
    path.write_bytes(toys["sd1"].read_bytes())
    recipe = draft(toys, model=Ref(name="mine"))
    bench.resolve(recipe)
    return bench, path, recipe


def test_pictures_follow_the_config_that_came_to_lie_beside_a_model(tmp_path: Path, toys: dict[str, Path]) -> None:
    settings = Settings(home=tmp_path, outputs=tmp_path / "outputs", device="cpu")
    bench = Workbench(settings)
    path = tmp_path / "models" / "mine.safetensors"
    path.parent.mkdir()
    path.write_bytes(toys["sd2"].read_bytes())
    recipe = draft(toys, model=Ref(name="mine"))

    def told() -> tuple[str, bool, str, object]:
        scan(bench.catalog, [path.parent], all_recognisers())
        entry = bench.find("mine")
        return entry.variant, entry.guess, entry.dimensions["prediction"], bench.resolve(recipe).knobs["prediction"]

    assert told() == ("base", True, "epsilon", "epsilon")
    path.with_suffix(".yaml").write_text('model:\n  params:\n    parameterization: "v"\n')
    assert told() == ("v-prediction", False, "v", "v")
    path.with_suffix(".yaml").unlink()
    assert told() == ("base", True, "epsilon", "epsilon")


def namesake(tmp_path: Path, content: bytes) -> Path:
    """Another model of that name, off the shelf."""
    path = tmp_path / "elsewhere" / "mine.safetensors"
    path.parent.mkdir()
    path.write_bytes(content)
    return path


def test_a_model_is_looked_up_once_while_nothing_changes(named: tuple[Workbench, Path, Recipe]) -> None:
    bench, _, recipe = named
    first = bench.resolve(recipe).model
    asked: list[str] = []
    bench.catalog._connection.set_trace_callback(asked.append)
    assert bench.resolve(recipe).model == first
    assert asked == ["PRAGMA data_version"]


def test_a_model_that_was_changed_or_took_another_name_is_looked_up_again(
    named: tuple[Workbench, Path, Recipe], toys: dict[str, Path]
) -> None:
    bench, path, recipe = named
    before = bench.resolve(recipe).model
    path.write_bytes(toys["sd2"].read_bytes())
    after = bench.resolve(recipe).model
    assert before is not None and after is not None and before.sha256 != after.sha256
    assert after.sha256 == hashlib.sha256(toys["sd2"].read_bytes()).hexdigest()
    path.rename(path.with_name("other.safetensors"))
    with pytest.raises(BottegaError, match="mine"):
        bench.resolve(recipe)


def test_what_others_write_into_the_catalog_is_heard(
    named: tuple[Workbench, Path, Recipe], toys: dict[str, Path], tmp_path: Path
) -> None:
    bench, _, recipe = named
    elsewhere = namesake(tmp_path, toys["sd2"].read_bytes())
    Workbench(bench.settings).find(str(elsewhere))
    with pytest.raises(AmbiguousModel):
        bench.resolve(recipe)


def test_a_name_of_two_models_is_looked_up_again_also_where_the_other_one_changes(
    named: tuple[Workbench, Path, Recipe], toys: dict[str, Path], tmp_path: Path
) -> None:
    bench, path, recipe = named
    copy = namesake(tmp_path, path.read_bytes())
    sha256_of(bench.catalog, bench.find(str(copy)))
    assert bench.resolve(recipe) and bench.resolve(recipe)
    copy.write_bytes(toys["sd2"].read_bytes())
    with pytest.raises(AmbiguousModel):
        bench.resolve(recipe)


# --- corners of a recipe ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [sampler.name for sampler in SAMPLERS])
def test_every_sampler_makes_a_picture_in_one_step_and_at_both_ends_of_strength(
    sampler: str, workbench: Workbench, toys: dict[str, Path], init: Path
) -> None:
    """In float32 a picture of NaN would be an error."""
    kept = (workbench.keep_input(init, "init"),)
    (made,) = make(workbench, draft(toys, sampling=Sampling(sampler=sampler, steps=1, seed=1)))
    assert made.size == (64, 64)
    for steps, strength in ((1, 0.0), (1, 1.0), (3, 0.0), (3, 1.0)):
        sampling = Sampling(sampler=sampler, steps=steps, seed=1, strength=strength)
        (made,) = make(workbench, draft(toys, task="image-to-image", inputs=kept, sampling=sampling))
        assert made.size == (64, 64)


def test_tiles_from_a_picture_leave_the_next_one_as_it_is_alone(
    workbench: Workbench, toys: dict[str, Path], init: Path
) -> None:
    """The picture is encoded whole, though the one before it was decoded in tiles."""

    def made(seed: int, count: int, tiling: str) -> list[bytes]:
        recipe = draft(
            toys,
            task="image-to-image",
            inputs=(workbench.keep_input(init, "init"),),
            size=Size(width=640, height=64),
            sampling=Sampling(sampler="Euler", steps=1, seed=seed),
            count=count,
            knobs={"vae_tiling": tiling},
        )
        return [picture.tobytes() for picture in make(workbench, recipe)]

    first, second = made(1, 2, "on")
    for loaded in workbench._loader.kept.loaded.values():
        loaded.pipe.vae.use_tiling = False  # as it is in a process that has just begun
    assert made(2, 1, "on") == [second]
    assert made(1, 1, "off") != [first]


def test_what_is_transparent_counts_as_white(
    workbench: Workbench, toys: dict[str, Path], init: Path, tmp_path: Path
) -> None:
    with Image.open(init) as picture:
        white = Image.new("RGBA", picture.size, "white")
        Image.alpha_composite(white, picture).convert("RGB").save(tmp_path / "white.png")
    made = [
        make(
            workbench,
            draft(
                toys,
                task="image-to-image",
                inputs=(workbench.keep_input(path, "init"),),
                sampling=Sampling(steps=2, seed=1, strength=0.5),
            ),
        )[0].tobytes()
        for path in (init, tmp_path / "white.png")
    ]
    assert made[0] == made[1]


def test_the_plan_reckons_with_the_tiles_of_the_recipe(workbench: Workbench, toys: dict[str, Path]) -> None:
    plans = {
        tiling: workbench.memory_plan(
            workbench.resolve(draft(toys, size=Size(width=1024, height=1024), knobs={"vae_tiling": tiling}))
        )
        for tiling in ("on", "off")
    }
    assert plans["on"].tile_vae and not plans["off"].tile_vae
    assert plans["on"].decoding < plans["off"].decoding


# --- what can't be as asked ------------------------------------------------------------------------------------------


def test_a_layer_that_the_text_encoder_has_not_is_told_before_loading(
    workbench: Workbench, toys: dict[str, Path]
) -> None:
    assert workbench.resolve(draft(toys, knobs={"clip_skip": 3})).knobs["clip_skip"] == 3
    with pytest.raises(InvalidRecipe, match=r"knobs\.clip_skip: 4 is not between 1 and 3"):
        workbench.resolve(draft(toys, knobs={"clip_skip": 4}))


@pytest.mark.parametrize(
    ("id", "knob", "told"),
    [
        ("sd1", {"clip_skip": 2}, ""),
        ("sd2", {"clip_skip": 2}, "clip_skip has no effect"),
        ("sdxl", {"clip_skip": 2}, "clip_skip has no effect"),
        ("sd1", {"noise_source": "GPU"}, "noise_source=GPU: there is no CUDA device"),
        ("sd1", {"noise_source": "NV"}, ""),
    ],
)
def test_a_knob_that_acts_otherwise_than_it_says_is_noted_once(
    id: str, knob: dict[str, Any], told: str, workbench: Workbench, toys: dict[str, Path]
) -> None:
    recipe = draft(toys, model=Ref(name=str(toys[id])), sampling=Sampling(steps=1), count=2, knobs=knob)
    notes = [event.text for event in workbench.run(workbench.resolve(recipe)) if isinstance(event, Note)]
    assert len(notes) == (1 if told else 0)
    assert all(note.startswith(told) for note in notes)


# --- loading ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def entry(workbench: Workbench, toys: dict[str, Path], tmp_path: Path) -> Entry:
    """A model that a test may spoil, hashed."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(toys["sd1"].read_bytes())
    return sha256_of(workbench.catalog, workbench.find(str(path)))


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_model_that_is_replaced_while_it_is_loaded_is_refused(when: str, entry: Entry, toys: dict[str, Path]) -> None:
    face = family("sd1")

    def replace_file() -> None:
        other = entry.path.with_suffix(".new")
        other.write_bytes(toys["sd2" if when == "before" else "sd1"].read_bytes())
        os.replace(other, entry.path)

    def load(*args: Any) -> Any:
        pipe = face.load(*args)
        replace_file()
        return pipe

    loader, events = Loader("cpu"), []
    if when == "before":
        replace_file()
    with pytest.raises(FileError, match=r"model\.safetensors: was changed while it was loaded; try again"):
        loader.load(entry, replace(face, load=load), "float32", events.append)
    assert not loader.holds(entry, "float32")


def test_loading_stops_between_two_parts(entry: Entry) -> None:
    steps: list[Event] = []

    def emit(event: Event) -> None:
        steps.append(event)
        if event == Step("load", 1, 3):
            raise Interrupted("stopped")

    loader = Loader("cpu")
    with pytest.raises(Interrupted):
        loader.load(entry, family("sd1"), "float32", emit)
    assert steps == [Step("load", 0, 3), Step("load", 1, 3)]
    assert not loader.holds(entry, "float32")
    steps.clear()
    loader.load(entry, family("sd1"), "float32", steps.append)
    assert steps == [Step("load", done, 3) for done in range(4)]


# --- what a job keeps to itself, and what it says --------------------------------------------------------------------


def until_a_preview(events: Iterator[Event]) -> Path:
    return next(Path(event.path) for event in events if isinstance(event, Preview))


def test_jobs_of_one_home_have_previews_of_their_own(toys: dict[str, Path], tmp_path: Path) -> None:
    workbenches = [Workbench(Settings(home=tmp_path, outputs=tmp_path / "outputs", device="cpu")) for _ in range(2)]
    recipe = workbenches[0].resolve(draft(toys, sampling=Sampling(steps=4)))
    first, second = (each.run(recipe, previews=True) for each in workbenches)
    mine, theirs = until_a_preview(first), until_a_preview(second)
    assert mine != theirs
    first.close()
    assert not mine.exists() and theirs.exists()
    second.close()
    assert not theirs.exists()


def test_an_output_says_by_what_it_was_made_and_a_replay_what_is_otherwise_now(
    bottega: Command, toys: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.png"
    assert bottega("make", "image", "a house", "--model", toys["sd1"], *QUICK, "--out", out).code == 0
    made = read_recipe(str(media.read(out).recipe)).made
    assert made is not None and made.threads is not None and made.capability
    assert bottega("replay", out, "--check").out.strip() == "the same to the byte"

    monkeypatch.setattr(Place, "threads", made.threads + 3)
    monkeypatch.setattr(Place, "capability", None)  # as in a recipe that was made before these were told
    ran = bottega("replay", out, "--check")
    assert ran.code == 0
    assert ran.out.strip() == (
        "the same in every pixel (the files differ outside of them); "
        f"it was made with threads {made.threads} (now {made.threads + 3})"
    )


# --- homes and inputs that are not as they should be -----------------------------------------------------------------


def test_a_damaged_input_is_told_and_can_be_given_again(
    bottega: Command, toys: dict[str, Path], home: Path, init: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.png"
    words = ("make", "image", "a house", "--model", toys["sd1"], *QUICK, "--init", init, "--out")
    assert bottega(*words, out).code == 0
    (kept,) = (home / "inputs").iterdir()
    content = bytearray(kept.read_bytes())
    content[-20] ^= 1
    kept.write_bytes(content)

    ran = bottega("replay", out, "--check")
    assert ran.code == 2
    assert f"inputs.0: the init picture {kept} is changed" in ran.err
    assert bottega(*words, tmp_path / "again.png").code == 0
    assert bottega("replay", out, "--check").code == 0


def test_a_home_that_can_not_be_written_is_needed_for_no_picture(
    bottega: Command, toys: dict[str, Path], init: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    home, out = tmp_path / "file" / "home", tmp_path / "out.png"
    monkeypatch.setenv("BOTTEGA_HOME", str(home))
    words = ("make", "image", "a house", "--model", toys["sd1"], *QUICK)
    ran = bottega(*words, "--preview", "--out", out)
    assert ran.code == 0, ran.err
    assert pixels(out).size == (64, 64)
    assert f"no previews: {home}" in ran.err

    for more, remedy in (((), "choose another place with --out"), (("--init", init), "set BOTTEGA_HOME to a folder")):
        ran = bottega(*words, *more)
        assert ran.code == 1
        assert f"bottega: {home}" in ran.err and remedy in ran.err
