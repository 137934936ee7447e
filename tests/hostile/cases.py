"""The 72 cases: what each file is, and what has to be said of it."""

from __future__ import annotations

import base64
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf_files

from hostile import benign
from hostile.containers import Entry, archive, checkpoint, legacy, members, tar_block
from hostile.opcodes import HOOKS, call, frame, name, pickle, row, storage, table, tensor, text, whole, wholes

CLEAN, UNUSUAL, REFUSED, DANGEROUS = "clean", "unusual", "refused", "dangerous"

Files = Iterable[tuple[str, bytes]]
_CASES: list[Case] = []


@dataclass(frozen=True)
class Case:
    """One row of the table: files (made when they are asked for), the verdicts allowed, and a word of the reason.

    `tensors` is how many of them a file that can be read gives, where that is always the same.
    """

    number: int
    title: str
    write: Callable[[Path], Files]
    verdicts: tuple[str, ...]
    says: str
    tensors: int | None


def case(number: int, *verdicts: str, says: str = "", tensors: int | None = None) -> Callable[..., object]:
    def register(write: Callable[[Path], Files]) -> object:
        _CASES.append(Case(number, write.__name__.lstrip("_"), write, verdicts, says, tensors))
        return write

    return register


# --- what files are made of ------------------------------------------------------------------------------------------

FOUR = struct.pack("<4f", 1, 2, 3, 4)
STATE = table({"weight": tensor([4], [1])})
GOOD = checkpoint(pickle(STATE), FOUR)


def shell(canary: Path) -> bytes:
    return text(f"echo > '{canary}'")


def evil(canary: Path) -> bytes:
    return call("os", "system", shell(canary))


def holding(attack: bytes) -> bytes:
    """A checkpoint in which an attack lies beside a tensor."""
    return checkpoint(pickle(table({"weight": tensor([4], [1]), "x": attack})), FOUR)


def protocol0(module: str, attribute: str, argument: str) -> bytes:
    return f"c{module}\n{attribute}\n(V{argument}\ntR.".encode()


# --- benign ----------------------------------------------------------------------------------------------------------


@case(1, CLEAN, tensors=4)
def _zip_protocol_2(canary: Path) -> Files:
    yield "model.ckpt", benign.saved(benign.state())


@case(2, CLEAN, tensors=4)
def _zip_protocols_4_and_5(canary: Path) -> Files:
    for protocol in (3, 4, 5):
        yield f"protocol{protocol}.ckpt", benign.saved(benign.state(), pickle_protocol=protocol)


@case(3, CLEAN, tensors=4)
def _legacy_stack(canary: Path) -> Files:
    for protocol in (2, 3, 4, 5):
        options = {"_use_new_zipfile_serialization": False, "pickle_protocol": protocol}
        yield f"protocol{protocol}.pt", benign.saved(benign.state(), **options)


@case(4, CLEAN, tensors=len(benign.DTYPES))
def _every_dtype(canary: Path) -> Files:
    yield "dtypes.pt", benign.saved(benign.dtypes())
    yield "legacy.pt", benign.saved(benign.dtypes(), _use_new_zipfile_serialization=False)


@case(5, CLEAN, tensors=10)
def _views_and_shared_storages(canary: Path) -> Files:
    yield "views.pt", benign.saved(benign.views())


@case(6, CLEAN, tensors=5)
def _scalars_and_empty_tensors(canary: Path) -> Files:
    yield "empty.pt", benign.saved(benign.empties())


@case(7, CLEAN, tensors=1)
def _embedding_in_a_parameter_dict(canary: Path) -> Files:
    yield "embedding.pt", benign.saved(benign.embedding())


@case(8, CLEAN, tensors=1)
def _embedding_of_sd_concepts(canary: Path) -> Files:
    yield "learned_embeds.bin", benign.saved({"<my-token>": benign.noise(768)})


@case(9, CLEAN, tensors=8)
def _hypernetwork_with_numbers_for_keys(canary: Path) -> Files:
    yield "hyper.pt", benign.saved(benign.hypernetwork())


@case(10, CLEAN, UNUSUAL, tensors=2)
def _training_checkpoint(canary: Path) -> Files:
    yield "last.ckpt", benign.saved(benign.training())


@case(11, CLEAN, UNUSUAL, tensors=4)
def _lightning_checkpoint(canary: Path) -> Files:
    with benign.pretended("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint") as callback:
        yield "sd.ckpt", benign.saved(benign.lightning(callback))
    config = name("omegaconf.listconfig", "ListConfig") + b")\x81" + table({"_content": b"](K\x01K\x02e"}) + b"b"
    parameters = table({"sizes": config})
    state = table({f"w{index}": tensor([4], [1]) for index in range(4)})
    yield "omegaconf.ckpt", checkpoint(pickle(table({"state_dict": state, "hyper_parameters": parameters})), FOUR)


@case(12, UNUSUAL, says="whole networks", tensors=8)
def _whole_network(canary: Path) -> Files:
    model = {"epoch": -1, "model": benign.TinyNetwork(), "ema": None, "train_args": {"imgsz": 640}}
    yield "face.pt", benign.saved(model)
    yield "network.pt", benign.saved(benign.TinyNetwork())


@case(13, UNUSUAL, says="script", tensors=4)
def _torchscript_archive(canary: Path) -> Files:
    yield "clip.pt", benign.script()[1]


@case(14, CLEAN, tensors=4)
def _deflated_archive(canary: Path) -> Files:
    yield "small.ckpt", benign.repacked(benign.saved(benign.state()))


@case(15, CLEAN, tensors=4)
def _archive_without_byte_order_or_version(canary: Path) -> Files:
    plain = benign.saved(benign.state())
    yield (
        "old.ckpt",
        benign.repacked(plain, drop=("byteorder", "version", ".storage_alignment", "serialization_id"), deflate=False),
    )
    state = table({f"w{index}": tensor([4], [1], key=str(index)) for index in range(4)})
    entries = [Entry("x/data.pkl", pickle(state), crc=0)]
    entries += [Entry(f"x/data/{index}", FOUR, crc=0) for index in range(4)]
    yield "no-checksum.ckpt", archive(entries)


@case(16, CLEAN, tensors=4)
def _big_endian(canary: Path) -> Files:
    yield "big.ckpt", benign.repacked(benign.saved(benign.state()), order="big", deflate=False)


@case(17, CLEAN, tensors=4)
def _odd_keys(canary: Path) -> Files:
    keys = ("größe.重み", "🎨.weight", "k" * 100_000, "\x1b[31m<img src=x onerror=alert(1)>")
    yield "keys.ckpt", benign.saved({key: benign.noise(4) for key in keys})


@case(18, CLEAN, tensors=100_000)
def _a_hundred_thousand_tensors(canary: Path) -> Files:
    base = benign.noise(1000)
    yield "many.ckpt", benign.saved({f"layer.{index}.weight": base[index % 900 :][:10] for index in range(100_000)})


# --- code ------------------------------------------------------------------------------------------------------------


@case(19, DANGEROUS, says="os.system")
def _os_system(canary: Path) -> Files:
    yield "model.ckpt", holding(evil(canary))
    yield "alone.pkl", pickle(evil(canary))
    yield "protocol4.pkl", pickle(frame(b"\x8c\x02os\x8c\x06system\x93(" + shell(canary) + b"tR."), 4)[:-1]
    yield "twice.bin", pickle(table({"posix": call("posix", "system", shell(canary)), "os": evil(canary)}))


@case(20, DANGEROUS, says="eval")
def _eval_in_protocol_0(canary: Path) -> Files:
    code = f"open({str(canary)!r}, 'w')"
    yield "builtins.pt", protocol0("builtins", "eval", code)
    yield "old.pt", protocol0("__builtin__", "eval", code)
    yield "named.pt", b"\x80\x02" + protocol0("builtins", "eval", code)


@case(21, DANGEROUS, says="exec")
def _inst(canary: Path) -> Files:
    code = f"open({str(canary)!r}, 'w')"
    yield "inst.pt", pickle(b"(" + text(code) + b"ibuiltins\nexec\n")
    yield "text.pt", f"(V{code}\nibuiltins\nexec\n.".encode()


@case(22, DANGEROUS, says="os.system")
def _obj_with_the_result_thrown_away(canary: Path) -> Files:
    attack = b"(" + name("os", "system") + shell(canary) + b"o0"
    yield "obj.pt", checkpoint(pickle(attack + STATE), FOUR)


