"""Say whether all is well."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.core.serializers.json import DjangoJSONEncoder

from bland_sms.health import Health, look
from bland_sms.summary import COLUMNS, LONGEST_DAYS, STEPS, as_data, days_of, read


class Command(BaseCommand):
    help = "Say whether the copy is fresh and the work gets done. Asks the database, never Bland."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print it as JSON")
        parser.add_argument(
            "--summary",
            choices=STEPS,
            nargs="?",
            const="day",
            help="print what happened by day, week or month instead",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["summary"]:
            self._summary(options["summary"], as_json=options["json"])
            return
        health = look()
        if options["json"]:
            self.stdout.write(json.dumps(asdict(health), cls=DjangoJSONEncoder))
        elif health.status != "database":
            self.stdout.write(_words(health))
        if not health.is_ok:
            raise CommandError(f"{health.status}: {health.words}")

    def _summary(self, step: str, *, as_json: bool) -> None:
        found = read(step, *days_of(step, None, None, LONGEST_DAYS))
        if as_json:
            self.stdout.write(json.dumps(as_data(found), cls=DjangoJSONEncoder))
            return
        self.stdout.write("\t".join(["first_day", "last_day", *COLUMNS, "seconds_to_hand_off"]))
        for period in found.periods:
            counts = [str(period.numbers.counts[kind]) for kind in COLUMNS]
            seconds = period.numbers.seconds_to_hand_off
            took = "" if seconds is None else str(seconds)
            self.stdout.write("\t".join([str(period.first), str(period.last), *counts, took]))


def _delay(health: Health) -> str:
    """How long it takes here until they see a new conversation."""
    told = ["by webhook: seconds"] * health.orders_by_webhook
    if health.orders_timer_seconds is not None:
        told.append(f"by timer: up to {health.orders_timer_seconds} seconds")
    return "; ".join(told) or "neither webhooks nor a timer tell them of new conversations"


def _words(health: Health) -> str:
    copied = "never copied from Bland as a whole"
    if health.synced_at is not None:
        copied = f"copied from Bland {health.age_seconds} seconds ago"
    paused = []
    if health.updates_paused and health.paused_until is not None:
        until = health.paused_until.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
        paused = [f"paused: {health.updates_paused} updates, tried again at {until}"]
    return "\n".join(
        [
            f"{health.status}: {copied}",
            f"updates: {health.updates_waiting} waiting, {health.updates_running} running, "
            f"{health.updates_stopped} stopped",
            f"webhooks: {health.deliveries_waiting} waiting, {health.deliveries_failed} failed",
            f"not found at Bland: {health.conversations_missing} conversations",
            f"standing orders: {_delay(health)}, {health.orders_suspended} suspended",
            *paused,
            *(f"waits for a person: {what}" for what in health.waiting_for_a_person),
        ]
    )
