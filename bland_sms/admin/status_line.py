"""The line on each of our pages: which update runs, is paused or stopped; and no connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib.admin import AdminSite
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import dispatching
from ..client import check_client
from ..exceptions import BlandConfigurationError
from ..models import BulkUpdate, BulkUpdateItem
from ..quantities import number_words
from .formatting import clock
from .launching import update_url
from .sight import sight_of
from .wording import COUNT_CAP

Status = BulkUpdate.Status
MOST = 20
"""Unfinished updates that are counted."""


@dataclass(frozen=True)
class Line:
    """What is told of the update that needs a person most, and how many others there are."""

    text: str
    is_warning: bool
    url: str
    action: str
    """What the link to it says."""
    others: str = ""
    others_url: str = ""


def line_context(
    request: HttpRequest, site: AdminSite, *, shown: int | None = None
) -> dict[str, Any]:
    """For the template ``bland_sms/line.html``; two statements, or one where nothing is unfinished.

    Args:
        shown: The update that the page itself is about; the line is about others.
    """
    return {
        "bland_sms_problem": connection_problem(),
        "bland_sms_line": _line(request, site, shown),
        # Without the stop of "p.m.": it ends the sentence.
        "bland_sms_shown_at": date_format(timezone.localtime(), "TIME_FORMAT").removesuffix("."),
    }


def connection_problem() -> str:
    """Why Bland cannot be asked at all, in words, or ``""``."""
    try:
        check_client()
    except BlandConfigurationError as error:
        return error.failure.advice
    return ""


def _line(request: HttpRequest, site: AdminSite, shown: int | None) -> Line | None:
    model_admin = site._registry.get(BulkUpdate)
    if model_admin is None or not model_admin.has_view_permission(request):
        return None
    unfinished = model_admin.get_queryset(request).filter(status__in=Status.UNFINISHED)
    found = list(unfinished.exclude(pk=shown).order_by("-pk")[: MOST + 1])
    if not found:
        return None
    # Those that wait for a person come first.
    found.sort(key=_rank)
    bulk_update, number = found[0], len(found) - 1
    text, is_warning, needs_page = _words(bulk_update)
    items = bulk_update.items.filter(state__in=BulkUpdateItem.State.OPEN)
    left = sight_of(request, site).items(items).order_by()[: COUNT_CAP + 1].count()
    told = _("%(text)s: %(left)s left.") % {
        "text": text,
        "left": number_words(min(left, COUNT_CAP), is_capped=left > COUNT_CAP),
    }
    may_drive = request.user.has_perm(bulk_update.permission)
    others = ngettext("and %s more", "and %s more", number) % number_words(
        min(number, MOST), is_capped=number > MOST
    )
    return Line(
        text=told,
        is_warning=is_warning,
        url=update_url(site, "change", bulk_update.pk),
        action=_("Continue") if needs_page and may_drive else _("Show"),
        others=others if number else "",
        others_url=_list_url(site),
    )


def _rank(bulk_update: BulkUpdate) -> int:
    if bulk_update.status == Status.STOPPED and bulk_update.trying_again_at is None:
        return 0
    return 1 if dispatching.is_paused(bulk_update) else 2


def _words(bulk_update: BulkUpdate) -> tuple[str, bool, bool]:
    """How it stands, whether that is a warning, and whether it goes on when its page is opened."""
    values = {"number": bulk_update.pk}
    again_at = bulk_update.trying_again_at
    if again_at is not None:
        text = _("Update %(number)d is paused until %(again)s")
        return text % {**values, "again": clock(again_at)}, True, False
    if bulk_update.status == Status.STOPPED:
        return _("Update %(number)d is stopped") % values, True, True
    if dispatching.driver_of(bulk_update) == "worker":
        return _("Update %(number)d is running") % values, False, False
    return _("Update %(number)d is paused") % values, True, True


def _list_url(site: AdminSite) -> str:
    opts = BulkUpdate._meta
    url = reverse(f"admin:{opts.app_label}_{opts.model_name}_changelist", current_app=site.name)
    return f"{url}?outcome=running"
