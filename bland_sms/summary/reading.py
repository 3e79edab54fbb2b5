"""The numbers between two days: totals of closed days, and the newest days as they are."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any

from django.db.models import QuerySet, Sum
from django.utils import timezone

from ..models import Conversation, DailyTotal, UncountedDay
from ..models.conversation import Status
from ..models.event import day_of
from .counting import count
from .numbers import Measure, Numbers, Period, Summary
from .periods import begin_of

LIVE_DAYS = 7
"""Days that are not counted yet and are counted when they are asked for, the newest."""
ACTIVE_CAP = 10_000
"""Active conversations are counted no further."""
MOST_REASONS = 50


def read(
    step: str,
    first: date,
    last: date,
    *,
    agent_number: str = "",
    conversations: QuerySet[Conversation] | None = None,
) -> Summary:
    """The numbers of the days from ``first`` to ``last``.

    Args:
        agent_number: Of one of our numbers only; ``""``: all.
        conversations: Of these conversations only, counted now, at most
            ``LONGEST_NARROWED_DAYS``; ``None``: of all.
    """
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    today = day_of(timezone.now())
    noted = UncountedDay.objects.filter(day__range=(first, last)).values_list("day", flat=True)
    uncounted = {*noted.order_by().distinct(), today} & set(days)
    live = sorted(uncounted)[-LIVE_DAYS:] if conversations is None else days
    by_day = count(live, conversations)
    if agent_number:
        by_day = [total for total in by_day if total.agent_number == agent_number]
    by_number = by_day
    if conversations is None:
        kept = DailyTotal.objects.filter(day__range=(first, last)).exclude(day__in=live)
        if agent_number:
            kept = kept.filter(agent_number=agent_number)
        by_day = by_day + _added_up(kept, "day")
        by_number = by_number + _added_up(kept, "agent_number", "requested_by_name", "reason")
    return _summary(
        step,
        first,
        last,
        by_day,
        by_number,
        active_now=_active_now(agent_number, conversations),
        uncounted=len(uncounted) - len(live) if conversations is None else 0,
    )


def _added_up(kept: QuerySet[DailyTotal], *columns: str) -> list[DailyTotal]:
    """Totals of closed days by some of their columns, added up by the database.

    By day and by our number apart: together they are a hundred thousand rows in a year.
    """
    found = []
    rows = kept.order_by().values("kind", *columns)
    for row in rows.annotate(number=Sum("count"), duration=Sum("seconds")):
        number, duration = row.pop("number"), row.pop("duration")
        found.append(DailyTotal(count=number, seconds=duration, **row))
    return found


def _summary(
    step: str,
    first: date,
    last: date,
    by_day: Iterable[DailyTotal],
    by_our_number: Iterable[DailyTotal],
    **others: Any,
) -> Summary:
    total = Numbers()
    by_number: dict[str, Numbers] = defaultdict(Numbers)
    by_period: dict[date, Numbers] = {}
    by_us: Counter[tuple[str, str]] = Counter()
    begin = begin_of(step, first)
    while begin <= last:
        by_period[begin] = Numbers()
        begin = begin_of(step, begin + timedelta(days={"day": 1, "week": 7, "month": 32}[step]))
    for one in by_day:
        for numbers in (total, by_period[begin_of(step, one.day)]):
            numbers.add(one.kind, one.count, one.seconds)
    for one in by_our_number:
        by_number[one.agent_number].add(one.kind, one.count, one.seconds)
        if one.kind == Measure.BY_US:
            by_us[one.requested_by_name, one.reason] += one.count
    begins = sorted(by_period)
    ends = [*(begin - timedelta(days=1) for begin in begins[1:]), last]
    return Summary(
        first=first,
        last=last,
        step=step,
        periods=[
            Period(max(begin, first), end, by_period[begin])
            for begin, end in zip(begins, ends, strict=True)
        ],
        total=total,
        by_number=dict(sorted(by_number.items())),
        by_us=[(*key, number) for key, number in by_us.most_common(MOST_REASONS)],
        **others,
    )


def _active_now(
    agent_number: str, conversations: QuerySet[Conversation] | None
) -> dict[str, Counter[str]] | None:
    rows = Conversation.objects.all() if conversations is None else conversations
    active = rows.filter(status__in=(Status.ACTIVE, Status.HANDED_OFF)).order_by()
    found = active.values_list("agent_number", "status")[: ACTIVE_CAP + 1]
    counted: dict[str, Counter[str]] = defaultdict(Counter)
    number = 0
    for ours, status in found:
        number += 1
        if not agent_number or ours == agent_number:
            counted[ours][status] += 1
    return None if number > ACTIVE_CAP else dict(counted)