@case(23, REFUSED)
def _opcodes_that_no_checkpoint_needs(canary: Path) -> Files:
    yield "newobj_ex.pt", pickle(name("collections", "OrderedDict") + b")}\x92", 4)
    yield "ext1.pt", pickle(b"\x82\x01")
    yield "ext2.pt", pickle(b"\x83\x01\x00")
    yield "ext4.pt", pickle(b"\x84\x01\x00\x00\x00")
    yield "persid.pt", pickle(b"Pstorage\n")
    yield "buffer.pt", pickle(b"\x97", 5)
    yield "readonly.pt", pickle(b"K\x01\x98", 5)


@case(24, DANGEROUS, says="os.system")
def _stack_global_of_remembered_words(canary: Path) -> Files:
    words = b"\x8c\x02os\x94\x8c\x06system\x9400" + b"h\x00h\x01\x93"
    yield "memo.pkl", pickle(words + row(shell(canary)) + b"R", 4)
    swapped = b"\x8c\x06system\x94\x8c\x02os\x940" + b"0h\x01h\x00\x93"
    yield "swapped.pkl", pickle(swapped + row(shell(canary)) + b"R", 4)


@case(2300, UNUSUAL, says="mycorp.Foo", tensors=1)
def _an_object_made_with_named_arguments(canary: Path) -> Files:
    made = name("mycorp", "Foo") + row(whole(1)) + table({"size": whole(2)}) + b"\x92"
    yield "newobj_ex.ckpt", checkpoint(pickle(table({"weight": tensor([4], [1]), "x": made}), 4), FOUR)


@case(2400, REFUSED, says="no text")
def _stack_global_of_no_words(canary: Path) -> Files:
    yield "number.pkl", pickle(b"K\x01K\x02\x93", 4)
    yield "bytes.pkl", pickle(b"C\x02osC\x06system\x93", 4)
    yield "tuple.pkl", pickle(b"))\x93", 4)


@case(25, DANGEROUS, says="os.system")
def _strings_of_python_2(canary: Path) -> Files:
    yield "string.pkl", pickle(b"S'os'\nS'sys\\x74em'\n\x93" + row(shell(canary)) + b"R", 4)
    yield "binstring.pkl", pickle(b"U\x02osT\x06\x00\x00\x00system\x93" + row(shell(canary)) + b"R", 4)


@case(26, DANGEROUS, says="pathlib.os.system")
def _dotted_name(canary: Path) -> Files:
    yield "dotted.pkl", pickle(b"\x8c\x07pathlib\x8c\x09os.system\x93" + row(shell(canary)) + b"R", 4)
    yield "global.pkl", pickle(call("pathlib", "os.system", shell(canary)), 4)
    yield "others.pkl", pickle(call("mycorp", "Foo", name("mycorp", "pathlib.os.system")))


@case(27, DANGEROUS, says="numpy.__builtins__")
def _builtins_by_way_of_numpy(canary: Path) -> Files:
    body = name("numpy", "__builtins__") + table({"len": name("builtins", "exec")}) + b"b0" + STATE
    yield "numpy.pt", checkpoint(pickle(body), FOUR)


@case(28, REFUSED, DANGEROUS, says="sets attributes")
def _attributes_of_a_module(canary: Path) -> Files:
    yield "module.pkl", pickle(name("collections", "OrderedDict") + table({"x": whole(1)}) + b"b")
    yield "torch.pkl", pickle(name("torch", "Tensor") + table({"__reduce__": whole(1)}) + b"b")


@case(29, DANGEROUS)
def _finding_code_by_its_name(canary: Path) -> Files:
    run = row(shell(canary)) + b"R"
    yield "pkgutil.pkl", pickle(call("pkgutil", "resolve_name", text("os:system")) + run)
    yield "importlib.pkl", pickle(call("importlib", "import_module", text("os")))
    yield "marshal.pkl", pickle(call("marshal", "loads", b"C\x01N"), 3)
    yield "mailcap.pkl", pickle(call("mailcap", "findmatch", b"}", text("x")))
    yield "runpy.pkl", pickle(call("runpy", "_run_code", text("x")))
    yield "timeit.pkl", pickle(call("timeit", "timeit", text("x")))
    yield "attrgetter.pkl", pickle(call("operator", "attrgetter", text("system")))
    yield "getattr.pkl", pickle(call("builtins", "getattr", name("collections", "OrderedDict"), text("x")))
    method = call("builtins", "getattr", name("mycorp.net", "Head"), text("forward"))
    yield "getattr-call.pkl", pickle(method + run)
    yield "getattr-twice.pkl", pickle(name("builtins", "getattr") + row(method, text("x")) + b"R")
    yield "getattr-build.pkl", pickle(method + table({"x": whole(1)}) + b"b")
    yield "getattr-dunder.pkl", pickle(call("builtins", "getattr", name("mycorp.net", "Head"), text("__globals__")))
    yield "getattr-module.pkl", pickle(call("builtins", "getattr", name("mycorp", "net"), text("os")))
    yield "getattr-numpy.pkl", pickle(call("builtins", "getattr", name("numpy", "ndarray"), text("tofile")))
    functions = name("torch._C", "_VariableFunctionsClass")
    from_file = call("builtins", "getattr", functions, text("from_file"))
    yield "getattr-torch-call.pkl", pickle(from_file + row(text(str(canary)), b"\x88", whole(1)) + b"R")
    yield "getattr-torch-twice.pkl", pickle(call("builtins", "getattr", from_file, text("x")))
    yield "getattr-torch-built.pkl", pickle(from_file + table({"x": whole(1)}) + b"b")
    for index, word in enumerate(("__globals__", "_private", "a.b", "", "from file")):
        yield f"getattr-torch-{index}.pkl", pickle(call("builtins", "getattr", functions, text(word)))
    yield "getattr-torch-bytes.pkl", pickle(call("builtins", "getattr", functions, b"C\4relu"), 3)
    yield "getattr-torch-default.pkl", pickle(call("builtins", "getattr", functions, text("relu"), b"N"))
    yield "getattr-torch-module.pkl", pickle(call("builtins", "getattr", name("torch", "_C"), text("relu")))
    yield "dotted-torch.pkl", pickle(name("torch._C", "_VariableFunctionsClass.from_file"))
    yield "runstring.pkl", pickle(call("numpy.testing._private.utils", "runstring", text("x"), b"}"))
    yield "hub.pkl", pickle(call("torch.hub", "load", text("x")))
    yield "collect_env.pkl", pickle(call("torch.utils.collect_env", "run", text("x")))
    yield "pip.pkl", pickle(call("pip._internal.cli.main", "main", b"]"))
    yield "requests.pkl", pickle(call("requests.api", "get", text("http://localhost/")))
    yield "aiohttp.pkl", pickle(call("aiohttp.client", "ClientSession"))
    yield "code.pkl", pickle(call("types", "CodeType", whole(1)))
    yield "file.pkl", pickle(call("_io", "FileIO", text(str(canary)), text("w")))
    yield "log.pkl", pickle(call("logging", "FileHandler", text(str(canary))))
    yield "signal.pkl", pickle(call("_xxsubinterpreters", "run_string", text("x")))


@case(30, DANGEROUS)
def _a_pickle_in_a_pickle(canary: Path) -> Files:
    inner = pickle(evil(canary))
    packed = b"C" + bytes([len(inner)]) + inner
    yield "loads.pkl", pickle(call("pickle", "loads", packed), 3)
    yield "_loads.pkl", pickle(call("_pickle", "loads", packed), 3)
    yield "storage.pkl", pickle(call("torch.storage", "_load_from_bytes", packed), 3)
    yield "dill.pkl", pickle(call("dill._dill", "loads", packed), 3)
    yield "joblib.pkl", pickle(call("joblib.numpy_pickle", "load", text("x")), 3)


@case(31, DANGEROUS, says="torch.serialization.load")
def _partial_of_torch_load(canary: Path) -> Files:
    yield "partial.pkl", pickle(call("functools", "partial", name("torch.serialization", "load"), text("x")) + b")R")


@case(32, DANGEROUS, says="os.system")
def _a_broken_tail_after_the_attack(canary: Path) -> Files:
    yield "bare.bin", b"\x80\x02" + evil(canary) + b"\xff\xff not a pickle"
    yield "zip.ckpt", checkpoint(b"\x80\x02" + evil(canary) + b"\x00", FOUR)
    yield "text.bin", protocol0("os", "system", f"echo > '{canary}'")[:-1] + b"\xff garbage"
    yield "recalled.bin", b"\x80\x02" + evil(canary) + b"h\x63."


