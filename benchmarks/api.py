"""Pages of the REST API, against the viewset that anybody would write first.

    python -m benchmarks.api [--rows 200000]

The other one is DRF's ModelViewSet with its own page numbers, filters and search. Both answer in
one run with pages of 50, over the same rows: what counts is the ratio. Beside it stands how long
the database works for ours, which is the same at any size.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

OURS = "/bland-sms/api/v1/conversations/"
FIRST_DAY = datetime(2026, 1, 1, tzinfo=timezone.utc)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=200_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
        os.environ.setdefault("DATABASE_URL", f"sqlite:///{folder}/benchmark.sqlite3")
        import django
        from django.conf import settings
        from django.core.management import call_command

        settings.DEBUG = False
        settings.ALLOWED_HOSTS = ["testserver"]
        settings.BLAND_SMS = {"API_KEY": "org_benchmark_key"}
        django.setup()
        call_command("migrate", verbosity=0, skip_checks=True)
        fill(given.rows)
        measure(given.rows)


def fill(number: int) -> None:
    from bland_sms.models import Conversation

    chance = random.Random(1)
    for begin in range(0, number, 5000):
        rows = []
        for place in range(begin, min(begin + 5000, number)):
            share = chance.random()
            moment = FIRST_DAY + timedelta(seconds=chance.randrange(10**7))
            row = Conversation(
                pk=f"{chance.getrandbits(64):016x}",
                user_number=f"+1555{place:07d}",
                agent_number=f"+1800555{place % 37:04d}",
                is_active=share < 0.1,
                timed_out_at=moment if share > 0.5 else None,
                created_at=moment,
                updated_at=moment,
                last_message="a text of about forty characters, or more",
            )
            row.derive()
            rows.append(row)
        Conversation.objects.bulk_create(rows, batch_size=1000)


def naive_view() -> Callable[..., Any]:
    from rest_framework import filters, pagination, serializers, viewsets

    from bland_sms.models import Conversation

    class Pages(pagination.PageNumberPagination):
        page_size = 50

    class Serializer(serializers.ModelSerializer[Conversation]):
        class Meta:
            model = Conversation
            fields = "__all__"

    class Naive(viewsets.ModelViewSet):  # type: ignore[type-arg]
        queryset = Conversation.objects.order_by("-updated_at")
        serializer_class = Serializer
        pagination_class = Pages
        filter_backends = (filters.SearchFilter,)
        search_fields = ("user_number", "id")

        def get_queryset(self) -> Any:
            given = {
                name: self.request.query_params[name]
                for name in ("is_active", "status", "agent_number")
                if name in self.request.query_params
            }
            return super().get_queryset().filter(**given)

    return Naive.as_view({"get": "list"})


def measure(number: int) -> None:
    from django.contrib.auth import get_user_model
    from django.db import connection
    from django.test import Client, RequestFactory
    from rest_framework.test import force_authenticate

    user = get_user_model().objects.create_superuser("dana")
    client, requests, view = Client(), RequestFactory(), naive_view()
    client.force_login(user)
    in_database = 0.0

    def watch(execute: Any, *arguments: Any) -> Any:
        nonlocal in_database
        began = time.perf_counter()
        try:
            return execute(*arguments)
        finally:
            in_database += time.perf_counter() - began

    def ours(query: dict[str, str]) -> Any:
        return client.get(OURS, query)

    def naive(query: dict[str, str]) -> Any:
        request = requests.get("/", query)
        force_authenticate(request, user)
        return view(request).render()

    def milliseconds(ask: Callable[[dict[str, str]], Any], query: dict[str, str]) -> float:
        spent = []
        for _time in range(3):
            began = time.perf_counter()
            answer = ask(query)
            spent.append(1000 * (time.perf_counter() - began))
            assert answer.status_code == 200, answer.content
        return statistics.median(spent)

    half = int(timedelta(seconds=10**7 / 2) / timedelta(microseconds=1))
    half += int((FIRST_DAY - datetime(1970, 1, 1, tzinfo=timezone.utc)).total_seconds()) * 10**6
    digits = f"{number // 2:07d}"
    cases = {
        "first page": ({}, {}),
        "active ones": ({"is_active": "true"}, {"is_active": "True"}),
        "inactive ones": ({"is_active": "false"}, {"is_active": "False"}),
        "timed out": ({"status": "timed_out"}, {"status": "timed_out"}),
        "one of our numbers": (2 * ({"agent_number": "+18005550003"},)),
        "half way down": ({"cursor": f"n{half}.0"}, {"page": str(number // 100)}),
        "last four digits": (2 * ({"search": digits[-4:]},)),
        "a whole number": (2 * ({"search": f"+1555{digits}"},)),
    }
    ours({})
    print(f"{number} rows: milliseconds for a page of 50")
    print(f"{'':20}{'DRF':>9}{'ours':>9}{'ratio':>8}{'database':>10}")
    for name, (query, naive_query) in cases.items():
        slow = milliseconds(naive, naive_query)
        in_database = 0.0
        with connection.execute_wrapper(watch):
            fast = milliseconds(ours, query)
        database = 1000 * in_database / 3
        print(f"{name:20}{slow:9.1f}{fast:9.1f}{slow / fast:7.1f}x{database:10.2f}")


if __name__ == "__main__":
    main()
