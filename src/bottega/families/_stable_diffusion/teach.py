"""Stable Diffusion as the training loop sees it: latents and captions in, errors out, gradients on the way back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bottega.diffusion.clip_tokenizer import CHUNK
from bottega.diffusion.conditioning import POSITIONS, TextEncoder, fourier_features
from bottega.diffusion.schedules import alphas_from_betas, rescale_zero_terminal_snr, stable_diffusion_alphas
from bottega.families._stable_diffusion import pictures
from bottega.families._stable_diffusion.recognise import V
from bottega.spec import Shown

if TYPE_CHECKING:
    from bottega.families._stable_diffusion.load import Pipe

_PLAIN_UP_TO = 1024  # tokens: beyond, all their products with each other take too much memory
_KEPT_UP_TO = 256  # tokens: beyond, the products are computed once more on the way back instead of being kept
_NEW = -1  # in the place of a token: the next vector of a new word


class Said(NamedTuple):
    """What the network hears of some captions: `context` (B, 77 n, width), and for SD XL `pooled` (B, width)."""

    context: Tensor
    pooled: Tensor | None

    def to(self, device: torch.device) -> Said:
        """The same on another device."""
        return Said(self.context.to(device), None if self.pooled is None else self.pooled.to(device))


class PlainAttention:
    """Attention by two matrix products: on a CPU its backward pass is several times faster than the fused one."""

    def __call__(
        self, attn: nn.Module, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: object
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        if query.shape[1] > _PLAIN_UP_TO:
            query, key, value = (part.unflatten(2, (attn.heads, -1)).transpose(1, 2) for part in (query, key, value))
            mixed = nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        else:
            query, key, value = (_heads(part, attn.heads) for part in (query * attn.scale, key, value))
            if min(query.shape[1], key.shape[1]) > _KEPT_UP_TO:
                mixed = checkpoint(_attend, query, key, value, use_reentrant=False, preserve_rng_state=False)
            else:
                mixed = _attend(query, key, value)
            mixed = mixed.unflatten(0, (-1, attn.heads)).transpose(1, 2).flatten(2)
        return attn.to_out[0](mixed)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(n, length, width) of each; the queries are scaled already."""
    scores = torch.bmm(query, key.transpose(1, 2))
    return torch.bmm(torch.softmax(scores, dim=-1, dtype=scores.dtype), value)


def _heads(part: Tensor, heads: int) -> Tensor:
    """(n, length, width) to (n * heads, length, width / heads)."""
    return part.unflatten(2, (heads, -1)).transpose(1, 2).flatten(0, 1)


def ready(pipe: Pipe, checkpointing: bool) -> None:
    """Prepares a pipe to be taught: attention that is fast on the way back, and if asked activations computed twice."""
    if pipe.place.torch_device.type == "cpu":
        pipe.unet.set_attn_processor(PlainAttention())
    if pipe.sizes:
        pipe.unet.add_time_proj = nn.Identity()  # the sizes come embedded
    if checkpointing:
        pipe.unet.enable_gradient_checkpointing()
        pipe.unet.train()  # or it would not; no layer of it is any different otherwise
        for encoder in pipe.text_encoders:
            encoder.model.activation_checkpointing_enable()
            encoder.model.train()


def networks(pipe: Pipe) -> dict[str, nn.Module]:
    """The UNet and the text encoders, by the part that each is."""
    return {"unet": pipe.unet, **{name: encoder.model for name, encoder in _encoders(pipe)}}


def _encoders(pipe: Pipe) -> Iterator[tuple[str, TextEncoder]]:
    return zip(("text_encoder", "text_encoder_2"), pipe.text_encoders, strict=False)


@torch.no_grad()
def encode(pipe: Pipe, pixels: Tensor) -> Tensor:
    """The latents, (B, C, h, w) in float32, of pictures (B, 3, H, W) in -1..1: the mean of what the VAE says."""
    return pictures.encode(pipe, pixels)


# --- words -----------------------------------------------------------------------------------------------------------


