"""Marks rows of the list that have a requested change which Bland has not confirmed yet."""

from __future__ import annotations

from collections.abc import Iterable

from django.db.models import Max
from django.utils.translation import gettext as _

from ..dispatching import is_paused
from ..models import BulkUpdate, BulkUpdateItem, Conversation
from .wording import paused_words

State = BulkUpdateItem.State
Status = BulkUpdate.Status
REQUESTED_CHANGE = "bland_sms_requested_change"
"""Attribute of a row: the state of its last item and the words for it."""
REQUESTED_VALUE = "bland_sms_requested_value"
"""Attribute of the same rows: the ``is_active`` that was asked for."""
NOT_YET_SO = (State.WAITING, State.RUNNING, State.FAILED, State.UNKNOWN)
NEEDED = (
    *("conversation_id", "state", "bulk_update__is_active", "bulk_update__status"),
    *("bulk_update__stop_code", "bulk_update__lease_until", "bulk_update__dispatched_at"),
)


def add_requested_changes(rows: Iterable[Conversation]) -> None:
    """Set :data:`REQUESTED_CHANGE` on the rows of one page, by one query."""
    by_id = {row.pk: row for row in rows}
    last = (
        BulkUpdateItem.objects.filter(conversation_id__in=list(by_id))
        .exclude(state=State.CANCELLED)
        .exclude(bulk_update__status=BulkUpdate.Status.DRAFT)
        .order_by()
        .values("conversation_id")
        .annotate(last=Max("pk"))
        .values("last")
    )
    items = BulkUpdateItem.objects.filter(pk__in=last, state__in=NOT_YET_SO)
    for item in items.select_related("bulk_update").only(*NEEDED):
        row = by_id[item.conversation_id]
        if row.is_active != item.bulk_update.is_active or item.state in State.OPEN:
            setattr(row, REQUESTED_CHANGE, _mark(item.state, item.bulk_update))
            setattr(row, REQUESTED_VALUE, item.bulk_update.is_active)


def _mark(state: str, bulk_update: BulkUpdate) -> tuple[str, str]:
    is_active = bulk_update.is_active
    if state == State.WAITING and bulk_update.status == Status.STOPPED:
        if bulk_update.stop_code == "outage":  # it goes on by itself
            return bulk_update.status, paused_words(is_active=is_active)
        words = _("reactivation stopped") if is_active else _("deactivation stopped")
        return bulk_update.status, words
    if state in State.OPEN and is_paused(bulk_update):
        return state, paused_words(is_active=is_active)
    return state, _words(state, is_active=is_active)


def _words(state: str, *, is_active: bool) -> str:
    if state in State.OPEN:
        return _("being reactivated") if is_active else _("being deactivated")
    if state == State.FAILED:
        return _("reactivation failed") if is_active else _("deactivation failed")
    return _("reactivation: outcome unknown") if is_active else _("deactivation: outcome unknown")
