"""Checks of the secrets with which Bland signs webhooks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils.translation import gettext as _

from .reading import TAG, CannotImportError, given_value, known_text, wrong_secret

_SEPARATOR_OR_QUOTE = re.compile(r"""[,\s"'`“”„‘’‚«»]""")


@register(TAG)
def check_webhook_secrets(**kwargs: Any) -> list[CheckMessage]:
    """E003, E005, E007, W003, W004, W008: the secrets that webhooks are signed with."""
    given = given_value("WEBHOOK_SECRETS")
    if given is None:
        given = ()
    if not isinstance(given, (list, tuple, set, frozenset)):
        return [wrong_secret("WEBHOOK_SECRETS")]
    found: list[CheckMessage] = []
    for secret in given:
        found += _webhook_secret_problems(secret)
    if len(given) > 2:
        found.append(
            Warning(
                _("BLAND_SMS['WEBHOOK_SECRETS'] holds more than two secrets."),
                hint=_("Two are needed while one replaces the other. Take the old ones out."),
                id="bland_sms.W004",
            )
        )
    if not given and _is_webhook_mounted():
        found.append(
            Warning(
                _(
                    "The address for Bland's webhooks is mounted, but "
                    "BLAND_SMS['WEBHOOK_SECRETS'] is empty: every call is refused."
                ),
                hint=_(
                    "Set the webhook secret of the Bland account. Without webhooks, silence this "
                    "with SILENCED_SYSTEM_CHECKS."
                ),
                id="bland_sms.W003",
            )
        )
    return found


def _webhook_secret_problems(secret: Any) -> Iterator[CheckMessage]:
    try:
        text = known_text(secret)
    except CannotImportError:
        yield Error(
            _("BLAND_SMS['WEBHOOK_SECRETS'] has a dotted path that cannot be imported."),
            hint=_("Name a callable that returns the secret."),
            id="bland_sms.E005",
        )
        return
    if callable(text):
        return
    if text is not None and not isinstance(text, str):
        yield wrong_secret("WEBHOOK_SECRETS")
        return
    text = (text or "").strip()
    if not text:
        yield Error(
            _("BLAND_SMS['WEBHOOK_SECRETS'] has an empty secret."),
            hint=_(
                "Anybody can sign with an empty secret. Take it out: os.environ.get(...) gives "
                "an empty one where the variable is not set."
            ),
            id="bland_sms.E007",
        )
    elif _SEPARATOR_OR_QUOTE.search(text):
        yield Warning(
            _(
                "BLAND_SMS['WEBHOOK_SECRETS'] has a secret that contains a comma, white space or "
                "a quotation mark."
            ),
            hint=_(
                "Give each secret as an item of the list of its own, without quotation marks: a "
                'value such as "new,old" is one secret, with which Bland does not sign.'
            ),
            id="bland_sms.W008",
        )


def _is_webhook_mounted() -> bool:
    if not getattr(settings, "ROOT_URLCONF", ""):
        return False
    try:
        return _has_webhook(get_resolver().url_patterns)
    except Exception:  # noqa: BLE001  Django's own checks say what is wrong with the URL conf
        return False


def _has_webhook(patterns: Iterable[URLPattern | URLResolver]) -> bool:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            if _has_webhook(pattern.url_patterns):
                return True
        elif pattern.name == "webhook" and pattern.lookup_str.startswith("bland_sms."):
            return True
    return False
