"""Conversations that a complete walk did not list: asked for one by one, never believed in bulk.

They are found page by page: what the mirror has in a stretch of time that was read to its end, and
Bland did not list. No clock of ours takes part, and a walk that was resumed has lost none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone

from django.db.models import Q, QuerySet

from ..exceptions import BlandError, BlandNotFoundError
from ..mirror import mark_missing
from ..models import Conversation, OwedLook
from ..pacing import Allowance
from ..reasons import Failure
from . import owed
from .refreshing import Refreshed, refresh_many
from .walk import Covered

MOST_MARKED_PERCENT = 5
FIRST_PORTION, PORTION = 20, 100
"""Asked for at once. Of the first few, one at least is found where only the list is at fault."""
INSERT_ROWS = 500
FIRST = datetime.min.replace(tzinfo=timezone.utc)
LAST = datetime.max.replace(tzinfo=timezone.utc)

Reason = OwedLook.Reason


def forget() -> None:
    """A walk begins anew: what the one before it did not list says nothing."""
    _unlisted().delete()


def note_unlisted(covered: Sequence[Covered], before: datetime | None) -> None:
    """Remember what the mirror has in these stretches of time and Bland did not list.

    Args:
        before: By Bland's clock: what was made since then need not be in the list yet.
    """
    if not covered:
        return
    rows = Conversation.objects.filter(missing_since__isnull=True, created_at__isnull=False)
    if before is not None:
        rows = rows.filter(created_at__lt=before)
    listed = frozenset[str]().union(*(one.ids for one in covered))
    _note(rows.filter(_within(covered)), listed)


def _within(covered: Sequence[Covered]) -> Q:
    """Made in one of these stretches; those that follow each other are one."""
    stretches: list[list[datetime]] = []
    for begin, until in sorted((one.begin or FIRST, one.until or LAST) for one in covered):
        if stretches and begin <= stretches[-1][1]:
            stretches[-1][1] = max(until, stretches[-1][1])
        else:
            stretches.append([begin, until])
    within = Q()
    for begin, until in stretches:
        after = Q() if begin == FIRST else Q(created_at__gte=begin)
        within |= after & (Q() if until == LAST else Q(created_at__lt=until))
    return within


def note_timeless(listed: set[str]) -> None:
    """The same for rows of which Bland never told when they were made."""
    _note(Conversation.objects.filter(missing_since__isnull=True, created_at=None), listed)


def _note(rows: QuerySet[Conversation], listed: frozenset[str] | set[str]) -> None:
    ids = (pk for pk in rows.values_list("pk", flat=True) if pk not in listed)
    while some := [pk for _, pk in zip(range(INSERT_ROWS), ids, strict=False)]:
        OwedLook.objects.bulk_create(
            [OwedLook(conversation=pk, reason=Reason.NOT_LISTED) for pk in some],
            ignore_conflicts=True,
        )
        Conversation.objects.filter(pk__in=some).exclude(listed="").update(listed="")


def confirm_missing(allowance: Allowance, on_turn: Callable[[Refreshed], None]) -> Failure:
    """Ask Bland for each conversation that the walk did not list.

    Those that Bland does not find are marked, unless they are more than 5 % of the mirror (one
    always may be): then something else is wrong, and none is. One that fails stays owed.

    Returns:
        What is wrong; false where nothing is.
    """
    most = max(1, Conversation.objects.count() * MOST_MARKED_PERCENT // 100)
    are_many = len(_unlisted().values_list("pk")[: most + 1]) > most
    missing: dict[str, BlandNotFoundError] = {}
    was_found = False
    for ids in _portions():
        refreshed = refresh_many(ids, allowance=allowance, mark=False, on_turn=on_turn)
        missing.update(refreshed.missing)
        was_found = was_found or bool(refreshed.copied)
        stop = owed.stop_of(refreshed)
        if stop is not None or not allowance.may_pause(0):
            cause = stop or next(iter(refreshed.failed.values()), None)
            return _not_looked_at(cause)
        for conversation_id, error in refreshed.failed.items():
            owed.add([conversation_id], Reason.DETAIL_FAILED, error.code)
        if len(missing) > most or (are_many and not was_found):
            return Failure("too_few_found")
    for conversation_id, error in missing.items():
        if error.observed_at is not None:
            mark_missing(conversation_id, error.observed_at)
    forget()
    return Failure()


def _not_looked_at(cause: BlandError | None) -> Failure:
    because = Failure("not_finished") if cause is None else cause.failure
    return Failure("not_looked_at", {"because": because.as_json()})


def _unlisted() -> QuerySet[OwedLook]:
    return OwedLook.objects.filter(reason=Reason.NOT_LISTED)


def _portions() -> Iterator[list[str]]:
    size, last = FIRST_PORTION, ""
    rows = _unlisted().order_by("conversation").values_list("conversation", flat=True)
    while ids := list(rows.filter(conversation__gt=last)[:size]):
        yield ids
        size, last = PORTION, ids[-1]
