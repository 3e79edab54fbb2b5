"""How often the whole account may ask, as far as Bland's answers tell."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

START_RATE = 20.0
"""Requests per second at the beginning, where no limit is known."""
TOP_RATE, SLOWEST_RATE = 10_000.0, 0.2
DOUBLING_SECONDS = 0.25
BACK_OFF_FACTOR = 0.7
"""After a refusal where nothing was answered within a second."""
SEEN_SHARE, HEARD_SHARE = 0.97, 1.05
"""After a refusal: of what Bland answered within a second; and at most, where more went well
before, since some of the last answers are still on their way."""
SAME_LIMIT, FEW = 0.15, 2
"""What was answered within a second before two refusals differs by more: the limit has moved."""
UNSTEADY_SECONDS = 10.0
"""A limit that moved within this time is expected to move again."""
FAR_BELOW, BEST_FADES = 4.0, 0.98
"""Where so much more was answered once, the limit is expected to rise again; which is forgotten
refusal by refusal."""
LIVELY_RATE, PROBING_RATE, PROBES_FADE = 2.0, 20.0, 0.95
"""Where Bland answers at all it is asked so often at least, or a limit that rises again would go
unnoticed; at first more often where it is expected to rise."""
FIRST_PROBE_SECONDS, CALM, CALMEST = 0.15, 2, 5
"""After a refusal the rate grows again after this time, doubled for each earlier refusal at the
same limit. From ``CALM`` of them on it grows gently."""
GENTLY, GENTLE_SECONDS = 1.03, 1.0
QUICKENING, QUICK_SECONDS = 1.12, 0.25
OTHERS_SECONDS = 2.0
"""Each step takes so long at least where other processes ask as well."""
EAGERLY, EAGER_QUICKENING, EAGER_SECONDS = 2.0, 1.5, 0.06
"""The same where the limit is expected to move."""
PAUSES = (0.05, 0.1, 0.15)
"""Seconds without a request after a refusal; the later ones where hardly an answer came between."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the account's rate: what processes tell each other, and what is kept."""

    rate: float
    limit: float = 0.0
    """What Bland answered within a second at the last refusal; 0: it never refused."""
    good: float = 0.0
    """The highest rate that went well for a second, at this limit."""
    best: float = 0.0
    calm: int = 0
    """Refusals at the same limit."""


