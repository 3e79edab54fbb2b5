"""One conversation: ask Bland, look where the answer leaves it open, never touch the database.

Runs in threads. Every question to Bland about an item is asked here.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from ..client import BlandClient
from ..exceptions import (
    STOPPING_ERRORS,
    TRANSIENT_ERRORS,
    BlandConnectionError,
    BlandError,
    BlandNotFoundError,
    BlandNotSentError,
    BlandPayloadError,
    GaveUp,
)
from ..pacing import MAX_PAUSE_SECONDS, Allowance
from ..payloads import ConversationPayload, UpdatePayload

logger = logging.getLogger("bland_sms.updates")


class Verdict(enum.Enum):
    """What asking about one item led to."""

    CONFIRMED = "confirmed"
    FAILED = "failed"
    NOT_FOUND = "not_found"
    """Failed too; whether the conversation is missing takes a second look."""
    UNKNOWN = "unknown"
    ADOPTED = "adopted"
    """Looked up, since the mirror did not have it. It is asked once its state is stored."""
    WAITING = "waiting"
    """Not attempted, or not to the end: asked again another time."""


@dataclass(frozen=True, slots=True)
class ClaimedItem:
    """One claimed item and what the mirror knew when it was claimed."""

    item_id: int
    conversation_id: str
    is_active: bool
    """What is asked."""
    attempts: int
    look_first: bool
    previous_is_active: bool | None
    """What the row held before we first asked. ``None``: the mirror has no such row."""
    known_updated_at: datetime | None
    until: datetime | None = None
    """Nothing is sent after it. ``None``: at any time."""


@dataclass(slots=True)
class Outcome:
    """What became of a claimed item, to be written by the driving thread."""

    item: ClaimedItem
    verdict: Verdict = Verdict.WAITING
    payloads: list[ConversationPayload | UpdatePayload] = field(default_factory=list)
    requests: int = 0
    """Updates sent, retries included."""
    is_charged: bool = False
    """Although it waits: an update was sent, and its time ran out before Bland answered."""
    http_status: int | None = None
    error_code: str = ""
    error_params: dict[str, Any] = field(default_factory=dict)
    message: str = ""
    """Bland's own words."""
    retry_after_seconds: float | None = None
    missing_at: datetime | None = None
    """When the GET was sent that Bland answered with CONVERSATION_NOT_FOUND."""
    stop: BlandError | None = None
    """No other item can succeed either."""
    is_outage: bool = False
    """Bland cannot be reached, or not often enough."""
    found_is_active: bool | None = None
    """What a conversation was that the mirror did not have."""
    in_doubt: bool = False
    """Bland may have done what is asked, now or when it was asked before."""


class Next(enum.Enum):
    """What follows from a question that failed."""

    STOP = "stop"
    NOT_SENT = "not sent"
    WAIT = "wait"
    PUT_OFF = "put off"
    """Wait until the time that Bland named."""
    OUTAGE = "outage"
    LOOK = "look"
    """One GET settles it."""
    NOT_FOUND = "not found"
    FAIL = "fail"
    UNKNOWN = "unknown"


def next_step(
    error: BlandError, *, was_in_doubt: bool, may_retry: Callable[[], bool]
) -> tuple[Next, bool]:
    """What follows from a failed question about an item, and whether this is an outage as well.

    Args:
        was_in_doubt: The question was a look at an item that Bland may have done already. A
            refusal of that look says nothing about it.
        may_retry: Takes a request out of the retry budget.
    """
    if isinstance(error, STOPPING_ERRORS):
        return Next.STOP, False
    if isinstance(error, BlandNotSentError):
        return Next.NOT_SENT, False
    if isinstance(error, BlandNotFoundError):
        return Next.NOT_FOUND, False
    if isinstance(error, BlandPayloadError):
        return (Next.UNKNOWN if was_in_doubt else Next.LOOK), False
    if not isinstance(error, TRANSIENT_ERRORS):
        return (Next.UNKNOWN if was_in_doubt else Next.FAIL), False
    if error.gave_up is GaveUp.BUDGET:
        return Next.OUTAGE, True
    if error.gave_up is GaveUp.PATIENCE:
        # When Bland puts off one row after another, that is an outage too.
        return Next.PUT_OFF, not may_retry()
    if error.gave_up is GaveUp.TIME:
        # Cut off by the end of a slice. Slice after slice of it is an outage, but for a 429: Bland
        # lives, and the budget counts its refusals by itself.
        return Next.WAIT, error.status_code != 429 and not may_retry()
    if isinstance(error, BlandConnectionError):
        return Next.OUTAGE, True
    if error.retry_after_seconds is not None and error.retry_after_seconds > MAX_PAUSE_SECONDS:
        return Next.PUT_OFF, False
    if was_in_doubt:
        return (Next.UNKNOWN, False) if may_retry() else (Next.OUTAGE, True)
    if error.status_code == 429:
        return Next.FAIL, False
    return (Next.LOOK, False) if may_retry() else (Next.OUTAGE, True)


def ask(client: BlandClient, item: ClaimedItem, allowance: Allowance) -> Outcome:
    """Bring one conversation to what is asked, or find out why not. Raises nothing of Bland's."""
    outcome = Outcome(item, in_doubt=item.look_first)
    is_look = item.look_first or item.previous_is_active is None
    try:
        if is_look:
            detail = client.get_conversation(item.conversation_id, allowance=allowance)
            outcome.payloads.append(detail)
            if item.look_first and detail.is_active is item.is_active:
                _confirm(outcome)
                return outcome
            if item.previous_is_active is None and detail.is_active is not None:
                outcome.verdict = Verdict.ADOPTED
                outcome.found_is_active = detail.is_active
                return outcome
            outcome.in_doubt = False
        _update(client, outcome, allowance)
    except BlandError as error:
        outcome.in_doubt |= allowance.in_doubt
        _settle(client, outcome, error, allowance)
    outcome.requests = allowance.sent["PATCH"]
    return outcome


