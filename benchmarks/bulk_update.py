"""Deactivating conversations, against twenty good lines and the loop that anybody writes first.

    python -m benchmarks.bulk_update [--rows 1000] [--latency 0.05] [--workers 16] [--tls]
        [--against FOLDER] [--database-latency 0.002] [--repeat 3] [--naive] [--first]

Every contender is a process of its own with a database of its own, one after the other, so that the
machine's own speed cancels out; Bland's stand-in is another process. Its modules are imported when
the clock starts. It is a fresh worker of an account that was asked before, whose pace its database
knows; with ``--first`` nobody asked yet, and the pace begins at 20 a second. ``--against`` names a
checkout of another commit. ``DATABASE_URL`` says which database, SQLite without it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

KEY = "org_benchmark_key"


# --- the contenders ---------------------------------------------------------------------------


def naive(given: argparse.Namespace) -> None:
    """``requests.patch`` and ``save()`` for one row after the other."""
    import requests
    from django.utils.dateparse import parse_datetime

    from bland_sms.models import Conversation

    for conversation in Conversation.objects.order_by("pk")[: given.rows]:
        answer = requests.patch(
            f"{given.url}/v1/sms/conversations/{conversation.pk}",
            json={"is_active": False},
            headers={"authorization": KEY},
            timeout=30,
            verify=given.ca or True,
        ).json()["conversation"]
        conversation.is_active = answer["is_active"]
        conversation.updated_at = parse_datetime(answer["updated_at"])
        conversation.save()


def twenty(given: argparse.Namespace) -> None:
    """requests, a thread pool, one bulk write: no ledger, nothing that survives a crash."""
    import requests
    from django.utils.dateparse import parse_datetime

    from bland_sms.models import Conversation

    local = threading.local()

    def patch(conversation: Conversation) -> Conversation:
        if not hasattr(local, "session"):
            local.session = requests.Session()
            local.session.headers["authorization"] = KEY
            local.session.verify = given.ca or True
        answer = local.session.patch(
            f"{given.url}/v1/sms/conversations/{conversation.pk}",
            json={"is_active": False},
            timeout=30,
        ).json()["conversation"]
        conversation.is_active = answer["is_active"]
        conversation.updated_at = parse_datetime(answer["updated_at"])
        return conversation

    with ThreadPoolExecutor(given.workers) as pool:
        done = list(pool.map(patch, Conversation.objects.order_by("pk")[: given.rows]))
    Conversation.objects.bulk_update(done, ["is_active", "updated_at"], batch_size=500)


def ours(given: argparse.Namespace) -> None:
    """Prepare, start and run, as every door does."""
    from django.contrib.auth import get_user_model

    from bland_sms.models import Conversation
    from bland_sms.updates import prepare, run, start

    selected = Conversation.objects.filter(is_active=True).order_by("pk")[: given.rows]
    who = get_user_model().objects.get(username="dana")
    bulk_update = prepare(selected, False, requested_by=who, source="admin")
    start(bulk_update)
    done = run(bulk_update)
    assert done, bulk_update.counts()


CONTENDERS = {"ours": ours, "against": ours, "twenty": twenty, "naive": naive}


def take_part(given: argparse.Namespace) -> None:
    """One contender, in a fresh process: prints what it took."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
    os.environ.setdefault("DATABASE_URL", f"sqlite:///{given.folder}/db.sqlite3")
    import django
    from django.conf import settings
    from django.contrib.auth import get_user_model
    from django.db import connection

    settings.DEBUG = False
    database = settings.DATABASES["default"]
    is_sqlite = "sqlite" in database["ENGINE"]
    name = f"{given.folder}/{given.contender}.sqlite3" if is_sqlite else "bland_sms_benchmark"
    database["TEST"] = {"NAME": name}
    settings.BLAND_SMS = {
        "API_KEY": KEY,
        "BASE_URL": given.url,
        "MAX_CONCURRENCY": given.workers,
        "CA_BUNDLE": given.ca or None,
    }
    django.setup()
    from bland_sms.models import Conversation

    connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
    try:
        Conversation.objects.bulk_create(
            (Conversation(pk=f"conv_{number}") for number in range(given.rows)), batch_size=500
        )
        get_user_model().objects.create_superuser("dana")
        warm_up(given)
        if given.port:
            connection.close()
            connection.settings_dict.update(HOST="127.0.0.1", PORT=given.port)
        connection.force_debug_cursor = given.count
        connection.queries_log.clear()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        began, cpu = time.perf_counter(), time.process_time()
        CONTENDERS[given.contender](given)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        statements = len(connection.queries_log) - 1
        connection.force_debug_cursor = False
        if given.count and given.show:
            for query in connection.queries_log:
                print(query["time"], query["sql"][:150], file=sys.stderr)
        left = Conversation.objects.filter(is_active=True).count()
        assert left == 0, f"{left} rows are still active"
    finally:
        if given.port:
            connection.close()
            connection.settings_dict.update(HOST=database["HOST"], PORT=database["PORT"])
        connection.creation.destroy_test_db(connection.settings_dict["NAME"], verbosity=0)
    print(json.dumps({"seconds": seconds, "cpu": cpu, "statements": statements}))


