"""What can go wrong between here and a site, told apart by what to do about it."""

from __future__ import annotations

from bottega.errors import BottegaError


class NetworkError(BottegaError):
    """Something could not be fetched."""


class RefusedAddress(NetworkError):
    """An address that nothing is fetched from: not public, not encrypted, or no address at all."""

    exit_code = 2


class Unreachable(NetworkError):
    """The connection failed, was cut or fell silent; trying again may help."""


class HttpError(NetworkError):
    """A site answered with an error.

    `status` is the HTTP status, `code` the site's own name for it, `retry_after` the seconds after which the site
    wants to be asked again.
    """

    def __init__(
        self, what: str, remedy: str, status: int, *, code: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(what, remedy)
        self.status = status
        self.code = code
        self.retry_after = retry_after


class Damaged(NetworkError):
    """What arrived is not what was promised: other bytes, or another number of them. It was thrown away."""


class Refused(BottegaError):
    """A model that is not put on a shelf, and why."""

    exit_code = 2


class BadReference(BottegaError):
    """A reference that names nothing, or nothing that can be fetched."""

    exit_code = 2
