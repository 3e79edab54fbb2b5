"""What people decide about orders that exist, state by state, and what they are told of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import AbstractUser
from django.utils import timezone

from bland_sms import standing
from bland_sms.models import Conversation, StandingOrder
from bland_sms.reasons import history_words
from bland_sms.standing.rows import to_milliseconds

from .test_standing_ending import ACTING, CUSTOMER, KEY, STATES, as_kept, one_of_each

pytestmark = pytest.mark.django_db
RENEW = "Somebody who may make standing orders must renew it, in their own name."


def history(order: StandingOrder) -> list[tuple[Any, str]]:
    told = LogEntry.objects.filter(object_id=order.pk).order_by("pk")
    return [(entry.user, history_words(entry.change_message)) for entry in told]


def code_of(do: Any, *given: Any) -> str:
    try:
        do(*given)
    except standing.OrderError as error:
        return error.code
    return ""


def test_orders_of__those_that_are_not_over() -> None:
    orders = one_of_each()
    one_of_each("+15550107002")

    assert set(standing.orders_of("555 010 7001")) == {orders[state] for state in ACTING}
    assert standing.orders_of(CUSTOMER, "555 019 0000") == [orders["in_force"]]
    assert standing.orders_of(CUSTOMER, "555 019 0002") == [], "that one is lifted"


def test_visible_orders() -> None:
    order, other = standing.make(CUSTOMER, "x"), standing.make("+15550107002", "x")
    Conversation.objects.create(pk="c", user_number=CUSTOMER, customer_key=KEY)
    every, seen = StandingOrder.objects.all(), Conversation.objects.order_by("-updated_at")

    assert set(standing.visible_orders(every, None)) == {order, other}
    assert list(standing.visible_orders(every, seen)) == [order]


@pytest.mark.parametrize(
    ("code", "applied_count", "is_shown"),
    [
        ("order_too_often", 3, True),
        ("orders_too_often", 1, True),
        ("orders_too_often", 0, False),  # others did it
        ("not_permitted", 3, False),
        ("", 3, False),
    ],
)
def test_tells_what_it_did(code: str, applied_count: int, is_shown: bool) -> None:
    order = StandingOrder(pk=1, suspended_code=code, applied_count=applied_count)
    assert standing.tells_what_it_did(order) is is_shown
    assert ("See what it deactivated: //" in standing.suspended_words(order, "/{}".format)) is (
        is_shown
    )


@pytest.mark.parametrize("with_step", [True, False])
@pytest.mark.parametrize(
    ("code", "params"),
    [
        ("order_too_often", {"number": 3, "hours": 1}),
        ("not_permitted", {"cause": "requester_gone", "who": "kim"}),
    ],
)
def test_why_suspended__what_to_do_as_well(
    code: str, params: dict[str, Any], with_step: bool
) -> None:
    order = StandingOrder(suspended_code=code, suspended_params=params)
    words = order.suspension.advice if with_step else order.suspension.as_sentence

    why = standing.why_suspended(order, with_step=with_step)

    assert why == (f"{words} {RENEW}" if code == "not_permitted" else words)


def test_suspended_words__site_without_the_admin(settings: Any) -> None:
    order = StandingOrder(pk=1, suspended_code="order_too_often", applied_count=1)
    settings.ROOT_URLCONF = "bland_sms.urls"
    assert standing.suspended_words(order) == standing.why_suspended(order)


@pytest.mark.parametrize("has_user", [True, False])
def test_again__a_new_one_that_says_the_same(has_user: bool, staff: AbstractUser) -> None:
    told = {
        "agent_number": "+15550190001",
        "until": timezone.now() + timedelta(days=1),
        "spare_handed_off": False,
        "source": "api",
    }
    order = standing.make(CUSTOMER, "by letter", requested_by_name="kim", **told)
    standing.lift(order)
    begun = to_milliseconds(timezone.now())

    new = standing.again(order, staff if has_user else None)

    assert new.pk != order.pk
    new.refresh_from_db()
    assert {name: getattr(new, name) for name in told} == told
    assert (new.customer_key, new.reason, new.state) == (KEY, "by letter", "in_force")
    author = (staff, "dana") if has_user else (None, "kim")
    assert (new.requested_by, new.requested_by_name) == author
    assert begun <= new.starts_at == to_milliseconds(new.starts_at) <= timezone.now()


@pytest.mark.parametrize(("seconds", "code"), [(-1, "order_over"), (0, "order_over"), (1, "")])
def test_again__not_of_what_has_expired(
    seconds: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = to_milliseconds(timezone.now())
    monkeypatch.setattr(timezone, "now", lambda: now)
    order = standing.make(CUSTOMER, "x")
    standing.lift(order)
    order.until = now + timedelta(seconds=seconds)

    assert code_of(standing.again, order) == code


@pytest.mark.parametrize("has_user", [True, False])
@pytest.mark.parametrize("state", STATES)
def test_renew__state_by_state(state: str, has_user: bool, staff: AbstractUser) -> None:
    orders, user = one_of_each(), staff if has_user else None
    now = timezone.now()
    StandingOrder.objects.update(
        requested_by_name="kim", suspended_params={"number": 3}, suspended_at=now
    )
    before = {name: as_kept(order) for name, order in orders.items()}

    code = code_of(standing.renew, orders[state], user)

    codes = {"in_force": "order_not_suspended", "suspended": ""}
    assert code == codes.get(state, "order_over")
    after = {name: as_kept(order) for name, order in orders.items()}
    if not code:
        order = orders[state]
        assert (order.state, order.suspended_params, order.suspended_at) == ("in_force", {}, None)
        assert order.renewed_at is not None
        assert order.renewed_at >= now
        assert not order.needs_review
        author = (staff, "dana") if has_user else (None, "kim")
        assert (order.requested_by, order.requested_by_name) == author
        assert history(order)[-1:] == [(staff, "Renewed.")] * has_user
        del before[state], after[state]
    assert after == before


def test_renew__looks_for_what_came_in_meanwhile() -> None:
    order = one_of_each()["suspended"]
    row = Conversation(pk="c", user_number=CUSTOMER, agent_number=order.agent_number)
    row.updated_at = timezone.now() + timedelta(minutes=1)
    row.derive()
    row.save()

    standing.renew(order)

    assert order.applications.get().conversation_id == "c"


@pytest.mark.parametrize("is_needed", [True, False])
@pytest.mark.parametrize("state", STATES)
def test_review__what_acts_or_may_again(state: str, is_needed: bool, staff: AbstractUser) -> None:
    orders = one_of_each()
    StandingOrder.objects.filter(pk=orders[state].pk).update(needs_review=is_needed)
    is_done = is_needed and state in ACTING
    before = history(orders[state])

    assert standing.review(orders[state], staff) is is_done

    assert history(orders[state])[len(before) :] == [(staff, "Reviewed.")] * is_done
    left = StandingOrder.objects.filter(needs_review=True)
    expected = {order for name, order in orders.items() if name != state}
    assert set(left) == (expected if is_done or not is_needed else {*expected, orders[state]})
