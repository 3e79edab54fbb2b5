"""Erase a person."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from bland_sms.erasure import Forgotten, NotANumberError, forget


class Command(BaseCommand):
    help = (
        "Erase whoever has a number: messages, numbers and texts, from all tables. The state of "
        "the conversations is kept; who it was does not come back with the next sync."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("number", metavar="NUMBER", help="in any notation")
        parser.add_argument("--yes", action="store_true", help="do not ask on a terminal")
        parser.add_argument("--dry-run", action="store_true", help="count, and erase nothing")
        parser.add_argument("--json", action="store_true", help="print the counts as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        number, dry_run = options["number"], options["dry_run"]
        try:
            if not (dry_run or options["yes"]) and sys.stdin.isatty():
                self._ask(forget(number, dry_run=True))
            forgotten = forget(number, dry_run=dry_run)
        except NotANumberError as error:
            raise CommandError(str(error), returncode=2) from None
        if options["json"]:
            self.stdout.write(json.dumps({**asdict(forgotten), "dry_run": dry_run}))
            return
        verb = "would be erased" if dry_run else "erased"
        self.stdout.write(f"{verb}: {_words(forgotten)}")

    def _ask(self, forgotten: Forgotten) -> None:
        self.stderr.write(f"To be erased for good: {_words(forgotten)}.")
        if input("Type yes to go on: ").strip().lower() != "yes":
            raise CommandError("nothing was erased")


def _words(forgotten: Forgotten) -> str:
    return ", ".join(f"{number} {name}" for name, number in asdict(forgotten).items())
