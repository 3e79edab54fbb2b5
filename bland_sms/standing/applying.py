"""Applies standing orders to what the mirror shows: new conversations are deactivated too.

Bland opens a new conversation when a customer writes after theirs was deactivated. As soon as the
mirror shows it, an update is recorded, which is carried out like any other.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from django.db.models import Count, F, Max, Q, QuerySet
from django.utils import timezone

from ..client import by_blands_clock
from ..conf import get_settings
from ..database import ROWS_PER_STATEMENT, after_commit, batches, using, write_transaction
from ..dispatching import driver_of, hand_over
from ..models import (
    BulkUpdate,
    BulkUpdateItem,
    Conversation,
    OrderApplication,
    OwedLook,
    StandingOrder,
)
from ..reasons import Failure
from ..signals import announce, standing_order_applied, standing_order_suspended
from ..sync import owed
from ..updates import prepare, run, start, waiting_updates
from ..updates.ordered import refused_authors, suspend
from ..updates.transitions import cancel_items, finish_if_done
from .rows import fingerprints, locked, names_in_use, tells_handoff, wants
from .unanswered import ask_again

logger = logging.getLogger("bland_sms.standing")

ItemState = BulkUpdateItem.State
MOST_AN_HOUR, MOST_A_DAY = 3, 10
"""How often one order is applied before it is suspended."""
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
CATCH_UP = timedelta(hours=2)
"""Conversations that were active within so long a time are looked at again by the timers."""


class Match(NamedTuple):
    """A conversation, and the orders that want it inactive; of locked ones the oldest first."""

    conversation: Conversation
    orders: tuple[StandingOrder, ...]


# --- which order wants what ---------------------------------------------------------------------


def look(rows: Sequence[Conversation]) -> None:
    """Apply the orders in force to rows that the mirror has just written: one indexed look.

    An error here must not harm what was copied: it is logged, and :func:`catch_up` comes back.
    """
    try:
        _look(rows)
    except Exception:
        logger.exception("standing orders were not applied; bland_sms_work does it")


def _look(rows: Sequence[Conversation]) -> int:
    """How many conversations are deactivated."""
    active = [row for row in rows if row.is_active and row.customer_key]
    recorded = 0
    for some in batches(active):
        names = names_in_use({row.customer_key for row in some})
        if not names:
            continue
        orders = StandingOrder.objects.filter(customer_key__in=names)
        matches = _matches(some, [one for one in orders if one.state == "in_force"])
        unsure = {match.conversation.pk for match in matches if _may_be_spared(match)}
        owed.ask_for(sorted(unsure), OwedLook.Reason.STANDING_ORDER)  # and is looked at again
        recorded += _apply([match for match in matches if match.conversation.pk not in unsure])
    return recorded


def _may_be_spared(match: Match) -> bool:
    is_sparing = any(order.spare_handed_off for order in match.orders)
    return is_sparing and not tells_handoff(match.conversation)


def _matches(rows: Iterable[Conversation], orders: Iterable[StandingOrder]) -> list[Match]:
    by_key: dict[str, list[StandingOrder]] = {}
    for order in orders:
        by_key.setdefault(order.customer_key, []).append(order)
    aliases = fingerprints({row.customer_key for row in rows})
    for fingerprint, key in aliases.items():
        if fingerprint in by_key:
            by_key.setdefault(key, []).extend(by_key[fingerprint])
    found = []
    for row in rows:
        wanted = tuple(one for one in by_key.get(row.customer_key, ()) if wants(one, row))
        if wanted:
            found.append(Match(row, wanted))
    return found


def look_for(orders: Sequence[StandingOrder]) -> None:
    """Apply orders that were just made or renewed to what came in meanwhile, after commit."""

    def go() -> None:
        for some in batches(orders):
            keys = [order.customer_key for order in some]
            look(list(Conversation.objects.filter(customer_key__in=keys, is_active=True)))

    after_commit(go, StandingOrder)


def catch_up() -> int:
    """Look again at what was active lately: a process may have died before it looked.

    Returns:
        How many conversations are deactivated.
    """
    if not StandingOrder.objects.filter(StandingOrder.acting()).exists():
        return 0
    ask_again()
    recent = Conversation.objects.filter(
        is_active=True, updated_at__gt=by_blands_clock(timezone.now() - CATCH_UP)
    )
    columns = (
        *("customer_key", "agent_number", "is_active", "human_handoff_at", "updated_at"),
        *("older_facts", "observed_at", "transcript_observed_at"),
    )
    recorded, last = 0, ""
    while True:
        portion = recent.filter(pk__gt=last).only(*columns)
        rows = list(portion.order_by("pk")[:ROWS_PER_STATEMENT])
        recorded += _look(rows)
        if len(rows) < ROWS_PER_STATEMENT:
            return recorded
        last = rows[-1].pk


# --- applying -----------------------------------------------------------------------------------


def _apply(matches: Sequence[Match]) -> int:
    """Record one update for what some orders want, and have it carried out; how many items."""
    if not _not_done(matches):
        return 0
    order_ids = sorted({order.pk for match in matches for order in match.orders})
    with write_transaction(BulkUpdate):
        # A second process waits here, and then sees what the first one recorded.
        orders = locked(StandingOrder.objects.filter(StandingOrder.acting(), pk__in=order_ids))
        pks = [match.conversation.pk for match in matches]
        rows = Conversation.objects.using(using()).filter(pk__in=pks)
        wanted = _within_limits(_not_done(_matches(rows, orders)))
        if not wanted:
            return 0
        bulk_update = _record(wanted)
    after_commit(lambda: _hand_over(bulk_update), BulkUpdate)
    return len(wanted)


def _hand_over(bulk_update: BulkUpdate) -> None:
    """Ask for a worker. Where there is none, :func:`carry_out_waiting` does it."""
    hand_over(bulk_update)


def _not_done(matches: Sequence[Match]) -> list[Match]:
    """Without states that were acted on before, and what is about to be deactivated anyway.

    What waits in an update that nobody carries out, such as one whose page was closed, is not.
    """
    pks = [match.conversation.pk for match in matches]
    done = set(
        OrderApplication.objects.filter(conversation_id__in=pks).values_list(
            "order_id", "conversation_id", "state_updated_at"
        )
    )
    items = list(_open_items(pks).values_list("conversation_id", "state", "bulk_update_id"))
    idle = {
        update.pk
        for update in BulkUpdate.objects.filter(pk__in={update_id for *_item, update_id in items})
        if update.source != BulkUpdate.Source.STANDING and driver_of(update) == "none"
    }
    under_way = {
        pk for pk, state, update_id in items if state != ItemState.WAITING or update_id not in idle
    }
    left = []
    for row, orders in matches:
        is_done = any((order.pk, row.pk, row.updated_at) in done for order in orders)
        if row.pk not in under_way and not is_done:
            left.append(Match(row, orders))
    return left


def _open_items(conversation_ids: Sequence[str]) -> QuerySet[BulkUpdateItem]:
    """Items by which these are about to be deactivated."""
    return BulkUpdateItem.objects.filter(
        conversation_id__in=conversation_ids,
        state__in=ItemState.OPEN,
        bulk_update__is_active=False,
        bulk_update__status__in=BulkUpdate.Status.UNFINISHED,
    )


def _take_over(bulk_update: BulkUpdate, conversation_ids: Sequence[str]) -> None:
    """Take items out of updates that are paused, since nobody knows when these go on.

    Those of this one, which has not started, do not count yet.
    """
    items = dict(_open_items(conversation_ids).values_list("pk", "bulk_update_id"))
    cancel_items(list(items), "already_queued", update=bulk_update.pk)
    for update_id in set(items.values()):
        finish_if_done(update_id)


def _within_limits(matches: Sequence[Match]) -> list[tuple[Conversation, StandingOrder]]:
    """What may be deactivated, each with its order; orders beyond a limit are suspended."""
    involved = {order.pk: order for match in matches for order in match.orders}
    refusals = _over_limits(list(involved)) | refused_authors(involved.values())
    for order_id, failure in refusals.items():
        suspend(involved[order_id], failure)
    wanted = []
    for row, candidates in matches:
        order = next((one for one in candidates if one.pk not in refusals), None)
        if order is not None:
            wanted.append((row, order))
    limit = get_settings().standing_orders_per_hour
    room = max(0, limit - _number_of_hour())
    if len(wanted) > room:
        _suspend_all(Failure("orders_too_often", {"number": limit}))
    return wanted[: min(room, get_settings().bulk_limit)]


def _number_of_hour() -> int:
    """Conversations that all orders deactivated within an hour, since any was last renewed."""
    renewed_at = StandingOrder.objects.aggregate(latest=Max("renewed_at"))["latest"]
    since = max(filter(None, (timezone.now() - HOUR, renewed_at)))
    return OrderApplication.objects.filter(applied_at__gt=since).count()


def _over_limits(order_ids: Collection[int]) -> dict[int, Failure]:
    now = timezone.now()
    is_of_hour = Q(applied_at__gt=now - HOUR)
    is_counted = Q(order__renewed_at__isnull=True) | Q(applied_at__gt=F("order__renewed_at"))
    counts = (
        OrderApplication.objects.filter(is_counted, order__in=order_ids, applied_at__gt=now - DAY)
        .order_by()
        .values_list("order_id")
        .annotate(
            of_hour=Count("bulk_update", distinct=True, filter=is_of_hour),
            of_day=Count("bulk_update", distinct=True),
        )
    )
    over = {}
    for order_id, of_hour, of_day in counts:
        if of_hour >= MOST_AN_HOUR:
            over[order_id] = Failure("order_too_often", {"number": of_hour, "hours": 1})
        elif of_day >= MOST_A_DAY:
            over[order_id] = Failure("order_too_often", {"number": of_day, "hours": 24})
    return over


def _suspend_all(failure: Failure) -> None:
    suspended = StandingOrder.objects.filter(StandingOrder.acting()).update(
        suspended_code=failure.code,
        suspended_params=dict(failure.params),
        suspended_at=timezone.now(),
    )
    logger.error("all standing orders are suspended: %d", suspended)
    arguments: dict[str, Any] = {"order": None, "code": failure.code}
    announce(standing_order_suspended, StandingOrder, lambda: [arguments])


def _record(wanted: Sequence[tuple[Conversation, StandingOrder]]) -> BulkUpdate:
    """The update for what is wanted, started, in the caller's transaction."""
    orders = {order.pk: order for _row, order in wanted}
    authors = {order.requested_by for order in orders.values()}
    names = dict.fromkeys(order.requested_by_name for order in orders.values())
    reasons = dict.fromkeys(order.reason for order in orders.values())
    bulk_update = prepare(
        [row.pk for row, _order in wanted],
        False,
        requested_by=authors.pop() if len(authors) == 1 else None,
        reason="; ".join(reasons)[:200],
        source=BulkUpdate.Source.STANDING,
    )
    bulk_update.requested_by_name = ", ".join(filter(None, names))[:255]
    bulk_update.save(update_fields=["requested_by_name"])
    now = timezone.now()
    OrderApplication.objects.bulk_create(
        OrderApplication(
            order=order,
            bulk_update=bulk_update,
            conversation_id=row.pk,
            state_updated_at=row.updated_at,
            applied_at=now,
        )
        for row, order in wanted
    )
    StandingOrder.objects.filter(pk__in=list(orders)).update(
        applied_count=F("applied_count") + 1, last_applied_at=now
    )
    _take_over(bulk_update, [row.pk for row, _order in wanted])
    start(bulk_update)
    _announce_applied(bulk_update, wanted)
    return bulk_update


