"""The pages of one update that change something: one view for each verb."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme, urlencode
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import dispatching, selections, updates
from ..conf import get_settings
from ..database import after_commit
from ..models import BulkUpdate, BulkUpdateItem, Conversation, PastedLine
from ..quantities import number_words
from ..updates.transitions import note
from .base import freshness_context
from .confirmation import (
    TICK_OVER,
    ConfirmForm,
    Preview,
    duration_words,
    given_reason,
    preview,
)
from .formatting import shown_time
from .item_pages import AFTER, item_page
from .keeping import keep_context, keep_customers
from .kept import undoing_context
from .lately import overlaps
from .launching import FILTERS, begin, launch, remember, update_url
from .pasted_lines import lines_context
from .sight import hidden_items_words
from .status_line import line_context
from .update_base import UpdateView, own_update
from .update_reading import LinesView, PartsView, ProgressView, ResultsView, progress_response
from .wording import verb_words

State = BulkUpdateItem.State
Status = BulkUpdate.Status
SLICE_SECONDS = 5.0
"""How long one request of the update page drives it: far below any proxy's time limit."""
ROWS_SHOWN = 50
"""Of a draft, on each page of its confirmation."""


class ConfirmView(UpdateView):
    """What a draft would do, and the button that starts it. A draft is its owner's alone."""

    http_method_names = ["get", "head", "post"]

    def find(self, object_id: str) -> BulkUpdate:
        return own_update(self.request, object_id)

    def get(self, request: HttpRequest) -> HttpResponse:
        return self.confirm(request)

    def post(self, request: HttpRequest) -> HttpResponse:
        return self.confirm(request)

    def confirm(self, request: HttpRequest) -> HttpResponse:
        draft = self.bulk_update
        if draft.status != Status.DRAFT:  # sent twice, or the browser's back button
            return self.back_to_page()
        if draft.created_at < timezone.now() - updates.DRAFT_LIFE:
            updates.expire_drafts()
            text = _("This selection was not confirmed within an hour. Please select again.")
            messages.warning(request, text)
            return HttpResponseRedirect(self.list_url())
        shown = preview(draft, self.sight)
        is_to_be_kept = selections.is_to_be_kept(draft.selection)
        form = ConfirmForm(
            request.POST if request.method == "POST" else None,
            initial={"reason": draft.reason},
            tick=self.tick_words(shown.total),
            needs_reason=is_to_be_kept,
        )
        others = overlaps(draft)
        # What is so already, and another update is about to change, is kept so by this one.
        changes = shown.to_change > 0 or any(other.is_opposite for other in others)
        if request.method == "POST" and (changes or is_to_be_kept) and form.is_valid():
            reason = form.cleaned_data["reason"]
            if is_to_be_kept:
                keep_customers(draft, reason, request, self.sight)
            return self.launch(reason) if changes else self.leave()
        request.current_app = self.admin.admin_site.name
        return TemplateResponse(
            request,
            self.admin.confirm_template,
            {
                **self.get_context_data(shown, form),
                "overlaps": others,
                "has_work": changes or is_to_be_kept,
            },
        )

    def launch(self, reason: str) -> HttpResponse:
        draft = self.bulk_update
        updates.leave_out_hidden(draft, self.sight.conversations)
        if reason != draft.reason:
            BulkUpdate.objects.filter(pk=draft.pk, status=Status.DRAFT).update(reason=reason)
        site, back = self.admin.admin_site, self.url_of("change")
        return launch(self.request, site, draft, self.sight, back=back)

    def leave(self) -> HttpResponse:
        """Nothing is to be asked of Bland: there were orders to be made, and no more."""
        updates.cancel(self.bulk_update)
        return HttpResponseRedirect(self.list_url())

    def tick_words(self, total: int) -> str:
        """The words beside the tick box, or ``""`` where none is needed."""
        if total <= TICK_OVER:
            return ""
        words = ngettext("Yes, %s conversation", "Yes, %s conversations", total)
        return words % number_words(total)

    def list_url(self) -> str:
        """The filtered list that the selection came from; nothing but our own list."""
        url = reverse(
            f"admin:{self.admin.opts.app_label}_conversation_changelist",
            current_app=self.admin.admin_site.name,
        )
        filters = self.request.GET.get("_changelist_filters", "")
        return f"{url}?{filters}" if filters else url

    def get_context_data(self, shown: Preview, form: ConfirmForm) -> dict[str, Any]:
        draft = self.bulk_update
        sight = self.sight
        page = item_page(
            draft,
            {**dict.fromkeys(State.values, 0), State.WAITING: shown.total},
            sight,
            after=self.request.GET.get(AFTER, ""),
            size=ROWS_SHOWN,
        )
        ids = [item.conversation_id for item in page.items]
        known = Conversation.objects.in_bulk(ids)
        filters = self.request.GET.get(FILTERS, "")
        kept = urlencode({FILTERS: filters}) if filters else ""
        return {
            **self.admin.admin_site.each_context(self.request),
            **freshness_context(self.request),
            **line_context(self.request, self.admin.admin_site),
            "opts": self.admin.opts,
            "media": self.admin.media + form.media,
            "title": verb_words(draft.is_active, shown.total),
            "draft": draft,
            "selection": selections.selection_words(draft.selection),
            "preview": shown,
            "hidden": hidden_items_words(shown.hidden),
            "page": page,
            "rows": [
                (known[pk], shown_time(known[pk].last_activity_at)) for pk in ids if pk in known
            ],
            "kept": f"&{kept}" if kept else "",
            "first_url": f"?{kept}",
            "duration": duration_words(shown.seconds),
            "form": form,
            "back": self.list_url(),
            "app_label": self.admin.opts.app_label,
            "conversation_opts": Conversation._meta,
            "bland_sms_may_pick": True,
            **undoing_context(draft, self.admin.admin_site),
            **keep_context(draft, shown.to_change, self.sight),
            **lines_context(draft, self.request, self.sight),
        }


