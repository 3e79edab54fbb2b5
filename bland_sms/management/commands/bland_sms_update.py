"""Deactivate or reactivate conversations from the command line."""

from __future__ import annotations

import json
import sys
import threading
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from bland_sms import updates
from bland_sms.exceptions import BlandInvalidIdError
from bland_sms.management.interrupt import stop_signals
from bland_sms.models import BulkUpdate

PROGRESS_SECONDS = 0.5
SETTLED_WELL = ("changed", "unchanged")


class Command(BaseCommand):
    help = (
        "Ask Bland to deactivate or reactivate conversations: ids as arguments, from a file, or "
        "from standard input, separated by white space or commas."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        verb = parser.add_mutually_exclusive_group(required=True)
        verb.add_argument("--deactivate", dest="is_active", action="store_false", default=None)
        verb.add_argument("--reactivate", dest="is_active", action="store_true", default=None)
        parser.add_argument("ids", nargs="*", metavar="ID", help="conversation ids")
        parser.add_argument("--from-file", metavar="FILE", help="read ids from a file; - is stdin")
        parser.add_argument("--reason", default="", help="stands with the update")
        parser.add_argument("--json", action="store_true", help="print the outcome as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            bulk_update = updates.prepare(
                self._ids(options["ids"], options["from_file"]),
                options["is_active"],
                reason=options["reason"][:200],
                source=BulkUpdate.Source.COMMAND,
            )
        except (updates.SelectionError, BlandInvalidIdError) as error:
            raise CommandError(str(error), returncode=2) from None
        updates.start(bulk_update)
        with stop_signals() as stopped, self._progress(bulk_update):
            if not updates.run(bulk_update, stopped=stopped) and stopped.is_set():
                self.stderr.write("\nInterrupted; `bland_sms_work` carries out the rest.")
        bulk_update.refresh_from_db()
        self._report(bulk_update, as_json=options["json"])

    def _ids(self, arguments: list[str], file_name: str | None) -> list[str]:
        texts: Iterable[str] = arguments
        if file_name == "-" or (not arguments and file_name is None and not sys.stdin.isatty()):
            texts = [*arguments, *sys.stdin]
        elif file_name is not None:
            try:
                texts = [*arguments, *Path(file_name).read_text("utf-8").splitlines()]
            except (OSError, UnicodeDecodeError) as error:
                raise CommandError(f"{file_name}: {error}", returncode=2) from None
        return [word for text in texts for word in text.replace(",", " ").split()]

    @contextmanager
    def _progress(self, bulk_update: BulkUpdate) -> Iterator[None]:
        """A bar on a terminal, from a thread of its own; quiet in a pipe."""
        if not sys.stderr.isatty():
            yield
            return
        over = threading.Event()

        def show() -> None:
            try:
                while not over.wait(PROGRESS_SECONDS):
                    self._draw(bulk_update.counts())
            finally:
                connection.close()

        thread = threading.Thread(target=show, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self._draw(bulk_update.counts())
            self.stderr.write("")

    def _draw(self, counts: dict[str, int]) -> None:
        total = sum(counts.values())
        done = total - counts["waiting"] - counts["running"]
        filled = 30 * done // max(1, total)
        failed = f", {counts['failed'] + counts['unknown']} failed" if counts["failed"] else ""
        bar = "#" * filled + "." * (30 - filled)
        self.stderr.write(f"\r[{bar}] {done}/{total}{failed} ", ending="")

    def _report(self, bulk_update: BulkUpdate, *, as_json: bool) -> None:
        counts = bulk_update.counts()
        bad = bulk_update.items.exclude(state__in=SETTLED_WELL).order_by("pk")
        problems = list(bad.values("conversation_id", "state", "http_status", "error_code"))
        if as_json:
            outcome = {
                "update": bulk_update.pk,
                "status": bulk_update.status,
                "counts": counts,
                "stop_code": bulk_update.stop_code,
                "stop_message": bulk_update.stop_message,
                "problems": problems,
            }
            self.stdout.write(json.dumps(outcome))
        else:
            told = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
            self.stdout.write(f"update {bulk_update.pk}: {bulk_update.status}: {told}")
        if problems:
            lines = [
                f"{one['conversation_id']}: {one['state']} {one['error_code']}".rstrip()
                for one in problems[:50]
            ]
            if len(problems) > len(lines):
                lines.append(f"and {len(problems) - len(lines)} more")
            if bulk_update.stop_message:
                lines.insert(0, bulk_update.stop_message)
            raise CommandError("\n".join(lines))
