"""Weight adapters in any naming: LoRA and its relatives (LoCon, LoHa, LoKr, OFT, GLoRA, IA3, DoRA, full weights)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isqrt, prod
from typing import Any

from bottega.adapters._fits import LIGHTWEIGHT
from bottega.adapters._lora_fits import Found, Target, fit, is_unet, told_by_gguf
from bottega.adapters._vectors import bundled, teach
from bottega.events import Note
from bottega.formats.header import Header, shown
from bottega.formats.layout import Layout, Placed, once_a_layout
from bottega.runtime.plan import BYTES_OF
from bottega.spec import Adapter, Attachment, Emit, Match, Patch

# A module of each algorithm has exactly one tensor that ends so.
_ALGORITHMS: Mapping[str, str] = {
    "lora_down": "lora", "lora_A": "lora", "lora_a": "lora", "down": "lora",
    "hada_w1_b": "loha",
    "lokr_w1": "lokr", "lokr_w1_a": "lokr",
    "oft_blocks": "oft", "oft_diag": "oft", "oft_r": "oft", "oft_R": "oft",
    "boft_R": "boft",
    "a1": "glora",
    "on_input": "ia3", "ia3_l": "ia3",
    "diff": "full",
    "w_norm": "norm",
}  # fmt: skip
_COMPANIONS = frozenset({
    "lora_up", "lora_B", "lora_b", "up", "lora_mid", "alpha", "dora_scale", "lora_magnitude_vector", "reshape_weight",
    "lora_embedding_A", "lora_embedding_B",
    "hada_w1_a", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2",
    "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t1", "lokr_t2",
    "rescale", "boft_s", "a2", "b1", "b2", "bm", "diff_b", "b_norm", "scalar",
})  # fmt: skip
_COMPANION = "companion"
ROLES: Mapping[str, str] = {**_ALGORITHMS, **dict.fromkeys(_COMPANIONS, _COMPANION)}
WHOLE = ("diff", "diff_b", "w_norm", "b_norm")  # roles of tensors that are a change as it is
_UPS = frozenset({"lora_up", "lora_B", "up"})
_DORA = frozenset({"dora_scale", "lora_magnitude_vector"})

# What makes it worth while to walk through a header's names: endings that hardly another kind of model has ...
_SIGNS = frozenset(
    {f"{leaf}{end}" for leaf in _ALGORITHMS if leaf not in ("down", "a1") for end in ("", ".weight")}
    | {"default.weight", "default_0.weight", "down.weight"}
)
_GLORA = frozenset({"a1.weight", "a2.weight", "b1.weight", "b2.weight"})  # ... and those that only GLoRA has together.

# Files of other kinds that have LoRA inside: IP-Adapter FaceID and PhotoMaker.
_STRANGERS = ("ip_adapter.", "lora_weights.")

# How the names of modules begin: whose naming that is, and what the modules belong to.
_PREFIXES: Mapping[str, tuple[str, str]] = {
    "lora_unet_": ("kohya", "denoiser"),
    "oft_unet_": ("kohya", "denoiser"),
    "lora_te_": ("kohya", "text_encoder"),
    "lora_te1_": ("kohya", "text_encoder"),
    "lora_te2_": ("kohya", "text_encoder_2"),
    "lora_te3_": ("kohya", "text_encoder_3"),
    "lora_prior_unet_": ("kohya", "denoiser"),
    "lora_prior_te_": ("kohya", "text_encoder"),
    "lora_transformer_": ("onetrainer", "denoiser"),
    "lycoris_": ("lycoris", "denoiser"),
    "unet.base_model.model.": ("peft", "denoiser"),
    "unet.": ("diffusers", "denoiser"),
    "transformer.": ("diffusers", "denoiser"),
    "transformer_2.": ("diffusers", "denoiser_2"),
    "text_encoder.": ("diffusers", "text_encoder"),
    "text_encoder_2.": ("diffusers", "text_encoder_2"),
    "text_encoder_3.": ("diffusers", "text_encoder_3"),
    "model.diffusion_model.": ("original", "denoiser"),
    "diffusion_model.": ("comfyui", "denoiser"),
    "text_encoders.clip_l.": ("comfyui", "text_encoder"),
    "text_encoders.clip_g.": ("comfyui", "text_encoder_2"),
    "text_encoders.": ("comfyui", "text_encoder_3"),
    "base_model.model.diffusion_model.": ("peft", "denoiser"),
    "base_model.model.": ("peft", "denoiser"),
    "pipe.dit.": ("diffsynth", "denoiser"),
    "dit.": ("diffsynth", "denoiser"),
    "net.": ("original", "denoiser"),
    "module.": ("original", "denoiser"),
    "blk.": ("llama.cpp", "denoiser"),
    "": ("original", "denoiser"),
}
_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")

# Trainers whose tensors look like those of plain LoRA.
_TOLD_VARIANTS = {"networks.lora_fa": "lora-fa", "networks.dylora": "dylora"}

_MADE_FOR = ("the language model that it was made for",)

Shape = tuple[int, ...]
Rows = Mapping[str, Placed]


@dataclass
class _Contents:
    """The modules that are changed: by what algorithm, and the shape of the one tensor that each such module has."""

    modules: dict[str, tuple[str, Shape]] = field(default_factory=dict)
    companions: set[str] = field(default_factory=set)
    ups: dict[str, Shape] = field(default_factory=dict)  # of LoRA's second factors, by module
    known: int = 0  # tensors that belong to an adapter
    plain: int = 0  # tensors that are called `weight` or `bias`


@dataclass(frozen=True)
class _Structure:
    """What names and shapes tell; `rest` counts tensors that belong to no adapter."""

    algorithm: str
    counts: Mapping[str, int]  # modules by algorithm
    dora: bool
    naming: str
    processors: bool  # whether it changes attention processors, as XLabs' do
    modules: Mapping[str, int]  # by part
    prefixes: Mapping[str, str]  # by part
    ranks: tuple[int, int] | None
    found: Found
    rest: int


def recognise(header: Header) -> Match | None:
    """The match of a file that holds changes to another model's weights, and little else."""
    if not (_SIGNS & header.endings or header.endings >= _GLORA):
        return None
    structure = _structure(header.layout)
    if structure is None:
        return None
    found = told_by_gguf(header.metadata) if header.format == "gguf" else structure.found
    fit = found.fit(header.metadata)
    dimensions: dict[str, Any] = {
        "algorithm": structure.algorithm,
        "naming": "xlabs" if fit.family == "flux" and structure.processors else structure.naming,
        "modules": dict(structure.modules),
        "dora": structure.dora,
        **found.dimensions,
    }
    if structure.ranks:
        dimensions["ranks"] = structure.ranks
    if len(structure.counts) > 1:
        dimensions["algorithms"] = dict(structure.counts)
    return Match(
        variant=found.variant or _variant(structure, header.metadata),
        dimensions=dimensions,
        parts=dict(structure.prefixes),
        because=(_words(structure, dimensions["naming"]), *fit.because, *_words_of_rest(structure.rest)),
        guess=fit.guess,
        kind="lora",
        category=LIGHTWEIGHT,
        family=fit.family,
        requires=_MADE_FOR if "language_model" in found.dimensions else fit.requires,
    )


