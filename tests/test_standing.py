"""Standing orders: applied to what is new, never to what is older, never without limit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import AbstractUser
from django.core.management import call_command
from django.db import connection
from django.db.models.signals import post_init
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from bland_sms import standing
from bland_sms.client import by_blands_clock
from bland_sms.client.clock import note_date
from bland_sms.erasure import forget, traces
from bland_sms.mirror import apply_page
from bland_sms.models import (
    BulkUpdate,
    BulkUpdateItem,
    Conversation,
    OrderApplication,
    OwedLook,
    StandingOrder,
)
from bland_sms.payloads import ConversationPayload
from bland_sms.sandbox import FakeBland
from bland_sms.sandbox.account import DETAIL_ONLY
from bland_sms.signals import standing_order_applied, standing_order_suspended
from bland_sms.standing import applying, rows
from bland_sms.sync import refresh
from bland_sms.updates import run

CUSTOMER, OURS, OTHER = "+15550107001", "+15550190001", "+15550190002"

pytestmark = pytest.mark.django_db


def order_for(customer: str = CUSTOMER, **values: Any) -> StandingOrder:
    return standing.make(customer, values.pop("reason", "asked by phone"), **values)


def patched(bland: FakeBland) -> list[str]:
    return [seen["conversation_id"] for seen in bland.requests("PATCH")]


def copy(*ids: str) -> None:
    """What a webhook leads to, and the timer behind it."""
    for one in ids:
        refresh(one)
    standing.carry_out_waiting()


def test_standing__new_conversation_is_deactivated(fake_bland: FakeBland) -> None:
    order = order_for()
    new = fake_bland.customer_texts(CUSTOMER, "hello?")

    copy(new)

    assert not fake_bland.is_active(new)
    assert patched(fake_bland) == [new]
    update = BulkUpdate.objects.get()
    assert (update.source, update.status) == ("standing", "finished")
    assert order.applications.get().bulk_update == update
    order.refresh_from_db()
    assert order.applied_count == 1


def test_standing__sync_applies_all_of_a_page_as_one_update(fake_bland: FakeBland) -> None:
    numbers = [f"+1555010{index:04d}" for index in range(30)]
    for number in numbers:
        order_for(number)
    texts = [fake_bland.customer_texts(number, "hi") for number in numbers]

    call_command("bland_sms_sync", verbosity=0)

    assert sorted(patched(fake_bland)) == sorted(texts)
    assert BulkUpdate.objects.get().counts()["changed"] == 30


def test_standing__older_is_left_alone(fake_bland: FakeBland) -> None:
    old = fake_bland.add(user_number=CUSTOMER)
    order_for()

    call_command("bland_sms_sync", verbosity=0)
    copy(old)

    assert patched(fake_bland) == []

    assert fake_bland.customer_texts(CUSTOMER, "again") == old
    copy(old)

    assert patched(fake_bland) == [old]


@pytest.mark.parametrize("is_listed", [False, True])
@pytest.mark.parametrize("spare", [True, False])
def test_standing__taken_over(fake_bland: FakeBland, spare: bool, is_listed: bool) -> None:
    """A list does not tell it: what it shows is fetched before anything is asked."""
    order_for(spare_handed_off=spare)
    new, plain = (fake_bland.customer_texts(CUSTOMER, "hi", agent_number=n) for n in (OURS, OTHER))
    fake_bland.account.rows[new]["human_handoff_at"] = fake_bland.account.rows[new]["updated_at"]

    if is_listed:
        call_command("bland_sms_sync", verbosity=0)
    copy(*([] if is_listed else [new, plain]))

    assert set(patched(fake_bland)) == ({plain} if spare else {new, plain})


def test_standing__our_number(fake_bland: FakeBland) -> None:
    order_for(agent_number="+1 (555) 019-0001")

    there = fake_bland.customer_texts(CUSTOMER, "hi", agent_number=OTHER)
    here = fake_bland.customer_texts(CUSTOMER, "hi", agent_number=OURS)
    copy(there, here)

    assert patched(fake_bland) == [here]


def test_standing__another_customer(fake_bland: FakeBland) -> None:
    order_for()
    other = fake_bland.customer_texts("+15550107002", "hi")

    copy(other)

    assert patched(fake_bland) == []


@pytest.mark.parametrize("end", ["lifted", "expired"])
def test_standing__over(fake_bland: FakeBland, end: str) -> None:
    order = order_for()
    if end == "lifted":
        assert standing.lift(order)
        assert not standing.lift(order)
    else:
        StandingOrder.objects.update(until=timezone.now())
    new = fake_bland.customer_texts(CUSTOMER, "hi")

    copy(new)

    assert patched(fake_bland) == []
    assert order_for().state == "in_force"  # its place is free


def test_standing__lifted_while_queued(fake_bland: FakeBland) -> None:
    order = order_for()
    new = fake_bland.customer_texts(CUSTOMER, "hi")
    refresh(new)
    assert BulkUpdateItem.objects.get().state == "waiting"

    standing.lift(order)
    assert BulkUpdate.objects.get().status == "finished"
    standing.carry_out_waiting()

    item = BulkUpdateItem.objects.get()
    assert (item.state, item.error_code) == ("cancelled", "lifted")
    assert patched(fake_bland) == []


@pytest.mark.parametrize("end", ["lifted", "expired"])
def test_standing__over_when_an_item_is_claimed(fake_bland: FakeBland, end: str) -> None:
    """Such as an item that was in flight during an outage, and waits again."""
    order_for()
    new = fake_bland.customer_texts(CUSTOMER, "hi")
    refresh(new)
    now = timezone.now()
    StandingOrder.objects.update(**{"lifted": {"lifted_at": now}, "expired": {"until": now}}[end])

    standing.carry_out_waiting()

    item = BulkUpdateItem.objects.get()
    assert (item.state, item.error_code) == ("cancelled", "lifted")
    assert patched(fake_bland) == []


def test_standing__campaign_that_reopens(fake_bland: FakeBland) -> None:
    told: list[Any] = []
    standing_order_suspended.connect(lambda **given: told.append(given), weak=False)
    order = order_for()
    for _ in range(5):
        copy(fake_bland.customer_texts(CUSTOMER, "a campaign of our own"))

    order.refresh_from_db()
    assert len(patched(fake_bland)) == 3
    assert (order.state, order.suspended_code) == ("suspended", "order_too_often")
    assert "campaign" in order.suspension.as_sentence
    assert [(one["code"], one["order"].state) for one in told] == [("order_too_often", "suspended")]


def test_standing__a_day_has_a_limit_too(fake_bland: FakeBland) -> None:
    order = order_for()
    for _ in range(12):
        copy(fake_bland.customer_texts(CUSTOMER, "hi"))
        earlier = timezone.now() - timedelta(hours=2)
        OrderApplication.objects.update(applied_at=earlier)

    order.refresh_from_db()
    assert len(patched(fake_bland)) == 10
    assert order.suspension.params == {"number": 10, "hours": 24}


def test_standing__renewed(fake_bland: FakeBland, staff: AbstractUser) -> None:
    order = order_for()
    for _ in range(4):
        copy(fake_bland.customer_texts(CUSTOMER, "hi"))
    assert len(patched(fake_bland)) == 3

    standing.renew(order, staff)
    standing.carry_out_waiting()

    order.refresh_from_db()
    assert (order.state, order.requested_by) == ("in_force", staff)
    assert len(patched(fake_bland)) == 4, "what came in while it was suspended"
    with pytest.raises(standing.OrderError):
        standing.renew(order, staff)


def test_standing__limit_for_all(fake_bland: FakeBland, settings: Any) -> None:
    settings.BLAND_SMS = {**settings.BLAND_SMS, "STANDING_ORDERS_PER_HOUR": 5}
    numbers = [f"+1555010{index:04d}" for index in range(9)]
    orders = [order_for(number) for number in numbers]
    for number in numbers:
        fake_bland.customer_texts(number, "hi")

    call_command("bland_sms_sync", verbosity=0)

    assert len(patched(fake_bland)) == 5
    states = set(StandingOrder.objects.values_list("suspended_code", flat=True))
    assert states == {"orders_too_often"}
    for order in orders:
        order.refresh_from_db()
        standing.renew(order)
    standing.carry_out_waiting()
    assert len(set(patched(fake_bland))) == 9


@pytest.mark.parametrize("change", ["inactive", "gone", "not permitted"])
@pytest.mark.parametrize("when", ["applied", "carried out"])
def test_standing__author(
    fake_bland: FakeBland, staff: AbstractUser, django_user_model: Any, change: str, when: str
) -> None:
    author = django_user_model.objects.create_superuser("kim", "kim@example.com", "x")
    order = order_for(requested_by=author, source="admin")
    new = fake_bland.customer_texts(CUSTOMER, "hi")
    if when == "carried out":
        refresh(new)
    if change == "gone":
        author.delete()
    else:
        author.is_active = change != "inactive"
        author.is_superuser = change == "inactive"
        author.save()

    copy(new)

    order.refresh_from_db()
    assert order.suspended_code == "not_permitted"
    assert "kim" in order.suspension.as_sentence
    assert patched(fake_bland) == []
    assert BulkUpdate.objects.exists() is (when == "carried out")
    standing.renew(order, staff)
    standing.carry_out_waiting()
    assert patched(fake_bland) == [new]


def test_standing__two_orders_of_two_people(fake_bland: FakeBland, django_user_model: Any) -> None:
    kim = django_user_model.objects.create_superuser("kim", "kim@example.com", "x")
    lee = django_user_model.objects.create_superuser("lee", "lee@example.com", "x")
    first = order_for(requested_by=kim, agent_number=OURS)
    second = order_for(requested_by=lee)
    copy(fake_bland.customer_texts(CUSTOMER, "hi", agent_number=OURS))
    kim.is_active = False
    kim.save()
    copy(fake_bland.customer_texts(CUSTOMER, "hi", agent_number=OURS))

    assert len(patched(fake_bland)) == 2
    assert (first.applications.count(), second.applications.count()) == (1, 1)


@pytest.mark.parametrize("end", ["lifted", "expired", "author deactivated"])
def test_standing__second_order_takes_over_what_waits(
    fake_bland: FakeBland, staff: AbstractUser, end: str
) -> None:
    first, second = order_for(agent_number=OURS, requested_by=staff), order_for()
    new = fake_bland.customer_texts(CUSTOMER, "hi", agent_number=OURS)
    refresh(new)
    assert first.applications.count() == 1

    if end == "lifted":
        standing.lift(first)
    elif end == "author deactivated":
        staff.is_active = False
        staff.save()
    else:
        StandingOrder.objects.filter(pk=first.pk).update(until=timezone.now())
    standing.carry_out_waiting()

    assert patched(fake_bland) == [new]
    assert second.applications.count() == 1


def test_standing__taken_over_while_it_waits(fake_bland: FakeBland) -> None:
    order = order_for()
    new = fake_bland.customer_texts(CUSTOMER, "hi")
    refresh(new)
    row = fake_bland.account.rows[new]
    row["human_handoff_at"] = fake_bland.account.set_active(new, True)["updated_at"]
    refresh(new)

    standing.carry_out_waiting()
    item = BulkUpdateItem.objects.get()
    assert (item.state, item.error_code) == ("cancelled", "taken_over")
    assert (patched(fake_bland), order.applications.count()) == ([], 0)

    row["human_handoff_at"] = None
    copy(new)
    assert patched(fake_bland) == [new]


def test_standing__one_in_force_for_a_customer_and_number() -> None:
    first = order_for()
    with pytest.raises(standing.OrderError) as caught:
        order_for("001 555 010 7001")
    assert caught.value.failure.params == {"number": first.pk}

    order_for(agent_number=OURS)
    StandingOrder.objects.filter(pk=first.pk).update(suspended_code="order_too_often")
    assert order_for().pk != first.pk
    first.refresh_from_db()
    assert first.state == "lifted"


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"customer": ""}, "no_customer"),
        ({"customer": "7001"}, "no_customer"),
        ({"reason": " "}, "no_reason"),
        ({"until": timezone.now() - timedelta(seconds=1)}, "until_past"),
    ],
)
def test_make__refused(values: dict[str, Any], code: str) -> None:
    with pytest.raises(standing.OrderError) as caught:
        order_for(**values)

    assert caught.value.code == code
    assert str(caught.value)
    assert not StandingOrder.objects.exists()


def test_standing__again_after_it_was_lifted(fake_bland: FakeBland, staff: AbstractUser) -> None:
    order = order_for()
    standing.lift(order, staff)

    new = standing.again(order, staff)
    copy(fake_bland.customer_texts(CUSTOMER, "hi"))

    assert len(patched(fake_bland)) == 1
    assert (order.applications.count(), new.applications.count()) == (0, 1)


def test_standing__clock_of_bland_is_behind() -> None:
    """By ten minutes: what begins after the order is told to be older than it."""
    order, sent_at = order_for(), timezone.now()
    note_date(sent_at, sent_at - timedelta(minutes=10))
    ten_minutes_ago = order.starts_at - timedelta(minutes=10)
    new, old = (
        Conversation(updated_at=ten_minutes_ago + timedelta(seconds=seconds)) for seconds in (5, -5)
    )

    assert standing.wants(order, new)
    assert not standing.wants(order, old)

    note_date(sent_at, sent_at.replace(microsecond=0))
    assert not standing.wants(order, new)


@pytest.mark.parametrize(("seconds", "told"), [(-600, -599), (-0.9, 0), (0, 0), (0.5, 0.5)])
def test_by_blands_clock(seconds: float, told: float) -> None:
    """A ``Date`` has whole seconds: it is no difference as long as it can be true."""
    sent_at = timezone.now()
    note_date(sent_at, sent_at + timedelta(seconds=seconds))

    difference = (by_blands_clock(sent_at) - sent_at).total_seconds()
    note_date(sent_at, sent_at)
    assert difference == pytest.approx(told, abs=0.1)


def test_standing__order_of_a_machine_whose_clock_is_ahead(fake_bland: FakeBland) -> None:
    order = order_for()
    StandingOrder.objects.update(starts_at=timezone.now() + timedelta(hours=1))

    copy(fake_bland.customer_texts(CUSTOMER, "hi"))

    assert order.applications.count() == 1


def test_catch_up__process_died_before_it_looked(
    fake_bland: FakeBland, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_for()
    new = fake_bland.customer_texts(CUSTOMER, "hi")
    with monkeypatch.context() as patch:
        patch.setattr("bland_sms.mirror.apply.watchers", [])
        refresh(new)
    assert not BulkUpdate.objects.exists()

    call_command("bland_sms_work", "--once")

    assert patched(fake_bland) == [new]
    call_command("bland_sms_work", "--once")
    assert patched(fake_bland) == [new]


def test_look__failure_of_ours_does_not_harm_the_copy(
    fake_bland: FakeBland, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    order_for()
    new = fake_bland.customer_texts(CUSTOMER, "hi")
    with monkeypatch.context() as patch:
        patch.setattr("bland_sms.standing.applying._apply", _fail)
        refresh(new)

    assert Conversation.objects.get().is_active
    assert "standing orders were not applied" in caplog.text
    call_command("bland_sms_work", "--once")
    assert patched(fake_bland) == [new]


def _fail(*given: Any, **more: Any) -> None:
    raise RuntimeError("a fault of ours")


@pytest.mark.parametrize(
    ("last_step", "do"),
    [
        ("applying.start", lambda order: standing.look([mirrored()])),
        ("making.note", lambda order: order_for("+15550107002", requested_by_name="new")),
        ("making.note_all", lambda order: standing.make_many([standing.Wish("+15550107003")], "x")),
        ("orders.note", standing.renew),
        ("ending.note_all", standing.lift),
    ],
)
def test_standing__all_or_nothing(
    last_step: str, do: Callable[[StandingOrder], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever fails in the last step of what is done leaves nothing behind of it."""
    order_for()
    order = order_for("+15550107002")
    StandingOrder.objects.filter(pk=order.pk).update(suspended_code="order_too_often")
    before = list(StandingOrder.objects.order_by("pk").values())
    monkeypatch.setattr(f"bland_sms.standing.{last_step}", _fail)

    with suppress(RuntimeError):
        do(order)

    assert list(StandingOrder.objects.order_by("pk").values()) == before
    assert not BulkUpdate.objects.exists()
    assert not OrderApplication.objects.exists()


