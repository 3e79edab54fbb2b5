"""What standing orders asked for, when its turn has come: row by row, without Bland."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from datetime import timezone as dt_timezone
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.utils import timezone

from bland_sms.models import (
    BulkUpdate,
    BulkUpdateItem,
    Conversation,
    OrderApplication,
    StandingOrder,
)
from bland_sms.signals import standing_order_suspended
from bland_sms.updates import ordered
from bland_sms.updates.ordered import (
    cancel_of_ended_orders,
    cancel_open_of,
    refusal_of,
    refused_authors,
    suspend,
)

pytestmark = pytest.mark.django_db
MOMENT = datetime(2026, 2, 3, 12, tzinfo=dt_timezone.utc)
HOUR = timedelta(hours=1)
GONE = {"cause": "requester_gone", "who": "dana"}
INACTIVE = {"cause": "requester_inactive", "who": "dana"}


def user_of(kind: str) -> Any:
    """A user who may, may not any more, is not active any more, or none."""
    if kind == "none":
        return None
    user = get_user_model().objects.create_user(f"user{get_user_model().objects.count()}")
    if kind != "not allowed":
        names = ["add_standingorder", "deactivate_conversation"]
        user.user_permissions.set(Permission.objects.filter(codename__in=names))
    if kind == "inactive":
        get_user_model().objects.filter(pk=user.pk).update(is_active=False)
    return user


def not_allowed(permission: str) -> dict[str, str]:
    return {"cause": "requester_not_allowed", "who": "dana", "permission": permission}


def order_of(number: int = 0, **values: Any) -> StandingOrder:
    return StandingOrder.objects.create(
        customer_key=f"1555010{number:04d}", **{"reason": "by phone", "source": "admin", **values}
    )


def update_of(*states: str, source: str = "standing", **values: Any) -> BulkUpdate:
    """An update about so many conversations, all of them still active."""
    values = {"status": "running", "started_at": MOMENT, **values}
    bulk_update = BulkUpdate.objects.create(is_active=False, source=source, **values)
    for state in states:
        pk = f"conv_{BulkUpdateItem.objects.count()}"
        Conversation.objects.create(pk=pk, is_active=True, updated_at=MOMENT)
        bulk_update.items.create(conversation_id=pk, state=state)
    return bulk_update


def applied(order: StandingOrder, item: BulkUpdateItem) -> OrderApplication:
    return OrderApplication.objects.create(
        order=order,
        bulk_update=item.bulk_update,
        conversation_id=item.conversation_id,
        state_updated_at=MOMENT,
    )


def states(bulk_update: BulkUpdate) -> list[tuple[str, str]]:
    return list(bulk_update.items.order_by("pk").values_list("state", "error_code"))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Conversations that were looked at again."""
    told: list[list[str]] = []
    watchers = [lambda rows: told.append(sorted(row.pk for row in rows))]
    monkeypatch.setattr(ordered, "watchers", watchers)
    return told


@pytest.fixture
def heard() -> Iterator[list[tuple[int, str, str]]]:
    told: list[tuple[int, str, str]] = []

    def hear(order: StandingOrder, code: str, **kwargs: Any) -> None:
        told.append((order.pk, code, order.suspended_code))

    standing_order_suspended.connect(hear)
    yield told
    standing_order_suspended.disconnect(hear)


# --- who may not any more ----------------------------------------------------------------------


@pytest.mark.parametrize("who", ["", "dana"])
@pytest.mark.parametrize("source", ["admin", "api", "command", "standing"])
@pytest.mark.parametrize("kind", ["allowed", "not allowed", "inactive", "none"])
def test_refusal_of__whoever_asked_for_an_update(kind: str, source: str, who: str) -> None:
    bulk_update = update_of(source=source, requested_by=user_of(kind), requested_by_name=who)
    told = refusal_of(bulk_update)
    params: dict[str, Any] = {
        "allowed": {},
        "not allowed": {**not_allowed("bland_sms.deactivate_conversation"), "who": who},
        "inactive": {**INACTIVE, "who": who},
        "none": GONE if who and source != "command" else {},
    }[kind]
    if source == "standing":  # its orders have authors
        params = {}
    assert (told.code, told.params) == ("not_permitted" if params else "", params)


