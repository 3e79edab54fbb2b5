"""Lets jobs that wait take turns in one worker: the small and the new ones first."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from django.db import Error
from django.db.models import Count, Q
from django.utils import timezone

from ..models import BulkUpdate, BulkUpdateItem, WebhookDelivery
from ..updates import waiting_updates

SHORTEST_SECONDS = 2.0
"""A turn is not cut shorter than this."""
LOOK_SECONDS = 1.0
"""Between two looks whether something else waits."""
AHEAD_SECONDS = 3.0
"""An update makes way for another one that has had this many seconds less."""


class Turn(threading.Event):
    """Is set when the worker ends, or when something else has waited long enough.

    Only the thread that began the turn looks; others see what it has found.
    """

    def __init__(self, ended: threading.Event, others_wait: Callable[[float], bool]) -> None:
        super().__init__()
        self._ended, self._others_wait = ended, others_wait
        self._thread = threading.get_ident()
        self._began = self._looked_at = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self._began

    def is_set(self) -> bool:
        if super().is_set():
            return True
        if self._ended.is_set():
            self.set()
        elif threading.get_ident() == self._thread and self._is_time_to_look():
            self._looked_at = time.monotonic()
            try:
                if self._others_wait(self.seconds):
                    self.set()
            except Error:
                pass  # the job itself meets the same error, and handles it
        return super().is_set()

    def wait(self, timeout: float | None = None) -> bool:
        give_up_at = None if timeout is None else time.monotonic() + timeout
        while not self.is_set():
            left = 0.2 if give_up_at is None else min(0.2, give_up_at - time.monotonic())
            if left <= 0:
                break
            super().wait(left)
        return self.is_set()

    def _is_time_to_look(self) -> bool:
        since = time.monotonic() - self._looked_at
        return self.seconds >= SHORTEST_SECONDS and since >= LOOK_SECONDS


def updates_in_turn(driven: Mapping[int, float]) -> list[BulkUpdate]:
    """Updates that wait: those that were worked on for the shortest time first, then the small.

    Args:
        driven: Seconds that this worker has spent on each so far.
    """
    is_open = Q(items__state__in=BulkUpdateItem.State.OPEN)
    waiting = list(waiting_updates())
    if not waiting:
        return []
    sizes: dict[int, int] = dict(
        BulkUpdate.objects.filter(pk__in=[update.pk for update in waiting])
        .order_by()
        .values_list("pk")
        .annotate(number=Count("items", filter=is_open))
    )
    return sorted(waiting, key=lambda it: (driven.get(it.pk, 0.0), sizes.get(it.pk, 0), it.pk))


def updates_behind(driven: Mapping[int, float], seconds: float) -> list[int]:
    """Updates that wait and were worked on for clearly less than ``seconds``."""
    keys = waiting_updates().values_list("pk", flat=True)
    return [pk for pk in keys if driven.get(pk, 0.0) + AHEAD_SECONDS < seconds]


def deliveries_wait() -> bool:
    """Whether a webhook delivery could be carried out now."""
    is_due = Q(not_before__isnull=True) | Q(not_before__lte=timezone.now())
    waiting = WebhookDelivery.objects.filter(is_due, state=WebhookDelivery.State.RECEIVED)
    return waiting.filter(claimed_conversation__isnull=True).exists()
