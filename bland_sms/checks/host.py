"""Checks of the host project: task queue, time zone, apps, and how it is deployed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _

from ..client.connecting import LOOPBACK, normalise_base_url
from ..conf import BlandSettings, has_module
from ..exceptions import BlandConfigurationError
from .reading import TAG, CannotImportError, given_value, known_text, read_alone

DEFAULT_DISPATCH = BlandSettings().dispatch


@register(TAG)
def check_dispatch(**kwargs: Any) -> list[CheckMessage]:
    """E008: a function for the background that is not there."""
    dispatch = read_alone("DISPATCH").dispatch
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
def check_api_permission_classes(**kwargs: Any) -> list[CheckMessage]:
    """E013: permission classes for the API that are not there, or are none."""
    found: list[CheckMessage] = []
    for path in read_alone("API_PERMISSION_CLASSES").api_permission_classes:
        try:
            kind = import_string(path)
            problem = "" if callable(kind) else _("is not a permission class")
            if not problem and not hasattr(kind(), "has_permission"):
                problem = _("is not a permission class")
        except Exception as error:  # noqa: BLE001  a host's module may raise whatever it likes
            problem = _("cannot be imported (%(error)s)") % {"error": type(error).__name__}
        if problem:
            found.append(
                Error(
                    _("BLAND_SMS['API_PERMISSION_CLASSES'], %(path)s, %(problem)s.")
                    % {"path": path, "problem": problem},
                    hint=_("It holds dotted paths of classes such as those of DRF: docs/api.md."),
                    id="bland_sms.E013",
                )
            )
    return found


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
    if not isinstance(backend, str) or read_alone("DISPATCH").dispatch != DEFAULT_DISPATCH:
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
                'Install the app with its extra "tasks", on Django 5.2 django-tasks as well. '
                "See docs/background.md. Until then large updates run while their page is open, or "
                "in bland_sms_work."
            ),
            id="bland_sms.W005",
        )
    ]


@register(TAG, deploy=True)
def check_deployment(**kwargs: Any) -> list[CheckMessage]:
    """W006, W007: what is fine on a developer's machine."""
    try:
        has_key = bool(known_text(given_value("API_KEY")))
        url = urlsplit(normalise_base_url(read_alone("BASE_URL").base_url))
    except (CannotImportError, BlandConfigurationError):
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
