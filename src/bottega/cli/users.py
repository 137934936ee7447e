"""Let others use the server: users with keys, limits and galleries of their own. A key is shown once."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from typing import TYPE_CHECKING

from bottega.cli.terminal import print_json, table
from bottega.settings import Settings

if TYPE_CHECKING:
    from bottega.api.access.accounts import User


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega users`."""
    actions = parser.add_subparsers(dest="action", metavar="add|list|remove|key", required=True)
    add = actions.add_parser("add", help="add a user, and print their key")
    add.add_argument("name", metavar="NAME", help="up to 32 of a-z, 0-9, dot, dash, underscore")
    add.add_argument(
        "--scopes",
        type=words,
        default=("read", "generate"),
        metavar="A,B",
        help="what they may do: read, generate, manage (the models), admin (everything) (default: read,generate)",
    )
    add.add_argument(
        "--again", action="store_true", help="somebody who was a user before: what they left here is theirs again"
    )
    add.add_argument("--waiting", type=count, metavar="N", help="how many jobs may wait at once")
    add.add_argument("--per-minute", type=count, metavar="N", help="how many jobs they may send a minute")
    add.add_argument("--pixels-per-day", type=count, metavar="N", help="how many pixels they may ask for a day (UTC)")
    listing = actions.add_parser("list", help="list the users")
    listing.add_argument("--json", action="store_true", help="print one JSON document")
    remove = actions.add_parser("remove", help="remove a user and their keys; what they made stays")
    remove.add_argument("name", metavar="NAME", help="the user")
    key = actions.add_parser("key", help="print a new key for a user; the old one is let in no longer")
    key.add_argument("name", metavar="NAME", help="the user")


def words(text: str) -> tuple[str, ...]:
    """`read,generate` as a tuple."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def count(text: str) -> int:
    """A positive number."""
    if not text.isdecimal() or not 1 <= int(text) <= 10**15:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 10^15")
    return int(text)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do what the arguments say; a server that runs knows of it at once."""
    from bottega.api.access.accounts import Accounts, Quota

    with closing(Accounts(settings.accounts)) as accounts:
        match args.action:
            case "add":
                quota = Quota(args.waiting, args.per_minute, args.pixels_per_day)
                if args.again:
                    hand_over(accounts.add(args.name, args.scopes, quota))
                else:
                    hand_over(accounts.add_new(args.name, args.scopes, quota, settings))
            case "remove":
                accounts.remove(args.name)
            case "key":
                hand_over(accounts.replace_key(args.name))
            case _:
                show(accounts.users(), args.json)
    return 0


def hand_over(key: str) -> None:
    """Print a key, alone on standard output, and say that it is not shown again."""
    print("This key is not shown again; whoever has it may use the server as this user:", file=sys.stderr)
    print(key)


def show(users: list[User], as_json: bool) -> None:
    """List users with their limits and the first digits of the hashes of their keys."""
    if as_json:
        print_json(
            [
                {
                    "name": user.name,
                    "scopes": sorted(user.scopes),
                    "waiting": user.quota.waiting,
                    "per_minute": user.quota.per_minute,
                    "pixels_per_day": user.quota.pixels_per_day,
                    "created": user.created,
                    "keys": user.keys,
                }
                for user in users
            ]
        )
    elif users:
        rows = [
            [
                user.name,
                ",".join(sorted(user.scopes)),
                limit(user.quota.waiting),
                limit(user.quota.per_minute),
                limit(user.quota.pixels_per_day),
                ",".join(user.keys),
            ]
            for user in users
        ]
        headers = ("NAME", "SCOPES", "WAITING", "PER MINUTE", "PIXELS/DAY", "KEY")
        print(table(headers, rows, sys.stdout, right=(2, 3, 4), spare=(4, 3, 2)))
    else:
        print("no users; whoever opens the link of `bottega serve` is the owner")


def limit(number: int | None) -> str:
    """A limit as a table has it."""
    return "-" if number is None else f"{number:,}"
