"""Many headers are read in processes of their own: a file that kills its reader is refused, and no other is lost."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_models import FAMILIES, write_model

from bottega.inspector import COMMAND
from bottega.library import Catalog, open_catalog, readers
from bottega.library.readers import FEW, Readers
from bottega.library.reading import Job
from bottega.library.scan import Report, scan
from bottega.recognisers import all_recognisers

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals")

PROCESS = (sys.executable, str(Path(__file__).with_name("reading_process.py")))


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with open_catalog(tmp_path / "home" / "catalog.sqlite") as opened:
        yield opened


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """As many models as are read in processes, in two sorts."""
    folder = tmp_path / "shelf"
    models = [write_model(tmp_path / f"{colour}.safetensors", colour) for colour in ("red", "blue")]
    folder.mkdir()
    for index in range(FEW + 40):
        os.link(models[index % 2], folder / f"{index:03}.safetensors")
    return folder


def children() -> set[int]:
    """The processes that this one has started and that are still there."""
    tasks = Path(f"/proc/{os.getpid()}/task")
    return {int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()}


def scanned(catalog: Catalog, shelf: Path, *words: str) -> Report:
    return scan(catalog, [shelf], FAMILIES, inspector=(*PROCESS, *words))


def no_reading_here(*_: object) -> None:
    raise AssertionError("this process must not read them itself")


def test_processes_tell_what_this_process_would(catalog: Catalog, shelf: Path, tmp_path: Path) -> None:
    write_model(Path(os.fsdecode(os.fsencode(shelf) + b"/\xff\n\x1b.safetensors")), metadata={"title": "é模"})
    (shelf / "broken.safetensors").write_bytes(b"<html>")
    before = children()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Readers, "read", no_reading_here)
        report = scanned(catalog, shelf)
    assert report.headers_read == FEW + 42
    with open_catalog(tmp_path / "other" / "catalog.sqlite") as other:
        scan(other, [shelf], FAMILIES)
        assert catalog.entries() == other.entries()
    assert children() == before
    assert scanned(catalog, shelf).headers_read == 0


def test_few_files_start_no_process(catalog: Catalog, tmp_path: Path) -> None:
    for index in range(FEW):
        write_model(tmp_path / "few" / f"{index}.safetensors")
    report = scan(catalog, [tmp_path / "few"], FAMILIES, inspector=("/no/such/program",))
    assert report.sorts.total() == FEW


@pytest.mark.parametrize("command", [("/no/such/program",), (*PROCESS, "useless"), (*PROCESS, "other"), ("true",)])
def test_without_a_process_of_use_they_are_read_here(command: tuple[str, ...], catalog: Catalog, shelf: Path) -> None:
    report = scan(catalog, [shelf], FAMILIES, inspector=command)
    assert report.sorts.total() == FEW + 40 and report.refused == ()


@pytest.mark.slow
@pytest.mark.parametrize(("deed", "said"), [("crash", "SIGSEGV"), ("exit", "exit code 3"), ("spin", "SIGXCPU")])
def test_a_file_that_kills_its_reader_is_refused(deed: str, said: str, catalog: Catalog, shelf: Path) -> None:
    for index in range(2):
        write_model(shelf / f"{deed}-{index}.safetensors")
    report = scanned(catalog, shelf)
    assert [entry.path.name for entry in report.refused] == [f"{deed}-0.safetensors", f"{deed}-1.safetensors"]
    assert all("kills whatever reads it" in entry.error and said in entry.error for entry in report.refused)
    assert all(entry.verdict == "refused" for entry in report.refused)
    assert report.sorts.total() == FEW + 40
    assert scanned(catalog, shelf).headers_read == 0  # and is not tried again until it changes


def test_a_file_that_takes_too_much_memory_is_refused(catalog: Catalog, shelf: Path) -> None:
    write_model(shelf / "eat-all.safetensors")
    report = scanned(catalog, shelf)
    assert [(entry.path.name, "memory" in entry.error) for entry in report.refused] == [("eat-all.safetensors", True)]
    assert report.sorts.total() == FEW + 40


def test_a_file_that_takes_too_long_is_refused_and_tried_again(
    catalog: Catalog, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers.Readers.__init__, "__defaults__", ((), 1.0))
    hanging = write_model(shelf / "hang-0.safetensors")
    before = children()
    report = scanned(catalog, shelf)
    assert [(entry.path, "too long" in entry.error) for entry in report.refused] == [(hanging, True)]
    assert report.sorts.total() == FEW + 40
    assert children() == before
    hanging.rename(shelf / "quick.safetensors")
    assert scanned(catalog, shelf).refused == ()


def test_what_a_reader_prints_is_no_answer(catalog: Catalog, shelf: Path) -> None:
    write_model(shelf / "print-0.safetensors")
    assert scanned(catalog, shelf).refused == ()


def test_many_bad_files(catalog: Catalog, shelf: Path) -> None:
    for index in range(12):
        write_model(shelf / f"{('crash', 'exit')[index % 2]}-{index}.safetensors")
    report = scanned(catalog, shelf)
    assert (len(report.refused), report.sorts.total()) == (12, FEW + 40)


def test_an_interrupted_scan_leaves_no_process_and_keeps_what_was_read(catalog: Catalog, shelf: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 30:
            raise KeyboardInterrupt

    before = children()
    with pytest.raises(KeyboardInterrupt):
        scan(catalog, [shelf], FAMILIES, interrupt, inspector=PROCESS)
    assert children() == before
    kept = len(catalog.entries())
    assert 30 <= kept < FEW + 40
    assert scanned(catalog, shelf).headers_read == FEW + 40 - kept


def test_interrupted_while_the_processes_start(catalog: Catalog, shelf: Path) -> None:
    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    before = children()
    timer = threading.Timer(0.5, interrupt)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        scanned(catalog, shelf, "late")
    assert children() == before


@pytest.mark.slow
def test_reading_goes_on_while_a_scan_writes(catalog: Catalog, tmp_path: Path) -> None:
    """A second connection sees whole batches only, waits for nobody, and always finds the index and the table agree."""
    shelf = tmp_path / "shelf"
    model = write_model(shelf / "ink0.safetensors")
    for index in range(1, 3000):
        os.link(model, shelf / f"ink{index}.safetensors")
    sizes, slowest, wrong = [], 0.0, []
    done = threading.Event()

    def read() -> None:
        nonlocal slowest
        with open_catalog(catalog.path) as other:
            while not done.is_set():
                began = time.monotonic()
                found = other.search("ink", limit=None)
                slowest = max(slowest, time.monotonic() - began)
                sizes.append(len(found))
                count, indexed = other._connection.execute(
                    "SELECT (SELECT count(*) FROM models), (SELECT count(*) FROM search)"
                ).fetchone()
                if count != indexed:
                    wrong.append((count, indexed))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        scan(catalog, [shelf], FAMILIES, inspector=PROCESS)
    finally:
        done.set()
        thread.join()
    assert wrong == [] and sizes == sorted(sizes) and len(set(sizes)) > 2
    assert slowest < 5  # never near the 20 seconds that a locked file is waited for


SCAN = """
import sys
from pathlib import Path
from small_models import FAMILIES
from bottega.library import open_catalog
from bottega.library.scan import scan
with open_catalog(Path(sys.argv[1])) as catalog:
    print("begins", flush=True)
    scan(catalog, [Path(sys.argv[2])], FAMILIES, inspector=sys.argv[3:])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_killed_at_any_moment_a_scan_goes_on_from_there(tmp_path: Path) -> None:
    shelf, path = tmp_path / "shelf", tmp_path / "catalog.sqlite"
    model = write_model(shelf / "0.safetensors")
    for index in range(1, 3000):
        os.link(model, shelf / f"{index}.safetensors")
    draw = random.Random(7)
    last = 0
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", SCAN, str(path), str(shelf), *PROCESS],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"begins\n"
        time.sleep(draw.uniform(0.1, 1.0))
        readers_of_it = {
            int(pid)
            for task in Path(f"/proc/{process.pid}/task").iterdir()
            for pid in (task / "children").read_text().split()
        }
        process.kill()
        process.communicate()
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (count,) = connection.execute("SELECT count(*) FROM models").fetchone()
        assert connection.execute("SELECT count(*) FROM search").fetchone() == (count,)
        connection.close()
        assert count >= last
        last = count
        deadline = time.monotonic() + 60
        while any(Path(f"/proc/{pid}").exists() for pid in readers_of_it) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not any(Path(f"/proc/{pid}").exists() for pid in readers_of_it)
    with open_catalog(path) as catalog:
        report = scan(catalog, [shelf], FAMILIES, inspector=PROCESS)
        assert (len(report.paths), report.headers_read) == (3000, 3000 - last)
        assert len(catalog.search("9", limit=None)) > 0


def test_the_real_process_reads_what_the_real_recognisers_know(catalog: Catalog, shelf: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Readers, "read", no_reading_here)
        patched.chdir(tmp_path)
        (tmp_path / "json.py").write_text("raise SystemExit('a module that lies in the current folder was imported')")
        report = scan(catalog, [shelf], all_recognisers(), inspector=COMMAND)
    assert report.sorts == {("unknown", "", ""): FEW + 40}


def test_the_process_imports_nothing_heavy(tmp_path: Path) -> None:
    program = "import sys, bottega.inspector; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "pydantic", "PIL", "multiprocessing", "pickle"}.intersection(done.stdout.split())


def test_jobs_of_any_length_never_fill_the_pipe(catalog: Catalog, tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(14):
        folder = folder / ("深" * 80)
    folder.mkdir(parents=True)
    jobs = []
    for index in range(FEW + 10):
        path = write_model(folder / f"{index}.safetensors")
        jobs.append(Job(path, folder, (1, 2, 3), called="名" * 200))  # type: ignore[arg-type]
    with Readers(jobs, FAMILIES, PROCESS) as reading:
        assert len([reading.next() for _ in jobs]) == FEW + 10
