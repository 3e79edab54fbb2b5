"""What is counted of a day, a period or one of our numbers, and what it is called."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from ..models import ConversationEvent

Kind = ConversationEvent.Kind


class Measure:
    """What is counted beside the kinds of events."""

    MESSAGES = "messages"
    BY_US = "deactivated_by_us"
    FIRST_HAND_OFF = "first_hand_off"
    WHY = "why"
    """Of deactivations by us: by whom and why. Apart from how many they are, since there are many
    of these totals, which a page of all numbers would read for each of its sums."""
    WHY_OF_NUMBER = "why_of_number"
    """The same by our number, for a page of one."""


COUNTED = (*Kind.values, Measure.MESSAGES, Measure.BY_US, Measure.FIRST_HAND_OFF)
"""Kinds of totals that say how many."""
KEPT = (*COUNTED, Measure.WHY, Measure.WHY_OF_NUMBER)
"""All kinds of totals; the index has them before the day."""
COLUMNS: dict[str, Any] = {
    Kind.STARTED: Kind.STARTED.label,
    Kind.HANDED_OFF: Kind.HANDED_OFF.label,
    Kind.TIMED_OUT: Kind.TIMED_OUT.label,
    Kind.COMPLETED: Kind.COMPLETED.label,
    Kind.DEACTIVATED: Kind.DEACTIVATED.label,
    Measure.BY_US: pgettext_lazy("event", "Deactivated by us"),
    Kind.REACTIVATED: Kind.REACTIVATED.label,
    Kind.ASKED_TO_STOP: Kind.ASKED_TO_STOP.label,
    Measure.MESSAGES: _("Messages"),
}
"""What is shown of each period, in this order."""


@dataclass
class Numbers:
    """What was counted of some days or of one of our numbers."""

    counts: Counter[str] = field(default_factory=Counter)
    """By the names of ``COLUMNS``."""
    hand_offs: int = 0
    hand_off_seconds: int = 0

    @property
    def seconds_to_hand_off(self) -> int | None:
        """From a conversation's start to its first hand-off, on average."""
        return round(self.hand_off_seconds / self.hand_offs) if self.hand_offs else None

    def add(self, kind: str, count: int, seconds: int) -> None:
        if kind == Measure.FIRST_HAND_OFF:
            self.hand_offs += count
            self.hand_off_seconds += seconds
        else:
            self.counts[kind] += count


@dataclass(frozen=True)
class Period:
    """A day, week or month, as far as it was asked for."""

    first: date
    last: date
    numbers: Numbers


@dataclass(frozen=True)
class Summary:
    """The numbers of a desk between two days."""

    first: date
    last: date
    step: str
    periods: list[Period]
    total: Numbers
    by_number: dict[str, Numbers]
    """By our number; ``""``: not known."""
    by_us: list[tuple[str, str, int]]
    """Deactivations of ours: by whom, the reason, how many; the most frequent ones."""
    active_now: dict[str, Counter[str]] | None
    """By our number: how many are ``active`` and ``handed_off``; ``None``: more than the cap."""
    uncounted: int
    """Days whose numbers are old: something late has changed them, or nothing counted them yet."""


def as_data(found: Summary) -> dict[str, Any]:
    """The numbers as JSON has them, for the API and the command."""

    def numbers(one: Numbers) -> dict[str, int | None]:
        counts: dict[str, int | None] = {str(kind): one.counts[kind] for kind in COLUMNS}
        return {**counts, "seconds_to_hand_off": one.seconds_to_hand_off}

    active = found.active_now
    return {
        "from": found.first.isoformat(),
        "to": found.last.isoformat(),
        "step": found.step,
        "active_now": None if active is None else sum(map(Counter.total, active.values())),
        "uncounted_days": found.uncounted,
        "total": numbers(found.total),
        "periods": [
            {
                "from": period.first.isoformat(),
                "to": period.last.isoformat(),
                **numbers(period.numbers),
            }
            for period in found.periods
        ],
        "agent_numbers": [
            {"agent_number": number, **numbers(one)} for number, one in found.by_number.items()
        ],
        "deactivated_by_us": [
            {"requested_by": name, "reason": reason, "count": times}
            for name, reason, times in found.by_us
        ],
    }
