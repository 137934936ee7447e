"""Embeddings, hypernetworks and VAEs from the outside: named, found, pinned, written into the picture, found again."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from adapter_files import taesd, write_taesd
from conftest import Command, Ran, growth
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bottega.engine.automatic import named
from bottega.events import Made
from bottega.families._stable_diffusion import toy
from bottega.families._stable_diffusion.keys import pack, source_of
from bottega.formats import infotext, media, safetensors
from bottega.library.scan import scan
from bottega.recipe import Recipe, Ref, Sampling, Size, Use, read_recipe
from bottega.recognisers import all_recognisers
from bottega.runtime.weights import rows
from bottega.settings import STARTER_SHELF

QUICK = ("--steps", 2, "--size", "64x64", "--seed", 7)
FAMILIES = ("sd1", "sd2", "sdxl")


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny checkpoint of each family."""
    folder = tmp_path_factory.mktemp("toys")
    return {id: toy.write_single_file(folder / f"{id}.safetensors", id) for id in FAMILIES}


def write_embedding(path: Path, family: str = "sd1", seed: int = 0, count: int = 2) -> Path:
    generator = torch.Generator().manual_seed(seed)
    narrow, wide = (torch.randn((count, width), generator=generator) for width in (32, 64))
    tensors = {"clip_l": narrow, "clip_g": wide} if family == "sdxl" else {"emb_params": narrow}
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.write(path, rows(tensors))
    return path


def write_hypernetwork(path: Path, seed: int = 0) -> Path:
    generator = torch.Generator().manual_seed(seed)

    def half(size: int) -> dict[str, torch.Tensor]:
        return {
            "linear.0.weight": torch.randn((2 * size, size), generator=generator) / 4,
            "linear.0.bias": torch.zeros(2 * size),
            "linear.1.weight": torch.randn((size, 2 * size), generator=generator) / 4,
            "linear.1.bias": torch.zeros(size),
        }

    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({**{size: [half(size), half(size)] for size in (32, 64, 128)}, "step": 1, "name": path.stem}, path)
    return path


def write_vae(path: Path, seed: int = 5) -> Path:
    packed = pack(toy.states("sd1", seed=seed)["vae"], source_of(replace(toy.shapes("sd1")["vae"], naming="ldm")))
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.write(path, rows({name: tensor.half() for name, tensor in packed.items()}))
    return path


@pytest.fixture
def models(home: Path, toys: dict[str, Path]) -> Path:
    """The shelf of the home, with the toy of Stable Diffusion 1 on it."""
    (home / "models").mkdir(parents=True)
    (home / "models" / "toy.safetensors").symlink_to(toys["sd1"])
    return home / "models"


def make(bottega: Command, prompt: str, *words: object, model: object = "toy") -> Ran:
    return bottega("make", "image", prompt, "--model", model, *QUICK, *words, "--json")


def content(ran: Ran) -> bytes:
    assert ran.code == 0, ran.err
    return Path(ran.json["path"]).read_bytes()


def used(ran: Ran) -> list[tuple[str, str]]:
    """Kind and name of the adapters of what was made."""
    assert ran.code == 0, ran.err
    assert all(len(use["ref"]["sha256"]) == 64 for use in ran.json["recipe"]["adapters"])
    return [(use["kind"], use["ref"]["name"]) for use in ran.json["recipe"]["adapters"]]


# --- embeddings ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_word_is_found_where_an_embedding_has_its_name(
    family: str, bottega: Command, toys: dict[str, Path], models: Path
) -> None:
    plain = make(bottega, "a lighthouse by the sea", model=toys[family])
    write_embedding(models / "embeddings" / "deep" / "Lighthouse.safetensors", family)  # that no scan has seen
    found = make(bottega, "a lighthouse by the sea", model=toys[family])
    assert used(plain) == [] and used(found) == [("embedding", "Lighthouse")]
    assert content(found) != content(plain)
    negative = make(bottega, "the sea", "--negative", "LIGHTHOUSE", model=toys[family])
    assert used(negative) == [("embedding", "Lighthouse")]
    assert used(make(bottega, "a house of light", model=toys[family])) == []
    assert used(make(bottega, "the sea", model=toys[family])) == []


