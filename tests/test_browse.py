"""Thousands of models are browsed page by page in any order, none twice and none left out, and counted at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bottega.formats.answers import Answers
from bottega.library import Catalog, Entry, open_catalog
from bottega.library.about import About
from bottega.library.browse import BEST, ORDERS, Wish, browse, counts, tag_counts
from bottega.library.disk import Stamp
from bottega.library.fits import Mates

KINDS = ("checkpoint", "lora", "embedding", "vae", "controlnet")
FAMILIES = ("sd1", "sdxl", "llama", "")
WORDS = ("ink", "castle", "neon", "watercolor", "samurai", "portrait", "vintage", "film")


def model(number: int) -> Entry:
    name = f"{WORDS[number % 8]}-{WORDS[number // 8 % 8]}-{number}.safetensors"
    return Entry(
        Path("/shelf", KINDS[number % 5], name),
        Path("/shelf"),
        Stamp(number * 7919 % 1000, number * 104729 % 5000, number),
        kind=KINDS[number % 5],
        category="base",
        family=FAMILIES[number % 4],
        verdict="unusual" if number % 50 == 0 else "refused" if number % 97 == 0 else "clean",
        runs=number % 5 == 0,
        about=About(description=f"{WORDS[number % 7]} and {WORDS[number % 3]} " * 20, triggers=(WORDS[number % 5],)),
        metadata={"ss_tag_frequency": "x" * 500},
    )


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    """Ten thousand models, some with tags."""
    with open_catalog(tmp_path_factory.mktemp("browse") / "catalog.sqlite") as opened:
        entries = [model(number) for number in range(10_000)]
        opened.put(entries)
        for entry in entries[:300]:
            opened.say(entry, tags=["good", WORDS[entry.stamp.inode % 8]], favourite=entry.stamp.inode % 2 == 0)
        yield opened


def all_pages(catalog: Catalog, wish: Wish, order: str, limit: int) -> list[Entry]:
    found: list[Entry] = []
    after = None
    while True:
        page = browse(catalog, wish, order, limit, after)
        found += page.entries
        after = page.after
        if after is None:
            assert len(found) == page.total
            return found


@pytest.mark.slow
@pytest.mark.parametrize("order", [*ORDERS, BEST])
@pytest.mark.parametrize("wish", [Wish(kind="lora"), Wish(text="neon", family="SD1"), Wish(tag="Good")], ids=repr)
def test_pages_have_every_model_once_and_in_order(catalog: Catalog, order: str, wish: Wish) -> None:
    found = all_pages(catalog, wish, order, 77)
    assert len({entry.path for entry in found}) == len(found)
    expected = catalog.search(wish.text, kind=wish.kind, family=wish.family, tag=wish.tag, limit=None)
    assert {entry.path for entry in found} == {entry.path for entry in expected}
    by = {
        "name": lambda entry: entry.name.casefold(),
        "kind": lambda entry: (entry.kind, entry.family, entry.name.casefold()),
        "size": lambda entry: (-entry.size, entry.name.casefold()),
        "date": lambda entry: (-entry.stamp.mtime_ns, entry.name.casefold()),
    }
    assert found == (expected if order == BEST else sorted(found, key=by[order]))


def test_a_page_of_what_a_text_finds_is_the_beginning_of_all_of_it(catalog: Catalog) -> None:
    for text in ("w", "ink", "ink-castle", "castle-1"):  # many and few, by words and by parts of names
        whole = catalog.found(text, "missing = 0 AND verdict != 'refused'", [], -1)
        page = browse(catalog, Wish(text), BEST, 30)
        assert page.total == len(whole) and len(page.entries) == min(30, len(whole)), text
        assert catalog.found(text, "missing = 0 AND verdict != 'refused'", [], 30) == whole[:30]
        beyond = browse(catalog, Wish(text), BEST, 30, (2**40,))
        assert (beyond.entries, beyond.after, beyond.total) == ([], None, len(whole))


@pytest.mark.parametrize("order", [*ORDERS, BEST])
def test_a_list_can_be_looked_at_anywhere(catalog: Catalog, order: str) -> None:
    wish = Wish("ink" if order == BEST else "", kind="lora")
    whole = all_pages(catalog, wish, order, 500)
    page = browse(catalog, wish, order, 20, offset=333)
    assert page.entries == whole[333:353]
    assert page.total == len(whole)
    assert browse(catalog, wish, order, 20, page.after).entries == whole[353:373]
    assert browse(catalog, wish, order, 20, offset=len(whole)).entries == []


def test_a_model_that_comes_between_two_pages_moves_no_other(tmp_path: Path) -> None:
    with open_catalog(tmp_path / "catalog.sqlite") as catalog:
        catalog.put([model(number) for number in range(40)])
        before = all_pages(catalog, Wish(), "name", 100)
        first = browse(catalog, Wish(), "name", 10)
        catalog.put([replace(model(1000), path=Path("/shelf/aaa.safetensors"))])
        second = browse(catalog, Wish(), "name", 10, first.after)
    assert [*first.entries, *second.entries] == before[:20]


def test_what_is_refused_is_only_shown_when_asked_for(catalog: Catalog) -> None:
    assert {entry.verdict for entry in all_pages(catalog, Wish(runs=True), "name", 2000)} == {"clean", "unusual"}
    assert {entry.verdict for entry in browse(catalog, Wish(verdict="refused"), "name", 500).entries} == {"refused"}


def test_counts_are_those_of_the_models(catalog: Catalog) -> None:
    for wish in (Wish(), Wish(text="neon"), Wish(favourite=True), Wish(runs=False, tag="good")):
        entries = [
            entry
            for verdict in ("clean", "unusual", "refused")
            for entry in all_pages(catalog, replace(wish, verdict=verdict), "name", 5000)
        ]
        assert counts(catalog, wish) == Counter((entry.kind, entry.family, entry.verdict) for entry in entries)
        assert tag_counts(catalog, wish) == Counter(
            ((entry.kind, entry.family, entry.verdict), tag) for entry in entries for tag in entry.tags
        )


@pytest.mark.parametrize("wish", [Wish(), Wish(text="neon"), Wish(text="w"), Wish(kind="lora", runs=False)], ids=repr)
def test_ten_thousand_models_are_counted_and_paged_in_few_steps(catalog: Catalog, wish: Wish) -> None:
    """Steps of SQLite's machine, some thirty for each model; `bottega bench shelves` tells the times."""

    def steps(call: Callable[[], object]) -> int:
        taken = 0

        def step() -> None:
            nonlocal taken
            taken += 1000

        catalog._answers = Answers(64)  # nothing was asked before
        catalog._connection.set_progress_handler(step, 1000)
        call()
        catalog._connection.set_progress_handler(None, 0)
        return taken

    assert steps(lambda: counts(catalog, wish)) < 80 * 10_000
    assert steps(lambda: tag_counts(catalog, wish)) < 20 * 10_000  # of those alone that the user said something of
    for order in (*ORDERS, BEST):
        assert steps(lambda order=order: browse(catalog, wish, order, 100)) < 90 * 10_000


