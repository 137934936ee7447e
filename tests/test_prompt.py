"""A pasted prompt means what it means in stable-diffusion-webui, and no prompt takes long or breaks the parser."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import growth

from bottega.diffusion.prompt import (
    BREAK,
    Network,
    parse_attention,
    parse_composable,
    parse_schedule,
    take_extra_networks,
)

PARITY = Path(__file__).parents[1].parent / "shared" / "parity" / "prompts.json"


def parity(kind: str) -> list:
    if not PARITY.is_file():
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"{PARITY} is not on this machine"), id="absent")]
    return [
        pytest.param(case, id=" ".join(map(repr, case[:-1]))[:60]) for case in json.loads(PARITY.read_bytes())[kind]
    ]


@pytest.mark.parametrize("case", parity("attention"))
def test_attention_is_that_of_the_webui(case):
    text, expected = case
    assert [list(piece) for piece in parse_attention(text)] == expected


@pytest.mark.parametrize("case", parity("schedules"))
def test_schedule_is_that_of_the_webui(case):
    text, steps, hires_steps, old_timeline, expected = case
    assert [list(entry) for entry in parse_schedule(text, steps, hires_steps, old_timeline)] == expected


@pytest.mark.parametrize("case", parity("composable"))
def test_composition_is_that_of_the_webui(case):
    text, expected = case
    assert [list(part) for part in parse_composable(text)] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(a:b:1.2)", [("a:b", 1.2)]),
        ("(a:-1)", [("a", -1.0)]),
        ("(a: 1.)", [("a", 1.0)]),
        ("(a:1.2.3)", [("a:1.2.3", 1.1)]),
        ("a:1.2)", [("a:1.2)", 1.0)]),
        ("(a\\:1.2)", [("a", 1.2)]),
        ("(a\\)", [("a)", 1.1)]),
        ("a\\", [("a", 1.0)]),
        ("\\\\(a)", [("\\", 1.0), ("a", 1.1)]),
        ("()", [("", 1.0)]),
        ("", [("", 1.0)]),
        ("([a)b]", [("a", 1.0), ("b", 1 / 1.1)]),
        ("(a)(b)", [("ab", 1.1)]),
        ("BREAK", [("", 1.0), BREAK, ("", 1.0)]),
        ("xBREAK BREAKx", [("xBREAK BREAKx", 1.0)]),
        ("(a \n BREAK\tb)", [("a", 1.1), ("BREAK", -1.1), ("b", 1.1)]),
    ],
)
def test_attention(text, expected):
    assert parse_attention(text) == expected


def test_deep_emphasis_keeps_its_value():
    [(text, weight)] = parse_attention("(" * 100 + "a" + ":1.01)" * 100)
    assert text == "a"
    assert weight == pytest.approx(1.01**100, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[x:1.5]", [(10, "")]),  # a fraction of 1.5: never in this pass
        ("[:1]", [(1, ""), (10, "")]),
        ("[a::1e1]", [(10, "a")]),
        ("[a:b:1e999]", [(10, "a")]),
        ("[a:b:-1e999]", [(10, "b")]),
        ("[a:b:+2]", [(2, "a"), (10, "b")]),
        ("[a:b: \n2\t]", [(2, "a"), (10, "b")]),
        ("[a:b:2 3]", [(10, "[a:b:2 3]")]),
        ("[a:b:c:2]", [(10, "[a:b:c:2]")]),
        ("[a:(b:c:d):2]", [(10, "[a:(b:c:d):2]")]),
        ("[a:(b:c):2]", [(2, "a"), (10, "(b:c)")]),
        ("(a [b:2]", [(2, "(a "), (10, "(a b")]),
        ("[a (b] [c:2]", [(2, "[a (b] "), (10, "[a (b] c")]),
        ("a|b [c:2]", [(10, "a|b [c:2]")]),
        ("(a|b)", [(10, "(a|b)")]),
        ("[c:2] \\", [(10, "[c:2] \\")]),
        ("[c:2] \\\n", [(10, "[c:2] \\\n")]),
        ("[a\\]b:2]", [(2, ""), (10, "a\\]b")]),
    ],
)
def test_schedule(text, expected):
    assert parse_schedule(text, 10) == expected


def test_alternation_nests():
    texts = [text for _, text in parse_schedule("[a|[b|c]|[d:e:5]]", 9)]
    assert texts == ["a", "c", "d", "a", "b", "e", "a", "c", "e"]


def test_second_pass_counts_on():
    assert parse_schedule("[a:b:0.5]", 10, 20) == [(20, "b")]
    assert parse_schedule("[a:b:1.5]", 10, 20) == [(10, "a"), (20, "b")]
    assert parse_schedule("[a:b:14]", 10, 20) == [(4, "a"), (20, "b")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a : 2 ", [("a", 2.0)]),
        ("a:1.", [("a", 1.0)]),
        ("a:-.5", [("a", -0.5)]),
        ("a:1e3", [("a:1e3", 1.0)]),
        ("a:1.2.3", [("a:1.2.3", 1.0)]),
        ("16:9", [("16", 9.0)]),
        ("(a:1.2) AND b : 0.5 AND", [("(a:1.2)", 1.0), (" b", 0.5), ("", 1.0)]),
    ],
)
def test_composition(text, expected):
    assert parse_composable(text) == expected


def test_extra_networks_are_taken_out():
    text = "a <lora:Some name:0.5:dyn=4>cat<hypernet:h>, x<y> <:> <b: <lyco:z:te=1:unet=2> c"
    assert take_extra_networks(text) == (
        "a cat, x<y> <:>  c",
        [
            Network("lora", "Some name", ("0.5",), {"dyn": "4"}),
            Network("hypernet", "h"),
            Network("b", " <lyco", ("z",), {"te": "1", "unet": "2"}),
        ],
    )
    assert take_extra_networks("a <lora:> <lora:b") == ("a <lora:> <lora:b", [])


LENGTH = 100_000
HOSTILE = {
    "open round": "(" * LENGTH,
    "open square": "[" * LENGTH,
    "open before an edit": "[" * LENGTH + "a:b:3",
    "open around words": "(a" * (LENGTH // 2),
    "both around words": "[(a" * (LENGTH // 3),
    "nested edits": "[" * (LENGTH // 4) + "a" + ":3]" * (LENGTH // 4),
    "nested alternations": "[" * (LENGTH // 4) + "a" + "|b]" * (LENGTH // 4),
    "nested weights": "(a" * (LENGTH // 8) + ":1.01)" * (LENGTH // 8),
    "many alternations": "[a|b]" * (LENGTH // 5),
    "spaces before no BREAK": " " * LENGTH + "BREA",
    "colon and spaces": "(a:" + " " * LENGTH,
    "digits": "(a:" + "1" * LENGTH,
    "spaces before no weight": "a" + " " * LENGTH + ": x",
    "networks without an end": "<a:" * (LENGTH // 3),
    "backslashes": "\\" * LENGTH,
    "mismatched": "[)" * (LENGTH // 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize(
    "parse", [parse_attention, lambda text: parse_schedule(text, 10), parse_composable, take_extra_networks],
    ids=["attention", "schedule", "composable", "networks"],
)  # fmt: skip
def test_long_prompts_are_no_attack(parse, text):
    assert growth(parse, text) < 100
