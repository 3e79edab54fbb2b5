"""Finds the customers that a list's lines mean, in a fixed number of statements per 1,000 lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django.core.exceptions import EmptyResultSet
from django.db import connections
from django.db.models import QuerySet

from ..database import batches
from ..models import Conversation, PastedLine
from ..search import Term, ends_with
from .reading import Line

State = PastedLine.State
LINES_AT_ONCE = 1000
ENDINGS_PER_STATEMENT = 200
MOST_CANDIDATES = 10
"""Customers that may be picked from."""

Candidate = dict[str, str]
"""``{"customer": key}``, or ``{"conversation": id}`` for one conversation alone."""


@dataclass
class Match:
    """What was found for one line."""

    line: Line
    state: State
    code: str = ""
    same_as: int | None = None
    conversation_id: str | None = None
    """The newest of those to update, else of all of the customer's."""
    ids: tuple[str, ...] = ()
    """The conversations to update."""
    candidates: list[Candidate] = field(default_factory=list)


def match(
    lines: Sequence[Line], is_active: bool, visible: QuerySet[Conversation] | None = None
) -> list[Match]:
    """Find the customer of each line, and what there is to update.

    Args:
        is_active: What will be asked. To deactivate means all active conversations of a customer;
            to reactivate means the newest one with each of our numbers, since Bland continues one.
        visible: The conversations that may be found. ``None``: all of them.
    """
    earlier: dict[object, int] = {}
    found: list[Match] = []
    for some in batches(lines, LINES_AT_ONCE):
        for one in _match_batch(some, is_active, visible):
            meaning = _meaning(one)
            first = None if meaning is None else earlier.setdefault(meaning, one.line.number)
            if first is not None and first != one.line.number:
                one.state, one.same_as, one.ids, one.candidates = State.TWICE, first, (), []
            found.append(one)
    return found


def candidate_match(
    candidate: Candidate, is_active: bool, visible: QuerySet[Conversation] | None = None
) -> tuple[str | None, tuple[str, ...]]:
    """Of a candidate that was picked: the conversation to show, and those to update."""
    seen = Conversation.objects.all() if visible is None else visible
    customers = _Customers(is_active)
    if "customer" in candidate:
        customers.add(seen.filter(customer_key=candidate["customer"]))
        customer = customers.by_key.get(candidate["customer"])
    else:
        customers.add(seen.filter(pk=candidate["conversation"]))
        customer = customers.alone(candidate["conversation"])
    return (None, ()) if customer is None else (customer.shown_id, customer.ids)


def _meaning(found: Match) -> object:
    """The same for lines that mean the same."""
    if found.line.term is None:
        return None
    if found.state in (State.FOUND, State.ALREADY):
        return found.conversation_id, found.ids
    return found.line.term.keys or found.line.text


# --- customers --------------------------------------------------------------------------------


@dataclass
class _Customer:
    """What is kept of the conversations of one customer, however many there are."""

    is_active: bool
    key: str = ""
    newest: tuple[datetime, str] | None = None
    active: list[tuple[datetime, str]] = field(default_factory=list)
    newest_of: dict[str, tuple[datetime, str, bool]] = field(default_factory=dict)
    """By our number."""

    def add(self, pk: str, ours: str, active: bool, at: datetime) -> None:
        self.newest = max(self.newest or (at, pk), (at, pk))
        if not self.is_active:
            self.active += [(at, pk)] if active else []
        else:
            self.newest_of[ours] = max(self.newest_of.get(ours, (at, pk, active)), (at, pk, active))

    @property
    def ids(self) -> tuple[str, ...]:
        """The conversations to update, the newest first."""
        if not self.is_active:
            return tuple(pk for _at, pk in sorted(self.active, reverse=True))
        newest = sorted(self.newest_of.values(), reverse=True)
        return tuple(pk for _at, pk, active in newest if not active)

    @property
    def shown_id(self) -> str | None:
        """The newest of those to update, else of all."""
        return self.ids[0] if self.ids else self.newest and self.newest[1]


class _Customers:
    """The customers of some lines, and conversations that are named by their id."""

    def __init__(self, is_active: bool) -> None:
        self.is_active = is_active
        self.by_key: dict[str, _Customer] = {}
        self.rows: dict[str, tuple[str, str, bool, datetime]] = {}

    def add(self, rows: QuerySet[Conversation], *, named: bool = False) -> None:
        values = rows.order_by().values_list(
            "pk", "customer_key", "agent_number", "is_active", "last_activity_at"
        )
        for pk, key, ours, active, at in values:
            if named:
                self.rows[pk] = (key, ours, active, at)
            else:
                self.by_key.setdefault(key, _Customer(self.is_active, key)).add(
                    pk, ours, active, at
                )

    def alone(self, conversation_id: str) -> _Customer | None:
        """One conversation as if its customer had no other."""
        if conversation_id not in self.rows:
            return None
        key, ours, active, at = self.rows[conversation_id]
        customer = _Customer(self.is_active, key)
        customer.add(conversation_id, ours, active, at)
        return customer


