"""Checks of BLAND_SMS as a whole: a dict with known names and values of the right kinds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.utils.translation import gettext as _

from ..conf import SETTING_NAMES, read_settings
from .reading import TAG, wrong_kind

SECRETS = ("API_KEY", "WEBHOOK_SECRETS")


@register(TAG)
def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """E001-E003: what ``get_settings`` would refuse."""
    given = getattr(settings, "BLAND_SMS", {})
    if not isinstance(given, Mapping):
        return [
            Error(
                _("BLAND_SMS is not a dict."),
                hint=_('Write it as BLAND_SMS = {"API_KEY": ...}.'),
                id="bland_sms.E001",
            )
        ]
    found: list[CheckMessage] = []
    for name, value in given.items():
        if name in SECRETS:
            continue
        problem = read_settings({name: value})
        if not isinstance(problem, str):
            continue
        if name in SETTING_NAMES:
            found.append(wrong_kind(problem))
        else:
            hint = _("The settings are listed in docs/settings.md. Their names are upper case.")
            words = problem if problem.endswith("?") else f"{problem}."
            found.append(Error(words, hint=hint, id="bland_sms.E002"))
    return found