def confirm_missing(client: BlandClient, outcome: Outcome, allowance: Allowance) -> Outcome:
    """Bland did not find it: only a GET that says so as well is a reason to mark the row."""
    if outcome.missing_at is None:
        try:
            outcome.payloads.append(
                client.get_conversation(outcome.item.conversation_id, allowance=allowance.once())
            )
        except BlandNotFoundError as error:
            outcome.missing_at = error.observed_at
        except BlandError as error:
            _note_stop(outcome, error, allowance)
    # An item that is in doubt stays so: "not found" does not say what became of it.
    outcome.verdict = Verdict.UNKNOWN if outcome.in_doubt else Verdict.FAILED
    return outcome


def fault_of_ours(item: ClaimedItem) -> Outcome:
    """What is said of an item when asking about it ended in an error of our own."""
    return Outcome(item, Verdict.UNKNOWN, error_code="error", in_doubt=True)


def _update(client: BlandClient, outcome: Outcome, allowance: Allowance) -> None:
    item = outcome.item
    answer = client.update_conversation(
        item.conversation_id, is_active=item.is_active, allowance=allowance
    )
    outcome.message = answer.message
    if answer.id not in (None, item.conversation_id) or answer.is_active is not item.is_active:
        # Another conversation's answer, or one that does not say what was asked.
        outcome.error_params = {"cause": "not_confirmed"}
        _look(client, outcome, allowance, contradiction="not_applied")
        return
    _confirm(outcome)
    outcome.payloads.append(replace(answer, id=item.conversation_id))
    if answer.updated_at is None or _is_older(answer.updated_at, item):
        # Confirmed all the same; the look is for the row, which takes nothing without an age.
        try:
            detail = client.get_conversation(item.conversation_id, allowance=allowance.once())
        except BlandError as error:
            _note_stop(outcome, error, allowance)
        else:
            outcome.payloads.append(detail)


def _is_older(updated_at: datetime, item: ClaimedItem) -> bool:
    return (
        item.known_updated_at is not None
        and updated_at < item.known_updated_at
        and item.previous_is_active is not item.is_active
    )


def _look(
    client: BlandClient, outcome: Outcome, allowance: Allowance, *, contradiction: str
) -> None:
    """Settle it by one GET: confirmed, failed with ``contradiction``, or unknown."""
    outcome.verdict = Verdict.UNKNOWN
    outcome.error_code = contradiction
    try:
        detail = client.get_conversation(outcome.item.conversation_id, allowance=allowance.once())
    except BlandNotFoundError as error:
        outcome.missing_at = error.observed_at
        _describe(outcome, error)
    except BlandNotSentError:
        _wait_in_doubt(outcome)
    except BlandError as error:
        _note_stop(outcome, error, allowance)
        if not allowance.may_send():
            _wait_in_doubt(outcome)
    else:
        outcome.payloads.append(detail)
        if detail.is_active is outcome.item.is_active:
            _confirm(outcome)
        elif detail.is_active is not None:
            outcome.verdict = Verdict.FAILED
            if contradiction == "not_applied":
                outcome.error_params = {}


def _settle(client: BlandClient, outcome: Outcome, error: BlandError, allowance: Allowance) -> None:
    """Write down what follows from a failed question, and look at Bland where that settles it."""
    _describe(outcome, error)
    is_look = not allowance.sent["PATCH"]
    step, outcome.is_outage = next_step(
        error,
        was_in_doubt=is_look and outcome.in_doubt,
        may_retry=allowance.may_retry,
    )
    if step is Next.FAIL and outcome.in_doubt:
        step = Next.LOOK  # this request was refused, but an earlier one may have been obeyed
    _note_stop(outcome, error, allowance)
    if step in (Next.STOP, Next.NOT_SENT, Next.WAIT, Next.PUT_OFF, Next.OUTAGE):
        outcome.error_code = "no_answer" if outcome.in_doubt else ""
        outcome.is_charged = error.gave_up is GaveUp.TIME and not is_look and outcome.in_doubt
        if step is Next.PUT_OFF:
            outcome.retry_after_seconds = error.retry_after_seconds
    elif step is Next.NOT_FOUND:
        outcome.verdict = Verdict.NOT_FOUND
        if is_look:
            outcome.missing_at = error.observed_at
    elif step is Next.FAIL:
        outcome.verdict = Verdict.FAILED
    elif step is Next.UNKNOWN:
        outcome.verdict = Verdict.UNKNOWN
    elif step is Next.LOOK:
        _look(client, outcome, allowance, contradiction=outcome.error_code)


def _wait_in_doubt(outcome: Outcome) -> None:
    outcome.verdict, outcome.error_code = Verdict.WAITING, "no_answer"
    outcome.is_charged = True


def _note_stop(outcome: Outcome, error: BlandError, allowance: Allowance) -> None:
    if isinstance(error, STOPPING_ERRORS):
        # Here and not in the driving thread: each moment costs Bland another refusal.
        allowance.stopped.set()
        outcome.stop = error


def _describe(outcome: Outcome, error: BlandError) -> None:
    outcome.http_status = error.status_code
    outcome.error_code, outcome.error_params = error.code, error.own_params
    outcome.message = error.message


def _confirm(outcome: Outcome) -> None:
    outcome.verdict = Verdict.CONFIRMED
    outcome.http_status, outcome.error_code, outcome.error_params = 200, "", {}
