"""The command line: a table of commands, and one place where every error becomes one clear line.

A command group is a module of this package with `configure(parser)`, which adds its arguments, and
`run(args, settings) -> int`, which does the work and gives the exit code. Only the module that is asked for is
imported, and nothing heavy before it is needed, so that `bottega --help` answers at once.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING

from bottega.cli.terminal import printable
from bottega.errors import BottegaError
from bottega.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

# Each command group with the lines that `bottega --help` shows of it; its code is in the module of the same name.
COMMANDS: dict[str, dict[str, str]] = {
    "make": {'make image "PROMPT"': "make a picture from words, or from words and a picture"},
    "show": {"show FILE": "tell what a file carries: the recipe that made it"},
    "replay": {"replay FILE": "make it again; --check compares"},
    "models": {
        "models scan [FOLDER]...": "look through the shelves; a folder that is named becomes one",
        "models list": "list the models on the shelves",
        "models show NAME": "tell what a model is and why, how to use it, and what fits it",
        "models check PATH": "tell whether a file is safe, without running anything in it",
        "models hash NAME": "tell the hashes by which sites know a model",
        "models duplicates": "find the models that are there more than once",
        "models tag|note|correct NAME": "keep what you say of a model",
        "models convert SRC DST": "write a model as safetensors or as a folder, in another dtype",
        "models merge A B --out DST": "make one model of several, or of a model and LoRA",
        "models extract A B --out DST": "make a LoRA of what sets two checkpoints apart",
        "models get REF...": "fetch models from Civitai, Hugging Face or any address",
        "models check-updates": "ask the sites of models for newer versions",
        "models identify-online": "look models up at Civitai by their hash",
    },
    "train": {
        "train lora FOLDER": "teach a model a style or a thing from pictures, as a small file beside it",
        "train embedding|hypernetwork|full FOLDER": "teach a new word, a hypernetwork, or the whole model",
    },
    "serve": {
        "serve": "serve the page and the APIs, to this machine only unless told; print a link that signs in",
        "serve --link": "print a new link for the server that runs",
    },
    "users": {"users add|list|change|remove|key": "let others use the server, each with a key of their own"},
    "jobs": {"jobs [list|show|cancel|...]": "show and steer what waits, runs and has run"},
    "backup": {"backup FILE": "write this home into one archive: all but the models"},
    "restore": {"restore FILE": "make this home what it was when the archive was written"},
    "doctor": {"doctor": "tell what this machine has and what it can do"},
    "bench": {"bench [WHAT]": "measure how fast this machine makes pictures, or something else"},
}

REMEDIES = {
    errno.ENOSPC: "free some space or write somewhere else",
    errno.EDQUOT: "free some space or write somewhere else",
    errno.EACCES: "check who may read and write it",
    errno.EPERM: "check who may read and write it",
    errno.EROFS: "write somewhere else",
    errno.ENAMETOOLONG: "use a shorter name",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.EIO: "the disk may be failing",
}


class UsageError(BottegaError):
    """A command line that says nothing that Bottega understands."""

    exit_code = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code (0 done, 1 failed or different, 2 bad usage or refused input, 130 interrupted)."""
    words = list(sys.argv[1:] if argv is None else argv)
    # A stream that the caller closed is None here; what is said goes nowhere then.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115  # open as long as the process is
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # no name of a model may break the output
    try:
        code = dispatch(words)
        sys.stdout.flush()  # a full disk shows here, not after the exit code is settled
        return code
    except BottegaError as error:
        complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    except BrokenPipeError:
        abandon_stdout()  # whoever read us has gone: nobody is left to tell
        return 1
    except OSError as error:
        complain(described(error))
        abandon_stdout()
        return 1
    except MemoryError:
        complain("this machine has not enough memory for that; close other programs or make something smaller")
        return 1
    except Exception as error:  # the last resort: whatever happens, a user reads one line and no trace
        if os.environ.get("BOTTEGA_DEBUG") == "1":
            raise
        complain(
            f"this is a bug in Bottega ({type(error).__name__}: {error}); "
            "run it again with BOTTEGA_DEBUG=1 and report what it prints to the project's issues"
        )
        return 1


