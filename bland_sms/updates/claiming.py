"""Takes items of an update for a while, and gives those back that nothing was sent for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from django.db import IntegrityError
from django.db.models import Exists, F, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone

from ..database import write_transaction
from ..models import BulkUpdate, BulkUpdateItem, Conversation
from .asking import ClaimedItem
from .ordered import cancel_of_ended_orders
from .transitions import (
    LOOK_FIRST_CODES,
    are_called_back,
    cancel_called_back,
    cancel_items,
    release_dead_claims,
)

State = BulkUpdateItem.State


class _Candidate(NamedTuple):
    """An item that may be claimed."""

    pk: int
    conversation_id: str
    attempts: int
    error_code: str
    is_superseded: bool


def claim(bulk_update: BulkUpdate, number: int) -> list[ClaimedItem]:
    """Take up to ``number`` items; no other process can take them while our lease lives.

    Raises:
        LostLeaseError: another process has taken over.
    """
    in_flight = BulkUpdateItem.objects.filter(claimed_conversation=OuterRef("conversation_id"))
    waiting = (
        _claimable(bulk_update)
        .filter(~Exists(in_flight))
        .annotate(is_superseded=Exists(_opposite_items(bulk_update).exclude(state=State.CANCELLED)))
        .order_by("pk")
        .values_list(*_Candidate._fields)
    )
    candidates = {item.pk: item for item in map(_Candidate._make, waiting[:number])}
    superseded = [pk for pk, item in candidates.items() if item.is_superseded]
    cancel_items(superseded, "superseded")
    for item_id in superseded:
        del candidates[item_id]
    asked = {item.conversation_id: pk for pk, item in candidates.items()}
    ended, ends = cancel_of_ended_orders(bulk_update, asked)
    for item_id in ended:
        del candidates[item_id]
    if not candidates:
        return []
    try:
        claimed = _mark_running(bulk_update, list(candidates))
    except IntegrityError:
        # One of the conversations came into flight in another update just now.
        claimed = [pk for pk in candidates if _mark_running_alone(bulk_update, pk)]
    return _read(bulk_update, [candidates[pk] for pk in claimed], ends)


def standing_of(bulk_update: BulkUpdate) -> tuple[str, bool] | None:
    """Its status, and whether some claimed items may be unwanted: a newer open update asks the
    opposite of some conversations, or somebody cancelled items one by one.

    ``None``: the lease is lost.
    """
    newer = BulkUpdate.objects.filter(
        is_active=not bulk_update.is_active,
        started_at__gt=bulk_update.started_at,
        status__in=BulkUpdate.Status.OPEN,
    )
    called_back = bulk_update.items.filter(are_called_back(), state=State.RUNNING)
    row = bulk_update.leased_rows().values_list("status", Exists(newer), Exists(called_back))
    for status, has_newer, has_called_back in row:
        return status, has_newer or has_called_back
    return None


def unwanted(bulk_update: BulkUpdate) -> list[int]:
    """Claimed items that were cancelled since, or the opposite was requested."""
    running = bulk_update.items.filter(state=State.RUNNING)
    newer = _opposite_items(bulk_update).filter(state=State.WAITING)
    return list(running.filter(Exists(newer) | are_called_back()).values_list("pk", flat=True))


def _opposite_items(bulk_update: BulkUpdate) -> QuerySet[BulkUpdateItem]:
    """Of an item's conversation: what was requested later than this update and is its opposite."""
    return BulkUpdateItem.objects.filter(
        conversation_id=OuterRef("conversation_id"),
        bulk_update__is_active=not bulk_update.is_active,
        bulk_update__started_at__gt=bulk_update.started_at,
    )


def waits_for_another(bulk_update: BulkUpdate) -> bool:
    """Whether what is left is in flight in another update, which takes a moment."""
    if not _claimable(bulk_update).exists():
        return False
    release_dead_claims()
    return True


def unclaim(bulk_update: BulkUpdate, begun: Collection[int]) -> None:
    """Put back whatever of it is still marked as running. The caller holds the lease.

    Args:
        begun: Items for which something may have been sent: they are looked at first.
    """
    running = bulk_update.items.filter(state=State.RUNNING)
    running.filter(pk__in=begun).update(error_code="interrupted")
    back = {"state": State.WAITING, "claimed_conversation": None}
    was_asked = Q(attempts__gt=0) | Q(error_code__in=LOOK_FIRST_CODES)
    running.filter(was_asked).update(**back)
    running.update(**back, previous_is_active=None)
    cancel_called_back(bulk_update.items.all())


def _claimable(bulk_update: BulkUpdate) -> QuerySet[BulkUpdateItem]:
    due = Q(not_before__isnull=True) | Q(not_before__lte=timezone.now())
    return bulk_update.items.filter(due, state=State.WAITING)


def _mark_running(bulk_update: BulkUpdate, item_ids: Sequence[int]) -> Sequence[int]:
    """Which of the items are ours now. Raises IntegrityError, LostLeaseError.

    What the row holds is noted at the first claim: it decides later what we changed.
    """
    ours = bulk_update.leased_rows().filter(pk=OuterRef("bulk_update_id"))
    row = Conversation.objects.filter(pk=OuterRef("conversation_id"))
    mine = bulk_update.items.filter(pk__in=item_ids)
    with write_transaction(BulkUpdate):
        number = mine.filter(Exists(ours), state=State.WAITING).update(
            state=State.RUNNING,
            claimed_conversation=F("conversation_id"),
            previous_is_active=Coalesce("previous_is_active", Subquery(row.values("is_active"))),
            not_before=None,
        )
    if number == len(item_ids):
        return item_ids
    bulk_update.renew_lease()  # was it lost? If not, some of them were cancelled just now
    return list(mine.filter(state=State.RUNNING).values_list("pk", flat=True))


def _mark_running_alone(bulk_update: BulkUpdate, item_id: int) -> bool:
    try:
        return bool(_mark_running(bulk_update, [item_id]))
    except IntegrityError:
        return False  # it is waited for


def _read(
    bulk_update: BulkUpdate, items: Sequence[_Candidate], ends: Mapping[str, datetime]
) -> list[ClaimedItem]:
    """The claimed items with what the mirror knows of them.

    Args:
        ends: Conversation -> until when something may be sent for it.
    """
    row = Conversation.objects.filter(pk=OuterRef("conversation_id"))
    stored = BulkUpdateItem.objects.filter(pk__in=[item.pk for item in items]).values_list(
        "pk", "previous_is_active", Subquery(row.values("updated_at"))
    )
    known = {pk: (previous, updated_at) for pk, previous, updated_at in stored}
    return [
        ClaimedItem(
            item_id=item.pk,
            conversation_id=item.conversation_id,
            is_active=bulk_update.is_active,
            attempts=item.attempts,
            # Where the mirror had no row nothing was asked yet, only looked.
            look_first=item.error_code in LOOK_FIRST_CODES and known[item.pk][0] is not None,
            previous_is_active=known[item.pk][0],
            known_updated_at=known[item.pk][1],
            until=ends.get(item.conversation_id),
        )
        for item in items
    ]
