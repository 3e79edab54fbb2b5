"""Reads one setting at a time, so that each check tells its own problem and no other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.core.checks import Error
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _

from ..conf import BlandSettings, Secret, has_module, is_dotted_path, read_settings

TAG = "bland_sms"


def wrong_secret(name: str) -> Error:
    return wrong_kind(str(read_settings({name: object()})))  # the same words for any value


def wrong_kind(problem: str) -> Error:
    hint = _("The settings and their kinds are listed in docs/settings.md.")
    return Error(f"{problem}.", hint=hint, id="bland_sms.E003")


def given_value(name: str) -> Any:
    """A setting as the host wrote it; ``None`` where it is left out."""
    given = getattr(settings, "BLAND_SMS", {})
    return given.get(name) if isinstance(given, Mapping) else None


def read_alone(name: str) -> BlandSettings:
    """The settings with this one as the host wrote it, if it is of the right kind."""
    value = given_value(name)
    read = read_settings({} if value is None else {name: value})
    return BlandSettings() if isinstance(read, str) else read


class CannotImportError(Exception):
    """A dotted path leads nowhere."""


def known_text(value: Any) -> Any:
    """A secret as far as it is known without calling it: its text, or a callable."""
    if isinstance(value, Secret):
        return value.reveal if value.is_lazy else value.reveal()
    if isinstance(value, str) and is_dotted_path(value) and has_module(value):
        try:
            return import_string(value)
        except Exception:  # noqa: BLE001  a host's module may raise whatever it likes
            raise CannotImportError from None
    return value
