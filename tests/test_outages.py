"""Pauses of an update while Bland does not answer."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from bland_sms.models import BulkUpdate
from bland_sms.pacing import RetryBudget
from bland_sms.reasons import Failure
from bland_sms.updates import ending, ledger

NOON = datetime(2026, 2, 3, 12, tzinfo=timezone.utc)
MINUTE = timedelta(minutes=1)


def budget(answers: int = 0, tokens: float = 0) -> RetryBudget:
    made = RetryBudget(tokens=tokens)
    made.answers = answers
    return made


@pytest.fixture
def at_noon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending.timezone, "now", lambda: NOON)
    monkeypatch.setattr(ending.random, "uniform", lambda low, high: high if low == 0.75 else 0)


@pytest.mark.parametrize(
    ("statuses", "params"),
    [
        ([429, 429], {"cause": "rate_limited"}),
        ([429, 503], {}),
        ([None], {}),
        ([], {}),
    ],
)
def test_outage_of(statuses: list[int | None], params: dict[str, Any]) -> None:
    assert ending.outage_of(statuses) == Failure("outage", params)


@pytest.mark.parametrize(
    ("pauses", "seconds"), [(0, 30), (1, 60), (4, 480), (5, 900), (30, 900), (10_000, 900)]
)
@pytest.mark.usefixtures("at_noon")
def test_pause__grows_to_a_quarter_of_an_hour(pauses: int, seconds: float) -> None:
    update = BulkUpdate(outage_since=NOON - MINUTE, outage_pauses=pauses)

    assert ending.pause_for_outage(update, budget(answers=1, tokens=3)) == {
        "not_before": NOON + timedelta(seconds=seconds * 1.25),
        "outage_since": NOON - MINUTE,
        "outage_pauses": pauses + 1,
        "retry_tokens": 3,
    }


@pytest.mark.parametrize(("since", "answers"), [(None, 0), (NOON - MINUTE, 2)])
@pytest.mark.usefixtures("at_noon")
def test_pause__a_new_outage_begins_with_a_short_one(since: datetime | None, answers: int) -> None:
    update = BulkUpdate(outage_since=since, outage_pauses=4)

    assert ending.pause_for_outage(update, budget(answers)) == {
        "not_before": NOON + timedelta(seconds=30 * 1.25),
        "outage_since": NOON,
        "outage_pauses": 1,
        "retry_tokens": 0,
    }


def test_without_outage__only_an_answer_ends_it() -> None:
    ended = {"outage_since": None, "outage_pauses": 0}

    assert ending.without_outage(budget(0, 3)) == {"retry_tokens": 3, "not_before": None}
    assert ending.without_outage(budget(1, 3)) == {
        "retry_tokens": 3,
        "not_before": None,
        **ended,
    }


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"status": "queued"}, True),
        ({"status": "running"}, True),
        ({"status": "finished"}, False),
        ({"status": "stopped", "stop_code": "outage", "not_before": NOON}, True),
        ({"status": "stopped", "stop_code": "outage", "not_before": NOON + MINUTE}, False),
        ({"status": "stopped", "stop_code": "outage"}, False),
        ({"status": "stopped", "stop_code": "http_401", "not_before": NOON}, False),
    ],
    ids=str,
)
@pytest.mark.usefixtures("at_noon")
def test_can_go_on(values: dict[str, Any], expected: bool) -> None:
    BulkUpdate.objects.create(is_active=False, **values)

    assert BulkUpdate.objects.filter(ledger.can_go_on()).exists() is expected
