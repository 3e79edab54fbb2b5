"""How one request flows through our files: which functions it enters and how often it moves.

    python -m benchmarks.flow

Prints, for a click on "Deactivate selected" and for a webhook up to its row, how many of our
functions are entered, in how many files, how often a call moves into another file, and how many of
these moves lead back into a file that was left before.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
APP = str(ROOT / "bland_sms") + "/"
NOT_OURS = ("sandbox/", "models/", "exceptions.py", "conf.py", "pytest_plugin.py")
"""The stand-in, and leaves that every file may look at."""
FLOORS = (
    "database.py",
    "transactions.py",
    "leases.py",
    "pacing/pacer.py",
    "signals.py",
    "reasons.py",
    "words.py",
    "sentences.py",
    "customers.py",
    "payloads/values.py",
)
"""Services without a flow of their own, counted apart with ``--floors``."""


class Trace:
    """The calls of one request, in order, over all of its threads."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def note(self, frame: FrameType, event: str, argument: Any) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(APP):
            file = name.removeprefix(APP)
            function = frame.f_code.co_name
            if not file.startswith(
                NOT_OURS if "--floors" in sys.argv else (*NOT_OURS, *FLOORS)
            ) and not function.startswith("<"):
                self.calls.append((file, function))

    def figures(self) -> str:
        files = [file for file, _function in self.calls]
        moves = [new for old, new in pairwise(files) if old != new]
        seen, back, last = {files[0]} if files else set(), 0, files[0] if files else ""
        for file in files:
            if file != last:
                back += file in seen
                seen.add(file)
                last = file
        return (
            f"{len(set(self.calls))} functions in {len(set(files))} files, "
            f"{len(moves)} moves, {back} of them back"
        )


@contextmanager
def traced() -> Iterator[Trace]:
    trace = Trace()
    threading.setprofile(trace.note)
    sys.setprofile(trace.note)
    try:
        yield trace
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]


def main() -> None:
    import os

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    import django
    from django.conf import settings
    from django.test.utils import setup_test_environment

    django.setup()
    setup_test_environment()
    from django.contrib.auth import get_user_model
    from django.core.management import call_command
    from django.test import Client

    from bland_sms.sandbox import BlandSandbox
    from bland_sms.sync import refresh

    settings.DATABASES["default"]["NAME"] = ":memory:"
    with BlandSandbox() as bland:
        settings.BLAND_SMS = {
            **bland.settings,
            "WEBHOOK_SECRETS": ["a-secret"],
            "MAX_CONCURRENCY": 1,
        }
        call_command("migrate", verbosity=0)
        bland.account.add({"id": "conv_1", "user_number": "+15550100001"})
        bland.account.add({"id": "conv_2", "user_number": "+15550100002"})
        refresh("conv_1")
        staff = get_user_model().objects.create_superuser("dana")
        browser = Client()
        browser.force_login(staff)
        form = {"action": "deactivate_selected", "_selected_action": ["conv_1"]}
        browser.get("/admin/bland_sms/conversation/")  # what is imported and cached once
        with traced() as click:
            browser.post("/admin/bland_sms/conversation/", form)
        print("click:  ", click.figures())
        body = json.dumps(
            {"conversation_id": "conv_2", "type": "status", "status": "ended"}
        ).encode()
        signature = hmac.new(b"a-secret", body, hashlib.sha256).hexdigest()
        with traced() as webhook:
            Client().post(
                "/bland-sms/webhook/",
                body,
                content_type="application/json",
                headers={"X-Webhook-Signature": signature},
            )
            for thread in threading.enumerate():
                if thread is not threading.current_thread() and "bland" in thread.name.lower():
                    thread.join(timeout=30)
        print("webhook:", webhook.figures())
        if "--files" in sys.argv:
            for trace in (click, webhook):
                files = [file for file, _function in trace.calls]
                moves = Counter((a, b) for a, b in pairwise(files) if a != b)
                print(*(f"{n:3} {a} -> {b}" for (a, b), n in moves.most_common(45)), "", sep="\n")
        if "--calls" in sys.argv:
            for trace in (click, webhook):
                print(*(f"{file}: {function}" for file, function in trace.calls), sep="\n")


if __name__ == "__main__":
    main()
