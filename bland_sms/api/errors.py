"""What went wrong, in one shape: a word for programs, a sentence for people, and Bland's own."""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

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
from django.utils.translation import gettext_lazy
from rest_framework import exceptions
from rest_framework.response import Response

from ..exceptions import STOPPING_ERRORS, BlandError
from ..models import BulkUpdate, BulkUpdateItem
from ..payloads import clean_text
from ..sentences import translated

logger = logging.getLogger("bland_sms.api")

State = BulkUpdateItem.State
RETRY_AFTER_SECONDS = 5
"""When to come back where nobody has said."""
MOST_CHARACTERS = 500


class Meaning(NamedTuple):
    """What a code of ours is as an HTTP status, and in words."""

    status: int
    words: str | Promise
    quotes: bool = False
    """What happened is in the message, and is told with it."""


MEANINGS = {
    "CONVERSATION_NOT_FOUND": Meaning(
        404, gettext_lazy("Bland has no such conversation under this key.")
    ),
    "invalid_id": Meaning(404, gettext_lazy("This cannot be a conversation's id.")),
    "not_permitted": Meaning(
        403, gettext_lazy("Whoever asked for it may not do it any more."), quotes=True
    ),
    "not_applied": Meaning(409, gettext_lazy("Bland answered, but did not change it.")),
    "superseded": Meaning(409, gettext_lazy("A newer update asks for the opposite."), quotes=True),
    "cancelled": Meaning(409, gettext_lazy("It was cancelled before its turn came."), quotes=True),
    "bad_answer": Meaning(502, gettext_lazy("Bland's answer made no sense.")),
    "redirected": Meaning(502, gettext_lazy("Bland redirects elsewhere, which is not followed.")),
    "tls_refused": Meaning(502, gettext_lazy("Bland's certificate is not trusted.")),
    "not_configured": Meaning(
        503, gettext_lazy("This site is not connected to Bland."), quotes=True
    ),
    "not_attempted": Meaning(503, gettext_lazy("There was no time left to ask Bland.")),
    "not_stored": Meaning(
        503, gettext_lazy("Done at Bland, but the copy here could not be written: refresh it.")
    ),
    "no_connection": Meaning(504, gettext_lazy("Bland could not be reached.")),
    "no_answer": Meaning(504, gettext_lazy("Bland did not answer in time.")),
    "outage": Meaning(504, gettext_lazy("Bland does not answer.")),
}


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
    code: str,
    http_status: int | None = None,
    words: str = "",
    *,
    is_final: bool = False,
    in_doubt: bool = False,
    retry_after_seconds: float | None = None,
    more: Mapping[str, Any] | None = None,
) -> Refusal:
    """A failed exchange with Bland, as the API answers it.

    Args:
        code: An item's ``error_code``, an update's ``stop_code``, or that of a BlandError.
        http_status: Bland's, where it answered.
        words: Bland's own, or ours about what happened.
        is_final: No other conversation can succeed either.
        in_doubt: Bland may have done what was asked all the same.
    """
    told = {**(more or {})}
    meaning = MEANINGS.get("bad_answer" if in_doubt and code == "not_applied" else code)
    is_blands = meaning is None or code == "CONVERSATION_NOT_FOUND"
    if is_blands and code and not code.startswith("http_"):
        told["bland_code"] = code
    if http_status is not None and http_status >= 300:
        told["http_status"] = http_status
    if meaning is None:
        meaning = _meaning_of(None if is_final else http_status)
        detail = _("%(what)s Bland said: %(words)s") if words else "%(what)s"
    else:
        detail = "%(what)s (%(words)s)" if words and meaning.quotes else "%(what)s"
    if in_doubt:
        detail += " " + _("It may have been done all the same.")
    if meaning.status == 503 and retry_after_seconds is None:
        retry_after_seconds = RETRY_AFTER_SECONDS
    return Refusal(
        meaning.status,
        code or "error",
        detail % {"what": meaning.words, "words": translated(words)},
        retry_after_seconds=retry_after_seconds,
        more=told,
    )


