"""Another autoencoder for a loaded model: one of its own design, or TAESD, a tiny one that is rough and fast."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from bottega.errors import UnsupportedModel
from bottega.families._stable_diffusion import networks as build
from bottega.families._stable_diffusion.keys import source_of, take
from bottega.families._stable_diffusion.layout import configured_vae, read_vae
from bottega.families._stable_diffusion.parts import Part, incomplete, stored_name
from bottega.formats.header import Header
from bottega.runtime.weights import MappedTensors, assign
from bottega.spec import Match

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    from bottega.families._stable_diffusion.load import Pipe

TINY = ("taesd", "taesdxl")


def autoencoder(header: Header, match: Match, pipe: Pipe) -> AutoencoderKL | TinyAutoencoder:
    """The autoencoder of a file, on the device of a loaded model, whose scale of latents stays.

    Raises UnsupportedModel if it lacks tensors, or makes pictures of another size than the model's own.
    """
    if match.variant in TINY:
        return _tiny(header, match.parts["vae"], pipe)
    part = part_of(header, match, pipe.scale_factor)
    if part.shape.size_factor != pipe.size_factor:
        what = f"turns a latent's cell into {part.shape.size_factor} pixels a side, and the model's own into"
        raise UnsupportedModel(header.path, f"{what} {pipe.size_factor}", "choose another VAE")
    module = build.vae(part.shape, pipe.scale_factor)
    return assign(module, _own(part, module), pipe.place.dtype("vae"), pipe.place.torch_device)


def part_of(header: Header, match: Match, scale: float) -> Part:
    """The autoencoder of a file as a part of a model with that scale of latents; UnsupportedModel for half of one."""
    prefix = match.parts["vae"]
    shape = read_vae(header.under(prefix))
    if shape is None:
        raise UnsupportedModel(header.path, "holds no whole autoencoder", "get it with its encoder and its decoder")
    return Part(header, prefix, configured_vae(shape, header.configs.get(prefix.removesuffix("/"), {})), scale)


def _own(part: Part, module: nn.Module) -> dict[str, Tensor]:
    """The tensors of an autoencoder of the model's own design under the network's names."""
    stored, find = MappedTensors(part.header), source_of(part.shape)
    tensors, missing = {}, []
    for name, like in module.state_dict().items():
        source = find(name)
        place = stored_name(part.header, part.prefix + source.name)
        tensor = take(source, stored[place]) if place else None
        if tensor is None or tensor.numel() != like.numel():
            missing.append(part.prefix + source.name)
        else:
            tensors[name] = tensor.reshape(like.shape)
    if missing:
        raise incomplete(part.header, "autoencoder", missing)
    return tensors


# --- TAESD -----------------------------------------------------------------------------------------------------------


class _Latents(NamedTuple):
    latents: Tensor

    def mode(self) -> Tensor:
        """What is the most likely; a tiny autoencoder knows nothing else."""
        return self.latents


class _Encoded(NamedTuple):
    latent_dist: _Latents


class _Decoded(NamedTuple):
    sample: Tensor


class TinyAutoencoder(nn.Module):
    """TAESD behind the face of the autoencoder that it stands in for; the half that it lacks is that one's own.

    It was trained on latents as the UNet sees them, which are `scale` times what an autoencoder gives.
    """

    use_tiling = False  # it needs little memory, and its pixels see no farther than a few cells

    def __init__(
        self, encoder: nn.Module | None, decoder: nn.Module | None, own: AutoencoderKL | TinyAutoencoder, scale: float
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.scale = encoder, decoder, scale
        self._own = (own,)  # a tuple, so that it is no part of this network
        self.config = own.config
        self.dtype = next(self.parameters()).dtype

    def encode(self, pixels: Tensor) -> _Encoded:
        """Pictures (B, 3, H, W) in -1..1 to latents (B, 4, H/8, W/8)."""
        if self.encoder is None:
            return self._own[0].encode(pixels)
        return _Encoded(_Latents(self.encoder(pixels) / self.scale))

    def decode(self, latents: Tensor) -> _Decoded:
        """Latents (B, 4, h, w) to pictures (B, 3, 8h, 8w) in -1..1."""
        if self.decoder is None:
            return self._own[0].decode(latents)
        return _Decoded(self.decoder(latents * self.scale))


# Under which prefix each half is, in the names of each layout, and how many layers before the first one are counted
# there: the original's decoder begins with a clamp.
_HALVES: Mapping[str, Mapping[str, tuple[str, int]]] = {
    "diffusers": {"encoder": ("encoder.layers.", 0), "decoder": ("decoder.layers.", 0)},
    "comfyui": {"encoder": ("taesd_encoder.", 0), "decoder": ("taesd_decoder.", 1)},
    "original encoder": {"encoder": ("", 0)},
    "original decoder": {"decoder": ("", 1)},
}


def _halves(header: Header, prefix: str) -> Mapping[str, tuple[str, int]]:
    view = header.under(prefix)
    if "encoder.layers.0.weight" in view or "decoder.layers.0.weight" in view:
        return _HALVES["diffusers"]
    if "taesd_encoder.0.weight" in view or "taesd_decoder.1.weight" in view:
        return _HALVES["comfyui"]
    return _HALVES["original encoder" if "14.weight" in view else "original decoder"]


def _tiny(header: Header, prefix: str, pipe: Pipe) -> TinyAutoencoder:
    made: dict[str, nn.Module] = {}
    for half, (below, before) in _halves(header, prefix).items():
        module = build.tiny_half(half, pipe.latent_channels)
        tensors = dict(_tiny_tensors(header, prefix + below, before, module))
        if not tensors:
            continue
        missing = [name for name in module.state_dict() if name not in tensors]
        if missing:
            raise incomplete(header, half, missing)
        made[half] = assign(module, tensors, pipe.place.dtype("vae"), pipe.place.torch_device)
    return TinyAutoencoder(made.get("encoder"), made.get("decoder"), pipe.vae, pipe.scale_factor)


def _tiny_tensors(header: Header, prefix: str, before: int, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    stored = MappedTensors(header)
    for name, like in module.state_dict().items():
        _, number, rest = name.split(".", 2)  # layers.3.conv.0.weight
        place = f"{prefix}{int(number) + before}.{rest}"
        if place in stored and stored[place].shape == like.shape:
            yield name, stored[place]
