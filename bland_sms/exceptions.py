"""What can go wrong with Bland, sorted by what the caller does next."""

from __future__ import annotations

import enum
from datetime import datetime

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
    ledger keeps as ``error_code`` and what the REST API answers as ``code``.
    """

    code = "error"
    status_code: int | None = None
    retry_after_seconds: float | None = None
    observed_at: datetime | None = None
    """When the request that failed was sent. ``None``: nothing was sent."""
    gave_up: GaveUp | None = None
    """Why a failure that may pass was not tried again."""


class BlandNotSentError(BlandError):
    """Nothing was asked: the time was up or somebody stopped the job before its turn came."""

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
        self.status_code = status_code
        self.code = code or f"http_{status_code}"
        self.message = message
        self.retry_after_seconds = retry_after_seconds
        words = [f"HTTP {status_code}", code, message]
        super().__init__(" ".join(word for word in words if word))


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
