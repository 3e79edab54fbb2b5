"""Which days, weeks or months are meant."""

from __future__ import annotations

import calendar
from datetime import date, timedelta

from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..models.event import day_of

LONGEST_DAYS = 400
"""About 13 months: so far back do the numbers go, and are totals kept."""
LONGEST_NARROWED_DAYS = 31
"""For those who may see some conversations only: their numbers are counted each time."""
STEPS = ("day", "week", "month")
_DAYS_BACK = {"day": 29, "week": 12 * 7, "month": 365}


def days_of(step: str, first: date | None, last: date | None, longest: int) -> tuple[date, date]:
    """The days that are meant. Raises ValueError: the wrong way around, or too many."""
    last = last or day_of(timezone.now())
    if not 1971 < last.year < 9000:
        raise ValueError(_("There are no numbers of that day."))
    if first is None:
        first = begin_of(step, last - timedelta(days=_DAYS_BACK[step]))
        first = max(first, last - timedelta(days=longest - 1))
    if first > last:
        raise ValueError(_("The first day lies after the last one."))
    if (last - first).days >= longest:
        raise ValueError(_("At most %(number)d days at once.") % {"number": longest})
    return first, last


def nearest_days(
    step: str, first: date | None, last: date | None, longest: int = LONGEST_DAYS
) -> tuple[date, date]:
    """The days that are meant, or those nearest to them that there can be numbers of."""
    if last is not None:
        last = min(max(last, date(1972, 1, 1)), date(8999, 12, 31))
    until = last or day_of(timezone.now())
    if first is not None:
        first = min(max(first, until - timedelta(days=longest - 1)), until)
    return days_of(step, first, last, longest)


def begin_of(step: str, day: date) -> date:
    """The first day of the week or month; weeks begin on Monday."""
    if step == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if step == "month" else day


def end_of_month(day: date) -> date:
    """The last day of its month."""
    return day.replace(day=calendar.monthrange(day.year, day.month)[1])
