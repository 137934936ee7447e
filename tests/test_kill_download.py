"""A download that is killed again and again ends with the right bytes, and little of it is fetched twice."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest
from site_server import Request, Served, head_of, running

from bottega.formats import safetensors
from bottega.library.hashes import hash_file

MIB = 1 << 20
PIECE = 64 << 10


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random(kills: int, tmp_path: Path) -> None:
    seed = int.from_bytes(os.urandom(4))
    chance = random.Random(seed)
    size = (4 * kills + 4) * MIB
    original = tmp_path / "big.safetensors"
    safetensors.write(original, [("x.weight", "U8", (size,), chance.randbytes(size))])
    body, process = original.read_bytes(), None
    stretches: list[list[int]] = []  # of each request, where it began and where the server had got to

    def paced(request: Request, served: Served) -> None:
        status, start, headers = head_of(request, served)
        stretch = [start, start]
        stretches.append(stretch)
        if len(stretches) <= kills:
            threading.Timer(chance.uniform(0, 0.12), kill).start()
        request.begin(status, headers)
        for at in range(start, len(served.body), PIECE):
            stretch[1] += request.wfile.write(served.body[at : at + PIECE])
            time.sleep(0.001)

    def kill() -> None:
        assert process is not None
        process.kill()

    with running() as site:
        site.files["/big.safetensors"] = Served(body, faults=[paced] * (kills + 1))
        codes = []
        while len(codes) < 3 * kills + 3:
            process = subprocess.Popen(
                [sys.executable, "-m", "bottega", "models", "get", f"{site.url}/big.safetensors"],
                env={**os.environ, "BOTTEGA_HOME": str(tmp_path / "home"), "BOTTEGA_ALLOW_LOOPBACK": "1"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            _, said = process.communicate(timeout=120)
            codes.append(process.returncode)
            assert process.returncode in (0, -9), said.decode()
            if process.returncode == 0:
                break
    (installed,) = (tmp_path / "home" / "models").rglob("*.safetensors")
    assert hash_file(installed) == hash_file(original), seed
    assert codes.count(-9) >= kills - 1, codes  # the last may come when all has arrived
    twice = [before[1] - after[0] for before, after in pairwise(stretches)]
    assert max(twice) <= 8 * MIB, (seed, twice)
    assert not list((tmp_path / "home" / "models").rglob("*.part*"))
