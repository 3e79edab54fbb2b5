"""Door for Bland: verify who rings, note whose conversation it is, answer.

The order is that of cost: what is refused without a look into the body, then what takes its hash,
then what takes the database. No answer says more than its status.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import threading
import time
from collections.abc import Callable, Sequence

from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, InterfaceError, transaction
from django.http import HttpRequest, HttpResponse
from django.utils.crypto import constant_time_compare
from django.utils.module_loading import import_string
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_variables

from . import deliveries
from .conf import Secret, get_settings
from .exceptions import BlandPayloadError
from .models import WebhookDelivery
from .payloads import parse_body

logger = logging.getLogger("bland_sms.webhooks")

BURST = 500
PER_SECOND = 100.0
"""Verified deliveries that one process takes: above it the sender is asked to come back."""
WORK_SECONDS = 3.0
"""How long a process works on a delivery after it has answered."""
AT_WORK = 2
"""Threads of a process that do so at a time; the others leave it to ``bland_sms_work``."""
MORE = 4
"""Conversations that wait and are copied by the way, where there is no worker for them."""

_SIGNATURE = re.compile(r"[0-9a-f]{64}", re.ASCII)
_JSON = re.compile(r"(application|text)/([^/;\s]+\+)?json", re.ASCII | re.IGNORECASE)
_CHUNK_BYTES = 64 * 1024


class Throttle:
    """A token bucket: ``burst`` at once, and ``per_second`` of them come back."""

    def __init__(self, burst: int = BURST, per_second: float = PER_SECOND) -> None:
        self._burst, self._per_second = float(burst), per_second
        self._lock = threading.Lock()
        self.fill()

    def fill(self) -> None:
        """As if nothing had come for a long time."""
        with self._lock:
            self._tokens, self._counted_at = self._burst, time.monotonic()

    def take(self) -> bool:
        """Whether there is room for one more."""
        with self._lock:
            now = time.monotonic()
            earned = (now - self._counted_at) * self._per_second
            self._tokens, self._counted_at = min(self._burst, self._tokens + earned), now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


throttle = Throttle()
_at_work = threading.BoundedSemaphore(AT_WORK)


class Answer(HttpResponse):
    """A status and nothing else; what is left to do is done once it has been sent."""

    def __init__(self, status: int, *, then: Callable[[], object] | None = None) -> None:
        super().__init__(status=status, content_type="text/plain")
        self._then = then
        # Django mails each 5xx that it logs to the site's admins, and anybody can cause a 503.
        self._has_been_logged = status >= 500

    def close(self) -> None:
        then, self._then = self._then, None
        if then is not None:
            try:
                then()
            except Exception:
                logger.exception("a delivery is left for later")
        super().close()


class _RefusedError(Exception):
    def __init__(self, status: int, why: str) -> None:
        self.status = status
        super().__init__(why)


@login_not_required
@csrf_exempt
@never_cache
@transaction.non_atomic_requests
def webhook(request: HttpRequest) -> HttpResponse:
    """Take one webhook: 200 once it is noted, or when this very body came before."""
    try:
        body = _admitted_body(request)
        told = parse_body(body)
        delivery = deliveries.receive(body, told)
    except _RefusedError as refused:
        logger.info("webhook refused with %d: %s", refused.status, refused)
        answer = Answer(refused.status)
        if refused.status == 405:
            answer["Allow"] = "POST"
        elif refused.status == 429:
            answer["Retry-After"] = "1"
        return answer
    except BlandPayloadError:
        logger.info("webhook refused with 400: no JSON object")
        return Answer(400)
    except (DatabaseError, InterfaceError) as error:
        logger.error("webhook refused with 503: %s", type(error).__name__)  # noqa: TRY400
        return Answer(503)
    if delivery is None or delivery.state != WebhookDelivery.State.RECEIVED:
        return Answer(200)
    if _is_dispatched(delivery):
        return Answer(200)
    return Answer(200, then=lambda: _work(delivery))


# --- who rings --------------------------------------------------------------------------------


def _admitted_body(request: HttpRequest) -> bytes:
    """The body, if it is one of Bland's and there is room for it. Raises _RefusedError."""
    if request.method != "POST":
        raise _RefusedError(405, "not a POST")
    try:
        settings = get_settings()
    except ImproperlyConfigured:
        raise _RefusedError(503, "BLAND_SMS is wrong, see `manage.py check`") from None
    secrets = [secret for secret in settings.webhook_secrets if secret]
    if not secrets:
        raise _RefusedError(503, "no BLAND_SMS['WEBHOOK_SECRETS']")
    if _content_length(request) > settings.webhook_max_bytes:
        raise _RefusedError(413, "too long")
    if request.content_type and not _JSON.fullmatch(request.content_type):
        raise _RefusedError(415, "not JSON")
    try:
        body = _read(request, settings.webhook_max_bytes + 1)
    except Exception:  # noqa: BLE001  each server's stream has errors of its own
        raise _RefusedError(400, "the body ended early") from None
    if len(body) > settings.webhook_max_bytes:
        raise _RefusedError(413, "too long")
    signature = request.META.get("HTTP_X_WEBHOOK_SIGNATURE")
    if not signature:
        raise _RefusedError(401, "not signed")
    if not _is_signed(body, signature, secrets):
        raise _RefusedError(403, "wrong signature")
    if not throttle.take():
        raise _RefusedError(429, "too many at once")
    return body


