"""How an update stands when a run of it ends."""

from __future__ import annotations

from collections.abc import Collection

from django.db.models import Q

from ..database import write_transaction
from ..models import BulkUpdate, BulkUpdateItem
from ..pacing import RetryBudget
from ..reasons import Failure
from .outages import OUTAGE, outage_of, pause_for_outage, without_outage
from .transitions import NOT_STOPPED, cancel_items, come_to_rest, finish_if_done

Status = BulkUpdate.Status


def release(
    update: BulkUpdate, stop: Failure, budget: RetryBudget, troubles: Collection[int | None]
) -> None:
    """Give the lease back and say how the update stands.

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
            return
        if came_to_rest:
            come_to_rest(update.pk)
        elif update.live_counts is not None:
            update.keep_counts()
