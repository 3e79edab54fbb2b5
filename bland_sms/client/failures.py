"""What went wrong, as the type that tells the caller what to do next."""

from __future__ import annotations

import re
import ssl
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from functools import lru_cache

import requests
import urllib3

from ..exceptions import (
    BlandAPIError,
    BlandAuthenticationError,
    BlandConfigurationError,
    BlandConflictError,
    BlandConnectionError,
    BlandError,
    BlandNotFoundError,
    BlandOutcomeUnknownError,
    BlandPayloadError,
    BlandRouteError,
    BlandTLSError,
    BlandUnavailableError,
)
from ..payloads import EPOCH

LONGEST_RETRY_AFTER_SECONDS = 86_400.0
"""Bland is asked again after a day, whatever it said."""
_SECONDS = re.compile(r"[0-9]+(\.[0-9]*)?", re.ASCII)
_BROKEN_OFF = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError)
"""A connection that broke during TLS, which refuses nothing."""

AUTH_CODES = {"AUTH_FAILURE", "UNAUTHORIZED"}


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
    return kind(status_code, code, message, retry_after_seconds=retry_after_seconds)


def translate(error: Exception) -> BlandError:
    """A failure below HTTP: what the caller does next depends on whether anything was sent."""
    causes = _causes(error)
    if any(isinstance(cause, urllib3.exceptions.InvalidHeader) for cause in causes):
        # Those of the answer, such as two lengths; those of ours are checked before.
        senseless = BlandOutcomeUnknownError("senseless_headers")
        senseless.code = BlandPayloadError.code
        return senseless
    is_connecting = any(getattr(cause, "while_connecting", False) for cause in causes)
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes) or (
        # Later than that it is the connection that broke, and what was sent may have arrived.
        is_connecting
        and any(isinstance(cause, ssl.SSLError) for cause in causes)
        and not any(isinstance(cause, _BROKEN_OFF) for cause in causes)
    ):
        return BlandTLSError()
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
        return BlandConfigurationError("url_not_usable")
    never_sent = (
        requests.ConnectTimeout,
        requests.exceptions.ProxyError,
        urllib3.exceptions.NewConnectionError,
        urllib3.exceptions.ConnectTimeoutError,
    )
    if is_connecting or any(isinstance(cause, never_sent) for cause in causes):
        return BlandConnectionError()
    if is_timeout(error):
        return BlandOutcomeUnknownError()
    return BlandOutcomeUnknownError("broken_off")


def is_timeout(error: Exception) -> bool:
    """Whether it is the waiting that ended."""
    kinds = (requests.Timeout, TimeoutError, urllib3.exceptions.TimeoutError)
    return any(isinstance(cause, kinds) for cause in _causes(error))


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
    date = _read_date(value or "")
    if date is None:
        return None
    return date if EPOCH < date < now + timedelta(days=366) else None


@lru_cache(maxsize=16)  # the answers of a second have the same
def _read_date(text: str) -> datetime | None:
    if not 8 <= len(text) <= 64:
        return None
    try:
        date = parsedate_to_datetime(text)
        if date.tzinfo is None:
            date = date.replace(tzinfo=timezone.utc)
        return date.astimezone(timezone.utc)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def parse_retry_after(value: str | None, answered_at: datetime) -> float | None:
    """Seconds, from seconds or from a date by Bland's own clock: a day at most. Never raises.

    What is neither, such as a negative number, is ``None``.
    """
    text = (value or "").strip()
    if _SECONDS.fullmatch(text):
        return min(float(text[:32]), LONGEST_RETRY_AFTER_SECONDS)
    date = _read_date(text)
    if date is None:
        return None
    return min(max(0.0, (date - answered_at).total_seconds()), LONGEST_RETRY_AFTER_SECONDS)
