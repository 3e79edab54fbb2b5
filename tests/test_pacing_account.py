"""Where processes meet: the row, its statements, and what happens without it."""

from __future__ import annotations

import _thread
import math
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
from django.core import mail
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext

from bland_sms import sync, updates
from bland_sms.models import AccountPace, BulkUpdate
from bland_sms.pacing import Allowance, Pacer, may_share
from bland_sms.pacing.account import TICK_SECONDS, Account
from bland_sms.pacing.pacer import FEW_CALLS, JOIN_SECONDS
from bland_sms.pacing.shares import LEAST_SHARE, LIVE_SECONDS, Share, State, fair, take
from bland_sms.sandbox import BlandSandbox
from bland_sms.sync import refresh_many

pytestmark = pytest.mark.django_db


def busy(rate_limit: float | None = 100.0) -> Pacer:
    """A pacer of which more is wanted than it has."""
    pacer = Pacer(rate_limit)
    pacer.wait(Allowance())
    pacer._late_calls = pacer._calls
    return pacer


def look(pacer: Pacer) -> None:
    pacer._late_calls = pacer._calls = 1
    pacer._account.look()


def test_account__alone_it_has_all_and_one_statement_a_look_does() -> None:
    pacer = busy()
    look(pacer)

    with CaptureQueriesContext(connection) as queries:
        look(pacer)
        look(pacer)

    assert pacer.rate == 100
    assert len(queries) == 2
    assert all(query["sql"].startswith("UPDATE") for query in queries)


def test_account__two_share_by_demand_and_one_that_leaves_frees_its_share() -> None:
    first, second = busy(), busy()
    look(first)
    look(second)
    assert (first.rate, second.rate) == (100, 100 * LEAST_SHARE)

    look(first)
    look(second)
    assert (first.rate, second.rate) == (50, 50)

    first._account.give_back()
    look(second)
    assert second.rate == 100


def test_account__a_refusal_of_one_slows_the_other() -> None:
    first, second = busy(None), busy(None)
    for pacer in (first, second, first, second):
        look(pacer)
    before = second._rate.value

    first.refused(float("inf"))
    look(first)
    look(second)

    assert second._rate.value < before
    assert second._rate.value == first._rate.value


def test_account__a_new_process_starts_from_what_was_known() -> None:
    first = busy(None)
    first._rate.known = replace(first._rate.known, rate=150.0, limit=155.0)
    first._refusals = 1
    look(first)
    first._account.give_back()

    second = busy(None)
    look(second)

    assert second.rate == 150


def test_account__two_that_write_at_once_both_have_their_share(monkeypatch: Any) -> None:
    first, second = busy(), busy()
    look(first)
    read = Account._read

    def overtaken(account: Account) -> Any:
        stored = read(account)
        monkeypatch.setattr(Account, "_read", read)
        look(first)
        return stored

    monkeypatch.setattr(Account, "_read", overtaken)
    look(second)
    look(first)
    look(second)

    assert first.rate + second.rate == 100
    assert len(State.from_json(AccountPace.objects.get().state).shares) == 2


@pytest.mark.parametrize("junk", [{}, [], {"known": {"rate": 1, "new": 2}}, {"shares": 3}, "x"])
def test_account__a_row_of_another_version_is_begun_anew(junk: Any) -> None:
    AccountPace.objects.create(state=junk, version=7)
    pacer = busy()

    look(pacer)

    assert pacer.rate == 100


def test_may_share__not_in_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    assert may_share() is False
    monkeypatch.delattr(mail, "outbox")
    assert may_share() is False  # this test case's own transaction


def test_pacer__two_calls_take_no_share(monkeypatch: pytest.MonkeyPatch) -> None:
    joined: list[Account] = []
    monkeypatch.setattr(Account, "join", lambda account: joined.append(account) or True)
    pacer = Pacer(1000, may_share=True)

    pacer.wait(Allowance())
    pacer.wait(Allowance())
    assert not joined
    pacer.wait(Allowance())
    assert joined


