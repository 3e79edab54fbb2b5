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
from bland_sms.pasting import ListError
from bland_sms.standing import Wish

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
        parser.add_argument(
            "--from-file",
            metavar="FILE",
            help="one customer a line, or the CSV of the page; - is stdin",
        )
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
        wishes = self._wishes(options["customers"], options["from_file"])
        if not wishes:
            raise CommandError("name at least one customer", returncode=2)
        done: list[StandingOrder] = []
        problems: list[str] = []
        if options["add"]:
            if not options["reason"].strip() and not all(wish.reason for wish in wishes):
                raise CommandError("--add needs a --reason", returncode=2)
            until = _moment(options["until"])
            outcomes = standing.make_many(
                wishes, options["reason"], agent_number=options["our_number"], until=until
            )
            for wish, outcome in zip(wishes, outcomes, strict=True):
                if isinstance(outcome, StandingOrder):
                    done.append(outcome)
                else:
                    problems.append(_problem(wish, f"{outcome.code}: {outcome}"))
        else:
            for wish in wishes:
                try:
                    orders = standing.orders_of(
                        wish.customer, options["our_number"] or wish.agent_number or ""
                    )
                except standing.OrderError as error:
                    problems.append(_problem(wish, f"{error.code}: {error}"))
                    continue
                done += standing.lift_many(orders)
                if not orders:
                    problems.append(_problem(wish, "no order is in force"))
        self._tell(done, problems)
        if problems:
            raise CommandError("\n".join(problems))

    def _wishes(self, arguments: list[str], file_name: str | None) -> list[Wish]:
        """Whom: a customer a line, each once, or a table that may say more of each."""
        text = ""
        if file_name == "-" or (not arguments and file_name is None and not sys.stdin.isatty()):
            text = sys.stdin.read()
        elif file_name is not None:
            try:
                text = decoded(Path(file_name).read_bytes())
            except (OSError, UnicodeDecodeError) as error:
                raise CommandError(f"{file_name}: {error}", returncode=2) from None
        named = [Wish(one, number) for number, one in enumerate(_lines(arguments), 1)]
        if not standing.is_table(text):
            lines = [one for one in _lines(text.splitlines()) if one not in arguments]
            return named + [Wish(one, number) for number, one in enumerate(lines, len(named) + 1)]
        try:
            return named + standing.read_customers(text)
        except ListError as error:
            raise CommandError(f"{file_name}: {error}", returncode=2) from None

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


def _lines(lines: list[str]) -> list[str]:
    return list(dict.fromkeys(line.strip() for line in lines if bare(line)))


def _problem(wish: Wish, words: str) -> str:
    """Without the number itself: what is written here ends up in logs."""
    return f"line {wish.number} (…{wish.customer[-2:]}): {words}"


def _moment(text: str | None) -> datetime | None:
    """A time from a date, a time, or a number of days. Raises CommandError."""
    if text is None:
        return None
    try:
        return standing.read_until(text)
    except (ValueError, OverflowError):
        raise CommandError(f"--until: {text!r} is no time", returncode=2) from None
