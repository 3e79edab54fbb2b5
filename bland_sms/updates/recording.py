"""Writes what came of asking: items and their counts, rows of the mirror, History of the admin."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import datetime, timedelta

from django.apps import apps
from django.db import connections
from django.utils import timezone

from ..database import using
from ..mirror import Effect, Payload, apply_page
from ..mirror.inserting import insert
from ..mirror.rows import new_row
from ..models import BulkUpdate, BulkUpdateItem, Conversation, UncountedDay
from ..models.event import day_of
from ..reasons import history_entry
from .asking import Outcome, Verdict
from .transitions import cancel_called_back

State = BulkUpdateItem.State


LONGEST_WAIT = timedelta(days=1)
"""Of what Bland may ask for with ``Retry-After``."""
COUNT_SECONDS = 1.0
"""How old the counts of a large update may be."""


def record(bulk_update: BulkUpdate, outcomes: Sequence[Outcome]) -> None:
    """Write a batch of outcomes. The caller's transaction holds the lease of the update.

    Safe to repeat: what is written already is left alone.
    """
    running = BulkUpdateItem.objects.filter(
        pk__in=[outcome.item.item_id for outcome in outcomes], state=State.RUNNING
    )
    ours = set(running.values_list("pk", flat=True))
    outcomes = [outcome for outcome in outcomes if outcome.item.item_id in ours]
    there = _apply(outcomes)
    values = [_item_values(outcome) for outcome in outcomes]
    now = timezone.now()
    _write_items(outcomes, values, now)
    waiting = [
        outcome.item.item_id
        for outcome, columns in zip(outcomes, values, strict=True)
        if columns["state"] == State.WAITING
    ]
    if waiting:
        cancel_called_back(BulkUpdateItem.objects.filter(pk__in=waiting))
    if not bulk_update.is_active and any(one["state"] == State.CHANGED for one in values):
        UncountedDay.objects.create(day=day_of(now))
    changed = [
        outcome.item.conversation_id
        for outcome, columns in zip(outcomes, values, strict=True)
        if columns["state"] == State.CHANGED and outcome.item.conversation_id in there
    ]
    _write_history(bulk_update, changed)


def leave_unstored(outcome: Outcome, error: Exception) -> None:
    """The database refuses this one row whatever we do: the item says so, alone."""
    outcome.payloads = []
    outcome.retry_after_seconds = None
    outcome.message = ""
    if outcome.verdict is Verdict.CONFIRMED:
        outcome.verdict, outcome.error_code = Verdict.FAILED, "not_stored"
        outcome.error_params = {"error": type(error).__name__}


def _apply(outcomes: Sequence[Outcome]) -> set[str]:
    """Bring the rows up to what Bland said; which of them there are."""
    payloads: list[Payload] = [one for outcome in outcomes for one in outcome.payloads]
    if not payloads:
        return set()
    adopted = {
        outcome.item.conversation_id
        for outcome in outcomes
        if outcome.item.previous_is_active is None
    }
    applied = apply_page(payloads, settle=True, creatable=adopted)
    return {pk for pk, one in applied.items() if one.outcome is not Effect.GONE}


def _item_values(outcome: Outcome) -> dict[str, object]:
    """The columns of an item, without what is the same for all of a batch."""
    item = outcome.item
    if outcome.verdict in (Verdict.WAITING, Verdict.ADOPTED):
        return _waiting_values(outcome)
    # What the row held before the first request decides, even if it was copied since.
    was_so = item.previous_is_active is item.is_active
    state = {
        Verdict.UNKNOWN: State.UNKNOWN,
        Verdict.FAILED: State.FAILED,
        Verdict.NOT_FOUND: State.FAILED,
        Verdict.CONFIRMED: State.UNCHANGED if was_so else State.CHANGED,
    }[outcome.verdict]
    return {
        "state": state,
        "http_status": outcome.http_status,
        "error_code": outcome.error_code[:64],
        "error_params": outcome.error_params or None,
        "message": outcome.message[:500],
        "attempts": item.attempts + outcome.requests,
    }


def _waiting_values(outcome: Outcome) -> dict[str, object]:
    """The columns of an item that is asked another time."""
    item = outcome.item
    code = outcome.error_code[:64]
    values: dict[str, object] = {"state": State.WAITING, "error_code": code}
    if outcome.is_charged:
        values["attempts"] = item.attempts + outcome.requests
    if outcome.verdict is Verdict.ADOPTED:
        values["previous_is_active"] = outcome.found_is_active
    elif not (outcome.requests or outcome.in_doubt or item.attempts):
        values["previous_is_active"] = None  # not asked: its next claim is the first one
    if outcome.retry_after_seconds is not None:
        seconds = min(outcome.retry_after_seconds, LONGEST_WAIT.total_seconds())
        values["not_before"] = timezone.now() + timedelta(seconds=seconds)
        values |= {"http_status": outcome.http_status, "message": outcome.message[:500]}
    return values


def _write_items(
    outcomes: Sequence[Outcome], values: Sequence[dict[str, object]], now: datetime
) -> None:
    """One statement for each set of equal results, which most are."""
    groups: dict[str, tuple[dict[str, object], list[int]]] = {}
    for outcome, columns in zip(outcomes, values, strict=True):
        groups.setdefault(repr(columns), (dict(columns), []))[1].append(outcome.item.item_id)
    for columns, item_ids in groups.values():
        if columns["state"] != State.WAITING:
            columns["finished_at"] = now
        BulkUpdateItem.objects.filter(pk__in=item_ids, state=State.RUNNING).update(
            claimed_conversation=None, **columns
        )


def _write_history(bulk_update: BulkUpdate, changed: Sequence[str]) -> None:
    """The rows' History in the admin: who did what in which update."""
    user = bulk_update.requested_by
    if not changed or user is None or not apps.is_installed("django.contrib.admin"):
        return
    from django.contrib.admin.models import CHANGE, LogEntry
    from django.contrib.contenttypes.models import ContentType

    code = "history_reactivated" if bulk_update.is_active else "history_deactivated"
    alias = using(LogEntry)
    key = LogEntry._meta.get_field("user").get_db_prep_save(user.pk, connections[alias])
    common = {
        "action_time": timezone.now(),
        "user_id": key if isinstance(key, int) else str(key),
        "content_type_id": ContentType.objects.get_for_model(Conversation).pk,
        "action_flag": CHANGE,
        "change_message": json.dumps(history_entry(code, number=bulk_update.pk)),
    }
    # As log_actions() writes them, in a tenth of its time. By id alone: "Recent actions" shows an
    # entry to its author whatever they may see now.
    entries = [{**common, "object_id": pk, "object_repr": str(new_row(pk))} for pk in changed]
    insert(LogEntry, entries, alias)


