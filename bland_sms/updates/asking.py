"""One conversation: ask Bland, look where the answer leaves it open, never touch the database.

Runs in threads. Every question to Bland about an item is asked here.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from datetime import datetime

from ..client import BlandClient
from ..exceptions import (
    STOPPING_ERRORS,
    TRANSIENT_ERRORS,
    BlandConnectionError,
    BlandError,
    BlandNotFoundError,
    BlandNotSentError,
    BlandOutcomeUnknownError,
    GaveUp,
)
from ..pacing import MAX_PAUSE_SECONDS, Allowance
from ..payloads import ConversationPayload, UpdatePayload

LOOK_FIRST_CODES = {"interrupted", "no_answer"}
"""An item that waits with one of these was in flight: Bland may have done it already."""


class Verdict(enum.Enum):
    """What asking about one item led to."""

    CONFIRMED = "confirmed"
    FAILED = "failed"
    NOT_FOUND = "not_found"
    """Failed too; whether the conversation is missing takes a second look."""
    UNKNOWN = "unknown"
    WAITING = "waiting"
    """Not attempted, or not to the end: asked again another time."""


@dataclass(frozen=True, slots=True)
class Task:
    """One claimed item and what the mirror knew when it was claimed."""

    item_id: int
    conversation_id: str
    is_active: bool
    """What is asked."""
    attempts: int
    look_first: bool
    known_is_active: bool | None
    """``None``: the mirror has no such row; it is looked up and adopted."""
    known_updated_at: datetime | None


@dataclass(slots=True)
class Result:
    """What became of a task, to be written by the driving thread."""

    task: Task
    verdict: Verdict = Verdict.WAITING
    payloads: list[ConversationPayload | UpdatePayload] = field(default_factory=list)
    requests: int = 0
    """Updates sent, retries included."""
    http_status: int | None = None
    error_code: str = ""
    message: str = ""
    retry_after_seconds: float | None = None
    missing_at: datetime | None = None
    """When the GET was sent that Bland answered with CONVERSATION_NOT_FOUND."""
    stop: BlandError | None = None
    """No other item can succeed either."""
    is_outage: bool = False
    """Bland cannot be reached, or not often enough."""


def ask(client: BlandClient, task: Task, allowance: Allowance) -> Result:
    """Bring one conversation to what is asked, or find out why not. Raises nothing of Bland's."""
    result = Result(task)
    try:
        if task.look_first or task.known_is_active is None:
            detail = client.get_conversation(task.conversation_id, allowance=allowance)
            result.payloads.append(detail)
            if task.look_first and detail.is_active is task.is_active:
                _confirm(result)
                return result
        _update(client, result, allowance)
    except BlandError as error:
        _settle_failure(client, result, error, allowance)
    result.requests = allowance.sent["PATCH"]
    return result


def confirm_missing(client: BlandClient, result: Result, allowance: Allowance) -> Result:
    """Bland did not find it: only a GET that says so as well is a reason to mark the row."""
    try:
        result.payloads.append(
            client.get_conversation(result.task.conversation_id, allowance=allowance.once())
        )
    except BlandNotFoundError as error:
        result.missing_at = error.observed_at
    except BlandError as error:
        _note_stop(result, error, allowance)
    result.verdict = Verdict.FAILED
    return result


def _update(client: BlandClient, result: Result, allowance: Allowance) -> None:
    task = result.task
    answer = client.update_conversation(
        task.conversation_id, is_active=task.is_active, allowance=allowance
    )
    result.message = answer.message
    if answer.id not in (None, task.conversation_id) or answer.is_active is not task.is_active:
        # Another conversation's answer, or one that does not say what was asked.
        _look(client, result, allowance, contradiction="not_applied")
        return
    _confirm(result)
    result.payloads.append(replace(answer, id=task.conversation_id))
    if answer.updated_at is None or _is_older(answer.updated_at, task):
        # Confirmed all the same; the look is for the row, which takes nothing without an age.
        try:
            detail = client.get_conversation(task.conversation_id, allowance=allowance.once())
        except BlandError as error:
            _note_stop(result, error, allowance)
        else:
            result.payloads.append(detail)


def _is_older(updated_at: datetime, task: Task) -> bool:
    return (
        task.known_updated_at is not None
        and updated_at < task.known_updated_at
        and task.known_is_active is not task.is_active
    )


def _look(client: BlandClient, result: Result, allowance: Allowance, *, contradiction: str) -> None:
    """Settle it by one GET: confirmed, failed with ``contradiction``, or unknown."""
    result.verdict = Verdict.UNKNOWN
    result.error_code = contradiction
    try:
        detail = client.get_conversation(result.task.conversation_id, allowance=allowance.once())
    except BlandNotFoundError as error:
        result.verdict = Verdict.NOT_FOUND
        _describe(result, error)
    except BlandNotSentError:
        result.verdict, result.error_code = Verdict.WAITING, "no_answer"
    except BlandError as error:
        _note_stop(result, error, allowance)
    else:
        result.payloads.append(detail)
        if detail.is_active is result.task.is_active:
            _confirm(result)
        elif detail.is_active is not None:
            result.verdict = Verdict.FAILED


def _settle_failure(
    client: BlandClient, result: Result, error: BlandError, allowance: Allowance
) -> None:
    """Sort a failed question by what comes next: stop, wait, look, or the row's own failure."""
    _describe(result, error)
    _note_stop(result, error, allowance)
    if result.stop is not None:
        return
    if isinstance(error, BlandNotSentError):
        result.error_code = "no_answer" if result.task.look_first else ""
        return
    if isinstance(error, BlandNotFoundError):
        result.verdict = Verdict.NOT_FOUND
        return
    if not isinstance(error, TRANSIENT_ERRORS):
        result.verdict = Verdict.FAILED
    elif error.gave_up is GaveUp.BUDGET:
        result.is_outage = True
        _wait(result, error)
    elif error.gave_up is not GaveUp.ATTEMPTS:
        result.retry_after_seconds = error.retry_after_seconds
        # When Bland puts off one row after another, that is an outage too.
        result.is_outage = error.gave_up is GaveUp.PATIENCE and not allowance.may_retry()
        _wait(result, error)
    elif isinstance(error, BlandConnectionError):
        result.is_outage = True
    elif error.retry_after_seconds is not None and error.retry_after_seconds > MAX_PAUSE_SECONDS:
        result.retry_after_seconds = error.retry_after_seconds
        _wait(result, error)
    elif error.status_code == 429:
        result.verdict = Verdict.FAILED
    elif allowance.may_retry():
        _look(client, result, allowance, contradiction=result.error_code)
    else:
        result.is_outage = True
        _wait(result, error)


def _wait(result: Result, error: BlandError) -> None:
    if isinstance(error, BlandOutcomeUnknownError):
        result.error_code = "no_answer"


def _note_stop(result: Result, error: BlandError, allowance: Allowance) -> None:
    if isinstance(error, STOPPING_ERRORS):
        # Here and not in the driving thread: each moment costs Bland another refusal.
        allowance.stopped.set()
        result.stop = error


def _describe(result: Result, error: BlandError) -> None:
    result.http_status = error.status_code
    result.error_code = error.code
    result.message = getattr(error, "message", "") or str(error)


def _confirm(result: Result) -> None:
    result.verdict = Verdict.CONFIRMED
    result.http_status, result.error_code = 200, ""
