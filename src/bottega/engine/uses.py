"""Adapters as people write them, `<lora:name:0.8>` in a prompt or `name:0.8` in a command, and as a recipe has them.

The grammar is that of stable-diffusion-webui, `<lora:name:text encoder:UNet>`, with names for the rest: `te=`, `unet=`,
`start=`, `end=`, and a block's name for a factor of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite

from bottega.errors import FieldProblem, InvalidRecipe
from bottega.library import Entry
from bottega.recipe import Recipe, Ref, Use

KIND_OF_TAG = {"lora": "lora", "lyco": "lora", "hypernet": "hypernetwork"}
TAG_OF_KIND = {"lora": "lora", "hypernetwork": "hypernet"}
# What can be said of a use beside what it is, by kind; nothing of the others.
FIELDS_OF = {
    "lora": ("weight", "unet", "text_encoder", "blocks", "start", "end"),
    "hypernetwork": ("weight", "start", "end"),
}
ORDER = ("lora", "hypernetwork", "embedding", "vae")
PROMPT = "prompt"
WITHOUT_STRENGTH = {"embedding": "weigh its word in the prompt, as in (word:1.2)", "vae": "leave the number out"}
MOST = 100.0  # a strength beyond this is a slip of the finger


@dataclass(frozen=True)
class Asked:
    """A use of an adapter, the field of the recipe that asks for it, and how it is written in a prompt, if it is."""

    use: Use
    field: str
    tag: str = ""

    def problem(self, what: str, remedy: str = "", within: str = "") -> FieldProblem:
        """Something that is wrong with it, or with a field of it."""
        if self.tag:
            return FieldProblem(self.field, f"{self.tag}: {what}", remedy)
        return FieldProblem(f"{self.field}.{within}" if within else self.field, what, remedy)


def take_tags(prompt: str) -> tuple[str, list[Asked]]:
    """A prompt without the adapters that it names, and those; a prompt that names none is given back as it is.

    Where a tag stood between two spaces, one stays. Raises InvalidRecipe for tags that can't be read, all at once.
    """
    from bottega.diffusion.prompt import find_extra_networks

    rest, at = "", 0
    asked: list[Asked] = []
    problems: list[FieldProblem] = []
    for begin, end, network in find_extra_networks(prompt):
        rest, at = rest + prompt[at:begin], end
        if (not rest or rest[-1].isspace()) and prompt[at : at + 1].isspace():
            at += 1
        kind, tag = KIND_OF_TAG.get(network.kind.lower()), f"<{network.kind}:{network.name}>"
        if kind is None:
            remedy = f"there are {', '.join(KIND_OF_TAG)}; take it out"
            problems.append(FieldProblem(PROMPT, f"{tag}: no kind of adapter is called {network.kind}", remedy))
            continue
        try:
            asked.append(Asked(_use(kind, network.name, network.args, network.named_args.items()), PROMPT, tag))
        except _Unreadable as error:
            problems.append(FieldProblem(PROMPT, f"{tag}: {error}", error.remedy))
    if problems:
        raise InvalidRecipe(problems)
    if not asked:
        return prompt, []
    return (rest + prompt[at:]).strip(), asked


def without_unknown(prompt: str) -> tuple[str, list[str]]:
    """A prompt without the tags of kinds that are none here, which stable-diffusion-webui passes over, and those tags.

    Where a tag stood between two spaces, one stays.
    """
    from bottega.diffusion.prompt import find_extra_networks

    left, unknown = prompt, []
    for begin, end, network in reversed(list(find_extra_networks(prompt))):
        if network.kind.lower() not in KIND_OF_TAG:
            is_apart = prompt[end : end + 1].isspace() and (not begin or prompt[begin - 1].isspace())
            left = left[:begin] + left[end + is_apart :]
            unknown.append(prompt[begin:end])
    return left, unknown[::-1]


def use_of(kind: str, text: str) -> Use:
    """What `name:0.8`, `name:1:0.5` or `name:0.8:start=0.2` asks for; a name may have colons itself.

    Raises InvalidRecipe for what can't be read.
    """
    parts = text.split(":")
    begin = len(parts)
    while begin > 1 and ("=" in parts[begin - 1] or _number(parts[begin - 1]) is not None):
        begin -= 1
    told = parts[begin:]
    named = [(key, value) for key, equals, value in (part.partition("=") for part in told) if equals]
    try:
        return _use(kind, ":".join(parts[:begin]), [part for part in told if "=" not in part], named)
    except _Unreadable as error:
        raise InvalidRecipe([FieldProblem("adapters", f"{text}: {error}", error.remedy)]) from None


class _Unreadable(ValueError):
    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what)
        self.remedy = remedy


def _use(kind: str, name: str, args: Sequence[str], named: Iterable[tuple[str, str]]) -> Use:
    if not name.strip():
        raise _Unreadable("has no name")
    named = list(named)
    if len(args) > 2 or any(key.strip().lower() == "dyn" for key, _ in named):
        raise _Unreadable("a third number, or dyn=, asks for a lower rank, which can't be had here", "leave it out")
    strengths = [_read(text) for text in args]
    blocks: dict[str, float] = {}
    parts: dict[str, float] = {}
    for key, text in named:
        own = key.strip().lower()
        if own in ("te", "unet", "start", "end"):
            parts[own] = _read(text)
        else:
            blocks[key.strip().upper()] = _read(text)
    both = strengths[0] if strengths else 1.0
    text_encoder = parts.get("te", both)
    unet = parts.get("unet", strengths[1] if len(strengths) > 1 else text_encoder)
    return Use(
        kind=kind,
        ref=Ref(name=name.strip()),
        weight=text_encoder,
        unet=unet,
        blocks=blocks,
        start=parts.get("start", 0.0),
        end=parts.get("end", 1.0),
    )


def _read(text: str) -> float:
    if (number := _number(text)) is None:
        raise _Unreadable(f"{text!r} is no number")
    return number


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) else None


def ordered(uses: Iterable[Use]) -> tuple[Use, ...]:
    """Uses in the one order in which all recipes have them; LoRA and hypernetworks stay in that of whoever asked.

    No kind minds what was attached of another before.
    """
    ranks = {kind: rank for rank, kind in enumerate(ORDER)}
    return tuple(
        sorted(uses, key=lambda use: (ranks.get(use.kind, len(ranks)), use.ref.name if use.kind == "embedding" else ""))
    )


def normal(use: Use) -> Use:
    """The same use, written in the one way that all equal ones are written, so that they make the same digest."""
    unet = use.strength("unet")
    weight = unet if use.kind == "hypernetwork" else use.strength("text_encoder")  # which changes the UNet alone
    return use.model_copy(
        update={
            "weight": weight,
            "text_encoder": None,
            "unet": None if unet == weight else unet,
            "blocks": {name: factor for name, factor in sorted(use.blocks.items()) if factor != 1},
        }
    )


def problems_of(use: Use, blocks: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """What is wrong with the numbers of a use: the field, what it is, and a remedy; `blocks` are the model's."""
    if use.kind in WITHOUT_STRENGTH and use != Use(kind=use.kind, ref=use.ref):
        yield "weight", f"the {use.kind} {use.ref.name} is used as it is, or not at all", WITHOUT_STRENGTH[use.kind]
        return
    if use.kind == "hypernetwork" and use.blocks:
        yield "blocks", "a hypernetwork works in all blocks alike", "leave them out"
        return
    for field in ("weight", "unet", "text_encoder"):
        value = getattr(use, field)
        if value is not None and not -MOST <= value <= MOST:
            yield field, f"{value:g} is not between {-MOST:g} and {MOST:g}", ""
    for name, factor in use.blocks.items():
        if name not in blocks:
            yield f"blocks.{name}", "is no block of this model", f"there are {', '.join(blocks)}" if blocks else ""
        elif not -MOST <= factor <= MOST:
            yield f"blocks.{name}", f"{factor:g} is not between {-MOST:g} and {MOST:g}", ""
    if not 0 <= use.start < use.end <= 1:
        yield (
            "start",
            f"it works from {use.start:g} to {use.end:g} of the steps",
            "both are from 0 to 1, the first is less",
        )


