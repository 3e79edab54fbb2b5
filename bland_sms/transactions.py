"""Where a database transaction may be open, and where it must not."""

from __future__ import annotations

from collections.abc import Callable

from django.db import router, transaction

from .models import Conversation


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
