"""Answers are sorted, items claimed ahead, and what an item keeps: without a database."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bland_sms.client import BlandClient
from bland_sms.exceptions import (
    BlandAPIError,
    BlandAuthenticationError,
    BlandConnectionError,
    BlandError,
    BlandNotFoundError,
    BlandNotSentError,
    BlandOutcomeUnknownError,
    BlandPayloadError,
    BlandUnavailableError,
    GaveUp,
)
from bland_sms.pacing import MAX_PAUSE_SECONDS, Allowance
from bland_sms.payloads import ConversationPayload, UpdatePayload
from bland_sms.reasons import Failure
from bland_sms.updates.asking import (
    ClaimedItem,
    Next,
    Outcome,
    Verdict,
    ask,
    confirm_missing,
    fault_of_ours,
    next_step,
)
from bland_sms.updates.in_flight import FIRST_ANSWERS, Answers, Window
from bland_sms.updates.recording import _item_values

NOON = datetime(2026, 2, 3, 12, tzinfo=timezone.utc)


def item(number: int = 1, **values: Any) -> ClaimedItem:
    plain = {
        "item_id": number,
        "conversation_id": f"conv_{number}",
        "is_active": False,
        "attempts": 0,
        "look_first": False,
        "previous_is_active": True,
        "known_updated_at": None,
    }
    return ClaimedItem(**{**plain, **values})


def told(number: int, verdict: Verdict, **values: Any) -> Outcome:
    return Outcome(item(number), verdict, **values)


# --- answers ----------------------------------------------------------------------------------


def not_found(answers: Answers, number: int) -> list[Failure]:
    found = [told(one, Verdict.NOT_FOUND, http_status=404) for one in range(number)]
    return [answers.sort(outcome) for outcome in found]


def test_answers__so_many_not_found_at_first_are_another_account() -> None:
    answers = Answers()

    *before, last = not_found(answers, FIRST_ANSWERS)

    assert not any(before)
    assert last == Failure("wrong_account", {"number": 20})
    assert len(answers.not_found) == FIRST_ANSWERS


@pytest.mark.parametrize(
    ("verdict", "http_status", "is_proof"),
    [
        (Verdict.CONFIRMED, 200, True),
        (Verdict.FAILED, 400, True),
        (Verdict.ADOPTED, 200, True),
        (Verdict.WAITING, 429, False),
        (Verdict.FAILED, None, False),
        (Verdict.UNKNOWN, 500, False),
    ],
)
def test_answers__what_proves_the_right_account(
    verdict: Verdict, http_status: int | None, is_proof: bool
) -> None:
    answers = Answers()
    answers.sort(told(90, Verdict.UNKNOWN, http_status=503, in_doubt=True))
    answers.sort(told(91, verdict, http_status=http_status))

    assert answers.is_right_account is is_proof
    assert any(not_found(answers, FIRST_ANSWERS)) is not is_proof
    # Bland answers, so what was in doubt is no outage.
    assert (90 in answers.results) is is_proof
    assert (90 in answers.doubtful) is not is_proof
    assert (503 in answers.troubles) is not is_proof


@pytest.mark.parametrize(
    ("outcome", "trouble"),
    [
        (told(1, Verdict.UNKNOWN, http_status=503, in_doubt=True), {503}),
        (told(1, Verdict.UNKNOWN, in_doubt=True), {None}),
        (told(1, Verdict.WAITING, is_outage=True), {None}),
        (told(1, Verdict.WAITING, http_status=429, retry_after_seconds=0.0), {429}),
        (told(1, Verdict.WAITING), set()),
        (told(1, Verdict.UNKNOWN, http_status=200), set()),
        (told(1, Verdict.FAILED, http_status=400, in_doubt=True), set()),
        (told(1, Verdict.NOT_FOUND, http_status=404, in_doubt=True), set()),
    ],
)
def test_answers__troubles(outcome: Outcome, trouble: set[int | None]) -> None:
    answers = Answers()
    answers.sort(outcome)

    assert answers.troubles == trouble


def test_answers__why_an_update_stops() -> None:
    stop = BlandAuthenticationError(401, "AUTH_FAILURE")

    assert Answers().sort(told(1, Verdict.WAITING, stop=stop, is_outage=True)) == stop.failure
    assert Answers().sort(told(1, Verdict.WAITING, is_outage=True)) == Failure("outage")
    assert not Answers().sort(told(1, Verdict.FAILED, http_status=400))
    answers = Answers()
    not_found(answers, FIRST_ANSWERS - 1)
    outcome = told(99, Verdict.NOT_FOUND, http_status=404, stop=stop)
    assert answers.sort(outcome) == stop.failure, "the first reason counts"


@pytest.mark.parametrize("is_stopped", [True, False])
def test_answers__settled_when_a_run_ends(is_stopped: bool) -> None:
    answers = Answers()
    kept = told(1, Verdict.CONFIRMED, http_status=200)
    sent = told(2, Verdict.UNKNOWN, error_code="no_answer", in_doubt=True)
    unsent = told(3, Verdict.UNKNOWN, error_code="other")
    missing = told(4, Verdict.NOT_FOUND, error_code="CONVERSATION_NOT_FOUND", missing_at=NOON)
    for outcome in (kept, sent, unsent, missing):
        answers.sort(outcome)

    settled = answers.settle_held(is_stopped=is_stopped)

    assert {id(outcome) for outcome in settled} == set(map(id, (kept, sent, unsent, missing)))
    assert not answers.doubtful
    assert not answers.not_found
    assert kept.verdict is Verdict.CONFIRMED
    assert (missing.verdict, missing.missing_at, missing.error_code) == (Verdict.WAITING, None, "")
    verdict = Verdict.WAITING if is_stopped else Verdict.UNKNOWN
    assert (sent.verdict, sent.error_code) == (verdict, "no_answer")
    assert (unsent.verdict, unsent.error_code) == (verdict, "" if is_stopped else "other")
    answers.forget([kept, missing])
    assert set(answers.results) == {2, 3}


# --- how far ahead ----------------------------------------------------------------------------


@given(st.integers(1, 64), st.floats(0.001, 100), st.none() | st.floats(0, 100), st.booleans())
def test_window__is_as_wide_as_is_asked_in_time(
    workers: int, seconds: float, left: float | None, is_narrow: bool
) -> None:
    window = Window(workers, is_narrow=is_narrow)
    assert window.most(left) == 2 * workers
    window.note(seconds)

    most = window.most(left)

    seconds_ahead = 2.0 if left is None else min(left, 2.0)
    in_time = int(seconds_ahead * workers / seconds)
    expected = 2 * workers if is_narrow else max(2 * workers, min(500, in_time))
    assert (most, type(most)) == (expected, int)
    assert window.few(left) == max(workers, expected // 4)


def test_window__newest_answers_count_a_tenth() -> None:
    window = Window(1)
    for seconds, usual in [(1.0, 1.0), (2.0, 1.1), (0.1, 1.0)]:
        window.note(seconds)
        assert window.usual_seconds == pytest.approx(usual)


# --- what an item keeps -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "asked", "previous", "state"),
    [
        (Verdict.CONFIRMED, False, True, "changed"),
        (Verdict.CONFIRMED, False, False, "unchanged"),
        (Verdict.CONFIRMED, True, False, "changed"),
        (Verdict.CONFIRMED, True, True, "unchanged"),
        (Verdict.CONFIRMED, False, None, "changed"),
        (Verdict.UNKNOWN, False, False, "unknown"),
        (Verdict.FAILED, False, False, "failed"),
        (Verdict.NOT_FOUND, False, True, "failed"),
    ],
)
def test_item__settled(verdict: Verdict, asked: bool, previous: bool | None, state: str) -> None:
    claimed = item(is_active=asked, previous_is_active=previous, attempts=2)
    outcome = Outcome(claimed, verdict, requests=3, http_status=400, error_params={"a": 1})
    outcome.error_code, outcome.message = "E" * 99, "m" * 999

    assert _item_values(outcome) == {
        "state": state,
        "http_status": 400,
        "error_code": "E" * 64,
        "error_params": {"a": 1},
        "message": "m" * 500,
        "attempts": 5,
    }
    assert _item_values(Outcome(claimed, verdict))["error_params"] is None


WAITING = {"state": "waiting", "error_code": ""}


@pytest.mark.parametrize(
    ("outcome", "values"),
    [
        (Outcome(item()), {**WAITING, "previous_is_active": None}),
        (Outcome(item(), requests=1), WAITING),
        (Outcome(item(), in_doubt=True), WAITING),
        (Outcome(item(attempts=1)), WAITING),
        (Outcome(item(attempts=1), requests=2, is_charged=True), {**WAITING, "attempts": 3}),
        (
            Outcome(item(), Verdict.ADOPTED, found_is_active=False, error_code="E" * 99),
            {**WAITING, "error_code": "E" * 64, "previous_is_active": False},
        ),
    ],
)
def test_item__waits(outcome: Outcome, values: dict[str, Any]) -> None:
    assert _item_values(outcome) == values


@pytest.mark.parametrize(("seconds", "waited"), [(0, 0), (90.5, 90.5), (10**9, 24 * 3600)])
def test_item__waits_as_long_as_bland_said_and_a_day_at_most(
    seconds: float, waited: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django.utils.timezone.now", lambda: NOON)
    outcome = Outcome(item(), requests=1, http_status=429, retry_after_seconds=seconds)
    outcome.message = "m" * 999

    assert _item_values(outcome) == {
        **WAITING,
        "not_before": NOON + timedelta(seconds=waited),
        "http_status": 429,
        "message": "m" * 500,
    }


# --- asking about one item --------------------------------------------------------------------

LATER = NOON + timedelta(minutes=1)
SECRET = {"cause": "not_confirmed"}


def said(**values: Any) -> UpdatePayload:
    """Bland's answer to an update."""
    plain = {"id": "conv_1", "is_active": False, "updated_at": NOON, "message": "done"}
    return UpdatePayload(**{**plain, **values})


