"""What a run has claimed and not written: how many items, who has each, and the answers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

from django.utils import timezone

from ..reasons import Failure
from .asking import ClaimedItem, Outcome, Verdict
from .ending import OUTAGE

logger = logging.getLogger("bland_sms.updates")

CLAIM_SECONDS, MOST_CLAIMED = 2.0, 500
"""Items are claimed for so long ahead, and never more than so many."""
NEWEST_SHARE = 0.1
"""How much the newest answer counts."""
FIRST_ANSWERS = 20
"""This many first answers that all say CONVERSATION_NOT_FOUND mean the wrong account's key."""


class Window:
    """How far ahead items are claimed: as many as are asked in a while, by how fast answers come.

    Args:
        workers: How many threads ask.
        is_narrow: Only twice as many items as there are threads, however fast they are.
    """

    def __init__(self, workers: int, *, is_narrow: bool = False) -> None:
        self._workers, self._is_narrow = workers, is_narrow
        self.usual_seconds = 0.0
        """How long an answer takes, of late."""

    def note(self, seconds: float) -> None:
        """An answer took that long."""
        newest = NEWEST_SHARE if self.usual_seconds else 1.0
        self.usual_seconds += (seconds - self.usual_seconds) * newest

    def most(self, seconds_left: float | None) -> int:
        """How many items may be claimed and not answered.

        Args:
            seconds_left: What is claimed and not sent by then is given back.
        """
        at_first = 2 * self._workers
        if self._is_narrow or not self.usual_seconds:
            return at_first
        seconds = CLAIM_SECONDS if seconds_left is None else min(CLAIM_SECONDS, seconds_left)
        in_time = int(seconds * self._workers / self.usual_seconds)
        return max(at_first, min(in_time, MOST_CLAIMED))

    def few(self, seconds_left: float | None) -> int:
        """At how few of them more are claimed, so that no thread waits for the database."""
        return max(self._workers, self.most(seconds_left) // 4)


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


class Answers:
    """What came back from the threads and is not written yet; what it tells of all rows.

    By item, and never in two of them but for a moment: an exception may come at any time.
    """

    def __init__(self) -> None:
        self.results: dict[int, Outcome] = {}
        """Settled, to be written."""
        self.doubtful: dict[int, Outcome] = {}
        """Unknown, unless this turns out to be an outage: then they were not attempted."""
        self.not_found: dict[int, Outcome] = {}
        """First answers, all CONVERSATION_NOT_FOUND: perhaps this is the wrong account."""
        self.is_right_account = False
        self.troubles: set[int | None] = set()
        """Since Bland last answered: the HTTP statuses of its refusals to. ``None``: silence."""

    def sort(self, outcome: Outcome) -> Failure:
        """Keep one outcome; why the whole update must stop, if what Bland says of it tells that."""
        item_id = outcome.item.item_id
        failure = Failure()
        if outcome.stop is not None:
            failure = outcome.stop.failure
        elif outcome.is_outage:
            failure = Failure(OUTAGE)
        if outcome.verdict is Verdict.NOT_FOUND:
            self.not_found[item_id] = outcome
            if not self.is_right_account and len(self.not_found) >= FIRST_ANSWERS:
                failure = failure or Failure("wrong_account", {"number": FIRST_ANSWERS})
        elif outcome.verdict is Verdict.UNKNOWN:
            self.doubtful[item_id] = outcome
        else:
            self.results[item_id] = outcome
            if outcome.http_status is not None and outcome.verdict is not Verdict.WAITING:
                self.is_right_account = True
                self.results |= self.doubtful
                self.doubtful = {}
                self.troubles.clear()
        is_put_off = outcome.retry_after_seconds is not None
        if outcome.verdict in (Verdict.UNKNOWN, Verdict.WAITING) and (
            outcome.is_outage or outcome.in_doubt or is_put_off
        ):
            self.troubles.add(outcome.http_status)
        return failure

    def forget(self, written: Iterable[Outcome]) -> None:
        """They are stored. Not to be called before: an exception must lose none."""
        for outcome in written:
            del self.results[outcome.item.item_id]

    def settle_held(self, *, is_stopped: bool) -> list[Outcome]:
        """All that is to be written when a run ends, what was held back included.

        Args:
            is_stopped: It ended before other rows could tell more of these.
        """
        for outcome in (*self.doubtful.values(), *self.not_found.values()):
            if is_stopped or outcome.verdict is Verdict.NOT_FOUND:
                outcome.verdict, outcome.missing_at = Verdict.WAITING, None
                outcome.error_code = "no_answer" if outcome.in_doubt else ""
        self.results |= self.doubtful | self.not_found
        self.doubtful, self.not_found = {}, {}
        return list(self.results.values())
