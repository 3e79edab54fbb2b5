"""The actions on the list of conversations, and how an update is asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from operator import itemgetter
from typing import Any

from django.contrib import admin, messages
from django.db import DatabaseError, InterfaceError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import standing, sync, updates
from ..conf import get_settings
from ..database import after_commit, by_key, is_passing
from ..exceptions import BlandConfigurationError
from ..models import BulkUpdate, Conversation
from ..reasons import Failure
from .confirmation import given_reason, keep_preview
from .conversation_base import ConversationBase
from .csv_export import by_activity, csv_response
from .filters import (
    selection_of,
)
from .kept import stop_url
from .launching import begin
from .sight import may_read_words, sight_of
from .status_line import connection_problem
from .wording import refresh_words

logger = logging.getLogger("bland_sms")

MOST_STOPPED = 50
"""Conversations whose customers are stopped by one action: the page names them in its address."""
REFRESH_LIMIT = 100
"""Conversations that are refreshed by one action."""
EXPORTED = (
    "id",
    "user_number",
    "agent_number",
    "status",
    "channel",
    "created_at",
    "updated_at",
    "last_activity_at",
    "message_count",
    "disposition_tag",
)
EXPORTED_TEXTS = ("last_message", "summary")


class ConversationActions(ConversationBase):
    """What is done with the conversations that are selected."""

    @admin.action(
        description=gettext_lazy("Deactivate selected conversations"), permissions=["deactivate"]
    )
    def deactivate_selected(
        self, request: HttpRequest, queryset: QuerySet[Conversation]
    ) -> HttpResponse | None:
        """Ask Bland to deactivate every selected conversation."""
        return self.update_selected(
            request, queryset, is_active=False, back=request.get_full_path()
        )

    @admin.action(
        description=gettext_lazy("Reactivate selected conversations"), permissions=["reactivate"]
    )
    def reactivate_selected(
        self, request: HttpRequest, queryset: QuerySet[Conversation]
    ) -> HttpResponse | None:
        """Ask Bland to reactivate every selected conversation."""
        return self.update_selected(request, queryset, is_active=True, back=request.get_full_path())

    @admin.action(
        description=gettext_lazy("Refresh selected conversations from Bland"),
        permissions=["refresh"],
    )
    def refresh_selected(
        self, request: HttpRequest, queryset: QuerySet[Conversation]
    ) -> HttpResponse | None:
        """Copy every selected conversation and its messages from Bland."""
        ids = list(queryset.order_by().values_list("pk", flat=True)[: REFRESH_LIMIT + 1])
        if len(ids) > REFRESH_LIMIT:
            text = _("Refresh at most %d conversations at once.")
            self.message_user(request, text % REFRESH_LIMIT, messages.ERROR)
        else:
            after_commit(partial(self._refresh_and_tell, request, ids))
        return None

    @admin.action(
        description=gettext_lazy("Export selected conversations (CSV)"), permissions=["export"]
    )
    def export_selected(
        self, request: HttpRequest, queryset: QuerySet[Conversation]
    ) -> HttpResponseBase:
        """Download what the mirror holds; what people wrote only for those who may read it."""
        columns = [*EXPORTED]
        if self.has_transcript_permission(request):
            columns += EXPORTED_TEXTS
        rows: Iterable[tuple[Any, ...]]
        if request.POST.get("select_across") == "1" and not request.GET.get("q", "").strip():
            rows = by_activity(queryset, columns)
        else:  # few, by their ids
            rows = by_key(queryset.values_list(*columns), key=itemgetter(EXPORTED.index("id")))
        return csv_response(request, "conversations.csv", columns, rows)

    @admin.action(
        description=gettext_lazy("Stop the customers of selected conversations for good…"),
        permissions=["stop"],
    )
    def stop_selected(
        self, request: HttpRequest, queryset: QuerySet[Conversation]
    ) -> HttpResponse | None:
        """Show what standing orders for their customers would do, and ask for a reason."""
        ids = list(queryset.order_by().values_list("pk", flat=True)[: MOST_STOPPED + 1])
        url = stop_url(self.admin_site, ids)
        if len(ids) > MOST_STOPPED:
            text = _("Stop the customers of at most %d conversations at once.")
            self.message_user(request, text % MOST_STOPPED, messages.ERROR)
        elif url:
            return HttpResponseRedirect(url)
        return None

    def _refresh_and_tell(self, request: HttpRequest, ids: list[str]) -> None:
        try:
            refreshed = sync.refresh_many(ids, seconds=get_settings().inline_seconds)
        except BlandConfigurationError as error:
            self.message_user(request, error.failure.advice, messages.ERROR)
            return
        standing.carry_out_waiting(seconds=get_settings().inline_seconds)
        for level, text in refresh_words(refreshed, with_words=may_read_words(request)):
            self.message_user(request, text, level)

    # --- asking for an update ---------------------------------------------------------------

    def update_selected(
        self, request: HttpRequest, selected: QuerySet[Conversation], *, is_active: bool, back: str
    ) -> HttpResponse:
        """Freeze a selection as a draft; then ask first or start at once, as the settings say."""
        try:
            return self._update_selected(request, selected, is_active=is_active, back=back)
        except (DatabaseError, InterfaceError) as error:
            if not is_passing(error):
                raise
            logger.warning("the database is not available: %s", type(error).__name__)
            self.message_user(request, Failure("database_unavailable").advice, messages.ERROR)
            return HttpResponseRedirect(back)

    def _update_selected(
        self, request: HttpRequest, selected: QuerySet[Conversation], *, is_active: bool, back: str
    ) -> HttpResponse:
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
                reason=given_reason(request),
                selection=selection_of(request),
            )
        except updates.SelectionError as error:
            is_empty = isinstance(error, updates.EmptySelectionError)
            level = messages.WARNING if is_empty else messages.ERROR
            self.message_user(request, error.failure.as_sentence, level)
        else:
            sight = sight_of(request, self.admin_site)
            keep_preview(draft, selected, sight)
            return begin(request, self.admin_site, draft, sight, back=back)
        return HttpResponseRedirect(back)
