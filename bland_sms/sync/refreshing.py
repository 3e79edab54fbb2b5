"""Copies single conversations with their messages, one or many side by side."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

from django.db import DatabaseError

from ..client import get_client, taking_part
from ..database import patiently, refuse_in_transaction, write_bisecting
from ..exceptions import (
    STOPPING_ERRORS,
    TRANSIENT_ERRORS,
    BlandError,
    BlandNotFoundError,
    BlandNotSentError,
    GaveUp,
)
from ..mirror import Effect, apply_page, mark_missing, shown_together
from ..pacing import Allowance, RetryBudget
from ..payloads import ConversationPayload
from ..threads import Pool

TURN_SECONDS = 1.0
AT_ONCE, WRITE_SECONDS = 50, 0.25
"""Written in one transaction at most, and so long they wait for others at most."""
AHEAD = 2
"""Requests in flight and waiting, for each thread: the rest is not begun if Bland is down."""


def refresh(conversation_id: str, *, allowance: Allowance | None = None) -> Effect:
    """Copy one conversation and its messages from Bland.

    Raises:
        BlandNotFoundError: this account has no such conversation; the row remembers it.
        BlandError: any other failure; nothing changed.
        RuntimeError: called inside a database transaction.
    """
    refuse_in_transaction()
    try:
        payload = get_client().get_conversation(conversation_id, allowance=allowance)
    except BlandNotFoundError as error:
        if error.observed_at is not None:
            mark_missing(conversation_id, error.observed_at)
        raise
    return apply_page([payload], settle=True)[payload.id].outcome


@dataclass
class Refreshed:
    """What became of several conversations that were to be copied."""

    came: set[str] = field(default_factory=set)
    """Bland told them; they are written a moment later."""
    copied: dict[str, Effect] = field(default_factory=dict)
    missing: dict[str, BlandNotFoundError] = field(default_factory=dict)
    failed: dict[str, BlandError] = field(default_factory=dict)
    """By id; :class:`BlandNotSentError` where the time was up or Bland does not answer."""
    outage: BlandError | None = None
    """The failure that used up the retry budget: the rest was not asked for."""


@taking_part()
def refresh_many(
    conversation_ids: Sequence[str],
    *,
    seconds: float | None = None,
    allowance: Allowance | None = None,
    mark: bool = True,
    on_turn: Callable[[Refreshed], None] = lambda refreshed: None,
    on_refused: Callable[[str], None] | None = None,
) -> Refreshed:
    """Copy several conversations side by side; one that fails does not stop the others.

    All share one retry budget. When it is used up Bland is down, and no more are asked for.

    Args:
        seconds: For all of them; ``None``: as long as the allowance, or as it takes.
        mark: Whether those that Bland does not find are marked as missing.
        on_turn: Called at least each second, in this thread.
        on_refused: Called with the id of a row that the database refuses; ``None``: the error is
            raised.

    Raises:
        BlandConfigurationError: there is no usable key, base URL or CA bundle.
        RuntimeError: called inside a database transaction.
    """
    refuse_in_transaction()
    client = get_client()
    if allowance is None:
        allowance = Allowance() if seconds is None else Allowance.of_seconds(seconds)
    if allowance.budget is None:
        allowance.budget = RetryBudget()

    def ask(conversation_id: str) -> ConversationPayload:
        try:
            return client.get_conversation(conversation_id, allowance=allowance)
        except STOPPING_ERRORS:
            allowance.stopped.set()  # here: this thread's next request would not wait for it
            raise

    refreshed = Refreshed()
    copies = _Copies(refreshed, on_refused)
    waiting = iter(dict.fromkeys(conversation_ids))
    asked: dict[Future[ConversationPayload], str] = {}
    with Pool(client.settings.max_concurrency) as pool, shown_together():
        try:
            while True:
                if refreshed.outage is None:
                    room = AHEAD * client.settings.max_concurrency - len(asked)
                    for pk in itertools.islice(waiting, max(0, room)):
                        asked[pool.submit(ask, pk)] = pk
                if not asked:
                    break
                for future in pool.wait(asked, TURN_SECONDS):
                    _collect(refreshed, asked.pop(future), future, allowance, copies)
                copies.write_in_time()
                if refreshed.outage is not None:
                    _recall(asked, refreshed)
                on_turn(refreshed)
            copies.write()
        except BaseException:
            allowance.stopped.set()
            raise
    refreshed.failed.update({pk: _not_asked(refreshed.outage) for pk in waiting})
    if mark:
        for conversation_id, error in refreshed.missing.items():
            if error.observed_at is not None:
                mark_missing(conversation_id, error.observed_at)
    copies.raise_refused()
    return refreshed


def _recall(asked: dict[Future[ConversationPayload], str], refreshed: Refreshed) -> None:
    """Take back what no thread has begun with."""
    for future in [future for future in asked if future.cancel()]:
        refreshed.failed[asked.pop(future)] = _not_asked(refreshed.outage)


def _not_asked(outage: BlandError | None) -> BlandNotSentError:
    is_limited = outage is not None and outage.status_code == 429
    if is_limited:
        return BlandNotSentError("rate_limited")
    return BlandNotSentError("outage")


def _collect(
    refreshed: Refreshed,
    conversation_id: str,
    future: Future[ConversationPayload],
    allowance: Allowance,
    copies: _Copies,
) -> None:
    try:
        copies.waiting.append(future.result())
        refreshed.came.add(conversation_id)
    except BlandNotFoundError as error:
        refreshed.missing[conversation_id] = error
    except BlandError as error:
        if isinstance(error, TRANSIENT_ERRORS) and _is_outage(error, allowance):
            refreshed.outage = error
        refreshed.failed[conversation_id] = error


def _is_outage(error: BlandError, allowance: Allowance) -> bool:
    """Whether the retry budget is used up. What is never retried takes its share of it too."""
    if error.gave_up is GaveUp.BUDGET:
        return True
    is_single = error.gave_up is GaveUp.ATTEMPTS and get_client().settings.max_retries == 0
    return (is_single or error.gave_up is GaveUp.PATIENCE) and not allowance.may_retry()


class _Copies:
    """Conversations that came and are not written yet: several in one transaction."""

    def __init__(self, refreshed: Refreshed, on_refused: Callable[[str], None] | None) -> None:
        self.refreshed = refreshed
        self.on_refused = on_refused
        self.refused: Exception | None = None
        self.waiting: list[ConversationPayload] = []
        self.write_at = time.monotonic() + WRITE_SECONDS

    def write_in_time(self) -> None:
        """Write if they are many, or have waited long enough."""
        if len(self.waiting) >= AT_ONCE or time.monotonic() > self.write_at:
            self.write()

    def write(self) -> None:
        copies, self.waiting = self.waiting, []
        is_waited_for = self.on_refused is None  # by a person, whom a database away is told at once
        apply = self._apply if is_waited_for else self._apply_patiently
        write_bisecting(copies, apply, self._refuse)
        self.write_at = time.monotonic() + WRITE_SECONDS

    def _apply(self, copies: Sequence[ConversationPayload]) -> None:
        for pk, applied in apply_page(copies, settle=True).items():
            self.refreshed.copied[pk] = applied.outcome

    def _apply_patiently(self, copies: Sequence[ConversationPayload]) -> None:
        patiently(partial(self._apply, copies))

    def _refuse(self, payload: ConversationPayload, error: DatabaseError) -> None:
        if self.on_refused is None:
            self.refused = self.refused or error
        else:
            self.on_refused(payload.id)

    def raise_refused(self) -> None:
        """Raise what the database refused, after all others are written."""
        if self.refused is not None:
            raise self.refused
