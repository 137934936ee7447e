"""Sends a server requests by the hundred thousand, good and bad: it answers every one, and touches nothing elsewhere.

Half are as its OpenAPI description wants them, half break it somewhere; after them come names that lead elsewhere. The
server runs on a home of its own, and a hook within its process reports whatever it opens, makes, renames or removes
beyond that.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import Any
from urllib.parse import quote

from bottega.errors import BottegaError
from bottega.settings import Settings

PROCESSES = 2
MOST_FAILURES = 20
WITHIN = 60.0  # seconds that an answer, or the start of the server, may take
EACH, FEW = 50, 2  # requests to one operation before the next one has its turn; to one that waits for a job
STRANGERS = 8  # one of so many requests comes with the key and the cookie that were made up for it
# What would let jobs begin, or let go of the key that these requests are sent with.
SPARED = ("/api/queue/resume", "/sdapi/v1/server-stop", "/sdapi/v1/server-kill", "/sdapi/v1/server-restart")
# These wait for the job that they put into the queue, which is never begun here.
WAITING = ("/v1/images", "/sdapi/v1/txt2img", "/sdapi/v1/img2img")

# What leads out of a folder, ends a text early, or means something to whatever a name is put into.
HOSTILE = (
    "../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "..\\..\\windows", "/etc/passwd",
    "//etc/passwd", "file:///etc/passwd", "....//....//etc/passwd", "%00", "a%00.png", "%c0%ae%c0%ae/", "..;/", ".",
    "..", "~root", "CON", "' OR 1=1 --", '"; DROP TABLE jobs; --', "{{7*7}}", "${jndi:ldap://x}", "%25%30%30", "%",
    "<script>alert(1)</script>", "*", "a" * 5000, "\u202e", "\ud7ff", "🎨" * 50, "-1", "0", "1e999", "NaN", "null",
    "true", "[]", "{}", "%0d%0aX-Evil:1",
)  # fmt: skip

# Runs the server with a hook that writes down what is touched beyond the folders that it may use.
PROGRAM = """
import os, sys, json
told, home, allowed = sys.argv.pop(1), sys.argv.pop(1), json.loads(sys.argv.pop(1))
out = os.open(told, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
           "shutil.rmtree", "shutil.move", "shutil.copyfile"}
def within(path, folders):
    path = os.path.realpath(os.fsdecode(path))
    return any(path == each or path.startswith(each + os.sep) for each in folders)
def hook(event, args):
    if event == "open" and isinstance(args[0], (str, bytes)):
        path = os.fsdecode(args[0])
        harmless = path == os.devnull or path.startswith("/proc/") and path.endswith("/oom_score_adj")
        writes = isinstance(args[2], int) and args[2] & WRITES and not harmless
        if not within(args[0], [home] if writes else allowed):
            os.write(out, f"{'write' if writes else 'read'} {args[0]!r}\\n".encode())
    elif event in CHANGES and not all(within(each, [home]) for each in args if isinstance(each, (str, bytes))):
        os.write(out, f"{event} {args!r}\\n".encode())
    elif event == "socket.connect" and not (args[1][0] in ("127.0.0.1", "::1") if isinstance(args[1], tuple) else True):
        os.write(out, f"connect {args[1]!r}\\n".encode())
from bottega.cli import main
sys.addaudithook(hook)
sys.exit(main(sys.argv[1:]))
"""


class BenchError(BottegaError):
    """The requests can't be made, or the server did not start."""


