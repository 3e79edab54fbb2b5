"""Changes of state of updates and their items, one statement at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from datetime import timezone as dt_timezone
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import AbstractUser
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bland_sms.models import BulkUpdate, BulkUpdateItem, Conversation
from bland_sms.pacing import RetryBudget
from bland_sms.payloads import EPOCH
from bland_sms.reasons import HISTORY_KEY, Failure
from bland_sms.signals import bulk_update_finished
from bland_sms.updates import (
    EmptySelectionError,
    cancel,
    claiming,
    decisions,
    ending,
    has_hidden,
    left_alone,
    proceed,
    retry,
    transitions,
    undo,
)
from bland_sms.updates.asking import ClaimedItem
from bland_sms.updates.claiming import claim, standing_of, unclaim, unwanted, waits_for_another
from bland_sms.updates.decisions import undoable, undoing
from bland_sms.updates.transitions import (
    call_back,
    cancel_items,
    come_to_rest,
    finish_if_done,
    put_back,
    release_dead_claims,
)

pytestmark = pytest.mark.django_db
SOON = timedelta(minutes=1)
MOMENT = datetime(2026, 2, 3, 12, tzinfo=dt_timezone.utc)


def made(status: str = "running", *items: dict[str, Any], **values: Any) -> BulkUpdate:
    """An update with items in these states."""
    bulk_update = BulkUpdate.objects.create(is_active=False, status=status, **values)
    for item in items:
        pk = f"conv_{BulkUpdateItem.objects.count()}"
        Conversation.objects.create(pk=pk, is_active=True)
        claimed = pk if item["state"] == "running" else None
        BulkUpdateItem.objects.create(
            bulk_update=bulk_update, conversation_id=pk, claimed_conversation=claimed, **item
        )
    return bulk_update


def columns(bulk_update: BulkUpdate, *names: str) -> list[Any]:
    return list(bulk_update.items.order_by("pk").values_list(*names))


@pytest.fixture
def heard() -> Any:
    """What the signal ``bulk_update_finished`` told; its update is at rest with these counts."""
    told: list[tuple[int, dict[str, int] | None]] = []

    def hear(bulk_update: BulkUpdate, counts: dict[str, int], **kwargs: Any) -> None:
        nonzero = {state: number for state, number in counts.items() if number}
        told.append((bulk_update.pk, nonzero if bulk_update.counts_at_rest == counts else None))

    bulk_update_finished.connect(hear)
    yield told
    bulk_update_finished.disconnect(hear)


def test_cancel_items__only_what_waits() -> None:
    bulk_update = made("running", {"state": "waiting"}, {"state": "running"}, {"state": "waiting"})
    first, second, third = bulk_update.items.order_by("pk").values_list("pk", flat=True)

    assert cancel_items([first, second], "cancelled", by="dana") == 1
    assert cancel_items([third], "superseded") == 1

    assert columns(bulk_update, "state", "error_code", "error_params") == [
        ("cancelled", "cancelled", {"by": "dana"}),
        ("running", "", None),
        ("cancelled", "superseded", None),
    ]
    assert [finished is not None for (finished,) in columns(bulk_update, "finished_at")] == [
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("was", "code", "state", "told"),
    [
        ("", "cancelled", "cancelled", "cancelled"),
        ("no_answer", "cancelled", "unknown", "no_answer"),
        ("interrupted", "lifted", "unknown", "no_answer"),
        ("no_answer", "superseded", "cancelled", "superseded"),
        ("interrupted", "already_queued", "cancelled", "already_queued"),
    ],
)
def test_cancel_items__of_what_was_in_flight_nobody_knows(
    was: str, code: str, state: str, told: str
) -> None:
    called_back = {transitions.CALLED_BACK: "lifted"}
    item = {"state": "waiting", "error_code": was, "error_params": called_back}
    bulk_update = made("running", item)

    assert cancel_items(list(bulk_update.items.values_list("pk", flat=True)), code) == 1

    assert columns(bulk_update, "state", "error_code", "error_params") == [(state, told, None)]
    assert columns(bulk_update, "finished_at") != [(None,)]


def test_call_back__only_what_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transitions, "batches", lambda values: [[value] for value in values])
    states = ("running", "waiting", "changed", "running", "running")
    bulk_update = made("running", *({"state": state} for state in states))
    *asked, _other = bulk_update.items.order_by("pk").values_list("pk", flat=True)

    assert call_back(asked, "cancelled", by="dana") == 2

    noted = {"by": "dana", transitions.CALLED_BACK: "cancelled"}
    assert columns(bulk_update, "state", "error_params") == [
        (state, params)
        for state, params in zip(states, (noted, None, None, noted, None), strict=True)
    ]


@pytest.mark.parametrize("way", ["unclaim", "put_back"])
def test_called_back__is_cancelled_as_it_is_put_back(way: str) -> None:
    """With what was noted; what failed before says why in the same column."""
    bulk_update = made(
        "running",
        {"state": "running", "error_params": {"by": "dana", transitions.CALLED_BACK: "cancelled"}},
        {"state": "running", "error_params": {transitions.CALLED_BACK: "lifted"}},
        {"state": "running"},
        {"state": "failed", "error_code": "error", "error_params": {"cause": "x"}},
    )
    if way == "unclaim":
        unclaim(bulk_update, [])
        expected = [("cancelled", "cancelled", {"by": "dana"}), ("cancelled", "lifted", None)]
        expected.append(("waiting", "", None))
    else:  # of these nobody knows whether they were sent
        put_back(bulk_update.items.all())
        expected = [("unknown", "no_answer", None)] * 2 + [("waiting", "interrupted", None)]

    assert columns(bulk_update, "state", "error_code", "error_params") == [
        *expected,
        ("failed", "error", {"cause": "x"}),
    ]


def test_cancel_items__counts_all_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transitions, "batches", lambda values: [[value] for value in values])
    bulk_update = made("running", {"state": "waiting"}, {"state": "waiting"})

    assert cancel_items(list(bulk_update.items.values_list("pk", flat=True)), "cancelled") == 2


def test_finish_if_done__once(heard: Any) -> None:
    bulk_update = made(
        *("running", {"state": "changed"}, {"state": "failed"}),
        **{"outage_since": timezone.now(), "outage_pauses": 3, "stop_code": "outage"},
        **{
            "lease_until": timezone.now() + SOON,
            "lease_token": "6f0e7f5e-1d3c-4b3c-9d52-7f1f5d3f7c11",
        },
    )
    other = made("running", {"state": "waiting"})

    assert finish_if_done(bulk_update.pk) is True
    assert finish_if_done(bulk_update.pk) is False

    bulk_update.refresh_from_db()
    assert bulk_update.status == "finished"
    assert bulk_update.finished_at is not None
    assert (bulk_update.lease_token, bulk_update.lease_until) == (None, None)
    assert (bulk_update.outage_since, bulk_update.outage_pauses) == (None, 0)
    assert bulk_update.stop_code == ""
    assert bulk_update.counts_at_rest == bulk_update.counts()
    assert heard == [(bulk_update.pk, {"changed": 1, "failed": 1})]
    other.refresh_from_db()
    assert (other.status, other.counts_at_rest) == ("running", None)


@pytest.mark.parametrize("state", ["waiting", "running"])
def test_finish_if_done__something_is_open(state: str, heard: Any) -> None:
    bulk_update = made("running", {"state": "changed"}, {"state": state}, live_counts={"a": 1})
    made("running", {"state": "changed"}, live_counts={"b": 1})
    small = made("running", {"state": state})

    assert finish_if_done(bulk_update.pk) is finish_if_done(small.pk) is False
    counts = BulkUpdate.objects.order_by("pk").values_list("live_counts", flat=True)
    assert list(counts) == [{}, {"b": 1}, None], "counted anew, and nothing else"

    assert set(BulkUpdate.objects.values_list("status", flat=True)) == {"running"}
    assert heard == []


@pytest.mark.parametrize(("status", "is_over"), [("cancelled", True), ("stopped", False)])
def test_come_to_rest__a_stopped_one_is_not_over(status: str, is_over: bool, heard: Any) -> None:
    bulk_update = made(status, {"state": "unknown"})

    come_to_rest(bulk_update.pk)

    bulk_update.refresh_from_db()
    assert bulk_update.counts_at_rest == bulk_update.counts()
    assert bool(heard) is is_over


def test_put_back__waits_again_or_is_unknown_when_cancelled(heard: Any) -> None:
    going = made("running", {"state": "running"}, {"state": "changed"})
    called_back = {transitions.CALLED_BACK: "cancelled"}
    cancelled = made(
        "cancelled", {"state": "running", "error_params": called_back}, {"state": "cancelled"}
    )

    put_back(BulkUpdateItem.objects.all())

    names = ("state", "claimed_conversation", "error_code", "error_params")
    assert columns(going, *names) == [
        ("waiting", None, "interrupted", None),
        ("changed", None, "", None),
    ]
    assert columns(cancelled, *names) == [
        ("unknown", None, "no_answer", None),
        ("cancelled", None, "", None),
    ]
    assert going.items.exclude(finished_at=None).count() == 0
    assert cancelled.items.exclude(finished_at=None).count() == 1
    cancelled.refresh_from_db()
    assert cancelled.counts_at_rest == cancelled.counts()
    assert heard == [(cancelled.pk, {"unknown": 1, "cancelled": 1})]


def test_release_dead_claims__not_those_of_a_live_lease(heard: Any) -> None:
    made("cancelled", {"state": "cancelled"})  # nothing of it was in flight
    dead = made("running", {"state": "running"}, lease_until=timezone.now() - SOON)
    live = made("running", {"state": "running"}, lease_until=timezone.now() + SOON / 6)

    release_dead_claims()

    assert columns(dead, "state") == [("waiting",)]
    assert columns(live, "state") == [("running",)]
    assert heard == []


def test_unclaim__only_what_was_begun_is_in_doubt() -> None:
    bulk_update = made(
        "running",
        {"state": "running", "previous_is_active": True},
        {"state": "running", "previous_is_active": True},
        {"state": "running", "previous_is_active": True, "attempts": 1},
        {"state": "running", "previous_is_active": True, "error_code": "no_answer"},
        {"state": "changed", "previous_is_active": True},
    )
    other = made("running", {"state": "running"})
    begun = bulk_update.items.order_by("pk").first()
    assert begun is not None

    unclaim(bulk_update, [begun.pk])

    names = ("state", "claimed_conversation", "error_code", "previous_is_active")
    assert columns(bulk_update, *names) == [
        ("waiting", None, "interrupted", True),
        ("waiting", None, "", None),  # never asked: its next claim is the first one
        ("waiting", None, "", True),
        ("waiting", None, "no_answer", True),
        ("changed", None, "", True),
    ]
    assert columns(other, "state") == [("running",)]


@pytest.mark.parametrize(
    ("code", "first_was", "row_is", "look_first", "previous"),
    [
        ("", None, True, False, True),
        ("no_answer", None, False, True, False),
        ("interrupted", True, False, True, True),
        ("interrupted", True, None, True, True),
        ("no_answer", None, None, False, None),  # without a row nothing was asked, only looked
    ],
)
def test_claim__tells_what_the_mirror_knows_and_whether_to_look_first(
    code: str, first_was: bool | None, row_is: bool | None, look_first: bool, previous: bool | None
) -> None:
    item = {"error_code": code, "previous_is_active": first_was, "attempts": 2}
    bulk_update = made("running", {"state": "waiting", **item}, started_at=timezone.now())
    assert bulk_update.take_lease()
    Conversation.objects.update(is_active=row_is is True, updated_at=MOMENT)
    if row_is is None:
        Conversation.objects.all().delete()
    Conversation.objects.create(pk="another", is_active=row_is is False, updated_at=EPOCH)

    [claimed] = claim(bulk_update, 9)

    assert claimed == ClaimedItem(
        item_id=bulk_update.items.get().pk,
        conversation_id="conv_0",
        is_active=False,
        attempts=2,
        look_first=look_first,
        previous_is_active=previous,
        known_updated_at=None if row_is is None else MOMENT,
    )
    names = ("state", "claimed_conversation", "previous_is_active")
    assert columns(bulk_update, *names) == [("running", "conv_0", previous)]


@pytest.mark.parametrize(
    ("other", "is_superseded", "is_unwanted", "may_be_unwanted"),
    [
        ({}, True, True, True),
        ({"is_active": False}, False, False, False),
        ({"minutes": -1}, False, False, False),
        ({"minutes": 0}, False, False, False),
        ({"conversation_id": "conv_9"}, False, False, True),
        ({"state": "cancelled"}, False, False, True),
        ({"state": "changed"}, True, False, True),
        ({"state": "changed", "status": "finished"}, True, False, False),
    ],
    ids=str,
)
def test_claimed__what_a_newer_update_asks_the_opposite_of_is_not_wanted(
    other: dict[str, Any], is_superseded: bool, is_unwanted: bool, may_be_unwanted: bool
) -> None:
    bulk_update = made("running", {"state": "waiting"}, started_at=MOMENT)
    assert bulk_update.take_lease()
    newer = BulkUpdate.objects.create(
        is_active=other.get("is_active", True),
        status=other.get("status", "queued"),
        started_at=MOMENT + other.get("minutes", 1) * SOON,
    )
    pk, state = other.get("conversation_id", "conv_0"), other.get("state", "waiting")
    newer.items.create(conversation_id=pk, state=state)
    item = bulk_update.items.get()

    assert unwanted(bulk_update) == [], "it is not claimed"
    assert len(claim(bulk_update, 9)) == (not is_superseded)
    expected = ("cancelled", "superseded") if is_superseded else ("running", "")
    assert columns(bulk_update, "state", "error_code") == [expected]
    bulk_update.items.update(state="running", claimed_conversation="conv_0")
    assert unwanted(bulk_update) == [item.pk] * is_unwanted
    assert standing_of(bulk_update) == ("running", may_be_unwanted)
    BulkUpdate.objects.filter(pk=bulk_update.pk).update(lease_token=None)
    assert standing_of(bulk_update) is None


def test_claimed__what_is_called_back_is_not_wanted() -> None:
    noted = {transitions.CALLED_BACK: "cancelled"}
    failed = {"state": "failed", "error_params": {"cause": "x"}}
    ours, other = (
        made("running", {"state": "running"}, failed, started_at=MOMENT) for _ in range(2)
    )
    assert ours.take_lease()
    item = other.items.filter(state="running")
    item.update(error_params=noted)
    assert (standing_of(ours), unwanted(ours)) == (("running", False), [])
    item = ours.items.filter(state="running")
    item.update(error_params=noted)
    assert (standing_of(ours), unwanted(ours)) == (("running", True), [item.get().pk])


@pytest.mark.parametrize("meanwhile", ["nothing", "cancelled", "in flight elsewhere"])
def test_claim__leaves_out_what_others_decide_meanwhile(
    meanwhile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = {"state": "waiting", "not_before": timezone.now() + SOON}
    open_items = [{"state": "waiting", "not_before": due} for due in (None, None, MOMENT)]
    bulk_update = made("running", *open_items, later, started_at=MOMENT)
    assert bulk_update.take_lease()

    def decide(*args: Any) -> tuple[list[int], dict[str, Any]]:
        item = bulk_update.items.get(conversation_id="conv_1")
        if meanwhile == "cancelled":
            cancel_items([item.pk], "cancelled")
        elif meanwhile == "in flight elsewhere":
            other = made("running", started_at=MOMENT, lease_until=timezone.now() + SOON / 6)
            other.items.create(
                conversation_id="conv_1", claimed_conversation="conv_1", state="running"
            )
        return [], {}

    monkeypatch.setattr(claiming, "cancel_of_ended_orders", decide)

    claimed = [item.conversation_id for item in claim(bulk_update, 9)]

    left = {"nothing": "running", "cancelled": "cancelled", "in flight elsewhere": "waiting"}
    expected = ["running", left[meanwhile], "running", "waiting"]
    assert [state for (state,) in columns(bulk_update, "state")] == expected
    assert claimed == [f"conv_{n}" for n in range(4) if expected[n] == "running"]
    put_off = bulk_update.items.exclude(not_before=None).values_list("conversation_id", flat=True)
    assert set(put_off) == {"conv_3"}, "claimed is not put off any more"


def test_claim__what_is_in_flight_elsewhere_does_not_keep_the_rest_waiting() -> None:
    bulk_update = made("running", *[{"state": "waiting"}] * 3, started_at=MOMENT)
    other = made("running", started_at=MOMENT, lease_until=timezone.now() + SOON / 6)
    other.items.create(conversation_id="conv_0", claimed_conversation="conv_0", state="running")
    assert bulk_update.take_lease()

    assert [item.conversation_id for item in claim(bulk_update, 1)] == ["conv_1"]


def test_waits_for_another__only_as_long_as_something_is_due() -> None:
    later = {"state": "waiting", "not_before": timezone.now() + SOON}
    done = made("running", {"state": "changed"}, later)
    waiting = made("running", {"state": "waiting"})
    dead = made("running", {"state": "running"})

    assert waits_for_another(done) is False
    assert columns(dead, "state") == [("running",)]
    assert waits_for_another(waiting) is True
    assert columns(dead, "state") == [("waiting",)]


@pytest.mark.parametrize(
    ("seen", "states", "expected"),
    [
        (None, ("waiting",), False),
        (["conv_0", "conv_1"], ("waiting",), False),
        (["conv_0"], ("waiting",), True),
        (["conv_0"], ("failed",), False),
        (["conv_0"], ("failed", "waiting"), True),
        ([], ("waiting",), True),
    ],
)
def test_has_hidden(seen: list[str] | None, states: tuple[str, ...], expected: bool) -> None:
    bulk_update = made("running", {"state": "waiting"}, {"state": "waiting"})
    visible = None if seen is None else Conversation.objects.filter(pk__in=seen)

    assert has_hidden(bulk_update, states, visible) is expected


# --- how an update stands when a run of it ends, and what is decided then ----------------------

W, C = "waiting", "changed"


@pytest.mark.parametrize(
    ("status", "stop", "items", "expected", "is_at_rest"),
    [
        ("running", "", [W, C], ("queued", "", [W, C]), False),
        ("running", "", ["failed", C], ("finished", "", ["failed", C]), True),
        ("running", "tls", [W, C], ("stopped", "tls", [W, C]), True),
        ("running", "tls", [C, C], ("finished", "", [C, C]), True),
        ("cancelled", "", [W, C], ("cancelled", "", ["cancelled", C]), True),
        ("cancelled", "tls", [C], ("cancelled", "", [C]), True),
    ],
)
@pytest.mark.parametrize("is_lost", [False, True])
def test_release__how_it_stands(
    status: str,
    stop: str,
    items: list[str],
    expected: tuple[str, str, list[str]],
    is_at_rest: bool,
    is_lost: bool,
    heard: Any,
    django_capture_on_commit_callbacks: Any,
) -> None:
    bulk_update = made(status, *({"state": state} for state in items), started_at=MOMENT)
    other = made("running", {"state": "waiting"})
    assert bulk_update.take_lease()
    params = {"cause": "x"} if stop else {}
    if is_lost:
        BulkUpdate.objects.update(lease_until=MOMENT)
        assert BulkUpdate.objects.get(pk=bulk_update.pk).take_lease()

    with django_capture_on_commit_callbacks(execute=True):
        ending.release(bulk_update, Failure(stop, params), RetryBudget(), ())

    bulk_update.refresh_from_db()
    states = [state for (state,) in columns(bulk_update, "state")]
    told = (bulk_update.status, bulk_update.stop_code, states)
    is_done = "waiting" not in items and status == "running"
    if is_lost:
        assert told == (("finished" if is_done else status), "", items)
        assert (bulk_update.counts_at_rest is not None) is is_done
        return
    assert told == expected
    codes = {error_code for (error_code,) in columns(bulk_update, "error_code")}
    assert codes == ({"", "cancelled"} if "cancelled" in expected[2] else {""})
    assert (bulk_update.lease_token, bulk_update.lease_until) == (None, None)
    assert bulk_update.stop_params == (params if expected[1] else {})
    assert (bulk_update.counts_at_rest is not None) is is_at_rest
    assert [pk for pk, _counts in heard] == [bulk_update.pk] * (
        expected[0] in ("finished", "cancelled")
    )
    assert columns(other, "state") == [("waiting",)]


@pytest.mark.parametrize("live", [None, {}])
@pytest.mark.parametrize("answers", [0, 1])
@pytest.mark.parametrize("code", ["", "tls", "X" * 70, "outage"])
def test_release__what_is_told_of_an_outage(code: str, answers: int, live: Any) -> None:
    """Only an answer of Bland's ends it; whatever stopped it before is not told any more."""
    before = {"stop_code": "outage", "stop_params": {"cause": "x"}, "not_before": MOMENT}
    outage = {"outage_since": MOMENT, "outage_pauses": 3, "live_counts": live}
    items = [{"state": "waiting"}, {"state": "changed"}]
    bulk_update = made("running", *items, started_at=MOMENT, **before, **outage)
    budget = RetryBudget(tokens=7, earned=0)
    for _ in range(answers):
        budget.earn()
    assert bulk_update.take_lease()

    ending.release(bulk_update, Failure(code), budget, ())

    bulk_update.refresh_from_db()
    told = (bulk_update.stop_code, bulk_update.stop_params)
    assert told == (code[:64], {})
    assert bulk_update.retry_tokens == budget.tokens
    is_paused = code == "outage"
    assert (bulk_update.not_before is not None) is is_paused
    is_over = answers and not is_paused  # one that pauses again has been looked at once
    since = (bulk_update.outage_since, bulk_update.outage_pauses)
    assert since == ((None, 0) if is_over else (MOMENT, 3 + is_paused))
    kept = None if live is None else bulk_update.counts() if not code else live
    assert bulk_update.live_counts == kept


