"""Copying a whole account, against the loop that anybody would write first.

    python -m benchmarks.sync [--rows 20000] [--latency 0.05] [--memory]

The first copy and a repeat, beside ``update_or_create`` for one row after the other over one
page after the other, and beside the limits: the requests alone, and the writes alone. All of it
in one run: the machine's own speed cancels out. ``DATABASE_URL`` names another database than
SQLite; its tables are emptied.
"""

from __future__ import annotations

import argparse
import bisect
import json
import os
import tempfile
import time
import tracemalloc
from datetime import datetime, timedelta, timezone
from typing import Any

KEY = "org_benchmark_key"
PAGE = 100


def serve(rows: int, latency: float, address: Any) -> None:
    """The stand-in, in a process of its own, with a list that it need not sort for each page."""
    from bland_sms.sandbox import BlandSandbox
    from bland_sms.sandbox.account import DETAIL_ONLY

    sandbox = BlandSandbox(api_key=KEY, latency_seconds=latency)
    begin = datetime(2026, 1, 1, tzinfo=timezone.utc)
    for number in range(rows):
        moment = (begin + timedelta(seconds=number * 7)).isoformat(timespec="milliseconds")
        sandbox.account.add(
            {
                "id": f"3b0a0000-0000-4000-8000-{number:012d}",
                "user_number": f"+1555{number % 60_000:07d}",
                "created_at": moment.replace("+00:00", "Z"),
                "updated_at": moment.replace("+00:00", "Z"),
                "last_message": f"Thank you, that was all. Number {number}",
                "last_message_at": moment.replace("+00:00", "Z"),
                "message_count": number % 40,
                "variables": {"first_name": "Ada", "order": str(number)},
            }
        )
    everything = [
        {name: value for name, value in row.items() if name not in DETAIL_ONLY}
        for row in sandbox.account.rows.values()
    ]
    times = [row["created_at"] for row in everything]

    def list_page(query: dict[str, list[str]]) -> dict[str, Any]:
        low, high = 0, rows
        for condition in json.loads(query.get("filters", ["[]"])[0]):
            place = bisect.bisect_left(times, condition["value"])
            low, high = (place, high) if condition["operator"] == "gte" else (low, place)
        found = range(low, high)
        if query.get("sortDir") == ["desc"]:
            found = found[::-1]
        size = int(query["pageSize"][0])
        start = (int(query["page"][0]) - 1) * size
        data = [everything[index] for index in found[start : start + size]]
        return {"data": data, "errors": None, "extra": {"pagination": {"totalItems": len(found)}}}

    sandbox.account.list_page = list_page  # type: ignore[method-assign]
    address.put(sandbox.base_url)
    sandbox.serve_forever()


def naive(base_url: str) -> float:
    """One page after the other by number, and ``update_or_create`` for each row."""
    import requests
    from django.utils.dateparse import parse_datetime

    from bland_sms.models import Conversation

    columns = ("user_number", "agent_number", "is_active", "message_count", "last_message")
    began = time.perf_counter()
    page = 1
    while True:
        answer = requests.get(
            f"{base_url}/v1/sms/conversations",
            params={"page": page, "pageSize": PAGE, "sortBy": "created_at", "sortDir": "asc"},
            headers={"authorization": KEY},
            timeout=30,
        ).json()
        for row in answer["data"]:
            values = {name: row[name] for name in columns}
            for name in ("created_at", "updated_at", "last_message_at"):
                values[name] = parse_datetime(row[name])
            Conversation.objects.update_or_create(pk=row["id"], defaults=values)
        if len(answer["data"]) < PAGE:
            return time.perf_counter() - began
        page += 1


def ours(*, full: bool) -> float:
    from bland_sms import sync

    began = time.perf_counter()
    run = sync.run(full=full)
    assert run.status == "finished", run.error
    return time.perf_counter() - began


def limits(rows: int) -> tuple[float, float]:
    """The requests alone, side by side as we send them, and the writes alone."""
    from concurrent.futures import ThreadPoolExecutor

    from bland_sms.client import get_client
    from bland_sms.mirror import apply_page
    from bland_sms.sync.driver import SIDE_BY_SIDE

    client = get_client()
    began = time.perf_counter()
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        pages = list(
            pool.map(lambda page: client.list_conversations(page=page), range(1, rows // PAGE + 1))
        )
    requests_alone = time.perf_counter() - began
    empty()
    began = time.perf_counter()
    for page in pages:
        apply_page(page.conversations)
    return requests_alone, time.perf_counter() - began


def empty() -> None:
    from bland_sms.models import Conversation, SyncRun

    SyncRun.objects.all().delete()
    Conversation.objects.all().delete()


def main() -> None:
    from benchmarks.stand_in import in_a_process

    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds for each answer")
    parser.add_argument("--memory", action="store_true", help="only ours, and its memory")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        in_a_process(serve, given.rows, given.latency) as base_url,
    ):
        os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
        os.environ.setdefault("DATABASE_URL", f"sqlite:///{folder}/benchmark.sqlite3")
        import django
        from django.conf import settings
        from django.core.management import call_command

        settings.DEBUG = False
        settings.BLAND_SMS = {"API_KEY": KEY, "BASE_URL": base_url}
        django.setup()
        call_command("migrate", verbosity=0)
        empty()
        if given.memory:
            measure_memory(given.rows)
        else:
            measure(given.rows)


def measure_memory(rows: int) -> None:
    tracemalloc.start()
    seconds = ours(full=True)
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    print(f"{rows} rows, first copy: {seconds:.1f} s, {peak:.0f} MB at the most (traced)")


def measure(rows: int) -> None:
    from django.db import connection, reset_queries
    from django.test.utils import CaptureQueriesContext

    from bland_sms.models import Conversation

    requests_alone, writes_alone = limits(rows)
    empty()
    first = ours(full=True)
    repeated = ours(full=True)
    changes = ours(full=False)
    assert Conversation.objects.count() == rows
    empty()
    loop_first = naive(given_url())
    loop_repeated = naive(given_url())
    print(f"{rows} rows, {connection.vendor}")
    print(f"limits: requests alone {requests_alone:.1f} s, writes alone {writes_alone:.1f} s")
    print(f"first:   {first:6.1f} s, the loop {loop_first:6.1f} s: x{loop_first / first:.1f}")
    ratio = loop_repeated / repeated
    print(f"repeat:  {repeated:6.1f} s, the loop {loop_repeated:6.1f} s: x{ratio:.1f}")
    print(f"changes: {changes:6.2f} s: x{loop_repeated / changes:.0f}")
    reset_queries()
    with CaptureQueriesContext(connection) as queries:
        ours(full=True)
    print(f"statements for each page: {len(queries) / (rows / PAGE):.1f}")


def given_url() -> str:
    from django.conf import settings

    url: str = settings.BLAND_SMS["BASE_URL"]
    return url


if __name__ == "__main__":
    main()
