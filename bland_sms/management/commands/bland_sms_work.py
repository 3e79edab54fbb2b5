"""Carry out whatever waits in the ledger."""

from __future__ import annotations

import threading
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import close_old_connections

from bland_sms.management.interrupt import stop_signals
from bland_sms.models import BulkUpdate
from bland_sms.updates import run, waiting_updates

PAUSE_SECONDS = 2.0


class Command(BaseCommand):
    help = (
        "Carry out updates that wait and that no living process drives. "
        "Safe beside real workers and beside itself."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--once", action="store_true", help="end when nothing waits any more, as for cron"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        stopped: list[str] = []
        with stop_signals() as ended:
            while not ended.is_set():
                worked = self._work(stopped, ended)
                if not options["once"]:
                    close_old_connections()
                    ended.wait(PAUSE_SECONDS)
                elif not worked:
                    break
            if ended.is_set():
                self.stderr.write("Stopped; the next worker carries on.")
        if stopped:
            raise CommandError("\n".join(stopped))

    def _work(self, stopped: list[str], ended: threading.Event) -> bool:
        """One pass over what waits; whether anything came of it."""
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
                stopped.append(f"update {bulk_update.pk} stopped: {bulk_update.stop_message}")
        return worked
