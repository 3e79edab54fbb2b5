"""How the list is read: by timestamp, in ranges of time, and checked against what was asked.

By timestamp and not by page number: rows that come and go while we read move no other row out of
sight. Each page asks for the last row's time or a later one. Rows that share one timestamp and
fill more than a page (a *tie* of the sort) are read by page number, until two passes list the same.

:func:`classify` decides what follows a page. It needs no connection, so a table can test it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from django.utils.dateparse import parse_datetime

from ..client import ListFilter
from ..payloads import ConversationPage, ConversationPayload

SortBy = Literal["created_at", "updated_at"]
SMALLEST_SPLIT = timedelta(seconds=2)
MILLISECOND = timedelta(milliseconds=1)
MOST_PASSES = 20
"""Passes over rows that share one timestamp and keep changing; from then on, one that lists
nothing new is enough."""
GROWTH = 4
"""Factor by which a page shrinks where Bland fails, and grows again where it answers."""
Key = tuple[str, "datetime | None"]


class DisobeyedError(Exception):
    """Bland ignored the order, the filter, the page or its size: nothing of the page is used."""


@dataclass(frozen=True, slots=True)
class Query:
    """What one page was asked for."""

    sort_by: SortBy
    page: int
    page_size: int
    at_least: datetime | None
    before: datetime | None

    def filters(self) -> list[ListFilter]:
        bounds = (("gte", self.at_least), ("lt", self.before))
        return [
            ListFilter(self.sort_by, operator, as_text(moment))
            for operator, moment in bounds
            if moment is not None
        ]


# --- what follows a page ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Advance:
    """Go on at this time, from page 1."""

    to: datetime


@dataclass(frozen=True, slots=True)
class NextPage:
    """More rows share the timestamp that was asked for: the next page of the same query."""


@dataclass(frozen=True, slots=True)
class NewPass:
    """The rows of one timestamp changed while they were read by page number: read them again."""


@dataclass(frozen=True, slots=True)
class End:
    """Nothing is left in the range."""


Step = Advance | NextPage | NewPass | End


@dataclass
class Tie:
    """Rows that share one timestamp, and how far they were read by page number."""

    page: int = 1
    page_size: int | None = None
    """Rows that Bland sends for a page; ``None``: as many as are asked for."""
    seen: set[Key] = field(default_factory=set)
    """What was read at this timestamp, in all passes."""
    listed: set[Key] = field(default_factory=set)
    """What this pass has listed, and what the one before it listed."""
    listed_before: set[Key] | None = None
    passes: int = 0
    has_news: bool = False
    is_first_page_short: bool = False

    @property
    def is_open(self) -> bool:
        return self.page > 1 or self.passes > 0

    def is_settled(self) -> bool:
        """Whether no row left the tie between two passes: what leaves it while it is read by
        page number pulls another row over the edge of a page, out of sight."""
        is_same = self.listed == self.listed_before
        return is_same or (self.passes >= MOST_PASSES and not self.has_news)

    def begin_pass(self) -> None:
        self.page, self.page_size = 1, None
        self.listed, self.listed_before = set(), self.listed
        self.passes, self.has_news = self.passes + 1, False


def classify(page: ConversationPage, query: Query, tie: Tie) -> Step:
    """What follows a page that is what was asked for.

    Args:
        tie: With this page's rows noted in it.
    """
    newest = newest_of(page, query.sort_by)
    has_moved = newest is not None and (query.at_least is None or newest > query.at_least)
    if page.row_count and not has_moved:
        return NextPage()
    is_one_page = query.page == 1 or (page.row_count == 0 and tie.is_first_page_short)
    if not is_one_page and not tie.is_settled():
        return NewPass()
    return End() if newest is None else Advance(newest)


# --- a range ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Covered:
    """A stretch of time that was read to its end: from ``begin``, before ``until``."""

    begin: datetime | None
    until: datetime | None
    ids: frozenset[str]
    """Every conversation that Bland listed there, and perhaps some of a later time."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a page brought."""

    fresh: list[ConversationPayload]
    """Rows that were not read before."""
    covered: Covered | None


