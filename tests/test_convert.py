"""Converting gives the same numbers under the names that other programs read, or nothing at all."""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from changing import replaced, saved_anew
from conftest import Command, killed_in
from safetensors.torch import load_file, save_file
from scaled_models import scaled_file, scaled_folder
from spoiling import spoil_what_arrives

from bottega.errors import BottegaError, FileError, FormatError, SaveError
from bottega.families import all_families, sd1, sd2, sdxl
from bottega.families._stable_diffusion import toy
from bottega.families._stable_diffusion.inventory import names_of
from bottega.families._stable_diffusion.keys import source_of, stow, take, view
from bottega.families._stable_diffusion.layout import TextShape, UnetShape, VaeShape
from bottega.families._stable_diffusion.load import Pipe
from bottega.formats import read_header, safetensors
from bottega.formats.header import Header, Packed, TensorInfo
from bottega.library import writing
from bottega.library.contents import AHEAD, ELEMENTS, HELD, Reader, ahead
from bottega.library.convert import Converted, Wish, convert
from bottega.library.identify import identify
from bottega.library.writing import Told
from bottega.recognisers import all_recognisers
from bottega.runtime.place import choose
from bottega.runtime.weights import rows

FAMILIES = {face.family.id: face.family for face in (sd1, sd2, sdxl)}
MODELS = [
    ("sd1", "base"),
    ("sd1", "inpainting"),
    ("sd1", "instruct-pix2pix"),
    ("sd2", "base"),
    ("sd2", "v-prediction"),
    ("sdxl", "base"),
    ("sdxl", "refiner"),
]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def converted(source: Path, destination: Path, told: Told = lambda *_: None, **wish: object) -> Converted:
    """Convert as the command does."""
    header = read_header(source)
    identity = identify(header, all_recognisers())
    anatomy = next((family.anatomy for family in all_families() if family.id == identity.recogniser), None)
    return convert(header, destination, Wish(**wish), identity.match if identity.recogniser else None, anatomy, told)


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype, name
        assert torch.equal(tensor, other[name]), name


# --- layouts ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("family", "variant"), MODELS)
def test_there_and_back_again_is_bit_equal(tmp_path: Path, family: str, variant: str) -> None:
    single = toy.write_single_file(tmp_path / "a.safetensors", family, variant, metadata={"modelspec.title": "A"})
    converted(single, tmp_path / "folder")
    converted(tmp_path / "folder", tmp_path / "b.safetensors")
    assert_same(load_file(tmp_path / "b.safetensors"), load_file(single))
    assert read_header(tmp_path / "b.safetensors").metadata["modelspec.title"] == "A"


@pytest.mark.slow
@pytest.mark.parametrize(("family", "variant"), MODELS)
def test_both_layouts_are_recognised_as_the_same(tmp_path: Path, family: str, variant: str) -> None:
    header = read_header(toy.write_single_file(tmp_path / "a.safetensors", family, variant))
    converted(header.path, tmp_path / "folder")
    converted(tmp_path / "folder", tmp_path / "b.safetensors")
    for path in (tmp_path / "folder", tmp_path / "b.safetensors"):
        match = FAMILIES[family].recognise(read_header(path))
        assert match is not None
        assert match.variant == variant
        assert not match.guess  # even where the first file left it open
        assert match.dimensions["schedule"] == FAMILIES[family].recognise(header).dimensions["schedule"]


def test_what_old_programs_wrote_gets_the_names_of_today(tmp_path: Path) -> None:
    old = toy.write_single_file(tmp_path / "old.safetensors", "sd1", old_names=True)
    new = toy.write_single_file(tmp_path / "new.safetensors", "sd1")
    converted(old, tmp_path / "folder")
    assert all(
        name.startswith("text_model.") for name in load_file(tmp_path / "folder" / "text_encoder" / "model.safetensors")
    )
    converted(tmp_path / "folder", tmp_path / "back.safetensors")
    assert_same(load_file(tmp_path / "back.safetensors"), load_file(new))
    early = toy.write_folder(tmp_path / "early", "sd1", old_vae=True, shards=2)
    converted(early, tmp_path / "early.safetensors")
    assert_same(load_file(tmp_path / "early.safetensors"), load_file(new))


