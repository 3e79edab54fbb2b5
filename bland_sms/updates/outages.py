"""When Bland does not answer: growing pauses, after which an update goes on by itself."""

from __future__ import annotations

import random
from collections.abc import Collection
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.db.models import Q
from django.utils import timezone

from ..models import BulkUpdate
from ..reasons import Failure

if TYPE_CHECKING:
    from ..pacing import RetryBudget

Status = BulkUpdate.Status

OUTAGE, RATE_LIMITED = "outage", "rate_limited"
FIRST_PAUSE = timedelta(seconds=30)
LONGEST_PAUSE = timedelta(minutes=15)
"""Each pause is twice as long as the one before, up to this, and then somewhat shorter or longer
by chance: so many updates that stopped together do not all start again at once."""
JITTER = 0.25


def can_go_on() -> Q:
    """Updates that may be carried out now: queued, running, or tried again after an outage."""
    is_due = Q(not_before__isnull=False, not_before__lte=timezone.now())
    return Q(status__in=Status.OPEN) | (Q(status=Status.STOPPED, stop_code=OUTAGE) & is_due)


def outage_of(statuses: Collection[int | None]) -> Failure:
    """Why an update pauses, by the HTTP statuses of what was not really answered.

    Where all of them are 429, Bland answers: it only limits how often it may be asked.
    """
    return Failure(OUTAGE, {"cause": RATE_LIMITED} if set(statuses) == {429} else {})


def pause_for_outage(bulk_update: BulkUpdate, budget: RetryBudget) -> dict[str, Any]:
    """The columns of an update that stops because Bland does not answer."""
    now = timezone.now()
    # Where something was answered meanwhile, this is another outage.
    is_new = bulk_update.outage_since is None or budget.answers > 1
    pauses = 0 if is_new else bulk_update.outage_pauses
    pause = min(FIRST_PAUSE * 2 ** min(pauses, 10), LONGEST_PAUSE)
    pause *= random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  no secret
    return {
        "not_before": now + pause,
        "outage_since": now if is_new else bulk_update.outage_since,
        "outage_pauses": pauses + 1,
        "retry_tokens": budget.tokens,
    }


def without_outage(budget: RetryBudget) -> dict[str, Any]:
    """The columns of an update that pauses or stops for another reason."""
    columns: dict[str, Any] = {"retry_tokens": budget.tokens, "not_before": None}
    if budget.answers:
        columns |= {"outage_since": None, "outage_pauses": 0}
    return columns
