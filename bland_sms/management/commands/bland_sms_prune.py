"""Delete what is older than the settings say."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand

from bland_sms.retention import prune


class Command(BaseCommand):
    help = (
        "Delete webhook deliveries and sync runs older than RETENTION_DAYS, drafts, and updates "
        "at rest older than LEDGER_RETENTION_DAYS, if that is set."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="count, and delete nothing")
        parser.add_argument("--json", action="store_true", help="print the counts as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        counts = asdict(prune(dry_run=options["dry_run"]))
        if options["json"]:
            self.stdout.write(json.dumps({**counts, "dry_run": options["dry_run"]}))
            return
        verb = "would be deleted" if options["dry_run"] else "deleted"
        words = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in counts.items())
        self.stdout.write(f"{verb}: {words}")
