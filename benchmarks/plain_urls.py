"""The pages that Django and DRF make of the same rows by themselves, for ``benchmarks.pages``."""

from __future__ import annotations

from typing import ClassVar

from django.contrib import admin
from django.urls import include, path
from rest_framework.filters import SearchFilter
from rest_framework.pagination import PageNumberPagination
from rest_framework.permissions import IsAdminUser
from rest_framework.routers import SimpleRouter
from rest_framework.serializers import ModelSerializer
from rest_framework.viewsets import ReadOnlyModelViewSet

from bland_sms.models import BulkUpdate, Conversation, SyncRun, WebhookDelivery
from tests.addresses import urlpatterns as ours

plain_site = admin.AdminSite(name="plain")


class PlainAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    # Django's own pages: ours of the same name need what our admin tells them.
    change_list_template = "admin/change_list.html"
    change_form_template = "admin/change_form.html"
    list_per_page = 50


@admin.register(Conversation, site=plain_site)
class PlainConversationAdmin(PlainAdmin):
    list_display = (
        "user_number",
        "status",
        "last_message",
        "message_count",
        "last_activity_at",
        "agent_number",
    )
    list_filter = ("status", "last_activity_at", "agent_number")
    search_fields = ("id", "user_number")
    ordering = ("-last_activity_at",)


@admin.register(BulkUpdate, site=plain_site)
class PlainBulkUpdateAdmin(PlainAdmin):
    list_display = ("id", "is_active", "requested_by", "started_at", "status", "shown_counts")
    list_filter = ("status",)
    raw_id_fields = ("undo_of",)

    def shown_counts(self, bulk_update: BulkUpdate) -> str:
        return str(bulk_update.counts_at_rest)


@admin.register(SyncRun, site=plain_site)
class PlainSyncRunAdmin(PlainAdmin):
    list_display = ("started_at", "mode", "trigger", "status", "seen", "created", "error")
    list_filter = ("status",)


@admin.register(WebhookDelivery, site=plain_site)
class PlainWebhookDeliveryAdmin(PlainAdmin):
    list_display = ("received_at", "conversation_id", "kind", "status", "reason", "state")
    list_filter = ("state",)
    search_fields = ("conversation_id",)


class Pages(PageNumberPagination):
    page_size = 50


class PlainConversationSerializer(ModelSerializer[Conversation]):
    class Meta:
        model = Conversation
        exclude: ClassVar[tuple[str, ...]] = ("older_facts", "customer_key", "user_digits_reversed")


class PlainConversationViewSet(ReadOnlyModelViewSet[Conversation]):
    queryset = Conversation.objects.order_by("-updated_at", "-id")
    serializer_class = PlainConversationSerializer
    permission_classes = (IsAdminUser,)
    pagination_class = Pages
    filter_backends = (SearchFilter,)
    search_fields = ("id", "user_number")

    def get_queryset(self):  # type: ignore[no-untyped-def]
        status = self.request.query_params.get("status")
        found = super().get_queryset()
        return found.filter(status=status) if status else found


class PlainBulkUpdateSerializer(ModelSerializer[BulkUpdate]):
    class Meta:
        model = BulkUpdate
        fields = "__all__"


class PlainBulkUpdateViewSet(ReadOnlyModelViewSet[BulkUpdate]):
    queryset = BulkUpdate.objects.order_by("-pk")
    serializer_class = PlainBulkUpdateSerializer
    permission_classes = (IsAdminUser,)
    pagination_class = Pages


router = SimpleRouter()
router.register("conversations", PlainConversationViewSet)
router.register("bulk-updates", PlainBulkUpdateViewSet)
urlpatterns = [*ours, path("plain/", plain_site.urls), path("plain-api/", include(router.urls))]
