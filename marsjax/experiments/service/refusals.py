"""An answer other than 200, as an exception."""

from marsjax.core.errors import InputError
from marsjax.studies.service.wanted import TooLargeError


class RefusedError(Exception):
    """A request is not served; the application answers with its status and one line of why."""

    def __init__(self, status: int, why: str, retry_after_s: int | None = None) -> None:
        super().__init__(why)
        self.status, self.retry_after_s = status, retry_after_s

    def headers(self) -> dict[str, str]:
        """Those of the answer, beside its type."""
        found = {} if self.retry_after_s is None else {"retry-after": str(self.retry_after_s)}
        if self.status in (408, 413):  # of which the rest of the body may still come
            found["connection"] = "close"
        return found | ({"www-authenticate": "Bearer"} if self.status == 401 else {})


ANSWERED = (RefusedError, InputError, TimeoutError, MemoryError)
"""Errors that are answers: what does not fit, takes too long or takes too much. Any other is a fault."""


def of_error(error: BaseException) -> RefusedError:
    """How an error of ANSWERED is answered; 500 for any other."""
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, TooLargeError):
        return RefusedError(413, _line(error))
    if isinstance(error, InputError):
        return RefusedError(400, _line(error))
    if isinstance(error, TimeoutError):
        return RefusedError(504, "it took too long")
    if isinstance(error, MemoryError):
        return RefusedError(413, _line(error) or "too large for this machine")
    return RefusedError(500, "a fault of the service")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
