"""The only writer of Conversation and Message rows: applies payloads in any order, same result.

Each value remembers how old it is and gives way only to one that is not older, so list pages,
details and update answers may arrive in any order and end in the same row. An age is
(``updated_at`` by Bland's clock, ``observed_at`` by ours, which answer told it); at equal age the
larger canonical JSON is kept. The newest payload's age stands in the row's own columns;
``older_facts`` holds the ages of what that payload did not mention, since a list leaves out
what a detail tells.
"""

from __future__ import annotations

import enum
import json
import logging
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache, partial
from typing import Any, TypeVar

from django.db import (
    DatabaseError,
    IntegrityError,
    OperationalError,
    connections,
    router,
    transaction,
)
from django.db.models import DateTimeField, JSONField, Q, SmallIntegerField
from django.db.models.base import ModelState
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from .models import Conversation, Message
from .models.conversation import Source
from .payloads import (
    EPOCH,
    FACT_COLUMNS,
    ConversationPayload,
    MessagePayload,
    UpdatePayload,
    canonical,
)
from .signals import announce, conversation_changed, conversation_created

logger = logging.getLogger("bland_sms.mirror")

Payload = ConversationPayload | UpdatePayload
Age = tuple[datetime, datetime, int]
NEVER: Age = (EPOCH, EPOCH, Source.NONE)
SOURCES = {"list": Source.LIST, "detail": Source.DETAIL, "update": Source.UPDATE}
_PLAIN_FACTS = tuple(name for name in FACT_COLUMNS if name != "extra")
_FACTS_AGE = ("facts_updated_at", "facts_observed_at", "facts_observed_from")
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
_INSERT_ATTEMPTS = 5


class Outcome(enum.Enum):
    """What became of a payload."""

    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    """Nothing new, but told later: the copy is as fresh as this payload."""
    STALE = "stale"
    """The row already knows better."""
    GONE = "gone"
    """There is no such row, and none was made: not allowed, or Bland did not tell its state."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of one conversation's payloads."""

    outcome: Outcome
    previous_is_active: bool | None
    """What the row held before; ``None``: there was no row."""
    changed_fields: tuple[str, ...] = ()
    needs_look: bool = False
    """The payload had no usable age or state: ask Bland for the conversation itself."""


@dataclass(frozen=True)
class Erased:
    """What was forgotten."""

    conversation_ids: tuple[str, ...]
    messages: int


def apply_conversation(payload: Payload, *, observed_at: datetime, settle: bool = False) -> Outcome:
    """Bring one row up to what Bland said, unless the row already knows better.

    Args:
        observed_at: Aware; when the request that brought the payload was *sent*.
        settle: The payload is the best that Bland can tell: one without a usable
            ``updated_at`` is believed if it was observed later than the row.

    Returns:
        What became of it: created, changed, unchanged, stale, or gone.
    """
    return apply_page([replace(payload, observed_at=observed_at)], settle=settle)[
        str(payload.id)
    ].outcome


def apply_page(
    payloads: Sequence[Payload],
    *,
    settle: bool = False,
    creatable: Container[str] | None = None,
) -> dict[str, Applied]:
    """Apply any number of payloads in one transaction and a fixed number of statements.

    Args:
        payloads: Each with its ``id`` and ``observed_at``; several of one conversation may be
            among them.
        settle: See :func:`apply_conversation`.
        creatable: Ids of rows that may be made; ``None``: any. Other rows that are not there
            were deleted meanwhile and stay so.

    Returns:
        What became of each conversation, by id.

    Raises:
        DatabaseError: nothing was written.
    """
    using = router.db_for_write(Conversation)
    for attempt in range(1, _INSERT_ATTEMPTS + 1):
        try:
            with transaction.atomic(using=using):
                return _apply(payloads, settle, creatable, using)
        except IntegrityError:
            # Somebody inserted one of the rows between our look and our insert: now it is there.
            if attempt == _INSERT_ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def mark_missing(conversation_id: str, observed_at: datetime) -> bool:
    """Bland answered a GET with CONVERSATION_NOT_FOUND: remember it, and keep the row.

    Args:
        observed_at: Aware; when that GET was sent. Whatever was observed later contradicts it.
    """
    marked = Conversation.objects.filter(
        Q(transcript_observed_at__isnull=True) | Q(transcript_observed_at__lte=observed_at),
        pk=conversation_id,
        observed_at__lte=observed_at,
        facts_observed_at__lte=observed_at,
        missing_since__isnull=True,
    ).update(missing_since=observed_at)
    if marked:
        _announce_changed({conversation_id: ("missing_since",)})
    return bool(marked)