def test_look__one_query_for_a_page(fake_bland: FakeBland) -> None:
    order_for("+15550109999")
    rows = [Conversation(pk=f"c{n}", user_number=f"+1555010{n:04d}") for n in range(100)]
    for row in rows:
        row.derive()

    with CaptureQueriesContext(
        connection,
    ) as queries:
        standing.look(rows)

    assert len(queries) == 1
    inactive, nobody = Conversation(customer_key="1555", is_active=False), Conversation()
    for none_of_it in ([], [inactive, nobody]):
        with CaptureQueriesContext(connection) as queries:
            standing.look(none_of_it)
        assert len(queries) == 0


@pytest.mark.parametrize("spare", [True, False])
def test_look__as_many_queries_for_a_whole_page_of_ordered_customers_as_for_few(
    fake_bland: FakeBland, spare: bool
) -> None:
    numbers = [f"+1555010{n}" for n in range(2000, 2102)]
    standing.make_many([standing.Wish(one) for one in numbers], "x", spare_handed_off=spare)
    ids = [fake_bland.customer_texts(one, "hi") for one in numbers]
    cost = {}
    for name, some in (("first", ids[:2]), ("few", ids[2:12]), ("many", ids[12:])):
        told = [fake_bland.account.rows[pk] for pk in some]
        listed = [{k: v for k, v in row.items() if k not in DETAIL_ONLY} for row in told]
        now = timezone.now()
        page = [replace(ConversationPayload.from_json(row), observed_at=now) for row in listed]
        with CaptureQueriesContext(connection) as queries:
            apply_page(page)
        cost[name] = len(queries)

    # None for a row; but SQLite takes 999 parameters on Django 5.2, so some writes are in parts.
    assert cost["many"] - cost["few"] < 9


