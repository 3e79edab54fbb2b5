"""How we ask: one method per endpoint, over requests; get_client() owns one client per process.

The contract is ``docs/bland.md``.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

import requests
import urllib3
from django.utils import timezone
from django.utils.translation import gettext_noop

from .. import sentences
from ..conf import BlandSettings, check_api_key, get_settings, normalise_base_url
from ..exceptions import (
    TRANSIENT_ERRORS,
    BlandConflictError,
    BlandError,
    BlandInvalidIdError,
    BlandNotSentError,
    BlandOutcomeUnknownError,
    BlandPayloadError,
    GaveUp,
)
from ..pacing import Allowance, Pacer, back_off_seconds
from ..payloads import (
    ENVELOPE,
    ConversationPage,
    ConversationPayload,
    UpdatePayload,
    describe_error,
    is_conversation_id,
    parse_body,
    read_error,
    unwrap,
)
from .failures import api_error, leaves_open, parse_date, parse_retry_after, translate
from .session import build_session

__all__ = ["BlandClient", "Dialect", "ListFilter", "conversation_path", "get_client"]

logger = logging.getLogger("bland_sms.client")

CONVERSATIONS = "/v1/sms/conversations"
MIB = 1024 * 1024
MAX_UPDATE_BYTES = 1 * MIB
MAX_DETAIL_BYTES = 8 * MIB
MAX_LIST_BYTES = 32 * MIB
_CHUNK_BYTES = 64 * 1024
_REPEATABLE_ERRORS = (*TRANSIENT_ERRORS, BlandConflictError)
_BELOW_HTTP = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)


class ListFilter(NamedTuple):
    """One condition on the list, such as ``("created_at", "gte", "2026-01-01T00:00:00Z")``."""

    field: str
    operator: str
    value: str


Dialect = Literal["a", "b"]
"""The two ways in which Bland's documentation asks for the list; see ``docs/bland.md``."""


@dataclass(frozen=True, slots=True)
class _Answer:
    body: dict[str, Any] = field(repr=False)
    observed_at: datetime
    """Ours: when the request was sent."""
    answered_at: datetime | None
    """Bland's: the answer's ``Date``."""


def conversation_path(conversation_id: str) -> str:
    """The path of one conversation. Raises BlandInvalidIdError.

    A whitelist and not escaping: even an escaped ``..`` leaves the folder, since urllib3 removes
    dot segments, and dots need no escape.
    """
    if not is_conversation_id(conversation_id):
        raise BlandInvalidIdError(sentences.NO_ID % {"id": repr(str(conversation_id)[:40])})
    return f"{CONVERSATIONS}/{conversation_id}"


