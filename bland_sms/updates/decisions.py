"""What people decide about an update once it is there: cancel, continue, retry, undo."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.db import router, transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone
from django.utils.translation import gettext_noop

from .. import sentences
from ..models import BulkUpdate, BulkUpdateItem, Conversation
from .items import cancel_items, come_to_rest, finish_if_done, release_dead_claims
from .ledger import drop_already_queued, prepare

State = BulkUpdateItem.State
Status = BulkUpdate.Status


def cancel(bulk_update: BulkUpdate, user: Any = None) -> bool:
    """Ask no more of it. What is in flight is awaited and written; a draft is thrown away.

    Returns:
        False where there was nothing to cancel any more.
    """
    if bulk_update.status == Status.DRAFT:
        return bool(BulkUpdate.objects.filter(pk=bulk_update.pk, status=Status.DRAFT).delete()[0])
    open_statuses = (Status.QUEUED, Status.RUNNING, Status.STOPPED)
    with transaction.atomic(using=router.db_for_write(BulkUpdate)):
        cancelled = BulkUpdate.objects.filter(pk=bulk_update.pk, status__in=open_statuses).update(
            status=Status.CANCELLED, finished_at=timezone.now(), stop_code="", stop_message=""
        )
        if cancelled:
            waiting = bulk_update.items.filter(state=State.WAITING)
            who = sentences.BY % {"who": user.get_username()} if user is not None else ""
            cancel_items(list(waiting.values_list("pk", flat=True)), "cancelled", who)
            _note(bulk_update, user, gettext_noop("Cancelled the rest."))
            release_dead_claims()
            if not bulk_update.items.filter(state=State.RUNNING).exists():
                come_to_rest(bulk_update.pk)
    bulk_update.refresh_from_db()
    return bool(cancelled)


def proceed(bulk_update: BulkUpdate, user: Any = None) -> bool:
    """Queue a stopped update again, such as after the key was replaced."""
    with transaction.atomic(using=router.db_for_write(BulkUpdate)):
        queued = BulkUpdate.objects.filter(pk=bulk_update.pk, status=Status.STOPPED).update(
            status=Status.QUEUED, stop_code="", stop_message="", finished_at=None
        )
        if queued:
            _note(bulk_update, user, gettext_noop("Continued."))
    bulk_update.refresh_from_db()
    return bool(queued)


def retry(bulk_update: BulkUpdate, user: Any = None) -> int:
    """Queue the failed and the unknown items again; how many. Attempts made so far stay counted.

    An unknown one is looked at before it is asked again. The intent is as old as it was: where
    somebody has asked for the opposite since, the item becomes ``superseded``.
    """
    using = router.db_for_write(BulkUpdate)
    again = bulk_update.items.filter(state__in=(State.FAILED, State.UNKNOWN))
    with transaction.atomic(using=using):
        queued = BulkUpdate.objects.filter(
            Exists(again),
            pk=bulk_update.pk,
            status__in=(Status.FINISHED, Status.CANCELLED, Status.STOPPED),
        ).update(status=Status.QUEUED, finished_at=None, stop_code="", stop_message="")
        if not queued:
            return 0
        fresh = {"state": State.WAITING, "finished_at": None, "not_before": None}
        number = again.filter(state=State.UNKNOWN).update(**fresh, error_code="no_answer")
        number += again.filter(state=State.FAILED).update(**fresh, error_code="")
        _note(bulk_update, user, sentences.RETRIED % {"number": number})
        drop_already_queued(bulk_update, using)
        finish_if_done(bulk_update.pk)
    bulk_update.refresh_from_db()
    return number


def undoable(bulk_update: BulkUpdate) -> QuerySet[Conversation]:
    """The rows that an update changed, that are still at its value, and nobody changed since."""
    changed = bulk_update.items.filter(conversation=OuterRef("pk"), state=State.CHANGED)
    since = BulkUpdateItem.objects.filter(
        conversation=OuterRef("pk"),
        state=State.CHANGED,
        bulk_update__started_at__gt=bulk_update.started_at,
    )
    return Conversation.objects.filter(
        Exists(changed), ~Exists(since), is_active=bulk_update.is_active
    )


def left_alone(undo: BulkUpdate) -> QuerySet[BulkUpdateItem]:
    """Items that an undone update changed and that its undo leaves as they are."""
    mine = undo.items.filter(conversation_id=OuterRef("conversation_id"))
    return BulkUpdateItem.objects.filter(
        ~Exists(mine), bulk_update_id=undo.undo_of_id, state=State.CHANGED
    )


def undo(
    bulk_update: BulkUpdate, user: Any = None, *, source: str = BulkUpdate.Source.COMMAND
) -> BulkUpdate:
    """Draft a linked update with the opposite value for exactly the rows that can be undone.

    Raises:
        EmptySelectionError: there is none.
    """
    with transaction.atomic(using=router.db_for_write(BulkUpdate)):
        opposite = prepare(
            undoable(bulk_update),
            not bulk_update.is_active,
            requested_by=user,
            reason=sentences.UNDO_OF % {"number": bulk_update.pk},
            source=source,
            undo_of=bulk_update,
        )
        _note(bulk_update, user, sentences.UNDONE_BY % {"number": opposite.pk})
    return opposite


def _note(bulk_update: BulkUpdate, user: Any, text: str) -> None:
    """Who decided what stands in the update's own History."""
    if user is None or not apps.is_installed("django.contrib.admin"):
        return
    from django.contrib.admin.models import CHANGE, LogEntry

    LogEntry.objects.log_actions(user.pk, [bulk_update], CHANGE, text)
