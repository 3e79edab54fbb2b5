"""Looking for standing orders, against the copying that it goes with.

    python -m benchmarks.standing [--orders 100000] [--pages 50]

Pages of new conversations are written with so many orders in force, none of which is about them;
then a whole sync reads such pages from the stand-in for Bland, a process of its own. Printed are
the statements of the look, and its share of this process's time, both in one run: of writing alone,
and of the sync. ``DATABASE_URL`` names another database than SQLite; its tables are emptied.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

PAGE = 100


def page(number: int) -> list[Any]:
    from bland_sms.payloads import ConversationPayload

    begin, now = datetime(2026, 1, 1, tzinfo=timezone.utc), datetime.now(timezone.utc)
    found = []
    for index in range(number * PAGE, (number + 1) * PAGE):
        moment = (begin + timedelta(seconds=index)).isoformat(timespec="milliseconds")
        row = {
            "id": f"3b0a0000-0000-4000-8000-{index:012d}",
            "user_number": f"+1666{index:07d}",
            "agent_number": "+15550190001",
            "is_active": True,
            "created_at": moment.replace("+00:00", "Z"),
            "updated_at": moment.replace("+00:00", "Z"),
            "last_message": f"Thank you, that was all. Number {index}",
            "message_count": index % 40,
            "variables": {"first_name": "Ada", "order": str(index)},
        }
        found.append(replace(ConversationPayload.from_json(row), observed_at=now))
    return found


class Share:
    """What part of some work the look is, by this process's time."""

    def __init__(self) -> None:
        from bland_sms import mirror

        [self._look, *_others] = mirror.watchers
        mirror.watchers[0] = self._timed
        self._seconds = 0.0

    def _timed(self, rows: Any) -> None:
        began = time.process_time()
        self._look(rows)
        self._seconds += time.process_time() - began

    def of(self, work: Callable[[], object]) -> tuple[float, float]:
        """Seconds of the work, and the look's part of it."""
        self._seconds, began = 0.0, time.process_time()
        work()
        total = time.process_time() - began
        return total, self._seconds / total


def measure(orders: int, pages: int, sandbox_url: str) -> None:
    from django.conf import settings
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    from bland_sms import sync
    from bland_sms.mirror import apply_page
    from bland_sms.models import Conversation, StandingOrder, SyncRun

    for model in (Conversation, StandingOrder, SyncRun):
        model.objects.all().delete()
    StandingOrder.objects.bulk_create(
        (
            StandingOrder(customer_key=f"1777{number:07d}", reason="asked", source="command")
            for number in range(orders)
        ),
        batch_size=5000,
    )
    share = Share()
    portions = [page(number) for number in range(pages)]
    apply_page(portions[0])
    with CaptureQueriesContext(connection) as queries:
        apply_page(portions[1])
    looks = [one for one in queries if "standingorder" in one["sql"]]

    def write() -> None:
        for portion in portions[2:]:
            apply_page(portion)

    total, part = share.of(write)
    print(f"{orders} orders in force, pages of {PAGE} conversations, none of them ordered")
    print(f"queries for orders on one page: {len(looks)}")
    print(f"writing a page: {total / (pages - 2) * 1000:.1f} ms, the look {part:.1%}")
    Conversation.objects.all().delete()
    settings.BLAND_SMS = {"API_KEY": "sandbox-key", "BASE_URL": sandbox_url, "RATE_LIMIT": 1000}
    total, part = share.of(lambda: sync.run(full=True))
    seen = SyncRun.objects.latest("pk").seen
    print(f"a sync of {seen} new conversations: {total:.1f} s, the look {part:.1%}")
    # Without its fingerprint a row that the list repeats is compared, and found to be different.
    Conversation.objects.update(message_count=-1, listed="")
    total, part = share.of(lambda: sync.run(full=True))
    changed = SyncRun.objects.latest("pk").changed
    assert changed == seen, f"only {changed} of {seen} have changed: this measures something else"
    print(f"a sync of {changed} that have changed: {total:.1f} s, the look {part:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--orders", type=int, default=100_000)
    parser.add_argument("--pages", type=int, default=50)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("DATABASE_URL", f"sqlite:///{folder}/benchmark.sqlite3")
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
        os.environ.setdefault("DJANGO_SECRET_KEY", "benchmark")
        os.environ.setdefault("DJANGO_DEBUG", "0")
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)
        command = ["manage.py", "bland_sms_sandbox", "--port", "0"]
        command += ["--seed", str(asked.pages * PAGE)]
        stand_in = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
        with stand_in:
            assert stand_in.stdout is not None
            found = re.search(r"http://\S+", stand_in.stdout.readline())
            assert found is not None
            try:
                measure(asked.orders, asked.pages, found.group())
            finally:
                stand_in.terminate()


if __name__ == "__main__":
    main()
