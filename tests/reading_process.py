"""A process that reads headers for the tests, and that a file can do anything to: its name says what it does."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time

from small_models import FAMILIES

from bottega.formats.header import Header
from bottega.library import readers
from bottega.library.reading import signature
from bottega.spec import Family, Match

ALL = (*FAMILIES,)


def misbehave(header: Header) -> Match | None:
    """Do what the file's name says."""
    match header.path.stem.partition("-")[0]:
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "exit":
            os._exit(3)
        case "hang":
            time.sleep(600)
        case "spin":
            resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 1, resource.RLIM_INFINITY))
            while True:
                pass
        case "eat":
            bytearray(8 << 30)
        case "print":
            print("not an answer", flush=True)
    return FAMILIES[0].recognise(header)


RED = Family(**{**vars(FAMILIES[0]), "recognise": misbehave})

if __name__ == "__main__":
    if "late" in sys.argv:
        time.sleep(3)
    if "useless" in sys.argv:
        sys.exit("it does not even start")
    if "other" in sys.argv:
        print(f'"{signature(ALL)} of other code"', flush=True)
    readers.serve((RED, FAMILIES[1]))
