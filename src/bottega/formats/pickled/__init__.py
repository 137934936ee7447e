"""Pickle checkpoints (`.ckpt .pt .pth .bin`), read as data: one parse, nothing is ever called, nothing is imported.

A file is clean (its pickle names nothing but what tensors are made of), unusual (it names classes that Bottega does not
know, or calls such functions; they are ignored), or refused: with DangerousModel where what it names could run code,
with FormatError where it is broken or ambiguous. Sparse tensors refuse their file wherever in it they lie, because
whether their indices lie can't be told without reading them; tensors that are quantised, nested or otherwise no plain
numbers are left out by name, and the rest can be used.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bottega.errors import DangerousModel, FormatError
from bottega.formats.garbage import uncollected
from bottega.formats.header import Header, Packed, Safety, TensorInfo, shown
from bottega.formats.pickled import legacy
from bottega.formats.pickled.archive import Archive, Member, read_archive, unpack
from bottega.formats.pickled.machine import Machine
from bottega.formats.pickled.names import DANGEROUS, is_function, is_script
from bottega.formats.pickled.tree import Flat, flatten
from bottega.formats.pickled.values import Broken, CutShort, Poisonous, Sparse, Storage
from bottega.formats.polyglot import other_archive
from bottega.formats.sniff import OTHER_RUNTIME, refusal, sniff, unreadable

MAX_PICKLE = legacy.MAX_PICKLE

_BROKEN = (ValueError, IndexError, KeyError, struct.error, zlib.error)
_DAMAGED = "the file is damaged or was made to mislead: get a .safetensors version of this model"
_CUT = "the download probably stopped halfway: download it again"
_SPARSE = "save its sparse tensors as dense ones (torch's to_dense), or get a .safetensors version of this model"
_EVIL = "Bottega runs nothing of it; delete it, or get a .safetensors version of this model"
_MANY = 8  # names that are told before "and others"

# What torch reads of an archive, beside data/*.
_READ = frozenset({"data.pkl", "byteorder", "version", "constants.pkl"})

# What torch and TorchScript write beside data/*, of which it reads those above.
_WRITTEN = _READ | {"", ".format_version", ".storage_alignment", ".data/", ".data/serialization_id", ".data/version"}
_SCRIPT = (
    "code/", "extra/", "constants/", "tensors/", "traced_inputs/", "traced_inputs.pkl", "bytecode.pkl",
    "mobile_debug_handles.pkl",
)  # fmt: skip
_PICKLES = (".pkl", ".pickle")
_MAX_PICKLES = 8  # beside the checkpoint's own

_Place = tuple[int, Packed | None]  # where a storage begins; within what is unpacked, if it is packed


def read_header(path: str | Path) -> Header:
    """The tensors of a pickle checkpoint, their names as in a state dict, with what is said of them beside them."""
    path = Path(path)
    kind = sniff(path)
    if kind == "special":
        raise refusal(path, kind)
    try:
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise refusal(path, "special")
            magic = file.read(2)
            read = _read_archive if magic == b"PK" else _read_bare
            with uncollected():
                header = read(path, file, before.st_size)
            after = os.fstat(file.fileno())
    except OSError as error:
        raise unreadable(path, error) from error
    except MemoryError:
        raise FormatError(path, "it needs more memory than a model's header should", _DAMAGED) from None
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise FormatError(path, "it was changed while it was read", "try again when it is complete")
    return header


def read_text_pickle(path: Path) -> Header | None:
    """The header of a pickle of protocol 0 or 1, which begins like any text; None if the file is no pickle."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_PICKLE:
                return None
            return _read_bare(path, file, size)
    except OSError as error:
        raise unreadable(path, error) from error
    except DangerousModel:
        raise
    except (FormatError, MemoryError):
        return None


# --- the two containers ----------------------------------------------------------------------------------------------


def _read_archive(path: Path, file: BinaryIO, size: int) -> Header:
    try:
        archive = read_archive(file, size)
        members = archive.members
        prefix = _prefix(path, archive)
        inner = members[f"{prefix}data.pkl"]
        data = unpack(file, inner, MAX_PICKLE)
        order = b"little"
        if f"{prefix}byteorder" in members:
            order = unpack(file, members[f"{prefix}byteorder"], len("little"))
        if order not in (b"little", b"big"):
            raise Broken("its byteorder is neither little nor big")
    except CutShort as error:
        raise FormatError(path, f"cut short: {error}", _CUT) from None
    except _BROKEN as error:
        raise FormatError(path, f"its zip archive is refused: {error}", _DAMAGED) from None

    machine = Machine()
    with _refusing(path, machine):
        root, end = machine.run(data)
        if end != len(data):
            raise Broken(f"{len(data) - end:,} bytes follow the end of its pickle")
        folder = f"{prefix}data/"
        places = {key: _place(members.get(folder + key), storage) for key, storage in machine.storages.items()}
        flat = flatten(root, machine.stored)
        stored = {folder + key for key in machine.storages}
        others = [name.removeprefix(prefix) for name in sorted(members.keys() - stored)]
        script = "constants.pkl" in others or any(name.startswith("code/") for name in others)
        beside = _beside(others, archive, script)
        if unread := _judge_others(others, archive, prefix, machine, file):
            beside.append(f"it holds other pickles, which could not be read to the end: {_listed(unread)}")
    notes = []
    if inner.crc and zlib.crc32(data) != inner.crc:
        notes.append("the checksum of its pickle is wrong")
    if script and not flat.tensors and any(name.startswith("constants/") for name in others):
        notes.append("its weights are constants of its script, where they have no names: save its state dict instead")
    return _header(path, machine, flat, places, notes, script=script, beside=beside, big_endian=order == b"big")


