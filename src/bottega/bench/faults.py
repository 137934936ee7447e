"""Kills servers and workers while many clients have pictures made, and looks for what was lost, doubled or changed."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bottega.bench.faulty import FAULTS, NO_ROOM, PROMPT, ROOM
from bottega.bench.serving import Client, Serving, Watch
from bottega.settings import Settings

RECIPES = 25  # different pictures that the jobs ask for, each many times
FOLLOWS = 4  # every so many-th job of a client waits for the one before it
ASKED = 50  # jobs at most, until the queue has filled what room was left in it
STUCK = 300.0  # seconds without a job that ends, after which something is wrong


@dataclass
class Report:
    """What was done to how many jobs, and what became of them. `wrong` has a line for whatever should not be."""

    jobs: int = 0
    clients: int = 0
    server_kills: int = 0
    worker_kills: int = 0
    seconds: float = 0.0
    states: dict[str, int] = field(default_factory=dict)
    most_attempts: int = 0
    slowest_start: float = 0.0
    faults: dict[str, str] = field(default_factory=dict)
    health_p99: float = 0.0
    health_asked: int = 0
    shutdown: float = 0.0
    wrong: list[str] = field(default_factory=list)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do all of it; 1 if anything was lost, doubled, changed or did not answer."""
    report = Report(jobs=args.jobs, clients=args.clients)
    with tempfile.TemporaryDirectory(prefix="bottega-faults-") as folder:
        began = time.monotonic()
        kill_while_working(Path(folder) / "killed", args.kills, report)
        commit_faults(Path(folder) / "faulty", report)
        report.seconds = round(time.monotonic() - began, 1)
    if args.json:
        print(json.dumps(asdict(report), indent=2))
    else:
        print(text(report))
    return 1 if report.wrong else 0


def text(report: Report) -> str:
    """The report for people."""
    lines = [
        f"{report.jobs} jobs of {report.clients} clients, {report.server_kills} kills of the server and "
        f"{report.worker_kills} of the worker, in {report.seconds:g} s: {report.states}",
        f"most attempts of a job: {report.most_attempts}; slowest start: {report.slowest_start:.2f} s",
        *(f"{fault}: {what}" for fault, what in report.faults.items()),
        f"/health meanwhile: 99 % within {1000 * report.health_p99:.0f} ms of {report.health_asked} times; "
        f"SIGTERM while working: {report.shutdown:.1f} s",
        *(f"WRONG: {line}" for line in report.wrong),
    ]
    return "\n".join([*lines, "" if report.wrong else "nothing lost, nothing doubled, nothing changed"]).strip()


def recipe(number: int) -> dict[str, Any]:
    """The draft of one of the pictures."""
    return {
        "prompt": f"a house number {number % RECIPES}",
        "sampling": {"steps": 2, "seed": number % RECIPES},
        "size": {"width": 64, "height": 64},
    }


def undisturbed(home: Path) -> dict[int, str]:
    """The SHA-256 of each picture, made in this process without a server."""
    from bottega.events import Made
    from bottega.recipe import recipe_from
    from bottega.workbench import Workbench

    workbench = Workbench(
        Settings(home=home, outputs=home / "outputs", device=os.environ.get("BOTTEGA_DEVICE", "auto"))
    )
    hashes = {}
    for number in range(RECIPES):
        for event in workbench.run(workbench.resolve(recipe_from(recipe(number)))):
            if isinstance(event, Made):
                hashes[number] = event.sha256
    return hashes


# --- killing ---------------------------------------------------------------------------------------------------------


def kill_while_working(home: Path, kills: int, report: Report) -> None:
    """Kill the server and the worker so many times each while clients have their jobs done, and look at the home."""
    home.mkdir(parents=True)
    expected = undisturbed(home.with_name("undisturbed"))
    with Serving(home) as serving:
        report.slowest_start = serving.start()
        taken: dict[str, int] = {}  # job id -> number, of those that the server said it has
        lock = threading.Lock()

        def ask(which: int) -> None:
            client = Client(serving)
            job: dict[str, Any] = {}
            for turn, number in enumerate(range(which, report.jobs, report.clients)):
                asked = {"recipe": recipe(number), "after": [job["id"]] if turn % FOLLOWS == FOLLOWS - 1 else []}
                job = client.insist("POST", "/api/jobs", asked, Idempotency_Key=f"job-{number}")
                with lock:
                    taken[job["id"]] = number
            client.close()

        clients = [threading.Thread(target=ask, args=(which,), daemon=True) for which in range(report.clients)]
        for thread in clients:
            thread.start()
        _kill(serving, kills, report)
        for thread in clients:
            thread.join()
        asking = Client(serving)
        _wait_for_all(asking, report)
        asking.close()
        code, _ = serving.stop()
        if code != 0:
            report.wrong.append(f"the server ended with {code} on SIGTERM")
    _look(home, taken, expected, report)