def test_an_embedding_that_is_asked_for_is_in_the_prompt(bottega: Command, models: Path, tmp_path: Path) -> None:
    file = write_embedding(tmp_path / "lighthouse.safetensors")
    by_path = make(bottega, "a house", "--embedding", file)
    assert by_path.json["recipe"]["prompt"] == "a house, lighthouse" and used(by_path) == [("embedding", "lighthouse")]
    written = make(bottega, "a house, lighthouse", "--embedding", file)
    assert content(written) == content(by_path) and written.json["digest"] == by_path.json["digest"]
    negative = make(bottega, "a house", "--negative", "lighthouse", "--embedding", file)
    assert negative.json["recipe"]["prompt"] == "a house" and used(negative) == [("embedding", "lighthouse")]


def test_only_what_fits_the_model_is_found(bottega: Command, toys: dict[str, Path], models: Path) -> None:
    write_embedding(models / "embeddings" / "a" / "lighthouse.safetensors", "sdxl")
    write_embedding(models / "embeddings" / "b" / "lighthouse.safetensors", "sd1")
    one, other = make(bottega, "a lighthouse"), make(bottega, "a lighthouse", model=toys["sdxl"])
    assert used(one) == used(other) == [("embedding", "lighthouse")]
    first, second = (ran.json["recipe"]["adapters"][0]["ref"]["sha256"] for ran in (one, other))
    assert first != second


def test_the_users_own_word_goes_before_the_one_that_comes_along(bottega: Command, models: Path) -> None:
    (along,) = make(bottega, "a lighthouse", model="starter-image").json["recipe"]["adapters"]
    assert along["ref"]["sha256"] == hashlib.sha256((STARTER_SHELF / "lighthouse.safetensors").read_bytes()).hexdigest()
    own = models / "embeddings" / "lighthouse.safetensors"
    own.parent.mkdir(parents=True, exist_ok=True)
    safetensors.write(own, rows({"emb_params": torch.randn(2, 128)}))
    (use,) = make(bottega, "a lighthouse", model="starter-image").json["recipe"]["adapters"]
    assert use["ref"]["sha256"] == hashlib.sha256(own.read_bytes()).hexdigest()


def test_what_comes_to_the_shelf_later_changes_no_picture(bottega: Command, models: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    assert make(bottega, "a lighthouse", "--out", out).code == 0
    write_embedding(models / "embeddings" / "lighthouse.safetensors")
    write_vae(models / "toy.vae.safetensors")
    again = bottega("replay", out, "--check")
    assert again.code == 0 and "the same to the byte" in again.out, again.err


def test_a_word_at_some_step_counts(bottega: Command, models: Path) -> None:
    write_embedding(models / "embeddings" / "lighthouse.safetensors")
    assert used(make(bottega, "a [house:(lighthouse:1.2):0.5]")) == [("embedding", "lighthouse")]
    assert used(make(bottega, "a [house|(lighthouse)] AND the sea")) == [("embedding", "lighthouse")]
    assert used(make(bottega, "a light[house:boat:1]")) == []  # no piece of it is the name


@pytest.mark.slow
def test_looking_for_words_takes_time_in_proportion_to_the_prompt() -> None:
    names = [f"word{number}" for number in range(50)]

    def look(prompt: str) -> None:
        named(Recipe(prompt=prompt, sampling=Sampling(sampler="Euler", steps=1000)), names)

    look("word1")
    assert growth(look, "[a|b|word7|[c|d|e]:(f:1.2)] " * 4_000) < 64


# --- hypernetworks ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_tag_and_the_option_mean_the_same(bottega: Command, models: Path) -> None:
    write_hypernetwork(models / "hypernetworks" / "style.pt")
    tagged = make(bottega, "a house <hypernet:style:0.7>")
    option = make(bottega, "a house", "--hypernetwork", "style:0.7")
    plain = make(bottega, "a house")
    assert used(tagged) == [("hypernetwork", "style")]
    assert content(tagged) == content(option) != content(plain)
    assert tagged.json["digest"] == option.json["digest"]
    unet = make(bottega, "a house <hypernet:style:te=0.1:unet=0.7>")  # it changes the UNet alone
    assert content(unet) == content(tagged) and unet.json["digest"] == tagged.json["digest"]
    assert content(make(bottega, "a house <hypernet:style:0>")) == content(plain)
    assert content(make(bottega, "a house", "--hypernetwork", "style:0")) == content(plain)


# --- VAE -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_vae_beside_the_checkpoint_is_taken(
    bottega: Command, toys: dict[str, Path], models: Path, tmp_path: Path
) -> None:
    own = make(bottega, "a house")
    beside = write_vae(models / "VAE" / "toy.vae.safetensors")
    write_vae(models / "other.safetensors", seed=6)
    found = make(bottega, "a house")
    assert used(own) == [] and used(found) == [("vae", "toy.vae.safetensors")]
    assert content(make(bottega, "a house", "--vae", "none")) == content(own) != content(found)
    assert content(make(bottega, "a house", "--vae", "Automatic")) == content(found)
    assert content(make(bottega, "a house", "--vae", beside)) == content(found)
    named = make(bottega, "a house", "--vae", "other")
    assert used(named) == [("vae", "other.safetensors")] and content(named) not in (content(own), content(found))
    # What the checkpoint's card says goes before what lies beside it.
    (models / "toy.json").write_text(json.dumps({"vae": "other.safetensors"}), encoding="utf-8")
    assert bottega("models", "scan").code == 0
    assert content(make(bottega, "a house")) == content(named)