def _match_batch(
    lines: Sequence[Line], is_active: bool, visible: QuerySet[Conversation] | None
) -> Iterator[Match]:
    seen = Conversation.objects.all() if visible is None else visible
    terms = [line.term for line in lines if line.term is not None]
    customers = _Customers(is_active)
    for some in batches(_distinct(key for term in terms for key in term.keys)):
        customers.add(seen.filter(customer_key__in=some))
    for some in batches(_distinct(term.text for term in terms if term.is_id)):
        customers.add(seen.filter(pk__in=some), named=True)
    endings = [term.ending for term in terms if not _is_known(term, customers)]
    keys_of = _keys_of_endings(_distinct(filter(None, endings)), seen)
    lone = [keys[0] for keys in keys_of.values() if len(keys) == 1]
    for some in batches(_distinct(key for key in lone if key not in customers.by_key)):
        customers.add(seen.filter(customer_key__in=some))
    hidden = _hidden(terms, customers, keys_of) if visible is not None else set()
    for line in lines:
        yield _matched(line, customers, keys_of, hidden)


def _is_known(term: Term, customers: _Customers) -> bool:
    """Whether a term names a customer or a conversation as a whole."""
    is_row = term.is_id and term.text in customers.rows
    return is_row or not term.keys.isdisjoint(customers.by_key)


def _matched(
    line: Line, customers: _Customers, keys_of: dict[str, list[str]], hidden: set[Term]
) -> Match:
    term = line.term
    if term is None:
        return Match(line, State.NOT_READ, line.code)
    keys = sorted(term.keys & customers.by_key.keys())
    row = customers.alone(term.text) if term.is_id else None
    if not keys and row is None:
        keys = keys_of.get(term.ending, [])
    if row is not None and row.key in keys:
        row = None  # a conversation of that same customer
    if len(keys) > MOST_CANDIDATES:
        return Match(line, State.AMBIGUOUS, "line_of_many")
    if len(keys) + (row is not None) > 1:
        candidates: list[Candidate] = [{"customer": key} for key in keys]
        if row is not None:
            candidates.append({"conversation": term.text})
        return Match(line, State.AMBIGUOUS, candidates=candidates)
    customer = row or (customers.by_key.get(keys[0]) if keys else None)
    if customer is None:
        return Match(line, State.NOT_ALLOWED if term in hidden else State.NOT_FOUND)
    state = State.FOUND if customer.ids else State.ALREADY
    return Match(line, state, conversation_id=customer.shown_id, ids=customer.ids)


def _keys_of_endings(endings: Sequence[str], seen: QuerySet[Conversation]) -> dict[str, list[str]]:
    """The customers whose numbers end so, for each ending one more than may be picked from.

    One statement for many endings: each looks no further than it has to, however many customers
    share the ending.
    """
    found: dict[str, list[str]] = {}
    connection = connections[seen.db]
    for some in batches(endings, ENDINGS_PER_STATEMENT):
        statements, parameters = [], []
        for number, ending in enumerate(some):
            keys = seen.filter(ends_with(ending)).order_by().values_list("customer_key")
            query = keys.distinct()[: MOST_CANDIDATES + 1].query
            try:
                sql, values = query.get_compiler(seen.db).as_sql()
            except EmptyResultSet:  # such as a host's none()
                return {}
            statements.append(f"SELECT {number}, e{number}.* FROM ({sql}) e{number}")  # noqa: S608
            parameters += values
        with connection.cursor() as cursor:
            cursor.execute(" UNION ALL ".join(statements), parameters)
            for number, key in cursor.fetchall():
                found.setdefault(some[number], []).append(key)
    return found


def _hidden(
    terms: Iterable[Term], customers: _Customers, keys_of: dict[str, list[str]]
) -> set[Term]:
    """Terms of customers whose conversations exist and may not be seen."""
    lost = [
        term for term in terms if not _is_known(term, customers) and not keys_of.get(term.ending)
    ]
    known: set[str] = set()
    for some in batches(_distinct(key for term in lost for key in term.keys)):
        rows = Conversation.objects.filter(customer_key__in=some).order_by()
        known.update(rows.values_list("customer_key", flat=True).distinct())
    ids: set[str] = set()
    for some in batches(_distinct(term.text for term in lost if term.is_id)):
        rows = Conversation.objects.filter(pk__in=some).order_by()
        ids.update(rows.values_list("pk", flat=True))
    return {term for term in lost if not term.keys.isdisjoint(known) or term.text in ids}


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
