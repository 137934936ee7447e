"""A model is found by the beginnings of any words that tell of it, in every script, whatever is typed, at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bottega.library import Catalog, Entry, open_catalog
from bottega.library.about import About
from bottega.library.disk import Stamp
from bottega.library.search import indexed, query

Found = Callable[..., list[str]]


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with open_catalog(tmp_path / "catalog.sqlite") as opened:
        yield opened


def model(path: str, **fields: object) -> Entry:
    return replace(Entry(Path("/shelf", path), Path("/shelf"), Stamp(1, 2, 3), "checkpoint", "base"), **fields)


MODELS = (
    model("Stable-diffusion/dreamshaperXL_v21TurboDPMSDE.safetensors", family="sdxl", variant="base"),
    model(
        "Lora/ink.safetensors",
        kind="lora",
        category="lightweight fine-tune",
        family="sd1",
        about=About(
            title="Sumi-e",
            triggers=("shukezouma", "negative space"),
            tags=("style", "painting"),
            description="Café-style brush paintings in the manner of 八大山人, with much white. Trained on scrolls.",
            base_model="SD 1.5",
        ),
    ),
    model("Lora/国风水墨_v2.safetensors", kind="lora", family="sd1"),
    model("Lora/機甲ガンダム.safetensors", kind="lora", family="sdxl"),
    model("한국어모델.safetensors", family="sd1"),
    model("ภาพวาด.safetensors", family="sd1"),
    model("Größe-ÉTÉ.safetensors", family="sd2", variant="v-prediction"),
    model("Пейзаж_осень.safetensors", family="sd1"),
    model("ollama/blobs/sha256-abc", called="llama3:latest", kind="language_model", family="llama"),
    model("odd/broken.safetensors", error="cut short", verdict="refused"),
    model("odd/strange.ckpt", verdict="unusual", names=("foo.Bar",)),
)


@pytest.fixture
def found(catalog: Catalog) -> Found:
    catalog.put(MODELS)
    return lambda *words, **filters: [entry.name for entry in catalog.search(*words, **filters)]


@pytest.mark.parametrize(
    "typed",
    [
        "dreamshaperXL_v21", "DREAM", "d", "turbo", "xl turbo", "dpmsde", "shaper", "v21", "21", "sdxl check",
        "stable diffusion", "  dreamshaperxl\t", "dreamshaper-xl",
    ],
)  # fmt: skip
def test_names_and_their_parts(found: Found, typed: str) -> None:
    assert found(typed)[0] == "dreamshaperXL_v21TurboDPMSDE"


@pytest.mark.parametrize(
    "typed",
    [
        "sumi", "shuke", "negative space", "space neg", "painting", "brush", "cafe", "CAFÉ style", "lora ink",
        "ink 1.5", "scrolls", "manner of 八大", "lightweight", "Lora/ink",
    ],
)  # fmt: skip
def test_what_a_file_says_of_itself(found: Found, typed: str) -> None:
    assert found(typed) == ["ink"]


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("水墨", "国风水墨_v2"), ("风水", "国风水墨_v2"), ("墨", "国风水墨_v2"), ("国风 v2", "国风水墨_v2"),
        ("機甲", "機甲ガンダム"), ("ガンダム", "機甲ガンダム"), ("ンダ", "機甲ガンダム"), ("ｶﾞﾝﾀﾞﾑ", "機甲ガンダム"),
        ("한국", "한국어모델"), ("วาด", "ภาพวาด"), ("grosse", "Größe-ÉTÉ"), ("été", "Größe-ÉTÉ"), ("ete", "Größe-ÉTÉ"),
        ("E\u0301TE", "Größe-ÉTÉ"), ("ПЕЙ", "Пейзаж_осень"), ("осе", "Пейзаж_осень"), ("llama3", "llama3:latest"),
        ("latest language", "llama3:latest"), ("v-pred", "Größe-ÉTÉ"),
    ],
)  # fmt: skip
def test_every_script(found: Found, typed: str, name: str) -> None:
    assert found(typed) == [name]


def test_characters_in_another_order_are_another_word(found: Found) -> None:
    assert found("墨水") == []


@pytest.mark.parametrize("many", [0, 2500], ids=["weighed", "too many to weigh"])
def test_the_very_name_comes_first_and_then_names_that_begin_so(catalog: Catalog, found: Found, many: int) -> None:
    catalog.put([model(f"Lora/{name}.safetensors", kind="lora") for name in ("a_neon_neon", "Neon_Night", "neon")])
    catalog.put([model(f"Lora/b{number}_neon.safetensors") for number in range(many)])
    assert found("neon", limit=3) == ["neon", "Neon_Night", "a_neon_neon"]
    assert found("neon_", limit=3) == ["Neon_Night", "a_neon_neon", "neon" if not many else "b0_neon"]


def test_a_name_begins_with_words_however_they_are_joined_in_it(catalog: Catalog, found: Found) -> None:
    joined = [model(f"{name}.pt") for name in ("neonCastle_v2", "neon-castle-b", "neon_castle")]
    catalog.put([model("castleNeon_v1.pt"), model("a castle of neon.pt"), *joined])
    assert set(found("neon castle")[:3]) == {entry.name for entry in joined}
    assert found("neon castle")[0] != "castleNeon_v1"


def test_parts_in_the_middle_of_a_name_come_last(catalog: Catalog, found: Found) -> None:
    catalog.put([model("realisticvision.safetensors"), model("vision.safetensors"), model("tele.safetensors",
                about=About(description="for television and vision"))])  # fmt: skip
    assert found("vision") == ["vision", "tele", "realisticvision"]
    assert found("icvis") == ["realisticvision"]


@pytest.mark.parametrize(
    "typed",
    [
        '"', '""""', "'", "AND", "OR", "NOT", "NEAR(a b)", "name:x", "name : ink", "-ink", "^", "*", "ink*", "(",
        "a AND (b", "\0", "ink\0", "\ud800", "%", "_", "{name}:a", "'; DROP TABLE models; --", "\\", "+",
        "ink OR turbo", "\u202e", "x" * 100_000, "x " * 100_000, "水" * 10_000, "\x1b[31m", "🦄", "a" * 64 + "b",
    ],
)  # fmt: skip
def test_whatever_is_typed_is_only_words(found: Found, catalog: Catalog, typed: str) -> None:
    names = found(typed)
    assert set(names) <= {entry.name for entry in MODELS}
    assert len(catalog.entries()) == len(MODELS)


