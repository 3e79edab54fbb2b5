"""What all our admin pages share: nothing here is added, edited or deleted by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.contrib.admin.views.main import ChangeList
from django.contrib.admin.widgets import url_params_from_lookup_dict
from django.core.exceptions import BadRequest, PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import Model, QuerySet
from django.db.models.constants import LOOKUP_SEP
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..conf import get_settings
from ..models import BulkUpdate, SyncRun
from ..people import note_impersonator
from ..quantities import number_words
from ..reasons import history_words, update_in_history
from ..sync import last_attempt, last_copied_at
from .formatting import Unlogged, shown_time
from .large_forms import tells_when_too_large
from .launching import kept_filters, tell_finished
from .posted_search import PostedSearchView, searched
from .sight import may_read_words
from .status_line import line_context
from .wording import COUNT_CAP

AnyModel = TypeVar("AnyModel", bound=Model)
Options = list[Any] | tuple[Any, ...]
"""Of an admin class. Without it a subclass could only have as many columns as ours."""

if TYPE_CHECKING:
    from django.contrib.admin.models import LogEntry

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


FIRST_GROUPED = 1000
"""The first number whose digits are grouped."""
ROW_NAME = "bland_sms_row_name"
"""Attribute of a row of a list: what its box to tick is called."""
TEMPLATES = ("change_list_template", "change_form_template")


class ActionForm(helpers.ActionForm):
    """unfold shows its button Run when Alpine knows of an action: this tells it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["action"].widget.attrs["x-model"] = "action"


class MirroredAdmin(ModelAdmin[AnyModel]):
    """A read-only page over rows that only this app's own modules write."""

    list_per_page = 50
    list_max_show_all = 0
    """No link "Show all": a list is read page by page, and as a whole as CSV."""
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = CappedPaginator

    class Media:
        css = {"all": ["bland_sms/admin.css"]}
        js = ["bland_sms/page.js"]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Keep our templates whatever mixin a host lists before our class.

        guardian's, import-export's and reversion's have templates of their own, in which nothing
        of ours stands. A template that the host's own class names counts.
        """
        super().__init_subclass__(**kwargs)
        ours = [one for one in cls.__mro__ if issubclass(one, MirroredAdmin)]
        for name in TEMPLATES:
            found = [vars(one)[name] for one in ours if name in vars(one)]
            if found and getattr(cls, name) != found[0]:
                setattr(cls, name, found[0])

    def __init__(self, model: type[AnyModel], admin_site: admin.AdminSite) -> None:
        super().__init__(model, admin_site)
        if self.action_form is helpers.ActionForm:  # else the host, or its theme, has its own
            self.action_form = ActionForm  # type: ignore[misc]

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
        own = {getattr(one, "parameter_name", None) for one in self.get_list_filter(request)}
        if "\0" in str(value) and lookup not in own:
            return False  # PostgreSQL raises an error for it
        if not super().lookup_allowed(lookup, value, request):
            return False
        fields = self.opts.get_fields()
        columns = {field.name for field in fields} | {getattr(one, "attname", "") for one in fields}
        if name not in columns | {"pk"}:
            return True  # the name of a filter, or an unknown one
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

    def get_preserved_filters(self, request: HttpRequest) -> str:
        return kept_filters(super().get_preserved_filters(request))

    def get_urls(self) -> list[URLPattern]:
        view = PostedSearchView.as_view(admin=self)
        [search] = self.own_urls({"search": ("search/", view)})
        return [tells_when_too_large(search), *super().get_urls()]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[AnyModel], search_term: str
    ) -> tuple[QuerySet[AnyModel], bool]:
        return super().get_search_results(request, queryset, searched(request, search_term))

    def own_urls(
        self, pages: Mapping[str, tuple[str, Callable[..., HttpResponseBase]]]
    ) -> list[URLPattern]:
        """Addresses of our own; none of them in a transaction, since some ask Bland.

        Args:
            pages: By the last part of the URL's name: the address, and the view.
        """
        return [
            path(
                address,
                transaction.non_atomic_requests(self.admin_site.admin_view(_knowing_who(view))),
                name=f"{self.opts.app_label}_{self.opts.model_name}_{name}",
            )
            for name, (address, view) in pages.items()
        ]

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        """A list that works its filters and its search out once: for an action Django asks again.

        Not a class of ours, since that of the list may be the host's, or its theme's.
        """
        changelist = super().get_changelist_instance(request)
        work_out = changelist.get_queryset

        def get_queryset(request: HttpRequest, exclude_parameters: Any = None) -> Any:
            if exclude_parameters is None:
                return changelist.queryset.all()
            return work_out(request, exclude_parameters)  # for the numbers beside a filter

        changelist.get_queryset = get_queryset  # type: ignore[method-assign]
        return changelist

    def list_context(self, request: HttpRequest) -> dict[str, Any]:
        """What a list shows beside its rows; an action is answered without it."""
        return {
            **line_context(request, self.admin_site),
            "bland_sms_search_url": self._own_url("search"),
        }

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        note_impersonator(request)
        for value in request.POST.getlist(helpers.ACTION_CHECKBOX_NAME):
            self._check_key(value)
        # Django says "Select sync run to view", which no list of ours is for.
        context = {"title": capfirst(self.opts.verbose_name_plural), **(extra_context or {})}
        response = super().changelist_view(request, context)
        if isinstance(response, TemplateResponse) and response.context_data is not None:
            tell_finished(request, self.admin_site)
            response.context_data = {**self.list_context(request), **response.context_data}
            changelist = response.context_data.get("cl")
            if changelist is not None:
                _word_counts(changelist)
                self._name_rows(changelist.result_list)
                changelist.query = searched(request, changelist.query)
        return response

    def response_action(
        self, request: HttpRequest, queryset: QuerySet[AnyModel], *args: Any, **kwargs: Any
    ) -> HttpResponse | None:
        """Say how many of the selected rows the list no longer has: it was an old page.

        Django leaves them out without a word, and calls it no selection if none is left.
        """
        chosen = set(request.POST.getlist(helpers.ACTION_CHECKBOX_NAME))
        if not chosen or request.POST.get("select_across") == "1":
            return super().response_action(request, queryset, *args, **kwargs)
        left = queryset.filter(pk__in=chosen).count()
        gone = len(chosen) - left
        if gone:
            words = ngettext(
                "%(gone)s of %(chosen)s selected is not in this list any more, and was left alone: "
                "the list has changed since you opened it.",
                "%(gone)s of %(chosen)s selected are not in this list any more, and were left "
                "alone: the list has changed since you opened it.",
                gone,
            )
            numbers = {"gone": number_words(gone), "chosen": number_words(len(chosen))}
            self.message_user(request, words % numbers, messages.WARNING)
        if not left:
            return HttpResponseRedirect(request.get_full_path())
        return super().response_action(request, queryset, *args, **kwargs)

    def row_name(self, row: AnyModel) -> str:
        """What a row is called where only its box to tick is heard."""
        return str(row)

    def _name_rows(self, rows: Iterable[AnyModel]) -> None:
        """Call no two rows of a page the same."""
        seen: Counter[str] = Counter()
        for row in rows:
            name = self.row_name(row)
            seen[name] += 1
            setattr(row, ROW_NAME, name if seen[name] == 1 else f"{name} ({seen[name]})")

    def action_checkbox(self, obj: AnyModel) -> SafeString:
        html = super().action_checkbox(obj)
        # The name is what stands last in it: where that is an id, the box's value is the same.
        before, _name, after = html.rpartition(escape(str(obj)))
        name = escape(getattr(obj, ROW_NAME, str(obj)))
        return mark_safe(f"{before}{name}{after}")  # noqa: S308  all of it is escaped

    def _own_url(self, name: str) -> str:
        return reverse(
            f"admin:{self.opts.app_label}_{self.opts.model_name}_{name}",
            current_app=self.admin_site.name,
        )

    def _check_key(self, value: str) -> None:
        """A key that no row can have is answered with 400; Django would look it up, and fail."""
        try:
            self.opts.pk.to_python(value)
        except ValidationError:
            raise BadRequest("not a key") from None
        if "\0" in value:
            raise BadRequest("not a key")

    def page_context(self, request: HttpRequest, row: AnyModel) -> dict[str, Any]:
        """What the page of a row shows beside its fields, for a reader who may see the row."""
        return {}

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        response = super().change_view(request, object_id, form_url, extra_context)
        if isinstance(response, TemplateResponse) and response.context_data is not None:
            row = response.context_data["original"]
            context = self.page_context(request, row)  # first: what it shows is not told as well
            tell_finished(request, self.admin_site)
            shown = row.pk if self.model is BulkUpdate else None
            line = line_context(request, self.admin_site, shown=shown)
            response.context_data |= {**line, **context, **(extra_context or {})}
        return response

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The History, in which our own entries are worded in the reader's language."""
        if not self.has_view_permission(request):
            raise PermissionDenied  # before Django's look, which tells whether there is such a row
        context = {**line_context(request, self.admin_site), **(extra_context or {})}
        response = super().history_view(request, object_id, context)
        if isinstance(response, TemplateResponse) and response.context_data is not None:
            add_reasons(response.context_data["action_list"])
        return response