@once_a_layout
def _structure(layout: Layout) -> _Structure | None:
    contents = _collect(layout)
    if not contents.modules or 2 * contents.known <= len(layout.rows):
        return None
    if any(module.startswith(_STRANGERS) for module in contents.modules):
        return None
    parts, prefixes, naming = _parts(contents.modules)
    target = _target(layout.rows, contents, parts)
    counts = Counter(algorithm for algorithm, _ in contents.modules.values())
    algorithm = _main_algorithm(counts, contents)
    return _Structure(
        algorithm=algorithm,
        counts=counts,
        dora=bool(_DORA & contents.companions),
        naming=naming,
        processors=target.has("_processor_"),
        modules={_called(part, target): len(names) for part, names in parts.items()},
        prefixes={_called(part, target): prefix for part, prefix in prefixes.items()},
        ranks=_ranks(layout.rows, algorithm, contents.modules),
        found=fit(target),
        rest=len(layout.rows) - contents.known,
    )


def _collect(layout: Layout) -> _Contents:
    """Walk once through all names; a name is a module, what the tensor is, perhaps an adapter's name, and `weight`."""
    contents = _Contents()
    modules, companions = contents.modules, contents.companions
    known = plain = 0
    for name, row in layout.rows.items():
        module, _, leaf = name.rpartition(".")
        if leaf == "weight" or leaf == "bias":
            plain += 1
            module, _, leaf = module.rpartition(".")
            if leaf not in ROLES:
                module, _, leaf = module.rpartition(".")
        role = ROLES.get(leaf)
        if role is None:
            continue
        if leaf == "down" or leaf == "up":
            if "lora" not in module.rpartition(".")[2]:
                continue
            module = module.removesuffix("_linear_layer").removesuffix("lora").rstrip("._")
        known += 1
        if role is _COMPANION:
            companions.add(leaf)
            if leaf in _UPS:
                contents.ups[module] = row.shape
        elif module not in modules:
            modules[module] = role, row.shape
    contents.known, contents.plain = known, plain
    if "on_input" in layout.endings:
        contents.known += plain  # IA3's factors are called `weight`
    return contents


