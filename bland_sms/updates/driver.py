"""Carries an update out: one process drives it by a lease, threads ask, this thread writes.

Items are claimed about ``CLAIM_SECONDS`` ahead, and answers are written once in ``FLUSH_SECONDS``,
so that few statements serve many rows. What a killed process had claimed and not written is looked
at by the next one: at first no more than twice the number of threads, then what is asked within
those two times, and never more than ``MOST_CLAIMED`` + ``FLUSH_ROWS`` items. Nothing of it is sent
once the fence of the lease is closed.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from django.db import DatabaseError
from django.db.models import Q

from ..client import BlandClient, get_client, taking_part
from ..database import (
    DATABASE_PATIENCE_SECONDS,
    discard_connection,
    masked_by,
    patiently,
    refuse_in_transaction,
    write_bisecting,
    write_transaction,
)
from ..exceptions import BlandConfigurationError
from ..leases import LostLeaseError
from ..mirror import mark_missing
from ..models import BulkUpdate, BulkUpdateItem
from ..pacing import Allowance, RetryBudget
from ..reasons import Failure
from ..threads import Crew
from .asking import ClaimedItem, Outcome, Verdict, ask, confirm_missing, fault_of_ours
from .claiming import claim, standing_of, unclaim, unwanted, waits_for_another
from .ending import release
from .in_flight import Answers, Job, Window
from .ledger import can_go_on
from .ordered import refusal_of
from .recording import LiveCounts, leave_unstored, record
from .transitions import put_back, release_dead_claims

logger = logging.getLogger("bland_sms.updates")

State = BulkUpdateItem.State
Status = BulkUpdate.Status

FLUSH_SECONDS, FLUSH_ROWS = 2.0, 400
"""Outcomes wait no longer than this to be written, and no more of them."""
LOOK_SECONDS = 0.4
"""How often it looks whether it was cancelled, or overtaken by a newer update."""
LAST_SEND_SHARE, LAST_SEND_SECONDS = 0.2, 2.0
"""A run with a time limit sends nothing in its last fifth, two seconds at most: an answer
that comes too late would leave its item in doubt."""
WIND_UP_SECONDS = 10.0
"""How long a run that an exception ends waits for what is in flight, and then for the database."""
WIND_UP_ATTEMPTS = 3
"""How often the cleanup is begun again when it is interrupted itself."""


def run(
    bulk_update: BulkUpdate,
    seconds: float | None = None,
    *,
    stopped: threading.Event | None = None,
) -> bool:
    """Carry out a started update: the only function that asks Bland to change anything.

    Safe to call at any time, by any number of processes, after any crash: a call for an update
    that another process carries out returns at once. Whatever exception ends it, such as a task
    engine's time limit: nothing new is sent, what Bland answered is written, the rest waits, the
    lease is free, and the exception goes on.

    Args:
        seconds: For a web request; what is left over stays queued. ``None``: to the end.
        stopped: Once set nothing new is asked; what is in flight is awaited and written.

    Returns:
        True when nothing of the update is open any more.

    Raises:
        RuntimeError: called inside a database transaction.
    """
    refuse_in_transaction()
    handled = sys.exc_info()[1]
    try:
        return _run(bulk_update, seconds, stopped)
    except BaseException as error:
        # It may have come in the middle of a statement, and then no other can follow it.
        discard_connection()
        # Django's, or the driver's own, which Django lets through when a cursor is closed.
        is_complaint = any(kind.__name__ == "ProgrammingError" for kind in type(error).__mro__)
        masked = masked_by(error, handled) if is_complaint else None
        if masked is not None:
            raise masked from None
        raise


@taking_part()
def _run(bulk_update: BulkUpdate, seconds: float | None, stopped: threading.Event | None) -> bool:
    patience = DATABASE_PATIENCE_SECONDS if seconds is None else seconds
    patient = partial(patiently, seconds=min(patience, DATABASE_PATIENCE_SECONDS))
    patient(release_dead_claims)
    known = BulkUpdate.objects.prefetch_related("requested_by").filter(pk=bulk_update.pk)
    update = patient(known.get)
    is_over = _Drive(update, seconds, stopped).go()
    return is_over or not patient(update.items.filter(state__in=State.OPEN).exists)


class _Drive:
    """One run of one update."""

    def __init__(
        self, bulk_update: BulkUpdate, seconds: float | None, stopped: threading.Event | None
    ) -> None:
        self.update = bulk_update
        self.stopped = stopped or threading.Event()
        deadline = send_until = None
        if seconds is not None:
            deadline = time.monotonic() + seconds
            send_until = deadline - min(seconds * LAST_SEND_SHARE, LAST_SEND_SECONDS)
        self.budget = RetryBudget(tokens=bulk_update.retry_tokens)
        self.allowance = Allowance(
            deadline=deadline,
            send_until=send_until,
            budget=self.budget,
            fence=bulk_update.fence.is_open,
        )
        """What all requests of this run share; each has its own that counts for itself."""
        self.crew: Crew | None = None
        self.jobs: dict[int, Job] = {}
        """Claimed, and with the threads; by item."""
        self.answers = Answers()
        self.window = Window(1)
        self.stop = Failure()
        """Why it stops, if it does."""
        self.is_drained = False
        """Nothing more could be claimed while others are in flight."""
        self.slowest_seconds = 0.0
        """The longest that an answer took."""
        self.flushed_at = self.renewed_at = self.looked_at = time.monotonic()
        self.counts = LiveCounts(bulk_update)

    def go(self) -> bool:
        """Carry out what can be; True: this run has closed the update."""
        try:
            if not patiently(self._take_over):
                return False
            self._carry_out()
            return self._close()
        except LostLeaseError:
            logger.warning("update %s: another process has taken over", self.update.pk)
            return False
        except BaseException:
            self._wind_up()
            raise
        finally:
            # Cancel the requests that have not been sent.
            self.allowance.stopped.set()
            if self.crew is not None:
                self.crew.dismiss()

    def _take_over(self) -> bool:
        """Take the lease; False where another process has it or the update cannot go on."""
        is_ours = self.update.fence.is_open()  # the database went away in the middle of this
        if not is_ours and not self.update.take_lease(can_go_on(), status=Status.RUNNING):
            return False
        # Items that are still marked as running belong to a process that crashed.
        put_back(self.update.items.filter(state=State.RUNNING))
        self.counts.begin()
        self.answers.is_right_account = self.update.items.filter(http_status=200).exists()
        return True

    def _carry_out(self) -> None:
        refusal = patiently(partial(refusal_of, self.update))
        if refusal:
            self._stop(refusal)
            return
        try:
            client = get_client()
        except BlandConfigurationError as error:
            self._stop(error.failure)
            return
        # Whether a standing order is still in force is looked at when its items are claimed.
        is_standing = self.update.source == BulkUpdate.Source.STANDING
        self.window = Window(client.settings.max_concurrency, is_narrow=is_standing)
        self.crew = Crew(client.settings.max_concurrency)
        while self._turn(client, self.crew):
            pass

    # --- asking -------------------------------------------------------------------------------

    def _turn(self, client: BlandClient, crew: Crew) -> bool:
        """Claim, write, collect; False when there is nothing left to do."""
        if self.stopped.is_set():
            self.allowance.stopped.set()
        due_later = self._claim(client, crew)
        if not self.jobs:
            if self.answers.not_found and not self.stop:
                self._look_for_missing(client, crew)
                return True
            if self._flush():
                return True
            return due_later and self.allowance.pause(LOOK_SECONDS)
        self._write_or_look()
        crew.wait(LOOK_SECONDS, self._enough())
        self._collect_all()
        if self.answers.is_right_account and self.answers.not_found:
            self._look_for_missing(client, crew)
        return True

    def _claim(self, client: BlandClient, crew: Crew) -> bool:
        """Hand more items to the threads; whether the rest waits for another update's answers."""
        room = self._room()
        if not room:
            return False
        claimed = patiently(partial(claim, self.update, room))
        for item in claimed:
            self._submit(crew, item, partial(ask, client, item))
        self.is_drained = len(claimed) < room
        return not self.jobs and patiently(partial(waits_for_another, self.update))

    def _room(self) -> int:
        """How many items to claim now: none where there is no time for as long an answer as came
        before. After an outage one row tries whether it is over."""
        left, until_the_end = self.allowance.seconds_to_send(), self.allowance.seconds_left()
        is_late = until_the_end is not None and until_the_end <= self.slowest_seconds
        if self.stop or is_late or left == 0:
            return 0
        if not self.budget.answers and (self.update.outage_since or self.budget.tokens < 1):
            return 0 if self.jobs else 1
        if self.jobs and (self.is_drained or len(self.jobs) > self.window.few(left)):
            return 0
        return self.window.most(left) - len(self.jobs)

    def _enough(self) -> int:
        """How many answers are worth waking up for."""
        if not self.answers.is_right_account:
            return 1
        few = 0 if self.is_drained else self.window.few(self.allowance.seconds_to_send())
        return max(1, min(len(self.jobs) - few, FLUSH_ROWS - len(self.answers.results)))

    def _submit(
        self, crew: Crew, item: ClaimedItem, question: Callable[[Allowance], Outcome]
    ) -> None:
        fence = self.update.fence
        allowance = self.allowance.share(lambda: job.is_wanted and fence.is_open())
        job = self.jobs[item.item_id] = Job(item, partial(question, allowance))
        crew.submit(job)

    def _collect_all(self) -> None:
        for item_id, job in list(self.jobs.items()):
            if job.is_over:
                self._collect(job.outcome or fault_of_ours(job.item))
                del self.jobs[item_id]
                self.slowest_seconds = max(self.slowest_seconds, job.seconds)
                if self.answers.is_right_account:  # else no more are claimed than at first
                    self.window.note(job.seconds)

    def _collect(self, outcome: Outcome) -> None:
        if failure := self.answers.sort(outcome):
            self._stop(failure)

    def _look_for_missing(self, client: BlandClient, crew: Crew) -> None:
        for item_id, outcome in list(self.answers.not_found.items()):
            self._submit(crew, outcome.item, partial(confirm_missing, client, outcome))
            del self.answers.not_found[item_id]

    def _stop(self, failure: Failure) -> None:
        if not self.stop:
            self.stop = failure
            self.allowance.stopped.set()
            logger.warning("update %s stopped: %s", self.update.pk, failure.code)

    # --- writing ------------------------------------------------------------------------------

    def _write_or_look(self) -> None:
        now, length = time.monotonic(), BulkUpdate.LEASE.total_seconds()
        number = len(self.answers.results)
        if number >= FLUSH_ROWS or (number and now - self.flushed_at >= FLUSH_SECONDS):
            self._flush()
        elif now - self.renewed_at > length / 4:
            patiently(self._renew_lease)
        elif now - self.looked_at >= max(LOOK_SECONDS, self.window.usual_seconds):
            self._look()

    def _look(self) -> None:
        """Between two writes: was it cancelled, and is something of it not wanted any more?"""
        self.looked_at = time.monotonic()
        found = patiently(partial(standing_of, self.update))
        if found is None:
            self.update.renew_lease()  # says that it is lost
            return
        status, may_be_unwanted = found
        if status != Status.RUNNING:
            self.allowance.stopped.set()
        for item_id in patiently(partial(unwanted, self.update)) if may_be_unwanted else ():
            job = self.jobs.get(item_id)
            # It is cancelled when it was put back; what a thread is at is awaited.
            if job is not None and job.call_back():
                code = "no_answer" if job.item.look_first else ""
                self.answers.results[item_id] = Outcome(job.item, error_code=code)
                del self.jobs[item_id]

    def _flush(self) -> bool:
        """Write what is settled; whether some of it can be asked again now."""
        self.flushed_at = time.monotonic()
        outcomes = list(self.answers.results.values())
        if not outcomes:
            return False
        patiently(partial(write_bisecting, outcomes, self._write, self._write_poison))
        self.answers.forget(outcomes)
        can_go_on = any(
            outcome.verdict is Verdict.ADOPTED
            or (outcome.verdict is Verdict.WAITING and outcome.retry_after_seconds is None)
            for outcome in outcomes
        )
        self.is_drained &= not can_go_on
        return can_go_on

    def _renew_lease(self) -> None:
        """Raises LostLeaseError: another process has taken over."""
        # With it goes what is left of the budget, so that a process that dies does not refill it.
        if not self.update.renew_lease(Q(status=Status.RUNNING), retry_tokens=self.budget.tokens):
            self.allowance.stopped.set()  # cancelled: what is in flight is still ours to write
        self.renewed_at = self.looked_at = time.monotonic()

    def _write(self, outcomes: Sequence[Outcome]) -> None:
        with write_transaction(BulkUpdate):
            self._renew_lease()  # first: it locks the row against all other processes
            record(self.update, outcomes)
            self.counts.keep()
        for outcome in outcomes:
            if outcome.missing_at is not None:
                mark_missing(outcome.item.conversation_id, outcome.missing_at)

    def _write_poison(self, outcome: Outcome, error: DatabaseError) -> None:
        leave_unstored(outcome, error)
        self._write([outcome])

    def _close(self) -> bool:
        """Settle what was held back, and say how the update stands; whether it is closed."""
        self.answers.settle_held(is_stopped=bool(self.stop))
        self._flush()
        return patiently(self._release)

    def _release(self) -> bool:
        return release(self.update, self.stop, self.budget, self.answers.troubles)

    # --- an exception ends it -----------------------------------------------------------------

    def _wind_up(self) -> None:
        """Leave everything in order, whatever ended the run and wherever it was.

        The exception may have come between any two instructions, and another one may follow.
        """
        for attempt in range(1, WIND_UP_ATTEMPTS + 1):
            try:
                self.allowance.stopped.set()
                discard_connection()
                self._finish_in_order()
                return
            except LostLeaseError:
                return
            except BaseException:
                logger.warning("update %s: interrupted while it ended", self.update.pk)
                if attempt == WIND_UP_ATTEMPTS:
                    # The lease ends by itself, and then the next run takes over.
                    logger.exception("update %s: left as it is", self.update.pk)

    def _finish_in_order(self) -> None:
        give_up_at = time.monotonic() + WIND_UP_SECONDS
        short = partial(patiently, seconds=WIND_UP_SECONDS)
        short(self._renew_lease)
        begun = {item_id: job for item_id, job in self.jobs.items() if not job.drop()}
        while time.monotonic() < give_up_at and not all(job.is_over for job in begun.values()):
            assert self.crew is not None
            self.crew.wait(LOOK_SECONDS)
        self._collect_all()
        in_doubt = set(begun) & set(self.jobs)
        self.jobs = {}
        outcomes = self.answers.settle_held(is_stopped=True)
        short(partial(write_bisecting, outcomes, self._write, self._write_poison))
        short(partial(unclaim, self.update, in_doubt))
        short(self._release)
