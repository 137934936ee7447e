"""LoRA from the outside: named in the prompt or by an option, pinned, written into the picture, found again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from conftest import Command, Ran, pixels
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from running_server import running

from bottega.engine.uses import normal, take_tags, use_of, with_tags
from bottega.errors import InvalidRecipe
from bottega.families import family
from bottega.families._stable_diffusion.toy import write_single_file
from bottega.formats import infotext, media, read_header, safetensors
from bottega.recipe import Recipe, Ref, Use, read_recipe
from bottega.runtime.weights import rows
from bottega.spec import Place

QUICK = ("--steps", 2, "--size", "64x64", "--seed", 7)


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny checkpoint of each family."""
    folder = tmp_path_factory.mktemp("toys")
    return {id: write_single_file(folder / f"{id}.safetensors", id) for id in ("sd1", "sd2", "sdxl")}


def places(model: Path, id: str) -> list[Place]:
    face = family(id)
    header = read_header(model)
    match = face.recognise(header)
    assert match is not None and face.anatomy is not None
    return [it for it in face.anatomy.places(header, match) if len(it.shape) == 2 and "embedding" not in it.name]


def write_lora(
    path: Path,
    model: Path,
    id: str = "sd1",
    seed: int = 0,
    more: Mapping[str, torch.Tensor] | None = None,
    without: tuple[str, ...] = (),
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """A LoRA of rank 2 for every matrix of a model."""
    generator = torch.Generator().manual_seed(seed)
    tensors = dict(more or {})
    for place in places(model, id):
        tensors[f"{place.key}.lora_up.weight"] = torch.randn(place.shape[0], 2, generator=generator) / 4
        tensors[f"{place.key}.lora_down.weight"] = torch.randn(2, place.shape[1], generator=generator) / 4
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.write(path, rows({name: it for name, it in tensors.items() if name not in without}), metadata)
    return path


@pytest.fixture
def neon(home: Path, toys: dict[str, Path]) -> Path:
    """A LoRA for the toy of SD 1, on the shelf of the home."""
    return write_lora(home / "models" / "neon.safetensors", toys["sd1"])


def make(bottega: Command, prompt: str, *words: object, model: Path) -> Ran:
    return bottega("make", "image", prompt, "--model", model, *QUICK, *words, "--json")


def content(ran: Ran) -> bytes:
    assert ran.code == 0, ran.err
    return Path(ran.json["path"]).read_bytes()


def test_a_tag_and_the_option_mean_the_same(bottega: Command, toys: dict[str, Path], neon: Path) -> None:
    model = toys["sd1"]
    tagged = make(bottega, "a house <lora:neon:0.8>", model=model)
    option = make(bottega, "a house", "--lora", "neon:0.8", model=model)
    lyco = make(bottega, "<lyco:neon:0.8> a house", model=model)
    by_path = make(bottega, "a house", "--lora", f"{neon}:0.8", model=model)
    plain = make(bottega, "a house", model=model)
    assert content(tagged) == content(option) == content(lyco) == content(by_path) != content(plain)
    assert tagged.json["digest"] == option.json["digest"] != plain.json["digest"]
    recipe = option.json["recipe"]
    assert recipe["prompt"] == "a house" and [use["ref"]["name"] for use in recipe["adapters"]] == ["neon"]
    assert len(recipe["adapters"][0]["ref"]["sha256"]) == 64


def test_strength_0_is_no_adapter(bottega: Command, toys: dict[str, Path], neon: Path) -> None:
    plain = make(bottega, "a house", model=toys["sd1"])
    for words in (("a house <lora:neon:0>",), ("a house", "--lora", "neon:0"), ("a house", "--lora", "neon:0:0")):
        none = make(bottega, *words, model=toys["sd1"])
        assert content(none) == content(plain) and none.json["digest"] == plain.json["digest"]
    assert content(make(bottega, "a house", "--lora", "neon:1:0", model=toys["sd1"])) != content(plain)


def test_a_picture_replays_to_the_byte_also_after_a_rename(
    bottega: Command, toys: dict[str, Path], neon: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.png"
    ran = make(bottega, "a house <lora:neon:1:0.5:start=0.5:IN01=0.3>", "--out", out, model=toys["sd1"])
    assert ran.code == 0, ran.err
    shown = bottega("show", out).out
    assert re.search(r"lora +neon, 1:0\.5:IN01=0\.3:start=0\.5\n", shown), shown
    neon.rename(neon.with_name("other name.safetensors"))
    again = bottega("replay", out, "--check")
    assert again.code == 0 and "the same to the byte" in again.out, again.err


def test_another_program_reads_it_in_the_prompt_and_it_comes_back_the_same(
    bottega: Command, toys: dict[str, Path], neon: Path, home: Path, tmp_path: Path
) -> None:
    second = write_lora(neon.with_name("a,b.safetensors"), toys["sd1"], seed=1)
    (home / "models" / "toy.safetensors").symlink_to(toys["sd1"])
    out = tmp_path / "out.png"
    words = ("a house", "--lora", "neon:0.8", "--lora", "a,b:1:-0.5")
    ran = bottega("make", "image", *words, "--model", "toy", *QUICK, "--set", "noise_source=NV", "--out", out)
    assert ran.code == 0, ran.err
    carried = media.read(out)
    assert carried.parameters is not None and carried.recipe is not None
    told = infotext.parse(carried.parameters)
    assert told.prompt == "a house <lora:neon:0.8><lora:ab:1:-0.5>"
    hashes = re.fullmatch("neon: ([0-9a-f]{12}), ab: ([0-9a-f]{12})", told.fields["Lora hashes"])
    assert hashes is not None
    shown = bottega("models", "hash", "neon", "--json")
    assert shown.json[0]["autov3"][:12] == hashes[1], shown.err
    # Another program's picture: the text alone. The files have other names by now.
    neon.rename(neon.with_name("renamed.safetensors"))
    second.rename(second.with_name("b.safetensors"))
    info = PngInfo()
    info.add_text("parameters", carried.parameters)
    Image.open(out).save(tmp_path / "foreign.png", pnginfo=info)
    again = bottega("replay", tmp_path / "foreign.png", "--out", tmp_path / "again.png")
    assert again.code == 0, again.err
    first, then = (read_recipe(str(media.read(path).recipe)) for path in (out, tmp_path / "again.png"))
    assert [use.ref.sha256 for use in then.adapters] == [use.ref.sha256 for use in first.adapters]
    assert [(use.weight, use.unet) for use in then.adapters] == [(0.8, None), (1.0, -0.5)]
    assert [use.ref.name for use in then.adapters] == ["renamed", "b"]
    assert Image.open(out).tobytes() == Image.open(tmp_path / "again.png").tobytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("a house <lora:nein:1>",), r"prompt: <lora:nein>: no model is called 'nein'; did you mean neon\?"),
        (("a house <lora:neon:much>",), r"prompt: <lora:neon>: 'much' is no number"),
        (("a house <lora:neon:1:1:8>",), r"asks for a lower rank"),
        (
            ("a house <magic:neon:1>",),
            r"prompt: <magic:neon>: no kind of adapter is called magic; there are lora, lyco",
        ),
        (("a house", "--negative", "<lora:neon:1>"), r"adapters are named in the prompt alone; move it there"),
        (("a house", "--lora", "neon:200"), r"adapters.0.weight: 200 is not between -100 and 100"),
        (("a house", "--lora", "neon:1:IN77=1"), r"adapters.0.blocks.IN77: is no block of this model; there are BASE"),
        (("a house", "--lora", "neon:start=0.5:end=0.5"), r"adapters.0.start: it works from 0.5 to 0.5"),
        (("a house", "--lora", "sd1"), r"adapters.0: sd1 is a checkpoint, and no lora; name a lora"),
        (("a house", "--lora", "forxl"), r"forxl is made for a Stable Diffusion XL checkpoint, and sd1 is"),
        (("a house", "--lora", "cut"), r"adapters.0: .*cut.safetensors: cut short"),
    ],
)
def test_what_is_wrong_is_told_in_one_line_before_anything_loads(
    words: tuple[str, ...], said: str, bottega: Command, toys: dict[str, Path], neon: Path
) -> None:
    neon.with_name("sd1.safetensors").symlink_to(toys["sd1"])
    write_lora(neon.with_name("forxl.safetensors"), toys["sdxl"], "sdxl", metadata={"ss_base_model_version": "sdxl"})
    neon.with_name("cut.safetensors").write_bytes(neon.read_bytes()[:-1000])
    ran = make(bottega, *words, model=toys["sd1"])
    assert ran.code == 2 and re.search(said, ran.err), ran.err
    assert ran.err.count("\n") == 1 and not re.search(r"load \d", ran.err)


