"""Standing orders from the command line: keep customers' conversations inactive, or lift that."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from datetime import datetime
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from bland_sms import standing
from bland_sms.customers import bare
from bland_sms.management.id_files import decoded
from bland_sms.models import StandingOrder

MOST_LISTED = 1000


class Command(BaseCommand):
    help = (
        "Keep customers inactive: whatever shows a new active conversation of theirs has it "
        "deactivated, until the order is lifted or its time is over."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        verb = parser.add_mutually_exclusive_group(required=True)
        verb.add_argument("--add", action="store_true", help="make an order for each customer")
        verb.add_argument("--lift", action="store_true", help="lift the orders of each customer")
        verb.add_argument("--list", action="store_true", help="list the orders that are not over")
        parser.add_argument("customers", nargs="*", metavar="CUSTOMER", help="numbers or addresses")
        parser.add_argument("--from-file", metavar="FILE", help="one customer a line; - is stdin")
        parser.add_argument("--reason", default="", help="needed with --add")
        parser.add_argument(
            "--until",
            metavar="TIME",
            help="a date or time, or a number of days such as 30d; without it: for good",
        )
        parser.add_argument("--our-number", default="", metavar="NUMBER", help="with it only")
        parser.add_argument("--json", action="store_true", help="print the outcome as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        self.as_json: bool = options["json"]
        if options["list"]:
            self._tell(StandingOrder.objects.filter(StandingOrder.not_over())[:MOST_LISTED], [])
            return
        customers = self._customers(options["customers"], options["from_file"])
        if not customers:
            raise CommandError("name at least one customer", returncode=2)
        done: list[StandingOrder] = []
        problems: list[str] = []
        if options["add"]:
            if not options["reason"].strip():
                raise CommandError("--add needs a --reason", returncode=2)
            until = _moment(options["until"])
            for number, customer in enumerate(customers, 1):
                try:
                    done.append(
                        standing.make(
                            customer,
                            options["reason"],
                            agent_number=options["our_number"],
                            until=until,
                        )
                    )
                except standing.OrderError as error:
                    # Not the number itself: what is written here ends up in logs.
                    problems.append(f"line {number} (…{customer[-2:]}): {error.code}: {error}")
        else:
            for number, customer in enumerate(customers, 1):
                try:
                    orders = standing.orders_of(customer, options["our_number"])
                except standing.OrderError as error:
                    problems.append(f"line {number} (…{customer[-2:]}): {error.code}: {error}")
                    continue
                done += standing.lift_many(orders)
                if not orders:
                    problems.append(f"line {number} (…{customer[-2:]}): no order is in force")
        self._tell(done, problems)
        if problems:
            raise CommandError("\n".join(problems))

    def _customers(self, arguments: list[str], file_name: str | None) -> list[str]:
        lines = list(arguments)
        if file_name == "-" or (not arguments and file_name is None and not sys.stdin.isatty()):
            lines += sys.stdin.read().splitlines()
        elif file_name is not None:
            try:
                lines += decoded(Path(file_name).read_bytes()).splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise CommandError(f"{file_name}: {error}", returncode=2) from None
        return list(dict.fromkeys(line.strip() for line in lines if bare(line)))

    def _tell(self, orders: Any, problems: list[str]) -> None:
        told = [_as_dict(order) for order in orders]
        if self.as_json:
            self.stdout.write(json.dumps({"orders": told, "problems": problems}))
            return
        for order in told:
            until = order["until"] or "for good"
            words = (
                f"order {order['id']}: {order['state']}, {until}, applied {order['applied_count']}"
            )
            if order["suspended_code"]:
                words += f", {order['suspended_code']}: {order['suspended_message']}"
            self.stdout.write(words)


def _as_dict(order: StandingOrder) -> dict[str, Any]:
    order.refresh_from_db()
    return {
        "id": order.pk,
        "state": order.state,
        "reason": order.reason,
        "agent_number": order.agent_number,
        "until": order.until.isoformat() if order.until else None,
        "applied_count": order.applied_count,
        "suspended_code": order.suspended_code,
        "suspended_message": standing.suspended_words(order),
    }


def _moment(text: str | None) -> datetime | None:
    """A time from a date, a time, or a number of days. Raises CommandError."""
    if text is None:
        return None
    try:
        return standing.read_until(text)
    except (ValueError, OverflowError):
        raise CommandError(f"--until: {text!r} is no time", returncode=2) from None
