"""The one door for every surface: finds models, resolves drafts, runs recipes, makes outputs again."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottega.diffusion.names import find_sampler
from bottega.engine.adapters import Base, Ready, pinned
from bottega.engine.automatic import AUTOMATIC, NONE, is_word, named, says_all, vaes_of
from bottega.engine.inputs import keep_input, open_inputs
from bottega.engine.load import Loader
from bottega.engine.replay import Source, read_source
from bottega.engine.resolve import Chosen, Device, resolve
from bottega.engine.run import Part, PreviewFile, Previews, Said, Work, run_together
from bottega.engine.save import destination
from bottega.engine.shelf import Opened, Shelf
from bottega.engine.train import SAVE_EVERY, Prepared, TrainingWork, read_data, run_training, trained_count
from bottega.engine.uses import Asked, ordered, short_hash, take_tags
from bottega.errors import (
    FieldProblem,
    InvalidRecipe,
    InvalidSetting,
    OutOfMemory,
    UnknownModel,
    UnsupportedModel,
)
from bottega.families import family
from bottega.library import Catalog, Entry
from bottega.recipe import Made, Media, Output, Recipe, Ref, Sampling, Size, Use
from bottega.runtime.plan import WAITING, MemoryPlan, plan, weigh
from bottega.settings import Settings, comes_along, read_settings
from bottega.training.data import check
from bottega.training.naming import check_name
from bottega.training.plan import plan as plan_training
from bottega.training.recipe import TrainingRecipe, resolved
from bottega.version import __version__

if TYPE_CHECKING:
    from bottega.events import Event
    from bottega.runtime.facts import Facts
    from bottega.runtime.place import Place
    from bottega.spec import Emit

BATCH = 4  # pictures made at once on a GPU; on a CPU one after the other is as fast, and gives the same bytes


class Workbench:
    """Models, recipes and outputs of one home. Models stay loaded between runs; not safe to share between threads.

    `hashing(done, total)` is told the bytes while a model is hashed, which happens once to each that is used. `facts`
    tells of the device now, where another process than this one has it: then nothing here needs torch but `run`.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        hashing: Callable[[int, int], None] = lambda done, total: None,
        facts: Callable[[], Facts] | None = None,
    ) -> None:
        self.settings = settings or read_settings()
        self._shelf = Shelf(self.settings, hashing)
        self._facts = facts or self._own_facts

    @property
    def catalog(self) -> Catalog:
        """What is known of every model on the shelves."""
        return self._shelf.catalog

    @property
    def facts(self) -> Facts:
        """The device that everything runs on."""
        return self._facts()

    @property
    def precision(self) -> str:
        """What `auto` means here: the precision of the settings; InvalidSetting for one that the device has not."""
        try:
            return str(self.facts.precision(self.settings.precision))
        except InvalidRecipe as error:
            (problem,) = error.problems
            raise InvalidSetting(f"{self.settings.file}: precision: {problem.what}", problem.remedy) from None

    def _own_facts(self) -> Facts:
        return replace(self._this_device, free=self._place.memory, waiting=self._place.waiting)

    @cached_property
    def _this_device(self) -> Facts:
        from bottega.runtime.place import facts_of

        return facts_of(self.settings.device, f"bottega {__version__}", versions())

    @cached_property
    def _place(self) -> Place:
        from bottega.runtime.place import choose

        return choose(self._this_device.device)

    @cached_property
    def _loader(self) -> Loader:
        budget = self.settings.model_memory_mb << 20
        return Loader(
            self.settings.device, budget or round(self._this_device.memory * _share(self._this_device.device))
        )

    def find(self, reference: str, kind: str = "checkpoint") -> Entry:
        """The model of that name, path or hash; raises UnknownModel with the nearest names."""
        return self._shelf.find(reference, kind)

    def keep_input(self, path: Path, role: str) -> Media:
        """Take a picture in as `init` or `mask` of a recipe."""
        return keep_input(path, role, self.settings.inputs)

    def resolve(
        self, draft: Recipe, *, out: str | Path | None = None, input_size: tuple[int, int] | None = None
    ) -> Recipe:
        """A recipe that says everything, checked; `out` may decide the file format by its ending.

        `input_size` is the size of an input picture that does not exist yet.
        Raises InvalidRecipe with all problems at once, and what `find` raises.
        """
        with self._shelf.settled():
            return self._resolve(draft, out, input_size)

    def _resolve(self, draft: Recipe, out: str | Path | None, input_size: tuple[int, int] | None) -> Recipe:
        entry = self._checkpoint(draft.model)
        prompt, tagged = take_tags(draft.prompt)
        if out is not None and (format := destination(out, self.settings.outputs)[1]) is not None:
            draft = draft.changed(output=Output.model_validate({**dict(draft.output), "format": format}))
        face = family(entry.recogniser)
        model = self._shelf.read(entry)
        assert entry.sha256 is not None
        defaults = face.defaults(model.header, model.match)
        chosen = Chosen(entry.name, entry.sha256, face, defaults, face.limits(model.match))
        if input_size is None and draft.inputs:
            init = open_inputs(draft.inputs, self.settings.inputs).get("init")
            input_size = init.size if init else None
        precision = self._precision(draft)
        asked = [Asked(use, f"adapters.{index}") for index, use in enumerate(draft.adapters)]
        base = self._shelf.base(entry)
        again = says_all(draft)
        if not again:
            self._shelf.notice()
        asked = self._with_vae([*asked, *tagged], entry, base, again)
        uses, problems = self._pinned(asked, base)
        if (prompt, uses) != (draft.prompt, draft.adapters):
            draft = draft.changed(prompt=prompt, adapters=uses)
        attached = {} if problems else self._weigh(self._shelf.ready(entry, uses), precision)
        device = Device(
            precision=precision,
            needs_tiles=lambda size: (
                self._plan(model, (size.width, size.height), precision, attached=attached).tile_vae
            ),
        )
        resolved = resolve(draft, chosen, device, input_size, problems)
        return resolved if again else self._with_words(resolved, base)

    def _pinned(self, asked: Sequence[Asked], base: Base) -> tuple[tuple[Use, ...], list[FieldProblem]]:
        return pinned(asked, base, self._shelf.meant, self._shelf.adapter, self._shelf.name_of)

    def _with_vae(self, asked: Sequence[Asked], entry: Entry, base: Base, again: bool) -> list[Asked]:
        """What is asked for, with the VAE that goes with the model where none is named, and `none` is not said."""
        told = [each for each in asked if not any(is_word(each.use, word) for word in (NONE, AUTOMATIC))]
        if again or any(each.use.kind == "vae" and not is_word(each.use, AUTOMATIC) for each in asked):
            return told
        vaes = [path for _, path, _ in self._shelf.of_kind("vae")]
        for path in vaes_of(entry.path, entry.about.extra.get("vae", ""), vaes):
            found = Asked(Use(kind="vae", ref=Ref(name=str(path))), "adapters")
            if self._shelf.fits(found, base):
                return [*told, found]
        return told

    def _with_words(self, recipe: Recipe, base: Base) -> Recipe:
        """The recipe with the embeddings that its words name and that fit the model.

        Raises InvalidRecipe for an embedding that was asked for, and that no word names.
        """
        told = [use.ref.name for use in recipe.adapters if use.kind == "embedding"]
        if unsaid := sorted({*told} - named(recipe, told)):
            what = f"no word of the prompt or the negative prompt is {unsaid[0]}"
            raise InvalidRecipe([FieldProblem("adapters", what, "write it where the embedding shall be")])
        names: dict[str, list[Path]] = {}
        spelt: dict[str, str] = {}  # a word is the same in any case
        # What comes along goes after the user's own.
        for name, path, _ in sorted(self._shelf.of_kind("embedding"), key=lambda it: comes_along(it[1])):
            names.setdefault(spelt.setdefault(name.lower(), name), []).append(path)
        found = []
        for name in sorted(named(recipe, [*told, *(name for name in names if name not in told)]) - {*told}):
            asked = (Asked(Use(kind="embedding", ref=Ref(name=str(path))), "adapters") for path in names[name])
            found += [next((each for each in asked if self._shelf.fits(each, base)), None)]
        uses, problems = self._pinned([each for each in found if each], base)
        if problems:
            raise InvalidRecipe(problems)
        return recipe.changed(adapters=ordered([*recipe.adapters, *uses])) if uses else recipe

    def run(self, recipe: Recipe, *, out: str | Path | None = None, previews: bool = False) -> Generator[Event]:
        """Make what a resolved recipe says, into `out` or the home's outputs; events tell how it goes.

        Closing the iterator stops the work within a step. Raises any BottegaError after a Failed event.
        """
        target, _ = destination(out, self.settings.outputs)
        # Its own for each job: several may run in one home.
        shown = PreviewFile(self.settings.home / f"preview-{secrets.token_hex(4)}.png") if previews else None
        with closing(self.run_together([Part(recipe, target)], shown)) as said:
            for _, event in said:
                yield event

    def run_together(
        self, parts: Sequence[Part], previews: Previews | None = None, stop: threading.Event | None = None
    ) -> Generator[Said]:
        """Make what resolved recipes say that differ in seeds and count only; each event says which of them it is of.

        Setting `stop` ends it within a step, with Interrupted. Raises what `run` raises.
        """
        recipe, *others = parts
        entry = self._checkpoint(recipe.recipe.model)
        face = family(entry.recogniser)
        precision = str(recipe.recipe.knobs["precision"])
        plan = self._plan_to_run(entry, recipe.recipe, sum(part.recipe.count for part in parts))
        wanted = self._shelf.ready(entry, recipe.recipe.adapters)
        plans, used = {precision: plan}, precision
        if precision != "float32":  # in which what comes out broken is made once more, one by one
            again = recipe.recipe.changed(knobs={**recipe.recipe.knobs, "precision": "float32"})
            plans["float32"] = self._plan_to_retry(entry, again)
        tiny = None if previews is None else self._shelf.previewer(self._shelf.base(entry))
        vae = next(((each.what.header, each.what.match) for each in wanted if each.what.use.kind == "vae"), None)

        def loaded(now: str, emit: Emit) -> Any:
            nonlocal used
            used, plan = now, plans[now]
            if now != precision and plan.needed > self.facts.free + self._loader.held(entry, now):
                self._loader.free(entry, now)
            weights = sum(plan.weights.values())
            pipe = self._loader.load(entry, face, now, emit, weights, vae, plan.away)
            self._loader.attach(entry, now, wanted, emit, weights, plan.waiting)
            self._loader.preview_with(entry, now, tiny, emit)
            return pipe

        return run_together(
            Work(
                recipe=recipe.recipe,
                family=face,
                inputs=open_inputs(recipe.recipe.inputs, self.settings.inputs),
                made=self._made(),
                load=loaded,
                hashes={str(each.entry.sha256): short_hash(each.entry) for each in wanted},
                batch=plan.batch,
                destination=recipe.destination,
                previews=previews,
                others=tuple(others),
                stop=stop or threading.Event(),
                free=lambda: self._loader.free(entry, used),
            )
        )

    def _plan_to_run(self, entry: Entry, recipe: Recipe, count: int) -> MemoryPlan:
        """The plan for so many pictures, other models gone where they are in the way; OutOfMemory if it can't be."""
        precision = str(recipe.knobs["precision"])
        held, (away, waiting) = self._loader.held(entry, precision), self._loader.away(entry, precision)
        plan = self._fitting(recipe, count, held, away, waiting)
        if (plan.away != away or not plan.fits) and self._loader.free(entry, precision):
            plan = self._fitting(recipe, count, held, away, waiting)
        if plan.fits:
            return plan
        if not self._loader.holds(entry, precision):
            raise OutOfMemory(plan.words)
        # A model that is there already may do with less than it would take to load it.
        return replace(plan, away=away)

    def _plan_to_retry(self, entry: Entry, recipe: Recipe) -> MemoryPlan:
        """The plan for one picture in another precision than that of its job, with all that is kept gone if need be."""
        precision = str(recipe.knobs["precision"])
        away, _ = self._loader.away(entry, precision)
        kept = self._loader.told()
        plan = self._fitting(
            recipe, 1, sum(model["bytes"] for model in kept), away, sum(model["waiting"] for model in kept)
        )
        is_kept = self._loader.holds(entry, precision)
        return replace(plan, away=away) if is_kept and not plan.fits else plan

    def memory_plan(self, recipe: Recipe) -> MemoryPlan:
        """What a resolved recipe will take of the device's memory, in the largest batches that fit; reads a header."""
        return self._fitting(recipe, recipe.count)

    def _fitting(
        self, recipe: Recipe, count: int, held: int = 0, away: frozenset[str] = frozenset(), waiting: int = 0
    ) -> MemoryPlan:
        """The plan for the largest batch of so many pictures that fits in place of `held` bytes of the model itself.

        At least the parts `away` wait in main memory, where they and what is changed of them take `waiting` already.
        """
        entry = self._checkpoint(recipe.model)
        model = self._shelf.read(entry)
        assert recipe.size is not None
        size = (recipe.size.width, recipe.size.height)
        precision, tiled = str(recipe.knobs["precision"]), recipe.knobs["vae_tiling"] == "on"
        attached = self._weigh(self._shelf.ready(entry, recipe.adapters), precision)
        return self._plan(model, size, precision, self._most(recipe, count), tiled, held, attached, away, waiting)

    def prepare_training(self, draft: TrainingRecipe) -> Prepared:
        """A training that says everything, its pictures read and checked, and the memory that it will take.

        Raises InvalidRecipe with all problems at once, FileError for pictures or captions that can't be used,
        UnsupportedModel for a model that can't be taught, and what `find` raises.
        """
        entry = self._checkpoint(draft.model)
        face, model = family(entry.recogniser), self._shelf.read(entry)
        if face.train is None:
            raise UnsupportedModel(entry.path, "is of a family that can't be taught yet", "choose another model")
        if why := face.train.refuse(model.match):
            raise UnsupportedModel(entry.path, why, "choose another model")
        pictures, data, regularisation = read_data(draft)
        told = draft.precision
        recipe = resolved(
            draft,
            model=Ref(name=entry.name, sha256=entry.sha256),
            precision=self.precision if told == "auto" else self.facts.precision(told),
            side=min(face.defaults(model.header, model.match)["size"]),
            data=data,
            regularisation=regularisation,
        )
        assert recipe.resolution is not None
        assert face.anatomy is not None
        checked = check(pictures, recipe.resolution, not recipe.buckets, recipe.word, face.train.tokens)
        dtypes = {**self.facts.dtypes[recipe.precision]}
        if recipe.kind == "full":
            dtypes["unet"] = "float32"
        plan = plan_training(
            recipe,
            weigh(model.header, model.match, dtypes),
            trained_count(recipe, face.anatomy.places(model.header, model.match), face.train),
            model.match.dimensions["unet"],
            self.facts.free,
            self.facts.device,
        )
        side = Size(width=recipe.resolution, height=recipe.resolution)
        samples = tuple(
            self.resolve(
                Recipe(model=recipe.model, prompt=prompt, size=side, sampling=Sampling(seed=recipe.seed + number))
            )
            for number, prompt in enumerate(recipe.samples)
        )
        return Prepared(recipe, checked, plan, samples)

    def training_folder(self, recipe: TrainingRecipe, out: Path) -> Path:
        """Where a resolved training keeps its state, its log and its samples: the same for the same recipe."""
        return self.settings.home / "training" / f"{out.stem}-{recipe.digest[:12]}"

    def train(
        self, prepared: Prepared, out: Path, *, save_every: float = SAVE_EVERY, stop: threading.Event | None = None
    ) -> Generator[Event]:
        """Train what was prepared, from where it was stopped if it was, and write it to `out`; events tell how it goes.

        Closing the iterator, or setting `stop`, ends it after the step in work. Raises OutOfMemory if the plan does not
        fit, and any BottegaError after a Failed event.
        """
        recipe = prepared.recipe
        check_name(out, recipe.kind)
        if not prepared.plan.fits:
            raise OutOfMemory(prepared.plan.words)
        entry = self._checkpoint(recipe.model)
        model = self._shelf.read(entry)
        return run_training(
            TrainingWork(
                recipe=recipe,
                family=family(entry.recogniser),
                header=model.header,
                match=model.match,
                device=self.settings.device,
                pictures=prepared.checked.pictures,
                samples=prepared.samples,
                folder=self.training_folder(recipe, out),
                destination=out,
                save_every=save_every,
                stop=stop or threading.Event(),
            )
        )

    def let_go(self) -> None:
        """Let go of every model that is kept loaded, for what needs all the memory that there is."""
        self._loader.let_go()

    @property
    def loaded(self) -> list[dict[str, Any]]:
        """The models that are kept: name, SHA-256, precision, bytes, how many of them wait, and what each is worth."""
        return self._loader.told()

    def replayed(self, path: Path, *, out: str | Path | None = None) -> Source:
        """The resolved recipe of an output of ours, or of what A1111's text in a picture describes.

        The format is that of the file, unless `out` says another one.

        Raises Different if its model is another by now, FileError if the file carries nothing to make it again from.
        """
        source = read_source(path)
        recipe, notes = source.recipe, source.notes
        if not says_all(recipe):
            recipe, more = self._without_absent_vae(recipe)
            notes += more
        return replace(source, recipe=self.resolve(recipe, out=out), notes=notes)

    def _without_absent_vae(self, draft: Recipe) -> tuple[Recipe, tuple[str, ...]]:
        """The draft of another program's picture with the model's own VAE for one that is not on the shelves."""
        for index, use in enumerate(draft.adapters):
            if use.kind == "vae" and not is_word(use, NONE):
                try:
                    self.find(use.ref.name, "vae")
                except UnknownModel:
                    own = Use(kind="vae", ref=Ref(name=NONE))
                    uses = (*draft.adapters[:index], own, *draft.adapters[index + 1 :])
                    note = f"made with the VAE {use.ref.name}; the model's own is used instead"
                    return draft.changed(adapters=uses), (note,)
        return draft, ()

    def _made(self) -> Made:
        facts = self.facts
        return Made(
            app=facts.app,
            versions=dict(facts.versions),
            device=facts.device,
            threads=facts.threads,
            capability=facts.capability,
        )

    def _plan(
        self,
        model: Opened,
        size: tuple[int, int],
        precision: str,
        most: int = 1,
        tiled: bool | None = None,
        held: int = 0,
        attached: Mapping[str, int] | None = None,
        away: frozenset[str] = frozenset(),
        waiting: int = 0,
    ) -> MemoryPlan:
        """The first plan that fits, else the last one that is possible.

        First come those with the fewest parts in main memory beside the ones that are `away` already (and take so many
        bytes there), and of these the one with the most pictures at once.
        """
        facts = self.facts
        precision = facts.precision(precision)
        dtypes = facts.dtypes[precision]
        if precision not in model.weights:
            model.weights[precision] = weigh(model.header, model.match, dtypes)

        def planned(parts: frozenset[str], batch: int) -> MemoryPlan:
            return plan(
                model.header,
                model.match,
                dtypes,
                facts.free + held,
                size=size,
                batch=batch,
                tiled=tiled,
                weights=model.weights[precision],
                adapters=attached,
                away=parts,
            )

        first, *more = ((parts, batch) for parts in WAITING if parts >= away for batch in range(most, 0, -1))
        best = planned(*first)
        for choice in more:
            if best.fits:
                break
            other = planned(*choice)
            if other.waiting - waiting <= facts.waiting:
                best = other
        return best

    def _most(self, recipe: Recipe, count: int) -> int:
        """How many pictures may be made at once: an adaptive sampler's steps would depend on the whole batch."""
        sampler = find_sampler(recipe.sampling.sampler or "")
        alone = self.facts.device == "cpu" or (sampler is not None and sampler.adaptive)
        return 1 if alone else min(count, BATCH)

    def _weigh(self, wanted: Sequence[Ready], precision: str) -> dict[str, int]:
        """The bytes that adapters take beside the model, by the part that they change; "" for what is of none."""
        dtypes = self.facts.dtypes[self.facts.precision(precision)]
        by_place: dict[str, int] = {}
        for each in wanted:
            by_place |= each.adapter.weigh(each.what, dtypes)
        by_part: dict[str, int] = {}
        for place, bytes in by_place.items():
            part = place.partition(".")[0]
            by_part[part if part in dtypes else ""] = by_part.get(part if part in dtypes else "", 0) + bytes
        return by_part

    def _checkpoint(self, ref: Ref | None) -> Entry:
        """The model that a recipe means, hashed; that of the settings where it names none."""
        return self._shelf.checkpoint(ref or Ref(name=self.settings.model))

    def _precision(self, draft: Recipe) -> str:
        """What the draft says, else what the settings say, else what the device runs best."""
        told = str(draft.knobs.get("precision", "auto"))
        return self.precision if told == "auto" else told


def _share(device: str) -> float:
    """The share of a device's memory that models may hold between jobs: main memory has other uses."""
    return 0.4 if device == "cpu" else 0.8


def versions() -> dict[str, str]:
    """The versions of what decides the numbers of a picture."""
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "diffusers", "transformers", "pillow")}