def test_release__all_of_it_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bulk_update = made("cancelled", {"state": "waiting"}, started_at=MOMENT)
    assert bulk_update.take_lease()
    monkeypatch.setattr(ending, "come_to_rest", None)

    with pytest.raises(TypeError):
        ending.release(bulk_update, Failure(), RetryBudget(), ())

    assert columns(bulk_update, "state") == [("waiting",)]
    bulk_update.refresh_from_db()
    assert bulk_update.lease_token is not None


@pytest.mark.parametrize(
    ("troubles", "params"), [({503, 429}, {}), ({429}, {"cause": "rate_limited"}), ((), {})]
)
def test_release__an_outage_is_a_pause(troubles: Any, params: dict[str, str]) -> None:
    bulk_update = made("running", {"state": "waiting"}, started_at=MOMENT)
    assert bulk_update.take_lease()
    began = timezone.now()

    ending.release(bulk_update, Failure("outage"), RetryBudget(), troubles)

    bulk_update.refresh_from_db()
    told = (bulk_update.status, bulk_update.stop_code, bulk_update.stop_params)
    assert told == ("stopped", "outage", params)
    assert bulk_update.not_before is not None
    assert bulk_update.not_before > began
    assert bulk_update.outage_pauses == 1
    assert bulk_update.counts_at_rest == bulk_update.counts()


