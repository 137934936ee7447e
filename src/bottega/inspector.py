"""Reads model headers in a process of its own: `python -m bottega.inspector`, jobs in, what each model is out.

A file that makes its reader crash, or hold too much memory, takes this process with it and nothing else.
"""

from __future__ import annotations

import sys

from bottega.library.readers import serve
from bottega.recognisers import all_recognisers

# -P: a module that lies in the current folder must not be taken for one of ours.
COMMAND = (sys.executable, "-P", "-m", "bottega.inspector")

if __name__ == "__main__":
    serve(all_recognisers())
