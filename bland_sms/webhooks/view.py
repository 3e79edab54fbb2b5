"""The view that receives webhooks: verify one, record which conversation it names, answer.

The cheap checks come first: what needs no body, then what needs its hash, then what needs the
database. No answer says more than its status.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, InterfaceError, transaction
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from ..conf import get_settings
from ..dispatching import find_worker
from ..exceptions import BlandConfigurationError, BlandPayloadError
from ..models import WebhookDelivery
from ..pacing import TokenBucket
from ..payloads import parse_body
from .background import copy_soon
from .inbox import receive
from .signature import is_signed

logger = logging.getLogger("bland_sms.webhooks")

BURST = 500
PER_SECOND = 100.0
"""Verified webhooks that one process accepts; above that the sender is asked to come back."""

_NEVER_CACHED = "max-age=0, no-cache, no-store, must-revalidate, private"
"""In the words of Django's ``never_cache``, which takes longer than to check the signature."""
_SIGNATURE = re.compile(r"[0-9a-f]{64}", re.ASCII)
_JSON = re.compile(r"(application|text)/([^/;\s]+\+)?json", re.ASCII | re.IGNORECASE)
_CHUNK_BYTES = 64 * 1024

throttle = TokenBucket(BURST, PER_SECOND)


class Answer(HttpResponse):
    """A status and no body; ``then`` is called once it has been sent."""

    def __init__(self, status: int, *, then: Callable[[], object] | None = None) -> None:
        super().__init__(status=status, content_type="text/plain")
        self["Content-Length"] = "0"  # whole for the client before the connection is closed
        self["Cache-Control"] = _NEVER_CACHED
        self._then = then
        # Django mails each 5xx that it logs to the site's admins, and any sender can cause a 503.
        self._has_been_logged = status >= 500

    def close(self) -> None:
        then, self._then = self._then, None
        if then is not None:
            try:
                then()
            except Exception as error:  # noqa: BLE001  the answer has been sent
                logger.warning("a webhook is left for later: %s", type(error).__name__)
        super().close()


class _RefusedError(Exception):
    def __init__(self, status: int, why: str) -> None:
        self.status = status
        super().__init__(why)


@login_not_required
@csrf_exempt
@transaction.non_atomic_requests
def webhook(request: HttpRequest) -> HttpResponse:
    """Accept one webhook: 200 once it is recorded, or when the same body came before."""
    try:
        body = _admitted_body(request)
        told = parse_body(body)
        delivery = receive(body, told)
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
    if find_worker("delivery", delivery.pk):
        return Answer(200)
    return Answer(200, then=copy_soon)


# --- is it Bland's ----------------------------------------------------------------------------


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
    signature = request.META.get("HTTP_X_WEBHOOK_SIGNATURE")
    if not signature:
        raise _RefusedError(401, "not signed")
    if not _SIGNATURE.fullmatch(signature):
        raise _RefusedError(403, "not a signature")
    try:
        body = _read(request, settings.webhook_max_bytes + 1)
    except Exception:  # noqa: BLE001  each server's stream has errors of its own
        raise _RefusedError(400, "the body ended early") from None
    if len(body) > settings.webhook_max_bytes:
        raise _RefusedError(413, "too long")
    try:
        is_ours = is_signed(body, signature, secrets)
    except BlandConfigurationError:
        raise _RefusedError(503, "a webhook secret cannot be read") from None
    if not is_ours:
        raise _RefusedError(403, "wrong signature")
    if not throttle.take():
        raise _RefusedError(429, "too many at once")
    return body


def _content_length(request: HttpRequest) -> int:
    text = str(request.META.get("CONTENT_LENGTH") or "").strip()
    return int(text[:19]) if text.isascii() and text.isdigit() else 0


def _read(request: HttpRequest, most: int) -> bytes:
    """At most so many bytes of the body; not by ``request.body``, whose limit is the host's own."""
    stream: HttpRequest = request
    if not request.META.get("CONTENT_LENGTH") and request.META.get("wsgi.input_terminated"):
        # A chunked body, which Django ignores; the server marks its end.
        stream = request.META["wsgi.input"]
    chunks, left = [], most
    while left > 0:
        chunk = stream.read(min(left, _CHUNK_BYTES))
        if not chunk:
            break
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)
