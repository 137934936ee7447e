"""The `parameters` text in which stable-diffusion-webui (A1111) and its relatives say how a picture was made.

    <prompt, of any number of lines>
    Negative prompt: <negative prompt, of any number of lines>
    Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Model: "a, b", ...

The grammar is that of A1111 1.10's writer and parser, oddities included: prompts and settings are pasted from one
program into the next and must mean the same. One thing is better here: Civitai writes bare JSON into the last line
(`Hashes: {...}`), which A1111's parser cuts to pieces at every comma.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

PROMPT, NEGATIVE = "Prompt", "Negative prompt"

# The order in which A1111 1.10 writes; names that are not here stand where None is.
KEY_ORDER: tuple[str | None, ...] = (
    "Steps", "Sampler", "Schedule type", "CFG scale", "Image CFG scale", "Seed", "Face restoration", "Size",
    "Model hash", "Model", "FP8 weight", "Cache FP16 weight for LoRA", "VAE hash", "VAE", "Variation seed",
    "Variation seed strength", "Seed resize from", "Denoising strength", "Conditional mask weight", "Clip skip", "ENSD",
    "Token merging ratio", "Token merging ratio hr", "Init image hash", "RNG", "NGMS", "Tiling",
    None,
    "Version", "User",
)  # fmt: skip

# What a missing field means (A1111 writes a setting only where it differs).
DEFAULTS: Mapping[str, str] = {
    "Clip skip": "1",
    "RNG": "GPU",
    "Schedule type": "Automatic",
    "Schedule min sigma": "0",
    "Schedule max sigma": "0",
    "Schedule rho": "0",
    "Hires resize-1": "0",
    "Hires resize-2": "0",
    "Hires sampler": "Use same sampler",
    "Hires schedule type": "Use same scheduler",
    "Hires checkpoint": "Use same checkpoint",
    "Hires prompt": "",
    "Hires negative prompt": "",
    "Mask mode": "Inpaint masked",
    "Masked content": "original",
    "Inpaint area": "Whole picture",
    "Masked area padding": "32",
    "VAE Encoder": "Full",
    "VAE Decoder": "Full",
    "FP8 weight": "Disable",
    "Refiner switch by sampling steps": "False",
}

_JSON_KEYS = ("Civitai resources", "Hashes")
_ENOUGH = 3  # a last line with fewer fields belongs to the prompt

# A key begins at the first word character of a run of `\w`, space, `-` and `/`, and has two characters at least. The
# lookbehind pins the run's beginning and the possessive `++` never gives back, so that a search takes linear time
# whatever the text; the leftmost match is the same as without them.
_KEY = re.compile(r"(?<![\w \-/])[ \-/]*+(\w[\w \-/]++):\s*+")
_VALUE = re.compile(r'("(?:[^\\"]|\\.)++"(?=,|$)|[^,]*+)(?:,|$)')
_AFTER_JSON = re.compile(r"\s*(?:,|$)")
_SIZE = re.compile(r"^(\d+)x(\d+)$")
_VERSION = re.compile(r"(?:^|v)(\d{1,6})\.(\d{1,6})\.(\d{1,6})(?:-(\d{1,6}))?")
_OPEN_BRACKET = re.compile(r"(?<!\\)[(\[]")


@dataclass(frozen=True)
class Infotext:
    """A parsed text. `fields` are as they were written, sizes split into `Size-1` and `Size-2`.

    `resources` is Civitai's list of what was used; `hashes` joins `Hashes`, `Lora hashes`, `TI hashes` and `Hypernet
    hashes` under Civitai's names: `model`, `vae`, `lora:<name>`, `embed:<name>`, `hypernet:<name>`.
    """

    prompt: str
    negative: str
    fields: dict[str, str]
    resources: tuple[dict[str, Any], ...] = ()
    hashes: dict[str, str] = field(default_factory=dict)


def parse(text: str) -> Infotext:
    """A `parameters` text in its parts. Any text is one: without fields it is all prompt."""
    fields = parse_fields_raw(text)
    prompt, negative = fields.pop(PROMPT), fields.pop(NEGATIVE)
    resources, hashes = (_json_or_none(fields.pop(key, "")) for key in _JSON_KEYS)
    return Infotext(
        prompt,
        negative,
        fields,
        tuple(entry for entry in resources if isinstance(entry, dict)) if isinstance(resources, list) else (),
        _all_hashes(fields, hashes if isinstance(hashes, dict) else {}),
    )


def parse_fields_raw(text: str) -> dict[str, str]:
    """What A1111's parser splits before it fills in defaults; the prompts are `Prompt` and `Negative prompt`."""
    *lines, last = text.strip().split("\n")
    found = list(_scan(last))
    if len(found) < _ENOUGH:
        lines.append(last)
        found = []
    fields: dict[str, str] = {}
    for key, written in found:
        value = unquote(written)
        if size := _SIZE.match(value):
            fields[f"{key}-1"], fields[f"{key}-2"] = size.groups()
        elif written:
            fields[key] = value
    fields[PROMPT], fields[NEGATIVE] = _split_prompts(lines)
    return fields


def with_defaults(fields: Mapping[str, str]) -> dict[str, str]:
    """Raw fields, prompts included, with what A1111 understands where a field is missing or has an old form."""
    full = {**DEFAULTS, **fields}
    prompts = full.setdefault(PROMPT, "") + "\n" + full.setdefault(NEGATIVE, "")
    if _OPEN_BRACKET.search(prompts):
        full.setdefault("Emphasis", "Original")
    if full["FP8 weight"] != "Disable":
        full.setdefault("Cache FP16 weight for LoRA", "False")
    full[PROMPT] += _networks_outside_the_prompt(full)
    _restore_first_pass(full)
    full.update(_what_old_versions_did(full))
    return full


def plain(value: object) -> str:
    """A setting that another program keeps as JSON, as people write it; empty for what is no text and no number."""
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def format(prompt: str, negative: str, fields: Mapping[str, object]) -> str:
    """The text as A1111 writes it. Fields that are None are left out; `Size-1` and `Size-2` become `Size` again."""
    told = {key: str(value) for key, value in joined_sizes(fields).items() if value is not None}
    parts = [key if key == told[key] else f"{key}: {_written(key, told[key])}" for key in sorted(told, key=_place_of)]
    lines = [prompt]
    if negative:
        lines.append(f"Negative prompt: {negative}")
    if parts:
        lines.append(", ".join(parts))
    return "\n".join(lines).strip()


def joined_sizes(fields: Mapping[str, object]) -> dict[str, object]:
    """Fields with `Size-1` and `Size-2` as one `Size` again, and so with every pair of that kind."""
    joined: dict[str, object] = {}
    for key, value in fields.items():
        stem, half = key[:-2], key[-2:]
        if half == "-1" and f"{stem}-2" in fields:
            joined[stem] = f"{value}x{fields[f'{stem}-2']}"
        elif not (half == "-2" and f"{stem}-1" in fields):
            joined[key] = value
    return joined


def quote(value: str) -> str:
    """A value as it stands in the last line: in JSON's quotes where it would be misread without them."""
    misread = any(character in value for character in ",:\n") or value.startswith('"') or value != value.strip()
    return json.dumps(value, ensure_ascii=False) if misread else value


def unquote(written: str) -> str:
    """The value that quote() wrote; text that only looks quoted stays as it is."""
    if len(written) < 2 or written[0] != '"' or written[-1] != '"':
        return written
    try:
        value = json.loads(written)
    except ValueError:
        return written
    return value if isinstance(value, str) else written


def _scan(line: str) -> Iterator[tuple[str, str]]:
    """The keys and values of the last line as written, quotes included."""
    position = 0
    untried = set(_JSON_KEYS)  # one try each: a failed one takes time in proportion to the whole line
    while key := _KEY.search(line, position):
        value = None
        if key[1] in untried and line[key.end() : key.end() + 1] in ("[", "{"):
            untried.remove(key[1])
            value, position = _json_value(line, key.end())
        if value is None:
            match = _VALUE.match(line, key.end())
            assert match is not None  # `[^,]*` up to a comma or the end always matches
            value, position = match[1], match.end()
        yield key[1], value


def _json_value(line: str, start: int) -> tuple[str | None, int]:
    """The JSON value that begins at `start`, and where to go on after the comma behind it; None if there is none."""
    try:
        _, end = json.JSONDecoder().raw_decode(line, start)
    except (ValueError, RecursionError):
        return None, start
    after = _AFTER_JSON.match(line, end)
    return (line[start:end], after.end()) if after else (None, start)


def _split_prompts(lines: list[str]) -> tuple[str, str]:
    """The prompt and the negative prompt; empty lines before the first words of each are dropped."""
    prompts: tuple[list[str], list[str]] = ([], [])
    negative = False
    for line in map(str.strip, lines):
        if line.startswith("Negative prompt:"):
            negative, line = True, line.removeprefix("Negative prompt:").strip()
        if line or prompts[negative]:
            prompts[negative].append(line)
    return "\n".join(prompts[0]), "\n".join(prompts[1])


def _json_or_none(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _all_hashes(fields: Mapping[str, str], told: Mapping[str, object]) -> dict[str, str]:
    hashes = {name: fields[key] for name, key in (("model", "Model hash"), ("vae", "VAE hash")) if key in fields}
    for kind, key in (("lora", "Lora hashes"), ("embed", "TI hashes"), ("hypernet", "Hypernet hashes")):
        for entry in fields.get(key, "").split(","):
            name, colon, value = entry.strip().rpartition(":")
            if colon:
                hashes[f"{kind}:{name.strip()}"] = value.strip()
    if "Hypernet" in fields and "Hypernet hash" in fields:  # as old versions wrote the only one
        hashes[f"hypernet:{fields['Hypernet']}"] = fields["Hypernet hash"]
    return hashes | {name: value for name, value in told.items() if isinstance(value, str)}


def _networks_outside_the_prompt(fields: Mapping[str, str]) -> str:
    """Hypernetworks as old versions wrote them, and LoRAs as the Additional Networks extension did, as prompt tags."""
    tags = ""
    if "Hypernet" in fields:
        tags += f"<hypernet:{fields['Hypernet']}:{fields.get('Hypernet strength', '1.0')}>"
    for key, module in fields.items():
        if key.startswith("AddNet Module ") and module == "LoRA":
            number = key.removeprefix("AddNet Module ")
            name = fields.get(f"AddNet Model {number}", "").rpartition("(")[0] or fields.get(f"AddNet Model {number}")
            tags += f"<lora:{name}:{fields.get(f'AddNet Weight A {number}', '1.0')}>" if name else ""
    return tags


def _restore_first_pass(fields: dict[str, str]) -> None:
    """Before hires fix named its target size, `Size` was the target and `First pass size` where sampling began."""
    if "First pass size-1" not in fields or "First pass size-2" not in fields:
        return
    width, height = _pixels(fields.get("Size-1", "512")), _pixels(fields.get("Size-2", "512"))
    first = _pixels(fields["First pass size-1"]), _pixels(fields["First pass size-2"])
    if not width or not height:
        return
    if not first[0] or not first[1]:
        # 0x0 let the program choose: about 512*512 pixels, each side rounded up to a multiple of 64.
        scale = math.sqrt(512 * 512 / (width * height))
        first = math.ceil(scale * width / 64) * 64, math.ceil(scale * height / 64) * 64
    fields["Size-1"], fields["Size-2"] = str(first[0]), str(first[1])
    fields["Hires resize-1"], fields["Hires resize-2"] = str(width), str(height)


def _pixels(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 7 else 0


def _what_old_versions_did(fields: Mapping[str, str]) -> dict[str, str]:
    """The settings that make a newer program repeat what an older one did; without a version nothing is assumed."""
    # Relatives put their own version first: `f2.0.1v1.10.1`. The fourth number counts commits since the release.
    versions = _VERSION.findall(fields.get("Version", ""))
    if not versions:
        return {}
    version = tuple(int(part or 0) for part in versions[-1])
    gates = {
        "Old prompt editing timelines": version < (1, 6, 0) and "[" in fields[PROMPT],
        "Pad conds v0": version < (1, 6, 0) and fields.get("Sampler") in ("DDIM", "PLMS"),
        "Downcast alphas_cumprod": version < (1, 7, 0, 225),
        "Refiner switch by sampling steps": version < (1, 8, 0) and bool(fields.get("Refiner")),
    }
    return {key: "True" for key, applies in gates.items() if applies}


def _place_of(key: str) -> int:
    return KEY_ORDER.index(key) if key in KEY_ORDER else KEY_ORDER.index(None)


def _written(key: str, value: str) -> str:
    """Civitai's JSON stays bare, as its readers expect it; everything else is quoted where needed."""
    return value if key in _JSON_KEYS and isinstance(_json_or_none(value), dict | list) else quote(value)
