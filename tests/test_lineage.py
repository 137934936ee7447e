"""What came from what: inputs, replays, other seeds and variations; and in what two recipes differ."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from gallery_outputs import added, recipe_of, write_output

from bottega.gallery import Difference, Gallery, Graph, Output
from bottega.recipe import Recipe, Ref, Use


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home" / "outputs"


@pytest.fixture
def gallery(tmp_path: Path, folder: Path) -> Iterator[Gallery]:
    with Gallery(tmp_path / "home" / "gallery.sqlite", folder) as opened:
        yield opened


def made(gallery: Gallery, folder: Path, id: str, recipe: Recipe, at: float, **facts: object) -> Output:
    return added(gallery, write_output(folder, recipe, id=f"{id}-0", at=at, **facts))


def edges(graph: Graph) -> set[tuple[str, str, str]]:
    return {tuple(edge) for edge in graph.edges}  # type: ignore[misc]


def nodes(graph: Graph) -> list[str]:
    return [node.id for node in graph.nodes]


# --- what came from what ---------------------------------------------------------------------------------------------


def test_inputs_lead_back_and_forth(gallery: Gallery, folder: Path) -> None:
    first = made(gallery, folder, "first", recipe_of("a sketch", init="cd" * 32), at=1)
    second = made(gallery, folder, "second", recipe_of("a painting", init=first.sha256), at=2)
    made(gallery, folder, "third", recipe_of("a finished painting", init=second.sha256), at=3)
    made(gallery, folder, "other", recipe_of("something else"), at=4)
    graph = gallery.lineage("second-0")
    assert nodes(graph) == [f"input-{'cd' * 32}", "first-0", "second-0", "third-0"]
    assert edges(graph) == {
        (f"input-{'cd' * 32}", "first-0", "init"),
        ("first-0", "second-0", "init"),
        ("second-0", "third-0", "init"),
    }
    assert (graph.nodes[0].output, graph.nodes[0].sha256) == (None, "cd" * 32)
    assert edges(gallery.lineage("third-0")) == edges(gallery.lineage("first-0")) == edges(graph)


def test_an_output_is_not_made_from_what_was_made_later(gallery: Gallery, folder: Path) -> None:
    source = write_output(folder, recipe_of("a sketch"), id="source-0", at=5)
    made(gallery, folder, "early", recipe_of("a painting", init=source.sha256), at=1)
    gallery.add(source)
    assert nodes(gallery.lineage("early-0")) == [f"input-{source.sha256}", "early-0"]


def test_one_recipe_again_and_with_other_seeds(gallery: Gallery, folder: Path) -> None:
    made(gallery, folder, "a", recipe_of(seed=1), at=1)
    made(gallery, folder, "b", recipe_of(seed=2), at=2)
    made(gallery, folder, "c", recipe_of(seed=2), at=3)
    made(gallery, folder, "d", recipe_of(seed=2, knobs={"variation_strength": 0.2, "variation_seed": 9}), at=4)
    made(gallery, folder, "e", recipe_of("another prompt", seed=2), at=5)
    assert edges(gallery.lineage("b-0")) == {
        ("a-0", "b-0", "seed"),
        ("b-0", "c-0", "replay"),
        ("b-0", "d-0", "variation"),
    }


def test_a_graph_stays_small_and_says_what_it_leaves_out(gallery: Gallery, folder: Path) -> None:
    for seed in range(40):
        made(gallery, folder, f"s{seed:02}", recipe_of(seed=seed), at=seed)
    source = gallery.output("s20-0")
    for number in range(20):
        made(gallery, folder, f"t{number:02}", recipe_of(f"step {number}", init=source.sha256), at=100 + number)
    graph = gallery.lineage("s20-0")
    assert nodes(graph) == [*(f"s{seed:02}-0" for seed in range(14, 27)), *(f"t{number:02}-0" for number in range(12))]
    assert graph.left_out == 27 + 8
    assert nodes(gallery.lineage("s00-0"))[:13] == [f"s{seed:02}-0" for seed in range(13)]


def test_a_circle_ends(gallery: Gallery, folder: Path) -> None:
    # Equal bytes made of each other can't come about; records of them can.
    made(gallery, folder, "a", recipe_of("one", init="aa" * 32), at=1, sha256="bb" * 32)
    made(gallery, folder, "b", recipe_of("two", init="bb" * 32), at=2, sha256="aa" * 32)
    assert edges(gallery.lineage("a-0")) == {("a-0", "b-0", "init"), (f"input-{'aa' * 32}", "a-0", "init")}


def test_the_outputs_of_others_and_the_trash_are_not_shown(gallery: Gallery, folder: Path) -> None:
    mine = made(gallery, folder, "mine", recipe_of(seed=1), at=1)
    made(gallery, folder, "hers", recipe_of(seed=2), at=2, owner="bob")
    made(gallery, folder, "from", recipe_of("else", init=mine.sha256), at=3, owner="bob")
    made(gallery, folder, "gone", recipe_of(seed=3), at=4)
    gallery.delete(["gone-0"])
    graph = gallery.lineage("mine-0")
    assert (nodes(graph), graph.left_out) == (["mine-0"], 0)


# --- differences -----------------------------------------------------------------------------------------------------


def test_only_what_differs_is_told_in_the_order_of_a_recipe(gallery: Gallery, folder: Path) -> None:
    first = recipe_of(seed=1, knobs={"clip_skip": 1, "emphasis": "Original"})
    second = recipe_of(
        "a blue house",
        seed=2,
        guidance=5.5,
        model=Ref(name="other", sha256="cd" * 32),
        knobs={"emphasis": "Original", "clip_skip": 2, "ensd": 3},
        adapters=(Use(kind="lora", ref=Ref(name="ink"), weight=0.5),),
        init="ef" * 32,
    )
    made(gallery, folder, "a", first, at=1)
    made(gallery, folder, "b", second, at=2)
    assert gallery.differences("a-0", "b-0") == [
        ("model", "starter-image", "other"),
        ("model.sha256", "ab" * 32, "cd" * 32),
        ("prompt", "a red house", "a blue house"),
        ("lora ink", None, 0.5),
        ("init", None, "ef" * 32),
        ("guidance", 7.0, 5.5),
        ("seed", 1, 2),
        ("clip_skip", 1, 2),
        ("ensd", None, 3),
    ]
    back = gallery.differences("b-0", "a-0")
    assert back == [Difference(name, after, before) for name, before, after in gallery.differences("a-0", "b-0")]
    assert gallery.differences("a-0", "a-0") == []


def test_how_an_adapter_is_used_is_told_where_it_differs(gallery: Gallery, folder: Path) -> None:
    ink = Ref(name="ink")
    first = Use(kind="lora", ref=ink, weight=0.5, unet=0.2, blocks={"IN01": 0.5})
    second = Use(kind="lora", ref=ink, weight=0.5, end=0.8)
    for number, use in enumerate((first, second)):
        made(gallery, folder, "ab"[number], recipe_of(seed=1, adapters=(use,)), at=number)
    assert gallery.differences("a-0", "b-0") == [
        ("lora ink unet", 0.2, None),
        ("lora ink blocks.IN01", 0.5, None),
        ("lora ink end", None, 0.8),
    ]