def test_a_folder_becomes_another_folder(tmp_path: Path) -> None:
    folder = toy.write_folder(tmp_path / "a", "sdxl", shards=3)
    converted(folder, tmp_path / "b", dtype="bf16")
    assert not list((tmp_path / "b" / "unet").glob("*.index.json"))
    one, other = read_header(folder), read_header(tmp_path / "b")
    assert {name.replace("text_model.", "") for name in one.tensors} == {
        name.replace("text_model.", "") for name in other.tensors
    }
    assert set(other.dtypes) == {"BF16"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("family", "variant"), MODELS)
def test_diffusers_loads_the_folder_and_computes_the_same(tmp_path: Path, family: str, variant: str) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    from diffusers import DiffusionPipeline

    single = toy.write_single_file(tmp_path / "a.safetensors", family, variant, dtype="float32")
    converted(single, tmp_path / "folder")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = DiffusionPipeline.from_pretrained(tmp_path / "folder", local_files_only=True)
    header = read_header(single)
    ours: Pipe = FAMILIES[family].load(header, FAMILIES[family].recognise(header), choose("cpu", "float32"))
    assert_same(theirs.unet.state_dict(), ours.unet.state_dict())
    assert_same(theirs.vae.state_dict(), ours.vae.state_dict())
    named = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
    encoders = [part for part in named if getattr(theirs, part, None) is not None]
    assert len(encoders) == len(ours.text_encoders)
    words = "a RED house, by the sea; it's 5 o'clock ünïcode"
    for part, encoder in zip(encoders, ours.text_encoders, strict=True):
        assert_same(getattr(theirs, part).state_dict(), encoder.model.state_dict())
        tokens = getattr(theirs, named[part])(words, padding="max_length", max_length=77)["input_ids"]
        expected = encoder.tokenizer.encode(words)
        assert tokens[1 : len(expected) + 1] == expected
        pad = 0 if family == "sd2" or part == "text_encoder_2" else encoder.tokenizer.end
        assert tokens[len(expected) + 2 :] == [pad] * (77 - len(expected) - 2)
    generator = torch.Generator().manual_seed(1)
    latent = torch.randn(1, ours.unet.config.in_channels, 8, 8, generator=generator)
    context = torch.randn(1, 77, ours.unet.config.cross_attention_dim, generator=generator)
    extra = {}
    if family == "sdxl":
        width = ours.unet.config.projection_class_embeddings_input_dim - 8 * ours.sizes
        ids = torch.arange(ours.sizes, dtype=torch.float32)[None]
        extra = {"added_cond_kwargs": {"text_embeds": torch.ones(1, width), "time_ids": ids}}
    with torch.inference_mode():
        torch.testing.assert_close(
            theirs.unet(latent, 3, context, **extra)[0], ours.unet(latent, 3, context, **extra)[0]
        )
        torch.testing.assert_close(theirs.vae.decode(latent[:, :4])[0], ours.vae.decode(latent[:, :4])[0])
    assert theirs.vae.config.scaling_factor == ours.scale_factor
    assert theirs.scheduler.config.prediction_type == ("v_prediction" if variant == "v-prediction" else "epsilon")


def test_a_tensor_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    odd = torch.view_as_complex(torch.ones(3, 2)).conj()
    torch.save({"good": torch.ones(3), "conjugate": odd}, tmp_path / "a.pt")
    made = convert(read_header(tmp_path / "a.pt"), tmp_path / "b.safetensors", Wish())
    assert list(load_file(tmp_path / "b.safetensors")) == ["good"]
    assert made.left == ("conjugate",)


def test_sd2_gets_the_block_that_nothing_reads(tmp_path: Path) -> None:
    folder = toy.write_folder(tmp_path / "a", "sd2")
    told = converted(folder, tmp_path / "b.safetensors")
    tensors = load_file(tmp_path / "b.safetensors")
    prefix = "cond_stage_model.model.transformer.resblocks"
    assert torch.equal(tensors[f"{prefix}.3.mlp.c_fc.weight"], tensors[f"{prefix}.2.mlp.c_fc.weight"])
    assert "copy of block 2" in told.notes[0]
    # A block of its own stays where there is a place for it, and is left out where there is none.
    dropped = converted(tmp_path / "b.safetensors", tmp_path / "c")
    assert "nothing reads" in dropped.notes[0] and not dropped.left


