"""The one loop that trains everything: it goes on exactly where it was stopped, however it was stopped.

All that is drawn by chance in a step (pictures, captions, noise, times) follows from the seed and the step's number, so
that weights, the optimiser's memory and the number of the step are the whole state.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bottega.errors import Diverged, FormatError, Interrupted
from bottega.events import Event, Learned, Step
from bottega.spec import Lesson
from bottega.training import state
from bottega.training.batches import Batches, balanced, held_out, spoken
from bottega.training.data import Picture
from bottega.training.journal import Journal
from bottega.training.latents import Seen, seen
from bottega.training.optimizers import optimizer_of
from bottega.training.pupils import Pupil
from bottega.training.recipe import TrainingRecipe
from bottega.training.schedules import factor

SAVE_EVERY = 30.0  # seconds between two states on disk
STATE = "state.safetensors"
_FORMAT = 2  # of the state
_TIMES_JUDGED = 4  # times at which each held-out picture is judged
_FIRST = 10  # steps whose mean is the first loss
_LAST = 20  # steps whose mean is compared with it
_ASTRAY = 5.0  # how many times the first loss the last ones are when nothing good can come of it any more


@dataclass(frozen=True)
class Work:
    """A resolved training and all it needs: the pipe, the family's lesson, the pictures, and the folder of its state.

    `sample(number)` makes a picture of the recipe's prompt of that number with the pipe as it is now, and answers with
    the event that tells of it. Setting `stop` ends the training after the step in work, its state saved.
    """

    recipe: TrainingRecipe
    pipe: Any
    lesson: Lesson
    pupil: Pupil
    pictures: Sequence[Picture]
    folder: Path
    sample: Callable[[int, int], Event]
    save_every: float = SAVE_EVERY
    stop: threading.Event = field(default_factory=threading.Event)


def train(work: Work) -> Generator[Event, None, int]:
    """Train from the state in the work's folder, or from the beginning, to the end; the steps that were done.

    At the end the weights are those to keep: of the best validation where there is patience, else of the running
    average, else the last. Raises Diverged, and Interrupted once `stop` is set.
    """
    loop = Loop(work)
    yield from loop.prepare()
    with Journal(work.folder, loop.step) as journal:
        yield from loop.run(journal)
    loop.settle()
    return loop.step


class Loop:
    """One training: what it sees, what it learns, and how far it is."""

    def __init__(self, work: Work) -> None:
        recipe = work.recipe
        assert recipe.steps is not None and recipe.rate is not None and recipe.resolution is not None
        self._work, self._recipe, self._steps = work, recipe, recipe.steps
        ours, judged = held_out(work.pictures, recipe.validation, recipe.seed)
        regular = [each for each in ours if each.regular]
        learned = tuple(balanced([each for each in ours if not each.regular], regular))
        self._batches = Batches(learned, recipe.batch, recipe.seed, recipe.resolution, not recipe.buckets)
        self._judged = tuple(judged)
        self._weights: dict[str, nn.Parameter] = {}
        groups = []
        for group, rate in (("unet", recipe.rate), ("text", recipe.text_rate)):
            named = work.pupil.groups.get(group, {})
            if named:
                self._weights |= named
                groups.append({"params": list(named.values()), "lr": rate})
        self._rates = [group["lr"] for group in groups]
        self._optimizer = optimizer_of(recipe, groups)
        half = recipe.precision == "float16"
        self._scaler = torch.amp.GradScaler(work.pipe.place.torch_device.type, enabled=half)
        signal, predicts_v = work.lesson.signal(work.pipe)
        self._times = len(signal)
        self._by_time = _min_snr(signal, recipe.min_snr, predicts_v)
        self._words = Words(work)
        self._first: list[float] = []
        self._last: list[float] = []
        self.step = 0
        self._average = _copied(self._weights) if recipe.ema else {}
        self._best: dict[str, Tensor] = {}
        self._best_loss = math.inf
        self._without_better = 0
        self._over = False

    # --- before ------------------------------------------------------------------------------------------------------

    def prepare(self) -> Iterator[Event]:
        """Encode what was not encoded yet, and take up the state that an earlier run left."""
        work, recipe = self._work, self._recipe
        pictures = (*self._batches.pictures, *self._judged)
        found: list[Seen] = []
        folder = work.folder / "latents"
        encode = _of_pipe(work.lesson.encode, work.pipe)
        yield Step("encode", 0, len(pictures))
        for each in seen(pictures, self._batches, encode, folder, recipe.flip):
            found.append(each)
            self._obey()
            yield Step("encode", len(found), len(pictures))
        self._seen = found[: len(self._batches.pictures)]
        self._seen_judged = found[len(self._batches.pictures) :]
        if (work.folder / STATE).exists():
            self._take_up(state.load(work.folder / STATE))

    def _obey(self) -> None:
        if self._work.stop.is_set():
            raise Interrupted("stopped", "the same command goes on from here")

    # --- the state ---------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write all that the training goes on from."""
        told = {
            "format": _FORMAT,
            "digest": self._recipe.digest,
            "step": self.step,
            "weights": {name: weight.detach() for name, weight in self._weights.items()},
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "average": self._average,
            "best": self._best,
            "best_loss": None if math.isinf(self._best_loss) else self._best_loss,
            "without_better": self._without_better,
            "first": self._first,
            "last": self._last,
            "over": self._over,
        }
        state.save(told, self._work.folder / STATE)

    @torch.no_grad()
    def _take_up(self, told: Mapping[str, Any]) -> None:
        if (told.get("format"), told["digest"]) != (_FORMAT, self._recipe.digest):
            what = "is of another training, or of another version of Bottega"
            raise FormatError(self._work.folder / STATE, what, "take its folder away to begin anew")
        for name, weight in self._weights.items():
            weight.copy_(told["weights"][name])
        self._optimizer.load_state_dict(told["optimizer"])
        self._scaler.load_state_dict(told["scaler"])
        self.step = told["step"]
        device = self._work.pipe.place.torch_device
        self._average = {name: tensor.to(device) for name, tensor in told["average"].items()}
        self._best = {name: tensor.to(device) for name, tensor in told["best"].items()}
        self._best_loss = math.inf if told["best_loss"] is None else told["best_loss"]
        self._without_better = told["without_better"]
        self._first, self._last = told["first"], told["last"]
        self._over = told["over"]

    # --- the steps ---------------------------------------------------------------------------------------------------

    def run(self, journal: Journal) -> Iterator[Event]:
        """Every step that is left, with what is watched on the way."""
        recipe, saved_at = self._recipe, time.monotonic()
        try:
            # It begins, or was stopped among its samples.
            if self._due(recipe.sample_every) or self.step == self._steps:
                yield from self._samples()
            while self.step < self._steps and not self._over:
                loss, rate = self._learn()
                validation = self._validate() if self._due(recipe.validate_every) and self._judged else None
                event = Learned(self.step, self._steps, round(loss, 6), rate, validation)
                journal.write(event)
                if time.monotonic() - saved_at >= self._work.save_every:
                    self.save()
                    journal.draw()
                    saved_at = time.monotonic()
                yield event
                if self._due(recipe.sample_every) or self.step == self._steps:
                    yield from self._samples()
                self._obey()
        except (GeneratorExit, Interrupted):
            self.save()
            journal.draw()
            raise
        self.save()
        journal.draw()

    def _due(self, every: int) -> bool:
        return self.step % every == 0

    def _learn(self) -> tuple[float, float]:
        """One step: its loss, and the learning rate that it was made with."""
        recipe = self._recipe
        share = factor(recipe.schedule, self.step, self._steps, warmup=recipe.warmup, cycles=recipe.cycles)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * share
        self._optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for micro in range(recipe.accumulate):
            loss = self._loss(self.step * recipe.accumulate + micro) / recipe.accumulate
            self._scaler.scale(loss).backward()
            total += loss.item()
        self._refuse_nonsense(total)
        self._scaler.unscale_(self._optimizer)
        if recipe.clip:
            torch.nn.utils.clip_grad_norm_(list(self._weights.values()), recipe.clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self.step += 1
        if recipe.ema:
            # Quick at first, or what the training began with would stay for long.
            keeping = min(recipe.ema, self.step / (self.step + 9))
            with torch.no_grad():
                for name, average in self._average.items():
                    average.lerp_(self._weights[name].detach(), 1 - keeping)
        return total, self._optimizer.param_groups[0]["lr"]

    def _loss(self, number: int) -> Tensor:
        """The loss of a batch, counted from the beginning of the training."""
        recipe, pictures = self._recipe, self._batches.pictures
        chosen = self._batches.at(number)
        rng = random.Random(f"{recipe.seed} batch {number}")
        mirrored = [recipe.flip and rng.random() < 0.5 for _ in chosen]
        captions = [
            spoken(pictures[at].caption, rng, dropout=recipe.dropout, shuffle=recipe.shuffle, keep=recipe.keep)
            for at in chosen
        ]
        generator = torch.Generator().manual_seed((recipe.seed * 1_000_003 + number) % 2**63)
        ours = [self._seen[at] for at in chosen]
        latents = torch.stack([each.latent_of(flip) for each, flip in zip(ours, mirrored, strict=True)])
        masks = [each.mask_of(flip) for each, flip in zip(ours, mirrored, strict=True)]
        noise = torch.randn(latents.shape, generator=generator)
        if recipe.noise_offset:
            noise = noise + recipe.noise_offset * torch.randn(*latents.shape[:2], 1, 1, generator=generator)
        times = torch.randint(self._times, (len(chosen),), generator=generator)
        errors = self._errors(latents, captions, ours, noise, times)
        by_picture = torch.stack([_masked(error, mask) for error, mask in zip(errors, masks, strict=True)])
        weights = self._by_time[times] * torch.tensor([recipe.prior if pictures[at].regular else 1.0 for at in chosen])
        return (by_picture * weights.to(by_picture.device)).mean()

    def _errors(
        self, latents: Tensor, captions: Sequence[str], ours: Sequence[Seen], noise: Tensor, times: Tensor
    ) -> Tensor:
        work = self._work
        with self._computing():
            said = self._words.said(captions)
            shown = [each.shown for each in ours]
            errors = work.lesson.errors(work.pipe, latents, said, shown, noise, times)
        assert isinstance(errors, Tensor)
        return errors

    def _computing(self) -> Any:
        """Whole models are kept in float32, and computed in what the recipe says."""
        if self._recipe.kind != "full" or self._recipe.precision == "float32":
            return nullcontext()
        return torch.autocast(self._work.pipe.place.torch_device.type, getattr(torch, self._recipe.precision))

    def _refuse_nonsense(self, loss: float) -> None:
        if len(self._first) < _FIRST:
            self._first.append(loss)
        self._last = [*self._last, loss][-_LAST:]
        first, last = (sum(losses) / len(losses) for losses in (self._first, self._last))
        if math.isfinite(loss) and (len(self._last) < _LAST or last <= _ASTRAY * first):
            return
        what = f"the loss became {loss:.3g} in step {self.step + 1}"
        remedy = f"train with a lower learning rate than {self._recipe.rate:g}"
        if self._recipe.precision == "float16":
            remedy += ", or in bfloat16"
        raise Diverged(what, f"{remedy}; what was saved before is in {self._work.folder}")

    # --- looking -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _validate(self) -> float:
        """The loss on the held-out pictures, always with the same noise at the same times."""
        losses = []
        for index, (picture, ours) in enumerate(zip(self._judged, self._seen_judged, strict=True)):
            generator = torch.Generator().manual_seed(index)
            latents = ours.latent.expand(_TIMES_JUDGED, -1, -1, -1)
            noise = torch.randn(latents.shape, generator=generator)
            times = (torch.arange(_TIMES_JUDGED) * 2 + 1) * self._times // (2 * _TIMES_JUDGED)
            errors = self._errors(latents, [picture.caption] * len(times), [ours] * len(times), noise, times)
            losses.append(errors.mean().item())
        loss = round(sum(losses) / len(losses), 6)
        if loss < self._best_loss:
            self._best_loss, self._without_better = loss, 0
            self._best = _copied(self._weights) if self._recipe.patience else {}
        else:
            self._without_better += 1
        self._over = 0 < self._recipe.patience <= self._without_better
        return loss

    def _samples(self) -> Iterator[Event]:
        for number in range(len(self._recipe.samples)):
            with self._swapped(self._average), self._computing():
                event = self._work.sample(number, self.step)
            yield event

    @contextmanager
    def _swapped(self, others: Mapping[str, Tensor]) -> Iterator[None]:
        """Until the block ends, the weights are these others, where there are any."""
        own = _copied(self._weights) if others else {}
        self._put(others)
        try:
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, others: Mapping[str, Tensor]) -> None:
        for name, tensor in others.items():
            self._weights[name].copy_(tensor)

    def settle(self) -> None:
        """Leave the weights that are to be kept in place."""
        self._put(self._best if self._recipe.patience and self._best else self._average)


