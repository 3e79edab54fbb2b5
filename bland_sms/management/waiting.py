"""What a worker that has nothing to do looks for: one statement, however much waits for later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.models import QuerySet

from ..database import existing
from ..models import BulkUpdate, BulkUpdateItem
from ..sync.owed import due_looks
from ..updates.ledger import due_updates
from ..webhooks import workable

JOBS = ("updates", "webhooks", "owed")


def jobs_that_wait(rests: Callable[[str], bool], resting_updates: list[int]) -> set[str]:
    """The jobs for which there is something to do now.

    Args:
        rests: Whether to leave a job alone for a while.
        resting_updates: Keys of updates to leave alone.
    """
    rows: dict[str, QuerySet[Any]] = {}
    if not rests("updates"):
        dead = BulkUpdateItem.objects.filter(
            BulkUpdate.unleased("bulk_update__"), state=BulkUpdateItem.State.RUNNING
        )
        rows["updates"] = due_updates().exclude(pk__in=resting_updates)
        rows["updates: crashed"] = dead.exclude(bulk_update__in=resting_updates)
    if not rests("webhooks"):
        rows.update({f"webhooks: {name}": some for name, some in workable().items()})
    if not rests("owed"):
        rows["owed"] = due_looks()
    return {name.partition(":")[0] for name in existing(**rows)} if rows else set()
