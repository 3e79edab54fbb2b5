"""The counts of a large update, kept on its row while it is carried out: open pages show them."""

from __future__ import annotations

import time

from ..models import BulkUpdate, BulkUpdateItem

COUNT_SECONDS = 1.0
"""How old they may be."""


class LiveCounts:
    """Of one run. An update that is not large is counted whenever somebody looks."""

    def __init__(self, bulk_update: BulkUpdate) -> None:
        self._update = bulk_update
        self._is_large = False
        self._began_at = self._due_at = time.monotonic()
        self._left = 0

    def begin(self) -> None:
        """Whether it is large is told by its row; they are what they were when another process was
        stopped."""
        self._update.refresh_from_db(fields=["live_counts", "live_seconds_each"])
        self._is_large = self._update.live_counts is not None
        if self._is_large:
            self._update.keep_counts()
            self._left, self._began_at = self._count_left(), time.monotonic()

    def keep(self) -> None:
        """Count again, now and then: at most a twentieth of the time goes into it."""
        began = time.monotonic()
        if self._is_large and began >= self._due_at:
            self._update.keep_counts()
            done = self._left - self._count_left()
            if done > 0:  # in this run: a pause before it was no work. Kept with the next counts.
                self._update.live_seconds_each = (began - self._began_at) / done
            took = time.monotonic() - began
            self._due_at = began + max(COUNT_SECONDS, 20 * took)

    def _count_left(self) -> int:
        counts = self._update.live_counts or {}
        return sum(counts.get(state, 0) for state in BulkUpdateItem.State.OPEN)
