"""Weighted sums by torch's C interface: torch's own numbers, without importing it."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bottega.families._stable_diffusion import toy
from bottega.runtime import sums
from bottega.runtime.sums import WeightedSum, one_thread_here
from bottega.runtime.weights import DTYPES

ELEMENTS = 4096
EDGES = [0.0, -0.0, 1.0, -1.0, float("inf"), float("-inf"), 6e-8, -6e-8, 6.1e-5, 65504.0, -65504.0, 1e-40]


def memory(numbers: torch.Tensor) -> memoryview:
    return memoryview(bytearray(numbers.view(torch.uint8).numpy().tobytes()))


def numbers_of(block: memoryview, dtype: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(block), dtype=DTYPES[dtype])


def pair(dtype: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    a, b = (torch.randn(count, generator=generator) * 10 for _ in range(2))
    edges = torch.tensor(EDGES)[: count // 2]
    a[: len(edges)] = edges
    b[-len(edges) or count :] = edges
    return a.to(DTYPES[dtype]), b.to(DTYPES[dtype])


@pytest.mark.parametrize("count", [1, 7, ELEMENTS])
@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_the_numbers_are_those_of_torch(dtype: str, count: int) -> None:
    a, b = pair(dtype, count)
    add = WeightedSum(dtype, ELEMENTS, 2)
    for weight in (0.0, 0.1, 0.3, 0.49, 0.5, 0.7, 1.0):
        ours, theirs = memory(a), memory(b)
        made, has_nan = add(ours, theirs, weight)
        expected = torch.lerp(a, b, weight)
        assert bytes(memory(expected.nan_to_num(7))) == bytes(memory(numbers_of(made, dtype).nan_to_num(7))), weight
        assert has_nan == bool(expected.isnan().any())
        assert (bytes(ours), bytes(theirs)) == (bytes(memory(a)), bytes(memory(b)))


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
@pytest.mark.parametrize("at", [0, 2047, ELEMENTS - 1])
def test_no_nan_goes_unnoticed(dtype: str, at: int) -> None:
    a, b = (torch.ones(ELEMENTS, dtype=DTYPES[dtype]) for _ in range(2))
    add = WeightedSum(dtype, ELEMENTS, 2)
    assert not add(memory(a), memory(b), 0.3)[1]
    b[at] = float("nan")
    assert add(memory(a), memory(b), 0.3)[1]
    assert not add(memory(a), memory(a), 0.3)[1]


def test_a_result_lasts_until_as_many_more_were_made_as_are_held() -> None:
    add = WeightedSum("F32", 1, 3)
    made = [add(memory(torch.tensor([float(n)])), memory(torch.tensor([float(n)])), 0.5)[0] for n in range(4)]
    assert [numbers_of(block, "F32").item() for block in made] == [3, 1, 2, 3]


def test_the_thread_has_as_many_threads_as_before_afterwards() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread_here():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


UNLOADABLE = """
import ctypes, sys
from bottega.runtime import sums

class Library(ctypes.CDLL):
    def __init__(self, path):
        if "torch" not in sys.modules:
            raise OSError("libcudart.so: cannot open shared object file")
        super().__init__(path)

print(sums._torch(Library).aoti_torch_device_type_cpu(), "torch" in sys.modules)
"""


def test_torch_is_imported_where_its_library_does_not_load_alone() -> None:
    done = subprocess.run([sys.executable, "-c", UNLOADABLE], capture_output=True, text=True)
    assert done.stdout.split() == ["0", "True"], done.stderr


@pytest.mark.parametrize(("one", "other"), [(0, 0), (8, 4), (4, 8), (3, 3), (12, 12)])
def test_nothing_beside_the_blocks_is_touched(one: int, other: int) -> None:
    with pytest.raises(ValueError, match=f"blocks of {one} and {other} bytes, with room for 2 numbers"):
        WeightedSum("F32", 2, 2)(memoryview(bytearray(one)), memoryview(bytearray(other)), 0.5)


def test_torch_says_what_fails() -> None:
    dtype = sums._torch().aoti_torch_dtype_float32()
    with (
        sums._tensor((ctypes.c_float * 4)(), dtype, 4) as four,
        sums._tensor((ctypes.c_float * 2)(), dtype, 2) as two,
        pytest.raises(RuntimeError, match=r"size.*4.*2"),
    ):
        sums._copy(four, two)


def test_a_plain_merge_imports_no_torch(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        toy.write_single_file(tmp_path / f"{name}.safetensors", "sd1", seed=seed)
    code = "import sys; from bottega.cli import main\ncode = main(sys.argv[1:]); print(code, 'torch' in sys.modules)"
    words = ["models", "merge", str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors"), "--weight", "0.3"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words, "--out", str(tmp_path / "m.safetensors")],
        env={"BOTTEGA_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == "0 False", done.stdout + done.stderr