def test_standing__failed_update_is_not_asked_again_by_the_net(fake_bland: FakeBland) -> None:
    order_for()
    new = fake_bland.customer_texts(CUSTOMER, "hi")
    fake_bland.faults.add(f"PATCH {new}", "400")
    copy(new)
    assert BulkUpdateItem.objects.get().state == "failed"

    for _ in range(3):
        standing.catch_up()
        copy(new)

    assert BulkUpdateItem.objects.count() == 1


def test_standing__signals(fake_bland: FakeBland) -> None:
    told: list[Any] = []
    standing_order_applied.connect(lambda **given: told.append(given), weak=False)
    order = order_for()
    new = fake_bland.customer_texts(CUSTOMER, "hi")

    copy(new)

    assert [(one["order"], one["conversation_ids"]) for one in told] == [(order, (new,))]


def test_standing__an_updates_answer_shows_it(
    fake_bland: FakeBland, started: Callable[..., BulkUpdate]
) -> None:
    """Staff reactivate what an order keeps inactive: the order wins until it is lifted."""
    order_for()
    new = fake_bland.customer_texts(CUSTOMER, "hi")
    copy(new)
    run(started([new], is_active=True))
    standing.carry_out_waiting()

    assert not fake_bland.is_active(new)


@pytest.mark.parametrize("is_driven", [False, True])
def test_standing__waits_in_an_update_of_staff(
    fake_bland: FakeBland, started: Callable[..., BulkUpdate], is_driven: bool
) -> None:
    """One whose page was closed does not hold the order up; one that a worker has does it."""
    ids = [fake_bland.customer_texts(number, "hi") for number in (CUSTOMER, "+15550107002")]
    copy(*ids)
    theirs = started(ids)
    if is_driven:
        BulkUpdate.objects.update(dispatched_at=timezone.now())
    order_for()
    fake_bland.customer_texts(CUSTOMER, "again")

    copy(ids[0])

    item = theirs.items.get(conversation=ids[0])
    if is_driven:
        assert (item.state, patched(fake_bland)) == ("waiting", [])
        return
    assert patched(fake_bland) == [ids[0]]
    assert (item.state, item.error_code) == ("cancelled", "already_queued")
    run(theirs)
    assert patched(fake_bland) == ids


