"""What Bland did not answer is asked again: nobody watches the updates of standing orders."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta

from django.db.models import Q
from django.utils import timezone

from ..models import BulkUpdate, BulkUpdateItem, Conversation
from ..updates import retry

State = BulkUpdateItem.State
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=30), timedelta(minutes=15)
GIVE_UP_AFTER = timedelta(days=1)
REQUESTS_A_ROUND = 3
AT_ONCE = 500
UNANSWERED = Q(http_status=None) | Q(http_status__in=(408, 429)) | Q(http_status__gte=500)


def ask_again() -> None:
    """Queue again what failed or is unknown since Bland did not answer, with growing pauses.

    What Bland refused stays failed. Whether the order still wants it is decided as ever, when the
    item's turn has come.
    """
    now = timezone.now()
    items = BulkUpdateItem.objects.filter(
        UNANSWERED | Q(state=State.UNKNOWN),
        state__in=(State.FAILED, State.UNKNOWN),
        finished_at__gt=now - GIVE_UP_AFTER,
        finished_at__lte=now - FIRST_PAUSE,
        bulk_update__source=BulkUpdate.Source.STANDING,
        bulk_update__started_at__gt=now - GIVE_UP_AFTER,
        conversation__is_active=True,
    )
    columns = ("bulk_update", "conversation", "attempts", "finished_at")
    by_update: dict[int, list[str]] = defaultdict(list)
    # Those that failed first are due first: no item stands before the others for ever.
    for update_id, conversation_id, attempts, failed_at in items.order_by(
        "finished_at"
    ).values_list(*columns)[:AT_ONCE]:
        if failed_at + _pause_after(attempts) <= now:
            by_update[update_id].append(conversation_id)
    for bulk_update in BulkUpdate.objects.filter(pk__in=list(by_update)):
        due = by_update[bulk_update.pk]
        retry(bulk_update, visible=Conversation.objects.filter(pk__in=due))


def _pause_after(attempts: int) -> timedelta:
    factor: int = 2 ** max(0, min(attempts // REQUESTS_A_ROUND - 1, 10))
    return min(LONGEST_PAUSE, FIRST_PAUSE * factor)