def _announce_applied(
    bulk_update: BulkUpdate, wanted: Sequence[tuple[Conversation, StandingOrder]]
) -> None:
    by_order: dict[int, tuple[StandingOrder, list[str]]] = {}
    for row, order in wanted:
        by_order.setdefault(order.pk, (order, []))[1].append(row.pk)
    announce(
        standing_order_applied,
        StandingOrder,
        lambda: [
            {"order": order, "bulk_update": bulk_update, "conversation_ids": tuple(ids)}
            for order, ids in by_order.values()
        ],
    )


# --- without a worker ---------------------------------------------------------------------------


def carry_out_waiting(
    seconds: float | None = None, *, stopped: threading.Event | None = None
) -> None:
    """Carry out updates of standing orders that wait and that no worker has.

    For callers that have just copied something from Bland. Not inside a database transaction.
    """
    ask_again()
    ours, unfinished = BulkUpdate.Source.STANDING, BulkUpdate.Status.UNFINISHED
    if not BulkUpdate.objects.filter(source=ours, status__in=unfinished).exists():
        return
    give_up_at = None if seconds is None else time.monotonic() + seconds
    last = 0
    # One by one: what an order that has ended leaves undone another may ask for meanwhile.
    while bulk_update := waiting_updates().filter(source=ours, pk__gt=last).first():
        left = None if give_up_at is None else give_up_at - time.monotonic()
        if left is not None and left <= 0:
            return
        last = bulk_update.pk
        if driver_of(bulk_update) != "worker":
            run(bulk_update, seconds=left, stopped=stopped)
