"""One conversation, or some, with their messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from ..client import get_client
from ..exceptions import STOPPING_ERRORS, BlandError, BlandNotFoundError
from ..mirror import Outcome, apply_page, mark_missing
from ..pacing import Allowance
from ..payloads import ConversationPayload
from ..transactions import refuse_in_transaction

TURN_SECONDS = 1.0


def refresh(conversation_id: str, *, allowance: Allowance | None = None) -> Outcome:
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

    copied: dict[str, Outcome] = field(default_factory=dict)
    missing: dict[str, BlandNotFoundError] = field(default_factory=dict)
    failed: dict[str, BlandError] = field(default_factory=dict)
    """By id; :class:`BlandNotSentError` where the time was up."""


def refresh_many(
    conversation_ids: Sequence[str],
    *,
    seconds: float | None = None,
    allowance: Allowance | None = None,
    mark: bool = True,
    on_turn: Callable[[Refreshed], None] = lambda refreshed: None,
) -> Refreshed:
    """Copy several conversations side by side; one that fails does not stop the others.

    Args:
        seconds: For all of them; ``None``: as long as the allowance, or as it takes.
        mark: Whether those that Bland does not find are marked as missing.
        on_turn: Called at least each second, in this thread.

    Raises:
        BlandConfigurationError: there is no usable key, base URL or CA bundle.
        RuntimeError: called inside a database transaction.
    """
    refuse_in_transaction()
    client = get_client()
    if allowance is None:
        allowance = Allowance() if seconds is None else Allowance.of_seconds(seconds)
    refreshed = Refreshed()
    with ThreadPoolExecutor(client.settings.max_concurrency, "bland_sms") as pool:
        asked = {
            pool.submit(client.get_conversation, conversation_id, allowance=allowance): (
                conversation_id
            )
            for conversation_id in dict.fromkeys(conversation_ids)
        }
        try:
            open_ones = set(asked)
            while open_ones:
                done, open_ones = wait(open_ones, TURN_SECONDS, FIRST_COMPLETED)
                for future in done:
                    _collect(refreshed, asked[future], future, allowance)
                on_turn(refreshed)
        except BaseException:
            allowance.stopped.set()
            raise
    if mark:
        for conversation_id, error in refreshed.missing.items():
            if error.observed_at is not None:
                mark_missing(conversation_id, error.observed_at)
    return refreshed


def _collect(
    refreshed: Refreshed,
    conversation_id: str,
    future: Future[ConversationPayload],
    allowance: Allowance,
) -> None:
    try:
        payload = future.result()
    except BlandNotFoundError as error:
        refreshed.missing[conversation_id] = error
    except BlandError as error:
        if isinstance(error, STOPPING_ERRORS):
            allowance.stopped.set()
        refreshed.failed[conversation_id] = error
    else:
        outcome = apply_page([payload], settle=True)[payload.id].outcome
        refreshed.copied[conversation_id] = outcome
