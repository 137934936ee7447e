"""Another VAE stands in for a model's own: one of its design, or TAESD in every layout; and the one A1111 takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from adapter_files import taesd, write_taesd
from torch import Tensor

from bottega.adapters.vae import adapter
from bottega.engine.automatic import vaes_of
from bottega.errors import UnsupportedModel
from bottega.families import sd1, sd2, sdxl
from bottega.families._stable_diffusion import toy
from bottega.families._stable_diffusion.keys import pack, source_of
from bottega.families._stable_diffusion.load import Pipe
from bottega.families._stable_diffusion.pictures import decode, encode
from bottega.formats import read_header, safetensors
from bottega.recipe import Ref, Use
from bottega.runtime.place import choose
from bottega.runtime.weights import rows
from bottega.spec import Attachment

FAMILIES = {face.family.id: face.family for face in (sd1, sd2, sdxl)}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model of each family."""
    folder = tmp_path_factory.mktemp("toys")
    return {id: toy.write_single_file(folder / f"{id}.safetensors", id, dtype="float32") for id in FAMILIES}


def opened(path: Path) -> Pipe:
    header, face = read_header(path), FAMILIES[path.stem]
    match = face.recognise(header)
    assert match is not None
    pipe = face.load(header, match, choose("cpu", "float32"))
    assert isinstance(pipe, Pipe)
    return pipe


def vae_state(seed: int) -> dict[str, Tensor]:
    """The weights of a toy's VAE, under its network's names."""
    return toy.states("sd1", seed=seed)["vae"]


def write_vae(path: Path, naming: str, seed: int = 5, prefix: str = "", dtype: torch.dtype = torch.float32) -> Path:
    shape = replace(toy.shapes("sd1")["vae"], naming=naming)
    packed = pack(vae_state(seed), source_of(shape))
    safetensors.write(path, rows({prefix + name: tensor.to(dtype) for name, tensor in packed.items()}))
    return path


def attachment(file: Path, model: Path) -> Attachment:
    header, base, face = read_header(file), read_header(model), FAMILIES[model.stem]
    match, base_match = adapter.recognise(header), face.recognise(base)
    assert match is not None and base_match is not None
    return Attachment(Use(kind="vae", ref=Ref(name=file.name)), header, match, base, base_match, face)


def attach(pipe: Pipe, file: Path, model: Path) -> Callable[[], None]:
    what = attachment(file, model)
    assert adapter.unfit(what) == "" and adapter.attach is not None
    return adapter.attach(pipe, what, lambda event: None)  # type: ignore[arg-type]


def latents(seed: int = 1) -> Tensor:
    return torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(seed))


def picture(seed: int = 2) -> Tensor:
    return torch.rand((1, 3, 64, 64), generator=torch.Generator().manual_seed(seed)) * 2 - 1


@torch.no_grad()
def decoded(pipe: Pipe, tiled: bool = False) -> bytes:
    (made,) = decode(pipe, latents(), tiled=tiled)
    return made.tobytes()  # type: ignore[union-attr]


@torch.no_grad()
def encoded(pipe: Pipe) -> Tensor:
    return encode(pipe, picture())


# --- of a model's own design -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("naming", "prefix"), [("ldm", ""), ("ldm", "first_stage_model."), ("diffusers", ""), ("diffusers-old", "vae.")]
)
def test_it_decodes_and_encodes_as_a_model_that_has_it(
    naming: str, prefix: str, family: str, models: Mapping[str, Path], tmp_path: Path
) -> None:
    pipe, with_it = opened(models[family]), opened(models[family])
    with_it.vae.load_state_dict(vae_state(5))
    own = pipe.vae
    before = decoded(pipe), encoded(pipe)
    detach = attach(pipe, write_vae(tmp_path / "other.safetensors", naming, prefix=prefix), models[family])
    assert decoded(pipe) == decoded(with_it) != before[0]
    assert torch.equal(encoded(pipe), encoded(with_it))
    assert not torch.equal(encoded(pipe), before[1])
    detach()
    assert pipe.vae is own
    assert decoded(pipe) == before[0] and torch.equal(encoded(pipe), before[1])


def test_one_that_lacks_tensors_is_refused(models: Mapping[str, Path], tmp_path: Path) -> None:
    shape = replace(toy.shapes("sd1")["vae"], naming="ldm")
    packed = pack(vae_state(5), source_of(shape))
    del packed["decoder.mid.attn_1.q.weight"]
    safetensors.write(tmp_path / "part.safetensors", rows(packed))
    with pytest.raises(UnsupportedModel, match=r"lacks decoder\.mid\.attn_1\.q\.weight"):
        attach(opened(models["sd1"]), tmp_path / "part.safetensors", models["sd1"])


# --- TAESD -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layout", ["diffusers", "comfyui", "encoder", "decoder"])
def test_taesd_in_every_layout_is_that_of_diffusers(
    layout: str, family: str, models: Mapping[str, Path], tmp_path: Path
) -> None:
    pipe, tiny = opened(models[family]), taesd()
    own = decoded(pipe), encoded(pipe)
    detach = attach(pipe, write_taesd(tmp_path / "taesd.safetensors", layout, tiny), models[family])
    with torch.no_grad():
        pixels = tiny.decode(latents()).sample[0]
        wanted = ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy().tobytes()
        heard = tiny.encode(picture()).latents
    assert decoded(pipe, tiled=True) == (own[0] if layout == "encoder" else wanted)
    assert torch.allclose(encoded(pipe), own[1] if layout == "decoder" else heard, atol=1e-6)
    detach()
    assert decoded(pipe) == own[0] and torch.equal(encoded(pipe), own[1])


# --- what does not fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        ({"decoder.conv_in.weight": (512, 16, 3, 3)}, "its latents have 16 channels, and this model's have 4"),
        ({"conv1.weight": (8, 4, 7, 7), "conv8.weight": (3, 8, 3, 3)}, "it is of the sort approximation"),
    ],
)
def test_what_does_not_fit_is_told(
    shapes: Mapping[str, tuple[int, ...]], told: str, models: Mapping[str, Path], tmp_path: Path
) -> None:
    file = tmp_path / "other.safetensors"
    safetensors.write(file, rows({name: torch.zeros(shape) for name, shape in shapes.items()}))
    assert told in adapter.unfit(attachment(file, models["sd1"]))


# --- which one A1111 takes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("checkpoint", "card", "taken"),
    [
        ("model.safetensors", "", "model2.vae.safetensors"),  # as natural order has it, odd as that is
        ("model.vae.x", "", "model.vae.pt"),
        ("Model.safetensors", "", None),  # case counts
        ("model2.ckpt", "", "model2.vae.safetensors"),
        ("other.safetensors", "", None),
        ("other.safetensors", "extra.vae.pt", "extra.vae.pt"),
        ("model.safetensors", "extra", "extra.pt"),
        ("model.safetensors", "None", None),
        ("model.safetensors", "Automatic", "model2.vae.safetensors"),
        ("model.safetensors", "gone.pt", "model2.vae.safetensors"),
        ("mod", "", "model2.vae.safetensors"),
    ],
)
def test_the_vae_that_goes_with_a_checkpoint(checkpoint: str, card: str, taken: str | None) -> None:
    names = ("model10.vae.pt", "model2.vae.safetensors", "model.vae.pt", "extra.vae.pt", "extra.pt")
    found = vaes_of(Path("/models") / checkpoint, card, [Path("/vae") / name for name in names])
    assert (found[0].name if found else None) == taken
