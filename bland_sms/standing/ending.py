"""Ends standing orders: lifted by a person, expired, or their customer was forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone

from ..database import batches, write_transaction
from ..models import StandingOrder
from ..people import name_of
from ..updates.ordered import cancel_open_of
from ..updates.transitions import finish_if_done, note_all
from .rows import fingerprint, locked, names_of


def lift(order: StandingOrder, user: Any = None) -> bool:
    """End an order: it never acts again, and what it has queued is cancelled.

    What is in flight is awaited. False where it was over already.
    """
    lifted = bool(lift_many([order], user))
    order.refresh_from_db()
    return lifted


def lift_many(orders: Sequence[StandingOrder], user: Any = None) -> list[StandingOrder]:
    """Lift those of some orders that are not over; which."""
    lifted = []
    for some in batches(orders):
        with write_transaction(StandingOrder):
            rows = StandingOrder.objects.filter(
                StandingOrder.not_over(), pk__in=[order.pk for order in some]
            )
            found = locked(rows)
            end_orders(found, user)
            note_all(found, user, "history_order_lifted")
            lifted += found
    return lifted


def end_orders(orders: Sequence[StandingOrder], user: Any) -> None:
    """Mark locked orders as lifted and cancel what waits for them."""
    pks = [order.pk for order in orders]
    StandingOrder.objects.filter(pk__in=pks).update(
        in_force=None,
        lifted_at=timezone.now(),
        lifted_by=user,
        lifted_by_name=name_of(user) if user else "",
        needs_review=False,
    )
    for update_id in cancel_open_of(pks):
        finish_if_done(update_id)


def forget_orders(key: str, *, dry_run: bool, keep: bool) -> int:
    """Take a customer's key out of their orders, in the caller's transaction; how many orders.

    Args:
        keep: Those that are not over go on under a fingerprint of the key; else they end.
    """
    # Under a fingerprint they go on already; where they are not to be kept they end as well.
    orders = StandingOrder.objects.filter(customer_key=key) if keep else orders_of_key(key)
    number = orders.count()
    if dry_run:
        return number
    pks = list(orders.values_list("pk", flat=True))
    going_on = locked(orders.filter(StandingOrder.not_over()))
    if keep:
        kept = [one.pk for one in going_on]
        orders.filter(pk__in=kept).update(customer_key=fingerprint(key, settings.SECRET_KEY))
    else:
        end_orders(going_on, None)
    orders.filter(pk__in=pks).update(customer_key="")
    return number


def orders_of_key(key: str) -> QuerySet[StandingOrder]:
    """A customer's orders, over or not, also those that stand under a fingerprint of the key."""
    return StandingOrder.objects.filter(customer_key__in=names_of(key))


def expire(orders: QuerySet[StandingOrder] | None = None) -> int:
    """Give up the places of orders whose time is over; how many. They act no more anyway."""
    rows = StandingOrder.objects.all() if orders is None else orders
    return rows.filter(in_force=True, until__lte=timezone.now()).update(in_force=None)
