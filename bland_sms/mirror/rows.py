"""Merged rows on their way into the database, a page at a time and in few statements."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import cache, partial
from typing import Any

from django.db import connections
from django.db.models import DateTimeField, JSONField, SmallIntegerField
from django.db.models.base import ModelState

from ..models import Conversation, Message
from ..payloads import FACT_COLUMNS, MessagePayload
from .merge import MESSAGE_COLUMNS, PLAIN_FACTS, Merge, message_values

_AGE_COLUMNS = ("observed_at", "observed_from", "facts_observed_at", "facts_observed_from")
STATE_COLUMNS = (
    "is_active",
    "updated_at",
    "observed_at",
    "observed_from",
    "missing_since",
    "last_activity_at",
)
ALL_COLUMNS = (
    *STATE_COLUMNS,
    *FACT_COLUMNS,
    "facts_updated_at",
    "facts_observed_at",
    "facts_observed_from",
    "older_facts",
    "transcript_observed_at",
    "user_digits",
    "user_digits_reversed",
)


def new_row(conversation_id: str) -> Conversation:
    # No fact was told yet: at first every column's age is "never". Copied from a blank row, since
    # a model's __init__ would be a quarter of the time of a first copy.
    row = Conversation.__new__(Conversation)
    row.__dict__.update(_blank_columns(), id=conversation_id, _state=ModelState())
    row.extra, row.older_facts = {}, dict.fromkeys(PLAIN_FACTS)
    return row


@cache
def _blank_columns() -> dict[str, Any]:
    return {name: value for name, value in vars(Conversation()).items() if name != "_state"}


def locked_rows(ids: Sequence[str], using: str) -> Iterable[Conversation]:
    """The rows, with nobody else able to write them until the transaction ends."""
    rows = Conversation.objects.using(using).filter(pk__in=ids)
    if connections[using].features.has_select_for_update:
        return rows.select_for_update().order_by("pk")
    # SQLite has one lock for all. Taken by a write before the first read, it cannot be lost to
    # another writer in between, which would fail the transaction with "database is locked".
    Conversation.objects.using(using).filter(pk="").update(missing_since=None)
    return rows


def write(merges: dict[str, Merge], using: str, *, state_only: bool) -> None:
    new, changed, fresh = [], [], []
    for merge in merges.values():
        if merge.is_new or merge.changed:
            merge.row.derive()
        if merge.is_new:
            if merge.exists:
                new.append(merge.row)
        elif merge.changed or not merge.touched <= set(_AGE_COLUMNS):
            changed.append(merge.row)
        elif merge.touched:
            fresh.append(merge.row)
    manager = Conversation.objects.using(using)
    _insert(new, using)
    if changed:
        # An upsert costs a third of bulk_update. All columns come from memory: the rows are
        # locked, so nothing came in between, and none of them can be gone.
        has_target = connections[using].features.supports_update_conflicts_with_target
        manager.bulk_create(
            changed,
            update_conflicts=True,
            unique_fields=["id"] if has_target else None,
            update_fields=STATE_COLUMNS if state_only else ALL_COLUMNS,
        )
    _touch(fresh, using)
    for merge in merges.values():
        if merge.messages is None or not merge.exists:
            continue
        if _write_messages(merge.row, merge.messages, using):
            merge.changed.add("messages")


def _insert(rows: Sequence[Conversation], using: str) -> None:
    """INSERT the rows. ``bulk_create`` spends three times as long on preparing each value."""
    if not rows:
        return
    connection = connections[using]
    fields = [field for field in Conversation._meta.concrete_fields if not field.generated]
    quote = connection.ops.quote_name
    names = ", ".join(quote(str(field.column)) for field in fields)
    table = quote(Conversation._meta.db_table)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # One parameter: psycopg takes longer to find thousands of them than all else takes.
            columns = [field.attname for field in fields]
            values = [{name: row.__dict__[name] for name in columns} for row in rows]
            sql = (
                f"INSERT INTO {table} ({names}) "  # noqa: S608  our own names
                f"SELECT {names} FROM jsonb_populate_recordset(NULL::{table}, %s::jsonb)"
            )
            cursor.execute(sql, [json.dumps(values, default=datetime.isoformat)])
            return
        adapters = [(field.attname, _adapter(field, connection)) for field in fields]
        marks = f"({', '.join(['%s'] * len(fields))})"
        size = max(1, connection.ops.bulk_batch_size(fields, rows))
        for begin in range(0, len(rows), size):
            some = [row.__dict__ for row in rows[begin : begin + size]]
            sql = f"INSERT INTO {table} ({names}) VALUES {', '.join([marks] * len(some))}"  # noqa: S608
            cursor.execute(
                sql,
                [
                    row[name] if adapt is None or row[name] is None else adapt(row[name])
                    for row in some
                    for name, adapt in adapters
                ],
            )


def _adapter(field: Any, connection: Any) -> Callable[[Any], Any] | None:
    """How the database wants a value that is not NULL; ``None``: as it is."""
    if isinstance(field, DateTimeField):
        adapt: Callable[[Any], Any] = connection.ops.adapt_datetimefield_value
        return adapt
    if isinstance(field, JSONField):
        return partial(field.get_db_prep_save, connection=connection)
    return int if isinstance(field, SmallIntegerField) else None


def _touch(rows: Sequence[Conversation], using: str) -> None:
    """Move the ages of unchanged rows: one statement for each set of ages, on a page just one."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for row in rows:
        ages = tuple(getattr(row, column) for column in _AGE_COLUMNS)
        groups.setdefault(ages, []).append(row.pk)
    for ages, ids in groups.items():
        values = dict(zip(_AGE_COLUMNS, ages, strict=True))
        Conversation.objects.using(using).filter(pk__in=ids).update(**values)


def _write_messages(row: Conversation, messages: tuple[MessagePayload, ...], using: str) -> bool:
    """Make the transcript what Bland said; False where it was that already."""
    stored = {message.bland_id: message for message in row.messages.using(using)}
    gone = stored.keys() - {message.bland_id for message in messages}
    if gone:
        row.messages.using(using).filter(bland_id__in=gone).delete()
    new, changed = [], []
    for position, payload in enumerate(messages):
        values = {**message_values(payload), "position": position}
        message = stored.get(payload.bland_id)
        if message is None:
            new.append(Message(conversation=row, bland_id=payload.bland_id, **values))
        elif any(getattr(message, name) != value for name, value in values.items()):
            for name, value in values.items():
                setattr(message, name, value)
            changed.append(message)
    manager = Message.objects.using(using)
    manager.bulk_create(new)
    if changed:
        manager.bulk_update(changed, MESSAGE_COLUMNS)
    return bool(gone or new or changed)
