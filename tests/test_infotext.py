"""A1111's `parameters` text: read as A1111 reads it, written as it writes it, and never slow."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from conftest import growth

from bottega.formats import infotext

PARITY = Path(__file__).parents[2] / "shared" / "parity" / "infotext.json"
CASES = json.loads(PARITY.read_text()) if PARITY.exists() else []
LINE = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x768"


@pytest.mark.skipif(not CASES, reason=f"{PARITY} is not there")
def test_texts_are_split_as_by_a1111() -> None:
    for text, fields in CASES:
        assert infotext.parse_fields_raw(text) == fields, text


def test_a_text_comes_in_its_parts() -> None:
    told = infotext.parse(f'a cat,\n\nred: yes\nNegative prompt: blurry\nbad\n{LINE}, Model: "a, b: c"')
    assert (told.prompt, told.negative) == ("a cat,\n\nred: yes", "blurry\nbad")
    assert told.fields == {
        "Steps": "20", "Sampler": "Euler a", "CFG scale": "7", "Seed": "1", "Size-1": "512", "Size-2": "768",
        "Model": "a, b: c",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("Aa: 1, Bb: , Cc: 3", {"Aa": "1", "Cc": "3"}),  # an empty value is no field
        ('Aa: "", Bb: 2, Cc: 3', {"Aa": "", "Bb": "2", "Cc": "3"}),  # but a quoted one is
        ('Aa: "x, Bb: 2, Cc: 3', {"Aa": '"x', "Bb": "2", "Cc": "3"}),  # a quote that never closes
        ('Aa: "x" y, Bb: 2, Cc: 3', {"Aa": '"x" y', "Bb": "2", "Cc": "3"}),
        ('Aa: "\\q", Bb: 2, Cc: 3', {"Aa": '"\\q"', "Bb": "2", "Cc": "3"}),  # no JSON escape
        ('Aa: ", Bb: 2, Cc: 3', {"Aa": '"', "Bb": "2", "Cc": "3"}),
        ('Aa: "1x2", Bb: 2 , Cc: x3', {"Aa-1": "1", "Aa-2": "2", "Bb": "2 ", "Cc": "x3"}),
        ("x: 1, -Ab/c d: 2, é_: 3, Dd: a: b", {"Ab/c d": "2", "é_": "3", "Dd": "a: b"}),  # one letter is no key
        ("(Aa: 1, [Bb: 2, !!Cc: 3", {"Aa": "1", "Bb": "2", "Cc": "3"}),
    ],
)  # fmt: skip
def test_odd_last_lines(line: str, fields: dict[str, str]) -> None:
    assert infotext.parse(f"a\n{line}").fields == fields


def test_civitais_json_does_not_cut_the_rest_to_pieces() -> None:
    resources = [
        {"type": "checkpoint", "modelVersionId": 128713, "modelName": "Dream, Shaper: 8", "weight": 0.8},
        {"type": "lora", "air": "urn:air:sd1:lora:civitai:1@2", "tags": ["a, b", "c: d"]},
    ]
    hashes = {"model": "879db523c3", "lora:x, y": "0ab1f2c3d4e5", "embed:EasyNegative": "c74b4e810b03"}
    text = (
        f'a cat\n{LINE}, Model hash: 000, Lora hashes: "detail: 7c6b, old: 99", Civitai resources: '
        f"{json.dumps(resources)}, Hashes: {json.dumps(hashes)}, Clip skip: 2, Civitai metadata: {{}}"
    )
    told = infotext.parse(text)
    assert told.resources == tuple(resources)
    assert told.hashes == {"lora:detail": "7c6b", "lora:old": "99", **hashes}
    assert told.fields["Clip skip"] == "2" and told.fields["Civitai metadata"] == "{}"
    assert "Hashes" not in told.fields and not any(key.startswith(("model", "type")) for key in told.fields)


@pytest.mark.parametrize(
    "value", ["{", '{"a": 1', "[1, 2", "{'a': 1}", "[" * 5000, "[" + "9" * 5000 + "]", '{"a": "b"} x']
)
def test_broken_json_is_an_ordinary_value(value: str) -> None:
    told = infotext.parse(f"a\n{LINE}, Hashes: {value}, Clip skip: 2")
    assert told.fields["Clip skip"] == "2" and told.prompt == "a" and told.hashes == {}


def test_json_inside_of_quotes_stays_there() -> None:
    told = infotext.parse(f'a\n{LINE}, Hires prompt: "x, Hashes: {{}}, y", Clip skip: 2')
    assert told.fields["Hires prompt"] == "x, Hashes: {}, y" and told.fields["Clip skip"] == "2"


def test_what_is_written_is_read_again() -> None:
    chance = random.Random(1)
    pieces = ["a", "é", "雪", "🦊", ",", ":", '"', "\\", "\n", " ", "x", "Steps: 1", "Negative", "5x", "{", "]"]

    def value() -> str:
        return "".join(chance.choice(pieces) for _ in range(chance.randint(1, 8)))

    for _ in range(3000):
        fields = {
            "Steps": "20",
            "Sampler": "Euler",
            "Size": "64x128",
            "Model": value(),
            "Extra 1": value(),
            "RNG": "CPU",
        }
        prompt = " ".join(value().split()) + "."
        text = infotext.format(prompt, "no: x", fields)
        told = infotext.parse(text)
        assert (told.prompt, told.negative) == (prompt, "no: x")
        assert infotext.format(told.prompt, told.negative, told.fields) == text


def test_fields_are_written_in_a1111s_order_and_manner() -> None:
    fields = {
        "User": "me", "Version": "v1", "My own": "a, b", "Size": "512x512", "Steps": 20, "Seed": 7, "VAE": None,
        "Sampler": "Euler a", "Hires fix": "Hires fix", "RNG": "CPU", "Clip skip": 2, "ENSD": 31337, "CFG scale": 7.5,
        "Mask blur": 4,
    }  # fmt: skip
    assert infotext.format("a cat", "", fields) == (
        "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 7, Size: 512x512, Clip skip: 2, ENSD: 31337, "
        'RNG: CPU, My own: "a, b", Hires fix, Mask blur: 4, Version: v1, User: me'
    )
    assert infotext.format("", "bad", {"Steps": 1}) == "Negative prompt: bad\nSteps: 1"
    assert infotext.format("only words", "", {}) == "only words"
    hashes = '{"model": "0a", "lora:b": "1c"}'
    assert infotext.format("a", "", {"Hashes": hashes}) == f"a\nHashes: {hashes}"
    assert infotext.format("a", "", {"Hashes": "{broken, "}) == 'a\nHashes: "{broken, "'


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain words", "plain words"),
        ("a, b", '"a, b"'),
        ("a: b", '"a: b"'),
        ("a\nb", '"a\\nb"'),
        ("雪, 🦊", '"雪, 🦊"'),
        ('say "x"', 'say "x"'),
        ('"x"', '"\\"x\\""'),
        ('back\\slash, "quote"', '"back\\\\slash, \\"quote\\""'),
    ],
)
def test_values_are_quoted_where_they_would_be_misread(value: str, written: str) -> None:
    assert infotext.quote(value) == written
    assert infotext.unquote(written) == value


def defaults(text: str) -> dict[str, str]:
    return infotext.with_defaults(infotext.parse_fields_raw(text))


def test_missing_fields_mean_what_a1111_means() -> None:
    full = defaults(f"a cat\n{LINE}")
    for key, value in {
        "Clip skip": "1", "RNG": "GPU", "Schedule type": "Automatic", "Hires sampler": "Use same sampler",
        "Hires schedule type": "Use same scheduler", "Hires checkpoint": "Use same checkpoint", "Hires resize-1": "0",
        "VAE Encoder": "Full", "VAE Decoder": "Full", "Mask mode": "Inpaint masked", "Masked content": "original",
        "Inpaint area": "Whole picture", "Masked area padding": "32", "FP8 weight": "Disable",
        "Refiner switch by sampling steps": "False", "Seed": "1", "Prompt": "a cat",
    }.items():  # fmt: skip
        assert full[key] == value, key
    assert "Emphasis" not in full and "Downcast alphas_cumprod" not in full
    assert defaults(f"a (cat)\n{LINE}")["Emphasis"] == "Original"
    assert defaults(f"a\nNegative prompt: [dog]\n{LINE}, Emphasis: No norm")["Emphasis"] == "No norm"
    assert "Emphasis" not in defaults(f"a \\(cat\\)\n{LINE}")
    assert defaults(f"a\n{LINE}, Clip skip: 2, RNG: CPU")["RNG"] == "CPU"
    assert infotext.with_defaults({})["Prompt"] == ""


@pytest.mark.parametrize(
    ("version", "sampler", "gates"),
    [
        ("v1.5.2", "DDIM", {"Old prompt editing timelines", "Pad conds v0", "Downcast alphas_cumprod", "Refiner"}),
        ("v1.5.2", "Euler", {"Old prompt editing timelines", "Downcast alphas_cumprod", "Refiner"}),
        ("1.6.0", "PLMS", {"Downcast alphas_cumprod", "Refiner"}),
        ("v1.7.0", "PLMS", {"Downcast alphas_cumprod", "Refiner"}),
        ("v1.7.0-224-gabc", "DDIM", {"Downcast alphas_cumprod", "Refiner"}),
        ("v1.7.0-225-gabc", "DDIM", {"Refiner"}),
        ("v1.8.0", "DDIM", set()),
        ("v1.10.1", "DDIM", set()),
        ("f2.0.1v1.10.1", "DDIM", set()),
        ("f0.0.17v1.7.0", "Euler", {"Downcast alphas_cumprod", "Refiner"}),
        ("ComfyUI", "DDIM", set()),
    ],
)
def test_old_versions_say_what_they_did(version: str, sampler: str, gates: set[str]) -> None:
    full = defaults(f"[a:b:5]\nSteps: 20, Sampler: {sampler}, Seed: 1, Refiner: x, Version: {version}")
    names = {
        "Old prompt editing timelines": "Old prompt editing timelines",
        "Pad conds v0": "Pad conds v0",
        "Downcast alphas_cumprod": "Downcast alphas_cumprod",
        "Refiner": "Refiner switch by sampling steps",
    }
    assert {name for name, key in names.items() if full.get(key) == "True"} == gates


@pytest.mark.parametrize(
    ("size", "first", "size_after", "resize_after"),
    [
        ("1024x1024", "512x512", ("512", "512"), ("1024", "1024")),
        ("1024x512", "0x0", ("768", "384"), ("1024", "512")),  # 724.1 x 362.0, rounded up to 64
        ("0x0", "0x0", ("0", "0"), ("0", "0")),
    ],
)
def test_old_hires_fix(size: str, first: str, size_after: tuple, resize_after: tuple) -> None:
    full = defaults(f"a\nSteps: 20, Seed: 1, Size: {size}, First pass size: {first}")
    assert (full["Size-1"], full["Size-2"]) == size_after
    assert (full["Hires resize-1"], full["Hires resize-2"]) == resize_after


def test_networks_outside_of_the_prompt_join_it() -> None:
    assert defaults(f"a\n{LINE}, Hypernet: anime_3, Hypernet strength: 0.8")["Prompt"] == "a<hypernet:anime_3:0.8>"
    assert defaults(f"a\n{LINE}, Hypernet: x")["Prompt"] == "a<hypernet:x:1.0>"
    added = f"a\n{LINE}, AddNet Module 1: LoRA, AddNet Model 1: cut(a1b2), AddNet Weight A 1: 0.6"
    assert defaults(added)["Prompt"] == "a<lora:cut:0.6>"


@pytest.mark.parametrize(
    "piece",
    ["a", " ", "-", "\n", "a:", "aa:", 'aa:"', 'aa: "\\"', 'aa:"x",', "[", "(", "\\", "aa:\t", "a1:1x1,", "-/ ", '"',
     ",", "9", "v1.1.", "Hashes: [", "Hashes: [[", "Hashes: {", "Hashes: [1, ", 'Hashes: {"a":"', "Negative prompt:",
     "AddNet Module 1: LoRA,"],
)  # fmt: skip
def test_a_megabyte_of_hostile_text_takes_linear_time(piece: str) -> None:
    def read(text: str) -> None:
        told = infotext.parse(text)
        infotext.with_defaults({"Prompt": told.prompt, "Version": text, "Size-1": text, "First pass size-1": text})

    assert growth(read, piece * (1_000_000 // len(piece))) < 100