def test_pacer__who_has_just_come_looks_often_and_who_is_done_gives_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Several that begin together: the first takes all, and the others wait until it looks."""
    monkeypatch.setattr(Account, "join", lambda account: True)
    pacer, now = Pacer(1000, may_share=True), time.monotonic()
    for _ in range(FEW_CALLS):
        pacer.wait(Allowance())
    alone = State(shares={"ours": Share(taken=1.0, wanted=1.0, answered=0, at=0.0)})
    assert pacer.is_in_hurry(alone, "ours")
    assert pacer.is_busy()

    later = now + 60 + max(JOIN_SECONDS, TICK_SECONDS)  # a slow machine took its time
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert not pacer.is_in_hurry(alone, "ours")
    assert not pacer.is_busy()


def test_pacer__after_one_came_or_left_it_looks_often_for_a_while() -> None:
    """Whose share is small, and who leaves soon, is noticed before the next second."""
    first, second = busy(), busy()

    def looks_again_soon() -> bool:
        first._company_changed_at = -math.inf
        first._late_calls = first._calls = 1
        return first._account.look()

    assert not looks_again_soon()
    look(second)
    assert looks_again_soon()
    assert not looks_again_soon()
    second._account.give_back()
    assert looks_again_soon()
    assert not looks_again_soon()


def test_pacer__without_the_database_it_has_its_own_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = threading.Event()

    def away(_account: Account) -> None:
        failed.set()
        raise OperationalError

    monkeypatch.setattr(Account, "_read", away)
    monkeypatch.setattr(Account, "_disconnect", lambda _account: None)
    monkeypatch.setattr("bland_sms.pacing.pacer.JOIN_SECONDS", 0.0)
    pacer = Pacer(1000, may_share=True)

    for _ in range(5):
        assert pacer.wait(Allowance())

    assert failed.wait(60)
    assert pacer.rate == 1000


# --- the end of a job -------------------------------------------------------------------------


JOBS: dict[str, Callable[[list[str], Callable[..., BulkUpdate]], object]] = {
    "update": lambda ids, started: updates.run(started(ids)),
    "sync": lambda ids, started: sync.run(messages=True),
    "refresh": lambda ids, started: refresh_many(ids),
}


def shares() -> set[str]:
    return set(State.from_json(AccountPace.objects.get().state).shares)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("is_interrupted", [False, True])
def test_job__its_end_gives_the_share_back(
    name: str,
    is_interrupted: bool,
    sandbox: BlandSandbox,
    copied: Callable[..., list[str]],
    started: Callable[..., BulkUpdate],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process may end with it, and whoever comes next would wait for that share."""
    monkeypatch.setattr("bland_sms.client.current.may_share", lambda: True)
    sandbox.latency_seconds = 0.05
    ids = copied(40)
    settle, give_back = Pacer.settle, Account.give_back
    had: list[set[str]] = []
    settled: list[Pacer] = []

    def settle_and_interrupt(pacer: Pacer, *states: Any) -> None:
        settle(pacer, *states)
        if is_interrupted and not settled:
            _thread.interrupt_main()
        settled.append(pacer)

    def note_and_give_back(account: Account) -> None:
        had.append(shares())
        give_back(account)

    monkeypatch.setattr(Pacer, "settle", settle_and_interrupt)
    monkeypatch.setattr(Account, "give_back", note_and_give_back)
    with pytest.raises(KeyboardInterrupt) if is_interrupted else nullcontext():
        JOBS[name](ids, started)

    assert [len(one) for one in had] == [1]
    assert not shares()


@pytest.mark.django_db(transaction=True)
def test_pacer__who_leaves_tells_what_it_learned_last(monkeypatch: pytest.MonkeyPatch) -> None:
    settled = threading.Event()
    settle = Pacer.settle

    def settle_and_tell(pacer: Pacer, *states: Any) -> None:
        settle(pacer, *states)
        settled.set()

    monkeypatch.setattr(Pacer, "settle", settle_and_tell)
    monkeypatch.setattr("bland_sms.pacing.account.TICK_SECONDS", 600.0)
    monkeypatch.setattr("bland_sms.pacing.account.HURRY_SECONDS", 600.0)
    pacer = Pacer(may_share=True)
    for _ in range(FEW_CALLS):
        pacer.wait(Allowance())
    assert settled.wait(60)
    pacer._rate.known = replace(pacer._rate.known, rate=150.0, limit=155.0)
    pacer._refusals = 1

    pacer.leave()

    state = State.from_json(AccountPace.objects.get().state)
    assert state.known is not None
    assert (state.known.rate, state.shares) == (150.0, {})


# --- the division -----------------------------------------------------------------------------


def test_fair__who_wants_little_gets_it_and_the_others_the_same() -> None:
    assert fair({"a": 1.0, "b": 1.0, "c": 0.2}) == pytest.approx({"a": 0.4, "b": 0.4, "c": 0.2})
    assert sum(fair({"a": 0.1, "b": 0.2}).values()) == pytest.approx(1)


@pytest.mark.parametrize("seconds", [LIVE_SECONDS + 0.1, -LIVE_SECONDS - 0.1])
def test_take__a_process_that_died_or_has_a_wrong_clock_holds_nothing(seconds: float) -> None:
    shares = {"dead": Share(1.0, 1.0, 100, 1000.0)}

    after = take(shares, "me", Share(0.0, 1.0, 0, 1000.0 + seconds))

    assert after["me"].taken == 1
    assert set(after) == {"me"}
