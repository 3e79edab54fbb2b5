"""The list of updates and the page of one: who asked for what, and what became of it."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.db.models import Exists, Model, OuterRef, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import updates
from ..models import BulkUpdate, BulkUpdateItem, Conversation
from ..sentences import translated
from .mirrored import MirroredAdmin, Options, freshness_context, shown_time
from .update_flow import UpdateFlow
from .wording import causes, counts_words, explain, stop_words, verb_words, written_again

State = BulkUpdateItem.State
Status = BulkUpdate.Status
ITEMS_SHOWN = 200
FAILURES_FIRST = (
    State.FAILED,
    State.UNKNOWN,
    State.RUNNING,
    State.WAITING,
    State.CHANGED,
    State.UNCHANGED,
    State.CANCELLED,
)


class WhoseFilter(admin.SimpleListFilter):
    title = gettext_lazy("whose")
    parameter_name = "whose"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("mine", _("Mine"))]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[BulkUpdate]
    ) -> QuerySet[BulkUpdate]:
        return queryset.filter(requested_by=request.user.pk) if self.value() else queryset


class OutcomeFilter(admin.SimpleListFilter):
    title = gettext_lazy("outcome")
    parameter_name = "outcome"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("running", _("Not finished yet")), ("failures", _("With failures"))]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[BulkUpdate]
    ) -> QuerySet[BulkUpdate]:
        if self.value() == "running":
            return queryset.filter(status__in=(Status.QUEUED, Status.RUNNING, Status.STOPPED))
        if self.value() == "failures":
            failed = BulkUpdateItem.objects.filter(
                bulk_update=OuterRef("pk"), state__in=(State.FAILED, State.UNKNOWN)
            )
            return queryset.filter(Exists(failed))
        return queryset


class BulkUpdateAdmin(UpdateFlow, MirroredAdmin[BulkUpdate]):
    """The ledger. Who may not see all of it sees what they asked for themselves."""

    list_display: Options = ("number", "what", "by", "when", "shown_status", "shown_counts")
    list_display_links: Options = ("number",)
    list_filter: ClassVar[Options] = (WhoseFilter, OutcomeFilter)
    ordering: ClassVar[Options] = ("-pk",)
    sortable_by: ClassVar[Options] = ("number",)

    class Media:
        js = ["bland_sms/update.js"]

    # --- permissions --------------------------------------------------------------------------

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

    def get_model_perms(self, request: HttpRequest) -> dict[str, bool]:
        # Every page of the admin builds its menu from this. There is no other place from which
        # to tell somebody who comes back that their update is done.
        self.tell_awaited(request)
        return super().get_model_perms(request)

    # --- the list -----------------------------------------------------------------------------

    @admin.display(description=gettext_lazy("Update"), ordering="id")
    def number(self, bulk_update: BulkUpdate) -> str:
        return _("Update %d") % bulk_update.pk

    @admin.display(description=gettext_lazy("By"))
    def by(self, bulk_update: BulkUpdate) -> str:
        return bulk_update.requested_by_name or _("an operator")

    @admin.display(description=gettext_lazy("Asked"))
    def what(self, bulk_update: BulkUpdate) -> str:
        return _("Reactivate") if bulk_update.is_active else _("Deactivate")

    @admin.display(description=gettext_lazy("State"))
    def shown_status(self, bulk_update: BulkUpdate) -> SafeString:
        return format_html(
            '<span class="bland-sms-badge bland-sms-{}">{}</span>',
            bulk_update.status,
            bulk_update.get_status_display(),
        )

    @admin.display(description=gettext_lazy("Result"))
    def shown_counts(self, bulk_update: BulkUpdate) -> str:
        counts = bulk_update.counts_at_rest
        return counts_words(counts) if counts else "-"

    @admin.display(description=gettext_lazy("Started"))
    def when(self, bulk_update: BulkUpdate) -> SafeString | str:
        return shown_time(bulk_update.started_at)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {"title": _("Bulk updates"), **(extra_context or {})}
        return super().changelist_view(request, context)

    # --- the page of one ----------------------------------------------------------------------

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return []

    def get_urls(self) -> list[URLPattern]:
        return [*self.flow_urls(), *super().get_urls()]

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        bulk_update = self.get_object(request, unquote(object_id))
        if bulk_update is not None and self.has_view_permission(request, bulk_update):
            if bulk_update.status not in (Status.QUEUED, Status.RUNNING):
                self.forget_awaited(request, bulk_update.pk)
            context = self._page_context(request, bulk_update)
            extra_context = {**freshness_context(), **context, **(extra_context or {})}
        return super().change_view(request, object_id, form_url, extra_context)

    def _page_context(self, request: HttpRequest, bulk_update: BulkUpdate) -> dict[str, Any]:
        counts = bulk_update.known_counts()
        total = sum(counts.values())
        items = _first_items(bulk_update, counts)
        return {
            "title": verb_words(bulk_update.is_active, total),
            "subtitle": _("Update %d") % bulk_update.pk,
            "show_save": False,
            "show_save_and_continue": False,
            "bland_sms_facts": self._facts(bulk_update),
            "bland_sms_status": self.shown_status(bulk_update),
            "bland_sms_progress": self.progress_of(request, bulk_update, counts),
            "bland_sms_left": counts[State.WAITING] + counts[State.RUNNING],
            "bland_sms_stop": stop_words(bulk_update) if bulk_update.stop_code else "",
            "bland_sms_causes": causes(bulk_update),
            "bland_sms_written_again": written_again(bulk_update),
            "bland_sms_may": self._buttons(request, bulk_update, counts),
            "bland_sms_is_abandoned": _is_abandoned(bulk_update),
            "bland_sms_items": _shown(items),
            "bland_sms_items_hidden": total - len(items),
            "bland_sms_left_alone": (
                list(updates.left_alone(bulk_update)[:ITEMS_SHOWN])
                if bulk_update.undo_of_id
                else []
            ),
        }

    def _facts(self, bulk_update: BulkUpdate) -> list[tuple[str, SafeString | str]]:
        facts: list[tuple[str, SafeString | str]] = [
            (_("Requested by"), bulk_update.requested_by_name or _("an operator")),
            (_("Asked in"), bulk_update.get_source_display()),
            (_("Started"), shown_time(bulk_update.started_at)),
        ]
        if bulk_update.finished_at:
            facts.append((_("Finished"), shown_time(bulk_update.finished_at)))
        if bulk_update.reason:
            reason = bulk_update.reason
            facts.append((_("Reason"), translated(reason) if bulk_update.undo_of_id else reason))
        if bulk_update.selection:
            facts.append((_("Selection"), bulk_update.selection))
        if bulk_update.undo_of_id:
            facts.append((_("Undo of"), self.link_to(bulk_update.undo_of_id)))
        facts += [
            (_("Undone by"), self.link_to(pk))
            for pk in bulk_update.undone_by.exclude(status=Status.DRAFT).values_list(
                "pk", flat=True
            )
        ]
        return facts

    def _buttons(
        self, request: HttpRequest, bulk_update: BulkUpdate, counts: dict[str, int]
    ) -> dict[str, int | bool]:
        """Which buttons the page has, some with the number that they are about."""
        may = self.has_verb_permission(request, bulk_update.is_active)
        is_open = bulk_update.status in (Status.QUEUED, Status.RUNNING)
        at_rest = bulk_update.status in (Status.FINISHED, Status.CANCELLED)
        failed = counts[State.FAILED] + counts[State.UNKNOWN]
        may_undo = at_rest and self.has_verb_permission(request, not bulk_update.is_active)
        return {
            "run": may and is_open,
            "cancel": may and (is_open or bulk_update.status == Status.STOPPED),
            "proceed": may and bulk_update.status == Status.STOPPED,
            "retry": failed if may and not is_open else 0,
            "undo": counts[State.CHANGED] if may_undo else 0,
        }


def _first_items(bulk_update: BulkUpdate, counts: dict[str, int]) -> list[BulkUpdateItem]:
    """The items to show, failures first: by index, one state after the other."""
    items: list[BulkUpdateItem] = []
    for state in FAILURES_FIRST:
        if counts[state] and len(items) < ITEMS_SHOWN:
            of_state = bulk_update.items.filter(state=state).order_by("pk")
            items += of_state[: ITEMS_SHOWN - len(items)]
    return items


def _is_abandoned(bulk_update: BulkUpdate) -> bool:
    """Whether a worker was asked for and nobody has come for a while."""
    return (
        bulk_update.status in (Status.QUEUED, Status.RUNNING)
        and bulk_update.dispatched_at is not None
        and updates.driver_of(bulk_update) == "nobody"
    )


def _shown(items: list[BulkUpdateItem]) -> list[tuple[BulkUpdateItem, str, str]]:
    """Items with their customer's number, and why or until when."""
    ids = [item.conversation_id for item in items]
    numbers = dict(Conversation.objects.filter(pk__in=ids).values_list("pk", "user_number"))
    return [
        (item, numbers.get(item.conversation_id) or _("no number"), _cause(item)) for item in items
    ]


def _cause(item: BulkUpdateItem) -> str:
    if item.state == State.WAITING and item.not_before is not None:
        when = date_format(timezone.localtime(item.not_before), "DATETIME_FORMAT")
        return _("Bland asked us to come back at %s.") % when
    if item.state in (State.FAILED, State.UNKNOWN, State.CANCELLED):
        cause = explain(item.error_code, item.http_status, item.message)
        told = translated(item.message)
        words = f" ({told})" if item.state == State.CANCELLED and told else ""
        return f"{cause.what}{words}. {cause.next_step}".strip()
    return ""