def _kill(serving: Serving, kills: int, report: Report) -> None:
    """Kill by turns: the server or its worker, at a random moment after some job was done."""
    random_moment = random.Random(7)
    asking = Client(serving)
    for number in range(2 * kills):
        done = asking.insist("GET", "/api/queue")["done"]
        deadline = time.monotonic() + 60.0
        while (told := asking.insist("GET", "/api/queue"))["done"] <= done and time.monotonic() < deadline:
            if told["waiting"] + told["running"] == 0:
                break
            time.sleep(0.02)
        time.sleep(random_moment.uniform(0.0, 0.6))
        if number % 2:
            serving.kill()
            report.server_kills += 1
            report.slowest_start = max(report.slowest_start, serving.start())
        else:
            for pid in serving.workers:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            report.worker_kills += 1
    asking.close()


def _wait_for_all(asking: Client, report: Report) -> None:
    since, ended = time.monotonic(), -1
    while True:
        told = asking.insist("GET", "/api/queue")
        over = told["done"] + told["failed"] + told["cancelled"]
        if over != ended:
            since, ended = time.monotonic(), over
        if told["waiting"] + told["running"] == 0 and over >= report.jobs:
            return
        if time.monotonic() - since > STUCK:
            report.wrong.append(f"no job ended within {STUCK:g} s: {told}")
            return
        time.sleep(0.1)


def _look(home: Path, taken: Mapping[str, int], expected: Mapping[int, str], report: Report) -> None:
    """Compare what the home holds with what was asked for."""
    with closing(sqlite3.connect(home / "queue.sqlite")) as queue:
        states = dict(queue.execute("SELECT id, state FROM jobs").fetchall())
        report.states = dict(Counter(states.values()))
        report.most_attempts = queue.execute("SELECT coalesce(max(attempt), 0) FROM jobs").fetchone()[0]
        ends = queue.execute("SELECT job, count(*) FROM events WHERE kind = 'done' GROUP BY job HAVING count(*) != 1")
        report.wrong += [f"job {job} was done {count} times" for job, count in ends]
        errors = queue.execute("SELECT id, error FROM jobs WHERE state != 'done'").fetchall()
        report.wrong += [f"job {id} is {states[id]}: {error}" for id, error in errors[:10]]
        _sound(queue, "queue", report)
    with closing(sqlite3.connect(home / "gallery.sqlite")) as gallery:
        (rows,) = gallery.execute("SELECT count(*) FROM outputs").fetchone()
        _sound(gallery, "gallery", report)
    if lost := set(taken) - set(states):
        report.wrong.append(f"{len(lost)} jobs were taken and are gone: {sorted(lost)[:5]}")
    if len(taken) != report.jobs or len(states) != report.jobs:
        report.wrong.append(f"{report.jobs} were asked for, {len(taken)} taken, {len(states)} are on record")
    files = {path.stem: path for path in (home / "outputs").rglob("*") if path.is_file()}
    if len(files) != report.jobs or rows != report.jobs:
        report.wrong.append(f"{report.jobs} jobs left {len(files)} files and {rows} rows in the gallery")
    for id, number in taken.items():
        path = files.get(f"{id}-0")
        if path is None:
            report.wrong.append(f"job {id} left no file")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != expected[number % RECIPES]:
            report.wrong.append(f"{path.name} differs from the picture that is made undisturbed")


