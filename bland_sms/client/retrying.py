"""Whether a failed request is sent again, and when: decisions without a socket or a clock."""

from __future__ import annotations

from dataclasses import dataclass

from ..exceptions import (
    TRANSIENT_ERRORS,
    BlandConflictError,
    BlandError,
    BlandOutcomeUnknownError,
    BlandUnavailableError,
    GaveUp,
)
from ..pacing import Allowance, back_off_seconds

_REPEATABLE_ERRORS = (*TRANSIENT_ERRORS, BlandConflictError)
_CONFLICT_ATTEMPTS = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """What a call may still cost."""

    attempts: int
    """Requests in total, the first one included."""
    seconds: float | None = None
    """Until nothing may be sent any more; ``None``: no limit; 0: the job was stopped."""

    @classmethod
    def of(cls, allowance: Allowance, max_retries: int) -> Limits:
        attempts = max_retries + 1
        if allowance.attempts is not None:
            attempts = min(attempts, allowance.attempts)
        return cls(attempts, allowance.seconds_to_send())


def is_repeatable(failure: BlandError) -> bool:
    """Whether asking again may lead to another answer."""
    return isinstance(failure, _REPEATABLE_ERRORS)


def plan_retry(failure: BlandError, attempt: int, limits: Limits) -> float | GaveUp:
    """How many seconds to wait before the next request, or why there is none.

    The budget is no part of this: it is shared by threads, so the caller takes from it.

    Args:
        failure: One that is repeatable.
        attempt: How many requests were sent so far, from 1.
    """
    if failure.cut_off:
        return GaveUp.TIME
    attempts = limits.attempts
    if isinstance(failure, BlandConflictError):
        attempts = min(_CONFLICT_ATTEMPTS, attempts)
    if attempt >= attempts:
        return GaveUp.ATTEMPTS
    seconds = back_off_seconds(attempt, failure.retry_after_seconds)
    if seconds is None:
        return GaveUp.PATIENCE
    if limits.seconds is not None and seconds >= limits.seconds:
        return GaveUp.TIME
    return seconds


def leaves_open(failure: BlandError) -> bool:
    """Whether Bland may have done what was asked all the same."""
    if isinstance(failure, BlandOutcomeUnknownError):
        return True
    return isinstance(failure, BlandUnavailableError) and failure.status_code != 429


def most_telling(doubt: BlandError | None, failure: BlandError) -> BlandError:
    """Of an earlier failure that left it open and the last one: the one to report.

    A 500 may have applied it; a 429 after it did not, which says nothing of the 500.
    """
    if doubt is None or leaves_open(failure) or not isinstance(failure, TRANSIENT_ERRORS):
        return failure
    doubt.retry_after_seconds = failure.retry_after_seconds
    doubt.cut_off = failure.cut_off
    return doubt