@pytest.mark.parametrize(
    ("status", "is_retried"),
    [
        ("finished", True),
        ("cancelled", True),
        ("stopped", True),
        ("running", False),
        ("queued", False),
        ("draft", False),
    ],
)
@pytest.mark.parametrize("seen", [None, ["conv_0", "conv_2"], ["conv_3"], []], ids=str)
def test_retry__what_failed_or_is_unknown_waits_again(
    status: str, is_retried: bool, seen: list[str] | None
) -> None:
    done = {"finished_at": MOMENT, "attempts": 3, "error_params": {"cause": "x"}}
    codes = {"unknown": "error", "failed": "no_answer", "changed": "", "cancelled": "cancelled"}
    states = ["failed", "failed", "unknown", "changed", "cancelled"]
    items = [{"state": state, "error_code": codes[state], **done} for state in states]
    values = {"stop_code": "outage", "stop_params": {"a": 1}, "not_before": MOMENT}
    bulk_update = made(status, *items, started_at=MOMENT, finished_at=MOMENT, **values)
    other = made("finished", {"state": "failed"}, started_at=MOMENT)
    visible = None if seen is None else Conversation.objects.filter(pk__in=seen)

    again = [n for n in range(3) if seen is None or f"conv_{n}" in seen] if is_retried else []
    assert retry(bulk_update, visible=visible) == len(again)

    fresh = {"failed": ("waiting", "", None), "unknown": ("waiting", "no_answer", None)}
    assert columns(bulk_update, "state", "error_code", "error_params") == [
        fresh[state] if n in again else (state, codes[state], {"cause": "x"})
        for n, state in enumerate(states)
    ]
    assert [n for n, (at,) in enumerate(columns(bulk_update, "finished_at")) if at is None] == again
    assert set(columns(bulk_update, "attempts")) == {(3,)}
    told = (bulk_update.status, bulk_update.stop_code, bulk_update.stop_params)
    assert told == (("queued", "", {}) if again else (status, "outage", {"a": 1}))
    assert (bulk_update.finished_at, bulk_update.not_before) == (
        (None, None) if again else (MOMENT, MOMENT)
    )
    assert columns(other, "state") == [("failed",)]


