"""`bottega serve` as one starts and ends it: its link, its files, its second self, its exit codes, its secrets."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from gallery_outputs import recipe_of, write_output
from served import WITHIN, Running, command, started

from bottega.api.logs import JsonLines, Redacted
from bottega.api.server import AddressError, listen, serve
from bottega.api.signals import Signals
from bottega.gallery import Gallery
from bottega.jobs.queue import Queue
from bottega.settings import Settings
from bottega.training.datasets import Datasets


def listeners(process: int) -> set[str]:
    """The addresses that a process listens on."""
    inodes = {
        os.readlink(f"/proc/{process}/fd/{fd}")
        for fd in os.listdir(f"/proc/{process}/fd")
        if os.path.exists(f"/proc/{process}/fd/{fd}") or os.path.islink(f"/proc/{process}/fd/{fd}")
    }
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                found.add(fields[1].partition(":")[0])
    return found


# --- one server, from its start to its end ---------------------------------------------------------------------------


@pytest.mark.slow
def test_a_server_from_its_link_to_its_end(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with started(home) as server:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", server.url)
        assert server.told.keys() == {"url", "pid", "key"}
        assert (server.told["url"], server.told["pid"]) == (server.url, server.process.pid)
        for name in ("serve.json", "access.sqlite"):
            assert stat.S_IMODE((home / name).stat().st_mode) == 0o600
        if Path("/proc/self/net/tcp").exists():
            assert listeners(server.process.pid) <= {"0100007F", "00000000000000000000000001000000"}
            assert "torch" not in Path(f"/proc/{server.process.pid}/maps").read_text()

        entered = server.ask("GET", server.link.removeprefix(server.url), Authorization="")
        assert (entered.status, entered.headers["location"]) == (303, "/")
        cookie = entered.cookies[0].partition(";")[0]
        assert server.ask("GET", "/api/session", Authorization="", Cookie=cookie).json["name"] == "owner"

        again = subprocess.run(
            command("serve"), env={**os.environ, "BOTTEGA_HOME": str(home)}, capture_output=True, text=True
        )
        assert (again.returncode, again.stdout) == (1, "")
        assert server.url in again.stderr

        link = subprocess.run(
            command("serve", "--link"), env={**os.environ, "BOTTEGA_HOME": str(home)}, capture_output=True, text=True
        )
        assert link.returncode == 0
        assert server.ask("GET", link.stdout.strip().removeprefix(server.url), Authorization="").status == 303

        assert server.ask("GET", "/health").json["status"] == "ok"
        metrics = server.ask("GET", "/metrics").body.decode()
        check_exposition(metrics)
        assert 'bottega_requests_total{door="health",status="200"}' in metrics

        began = time.monotonic()
        assert server.end() == 0
        assert time.monotonic() - began < 10
        assert server.process.stderr and server.process.stderr.read() == ""
    assert not (home / "serve.json").exists()
    with closing(sqlite3.connect(home / "queue.sqlite")) as queue:
        assert queue.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    # What is left over is the next server's: a browser that was signed in still is.
    with started(home) as server:
        name = f"bottega_{server.url.rsplit(':', 1)[1]}"
        kept = f"{name}={cookie.partition('=')[2]}"
        assert server.ask("GET", "/api/session", Authorization="", Cookie=kept).json["name"] == "owner"
        assert server.end(signal.SIGINT) == 0


def check_exposition(text: str) -> None:
    """Assert that a text is what Prometheus reads: https://prometheus.io/docs/instrumenting/exposition_formats/."""
    label = r'[a-z_]+="(?:[^"\\\n]|\\.)*"'
    sample = re.compile(rf"bottega_[a-z_]+(?:\{{{label}(?:,{label})*\}})? (?:[0-9.e+-]+|\+Inf)")
    typed = set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            typed.add(line.split()[2])
        elif not line.startswith("# HELP "):
            assert sample.fullmatch(line), line
            name = re.split(r"[{ ]", line)[0]
            assert name in typed or re.sub(r"_(bucket|sum|count)$", "", name) in typed
    assert text.endswith("\n")


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with started(tmp_path) as server:
        os.kill(server.process.pid, signal.SIGSTOP)  # both come before it can do anything
        server.process.send_signal(signal.SIGTERM)
        os.kill(server.process.pid, signal.SIGCONT)
        deadline = time.monotonic() + WITHIN
        while server.process.poll() is None:
            server.process.send_signal(signal.SIGTERM)
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert server.process.returncode in (0, 128 + signal.SIGTERM)
    assert not (tmp_path / "serve.json").exists()


