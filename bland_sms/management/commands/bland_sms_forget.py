"""Erase a person, or look whether one is still named anywhere."""

from __future__ import annotations

import getpass
import json
import sys
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError, OutputWrapper

from bland_sms.erasure import Affected, Forgotten, affected, forget, traces
from bland_sms.person import NotANumberError

MOST_SHOWN = 20


class Command(BaseCommand):
    help = (
        "Erase the person with a number: messages, numbers and texts, from all tables. The state "
        "of the conversations is kept; who it was does not come back with the next sync."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("number", metavar="NUMBER", help="a number in any notation, an address")
        parser.add_argument("--yes", action="store_true", help="do not ask; needed in scripts")
        parser.add_argument("--dry-run", action="store_true", help="count, and erase nothing")
        parser.add_argument(
            "--verify",
            action="store_true",
            help="erase nothing; list where the person is still named, and exit with 1 if anywhere",
        )
        parser.add_argument(
            "--keep-orders",
            action="store_true",
            help="standing orders of the person go on, under a keyed fingerprint of the number; "
            "without it they end",
        )
        parser.add_argument("--by", default="", help="who erases, for the record of erasures")
        parser.add_argument("--json", action="store_true", help="print the counts as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        number, dry_run = options["number"], options["dry_run"]
        try:
            if options["verify"]:
                self._verify(number)
                return
            if dry_run or not options["yes"]:
                rows = affected(number)
                if not options["json"]:
                    self._show(rows, self.stdout if dry_run else self.stderr)
            if not (dry_run or options["yes"]):
                self._ask(forget(number, dry_run=True), keep_orders=options["keep_orders"])
            forgotten = forget(
                number,
                dry_run=dry_run,
                by=options["by"] or _account(),
                keep_orders=options["keep_orders"],
            )
        except NotANumberError as error:
            raise CommandError(str(error), returncode=2) from None
        if options["json"]:
            self.stdout.write(json.dumps({**asdict(forgotten), "dry_run": dry_run}))
            return
        verb = "would be erased" if dry_run else "erased"
        self.stdout.write(f"{verb}: {_words(forgotten)}")

    def _show(self, rows: list[Affected], out: OutputWrapper) -> None:
        for row in rows[:MOST_SHOWN]:
            out.write(f"{row.conversation_id} ({row.number}): {row.messages} messages")
        if len(rows) > MOST_SHOWN:
            out.write(f"and {len(rows) - MOST_SHOWN} more conversations")

    def _ask(self, forgotten: Forgotten, *, keep_orders: bool) -> None:
        if not sys.stdin.isatty():
            raise CommandError(
                "nothing was erased: add --yes to erase without a question", returncode=2
            )
        self.stderr.write(f"To be erased for good: {_words(forgotten)}.")
        if forgotten.orders:
            self.stderr.write(
                "Their standing orders go on, under a keyed fingerprint of the number."
                if keep_orders
                else "Their standing orders end: the agent answers this person again. With "
                "--keep-orders they go on, under a keyed fingerprint of the number."
            )
        if input("Type yes to go on: ").strip().lower() != "yes":
            raise CommandError("nothing was erased")

    def _verify(self, number: str) -> None:
        found = [f"{trace.table}.{trace.column}: row {trace.pk}" for trace in traces(number)]
        if found:
            raise CommandError("still named in:\n" + "\n".join(found))
        self.stdout.write("named nowhere")


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return ""


def _words(forgotten: Forgotten) -> str:
    return ", ".join(f"{number} {name}" for name, number in asdict(forgotten).items())
