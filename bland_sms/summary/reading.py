"""The numbers between two days: totals of closed days, and the newest days as they are."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from django.db.models import F, Q, QuerySet
from django.utils import timezone

from ..models import Conversation, DailyTotal, MonthlyTotal, UncountedDay, UncountedMonth
from ..models.conversation import Status
from ..models.event import day_of
from .counting import add_up, count
from .numbers import COUNTED, Measure, Numbers, Period, Summary
from .periods import begin_of, end_of_month

LIVE_DAYS = 7
"""Days that are not counted yet and are counted when they are asked for, the newest."""
ACTIVE_CAP = 10_000
"""Active conversations are counted no further."""
MOST_REASONS = 50


@dataclass(slots=True)
class _Sum:
    """Some totals added up: a lighter row than a total is, since there are a thousand."""

    kind: str
    count: int
    seconds: int
    day: date = date.min
    agent_number: str = ""
    requested_by_name: str = ""
    reason: str = ""


def read(
    step: str,
    first: date,
    last: date,
    *,
    agent_number: str = "",
    conversations: QuerySet[Conversation] | None = None,
    only_periods: bool = False,
) -> Summary:
    """The numbers of the days from ``first`` to ``last``.

    Args:
        agent_number: Of one of our numbers only; ``""``: all.
        conversations: Of these conversations only, counted now, at most
            ``LONGEST_NARROWED_DAYS``; ``None``: of all.
        only_periods: Nothing by our number, by whom or of what is active now.
    """
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    today = day_of(timezone.now())
    noted = UncountedDay.objects.filter(day__range=(first, last)).values_list("day", flat=True)
    uncounted = {*noted.order_by().distinct(), today} & set(days)
    live = sorted(uncounted)[-LIVE_DAYS:] if conversations is None else days
    counted = count(live, conversations)
    if agent_number:
        counted = [total for total in counted if total.agent_number == agent_number]
    by_day = [total for total in counted if total.kind in COUNTED]
    why = Measure.WHY_OF_NUMBER if agent_number else Measure.WHY
    by_us = [total for total in counted if total.kind == why]
    kept = None if conversations is not None else _Kept(days, live, agent_number)
    return _summary(
        step,
        first,
        last,
        [*by_day, *(kept.by_period(step) if kept else ())],
        [] if only_periods else [*by_day, *(kept.by_number() if kept else ())],
        [] if only_periods else [*by_us, *(kept.by_us(why) if kept else ())],
        active_now=None if only_periods else _active_now(agent_number, conversations),
        uncounted=len(uncounted) - len(live) if conversations is None else 0,
    )


class _Kept:
    """Totals that are kept, of the days that are not counted now.

    A month is read from its own totals where all of its days are meant and none was counted again
    since: a year of days is a few hundred thousand rows.
    """

    def __init__(self, days: list[date], live: list[date], agent_number: str) -> None:
        first, last = days[0], days[-1]
        of = {"agent_number": agent_number} if agent_number else {}
        whole = {day for day in days if day.day == 1 and end_of_month(day) <= last}
        whole -= {begin_of("month", day) for day in live}
        changed = UncountedMonth.objects.values("month")
        known = MonthlyTotal.objects.filter(month__in=whole).exclude(month__in=changed)
        months = set(known.order_by().values_list("month", flat=True).distinct())
        totals = DailyTotal.objects.filter(**of).exclude(day__in=live)
        self._days = totals.filter(day__range=(first, last))
        self._months = MonthlyTotal.objects.filter(month__in=months, **of)
        self._others = totals.filter(_between(first, last, months))

    def by_period(self, step: str) -> list[_Sum]:
        """By day, and a month's under its first day where months are asked for."""
        if step != "month":
            return _sums(self._days.filter(kind__in=COUNTED), "day")
        months = self._months.filter(kind__in=COUNTED).annotate(day=F("month"))
        return _sums(self._others.filter(kind__in=COUNTED), "day") + _sums(months, "day")

    def by_number(self) -> list[_Sum]:
        kept = (self._others.filter(kind__in=COUNTED), self._months.filter(kind__in=COUNTED))
        return [one for totals in kept for one in _sums(totals, "agent_number")]

    def by_us(self, why: str) -> list[_Sum]:
        kept = (self._others.filter(kind=why), self._months.filter(kind=why))
        return [one for totals in kept for one in _sums(totals, "requested_by_name", "reason")]


def _sums(totals: QuerySet[Any], *columns: str) -> list[_Sum]:
    return [_Sum(**row) for row in add_up(totals, *columns)]


def _between(first: date, last: date, months: set[date]) -> Q:
    """The days that lie in none of the months, as ranges: an index finds these."""
    found, begin = Q(), first
    for month in sorted(months):
        found |= Q(day__gte=begin, day__lt=month)
        begin = end_of_month(month) + timedelta(days=1)
    return found | Q(day__range=(begin, last))


def _summary(
    step: str,
    first: date,
    last: date,
    by_day: Iterable[DailyTotal | _Sum],
    by_our_number: Iterable[DailyTotal | _Sum],
    whys: Iterable[DailyTotal | _Sum],
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
    for one in whys:
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
    found = list(active.values_list("agent_number", "status")[: ACTIVE_CAP + 1])
    if len(found) > ACTIVE_CAP:
        return None
    counted: dict[str, Counter[str]] = defaultdict(Counter)
    for (ours, status), number in Counter(found).items():
        if not agent_number or ours == agent_number:
            counted[ours][status] = number
    return dict(counted)
