"""Captions to the 77 token ids that Stable Diffusion 1 feeds to its text encoder."""

from __future__ import annotations

import functools
import gzip
from importlib import resources

import torch
from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from bottega.starter.networks import TOKENS


@functools.cache
def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's own tokenizer, built from its table of merges."""
    packed = resources.files("bottega.diffusion").joinpath("bpe_simple_vocab_16e6.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    merges = [tuple(line.split()) for line in lines]
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{c}</w>" for c in letters), *("".join(pair) for pair in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=merges)


@functools.lru_cache(maxsize=200_000)
def _ids(caption: str) -> list[int]:
    return clip_tokenizer()(caption, padding="max_length", max_length=TOKENS, truncation=True).input_ids


def tokens(captions: list[str]) -> torch.Tensor:
    """(n, 77) token ids: start, words, end, and ends to fill up."""
    return torch.tensor([_ids(caption) for caption in captions])