@case(33, REFUSED, DANGEROUS, says="follow")
def _another_pickle_after_the_end(canary: Path) -> Files:
    yield "bare.pkl", pickle(b"](K\x01K\x02e") + pickle(evil(canary))
    yield "zip.ckpt", checkpoint(pickle(STATE) + pickle(evil(canary)), FOUR)


@case(34, REFUSED, DANGEROUS)
def _frames_that_opcodes_straddle(canary: Path) -> Files:
    hidden = name("os", "system") + row(shell(canary)) + b"R."
    literal = b"C" + bytes([len(hidden)]) + hidden
    yield "straddle.pkl", b"\x80\x04" + frame(literal, 2) + b"."
    yield "nested.pkl", b"\x80\x04" + frame(frame(b"K\x01.", 3))
    yield "past.pkl", b"\x80\x04" + frame(b"K\x01.", 1 << 40)
    yield "short.pkl", b"\x80\x04" + frame(b"K\x01", 1) + b"."
    yield "stop.pkl", b"\x80\x04" + frame(b"K\x01.", 4) + b"."
    yield "stack.pt", legacy(STATE, [(4, FOUR)], version=frame(whole(1001), 20))
    yield "rest.pkl", pickle(b"K\x01K\x02")
    yield "open.pkl", pickle(b"K\x01(")


@case(35, UNUSUAL, says="mycorp.net.Foo", tensors=1)
def _a_class_nobody_knows(canary: Path) -> Files:
    thing = name("mycorp.net", "Foo") + b")\x81" + table({"depth": whole(3)}) + b"b"
    yield "foo.ckpt", holding(thing)
    yield "called.ckpt", holding(call("mycorp.net", "Foo", whole(1)))


@case(36, CLEAN, tensors=1)
def _the_words_of_an_attack_as_words(canary: Path) -> Files:
    yield "words.ckpt", holding(text("cos\nsystem\n(S'ls'\ntR. os.system eval("))


# --- archives --------------------------------------------------------------------------------------------------------


@case(3600, UNUSUAL, says="a pickle is hidden")
def _a_pickle_in_a_value(canary: Path) -> Files:
    for protocol in (2, 3, 4, 5):
        inner = pickle(evil(canary), protocol)
        values = {
            "bytes": b"B" + struct.pack("<I", len(inner)) + inner,
            "long-bytes": b"\x8e" + struct.pack("<Q", len(inner)) + inner,
            "string": b"T" + struct.pack("<I", len(inner)) + inner,
            "text": text(inner.decode("latin-1")),
            "line": b"V" + inner.decode("latin-1").replace("\n", "\\u000a").encode("raw-unicode-escape") + b"\n",
            "quoted": b"S" + ascii(inner)[1:].encode() + b"\n",
            "base64": text(base64.b64encode(inner).decode()),
            "hexadecimal": text(inner.hex()),
        }
        for form, value in values.items():
            yield (
                f"{form}-{protocol}.ckpt",
                checkpoint(pickle(table({"weight": tensor([4], [1]), "x": value}), 4), FOUR),
            )
    short = b"\x8c\x1a" + b"800463" + b"6f" * 10
    yield "short.pkl", pickle(short, 4)


@case(3601, CLEAN, tensors=1)
def _values_that_no_pickle_begins_with(canary: Path) -> Files:
    for index, word in enumerate(("gAmma", "gAUSSIAN", "8002", "800312ab34cd56ef", "\x80", "\x80\x02", "8" * 64)):
        yield f"{index}.ckpt", holding(text(word))
    yield "bytes.ckpt", checkpoint(pickle(table({"weight": tensor([4], [1]), "x": b"C\4\x80\2\0\0"}), 3), FOUR)


# --- archives, once more: what else lies in them ---------------------------------------------------------------------


@case(3700, UNUSUAL, says="files that torch does not write", tensors=1)
def _members_that_torch_does_not_write(canary: Path) -> Files:
    for index, path in enumerate(("setup.py", "inner.pt", "extra/lib.so", "data/1", "data/aot/x.so", "models/m.json")):
        yield f"{index}.ckpt", archive([*members(pickle(STATE), [FOUR]), Entry(f"archive/{path}", b"x")])


@case(3701, DANGEROUS, says="os.system")
def _an_attack_in_another_pickle(canary: Path) -> Files:
    for path in ("evil.pkl", "constants.pkl", "extra/data.pkl", ".data.pkl", "code/x.PKL", "a.pickle"):
        entry = Entry(f"archive/{path}", pickle(evil(canary)))
        yield f"{path.replace('/', '-')}.ckpt", archive([*members(pickle(STATE), [FOUR]), entry])
    second = Entry("archive/x.pkl", pickle(b"N") + pickle(evil(canary)))
    yield "second.ckpt", archive([*members(pickle(STATE), [FOUR]), second])


@case(3702, UNUSUAL, says="could not be read to the end", tensors=1)
def _other_pickles_that_are_none(canary: Path) -> Files:
    yield "junk.ckpt", archive([*members(pickle(STATE), [FOUR]), Entry("archive/constants.pkl", b"\xff\xff")])
    many = [Entry(f"archive/{index}.pkl", pickle(b"N")) for index in range(100)]
    yield "many.ckpt", archive([*members(pickle(STATE), [FOUR]), *many])
    yield "row.ckpt", archive([*members(pickle(STATE), [FOUR]), Entry("archive/x.pkl", b"N." * 100)])


@case(3703, UNUSUAL, says="more in its zip directory", tensors=1)
def _what_a_directory_may_carry(canary: Path) -> Files:
    yield "comment.ckpt", archive(members(pickle(STATE), [FOUR]), comment=pickle(evil(canary)))
    pickled, *others = members(pickle(STATE), [FOUR])
    field = struct.pack("<HH", 0xCAFE, 4) + b"evil"
    yield "field.ckpt", archive([pickled, *others[:-1], Entry("archive/version", b"3\n", extra=field)])
    yield "local.ckpt", archive([pickled, *others[:-1], Entry("archive/version", b"3\n", local_extra=field)])
    padded = b"FB" + struct.pack("<H", 2) + b"ZZ" + field
    yield "behind.ckpt", archive([pickled, *others[:-1], Entry("archive/version", b"3\n", local_extra=padded)])


@case(3704, REFUSED)
def _a_directory_that_takes_long(canary: Path) -> Files:
    entries = [Entry(f"a{index}" + "\u0300\u0316" * 10_000) for index in range(40)]
    yield "accents.ckpt", archive([*members(pickle(STATE), [FOUR]), *entries])
    shorter = [Entry(f"{index}" + "\u0300\u0316" * 120) for index in range(40_000)]
    yield "shorter.ckpt", archive([*members(pickle(STATE), [FOUR]), *shorter])
    fields = Entry("archive/version", b"3\n", extra=struct.pack("<HH", 1, 0) * 16_000)
    yield "fields.ckpt", archive([*members(pickle(STATE), [FOUR])[:-1], fields])
    yield "most.ckpt", archive([*members(pickle(STATE), [FOUR]), *(Entry(f"data/{index}") for index in range(65_000))])


@case(37, REFUSED, says="encrypted")
def _flags_of_encryption(canary: Path) -> Files:
    for flag in (0x1, 0x20, 0x40):
        yield f"{flag:#x}.ckpt", checkpoint(pickle(STATE), FOUR, flags=flag)


@case(38, REFUSED, says="two names")
def _two_names_for_one_member(canary: Path) -> Files:
    yield "local.ckpt", checkpoint(pickle(STATE), FOUR, local_name="archive/data.pk1")
    yield "longer.ckpt", checkpoint(pickle(STATE), FOUR, local_name="archive/data.pkl2")


@case(39, CLEAN, says="checksum", tensors=1)
def _a_wrong_checksum(canary: Path) -> Files:
    yield "crc.ckpt", checkpoint(pickle(STATE), FOUR, crc=12345)


@case(40, DANGEROUS, says="os.system")
def _a_wrong_checksum_over_an_attack(canary: Path) -> Files:
    yield "crc.ckpt", checkpoint(pickle(evil(canary)), crc=12345)


@case(41, REFUSED, says="two of its members")
def _the_same_member_twice(canary: Path) -> Files:
    yield "twice.ckpt", archive([Entry("archive/data.pkl", pickle(STATE)), *members(pickle(STATE), [FOUR])])