def chunks(pipe: Pipe, caption: str) -> int:
    """How many chunks of 75 tokens a caption takes."""
    longest = max(len(encoder.tokenizer.encode(caption)) for encoder in pipe.text_encoders)
    return max(-(-longest // CHUNK), 1)


def words(pipe: Pipe, text: str) -> dict[str, Tensor]:
    """The vectors, (n, width) in float32, of a text's tokens, by text encoder."""
    found = {}
    for name, encoder in _encoders(pipe):
        table = _table(encoder).weight
        ids = torch.tensor(encoder.tokenizer.encode(text), dtype=torch.long, device=table.device)
        found[name] = table[ids].detach().float().cpu()
    return found


def say(
    pipe: Pipe, captions: Sequence[str], count: int, clip_skip: int, vectors: Mapping[str, Mapping[str, Tensor]]
) -> Said:
    """What the network hears of captions, each cut or filled to `count` chunks. Captions mean what they say: brackets
    give no weight. A word of `vectors` stands for its vectors, (n, width) by text encoder."""
    contexts, pooled = [], None
    for name, encoder in _encoders(pipe):
        new = {word: parts[name] for word, parts in vectors.items()}
        context, found = _read(encoder, captions, count, clip_skip, new)
        contexts.append(context)
        pooled = pooled if found is None else found
    return Said(torch.cat(contexts, dim=2), pooled)


def _read(
    encoder: TextEncoder, captions: Sequence[str], count: int, clip_skip: int, new: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor | None]:
    model, tokenizer = encoder.model, encoder.tokenizer
    filler = tokenizer.end if encoder.pad is None else encoder.pad
    rows, inserted = [], []
    for caption in captions:
        pieces = list(_pieces(encoder, caption, new))[: count * CHUNK]
        inserted += [piece for piece in pieces if isinstance(piece, Tensor)]
        ids = [_NEW if isinstance(piece, Tensor) else piece for piece in pieces]
        for at in range(0, count * CHUNK, CHUNK):
            row = [tokenizer.start, *ids[at : at + CHUNK], tokenizer.end]
            rows.append(row + [filler] * (POSITIONS - len(row)))
    device = next(model.parameters()).device
    ids = torch.tensor(rows, device=device)
    layer = clip_skip if encoder.obeys_clip_skip else encoder.layer
    with ExitStack() as stack:
        if new:
            stack.enter_context(_inserted(encoder, ids == _NEW, inserted))
        output = model(input_ids=ids.clamp_min(0), output_hidden_states=True)
    context = output.hidden_states[-layer]
    if encoder.final_norm:
        context = getattr(model, "text_model", model).final_layer_norm(context)
    context = context.unflatten(0, (len(captions), count)).flatten(1, 2)
    pooled = None
    if encoder.pooled:
        first = torch.arange(0, len(rows), count, device=device)
        # Where the end is: the first of its id, and in a full chunk the last position.
        end = (ids[first] == tokenizer.end).int().argmax(dim=1)
        pooled = model.text_projection(output.last_hidden_state[first, end])
    return context, pooled


def _pieces(encoder: TextEncoder, caption: str, new: Mapping[str, Tensor]) -> Iterator[int | Tensor]:
    """The ids of a caption's tokens; in the place of a new word its vectors."""
    if not new:
        yield from encoder.tokenizer.encode(caption)
        return
    pattern = "|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in new)
    by_word = {word.lower(): vectors for word, vectors in new.items()}
    for piece in re.split(f"({pattern})", caption, flags=re.IGNORECASE):
        vectors = by_word.get(piece.lower())
        yield from encoder.tokenizer.encode(piece) if vectors is None else vectors


@contextmanager
def _inserted(encoder: TextEncoder, places: Tensor, vectors: Sequence[Tensor]) -> Iterator[None]:
    """Until the block ends, the table of tokens answers with these vectors in these places (B, 77)."""

    def put(module: nn.Module, args: object, output: Tensor) -> Tensor:
        if not vectors:
            return output
        stacked = torch.stack([*vectors]).to(output.device, output.dtype)
        return output.masked_scatter(places.unsqueeze(-1).expand_as(output), stacked)

    handle = _table(encoder).register_forward_hook(put)
    try:
        yield
    finally:
        handle.remove()


def _table(encoder: TextEncoder) -> nn.Embedding:
    return encoder.model.get_input_embeddings()


# --- noise -----------------------------------------------------------------------------------------------------------


def _alphas(pipe: Pipe) -> Tensor:
    """The share of picture that is left at each time, in float32."""
    start, end, count = (pipe.schedule[key] for key in ("beta_start", "beta_end", "num_train_timesteps"))
    if pipe.schedule["beta_schedule"] == "linear":
        alphas = alphas_from_betas(torch.linspace(start, end, count, dtype=torch.float64))
    else:
        alphas = stable_diffusion_alphas(start, end, count)
    return (rescale_zero_terminal_snr(alphas) if pipe.zero_snr else alphas).float()


def signal(pipe: Pipe) -> tuple[Tensor, bool]:
    """The signal-to-noise ratio at each time, and whether the UNet predicts v."""
    alphas = _alphas(pipe)
    return alphas / (1 - alphas), pipe.prediction == V


def errors(pipe: Pipe, latents: Tensor, said: Said, shown: Sequence[Shown], noise: Tensor, times: Tensor) -> Tensor:
    """The squared errors, (B, C, h, w) in float32, of what the UNet makes of latents that were noised to `times`."""
    device, dtype = pipe.place.torch_device, next(pipe.unet.parameters()).dtype
    latents, noise, times = latents.to(device), noise.to(device), times.to(device)
    level = _alphas(pipe).to(device)[times].view(-1, 1, 1, 1)
    noisy = level.sqrt() * latents + (1 - level).sqrt() * noise
    wanted = level.sqrt() * noise - (1 - level).sqrt() * latents if pipe.prediction == V else noise
    added = None
    if pipe.sizes:
        assert said.pooled is not None
        numbers = torch.tensor([[*each.original, *each.crop, *each.target] for each in shown], device=device)
        width = pipe.unet.config.addition_time_embed_dim or 256
        sizes = fourier_features(numbers.flatten(), width).reshape(len(shown), -1)
        vector = torch.cat([said.pooled.float(), sizes], dim=1).to(dtype)
        added = {"text_embeds": vector[:, :1], "time_ids": vector[:, 1:]}  # it joins them again
    guess = pipe.unet(
        noisy.to(dtype),
        times,
        encoder_hidden_states=said.context.to(dtype),
        added_cond_kwargs=added,
        return_dict=False,
    )[0]
    return (guess.float() - wanted).square()


# --- hypernetworks ---------------------------------------------------------------------------------------------------


def hears(pipe: Pipe) -> dict[int, dict[str, list[nn.Module]]]:
    """The modules that make keys and values of what attention hears, by the width of that."""
    found: dict[int, dict[str, list[nn.Module]]] = {}
    for name, module in pipe.unet.named_modules():
        kind = name.rpartition(".")[2]
        if kind in ("to_k", "to_v"):
            found.setdefault(module.in_features, {"k": [], "v": []})[kind[-1]].append(module)
    return dict(sorted(found.items()))
