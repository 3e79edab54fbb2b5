"""A process that carries out an update, and is killed or stopped while it does.

    python -m tests.child DATABASE_NAME BASE_URL UPDATE [PAUSE]

``PAUSE`` is ``answered`` or ``writing``: there it says so on stdout and waits to be killed; or
``stopped`` or ``locked`` (inside the write transaction, when it has written): there it says so and
stops itself.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Any
from unittest.mock import patch

import django
from django.conf import settings


def hold_back_sending() -> threading.Lock:
    """Whoever holds it has no thread between the last look at the fence and the write.

    No process can rule out that it is stopped just there (``wire.guarded``).
    """
    from bland_sms.client.wire import HTTPConnection

    sending, send = threading.Lock(), HTTPConnection.send

    def send_whole(connection: HTTPConnection, data: Any) -> None:
        with sending:
            send(connection, data)

    patch.object(HTTPConnection, "send", send_whole).start()
    return sending


def pause_at(name: str) -> None:
    from bland_sms.updates import driver, in_flight

    sending = hold_back_sending()

    if name != "stopped":  # few at once, so that it is in the middle of them
        in_flight.MOST_CLAIMED, driver.FLUSH_ROWS = 8, 4
    place: Any
    place, method = {
        "answered": (driver._Drive, "_collect"),
        "stopped": (driver._Drive, "_collect"),
        "writing": (driver._Drive, "_write"),
        "locked": (driver, "record"),
    }[name]
    carry_on = getattr(place, method)
    calls = []

    def pause(*args: Any) -> Any:
        calls.append(args)
        if name == "locked":
            carry_on(*args)
        if len(calls) == 3:
            print("here", flush=True)
            if name in ("stopped", "locked"):
                with sending:
                    os.kill(os.getpid(), signal.SIGSTOP)
            else:
                time.sleep(60)
        return None if name == "locked" else carry_on(*args)

    setattr(place, method, pause)


def main(database: str, base_url: str, update_id: str, pause: str = "") -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    settings.DATABASES["default"]["NAME"] = database
    settings.BLAND_SMS = {
        "API_KEY": "org_test_key_000000",
        "BASE_URL": base_url,
        "MAX_CONCURRENCY": 4,
    }
    django.setup()
    from bland_sms.models import BulkUpdate
    from bland_sms.updates import run

    if pause:
        pause_at(pause)
    print("started", flush=True)
    run(BulkUpdate.objects.get(pk=update_id))


if __name__ == "__main__":
    main(*sys.argv[1:])