def test_a_prompt_names_no_paths(bottega: Command, toys: dict[str, Path], neon: Path, tmp_path: Path) -> None:
    hidden = write_lora(tmp_path / "elsewhere" / "hidden.safetensors", toys["sd1"])
    ran = make(bottega, f"a house <lora:{hidden}:1>", model=toys["sd1"])
    assert ran.code == 2 and "no model is called" in ran.err


def test_a_lora_of_other_widths_is_refused(bottega: Command, toys: dict[str, Path], neon: Path) -> None:
    wide = {
        f"lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q.lora_{end}.weight": it
        for end, it in (("up", torch.ones(640, 4)), ("down", torch.ones(4, 640)))
    }
    safetensors.write(neon.with_name("wide.safetensors"), rows(wide))
    ran = make(bottega, "a house", "--lora", "wide", model=toys["sd1"])
    assert ran.code == 2 and "changes a weight of 640x640, where the model's" in ran.err


def test_half_a_lora_is_refused(bottega: Command, toys: dict[str, Path], neon: Path) -> None:
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    write_lora(neon.with_name("half.safetensors"), toys["sd1"], without=(f"{key}.lora_down.weight",))
    ran = make(bottega, "a house", "--lora", "half", model=toys["sd1"])
    assert ran.code == 2 and re.search(r"half does not fit sd1: of its change of .* there is only up", ran.err)


