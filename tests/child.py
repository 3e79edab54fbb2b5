"""A process that carries out an update, and is killed while it does.

    python -m tests.child DATABASE_NAME BASE_URL UPDATE [PAUSE]

``PAUSE`` is ``answered`` or ``writing``: where it says so on stdout and waits to be killed.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import django
from django.conf import settings


def pause_at(name: str) -> None:
    from bland_sms.updates.driver import _Drive

    method = {"answered": "_collect", "writing": "_write"}[name]
    carry_on = getattr(_Drive, method)
    calls = []

    def pause(self: Any, *args: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:
            print("here", flush=True)
            time.sleep(60)
        return carry_on(self, *args)

    setattr(_Drive, method, pause)


def main(database: str, base_url: str, update_id: str, pause: str = "") -> None:
    import os

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
