"""Captions to the 77 token ids that Stable Diffusion 1 feeds to its text encoder."""

from __future__ import annotations

import functools

import torch

from bottega.diffusion.clip_tokenizer import CHUNK, builtin_tokenizer
from bottega.starter.networks import END_TOKEN, START_TOKEN


@functools.lru_cache(maxsize=200_000)
def _ids(caption: str) -> list[int]:
    words = builtin_tokenizer().encode(caption)[:CHUNK]
    return [START_TOKEN, *words, *[END_TOKEN] * (CHUNK + 1 - len(words))]


def tokens(captions: list[str]) -> torch.Tensor:
    """(n, 77) token ids: start, words, end, and ends to fill up."""
    return torch.tensor([_ids(caption) for caption in captions])