class Words:
    """What the network hears of captions: computed anew where that changes as it learns, else once for each caption."""

    def __init__(self, work: Work) -> None:
        self._work = work
        captions = {each.caption for each in work.pictures}
        self._chunks = max(work.lesson.chunks(work.pipe, caption) for caption in captions)
        self._kept: dict[str, Any] = {}

    def said(self, captions: Sequence[str]) -> Any:
        """What is heard of captions, as the family's `say` answers."""
        if self._work.pupil.teaches_words:
            return self._say(captions)
        with torch.no_grad():
            for caption in captions:
                if caption not in self._kept:
                    if len(self._kept) >= _CAPTIONS_KEPT:
                        self._kept.pop(next(iter(self._kept)))
                    self._kept[caption] = self._say([caption])
        parts = zip(*(self._kept[caption] for caption in captions), strict=True)
        kind = type(self._kept[captions[0]])
        return kind(*(None if part[0] is None else torch.cat(part) for part in parts))

    def _say(self, captions: Sequence[str]) -> Any:
        work = self._work
        return work.lesson.say(work.pipe, captions, self._chunks, work.recipe.clip_skip, work.pupil.vectors)


_CAPTIONS_KEPT = 2048


def _of_pipe(function: Callable[..., Any], pipe: Any) -> Callable[[Tensor], Tensor]:
    return lambda pixels: function(pipe, pixels)


def _copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in weights.items()}


def _min_snr(signal: Tensor, gamma: float, predicts_v: bool) -> Tensor:
    """What the error at each time counts (Hang et al. 2023): min(SNR, gamma) / SNR, for v / (SNR + 1)."""
    if not gamma:
        return torch.ones_like(signal)
    weights = signal.clamp(max=gamma) / (signal + 1 if predicts_v else signal)
    # Where the last time is all noise its ratio is 0, and noise is what is asked for: it counts in full.
    return torch.nan_to_num(weights, nan=1.0)


def _masked(errors: Tensor, mask: Tensor | None) -> Tensor:
    """The mean of errors (C, h, w), weighed by a mask (1, h, w) if there is one."""
    if mask is None:
        return errors.mean()
    weights = mask.to(errors.device).expand_as(errors)
    return (errors * weights).sum() / weights.sum().clamp_min(1e-6)
