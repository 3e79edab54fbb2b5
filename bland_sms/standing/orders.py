"""What people decide about orders that exist: renew, review, order again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.models import QuerySet
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from ..database import write_transaction
from ..models import Conversation, StandingOrder
from ..people import name_of
from ..updates.transitions import note
from .applying import look_for
from .making import OrderError, key_of, our_number, store
from .rows import locked, names_of, to_milliseconds

APPLIED = "bland-sms-applied"
"""The place on the page of an order that says what it did."""


def visible_orders(
    orders: QuerySet[StandingOrder], visible: QuerySet[Conversation] | None
) -> QuerySet[StandingOrder]:
    """Those about the customers of conversations that a person may see; ``None``: of all."""
    if visible is None:
        return orders
    return orders.filter(customer_key__in=visible.order_by().values("customer_key"))


def orders_of(customer: str, agent_number: str = "") -> list[StandingOrder]:
    """A customer's orders that are not over, suspended ones among them.

    Args:
        agent_number: That for this number of ours only; ``""``: all.

    Raises:
        OrderError: not a customer.
    """
    orders = StandingOrder.objects.filter(
        StandingOrder.not_over(), customer_key__in=names_of(key_of(customer))
    )
    return list(orders.filter(agent_number=our_number(agent_number)) if agent_number else orders)


def tells_what_it_did(order: StandingOrder) -> bool:
    """Whether what it deactivated shows why it is suspended."""
    return order.suspended_code in ("order_too_often", "orders_too_often") and bool(
        order.applied_count
    )


def why_suspended(order: StandingOrder, *, with_step: bool = True) -> str:
    """Why an order is suspended, who must renew it where its author may not act any more, and else
    what to do.

    Args:
        with_step: And what to do.
    """
    words = order.suspension.advice if with_step else order.suspension.as_sentence
    if order.suspended_code != "not_permitted":
        return words
    renewing = _("Somebody who may make standing orders must renew it, in their own name.")
    return f"{words} {renewing}"


def suspended_words(order: StandingOrder, address: Callable[[str], str] = str) -> str:
    """Why an order is suspended, what to do, and where to see what opens the conversations; for
    places without links.

    Args:
        address: Makes a whole address of the path of a page.
    """
    words = why_suspended(order)
    if not tells_what_it_did(order):
        return words
    try:
        page = reverse("admin:bland_sms_standingorder_change", args=[order.pk])
    except NoReverseMatch:  # a site without the admin
        return words
    return f"{words} {see_words()}: {address(f'{page}#{APPLIED}')}"


def see_words() -> str:
    """Of a link to what an order did."""
    return _("See what it deactivated")


def again(order: StandingOrder, user: Any = None) -> StandingOrder:
    """Make a lifted order once more, as a new one: a lifted order itself never acts again.

    Raises:
        OrderError: another one is in force by now, or its time is over.
    """
    now = to_milliseconds(timezone.now())
    if order.until is not None and order.until <= now:
        raise OrderError("order_over")
    new = StandingOrder(
        customer_key=order.customer_key,
        agent_number=order.agent_number,
        reason=order.reason,
        source=order.source,
        requested_by=user,
        requested_by_name=name_of(user) if user else order.requested_by_name,
        starts_at=now,
        until=order.until,
        spare_handed_off=order.spare_handed_off,
    )
    return store(new)


def renew(order: StandingOrder, user: Any = None) -> None:
    """Let a suspended order act again, in the name of the user who renews it, its limits anew.

    Raises:
        OrderError: it is over, or not suspended.
    """
    now = timezone.now()
    with write_transaction(StandingOrder):
        [order_now] = locked(StandingOrder.objects.filter(pk=order.pk))
        if order_now.state in ("lifted", "expired"):
            raise OrderError("order_over")
        if order_now.state != "suspended":
            raise OrderError("order_not_suspended")
        author = {"requested_by": user, "requested_by_name": name_of(user)} if user else {}
        StandingOrder.objects.filter(pk=order.pk).update(
            suspended_code="",
            suspended_params={},
            suspended_at=None,
            renewed_at=now,
            needs_review=False,
            **author,
        )
        note(order, user, "history_order_renewed")
    order.refresh_from_db()
    look_for([order])


def review(order: StandingOrder, user: Any) -> bool:
    """A person has looked at what a rule ordered, and keeps it; False where nothing is to do."""
    reviewed = StandingOrder.objects.filter(
        StandingOrder.not_over(), pk=order.pk, needs_review=True
    ).update(needs_review=False)
    if reviewed:
        note(order, user, "history_order_reviewed")
    return bool(reviewed)
