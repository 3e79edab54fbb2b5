"""The addresses of the REST API."""

from __future__ import annotations

from importlib.util import find_spec

from django.urls import URLPattern, URLResolver, path
from rest_framework.routers import SimpleRouter

from .bulk_updates import BulkUpdateViewSet
from .conversations import ConversationViewSet

router = SimpleRouter()
router.register("conversations", ConversationViewSet, basename="conversation")
router.register("bulk-updates", BulkUpdateViewSet, basename="bulk-update")

urlpatterns: list[URLPattern | URLResolver] = [*router.urls]

if find_spec("drf_spectacular"):
    from .schema import SchemaView

    urlpatterns.append(path("schema/", SchemaView.as_view(), name="schema"))
