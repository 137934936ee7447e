"""What was saved in a wrapper is told, and loaded, as what is in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from headers import adapters, minimal
from headers import stable_diffusion as sd
from headers.architectures import LAYOUTS
from headers.architectures import PUBLISHED as NETWORKS

from bottega.families import family
from bottega.families._stable_diffusion.toy import write_single_file
from bottega.formats import read_header, safetensors
from bottega.formats.header import Header, TensorInfo
from bottega.formats.wrappers import unwrapped
from bottega.library.convert import Wish, convert
from bottega.library.disk import stamp_of
from bottega.library.identify import Identity, identify
from bottega.library.reading import read_entry
from bottega.recognisers import all_recognisers
from bottega.runtime.weights import MappedTensors, rows

Shapes = Mapping[str, tuple[int, ...]]

LDM = sd.whole(sd.sd1_unet(), {"cond_stage_model.transformer.": sd.clip()})
ENCODER = "cond_stage_model.transformer."


def header_of(shapes: Shapes, format: str = "safetensors") -> Header:
    file = Path(os.devnull)
    return Header(file, format, {name: TensorInfo("F16", shape, file, 0, 0) for name, shape in shapes.items()})


def told(shapes: Shapes) -> Identity:
    return identify(unwrapped(header_of(shapes)), all_recognisers())


def names(shapes: Shapes) -> tuple[str, ...]:
    return tuple(unwrapped(header_of(shapes)).tensors)


SINGLE = [name for name, each in NETWORKS.items() if each.layout.kind == "diffusion_model" and not each.outer]


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "ema.", "_orig_mod.module.", "_fsdp_wrapped_module."])
def test_a_wrapped_network_is_told_as_it_is_by_itself(wrapper: str) -> None:
    for name in SINGLE:
        shapes = NETWORKS[name].inner
        assert told(sd.under(wrapper, shapes)) == told(shapes), name


WHOLE: dict[str, Shapes] = {
    "checkpoint": LDM,
    "unet": sd.sd1_unet(),
    "autoencoder": sd.vae(),
    "encoder": sd.clip(),
    "lora": adapters.LAYOUTS["lora/kohya-lora-sd1"].shapes,
}


@pytest.mark.parametrize("what", WHOLE)
def test_a_whole_file_under_a_wrapper(what: str) -> None:
    shapes = WHOLE[what]
    for wrapper in ("module.", "_orig_mod.", "state_dict.", "module.module.", "state_dict.module._orig_mod."):
        assert told(sd.under(wrapper, shapes)) == told(shapes), wrapper


@pytest.mark.parametrize("what", ["checkpoint", "autoencoder"])
def test_a_whole_file_that_a_trainer_called_its_model(what: str) -> None:
    assert told(sd.under("model.", WHOLE[what])) == told(WHOLE[what])


@pytest.mark.parametrize(
    "inside",
    [
        "model.diffusion_model.module.",
        "model.diffusion_model._orig_mod.",
        "model.diffusion_model._orig_mod.module.",
        "_orig_mod.model.diffusion_model.",
    ],
)
def test_a_network_that_is_wrapped_in_its_checkpoint(inside: str) -> None:
    beside = {name: shape for name, shape in LDM.items() if not name.startswith("model.diffusion_model.")}
    assert told(sd.under(inside, sd.sd1_unet()) | beside) == told(LDM)


def test_blocks_that_are_wrapped_one_by_one() -> None:
    shapes = {
        name.replace(".transformer_blocks.0.", ".transformer_blocks.0._orig_mod."): it for name, it in LDM.items()
    }
    assert told(shapes) == told(LDM)


@pytest.mark.parametrize(
    ("plain", "wrapped"),
    [
        ("base_model.model.", "base_model.model._orig_mod."),
        ("base_model.model.", "base_model.model.module."),
        ("lora_unet_", "lora_unet__orig_mod_"),
        ("lora_unet_", "module.lora_unet_"),
    ],
)
def test_adapters_of_a_wrapped_network(plain: str, wrapped: str) -> None:
    module = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
    if plain.startswith("lora"):
        module = module.replace(".", "_")
    leaves = ("lora_A", "lora_B") if plain.startswith("base") else ("lora_down", "lora_up")
    sizes = dict(zip(leaves, ((8, 768), (640, 8)), strict=True))
    by_prefix = [{f"{it}{module}.{leaf}.weight": size for leaf, size in sizes.items()} for it in (plain, wrapped)]
    alone, inside = map(told, by_prefix)
    assert (alone.family, inside) == ("sd1", alone)


# --- what is no wrapper ----------------------------------------------------------------------------------------------


def test_published_names_stay_what_they_are() -> None:
    for name, layout in {**LAYOUTS, **minimal.MINIMAL}.items():
        if layout.format == "safetensors":
            plain, bare = header_of(layout.shapes), unwrapped(header_of(layout.shapes))
            before, after = (identify(each, all_recognisers()) for each in (plain, bare))
            assert (after.family, after.match.kind, after.match.variant) == (
                before.family, before.match.kind, before.match.variant,
            ), name  # fmt: skip


@pytest.mark.parametrize(
    "shapes",
    [
        {"model.diffusion_model.module.weight": (1,), "model.diffusion_model.out.weight": (1,)},
        {"module.weight": (1,), "weight": (1,)},
        {"ema.weight": (1,), "model.weight": (1,)},
        {"bert.module.weight": (1,), "bert_encoder.module.weight": (1,)},
        {"_orig_mod.weight": (1,), "weight": (2,)},
        {"model.layers.0.weight": (1,)},
        {},
    ],
    ids=lambda shapes: " ".join(shapes) or "none",
)
def test_what_others_may_call_so_stays(shapes: Shapes) -> None:
    assert unwrapped(header_of(shapes)).tensors == header_of(shapes).tensors
    assert names(shapes) == tuple(shapes)


def test_the_order_of_tensors_stays() -> None:
    assert names({"module.b": (1,), "module.c": (2,), "module.a": (3,)}) == ("b", "c", "a")


def test_wrappers_without_end_end() -> None:
    assert len(names({f"{'module.ema.' * 100_000}weight": (1,)})) == 1


def test_a_file_without_a_wrapper_is_not_made_anew() -> None:
    header = header_of(LDM)
    assert unwrapped(header) is header


# --- encoders under what others put before them ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix",
    ["clip_l.transformer.", "text_encoders.clip_l.transformer.", ENCODER, f"module.{ENCODER}"],
)
def test_a_whole_encoder_misses_nothing(prefix: str) -> None:
    found, plain = told(sd.under(prefix, sd.clip())), told(sd.clip())
    assert (found.family, found.match.variant, found.match.guess) == (plain.family, plain.match.variant, False)
    assert not any("missing" in words for words in found.match.because)


@pytest.mark.parametrize("prefix", ["t5xxl.transformer.", "text_encoders.t5xxl.transformer.", "module."])
def test_a_whole_t5_misses_nothing(prefix: str) -> None:
    shapes = LAYOUTS["t5-xxl"].shapes
    found = told(sd.under(prefix, shapes))
    assert (found.family, found.match.variant, found.match.guess) == ("t5", "v1.1", False)


def test_two_encoders_in_one_file_miss_nothing() -> None:
    both = sd.under("clip_l.transformer.", sd.clip()) | sd.under("t5xxl.transformer.", LAYOUTS["t5-xxl"].shapes)
    found = told(both)
    assert (found.match.kind, found.match.guess) == ("text_encoder", True)
    assert not any("missing" in words for words in found.match.because)


def test_an_encoder_in_its_checkpoint_is_no_model_by_itself() -> None:
    assert told(LDM).recogniser == "sd1"


# --- files -----------------------------------------------------------------------------------------------------------


def wrapped(path: Path, source: Path, rename: Callable[[str], str]) -> Path:
    tensors = MappedTensors(read_header(source))
    safetensors.write(path, rows({rename(name): tensor for name, tensor in tensors.items()}))
    return path


def test_a_wrapped_checkpoint_has_the_weights_of_the_plain_one(tmp_path: Path) -> None:
    plain = write_single_file(tmp_path / "plain.safetensors", "sd1")
    inside = wrapped(
        tmp_path / "inside.safetensors",
        plain,
        lambda name: name.replace("model.diffusion_model.", "model.diffusion_model._orig_mod."),
    )
    around = wrapped(tmp_path / "around.safetensors", plain, lambda name: f"module.{name}")
    known = dict(MappedTensors(read_header(plain)))
    for path in (inside, around):
        found = dict(MappedTensors(read_header(path)))
        assert found.keys() == known.keys()
        assert all(torch.equal(found[name], known[name]) for name in known)
        assert family("sd1").recognise(read_header(path)) == family("sd1").recognise(read_header(plain))


def test_a_conversion_keeps_the_names_of_its_layout(tmp_path: Path) -> None:
    plain = write_single_file(tmp_path / "plain.safetensors", "sd1")
    path = wrapped(tmp_path / "around.safetensors", plain, lambda name: f"module.{name}")
    made = tmp_path / "made.safetensors"
    convert(read_header(path), made, Wish(dtype="bf16"))
    assert list(safetensors.read_header(made).tensors) == list(safetensors.read_header(path).tensors)


def test_the_evidence_names_the_wrapper(tmp_path: Path) -> None:
    plain = write_single_file(tmp_path / "plain.safetensors", "sd1")
    path = wrapped(tmp_path / "around.safetensors", plain, lambda name: f"module._orig_mod.{name}")
    entry = read_entry(path, stamp_of(path), None, all_recognisers())
    assert any("without _orig_mod. and module." in words for words in entry.because)
    assert not any("without" in words for words in read_entry(plain, stamp_of(plain), None, all_recognisers()).because)
