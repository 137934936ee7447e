"""Teach the text encoder what captions mean, before the UNet, as CLIP had learned before Stable Diffusion did.

The tokens from the caption's end on have read all of it. In turn they are asked what the scene's setting is, and what
stands on the left, in the middle and on the right; a linear layer that is thrown away afterwards reads the answers.
What the UNet's cross-attention finds in the tokens is therefore plain: which token to look at for a place, and in it,
one direction for every colour and shape. A caption that leaves something open is answered by its odds.
"""

from __future__ import annotations

import random
from collections import deque
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import CLIPTextModel

from bottega.starter import networks
from bottega.starter.captions import EMPTY_SHARE, caption, imagine_for, usual
from bottega.starter.networks import END_TOKEN, TEXT_WIDTH
from bottega.starter.optimizers import Optimizers
from bottega.starter.precision import mixed
from bottega.starter.progress import SAVE_EVERY, Budget, load, rate, save, say
from bottega.starter.scenes import COLOURS, PLACES, SHAPES, STYLES, WHEN, WHERE, Scene
from bottega.starter.tokens import tokens

BATCH = 64
RATE = 0.001
SETTING = (len(WHEN), len(WHERE), len(STYLES))
THING = (len(COLOURS) + 1, len(SHAPES) + 1)
QUESTIONS = (SETTING, *(THING for _ in PLACES))
"""What is asked in turn: the sizes of the choices, the last choice of a thing being that there is none."""


def answers(scene: Scene) -> list[int]:
    """The choices, in the order of `QUESTIONS`."""
    found = [WHEN.index(scene.when), WHERE.index(scene.where), STYLES.index(scene.style)]
    here = {thing.place: thing for thing in scene.things}
    for place in PLACES:
        thing = here.get(place)
        found += (
            [list(COLOURS).index(thing.colour), SHAPES.index(thing.shape)] if thing else [len(COLOURS), len(SHAPES)]
        )
    return found


def examination(
    model: CLIPTextModel, reader: torch.nn.Linear, captions: list[str], scenes: list[Scene]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean cross-entropy of all answers, and (n, 9) whether the last token that was asked was right."""
    device = reader.weight.device
    ids = tokens(captions).to(device)
    with mixed(device):
        said = reader(model(input_ids=ids).last_hidden_state).float()
    wanted = torch.tensor([answers(scene) for scene in scenes], device=device)
    ended = ids == END_TOKEN
    turn = torch.arange(ids.shape[1], device=device) % len(QUESTIONS)
    losses, right, column, choice = [], [], 0, 0
    for number, sizes in enumerate(QUESTIONS):
        asked = ended & (turn == number)
        for size in sizes:
            part = said[..., column : column + size]
            target = wanted[:, choice, None].expand(ids.shape)
            losses.append(F.cross_entropy(part[asked], target[asked]))
            last = int(torch.nonzero(turn == number).max())
            right.append(part[:, last].argmax(-1) == wanted[:, choice])
            column, choice = column + size, choice + 1
    return torch.stack(losses).mean(), torch.stack(right, dim=1)


def train(folder: Path, minutes: float, device: torch.device, seed: int = 0) -> CLIPTextModel:
    """Train (or go on training) the text encoder for so many minutes in all.

    Its state is kept in `folder`/text.safetensors.
    """
    torch.manual_seed(seed)
    model = networks.text_encoder().to(device)
    reader = torch.nn.Linear(TEXT_WIDTH, sum(map(sum, QUESTIONS)), device=device)
    both = torch.nn.ModuleList([model, reader])
    adam = torch.optim.AdamW(both.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    tools = Optimizers(adam)
    checkpoint, step, spent = folder / "text.safetensors", 0, 0.0
    if checkpoint.exists():
        state = load(checkpoint)
        both.load_state_dict(state["models"])
        tools.restore(state["tools"])
        step, spent = state["step"], state["spent"]
    rng = random.Random(seed + 1000 * step)
    budget = Budget(minutes, spent)
    recent: deque[float] = deque(maxlen=50)
    saved_at = budget.spent
    over = False
    while not over:
        over = budget.over
        scenes = [imagine_for(rng, training=True) for _ in range(BATCH)]
        captions = ["" if rng.random() < EMPTY_SHARE else caption(scene, rng) for scene in scenes]
        loss, _ = examination(model, reader, captions, scenes)
        both.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        tools.step(rate(budget.share, step))
        step += 1
        recent.append(loss.item())
        if step % 50 == 0:
            say(f"text step {step} {budget.share:.0%} loss {sum(recent) / len(recent):.4f}")
        if over or budget.spent - saved_at > SAVE_EVERY:
            state = {"models": both.state_dict(), "tools": tools.state(), "step": step, "spent": budget.spent}
            save(state, checkpoint)
            saved_at = budget.spent
    if budget.interrupted:
        raise KeyboardInterrupt
    model.requires_grad_(False).eval()
    scenes = [imagine_for(rng, training=False) for _ in range(200)]
    with torch.no_grad():
        _, right = examination(model, reader, [usual(scene) for scene in scenes], scenes)
    say(f"text: {right.all(dim=1).float().mean():.1%} of captions that it never saw are understood")
    return model
