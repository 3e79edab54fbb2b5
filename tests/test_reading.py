"""How the list is read: what follows each answer, without a connection or a thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from django.utils.dateparse import parse_datetime

from bland_sms.client import BlandClient
from bland_sms.exceptions import (
    BlandAPIError,
    BlandAuthenticationError,
    BlandConnectionError,
    BlandError,
    BlandNotSentError,
    BlandOutcomeUnknownError,
    BlandPayloadError,
    BlandUnavailableError,
    GaveUp,
)
from bland_sms.models import SyncRun
from bland_sms.pacing import Allowance, RetryBudget
from bland_sms.payloads import ConversationPage
from bland_sms.sync.plan import Plan
from bland_sms.sync.reading import Reader, span_words
from bland_sms.sync.walk import Query, Range
from bland_sms.threads import Pool

from .test_walk import NOON, at, page, rows_of

Told = ConversationPage | BlandError


@dataclass(frozen=True)
class Asked:
    """One request for a page."""

    query: Query
    dialect: str
    ascending: bool
    attempts: int | None


class Desk:
    """A list of ten rows, one an hour, and a reader of it, in the test's own thread.

    ``fails`` says for each request whether it fails, and how.
    """

    def __init__(
        self,
        fails: Callable[[Asked], Told | None] = lambda asked: None,
        *,
        dialect: str = "a",
        mode: str = "incremental",
        ranges: tuple[Range, ...] = (Range("created_at", begin=at(0)),),
        allowance: Allowance | None = None,
        hours: range = range(10),
        watermark: datetime | None = NOON,
        dry_run: bool = True,
    ) -> None:
        self.fails = fails
        self.rows = [(f"c{hour}", float(hour)) for hour in hours]
        self.asked: list[Asked] = []
        self.renewed = self.side_by_side = 0
        self.covered: list[tuple[datetime | None, datetime | None]] = []
        self.odd: set[str] = set()
        settings = SimpleNamespace(page_size=4, list_dialect=dialect)
        client = SimpleNamespace(settings=settings, list_conversations=self._list)
        self.reader = Reader(
            SyncRun(mode=mode),
            Plan(mode=mode, ranges=ranges, watermark=watermark),
            cast(BlandClient, client),
            allowance or Allowance(budget=RetryBudget()),
            dry_run=dry_run,
            keep_lease=self._keep_lease,
        )

    def _keep_lease(self) -> None:
        self.renewed += 1

    def _list(self, *, filters: list[Any], **asked: Any) -> ConversationPage:
        bounds = {one.operator: parse_datetime(one.value) for one in filters}
        query = Query(
            asked["sort_by"],
            asked["page"],
            asked["page_size"],
            bounds.get("gte"),
            bounds.get("lt"),
        )
        one = Asked(query, asked["dialect"], asked["ascending"], asked["allowance"].attempts)
        self.asked.append(one)
        assert len(self.asked) < 500, "it ends"
        told = self.fails(one)
        if isinstance(told, BlandError):
            raise told
        return self.page(one) if told is None else told

    def page(self, asked: Asked) -> ConversationPage:
        query = asked.query
        rows = [
            row
            for row in self.rows
            if (query.at_least is None or at(row[1]) >= query.at_least)
            and (query.before is None or at(row[1]) < query.before)
        ]
        begin = (query.page - 1) * query.page_size
        return rows_of(*(rows if asked.ascending else rows[::-1])[begin : begin + query.page_size])

    def submit(self, work: Callable[..., Any], *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*args))
        except BlandError as error:
            future.set_exception(error)
        return future

    def read(self, *, one_by_one: bool = False) -> set[str]:
        """Read to the end; the rows that arrived."""
        arrived: set[str] = set()
        while True:
            self.reader.submit(cast(Pool, self))
            if not self.reader.in_flight:
                return arrived
            busy = {id(range_) for range_, *_ in self.reader.in_flight.values()}
            assert len(busy) == len(self.reader.in_flight), "each range reads one page at a time"
            self.side_by_side = max(self.side_by_side, len(busy))
            for future in list(self.reader.in_flight)[: 1 if one_by_one else None]:
                self.reader.take(future)
            batch = self.reader.take_batch()
            arrived |= {payload.id for payload in batch.fresh}
            self.covered += [(one.begin, one.until) for one in batch.covered]
            self.odd |= batch.odd

    @property
    def gaps(self) -> list[tuple[Any, Any]]:
        return [(gap.begin, gap.until) for gap in self.reader.gaps]


ALL = {f"c{hour}" for hour in range(10)}
FOUR = tuple(Range("created_at", begin=at(n), until=at(n + 3)) for n in (0, 3, 6, 9))


def failed(error: BlandError, gave_up: GaveUp | None = GaveUp.ATTEMPTS) -> BlandError:
    error.gave_up = gave_up
    return error


STEPPED_OVER: list[Callable[[], BlandError]] = [
    lambda: failed(BlandUnavailableError(500)),
    lambda: failed(BlandUnavailableError(503)),
    lambda: failed(BlandOutcomeUnknownError()),
    lambda: failed(BlandPayloadError(), None),
]
PASSING: list[Callable[[], BlandError]] = [
    lambda: failed(BlandUnavailableError(429)),
    lambda: failed(BlandUnavailableError(408)),
    lambda: failed(BlandConnectionError()),
]
"""They say nothing of the rows that were asked for."""
ENDING: list[Callable[[], BlandError]] = [
    lambda: failed(BlandUnavailableError(500), GaveUp.BUDGET),
    lambda: failed(BlandUnavailableError(500), GaveUp.TIME),
    lambda: failed(BlandUnavailableError(500), GaveUp.PATIENCE),
    lambda: failed(BlandUnavailableError(429), GaveUp.PATIENCE),
    lambda: failed(BlandConnectionError(), GaveUp.BUDGET),
    lambda: failed(BlandAuthenticationError(401, "AUTH_FAILURE"), None),
    lambda: failed(BlandAPIError(400, "BAD_FILTER"), None),
]


def words(error: Any) -> str:
    made = error() if callable(error) else None
    if isinstance(made, ConversationPage):
        return f"{made.row_count} rows"
    return f"{type(made).__name__}-{made.status_code}-{made.gave_up}" if made else ""


@pytest.mark.parametrize("error", STEPPED_OVER, ids=words)
def test_failure__a_part_that_is_not_answered_for_is_stepped_over(
    error: Callable[[], BlandError],
) -> None:
    asked_in_vain: dict[int | None, set[Query]] = {1: set(), None: set()}

    def fails(asked: Asked) -> Told | None:
        rows = {payload.id for payload in desk.page(asked).conversations}
        if "c5" not in rows:
            return None
        asked_in_vain[asked.attempts].add(asked.query)
        return error()

    desk = Desk(fails)
    assert desk.read() == ALL - {"c5"}
    assert not desk.reader.problem
    assert asked_in_vain[1].isdisjoint(asked_in_vain[None])  # once, in a detour
    assert desk.gaps == [(at(4), at(6))]
    assert desk.renewed > 0  # before each request of the detour
    assert [one.attempts for one in desk.asked].count(1) == desk.renewed
    assert {one.dialect for one in desk.asked} == {"a"}


@pytest.mark.parametrize("error", [*PASSING, *ENDING], ids=words)
def test_failure__that_is_no_matter_of_rows_ends_the_run(error: Callable[[], BlandError]) -> None:
    desk = Desk(lambda asked: error() if len(desk.asked) > 1 else None)
    assert desk.read() == {"c0", "c1", "c2", "c3"}
    assert desk.reader.problem == error().failure
    assert len(desk.asked) == 2
    assert desk.gaps == []


@pytest.mark.parametrize("error", [*PASSING, *ENDING], ids=words)
@pytest.mark.parametrize("place", range(8))
def test_detour__meets_a_failure_that_is_no_matter_of_rows(
    place: int, error: Callable[[], BlandError]
) -> None:
    """What passes is asked for again, with retries; what does not pass ends the run."""
    is_passing = error in PASSING
    met = 0

    def fails(asked: Asked) -> Told | None:
        nonlocal met
        if asked.attempts == 1:
            met += 1
            if met == place + 1:
                return error()
        rows = {payload.id for payload in desk.page(asked).conversations}
        return failed(BlandUnavailableError(500)) if "c5" in rows else None

    desk = Desk(fails)
    arrived = desk.read()
    if is_passing or met <= place:
        assert arrived == ALL - {"c5"}
        assert not desk.reader.problem
        assert desk.gaps == [(at(4), at(6))]
    else:
        assert desk.reader.problem == error().failure
        assert met == place + 1
        assert desk.gaps == []
        assert [r.to_json() for r in desk.reader.ranges if not r.is_done]  # for the next run
    if met > place:
        once, again = ([one.query for one in desk.asked if one.attempts == n] for n in (1, None))
        assert (once[place] in again) is is_passing


@pytest.mark.parametrize("error", PASSING, ids=words)
def test_detour__meets_what_does_not_pass_after_all(error: Callable[[], BlandError]) -> None:
    def fails(asked: Asked) -> Told | None:
        if len(desk.asked) == 1:
            return None
        return error() if len(desk.asked) > 2 else failed(BlandUnavailableError(500))

    desk = Desk(fails)
    assert desk.read() == {"c0", "c1", "c2", "c3"}
    assert desk.reader.problem == error().failure
    assert len(desk.asked) == 4


@pytest.mark.parametrize("place", range(8))
def test_detour__a_page_that_is_wrong_is_no_answer(place: int) -> None:
    """Nothing of it is used: what does not arrive is in a gap."""
    met = 0

    def fails(asked: Asked) -> Told | None:
        nonlocal met
        if asked.attempts == 1:
            met += 1
            if met == place + 1 and asked.ascending:
                return rows_of(*[(f"old{n}", -9.0) for n in range(asked.query.page_size)])
        rows = {payload.id for payload in desk.page(asked).conversations}
        return failed(BlandUnavailableError(500)) if "c5" in rows else None

    desk = Desk(fails)
    arrived = desk.read()
    assert not desk.reader.problem
    assert arrived <= ALL
    for hour in range(10):
        is_in_gap = any(
            begin <= at(hour) and (not end or at(hour) < end) for begin, end in desk.gaps
        )
        assert f"c{hour}" in arrived or is_in_gap


@pytest.mark.parametrize(("tokens", "problem"), [(0, "http_500"), (1, "http_500"), (2, "")])
def test_detour__costs_one_retry(tokens: int, problem: str) -> None:
    """There are two: to smaller pages, and around the row."""

    def fails(asked: Asked) -> Told | None:
        rows = {payload.id for payload in desk.page(asked).conversations}
        return failed(BlandUnavailableError(500)) if "c5" in rows else None

    budget = RetryBudget(tokens=tokens)
    desk = Desk(fails, allowance=Allowance(budget=budget))
    desk.read()
    assert desk.reader.problem.code == problem
    assert budget.tokens == 0
    assert bool(desk.gaps) is not bool(problem)


@pytest.mark.parametrize(
    ("error", "seconds", "code"),
    [
        (failed(BlandUnavailableError(429)), None, "http_429"),
        (failed(BlandUnavailableError(429)), 60, "http_429"),
        (failed(BlandUnavailableError(429)), -1, "not_finished"),
        (BlandNotSentError(), None, "not_finished"),
    ],
)
def test_failure__when_the_time_is_up_is_none_of_blands(
    error: BlandError, seconds: float | None, code: str
) -> None:
    allowance = Allowance() if seconds is None else Allowance.of_seconds(seconds)
    desk = Desk(lambda asked: error, allowance=allowance)
    assert desk.read() == set()
    assert desk.reader.problem.code == code


# --- pages that are wrong, or may be -----------------------------------------------------------

DISOBEYED, EMPTY, BROKEN = "not what was asked for", "empty", "unreadable"


@pytest.mark.parametrize("is_spent", [False, True])
@pytest.mark.parametrize("wrong", range(5))
@pytest.mark.parametrize("kind", [DISOBEYED, EMPTY, BROKEN])
def test_wrong_page__is_asked_for_again(kind: str, wrong: int, is_spent: bool) -> None:
    """What is wrong for good twice in a row, what may be right once; without a budget never."""
    told: dict[str, Told] = {
        DISOBEYED: rows_of(("old", -9.0)),
        EMPTY: rows_of(),
        BROKEN: BlandPayloadError(),
    }

    def fails(asked: Asked) -> Told | None:
        return told[kind] if 2 <= len(desk.asked) < 2 + wrong else None

    budget = RetryBudget(tokens=1 if is_spent else 40, earned=0)
    if is_spent:
        budget.spend()
    desk = Desk(fails, allowance=Allowance(budget=budget))
    arrived = desk.read()
    again = 0 if is_spent else {DISOBEYED: 2, EMPTY: 1, BROKEN: 2}[kind]
    is_over = wrong > again
    if not is_over:
        assert (arrived, desk.reader.problem.code) == (ALL, "")
        clean = Desk()
        clean.read()
        assert len(desk.asked) == len(clean.asked) + wrong
        assert [r.asked_again for r in desk.reader.ranges] == [0]
        return
    if kind == DISOBEYED:
        assert desk.reader.problem.code == "list_untrusted"
        assert all(range_.is_done for range_ in desk.reader.ranges)  # no later run goes on there
    elif kind == EMPTY:  # it is believed
        assert desk.reader.problem.code == ""
    elif is_spent:
        assert desk.reader.problem.code == "bad_answer"
        assert not any(range_.is_done for range_ in desk.reader.ranges)
    else:  # a detour
        assert (arrived, desk.reader.problem.code) == (ALL, "")
        return
    assert arrived == {"c0", "c1", "c2", "c3"}
    assert len(desk.asked) == 2 + again


def test_wrong_pages__each_time_anew() -> None:
    """Asked for again means in a row."""

    def fails(asked: Asked) -> Told | None:
        return rows_of(("old", -9.0)) if len(desk.asked) % 3 else None

    desk = Desk(fails)
    assert desk.read() == ALL


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("mode", ["full", "incremental"])
@pytest.mark.parametrize("first", [DISOBEYED, EMPTY, BROKEN, "400", "500"])
@pytest.mark.parametrize(
    ("asked", "switches"), [("auto", True), ("a", False), ("b", False)], ids=str
)
def test_dialect__the_other_one_is_tried_once(
    asked: str,
    switches: bool,
    first: str,
    mode: str,
    dry_run: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: dict[str, Told] = {
        DISOBEYED: rows_of(("old", -9.0), ("older", -10.0)),
        EMPTY: rows_of(),
        BROKEN: BlandPayloadError(),
        "400": failed(BlandAPIError(400), None),
        "500": failed(BlandUnavailableError(500)),
    }
    monkeypatch.setattr("bland_sms.sync.runs.last_dialect", lambda: "")
    forgotten: list[bool] = []
    monkeypatch.setattr("bland_sms.sync.missing.forget", lambda: forgotten.append(True))
    spoken = "a" if asked == "b" else "b"
    ranges = (Range("created_at"),) if mode == "full" else (Range("created_at", begin=at(0)),)
    desk = Desk(
        lambda one: None if one.dialect == spoken else told[first],
        dialect=asked,
        mode=mode,
        ranges=ranges,
        dry_run=dry_run,
    )
    arrived = desk.read()
    if first == EMPTY:  # an empty list is one
        assert (arrived, desk.reader.problem.code) == (set(), "")
        assert desk.reader.is_proven is not switches
    elif switches:
        assert (arrived, desk.reader.problem.code) == (ALL, "")
        assert desk.reader.dialect == spoken
        assert desk.reader.is_proven
        assert desk.reader.run.watermark == at(0)
        assert forgotten == [True] * (mode == "full" and not dry_run)
    else:
        assert arrived == set()
        assert desk.reader.problem
        assert {one.dialect for one in desk.asked} == {asked}


@pytest.mark.parametrize(
    ("asked", "known", "expected", "is_proven"),
    [
        ("auto", "", "a", False),
        ("auto", "a", "a", True),
        ("auto", "b", "b", True),
        ("a", "b", "a", True),
        ("b", "a", "b", True),
    ],
)
def test_dialect__what_was_set_and_what_is_known(
    asked: str, known: str, expected: str, is_proven: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bland_sms.sync.runs.last_dialect", lambda: known)
    desk = Desk(dialect=asked, hours=range(1))
    assert (desk.reader.dialect, desk.reader.is_proven) == (expected, is_proven)
    desk.read()
    assert desk.reader.is_proven


@pytest.mark.parametrize("error", [*STEPPED_OVER, *PASSING, *ENDING], ids=words)
def test_dialect__what_was_asked_in_the_one_before_says_nothing(
    error: Callable[[], BlandError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four ranges were on their way when the first of them was refused."""
    monkeypatch.setattr("bland_sms.sync.runs.last_dialect", lambda: "")

    def fails(asked: Asked) -> Told | None:
        if asked.dialect == "b":
            return None
        return error() if len(desk.asked) > 1 else failed(BlandAPIError(400), None)

    desk = Desk(fails, dialect="auto", ranges=FOUR)
    assert (desk.read(), desk.reader.problem.code) == (ALL, "")
    assert [one.dialect for one in desk.asked].count("a") == 4


