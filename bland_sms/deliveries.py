"""Who rang: webhook deliveries, and the one function that copies the conversations they name.

A delivery says whose conversation to look at, and nothing else of it is believed: what it is
about comes from Bland's own answer to a GET. So it does no harm when one comes twice, late, or
in the wrong order. Nothing is lost either: a delivery waits until a GET that was sent after it
came has been answered, whoever dies meanwhile.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from math import inf
from typing import Any, TypeVar

from django.db import DatabaseError, IntegrityError, OperationalError, router, transaction
from django.db.models import Exists, F, Max, OuterRef, Q, QuerySet, Value
from django.db.models.functions import Greatest
from django.utils import timezone

from .exceptions import (
    STOPPING_ERRORS,
    TRANSIENT_ERRORS,
    BlandConfigurationError,
    BlandConflictError,
    BlandError,
    BlandNotFoundError,
    BlandNotSentError,
    BlandPayloadError,
)
from .models import Conversation, WebhookDelivery
from .pacing import Allowance
from .payloads import clean_text, is_conversation_id
from .signals import announce, webhook_received
from .sync import refresh, refresh_many
from .transactions import patiently, refuse_in_transaction

logger = logging.getLogger("bland_sms.deliveries")

State = WebhookDelivery.State

SPACING = timedelta(minutes=1)
"""Bland is asked for one conversation no more often than this, however often it rings."""
ASK_SECONDS = 20.0
"""For copying one batch."""
LEASE = timedelta(minutes=2)
"""After this the process that took a conversation is taken for dead. Far above ASK_SECONDS."""
MOST_ATTEMPTS = 8
LONGEST_PAUSE = timedelta(hours=1)
LONGEST_WAIT = timedelta(days=1)
"""Of what Bland may ask for with ``Retry-After``."""
AT_ONCE = 32
DEADLOCK_SECONDS = 1.0
"""Conversations that are copied side by side."""
LOOKED_AT = 200

NOT_FOUND = "CONVERSATION_NOT_FOUND"

_PASSING_ERRORS = (*TRANSIENT_ERRORS, BlandConflictError, BlandPayloadError)
_REFUSED_BY_DATABASE = (DatabaseError, ValueError, OverflowError)

Result = TypeVar("Result")


def receive(body: bytes, told: Mapping[str, Any]) -> WebhookDelivery | None:
    """Note a verified delivery and announce it; ``None``: this very body came before.

    Args:
        body: As it came, byte for byte. Only its hash is kept.
        told: The same, parsed.

    Raises:
        DatabaseError, InterfaceError: it is not noted.
    """
    conversation_id = told.get("conversation_id")
    if not isinstance(conversation_id, str) or not is_conversation_id(conversation_id):
        conversation_id = ""
    kind = _kind(told)
    reason = _text(told, "reason", 200) or _text(told, "status_reason", 200)
    if reason and _is_erased(conversation_id):
        reason = ""
    delivery, is_new = WebhookDelivery.objects.get_or_create(
        body_sha256=hashlib.sha256(body).hexdigest(),
        defaults={
            "conversation_id": conversation_id,
            "kind": kind,
            "status": _text(told, "status", 64) if kind == "status" else "",
            "reason": reason,
            "state": State.RECEIVED if conversation_id else State.IGNORED,
        },
    )
    if not is_new:
        return None
    logger.info("conversation %s rang: %s", conversation_id or "?", kind)
    announce(webhook_received, WebhookDelivery, lambda: [{"delivery": delivery}])
    return delivery


def _kind(told: Mapping[str, Any]) -> str:
    if told.get("type") == "status":
        return "status"
    is_message = "sender" in told or "message" in told
    return "status" if _text(told, "status", 64) and not is_message else "message"


def _text(told: Mapping[str, Any], name: str, max_length: int) -> str:
    value = told.get(name)
    return clean_text(value, max_length).strip() if isinstance(value, str) else ""


def _is_erased(conversation_id: str) -> bool:
    erased = Conversation.objects.filter(pk=conversation_id, erased_at__isnull=False)
    return bool(conversation_id) and erased.exists()


# --- carrying deliveries out ------------------------------------------------------------------


@dataclass
class Worked:
    """What came of carrying deliveries out, in numbers of them."""

    processed: int = 0
    put_off: int = 0
    """They wait for another time: Bland was asked a moment ago, or gave no answer."""
    failed: dict[str, str] = field(default_factory=dict)
    """Given up, by conversation: why."""
    stop: BlandError | None = None
    """Why nothing else was tried: no call can succeed."""


@dataclass(frozen=True)
class _Claim:
    """A conversation that this process copies, and nobody else."""

    delivery_id: int
    conversation_id: str
    newest: int
    """Deliveries up to this one came before Bland is asked, so the copy is as new as they are. By
    their keys and not by the time: two machines never agree on that."""
    attempts: int

    def served(self) -> QuerySet[WebhookDelivery]:
        """All that wait for this copy."""
        return _waiting(self.conversation_id).filter(pk__lte=self.newest)


def process(delivery: WebhookDelivery, *, seconds: float = ASK_SECONDS) -> bool:
    """Copy the conversation that a delivery names, unless somebody does or just did.

    Safe to call at any time, in any number of processes. One GET serves all deliveries of the
    conversation that came before it was sent.

    Returns:
        True when nothing is left to do; else it waits for :func:`process_waiting`.

    Raises:
        RuntimeError: called inside a database transaction.
    """
    refuse_in_transaction()
    due = _due().filter(pk=delivery.pk).first()
    claim = None if due is None else _claim(due)
    if claim is not None:
        _carry_out([claim], _Time(seconds), Worked())
    return not _waiting(delivery.conversation_id).filter(pk=delivery.pk).exists()


def process_waiting(
    *,
    among: Collection[int] | None = None,
    seconds: float | None = None,
    most: int | None = None,
    stopped: threading.Event | None = None,
) -> Worked:
    """Carry out whatever waits and is due, oldest first, some of it side by side.

    Args:
        among: Keys of deliveries; ``None``: all.
        seconds: For all of it. ``None``: as long as it takes.
        most: Conversations to copy at the most.
        stopped: Once set nothing new is begun.

    Raises:
        RuntimeError: called inside a database transaction.
    """
    refuse_in_transaction()
    left, worked = _Time(seconds), Worked()
    claims: list[_Claim] = []
    for number, claim in enumerate(filter(None, map(_claim, _due_ones(among))), start=1):
        claims.append(claim)
        if len(claims) == AT_ONCE or number == most:
            _carry_out(claims, left, worked)
            claims = []
            is_over = worked.stop is not None or left.is_over()
            if is_over or number == most or (stopped is not None and stopped.is_set()):
                break
    if claims:
        _carry_out(claims, left, worked)
    return worked


def reprocess(delivery_ids: Sequence[int], *, seconds: float | None = None) -> Worked:
    """Carry deliveries out again, whatever came of them; those that name nobody are left alone.

    A conversation that was copied within the last minute has its turn when that is over.
    """
    wanted = WebhookDelivery.objects.filter(pk__in=delivery_ids)
    wanted.exclude(state=State.IGNORED).update(
        state=State.RECEIVED, attempts=0, error="", not_before=None, processed_at=None
    )
    worked = process_waiting(among=delivery_ids, seconds=seconds)
    worked.put_off = wanted.filter(state=State.RECEIVED).count()
    return worked


# --- taking -----------------------------------------------------------------------------------


def _waiting(conversation_id: str) -> QuerySet[WebhookDelivery]:
    return WebhookDelivery.objects.filter(conversation_id=conversation_id, state=State.RECEIVED)


def _due() -> QuerySet[WebhookDelivery]:
    now = timezone.now()
    return WebhookDelivery.objects.filter(
        Q(not_before__isnull=True) | Q(not_before__lte=now), state=State.RECEIVED
    )


def _due_ones(among: Collection[int] | None) -> Iterator[WebhookDelivery]:
    """One due delivery of each conversation, oldest first; each conversation once, or one that
    another process is at would never let us end."""
    seen: set[str] = set()
    after = 0
    while True:
        just_asked = Exists(_just_asked().filter(conversation_id=OuterRef("conversation_id")))
        due = _due().filter(~just_asked, pk__gt=after)
        if among is not None:
            due = due.filter(pk__in=among)
        found = list(due.order_by("pk")[:LOOKED_AT])
        for delivery in found:
            after = delivery.pk
            if delivery.conversation_id not in seen:
                seen.add(delivery.conversation_id)
                yield delivery
        if len(found) < LOOKED_AT:
            return


def _just_asked() -> QuerySet[WebhookDelivery]:
    """Deliveries that Bland was asked for within the last minute.

    A time far ahead of ours is another machine's wrong clock, and no reason to wait for it.
    """
    now = timezone.now()
    return WebhookDelivery.objects.filter(asked_at__gt=now - SPACING, asked_at__lt=now + SPACING)


def _claim(delivery: WebhookDelivery) -> _Claim | None:
    """Take a delivery's conversation for a while; ``None``: somebody else is or just was at it.

    What is taken is written before Bland is asked: a process that dies leaves a lease that runs
    out, and an attempt that counts, so a body that kills whoever reads it does so a few times only.
    """
    if _put_off(delivery) or not _take(delivery):
        return None
    own = _own(delivery.pk)
    if _put_off(delivery):  # somebody was at it until a moment ago
        _write(partial(own.update, **_FREE))
        return None
    now = timezone.now()
    if delivery.attempts >= MOST_ATTEMPTS:
        own.update(state=State.FAILED, error="interrupted", processed_at=now, **_FREE)
        return None
    waiting = _waiting(delivery.conversation_id)
    newest = waiting.aggregate(newest=Max("pk"))["newest"] or delivery.pk
    claim = _Claim(delivery.pk, delivery.conversation_id, newest, delivery.attempts + 1)
    _write(partial(claim.served().update, attempts=F("attempts") + 1))
    _write(partial(own.update, asked_at=now))
    return claim


def _put_off(delivery: WebhookDelivery) -> bool:
    """Let a delivery wait until its conversation's minute is over; False: it need not wait."""
    same = _just_asked().filter(conversation_id=delivery.conversation_id)
    asked_at = same.order_by("-asked_at").values_list("asked_at", flat=True).first()
    if asked_at is None:
        return False
    _write(partial(_due().filter(pk=delivery.pk).update, not_before=asked_at + SPACING))
    return True