def _sound(connection: sqlite3.Connection, what: str, report: Report) -> None:
    (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
    if verdict != "ok":
        report.wrong.append(f"the {what} is damaged: {verdict}")


# --- other faults ----------------------------------------------------------------------------------------------------


def commit_faults(home: Path, report: Report) -> None:
    """Have workers fail in every way, and disks; the server answers all the while, and the next job is done."""
    home.mkdir(parents=True)
    with Serving(home, ("-m", "bottega.bench.faulty", "serve")) as serving:
        serving.start()
        client, watch = Client(serving), Watch(serving, "/health")
        _over(client, client.insist("POST", "/api/jobs", {"recipe": recipe(0)}))
        watch.start()
        for fault in FAULTS:
            asked = {**recipe(1), "prompt": PROMPT + fault}
            bad = _over(client, client.insist("POST", "/api/jobs", {"recipe": asked}))
            _note(report, fault, bad, _over(client, client.insist("POST", "/api/jobs", {"recipe": recipe(2)})))
        kinds = [("database has no room", _full, 507)]
        if sys.platform == "linux":
            kinds.append(("database can't grow", _small, 503))
        for fault, broken, status in kinds:
            with broken(serving):
                statuses = _asked_in_vain(client, status)
            next = _over(client, client.insist("POST", "/api/jobs", {"recipe": recipe(3)}))
            report.faults[fault] = f"answered {dict(statuses)}, then {next['state']}"
            if statuses.keys() - {202, status} or status not in statuses or next["state"] != "done":
                report.wrong.append(f"{fault}: {report.faults[fault]}")
        with _no_outputs(home / "outputs"):
            bad = _over(client, client.insist("POST", "/api/jobs", {"recipe": recipe(4)}))
        _note(
            report,
            "outputs can't be written",
            bad,
            _over(client, client.insist("POST", "/api/jobs", {"recipe": recipe(4)})),
        )
        report.health_p99, report.health_asked = round(watch.end(), 4), len(watch.taken)
        if watch.failed or report.health_p99 > 0.2:
            report.wrong.append(f"/health failed {watch.failed} times, p99 {report.health_p99:.3f} s")
        client.insist("POST", "/api/jobs", {"recipe": {**recipe(5), "sampling": {"steps": 400}}})
        time.sleep(1.0)
        client.close()
        code, report.shutdown = serving.stop()
        if code != 0 or report.shutdown > 10:
            report.wrong.append(f"SIGTERM took {report.shutdown:.1f} s and ended with {code}")


def _note(report: Report, fault: str, bad: Mapping[str, Any], next: Mapping[str, Any]) -> None:
    error = (bad["error"] or {}).get("what", "")
    report.faults[fault] = f"{bad['state']} ({error}), then {next['state']}"
    if bad["state"] != "failed" or next["state"] != "done":
        report.wrong.append(f"{fault}: the job is {bad['state']}, the next one {next['state']}")


def _asked_in_vain(client: Client, status: int) -> Counter[int]:
    """How jobs are answered until one is with this status: there may be room left for some."""
    statuses: Counter[int] = Counter()
    while not statuses[status] and statuses.total() < ASKED:
        statuses[client.ask("POST", "/api/jobs", {"recipe": recipe(3)})[0]] += 1
    return statuses


def _over(client: Client, job: Mapping[str, Any]) -> dict[str, Any]:
    """The job once it has ended, or as it is after a long time."""
    deadline = time.monotonic() + STUCK
    while True:
        told: dict[str, Any] = client.insist("GET", f"/api/jobs/{job['id']}")
        if told["state"] not in ("waiting", "running") or time.monotonic() > deadline:
            return told
        time.sleep(0.05)


@contextmanager
def _full(serving: Serving) -> Iterator[None]:
    """While the block lasts, the server's queue finds its disk full."""
    assert serving.process is not None
    serving.process.send_signal(NO_ROOM)
    try:
        yield
    finally:
        serving.process.send_signal(ROOM)


@contextmanager
def _small(serving: Serving) -> Iterator[None]:
    """While the block lasts, no file of the server grows, which a database takes for a broken disk."""
    assert serving.process is not None
    pid = serving.process.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def _no_outputs(folder: Path) -> Iterator[None]:
    """While the block lasts, a file is where the folder of outputs should be; permissions would not stop root."""
    aside = folder.with_name("outputs-aside")
    folder.rename(aside)
    folder.touch()
    try:
        yield
    finally:
        folder.unlink()
        aside.rename(folder)
