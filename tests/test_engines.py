"""Real workers: a killed one, one that is stopped, and a real web server."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import requests
from django.contrib.auth.models import AbstractUser

from bland_sms.dispatching import hand_over
from bland_sms.models import BulkUpdate
from bland_sms.sandbox import BlandSandbox

from .conftest import Start, wait_until

pytestmark = pytest.mark.django_db(transaction=True)
DATABASE_BACKEND = "django_tasks_db.DatabaseBackend"


def need(*modules: str, port: int | None = None) -> None:
    """Skip where something is missing that only a bigger set-up has; fail there in CI."""
    missing = [name for name in modules if find_spec(name) is None]
    if port is not None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                missing.append(f"a server on port {port}")
    if missing:
        (pytest.fail if os.environ.get("BLAND_SMS_CI") else pytest.skip)(
            f"needs {', '.join(missing)}"
        )


def manage(*arguments: str) -> list[str]:
    return [sys.executable, "manage.py", *arguments]


def check_all_done_once(bulk_update: BulkUpdate, sandbox: BlandSandbox, kills: int) -> None:
    bulk_update.refresh_from_db()
    assert bulk_update.status == "finished"
    assert bulk_update.counts()["changed"] == bulk_update.items.count()
    assert len(sandbox.requests("PATCH")) <= bulk_update.items.count() + 2 * kills


def is_finished(bulk_update: BulkUpdate) -> bool:
    return BulkUpdate.objects.filter(pk=bulk_update.pk, status="finished").exists()


def test_django_tasks_db(
    sandbox: BlandSandbox,
    copied: Callable[..., list[str]],
    started: Callable[..., BulkUpdate],
    process: Start,
    settings: Any,
) -> None:
    need("django_tasks_db")
    settings.TASKS = {"default": {"BACKEND": DATABASE_BACKEND}}
    sandbox.latency_seconds = 0.1  # so that it is seen, and killed, long before its end
    bulk_update, lost = started(copied(80)), started(["conv_lost"])
    sandbox.account.add({"id": "conv_lost"})
    hand_over(bulk_update)
    assert bulk_update.dispatched_at is not None
    worker = manage("db_worker", "--interval", "0.1", "--no-startup-delay")
    first = process(*worker, BLAND_SMS_TEST_TASKS=DATABASE_BACKEND)
    wait_until(lambda: len(sandbox.requests("PATCH")) > 20)
    first.kill()
    first.wait()
    assert not is_finished(bulk_update)

    # The engine never looks at a task again whose worker was killed: that is ours to do. And an
    # update whose task was lost altogether is picked up just so.
    process(*worker, BLAND_SMS_TEST_TASKS=DATABASE_BACKEND)
    process(*manage("bland_sms_work"))
    wait_until(lambda: is_finished(bulk_update) and is_finished(lost))

    check_all_done_once(bulk_update, sandbox, kills=1)


def test_work__ends_well_on_sigterm(
    sandbox: BlandSandbox,
    copied: Callable[..., list[str]],
    started: Callable[..., BulkUpdate],
    process: Start,
) -> None:
    sandbox.latency_seconds = 0.1  # so that it is seen, and killed, long before its end
    bulk_update = started(copied(80))
    worker = process(*manage("bland_sms_work"))
    wait_until(lambda: len(sandbox.requests("PATCH")) > 20)
    worker.terminate()
    assert worker.wait(60) == 0
    asked = len(sandbox.requests("PATCH"))
    assert asked < 80
    counts = bulk_update.counts()
    assert (counts["changed"], counts["waiting"]) == (asked, 80 - asked)
    bulk_update.refresh_from_db()
    assert (bulk_update.status, bulk_update.lease_token) == ("queued", None)


def test_gunicorn__drives_slices_without_an_error(
    sandbox: BlandSandbox,
    copied: Callable[..., list[str]],
    started: Callable[..., BulkUpdate],
    process: Start,
    staff: AbstractUser,
) -> None:
    need("gunicorn")
    sandbox.latency_seconds = 0.25
    bulk_update = started(copied(200), requested_by=staff, source="admin")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process(
        str(shutil.which("gunicorn", path=str(Path(sys.executable).parent))),
        *["--bind", f"127.0.0.1:{port}", "--workers", "1", "project.wsgi"],
    )
    admin = f"http://127.0.0.1:{port}/admin"
    session = requests.Session()
    wait_until(lambda: _answers(session, f"{admin}/login/"))
    login = {"username": "dana", "password": "secret-enough", "next": "/admin/"}
    token = session.cookies["csrftoken"]
    session.post(f"{admin}/login/", {**login, "csrfmiddlewaretoken": token}).raise_for_status()
    page = f"{admin}/bland_sms/bulkupdate/{bulk_update.pk}"
    found = re.search(r'csrfmiddlewaretoken" value="(\w+)"', session.get(f"{page}/change/").text)
    assert found is not None
    headers = {"Accept": "application/json", "X-CSRFToken": found[1]}
    statuses, slowest, progress = set(), 0.0, {"finished": False}
    while not progress["finished"]:
        answer = session.post(f"{page}/run/", headers=headers, timeout=30)
        statuses.add(answer.status_code)
        slowest = max(slowest, answer.elapsed.total_seconds())
        progress = answer.json()
    assert statuses == {200}
    assert slowest < 15
    assert bulk_update.counts()["changed"] == 200
    assert len(sandbox.requests("PATCH")) == 200


def _answers(session: requests.Session, url: str) -> bool:
    try:
        return session.get(url, timeout=60).ok
    except requests.RequestException:
        return False