@case(4100, REFUSED, says="overlap")
def _a_member_within_another_one(canary: Path) -> Files:
    inner = Entry("archive/version", b"3\n")
    outer = Entry("archive/data/0", archive([inner]))
    at = 30 + len("archive/data.pkl") + len(pickle(STATE)) + 30 + len("archive/data/0")
    inner = Entry("archive/version", b"", place=at)
    yield "within.ckpt", archive([Entry("archive/data.pkl", pickle(STATE)), outer, inner])


@case(42, REFUSED, says="two of its members")
def _an_attack_beside_a_good_member(canary: Path) -> Files:
    bad = Entry("archive/data.pkl", pickle(evil(canary)))
    good = members(pickle(STATE), [FOUR])
    yield "first.ckpt", archive([bad, *good])
    yield "last.ckpt", archive([*good, bad])


@case(43, REFUSED, says="two of its members")
def _the_same_member_in_capitals(canary: Path) -> Files:
    yield "capitals.ckpt", archive([*members(pickle(STATE), [FOUR]), Entry("archive/DATA.PKL", pickle(evil(canary)))])
    yield "accent.ckpt", archive([*members(pickle(STATE), [FOUR]), Entry("é"), Entry("e\u0301")])


@case(4300, REFUSED, says="outside of the checkpoint's folder")
def _a_checkpoint_in_the_folder_that_comes_first(canary: Path) -> Files:
    good, bad = members(pickle(STATE), [FOUR]), Entry("evil/DATA.PKL", pickle(evil(canary)))
    yield "first.ckpt", archive([bad, Entry("evil/version", b"3\n"), *good])
    yield "folder.ckpt", archive([Entry("evil/"), *good])
    yield "last.ckpt", archive([*good, bad])
    yield "deep.ckpt", archive([Entry("evil/x/data.pkl", pickle(evil(canary))), *good])
    yield "root.ckpt", archive([Entry("data.pkl", pickle(evil(canary))), *good])
    yield "capitals.ckpt", archive([*good, Entry("ARCHIVE/code/x", b"")])


@case(4301, REFUSED, says="programs differ")
def _what_torch_reads_in_capitals(canary: Path) -> Files:
    pickled, order, stored, version = members(pickle(STATE), [FOUR])
    yield "byteorder.ckpt", archive([pickled, Entry("archive/BYTEORDER", b"big"), stored, version])
    yield "storage.ckpt", archive([pickled, order, Entry("archive/DATA/0", FOUR), version])
    yield "other-storage.ckpt", archive([pickled, order, stored, Entry("archive/Data/1", FOUR), version])
    yield "version.ckpt", archive([pickled, order, stored, Entry("archive/Version", b"3\n")])
    yield "constants.ckpt", archive([pickled, order, stored, version, Entry("archive/Constants.pkl", b")")])


@case(44, REFUSED)
def _junk_before_the_archive(canary: Path) -> Files:
    yield "shell.ckpt", b"#!/bin/sh\n" + GOOD
    yield "pk.ckpt", b"PK\3\4" + bytes(60) + GOOD
    yield "pickle.ckpt", pickle(b"N") + GOOD
    yield "mended.ckpt", archive(members(pickle(STATE), [FOUR]), before=bytes(30))
    yield "pk-mended.ckpt", archive(members(pickle(STATE), [FOUR]), before=b"PK\3\4" + bytes(60))


@case(45, REFUSED, says="follow")
def _junk_after_the_archive(canary: Path) -> Files:
    yield "junk.ckpt", GOOD + b"junk"
    yield "pickle.ckpt", GOOD + pickle(evil(canary))


@case(46, REFUSED)
def _two_archives_in_one_file(canary: Path) -> Files:
    yield "two.ckpt", checkpoint(pickle(evil(canary))) + GOOD
    yield "mended.ckpt", archive(members(pickle(STATE), [FOUR]), before=checkpoint(pickle(evil(canary))))
    yield "inside.ckpt", archive(members(pickle(STATE), [FOUR]), inside=checkpoint(pickle(evil(canary))))
    yield "in-comment.ckpt", archive(members(pickle(STATE), [FOUR]), comment=checkpoint(pickle(evil(canary))))


@case(47, REFUSED)
def _sizes_of_terabytes(canary: Path) -> Files:
    huge = struct.pack("<HHQQ", 1, 16, 1 << 40, 1 << 40)
    entries = [Entry("archive/data.pkl", pickle(STATE)), Entry("archive/data/0", FOUR, size=0xFFFFFFFF, extra=huge)]
    yield "huge.ckpt", archive(entries)
    end = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1 << 40, 1 << 40, 1 << 50, 0)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, 0, 1)
    yield (
        "directory.ckpt",
        end + locator + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, *(0xFFFF,) * 2, *(0xFFFFFFFF,) * 2, 0),
    )


@case(4700, REFUSED, says="ends before the last of the 5 members")
def _a_member_more_than_there_are(canary: Path) -> Files:
    assert GOOD[-14:-10] == struct.pack("<2H", 4, 4)
    yield "more.ckpt", GOOD[:-14] + struct.pack("<2H", 5, 5) + GOOD[-10:]


@case(4701, REFUSED, says="can't be unpacked")
def _a_member_that_is_packed_in_no_way(canary: Path) -> Files:
    pickled = Entry("archive/data.pkl", pickle(STATE), method=8)
    whole_archive = archive([pickled, *members(pickle(STATE), [FOUR])[1:]])
    yield "x.ckpt", whole_archive.replace(pickled.packed, b"\xff" * len(pickled.packed))


@case(48, REFUSED, says="outside of its folder")
def _members_that_lead_out(canary: Path) -> Files:
    for index, path in enumerate(("../../x", "/abs", "C:/x", "a\\b", "a/\0b", "a//b", "a/./b", "archive/..")):
        yield f"{index}.ckpt", archive([*members(pickle(STATE), [FOUR]), Entry(path, b"x")])


@case(49, REFUSED, says="bomb")
def _ten_gigabytes_of_zeros(canary: Path) -> Files:
    zeros = Entry("archive/data/0", bytes(80 << 20), method=8)
    yield "bomb.ckpt", archive([Entry("archive/data.pkl", pickle(STATE)), zeros])


@case(4900, REFUSED)
def _a_pickle_that_is_a_bomb(canary: Path) -> Files:
    yield "pickle.ckpt", archive([Entry("archive/data.pkl", bytes(60 << 20), method=8), Entry("archive/data/0", FOUR)])
    lie = Entry("archive/data.pkl", bytes(60 << 20), method=8, size=100)
    yield "lie.ckpt", archive([lie, Entry("archive/data/0", FOUR)])
    yield "claim.ckpt", archive([Entry("archive/data.pkl", pickle(STATE), method=8, size=1 << 31)])


@case(50, REFUSED, says="link")
def _a_member_that_is_a_link(canary: Path) -> Files:
    yield "link.ckpt", archive([*members(pickle(STATE)), Entry("archive/data/0", b"/etc/passwd", attributes=0o120777)])
    yield "device.ckpt", archive([*members(pickle(STATE)), Entry("archive/data/0", b"", attributes=0o020666)])


@case(51, REFUSED, says="7z")
def _seven_zip(canary: Path) -> Files:
    yield "model.ckpt", b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(100) + pickle(evil(canary))


@case(52, REFUSED, says="tar")
def _tar_with_a_link(canary: Path) -> Files:
    header = bytearray(512)
    header[:8], header[156:157], header[157:168], header[257:263] = b"storages", b"2", b"/etc/passwd", b"ustar\0"
    yield "old.pt", bytes(header) + bytes(1024)


@case(5200, REFUSED, says="also a tar archive")
def _a_pickle_that_is_a_tar_archive(canary: Path) -> Files:
    inner = tar_block("pickle", b"x" * 30) + pickle(evil(canary)).ljust(512, b"\0")
    for opcode in (b"\x80\x03B", b"\x80\x02T"):
        swallow = opcode + struct.pack("<I", 512 + len(inner) - 7)
        yield f"{opcode[2:].decode()}.pt", tar_block(swallow.decode("latin-1"), b"") + inner + b"."
        odd = bytearray(tar_block(swallow.decode("latin-1"), b"", magic=b""))
        odd[148:149] = b"\x1c"  # white space, to Python
        yield f"{opcode[2:].decode()}-odd.pt", bytes(odd) + inner + b"."
        yield f"{opcode[2:].decode()}-v7.pt", tar_block(swallow.decode("latin-1"), b"", magic=b"") + inner + b"."


