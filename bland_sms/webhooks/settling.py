"""What becomes of deliveries after Bland was asked: copied, put off, or given up."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db.models import F
from django.utils import timezone

from ..database import batches
from ..exceptions import (
    STOPPING_ERRORS,
    TRANSIENT_ERRORS,
    BlandConflictError,
    BlandError,
    BlandNotFoundError,
    BlandNotSentError,
    BlandPayloadError,
)
from ..models import WebhookDelivery
from ..reasons import Failure

logger = logging.getLogger("bland_sms.deliveries")

State = WebhookDelivery.State

SPACING = timedelta(minutes=1)
"""The shortest time between two requests to Bland for one conversation."""
MOST_ATTEMPTS = 8
"""A delivery is given up after this number of failed attempts."""
LONGEST_PAUSE = timedelta(hours=1)
LONGEST_OUTAGE_PAUSE = timedelta(minutes=15)
LONGEST_WAIT = timedelta(days=1)
"""Upper limit for what Bland asks for with ``Retry-After``."""

CRASHED = Failure("interrupted", {"cause": "copy_crashed"})
NOT_STORED = Failure("not_stored", {"cause": "copy_refused"})
WRONG_CLOCK = Failure("wrong_clock")
FREE: dict[str, Any] = {"claimed_conversation": None}
"""Columns that go with the lease when it is given back."""

UNANSWERED_ERRORS = (*TRANSIENT_ERRORS, BlandConflictError, BlandPayloadError)
"""Bland gave no usable answer. It may do so later."""


class WrongClockError(Exception):
    """The stored copy is dated ahead of now, so it could not be replaced. Try again later."""


@dataclass
class Claimed:
    """A conversation that this process copies, and no other process."""

    delivery: WebhookDelivery
    """The one that holds the lease."""
    served: list[int]
    """Keys of the deliveries that one copy serves: all that came before Bland is asked."""
    problem: Exception | None = field(default_factory=BlandNotSentError)
    """Why the conversation was not copied; ``None``: it was."""
    is_charged: bool = True
    """Whether a problem that may pass counts as an attempt; in an outage it does not."""
    processed: int = 0
    put_off: int = 0
    given_up: Failure = field(default_factory=Failure)
    """The reason, where deliveries were given up."""


def settle(claimed: Claimed) -> None:
    """Write what came of one copy, for all deliveries that it serves."""
    problem, now = claimed.problem, timezone.now()
    failure = _failure(problem)
    error = kept(failure)
    if failure:
        logger.info("conversation %s: %s", claimed.delivery.conversation_id, failure.code)
    is_sent = not isinstance(problem, BlandNotSentError)
    claimed.processed, claimed.put_off, claimed.given_up = 0, 0, Failure()
    if not claimed.delivery.release_lease(**FREE, **({} if is_sent else {"asked_at": None})):
        claimed.put_off = len(claimed.served)  # the lease was lost: its new holder decides
    elif problem is None or isinstance(problem, BlandNotFoundError):
        claimed.processed = _update(
            claimed, state=State.PROCESSED, processed_at=now, not_before=None, **error
        )
    elif not is_sent:
        claimed.put_off = _update(claimed, state=State.RECEIVED)
    elif isinstance(problem, STOPPING_ERRORS):
        claimed.put_off = _update(claimed, not_before=now + SPACING, put_off_at=now, **error)
    elif isinstance(problem, BlandError) and not isinstance(problem, UNANSWERED_ERRORS):
        claimed.given_up = failure
        _update(claimed, state=State.FAILED, processed_at=now, not_before=None, **error)
    else:
        _settle_passing(claimed, problem, failure, now)


def _settle_passing(claimed: Claimed, problem: Exception, failure: Failure, now: datetime) -> None:
    if claimed.is_charged and not isinstance(problem, WrongClockError):
        _update(claimed, attempts=F("attempts") + 1)
        attempts = claimed.delivery.attempts + 1
        pause = min(SPACING * (1 << (attempts - 1)), LONGEST_PAUSE)
    else:  # as long as it has waited so far: each pause is twice the one before
        waited = now - claimed.delivery.received_at
        pause = min(max(waited, SPACING), LONGEST_OUTAGE_PAUSE)
    hopeless = {"attempts__gte": MOST_ATTEMPTS}
    error = kept(failure)
    values = {"processed_at": now, "not_before": None, **error}
    if _update(claimed, hopeless, state=State.FAILED, **values):
        claimed.given_up = failure
    not_before = now + max(pause, _asked_for(problem))
    claimed.put_off = _update(claimed, not_before=not_before, put_off_at=now, **error)


def _update(claimed: Claimed, conditions: dict[str, Any] | None = None, **values: Any) -> int:
    """Write to the deliveries that the copy serves, as far as they still wait; how many."""
    rows = WebhookDelivery.objects.filter(state=State.RECEIVED, **(conditions or {}))
    return sum(rows.filter(pk__in=some).update(**values) for some in batches(claimed.served))


def _asked_for(problem: Exception) -> timedelta:
    """The pause that Bland asked for."""
    seconds = problem.retry_after_seconds if isinstance(problem, BlandError) else None
    return timedelta(seconds=min(seconds or 0, LONGEST_WAIT.total_seconds()))


def _failure(problem: Exception | None) -> Failure:
    """What a delivery keeps of it."""
    if problem is None or isinstance(problem, BlandNotSentError):
        return Failure()
    if isinstance(problem, BlandError):
        # Without Bland's words: they may repeat people's text, which no delivery keeps.
        return Failure.of(problem.code, problem.own_params, problem.status_code)
    return WRONG_CLOCK if isinstance(problem, WrongClockError) else NOT_STORED


def kept(failure: Failure) -> dict[str, Any]:
    """The columns that hold a failure."""
    return {"error": failure.code[:64], "error_params": dict(failure.params)}
