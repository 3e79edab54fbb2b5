"""What is asked again, and when: the policy and the loop as tables, without a socket."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from copy import copy
from datetime import datetime, timezone
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bland_sms.client import BlandClient, ListFilter, retrying
from bland_sms.client.answers import Answer
from bland_sms.client.retrying import Limits, is_repeatable, leaves_open, most_telling, plan_retry
from bland_sms.conf import get_settings
from bland_sms.exceptions import (
    BlandAPIError,
    BlandAuthenticationError,
    BlandConfigurationError,
    BlandConflictError,
    BlandConnectionError,
    BlandError,
    BlandInvalidIdError,
    BlandNotFoundError,
    BlandNotSentError,
    BlandOutcomeUnknownError,
    BlandPayloadError,
    BlandRouteError,
    BlandTLSError,
    BlandUnavailableError,
    GaveUp,
)
from bland_sms.pacing import Allowance, RetryBudget


@pytest.fixture(autouse=True)
def half_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.25 s, 0.5 s, 1 s ... and exactly what Bland asks for."""
    monkeypatch.setattr("random.uniform", lambda low, high: high / 2 if high > 0.1 else 0.0)


def unavailable(status: int = 500, retry_after: float | None = None) -> BlandError:
    return BlandUnavailableError(status, retry_after_seconds=retry_after)


def cut_off() -> BlandError:
    failure = BlandOutcomeUnknownError("late")
    failure.cut_off = True
    return failure


@pytest.mark.parametrize(
    ("failure", "attempt", "limits", "expected"),
    [
        (unavailable(), 1, Limits(3), 0.25),
        (unavailable(), 2, Limits(3), 0.5),
        (unavailable(), 3, Limits(3), GaveUp.ATTEMPTS),
        (unavailable(), 1, Limits(1), GaveUp.ATTEMPTS),
        (unavailable(429, 7.0), 1, Limits(3), 7.0),
        (unavailable(429, 60.0), 1, Limits(3), 60.0),
        (unavailable(429, 60.5), 1, Limits(3), GaveUp.PATIENCE),
        (unavailable(503, 86_400.0), 1, Limits(3), GaveUp.PATIENCE),
        (unavailable(503, 86_400.0), 3, Limits(3), GaveUp.ATTEMPTS),
        (unavailable(), 1, Limits(3, 0.0), GaveUp.TIME),
        (unavailable(), 1, Limits(3, 0.25), GaveUp.TIME),
        (unavailable(), 1, Limits(3, 0.26), 0.25),
        (unavailable(429, 7.0), 1, Limits(3, 6.0), GaveUp.TIME),
        (unavailable(429, 99.0), 1, Limits(3, 6.0), GaveUp.PATIENCE),
        (BlandConnectionError("x"), 1, Limits(3), 0.25),
        (BlandOutcomeUnknownError("x"), 2, Limits(3), 0.5),
        (cut_off(), 1, Limits(3), GaveUp.TIME),
        (cut_off(), 3, Limits(3), GaveUp.TIME),
        (BlandConflictError(409), 1, Limits(3), 0.25),
        (BlandConflictError(409), 2, Limits(3), GaveUp.ATTEMPTS),
        (BlandConflictError(409), 1, Limits(1), GaveUp.ATTEMPTS),
    ],
)
def test_plan_retry(
    failure: BlandError, attempt: int, limits: Limits, expected: float | GaveUp
) -> None:
    assert plan_retry(failure, attempt, limits) == expected


@given(st.integers(1, 50), st.integers(1, 9), st.none() | st.floats(0, 1e6), st.floats(0, 1e12))
def test_plan_retry__never_longer_than_a_minute_nor_past_the_end(
    attempt: int, attempts: int, seconds: float | None, asked: float
) -> None:
    wait = plan_retry(unavailable(429, asked), attempt, Limits(attempts, seconds))

    if not isinstance(wait, GaveUp):
        assert 0 <= wait <= 60.1
        assert seconds is None or wait < seconds
        assert attempt < attempts


@pytest.mark.parametrize(
    ("allowance", "max_retries", "limits"),
    [
        (Allowance(), 2, Limits(3)),
        (Allowance(), 0, Limits(1)),
        (Allowance(attempts=1), 2, Limits(1)),
        (Allowance(attempts=9), 2, Limits(3)),
        (Allowance(deadline=0.0), 2, Limits(3, 0.0)),
    ],
)
def test_limits__of_an_allowance(allowance: Allowance, max_retries: int, limits: Limits) -> None:
    assert Limits.of(allowance, max_retries) == limits


def test_limits__stopped() -> None:
    allowance = Allowance()
    allowance.stopped.set()

    assert Limits.of(allowance, 2).seconds == 0


REPEATABLE = {
    BlandConnectionError("x"): True,
    BlandOutcomeUnknownError("x"): True,
    unavailable(429): True,
    unavailable(500): True,
    BlandConflictError(409): True,
    BlandAPIError(400): False,
    BlandNotFoundError(404): False,
    BlandRouteError(404): False,
    BlandAuthenticationError(401): False,
    BlandConfigurationError("x"): False,
    BlandTLSError("x"): False,
    BlandPayloadError("x"): False,
    BlandNotSentError("x"): False,
    BlandInvalidIdError("x"): False,
}


