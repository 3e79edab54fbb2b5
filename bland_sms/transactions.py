"""Where a database transaction may be open, and where it must not."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from django.db import InterfaceError, OperationalError, connections, router, transaction

from .models import Conversation

logger = logging.getLogger("bland_sms")

DATABASE_PATIENCE_SECONDS = 30.0
"""What Bland said is kept and written again for so long while the database is locked or away."""

Value = TypeVar("Value")


def in_transaction() -> bool:
    """Whether a transaction is open; that of a test case does not count."""
    try:
        with transaction.atomic(using=router.db_for_write(Conversation), durable=True):
            return False
    except RuntimeError:
        return True


def refuse_in_transaction() -> None:
    """Raises RuntimeError: Bland is never asked while a transaction holds locks and snapshots."""
    if in_transaction():
        raise RuntimeError(
            "Bland cannot be asked inside a database transaction: call this after commit, "
            "for example in transaction.on_commit()"
        )


def after_commit(function: Callable[[], None]) -> None:
    """Call ``function`` at once when no transaction is open, else when it was committed."""
    if in_transaction():
        transaction.on_commit(function, using=router.db_for_write(Conversation))
    else:
        function()


def patiently(write: Callable[[], Value], *, seconds: float = DATABASE_PATIENCE_SECONDS) -> Value:
    """Do it again while the database is locked, in a deadlock, or away.

    Raises:
        OperationalError, InterfaceError: so it still was in the end.
    """
    give_up_at = time.monotonic() + seconds
    pause = 0.05
    while True:
        try:
            return write()
        except (OperationalError, InterfaceError):
            connection = connections[router.db_for_write(Conversation)]
            if connection.in_atomic_block or time.monotonic() + pause > give_up_at:
                raise
            logger.warning("the database is not available")
            connection.close_if_unusable_or_obsolete()
            time.sleep(pause)
            pause = min(2.0, pause * 2)
