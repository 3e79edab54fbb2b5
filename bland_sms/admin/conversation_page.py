"""The page of one conversation: what is known, what was said, and its buttons."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_POST, require_safe

from .. import sync, updates
from ..conf import get_settings
from ..exceptions import BlandError, BlandNotFoundError
from ..models import BulkUpdate, Conversation
from ..pacing import Allowance
from ..payloads import is_conversation_id
from ..sentences import translated
from ..sync import refresh
from ..transactions import after_commit
from .bulk_updates import BulkUpdateAdmin
from .filters import selection_words
from .mirrored import (
    MirroredAdmin,
    connection_problem,
    shown_number,
    shown_text,
    shown_time,
)
from .requested import REQUESTED_CHANGE
from .transcript import transcript_of, transcript_text
from .update_flow import UpdateFlow
from .wording import number_words, sync_words

OTHERS_SHOWN = 20
MOST_COUNTED = 1000


class ConversationPage(MirroredAdmin[Conversation]):
    """What :class:`~bland_sms.admin.ConversationAdmin` is for one conversation."""

    @admin.display(description=gettext_lazy("Status"))
    def status_badge(self, conversation: Conversation) -> SafeString:
        badge = format_html(
            '<span class="bland-sms-badge bland-sms-{}">{}</span>',
            conversation.status,
            conversation.status_label,
        )
        if conversation.missing_since is not None:
            badge = format_html(
                '{} <span class="bland-sms-badge bland-sms-missing">{}</span>',
                badge,
                _("not found at Bland"),
            )
        state, words = getattr(conversation, REQUESTED_CHANGE, ("", ""))
        if words:
            badge = format_html(
                '{} <span class="bland-sms-badge bland-sms-{}">{}</span>', badge, state, words
            )
        return badge

    # --- permissions --------------------------------------------------------------------------

    def _may(self, request: HttpRequest, codename: str) -> bool:
        return request.user.has_perm(f"{self.opts.app_label}.{codename}")

    def has_deactivate_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request) and self._may(request, "deactivate_conversation")

    def has_reactivate_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request) and self._may(request, "reactivate_conversation")

    def has_refresh_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request) and self._may(request, "refresh_conversation")

    def has_export_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request) and self._may(request, "export_conversation")

    def has_transcript_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request) and self._may(request, "view_transcript")

    def has_update_permission(self, request: HttpRequest, is_active: bool) -> bool:
        """Whether the user may ask Bland for this value."""
        if is_active:
            return self.has_reactivate_permission(request)
        return self.has_deactivate_permission(request)

    # --- the page of one ----------------------------------------------------------------------

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        fields = ["id", "channel", "pathway_id", "pathway_version", "current_node_id"]
        if self.has_transcript_permission(request):
            fields += ["variables", "extra"]
        return [(_("More from Bland"), {"fields": fields, "classes": ["collapse"]})]

    def _facts(
        self, request: HttpRequest, conversation: Conversation
    ) -> list[tuple[str, SafeString | str]]:
        """What is known of a conversation, without what is empty."""
        facts: list[tuple[str, SafeString | str]] = [
            (_("Status"), self.status_badge(conversation)),
            (_("Our number"), shown_number(conversation.agent_number)),
            (_("Messages"), str(conversation.message_count)),
            (_("Last activity"), shown_time(conversation.last_activity_at)),
            (_("Created"), shown_time(conversation.created_at)),
            (_("Updated"), shown_time(conversation.updated_at)),
        ]
        if conversation.timed_out_at:
            facts.append((_("Timed out"), shown_time(conversation.timed_out_at)))
        if conversation.human_handoff_at:
            facts.append((_("Handed to a person"), shown_time(conversation.human_handoff_at)))
        if conversation.disposition_tag:
            facts.append((_("Disposition"), conversation.disposition_tag))
        if conversation.summary and self.has_transcript_permission(request):
            facts.append(
                (_("Summary"), format_html("<bdi>{}</bdi>", shown_text(conversation.summary)))
            )
        return facts

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Conversation | None:
        if not is_conversation_id(object_id):
            return None  # PostgreSQL raises an error for some of what stands in an address
        return super().get_object(request, object_id, from_field)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        conversation = self.get_object(request, unquote(object_id))
        if conversation is not None and self.has_view_permission(request, conversation):
            extra_context = {
                **self._page_context(request, conversation),
                **(extra_context or {}),
            }
        return super().change_view(request, object_id, form_url, extra_context)

    def _page_context(self, request: HttpRequest, conversation: Conversation) -> dict[str, Any]:
        others = self._of_same_customer(request, conversation)
        active = others.filter(is_active=True)[:MOST_COUNTED].count()
        active += conversation.is_active
        may_read = self.has_transcript_permission(request)
        return {
            "title": _("Conversation"),
            "subtitle": conversation.user_number or conversation.pk,
            "show_save": False,
            "show_save_and_continue": False,
            "bland_sms_problem": connection_problem(),
            "bland_sms_facts": self._facts(request, conversation),
            "bland_sms_copied_at": shown_time(conversation.observed_at),
            "bland_sms_may": {
                "deactivate": self.has_deactivate_permission(request),
                "reactivate": self.has_reactivate_permission(request),
                "refresh": self.has_refresh_permission(request),
                "read": may_read,
            },
            "bland_sms_active_of_customer": active,
            "bland_sms_others": [
                (other, shown_time(other.last_activity_at), self.status_badge(other))
                for other in others.order_by("-last_activity_at", "-pk")[:OTHERS_SHOWN]
            ],
            "bland_sms_others_shown": OTHERS_SHOWN,
            "bland_sms_transcript": transcript_of(
                conversation, show_all="all" in request.GET, with_text=may_read
            ),
            "bland_sms_transcript_copied_at": (
                shown_time(conversation.transcript_observed_at)
                if conversation.transcript_observed_at
                else None
            ),
        }

    def _of_same_customer(
        self, request: HttpRequest, conversation: Conversation
    ) -> QuerySet[Conversation]:
        """The customer's other conversations, without this one."""
        if not conversation.user_number:
            return self.get_queryset(request).none()
        return (
            self.get_queryset(request)
            .filter(user_number=conversation.user_number)
            .exclude(pk=conversation.pk)
        )

    # --- its buttons --------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        views: dict[str, Callable[..., HttpResponse]] = {
            "deactivate": partial(self.update_view, is_active=False),
            "reactivate": partial(self.update_view, is_active=True),
            "deactivate_customer": self.deactivate_customer_view,
            "refresh": self.refresh_view,
        }
        addresses: dict[str, tuple[str, Callable[..., HttpResponse]]] = {
            "sync": ("sync/", require_POST(self.sync_view)),
            "transcript": ("<path:object_id>/transcript.txt", require_safe(self.transcript_view)),
            **{
                name: (f"<path:object_id>/{name.replace('_', '-')}/", require_POST(view))
                for name, view in views.items()
            },
        }
        own = [
            path(
                address,
                transaction.non_atomic_requests(self.admin_site.admin_view(view)),
                name=f"{self.opts.app_label}_{self.opts.model_name}_{name}",
            )
            for name, (address, view) in addresses.items()
        ]
        return [*own, *super().get_urls()]

    def sync_view(self, request: HttpRequest) -> HttpResponse:
        """Copy what changed at Bland since the last time."""
        if not self.has_refresh_permission(request):
            raise PermissionDenied
        after_commit(partial(self._sync_and_tell, request))
        return HttpResponseRedirect(
            reverse(
                f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist",
                current_app=self.admin_site.name,
            )
        )

    def _sync_and_tell(self, request: HttpRequest) -> None:
        run = sync.run(
            trigger="admin", requested_by=request.user, seconds=get_settings().inline_seconds
        )
        self.message_user(request, *sync_words(run))

    def transcript_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The whole thread as plain text, to download."""
        conversation = self._visible(request, object_id)
        if not self.has_transcript_permission(request):
            raise PermissionDenied
        return HttpResponse(
            transcript_text(conversation),
            content_type="text/plain; charset=utf-8",
            headers={
                "Content-Disposition": f'attachment; filename="{conversation.pk}.txt"',
                "Cache-Control": "no-store",
                "X-Content-Type-Options": "nosniff",
            },
        )

    def update_view(self, request: HttpRequest, object_id: str, *, is_active: bool) -> HttpResponse:
        """Deactivate or reactivate one conversation."""
        conversation = self._visible(request, object_id)
        if not self.has_update_permission(request, is_active):
            raise PermissionDenied
        return self.update_selected(
            request,
            self.get_queryset(request).filter(pk=conversation.pk),
            is_active=is_active,
            back=self._url_of(conversation.pk),
        )

    def deactivate_customer_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Deactivate all active conversations of a conversation's customer."""
        conversation = self._visible(request, object_id)
        if not self.has_deactivate_permission(request):
            raise PermissionDenied
        same = self.get_queryset(request).filter(pk=conversation.pk)
        if conversation.user_number:
            same = self.get_queryset(request).filter(user_number=conversation.user_number)
        return self.update_selected(
            request,
            same.filter(is_active=True),
            is_active=False,
            back=self._url_of(conversation.pk),
        )

    def refresh_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Copy one conversation and its messages from Bland."""
        conversation = self._visible(request, object_id)
        if not self.has_refresh_permission(request):
            raise PermissionDenied
        after_commit(partial(self._refresh_one_and_tell, request, conversation.pk))
        return HttpResponseRedirect(self._url_of(conversation.pk))

    def _refresh_one_and_tell(self, request: HttpRequest, conversation_id: str) -> None:
        try:
            refresh(conversation_id, allowance=Allowance.of_seconds(get_settings().inline_seconds))
        except BlandNotFoundError:
            text = _("Bland has no such conversation under this key. The copy is kept.")
            self.message_user(request, text, messages.WARNING)
        except BlandError as error:
            text = _("Not refreshed: %s. What you see is the last copy.")
            self.message_user(request, text % translated(error), messages.ERROR)
        else:
            self.message_user(request, _("Copied from Bland just now."), messages.SUCCESS)

    def _visible(self, request: HttpRequest, object_id: str) -> Conversation:
        """The conversation, if this user may see it at all."""
        if not self.has_view_permission(request):
            raise PermissionDenied  # before the look: who may not see it learns nothing
        conversation = self.get_object(request, unquote(object_id))
        if conversation is None:
            raise Http404
        return conversation

    def _url_of(self, conversation_id: str) -> str:
        return reverse(
            f"admin:{self.opts.app_label}_{self.opts.model_name}_change",
            args=[quote(conversation_id)],
            current_app=self.admin_site.name,
        )

    # --- asking for an update ---------------------------------------------------------------

    def update_selected(
        self, request: HttpRequest, selected: QuerySet[Conversation], *, is_active: bool, back: str
    ) -> HttpResponse:
        """Freeze a selection as a draft; then ask first or start at once, as the settings say."""
        problem = connection_problem()
        if problem:
            self.message_user(request, problem, messages.ERROR)
            return HttpResponseRedirect(back)
        try:
            draft = updates.prepare(
                selected,
                is_active,
                requested_by=request.user,
                source=BulkUpdate.Source.ADMIN,
                selection=selection_words(request),
            )
        except updates.SelectionTooLargeError as error:
            text = ngettext(
                "More than %s conversation at once: narrow the selection with a filter.",
                "More than %s conversations at once: narrow the selection with a filter.",
                error.limit,
            )
            self.message_user(request, text % number_words(error.limit), messages.ERROR)
        except updates.EmptySelectionError:
            self.message_user(request, _("No conversation was selected."), messages.WARNING)
        else:
            return self._flow().begin(request, draft, back=back)
        return HttpResponseRedirect(back)

    def _flow(self) -> UpdateFlow:
        """The admin of updates on the same site, or our own where the host has another one."""
        if self.admin_site.is_registered(BulkUpdate):
            registered = self.admin_site.get_model_admin(BulkUpdate)
            if isinstance(registered, UpdateFlow):
                return registered
        return BulkUpdateAdmin(BulkUpdate, self.admin_site)