def test_what_is_not_used_is_told(bottega: Command, toys: dict[str, Path], neon: Path) -> None:
    write_lora(neon, toys["sd1"], more={"lora_unet_nobody.lora_up.weight": torch.ones(2, 2)})
    ran = make(bottega, "a house <lora:neon:1>", model=toys["sd1"])
    assert ran.code == 0 and "neon: not used: 'lora_unet_nobody.lora_up.weight'" in ran.err


def test_other_adapters_load_no_model_again(home: Path, toys: dict[str, Path], neon: Path) -> None:
    """Ten pictures in turns: what each is does not depend on what was there before."""
    from bottega.events import Made, Step
    from bottega.recipe import Sampling, Size
    from bottega.settings import read_settings
    from bottega.workbench import Workbench

    write_lora(neon.with_name("other.safetensors"), toys["sd1"], seed=1)
    workbench = Workbench(read_settings())
    loads, made = 0, dict[str, set[bytes]]()
    for prompt in ["a <lora:neon:1>", "a <lora:other:1>", "a", "a <lora:other:1><lora:neon:1>", "a <lora:neon:1>"] * 2:
        draft = Recipe(
            prompt=prompt,
            model=Ref(name=str(toys["sd1"])),
            sampling=Sampling(steps=1, seed=1),
            size=Size(width=64, height=64),
        )
        for event in workbench.run(workbench.resolve(draft)):
            loads += isinstance(event, Step) and event.phase == "load" and event.done == 0
            if isinstance(event, Made):
                made.setdefault(prompt, set()).add(pixels(Path(event.path)).tobytes())
    assert loads == 1
    assert [len(same) for same in made.values()] == [1] * 4
    assert len(set.union(*made.values())) == 4


def test_the_plan_of_memory_counts_adapters(home: Path, toys: dict[str, Path], neon: Path) -> None:
    from bottega.settings import read_settings
    from bottega.workbench import Workbench

    workbench = Workbench(read_settings())
    plans = {}
    for prompt in ("a", "a <lora:neon:1>", "a <lora:neon:1><lora:neon:0.5>"):
        recipe = workbench.resolve(
            Recipe(prompt=prompt, model=Ref(name=str(toys["sd1"])), knobs={"precision": "float32"})
        )
        plans[prompt] = workbench.memory_plan(recipe)
    plain, one, two = plans.values()
    changed = sum(4 * place.shape[0] * place.shape[1] for place in places(toys["sd1"], "sd1"))
    assert "adapters" not in plain.weights
    assert one.weights["adapters"] == two.weights["adapters"] == changed
    assert one.needed == plain.needed + changed


