"""Puts a file's tensors into a network: seen through a memory map, and copied at most once."""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import nn

from bottega.errors import FormatError
from bottega.formats.gguf import QUANTISED
from bottega.formats.header import Header, Packed, TensorInfo
from bottega.formats.tensor_bytes import inflate, swapped

DTYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
    "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64,
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64,
    "C32": torch.complex32, "C64": torch.complex64, "C128": torch.complex128,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz, "F8_E8M0": torch.float8_e8m0fnu, "F4_X2": torch.float4_e2m1fn_x2,
    "BITS8": torch.bits8, "BITS16": torch.bits16, "BITS1X8": torch.bits1x8, "BITS2X4": torch.bits2x4,
    "BITS4X2": torch.bits4x2,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_ALIGNMENT = 64  # bytes: a cache line, and the widest vector register
_PIECE = 1 << 24  # numbers


class MappedTensors(Mapping[str, torch.Tensor]):
    """The tensors of a header as views of its memory-mapped files: the bytes are read when they are used.

    The maps are private: writing into such a tensor changes memory, never the file. Tensors that share bytes in the
    file share them here too, unless they are in the other order of bytes and have to be copied. What is compressed is
    unpacked when it is asked for, and kept only if several tensors look into it.

    Some formats align nothing (torch's old one, unpadded safetensors), so a tensor may begin at an address that is no
    multiple of its elements. Copying and casting bear that, which is all that `assign` does with it; where they don't,
    for complex128, it is a copy.
    """

    def __init__(self, header: Header) -> None:
        self._header = header
        self._files: dict[Path, mmap.mmap] = {}
        self._maps: dict[tuple[Path, int], torch.Tensor] = {}
        self._unpacked: dict[Packed, torch.Tensor] = {}
        self._shared = Counter(info.packed for info in header.tensors.values() if info.packed)

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.of(self._header.tensors[name], name)

    def of(self, info: TensorInfo, name: str = "a tensor") -> torch.Tensor:
        """The tensor that lies there in a file of the header, whatever it is called."""
        dtype = DTYPES.get(info.dtype)
        if dtype is None:
            stored = "quantised" if info.dtype in QUANTISED else "stored"
            raise FormatError(info.file, f"{name} is {stored} as {info.dtype}", "get a version in float16 or bfloat16")
        if not info.elements:
            return torch.empty(info.shape, dtype=dtype)
        shift = info.start % dtype.itemsize
        content = self._content(info, shift).narrow(0, info.start - shift, info.end - info.start)
        if info.big_endian:
            content = torch.frombuffer(bytearray(swapped(content.numpy().tobytes(), info.dtype)), dtype=torch.uint8)
        elif shift and dtype.itemsize > 8:  # copied by instructions that end the process if it is not aligned
            content = content.clone()
        if dtype == torch.bool and content.max() > 1:  # torch computes nonsense with such booleans
            content = content.ne(0).view(torch.uint8)
        elements = content.view(dtype)
        if info.strides is None:
            return elements.view(info.shape)
        return elements.as_strided(info.shape, info.strides)

    def __iter__(self) -> Iterator[str]:
        return iter(self._header.tensors)

    def __len__(self) -> int:
        return len(self._header.tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._header.tensors

    def _content(self, info: TensorInfo, shift: int) -> torch.Tensor:
        """The bytes that a tensor's place counts in, without the first few: of the file, or of what is packed in it."""
        if info.packed is None:
            return self._map(info, shift)
        content = self._unpacked.get(info.packed)
        if content is None:
            content = torch.frombuffer(bytearray().join(inflate(info, info.packed)), dtype=torch.uint8)
            if self._shared[info.packed] > 1:
                self._unpacked[info.packed] = content
        return content.narrow(0, shift, len(content) - shift)

    def _map(self, info: TensorInfo, shift: int) -> torch.Tensor:
        """The bytes of the whole file but the first few, so that neighbours in the file share their storage.

        A storage that begins `shift` bytes into the map is what torch takes for aligned.
        """
        mapped = self._files.get(info.file)
        if mapped is None:
            with info.file.open("rb") as file:
                mapped = self._files[info.file] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        if info.end > len(mapped):
            raise FormatError(info.file, "is shorter than its header says", "download it again")
        content = self._maps.get((info.file, shift))
        if content is None:
            content = self._maps[info.file, shift] = torch.frombuffer(mapped, dtype=torch.uint8, offset=shift)
        return content


def rows(tensors: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, str, tuple[int, ...], memoryview]]:
    """Tensors as `safetensors.write` takes them."""
    for name, tensor in tensors.items():
        stored = tensor.detach().cpu().contiguous()
        content = stored.flatten().view(torch.uint8).numpy()  # numpy knows neither bfloat16 nor float8
        yield name, _NAMES[stored.dtype], tuple(stored.shape), memoryview(content)


