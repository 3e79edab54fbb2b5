"""The list of conversations: columns, filters, search and actions."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from django.contrib import admin
from django.contrib.admin.utils import quote
from django.contrib.admin.views.main import ORDER_VAR, ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext_lazy

from ..models import Conversation, ConversationEvent
from ..search import find, parse_search, single_id
from ..sync import is_mirror_empty
from .base import CappedPaginator, Options, freshness_context
from .confirmation import ReasonActionForm
from .conversation_actions import ConversationActions
from .conversation_page import ConversationPage
from .filters import (
    BEGAN,
    ActivityFilter,
    ChangeFilter,
    EventFilter,
    OurNumberFilter,
    StatusFilter,
    StopFilter,
)
from .formatting import Unlogged, ago, quantity, shown_number, shown_text, shown_time
from .kept import add_kept
from .named import AskedPaginator
from .pending import add_requested_changes
from .posted_search import is_name, searched
from .search_hints import hidden_words, reading_words


class ConversationList(ChangeList):
    """What began in some days is listed in that order, unless another one is asked for."""

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Conversation]) -> list[Any]:
        if self._is_by_start(queryset):
            return [f"-{BEGAN}", "-pk"]
        return list(super().get_ordering(request, queryset))

    def get_ordering_field_columns(self) -> dict[int, Literal["desc", "asc"]]:
        if self._is_by_start(self.queryset):
            return {at: "desc" for at, name in enumerate(self.list_display) if name == "began"}
        return super().get_ordering_field_columns()

    def _is_by_start(self, queryset: QuerySet[Conversation]) -> bool:
        return ORDER_VAR not in self.params and BEGAN in queryset.query.annotations


class ConversationAdmin(ConversationPage, ConversationActions):
    """Conversations as Bland last told them. To change one means to ask Bland."""

    list_display: Options = (
        "customer",
        "status_badge",
        "last_message_start",
        "shown_messages",
        "last_activity",
        "our_number",
    )
    list_display_links: Options = ("customer",)
    list_filter: ClassVar[Options] = (
        StatusFilter,
        ActivityFilter,
        OurNumberFilter,
        ChangeFilter,
        EventFilter,
        StopFilter,
    )
    ordering: ClassVar[Options] = ("-last_activity_at", "-id")
    sortable_by: ClassVar[Options] = ("customer", "last_activity", "began")
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
        "stop_selected",
    )
    action_form = ReasonActionForm
    paginator = AskedPaginator
    redirect_single_id = True
    """A search for one whole id opens its page."""
    empty_value_display = gettext_lazy("not told")
    """What Bland did not tell is neither zero nor nothing."""
    change_form_template = "admin/bland_sms/conversation/change_form.html"
    change_list_template = "admin/bland_sms/conversation/change_list.html"
    message_search_template = "admin/bland_sms/conversation/message_search.html"
    summary_template = "admin/bland_sms/conversation/summary.html"

    class Media:
        js = ["bland_sms/conversation.js"]

    def get_urls(self) -> list[URLPattern]:
        from .conversation_views import VIEWS  # which commands and workers do without

        pages = {
            name: (address, view.as_view(admin=self, **options))
            for name, (address, view, options) in VIEWS.items()
        }
        return [*self.own_urls(pages), *super().get_urls()]

    # --- the list -----------------------------------------------------------------------------

    def get_list_display(self, request: HttpRequest) -> Any:
        hidden = set() if self.has_transcript_permission(request) else {"last_message_start"}
        shown = [name for name in self.list_display if name not in hidden]
        if EventFilter.is_of_starts(request):  # in place of another column, or they do not fit
            shown = ["began" if name == "shown_messages" else name for name in shown]
        return shown

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ConversationList

    def row_name(self, row: Conversation) -> str:
        if not row.user_number:
            return str(row)  # its id alone is what there is to say
        return f"{row.user_number}, {ago(row.last_activity_at)}"

    @admin.display(description=gettext_lazy("Customer"), ordering="user_number")
    def customer(self, conversation: Conversation) -> SafeString:
        return shown_number(conversation.user_number)

    @admin.display(description=gettext_lazy("Last message"))
    def last_message_start(self, conversation: Conversation) -> SafeString:
        return format_html(
            '<span class="bland-sms-start" dir="auto">{}</span>',
            Truncator(shown_text(conversation.last_message)).chars(60),
        )

    shown_messages = quantity(Conversation, "message_count")

    @admin.display(description=gettext_lazy("Last activity"), ordering="last_activity_at")
    def last_activity(self, conversation: Conversation) -> SafeString | str:
        return shown_time(conversation.last_activity_at)

    @admin.display(description=ConversationEvent.Kind.STARTED.label, ordering=BEGAN)
    def began(self, conversation: Conversation) -> SafeString | str:
        return shown_time(getattr(conversation, BEGAN, conversation.created_at))

    @admin.display(description=gettext_lazy("Our number"))
    def our_number(self, conversation: Conversation) -> SafeString:
        return shown_number(conversation.agent_number)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Conversation]:
        hidden = ("extra", "older_facts", "event_history", "variables", "summary")
        return super().get_queryset(request).defer(*hidden)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Conversation], search_term: str
    ) -> tuple[QuerySet[Conversation], bool]:
        if not search_term.strip():
            return queryset, False
        search_term = searched(request, search_term)
        search = parse_search(search_term)
        found = find(search)
        shown: dict[str, Any] = {
            "bland_sms_search_hint": "gone" if is_name(search_term) else search.hint,
            "bland_sms_unmatched": [Unlogged(term) for term in found.unmatched],
            "bland_sms_reading": reading_words(search.reading()),
        }
        request.bland_sms_search = shown  # type: ignore[attr-defined]
        matching = queryset.filter(found.condition)
        if found.is_few:
            # Given the filters, the order and the few rows at once, SQLite walks through all rows
            # of a filter: name the rows that pass it instead.
            ids = list(matching.order_by("pk").values_list("pk", flat=True))
            visible = self.get_queryset(request)
            if found.ids and len(ids) < len(found.ids):  # some filter has left out the others
                hidden = visible.filter(pk__in=sorted(found.ids - set(ids)))
                shown["bland_sms_hidden"] = hidden_words(request, hidden)
            matching = visible.filter(pk__in=ids)
        return matching, False

    def list_context(self, request: HttpRequest) -> dict[str, Any]:
        freshness = freshness_context(request)
        return {
            **super().list_context(request),
            **freshness,
            "bland_sms_may_read": self.has_transcript_permission(request),
            "bland_sms_is_empty": freshness["bland_sms_copied_at"] is None and is_mirror_empty(),
            "bland_sms_may_refresh": self.has_refresh_permission(request),
            "bland_sms_may_paste": any(
                self.has_update_permission(request, is_active) for is_active in (True, False)
            ),
        }

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        found = self._single_id_hit(request)
        if found is not None:
            url = reverse(
                f"admin:{self.opts.app_label}_{self.opts.model_name}_change",
                args=[quote(found)],
                current_app=self.admin_site.name,
            )
            return HttpResponseRedirect(url)
        response = super().changelist_view(request, extra_context)
        if isinstance(response, TemplateResponse) and response.context_data is not None:
            self._add_search_hints(request, response.context_data)
            changelist = response.context_data.get("cl")
            if changelist is not None:
                add_requested_changes(changelist.result_list)
                add_kept(request, self.admin_site, changelist.result_list)
        return response

    def _add_search_hints(self, request: HttpRequest, context: dict[str, Any]) -> None:
        changelist = context.get("cl")
        if changelist is None:
            return
        paginator = changelist.paginator
        context["bland_sms_is_capped"] = (
            isinstance(paginator, CappedPaginator) and paginator.is_capped
        )
        context |= getattr(request, "bland_sms_search", {})

    def _single_id_hit(self, request: HttpRequest) -> str | None:
        if not self.redirect_single_id or request.method != "GET" or set(request.GET) != {"q"}:
            return None
        term = single_id(request.GET["q"])
        if term is None or not self.has_view_permission(request):
            return None
        return term if self.get_queryset(request).filter(pk=term).exists() else None
