"""The pages of conversations that ask Bland or stream a file: one view for each verb."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.views.generic import View

from .. import standing, sync
from ..conf import get_settings
from ..database import after_commit
from ..exceptions import BlandError, BlandNotFoundError
from ..models import Conversation
from ..pacing import Allowance
from .admin_view import AdminView
from .csv_export import note_download
from .launching import FILTERS
from .message_search import MessageSearchView
from .sight import may_read_words
from .summary import SummaryView
from .transcript import is_uncopied, transcript_text
from .triage import here, place_of
from .wording import sync_words

if TYPE_CHECKING:
    from .conversations import ConversationAdmin


class SyncView(AdminView):
    """Copy what changed at Bland since the last time."""

    admin: ConversationAdmin
    http_method_names = ["post"]

    def post(self, request: HttpRequest) -> HttpResponse:
        admin = self.admin
        if not admin.has_refresh_permission(request):
            raise PermissionDenied
        after_commit(partial(self.sync_and_tell, request))
        opts = admin.opts
        url = reverse(
            f"admin:{opts.app_label}_{opts.model_name}_changelist",
            current_app=admin.admin_site.name,
        )
        filters = request.GET.get(FILTERS, "")
        return HttpResponseRedirect(f"{url}?{filters}" if filters else url)

    def sync_and_tell(self, request: HttpRequest) -> None:
        run = sync.run(
            trigger="admin", requested_by=request.user, seconds=get_settings().inline_seconds
        )
        standing.carry_out_waiting(seconds=get_settings().inline_seconds)
        text, level = sync_words(run, with_words=may_read_words(request))
        messages.add_message(request, level, text)


class ConversationView(AdminView):
    """A page of one conversation: who may see it is asked first, then ``may``."""

    admin: ConversationAdmin
    http_method_names = ["post"]
    conversation: Conversation

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if str(request.method).lower() not in self.http_method_names:
            return self.http_method_not_allowed(request)
        if not self.admin.has_view_permission(request):
            raise PermissionDenied  # before the look: who may not see it learns nothing
        conversation = self.admin.get_object(request, unquote(kwargs["object_id"]))
        if conversation is None:
            raise Http404
        self.conversation = conversation
        if not self.may():
            raise PermissionDenied
        return super().dispatch(request)

    def may(self) -> bool:
        raise NotImplementedError

    def page_url(self) -> str:
        """Its page, with the list that it was opened from and its place in it."""
        opts = self.admin.opts
        url = reverse(
            f"admin:{opts.app_label}_{opts.model_name}_change",
            args=[quote(self.conversation.pk)],
            current_app=self.admin.admin_site.name,
        )
        return url + here(self.request)


class UpdateStateView(ConversationView):
    """Deactivate or reactivate one conversation."""

    is_active = False

    def may(self) -> bool:
        return self.admin.has_update_permission(self.request, self.is_active)

    def post(self, request: HttpRequest) -> HttpResponse:
        selected = self.admin.get_queryset(request).filter(pk=self.conversation.pk)
        page = self.page_url()
        response = self.admin.update_selected(
            request, selected, is_active=self.is_active, back=page
        )
        if response.headers["Location"] == page:
            self.tell_next()
        return response

    def tell_next(self) -> None:
        """A link to the next one. The page stays: a second click would hit that customer."""
        following = place_of(self.admin, self.request, self.conversation).next
        if following is not None:
            text = format_html(
                '{} <a href="{}"><bdi dir="ltr">{}</bdi></a>',
                _("Next in this list:"),
                following.url,
                following.number,
            )
            messages.info(self.request, text)


class DeactivateCustomerView(ConversationView):
    """Deactivate all active conversations of a conversation's customer."""

    def may(self) -> bool:
        return self.admin.has_deactivate_permission(self.request)

    def post(self, request: HttpRequest) -> HttpResponse:
        selected = self.admin.of_customer(request, self.conversation).filter(is_active=True)
        return self.admin.update_selected(request, selected, is_active=False, back=self.page_url())


class RefreshView(ConversationView):
    """Copy one conversation and its messages from Bland."""

    def may(self) -> bool:
        return self.admin.has_refresh_permission(self.request)

    def post(self, request: HttpRequest) -> HttpResponse:
        after_commit(self.refresh_and_tell)
        return HttpResponseRedirect(self.page_url())

    def refresh_and_tell(self) -> None:
        messages.add_message(self.request, *self.refresh())

    def refresh(self) -> tuple[int, str]:
        """Copy it; the level of the message about it, and its words."""
        allowance = Allowance.of_seconds(get_settings().inline_seconds)
        try:
            sync.refresh(self.conversation.pk, allowance=allowance)
        except BlandNotFoundError:
            text = _("Bland has no such conversation under this key. The copy is kept.")
            return messages.WARNING, text
        except BlandError as error:
            failure = error.failure.told(may_read_words(self.request))
            text = _("Not refreshed, what you see is the last copy.")
            return messages.ERROR, f"{text} {failure.advice}"
        standing.carry_out_waiting(seconds=get_settings().inline_seconds)
        return messages.SUCCESS, _("Copied from Bland just now.")


class CopyView(RefreshView):
    """Copy the messages of a conversation that never were: reading needs it.

    Its page asks for it, by its script or by a button: a GET changes nothing. A user who may read
    the messages may do it, once; after that it is a refresh.
    """

    def may(self) -> bool:
        return self.admin.has_transcript_permission(self.request)

    def post(self, request: HttpRequest) -> HttpResponse:
        is_script = request.headers.get("Accept") == "application/json"
        self.problem = ""
        if is_uncopied(self.conversation):
            after_commit(self.refresh_for_script if is_script else self.refresh_and_tell)
        if is_script:
            headers = {"Cache-Control": "no-store"}
            return JsonResponse({"problem": self.problem}, headers=headers)
        return HttpResponseRedirect(self.page_url())

    def refresh_for_script(self) -> None:
        level, text = self.refresh()
        self.problem = "" if level == messages.SUCCESS else text


class TranscriptView(ConversationView):
    """The whole thread as plain text, to download."""

    http_method_names = ["get", "head"]

    def may(self) -> bool:
        return self.admin.has_transcript_permission(self.request)

    def get(self, request: HttpRequest) -> HttpResponse:
        note_download(request, f"transcript of {self.conversation.pk}", 1)
        return HttpResponse(
            transcript_text(self.conversation),
            content_type="text/plain; charset=utf-8",
            headers={
                "Content-Disposition": f'attachment; filename="{self.conversation.pk}.txt"',
                "Cache-Control": "no-store",
                "X-Content-Type-Options": "nosniff",
            },
        )


VIEWS: dict[str, tuple[str, type[View], dict[str, Any]]] = {
    "summary": ("summary/", SummaryView, {}),
    "messages": ("messages/", MessageSearchView, {}),
    "summary_csv": ("summary.csv", SummaryView, {"as_csv": True}),
    "sync": ("sync/", SyncView, {}),
    "transcript": ("<path:object_id>/transcript.txt", TranscriptView, {}),
    "deactivate": ("<path:object_id>/deactivate/", UpdateStateView, {"is_active": False}),
    "reactivate": ("<path:object_id>/reactivate/", UpdateStateView, {"is_active": True}),
    "deactivate_customer": ("<path:object_id>/deactivate-customer/", DeactivateCustomerView, {}),
    "refresh": ("<path:object_id>/refresh/", RefreshView, {}),
    "copy": ("<path:object_id>/copy/", CopyView, {}),
}
"""Name of the URL, address, view, and what the view is given."""
