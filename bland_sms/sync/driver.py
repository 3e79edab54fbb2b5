"""Carries a sync out: reads, writes, remembers how far it came, and says how it ended."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.db import Error

from ..client import get_client, taking_part
from ..database import is_passing, patiently, refuse_in_transaction
from ..exceptions import BlandError
from ..leases import LostLeaseError
from ..models import SyncRun
from ..pacing import Allowance, RetryBudget
from ..reasons import Failure
from ..signals import announce, sync_finished
from ..summary import DAYS_AT_ONCE, LONGEST_DAYS, close_days
from ..threads import Pool
from . import missing, owed, runs
from .plan import Plan, cursor_of, mode_of, plan
from .reading import NOT_FINISHED, SIDE_BY_SIDE, Reader, span_words
from .refreshing import Refreshed
from .writing import Writer

logger = logging.getLogger("bland_sms.sync")

Mode = SyncRun.Mode
Status = SyncRun.Status

TURN_SECONDS = 1.0
MOST_SPANS = 5
"""Parts of the list named in a run that Bland did not answer for."""


@taking_part()
def run(
    *,
    full: bool = False,
    since: datetime | None = None,
    messages: bool = False,
    dry_run: bool = False,
    trigger: str = "command",
    requested_by: Any = None,
    wait_seconds: float = 0,
    seconds: float | None = None,
    stopped: threading.Event | None = None,
    on_page: Callable[[SyncRun], None] = lambda run: None,
) -> SyncRun:
    """Bring the mirror up to date: what changed since the last completed run, or everything.

    Goes on where the last attempt was interrupted. Only one sync runs at a time; an attempt
    beside it is recorded as skipped, or waits first (``wait_seconds``).

    Args:
        full: The whole list, and a look at every conversation that is not in it any more. So is
            the first run.
        since: By Bland's clock: what changed since then, instead of since the last run.
        messages: Copy the transcripts too of what is new, changed, or was never copied.
        dry_run: Write nothing; the counts say what would be.
        trigger: What starts it: ``command``, ``admin``, ``api`` or ``task``.
        requested_by: The user who asked for it, if one did.
        wait_seconds: How long a full run waits for a running incremental one instead of being
            skipped.
        seconds: For all of it; the next run goes on from there. ``None``: to the end.
        stopped: Once set nothing new is fetched; what came is written.
        on_page: Called after each write with the counts so far.

    Returns:
        The run, with its ``status``, its counts, and what went wrong as ``error``. It is not
        saved if ``dry_run``.

    Raises:
        RuntimeError: called inside a database transaction.
    """
    refuse_in_transaction()
    watermark = runs.last_watermark()
    sync_run = SyncRun(
        mode=mode_of(full=full, since=since, watermark=watermark),
        trigger=trigger,
        requested_by=requested_by,
    )
    wait_seconds = wait_seconds if full else 0
    if not dry_run and not runs.begin(sync_run, wait_seconds=wait_seconds, stopped=stopped):
        return sync_run
    interrupted = None if since or dry_run else runs.interrupted(sync_run)
    if interrupted is not None:
        sync_run.walk_began_at = interrupted.walk_began_at
    planned = plan(mode=sync_run.mode, since=since, watermark=watermark, interrupted=interrupted)
    allowance = Allowance() if seconds is None else Allowance.of_seconds(seconds)
    allowance.budget = RetryBudget()
    sync = _Sync(
        sync_run,
        planned,
        allowance,
        stopped or threading.Event(),
        messages=messages,
        dry_run=dry_run,
        on_page=on_page,
    )
    try:
        sync.go()
    except LostLeaseError:
        logger.warning("sync %s: another process has taken over", sync_run.pk)
        sync_run.refresh_from_db()
        return sync_run
    except BaseException as error:
        sync.give_up(Failure("crashed", {"error": type(error).__name__}))
        raise
    finally:
        if not dry_run:
            runs.end(sync_run)
            announce(sync_finished, SyncRun, lambda: [{"sync_run": sync_run}])
    if not dry_run:
        _close_days(LONGEST_DAYS if seconds is None else DAYS_AT_ONCE)
    return sync_run


def _close_days(limit: int) -> None:
    """Count the days that are over, which is part of bringing the numbers up to date."""
    try:
        close_days(limit)
    except Error as error:
        if not is_passing(error):
            raise
        logger.warning("days will be counted by the next sync: %s", type(error).__name__)


class _Sync:
    """One run."""

    def __init__(
        self,
        sync_run: SyncRun,
        planned: Plan,
        allowance: Allowance,
        stopped: threading.Event,
        *,
        messages: bool,
        dry_run: bool,
        on_page: Callable[[SyncRun], None],
    ) -> None:
        self.run = sync_run
        if planned.resumes:  # should this run get nowhere, the next one goes on from there
            self.run.cursor = [range_.to_json() for range_ in planned.ranges]
        self.planned = planned
        self.allowance = allowance
        self.stopped = stopped
        self.dry_run = dry_run
        self.on_page = on_page
        self.writer = Writer(
            sync_run,
            allowance,
            messages=messages,
            dry_run=dry_run,
            advance=self._advance,
            on_turn=self._keep_lease,
        )
        self.renewed_at = time.monotonic()

    def go(self) -> None:
        problem = Failure()
        try:
            self.reader = Reader(
                self.run,
                self.planned,
                get_client(),
                self.allowance,
                dry_run=self.dry_run,
                keep_lease=self._keep_lease,
            )
            if self.reader.is_whole() and not self.dry_run:
                missing.forget()
            self._walk()
            problem = self.reader.problem or self._complete()
        except BlandError as error:
            problem = error.failure
        if problem:
            self.give_up(problem)
        else:
            self.run.status = Status.FINISHED

    def _complete(self) -> Failure:
        """What follows a walk that got to its end; false where all is complete."""
        problem = Failure()
        if not self.dry_run:
            problem = self._confirm_and_pay()
        if problem:
            return problem
        if self.reader.gaps:
            spans = "; ".join(map(span_words, self.reader.gaps[:MOST_SPANS]))
            return Failure("list_gap", {"spans": spans})
        is_untimely = self.reader.is_untimely or self.writer.is_untimely
        return Failure("no_usable_time") if is_untimely else Failure()

    def _confirm_and_pay(self) -> Failure:
        """Ask for conversations that the walk did not list, and for those owed a look."""
        if not self.reader.gaps and self.run.mode == Mode.FULL:
            missing.note_timeless(self.writer.timeless)
            problem = missing.confirm_missing(self.allowance, self._keep_lease)
            if problem:
                return problem
        self.writer.pay()
        first_refused = owed.oldest_refused_change()
        if self.run.watermark is not None and first_refused is not None:
            self.run.watermark = min(self.run.watermark, first_refused)
        stop = self.writer.stop
        return Failure() if stop is None else self.reader.failure_of(stop)

    def give_up(self, problem: Failure) -> None:
        came_far = self.run.seen or problem.code == "list_gap"
        self.run.status = Status.INCOMPLETE if came_far else Status.FAILED
        self.run.failure = problem
        logger.warning("sync %s: %s", self.run.pk, problem.code)

    def _walk(self) -> None:
        with Pool(SIDE_BY_SIDE) as pool:
            try:
                while self._turn(pool):
                    pass
            except BaseException:
                self.allowance.stopped.set()
                raise

    def _turn(self, pool: Pool) -> bool:
        """Fetch ahead, take what came, write it; False when there is nothing left to do."""
        reader = self.reader
        if self.stopped.is_set() and not reader.problem:
            self.allowance.stopped.set()
            reader.problem = NOT_FINISHED
        reader.submit(pool)
        if not reader.in_flight:
            return False
        done = pool.wait(reader.in_flight, TURN_SECONDS)
        for future in done:
            reader.take(future)
        reader.submit(pool)  # the next pages come while these are written
        if done:
            self._write()
        else:
            self._keep_lease()
        return True

    def _write(self) -> None:
        batch = self.reader.take_batch()
        self.writer.unreadable = self.reader.unreadable
        self.writer.write(batch.fresh, batch.covered, self.reader.ends_at, batch.odd)
        if self.writer.stop is not None and not self.reader.problem:
            self.reader.problem = self.reader.failure_of(self.writer.stop)
        self.on_page(self.run)

    def _keep_lease(self, refreshed: Refreshed | None = None) -> None:
        if self.stopped.is_set():
            self.allowance.stopped.set()
        if (
            not self.dry_run
            and time.monotonic() - self.renewed_at > SyncRun.LEASE.total_seconds() / 3
        ):
            patiently(self._renew)

    def _advance(self) -> None:
        """Write how far the walk has come, in the transaction that stores what it read."""
        self.run.cursor = cursor_of(self.run.mode, self.reader.ranges, self.run.watermark)
        self.run.dialect = self.reader.dialect
        self._renew()

    def _renew(self) -> None:
        runs.renew(self.run)
        self.renewed_at = time.monotonic()
