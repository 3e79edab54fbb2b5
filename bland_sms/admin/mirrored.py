"""What all our admin pages share: nothing here is added, edited or deleted by hand."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from django.contrib import admin
from django.contrib.admin.widgets import url_params_from_lookup_dict
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.db.models.constants import LOOKUP_SEP
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince
from django.utils.translation import gettext as _

from ..client import get_client
from ..conf import get_settings
from ..exceptions import BlandConfigurationError
from ..payloads import EPOCH
from ..sentences import translated
from ..sync import last_copied_at

COUNT_CAP = 10_000
"""No page counts further than this: a COUNT over a million rows takes longer than the page."""

AnyModel = TypeVar("AnyModel", bound=Model)
Options = list[Any] | tuple[Any, ...]
"""Of an admin class. Without it a subclass could only have as many columns as ours."""

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin
else:  # django-stubs' generics are not there at run time

    class ModelAdmin(admin.ModelAdmin):
        __class_getitem__ = classmethod(lambda cls, item: cls)


class CappedPaginator(Paginator):  # type: ignore[type-arg]
    """Counts no further than the cap; pages beyond it do not exist."""

    @cached_property
    def count(self) -> int:
        return min(self._counted, COUNT_CAP)

    @cached_property
    def _counted(self) -> int:
        assert isinstance(self.object_list, QuerySet)
        return self.object_list.order_by()[: COUNT_CAP + 1].count()

    @property
    def is_capped(self) -> bool:
        """Whether there are more rows than are counted."""
        return self._counted > COUNT_CAP


class MirroredAdmin(ModelAdmin[AnyModel]):
    """A read-only page over rows that only our own rooms write."""

    list_per_page = 50
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = CappedPaginator

    class Media:
        css = {"all": ["bland_sms/admin.css"]}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return [field.name for field in self.opts.fields]

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Only what a filter asks for. Django takes any column and any test from the address,
        which would tell letter by letter what people wrote, by a scan of the table each time."""
        name, *tests = lookup.split(LOOKUP_SEP)
        if tests and "\0" in str(value):
            return False  # PostgreSQL raises an error for it
        if not super().lookup_allowed(lookup, value, request):
            return False
        fields = self.opts.get_fields()
        columns = {field.name for field in fields} | {getattr(one, "attname", "") for one in fields}
        if name not in columns | {"pk"}:
            return True  # a filter's own name, or nobody's
        if {"regex", "iregex"}.isdisjoint(tests) and name in self._filtered(request):
            return True
        return self._is_choice_of_a_form(lookup, value)

    def _filtered(self, request: HttpRequest) -> set[str]:
        """Columns that the list may be narrowed by."""
        found = {str(self.date_hierarchy)}
        for one in self.get_list_filter(request):
            asked = one[0] if isinstance(one, (tuple, list)) else one
            found.add(str(getattr(asked, "parameter_name", asked)).split(LOOKUP_SEP)[0])
        return found

    def _is_choice_of_a_form(self, lookup: str, value: str) -> bool:
        """Whether it is some foreign key's ``limit_choices_to``, for the pop-up of its form."""
        limits = getattr(self.opts, "related_fkey_lookups", ())
        return any(
            (lookup, value)
            in url_params_from_lookup_dict(limit() if callable(limit) else limit).items()
            for limit in limits
        )

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The History, whose entries are kept in English, in the reader's language."""
        if not self.has_view_permission(request):
            raise PermissionDenied  # before Django's look, which tells whether there is such a row
        response = super().history_view(request, object_id, extra_context)
        if isinstance(response, TemplateResponse) and response.context_data is not None:
            for entry in response.context_data["action_list"]:
                entry.change_message = translated(entry.change_message)
        return response


def connection_problem() -> str:
    """Why Bland cannot be asked at all, in words, or ``""``."""
    try:
        get_client()
    except BlandConfigurationError as error:
        return translated(error)
    return ""


def freshness_context() -> dict[str, Any]:
    """When the list was copied as a whole, for the line that every page shows."""
    copied_at = last_copied_at()
    oldest_fresh = timezone.now() - timedelta(seconds=get_settings().stale_after)
    return {
        "bland_sms_copied_at": None if copied_at is None else shown_time(copied_at),
        "bland_sms_is_stale": copied_at is None or copied_at < oldest_fresh,
    }


def shown_time(moment: datetime | None) -> SafeString | str:
    """How long ago, with the exact time to hover over and for machines."""
    if moment is None or moment == EPOCH:
        return _("unknown")
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        moment.isoformat(),
        date_format(timezone.localtime(moment), "DATETIME_FORMAT"),
        ago(moment),
    )


_BIDI_CONTROLS = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)])


def shown_text(text: str) -> str:
    """What people wrote, without the characters that turn the rest of the page around."""
    return text.translate(_BIDI_CONTROLS)


def ago(moment: datetime) -> str:
    """Such as "4 minutes ago"."""
    if (timezone.now() - moment).total_seconds() < 60:
        return _("just now")
    return _("%(time)s ago") % {"time": timesince(moment, depth=1)}


def shown_number(number: str) -> SafeString:
    """A phone number, left to right also on a page that runs from right to left."""
    return format_html('<bdi dir="ltr">{}</bdi>', number or _("no number"))
