"""`bottega models`, `doctor` and the front door, run as a user runs them."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_models import write_model
from starters import ADAPTERS, CHECKPOINTS, NAMES

from bottega import cli
from bottega.cli.progress import Progress
from bottega.cli.terminal import Whole, columns, count_text, cut, pairs, printable, size_text, table, time_text
from bottega.families import family
from bottega.library import open_catalog

Bottega = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def bottega(tmp_path: Path) -> Bottega:
    def run(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bottega", *map(str, words)],
            env={**os.environ, "BOTTEGA_HOME": str(tmp_path / "home"), **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder with one model that a family knows, one that none knows, and one broken file."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    family("sd1").toy(folder / "toy.safetensors")
    write_model(folder / "mystery.safetensors")
    (folder / "broken.safetensors").write_bytes((folder / "toy.safetensors").read_bytes()[:-100])
    return folder


def document(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# --- models ----------------------------------------------------------------------------------------------------------


def test_the_first_listing_shows_what_comes_along(bottega: Bottega) -> None:
    for _ in range(2):
        listed = document(bottega("models", "list", "--json"))
        assert {model["name"]: (model["kind"], model["family"]) for model in listed} == {
            **dict.fromkeys(CHECKPOINTS, ("checkpoint", "sd1")),
            **{name: (kind, "sd1") for name, kind in ADAPTERS.items()},
        }
    assert re.search("^starter-image +checkpoint +sd1 ", bottega("models", "list").stdout, re.M)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("neon", '"..." --lora neon'),
        ("lighthouse", '"..." --embedding lighthouse'),
        ("sepia", '"..." --hypernetwork sepia'),
        ("chilly", '"..." --model chilly'),
    ],
)
def test_show_tells_how_each_kind_is_used(bottega: Bottega, name: str, words: str) -> None:
    shown = bottega("models", "show", name).stdout
    assert re.search("^to use it +bottega make image " + re.escape(words) + "$", shown, re.M), shown


def test_scan_list_show(bottega: Bottega, shelf: Path) -> None:
    told = document(bottega("models", "scan", shelf, "--json"))
    assert (told["models"], told["headers_read"], told["new"]) == (2, 3, 3)
    assert [refused["path"] for refused in told["refused"]] == [str(shelf / "broken.safetensors")]
    assert document(bottega("models", "scan", shelf, "--json"))["headers_read"] == 0
    # The folder is remembered: a later scan of everything looks there too.
    assert str(shelf) in document(bottega("models", "scan", "--json"))["shelves"]

    names = {model["name"] for model in document(bottega("models", "list", "--json"))}
    assert names == {"toy", "mystery", *NAMES}
    assert [model["name"] for model in document(bottega("models", "list", "--kind", "unknown", "--json"))] == [
        "mystery"
    ]
    for words, come_along in ((("--family", "sd1"), NAMES), (("--family", "SD1", "--kind", "Checkpoint"), CHECKPOINTS)):
        names = {model["name"] for model in document(bottega("models", "list", *words, "--json"))}
        assert names == {"toy", *come_along}
    assert document(bottega("models", "list", "--family", "nothing", "--json")) == []

    shown = document(bottega("models", "show", "toy", "--json"))
    assert (shown["family"], shown["kind"], shown["shelf"]) == ("sd1", "checkpoint", str(shelf))
    assert {part["part"] for part in shown["parts"]} >= {"unet", "vae", "text_encoder"}
    assert sum(part["tensors"] for part in shown["parts"]) > 0
    assert len(shown["sha256"]) == 64 and shown["because"]
    assert document(bottega("models", "show", shown["sha256"][:10], "--json")) == shown


def test_for_people(bottega: Bottega, shelf: Path) -> None:
    scanned = bottega("models", "scan", shelf)
    assert scanned.returncode == 0
    assert "2 models on 1 shelf" in scanned.stdout and "1 file refused" in scanned.stdout
    assert "broken.safetensors" in scanned.stdout and "cut short" in scanned.stdout
    listed = bottega("models", "list")
    assert listed.stdout.splitlines()[0].split() == ["name", "kind", "family", "dtype", "size", "folder"]
    assert "1 file refused" in listed.stderr
    shown = bottega("models", "show", "toy").stdout
    for word in ("because", "sha256", "dimensions", "unet", "model.diffusion_model."):
        assert word in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("models", "show", "starter-imag"), "did you mean starter-image"),
        (("models", "show", "broken"), "cut short"),
        (("models", "scan", "/no/such/folder"), "there is no such folder"),
        (("models", "scan", __file__), "this is no folder"),
        (("models", "show", __file__), "Python source"),
        (("models", "lst"), "choose from"),
        (("models",), "ACTION"),
        (("modles",), "did you mean `bottega models`"),
        (("models", "list", "--colour"), "unrecognized arguments"),
    ],
)
def test_wrong_input_is_one_clear_line(bottega: Bottega, shelf: Path, words: tuple[str, ...], said: str) -> None:
    if "broken" in words:
        bottega("models", "scan", shelf)
    done = bottega(*words)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("bottega: ") and said in line


def test_hostile_names_never_reach_the_terminal(bottega: Bottega, shelf: Path) -> None:
    write_model(shelf / "\x1b[31mred\x9b\u202e\n.safetensors")
    (shelf / "\x1b]0;title\x07.safetensors").write_bytes(b"<html>")
    for words in (
        ("models", "scan", shelf),
        ("models", "list"),
        ("models", "list", "--json"),
        ("models", "show", "\x1b"),
    ):
        done = bottega(*words)
        for character in "\x1b\x07\x9b\u202e":
            assert character not in done.stdout + done.stderr
    assert any(model["name"].startswith("\x1b[31m") for model in document(bottega("models", "list", "--json")))


def test_names_beyond_the_encoding_of_the_output(bottega: Bottega, shelf: Path) -> None:
    write_model(shelf / "模型 é.safetensors")
    write_model(Path(os.fsdecode(os.fsencode(shelf) + b"/\xff.safetensors")))
    for encoding in ("ascii", "utf-8"):
        bottega("models", "scan", shelf, PYTHONIOENCODING=encoding)
        assert bottega("models", "list", PYTHONIOENCODING=encoding).returncode == 0
        names = {model["name"] for model in document(bottega("models", "list", "--json", PYTHONIOENCODING=encoding))}
        assert {"模型 é", "\udcff"} <= names


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder that not even root can write")
def test_a_home_that_cannot_be_written(bottega: Bottega) -> None:
    done = bottega("models", "list", "--json", BOTTEGA_HOME="/proc/bottega")
    assert {model["name"] for model in document(done)} == NAMES
    assert "not kept" in done.stderr


def test_a_broken_catalog(bottega: Bottega, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "catalog.sqlite").write_bytes(b"no database" * 100)
    done = bottega("models", "list")
    assert done.returncode == 1 and "move it away" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_interrupting_a_scan_keeps_the_catalog_whole(tmp_path: Path, bottega: Bottega) -> None:
    shelf = tmp_path / "many"
    model = write_model(shelf / "0.safetensors")
    for index in range(1, 8_000):  # enough that the scan is still at it when the signal comes
        os.link(model, shelf / f"{index}.safetensors")
    running = subprocess.Popen(
        [sys.executable, "-m", "bottega", "models", "scan", str(shelf)],
        env={**os.environ, "BOTTEGA_HOME": str(tmp_path / "home")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    assert "headers" in running.stderr.readline()  # it has begun
    with open_catalog(tmp_path / "home" / "catalog.sqlite") as catalog:
        while not catalog.entries():
            time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=120)
    assert running.returncode == 130 and errors.splitlines()[-1] == "bottega: interrupted"
    assert "Traceback" not in errors
    told = document(bottega("models", "scan", shelf, "--json"))
    assert told["models"] == 8_000 and told["headers_read"] < 8_000


# --- doctor ----------------------------------------------------------------------------------------------------------


def test_doctor(bottega: Bottega) -> None:
    told = document(bottega("doctor", "--json"))
    assert told["can_make_images"] is True and not any(problem["fatal"] for problem in told["problems"])
    assert {"bottega", "python", "torch", "device", "precision", "memory", "home", "sqlite"} <= set(told["facts"])
    assert bottega("doctor").stdout.splitlines()[-1] == "This machine can make pictures."


def test_doctor_puts_problems_first(bottega: Bottega, tmp_path: Path) -> None:
    done = bottega("doctor", BOTTEGA_DEVICE="cuda:9")
    assert done.returncode == 1
    assert done.stdout.startswith("problem: ") and "cuda:9" in done.stdout.splitlines()[0]


# --- the front door --------------------------------------------------------------------------------------------------


def failing_with(error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def fail(words: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "dispatch", fail)
    return cli.main([]), capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "bottega: interrupted"),
        (OSError(28, "No space left on device", "/x/y.png"), 1, "bottega: /x/y.png: No space left on device; free "),
        (PermissionError(13, "Permission denied", "/x"), 1, "bottega: /x: Permission denied; check who may read"),
        (MemoryError(), 1, "bottega: this machine has not enough memory"),
        (KeyError("x\x1b"), 1, "bottega: this is a bug in Bottega (KeyError: 'x\\x1b')"),
    ],
)
def test_every_error_is_one_line(
    error: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("BOTTEGA_DEBUG", raising=False)
    got, errors = failing_with(error, monkeypatch, capsys)
    assert got == code and errors.startswith(line) and errors.count("\n") == 1 and "Traceback" not in errors


def test_a_trace_only_on_request(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("BOTTEGA_DEBUG", "1")
    with pytest.raises(KeyError):
        failing_with(KeyError("x"), monkeypatch, capsys)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_the_output() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "bottega", "--help"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1 and "No space left" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("words", ["--help", "models list", "models list --json", "doctor"])
def test_a_reader_that_has_gone(words: str, tmp_path: Path) -> None:
    """As `bottega ... | head -0`, with a head that is quicker."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "bottega", *words.split()],
        env={**os.environ, "BOTTEGA_HOME": str(tmp_path / "home")},
        stdout=writer,
        stderr=subprocess.PIPE,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.slow
