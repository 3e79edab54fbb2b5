"""Lifelike conversations to begin with: the same for the same seed, ending about now."""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from .account import Account

OUR_NUMBERS = ("+15550190001", "+15550190002", "+15550190003")
"""555-01xx is set aside for fiction."""
PATHWAYS = {
    "delivery": "b3f1c0de-0000-4000-8000-00000000d001",
    "appointment": "b3f1c0de-0000-4000-8000-00000000a002",
    "billing": "b3f1c0de-0000-4000-8000-00000000b003",
    "spanish": "b3f1c0de-0000-4000-8000-00000000e004",
}
TALKS: dict[str, Sequence[tuple[str, str]]] = {
    "delivery": (
        ("AGENT", "Hi! Your parcel from Northwind is on its way. Is tomorrow before noon fine?"),
        ("USER", "Not at home before 4pm"),
        ("AGENT", "No problem. I can offer 4-6pm tomorrow, or Saturday morning."),
        ("USER", "4-6 works"),
        ("AGENT", "Done: tomorrow between 4 and 6pm. Reply STOP if you want no more updates."),
        ("USER", "👍 thanks"),
    ),
    "appointment": (
        ("USER", "<Call Connected>"),
        ("AGENT", "Hello, this is Lakeside Dental. You asked for a check-up. Which day suits you?"),
        ("USER", "Thursday?"),
        ("AGENT", "Thursday has 9:15 and 14:30. Which one shall I book?"),
        ("USER", "the early one. is it covered by my insurance"),
        ("AGENT", "9:15 is yours. For insurance I will hand you to a colleague."),
        ("HUMAN", "Hi, Sam from the front desk. Yes, one check-up a year is covered in full."),
        ("USER", "great!!"),
    ),
    "billing": (
        (
            "AGENT",
            "Your invoice of $48.20 is due on Friday. Pay here: https://pay.example.com/i/48",
        ),
        ("USER", "I already paid this last week"),
        (
            "AGENT",
            "Thank you for telling me. Which card did you use? The last four digits will do.",
        ),
        ("USER", "stop texting me"),
        ("AGENT", "I am sorry. Shall a colleague call you about the invoice instead?"),
        ("USER", "STOP"),
    ),
    "spanish": (
        ("AGENT", "¡Hola! Su pedido está listo para recoger. ¿Le viene bien hoy por la tarde?"),
        ("USER", "Sí, paso a las 18:00"),
        ("AGENT", "Perfecto, le esperamos. Traiga por favor su número de pedido."),
        ("USER", "¿Cuál es?"),
        ("AGENT", "Es el 4471. ¡Hasta luego!"),
    ),
}
SUMMARIES = {
    "delivery": "Customer moved the delivery to a later slot.",
    "appointment": "Check-up booked; question about insurance answered by a colleague.",
    "billing": "Customer says the invoice is paid and wants no more texts.",
    "spanish": "Customer will collect the order in the evening.",
}


def seed_account(
    account: Account, number: int = 200, *, seed: int = 7, now: datetime | None = None
) -> None:
    """Fill an account with conversations over the last 45 days, a third of them active."""
    dice = random.Random(seed)
    now = now or datetime.now(timezone.utc)
    customers = [f"+1555010{dice.randrange(10_000):04d}" for _ in range(max(1, number * 2 // 3))]
    for _ in range(number):
        account.add(_conversation(dice, now, dice.choice(customers)))


def _conversation(dice: random.Random, now: datetime, customer: str) -> dict[str, Any]:
    topic = dice.choice(list(TALKS))
    talk = TALKS[topic][: dice.randint(2, len(TALKS[topic]))]
    # Most traffic is recent: a support team's day, with a long tail behind it.
    began = now - timedelta(minutes=int(45 * 24 * 60 * dice.random() ** 3) + 20)
    agent_number = dice.choice(OUR_NUMBERS)
    messages, moment = [], began
    for sender, text in talk:
        messages.append(_message(dice, sender, text, moment, customer, agent_number))
        moment += timedelta(seconds=dice.randint(20, 400))
    ended = min(moment, now - timedelta(minutes=1))
    is_active = dice.random() < 0.4
    ending = "" if is_active else dice.choice(["timeout", "node", "other"])
    by_person = [message["created_at"] for message in messages if message["sender"] == "HUMAN"]
    return {
        "id": str(uuid.UUID(int=dice.getrandbits(128), version=4)),
        "created_at": _text(began),
        "updated_at": _text(ended),
        "user_number": customer,
        "agent_number": agent_number,
        "is_active": is_active,
        "variables": {"topic": topic, "BlandStatusCode": 200},
        "current_node_id": f"node_{len(talk)}",
        "curr_pathway_id": PATHWAYS[topic],
        "curr_pathway_version": "production",
        "timed_out_at": _text(ended) if ending == "timeout" else None,
        "ended_by_end_call_node": ending == "node",
        "message_count": len(messages),
        "last_message": messages[-1]["message"],
        "last_message_at": messages[-1]["created_at"],
        "pathway_tags": [{"name": topic.title(), "color": "#2563eb"}],
        "summary": None if is_active else SUMMARIES[topic],
        "human_handoff_at": min(by_person[0], _text(ended)) if by_person else None,
        "messages": messages,
    }


def _message(
    dice: random.Random,
    sender: str,
    text: str,
    moment: datetime,
    customer: str,
    agent_number: str,
) -> dict[str, Any]:
    is_ours = sender != "USER"
    status = dice.choices(["delivered", "sent", "undelivered"], [20, 3, 1])[0] if is_ours else None
    return {
        "id": f"SM{dice.getrandbits(128):032x}",
        "created_at": _text(moment),
        "sender": sender,
        "message": text,
        "from": agent_number if is_ours else customer,
        "to": customer if is_ours else agent_number,
        "status": status,
        "error_code": "30003" if status == "undelivered" else None,
        "attachments": None,
    }


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