@pytest.mark.parametrize("known", ["", "a"])
@pytest.mark.parametrize("error", [*PASSING, *ENDING[:-1], STEPPED_OVER[0]], ids=words)
def test_dialect__is_not_to_blame(
    error: Callable[[], BlandError], known: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is one that Bland has obeyed before, whatever it does not answer for now."""
    monkeypatch.setattr("bland_sms.sync.runs.last_dialect", lambda: known)
    desk = Desk(lambda asked: error(), dialect="auto")
    assert desk.read() == set()
    is_tried = error is STEPPED_OVER[0] and not known
    assert {one.dialect for one in desk.asked} == ({"a", "b"} if is_tried else {"a"})
    assert desk.reader.problem == error().failure


@pytest.mark.parametrize("first", [rows_of(("old", -9.0)), failed(BlandAPIError(400), None)])
def test_dialect__that_was_obeyed_before_may_be_refused_now(
    first: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bland_sms.sync.runs.last_dialect", lambda: "b")
    desk = Desk(lambda asked: first if asked.dialect == "b" else None, dialect="auto")
    assert (desk.read(), desk.reader.problem.code) == (ALL, "")
    assert desk.reader.dialect == "a"


@pytest.mark.parametrize("mode", ["full", "incremental"])
def test_dialect__pages_that_only_looked_right_are_forgotten(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bland_sms.sync.runs.last_dialect", lambda: "")

    def fails(asked: Asked) -> Told | None:
        if asked.dialect == "b":
            return None
        if len(desk.asked) > 1:
            return failed(BlandAPIError(400), None)
        told = rows_of(("wrong", 1.0))
        rows = tuple(replace(one, updated_at=at(50)) for one in told.conversations)
        return replace(told, conversations=rows, answered_at=at(60))

    two = (Range("created_at", begin=at(0), until=at(5)), Range("created_at", begin=at(5)))
    desk = Desk(fails, dialect="auto", mode=mode, ranges=two)
    assert (desk.read(), desk.reader.problem.code) == (ALL, "")
    assert desk.reader.run.watermark == NOON


def test_dialect__what_is_read_anew_is_cut_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bland_sms.sync.runs.last_dialect", lambda: "")

    def fails(asked: Asked) -> Told | None:
        refused = asked.dialect == "a" and len(desk.asked) > 2
        return failed(BlandAPIError(400), None) if refused else None

    whole = (Range("created_at"),)
    desk = Desk(fails, dialect="auto", mode="full", ranges=whole, hours=range(400))
    assert len(desk.read()) == 400
    assert desk.side_by_side == 8


def test_failure__the_first_one_is_told() -> None:
    """Nothing more is asked after it, and what was on its way changes nothing of it."""
    errors = [ENDING[5](), STEPPED_OVER[0](), PASSING[0](), ENDING[0]()]
    desk = Desk(lambda asked: errors[len(desk.asked) - 1], ranges=FOUR)
    desk.read()
    assert desk.reader.problem == errors[0].failure
    assert len(desk.asked) == 4


@pytest.mark.parametrize("is_refused", [False, True])
@pytest.mark.parametrize("page_size", [2, 4])
def test_detour__past_a_long_stretch(page_size: int, is_refused: bool) -> None:
    """The question for the newest may have to be asked twice."""

    def fails(asked: Asked) -> Told | None:
        if is_refused and not asked.ascending and asked.attempts == 1:
            return PASSING[0]()
        rows = {payload.id for payload in desk.page(asked).conversations}
        return failed(BlandUnavailableError(500)) if rows & dead else None

    dead = {f"c{hour}" for hour in range(10, 26)}
    desk = Desk(fails, hours=range(40))
    desk.reader.client.settings.page_size = page_size  # type: ignore[misc]
    assert desk.read() == {f"c{hour}" for hour in range(40)} - dead
    assert desk.gaps == [(at(9), at(26))]


def test_detour__of_a_range_that_was_cut_while_its_page_was_on_its_way() -> None:
    def fails(asked: Asked) -> Told | None:
        rows = {payload.id for payload in desk.page(asked).conversations}
        if not rows & dead:
            return None
        ranges = desk.reader.ranges
        if len(ranges) == 1:
            ranges[0].until = at(20)
            ranges.append(Range("created_at", begin=at(20), until=at(40)))
        return failed(BlandUnavailableError(500))

    dead = {f"c{hour}" for hour in range(10, 26)}
    whole = (Range("created_at", begin=at(0), until=at(40)),)
    desk = Desk(fails, hours=range(40), ranges=whole)
    assert desk.read() == {f"c{hour}" for hour in range(40)} - dead
    gaps = sorted(desk.gaps)  # one after another, and none into another range
    assert [begin for begin, _ in gaps] == [at(9), *(end for _, end in gaps[:-1])]
    assert gaps[-1][1] == at(26)


def test_detour__row_by_row_among_rows_of_one_time() -> None:
    def fails(asked: Asked) -> Told | None:
        rows = {payload.id for payload in desk.page(asked).conversations}
        return failed(BlandUnavailableError(500)) if "tie5" in rows else None

    desk = Desk(fails)
    desk.rows = [*[(f"tie{number}", 5.0) for number in range(9)], ("later", 6.0)]
    assert desk.read() == {name for name, _ in desk.rows} - {"tie5"}
    assert desk.gaps == [(at(5), at(6))]


def test_dialect__both_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bland_sms.sync.runs.last_dialect", lambda: "")
    desk = Desk(lambda asked: failed(BlandAPIError(400), None), dialect="auto", ranges=FOUR)
    desk.read()
    assert desk.reader.problem.code == "http_400"
    assert len(desk.asked) == 8


# --- what is kept of a page --------------------------------------------------------------------


ONE_MORE = replace(page(None), conversations=page(None, None, None).conversations[2:])


@pytest.mark.parametrize(
    ("pages", "size", "odd", "is_untimely"),
    [
        ([page(None, None, None, None)], 4, 4, True),
        ([page(None, None, None)], 4, 3, False),
        ([page(None, None, None, refused=1)], 4, 3, True),
        ([page(None)], 1, 1, False),
        ([page(None, None)], 2, 2, True),
        ([page(None, None), ONE_MORE], 2, 3, True),
        ([page(0, None, None, None)], 4, 0, False),
        ([page(refused=4)], 4, 0, False),
        ([page()], 4, 0, False),
    ],
)
def test_page__without_any_usable_time(
    pages: list[ConversationPage], size: int, odd: int, is_untimely: bool
) -> None:
    more = [*pages, page(), page()]
    desk = Desk(lambda asked: more[asked.query.page - 1])
    desk.reader.client.settings.page_size = size  # type: ignore[misc]
    desk.read()
    assert (len(desk.odd), desk.reader.is_untimely) == (odd, is_untimely)
    assert desk.reader.unreadable == len(frozenset[str]().union(*(one.refused for one in pages)))


LATE = at(3) + timedelta(seconds=1)


@pytest.mark.parametrize(
    ("mode", "watermark", "answered", "times", "expected"),
    [
        ("full", None, LATE, [at(1), at(2)], LATE),
        ("full", None, None, [at(2), at(1)], at(2)),
        ("full", None, None, [None], None),
        ("full", at(0), LATE, [at(1)], at(0)),
        ("incremental", at(1), LATE, [at(2), at(5), None], at(5)),
        ("incremental", at(1), LATE, [at(0)], at(1)),
        ("incremental", None, LATE, [at(2)], None),
    ],
)
def test_watermark(
    mode: str, watermark: Any, answered: Any, times: list[Any], expected: Any
) -> None:
    rows = rows_of(*((f"c{n}", float(n)) for n in range(len(times))))
    told = replace(
        rows,
        answered_at=answered,
        conversations=tuple(
            replace(one, updated_at=moment)
            for one, moment in zip(rows.conversations, times, strict=True)
        ),
    )
    desk = Desk(
        lambda asked: told if len(desk.asked) == 1 else replace(rows_of(), answered_at=None),
        mode=mode,
        watermark=watermark,
    )
    desk.read()
    assert desk.reader.run.watermark == expected
    assert desk.reader.ends_at == answered


@pytest.mark.parametrize(
    ("ends_at", "requests"), [(None, 6), (at(8), 4), (at(10), 4), (at(10.001), 6)], ids=str
)
def test_end__of_the_list_as_it_was_when_the_walk_began(ends_at: Any, requests: int) -> None:
    """Where it is reached, a page that is not full is the last one."""
    desk = Desk(lambda asked: replace(desk.page(asked), answered_at=ends_at), hours=range(11))
    assert desk.read() == {*ALL, "c10"}
    assert len(desk.asked) == requests


def test_end__of_a_list_that_grows_with_each_answer() -> None:
    def fails(asked: Asked) -> Told | None:
        desk.rows.append((f"late{len(desk.asked)}", 10.0 + len(desk.asked)))
        return replace(desk.page(asked), answered_at=at(9 + 2 * len(desk.asked)))

    desk = Desk(fails)
    assert desk.read() >= ALL
    assert len(desk.asked) < 10


def test_end__not_before_rows_that_share_one_time_have_held_still() -> None:
    """The first of them goes while they are read, so that another one slips out of sight."""

    def fails(asked: Asked) -> Told | None:
        told = desk.page(asked)
        if asked.query.at_least == at(5) and len(desk.rows) == 8:
            del desk.rows[1]
        return told

    desk = Desk(fails)
    desk.rows = [("first", 1.0), *((f"tie{number}", 5.0) for number in range(7))]
    assert desk.read() == {"first", *(f"tie{number}" for number in range(7))}


@pytest.mark.parametrize(
    ("mode", "ranges", "is_whole"),
    [
        ("full", (Range("created_at"),), True),
        ("full", (Range("created_at", reached=at(1)),), False),
        ("full", (Range("created_at"), Range("created_at")), False),
        ("incremental", (Range("created_at"),), False),
    ],
)
def test_is_whole(mode: str, ranges: tuple[Range, ...], is_whole: bool) -> None:
    assert Desk(mode=mode, ranges=ranges).reader.is_whole() is is_whole


@pytest.mark.parametrize("sort_by", ["created_at", "updated_at"])
def test_covered__only_by_the_time_that_never_changes(sort_by: Any) -> None:
    desk = Desk(lambda asked: rows_of(), ranges=(Range(sort_by, begin=at(0), until=at(9)),))
    desk.read()
    assert desk.covered == ([(at(0), at(9))] if sort_by == "created_at" else [])


# --- side by side ------------------------------------------------------------------------------


PROBES: list[Callable[[], Told]] = [
    page,
    lambda: page(None),
    lambda: page(0),
    lambda: page(999, 998),
]
"""Answers to the question for the newest that do not tell it."""


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("told", [None, *STEPPED_OVER, *PASSING, *PROBES], ids=words)
@pytest.mark.parametrize("number", [0, 4, 5, 13, 40, 400])
def test_full__is_cut_into_ranges(number: int, told: Any, one_by_one: bool) -> None:
    """All of it arrives once and is covered; where the newest is not told, it is read in one."""

    def answer(asked: Asked) -> Told | None:
        is_probe = told is not None and not asked.ascending
        return cast(Told, told()) if is_probe else None

    desk = Desk(
        answer, mode="full", ranges=(Range("created_at"),), watermark=None, hours=range(number)
    )
    assert desk.read(one_by_one=one_by_one) == {f"c{hour}" for hour in range(number)}
    assert not desk.reader.problem
    probes = [one for one in desk.asked if not one.ascending]
    assert len(probes) == (number > 0)
    assert desk.side_by_side <= 8
    is_cut = number == 400 and told is None
    assert (desk.side_by_side == 8) is is_cut
    first = sum(asked.query.at_least is None and asked.ascending for asked in desk.asked)
    assert first == (1 if number else 2)
    stretches = sorted(desk.covered, key=lambda one: one[0] or at(-1))
    assert stretches[0][0] is None
    assert [begin for begin, _ in stretches[1:]] == [end for _, end in stretches[:-1]]
    assert stretches[-1][1] in (None, at(number - 1))  # later rows are newer than the walk


@pytest.mark.parametrize("one_by_one", [False, True])
def test_ranges__one_that_is_long_is_cut_again(one_by_one: bool) -> None:
    """Rows stand close together in one part of the time only."""
    desk = Desk(
        ranges=tuple(Range("created_at", begin=at(n), until=at(n + 1)) for n in (0, 1)),
        hours=range(0),
    )
    desk.rows = [(f"c{n:03d}", n / 1000) for n in range(900)]
    assert len(desk.read(one_by_one=one_by_one)) == 900
    assert desk.side_by_side == 8
    assert len(desk.asked) < 360


def test_span_words() -> None:
    odd = at(1) + timedelta(microseconds=1999)
    assert span_words(Range("created_at")) == "created_at - ... -"
    told = span_words(Range("updated_at", begin=at(0), reached=odd, until=at(2)))
    assert told == "updated_at 2026-02-03T13:00:00.001Z ... 2026-02-03T14:00:00.000Z"
