"""What is shown of a prompt while it is typed stands where the prompt says it: weights, chunks, extra networks."""

from __future__ import annotations

import time

import pytest

from bottega.diffusion.clip_tokenizer import builtin_tokenizer, count_tokens, split_into_chunks
from bottega.diffusion.marks import marks
from bottega.engine.resolve import MAX_PROMPT


@pytest.mark.parametrize(
    ("prompt", "weighted"),
    [
        ("a (red:1.2) cat", [("a ", 1.0), ("red", 1.2), (" cat", 1.0)]),
        ("((blue)) [dull]", [("blue", 1.21), (" ", 1.0), ("dull", 0.909)]),
        (r"a \(b\) c", [("a ", 1.0), ("(b", 1.0), (") c", 1.0)]),
        ("Ünï (çode:1.2)🎨 (x)", [("Ünï ", 1.0), ("çode", 1.2), ("🎨 ", 1.0), ("x", 1.1)]),
        ("one BREAK  (two:1.3)", [("one", 1.0), ("two", 1.3)]),
        ("<lora:ink:0.8> a (b <lora:x:1> c:1.3)", [(" a ", 1.0), ("b ", 1.3), (" c", 1.3)]),
        # The brackets of an edit or of an alternation are no emphasis, and what they choose between is all shown.
        ("[a|(b:1.5)] cat [x:y:0.5]", [("a", 1.0), ("b", 1.5), (" cat ", 1.0), ("x", 1.0), ("y", 1.0)]),
        ("a cat AND (a dog:1.4) :0.7", [("a cat", 1.0), (" ", 1.0), ("a dog", 1.4)]),
        ("", []),
    ],
)
def test_weights_are_where_their_words_are(prompt: str, weighted: list[tuple[str, float]]) -> None:
    found = marks(prompt).weighted
    assert [(prompt[each.begin : each.end], round(each.weight, 3)) for each in found] == weighted


def test_networks_are_where_they_are_named() -> None:
    prompt = "a <lora:ink:0.8> b <hypernet:old> <broken"
    found = marks(prompt).networks
    assert [(prompt[each.begin : each.end], each.network.kind, each.network.name) for each in found] == [
        ("<lora:ink:0.8>", "lora", "ink"),
        ("<hypernet:old>", "hypernet", "old"),
    ]


@pytest.mark.parametrize(
    "prompt",
    ["a cat", "word " * 200, "one BREAK (two " + "and three, " * 60 + ":1.2)", "(a, b:1.1), " * 40, "x " * 75, "BREAK"],
)
def test_chunks_begin_where_the_encoder_cuts_the_prompt(prompt: str) -> None:
    tokenizer = builtin_tokenizer()
    chunks, begins = split_into_chunks(prompt, tokenizer), marks(prompt).chunks
    assert len(begins) == len(chunks) and begins[0] == 0
    for chunk, begin, end in zip(chunks[:-1], begins[:-1], begins[1:], strict=True):
        again = split_into_chunks(prompt[begin:end], tokenizer)[0]
        assert again.tokens[: len(chunk.tokens)] == chunk.tokens


def test_an_embedding_takes_as_much_room_as_it_has_vectors() -> None:
    prompt = "a (spark:1.2) house, Spark by the sea spark"
    found = marks(prompt, vectors={"spark": 40})
    assert found.tokens.used == 75 + 75 + 40
    places = [(prompt[each.begin : each.end], each.name, each.vectors) for each in found.embedded]
    assert places == [("spark", "spark", 40), ("Spark", "spark", 40), ("spark", "spark", 40)]
    assert found.chunks == (0, prompt.index("Spark"), prompt.rindex("spark"))


def test_a_prompt_that_changes_with_the_steps_has_a_count_and_no_places_of_chunks() -> None:
    prompt = "[a|b] " * 100
    assert marks(prompt).chunks == ()
    assert marks(prompt).tokens == count_tokens(prompt)


@pytest.mark.slow
@pytest.mark.parametrize(
    "piece", ["(", "[a|b] ", "BREAK ", "<lora:a:1> ", "a AND ", "(a:1.1)", "[a:b:0.5]", "\\(", "[[", "a:", "🎨(é)"]
)
def test_the_longest_prompt_is_marked_at_once(piece: str) -> None:
    began = time.thread_time()
    marks(piece * (MAX_PROMPT // len(piece)))
    assert time.thread_time() - began < 2
