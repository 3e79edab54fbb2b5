"""Every page of the admin and the API with few rows and with many, beside plain ones.

    python -m benchmarks.pages [--rows 100000]
    python -m benchmarks.pages --filled 10000 1000000

The first prints the statements and the time of each page at 100 rows and at that many, and where
there is one the time of the page that Django's ``ModelAdmin`` or DRF's ``ModelViewSet`` makes of
the same rows without our help. The second, on PostgreSQL, lets the database fill itself with so
many conversations, three messages and two events for each, and prints how much longer each page
takes at the larger number. A page of a list is as full with few conversations as with many, so
that full pages are compared. All of it in one run: the machine's own speed cancels out.
``DATABASE_URL`` names another database than SQLite; it is used through a test database, made and
dropped. Exits with 1 when the number of statements of a page depends on the number of rows, or
when a page of the second kind takes twice as long with many.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from datetime import date, timedelta
from typing import Any

FEW = 100
ASKED = 5
PATIENCE_SECONDS = 5.0
"""A page that takes longer is asked for once."""
MOST_RATIO = 2.0
MOST_MORE = 3
"""Statements with many rows beside those with few, whatever their number: a list of more than it
counts first asks how far it would have to walk."""
NOISE_SECONDS = 0.005
"""Differences below it are the machine's."""
SELECTED = ("+16660000003", "+16660000004", "+16660000005", "+16660000006")
"""Our numbers of the large draft: about a tenth of all conversations."""
LARGE = "a tenth of all"
"""Why the large draft, and the update that is open beside it, were made."""
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
    parser.add_argument("--filled", type=int, nargs=2, metavar=("FEW", "MANY"))
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
        is_flat = compare_filled(*given.filled) if given.filled else compare(given.rows)
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


def compare_filled(few: int, many: int) -> bool:
    from django.contrib.auth import get_user_model
    from django.test import Client

    from benchmarks.filling import grow, settle
    from bland_sms.summary import close_days
    from bland_sms.wordsearch import create
    from tests.pages import FEWEST_FILLED, Rows, measure

    owner = get_user_model().objects.create_superuser("dana")
    browser = Client()
    browser.force_login(owner)
    rows = Rows(owner)
    rows.grow_to(FEWEST_FILLED)
    size, statements, seconds = FEWEST_FILLED, {}, {}
    for wanted in (few, many):
        began = time.perf_counter()
        grow(size, wanted)
        close_days()
        create()
        size = wanted
        print(f"{size} conversations, made in {time.perf_counter() - began:.0f} s", flush=True)
        urls = {**rows.urls(), **filled_urls(owner)}
        settle()
        statements[size] = {name: measure(browser, url) for name, url in urls.items()}
        seconds[size] = {name: time_of(browser, url) for name, url in urls.items()}
    return show_ratios(statements, seconds)


def filled_urls(owner: Any) -> dict[str, str]:
    """Pages that only matter with many rows, the confirmation of a large draft among them."""
    from django.conf import settings

    from bland_sms.admin.confirmation import keep_preview
    from bland_sms.admin.sight import Sight
    from bland_sms.models import BulkUpdate, Conversation
    from bland_sms.updates import prepare, start

    # As many open updates at each size: each is compared with the draft.
    BulkUpdate.objects.filter(reason=LARGE).delete()
    settings.BLAND_SMS = {**settings.BLAND_SMS, "BULK_LIMIT": 1_000_000}
    chosen = Conversation.objects.filter(agent_number__in=SELECTED)
    draft = prepare(chosen, False, requested_by=owner, reason=LARGE)
    keep_preview(draft, chosen, Sight(None, with_numbers=True, with_words=True))
    started = prepare(chosen, True, requested_by=owner, reason=LARGE)
    start(started)
    admin, api = "/admin/bland_sms", "/bland-sms/api/v1"
    number, update = "%2B16660000001", f"{admin}/bulkupdate/{started.pk}"
    timed_out = f"status=timed_out&our_number={number}"
    last = date.today() - timedelta(days=270)
    month = f"{last - timedelta(days=29)}:{last}"
    return {
        "list: status and our number": f"{admin}/conversation/?{timed_out}",
        "list: status and 7 days": f"{admin}/conversation/?status=active&activity=7d",
        "list: older than 90 days": f"{admin}/conversation/?activity=older90",
        "list: page 150": f"{admin}/conversation/?p=150",
        "list: failed here": f"{admin}/conversation/?change=failed&status=timed_out",
        "list: what began in a month, long ago": f"{admin}/conversation/?event=started:{month}",
        "summary: by month": f"{admin}/conversation/summary/?step=month",
        "summary: one number": f"{admin}/conversation/summary/?our_number={number}",
        "messages: a rare word": f"{admin}/conversation/messages/?q=number+777",
        "messages: a frequent word": f"{admin}/conversation/messages/?q=yes",
        "API: status and our number": f"{api}/conversations/?status=active&agent_number={number}",
        "API: summary by month": f"{api}/summary/?step=month",
        "large draft: confirm": f"{admin}/bulkupdate/{draft.pk}/confirm/",
        "large update: page": f"{update}/change/",
        "large update: progress": f"{update}/progress/",
        "large update: API": f"{api}/bulk-updates/{started.pk}/",
    }


def show_ratios(
    statements: dict[int, dict[str, int]], seconds: dict[int, dict[str, float]]
) -> bool:
    few, many = sorted(statements)
    print(f"\nmilliseconds of a page, the middle of {ASKED}")
    print(f"{'':48} {'statements':>10} {few:>9} {many:>9}  ratio")
    is_flat = True
    for name in sorted(seconds[many]):
        before, after = seconds[few][name], seconds[many][name]
        cost = [statements[size][name] for size in (few, many)]
        is_slow = after - before > NOISE_SECONDS and after > MOST_RATIO * before
        is_flat = is_flat and not is_slow and cost[1] - cost[0] <= MOST_MORE
        words = str(cost[0]) if cost[0] == cost[1] else f"{cost[0]} -> {cost[1]}"
        ratio = f"x{after / before:.2f}{' <' if is_slow else ''}"
        print(f"{name[:48]:48} {words:>10} {shown(before)} {shown(after)}  {ratio}")
    return is_flat


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
