"""Who asks, as the routes see it: a name, what they may do, and how they proved it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import Request

from bottega.api import given
from bottega.api.access.accounts import SCOPES, Quota
from bottega.api.access.refusal import NotAllowed, NotSignedIn

SIGN_IN = "send a key (Authorization: Bearer KEY), or open the link that `bottega serve --link` prints"


@dataclass(frozen=True)
class Caller:
    """Whoever sent this request. `name` owns what is made; `way` is cookie, key, machine or open."""

    name: str
    scopes: frozenset[str]
    way: str
    quota: Quota

    @property
    def admin(self) -> bool:
        """Whether everybody's jobs and outputs may be seen and steered."""
        return "admin" in self.scopes

    def may(self, scope: str) -> bool:
        """Whether this is within the caller's scopes; an admin may do everything."""
        return scope in self.scopes or self.admin

    def sees(self, owner: str) -> bool:
        """Whether something that belongs to this owner is to be shown to the caller."""
        return owner == self.name or self.admin


def need(*scopes: str) -> Callable[[Request], Awaitable[Caller]]:
    """The dependency of a route that needs `read`, `generate`, `manage` or `admin`, or one of several of them.

    It gives the Caller.
    """
    assert scopes and set(scopes) <= set(SCOPES), scopes

    def caller(request: Request) -> Caller:
        found = request.scope.get("caller")
        if not isinstance(found, Caller):
            raise NotSignedIn("it is not known who asks", SIGN_IN)
        if not any(map(found.may, scopes)):
            what = f"{found.name} may not do this: it needs the scope {' or '.join(scopes)}"
            raise NotAllowed(what, "ask an admin of this server")
        return found

    return given.found(caller)
