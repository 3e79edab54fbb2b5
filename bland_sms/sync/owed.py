"""Conversations that could not be copied: they are fetched again later, with back-off.

Every failure to copy one conversation ends here, whichever run met it: its detail failed, the list
told no usable time, or the database refused it. The next run and ``bland_sms_work`` ask again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db.models import F, Min, Q, QuerySet
from django.utils import timezone

from ..database import batches, patiently
from ..exceptions import STOPPING_ERRORS, BlandError, BlandNotSentError
from ..models import Conversation, OwedLook
from ..pacing import Allowance, RetryBudget
from .refreshing import Refreshed, refresh_many

logger = logging.getLogger("bland_sms.sync")

Reason = OwedLook.Reason
FIRST_PAUSE = timedelta(minutes=1)
LONGEST_PAUSE = timedelta(hours=6)
PAUSE_FACTOR = 4
PORTION = 100
NOT_STORED = "not_stored"
"""Our code for what the database refused."""


@dataclass
class Looked:
    """What became of the conversations that were owed a look."""

    copied: int = 0
    missing: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """Error codes by conversation id."""
    stop: BlandError | None = None
    """Why no more were asked for."""


def add(
    conversation_ids: Iterable[str],
    reason: str,
    code: str = "",
    *,
    changed_at: datetime | None = None,
) -> None:
    """Remember that these could not be copied."""
    now = timezone.now()
    for conversation_id in conversation_ids:
        looks = OwedLook.objects.filter(conversation=conversation_id, reason=reason)
        known = looks.first()
        if known is None:
            OwedLook.objects.bulk_create(
                [
                    OwedLook(
                        conversation=conversation_id,
                        reason=reason,
                        attempts=1,
                        error_code=code[:64],
                        not_before=now + pause_after(1),
                        changed_at=changed_at,
                    )
                ],
                ignore_conflicts=True,
            )
            continue
        attempts = known.attempts + 1
        times = [moment for moment in (known.changed_at, changed_at) if moment is not None]
        looks.update(
            attempts=attempts,
            error_code=code[:64],
            not_before=now + pause_after(attempts),
            changed_at=min(times, default=None),
        )


def ask_for(conversation_ids: Iterable[str], reason: str) -> None:
    """Have these fetched as soon as possible: a list did not tell all that is needed of them."""
    looks = [
        OwedLook(conversation=conversation_id, reason=reason)
        for conversation_id in conversation_ids
    ]
    OwedLook.objects.bulk_create(looks, ignore_conflicts=True)


def settle(conversation_ids: Sequence[str]) -> None:
    """These were copied: nothing is owed. What a walk has yet to confirm is left to it."""
    for some in batches(conversation_ids):
        OwedLook.objects.filter(conversation__in=some).exclude(reason=Reason.NOT_LISTED).delete()


def forget_listed(conversation_id: str) -> None:
    """The row does not say what the list tells of it."""
    Conversation.objects.filter(pk=conversation_id).update(listed="")


def forget_refusal(conversation_ids: Sequence[str]) -> None:
    """The database has stored these at last."""
    refused = OwedLook.objects.filter(reason=Reason.REFUSED)
    refused.filter(conversation__in=list(conversation_ids)).delete()


def pause_after(attempts: int) -> timedelta:
    """How long to wait after this number of attempts."""
    factor: int = PAUSE_FACTOR ** max(0, min(attempts - 1, 10))
    return min(LONGEST_PAUSE, FIRST_PAUSE * factor)


def oldest_refused_change() -> datetime | None:
    """By Bland's clock: the first change that the database has refused so far."""
    refused = OwedLook.objects.filter(reason=Reason.REFUSED)
    moment: datetime | None = refused.aggregate(first=Min("changed_at"))["first"]
    return moment


def refused_ids() -> set[str]:
    """Conversations that the database has refused so far."""
    refused = OwedLook.objects.filter(reason=Reason.REFUSED)
    return set(refused.values_list("conversation", flat=True))


def waiting_ids(conversation_ids: Sequence[str]) -> set[str]:
    """Those of these conversations that failed, and are not to be asked for yet."""
    found: set[str] = set()
    for some in batches(conversation_ids):
        waiting = _failed().exclude(_due(timezone.now())).filter(conversation__in=some)
        found |= set(waiting.values_list("conversation", flat=True))
    return found


def _failed() -> QuerySet[OwedLook]:
    return OwedLook.objects.exclude(reason=Reason.NOT_LISTED)


