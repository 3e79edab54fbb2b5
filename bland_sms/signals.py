"""What we announce to the host project, after commit.

A receiver that raises is logged to ``bland_sms.signals`` and changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from django.db.models import Model
from django.dispatch import Signal

from .database import after_commit

logger = logging.getLogger("bland_sms.signals")

conversation_created = Signal()
"""A conversation is new to the mirror. Arguments: ``conversation_id``."""

conversation_changed = Signal()
"""Bland told something new. Arguments: ``conversation_id``, ``changed_fields`` (a tuple of
column names, and ``"messages"`` for the transcript)."""

bulk_update_finished = Signal()
"""Nothing of an update is open any more. Arguments: ``bulk_update``, ``counts``."""

sync_finished = Signal()
"""A sync ended, well or not. Arguments: ``sync_run``."""

webhook_received = Signal()
"""A verified webhook was noted, for the first time; its conversation is not copied yet. Arguments:
``delivery``."""

standing_order_applied = Signal()
"""A standing order has conversations deactivated: the update is recorded, and carried out next.
Arguments: ``order``, ``bulk_update``, ``conversation_ids``."""

standing_order_suspended = Signal()
"""A standing order does nothing until a person renews it. Arguments: ``order`` (``None``: all that
were in force), ``code``."""


def announce(
    signal: Signal, sender: type[Model], make_arguments: Callable[[], list[dict[str, Any]]]
) -> None:
    """Send ``signal`` once for each set of arguments, after commit, if there are receivers."""
    if signal.has_listeners(sender):
        after_commit(lambda: _send(signal, sender, make_arguments()), sender)


def _send(signal: Signal, sender: type, all_arguments: list[dict[str, Any]]) -> None:
    for arguments in all_arguments:
        for receiver, response in signal.send_robust(sender, **arguments):
            if isinstance(response, Exception):
                logger.error("receiver %r failed", receiver, exc_info=response)
