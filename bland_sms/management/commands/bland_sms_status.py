"""Say whether all is well."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.core.serializers.json import DjangoJSONEncoder

from bland_sms.health import Health, look


class Command(BaseCommand):
    help = "Say whether the copy is fresh and the work gets done. Asks the database, never Bland."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print it as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        health = look()
        if options["json"]:
            self.stdout.write(json.dumps(asdict(health), cls=DjangoJSONEncoder))
        elif health.status != "database":
            self.stdout.write(_words(health))
        if not health.is_ok:
            raise CommandError(f"{health.status}: {health.words}")


def _words(health: Health) -> str:
    copied = "never copied from Bland as a whole"
    if health.synced_at is not None:
        copied = f"copied from Bland {health.age_seconds} seconds ago"
    return "\n".join(
        [
            f"{health.status}: {copied}",
            f"updates: {health.updates_waiting} waiting, {health.updates_running} running, "
            f"{health.updates_stopped} stopped",
            f"webhooks: {health.deliveries_waiting} waiting, {health.deliveries_failed} failed",
            f"not found at Bland: {health.conversations_missing} conversations",
        ]
    )
