"""When the next request may be sent: for all threads of a process."""

from __future__ import annotations

import math
import threading
import time
from collections import deque

from .account import TICK_SECONDS, Account
from .allowance import Allowance
from .rate import START_RATE, TOP_RATE, Rate
from .shares import ROOM_TO_GROW, Share, State, neediest, take
from .tokens import TokenBucket

REFUSED_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.75, 2.0
"""How long no request is sent after a 429. If longer, one odd conversation would delay all."""
TURNSTILE_SECONDS = 0.25
"""How often a waiting thread checks for cancellation, in seconds."""
WINDOW_MARGIN_SECONDS = 0.02
"""Requests of the last second and so much are counted: they need time to arrive."""
FEW_CALLS, SPELL_SECONDS = 3, 2.0
"""A process that asks more rarely than this takes no share: one click costs no statement."""
JOIN_SECONDS = 1.0
"""How long a process goes slowly until it has its first share; it may be that none comes. And how
long it looks often after one came or left: who comes first takes all, others come with it, and some
leave soon."""


class Pacer:
    """One request at a time, each ``1 / rate`` after the last.

    The rate is this process's share of the account's, which is ``rate_limit``, or follows Bland's
    answers where that is ``None``. Processes take their shares through ``account``; without it,
    and where the database is away, each has the whole rate to itself, or the share it had last.
    """

    def __init__(self, rate_limit: float | None = None, *, may_share: bool = False) -> None:
        self._limit = rate_limit
        self._rate = Rate()
        self._share = 1.0
        self._bucket = TokenBucket(1, self._rate.value if rate_limit is None else rate_limit)
        self._sent: deque[float] = deque(maxlen=int(TOP_RATE))
        """When, within the last second or so."""
        self._lock = threading.Lock()
        # One caller at a time waits for the next token. Were tokens promised ahead, a rate that
        # changes meanwhile would be obeyed only when all of those had been used.
        self._turnstile = threading.Lock()
        self.may_share = may_share
        """Whether this process takes its share through the database."""
        self._account = Account(self)
        self._arrived: deque[float] = deque(maxlen=FEW_CALLS)
        self._joining_until = -math.inf
        self._company_changed_at = -math.inf
        self._others: frozenset[str] = frozenset()
        """Who else had a share at the last look."""
        self._looked_at = -math.inf
        self._calls = self._late_calls = 0
        """Since ``wanted()`` was called: those that were let through, and who of them waited."""
        self._refusals = self._heard_of = 0
        """Those that the others have not heard of; how many the account had at the last look."""

    @property
    def rate(self) -> float:
        """Requests per second of this process, now."""
        rate = self._whole * self._share
        return min(rate, START_RATE) if time.monotonic() < self._joining_until else rate

    @property
    def _whole(self) -> float:
        """Requests per second of the account."""
        return self._rate.value if self._limit is None else self._limit

    def wait(self, allowance: Allowance) -> bool:
        """Wait for our turn and take it; False where the allowance ends before."""
        self._arrive()
        while not self._turnstile.acquire(timeout=TURNSTILE_SECONDS):
            if not allowance.may_pause(0):
                return False
        try:
            return self._take_turn(allowance)
        finally:
            self._turnstile.release()

    def _take_turn(self, allowance: Allowance) -> bool:
        seconds = self._seconds_to_turn()
        due = time.monotonic() + seconds
        if not allowance.pause(seconds):
            return False
        self._take(due if seconds > 0 else None)
        return True

    def _seconds_to_turn(self) -> float:
        with self._lock:
            now = time.monotonic()
            if self._limit is None:
                self._rate.grow(now)
            self._bucket.per_second = self.rate
            return max(self._bucket.seconds_to_token(), self._seconds_to_room(now))

    def _take(self, due: float | None) -> None:
        """Take our turn; ``due``: when it was there, for those who waited."""
        self._bucket.take_late(due)
        with self._lock:
            self._sent.append(time.monotonic())
            self._calls += 1
            self._late_calls += due is not None

    def _seconds_to_room(self, now: float) -> float:
        """How long until there is room within the last second, where the limit stands still.

        The limit counts what was sent in the last second, and that may have come in a burst.
        """
        begin = now - 1 - WINDOW_MARGIN_SECONDS
        while self._sent and self._sent[0] <= begin:
            self._sent.popleft()
        most = math.ceil(self.rate)
        if self._limit is not None or not self._rate.is_calm or len(self._sent) < most:
            return 0.0
        return max(0.0, self._sent[-most] - begin)

    # --- what Bland said ----------------------------------------------------------------------

    def answered(self, sent_at: float) -> None:
        """Bland answered a request that was sent at ``sent_at``, and did not say 429."""
        with self._lock:
            self._rate.answered(sent_at)

    def refused(self, sent_at: float, retry_after_seconds: float | None = None) -> None:
        """Bland said 429 to a request that was sent at ``sent_at``, by the monotonic clock.

        All callers pause for a moment, so that a window that is full can empty, and the rate
        falls: once for each pause, since answers to what was sent before say nothing about the
        new rate.
        """
        with self._lock:
            if self._sent:
                self._sent.pop()  # Bland does not count it
            is_news = self._rate.refused(sent_at, time.monotonic())
            pause = min(REFUSED_PAUSE_SECONDS, self._rate.pause())
            if is_news or self._limit is not None or retry_after_seconds:
                pause = min(max(pause, retry_after_seconds or 0), LONGEST_PAUSE_SECONDS)
                self._bucket.hold(pause)
            if is_news and self._limit is None:
                self._bucket.per_second = self.rate
                self._refusals += 1
                self._account.hurry()

    # --- this process and the others ----------------------------------------------------------

    def _arrive(self) -> None:
        """Take part in the account as soon as there is much to ask for."""
        if not self.may_share:
            return
        now = time.monotonic()
        self._arrived.append(now)
        is_busy = len(self._arrived) == FEW_CALLS and now - self._arrived[0] < SPELL_SECONDS
        if is_busy and self._account.join():
            self._joining_until, self._company_changed_at = now + JOIN_SECONDS, now

    def wanted(self) -> float:
        """Which part of the account's rate it could use, by what it asked for since the last time;
        1: all of it."""
        with self._lock:
            now = time.monotonic()
            seconds, self._looked_at = max(0.001, now - self._looked_at), now
            calls, late, self._calls, self._late_calls = self._calls, self._late_calls, 0, 0
            if self._turnstile.locked() or (calls and 2 * late >= calls):
                return 1.0
            return min(1.0, (1 + calls / seconds) * ROOM_TO_GROW / self._whole)

    def leave(self) -> None:
        """Give our share back now, where nothing more will be asked."""
        self._account.leave()

    def is_busy(self) -> bool:
        """Whether something was asked a moment ago, or waits to be."""
        is_idle = time.monotonic() - self._arrived[-1] > TICK_SECONDS
        return not is_idle or self._turnstile.locked()

    def propose(self, state: State, name: str, wanted: float, at: float) -> State:
        """The account with our share taken anew, and with what we know of its rate.

        Args:
            at: Seconds by the clock of the database.
        """
        with self._lock:
            known, refusals = self._rate.to_remember(), state.refusals
            if self._refusals:
                refusals += 1
            if state.known is not None and self._is_better(state):
                known = state.known
            answered = self._rate.own_answers(time.monotonic())
            taken = state.shares[name].taken if name in state.shares else 0.0
            ours = Share(taken, wanted, answered, at)
            is_pioneer = self._limit is None and not known.limit
            return State(known, refusals, take(state.shares, name, ours, is_pioneer=is_pioneer))

    def settle(self, before: State, after: State, name: str) -> None:
        """Go by what was proposed and stored."""
        with self._lock:
            if before.known is not None and self._is_better(before):
                is_news = before.refusals != self._heard_of
                self._rate.adopt(before.known, time.monotonic(), is_refusal=is_news)
            self._refusals, self._heard_of = 0, after.refusals
            self._share = after.shares[name].taken
            others = {key: one for key, one in after.shares.items() if key != name}
            if self._others != others.keys():
                self._others, self._company_changed_at = frozenset(others), time.monotonic()
            self._rate.has_others = bool(others)
            self._rate.others_answered = sum(one.answered for one in others.values())
            self._rate.may_grow = name == neediest(after.shares)
            self._joining_until = -math.inf
            self._bucket.per_second = self.rate

    def is_in_hurry(self, state: State, name: str) -> bool:
        """Whether the others have yet to hear of us, or we of them, or the limit is not found
        yet."""
        if time.monotonic() - self._company_changed_at < JOIN_SECONDS:
            return True
        count, ours = len(state.shares), state.shares[name]
        is_small = ours.taken < min(ours.wanted, 0.9 / count)
        return count > 1 and (is_small or (self._limit is None and not self._rate.known.limit))

    def _is_better(self, state: State) -> bool:
        """Whether the others know more of the rate than we do: refusals count, and else who has
        come further."""
        assert state.known is not None
        theirs, ours = state.known.rate, self._rate.value
        if state.refusals == self._heard_of:
            return not self._refusals and theirs > ours
        return not self._refusals or theirs < ours
