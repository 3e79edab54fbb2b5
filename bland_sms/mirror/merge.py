"""One row and what payloads make of it, in whatever order they come.

Each value remembers how old it is and gives way only to one that is not older. An age is
(``updated_at`` by Bland's clock, ``observed_at`` by ours, which answer told it); at equal age the
larger canonical JSON is kept. The newest payload's age stands in the row's own columns;
``older_facts`` holds the ages of what that payload did not mention, since a list leaves out
what a detail tells.

A time of ours that lies ahead of now was written by a machine whose clock is wrong. It counts as
never, so it holds up nothing that Bland tells from now on.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from django.utils.dateparse import parse_datetime

from ..models import Conversation, Message
from ..models.conversation import Source
from ..models.event import day_of
from ..payloads import (
    EPOCH,
    FACT_COLUMNS,
    MOST_EXTRA,
    ConversationPayload,
    MessagePayload,
    UpdatePayload,
    canonical,
)
from ..stop_words import asks_to_stop, stop_words
from .history import TOLD_END, First, History, Kind, microseconds

Payload = ConversationPayload | UpdatePayload
Age = tuple[datetime, datetime, int]
NEVER: Age = (EPOCH, EPOCH, Source.NONE)
SOURCES = {"list": Source.LIST, "detail": Source.DETAIL, "update": Source.UPDATE}
PLAIN_FACTS = tuple(name for name in FACT_COLUMNS if name != "extra")
CUSTOMER = "USER"
"""Bland's word for the sender of what the customer wrote."""
FACTS_AGE = ("facts_updated_at", "facts_observed_at", "facts_observed_from")
MESSAGE_COLUMNS = (
    "position",
    "sender",
    "text",
    "status",
    "error_code",
    "created_at",
    "attachments",
    "extra",
)
_TOLD_OF_MESSAGES = MESSAGE_COLUMNS[1:]


class Effect(enum.Enum):
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

    outcome: Effect
    previous_is_active: bool | None
    """What the row held before; ``None``: there was no row."""
    changed_fields: tuple[str, ...] = ()
    needs_look: bool = False
    """The payload had no usable age or state: ask Bland for the conversation itself."""