def _write(write: Callable[[], Result]) -> Result:
    """In a transaction; again after a deadlock, which MariaDB finds where many claim at once."""

    def in_transaction() -> Result:
        with transaction.atomic(using=router.db_for_write(WebhookDelivery)):
            return write()

    return patiently(in_transaction, seconds=DEADLOCK_SECONDS)


def _own(delivery_id: int) -> QuerySet[WebhookDelivery]:
    return WebhookDelivery.objects.filter(pk=delivery_id)


_FREE: dict[str, Any] = {"claimed_conversation": None, "lease_until": None}


def _take(delivery: WebhookDelivery) -> bool:
    now, conversation_id = timezone.now(), delivery.conversation_id
    taken = WebhookDelivery.objects.filter(claimed_conversation=conversation_id)
    _write(partial(taken.filter(lease_until__lte=now).update, **_FREE))
    mine = _due().filter(pk=delivery.pk, claimed_conversation__isnull=True)
    try:
        claim = {"claimed_conversation": conversation_id, "lease_until": now + LEASE}
        return bool(_write(partial(mine.update, **claim)))
    except IntegrityError:
        return False  # by way of another of its deliveries


class _Time:
    """How long a pass may take: nothing is sent in its last fifth, since an answer that nobody
    waits for would count as none. No portion takes longer than a lease lives."""

    def __init__(self, seconds: float | None) -> None:
        now = time.monotonic()
        self._deadline = inf if seconds is None else now + seconds
        self._send_until = inf if seconds is None else now + seconds * 0.8

    def is_over(self) -> bool:
        return time.monotonic() >= self._send_until

    def allowance(self) -> Allowance:
        """For the next portion."""
        now = time.monotonic()
        return Allowance(
            deadline=min(self._deadline, now + ASK_SECONDS),
            send_until=min(self._send_until, now + ASK_SECONDS * 0.8),
        )


