"""Whatever torch writes is read to the bit: every dtype, view, container and protocol, from the map and by itself."""

from __future__ import annotations

import _compat_pickle
import inspect
import itertools
import json
import pickle as pickling  # noqa: TID251  it only writes here
import random
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hostile import benign
from hostile.containers import Entry, archive, checkpoint, legacy, members
from hostile.opcodes import HOOKS, call, name, pickle, row, storage, table, tensor, text, whole, wholes
from torch import nn
from torch.distributed import checkpoint as distributed

from bottega.errors import DangerousModel, FormatError
from bottega.formats import Header, pickled, read_bytes, read_header
from bottega.formats.pickled.names import judge
from bottega.runtime.weights import MappedTensors

FOUR = struct.pack("<4f", 1, 2, 3, 4)

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")

# torch.load is what tests compare with; here it reads only what they wrote themselves.
peer = torch.load  # noqa: TID251


def written(path: Path, value: object, **options: object) -> Header:
    path.write_bytes(benign.saved(value, **options))
    return read_header(path)


def raw(tensor: torch.Tensor) -> bytes:
    """The elements of a tensor, one after the other."""
    plain = tensor.detach().contiguous()
    return bytes(plain.flatten().view(torch.uint8).numpy().tobytes()) if plain.numel() else b""


def assert_equal(header: Header, expected: Mapping[str, torch.Tensor]) -> None:
    """Names, dtypes, shapes, strides and every byte are as they were saved."""
    assert list(header.tensors) == list(expected)
    mapped = MappedTensors(header)
    for key, want in expected.items():
        got = mapped[key]
        assert (got.dtype, got.shape) == (want.dtype, want.shape), key
        if want.numel():
            assert got.stride() == want.stride() or want.is_contiguous(), key
        assert raw(got) == raw(want), key
        assert read_bytes(header.tensors[key]) == raw(want), key


