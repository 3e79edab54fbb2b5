"""What a run reads, and what follows each page: decided without any connection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bland_sms.models import SyncRun
from bland_sms.payloads import ConversationPage, ConversationPayload
from bland_sms.sync import stepping
from bland_sms.sync.plan import OVERLAP, cursor_of, mode_of, plan
from bland_sms.sync.stepping import MOST_FAILED_ROWS, NoAnswerError, step_over
from bland_sms.sync.walk import (
    GROWTH,
    SMALLEST_SPLIT,
    Advance,
    Covered,
    DisobeyedError,
    End,
    NewPass,
    NextPage,
    Query,
    Range,
    SortBy,
    Step,
    Tie,
    check,
    classify,
    floor,
    key_of,
)

NOON = datetime(2026, 2, 3, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)


def at(hours: float) -> datetime:
    return NOON + hours * HOUR


def page(*hours: float | None, refused: int = 0) -> ConversationPage:
    """Rows that were made so many hours after noon, with ids by their place and time."""
    rows = tuple(
        ConversationPayload(
            id=f"c{place}_{hour}".replace(".", "-"),
            is_active=True,
            updated_at=NOON,
            created_at=None if hour is None else at(hour),
        )
        for place, hour in enumerate(hours)
    )
    return ConversationPage(
        conversations=rows,
        refused=frozenset(f"odd{number}" for number in range(refused)),
        row_count=len(rows) + refused,
        observed_at=NOON,
        answered_at=NOON,
    )


def query(
    at_least: float | None = None, *, number: int = 1, size: int = 3, before: float | None = None
) -> Query:
    return Query(
        "created_at",
        number,
        size,
        None if at_least is None else at(at_least),
        None if before is None else at(before),
    )


def keys(*pages: ConversationPage) -> set[tuple[str, datetime | None]]:
    return {key_of(payload, "created_at") for one in pages for payload in one.conversations}


TIE = page(1, 1, 1)
TABLE: list[tuple[str, ConversationPage, Query, Tie, Step]] = [
    ("first page of all", page(0, 1, 2), query(), Tie(), Advance(at(2))),
    ("page that moves on", page(0, 1, 2), query(0), Tie(), Advance(at(2))),
    ("page that moves on at its last row", page(1, 1, 2), query(1), Tie(), Advance(at(2))),
    ("full page of one time", TIE, query(1), Tie(), NextPage()),
    ("short page of one time", page(1), query(1), Tie(), NextPage()),
    ("no usable time", page(None, None), query(1), Tie(), NextPage()),
    ("no usable time, first page", page(None), query(), Tie(), NextPage()),
    ("nothing readable", page(refused=3), query(1), Tie(), NextPage()),
    ("nothing in the range", page(), query(1), Tie(), End()),
    (
        "empty page after a short one",
        page(),
        query(1, number=2),
        Tie(is_first_page_short=True),
        End(),
    ),
    ("empty page after a full one", page(), query(1, number=2), Tie(listed=keys(TIE)), NewPass()),
    (
        "the same rows in two passes",
        page(),
        query(1, number=2),
        Tie(listed=keys(TIE), listed_before=keys(TIE), passes=1),
        End(),
    ),
    (
        "rows left between two passes",
        page(1, 2),
        query(1, number=2),
        Tie(listed=keys(page(1, 1)), listed_before=keys(TIE), passes=1),
        NewPass(),
    ),
    (
        "the same rows, and later ones",
        page(1, 2),
        query(1, number=2),
        Tie(listed=keys(TIE), listed_before=keys(TIE), passes=1),
        Advance(at(2)),
    ),
    (
        "rows that never hold still, without news",
        page(2),
        query(1, number=2),
        Tie(listed=keys(page(1)), listed_before=keys(TIE), passes=20),
        Advance(at(2)),
    ),
    (
        "rows that never hold still, with news",
        page(2),
        query(1, number=2),
        Tie(listed=keys(page(1)), listed_before=keys(TIE), passes=20, has_news=True),
        NewPass(),
    ),
    (
        "few enough passes",
        page(2),
        query(1, number=2),
        Tie(listed=keys(page(1)), listed_before=keys(TIE), passes=19),
        NewPass(),
    ),
]


@pytest.mark.parametrize(
    ("told", "asked", "tie", "step"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_classify(told: ConversationPage, asked: Query, tie: Tie, step: Step) -> None:
    assert classify(told, asked, tie) == step


@pytest.mark.parametrize(
    ("told", "asked", "is_right"),
    [
        (page(0, 1, 2), query(0), True),
        (page(0, 1, 2, 3), query(0), False),
        (page(1, 0), query(0), False),
        (page(0, 1), query(0.5), False),
        (page(0, 1), query(0, before=1), False),
        (page(0, 1), query(0, before=1.5), True),
        (page(0, None, 1), query(0), True),
        (page(), query(0), True),
        (page(refused=4), query(0), False),
    ],
    ids=[
        "as asked",
        "longer than asked",
        "not in order",
        "before the range",
        "at the end of the range",
        "within the range",
        "a row without a time",
        "empty",
        "longer, unreadable",
    ],
)
def test_check(told: ConversationPage, asked: Query, is_right: bool) -> None:
    if is_right:
        check(told, asked)
    else:
        with pytest.raises(DisobeyedError):
            check(told, asked)


@pytest.mark.parametrize(
    ("reached", "told", "asked", "is_doubtful"),
    [
        (0, page(0, 1), query(0), False),
        (0, page(1, 2), query(0), True),  # the row that was reached is not in it
        (0, page(), query(0), True),
        (0, page(None), query(0), True),
        (None, page(1, 2), query(), False),
        (None, page(), query(), True),
        (0, page(), query(0, number=2), False),
        (0, page(1), query(0, number=2), False),
    ],
)
def test_is_doubtful(
    reached: float | None, told: ConversationPage, asked: Query, is_doubtful: bool
) -> None:
    range_ = Range("created_at", reached=None if reached is None else at(reached))
    assert range_.is_doubtful(told, asked) is is_doubtful


def test_range__takes_what_is_new_and_says_what_it_covered() -> None:
    range_ = Range("created_at")
    first = range_.take(page(0, 1, 2), range_.next_query(3))
    assert [p.created_at for p in first.fresh] == [at(0), at(1), at(2)]
    assert first.covered is not None
    assert (first.covered.begin, first.covered.until) == (None, at(2))
    told = page(0, 1, 2)
    again = ConversationPage(
        conversations=(told.conversations[2], *page(3, 4).conversations),
        refused=frozenset(),
        row_count=3,
        observed_at=NOON,
        answered_at=NOON,
    )
    second = range_.take(again, range_.next_query(3))
    assert [p.created_at for p in second.fresh] == [at(3), at(4)]
    assert second.covered is not None
    assert (second.covered.begin, second.covered.until) == (at(2), at(4))
    assert second.covered.ids >= {p.id for p in again.conversations}


def test_range__a_page_of_a_tie_that_is_repeated_is_refused() -> None:
    range_ = Range("created_at", begin=at(1), reached=at(1))
    range_.take(TIE, range_.next_query(3))
    with pytest.raises(DisobeyedError):
        range_.take(TIE, range_.next_query(3))


def test_range__small_pages_are_not_short_ones() -> None:
    range_ = Range("created_at")
    range_.take(page(0, 1, 2), range_.next_query(3))
    range_.page_limit = 2
    range_.take(page(2, 2), range_.next_query(3))
    assert not range_.tie.is_first_page_short


def test_range__times_are_floored_to_milliseconds() -> None:
    odd = ConversationPayload(
        id="c", is_active=True, updated_at=NOON, created_at=NOON + timedelta(microseconds=1999)
    )
    told = ConversationPage(
        conversations=(odd,),
        refused=frozenset(),
        row_count=1,
        observed_at=NOON,
        answered_at=NOON,
    )
    range_ = Range("created_at")
    range_.take(told, range_.next_query(3))
    assert range_.reached == NOON + timedelta(milliseconds=1)
    assert range_.next_query(3).filters()[0].value == "2026-02-03T12:00:00.001Z"


def test_query__asks_by_its_own_time_from_its_begin_and_before_its_end() -> None:
    range_ = Range("updated_at", begin=at(0), until=at(3), reached=at(1))

    asked = range_.next_query(5)

    assert asked == Query("updated_at", 1, 5, at(1), at(3))
    assert [(one.field, one.operator, one.value) for one in asked.filters()] == [
        ("updated_at", "gte", "2026-02-03T13:00:00.000Z"),
        ("updated_at", "lt", "2026-02-03T15:00:00.000Z"),
    ]
    assert Range("updated_at").next_query(5).filters() == []


def test_range__at_its_end() -> None:
    range_ = Range("created_at", begin=at(0), until=at(9), reached=at(1))
    range_.take(page(1, 1, 1), range_.next_query(3))
    range_.take(page(), range_.next_query(3))  # read by page number, twice
    range_.take(page(1, 1, 1), range_.next_query(3))
    assert range_.is_open

    covered = range_.take(page(), range_.next_query(3)).covered

    assert range_.is_done
    assert covered == Covered(at(1), at(9), frozenset(p.id for p in TIE.conversations))


@pytest.mark.parametrize(
    ("until", "end", "is_done"), [(None, 2, False), (5, 2, False), (2, 2, True), (1.5, 1.5, True)]
)
def test_range__end_that_moved_while_a_page_was_read(
    until: float | None, end: float, is_done: bool
) -> None:
    range_ = Range("created_at")
    asked = range_.next_query(3)
    range_.until = None if until is None else at(until)

    taken = range_.take(page(0, 1, 2), asked)

    assert taken.covered is not None
    assert (taken.covered.until, range_.is_done) == (at(end), is_done)
    expected = [hour for hour in (0, 1, 2) if until is None or hour < until]
    assert [p.created_at for p in taken.fresh] == [at(hour) for hour in expected]
    assert (range_.begin, range_.reached, range_.rows) == (at(2), at(2), len(expected))


def test_range__begins_where_it_began() -> None:
    range_ = Range("created_at", begin=at(0), until=at(9))
    range_.move(at(4))
    assert (range_.begin, range_.reached, range_.start) == (at(0), at(4), at(4))


def test_range__an_empty_page_of_a_tie_is_not_a_repeated_one() -> None:
    range_ = Range("created_at", begin=at(1), reached=at(1))
    range_.take(TIE, range_.next_query(3))

    taken = range_.take(page(), range_.next_query(3))

    assert (taken.fresh, taken.covered) == ([], None)
    assert (range_.tie.page, range_.tie.passes) == (1, 1)


def test_range__one_row_that_is_repeated_is_refused() -> None:
    range_ = Range("created_at", begin=at(1), reached=at(1))
    range_.take(page(1), range_.next_query(1))
    with pytest.raises(DisobeyedError):
        range_.take(page(1), range_.next_query(1))


def rows_of(*named: tuple[str, float]) -> ConversationPage:
    """A page of rows with these ids and times."""
    rows = tuple(
        ConversationPayload(id=pk, is_active=True, updated_at=NOON, created_at=at(hour))
        for pk, hour in named
    )
    return ConversationPage(
        conversations=rows,
        refused=frozenset(),
        row_count=len(rows),
        observed_at=NOON,
        answered_at=NOON,
    )


def test_range__a_tie_is_read_again_until_nothing_leaves_it() -> None:
    range_ = Range("created_at", begin=at(1), reached=at(1))
    asked, fresh = [], []
    for told in (
        rows_of(("a", 1), ("b", 1)),  # fewer than asked for: this server sends two
        rows_of(("c", 1), ("d", 1)),
        rows_of(),
        rows_of(("b", 1), ("c", 1)),  # "a" has left, which moved the others
        rows_of(("d", 1), ("e", 2)),
        rows_of(("b", 1), ("c", 1)),
        rows_of(("d", 1), ("e", 2)),
    ):
        query_ = range_.next_query(3)
        asked.append((query_.page, query_.page_size))
        range_.asked_again = 1
        taken = range_.take(told, query_)
        assert range_.asked_again == 0
        fresh.append("".join(p.id for p in taken.fresh))

    assert asked == [(1, 3), (2, 2), (3, 2), (1, 3), (2, 2), (1, 3), (2, 2)]
    assert fresh == ["ab", "cd", "", "", "", "", "e"]
    assert taken.covered == Covered(at(1), at(2), frozenset("abcde"))
    assert (range_.reached, range_.rows, range_.tie.seen) == (at(2), 5, {("e", at(2))})


def test_range__what_comes_after_a_tie_waits_for_its_last_pass() -> None:
    range_ = Range("created_at", begin=at(1), reached=at(1))
    fresh = []
    for told in (
        rows_of(("a", 1), ("b", 1)),
        rows_of(("c", 1), ("e", 2)),
        rows_of(("a", 1), ("b", 1)),
        rows_of(("c", 1), ("e", 2)),
    ):
        taken = range_.take(told, range_.next_query(2))
        fresh.append("".join(p.id for p in taken.fresh))

    assert fresh == ["ab", "c", "", "e"]


def test_range__the_first_page_of_a_tie_says_how_long_pages_are() -> None:
    range_ = Range("created_at", begin=at(1), reached=at(1))
    range_.take(rows_of(("a", 1), ("b", 1)), range_.next_query(3))
    range_.take(rows_of(("c", 1)), range_.next_query(3))
    assert (range_.next_query(3).page, range_.next_query(3).page_size) == (3, 2)


def test_range__unreadable_rows_of_a_tie_are_listed_again_in_the_next_pass() -> None:
    range_ = Range("created_at", begin=at(1), reached=at(1))
    range_.take(page(refused=3), range_.next_query(3))
    range_.take(page(), range_.next_query(3))
    assert range_.next_query(3).page == 1
    range_.take(page(refused=3), range_.next_query(3))
    assert (range_.next_query(3).page, range_.refused) == (2, 3)


def test_range__unreadable_rows_are_remembered_for_longer_than_a_page() -> None:
    range_ = Range("created_at")
    for number, odd in enumerate(("odd", "other", "odd")):
        told = replace(page(number), refused=frozenset([odd]), row_count=2)
        range_.take(told, range_.next_query(3))
    assert range_.refused == 2


def test_range__an_empty_page_after_a_short_one_is_the_end() -> None:
    range_ = Range("created_at")
    range_.take(page(0, 1, 2), range_.next_query(3))
    range_.take(rows_of(("last", 2)), range_.next_query(3))
    range_.take(page(), range_.next_query(3))
    assert range_.is_done


def test_range__rows_without_a_time_belong_to_the_tie_and_later_ones_do_not() -> None:
    range_ = Range("created_at", begin=at(1), reached=at(1))
    told = page(1, None)
    range_.take(told, range_.next_query(2))
    assert range_.tie.listed == keys(told)
    range_.take(rows_of(("d", 1), ("e", 2)), range_.next_query(2))
    assert range_.tie.listed_before == keys(told) | {("d", at(1))}


def test_range__news_keep_a_tie_open() -> None:
    range_ = Range("created_at", begin=at(1), reached=at(1))
    range_.tie.passes = 20
    range_.take(rows_of(("a", 1), ("b", 1)), range_.next_query(2))
    assert range_.tie.has_news
    range_.take(rows_of(), range_.next_query(2))
    assert (range_.tie.passes, range_.tie.has_news) == (21, False)
    range_.take(rows_of(("a", 1), ("c", 1)), range_.next_query(2))
    assert range_.tie.has_news
    range_.take(rows_of(("d", 2)), range_.next_query(2))
    assert (range_.tie.passes, range_.tie.has_news) == (22, False)
    range_.take(rows_of(("a", 1), ("c", 1)), range_.next_query(2))
    assert not range_.tie.has_news


def test_range__a_row_without_a_time_is_known_again() -> None:
    range_ = Range("created_at")
    assert len(range_.take(page(None, 1), range_.next_query(3)).fresh) == 2
    assert key_of(page(None).conversations[0], "created_at")[1] is None


def test_range__pages_grow_again() -> None:
    range_ = Range("created_at")
    range_.page_limit = 3
    range_.take(page(0, 1, 2), range_.next_query(50))
    assert range_.next_query(50).page_size == range_.page_limit == 3 * GROWTH


def test_range__a_gap_is_left_to_the_next_run() -> None:
    range_ = Range("created_at", begin=at(0), until=at(9), reached=at(1))

    assert range_.skip_to(at(3)) == Range("created_at", begin=at(1), until=at(3), is_gap=True)
    assert (range_.begin, range_.reached, range_.is_open) == (at(0), at(3), True)
    assert range_.skip_to(None) == Range("created_at", begin=at(3), until=at(9), is_gap=True)
    assert not range_.is_open


def test_range__split_in_the_middle() -> None:
    range_ = Range("created_at", begin=at(0), until=at(9), reached=at(1))

    assert range_.split() == Range("created_at", begin=at(5), until=at(9))
    assert range_ == Range("created_at", begin=at(0), until=at(5), reached=at(1))
    for begin, until in ((None, at(9)), (at(0), None), (at(0), at(0) + SMALLEST_SPLIT / 2)):
        assert Range("created_at", begin=begin, until=until).split() is None
    assert Range("created_at", begin=at(0), until=at(0) + SMALLEST_SPLIT).split() is not None


@pytest.mark.parametrize(
    ("values", "left"),
    [
        ({}, 80),
        ({"until": None}, 0),
        ({"begin": None}, 0),
        ({"reached": None}, 0),
        ({"reached": at(0)}, 0),
        ({"is_done": True}, 0),
        ({"is_gap": True}, 0),
        ({"until": at(1) + SMALLEST_SPLIT / 2}, 0),
        ({"until": at(1) + SMALLEST_SPLIT}, 10 * (SMALLEST_SPLIT / HOUR)),
        ({"until": at(1) + HOUR / 2}, 5),
    ],
    ids=str,
)
def test_range__rows_left(values: dict[str, Any], left: float) -> None:
    known = {"begin": at(0), "reached": at(1), "until": at(9), "rows": 10}
    assert Range("created_at", **{**known, **values}).rows_left() == left


@pytest.mark.parametrize("sort_by", ["created_at", "updated_at"])
def test_range__remembers_by_which_time_it_reads(sort_by: SortBy) -> None:
    range_ = Range(sort_by, begin=at(0), until=at(9), reached=at(1))
    for other in ("created_at", "updated_at"):
        assert Range.from_json(range_.to_json(), cast(SortBy, other)) == range_
    assert range_.afresh() == range_


@pytest.mark.parametrize(
    ("microsecond", "floored"), [(0, 0), (999, 0), (1000, 1000), (2000, 2000), (999999, 999000)]
)
def test_floor(microsecond: int, floored: int) -> None:
    assert floor(NOON.replace(microsecond=microsecond)) == NOON.replace(microsecond=floored)


def test_range__unreadable_rows_count_once() -> None:
    range_ = Range("created_at")
    range_.take(page(0, 1, refused=1), range_.next_query(3))
    range_.take(page(1, 2, refused=2), range_.next_query(4))
    assert range_.refused == 2


# --- the plan ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("full", "since", "watermark", "mode"),
    [
        (False, None, None, "full"),
        (True, None, NOON, "full"),
        (False, None, NOON, "incremental"),
        (False, NOON, None, "incremental"),
    ],
    ids=["first run", "asked for", "changes", "since"],
)
def test_mode(full: bool, since: datetime | None, watermark: datetime | None, mode: str) -> None:
    assert mode_of(full=full, since=since, watermark=watermark) == mode


@pytest.mark.parametrize(
    ("since", "watermark", "begin", "kept"),
    [
        (None, at(0), at(0) - timedelta(minutes=10), at(0)),
        (at(-1), at(0), at(-1), at(0)),
        (at(0), at(0), at(0), at(0)),
        (at(1), at(0), at(1), None),
        (at(1), None, at(1), None),
    ],
    ids=["overlap", "since before", "since just then", "a gap before it", "nothing known"],
)
def test_plan__changes(
    since: datetime | None, watermark: datetime | None, begin: datetime, kept: datetime | None
) -> None:
    planned = plan(mode="incremental", since=since, watermark=watermark, interrupted=None)
    assert planned.ranges == (Range("updated_at", begin=begin),)
    assert (planned.mode, planned.watermark, planned.resumes) == ("incremental", kept, False)


def test_plan__everything() -> None:
    planned = plan(mode="full", since=None, watermark=at(0), interrupted=None)
    assert planned.ranges == (Range("created_at"),)
    assert (planned.mode, planned.watermark, planned.resumes) == ("full", None, False)


def test_plan__goes_on_where_another_run_stopped() -> None:
    left = [
        Range("created_at", begin=at(0), until=at(2), reached=at(1)),
        Range("updated_at", begin=at(5)),
    ]
    stopped = SyncRun(mode="full", cursor=[one.to_json() for one in left], watermark=at(3))
    planned = plan(mode="full", since=None, watermark=None, interrupted=stopped)
    assert planned.ranges == tuple(left)
    assert (planned.mode, planned.watermark, planned.resumes) == ("full", at(3), True)


@pytest.mark.parametrize(
    ("mode", "sort_by"), [("full", "created_at"), ("incremental", "updated_at")]
)
def test_plan__ranges_without_a_time_of_their_own(mode: str, sort_by: SortBy) -> None:
    stopped = SyncRun(mode=mode, cursor=[Range(sort_by, begin=at(0)).to_json()[:3]])
    planned = plan(mode=mode, since=None, watermark=None, interrupted=stopped)
    assert planned.ranges == (Range(sort_by, begin=at(0)),)


DONE = Range("created_at", begin=at(0), until=at(1), reached=at(1), is_done=True)
OPEN = Range("created_at", begin=at(1), until=at(3), reached=at(2))
GAP = Range("created_at", begin=at(4), until=at(5), is_gap=True)
LAST_OPEN = Range("created_at", begin=at(5))
CHANGES_DONE = Range("updated_at", begin=at(1), reached=at(6), is_done=True)
CHANGES_OPEN = Range("updated_at", begin=at(1), reached=at(6))
CHANGES_GAP = Range("updated_at", begin=at(4), until=at(5), is_gap=True)


@pytest.mark.parametrize(
    ("mode", "ranges", "left"),
    [
        ("full", [DONE, OPEN], [OPEN]),
        ("full", [DONE], []),
        ("full", [DONE, OPEN, GAP], [OPEN, GAP]),
        ("full", [DONE, GAP], [GAP, Range("updated_at", begin=at(7) - OVERLAP)]),
        ("full", [GAP, CHANGES_DONE], [GAP, Range("updated_at", begin=at(6))]),
        (
            "full",
            [Range("created_at", reached=at(6), is_done=True), GAP],
            [GAP, Range("updated_at", begin=at(7) - OVERLAP)],
        ),
        ("incremental", [CHANGES_OPEN, CHANGES_GAP], [CHANGES_OPEN, CHANGES_GAP]),
        ("incremental", [CHANGES_DONE], []),
        (
            "incremental",
            [CHANGES_DONE, CHANGES_GAP],
            [CHANGES_GAP, Range("updated_at", begin=at(6))],
        ),
        (
            "incremental",
            [CHANGES_GAP, CHANGES_DONE],
            [CHANGES_GAP, Range("updated_at", begin=at(6))],
        ),
        (
            "full",
            [GAP, LAST_OPEN, CHANGES_DONE],
            [GAP, LAST_OPEN, Range("updated_at", begin=at(6))],
        ),
    ],
    ids=[
        "what is open",
        "nothing",
        "gaps too",
        "a gap of everything hides no changes",
        "nor do they begin anew",
        "nor where everything was read in one piece",
        "changes that are open are gone on with",
        "no changes left",
        "a gap of changes hides no later ones",
        "in whatever order",
        "nor does what is open at the end of everything",
    ],
)
def test_cursor(mode: str, ranges: list[Range], left: list[Range]) -> None:
    stored = cursor_of(mode, ranges, at(7))
    assert [Range.from_json(one, "created_at") for one in stored] == [
        Range(one.sort_by, begin=one.begin, until=one.until, reached=one.reached) for one in left
    ]


def test_cursor__without_a_watermark_a_gap_is_all_that_is_left() -> None:
    assert cursor_of("full", [DONE, GAP], None) == [GAP.to_json()]


# --- what Bland cannot answer for -------------------------------------------------------------

MS = 1 / 3_600_000  # in hours


class Poisoned:
    """A list of rows; a page with one that is poisoned fails for ever."""

    def __init__(self, times: list[int], poison: set[int]) -> None:
        """Args: ``times`` in milliseconds; ``poison``: places in the list."""
        self.rows = [(f"c{place:03d}", moment * MS) for place, moment in enumerate(sorted(times))]
        self.poison = {self.rows[place][0] for place in poison}
        self.requests = 0
        self.outage = 0
        """Requests that fail before Bland answers again."""

    def ask(self, asked: Query, ascending: bool) -> ConversationPage | None:
        self.requests += 1
        assert self.requests < 2000, "it ends"
        assert asked.page >= 1
        if self.requests <= self.outage:
            return None
        rows = [
            row
            for row in self.rows
            if (asked.at_least is None or at(row[1]) >= asked.at_least)
            and (asked.before is None or at(row[1]) < asked.before)
        ]
        begin = (asked.page - 1) * asked.page_size
        some = (rows if ascending else rows[::-1])[begin : begin + asked.page_size]
        return None if self.poison & {pk for pk, _ in some} else rows_of(*some)

    def walk(self, range_: Range, page_size: int) -> tuple[set[str], list[Range]]:
        """What arrived, and the gaps."""
        arrived: set[str] = set()
        gaps: list[Range] = []
        while range_.is_open:
            asked = range_.next_query(page_size)
            told = self.ask(asked, True)
            if told is not None:
                arrived |= {p.id for p in range_.take(told, asked).fresh}
                continue
            detour = step_over(range_, asked, self.ask)
            arrived |= {p.id for p in detour.found}
            gaps += [detour.gap] if detour.gap is not None else []
        return arrived, gaps


def is_in(gap: Range, moment: datetime) -> bool:
    is_later = gap.begin is None or gap.begin <= moment
    return gap.is_gap and is_later and (gap.until is None or moment < gap.until)


@settings(max_examples=150)
@given(
    times=st.lists(st.integers(0, 40) | st.sampled_from([3, 3, 50, 5000]), min_size=1, max_size=30),
    data=st.data(),
)
def test_step_over__what_did_not_arrive_is_in_a_gap(times: list[int], data: st.DataObject) -> None:
    bland = Poisoned(times, data.draw(st.sets(st.integers(0, len(times) - 1))))
    try:
        arrived, gaps = bland.walk(Range("created_at"), data.draw(st.integers(2, 6)))
    except NoAnswerError:
        assert bland.poison >= {bland.rows[0][0], bland.rows[-1][0]}
        return
    assert len(bland.poison) < len(bland.rows), "an outage is not stepped over"
    for pk, hour in bland.rows:
        assert pk in arrived or any(is_in(gap, at(hour)) for gap in gaps)
    assert arrived.isdisjoint(bland.poison)
    if len(bland.poison) < MOST_FAILED_ROWS:  # neighbours are read one by one
        assert arrived == {pk for pk, _ in bland.rows} - bland.poison
    first = min((row for row in bland.rows if row[0] in bland.poison), default=bland.rows[-1])
    assert arrived >= {pk for pk, _ in bland.rows if pk < first[0]}
    last = {pk for pk, hour in bland.rows if hour == bland.rows[-1][1]}
    assert last <= arrived or last & bland.poison


@pytest.mark.parametrize(
    ("number", "poison", "until"),
    [
        (40, range(15, 25), 25),
        (40, range(8), 8),
        (40, range(30, 39), 39),  # only the last one is left
        (40, range(7, 8), 8),
        (300, range(20, 250), 250),
        (40, range(30, 40), None),  # Bland does not tell how far the list goes
    ],
)
@pytest.mark.parametrize("end", [None, 5000])
def test_step_over__a_long_stretch(
    number: int, poison: range, until: int | None, end: int | None
) -> None:
    """Every 10 milliseconds one row."""
    bland = Poisoned([10 * place for place in range(number)], set(poison))
    range_ = Range("created_at", until=None if end is None else at(end * MS))

    arrived, gaps = bland.walk(range_, page_size=5)

    assert arrived == {pk for pk, _ in bland.rows} - bland.poison
    [gap] = gaps
    before = None if poison.start == 0 else at(10 * (poison.start - 1) * MS)
    assert (gap.begin, gap.until) == (before, at(10 * until * MS) if until else range_.until)
    assert bland.requests <= number / 4 + 70


@pytest.mark.parametrize("place", [0, 1, 49, 50, 77, 99])
def test_step_over__a_row_costs_few_requests(place: int) -> None:
    """Larger pages first, and smaller ones only around it."""
    bland = Poisoned(list(range(100)), {place})
    arrived, _gaps = bland.walk(Range("created_at"), page_size=50)
    assert len(arrived) == 99
    assert bland.requests <= 30


@pytest.mark.parametrize("tie", [1, 7, 40])
def test_step_over__a_page_that_fails_only_once_leaves_no_gap(tie: int) -> None:
    """It failed, and so did a smaller one; row by row Bland answers."""
    bland = Poisoned([*range(60), *[60] * tie], set())
    bland.outage = 2
    arrived, gaps = bland.walk(Range("created_at"), page_size=5)
    assert (len(arrived), gaps) == (60 + tie, [])
    assert bland.requests <= 30 + tie / 2


@pytest.mark.parametrize(
    ("poison", "arrives"),
    [
        (range(2, 21, 2), 10),  # more than are given up for, but never so many in a row
        ([*range(1, 8), *range(9, 16)], 6),
        (range(1, 9), 0),
        (range(5, 13), 4),
    ],
    ids=str,
)
def test_step_over__rows_of_a_tie(poison: Sequence[int], arrives: int) -> None:
    """Of 20 rows, which no later time leads past, until so many in a row fail."""
    bland = Poisoned([0, *[5] * 20, 9], set(poison))
    arrived, gaps = bland.walk(Range("created_at"), page_size=5)
    assert len(arrived) == 2 + arrives
    assert {"c000", "c021"} <= arrived
    assert gaps[-1].until == at(9 * MS)


def test_step_over__a_second_row_behind_a_long_stretch() -> None:
    bland = Poisoned(list(range(0, 400, 10)), {*range(15, 25), 27})
    arrived, gaps = bland.walk(Range("created_at"), page_size=5)
    assert arrived == {pk for pk, _ in bland.rows} - bland.poison
    assert [gap.until for gap in gaps] == [at(250 * MS), at(280 * MS)]


def test_step_over__nothing_is_found_behind_a_long_stretch() -> None:
    """The newest row is told, but shares its time with one that fails."""
    bland = Poisoned([0, *range(10, 90, 10), 90, 90], set(range(1, 10)))
    arrived, gaps = bland.walk(Range("created_at"), page_size=5)
    assert arrived == {"c000"}
    assert gaps[-1] == Range("created_at", begin=at(0), is_gap=True)


@pytest.mark.parametrize(
    ("told", "asked", "is_later"),
    [
        (page(0, 1), query(0), True),
        (page(0, 0), query(0), False),
        (page(), query(0), False),
        (page(None), query(), False),
        (page(0), query(), True),
    ],
)
def test_is_later(told: ConversationPage, asked: Query, is_later: bool) -> None:
    assert stepping._is_later(told, asked) is is_later