def _meaning_of(http_status: int | None) -> Meaning:
    """Of a code that is Bland's own: its status decides. ``None``: no row can succeed."""
    if http_status is None or http_status in (401, 403, 404):
        return Meaning(502, _("Bland refuses this site's key, or is not at its address."))
    if http_status == 429:
        return Meaning(503, _("Bland asks us to slow down."))
    if http_status == 408 or http_status >= 500:
        return Meaning(502, _("Bland had an error of its own."))
    return Meaning(409, _("Bland refused it."))


def refusal_of_error(error: BlandError) -> Refusal:
    """A failed question to Bland, as the API answers it."""
    return refusal_of(
        error.code,
        error.status_code,
        getattr(error, "message", "") or str(error),
        is_final=isinstance(error, STOPPING_ERRORS),
        retry_after_seconds=error.retry_after_seconds,
    )


def outcome_of(bulk_update: BulkUpdate, item: BulkUpdateItem) -> Refusal:
    """Why an update of one conversation has not led to what was asked, or not yet (202)."""
    more = {"bulk_update": bulk_update.pk, "state": item.state}
    if item.state == State.WAITING and bulk_update.status == BulkUpdate.Status.STOPPED:
        code, words = bulk_update.stop_code, bulk_update.stop_message
        return refusal_of(code, None, words, is_final=True, more=more)
    if item.state == State.WAITING and item.error_code:  # it was in flight: Bland may have done it
        return refusal_of("no_answer", in_doubt=True, more=more)
    if item.state == State.WAITING and item.http_status is not None:
        code, seconds = f"http_{item.http_status}", _seconds_until(item.not_before)
        return refusal_of(
            code, item.http_status, item.message, retry_after_seconds=seconds, more=more
        )
    if item.state in (State.WAITING, State.RUNNING):
        return Refusal(202, "waiting", _("Asked for, and not carried out yet."), more=more)
    if item.error_code == "already_queued":
        words = _("Another update does the same already: %s.") % translated(item.message)
        return Refusal(202, "already_queued", words, more=more)
    is_unknown = item.state == State.UNKNOWN
    return refusal_of(
        item.error_code, item.http_status, item.message, in_doubt=is_unknown, more=more
    )


def _seconds_until(moment: datetime | None) -> float | None:
    if moment is None:
        return None
    return max(1.0, (moment - timezone.now()).total_seconds())


# --- any failure ------------------------------------------------------------------------------


def answer_to(error: Exception, context: Mapping[str, Any]) -> Response | None:
    """Every failure in the same shape. ``None``: not one that can be foreseen."""
    found = _as_api_exception(error)
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


def _as_api_exception(error: Exception) -> exceptions.APIException | None:
    if isinstance(error, exceptions.APIException):
        return error
    if isinstance(error, (Http404, ObjectDoesNotExist)):  # or gone since we looked
        return exceptions.NotFound()
    if isinstance(error, PermissionDenied):
        return exceptions.PermissionDenied()
    if isinstance(error, BlandError):
        return refusal_of_error(error)
    if isinstance(error, RequestDataTooBig):
        return Refusal(413, "too_large", _("The body is too long."))
    if isinstance(error, ImproperlyConfigured):
        logger.error("the settings cannot be read", exc_info=error)
        return refusal_of("not_configured")
    if isinstance(error, (OperationalError, InterfaceError)):
        logger.error("the database is not available", exc_info=error)
        return Refusal(
            503,
            "database_unavailable",
            _("The database is not available."),
            retry_after_seconds=RETRY_AFTER_SECONDS,
        )
    return None


def _code_of(error: exceptions.APIException) -> str:
    codes = error.get_codes()
    return codes if isinstance(codes, str) else error.default_code


def _detail_of(error: exceptions.APIException) -> str:
    if isinstance(error.detail, str):
        return plain(error.detail)
    first = next(iter(_flat(error.get_full_details())), ("", str(error.default_detail), ""))
    name, words, _word = first
    return plain(f"{name}: {words}" if name else words)


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
