"""One item in the hands of the threads that ask Bland."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from django.utils import timezone

from .asking import ClaimedItem, Outcome, Verdict

logger = logging.getLogger("bland_sms.updates")


class Job:
    """One item in the hands of the threads.

    Either a thread begins it or the driver drops it, and the first of them wins. So the driver
    knows of each item whether a request may have been sent, even after an interruption.
    """

    def __init__(self, item: ClaimedItem, work: Callable[[], Outcome]) -> None:
        self.item = item
        self._is_called_back = False
        self.outcome: Outcome | None = None
        """What came of it; ``None`` after all when ``is_over``: a fault of our own."""
        self.is_over = False
        self.seconds = 0.0
        """How long it took."""
        self._work = work
        self._turn = threading.Lock()

    @property
    def is_wanted(self) -> bool:
        """Whether something of it may still be sent; asked immediately before each request."""
        until = self.item.until
        return not self._is_called_back and (until is None or timezone.now() < until)

    @property
    def is_news(self) -> bool:
        """Not plainly confirmed, as most are: the driver must know now."""
        return self.outcome is None or self.outcome.verdict is not Verdict.CONFIRMED

    def drop(self) -> bool:
        """Make sure that nothing of it is sent; False where a thread has begun it."""
        return self._turn.acquire(blocking=False)

    def call_back(self) -> bool:
        """Let nothing more of it be sent; False where a thread has begun it, whose outcome tells
        whether something was sent."""
        self._is_called_back = True
        return self.drop()

    def run(self) -> None:
        if not self._turn.acquire(blocking=False):
            return
        began = time.monotonic()
        try:
            self.outcome = self._work()
        except Exception:
            logger.exception("item %s: an error of our own", self.item.item_id)
        finally:
            del self._work  # it knows of this job, and only the garbage collector could free both
            self.seconds = time.monotonic() - began
            self.is_over = True
