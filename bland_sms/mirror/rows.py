"""Merged rows on their way into the database, a page at a time and in few statements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from operator import itemgetter
from typing import Any

from django.db import connections
from django.db.models.base import ModelState
from django.utils import timezone

from ..database import ROWS_PER_STATEMENT, Among, batches
from ..models import Conversation, Message
from ..payloads import FACT_COLUMNS, ConversationPayload
from .events import Happenings
from .inserting import insert
from .merge import MESSAGE_COLUMNS, PLAIN_FACTS, Merge, Payload, message_values

_AGE_COLUMNS = ("observed_at", "observed_from", "facts_observed_at", "facts_observed_from")
STATE_COLUMNS = (
    "is_active",
    "updated_at",
    "observed_at",
    "observed_from",
    "missing_since",
    "last_activity_at",
    "event_history",
    "listed",
)
ALL_COLUMNS = (
    *STATE_COLUMNS,
    *FACT_COLUMNS,
    "facts_updated_at",
    "facts_observed_at",
    "facts_observed_from",
    "older_facts",
    "transcript_observed_at",
    "customer_key",
    "user_digits_reversed",
)


def new_row(conversation_id: str) -> Conversation:
    # No fact was told yet: at first every column's age is "never". Copied from a blank row, since
    # a model's __init__ would be a quarter of the time of a first copy.
    row = Conversation.__new__(Conversation)
    row.__dict__.update(_blank_columns(), id=conversation_id, _state=ModelState())
    row.extra, row.event_history = {}, {}
    row.older_facts = dict.fromkeys(PLAIN_FACTS)
    return row


@cache
def _blank_columns() -> dict[str, Any]:
    return vars(Conversation())


def listed(payloads: Sequence[Payload], alias: str) -> set[str]:
    """Ids of rows that agree with all that these rows of the list say.

    They are not locked: what another process changes a moment later it may change.
    """
    told: dict[str, str] = {}
    for payload in payloads:
        fingerprint = payload.fingerprint if isinstance(payload, ConversationPayload) else ""
        pk = str(payload.id)
        told[pk] = fingerprint if told.setdefault(pk, fingerprint) == fingerprint else ""
    now = timezone.now()  # what a clock ahead of now has written is written anew
    rows = Conversation.objects.using(alias).filter(
        missing_since__isnull=True, observed_at__lte=now, facts_observed_at__lte=now
    )
    known: set[str] = set()
    for ids in batches([pk for pk, fingerprint in told.items() if fingerprint]):
        found = rows.filter(Among("pk", ids)).values_list("pk", "listed")
        known.update(pk for pk, fingerprint in found if fingerprint == told[pk])
    return known


def locked_rows(ids: Sequence[str], alias: str) -> Iterable[Conversation]:
    """The rows, locked against other writers until the transaction ends."""
    rows = Conversation.objects.using(alias).filter(Among("pk", ids))
    if connections[alias].features.has_select_for_update:
        return rows.select_for_update().order_by("pk")
    # SQLite has one lock for all. Taken by a write before the first read, it cannot be lost to
    # another writer in between, which would fail the transaction with "database is locked".
    Conversation.objects.using(alias).filter(pk="").update(missing_since=None)
    return rows


def write(merges: dict[str, Merge], alias: str, *, state_only: bool) -> None:
    new, changed, fresh = [], [], []
    happenings = Happenings()
    for merge in merges.values():
        if merge.exists:
            happenings.add(merge)
        if merge.is_new or merge.changed:
            merge.row.derive()
        if merge.is_new:
            if merge.exists:
                new.append(vars(merge.row))
        elif merge.changed or merge.history.changed or not merge.touched <= set(_AGE_COLUMNS):
            changed.append(vars(merge.row))
        elif merge.touched:
            fresh.append(merge.row)
    # In one order, as they are locked: two processes with the same new rows in another order
    # would each wait for what the other one has inserted.
    insert(Conversation, sorted(new, key=itemgetter("id")), alias)
    if changed:
        # An upsert costs a third of bulk_update. All columns come from memory: the rows are
        # locked, so nothing came in between, and none of them can be gone.
        insert(Conversation, changed, alias, replacing=STATE_COLUMNS if state_only else ALL_COLUMNS)
    _touch(fresh, alias)
    happenings.write(alias)
    told = [merge for merge in merges.values() if merge.messages is not None and merge.exists]
    _write_messages(told, alias)


def _touch(rows: Sequence[Conversation], alias: str) -> None:
    """Move the ages of unchanged rows: one statement for each set of ages, on a page just one."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for row in rows:
        ages = tuple(getattr(row, column) for column in _AGE_COLUMNS)
        groups.setdefault(ages, []).append(row.pk)
    for ages, ids in groups.items():
        values = dict(zip(_AGE_COLUMNS, ages, strict=True))
        Conversation.objects.using(alias).filter(Among("pk", ids)).update(**values)


def _write_messages(merges: Sequence[Merge], alias: str) -> None:
    """Make the transcripts what Bland said, and note those that were not that already."""
    if not merges:
        return
    manager = Message.objects.using(alias)
    stored: dict[str, dict[tuple[str, int], Message]] = {merge.row.pk: {} for merge in merges}
    known = [merge.row.pk for merge in merges if not merge.is_new]
    for ids in batches(known):
        for message in manager.filter(Among("conversation_id", ids)):
            thread = stored[message.conversation_id]
            thread[message.bland_id, message.occurrence] = message
    gone: list[int] = []
    new: list[dict[str, Any]] = []
    changed: list[Message] = []
    for merge in merges:
        thread, before = stored[merge.row.pk], len(gone) + len(new) + len(changed)
        for position, payload in enumerate(merge.messages or ()):
            values = {**message_values(payload), "position": position}
            key = (payload.bland_id, payload.occurrence)
            if key not in thread:
                values.update(bland_id=key[0], occurrence=key[1], conversation_id=merge.row.pk)
                new.append(values)
                continue
            message = thread.pop(key)
            if any(message.__dict__[name] != value for name, value in values.items()):
                message.__dict__.update(values)
                changed.append(message)
        gone += [message.pk for message in thread.values()]
        if len(gone) + len(new) + len(changed) != before:
            merge.changed.add("messages")
    for some in batches(gone):
        manager.filter(Among("pk", some)).delete()
    insert(Message, new, alias)
    if changed:
        manager.bulk_update(changed, MESSAGE_COLUMNS, batch_size=ROWS_PER_STATEMENT)
