"""What a failed request means: decided from the error or the status alone."""

from __future__ import annotations

import ssl
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import requests
import urllib3

from bland_sms.client.failures import (
    api_error,
    is_timeout,
    parse_date,
    parse_retry_after,
    translate,
)
from bland_sms.exceptions import (
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

NOON = datetime(2026, 2, 3, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("status", "code", "kind", "told"),
    [
        (299, "", BlandAPIError, "http_299"),
        (300, "", BlandAPIError, "redirected"),
        (399, "", BlandAPIError, "redirected"),
        (400, "", BlandAPIError, "http_400"),
        (400, "INVALID_PARAMETER", BlandAPIError, "INVALID_PARAMETER"),
        (400, "AUTH_FAILURE", BlandAuthenticationError, "AUTH_FAILURE"),
        (500, "UNAUTHORIZED", BlandAuthenticationError, "UNAUTHORIZED"),
        (401, "", BlandAuthenticationError, "http_401"),
        (403, "", BlandAuthenticationError, "http_403"),
        (404, "", BlandRouteError, "http_404"),
        (404, "CONVERSATION_NOT_FOUND", BlandNotFoundError, "CONVERSATION_NOT_FOUND"),
        (408, "", BlandUnavailableError, "http_408"),
        (409, "", BlandConflictError, "http_409"),
        (429, "", BlandUnavailableError, "http_429"),
        (499, "", BlandAPIError, "http_499"),
        (500, "", BlandUnavailableError, "http_500"),
    ],
)
def test_api_error(status: int, code: str, kind: type[BlandAPIError], told: str) -> None:
    error = api_error(status, code, "words", 3.0)

    assert type(error) is kind
    assert (error.status_code, error.code, error.message) == (status, told, "words")
    assert error.retry_after_seconds == 3.0


def while_connecting(error: Exception) -> Exception:
    error.while_connecting = True  # type: ignore[attr-defined]
    return error


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def amid(error: Exception, context: BaseException) -> Exception:
    error.__context__ = context
    return error


@pytest.mark.parametrize(
    ("error", "kind", "cause"),
    [
        (requests.exceptions.InvalidURL(), BlandConfigurationError, "url_not_usable"),
        (requests.exceptions.InvalidSchema(), BlandConfigurationError, "url_not_usable"),
        (requests.exceptions.MissingSchema(), BlandConfigurationError, "url_not_usable"),
        (urllib3.exceptions.LocationValueError(), BlandConfigurationError, "url_not_usable"),
        (requests.exceptions.InvalidHeader(), BlandConfigurationError, "url_not_usable"),
        (amid(OSError(), urllib3.exceptions.ConnectTimeoutError()), BlandConnectionError, ""),
        (
            amid(OSError(), urllib3.exceptions.NewConnectionError(None, "")),
            BlandConnectionError,
            "",
        ),  # type: ignore[arg-type]
        (requests.ConnectTimeout(), BlandConnectionError, ""),
        (requests.exceptions.ProxyError(), BlandConnectionError, ""),
        (while_connecting(requests.ConnectionError()), BlandConnectionError, ""),
        (requests.ReadTimeout(), BlandOutcomeUnknownError, ""),
        (requests.ConnectionError(), BlandOutcomeUnknownError, "broken_off"),
        (
            caused(requests.ConnectionError(), urllib3.exceptions.InvalidHeader()),
            BlandOutcomeUnknownError,
            "senseless_headers",
        ),
        (
            caused(requests.ConnectionError(), ssl.SSLCertVerificationError()),
            BlandTLSError,
            "",
        ),
        (while_connecting(ssl.SSLError()), BlandTLSError, ""),
        (while_connecting(ssl.SSLEOFError()), BlandConnectionError, ""),
        (while_connecting(ssl.SSLZeroReturnError()), BlandConnectionError, ""),
        (amid(while_connecting(ssl.SSLError()), ConnectionResetError()), BlandConnectionError, ""),
        (ssl.SSLError(), BlandOutcomeUnknownError, "broken_off"),
        (
            requests.ConnectionError(
                urllib3.exceptions.MaxRetryError(None, "/", ssl.SSLCertVerificationError())  # type: ignore[arg-type]
            ),
            BlandTLSError,
            "",
        ),
    ],
    ids=repr,
)
def test_translate(error: Exception, kind: type[BlandError], cause: str) -> None:
    told = translate(error)

    assert type(told) is kind
    assert told.failure.params.get("cause", "") == cause


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (requests.ReadTimeout(), True),
        (TimeoutError(), True),
        (
            caused(requests.ConnectionError(), urllib3.exceptions.ReadTimeoutError(None, "/", "")),
            True,
        ),  # type: ignore[arg-type]
        (requests.ConnectionError(), False),
    ],
    ids=repr,
)
def test_is_timeout(error: Exception, expected: bool) -> None:
    assert is_timeout(error) is expected


DAY = 86400.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        (" 2.5 ", 2.5),
        ("-1", None),
        ("soon", None),
        ("86401", DAY),
        ("9" * 400, DAY),
        ("Tue, 03 Feb 2026 12:00:07 GMT", 7.0),
        ("Tue, 03 Feb 2026 11:00:00 GMT", 0.0),
        ("Tue, 10 Feb 2026 12:00:00 GMT", DAY),
    ],
)
def test_parse_retry_after(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOON) == seconds


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("yesterday", None),
        ("Tue, 03 Feb 2026 12:00:00 GMT", NOON),
        ("Tue, 03 Feb 2026 12:00:00", NOON),
        ("Tue, 03 Feb 2026 13:00:00 +0100", NOON),
        ("Thu, 01 Jan 1970 00:00:00 GMT", None),
        ("Wed, 03 Feb 2027 12:00:00 GMT", NOON + timedelta(days=365)),
        ("Thu, 04 Feb 2027 12:00:00 GMT", None),
        ("Tue, 03 Feb 2026 12:00:00 GMT ".ljust(64, "x"), NOON),
        ("Tue, 03 Feb 2026 12:00:00 GMT ".ljust(65, "x"), None),
    ],
)
def test_parse_date(value: str | None, expected: Any) -> None:
    assert parse_date(value, NOON) == expected


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the zone of a process is set on Unix")
def test_parse_date__without_a_zone_is_utc_wherever_we_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert parse_date("Tue, 03 Feb 2026 12:00:01", NOON) == NOON + timedelta(seconds=1)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_is_timeout__of_errors_that_name_each_other() -> None:
    error, other = OSError(), OSError()
    error.__cause__, other.__cause__ = other, error

    assert not is_timeout(error)
