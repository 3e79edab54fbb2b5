"""How the list is read: by keyset, in ranges of time, and checked against what was asked.

By keyset and not by page number: rows that come and go while we read move no other row out of
sight. Each page asks for what has the last row's time or a later one; a time that fills more
than a page is walked by page number within itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext_noop

from ..client import ListFilter
from ..payloads import ConversationPage, ConversationPayload

SortBy = Literal["created_at", "updated_at"]
SMALLEST_SPLIT = timedelta(seconds=2)
MOST_PASSES = 20
"""Over a tie that never holds still; from then on a pass without news is enough."""
Key = tuple[str, datetime | None]


class DisobeyedError(Exception):
    """Bland ignored the order, the filter or the page size: the other dialect, perhaps."""


class StuckError(Exception):
    """A page that moves nothing: the list cannot be walked to its end. ``fresh`` is its news."""

    def __init__(self, message: str, fresh: list[ConversationPayload]) -> None:
        super().__init__(message)
        self.fresh = fresh


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


@dataclass
class Range:
    """A range of the list by one of Bland's times: from ``begin``, before ``until``."""

    sort_by: SortBy
    begin: datetime | None = None
    until: datetime | None = None
    reached: datetime | None = None
    """Everything before it was read."""
    is_done: bool = False
    rows: int = 0
    """Read so far."""
    refused: int = 0
    """That could not be read as a conversation."""
    _page: int = 1
    _page_size: int | None = None
    _seen: set[Key] = field(default_factory=set)
    """What was read at ``reached``, which is listed again with the next page."""
    _refused: set[str] = field(default_factory=set)
    """The same of what could not be read."""
    _pass: set[Key] = field(default_factory=set)
    """What this pass over a tie has listed so far, and what the one before listed."""
    _pass_before: set[Key] | None = None
    _passes: int = 0
    _longest: int = 0
    _is_first_short: bool = False
    _has_news: bool = False

    def next_query(self, page_size: int) -> Query:
        return Query(
            self.sort_by,
            self._page,
            self._page_size or page_size,
            self.begin if self.reached is None else self.reached,
            self.until,
        )

    def take(self, page: ConversationPage, query: Query) -> list[ConversationPayload]:
        """What is new on the page, and move on.

        Raises:
            DisobeyedError: nothing of the page can be used.
            StuckError: the range cannot be read any further.
        """
        times = _check(page, query)
        if page.conversations and not times:
            text = gettext_noop("Bland lists conversations without a usable time")
            raise StuckError(text, self._new_of(page))
        at, newest = query.at_least, floor(times[-1]) if times else query.at_least
        is_over = page.row_count == 0 or (newest is not None and (at is None or newest > at))
        fresh, listed = self._new_of(page), {self._key(p) for p in page.conversations}
        new_refused = page.refused - self._refused
        if not is_over and query.page > 1 and listed <= self._pass and not new_refused:
            raise DisobeyedError  # the same page again, whichever was asked for
        self.refused += len(new_refused)
        self._refused |= page.refused
        if at is not None:
            self._pass |= {key for key in listed if key[1] == at}
            self._has_news = self._has_news or any(self._key(p)[1] == at for p in fresh)
        if query.page == 1:
            self._is_first_short = page.row_count < self._longest
        self._longest = max(self._longest, page.row_count)
        is_one_page = query.page == 1 or (page.row_count == 0 and self._is_first_short)
        if is_over and not is_one_page and not self._is_pass_settled():
            fresh = [p for p in fresh if self._key(p)[1] == at]
            self._seen |= {self._key(p) for p in fresh}
            self._begin_pass()
        elif page.row_count == 0:
            self.is_done = True
        elif is_over:
            assert newest is not None, "a time moved it"
            self._move(newest)
            self._seen = {key for key in listed if key[1] == newest}
        else:
            self._seen |= listed
            self._page += 1
            # A server that sends fewer rows than asked for counts its pages by what it sends.
            self._page_size = page.row_count if query.page == 1 else self._page_size
        if self.until is not None:  # it may have moved since the page was asked for
            fresh = [p for p in fresh if _is_before(p, self.sort_by, self.until)]
            is_behind = self.reached is not None and self.reached >= self.until
            self.is_done = self.is_done or is_behind
        self.rows += len(fresh)
        return fresh

    def _key(self, payload: ConversationPayload) -> Key:
        """A row that was changed meanwhile is another one: its time is."""
        told = _time_of(payload, self.sort_by)
        return payload.id, None if told is None else floor(told)

    def _new_of(self, page: ConversationPage) -> list[ConversationPayload]:
        return [p for p in page.conversations if self._key(p) not in self._seen]

    @property
    def is_in_tie(self) -> bool:
        """Whether it is among rows of one time that fill more than a page."""
        return self._page > 1 or self._passes > 0

    def _is_pass_settled(self) -> bool:
        """Whether nothing left the tie between two passes: what leaves it while it is read by
        page number pulls another row over the edge of a page, out of sight."""
        is_same = self._pass == self._pass_before
        return is_same or (self._passes >= MOST_PASSES and not self._has_news)

    def _begin_pass(self) -> None:
        self._page, self._page_size = 1, None
        self._pass, self._pass_before = set(), self._pass
        self._passes, self._has_news = self._passes + 1, False

    def _move(self, newest: datetime) -> None:
        self.begin = newest if self.begin is None else self.begin
        self.reached, self._page, self._page_size = newest, 1, None
        self._pass, self._pass_before = set(), None
        self._passes, self._has_news = 0, False

    def span(self) -> timedelta:
        """How much time is unread; none where there is no end."""
        start = self.begin if self.reached is None else self.reached
        return timedelta(0) if start is None or self.until is None else self.until - start

    def rows_left(self) -> float:
        """About how many rows are still to come; 0 where that cannot be told."""
        if self.until is None or self.begin is None or self.reached is None or self.is_done:
            return 0
        read, left = self.reached - self.begin, self.until - self.reached
        return self.rows * left / read if read and left >= SMALLEST_SPLIT else 0

    def split(self) -> Range | None:
        """Leave the later half of what is unread to a range of its own."""
        start = self.begin if self.reached is None else self.reached
        if start is None or self.until is None or self.until - start < SMALLEST_SPLIT:
            return None
        middle = floor(start + (self.until - start) / 2)
        later = Range(self.sort_by, begin=middle, until=self.until)
        self.until = middle
        return later

    def to_json(self) -> list[str | None]:
        moments = (self.begin, self.until, self.reached)
        return [None if moment is None else as_text(moment) for moment in moments]

    @classmethod
    def from_json(cls, sort_by: SortBy, stored: list[str | None]) -> Range:
        begin, until, reached = (parse_datetime(text) if text else None for text in stored)
        return cls(sort_by, begin=begin, until=until, reached=reached)


def _check(page: ConversationPage, query: Query) -> list[datetime]:
    """The usable times of a page that is what was asked for. Raises DisobeyedError."""
    times = [
        moment
        for payload in page.conversations
        if (moment := _time_of(payload, query.sort_by)) is not None
    ]
    is_within = not times or (
        (query.at_least is None or min(times) >= query.at_least)
        and (query.before is None or floor(max(times)) < query.before)
    )
    if page.row_count > query.page_size or times != sorted(times) or not is_within:
        raise DisobeyedError
    return times


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
