"""What came back from the threads and is not written yet; what it tells of all rows."""

from __future__ import annotations

from collections.abc import Iterable

from ..reasons import Failure
from .asking import Outcome, Verdict
from .outages import OUTAGE

FIRST_ANSWERS = 20
"""This many first answers that all say CONVERSATION_NOT_FOUND mean the wrong account's key."""


class Answers:
    """By item, and never in two of them but for a moment: an exception may come at any time."""

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