_PERSONAL: dict[str, Any] = {
    "user_number": "",
    "user_digits": "",
    "user_digits_reversed": "",
    "last_message": "",
    "summary": "",
    "variables": None,
    "extra": {},
    "disposition_tag": "",
    "older_facts": {},
}
"""What tells of a person, and what is left when they are forgotten."""


def erase(conversation_ids: Sequence[str]) -> Erased:
    """Forget whose conversations these are and what was said; for good.

    From then on a row takes its state only (see ``_Merge.take``), so no later answer of Bland's
    brings the rest back. A row that was erased before stays as it is.
    """
    using = router.db_for_write(Conversation)
    with transaction.atomic(using=using):
        rows = [row for row in _locked_rows(conversation_ids, using) if row.erased_at is None]
        ids = [row.pk for row in rows]
        messages = Message.objects.using(using).filter(conversation__in=ids).delete()[0]
        values = {**_PERSONAL, "erased_at": timezone.now()}
        Conversation.objects.using(using).filter(pk__in=ids).update(**values)
        if ids:
            _announce_changed(dict.fromkeys(ids, ("messages", *values)))
    return Erased(tuple(ids), messages)


Row = TypeVar("Row")


def write_in_halves(
    rows: Sequence[Row],
    write: Callable[[Sequence[Row]], None],
    refused: Callable[[Row, DatabaseError], None],
) -> None:
    """Write a batch; one that the database refuses is halved until the poison row is alone.

    A database that is locked or away refuses nothing: that error is raised.
    """
    if not rows:
        return
    try:
        write(rows)
    except OperationalError:
        raise
    except (DatabaseError, ValueError, OverflowError) as error:
        if len(rows) == 1:
            logger.warning("the database refused a row: %s", type(error).__name__)
            refused(rows[0], DatabaseError(type(error).__name__))
            return
        middle = len(rows) // 2
        write_in_halves(rows[:middle], write, refused)
        write_in_halves(rows[middle:], write, refused)


# --- one row ----------------------------------------------------------------------------------


