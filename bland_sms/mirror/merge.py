"""Law 1: one row and what payloads make of it, in whatever order they come.

Each value remembers how old it is and gives way only to one that is not older. An age is
(``updated_at`` by Bland's clock, ``observed_at`` by ours, which answer told it); at equal age the
larger canonical JSON is kept. The newest payload's age stands in the row's own columns;
``older_facts`` holds the ages of what that payload did not mention, since a list leaves out
what a detail tells.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils.dateparse import parse_datetime

from ..models import Conversation, Message
from ..models.conversation import Source
from ..payloads import (
    EPOCH,
    FACT_COLUMNS,
    ConversationPayload,
    MessagePayload,
    UpdatePayload,
    canonical,
)

Payload = ConversationPayload | UpdatePayload
Age = tuple[datetime, datetime, int]
NEVER: Age = (EPOCH, EPOCH, Source.NONE)
SOURCES = {"list": Source.LIST, "detail": Source.DETAIL, "update": Source.UPDATE}
PLAIN_FACTS = tuple(name for name in FACT_COLUMNS if name != "extra")
FACTS_AGE = ("facts_updated_at", "facts_observed_at", "facts_observed_from")
MESSAGE_COLUMNS = (
    "position",
    "sender",
    "text",
    "status",
    "error_code",
    "created_at",
    "attachments",
)


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


class Merge:
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

    def _take_first_facts(self, payload: ConversationPayload, age: Age) -> None:
        """The same where nothing was told before: there is nothing to compare."""
        row, told = self.row, payload.facts()
        row.__dict__.update(told)
        row.older_facts = {name: None for name in PLAIN_FACTS if name not in told}
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
                stored = tuple(message_payload(message) for message in self.row.messages.all())
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


def message_values(payload: MessagePayload) -> dict[str, Any]:
    return {name: getattr(payload, name) for name in MESSAGE_COLUMNS if name != "position"}


def message_payload(message: Message) -> MessagePayload:
    values = {name: getattr(message, name) for name in MESSAGE_COLUMNS if name != "position"}
    return MessagePayload(bland_id=message.bland_id, **values)


def _plain(messages: tuple[MessagePayload, ...]) -> list[Any]:
    return [[message.bland_id, message_values(message)] for message in messages]
