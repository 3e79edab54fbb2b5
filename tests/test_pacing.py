"""How fast, how often and how long: by a clock that only moves when somebody waits."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bland_sms.pacing import (
    Allowance,
    Pacer,
    RetryBudget,
    TokenBucket,
    allowance,
    back_off_seconds,
    pacer,
    tokens,
)


class Clock(threading.Event):
    """A monotonic clock, and an event whose waiting moves it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waits.append(timeout)
        self.now += timeout
        return self.is_set()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (allowance, pacer, tokens):
        monkeypatch.setattr(module, "time", clock)
    return clock


def send_times(pacer: Pacer, clock: Clock, number: int) -> list[float]:
    """When each of so many calls may go, in seconds from now."""
    begin, times = clock.now, []
    for _ in range(number):
        assert pacer.wait(Allowance(stopped=clock))
        times.append(clock.now - begin)
    return times


# --- the bucket -------------------------------------------------------------------------------


def taken(bucket: TokenBucket) -> int:
    """How many tokens it still gives."""
    number = 0
    while bucket.take():
        number += 1
    return number


def test_token_bucket__a_burst_and_then_what_came_back(clock: Clock) -> None:
    bucket = TokenBucket(5, 2)

    assert taken(bucket) == 5
    clock.now += 1.5
    assert taken(bucket) == 3
    clock.now += 3600
    assert taken(bucket) == 5


def test_token_bucket__is_never_more_than_full(clock: Clock) -> None:
    bucket = TokenBucket(5, 2)
    bucket.give(100)

    assert taken(bucket) == 5


def test_token_bucket__fractions_add_up(clock: Clock) -> None:
    bucket = TokenBucket(5)
    taken(bucket)

    bucket.give(0.5)
    assert taken(bucket) == 0
    bucket.give(0.5)
    assert taken(bucket) == 1


def test_token_bucket__what_came_back_before_a_change_of_rate_counts(clock: Clock) -> None:
    bucket = TokenBucket(100, 10)
    taken(bucket)
    clock.now += 1
    bucket.per_second = 1000

    assert taken(bucket) == 10


def test_token_bucket__held_it_gives_nothing_and_then_one(clock: Clock) -> None:
    bucket = TokenBucket(5, 2)
    bucket.hold(10)
    bucket.hold(3)

    assert taken(bucket) == 0
    assert bucket.seconds_to_token() == 10
    clock.now += 10
    assert taken(bucket) == 1


def test_token_bucket__seconds_to_token(clock: Clock) -> None:
    bucket = TokenBucket(1, 4)
    assert bucket.seconds_to_token() == 0
    bucket.take()
    assert bucket.seconds_to_token() == pytest.approx(0.25)
    assert TokenBucket(0).seconds_to_token() == float("inf")


# --- a known limit ----------------------------------------------------------------------------


def test_pacer__rate_limit_is_kept_from_the_first_call_on(clock: Clock) -> None:
    times = send_times(Pacer(50), clock, 101)

    assert times == pytest.approx([index / 50 for index in range(101)])


def test_pacer__no_burst_after_a_rest(clock: Clock) -> None:
    pacer = Pacer(50)
    send_times(pacer, clock, 1)
    clock.now += 3600

    assert send_times(pacer, clock, 3) == pytest.approx([0, 0.02, 0.04])


def test_pacer__refusal_does_not_change_a_known_limit(clock: Clock) -> None:
    pacer = Pacer(50)
    send_times(pacer, clock, 1)

    pacer.refused(clock.now)

    assert pacer.rate == 50


def test_pacer__many_threads_share_one_rate() -> None:
    pacer, rate, number = Pacer(400), 400, 81
    begin = time.monotonic()

    with ThreadPoolExecutor(16) as pool:
        went = list(pool.map(lambda _: pacer.wait(Allowance()), range(number)))

    ideal = (number - 1) / rate
    assert all(went)
    assert ideal <= time.monotonic() - begin < 60  # and nobody is forgotten


# --- an unknown limit -------------------------------------------------------------------------


def test_pacer__doubles_each_quarter_second_until_refused(clock: Clock) -> None:
    pacer, rates = Pacer(), []

    for _ in range(4):
        send_times(pacer, clock, 1)
        rates.append(pacer.rate)
        clock.now += 0.26

    assert rates == [20, 40, 80, 160]


def test_pacer__does_not_grow_within_a_quarter_second(clock: Clock) -> None:
    pacer = Pacer()

    send_times(pacer, clock, 5)

    assert pacer.rate == 20


def test_pacer__an_idle_hour_proves_nothing(clock: Clock) -> None:
    pacer = Pacer()
    send_times(pacer, clock, 1)
    clock.now += 3600

    send_times(pacer, clock, 8)

    assert pacer.rate == 40


