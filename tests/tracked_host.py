"""A host whose healthy pages Sentry traces, everything personal switched off: prints what is sent.

``python -m tests.tracked_host``, with a database of its own in memory.
"""

from __future__ import annotations

import json
from typing import Any

import django
import sentry_sdk
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from sentry_sdk import serializer
from sentry_sdk.transport import Transport

NUMBER = "+15550107777"
MESSAGE = "my secret illness"
SUMMARY = "They are ill."


class InMemory(Transport):
    sent: list[Any] = []

    def capture_envelope(self, envelope: Any) -> None:
        self.sent.extend(item.payload.json for item in envelope.items if item.payload.json)


def fill(client: Any) -> list[str]:
    """One of everything; the addresses of the pages that show it."""
    from django.contrib.auth import get_user_model
    from django.urls import reverse
    from django.utils import timezone

    from bland_sms.models import Conversation, Message
    from bland_sms.updates import prepare, start

    now = timezone.now()
    dana = get_user_model().objects.create_superuser("dana")
    client.force_login(dana)
    for pk in ("conv_1", "conv_2"):
        row = Conversation(
            pk=pk,
            user_number=NUMBER,
            is_active=True,
            last_message=MESSAGE,
            summary=SUMMARY,
            variables={"illness": MESSAGE},
            extra={"illness": MESSAGE},
            updated_at=now,
            observed_at=now,
            transcript_observed_at=now,
        )
        row.derive()
        row.save()
    Message.objects.create(
        conversation_id="conv_1", bland_id="1", position=1, sender="USER", text=MESSAGE
    )
    draft = prepare(["conv_1"], False, requested_by=dana)
    queued = prepare(["conv_2"], False, requested_by=dana, reason=f"{NUMBER}: {MESSAGE}")
    start(queued)
    queued.items.update(state="failed", error_code="http_400", message=MESSAGE)
    return [
        reverse("admin:bland_sms_conversation_changelist"),
        reverse("admin:bland_sms_conversation_change", args=["conv_1"]),
        reverse("admin:bland_sms_conversation_history", args=["conv_1"]),
        reverse("admin:bland_sms_bulkupdate_confirm", args=[draft.pk]),
        reverse("admin:bland_sms_bulkupdate_change", args=[queued.pk]),
        reverse("bland_sms:conversation-detail", args=["conv_1"]),
    ]


def read(client: Any, page: str) -> tuple[str, str]:
    """As a server does, which is what Sentry traces: the test client has a handler of its own."""
    environ = client._base_environ(PATH_INFO=page, HTTP_ACCEPT="text/html, application/json")
    status: list[str] = []
    answer = WSGIHandler()(environ, lambda line, headers, info=None: status.append(line))
    text = b"".join(answer).decode()
    answer.close()
    return text, status[0]


def main() -> None:
    settings.DATABASES["default"] |= {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": ":memory:",
        "OPTIONS": {},
    }
    settings.ALLOWED_HOSTS = ["testserver"]
    django.setup()
    from django.core.management import call_command
    from django.test import Client

    call_command("migrate", verbosity=0)
    client = Client()
    pages = fill(client)
    serializer.MAX_DATABAG_BREADTH = 1000  # it sends the first ten values of a context
    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1",
        transport=InMemory,
        send_default_pii=False,
        traces_sample_rate=1.0,
    )
    shown = {}
    for page in pages:
        text, status = read(client, page)
        shown[page] = {"status": status, "number": NUMBER in text, "text": MESSAGE in text}
    sentry_sdk.flush()
    print(json.dumps({"shown": shown, "sent": InMemory.sent}))


if __name__ == "__main__":
    main()
