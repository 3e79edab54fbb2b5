"""The page that forgets a person: what would be erased, which orders would end, and doing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django import forms
from django.contrib import messages
from django.contrib.admin.utils import quote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..erasure import foresee, forget
from ..models import Conversation
from ..people import name_of
from ..person import NotANumberError, Person
from ..quantities import number_words
from .erasures import counts_words
from .kept import CONVERSATION
from .sight import sight_of
from .status_line import line_context
from .wording import COUNT_CAP

if TYPE_CHECKING:
    from .erasures import ErasureAdmin


class NumberForm(forms.Form):
    """Whom."""

    number = forms.CharField(
        label=gettext_lazy("Phone number or address"),
        help_text=gettext_lazy("The whole number in any format, best with + and the country."),
        max_length=255,
        widget=forms.TextInput(attrs={"class": "vTextField", "autocomplete": "off", "dir": "ltr"}),
    )


class ForgetPage:
    """One request of the page: of a conversation's customer, or of a number that is typed."""

    def __init__(self, admin: ErasureAdmin, request: HttpRequest) -> None:
        self.admin, self.request = admin, request
        self.site = admin.admin_site
        self.conversation_id = request.GET.get(CONVERSATION, "")

    def respond(self) -> HttpResponse:
        if not self.admin.has_add_permission(self.request):
            raise PermissionDenied
        is_post = self.request.method == "POST"
        self.visible = sight_of(self.request, self.site).conversations
        if self.conversation_id:
            form, person = None, self._customer()
        else:
            form = NumberForm(self.request.POST if is_post else None)
            person = self._typed(form) if is_post and form.is_valid() else None
        is_allowed = person is not None and not self._is_hidden(person)
        if is_post and person is not None and is_allowed and "confirmed" in self.request.POST:
            return self._forget(person)
        return self._ask(form, person, is_allowed=is_allowed)

    # --- who ------------------------------------------------------------------------------------

    def _customer(self) -> Person | None:
        rows = Conversation.objects.all() if self.visible is None else self.visible
        row = None if "\0" in self.conversation_id else rows.filter(pk=self.conversation_id).first()
        if row is None:
            raise Http404
        return Person.with_key(row.customer_key) if row.customer_key else None

    def _typed(self, form: NumberForm) -> Person | None:
        try:
            person = Person.of(form.cleaned_data["number"])
        except NotANumberError as error:
            form.add_error("number", str(error))
            return None
        if self.visible is not None and not self.visible.filter(customer_key=person.key).exists():
            form.add_error("number", _("Not found: %s.") % form.cleaned_data["number"])
            return None
        return person

    def _is_hidden(self, person: Person) -> bool:
        """Whether conversations of theirs are not shown to whoever asks."""
        if self.visible is None:
            return False
        seen = self.visible.order_by().values("pk")
        return person.conversations().exclude(pk__in=seen).exists()

    # --- asking and doing -----------------------------------------------------------------------

    def _ask(
        self, form: NumberForm | None, person: Person | None, *, is_allowed: bool
    ) -> HttpResponse:
        foreseen = foresee(person, most=COUNT_CAP) if person is not None and is_allowed else None
        self.request.current_app = self.site.name
        return TemplateResponse(
            self.request,
            "admin/bland_sms/erasure/add.html",
            {
                **self.site.each_context(self.request),
                **line_context(self.request, self.site),
                "opts": self.admin.opts,
                "app_label": self.admin.opts.app_label,
                "media": self.admin.media,
                "title": _("Forget a person"),
                "form": form,
                "is_nobody": form is None and person is None,
                "is_hidden": person is not None and not is_allowed,
                "foreseen": foreseen,
                "foreseen_words": counts_words(vars(foreseen)) if foreseen else "",
                "orders_words": orders_words(foreseen.orders) if foreseen else "",
                "back": self._back(),
            },
        )

    def _forget(self, person: Person) -> HttpResponse:
        forgotten = forget(
            person,
            by=name_of(self.request.user),
            keep_orders="keep_orders" in self.request.POST,
        )
        words = counts_words(vars(forgotten))
        if words:
            messages.success(self.request, _("Erased: %s.") % words)
        else:
            messages.warning(self.request, _("Nothing was found of this person."))
        return HttpResponseRedirect(self._back())

    def _back(self) -> str:
        """The conversation, the record of erasures, or the index, as far as it may be seen."""
        if self.conversation_id:
            name, args = "bland_sms_conversation_change", [quote(self.conversation_id)]
        elif self.admin.has_view_permission(self.request):
            name, args = "bland_sms_erasure_changelist", []
        else:
            name, args = "index", []
        return reverse(f"admin:{name}", args=args, current_app=self.site.name)


def orders_words(number: int) -> str:
    text = ngettext(
        "%s standing order of theirs ends: Bland's agent answers them again when they write.",
        "%s standing orders of theirs end: Bland's agent answers them again when they write.",
        number,
    )
    return text % number_words(number)