FULL = [
    UnetShape("ldm", 4, 4, (320, 640, 1280, 1280), ((1, 1),) * 3 + ((0, 0),), 1, ((0,) * 3,) + ((1,) * 3,) * 3, 768,
              False, (8,) * 4),
    UnetShape("ldm", 4, 4, (320, 640, 1280), ((0, 0), (2, 2), (10, 10)), 10, ((10,) * 3, (2,) * 3, (0,) * 3), 2048,
              True, (5, 10, 20), 2816, 256),
    UnetShape("ldm", 4, 4, (384, 768, 1536, 1536), ((0, 0), (4, 4), (4, 4), (0, 0)), 4,
              ((0,) * 3, (4,) * 3, (4,) * 3, (0,) * 3), 1280, True, (6, 12, 24, 24), 2560, 256),
    # a distilled one: no middle, and depths that the way up does not mirror
    UnetShape("ldm", 4, 4, (320, 640, 1280), ((0, 0), (2, 2), (4, 4)), -1, ((4, 4, 10), (2, 1, 1), (0, 0, 0)), 2048,
              True, (5, 10, 20), 2816, 256, 256),
    VaeShape("ldm", 3, 4, (128, 256, 512, 512), layers=2, quantised=True),
    VaeShape("ldm", 3, 16, (128, 256, 512), layers=3, quantised=False),
    TextShape("openclip", 1280, 32, 20, 5120, 49_408, 77, "gelu", projection=1280),
    TextShape("transformers", 768, 12, 12, 3072, 49_408, 77, "quick_gelu"),
]  # fmt: skip


@pytest.mark.parametrize("shape", FULL, ids=lambda shape: f"{type(shape).__name__}-{shape.naming}")
def test_the_inventory_is_what_the_networks_have(shape: toy.Shape) -> None:
    names = list(names_of(shape))
    assert len(names) == len(set(names))
    assert set(names) == {name.removeprefix("text_model.") for name in toy._build(shape, "sd1").state_dict()}


@pytest.mark.parametrize("shape", FULL, ids=lambda shape: f"{type(shape).__name__}-{shape.naming}")
def test_a_place_is_where_the_tensor_is(tmp_path: Path, shape: toy.Shape) -> None:
    """The torch-free description of each kind of place says the same as the view that loading takes."""
    find = source_of(shape)
    kinds = {(source.third, source.transposed, source.convolved): source for source in map(find, names_of(shape))}
    for source in kinds.values():
        stored = torch.arange(6 * 4, dtype=torch.float32).reshape(6, 4, *([1, 1] if source.convolved else []))
        (tmp_path / "x").write_bytes(stored.numpy().tobytes())
        info = TensorInfo("F32", tuple(stored.shape), tmp_path / "x", 0, stored.nbytes)
        seen = view(source, info)
        expected = take(source, stored)
        assert seen.shape == tuple(expected.shape)
        assert read_all(seen) == expected.contiguous().numpy().tobytes()
        if source.third is None:
            assert stow(source, seen) == info


def read_all(*pieces: TensorInfo, elements: int = ELEMENTS) -> bytes:
    with Reader() as reader:
        return b"".join(bytes(block) for block in reader.blocks(pieces, elements))


def test_a_unet_alone_makes_no_folder(tmp_path: Path) -> None:
    path = toy.write_single_file(tmp_path / "a.safetensors", "sd1", without=("vae", "text_encoder"))
    with pytest.raises(FileError, match="has no text_encoder and no vae"):
        converted(path, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_a_tensor_that_is_missing_is_named(tmp_path: Path) -> None:
    header = read_header(toy.write_single_file(tmp_path / "a.safetensors", "sd1"))
    name = "model.diffusion_model.middle_block.1.proj_in.weight"
    tensors = {key: info for key, info in header.tensors.items() if key != name}
    whole = safetensors.write(
        tmp_path / "b.safetensors", [(k, i.dtype, i.shape, read_all(i)) for k, i in tensors.items()]
    )
    assert whole is None
    with pytest.raises(FileError, match="lacks"):
        converted(tmp_path / "b.safetensors", tmp_path / "folder")


# --- dtypes and leftovers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "torch_dtype"), [("fp32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)]
)
@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16"])
def test_casts_round_as_torch_does(tmp_path: Path, stored: str, dtype: str, torch_dtype: torch.dtype) -> None:
    path = toy.write_single_file(tmp_path / "a.safetensors", "sd1", dtype=stored, without=("vae",))
    converted(path, tmp_path / "b.safetensors", dtype=dtype)
    expected = {name: tensor.to(torch_dtype) for name, tensor in load_file(path).items()}
    assert_same(load_file(tmp_path / "b.safetensors"), expected)


