"""Which deliveries are due, and the claim that lets one process at a time copy a conversation.

A claim is a lease: it ends by itself when its process crashes. A crash is counted, but not
charged as an attempt, and a conversation whose copying crashed a process is copied alone from then
on. So a conversation that crashes each process is given up without any other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TypeVar

from django.db import Error, IntegrityError, OperationalError
from django.db.models import Exists, F, Max, OuterRef, Q, QuerySet
from django.utils import timezone

from ..database import (
    batches,
    discard_connection,
    is_lock_timeout,
    not_locked,
    patiently,
    using,
    write_transaction,
)
from ..models import WebhookDelivery
from .settling import (
    CRASHED,
    FREE,
    LONGEST_WAIT,
    NOT_STORED,
    SPACING,
    WRONG_CLOCK,
    Claimed,
    kept,
    settle,
)

logger = logging.getLogger("bland_sms.deliveries")

State = WebhookDelivery.State

MOST_CRASHES = 8
"""A delivery is given up after this number of processes that crashed while they copied it."""
DEADLOCK_SECONDS = 1.0
ROWS_PER_QUERY = 200

Result = TypeVar("Result")


@contextmanager
def claim(deliveries: Iterable[WebhookDelivery]) -> Iterator[list[Claimed]]:
    """Claim the conversations of some deliveries, as far as no other process has them.

    What the block leaves in ``problem`` of each decides what becomes of its deliveries. When the
    block raises, they wait as before.

    Raises:
        DatabaseError, InterfaceError: the result was not written; the leases end by themselves.
    """
    claimed: list[Claimed] = []
    try:
        for delivery in deliveries:
            one = _take(delivery)
            if one is not None:
                claimed.append(one)
        yield claimed
    except BaseException as error:
        if not isinstance(error, Exception):  # raised at any moment, such as by a time limit
            discard_connection(using(WebhookDelivery))
        for one in claimed:
            _give_back(one)
        raise
    for one in claimed:
        _write(lambda one=one: settle(one))  # type: ignore[misc]


def due_portions(
    among: Collection[int] | None, *, size: int, first: int, most: int | None
) -> Iterator[list[WebhookDelivery]]:
    """One due delivery of each conversation, in portions to be copied side by side.

    Conversations whose copying a process did not survive come last, the fewest crashes first, and
    each in a portion of its own.

    Args:
        among: Keys of deliveries; ``None``: all.
        size: Deliveries in a portion.
        first: The same of the first one.
        most: Deliveries in all; ``None``: no limit.
    """
    crashes, suspects = _crashes(), []
    portion: list[WebhookDelivery] = []
    given = 0
    for delivery in _due_deliveries(among):
        if delivery.conversation_id in crashes:
            suspects.append(delivery)
            continue
        portion.append(delivery)
        given += 1
        if len(portion) == (first if given <= first else size) or given == most:
            yield portion
            portion = []
            if given == most:
                return
    if portion:
        yield portion
    suspects.sort(key=lambda delivery: (crashes[delivery.conversation_id], delivery.pk))
    for delivery in suspects if most is None else suspects[: most - given]:
        yield [delivery]


def recover(conversation_id: str | None = None) -> list[str]:
    """Free what crashed processes had claimed, and give up deliveries that crash every process.

    Args:
        conversation_id: Of this conversation only; ``None``: of all.

    Returns:
        The conversations whose deliveries were given up.
    """
    rows = WebhookDelivery.objects.all()
    if conversation_id is not None:
        rows = rows.filter(conversation_id=conversation_id)
    lapsed = rows.filter(WebhookDelivery.unleased(), claimed_conversation__isnull=False)
    for delivery in lapsed:
        _write(lambda delivery=delivery: _note_crash(delivery))  # type: ignore[misc]
    hopeless = rows.filter(state=State.RECEIVED, crashes__gte=MOST_CRASHES)
    found = dict(hopeless.values_list("pk", "conversation_id"))
    for some in batches(list(found)):
        hopeless.filter(pk__in=some).update(
            state=State.FAILED, **kept(CRASHED), processed_at=timezone.now(), not_before=None
        )
    return list(dict.fromkeys(found.values()))


def outage_seen_at() -> datetime | None:
    """When Bland last gave no answer, if nothing but that happened of late; else ``None``."""
    now = timezone.now()
    asked = WebhookDelivery.objects.filter(
        asked_at__gt=now - timedelta(hours=1), asked_at__lte=now, claimed_conversation__isnull=True
    )
    newest = list(
        asked.order_by("-asked_at").values_list(
            "conversation_id", "state", "error", "asked_at", "put_off_at"
        )[:9]
    )
    for _conversation_id, state, error, *_times in newest:
        if state != State.RECEIVED or error in ("", NOT_STORED.code, WRONG_CLOCK.code):
            return None
    if len({row[0] for row in newest}) < 3:
        return None
    # A job that is refused again and again may take longer than the pause after it.
    times = [moment for moment in newest[0][3:] if moment is not None and moment <= now]
    return max(times)


# --- what is due ------------------------------------------------------------------------------


def waiting(conversation_id: str) -> QuerySet[WebhookDelivery]:
    """The deliveries of a conversation that wait for a copy, due or not."""
    return WebhookDelivery.objects.filter(conversation_id=conversation_id, state=State.RECEIVED)


def workable() -> dict[str, QuerySet[WebhookDelivery]]:
    """Deliveries whose conversation could be claimed now, and those whose process has crashed."""
    rows = WebhookDelivery.objects.all()
    is_dead = WebhookDelivery.unleased()
    claimed = rows.exclude(is_dead).filter(claimed_conversation=OuterRef("conversation_id"))
    just_asked = _just_asked().filter(conversation_id=OuterRef("conversation_id"))
    return {
        "due": rows.filter(_is_due(), ~Exists(just_asked), ~Exists(claimed)),
        "crashed": rows.filter(is_dead, claimed_conversation__isnull=False),
    }


def _is_due() -> Q:
    now = timezone.now()
    # Either was written by a clock that is ahead of this one.
    is_wrong = Q(put_off_at__gt=now) | Q(not_before__gt=now + LONGEST_WAIT + SPACING)
    is_over = Q(not_before__isnull=True) | Q(not_before__lte=now)
    return Q(is_over | is_wrong, state=State.RECEIVED)


def _just_asked() -> QuerySet[WebhookDelivery]:
    """Deliveries for which Bland was asked within the last minute. A time that lies ahead of now
    is another machine's wrong clock, and no reason to wait."""
    now = timezone.now()
    return WebhookDelivery.objects.filter(asked_at__gt=now - SPACING, asked_at__lte=now)


