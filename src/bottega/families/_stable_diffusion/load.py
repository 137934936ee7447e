"""Makes a recognised Stable Diffusion model ready to run: networks built from dimensions, weights from a memory map."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bottega.diffusion.clip_tokenizer import ClipTokenizer, builtin_tokenizer
from bottega.diffusion.conditioning import PromptEncoder, TextEncoder
from bottega.errors import UnsupportedModel
from bottega.families._stable_diffusion import networks as build
from bottega.families._stable_diffusion.keys import INNER, source_of, take
from bottega.families._stable_diffusion.layout import UnetShape, VaeShape
from bottega.families._stable_diffusion.parts import ENCODERS, IGNORED, Part, idle, incomplete, parts_of, stored_name
from bottega.families._stable_diffusion.recognise import SIZES_OF_VARIANT
from bottega.formats.header import Header
from bottega.runtime.patch import Patcher
from bottega.runtime.place import Place
from bottega.runtime.plan import TURNS
from bottega.runtime.turns import Turns
from bottega.runtime.weights import MappedTensors, assign
from bottega.spec import Match

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    from bottega.families._stable_diffusion.autoencoders import TinyAutoencoder


@dataclass
class Pipe:
    """A Stable Diffusion model in memory, and the facts that its tasks need.

    `text_encoders` are in the order in which the UNet hears them, each with how it is read; `schedule` has diffusers'
    names.
    """

    family: str
    variant: str
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoders: tuple[TextEncoder, ...]
    prediction: str
    zero_snr: bool
    schedule: Mapping[str, Any]
    scale_factor: float
    latent_channels: int
    size_factor: int
    sizes: int  # how many numbers beside the text SD XL takes; 0 for the others
    place: Place
    patcher: Patcher
    turns: Turns
    notes: tuple[str, ...] = ()
    # The vectors of new words, by the word and by the part that they are for, those first that were asked for by
    # themselves; whoever changes it has `prompts` forget.
    embeddings: ChainMap[str, Mapping[str, torch.Tensor]] = field(default_factory=lambda: ChainMap({}, {}))
    prompts: PromptEncoder | None = None  # made when first needed, and kept with what it has encoded
    preview_map: torch.Tensor | None = None
    previewer: TinyAutoencoder | None = None  # what previews are decoded with, instead of that map
    share: float = 0.0  # the part of the steps that lies behind

    @property
    def moved(self) -> int:
        """How many bytes of it are on the device now, and were in main memory before."""
        return self.turns.bytes

    def settle(self) -> None:
        """Make the weights what they are at the first step, with all that was attached and taken away meanwhile."""
        self._forget(self.patcher.settle())

    def go_to(self, share: float) -> None:
        """Make the weights what they are when that part of the steps lies behind."""
        self.share = share
        self._forget(self.patcher.go_to(share))

    def _forget(self, changed: Set[str]) -> None:
        """Keep nothing that other weights than now have made."""
        if self.prompts is not None and not changed.isdisjoint(ENCODERS):
            self.prompts.forget()


def load(
    header: Header,
    match: Match,
    place: Place,
    told: Callable[[int, int], None],
    *,
    family: str,
    needs: tuple[str, ...],
    instead: Mapping[str, Part],
) -> Pipe:
    """The model of a header on a device; the parts `instead` replace or complete its own.

    `told(done, total)` is called before the first part and after each; what it raises stops the loading. The parts that
    the place has `away` wait in main memory, and those that run at different times take turns on the device.

    Raises UnsupportedModel if a part is missing or is not what its names promise.
    """
    parts = {**parts_of(header, match), **instead}
    missing = [name for name in (*needs, "vae") if name not in parts]
    if missing:
        remedy = f"name a model that has {'it' if len(missing) == 1 else 'them'}"
        raise UnsupportedModel(header.path, f"has no {' and no '.join(missing)}", remedy)
    for part in parts.values():
        _refuse_what_would_go_wrong(part)
    loader = _Loader(place)
    names = (*needs, "unet", "vae")
    networks: dict[str, Any] = {}
    told(0, len(names))
    for name in names:
        networks[name] = loader.load(name, parts[name])
        told(len(networks), len(names))
    away = [[networks[name] for name in turn if name in networks and name in place.away] for turn in TURNS]
    staying = [network for name, network in networks.items() if name not in place.away]
    turns = Turns([turn for turn in away if turn], place.torch_device, staying)
    encoders = [name for name in ENCODERS if name in networks]
    vae = parts["vae"]
    assert isinstance(vae.shape, VaeShape)
    return Pipe(
        family=family,
        variant=match.variant,
        unet=networks["unet"],
        vae=networks["vae"],
        text_encoders=tuple(_reader(family, name, parts[name], networks[name]) for name in encoders),
        prediction=match.dimensions["prediction"],
        zero_snr=match.dimensions["zero_snr"],
        schedule=match.dimensions["schedule"],
        scale_factor=vae.scale_factor,
        latent_channels=vae.shape.latent_channels,
        size_factor=vae.shape.size_factor,
        sizes=SIZES_OF_VARIANT.get(match.variant, 6) if parts["unet"].shape.adm is not None else 0,
        place=place,
        patcher=Patcher({name: _parameters(network) for name, network in networks.items()}, turns),
        turns=turns,
        notes=(*loader.leftovers(), *_slower(place)),
    )


def _slower(place: Place) -> Iterator[str]:
    if place.away:
        yield f"{place.device} had no room for all of the model: its parts take turns there, which costs time"


def _parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """A network's weights under the names that don't depend on the version of transformers."""
    return {name.removeprefix(INNER): parameter for name, parameter in network.named_parameters()}


def _reader(family: str, name: str, part: Part, model: nn.Module) -> TextEncoder:
    """How this family reads that encoder: which layer, and what fills a chunk behind its end."""
    tokenizer = _tokenizer(part.header, name)
    if family == "sd1":
        return TextEncoder(model, tokenizer, obeys_clip_skip=True, part=name)
    if family == "sd2":  # its last block was not loaded, so the last layer is the one to read
        return TextEncoder(model, tokenizer, pad=0, part=name)
    if name == "text_encoder":
        return TextEncoder(model, tokenizer, layer=2, final_norm=False, part=name)
    return TextEncoder(model, tokenizer, layer=2, final_norm=False, pad=0, pooled=True, part=name)


def _tokenizer(header: Header, name: str) -> ClipTokenizer:
    """A folder's own tokenizer; a file carries none and means CLIP's."""
    folder = header.path / name.replace("text_encoder", "tokenizer")
    return ClipTokenizer.from_folder(folder) if folder.is_dir() else builtin_tokenizer()


def _refuse_what_would_go_wrong(part: Part) -> None:
    """What would load without a word and then compute something else."""
    shape = part.shape
    if any(name.endswith(("scaled_fp8", ".scale_weight")) for name in part.header.tensors):
        raise UnsupportedModel(part.header.path, "has float8 weights with scales of their own", "get it in float16")
    if isinstance(shape, UnetShape) and shape.middle > 0 and any(shape.down[-1]) and shape.middle != shape.down[-1][0]:
        what = f"its middle block is {shape.middle} deep and its deepest level {shape.down[-1][0]}"
        raise UnsupportedModel(part.header.path, what, "no published model is like that")


# --- one network from its file ---------------------------------------------------------------------------------------


class _Loader:
    """Builds networks and gives them their tensors, and remembers which tensors of each file were used."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._tensors: dict[int, MappedTensors] = {}
        self._headers: dict[int, Header] = {}
        self._used: dict[int, set[str]] = {}
        self._idle: dict[int, list[str]] = {}

    def load(self, name: str, part: Part) -> nn.Module:
        """One network, ready to run."""
        shape = part.shape
        if isinstance(shape, UnetShape):
            module = build.unet(shape)
        elif isinstance(shape, VaeShape):
            module = build.vae(shape, part.scale_factor)
        else:
            module = build.text_encoder(shape)
        tensors = self._gather(name, part, module)
        device = torch.device("cpu") if name in self._place.away else self._place.torch_device
        return assign(module, tensors, self._place.dtype(name), device)

    def _gather(self, name: str, part: Part, module: nn.Module) -> dict[str, torch.Tensor]:
        """The network's tensors as views of its file, under the network's names."""
        header = part.header
        self._headers[id(header)] = header
        stored = self._tensors.setdefault(id(header), MappedTensors(header))
        used = self._used.setdefault(id(header), set())
        self._idle.setdefault(id(header), []).extend(idle(part))
        tensors: dict[str, torch.Tensor] = {}
        missing: list[str] = []
        find = source_of(part.shape)
        for target, like in module.state_dict().items():
            source = find(target)
            place = stored_name(header, part.prefix + source.name)
            if place is None:
                missing.append(part.prefix + source.name)
                continue
            used.add(place)
            tensor = take(source, stored[place])
            if tensor.shape != like.shape:
                tensor = _reshaped(header, place, tensor, like.shape)
            tensors[target] = tensor
        if missing:
            raise incomplete(header, name, missing)
        return tensors

    def leftovers(self) -> Iterator[str]:
        """What was in the files and went nowhere, in words."""
        for key, header in self._headers.items():
            used, idle = self._used[key], tuple(self._idle[key])
            left = sorted(
                name
                for name in header.tensors
                if name not in used and not name.startswith(idle) and not IGNORED.search(name)
            )
            if left:
                more = f" and {len(left) - 3} more" if len(left) > 3 else ""
                yield f"{header.path.name}: not used: {', '.join(left[:3])}{more}"


def _reshaped(header: Header, name: str, tensor: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """The same numbers where only axes of size one differ, as between a linear layer and a 1x1 convolution."""
    if [size for size in tensor.shape if size != 1] != [size for size in shape if size != 1]:
        what = f"{name} is {_times(tensor.shape)} where the rest of the network asks for {_times(shape)}"
        raise UnsupportedModel(header.path, what, "the file is damaged, or a merge of models that do not fit")
    return tensor.reshape(shape)


def _times(shape: torch.Size) -> str:
    return "x".join(map(str, shape)) or "one number"