def test_float8_is_for_the_matrices_of_the_unet_only(tmp_path: Path) -> None:
    path = toy.write_single_file(tmp_path / "a.safetensors", "sdxl", dtype="float32")
    converted(path, tmp_path / "b.safetensors", dtype="fp8")
    before, after = load_file(path), load_file(tmp_path / "b.safetensors")
    small = {name for name, tensor in after.items() if tensor.dtype == torch.float8_e4m3fn}
    assert small == {name for name, it in before.items() if it.ndim > 1 and name.startswith("model.diffusion_model.")}
    for name, tensor in before.items():
        wanted = torch.float8_e4m3fn if name in small else torch.float16
        assert torch.equal(after[name].float(), tensor.to(wanted).float())
    header = read_header(tmp_path / "b.safetensors")
    pipe = sdxl.family.load(header, sdxl.family.recognise(header), choose("cpu", "float32"))
    name = "mid_block.attentions.0.proj_in.weight"
    stored = before["model.diffusion_model.middle_block.1.proj_in.weight"]
    assert torch.equal(pipe.unet.state_dict()[name], stored.to(torch.float8_e4m3fn).float())


_BLOCK = "input_blocks_1_1_transformer_blocks_0_attn2_to_k"


@pytest.mark.parametrize(
    ("kind", "tensors"),
    [
        ("lora", {f"lora_unet_{_BLOCK}.lora_up.weight": (320, 4), f"lora_unet_{_BLOCK}.lora_down.weight": (4, 768)}),
        ("lora", {f"lora_unet_{_BLOCK}.hada_w{pair}_{half}": shape for pair in (1, 2)
                  for half, shape in (("a", (320, 4)), ("b", (4, 768)))}),
        ("hypernetwork", {f"768.{half}.linear.{layer}.weight": shape for half in (0, 1)
                          for layer, shape in ((0, (1536, 768)), (1, (768, 1536)))}),
        ("embedding", {"emb_params": (4, 768)}),
    ],
)  # fmt: skip
def test_adapters_are_not_ruined_by_float8(tmp_path: Path, kind: str, tensors: dict[str, tuple[int, ...]]) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.write(path, rows({name: torch.full(shape, 5e-4) for name, shape in tensors.items()}))
    with pytest.raises(FileError, match=rf"a model of kind {kind} loses too much in float8; choose the dtype fp16"):
        converted(path, tmp_path / "b.safetensors", dtype="fp8")
    assert os.listdir(tmp_path) == ["a.safetensors"]
    converted(path, tmp_path / "b.safetensors", dtype="fp16")


def test_what_is_too_large_is_not_lost_in_silence(tmp_path: Path) -> None:
    tensors = {"a": torch.tensor([1.0, -1e6]), "n": torch.tensor([float("nan"), float("inf")])}
    safetensors.write(tmp_path / "a.safetensors", rows(tensors))
    with pytest.raises(FileError, match=r"'a' has 1 number up to 1e\+06.*F16.*bf16"):
        converted(tmp_path / "a.safetensors", tmp_path / "b.safetensors", dtype="fp16")
    assert os.listdir(tmp_path) == ["a.safetensors"]
    converted(tmp_path / "a.safetensors", tmp_path / "b.safetensors", dtype="bf16")
    back = load_file(tmp_path / "b.safetensors")
    assert back["n"].isnan().tolist() == [True, False] and back["n"].isinf().tolist() == [False, True]
    safetensors.write(tmp_path / "c.safetensors", rows({"a": torch.tensor([[1e6, -1e6, 3.0, float("nan")]])}))
    told = converted(tmp_path / "c.safetensors", tmp_path / "d.safetensors", dtype="fp8")
    assert told.notes == ("2 numbers were cut to 448, as float8 holds no larger ones: in 'a'",)
    assert load_file(tmp_path / "d.safetensors")["a"][0, :3].float().tolist() == [448.0, -448.0, 3.0]