@case(5201, REFUSED, says="also a zip archive")
def _a_pickle_that_is_a_zip_archive(canary: Path) -> Files:
    inner = archive(members(pickle(evil(canary))), comment=b".")
    yield "bytes.pt", b"\x80\x03B" + struct.pack("<I", len(inner) - 1) + inner
    inner = checkpoint(pickle(evil(canary)))
    state = table({"weight": tensor([len(inner)], [1], kind="ByteStorage")})
    yield "storage.pt", legacy(state, [(len(inner), inner)])


@case(53, DANGEROUS, says="os.system")
def _torchscript_around_an_attack(canary: Path) -> Files:
    extra = [Entry("archive/constants.pkl", pickle(b")")), Entry("archive/code/x.py", b"def f(): pass")]
    yield "clip.pt", archive([*members(pickle(evil(canary))), *extra])


# --- stacked pickles -------------------------------------------------------------------------------------------------


@case(54, DANGEROUS, says="eval")
def _a_magic_number_that_is_computed(canary: Path) -> Files:
    code = f"open({str(canary)!r}, 'w') and 0x1950a86a20f9469cfc6c"
    yield "magic.pt", legacy(STATE, [(4, FOUR)], magic=call("builtins", "eval", text(code)))


@case(55, DANGEROUS, says="os.system")
def _an_attack_in_each_pickle_of_the_stack(canary: Path) -> Files:
    yield "version.pt", legacy(STATE, [(4, FOUR)], version=evil(canary))
    yield "info.pt", legacy(STATE, [(4, FOUR)], info=evil(canary))
    yield "root.pt", legacy(evil(canary), [(4, FOUR)])
    yield "keys.pt", legacy(STATE, [(4, FOUR)], keys=evil(canary))


@case(56, REFUSED, says="follow")
def _bytes_after_the_storages(canary: Path) -> Files:
    yield "after.pt", legacy(STATE, [(4, FOUR)]) + b"\0"
    yield "pickle.pt", legacy(STATE, [(4, FOUR)]) + pickle(evil(canary))


@case(57, REFUSED, says="storage of")
def _impossible_numbers_of_elements(canary: Path) -> Files:
    for count in (-1, 1 << 62, -(1 << 63), 5):
        yield f"{count}.pt", legacy(STATE, [(count, FOUR)])


# --- tensors ---------------------------------------------------------------------------------------------------------


@case(58, REFUSED, says="past the end")
def _a_tensor_past_its_storage(canary: Path) -> Files:
    for index, lie in enumerate(
        (tensor([5], [1], stored=4), tensor([4], [1], stored=4, offset=1), tensor([2], [4], stored=4))
    ):
        yield f"{index}.ckpt", checkpoint(pickle(table({"weight": lie})), FOUR)
        yield f"{index}.pt", legacy(table({"weight": lie}), [(4, FOUR)])


@case(59, REFUSED)
def _impossible_shapes(canary: Path) -> Files:
    lies = {
        "size": tensor([-1], [1], stored=4),
        "stride": tensor([2], [-1], stored=4, offset=1),
        "offset": tensor([1], [1], stored=4, offset=-1),
        "rank": tensor([1] * 100, [1] * 100, stored=4),
        "ranks": tensor([1, 1], [1], stored=4),
        "product": tensor([1 << 40, 1 << 40], [0, 0], stored=4),
        "huge": tensor([1 << 62, 4], [0, 1], stored=4),
        "endless": tensor([1 << 2000], [1], stored=4),
        "empty-endless": tensor([1 << 70, 0], [0, 1], stored=0),
        "empty-huge": tensor([0, 1 << 40, 1 << 40], [1, 1, 1], stored=0),
        "stored": tensor([4], [1], stored=-4),
        "counted": storage("0", 4).replace(whole(4), text("4")),
        "float": tensor([4], [1]).replace(wholes([4]), row(b"G" + struct.pack(">d", 4.0))),
        "true": tensor([4], [1]).replace(wholes([1]), row(b"\x88")),
        "boolean": call(
            "torch._utils", "_rebuild_tensor_v2", storage("0", 4), b"\x88", wholes([1]), wholes([1]), b"\x89", HOOKS
        ),
    }
    for what, lie in lies.items():
        yield f"{what}.ckpt", checkpoint(pickle(table({"weight": lie})), FOUR)


@case(60, REFUSED, says="is made of a storage of")
def _a_number_repeated_to_a_terabyte(canary: Path) -> Files:
    lie = tensor([1 << 20, 1 << 20], [0, 0], stored=4)
    yield "expanded.ckpt", checkpoint(pickle(table({"weight": lie})), FOUR)


@case(6000, REFUSED, says="are made of 1,048,576 that are stored")
def _a_megabyte_repeated_to_gigabytes(canary: Path) -> Files:
    repeated = tensor([16, 1 << 18], [0, 1], stored=1 << 18)
    yield "each.ckpt", checkpoint(pickle(table({f"{index}": repeated for index in range(3_000)})), bytes(1 << 20))
    twins = table({f"{index}": tensor([1 << 18], [1], stored=1 << 18) for index in range(3_000)})
    yield "tied.ckpt", checkpoint(pickle(twins), bytes(1 << 20))
    yield "tied.pt", legacy(twins, [(1 << 18, bytes(1 << 20))])


@case(61, REFUSED, says="claims")
def _a_storage_larger_than_its_bytes(canary: Path) -> Files:
    lie = table({"weight": tensor([5], [1], stored=5)})
    yield "claimed.ckpt", checkpoint(pickle(lie), FOUR)
    yield "claimed.pt", legacy(lie, [(4, FOUR)])


@case(6100, REFUSED, says="numbers of two kinds, F32 and F16")
def _one_storage_of_two_dtypes(canary: Path) -> Files:
    twins = {"a": tensor([4], [1]), "b": tensor([4], [1], stored=8, kind="HalfStorage")}
    yield "named.ckpt", checkpoint(pickle(table(twins)), FOUR)
    yield "thrown-away.ckpt", checkpoint(pickle(twins["a"] + b"0" + table({"b": twins["b"]})), FOUR)
    yield "legacy.pt", legacy(table(twins), [(4, FOUR)])


@case(62, REFUSED, says="missing")
def _a_storage_elsewhere(canary: Path) -> Files:
    for index, key in enumerate(("../byteorder", "1", "/etc/passwd", "0/", "")):
        yield f"{index}.ckpt", checkpoint(pickle(table({"weight": tensor([1], [1], key=key)})), FOUR)


@case(63, UNUSUAL, REFUSED)
def _gigabytes_for_the_asking(canary: Path) -> Files:
    yield "bytearray.ckpt", holding(call("builtins", "bytearray", whole(2**33)))
    yield "bytes.ckpt", holding(call("builtins", "bytes", whole(2**33)))
    yield "tensor.ckpt", holding(call("torch", "Tensor", whole(2**31)))
    yield "storage.ckpt", holding(call("torch", "FloatStorage", whole(2**31)))


@case(64, REFUSED, says="sparse")
def _sparse_with_lying_indices(canary: Path) -> Files:
    indices = tensor([4], [1], kind="LongStorage", key="1")
    layout = call("torch.serialization", "_get_layout", text("torch.sparse_csr"))
    lying = layout + row(indices, indices, indices, wholes([3, 3]))
    lie = call("torch._utils", "_rebuild_sparse_tensor", lying)
    function = name("torch._utils", "_rebuild_sparse_tensor")
    good = text("w") + tensor([4], [1])
    for where, body in {
        "named": table({"weight": lie}),
        "beside": table({"state_dict": STATE, "extra": lie}),
        "thrown-away": lie + b"0" + STATE,
        "key": b"}(" + good + lie + whole(1) + b"u",
        "state": HOOKS + good + b"s" + table({"extra": lie}) + b"b",
        "hooks": table({"w": tensor([4], [1]).replace(b"\x89" + HOOKS, b"\x89" + lie)}),
        "subclass": call("torch._tensor", "_rebuild_from_type_v2", function, name("torch", "Tensor"), row(lying), b"}"),
    }.items():
        yield f"{where}.ckpt", checkpoint(pickle(body), FOUR, FOUR * 2)
    constants = Entry("archive/constants.pkl", pickle(row(lie)))
    yield "constants.ckpt", archive([*members(pickle(STATE), [FOUR, FOUR * 2]), constants])


# --- tensors that are changed after they were made -------------------------------------------------------------------