def _main_algorithm(counts: Mapping[str, int], contents: _Contents) -> str:
    """The one that changes most modules; norms don't count where there is another: they are trained beside any.

    LoCon is LoRA that changes convolutions wider than one pixel too, and BOFT is OFT in several rounds.
    """
    algorithm = max(counts, key=lambda each: (each != "norm", counts[each]))
    shapes = [shape for each, shape in contents.modules.values() if each == algorithm]
    if algorithm == "lora" and (
        "lora_mid" in contents.companions or any(max(shape[2:], default=1) > 1 for shape in shapes)
    ):
        return "locon"
    if algorithm == "oft" and any(len(shape) == 4 for shape in shapes):
        return "boft"
    return algorithm


def _variant(structure: _Structure, metadata: Mapping[str, str]) -> str:
    """The algorithm's name; LoRA has more of them than tensors can tell."""
    algorithm = structure.algorithm
    if structure.dora and algorithm in ("lora", "locon"):
        return "dora"
    if algorithm == "lora":
        return _TOLD_VARIANTS.get(metadata.get("ss_network_module", ""), algorithm)
    return algorithm


def _parts(modules: Mapping[str, object]) -> tuple[dict[str, dict[str, str]], dict[str, str], str]:
    """The modules of each part, their names without prefix and with it; the prefixes; and whose naming most follow."""
    by_prefix: dict[str, dict[str, str]] = {}
    prefix, names = "", by_prefix.setdefault("", {})
    for module in modules:
        if not prefix or not module.startswith(prefix):
            prefix = next(each for each in _PREFIXES if module.startswith(each))
            names = by_prefix.setdefault(prefix, {})
        names[module[len(prefix) :]] = module
    parts: dict[str, dict[str, str]] = {}
    prefixes: dict[str, str] = {}
    namings: Counter[str] = Counter()
    for prefix, names in by_prefix.items():
        naming, part = _PREFIXES[prefix]
        namings[naming] += len(names)
        if names:
            parts.setdefault(part, {}).update(names)
            prefixes.setdefault(part, prefix)
    return parts, prefixes, namings.most_common(1)[0][0]


def _target(rows: Rows, contents: _Contents, parts: Mapping[str, Mapping[str, str]]) -> Target:
    modules = contents.modules

    def width(module: str) -> int | None:
        algorithm, shape = modules[module]
        return _width(rows, module, algorithm, shape)

    def answer(module: str) -> int | None:
        algorithm, shape = modules[module]
        return _answer(rows, contents.ups, module, algorithm, shape)

    def rank(module: str) -> int:
        return len(modules[module][1])

    denoiser = {**parts.get("denoiser", {}), **parts.get("denoiser_2", {})}
    encoders = {part: parts[part] for part in _ENCODERS if part in parts}
    cascade = any(module.startswith("lora_prior_unet_") for module in denoiser.values())
    return Target(denoiser, encoders, width, answer, rank, cascade)


def _width(rows: Rows, module: str, algorithm: str, shape: Shape) -> int | None:
    """How many features go into a module, where its algorithm shows that."""
    match algorithm:
        case "lora" | "loha" | "full" if len(shape) > 1:
            return shape[1]
        case "glora" if len(shape) > 1:
            return max(shape[:2])
        case "oft" if len(shape) == 2:  # peft's: blocks of the input's features
            return shape[0] * _size_of_block(shape)
        case "lokr":
            first = _columns(rows, module, "lokr_w1", "lokr_w1_b")
            second = _columns(rows, module, "lokr_w2", "lokr_w2_b")
            return first * second if first and second else None
    return None


