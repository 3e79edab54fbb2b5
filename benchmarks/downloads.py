"""The CSV of conversations: how soon it begins, how long it takes, and in how much memory.

    python -m benchmarks.downloads [--rows 60000]
    python -m benchmarks.downloads --of 4000000

The first downloads all of them, beside the same rows by one ``iterator()``, whose result MySQL's
and MariaDB's driver holds as a whole. The second lets the database fill itself with so many and
downloads those of one of our numbers, one in 37, beside the same rows in the order of their keys.
``DATABASE_URL`` names another database than SQLite; it is used through a test database, made and
dropped. Exits with 1 when the memory of the process grows by more than 40 MiB.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

MOST_MIB = 40
ROWS_PER_INSERT = 2000
NUMBER = "+16660000001"
"""Our number whose conversations are downloaded."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--of", type=int)
    given = parser.parse_args()
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django
    from django.conf import settings
    from django.db import connection

    django.setup()
    settings.ALLOWED_HOSTS = ["testserver"]
    settings.DEBUG = False
    connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
    try:
        grown = compare_filtered(given.of) if given.of else compare(given.rows)
    finally:
        connection.creation.destroy_test_db("", verbosity=0)
    sys.exit(0 if grown <= MOST_MIB else 1)


def compare(number: int) -> float:
    from django.db import connection

    from bland_sms.models import Conversation

    for begin in range(0, number, ROWS_PER_INSERT):
        Conversation.objects.bulk_create(
            Conversation(
                id=f"conv_{n:08}",
                user_number=f"+1555{n:07}",
                is_active=True,
                last_message="Your parcel arrives tomorrow. " * 60,
            )
            for n in range(begin, min(number, begin + ROWS_PER_INSERT))
        )
    browser = logged_in()

    def ours() -> Iterator[Any]:
        return exported(browser)

    def plain() -> Iterator[Any]:
        return iter(Conversation.objects.order_by("pk").values_list().iterator(chunk_size=1000))

    print(f"{connection.vendor}, {number} rows")
    grown = measure("this app", ours, number + 1)  # first: the highest mark of memory stays
    measure("iterator()", plain, number)
    return grown


def compare_filtered(of: int) -> float:
    from operator import itemgetter

    from django.db import connection

    from benchmarks.filling import grow
    from bland_sms.admin.conversation_actions import EXPORTED, EXPORTED_TEXTS
    from bland_sms.database import by_key
    from bland_sms.models import Conversation

    grow(0, of, others=False)
    browser = logged_in()
    of_number = Conversation.objects.filter(agent_number=NUMBER)
    number = of_number.count()

    def ours() -> Iterator[Any]:
        return exported(browser, f"?our_number={NUMBER.replace('+', '%2B')}")

    def plain() -> Iterator[Any]:
        return by_key(of_number.values_list(*EXPORTED, *EXPORTED_TEXTS), itemgetter(0))

    print(f"{connection.vendor}, {number} of {of} rows")
    exported(browser, "?status=active")  # the code is loaded, the connection open
    grown = measure("this app", ours, number + 1)
    measure("by key", plain, number, at_most_seconds=60)
    return grown


def logged_in() -> Any:
    from django.contrib.auth import get_user_model
    from django.test import Client

    browser = Client()
    browser.force_login(get_user_model().objects.create_superuser("dana"))
    return browser


def exported(browser: Any, query: str = "") -> Iterator[Any]:
    data = {"action": "export_selected", "_selected_action": "x", "select_across": "1"}
    response: Any = browser.post(f"/admin/bland_sms/conversation/{query}", data)
    return iter(response.streaming_content)


def measure(
    name: str,
    download: Callable[[], Iterator[Any]],
    expected: int,
    *,
    at_most_seconds: float = float("inf"),
) -> float:
    """By how many MiB the process has grown."""
    before = mebibytes()
    began = time.perf_counter()
    lines = download()
    next(lines)
    next(lines)
    first = time.perf_counter() - began
    number, is_over = 2, False
    while not is_over and time.perf_counter() - began < at_most_seconds:
        is_over = next(lines, None) is None
        number += not is_over
    assert number == expected or not is_over, f"{number} lines"
    seconds = time.perf_counter() - began
    grown = mebibytes() - before
    cut = "" if number == expected else f" for {number} of them"
    print(f"{name:12} begins after {first:6.2f} s, takes {seconds:6.1f} s{cut}, +{grown:.0f} MiB")
    return grown


def mebibytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