# --- asking, and what came of it --------------------------------------------------------------


def _carry_out(claims: Sequence[_Claim], left: _Time, worked: Worked) -> None:
    problems = _copy([claim.conversation_id for claim in claims], left)
    for claim in claims:
        problem = problems.get(claim.conversation_id)
        if isinstance(problem, STOPPING_ERRORS):
            worked.stop = problem
        _write(partial(_settle, claim, problem, worked))


def _copy(conversation_ids: Sequence[str], left: _Time) -> Mapping[str, Exception]:
    """Copy conversations from Bland; of those where it went wrong, why.

    Raises:
        OperationalError: the database is locked or away. The claims run out by themselves.
    """
    if len(conversation_ids) == 1:
        problem = _copy_one(conversation_ids[0], left)
        return {} if problem is None else {conversation_ids[0]: problem}
    try:
        refreshed = refresh_many(conversation_ids, allowance=left.allowance())
    except BlandConfigurationError as error:
        return dict.fromkeys(conversation_ids, error)
    except OperationalError:
        raise
    except _REFUSED_BY_DATABASE:
        # One of them is poison. Each by itself, it harms no other.
        alone = {pk: _copy_one(pk, left) for pk in conversation_ids}
        return {pk: problem for pk, problem in alone.items() if problem is not None}
    missing = BlandNotFoundError(404, NOT_FOUND)
    return {**dict.fromkeys(refreshed.missing, missing), **refreshed.failed}


