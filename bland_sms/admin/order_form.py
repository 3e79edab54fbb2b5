"""The page that stops customers for good: from conversations, or from a pasted list of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, time, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from django import forms
from django.contrib import messages
from django.contrib.admin.utils import quote
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import dispatching, pasting, standing, updates
from ..database import batches
from ..models import BulkUpdate, Conversation, StandingOrder
from ..quantities import number_words
from .filters import our_numbers
from .kept import CONVERSATION
from .launching import remember, update_link
from .sight import sight_of
from .status_line import line_context

if TYPE_CHECKING:
    from .orders import StandingOrderAdmin

MOST_CUSTOMERS = 500
"""Whose conversations are named in the address of the page."""
MOST_TOLD = 20


class OrderForm(forms.Form):
    """Why, how long, and where."""

    customers = forms.CharField(
        label=gettext_lazy("Customers"),
        help_text=gettext_lazy("Phone numbers in any format, one on each line."),
        required=False,
        strip=False,
        widget=forms.Textarea(attrs={"rows": 6, "cols": 40, "dir": "ltr"}),
    )
    file = forms.FileField(
        label=gettext_lazy("Or a file"),
        help_text=gettext_lazy(
            "CSV or Excel (.xlsx). One that was exported here has its reasons and times with it."
        ),
        required=False,
        widget=forms.FileInput(attrs={"accept": ".csv,.txt,.tsv,.xlsx"}),
    )
    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        help_text=gettext_lazy("Such as: asked by phone. It stands with the order."),
        max_length=200,
        widget=forms.TextInput(attrs={"class": "vTextField", "size": 60, "autocomplete": "off"}),
    )
    duration = forms.ChoiceField(
        label=gettext_lazy("Until"),
        choices=[
            ("", gettext_lazy("for good")),
            ("1", gettext_lazy("1 day")),
            ("7", gettext_lazy("7 days")),
            ("30", gettext_lazy("30 days")),
            ("date", gettext_lazy("the end of this day:")),
        ],
        required=False,
    )
    day = forms.DateField(
        label=gettext_lazy("Day"), required=False, widget=forms.DateInput(attrs={"type": "date"})
    )
    agent_number = forms.ChoiceField(label=gettext_lazy("With"), required=False)
    spare_handed_off = forms.BooleanField(
        label=gettext_lazy("Leave alone what a person has taken over"),
        required=False,
        initial=True,
    )
    now = forms.BooleanField(required=False, initial=True)

    def __init__(self, *args: Any, active: int, is_pasted: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not is_pasted:
            del self.fields["customers"], self.fields["file"]
        self.is_pasted = is_pasted
        if not (active or is_pasted):
            del self.fields["now"]
        else:
            self.fields["now"].label = (
                _("Deactivate the conversations that are active now, too")
                if is_pasted
                else ngettext(
                    "Deactivate the %s conversation that is active now, too",
                    "Deactivate the %s conversations that are active now, too",
                    active,
                )
                % number_words(active)
            )
        choices = [(number, number) for number in our_numbers(Conversation.objects.db)]
        field = self.fields["agent_number"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [("", _("all of our numbers")), *choices]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        duration, now = cleaned.get("duration"), timezone.now()
        cleaned["until"] = None
        if duration == "date":
            day = cleaned.get("day")
            if day is None or day < timezone.localdate():
                self.add_error("day", _("Give a day that is not over."))
            else:
                end = datetime.combine(day + timedelta(days=1), time.min)
                cleaned["until"] = timezone.make_aware(end)
        elif duration:
            cleaned["until"] = now + timedelta(days=int(duration))
        if self.is_pasted:
            self._read(cleaned)
        return cleaned

    def _read(self, cleaned: dict[str, Any]) -> None:
        """Read the list or the file; a line may bring its own reason."""
        text, file = cleaned.get("customers", ""), cleaned.get("file")
        if text.strip() and file:
            self.add_error("file", _("Paste the list or choose a file: not both."))
            return
        try:
            wishes = standing.read_customers(file or text)
        except pasting.ListError as error:
            self.add_error("file" if file else "customers", str(error))
            return
        cleaned["wishes"] = wishes
        if "reason" in self.errors and all(wish.reason for wish in wishes):
            del self.errors["reason"]
            cleaned["reason"] = ""


class Customer(NamedTuple):
    """Whom an order would be about."""

    number: str
    active: int
    """Conversations that are active now."""
    order: StandingOrder | None
    """In force already, with all of our numbers."""


def tell_made(
    request: HttpRequest,
    wishes: Sequence[standing.Wish],
    outcomes: Sequence[StandingOrder | standing.OrderError],
) -> list[StandingOrder]:
    """Tell what became of the wishes; the orders that were made."""
    made = [one for one in outcomes if isinstance(one, StandingOrder)]
    refused = [
        (wish, error)
        for wish, error in zip(wishes, outcomes, strict=True)
        if isinstance(error, standing.OrderError)
    ]
    for wish, error in refused[:MOST_TOLD]:
        messages.warning(request, format_html('<bdi dir="ltr">{}</bdi>: {}', wish.customer, error))
    if len(refused) > MOST_TOLD:
        number = len(refused) - MOST_TOLD
        words = ngettext("%s more line made no order.", "%s more lines made no order.", number)
        messages.warning(request, words % number_words(number))
    if made:
        words = ngettext(
            "%s customer is kept inactive.", "%s customers are kept inactive.", len(made)
        )
        messages.success(request, words % number_words(len(made)))
    return made


class StopPage:
    """One request of the page."""

    def __init__(self, admin: StandingOrderAdmin, request: HttpRequest) -> None:
        self.admin, self.request = admin, request
        self.site = admin.admin_site
        self.ids = request.GET.getlist(CONVERSATION)[: MOST_CUSTOMERS + 1]
        self.is_pasted = not self.ids
        self.conversations = self._conversations()
        self.may_deactivate = request.user.has_perm("bland_sms.deactivate_conversation")

    def _conversations(self) -> list[Conversation]:
        """One for each customer, of those that this person may see."""
        if not self.ids:
            return []
        rows = self.admin.conversations(self.request)
        found: dict[str, Conversation] = {}
        for row in rows.filter(pk__in=self.ids).exclude(customer_key="").order_by("pk"):
            found.setdefault(row.customer_key, row)
        return list(found.values())

    def respond(self) -> HttpResponse:
        if not self.admin.has_add_permission(self.request):
            raise PermissionDenied
        customers = self._customers()
        active = sum(customer.active for customer in customers) if self.may_deactivate else 0
        is_post = self.request.method == "POST"
        form = OrderForm(
            *((self.request.POST, self.request.FILES) if is_post else ()),
            active=active,
            is_pasted=self.is_pasted,
        )
        if not self.may_deactivate:
            form.fields.pop("now", None)
        if is_post and form.is_valid() and (customers or self.is_pasted):
            return self._order(form.cleaned_data)
        self.request.current_app = self.site.name
        return TemplateResponse(
            self.request,
            "admin/bland_sms/standingorder/add.html",
            {
                **self.site.each_context(self.request),
                **line_context(self.request, self.site),
                "opts": self.admin.opts,
                "app_label": self.admin.opts.app_label,
                "media": self.admin.media + form.media,
                "title": _("Stop for good"),
                "form": form,
                "customers": customers,
                "is_pasted": self.is_pasted,
                "back": self._back(),
                "list_url": self._list_url(),
                "how_long": standing.how_long().words,
            },
        )

    def _customers(self) -> list[Customer]:
        keys = [row.customer_key for row in self.conversations]
        orders = {
            order.customer_key: order
            for order in StandingOrder.objects.filter(
                StandingOrder.acting(), customer_key__in=keys, agent_number=""
            )
        }
        active: dict[str, int] = {}
        rows = self.admin.conversations(self.request).filter(customer_key__in=keys, is_active=True)
        for key in rows.values_list("customer_key", flat=True):
            active[key] = active.get(key, 0) + 1
        return [
            Customer(row.user_number, active.get(row.customer_key, 0), orders.get(row.customer_key))
            for row in self.conversations
        ]

    def _order(self, asked: dict[str, Any]) -> HttpResponse:
        wishes = asked.get("wishes") or [
            standing.Wish(standing.as_typed(row.customer_key) or row.user_number)
            for row in self.conversations[:MOST_CUSTOMERS]
        ]
        outcomes = standing.make_many(
            wishes,
            asked["reason"],
            agent_number=asked["agent_number"],
            until=asked["until"],
            spare_handed_off=asked["spare_handed_off"],
            requested_by=self.request.user,
            source=StandingOrder.Source.ADMIN,
            visible=sight_of(self.request, self.site).conversations,
        )
        made = tell_made(self.request, wishes, outcomes)
        if made and asked.get("now"):
            self._deactivate(made, asked["reason"] or made[0].reason)
        return HttpResponseRedirect(self._back() if made else self.request.get_full_path())

    def _deactivate(self, orders: list[StandingOrder], reason: str) -> None:
        """What is active now: an update of this person's, and none of the orders'."""
        seen = self.admin.conversations(self.request)
        found = standing.active_conversations(orders)
        ids = [
            pk
            for some in batches(found)
            for pk in seen.filter(pk__in=some).values_list("pk", flat=True)
        ]
        try:
            draft = updates.prepare(ids, False, self.request.user, reason, BulkUpdate.Source.ADMIN)
        except updates.SelectionError:
            return
        updates.start(draft)
        dispatching.carry_out(draft, partial(remember, self.request))
        text = _("What was active is deactivated in")
        messages.info(self.request, format_html("{} {}", text, update_link(self.site, draft.pk)))

    def _back(self) -> str:
        if len(self.ids) != 1:
            return self._list_url()
        name, args = "bland_sms_conversation_change", [quote(self.ids[0])]
        return reverse(f"admin:{name}", args=args, current_app=self.site.name)

    def _list_url(self) -> str:
        name = "bland_sms_standingorder_changelist"
        return reverse(f"admin:{name}", current_app=self.site.name)