def test_what_was_counted_is_counted_anew_once_anybody_has_written(tmp_path: Path) -> None:
    def told(catalog: Catalog) -> tuple[object, ...]:
        page = browse(catalog, Wish(), "name", 1, None, 1)
        tags = {tag: count for (_, tag), count in tag_counts(catalog, Wish()).items()}
        shelf = catalog.bytes_below(Path("/shelf"))
        return page.total, [entry.name for entry in page.entries], sum(counts(catalog, Wish()).values()), tags, shelf

    models = [replace(model(number), kind="lora", verdict="clean") for number in range(1, 4)]
    place = tmp_path / "catalog.sqlite"
    with open_catalog(place) as catalog, open_catalog(place) as other:
        assert told(catalog) == (0, [], 0, {}, 0)
        catalog.put(models)
        first, second, third = sorted(models, key=lambda entry: entry.name)
        whole = sum(entry.stamp.size for entry in models)
        assert told(catalog) == told(catalog) == (3, [second.name], 3, {}, whole)
        other.say(first, tags=["good"])
        assert told(catalog) == (3, [second.name], 3, {"good": 1}, whole)
        catalog.say(first, tags=["good", "old"])
        assert told(catalog) == (3, [second.name], 3, {"good": 1, "old": 1}, whole)
        other.forget([second.path])
        assert told(catalog) == (2, [third.name], 2, {"good": 1, "old": 1}, whole - second.stamp.size)


def test_what_was_taken_back_is_not_counted(tmp_path: Path) -> None:
    with open_catalog(tmp_path / "catalog.sqlite") as catalog:
        with pytest.raises(ZeroDivisionError), catalog._transaction() as connection:
            connection.execute("INSERT INTO shelves VALUES ('/shelf', 0)")
            assert catalog.known_rows("SELECT count(*) FROM shelves") == [(1,)]
            raise ZeroDivisionError
        assert catalog.known_rows("SELECT count(*) FROM shelves") == [(0,)]


def test_what_goes_together_with_a_model_is_found_in_pages_too(tmp_path: Path) -> None:
    base = replace(model(0), path=Path("/shelf/base"), family="sd1", dimensions={"unet": {"context": 768}})
    others = [
        replace(base, path=Path("/shelf", name), kind=kind, family=family, dimensions=dimensions)
        for name, kind, family, dimensions in (
            ("fits", "lora", "sd1", {"context": 768}),
            ("unsaid", "lora", "sd1", {}),
            ("wide", "lora", "sd1", {"context": 1024}),
            ("nameless", "lora", "", {"context": 768}),
            ("nobody", "lora", "", {}),
            ("xl", "lora", "sdxl", {"context": 768}),
            ("word", "embedding", "sd1", {"width": 768}),
            ("shared", "vae", "sd2", {}),
            ("other", "vae", "sdxl", {}),
            ("model", "checkpoint", "sd1", {"unet": {"context": 768}}),
            ("broken", "lora", "sd1", {"context": 768}),
        )
    ]
    others[-1] = replace(others[-1], error="cut short")

    def mates(entry: Entry, **wish: str) -> set[str]:
        page = browse(catalog, Wish(mates=Mates(entry, ("sd1", "sd2")), **wish), "name", 20)
        return {found.path.name for found in page.entries}

    with open_catalog(tmp_path / "catalog.sqlite") as catalog:
        catalog.put([base, *others])
        assert mates(base) == {"fits", "unsaid", "nameless", "word", "shared"}
        assert mates(base, kind="lora") == {"fits", "unsaid", "nameless"}
        assert mates(others[0]) == mates(others[6]) == {"base", "model"}
        assert mates(others[7]) == {"base", "model"}, "SD 1 and SD 2 share their VAE"
        assert mates(replace(base, family="")) == set()
