"""Tensors, and the few other things that a checkpoint needs, built from a pickle's calls without making any call.

Each maker stands for one function or class that torch, numpy or Python would have called; it takes the arguments that
are in the file, checks them, and gives back data.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

from bottega.formats.header import shown
from bottega.formats.pickled.names import (
    BYTES_OF_QUANTISED,
    DTYPE_OF_NAME,
    DTYPE_OF_STORAGE,
    OLD_TENSORS,
    TORCH_FUNCTIONS,
    is_unknown_class,
)
from bottega.formats.pickled.values import Broken, Name, Node, Poisonous, Sparse, Storage, Table, Tensor, Unreadable
from bottega.formats.tensor_bytes import BYTES_OF_ELEMENT

BYTES_OF_STORED = BYTES_OF_ELEMENT | BYTES_OF_QUANTISED
MAX_RANK = 64
MAX_NAME = 500
MAX_ELEMENTS = 1 << 48
# A view may repeat what is stored (stride 0), but not so often that a small file fills the memory.
MAX_EXPANSION = 16
FREE_EXPANSION = 1 << 20

Args = tuple[object, ...]
Maker = Callable[[Args], object]

# numpy's codes of numbers, as the letters of `struct`.
_NUMBERS = {
    "b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q", "f2": "e",
    "f4": "f", "f8": "d",
}  # fmt: skip

_CHANGED = "it changes a tensor after it was made"
# What torch.Tensor itself has, so that to set it changes the tensor, or fails.
_OWN_ATTRIBUTES = frozenset({
    "H", "T", "data", "device", "dtype", "grad", "grad_dtype", "grad_fn", "imag", "is_cpu", "is_cuda", "is_ipu",
    "is_leaf", "is_maia", "is_meta", "is_mkldnn", "is_mps", "is_mtia", "is_nested", "is_quantized", "is_sparse",
    "is_sparse_csr", "is_vulkan", "is_xla", "is_xpu", "itemsize", "layout", "mH", "mT", "name", "names", "nbytes",
    "ndim", "output_nr", "real", "requires_grad", "retains_grad", "shape", "volatile", "_backward_hooks", "_base",
    "_cdata", "_grad", "_grad_fn", "_has_symbolic_sizes_strides", "_post_accumulate_grad_hooks", "_python_dispatch",
    "_version",
})  # fmt: skip


def name_of(module: str, name: str) -> Name:
    """A name with what we know of it."""
    dtype = ""
    if module in ("torch", "torch.storage", "torch.cuda"):
        dtype = DTYPE_OF_STORAGE.get(name) or (DTYPE_OF_NAME.get(name, "") if module == "torch" else "")
    return Name(module, name, _MAKERS.get((module, name)), dtype)


def storage_of(identity: object) -> Storage | Name:
    """What torch saves by reference: a storage, or (in old files) the class of a network."""
    if type(identity) is not tuple or not 5 <= len(identity) <= 6:
        if type(identity) is tuple and len(identity) == 4 and identity[0] == "module" and type(identity[1]) is Name:
            return identity[1]
        raise Broken("a reference in it is none that torch writes")
    word, kind, key, _, count = identity[:5]
    if type(word) is not str or word != "storage" or type(kind) is not Name or type(key) is not str:
        raise Broken("a reference in it names no storage")
    dtype = kind.name if kind.module == "torch" and kind.name in BYTES_OF_QUANTISED else kind.dtype
    if not dtype:
        raise Broken(f"it keeps numbers in {kind}, which is no storage of torch")
    if type(count) is not int or not 0 <= count <= MAX_ELEMENTS:
        raise Broken("a storage in it has an impossible size")
    size = BYTES_OF_STORED[dtype]
    first = 0
    if len(identity) == 6 and identity[5] is not None:
        first, count = _storage_view(identity[5], count)
    return Storage(key, dtype, first * size, count * size)


def _storage_view(view: object, whole: int) -> tuple[int, int]:
    """First element and length of a storage that is part of another one (only very old files have them)."""
    if type(view) is not tuple or len(view) != 3:
        raise Broken("a storage in it looks into another one in an unknown way")
    first, count = view[1:]
    if type(first) is not int or type(count) is not int or first < 0 or count < 0 or first + count > whole:
        raise Broken("a storage in it reaches past the one that it looks into")
    return first, count


def farther(known: Storage, storage: Storage) -> Storage:
    """Which of two stretches of what is stored under one key reaches farther.

    Broken if they are of two dtypes: torch takes the first for all, and never writes such a file. Only of nothing it
    has views in any dtype.
    """
    if known.dtype != storage.dtype and (known.nbytes or storage.nbytes):
        raise Broken(f"its storage {shown(storage.key)} has numbers of two kinds, {known.dtype} and {storage.dtype}")
    return storage if known.first + known.nbytes < storage.first + storage.nbytes else known


# --- tensors ---------------------------------------------------------------------------------------------------------


def _tensor(args: Args) -> Tensor:
    """torch._utils._rebuild_tensor(storage, offset, size, stride)."""
    storage, offset, shape, strides = args
    if type(storage) is not Storage or storage.dtype not in BYTES_OF_ELEMENT:
        raise Broken("a tensor in it has no storage")
    return view(storage, storage.dtype, offset, shape, strides)


def make_tensor_v2(args: Args) -> Tensor | Unreadable:
    """torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata])."""
    if len(args) == 7 and _is_transformed(args[6]):
        return _transformed
    storage, offset, shape, strides, _, _, *_ = args
    if type(storage) is not Storage or storage.dtype not in BYTES_OF_ELEMENT:
        raise Broken("a tensor in it has no storage")
    return view(storage, storage.dtype, offset, shape, strides)


def _tensor_v3(args: Args) -> Tensor | Unreadable:
    """torch._utils._rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype[, metadata])."""
    if len(args) == 8 and _is_transformed(args[7]):
        return _transformed
    storage, offset, shape, strides, _, _, dtype, *_ = args
    if type(storage) is not Storage or storage.dtype not in BYTES_OF_ELEMENT:
        raise Broken("a tensor in it has no storage")
    if type(dtype) is not Name or dtype.name not in DTYPE_OF_NAME:
        raise Broken("a tensor in it has an unknown dtype")
    return view(storage, dtype.dtype, offset, shape, strides)


_transformed = Unreadable("is stored as the conjugate or negative of what it is")


def _is_transformed(metadata: object) -> bool:
    """Whether torch would conjugate or negate the numbers when they are read; any value but False counts as true."""
    return type(metadata) is Table and any(value is not False for value in metadata[1::2])


def view(storage: Storage, dtype: str, offset: object, shape: object, strides: object) -> Tensor:
    """A tensor, once it is certain that all its numbers lie within its storage."""
    if type(offset) is not int or type(shape) is not tuple or type(strides) is not tuple:
        raise Broken("a tensor's offset, shape or strides are no numbers")
    rank = len(shape)
    if rank != len(strides) or rank > MAX_RANK or offset < 0:
        raise Broken("a tensor has an impossible shape, strides or offset")
    elements, last, plain = 1, offset, True
    for size, stride in zip(shape[::-1], strides[::-1]):  # noqa: B905  the lengths are known to be equal
        if type(size) is not int or type(stride) is not int or size < 0 or stride < 0:
            raise Broken("a tensor has an impossible shape or strides")
        if size != 1:
            if stride != elements:
                plain = False
            last += (size - 1) * stride
            elements *= size
    first = storage.first
    if not elements:
        if math.prod(filter(None, shape)) > MAX_ELEMENTS:
            raise Broken("a tensor has an impossible shape")
        return Tensor(storage.key, dtype, first, first, shape, None)
    item = BYTES_OF_ELEMENT[dtype]
    if (last + 1) * item > storage.nbytes:
        raise Broken("a tensor reaches past the end of its storage")
    if elements > MAX_ELEMENTS or elements * item > max(FREE_EXPANSION, MAX_EXPANSION * storage.nbytes):
        raise Broken(f"a tensor of {elements:,} numbers is made of a storage of {storage.nbytes:,} bytes")
    return Tensor(
        storage.key, dtype, first + offset * item, first + (last + 1) * item, shape, None if plain else strides
    )


def _first(args: Args) -> object:
    """What the first argument is: a parameter is its tensor, whatever else is said of it."""
    if not args:
        raise Broken("a parameter in it has no tensor")
    return args[0]


def _parameter_with_state(args: Args) -> object:
    """torch._utils._rebuild_parameter_with_state(tensor, requires_grad, hooks, state)."""
    tensor, _, _, state = args
    _check_attributes(state)
    return tensor


def _on_device(args: Args) -> object:
    """torch._utils._rebuild_device_tensor_from_cpu_tensor(tensor, dtype, device, requires_grad)."""
    tensor, dtype, _, _ = args
    if type(tensor) is Tensor and (
        type(dtype) is not Name or dtype.name not in DTYPE_OF_NAME or dtype.dtype != tensor.dtype
    ):
        raise Broken(f"it turns the numbers of a tensor, which are {tensor.dtype}, into others")
    return tensor


def _of_type(args: Args) -> object:
    """torch._tensor._rebuild_from_type_v2(function, type, arguments, state): a tensor's subclass."""
    function, _, inner, state = args
    if type(function) is not Name or type(inner) is not tuple or function.make in COPYING or function.make in STATED:
        raise Broken("a tensor in it is rebuilt in an unknown way")
    if function.make is None:
        return Unreadable(f"is rebuilt by {function}")
    made = function.make(inner)
    if type(made) is Tensor:
        _check_attributes(state)
    return made


