"""How we ask: one method per endpoint, over requests.

The contract is ``docs/bland.md``.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

import urllib3
from django.utils import timezone

from ..conf import BlandSettings
from ..exceptions import (
    BlandError,
    BlandInvalidIdError,
    BlandNotSentError,
    BlandPayloadError,
    GaveUp,
    without_frames,
)
from ..pacing import Allowance, Pacer
from ..payloads import (
    ENVELOPE,
    ConversationPage,
    ConversationPayload,
    UpdatePayload,
    is_conversation_id,
    unwrap,
)
from .answers import BELOW_HTTP, Answer, read_answer
from .connecting import check_api_key, check_proxies, normalise_base_url
from .failures import is_timeout, translate
from .retrying import Limits, is_repeatable, leaves_open, most_telling, plan_retry
from .session import KeyAuth, build_session
from .wire import guarded

__all__ = [
    "BlandClient",
    "Dialect",
    "ListFilter",
    "conversation_path",
]

logger = logging.getLogger("bland_sms.client")

CONVERSATIONS = "/v1/sms/conversations"
MIB = 1024 * 1024
MAX_UPDATE_BYTES = 1 * MIB
MAX_DETAIL_BYTES = 8 * MIB
MAX_LIST_BYTES = 32 * MIB


class ListFilter(NamedTuple):
    """One condition on the list, such as ``("created_at", "gte", "2026-01-01T00:00:00Z")``."""

    field: str
    operator: str
    value: str


Dialect = Literal["a", "b"]
"""The two ways in which Bland's documentation asks for the list; see ``docs/bland.md``."""


def conversation_path(conversation_id: str) -> str:
    """The path of one conversation. Raises BlandInvalidIdError.

    A whitelist and not escaping: even an escaped ``..`` leaves the folder, since urllib3 removes
    dot segments, and dots need no escape.
    """
    if not is_conversation_id(conversation_id):
        raise BlandInvalidIdError(id=repr(str(conversation_id)[:40]))
    return f"{CONVERSATIONS}/{conversation_id}"


