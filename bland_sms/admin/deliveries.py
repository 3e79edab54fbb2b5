"""Staff pages of webhook deliveries: which conversation each named, and whether it was copied."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.utils import quote
from django.db.models import BooleanField, Exists, Model, OuterRef, QuerySet, Value
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import webhooks
from ..conf import get_settings
from ..database import after_commit
from ..models import Conversation, WebhookDelivery
from ..quantities import number_words
from ..search import parse_search
from .base import MirroredAdmin, Options
from .formatting import ago, quantity, shown_text, shown_time
from .posted_search import searched
from .sight import may_read_words

REPROCESS_LIMIT = 500
"""Deliveries that are processed again by one action."""
LOOKS = {"received": "waiting", "processed": "finished"}
"""States that look like those of an update."""


class WebhookDeliveryAdmin(MirroredAdmin[WebhookDelivery]):
    """Each verified webhook of Bland's, and what became of it."""

    list_display: Options = (
        "received",
        "conversation",
        "shown_kind",
        "status",
        "reason_words",
        "shown_state",
        "shown_attempts",
        "error_words",
    )
    list_display_links: Options = ("received",)
    list_filter: ClassVar[Options] = ("state",)
    ordering: ClassVar[Options] = ("-pk",)
    sortable_by: ClassVar[Options] = ()
    # What makes the box appear; see get_search_results.
    search_fields: ClassVar[Options] = ("conversation_id",)
    search_help_text = gettext_lazy("A conversation id.")
    actions: Options = ("reprocess_selected",)

    shown_attempts = quantity(WebhookDelivery, "attempts")

    def has_reprocess_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request) and request.user.has_perm(
            f"{self.opts.app_label}.reprocess_webhookdelivery"
        )

    def get_list_display(self, request: HttpRequest) -> Any:
        return self._without_reason(request, self.list_display)

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return ["id", *self._without_reason(request, self.list_display), "processed"]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return self.get_fields(request, obj)

    def _without_reason(self, request: HttpRequest, names: Iterable[str]) -> list[str]:
        """Bland's reason may quote messages: it is shown only to those who may read messages."""
        may_read = may_read_words(request)
        return [name for name in names if may_read or name != "reason_words"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[WebhookDelivery]:
        copied = Conversation.objects.filter(pk=OuterRef("conversation_id"))
        return (
            super()
            .get_queryset(request)
            .annotate(
                is_copied=Exists(copied),
                bland_sms_with_words=Value(may_read_words(request), BooleanField()),
            )
        )

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[WebhookDelivery], search_term: str
    ) -> tuple[QuerySet[WebhookDelivery], bool]:
        """Those of one conversation or several: Django's own search is a condition for each word,
        and thousands of them are more than a database takes."""
        if not search_term.strip():
            return queryset, False
        terms = parse_search(searched(request, search_term)).terms
        ids = [term.text for term in terms if term.is_id]
        return queryset.filter(conversation_id__in=ids), False

    def row_name(self, row: WebhookDelivery) -> str:
        return f"{row}, {ago(row.received_at)}"

    @admin.display(description=gettext_lazy("Received"))
    def received(self, delivery: WebhookDelivery) -> SafeString | str:
        return shown_time(delivery.received_at)

    @admin.display(description=gettext_lazy("Conversation"))
    def conversation(self, delivery: WebhookDelivery) -> SafeString | str:
        """A link, where there is something to see."""
        conversation_id = str(delivery.conversation_id)
        name = f"{self.opts.app_label}_{Conversation._meta.model_name}_change"
        if not getattr(delivery, "is_copied", False):
            return conversation_id or _("none")
        try:
            url = reverse(
                f"admin:{name}",
                args=[quote(conversation_id)],
                current_app=self.admin_site.name,
            )
        except NoReverseMatch:
            return conversation_id
        return format_html('<a href="{}">{}</a>', url, conversation_id)

    @admin.display(description=gettext_lazy("Kind"))
    def shown_kind(self, delivery: WebhookDelivery) -> str:
        known = {"message": _("message"), "status": _("status"), "call": _("phone calls")}
        kind = known.get(delivery.kind, delivery.kind)
        return kind if delivery.count == 1 else f"{kind} ({number_words(delivery.count)})"

    @admin.display(description=gettext_lazy("Reason"))
    def reason_words(self, delivery: WebhookDelivery) -> SafeString | str:
        if not delivery.reason:
            return ""
        return format_html('<span dir="auto">{}</span>', shown_text(delivery.reason))

    @admin.display(description=gettext_lazy("State"))
    def shown_state(self, delivery: WebhookDelivery) -> SafeString:
        return format_html(
            '<span class="bland-sms-badge bland-sms-{}">{}</span>',
            LOOKS.get(delivery.state, delivery.state),
            delivery.get_state_display(),
        )

    @admin.display(description=gettext_lazy("Error"))
    def error_words(self, delivery: WebhookDelivery) -> str:
        return str(delivery.failure.told(getattr(delivery, "bland_sms_with_words", False)))

    @admin.display(description=gettext_lazy("Processed"))
    def processed(self, delivery: WebhookDelivery) -> SafeString | str:
        return shown_time(delivery.processed_at) if delivery.processed_at else _("not yet")

    @admin.action(
        description=gettext_lazy("Process selected deliveries again"), permissions=["reprocess"]
    )
    def reprocess_selected(self, request: HttpRequest, queryset: QuerySet[WebhookDelivery]) -> None:
        """Copy the conversations of the selected deliveries from Bland once more."""
        keys = list(queryset.order_by("pk").values_list("pk", flat=True)[: REPROCESS_LIMIT + 1])
        if len(keys) > REPROCESS_LIMIT:
            text = _("Process at most %d deliveries again at once.")
            self.message_user(request, text % REPROCESS_LIMIT, messages.ERROR)
            return
        after_commit(partial(self._reprocess_and_tell, request, keys))

    def _reprocess_and_tell(self, request: HttpRequest, keys: list[int]) -> None:
        worked = webhooks.reprocess(keys, seconds=get_settings().inline_seconds)
        for level, text in _words(worked, with_words=may_read_words(request)):
            self.message_user(request, text, level)


def _words(worked: webhooks.Worked, *, with_words: bool) -> list[tuple[int, str]]:
    told: list[tuple[int, str]] = []
    if worked.processed:
        text = ngettext(
            "%(count)d delivery processed.", "%(count)d deliveries processed.", worked.processed
        )
        told.append((messages.SUCCESS, text % {"count": worked.processed}))
    if worked.put_off:
        text = ngettext(
            "%(count)d delivery waits: its conversation was copied less than a minute ago, or "
            "Bland does not answer. It is tried again later, by itself.",
            "%(count)d deliveries wait: their conversations were copied less than a minute ago, "
            "or Bland does not answer. They are tried again later, by themselves.",
            worked.put_off,
        )
        told.append((messages.WARNING, text % {"count": worked.put_off}))
    for conversation_id, failure in worked.failed.items():
        values = {"conversation": conversation_id, "cause": failure.told(with_words)}
        told.append((messages.ERROR, _("Not copied: %(conversation)s: %(cause)s") % values))
    if worked.stop is not None:
        failure = worked.stop.failure.told(with_words)
        told.append((messages.ERROR, _("Nothing else was tried: %s.") % failure))
    return told or [(messages.WARNING, _("Nothing to process: no valid conversation id."))]
