"""Every address of the app, read from the URL conf: a view that is new is among them by itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple
from urllib.parse import quote as percent_encoded

from django.contrib import admin
from django.contrib.admin.utils import quote
from django.urls import URLPattern, get_resolver, include, path

PUBLIC = {"bland_sms.webhooks.view", "bland_sms.health"}
"""Open by design: a signature decides, or there is nothing to see but the status word."""

second_site = admin.AdminSite(name="second")
for model, model_admin in admin.site._registry.items():
    if model._meta.app_label == "bland_sms":
        second_site.register(model, type(model_admin))  # type: ignore[type-var]
urlpatterns = [
    path("admin/", admin.site.urls),
    path("second/", second_site.urls),
    path("bland-sms/", include("bland_sms.urls")),
]


class Address(NamedTuple):
    """One pattern, such as ``admin/conversation/<id>/change/``."""

    mount: str
    """``admin``, ``second`` or ``bland-sms``."""
    route: str
    """Without the mount, and ``<id>`` for whatever stands for one row."""

    @property
    def name(self) -> str:
        """The same on both admin sites."""
        return self.route if self.mount == "bland-sms" else f"admin/{self.route}"

    @property
    def has_id(self) -> bool:
        return "<id>" in self.route

    def url(self, row_id: object = "", *, is_junk: bool = False) -> str:
        """Filled in: an id as the admin or the API writes it, or junk as it comes."""
        text = str(row_id)
        if self.mount != "bland-sms" and not is_junk:
            text = quote(text)
        app = "" if self.mount == "bland-sms" else "bland_sms/"
        encoded = percent_encoded(text, safe="", errors="surrogateescape")
        return f"/{self.mount}/{app}{self.route}".replace("<id>", encoded)


def addresses() -> list[Address]:
    """Those of the app: Django's own pages and what is public by design are left out."""
    return [
        _address(route)
        for route, pattern in _leaves(get_resolver(__name__).url_patterns)
        if _is_ours(route, _module(pattern))
    ]


def _is_ours(route: str, module: str) -> bool:
    if module in PUBLIC:
        return False
    is_admin = re.match("(admin|second)/", route) is not None
    return re.match("(admin|second)/bland_sms/", route) is not None if is_admin else True


def _module(pattern: URLPattern) -> str:
    return str(getattr(pattern.callback, "__module__", ""))


def _leaves(patterns: Iterable[Any], prefix: str = "") -> Iterator[tuple[str, URLPattern]]:
    for pattern in patterns:
        route = f"{prefix}{pattern.pattern}"
        if isinstance(pattern, URLPattern):
            yield route, pattern
        else:
            yield from _leaves(pattern.url_patterns, route)


def _address(route: str) -> Address:
    plain = re.sub(r"\(\?P<\w+>[^)]*\)|<[^>]*>", "<id>", route.replace("^", "").replace("$", ""))
    assert re.fullmatch("[a-z0-9_./<>-]+", plain), f"not understood: {route}"
    assert plain.count("<id>") < 2, f"not understood: {route}"
    mount, _slash, rest = plain.partition("/")
    return Address(mount, rest.removeprefix("bland_sms/"))
