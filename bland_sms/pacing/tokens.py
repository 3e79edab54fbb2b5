"""Tokens that are spent and come back: of a rate, and of how many requests a job may cost."""

from __future__ import annotations

import math
import threading
import time

REFUSALS, EARNED_REFUSALS = 80, 2.0
"""This many answers 429 with none other between are an outage; each other one allows two more."""
PATIENT_SECONDS = 20.0
"""The same when nothing else came for this many seconds."""
STORM_SECONDS = 10.0
"""Different requests refused within this time: the whole account is asking too often."""

LATE_SECONDS = 0.05
"""So much of a sleep that took too long is made up for."""


class TokenBucket:
    """Tokens that are taken one at a time, and come back with time or are given back.

    Args:
        size: How many there are at first, and at most.
        per_second: How many come back each second.
    """

    def __init__(self, size: float, per_second: float = 0.0) -> None:
        self._size, self._per_second = float(size), per_second
        self._lock = threading.Lock()
        self.fill()

    @property
    def per_second(self) -> float:
        return self._per_second

    @per_second.setter
    def per_second(self, value: float) -> None:
        with self._lock:
            self._count()
            self._per_second = value

    @property
    def tokens(self) -> float:
        """How many there are now."""
        with self._lock:
            self._count()
            return self._tokens

    def fill(self) -> None:
        """Make it full."""
        with self._lock:
            self._tokens, self._counted_at = self._size, time.monotonic()

    def take(self) -> bool:
        """Take a token; False where there is none."""
        with self._lock:
            self._count()
            if self._tokens < 1 or self._counted_at > time.monotonic():
                return False
            self._tokens -= 1
            return True

    def take_late(self, due: float | None = None) -> None:
        """Take the token that was waited for for ``seconds_to_token()``.

        Args:
            due: When it was there, by the monotonic clock: who slept too long for it does not
                delay those after him.
        """
        with self._lock:
            self._count()
            late = 0.0 if due is None else min(LATE_SECONDS, time.monotonic() - due)
            self._tokens = min(self._size, self._tokens - 1 + max(0.0, late) * self._per_second)

    def give(self, tokens: float) -> None:
        """Put some back."""
        with self._lock:
            self._count()
            self._tokens = min(self._size, self._tokens + tokens)

    def hold(self, seconds: float) -> None:
        """Give nothing for ``seconds``, and then one token."""
        with self._lock:
            self._count()
            self._counted_at = max(self._counted_at, time.monotonic() + seconds)
            self._tokens = 1.0

    def seconds_to_token(self) -> float:
        """How long until there is a token; infinite where none comes back with time."""
        with self._lock:
            self._count()
            held = max(0.0, self._counted_at - time.monotonic())
            if self._tokens >= 1:
                return held
            missing = 1 - self._tokens
            return held + missing / self._per_second if self._per_second > 0 else math.inf

    def _count(self) -> None:
        now = time.monotonic()
        if now > self._counted_at:
            earned = (now - self._counted_at) * self._per_second
            self._tokens, self._counted_at = min(self._size, self._tokens + earned), now


class RetryBudget:
    """How many requests beyond the first ones an update may cost Bland.

    Every repeated request takes a token and every answer gives half of one back, so an
    occasional fault is retried for ever and an outage ends after ``size`` requests.
    """

    def __init__(self, size: int = 40, earned: float = 0.5, *, tokens: float | None = None) -> None:
        """Args:
        tokens: What an earlier run left of it; ``None``: all of it.
        """
        self._bucket, self._earned = TokenBucket(size), earned
        self._refusals = TokenBucket(REFUSALS)
        if tokens is not None:
            self._bucket.give(tokens - size)
            self._refusals.give((tokens / size - 1) * REFUSALS)
        self._share = size / REFUSALS
        self._refused_since: float | None = None
        self._last_refused = self._refused_before = ("", -math.inf)
        self.answers = 0
        """How often Bland answered since."""

    @property
    def tokens(self) -> float:
        """What is left of it: of retries or of refusals, whichever is less."""
        return min(self._bucket.tokens, self._refusals.tokens * self._share)

    def spend(self) -> bool:
        """Take a token; False where none is left."""
        return self._bucket.take()

    def earn(self) -> None:
        """Bland answered."""
        self.answers += 1
        self._bucket.give(self._earned)
        self._refusals.give(EARNED_REFUSALS)
        self._refused_since = None

    def refused(self, path: str) -> bool:
        """Bland said 429 to a request for ``path``; whether it refuses others as well.

        Then it is the account that asks too often, and no fault of this one. A refusal is an
        answer and costs no retry, but when only refusals come those run out as well.
        """
        self._refusals.take()
        now = time.monotonic()
        if self._refused_since is None:
            self._refused_since = now
        elif now - self._refused_since > PATIENT_SECONDS:
            self._refusals.give(-self._refusals.tokens)
        if path != self._last_refused[0]:
            self._refused_before = self._last_refused
        self._last_refused = (path, now)
        return now - self._refused_before[1] < STORM_SECONDS

    def may_be_refused(self) -> bool:
        """Whether refusals alone may go on."""
        return self._refusals.tokens >= 1
