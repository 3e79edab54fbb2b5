"""What the list of conversations and the page of one share: who may do what, and the status."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..models import Conversation
from .base import MirroredAdmin
from .kept import KEPT
from .pending import REQUESTED_CHANGE


class ConversationBase(MirroredAdmin[Conversation]):
    """Permissions by their names, and what both show."""

    def _may(self, request: HttpRequest, codename: str) -> bool:
        return request.user.has_perm(f"{self.opts.app_label}.{codename}")

    def has_deactivate_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request) and self._may(request, "deactivate_conversation")

    def has_reactivate_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request) and self._may(request, "reactivate_conversation")

    def has_refresh_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request) and self._may(request, "refresh_conversation")

    def has_export_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request) and self._may(request, "export_conversation")

    def has_stop_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request) and self._may(request, "add_standingorder")

    def has_transcript_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request) and self._may(request, "view_transcript")

    def has_update_permission(self, request: HttpRequest, is_active: bool) -> bool:
        """Whether the user may ask Bland for this value."""
        if is_active:
            return self.has_reactivate_permission(request)
        return self.has_deactivate_permission(request)

    @admin.display(description=gettext_lazy("Status"))
    def status_badge(self, conversation: Conversation) -> SafeString:
        badge = format_html(
            '<span class="bland-sms-badge bland-sms-{}">{}</span>',
            conversation.status,
            conversation.status_label,
        )
        if conversation.missing_since is not None:
            badge = format_html(
                '{} <span class="bland-sms-badge bland-sms-missing">{}</span>',
                badge,
                _("not found at Bland"),
            )
        state, words = getattr(conversation, REQUESTED_CHANGE, ("", ""))
        if words:
            badge = format_html(
                '{} <span class="bland-sms-badge bland-sms-{}">{}</span>', badge, state, words
            )
        kept = getattr(conversation, KEPT, "")
        return format_html("{} {}", badge, kept) if kept else badge

    def of_customer(
        self, request: HttpRequest, conversation: Conversation
    ) -> QuerySet[Conversation]:
        """All conversations of a conversation's customer that this user may see, with itself."""
        visible = self.get_queryset(request)
        if not conversation.customer_key:
            return visible.filter(pk=conversation.pk)
        return visible.filter(customer_key=conversation.customer_key)
