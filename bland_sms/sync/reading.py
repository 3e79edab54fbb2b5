"""Reads the list for one run: threads fetch pages ahead, each page is checked before it counts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import datetime

from ..client import BlandClient, Dialect
from ..exceptions import (
    TRANSIENT_ERRORS,
    BlandAPIError,
    BlandConnectionError,
    BlandError,
    BlandNotSentError,
    BlandPayloadError,
    GaveUp,
)
from ..models import SyncRun
from ..pacing import Allowance
from ..payloads import ConversationPage, ConversationPayload
from ..reasons import Failure
from ..threads import Pool
from . import missing, runs
from .plan import Plan
from .stepping import NoAnswerError, step_over
from .walk import (
    Covered,
    DisobeyedError,
    Query,
    Range,
    Taken,
    as_text,
    check,
    floor,
    newest_of,
    times_of,
)

logger = logging.getLogger("bland_sms.sync")

Mode = SyncRun.Mode

SIDE_BY_SIDE = 8
"""Ranges read at once. This number keeps one processor core busy."""
PAGES_WORTH_A_SPLIT = 3
ASK_AGAIN, ASK_AGAIN_IN_DOUBT = 2, 1
"""How often the same page is asked for again: one that is wrong, and one that may be."""
NOT_FINISHED = Failure("not_finished")


@dataclass
class Batch:
    """What was read and is not written yet."""

    fresh: list[ConversationPayload] = field(default_factory=list)
    covered: list[Covered] = field(default_factory=list)
    """Stretches of time that were read to their end."""
    odd: set[str] = field(default_factory=set)
    """Rows of pages without any usable time."""


class Reader:
    """The reading half of one run."""

    def __init__(
        self,
        run: SyncRun,
        planned: Plan,
        client: BlandClient,
        allowance: Allowance,
        *,
        dry_run: bool,
        keep_lease: Callable[[], None],
    ) -> None:
        self.run = run
        self.run.watermark = planned.watermark
        self.planned = planned
        self.client = client
        self.allowance = allowance
        self.dry_run = dry_run
        self.keep_lease = keep_lease
        self.ranges = [range_.afresh() for range_ in planned.ranges]
        self.in_flight: dict[Future[ConversationPage], tuple[Range, Query, Dialect]] = {}
        self.problem = Failure()
        """Why nothing more is read; false where something is."""
        self.batch = Batch()
        self.is_untimely = False
        """A full page came without any usable time."""
        self.may_spread = self.is_whole()
        asked = client.settings.list_dialect
        self.may_switch = asked == "auto"
        known = runs.last_dialect() if self.may_switch else asked
        self.dialect: Dialect = "b" if known == "b" else "a"
        self.is_proven = bool(known)
        """Bland has answered in this dialect as it was asked to."""
        self.ends_at: datetime | None = None
        """By Bland's clock: when the walk began. What changes later is for the next run; a busy
        account would have something new on each page, for ever."""
        self.longest_page = 0

    def is_whole(self) -> bool:
        """Whether nothing of a full walk was read yet, so that it can be cut into ranges."""
        return self.run.mode == Mode.FULL and self.ranges == [Range("created_at")]

    def failure_of(self, error: BlandError) -> Failure:
        is_late = self.allowance.seconds_left() == 0
        return NOT_FINISHED if is_late or isinstance(error, BlandNotSentError) else error.failure

    @property
    def gaps(self) -> list[Range]:
        """What Bland did not answer for."""
        return [range_ for range_ in self.ranges if range_.is_gap]

    @property
    def unreadable(self) -> int:
        """Rows that could not be read as a conversation."""
        return sum(range_.refused for range_ in self.ranges)

    def take_batch(self) -> Batch:
        """What was read since the last time."""
        batch, self.batch = self.batch, Batch()
        return batch

    def submit(self, pool: Pool) -> None:
        """Ask for the next page of every range that is read no further yet."""
        if self.problem:
            return
        busy = [range_ for range_, _query, _dialect in self.in_flight.values()]
        idle = [r for r in self.ranges if r.is_open and not any(r is b for b in busy)]
        while 0 < len(busy) + len(idle) < SIDE_BY_SIDE:
            longest = max(busy + idle, key=Range.rows_left)
            worth = PAGES_WORTH_A_SPLIT * self.client.settings.page_size
            later = longest.split() if longest.rows_left() > worth else None
            if later is None:
                break
            self.ranges.append(later)
            idle.append(later)
        for range_ in idle[: SIDE_BY_SIDE - len(busy)]:
            query = range_.next_query(self.client.settings.page_size)
            future = pool.submit(self._fetch, query, self.dialect, self.allowance)
            self.in_flight[future] = (range_, query, self.dialect)

    def _fetch(
        self,
        query: Query,
        dialect: Dialect,
        allowance: Allowance,
        *,
        ascending: bool = True,
    ) -> ConversationPage:
        return self.client.list_conversations(
            page=query.page,
            page_size=query.page_size,
            sort_by=query.sort_by,
            ascending=ascending,
            filters=query.filters(),
            dialect=dialect,
            allowance=allowance,
        )

    def take(self, future: Future[ConversationPage]) -> None:
        """Keep what is new on a page; nothing of one that is not what was asked for."""
        range_, query, dialect = self.in_flight.pop(future)
        if dialect != self.dialect:
            return  # asked before the other one turned out to be right
        try:
            page = future.result()
            if range_.is_doubtful(page, query) and self._ask_again(range_, ASK_AGAIN_IN_DOUBT):
                return
            taken = range_.take(page, query)
        except DisobeyedError:
            if not self._ask_again(range_, ASK_AGAIN) and not self._switch():
                self._distrust(Failure("list_untrusted"))
        except BlandError as error:
            self._take_failure(error, range_, query)
        else:
            self._keep(range_, query, page, taken)

    def _ask_again(self, range_: Range, times: int) -> bool:
        """Whether the same page is asked for again: what is wrong once need not be so for ever."""
        if range_.asked_again >= times or not self.allowance.may_retry():
            return False
        range_.asked_again += 1
        return True

    def _keep(self, range_: Range, query: Query, page: ConversationPage, taken: Taken) -> None:
        self.batch.fresh += taken.fresh
        if taken.covered is not None and range_.sort_by == "created_at":
            self.batch.covered.append(taken.covered)
        if page.conversations and not times_of(page, query.sort_by):
            self.batch.odd |= {payload.id for payload in taken.fresh}
            self.is_untimely = self.is_untimely or page.row_count >= query.page_size > 1
        self.is_proven = self.is_proven or page.row_count > 0
        self._note_times(page, taken.fresh)
        if self.may_spread and range_.is_open:
            self.may_spread = False
            self._spread(range_)
        is_short = page.row_count < min(self.longest_page, query.page_size)
        self.longest_page = max(self.longest_page, page.row_count)
        if is_short and range_.until is None and range_.reached and self.ends_at:
            is_behind = range_.reached >= self.ends_at and not range_.tie.is_open
            range_.is_done = range_.is_done or is_behind

    def _note_times(self, page: ConversationPage, fresh: Iterable[ConversationPayload]) -> None:
        if self.ends_at is None:
            self.ends_at = page.answered_at
        times = [payload.updated_at for payload in fresh if payload.updated_at is not None]
        if self.run.mode == Mode.FULL:
            # What changes while the list is walked is for the next run: it begins where this one
            # began, by Bland's clock, and without one at the latest change known then.
            if self.run.watermark is None:
                self.run.watermark = page.answered_at or max(times, default=None)
        elif self.run.watermark is not None:
            self.run.watermark = max([self.run.watermark, *times])

    # --- a page that is wrong, or that fails ---------------------------------------------------

    def _take_failure(self, error: BlandError, range_: Range, query: Query) -> None:
        if isinstance(error, BlandAPIError) and error.status_code == 400:
            if self._switch():
                return
        elif isinstance(error, BlandPayloadError) and self._ask_again(range_, ASK_AGAIN):
            return
        if self.problem:
            return
        if not _may_be_stepped_over(error):
            self.problem = self.failure_of(error)
            return
        try:
            self._step_over(range_, query)
        except NoAnswerError:
            # In the wrong dialect, each page may hold what Bland cannot answer for.
            if self.is_proven or not self._switch():
                self.problem = self.failure_of(error)
        except BlandError as other:
            self.problem = self.failure_of(other)

    def _step_over(self, range_: Range, query: Query) -> None:
        """Move the range on. One detour is one retry of the run's: it begins with proof that
        Bland answers, and ends by itself. So an outage ends the run, and no part of the list that
        several ranges meet at once does."""

        def ask(query: Query, ascending: bool) -> ConversationPage | None:
            self.keep_lease()
            try:
                page = self._ask_for_part(query, ascending)
                check(page, query)
            except DisobeyedError:
                return None
            except BlandError as error:
                if not _may_be_stepped_over(error):
                    raise
                return None
            return page

        if not self.allowance.may_retry():
            raise NoAnswerError
        asked = replace(query, before=range_.until)  # it may have moved meanwhile
        detour = step_over(range_, asked, ask)
        self.batch.fresh += detour.found
        if detour.gap is not None:
            self.ranges.append(detour.gap)
            logger.warning("sync %s: stepped over %s", self.run.pk, span_words(detour.gap))

    def _ask_for_part(self, query: Query, ascending: bool) -> ConversationPage:
        """Ask once; again as ever where what failed may pass and says nothing of this part."""
        try:
            return self._fetch(query, self.dialect, self.allowance.once(), ascending=ascending)
        except BlandError as error:
            if _may_be_stepped_over(error) or error.gave_up is not GaveUp.ATTEMPTS:
                raise
        return self._fetch(query, self.dialect, self.allowance, ascending=ascending)

    def _distrust(self, problem: Failure) -> None:
        """Read no further, and let no later run go on from here."""
        self.problem = problem
        for range_ in self.ranges:
            range_.is_done = True

    def _switch(self) -> bool:
        """Try the other dialect, once in a run; False where that was done already."""
        if not self.may_switch:
            return False
        self.may_switch = False
        self.dialect = "a" if self.dialect == "b" else "b"
        self._start_over()  # pages that only looked like what was asked for have moved it
        return True

    def _start_over(self) -> None:
        self.run.watermark = self.planned.watermark
        self.ranges = [range_.afresh() for range_ in self.planned.ranges]
        self.batch = Batch()
        self.may_spread = self.is_whole()
        if self.may_spread and not self.dry_run:
            missing.forget()

    def _spread(self, first: Range) -> None:
        """Give the list an end, so that it can be cut into ranges that are read side by side. What
        is newer is a range of its own."""
        query = Query(first.sort_by, 1, 1, None, None)
        try:
            latest = self._fetch(query, self.dialect, self.allowance, ascending=False)
        except (*TRANSIENT_ERRORS, BlandPayloadError):
            return  # it is read in one piece, then
        newest = newest_of(latest, first.sort_by) if latest.row_count == 1 else None
        if newest is None or first.reached is None or newest <= first.reached:
            return
        first.until = newest
        self.ranges.append(Range(first.sort_by, begin=first.until))


def _may_be_stepped_over(error: BlandError) -> bool:
    """Whether a part of the list may be at fault, and not Bland as a whole."""
    if isinstance(error, BlandPayloadError):
        return True
    status = error.status_code if isinstance(error, BlandAPIError) else None
    return (
        isinstance(error, TRANSIENT_ERRORS)
        and not isinstance(error, BlandConnectionError)
        and error.gave_up is GaveUp.ATTEMPTS
        and status not in (408, 429)
    )


def span_words(range_: Range) -> str:
    """A stretch of time as it is told to people."""
    begin, until = (
        "" if moment is None else as_text(floor(moment)) for moment in (range_.start, range_.until)
    )
    return f"{range_.sort_by} {begin or '-'} ... {until or '-'}"