@pytest.mark.parametrize("who", ["", "dana"])
@pytest.mark.parametrize("source", ["admin", "api", "command", "rule"])
@pytest.mark.parametrize("kind", ["allowed", "not allowed", "inactive", "none"])
def test_refused_authors(kind: str, source: str, who: str) -> None:
    """Beside an order of somebody else, who may."""
    values = {"requested_by": user_of(kind), "requested_by_name": who}
    order = order_of(1, source=source, **values)
    other = order_of(2, requested_by=user_of("allowed"))
    twin = order_of(3, source=source, **values)

    refused = refused_authors([order, other, twin])

    params: dict[str, Any] = {
        "allowed": {},
        "not allowed": {**not_allowed("bland_sms.add_standingorder"), "who": who},
        "inactive": {**INACTIVE, "who": who},
        "none": GONE if who and source not in ("command", "rule") else {},
    }[kind]
    assert {pk: one.params for pk, one in refused.items()} == (
        {order.pk: params, twin.pk: params} if params else {}
    )


def test_refused_authors__one_look_at_each(django_assert_num_queries: Any) -> None:
    orders = [order_of(n, requested_by=user_of("allowed")) for n in (1, 2)]
    orders += [order_of(n, requested_by=orders[0].requested_by) for n in (3, 4, 5)]
    with django_assert_num_queries(6):  # the user, and permissions of user and groups
        assert refused_authors(orders) == {}


@pytest.mark.parametrize(
    ("values", "is_acting"),
    [
        ({}, True),
        ({"until": MOMENT + 9999 * HOUR * 24}, True),
        ({"until": MOMENT - HOUR}, False),
        ({"lifted_at": MOMENT, "in_force": None}, False),
        ({"suspended_code": "order_too_often"}, False),
    ],
)
def test_suspend__only_what_acts(
    values: dict[str, Any],
    is_acting: bool,
    heard: Any,
    django_capture_on_commit_callbacks: Any,
) -> None:
    order, other = order_of(1, **values), order_of(2)
    failure = ordered.Failure("not_permitted", GONE)
    with django_capture_on_commit_callbacks(execute=True):
        assert suspend(order, failure) is is_acting
    assert heard == [(order.pk, "not_permitted", "not_permitted")] * is_acting
    order.refresh_from_db()
    if is_acting:
        assert (order.suspended_code, order.suspended_params) == ("not_permitted", GONE)
        assert order.suspended_at is not None
    else:
        assert order.suspended_code == values.get("suspended_code", "")
    other.refresh_from_db()
    assert other.suspended_code == ""


# --- items whose turn has come -----------------------------------------------------------------

NEXT_YEAR = timezone.now() + 400 * 24 * HOUR
LIFTED = {"lifted_at": MOMENT, "in_force": None}