@pytest.mark.parametrize("status", ["stopped", "finished", "cancelled", "running", "queued"])
def test_proceed__what_was_stopped(status: str, staff: AbstractUser) -> None:
    values = {"stop_code": "tls", "stop_params": {"a": 1}, "not_before": MOMENT}
    bulk_update = made(status, {"state": "waiting"}, finished_at=MOMENT, **values)
    other = made("stopped", stop_code="tls")

    assert proceed(bulk_update, staff) is (status == "stopped")
    continued = [(bulk_update.pk, "history_continued", {})]
    assert told_in_history() == continued * (status == "stopped")

    told = (bulk_update.status, bulk_update.stop_code, bulk_update.stop_params)
    times = (bulk_update.finished_at, bulk_update.not_before)
    if status == "stopped":
        assert (told, times) == (("queued", "", {}), (None, None))
    else:
        assert (told, times) == ((status, "tls", {"a": 1}), (MOMENT, MOMENT))
    other.refresh_from_db()
    assert other.status == "stopped"


# --- decisions about some of an update ---------------------------------------------------------


def told_in_history() -> list[tuple[int, str, dict[str, Any]]]:
    entries = LogEntry.objects.order_by("pk").values_list("object_id", "change_message")
    kept = [(int(pk), json.loads(words)[0][HISTORY_KEY]) for pk, words in entries]
    return [(pk, one["code"], one["params"]) for pk, one in kept]


