"""Deactivate or reactivate conversations from the command line."""

from __future__ import annotations

import json
import sys
import threading
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, InterfaceError, connection
from django.db.models import QuerySet

from bland_sms import updates
from bland_sms.database import is_passing
from bland_sms.exceptions import BlandInvalidIdError
from bland_sms.management.id_files import ids_of_file, ids_of_list
from bland_sms.management.interrupt import stop_signals
from bland_sms.management.where import WhereError, conversations_where
from bland_sms.models import BulkUpdate, Conversation
from bland_sms.reasons import Failure

PROGRESS_SECONDS = 0.5
SHOWN = 10
"""Ids that a dry run names."""
SETTLED_WELL = ("changed", "unchanged")


class Command(BaseCommand):
    help = (
        "Ask Bland to deactivate or reactivate conversations: ids as arguments, from a file, or "
        "from standard input, separated by white space, commas or semicolons. A file may be a CSV "
        "that the admin exported: its column of conversation ids is read."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        verb = parser.add_mutually_exclusive_group(required=True)
        verb.add_argument("--deactivate", dest="is_active", action="store_false", default=None)
        verb.add_argument("--reactivate", dest="is_active", action="store_true", default=None)
        parser.add_argument("ids", nargs="*", metavar="ID", help="conversation ids")
        parser.add_argument("--from-file", metavar="FILE", help="read ids from a file; - is stdin")
        parser.add_argument(
            "--where",
            metavar="FILTERS",
            help="instead of ids: the list's filters, such as status=active&last_activity=older90",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="with --where: how many, and ten ids; no change"
        )
        parser.add_argument("--reason", default="", help="stands with the update")
        parser.add_argument("--json", action="store_true", help="print the outcome as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        selected: list[str] | QuerySet[Conversation]
        if options["where"] is None:
            if options["dry_run"]:
                raise CommandError("--dry-run goes with --where", returncode=2)
            selected = self._ids(options["ids"], options["from_file"])
        else:
            found = self._where(options)
            if options["dry_run"] or not found.exists():
                self._show(found, as_json=options["json"])
                return
            selected = found
        try:
            bulk_update = updates.prepare(
                selected,
                options["is_active"],
                selection="" if options["where"] is None else _without_numbers(options["where"]),
                reason=options["reason"][:200],
                source=BulkUpdate.Source.COMMAND,
            )
            updates.start(bulk_update)
        except (updates.SelectionError, BlandInvalidIdError) as error:
            raise CommandError(str(error), returncode=2) from None
        except (DatabaseError, InterfaceError) as error:
            if not is_passing(error):
                raise
            # Nothing was sent to Bland; a draft that was not started goes by itself.
            raise CommandError(Failure("database_unavailable").advice) from None
        with stop_signals() as stopped, self._progress(bulk_update):
            if not updates.run(bulk_update, stopped=stopped) and stopped.is_set():
                self.stderr.write("\nInterrupted; `bland_sms_work` carries out the rest.")
        bulk_update.refresh_from_db()
        self._report(bulk_update, as_json=options["json"])

    def _where(self, options: dict[str, Any]) -> QuerySet[Conversation]:
        """What the filters name and the verb would change."""
        if options["ids"] or options["from_file"]:
            raise CommandError("--where goes with no ids", returncode=2)
        try:
            rows = conversations_where(options["where"])
        except WhereError as error:
            raise CommandError(f"--where: {error}", returncode=2) from None
        return rows.filter(is_active=not options["is_active"])

    def _show(self, rows: QuerySet[Conversation], *, as_json: bool) -> None:
        number = rows.count()
        ids = list(rows.order_by("pk").values_list("pk", flat=True)[:SHOWN])
        if as_json:
            self.stdout.write(json.dumps({"count": number, "ids": ids}))
        else:
            self.stdout.write(f"{number} conversations" + "".join(f"\n{one}" for one in ids))

    def _ids(self, arguments: list[str], file_name: str | None) -> list[str]:
        ids = [one for text in arguments for one in ids_of_list(text)]
        if file_name == "-" or (not arguments and file_name is None and not sys.stdin.isatty()):
            binary = getattr(sys.stdin, "buffer", None)
            ids += ids_of_file(sys.stdin.read() if binary is None else binary.read())
        elif file_name is not None:
            try:
                ids += ids_of_file(Path(file_name).read_bytes())
            except (OSError, UnicodeDecodeError) as error:
                raise CommandError(f"{file_name}: {error}", returncode=2) from None
        return ids

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
        bad = "".join(f", {counts[one]} {one}" for one in ("failed", "unknown") if counts[one])
        bar = "#" * filled + "." * (30 - filled)
        self.stderr.write(f"\r[{bar}] {done}/{total}{bad} ", ending="")

    def _report(self, bulk_update: BulkUpdate, *, as_json: bool) -> None:
        counts = bulk_update.counts()
        bad = bulk_update.items.exclude(state__in=SETTLED_WELL).order_by("pk")
        problems = [
            {
                "conversation_id": item.conversation_id,
                "state": item.state,
                "http_status": item.http_status,
                "error_code": item.error_code,
                "reason": str(item.failure.for_operators),
            }
            for item in bad
        ]
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
                + (f": {one['reason']}" if one["reason"] else "")
                for one in problems[:50]
            ]
            if len(problems) > len(lines):
                lines.append(f"and {len(problems) - len(lines)} more")
            if bulk_update.stop_message:
                lines.insert(0, bulk_update.stop_message)
            raise CommandError("\n".join(lines))


def _without_numbers(where: str) -> str:
    """The filters for the ledger, which holds no phone numbers."""
    named = [part for part in where.split("&") if not part.startswith(("q=", "our_number="))]
    return "&".join(named)
