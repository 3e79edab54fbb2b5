"""How orders end: by a person, by their time, or since their customer was forgotten."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import AbstractUser
from django.utils import timezone

from bland_sms import standing
from bland_sms.models import StandingOrder
from bland_sms.reasons import history_words
from bland_sms.standing.rows import fingerprint

pytestmark = pytest.mark.django_db
CUSTOMER, KEY = "+15550107001", "15550107001"
STATES = ("in_force", "suspended", "lifted", "expired")
ACTING = STATES[:2]


def one_of_each(customer: str = CUSTOMER) -> dict[str, StandingOrder]:
    """A customer's orders by their states, each for another number of ours; to be reviewed."""
    now = timezone.now()
    change: dict[str, dict[str, Any]] = {
        "in_force": {"until": now + timedelta(days=1)},
        "suspended": {"suspended_code": "order_too_often"},
        "lifted": {"lifted_at": now, "in_force": None},
        "expired": {"until": now},  # and nobody has noticed yet
    }
    found = {}
    for place, (state, values) in enumerate(change.items()):
        order = standing.make(customer, "x", agent_number=f"+1555019000{place}", needs_review=True)
        StandingOrder.objects.filter(pk=order.pk).update(**values)
        found[state] = StandingOrder.objects.get(pk=order.pk)
        assert found[state].state == state
    return found


def as_kept(order: StandingOrder) -> dict[str, Any]:
    return StandingOrder.objects.filter(pk=order.pk).values().get()


@pytest.mark.parametrize("by_name", ["dana", ""])
def test_lift_many__those_that_are_not_over(by_name: str, staff: AbstractUser) -> None:
    user = staff if by_name else None
    orders, before = one_of_each(), timezone.now()
    others = {order.pk: as_kept(order) for order in one_of_each("+15550107002").values()}
    over = {state: as_kept(orders[state]) for state in ("lifted", "expired")}

    lifted = standing.lift_many(list(orders.values()), user)

    assert lifted == [orders[state] for state in ACTING]
    for order in lifted:
        order.refresh_from_db()
        assert (order.state, order.in_force, order.needs_review) == ("lifted", None, False)
        assert (order.lifted_by, order.lifted_by_name) == (user, by_name)
        assert order.lifted_at is not None
        assert order.lifted_at >= before
    assert {state: as_kept(orders[state]) for state in over} == over
    assert {pk: as_kept(StandingOrder(pk=pk)) for pk in others} == others
    told = LogEntry.objects.filter(action_flag=2) if user else LogEntry.objects.none()
    words = [(entry.user, history_words(entry.change_message)) for entry in told]
    assert words.count((user, "Lifted.")) == len(lifted) * bool(user)


@pytest.mark.parametrize("state", STATES)
def test_lift__whether_it_was_over(state: str) -> None:
    order = one_of_each()[state]
    assert standing.lift(order) is (state in ACTING)
    assert order.state == ("lifted" if state in ACTING else state), "it knows"


def test_expire__gives_up_places() -> None:
    orders = one_of_each()
    others = one_of_each("+15550107002")
    seen = StandingOrder.objects.filter(pk__in=[order.pk for order in orders.values()])

    assert standing.expire(seen) == 1
    assert standing.expire(seen) == 0, "it has done that"
    assert as_kept(orders["expired"])["in_force"] is None
    assert as_kept(others["expired"])["in_force"] is True
    assert standing.expire() == 1
    left = StandingOrder.objects.filter(in_force=True)
    assert set(left) == {each[state] for each in (orders, others) for state in ACTING}


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("dry_run", [True, False])
def test_forget_orders__state_by_state(keep: bool, dry_run: bool) -> None:
    orders = one_of_each()
    others = {order.pk: as_kept(order) for order in one_of_each("+15550107002").values()}
    before = {state: as_kept(order) for state, order in orders.items()}

    assert standing.forget_orders(KEY, dry_run=dry_run, keep=keep) == 4

    assert {pk: as_kept(StandingOrder(pk=pk)) for pk in others} == others
    if dry_run:
        assert {state: as_kept(order) for state, order in orders.items()} == before
        return
    name = fingerprint(KEY, settings.SECRET_KEY)
    for state, order in orders.items():
        order.refresh_from_db()
        is_kept = keep and state in ACTING
        assert order.customer_key == (name if is_kept else "")
        assert order.state == (state if is_kept or state not in ACTING else "lifted")
        assert order.lifted_by_name == ""
    assert standing.forget_orders(KEY, dry_run=False, keep=True) == 0
    assert set(standing.orders_of_key(KEY)) == {orders[state] for state in ACTING if keep}
    assert standing.forget_orders(KEY, dry_run=False, keep=False) == 2 * keep
    assert not standing.orders_of_key(KEY)
