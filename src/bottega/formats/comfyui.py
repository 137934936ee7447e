"""What ComfyUI's node graph says of how a picture was made, in the words of A1111's text, as far as links lead to it.

A graph is what ComfyUI calls a prompt: `{id: {"class_type": name, "inputs": {name: value or [id, output]}}}`. Most
graphs hold nodes of extensions, of which there are thousands; so nodes are known by what their inputs are called, and
hardly ever by their class.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bottega.formats.infotext import Infotext, plain

_SEED = ("seed", "noise_seed")
_MODEL = ("ckpt_name", "unet_name", "model_name", "model_path")
_LATENT = ("latent_image", "latent", "samples")
# Links to what was there before a sampler began: an earlier sampler has settings of its own.
_BEFORE = (*_LATENT, "image", "images", "pixels", "mask")
_WORDLESS = (*_BEFORE, "model", "clip", "vae", "control_net", "sampler", "sigmas", "noise")
_TEXT = re.compile(r"text|string|prompt|value|t5xxl|clip_[lg]$")
_LORA = re.compile(r"lora_name(_?\d+)?")
_MAX_PASSES = 9  # each is looked for in the whole graph


@dataclass(frozen=True)
class _Node:
    kind: str
    inputs: Mapping[str, Any]


_Graph = Mapping[str, _Node]


def describe(prompt: Mapping[str, Any]) -> Infotext:
    """The prompts and settings of the first sampler, and the settings of later ones as `Pass 2` and so on.

    All is empty where no node is a sampler. Samplers, schedules and models keep ComfyUI's names.
    """
    graph = _graph(prompt)
    samplers = [node for node in _in_order(graph, _savers(graph)) if _is_sampler(graph[node])]
    if not samplers:
        return Infotext("", "", {})
    first, *later = samplers[:_MAX_PASSES]
    fields = _settings(graph, first) | {"Size": _size(graph, first), "LoRA": _loras(graph, first)}
    for number, sampler in enumerate(later, 2):
        fields[f"Pass {number}"] = ", ".join(f"{name} {value}" for name, value in _settings(graph, sampler).items())
    return Infotext(
        _words(graph, first, "positive", "negative"),
        _words(graph, first, "negative", "positive"),
        {name: value for name, value in fields.items() if value},
    )


# --- the graph -------------------------------------------------------------------------------------------------------


def _graph(prompt: Mapping[str, Any]) -> _Graph:
    return {
        name: _Node(str(told.get("class_type")), told["inputs"])
        for name, told in prompt.items()
        if isinstance(told, Mapping) and isinstance(told.get("inputs"), Mapping)
    }


def _linked(graph: _Graph, value: object) -> str | None:
    """The node that an input is linked to, if it is."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int):
        return value[0] if value[0] in graph else None
    return None


def _sources(graph: _Graph, node: str, without: Sequence[str] = ()) -> list[str]:
    """The nodes that a node takes something from, but by the inputs `without`."""
    linked = (_linked(graph, value) for name, value in graph[node].inputs.items() if name not in without)
    return [source for source in linked if source is not None]


def _upstream(graph: _Graph, start: str, without: Sequence[str] = ()) -> Iterator[str]:
    """A node and all that it depends on, the near ones first."""
    seen, waiting = {start}, deque([start])
    while waiting:
        node = waiting.popleft()
        yield node
        new = dict.fromkeys(source for source in _sources(graph, node, without) if source not in seen)
        seen.update(new)
        waiting.extend(new)


def _savers(graph: _Graph) -> list[str]:
    """The nodes that write pictures, or all where none says so."""
    return [name for name, node in graph.items() if "save" in node.kind.lower()] or list(graph)


def _in_order(graph: _Graph, ends: Sequence[str]) -> list[str]:
    """The nodes that the ends depend on, and the ends, each after what it depends on itself."""
    ordered: list[str] = []
    entered: set[str] = set()
    pending = [(node, False) for node in reversed(ends)]
    while pending:
        node, is_left = pending.pop()
        if is_left:
            ordered.append(node)
        elif node not in entered:
            entered.add(node)
            pending.append((node, True))
            pending += [(source, False) for source in _sources(graph, node)]
    return ordered


# --- what it says ----------------------------------------------------------------------------------------------------