class LiveCounts:
    """The counts of a large update, kept on its row by a run: open pages show them.

    An update that is not large is counted whenever somebody looks.
    """

    def __init__(self, bulk_update: BulkUpdate) -> None:
        self._update = bulk_update
        self._is_large = False
        self._began_at = self._due_at = time.monotonic()
        self._left = 0

    def begin(self) -> None:
        """Whether it is large was told when it was started; the rest is what another process had
        left when it was stopped."""
        self._is_large = self._update.live_counts is not None
        if self._is_large:
            self._update.refresh_from_db(fields=["live_counts", "live_seconds_each"])
            self._update.keep_counts()
            self._left, self._began_at = self._count_left(), time.monotonic()

    def keep(self) -> None:
        """Count again, now and then: at most a twentieth of the time goes into it."""
        began = time.monotonic()
        if self._is_large and began >= self._due_at:
            self._update.keep_counts()
            done = self._left - self._count_left()
            if done > 0:  # in this run: a pause before it was no work. Kept with the next counts.
                self._update.live_seconds_each = (began - self._began_at) / done
            took = time.monotonic() - began
            self._due_at = began + max(COUNT_SECONDS, 20 * took)

    def _count_left(self) -> int:
        counts = self._update.live_counts or {}
        return sum(counts.get(state, 0) for state in BulkUpdateItem.State.OPEN)