def _read_bare(path: Path, file: BinaryIO, size: int) -> Header:
    machine, read = legacy.read(file, size)
    with _refusing(path, machine):
        if isinstance(read, Exception):
            raise read
        if other := other_archive(file, size):
            raise Broken(f"it is also {other}, in which other programs may find something else")
        places: dict[str, _Place] = {}
        for key, storage in machine.storages.items():
            if key not in read.storages:
                raise Broken("a storage that its tensors need is missing")
            start, end = read.storages[key]
            if storage.first + storage.nbytes > end - start:
                raise Broken("a storage in it is shorter than it claims")
            places[key] = start, None
        flat = flatten(read.root, machine.stored)
    return _header(path, machine, flat, places, [])


@contextmanager
def _refusing(path: Path, machine: Machine) -> Iterator[None]:
    """Raise what the work on a pickle ended with, in words; that it names what is dangerous comes before all else."""
    failure: Exception | None = None
    try:
        yield
    except _BROKEN as error:
        failure = error.with_traceback(None)  # which would keep all that was read
    names = machine.judged(DANGEROUS)
    if names or isinstance(failure, Poisonous):
        why = f"it names {_listed(names)}" if names else str(failure)
        raise DangerousModel(path, f"it would run code in a program that trusts it: {why}", _EVIL, names)
    if isinstance(failure, Sparse):
        raise FormatError(path, str(failure), _SPARSE)
    if isinstance(failure, CutShort):
        raise FormatError(path, f"cut short: {failure}", _CUT)
    if isinstance(failure, IndexError | struct.error):  # of the bytes that an opcode needs, some are not there
        raise FormatError(path, "cut short: it ends before its pickle does", _CUT)
    if isinstance(failure, KeyError):
        failure = Broken("it recalls what it never remembered")
    elif failure is not None and not isinstance(failure, Broken):
        failure = Broken("something in it is not as any pickle is written")
    if failure is not None:
        raise FormatError(path, f"its pickle is refused: {failure}", _DAMAGED)


def _prefix(path: Path, archive: Archive) -> str:
    """The folder of an archive in which torch keeps its checkpoint, with a slash; any other archive is refused.

    torch takes the folder of whatever its directory lists first, and looks for names without regard to capitals.
    """
    found = [name for name in archive.members if name.endswith("/data.pkl") and name.count("/") == 1]
    if not found:
        what, remedy = _other_archive(archive.members)
        raise FormatError(path, f"this is {what}, not a model that Bottega can read", remedy)
    if len(found) > 1:
        raise Broken("it holds two checkpoints")
    prefix = found[0].removesuffix("data.pkl")
    folder = f"{prefix}data/"
    for name in [name for name in archive.names if not name.startswith(folder)]:
        word = name.removeprefix(prefix)
        if not name.startswith(prefix):
            raise Broken(f"{shown(name)} in it lies outside of the checkpoint's folder {shown(prefix)}")
        if word.lower() != word and (word.lower() in _READ or word.lower().startswith("data/")):
            raise Broken(f"programs differ in what they take {shown(name)} in it for")
    return prefix


def _other_archive(members: Mapping[str, Member]) -> tuple[str, str]:
    """What a zip archive is that is no checkpoint, and what to do with it."""
    roots = {name.partition("/")[0] for name in members}
    if members and all(name.endswith(".npy") for name in members):
        return "a numpy archive (.npz)", "look for a .safetensors version of this model"
    if any(name.rpartition("/")[2] in ("archive_format", "serialized_exported_program.json") for name in members):
        return "a program that torch.export wrote (.pt2)", "get the weights alone"
    if any(name.endswith("/.data/extern_modules") for name in members):
        return "a torch.package, which holds Python code", "get the weights alone"
    if "[Content_Types].xml" in members:
        return "an Office document", "choose a model file"
    if "model.weights.h5" in members:
        return "a Keras model", "Bottega reads models of torch: get a .safetensors version"
    if "TF_LITE_PREFILL_DECODE" in members:
        return "a language model of MediaPipe's (.task)", OTHER_RUNTIME
    if "META-INF" in roots or "AndroidManifest.xml" in members:
        return "a Java or Android archive", "choose a model file"
    if any(name.endswith((".pkl", ".pickle")) for name in members):
        return "an archive with pickles in it that torch did not write", "get a .safetensors version of this model"
    return f"a zip archive of {len(members):,} files", "unpack it and choose the model inside"