class BlandClient:
    """Bland's SMS conversations over HTTP. Safe to share between threads.

    Every method takes an ``allowance``, which says how long and how often it may ask; without
    one a call is repeated up to ``MAX_RETRIES`` times. All raise :class:`BlandError`.
    """

    def __init__(self, settings: BlandSettings) -> None:
        """Raises BlandConfigurationError: no usable key, base URL or CA bundle."""
        check_api_key(settings.api_key)
        self.settings = settings
        self.base_url = normalise_base_url(settings.base_url)
        self.pacer = Pacer(settings.rate_limit)
        self._session = build_session(settings)

    def update_conversation(
        self, conversation_id: str, *, is_active: bool, allowance: Allowance | None = None
    ) -> UpdatePayload:
        """Ask Bland to set ``is_active``.

        What comes back is what Bland said, not what was asked: compare ``id`` and ``is_active``.

        Raises:
            BlandNotFoundError: this account has no such conversation.
            BlandOutcomeUnknownError: Bland may have done it.
            BlandError: any other failure.

        Source: PATCH /v1/sms/conversations/{id}
            https://docs.bland.ai/api-v1/patch/sms-conversations-id
        """
        answer = self._request(
            "PATCH",
            conversation_path(conversation_id),
            body={"is_active": is_active},
            max_bytes=MAX_UPDATE_BYTES,
            allowance=allowance,
        )
        return UpdatePayload.from_json(
            answer.body, observed_at=answer.observed_at, answered_at=answer.answered_at
        )

    def get_conversation(
        self, conversation_id: str, *, allowance: Allowance | None = None
    ) -> ConversationPayload:
        """Fetch one conversation with all its messages.

        Args:
            conversation_id: Bland's id, an opaque text.

        Returns:
            The conversation; times are aware.

        Raises:
            BlandNotFoundError: this account has no such conversation.
            BlandPayloadError: the answer is about another conversation, or about none.
            BlandError: any other failure.

        Source: GET /v1/sms/conversations/{id}
            https://docs.bland.ai/api-v1/get/sms-conversations-id
        """
        answer = self._request(
            "GET",
            conversation_path(conversation_id),
            max_bytes=MAX_DETAIL_BYTES,
            allowance=allowance,
        )
        told = {k: v for k, v in unwrap(answer.body).items() if k not in ENVELOPE}
        if not told:
            raise BlandPayloadError(gettext_noop("Bland answered about no conversation"))
        data = {"id": conversation_id, **told}
        payload = ConversationPayload.from_json(
            data, observed_at=answer.observed_at, answered_at=answer.answered_at
        )
        if payload.id != conversation_id:
            raise BlandPayloadError(gettext_noop("Bland answered about another conversation"))
        return payload

    def list_conversations(
        self,
        *,
        page: int = 1,
        page_size: int | None = None,
        sort_by: str = "created_at",
        ascending: bool = True,
        filters: Sequence[ListFilter] = (),
        dialect: Dialect | None = None,
        allowance: Allowance | None = None,
    ) -> ConversationPage:
        """Fetch one page of the list.

        Bland does not refuse what it does not understand: asked in the wrong dialect it ignores
        order, page and filters, and answers with 200. Check what comes back.

        Args:
            page: From 1.
            page_size: Rows; ``None``: as ``PAGE_SIZE`` says. Bland may send fewer.
            sort_by: ``created_at`` or ``updated_at``, which both dialects know.
            filters: Operators ``gt``, ``gte``, ``lt`` and ``lte`` are the same in both.
            dialect: ``None``: as ``LIST_DIALECT`` says, ``a`` where that is ``auto``.

        Raises:
            BlandPayloadError: the answer holds no list.
            BlandError: any other failure.

        Source: GET /v1/sms/conversations
            https://docs.bland.ai/api-v1/get/sms-conversations
        """
        size = page_size or self.settings.page_size
        if (dialect or self.settings.list_dialect) == "b":
            params: dict[str, str | int] = {
                "limit": size,
                "from": (page - 1) * size,
                "sort_by": sort_by,
                "ascending": "true" if ascending else "false",
            }
        else:
            params = {
                "page": page,
                "pageSize": size,
                "sortBy": sort_by,
                "sortDir": "asc" if ascending else "desc",
            }
        if filters:
            params["filters"] = json.dumps(
                [condition._asdict() for condition in filters], separators=(",", ":")
            )
        answer = self._request(
            "GET", CONVERSATIONS, params=params, max_bytes=MAX_LIST_BYTES, allowance=allowance
        )
        return ConversationPage.from_json(
            answer.body, observed_at=answer.observed_at, answered_at=answer.answered_at
        )

    # --- one call, repeated where that may help -----------------------------------------------

    def _request(
        self,
        method: str,
        path: str,
        *,
        max_bytes: int,
        params: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
        allowance: Allowance | None = None,
    ) -> _Answer:
        """Send until Bland answers, the failure is one that repeating cannot mend, or it is over.

        What is raised is the last failure, unless an earlier one leaves it open whether Bland did
        what was asked and the last one does not answer that.
        """
        allowance = allowance or Allowance()
        failure: BlandError | None = None
        doubt: BlandError | None = None
        for attempt in itertools.count(1):
            if not self.pacer.wait(allowance):
                if failure is None:
                    raise BlandNotSentError(
                        gettext_noop("not asked: the time was up or the job was stopped")
                    )
                failure.gave_up = GaveUp.TIME
                raise failure
            allowance.sent[method] += 1
            observed_at, sent_at = timezone.now(), time.monotonic()
            answer = self._exchange(method, path, params, body, max_bytes, allowance, observed_at)
            if isinstance(answer, _Answer):
                allowance.answered()
                return answer
            failure = answer
            failure.observed_at = observed_at
            if failure.status_code == 429:
                self.pacer.refused(sent_at, failure.retry_after_seconds)
            if leaves_open(failure):
                doubt = failure
            elif doubt is not None and isinstance(failure, TRANSIENT_ERRORS):
                doubt.retry_after_seconds = failure.retry_after_seconds
                failure = doubt
            logger.info(
                "%s %s: attempt %d: %s %s",
                method,
                path,
                attempt,
                type(failure).__name__,
                failure.code,
            )
            failure.gave_up = self._prepare_retry(failure, attempt, allowance)
            if failure.gave_up is not None or not isinstance(failure, _REPEATABLE_ERRORS):
                raise failure
        raise AssertionError("unreachable")

    def _prepare_retry(
        self, failure: BlandError, attempt: int, allowance: Allowance
    ) -> GaveUp | None:
        """Wait as long as the failure asks for; or say why it is not worth another request."""
        if not isinstance(failure, _REPEATABLE_ERRORS):
            allowance.answered()
            return None
        attempts = self.settings.max_retries + 1
        if isinstance(failure, BlandConflictError):
            attempts = min(2, attempts)
        if allowance.attempts is not None:
            attempts = min(attempts, allowance.attempts)
        if attempt >= attempts:
            return GaveUp.ATTEMPTS
        seconds = back_off_seconds(attempt, failure.retry_after_seconds)
        if seconds is None:
            return GaveUp.PATIENCE
        if not allowance.may_pause(seconds):
            return GaveUp.TIME
        if not allowance.may_retry():
            return GaveUp.BUDGET
        return None if allowance.pause(seconds) else GaveUp.TIME

    # --- one request --------------------------------------------------------------------------

    def _exchange(
        self,
        method: str,
        path: str,
        params: Mapping[str, str | int] | None,
        body: Mapping[str, Any] | None,
        max_bytes: int,
        allowance: Allowance,
        observed_at: datetime,
    ) -> _Answer | BlandError:
        """Send one request. Returns what went wrong: a debug page shows the local variables of
        every frame that an error passed through, and these hold the key or what Bland echoed.
        """
        read_timeout, left = self.settings.read_timeout, allowance.seconds_left()
        if left is not None:
            read_timeout = max(0.001, min(read_timeout, left))
        timeout: Any = urllib3.Timeout(
            connect=min(self.settings.connect_timeout, read_timeout),
            read=read_timeout,
            total=None if left is None else read_timeout,  # connecting is part of it
        )
        try:
            with self._session.request(
                method,
                self.base_url + path,
                params=params,
                json=body,
                timeout=timeout,
                allow_redirects=False,
                stream=True,
                proxies=dict(self.settings.proxies),
            ) as response:
                return self._read_answer(response, max_bytes, observed_at)
        except BlandError as error:
            failure = error
        except _BELOW_HTTP as error:
            failure = translate(error)
        failure.__traceback__ = failure.__context__ = failure.__cause__ = None
        return failure

    def _read_answer(
        self, response: requests.Response, max_bytes: int, observed_at: datetime
    ) -> _Answer:
        answered_at = parse_date(response.headers.get("Date"), observed_at)
        scrub = self.settings.api_key.scrub
        if 200 <= response.status_code < 300:
            body = _confirm(_read(response, max_bytes), response.status_code, scrub)
            return _Answer(_scrubbed(body, scrub), observed_at, answered_at)
        try:
            content = _read(response, max_bytes)
        except (BlandError, *_BELOW_HTTP):
            content = b""  # the status is known; of an error that is enough
        code, message = read_error(content)
        retry_after = parse_retry_after(
            response.headers.get("Retry-After"), answered_at or observed_at
        )
        raise api_error(response.status_code, scrub(code), scrub(message), retry_after)