FORMS: dict[str, dict[str, object]] = {
    "zip": {},
    **{f"protocol {number}": {"pickle_protocol": number} for number in (3, 4, 5)},
    "legacy": {"_use_new_zipfile_serialization": False},
    "legacy protocol 4": {"_use_new_zipfile_serialization": False, "pickle_protocol": 4},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("content", ["state", "dtypes", "views", "empties"])
def test_what_torch_saves_is_read_to_the_bit(tmp_path: Path, form: str, content: str) -> None:
    expected = getattr(benign, content)()
    header = written(tmp_path / "x.pt", expected, **FORMS[form])
    assert header.safety.verdict == "clean" and header.format == "pickle" and header.notes == ()
    assert_equal(header, expected)


@pytest.mark.parametrize("content", ["state", "dtypes", "views", "empties"])
@pytest.mark.parametrize("deflate", [True, False])
def test_archives_that_were_packed_again_are_read_to_the_bit(tmp_path: Path, content: str, deflate: bool) -> None:
    expected = getattr(benign, content)()
    path = tmp_path / "x.pt"
    path.write_bytes(benign.repacked(benign.saved(expected), deflate=deflate))
    assert_equal(read_header(path), expected)


def test_the_bytes_are_where_the_peer_finds_them(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    expected = benign.views()
    for options in FORMS.values():
        header = written(path, expected, **options)
        if "pickle_protocol" not in options:
            assert_equal(header, peer(path, weights_only=True))


def test_shared_storages_stay_shared(tmp_path: Path) -> None:
    base = benign.noise(64)
    tensors = {"base": base, "head": base[:8], "tied": base}
    for data in (benign.saved(tensors), benign.repacked(benign.saved(tensors))):
        (tmp_path / "x.pt").write_bytes(data)
        mapped = MappedTensors(read_header(tmp_path / "x.pt"))
        opened = {key: mapped[key] for key in mapped}
        opened["base"][3] = 77.0
        assert opened["head"][3] == opened["tied"][3] == 77.0
    assert read_bytes(read_header(tmp_path / "x.pt").tensors["tied"]) == raw(base)


def test_big_endian_files_are_turned(tmp_path: Path) -> None:
    numbers = torch.arange(12, dtype=torch.int32).reshape(3, 4)
    swap = {
        "half": numbers.half(),
        "long": numbers.long(),
        "pair": torch.view_as_complex(numbers.float().view(3, 2, 2)),
    }
    turned = {key: value.numpy().byteswap() if key != "pair" else value.numpy().view("f4").byteswap().view("c8")
              for key, value in swap.items()}  # fmt: skip
    data = benign.saved({key: torch.from_numpy(value) for key, value in turned.items()})
    (tmp_path / "x.pt").write_bytes(benign.repacked(data, order="big", deflate=False))
    assert_equal(read_header(tmp_path / "x.pt"), swap)


def test_an_unknown_order_of_bytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(benign.repacked(benign.saved(benign.state()), order="middle"))
    with pytest.raises(FormatError, match="byteorder"):
        read_header(tmp_path / "x.pt")


def test_booleans_are_zero_or_one(tmp_path: Path) -> None:
    state = table({"mask": tensor([4], [1], kind="BoolStorage")})
    (tmp_path / "x.pt").write_bytes(checkpoint(pickle(state), bytes([0, 1, 2, 255])))
    header = read_header(tmp_path / "x.pt")
    assert MappedTensors(header)["mask"].view(torch.uint8).tolist() == [0, 1, 1, 1]


def test_legacy_storages_lie_at_any_address(tmp_path: Path) -> None:
    shifts = set()
    for pad in range(1, 33):  # keys are addresses in memory, some longer than others
        state = {"x" * pad: torch.zeros(0), **benign.dtypes()}
        header = written(tmp_path / f"{pad}.pt", state, _use_new_zipfile_serialization=False)
        assert_equal(header, state)
        shifts.add(header.tensors["complex128"].start % 16)
    assert len(shifts) > 8


def test_one_storage_of_two_dtypes_is_refused(tmp_path: Path) -> None:
    data = benign.saved({"a": benign.noise(4), "bb": benign.noise(8).half()})
    path = tmp_path / "x.pt"
    path.write_bytes(data)
    assert read_header(path).tensors["bb"].dtype == "F16"
    second = b"X\x01\0\0\x001q"
    assert data.count(second) == 1
    path.write_bytes(data.replace(second, b"X\x01\0\0\x000q"))
    with pytest.raises(FormatError, match="storage '0' has numbers of two kinds, F32 and F16"):
        read_header(path)


def test_blocks_may_be_tied(tmp_path: Path) -> None:
    block = torch.zeros(1 << 18)
    state = {f"blocks.{index}": block for index in range(64)} | {"mask": torch.zeros(1).expand(512, 512)}
    assert len(written(tmp_path / "x.pt", state).tensors) == 65


def test_nothing_may_have_two_dtypes(tmp_path: Path) -> None:
    nothing = torch.empty(0)
    state = {"float": nothing, "half": nothing.view(torch.float16), "real": benign.noise(2)}
    assert_equal(written(tmp_path / "x.pt", state), state)


def test_constants_of_a_script_have_storages_of_their_own(tmp_path: Path) -> None:
    constants = Entry("archive/constants.pkl", pickle(row(tensor([4], [1], stored=8, kind="HalfStorage"))))
    entries = [*members(pickle(table({"w": tensor([4], [1])})), [FOUR]), constants, Entry("archive/constants/0", FOUR)]
    (tmp_path / "x.pt").write_bytes(archive(entries))
    assert read_header(tmp_path / "x.pt").safety.reasons == ("a TorchScript archive: its script is ignored",)


def test_a_legacy_file_with_a_long_pickle_is_read_in_a_second_look(tmp_path: Path) -> None:
    state = table([*((text(f"note{index}"), text("x" * 2000)) for index in range(700)), (text("w"), tensor([4], [1]))])
    (tmp_path / "x.pt").write_bytes(legacy(state, [(4, FOUR)]))
    assert list(read_header(tmp_path / "x.pt").tensors) == ["w"]


# --- names and what lies beside the tensors --------------------------------------------------------------------------


def test_an_embedding(tmp_path: Path) -> None:
    header = written(tmp_path / "x.pt", benign.embedding())
    assert header.safety.verdict == "clean"
    assert {key: info.shape for key, info in header.tensors.items()} == {"string_to_param.*": (2, 768)}
    assert header.metadata == {
        "string_to_token": '{"*": 265}', "name": "my-style", "step": "1500", "sd_checkpoint": "a1b2c3d4",
    }  # fmt: skip


def test_a_hypernetwork(tmp_path: Path) -> None:
    header = written(tmp_path / "x.pt", benign.hypernetwork())
    assert sorted(header.tensors)[:2] == ["16.0.linear.0.bias", "16.0.linear.0.weight"]
    assert header.tensors["8.1.linear.0.weight"].shape == (16, 8)
    assert json.loads(header.metadata["layer_structure"]) == [1, 2, 1]
    assert (header.metadata["is_layer_norm"], header.metadata["activation_func"]) == ("false", "relu")


def test_a_bare_tensor_and_a_list_of_them(tmp_path: Path) -> None:
    assert_equal(written(tmp_path / "x.pt", benign.noise(3)), {"tensor": benign.noise(3)})
    assert list(written(tmp_path / "x.pt", [benign.noise(3), (benign.noise(2),)]).tensors) == ["0", "1.0"]


def test_training_leftovers_are_left_out_and_named(tmp_path: Path) -> None:
    header = written(tmp_path / "x.pt", benign.training())
    assert header.safety.verdict == "clean"
    assert list(header.tensors) == ["weight", "bias"]
    assert header.metadata["epoch"] == "3" and header.metadata["best_loss"] == "0.25"
    note = next(note for note in header.notes if "training" in note)
    assert all(word in note for word in ("optimizer", "ema", "rng"))


@pytest.mark.parametrize(
    ("outer", "names"),
    [
        ({"state_dict": {"a": 1}, "optimizer_states": [{"b": 2}]}, ["a"]),
        ({"params": {"a": 1}, "params_ema": {"b": 2}}, ["b"]),
        ({"model": {"a": 1}, "optimizer": {"b": 2}, "scaler": {"c": 3}}, ["a"]),
        ({"model": {"a": 1}, "vae": {"b": 2}}, ["model.a", "vae.b"]),
        ({"id_encoder": {"a": 1}, "lora_weights": {"b": 2}}, ["id_encoder.a", "lora_weights.b"]),
        ({"generator": {"a": 1}, "net": {"b": 2}}, ["generator.a", "net.b"]),
        ({"model": {"a": 1}, "weights": {"b": 2}}, ["model.a", "weights.b"]),
        ({"backbone": {"a": 1}, "loss_head": {"b": 2}}, ["backbone.a", "loss_head.b"]),
        ({"model": {"a": 1}, "momentum_encoder": {"b": 2}}, ["model.a", "momentum_encoder.b"]),
        ({"model": {"a": 1}, "loss": {"b": 2}, "metrics": {"c": 3}, "momentum_buffer": {"d": 4}}, ["a"]),
        ({"model": {"net": {"a": 1}}}, ["net.a"]),
        ({"model": 1, "x": 2}, ["model", "x"]),
        ({"best_model": {"a": 1}}, ["best_model.a"]),
        ({"upscaler": {"a": 1}, "grad_scaler": {"b": 2}}, ["upscaler.a"]),
        ({"state_dict": 1, "x": {"y": 2}}, ["state_dict", "x.y"]),
    ],
)
def test_one_wrapper_is_taken_off(tmp_path: Path, outer: dict[str, object], names: list[str]) -> None:
    def tensors(value: object) -> object:
        if isinstance(value, dict):
            return {key: tensors(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [tensors(inner) for inner in value]
        return benign.noise(2)

    assert list(written(tmp_path / "x.pt", tensors(outer)).tensors) == names


def test_lightning(tmp_path: Path) -> None:
    with benign.pretended("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint") as callback:
        header = written(tmp_path / "x.ckpt", benign.lightning(callback))
    assert_equal(header, benign.state())
    assert (header.safety.verdict, header.metadata["global_step"]) == ("clean", "470000")


def test_a_whole_network_has_the_names_of_its_state_dict(tmp_path: Path) -> None:
    network = benign.TinyNetwork()
    for value in (network, {"epoch": -1, "model": network, "ema": None}):
        for options in ({}, {"_use_new_zipfile_serialization": False}):
            header = written(tmp_path / "x.pt", value, **options)
            assert header.safety.verdict == "unusual"
            assert "torch.nn.modules.conv.Conv2d" in header.safety.names
            assert {key: raw(MappedTensors(header)[key]) for key in header.tensors} == {
                key: raw(value) for key, value in network.state_dict().items()
            }


def test_torchscript(tmp_path: Path) -> None:
    network, data = benign.script()
    (tmp_path / "x.pt").write_bytes(data)
    header = read_header(tmp_path / "x.pt")
    assert_equal(header, {key: value.detach() for key, value in network.state_dict().items()})
    assert header.safety.verdict == "unusual"
    assert header.safety.reasons == ("a TorchScript archive: its script is ignored",)


@pytest.mark.filterwarnings("ignore:Lite Interpreter is deprecated")
@pytest.mark.parametrize("save", ["save", "_save_for_lite_interpreter"])
def test_weights_that_are_constants_of_a_script_are_told(tmp_path: Path, save: str) -> None:
    getattr(benign.frozen(), save)(str(tmp_path / "x.pt"))
    header = read_header(tmp_path / "x.pt")
    assert not header.tensors
    assert header.notes[0].startswith("its weights are constants of its script")
    assert header.safety.reasons == ("a TorchScript archive: its script is ignored",)


def test_unknown_classes_are_unusual_and_their_tensors_usable(tmp_path: Path) -> None:
    thing = name("mycorp.net", "Foo") + b")\x81" + table({"inner": tensor([2], [1], stored=4)}) + b"b"
    (tmp_path / "x.pt").write_bytes(checkpoint(pickle(table({"w": tensor([4], [1]), "foo": thing})), FOUR))
    header = read_header(tmp_path / "x.pt")
    assert list(header.tensors) == ["w", "foo.inner"]
    assert header.safety.names == ("mycorp.net.Foo",)


def test_methods_and_members_of_unknown_classes_are_unusual(tmp_path: Path) -> None:
    head = name("mycorp.net", "Head")
    bound = call("builtins", "getattr", head + b")\x81", text("forward"))
    things = {"method": call("builtins", "getattr", head, text("forward")), "bound": bound}
    dotted = {"method": text("mycorp.net") + text("Head.forward") + b"\x93"}
    for said, protocol in ((things, 2), (dotted, 4)):
        body = table({"w": tensor([4], [1]), **said})
        (tmp_path / "x.pt").write_bytes(checkpoint(pickle(body, protocol), FOUR))
        header = read_header(tmp_path / "x.pt")
        assert list(header.tensors) == ["w"]
        assert header.safety.verdict == "unusual"


def test_tensors_without_plain_numbers_are_left_out_by_name(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        odd = {
            "good": benign.noise(3),
            "conjugate": torch.view_as_complex(benign.noise(3, 2)).conj(),
            "meta": torch.empty(3, device="meta"),
        }
    header = written(tmp_path / "x.pt", odd)
    assert list(header.tensors) == ["good"]
    assert any("'conjugate' is stored as the conjugate" in note for note in header.notes)
    assert any("'meta' has no numbers" in note for note in header.notes)
    with pytest.raises(FormatError, match="can't read its tensors: the tensor 'meta'"):
        written(tmp_path / "x.pt", {"meta": odd["meta"]})


def odd_company() -> dict[str, object]:
    """What torch saves beside tensors when it is asked to: functions, random states, scalers, stubs."""
    return {
        "relu": torch.relu,
        "more functions": [torch.sigmoid, torch.cos, nn.functional.softmax, nn.functional.mse_loss],
        "layer": nn.TransformerEncoderLayer(4, 2, 8, activation=torch.relu),
        "initialiser": nn.init.xavier_uniform_,
        "generator": torch.Generator(),
        "scaler": torch.amp.GradScaler("cpu"),
        "stub": torch.ao.quantization.QuantStub(),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("what", odd_company())
def test_what_torch_saves_beside_tensors_is_no_danger(tmp_path: Path, form: str, what: str) -> None:
    header = written(tmp_path / "x.pt", {"w": benign.noise(3), "beside": odd_company()[what]}, **FORMS[form])
    assert raw(MappedTensors(header)["w"]) == raw(benign.noise(3))
    assert header.safety.verdict == ("clean" if what == "generator" else "unusual")


def test_a_function_is_no_network(tmp_path: Path) -> None:
    for function, word in ((torch.relu, "torch._C._VariableFunctionsClass"), (nn.init.zeros_, "torch.nn.init.zeros_")):
        reasons = written(tmp_path / "x.pt", {"w": benign.noise(3), "function": function}).safety.reasons
        assert reasons[0] == f"it names functions of torch ({word!r}): they are not called"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMS)
def test_nested_masked_and_quantised_tensors_are_left_out_by_name(tmp_path: Path, form: str) -> None:
    ones = torch.ones(2)
    odd = {
        "good": benign.noise(3),
        "ragged": torch.nested.nested_tensor([ones, torch.ones(3)], layout=torch.jagged),
        "masked": torch.masked.masked_tensor(ones, torch.tensor([True, False])),
        "quantised": torch.quantize_per_tensor(ones, 0.1, 0, torch.qint32),
        "last": benign.noise(5),
    }
    header = written(tmp_path / "x.pt", odd, **FORMS[form])
    assert header.safety.verdict == "clean"
    assert_equal(header, {"good": benign.noise(3), "last": benign.noise(5)})
    assert [note.split()[4] for note in header.notes] == ["'ragged'", "'masked'", "'quantised'"]


class Labelled(torch.Tensor):
    """A tensor with attributes of its own."""


@pytest.mark.parametrize("form", FORMS)
def test_numpy_arrays_among_the_tensors_are_told(tmp_path: Path, form: str) -> None:
    tensors = {"weight": benign.noise(3, 4)}
    array = benign.noise(5).numpy()
    beside = {"epoch": 3, "curves": [array], "noise": {"random_state": ("MT19937", array, 3)}}
    saved = {"model": {**tensors, "mean": array, "deep": {"est": array}}, **beside}
    header = written(tmp_path / "x.pt", saved, **FORMS[form])
    assert_equal(header, tensors)
    assert header.unread == ("mean", "deep.est")
    assert header.notes == ("left out: numpy arrays, which are no tensors: 'mean', 'deep.est'",)
    assert written(tmp_path / "y.pt", {"w": array}, **FORMS[form]).safety.verdict == "clean"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMS)
def test_a_tensor_may_have_attributes(tmp_path: Path, form: str) -> None:
    parameter, labelled = nn.Parameter(benign.noise(3)), benign.noise(4).as_subclass(Labelled)
    tensors = {
        "parameter": parameter,
        "labelled": labelled,
        "plain": benign.noise(5),
        "buffer": nn.Buffer(torch.ones(2)),
    }
    for each in (parameter, labelled, tensors["plain"]):
        each.note, each.scale = "by hand", torch.ones(2)
    quantised = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint32)
    quantised.note = "by hand"
    header = written(tmp_path / "x.pt", {**tensors, "quantised": quantised}, **FORMS[form])
    assert_equal(header, tensors)
    assert [note.split()[4] for note in header.notes] == ["'quantised'"]


def test_a_parameter_of_old_has_a_state(tmp_path: Path) -> None:
    old = (
        name("torch.nn.parameter", "Parameter") + row(tensor([4], [1])) + b"\x81" + row(b"\x88", b"\x89", HOOKS) + b"b"
    )
    (tmp_path / "x.pt").write_bytes(checkpoint(pickle(table({"w": old})), FOUR))
    header = read_header(tmp_path / "x.pt")
    assert (list(header.tensors), header.safety.verdict) == (["w"], "clean")


def test_what_a_tensor_has_of_its_own_is_no_attribute_to_set(tmp_path: Path) -> None:
    own = {key for key in dir(nn.Parameter) if inspect.isdatadescriptor(inspect.getattr_static(nn.Parameter, key))}
    assert {"data", "grad", "real"} <= own
    for key in own:
        state = table({key: tensor([4], [1])})
        body = call("torch._utils", "_rebuild_parameter_with_state", tensor([4], [1]), b"\x89", HOOKS, state)
        (tmp_path / "x.pt").write_bytes(checkpoint(pickle(body), FOUR))
        with pytest.raises(FormatError, match="changes a tensor after it was made"):
            read_header(tmp_path / "x.pt")


def test_any_value_makes_a_conjugate(tmp_path: Path) -> None:
    args = (storage("0", 4), whole(0), wholes([4]), wholes([1]), b"\x89", HOOKS, table({"conj": whole(1)}))
    conjugate = call("torch._utils", "_rebuild_tensor_v2", *args)
    (tmp_path / "x.pt").write_bytes(checkpoint(pickle(table({"w": tensor([4], [1]), "odd": conjugate})), FOUR))
    assert list(read_header(tmp_path / "x.pt").tensors) == ["w"]


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_the_table_of_a_distributed_checkpoint_is_data(tmp_path: Path) -> None:
    distributed.save({"w": benign.noise(300)}, checkpoint_id=tmp_path)
    header = read_header(tmp_path / ".metadata")
    assert (header.safety.verdict, header.notes) == ("clean", ("no tensors",))


def test_two_tensors_of_one_name_are_not_mixed_up(tmp_path: Path) -> None:
    first, second = benign.noise(2), benign.noise(3)
    for twins, called in (({1: first, "1": second}, "1"), ({"a": {"b": first}, "a.b": second}, "a.b")):
        header = written(tmp_path / "x.pt", twins)
        assert_equal(header, {called: first})
        assert any(f"the tensor {called!r} is there twice" in note for note in header.notes)
    again = table([(text("w"), tensor([2], [1], stored=4)), (text("w"), tensor([4], [1]))])
    (tmp_path / "x.pt").write_bytes(checkpoint(pickle(again), FOUR))
    assert read_header(tmp_path / "x.pt").tensors["w"].shape == (4,)


def test_tensors_whose_keys_have_no_text_have_names_of_their_own(tmp_path: Path) -> None:
    keys = [(0, 1), (1, 2), 10**50, 10**51, None, float("nan"), float("nan"), "\ud800", "\udfff", "?", "z"]
    names = ["<tuple>", "<tuple 2>", "<int>", "<int 2>", "<nonetype>", "nan", "\\ud800", "\\udfff", "?", "z"]
    state = {key: benign.noise(2, seed=index) for index, key in enumerate(keys)}
    header = written(tmp_path / "x.pt", state)
    expected = [value for index, value in enumerate(state.values()) if index != 6]
    assert_equal(header, dict(zip(names, expected, strict=True)))
    assert header.notes == (
        "left out: the tensor 'nan' is there twice, by two ways to write its name: the first one counts",
    )
    again = written(
        tmp_path / "x.pt",
        {"model": {(0,): benign.noise(2), (1,): benign.noise(3)}, "optimizer": {"b": benign.noise(2)}},
    )
    assert list(again.tensors) == ["<tuple>", "<tuple 2>"]


@pytest.mark.parametrize("twins", [{1: 2, "1": 3}, {"\ud800": 2, "\\ud800": 3}])
def test_two_keys_of_one_text_are_told_of_wherever_they_are(tmp_path: Path, twins: dict[object, int]) -> None:
    tensors = {key: benign.noise(size) for key, size in twins.items()}
    network = nn.ParameterDict()
    network._parameters = tensors  # type: ignore[assignment]
    for content in (tensors, {**tensors, "optimizer": {"b": benign.noise(2)}}, network, {"model": network}):
        header = written(tmp_path / "x.pt", content)
        assert [info.shape for info in header.tensors.values()] == [(2,)]
        assert any("is there twice" in note for note in header.notes)


def test_bytes_of_protocol_2_in_either_encoding(tmp_path: Path) -> None:
    for encoding in ("latin1", "utf-8"):
        value = call("_codecs", "encode", text("é"), text(encoding))
        (tmp_path / "x.pt").write_bytes(checkpoint(pickle(table({"w": tensor([4], [1]), "x": value})), FOUR))
        assert read_header(tmp_path / "x.pt").safety.verdict == "clean"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_sparse_tensors_refuse_their_file_wherever_they_lie(tmp_path: Path, form: str) -> None:
    dense = torch.eye(3)
    for odd in (dense.to_sparse(), dense.to_sparse_csr()):
        for content in (
            {"good": dense, "odd": odd},
            {"state_dict": {"good": dense}, "optimizer": {"state": {0: {"momentum": odd}}}},
            {"state_dict": {"good": dense}, "odd": odd},
            {"good": dense, "ema": [odd]},
        ):
            with pytest.raises(FormatError, match=r"sparse tensor.*to_dense") as refused:
                written(tmp_path / "x.pt", content, **FORMS[form])
            assert "mislead" not in str(refused.value)


def test_plain_data_is_clean_and_has_no_tensors(tmp_path: Path) -> None:
    for data in (pickle(b"](K\x01K\x02e"), pickle(b"](K\x01K\x02e", 4), b"(lp0\nI1\naI2\na."):
        (tmp_path / "x.pkl").write_bytes(data)
        header = read_header(tmp_path / "x.pkl")
        assert (header.safety.verdict, header.notes, len(header.tensors)) == ("clean", ("no tensors",), 0)


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_and_kind_of_value(tmp_path: Path, protocol: int) -> None:
    values = {
        "whole": 7, "negative": -5, "long": 2**70, "true": True, "float": 1.5, "text": "grün\n'", "list": [1, [2]],
        "tuple": (1, 2, 3, 4), "dict": {"a": {"b": [None, False]}}, "bytes": b"\x00\xff", "set": {1},
        "complex": 1j, "range": range(3), "nan": float("nan"),
    }  # fmt: skip
    (tmp_path / "x.pkl").write_bytes(pickling.dumps(values, protocol=protocol))
    metadata = read_header(tmp_path / "x.pkl").metadata
    assert metadata["text"] == "grün\n'"
    told = {key: json.loads(value) for key, value in metadata.items() if key not in ("text", "bytes", "nan")}
    assert told.items() >= {
        "whole": 7, "negative": -5, "long": 2**70, "true": True, "float": 1.5, "list": [1, [2]],
        "tuple": [1, 2, 3, 4], "dict": {"a": {"b": [None, False]}},
    }.items()  # fmt: skip
    assert metadata["nan"] == "nan"


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "what"),
    [
        ([Entry("m/data/weights/weight_0"), Entry("m/models/model.json"), Entry("m/archive_format")], "torch.export"),
        ([Entry("serialized_exported_program.json"), Entry("serialized_state_dict.pt")], "torch.export"),
        ([Entry("a.npy"), Entry("b.npy")], "numpy archive"),
        ([Entry("[Content_Types].xml"), Entry("word/document.xml")], "Office document"),
        ([Entry("config.json"), Entry("model.weights.h5")], "Keras model"),
        ([Entry("TF_LITE_PREFILL_DECODE"), Entry("TOKENIZER_MODEL")], "MediaPipe.*Bottega runs none of these"),
        ([Entry("META-INF/MANIFEST.MF"), Entry("A.class")], "Java"),
        ([Entry("data.pkl", pickle(b"N"))], "pickles in it that torch did not write"),
        ([Entry("holiday.jpg"), Entry("b/c.txt")], "a zip archive of 2 files"),
        ([], "a zip archive of 0 files"),
        ([Entry("a/data.pkl"), Entry("b/data.pkl")], "two checkpoints"),
    ],
)
def test_other_archives_are_called_by_their_name(tmp_path: Path, members: list[Entry], what: str) -> None:
    (tmp_path / "x.ckpt").write_bytes(archive(members))
    with pytest.raises(FormatError, match=what):
        read_header(tmp_path / "x.ckpt")


@pytest.mark.filterwarnings("ignore")
def test_an_exported_program_is_called_one(tmp_path: Path) -> None:
    program = torch.export.export(nn.Linear(3, 4), (benign.noise(2, 3),))
    torch.export.save(program, tmp_path / "x.pt2")
    with pytest.raises(FormatError, match="a program that torch"):
        read_header(tmp_path / "x.pt2")


def test_half_a_download_is_cut_short(tmp_path: Path) -> None:
    state = {f"w{index}": benign.noise(2000, seed=index) for index in range(8)}
    for options, size in (({}, 20_000), ({"_use_new_zipfile_serialization": False}, 20_000), ({}, 100)):
        (tmp_path / "x.ckpt").write_bytes(benign.saved(state, **options)[:size])
        with pytest.raises(FormatError, match="cut short") as error:
            read_header(tmp_path / "x.ckpt")
        assert "download it again" in error.value.remedy


def test_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(benign.saved(benign.state()))
    honest = pickled.flatten

    def meddling(*given: object) -> object:
        with path.open("ab") as file:
            file.write(b"more")
        return honest(*given)

    monkeypatch.setattr(pickled, "flatten", meddling)
    with pytest.raises(FormatError, match="changed while it was read"):
        read_header(path)


def test_danger_is_told_with_all_names(tmp_path: Path) -> None:
    body = row(call("os", "system", text("x")), name("builtins", "eval"), name("mycorp", "Foo"))
    (tmp_path / "x.pkl").write_bytes(pickle(body))
    with pytest.raises(DangerousModel) as error:
        read_header(tmp_path / "x.pkl")
    assert error.value.names == ("os.system", "builtins.eval")
    assert "runs nothing of it" in error.value.remedy


@pytest.mark.parametrize(
    "called",
    [
        call("mycorp.net", "rebuild", text("x")),
        call("mycorp.net", "Foo.rebuild", b"](" + text("x") + text("y") + b"e"),
        call("mycorp.net", "rebuild", row(whole(1), text("x"))),
        b"(" + name("mycorp.net", "rebuild") + text("x") + b"o",
        b"(" + text("x") + b"imycorp.net\nrebuild\n",
        name("mycorp.net", "rebuild") + row(text("x")) + b"\x81",
        name("mycorp.net", "rebuild") + b")" + table({"x": text("y")}) + b"\x92",
    ],
)
def test_a_call_of_an_unknown_function_with_a_text_is_told(tmp_path: Path, called: bytes) -> None:
    (tmp_path / "x.pt").write_bytes(checkpoint(pickle(table({"w": tensor([4], [1]), "x": called})), FOUR))
    header = read_header(tmp_path / "x.pt")
    assert list(header.tensors) == ["w"]
    (reason,) = header.safety.reasons
    assert reason.startswith("it calls a function that Bottega does not know: 'mycorp.net.")


@pytest.mark.parametrize(
    "other",
    [
        call("mycorp.net", "Foo", text("x")),
        call("mycorp.net", "rebuild", whole(1)),
        call("mycorp.net", "Foo.rebuild", whole(1)),
        name("mycorp.net", "rebuild"),
        call("logging", "getLogger", text("x")),
    ],
)
def test_other_calls_and_names_are_not_called_unknown_functions(tmp_path: Path, other: bytes) -> None:
    (tmp_path / "x.pt").write_bytes(checkpoint(pickle(table({"w": tensor([4], [1]), "x": other})), FOUR))
    (reason,) = read_header(tmp_path / "x.pt").safety.reasons
    assert reason.startswith("it names what Bottega does not know and ignores: ")


def test_calls_of_what_was_called_are_dangerous(tmp_path: Path) -> None:
    made = name("mycorp", "Maker") + b")R"
    (tmp_path / "x.pkl").write_bytes(pickle(made + row(text("x")) + b"R"))
    with pytest.raises(DangerousModel, match="what a call of mycorp"):
        read_header(tmp_path / "x.pkl")


@pytest.mark.parametrize(
    ("module", "word", "verdict"),
    [
        ("collections", "OrderedDict", "inert"),
        ("torch._utils", "_rebuild_tensor_v2", "inert"),
        ("numpy._core.multiarray", "scalar", "inert"),
        ("numpy.random._pickle", "__randomstate_ctor", "inert"),
        ("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint", "inert"),
        ("pytorch_lightning.callbacks.model_checkpoint", "os", "unusual"),
        ("torch.nn.modules.conv", "Conv2d", "unusual"),
        ("torch.nn.modules.module", "torch", "dangerous"),
        ("ultralytics.nn.tasks", "DetectionModel", "unusual"),
        ("__main__", "Net", "unusual"),
        ("__torch__.torch.nn.modules.linear", "Linear", "unusual"),
        ("torch.nn.functional", "mse_loss", "unusual"),
        ("torch.nn.functional", "triplet_margin_with_distance_loss", "dangerous"),
        ("torch.nn.functional", "os", "dangerous"),
        ("torch.nn.init", "warnings", "dangerous"),
        ("torch._C", "_VariableFunctionsClass", "unusual"),
        ("torch._C", "_VariableFunctionsClass.from_file", "dangerous"),
        ("torch.distributed.checkpoint.filesystem", "FileSystemReader", "dangerous"),
        ("torch", "load", "dangerous"),
        ("torch.storage", "_load_from_bytes", "dangerous"),
        ("torch.fx.graph_module", "reduce_graph_module", "dangerous"),
        ("numpy", "load", "dangerous"),
        ("posixpath", "join", "dangerous"),
        ("imp", "load_source", "dangerous"),
        ("test.support.script_helper", "assert_python_ok", "dangerous"),
        ("mycorp", "Foo.bar", "unusual"),
        ("mycorp", "bar.baz", "dangerous"),
        ("mycorp", "Foo.bar.baz", "dangerous"),
        ("mycorp", "Foo.__init__", "dangerous"),
        ("os", "Foo.bar", "dangerous"),
        ("mycorp", "__globals__", "dangerous"),
        ("my corp", "Foo", "dangerous"),
        ("", "Foo", "dangerous"),
        ("builtins", "getattr", "unusual"),
        ("_codecs", "decode", "dangerous"),
        ("six", "exec_", "dangerous"),
        ("six", "text_type", "unusual"),
        ("decorator", "FunctionMaker.create", "dangerous"),
        ("gi.repository", "GLib.spawn_command_line_sync", "dangerous"),
        ("omegaconf", "OmegaConf.load", "dangerous"),
        ("huggingface_hub", "hf_hub_download", "dangerous"),
    ],
)
def test_names_are_judged(module: str, word: str, verdict: str) -> None:
    assert judge(module, word) == verdict


def test_every_module_that_python_knows_by_an_old_name_is_its_own() -> None:
    mappings = (_compat_pickle.IMPORT_MAPPING, _compat_pickle.REVERSE_IMPORT_MAPPING)
    renamed = (_compat_pickle.NAME_MAPPING, _compat_pickle.REVERSE_NAME_MAPPING)
    modules = {*itertools.chain(*mappings), *(module for module, _ in itertools.chain(*renamed))}
    assert {module for module in modules if judge(module, "open") != "dangerous"} == set()


def test_storages_of_other_kinds_and_sizes_are_refused(tmp_path: Path) -> None:
    cases = {
        b"(" + text("storage") + name("mycorp", "Store") + text("0") + text("cpu") + whole(4) + b"tQ": "no storage",
        b"(" + text("module") + name("mycorp", "Store") + b"tQ": "none that torch writes",
        text("0") + b"Q": "none that torch writes",
    }
    for reference, what in cases.items():
        (tmp_path / "x.ckpt").write_bytes(checkpoint(pickle(reference), FOUR))
        with pytest.raises(FormatError, match=what):
            read_header(tmp_path / "x.ckpt")


def test_written_numbers_are_what_python_reads(tmp_path: Path) -> None:
    numbers = (True, False, 0, 7, -7, 10**30, -(10**30), 1.5, -0.0, 1e-07, 1e300, float("inf"))
    for protocol in (0, 1, 2):
        (tmp_path / "x.pkl").write_bytes(pickling.dumps({"numbers": numbers}, protocol))
        assert json.loads(read_header(tmp_path / "x.pkl").metadata["numbers"]) == [*numbers[:-1], "inf"]


@pytest.mark.slow
def test_mutations_crash_nothing(tmp_path: Path) -> None:
    chance = random.Random(5)
    parent = nn.ParameterDict({"*": nn.Parameter(benign.noise(2, 4))})
    seeds = [
        benign.saved(benign.state()),
        benign.saved({"string_to_param": parent}, pickle_protocol=4),
        benign.saved(benign.training(), _use_new_zipfile_serialization=False),
        benign.repacked(benign.saved(benign.views())),
        b"(dp0\nS'a'\np1\n(lp2\nI1\naF2.5\nasS'b'\nccollections\nOrderedDict\n(tRs.",
    ]
    path = tmp_path / "x"
    for turn in range(3000):
        data = bytearray(seeds[turn % len(seeds)])
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(data))
            data[at : at + chance.choice((0, 1, 1, 1, 3))] = chance.randbytes(chance.choice((0, 1, 1, 2)))
        path.write_bytes(data)
        try:
            header = read_header(path)
            for info in header.tensors.values():
                assert 0 <= info.start <= info.end
        except FormatError:
            continue
