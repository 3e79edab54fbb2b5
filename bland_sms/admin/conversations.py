"""The list of conversations and the page of one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_POST, require_safe

from .. import sync, updates
from ..client import get_client
from ..conf import get_settings
from ..exceptions import BlandConfigurationError, BlandError, BlandNotFoundError
from ..models import BulkUpdate, Conversation, SyncRun
from ..pacing import Allowance
from ..payloads import is_conversation_id
from ..sync import Refreshed, is_mirror_empty, refresh, refresh_many
from ..transactions import after_commit
from .bulk_updates import BulkUpdateAdmin
from .filters import ActivityFilter, ChangeFilter, OurNumberFilter, StatusFilter
from .mirrored import (
    CappedPaginator,
    MirroredAdmin,
    Options,
    freshness_context,
    shown_number,
    shown_text,
    shown_time,
)
from .requested import REQUESTED_CHANGE, add_requested_changes
from .search import find, parse_search, single_id
from .spreadsheet import csv_response
from .transcript import transcript_of, transcript_text
from .update_flow import UpdateFlow
from .wording import number_words

REFRESH_LIMIT = 100
"""Conversations that are refreshed by one action."""
OTHERS_SHOWN = 20
MOST_COUNTED = 1000
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


class ConversationAdmin(MirroredAdmin[Conversation]):
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

    # --- permissions --------------------------------------------------------------------------

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

    def has_transcript_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request) and self._may(request, "view_transcript")

    def has_update_permission(self, request: HttpRequest, is_active: bool) -> bool:
        """Whether the user may ask Bland for this value."""
        if is_active:
            return self.has_reactivate_permission(request)
        return self.has_deactivate_permission(request)

    # --- the list -----------------------------------------------------------------------------

    def get_list_display(self, request: HttpRequest) -> Any:
        hidden = set() if self.has_transcript_permission(request) else {"last_message_start"}
        return [name for name in self.list_display if name not in hidden]

    @admin.display(description=gettext_lazy("Customer"), ordering="user_number")
    def customer(self, conversation: Conversation) -> SafeString:
        return shown_number(conversation.user_number)

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
        return badge

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

    def update_selected(
        self, request: HttpRequest, selected: QuerySet[Conversation], *, is_active: bool, back: str
    ) -> HttpResponse:
        """Freeze a selection as a draft; then ask first or start at once, as the settings say."""
        problem = connection_problem()
        if problem:
            self.message_user(request, problem, messages.ERROR)
            return HttpResponseRedirect(back)
        try:
            draft = updates.prepare(
                selected,
                is_active,
                requested_by=request.user,
                source=BulkUpdate.Source.ADMIN,
                selection=selection_words(request),
            )
        except updates.SelectionTooLargeError as error:
            text = _("More than %s conversations at once: narrow the selection with a filter.")
            self.message_user(request, text % number_words(error.limit), messages.ERROR)
        except updates.EmptySelectionError:
            self.message_user(request, _("No conversation was selected."), messages.WARNING)
        else:
            return self._flow().begin(request, draft, back=back)
        return HttpResponseRedirect(back)

    def _flow(self) -> UpdateFlow:
        """The admin of updates on the same site, or our own where the host has another one."""
        if self.admin_site.is_registered(BulkUpdate):
            registered = self.admin_site.get_model_admin(BulkUpdate)
            if isinstance(registered, UpdateFlow):
                return registered
        return BulkUpdateAdmin(BulkUpdate, self.admin_site)

    def _refresh_and_tell(self, request: HttpRequest, ids: list[str]) -> None:
        try:
            refreshed = refresh_many(ids, seconds=get_settings().inline_seconds)
        except BlandConfigurationError as error:
            self.message_user(request, str(error), messages.ERROR)
            return
        for level, text in _refresh_words(refreshed):
            self.message_user(request, text, level)

    # --- the page of one ----------------------------------------------------------------------

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        fields = ["id", "channel", "pathway_id", "pathway_version", "current_node_id"]
        if self.has_transcript_permission(request):
            fields += ["variables", "extra"]
        return [(_("More from Bland"), {"fields": fields, "classes": ["collapse"]})]

    def _facts(
        self, request: HttpRequest, conversation: Conversation
    ) -> list[tuple[str, SafeString | str]]:
        """What is known of a conversation, without what is empty."""
        facts: list[tuple[str, SafeString | str]] = [
            (_("Status"), self.status_badge(conversation)),
            (_("Our number"), shown_number(conversation.agent_number)),
            (_("Messages"), str(conversation.message_count)),
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
        return facts

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Conversation | None:
        if not is_conversation_id(object_id):
            return None  # PostgreSQL raises an error for some of what stands in an address
        return super().get_object(request, object_id, from_field)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        conversation = self.get_object(request, unquote(object_id))
        if conversation is not None and self.has_view_permission(request, conversation):
            extra_context = {
                **self._page_context(request, conversation),
                **(extra_context or {}),
            }
        return super().change_view(request, object_id, form_url, extra_context)

    def _page_context(self, request: HttpRequest, conversation: Conversation) -> dict[str, Any]:
        others = self._of_same_customer(request, conversation)
        active = others.filter(is_active=True)[:MOST_COUNTED].count()
        active += conversation.is_active
        may_read = self.has_transcript_permission(request)
        return {
            "title": _("Conversation"),
            "subtitle": conversation.user_number or conversation.pk,
            "show_save": False,
            "show_save_and_continue": False,
            "bland_sms_problem": connection_problem(),
            "bland_sms_facts": self._facts(request, conversation),
            "bland_sms_copied_at": shown_time(conversation.observed_at),
            "bland_sms_may": {
                "deactivate": self.has_deactivate_permission(request),
                "reactivate": self.has_reactivate_permission(request),
                "refresh": self.has_refresh_permission(request),
                "read": may_read,
            },
            "bland_sms_active_of_customer": active,
            "bland_sms_others": [
                (other, shown_time(other.last_activity_at), self.status_badge(other))
                for other in others.order_by("-last_activity_at", "-pk")[:OTHERS_SHOWN]
            ],
            "bland_sms_others_shown": OTHERS_SHOWN,
            "bland_sms_transcript": transcript_of(
                conversation, show_all="all" in request.GET, with_text=may_read
            ),
            "bland_sms_transcript_copied_at": (
                shown_time(conversation.transcript_observed_at)
                if conversation.transcript_observed_at
                else None
            ),
        }

    def _of_same_customer(
        self, request: HttpRequest, conversation: Conversation
    ) -> QuerySet[Conversation]:
        """The customer's other conversations, without this one."""
        if not conversation.user_number:
            return self.get_queryset(request).none()
        return (
            self.get_queryset(request)
            .filter(user_number=conversation.user_number)
            .exclude(pk=conversation.pk)
        )

    # --- its buttons --------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        views: dict[str, Callable[..., HttpResponse]] = {
            "deactivate": partial(self.update_view, is_active=False),
            "reactivate": partial(self.update_view, is_active=True),
            "deactivate_customer": self.deactivate_customer_view,
            "refresh": self.refresh_view,
        }
        addresses: dict[str, tuple[str, Callable[..., HttpResponse]]] = {
            "sync": ("sync/", require_POST(self.sync_view)),
            "transcript": ("<path:object_id>/transcript.txt", require_safe(self.transcript_view)),
            **{
                name: (f"<path:object_id>/{name.replace('_', '-')}/", require_POST(view))
                for name, view in views.items()
            },
        }
        own = [
            path(
                address,
                transaction.non_atomic_requests(self.admin_site.admin_view(view)),
                name=f"{self.opts.app_label}_{self.opts.model_name}_{name}",
            )
            for name, (address, view) in addresses.items()
        ]
        return [*own, *super().get_urls()]

    def sync_view(self, request: HttpRequest) -> HttpResponse:
        """Copy what changed at Bland since the last time."""
        if not self.has_refresh_permission(request):
            raise PermissionDenied
        after_commit(partial(self._sync_and_tell, request))
        return HttpResponseRedirect(
            reverse(
                f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist",
                current_app=self.admin_site.name,
            )
        )

    def _sync_and_tell(self, request: HttpRequest) -> None:
        run = sync.run(
            trigger="admin", requested_by=request.user, seconds=get_settings().inline_seconds
        )
        self.message_user(request, *_sync_words(run))

    def transcript_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The whole thread as plain text, to download."""
        conversation = self._visible(request, object_id)
        if not self.has_transcript_permission(request):
            raise PermissionDenied
        return HttpResponse(
            transcript_text(conversation),
            content_type="text/plain; charset=utf-8",
            headers={
                "Content-Disposition": f'attachment; filename="{conversation.pk}.txt"',
                "Cache-Control": "no-store",
                "X-Content-Type-Options": "nosniff",
            },
        )

    def update_view(self, request: HttpRequest, object_id: str, *, is_active: bool) -> HttpResponse:
        """Deactivate or reactivate one conversation."""
        conversation = self._visible(request, object_id)
        if not self.has_update_permission(request, is_active):
            raise PermissionDenied
        return self.update_selected(
            request,
            self.get_queryset(request).filter(pk=conversation.pk),
            is_active=is_active,
            back=self._url_of(conversation.pk),
        )

    def deactivate_customer_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Deactivate all active conversations of a conversation's customer."""
        conversation = self._visible(request, object_id)
        if not self.has_deactivate_permission(request):
            raise PermissionDenied
        same = self.get_queryset(request).filter(pk=conversation.pk)
        if conversation.user_number:
            same = self.get_queryset(request).filter(user_number=conversation.user_number)
        return self.update_selected(
            request,
            same.filter(is_active=True),
            is_active=False,
            back=self._url_of(conversation.pk),
        )

    def refresh_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Copy one conversation and its messages from Bland."""
        conversation = self._visible(request, object_id)
        if not self.has_refresh_permission(request):
            raise PermissionDenied
        after_commit(partial(self._refresh_one_and_tell, request, conversation.pk))
        return HttpResponseRedirect(self._url_of(conversation.pk))

    def _refresh_one_and_tell(self, request: HttpRequest, conversation_id: str) -> None:
        try:
            refresh(conversation_id, allowance=Allowance.of_seconds(get_settings().inline_seconds))
        except BlandNotFoundError:
            text = _("Bland has no such conversation under this key. The copy is kept.")
            self.message_user(request, text, messages.WARNING)
        except BlandError as error:
            text = _("Not refreshed: %s. What you see is the last copy.")
            self.message_user(request, text % error, messages.ERROR)
        else:
            self.message_user(request, _("Copied from Bland just now."), messages.SUCCESS)

    def _visible(self, request: HttpRequest, object_id: str) -> Conversation:
        """The conversation, if this user may see it at all."""
        if not self.has_view_permission(request):
            raise PermissionDenied  # before the look: who may not see it learns nothing
        conversation = self.get_object(request, unquote(object_id))
        if conversation is None:
            raise Http404
        return conversation

    def _url_of(self, conversation_id: str) -> str:
        return reverse(
            f"admin:{self.opts.app_label}_{self.opts.model_name}_change",
            args=[quote(conversation_id)],
            current_app=self.admin_site.name,
        )


def connection_problem() -> str:
    """Why Bland cannot be asked at all, in words, or ``""``."""
    try:
        get_client()
    except BlandConfigurationError as error:
        return str(error)
    return ""


def selection_words(request: HttpRequest) -> str:
    """What was selected, in words. Phone numbers stay out: only that there was a search."""
    words = []
    for list_filter in (StatusFilter, ActivityFilter, ChangeFilter):
        value = request.GET.get(list_filter.parameter_name)
        labels = dict(list_filter.choices_in_words())
        if value in labels:
            words.append(f"{list_filter.title}: {labels[value]}")
    if request.GET.get(OurNumberFilter.parameter_name):
        words.append(_("one of our numbers"))
    if request.GET.get("q", "").strip():
        words.append(_("a search"))
    filters = ", ".join(words)
    if request.POST.get("select_across") == "1":
        return _("All that match: %s") % filters if filters else _("All conversations")
    if "_selected_action" in request.POST:
        return _("Picked by hand from: %s") % filters if filters else _("Picked by hand")
    return ""


def _sync_words(run: SyncRun) -> tuple[str, int]:
    """What a sync came to, and the level of the message."""
    if run.status == SyncRun.Status.SKIPPED:
        return _("A copy from Bland is running already. Look again in a moment."), messages.INFO
    counts = {"created": run.created, "changed": run.changed, "failed": run.failed}
    if run.status == SyncRun.Status.FINISHED:
        text = _("Copied from Bland: %(created)d new, %(changed)d changed.") % counts
        if not run.failed:
            return text, messages.SUCCESS
        text = _("%(text)s %(failed)d could not be read.") % {"text": text, **counts}
        return text, messages.WARNING
    if run.seen:
        text = _("Not all was copied: %(error)s. So far %(created)d new, %(changed)d changed.")
        return text % {"error": run.error, **counts}, messages.WARNING
    return _("Nothing was copied: %s. What you see is the last copy.") % run.error, messages.ERROR


def _refresh_words(refreshed: Refreshed) -> list[tuple[int, str]]:
    told: list[tuple[int, str]] = []
    count: Callable[[int], dict[str, int]] = lambda number: {"count": number}  # noqa: E731
    if refreshed.copied:
        number = len(refreshed.copied)
        text = ngettext(
            "%(count)d conversation copied from Bland.",
            "%(count)d conversations copied from Bland.",
            number,
        )
        told.append((messages.SUCCESS, text % count(number)))
    if refreshed.missing:
        number = len(refreshed.missing)
        text = ngettext(
            "%(count)d not found under this key. The copy is kept.",
            "%(count)d not found under this key. The copies are kept.",
            number,
        )
        told.append((messages.WARNING, text % count(number)))
    causes: dict[str, int] = {}
    for error in refreshed.failed.values():
        causes[str(error)] = causes.get(str(error), 0) + 1
    for cause, number in causes.items():
        told.append(
            (
                messages.ERROR,
                _("%(count)d not refreshed: %(cause)s.")
                % {
                    "count": number,
                    "cause": cause,
                },
            )
        )
    return told
