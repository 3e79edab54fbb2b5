"""Carries a sync out: threads fetch pages ahead, this thread checks, writes and remembers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from django.db import DatabaseError, OperationalError, router, transaction
from django.utils.translation import gettext_noop

from ..client import BlandClient, Dialect, get_client
from ..exceptions import STOPPING_ERRORS, BlandAPIError, BlandError, BlandNotSentError
from ..mirror import Applied, Outcome, apply_page, write_in_halves
from ..models import Conversation, SyncRun
from ..pacing import Allowance
from ..payloads import ConversationPage, ConversationPayload
from ..signals import announce, sync_finished
from ..transactions import patiently, refuse_in_transaction
from . import runs
from .missing import confirm_missing
from .refreshing import Refreshed, refresh_many
from .runs import LEASE, LostLeaseError
from .walk import DisobeyedError, Query, Range, SortBy, StuckError, floor

logger = logging.getLogger("bland_sms.sync")

Mode = SyncRun.Mode
Status = SyncRun.Status

SIDE_BY_SIDE = 8
"""Ranges read at once. So many fill one processor core."""
OVERLAP = timedelta(minutes=10)
"""How far before the watermark the next run begins: Bland's servers may differ by as much."""
TURN_SECONDS = 1.0
PAGES_WORTH_A_SPLIT = 3
STOPPED = gettext_noop("not finished in time: the next sync goes on from here")
UNTRUSTED = gettext_noop(
    "Bland ignored the order or the filter asked for: the list cannot be trusted"
)


