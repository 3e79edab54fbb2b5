"""Process webhook deliveries again."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from bland_sms import standing
from bland_sms.models import WebhookDelivery
from bland_sms.webhooks import Worked, reprocess

ROWS_PER_STATEMENT = 500


class Command(BaseCommand):
    help = "Copy the conversations that webhook deliveries name from Bland once more."

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="reprocess")
        again = verbs.add_parser("reprocess", help="process deliveries again")
        again.add_argument("ids", nargs="*", type=int, metavar="ID", help="ids of deliveries")
        again.add_argument("--failed", action="store_true", help="all failed deliveries")

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = list(dict.fromkeys(options["ids"]))
        if not wanted and not options["failed"]:
            raise CommandError("name the ids of deliveries, or --failed", returncode=2)
        known = set(WebhookDelivery.objects.filter(pk__in=wanted).values_list("pk", flat=True))
        problems = [f"there is no delivery {pk}" for pk in wanted if pk not in known]
        ids = [pk for pk in wanted if pk in known]
        if options["failed"]:
            failed = WebhookDelivery.objects.filter(state=WebhookDelivery.State.FAILED)
            ids += failed.exclude(pk__in=ids).order_by("pk").values_list("pk", flat=True)
        total = Worked()
        for begin in range(0, len(ids), ROWS_PER_STATEMENT):
            worked = reprocess(ids[begin : begin + ROWS_PER_STATEMENT])
            total.processed += worked.processed
            total.put_off += worked.put_off
            total.failed |= worked.failed
            if worked.stop is not None:
                problems.append(f"stopped: {worked.stop}")
                break
        standing.carry_out_waiting()
        self.stdout.write(
            f"{total.processed} processed, {total.put_off} wait, {len(total.failed)} failed"
        )
        problems += [f"{pk}: {failure.code}: {failure}" for pk, failure in total.failed.items()]
        if problems:
            raise CommandError("\n".join(problems))
