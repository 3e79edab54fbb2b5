"""The results of updates as CSV: of one update, or of all that a list shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from django.db.models import QuerySet

from ..database import ROWS_AT_ONCE, by_key
from ..models import BulkUpdate, BulkUpdateItem
from ..updates import undoing
from .sight import Sight, hidden_items_words

CSV_HEADER = (
    "conversation",
    "customer",
    "state",
    "http_status",
    "code",
    "words",
    "attempts",
    "finished_at",
    "update",
    "action",
    "requested_by",
    "requested_at",
    "reason",
    "source",
    "undone_by",
    "explanation",
)
UPDATES_AT_ONCE = 100


def result_rows(bulk_update: BulkUpdate, sight: Sight) -> Iterator[tuple[Any, ...]]:
    """One line for each conversation of an update."""
    yield from _rows([bulk_update], sight)


def ledger_rows(chosen: QuerySet[BulkUpdate], sight: Sight) -> Iterator[tuple[Any, ...]]:
    """The same for all the updates of a list, the newest first, in portions by their key."""
    chosen = chosen.order_by("-pk")
    some = list(chosen[:UPDATES_AT_ONCE])
    while some:
        yield from _rows(some, sight)
        some = list(chosen.filter(pk__lt=some[-1].pk)[:UPDATES_AT_ONCE])


def _rows(bulk_updates: Sequence[BulkUpdate], sight: Sight) -> Iterator[tuple[Any, ...]]:
    by_pk = {bulk_update.pk: bulk_update for bulk_update in bulk_updates}
    undone = dict(
        undoing(by_pk).order_by("pk").values_list("undo_of_id", "pk")  # the last one counts
    )
    items = BulkUpdateItem.objects.filter(bulk_update__in=list(by_pk))
    seen = by_key(sight.items(items))
    number = 0
    while chunk := list(islice(seen, ROWS_AT_ONCE)):
        number += len(chunk)
        customers = sight.numbers(chunk)
        for item in chunk:
            bulk_update = by_pk[item.bulk_update_id]
            yield _row(item, bulk_update, customers, undone.get(bulk_update.pk), sight)
    hidden = 0 if sight.conversations is None else items.count() - number
    if hidden > 0:
        yield (*[""] * (len(CSV_HEADER) - 1), hidden_items_words(hidden))


def _row(
    item: BulkUpdateItem,
    bulk_update: BulkUpdate,
    customers: dict[str, str],
    undone_by: int | None,
    sight: Sight,
) -> tuple[Any, ...]:
    return (
        item.conversation_id,
        customers.get(item.conversation_id, ""),
        item.state,
        item.http_status,
        item.error_code,
        item.message if sight.with_words else "",
        item.attempts,
        item.finished_at,
        bulk_update.pk,
        "reactivate" if bulk_update.is_active else "deactivate",
        bulk_update.requested_by_name,
        bulk_update.started_at,
        bulk_update.reason,
        bulk_update.source,
        undone_by,
        sight.failure(item.failure).advice,
    )
