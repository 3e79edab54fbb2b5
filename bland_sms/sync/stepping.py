"""Steps over the part of the list that Bland cannot answer for, down to the one conversation.

A page that fails for ever must not hide what comes after it. First smaller pages are asked for,
then single rows by their number, then a later time. What is stepped over becomes a *gap*: a range
of its own, which the next run asks for again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from ..payloads import EPOCH, ConversationPage, ConversationPayload
from .walk import GROWTH, MILLISECOND, Query, Range, Tie, floor, key_of, newest_of, times_of

SMALLEST_PAGE = 2
"""The row that was reached, and the next one."""
MOST_FAILED_ROWS = 8
"""Rows in a row that fail; from then on a later time is tried."""
MOST_SINGLE_ROWS = 1000
STRIDE = 8
"""Factor between two times that are tried."""
MOST_HALVINGS = 45

Ask = Callable[[Query, bool], "ConversationPage | None"]
"""Ask once for a page, ascending or not; ``None``: it failed again."""


class NoAnswerError(Exception):
    """Bland answers for no part of the list: that is an outage, and nothing to step over."""


@dataclass
class Detour:
    """What came of it."""

    found: list[ConversationPayload] = field(default_factory=list)
    """Rows that were read one by one."""
    gap: Range | None = None


def step_over(range_: Range, query: Query, ask: Ask) -> Detour:
    """Move the range on from a page that fails.

    Raises:
        NoAnswerError: Bland answers for nothing here.
        BlandError: as ``ask`` raises it; the range has not moved.
    """
    if query.page == 1 and _shrink(range_, query, ask):
        return Detour()
    newest, detour = _newest(query, ask), Detour()
    if not _by_number(range_, query, ask, detour):
        detour.gap = _by_time(range_, query, ask, newest)
    return detour


def _newest(query: Query, ask: Ask) -> datetime | None:
    """The list's newest time, where Bland tells it. Raises NoAnswerError: it tells nothing."""
    newest = ask(Query(query.sort_by, 1, 1, None, None), False)
    if newest is not None:
        return newest_of(newest, query.sort_by)
    others = (replace(query, page=1, page_size=1), Query(query.sort_by, 1, 1, None, None))
    if all(ask(other, True) is None for other in others):
        raise NoAnswerError
    return None


def _shrink(range_: Range, query: Query, ask: Ask) -> bool:
    """Whether a smaller page is answered and leads on."""
    size = query.page_size
    while size > SMALLEST_PAGE:
        size = max(SMALLEST_PAGE, size // GROWTH)
        page = ask(replace(query, page_size=size), True)
        if page is not None and _is_later(page, query):
            range_.page_limit = size
            return True
    return False


def _by_number(range_: Range, query: Query, ask: Ask, detour: Detour) -> bool:
    """Read row after row, leaving out those that fail; False where too many do."""
    first = (query.page - 1) * query.page_size + 1
    failed = failed_in_a_row = 0
    for number in range(first, first + MOST_SINGLE_ROWS):
        page = ask(replace(query, page=number, page_size=1), True)
        if page is None:
            failed, failed_in_a_row = failed + 1, failed_in_a_row + 1
            if failed_in_a_row == MOST_FAILED_ROWS:
                return False
            continue
        failed_in_a_row = 0
        if page.row_count == 0:
            break
        if failed and _is_later(page, query):
            detour.gap = range_.skip_to(newest_of(page, query.sort_by))
            return True
        seen = range_.tie.seen
        detour.found += [p for p in page.conversations if key_of(p, query.sort_by) not in seen]
        if not failed and number >= first + query.page_size:
            break
    if failed:
        detour.gap = range_.skip_to(None)
    else:  # it answers again
        range_.tie, range_.page_limit = Tie(seen=range_.tie.seen), SMALLEST_PAGE
        detour.found.clear()
    return True


def _by_time(range_: Range, query: Query, ask: Ask, newest: datetime | None) -> Range:
    """Go on at the earliest time found that Bland answers for."""
    begin = query.at_least or EPOCH
    last = query.before or newest
    low, stride = begin, MILLISECOND
    page: ConversationPage | None = None
    while page is None:
        if last is None or low >= last:
            return range_.skip_to(None)
        high = min(floor(begin + stride), last)  # what comes last is tried too
        page = ask(replace(query, page=1, page_size=1, at_least=high), True)
        if page is None:
            low, stride = high, stride * STRIDE
    for _ in range(MOST_HALVINGS):
        if high - low <= MILLISECOND:
            break
        middle = floor(low + (high - low) / 2)
        earlier = ask(replace(query, page=1, page_size=1, at_least=middle), True)
        if earlier is None:
            low = middle
        else:
            high, page = middle, earlier
    return range_.skip_to(_first_time(page, query))


def _first_time(page: ConversationPage, query: Query) -> datetime | None:
    times = times_of(page, query.sort_by)
    return floor(times[0]) if times else None


def _is_later(page: ConversationPage, query: Query) -> bool:
    newest = newest_of(page, query.sort_by)
    return newest is not None and (query.at_least is None or newest > query.at_least)
