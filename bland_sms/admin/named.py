"""Lists of the conversations that rows of another table name, at a cost that stays the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from django.core.paginator import Page
from django.db import connections, transaction
from django.db.models import BooleanField, F, Func, Q, QuerySet, Subquery, Value
from django.utils.functional import cached_property

from ..models import BulkUpdateItem, Conversation
from .base import CappedPaginator
from .wording import COUNT_CAP

MOST_NAMED = 5000
"""Conversations that a condition names one by one."""
MOST_IN_AN_ARRAY = 100_000
"""Rows whose conversations PostgreSQL looks up one by one."""
MOST_INSTEAD_OF_A_WALK = 1_000_000
"""The same where it is known that a walk along the list would be longer."""
SPARE = 1000
"""Found beyond those that a list counts: some may be found twice, or have gone."""
SAMPLE = 500
"""Conversations by which it is guessed where in the list the newest of many are."""
FOUND = "bland_sms_found"
"""Alias of a list by a requested change: its conversations, found before."""
_instead: ContextVar[list[str] | None] = ContextVar("bland_sms_instead", default=None)
"""Some of those that a list by a requested change has; it is asked of these alone meanwhile."""


def named_by(
    rows: QuerySet[Any], conversations: QuerySet[Conversation], *, until: datetime | None = None
) -> QuerySet[Conversation]:
    """The conversations that rows of another table name.

    With a plain subquery PostgreSQL walks along the list, newest first, until it has met a page of
    them: of the events of a month last winter that is a walk through all that came after.

    Args:
        until: Where most of these conversations had their last activity by then, so that such a
            walk is short if not much came after.
    """
    ids = rows.order_by().values("conversation_id")
    if connections[conversations.db].vendor == "postgresql":
        if until is not None and not rows.exists():
            return conversations.none()
        if _expected(rows) <= _worth_looking_up(conversations.db, until):
            return conversations.filter(_IsOneOf(F("pk"), Subquery(ids)))
    else:
        few = list(ids.values_list("conversation_id", flat=True)[: MOST_NAMED + 1])
        if len(few) <= MOST_NAMED:
            return conversations.filter(pk__in=sorted(set(few)))
    return conversations.filter(pk__in=ids)


def last_asked(
    items: QuerySet[BulkUpdateItem],
    conversations: QuerySet[Conversation],
    *,
    mostly: str,
    among: Q | None = None,
) -> QuerySet[Conversation]:
    """The conversations of these items, which are found once: not again for the count and the page.

    On PostgreSQL no more are found than a list counts, so that it costs the same however many there
    are. Of more, :class:`AskedPaginator` counts those that were found, and PostgreSQL walks along
    the list until it has met a page of them; unless they are so old that it would walk further
    than they are many.

    Args:
        mostly: The state that most of these items are in.
        among: What all of these items meet, and what leads to them sooner.
    """
    if connections[conversations.db].vendor != "postgresql":
        return named_by(items, conversations)
    ids = items.order_by().values("conversation_id")
    sooner = ids if among is None else ids.filter(among)
    first = sooner.values_list("conversation_id", flat=True)[: COUNT_CAP + SPARE]
    found = _without_workers(first)
    if not found:
        return conversations.none()
    are_all = len(found) < COUNT_CAP + SPARE
    condition: Func = _IsAsked(F("pk"), Value(found))
    if not are_all:
        until = _newest(mostly, conversations.db)
        is_far = _expected(items) <= _worth_looking_up(conversations.db, until)
        many = _IsOneOf if is_far else _IsIn
        condition = _IsAsked(F("pk"), Value(found), many(F("pk"), Subquery(ids)))
    return conversations.alias(**{FOUND: _Found(found, are_all)}).filter(condition)


def _without_workers(values: QuerySet[Any, str]) -> list[str]:
    """The values, found without PostgreSQL's parallel workers: these would read the whole table
    for what the index tells sooner."""
    with transaction.atomic(using=values.db):
        with connections[values.db].cursor() as cursor:
            cursor.execute("SET LOCAL max_parallel_workers_per_gather = 0")
        return list(values)


def _newest(state: str, using: str) -> datetime | None:
    """How far back a walk along the list would go for a page of the conversations with an item in
    this state, by a sample of them of which one in a hundred is newer. ``None``: there is none.

    Those with the first ids are as good as any, since Bland's ids are random.
    """
    items = BulkUpdateItem.objects.using(using).filter(state=state).order_by("conversation_id")
    some = Subquery(items.values("conversation_id")[:SAMPLE])
    rows = Conversation.objects.using(using).filter(_IsOneOf(F("pk"), some))
    moments = rows.order_by("-last_activity_at").values_list("last_activity_at", flat=True)
    newest = list(moments[: SAMPLE // 100])
    return newest[-1] if newest else None


class AskedPaginator(CappedPaginator):
    """Of a list by a requested change: where all are named, their order is found once, for the
    count and for the page; where only some are, they tell whether there are more than are counted.
    """

    object_list: QuerySet[Conversation]

    @cached_property
    def _counted(self) -> int:
        if self._found is None:
            return super()._counted
        if self._found.are_all:
            return len(self._in_order)
        with _only(self._found.ids):
            number: int = self.object_list.order_by()[: COUNT_CAP + 1].count()
        return number if number > COUNT_CAP else super()._counted

    def page(self, number: int | str) -> Any:
        if self._found is None or not self._found.are_all:
            return super().page(number)
        number = self.validate_number(number)
        begin = (number - 1) * self.per_page
        rows = self.object_list.all()
        with _only(self._in_order[begin : min(begin + self.per_page, self.count)]):
            len(rows)  # it keeps what was found
        return Page(rows, number, self)

    @cached_property
    def _in_order(self) -> list[str]:
        return list(self.object_list.values_list("pk", flat=True)[: COUNT_CAP + 1])

    @property
    def _found(self) -> _Found | None:
        """``None``: it is another list."""
        found = self.object_list.query.annotations.get(FOUND)
        return found if isinstance(found, _Found) else None


@contextmanager
def _only(ids: list[str]) -> Iterator[None]:
    token = _instead.set(ids)
    try:
        yield
    finally:
        _instead.reset(token)


def _worth_looking_up(using: str, until: datetime | None) -> int:
    """How many conversations PostgreSQL finds one by one before a walk along the list does."""
    if until is None:
        return MOST_IN_AN_ARRAY
    after = Conversation.objects.using(using).filter(last_activity_at__gte=until)
    return min(MOST_INSTEAD_OF_A_WALK, _expected(after))


def _expected(rows: QuerySet[Any]) -> int:
    """How many rows PostgreSQL believes there are: to count a million takes longer than a page."""
    [told] = json.loads(rows.order_by().values("pk").explain(format="json"))
    return int(told["Plan"]["Plan Rows"])


class _IsOneOf(Func):
    """``id = ANY (ARRAY (SELECT ...))``: PostgreSQL asks the subquery first, and once."""

    arg_joiner = " = ANY (ARRAY "
    template = "%(expressions)s)"
    output_field = BooleanField()


class _IsNamed(Func):
    """The same of a list. As a bare list its length would show, and PostgreSQL would walk along
    the conversations in the hope of a page of them: to the last one where a filter lets none pass.
    """

    template = "%(expressions)s::text[])))"
    arg_joiner = " = ANY (ARRAY (SELECT unnest("
    output_field = BooleanField()


class _Found(Value):
    """What is known of a list before it is asked for; no statement has it."""

    def __init__(self, ids: list[str], are_all: bool) -> None:
        super().__init__(are_all)
        self.ids, self.are_all = ids, are_all


class _IsAsked(Func):
    """That of a list; another condition where the list has only the first ones."""

    output_field = BooleanField()

    def as_sql(self, compiler: Any, connection: Any, *_given: Any, **_others: Any) -> Any:
        column, found, *many = self.source_expressions
        instead = _instead.get()
        if instead is not None:
            return compiler.compile(_IsNamed(column, Value(instead)))
        return compiler.compile(many[0] if many else _IsNamed(column, found))


class _IsIn(Func):
    """``id IN (SELECT ...)``."""

    arg_joiner = " IN "
    template = "%(expressions)s"
    output_field = BooleanField()