def test_pacer__an_idle_hour_after_a_refusal_proves_nothing(clock: Clock) -> None:
    pacer = Pacer()
    send_times(pacer, clock, 1)
    pacer.refused(clock.now)
    clock.now += 3600

    send_times(pacer, clock, 8)

    assert pacer.rate == pytest.approx(14)


def test_pacer__falls_to_seven_tenths_where_nothing_was_answered(clock: Clock) -> None:
    pacer = Pacer()
    send_times(pacer, clock, 1)

    pacer.refused(clock.now)

    assert pacer.rate == pytest.approx(14)


def at_a_limit(clock: Clock, limit: int, seconds: float, pacer: Pacer) -> list[float]:
    """Ask for so long where so many a second are answered. Returns when one was refused."""
    recent: list[float] = []
    refused = []
    end = clock.now + seconds
    while clock.now < end:
        assert pacer.wait(Allowance(stopped=clock))
        recent = [moment for moment in recent if moment > clock.now - 1]
        if len(recent) < limit:
            recent.append(clock.now)
            pacer.answered(clock.now)
        else:
            refused.append(clock.now)
            pacer.refused(clock.now)
    return refused


def test_pacer__falls_to_what_was_answered_within_a_second(clock: Clock) -> None:
    pacer = Pacer()

    at_a_limit(clock, 100, 1.2, pacer)

    assert pacer.rate == pytest.approx(97)


def test_pacer__probes_gently_and_ever_more_seldom(clock: Clock) -> None:
    pacer = Pacer()

    refused = at_a_limit(clock, 100, 60, pacer)

    assert len(refused) < 0.01 * 60 * 100
    assert sum(moment > clock.now - 30 for moment in refused) <= 10
    assert 95 < pacer.rate < 120


def test_pacer__follows_a_limit_that_rose(clock: Clock) -> None:
    pacer = Pacer()
    at_a_limit(clock, 50, 30, pacer)

    at_a_limit(clock, 400, 15, pacer)

    assert pacer.rate > 300


def test_pacer__counts_one_refusal_of_a_round(clock: Clock) -> None:
    """16 threads whose requests went out together are refused together."""
    pacer = Pacer()
    send_times(pacer, clock, 1)
    sent_at = clock.now
    clock.now += 0.1

    for _ in range(16):
        pacer.refused(sent_at)

    assert pacer.rate == pytest.approx(14)


def test_pacer__counts_a_refusal_of_the_next_round(clock: Clock) -> None:
    pacer = Pacer()
    send_times(pacer, clock, 1)
    pacer.refused(clock.now)
    clock.now += 0.1

    pacer.refused(clock.now)

    assert pacer.rate == pytest.approx(20 * 0.7 * 0.7)


def test_pacer__first_refusal_counts_though_the_rate_grew_meanwhile(clock: Clock) -> None:
    pacer = Pacer()
    send_times(pacer, clock, 1)
    sent_at = clock.now
    clock.now += 0.26
    send_times(pacer, clock, 1)

    pacer.refused(sent_at)

    assert pacer.rate == pytest.approx(40 * 0.7)


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        (None, 0.1),
        (0.0, 0.1),
        (1.5, 1.5),
        (99_999.0, pacer.LONGEST_PAUSE_SECONDS),
    ],
)
def test_pacer__all_pause_for_a_moment_after_a_refusal(
    asked: float | None, seconds: float, clock: Clock
) -> None:
    pacer = Pacer(50)
    send_times(pacer, clock, 1)

    pacer.refused(clock.now, asked)

    assert send_times(pacer, clock, 2) == pytest.approx([seconds, seconds + 0.02])


def test_pacer__never_stands_still(clock: Clock) -> None:
    pacer = Pacer()

    for _ in range(100):
        clock.now += 0.01
        pacer.refused(clock.now)

    assert pacer.rate == pytest.approx(0.2)


def test_pacer__finds_an_unknown_limit(clock: Clock) -> None:
    """100 a second, 1,000 calls. A gate without a rate took 3.9 times the ideal (facts.md)."""
    pacer, allowance, limit = Pacer(), Allowance(stopped=clock), 100
    recent: list[float] = []
    answered = refused = 0
    begin = clock.now

    while answered < 1000:
        assert pacer.wait(allowance)
        recent = [moment for moment in recent if moment > clock.now - 1]
        if len(recent) < limit:
            recent.append(clock.now)
            answered += 1
        else:
            refused += 1
            pacer.refused(clock.now)

    assert clock.now - begin < 10 * 3.9
    assert refused < 0.05 * answered


# --- how long ---------------------------------------------------------------------------------


def test_pacer__does_not_wait_beyond_the_allowance(clock: Clock) -> None:
    pacer = Pacer(1)
    send_times(pacer, clock, 1)

    went = pacer.wait(Allowance(deadline=clock.now + 0.5, stopped=clock))

    assert (went, clock.waits) == (False, [])


