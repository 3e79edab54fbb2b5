"""Counts what happened on some days, and keeps the totals of days and months that are over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any

from django.db.models import (
    Case,
    Count,
    DurationField,
    Exists,
    ExpressionWrapper,
    F,
    IntegerField,
    OuterRef,
    Q,
    QuerySet,
    Sum,
    Value,
    When,
)
from django.utils import timezone

from ..database import batches, patient, using, write_transaction
from ..models import (
    BulkUpdateItem,
    Conversation,
    ConversationEvent,
    DailyTotal,
    MonthlyTotal,
    UncountedDay,
    UncountedMonth,
)
from ..models.event import day_begins, day_ends, day_of
from .numbers import KEPT, Kind, Measure
from .periods import LONGEST_DAYS, begin_of, end_of_month

DAYS_AT_ONCE = 20


def count(
    days: Sequence[date], conversations: QuerySet[Conversation] | None = None
) -> list[DailyTotal]:
    """Count what happened on these days; nothing is written.

    Args:
        conversations: Of these only; ``None``: of all.
    """
    if not days:
        return []
    found: Counter[tuple[date, str, str, str, str]] = Counter()
    seconds: Counter[tuple[date, str, str, str, str]] = Counter()
    within = {} if conversations is None else {"conversation__in": conversations.order_by()}
    number = "conversation__agent_number"
    events = ConversationEvent.objects.filter(_during("at", days), kind__in=Kind.values, **within)
    for day, kind, ours, times in _by_day(events, "at", days, "kind", number, times=Count("pk")):
        found[day, kind, ours or "", "", ""] += times
    earlier = ConversationEvent.objects.filter(
        conversation=OuterRef("conversation"), kind=Kind.HANDED_OFF, at__lt=OuterRef("at")
    )
    hand_offs = events.filter(
        ~Exists(earlier), kind=Kind.HANDED_OFF, conversation__created_at__lte=F("at")
    )
    took = ExpressionWrapper(F("at") - F("conversation__created_at"), DurationField())
    for day, ours, times, duration in _by_day(
        hand_offs, "at", days, number, times=Count("pk"), duration=Sum(took)
    ):
        key = (day, Measure.FIRST_HAND_OFF, ours or "", "", "")
        found[key] += times
        seconds[key] += round(duration.total_seconds())
    started = Conversation.objects.all() if conversations is None else conversations
    started = started.order_by().filter(_during("created_at", days), message_count__gt=0)
    for day, ours, times in _by_day(
        started, "created_at", days, "agent_number", times=Sum("message_count")
    ):
        found[day, Measure.MESSAGES, ours, "", ""] += times
    items = BulkUpdateItem.objects.filter(
        _during("finished_at", days),
        state=BulkUpdateItem.State.CHANGED,
        bulk_update__is_active__in=[False],
        **within,
    )
    who, why = "bulk_update__requested_by_name", "bulk_update__reason"
    for day, ours, name, reason, times in _by_day(
        items, "finished_at", days, number, who, why, times=Count("pk")
    ):
        found[day, Measure.BY_US, ours or "", "", ""] += times
        found[day, Measure.WHY, "", name, reason] += times
        found[day, Measure.WHY_OF_NUMBER, ours or "", name, reason] += times
    return [
        DailyTotal(
            day=key[0],
            kind=key[1],
            agent_number=key[2],
            requested_by_name=key[3],
            reason=key[4],
            count=number_of,
            seconds=seconds[key],
        )
        for key, number_of in found.items()
    ]


def _during(column: str, days: Sequence[date]) -> Q:
    """Stretches of days, since each stretch is one range of an index."""
    stretches: list[tuple[datetime, datetime]] = []
    for day in sorted(days):
        begins, ends = day_begins(day), day_ends(day)
        if stretches and stretches[-1][1] == begins:
            stretches[-1] = (stretches[-1][0], ends)
        else:
            stretches.append((begins, ends))
    during = Q()
    for begins, ends in stretches:
        during |= Q(**{f"{column}__gte": begins, f"{column}__lt": ends})
    return during


def _by_day(
    rows: QuerySet[Any], column: str, days: Sequence[date], *columns: str, **measures: Any
) -> list[tuple[Any, ...]]:
    """Aggregate by day. MySQL knows no time zones unless it is told them: days are ranges."""
    in_order = sorted(days)
    cases = [
        When(**{f"{column}__lt": day_ends(day)}, then=Value(place))
        for place, day in enumerate(in_order)
    ]
    grouped = rows.annotate(place=Case(*cases, output_field=IntegerField()))
    grouped = grouped.order_by().values("place", *columns).annotate(**measures)
    found = grouped.values_list("place", *columns, *measures)
    return [(in_order[place], *values) for place, *values in found]


def add_up(totals: QuerySet[Any], *columns: str) -> list[dict[str, Any]]:
    """Totals of days or months by some of their columns, added up by the database."""
    rows = totals.order_by().values_list("kind", *columns)
    return [
        dict(zip(("kind", *columns, "count", "seconds"), row, strict=True))
        for row in rows.annotate(number=Sum("count"), duration=Sum("seconds"))
    ]


def close_days(limit: int = LONGEST_DAYS) -> int:
    """Count the days that are over and were not counted since they changed; how many it were.

    Then the months that are over and have days that were counted since. Safe to repeat and to run
    side by side.
    """
    today = day_of(timezone.now())
    waiting = UncountedDay.objects.filter(day__lt=today).order_by("-day").distinct()
    days = list(waiting.values_list("day", flat=True)[:limit])
    for begin in range(0, len(days), DAYS_AT_ONCE):
        _close(days[begin : begin + DAYS_AT_ONCE])
    changed = UncountedMonth.objects.filter(month__lt=begin_of("month", today))
    for month in changed.order_by("month").distinct().values_list("month", flat=True):
        _close_month(month)
    return len(days)


@patient
def _close(days: Sequence[date]) -> None:
    with write_transaction(DailyTotal):
        seen = _lock(UncountedDay, "day", days)
        noted = sorted(set(seen.values()))
        totals = DailyTotal.objects.using(using(DailyTotal))
        totals.filter(kind__in=KEPT, day__in=noted).delete()
        totals.bulk_create(count(noted), batch_size=500)
        months = sorted({begin_of("month", day) for day in noted})
        UncountedMonth.objects.using(using(UncountedMonth)).bulk_create(
            UncountedMonth(month=month) for month in months
        )
        _delete(UncountedDay, seen)


@patient
def _close_month(month: date) -> None:
    with write_transaction(MonthlyTotal):
        seen = _lock(UncountedMonth, "month", [month])
        if not seen:
            return
        days = DailyTotal.objects.using(using(DailyTotal)).filter(
            kind__in=KEPT, day__range=(month, end_of_month(month))
        )
        totals = MonthlyTotal.objects.using(using(MonthlyTotal))
        totals.filter(month=month).delete()
        added = add_up(days, "agent_number", "requested_by_name", "reason")
        totals.bulk_create((MonthlyTotal(month=month, **row) for row in added), batch_size=500)
        _delete(UncountedMonth, seen)


def _lock(model: type[Any], column: str, when: Sequence[date]) -> dict[int, date]:
    """Lock these notes; the key and the day or month of each that is still there.

    They are locked before anything is counted: another process waits here, and what is noted later
    stays noted. What a note stands for was committed with it, so it is counted now. What has no
    note any more was counted by another process meanwhile, and nobody holds it: leave it alone.
    """
    notes = model.objects.using(using(model)).filter(**{f"{column}__in": when})
    return dict(notes.select_for_update().order_by("pk").values_list("pk", column))


def _delete(model: type[Any], seen: Iterable[int]) -> None:
    for some in batches(list(seen)):
        model.objects.using(using(model)).filter(pk__in=some).delete()