def test_operators_are_words_like_others(found: Found, catalog: Catalog) -> None:
    catalog.put([model("this and that.safetensors")])
    assert found("AND") == ["this and that"]
    assert found("ink AND turbo") == found("ink OR turbo") == []
    assert found('"ink"') == found("ink*") == found("(ink)") == ["ink"]


def test_filters(found: Found, catalog: Catalog) -> None:
    assert found(kind="LORA") == sorted(found("l", kind="lora")) == ["ink", "国风水墨_v2", "機甲ガンダム"]
    assert found(kind="lora", family="sdxl") == ["機甲ガンダム"]
    assert found(category="lightweight fine-tune") == ["ink"]
    assert found(verdict="unusual") == ["strange"]
    assert found(verdict="refused") == found("broken", verdict="refused") == ["broken"]
    assert found("broken") == []
    ink = catalog.search("ink")[0]
    catalog.say(ink, tags=["Mine"], favourite=True, note="for quiet scenes")
    assert found(tag="MINE ") == found(favourite=True) == found("quiet") == found("mine") == ["ink"]
    assert found(tag="other") == []
    catalog.mark_missing([ink.path])
    assert found("ink") == [] and found("ink", missing=True) == found(missing=True) == ["ink"]


def test_a_correction_is_found_and_filtered_by(found: Found, catalog: Catalog) -> None:
    strange = catalog.search("strange")[0]
    catalog.say(strange, corrected={"kind": "upscaler", "family": "esrgan"})
    assert found(kind="upscaler") == found("esrg") == found(family="esrgan") == ["strange"]
    assert "strange" not in found(kind="checkpoint")
    catalog.put([strange])  # as another scan does
    assert found("upsc esr") == ["strange"]


def test_pages(found: Found, catalog: Catalog) -> None:
    every = found(limit=None)
    assert len(every) == len(MODELS) - 1
    assert [*found(limit=3), *found(limit=3, offset=3), *found(limit=100, offset=6)] == every
    assert found(offset=100) == []
    catalog.put([model(f"many/{index:03}-ink.safetensors") for index in range(30)])
    every = found("ink", limit=None)
    assert len(every) == 31
    assert [name for offset in range(0, 35, 7) for name in found("ink", limit=7, offset=offset)] == every


def test_what_is_put_again_or_forgotten_is_found_as_it_is_now(found: Found, catalog: Catalog) -> None:
    catalog.put([replace(MODELS[1], about=About(title="Etching"))])
    assert found("sumi") == [] and found("etch") == ["ink"]
    catalog.forget([MODELS[1].path])
    assert found("ink") == []


def test_words_and_queries() -> None:
    assert indexed(["dreamShaper_XL2", "水墨 a"]) == "dreamshaper dream shaper xl2 xl 水 墨 a"
    assert query('Dream "水墨a" \0') == '"dream"* "水 墨" "a"*'
    assert query("!?") == ""


@pytest.mark.slow
def test_ten_thousand_models_while_typing(catalog: Catalog) -> None:
    """The promise is 30 ms on a quiet machine; this only keeps it from becoming of another kind."""
    words = ("anime", "ink", "neon", "dragon", "forest", "水彩", "vision", "mix", "glow", "fog")
    for start in range(0, 10_000, 1000):
        catalog.put(
            model(
                f"Lora/{words[index % 10]}/{words[index // 10 % 10]}{words[index // 100 % 10].title()}_{index}.pt",
                kind="lora",
                about=About(triggers=(f"trigger{index}",), description=" ".join(words)),
            )
            for index in range(start, start + 1000)
        )
    slowest = 0.0
    for typed in ("lora neon", "dragonFo", "水彩 mix", "trigger99", "xyz"):
        for length in range(1, len(typed) + 1):
            began = time.process_time()
            assert len(catalog.search(typed[:length])) <= 50
            slowest = max(slowest, time.process_time() - began)
    assert slowest < 0.15