@pytest.mark.parametrize("words", ["--help", "models list", "models list --json", "doctor"])
@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-"])
def test_closed_streams(words: str, closed: str, tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m bottega {words} {closed}"],
        env={**os.environ, "BOTTEGA_HOME": str(tmp_path / "home")},
        capture_output=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


# --- what a terminal shows -------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_text_for_terminals() -> None:
    assert printable("plain é 模型 👩‍🚀") == "plain é 模型 👩‍🚀"
    assert printable("\x1b[1m\n\u202e\x9b\udcff") == "\\x1b[1m\\n\\u202e\\x9b\\udcff"
    assert (columns("abc"), columns("模型"), columns("e\u0301")) == (3, 4, 1)
    assert (cut("模型模型", 5), cut("short", 5), cut("longer", 5)) == ("模型…", "short", "long…")
    assert [size_text(count) for count in (0, 999, 1500, 47_370_254, 2_132_625_612, 10**14)] == [
        "0 B", "999 B", "1.5 kB", "47.4 MB", "2.13 GB", "100 TB",
    ]  # fmt: skip
    assert [count_text(count) for count in (12, 8_800_000, 859_520_964)] == ["12", "8.8 M", "860 M"]
    assert [time_text(seconds) for seconds in (0.04, 42, 125, 7300)] == ["0.0 s", "42 s", "2 min 05 s", "2 h 01 min"]
    assert pairs([("a", "1"), ("", "2"), ("\x1b", "\x1b")]) == "a     1\n      2\n\\x1b  \\x1b"


def test_tables_fit_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    rows = [("模型" * 20, "12"), ("x", "1")]
    lines = table(("name", "size"), rows, Terminal(), right=[1]).splitlines()
    assert all(columns(line) <= 30 for line in lines) and lines[1].endswith("…     12")
    assert "..." in table(("name", "size"), rows, Terminal("ascii"))
    assert "模型" * 20 in table(("name", "size"), rows, io.StringIO())  # a pipe gets everything


@pytest.mark.parametrize("width", range(40, 81, 5))
def test_what_a_table_can_spare_is_left_out_before_a_line_is_too_long(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    headers = ("name", "kind", "dtype", "size", "tags", "folder")
    rows = [("long name " * 5, "hypernetwork", "F16", "47.4 MB", "one two three four", "/a/long/way/to/it")]
    lines = table(headers, rows, Terminal(), right=[3], spare=(2, 5)).splitlines()
    assert all(columns(line) <= width for line in lines)
    left_out = [header for header in headers if header not in lines[0].split()]
    assert left_out == ([] if width >= 54 else ["dtype"] if width >= 47 else ["dtype", "folder"])
    monkeypatch.setenv("COLUMNS", "6")
    assert table(headers, rows, Terminal()).splitlines() == ["name", "long …"]


def test_long_values_go_on_beside_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    path, sha256 = Whole("/a folder/" + "of models/" * 5), "0f" * 32
    rows = [("because", "many words " * 8), ("note", "模型" * 20), ("path", path), ("sha256", f"{sha256} (short)")]
    lines = pairs(rows, Terminal()).splitlines()
    assert lines[:2] == ["because  many words many words many", "         words many words many words"]
    assert "note     " + "模型" * 7 + "模" in lines
    assert f"path     {path}" in lines and lines[-2:] == [f"sha256   {sha256}", "         (short)"]
    assert all(columns(line) <= 40 for line in lines if str(path) not in line and sha256 not in line)
    assert pairs(rows, io.StringIO()) == pairs(rows) and len(pairs(rows).splitlines()) == 4
    named = pairs([("a name that takes a whole line", "value"), ("b", "value")], Terminal())
    assert named.splitlines() == ["a name that takes a whole line", " " * 20 + "value", "b" + " " * 19 + "value"]


@pytest.mark.parametrize("width", [40, 60])
def test_what_is_told_of_a_shelf_fits_a_terminal(width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("BOTTEGA_HOME", str(tmp_path / "home"))
    shelf = write_model(tmp_path / "shelf" / "one.safetensors").parent
    shutil.copy(shelf / "one.safetensors", shelf / "two.safetensors")
    gone = write_model(shelf / "three.safetensors", fill=1)
    (shelf / "page.safetensors").write_bytes(b"<html>")
    cli.main(["models", "scan", str(shelf)])
    gone.unlink()
    for words in (("scan", str(shelf)), ("duplicates",), ("scan", str(shelf), "--forget-missing")):
        monkeypatch.setattr(sys, "stdout", stream := Terminal())
        cli.main(["models", *words])
        lines = stream.getvalue().splitlines()
        assert len(lines) > 3 and all(columns(line) <= width for line in lines if not line.startswith("  "))


@pytest.mark.parametrize("width", [40, 60, 80])
def test_all_that_is_told_of_a_model_fits_a_terminal(
    width: int, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("BOTTEGA_HOME", str(tmp_path / "home"))
    toy = str(shelf / "toy.safetensors")
    cli.main(["models", "tag", toy, "+some", "+tags"])
    for words in (("list",), ("show", toy), ("hash", toy), ("check", toy), ("check", str(shelf))):
        monkeypatch.setattr(sys, "stdout", stream := Terminal())
        cli.main(["models", *words])
        lines = stream.getvalue().splitlines()
        too_long = [line for line in lines if columns(line) > width]
        assert lines and all(
            "/" in line or re.search("[0-9a-f]{64}$", line) or "bottega make" in line for line in too_long
        )


def test_progress_in_a_log() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(stream, clock) as progress:
        for done in range(101):
            clock.now = done * 0.1
            progress.update("sample", done, 100)
        progress.say("made\x1b it")
    assert stream.getvalue() == "sample 0/100\nsample 50/100, 5.0 s left\nsample 100/100\nmade\\x1b it\n"


def test_a_log_tells_the_time_left_as_soon_as_one_slow_step_is_done() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(stream, clock) as progress:
        progress.wait("starting")  # of which a log is not told
        for done in range(3):
            clock.now = done * 600.0
            progress.update("sample", done, 20)
    assert stream.getvalue() == "sample 0/20\nsample 1/20, 3 h 10 min left\nsample 2/20, 3 h 00 min left\n"


def test_what_comes_next_on_a_terminal_takes_the_place_of_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with Progress(stream) as progress:
        progress.wait("starting")
        assert stream.getvalue() == "\r\x1b[2Kstarting\r"
    assert stream.getvalue().endswith("\r\x1b[2K")


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream, clock = Terminal(), Clock()
    with Progress(stream, clock) as progress:
        for done in range(1001):
            clock.now = done * 0.01
            progress.update("hash", done * 10**6, 10**9, "bytes")
        progress.say("done")
    frames = stream.getvalue().split("\r\x1b[2K")
    assert 90 < len(frames) < 120  # ten a second, not a thousand
    assert " MB of 1 GB" in stream.getvalue() and "s left" in stream.getvalue()
    assert frames[-1] == "done\n"


@pytest.mark.parametrize(
    ("environment", "encoding", "absent"),
    [({"NO_COLOR": "1"}, "utf-8", "\x1b[36m"), ({"TERM": "dumb"}, "utf-8", "\x1b"), ({}, "ascii", "━")],
)
def test_progress_respects_the_terminal(
    environment: dict[str, str], encoding: str, absent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"TERM": "xterm", "NO_COLOR": "", "COLUMNS": "80", **environment}.items():
        monkeypatch.setenv(name, value)
    stream = Terminal(encoding)
    Progress(stream).update("sample", 1, 2)
    assert absent not in stream.getvalue() and "sample" in stream.getvalue()


@pytest.mark.parametrize("width", [1, 8, 20, 40, 200])
def test_progress_fits_any_width(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    stream = Terminal()
    Progress(stream).update("sample", 3, 20)
    assert columns(stream.getvalue().removeprefix("\r\x1b[2K")) < max(width, 2)


def test_a_real_terminal_gets_a_bar(tmp_path: Path, shelf: Path) -> None:
    master, slave = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "bottega", "models", "scan", str(shelf)],
        env={**os.environ, "BOTTEGA_HOME": str(tmp_path / "home"), "TERM": "xterm", "COLUMNS": "70"},
        stdout=subprocess.PIPE,
        stderr=slave,
    )
    drawn = os.read(master, 65536).decode()
    os.close(slave)
    os.close(master)
    assert done.returncode == 0
    assert "headers" in drawn and "━" in drawn and drawn.endswith("\r\x1b[2K")  # and nothing stays behind


def test_a_shelf_that_is_gone_can_be_dropped(bottega: Bottega, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    write_model(shelf / "a.safetensors")
    bottega("models", "scan", shelf)
    (shelf / "a.safetensors").unlink()
    shelf.rmdir()
    assert f"bottega models scan --forget-missing {shelf}" in bottega("models", "scan").stdout
    assert bottega("models", "scan", shelf).returncode == 2
    assert document(bottega("models", "scan", "--forget-missing", shelf, "--json"))["forgotten"] == 1
    assert str(shelf) not in bottega("models", "scan").stdout


def test_a_shelf_that_is_gone_is_dropped_before_a_scan_has_missed_it(bottega: Bottega, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    write_model(shelf / "a.safetensors")
    bottega("models", "scan", shelf)
    shelf.rename(tmp_path / "away")
    assert document(bottega("models", "scan", "--forget-missing", shelf, "--json"))["forgotten"] == 1
    assert "no model is called" in bottega("models", "show", "a").stderr


def test_an_empty_name_is_no_shelf(bottega: Bottega) -> None:
    told = bottega("models", "scan", "")
    assert told.returncode == 2 and "is empty; name a folder" in told.stderr
    assert os.getcwd() not in document(bottega("models", "scan", "--json"))["shelves"]


def test_a_model_that_is_gone_is_told_as_such(bottega: Bottega, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    write_model(shelf / "lost.safetensors")
    write_model(shelf / "kept.safetensors")
    bottega("models", "scan", shelf)
    (shelf / "lost.safetensors").unlink()
    bottega("models", "scan")
    for reference in ("lost", "lost.safetensors", shelf / "lost.safetensors"):
        told = bottega("models", "show", reference)
        assert told.returncode == 2 and "was here at an earlier scan" in told.stderr and "put it back" in told.stderr
    assert "did you mean" not in bottega("models", "show", "nothing like it").stderr