def _read(response: requests.Response, max_bytes: int) -> bytes:
    """The body, as long as it is plain and not too long. The socket enforces the deadline."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise BlandOutcomeUnknownError(
            gettext_noop("Bland's answer is compressed, which nobody asked for")
        )
    chunks, size = [], 0
    for chunk in response.iter_content(_CHUNK_BYTES):
        size += len(chunk)
        if size > max_bytes:
            raise BlandOutcomeUnknownError(sentences.TOO_LONG % {"number": max_bytes})
        chunks.append(chunk)
    return b"".join(chunks)


def _scrubbed(value: Any, scrub: Callable[[str], str]) -> Any:
    """Nothing that Bland says back may bring the key into a row, a log or a message."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, list):
        return [_scrubbed(item, scrub) for item in value]
    if isinstance(value, dict):
        return {scrub(key): _scrubbed(item, scrub) for key, item in value.items()}
    return value


def _confirm(content: bytes, status_code: int, scrub: Callable[[str], str]) -> dict[str, Any]:
    """The body of a 2xx, which is no success before it says so."""
    try:
        body = parse_body(content)
    except BlandPayloadError as error:
        unreadable = BlandOutcomeUnknownError(str(error))
        unreadable.code, unreadable.status_code = error.code, status_code
        raise unreadable from None
    # Source: bland-cli 0.6.1 throws on a non-empty "errors" whatever the status.
    if body.get("errors") or body.get("status") == "error":
        code, message = describe_error(body)
        raise api_error(status_code, scrub(code), scrub(message), None)
    return body


# --- one client per process -------------------------------------------------------------------

_lock = threading.Lock()
_client: BlandClient | None = None


def get_client() -> BlandClient:
    """The process's client; a new one as soon as the settings say something else.

    Raises:
        BlandConfigurationError: no usable key, base URL or CA bundle.
        ImproperlyConfigured: ``BLAND_SMS`` itself is wrong.
    """
    global _client  # noqa: PLW0603  what "one per process" means
    settings = get_settings()
    with _lock:
        if _client is None or _client.settings != settings:
            _client = BlandClient(settings)
        return _client


def _forget_client() -> None:
    global _client, _lock
    _lock, _client = threading.Lock(), None


if hasattr(os, "register_at_fork"):  # a child must not write on its parent's sockets
    os.register_at_fork(after_in_child=_forget_client)