@pytest.mark.parametrize(("failure", "expected"), REPEATABLE.items(), ids=str)
def test_is_repeatable(failure: BlandError, expected: bool) -> None:
    assert is_repeatable(failure) is expected


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (BlandOutcomeUnknownError("x"), True),
        (unavailable(500), True),
        (unavailable(408), True),
        (unavailable(429), False),
        (BlandConnectionError("x"), False),
        (BlandNotFoundError(404), False),
    ],
)
def test_leaves_open(failure: BlandError, expected: bool) -> None:
    assert leaves_open(failure) is expected


DOUBT = unavailable(500)


@pytest.mark.parametrize(
    ("doubt", "failure", "is_doubt"),
    [
        (None, unavailable(429), False),
        (DOUBT, unavailable(429), True),
        (DOUBT, BlandConnectionError("x"), True),
        (DOUBT, unavailable(503), False),  # as open as the first, and newer
        (DOUBT, BlandNotFoundError(404), False),  # settles it
        (DOUBT, BlandConflictError(409), False),
    ],
)
def test_most_telling(doubt: BlandError | None, failure: BlandError, is_doubt: bool) -> None:
    assert most_telling(doubt, failure) is (doubt if is_doubt else failure)


def test_most_telling__doubt_takes_over_when_to_ask_again() -> None:
    doubt: Any = unavailable(500)

    last = unavailable(429, 7.0)
    last.cut_off = True

    told = most_telling(doubt, last)

    assert (told.retry_after_seconds, told.cut_off) == (7.0, True)


def test_retrying__has_neither_clock_nor_socket() -> None:
    assert not {"time", "socket", "requests", "urllib3"} & set(vars(retrying))


# --- the loop, without a socket ---------------------------------------------------------------

NOON = datetime(2026, 2, 3, 12, tzinfo=timezone.utc)
SUCCESS = Answer({}, NOON, None)


class Pace:
    """A pacer that tells what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.turns = 99

    def wait(self, allowance: Allowance) -> bool:
        self.turns -= 1
        return self.turns >= 0

    def answered(self, sent_at: float) -> None:
        assert sent_at <= time.monotonic()
        self.told.append("answered")

    def refused(self, sent_at: float, retry_after_seconds: float | None) -> None:
        self.told.append(retry_after_seconds)


class Told:
    """A client without a socket, to which Bland gives these answers, one after the other."""

    def __init__(self, *answers: Answer | BlandError) -> None:
        self.client: Any = BlandClient(get_settings())
        self.pace = self.client.pacer = Pace()
        self.asked: list[tuple[Any, ...]] = []
        self.answers = list(answers)
        self.client._exchange = self._exchange

    def _exchange(self, *asked: Any) -> Answer | BlandError:
        self.asked.append(asked)
        return self.answers.pop(0)


NOT_SENT = BlandNotSentError("stopped")
Rows = list[tuple[list[Answer | BlandError], Any, GaveUp | None, list[Any], int, int]]
LOOP: Rows = [
    # answers, what is raised, why not again, what the pacer was told, requests, budget earned
    ([SUCCESS], None, None, ["answered"], 1, 1),
    ([unavailable(), SUCCESS], None, None, ["answered"] * 2, 2, 1),
    ([unavailable(429, 0.0), SUCCESS], None, None, [0.0, "answered"], 2, 1),
    ([BlandConnectionError("x"), SUCCESS], None, None, ["answered"], 2, 1),
    ([BlandAPIError(400)], BlandAPIError, None, ["answered"], 1, 1),
    ([unavailable()] * 3, BlandUnavailableError, GaveUp.ATTEMPTS, ["answered"] * 3, 3, 0),
    ([NOT_SENT], BlandNotSentError, None, [], 0, 0),
    ([unavailable(), NOT_SENT], BlandUnavailableError, GaveUp.TIME, ["answered"], 1, 0),
    ([cut_off()], BlandOutcomeUnknownError, GaveUp.TIME, [], 1, 0),
]


@pytest.mark.parametrize(("answers", "kind", "gave_up", "told", "sent", "earned"), LOOP, ids=str)
@pytest.mark.parametrize("method", ["GET", "PATCH"])
def test_request__loop(
    method: str,
    answers: list[Answer | BlandError],
    kind: type[BlandError] | None,
    gave_up: GaveUp | None,
    told: list[Any],
    sent: int,
    earned: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bland_sms.pacing.allowance.FIRST_BACK_OFF_SECONDS", 0.0)
    budget = RetryBudget()
    bland, allowance = Told(*map(copy, answers)), Allowance(budget=budget)

    if kind is None:
        assert bland.client._request(method, "/x", max_bytes=1, allowance=allowance) == SUCCESS
    else:
        with pytest.raises(kind) as caught:
            bland.client._request(method, "/x", max_bytes=1, allowance=allowance)
        assert caught.value.gave_up == gave_up
        assert (caught.value.observed_at is None) is (sent == 0)

    assert (bland.pace.told, bland.answers) == (told, [])
    assert allowance.sent == Counter({method: sent})
    assert budget.answers == earned
    is_open = any(isinstance(one, BlandError) and leaves_open(one) for one in answers)
    assert allowance.in_doubt is (is_open and method == "PATCH")


@pytest.mark.parametrize("turns", [0, 1])
def test_request__ends_where_the_pacer_gives_no_turn(
    turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bland_sms.pacing.allowance.FIRST_BACK_OFF_SECONDS", 0.0)
    bland = Told(unavailable())
    bland.pace.turns = turns
    with pytest.raises(BlandUnavailableError if turns else BlandNotSentError) as caught:
        bland.client._request("GET", "/x", max_bytes=1)
    assert caught.value.gave_up == (GaveUp.TIME if turns else None)


@pytest.mark.parametrize(("attempts", "sent"), [(None, 6), (1, 1), (2, 2)])
def test_request__a_refusal_of_all_is_no_attempt_of_one(
    attempts: int | None, sent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But where a call is not to be repeated it is not."""
    bland, allowance = Told(*[unavailable(429, 0.0)] * 5, SUCCESS), Allowance(attempts=attempts)
    monkeypatch.setattr(allowance, "refused", lambda path: path == "/x")
    with suppress(BlandUnavailableError):
        assert bland.client._request("GET", "/x", max_bytes=1, allowance=allowance) == SUCCESS
    assert len(bland.asked) == sent


