"""The page of one conversation: its facts, its thread, its customer's other conversations."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..models import Conversation
from ..payloads import MOST_EXTRA, is_conversation_id
from ..quantities import number_words
from ..sync import copied_at
from .conversation_base import ConversationBase
from .erasures import forget_url
from .formatting import Unlogged, shown_count, shown_number, shown_text, shown_time
from .kept import kept_context
from .launching import seen_updates
from .pending import add_requested_changes
from .transcript import is_uncopied, transcript_of
from .triage import place_of
from .values import value_table

OTHERS_SHOWN = 20
MOST_COUNTED = 1000
CITATIONS = "citation_variables"
"""Bland's name in ``extra`` for what its schemas found in a conversation."""


class ConversationPage(ConversationBase):
    """A conversation as Bland last told it."""

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        fields = ["id", "channel", "pathway_id", "pathway_version", "current_node_id"]
        if self.has_transcript_permission(request):
            fields += ["variables_table", "citations_table", "extra_table"]
        return [(_("More from Bland"), {"fields": fields, "classes": ["collapse"]})]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        tables = ["variables_table", "citations_table", "extra_table"]
        return [*super().get_readonly_fields(request, obj), *tables]

    @admin.display(description=gettext_lazy("Variables"))
    def variables_table(self, conversation: Conversation) -> SafeString | str:
        return value_table(conversation.variables)

    @admin.display(description=gettext_lazy("Citations"))
    def citations_table(self, conversation: Conversation) -> SafeString | str:
        return value_table(conversation.extra.get(CITATIONS))

    @admin.display(description=gettext_lazy("Other fields"))
    def extra_table(self, conversation: Conversation) -> SafeString | str:
        others = {name: value for name, value in conversation.extra.items() if name != CITATIONS}
        table = value_table(others)
        if len(conversation.extra) < MOST_EXTRA:
            return table
        text = _("Only the %d fields that Bland told last are kept.") % MOST_EXTRA
        return format_html('{}<p class="help">{}</p>', table, text)

    def _facts(
        self, request: HttpRequest, conversation: Conversation
    ) -> list[tuple[str, Unlogged]]:
        """What is known of a conversation, without what is empty."""
        facts: list[tuple[str, SafeString | str]] = [
            (_("Status"), self.status_badge(conversation)),
            (_("Our number"), shown_number(conversation.agent_number)),
            (_("Messages"), shown_count(conversation.message_count)),
            (_("Last activity"), shown_time(conversation.last_activity_at)),
            (_("Created"), shown_time(conversation.created_at)),
            (_("Updated"), shown_time(conversation.updated_at)),
        ]
        if conversation.timed_out_at:
            facts.append((_("Timed out"), shown_time(conversation.timed_out_at)))
        if conversation.human_handoff_at:
            facts.append((_("Handed to a person"), shown_time(conversation.human_handoff_at)))
        if conversation.disposition_tag:
            facts.append((_("Disposition"), conversation.disposition_tag))
        if conversation.summary and self.has_transcript_permission(request):
            facts.append(
                (_("Summary"), format_html("<bdi>{}</bdi>", shown_text(conversation.summary)))
            )
        return [(name, Unlogged(value)) for name, value in facts]

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Conversation | None:
        if not is_conversation_id(object_id):
            return None  # PostgreSQL raises an error for some of what stands in an address
        return super().get_object(request, object_id, from_field)

    def page_context(self, request: HttpRequest, conversation: Conversation) -> dict[str, Any]:
        visible = self.of_customer(request, conversation).exclude(pk=conversation.pk)
        others = list(visible.order_by("-last_activity_at", "-pk")[:OTHERS_SHOWN])
        add_requested_changes([conversation, *others])
        active = visible.filter(is_active=True)[: MOST_COUNTED + 1].count()
        active += conversation.is_active
        may_read = self.has_transcript_permission(request)
        transcript = transcript_of(conversation, show_all="all" in request.GET, with_text=may_read)
        return {
            "title": _("Conversation"),
            "subtitle": Unlogged(conversation.user_number or conversation.pk),
            "show_save": False,
            "show_save_and_continue": False,
            "bland_sms_place": place_of(self, request, conversation),
            "bland_sms_facts": self._facts(request, conversation),
            "bland_sms_copied_at": shown_time(copied_at(conversation)),
            "bland_sms_may": {
                "deactivate": self.has_deactivate_permission(request),
                "reactivate": self.has_reactivate_permission(request),
                "refresh": self.has_refresh_permission(request),
                "read": may_read,
            },
            "bland_sms_active_of_customer": active,
            "bland_sms_active_words": number_words(
                min(active, MOST_COUNTED), is_capped=active > MOST_COUNTED
            ),
            **kept_context(request, self.admin_site, conversation),
            "bland_sms_forget_url": forget_url(request, self.admin_site, conversation),
            "bland_sms_others": [
                (other, shown_time(other.last_activity_at), self.status_badge(other))
                for other in others
            ],
            "bland_sms_others_shown": OTHERS_SHOWN,
            "bland_sms_transcript": transcript,
            "bland_sms_seen_updates": seen_updates(
                request,
                self.admin_site,
                (entry.update_id for _day, entries in transcript.days for entry in entries),
            ),
            "bland_sms_is_uncopied": is_uncopied(conversation),
            "bland_sms_transcript_copied_at": (
                shown_time(conversation.transcript_observed_at)
                if conversation.transcript_observed_at
                else None
            ),
        }
