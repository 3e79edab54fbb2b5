"""Freezing a large selection, and the page of a large update.

    python -m benchmarks.ledger [--rows 100000]

Prints the time and memory of a draft of that many rows beside the loop over the queryset that
it replaces, and how long the database works for the confirmation page and the update's page.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
import tracemalloc
from datetime import datetime, timezone


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
        os.environ.setdefault("DATABASE_URL", f"sqlite:///{folder}/benchmark.sqlite3")
        import django
        from django.conf import settings
        from django.core.management import call_command

        settings.DEBUG = False
        settings.ALLOWED_HOSTS = ["testserver"]
        settings.BLAND_SMS = {"API_KEY": "org_benchmark_key", "BULK_LIMIT": 1_000_000}
        django.setup()
        call_command("migrate", verbosity=0)
        measure(given.rows)


def measure(rows: int) -> None:
    from django.contrib.auth import get_user_model
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    from bland_sms.models import BulkUpdate, BulkUpdateItem, Conversation
    from bland_sms.updates import prepare, start

    moment = datetime(2026, 1, 1, tzinfo=timezone.utc)
    Conversation.objects.bulk_create(
        (
            Conversation(
                pk=f"conv_{number}",
                user_number=f"+1555{number % 60_000:07d}",
                created_at=moment,
                updated_at=moment,
            )
            for number in range(rows)
        ),
        batch_size=1000,
    )
    user = get_user_model().objects.create_superuser("dana")

    def megabytes() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    before, began = megabytes(), time.perf_counter()
    tracemalloc.start()
    draft = prepare(Conversation.objects.filter(is_active=True), False, requested_by=user)
    traced = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    seconds = time.perf_counter() - began
    resident = megabytes() - before
    print(f"freezing {rows} rows {seconds:12.2f} s  {traced:7.1f} MB, {resident:.0f} MB resident")

    began = time.perf_counter()
    tracemalloc.start()
    BulkUpdateItem.objects.bulk_create(
        (
            BulkUpdateItem(
                bulk_update=BulkUpdate.objects.create(is_active=False, source="api"),
                conversation=one,
            )
            if index == 0
            else BulkUpdateItem(bulk_update_id=draft.pk + 1, conversation=one)
            for index, one in enumerate(Conversation.objects.filter(is_active=True))
        ),
        batch_size=1000,
    )
    traced = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    print(f"the loop over the queryset {time.perf_counter() - began:6.2f} s  {traced:7.1f} MB")
    BulkUpdate.objects.filter(pk=draft.pk + 1).delete()

    client = Client()
    client.force_login(user)

    def page(name: str, url: str) -> None:
        client.get(url)
        times = []
        for _ in range(5):
            with CaptureQueriesContext(connection) as captured:
                began = time.perf_counter()
                answer = client.get(url)
                whole = time.perf_counter() - began
            assert answer.status_code == 200, answer.status_code
            database = sum(float(query["time"]) for query in captured.captured_queries)
            times.append((database * 1000, whole * 1000, len(captured.captured_queries)))
        database, whole, queries = sorted(times)[len(times) // 2]
        print(
            f"{name:26} {database:7.1f} ms of database, {whole:7.1f} ms in all, {queries} queries"
        )

    page("confirmation page", f"/admin/bland_sms/bulkupdate/{draft.pk}/confirm/")
    began = time.perf_counter()
    start(draft)
    print(f"starting it                {time.perf_counter() - began:7.2f} s")
    page("page, all waiting", f"/admin/bland_sms/bulkupdate/{draft.pk}/change/")
    page("progress", f"/admin/bland_sms/bulkupdate/{draft.pk}/progress/")
    draft.items.filter(pk__gt=0).update(
        state="changed", finished_at=datetime.now(timezone.utc), http_status=200
    )
    few = list(draft.items.values_list("pk", flat=True)[:500])
    draft.items.filter(pk__in=few).update(state="failed", error_code="http_429", http_status=429)
    finished = {"status": "finished", "counts_at_rest": draft.counts()}
    BulkUpdate.objects.filter(pk=draft.pk).update(**finished)
    page("page, finished", f"/admin/bland_sms/bulkupdate/{draft.pk}/change/")
    page("list of updates", "/admin/bland_sms/bulkupdate/")


if __name__ == "__main__":
    main()