def test_what_is_too_large_for_bfloat16_is_kept_in_float32(tmp_path: Path) -> None:
    safetensors.write(tmp_path / "a.safetensors", rows({"a": torch.tensor([3.4e38, 3.4e38])}))
    with pytest.raises(FileError, match=r"'a' has 2 numbers up to 3.4e\+38.*BF16") as refused:
        converted(tmp_path / "a.safetensors", tmp_path / "b.safetensors", dtype="bf16")
    assert refused.value.remedy == "choose the dtype fp32"
    converted(tmp_path / "a.safetensors", tmp_path / "b.safetensors", dtype="fp32")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_what_is_too_large_for_float8_is_told(tmp_path: Path, dtype: str) -> None:
    numbers = torch.tensor([[448.0, 500.0, -6e4, math.inf, -math.inf, math.nan]], dtype=getattr(torch, dtype))
    safetensors.write(tmp_path / "a.safetensors", rows({"fits": numbers[:, :1], "x": numbers, "y": numbers[:, 1:2]}))
    told = converted(tmp_path / "a.safetensors", tmp_path / "b.safetensors", dtype="fp8")
    assert told.notes == ("5 numbers were cut to 448, as float8 holds no larger ones: in 'x' and 1 more",)


@pytest.mark.parametrize("scale", ["a.scale_weight", "a.weight_scale", "a.weight_scale_inv", "a.down_proj_scale_inv"])
def test_scaled_float8_is_kept_and_not_cast(tmp_path: Path, scale: str) -> None:
    tensors = {"a.weight": torch.ones(2, 2).to(torch.float8_e4m3fn), scale: torch.ones(1)}
    safetensors.write(tmp_path / "a.safetensors", rows(tensors))
    with pytest.raises(FileError, match="scales of their own"):
        converted(tmp_path / "a.safetensors", tmp_path / "b.safetensors", dtype="fp16")
    converted(tmp_path / "a.safetensors", tmp_path / "b.safetensors")