def _word_counts(changelist: Any) -> None:
    """Let the templates of any theme print the number of rows as we do: 3,200, or 10,000+."""
    if changelist.result_count >= FIRST_GROUPED:
        is_capped = getattr(changelist.paginator, "is_capped", False)
        changelist.result_count = number_words(changelist.result_count, is_capped=is_capped)
    # Otherwise the search form repeats it, with a link "Show all" that shows a page.
    changelist.full_result_count = changelist.result_count


def _knowing_who(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    @wraps(view)
    def knowing(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        note_impersonator(request)
        return view(request, *args, **kwargs)

    return knowing


def add_reasons(entries: Iterable[LogEntry]) -> None:
    """Word entries of the History, with the reasons of the updates that they name.

    The reason stands with the update alone, where an erasure finds what it says of a person.
    """
    numbers = {entry.pk: update_in_history(entry.change_message) for entry in entries}
    updates = BulkUpdate.objects.filter(pk__in=set(filter(None, numbers.values())))
    reasons = dict(updates.exclude(reason="").values_list("pk", "reason"))
    for entry in entries:
        entry.change_message = history_words(entry.change_message)
        reason = reasons.get(numbers[entry.pk] or 0)
        if reason:
            entry.change_message += " " + _("Reason: %s") % reason


def freshness_context(request: HttpRequest) -> dict[str, Any]:
    """When the list was copied as a whole, and what came of the last attempt if that failed."""
    copied_at, attempt = last_copied_at(), last_attempt()
    oldest_fresh = timezone.now() - timedelta(seconds=get_settings().stale_after)
    has_failed = attempt is not None and attempt.status != SyncRun.Status.FINISHED
    context: dict[str, Any] = {
        "bland_sms_copied_at": None if copied_at is None else shown_time(copied_at),
        "bland_sms_is_stale": copied_at is None or copied_at < oldest_fresh,
    }
    if attempt is not None and has_failed:
        context["bland_sms_failed_at"] = shown_time(attempt.finished_at or attempt.started_at)
        context["bland_sms_failure"] = Unlogged(
            attempt.failure.told(may_read_words(request)).advice
        )
    return context
