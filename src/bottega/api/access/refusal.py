"""What is said to a request that is not let in, and to a change of the accounts that can't be made."""

from __future__ import annotations

from collections.abc import Mapping

from bottega.errors import BottegaError


class AccountError(BottegaError):
    """A user who can't be added, or isn't there."""

    exit_code = 2


class LeftBehind(AccountError):
    """A name under which somebody who was removed has left what a new user would take for their own."""


class UnknownUser(AccountError):
    """Nobody here has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no user {name!r}", "see the list of users")


class Refusal(BottegaError):
    """A request that is answered with this status instead of being done; `headers` belong to the answer."""

    def __init__(self, status: int, what: str, remedy: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(what, remedy)
        self.status = status
        self.headers = dict(headers or {})


class NotSignedIn(Refusal):
    """It is not known who asks."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(401, what, remedy, {"WWW-Authenticate": 'Bearer realm="bottega"'})


class NotAllowed(Refusal):
    """It is known who asks, and they may not."""

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(403, what, remedy)


class TooMuch(Refusal):
    """More than this caller may ask for now; it is worth asking again after `wait` seconds."""

    def __init__(self, what: str, remedy: str, wait: float) -> None:
        super().__init__(429, what, remedy, {"Retry-After": str(max(1, round(wait + 0.5)))})