# --- what is decided in the database alone --------------------------------------------------------

HOUR = timedelta(hours=1)


def mirrored(pk: str = "conv_1", number: str = CUSTOMER, **values: Any) -> Conversation:
    """A row that is newer than any order, which no order was applied to."""
    soon = timezone.now() + timedelta(minutes=1)
    row = Conversation(pk=pk, user_number=number, is_active=True, updated_at=soon, **values)
    row.derive()
    row.save()
    return row


def applied(order: StandingOrder, *conversations: str, ago: timedelta = timedelta(0)) -> BulkUpdate:
    """An update by which the order was applied to these, so long ago."""
    moment = timezone.now() - ago
    values = {"status": "finished", "source": "standing", "started_at": moment}
    bulk_update = BulkUpdate.objects.create(is_active=False, **values)
    OrderApplication.objects.bulk_create(
        OrderApplication(
            order=order,
            bulk_update=bulk_update,
            conversation_id=pk,
            state_updated_at=moment,
            applied_at=moment,
        )
        for pk in conversations
    )
    return bulk_update


@pytest.mark.parametrize(
    ("hours_ago", "renewed", "expected"),
    [
        ([0, 0], None, None),
        ([0, 0, 0.9], None, {"number": 3, "hours": 1}),
        ([0, 0, 1.1], None, None),
        ([0] * 4, None, {"number": 4, "hours": 1}),
        ([0] + [1.1] * 8, None, None),
        ([0] + [1.1] * 8 + [23.9], None, {"number": 10, "hours": 24}),
        ([0] + [1.1] * 8 + [24.1], None, None),
        ([0, 0, 0.5], 0.4, None),
        ([0, 0, 0.3], 0.4, {"number": 3, "hours": 1}),
    ],
)
def test_limits__are_counted_in_updates_of_one_order(
    hours_ago: list[float], renewed: float | None, expected: dict[str, int] | None
) -> None:
    order, other = order_for(), order_for("+15550107002")
    renewed_at = None if renewed is None else timezone.now() - renewed * HOUR
    StandingOrder.objects.filter(pk=order.pk).update(renewed_at=renewed_at)
    for number, ago in enumerate(hours_ago):
        ids = [f"c{number}_{place}" for place in range(3)]
        bulk_update = applied(order, *ids, ago=ago * HOUR)
        applied(other, f"d{number}")
    assert bulk_update.order_applications.count() == 3
    row = mirrored()

    standing.look([row])

    order.refresh_from_db()
    assert (order.suspension.params or None) == expected
    assert BulkUpdateItem.objects.filter(conversation=row).exists() is (expected is None)
    assert StandingOrder.objects.get(pk=other.pk).state == "in_force", "it saw nothing new"


