"""What went wrong, as the type that tells the caller what to do next."""

from __future__ import annotations

import ssl
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime

import requests
import urllib3
from django.utils.translation import gettext_noop

from ..exceptions import (
    BlandAPIError,
    BlandAuthenticationError,
    BlandConfigurationError,
    BlandConflictError,
    BlandConnectionError,
    BlandError,
    BlandNotFoundError,
    BlandOutcomeUnknownError,
    BlandRouteError,
    BlandTLSError,
    BlandUnavailableError,
)
from ..payloads import EPOCH

AUTH_CODES = {"AUTH_FAILURE", "UNAUTHORIZED"}


def leaves_open(failure: BlandError) -> bool:
    """Whether Bland may have done what was asked all the same."""
    if isinstance(failure, BlandOutcomeUnknownError):
        return True
    return isinstance(failure, BlandUnavailableError) and failure.status_code != 429


def api_error(
    status_code: int, code: str, message: str, retry_after_seconds: float | None
) -> BlandAPIError:
    """The type that tells the caller what to do next."""
    kind: type[BlandAPIError] = BlandAPIError
    if status_code in (401, 403) or code in AUTH_CODES:
        kind = BlandAuthenticationError
    elif code == "CONVERSATION_NOT_FOUND":
        kind = BlandNotFoundError
    elif status_code == 404:
        kind = BlandRouteError
    elif status_code == 409:
        kind = BlandConflictError
    elif status_code in (408, 429) or status_code >= 500:
        kind = BlandUnavailableError
    elif 300 <= status_code < 400:
        code = "redirected"
        message = gettext_noop(
            "Bland redirects elsewhere, which is not followed: check BLAND_SMS['BASE_URL']"
        )
    return kind(status_code, code, message, retry_after_seconds=retry_after_seconds)


def translate(error: Exception) -> BlandError:
    """A failure below HTTP: what the caller does next depends on whether anything was sent."""
    causes = _causes(error)
    if any(isinstance(cause, ssl.SSLError) for cause in causes) and not any(
        isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError)) for cause in causes
    ):
        return BlandTLSError(
            gettext_noop(
                "The server's certificate was refused, or it does not speak TLS: check "
                "BLAND_SMS['BASE_URL'] and BLAND_SMS['CA_BUNDLE']"
            )
        )
    if isinstance(
        error,
        (
            requests.exceptions.InvalidURL,
            requests.exceptions.InvalidSchema,
            requests.exceptions.MissingSchema,
            requests.exceptions.InvalidHeader,
            urllib3.exceptions.LocationValueError,
        ),
    ):
        return BlandConfigurationError(
            gettext_noop("BLAND_SMS['BASE_URL'] or ['PROXIES'] is not a usable URL")
        )
    never_sent = (
        requests.ConnectTimeout,
        requests.exceptions.ProxyError,
        urllib3.exceptions.NewConnectionError,
        urllib3.exceptions.ConnectTimeoutError,
    )
    if any(isinstance(cause, never_sent) for cause in causes):
        return BlandConnectionError(gettext_noop("Bland could not be reached"))
    if any(isinstance(cause, (requests.Timeout, TimeoutError)) for cause in causes):
        return BlandOutcomeUnknownError(gettext_noop("Bland did not answer in time"))
    return BlandOutcomeUnknownError(
        gettext_noop("the connection to Bland broke before its answer was complete")
    )


def _causes(error: BaseException) -> list[BaseException]:
    """The error and all that it was made of: causes, contexts, and urllib3's ``reason``."""
    found: list[BaseException] = []
    todo: list[object] = [error]
    while todo:
        cause = todo.pop()
        if isinstance(cause, BaseException) and cause not in found:
            found.append(cause)
            todo += [cause.__cause__, cause.__context__, getattr(cause, "reason", None)]
            todo += list(cause.args)
    return found


def parse_date(value: str | None, now: datetime) -> datetime | None:
    """The answer's ``Date``. One that is a year ahead of us is no clock."""
    try:
        date = parsedate_to_datetime(value or "")
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    return date if EPOCH < date < now + timedelta(days=366) else None


def parse_retry_after(value: str | None, answered_at: datetime) -> float | None:
    """Seconds, from seconds or from a date by Bland's own clock; junk is ``None``."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.replace(".", "", 1).isdigit() and len(text) <= 12:
        return float(text)
    date = parse_date(text, answered_at)
    return None if date is None else max(0.0, (date - answered_at).total_seconds())
