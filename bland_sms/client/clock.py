"""How far Bland's clock is from ours, as its last answer's ``Date`` tells."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.utils import timezone

_NO_DIFFERENCE = timedelta(0)
_DATE_STEP = timedelta(seconds=1)
"""``Date`` has whole seconds: the true time is up to so much later."""


class _Clock:
    """Bland's, as this process knows it."""

    difference = _NO_DIFFERENCE


_clock = _Clock()


def note_date(sent_at: datetime, answered_at: datetime | None) -> None:
    """Compare an answer's ``Date`` with the time between its request and now.

    Args:
        sent_at: When the request was sent, by our clock.
        answered_at: The ``Date``; ``None``: it had none that can be used.
    """
    if answered_at is None:
        return
    now = timezone.now()
    if answered_at > now:
        _clock.difference = answered_at - now
    elif answered_at + _DATE_STEP < sent_at:
        _clock.difference = answered_at + _DATE_STEP - sent_at
    else:
        _clock.difference = _NO_DIFFERENCE


def by_blands_clock(moment: datetime) -> datetime:
    """A time of our clock as Bland's clock showed it, as far as its last answer tells."""
    return moment + _clock.difference