def run(
    *,
    full: bool = False,
    since: datetime | None = None,
    messages: bool = False,
    dry_run: bool = False,
    trigger: str = "command",
    requested_by: Any = None,
    seconds: float | None = None,
    stopped: threading.Event | None = None,
    on_page: Callable[[SyncRun], None] = lambda run: None,
) -> SyncRun:
    """Bring the mirror up to date: what changed since the last completed run, or everything.

    Goes on where the last attempt was interrupted. Only one sync runs at a time; an attempt
    beside it is recorded as skipped.

    Args:
        full: The whole list, and a look at every conversation that is not in it any more. So is
            the first run.
        since: By Bland's clock: what changed since then, instead of since the last run.
        messages: Copy the transcripts too of what is new, changed, or was never copied.
        dry_run: Write nothing; the counts say what would be.
        trigger: The door: ``command``, ``admin``, ``api`` or ``task``.
        requested_by: The user who asked for it, if one did.
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
    is_full = full or (since is None and watermark is None)
    sync_run = SyncRun(
        mode=Mode.FULL if is_full else Mode.INCREMENTAL,
        trigger=trigger,
        requested_by=requested_by,
    )
    if not dry_run and not runs.begin(sync_run):
        return sync_run
    sync = _Sync(
        sync_run,
        Allowance() if seconds is None else Allowance.of_seconds(seconds),
        stopped or threading.Event(),
        messages=messages,
        dry_run=dry_run,
        on_page=on_page,
    )
    if is_full:
        sync.ranges = [Range("created_at")]
    elif since is not None:
        sync.ranges = [Range("updated_at", begin=floor(since))]
    else:
        assert watermark is not None, "else this would be a full run"
        sync.ranges = [Range("updated_at", begin=floor(watermark - OVERLAP))]
    if not is_full and watermark is not None and (since is None or since <= watermark):
        sync_run.watermark = watermark  # what this run sees moves it on; a gap before it would not
    interrupted = None if since or dry_run else runs.interrupted(sync_run)
    if interrupted is not None:
        sync.resume(interrupted)
    try:
        sync.go()
    except LostLeaseError:
        logger.warning("sync %s: another process has taken over", sync_run.pk)
        sync_run.refresh_from_db()
        return sync_run
    except BaseException as error:
        sync.give_up(type(error).__name__)
        raise
    finally:
        if not dry_run:
            runs.end(sync_run)
            announce(sync_finished, SyncRun, lambda: [{"sync_run": sync_run}])
    return sync_run


class _Sync:
    """One run."""

    def __init__(
        self,
        sync_run: SyncRun,
        allowance: Allowance,
        stopped: threading.Event,
        *,
        messages: bool,
        dry_run: bool,
        on_page: Callable[[SyncRun], None],
    ) -> None:
        self.run = sync_run
        self.allowance = allowance
        self.stopped = stopped
        self.messages = messages
        self.dry_run = dry_run
        self.on_page = on_page
        self.ranges: list[Range] = []
        self.in_flight: dict[Future[ConversationPage], tuple[Range, Query, Dialect]] = {}
        self.problem = ""
        self.failed = 0
        """Conversations that could not be stored or looked at; the ranges count those that
        could not be read."""
        self.start: tuple[list[list[str | None]], datetime | None] = [], None
        """The ranges as stored, and the watermark, before anything was read."""
        self.may_spread = False
        self.may_switch = False
        self.dialect: Dialect = "a"
        self.ends_at: datetime | None = None
        """By Bland's clock: when the walk began. What changes later is for the next run; a busy
        account would have something new on each page, for ever."""
        self.longest_page = 0
        self.using = router.db_for_write(SyncRun)
        self.renewed_at = time.monotonic()

    def resume(self, interrupted: SyncRun) -> None:
        """Go on where another run came to a stop."""
        self.ranges = self._ranges_of(interrupted.cursor)
        self.run.watermark = interrupted.watermark
        self.run.walk_began_at = interrupted.walk_began_at

    def _ranges_of(self, stored: list[list[str | None]]) -> list[Range]:
        sort_by: SortBy = "created_at" if self.run.mode == Mode.FULL else "updated_at"
        return [Range.from_json(sort_by, one) for one in stored]

    def _start_over(self) -> None:
        stored, self.run.watermark = self.start
        self.ranges = self._ranges_of(stored)
        self.may_spread = self._is_whole()

    def _is_whole(self) -> bool:
        """Whether nothing of a full walk was read yet, so that it can be cut into ranges."""
        return self.run.mode == Mode.FULL and self.ranges == [Range("created_at")]

    def go(self) -> None:
        self.may_spread = self._is_whole()
        self.start = [range_.to_json() for range_ in self.ranges], self.run.watermark
        try:
            client = get_client()
            self._choose_dialect(client)
            self._walk(client)
            if not self.problem and self.run.mode == Mode.FULL and not self.dry_run:
                self.problem = confirm_missing(
                    self.run.walk_began_at, self.allowance, self._keep_lease
                )
        except BlandError as error:
            self.problem = self.problem or self._words(error)
        if self.problem:
            self.give_up(self.problem)
        else:
            self.run.status = Status.FINISHED

    def give_up(self, problem: str) -> None:
        self.run.status = Status.INCOMPLETE if self.run.seen else Status.FAILED
        self.run.error = problem[:500]
        logger.warning("sync %s: %s", self.run.pk, self.run.error)

    def _words(self, error: BlandError) -> str:
        is_late = self.allowance.seconds_left() == 0
        return STOPPED if is_late or isinstance(error, BlandNotSentError) else str(error)

    # --- reading ------------------------------------------------------------------------------

    def _choose_dialect(self, client: BlandClient) -> None:
        asked = client.settings.list_dialect
        self.may_switch = asked == "auto"
        known = runs.last_dialect() if self.may_switch else asked
        self.dialect = "b" if known == "b" else "a"

    def _walk(self, client: BlandClient) -> None:
        with ThreadPoolExecutor(SIDE_BY_SIDE, "bland_sms") as pool:
            try:
                while self._turn(client, pool):
                    pass
            except BaseException:
                self.allowance.stopped.set()
                raise

    def _turn(self, client: BlandClient, pool: ThreadPoolExecutor) -> bool:
        """Fetch ahead, take what came, write it; False when there is nothing left to do."""
        if self.stopped.is_set() and not self.problem:
            self.allowance.stopped.set()
            self.problem = STOPPED
        if not self.problem:
            self._submit(client, pool)
        if not self.in_flight:
            return False
        done, _ = wait(self.in_flight, TURN_SECONDS, FIRST_COMPLETED)
        fresh: list[ConversationPayload] = []
        for future in done:
            fresh += self._take(client, future, *self.in_flight.pop(future))
        if not self.problem:
            self._submit(client, pool)  # the next pages come while these are written
        if done:
            self._write(fresh)
        else:
            self._keep_lease()
        return True

    def _submit(self, client: BlandClient, pool: ThreadPoolExecutor) -> None:
        """Ask for the next page of every range that is read no further yet."""
        busy = [range_ for range_, _query, _dialect in self.in_flight.values()]
        idle = [r for r in self.ranges if not r.is_done and not any(r is b for b in busy)]
        while 0 < len(busy) + len(idle) < SIDE_BY_SIDE:
            longest = max(busy + idle, key=Range.rows_left)
            worth = PAGES_WORTH_A_SPLIT * client.settings.page_size
            later = longest.split() if longest.rows_left() > worth else None
            if later is None:
                break
            self.ranges.append(later)
            idle.append(later)
        for range_ in idle[: SIDE_BY_SIDE - len(busy)]:
            query = range_.next_query(client.settings.page_size)
            future = pool.submit(
                client.list_conversations,
                page=query.page,
                page_size=query.page_size,
                sort_by=query.sort_by,
                filters=query.filters(),
                dialect=self.dialect,
                allowance=self.allowance,
            )
            self.in_flight[future] = (range_, query, self.dialect)

    def _take(
        self,
        client: BlandClient,
        future: Future[ConversationPage],
        range_: Range,
        query: Query,
        dialect: Dialect,
    ) -> list[ConversationPayload]:
        """What is new on a page; nothing of one that is not what was asked for."""
        try:
            page = future.result()
        except BlandError as error:
            is_refused = isinstance(error, BlandAPIError) and error.status_code == 400
            if not (is_refused and self._switch_from(dialect)):
                self.problem = self.problem or self._words(error)
            return []
        if dialect != self.dialect:
            return []  # asked before the other one turned out to be right
        try:
            fresh = range_.take(page, query)
        except DisobeyedError:
            if not self._switch_from(dialect):
                self._distrust(UNTRUSTED)
            return []
        except StuckError as error:
            self._distrust(str(error))
            return error.fresh
        self._note_times(page, fresh)
        if self.may_spread and not range_.is_done:
            self.may_spread = False
            self._spread(client, range_)
        self.longest_page = max(self.longest_page, page.row_count)
        is_short = page.row_count < self.longest_page and not range_.is_in_tie
        if is_short and range_.until is None and range_.reached and self.ends_at:
            range_.is_done = range_.is_done or range_.reached >= self.ends_at
        return fresh

    def _distrust(self, problem: str) -> None:
        """Read no further, and let no later run go on from here."""
        self.problem = problem
        for range_ in self.ranges:
            range_.is_done = True

    def _switch_from(self, dialect: Dialect) -> bool:
        """Try the other dialect, once in a run; False where that was done already."""
        if dialect != self.dialect:
            return True
        if not self.may_switch:
            return False
        self.may_switch = False
        self.dialect = "a" if dialect == "b" else "b"
        self._start_over()  # pages that only looked like what was asked for have moved it
        return True

    def _note_times(self, page: ConversationPage, fresh: Sequence[ConversationPayload]) -> None:
        if self.ends_at is None and page.answered_at is not None:
            self.ends_at = page.answered_at
        times = [payload.updated_at for payload in fresh if payload.updated_at is not None]
        if self.run.mode == Mode.FULL:
            # What changes while the list is walked is for the next run: it begins where this one
            # began, by Bland's clock, and without one at the latest change known then.
            if self.run.watermark is None:
                self.run.watermark = page.answered_at or max(times, default=None)
        elif self.run.watermark is not None:
            self.run.watermark = max([self.run.watermark, *times])

    def _spread(self, client: BlandClient, first: Range) -> None:
        """Cut what is left of the list into ranges that are read side by side."""
        latest = client.list_conversations(
            page_size=1,
            sort_by=first.sort_by,
            ascending=False,
            dialect=self.dialect,
            allowance=self.allowance,
        )
        newest = latest.conversations[0].created_at if latest.conversations else None
        if not isinstance(newest, datetime) or first.reached is None or newest <= first.reached:
            return
        first.until = floor(newest)
        self.ranges.append(Range(first.sort_by, begin=first.until))
        if first.rows_left() <= PAGES_WORTH_A_SPLIT * client.settings.page_size:
            return
        parts = [first]
        while len(parts) < SIDE_BY_SIDE:
            later = max(parts, key=Range.span).split()
            if later is None:
                break
            parts.append(later)
        self.ranges += parts[1:]

    # --- writing ------------------------------------------------------------------------------

    def _write(self, payloads: list[ConversationPayload]) -> None:
        if self.dry_run:
            applied = self._try_out(payloads)
        else:
            applied = self._apply(payloads)
            self._look(applied)
        outcomes = [one.outcome for one in applied.values()]
        self.run.seen += len(outcomes)
        self.run.created += outcomes.count(Outcome.CREATED)
        self.run.changed += outcomes.count(Outcome.CHANGED)
        self.run.unchanged += outcomes.count(Outcome.UNCHANGED) + outcomes.count(Outcome.STALE)
        self.failed += outcomes.count(Outcome.GONE)
        self.run.failed = self.failed + sum(range_.refused for range_ in self.ranges)
        self.on_page(self.run)

    def _try_out(self, payloads: Sequence[ConversationPayload]) -> dict[str, Applied]:
        with transaction.atomic(using=self.using):
            applied = apply_page(payloads)
            transaction.set_rollback(True, using=self.using)
        return applied

    def _apply(self, payloads: list[ConversationPayload]) -> dict[str, Applied]:
        """Write a page, and in the same transaction how far the walk has come."""

        def commit(page: Sequence[ConversationPayload]) -> dict[str, Applied]:
            with transaction.atomic(using=self.using):
                self._renew()  # first: it takes the lock that keeps everybody else out
                return apply_page(page)

        def write(some: Sequence[ConversationPayload]) -> None:
            applied.update(patiently(lambda: apply_page(some)))

        def refuse(payload: ConversationPayload, error: DatabaseError) -> None:
            logger.warning("conversation %s could not be stored", payload.id)
            self.failed += 1

        applied: dict[str, Applied] = {}
        try:
            return patiently(lambda: commit(payloads))
        except OperationalError:
            raise
        except (DatabaseError, ValueError, OverflowError):
            write_in_halves(payloads, write, refuse)
            patiently(lambda: commit([]))
        return applied

    def _look(self, applied: dict[str, Applied]) -> None:
        """Ask for those themselves of which the list does not tell enough."""
        unclear = {pk for pk, one in applied.items() if one.needs_look}
        wanted = set(unclear)
        if self.messages:
            news = (Outcome.CREATED, Outcome.CHANGED)
            wanted |= {pk for pk, one in applied.items() if one.outcome in news}
            never = Conversation.objects.filter(
                pk__in=list(applied), transcript_observed_at__isnull=True, erased_at__isnull=True
            )
            wanted |= set(never.values_list("pk", flat=True))
        if not wanted:
            return
        refreshed = refresh_many(sorted(wanted), allowance=self.allowance, on_turn=self._keep_lease)
        for conversation_id, outcome in refreshed.copied.items():
            if conversation_id in unclear:
                applied[conversation_id] = replace(applied[conversation_id], outcome=outcome)
        for conversation_id, error in refreshed.failed.items():
            logger.info("conversation %s: %s", conversation_id, error.code)
            self.failed += 1
            if isinstance(error, STOPPING_ERRORS):
                self.problem = self.problem or self._words(error)

    def _keep_lease(self, refreshed: Refreshed | None = None) -> None:
        if self.stopped.is_set():
            self.allowance.stopped.set()
        if not self.dry_run and time.monotonic() - self.renewed_at > LEASE.total_seconds() / 3:
            patiently(self._renew)

    def _renew(self) -> None:
        self.run.cursor = [range_.to_json() for range_ in self.ranges if not range_.is_done]
        self.run.dialect = self.dialect
        runs.renew(self.run)
        self.renewed_at = time.monotonic()
