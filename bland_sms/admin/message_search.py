"""The page on which staff find words in messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.admin.utils import quote
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from ..wordsearch import exists, find
from .admin_view import AdminView
from .base import freshness_context
from .formatting import Unlogged, shown_number, shown_text, shown_time
from .sight import sight_of
from .status_line import line_context

if TYPE_CHECKING:
    from .conversations import ConversationAdmin

MOST_CHARACTERS = 300
"""Of a message that are shown."""


class MessageSearchView(AdminView):
    """What people wrote, for those who may read it."""

    admin: ConversationAdmin
    http_method_names = ["get", "head"]

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not self.admin.has_transcript_permission(request):
            raise PermissionDenied
        return super().dispatch(request, *args, **kwargs)

    def get(self, request: HttpRequest) -> HttpResponse:
        admin = self.admin
        opts, site = admin.opts, admin.admin_site
        page = f"admin:{opts.app_label}_{opts.model_name}"
        words = request.GET.get("q", "").strip()[:MOST_CHARACTERS]
        has_index = exists()
        found = None
        if words and has_index:
            found = find(words, sight_of(request, site).conversations)
        context = {
            **site.each_context(request),
            **line_context(request, site),
            **freshness_context(request),
            "title": _("Search messages"),
            "opts": opts,
            "app_label": opts.app_label,
            "media": admin.media,
            "back": reverse(f"{page}_changelist", current_app=site.name),
            "words": Unlogged(words),
            "has_index": has_index,
            "found": found,
            "rows": [
                (
                    reverse(
                        f"{page}_change",
                        args=[quote(message.conversation_id)],
                        current_app=site.name,
                    ),
                    shown_number(message.conversation.user_number),
                    Unlogged(shown_text(message.text)[:MOST_CHARACTERS]),
                    shown_time(message.created_at),
                )
                for message in (found.messages if found else ())
            ],
        }
        return TemplateResponse(request, admin.message_search_template, context)