def _due_deliveries(among: Collection[int] | None) -> Iterator[WebhookDelivery]:
    """One due delivery of each conversation, oldest first; each conversation once, or one that
    another process copies would never let us end."""
    seen: set[str] = set()
    after = 0
    while True:
        just_asked = Exists(_just_asked().filter(conversation_id=OuterRef("conversation_id")))
        due = WebhookDelivery.objects.filter(_is_due(), ~just_asked, pk__gt=after)
        if among is not None:
            due = due.filter(pk__in=among)
        found = list(due.order_by("pk")[:ROWS_PER_QUERY])
        for delivery in found:
            after = delivery.pk
            if delivery.conversation_id not in seen:
                seen.add(delivery.conversation_id)
                yield delivery
        if len(found) < ROWS_PER_QUERY:
            return


def _crashes() -> dict[str, int]:
    """How many processes crashed while they copied a conversation, where any did."""
    crashed = Q(state=State.RECEIVED, crashes__gt=0) | Q(state=State.FAILED, error=CRASHED.code)
    rows = WebhookDelivery.objects.filter(crashed).order_by().values_list("conversation_id")
    return dict(rows.annotate(most=Max("crashes")))


# --- taking, and giving back ------------------------------------------------------------------


def _take(delivery: WebhookDelivery) -> Claimed | None:
    conversation_id = delivery.conversation_id
    asked = _just_asked().filter(conversation_id=conversation_id)
    if _put_off(delivery, asked) or not _write(lambda: _take_lease(delivery)):
        return None
    if _put_off(delivery, asked.exclude(pk=delivery.pk)):  # another process was a moment quicker
        _write(lambda: delivery.release_lease(asked_at=None, **FREE))
        return None
    return Claimed(delivery, list(waiting(conversation_id).values_list("pk", flat=True)))


def _take_lease(delivery: WebhookDelivery) -> bool:
    try:
        with write_transaction(WebhookDelivery):
            return delivery.take_lease(
                _is_due(),
                Q(claimed_conversation__isnull=True),
                claimed_conversation=delivery.conversation_id,
                asked_at=timezone.now(),
            )
    except (IntegrityError, OperationalError) as error:
        # Another process holds it through another of its deliveries, or is about to.
        if isinstance(error, IntegrityError) or is_lock_timeout(error):
            return False
        raise


def _is_free(rows: QuerySet[WebhookDelivery]) -> bool:
    """Whether there is one of the rows that no other process has locked."""
    return bool(not_locked(rows).values_list("pk", flat=True))


def _put_off(delivery: WebhookDelivery, asked: QuerySet[WebhookDelivery]) -> bool:
    """Let a delivery wait until its conversation's minute is over; False: it need not wait."""
    asked_at = asked.order_by("-asked_at").values_list("asked_at", flat=True).first()
    if asked_at is None:
        return False
    due = WebhookDelivery.objects.filter(_is_due(), pk=delivery.pk)
    values = {"not_before": asked_at + SPACING, "put_off_at": timezone.now()}
    _write(lambda: _is_free(due) and due.update(**values))
    return True


def _give_back(claimed: Claimed) -> None:
    """As if it had never been claimed."""
    try:
        _write(lambda: claimed.delivery.release_lease(asked_at=None, **FREE))
    except Error as error:
        logger.warning(
            "the claim on conversation %s ends by itself: %s",
            claimed.delivery.conversation_id,
            type(error).__name__,
        )


def _note_crash(delivery: WebhookDelivery) -> None:
    lapsed = WebhookDelivery.objects.filter(
        WebhookDelivery.unleased(), pk=delivery.pk, claimed_conversation__isnull=False
    )
    # Counted by one process only.
    if _is_free(lapsed) and lapsed.update(lease_token=None, lease_until=None, **FREE):
        waiting(delivery.conversation_id).update(crashes=F("crashes") + 1)
        logger.warning("a process crashed while it copied %s", delivery.conversation_id)


def _write(write: Callable[[], Result]) -> Result:
    """In a transaction; again after a deadlock, which MariaDB finds where many claim at once."""

    def in_transaction() -> Result:
        with write_transaction(WebhookDelivery):
            return write()

    return patiently(in_transaction, seconds=DEADLOCK_SECONDS)