def stated(state: bytes) -> Iterator[tuple[str, bytes]]:
    """A parameter and a tensor of another type, with the state that each of them is given."""
    yield "parameter", call("torch._utils", "_rebuild_parameter_with_state", tensor([4], [1]), b"\x89", HOOKS, state)
    args = row(storage("0", 4), whole(0), wholes([4]), wholes([1]), b"\x89", HOOKS)
    for function in ("_rebuild_from_type_v2", "_rebuild_from_type"):
        rebuilt = row(name("torch._utils", "_rebuild_tensor_v2"), name("torch", "Tensor"), args, state)
        yield function, name("torch._tensor", function) + rebuilt + b"R"


@case(5800, REFUSED, says="changes a tensor after it was made")
def _tensors_that_are_changed_later(canary: Path) -> Files:
    other = row(storage("0", 4), whole(2), wholes([2]), wholes([1]))
    good = tensor([4], [1])
    parameter = name("torch.nn.parameter", "Parameter") + row(good)
    hooked = row(b"\x89", b"\x89", HOOKS) + b"b"
    for title, changed in {
        "tensor": good + other + b"b",
        "storage": storage("0", 4) + table({"_untyped_storage": storage("0", 4)}) + b"b",
        "attributes": good + table({"data": tensor([2], [1], stored=4)}) + b"b",
        "one": good + row(tensor([2], [1], stored=4)) + b"b",
        "three": good + row(storage("0", 4), whole(0), wholes([2])) + b"b",
        "called": parameter + b"R" + other + b"b",
        "new": parameter + b"\x81" + other + b"b",
        "buffer": name("torch.nn.parameter", "Buffer") + row(good) + b"\x81" + other + b"b",
        "object": b"(" + name("torch.nn.parameter", "Parameter") + good + b"o" + other + b"b",
        "instance": b"(" + good + b"itorch.nn.parameter\nParameter\n" + other + b"b",
        "twice": parameter + b"\x81" + hooked + other + b"b",
        "five": parameter + b"\x81" + row(tensor([2], [1], stored=4), b"N", HOOKS, b"\x89", b"\x89") + b"b",
    }.items():
        yield f"{title}.ckpt", checkpoint(pickle(table({"weight": changed})), FOUR)
    recalled = table({"weight": good + b"q\7"}) + b"h\7" + other + b"b0"
    yield "recalled.ckpt", checkpoint(pickle(recalled), FOUR)
    small = tensor([2], [1], stored=4)
    for index, state in enumerate(
        (
            table({"note": text("plain"), "data": small}),
            row(b"N", table({"data": small})),
            row(table({"note": text("plain")}), b"}", b"N"),
            table([(whole(1), small)]),
            other,
            small,
            table({"requires_grad": b"\x88"}),
            table({"__class__": name("torch.nn.parameter", "Parameter")}),
        )
    ):
        for title, changed in stated(state):
            yield f"{title}-{index}.ckpt", checkpoint(pickle(table({"weight": changed})), FOUR)


@case(5801, REFUSED, says="into others")
def _a_tensor_that_is_turned_into_another_dtype(canary: Path) -> Files:
    args = (tensor([4], [1]), name("torch", "int8"), text("cpu"), b"\x89")
    yield (
        "x.ckpt",
        checkpoint(
            pickle(table({"weight": call("torch._utils", "_rebuild_device_tensor_from_cpu_tensor", *args)})), FOUR
        ),
    )


@case(5802, REFUSED, says="has no tensor")
def _a_parameter_of_nothing(canary: Path) -> Files:
    empty = name("torch.nn.parameter", "Parameter") + b")\x81"
    filled = row(storage("0", 4), whole(0), wholes([4]), wholes([1])) + b"b"
    yield "x.ckpt", checkpoint(pickle(table({"good": tensor([4], [1]), "weight": empty + filled})), FOUR)


@case(5803, REFUSED, says="more of its parts")
def _a_state_that_is_looked_at_again_and_again(canary: Path) -> Files:
    state = table([(text(f"{index}"), b"N") for index in range(50_000)])
    for title, given in (("attributes", state), ("slots", row(b"N", state))):
        args = row(tensor([4], [1]), b"\x89", HOOKS, given)
        again = b"](" + b"h\xffh\xfeR0" * 10_000 + b"e"
        start = name("torch._utils", "_rebuild_parameter_with_state") + b"q\xff" + args + b"q\xfe"
        yield f"{title}.ckpt", checkpoint(pickle(start + again), FOUR)


# --- size and depth --------------------------------------------------------------------------------------------------


@case(65, CLEAN)
def _billions_of_laughs(canary: Path) -> Files:
    laugh = text("ha" * 50)
    yield "dup.pkl", pickle(laugh + b"2\x86" * 60)
    yield "memo.pkl", pickle(b"](" + laugh * 10 + b"e" + LAUGHS)


LAUGHS = b"".join(b"q%c0](" % index + (b"h%c" % index) * 10 + b"e" for index in range(40))


@case(6502, REFUSED)
def _billions_of_names_for_one_tensor(canary: Path) -> Files:
    yield "tensors.ckpt", checkpoint(pickle(table({"state_dict": tensor([4], [1]) + LAUGHS})), FOUR)


@case(66, CLEAN, UNUSUAL)
def _circles(canary: Path) -> Files:
    yield "list.pkl", pickle(b"]q\0h\0a")
    yield "dict.pkl", pickle(b"}q\0" + text("x") + b"h\0s")
    yield "both.ckpt", checkpoint(pickle(b"}q\0" + text("x") + b"h\0s" + text("w") + tensor([4], [1]) + b"s"), FOUR)
    thing = name("mycorp.net", "Foo") + b")\x81q\0}" + text("me") + b"h\0sb"
    yield "object.pkl", pickle(thing)


@case(67, REFUSED)
def _depth(canary: Path) -> Files:
    yield "tuple.pkl", pickle(b")" + b"\x85" * 100_000)
    yield "list.ckpt", checkpoint(pickle(b"]" * 100_000 + b"a" * 99_999), FOUR)
    yield "marks.pkl", pickle(b"(" * 1_000_000 + b"t" * 1_000_000)
    yield "dicts.pkl", pickle((b"}" + text("x")) * 50_000 + b"N" + b"s" * 50_000)
    yield "tensor.pkl", checkpoint(pickle(tensor([4], [1]) + b"\x85" * 100_000), FOUR)
    start = name("torch._tensor", "_rebuild_from_type_v2") + b"q\x01" + name("torch", "Tensor") + b"q\x020)q\x030"
    wrapped = b"(h\x01h\x02h\x03}tq\x030" * 5_000
    yield "rebuilt.ckpt", checkpoint(pickle(start + wrapped + b"h\x03R"), FOUR)


@case(68, REFUSED, says="a number in it")
def _numbers_without_end(canary: Path) -> Files:
    yield "long4.pkl", pickle(b"\x8b" + struct.pack("<I", 1 << 31) + b"\1")
    yield "line.pkl", pickle(b"L" + b"9" * 1_000_000 + b"L\n")
    yield "int.pkl", pickle(b"I" + b"9" * 1_000_000 + b"\n")
    yield "float.pkl", pickle(b"F" + b"9" * 1_000_000 + b"\n")
    yield "negative.pkl", pickle(b"\x8b\xff\xff\xff\xff\1")


@case(6800, REFUSED, says="programs read differently")
def _numbers_that_programs_read_differently(canary: Path) -> Files:
    spellings = ("010", "0x10", "0o7", "1_0", "+1", " 1", "1 ", "1\r", "-0", "-01", "001", "", "0b1", "1L")
    for index, spelling in enumerate(spellings):
        yield f"int-{index}.ckpt", holding(f"I{spelling}\n".encode())
        yield f"get-{index}.ckpt", holding(f"Np1\np8\np10\n0g{spelling}\n".encode())
        yield f"put-{index}.ckpt", holding(f"Np{spelling}\n".encode())
    for index, spelling in enumerate(("00", "01", *spellings[:-1], "1LL", "L")):
        yield f"long-{index}.ckpt", holding(f"L{spelling}\n".encode())
    for index, spelling in enumerate(("1_0", " 1", "1\r", "+1.0", "0x1p3", "infinity", "", "NaN")):
        yield f"float-{index}.ckpt", holding(f"F{spelling}\n".encode())


@case(6802, REFUSED, says="not as any pickle is written")
def _opcodes_of_odd_parts(canary: Path) -> Files:
    yield "arguments.ckpt", holding(call("torch._utils", "_rebuild_tensor_v2", whole(1)))
    yield "text.ckpt", holding(b"X\1\0\0\0\xff")
    yield "escape.ckpt", holding(b"S'\\x1'\n")