@pytest.mark.slow
def test_a_server_makes_the_same(
    bottega: Command, home: Path, toys: dict[str, Path], neon: Path, tmp_path: Path
) -> None:
    elsewhere = write_lora(tmp_path / "elsewhere" / "aside.safetensors", toys["sd1"], seed=3)
    asked = [
        ("a house <lora:neon:0.8>",),
        ("a house", "--lora", "neon:1:0.5:start=0.5:IN01=0.3"),
        ("a house <lora:neon:-1>", "--lora", f"{elsewhere}:0.5"),
        ("a house",),
    ]
    inline = [make(bottega, *words, model=toys["sd1"]) for words in asked]
    wrong = make(bottega, "a house <lora:nein:1>", model=toys["sd1"])
    with running(home):
        there = [make(bottega, *words, model=toys["sd1"]) for words in asked]
        refused = make(bottega, "a house <lora:nein:1>", model=toys["sd1"])
    assert [content(ran) for ran in there] == [content(ran) for ran in inline]
    assert [ran.json["recipe"] for ran in there] == [ran.json["recipe"] for ran in inline]
    assert len({content(ran) for ran in there}) == len(asked)
    assert refused.code == wrong.code == 2 and "<lora:nein>: no model is called 'nein'" in refused.err


# --- the grammar -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "rest", "uses"),
    [
        ("a cat", "a cat", []),
        ("a cat ", "a cat ", []),
        ("a <lora:x:1> cat", "a cat", [("x", 1.0, None)]),
        ("<lora:x> a cat", "a cat", [("x", 1.0, None)]),
        ("a cat<lora:x:0.5><lyco:y:1:0>", "a cat", [("x", 0.5, None), ("y", 1.0, 0.0)]),
        ("a cat <lora:x:te=0.2:unet=0.4>", "a cat", [("x", 0.2, 0.4)]),
        ("a cat <lora:x:0.3:unet=0.3>", "a cat", [("x", 0.3, None)]),
        ("a cat <lora:my file:-1>", "a cat", [("my file", -1.0, None)]),
    ],
)
def test_tags(prompt: str, rest: str, uses: list[tuple[str, float, float | None]]) -> None:
    text, asked = take_tags(prompt)
    assert text == rest
    assert [(it.ref.name, it.weight, it.unet) for it in (normal(each.use) for each in asked)] == uses


@pytest.mark.parametrize(
    ("text", "name", "weight"),
    [("neon", "neon", 1.0), ("neon:0.8", "neon", 0.8), ("C:\\models\\neon.pt:0.5", "C:\\models\\neon.pt", 0.5)],
)
def test_options(text: str, name: str, weight: float) -> None:
    use = use_of("lora", text)
    assert (use.ref.name, use.weight) == (name, weight)


def test_tags_are_written_as_they_are_read() -> None:
    uses = (
        Use(kind="lora", ref=Ref(name="x"), weight=1.0),
        Use(kind="lora", ref=Ref(name="y z"), weight=0.25, unet=-1.5, blocks={"IN01": 0.5}, start=0.1, end=0.9),
        Use(kind="hypernetwork", ref=Ref(name="h"), weight=0.5),
    )
    text = with_tags(Recipe(prompt="a cat", adapters=uses))
    assert text == "a cat <lora:x:1><lora:y z:0.25:-1.5:IN01=0.5:start=0.1:end=0.9><hypernet:h:0.5>"
    rest, asked = take_tags(text)
    assert rest == "a cat" and tuple(normal(each.use) for each in asked) == uses


def test_nothing_but_a_name_that_can_be_read(toys: dict[str, Path]) -> None:
    with pytest.raises(InvalidRecipe, match="has no name"):
        use_of("lora", ":1")


def test_recipes_without_adapters_have_the_digests_that_they_had() -> None:
    assert Recipe(prompt="a house").digest == "57d9d06c9dafb6fb7ff0246ad1d65861bd6b8ce8f2e0ec545e9c22629bfba855"
