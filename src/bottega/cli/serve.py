"""Serve this home over HTTP: the page, and the APIs that programs speak; to this machine only, unless told."""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import mkstemp
from typing import TYPE_CHECKING, Any

from bottega.cli import abandon_stdout, complain
from bottega.errors import BottegaError
from bottega.formats.atomic import private_folder
from bottega.settings import Settings

if TYPE_CHECKING:
    from bottega.api.signals import Signals

PORT = 7680


class ServeError(BottegaError):
    """The server can't be started as asked, or none runs."""


class RefusedExposure(ServeError):
    """Others could reach the server, and there is nobody whom it would let in by a key."""

    exit_code = 2


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega serve`."""
    parser.add_argument("--host", metavar="H", help="the address to listen on (default: this machine only)")
    parser.add_argument("--port", type=port, metavar="P", help=f"the port (default: {PORT}; 0 takes a free one)")
    parser.add_argument("--link", action="store_true", help="print a new link that signs a browser in, and end")
    parser.add_argument("--i-know", action="store_true", help="listen to other machines though there are no users")


def port(text: str) -> int:
    """A number of a port."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; use a number from 0 to 65535")
    return int(text)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Serve until a signal comes, or print a link."""
    if args.link:
        return print_link(settings)
    from bottega.api.signals import Signals

    with Signals() as signals, ExitStack() as stack:
        serve(args, settings, signals, stack)
    return 0


def serve(args: argparse.Namespace, settings: Settings, signals: Signals, stack: ExitStack) -> None:
    """Start everything, serve, and leave on the stack what ends it."""
    from bottega.api.access import Access
    from bottega.api.access.accounts import Accounts
    from bottega.api.app import create_app
    from bottega.api.logs import start_logging, stop_logging
    from bottega.api.server import allow_files, listen
    from bottega.api.server import serve as run_server
    from bottega.api.warmup import warm_up
    from bottega.jobs.lock import HomeLock
    from bottega.library.sources.tokens import known_keys
    from bottega.workshop import Workshop

    allow_files()
    make_home(settings.home)
    stack.enter_context(HomeLock(settings.home))
    accounts = Accounts(settings.accounts)
    stack.callback(accounts.close)
    host = args.host or settings.host
    sockets = listen(host, settings.port if args.port is None else args.port)
    for one in sockets:
        stack.callback(one.close)
    bound = [str(one.getsockname()[0]) for one in sockets]
    refuse_exposure(bound, accounts.anybody() or args.i_know)
    its_port = int(sockets[0].getsockname()[1])
    access = Access(
        accounts,
        port=its_port,
        bound=bound,
        names=settings.names,
        open_doors=settings.open_doors,
        requests_per_second=settings.requests_per_second,
    )
    stack.callback(stop_logging, start_logging(settings.logs, [access.machine_key, *known_keys(settings)]))
    workshop = Workshop(settings)
    workshop.start()
    stack.callback(workshop.stop)
    app = create_app(workshop, access)
    stack.callback(app.state.watch.close)
    stack.callback(app.state.intake.close)
    url = address(bound[0], its_port)

    def ready() -> None:
        write_private(settings.serving, {"url": url, "pid": os.getpid(), "key": access.machine_key})
        link = f"{url}/?token={accounts.new_link()}"
        # All that is loaded by now stays, and to look through it for garbage would keep everybody waiting for 50 ms.
        gc.freeze()
        warm_up(url, access.machine_key)
        try:
            print(
                f"Bottega serves at {url}\nOpen this link to sign in (once, within 12 hours):\n\n  {link}\n", flush=True
            )
        except OSError as error:  # whoever has a key can do without the link
            abandon_stdout()
            complain(f"the link can't be printed ({error.strerror}); `bottega serve --link` prints another one")

    def forget() -> None:
        settings.serving.unlink(missing_ok=True)

    stack.callback(forget)
    signals.at_once = forget
    run_server(app, access, sockets, ready, signals)


def make_home(home: Path) -> None:
    """Make the home if it is not there. Raises ServeError where it can't be written: a queue must be."""
    try:
        private_folder(home)
        handle, part = mkstemp(prefix=".bottega-", suffix=".part", dir=home)
        os.close(handle)
        os.unlink(part)
    except OSError as error:
        remedy = "free some space, or check who may write there; BOTTEGA_HOME names another home"
        raise ServeError(f"{home} can't be written ({error.strerror})", remedy) from None


def refuse_exposure(bound: list[str], allowed: bool) -> None:
    """Raise RefusedExposure where others than this machine could connect, and that is not allowed."""
    from ipaddress import ip_address

    beyond = [one for one in bound if not ip_address(one.partition("%")[0]).is_loopback]
    if beyond and not allowed:
        raise RefusedExposure(
            f"other machines could reach the server at {beyond[0]}, and it has no users with keys",
            "add one with `bottega users add NAME`, or give --i-know",
        )


def address(host: str, its_port: int) -> str:
    """The address under which this machine reaches the server."""
    from ipaddress import ip_address

    parsed = ip_address(host.partition("%")[0])
    if parsed.is_unspecified:
        host = "::1" if parsed.version == 6 else "127.0.0.1"
    return f"http://[{host}]:{its_port}" if ":" in host else f"http://{host}:{its_port}"


def write_private(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON file that nobody else may read, whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(handle, "w", encoding="utf-8") as file:
        json.dump(document, file)
    os.replace(part, path)


def print_link(settings: Settings) -> int:
    """Print a new link for the server that runs on this home."""
    from bottega.api.access.accounts import Accounts

    url = running(settings)
    with closing(Accounts(settings.accounts)) as accounts:
        print(f"{url}/?token={accounts.new_link()}", file=sys.stdout)
    return 0


def running(settings: Settings) -> str:
    """Where the server of this home answers. Raises ServeError where none does."""
    from http.client import HTTPConnection, HTTPException
    from urllib.parse import urlsplit

    try:
        url = str(json.loads(settings.serving.read_text(encoding="utf-8"))["url"])
        connection = HTTPConnection(urlsplit(url).netloc, timeout=5.0)
        with closing(connection):
            connection.request("GET", "/health")
            connection.getresponse()
    except (OSError, ValueError, KeyError, TypeError, HTTPException):
        raise ServeError("no server runs on this home", "start one with `bottega serve`") from None
    return url
