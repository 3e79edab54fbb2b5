"""Carry out whatever waits: updates, webhooks, and conversations that could not be copied."""

from __future__ import annotations

import logging
import time
from argparse import ArgumentParser
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any, TypeVar

from django.core.management.base import BaseCommand, CommandError
from django.db import Error, close_old_connections

from bland_sms import standing
from bland_sms.database import DATABASE_PATIENCE_SECONDS, discard_connection, is_passing
from bland_sms.dispatching import hand_on_what_is_left
from bland_sms.exceptions import BlandConfigurationError
from bland_sms.management.interrupt import stop_signals
from bland_sms.management.turns import Turn, deliveries_wait, updates_behind, updates_in_turn
from bland_sms.management.waiting import JOBS, jobs_that_wait
from bland_sms.models import BulkUpdate
from bland_sms.reasons import Failure
from bland_sms.summary import close_days
from bland_sms.sync import look_at_owed
from bland_sms.updates import run
from bland_sms.webhooks import process_waiting

Value = TypeVar("Value")

logger = logging.getLogger("bland_sms.dispatching")

PAUSE_SECONDS = 2.5
"""Between two looks of an idle worker, each of which is one statement."""
LONGEST_PAUSE_SECONDS = 10.0
"""Between two attempts to reach a database that is away."""
REST_SECONDS = 60.0
"""Seconds before a job is tried again that Bland refused or that failed with an error of ours; also
between two times that are always worth a look, such as for days to be counted."""
FIRST_REST_SECONDS, LONGEST_REST_SECONDS = 5.0, 20.0
"""The same for a job that waits, and of which nothing can be done."""