@pytest.mark.parametrize(
    ("left", "connect", "total", "is_cut"),
    [
        (None, 5, None, False),
        (99.0, 5, 15, False),
        (15.0, 5, 15, False),
        (14.0, 5, 14, True),
        (3.0, 3, 3, True),
        (0.0, 0.001, 0.001, True),
    ],
)
def test_timeout__never_longer_than_the_time_left(
    left: float | None, connect: float, total: float | None, is_cut: bool, monkeypatch: Any
) -> None:
    allowance = Allowance()
    monkeypatch.setattr(allowance, "seconds_left", lambda: left)
    timeout, is_shorter = Told().client._timeout(allowance)
    assert (timeout.connect_timeout, timeout.total, is_shorter) == (connect, total, is_cut)
    timeout.start_connect()
    assert timeout.read_timeout <= (15 if total is None else total)


@pytest.mark.parametrize(
    ("values", "dialect", "params"),
    [
        ({}, "a", {"page": 1, "pageSize": 100, "sortBy": "created_at", "sortDir": "asc"}),
        ({}, "b", {"limit": 100, "from": 0, "sort_by": "created_at", "ascending": "true"}),
        (
            {"page": 3, "page_size": 7, "sort_by": "updated_at", "ascending": False},
            "a",
            {"page": 3, "pageSize": 7, "sortBy": "updated_at", "sortDir": "desc"},
        ),
        (
            {"page": 3, "page_size": 7, "sort_by": "updated_at", "ascending": False},
            "b",
            {"limit": 7, "from": 14, "sort_by": "updated_at", "ascending": "false"},
        ),
    ],
)
@pytest.mark.parametrize("is_set", [True, False])
def test_list_conversations__in_both_dialects(
    values: dict[str, Any], dialect: str, params: dict[str, Any], is_set: bool, settings: Any
) -> None:
    if is_set:
        settings.BLAND_SMS = {**settings.BLAND_SMS, "LIST_DIALECT": dialect}
    else:
        values = {**values, "dialect": dialect}
    answer = Answer({"data": []}, NOON, NOON)
    bland = Told(answer, answer)
    bland.client.list_conversations(**values)
    page = bland.client.list_conversations(**values, filters=[ListFilter("created_at", "lt", "x")])
    told = '[{"field":"created_at","operator":"lt","value":"x"}]'
    found = [(method, path, asked, body) for method, path, asked, body, *_rest in bland.asked]
    path = "/v1/sms/conversations"
    assert found == [("GET", path, params, None), ("GET", path, {**params, "filters": told}, None)]
    assert (page.observed_at, page.answered_at) == (NOON, NOON)


def test_get_conversation__times_and_limits_are_its_own() -> None:
    later = {"updated_at": "2026-02-03T12:00:00Z", "created_at": "2026-02-03T13:00:00Z"}
    bland = Told(Answer({"data": later}, NOON, NOON))
    payload = bland.client.get_conversation("conv_1")
    assert (payload.observed_at, payload.updated_at) == (NOON, NOON)
    assert not isinstance(payload.created_at, datetime), "later than the answer"
    stopped = Allowance()
    stopped.stopped.set()
    for ask in (
        partial(bland.client.get_conversation, "conv_1"),
        partial(bland.client.update_conversation, "conv_1", is_active=True),
        bland.client.list_conversations,
    ):
        with pytest.raises(BlandNotSentError):
            ask(allowance=stopped)
    assert len(bland.asked) == 1