class Merge:
    """One row and what its payloads make of it."""

    def __init__(
        self,
        row: Conversation,
        *,
        is_new: bool,
        now: datetime,
        words: Callable[[], frozenset[str]] = stop_words,
    ) -> None:
        self.row = row
        self.now = now
        self.words = words
        self.is_new = is_new
        self.previous_is_active = None if is_new else row.is_active
        self.changed: set[str] = set()
        self.touched: set[str] = set()
        """Columns to write although no value changed: ages."""
        self.needs_look = False
        self.breaks_listed = False
        """The payload changed what a row of the list may have told."""
        self.is_copy = False
        """All of the row is what the payload tells: it is the first of a new row."""
        self.exists = not is_new
        """Whether there is a row when all is done."""
        self.messages: tuple[MessagePayload, ...] | None = None
        self.history = History(row.event_history)
        self.previous_created_at = row.created_at
        if not is_new:
            self._recall()

    def take(self, payload: Payload, *, settle: bool) -> None:
        assert payload.observed_at is not None, "a payload is applied with its observed_at"
        source, observed_at = SOURCES[payload.source], min(payload.observed_at, self.now)
        missing_since = self.row.missing_since
        if missing_since is not None and observed_at > self._believed(missing_since):
            self._set("missing_since", None)
        self.needs_look = payload.updated_at is None or payload.is_active is None
        self.breaks_listed = self.is_copy = False
        if payload.updated_at is None and not settle and self.exists:
            return  # without an age it proves nothing yet: the caller looks first
        if payload.is_active is not None:
            self.exists = True
            self._take_state(payload, payload.is_active, observed_at, source)
        told, facts = 0, {}
        first = (microseconds(observed_at), int(source))
        if isinstance(payload, ConversationPayload) and self.row.erased_at is None:
            facts = payload.facts()
            self._take_facts(payload.updated_at, facts, observed_at, source)
            self._take_messages(payload, observed_at)
            if payload.updated_at is not None:
                told = self.history.tell_facts(facts, first)
            self._tell_requests_to_stop(payload, first)
        if payload.updated_at is not None:
            self.history.tell_version(payload.updated_at, payload.is_active, first, told)
        self._recall_state()
        self._note_listed(payload, facts)

    def _note_listed(self, payload: Payload, facts: dict[str, Any]) -> None:
        """Remember the fingerprint of a row of the list for as long as this row agrees with it."""
        fingerprint = payload.fingerprint if isinstance(payload, ConversationPayload) else ""
        if fingerprint and (self.is_copy or self._agrees(payload, facts)):
            self._age("listed", fingerprint)
        elif self.breaks_listed:
            self._age("listed", "")

    def _agrees(self, payload: Payload, facts: dict[str, Any]) -> bool:
        """Whether telling it again, however late, would change nothing."""
        row = self.row
        if row.erased_at is not None or row.is_active is not payload.is_active:
            return False
        extra, values = facts["extra"], row.__dict__
        return (
            row.updated_at == payload.updated_at
            and all(values[name] == value for name, value in facts.items() if name != "extra")
            and all(key in row.extra and row.extra[key] == extra[key] for key in extra)
        )

    def _tell_requests_to_stop(self, payload: ConversationPayload, first: First) -> None:
        if not payload.messages:
            return
        words = self.words()
        for message in payload.messages:
            is_theirs = message.sender == CUSTOMER and asks_to_stop(message.text, words)
            if is_theirs and isinstance(message.created_at, datetime):
                self.history.tell(Kind.ASKED_TO_STOP, message.created_at, first)

    def _recall(self) -> None:
        """Tell the history what the row knows; all that it knows, if it has no history yet."""
        row = self.row
        if self.history.is_new and row.updated_at != EPOCH:
            first = (microseconds(row.facts_observed_at), row.facts_observed_from)
            told = TOLD_END if row.ended_by_end_call_node else 0
            if row.created_at is not None:
                self.history.tell_start(row.created_at, first)
            if row.timed_out_at is not None:
                self.history.tell(Kind.TIMED_OUT, row.timed_out_at, first)
            if row.human_handoff_at is not None:
                self.history.tell(Kind.HANDED_OFF, row.human_handoff_at, first)
            self.history.tell_version(row.updated_at, row.is_active, first, told)
        self._recall_state()

    def _recall_state(self) -> None:
        row = self.row
        observed_at = microseconds(self._believed(row.observed_at))
        self.history.current(row.updated_at, row.is_active, (observed_at, row.observed_from))

    @property
    def is_news(self) -> bool:
        """Whether the row is new or one of its values has changed."""
        return self.is_new or bool(self.changed)

    def _believed(self, observed_at: datetime) -> datetime:
        """A stored time of ours; "never" where it lies ahead of now."""
        return observed_at if observed_at <= self.now else EPOCH

    def applied(self) -> Applied:
        if self.is_new:
            outcome = Effect.CREATED if self.exists else Effect.GONE
        elif self.changed:
            outcome = Effect.CHANGED
        else:
            outcome = Effect.UNCHANGED if self.touched else Effect.STALE
        fields = () if self.is_new else tuple(sorted(self.changed))
        return Applied(outcome, self.previous_is_active, fields, self.needs_look)

    def days(self) -> Iterator[date]:
        """The days whose totals are others now, apart from those of its events."""
        if self.is_new or self.changed & {"created_at", "message_count", "agent_number"}:
            for created_at in {self.previous_created_at, self.row.created_at}:
                if created_at is not None:
                    yield day_of(created_at)

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
        if self.is_new and row.observed_from == Source.NONE:
            row.is_active, row.updated_at = is_active, updated_at
            row.observed_at, row.observed_from = observed_at, source
            return
        told = (updated_at, observed_at, source, is_active)
        observed = self._believed(row.observed_at)
        known = (row.updated_at, observed, row.observed_from, row.is_active)
        if told <= known:
            return
        if (row.is_active, row.updated_at) != (is_active, updated_at):
            self.breaks_listed = True
        self._set("is_active", is_active)
        self._set("updated_at", updated_at)
        self._age("observed_at", observed_at)
        self._age("observed_from", source)

    def _take_facts(
        self,
        updated_at: datetime | None,
        told_facts: dict[str, Any],
        observed_at: datetime,
        source: Source,
    ) -> None:
        row = self.row
        if self.is_new and row.facts_observed_from == Source.NONE and updated_at:
            self._take_first_facts(told_facts, (updated_at, observed_at, source))
            return
        observed = self._believed(row.facts_observed_at)
        known_age: Age = (row.facts_updated_at, observed, row.facts_observed_from)
        told_age: Age = (updated_at or row.facts_updated_at, observed_at, source)
        if told_age > known_age and self._are_known(told_facts):
            self._set_facts_age(told_age)
            return
        newest = max(known_age, told_age)
        facts, told = _facts_of(row), _flat(told_facts)
        ages = {name: self._read_age(age) for name, age in row.older_facts.items()}
        older: dict[str, Any] = {}
        for name in {*facts, *told}:
            age = ages.get(name, known_age if name in facts else NEVER)
            if name in told and (age == NEVER or _is_newer(told_age, told[name], age, facts[name])):
                # What nobody had told before was not told by a list either.
                if age != NEVER and facts[name] != told[name]:
                    self.breaks_listed = True
                facts[name], age = told[name], told_age
            ages[name] = age
            if age != newest:
                older[name] = _write_age(age)
        extra: dict[str, Any] = {}
        for name in _too_many(ages):
            self.breaks_listed = True
            del facts[name]
            older.pop(name, None)
        for name, value in facts.items():
            if name.startswith("extra."):
                extra[name.removeprefix("extra.")] = value
            else:
                self._set(name, value)
        self._set("extra", extra)
        self._set_facts_age(newest)
        self._age("older_facts", older)

    def _read_age(self, stored: Any) -> Age:
        if stored is None:
            return NEVER
        updated_at, observed_at = parse_datetime(stored[0]), parse_datetime(stored[1])
        assert updated_at is not None, "written by _write_age"
        assert observed_at is not None, "written by _write_age"
        return updated_at, self._believed(observed_at), stored[2]

    def _set_facts_age(self, age: Age) -> None:
        for column, value in zip(FACTS_AGE, age, strict=True):
            self._age(column, value)

    def _are_known(self, told: dict[str, Any]) -> bool:
        """Whether this repeats what was told last, fact for fact: only their age is new."""
        values, older = self.row.__dict__, self.row.older_facts
        return (
            told.keys() | older.keys() == set(FACT_COLUMNS)
            and told.keys().isdisjoint(older)
            and all(values[name] == value for name, value in told.items())
        )

    def _take_first_facts(self, told: dict[str, Any], age: Age) -> None:
        """The same where nothing was told before: there is nothing to compare."""
        row = self.row
        row.__dict__.update(told, **dict(zip(FACTS_AGE, age, strict=True)))
        row.older_facts = {name: None for name in PLAIN_FACTS if name not in told}
        self.is_copy = (row.updated_at, row.observed_at, row.observed_from) == age

    def _take_messages(self, payload: ConversationPayload, observed_at: datetime) -> None:
        if payload.messages is None:
            return
        known = self.row.transcript_observed_at
        if known is not None and observed_at < self._believed(known):
            return
        if observed_at == known:
            stored = self.messages
            if stored is None:
                stored = tuple(message_payload(message) for message in self.row.messages.all())
            if canonical(_plain(payload.messages)) <= canonical(_plain(stored)):
                return
        self.messages = payload.messages
        self._age("transcript_observed_at", observed_at)


