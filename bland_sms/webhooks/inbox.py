"""Records verified webhook deliveries: which conversation each names, never what it says."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

from django.db import IntegrityError, connections, transaction
from django.db.models import F
from django.db.models.expressions import RawSQL
from django.utils import timezone

from ..database import using
from ..models import Conversation, WebhookDelivery
from ..payloads import is_conversation_id
from ..signals import announce, webhook_received
from ..words import bland_words

logger = logging.getLogger("bland_sms.webhooks")

State = WebhookDelivery.State


def receive(body: bytes, told: Mapping[str, Any]) -> WebhookDelivery | None:
    """Record a verified delivery and announce it; ``None``: there is nothing new to do.

    That is so when the same body came before, unless it was given up: then it is queued again.
    Webhooks about phone calls are counted by day and not recorded one by one.

    Args:
        body: As it came, byte for byte. Only its hash is kept.
        told: The same, parsed.

    Raises:
        DatabaseError, InterfaceError: it is not recorded.
    """
    conversation_id = told.get("conversation_id")
    if not isinstance(conversation_id, str) or not is_conversation_id(conversation_id):
        conversation_id = ""
    if not conversation_id and _is_about_a_call(told):
        _count_call()
        return None
    kind = _kind(told)
    delivery = WebhookDelivery(
        body_sha256=hashlib.sha256(body).hexdigest(),
        conversation_id=conversation_id,
        kind=kind,
        status=_text(told, "status", 64) if kind == "status" else "",
        state=State.RECEIVED if conversation_id else State.IGNORED,
    )
    reason = _text(told, "reason", 200) or _text(told, "status_reason", 200)
    if reason:
        delivery.reason = _unless_erased(reason, conversation_id)
    if not _insert(delivery):
        return _queue_again(delivery.body_sha256)
    if hasattr(delivery.reason, "resolve_expression"):
        del delivery.reason  # the database has decided on it; read when it is asked for
    logger.info("webhook for conversation %s: %s", conversation_id or "?", kind)
    announce(webhook_received, WebhookDelivery, lambda: [{"delivery": delivery}])
    return delivery


def _insert(delivery: WebhookDelivery) -> bool:
    """Record a delivery; False where its body came before. One statement, outside a transaction:
    the database knows what came before, and each further statement is a wait for it."""
    alias = using(WebhookDelivery)
    is_open = connections[alias].in_atomic_block
    try:
        with transaction.atomic(using=alias) if is_open else nullcontext():
            delivery.save(using=alias, force_insert=True)
    except IntegrityError:
        return False
    return True


def _queue_again(body_sha256: str) -> WebhookDelivery | None:
    """Queue the delivery of the same body, if it was given up; ``None``: it was not."""
    same = WebhookDelivery.objects.filter(body_sha256=body_sha256)
    if not same.filter(state=State.FAILED).update(
        received_at=timezone.now(), **WebhookDelivery.ANEW
    ):
        return None
    return same.get()


def _is_about_a_call(told: Mapping[str, Any]) -> bool:
    """Bland recommends one address for the webhooks of messages and of phone calls.

    Source: https://docs.bland.ai/tutorials/post-call-webhooks
    """
    return "call_id" in told or "c_id" in told or ("event_type" in told and "contents" in told)


def _count_call() -> None:
    today = timezone.now().date()
    day = hashlib.sha256(f"calls of {today:%Y-%m-%d}".encode()).hexdigest()
    counted = WebhookDelivery.objects.filter(body_sha256=day)
    if not counted.update(count=F("count") + 1):
        first = WebhookDelivery(body_sha256=day, kind="call", state=State.IGNORED)
        if not _insert(first):
            counted.update(count=F("count") + 1)


def _kind(told: Mapping[str, Any]) -> str:
    if told.get("type") == "status":
        return "status"
    is_message = "sender" in told or "message" in told
    return "status" if _text(told, "status", 64) and not is_message else "message"


def _text(told: Mapping[str, Any], name: str, max_length: int) -> str:
    value = told.get(name)
    return bland_words(value, max_length) if isinstance(value, str) else ""


def _unless_erased(reason: str, conversation_id: str) -> Any:
    """Bland's reason, or nothing where the conversation was erased: decided as it is stored."""
    erased = Conversation.objects.filter(pk=conversation_id, erased_at__isnull=False)
    alias = using(WebhookDelivery)
    if alias != using(Conversation):
        return "" if erased.exists() else reason
    sql, params = erased.values("pk").query.get_compiler(alias).as_sql()
    return RawSQL(f"CASE WHEN EXISTS ({sql}) THEN '' ELSE %s END", (*params, reason))  # noqa: S611