class BlandClient:
    """Bland's SMS conversations over HTTP. Safe to share between threads.

    Every method takes an ``allowance``, which says how long and how often it may ask; without
    one a call is repeated up to ``MAX_RETRIES`` times. All raise :class:`BlandError`.
    """

    def __init__(self, settings: BlandSettings) -> None:
        """Raises BlandConfigurationError: no usable key, base URL or CA bundle.

        A key that a callable returns is read by :meth:`read_key`, or else before each request.
        """
        check_api_key(settings.api_key)
        self.settings = settings
        self.base_url = normalise_base_url(settings.base_url)
        check_proxies(self.base_url, settings.proxies)
        self.pacer = Pacer(settings.rate_limit)
        self._auth = KeyAuth(settings.api_key)
        self._session = build_session(settings, self._auth)

    def read_key(self) -> None:
        """Read the key once for all requests that follow. Raises BlandConfigurationError."""
        api_key = self.settings.api_key.read()
        check_api_key(api_key)
        self._auth.api_key = api_key

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
            raise BlandPayloadError("no_conversation")
        data = {"id": conversation_id, **told}
        payload = ConversationPayload.from_json(
            data, observed_at=answer.observed_at, answered_at=answer.answered_at
        )
        if payload.id != conversation_id:
            raise BlandPayloadError("another_conversation")
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

        Bland does not refuse what it does not understand: with the wrong dialect it ignores
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
    ) -> Answer:
        """Send until Bland answers, the failure is one that repeating cannot mend, or it is over.

        What is raised is the last failure, unless an earlier one leaves it open whether Bland did
        what was asked and the last one does not answer that.
        """
        allowance = allowance or Allowance()
        failure: BlandError | None = None
        doubt: BlandError | None = None
        attempt = 0
        while True:
            attempt += 1
            if not (self.pacer.wait(allowance) and allowance.may_send()):
                if failure is None:
                    raise BlandNotSentError()
                failure.gave_up = GaveUp.TIME
                raise failure
            allowance.sent[method] += 1
            observed_at, sent_at = timezone.now(), time.monotonic()
            answer = self._exchange(method, path, params, body, max_bytes, allowance, observed_at)
            if isinstance(answer, Answer):
                allowance.answered()
                self.pacer.answered(sent_at)
                return answer
            if isinstance(answer, BlandNotSentError):  # not allowed any more at the last moment
                allowance.sent[method] -= 1
                if failure is None:
                    raise answer
                failure.gave_up = GaveUp.TIME
                raise failure
            answer.observed_at = observed_at
            if answer.status_code == 429:
                self.pacer.refused(sent_at, answer.retry_after_seconds)
                # Where others are refused too it is no fault of this one, and no attempt of it.
                is_storm = allowance.refused(path)
                attempt -= is_storm and allowance.attempts is None
            elif answer.status_code is not None:
                self.pacer.answered(sent_at)
            logger.info(
                "%s %s: attempt %d: %s %s",
                method,
                path,
                attempt,
                type(answer).__name__,
                answer.code,
            )
            if not is_repeatable(answer):
                allowance.answered()
                raise answer
            if leaves_open(answer):
                doubt = answer
                allowance.in_doubt |= method != "GET"
            failure = most_telling(doubt, answer)
            failure.gave_up = self._pause_before_retry(
                failure, attempt, allowance, is_refused=answer.status_code == 429
            )
            if failure.gave_up is not None:
                raise failure

    def _pause_before_retry(
        self, failure: BlandError, attempt: int, allowance: Allowance, *, is_refused: bool
    ) -> GaveUp | None:
        """Wait as long as the failure asks for; or say why it is not worth another request."""
        wait = plan_retry(failure, attempt, Limits.of(allowance, self.settings.max_retries))
        if isinstance(wait, GaveUp):
            return wait
        if not (allowance.may_be_refused() if is_refused else allowance.may_retry()):
            return GaveUp.BUDGET
        return None if allowance.pause(wait) else GaveUp.TIME

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
    ) -> Answer | BlandError:
        """Send one request. Returns what went wrong: a debug page shows the local variables of
        every frame that an error passed through, and these hold the key or what Bland echoed.

        The same goes for what is none of Bland's, such as the time limit of a task engine, which
        a signal raises wherever the thread happens to be.
        """
        try:
            return self._send(method, path, params, body, max_bytes, allowance, observed_at)
        except BaseException as error:  # noqa: BLE001  raised again
            raise without_frames(error) from None

    def _timeout(self, allowance: Allowance) -> tuple[Any, bool]:
        """How long to wait, and whether that is less than the settings say."""
        connect, read = self.settings.connect_timeout, self.settings.read_timeout
        left = allowance.seconds_left()
        if left is None:
            return urllib3.Timeout(connect=min(connect, read), read=read), False
        shorter = max(0.001, min(read, left))  # connecting is part of it
        timeout = urllib3.Timeout(connect=min(connect, shorter), read=shorter, total=shorter)
        return timeout, left < read

    def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, str | int] | None,
        body: Mapping[str, Any] | None,
        max_bytes: int,
        allowance: Allowance,
        observed_at: datetime,
    ) -> Answer | BlandError:
        timeout, is_cut = self._timeout(allowance)
        try:
            with (
                guarded(allowance.may_send),
                self._session.send(
                    self._session.prepared(method, self.base_url, path, params, body),
                    timeout=timeout,
                    allow_redirects=False,
                    stream=True,
                    proxies=dict(self.settings.proxies),
                ) as response,
            ):
                return read_answer(response, max_bytes, observed_at)
        except BlandError as error:
            failure = error
        except BELOW_HTTP as error:
            failure = translate(error)
            failure.cut_off = is_cut and is_timeout(error)
        without_frames(failure)
        return failure
