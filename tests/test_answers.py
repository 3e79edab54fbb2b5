"""Answers are sorted, items claimed ahead, and what an item keeps: without a database."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bland_sms.exceptions import BlandAuthenticationError
from bland_sms.reasons import Failure
from bland_sms.updates.answers import FIRST_ANSWERS, Answers
from bland_sms.updates.asking import ClaimedItem, Outcome, Verdict
from bland_sms.updates.recording import _item_values
from bland_sms.updates.window import Window

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