@dataclass
class Report:
    """How many requests were sent and how they were answered; what must not happen is in `failures` and `outside`."""

    requests: int = 0
    operations: int = 0
    seed: int = 0
    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    median: float = 0.0
    slowest_99th: float = 0.0
    failures: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return asdict(self)

    @property
    def rows(self) -> list[tuple[str, str]]:
        """The report for people."""
        statuses = ", ".join(f"{count:,} x {status}" for status, count in sorted(self.statuses.items()))
        rows = [
            (
                "requests",
                f"{self.requests:,} to {self.operations} operations in {self.seconds:,.0f} s, seed {self.seed}",
            ),
            ("answers", statuses),
            ("time", f"{self.median:.1f} ms (median), {self.slowest_99th:.1f} ms (99 %)"),
            ("failures", "none" if not self.failures else "\n".join(self.failures)),
            ("outside", "nothing was touched" if not self.outside else "\n".join(self.outside)),
        ]
        return rows


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Send so many requests as `args.count` says, and tell; 1 if one of them did what it must not."""
    with tempfile.TemporaryDirectory(prefix="bottega-requests-") as folder:
        report = measure(args.count, Path(folder))
    if args.json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        print("\n".join(f"{name:<9} {value}" for name, value in report.rows))
    return 1 if report.failures or report.outside else 0


def measure(count: int, folder: Path, *, processes: int = PROCESSES, seed: int | None = None) -> Report:
    """Start a server in this folder, send it so many requests, and see what comes of it."""
    seed = secrets.randbelow(2**32) if seed is None else seed
    report = Report(seed=seed)
    began = time.monotonic()
    times: list[float] = []
    with serving(folder) as (url, key, secret):
        real = _something(url, key)
        send = partial(_send_all, url, key, secret, str(folder), real)
        share = -(-count // processes)
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            for told in pool.imap_unordered(send, [(seed + number, share) for number in range(processes)]):
                report.requests += told.requests
                report.operations = max(report.operations, told.operations)
                report.statuses += told.statuses
                report.failures += told.failures
                times += told.times
        report.failures += _hostile(url, key, secret, str(folder), report)
    with suppress(FileNotFoundError):
        report.outside = sorted(set((folder / "outside").read_text(errors="replace").splitlines()))
    report.failures = report.failures[:MOST_FAILURES]
    report.seconds = round(time.monotonic() - began, 1)
    percentiles = quantiles(times, n=100)
    report.median, report.slowest_99th = round(percentiles[49], 2), round(percentiles[98], 2)
    return report


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, str, str]]:
    """A server on a home in this folder that begins no job: its address, a key, and a secret that it must not tell."""
    home, secret = folder / "home", f"hf_{secrets.token_hex(16)}"
    (home / "temporary").mkdir(parents=True)
    (home / "settings.toml").write_text("requests_per_second = 100000\n")
    (home / "tokens.toml").write_text(f'huggingface = "{secret}"\n')
    (home / "tokens.toml").chmod(0o600)
    (folder / "beside.txt").write_text(secret)
    code = str(Path(__file__).resolve().parents[2])
    python = (sys.prefix, sys.base_prefix, code)
    allowed = [
        os.path.realpath(each) for each in (home, *python, "/proc", "/sys", "/dev", "/usr", "/lib", "/etc/localtime")
    ]
    command = [
        sys.executable,
        "-c",
        PROGRAM,
        str(folder / "outside"),
        str(home.resolve()),
        json.dumps(allowed),
        "serve",
        "--port",
        "0",
    ]
    environment = {
        **os.environ,
        "BOTTEGA_HOME": str(home),
        "PYTHONPATH": code,
        "OMP_NUM_THREADS": "1",
        "TMPDIR": str(home / "temporary"),
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=home, stdout=log, stderr=log)
    try:
        url, key = _address(process, home, folder / "log")
        yield url, key, secret
    finally:
        process.terminate()
        process.wait(WITHIN)


def _address(process: subprocess.Popen[bytes], home: Path, log: Path) -> tuple[str, str]:
    deadline = time.monotonic() + WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError, ValueError):
            told = json.loads((home / "serve.json").read_text())
            return str(told["url"]), str(told["key"])
        time.sleep(0.05)
    raise BenchError("the server did not start", log.read_text(errors="replace")[-2000:])


def _ask(url: str, key: str, method: str, path: str, body: Any = None) -> Any:
    import urllib3

    headers = {"Authorization": f"Bearer {key}"}
    answer = urllib3.request(method, f"{url}{path}", headers=headers, json=body, timeout=WITHIN)
    if answer.status >= 300:
        raise BenchError(f"the server answers {method} {path} with {answer.status}")
    return answer.json()


def _something(url: str, key: str) -> dict[str, str]:
    """Make a picture, and leave a job waiting; ids that mean something, by the paths that take them."""
    draft = {"prompt": "a red house", "sampling": {"steps": 1}}
    id = _ask(url, key, "POST", "/api/jobs", {"recipe": draft})["id"]
    deadline = time.monotonic() + WITHIN
    while not (outputs := _ask(url, key, "GET", f"/api/jobs/{id}")["outputs"]):
        if time.monotonic() > deadline:
            raise BenchError("no picture was made")
        time.sleep(0.2)
    _ask(url, key, "POST", "/api/queue/pause")
    waiting = _ask(url, key, "POST", "/api/jobs", {"recipe": draft})["id"]
    from_it = {"role": "init", "output": outputs[0]["id"]}
    _ask(url, key, "POST", "/api/resolve", {"recipe": {**draft, "task": "image-to-image", "inputs": [from_it]}})
    models = _ask(url, key, "GET", "/api/models")["items"]
    return {
        "/api/jobs/": waiting,
        "/api/outputs/": outputs[0]["id"],
        "/api/inputs/": outputs[0]["sha256"],
        "/api/models/": models[0]["id"],
    }


# --- requests as the description has them ----------------------------------------------------------------------------


@dataclass
class Sent:
    """What one process sent."""

    requests: int = 0
    operations: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)


def _send_all(url: str, key: str, secret: str, folder: str, real: dict[str, str], share: tuple[int, int]) -> Sent:
    """Send this process's share: (seed, how many)."""
    seed, count = share
    sent = Sent()
    cases = list(_operations(_ask(url, key, "GET", "/api/openapi.json")))
    sent.operations = len(cases) // 2
    import requests

    with requests.Session() as session:
        session.trust_env = False
        session.headers["Authorization"] = f"Bearer {key}"
        while sent.requests < count:
            before = sent.requests
            for name, strategy in cases:
                seed += 1
                most = min(FEW if _waits(name) else EACH, count - sent.requests)
                if most <= 0:
                    break
                _send(strategy, seed, most, partial(_one, session, url, secret, folder, real, sent, name))
            if sent.requests == before:
                raise BenchError("the description gives no more requests")
    return sent