@dataclass
class Range:
    """A range of the list by one of Bland's times: from ``begin``, before ``until``."""

    sort_by: SortBy
    begin: datetime | None = None
    until: datetime | None = None
    reached: datetime | None = None
    """Everything before it was read."""
    is_done: bool = False
    is_gap: bool = False
    """Bland does not answer for it: this run asks no more, the next run does."""
    rows: int = 0
    """Read so far."""
    refused: int = 0
    """That could not be read as a conversation."""
    asked_again: int = 0
    """How often in a row the same page was asked for again."""
    page_limit: int | None = None
    """Rows a page at most, where larger pages fail."""
    tie: Tie = field(default_factory=Tie)
    _refused: set[str] = field(default_factory=set)
    """Unreadable rows, which are listed again with the next page."""
    _longest: int = 0

    def afresh(self) -> Range:
        """The same range, with nothing noted of what was read since."""
        return Range(self.sort_by, begin=self.begin, until=self.until, reached=self.reached)

    @property
    def start(self) -> datetime | None:
        return self.begin if self.reached is None else self.reached

    @property
    def is_open(self) -> bool:
        """Whether this run still reads it."""
        return not self.is_done and not self.is_gap

    def next_query(self, page_size: int) -> Query:
        size = self.tie.page_size or min(page_size, self.page_limit or page_size)
        return Query(self.sort_by, self.tie.page, size, self.start, self.until)

    def is_doubtful(self, page: ConversationPage, query: Query) -> bool:
        """Whether the page looks as if it belonged to another question, but need not.

        The row that was reached is listed again, unless it left a moment ago; an empty page ends
        a range. Both are asked for once more.
        """
        if query.page > 1:
            return False  # what is read by page number is read twice anyway
        times = times_of(page, query.sort_by)
        is_cut_short = self.reached is not None and (not times or floor(times[0]) > self.reached)
        return page.row_count == 0 or is_cut_short

    def take(self, page: ConversationPage, query: Query) -> Taken:
        """What is new on the page, and move on. Raises DisobeyedError."""
        check(page, query)
        keys = [key_of(payload, self.sort_by) for payload in page.conversations]
        listed = set(keys)
        unreadable = page.refused - self._refused
        is_repeated = query.page > 1 and page.row_count > 0 and listed <= self.tie.listed
        step_if_alone = classify(page, query, self.tie)
        if is_repeated and not unreadable and isinstance(step_if_alone, NextPage):
            raise DisobeyedError  # the same page again, whichever was asked for
        rows = zip(page.conversations, keys, strict=True)
        fresh = [payload for payload, key in rows if key not in self.tie.seen]
        self.refused += len(unreadable)
        self._refused |= page.refused
        self._note(page, query, listed)
        step = classify(page, query, self.tie)
        covered: Covered | None = None
        if isinstance(step, NextPage):
            self.tie.seen |= listed
            # A server that sends fewer rows than asked for counts its pages by what it sends.
            self.tie.page_size = page.row_count if query.page == 1 else self.tie.page_size
            self.tie.page += 1
        elif isinstance(step, NewPass):
            fresh = [p for p in fresh if key_of(p, self.sort_by)[1] == query.at_least]
            self.tie.seen |= {key_of(p, self.sort_by) for p in fresh}
            self.tie.begin_pass()
        else:
            covered = self._finish(step, listed)
        fresh = self._before_end(fresh)
        self.rows += len(fresh)
        self.asked_again = 0
        if self.page_limit is not None:
            self.page_limit *= GROWTH
        return Taken(fresh, covered)

    def _note(self, page: ConversationPage, query: Query, listed: set[Key]) -> None:
        here = {key for key in listed if key[1] is None or key[1] == query.at_least}
        self.tie.listed |= here
        self.tie.has_news = self.tie.has_news or not here <= self.tie.seen
        if query.page == 1:
            self.tie.is_first_page_short = page.row_count < min(self._longest, query.page_size)
        self._longest = max(self._longest, page.row_count)

    def _finish(self, step: Advance | End, listed: set[Key]) -> Covered:
        """Leave this timestamp behind."""
        begin, ids = self.start, frozenset(key[0] for key in self.tie.seen | listed)
        if isinstance(step, End):
            self.is_done = True
            return Covered(begin, self.until, ids)
        self.move(step.to)
        self.tie.seen = {key for key in listed if key[1] == step.to}
        end = step.to if self.until is None else min(step.to, self.until)
        self.is_done = self.is_done or end == self.until
        return Covered(begin, end, ids)

    def _before_end(self, fresh: list[ConversationPayload]) -> list[ConversationPayload]:
        """The end may have moved since the page was asked for."""
        if self.until is None:
            return fresh
        return [p for p in fresh if _is_before(p, self.sort_by, self.until)]

    def move(self, to: datetime) -> None:
        """Go on at ``to``, from its first page."""
        self.begin = to if self.begin is None else self.begin
        self.reached, self.tie = to, Tie()

    def skip_to(self, end: datetime | None) -> Range:
        """Step over what Bland does not answer for; what is returned is left to the next run."""
        gap = Range(self.sort_by, begin=self.start, until=end or self.until, is_gap=True)
        if end is None:
            self.is_done = True
        else:
            self.move(end)
        return gap

    def rows_left(self) -> float:
        """About how many rows are still to come; 0 where that cannot be told."""
        if self.until is None or self.begin is None or self.reached is None or not self.is_open:
            return 0
        read, left = self.reached - self.begin, self.until - self.reached
        return self.rows * left / read if read and left >= SMALLEST_SPLIT else 0

    def split(self) -> Range | None:
        """Leave the later half of what is unread to a range of its own."""
        start = self.start
        if start is None or self.until is None or self.until - start < SMALLEST_SPLIT:
            return None
        middle = floor(start + (self.until - start) / 2)
        later = Range(self.sort_by, begin=middle, until=self.until)
        self.until = middle
        return later

    def to_json(self) -> list[str | None]:
        moments = (self.begin, self.until, self.reached)
        return [*(None if moment is None else as_text(moment) for moment in moments), self.sort_by]

    @classmethod
    def from_json(cls, stored: list[str | None], sort_by: SortBy) -> Range:
        """Args: ``sort_by`` counts where it was not stored."""
        begin, until, reached = (parse_datetime(text) if text else None for text in stored[:3])
        if stored[3:] and stored[3] in ("created_at", "updated_at"):
            sort_by = "created_at" if stored[3] == "created_at" else "updated_at"
        return cls(sort_by, begin=begin, until=until, reached=reached)


