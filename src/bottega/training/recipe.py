"""The training's recipe: everything that can change what is learned, in one structure that files and replays share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bottega.errors import FieldProblem, InvalidRecipe
from bottega.formats import strictjson
from bottega.recipe import Ref, Sha256
from bottega.validation import in_words

Kind = Literal["lora", "embedding", "hypernetwork", "full"]
KINDS: tuple[Kind, ...] = ("lora", "embedding", "hypernetwork", "full")
Optimizer = Literal["adamw", "prodigy", "adafactor"]
Decline = Literal["constant", "linear", "cosine", "cosine-restarts", "polynomial"]

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]
Some = Annotated[int, Field(ge=1, le=1_000_000)]


class Source(BaseModel):
    """A folder of pictures, known by the SHA-256 of what is in it: pictures, captions, masks and repeats."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    path: str
    sha256: Sha256 | None = None


class TrainingRecipe(BaseModel):
    """What to teach a model, by which pictures, and how.

    A draft leaves out nearly everything; `resolved` fills it with what suits its kind, and pins model and pictures.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    version: Literal[1] = 1
    kind: Kind
    model: Ref | None = None
    data: tuple[Source, ...] = ()
    regularisation: tuple[Source, ...] = ()

    word: str = Field(default="", description="the word that the pictures teach: put before captions that lack it")

    # What is trained.
    algorithm: Literal["lora", "dora", "loha", "lokr"] = Field(default="lora", description="of a LoRA")
    rank: int = Field(default=16, ge=1, le=1024, description="of linear layers and 1x1 convolutions")
    alpha: float | None = Field(default=None, gt=0, le=4096, description="scales by alpha / rank (the rank)")
    conv_rank: int = Field(
        default=0, ge=0, le=1024, description="of the convolutions between; 0 leaves them as they are"
    )
    factor: int = Field(default=8, ge=1, le=256, description="of LoKr: the largest side of its small matrices")
    text_encoder: bool | None = Field(default=None, description="teach the text encoders too")
    vectors: int = Field(default=2, ge=1, le=75, description="of an embedding")
    begin_with: str = Field(default="", description="words whose vectors an embedding begins with")
    structure: tuple[float, ...] = Field(default=(1.0, 2.0, 1.0), description="widths of a hypernetwork's layers")
    activation: Literal["linear", "relu", "leakyrelu", "elu", "swish", "tanh", "sigmoid"] = Field(
        default="relu", description="of a hypernetwork"
    )
    layer_norm: bool = Field(default=False, description="norms between a hypernetwork's layers")

    # The pace.
    steps: Some | None = Field(default=None, description="how often the weights change (by kind)")
    batch: int = Field(default=4, ge=1, le=1024, description="pictures looked at together")
    accumulate: int = Field(default=1, ge=1, le=1024, description="batches that one step sums up")
    rate: float | None = Field(default=None, gt=0, le=1000, description="learning rate (by kind; 1 for prodigy)")
    text_rate: float | None = Field(
        default=None, gt=0, le=1000, description="learning rate of the text encoders (half)"
    )
    optimizer: Optimizer = Field(
        default="adamw", description="adamw, adafactor, or prodigy, which finds its rate itself"
    )
    weight_decay: float = Field(default=0.0, ge=0, le=100, description="pulls weights to zero")
    schedule: Decline = Field(default="cosine", description="how the learning rate falls")
    warmup: Count = Field(default=0, description="steps in which it rises first")
    cycles: int = Field(default=1, ge=1, le=100, description="of cosine-restarts")
    clip: float = Field(default=1.0, ge=0, le=1e6, description="longest gradient; 0 clips none")

    # What is seen.
    resolution: int | None = Field(
        default=None, ge=64, le=4096, description="side of a square of a bucket's area (the model's)"
    )
    buckets: bool = Field(default=True, description="keep the pictures' shapes; without, all are cropped to squares")
    flip: bool = Field(default=False, description="mirror every second picture")
    dropout: Share = Field(default=0.05, description="share of captions that are left out")
    shuffle: bool = Field(
        default=False, description="bring a caption's parts, between commas, into another order each time"
    )
    keep: Count = Field(default=0, description="parts at its beginning that stay where they are")

    clip_skip: int = Field(
        default=1, ge=1, le=12, description="the layer, from the end, that SD 1 reads its captions from"
    )

    # How it is judged.
    min_snr: float = Field(
        default=5.0, ge=0, le=1000, description="gamma of min-SNR weighting; 0 weighs all times alike"
    )
    noise_offset: float = Field(
        default=0.0, ge=0, le=1, description="noise that whole pictures share, for light and dark"
    )
    prior: float = Field(default=1.0, ge=0, le=10, description="weight of the regularisation pictures")
    ema: float = Field(
        default=0.0, ge=0, lt=1, description="keep a running average with this decay, and write it; 0: none"
    )

    # How it is computed.
    seed: int = Field(default=0, ge=0, lt=2**63, description="the same seed trains the same weights")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="that it computes in"
    )
    checkpointing: bool = Field(default=False, description="compute activations twice instead of keeping them")

    # How it is watched.
    validation: float = Field(
        default=0.0, ge=0, le=0.5, description="share of the pictures that is held out to judge by"
    )
    validate_every: Some = Field(default=50, description="steps between two validations")
    patience: Count = Field(default=0, description="stop after so many validations that were no better; 0: never")
    samples: tuple[str, ...] = Field(default=(), description="prompts of pictures that are made as it goes")
    sample_every: Some = Field(default=100, description="steps between them")

    @model_validator(mode="after")
    def _whole(self) -> TrainingRecipe:
        ends = (*self.structure[:1], *self.structure[-1:])
        if self.kind == "hypernetwork" and (len(self.structure) < 2 or ends != (1, 1)):
            raise ValueError("structure: begins and ends with 1")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of all that can change the result: everything but where the pictures lie."""
        told = self.model_dump(mode="json", exclude_none=True)
        for source in (*told["data"], *told["regularisation"]):
            if "sha256" in source:
                del source["path"]
        return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def to_json(self) -> str:
        """The recipe as one line of JSON, as it stands in what was trained."""
        return json.dumps(self.model_dump(mode="json", exclude_none=True), separators=(",", ":"), ensure_ascii=False)

    def changed(self, **fields: Any) -> TrainingRecipe:
        """A copy with other fields, validated like any recipe."""
        return TrainingRecipe.model_validate({**dict(self), **fields})


