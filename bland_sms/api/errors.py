"""What went wrong, in one shape: a word for programs, a sentence for people, and Bland's own."""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from django.core.exceptions import (
    ImproperlyConfigured,
    ObjectDoesNotExist,
    PermissionDenied,
    RequestDataTooBig,
)
from django.db import InterfaceError, OperationalError
from django.http import Http404
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.settings import api_settings

from ..database import is_passing
from ..exceptions import BlandError
from ..models import BulkUpdate, BulkUpdateItem
from ..reasons import Failure, is_blands_code
from ..words import clean_text
from .permissions import may

logger = logging.getLogger("bland_sms.api")

State = BulkUpdateItem.State
RETRY_AFTER_SECONDS = 5
"""``Retry-After`` where no time is known."""
MOST_CHARACTERS = 500
_NO_FIELDS = {"", "detail", str(api_settings.NON_FIELD_ERRORS_KEY)}
"""Keys of errors that name no field of a request."""


class Refusal(exceptions.APIException):
    """An answer that is no success. ``more`` goes into its body as it is."""

    def __init__(
        self,
        status_code: int,
        code: str,
        detail: str | Promise,
        *,
        retry_after_seconds: float | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(str(detail), code)
        self.status_code = status_code
        self.wait = None if retry_after_seconds is None else math.ceil(retry_after_seconds)
        self.more = dict(more or {})


# --- Bland's failures -------------------------------------------------------------------------


def refusal_of(
    failure: Failure,
    *,
    in_doubt: bool = False,
    retry_after_seconds: float | None = None,
    more: Mapping[str, Any] | None = None,
    with_words: bool = False,
) -> Refusal:
    """A failed exchange with Bland, as the API answers it.

    Args:
        failure: An item's, an update's ``stop``, or that of a BlandError.
        with_words: With Bland's own words: for those who may read transcripts.
        in_doubt: Bland may have done what was asked all the same.
    """
    told, code = dict(more or {}), failure.code or "error"
    if is_blands_code(code):
        told["bland_code"] = code
    if failure.http_status is not None and failure.http_status >= 300:
        told["http_status"] = failure.http_status
    detail = failure.told(with_words).as_sentence
    if in_doubt:
        detail += " " + _("It may have been done all the same.")
    status = failure.reason.status
    if status == 503 and retry_after_seconds is None:
        retry_after_seconds = RETRY_AFTER_SECONDS
    return Refusal(status, code, detail, retry_after_seconds=retry_after_seconds, more=told)


def refusal_of_error(error: BlandError, *, with_words: bool = False) -> Refusal:
    """A failed request to Bland, as the API answers it."""
    seconds = error.retry_after_seconds
    return refusal_of(error.failure, retry_after_seconds=seconds, with_words=with_words)


def outcome_of(bulk_update: BulkUpdate, item: BulkUpdateItem, *, with_words: bool) -> Refusal:
    """Why an update of one conversation has not led to what was asked, or not yet (202)."""
    more = {"bulk_update": bulk_update.pk, "state": item.state}
    if item.state == State.WAITING and bulk_update.status == BulkUpdate.Status.STOPPED:
        return refusal_of(bulk_update.stop, more=more, with_words=with_words)
    if item.state == State.WAITING and item.http_status is not None and item.not_before:
        failure = Failure.of(f"http_{item.http_status}", words=item.message)
        seconds = _seconds_until(item.not_before)
        return refusal_of(failure, retry_after_seconds=seconds, more=more, with_words=with_words)
    if item.state == State.WAITING and item.error_code:  # it was in flight: Bland may have done it
        return refusal_of(Failure("no_answer"), in_doubt=True, more=more)
    if item.state in State.OPEN:
        return refusal_of(Failure("waiting"), more=more)
    in_doubt = item.state == State.UNKNOWN
    return refusal_of(item.failure, in_doubt=in_doubt, more=more, with_words=with_words)


def _seconds_until(moment: datetime | None) -> float | None:
    if moment is None:
        return None
    return max(1.0, (moment - timezone.now()).total_seconds())


# --- any failure ------------------------------------------------------------------------------


def answer_to(error: Exception, context: Mapping[str, Any]) -> Response | None:
    """Every failure in the same shape. ``None``: not one that can be foreseen."""
    found = _as_api_exception(error, with_words=_may_read_words(context))
    if found is None:
        return None
    body: dict[str, Any] = {"code": _code_of(found), "detail": _detail_of(found)}
    if isinstance(found, exceptions.ValidationError):
        body["fields"] = _fields_of(found)
    if isinstance(found, Refusal):
        body |= found.more
    headers = {}
    if getattr(found, "auth_header", None):
        headers["WWW-Authenticate"] = str(found.auth_header)  # type: ignore[attr-defined]
    if getattr(found, "wait", None):
        headers["Retry-After"] = str(math.ceil(found.wait))  # type: ignore[attr-defined]
    return Response(body, status=found.status_code, headers=headers)


def _may_read_words(context: Mapping[str, Any]) -> bool:
    """Whether the user is authenticated by now and may read Bland's own words."""
    user = getattr(context.get("request"), "_user", None)
    return user is not None and may(user, "view_transcript")


def _as_api_exception(
    error: Exception, *, with_words: bool = False
) -> exceptions.APIException | None:
    if isinstance(error, exceptions.APIException):
        return error
    if isinstance(error, (Http404, ObjectDoesNotExist)):  # or gone since we looked
        return exceptions.NotFound()
    if isinstance(error, PermissionDenied):
        return exceptions.PermissionDenied()
    if isinstance(error, BlandError):
        return refusal_of_error(error, with_words=with_words)
    if isinstance(error, RequestDataTooBig):
        return refusal_of(Failure("too_large"))
    if isinstance(error, ImproperlyConfigured):
        logger.error("the settings cannot be read", exc_info=error)
        return refusal_of(Failure("not_configured"))
    if isinstance(error, (OperationalError, InterfaceError)) or is_passing(error):
        logger.error("the database is not available", exc_info=error)
        return refusal_of(Failure("database_unavailable"))
    return None


def _code_of(error: exceptions.APIException) -> str:
    codes = error.get_codes()
    return codes if isinstance(codes, str) else error.default_code


def _detail_of(error: exceptions.APIException) -> str:
    if isinstance(error.detail, str):
        return plain(error.detail)
    first = next(iter(_flat(error.get_full_details())), ("", str(error.default_detail), ""))
    name, words, _word = first
    is_field = isinstance(error, exceptions.ValidationError) and name not in _NO_FIELDS
    return plain(f"{name}: {words}" if is_field else words)


def _fields_of(error: exceptions.ValidationError) -> dict[str, list[dict[str, str]]]:
    fields: dict[str, list[dict[str, str]]] = {}
    for name, words, code in _flat(error.get_full_details()):
        fields.setdefault(plain(name, 64), []).append({"code": code, "detail": plain(words)})
    return fields


def _flat(details: Any, name: str = "") -> Iterable[tuple[str, str, str]]:
    """Field, words and code of each error in whatever DRF has nested them."""
    if isinstance(details, Mapping) and set(details) == {"message", "code"}:
        yield name, str(details["message"]), str(details["code"])
    elif isinstance(details, Mapping):
        for key, value in details.items():
            yield from _flat(value, f"{name}.{key}" if name else str(key))
    elif isinstance(details, list):
        for value in details:
            yield from _flat(value, name)


def plain(text: str, longest: int = MOST_CHARACTERS) -> str:
    """Text that any renderer can write, whatever of the request is quoted in it."""
    return clean_text(str(text), longest)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """What to say of a name that is not among the known ones."""
    names = sorted(known)
    near = difflib.get_close_matches(name[:64], names, n=1)
    if near:
        return _("Unknown, did you mean %s?") % near[0]
    return _("Unknown; there are: %s.") % ", ".join(names)