def test_scaled_float8_stays_in_its_layout(tmp_path: Path) -> None:
    for source in (scaled_file(tmp_path / "a.safetensors"), scaled_folder(tmp_path / "f")):
        with pytest.raises(FileError, match=r"scales of their own.*keep its layout"):
            converted(source, tmp_path / "folder")
    with pytest.raises(FileError, match="scales of their own"):
        converted(tmp_path / "f", tmp_path / "b.safetensors")
    converted(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert_same(load_file(tmp_path / "b.safetensors"), load_file(tmp_path / "a.safetensors"))


def test_pruning_and_averages(tmp_path: Path) -> None:
    path = toy.write_single_file(tmp_path / "a.safetensors", "sd1", ema=True)
    plain = load_file(toy.write_single_file(tmp_path / "plain.safetensors", "sd1"))
    told = converted(path, tmp_path / "b.safetensors", prune=True)
    assert_same(load_file(tmp_path / "b.safetensors"), plain)
    assert told.pruned == len(load_file(path)) - len(plain)
    converted(path, tmp_path / "c.safetensors", ema=True, prune=True)
    whole = load_file(path)
    averaged = {
        name: whole.get("model_ema." + name.removeprefix("model.").replace(".", ""), tensor)
        for name, tensor in plain.items()
    }
    assert not torch.equal(averaged["model.diffusion_model.out.2.bias"], plain["model.diffusion_model.out.2.bias"])
    assert_same(load_file(tmp_path / "c.safetensors"), averaged)
    with pytest.raises(FileError, match="no running averages"):
        converted(tmp_path / "b.safetensors", tmp_path / "d.safetensors", ema=True)


def test_what_is_left_may_look_wrapped(tmp_path: Path) -> None:
    path, made = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    ones = torch.ones(2, 2)
    save_file({"module.weight": ones, "ema.weight": 2 * ones}, path)
    converted(path, made, prune=True)
    assert_same(load_file(made), {"module.weight": ones})


def test_an_average_without_its_weight_is_not_pruned(tmp_path: Path) -> None:
    whole = read_header(toy.write_single_file(tmp_path / "a.safetensors", "sd1", ema=True))
    name = "model.diffusion_model.middle_block.1.proj_in.weight"
    header = Header(whole.path, "safetensors", {key: info for key, info in whole.tensors.items() if key != name})
    recognised = FAMILIES["sd1"].recognise(whole)
    convert(header, tmp_path / "b.safetensors", Wish(prune=True), recognised, FAMILIES["sd1"].anatomy)
    average = load_file(whole.path)["model_ema.diffusion_modelmiddle_block1proj_inweight"]
    assert torch.equal(load_file(tmp_path / "b.safetensors")[name], average)
    convert(header, tmp_path / "folder", Wish(), recognised, FAMILIES["sd1"].anatomy)


def test_metadata_is_kept_but_for_hashes(tmp_path: Path) -> None:
    metadata = {"ss_network_dim": "8", "modelspec.title": "Ü", "modelspec.hash_sha256": "0x1", "sshs_model_hash": "2"}
    safetensors.write(tmp_path / "a.safetensors", rows({"x": torch.ones(2)}), metadata)
    converted(tmp_path / "a.safetensors", tmp_path / "b.safetensors", dtype="fp16")
    told = dict(read_header(tmp_path / "b.safetensors").metadata)
    done = json.loads(told.pop("bottega.converted"))
    assert told == {"ss_network_dim": "8", "modelspec.title": "Ü", "format": "pt"}
    assert done["from"] == "a.safetensors" and done["dtype"] == "fp16"


def test_quantised_tensors_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(bytes(64))
    header = Header(tmp_path / "a.gguf", "gguf", {"x": TensorInfo("Q4_0", (32,), tmp_path / "a.gguf", 0, 18)})
    with pytest.raises(FormatError, match="Q4_0"):
        convert(header, tmp_path / "b.safetensors", Wish())
    plain = Header(tmp_path / "a.gguf", "gguf", {"x": TensorInfo("BF16", (4, 8), tmp_path / "a.gguf", 0, 64)})
    convert(plain, tmp_path / "b.safetensors", Wish(dtype="fp32"))
    assert load_file(tmp_path / "b.safetensors")["x"].shape == (4, 8)


# --- tensors that lie scattered --------------------------------------------------------------------------------------


def test_strided_packed_and_big_endian_tensors_are_written_out(tmp_path: Path) -> None:
    import zlib

    numbers = torch.arange(5 * 7 * 3, dtype=torch.float32).reshape(5, 7, 3)
    raw = numbers.numpy().tobytes()
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(b"skip" * 3 + raw) + packer.flush()
    path = tmp_path / "a.bin"
    path.write_bytes(raw + packed + numbers.numpy().byteswap().tobytes())
    size, end = len(raw), len(raw) + len(packed)
    inside = Packed(size, end, 12 + size)
    transposed = numbers.permute(2, 0, 1)
    expanded = numbers[0, :1].expand(4, 3)
    infos = {
        "plain": (TensorInfo("F32", (5, 7, 3), path, 0, size), numbers),
        "transposed": (TensorInfo("F32", (3, 5, 7), path, 0, size, (1, 21, 3)), transposed),
        "every other": (TensorInfo("F32", (3, 7), path, 4, 4 + 4 * (42 * 2 + 18 + 1), (42, 3)), numbers[::2, :, 1]),
        "expanded": (TensorInfo("F32", (4, 3), path, 0, 12, (0, 1)), expanded),
        "packed": (TensorInfo("F32", (5, 7, 3), path, 12, 12 + size, None, inside), numbers),
        "packed and strided": (TensorInfo("F32", (3, 5, 7), path, 12, 12 + size, (1, 21, 3), inside), transposed),
        "big": (TensorInfo("F32", (5, 7, 3), path, end, end + size, None, None, True), numbers),
        "one": (TensorInfo("F32", (), path, 4, 8), numbers.flatten()[1]),
        "none": (TensorInfo("F32", (0, 3), path, 0, 0), numbers[:0, 0]),
    }
    header = Header(path, "pickle", {name: info for name, (info, _) in infos.items()})
    convert(header, tmp_path / "b.safetensors", Wish())
    assert_same(load_file(tmp_path / "b.safetensors"), {name: it.contiguous() for name, (_, it) in infos.items()})
    for elements in (1, 4, 10):
        for info, tensor in infos.values():
            assert read_all(info, elements=elements) == tensor.contiguous().numpy().tobytes()


def test_shared_tensors_are_written_twice(tmp_path: Path) -> None:
    path = safetensors_file(tmp_path / "a.safetensors")
    info = read_header(path).tensors["x"]
    convert(Header(path, "pickle", {"x": info, "y": info}), tmp_path / "b.safetensors", Wish())
    back = load_file(tmp_path / "b.safetensors")
    assert torch.equal(back["x"], back["y"])


def test_what_the_source_leaves_out_is_told(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2), 1: torch.ones(3), "1": torch.ones(4)}, tmp_path / "x.ckpt")
    told = converted(tmp_path / "x.ckpt", tmp_path / "x.safetensors")
    assert told.tensors == 2 and any("'1' is there twice" in note for note in told.notes)


