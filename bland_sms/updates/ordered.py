"""What standing orders asked for: whether each may still have it when its turn has come."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.utils import timezone

from ..database import after_commit, batches
from ..mirror import watchers
from ..models import (
    BulkUpdate,
    BulkUpdateItem,
    Conversation,
    OrderApplication,
    StandingOrder,
)
from ..reasons import Failure
from ..signals import announce, standing_order_suspended
from .transitions import call_back, cancel_items

NAMES_PROVE_NOTHING = (StandingOrder.Source.COMMAND, StandingOrder.Source.RULE)


def requester_refusal(user: Any, who: str, permission: str, *, is_command: bool) -> Failure:
    """Why the user may not do any more what they asked for; empty where they may.

    Args:
        user: ``None``: an operator or a rule, unless there is the name of a deleted user.
        is_command: It was asked for on the command line, where names prove nothing.
    """
    if user is None:
        if who and not is_command:
            return Failure("not_permitted", {"cause": "requester_gone", "who": who})
        return Failure()
    fresh = get_user_model()._default_manager.get(pk=user.pk)
    if not fresh.is_active:
        return Failure("not_permitted", {"cause": "requester_inactive", "who": who})
    if not fresh.has_perm(permission):
        params = {"cause": "requester_not_allowed", "who": who}
        return Failure("not_permitted", {**params, "permission": permission})
    return Failure()


def refusal_of(bulk_update: BulkUpdate) -> Failure:
    """Why an update's requester may not do this any more; checked again when a run begins."""
    if bulk_update.source == BulkUpdate.Source.STANDING:
        return Failure()  # each of its orders has an author, who is checked when an item is claimed
    return requester_refusal(
        bulk_update.requested_by,
        bulk_update.requested_by_name,
        bulk_update.permission,
        is_command=bulk_update.source == BulkUpdate.Source.COMMAND,
    )


def refused_authors(orders: Collection[StandingOrder]) -> dict[int, Failure]:
    """Orders whose authors may not have them applied any more, and why; one look at each author."""
    by_author: dict[Any, Failure] = {}
    refused: dict[int, Failure] = {}
    for order in orders:
        author = order.requested_by_id, order.requested_by_name, order.source
        if author not in by_author:
            by_author[author] = requester_refusal(
                order.requested_by,
                order.requested_by_name,
                StandingOrder.PERMISSION,
                is_command=order.source in NAMES_PROVE_NOTHING,
            )
        if by_author[author]:
            refused[order.pk] = by_author[author]
    return refused


def suspend(order: StandingOrder, failure: Failure) -> bool:
    """Let an order do nothing until a person renews it; False where it acts no more anyway."""
    suspended = StandingOrder.objects.filter(StandingOrder.acting(), pk=order.pk).update(
        suspended_code=failure.code,
        suspended_params=dict(failure.params),
        suspended_at=timezone.now(),
    )
    if suspended:
        order.refresh_from_db()
        arguments = {"order": order, "code": failure.code}
        announce(standing_order_suspended, StandingOrder, lambda: [arguments])
    return bool(suspended)


def cancel_of_ended_orders(
    bulk_update: BulkUpdate, asked: Mapping[str, int]
) -> tuple[list[int], dict[str, datetime]]:
    """Cancel items whose order was lifted or has expired since, whose author may not any more, or
    that is to leave alone what a person has taken over meanwhile.

    What an order asked for before it reached its limit is carried out. Another order may want the
    same conversations, so they are looked at again.

    Args:
        asked: Conversation -> item.

    Returns:
        The cancelled items; and until when something may be sent for a conversation of the others,
        where its order ends at all.
    """
    if bulk_update.source != BulkUpdate.Source.STANDING or not asked:
        return [], {}
    applications = list(
        OrderApplication.objects.filter(
            bulk_update_id=bulk_update.pk, conversation_id__in=list(asked)
        )
        .select_related("order")
        .prefetch_related("order__requested_by")
    )
    orders = {application.order_id: application.order for application in applications}
    going_on = [order for order in orders.values() if order.state in ("in_force", "suspended")]
    refused = refused_authors(going_on)
    for order_id, failure in refused.items():
        suspend(orders[order_id], failure)
    taken_over = set(
        Conversation.objects.filter(pk__in=list(asked), human_handoff_at__isnull=False)
        .order_by()
        .values_list("pk", flat=True)
    )
    by_code: dict[str, list[OrderApplication]] = {}
    for one in applications:
        if orders[one.order_id] not in going_on:
            by_code.setdefault("lifted", []).append(one)
        elif one.order_id in refused:
            by_code.setdefault("order_suspended", []).append(one)
        elif one.order.spare_handed_off and one.conversation_id in taken_over:
            by_code.setdefault("taken_over", []).append(one)
    cancelled: dict[str, int] = {}
    for code, found in by_code.items():
        items = {one.conversation_id: asked[one.conversation_id] for one in found}
        cancel_items(list(items.values()), code)
        cancelled |= items
        if code != "lifted":  # not applied after all: renewed, or given back, it is
            OrderApplication.objects.filter(pk__in=[one.pk for one in found]).delete()
    _look_again(list(cancelled))
    # In one update, a conversation belongs to one order (``standing.applying`` records it so).
    untils = ((one.conversation_id, one.order.until) for one in applications)
    ends = {pk: until for pk, until in untils if until is not None}
    return list(cancelled.values()), ends


def cancel_open_of(order_ids: Collection[int]) -> set[int]:
    """Cancel what is open for orders that were lifted, unless it is in flight; in which updates."""
    found = OrderApplication.objects.filter(
        order_id__in=order_ids, bulk_update__status__in=BulkUpdate.Status.UNFINISHED
    ).values_list("bulk_update_id", "conversation_id")
    by_update: dict[int, list[str]] = {}
    for update_id, conversation_id in found:
        by_update.setdefault(update_id, []).append(conversation_id)
    for update_id, conversation_ids in by_update.items():
        for some in batches(conversation_ids):
            items = BulkUpdateItem.objects.filter(
                bulk_update_id=update_id, conversation_id__in=some
            )
            item_ids = list(items.values_list("pk", flat=True))
            cancel_items(item_ids, "lifted")
            call_back(item_ids, "lifted")
    _look_again(sorted({pk for pks in by_update.values() for pk in pks}))
    return set(by_update)


def _look_again(conversation_ids: Sequence[str]) -> None:
    """Have another order take over what one does not have carried out, after commit."""

    def tell() -> None:
        for some in batches(conversation_ids):
            rows = list(Conversation.objects.filter(pk__in=some, is_active=True))
            for watch in watchers if rows else ():
                watch(rows)

    if conversation_ids:
        after_commit(tell, Conversation)