def with_tags(recipe: Recipe) -> str:
    """The prompt of a recipe with its adapters in it again, as stable-diffusion-webui writes them."""
    tags = [tag for use in recipe.adapters if (tag := _tag(use))]
    return " ".join(filter(None, [recipe.prompt, "".join(tags)]))


def _tag(use: Use) -> str:
    """`<lora:name:0.8>`; empty for a kind that has no tag."""
    kind = TAG_OF_KIND.get(use.kind)
    if kind is None:
        return ""
    return f"<{kind}:{tag_name(use.ref.name)}:{strengths(use)}>"


def strengths(use: Use) -> str:
    """How strongly and when an adapter is used, as it stands behind its name: `0.8`, `1:0.5:IN04=0:start=0.2`."""
    told = [written(use.weight)] if use.unet is None else [written(use.weight), written(use.unet)]
    told += [f"{name}={written(factor)}" for name, factor in use.blocks.items()]
    told += [f"start={written(use.start)}"] if use.start != 0 else []
    told += [f"end={written(use.end)}"] if use.end != 1 else []
    return ":".join(told)


def tag_name(name: str) -> str:
    """A name as it may stand in a tag, as stable-diffusion-webui shortens it for its list of hashes."""
    return name.replace(":", "").replace(",", "").replace(">", "")


def short_hash(entry: Entry) -> str:
    """The 12 digits by which stable-diffusion-webui knows an adapter: of a LoRA's tensors alone where it can be."""
    known = entry.autov3 if entry.kind == "lora" else None
    return (known or entry.sha256 or "")[:12]


def written(number: float) -> str:
    """A number as it is written: 1 and not 1.0."""
    return repr(float(number)).removesuffix(".0")
