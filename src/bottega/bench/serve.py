"""What serving costs: the rate beside the engine's own, processor time for a job, latency when overloaded, memory."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bottega.bench.serving import Client, Serving, Watch, percentile, spent
from bottega.settings import Settings

WARM = 5  # jobs before anything is measured
QUIET = 10.0  # seconds over which an idle server is watched
OVERLOAD = 10  # times as many requests as can be done


@dataclass
class Report:
    """What was measured: rates in jobs a second, times in seconds, memory in bytes; `goals` says which were met."""

    jobs: int = 0
    clients: int = 0
    start: float = 0.0
    engine_rate: float = 0.0
    served_rate: float = 0.0
    cpu_per_job: float = 0.0
    idle: float = 0.0
    status_p50: float = 0.0
    status_p99: float = 0.0
    overload: dict[str, int] = field(default_factory=dict)
    overload_seconds: float = 0.0
    grown_by: int = 0
    resident: int = 0
    goals: dict[str, bool] = field(default_factory=dict)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Measure, and tell; 1 if a goal was missed."""
    report = Report(jobs=args.jobs, clients=args.clients)
    with tempfile.TemporaryDirectory(prefix="bottega-serve-") as folder:
        measure(Path(folder), report)
    if args.json:
        print(json.dumps(asdict(report), indent=2))
    else:
        print(text(report))
    return 0 if all(report.goals.values()) else 1


def text(report: Report) -> str:
    """The report for people."""
    share = report.served_rate / report.engine_rate if report.engine_rate else 0.0
    facts = [
        ("start", f"{report.start:.2f} s until it answers"),
        ("engine alone", f"{report.engine_rate:.2f} jobs/s"),
        ("served", f"{report.served_rate:.2f} jobs/s to {report.clients} clients: {100 * share:.1f} % of that"),
        ("server", f"{1000 * report.cpu_per_job:.2f} ms of processor time for each job"),
        ("idle", f"{100 * report.idle:.2f} % of a core, server and worker together"),
        (
            "overload",
            f"{sum(report.overload.values())} requests in {report.overload_seconds:.1f} s were answered with "
            f"{report.overload}; a job's status meanwhile: p50 {1000 * report.status_p50:.1f} ms, "
            f"p99 {1000 * report.status_p99:.1f} ms",
        ),
        ("memory", f"{report.resident >> 20} MiB, {report.grown_by / (1 << 20):+.1f} MiB over {report.jobs} jobs"),
    ]
    missed = [goal for goal, met in report.goals.items() if not met]
    lines = "\n".join(f"{name:<14}{what}" for name, what in facts)
    return f"{lines}\n\n" + (f"missed: {'; '.join(missed)}" if missed else "all goals are met")


def recipe(number: int) -> dict[str, Any]:
    """The draft of job number `number`: the starter model's own size, few steps."""
    return {"prompt": "a red house by the sea", "sampling": {"steps": 4, "seed": number}}


