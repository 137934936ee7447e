"""Reads every file of a folder within limits, and prints what it found as JSON; run as a program, without torch."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

MEMORY = 512 << 20
SECONDS = 30


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    from bottega.errors import DangerousModel, FormatError
    from bottega.formats import pickled, read_header  # noqa: F401  imported before the clock runs

    found = []
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
    assert "torch" not in sys.modules and "pickle" not in sys.modules
    print(json.dumps(found))


if __name__ == "__main__":
    main()
