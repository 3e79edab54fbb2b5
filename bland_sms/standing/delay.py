"""How long it takes here until a standing order sees a new conversation: as it was seen lately."""

from __future__ import annotations

import math
from datetime import timedelta
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..conf import get_settings
from ..models import SyncRun, WebhookDelivery

LATELY = timedelta(days=7)
RUNS = 8
"""The last runs of the timer that are looked at."""
TIMERS = ("command", "task")
LATE_BY = 3
"""Gaps: a timer that has not run for so long has stopped."""
MINUTE, HOUR = 60, 3600


class Delay(NamedTuple):
    """What tells of a new conversation here, and how fast."""

    by_webhook: bool
    """Bland's webhooks are accepted, and some came in lately."""
    timer_seconds: int | None
    """Between two runs of the timer that copies changes; ``None``: none runs."""

    @property
    def words(self) -> str:
        """Such as "How long it takes here, by webhook: seconds; by timer: up to 5 minutes."""
        timer = self.timer_seconds
        if self.by_webhook and timer is not None:
            text = _("How long it takes here, by webhook: seconds; by timer: up to %s.")
            return text % _length(timer)
        if self.by_webhook:
            return _("How long it takes here, by webhook: seconds. No timer copies what they miss.")
        if timer is not None:
            text = _("How long it takes here, by timer: up to %s. No webhook came in lately.")
            return text % _length(timer)
        return _(
            "Nothing tells of new conversations here: no webhook came in lately, no timer runs. "
            "Orders act when somebody presses Refresh."
        )


def how_long() -> Delay:
    """Look at the settings, the newest webhook delivery, and the last runs of the timer."""
    now = timezone.now()
    newest = None
    if _accepts_webhooks():
        received = WebhookDelivery.objects.order_by("-pk").values_list("received_at", flat=True)
        newest = received.first()
    runs = SyncRun.objects.filter(trigger__in=TIMERS, mode=SyncRun.Mode.INCREMENTAL)
    started = list(runs.order_by("-pk").values_list("started_at", flat=True)[:RUNS])
    gaps = [
        (later - earlier).total_seconds() for later, earlier in pairwise(started) if later > earlier
    ]
    timer = None
    if gaps:
        usual = max(1.0, median(gaps))
        if (now - started[0]).total_seconds() < LATE_BY * usual + MINUTE:
            timer = round(usual)
    return Delay(newest is not None and newest > now - LATELY, timer)


def _accepts_webhooks() -> bool:
    """Whether there is a secret for them; a setting that cannot be read is told elsewhere."""
    try:
        return bool(get_settings().webhook_secrets)
    except ImproperlyConfigured:
        return False


def _length(seconds: int) -> str:
    if seconds >= 2 * HOUR:
        number = math.ceil(seconds / HOUR)
        return ngettext("%d hour", "%d hours", number) % number
    number = max(1, round(seconds / MINUTE))
    return ngettext("%d minute", "%d minutes", number) % number
