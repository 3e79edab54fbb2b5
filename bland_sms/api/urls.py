"""The addresses of the REST API. Its views are imported when the first of them is called."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

from django.http import HttpRequest, HttpResponseBase
from django.urls import URLPattern, URLResolver, re_path

ADDRESSES = {
    "conversation-list": r"^conversations/$",
    "conversation-detail": r"^conversations/(?P<pk>[^/]+)/$",
    "conversation-messages": r"^conversations/(?P<pk>[^/]+)/messages/$",
    "conversation-refresh": r"^conversations/(?P<pk>[^/]+)/refresh/$",
    "bulk-update-list": r"^bulk-updates/$",
    "bulk-update-detail": r"^bulk-updates/(?P<pk>[^/]+)/$",
    "bulk-update-cancel": r"^bulk-updates/(?P<pk>[^/]+)/cancel/$",
    "bulk-update-items": r"^bulk-updates/(?P<pk>[^/]+)/items/$",
    "bulk-update-continue": r"^bulk-updates/(?P<pk>[^/]+)/continue/$",
    "bulk-update-retry": r"^bulk-updates/(?P<pk>[^/]+)/retry/$",
    "bulk-update-undo": r"^bulk-updates/(?P<pk>[^/]+)/undo/$",
    "standing-order-list": r"^standing-orders/$",
    "standing-order-detail": r"^standing-orders/(?P<pk>[^/]+)/$",
    "standing-order-lift": r"^standing-orders/(?P<pk>[^/]+)/lift/$",
    "summary": r"^summary/$",
}
"""By name, as :mod:`.routes` has them; a test compares both."""
if find_spec("drf_spectacular"):
    ADDRESSES["schema"] = r"^schema/$"


@cache
def _callbacks() -> dict[str, Any]:
    from .routes import urlpatterns as routes

    return {str(route.name): route.callback for route in routes}


class View:
    """A view of :mod:`.routes` and all that is known of it, by its name."""

    csrf_exempt = True  # of every view of Django REST framework, which checks it by itself

    def __init__(self, name: str) -> None:
        self.__name__ = self.__qualname__ = name

    def __call__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        answer: HttpResponseBase = _callbacks()[self.__name__](request, *args, **kwargs)
        return answer

    def __getattr__(self, name: str) -> Any:
        if name == "view_class" or name.startswith("__"):  # Django asks when it reads addresses
            raise AttributeError(name)
        return getattr(_callbacks()[self.__name__], name)


urlpatterns: list[URLPattern | URLResolver] = [
    re_path(address, View(name), name=name) for name, address in ADDRESSES.items()
]
