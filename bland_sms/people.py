"""The name of the person who acts, also where a project lets one person log in as another."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth import SESSION_KEY, get_user_model
from django.core.exceptions import ValidationError
from django.core.signing import BadSignature, TimestampSigner
from django.http import HttpRequest

IMPERSONATOR = "bland_sms_impersonator"
"""Attribute of a request's user: the name of the person who is logged in as that user."""
LONGEST_NAME = 255


def name_of(user: Any) -> str:
    """What rows keep of a person, such as ``dana``; ``boss as dana`` where boss acts as dana."""
    name = str(user.get_username())
    impersonator = getattr(user, IMPERSONATOR, "")
    return (f"{impersonator} as {name}" if impersonator else name)[:LONGEST_NAME]


def note_impersonator(request: HttpRequest) -> None:
    """Put what the session tells of an impersonator to the user whom the ledger will name.

    django-hijack keeps the keys of those who took another's place, the first one first;
    django-loginas one signed key.
    """
    session: Any = getattr(request, "session", None)
    if session is None or session.get(SESSION_KEY) != str(request.user.pk):
        return  # other ways to authenticate, such as a token, have no impersonation
    key = next(iter(session.get("hijack_history") or ()), None)
    flag = getattr(settings, "LOGINAS_FROM_USER_SESSION_FLAG", "loginas_from_user")
    if key is None and session.get(flag):
        try:
            key = TimestampSigner().unsign(session[flag])
        except BadSignature:
            key = "?"
    if key is not None:
        setattr(request.user, IMPERSONATOR, _name_of_key(str(key)))


def _name_of_key(key: str) -> str:
    """A username; the key itself where the user is gone."""
    try:
        user: Any = get_user_model()._default_manager.filter(pk=key).first()
    except (ValueError, ValidationError):
        user = None
    return str(user.get_username()) if user is not None else key