@pytest.mark.parametrize(
    ("limit", "renewed", "bulk_limit", "number", "is_suspended"),
    [
        (7, None, 100, 3, False),  # four within an hour, and three
        (6, None, 100, 2, True),
        (4, None, 100, 0, True),
        (3, None, 100, 0, True),
        (4, 0.4, 100, 3, False),  # one within an hour, since any was renewed
        (3, 0.4, 100, 2, True),
        (7, None, 2, 2, False),
    ],
)
def test_limit_for_all__counts_conversations_of_an_hour(
    limit: int,
    renewed: float | None,
    bulk_limit: int,
    number: int,
    is_suspended: bool,
    fake_bland: FakeBland,
    set_bland: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    set_bland(STANDING_ORDERS_PER_HOUR=limit, BULK_LIMIT=bulk_limit)
    orders = [order_for(f"+1555010700{n}") for n in range(3)]
    applied(orders[0], "a", "b", "c", ago=0.5 * HOUR)
    applied(orders[1], "d", ago=0.3 * HOUR)
    applied(orders[1], "e", ago=1.1 * HOUR)
    if renewed is not None:
        moment = timezone.now() - renewed * HOUR
        StandingOrder.objects.filter(pk=orders[2].pk).update(renewed_at=moment)
    rows = [mirrored(f"conv_{n}", f"+1555010700{n}") for n in range(3)]
    over, refused = order_for("+15550107008"), order_for("+15550107009")
    standing.lift(over)
    not_acting = StandingOrder.objects.filter(pk__in=[over.pk, refused.pk])
    not_acting.filter(pk=refused.pk).update(suspended_code="not_permitted")
    before = list(not_acting.values())
    told: list[Any] = []
    hear = standing_order_suspended.connect
    hear(lambda order, code, **given: told.append((order, code)), weak=False, dispatch_uid="all")

    standing.look(rows)

    standing_order_suspended.disconnect(dispatch_uid="all")
    assert told == [(None, "orders_too_often")] * is_suspended
    assert ("all standing orders are suspended: 3" in caplog.text) is is_suspended
    assert BulkUpdateItem.objects.count() == number
    assert list(not_acting.values()) == before
    acting = StandingOrder.objects.filter(pk__in=[order.pk for order in orders])
    codes = set(acting.values_list("suspended_code", flat=True))
    assert codes == {"orders_too_often" if is_suspended else ""}
    params = acting.values_list("suspended_params", flat=True)
    assert list(params) == [{"number": limit} if is_suspended else {}] * 3
    moments = set(acting.values_list("suspended_at", flat=True))
    assert (moments != {None}) is is_suspended


@pytest.mark.parametrize(
    ("spares", "is_told", "is_fetched"),
    [
        ([True], True, False),
        ([True], False, True),
        ([False], False, False),
        ([False, True], False, True),
    ],
)
def test_look__what_may_be_spared_is_fetched_first(
    spares: list[bool], is_told: bool, is_fetched: bool
) -> None:
    for spare, ours in zip(spares, (OURS, ""), strict=False):
        order_for(agent_number=ours, spare_handed_off=spare)
    unknown = {} if is_told else {"human_handoff_at": None}

    standing.look([mirrored(agent_number=OURS, older_facts=unknown)])

    owed = OwedLook.objects.filter(reason=OwedLook.Reason.STANDING_ORDER)
    assert list(owed.values_list("conversation", flat=True)) == ["conv_1"] * is_fetched
    assert OrderApplication.objects.exists() is not is_fetched


@pytest.mark.parametrize(
    ("item", "bulk_update", "is_left", "code"),
    [
        ({}, {}, True, "already_queued"),  # nobody carries it out
        ({}, {"source": "standing"}, False, ""),
        ({}, {"dispatched_at": "now"}, False, ""),
        ({"state": "running", "claimed_conversation": "conv_1"}, {}, False, ""),
        (
            {"state": "running", "claimed_conversation": "conv_1"},
            {"status": "cancelled", "dispatched_at": "now"},
            True,
            "",
        ),
        ({"state": "changed"}, {"dispatched_at": "now"}, True, ""),
        ({}, {"dispatched_at": "now", "is_active": True}, True, "superseded"),
        ({"conversation_id": "x"}, {"dispatched_at": "now"}, True, ""),
    ],
    ids=str,
)
def test_look__not_what_is_about_to_be_deactivated(
    item: dict[str, Any], bulk_update: dict[str, Any], is_left: bool, code: str
) -> None:
    order, row = order_for(), mirrored()
    values = {k: timezone.now() if v == "now" else v for k, v in bulk_update.items()}
    plain = {"is_active": False, "status": "running", "source": "admin"}
    theirs = BulkUpdate.objects.create(started_at=timezone.now(), **{**plain, **values})
    item = {"conversation_id": row.pk, "state": "waiting", **item}
    theirs.items.create(**item)

    standing.look([row])

    assert order.applications.exists() is is_left
    told = theirs.items.values_list("state", "error_code").get()
    assert told == ("cancelled" if code else item["state"], code)
    if code == "already_queued":
        ours = BulkUpdate.objects.exclude(pk=theirs.pk).get()
        assert theirs.items.get().error_params == {"update": ours.pk}
    theirs.refresh_from_db()
    assert theirs.status == ("finished" if code else values.get("status", "running"))


@pytest.mark.parametrize(
    "change",
    [
        {"lifted_at": timezone.now(), "in_force": None},
        {"until": timezone.now()},
        {"suspended_code": "order_too_often"},
    ],
    ids=["lifted", "until", "suspended"],
)
def test_look__order_ends_before_its_row_is_locked(
    change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    order_for()
    begin = applying.write_transaction

    def begin_later(model: Any) -> Any:
        StandingOrder.objects.update(**change)
        return begin(model)

    monkeypatch.setattr(applying, "write_transaction", begin_later)
    standing.look([mirrored()])
    assert StandingOrder.objects.filter(**change).exists()
    assert not BulkUpdate.objects.exists()


@pytest.mark.parametrize(
    ("do", "others"),
    [
        (lambda mine: standing.look([mine]), {"order of theirs", "theirs", "mine, inactive"}),
        (
            lambda mine: order_for(agent_number=OURS),
            {"order of theirs", "theirs", "mine, inactive"},
        ),
        (lambda mine: standing.catch_up(), {"mine, inactive"}),
    ],
    ids=["look", "make", "catch up"],
)
def test_standing__rows_of_nobody_else_are_read(
    do: Callable[[Conversation], Any], others: set[str]
) -> None:
    order_for()
    mine, over = mirrored("mine"), mirrored("over")
    names = {order_for("+15550107002").pk: "order of theirs", "theirs": "theirs"}
    names["over"] = "mine, inactive"
    mirrored("theirs", "+15550107002")
    Conversation.objects.filter(pk=over.pk).update(is_active=False)
    read: set[str] = set()

    def note(instance: Any, **given: Any) -> None:
        read.add(names.get(instance.pk, "mine"))

    for model in (Conversation, StandingOrder):
        post_init.connect(note, sender=model)
    try:
        do(mine)
    finally:
        for model in (Conversation, StandingOrder):
            post_init.disconnect(note, sender=model)

    assert "mine" in read
    assert not read & others
    assert OrderApplication.objects.filter(conversation="mine").exists()


dispatched: list[tuple[str, int]] = []


def note_dispatch(kind: str, pk: int) -> None:
    """A DISPATCH that takes everything and does nothing yet."""
    dispatched.append((kind, pk))


def test_look__asks_for_a_worker(set_bland: Callable[..., None]) -> None:
    set_bland(DISPATCH=f"{__name__}.note_dispatch")
    dispatched.clear()
    order_for()

    standing.look([mirrored()])

    bulk_update = BulkUpdate.objects.get()
    assert dispatched == [("update", bulk_update.pk)]
    assert bulk_update.dispatched_at is not None
    standing.carry_out_waiting()
    assert BulkUpdateItem.objects.get().state == "waiting", "the worker does it"


def test_look__a_state_that_was_acted_on_is_left_alone_by_all_of_its_orders() -> None:
    first, second = order_for(agent_number=OURS), order_for()
    row = mirrored(agent_number=OURS)
    done = applied(second, row.pk)
    OrderApplication.objects.update(state_updated_at=row.updated_at)

    older = mirrored("older", agent_number=OURS)
    older.updated_at -= HOUR
    with CaptureQueriesContext(connection) as queries:
        standing.look([row, older])
    assert set(OrderApplication.objects.values_list("bulk_update", flat=True)) == {done.pk}
    sql = [query["sql"] for query in queries]
    assert all(one.lstrip().startswith("SELECT") for one in sql), "nothing is locked for that"

    row.updated_at += timedelta(milliseconds=1)
    row.save()
    standing.look([row])
    assert (first.applications.count(), second.applications.count()) == (1, 1)


def test_look__update_names_whose_orders_they_are(
    staff: AbstractUser, django_user_model: Any
) -> None:
    boss = django_user_model.objects.create_superuser("boss")
    authors = {"+15550107000": staff, "+15550107001": staff, "+15550107002": boss}
    for number, author in authors.items():
        order_for(number, reason=number[-1] * 150, requested_by=author, source="admin")
    rows = {number: mirrored(number[1:], number) for number in authors}

    standing.look([rows["+15550107000"], rows["+15550107001"]])
    one = BulkUpdate.objects.get()
    assert (one.requested_by, one.requested_by_name) == (staff, "dana")
    assert one.reason == ("0" * 150 + "; " + "1" * 150)[:200]
    assert (one.source, one.is_active, one.status) == ("standing", False, "queued")
    for row in rows.values():
        row.updated_at += timedelta(seconds=1)
        row.save()
    BulkUpdateItem.objects.update(state="changed", finished_at=timezone.now())
    standing.look(list(rows.values()))
    two = BulkUpdate.objects.exclude(pk=one.pk).get()
    assert (two.requested_by, two.requested_by_name) == (None, "dana, boss")
    orders = StandingOrder.objects.order_by("pk")
    assert list(orders.values_list("applied_count", flat=True)) == [2, 2, 1]
    [moment] = set(two.order_applications.values_list("applied_at", flat=True))
    assert set(orders.values_list("last_applied_at", flat=True)) == {moment}
    names = ("order__customer_key", "conversation_id", "state_updated_at")
    expected = {(row.customer_key, row.pk, row.updated_at) for row in rows.values()}
    assert set(two.order_applications.values_list(*names)) == expected


def test_catch_up__all_that_was_active_lately(
    monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Any
) -> None:
    """In portions, of which the last may be full."""
    monkeypatch.setattr(applying, "ROWS_PER_STATEMENT", 2)
    with django_assert_num_queries(1):
        assert standing.catch_up() == 0, "there is no order"
    numbers = [f"+1555010700{n}" for n in range(5)]
    for number in numbers:
        order_for(number)
    StandingOrder.objects.update(starts_at=timezone.now() - 9 * HOUR)
    for number in numbers:
        mirrored(number[1:], number)
    mirrored("5_no_customer", "")
    Conversation.objects.filter(pk="15550107001").update(updated_at=timezone.now() - 1.9 * HOUR)
    Conversation.objects.filter(pk="15550107002").update(updated_at=timezone.now() - 2.1 * HOUR)
    Conversation.objects.filter(pk="15550107003").update(is_active=False)

    assert standing.catch_up() == 3
    found = BulkUpdateItem.objects.order_by("conversation").values_list("conversation", flat=True)
    assert list(found) == ["15550107000", "15550107001", "15550107004"]
    assert standing.catch_up() == 0


def test_catch_up__lately_is_by_blands_clock() -> None:
    """Which is behind by half an hour."""
    order, row, now = order_for(), mirrored(), timezone.now()
    StandingOrder.objects.update(starts_at=now - 9 * HOUR)
    Conversation.objects.filter(pk=row.pk).update(updated_at=now - 2.2 * HOUR)

    note_date(now, now - HOUR / 2)
    found = standing.catch_up()
    note_date(now, now)

    assert (found, order.applications.count()) == (1, 1)


def test_look__names_of_many_are_cut() -> None:
    rows = []
    for number in ("+15550107001", "+15550107002"):
        order_for(number, requested_by_name=number[-1] * 200)
        rows.append(mirrored(number[1:], number))

    standing.look(rows)

    told = BulkUpdate.objects.get().requested_by_name
    assert told == f"{'1' * 200}, {'2' * 200}"[:255]


def test_catch_up__no_query_for_a_row() -> None:
    now, cost = timezone.now(), []
    unsure = {"older_facts": {"human_handoff_at": None}, "observed_at": now}
    for number in range(5):
        order_for(f"+1555010700{number}")
        mirrored(f"c{number}", f"+1555010700{number}", transcript_observed_at=now, **unsure)
        standing.catch_up()
        with CaptureQueriesContext(connection) as queries:
            standing.catch_up()
        cost.append(len(queries))

    assert len(set(cost)) == 1
    assert BulkUpdateItem.objects.count() == 5


@pytest.mark.parametrize(
    ("item", "seconds_ago", "is_asked_again"),
    [
        ({}, 31, True),
        ({}, 29, False),
        ({"attempts": 0}, 31, True),
        ({"attempts": 6}, 59, False),
        ({"attempts": 6}, 61, True),
        ({"attempts": 9}, 119, False),
        ({"attempts": 60}, 899, False),
        ({"attempts": 60}, 901, True),
        ({"attempts": 60}, 23 * 3600, True),
        ({}, 25 * 3600, False),
        ({"started_ago": 25 * HOUR}, 31, False),
        ({"state": "failed"}, 31, True),
        *(({"state": "failed", "http_status": one}, 31, True) for one in (408, 429, 500, 599)),
        *(({"state": "failed", "http_status": one}, 31, False) for one in (400, 404, 499)),
        ({"http_status": 404}, 31, True),
        ({"state": "changed", "http_status": 500}, 31, False),
        ({"source": "admin"}, 31, False),
        ({"is_active": False}, 31, False),
    ],
    ids=str,
)
@pytest.mark.parametrize("again", [standing.catch_up, partial(standing.carry_out_waiting, 0)])
def test_ask_again__what_bland_did_not_answer(
    again: Callable[[], Any],
    item: dict[str, Any],
    seconds_ago: float,
    is_asked_again: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row, now, item = mirrored(), timezone.now(), dict(item)
    monkeypatch.setattr(timezone, "now", lambda: now)
    Conversation.objects.update(is_active=item.pop("is_active", True))
    other = mirrored("other")
    bulk_update = BulkUpdate.objects.create(
        is_active=False,
        status="finished",
        source=item.pop("source", "standing"),
        started_at=now - item.pop("started_ago", 23 * HOUR),
    )
    for pk, ago in ((row.pk, seconds_ago), (other.pk, 1)):
        moment = now - timedelta(seconds=ago)
        values = {"state": "unknown", "attempts": 3, "finished_at": moment, **item}
        bulk_update.items.create(conversation_id=pk, **values)
    order_for("+15550107999")

    again()

    waiting = bulk_update.items.filter(state="waiting").values_list("conversation", flat=True)
    assert list(waiting) == [row.pk] * is_asked_again


def test_carry_out_waiting__no_updates_of_staff_and_no_longer_than_it_may(
    started: Callable[..., BulkUpdate], monkeypatch: pytest.MonkeyPatch
) -> None:
    order_for()
    theirs, row, stopped = mirrored("theirs", "+15550107002"), mirrored(), threading.Event()
    started([theirs.pk])
    standing.look([row])
    ours = BulkUpdate.objects.get(source="standing")
    asked: list[Any] = []
    monkeypatch.setattr(applying, "run", lambda update, **given: asked.append((update, given)))

    standing.carry_out_waiting(30, stopped=stopped)

    [(update, given)] = asked
    assert (update, given["stopped"]) == (ours, stopped)
    assert 0 < given["seconds"] <= 30


def test_carry_out_waiting__as_long_as_there_is_time(
    fake_bland: FakeBland, django_assert_num_queries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_for()
    new = fake_bland.customer_texts(CUSTOMER, "hi")
    with django_assert_num_queries(2):  # what is to be asked again, and what waits
        standing.carry_out_waiting()
    refresh(new)

    with monkeypatch.context() as patch:
        patch.setattr(applying, "run", _fail)
        standing.carry_out_waiting(0)
    BulkUpdate.objects.update(dispatched_at=timezone.now())
    standing.carry_out_waiting(30)
    assert patched(fake_bland) == [], "a worker has it"
    BulkUpdate.objects.update(dispatched_at=None)
    standing.carry_out_waiting(30)
    assert patched(fake_bland) == [new]


@pytest.mark.parametrize(
    ("order", "row", "is_wanted"),
    [
        ({}, {"updated_at": timedelta(milliseconds=1)}, True),
        ({}, {}, False),  # within one millisecond the order is the later one
        ({}, {"updated_at": -HOUR}, False),
        ({}, {"updated_at": HOUR, "is_active": False}, False),
        ({"starts_at": 2 * HOUR}, {"updated_at": -HOUR}, True),  # by a clock that is wrong
        ({"agent_number": "+15550190001"}, {"updated_at": HOUR}, True),
        ({"agent_number": "0015550190001"}, {"updated_at": HOUR}, True),
        ({"agent_number": OTHER}, {"updated_at": HOUR}, False),
        ({"spare_handed_off": True}, {"updated_at": HOUR}, True),
        ({"spare_handed_off": True}, {"updated_at": HOUR, "human_handoff_at": HOUR}, False),
        ({"spare_handed_off": False}, {"updated_at": HOUR, "human_handoff_at": HOUR}, True),
    ],
    ids=str,
)
def test_wants(order: dict[str, Any], row: dict[str, Any], is_wanted: bool) -> None:
    begun = timezone.now() - timedelta(minutes=1)
    values = {"is_active": True, "agent_number": OURS, "updated_at": timedelta(0), **row}
    times = {k: begun + v for k, v in values.items() if isinstance(v, timedelta)}
    starts_at = begun + order.get("starts_at", timedelta(0))

    wanting = StandingOrder(**{**order, "starts_at": starts_at})

    assert standing.wants(wanting, Conversation(**{**values, **times})) is is_wanted


@pytest.mark.parametrize(("fetched", "is_told"), [(None, False), (-1, False), (0, True), (1, True)])
def test_tells_handoff__only_what_was_fetched_since(fetched: int | None, is_told: bool) -> None:
    now = timezone.now()
    row = Conversation(observed_at=now, older_facts={"human_handoff_at": None})
    row.transcript_observed_at = None if fetched is None else now + timedelta(seconds=fetched)
    assert rows.tells_handoff(row) is is_told
    row.older_facts = {"summary": None}
    assert rows.tells_handoff(row)


def test_names_in_use__those_that_orders_stand_under(settings: Any) -> None:
    """Whatever state they are in; of people who were forgotten by any of the site's secrets."""
    lifted = order_for()
    standing.lift(lifted)
    order_for("+15550107002")
    mine, known = "15550107001", {"15550107001", "15550107003"}
    assert rows.names_in_use(known) == [mine]
    assert rows.names_in_use({"15550107003"}) == []
    old, new = settings.SECRET_KEY, "another-secret"
    forgotten = {"15550107003": old, "15550107004": new, "15550107005": "not ours"}
    names = {key: rows.fingerprint(key, secret) for key, secret in forgotten.items()}
    for name in names.values():
        StandingOrder.objects.create(customer_key=name, reason="x", source="command")
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = new, [old]

    found = rows.names_in_use({*known, *forgotten, "15550107006"})

    assert found == sorted([mine, names["15550107003"], names["15550107004"]])
    assert rows.names_in_use({mine}) == [mine]
    assert set(rows.names_of("15550107003")) >= {"15550107003", names["15550107003"]}


# --- a person who was forgotten -------------------------------------------------------------------


@pytest.mark.parametrize("keep", [True, False])
def test_forget__ends_orders_or_keeps_a_fingerprint(fake_bland: FakeBland, keep: bool) -> None:
    order = order_for(reason="called from 555 010 7001")
    copy(fake_bland.customer_texts(CUSTOMER, "hi"))

    forgotten = forget(CUSTOMER, keep_orders=keep)

    assert forgotten.orders
    order.refresh_from_db()
    assert list(traces(CUSTOMER)) == []
    assert order.state == ("in_force" if keep else "lifted")
    assert order.customer == ""
    copy(fake_bland.customer_texts(CUSTOMER, "again"))
    assert len(patched(fake_bland)) == (2 if keep else 1)
    if keep:
        with pytest.raises(standing.OrderError):
            order_for()
        assert standing.orders_of(CUSTOMER) == [order]