def parts_of_state(state: object) -> Args:
    """The attributes of an object's state, and those of its slots, if it has any."""
    return state if type(state) is tuple and len(state) == 2 else (state,)


def _check_attributes(state: object) -> None:
    """Refuse a tensor's state that is more than attributes of somebody's own: it could put other numbers in it."""
    for part in parts_of_state(state):
        if part is not None and type(part) is not Table:
            raise Broken(_CHANGED)
        for key in part[::2] if part else ():
            if type(key) is not str or key in _OWN_ATTRIBUTES or key.startswith("__"):
                raise Broken(_CHANGED)


def check_build(target: object, state: object) -> None:
    """Refuse to change a tensor, or its storage, after it was made.

    Parameters of torch 0.3 have a state too, which says whether they have a gradient, and what is called with it.
    """
    harmless = type(state) is tuple and len(state) == 3 and type(state[0]) is bool
    if type(target) is Storage or (type(target) is Tensor and not harmless):
        raise Broken(_CHANGED)


def _unreadable(why: str) -> Maker:
    return lambda args: Unreadable(why)


def _sparse(args: Args) -> object:
    """Refuse: programs that believe a sparse tensor's indices can be made to write outside of their memory, and whether
    they lie can't be told without reading them."""
    raise Sparse("it holds a sparse tensor, which Bottega does not read: its indices may point anywhere")