@case(6801, REFUSED, says="below zero")
def _places_below_zero(canary: Path) -> Files:
    yield "put.ckpt", holding(b"Np-1\n")
    yield "get.ckpt", holding(b"g-1\n")


@case(69, CLEAN, REFUSED)
def _keys_with_one_hash(canary: Path) -> Files:
    modulus = (1 << 61) - 1  # every multiple of it has the hash 0
    keys = b"".join(whole(modulus * index) + b"N" for index in range(1, 400_000))
    yield "flood.pkl", pickle(b"}(" + keys + b"u")
    yield "flood.ckpt", checkpoint(pickle(table({"state_dict": STATE, "x": b"}(" + keys + b"u"})), FOUR)


@case(6500, CLEAN, REFUSED)
def _as_much_as_one_file_can_make(canary: Path) -> Files:
    yield "lists.pkl", pickle(b"]" * 5_000_000)
    yield "pairs.pkl", pickle((b"}" + text("k") + b"Ns") * 1_200_000)
    yield "words.pkl", pickle(b"\x8c\x02hm" * 4_999_990)
    yield "numbers.pkl", pickle(b"M\xff\xff" * 4_999_990)
    yield "memo.pkl", pickle(b"]\x94" * 2_400_000, 4)
    yield "sets.pkl", pickle(b"](" + b"\x8f" * 4_000_000 + b"e", 4)
    yield "objects.pkl", pickle(name("mycorp", "Foo") + b"q\0(" + b"h\0)R" * 1_600_000 + b"t")
    yield "named.pkl", pickle(b"(" + b"".join(b"cmycorp\nF%d\n" % index for index in range(100_000)) + b"t")
    yield "bytes.pkl", pickle(b"B" + struct.pack("<I", 60 << 20) + bytes(60 << 20), 3)
    yield "sized.pkl", bytes([0x80, 2]) + bytes(65 << 20)
    yield "fitting-lists.pkl", pickle(b"(" + b"]" * 490_000 + b"l")
    yield "fitting-dicts.pkl", pickle(b"(" + b"}\x94" * 490_000 + b"l", 4)
    yield (
        "fitting-words.pkl",
        pickle(b"(" + b"".join(b"\x8c\3%03d" % (index % 1000) for index in range(490_000)) + b"l", 4),
    )
    yield "fitting-objects.pkl", pickle(name("mycorp", "Foo") + b"q\0(" + b"h\0)R" * 1_130_000 + b"l")
    yield "fitting-tuples.pkl", pickle(b"N" + b"\x85" * 3_390_000)


@case(6501, REFUSED, says="more of its parts")
def _copies_without_end(canary: Path) -> Files:
    words = b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20)
    encoded = name("_codecs", "encode") + b"q\0" + b"(" + words + text("latin1") + b"tq\1" + b"h\0h\1R" * 3_000
    yield "bytes.ckpt", checkpoint(pickle(b"(" + encoded + b"t"), FOUR)
    copied = name("__builtin__", "list") + b"q\0(](" + b"N" * 200_000 + b"etq\1" + b"h\0h\1R" * 1_500
    yield "lists.ckpt", checkpoint(pickle(b"(" + copied + b"t"), FOUR)
    paired = (
        name("collections", "OrderedDict") + b"q\0(}(" + (text("k") + b"N") * 100_000 + b"utq\1" + b"h\0h\1R" * 1_500
    )
    yield "tables.ckpt", checkpoint(pickle(b"(" + paired + b"t"), FOUR)


@case(6503, REFUSED, says="more of its parts")
def _copies_of_lists_and_dictionaries(canary: Path) -> Files:
    copied = name("builtins", "set") + b"q\0((" + whole(1) * 500_000 + b"ltq\1(" + b"h\0h\1R" * 2_000 + b"t"
    yield "set.pkl", pickle(copied)
    paired = name("collections", "OrderedDict") + b"q\0((" + whole(1) * 500_000 + b"dtq\1(" + b"h\0h\1R0" * 5_000 + b"t"
    yield "table.pkl", pickle(paired)
    words = text("a" * (8 << 20))
    yield (
        "bytes.pkl",
        pickle(name("_codecs", "encode") + b"q\0(" + words + text("utf-8") + b"tq\1(" + b"h\0h\1R" * 20 + b"t"),
    )
    inner = name("torch._tensor", "_rebuild_from_type_v2") + b"(h\0" + name("torch", "Tensor") + b"h\1}tR"
    yield "inner.pkl", pickle(copied[:-1] + inner + b"t")


@case(6504, CLEAN, says="no tensors")
def _metadata_made_of_references(canary: Path) -> Files:
    word = text("s" * (1 << 20))
    yield "text.pkl", pickle(table({"a": b"(" + word + b"q\0" + b"h\0" * 4_000 + b"l"}))
    shorter = text("é" * 30_000) + b"q\0" + whole(1)
    lists = b"".join(text(f"k{index}") + b"(" + b"h\0" * 10 + b"l" for index in range(20_000))
    yield "lists.pkl", pickle(b"}(" + shorter + lists + b"u")


@case(6505, REFUSED, says="too long")
def _long_keys_by_reference(canary: Path) -> Files:
    yield "accents.pkl", pickle(b"}(" + text("é" * (1 << 19)) + b"q\0N" + b"h\0N" * 20_000 + b"u")
    yield (
        "bytes.pkl",
        pickle(b"}(B" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20) + b"q\0N" + b"h\0N" * 20_000 + b"u", 3),
    )


@case(6508, CLEAN, tensors=200)
def _long_keys_that_are_looked_through(canary: Path) -> Files:
    first = b"(" + tensor([4], [1]) + b"lq\5"
    keys = b"".join(text(f"{index}" + "random_stat" * 10_000) + b"h\5" for index in range(199))
    yield "keys.ckpt", checkpoint(pickle(b"}(" + text("a") + first + keys + b"u"), FOUR)


@case(6506, CLEAN)
def _keys_by_reference(canary: Path) -> Files:
    yield "accents.pkl", pickle(b"}(" + text("é" * (1 << 16)) + b"q\0N" + b"h\0N" * 240_000 + b"u")
    yield (
        "numbers.pkl",
        pickle(b"}(\x8b" + struct.pack("<i", 1000) + b"\x7f" * 1000 + b"q\0N" + b"h\0N" * 240_000 + b"u"),
    )


@case(6507, REFUSED, says="over and over")
def _large_tables_by_reference(canary: Path) -> Files:
    junk = b"}(" + b"".join(whole(1000 + index) + b"N" for index in range(300_000)) + b"u"
    parts = {"_parameters": table({"w": tensor([4], [1])}), "_modules": b"}", "_buffers": b"}", "junk": junk}
    network = name("torch.nn.modules.module", "Module") + b")\x81" + table(parts) + b"bq\5"
    yield "list.ckpt", checkpoint(pickle(b"(" + network + b"h\5" * 100_000 + b"l"), FOUR)
    keyed = b"".join(text(f"k{index}") + b"h\5" for index in range(50_000))
    yield "table.ckpt", checkpoint(pickle(b"}(" + text("a") + network + keyed + b"u"), FOUR)
    nothing = b"(" + whole(1) * 300_000 + tensor([4], [1]) + b"lq\5"
    yield "nothing.ckpt", checkpoint(pickle(b"(" + nothing + b"h\5" * 100_000 + b"l"), FOUR)


@case(6509, REFUSED, says="cut short")
def _a_constant_longer_than_any_file(canary: Path) -> Files:
    for length in (1 << 62, 1 << 63, (1 << 64) - 1):
        for opcode in (b"\x8e", b"\x96", b"\x8d"):
            yield (
                f"{opcode.hex()}-{length}.pkl",
                b"\x80\x05" + opcode + struct.pack("<Q", length) + b"\x80\x04\x95" + bytes(40),
            )


@case(6510, REFUSED, says="a text in it takes")
def _texts_that_take_four_times_their_bytes(canary: Path) -> Files:
    half = "a" * (31 << 20)
    growing = f"{half}ā{half}🎨"
    yield "text.pkl", pickle(text(growing))
    yield "escaped.pkl", pickle(b"V%b\\u0101%b\\U0001f3a8\n" % (half.encode(), half.encode()))
    yield "deflated.ckpt", archive([Entry("archive/data.pkl", pickle(text(growing)), method=8)])


