"""Every page of the admin and the API with few rows and with many, beside plain ones.

    python -m benchmarks.pages [--rows 100000]

Prints the statements and the time of each page at 100 rows and at that many, and where there is
one the time of the page that Django's ``ModelAdmin`` or DRF's ``ModelViewSet`` makes of the same
rows without our help. All of it in one run: the machine's own speed cancels out. ``DATABASE_URL``
names another database than SQLite; it is used through a test database, made and dropped.
Exits with 1 when the number of statements of a page depends on the number of rows.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from typing import Any

FEW = 100
ASKED = 5
PATIENCE_SECONDS = 5.0
"""A page that takes longer is asked for once."""
PLAIN = {
    "admin/conversation/": "/plain/bland_sms/conversation/",
    "admin/conversation/?p=2": "/plain/bland_sms/conversation/?p=2",
    "admin/conversation/?o=1": "/plain/bland_sms/conversation/?o=1",
    "admin/conversation/?status=active": "/plain/bland_sms/conversation/?status__exact=active",
    "admin/conversation/?our_number=+16660000001": (
        "/plain/bland_sms/conversation/?agent_number=%2B16660000001"
    ),
    "admin/conversation/?q=0000077": "/plain/bland_sms/conversation/?q=0000077",
    "admin/conversation/<id>/change/": "/plain/bland_sms/conversation/conv-0000000/change/",
    "admin/bulkupdate/": "/plain/bland_sms/bulkupdate/",
    "admin/bulkupdate/<id>/change/": "/plain/bland_sms/bulkupdate/1/change/",
    "admin/syncrun/": "/plain/bland_sms/syncrun/",
    "admin/syncrun/<id>/change/": "/plain/bland_sms/syncrun/1/change/",
    "admin/webhookdelivery/": "/plain/bland_sms/webhookdelivery/",
    "admin/webhookdelivery/<id>/change/": "/plain/bland_sms/webhookdelivery/1/change/",
    "api/v1/conversations/": "/plain-api/conversations/",
    "api/v1/conversations/<id>/": "/plain-api/conversations/conv-0000000/",
    "api/v1/conversations/?status=active": "/plain-api/conversations/?status=active",
    "api/v1/conversations/?search=0000077": "/plain-api/conversations/?search=0000077",
    "api/v1/bulk-updates/": "/plain-api/bulk-updates/",
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    given = parser.parse_args()
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django
    from django.conf import settings
    from django.db import connection

    settings.ROOT_URLCONF = "benchmarks.plain_urls"
    settings.ALLOWED_HOSTS = ["testserver"]
    settings.DEBUG = False
    django.setup()
    connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
    try:
        is_flat = compare(given.rows)
    finally:
        connection.creation.destroy_test_db("", verbosity=0)
    sys.exit(0 if is_flat else 1)


def compare(number: int) -> bool:
    from django.contrib.auth import get_user_model
    from django.db import connection
    from django.test import Client

    from tests.pages import Rows, counts

    owner = get_user_model().objects.create_superuser("dana")
    browser = Client()
    browser.force_login(owner)
    rows = Rows(owner)
    statements, seconds = {}, {}
    for size in (FEW, number):
        began = time.perf_counter()
        rows.grow_to(size)
        print(f"{size} rows of each kind, made in {time.perf_counter() - began:.0f} s")
        statements[size] = counts(browser, rows)
        seconds[size] = {name: time_of(browser, url) for name, url in rows.urls().items()}
    plain = {name: time_of(browser, url) for name, url in PLAIN.items()}
    print(f"\n{connection.vendor}; milliseconds of a page, the middle of {ASKED}")
    print(f"{'':48} {'statements':>10} {FEW:>9} {number:>9} {'plain':>9}  ratio")
    for name in sorted(seconds[number]):
        few, many = statements[FEW][name], statements[number][name]
        cost = str(few) if few == many else f"{few} -> {many}"
        line = (
            f"{name[:48]:48} {cost:>10} {shown(seconds[FEW][name])} {shown(seconds[number][name])}"
        )
        if name in plain:
            line += f" {shown(plain[name])}  x{plain[name] / seconds[number][name]:.1f}"
        print(line)
    return statements[FEW] == statements[number]


def time_of(browser: Any, url: str) -> float:
    times: list[float] = []
    while len(times) < ASKED + 1:  # the first one warms up
        began = time.perf_counter()
        answer = browser.get(url)
        times.append(time.perf_counter() - began)
        assert answer.status_code == 200, f"{url}: {answer.status_code}"
        if times[-1] > PATIENCE_SECONDS:
            return times[-1]
    return statistics.median(times[1:])


def shown(seconds: float) -> str:
    return f"{seconds * 1000:9.1f}"


if __name__ == "__main__":
    main()
