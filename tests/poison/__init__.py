"""An app that ends each process which copies one certain conversation, as lack of memory would."""

from __future__ import annotations

import os
import signal
from typing import Any

from django.apps import AppConfig


class PoisonConfig(AppConfig):
    name = "tests.poison"
    label = "poison"

    def ready(self) -> None:
        from bland_sms.client import BlandClient

        get_conversation = BlandClient.get_conversation

        def die_of_one(self: BlandClient, conversation_id: str, **kwargs: Any) -> Any:
            payload = get_conversation(self, conversation_id, **kwargs)
            if conversation_id == os.environ["BLAND_SMS_TEST_POISON"]:
                os.kill(os.getpid(), signal.SIGKILL)
            return payload

        BlandClient.get_conversation = die_of_one  # type: ignore[method-assign]
