"""What can go wrong with Bland, sorted by what the caller does next."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any

from .reasons import Failure

MAX_TEXT = 200
"""Characters of Bland's own words that are kept. An error page can be megabytes long."""


class GaveUp(enum.Enum):
    """Why a failure that may pass was not tried again."""

    ATTEMPTS = "attempts"
    """Asked as often as one call may."""
    PATIENCE = "patience"
    """Bland named a time that is too far away to sleep until it."""
    TIME = "time"
    """The job's time is up, or it was stopped."""
    BUDGET = "budget"
    """The job's retry budget is empty: an outage."""


class BlandError(Exception):
    """Catch this to handle any failed exchange with Bland.

    ``code`` is the machine-readable cause: Bland's own word where it sent one
    (``CONVERSATION_NOT_FOUND``), else one of ours (``no_answer``). It is what an item of the
    ledger keeps as ``error_code`` and what the REST API answers as ``code``. ``str()`` is a
    sentence in the active language for operators and programmers: it names the setting at fault.
    """

    code = "error"
    message = ""
    """Bland's own words."""
    status_code: int | None = None
    retry_after_seconds: float | None = None
    observed_at: datetime | None = None
    """When the request that failed was sent. ``None``: nothing was sent."""
    gave_up: GaveUp | None = None
    """Why a failure that may pass was not tried again."""
    cut_off: bool = False
    """Our own deadline ended the wait, earlier than ``READ_TIMEOUT`` or ``CONNECT_TIMEOUT``."""

    def __init__(self, cause: str = "", **params: Any) -> None:
        """
        Args:
            cause: A finer code of the table in ``reasons``, where we know more than ``code``.
            params: JSON values, the parameters of its sentence.
        """
        super().__init__(cause)
        self.cause = cause
        self.params = params

    @property
    def failure(self) -> Failure:
        """What a row keeps of it."""
        return Failure.of(self.code, self.own_params, self.status_code, self.message)

    @property
    def own_params(self) -> dict[str, Any]:
        """The same without what Bland said, for rows that have columns for it."""
        return {**self.params, "cause": self.cause} if self.cause else dict(self.params)

    def __str__(self) -> str:
        return str(self.failure.for_operators)


class BlandNotSentError(BlandError):
    """Nothing was sent: the time was up, or the job was stopped before that."""

    code = "not_attempted"


class BlandInvalidIdError(BlandError, ValueError):
    """Not a conversation id: refused before a request was built. Fix the id."""

    code = "invalid_id"


class BlandConfigurationError(BlandError):
    """No request can succeed before a setting is changed: stop, and say which one."""

    code = "not_configured"


class BlandTLSError(BlandConfigurationError):
    """The server's certificate was refused, or the server does not speak TLS: stop."""

    code = "tls_refused"


class BlandConnectionError(BlandError):
    """Never reached Bland: nothing was sent, so trying again is safe."""

    code = "no_connection"


class BlandOutcomeUnknownError(BlandError):
    """Sent, but no usable answer came: Bland may have done it. Look before you repeat it."""

    code = "no_answer"


class BlandPayloadError(BlandError):
    """An answer came whole, but it is not what Bland documents."""

    code = "bad_answer"


class BlandAPIError(BlandError):
    """Answered with an error: HTTP ``status_code``, and Bland's ``code`` or ``http_<status>``.

    A plain ``BlandAPIError`` is the row's own failure: asking again changes nothing.
    """

    def __init__(
        self,
        status_code: int,
        code: str = "",
        message: str = "",
        *,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__()
        self.args = (status_code, code, message)
        self.status_code = status_code
        self.code = code or f"http_{status_code}"
        self.message = message
        self.retry_after_seconds = retry_after_seconds


class BlandUnavailableError(BlandAPIError):
    """408, 429 or 5xx: not now. Ask again after ``retry_after_seconds``, or a while."""


class BlandConflictError(BlandAPIError):
    """409: something else was happening to the conversation. Ask once more."""


class BlandNotFoundError(BlandAPIError):
    """404 CONVERSATION_NOT_FOUND: not in this account. No proof of deletion."""


class BlandAuthenticationError(BlandAPIError):
    """401 or 403: no row of this batch can succeed. Stop."""


class BlandRouteError(BlandAPIError):
    """404 without Bland's code: the base URL leads elsewhere. Stop."""


TRANSIENT_ERRORS = (BlandConnectionError, BlandOutcomeUnknownError, BlandUnavailableError)
"""Ask again, within the limits of the caller's allowance."""

STOPPING_ERRORS = (BlandConfigurationError, BlandAuthenticationError, BlandRouteError)
"""No other row can succeed either."""


def without_frames(error: BaseException) -> BaseException:
    """The same exception without the frames it came through, and without what it grew from.

    A debug page or an error tracker shows the local variables of every frame of a traceback, and
    below our own these hold the key. To be raised at once, with ``from None``.
    """
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