def test_pacer__a_slot_not_taken_is_the_next_ones(clock: Clock) -> None:
    pacer = Pacer(1)
    send_times(pacer, clock, 1)
    pacer.wait(Allowance(deadline=clock.now + 0.5, stopped=clock))

    assert send_times(pacer, clock, 1) == pytest.approx([1])


def test_pacer__who_stands_in_line_is_let_go_when_his_job_stops() -> None:
    pacer, other, stopped = Pacer(0.01), Allowance(), threading.Event()
    pacer.wait(Allowance())

    with ThreadPoolExecutor(2) as pool:
        first_in_line = pool.submit(pacer.wait, other)
        time.sleep(0.05)
        second = pool.submit(pacer.wait, Allowance(stopped=stopped))
        time.sleep(0.05)
        stopped.set()
        went = second.result(60)
        was_first_waiting = not first_in_line.done()
        other.stopped.set()

    assert went is False
    assert was_first_waiting


def test_allowance__seconds_left(clock: Clock) -> None:
    assert Allowance().seconds_left() is None
    assert Allowance.of_seconds(5).seconds_left() == 5
    assert Allowance(deadline=clock.now - 1).seconds_left() == 0


def test_allowance__nothing_is_sent_after_the_deadline(clock: Clock) -> None:
    allowance = Allowance(deadline=clock.now + 5)

    assert allowance.may_pause(4.9)
    assert not allowance.may_pause(5)


def test_allowance__sending_may_end_before_waiting_for_answers_does(clock: Clock) -> None:
    allowance = Allowance(deadline=clock.now + 5, send_until=clock.now + 2)

    assert not allowance.may_pause(2)
    assert allowance.seconds_left() == 5


def test_allowance__a_pause_too_long_is_not_begun(clock: Clock) -> None:
    allowance = Allowance(deadline=clock.now + 1, stopped=clock)

    assert (allowance.pause(2), clock.waits) == (False, [])


def test_allowance__stopping_ends_a_pause() -> None:
    allowance = Allowance()
    threading.Timer(0.05, allowance.stopped.set).start()
    begin = time.monotonic()

    assert allowance.pause(60) is False
    assert time.monotonic() - begin < 60


def test_allowance__once_stopped_nothing_more_is_sent() -> None:
    allowance = Allowance()
    allowance.stopped.set()

    assert not allowance.pause(0)


def test_allowance__once_shares_all_limits() -> None:
    whole = Allowance(deadline=9.0, send_until=8.0, budget=RetryBudget())

    once = whole.once()

    assert once.attempts == 1
    assert (once.deadline, once.send_until) == (9.0, 8.0)
    assert (once.budget, once.stopped) == (whole.budget, whole.stopped)


# --- how often --------------------------------------------------------------------------------


def spent(budget: RetryBudget) -> int:
    """How many tokens it still gives."""
    number = 0
    while budget.spend():
        number += 1
    return number


def test_retry_budget__ends() -> None:
    assert spent(RetryBudget(40)) == 40


def test_retry_budget__two_answers_earn_one_retry() -> None:
    budget = RetryBudget(3)
    spent(budget)

    budget.earn()
    assert spent(budget) == 0
    budget.earn()
    assert spent(budget) == 1


def test_retry_budget__never_more_than_at_the_beginning() -> None:
    budget = RetryBudget(3)

    for _ in range(100):
        budget.earn()

    assert spent(budget) == 3


def test_retry_budget__threads_spend_each_token_once() -> None:
    budget = RetryBudget(500)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: spent(budget), range(8)))

    assert sum(found) == 500


def test_allowance__without_budget_retries_are_not_counted() -> None:
    assert all(Allowance().may_retry() for _ in range(1000))


def test_allowance__answers_earn_for_the_budget() -> None:
    budget = RetryBudget(1)
    allowance = Allowance(budget=budget)
    assert allowance.may_retry()

    allowance.answered()
    allowance.answered()

    assert allowance.may_retry()


# --- how long before the next attempt ---------------------------------------------------------


@given(st.integers(1, 20))
def test_back_off_seconds__full_jitter_below_a_ceiling(attempt: int) -> None:
    seconds = back_off_seconds(attempt, None)

    assert seconds is not None
    assert 0 <= seconds <= min(8, 0.5 * 2 ** (attempt - 1))


def test_back_off_seconds__is_not_the_same_for_all() -> None:
    assert len({back_off_seconds(2, None) for _ in range(20)}) > 10


@given(st.integers(1, 3), st.floats(0, 60))
def test_back_off_seconds__never_shorter_than_asked_for(attempt: int, asked: float) -> None:
    seconds = back_off_seconds(attempt, asked)

    assert seconds is not None
    assert asked <= seconds <= asked + 0.1


@pytest.mark.parametrize("asked", [60.1, 99_999.0, float("inf")])
def test_back_off_seconds__longer_than_anybody_sleeps(asked: Any) -> None:
    assert back_off_seconds(1, asked) is None