def _answer(rows: Rows, ups: Mapping[str, Shape], module: str, algorithm: str, shape: Shape) -> int | None:
    """How many features come out of a module, where its algorithm shows that."""
    match algorithm:
        case "lora" if ups.get(module):
            return ups[module][0]
        case "full" if shape:
            return shape[0]
        case "oft" | "boft" if len(shape) > 2 and shape[-1] == shape[-2]:  # blocks on the diagonal of a rotation
            return shape[-3] * shape[-1]
        case "norm" if len(shape) == 1:
            return shape[0]
        case "ia3":
            factors = rows.get(f"{module}.weight")
            return max(factors.shape, default=None) if factors is not None else None
    return None


def _columns(rows: Rows, module: str, *leaves: str) -> int | None:
    """Columns of the first of a module's factors that is there."""
    for leaf in leaves:
        row = rows.get(f"{module}.{leaf}")
        if row is not None and len(row.shape) > 1:
            return row.shape[1]
    return None


def _ranks(rows: Rows, algorithm: str, modules: Mapping[str, tuple[str, Shape]]) -> tuple[int, int] | None:
    """The lowest and highest rank (OFT: the size of a block); None where the algorithm has none."""
    plain = {"locon": "lora", "boft": "oft"}.get(algorithm, algorithm)
    shapes = {name: shape for name, (each, shape) in modules.items() if each == plain and shape}
    match plain:
        case "lora" | "loha":
            found = {shape[0] for shape in shapes.values()}
        case "glora":
            found = {min(shape[:2]) for shape in shapes.values()}
        case "oft":
            found = {_size_of_block(shape) for shape in shapes.values()}
        case "lokr":
            factors = (rows.get(f"{name}.{leaf}") for name in shapes for leaf in ("lokr_w1_b", "lokr_w2_b"))
            found = {row.shape[0] for row in factors if row is not None and row.shape}
        case _:
            found = set()
    return (min(found), max(found)) if found else None


def _size_of_block(shape: Shape) -> int:
    """How many features a block of OFT turns: peft keeps what is above its diagonal, others all of it."""
    return (1 + isqrt(1 + 8 * shape[1])) // 2 if len(shape) == 2 else shape[-1]


def _called(part: str, target: Target) -> str:
    """A part's name in words that the families use."""
    if not part.startswith("denoiser"):
        return part
    return part.replace("denoiser", "unet" if is_unet(target) else "transformer")


_TITLES = {
    "lora": "LoRA", "locon": "LoCon (LoRA of convolutions too)", "loha": "LoHa", "lokr": "LoKr", "oft": "OFT",
    "boft": "BOFT", "glora": "GLoRA", "ia3": "IA3", "full": "full differences", "norm": "norms",
}  # fmt: skip


def _words(structure: _Structure, naming: str) -> str:
    """What it is made of, in words."""
    algorithm = structure.algorithm
    counts = " and ".join(f"{count} of the {part}" for part, count in structure.modules.items())
    lowest, highest = structure.ranks or (0, 0)
    size = "size of blocks" if algorithm in ("oft", "boft") else "rank"
    ranks = f", {size} {lowest}" if lowest == highest else f", {size} {lowest} to {highest}"
    title = f"DoRA, {_TITLES[algorithm]}" if structure.dora else _TITLES[algorithm]
    return f"{title} in {naming} naming{ranks if highest else ''}; modules: {counts}"


def _words_of_rest(rest: int) -> tuple[str, ...]:
    return (f"{rest} tensors beside it belong to no adapter",) if rest > 0 else ()


# --- putting it to work ----------------------------------------------------------------------------------------------


def unfit(what: Attachment) -> str:
    """What of a weight adapter does not fit a model, by names and shapes; empty if it fits."""
    if what.family.anatomy is None:
        return f"{what.family.title} has no weights that are known to take it"
    found = what.family.anatomy.patches(what.base, what.base_match, what.header)
    used = sum(len(patch.numbers) for patch in found.patches)
    if len(found.left) > used:
        left, all_of_it = len(found.left), used + len(found.left)
        return f"{left} of its {all_of_it} tensors have no place in the model ({shown(found.left[0])})"
    return next((words for patch in found.patches if (words := _wrong(patch))), "")


