"""The contracts between families, adapters, the library and the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from bottega.formats.header import BYTES_OF_DTYPE, Header, TensorInfo

if TYPE_CHECKING:
    from PIL.Image import Image

    from bottega.errors import BrokenPicture, FieldProblem
    from bottega.events import Event
    from bottega.recipe import Recipe, Use


# What a user must have to put an adapter of a family to work.
CHECKPOINT_OF_FAMILY: Mapping[str, str] = {
    "sd1": "a Stable Diffusion 1 checkpoint",
    "sd2": "a Stable Diffusion 2 checkpoint",
    "sdxl": "a Stable Diffusion XL checkpoint",
    "kolors": "a Kolors model",
    "sd-x4-upscaler": "the Stable Diffusion x4 upscaler",
    "svd": "a Stable Video Diffusion checkpoint",
    "modelscope-t2v": "a ModelScope text-to-video model",
    "kandinsky2": "a Kandinsky 2 model",
    "sd3": "a Stable Diffusion 3 model",
    "flux": "a FLUX.1 model",
    "flux2": "a FLUX.2 model",
    "chroma": "a Chroma model",
    "krea2": "a Krea 2 model",
    "ideogram4": "an Ideogram 4 model",
    "anima": "an Anima model",
    "stable-cascade": "a Stable Cascade model",
    "pixart": "a PixArt model",
    "sana": "a Sana model",
    "auraflow": "an AuraFlow model",
    "hunyuan-dit": "a HunyuanDiT model",
    "hunyuan-image": "a HunyuanImage model",
    "hunyuan-video": "a HunyuanVideo model",
    "lumina2": "a Lumina Image 2 model",
    "z-image": "a Z-Image model",
    "qwen-image": "a Qwen-Image model",
    "hidream": "a HiDream model",
    "wan": "a Wan model",
    "ltx": "an LTX-Video model",
    "mochi": "a Mochi model",
    "cogvideox": "a CogVideoX model",
    "cogview": "a CogView model",
    "kandinsky5": "a Kandinsky 5 model",
    "cosmos": "a Cosmos model",
    "allegro": "an Allegro model",
    "latte": "a Latte model",
    "stable-audio": "a Stable Audio model",
    "ace-step": "an ACE-Step model",
    "hunyuan3d": "a Hunyuan3D model",
}


@dataclass(frozen=True)
class Match:
    """What a recogniser found in a header.

    `dimensions` are read from shapes; `parts` maps `unet`, `vae`, `text_encoder`, ... to the prefix of its tensors;
    `because` is the evidence in words; `guess` says that the header alone can't decide. `family` is the one that an
    adapter fits, or that a recogniser of several families found (empty if that can't be told); None stands for the
    recogniser's own id. `requires` says in words what else it takes to make something with it.
    """

    variant: str
    dimensions: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    because: tuple[str, ...] = ()
    guess: bool = False
    kind: str = "checkpoint"
    category: str = "base"
    family: str | None = None
    requires: tuple[str, ...] = ()


class Recogniser(Protocol):
    """Whatever tells models of one sort by their headers: a family, a known architecture, an adapter."""

    @property
    def id(self) -> str:
        """Its name: short, lower case, its own."""

    @property
    def recognise(self) -> Callable[[Header], Match | None]:
        """The match of a header, or None for what is not of its sort; at most one recogniser may claim a header."""


@dataclass(frozen=True)
class Known:
    """An architecture that is told apart by its header, though Bottega can't run it yet.

    One that is `asked_last` is only heard where no other recogniser claims a header. `deciding` are names of which
    every header that it claims by its tensors has at least one; without any, it has to be asked about each.
    """

    id: str
    title: str
    medium: str
    recognise: Callable[[Header], Match | None]
    asked_last: bool = False
    deciding: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Knob:
    """One setting of a family: feeds validation, the command line, the HTTP schema and the form."""

    name: str
    type: type
    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    def check(self, value: object) -> str | None:
        """What is wrong with `value`, in words, or None."""
        if isinstance(value, bool) != (self.type is bool) or not isinstance(value, _ACCEPTED[self.type]):
            return f"{value!r} is not {_ARTICLE[self.type]}"
        low = -inf if self.low is None else self.low
        high = inf if self.high is None else self.high
        if isinstance(value, (int, float)) and not low <= value <= high:  # NaN is in no interval
            return f"{value!r} is not between {low:g} and {high:g}"
        if self.choices and value not in self.choices:
            return f"{value!r} is none of {', '.join(self.choices)}"
        return None

    def value_of(self, text: str) -> bool | int | float | str:
        """What a text that somebody typed means as this knob's value: `yes` and `on` are true, case does not matter.

        A text that means nothing here comes back as it is, for `check` to refuse.
        """
        if self.type is bool:
            return _SWITCH.get(text.casefold(), text)
        if self.type is str:
            return next((choice for choice in self.choices if choice.casefold() == text.casefold()), text)
        for number in (int, float):
            try:
                value = number(text)
            except ValueError:
                continue
            return value if -inf < value < inf else text  # no recipe can hold the others
        return text


_SWITCH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_ACCEPTED: dict[type, tuple[type, ...]] = {int: (int,), float: (int, float), bool: (bool,), str: (str,)}
_ARTICLE = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


class Emit(Protocol):
    """What a task tells the engine while it works; every call raises Interrupted once the user has stopped the job."""

    @property
    def previews(self) -> bool:
        """Whether a rough picture is wanted now."""

    def __call__(self, event: Event) -> None:
        """Say something."""

    def preview(self, image: int, step: int, picture: Image) -> None:
        """Show a rough picture of image `image` after `step` steps."""


@dataclass(frozen=True)
class Attachment:
    """An adapter and the model that it is to change: as a recipe uses it, and by what their headers say."""

    use: Use
    header: Header
    match: Match
    base: Header
    base_match: Match
    family: Family


def _stored_bytes(what: Attachment, dtypes: Mapping[str, str]) -> dict[str, int]:
    count = sum(round(info.elements * BYTES_OF_DTYPE[info.dtype]) for info in what.header.tensors.values())
    return {f"{what.use.kind} {what.use.ref.sha256}": count}


@dataclass(frozen=True)
class Adapter:
    """A kind of model that changes others: how it is told, and to which family it fits.

    `attach(pipe, what, emit)` has a loaded model changed and answers with what takes that back; None for a kind that
    can't be attached yet. What changes weights takes effect with `pipe.settle()`, which is called after the last of
    several; what there is no use for is told in one Note. `unfit(what)` says what of it does not fit the model, empty
    if all does, and `weigh(what, dtypes)` how many bytes it will take in a model whose parts have these dtypes, by what
    they are for: what several adapters share is there once. Neither needs torch.
    """

    id: str
    title: str
    recognise: Callable[[Header], Match | None]
    attach: Callable[[Any, Attachment, Emit], Callable[[], None]] | None = None
    unfit: Callable[[Attachment], str] = lambda what: ""
    weigh: Callable[[Attachment, Mapping[str, str]], Mapping[str, int]] = _stored_bytes


@dataclass(frozen=True)
class Task:
    """What is made from what, under Hugging Face's name where there is one, and the function that makes it.

    `run(pipe, batch, inputs, emit)` gets resolved recipes for one picture each, which differ in their seeds only, and
    the input pictures by role; it answers with one picture for each recipe, or with what is wrong with that one.
    """

    id: str
    run: Callable[[Any, Sequence[Recipe], Mapping[str, Image], Emit], list[Image | BrokenPicture]]
    needs: tuple[str, ...] = ()


Pieces = tuple[TensorInfo, ...]  # stored tensors (or views of such) that make one tensor, on top of each other


@dataclass(frozen=True)
class Relayout:
    """A model in another layout than it is stored in: which stored tensors make each of its tensors.

    `weights` are by the file that they go to: `""` for a model of one file, else a name within its folder. `files` are
    the other files of a folder, `metadata` is for the file of a model that has one, `left` are the stored tensors that
    have no place in this layout, and `notes` say what somebody should know of it.
    """

    weights: Mapping[str, Mapping[str, Pieces]]
    files: Mapping[str, bytes] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where a tensor of a network lies in the single file: the whole of `tensor`, or a third of its rows.

    `key` is what LoRA files call its module. `shape` is the network's; `transposed` a matrix that is stored the other
    way round.
    """

    part: str
    name: str
    key: str
    tensor: str
    shape: tuple[int, ...]
    third: int | None = None
    transposed: bool = False


@dataclass(frozen=True)
class Rotation:
    """How peft makes rotations of OFT's skew matrices: of the first `terms` of Neumann's series, or exactly.

    `bound` limits how long the matrices are together, where they are held (COFT).
    """

    terms: int | None
    bound: float | None = None


@dataclass(frozen=True)
class Patch:
    """What an adapter does to one tensor: its numbers by their role (`up`, `down`, `alpha`, `hada_w1_a`, ...).

    `scale` stands for alpha / rank where the file's metadata says it and no tensor does; so does `rotation` for OFT.
    """

    place: Place
    numbers: Mapping[str, TensorInfo]
    scale: float | None = None
    rotation: Rotation | None = None


@dataclass(frozen=True)
class Patches:
    """All that an adapter does to one model, the tensors of it that have no place there, and what is to be known."""

    patches: tuple[Patch, ...]
    left: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Anatomy:
    """How the models of a family are put together, for a library that takes them apart without knowing them.

    Nothing in it needs torch, or reads a large tensor. Layouts are `single` (the file that people exchange) and
    `diffusers` (a folder). `averages` tells where a training's running averages of tensors are, `leftovers` what of a
    file nobody needs to make something with it. `vae` are the tensors of a VAE's file, named as a single file names
    them, `blocks` the names of the blocks that can have weights of their own in a merge, and `block` the one of them
    that a tensor of a single file belongs to. `patches` says what an adapter does to which tensor,
    `places` where those tensors are that a LoRA can change, `names` what a LoRA's metadata calls a base model.
    """

    relayout: Callable[[Header, Match, str], Relayout]
    averages: Callable[[Header, Match], Mapping[str, str]]
    leftovers: Callable[[Header], frozenset[str]]
    vae: Callable[[Header], Mapping[str, Pieces]]
    blocks: Callable[[Match], tuple[str, ...]]
    block: Callable[[Match, str], str]
    patches: Callable[[Header, Match, Header], Patches]
    places: Callable[[Header, Match], Sequence[Place]]
    names: Callable[[Match], Mapping[str, str]]


@dataclass(frozen=True)
class Shown:
    """What a network is told of a picture's size: `original` and `target` as (height, width), `crop` as (top, left)."""

    original: tuple[int, int]
    crop: tuple[int, int]
    target: tuple[int, int]


@dataclass(frozen=True)
class Lesson:
    """What a family lends to the training loop: its networks, how they are asked, and what is wrong with an answer.

    `refuse(match)` says why a model can't be taught, or None. `ready(pipe, checkpointing)` prepares a pipe that is
    taught and not only run. `networks(pipe)` are the networks by the part that they are. `encode(pipe, pixels)` makes
    latents (B, C, h, w) in float32 of (B, 3, H, W) in -1..1. `chunks(pipe, caption)` is how many chunks a caption
    takes, and `say(pipe, captions, chunks, clip_skip, vectors)` what the network hears of captions, all cut to so many
    chunks: tensors that can be stacked, differentiable; `vectors` are those of new words, (n, width) by word and part.
    `errors(pipe, latents, said, shown, noise, times)` are the squared errors (B, C, h, w) of what the network makes of
    noised latents at `times`, and `signal(pipe)` the signal-to-noise ratio at each of these, with whether the network
    predicts v. `group(place)` tells what a LoRA's rank for a tensor is called: `linear`, `convolution` or, for none,
    the empty text. `hears(pipe)` are the modules whose inputs a hypernetwork changes, by kind (`k`, `v`) and width.
    `tokens(text)` are a text's tokens as text, and `words(pipe, text)` their vectors (n, width) by part.
    """

    refuse: Callable[[Match], str | None]
    ready: Callable[[Any, bool], None]
    networks: Callable[[Any], Mapping[str, Any]]
    encode: Callable[[Any, Any], Any]
    chunks: Callable[[Any, str], int]
    say: Callable[..., Any]
    errors: Callable[..., Any]
    signal: Callable[[Any], tuple[Any, bool]]
    group: Callable[[Place], str]
    hears: Callable[[Any], Mapping[int, Mapping[str, Sequence[Any]]]]
    tokens: Callable[[str], list[str]]
    words: Callable[[Any, str], Mapping[str, Any]]


@dataclass(frozen=True)
class Family:
    """An architecture: how to recognise, load and run its models. A torch-free face; heavy imports inside functions.

    `load(header, match, place, told)` answers with the pipe; it calls `told(done, total)` before the first part and
    after each, and stops with whatever that raises. With `vae=(header, match)` it completes a model that has no VAE.
    `limits(match)` are the highest values of those knobs that one model bounds more closely than its family.
    `problems(knobs)` are those of values that each knob may have, and the picture can't be made with.
    `varied(match, variant)` is the match of a model whose user knows its variant better than its header tells. Models
    of a family without an `anatomy` can't be merged or laid out anew, those of one without `train` can't be taught.
    `autoencoder(pipe, header, match)` is what a VAE's file puts in the place of a loaded model's own.
    """

    id: str
    title: str
    medium: str
    recognise: Callable[[Header], Match | None]
    load: Callable[..., Any]
    tasks: Mapping[str, Task]
    defaults: Callable[[Header, Match], Mapping[str, Any]]
    knobs: tuple[Knob, ...]
    toy: Callable[..., Any]
    limits: Callable[[Match], Mapping[str, int]] = lambda match: {}
    problems: Callable[[Mapping[str, Any]], Iterable[FieldProblem]] = lambda knobs: ()
    varied: Callable[[Match, str], Match] = lambda match, variant: replace(match, variant=variant)
    anatomy: Anatomy | None = None
    train: Lesson | None = None
    autoencoder: Callable[[Any, Header, Match], Any] | None = None
