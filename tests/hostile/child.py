"""Reads every file of a folder within limits, and prints what it found as JSON; run as a program, without torch.

What takes longer than a second is told in the seconds of a processor that counts to a million in 60 milliseconds: what
a file takes is a promise of the reader, how busy the machine is that runs the tests is none.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

MEMORY = 512 << 20
SECONDS = 30
MILLION = 0.06  # seconds
SHORT = 1.0  # seconds: what takes no longer is quick on any processor


def _slowness() -> float:
    """How many times as long as that processor this one takes; 1 for one that is faster."""
    times = []
    for _ in range(5):
        began = time.process_time()
        for number in range(1_000_000):
            number & 7
        times.append(time.process_time() - began)
    return max(1.0, min(times) / MILLION)


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    from bottega.errors import DangerousModel, FormatError
    from bottega.formats import pickled, read_header  # noqa: F401  imported before the clock runs

    found: list[dict[str, Any]] = []
    for path in sorted(Path(sys.argv[1]).iterdir()):
        began = time.process_time()
        try:
            header = read_header(path)
            words = [*header.notes, *header.safety.reasons]
            told = {"verdict": header.safety.verdict, "words": " ".join(words), "tensors": len(header.tensors)}
        except DangerousModel as error:
            told = {"verdict": "dangerous", "words": str(error), "names": list(error.names)}
        except FormatError as error:
            told = {"verdict": "refused", "words": str(error)}
        found.append({"file": path.name, "seconds": time.process_time() - began, **told})
    for told in found:
        if told["seconds"] > SHORT:
            told["seconds"] /= _slowness()
    assert "torch" not in sys.modules and "pickle" not in sys.modules
    print(json.dumps(found))


if __name__ == "__main__":
    main()
