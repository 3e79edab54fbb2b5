"""Answers 429 in masses: a limit that moves, one that falls hard, and a Bland that only refuses."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from statistics import mean
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bland_sms.models import BulkUpdate
from bland_sms.pacing import RetryBudget, allowance, pacer, rate, tokens
from bland_sms.pacing.shares import LIVE_SECONDS, State
from bland_sms.sandbox import BlandSandbox
from bland_sms.sync import refresh_many
from bland_sms.updates import cancel, run

from .storms import Clock, Row, Storm, ask_all


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return new_clock(monkeypatch)


def new_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (allowance, pacer, tokens):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(allowance, "random", random.Random(7))
    return clock


# --- a simulated clock ------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [20, 50, 100, 250, 400])
def test_storm__a_steady_limit_that_nobody_told(limit: int, clock: Clock) -> None:
    storm = ask_all(clock, lambda _seconds: limit, rows=20 * limit)

    assert storm.share > 0.9
    assert storm.refused < (0.015 if limit >= 50 else 0.03) * storm.answered


def moving(seed: int, seconds: float) -> Callable[[float], float]:
    """A limit from 1 to 400 that jumps every so many seconds."""
    dice = random.Random(seed)
    limits = [dice.randint(1, 400) for _ in range(5000)]
    return lambda moment: limits[int(moment / seconds)]


def extremes(seed: int, seconds: float) -> Callable[[float], float]:
    """400 and 1 in turn."""
    return lambda moment: 1 if (int(moment / seconds) + seed) % 2 else 400


@pytest.mark.parametrize(
    ("schedule", "seconds", "least"),
    [
        *((moving, seconds, 0.7) for seconds in (1, 2, 5, 10)),
        *((extremes, seconds, least) for seconds, least in ((2, 0.55), (5, 0.7), (10, 0.7))),
    ],
)
def test_storm__a_limit_that_jumps(
    schedule: Callable[..., Callable[[float], float]],
    seconds: float,
    least: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storms = [
        ask_all(new_clock(monkeypatch), schedule(seed, seconds), seed=seed) for seed in range(6)
    ]

    assert mean(storm.share for storm in storms) >= least
    assert not any(storm.is_out_of_budget for storm in storms)
    assert all(storm.answered == 1500 for storm in storms)


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(1, 400), st.floats(1, 6)), min_size=1, max_size=12))
def test_storm__any_schedule_ends_within_its_budget(steps: list[tuple[int, float]]) -> None:
    def limit(moment: float) -> float:
        moment %= sum(seconds for _limit, seconds in steps)
        for value, seconds in steps:
            moment -= seconds
            if moment < 0:
                return value
        return steps[-1][0]

    with pytest.MonkeyPatch.context() as monkeypatch:
        storm = ask_all(new_clock(monkeypatch), limit, rows=300)

    assert not storm.is_out_of_budget
    assert storm.share > 0.3


# --- several processes ------------------------------------------------------------------------


def four(clock: Clock, row: Row, **given: Any) -> Storm:
    return ask_all(
        clock,
        lambda _seconds: 100,
        processes=4,
        row=row,
        begins=lambda number: 0.07 * number,
        **given,
    )


def test_storm__four_processes_find_a_limit_that_nobody_told(clock: Clock) -> None:
    storm = four(clock, Row(clock), rows=4000)

    assert storm.share >= 0.92
    assert storm.refused <= 0.01 * storm.answered
    assert min(process.answered for process in storm.processes) > 800


def test_storm__the_rate_is_remembered(clock: Clock) -> None:
    row = Row(clock)
    ask_all(clock, lambda _seconds: 100, row=row)
    known = row.state.known
    assert known is not None
    assert 90 < known.rate < 110
    again = Row(clock)
    again.state = State(known, row.state.refusals)

    storm = four(clock, again, rows=1000)

    assert storm.seconds < 11.2
    assert storm.refused <= 0.01 * storm.answered


def test_storm__a_limit_that_is_told_is_the_accounts(clock: Clock) -> None:
    storm = four(clock, Row(clock), rows=2000, rate_limit=100.0)

    assert storm.share >= 0.92
    assert storm.refused <= 0.02 * storm.answered


def test_storm__one_busy_process_of_four_has_it_all(clock: Clock) -> None:
    row = Row(clock)
    four(clock, row, rows=200, rate_limit=90.0)
    clock.until(clock.now + LIVE_SECONDS + 1)

    storm = ask_all(clock, lambda _seconds: 100, rows=900, row=row, rate_limit=90.0)

    assert storm.seconds < 900 / 90 / 0.95
    assert storm.refused == 0


def test_storm__without_the_row_each_is_alone_and_all_ends(clock: Clock) -> None:
    storm = ask_all(clock, lambda _seconds: 100, processes=4, rows=1500)

    assert storm.answered == 1500
    assert not storm.is_out_of_budget


@pytest.mark.parametrize("seed", range(6))
def test_storm__a_hard_fall_is_no_outage_and_recovery_is_quick(seed: int, clock: Clock) -> None:
    """400 a second, 20 seconds of 1, and 400 again: 1,500 rows take no minute."""

    def limit(moment: float) -> float:
        return 1 if 2 <= moment < 22 else 400

    storm = ask_all(clock, limit, seed=seed)

    assert not storm.is_out_of_budget
    assert storm.seconds < 22 + 8


def test_storm__only_refusals_end(clock: Clock) -> None:
    storm = ask_all(clock, lambda _seconds: 0, rows=100)

    assert storm.is_out_of_budget
    assert storm.refused <= 120


# --- the budget of refusals -------------------------------------------------------------------


def test_retry_budget__refusals_cost_no_retry() -> None:
    budget = RetryBudget(40)

    for number in range(30):
        budget.refused(f"/{number}")

    assert budget._bucket.tokens == 40
    assert budget.may_be_refused()


def test_retry_budget__one_path_refused_is_no_storm() -> None:
    budget = RetryBudget()

    assert [budget.refused("/a"), budget.refused("/a"), budget.refused("/b")] == [0, 0, 1]
    assert budget.refused("/a")


def test_retry_budget__what_a_storm_used_up_stays_used_up() -> None:
    budget = RetryBudget()
    for number in range(200):
        budget.refused(f"/{number}")

    again = RetryBudget(tokens=budget.tokens)

    assert not again.may_be_refused()
    again.earn()
    assert again.may_be_refused()


# --- over sockets -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.django_db
def test_run__limit_that_moves(
    sandbox: BlandSandbox, copied: Callable[..., list[str]], started: Callable[..., BulkUpdate]
) -> None:
    bulk_update, over = started(copied(400)), threading.Event()

    def move() -> None:
        for limit in (200, 2, 300, 1, 400):
            sandbox.rate_limit = limit
            if over.wait(2):
                return

    mover = threading.Thread(target=move)
    began = time.monotonic()
    mover.start()
    try:
        assert run(bulk_update) is True
    finally:
        over.set()
        mover.join()

    assert bulk_update.counts()["changed"] == 400
    assert any(seen["status"] == 429 for seen in sandbox.log)
    assert time.monotonic() - began < 60


@pytest.mark.django_db
def test_run__nothing_but_429(
    monkeypatch: pytest.MonkeyPatch,
    sandbox: BlandSandbox,
    copied: Callable[..., list[str]],
    started: Callable[..., BulkUpdate],
) -> None:
    bulk_update = started(copied(100))
    sandbox.faults.add("*", "forever:429")

    monkeypatch.setattr(tokens, "PATIENT_SECONDS", 3.0)

    assert run(bulk_update) is False

    bulk_update.refresh_from_db()
    assert (bulk_update.status, bulk_update.stop_code) == ("stopped", "outage")
    assert bulk_update.stop_message == "Bland limits how often it may be asked."
    assert bulk_update.not_before is not None
    assert bulk_update.counts()["waiting"] == 100
    assert set(bulk_update.items.values_list("attempts", flat=True)) == {0}
    assert len(sandbox.log) <= 150
    assert cancel(bulk_update) is True
    assert bulk_update.counts()["cancelled"] == 100


@pytest.mark.django_db
def test_refresh_many__only_refusals_are_no_silence(
    monkeypatch: pytest.MonkeyPatch, sandbox: BlandSandbox, copied: Callable[..., list[str]]
) -> None:
    monkeypatch.setattr(rate, "SLOWEST_RATE", 500.0)
    monkeypatch.setattr(pacer, "LONGEST_PAUSE_SECONDS", 0.01)
    names = copied(100)
    sandbox.faults.add("*", "forever:429:86400")

    refreshed = refresh_many(names)

    told = {str(error) for error in refreshed.failed.values()}
    assert told == {"Bland asked us to slow down (429)", "Bland limits how often it may be asked"}
