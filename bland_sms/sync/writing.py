"""Writes what a run has read, and asks for what the list does not tell."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from django.db import DatabaseError, transaction

from ..database import is_refusal, patiently, using, write_bisecting, write_transaction
from ..exceptions import BlandError
from ..mirror import Applied, Effect, apply_page
from ..models import OwedLook, SyncRun
from ..pacing import Allowance
from ..payloads import ConversationPayload
from . import missing, owed
from .refreshing import Refreshed, refresh_many
from .walk import Covered

logger = logging.getLogger("bland_sms.sync")

Reason = OwedLook.Reason
MOST_NAMED = 50
"""Conversations named in a run."""


class Writer:
    """The writing half of one run."""

    def __init__(
        self,
        run: SyncRun,
        allowance: Allowance,
        *,
        messages: bool,
        dry_run: bool,
        advance: Callable[[], None],
        on_turn: Callable[[Refreshed], None],
    ) -> None:
        self.run = run
        self.allowance = allowance
        self.messages = messages
        self.dry_run = dry_run
        self.advance = advance
        """Keep the lease, and write how far the walk has come. Raises LostLeaseError."""
        self.on_turn = on_turn
        self.failed = 0
        self.unreadable = 0
        """Rows that could not be read as a conversation."""
        self.stop: BlandError | None = None
        """Why no more can be asked for."""
        self.is_untimely = False
        """Several rows at once came without a usable time, and were not known."""
        self.timeless: set[str] = set()
        """Listed without the time when they were made."""
        self.using = using(SyncRun)
        self._refused = set() if dry_run else owed.refused_ids()

    def write(
        self,
        payloads: list[ConversationPayload],
        covered: Sequence[Covered],
        before: datetime | None,
        odd: set[str],
    ) -> None:
        """Write rows and what was not among them, in one transaction with how far we came.

        Args:
            before: By Bland's clock: what was made since then need not be in the list.
            odd: Rows of pages without any usable time.
        """
        if self.dry_run:
            applied = self._try_out(payloads)
        else:
            applied = self._apply(payloads, covered, before)
        self.timeless |= {p.id for p in payloads if not isinstance(p.created_at, datetime)}
        new = [pk for pk in odd if pk in applied and applied[pk].outcome is Effect.CREATED]
        self.is_untimely = self.is_untimely or len(new) > 1
        if not self.dry_run:
            self._look(applied)
        outcomes = [one.outcome for one in applied.values()]
        self.run.seen += len(outcomes)
        self.run.created += outcomes.count(Effect.CREATED)
        self.run.changed += outcomes.count(Effect.CHANGED)
        self.run.unchanged += outcomes.count(Effect.UNCHANGED) + outcomes.count(Effect.STALE)
        self.failed += outcomes.count(Effect.GONE)
        self.count()

    def count(self) -> None:
        self.run.failed = self.failed + self.unreadable

    def _try_out(self, payloads: Sequence[ConversationPayload]) -> dict[str, Applied]:
        with transaction.atomic(using=self.using):
            applied = apply_page(payloads)
            transaction.set_rollback(True, using=self.using)
        return applied

    def _apply(
        self,
        payloads: list[ConversationPayload],
        covered: Sequence[Covered],
        before: datetime | None,
    ) -> dict[str, Applied]:
        def commit(page: Sequence[ConversationPayload]) -> dict[str, Applied]:
            with write_transaction(SyncRun):
                self.advance()  # first: it locks the row against all other processes
                done = apply_page(page)
                missing.note_unlisted(covered, before)
                return done

        def write(some: Sequence[ConversationPayload]) -> None:
            applied.update(patiently(lambda: apply_page(some)))

        def refuse(payload: ConversationPayload, error: DatabaseError) -> None:
            logger.warning("conversation %s could not be stored", payload.id)
            self._fail(payload.id, Reason.REFUSED, owed.NOT_STORED, payload.updated_at)
            self._refused.add(payload.id)
            patiently(lambda: owed.forget_listed(payload.id))

        applied: dict[str, Applied] = {}
        cursor = self.run.cursor
        try:
            try:
                applied = patiently(lambda: commit(payloads))
            except (DatabaseError, ValueError, OverflowError) as error:
                if not is_refusal(error):
                    raise
                # Rows first: whatever ends this process, the walk has not passed them.
                write_bisecting(payloads, write, refuse)
                patiently(lambda: commit([]))
        except BaseException:
            self.run.cursor = cursor  # nothing was committed: the next run reads it again
            raise
        self._settle(self._refused & applied.keys())
        return applied

    def _settle(self, conversation_ids: Iterable[str]) -> None:
        ids = sorted(conversation_ids)
        if ids:
            patiently(lambda: owed.forget_refusal(ids))
            self._refused -= set(ids)

    def _fail(
        self, conversation_id: str, reason: str, code: str, changed_at: datetime | None = None
    ) -> None:
        """Count it, name it, and remember that it is owed a look."""
        self.failed += 1
        if len(self.run.owed) < MOST_NAMED:
            self.run.owed.append([conversation_id, code])
        patiently(lambda: owed.add([conversation_id], reason, code, changed_at=changed_at))

    # --- single conversations -----------------------------------------------------------------

    def _look(self, applied: dict[str, Applied]) -> None:
        """Ask for those themselves of which the list does not tell enough."""
        unclear = {pk for pk, one in applied.items() if one.needs_look}
        wanted = set(unclear)
        if self.messages:
            news = (Effect.CREATED, Effect.CHANGED)
            wanted |= {pk for pk, one in applied.items() if one.outcome in news}
        if not wanted or self.stop is not None:
            self._owe(wanted, unclear)
            return
        wanted -= owed.waiting_ids(sorted(wanted - unclear))
        refreshed = self._refresh(sorted(wanted), unclear)
        for conversation_id, outcome in refreshed.copied.items():
            if conversation_id in unclear:
                applied[conversation_id] = replace(applied[conversation_id], outcome=outcome)

    def _owe(self, wanted: set[str], unclear: set[str]) -> None:
        for conversation_id in sorted(wanted):
            reason = Reason.NO_TIME if conversation_id in unclear else Reason.DETAIL_FAILED
            self._fail(conversation_id, reason, "not_attempted")

    def _refresh(self, ids: Sequence[str], unclear: set[str]) -> Refreshed:
        def refuse(conversation_id: str) -> None:
            self._fail(conversation_id, Reason.DETAIL_FAILED, owed.NOT_STORED)

        refreshed = refresh_many(
            ids, allowance=self.allowance, on_turn=self.on_turn, on_refused=refuse
        )
        done = [*refreshed.copied, *refreshed.missing]
        patiently(lambda: owed.settle(done))
        for conversation_id, error in refreshed.failed.items():
            logger.info("conversation %s: %s", conversation_id, error.code)
            reason = Reason.NO_TIME if conversation_id in unclear else Reason.DETAIL_FAILED
            self._fail(conversation_id, reason, error.code)
        self.stop = self.stop or owed.stop_of(refreshed)
        return refreshed

    def pay(self) -> None:
        """At the end of a run: what is owed a look and due; transcripts that were never copied."""
        looked = owed.look_at_owed(allowance=self.allowance)
        self.failed += len(looked.failed)
        self.run.owed += [list(item) for item in looked.failed.items()]
        del self.run.owed[MOST_NAMED:]
        self.stop = self.stop or looked.stop
        if self.messages:
            for ids in owed.never_copied():
                if self.stop is not None or not self.allowance.may_pause(0):
                    break
                self._refresh(ids, set())
        self.count()