class PickView(ConfirmView):
    """Decide which customers the ambiguous lines of a draft's pasted list mean."""

    http_method_names = ["post"]

    def post(self, request: HttpRequest) -> HttpResponse:
        draft, visible = self.bulk_update, self.sight.conversations
        given = {name: str(value) for name, value in request.POST.items()}
        picked = {name[5:]: value for name, value in given.items() if is_choice(name, value)}
        lines = draft.pasted_lines.filter(state=PastedLine.State.AMBIGUOUS, pk__in=picked)
        try:
            number = sum(
                updates.pick(line, int(picked[str(line.pk)]), visible=visible)
                for line in lines.select_related("bulk_update")
            )
        except updates.SelectionError as error:
            messages.error(request, error.failure.as_sentence)
        else:
            text = ngettext("%s line decided.", "%s lines decided.", number)
            messages.info(request, text % number_words(number))
        query = request.GET.urlencode()
        return HttpResponseRedirect(f"{self.url_of('confirm')}?{query}")


def is_choice(name: str, value: str) -> bool:
    """Whether a field of the form says which candidate of which line was picked."""
    kind, _hyphen, pk = name.partition("-")
    return kind == "line" and all(
        text.isascii() and text.isdecimal() and len(text) < 19 for text in (pk, value)
    )


class RunView(UpdateView):
    """Drive an update for a few seconds; a stopped one is continued."""

    def post(self, request: HttpRequest) -> HttpResponse:
        bulk_update = self.bulk_update
        if not self.sight.may_drive(bulk_update):
            return self.refuse_hidden()
        is_json = request.headers.get("Accept") == "application/json"
        # An open page reloads by itself when the time has come: that is not a press of Continue.
        is_by_itself = is_json and bulk_update.trying_again_at is not None
        is_stopped = bulk_update.status == Status.STOPPED and not is_by_itself
        if is_stopped and updates.proceed(bulk_update, request.user):
            dispatching.hand_over(bulk_update)
        if "here" in request.POST:
            self.take_over()
        if bulk_update.dispatched_at is None:
            seconds = min(SLICE_SECONDS, get_settings().inline_seconds)
            after_commit(partial(self.drive, seconds))
        if is_json:
            return progress_response(self.admin, request, self.find(str(bulk_update.pk)))
        return self.back_to_page()

    def take_over(self) -> None:
        """No worker is waited for any more: from now on the page itself carries it out."""
        awaited = BulkUpdate.objects.filter(pk=self.bulk_update.pk, dispatched_at__isnull=False)
        if awaited.update(dispatched_at=None):
            note(self.bulk_update, self.request.user, "history_continued")
        self.bulk_update.dispatched_at = None

    def refuse_hidden(self) -> HttpResponse:
        if self.request.headers.get("Accept") == "application/json":
            return progress_response(self.admin, self.request, self.bulk_update)
        text = _("This update has conversations that you may not see: you cannot run it.")
        messages.warning(self.request, text)
        return self.back_to_page()

    def drive(self, seconds: float) -> None:
        updates.run(self.bulk_update, seconds=seconds)


class CancelView(UpdateView):
    """Ask no more of an update."""

    def post(self, request: HttpRequest) -> HttpResponse:
        if not updates.cancel(self.bulk_update, request.user, visible=self.sight.conversations):
            messages.info(request, _("Nothing was left to cancel."))
        return self.back_to_page()


class RetryView(UpdateView):
    """Ask again for the failed and the unknown items."""

    def post(self, request: HttpRequest) -> HttpResponse:
        if updates.retry(self.bulk_update, request.user, visible=self.sight.conversations):
            dispatching.carry_out(self.bulk_update, partial(remember, request))
        else:
            messages.info(request, _("Nothing was left to retry."))
        return self.back_to_page()


class UndoView(UpdateView):
    """Ask for the opposite, for what this update changed, except what was changed since."""

    def may(self) -> bool:
        return self.admin.has_verb_permission(self.request, not self.bulk_update.is_active)

    def post(self, request: HttpRequest) -> HttpResponse:
        try:
            if self.bulk_update.status not in Status.AT_REST:
                raise updates.EmptySelectionError
            draft = updates.undo(
                self.bulk_update,
                request.user,
                source=BulkUpdate.Source.ADMIN,
                reason=given_reason(request),
                visible=self.sight.conversations,
            )
        except updates.SelectionError:
            messages.info(request, _("Nothing is left to undo."))
            return self.back_to_page()
        site = self.admin.admin_site
        return begin(request, site, draft, self.sight, back=self.back_of(draft))

    def back_of(self, draft: BulkUpdate) -> str:
        """The page that Undo was pressed on, in a message; else that of the new update."""
        back = self.request.POST.get("back", "")
        is_ours = back.startswith("/") and url_has_allowed_host_and_scheme(back, None)
        return back if is_ours else update_url(self.admin.admin_site, "change", draft.pk)


VIEWS: dict[str, tuple[str, type[UpdateView]]] = {
    "confirm": ("confirm/", ConfirmView),
    "pick": ("pick/", PickView),
    "run": ("run/", RunView),
    "cancel": ("cancel/", CancelView),
    "retry": ("retry/", RetryView),
    "undo": ("undo/", UndoView),
    "progress": ("progress/", ProgressView),
    "parts": ("parts/", PartsView),
    "results": ("results.csv", ResultsView),
    "lines": ("lines.csv", LinesView),
}
"""Name of the URL, address behind the primary key, and view."""
