"""Reads one answer: its status, its body and its ``Date``."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import requests
import urllib3

from ..exceptions import BlandError, BlandOutcomeUnknownError, BlandPayloadError
from ..payloads import describe_error, parse_body, read_error
from ..words import holds_secret, scrub_json
from .clock import note_date
from .failures import api_error, parse_date, parse_retry_after

MAX_ERROR_BYTES = 1024 * 1024
_CHUNK_BYTES = 64 * 1024
BELOW_HTTP = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)
"""What requests and all below it raise."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A success, as far as it says so itself."""

    body: dict[str, Any] = field(repr=False)
    observed_at: datetime
    """Ours: when the request was sent."""
    answered_at: datetime | None
    """Bland's: the answer's ``Date``."""


def read_answer(response: requests.Response, max_bytes: int, observed_at: datetime) -> Answer:
    """Raises BlandError for what is no success."""
    answered_at = parse_date(response.headers.get("Date"), observed_at)
    note_date(observed_at, answered_at)
    if response.status_code < 200:  # http.client skips only 100: the answer was still to come
        interim = BlandOutcomeUnknownError("interim_answer")
        interim.code, interim.status_code = BlandPayloadError.code, response.status_code
        raise interim
    if response.status_code < 300:
        content = _read(response, max_bytes)
        body = _confirm(content, response.status_code)
        if holds_secret(content):
            body = scrub_json(body)
        return Answer(body, observed_at, answered_at)
    try:
        content = _read(response, min(max_bytes, MAX_ERROR_BYTES))
    except (BlandError, *BELOW_HTTP):
        content = b""  # the status is known; of an error that is enough
    code, message = read_error(content)
    retry_after = parse_retry_after(response.headers.get("Retry-After"), answered_at or observed_at)
    raise api_error(response.status_code, code, message, retry_after)


def _read(response: requests.Response, max_bytes: int) -> bytes:
    """The body, as long as it is plain and not too long. The socket enforces the deadline."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise BlandOutcomeUnknownError("answer_compressed")
    chunks, size = [], 0
    while chunk := response.raw.read(_CHUNK_BYTES, decode_content=False):
        size += len(chunk)
        if size > max_bytes:
            raise BlandOutcomeUnknownError("answer_too_long", number=max_bytes)
        chunks.append(chunk)
        if response.raw.length_remaining == 0:
            break  # one more read would say so too
    return b"".join(chunks)


def _confirm(content: bytes, status_code: int) -> dict[str, Any]:
    """The body of a 2xx, which is no success before it says so."""
    try:
        body = parse_body(content)
    except BlandPayloadError as error:
        unreadable = BlandOutcomeUnknownError(error.cause, **error.params)
        unreadable.code, unreadable.status_code = error.code, status_code
        raise unreadable from None
    # Source: bland-cli 0.6.1 throws on a non-empty "errors" whatever the status.
    if body.get("errors") or body.get("status") == "error":
        code, message = describe_error(body)
        raise api_error(status_code, code, message, None)
    return body