@pytest.mark.slow
@pytest.mark.parametrize("without", [(), ("vae",)])
def test_the_picture_is_that_of_a_checkpoint_with_that_vae(
    without: tuple[str, ...], bottega: Command, toys: dict[str, Path], models: Path, tmp_path: Path
) -> None:
    """Also for a checkpoint that was published without one."""
    model = toy.write_single_file(tmp_path / "bare.safetensors", "sd1", without=without)
    states, shapes = toy.states("sd1"), toy.shapes("sd1")
    states["vae"] = toy.states("sd1", seed=5)["vae"]
    from bottega.families._stable_diffusion.keys import single_file

    baked = tmp_path / "baked.safetensors"
    tensors = single_file("sd1", shapes, states, refiner=False)
    safetensors.write(baked, rows({name: tensor.half() for name, tensor in tensors.items()}))
    vae = write_vae(tmp_path / "other.safetensors")
    init = tmp_path / "init.png"
    Image.radial_gradient("L").resize((64, 64)).convert("RGB").save(init)
    for words in ((), ("--init", init)):
        one = make(bottega, "a house", "--vae", vae, *words, "--out", tmp_path / "one.png", model=model)
        other = make(bottega, "a house", *words, "--out", tmp_path / "other.png", model=baked)
        assert one.code == other.code == 0, one.err + other.err
        with Image.open(tmp_path / "one.png") as first, Image.open(tmp_path / "other.png") as second:
            assert first.tobytes() == second.tobytes()
    if without:
        ran = make(bottega, "a house", model=model)
        assert ran.code == 2 and "has no VAE; name a VAE for it, or a model that has one" in ran.err


class Shown:
    """Previews, kept as they come."""

    wanted = True

    def __init__(self) -> None:
        self.pictures: list[bytes] = []

    def show(self, part: int, content: bytes) -> str:
        with Image.open(io.BytesIO(content)) as picture:
            self.pictures.append(picture.tobytes())
        return ""

    def close(self) -> None:
        pass


def test_previews_are_decoded_with_taesd_where_there_is_one(home: Path, models: Path, toys: dict[str, Path]) -> None:
    """At the last step nothing is left to be done: there the preview is the picture that TAESD would make."""
    from bottega.engine.run import Part
    from bottega.engine.save import destination
    from bottega.settings import read_settings
    from bottega.workbench import Workbench

    workbench = Workbench(read_settings())
    draft = Recipe(
        prompt="a house",
        model=Ref(name="toy"),
        sampling=Sampling(sampler="Euler", steps=2, seed=1),
        size=Size(width=64, height=64),
        adapters=(Use(kind="vae", ref=Ref(name="none")),),
    )

    def last(draft: Recipe) -> tuple[bytes, bytes]:
        shown, (target, _) = Shown(), destination(None, home / "outputs")
        events = [event for _, event in workbench.run_together([Part(workbench.resolve(draft), target)], shown)]
        (made,) = (event.path for event in events if isinstance(event, Made))
        with Image.open(made) as picture:
            return shown.pictures[-1], picture.tobytes()

    rough, own = last(draft)
    write_taesd(models / "taesd.safetensors", "diffusers", taesd())
    write_taesd(models / "taesdxl.safetensors", "diffusers", taesd(seed=9))
    better, still = last(draft)
    _, tiny = last(draft.changed(adapters=(Use(kind="vae", ref=Ref(name="taesd")),)))
    assert better == tiny and better not in (rough, own)
    assert still == own
    (models / "taesd.safetensors").unlink()
    scan(workbench.catalog, [models], all_recognisers())
    assert last(draft) == (rough, own)


