"""What recording a webhook costs a web worker, beside a bare view that inserts a row.

    python -m benchmarks.webhooks [--requests 4000] [--threads 8] [--turns 5]

gunicorn with one worker of so many threads, which keep their database connections; as many senders
with connections that stay open. The views are asked in turns, the median of all turns is printed.
``DISPATCH`` names a queue that does nothing: what follows a webhook is not part of its answer.
``DATABASE_URL`` names another database than SQLite.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SECRET = "a-secret-of-the-benchmark"
PLACES = {"bare view": "/bare/", "webhook": "/bland-sms/webhook/"}


def queue(kind: str, pk: int) -> None:
    """A queue that does nothing."""


def set_up() -> Any:
    """Django on the benchmark's database; returns its connection."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
    import django
    from django.conf import settings

    settings.DEBUG = False
    settings.ALLOWED_HOSTS = ["*"]
    settings.ROOT_URLCONF = __name__
    settings.BLAND_SMS = {
        "API_KEY": "org_benchmark_key",
        "WEBHOOK_SECRETS": [SECRET],
        "DISPATCH": "benchmarks.webhooks.queue",
    }
    settings.DATABASES["default"]["CONN_MAX_AGE"] = 60
    django.setup()
    from django.db import connection

    name = os.environ.get("WEBHOOKS_DATABASE")
    if name:
        connection.settings_dict["NAME"] = name
        settings.DATABASES["default"]["NAME"] = name
    return connection


def __getattr__(name: str) -> Any:
    """``application`` for gunicorn, and the addresses."""
    if name == "application":
        set_up()
        from django.core.wsgi import get_wsgi_application

        from bland_sms.pacing import TokenBucket
        from bland_sms.webhooks import view

        view.throttle = TokenBucket(1e9, 1e9)
        return get_wsgi_application()
    if name != "urlpatterns":
        raise AttributeError(name)
    from django.http import HttpResponse
    from django.urls import include, path
    from django.views.decorators.csrf import csrf_exempt

    from bland_sms.models import WebhookDelivery

    @csrf_exempt
    def bare(request: Any) -> HttpResponse:
        told = json.loads(request.body)
        WebhookDelivery.objects.create(
            body_sha256=hashlib.sha256(request.body).hexdigest(),
            conversation_id=told["conversation_id"],
            kind="message",
            state="received",
        )
        return HttpResponse()

    return [path("bare/", bare), path("bland-sms/", include("bland_sms.urls"))]


class Senders:
    """As many as the server has threads, each with a connection of its own."""

    def __init__(self, port: int, number: int) -> None:
        self._made = 0
        self._connections = [http.client.HTTPConnection("127.0.0.1", port) for _ in range(number)]

    def send(self, place: str, requests: int) -> None:
        each = requests // len(self._connections)
        first = self._made
        self._made += each * len(self._connections)
        failed: list[int] = []
        threads = [
            threading.Thread(target=self._work, args=(one, place, first + each * at, each, failed))
            for at, one in enumerate(self._connections)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed, f"answered with {failed[0]}"

    @staticmethod
    def _work(
        connection: http.client.HTTPConnection, place: str, first: int, each: int, failed: list[int]
    ) -> None:
        for number in range(first, first + each):
            told = {"conversation_id": f"conv_{number}", "sender": "USER", "message": "x" * 300}
            body = json.dumps(told).encode()
            signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
            headers = {"Content-Type": "application/json", "X-Webhook-Signature": signature}
            connection.request("POST", place, body, headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                failed.append(answer.status)
                return


def processor_seconds(parent: int) -> float:
    """What the worker of that server has used."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    raise RuntimeError("gunicorn has no worker")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as server:
        os.environ.setdefault("DATABASE_URL", f"sqlite:///{folder}/db.sqlite3")
        connection = set_up()
        connection.settings_dict["TEST"]["NAME"] = (
            f"{folder}/test.sqlite3" if connection.vendor == "sqlite" else "bland_sms_benchmark"
        )
        name = connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
        connection.close()
        gunicorn = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "benchmarks.webhooks:application"),
                *("--worker-class", "gthread", "--threads", str(given.threads)),
                *("--bind", f"fd://{server.fileno()}", "--log-level", "error"),
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "WEBHOOKS_DATABASE": name},
            pass_fds=[server.fileno()],
        )
        try:
            senders = Senders(server.getsockname()[1], given.threads)
            found: dict[str, list[tuple[float, float]]] = {place: [] for place in PLACES}
            for place in PLACES.values():
                senders.send(place, 10 * given.threads)
            for _ in range(given.turns):
                for label, place in PLACES.items():
                    cpu, began = processor_seconds(gunicorn.pid), time.perf_counter()
                    senders.send(place, given.requests)
                    seconds = time.perf_counter() - began
                    used = processor_seconds(gunicorn.pid) - cpu
                    found[label].append((given.requests / seconds, used / given.requests))
        finally:
            gunicorn.terminate()
            gunicorn.wait()
            connection.creation.destroy_test_db(name, verbosity=0)
    rates = {label: statistics.median(one[0] for one in found[label]) for label in PLACES}
    print(f"{'':12}{'a second':>10}{'of bare':>10}{'CPU ms':>10}")
    for label, rate in rates.items():
        used = 1000 * statistics.median(one[1] for one in found[label])
        print(f"{label:12}{rate:10.0f}{rate / rates['bare view']:10.2f}{used:10.2f}")


if __name__ == "__main__":
    main()
