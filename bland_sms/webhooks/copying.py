"""Carries webhook deliveries out: copies the conversations that they name from Bland.

A delivery only names a conversation: what is stored comes from Bland's own answer to a GET. So a
delivery that is repeated, late or out of order does no harm. Nothing is lost either: a delivery
waits until a GET that was sent after it came has been answered, even if processes crash meanwhile.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from math import inf

from django.db import Error
from django.utils import timezone

from ..database import batches, is_passing, refuse_in_transaction
from ..exceptions import (
    STOPPING_ERRORS,
    BlandConfigurationError,
    BlandError,
    BlandNotSentError,
    GaveUp,
)
from ..models import Conversation, WebhookDelivery
from ..pacing import Allowance, RetryBudget
from ..reasons import Failure
from ..sync import Refreshed, refresh, refresh_many
from .claims import claim, due_portions, outage_seen_at, recover, waiting
from .settling import CRASHED, UNANSWERED_ERRORS, Claimed, WrongClockError

logger = logging.getLogger("bland_sms.deliveries")

State = WebhookDelivery.State

ASK_SECONDS = 20.0
"""Time limit for copying one portion; far below the length of a lease."""
AT_ONCE = 32
"""Conversations in a portion, which are copied side by side."""
OUTAGE_AFTER = 3
"""Conversations that Bland gave no answer for, and none that it did: an outage."""
PROBE_SPACING = timedelta(seconds=10)
"""Seconds between two requests to Bland during an outage."""


@dataclass
class Worked:
    """What came of carrying deliveries out, in numbers of them."""

    processed: int = 0
    put_off: int = 0
    """They wait for another time: Bland was asked a moment ago, or gave no answer."""
    failed: dict[str, Failure] = field(default_factory=dict)
    """Given up, by conversation: why."""
    stop: BlandError | None = None
    """Why nothing else was tried: no request can succeed."""
    is_outage: bool = False
    """Nothing else was tried since Bland does not answer."""


def process(delivery: WebhookDelivery, *, seconds: float = ASK_SECONDS) -> bool:
    """Copy the conversation that a delivery names, unless another process does or just did.

    Safe to call at any time, in any number of processes. One GET serves all deliveries of the
    conversation that came before it was sent.

    Returns:
        True when nothing is left to do; else it waits for :func:`process_waiting`.

    Raises:
        RuntimeError: called inside a database transaction.
    """
    refuse_in_transaction()
    recover(delivery.conversation_id)
    job = _Job(seconds)
    if waiting(delivery.conversation_id).filter(pk=delivery.pk).exists() and job.may_ask():
        _carry_out([delivery], job)
    return not waiting(delivery.conversation_id).filter(pk=delivery.pk).exists()


def process_waiting(
    *,
    among: Collection[int] | None = None,
    seconds: float | None = None,
    most: int | None = None,
    at_once: int = AT_ONCE,
    stopped: threading.Event | None = None,
) -> Worked:
    """Carry out whatever waits and is due, oldest first, some of it side by side.

    Args:
        among: Keys of deliveries; ``None``: all.
        seconds: Time limit; ``None``: as long as it takes.
        most: Maximum number of conversations to copy.
        at_once: How many of them side by side.
        stopped: Once set nothing new is begun.

    Raises:
        RuntimeError: called inside a database transaction.
    """
    refuse_in_transaction()
    job = _Job(seconds, stopped)
    job.worked.failed |= dict.fromkeys(recover(), CRASHED)
    if job.may_ask():
        first = 1 if job.is_probe else at_once
        for portion in due_portions(among, size=at_once, first=first, most=most):
            _carry_out(portion, job)
            if job.is_over():
                break
    return job.worked


def reprocess(delivery_ids: Sequence[int], *, seconds: float | None = None) -> Worked:
    """Carry deliveries out again, whatever came of them; those without a conversation are left out.

    A conversation that was copied within the last minute follows when that is over.
    """
    wanted = WebhookDelivery.objects.filter(pk__in=delivery_ids)
    wanted.exclude(state=State.IGNORED).update(**WebhookDelivery.ANEW)
    worked = process_waiting(among=delivery_ids, seconds=seconds)
    worked.put_off = wanted.filter(state=State.RECEIVED).count()
    return worked


class _Job:
    """What one call may cost Bland and take in time, and what came of it.

    Nothing is sent in the last fifth of the time, since an answer that comes too late would count
    as none.
    """

    def __init__(self, seconds: float | None, stopped: threading.Event | None = None) -> None:
        now = time.monotonic()
        self._deadline = inf if seconds is None else now + seconds
        self._send_until = inf if seconds is None else now + seconds * 0.8
        self._stopped = stopped
        self._budget = RetryBudget()
        self._answered = self._unanswered = 0
        self.is_probe = False
        """Bland was not answering when last asked: one conversation is tried first, once."""
        self.worked = Worked()

    def may_ask(self) -> bool:
        """Whether to ask Bland at all; during an outage only now and then."""
        seen_at = outage_seen_at()
        self.is_probe = seen_at is not None
        if seen_at is not None and timezone.now() - seen_at < PROBE_SPACING:
            self.worked.is_outage = True
        return not self.worked.is_outage

    def is_stopped(self) -> bool:
        return self._stopped is not None and self._stopped.is_set()

    def is_over(self) -> bool:
        worked = self.worked
        if worked.stop is not None or worked.is_outage or self.is_stopped():
            return True
        return time.monotonic() >= self._send_until

    def allowance(self, claimed: Sequence[Claimed]) -> Allowance:
        """For copying these."""
        now = time.monotonic()
        return Allowance(
            deadline=min(self._deadline, now + ASK_SECONDS),
            send_until=min(self._send_until, now + ASK_SECONDS * 0.8),
            budget=self._budget,
            attempts=1 if self.is_probe else None,
            fence=lambda: all(one.delivery.fence.is_open() for one in claimed),
        )

    def count(self, problem: Exception | None) -> None:
        """Learn from what Bland said, or did not."""
        if isinstance(problem, STOPPING_ERRORS):
            self.worked.stop = problem
        elif isinstance(problem, UNANSWERED_ERRORS):
            self._unanswered += 1
            # A conversation that was not answered costs as much as a repeated request.
            if problem.gave_up is GaveUp.BUDGET or not self._budget.spend():
                self.worked.is_outage = True
        elif not isinstance(problem, BlandNotSentError):
            self._answered += 1
            self.is_probe = False
        if self._answered == 0 and self._unanswered >= (1 if self.is_probe else OUTAGE_AFTER):
            self.worked.is_outage = True

    def settle(self, claimed: Sequence[Claimed]) -> None:
        """Add what became of a portion."""
        for one in claimed:
            self.worked.processed += one.processed
            self.worked.put_off += one.put_off
            if one.given_up:
                self.worked.failed[one.delivery.conversation_id] = one.given_up


# --- asking -----------------------------------------------------------------------------------


def _carry_out(portion: Sequence[WebhookDelivery], job: _Job) -> None:
    with claim(portion) as claimed:
        _copy(claimed, job)
        for one in claimed:
            one.is_charged = not job.worked.is_outage
    job.settle(claimed)


def _copy(claimed: Sequence[Claimed], job: _Job) -> None:
    """Copy the conversations from Bland and note with each what went wrong.

    Raises:
        DatabaseError, InterfaceError: the database is locked or away.
    """
    if len(claimed) < 2:
        _copy_alone(claimed, job)
        return
    allowance = job.allowance(claimed)

    def on_turn(refreshed: Refreshed) -> None:
        _count_new(refreshed, job, counted)
        if job.worked.is_outage or job.is_stopped():
            allowance.stopped.set()

    counted: set[str] = set()
    try:
        refreshed = refresh_many(
            [one.delivery.conversation_id for one in claimed], allowance=allowance, on_turn=on_turn
        )
    except BlandConfigurationError as error:
        job.count(error)
        for one in claimed:
            one.problem = error
        return
    except Exception as error:
        if isinstance(error, Error) and is_passing(error):
            raise
        # One of them is the reason. Each by itself, it harms no other.
        _copy_alone(claimed, job)
        return
    _count_new(refreshed, job, counted)
    held_up = _held_up(list(refreshed.copied))
    for one in claimed:
        pk = one.delivery.conversation_id
        if pk in refreshed.copied:
            one.problem = WrongClockError() if pk in held_up else None
        else:
            one.problem = refreshed.missing.get(pk) or refreshed.failed.get(pk) or one.problem


def _copy_alone(claimed: Sequence[Claimed], job: _Job) -> None:
    for one in claimed:
        if job.is_over():
            return
        pk = one.delivery.conversation_id
        try:
            refresh(pk, allowance=job.allowance([one]))
        except BlandError as error:
            one.problem = error
        except Exception as error:
            if isinstance(error, Error) and is_passing(error):
                raise
            logger.warning("conversation %s could not be stored: %s", pk, type(error).__name__)
            one.problem = error
        else:
            is_held_up = bool(_held_up([pk]))
            one.problem = WrongClockError() if is_held_up else None
        job.count(one.problem)


def _count_new(refreshed: Refreshed, job: _Job, counted: set[str]) -> None:
    told: dict[str, Exception | None] = dict.fromkeys(refreshed.came)
    for pk, problem in {**told, **refreshed.missing, **refreshed.failed}.items():
        if pk not in counted:
            counted.add(pk)
            job.count(problem)


def _held_up(conversation_ids: Sequence[str]) -> set[str]:
    """Those whose stored transcript is dated ahead of now: ours may have been refused as older."""
    found: set[str] = set()
    for some in batches(conversation_ids):
        rows = Conversation.objects.filter(
            pk__in=some, transcript_observed_at__gt=timezone.now(), erased_at__isnull=True
        )
        found |= set(rows.values_list("pk", flat=True))
    return found
