"""How close updates come to a rate limit: several worker processes, known, unknown and moving.

    python -m benchmarks.pace [--rows 2000] [--limit 100] [--workers 4] [--base FOLDER]

Prints what was answered as a share of what the limit allowed between the first request and the
last, and how many requests were refused. ``--base``: another checkout, measured in the same run.
``DATABASE_URL`` names another database than SQLite; its tables are emptied.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

KEY = "org_benchmark_key"
HERE = Path(__file__).resolve().parent.parent
SECONDS_A_JUMP = 2.0


def serve(latency: float, address: Any) -> None:
    """The stand-in, in a process of its own."""
    from bland_sms.sandbox import BlandSandbox

    sandbox = BlandSandbox(api_key=KEY, latency_seconds=latency)
    for number in range(20_000):
        sandbox.account.rows[f"conv_{number}"] = {
            "id": f"conv_{number}",
            "is_active": True,
            "updated_at": "2026-01-01T00:00:00.000Z",
        }
    address.put(sandbox.base_url)
    sandbox.serve_forever()


def set_up(url: str, rate_limit: float | None) -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
    import django
    from django.conf import settings

    settings.DEBUG = False
    settings.BLAND_SMS = {"API_KEY": KEY, "BASE_URL": url, "RATE_LIMIT": rate_limit}
    django.setup()


def work(url: str, rate_limit: float | None, update: int) -> None:
    """A worker: it carries one update out, and stays."""
    set_up(url, rate_limit)
    from bland_sms.models import BulkUpdate
    from bland_sms.updates import run

    bulk_update = BulkUpdate.objects.get(pk=update)
    print("ready", flush=True)
    sys.stdin.readline()
    while not run(bulk_update):
        time.sleep(0.2)
    print("done", flush=True)
    sys.stdin.readline()


def prepare_all(url: str, sizes: list[int], *, forget: bool) -> None:
    """Make one update for each worker; print their keys."""
    set_up(url, None)
    from django.apps import apps
    from django.core.management import call_command

    from bland_sms.models import BulkUpdate, Conversation
    from bland_sms.updates import prepare, start

    call_command("migrate", verbosity=0)
    Conversation.objects.all().delete()
    BulkUpdate.objects.all().delete()
    if forget and "accountpace" in apps.all_models["bland_sms"]:
        apps.get_model("bland_sms", "AccountPace").objects.all().delete()
    names = [f"conv_{number}" for number in range(sum(sizes))]
    Conversation.objects.bulk_create((Conversation(pk=name) for name in names), batch_size=1000)
    for size in sizes:
        bulk_update = prepare(names[:size], False)
        del names[:size]
        start(bulk_update)
        print(bulk_update.pk)


def child(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    # Its own code, and this file.
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(folder)},
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


class Limit:
    """The limit at the stand-in, and what it has allowed."""

    def __init__(self, url: str, limits: list[float]) -> None:
        self._url, self._limits = url, limits
        self.since: list[tuple[float, float]] = []
        self._over = threading.Event()
        self._set(limits[0])
        self._thread = threading.Thread(target=self._move, daemon=True)

    def _set(self, limit: float) -> None:
        import requests

        requests.post(f"{self._url}/_sandbox/settings", json={"rate_limit": limit}, timeout=30)
        self.since.append((time.time(), limit))

    def _move(self) -> None:
        for limit in self._limits[1:]:
            if self._over.wait(SECONDS_A_JUMP):
                return
            self._set(limit)

    def start(self) -> None:
        self.since = [(time.time(), self.since[-1][1])]
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def allowed(self, begin: float, end: float) -> float:
        total = 0.0
        for index, (since, limit) in enumerate(self.since):
            until = self.since[index + 1][0] if index + 1 < len(self.since) else end
            begun = begin if not index else since
            total += limit * max(0.0, min(until, end) - max(begun, begin))
        return total


def measure(
    name: str,
    folder: Path,
    url: str,
    sizes: list[int],
    limits: list[float],
    *,
    rate_limit: float | None = None,
    forget: bool = True,
) -> None:
    import requests

    limit = Limit(url, limits)
    made = child(folder, "--prepare", url, int(forget), *sizes)
    keys = made.communicate()[0].split()
    assert len(keys) == len(sizes)
    requests.post(f"{url}/_sandbox/clear", timeout=30)
    workers = [child(folder, "--work", url, rate_limit or 0, key) for key in keys]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    limit.start()
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "done\n"
    for worker in workers:
        worker.communicate("\n")
    limit.stop()
    seen = requests.get(f"{url}/_sandbox/log", timeout=60).json()["requests"]
    times = [one["at"] for one in seen]
    answered = sum(one["status"] == 200 for one in seen)
    refused = sum(one["status"] == 429 for one in seen)
    allowed = limit.allowed(min(times), max(times))
    seconds = max(times) - min(times)
    print(
        f"{name:40} {seconds:6.1f} s   {answered / allowed:6.1%} of the limit   "
        f"{refused / answered:6.2%} refused",
        flush=True,
    )


def main() -> None:
    from benchmarks.stand_in import in_a_process

    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--limit", type=float, default=100)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--latency", type=float, default=0.02)
    parser.add_argument("--base", type=Path)
    given = parser.parse_args()
    each = [given.rows // given.workers] * given.workers
    one = [given.rows // 2] + [5] * (given.workers - 1)
    dice = random.Random(1)
    moving = [float(dice.randint(1, 400)) for _ in range(500)]
    extremes = [400.0, 1.0] * 250
    for folder in filter(None, (given.base, HERE)):
        is_base = folder == given.base
        share = given.limit / (given.workers if is_base else 1)
        print("base" if is_base else "now")
        with tempfile.TemporaryDirectory() as place, in_a_process(serve, given.latency) as url:
            if not os.environ.get("DATABASE_URL") or os.environ.get("PACE_PLACE"):
                os.environ["DATABASE_URL"] = f"sqlite:///{place}/benchmark.sqlite3"
                os.environ["PACE_PLACE"] = place
            steady = [given.limit]
            measure("not known, all workers", folder, url, each, steady)
            measure("the same, remembered", folder, url, each, steady, forget=False)
            measure("RATE_LIMIT, all workers", folder, url, each, steady, rate_limit=share)
            measure("RATE_LIMIT, one of them busy", folder, url, one, steady, rate_limit=share)
            measure("1 to 400, jumps every 2 s, one worker", folder, url, [1500], moving)
            measure("400 and 1 in turn, 2 s, one worker", folder, url, [1500], extremes)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], float(sys.argv[3]) or None, int(sys.argv[4]))
    elif sys.argv[1:2] == ["--prepare"]:
        prepare_all(sys.argv[2], [int(size) for size in sys.argv[4:]], forget=sys.argv[3] == "1")
    else:
        main()
