"""Carry out whatever waits: updates and webhooks."""

from __future__ import annotations

import threading
import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import close_old_connections

from bland_sms.deliveries import process_waiting
from bland_sms.management.interrupt import stop_signals
from bland_sms.models import BulkUpdate
from bland_sms.updates import run, waiting_updates

PAUSE_SECONDS = 2.0
REST_SECONDS = 60.0
"""For so long no webhook is looked at after Bland refused to answer at all."""


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
        problems: dict[str, None] = {}  # in order, each once, however long this runs
        self.resting_until = 0.0
        with stop_signals() as ended:
            while not ended.is_set():
                worked = self._update(problems, ended)
                worked = self._look_who_rang(problems, ended) or worked
                if not options["once"]:
                    close_old_connections()
                    ended.wait(PAUSE_SECONDS)
                elif not worked:
                    break
            if ended.is_set():
                self.stderr.write("Stopped; the next worker carries on.")
        if problems:
            raise CommandError("\n".join(problems))

    def _update(self, problems: dict[str, None], ended: threading.Event) -> bool:
        """One pass over the updates that wait; whether anything came of it."""
        worked = False
        for bulk_update in waiting_updates():
            if ended.is_set():
                break
            before = bulk_update.counts()
            run(bulk_update, stopped=ended)
            bulk_update.refresh_from_db()
            after = bulk_update.counts()
            if after == before and bulk_update.status != BulkUpdate.Status.STOPPED:
                continue
            worked = True
            words = ", ".join(f"{number} {state}" for state, number in after.items() if number)
            self.stdout.write(f"update {bulk_update.pk}: {bulk_update.status}: {words}")
            if bulk_update.status == BulkUpdate.Status.STOPPED:
                problems[f"update {bulk_update.pk} stopped: {bulk_update.stop_message}"] = None
        return worked

    def _look_who_rang(self, problems: dict[str, None], ended: threading.Event) -> bool:
        """One pass over the webhooks that wait; whether any of them is done with."""
        if ended.is_set() or time.monotonic() < self.resting_until:
            return False
        worked = process_waiting(stopped=ended)
        told = {
            "processed": worked.processed,
            "put off": worked.put_off,
            "conversations failed": len(worked.failed),
        }
        words = ", ".join(f"{number} {name}" for name, number in told.items() if number)
        if words:
            self.stdout.write(f"webhooks: {words}")
        problems |= {f"webhook for {pk}: {code}": None for pk, code in worked.failed.items()}
        if worked.stop is not None:
            problems[f"webhooks stopped: {worked.stop}"] = None
            self.resting_until = time.monotonic() + REST_SECONDS
        return bool(worked.processed or worked.failed)
