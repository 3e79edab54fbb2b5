"""What a complete walk did not see: asked for one by one, and never believed in bulk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from django.db.models import QuerySet
from django.utils.translation import gettext_noop

from .. import sentences
from ..exceptions import BlandNotFoundError
from ..mirror import mark_missing
from ..models import Conversation
from ..pacing import Allowance
from .refreshing import Refreshed, refresh_many

MOST_MARKED_PERCENT = 5
FIRST_PORTION, PORTION = 20, 100
"""Asked for at once. Of the first few, one at least is found where only the list is at fault."""


def confirm_missing(
    walk_began_at: datetime, allowance: Allowance, on_turn: Callable[[Refreshed], None]
) -> str:
    """Ask Bland for each conversation that was not observed since the walk began.

    Those that Bland does not find are marked, unless they are more than 5 % of the mirror (one
    always may be): then something else is wrong, and none is.

    Returns:
        What is wrong, in words, or ``""``.
    """
    most = max(1, Conversation.objects.count() * MOST_MARKED_PERCENT // 100)
    are_many = len(_unseen(walk_began_at)[: most + 1]) > most
    missing: dict[str, BlandNotFoundError] = {}
    was_found = False
    for ids in _portions(walk_began_at):
        refreshed = refresh_many(ids, allowance=allowance, mark=False, on_turn=on_turn)
        missing.update(refreshed.missing)
        was_found = was_found or bool(refreshed.copied)
        if refreshed.failed:
            cause = next(iter(refreshed.failed.values()))
            return sentences.NOT_LOOKED_AT % {"cause": cause}
        if len(missing) > most or (are_many and not was_found):
            return gettext_noop(
                "Bland lists and finds too few of the conversations in the mirror to be believed, "
                "so none was marked as missing: is this another account's key?"
            )
    for conversation_id, error in missing.items():
        if error.observed_at is not None:
            mark_missing(conversation_id, error.observed_at)
    return ""


def _unseen(walk_began_at: datetime) -> QuerySet[Conversation, str]:
    """Ids of rows that nothing was heard of since, and that are not marked already."""
    return (
        Conversation.objects.filter(
            observed_at__lt=walk_began_at,
            facts_observed_at__lt=walk_began_at,
            missing_since__isnull=True,
        )
        .order_by("pk")
        .values_list("pk", flat=True)
    )


def _portions(walk_began_at: datetime) -> Iterator[list[str]]:
    size, last = FIRST_PORTION, ""
    while ids := list(_unseen(walk_began_at).filter(pk__gt=last)[:size]):
        yield ids
        size, last = PORTION, ids[-1]
