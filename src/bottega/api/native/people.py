"""Who asks, and who may: the caller, and the users of this server with their keys."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Depends, Path, Request
from pydantic import Field

from bottega.api.access import Access, Caller, need
from bottega.api.access.accounts import Quota, User
from bottega.api.native.inside import Aside, Shop
from bottega.api.native.shapes import Asked, Told
from bottega.api.native.subject import subject
from bottega.version import __version__

router = subject("people")

Scope = Literal["read", "generate", "manage", "admin"]
Admin = Annotated[Caller, Depends(need("admin"))]
NAME = r"^[a-z0-9][a-z0-9._-]{0,31}$"
NameInPath = Annotated[str, Path(pattern=NAME)]


class QuotaTold(Told):
    """How much somebody may ask for; null is no limit."""

    waiting: int | None = Field(description="jobs that may wait at once")
    per_minute: int | None = Field(description="jobs in a minute")
    pixels_per_day: int | None


class Me(Told):
    """Who asks, as this server knows them."""

    name: str
    scopes: list[Scope]
    quota: QuotaTold
    version: str = Field(description="of the server")


class UserTold(Told):
    """Somebody who may use this server."""

    name: str
    scopes: list[Scope]
    quota: QuotaTold
    created: float
    keys: list[str] = Field(description="the first digits of the hashes of their keys")


class Users(Told):
    """Everybody but whoever started the server."""

    items: list[UserTold]


class QuotaAsked(Asked):
    """How much somebody may ask for; what is left out is not limited."""

    waiting: int | None = Field(default=None, ge=1, le=100_000)
    per_minute: int | None = Field(default=None, ge=1, le=100_000)
    pixels_per_day: int | None = Field(default=None, ge=1, le=10**15)


class QuotaChange(QuotaAsked):
    """How much somebody may ask for from now on; null is no limit, what is left out stays."""


class NewUser(Asked):
    """Somebody who is to use this server."""

    name: str = Field(pattern=NAME)
    scopes: list[Scope] = Field(default=["read", "generate"], min_length=1, max_length=4)
    quota: QuotaAsked = QuotaAsked()
    again: bool = Field(
        default=False, description="somebody who was a user before: what they left here is theirs again"
    )


class UserChange(Asked):
    """What somebody may do and ask for from now on; what is left out stays."""

    scopes: list[Scope] | None = Field(default=None, min_length=1, max_length=4)
    quota: QuotaChange | None = None


class NewKey(Told):
    """A key, which is told once and never again."""

    name: str
    key: str


@router.get("/me", summary="Who asks")
async def me(caller: Annotated[Caller, Depends(need("read"))]) -> Me:
    """The caller's name, scopes and quota, and the server's version."""
    return Me(name=caller.name, scopes=_scopes(caller.scopes), quota=_quota(caller.quota), version=__version__)


@router.get("/users", summary="Who may use this server")
async def users(request: Request, aside: Aside, caller: Admin) -> Users:
    """By name; no key can be read back."""
    found = await aside.look(_access(request).accounts.users)
    return Users(items=[_user(user) for user in found])


@router.post("/users", summary="Add a user", status_code=201)
async def add(asked: NewUser, request: Request, shop: Shop, aside: Aside, caller: Admin) -> NewKey:
    """The answer has their key, which is not kept: only its hash is. 422 for a name that is taken, or under which
    somebody else has left something."""
    quota, accounts = Quota(**asked.quota.model_dump()), _access(request).accounts
    if asked.again:
        key = await aside.submit(accounts.add, asked.name, asked.scopes, quota)
    else:
        key = await aside.submit(accounts.add_new, asked.name, asked.scopes, quota, shop.settings)
    return NewKey(name=asked.name, key=key)


@router.patch("/users/{name}", summary="Change what a user may do")
async def change(name: NameInPath, asked: UserChange, request: Request, aside: Aside, caller: Admin) -> UserTold:
    """At once, also for browsers that are signed in. What they listen to or wait for ends if they lose a scope."""
    limits = asked.quota.model_dump(exclude_unset=True) if asked.quota else {}
    return _user(await aside.submit(_access(request).accounts.change, name, asked.scopes, limits))


@router.post("/users/{name}/key", summary="Give a user a new key", status_code=201)
async def renew(name: NameInPath, request: Request, aside: Aside, caller: Admin) -> NewKey:
    """The old one, and the browsers that are signed in with it, are no longer let in, and hear no more events."""
    key = await aside.submit(_access(request).accounts.replace_key, name)
    return NewKey(name=name, key=key)


@router.delete("/users/{name}", summary="Remove a user", status_code=204)
async def remove(name: NameInPath, request: Request, aside: Aside, caller: Admin) -> None:
    """They are no longer let in, and hear no more events; what they made stays."""
    await aside.submit(_access(request).accounts.remove, name)


def _access(request: Request) -> Access:
    access: Access = request.app.state.access
    return access


def _user(user: User) -> UserTold:
    return UserTold(
        name=user.name,
        scopes=_scopes(user.scopes),
        quota=_quota(user.quota),
        created=user.created,
        keys=list(user.keys),
    )


def _quota(quota: Quota) -> QuotaTold:
    return QuotaTold(waiting=quota.waiting, per_minute=quota.per_minute, pixels_per_day=quota.pixels_per_day)


def _scopes(scopes: frozenset[str]) -> list[Scope]:
    order: tuple[Scope, ...] = ("read", "generate", "manage", "admin")
    return [scope for scope in order if scope in scopes]