def _operations(description: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Strategies for every operation: requests as it wants them, and requests that break its rules."""
    try:
        import schemathesis
        from schemathesis.core.result import Ok
    except ImportError:
        raise BenchError("schemathesis is not installed", "pip install 'bottega[dev]'") from None
    schema = schemathesis.openapi.from_dict(description)
    for found in schema.get_all_operations():
        operation = found.ok() if isinstance(found, Ok) else None
        if operation is None or operation.path in SPARED:
            continue
        for mode in schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE:
            yield operation.label, operation.as_strategy(generation_mode=mode)


def _send(strategy: Any, seed: int, most: int, one: Callable[[Any], None]) -> None:
    import hypothesis

    # Nothing is to be shrunk or remembered: each request is judged by itself.
    settings = hypothesis.settings(
        max_examples=most,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )

    @hypothesis.seed(seed)
    @settings
    @hypothesis.given(strategy)
    def send(case: Any) -> None:
        one(case)

    with suppress(hypothesis.errors.Unsatisfiable):  # nothing breaks the rules of what has none
        send()


def _one(
    session: Any, url: str, secret: str, folder: str, real: dict[str, str], sent: Sent, name: str, case: Any
) -> None:
    import requests

    known = next((id for path, id in real.items() if case.path.startswith(path)), None)
    if known and sent.requests % 2:  # else nothing but ids that mean nothing would ever be sent
        case.path_parameters = dict.fromkeys(case.path_parameters or (), known)
    told = case.as_transport_kwargs(base_url=url)
    if sent.requests % STRANGERS:  # else few would come past the gate, as the description tells of keys and cookies
        told["headers"].pop("Authorization", None)
        told.pop("cookies", None)
    began = time.perf_counter()
    waits = _waits(name)
    sent.requests += 1
    try:
        with session.request(**told, stream=True, allow_redirects=False, timeout=0.3 if waits else WITHIN) as answer:
            streams = answer.headers.get("content-type", "").startswith("text/event-stream")
            body = b"" if streams else answer.content
            status = answer.status_code
    except requests.exceptions.RequestException as error:
        # A client of these doors waits for the picture; others are answered, whatever they send.
        if not (waits and isinstance(error, requests.exceptions.Timeout)):
            sent.failures.append(f"{name}: no answer ({type(error).__name__}) to {case.as_curl_command()[:500]}")
        return
    sent.times.append((time.perf_counter() - began) * 1000)
    sent.statuses[status] += 1
    if wrong := _wrong(status, body, secret, folder):
        sent.failures.append(f"{name}: {wrong} to {case.as_curl_command()[:500]}")


def _waits(name: str) -> bool:
    """Whether an operation, `POST /v1/images/generations`, waits for the job that it makes."""
    return name.split(" ")[-1].startswith(WAITING)


def _wrong(status: int, body: bytes, secret: str, folder: str) -> str:
    """What an answer must not be."""
    if status >= 500:
        return f"{status} {body[:200]!r}"
    if secret.encode() in body:
        return "a secret"
    return "a path" if folder.encode() in body else ""


# --- names that lead elsewhere ---------------------------------------------------------------------------------------


def _hostile(url: str, key: str, secret: str, folder: str, report: Report) -> list[str]:
    """Put every hostile text into every place of every path and query; what was answered wrongly."""
    import urllib3

    failures = []
    pool = urllib3.PoolManager(1)
    headers = {"Authorization": f"Bearer {key}"}
    for path, methods in _ask(url, key, "GET", "/api/openapi.json")["paths"].items():
        if path in SPARED:
            continue
        for method, operation in methods.items():
            for place, target in _places(path, operation.get("parameters", ())):
                for text in HOSTILE:
                    for written in (quote(text, safe="%/"), quote(text, safe="")):
                        address = f"{url}{target.replace('{}', written)}"
                        with pool.request(
                            method.upper(), address, headers=headers, preload_content=False, timeout=WITHIN
                        ) as answer:
                            streams = answer.headers.get("content-type", "").startswith("text/event-stream")
                            body = b"" if streams else answer.read()
                            if streams:
                                answer.close()
                        report.requests += 1
                        report.statuses[answer.status] += 1
                        if wrong := _wrong(answer.status, body, secret, folder):
                            failures.append(f"{method.upper()} {path}, {place}: {wrong} to {text[:60]!r}")
    return failures


def _places(path: str, parameters: Any) -> Iterator[tuple[str, str]]:
    """The address with `{}` in each of its places in turn, and something harmless in the others."""
    names = [each["name"] for each in parameters if each["in"] == "path"]
    for name in names:
        address = path.replace(f"{{{name}}}", "{}")
        for other in names:
            address = address.replace(f"{{{other}}}", "0000000000000000")
        yield name, address
    plain = path
    for name in names:
        plain = plain.replace(f"{{{name}}}", "0000000000000000")
    for name in [each["name"] for each in parameters if each["in"] == "query"]:
        yield name, f"{plain}?{name}={{}}"