def shown(is_active: bool | None = False) -> ConversationPayload:
    """Bland's answer to a look."""
    return ConversationPayload(id="conv_1", is_active=is_active, updated_at=NOON)


def seen_at(error: BlandError, gave_up: GaveUp | None = None) -> BlandError:
    error.observed_at, error.gave_up = LATER, gave_up
    return error


BAD = BlandAPIError(400, "BAD", "Bland's own words")
DOWN = seen_at(BlandUnavailableError(500, "OOPS"), GaveUp.ATTEMPTS)
LATE = seen_at(BlandUnavailableError(503), GaveUp.TIME)
SILENT = seen_at(BlandOutcomeUnknownError("timeout"), GaveUp.ATTEMPTS)
GONE = seen_at(BlandNotFoundError(404, "CONVERSATION_NOT_FOUND", "none"))
KEY = BlandAuthenticationError(401, "AUTH", "no")
UNSENT = BlandNotSentError()
BUSY = seen_at(BlandUnavailableError(429, retry_after_seconds=99.0), GaveUp.PATIENCE)
FULL = seen_at(BlandUnavailableError(500), GaveUp.BUDGET)
LIMITED = seen_at(BlandUnavailableError(429, retry_after_seconds=3.0), GaveUp.TIME)
SECOND = BlandAPIError(400, "BAD")
"""After an answer to the same question that left it open."""
AT_LAST = seen_at(BlandUnavailableError(500), GaveUp.ATTEMPTS)
"""After it nothing may be sent any more."""


