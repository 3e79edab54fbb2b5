"""The list of standing orders and the page of one: who is kept inactive, why, and what it did."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
)
from django.http.response import HttpResponseBase
from django.middleware.csrf import get_token
from django.urls import URLPattern, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import standing
from ..conf import get_settings
from ..customers import typed_key
from ..database import after_commit
from ..models import Conversation, StandingOrder
from ..quantities import number_words
from .base import MirroredAdmin, Options
from .csv_export import csv_response
from .formatting import shown_number, shown_time
from .kept import order_author, shown_suspension, until_words
from .launching import seen_updates, update_link
from .ledger_search import ORDER_NAMES, own_number
from .order_filters import MineFilter, StateFilter, state_words
from .sight import sight_of

APPLICATIONS_SHOWN = 100
MOST_AT_ONCE = 1000
MOST_UNDONE = 50
"""Orders that a message offers to order again at once."""
EXPORTED = (
    "id",
    "customer",
    "agent_number",
    "state",
    "reason",
    "requested_by_name",
    "starts_at",
    "until",
    "spare_handed_off",
    "applied_count",
    "last_applied_at",
    "suspended_code",
    "lifted_at",
    "lifted_by_name",
)


class StandingOrderAdmin(MirroredAdmin[StandingOrder]):
    """Customers whose conversations are kept inactive."""

    list_display: Options = (
        "number",
        "shown_customer",
        "with_number",
        "shown_state",
        "reason",
        "ordered",
        "ends",
        "did",
    )
    list_display_links: Options = ("number",)
    list_filter: ClassVar[Options] = (StateFilter, MineFilter)
    ordering: ClassVar[Options] = ("-pk",)
    sortable_by: ClassVar[Options] = ()
    search_fields: ClassVar[Options] = ("customer_key",)
    search_help_text = gettext_lazy(
        "A whole phone number in any format, an address, or the number of an order."
    )
    actions: Options = (
        "lift_selected",
        "renew_selected",
        "again_selected",
        "review_selected",
        "export_selected",
    )
    change_form_template = "admin/bland_sms/standingorder/change_form.html"
    change_list_template = "admin/bland_sms/standingorder/change_list.html"

    # --- permissions --------------------------------------------------------------------------

    def _may(self, request: HttpRequest, verb: str) -> bool:
        return request.user.has_perm(f"{self.opts.app_label}.{verb}_standingorder")

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Numbers of customers are shown and typed there, so it needs ``view_conversation`` too."""
        return self._may(request, "add") and self._may_see_numbers(request)

    def has_lift_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request) and self._may(request, "lift")

    def has_order_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request) and self._may(request, "add")

    def has_export_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request) and request.user.has_perm(
            f"{self.opts.app_label}.export_conversation"
        )

    def _may_see_numbers(self, request: HttpRequest) -> bool:
        return sight_of(request, self.admin_site).with_numbers

    def conversations(self, request: HttpRequest) -> QuerySet[Conversation]:
        """Those that this person may see."""
        seen = sight_of(request, self.admin_site).conversations
        return Conversation.objects.all() if seen is None else seen

    # --- the list -----------------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> QuerySet[StandingOrder]:
        seen = sight_of(request, self.admin_site).conversations
        return standing.visible_orders(super().get_queryset(request), seen)

    def get_list_display(self, request: HttpRequest) -> Any:
        hidden = set() if self._may_see_numbers(request) else {"shown_customer"}
        return [name for name in self.list_display if name not in hidden]

    @admin.display(description=gettext_lazy("Order"), ordering="id")
    def number(self, order: StandingOrder) -> str:
        return _("Order %d") % order.pk

    @admin.display(description=gettext_lazy("Customer"))
    def shown_customer(self, order: StandingOrder) -> SafeString | str:
        return shown_number(order.customer) if order.customer else _("erased")

    @admin.display(description=gettext_lazy("With"))
    def with_number(self, order: StandingOrder) -> SafeString | str:
        return shown_number(order.agent_number) if order.agent_number else _("all our numbers")

    @admin.display(description=gettext_lazy("State"))
    def shown_state(self, order: StandingOrder) -> SafeString:
        badge = format_html(
            '<span class="bland-sms-badge bland-sms-order-{}">{}</span>',
            order.state,
            state_words(order.state),
        )
        if order.state == "suspended":
            told = shown_suspension(self.admin_site, order, with_step=False)
            badge = format_html("{} {}", badge, told)
        elif order.needs_review:
            badge = format_html("{} {}", badge, _("to be reviewed"))
        return badge

    @admin.display(description=gettext_lazy("Ordered"))
    def ordered(self, order: StandingOrder) -> SafeString:
        return format_html("{}, {}", shown_time(order.starts_at), order_author(order))

    @admin.display(description=gettext_lazy("Until"))
    def ends(self, order: StandingOrder) -> str:
        return until_words(order)

    @admin.display(description=gettext_lazy("Applied"))
    def did(self, order: StandingOrder) -> SafeString | str:
        if order.last_applied_at is None:
            return _("never")
        times = number_words(order.applied_count)
        return format_html("{}&times;, {}", times, shown_time(order.last_applied_at))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[StandingOrder], search_term: str
    ) -> tuple[QuerySet[StandingOrder], bool]:
        if not search_term.strip():
            return queryset, False
        number, is_sure = own_number(search_term, ORDER_NAMES)
        if is_sure and number is not None:
            return queryset.filter(pk=number), False
        if not self._may_see_numbers(request) or "\0" in search_term:
            return queryset.none(), False
        key = typed_key(search_term, get_settings().default_country_code)
        return queryset.filter(customer_key__in=standing.names_of(key)), False

    def list_context(self, request: HttpRequest) -> dict[str, Any]:
        if StandingOrder.objects.filter(
            StandingOrder.not_over(), suspended_code="orders_too_often"
        ).exists():
            messages.error(
                request,
                _(
                    "All standing orders were suspended: something opens too many conversations. "
                    "Find out what it is, then renew the suspended orders."
                ),
            )
        return {
            **super().list_context(request),
            "bland_sms_how_long": standing.how_long().words,
        }

    # --- actions ------------------------------------------------------------------------------

    def _picked(
        self, request: HttpRequest, queryset: QuerySet[StandingOrder]
    ) -> list[StandingOrder] | None:
        orders = list(queryset.order_by("pk")[: MOST_AT_ONCE + 1])
        if len(orders) > MOST_AT_ONCE:
            words = _("At most %d orders at once: narrow the list.")
            self.message_user(request, words % MOST_AT_ONCE, messages.ERROR)
            return None
        return orders

    @admin.action(description=gettext_lazy("Lift selected"), permissions=["lift"])
    def lift_selected(self, request: HttpRequest, queryset: QuerySet[StandingOrder]) -> None:
        """End the selected orders."""
        orders = self._picked(request, queryset)
        if orders is None:
            return
        lifted = standing.lift_many(orders, request.user)
        number = len(lifted)
        words = ngettext("%s order lifted.", "%s orders lifted.", number) % number_words(number)
        if not number:
            self.message_user(request, words, messages.WARNING)
            return
        text = format_html("{} {}", words, self._undo(request, lifted))
        self.message_user(request, text, messages.SUCCESS)

    def _undo(self, request: HttpRequest, lifted: list[StandingOrder]) -> SafeString:
        """Undo as a form in the message, which is the action "Order again" for what was lifted."""
        url = reverse("admin:bland_sms_standingorder_changelist", current_app=self.admin_site.name)
        if not self.has_order_permission(request):
            return SafeString("")
        if len(lifted) > MOST_UNDONE:
            undo = _("Undo: select them here and choose “Order again”.")
            return format_html('<a href="{}?state=ended">{}</a>', url, undo)
        field = '<input type="hidden" name="_selected_action" value="{}">'
        return format_html(
            '<form method="post" action="{}" class="bland-sms-inline">'
            '<input type="hidden" name="csrfmiddlewaretoken" value="{}">'
            '<input type="hidden" name="action" value="again_selected">{}'
            '<button type="submit" class="bland-sms-button">{}</button></form>',
            *(url, get_token(request), format_html_join("", field, ((o.pk,) for o in lifted))),
            _("Undo"),
        )

    @admin.action(description=gettext_lazy("Renew selected"), permissions=["order"])
    def renew_selected(self, request: HttpRequest, queryset: QuerySet[StandingOrder]) -> None:
        """Let suspended orders act again, in this person's name."""
        self._each(request, queryset, lambda order: standing.renew(order, request.user))

    @admin.action(description=gettext_lazy("Order again"), permissions=["order"])
    def again_selected(self, request: HttpRequest, queryset: QuerySet[StandingOrder]) -> None:
        """Make orders that are over once more: the undo of Lift."""

        def again(order: StandingOrder) -> None:
            standing.again(order, request.user)

        self._each(request, queryset, again)

    @admin.action(description=gettext_lazy("Reviewed: keep selected"), permissions=["order"])
    def review_selected(self, request: HttpRequest, queryset: QuerySet[StandingOrder]) -> None:
        """A person has looked at what a rule ordered."""
        for order in self._picked(request, queryset) or ():
            standing.review(order, request.user)

    @admin.action(description=gettext_lazy("Export selected (CSV)"), permissions=["export"])
    def export_selected(
        self, request: HttpRequest, queryset: QuerySet[StandingOrder]
    ) -> HttpResponseBase:
        """Download the orders; customers only for those who may see their numbers."""
        columns = [*EXPORTED]
        if not self._may_see_numbers(request):
            columns.remove("customer")
        rows = (
            [getattr(order, name) for name in columns]
            for order in queryset.order_by("pk").iterator(chunk_size=1000)
        )
        return csv_response(request, "standing-orders.csv", columns, rows)

    def _each(
        self,
        request: HttpRequest,
        queryset: QuerySet[StandingOrder],
        change: Callable[[StandingOrder], None],
    ) -> None:
        done = 0
        for order in self._picked(request, queryset) or ():
            try:
                change(order)
                done += 1
            except standing.OrderError as error:
                text = format_html("{}: {}", self.number(order), error)
                self.message_user(request, text, messages.WARNING)
        if done:
            seconds = get_settings().inline_seconds
            after_commit(lambda: standing.carry_out_waiting(seconds=seconds))
            words = ngettext("%s order is in force.", "%s orders are in force.", done)
            words %= number_words(done)
            self.message_user(request, words, messages.SUCCESS)

    # --- the page of one ----------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        pages = {
            verb: (f"<path:object_id>/{verb}/", self._view_of(verb))
            for verb in ("lift", "renew", "again", "review")
        }
        return [*self.own_urls(pages), *super().get_urls()]

    def _view_of(self, verb: str) -> Callable[..., HttpResponseBase]:
        def view(request: HttpRequest, object_id: str) -> HttpResponseBase:
            return self.change_order(request, object_id, verb)

        return view

    def change_order(self, request: HttpRequest, object_id: str, verb: str) -> HttpResponseBase:
        """A button of the page of one: the action of that name, for this order."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        may = self.has_lift_permission if verb == "lift" else self.has_order_permission
        if not may(request):
            raise PermissionDenied
        order = self.get_object(request, unquote(object_id))
        if order is None:
            raise Http404
        getattr(self, f"{verb}_selected")(request, self.get_queryset(request).filter(pk=order.pk))
        name, args = "bland_sms_standingorder_change", [order.pk]
        return HttpResponseRedirect(
            reverse(f"admin:{name}", args=args, current_app=self.admin_site.name)
        )

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        from .order_form import StopPage  # commands and workers do without the forms

        return StopPage(self, request).respond()

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return []

    def page_context(self, request: HttpRequest, order: StandingOrder) -> dict[str, Any]:
        with_numbers = self._may_see_numbers(request)
        facts: list[tuple[str, Any]] = [
            (_("State"), self.shown_state(order)),
            (_("With"), self.with_number(order)),
            (_("Reason"), order.reason),
            (_("By"), order_author(order)),
            (_("Since"), shown_time(order.starts_at)),
            (_("Until"), until_words(order)),
            (_("Applied"), self.did(order)),
        ]
        if with_numbers:
            facts.insert(1, (_("Customer"), self.shown_customer(order)))
        if order.spare_handed_off:
            facts.append((_("Left alone"), _("what a person has taken over")))
        if order.lifted_at is not None:
            by = order.lifted_by_name or _("an operator")
            facts.append((_("Lifted"), format_html("{}, {}", shown_time(order.lifted_at), by)))
        seen = self.conversations(request)
        applications = order.applications.filter(conversation__in=seen).order_by("-pk")
        shown = list(applications[:APPLICATIONS_SHOWN])
        may_open = seen_updates(request, self.admin_site, (one.bulk_update_id for one in shown))
        may_order, is_over = (
            self.has_order_permission(request),
            order.state in ("lifted", "expired"),
        )
        return {
            "title": self.number(order),
            "subtitle": None,
            "show_save": False,
            "show_save_and_continue": False,
            "bland_sms_facts": facts,
            "bland_sms_advice": shown_suspension(self.admin_site, order),
            "bland_sms_applied": standing.APPLIED,
            "bland_sms_applications": [
                (
                    one,
                    update_link(
                        self.admin_site, one.bulk_update_id, is_seen=one.bulk_update_id in may_open
                    ),
                    shown_time(one.applied_at),
                )
                for one in shown
            ],
            "bland_sms_with_numbers": with_numbers,
            "bland_sms_buttons": [
                (verb, words)
                for verb, words, is_there in (
                    ("lift", _("Lift"), not is_over and self.has_lift_permission(request)),
                    ("renew", _("Renew"), order.state == "suspended" and may_order),
                    ("again", _("Order again"), is_over and may_order),
                    ("review", _("Keep"), order.needs_review and not is_over and may_order),
                )
                if is_there
            ],
        }
