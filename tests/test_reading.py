"""How the list is read: what follows each answer, without a connection or a thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

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

from .test_walk import at, rows_of

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
    ) -> None:
        self.fails = fails
        self.rows = [(f"c{hour}", float(hour)) for hour in hours]
        self.asked: list[Asked] = []
        self.renewed = 0
        settings = SimpleNamespace(page_size=4, list_dialect=dialect)
        client = SimpleNamespace(settings=settings, list_conversations=self._list)
        self.reader = Reader(
            SyncRun(mode=mode),
            Plan(mode=mode, ranges=ranges, watermark=at(0)),
            cast(BlandClient, client),
            allowance or Allowance(budget=RetryBudget()),
            dry_run=True,
            keep_lease=self._keep_lease,
        )

    def _keep_lease(self) -> None:
        self.renewed += 1

    def _list(self, *, filters: list[Any], **asked: Any) -> ConversationPage:
        bounds = {one.operator: datetime.fromisoformat(one.value) for one in filters}
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

    def read(self) -> set[str]:
        """Read to the end; the rows that arrived."""
        arrived: set[str] = set()
        while True:
            self.reader.submit(cast(Pool, self))
            if not self.reader.in_flight:
                return arrived
            for future in list(self.reader.in_flight):
                self.reader.take(future)
            arrived |= {payload.id for payload in self.reader.take_batch().fresh}

    @property
    def gaps(self) -> list[tuple[Any, Any]]:
        return [(gap.begin, gap.until) for gap in self.reader.gaps]


ALL = {f"c{hour}" for hour in range(10)}


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
    if not callable(error):
        return ""
    made = error()
    return f"{type(made).__name__}-{made.status_code}-{made.gave_up}"


@pytest.mark.parametrize("error", STEPPED_OVER, ids=words)
def test_failure__a_part_that_is_not_answered_for_is_stepped_over(
    error: Callable[[], BlandError],
) -> None:
    def fails(asked: Asked) -> Told | None:
        rows = {payload.id for payload in desk.page(asked).conversations}
        return error() if "c5" in rows else None

    desk = Desk(fails)
    assert desk.read() == ALL - {"c5"}
    assert not desk.reader.problem
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


def test_span_words() -> None:
    odd = at(1) + timedelta(microseconds=1999)
    assert span_words(Range("created_at")) == "created_at - ... -"
    told = span_words(Range("updated_at", begin=at(0), reached=odd, until=at(2)))
    assert told == "updated_at 2026-02-03T13:00:00.001Z ... 2026-02-03T14:00:00.000Z"