_COMPLETE: tuple[frozenset[str], ...] = (
    *(frozenset({role}) for role in (*WHOLE, "oft_blocks", "oft_diag", "oft_R", "ia3_l", "up_b")),
    frozenset({"up", "down"}),
    frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}),
    *(
        frozenset({*first, *second})
        for first in (("lokr_w1",), ("lokr_w1_a", "lokr_w1_b"))
        for second in (("lokr_w2",), ("lokr_w2_a", "lokr_w2_b"))
    ),
    frozenset({"a1", "a2", "b1", "b2"}),
    frozenset({"ia3", "on_input"}),
)  # the roles of tensors that make a change, of each kind


def _wrong(patch: Patch) -> str:
    """What is wrong with the change of a weight, as far as names and shapes tell; empty if nothing is."""
    numbers, place = patch.numbers, patch.place
    if not any(set(numbers) >= roles for roles in _COMPLETE):
        return f"of its change of {place.name} there is only {', '.join(sorted(numbers))}"
    if "oft_R" in numbers and patch.rotation is None:
        return "how it turns weights stands in the config that peft saves with it, and there is none that says it"
    whole = next((numbers[role] for role in WHOLE if role in numbers), None)
    if whole is not None:
        made: Shape = whole.shape
    elif "up" in numbers and "down" in numbers and "mid" not in numbers:
        made = (numbers["up"].shape[0], *numbers["down"].shape[1:])
    elif "hada_w1_a" in numbers and "hada_w1_b" in numbers and "hada_t1" not in numbers:
        made = (numbers["hada_w1_a"].shape[0], *numbers["hada_w1_b"].shape[1:])
    else:
        return ""
    if prod(made) == prod(place.shape):
        return ""
    return f"it changes a weight of {_times(made)}, where the model's {place.name} is {_times(place.shape)}"


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "one number"


def attach(pipe: Any, what: Attachment, emit: Emit) -> Callable[[], None]:
    """Have the weights of a loaded model changed, each as strongly as the use says for its part and its block.

    It learns the words of embeddings that come along (`bundle_emb`), too.

    Raises FileError for numbers that can't be read, or do not fit their weight.
    """
    from bottega.runtime.patch import Change
    from bottega.runtime.weights import MappedTensors

    anatomy, use, tensors = what.family.anatomy, what.use, MappedTensors(what.header)
    assert anatomy is not None  # or it would not fit
    found = anatomy.patches(what.base, what.base_match, what.header)
    words = bundled(what.header, what.base_match)
    learnt = {name for places in words.values() for name, _, _ in places.values()}
    if left := [name for name in found.left if name not in learnt]:
        more = f" and {len(left) - 3} more" if len(left) > 3 else ""
        emit(Note(f"{use.ref.name}: not used: {', '.join(map(shown, left[:3]))}{more}"))
    for note in found.notes:
        emit(Note(f"{use.ref.name}: {note}"))
    changes = []
    for patch in found.patches:
        if not (strength := _strength(patch, what)):
            continue
        place = patch.place
        changes.append(
            Change(
                part=place.part,
                name=place.name,
                mark=(use.ref.sha256, strength),
                numbers={role: tensors.of(info, role) for role, info in patch.numbers.items()},
                strength=strength,
                scale=patch.scale,
                rotation=patch.rotation,
                start=use.start,
                end=use.end,
                file=what.header.path,
            )
        )
    # An embedding of the same name, which was asked for by itself, goes before a bundled one.
    forget = teach(pipe, what.header, words, into=pipe.embeddings.maps[-1])
    take_away: Callable[[], None] = pipe.patcher.add(changes)

    def detach() -> None:
        forget()
        take_away()

    return detach


def _strength(patch: Patch, what: Attachment) -> float:
    """How strongly a use changes one weight."""
    strength, anatomy = what.use.strength(patch.place.part), what.family.anatomy
    if not what.use.blocks or anatomy is None:
        return strength
    return strength * what.use.blocks.get(anatomy.block(what.base_match, patch.place.tensor), 1.0)


def weigh(what: Attachment, dtypes: Mapping[str, str]) -> dict[str, int]:
    """The bytes of the weights that stand in for those that are changed."""
    anatomy = what.family.anatomy
    if anatomy is None:
        return {}
    found = anatomy.patches(what.base, what.base_match, what.header)
    return {
        f"{patch.place.part}.{patch.place.name}": prod(patch.place.shape) * BYTES_OF[dtypes[patch.place.part]]
        for patch in found.patches
        if _strength(patch, what)
    }


adapter = Adapter("lora", "LoRA and its relatives", recognise, attach=attach, unfit=unfit, weigh=weigh)
