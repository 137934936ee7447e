"""Show and steer the jobs of this home: through its server if one runs, else in the queue that waits for the next."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Protocol

from bottega.cli.progress import Progress
from bottega.cli.terminal import pairs, print_json, printable, table, time_text
from bottega.errors import BottegaError
from bottega.settings import Settings

SUMMARIES = {
    "list": "the jobs, the newest last",
    "show": "what is known of one",
    "watch": "follow what happens, to one job or to all, until Ctrl-C or the end of the job",
    "cancel": "end jobs: at once if they wait, within a step if they run",
    "pause": "keep jobs, or all of them, from being begun",
    "resume": "let paused jobs, or all of them, be begun",
    "retry": "have jobs that failed or were cancelled wait again",
    "move": "give a waiting job another place: before another one, or with --last at the end",
}
STATES = ("waiting", "paused", "running", "done", "failed", "cancelled")


class NothingToWatch(BottegaError):
    """Nothing happens to jobs while no server runs."""


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega jobs`; without an action it lists."""
    parser.set_defaults(action="list", state=[], limit=50)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    for name, summary in SUMMARIES.items():
        action = actions.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        lines = " to a line, of each event" if name == "watch" else ""
        action.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help=f"print one JSON document{lines}"
        )
        if name == "list":
            action.add_argument("--state", action="append", choices=STATES, help="only these; may be repeated")
            action.add_argument("--limit", type=positive, metavar="N", help="how many at most (50)")
            action.set_defaults(state=[], limit=50)
        elif name in ("show", "move"):
            action.add_argument("job", type=job_id, metavar="JOB", help="its id, or the beginning of it")
        elif name == "watch":
            which = "its id, or the beginning of it (default: all)"
            action.add_argument("job", nargs="?", type=job_id, metavar="JOB", help=which)
        else:
            whole = name in ("pause", "resume")
            more = " (none: the whole queue)" if whole else ""
            jobs = "their ids, or the beginnings of them"
            action.add_argument("jobs", nargs="*" if whole else "+", type=job_id, metavar="JOB", help=f"{jobs}{more}")
        if name == "move":
            place = action.add_mutually_exclusive_group(required=True)
            place.add_argument("--before", type=job_id, metavar="JOB", help="the job that it is to come right before")
            place.add_argument("--last", action="store_true", help="to the end of the line")


def job_id(text: str) -> str:
    """An id as it is; an empty one, with which every id begins, is more likely a script's mistake."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; name a job")
    return text


def positive(word: str) -> int:
    """A number of jobs, at least one."""
    if (number := int(word)) < 1:
        raise ValueError
    return number


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do what is asked, and tell."""
    with _desk(settings) as desk:
        return _DO[args.action or "list"](args, desk)