def training_from(told: Mapping[str, Any]) -> TrainingRecipe:
    """A training's recipe from plain data, as JSON has it; InvalidRecipe names every wrong field."""
    try:
        return TrainingRecipe.model_validate_json(json.dumps(told))
    except ValidationError as error:
        problems = {".".join(map(str, item["loc"])) or "recipe": in_words(item) for item in error.errors()}
        raise InvalidRecipe([FieldProblem(field, what) for field, what in problems.items()]) from None


def read_training(text: str) -> TrainingRecipe:
    """A training's recipe from its JSON; InvalidRecipe names every wrong field."""
    try:
        told = json.loads(text)
        strictjson.check_depth(told)
    except (ValueError, RecursionError) as error:
        raise InvalidRecipe([FieldProblem("recipe", f"is no valid JSON ({strictjson.reason(error)})")]) from None
    if not isinstance(told, dict):
        raise InvalidRecipe([FieldProblem("recipe", "is no JSON object")])
    return training_from(told)


# What suits each kind, where a draft says nothing: steps and learning rate of AdamW.
_STEPS: Mapping[Kind, int] = {"lora": 800, "embedding": 1000, "hypernetwork": 1500, "full": 1000}
_RATES: Mapping[Kind, float] = {"lora": 2e-4, "embedding": 5e-3, "hypernetwork": 1e-4, "full": 1e-5}


def resolved(
    draft: TrainingRecipe,
    *,
    model: Ref,
    precision: str,
    side: int,
    data: tuple[Source, ...],
    regularisation: tuple[Source, ...] = (),
) -> TrainingRecipe:
    """The recipe that says everything: `side` is that of the pictures that the model makes, in pixels.

    Raises InvalidRecipe with every field that is wrong or says nothing for its kind.
    """
    rate = draft.rate or (1.0 if draft.optimizer == "prodigy" else _RATES[draft.kind])
    teaches = draft.kind in ("lora", "full") and bool(draft.text_encoder)
    recipe = draft.changed(
        model=model,
        data=data,
        regularisation=regularisation,
        precision=precision,
        resolution=draft.resolution or side,
        steps=draft.steps or _STEPS[draft.kind],
        rate=rate,
        text_encoder=teaches,
        text_rate=(draft.text_rate or (rate if draft.optimizer == "prodigy" else rate / 2)) if teaches else None,
        alpha=float(draft.alpha or draft.rank) if draft.kind == "lora" else None,
    )
    if problems := list(_problems(draft, recipe)):
        raise InvalidRecipe(problems)
    return recipe


def _problems(draft: TrainingRecipe, recipe: TrainingRecipe) -> list[FieldProblem]:
    problems = []
    if not recipe.data:
        problems.append(FieldProblem("data", "names no folder of pictures", "name one"))
    if recipe.kind == "embedding" and not recipe.word.strip():
        problems.append(FieldProblem("word", "is empty", "say which word the embedding is, as captions have it"))
    for name, kinds in _ONLY_FOR.items():
        told = getattr(draft, name)
        if told and draft.kind not in kinds and told != TrainingRecipe.model_fields[name].default:
            problems.append(FieldProblem(name, f"means nothing for {_A[draft.kind]}", "leave it out"))
    if recipe.patience and not recipe.validation:
        problems.append(FieldProblem("patience", "needs pictures to judge by", "hold some out with validation"))
    if recipe.resolution and recipe.resolution % 8:
        problems.append(FieldProblem("resolution", f"{recipe.resolution} is no multiple of 8"))
    return problems


_A: Mapping[Kind, str] = {
    "lora": "a LoRA",
    "embedding": "an embedding",
    "hypernetwork": "a hypernetwork",
    "full": "a whole model",
}
_ONLY_FOR: Mapping[str, tuple[Kind, ...]] = {
    **dict.fromkeys(("algorithm", "rank", "alpha", "conv_rank", "factor"), ("lora",)),
    **dict.fromkeys(("vectors", "begin_with"), ("embedding",)),
    **dict.fromkeys(("structure", "activation", "layer_norm"), ("hypernetwork",)),
    **dict.fromkeys(("text_encoder", "text_rate"), ("lora", "full")),
}


def means_nothing_for(kind: Kind) -> frozenset[str]:
    """The fields of a training's recipe that are for other kinds alone."""
    return frozenset(name for name, kinds in _ONLY_FOR.items() if kind not in kinds)


def usual(kind: Kind) -> tuple[int, float]:
    """The steps, and the learning rate of AdamW, of a training of this kind that says nothing of them."""
    return _STEPS[kind], _RATES[kind]
