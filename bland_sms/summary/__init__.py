"""The numbers of a desk: events by day and by our number, and the totals of closed days.

A day that is over is counted once and kept as :class:`~bland_sms.models.DailyTotal`, and counted
again when something late changes it; today, and a few days that still wait for that, are counted
when they are asked for. So the numbers cost the same however many conversations there are.
"""

from .counting import DAYS_AT_ONCE, close_days, count
from .numbers import COLUMNS, Measure, Numbers, Period, Summary, as_data
from .periods import (
    LONGEST_DAYS,
    LONGEST_NARROWED_DAYS,
    STEPS,
    begin_of,
    days_of,
    nearest_days,
)
from .reading import ACTIVE_CAP, read

__all__ = [
    "ACTIVE_CAP",
    "COLUMNS",
    "DAYS_AT_ONCE",
    "LONGEST_DAYS",
    "LONGEST_NARROWED_DAYS",
    "STEPS",
    "Measure",
    "Numbers",
    "Period",
    "Summary",
    "as_data",
    "begin_of",
    "close_days",
    "count",
    "days_of",
    "nearest_days",
    "read",
]