# --- times ------------------------------------------------------------------------------------


def check(page: ConversationPage, query: Query) -> None:
    """Raises DisobeyedError: the page is not what was asked for."""
    times = times_of(page, query.sort_by)
    is_within = not times or (
        (query.at_least is None or min(times) >= query.at_least)
        and (query.before is None or floor(max(times)) < query.before)
    )
    if page.row_count > query.page_size or times != sorted(times) or not is_within:
        raise DisobeyedError


def times_of(page: ConversationPage, sort_by: SortBy) -> list[datetime]:
    """The usable times of a page, in its order."""
    times = (_time_of(payload, sort_by) for payload in page.conversations)
    return [moment for moment in times if moment is not None]


def newest_of(page: ConversationPage, sort_by: SortBy) -> datetime | None:
    times = (_time_of(payload, sort_by) for payload in reversed(page.conversations))
    return next((floor(moment) for moment in times if moment is not None), None)


def key_of(payload: ConversationPayload, sort_by: SortBy) -> Key:
    """A row that was changed meanwhile is another one: its time is."""
    told = _time_of(payload, sort_by)
    return payload.id, None if told is None else floor(told)


def _time_of(payload: ConversationPayload, sort_by: SortBy) -> datetime | None:
    moment = getattr(payload, sort_by)
    return moment if isinstance(moment, datetime) else None


def _is_before(payload: ConversationPayload, sort_by: SortBy, moment: datetime) -> bool:
    told = _time_of(payload, sort_by)
    return told is None or floor(told) < moment


def floor(moment: datetime) -> datetime:
    """Rounded down to Bland's milliseconds, so that the row itself is in the next answer."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def as_text(moment: datetime) -> str:
    """As Bland writes it."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