class Rate:
    """Requests per second of all processes together. Times are those of the monotonic clock.

    It starts gently and doubles each quarter second until Bland first says 429. Then it falls to
    nearly what Bland answered within the last second. At a limit that stands still it then grows
    by 3 %, seldom and more seldom; at one that moves it grows at once, faster and faster.
    """

    def __init__(self) -> None:
        self.known = Known(START_RATE)
        self.refused_at: float | None = None
        self.refusals_in_a_row = 0
        """With hardly an answer between."""
        self._probes = 0
        """Refusals since the limit fell far."""
        self._changed_at: float | None = None
        self._called_at = 0.0
        self._moved_at: float | None = None
        self._growths = self._answers = 0
        """Since the last refusal."""
        self._answered: deque[float] = deque(maxlen=int(TOP_RATE))
        """When the requests were sent that were answered within the last second or so."""
        self._refused: deque[float] = deque(maxlen=int(TOP_RATE))
        self.has_others = False
        """Whether other processes ask as well: what they do is known late."""
        self.others_answered = 0
        """What other processes had answered within a second when we last heard of them."""
        self.may_grow = True
        """Of several processes one alone tries whether the limit has risen."""
        self._busiest = 0
        """The most that was answered within a second."""

    @property
    def value(self) -> float:
        """Requests per second, now."""
        return self.known.rate

    @property
    def is_calm(self) -> bool:
        """Whether the limit is known and stands still."""
        return self.known.calm >= CALM

    def to_remember(self) -> Known:
        """What the next process may start from. Where Bland never refused, that is no proof."""
        if self.known.limit:
            return self.known
        rate = max(START_RATE, min(self.known.rate, 2 * self._busiest))
        return Known(rate)

    def adopt(self, known: Known, now: float, *, is_refusal: bool) -> None:
        """Take over what another process knows; ``is_refusal``: Bland refused it since."""
        self.known = known
        if is_refusal:
            self.refused_at = self._changed_at = now
            self._growths = self._answers = 0

    def grow(self, now: float) -> None:
        """A request is about to be sent."""
        if self._changed_at is None:  # time counts from the first call on
            self._changed_at = self._called_at = now
        # Only while requests are sent: an idle hour proves nothing about the limit.
        idle = now - self._called_at - max(DOUBLING_SECONDS, 2 / self.value)
        self._changed_at += max(0.0, idle)
        self._called_at = now
        seconds, factor = self._growth()
        if self.has_others:
            seconds = max(seconds, OTHERS_SECONDS if self.known.limit else 2 * seconds)
            if not self.may_grow:
                return
        if now - self._changed_at < seconds:
            return
        rate, good, calm = self.value, self.known.good, self.known.calm
        if seconds >= GENTLE_SECONDS / 2:
            good = rate
        if self.known.limit and self._growths > 3 and rate > 2 * self.known.limit:
            calm = 0
        if not self.known.limit:
            self._busiest = max(self._busiest, self.own_answers(now) + self.others_answered)
        self._growths += 1
        self._changed_at = now
        rate = min(TOP_RATE, rate * factor)
        self.known = Known(rate, self.known.limit, good, self.known.best, calm)

    def _growth(self) -> tuple[float, float]:
        """After how many seconds the rate grows next, and to how much of itself."""
        if not self.known.limit:
            return DOUBLING_SECONDS, 2.0
        if self._answers < FEW:
            return float("inf"), 1.0
        if not self._growths:
            seconds = FIRST_PROBE_SECONDS * 2**self.known.calm
            return seconds, GENTLY if self.is_calm else EAGERLY
        few = FEW / self.value
        if 2 * self.value < self.known.best:
            is_far = FAR_BELOW * self.value < self.known.best
            return max(few, EAGER_SECONDS), FAR_BELOW if is_far else 2.0
        if not self.is_calm:
            return max(few, EAGER_SECONDS), min(2.0, EAGER_QUICKENING**self._growths)
        if self._growths < 2:
            return GENTLE_SECONDS, GENTLY
        return max(few, QUICK_SECONDS), min(2.0, QUICKENING ** (self._growths - 1))

    def answered(self, sent_at: float) -> None:
        """Bland answered, and did not say 429."""
        self._answers += 1
        self._answered.append(sent_at)
        while self._answered and self._answered[0] <= sent_at - 2:
            self._answered.popleft()

    def own_answers(self, until: float) -> int:
        """How many requests of this process that were sent within a second were answered."""
        return sum(until - 1 < moment <= until for moment in self._answered)

    def refused(self, sent_at: float, now: float) -> bool:
        """Bland said 429; False where that is no news: it was sent before the last refusal."""
        self._refused.append(sent_at)
        while self._refused and self._refused[0] <= sent_at - 2:
            self._refused.popleft()
        if self.refused_at is not None and sent_at < self.refused_at:
            return False
        has_grown, few_answers = self._growths > 0, self._answers <= FEW
        self.refusals_in_a_row = self.refusals_in_a_row + 1 if few_answers else 0
        self._changed_at = self.refused_at = now
        self._growths = self._answers = 0
        if self.has_others and self.known.limit:
            self.known = self._fallen_with_others(sent_at, has_grown=has_grown)
        else:
            self.known = self._fallen(sent_at, now, has_grown=has_grown)
        return True

    def _fallen(self, sent_at: float, now: float, *, has_grown: bool) -> Known:
        """By what was answered within the last second, which is the limit."""
        known, seen = self.known, self.own_answers(sent_at) + self.others_answered
        best = max(seen, known.best * BEST_FADES)
        most_calm = CALMEST if seen > 5 * FEW else CALM
        tolerance = max(FEW, SAME_LIMIT * known.limit)
        if known.limit and abs(seen - known.limit) <= tolerance:
            limit = (known.limit + seen) / 2
            good = known.good if has_grown else known.good * BEST_FADES
            rate = max(limit * SEEN_SHARE, min(good, limit * HEARD_SHARE))
            if not has_grown:
                rate = min(rate, known.rate * BEST_FADES)
            calm = min(known.calm + has_grown, most_calm)
        else:
            limit, good, rate = seen, 0.0, seen * SEEN_SHARE
            calm = CALM if seen > 5 * FEW and not known.limit else 0
            if known.limit:
                self._moved_at = now
        is_unsteady = self._moved_at is not None and now - self._moved_at < UNSTEADY_SECONDS
        if is_unsteady or FAR_BELOW * seen < best:
            calm = 0
        if not seen:
            rate = max(rate, known.rate * BACK_OFF_FACTOR)
        rate = min(known.rate, max(rate, self._least(seen, best)))
        return Known(rate, max(1.0, limit), good, best, calm)

    def _fallen_with_others(self, sent_at: float, *, has_grown: bool) -> Known:
        """By how many of our own requests were refused within the last second."""
        known, answered = self.known, self.own_answers(sent_at)
        refused = sum(sent_at - 1 < moment <= sent_at for moment in self._refused)
        rate = known.rate * min(BEST_FADES, answered / max(1, answered + refused))
        rate = max(rate, known.rate / 2)
        if has_grown and known.good:
            rate = min(known.good, max(rate, known.good * SEEN_SHARE))
        rate = max(SLOWEST_RATE, rate)
        calm = min(max(known.calm, CALM) + has_grown, CALMEST)
        return Known(rate, max(1.0, rate), rate, max(rate, known.best * BEST_FADES), calm)

    def _least(self, seen: float, best: float) -> float:
        if not best:
            return SLOWEST_RATE
        if seen > 1 and FAR_BELOW * seen >= best:
            self._probes = 0
            return LIVELY_RATE
        self._probes += 1
        return max(LIVELY_RATE, PROBING_RATE * PROBES_FADE**self._probes)

    def pause(self) -> float:
        """How long no request is sent after the refusal."""
        return PAUSES[min(self.refusals_in_a_row, len(PAUSES) - 1)]