def dispatch(words: list[str]) -> int:
    """Find the command that the words name and run it."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if words[0] in ("-V", "--version"):
        print(f"bottega {__version__}")
        return 0
    name, *rest = words
    if name not in COMMANDS:
        raise UsageError(f"there is no command {name!r}", nearest_command(name))
    return run_command(name, rest)


def run_command(name: str, words: list[str]) -> int:
    """Parse the words as the command group's own arguments and run it."""
    from argparse import ArgumentParser

    end = words.index("--") if "--" in words else len(words)
    free, verbatim = words[:end], words[end:]

    class Parser(ArgumentParser):
        """A parser whose complaints are errors like all others; subparsers are of its type too."""

        def __init__(self, **options: Any) -> None:
            # As an option of argparse's, -h would swallow every word that begins with it.
            super().__init__(**options, allow_abbrev=False, add_help=False)
            self.add_argument("--help", action="help", help="show this and end")

        def error(self, message: str) -> None:  # type: ignore[override]  # NoReturn in the base; it does not return
            raise UsageError(message, remedy_for(message, free) or f"see `{self.prog} --help`")

    command = import_module(f"bottega.cli.{name}")
    parser = Parser(prog=f"bottega {name}", description=command.__doc__)
    if words and words[0] in getattr(command, "ACTIONS", ()):
        command.configure(parser, words[0])
    else:
        command.configure(parser)
    try:
        args = parser.parse_args([*("--help" if word == "-h" else word for word in free), *verbatim])
    except SystemExit as stop:  # argparse printed its help
        return int(stop.code or 0)

    from bottega.settings import read_settings

    code = command.run(args, read_settings())
    assert isinstance(code, int)
    return code


def overview() -> str:
    """What `bottega --help` prints."""
    lines = {usage: summary for group in COMMANDS.values() for usage, summary in group.items()}
    width = max(map(len, lines))
    listing = "\n".join(f"  {usage:<{width}}  {summary}" for usage, summary in lines.items())
    return (
        "Bottega: a workshop for AI-generated content on your own machine.\n\n"
        f"usage: bottega COMMAND ...\n\n{listing}\n\n"
        "`bottega COMMAND --help` tells more about one of them. BOTTEGA_HOME moves everything that Bottega keeps."
    )


def nearest_command(name: str) -> str:
    """What the user may have meant, as a remedy."""
    from difflib import get_close_matches

    near = get_close_matches(name, COMMANDS, n=2)
    return f"did you mean {' or '.join(f'`bottega {each}`' for each in near)}?" if near else "see `bottega --help`"


def remedy_for(message: str, words: Sequence[str]) -> str:
    """What to do about a word that was taken for an option because it begins with a dash; empty if there is none."""
    for before, word in pairwise(("", *words)):
        # Our options are long ones, a number is a value, and what has a space in it is taken for words already.
        if word[:1] == "-" and word[1:2].isalpha() and word != "-h" and " " not in word:
            if message.endswith("expected one argument"):
                return f"write {before}={word}"
            return f"to take {word!r} as it stands, write it last, after --"
    return ""


def described(error: OSError) -> str:
    """An error of the system in one line that names the file."""
    reason = error.strerror or str(error) or type(error).__name__
    what = f"{os.fsdecode(error.filename)}: {reason}" if isinstance(error.filename, str | bytes) else reason
    remedy = REMEDIES.get(error.errno or 0)
    return f"{what}; {remedy}" if remedy else what


def complain(line: str) -> None:
    """Write one line to standard error, if there still is one."""
    try:
        print(f"bottega: {printable(line)}", file=sys.stderr, flush=True)
    except OSError:
        return  # standard error is closed too: the exit code has to do


def abandon_stdout() -> None:
    """Send what is still buffered nowhere, so that the interpreter does not stumble over it at exit."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        return  # standard output has no descriptor (a test's buffer) or is closed