def _allocation(what: str) -> Maker:
    """What would only take memory: no file needs it, and a few bytes could ask for any amount."""

    def refuse(args: Args) -> object:
        raise Broken(f"it asks for memory by a call of {what}")

    return refuse


# --- plain things ----------------------------------------------------------------------------------------------------


def make_table(args: Args) -> Table:
    """OrderedDict() or dict(), from pairs in files of Python 2, or Counter({...}) and defaultdict(factory)."""
    table = Table()
    for argument in args:
        if type(argument) is Table:
            table.extend(argument)
        elif type(argument) is list:
            for pair in argument:
                if type(pair) not in (list, tuple) or len(pair) != 2:
                    raise Broken("a dictionary in it is made of something else than pairs")
                table.extend(pair)
    return table


def _sequence(args: Args) -> list[object]:
    return list(args[0]) if args and type(args[0]) in (list, tuple) else []  # type: ignore[call-overload]


def _size(args: Args) -> tuple[object, ...]:
    return tuple(_sequence(args))


def _bytes(args: Args) -> bytes:
    """bytes() and bytearray() of what is there already; never of a number, which would allocate that many zeros."""
    if args and type(args[0]) is int:
        raise Broken(f"it asks for {args[0]:,} bytes of memory")
    if args and type(args[0]) is str:
        return _encoded(args)
    return args[0] if args and type(args[0]) is bytes else b""


def _encoded(args: Args) -> bytes:
    """_codecs.encode(text, "latin1"): how protocol 2 and older write bytes; some programs write UTF-8."""
    if len(args) != 2 or type(args[0]) is not str or args[1] not in ("latin1", "latin-1", "utf-8", "utf8"):
        raise Broken("it encodes text in a way that bytes are not written in")
    return args[0].encode("utf-8" if args[1] in ("utf-8", "utf8") else "latin-1")


def _object(args: Args) -> Node:
    """copyreg._reconstructor(class, base, state): an object of the class."""
    if not args or type(args[0]) is not Name:
        raise Broken("it makes an object of no class")
    return Node(args[0], ())