BY = {"by": "dana"}
OPEN_ITEMS: list[tuple[dict[str, Any], tuple[str, str, Any], int]] = [
    ({"state": "waiting"}, ("cancelled", "cancelled", BY), 1),
    ({"state": "waiting", "error_code": "no_answer"}, ("unknown", "no_answer", None), 1),
    ({"state": "waiting", "error_code": "interrupted"}, ("unknown", "no_answer", None), 1),
    ({"state": "running"}, ("running", "", {**BY, "called_back": "cancelled"}), 1),
    ({"state": "changed"}, ("changed", "", None), 0),
    ({"state": "failed", "error_code": "x"}, ("failed", "x", None), 0),
]
"""Items, what they are when they have been cancelled, and whether that counts."""


@pytest.mark.parametrize("status", ["queued", "running", "stopped", "finished", "cancelled"])
@pytest.mark.parametrize(
    "seen", [(), (0,), (3,), (4, 5), (0, 1, 2, 4), (1, 3, 5), range(6)], ids=str
)
def test_cancel__of_what_is_visible(
    seen: Sequence[int],
    status: str,
    staff: AbstractUser,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bulk_update = made(status, *(item for item, *_ in OPEN_ITEMS), started_at=MOMENT)
    other = made("running", {"state": "waiting"}, started_at=MOMENT)
    until = timezone.now() + BulkUpdate.LEASE / 2
    BulkUpdate.objects.update(lease_token=uuid4(), lease_until=until)
    visible = Conversation.objects.filter(pk__in=[f"conv_{n}" for n in seen]).order_by("-pk")
    monkeypatch.setattr(decisions, "has_hidden", lambda *args: True)  # some were, a moment ago
    is_open = status in ("queued", "running", "stopped")
    number = sum(OPEN_ITEMS[n][2] for n in seen) if is_open else 0

    assert cancel(bulk_update, staff, visible=visible) is bool(number)

    before = columns(other, "state", "error_code", "error_params")
    assert before == [("waiting", "", None)]
    assert columns(bulk_update, "state", "error_code", "error_params") == [
        after if number and n in seen else (item["state"], item.get("error_code", ""), None)
        for n, (item, after, _counts) in enumerate(OPEN_ITEMS)
    ]
    assert bulk_update.status == status
    assert told_in_history() == [(bulk_update.pk, "history_cancelled", {})] * bool(number)


@pytest.mark.parametrize("user", [True, False])
@pytest.mark.parametrize("state", ["waiting", "running"])
def test_cancel__of_all_that_is_left(
    state: str,
    user: bool,
    staff: AbstractUser,
    monkeypatch: pytest.MonkeyPatch,
    heard: Any,
    django_capture_on_commit_callbacks: Any,
) -> None:
    """What is hidden was done a moment ago. One that was claimed waits again: its process died."""
    bulk_update = made("running", {"state": state}, {"state": "changed"}, started_at=MOMENT)
    monkeypatch.setattr(decisions, "has_hidden", lambda *args: True)
    visible = Conversation.objects.filter(pk="conv_0")

    with django_capture_on_commit_callbacks(execute=True):
        assert cancel(bulk_update, staff if user else None, visible=visible) is True

    assert bulk_update.status == "finished"
    after = ("cancelled", "cancelled", BY if user else None)
    after = after if state == "waiting" else ("unknown", "no_answer", None)
    assert columns(bulk_update, "state", "error_code", "error_params") == [
        after,
        ("changed", "", None),
    ]
    assert heard == [(bulk_update.pk, {after[0]: 1, "changed": 1})]


@pytest.mark.parametrize(
    ("second", "seen", "status", "states"),
    [
        ("waiting", None, "cancelled", ["cancelled", "cancelled"]),
        ("waiting", ["conv_0", "conv_1"], "cancelled", ["cancelled", "cancelled"]),
        ("waiting", ["conv_0"], "queued", ["cancelled", "waiting"]),
        ("waiting", [], "queued", ["waiting", "waiting"]),
        ("changed", ["conv_0"], "cancelled", ["cancelled", "changed"]),
    ],
)
def test_cancel__goes_on_for_what_is_hidden(
    second: str, seen: list[str] | None, status: str, states: list[str]
) -> None:
    bulk_update = made("queued", {"state": "waiting"}, {"state": second}, started_at=MOMENT)
    visible = None if seen is None else Conversation.objects.filter(pk__in=seen)

    assert cancel(bulk_update, visible=visible) is (states[0] == "cancelled")

    assert bulk_update.status == status
    assert [state for (state,) in columns(bulk_update, "state")] == states


@pytest.mark.parametrize("user", [True, False])
@pytest.mark.parametrize("is_running", [True, False])
@pytest.mark.parametrize("status", ["queued", "running", "stopped", "finished", "cancelled"])
def test_cancel__of_all_of_it(
    status: str,
    is_running: bool,
    user: bool,
    staff: AbstractUser,
    heard: Any,
    django_capture_on_commit_callbacks: Any,
) -> None:
    """What is in flight is awaited, so the update is over only when nothing is. What a process
    has left behind that is gone is not."""
    items = [{"state": "waiting"}, {"state": "running"}, {"state": "changed"}]
    stopped = {"stop_code": "tls", "stop_params": {"a": 1}, "not_before": MOMENT}
    bulk_update = made(status, *items, live_counts={"waiting": 1}, started_at=MOMENT, **stopped)
    other = made("queued", {"state": "waiting"})
    if is_running:
        until = timezone.now() + BulkUpdate.LEASE / 2
        BulkUpdate.objects.update(lease_token=uuid4(), lease_until=until)
    is_open = status in ("queued", "running", "stopped")

    with django_capture_on_commit_callbacks(execute=True):
        assert cancel(bulk_update, staff if user else None) is is_open

    told = (bulk_update.stop_code, bulk_update.stop_params, bulk_update.not_before)
    found = columns(bulk_update, "state", "error_code", "error_params")
    if not is_open:
        assert (bulk_update.status, told) == (status, ("tls", {"a": 1}, MOMENT))
        assert [state for state, *_ in found] == ["waiting", "running", "changed"]
        assert (told_in_history(), heard) == ([], [])
        return
    assert (bulk_update.status, told) == ("cancelled", ("", {}, None))
    assert bulk_update.live_counts == {}
    assert bulk_update.finished_at is not None
    assert found == [
        ("cancelled", "cancelled", BY if user else None),
        ("running", "", None) if is_running else ("unknown", "no_answer", None),
        ("changed", "", None),
    ]
    assert (bulk_update.counts_at_rest is None) is is_running
    assert [pk for pk, _ in heard[-1:]] == [bulk_update.pk] * (not is_running)
    assert told_in_history() == [(bulk_update.pk, "history_cancelled", {})] * user
    assert columns(other, "state") == [("waiting",)]
    other.refresh_from_db()
    assert other.status == "queued"


@pytest.mark.parametrize("elsewhere", [(), (0,), (0, 1)], ids=str)
def test_retry__what_another_update_has_meanwhile(
    elsewhere: Sequence[int],
    staff: AbstractUser,
    heard: Any,
    django_capture_on_commit_callbacks: Any,
) -> None:
    """It is not asked twice, and where nothing else is left the update is over again."""
    old = {"finished_at": MOMENT, "not_before": MOMENT}
    items = [{"state": "failed", **old}, {"state": "unknown", **old}]
    bulk_update = made("finished", *items, started_at=MOMENT, finished_at=MOMENT)
    other = made("queued", started_at=MOMENT + SOON)
    for n in elsewhere:
        BulkUpdateItem.objects.create(
            bulk_update=other, conversation_id=f"conv_{n}", state="waiting"
        )

    with django_capture_on_commit_callbacks(execute=True):
        assert retry(bulk_update, staff) == 2

    params = {"update": other.pk}
    dropped = [("cancelled", "already_queued", params)]
    again = [("waiting", "", None), ("waiting", "no_answer", None)]
    assert columns(bulk_update, "state", "error_code", "error_params") == [
        *(dropped * len(elsewhere)),
        *again[len(elsewhere) :],
    ]
    assert columns(bulk_update, "not_before")[len(elsewhere) :] == [(None,)] * (2 - len(elsewhere))
    is_over = len(elsewhere) == 2
    assert bulk_update.status == ("finished" if is_over else "queued")
    assert heard == [(bulk_update.pk, {"cancelled": 2})] * is_over
    assert told_in_history() == [(bulk_update.pk, "history_retried", {"number": 2})]
    assert columns(other, "state") == [("waiting",)] * len(elsewhere)


@pytest.mark.parametrize("seen", [None, (), (0,), (0, 1, 2, 3)], ids=str)
def test_undo__of_what_is_visible(seen: Sequence[int] | None, staff: AbstractUser) -> None:
    items = [{"state": state} for state in ("changed", "changed", "unchanged", "failed")]
    bulk_update = made("finished", *items, started_at=MOMENT)
    Conversation.objects.update(is_active=False)
    names = range(4) if seen is None else seen
    visible = Conversation.objects.filter(pk__in=[f"conv_{n}" for n in names]).order_by("-pk")
    expected = [f"conv_{n}" for n in names if n < 2]
    visible_or_all = None if seen is None else visible
    if not expected:
        with pytest.raises(EmptySelectionError):
            undo(bulk_update, visible=visible_or_all)
        return
    made_undo = undo(bulk_update, staff, reason="why", source="api", visible=visible_or_all)
    assert made_undo.requested_by == staff
    told = (made_undo.is_active, made_undo.undo_of_id, made_undo.reason, made_undo.source)
    assert told == (True, bulk_update.pk, "why", "api")
    assert made_undo.status == "draft"
    chosen = made_undo.items.order_by("pk").values_list("conversation_id", flat=True)
    assert sorted(chosen) == expected


TWO_STATES = st.tuples(
    *[st.sampled_from(["changed", "changed", "unchanged", "failed", "waiting", None])] * 2
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    updates=st.lists(st.tuples(st.booleans(), TWO_STATES), min_size=1, max_size=4),
    are_active=st.tuples(st.booleans(), st.booleans()),
    which=st.integers(0, 3),
)
def test_undo__what_it_changed_and_what_nothing_has_changed_since(
    updates: list[tuple[bool, tuple[str | None, ...]]], are_active: tuple[bool, bool], which: int
) -> None:
    for model in (BulkUpdate, Conversation):
        model.objects.all().delete()
    for n, is_active in enumerate(are_active):
        Conversation.objects.create(pk=f"conv_{n}", is_active=is_active)
    all_of_them = []
    for number, (is_active, states) in enumerate(updates):
        one = BulkUpdate.objects.create(
            is_active=is_active, status="finished", started_at=MOMENT + number * SOON
        )
        all_of_them.append(one)
        for n, state in enumerate(states):
            if state is not None:
                one.items.create(conversation_id=f"conv_{n}", state=state)
    which %= len(updates)
    undone, (was, states) = all_of_them[which], updates[which]
    expected = {
        f"conv_{n}"
        for n in (0, 1)
        if states[n] == "changed"
        and are_active[n] is was
        and not any(later[n] == "changed" for _, later in updates[which + 1 :])
    }

    assert set(undoable(undone).values_list("pk", flat=True)) == expected
    if not expected:
        return
    made_undo = undo(undone)
    changed = {f"conv_{n}" for n in (0, 1) if states[n] == "changed"}
    alone = left_alone(made_undo).values_list("conversation_id", flat=True)
    assert sorted(alone) == sorted(changed - expected)
    pks = [one.pk for one in all_of_them]
    for status in ("draft", "queued", "running", "stopped", "finished", "cancelled"):
        BulkUpdate.objects.filter(pk=made_undo.pk).update(status=status)
        is_told = status not in ("draft", "cancelled")
        assert list(undoing(pks)) == [made_undo] * is_told
        assert not undoing([pk for pk in pks if pk != undone.pk]).exists()