class Desk(Protocol):
    """Where jobs are looked up and steered."""

    def jobs(self, states: list[str], limit: int) -> list[dict[str, Any]]:
        """Jobs, the newest first, as plain data."""

    def job(self, id: str) -> dict[str, Any]:
        """One job."""

    def steer(self, id: str, action: str, **more: Any) -> dict[str, Any]:
        """Do something to a job; the job as it is then."""

    def steer_all(self, action: str) -> None:
        """Pause or resume the whole queue."""

    def events(self, id: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
        """What happens, to one job or to all: the kind of event, and what it says."""


class _There:
    """The server that runs on this home."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def jobs(self, states: list[str], limit: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        asked = "".join(f"&state={state}" for state in states)
        before = ""
        while len(found) < limit:
            page = self._server.get(f"/api/jobs?limit={min(limit - len(found), 500)}{asked}{before}")
            found += page["items"]
            if not page["next"]:
                break
            before = f"&before={page['next']}"
        return found

    def job(self, id: str) -> dict[str, Any]:
        job: dict[str, Any] = self._server.get(f"/api/jobs/{id}")
        return job

    def steer(self, id: str, action: str, **more: Any) -> dict[str, Any]:
        job: dict[str, Any] = self._server.post(f"/api/jobs/{id}/{action}", more or None)
        return job

    def steer_all(self, action: str) -> None:
        self._server.post(f"/api/queue/{action}")

    def events(self, id: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
        for heard in self._server.events_of(id) if id else self._server.events():
            yield heard.kind, heard.data


class _Here:
    """The queue's file, while no server has it."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def jobs(self, states: list[str], limit: int) -> list[dict[str, Any]]:
        return [_plain(job) for job in self._queue.jobs(states=states, limit=limit)]

    def job(self, id: str) -> dict[str, Any]:
        return _plain(self._queue.job(id))

    def steer(self, id: str, action: str, **more: Any) -> dict[str, Any]:
        return _plain(getattr(self._queue, action)(id, *more.values()))

    def steer_all(self, action: str) -> None:
        {"pause": self._queue.pause_all, "resume": self._queue.resume_all}[action]()

    def events(self, id: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
        raise NothingToWatch("no server runs on this home, so nothing happens", "start one with `bottega serve`")


def _plain(job: Any) -> dict[str, Any]:
    """A job as the server tells it."""
    told: dict[str, Any] = job.to_json()
    request = told.pop("request")
    return {**told, "recipe": request.get("recipe")}


@contextmanager
def _desk(settings: Settings) -> Iterator[Desk]:
    from bottega.cli.server import running

    if server := running(settings):
        yield _There(server)
        return
    from bottega.jobs.foreman import take_up
    from bottega.jobs.lock import HomeLock
    from bottega.jobs.queue import Queue

    with HomeLock(settings.home):  # no server may begin meanwhile
        queue = Queue(settings.home / "queue.sqlite")
        try:
            take_up(queue)  # nobody works on it, so it is not said to run
            yield _Here(queue)
        finally:
            queue.close()


def _whole(desk: Desk, id: str) -> str:
    """The id of the one job that begins so; as it is where that is none or several, for the error to name it."""
    if len(id) >= 20:
        return id
    found = [job["id"] for job in desk.jobs([], 1000) if job["id"].startswith(id)]
    return str(found[0]) if len(found) == 1 else id


# --- the actions


def _list(args: argparse.Namespace, desk: Desk) -> int:
    jobs = desk.jobs(args.state, args.limit)
    if args.json:
        print_json(jobs)
        return 0
    if not jobs:
        print("There are no jobs." if not args.state else f"No job is {' or '.join(args.state)}.")
        return 0
    in_line = bool(args.state) and not {"done", "failed", "cancelled"} & set(args.state)
    rows = [
        (job["id"][:10], job["kind"], _state_text(job), _age(job["created"]), _short(job["title"]))
        for job in (jobs if in_line else reversed(jobs))
    ]
    print(table(("job", "kind", "state", "asked", "what"), rows, sys.stdout, spare=(3, 1)))
    return 0


def _show(args: argparse.Namespace, desk: Desk) -> int:
    job = desk.job(_whole(desk, args.job))
    if args.json:
        print_json(job)
        return 0
    facts = [
        ("job", job["id"]),
        ("kind", job["kind"]),
        ("what", job["title"]),
        ("state", _state_text(job)),
        ("owner", job["owner"]),
        ("asked", _moment(job["created"])),
        ("began", _moment(job["started"])),
        ("ended", _moment(job["ended"])),
        ("attempt", str(job["attempt"]) if job["attempt"] > 1 else ""),
        ("after", ", ".join(job["after"])),
        ("digest", job["digest"]),
        *(("output", each["id"]) for each in job.get("outputs", ())),
    ]
    print(pairs([(name, value) for name, value in facts if value]))
    if job["error"]:
        print(f"\n{printable(job['error']['what'])}; {printable(job['error']['remedy'])}")
    return 0


def _steer(args: argparse.Namespace, desk: Desk) -> int:
    if not args.jobs:
        desk.steer_all(args.action)
        if args.json:
            print_json([])
        else:
            print("No job is begun any more." if args.action == "pause" else "Jobs are begun again.")
        return 0
    ids = [desk.job(_whole(desk, id))["id"] for id in args.jobs]  # a wrong one is told before anything is done
    steered: list[dict[str, Any]] = []
    try:
        for id in ids:
            steered.append(desk.steer(id, args.action))
    finally:
        if steered:
            _tell(steered, args)
    return 0


def _move(args: argparse.Namespace, desk: Desk) -> int:
    before = None if args.last else _whole(desk, args.before)
    _tell([desk.steer(_whole(desk, args.job), "move", before=before)], args)
    return 0


def _tell(jobs: list[dict[str, Any]], args: argparse.Namespace) -> None:
    if args.json:
        print_json(jobs)
    else:
        for job in jobs:
            print(f"{job['id']}: {_state_text(job)}")


def _watch(args: argparse.Namespace, desk: Desk) -> int:
    import json

    id = _whole(desk, args.job) if args.job else None
    failed = False
    with Progress(sys.stderr) as progress:
        for kind, told in desk.events(id):
            if id is not None and kind in ("done", "result", "failed", "cancelled"):
                failed = kind in ("failed", "cancelled")  # of several tries the last one counts
            if args.json:
                print(json.dumps({"event": kind, **told}), flush=True)
            elif kind == "step":
                progress.update(f"{told['job'][:10]} {told['phase']}", told["done"], told["total"])
            elif kind == "learned":
                progress.update(f"{told['job'][:10]} train", told["step"], told["total"])
            elif kind != "preview":
                progress.finish()
                print(f"{_moment(told['at'])} {told['job'][:10] or 'queue'}: {_words(kind, told)}", flush=True)
    return 1 if failed else 0


def _words(kind: str, told: dict[str, Any]) -> str:
    """An event in words."""
    match kind:
        case "queued":
            return f"waits behind {told['ahead']}" if told["ahead"] else "waits"
        case "started":
            return "begins"
        case "made":
            return f"made {told['output']}"
        case "sampled":
            return printable(f"sample after {told['step']} steps: {told['prompt']}")
        case "trained":
            return printable(f"trained {told['path']} in {told['steps']} steps")
        case "failed":
            return printable(f"failed: {told['what']}")
        case "note":
            return printable(told["text"])
        case "retried":
            return printable(f"waits again: {told['why']}")
        case "changed":
            return str(told["what"])
        case "done":
            return f"done in {time_text(told['seconds'])}"
    return kind


_DO: dict[str, Callable[[argparse.Namespace, Desk], int]] = {
    "list": _list,
    "show": _show,
    "watch": _watch,
    "move": _move,
    **dict.fromkeys(("cancel", "pause", "resume", "retry"), _steer),
}


def _state_text(job: dict[str, Any]) -> str:
    """The state, with how far it is or why it failed."""
    if job["state"] == "running" and job["progress"]:
        progress = job["progress"]
        left = f", {time_text(job['eta'])} left" if job["eta"] else ""
        return f"{progress['phase']} {progress['done']}/{progress['total']}{left}"
    if job["state"] == "failed" and job["error"]:
        return printable(f"failed: {_short(job['error']['what'], 60)}")
    return "stopping" if job["cancelling"] else str(job["state"])


def _short(words: str, most: int = 60) -> str:
    words = printable(" ".join(words.split()))
    return words if len(words) <= most else f"{words[: most - 1]}…"


def _moment(at: float | None) -> str:
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S") if at else ""


def _age(at: float) -> str:
    return f"{time_text(max(0.0, time.time() - at))} ago"