class Told:
    """A client to which Bland gives these answers, one after the other."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked = ""

    def _next(self, method: str, allowance: Allowance) -> Any:
        answer = self.answers.pop(0)
        self.asked += method[0]
        if answer is not UNSENT:
            allowance.sent[method] += 1
        if isinstance(answer, BlandOutcomeUnknownError | BlandUnavailableError):
            allowance.in_doubt |= method == "PATCH" and answer.status_code != 429
        allowance.in_doubt |= answer is SECOND
        if answer is AT_LAST:
            allowance.stopped.set()
        if isinstance(answer, BlandError):
            raise answer
        return answer

    def update_conversation(self, pk: str, *, is_active: bool, allowance: Allowance) -> Any:
        assert (pk, is_active) == ("conv_1", False)
        return self._next("PATCH", allowance)

    def get_conversation(self, pk: str, *, allowance: Allowance) -> Any:
        assert pk == "conv_1"
        return self._next("GET", allowance)


DONE = {"verdict": Verdict.CONFIRMED, "http_status": 200}
DONE_AT_ONCE = {**DONE, "requests": 1, "message": "done"}
DOUBT = {"error_code": "no_answer", "in_doubt": True}
ASKED: list[tuple[dict[str, Any], list[Any], str, dict[str, Any]]] = [
    # confirmed, and what the row needs besides
    ({}, [said()], "P", DONE_AT_ONCE),
    ({}, [said(id=None)], "P", DONE_AT_ONCE),
    ({}, [said(updated_at=None), shown()], "PG", DONE_AT_ONCE),
    ({}, [said(updated_at=None), DOWN], "PG", DONE_AT_ONCE),
    ({}, [said(updated_at=None), KEY], "PG", {**DONE_AT_ONCE, "stop": KEY}),
    ({"known_updated_at": LATER}, [said(), shown()], "PG", DONE_AT_ONCE),
    ({"known_updated_at": NOON}, [said()], "P", DONE_AT_ONCE),
    ({"known_updated_at": LATER, "previous_is_active": False}, [said()], "P", DONE_AT_ONCE),
    # not confirmed: one look settles it
    ({}, [said(is_active=True), shown()], "PG", DONE_AT_ONCE),
    ({}, [said(id="conv_2"), shown()], "PG", DONE_AT_ONCE),
    (
        {},
        [said(is_active=None), shown(True)],
        "PG",
        {
            "verdict": Verdict.FAILED,
            "error_code": "not_applied",
            "requests": 1,
            "message": "done",
        },
    ),
    *(
        (
            {},
            [said(is_active=True), answer],
            "PG",
            {
                "verdict": Verdict.UNKNOWN,
                "error_code": "not_applied",
                "error_params": SECRET,
                "requests": 1,
                "message": "done",
            },
        )
        for answer in (shown(None), DOWN)
    ),
    (
        {},
        [said(is_active=True), GONE],
        "PG",
        {
            "verdict": Verdict.UNKNOWN,
            "error_code": "CONVERSATION_NOT_FOUND",
            "http_status": 404,
            "message": "none",
            "missing_at": LATER,
            "requests": 1,
        },
    ),
    *(
        (
            {},
            [said(is_active=True), answer],
            "PG",
            {
                "error_code": "no_answer",
                "error_params": SECRET,
                "is_charged": True,
                "requests": 1,
                "message": "done",
                **stop,
            },
        )
        for answer, stop in ((UNSENT, {}), (KEY, {"stop": KEY}))
    ),
    # refused
    (
        {},
        [BAD],
        "P",
        {
            "verdict": Verdict.FAILED,
            "http_status": 400,
            "error_code": "BAD",
            "message": "Bland's own words",
            "requests": 1,
        },
    ),
    ({}, [KEY], "P", {"http_status": 401, "message": "no", "requests": 1, "stop": KEY}),
    (
        {},
        [GONE],
        "P",
        {
            "verdict": Verdict.NOT_FOUND,
            "http_status": 404,
            "error_code": "CONVERSATION_NOT_FOUND",
            "message": "none",
            "requests": 1,
        },
    ),
    ({}, [UNSENT], "P", {}),
    (
        {},
        [BUSY],
        "P",
        {"http_status": 429, "requests": 1, "retry_after_seconds": 99.0},
    ),
    (
        {},
        [FULL],
        "P",
        {"http_status": 500, "requests": 1, "is_outage": True, **DOUBT},
    ),
    # no answer: Bland may have done it
    ({}, [SILENT, shown()], "PG", {**DONE, "requests": 1, "in_doubt": True}),
    (
        {},
        [DOWN, shown(True)],
        "PG",
        {
            "verdict": Verdict.FAILED,
            "http_status": 500,
            "error_code": "OOPS",
            "requests": 1,
            "in_doubt": True,
        },
    ),
    (
        {},
        [SILENT, DOWN],
        "PG",
        {
            "verdict": Verdict.UNKNOWN,
            "error_params": {"cause": "timeout"},
            "requests": 1,
            **DOUBT,
        },
    ),
    ({}, [LATE], "P", {"http_status": 503, "requests": 1, "is_charged": True, **DOUBT}),
    ({}, [LIMITED], "P", {"http_status": 429, "requests": 1}),
    ({}, [SECOND, shown()], "PG", {**DONE, "requests": 1, "in_doubt": True}),
    (
        {},
        [SILENT, shown(True)],
        "PG",
        {
            "verdict": Verdict.FAILED,
            "error_params": {"cause": "timeout"},
            "requests": 1,
            **DOUBT,
        },
    ),
    (
        {},
        [SILENT, AT_LAST],
        "PG",
        {"error_params": {"cause": "timeout"}, "is_charged": True, "requests": 1, **DOUBT},
    ),
    # looked at first, since it was in flight
    ({"look_first": True}, [shown()], "G", {**DONE, "in_doubt": True}),
    ({"look_first": True}, [shown(True), said()], "GP", DONE_AT_ONCE),
    ({"look_first": True}, [shown(None), said()], "GP", DONE_AT_ONCE),
    ({"look_first": True}, [LATE], "G", {"http_status": 503, **DOUBT}),
    (
        {"look_first": True},
        [BAD],
        "G",
        {
            "verdict": Verdict.UNKNOWN,
            "http_status": 400,
            "error_code": "BAD",
            "message": "Bland's own words",
            "in_doubt": True,
        },
    ),
    (
        {"look_first": True},
        [GONE],
        "G",
        {
            "verdict": Verdict.NOT_FOUND,
            "http_status": 404,
            "error_code": "CONVERSATION_NOT_FOUND",
            "message": "none",
            "missing_at": LATER,
            "in_doubt": True,
        },
    ),
    (
        {"look_first": True},
        [KEY],
        "G",
        {"http_status": 401, "message": "no", "stop": KEY, **DOUBT},
    ),
    # looked up, since the mirror does not have it
    *(
        (
            {"previous_is_active": None},
            [shown(is_active)],
            "G",
            {"verdict": Verdict.ADOPTED, "found_is_active": is_active},
        )
        for is_active in (True, False)
    ),
    ({"previous_is_active": None}, [shown(None), said()], "GP", DONE_AT_ONCE),
    ({"previous_is_active": None}, [UNSENT], "G", {}),
    (
        {"previous_is_active": None},
        [BAD],
        "G",
        {
            "verdict": Verdict.FAILED,
            "http_status": 400,
            "error_code": "BAD",
            "message": "Bland's own words",
        },
    ),
]


@pytest.mark.parametrize(("values", "answers", "asked", "expected"), ASKED)
def test_ask(
    values: dict[str, Any], answers: list[Any], asked: str, expected: dict[str, Any]
) -> None:
    bland, allowance = Told(*answers), Allowance()

    outcome = ask(cast(BlandClient, bland), item(**values), allowance)

    told = [
        replace(answer, id="conv_1") if isinstance(answer, UpdatePayload) else answer
        for answer in answers
        if isinstance(answer, ConversationPayload)
        or (
            isinstance(answer, UpdatePayload)
            and answer.is_active is False
            and answer.id != "conv_2"
        )
    ]
    assert bland.asked == asked
    assert not bland.answers
    assert sorted(outcome.payloads, key=repr) == sorted(told, key=repr)
    assert outcome == replace(Outcome(item(**values)), payloads=outcome.payloads, **expected)
    assert allowance.stopped.is_set() is (outcome.stop is not None or AT_LAST in answers)


@pytest.mark.parametrize("in_doubt", [True, False])
@pytest.mark.parametrize(
    ("missing_at", "answer", "expected"),
    [
        (LATER, None, {"missing_at": LATER}),
        (None, GONE, {"missing_at": LATER}),
        (None, shown(), {"payloads": [shown()]}),
        (None, DOWN, {}),
        (None, KEY, {"stop": KEY}),
    ],
    ids=str,
)
def test_confirm_missing__takes_a_second_look(
    missing_at: datetime | None, answer: Any, expected: dict[str, Any], in_doubt: bool
) -> None:
    first = Outcome(item(), Verdict.NOT_FOUND, missing_at=missing_at, in_doubt=in_doubt)
    bland = Told(*([] if answer is None else [answer]))

    outcome = confirm_missing(cast(BlandClient, bland), replace(first), Allowance())

    verdict = Verdict.UNKNOWN if in_doubt else Verdict.FAILED
    assert outcome == replace(first, **{"verdict": verdict, **expected})
    assert bland.asked == ("" if answer is None else "G")


def test_fault_of_ours__leaves_it_open() -> None:
    outcome = fault_of_ours(item())
    assert outcome == Outcome(item(), Verdict.UNKNOWN, error_code="error", in_doubt=True)


def put_off(seconds: float) -> BlandError:
    error = BlandUnavailableError(503, retry_after_seconds=seconds)
    return seen_at(error, GaveUp.ATTEMPTS)


OFTEN = seen_at(BlandUnavailableError(429), GaveUp.ATTEMPTS)
UNREACHED = seen_at(BlandConnectionError("x"), GaveUp.ATTEMPTS)
BROKEN = seen_at(BlandUnavailableError(503), GaveUp.ATTEMPTS)
BOTH = [True, False]
NEXT: list[tuple[BlandError, list[bool], list[bool], Next, bool]] = [
    # error, in doubt before, may be retried, what follows, whether it is an outage
    (KEY, BOTH, BOTH, Next.STOP, False),
    (UNSENT, BOTH, BOTH, Next.NOT_SENT, False),
    (GONE, BOTH, BOTH, Next.NOT_FOUND, False),
    (BlandPayloadError("x"), [False], BOTH, Next.LOOK, False),
    (BlandPayloadError("x"), [True], BOTH, Next.UNKNOWN, False),
    (BAD, [False], BOTH, Next.FAIL, False),
    (BAD, [True], BOTH, Next.UNKNOWN, False),
    (FULL, BOTH, BOTH, Next.OUTAGE, True),
    (BUSY, BOTH, [True], Next.PUT_OFF, False),
    (BUSY, BOTH, [False], Next.PUT_OFF, True),
    (LATE, BOTH, [True], Next.WAIT, False),
    (LATE, BOTH, [False], Next.WAIT, True),
    (LIMITED, BOTH, BOTH, Next.WAIT, False),
    (seen_at(BlandUnavailableError(429), GaveUp.PATIENCE), BOTH, [True], Next.PUT_OFF, False),
    (seen_at(BlandUnavailableError(503), GaveUp.PATIENCE), BOTH, [False], Next.PUT_OFF, True),
    (seen_at(BlandOutcomeUnknownError(), GaveUp.TIME), BOTH, [True], Next.WAIT, False),
    (BROKEN, [False], [True], Next.LOOK, False),
    (BROKEN, [True], [True], Next.UNKNOWN, False),
    (BROKEN, BOTH, [False], Next.OUTAGE, True),
    (UNREACHED, BOTH, BOTH, Next.OUTAGE, True),
    (put_off(MAX_PAUSE_SECONDS + 1), BOTH, BOTH, Next.PUT_OFF, False),
    (put_off(MAX_PAUSE_SECONDS), [False], [True], Next.LOOK, False),
    (SILENT, [False], [True], Next.LOOK, False),
    (SILENT, [True], [True], Next.UNKNOWN, False),
    (OFTEN, [True], [True], Next.UNKNOWN, False),
    (OFTEN, [False], BOTH, Next.FAIL, False),
    (SILENT, BOTH, [False], Next.OUTAGE, True),
    (OFTEN, [True], [False], Next.OUTAGE, True),
]


@pytest.mark.parametrize(("error", "doubts", "budgets", "step", "is_outage"), NEXT)
def test_next_step(
    error: BlandError, doubts: list[bool], budgets: list[bool], step: Next, is_outage: bool
) -> None:
    for was_in_doubt in doubts:
        for may_retry in budgets:
            spend = [may_retry].pop
            told = next_step(error, was_in_doubt=was_in_doubt, may_retry=spend)
            assert told == (step, is_outage)
