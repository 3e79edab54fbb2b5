"""How an update stands when a run of it ends; when Bland does not answer, it pauses.

Each pause is longer than the one before, and after it the update goes on by itself.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.db.models import Q
from django.utils import timezone

from ..database import write_transaction
from ..models import BulkUpdate, BulkUpdateItem
from ..reasons import Failure
from .transitions import NOT_STOPPED, cancel_items, come_to_rest, finish_if_done

if TYPE_CHECKING:
    from ..pacing import RetryBudget

Status = BulkUpdate.Status

OUTAGE, RATE_LIMITED = "outage", "rate_limited"
FIRST_PAUSE = timedelta(seconds=30)
LONGEST_PAUSE = timedelta(minutes=15)
"""Each pause is twice as long as the one before, up to this, and then somewhat shorter or longer
by chance: so many updates that stopped together do not all start again at once."""
JITTER = 0.25


def release(
    update: BulkUpdate, stop: Failure, budget: RetryBudget, troubles: Collection[int | None]
) -> bool:
    """Give the lease back and say how the update stands; whether it is closed: nothing is open.

    Args:
        stop: Why it stops, if it does.
        troubles: For an outage: the HTTP statuses since Bland last answered.
    """
    running = Q(status=Status.RUNNING)
    with write_transaction(BulkUpdate):
        if stop.code == OUTAGE:
            outage = pause_for_outage(update, budget)
            stop = outage_of(troubles)
        else:
            outage = without_outage(budget)
        if stop:
            released = update.release_lease(
                running,
                status=Status.STOPPED,
                stop_code=stop.code[:64],
                stop_params=dict(stop.params),
                **outage,
            )
        else:
            released = update.release_lease(running, status=Status.QUEUED, **NOT_STOPPED | outage)
        came_to_rest = released and bool(stop)
        if not released and update.release_lease(Q(status=Status.CANCELLED)):
            waiting = BulkUpdateItem.State.WAITING
            unsent = BulkUpdateItem.objects.filter(bulk_update_id=update.pk, state=waiting)
            cancel_items(list(unsent.values_list("pk", flat=True)), "cancelled")
            came_to_rest = True
        if finish_if_done(update.pk):
            return True
        if came_to_rest:
            come_to_rest(update.pk)
        elif update.live_counts is not None:
            update.keep_counts()
    return False


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
