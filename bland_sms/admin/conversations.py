"""The list of conversations: columns, filters, search and actions."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..conf import get_settings
from ..exceptions import BlandConfigurationError
from ..models import Conversation
from ..search import find, parse_search, single_id
from ..sentences import translated
from ..sync import is_mirror_empty, refresh_many
from ..transactions import after_commit
from .conversation_page import ConversationPage
from .filters import ActivityFilter, ChangeFilter, OurNumberFilter, StatusFilter
from .mirrored import (
    CappedPaginator,
    Options,
    connection_problem,
    freshness_context,
    shown_number,
    shown_text,
    shown_time,
)
from .requested import add_requested_changes
from .spreadsheet import csv_response
from .wording import refresh_words

REFRESH_LIMIT = 100
"""Conversations that are refreshed by one action."""
EXPORTED = (
    "id",
    "user_number",
    "agent_number",
    "status",
    "channel",
    "created_at",
    "updated_at",
    "last_activity_at",
    "message_count",
    "disposition_tag",
)
EXPORTED_TEXTS = ("last_message", "summary")


class ConversationAdmin(ConversationPage):
    """Conversations as Bland last told them. To change one means to ask Bland."""

    list_display: Options = (
        "customer",
        "status_badge",
        "last_message_start",
        "message_count",
        "last_activity",
        "our_number",
    )
    list_display_links: Options = ("customer",)
    list_filter: ClassVar[Options] = (StatusFilter, ActivityFilter, OurNumberFilter, ChangeFilter)
    ordering: ClassVar[Options] = ("-last_activity_at", "-id")
    sortable_by: ClassVar[Options] = ("customer", "last_activity")
    # What makes the box appear; see get_search_results.
    search_fields: ClassVar[Options] = ("id", "user_number")
    search_help_text = gettext_lazy(
        "Phone number in any format, its last 4 or more digits, or a conversation id. "
        "Several at once: paste them, or separate them by commas."
    )
    actions: Options = (
        "deactivate_selected",
        "reactivate_selected",
        "refresh_selected",
        "export_selected",
    )
    redirect_single_id = True
    """A search for one whole id opens its page."""

    # --- the list -----------------------------------------------------------------------------

    def get_list_display(self, request: HttpRequest) -> Any:
        hidden = set() if self.has_transcript_permission(request) else {"last_message_start"}
        return [name for name in self.list_display if name not in hidden]

    @admin.display(description=gettext_lazy("Customer"), ordering="user_number")
    def customer(self, conversation: Conversation) -> SafeString:
        return shown_number(conversation.user_number)

    @admin.display(description=gettext_lazy("Last message"))
    def last_message_start(self, conversation: Conversation) -> SafeString:
        return format_html(
            '<span class="bland-sms-start" dir="auto">{}</span>',
            Truncator(shown_text(conversation.last_message)).chars(60),
        )

    @admin.display(description=gettext_lazy("Last activity"), ordering="last_activity_at")
    def last_activity(self, conversation: Conversation) -> SafeString | str:
        return shown_time(conversation.last_activity_at)

    @admin.display(description=gettext_lazy("Our number"))
    def our_number(self, conversation: Conversation) -> SafeString:
        return shown_number(conversation.agent_number)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Conversation]:
        return super().get_queryset(request).defer("extra", "older_facts", "variables", "summary")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Conversation], search_term: str
    ) -> tuple[QuerySet[Conversation], bool]:
        if not search_term.strip():
            return queryset, False
        search = parse_search(search_term)
        found = find(search)
        request.bland_sms_search = search.hint, found.unmatched  # type: ignore[attr-defined]
        matching = queryset.filter(found.condition)
        if found.is_few:
            # Given the filters, the order and the few rows at once, SQLite walks through all rows
            # of a filter: name the rows that pass it instead.
            ids = list(matching.order_by("pk").values_list("pk", flat=True))
            matching = self.get_queryset(request).filter(pk__in=ids)
        return matching, False

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        found = self._single_id_hit(request)
        if found is not None:
            return HttpResponseRedirect(self._url_of(found))
        freshness = freshness_context()
        context = {
            "title": _("Conversations"),
            **freshness,
            "bland_sms_is_empty": freshness["bland_sms_copied_at"] is None and is_mirror_empty(),
            "bland_sms_problem": connection_problem(),
            "bland_sms_may_refresh": self.has_refresh_permission(request),
            **(extra_context or {}),
        }
        response = super().changelist_view(request, context)
        if isinstance(response, TemplateResponse) and response.context_data is not None:
            self._add_search_hints(request, response.context_data)
            changelist = response.context_data.get("cl")
            if changelist is not None:
                add_requested_changes(changelist.result_list)
        return response

    def _add_search_hints(self, request: HttpRequest, context: dict[str, Any]) -> None:
        changelist = context.get("cl")
        if changelist is None:
            return
        paginator = changelist.paginator
        context["bland_sms_is_capped"] = (
            isinstance(paginator, CappedPaginator) and paginator.is_capped
        )
        hint, unmatched = getattr(request, "bland_sms_search", ("", ()))
        context["bland_sms_search_hint"] = hint
        context["bland_sms_unmatched"] = unmatched

    def _single_id_hit(self, request: HttpRequest) -> str | None:
        if not self.redirect_single_id or request.method != "GET" or set(request.GET) != {"q"}:
            return None
        term = single_id(request.GET["q"])
        if term is None or not self.has_view_permission(request):
            return None
        return term if self.get_queryset(request).filter(pk=term).exists() else None

    # --- actions ------------------------------------------------------------------------------

    @admin.action(
        description=gettext_lazy("Deactivate selected conversations"), permissions=["deactivate"]
    )
    def deactivate_selected(
        self, request: HttpRequest, queryset: QuerySet[Conversation]
    ) -> HttpResponse | None:
        """Ask Bland to deactivate every selected conversation."""
        return self.update_selected(
            request, queryset, is_active=False, back=request.get_full_path()
        )

    @admin.action(
        description=gettext_lazy("Reactivate selected conversations"), permissions=["reactivate"]
    )
    def reactivate_selected(
        self, request: HttpRequest, queryset: QuerySet[Conversation]
    ) -> HttpResponse | None:
        """Ask Bland to reactivate every selected conversation."""
        return self.update_selected(request, queryset, is_active=True, back=request.get_full_path())

    @admin.action(
        description=gettext_lazy("Refresh selected conversations from Bland"),
        permissions=["refresh"],
    )
    def refresh_selected(
        self, request: HttpRequest, queryset: QuerySet[Conversation]
    ) -> HttpResponse | None:
        """Copy every selected conversation and its messages from Bland."""
        ids = list(queryset.order_by().values_list("pk", flat=True)[: REFRESH_LIMIT + 1])
        if len(ids) > REFRESH_LIMIT:
            text = _("Refresh at most %d conversations at once, or run bland_sms_sync.")
            self.message_user(request, text % REFRESH_LIMIT, messages.ERROR)
        else:
            after_commit(partial(self._refresh_and_tell, request, ids))
        return None

    @admin.action(
        description=gettext_lazy("Export selected conversations (CSV)"), permissions=["export"]
    )
    def export_selected(
        self, request: HttpRequest, queryset: QuerySet[Conversation]
    ) -> HttpResponseBase:
        """Download what the mirror holds; what people wrote only for those who may read it."""
        columns = [*EXPORTED]
        if self.has_transcript_permission(request):
            columns += EXPORTED_TEXTS
        rows = queryset.order_by("pk").values_list(*columns).iterator(chunk_size=1000)
        return csv_response("conversations.csv", columns, rows)

    def _refresh_and_tell(self, request: HttpRequest, ids: list[str]) -> None:
        try:
            refreshed = refresh_many(ids, seconds=get_settings().inline_seconds)
        except BlandConfigurationError as error:
            self.message_user(request, translated(error), messages.ERROR)
            return
        for level, text in refresh_words(refreshed):
            self.message_user(request, text, level)
