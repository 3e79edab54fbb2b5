"""Writes what came of asking: items of the ledger, rows of the mirror, History of the admin."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from django.apps import apps
from django.utils import timezone

from .. import sentences
from ..mirror import Applied, Payload, apply_page
from ..models import BulkUpdate, BulkUpdateItem, Conversation
from ..payloads import UpdatePayload
from .asking import LOOK_FIRST_CODES, Result, Verdict

State = BulkUpdateItem.State


def record(bulk_update: BulkUpdate, results: Sequence[Result]) -> None:
    """Write a batch of results. The caller's transaction holds the lease of the update."""
    applied = _apply(results)
    values = [_item_values(result, applied.get(result.task.conversation_id)) for result in results]
    _write_items(results, values)
    _write_history(bulk_update, results, values)


def _apply(results: Sequence[Result]) -> dict[str, Applied]:
    payloads: list[Payload] = [one for result in results for one in result.payloads]
    if not payloads:
        return {}
    adopted = {r.task.conversation_id for r in results if r.task.known_is_active is None}
    # A detail last, so that an answer without an age finds the row as Bland has it now.
    payloads.sort(key=lambda payload: not isinstance(payload, UpdatePayload))
    return apply_page(payloads, settle=True, creatable=adopted)


def _item_values(result: Result, applied: Applied | None) -> dict[str, object]:
    """The columns of an item, without what is the same for all of a batch."""
    task = result.task
    previous = None if applied is None else applied.previous_is_active
    if previous is None and task.known_is_active is None and result.payloads:
        previous = result.payloads[0].is_active  # adopted: what the look before asking said
    state = {
        Verdict.WAITING: State.WAITING,
        Verdict.UNKNOWN: State.UNKNOWN,
        Verdict.FAILED: State.FAILED,
        Verdict.NOT_FOUND: State.FAILED,
        Verdict.CONFIRMED: State.CHANGED,
    }[result.verdict]
    if state == State.CHANGED:
        # A row that was deleted meanwhile is judged by what it held when its turn came.
        before = task.known_is_active if previous is None else previous
        if before is task.is_active:
            state = State.UNCHANGED
    values: dict[str, object] = {
        "state": state,
        "previous_is_active": previous,
        "http_status": result.http_status,
        "error_code": result.error_code[:64],
        "message": result.message[:500],
        "attempts": task.attempts + result.requests,
    }
    if state == State.WAITING:
        values = {"state": state, "error_code": result.error_code[:64]}
        if result.error_code not in LOOK_FIRST_CODES:
            values["error_code"] = ""
        if result.retry_after_seconds is not None:
            values["not_before"] = timezone.now() + timedelta(seconds=result.retry_after_seconds)
            values |= {"http_status": result.http_status, "message": result.message[:500]}
    return values


def _write_items(results: Sequence[Result], values: Sequence[dict[str, object]]) -> None:
    """One statement for each set of equal results, which most are."""
    now = timezone.now()
    groups: dict[tuple[tuple[str, object], ...], list[int]] = {}
    for result, columns in zip(results, values, strict=True):
        groups.setdefault(tuple(columns.items()), []).append(result.task.item_id)
    for columns_items, item_ids in groups.items():
        columns = dict(columns_items)
        if columns["state"] != State.WAITING:
            columns["finished_at"] = now
        BulkUpdateItem.objects.filter(pk__in=item_ids, state=State.RUNNING).update(
            claimed_conversation=None, **columns
        )


def _write_history(
    bulk_update: BulkUpdate, results: Sequence[Result], values: Sequence[dict[str, object]]
) -> None:
    """The rows' History in the admin: who did what in which update."""
    user = bulk_update.requested_by
    if user is None or not apps.is_installed("django.contrib.admin"):
        return
    from django.contrib.admin.models import CHANGE, LogEntry

    changed = [
        result.task.conversation_id
        for result, columns in zip(results, values, strict=True)
        if columns["state"] == State.CHANGED
    ]
    if changed:
        told = sentences.REACTIVATED_IN if bulk_update.is_active else sentences.DEACTIVATED_IN
        LogEntry.objects.log_actions(
            user.pk,
            Conversation.objects.filter(pk__in=changed).only("user_digits"),
            CHANGE,
            told % {"number": bulk_update.pk},
        )
