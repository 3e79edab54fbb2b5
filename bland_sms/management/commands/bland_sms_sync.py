"""Bring the mirror up to date with Bland."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, ArgumentTypeError
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

from bland_sms import standing, sync
from bland_sms.exceptions import BlandError
from bland_sms.management.interrupt import stop_signals
from bland_sms.models import SyncRun

COUNTS = ("seen", "created", "changed", "unchanged", "failed")


class Command(BaseCommand):
    help = (
        "Copy from Bland what changed since the last completed run; everything the first time. "
        "Goes on where the last attempt was interrupted."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--full",
            action="store_true",
            help="read the whole list, and look at what is not in it any more; waits up to ten "
            "minutes for a running incremental copy",
        )
        parser.add_argument(
            "--since",
            type=_moment,
            metavar="TIME",
            help="copy what changed since then, such as 2026-11-01 or 2026-11-01T12:00:00Z",
        )
        parser.add_argument(
            "--conversation",
            metavar="ID",
            action="append",
            default=[],
            help="copy this conversation with its messages, and nothing else; may be repeated",
        )
        parser.add_argument(
            "--messages",
            action="store_true",
            help="copy the messages too of what is new, changed, or was never copied",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="write nothing; tell what would be written"
        )
        parser.add_argument("--json", action="store_true", help="print the counts as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["full"] and options["since"]:
            raise CommandError("--full and --since contradict each other", returncode=2)
        if not options["conversation"]:
            self._sync(options)
        elif options["full"] or options["since"] or options["dry_run"]:
            raise CommandError("--conversation goes with none of these options", returncode=2)
        else:
            self._refresh(options["conversation"], as_json=options["json"])

    def _refresh(self, conversation_ids: list[str], *, as_json: bool) -> None:
        outcomes: dict[str, str] = {}
        failures: list[str] = []
        for conversation_id in conversation_ids:
            try:
                outcomes[conversation_id] = sync.refresh(conversation_id).value
            except BlandError as error:
                outcomes[conversation_id] = error.code
                failures.append(f"{conversation_id}: {error}")
        standing.carry_out_waiting()
        if as_json:
            self.stdout.write(json.dumps(outcomes))
        else:
            for conversation_id, outcome in outcomes.items():
                self.stdout.write(f"{conversation_id}: {outcome}")
        if failures:
            raise CommandError("\n".join(failures))

    def _sync(self, options: dict[str, Any]) -> None:
        with stop_signals() as stopped:
            run = sync.run(
                full=options["full"],
                since=options["since"],
                messages=options["messages"],
                dry_run=options["dry_run"],
                wait_seconds=sync.FULL_WAIT_SECONDS,
                stopped=stopped,
                on_page=self._progress,
            )
            if not (options["dry_run"] or stopped.is_set()):
                standing.carry_out_waiting(stopped=stopped)
        if sys.stderr.isatty():
            self.stderr.write("")
        counts = {name: getattr(run, name) for name in COUNTS}
        if options["json"]:
            told = {"run": run.pk, "mode": run.mode, "status": run.status, **counts}
            self.stdout.write(json.dumps({**told, "error": run.error, "owed": run.owed}))
        elif run.seen or not run.error:
            words = ", ".join(f"{number} {name}" for name, number in counts.items())
            tried = " (dry run: nothing was written)" if options["dry_run"] else ""
            self.stdout.write(f"{run.status}: {words}{tried}")
        for conversation_id, code in run.owed:
            self.stderr.write(f"{conversation_id}: {code}; it will be asked for again")
        if run.status == SyncRun.Status.SKIPPED:
            self.stderr.write(f"Skipped: {run.error}.")
        elif run.error:
            raise CommandError(run.error)
        elif run.failed:
            raise CommandError(f"{run.failed} conversations could not be read or stored")

    def _progress(self, run: SyncRun) -> None:
        if sys.stderr.isatty():
            self.stderr.write(f"\r{run.seen} seen, {run.created} new ", ending="")


def _moment(text: str) -> datetime:
    """A date or a time; without a zone it is in the project's own."""
    try:
        moment = parse_datetime(text)
        if moment is None and (date := parse_date(text)) is not None:
            moment = datetime(date.year, date.month, date.day)
    except ValueError:
        moment = None
    if moment is None:
        raise ArgumentTypeError(f"{text!r} is not a time such as 2026-11-01T12:00:00Z")
    return timezone.make_aware(moment) if timezone.is_naive(moment) else moment
