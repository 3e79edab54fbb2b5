"""Copy conversations from Bland into the mirror."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from bland_sms.exceptions import BlandError
from bland_sms.models import SyncRun
from bland_sms.sync import refresh, sync_all


class Command(BaseCommand):
    help = "Copy all conversations from Bland, or one with its messages."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--conversation",
            metavar="ID",
            action="append",
            default=[],
            help="copy this conversation with its messages, and nothing else; may be repeated",
        )
        parser.add_argument("--json", action="store_true", help="print the counts as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["conversation"]:
            self._refresh(options["conversation"], as_json=options["json"])
        else:
            self._sync_all(as_json=options["json"])

    def _refresh(self, conversation_ids: list[str], *, as_json: bool) -> None:
        outcomes: dict[str, str] = {}
        failures: list[str] = []
        for conversation_id in conversation_ids:
            try:
                outcomes[conversation_id] = refresh(conversation_id).value
            except BlandError as error:
                outcomes[conversation_id] = error.code
                failures.append(f"{conversation_id}: {error}")
        if as_json:
            self.stdout.write(json.dumps(outcomes))
        else:
            for conversation_id, outcome in outcomes.items():
                self.stdout.write(f"{conversation_id}: {outcome}")
        if failures:
            raise CommandError("\n".join(failures))

    def _sync_all(self, *, as_json: bool) -> None:
        try:
            run = sync_all(on_page=self._progress)
        except BlandError as error:
            raise CommandError(str(error)) from None
        finally:
            if self._on_terminal():
                self.stderr.write("")
        counts = {
            name: getattr(run, name)
            for name in ("seen", "created", "changed", "unchanged", "failed")
        }
        if as_json:
            self.stdout.write(json.dumps({"status": run.status, **counts, "error": run.error}))
        else:
            words = ", ".join(f"{number} {name}" for name, number in counts.items())
            self.stdout.write(f"{run.status}: {words}")
        if run.error or run.failed:
            raise CommandError(run.error or f"{run.failed} conversations could not be read")

    def _progress(self, run: SyncRun) -> None:
        if self._on_terminal():
            self.stderr.write(f"\r{run.seen} seen, {run.created} new ", ending="")

    def _on_terminal(self) -> bool:
        return sys.stderr.isatty()
