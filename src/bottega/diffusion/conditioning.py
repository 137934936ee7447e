"""Turns prompts into what the network reads at each step: encoded text with emphasis, and for SDXL picture sizes.

The way is stable-diffusion-webui's, whose prompts people paste: a prompt is cut into chunks of 75 tokens, each chunk
goes through the text encoders by itself, the weights of the words multiply the outcome, and the chunks are joined
along the tokens.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from bottega.diffusion.clip_tokenizer import (
    CHUNK,
    Chunk,
    ClipTokenizer,
    Emphasis,
    NewWords,
    new_words,
    split_into_chunks,
)
from bottega.diffusion.guidance import Conditioning
from bottega.diffusion.prompt import parse_composable, parse_schedule, take_extra_networks
from bottega.errors import FieldProblem, InvalidRecipe

POSITIONS = CHUNK + 2
"""Vectors that one chunk becomes: its tokens between a start and an end."""


Embeddings = Mapping[str, Mapping[str, Tensor]]
Embedded = tuple[tuple[int, str], ...]


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """One text encoder of a model, and how that model reads it.

        SD1          layer 1, final norm, obeys clip skip
        SD2          layer 2 of OpenCLIP's 24, or 1 of the 23 that diffusers keeps; final norm, pad 0
        SDXL CLIP-L  layer 2, no final norm
        SDXL CLIP-G  layer 2, no final norm, pad 0, pooled

    `model` is a transformers CLIPTextModel, or CLIPTextModelWithProjection when it is `pooled`. `layer` counts from
    the end, 1 being the last, as the clip skip does that replaces it where it is obeyed. `pad` fills a chunk behind
    its end token; without one that is the end token again. `part` is what the model's file calls it, and embeddings.
    """

    model: nn.Module
    tokenizer: ClipTokenizer
    layer: int = 1
    final_norm: bool = True
    pad: int | None = None
    obeys_clip_skip: bool = False
    pooled: bool = False
    part: str = "text_encoder"


@dataclass(frozen=True)
class PictureSize:
    """What SDXL is told about the picture: sizes as (height, width) and the crop as (top, left), all in pixels."""

    target: tuple[int, int]
    original: tuple[int, int] | None = None
    crop: tuple[int, int] = (0, 0)
    aesthetic_score: float = 6.0
    negative_aesthetic_score: float = 2.5


class Part(NamedTuple):
    """One prompt of a composition: its weight, and what it says up to and including each of some steps."""

    weight: float
    entries: tuple[tuple[int, Conditioning], ...]

    def at(self, step: int) -> Conditioning:
        # Past the end the first entry comes again. It looks odd, but samplers that call the network more often than
        # announced get there, and this is what stable-diffusion-webui gives them.
        return next((said for until, said in self.entries if step <= until), self.entries[0][1])


@dataclass(frozen=True, eq=False)
class Schedule:
    """What a prompt says at each step; several parts when it is composed with AND."""

    parts: tuple[Part, ...]

    def at(self, step: int) -> list[tuple[Conditioning, float]]:
        """What to guide by at a step, counted from 0, and how strongly. Equal texts are one and the same object."""
        return [(part.at(step), part.weight) for part in self.parts]

    @property
    def chunks(self) -> int:
        """How many chunks the longest part takes."""
        return max(part.entries[0][1].context.shape[1] for part in self.parts) // POSITIONS


class PromptEncoder:
    """The text encoders of one model together: prompts in, schedules of conditionings out.

    Their outputs are joined along the width. `sizes` says which numbers about the picture follow the pooled text:
    those of SDXL's base model or of its refiner, or none; each is embedded in `size_width` values. With
    `zero_empty_negative` (SDXL) an empty negative prompt is all zeros instead of the encoded empty text.

    `embeddings` are vectors (n, width) of new words, by the word's name and by the part that they are for: they take
    the place of the word where a prompt has it, behind the layer that turns tokens into vectors. A text encoder that an
    embedding has no vectors for reads the word itself. Whoever gave the mapping may change it at any time.

    The last `remembered` encoded chunks are kept; call `forget` whenever the weights of a text encoder change, or what
    an embedding's name stands for.
    """

    def __init__(
        self,
        encoders: Sequence[TextEncoder],
        *,
        sizes: Literal["base", "refiner"] | None = None,
        size_width: int = 256,
        zero_empty_negative: bool = False,
        embeddings: Embeddings | None = None,
        remembered: int = 128,
    ) -> None:
        self.encoders = tuple(encoders)
        self.sizes = sizes
        self.size_width = size_width
        self.zero_empty_negative = zero_empty_negative
        self.embeddings = {} if embeddings is None else embeddings
        self.remembered = remembered
        self._encoded: OrderedDict[tuple[TextEncoder, int, tuple[int, ...], Embedded], _Encoded] = OrderedDict()

    def forget(self) -> None:
        """Drops all encoded chunks."""
        self._encoded.clear()

    def encode(
        self,
        prompt: str,
        *,
        steps: int,
        negative: bool = False,
        hires_steps: int | None = None,
        old_timeline: bool = False,
        clip_skip: int | None = None,
        emphasis: Emphasis = "Original",
        size: PictureSize | None = None,
        chunks: int = 1,
    ) -> Schedule:
        """Encodes a prompt, or a negative prompt, in which AND and extra networks are words like any other.

        `steps` is what the sampler counts: for one of second order, the calls of the network. `chunks` is how many
        chunks the result has at least. A prompt and a negative prompt of different length stay different by default,
        and guidance calls the network once for each; encoding both again with the larger `Schedule.chunks` pads the
        shorter one with the encoded empty text.
        """
        if negative:
            composition = [(prompt, 1.0)]
        else:
            text, _ = take_extra_networks(prompt)
            composition = parse_composable(text)

        parts = []
        for text, weight in composition:
            schedule = parse_schedule(text, steps, hires_steps, old_timeline)
            counts = Counter(words for _, words in schedule)
            said = self._encode_texts(counts, negative, clip_skip, emphasis, size, chunks)
            parts.append(Part(weight, tuple((until, said[words]) for until, words in schedule)))
        return Schedule(_lengthen(parts))

    def _encode_texts(
        self,
        counts: Mapping[str, int],
        negative: bool,
        clip_skip: int | None,
        emphasis: Emphasis,
        size: PictureSize | None,
        least_chunks: int,
    ) -> dict[str, Conditioning]:
        """Encodes all texts of one schedule to the same length; `counts` says how often each of them occurs in it."""
        splits = [
            {text: split_into_chunks(text, encoder.tokenizer, emphasis, words) for text in counts}
            for encoder in self.encoders
            for words in [self._new_words(encoder)]
        ]
        length = max(least_chunks, *(len(chunks) for split in splits for chunks in split.values()))
        encoded = [
            self._encode_with(encoder, split, length, counts, clip_skip, emphasis)
            for encoder, split in zip(self.encoders, splits, strict=True)
        ]
        zeroed = negative and self.zero_empty_negative and set(counts) == {""}

        said = {}
        for text in counts:
            context = torch.cat([by_text[text].context for by_text in encoded], dim=2)
            pooled = next((by_text[text].pooled for by_text in encoded if by_text[text].pooled is not None), None)
            if zeroed:
                context[:, :POSITIONS] = 0  # what follows is padding, which is the encoded empty text here too
                pooled = None if pooled is None else torch.zeros_like(pooled)
            said[text] = Conditioning(context, self._vector(pooled, size, negative))
        return said

    def _encode_with(
        self,
        encoder: TextEncoder,
        split: Mapping[str, list[Chunk]],
        length: int,
        counts: Mapping[str, int],
        clip_skip: int | None,
        emphasis: Emphasis,
    ) -> dict[str, _Encoded]:
        """Encodes texts with one encoder, as `length` chunks each; the pooled vector is that of the first chunk."""
        contexts: dict[str, list[Tensor]] = {text: [] for text in split}
        pooled: dict[str, Tensor | None] = {}
        for index in range(length):
            row = {text: chunks[index] if index < len(chunks) else Chunk() for text, chunks in split.items()}
            encoded = {text: self._encode_chunk(encoder, chunk, clip_skip) for text, chunk in row.items()}
            weighed = _emphasise({text: encoded[text].context for text in row}, row, counts, emphasis)
            for text in row:
                contexts[text].append(weighed[text])
                pooled.setdefault(text, encoded[text].pooled)
        return {text: _Encoded(torch.cat(contexts[text], dim=1), pooled[text]) for text in split}

    def _new_words(self, encoder: TextEncoder) -> NewWords:
        """The embeddings that have vectors for this encoder, for its tokenizer."""
        counts = {
            name: len(vectors[encoder.part]) for name, vectors in self.embeddings.items() if encoder.part in vectors
        }
        return new_words(counts, encoder.tokenizer)

    def _encode_chunk(self, encoder: TextEncoder, chunk: Chunk, clip_skip: int | None) -> _Encoded:
        layer = clip_skip if clip_skip and encoder.obeys_clip_skip else encoder.layer
        key = (encoder, layer, chunk.tokens, chunk.embedded)
        if key not in self._encoded:
            # One chunk at a time: in a batch the last bits would depend on what else is in it, and so on what is
            # remembered, and a recipe would not give the same picture twice.
            vectors = [(at, self.embeddings[name][encoder.part]) for at, name in chunk.embedded]
            self._encoded[key] = _run(encoder, layer, chunk.tokens, vectors)
            if len(self._encoded) > self.remembered:
                self._encoded.popitem(last=False)
        self._encoded.move_to_end(key)
        return self._encoded[key]

    def _vector(self, pooled: Tensor | None, size: PictureSize | None, negative: bool) -> Tensor | None:
        if self.sizes is None:
            return pooled
        if pooled is None or size is None:
            raise ValueError("picture sizes need a pooled text encoder and a `size`")
        score = size.negative_aesthetic_score if negative else size.aesthetic_score
        last = size.target if self.sizes == "base" else (score,)
        numbers = pooled.new_tensor([*(size.original or size.target), *size.crop, *last])
        return torch.cat([pooled, fourier_features(numbers, self.size_width).reshape(1, -1)], dim=1)


class _Encoded(NamedTuple):
    """A chunk after its text encoder, in float32: `context` is (1, 77, width), `pooled` (1, width)."""

    context: Tensor
    pooled: Tensor | None


@torch.no_grad()
def _run(
    encoder: TextEncoder, layer: int, tokens: tuple[int, ...], vectors: Sequence[tuple[int, Tensor]] = ()
) -> _Encoded:
    """Encodes the tokens of one chunk, between start and end; `vectors` take the places of tokens from a place on."""
    model, tokenizer = encoder.model, encoder.tokenizer
    ids = [tokenizer.start, *tokens] + [tokenizer.end] * (POSITIONS - 1 - len(tokens))
    end = ids.index(tokenizer.end)
    if encoder.pad is not None:
        ids[end + 1 :] = [encoder.pad] * (len(ids) - end - 1)

    device = next(model.parameters()).device
    with _replaced(model, vectors):
        output = model(input_ids=torch.tensor([ids], device=device), output_hidden_states=True)
    layers = len(output.hidden_states) - 1  # the first one is the embedding of the tokens
    if not 1 <= layer <= layers:
        raise InvalidRecipe(
            [FieldProblem("knobs.clip_skip", f"{layer} is no layer of this text encoder", f"use 1 to {layers}")]
        )
    context = output.hidden_states[-layer]
    if encoder.final_norm:
        context = getattr(model, "text_model", model).final_layer_norm(context)
    pooled = model.text_projection(output.last_hidden_state[:, end]).float() if encoder.pooled else None
    return _Encoded(context.float(), pooled)


@contextmanager
def _replaced(model: nn.Module, vectors: Sequence[tuple[int, Tensor]]) -> Iterator[None]:
    """A text encoder in which vectors stand where the tokens of a chunk would have theirs, for one call."""

    def replace_them(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        output = output.clone()
        for at, rows in vectors:
            output[:, at + 1 : at + 1 + len(rows)] = rows.to(output)  # behind the start token
        return output

    if not vectors:
        yield
        return
    hook = model.get_input_embeddings().register_forward_hook(replace_them)
    try:
        yield
    finally:
        hook.remove()


def _emphasise(
    contexts: Mapping[str, Tensor], chunks: Mapping[str, Chunk], counts: Mapping[str, int], emphasis: Emphasis
) -> dict[str, Tensor]:
    """Multiplies the vector of each token by its weight; `Original` then restores the mean of all numbers.

    That mean is over the texts of the whole schedule, each as often as it occurs, because stable-diffusion-webui
    encodes a schedule as one batch: in `(a:1.5) [b|c]`, b changes a little what a is.
    """
    unweighted = all(weight == 1.0 for chunk in chunks.values() for weight in chunk.weights)
    if unweighted or emphasis in ("Ignore", "None"):
        return dict(contexts)

    weighed = {}
    for text, context in contexts.items():
        weights = torch.ones(1, POSITIONS, 1, device=context.device)
        weights[0, 1 : 1 + len(chunks[text].weights), 0] = weights.new_tensor(chunks[text].weights)
        weighed[text] = context * weights
    if emphasis == "No norm":
        return weighed

    ratio = _mean(contexts, counts) / _mean(weighed, counts)
    return {text: context * ratio for text, context in weighed.items()}


def _mean(contexts: Mapping[str, Tensor], counts: Mapping[str, int]) -> Tensor:
    if len(contexts) == 1:
        return next(iter(contexts.values())).mean()
    return sum(context.mean() * counts[text] for text, context in contexts.items()) / sum(counts.values())


def fourier_features(numbers: Tensor, size: int = 256) -> Tensor:
    """(n,) numbers to (n, size) cosines and sines of falling frequency, cosines first, as SDXL embeds its sizes.

    The same as diffusers' `Timesteps(size, flip_sin_to_cos=True, downscale_freq_shift=0)`.
    """
    half = size // 2
    exponents = -math.log(10_000) * torch.arange(half, dtype=torch.float32, device=numbers.device) / half
    angles = numbers[:, None].float() * exponents.exp()[None, :]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def _lengthen(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Brings the parts of a composition to one length, the shorter ones by repeating their last vector."""
    longest = max(part.entries[0][1].context.shape[1] for part in parts)

    def lengthened(said: Conditioning) -> Conditioning:
        context = said.context
        missing = longest - context.shape[1]
        return replace(said, context=torch.cat([context, context[:, -1:].expand(-1, missing, -1)], dim=1))

    result = []
    for part in parts:
        if part.entries[0][1].context.shape[1] < longest:
            by_identity = {id(said): lengthened(said) for _, said in part.entries}
            part = part._replace(entries=tuple((until, by_identity[id(said)]) for until, said in part.entries))
        result.append(part)
    return tuple(result)
