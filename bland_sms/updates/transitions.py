"""Changes of state that both the intents and the driver make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import apps
from django.db.models import Exists, Model, OuterRef, Q, QuerySet
from django.utils import timezone

from ..database import batches, not_locked, write_transaction
from ..models import BulkUpdate, BulkUpdateItem
from ..people import IMPERSONATOR, name_of
from ..reasons import history_entry
from ..signals import announce, bulk_update_finished

LOOK_FIRST_CODES = {"interrupted", "no_answer"}
"""An item that waits with one of these was in flight: Bland may have done it already."""
ANOTHER_DECIDES = {"superseded", "already_queued"}
"""An item that is cancelled with one of these leaves its conversation to another item."""
CALLED_BACK = "called_back"
"""In ``error_params`` of an item that is open, where else there is nothing: the code to cancel it
with, since its driver had it when somebody did not want it any more."""
MOST_PUT_BACK = 1000
NOT_STOPPED: dict[str, Any] = {"stop_code": "", "stop_params": {}, "not_before": None}


def cancel_items(item_ids: Sequence[int], code: str, **params: Any) -> int:
    """Cancel those of the items that still wait; how many there were.

    Of one that was in flight nobody knows what Bland did. Unless another item decides about its
    conversation, it is unknown until Retry is pressed.
    """
    number = 0
    for some in batches(item_ids):
        waiting = BulkUpdateItem.objects.filter(pk__in=some, state=BulkUpdateItem.State.WAITING)
        now = timezone.now()
        if code not in ANOTHER_DECIDES:
            number += waiting.filter(error_code__in=LOOK_FIRST_CODES).update(
                state=BulkUpdateItem.State.UNKNOWN,
                error_code="no_answer",
                error_params=None,
                finished_at=now,
            )
        number += waiting.update(
            state=BulkUpdateItem.State.CANCELLED,
            error_code=code,
            error_params=params or None,
            finished_at=now,
        )
    return number


def call_back(item_ids: Sequence[int], code: str, **params: Any) -> int:
    """Ask for those of the items back that a driver has claimed; how many there are.

    Of these nobody but their driver knows which were sent. It sends no more of them as soon as it
    has seen this, and whichever was not asked is cancelled as it is put back. What it is writing at
    this moment has been asked.
    """
    running = BulkUpdateItem.objects.filter(state=BulkUpdateItem.State.RUNNING)
    noted = {**params, CALLED_BACK: code}
    number = 0
    with write_transaction(BulkUpdate):
        for some in batches(item_ids):
            free = list(not_locked(running.filter(pk__in=some)).values_list("pk", flat=True))
            number += running.filter(pk__in=free).update(error_params=noted)
    return number


def are_called_back() -> Q:
    """Items that somebody cancelled while their driver had them."""
    return Q(state__in=BulkUpdateItem.State.OPEN, error_params__isnull=False)


def cancel_called_back(items: QuerySet[BulkUpdateItem]) -> None:
    """Cancel those that are put back and that were asked for back."""
    asked_for = items.filter(are_called_back()).values_list("pk", "error_params")
    found: dict[str, tuple[Any, list[int]]] = {}
    for item_id, params in asked_for:
        found.setdefault(repr(params), (params, []))[1].append(item_id)
    for params, item_ids in found.values():
        code = params.pop(CALLED_BACK)
        cancel_items(item_ids, code, **params)


def finish_if_done(bulk_update_id: int) -> bool:
    """Close an update of which nothing is open, and announce it once; whether it is closed."""
    open_items = BulkUpdateItem.objects.filter(
        bulk_update=OuterRef("pk"), state__in=BulkUpdateItem.State.OPEN
    )
    finished = BulkUpdate.objects.filter(
        ~Exists(open_items), pk=bulk_update_id, status__in=BulkUpdate.Status.UNFINISHED
    ).update(
        status=BulkUpdate.Status.FINISHED,
        finished_at=timezone.now(),
        lease_token=None,
        lease_until=None,
        outage_since=None,
        outage_pauses=0,
        **NOT_STOPPED,
    )
    if finished:
        come_to_rest(bulk_update_id)
    else:  # whoever asks has changed some of its items
        large = BulkUpdate.objects.filter(pk=bulk_update_id, live_counts__isnull=False)
        large.update(live_counts={})
    return bool(finished)


def come_to_rest(bulk_update_id: int) -> None:
    """Store the counts of an update that is at rest, and announce that it is over.

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
    """Put items back whose process crashed, of any update."""
    unleased = BulkUpdate.unleased("bulk_update__")
    put_back(BulkUpdateItem.objects.filter(unleased, state=BulkUpdateItem.State.RUNNING))


def put_back(dead: QuerySet[BulkUpdateItem]) -> None:
    """What was in flight waits again, to be looked at before all else.

    In a cancelled update nothing is sent any more: there the item is unknown, until Retry is
    pressed.
    """
    items = list(dead.values_list("pk", flat=True)[:MOST_PUT_BACK])
    if not items:
        return
    running = BulkUpdateItem.objects.filter(state=BulkUpdateItem.State.RUNNING)
    with write_transaction(BulkUpdate):
        # A process that stands still may hold some of them: nobody waits for it here.
        free = list(not_locked(running.filter(pk__in=items)).values_list("pk", flat=True))
        # Looked at again: a living process may have claimed them meanwhile.
        found = dead.filter(pk__in=free).values_list("pk", "bulk_update", "bulk_update__status")
        cancelled = {
            pk: update for pk, update, status in found if status == BulkUpdate.Status.CANCELLED
        }
        waiting = [pk for pk, _update, _status in found if pk not in cancelled]
        running.filter(pk__in=waiting).update(
            state=BulkUpdateItem.State.WAITING, claimed_conversation=None, error_code="interrupted"
        )
        cancel_called_back(BulkUpdateItem.objects.filter(pk__in=waiting))
        running.filter(pk__in=cancelled).update(
            state=BulkUpdateItem.State.UNKNOWN,
            claimed_conversation=None,
            error_code="no_answer",
            error_params=None,
            finished_at=timezone.now(),
        )
    for bulk_update_id in set(cancelled.values()):
        come_to_rest(bulk_update_id)


def note(row: Model, user: Any, code: str, **params: Any) -> None:
    """Who decided what stands in the own History of an update, or of a standing order."""
    note_all([row], user, code, **params)


def note_all(rows: Sequence[Model], user: Any, code: str, **params: Any) -> None:
    """The same in the History of each of some rows."""
    if user is None or not apps.is_installed("django.contrib.admin"):
        return
    from django.contrib.admin.models import CHANGE, LogEntry

    if getattr(user, IMPERSONATOR, ""):
        params["person"] = name_of(user)
    LogEntry.objects.log_actions(user.pk, rows, CHANGE, history_entry(code, **params))
