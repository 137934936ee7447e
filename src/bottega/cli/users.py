"""Let others use the server: users with keys, limits and galleries of their own. A key is shown once."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from typing import TYPE_CHECKING

from bottega.cli import UsageError
from bottega.cli.terminal import print_json, table
from bottega.settings import Settings

if TYPE_CHECKING:
    from bottega.api.access.accounts import User

LIMITS = ("waiting", "per_minute", "pixels_per_day")


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega users`."""
    actions = parser.add_subparsers(dest="action", metavar="add|list|change|remove|key", required=True)
    add = actions.add_parser("add", help="add a user, and print their key")
    add.add_argument("name", metavar="NAME", help="up to 32 of a-z, 0-9, dot, dash, underscore")
    rights(add, "read,generate", "no limit")
    add.add_argument(
        "--again", action="store_true", help="somebody who was a user before: what they left here is theirs again"
    )
    listing = actions.add_parser("list", help="list the users")
    listing.add_argument("--json", action="store_true", help="print one JSON document")
    change = actions.add_parser("change", help="change what a user may do and ask for, at once")
    change.add_argument("name", metavar="NAME", help="the user")
    rights(change, "as before", "as before")
    remove = actions.add_parser("remove", help="remove a user and their keys; what they made stays")
    remove.add_argument("name", metavar="NAME", help="the user")
    key = actions.add_parser("key", help="print a new key for a user; the old one is let in no longer")
    key.add_argument("name", metavar="NAME", help="the user")


def rights(parser: argparse.ArgumentParser, scopes: str, limit: str) -> None:
    """The arguments that say what a user may do and ask for, and what holds for those that are not given, in words.

    One that is not given is not among the parsed ones either: None there is a limit to be lifted.
    """
    may = "what they may do: read, generate, manage (the models), admin (everything)"
    for name, kind, value, told, otherwise in (
        ("--scopes", words, "A,B", may, scopes),
        ("--waiting", most, "N|none", "how many jobs may wait at once", limit),
        ("--per-minute", most, "N|none", "how many jobs they may send a minute", limit),
        ("--pixels-per-day", most, "N|none", "how many pixels they may ask for a day (UTC)", limit),
    ):
        told = f"{told} (default: {otherwise})"
        parser.add_argument(name, type=kind, default=argparse.SUPPRESS, metavar=value, help=told)


def words(text: str) -> tuple[str, ...]:
    """`read,generate` as a tuple."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def most(text: str) -> int | None:
    """A limit: a positive number, or None for `none`."""
    if text == "none":
        return None
    if not text.isdecimal() or not 1 <= int(text) <= 10**15:
        raise argparse.ArgumentTypeError(f"{text!r} is neither 'none' nor a number from 1 to 10^15")
    return int(text)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do what the arguments say; a server that runs knows of it at once."""
    from bottega.api.access.accounts import Accounts, Quota

    given = vars(args)
    limits = {name: given[name] for name in LIMITS if name in given}
    with closing(Accounts(settings.accounts)) as accounts:
        match args.action:
            case "add":
                scopes, quota = given.get("scopes", ("read", "generate")), Quota(**limits)
                if args.again:
                    hand_over(accounts.add(args.name, scopes, quota))
                else:
                    hand_over(accounts.add_new(args.name, scopes, quota, settings))
            case "change":
                if not limits and "scopes" not in given:
                    remedy = "give --scopes, --waiting, --per-minute or --pixels-per-day"
                    raise UsageError("nothing is given that shall change", remedy)
                show_table([accounts.change(args.name, given.get("scopes"), limits)])
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
        show_table(users)
    else:
        print("no users; whoever opens the link of `bottega serve` is the owner")


def show_table(users: list[User]) -> None:
    """A line for each user."""
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


def limit(number: int | None) -> str:
    """A limit as a table has it."""
    return "-" if number is None else f"{number:,}"