def _is_sampler(node: _Node) -> bool:
    """Whether it walks steps from noise; `noise` and `sigmas` are links to what other samplers hold themselves."""
    return any(name in node.inputs for name in (*_SEED, "noise")) and any(
        name in node.inputs for name in ("steps", "sigmas")
    )


def _settings(graph: _Graph, sampler: str) -> dict[str, str]:
    strength = _found(graph, sampler, "denoise")
    settings = {
        "Steps": _found(graph, sampler, "steps"),
        "Sampler": _found(graph, sampler, "sampler_name"),
        "Schedule type": _found(graph, sampler, "scheduler"),
        "CFG scale": _found(graph, sampler, "cfg"),
        "Distilled CFG Scale": _found(graph, sampler, "guidance"),
        "Seed": _found(graph, sampler, *_SEED),
        "Model": _found(graph, sampler, *_MODEL),
        "Denoising strength": "" if strength == "1" else strength,
    }
    return {name: value for name, value in settings.items() if value}


def _found(graph: _Graph, sampler: str, *names: str) -> str:
    """The sampler's setting of one of these names, from the nearest node that has it; empty if there is none."""
    for node in _upstream(graph, sampler, _BEFORE):
        for name in names:
            if value := _value(graph, graph[node].inputs.get(name), names):
                return value
    return ""


def _value(graph: _Graph, value: object, names: Sequence[str]) -> str:
    """An input's value, from the node that holds it if it is linked to one; empty if that is not to be seen."""
    passed: set[str] = set()
    while (source := _linked(graph, value)) is not None and source not in passed:
        passed.add(source)
        inputs = graph[source].inputs
        named = [inputs[name] for name in (*names, "value") if name in inputs]
        if not named and len(inputs) != 1:
            return ""
        value = (named or list(inputs.values()))[0]
    if isinstance(value, Mapping):
        value = value.get("content")  # an extension's way to write what was chosen from a list with pictures
    return plain(value)


def _size(graph: _Graph, sampler: str) -> str:
    """The size of the latent that sampling begins with, where a node says it."""
    inputs = graph[sampler].inputs
    latent = next((source for name in _LATENT if (source := _linked(graph, inputs.get(name))) is not None), None)
    for node in _upstream(graph, latent) if latent is not None else ():
        sides = [_value(graph, graph[node].inputs.get(side), (side,)) for side in ("width", "height")]
        if all(sides):
            return "x".join(sides)
    return ""


def _loras(graph: _Graph, sampler: str) -> str:
    loras = []
    for node in _upstream(graph, sampler, _BEFORE):
        inputs = graph[node].inputs
        for name, value in inputs.items():
            if _LORA.fullmatch(name) and isinstance(value, str) and value not in ("", "None"):
                weight = _value(graph, inputs.get("strength_model", inputs.get("strength")), ("strength",))
                loras.append(f"{value}:{weight}" if weight else value)
            elif isinstance(value, Mapping) and isinstance(value.get("lora"), str) and value.get("on") is not False:
                loras.append(f"{value['lora']}:{value.get('strength')}")
    return ", ".join(loras)


def _words(graph: _Graph, sampler: str, role: str, other: str) -> str:
    """The texts that reach a sampler in a role, `positive` or `negative`, one to a line."""
    holders = (node for node in _upstream(graph, sampler, _BEFORE) if any(role in name for name in graph[node].inputs))
    holder = next(holders, None)
    if holder is None and role == "negative":
        return ""  # it samples without one
    texts: dict[str, None] = {}
    entered: set[str] = set()
    pending: list[tuple[str, Any]] = [(role, [holder or sampler, 0])]
    while pending:
        name, value = pending.pop()
        source = _linked(graph, value)
        if source is None:
            if isinstance(value, str) and value.strip() and (role in name or _TEXT.search(name)):
                texts[value] = None
        elif source not in entered and graph[source].kind != "ConditioningZeroOut":
            entered.add(source)
            inputs = list(graph[source].inputs.items())
            # A node with inputs for both roles passes each on by itself.
            ours = [(name, value) for name, value in inputs if role in name]
            rest = [(name, value) for name, value in inputs if other not in name and name not in _WORDLESS]
            pending += reversed(ours or rest)
    return "\n".join(texts)