def _content_length(request: HttpRequest) -> int:
    text = str(request.META.get("CONTENT_LENGTH") or "").strip()
    return int(text[:19]) if text.isascii() and text.isdigit() else 0


def _read(request: HttpRequest, most: int) -> bytes:
    """Up to so many bytes of the body: not by ``request.body``, whose limit is the host's own."""
    stream: HttpRequest = request
    if not request.META.get("CONTENT_LENGTH") and request.META.get("wsgi.input_terminated"):
        # A chunked body, which Django takes for none; this server ends it by itself.
        stream = request.META["wsgi.input"]
    chunks, left = [], most
    while left > 0:
        chunk = stream.read(min(left, _CHUNK_BYTES))
        if not chunk:
            break
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)


@sensitive_variables()
def _is_signed(body: bytes, signature: str, secrets: Sequence[Secret]) -> bool:
    """Whether one of the secrets made this signature. All are tried, so that the time taken
    does not tell which.

    Source: X-Webhook-Signature, https://docs.bland.ai/tutorials/webhook-signing
    """
    if not _SIGNATURE.fullmatch(signature):
        return False
    matches = [
        constant_time_compare(
            hmac.new(_bytes_of(secret), body, hashlib.sha256).hexdigest(), signature
        )
        for secret in secrets
    ]
    return any(matches)


def _bytes_of(secret: Secret) -> bytes:
    return secret.reveal().encode("utf-8", "surrogateescape")


# --- who does the work ------------------------------------------------------------------------


def _is_dispatched(delivery: WebhookDelivery) -> bool:
    """Whether ``DISPATCH`` has found somebody; a queue that is down has not."""
    try:
        dispatch = import_string(get_settings().dispatch)
        # A host's function that returns nothing has found somebody.
        return dispatch("delivery", delivery.pk) is not False
    except Exception:
        logger.exception("DISPATCH failed; the delivery is done here")
        return False


def _work(delivery: WebhookDelivery) -> None:
    """Copy the conversation here and now, and a few of those that wait."""
    if not _at_work.acquire(blocking=False):
        return
    try:
        give_up_at = time.monotonic() + WORK_SECONDS
        if deliveries.process(delivery, seconds=WORK_SECONDS):
            deliveries.process_waiting(seconds=give_up_at - time.monotonic(), most=MORE)
    finally:
        _at_work.release()
