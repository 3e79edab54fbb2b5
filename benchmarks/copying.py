"""What copying costs: processor time, statements and write-ahead log, a conversation.

    python -m benchmarks.copying [--rows 20000] [--beside PATH]

The first copy, the whole list again with nothing changed, and with ten messages each. The stand-in
has its bytes ready and answers in well under a millisecond, in a process of its own. ``--beside``
names the folder of another release (``git worktree add PATH COMMIT``), measured in the same run.
``DATABASE_URL`` names another database than SQLite; its tables are emptied. Statements leave out
``COPY``.
"""

from __future__ import annotations

import argparse
import bisect
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime, timedelta, timezone
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

MESSAGES = 10
PHASES = ("first", "again", "again", "details")


def row(number: int) -> dict[str, Any]:
    moment = datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=7 * number)
    text = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "id": f"3b0a0000-0000-4000-8000-{number:012d}",
        "user_number": f"+1555{number % 60_000:07d}",
        "agent_number": "+15551234567",
        "is_active": True,
        **dict.fromkeys(("created_at", "updated_at", "last_message_at"), text),
        "timed_out_at": None,
        "message_count": MESSAGES,
        "last_message": f"Thank you, that was all. Number {number}",
        "channel": "sms",
        "variables": {"first_name": "Ada", "order": str(number)},
    }


def detail(listed: dict[str, Any]) -> bytes:
    messages = [
        {"id": n, "sender": "AGENT" if n % 2 else "USER", "message": f"Text {n}, some words."}
        for n in range(MESSAGES)
    ]
    return json.dumps(
        {"data": {**listed, "summary": "All was well.", "messages": messages}}
    ).encode()


class StandIn:
    """Bland's list and details as bytes."""

    def __init__(self, rows: int) -> None:
        listed = [row(number) for number in range(rows)]
        self.bytes = [json.dumps(one).encode() for one in listed]
        self.times = [one["created_at"] for one in listed]
        self.details = {one["id"]: detail(one) for one in listed}

    def body(self, target: str) -> bytes:
        path, _, query = target.partition("?")
        name = path.rpartition("/")[2]
        return self.details[name] if name in self.details else self.page(parse_qs(query))

    def page(self, query: dict[str, list[str]]) -> bytes:
        low, high = 0, len(self.bytes)
        for condition in json.loads(query.get("filters", ["[]"])[0]):
            place = bisect.bisect_left(self.times, condition["value"])
            low, high = (place, high) if condition["operator"] == "gte" else (low, place)
        found = range(low, high)[:: -1 if query["sortDir"] == ["desc"] else 1]
        size = int(query["pageSize"][0])
        begin = (int(query["page"][0]) - 1) * size
        data = b", ".join(self.bytes[index] for index in found[begin : begin + size])
        return b'{"data": [' + data + b'], "errors": null}'

    def answer(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        lines = connection.makefile("rb")
        while line := lines.readline():
            while lines.readline().strip():
                pass
            body = self.body(line.split(b" ")[1].decode())
            head = f"Date: {formatdate(usegmt=True)}\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(b"HTTP/1.1 200 OK\r\n" + head.encode() + body)


def serve(rows: int, address: Any) -> None:
    bland = StandIn(rows)
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    address.put(f"http://127.0.0.1:{listener.getsockname()[1]}")
    while True:
        connection = listener.accept()[0]
        threading.Thread(target=bland.answer, args=(connection,), daemon=True).start()


# --- one release, in a process of its own -------------------------------------------------------


def measure(base_url: str, rows: int) -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
    import django
    from django.conf import settings
    from django.core.management import call_command

    settings.DEBUG = False
    settings.BLAND_SMS = {"API_KEY": "org_benchmark_key", "BASE_URL": base_url}
    django.setup()
    call_command("flush", verbosity=0, interactive=False)
    for name in PHASES:
        if name in ("first", "details"):
            call_command("flush", verbosity=0, interactive=False)
        print(f"  {name:8} {cost(rows, with_messages=name == 'details')}", flush=True)


def cost(rows: int, *, with_messages: bool) -> str:
    from django.db import connection

    from bland_sms import sync

    statements = 0

    def count(execute: Any, *given: Any) -> Any:
        nonlocal statements
        statements += 1
        return execute(*given)

    written = wal(connection)
    began, cpu = time.perf_counter(), time.process_time()
    with connection.execute_wrapper(count):
        run = sync.run(full=True, messages=with_messages)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    assert run.status == "finished", run.error
    told = [
        f"{rows / seconds:7.0f} rows/s",
        f"{cpu / rows * 1e6:6.0f} us of the processor",
        f"{statements / rows:6.3f} statements",
    ]
    if written is not None:
        told.append(f"{(wal(connection) - written) / rows:6.0f} B of WAL")
    return ", ".join(told)


def wal(connection: Any) -> Any:
    if connection.vendor != "postgresql":
        return None
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        return cursor.fetchone()[0]


# --- all of them, beside each other -------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--beside", help="folder of another release")
    parser.add_argument("--of", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.of:
        measure(given.of, given.rows)
        return
    from benchmarks.stand_in import in_a_process  # ours: an old release has none

    here = Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory() as folder, in_a_process(serve, given.rows) as base_url:
        for number, tree in enumerate(filter(None, (given.beside, str(here)))):
            database = os.environ.get("DATABASE_URL", f"sqlite:///{folder}/{number}.sqlite3")
            environment = {**os.environ, "PYTHONPATH": tree, "DATABASE_URL": database}
            print("beside" if tree == given.beside else "this", flush=True)
            manage = [sys.executable, f"{tree}/manage.py"]
            measured = [sys.executable, __file__, "--of", base_url, "--rows", str(given.rows)]
            for command in (
                [*manage, "migrate", "--verbosity=0"],
                measured,
                [*manage, "migrate", "bland_sms", "zero", "--verbosity=0"],
            ):
                subprocess.run(command, env=environment, cwd=tree, check=True)


if __name__ == "__main__":
    main()