@pytest.mark.slow
def test_closing_the_terminal_ends_it_as_well(tmp_path: Path) -> None:
    with started(tmp_path) as server:
        assert server.end(signal.SIGHUP) == 0
    assert not (tmp_path / "serve.json").exists()


@pytest.mark.slow
def test_a_server_that_is_to_outlive_its_terminal_does(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    try:
        with started(tmp_path) as server:
            server.process.send_signal(signal.SIGHUP)
            assert server.ask("GET", "/health").status == 200
            assert server.end() == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
def test_a_server_whose_output_nobody_reads_serves_and_says_so(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.Popen(
        command("serve", "--port", "0"),
        env={**os.environ, "BOTTEGA_HOME": str(tmp_path)},
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    try:
        assert process.stderr and "bottega serve --link" in process.stderr.readline()
        server = Running(process, tmp_path, json.loads((tmp_path / "serve.json").read_text())["url"], "")
        assert server.ask("GET", "/health").status == 200
        assert server.end() == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_signal_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    moments = {"serve.lock": signal.SIGTERM, "access.sqlite": signal.SIGINT, "queue.sqlite": signal.SIGHUP}
    for name, number in moments.items():
        home = tmp_path / name
        process = subprocess.Popen(
            command("serve", "--port", "0"),
            env={**os.environ, "BOTTEGA_HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + WITHIN
        while not (home / name).exists():  # as far as that it has come
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(number)
        _, said = process.communicate(timeout=WITHIN)
        assert (process.returncode, said) == (0, "")
        assert not (home / "serve.json").exists()
    with started(home) as server:  # nothing of it is in the way
        assert server.end() == 0


# --- what can't be started -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_others_are_not_listened_to_without_a_key(
    bottega: Command, home: Path, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bottega.api.server.serve", lambda *_: pytest.fail("others are listened to"))
    ran = bottega("serve", "--host", host, "--port", "0")
    assert ran.code == 2
    assert "bottega users add" in ran.err
    assert not (home / "serve.json").exists()


def test_a_port_that_is_taken_is_named_with_a_remedy(bottega: Command) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = bottega("serve", "--port", port)
    assert ran.code == 1
    assert f"port {port} of 127.0.0.1 is in use" in ran.err and "--port" in ran.err


def limited(soft: int, hard: int) -> tuple[int, list[str]]:
    """What of the files that are allowed becomes allowed, and how many connections that is; or the error."""
    script = (
        "import resource, sys\n"
        "from bottega.api.server import allow_files, most_connections\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        "allow_files()\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], most_connections())\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    return ran.returncode, (ran.stdout or ran.stderr).split()


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
def test_there_are_files_for_all_connections_and_fewer_connections_where_there_are_not() -> None:
    assert limited(300, 5000) == (0, ["2128", "1000"])
    assert limited(3000, 5000) == (0, ["3000", "1000"])
    assert limited(300, 528) == (0, ["528", "200"])
    assert limited(100, 256) == (0, ["256", "64"])


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
def test_where_too_few_files_may_be_opened_that_is_said(tmp_path: Path) -> None:
    ran = subprocess.run(
        ["sh", "-c", f"ulimit -n 24; exec {shlex.join(command('serve', '--port', '0'))}"],
        env={**os.environ, "BOTTEGA_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == (
        "bottega: this process may open 24 files at once, and a server needs 256; "
        "raise the limit of open files (ulimit -n)\n"
    )
    assert not (tmp_path / "home").exists()


def test_a_server_that_nobody_can_reach_any_more_ends_and_says_so() -> None:
    """Its sockets are taken from it as uvloop takes one that has failed."""

    class Nobody:
        def close(self) -> None:
            pass

    sockets = listen("127.0.0.1", 0)

    def fail() -> None:
        for one in sockets:
            one.detach()

    with pytest.raises(AddressError, match="has closed a socket"):
        serve(None, Nobody(), sockets, fail, Signals())  # type: ignore[arg-type]


def test_small_answers_are_sent_at_once() -> None:
    for one in listen("127.0.0.1", 0):
        with one:
            assert one.proto == socket.IPPROTO_TCP  # or asyncio leaves Nagle's algorithm on: 40 ms for each answer


def test_a_port_that_is_taken_in_ipv6_is_taken() -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        taken = listen("::1", 0)
    except AddressError:
        pytest.skip("this machine has no IPv6")
    try:
        with pytest.raises(AddressError, match="in use"):
            listen("127.0.0.1", taken[0].getsockname()[1])
    finally:
        for one in taken:
            one.close()


@pytest.mark.parametrize("words", [("--port", "65536"), ("--port", "x"), ("--host", "no.such.host.invalid")])
def test_what_is_no_address_is_refused(bottega: Command, words: tuple[str, ...]) -> None:
    ran = bottega("serve", *words)
    assert ran.code in (1, 2)
    assert len(ran.err.splitlines()) == 1


def test_without_a_server_there_is_no_link(bottega: Command, home: Path) -> None:
    assert "bottega serve" in bottega("serve", "--link").err
    home.mkdir(exist_ok=True)
    (home / "serve.json").write_text('{"url": "http://127.0.0.1:1", "pid": 99999999, "key": "x"}')
    assert bottega("serve", "--link").code == 1


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_can_not_be_written_is_named(bottega: Command, home: Path) -> None:
    home.mkdir(mode=0o500)
    ran = bottega("serve", "--port", "0")
    assert ran.code == 1
    assert str(home) in ran.err


def test_a_home_that_is_a_file_is_named(bottega: Command, home: Path) -> None:
    home.write_text("x")
    ran = bottega("serve", "--port", "0")
    assert ran.code in (1, 2)
    assert str(home) in ran.err and "bug" not in ran.err


# --- users -----------------------------------------------------------------------------------------------------------


def test_users_are_added_listed_and_removed(bottega: Command) -> None:
    assert "no users" in bottega("users", "list").out
    added = bottega("users", "add", "ada", "--scopes", "read,manage", "--waiting", 5, "--pixels-per-day", 1000)
    assert added.code == 0
    assert re.fullmatch(r"bottega_[\w-]{43}\n", added.out)
    assert "not shown again" in added.err
    [user] = bottega("users", "list", "--json").json
    assert (user["name"], user["scopes"], user["waiting"]) == ("ada", ["manage", "read"], 5)
    listed = bottega("users", "list").out
    assert "ada" in listed and added.out.strip() not in listed
    assert bottega("users", "key", "ada").out != added.out
    assert bottega("users", "add", "ada").code == 2
    assert bottega("users", "add", "bob", "--scopes", "root").code == 2
    assert bottega("users", "add", "bob", "--waiting", 0).code == 2
    assert bottega("users", "remove", "ada").code == 0
    assert bottega("users", "remove", "ada").code == 2


def test_what_a_user_may_do_is_changed(bottega: Command) -> None:
    bottega("users", "add", "ada", "--waiting", 5, "--per-minute", 9)

    def ada() -> dict[str, Any]:
        [user] = bottega("users", "list", "--json").json
        return {name: user[name] for name in ("scopes", "waiting", "per_minute", "pixels_per_day")}

    changed = bottega("users", "change", "ada", "--waiting", "none", "--pixels-per-day", 1000)
    assert changed.code == 0 and "1,000" in changed.out
    limits = {"waiting": None, "per_minute": 9, "pixels_per_day": 1000}
    assert ada() == {"scopes": ["generate", "read"], **limits}
    assert bottega("users", "change", "ada", "--scopes", "read,admin").code == 0
    assert ada() == {"scopes": ["admin", "read"], **limits}
    idle = bottega("users", "change", "ada")
    assert idle.code == 2
    for name in ("--scopes", "--waiting", "--per-minute", "--pixels-per-day"):
        assert name in idle.err
    for words in (("--waiting", "0"), ("--waiting", "lots"), ("--scopes", "root"), ("--scopes", "")):
        assert bottega("users", "change", "ada", *words).code == 2, words
    unknown = bottega("users", "change", "eve", "--waiting", 1)
    assert unknown.code == 2 and "'eve'" in unknown.err
    assert ada() == {"scopes": ["admin", "read"], **limits}


def test_nobody_is_added_under_a_name_that_has_left_something(bottega: Command, home: Path) -> None:
    queue = Queue(home / "queue.sqlite")
    queue.submit("make", {}, lane="make", owner="ann")
    queue.close()
    with Gallery(home / "gallery.sqlite", home / "outputs") as gallery:
        gallery.add(write_output(home / "outputs", recipe_of(), id="x-0", owner="bob"))
        gallery.delete(["x-0"])
    Datasets(home / "datasets").create("houses", "cleo")
    for name in ("ann", "bob", "cleo"):
        refused = bottega("users", "add", name)
        assert refused.code == 2 and "come back (again)" in refused.err
        assert bottega("users", "add", name, "--again").code == 0
        assert "already" in bottega("users", "add", name).err
    assert bottega("users", "add", "dora").code == 0


# --- secrets and logs ------------------------------------------------------------------------------------------------

PLANTED = {"CIVITAI_TOKEN": "civ1tai-planted-0123456789", "HF_TOKEN": "hf_planted0123456789abcdefXYZ"}


@pytest.mark.slow
def test_planted_secrets_appear_nowhere(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "tokens.toml").write_text('civitai = "file-planted-0123456789"\n')
    (home / "tokens.toml").chmod(0o600)
    secrets = {*PLANTED.values(), "file-planted-0123456789", "planted-in-an-address-123"}
    said = b""
    with started(home, **PLANTED) as server:
        secrets |= {server.told["key"], server.link.partition("token=")[2]}
        for path in ("/api/me", "/api/system", "/api/system/log", "/api/settings", "/api/models", "/api/jobs",
                     "/metrics", "/health", "/api/openapi.json", "/api/users", "/", "/sdapi/v1/options"):  # fmt: skip
            said += server.ask("GET", path).body
        said += server.ask("GET", server.link.removeprefix(server.url)).body
        said += server.ask("GET", server.link.removeprefix(server.url), Authorization="").body
        for authorization in (f"Bearer {PLANTED['HF_TOKEN']}", f"Basic {PLANTED['CIVITAI_TOKEN']}"):
            said += server.ask("POST", "/api/jobs", {}, Authorization=authorization).body
        for reference in (
            "https://a.invalid/x?token=planted-in-an-address-123",
            "https://u:planted-in-an-address-123@a.b",
        ):
            said += server.ask("POST", "/api/models/get", {"reference": reference}).body
        said += server.ask("GET", "/api/jobs").body
        shown = "".join(
            Path(f"/proc/{process}/cmdline").read_text()
            for process in os.listdir("/proc")
            if process.isdecimal() and Path(f"/proc/{process}/cmdline").exists()
        )
        assert server.end() == 0
        said += (server.process.stderr.read() if server.process.stderr else "").encode()
    for secret in secrets:
        assert secret.encode() not in said
        assert secret not in shown
        for file in home.rglob("*"):
            if file.is_file() and file.name != "tokens.toml":
                assert secret.encode() not in file.read_bytes(), file


@pytest.mark.parametrize(
    "text",
    ["Authorization: Bearer abc.def-123", "GET /?token=abc.def-123", "http://me:abc.def-123@proxy", "key abc.def-123x",
     "hf_abcdef0123456789", "bottega_" + "x" * 43, "Basic abc.def-123"],
)  # fmt: skip
def test_the_log_redacts_what_looks_like_a_secret(text: str) -> None:
    formatter = JsonLines(Redacted(["abc.def-123x"]))
    record = logging.LogRecord("bottega", logging.INFO, "", 0, "said %s", (text,), None)
    line = json.loads(formatter.format(record))
    assert "[secret]" in line["message"]
    assert "abc.def" not in line["message"] and "0123456789" not in line["message"] and "xxx" not in line["message"]


def test_a_log_whose_disk_is_full_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bottega.api.logs import start_logging, stop_logging

    handlers = start_logging(tmp_path / "logs")
    try:
        full = handlers[1]
        assert isinstance(full, logging.StreamHandler)
        full.stream.close()
        full.stream = open("/dev/full", "w")  # noqa: SIM115  # the handler closes it
        logging.getLogger("bottega.server").info("lost")
        logging.getLogger("bottega.server").info("written")
    finally:
        stop_logging(handlers)
    lines = (tmp_path / "logs" / "serve.log").read_text().splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["written"]


def test_the_log_begins_anew_when_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bottega.api import logs

    monkeypatch.setattr(logs, "MAX_BYTES", 1000)
    handlers = logs.start_logging(tmp_path)
    try:
        for number in range(300):
            logging.getLogger("bottega.requests").info("line %d", number)
    finally:
        logs.stop_logging(handlers)
    kept = sorted(tmp_path.iterdir())
    assert [path.name for path in kept] == ["serve.log", *(f"serve.log.{number}" for number in range(1, 6))]
    assert all(path.stat().st_size < 1200 for path in kept)
    lines = [json.loads(line)["message"] for path in reversed(kept) for line in path.read_text().splitlines()]
    assert lines == [f"line {number}" for number in range(300 - len(lines), 300)]


def test_the_settings_of_a_server_are_checked(home: Path, bottega: Command) -> None:
    home.mkdir()
    for text in (
        "port = 70000",
        'port = "x"',
        'names = "x"',
        'names = ["http://a/b"]',
        "open_doors = 1",
        'names = ["a b"]',
    ):
        (home / "settings.toml").write_text(text)
        ran = bottega("serve")
        assert ran.code == 2 and "settings.toml" in ran.err
    assert Settings(home).open_doors and not Settings(home).fetch_pictures
