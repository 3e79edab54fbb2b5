"""What each address of the REST API does."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from django.urls import path
from rest_framework.routers import SimpleRouter

from .bulk_updates import BulkUpdateViewSet
from .conversations import ConversationViewSet
from .standing_orders import StandingOrderViewSet
from .summary import SummaryView

router = SimpleRouter()
router.register("conversations", ConversationViewSet, basename="conversation")
router.register("bulk-updates", BulkUpdateViewSet, basename="bulk-update")
router.register("standing-orders", StandingOrderViewSet, basename="standing-order")

urlpatterns: list[Any] = [
    *router.urls,
    path("summary/", SummaryView.as_view(), name="summary"),
]

if find_spec("drf_spectacular"):
    from .schema import SchemaView

    urlpatterns.append(path("schema/", SchemaView.as_view(), name="schema"))