class _Merge:
    """One row and what its payloads make of it."""

    def __init__(self, row: Conversation, *, is_new: bool) -> None:
        self.row = row
        self.is_new = is_new
        self.previous_is_active = None if is_new else row.is_active
        self.changed: set[str] = set()
        self.touched: set[str] = set()
        """Columns to write although no value changed: ages."""
        self.needs_look = False
        self.exists = not is_new
        """Whether there is a row when all is done."""
        self.messages: tuple[MessagePayload, ...] | None = None

    def take(self, payload: Payload, *, settle: bool) -> None:
        assert payload.observed_at is not None, "a payload is applied with its observed_at"
        source = SOURCES[payload.source]
        if self.row.missing_since is not None and payload.observed_at > self.row.missing_since:
            self._set("missing_since", None)
        self.needs_look = payload.updated_at is None or payload.is_active is None
        if payload.updated_at is None and not settle and self.exists:
            return  # without an age it proves nothing yet: the caller looks first
        if payload.is_active is not None:
            self.exists = True
            self._take_state(payload, payload.is_active, payload.observed_at, source)
        if isinstance(payload, ConversationPayload) and self.row.erased_at is None:
            self._take_facts(payload, payload.observed_at, source)
            self._take_messages(payload, payload.observed_at)

    def applied(self) -> Applied:
        if self.is_new:
            outcome = Outcome.CREATED if self.exists else Outcome.GONE
        elif self.changed:
            outcome = Outcome.CHANGED
        else:
            outcome = Outcome.UNCHANGED if self.touched else Outcome.STALE
        fields = () if self.is_new else tuple(sorted(self.changed))
        return Applied(outcome, self.previous_is_active, fields, self.needs_look)

    def _set(self, column: str, value: Any) -> None:
        if getattr(self.row, column) != value:
            setattr(self.row, column, value)
            self.changed.add(column)

    def _age(self, column: str, value: Any) -> None:
        if getattr(self.row, column) != value:
            setattr(self.row, column, value)
            self.touched.add(column)

    def _take_state(
        self, payload: Payload, is_active: bool, observed_at: datetime, source: Source
    ) -> None:
        row = self.row
        updated_at = row.updated_at if payload.updated_at is None else payload.updated_at
        told = (updated_at, observed_at, source, canonical(is_active))
        known = (row.updated_at, row.observed_at, row.observed_from, canonical(row.is_active))
        if told <= known:
            return
        self._set("is_active", is_active)
        self._set("updated_at", updated_at)
        self._age("observed_at", observed_at)
        self._age("observed_from", source)

    def _take_facts(
        self, payload: ConversationPayload, observed_at: datetime, source: Source
    ) -> None:
        row = self.row
        if self.is_new and row.facts_observed_from == Source.NONE and payload.updated_at:
            self._take_first_facts(payload, (payload.updated_at, observed_at, source))
            return
        known_age: Age = (row.facts_updated_at, row.facts_observed_at, row.facts_observed_from)
        updated_at = payload.updated_at or row.facts_updated_at
        told_age: Age = (updated_at, observed_at, source)
        if told_age > known_age and self._are_known(payload.facts()):
            self._set_facts_age(told_age)
            return
        newest = max(known_age, told_age)
        facts, told = _facts_of(row), _flat(payload.facts())
        ages = _read_ages(row.older_facts)
        older: dict[str, Any] = {}
        for name in {*facts, *told}:
            age = ages.get(name, known_age if name in facts else NEVER)
            if name in told and (age == NEVER or _is_newer(told_age, told[name], age, facts[name])):
                facts[name], age = told[name], told_age
            if age != newest:
                older[name] = _write_age(age)
        extra: dict[str, Any] = {}
        for name, value in facts.items():
            if name.startswith("extra."):
                extra[name.removeprefix("extra.")] = value
            else:
                self._set(name, value)
        self._set("extra", extra)
        self._set_facts_age(newest)
        self._age("older_facts", older)

    def _set_facts_age(self, age: Age) -> None:
        for column, value in zip(_FACTS_AGE, age, strict=True):
            self._age(column, value)

    def _are_known(self, told: dict[str, Any]) -> bool:
        """Whether this repeats what was told last, fact for fact: only their age is new."""
        values, older = self.row.__dict__, self.row.older_facts
        return (
            told.keys() | older.keys() == set(FACT_COLUMNS)
            and told.keys().isdisjoint(older)
            and all(values[name] == value for name, value in told.items())
        )

    def _take_first_facts(self, payload: ConversationPayload, age: Age) -> None:
        """The same where nothing was told before: there is nothing to compare."""
        row, told = self.row, payload.facts()
        row.__dict__.update(told)
        row.older_facts = {name: None for name in _PLAIN_FACTS if name not in told}
        self._set_facts_age(age)
        self.changed.update(told)

    def _take_messages(self, payload: ConversationPayload, observed_at: datetime) -> None:
        if payload.messages is None:
            return
        known = self.row.transcript_observed_at
        if known is not None and observed_at < known:
            return
        if observed_at == known:
            stored = self.messages
            if stored is None:
                stored = tuple(_message_payload(message) for message in self.row.messages.all())
            if canonical(_plain(payload.messages)) <= canonical(_plain(stored)):
                return
        self.messages = payload.messages
        self._age("transcript_observed_at", observed_at)


def _is_newer(told_age: Age, told: Any, known_age: Age, known: Any) -> bool:
    if told_age == known_age:
        return canonical(told) > canonical(known)
    return told_age > known_age


