"""How fast we may ask: the token bucket and retry budget shared by every caller in a process."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter

START_RATE = 20.0
"""Calls a second to begin with where no limit is known."""
TOP_RATE = 10_000.0
DOUBLING_SECONDS = 0.25
RECOVERY_PER_SECOND = 1.05
BACK_OFF_FACTOR = 0.7
SLOWEST_RATE = 0.2
REFUSED_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.75, 2.0
"""How long nobody asks after a 429. No longer, or one odd conversation would hold up the rest."""
TURNSTILE_SECONDS = 0.25
"""How often who waits in line looks whether the job is still on."""

MAX_PAUSE_SECONDS = 60.0
"""Nobody sleeps longer than this for a ``Retry-After``: the row gets its time instead."""
FIRST_BACK_OFF_SECONDS = 0.5
LONGEST_BACK_OFF_SECONDS = 8.0


class RetryBudget:
    """How many requests beyond the first ones an update may cost Bland.

    Every repeated request takes a token and every answer gives half of one back, so an
    occasional fault is retried for ever and an outage ends after ``size`` requests.
    """

    def __init__(self, size: int = 40, earned: float = 0.5) -> None:
        self._size, self._earned = float(size), earned
        self._tokens = float(size)
        self._lock = threading.Lock()

    def spend(self) -> bool:
        """Take a token; False where none is left."""
        with self._lock:
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True

    def earn(self) -> None:
        """Bland answered."""
        with self._lock:
            self._tokens = min(self._size, self._tokens + self._earned)


class Allowance:
    """How long, how often, and whether at all one job may go on asking Bland.

    Several jobs may share a deadline, a budget and the event that stops them; ``sent`` is this
    job's own.

    Args:
        deadline: By the monotonic clock: no answer is awaited after it. ``None``: no limit but
            that of each request.
        send_until: By the monotonic clock: nothing is sent after it. ``None``: as ``deadline``.
        budget: ``None``: each call has its own retries and no limit beyond them.
        attempts: Requests for one call, at the most; ``None``: as the settings say.
    """

    def __init__(
        self,
        *,
        deadline: float | None = None,
        send_until: float | None = None,
        budget: RetryBudget | None = None,
        stopped: threading.Event | None = None,
        attempts: int | None = None,
    ) -> None:
        self.deadline = deadline
        self.send_until = deadline if send_until is None else send_until
        self.budget = budget
        self.stopped = stopped or threading.Event()
        self.attempts = attempts
        self.sent: Counter[str] = Counter()
        """How many requests were sent, by HTTP method."""

    @classmethod
    def of_seconds(cls, seconds: float) -> Allowance:
        """An allowance that ends ``seconds`` from now."""
        return cls(deadline=time.monotonic() + seconds)

    def once(self) -> Allowance:
        """The same for calls that are not repeated."""
        return Allowance(
            deadline=self.deadline,
            send_until=self.send_until,
            budget=self.budget,
            stopped=self.stopped,
            attempts=1,
        )

    def seconds_left(self) -> float | None:
        """Seconds until the deadline, 0 when it has passed, ``None`` when there is none."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def may_pause(self, seconds: float) -> bool:
        """Whether there is time to send something after a pause."""
        if self.stopped.is_set():
            return False
        return self.send_until is None or time.monotonic() + seconds < self.send_until

    def pause(self, seconds: float) -> bool:
        """Sleep; False, at once or early, where nothing may be sent afterwards."""
        if not self.may_pause(seconds):
            return False
        return not (seconds > 0 and self.stopped.wait(seconds))

    def may_retry(self) -> bool:
        """Take one more request out of the budget."""
        return self.budget is None or self.budget.spend()

    def answered(self) -> None:
        """Bland answered, if only to refuse this one row."""
        if self.budget is not None:
            self.budget.earn()


class Pacer:
    """A token bucket of one: each caller gets its own slot, ``1 / rate`` after the last.

    With a known ``rate_limit`` the rate is fixed. Without one it starts gently, doubles each
    quarter second until Bland first says 429, and from then on falls to 0.7 of itself at a
    refusal and grows by 5 % a second.
    """

    def __init__(self, rate_limit: float | None = None) -> None:
        self._is_fixed = rate_limit is not None
        self._rate = START_RATE if rate_limit is None else rate_limit
        self._was_refused = False
        self._next_slot = 0.0
        self._changed_at: float | None = None
        self._lock = threading.Lock()
        # One caller at a time waits for the next slot. Were slots handed out ahead, a rate that
        # changes meanwhile would be obeyed only when all of those had passed.
        self._turnstile = threading.Lock()

    @property
    def rate(self) -> float:
        """Calls a second, now."""
        return self._rate

    def wait(self, allowance: Allowance) -> bool:
        """Wait for a slot and take it; False where the allowance ends before."""
        while not self._turnstile.acquire(timeout=TURNSTILE_SECONDS):
            if not allowance.may_pause(0):
                return False
        try:
            if not allowance.pause(self._seconds_to_slot()):
                return False
            with self._lock:
                self._next_slot = max(time.monotonic(), self._next_slot) + 1 / self._rate
            return True
        finally:
            self._turnstile.release()

    def refused(self, sent_at: float, retry_after_seconds: float | None = None) -> None:
        """Bland said 429 to a request that was sent at ``sent_at``, by the monotonic clock.

        All callers pause for a moment, so that a window that is full can empty, and the rate
        falls: once for each pause, since answers to what was sent before say nothing about the
        new rate.
        """
        pause = min(max(REFUSED_PAUSE_SECONDS, retry_after_seconds or 0), LONGEST_PAUSE_SECONDS)
        with self._lock:
            now = time.monotonic()
            self._next_slot = max(self._next_slot, now + pause)
            is_news = self._changed_at is None or sent_at >= self._changed_at
            if not self._is_fixed and (is_news or not self._was_refused):
                self._rate = max(SLOWEST_RATE, self._rate * BACK_OFF_FACTOR)
                self._was_refused = True
                self._changed_at = now

    def _seconds_to_slot(self) -> float:
        with self._lock:
            now = time.monotonic()
            self._grow(now)
            return max(0.0, self._next_slot - now)

    def _grow(self, now: float) -> None:
        if self._is_fixed:
            return
        if self._changed_at is None:  # time counts from the first call on
            self._changed_at = now
        pause = 1.0 if self._was_refused else DOUBLING_SECONDS
        if now - self._changed_at >= pause:
            # Once for each call, however long nobody called: an idle hour proves nothing.
            factor = RECOVERY_PER_SECOND if self._was_refused else 2.0
            self._rate = min(TOP_RATE, self._rate * factor)
            # In step, however late the call came that made it; but see above.
            is_late = now - self._changed_at >= 2 * pause
            self._changed_at = now if is_late else self._changed_at + pause


def back_off_seconds(attempt: int, retry_after_seconds: float | None) -> float | None:
    """How long to wait before asking again; ``None``: longer than anybody may sleep.

    Full jitter, or what Bland asked for and a little more, so that not all return at once.
    Source: https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/

    Args:
        attempt: How many requests were sent so far, from 1.
        retry_after_seconds: What Bland's ``Retry-After`` said.
    """
    if retry_after_seconds is None:
        ceiling = min(LONGEST_BACK_OFF_SECONDS, FIRST_BACK_OFF_SECONDS * 2 ** (attempt - 1))
        return random.uniform(0, ceiling)
    if retry_after_seconds > MAX_PAUSE_SECONDS:
        return None
    return retry_after_seconds + random.uniform(0, 0.1)