def measure(folder: Path, report: Report) -> None:
    """Measure it all, on a home of its own."""
    home, alone = folder / "home", min(100, max(10, report.jobs // 10))
    home.mkdir()
    before_it = _engine_rate(folder / "engine", alone)
    with Serving(home) as serving:
        report.start = serving.start()
        client = Client(serving)
        _all_over(client, [client.insist("POST", "/api/jobs", {"recipe": recipe(n)}) for n in range(WARM)])
        report.idle = _idle(serving)
        report.resident = before = serving.resident()
        report.served_rate, report.cpu_per_job = _serve(serving, report)
        report.resident = serving.resident()
        report.grown_by = report.resident - before
        _overload(serving, report)
        client.close()
        serving.stop()
    # Before and after, as other programs' load comes and goes.
    report.engine_rate = (before_it + _engine_rate(folder / "engine", alone)) / 2
    report.goals = {
        "up in 2 s": report.start <= 2.0,
        "95 % of the engine's own rate": report.served_rate >= 0.95 * report.engine_rate,
        "5 ms for each job": report.cpu_per_job <= 0.005,
        "0.5 % of a core when idle": report.idle <= 0.005,
        "status within 50 ms when overloaded": report.status_p99 <= 0.05,
        "only 202 and 429 when overloaded": set(report.overload) <= {"202", "429"},
    }


def _engine_rate(home: Path, jobs: int) -> float:
    """Jobs a second without a server, in this process, one after the other."""
    from bottega.recipe import recipe_from
    from bottega.workbench import Workbench

    device = os.environ.get("BOTTEGA_DEVICE", "auto")
    workbench = Workbench(Settings(home=home, outputs=home / "outputs", device=device))
    recipes = [workbench.resolve(recipe_from(recipe(number))) for number in range(jobs + WARM)]
    for each in recipes[:WARM]:
        list(workbench.run(each))
    began = time.monotonic()
    for each in recipes[WARM:]:
        list(workbench.run(each))
    return jobs / (time.monotonic() - began)


def _serve(serving: Serving, report: Report) -> tuple[float, float]:
    """Jobs a second that the clients get, and seconds of the server's processor time for each."""
    ids: list[str] = []
    lock = threading.Lock()

    def ask(which: int) -> None:
        client = Client(serving)
        for number in range(which, report.jobs, report.clients):
            job = client.insist("POST", "/api/jobs", {"recipe": recipe(number)})
            with lock:
                ids.append(job["id"])
        client.close()

    cpu = serving.cpu()
    clients = [threading.Thread(target=ask, args=(which,), daemon=True) for which in range(report.clients)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    client = Client(serving)
    _wait(client, 5.0)  # seldom: what asking costs is not what a job costs
    cpu = serving.cpu() - cpu
    jobs = [client.insist("GET", f"/api/jobs/{id}") for id in ids]
    client.close()
    ends = sorted(job["ended"] for job in jobs)
    # From the first end to the last: whoever asks needs a moment until there is work at all.
    return (len(ends) - 1) / (ends[-1] - ends[0]), cpu / len(jobs)


def _overload(serving: Serving, report: Report) -> None:
    """Ask for far more than can be done, and see how long a status takes meanwhile."""
    client = Client(serving)
    job = client.insist("POST", "/api/jobs", {"recipe": recipe(0)})
    watch = Watch(serving, f"/api/jobs/{job['id']}", every=0.01)
    statuses: Counter[str] = Counter()
    lock = threading.Lock()
    wanted = OVERLOAD * max(100, report.jobs // 5)

    def ask(which: int) -> None:
        asking = Client(serving)
        for number in range(which, wanted, report.clients):
            status, _ = asking.ask("POST", "/api/jobs", {"recipe": recipe(number)})
            with lock:
                statuses[str(status)] += 1
        asking.close()

    clients = [threading.Thread(target=ask, args=(which,), daemon=True) for which in range(report.clients)]
    watch.start()
    began = time.monotonic()
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    report.overload_seconds = time.monotonic() - began
    report.status_p99 = watch.end()
    report.status_p50 = percentile(watch.taken, 0.5)
    report.overload = dict(statuses)
    client.close()


def _idle(serving: Serving) -> float:
    """The share of a core that server and workers take when there is nothing to do."""
    assert serving.process is not None
    time.sleep(2.0)
    pids = [serving.process.pid, *serving.workers]
    before = sum(map(spent, pids))
    time.sleep(QUIET)
    return (sum(map(spent, pids)) - before) / QUIET


def _wait(client: Client, every: float) -> None:
    while True:
        told = client.insist("GET", "/api/queue")
        if told["waiting"] + told["running"] == 0:
            return
        time.sleep(every)


def _all_over(client: Client, jobs: list[Mapping[str, Any]]) -> None:
    for job in jobs:
        while client.insist("GET", f"/api/jobs/{job['id']}")["ended"] is None:
            time.sleep(0.1)
