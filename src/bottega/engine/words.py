"""Finds the words of a prompt that are names of embeddings, as stable-diffusion-webui does."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping

from bottega.diffusion.names import find_sampler
from bottega.diffusion.prompt import parse_attention, parse_composable, parse_schedule
from bottega.recipe import Recipe


def texts_of(recipe: Recipe) -> list[str]:
    """Every text that the prompts of a resolved recipe say at some step, each once."""
    sampling = recipe.sampling
    assert sampling.sampler is not None and sampling.steps is not None
    sampler = find_sampler(sampling.sampler)
    calls = sampling.steps * (2 if sampler and sampler.second_order else 1)
    old = bool(recipe.knobs.get("old_prompt_editing"))
    prompts = [*(text for text, _ in parse_composable(recipe.prompt)), recipe.negative]
    said = (text for prompt in prompts for _, text in parse_schedule(prompt, calls, old_timeline=old))
    return list(dict.fromkeys(said))


def likely(names: Iterable[str], texts: Iterable[str]) -> Iterator[str]:
    """The names that are written somewhere in texts, spaces and case aside: all that a tokenizer could find there."""
    said = [_squeezed(words) for text in texts for words, _ in [*parse_attention(text), (text, 1.0)]]
    for name in names:
        written = _squeezed(name)
        if written and any(written in words for words in said):
            yield name


def _squeezed(text: str) -> str:
    return "".join(unicodedata.normalize("NFC", text).lower().split())


def named(recipe: Recipe, vectors: Mapping[str, int]) -> set[str]:
    """Which embeddings the prompts of a resolved recipe name, of those whose number of vectors is given by name."""
    from bottega.diffusion.clip_tokenizer import builtin_tokenizer, words_used

    if not vectors:
        return set()
    emphasis = recipe.knobs.get("emphasis", "Original")
    return words_used(texts_of(recipe), vectors, builtin_tokenizer(), emphasis)  # type: ignore[arg-type]
