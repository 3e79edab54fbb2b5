"""What is asked again, and when: the policy as a table, without a socket."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bland_sms.client import retrying
from bland_sms.client.retrying import Limits, is_repeatable, leaves_open, most_telling, plan_retry
from bland_sms.exceptions import (
    BlandAPIError,
    BlandAuthenticationError,
    BlandConfigurationError,
    BlandConflictError,
    BlandConnectionError,
    BlandError,
    BlandInvalidIdError,
    BlandNotFoundError,
    BlandNotSentError,
    BlandOutcomeUnknownError,
    BlandPayloadError,
    BlandRouteError,
    BlandTLSError,
    BlandUnavailableError,
    GaveUp,
)
from bland_sms.pacing import Allowance


@pytest.fixture(autouse=True)
def half_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.25 s, 0.5 s, 1 s ... and exactly what Bland asks for."""
    monkeypatch.setattr("random.uniform", lambda low, high: high / 2 if high > 0.1 else 0.0)


def unavailable(status: int = 500, retry_after: float | None = None) -> BlandError:
    return BlandUnavailableError(status, retry_after_seconds=retry_after)


def cut_off() -> BlandError:
    failure = BlandOutcomeUnknownError("late")
    failure.cut_off = True
    return failure


@pytest.mark.parametrize(
    ("failure", "attempt", "limits", "expected"),
    [
        (unavailable(), 1, Limits(3), 0.25),
        (unavailable(), 2, Limits(3), 0.5),
        (unavailable(), 3, Limits(3), GaveUp.ATTEMPTS),
        (unavailable(), 1, Limits(1), GaveUp.ATTEMPTS),
        (unavailable(429, 7.0), 1, Limits(3), 7.0),
        (unavailable(429, 60.0), 1, Limits(3), 60.0),
        (unavailable(429, 60.5), 1, Limits(3), GaveUp.PATIENCE),
        (unavailable(503, 86_400.0), 1, Limits(3), GaveUp.PATIENCE),
        (unavailable(503, 86_400.0), 3, Limits(3), GaveUp.ATTEMPTS),
        (unavailable(), 1, Limits(3, 0.0), GaveUp.TIME),
        (unavailable(), 1, Limits(3, 0.25), GaveUp.TIME),
        (unavailable(), 1, Limits(3, 0.26), 0.25),
        (unavailable(429, 7.0), 1, Limits(3, 6.0), GaveUp.TIME),
        (unavailable(429, 99.0), 1, Limits(3, 6.0), GaveUp.PATIENCE),
        (BlandConnectionError("x"), 1, Limits(3), 0.25),
        (BlandOutcomeUnknownError("x"), 2, Limits(3), 0.5),
        (cut_off(), 1, Limits(3), GaveUp.TIME),
        (cut_off(), 3, Limits(3), GaveUp.TIME),
        (BlandConflictError(409), 1, Limits(3), 0.25),
        (BlandConflictError(409), 2, Limits(3), GaveUp.ATTEMPTS),
        (BlandConflictError(409), 1, Limits(1), GaveUp.ATTEMPTS),
    ],
)
def test_plan_retry(
    failure: BlandError, attempt: int, limits: Limits, expected: float | GaveUp
) -> None:
    assert plan_retry(failure, attempt, limits) == expected


@given(st.integers(1, 50), st.integers(1, 9), st.none() | st.floats(0, 1e6), st.floats(0, 1e12))
def test_plan_retry__never_longer_than_a_minute_nor_past_the_end(
    attempt: int, attempts: int, seconds: float | None, asked: float
) -> None:
    wait = plan_retry(unavailable(429, asked), attempt, Limits(attempts, seconds))

    if not isinstance(wait, GaveUp):
        assert 0 <= wait <= 60.1
        assert seconds is None or wait < seconds
        assert attempt < attempts


@pytest.mark.parametrize(
    ("allowance", "max_retries", "limits"),
    [
        (Allowance(), 2, Limits(3)),
        (Allowance(), 0, Limits(1)),
        (Allowance(attempts=1), 2, Limits(1)),
        (Allowance(attempts=9), 2, Limits(3)),
        (Allowance(deadline=0.0), 2, Limits(3, 0.0)),
    ],
)
def test_limits__of_an_allowance(allowance: Allowance, max_retries: int, limits: Limits) -> None:
    assert Limits.of(allowance, max_retries) == limits


def test_limits__stopped() -> None:
    allowance = Allowance()
    allowance.stopped.set()

    assert Limits.of(allowance, 2).seconds == 0


REPEATABLE = {
    BlandConnectionError("x"): True,
    BlandOutcomeUnknownError("x"): True,
    unavailable(429): True,
    unavailable(500): True,
    BlandConflictError(409): True,
    BlandAPIError(400): False,
    BlandNotFoundError(404): False,
    BlandRouteError(404): False,
    BlandAuthenticationError(401): False,
    BlandConfigurationError("x"): False,
    BlandTLSError("x"): False,
    BlandPayloadError("x"): False,
    BlandNotSentError("x"): False,
    BlandInvalidIdError("x"): False,
}


@pytest.mark.parametrize(("failure", "expected"), REPEATABLE.items(), ids=str)
def test_is_repeatable(failure: BlandError, expected: bool) -> None:
    assert is_repeatable(failure) is expected


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (BlandOutcomeUnknownError("x"), True),
        (unavailable(500), True),
        (unavailable(408), True),
        (unavailable(429), False),
        (BlandConnectionError("x"), False),
        (BlandNotFoundError(404), False),
    ],
)
def test_leaves_open(failure: BlandError, expected: bool) -> None:
    assert leaves_open(failure) is expected


DOUBT = unavailable(500)


@pytest.mark.parametrize(
    ("doubt", "failure", "is_doubt"),
    [
        (None, unavailable(429), False),
        (DOUBT, unavailable(429), True),
        (DOUBT, BlandConnectionError("x"), True),
        (DOUBT, unavailable(503), False),  # as open as the first, and newer
        (DOUBT, BlandNotFoundError(404), False),  # settles it
        (DOUBT, BlandConflictError(409), False),
    ],
)
def test_most_telling(doubt: BlandError | None, failure: BlandError, is_doubt: bool) -> None:
    assert most_telling(doubt, failure) is (doubt if is_doubt else failure)


def test_most_telling__doubt_takes_over_when_to_ask_again() -> None:
    doubt: Any = unavailable(500)

    last = unavailable(429, 7.0)
    last.cut_off = True

    told = most_telling(doubt, last)

    assert (told.retry_after_seconds, told.cut_off) == (7.0, True)


def test_retrying__has_neither_clock_nor_socket() -> None:
    assert not {"time", "socket", "requests", "urllib3"} & set(vars(retrying))