def _flat(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts by name, the keys of ``extra`` each on its own."""
    extra = facts.pop("extra", {})
    return {**facts, **{f"extra.{key}": value for key, value in extra.items()}}


def _facts_of(row: Conversation) -> dict[str, Any]:
    return _flat({name: getattr(row, name) for name in FACT_COLUMNS})


def _read_ages(stored: dict[str, Any]) -> dict[str, Age]:
    return {name: _read_age(age) for name, age in stored.items()}


def _read_age(stored: Any) -> Age:
    if stored is None:
        return NEVER
    updated_at, observed_at = parse_datetime(stored[0]), parse_datetime(stored[1])
    assert updated_at is not None, "written by _write_age"
    assert observed_at is not None, "written by _write_age"
    return updated_at, observed_at, stored[2]


def _write_age(age: Age) -> list[Any] | None:
    return None if age == NEVER else [age[0].isoformat(), age[1].isoformat(), int(age[2])]


# --- many rows --------------------------------------------------------------------------------


def _apply(
    payloads: Sequence[Payload], settle: bool, creatable: Container[str] | None, using: str
) -> dict[str, Applied]:
    ids = sorted({str(payload.id) for payload in payloads})
    merges = {row.pk: _Merge(row, is_new=False) for row in _locked_rows(ids, using)}
    for payload in payloads:
        pk = str(payload.id)
        if pk not in merges:
            merges[pk] = _Merge(_new_row(pk), is_new=True)
        if merges[pk].exists or creatable is None or pk in creatable:
            merges[pk].take(payload, settle=settle)
    _write(merges, using, state_only=all(isinstance(p, UpdatePayload) for p in payloads))
    applied = {pk: merge.applied() for pk, merge in merges.items()}
    _announce(applied)
    return applied


def _new_row(conversation_id: str) -> Conversation:
    # No fact was told yet: at first every column's age is "never". Copied from a blank row, since
    # a model's __init__ would be a quarter of the time of a first copy.
    row = Conversation.__new__(Conversation)
    row.__dict__.update(_blank_columns(), id=conversation_id, _state=ModelState())
    row.extra, row.older_facts = {}, dict.fromkeys(_PLAIN_FACTS)
    return row


@cache
def _blank_columns() -> dict[str, Any]:
    return {name: value for name, value in vars(Conversation()).items() if name != "_state"}


def _locked_rows(ids: Sequence[str], using: str) -> Iterable[Conversation]:
    """The rows, with nobody else able to write them until the transaction ends."""
    rows = Conversation.objects.using(using).filter(pk__in=ids)
    if connections[using].features.has_select_for_update:
        return rows.select_for_update().order_by("pk")
    # SQLite has one lock for all. Taken by a write before the first read, it cannot be lost to
    # another writer in between, which would fail the transaction with "database is locked".
    Conversation.objects.using(using).filter(pk="").update(missing_since=None)
    return rows


def _write(merges: dict[str, _Merge], using: str, *, state_only: bool) -> None:
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


_MESSAGE_COLUMNS = (
    "position",
    "sender",
    "text",
    "status",
    "error_code",
    "created_at",
    "attachments",
)


def _write_messages(row: Conversation, messages: tuple[MessagePayload, ...], using: str) -> bool:
    """Make the transcript what Bland said; False where it was that already."""
    stored = {message.bland_id: message for message in row.messages.using(using)}
    gone = stored.keys() - {message.bland_id for message in messages}
    if gone:
        row.messages.using(using).filter(bland_id__in=gone).delete()
    new, changed = [], []
    for position, payload in enumerate(messages):
        values = {**_message_values(payload), "position": position}
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
        manager.bulk_update(changed, _MESSAGE_COLUMNS)
    return bool(gone or new or changed)


def _message_values(payload: MessagePayload) -> dict[str, Any]:
    return {name: getattr(payload, name) for name in _MESSAGE_COLUMNS if name != "position"}


def _message_payload(message: Message) -> MessagePayload:
    values = {name: getattr(message, name) for name in _MESSAGE_COLUMNS if name != "position"}
    return MessagePayload(bland_id=message.bland_id, **values)


def _plain(messages: tuple[MessagePayload, ...]) -> list[Any]:
    return [[message.bland_id, _message_values(message)] for message in messages]


def _announce(applied: dict[str, Applied]) -> None:
    created = [pk for pk, one in applied.items() if one.outcome is Outcome.CREATED]
    if created:
        announce(
            conversation_created, Conversation, lambda: [{"conversation_id": pk} for pk in created]
        )
    changed = {pk: one.changed_fields for pk, one in applied.items() if one.changed_fields}
    if changed:
        _announce_changed(changed)


def _announce_changed(changed: dict[str, tuple[str, ...]]) -> None:
    announce(
        conversation_changed,
        Conversation,
        lambda: [
            {"conversation_id": pk, "changed_fields": fields} for pk, fields in changed.items()
        ],
    )
