"""Marks rows of the list that have a requested change which Bland has not confirmed yet."""

from __future__ import annotations

from collections.abc import Iterable

from django.db.models import Max
from django.utils.translation import gettext as _

from ..models import BulkUpdate, BulkUpdateItem, Conversation

State = BulkUpdateItem.State
Status = BulkUpdate.Status
REQUESTED_CHANGE = "bland_sms_requested_change"
"""Attribute of a row: the state of its last item and the words for it."""
NOT_YET_SO = (State.WAITING, State.RUNNING, State.FAILED, State.UNKNOWN)


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
    for conversation_id, state, asked, status, stop_code in items.values_list(
        "conversation_id",
        "state",
        "bulk_update__is_active",
        "bulk_update__status",
        "bulk_update__stop_code",
    ):
        row = by_id[conversation_id]
        if row.is_active != asked or state in State.OPEN:
            if state == State.WAITING and status == Status.STOPPED:
                mark = status, _stopped_words(stop_code, is_active=asked)
            else:
                mark = state, _words(state, is_active=asked)
            setattr(row, REQUESTED_CHANGE, mark)


def _stopped_words(stop_code: str, *, is_active: bool) -> str:
    if stop_code == "outage":  # it goes on by itself
        return _("reactivation paused") if is_active else _("deactivation paused")
    return _("reactivation stopped") if is_active else _("deactivation stopped")


def _words(state: str, *, is_active: bool) -> str:
    if state in State.OPEN:
        return _("being reactivated") if is_active else _("being deactivated")
    if state == State.FAILED:
        return _("reactivation failed") if is_active else _("deactivation failed")
    return _("reactivation: outcome unknown") if is_active else _("deactivation: outcome unknown")
