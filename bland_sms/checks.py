"""What ``manage.py check`` says about BLAND_SMS and what it stands on. No database, no network.

The ids are stable and explained in ``docs/checks.md``. A key or secret that is a callable is not
called: it may ask a vault.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _

from .conf import (
    LOOPBACK,
    SETTING_NAMES,
    BlandSettings,
    Secret,
    check_api_key,
    has_module,
    is_dotted_path,
    normalise_base_url,
    read_settings,
)
from .exceptions import BlandConfigurationError
from .sentences import translated

TAG = "bland_sms"
SECRETS = ("API_KEY", "WEBHOOK_SECRETS")
DEFAULT_DISPATCH = BlandSettings().dispatch


# --- the setting itself -----------------------------------------------------------------------


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
            found.append(_wrong_kind(problem))
        else:
            hint = _("The settings are listed in docs/settings.md. Their names are upper case.")
            words = problem if problem.endswith("?") else f"{problem}."
            found.append(Error(words, hint=hint, id="bland_sms.E002"))
    return found


def _wrong_secret(name: str) -> Error:
    return _wrong_kind(str(read_settings({name: object()})))  # the same words for any value


def _wrong_kind(problem: str) -> Error:
    hint = _("The settings and their kinds are listed in docs/settings.md.")
    return Error(f"{problem}.", hint=hint, id="bland_sms.E003")


def _given(name: str) -> Any:
    """A setting as the host wrote it; ``None`` where it is left out."""
    given = getattr(settings, "BLAND_SMS", {})
    return given.get(name) if isinstance(given, Mapping) else None


def _read(name: str) -> BlandSettings:
    """The settings with this one as the host wrote it, if it is of the right kind."""
    value = _given(name)
    read = read_settings({} if value is None else {name: value})
    return BlandSettings() if isinstance(read, str) else read


# --- the key ----------------------------------------------------------------------------------


class _CannotImportError(Exception):
    """A dotted path leads nowhere."""


def _known_text(value: Any) -> Any:
    """A secret as far as it is known without calling anybody: its text, or a callable."""
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, str) and is_dotted_path(value) and has_module(value):
        try:
            return import_string(value)
        except Exception:  # noqa: BLE001  a host's module may raise whatever it likes
            raise _CannotImportError from None
    return value


@register(TAG)
def check_key(**kwargs: Any) -> list[CheckMessage]:
    """E004, E005, W001, W002: whether there is a key, and one that can be sent."""
    given = _given("API_KEY")
    try:
        key = _known_text(given)
    except _CannotImportError:
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
        return [_wrong_secret("API_KEY")]
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


# --- where to ---------------------------------------------------------------------------------


@register(TAG)
def check_base_url(**kwargs: Any) -> list[CheckMessage]:
    """E006: an address that the key may not travel to, or that is none."""
    url = _read("BASE_URL").base_url
    try:
        path = urlsplit(normalise_base_url(url)).path
    except BlandConfigurationError as error:
        problem = f"{translated(error)}."
    else:
        if "/sms" not in path:
            return []
        problem = _("BLAND_SMS['BASE_URL'] is the address of an endpoint.")
    hint = _(
        "Give the host alone, such as https://api.bland.ai, and plain http on this machine only."
    )
    return [Error(problem, hint=hint, id="bland_sms.E006")]


@register(TAG)
def check_ca_bundle(**kwargs: Any) -> list[CheckMessage]:
    """E011: certificates that cannot be read."""
    bundle = _read("CA_BUNDLE").ca_bundle
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


# --- webhooks ---------------------------------------------------------------------------------


@register(TAG)
def check_webhook_secrets(**kwargs: Any) -> list[CheckMessage]:
    """E003, E005, E007, W003, W004: who may ring the bell."""
    given = _given("WEBHOOK_SECRETS")
    if given is None:
        given = ()
    if not isinstance(given, (list, tuple, set, frozenset)):
        return [_wrong_secret("WEBHOOK_SECRETS")]
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
        text = _known_text(secret)
    except _CannotImportError:
        yield Error(
            _("BLAND_SMS['WEBHOOK_SECRETS'] has a dotted path that cannot be imported."),
            hint=_("Name a callable that returns the secret."),
            id="bland_sms.E005",
        )
        return
    if callable(text):
        return
    if text is not None and not isinstance(text, str):
        yield _wrong_secret("WEBHOOK_SECRETS")
    elif not (text or "").strip():
        yield Error(
            _("BLAND_SMS['WEBHOOK_SECRETS'] has an empty secret."),
            hint=_(
                "Anybody can sign with an empty secret. Take it out: os.environ.get(...) gives "
                "an empty one where the variable is not set."
            ),
            id="bland_sms.E007",
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


# --- what it stands on ------------------------------------------------------------------------


@register(TAG)
def check_dispatch(**kwargs: Any) -> list[CheckMessage]:
    """E008: a function for the background that is not there."""
    dispatch = _read("DISPATCH").dispatch
    if dispatch == DEFAULT_DISPATCH:
        return []
    try:
        problem = "" if callable(import_string(dispatch)) else _("is not a callable")
    except Exception as error:  # noqa: BLE001  a host's module may raise whatever it likes
        problem = _("cannot be imported (%(error)s)") % {"error": type(error).__name__}
    if not problem:
        return []
    return [
        Error(
            _("BLAND_SMS['DISPATCH'], %(path)s, %(problem)s.")
            % {"path": dispatch, "problem": problem},
            hint=_("It is called with a kind and a primary key: see docs/background.md."),
            id="bland_sms.E008",
        )
    ]


@register(TAG)
def check_use_tz(**kwargs: Any) -> list[CheckMessage]:
    """E009: times without a zone."""
    if settings.USE_TZ:
        return []
    return [
        Error(
            _("USE_TZ is False."),
            hint=_("Bland's times are in UTC and are compared with ours. Set USE_TZ = True."),
            id="bland_sms.E009",
        )
    ]


@register(TAG)
def check_rest_framework(**kwargs: Any) -> list[CheckMessage]:
    """E010: the REST API without its templates and settings."""
    if apps.is_installed("rest_framework"):
        return []
    return [
        Error(
            _("rest_framework is not in INSTALLED_APPS."),
            hint=_('Add "rest_framework" beside "bland_sms".'),
            id="bland_sms.E010",
        )
    ]


@register(TAG)
def check_tasks(**kwargs: Any) -> list[CheckMessage]:
    """W005: a task queue that is configured and not there."""
    tasks = getattr(settings, "TASKS", None)
    default = tasks.get("default") if isinstance(tasks, Mapping) else None
    backend = default.get("BACKEND") if isinstance(default, Mapping) else None
    if not isinstance(backend, str) or _read("DISPATCH").dispatch != DEFAULT_DISPATCH:
        return []
    package = backend.partition(".")[0]
    if not has_module(package):
        problem = _("TASKS names a backend of %(package)s, which is not installed.")
    elif find_spec("django.tasks") is None and not has_module("django_tasks"):
        package = "django-tasks"
        problem = _("TASKS is set, but this Django needs %(package)s for it.")
    elif package == "django_tasks_db" and not apps.is_installed(package):
        problem = _("TASKS names a backend of %(package)s, which is not in INSTALLED_APPS.")
    else:
        return []
    return [
        Warning(
            problem % {"package": package},
            hint=_(
                'Install it: pip install "bland-sms[tasks]", on Django 5.2 django-tasks as well. '
                "See docs/background.md. Until then large updates run while their page is open, or "
                "in bland_sms_work."
            ),
            id="bland_sms.W005",
        )
    ]


# --- only with --deploy -----------------------------------------------------------------------


@register(TAG, deploy=True)
def check_deployment(**kwargs: Any) -> list[CheckMessage]:
    """W006, W007: what is fine on a developer's machine."""
    try:
        has_key = bool(_known_text(_given("API_KEY")))
        url = urlsplit(normalise_base_url(_read("BASE_URL").base_url))
    except (_CannotImportError, BlandConfigurationError):
        return []
    found: list[CheckMessage] = []
    is_bland = url.hostname not in LOOPBACK
    if settings.DEBUG and has_key and is_bland:
        found.append(
            Warning(
                _("DEBUG is on with a key for Bland's real account."),
                hint=_("Debug pages show customers' numbers and messages. Set DEBUG = False."),
                id="bland_sms.W006",
            )
        )
    if not is_bland:
        found.append(
            Warning(
                _("BLAND_SMS['BASE_URL'] leads to this machine, not to Bland."),
                hint=_("Take it out of the settings of the site that is deployed."),
                id="bland_sms.W007",
            )
        )
    return found