@pytest.mark.slow
def test_what_stays_is_not_read_again(home: Path, models: Path) -> None:
    """Another hypernetwork leaves the VAE and the embedding where they are; each picture is what it was."""
    from bottega.settings import read_settings
    from bottega.workbench import Workbench

    write_hypernetwork(models / "one.pt")
    write_hypernetwork(models / "two.pt", seed=1)
    write_embedding(models / "lighthouse.safetensors")
    write_vae(models / "toy.vae.safetensors")
    workbench = Workbench(read_settings())
    made: dict[str, set[str]] = {}
    vaes = []
    tags = ["<hypernet:one:1>", "<hypernet:two:1>", "<hypernet:two:1><hypernet:one:1>", "", "<hypernet:one:1>"] * 2
    for tag in tags:
        draft = Recipe(
            prompt=f"a lighthouse {tag}",
            model=Ref(name="toy"),
            sampling=Sampling(steps=1, seed=1),
            size=Size(width=64, height=64),
        )
        for event in workbench.run(workbench.resolve(draft)):
            if isinstance(event, Made):
                made.setdefault(tag, set()).add(event.sha256)
        ((_, loaded),) = workbench._loader.kept.loaded.items()
        vaes.append(loaded.pipe.vae)
    assert [len(same) for same in made.values()] == [1] * 4
    assert len(set.union(*made.values())) == 4
    assert all(vae is vaes[0] for vae in vaes)


# --- A1111's text ----------------------------------------------------------------------------------------------------


@pytest.fixture
def everything(bottega: Command, models: Path, tmp_path: Path) -> tuple[Path, list[Path]]:
    """A picture made with an embedding in each prompt, two hypernetworks and a VAE; and their files."""
    files = [
        write_embedding(models / "embeddings" / "lighthouse.safetensors"),
        write_embedding(models / "embeddings" / "bad one.safetensors", seed=1),
        write_hypernetwork(models / "hypernetworks" / "style.pt"),
        write_hypernetwork(models / "hypernetworks" / "other.pt", seed=1),
        write_vae(models / "vae" / "soft.safetensors"),
    ]
    words = ("--negative", "bad one, rain", "--hypernetwork", "other:0.5", "--vae", "soft", "--set", "noise_source=NV")
    ran = make(bottega, "a lighthouse <hypernet:style:0.8> by night", *words, "--out", tmp_path / "out.png")
    assert ran.code == 0, ran.err
    return tmp_path / "out.png", files


def renamed(files: list[Path]) -> None:
    for number, file in enumerate(files):
        file.rename(file.with_name(f"renamed-{number}{file.suffix}"))


def recipe_in(path: Path) -> Recipe:
    return read_recipe(str(media.read(path).recipe))


def foreign(path: Path) -> Path:
    """The picture as another program would have it: with A1111's text alone."""
    info = PngInfo()
    info.add_text("parameters", str(media.read(path).parameters))
    with Image.open(path) as picture:
        picture.save(path.with_name("foreign.png"), pnginfo=info)
    return path.with_name("foreign.png")


def test_the_text_says_all_with_hashes(everything: tuple[Path, list[Path]], bottega: Command) -> None:
    out, files = everything
    told = infotext.parse(str(media.read(out).parameters))
    sha256 = {use.ref.name: str(use.ref.sha256) for use in recipe_in(out).adapters}
    assert told.prompt == "a lighthouse by night <hypernet:other:0.5><hypernet:style:0.8>"
    assert told.fields["TI hashes"] == f"bad one: {sha256['bad one'][:12]}, lighthouse: {sha256['lighthouse'][:12]}"
    assert told.fields["Hypernet hashes"] == f"other: {sha256['other'][:12]}, style: {sha256['style'][:12]}"
    assert told.fields["VAE"] == "soft.safetensors"
    assert told.fields["VAE hash"] == sha256["soft.safetensors"][:10]
    shown = bottega("show", out)
    assert shown.code == 0 and all(file.stem in shown.out for file in files), shown.out


def test_it_replays_to_the_byte_also_after_every_file_was_renamed(
    everything: tuple[Path, list[Path]], bottega: Command
) -> None:
    out, files = everything
    for _ in range(2):
        again = bottega("replay", out, "--check")
        assert again.code == 0 and "the same to the byte" in again.out, again.err
        if files[0].exists():
            renamed(files)


