"""The one door for every surface: finds models, resolves drafts, runs recipes, makes outputs again."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from bottega.diffusion.names import find_sampler
from bottega.engine.inputs import keep_input, open_inputs
from bottega.engine.load import Loader
from bottega.engine.replay import Source, read_source
from bottega.engine.resolve import Chosen, Device, resolve
from bottega.engine.run import PreviewFile, Previews, Work, run
from bottega.engine.save import Target, destination
from bottega.errors import (
    Different,
    FormatError,
    InvalidRecipe,
    InvalidSetting,
    OutOfMemory,
    UnknownModel,
    UnsupportedModel,
)
from bottega.families import family
from bottega.formats import read_header
from bottega.library import Catalog, Entry, open_catalog
from bottega.library.find import find
from bottega.library.hashes import sha256_of
from bottega.recipe import Made, Media, Output, Recipe, Ref
from bottega.recognisers import all_recognisers
from bottega.settings import Settings, read_settings
from bottega.version import __version__

if TYPE_CHECKING:
    from bottega.events import Event
    from bottega.formats import Header
    from bottega.runtime.facts import Facts
    from bottega.runtime.place import Place
    from bottega.runtime.plan import MemoryPlan
    from bottega.spec import Match

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
        self._hashing = hashing
        self._facts = facts or self._own_facts

    @cached_property
    def catalog(self) -> Catalog:
        """What is known of every model on the shelves."""
        return open_catalog(self.settings.catalog)

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
        return replace(self._this_device, free=self._place.memory)

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
        return Loader(self.settings.device)

    def find(self, reference: str) -> Entry:
        """The model of that name, path or hash; raises UnknownModel with the nearest names.

        For a hash that is not on record, also in the `name [hash]` of A1111, checkpoints are hashed until one has it.
        """
        return find(
            self.catalog, reference, all_recognisers(), self._shelves(), kind="checkpoint", hashing=self._hashing
        )

    def keep_input(self, path: Path, role: str) -> Media:
        """Take a picture in as `init` or `mask` of a recipe."""
        return keep_input(path, role, self.settings.inputs)

    def resolve(self, draft: Recipe, *, out: str | Path | None = None) -> Recipe:
        """A recipe that says everything, checked; `out` may decide the file format by its ending.

        Raises InvalidRecipe with all problems at once, and what `find` raises.
        """
        entry = self._entry(draft.model)
        _, format = destination(out, self.settings.outputs)
        if format is not None:
            draft = draft.changed(output=Output.model_validate({**dict(draft.output), "format": format}))
        face = family(entry.recogniser)
        header, match = self._match(entry)
        assert entry.sha256 is not None
        chosen = Chosen(entry.name, entry.sha256, face, face.defaults(header, match), face.limits(match))
        init = open_inputs(draft.inputs, self.settings.inputs).get("init")
        precision = self._precision(draft)
        device = Device(
            precision=precision,
            needs_tiles=lambda size: self._plan(header, match, (size.width, size.height), precision).tile_vae,
        )
        return resolve(draft, chosen, device, init.size if init else None)

    def run(self, recipe: Recipe, *, out: str | Path | None = None, previews: bool = False) -> Generator[Event]:
        """Make what a resolved recipe says, into `out` or the home's outputs; events tell how it goes.

        Closing the iterator stops the work within a step. Raises any BottegaError after a Failed event.
        """
        target, _ = destination(out, self.settings.outputs)
        # Its own for each job: several may run in one home.
        shown = PreviewFile(self.settings.home / f"preview-{secrets.token_hex(4)}.png") if previews else None
        return self.run_into(target, recipe, shown)

    def run_into(
        self, target: Target, recipe: Recipe, previews: Previews | None = None, stop: threading.Event | None = None
    ) -> Generator[Event]:
        """Make what a resolved recipe says, as `run` does; setting `stop` ends it within a step, with Interrupted."""
        entry = self._entry(recipe.model)
        face = family(entry.recogniser)
        plan = self.memory_plan(recipe)
        if not plan.fits and not self._loader.holds(entry, str(recipe.knobs["precision"])):
            raise OutOfMemory(plan.words)
        return run(
            Work(
                recipe=recipe,
                family=face,
                inputs=open_inputs(recipe.inputs, self.settings.inputs),
                made=self._made(),
                load=lambda precision, emit: self._loader.load(entry, face, precision, emit),
                batch=plan.batch,
                destination=target,
                previews=previews,
                stop=stop or threading.Event(),
            )
        )

    def memory_plan(self, recipe: Recipe) -> MemoryPlan:
        """What a resolved recipe will take of the device's memory, in the largest batches that fit; reads a header."""
        entry = self._entry(recipe.model)
        header, match = self._match(entry)
        assert recipe.size is not None
        size = (recipe.size.width, recipe.size.height)
        precision, tiled = str(recipe.knobs["precision"]), recipe.knobs["vae_tiling"] == "on"
        batches = range(1, self._most(recipe) + 1)
        plans = [self._plan(header, match, size, precision, batch, tiled) for batch in batches]
        return next((plan for plan in reversed(plans) if plan.fits), plans[0])

    def replayed(self, path: Path, *, out: str | Path | None = None) -> Source:
        """The resolved recipe of an output of ours, or of what A1111's text in a picture describes.

        The format is that of the file, unless `out` says another one.

        Raises Different if its model is another by now, FileError if the file carries nothing to make it again from.
        """
        source = read_source(path)
        return replace(source, recipe=self.resolve(source.recipe, out=out))

    def _match(self, entry: Entry) -> tuple[Header, Match]:
        """The header of a model and what its family finds in it; its variant is the one that the user says."""
        header = read_header(entry.path)
        face = family(entry.recogniser)
        match = face.recognise(header)
        assert match is not None  # or the catalog would not name the family
        return header, face.varied(match, entry.corrected["variant"]) if "variant" in entry.corrected else match

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
        header: Header,
        match: Match,
        size: tuple[int, int],
        precision: str,
        batch: int = 1,
        tiled: bool | None = None,
    ) -> MemoryPlan:
        from bottega.runtime.plan import plan

        facts = self.facts
        dtypes = facts.dtypes[facts.precision(precision)]
        return plan(header, match, dtypes, facts.free, size=size, batch=batch, tiled=tiled)

    def _most(self, recipe: Recipe) -> int:
        """How many pictures may be made at once: an adaptive sampler's steps would depend on the whole batch."""
        sampler = find_sampler(recipe.sampling.sampler or "")
        alone = self.facts.device == "cpu" or (sampler is not None and sampler.adaptive)
        return 1 if alone else min(recipe.count, BATCH)

    def _shelves(self) -> tuple[Path, ...]:
        return (*self.settings.all_shelves, *self.catalog.shelves())

    def _entry(self, ref: Ref | None) -> Entry:
        """The model a recipe means, hashed, and one that a family here can run."""
        ref = ref or Ref(name=self.settings.model)
        entry = self._pinned(ref, ref.sha256) if ref.sha256 else self.find(ref.name)
        if entry.error:
            raise FormatError(entry.path, entry.error)
        if not entry.runs:
            raise UnsupportedModel(entry.path, *_why_not(entry))
        return sha256_of(self.catalog, entry, self._hashing)

    def _pinned(self, ref: Ref, sha256: str) -> Entry:
        for known in self.catalog.with_sha256(sha256):
            # A copy that was replaced or damaged since does not hide a good one.
            with suppress(UnknownModel, FormatError):
                entry = sha256_of(self.catalog, self.find(str(known.path)), self._hashing)
                if entry.sha256 == sha256:
                    return entry
        try:
            entry = sha256_of(self.catalog, self.find(ref.name), self._hashing)
        except FormatError as error:
            raise Different(f"the model {ref.name} was changed since: {error.what}", "put the original back") from None
        if entry.sha256 != sha256:
            now = str(entry.sha256)[:10]
            raise Different(
                f"the model {ref.name} was changed since: its SHA-256 is {now}..., the recipe says {sha256[:10]}...",
                f"put the original back, it is not {entry.path}",
            )
        return entry

    def _precision(self, draft: Recipe) -> str:
        """What the draft says, else what the settings say, else what the device runs best."""
        told = str(draft.knobs.get("precision", "auto"))
        return self.precision if told == "auto" else told


def _why_not(entry: Entry) -> tuple[str, str]:
    """Why no picture can be made with a model that no family here runs, and what to do instead."""
    if entry.kind in ("checkpoint", "diffusion_model"):
        return f"is a model of the family {entry.family}, which Bottega knows and can't run yet", "choose another model"
    if entry.kind == "unknown":
        return f"is no model that Bottega knows ({'; '.join(entry.because)})", "choose another model"
    whose = f" of {entry.family}" if entry.family else ""
    return f"is no checkpoint but a {entry.kind}{whose}: it makes no pictures by itself", "name a checkpoint"


def versions() -> dict[str, str]:
    """The versions of what decides the numbers of a picture."""
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "diffusers", "transformers", "pillow")}