@case(6511, REFUSED, says="more memory than those of any model")
def _many_texts_that_take_four_times_their_bytes(canary: Path) -> Files:
    yield "short.pkl", pickle(b"(" + text("a" * 127 + "🎨") * 450_000 + b"l")
    yield "long.pkl", pickle(b"(" + text("a" * (1 << 20) + "🎨") * 60 + b"l")
    yield "quoted.pkl", pickle(b"(" + b"S'%b'\n" % ("a" * (1 << 20) + "🎨").encode() * 60 + b"l")


@case(6512, CLEAN)
def _long_texts_that_are_bytes(canary: Path) -> Files:
    latin = "".join(map(chr, range(256))) * (1 << 17)
    yield "protocol2.pkl", pickle(call("_codecs", "encode", text(latin), text("latin1")))
    yield "python2.pkl", pickle(b"T" + struct.pack("<I", 60 << 20) + bytes(range(256)) * (60 << 12))
    half = b"a" * (31 << 20)
    yield "quoted.pkl", pickle(b"S'%b%b%b%b'\n" % (half, "ā".encode(), half, "🎨".encode()))


@case(6513, REFUSED, says="more of its parts")
def _copies_of_wide_texts(canary: Path) -> Files:
    encoded = name("_codecs", "encode") + b"q\0(" + text("🎨" * (1 << 20)) + text("utf-8") + b"tq\1("
    yield "wide.pkl", pickle(b"(" + encoded + b"h\0h\1R" * 60 + b"tt")


@case(6514, REFUSED, says="too long")
def _long_names_of_attributes(canary: Path) -> Files:
    once = name("builtins", "getattr") + b"q\0" + name("my", "Foo") + text("b" * 100_000) + b"\x86q\1"
    yield "many.ckpt", checkpoint(pickle(once + b"](" + b"h\0h\1R" * 1_130_000 + b"e"))


@case(6515, REFUSED, says="more calls")
def _many_calls(canary: Path) -> Files:
    rebuilt = name("torch._utils", "_rebuild_tensor_v2")
    args = row(storage("0", 4), whole(0), wholes([1] * 64), wholes([1] * 64), b"\x89", HOOKS)
    wrapped = row(rebuilt, name("torch", "Tensor"), args, b"}")
    attribute = row(name("my", "Foo"), text("bar"))
    for title, function, given in (
        ("tensors", rebuilt, args),
        ("subclasses", name("torch._tensor", "_rebuild_from_type_v2"), wrapped),
        ("attributes", name("builtins", "getattr"), attribute),
        ("objects", name("my", "Foo"), b")"),
        ("groups", name("my", "foo"), row(*[wholes(range(4))] * 4)),
        ("numbers", name("my", "foo"), wholes(range(4))),
    ):
        again = b"](" + b"h\0h\1R" * 1_130_000 + b"e"
        yield f"{title}.ckpt", archive([Entry("archive/data.pkl", pickle(function + b"q\0" + given + b"q\1" + again)),
                                        Entry("archive/data/0", FOUR)])  # fmt: skip
    reference = storage("0", 4)[:-1] + b"q\0" + b"](" + b"h\0Q" * 1_690_000 + b"e"
    yield "references.ckpt", checkpoint(pickle(reference), FOUR)


@case(6900, REFUSED, says="too long")
def _names_of_gigabytes(canary: Path) -> Files:
    small = table({f"{index}": b"h\1" for index in range(100_000)})
    tensors = tensor([4], [1])[:-1] + b"Rq\x010"
    yield "names.ckpt", checkpoint(pickle(tensors + table({"k" * 1_000_000: small})), FOUR)


@case(70, REFUSED)
def _cut_short(canary: Path) -> Files:
    state = OrderedDict((f"layer.{index}", benign.noise(64, 32, seed=index)) for index in range(8))
    for kind, data in (
        ("zip", benign.saved(state)),
        ("legacy", benign.saved(state, _use_new_zipfile_serialization=False)),
    ):
        for size in (*range(4096, len(data), 4096), 1, 2, 100, len(data) - 1):
            yield f"{kind}-{size}", data[:size]


# --- other things ----------------------------------------------------------------------------------------------------


@case(71, REFUSED)
def _error_pages(canary: Path) -> Files:
    yield "html.ckpt", b"<!DOCTYPE html><html><title>403 Forbidden</title></html>"
    yield "pointer.ckpt", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4265380512\n"
    yield "json.ckpt", b'{"error": "Access to this model is restricted"}'


@case(72, REFUSED, DANGEROUS)
def _other_formats_under_a_wrong_name(canary: Path) -> Files:
    yield "evil.safetensors", pickle(evil(canary))
    yield "picture.pt", b"\x89PNG\r\n\x1a\n" + bytes(100)


@case(7200, CLEAN, tensors=1)
def _by_content_whatever_the_name(canary: Path) -> Files:
    yield "model.safetensors", GOOD
    header = b'{"weight":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'
    yield "model.ckpt", struct.pack("<Q", len(header)) + header + FOUR


def _safetensors(data: bytes, length: int) -> bytes:
    """One tensor of bytes, behind a header that is padded to a length of our choice."""
    header = b'{"weight":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % (len(data), len(data))
    return struct.pack("<Q", length) + header.ljust(length) + data


@case(7201, REFUSED, says="also a pickle")
def _safetensors_that_are_a_pickle(canary: Path) -> Files:
    attack = protocol0("os", "system", f"echo > '{canary}'")
    yield "unicode.pt", _safetensors(b"\n1" + attack, 0x5628)  # MARK and UNICODE, which takes the header for a text
    yield "unicode-first.pt", _safetensors(b"\n0" + attack, 0x4056)
    yield "int.pt", _safetensors(b"\n0" + attack, 0x49)  # INT, whose number a zero byte ends
    yield "binint.pt", _safetensors(b"\n0" + attack, 0x56004B)  # BININT1 and then UNICODE
    yield "long.pt", _safetensors(bytes(1 << 20) + b"\n0" + attack, 0x56)
    yield "marks.pt", _safetensors(b"\n1" + b"(" * 2_000 + attack, 0x5628)  # more of them than we allow a pickle
    yield "padded.pt", _safetensors(b"\n1" + b"N0" * 20_000 + attack, 0x5628)
    stacked = b"\x8c\2osq\0\x8c\6system" + b"\x93" + b"(V%b\ntR." % f"echo > '{canary}'".encode()
    yield "stacked.pt", _safetensors(b"\n1" + stacked, 0x5628)
    yield "written.pt", _safetensors(b"\n1S'\\x6fs'\nV\\u0073ystem\n\x93)R.", 0x5628)
    yield "framed.pt", _safetensors(b"\n1" + frame(stacked), 0x5628)


@case(7202, REFUSED, says="also a pickle")
def _gguf_that_is_a_pickle(canary: Path) -> Files:
    attack = b"\n0" + protocol0("os", "system", f"echo > '{canary}'")
    count = 0x5600  # BINFLOAT takes GGUF, the version and a byte of this number, whose other one is UNICODE
    tensors = [gguf_files.tensor(f"t{index}", [0]) for index in range(count)]
    yield "model.pt", gguf_files.file([gguf_files.key(attack, gguf_files.U32, 1)], tensors)


@case(7203, REFUSED, says="also a tar archive")
def _safetensors_that_are_a_tar_archive(canary: Path) -> Files:
    inner = tar_block("pickle", b"x" * 30) + pickle(evil(canary)).ljust(512, b"\0")
    block = bytearray(_safetensors(inner, 504))
    block[148:156] = b" " * 8
    block[148:156] = b"%06o  " % sum(block[:512])
    header = block[8:512]
    assert header[140:148] == block[148:156]
    yield "model.pt", bytes(block)


@case(7204, REFUSED, says="also a zip archive")
def _safetensors_that_are_a_zip_archive(canary: Path) -> Files:
    inner = checkpoint(pickle(evil(canary)))
    yield "model.pt", _safetensors(inner, 504)
    placed = archive(members(pickle(evil(canary))), before=_safetensors(bytes(1000), 504)[:-1000])
    yield "placed.pt", placed[:8] + _safetensors(placed[512:], 504)[8:512] + placed[512:]


@case(7205, CLEAN, tensors=1)
def _safetensors_with_four_bytes_of_a_zip_archive(canary: Path) -> Files:
    yield "model.safetensors", _safetensors(bytes(1000) + b"PK\5\6" + bytes(range(200)), 504)


CASES = {each.number: each for each in _CASES}