@pytest.mark.parametrize("is_taken_over", [False, True])
@pytest.mark.parametrize("kind", ["allowed", "inactive"])
@pytest.mark.parametrize("spares", [False, True])
@pytest.mark.parametrize(
    ("values", "is_over"),
    [
        ({}, False),
        ({"until": NEXT_YEAR}, False),
        ({"suspended_code": "order_too_often"}, False),  # what it asked for before is carried out
        ({"until": MOMENT}, True),
        (LIFTED, True),
    ],
    ids=["in force", "ends", "suspended", "expired", "lifted"],
)
def test_claimed__whether_its_order_still_wants_it(
    values: dict[str, Any],
    is_over: bool,
    spares: bool,
    kind: str,
    is_taken_over: bool,
    seen: list[list[str]],
    heard: Any,
    django_capture_on_commit_callbacks: Any,
) -> None:
    author = user_of(kind)
    if kind == "inactive":
        author.refresh_from_db()
    order = order_of(1, requested_by=author, spare_handed_off=spares, **values)
    other = order_of(2)
    bulk_update = update_of("waiting", "waiting")
    mine, theirs = bulk_update.items.order_by("pk")
    applied(order, mine)
    applied(other, theirs)
    applied(other, update_of("waiting").items.get())  # another update's
    if is_taken_over:
        Conversation.objects.filter(pk=mine.conversation_id).update(human_handoff_at=MOMENT)
    code = ""
    if is_over:
        code = "lifted"
    elif kind == "inactive":
        code = "order_suspended"
    elif spares and is_taken_over:
        code = "taken_over"

    asked = {item.conversation_id: item.pk for item in (mine, theirs)}
    with django_capture_on_commit_callbacks(execute=True):
        cancelled, ends = cancel_of_ended_orders(bulk_update, asked)

    assert cancelled == [mine.pk] * bool(code)
    until = values.get("until")
    assert ends == ({} if until is None else {mine.conversation_id: until})
    expected = ("cancelled", code) if code else ("waiting", "")
    assert states(bulk_update) == [expected, ("waiting", "")]
    # What was applied to is not acted on again; what was not applied after all may be.
    left = OrderApplication.objects.filter(order=order).count()
    assert left == (0 if code in ("order_suspended", "taken_over") else 1)
    assert OrderApplication.objects.filter(order=other).count() == 2
    assert seen == [[mine.conversation_id]] * bool(code)
    is_refused = code == "order_suspended" and "suspended_code" not in values
    assert heard == [(order.pk, "not_permitted", "not_permitted")] * is_refused


def test_claimed__only_what_is_asked_about(seen: list[list[str]]) -> None:
    order = order_of(1, **LIFTED)
    bulk_update = update_of("waiting", "waiting")
    first, second = bulk_update.items.order_by("pk")
    for item in (first, second):
        applied(order, item)
    cancelled, _ends = cancel_of_ended_orders(bulk_update, {second.conversation_id: second.pk})
    assert cancelled == [second.pk]
    assert states(bulk_update) == [("waiting", ""), ("cancelled", "lifted")]


@pytest.mark.parametrize("source", ["admin", "standing"])
@pytest.mark.parametrize("asked", [True, False])
def test_claimed__of_other_updates_nothing_is_looked_at(
    source: str, asked: bool, django_assert_num_queries: Any
) -> None:
    bulk_update = update_of("waiting", source=source)
    item = bulk_update.items.get()
    is_looked_at = asked and source == "standing"
    with django_assert_num_queries(2 if is_looked_at else 0):
        found = cancel_of_ended_orders(
            bulk_update, {item.conversation_id: item.pk} if asked else {}
        )
    assert found == ([], {})


@pytest.mark.parametrize("some", [1, 500])
@pytest.mark.parametrize("status", ["queued", "running", "stopped", "finished", "cancelled"])
def test_lifted__what_is_open_is_cancelled(
    status: str,
    some: int,
    seen: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: Any,
) -> None:
    monkeypatch.setattr(ordered, "batches", lambda rows: batches_of(rows, some))
    order, other = order_of(1), order_of(2)
    bulk_update = update_of("waiting", "running", "changed", "waiting", status=status)
    items = list(bulk_update.items.order_by("pk"))
    for item in items[:3]:
        applied(order, item)
    applied(other, items[3])
    elsewhere = update_of("waiting", source="admin")
    Conversation.objects.filter(pk=items[2].conversation_id).update(is_active=False)

    with django_capture_on_commit_callbacks(execute=True):
        found = cancel_open_of([order.pk])

    if status in ("finished", "cancelled"):
        assert (found, seen) == (set(), [])
        assert states(bulk_update)[0] == ("waiting", "")
        return
    assert found == {bulk_update.pk}
    assert states(bulk_update) == [
        ("cancelled", "lifted"),
        ("running", ""),
        ("changed", ""),
        ("waiting", ""),
    ]
    items[1].refresh_from_db()
    assert items[1].error_params == {"called_back": "lifted"}
    first, second = (item.conversation_id for item in items[:2])
    assert seen == ([[first], [second]] if some == 1 else [[first, second]])
    assert states(elsewhere) == [("waiting", "")]


def batches_of(rows: Sequence[Any], size: int) -> list[Any]:
    return [rows[begin : begin + size] for begin in range(0, len(rows), size)]
