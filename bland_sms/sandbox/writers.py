"""Customers who write by themselves, as in a demo, and the signed webhooks that tell of it."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import random
import time
import urllib.request
from typing import TYPE_CHECKING, Any

from .account import now_text

if TYPE_CHECKING:
    from .server import BlandSandbox

logger = logging.getLogger("bland_sms.sandbox")

AGAIN = ("Hello? Are you there?", "One more question, please", "Can somebody call me?")
TEXTS = ("Thanks!", "When does it arrive?", "Which number do I call?", "Never mind, found it")
WEBHOOK_SECONDS = 30


class Writers:
    """Customers whose conversation was deactivated write again, each once; now and then another.

    Args:
        seconds: Between two texts.
    """

    def __init__(self, sandbox: BlandSandbox, seconds: float) -> None:
        self.sandbox, self.seconds = sandbox, seconds
        self._dice = random.Random(7)
        self._wrote: set[tuple[str, str]] = set()
        self.is_on = True

    def run(self) -> None:
        while not self.sandbox.closing.wait(self.seconds) and self.is_on:
            self.write_one()

    def write_one(self) -> str | None:
        """The conversation in which somebody has written."""
        waiting = self._deactivated()
        if waiting:
            self._wrote.add(waiting[0])
            number, agent_number = waiting[0]
            text = self._dice.choice(AGAIN)
        else:
            with self.sandbox.account.lock:
                active = [row for row in self.sandbox.account.rows.values() if row["is_active"]]
            if not active:
                return None
            row = self._dice.choice(active)
            number, agent_number = row["user_number"], row["agent_number"]
            text = self._dice.choice(TEXTS)
        return self.sandbox.customer_texts(number, text, agent_number=agent_number)

    def _deactivated(self) -> list[tuple[str, str]]:
        """Customers who were deactivated and have not written yet, each with a number of ours."""
        account, found = self.sandbox.account, []
        for seen in self.sandbox.requests("PATCH"):
            row = account.rows.get(seen["conversation_id"])
            if row is None or seen["is_active"] is not False or seen["status"] != 200:
                continue
            pair = row["user_number"], row["agent_number"]
            newest = account.newest_of(*pair)
            if pair not in self._wrote and newest is not None and not newest["is_active"]:
                found.append(pair)
        return found


def webhook_body(row: dict[str, Any], text: str) -> bytes:
    """A webhook about a message of a customer.

    Source: https://docs.bland.ai/tutorials/post-call-webhooks#sms-conversation-webhooks
    """
    told = {
        "conversation_id": row["id"],
        "phone_number": row["user_number"],
        "agent_number": row["agent_number"],
        "channel": "sms",
        "sender": "USER",
        "message": text,
        "created_at": now_text(),
    }
    return json.dumps(told).encode()


def send_webhook(url: str, secret: str, body: bytes) -> None:
    """Post it, signed as Bland signs; once more where nobody answers."""
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {"Content-Type": "application/json", "X-Webhook-Signature": signature}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _attempt in range(2):
        try:
            request = urllib.request.Request(url, body, headers)  # noqa: S310  our own site
            opener.open(request, timeout=WEBHOOK_SECONDS).close()
            return
        except OSError as error:
            logger.warning("a webhook was not accepted: %s", type(error).__name__)
            time.sleep(1)