def safetensors_file(path: Path) -> Path:
    safetensors.write(path, rows({"x": torch.arange(12.0).reshape(3, 4)}))
    return path


def test_what_is_made_ahead_is_stopped_and_its_errors_are_heard() -> None:
    closed = []

    def items() -> Iterator[int]:
        try:
            yield from range(10)
            raise KeyError("x")
        finally:
            closed.append(True)

    made = ahead(items())
    assert next(made) == 0
    made.close()
    assert closed == [True]
    with pytest.raises(KeyError):
        list(ahead(items()))


def test_no_block_is_made_anew_while_it_is_in_use() -> None:
    begun = [threading.Event() for _ in range(20 + AHEAD)]

    def items() -> Iterator[int]:
        for number in range(20):
            begun[number].set()
            yield number

    for used in ahead(items()):
        assert not begun[used + AHEAD].wait(0.02)
    assert AHEAD < HELD


# --- what may go wrong -----------------------------------------------------------------------------------------------


def test_what_is_there_is_not_replaced_unasked(tmp_path: Path) -> None:
    source = safetensors_file(tmp_path / "a.safetensors")
    other = safetensors_file(tmp_path / "b.safetensors")
    os.link(source, tmp_path / "c.safetensors")
    before = other.read_bytes()
    with pytest.raises(FileError, match=r"have it replaced \(force\)"):
        converted(source, other)
    assert other.read_bytes() == before
    for same in (source, tmp_path / "c.safetensors"):
        with pytest.raises(FileError, match="is what is read"):
            converted(source, same, force=True, dtype="fp16")
    converted(source, other, force=True, dtype="fp16")
    assert load_file(other)["x"].dtype == torch.float16
    (tmp_path / "d.safetensors").mkdir()
    with pytest.raises(FileError, match="is a folder"):
        converted(source, tmp_path / "d.safetensors", force=True)


def test_folders_are_replaced_only_if_they_are_models(tmp_path: Path) -> None:
    source = toy.write_single_file(tmp_path / "a.safetensors", "sd1")
    converted(source, tmp_path / "folder")
    with pytest.raises(FileError, match=r"have it replaced \(force\)"):
        converted(source, tmp_path / "folder")
    converted(source, tmp_path / "folder", force=True, dtype="bf16")
    assert set(read_header(tmp_path / "folder").dtypes) == {"BF16"}
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_bytes(b"x")
    with pytest.raises(FileError, match="no model"):
        converted(source, tmp_path / "photos", force=True)
    with pytest.raises(FileError, match="would lie in"):
        converted(tmp_path / "folder", tmp_path / "folder" / "b.safetensors")
    assert sorted(os.listdir(tmp_path)) == ["a.safetensors", "folder", "photos"]


@pytest.mark.parametrize("name", ["b.ckpt", "b.pt", "b.gguf"])
def test_other_formats_are_not_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileError, match="is not written"):
        converted(safetensors_file(tmp_path / "a.safetensors"), tmp_path / name)


def test_too_little_room_is_told_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = safetensors_file(tmp_path / "a.safetensors")
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(SaveError, match="are free"):
        converted(source, tmp_path / "b.safetensors")
    assert os.listdir(tmp_path) == ["a.safetensors"]


@pytest.mark.parametrize("destination", ["b.safetensors", "folder"])
def test_a_full_disk_leaves_nothing(tmp_path: Path, destination: str) -> None:
    source = toy.write_single_file(tmp_path / "a.safetensors", "sd1")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, before[1]))
    try:
        with pytest.raises(SaveError, match="could not be written"):
            converted(source, tmp_path / destination)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path) == ["a.safetensors"]


