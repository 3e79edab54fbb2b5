"""From a draft to its result: confirm, run, cancel, retry, undo. Each checks its permission."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    JsonResponse,
)
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_POST, require_safe

from .. import updates
from ..conf import get_settings
from ..models import BulkUpdate, BulkUpdateItem, Conversation
from ..sentences import translated
from ..transactions import after_commit
from .confirmation import TICK_OVER, ConfirmForm, duration_words, preview
from .mirrored import ModelAdmin, freshness_context
from .spreadsheet import csv_response
from .wording import counts_words, number_words, outcome, verb_words

State = BulkUpdateItem.State
Status = BulkUpdate.Status
SLICE_SECONDS = 5.0
"""How long one request of the update page drives it: far below any proxy's patience."""
AWAITED = "bland_sms_awaited"
"""Session key: updates whose starter has not read the result yet."""
CSV_HEADER = (
    "conversation",
    "customer",
    "state",
    "http_status",
    "code",
    "words",
    "attempts",
    "finished_at",
)


class UpdateFlow(ModelAdmin[BulkUpdate]):
    """The views of :class:`~bland_sms.admin.BulkUpdateAdmin` that change something."""

    confirm_template = "admin/bland_sms/bulkupdate/confirm.html"

    def flow_urls(self) -> list[URLPattern]:
        """Our own addresses; none of them in a transaction, since some speak to Bland."""
        views: dict[str, tuple[str, Callable[..., HttpResponseBase]]] = {
            "confirm": ("confirm/", self.confirm_view),
            "run": ("run/", require_POST(self.run_view)),
            "cancel": ("cancel/", require_POST(self.cancel_view)),
            "retry": ("retry/", require_POST(self.retry_view)),
            "undo": ("undo/", require_POST(self.undo_view)),
            "progress": ("progress/", require_safe(self.progress_view)),
            "results": ("results.csv", require_safe(self.results_view)),
        }
        return [
            path(
                f"<path:object_id>/{address}",
                transaction.non_atomic_requests(self.admin_site.admin_view(view)),
                name=f"{self.opts.app_label}_{self.opts.model_name}_{name}",
            )
            for name, (address, view) in views.items()
        ]

    # --- who may ------------------------------------------------------------------------------

    def has_verb_permission(self, request: HttpRequest, is_active: bool) -> bool:
        """Whether the user may ask Bland for this value at all."""
        return request.user.has_perm(BulkUpdate(is_active=is_active).permission)

    def _visible(self, request: HttpRequest, object_id: str) -> BulkUpdate:
        bulk_update = self.get_object(request, unquote(object_id))
        if bulk_update is None or not self.has_view_permission(request, bulk_update):
            raise Http404
        return bulk_update

    def _steerable(self, request: HttpRequest, object_id: str) -> BulkUpdate:
        """An update that this user may continue, retry and cancel."""
        bulk_update = self._visible(request, object_id)
        if not self.has_verb_permission(request, bulk_update.is_active):
            raise PermissionDenied
        return bulk_update

    # --- confirm ------------------------------------------------------------------------------

    def begin(self, request: HttpRequest, draft: BulkUpdate, *, back: str) -> HttpResponse:
        """Ask first, or start at once, as ``CONFIRM_OVER`` says.

        Args:
            back: Where to go when all of it is done within the request.
        """
        if draft.items.count() > get_settings().confirm_over:
            confirm = self.url_of("confirm", draft.pk, back=back)
            if confirm:
                return HttpResponseRedirect(confirm)
            updates.cancel(draft)
            text = _("This site has no page to confirm so many. Select fewer.")
            self.message_user(request, text, messages.ERROR)
            return HttpResponseRedirect(back)
        return self.launch(request, draft, back=back)

    def launch(self, request: HttpRequest, draft: BulkUpdate, *, back: str) -> HttpResponse:
        """Start a draft, carry out what fits into the request, tell the outcome."""
        updates.start(draft)
        settings = get_settings()
        is_small = draft.items.count() <= settings.inline_limit
        updates.carry_out(draft, partial(self._tell, request, is_small=is_small))
        page = "" if is_small else self.url_of("change", draft.pk)
        return HttpResponseRedirect(page or back)

    def confirm_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """What would happen, and the button that makes it happen."""
        back = self._back(request)
        own = BulkUpdate.objects.filter(requested_by=request.user.pk)
        is_number = object_id.isdecimal() and len(object_id) < 19
        draft = own.filter(pk=object_id).first() if is_number else None
        if draft is None:
            raise Http404
        if not self.has_verb_permission(request, draft.is_active):
            raise PermissionDenied
        if draft.status != Status.DRAFT:  # sent twice, or the browser's back button
            return HttpResponseRedirect(self.url_of("change", draft.pk))
        if draft.created_at < timezone.now() - updates.DRAFT_LIFE:
            updates.expire_drafts()
            text = _("This selection was not confirmed within an hour. Please select again.")
            self.message_user(request, text, messages.WARNING)
            return HttpResponseRedirect(back)
        shown = preview(draft)
        tick = ""
        if shown.total > TICK_OVER:
            words = ngettext("Yes, %s conversation", "Yes, %s conversations", shown.total)
            tick = words % number_words(shown.total)
        form = ConfirmForm(request.POST if request.method == "POST" else None, tick=tick)
        if request.method == "POST" and shown.to_change and form.is_valid():
            reason = form.cleaned_data["reason"]
            if reason:
                BulkUpdate.objects.filter(pk=draft.pk, status=Status.DRAFT).update(reason=reason)
            return self.launch(request, draft, back=self.url_of("change", draft.pk))
        context = {
            **self.admin_site.each_context(request),
            **freshness_context(),
            "opts": self.opts,
            "media": self.media + form.media,
            "title": verb_words(draft.is_active, shown.total),
            "draft": draft,
            "preview": shown,
            "duration": duration_words(shown.seconds),
            "form": form,
            "back": back,
            "app_label": self.opts.app_label,
            "conversation_opts": Conversation._meta,
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, self.confirm_template, context)

    def _back(self, request: HttpRequest) -> str:
        """The filtered list that the selection came from; nothing but our own list."""
        url = reverse(
            f"admin:{self.opts.app_label}_conversation_changelist", current_app=self.admin_site.name
        )
        filters = request.GET.get("_changelist_filters", "")
        return f"{url}?{filters}" if filters else url

    # --- run, cancel, retry, undo -------------------------------------------------------------

    def run_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Drive it for a few seconds; a stopped one is continued."""
        bulk_update = self._steerable(request, object_id)
        if bulk_update.status == Status.STOPPED and updates.proceed(bulk_update, request.user):
            updates.hand_over(bulk_update)
        seconds = min(SLICE_SECONDS, get_settings().inline_seconds)
        if bulk_update.dispatched_at is None or "here" in request.POST:

            def drive() -> None:
                updates.run(bulk_update, seconds=seconds)

            after_commit(drive)
        if request.headers.get("Accept") == "application/json":
            return self.progress_view(request, object_id)
        return HttpResponseRedirect(self.url_of("change", bulk_update.pk))

    def cancel_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask no more of it."""
        bulk_update = self._steerable(request, object_id)
        if not updates.cancel(bulk_update, request.user):
            text = _("Nothing was left to cancel.")
            self.message_user(request, text, messages.INFO)
        return HttpResponseRedirect(self.url_of("change", bulk_update.pk))

    def retry_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask again for the failed and the unknown ones."""
        bulk_update = self._steerable(request, object_id)
        if updates.retry(bulk_update, request.user):
            updates.carry_out(bulk_update, partial(self._await, request))
        else:
            self.message_user(request, _("Nothing was left to retry."), messages.INFO)
        return HttpResponseRedirect(self.url_of("change", bulk_update.pk))

    def undo_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for the opposite, for what this update changed and nobody changed since."""
        bulk_update = self._visible(request, object_id)
        if not self.has_verb_permission(request, not bulk_update.is_active):
            raise PermissionDenied
        here = self.url_of("change", bulk_update.pk)
        at_rest = (Status.FINISHED, Status.CANCELLED)
        try:
            if bulk_update.status not in at_rest:
                raise updates.EmptySelectionError
            draft = updates.undo(bulk_update, request.user, source=BulkUpdate.Source.ADMIN)
        except updates.SelectionError:
            self.message_user(request, _("Nothing is left to undo."), messages.INFO)
            return HttpResponseRedirect(here)
        return self.begin(request, draft, back=self.url_of("change", draft.pk))

    # --- reading ------------------------------------------------------------------------------

    def progress_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """How far it is, as JSON."""
        bulk_update = self._visible(request, object_id)
        progress = self.progress_of(request, bulk_update, bulk_update.known_counts())
        return JsonResponse(progress, headers={"Cache-Control": "no-store"})

    def progress_of(
        self, request: HttpRequest, bulk_update: BulkUpdate, counts: dict[str, int]
    ) -> dict[str, Any]:
        """Counts, words, and whether the page that asks should drive it."""
        total = sum(counts.values())
        left = counts[State.WAITING] + counts[State.RUNNING]
        is_open = bulk_update.status in (Status.QUEUED, Status.RUNNING)
        is_ours = is_open and bulk_update.dispatched_at is None
        words = counts_words(counts)
        if is_open and left and total > left and bulk_update.started_at is not None:
            elapsed = (timezone.now() - bulk_update.started_at).total_seconds()
            rest = _("%s left") % duration_words(elapsed * left / (total - left))
            words = f"{words} · {rest}"
        return {
            "status": bulk_update.status,
            "total": total,
            "counts": counts,
            "finished": left == 0,
            "done": total - left,
            "open": is_open,
            "words": words,
            "drive": is_ours and self.has_verb_permission(request, bulk_update.is_active),
            "wait_seconds": _wait_seconds(bulk_update) if is_open else 0,
        }

    def results_view(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """Every item with its outcome, as CSV."""
        bulk_update = self._visible(request, object_id)
        return csv_response(f"update-{bulk_update.pk}.csv", CSV_HEADER, _results(bulk_update))

    # --- telling ------------------------------------------------------------------------------

    def _tell(self, request: HttpRequest, bulk_update: BulkUpdate, *, is_small: bool) -> None:
        self._await(request, bulk_update)
        if not is_small:
            return  # its page tells
        link = self.link_to(bulk_update.pk)
        for level, text in outcome(bulk_update):
            self.message_user(request, format_html("{} {}", text, link), level)
            link = SafeString("")  # once is enough

    def _await(self, request: HttpRequest, bulk_update: BulkUpdate) -> None:
        """Remember to tell its starter when it is over, wherever in the admin they are then."""
        if bulk_update.status in (Status.QUEUED, Status.RUNNING):
            awaited = request.session.get(AWAITED, [])
            request.session[AWAITED] = [*awaited[-20:], bulk_update.pk]

    def forget_awaited(self, request: HttpRequest, bulk_update_id: int) -> None:
        """Its result is on the screen: nothing is left to tell."""
        awaited = request.session.get(AWAITED, [])
        if bulk_update_id in awaited:
            request.session[AWAITED] = [pk for pk in awaited if pk != bulk_update_id]

    def tell_awaited(self, request: HttpRequest) -> None:
        """One message for each update of this session that is over by now."""
        awaited = getattr(request, "session", {}).get(AWAITED)
        if not awaited:
            return
        known = BulkUpdate.objects.filter(pk__in=awaited)
        running = known.filter(status__in=(Status.QUEUED, Status.RUNNING))
        still = set(running.values_list("pk", flat=True))
        request.session[AWAITED] = [pk for pk in awaited if pk in still]
        for bulk_update in known.exclude(pk__in=still):
            text = _("%(update)s %(state)s: %(counts)s.") % {
                "update": _("Update %d") % bulk_update.pk,
                "state": bulk_update.get_status_display().lower(),
                "counts": counts_words(bulk_update.counts_at_rest or {}, separator=", "),
            }
            link = self.link_to(bulk_update.pk, _("Show"))
            level = messages.SUCCESS if bulk_update.status == Status.FINISHED else messages.WARNING
            self.message_user(request, format_html("{} {}", text, link), level)

    def link_to(self, bulk_update_id: int, text: str = "") -> SafeString:
        url, text = self.url_of("change", bulk_update_id), text or _("Update %d") % bulk_update_id
        return format_html('<a href="{}">{}</a>', url, text) if url else format_html("{}", text)

    def url_of(self, name: str, bulk_update_id: int, *, back: str = "") -> str:
        """Address of one of our views, with the list's filters to return to.

        ``""`` on a site of the host's that shows conversations and no updates.
        """
        try:
            url = reverse(
                f"admin:{self.opts.app_label}_{self.opts.model_name}_{name}",
                args=[bulk_update_id],
                current_app=self.admin_site.name,
            )
        except NoReverseMatch:
            return ""
        _path, _question, filters = back.partition("?")
        if not filters:
            return url
        return f"{url}?{urlencode({'_changelist_filters': filters})}"


def _wait_seconds(bulk_update: BulkUpdate) -> float:
    """How long there is nothing to do: all that is open has its time."""
    waiting = bulk_update.items.filter(state=State.WAITING)
    if waiting.filter(not_before__isnull=True).exists():
        return 0
    first = waiting.order_by("not_before").values_list("not_before", flat=True).first()
    if first is None:
        return 0
    return max(0.0, (first - timezone.now()).total_seconds())


def _results(bulk_update: BulkUpdate) -> Iterator[tuple[Any, ...]]:
    items = bulk_update.items.order_by("pk").iterator(chunk_size=1000)
    chunk: list[BulkUpdateItem] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == 1000:
            yield from _rows_of(chunk)
            chunk = []
    yield from _rows_of(chunk)


def _rows_of(items: list[BulkUpdateItem]) -> Iterator[tuple[Any, ...]]:
    ids = [item.conversation_id for item in items]
    numbers = dict(Conversation.objects.filter(pk__in=ids).values_list("pk", "user_number"))
    for item in items:
        yield (
            item.conversation_id,
            numbers.get(item.conversation_id, ""),
            item.state,
            item.http_status,
            item.error_code,
            translated(item.message),
            item.attempts,
            item.finished_at,
        )
