"""The list of updates and the page of one: who asked for what, and what became of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import partial
from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import BadRequest, PermissionDenied
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import dispatching, updates
from ..models import BulkUpdate, BulkUpdateItem, Conversation
from ..selections import selection_words
from .base import MirroredAdmin, Options, freshness_context
from .conversations import ConversationAdmin
from .csv_export import csv_response
from .formatting import Unlogged, shown_time
from .item_pages import AFTER, item_page
from .kept import order_facts
from .large_forms import tells_when_too_large
from .launching import forget, seen_updates, update_link
from .ledger_search import UNDONE_BY, add_undone_by, search_condition
from .pasted_lines import lines_context
from .posted_search import is_name, searched
from .results_csv import CSV_HEADER, ledger_rows
from .sight import Sight, hidden_items_words, sight_of
from .update_filters import OutcomeFilter, StartedFilter, WhoseFilter
from .update_progress import is_abandoned, progress_data, shown_items
from .wording import (
    causes,
    counts_words,
    status_words,
    verb_words,
    written_again,
)

State = BulkUpdateItem.State
Status = BulkUpdate.Status
ITEMS_SHOWN = 200


class BulkUpdateAdmin(MirroredAdmin[BulkUpdate]):
    """The ledger. Who may not see all of it sees what they asked for themselves."""

    list_display: Options = (
        "number",
        "what",
        "why",
        "by",
        "when",
        "shown_status",
        "shown_counts",
    )
    list_display_links: Options = ("number",)
    list_filter: ClassVar[Options] = (WhoseFilter, "source", StartedFilter, OutcomeFilter)
    # What makes the box appear; see get_search_results.
    search_fields: ClassVar[Options] = ("id",)
    search_help_text = gettext_lazy(
        "A customer's number in any format, its last 4 or more digits, a conversation id, or the "
        "number of an update."
    )
    ordering: ClassVar[Options] = ("-pk",)
    sortable_by: ClassVar[Options] = ("number",)

    change_form_template = "admin/bland_sms/bulkupdate/change_form.html"
    change_list_template = "admin/bland_sms/bulkupdate/change_list.html"
    confirm_template = "admin/bland_sms/bulkupdate/confirm.html"
    paste_template = "admin/bland_sms/bulkupdate/paste.html"

    class Media:
        js = ["bland_sms/update.js"]

    # --- permissions --------------------------------------------------------------------------

    def has_verb_permission(self, request: HttpRequest, is_active: bool) -> bool:
        """Whether the user may ask Bland for this value at all."""
        return request.user.has_perm(BulkUpdate(is_active=is_active).permission)

    def verbs_of_menu(self, request: HttpRequest) -> list[str]:
        """The verbs that the menu of the conversations' list offers to the user."""
        from .paste import VERBS

        conversations = self.admin_site._registry.get(Conversation)
        if isinstance(conversations, ConversationAdmin):
            may = partial(conversations.has_update_permission, request)
        elif request.user.has_perm(f"{self.opts.app_label}.view_conversation"):
            may = partial(self.has_verb_permission, request)
        else:
            return []
        return [verb for verb, is_active in VERBS.items() if may(is_active)]

    def _may_see_all(self, request: HttpRequest) -> bool:
        return super().has_view_permission(request)

    def _may_have_own(self, request: HttpRequest) -> bool:
        return any(self.has_verb_permission(request, is_active) for is_active in (True, False))

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        if self._may_see_all(request):
            return True
        if isinstance(obj, BulkUpdate):
            return obj.requested_by_id is not None and obj.requested_by_id == request.user.pk
        return self._may_have_own(request)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return super().has_module_permission(request) or self._may_have_own(request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[BulkUpdate]:
        queryset = super().get_queryset(request).exclude(status=Status.DRAFT)
        if self._may_see_all(request):
            return queryset
        return queryset.filter(requested_by_id=request.user.pk)

    # --- the list -----------------------------------------------------------------------------

    @admin.display(description=gettext_lazy("Update"), ordering="id")
    def number(self, bulk_update: BulkUpdate) -> str:
        return _("Update %d") % bulk_update.pk

    @admin.display(description=gettext_lazy("By"))
    def by(self, bulk_update: BulkUpdate) -> SafeString:
        return format_html(
            '{} <div class="bland-sms-meta">{}</div>',
            bulk_update.requested_by_name or _("an operator"),
            bulk_update.get_source_display(),
        )

    @admin.display(description=gettext_lazy("Reason"))
    def why(self, bulk_update: BulkUpdate) -> SafeString:
        return format_html(
            '<span class="bland-sms-why" dir="auto">{}</span>', bulk_update.reason or "-"
        )

    @admin.display(description=gettext_lazy("Asked"))
    def what(self, bulk_update: BulkUpdate) -> str:
        return _("Reactivate") if bulk_update.is_active else _("Deactivate")

    @admin.display(description=gettext_lazy("State"))
    def shown_status(self, bulk_update: BulkUpdate) -> SafeString:
        badge = _badge(bulk_update, is_paused=dispatching.is_paused(bulk_update))
        undone_by, is_seen = getattr(bulk_update, UNDONE_BY, (None, False))
        if undone_by is None:
            return badge
        words = _("Undone by update %d") % undone_by
        link = update_link(self.admin_site, undone_by, words, is_seen=is_seen)
        return format_html("{} {}", badge, link)

    @admin.display(description=gettext_lazy("Result"))
    def shown_counts(self, bulk_update: BulkUpdate) -> SafeString | str:
        counts = bulk_update.counts_at_rest
        return format_html("<bdi>{}</bdi>", counts_words(counts)) if counts else "-"

    @admin.display(description=gettext_lazy("Started"))
    def when(self, bulk_update: BulkUpdate) -> SafeString | str:
        return shown_time(bulk_update.started_at)

    def list_context(self, request: HttpRequest) -> dict[str, Any]:
        return {
            **super().list_context(request),
            "bland_sms_may_paste": bool(self.verbs_of_menu(request)),
            "bland_sms_query": request.GET.urlencode(),
        }

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        response = super().changelist_view(request, extra_context)
        if isinstance(response, TemplateResponse) and response.context_data is not None:
            response.context_data |= getattr(request, "bland_sms_search", {})
            changelist = response.context_data.get("cl")
            if changelist is not None:
                add_undone_by(request, self.admin_site, changelist.result_list)
        return response

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[BulkUpdate], search_term: str
    ) -> tuple[QuerySet[BulkUpdate], bool]:
        if not search_term.strip():
            return queryset, False
        search_term = searched(request, search_term)
        condition, hint = search_condition(search_term, sight_of(request, self.admin_site))
        hint = "gone" if is_name(search_term) else hint
        request.bland_sms_search = {"bland_sms_search_hint": hint}  # type: ignore[attr-defined]
        return queryset.filter(condition), False

    # --- the page of one ----------------------------------------------------------------------

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return []

    def get_urls(self) -> list[URLPattern]:
        from .update_views import VIEWS  # which commands and workers do without

        pages = {
            name: (f"<path:object_id>/{address}", view.as_view(admin=self))
            for name, (address, view) in VIEWS.items()
        }
        csv = {"ledger": ("ledger.csv", self.ledger_view)}
        return [self._paste_url(), *self.own_urls(pages | csv), *super().get_urls()]

    def _paste_url(self) -> URLPattern:
        """Of the page for lists: not in a transaction either, and it says when a form is too large
        before Django does."""
        from .paste import PasteView

        [page] = self.own_urls({"paste": ("paste/", PasteView.as_view(admin=self))})
        return tells_when_too_large(page)

    def ledger_view(self, request: HttpRequest) -> HttpResponseBase:
        """The list with its filters as CSV, one line for each conversation of each update."""
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            chosen = self.get_changelist_instance(request).queryset
        except IncorrectLookupParameters:
            raise BadRequest("not a filter of this list") from None
        rows = ledger_rows(chosen, sight_of(request, self.admin_site))
        return csv_response(request, "updates.csv", CSV_HEADER, rows)

    def page_context(self, request: HttpRequest, bulk_update: BulkUpdate) -> dict[str, Any]:
        """What its page shows, and what of it is shown anew while it runs."""
        if bulk_update.status not in Status.OPEN:
            forget(request, bulk_update.pk)
        sight = sight_of(request, self.admin_site)
        counts = sight.counts(bulk_update)
        total = sum(counts.values())
        after = request.GET.get(AFTER, "")
        page = item_page(bulk_update, counts, sight, after=after, size=ITEMS_SHOWN)
        undone = dict(
            bulk_update.undone_by.exclude(status=Status.DRAFT).values_list("pk", "status")
        )
        progress = self.progress_of(request, bulk_update, sight, counts)
        abandoned = is_abandoned(bulk_update)
        return {
            **freshness_context(request),
            "original": bulk_update,
            "opts": self.opts,
            "title": verb_words(bulk_update.is_active, total),
            "subtitle": _("Update %d") % bulk_update.pk,
            "show_save": False,
            "show_save_and_continue": False,
            "bland_sms_facts": [
                (name, Unlogged(it))
                for name, it in (
                    *self._facts(request, bulk_update, undone),
                    *order_facts(request, self.admin_site, bulk_update),
                )
            ],
            "bland_sms_status": _badge(
                bulk_update,
                # Where there is no worker, this page itself carries it out.
                is_paused=abandoned
                or (dispatching.is_paused(bulk_update) and not progress["drive"]),
            ),
            "bland_sms_progress": {
                **progress,
                **{name: Unlogged(progress[name]) for name in ("note", "state")},
            },
            "bland_sms_hidden": hidden_items_words(sight.hidden(bulk_update, counts)),
            "bland_sms_with_numbers": sight.with_numbers,
            "bland_sms_left": counts[State.WAITING] + counts[State.RUNNING],
            "bland_sms_is_stopped": bulk_update.status == Status.STOPPED,
            "bland_sms_causes": [
                (count.state, counts_words({count.state: count.number}), Unlogged(count.advice))
                for count in causes(bulk_update, sight)
            ],
            "bland_sms_written_again": written_again(bulk_update, sight),
            "bland_sms_may": self._buttons(
                request,
                bulk_update,
                counts,
                sight,
                undone=set(undone.values()) - {Status.CANCELLED},
            ),
            "conversation_opts": Conversation._meta,
            **lines_context(bulk_update, request, sight),
            "bland_sms_is_abandoned": abandoned,
            "bland_sms_items": shown_items(page.items, sight),
            "bland_sms_page": page,
            "bland_sms_items_hidden": 0 if page.after else total - len(page.items),
            "bland_sms_left_alone": (
                list(sight.items(updates.left_alone(bulk_update))[:ITEMS_SHOWN])
                if bulk_update.undo_of_id
                else []
            ),
        }

    def progress_of(
        self,
        request: HttpRequest,
        bulk_update: BulkUpdate,
        sight: Sight,
        counts: dict[str, int] | None = None,
    ) -> dict[str, Any]:
        """Counts, words, and whether the page that asks should drive it.

        Args:
            counts: Those that ``sight`` shows, where they were counted already.
        """
        counts = sight.counts(bulk_update) if counts is None else counts
        may_drive = self.has_verb_permission(request, bulk_update.is_active)
        return progress_data(bulk_update, counts, sight, may_drive=may_drive)

    def _facts(
        self, request: HttpRequest, bulk_update: BulkUpdate, undone: Iterable[int]
    ) -> list[tuple[str, SafeString | str]]:
        facts: list[tuple[str, SafeString | str]] = [
            (_("Requested by"), bulk_update.requested_by_name or _("an operator")),
            (_("Source"), bulk_update.get_source_display()),
            (_("Started"), shown_time(bulk_update.started_at)),
        ]
        if bulk_update.finished_at:
            facts.append((_("Finished"), shown_time(bulk_update.finished_at)))
        if bulk_update.reason:
            facts.append((_("Reason"), bulk_update.reason))
        if bulk_update.selection:
            facts.append((_("Selection"), selection_words(bulk_update.selection)))
        others = [(_("Undo of"), bulk_update.undo_of_id), *((_("Undone by"), pk) for pk in undone)]
        seen = seen_updates(request, self.admin_site, (pk for _name, pk in others))
        facts += [
            (name, update_link(self.admin_site, pk, is_seen=pk in seen))
            for name, pk in others
            if pk
        ]
        return facts

    def _buttons(
        self,
        request: HttpRequest,
        bulk_update: BulkUpdate,
        counts: dict[str, int],
        sight: Sight,
        *,
        undone: Collection[str],
    ) -> dict[str, int | bool]:
        """Which buttons the page has, some with the number that they are about.

        Args:
            undone: The states of the updates that undo it.
        """
        may = self.has_verb_permission(request, bulk_update.is_active)
        is_open = bulk_update.status in Status.OPEN
        at_rest = bulk_update.status in Status.AT_REST
        failed = counts[State.FAILED] + counts[State.UNKNOWN]
        may_undo = at_rest and self.has_verb_permission(request, not bulk_update.is_active)
        is_stopped = bulk_update.status == Status.STOPPED
        has_waiting = sight.conversations is None or counts[State.WAITING] > 0
        return {
            "run": may and is_open and sight.may_drive(bulk_update),
            "cancel": may and (is_open or is_stopped) and has_waiting,
            "proceed": may and is_stopped and sight.may_drive(bulk_update),
            "retry": failed if may and not is_open else 0,
            "undo": counts[State.CHANGED] if may_undo and not undone else 0,
        }


def _badge(bulk_update: BulkUpdate, *, is_paused: bool) -> SafeString:
    return format_html(
        '<span class="bland-sms-badge bland-sms-{}">{}</span>',
        *status_words(bulk_update, is_paused=is_paused),
    )