def _too_many(ages: dict[str, Age]) -> list[str]:
    """The fields without a column that are too many, since each answer may bring new ones.

    Those told last stay, and of these the first by name: a rule that no order of arrival changes.
    """
    names = sorted(name for name in ages if name.startswith("extra."))
    if len(names) <= MOST_EXTRA:
        return []
    return sorted(names, key=lambda name: ages[name], reverse=True)[MOST_EXTRA:]


def _is_newer(told_age: Age, told: Any, known_age: Age, known: Any) -> bool:
    if told_age == known_age:
        return canonical(told) > canonical(known)
    return told_age > known_age


def _flat(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts by name, the keys of ``extra`` each on its own."""
    flat = {f"extra.{key}": value for key, value in facts.get("extra", {}).items()}
    return {**flat, **{name: value for name, value in facts.items() if name != "extra"}}


def _facts_of(row: Conversation) -> dict[str, Any]:
    return _flat({name: getattr(row, name) for name in FACT_COLUMNS})


def _write_age(age: Age) -> list[Any] | None:
    return None if age == NEVER else [age[0].isoformat(), age[1].isoformat(), int(age[2])]


def message_values(payload: MessagePayload) -> dict[str, Any]:
    return {name: getattr(payload, name) for name in _TOLD_OF_MESSAGES}


def message_payload(message: Message) -> MessagePayload:
    values = {name: getattr(message, name) for name in _TOLD_OF_MESSAGES}
    return MessagePayload(bland_id=message.bland_id, occurrence=message.occurrence, **values)


def _plain(messages: tuple[MessagePayload, ...]) -> list[Any]:
    return [[message.bland_id, message.occurrence, message_values(message)] for message in messages]
