"""What the API server may answer instead of what was asked for.

ApiError
├── Unreachable      no answer: refused, reset, timed out. The outcome of a write is unknown
├── NotLeading       the write was not sent: this process does not lead (any more)
├── ServerError      5xx
├── TooManyRequests  429; wait `retry_after_s`
├── Conflict         409: changed meanwhile, or exists already. Look again
├── Foreign          an object of that name is somebody else's
├── Gone             410: the version asked for is too old. List again
├── NotFound         404
├── Refused          400, 422: the object is wrong; the message says where
└── Denied           401, 403: a right or quota is missing
"""

from __future__ import annotations


class ApiError(Exception):
    """Carries the HTTP status (0: none) and the server's own sentence."""

    retryable = False  # may the same call succeed later, unchanged?

    def __init__(self, message: str, status: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.reason = reason


class Unreachable(ApiError):
    retryable = True


class NotLeading(ApiError):
    retryable = True


class ServerError(ApiError):
    retryable = True


class TooManyRequests(ApiError):
    retryable = True

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message, 429, "TooManyRequests")
        self.retry_after_s = retry_after_s


class Conflict(ApiError):
    retryable = True


class Foreign(ApiError):
    pass


class Gone(ApiError):
    retryable = True


class NotFound(ApiError):
    pass


class Refused(ApiError):
    pass


class Denied(ApiError):
    pass


_BY_STATUS: dict[int, type[ApiError]] = {
    400: Refused,
    401: Denied,
    403: Denied,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Refused,
}


def error_for(status: int, message: str, reason: str, retry_after_s: float = 1.0) -> ApiError:
    """The error of an HTTP status."""
    if status == 429:
        return TooManyRequests(message, retry_after_s)
    kind = _BY_STATUS.get(status, ServerError if status >= 500 else ApiError)
    return kind(message, status, reason)