def _due(now: datetime) -> Q:
    """A time further ahead than any pause was written by a clock that is wrong."""
    return Q(not_before__lte=now) | Q(not_before__gt=now + LONGEST_PAUSE)


def due_looks() -> QuerySet[OwedLook]:
    """Looks whose time has come."""
    return _failed().filter(_due(timezone.now()))


def look_at_owed(
    seconds: float | None = None,
    stopped: threading.Event | None = None,
    *,
    allowance: Allowance | None = None,
) -> Looked:
    """Ask Bland for the conversations that are owed a look and whose time has come.

    Several processes may do so at once: each takes other conversations.

    Args:
        seconds: For all of it; ``None``: until none is due.
        stopped: Once set nothing new is asked for.

    Raises:
        BlandConfigurationError: there is no usable key, base URL or CA bundle.
        RuntimeError: called inside a database transaction.
    """
    if allowance is None:
        allowance = Allowance() if seconds is None else Allowance.of_seconds(seconds)
        allowance.budget = RetryBudget()
    mine, looked = allowance, Looked()

    def stop_in_time(refreshed: Refreshed | None = None) -> None:
        # The event is the caller's own: what ends this job must not end whatever else it does.
        if stopped is not None and stopped.is_set():
            mine.stopped.set()

    while looked.stop is None:
        stop_in_time()
        ids = _take_due() if allowance.may_pause(0) else []
        if not ids:
            break
        _look(ids, allowance, looked, stop_in_time)
    return looked


def _take_due() -> list[str]:
    """Some that are due, put off first: if this process dies, another asks after the pause."""
    now = timezone.now()
    due = _failed().filter(_due(now)).order_by("not_before", "pk")
    taken: list[str] = []
    for pk, conversation_id, attempts in due.values_list("pk", "conversation", "attempts")[
        :PORTION
    ]:
        mine = OwedLook.objects.filter(_due(now), pk=pk, attempts=attempts)
        values = {"attempts": attempts + 1, "not_before": now + pause_after(attempts + 1)}
        if mine.update(**values):
            taken.append(conversation_id)
    return list(dict.fromkeys(taken))


def _look(
    ids: Sequence[str],
    allowance: Allowance,
    looked: Looked,
    on_turn: Callable[[Refreshed], None],
) -> None:
    def refuse(conversation_id: str) -> None:
        looked.failed[conversation_id] = NOT_STORED
        patiently(lambda: note_failure(conversation_id, NOT_STORED))

    refreshed = refresh_many(ids, allowance=allowance, on_turn=on_turn, on_refused=refuse)
    done = [*refreshed.copied, *refreshed.missing]
    patiently(lambda: settle(done))
    looked.copied += len(refreshed.copied)
    looked.missing += len(refreshed.missing)
    for conversation_id, error in refreshed.failed.items():
        if isinstance(error, BlandNotSentError):
            patiently(lambda pk=conversation_id: _give_back(pk))  # type: ignore[misc]
        else:
            looked.failed[conversation_id] = error.code
            patiently(lambda pk=conversation_id, code=error.code: note_failure(pk, code))  # type: ignore[misc]
    looked.stop = stop_of(refreshed)


def stop_of(refreshed: Refreshed) -> BlandError | None:
    """Why the rest was not asked for, if it was not."""
    stopping = [e for e in refreshed.failed.values() if isinstance(e, STOPPING_ERRORS)]
    if stopping:
        return stopping[0]
    return refreshed.outage


def note_failure(conversation_id: str, code: str) -> None:
    """It was asked for, and failed again."""
    _failed().filter(conversation=conversation_id).update(error_code=code[:64])


def _give_back(conversation_id: str) -> None:
    """It was not asked for: that was no attempt."""
    _failed().filter(conversation=conversation_id, attempts__gt=0).update(
        attempts=F("attempts") - 1, not_before=timezone.now()
    )


def never_copied(after: str = "") -> Iterator[list[str]]:
    """Ids of conversations whose messages were never copied, in portions."""
    rows = Conversation.objects.filter(
        transcript_observed_at__isnull=True, erased_at__isnull=True, missing_since__isnull=True
    ).order_by("pk")
    last = after
    while ids := list(rows.filter(pk__gt=last).values_list("pk", flat=True)[:PORTION]):
        waiting = waiting_ids(ids)
        yield [pk for pk in ids if pk not in waiting]
        last = ids[-1]