def _beside(others: Sequence[str], archive: Archive, script: bool) -> list[str]:
    """What is unusual in an archive beside its checkpoint, of whose other members `others` are."""
    reasons = []
    if archive.embellished:
        reasons.append("there is more in its zip directory than torch writes: a comment, or fields of another kind")
    if unknown := [name for name in others if name not in _WRITTEN and not (script and name.startswith(_SCRIPT))]:
        reasons.append(f"it holds files that torch does not write: {_listed(unknown)}")
    return reasons


def _judge_others(names: Sequence[str], archive: Archive, prefix: str, machine: Machine, file: BinaryIO) -> list[str]:
    """Run what else in an archive is called a pickle, so that it is judged too; those that can't be read to the end."""
    pickles = [name for name in names if name != "data.pkl" and name.lower().endswith(_PICKLES)]
    unread = pickles[_MAX_PICKLES:]
    for name in pickles[:_MAX_PICKLES]:
        try:
            data = unpack(file, archive.members[prefix + name], MAX_PICKLE // _MAX_PICKLES)
            machine.storages.clear()  # each pickle has its own, in another folder
            at = 0
            for _ in range(_MAX_PICKLES):
                _, at = machine.run(data, at)
                if at == len(data):
                    break
            else:
                unread.append(name)
        except (Poisonous, Sparse):
            raise
        except _BROKEN:
            unread.append(name)
    return unread


def _place(member: Member | None, storage: Storage) -> _Place:
    """Where the bytes of a storage lie in an archive."""
    needed = storage.first + storage.nbytes
    if member is None:
        if needed:
            raise Broken(f"the bytes of its storage {shown(storage.key)} are missing")
        return 0, None
    if needed > member.size:
        raise Broken(f"its storage {shown(storage.key)} claims {needed:,} bytes, but {member.size:,} are there")
    if member.deflated:
        return 0, Packed(member.start, member.end, member.size)
    return member.start, None


def _header(
    path: Path,
    machine: Machine,
    flat: Flat,
    places: Mapping[str, _Place],
    notes: list[str],
    *,
    script: bool = False,
    beside: Sequence[str] = (),
    big_endian: bool = False,
) -> Header:
    tensors: dict[str, TensorInfo] = {}
    for name, tensor in flat.tensors.items():
        first, packed = places[tensor.key]
        start, end = first + tensor.start, first + tensor.end
        tensors[name] = TensorInfo(tensor.dtype, tensor.shape, path, start, end, tensor.strides, packed, big_endian)
    unreadable = [f"the tensor {shown(name)} {why}" for name, why in flat.unreadable.items()]
    if unreadable and not tensors:
        raise FormatError(path, f"Bottega can't read its tensors: {unreadable[0]}", "get a .safetensors version")
    if len(unreadable) > _MANY:
        unreadable = [*unreadable[:_MANY], f"and {len(unreadable) - _MANY} others"]
    notes += [f"left out: {each}" for each in unreadable]
    if flat.arrays:
        notes.append(f"left out: numpy arrays, which are no tensors: {_listed(flat.arrays)}")
    if flat.leftovers:
        notes.append(f"left out what training kept for itself: {_listed(flat.leftovers)}")
    if not tensors:
        notes.append("no tensors")
    safety = _safety(machine, script, beside)
    unread = tuple(name for name in (*flat.unreadable, *flat.arrays) if name not in tensors)
    return Header(path, "pickle", tensors, flat.metadata, notes=tuple(notes), unread=unread, safety=safety)


def _safety(machine: Machine, script: bool, beside: Sequence[str]) -> Safety:
    """What is told of a file that runs nothing: what it names, and what lies `beside` its checkpoint."""
    unusual = machine.unusual_names()
    names = [str(name) for name in unusual if not is_script(name.module)]
    reasons = []
    if script or len(names) < len(unusual):
        reasons.append("a TorchScript archive: its script is ignored")
    of_torch = [name for name in unusual if name.module.partition(".")[0] == "torch"]
    if networks := [str(name) for name in of_torch if not is_function(name.name)]:
        reasons.append(f"it holds whole networks and not only weights ({shown(networks[0])}): their code is not run")
    if functions := [str(name) for name in of_torch if is_function(name.name)]:
        reasons.append(f"it names functions of torch ({shown(functions[0])}): they are not called")
    if called := [str(name) for name in machine.unknown_calls()]:
        reasons.append(f"it calls a function that Bottega does not know: {_listed(called)}")
    if others := [name for name in names if not name.startswith("torch.") and name not in called]:
        reasons.append(f"it names what Bottega does not know and ignores: {_listed(others)}")
    if machine.hides_pickle:
        reasons.append("a pickle is hidden in a value of it: it is not read")
    reasons += beside
    return Safety("unusual" if reasons else "clean", tuple(names), tuple(reasons))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names[:_MANY])) + (" and others" if len(names) > _MANY else "")