def _copy_one(conversation_id: str, left: _Time) -> Exception | None:
    try:
        refresh(conversation_id, allowance=left.allowance())
    except BlandError as error:
        return error
    except OperationalError:
        raise
    except _REFUSED_BY_DATABASE as error:
        logger.warning("conversation %s could not be stored", conversation_id)
        return error
    return None


def _settle(claim: _Claim, problem: Exception | None, worked: Worked) -> None:
    """Write what came of one copy, for all deliveries that it serves."""
    code = "" if problem is None else getattr(problem, "code", "not_stored")
    if code:
        logger.info("conversation %s: %s", claim.conversation_id, code)
    now, served, own = timezone.now(), claim.served(), _own(claim.delivery_id)
    own.update(**_FREE)
    uncharged = Greatest(F("attempts") - 1, Value(0))
    if problem is None or isinstance(problem, BlandNotFoundError):
        worked.processed += served.update(
            state=State.PROCESSED, processed_at=now, not_before=None, error=code
        )
    elif isinstance(problem, BlandNotSentError):
        own.update(asked_at=None)
        worked.put_off += served.update(attempts=uncharged)
    elif isinstance(problem, STOPPING_ERRORS):
        worked.put_off += served.update(attempts=uncharged, not_before=now + SPACING, error=code)
    else:
        is_passing = isinstance(problem, (*_PASSING_ERRORS, *_REFUSED_BY_DATABASE))
        hopeless = served.filter(attempts__gte=MOST_ATTEMPTS if is_passing else 0)
        if hopeless.update(state=State.FAILED, processed_at=now, not_before=None, error=code):
            worked.failed[claim.conversation_id] = code
        not_before = now + _pause(claim.attempts, problem)
        worked.put_off += served.update(not_before=not_before, error=code)


def _pause(attempts: int, problem: Exception) -> timedelta:
    """A minute, two, four ... up to an hour; or what Bland asked for, up to a day."""
    asked_for = timedelta(seconds=0)
    if isinstance(problem, BlandError) and problem.retry_after_seconds is not None:
        seconds = min(problem.retry_after_seconds, LONGEST_WAIT.total_seconds())
        asked_for = timedelta(seconds=seconds)
    return max(asked_for, min(SPACING * (1 << (attempts - 1)), LONGEST_PAUSE))