def _attribute(args: Args) -> Name:
    """getattr(class, name): how protocols below 4 name a method, Python 3.11 a member of an enum, and torch `relu`.

    Only of a class of somebody's own package, of an object of one, or of the class whose methods are torch's functions:
    in anything else, `getattr` finds all there is.
    """
    owner, name = args if len(args) == 2 else (None, None)
    if type(name) is str and len(name) > MAX_NAME:
        raise Broken("it mentions too many names, or too long ones")
    if type(owner) is Name and (owner.module, owner.name) == ("torch._C", TORCH_FUNCTIONS):
        if type(name) is not str or not name.isidentifier() or name.startswith("_"):
            raise Poisonous(f"it calls builtins.getattr on {owner} for what is no function's name")
        return Name(owner.module, f"{owner.name}.{name}", _refuse_call, "")
    owner = owner.function if type(owner) is Node else owner
    if type(owner) is not Name or not is_unknown_class(owner.module, owner.name):
        raise Poisonous("it calls builtins.getattr on what is no model's own class")
    if len(owner.name) > MAX_NAME:
        raise Broken("it mentions too many names, or too long ones")
    if type(name) is not str or not name.isidentifier() or name.startswith("__"):
        raise Poisonous(f"it calls builtins.getattr on {owner} for what is no method's name")
    return Name(owner.module, f"{owner.name}.{name}", _refuse_call, "")


def _refuse_call(args: Args) -> object:
    raise Poisonous("it calls what builtins.getattr would give")


def _scalar(args: Args) -> object:
    """numpy's scalar(dtype, bytes) as the number that it is, if it is one."""
    dtype, raw = args[0], args[1] if len(args) == 2 else None
    if type(dtype) is not Node or type(raw) is not bytes:
        return None
    code = dtype.args[0] if dtype.args else None
    letter = _NUMBERS.get(code) if type(code) is str else None
    order = ">" if type(dtype.state) is tuple and dtype.state[1:2] == (">",) else "<"
    if letter is None or len(raw) != struct.calcsize(order + letter):
        return None
    return struct.unpack(order + letter, raw)[0]


# Those that copy all that they are given.
COPYING: frozenset[Maker] = frozenset({make_table, _sequence, _size, _bytes, _encoded})
# Those whose last argument is a state, of which they look at every attribute.
STATED: frozenset[Maker] = frozenset({_parameter_with_state, _of_type})

_MAKERS: dict[tuple[str, str], Maker] = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): make_tensor_v2,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter_with_state,
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _on_device,
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): _unreadable("is stored as a numpy array"),
    ("torch._utils", "_rebuild_qtensor"): _unreadable("is quantised"),
    ("torch._utils", "_rebuild_nested_tensor"): _unreadable("is nested"),
    ("torch.nested._internal.nested_tensor", "_rebuild_njt"): _unreadable("is nested"),
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): _unreadable("has no numbers (it is of torch's meta device)"),
    ("torch._utils", "_rebuild_wrapper_subclass"): _unreadable("has no numbers (it wraps another tensor)"),
    ("torch._utils", "_rebuild_sparse_tensor"): _sparse,
    ("torch._utils", "_rebuild_sparse_csr_tensor"): _sparse,
    ("torch._tensor", "_rebuild_from_type_v2"): _of_type,
    ("torch._tensor", "_rebuild_from_type"): _of_type,
    ("torch.nn.parameter", "UninitializedParameter"): _unreadable("was never initialised"),
    ("torch.nn.parameter", "UninitializedBuffer"): _unreadable("was never initialised"),
    ("torch.nn.parameter", "Parameter"): _first,
    ("torch.nn.parameter", "Buffer"): _first,
    ("torch", "Tensor"): _allocation("torch.Tensor"),
    ("torch", "Size"): _size,
    ("torch.jit._pickle", "build_intlist"): _sequence,
    ("torch.jit._pickle", "build_tensorlist"): _sequence,
    ("torch.jit._pickle", "build_doublelist"): _sequence,
    ("torch.jit._pickle", "build_boollist"): _sequence,
    ("torch.jit._pickle", "restore_type_tag"): _first,
    ("_codecs", "encode"): _encoded,
    ("copyreg", "_reconstructor"): _object,
    ("copy_reg", "_reconstructor"): _object,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    **{("collections", name): make_table for name in ("OrderedDict", "defaultdict", "Counter")},
    **{
        (module, name): maker
        for module in ("builtins", "__builtin__")
        for name, maker in (
            ("set", _sequence), ("frozenset", _sequence), ("list", _sequence), ("tuple", _size), ("dict", make_table),
            ("bytes", _bytes), ("bytearray", _bytes), ("getattr", _attribute),
        )
    },
    **{
        (module, name): _allocation(f"{module}.{name}")
        for module in ("torch", "torch.cuda", "torch.storage")
        for name in (*DTYPE_OF_STORAGE, *OLD_TENSORS, "TypedStorage", "_TypedStorage")
    },
}  # fmt: skip
