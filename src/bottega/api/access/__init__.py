"""Who may come in, as whom, and how much they may ask for. The routes need only `Caller` and `need`."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bottega.api import doors
from bottega.api.access.accounts import OWNER, SESSION_LASTS, THE_OWNER, Accounts, same
from bottega.api.access.caller import Caller, need
from bottega.api.access.host import names_for
from bottega.api.access.limits import Buckets, Failures, Memory
from bottega.api.access.quotas import Quotas
from bottega.api.counts import Counts

if TYPE_CHECKING:
    from bottega.api.access.gate import Reply

__all__ = ["OWNER", "Access", "Accounts", "Caller", "need"]

PAGES = Path(__file__).parent / "pages"


class Access:
    """What a running server knows of who may do what; the gate asks it about every request.

    `bound` are the addresses that are listened on, `names` further names of this server. The compat doors are open to
    this machine's programs if `open_doors`, as long as nobody else can reach the server and it knows no users.
    """

    def __init__(
        self,
        accounts: Accounts,
        *,
        port: int,
        bound: Sequence[str],
        names: Sequence[str] = (),
        open_doors: bool = True,
        requests_per_second: float = 200.0,
    ) -> None:
        self.accounts = accounts
        self.names = names_for(port, names, bound)
        self.cookie = f"bottega_{port}"  # cookies know no ports: two servers of a machine share them all
        self.machine_key = secrets.token_urlsafe(32)
        self.machine = Caller(OWNER, THE_OWNER.scopes, "machine", THE_OWNER.quota)
        self.open = Caller(OWNER, frozenset(("read", "generate")), "open", THE_OWNER.quota)
        self.rate = Buckets(requests_per_second, 5 * requests_per_second)
        self.failures = Failures()
        self.memory = Memory()
        self.quotas = Quotas(accounts)
        self.counts = Counts()
        self.running: set[Reply] = set()
        self.closing = False
        alone = not names and not self.names.any_own_address and all(_is_loopback(address) for address in bound)
        self._may_open = open_doors and alone
        self._pages: dict[str, bytes] = {}

    def is_open(self, path: str) -> bool:
        """Whether a program of this machine is let in here without a key."""
        return self._may_open and doors.may_be_open(path) and not self.accounts.anybody()

    def requests_of(self, caller: Caller) -> int:
        """How many requests of a caller are not answered to their end."""
        who = (caller.name, caller.way)
        callers = (reply.request.caller for reply in self.running)
        return sum(one is not None and (one.name, one.way) == who for one in callers)

    def is_machine(self, key: str) -> bool:
        """Whether this is the key that `serve.json` holds for this machine's own command line."""
        return same(key, self.machine_key)

    def set_cookie(self, session: str, origin: str) -> str:
        """The Set-Cookie header that signs a browser in, or out with an empty session."""
        lasts = int(SESSION_LASTS) if session else 0
        secure = "; Secure" if origin.startswith("https:") else ""
        return f"{self.cookie}={session}; Path=/; Max-Age={lasts}; HttpOnly; SameSite=Strict{secure}"

    def page(self, why: str) -> bytes:
        """The page that tells how to get in; `why` is `used` for a link that is no good (any more), else `unknown`."""
        if why not in self._pages:
            text = (PAGES / "enter.html").read_text(encoding="utf-8")
            self._pages[why] = text.replace("{{why}}", why).encode()
        return self._pages[why]

    def close(self) -> None:
        """Let nothing new begin, and end the streams that would never end by themselves."""
        self.closing = True
        for reply in list(self.running):
            if reply.streams and reply.task:
                reply.task.cancel()


def _is_loopback(address: str) -> bool:
    from ipaddress import ip_address

    return ip_address(address).is_loopback
