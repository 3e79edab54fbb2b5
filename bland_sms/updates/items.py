"""Changes of state that both the intents and the driver make."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from ..models import OPEN_STATES, BulkUpdate, BulkUpdateItem
from ..signals import announce, bulk_update_finished

ROWS_PER_STATEMENT = 500
MOST_PUT_BACK = 1000
Value = TypeVar("Value")


def slices(values: Sequence[Value]) -> Iterable[Sequence[Value]]:
    """The values in portions that one statement can name."""
    for begin in range(0, len(values), ROWS_PER_STATEMENT):
        yield values[begin : begin + ROWS_PER_STATEMENT]


def cancel_items(item_ids: Sequence[int], code: str, message: str) -> int:
    """Cancel those of the items that still wait; how many there were."""
    cancelled = 0
    for some in slices(item_ids):
        cancelled += BulkUpdateItem.objects.filter(
            pk__in=some, state=BulkUpdateItem.State.WAITING
        ).update(
            state=BulkUpdateItem.State.CANCELLED,
            error_code=code,
            message=message[:500],
            finished_at=timezone.now(),
        )
    return cancelled


def finish_if_done(bulk_update_id: int) -> bool:
    """Close an update of which nothing is open, and announce it once; whether it is closed."""
    open_items = BulkUpdateItem.objects.filter(bulk_update=OuterRef("pk"), state__in=OPEN_STATES)
    unfinished = (
        BulkUpdate.Status.QUEUED,
        BulkUpdate.Status.RUNNING,
        BulkUpdate.Status.STOPPED,
    )
    finished = BulkUpdate.objects.filter(
        ~Exists(open_items), pk=bulk_update_id, status__in=unfinished
    ).update(
        status=BulkUpdate.Status.FINISHED,
        finished_at=timezone.now(),
        lease_token=None,
        lease_until=None,
        stop_code="",
        stop_message="",
    )
    if finished:
        come_to_rest(bulk_update_id)
    return bool(finished)


def come_to_rest(bulk_update_id: int) -> None:
    """Keep the counts of an update that nobody works on any more, and announce that it is over.

    Lists show them; counting the items of fifty updates would take longer than the page.
    """
    bulk_update = BulkUpdate.objects.get(pk=bulk_update_id)
    counts = bulk_update.counts()
    BulkUpdate.objects.filter(pk=bulk_update_id).update(counts_at_rest=counts)
    bulk_update.counts_at_rest = counts
    if bulk_update.status != BulkUpdate.Status.STOPPED:
        arguments = {"bulk_update": bulk_update, "counts": counts}
        announce(bulk_update_finished, BulkUpdate, lambda: [arguments])


def release_dead_claims() -> None:
    """Put items back whose process died, of any update."""
    now = timezone.now()
    nobody = Q(bulk_update__lease_until__isnull=True) | Q(bulk_update__lease_until__lte=now)
    put_back(BulkUpdateItem.objects.filter(nobody, state=BulkUpdateItem.State.RUNNING))


def put_back(dead: QuerySet[BulkUpdateItem]) -> None:
    """What was in flight waits again, to be looked at before all else.

    In a cancelled update nothing is asked any more: there the item is unknown, until somebody
    presses Retry.
    """
    found = dead.values_list("pk", "bulk_update_id", "bulk_update__status")[:MOST_PUT_BACK]
    cancelled = {
        pk: update for pk, update, status in found if status == BulkUpdate.Status.CANCELLED
    }
    waiting = [pk for pk, _update, _status in found if pk not in cancelled]
    running = BulkUpdateItem.objects.filter(state=BulkUpdateItem.State.RUNNING)
    running.filter(pk__in=waiting).update(
        state=BulkUpdateItem.State.WAITING, claimed_conversation=None, error_code="interrupted"
    )
    running.filter(pk__in=cancelled).update(
        state=BulkUpdateItem.State.UNKNOWN,
        claimed_conversation=None,
        error_code="no_answer",
        finished_at=timezone.now(),
    )
    for bulk_update_id in set(cancelled.values()):
        come_to_rest(bulk_update_id)