class Command(BaseCommand):
    help = (
        "Carry out updates and webhooks that wait and that no living process is at. "
        "Safe beside real workers and beside itself."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--once", action="store_true", help="end when nothing waits any more, as for cron"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        self.problems: dict[str, None] = {}  # in order, each once, however long this runs
        self.resting: dict[str, float] = {}
        self.driven: dict[int, float] = {}
        self.in_vain: dict[str, float] = {}
        self.away_since: float | None = None
        with stop_signals() as self.ended:
            while not self.ended.is_set():
                worked = self._pass(is_service=not options["once"])
                if not options["once"]:
                    if not worked:
                        self.ended.wait(PAUSE_SECONDS)
                elif not worked and self.away_since is None:
                    break
            if self.ended.is_set():
                self.stderr.write("Stopped; the next worker carries on.")
        if self.problems:
            raise CommandError("\n".join(self.problems))

    def _pass(self, *, is_service: bool) -> bool:
        """Give everything that waits a turn; whether anything came of it."""
        try:
            if is_service and not self._rests("connections"):
                close_old_connections()  # not after each look: an idle worker has one
                self._rest("connections")
            worked = False
            for name in self._waiting() if is_service else JOBS:
                done = self._job(name)
                worked = done or worked
                self._note_vain(name, is_vain=is_service and not done)
            worked = self._days(is_service=is_service) or worked
            worked = self._standing_orders() or worked
        except Error as error:
            if not is_passing(error):
                raise
            discard_connection()
            self._wait_for_database(error, is_service=is_service)
            return False
        if self.away_since is not None:
            self.stderr.write("The database is back.")
            self.away_since = None
        return worked

    def _waiting(self) -> list[str]:
        """What an idle worker looks at, in the order of its turns."""
        resting = [pk for pk in self.driven if self._rests(f"update {pk}")]
        waiting = jobs_that_wait(self._rests, resting)
        return [name for name in JOBS if name in waiting]

    def _job(self, name: str) -> bool:
        jobs = {"updates": self._updates, "webhooks": self._webhooks, "owed": self._owed}
        return jobs[name]()

    def _note_vain(self, name: str, *, is_vain: bool) -> None:
        """Look less often after a job of which nothing can be done, such as while Bland is down."""
        if not is_vain:
            self.in_vain.pop(name, None)
        elif not self._rests(name):
            seconds = min(self.in_vain.get(name, FIRST_REST_SECONDS / 2) * 2, LONGEST_REST_SECONDS)
            self.in_vain[name] = seconds
            self._rest(name, seconds)

    def _wait_for_database(self, error: Error, *, is_service: bool) -> None:
        """A restart of the database is no reason to end: pause, longer each time."""
        now = time.monotonic()
        if self.away_since is None:
            self.away_since = now
            self.stderr.write("The database is away: waiting for it.")
        away_seconds = now - self.away_since
        if not is_service and away_seconds > DATABASE_PATIENCE_SECONDS:
            raise CommandError(Failure("database_unavailable").advice) from error
        self.ended.wait(min(LONGEST_PAUSE_SECONDS, 0.2 + away_seconds / 2))

    # --- updates ------------------------------------------------------------------------------

    def _updates(self) -> bool:
        """A turn for each update that waits, until one has to make way for newer ones."""
        worked = False
        waiting = updates_in_turn(self.driven)
        self.driven = {update.pk: self.driven.get(update.pk, 0.0) for update in waiting}
        for bulk_update in waiting:
            if self.ended.is_set():
                break
            if self._rests(f"update {bulk_update.pk}"):
                continue
            before = bulk_update.counts()
            turn = self._turn(bulk_update)
            try:
                self._guarded(f"update {bulk_update.pk}", partial(run, bulk_update, stopped=turn))
            except (KeyboardInterrupt, SystemExit):  # a second signal
                hand_on_what_is_left(bulk_update)
                raise
            self.driven[bulk_update.pk] += turn.seconds
            bulk_update.refresh_from_db()
            after = bulk_update.counts()
            is_stopped = bulk_update.status == BulkUpdate.Status.STOPPED
            if self.ended.is_set():
                hand_on_what_is_left(bulk_update)
            if after == before and not is_stopped:
                continue
            worked = True
            if turn.is_set() and bulk_update.status in BulkUpdate.Status.OPEN:
                if self.ended.is_set():
                    self._told(bulk_update, after)
                break
            self._told(bulk_update, after)
            if is_stopped and bulk_update.trying_again_at is None:
                self.problems[f"update {bulk_update.pk} stopped: {bulk_update.stop_message}"] = None
        return worked

    def _told(self, bulk_update: BulkUpdate, counts: dict[str, int]) -> None:
        words = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
        self.stdout.write(f"update {bulk_update.pk}: {bulk_update.status}: {words}")

    def _turn(self, bulk_update: BulkUpdate | None = None) -> Turn:
        def others_wait(seconds: float) -> bool:
            if not self._rests("webhooks") and bulk_update is not None and deliveries_wait():
                return True
            mine = inf if bulk_update is None else self.driven[bulk_update.pk] + seconds
            behind = updates_behind(self.driven, mine)
            return any(not self._rests(f"update {pk}") for pk in behind)

        return Turn(self.ended, others_wait)

    # --- webhooks, and what could not be copied -----------------------------------------------

    def _webhooks(self) -> bool:
        """One pass over the webhooks that wait; whether any of them is done with."""
        if self.ended.is_set() or self._rests("webhooks"):
            return False
        worked = self._guarded("webhooks", lambda: process_waiting(stopped=self._turn()))
        if worked is None:
            return False
        told = {
            "processed": worked.processed,
            "put off": worked.put_off,
            "conversations failed": len(worked.failed),
        }
        words = ", ".join(f"{number} {name}" for name, number in told.items() if number)
        if words:
            self.stdout.write(f"webhooks: {words}")
        for pk, failure in worked.failed.items():
            self.problems[f"webhook for {pk}: {failure.code}: {failure}"] = None
        if worked.stop is not None:
            self.problems[f"webhooks stopped: {worked.stop}"] = None
            self._rest("webhooks")
        return bool(worked.processed or worked.failed)

    def _owed(self) -> bool:
        """One pass over the conversations that failed to be copied and are due again."""
        if self.ended.is_set() or self._rests("owed"):
            return False
        try:
            looked = self._guarded("owed", lambda: look_at_owed(stopped=self._turn()))
        except BlandConfigurationError:
            looked = None  # the job itself reports the error
        if looked is None or looked.stop is not None:
            self._rest("owed")
            return False
        if looked.copied or looked.missing:
            self.stdout.write(f"owed: {looked.copied} copied, {looked.missing} not found")
        return bool(looked.copied or looked.missing)

    def _days(self, *, is_service: bool) -> bool:
        """Count the days that are over, now and then."""
        if is_service and self._rests("days"):
            return False
        is_left = bool(close_days())
        if not is_left:
            self._rest("days")
        return is_left

    def _standing_orders(self) -> bool:
        """Now and then: what a process that died did not apply, and orders whose time is over."""
        if self.ended.is_set() or self._rests("standing orders"):
            return False
        standing.expire()
        recorded = self._guarded("standing orders", standing.catch_up)
        self._rest("standing orders")
        return bool(recorded)

    # --- what goes wrong ----------------------------------------------------------------------

    def _guarded(self, name: str, function: Callable[[], Value]) -> Value | None:
        """Call it; an error of ours in one job is told, and does not keep the others."""
        try:
            return function()
        except (Error, BlandConfigurationError):
            raise
        except Exception as error:
            logger.exception("%s failed", name)
            self.problems[f"{name} failed: {type(error).__name__}"] = None
            self._rest(name)
            return None

    def _rest(self, name: str, seconds: float = REST_SECONDS) -> None:
        self.resting[name] = time.monotonic() + seconds

    def _rests(self, name: str) -> bool:
        return time.monotonic() < self.resting.get(name, 0.0)
