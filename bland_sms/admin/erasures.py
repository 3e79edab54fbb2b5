"""The record of erasures, and the way to the page that forgets a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from django.contrib.admin import AdminSite, display
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.urls import NoReverseMatch, reverse
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..models import Conversation, Erasure
from ..quantities import number_words
from .base import MirroredAdmin, Options
from .formatting import shown_time
from .kept import CONVERSATION
from .sight import sight_of


class ErasureAdmin(MirroredAdmin[Erasure]):
    """Who erased how much when, and not whom."""

    list_display: Options = ("erased", "by", "told")
    ordering: ClassVar[Options] = ("-pk",)
    sortable_by: ClassVar[Options] = ()

    def has_add_permission(self, request: HttpRequest) -> bool:
        """A number is typed and conversations are shown, so it needs ``view_conversation`` too."""
        may = request.user.has_perm(f"{self.opts.app_label}.add_erasure")
        return may and sight_of(request, self.admin_site).with_numbers

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return self.list_display

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return self.list_display

    @display(description=gettext_lazy("Erased"))
    def erased(self, erasure: Erasure) -> SafeString | str:
        return shown_time(erasure.erased_at)

    @display(description=gettext_lazy("By"))
    def by(self, erasure: Erasure) -> str:
        return erasure.requested_by_name or _("an operator")

    @display(description=gettext_lazy("Rows"))
    def told(self, erasure: Erasure) -> str:
        return counts_words(erasure.counts)

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        from .forget_page import ForgetPage  # with much that nothing else of the admin needs

        return ForgetPage(self, request).respond()


def forget_url(request: HttpRequest, site: AdminSite, row: Conversation) -> str:
    """The page that forgets a conversation's customer; ``""``: not for this person, or site."""
    admin = site._registry.get(Erasure)
    if admin is None or not row.customer_key or not admin.has_add_permission(request):
        return ""
    try:
        url = reverse("admin:bland_sms_erasure_add", current_app=site.name)
    except NoReverseMatch:
        return ""
    return f"{url}?{urlencode({CONVERSATION: row.pk})}"


# --- words ----------------------------------------------------------------------------------------


def counts_words(counts: Mapping[str, int]) -> str:
    """Such as "conversations: 3, messages: 12"; what is zero is left out."""
    names = {
        "conversations": _("conversations"),
        "messages": _("messages"),
        "history": _("entries in the History"),
        "items": _("items of updates"),
        "updates": _("updates"),
        "deliveries": _("webhook deliveries"),
        "orders": _("standing orders"),
        "lines": _("lines of pasted lists"),
    }
    told = [
        f"{words}: {number_words(counts[name])}"
        for name, words in names.items()
        if counts.get(name)
    ]
    return ", ".join(told)