@pytest.mark.parametrize("rename", [False, True])
def test_the_text_alone_makes_the_same_recipe(
    rename: bool, everything: tuple[Path, list[Path]], bottega: Command, tmp_path: Path
) -> None:
    out, files = everything
    picture = foreign(out)
    if rename:
        renamed(files)
    again = bottega("replay", picture, "--out", tmp_path / "again.png")
    assert again.code == 0, again.err
    first, then = recipe_in(out), recipe_in(tmp_path / "again.png")
    assert [use.ref.sha256 for use in then.adapters] == [use.ref.sha256 for use in first.adapters]
    assert then.prompt == first.prompt == "a lighthouse by night"
    with Image.open(out) as one, Image.open(tmp_path / "again.png") as other:
        assert one.tobytes() == other.tobytes()
    if not rename:
        assert then.digest == first.digest


def test_old_texts_name_the_only_hypernetwork_in_a_field(bottega: Command, models: Path, tmp_path: Path) -> None:
    write_hypernetwork(models / "style.pt")
    fields = "Steps: 2, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 64x64, Model: toy, Hypernet: style"
    info = PngInfo()
    info.add_text("parameters", f"a house\n{fields}, Hypernet strength: 0.5")
    Image.new("RGB", (64, 64)).save(tmp_path / "old.png", pnginfo=info)
    assert bottega("replay", tmp_path / "old.png", "--out", tmp_path / "new.png").code == 0
    (use,) = recipe_in(tmp_path / "new.png").adapters
    assert (use.kind, use.ref.name, use.weight) == ("hypernetwork", "style", 0.5)


def test_a_vae_that_is_not_there_is_told(bottega: Command, models: Path, tmp_path: Path) -> None:
    fields = "Steps: 2, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 64x64, Model: toy, VAE: gone.pt"
    info = PngInfo()
    info.add_text("parameters", f"a house\n{fields}")
    Image.new("RGB", (64, 64)).save(tmp_path / "old.png", pnginfo=info)
    ran = bottega("replay", tmp_path / "old.png", "--out", tmp_path / "new.png")
    assert ran.code == 0 and "made with the VAE gone.pt; the model's own is used instead" in ran.err


# --- wrong input -----------------------------------------------------------------------------------------------------


@pytest.fixture
def strangers(models: Path) -> Iterator[Path]:
    """Adapters that don't fit the toy of Stable Diffusion 1."""
    write_embedding(models / "forxl.safetensors", "sdxl")
    safetensors.write(models / "big.safetensors", rows({"emb_params": torch.zeros(2, 1024)}))
    write_hypernetwork(models / "style.pt")
    write_vae(models / "soft.safetensors")
    write_vae(models / "hard.safetensors", seed=6)
    yield models


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("a house", "--embedding", "nothing"), r"adapters.0: no model is called 'nothing'"),
        (("a house", "--embedding", "forxl"), r"forxl is made for a Stable Diffusion XL checkpoint, and toy is"),
        (("a house", "--embedding", "big"), r"big is made for a Stable Diffusion 2 checkpoint, and toy is"),
        (("a house", "--embedding", "style"), r"adapters.0: style is a hypernetwork, and no embedding"),
        (("a house", "--embedding", ""), r"embedding: is empty"),
        (("a house", "--vae", "toy"), r"adapters.0: toy is a checkpoint, and no vae"),
        (("a house", "--vae", "forxl"), r"adapters.0: forxl is an embedding, and no vae"),
        (("a house", "--vae", "gone"), r"adapters.0: no model is called 'gone'"),
        (("a house", "--vae", ""), r"vae: is empty"),
        (("a house", "--hypernetwork", "style:IN01=1"), r"blocks: a hypernetwork works in all blocks alike"),
        (("a house <hypernet:style:much>",), r"prompt: <hypernet:style>: 'much' is no number"),
        (("a house <hypernet:stile:1>",), r"did you mean style\?"),
    ],
)
def test_what_is_wrong_is_told_in_one_line_before_anything_loads(
    words: tuple[str, ...], said: str, bottega: Command, strangers: Path
) -> None:
    ran = make(bottega, *words)
    assert ran.code == 2 and re.search(said, ran.err), ran.err
    assert ran.err.count("\n") == 1 and "load" not in ran.err