def warm_up(given: argparse.Namespace) -> None:
    """What a fresh worker has imported, and what it finds of an account that was asked before."""
    import requests  # noqa: F401

    import bland_sms.updates

    if given.contender not in ("ours", "against"):
        return
    assert bland_sms.updates.run  # it is imported when it is first used
    if not given.first:
        with contextlib.suppress(ImportError):  # a commit that remembers no pace
            remember_pace(2 * 0.8 * given.workers / given.latency)


def remember_pace(rate: float) -> None:
    """As an earlier process does that Bland never refused: twice its busiest second."""
    from bland_sms.models import AccountPace
    from bland_sms.pacing.rate import Known
    from bland_sms.pacing.shares import State

    AccountPace.objects.update_or_create(pk=1, defaults={"state": State(Known(rate)).to_json()})


# --- the race ---------------------------------------------------------------------------------


def measure(given: argparse.Namespace, contender: str, *, count: bool) -> dict[str, float]:
    folder = given.against if contender == "against" else Path(__file__).resolve().parent.parent
    names = ("rows", "workers", "latency", "url", "folder")
    options = [f"--{name}={getattr(given, name)}" for name in names]
    options += [f"--ca={given.ca}", f"--port={given.port}", f"--contender={contender}"]
    flags = {"--count": count, "--show": given.show, "--first": given.first}
    done = subprocess.run(
        [sys.executable, __file__, *options, *(name for name, on in flags.items() if on)],
        env={**os.environ, "PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


def race(given: argparse.Namespace) -> None:
    names = ["ours", "twenty", *(["against"] if given.against else [])]
    names += ["naive"] if given.naive else []
    if given.only:
        names = [given.only]
    ideal = given.rows * given.latency / given.workers
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(given.repeat):
        for name in names:
            found[name].append(measure(given, name, count=False))
    print(f"{given.rows} rows, {given.latency * 1000:.0f} ms, {given.workers} threads: median")
    print(f"{'':10}{'rows/s':>8}{'of limit':>10}{'CPU ms/row':>12}{'statements':>12}")
    for name in names:
        seconds = statistics.median(one["seconds"] for one in found[name])
        cpu = statistics.median(one["cpu"] for one in found[name])
        statements = int(measure(given, name, count=True)["statements"])
        share = f"{ideal / seconds:10.2f}" if name != "naive" else f"{'':10}"
        print(
            f"{name:10}{given.rows / seconds:8.0f}{share}{cpu * 1000 / given.rows:12.2f}"
            f"{statements:12d}"
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--against", type=Path, help="a checkout of another commit")
    parser.add_argument("--database-latency", type=float, default=0.0)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--naive", action="store_true")
    parser.add_argument("--first", action="store_true", help="the account was never asked before")
    parser.add_argument("--only", choices=CONTENDERS)
    parser.add_argument("--show", action="store_true", help="print the statements")
    for name in ("contender", "url", "folder", "ca"):
        parser.add_argument(f"--{name}", default="", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--count", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contender:
        take_part(given)
        return

    from benchmarks import stand_in

    with tempfile.TemporaryDirectory() as folder:
        given.folder = folder
        with stand_in.bland(given.latency, folder if given.tls else None) as given.url:
            given.ca = f"{folder}/ca.pem" if given.tls else ""
            if not given.database_latency:
                race(given)
                return
            host = os.environ.get("DATABASE_SOCKET", "/var/run/postgresql/.s.PGSQL.5432")
            with stand_in.far_database(given.database_latency, host) as given.port:
                race(given)


if __name__ == "__main__":
    sys.exit(main())
