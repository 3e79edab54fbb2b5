"""How long and how often one job may go on asking, and how long it waits in between."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable

from .tokens import RetryBudget

MAX_PAUSE_SECONDS = 60.0
"""No thread sleeps longer than this for a ``Retry-After``: the row is tried again later instead."""
FIRST_BACK_OFF_SECONDS = 0.5
LONGEST_BACK_OFF_SECONDS = 8.0


class Allowance:
    """How long, how often, and whether at all one job may go on asking Bland.

    Several jobs may share a deadline, a budget and the event that stops them; ``sent`` is this
    job's own.

    Args:
        deadline: By the monotonic clock: no answer is awaited after it. ``None``: no limit but
            that of each request.
        send_until: By the monotonic clock: nothing is sent after it. ``None``: as ``deadline``.
        budget: ``None``: each call has its own retries and no limit beyond them.
        attempts: Requests for one call, at most; ``None``: as the settings say.
        fence: Asked immediately before each request whether it may still be sent, such as
            ``Fence.is_open`` of a lease.
    """

    def __init__(
        self,
        *,
        deadline: float | None = None,
        send_until: float | None = None,
        budget: RetryBudget | None = None,
        stopped: threading.Event | None = None,
        attempts: int | None = None,
        fence: Callable[[], bool] | None = None,
    ) -> None:
        self.deadline = deadline
        self.send_until = deadline if send_until is None else send_until
        self.budget = budget
        self.stopped = stopped or threading.Event()
        self.attempts = attempts
        self.fence = fence
        self.sent: Counter[str] = Counter()
        """How many requests were sent, by HTTP method."""
        self.in_doubt = False
        """An update was sent that Bland may have carried out, for all that it answered."""

    @classmethod
    def of_seconds(cls, seconds: float) -> Allowance:
        """An allowance that ends ``seconds`` from now."""
        return cls(deadline=time.monotonic() + seconds)

    def once(self) -> Allowance:
        """The same for calls that are not repeated."""
        return self.share(self.fence, attempts=1)

    def share(
        self, fence: Callable[[], bool] | None = None, *, attempts: int | None = None
    ) -> Allowance:
        """The same limits for another job, which counts for itself."""
        return Allowance(
            deadline=self.deadline,
            send_until=self.send_until,
            budget=self.budget,
            stopped=self.stopped,
            attempts=attempts,
            fence=fence,
        )

    def seconds_left(self) -> float | None:
        """Seconds until the deadline, 0 when it has passed, ``None`` when there is none."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def seconds_to_send(self) -> float | None:
        """Seconds in which something may be sent: 0 when none may, ``None`` without a limit."""
        if self.stopped.is_set() or not self.may_finish():
            return 0.0
        return None if self.send_until is None else max(0.0, self.send_until - time.monotonic())

    def may_pause(self, seconds: float) -> bool:
        """Whether there is time to send something after a pause."""
        left = self.seconds_to_send()
        return left is None or seconds < left

    def may_send(self) -> bool:
        """Whether a request may be sent at this very moment."""
        return self.may_pause(0)

    def may_finish(self) -> bool:
        """Whether a request that has begun may be written to its end: while the lease is held."""
        return self.fence is None or self.fence()

    def pause(self, seconds: float) -> bool:
        """Sleep; False, at once or early, where nothing may be sent afterwards."""
        if not self.may_pause(seconds):
            return False
        return not (seconds > 0 and self.stopped.wait(seconds))

    def may_retry(self) -> bool:
        """Take one more request out of the budget."""
        return self.budget is None or self.budget.spend()

    def refused(self, path: str) -> bool:
        """Bland said 429; whether it refuses other requests of this job as well."""
        return self.budget is not None and self.budget.refused(path)

    def may_be_refused(self) -> bool:
        """Whether it may go on being refused."""
        return self.budget is None or self.budget.may_be_refused()

    def answered(self) -> None:
        """Bland answered, if only to refuse this one row."""
        if self.budget is not None:
            self.budget.earn()


def back_off_seconds(attempt: int, retry_after_seconds: float | None) -> float | None:
    """How long to wait before asking again; ``None``: longer than a thread may sleep.

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