@pytest.mark.parametrize("flipped", [200, -1])
def test_what_was_written_wrongly_gets_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flipped: int) -> None:
    source = toy.write_single_file(tmp_path / "a.safetensors", "sd1")
    spoil_what_arrives(monkeypatch, flipped)
    with pytest.raises(BottegaError, match="not what was read"):
        converted(source, tmp_path / "b.safetensors", dtype="bf16")
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_a_header_that_was_written_wrongly_is_seen(tmp_path: Path) -> None:
    source = read_header(safetensors_file(tmp_path / "a.safetensors"))
    targets = {"x": writing.Target("F32", (source.tensors["x"],))}
    with pytest.raises(BottegaError, match="its header"):
        writing.check_header(source.path, targets, {"said": "more"})
    writing.check_header(source.path, targets, {})


@pytest.mark.parametrize("change", [saved_anew, replaced])
@pytest.mark.parametrize("destination", ["b.safetensors", "folder"])
def test_what_is_changed_while_it_is_read_is_not_written(
    tmp_path: Path, destination: str, change: Callable[[Path], Told]
) -> None:
    source = toy.write_single_file(tmp_path / "a.safetensors", "sd1")
    with pytest.raises(FileError, match="was changed while it was read"):
        converted(source, tmp_path / destination, told=change(source), dtype="bf16")
    assert os.listdir(tmp_path) == ["a.safetensors"]


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["writing", "checking"])
@pytest.mark.parametrize("destination", ["b.safetensors", "folder"])
def test_killed_while_it_works_it_leaves_nothing_under_the_name(
    tmp_path: Path, home: Path, destination: str, phase: str
) -> None:
    source = toy.write_single_file(tmp_path / "a.safetensors", "sdxl", dtype="float32")
    before = source.read_bytes()
    words = ["models", "convert", str(source), str(tmp_path / destination)]
    killed_in(phase, *words)
    assert source.read_bytes() == before and not (tmp_path / destination).exists()
    assert len([name for name in os.listdir(tmp_path) if name.startswith(".bottega-")]) == 1  # what the kill left
    subprocess.run([sys.executable, "-m", "bottega", *words], check=True, capture_output=True)
    read_header(tmp_path / destination)
    assert sorted(os.listdir(tmp_path)) == sorted(["a.safetensors", "home", destination])


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    source = toy.write_single_file(tmp_path / "a.safetensors", "sd1")
    header = read_header(source)

    def stop(phase: str, done: int, total: int) -> None:
        if phase == "checking":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(header, tmp_path / "b.safetensors", Wish(), told=stop)
    with pytest.raises(KeyboardInterrupt):
        convert(
            header, tmp_path / "folder", Wish(), FAMILIES["sd1"].recognise(header), FAMILIES["sd1"].anatomy, told=stop
        )
    assert os.listdir(tmp_path) == ["a.safetensors"]


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_tells_what_it_did(tmp_path: Path, bottega: Command) -> None:
    source = toy.write_single_file(tmp_path / "a.safetensors", "sd1", ema=True)
    ran = bottega("models", "convert", source, tmp_path / "b.safetensors", "--dtype", "bf16", "--prune", "--json")
    assert ran.code == 0
    assert ran.json["dtypes"] == {"BF16": ran.json["bytes"]} and ran.json["pruned"] > 300
    ran = bottega("models", "convert", tmp_path / "b.safetensors", tmp_path / "folder")
    assert ran.code == 0
    assert "558 tensors, BF16" in ran.out and "checked" in ran.out
    assert bottega("models", "show", tmp_path / "folder").code == 0


def test_the_command_refuses_in_one_line(tmp_path: Path, bottega: Command) -> None:
    source = safetensors_file(tmp_path / "a.safetensors")
    for words in (
        [source, source],
        [source, tmp_path / "folder"],
        [source, tmp_path / "nowhere" / "b.safetensors"],
        [source, tmp_path / "b.ckpt"],
        [tmp_path / "none.safetensors", tmp_path / "b.safetensors"],
        [source, tmp_path / "b.safetensors", "--dtype", "int3"],
    ):
        ran = bottega("models", "convert", *words)
        assert ran.code == 2
        assert len(ran.err.splitlines()) == 1 and ran.err.startswith("bottega: ")
    assert os.listdir(tmp_path) == ["a.safetensors"] or sorted(os.listdir(tmp_path)) == ["a.safetensors", "home"]
