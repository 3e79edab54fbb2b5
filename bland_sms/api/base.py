"""What all our views share: safe by themselves, whatever the host's defaults are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from django.core.exceptions import ImproperlyConfigured
from django.db import DataError, connections, transaction
from django.db.models import Model, QuerySet
from django.utils.cache import add_never_cache_headers
from django.utils.module_loading import import_string
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.renderers import BrowsableAPIRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.throttling import ScopedRateThrottle
from rest_framework.views import APIView
from rest_framework.viewsets import GenericViewSet

from ..conf import get_settings
from ..models import Conversation
from ..people import note_impersonator
from ..visible import shown_to
from .errors import answer_to
from .filters import ListFilter, Parameter
from .paging import KeysetPagination
from .parsing import JsonParser
from .permissions import NamedPermission, Needs

AnyModel = TypeVar("AnyModel", bound=Model)


def showing_what_is_sent(renderer: type[BrowsableAPIRenderer]) -> type[BrowsableAPIRenderer]:
    """A host's browsable API as it looks there, with our names: one for camel case shows names
    that our JSON does not have."""
    return type(renderer.__name__, (renderer,), {"render": BrowsableAPIRenderer.render})


_defaults: Any = api_settings
BROWSABLE = [
    showing_what_is_sent(one)
    for one in _defaults.DEFAULT_RENDERER_CLASSES
    if issubclass(one, BrowsableAPIRenderer)
]
"""The browsable API where the host has it."""


class ReadWriteThrottle(ScopedRateThrottle):
    """The scopes ``bland_sms_read`` and ``bland_sms_write``; without a rate there is no limit."""

    def allow_request(self, request: Request, view: APIView) -> bool:
        self.scope = "bland_sms_read" if request.method in SAFE_METHODS else "bland_sms_write"
        rates: Any = api_settings.DEFAULT_THROTTLE_RATES
        self.rate = rates.get(self.scope)
        if self.rate is None:
            return True
        self.num_requests, self.duration = self.parse_rate(self.rate)
        return super(ScopedRateThrottle, self).allow_request(request, view)


def _permissions_of_host() -> list[BasePermission]:
    try:
        return [import_string(path)() for path in get_settings().api_permission_classes]
    except ImportError as error:
        words = "BLAND_SMS['API_PERMISSION_CLASSES'] cannot be imported"
        raise ImproperlyConfigured(words) from error


class SafeView(APIView):
    """A view that the host's defaults cannot make unsafe; the host's authentication is kept."""

    renderer_classes = [JSONRenderer, *BROWSABLE]
    parser_classes = (JsonParser,)
    permission_classes = (NamedPermission,)
    throttle_classes = [*_defaults.DEFAULT_THROTTLE_CLASSES, ReadWriteThrottle]
    versioning_class = None
    needs: Needs = {}

    def get_permissions(self) -> Any:
        """The host's ``API_PERMISSION_CLASSES`` are asked as well as ours, never instead."""
        return [*super().get_permissions(), *_permissions_of_host()]

    @classmethod
    def as_view(cls, *args: Any, **initkwargs: Any) -> Any:
        """Never in a transaction, also under ``ATOMIC_REQUESTS``: some views speak to Bland."""
        view = super().as_view(*args, **initkwargs)
        for alias in connections:
            view = transaction.non_atomic_requests(using=alias)(view)
        return view

    def perform_authentication(self, request: Request) -> None:
        """A name with a NUL in it, which PostgreSQL refuses to look up, is an unknown user."""
        try:
            super().perform_authentication(request)
        except (ValueError, DataError) as error:
            if "NUL" not in str(error):
                raise
            request._not_authenticated()  # type: ignore[attr-defined]
            raise AuthenticationFailed from None

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        note_impersonator(request)

    def get_conversations(self) -> QuerySet[Conversation] | None:
        """The conversations that this user may see, name and change; ``None``: all, and in an
        update also those that only Bland knows.

        Whoever may enter the admin sees here what it shows them. For hosts that narrow more.
        """
        return None if self.request is None else shown_to(self.request._request)

    def get_exception_handler(self) -> Callable[..., Response | None]:
        return answer_to

    def finalize_response(
        self, request: Request, response: Any, *args: Any, **kwargs: Any
    ) -> Response:
        """People's data is kept by no cache in between."""
        answer = super().finalize_response(request, response, *args, **kwargs)
        add_never_cache_headers(answer)
        return answer


class SafeViewSet(SafeView, GenericViewSet[AnyModel]):
    """The views of one kind of row."""

    filter_backends = (ListFilter,)
    pagination_class = KeysetPagination
    parameters: Mapping[str, Mapping[str, Parameter]] = {}
    """What the lists may be narrowed by, for each action that is one."""