def assign(
    module: nn.Module, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype, device: torch.device
) -> nn.Module:
    """Gives a network on the meta device its tensors, and makes it ready to run.

    A tensor that already is as it should be stays the view that it is; all others are cast straight into one
    allocation, because fresh memory costs more than the cast.
    """
    wanted = module.state_dict()
    kept: dict[str, torch.Tensor] = {}
    copied: dict[str, torch.Tensor] = {}
    for name, like in wanted.items():
        tensor = tensors[name]
        if tensor.shape != like.shape:
            raise ValueError(f"{name} is {tuple(tensor.shape)} and should be {tuple(like.shape)}")
        as_is = tensor.dtype == dtype and tensor.device == device and tensor.is_contiguous() and _is_aligned(tensor)
        (kept if as_is else copied)[name] = tensor
    kept.update(gathered(copied, dtype, device))
    module.load_state_dict(kept, assign=True)
    bring_constants(module, device)
    return module.requires_grad_(False).eval()


def bring_constants(module: nn.Module, device: torch.device) -> None:
    """Put what a network computes with beside its weights (numbered positions) on a device."""
    for part in module.modules():
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, buffer.to(device))


def _is_aligned(tensor: torch.Tensor) -> bool:
    return tensor.data_ptr() % tensor.dtype.itemsize == 0


def gathered(tensors: Mapping[str, torch.Tensor], dtype: torch.dtype, device: torch.device) -> dict[str, torch.Tensor]:
    """Copies of tensors, of one dtype and in one allocation on a device."""
    step = _ALIGNMENT // dtype.itemsize
    runs = [(run, -(-sum(tensors[name].numel() for name in run) // step) * step) for run in _runs(tensors)]
    room = torch.empty(sum(size for _, size in runs), dtype=dtype, device=device)
    cast: dict[str, torch.Tensor] = {}
    at = 0
    for run, size in runs:
        source = _joined([tensors[name] for name in run])
        target = room.narrow(0, at, source.numel())
        if device.type == "cpu" or source.dtype == dtype:
            target.view(source.shape).copy_(source)
        else:
            # A GPU is sent the bytes as they are in the file and casts them itself, a piece at a time: it may have no
            # room for the whole twice.
            for there, piece in zip(target.split(_PIECE), source.reshape(-1).split(_PIECE), strict=True):
                there.copy_(piece.to(device))
        begin = at
        for name in run:
            cast[name] = room.narrow(0, begin, tensors[name].numel()).view(tensors[name].shape)
            begin += tensors[name].numel()
        at += size
    return cast


def _runs(tensors: Mapping[str, torch.Tensor]) -> list[list[str]]:
    """Names of tensors that lie end to end in one file and are cast as one: a cast of each alone costs much more."""
    runs: list[list[str]] = []
    end = None
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].data_ptr()):
        begin = tensor.untyped_storage().data_ptr(), tensor.dtype, tensor.data_ptr()
        if tensor.is_contiguous() and begin == end:
            runs[-1].append(name)
        else:
            runs.append([name])
        end = (*begin[:2], begin[2] + tensor.nbytes) if tensor.is_contiguous() else None
    return runs


def _joined(run: list[torch.Tensor]) -> torch.Tensor:
    """Tensors that lie end to end, as the one that they are."""
    first = run[0]
    return first if len(run) == 1 else first.as_strided((sum(tensor.numel() for tensor in run),), (1,))


def read_vectors(header: Header, name: str, begin: int, end: int) -> torch.Tensor:
    """Columns `begin` to `end` of a stored matrix, or of one row, as a float32 matrix of its own.

    Raises ValueError if a number in it is not finite.
    """
    stored = MappedTensors(header)[name]
    rows = stored.reshape(-1, stored.shape[-1])[:, begin:end].to(torch.float32, copy=True)
    if not torch.isfinite(rows).all():
        raise ValueError(f"{name} holds numbers that are not finite")
    return rows
