"""Starts an update from an admin page, and shows its result there as messages."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from django.contrib import messages
from django.contrib.admin import AdminSite
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.middleware.csrf import get_token
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from .. import dispatching, updates
from ..conf import get_settings
from ..models import BulkUpdate, BulkUpdateItem
from .kept import undoing_orders
from .sight import Sight, sight_of
from .wording import counts_words, outcome, status_words

Status = BulkUpdate.Status
FILTERS = "_changelist_filters"
"""The parameter in which Django's admin keeps the filters of the list, the search among them."""
LONGEST_FILTERS = 3000
"""Characters. A list of numbers grows when it is quoted in the address of another page, and
gunicorn refuses a request line of more than 4,094: the page then returns to the whole list."""
OPENED_AT = "at"
"""The parameter that keeps a conversation's place in the list: its last activity when it was
opened. A copy from Bland may bring a newer one, which moves it to the beginning of the list."""
AWAITED = "bland_sms_awaited"
"""Session key: updates whose starter has not seen the result yet."""
MOST_AWAITED = 20


def update_url(site: AdminSite, name: str, bulk_update_id: int, *, back: str = "") -> str:
    """Address of a page of one update, with the filters of the list to return to.

    ``""`` on an admin site of the host's that has no updates registered.
    """
    opts = BulkUpdate._meta
    try:
        url = reverse(
            f"admin:{opts.app_label}_{opts.model_name}_{name}",
            args=[bulk_update_id],
            current_app=site.name,
        )
    except NoReverseMatch:
        return ""
    _path, _question, query = back.partition("?")
    asked = QueryDict(query)  # of the list itself, or of a conversation's page
    filters = asked.get(FILTERS, "" if OPENED_AT in asked else query)
    kept = kept_filters(urlencode({FILTERS: filters}) if filters else "")
    return f"{url}?{kept}" if kept else url


def kept_filters(quoted: str) -> str:
    """A query string that carries the filters of the list along, unless it is too long."""
    return quoted if len(quoted) <= LONGEST_FILTERS else ""


def update_link(
    site: AdminSite, bulk_update_id: int, text: str = "", *, is_seen: bool = True
) -> SafeString:
    """A link to one update; plain text on a site without updates, and for who may not open it."""
    url = update_url(site, "change", bulk_update_id) if is_seen else ""
    text = text or _("Update %d") % bulk_update_id
    return format_html('<a href="{}">{}</a>', url, text) if url else format_html("{}", text)


def seen_updates(
    request: HttpRequest, site: AdminSite, numbers: Iterable[int | None]
) -> set[int | None]:
    """Which of these updates this person may open."""
    wanted = set(numbers) - {None}
    ledger = site._registry.get(BulkUpdate)
    if ledger is None or not wanted or not ledger.has_view_permission(request):
        return set()
    return set(ledger.get_queryset(request).filter(pk__in=wanted).values_list("pk", flat=True))


def begin(
    request: HttpRequest, site: AdminSite, draft: BulkUpdate, sight: Sight, *, back: str
) -> HttpResponse:
    """Ask for confirmation, or start at once, as ``CONFIRM_OVER`` says.

    What a standing order deactivates again is never reactivated without the warning.

    Args:
        sight: What the outcome may tell this person.
        back: The page to return to when all of it is done within the request.
    """
    is_small = draft.items.count() <= get_settings().confirm_over
    confirm = update_url(site, "confirm", draft.pk, back=back)
    if is_small and not (confirm and undoing_orders(draft)):
        return launch(request, site, draft, sight, back=back)
    if confirm:
        return HttpResponseRedirect(confirm)
    updates.cancel(draft)
    text = _("This site has no page to confirm so many. Select fewer.")
    messages.error(request, text)
    return HttpResponseRedirect(back)


def launch(
    request: HttpRequest, site: AdminSite, draft: BulkUpdate, sight: Sight, *, back: str
) -> HttpResponse:
    """Start a draft, carry out what fits into the request, and tell the outcome."""
    updates.start(draft)
    is_small = draft.items.count() <= get_settings().inline_limit
    told = partial(_tell_outcome, request, site, sight, back)
    dispatching.carry_out(draft, told if is_small else partial(remember, request))
    page = "" if is_small else update_url(site, "change", draft.pk)
    return HttpResponseRedirect(page or back)


def _tell_outcome(
    request: HttpRequest, site: AdminSite, sight: Sight, back: str, bulk_update: BulkUpdate
) -> None:
    remember(request, bulk_update)
    link = update_link(site, bulk_update.pk)
    undo = _undo_button(request, site, bulk_update, back)
    for level, text in outcome(bulk_update, sight):
        messages.add_message(request, level, format_html("{} {} {}", text, link, undo))
        link = undo = SafeString("")  # once is enough


def _undo_button(
    request: HttpRequest, site: AdminSite, bulk_update: BulkUpdate, back: str
) -> SafeString:
    """Undo as a form in the message: one click, without a script; ``""`` where there is none.

    Args:
        back: The page to return to.
    """
    opposite = BulkUpdate(is_active=not bulk_update.is_active)
    url = update_url(site, "undo", bulk_update.pk)
    changed = bulk_update.known_counts()[BulkUpdateItem.State.CHANGED]
    may = bulk_update.status in Status.AT_REST and request.user.has_perm(opposite.permission)
    if not (url and changed and may):
        return SafeString("")
    return format_html(
        '<form method="post" action="{}" class="bland-sms-inline">'
        '<input type="hidden" name="csrfmiddlewaretoken" value="{}">'
        '<input type="hidden" name="back" value="{}">'
        '<button type="submit" class="bland-sms-button">{}</button></form>',
        *(url, get_token(request), back, _("Undo")),
    )


# --- updates whose result the starter has not seen yet --------------------------------------


def remember(request: HttpRequest, bulk_update: BulkUpdate) -> None:
    """Tell its starter when it is over, on whichever of our pages they are then."""
    if bulk_update.status in Status.OPEN:
        awaited = request.session.get(AWAITED, [])
        request.session[AWAITED] = [*awaited[-MOST_AWAITED:], bulk_update.pk]


def forget(request: HttpRequest, bulk_update_id: int) -> None:
    """Its result is on the screen: nothing is left to tell."""
    awaited = request.session.get(AWAITED, [])
    if bulk_update_id in awaited:
        request.session[AWAITED] = [pk for pk in awaited if pk != bulk_update_id]


def tell_finished(request: HttpRequest, site: AdminSite) -> None:
    """One message for each update of this session that is over by now."""
    awaited = getattr(request, "session", {}).get(AWAITED)
    if not awaited:
        return
    known = BulkUpdate.objects.filter(pk__in=awaited)
    running = known.filter(status__in=Status.OPEN)
    still = set(running.values_list("pk", flat=True))
    request.session[AWAITED] = [pk for pk in awaited if pk in still]
    sight = sight_of(request, site)
    for bulk_update in known.exclude(pk__in=still):
        colour, state = status_words(bulk_update)
        text = _("%(update)s %(state)s: %(counts)s.") % {
            "update": _("Update %d") % bulk_update.pk,
            "state": state.lower(),
            "counts": counts_words(sight.counts(bulk_update), separator=", "),
        }
        link = update_link(site, bulk_update.pk, _("Show"))
        level = messages.SUCCESS if colour == Status.FINISHED else messages.WARNING
        messages.add_message(request, level, format_html("{} {}", text, link))
