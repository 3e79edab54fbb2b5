"""What people decide about an update once it is there: cancel, continue, retry, undo."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db.models import Exists, F, OuterRef, QuerySet
from django.utils import timezone

from ..database import patient, using, write_transaction
from ..models import BulkUpdate, BulkUpdateItem, Conversation
from ..people import name_of
from ..visible import Visible, visible_items
from .ledger import drop_already_queued, prepare
from .transitions import (
    NOT_STOPPED,
    call_back,
    cancel_items,
    come_to_rest,
    finish_if_done,
    note,
    release_dead_claims,
)

State = BulkUpdateItem.State
Status = BulkUpdate.Status


@patient
def cancel(bulk_update: BulkUpdate, user: Any = None, *, visible: Visible = None) -> bool:
    """Ask no more of it. What is in flight is awaited and written; a draft is deleted.

    Args:
        visible: Where other conversations of the update are still to be asked, only these are
            cancelled and the update goes on.

    Returns:
        False where there was nothing to cancel any more.
    """
    if bulk_update.status == Status.DRAFT:
        return bool(BulkUpdate.objects.filter(pk=bulk_update.pk, status=Status.DRAFT).delete()[0])
    if visible is not None and has_hidden(bulk_update, State.OPEN, visible):
        return bool(_cancel_visible(bulk_update, user, visible))
    with write_transaction(BulkUpdate):
        cancelled = BulkUpdate.objects.filter(
            pk=bulk_update.pk, status__in=Status.UNFINISHED
        ).update(status=Status.CANCELLED, finished_at=timezone.now(), live_counts={}, **NOT_STOPPED)
        if cancelled:
            waiting = bulk_update.items.filter(state=State.WAITING)
            who = {} if user is None else {"by": name_of(user)}
            cancel_items(list(waiting.values_list("pk", flat=True)), "cancelled", **who)
            note(bulk_update, user, "history_cancelled")
            release_dead_claims()
            if not bulk_update.items.filter(state=State.RUNNING).exists():
                come_to_rest(bulk_update.pk)
    bulk_update.refresh_from_db()
    return bool(cancelled)


def _cancel_visible(bulk_update: BulkUpdate, user: Any, visible: Visible) -> int:
    """Cancel some of the open items; how many."""
    who = {} if user is None else {"by": name_of(user)}
    with write_transaction(BulkUpdate):
        # Its driver writes no results meanwhile: no item may go back from the one to the other.
        if not _lock(bulk_update.pk, status__in=Status.UNFINISHED):
            return 0
        release_dead_claims()
        open_items = visible_items(bulk_update.items.filter(state__in=State.OPEN), visible)
        item_ids = list(open_items.values_list("pk", flat=True))
        number = cancel_items(item_ids, "cancelled", **who)
        number += call_back(item_ids, "cancelled", **who)
        if number:
            note(bulk_update, user, "history_cancelled")
            finish_if_done(bulk_update.pk)
    bulk_update.refresh_from_db()
    return number


def _lock(pk: int, **conditions: Any) -> bool:
    """Lock the row of an update until the transaction ends; whether it meets the conditions."""
    rows = BulkUpdate.objects.filter(pk=pk, **conditions)
    return bool(rows.update(status=F("status")))


def has_hidden(bulk_update: BulkUpdate, states: Iterable[str], visible: Visible) -> bool:
    """Whether items in one of these states are of conversations that are not visible."""
    if visible is None:
        return False
    items = bulk_update.items.filter(state__in=tuple(states))
    return visible_items(items, visible).count() < items.count()


@patient
def proceed(bulk_update: BulkUpdate, user: Any = None) -> bool:
    """Queue a stopped update again, such as after the key was replaced."""
    with write_transaction(BulkUpdate):
        queued = BulkUpdate.objects.filter(pk=bulk_update.pk, status=Status.STOPPED).update(
            status=Status.QUEUED, finished_at=None, **NOT_STOPPED
        )
        if queued:
            note(bulk_update, user, "history_continued")
    bulk_update.refresh_from_db()
    return bool(queued)


@patient
def retry(bulk_update: BulkUpdate, user: Any = None, *, visible: Visible = None) -> int:
    """Queue the failed and the unknown items again; how many. Attempts made so far stay counted.

    An unknown one is looked at before it is asked again. The intent is as old as it was: where
    the opposite was requested since, the item becomes ``superseded``.
    """
    alias = using(BulkUpdate)
    again = visible_items(
        bulk_update.items.filter(state__in=(State.FAILED, State.UNKNOWN)), visible
    )
    with write_transaction(BulkUpdate):
        queued = BulkUpdate.objects.filter(
            Exists(again),
            pk=bulk_update.pk,
            status__in=(*Status.AT_REST, Status.STOPPED),
        ).update(status=Status.QUEUED, finished_at=None, **NOT_STOPPED)
        if not queued:
            return 0
        fresh = {"state": State.WAITING, "finished_at": None, "not_before": None}
        fresh["error_params"] = None
        number = again.filter(state=State.UNKNOWN).update(**fresh, error_code="no_answer")
        number += again.filter(state=State.FAILED).update(**fresh, error_code="")
        note(bulk_update, user, "history_retried", number=number)
        drop_already_queued(bulk_update, alias)
        finish_if_done(bulk_update.pk)
    bulk_update.refresh_from_db()
    return number


def undoable(bulk_update: BulkUpdate) -> QuerySet[Conversation]:
    """The rows that an update changed, and that were not changed again since."""
    changed = bulk_update.items.filter(conversation=OuterRef("pk"), state=State.CHANGED)
    since = BulkUpdateItem.objects.filter(
        conversation=OuterRef("pk"),
        state=State.CHANGED,
        bulk_update__started_at__gt=bulk_update.started_at,
    )
    return Conversation.objects.filter(
        Exists(changed), ~Exists(since), is_active=bulk_update.is_active
    )


def undoing(update_ids: Iterable[int]) -> QuerySet[BulkUpdate]:
    """The updates that undo these: started, and not cancelled on the way."""
    not_counted = (Status.DRAFT, Status.CANCELLED)
    undoing = BulkUpdate.objects.filter(undo_of__in=list(update_ids))
    return undoing.exclude(status__in=not_counted)


def left_alone(undo: BulkUpdate) -> QuerySet[BulkUpdateItem]:
    """Items that an undone update changed and that its undo leaves as they are."""
    mine = undo.items.filter(conversation_id=OuterRef("conversation_id"))
    return BulkUpdateItem.objects.filter(
        ~Exists(mine), bulk_update_id=undo.undo_of_id, state=State.CHANGED
    )


def undo(
    bulk_update: BulkUpdate,
    user: Any = None,
    *,
    source: str = BulkUpdate.Source.COMMAND,
    reason: str = "",
    visible: Visible = None,
) -> BulkUpdate:
    """Draft a linked update with the opposite value for exactly the rows that can be undone.

    Args:
        visible: Rows that are not among these are left as they are.

    Raises:
        EmptySelectionError: there is none.
    """
    rows = undoable(bulk_update)
    if visible is not None:
        rows = rows.filter(pk__in=visible.order_by().values("pk"))
    return prepare(
        rows,
        not bulk_update.is_active,
        requested_by=user,
        reason=reason,
        source=source,
        undo_of=bulk_update,
    )
