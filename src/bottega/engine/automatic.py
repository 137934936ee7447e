"""What a recipe means without saying it: the embeddings that its words name, and the VAE beside its checkpoint.

Both are found as stable-diffusion-webui finds them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from bottega.adapters.vae import TINY
from bottega.diffusion.prompt import parse_attention, parse_composable, schedule_parts
from bottega.recipe import Recipe, Use

NONE, AUTOMATIC = "none", "automatic"  # names for no VAE but the model's own, and for what is found


def says_all(recipe: Recipe) -> bool:
    """Whether a recipe was resolved before: then nothing is in it that it does not name."""
    sampling = recipe.sampling
    told = (recipe.size, sampling.seed, sampling.steps, sampling.sampler, sampling.guidance)
    return bool(recipe.model and recipe.model.sha256) and None not in told and "precision" in recipe.knobs


# --- VAE -------------------------------------------------------------------------------------------------------------


def is_word(use: Use, word: str) -> bool:
    """Whether a use names no VAE but says `none`, or `automatic`."""
    return use.kind == "vae" and use.ref.sha256 is None and use.ref.name.strip().lower() == word


def vaes_of(checkpoint: Path, card: str, vaes: Sequence[Path]) -> list[Path]:
    """The VAEs that go with a checkpoint, the one to take first: what its card names, else those whose names begin with
    its own, in natural order.

    A card that says `None` means the checkpoint's own VAE, whatever lies beside it.
    """
    if card.lower() == NONE:
        return []
    named = [path for path in vaes if card in (path.name, path.stem)] if card and card.lower() != AUTOMATIC else []
    stem = checkpoint.name.rpartition(".")[0] or checkpoint.name
    beside = [path for path in vaes if path.name.startswith(stem) and path != checkpoint]
    return sorted(named, key=_natural) or sorted(beside, key=_natural)


def tiny_for(family: str, found: Iterable[tuple[Path, str]]) -> Iterator[Path]:
    """The tiny autoencoders for a family's previews, of files with their variants: those for SD XL say so."""
    for path, variant in sorted(found):
        if variant in TINY and ("xl" in f"{variant} {path.name}".lower()) == (family == "sdxl"):
            yield path


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """By the numbers in a name, where there are numbers: `a2` before `a10`."""
    parts = re.split(r"(\d{1,18})", path.name.lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


# --- words -----------------------------------------------------------------------------------------------------------


def texts_of(recipe: Recipe) -> list[str]:
    """The texts of a recipe's prompts, each as far as it goes on in one piece: what is said at some steps is apart.

    It takes time in proportion to the prompts, whatever they say at how many steps.
    """
    return [
        piece
        for prompt in (*(text for text, _ in parse_composable(recipe.prompt)), recipe.negative)
        for piece in _pieces(prompt)
    ]


def _pieces(prompt: str) -> list[str]:
    parts = schedule_parts(prompt)
    if parts is None:
        return [prompt]
    pieces: list[list[str]] = []
    end = -1
    for place, text in parts:
        if place == end:
            pieces[-1].append(text)
        else:
            pieces.append([text])
        end = place + len(text)
    return ["".join(texts) for texts in pieces]


def likely(names: Iterable[str], texts: Iterable[str]) -> Iterator[str]:
    """The names that are written somewhere in texts, spaces and case aside: all that a tokenizer could find there."""
    said = frozenset().union(*map(_said, texts))
    for name in names:
        written = _squeezed(name)
        if written and any(written in words for words in said):
            yield name


@lru_cache(64)  # many recipes in a row have the same words
def _said(text: str) -> frozenset[str]:
    return frozenset(_squeezed(words) for words, _ in [*parse_attention(text), (text, 1.0)])


def _squeezed(text: str) -> str:
    return "".join(unicodedata.normalize("NFC", text).lower().split())


def named(recipe: Recipe, names: Iterable[str]) -> set[str]:
    """Which embeddings of these names the prompts of a resolved recipe name, at some step or at all of them."""
    if not (wanted := list(names)):
        return set()
    texts = texts_of(recipe)
    if not (written := list(likely(wanted, texts))):
        return set()
    from bottega.diffusion.clip_tokenizer import builtin_tokenizer, words_used

    return set(words_used(texts, written, builtin_tokenizer(), recipe.knobs.get("emphasis", "Original")))
