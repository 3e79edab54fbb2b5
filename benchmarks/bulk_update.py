"""Deactivating conversations, against the loop that anybody would write first.

    python -m benchmarks.bulk_update [--rows 1000] [--latency 0.05] [--workers 16] [--tls]

Prints ratios measured side by side in one run: the machine's own speed cancels out.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import ssl
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

KEY = "org_benchmark_key"


def serve(latency: float, tls: bool, folder: str, address: Any) -> None:
    """The stand-in, in a process of its own."""
    from bland_sms.sandbox import BlandSandbox

    class SlowHandshake(BlandSandbox):
        def wrap(self, connection: Any) -> Any:
            if tls:
                time.sleep(latency)
            return super().wrap(connection)

    context = None
    if tls:
        import trustme

        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        authority.cert_pem.write_to_path(f"{folder}/ca.pem")
    sandbox = SlowHandshake(api_key=KEY, latency_seconds=latency, tls=context)
    for number in range(100_000):
        sandbox.account.rows[f"conv_{number}"] = {
            "id": f"conv_{number}",
            "is_active": True,
            "updated_at": "2026-01-01T00:00:00.000Z",
        }
    address.put(sandbox.base_url)
    sandbox.serve_forever()


@contextmanager
def stand_in(latency: float, tls: bool, folder: str) -> Iterator[str]:
    address: Any = multiprocessing.Queue()
    server = multiprocessing.Process(
        target=serve, args=(latency, tls, folder, address), daemon=True
    )
    server.start()
    try:
        yield address.get(timeout=60)
    finally:
        server.terminate()
        server.join()


def naive(base_url: str, rows: int, verify: Any) -> float:
    """``requests.patch`` and ``save()`` for one row after the other."""
    import requests
    from django.utils.dateparse import parse_datetime

    from bland_sms.models import Conversation

    began = time.perf_counter()
    for conversation in Conversation.objects.order_by("pk")[:rows]:
        answer = requests.patch(
            f"{base_url}/v1/sms/conversations/{conversation.pk}",
            json={"is_active": False},
            headers={"authorization": KEY},
            timeout=30,
            verify=verify,
        ).json()["conversation"]
        conversation.is_active = answer["is_active"]
        conversation.updated_at = parse_datetime(answer["updated_at"])
        conversation.save()
    return time.perf_counter() - began


def ours(rows: int) -> float:
    """Prepare, start and run, as every door does."""
    from bland_sms.models import Conversation
    from bland_sms.updates import prepare, run, start

    began = time.perf_counter()
    bulk_update = prepare(Conversation.objects.filter(is_active=True).order_by("pk")[:rows], False)
    start(bulk_update)
    done = run(bulk_update)
    seconds = time.perf_counter() - began
    assert done, bulk_update.counts()
    assert bulk_update.counts()["changed"] == rows, bulk_update.counts()
    return seconds


def fill(rows: int) -> None:
    from bland_sms.models import Conversation

    Conversation.objects.all().delete()
    Conversation.objects.bulk_create(
        (Conversation(pk=f"conv_{number}") for number in range(rows)), batch_size=1000
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--no-naive", action="store_true")
    parser.add_argument("--memory", action="store_true", help="trace memory; slows it down")
    given = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder, stand_in(given.latency, given.tls, folder) as url:
        os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
        os.environ.setdefault("DATABASE_URL", f"sqlite:///{folder}/benchmark.sqlite3")
        import django
        from django.conf import settings
        from django.core.management import call_command

        settings.DEBUG = False
        bundle = str(Path(folder) / "ca.pem") if given.tls else None
        settings.BLAND_SMS = {
            "API_KEY": KEY,
            "BASE_URL": url,
            "MAX_CONCURRENCY": given.workers,
            "CA_BUNDLE": bundle,
        }
        django.setup()
        call_command("migrate", verbosity=0)
        fill(given.rows)
        if given.memory:
            tracemalloc.start()
        seconds = ours(given.rows)
        if given.memory:
            print(f"peak of traced memory     {tracemalloc.get_traced_memory()[1] / 2**20:8.1f} MB")
            tracemalloc.stop()
        ideal = given.rows * given.latency / given.workers
        # Starting at 20 a second and doubling each quarter second costs this much once.
        gentle = gentle_start(given.rows, given.workers / given.latency)
        print(f"rows                      {given.rows:8d}")
        print(f"ours                      {seconds:8.2f} s")
        print(f"workers / latency alone   {ideal:8.2f} s   (the physical limit)")
        print(f"share of it reached       {ideal / seconds:8.2f}")
        print(f"after the gentle start    {ideal / (seconds - gentle):8.2f}")
        if not given.no_naive:
            fill(given.rows)
            loop = naive(url, given.rows, bundle or True)
            print(f"requests.patch + save()   {loop:8.2f} s")
            print(f"ratio                     {loop / seconds:8.1f}")


def gentle_start(rows: int, top: float) -> float:
    """Seconds lost against asking at ``top`` calls a second from the first moment on."""
    rate, seconds, asked = 20.0, 0.0, 0.0
    while rate < top and asked < rows:
        asked += rate * 0.25
        seconds += 0.25
        rate *= 2
    return max(0.0, seconds - asked / top)


if __name__ == "__main__":
    sys.exit(main())
