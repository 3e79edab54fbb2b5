"""Checks of what requests to Bland need: the key, the base URL, proxies and certificates."""

from __future__ import annotations

import os
import ssl
from typing import Any
from urllib.parse import urlsplit

from django.core.checks import CheckMessage, Error, Warning, register
from django.utils.translation import gettext as _

from ..client.connecting import check_api_key, check_proxies, normalise_base_url
from ..conf import Secret, is_dotted_path
from ..exceptions import BlandConfigurationError
from .reading import TAG, CannotImportError, given_value, known_text, read_alone, wrong_secret


@register(TAG)
def check_key(**kwargs: Any) -> list[CheckMessage]:
    """E004, E005, W001, W002: whether there is a key, and one that can be sent."""
    given = given_value("API_KEY")
    try:
        key = known_text(given)
    except CannotImportError:
        return [
            Error(
                _("BLAND_SMS['API_KEY'] is the dotted path of something that cannot be imported."),
                hint=_("Name a callable that returns the key, such as host.secrets.bland_key."),
                id="bland_sms.E005",
            )
        ]
    if callable(key):
        return []
    if key is None or key == "":
        return [
            Warning(
                _("BLAND_SMS['API_KEY'] is not set, so Bland is not connected."),
                hint=_(
                    "What was copied can be read; nothing can be copied or changed before a key "
                    "of the Bland account is set."
                ),
                id="bland_sms.W001",
            )
        ]
    if not isinstance(key, str):
        return [wrong_secret("API_KEY")]
    try:
        check_api_key(Secret(key.strip()))
    except BlandConfigurationError:
        return [
            Error(
                _("BLAND_SMS['API_KEY'] holds white space or characters that no key has."),
                hint=_(
                    "Copy the key again, alone and on one line. A line break inside it is the "
                    "usual cause."
                ),
                id="bland_sms.E004",
            )
        ]
    if isinstance(given, str) and is_dotted_path(given) and not given.startswith("org_"):
        return [
            Warning(
                _(
                    "BLAND_SMS['API_KEY'] looks like a dotted path, but its first part is no "
                    "module that is installed: the text itself is sent as the key."
                ),
                hint=_(
                    "If it names a callable, check its spelling. If it is the key, ignore this."
                ),
                id="bland_sms.W002",
            )
        ]
    return []


@register(TAG)
def check_base_url(**kwargs: Any) -> list[CheckMessage]:
    """E006: an address that the key may not travel to, or that is none."""
    url = read_alone("BASE_URL").base_url
    try:
        path = urlsplit(normalise_base_url(url)).path
    except BlandConfigurationError as error:
        problem = error.failure.for_operators.as_sentence
    else:
        if "/sms" not in path:
            return []
        problem = _("BLAND_SMS['BASE_URL'] is the address of an endpoint.")
    hint = _(
        "Give the host alone, such as https://api.bland.ai, and plain http on this machine only."
    )
    return [Error(problem, hint=hint, id="bland_sms.E006")]


@register(TAG)
def check_proxies_of_plain_http(**kwargs: Any) -> list[CheckMessage]:
    """E012: a proxy that would be shown the key."""
    try:
        check_proxies(read_alone("BASE_URL").base_url, read_alone("PROXIES").proxies)
    except BlandConfigurationError as error:
        return [
            Error(
                error.failure.for_operators.as_sentence,
                hint=_("Leave out the entries http and all, or use a BASE_URL of https://."),
                id="bland_sms.E012",
            )
        ]
    return []


@register(TAG)
def check_ca_bundle(**kwargs: Any) -> list[CheckMessage]:
    """E011: certificates that cannot be read."""
    bundle = read_alone("CA_BUNDLE").ca_bundle
    if not bundle or os.path.isdir(bundle):
        return []
    try:
        ssl.create_default_context(cafile=bundle)
    except (OSError, ValueError):
        return [
            Error(
                _("BLAND_SMS['CA_BUNDLE'] is not a readable file or folder of certificates."),
                hint=_(
                    "Name a file in PEM format, or leave it out to trust the usual authorities."
                ),
                id="bland_sms.E011",
            )
        ]
    return []
