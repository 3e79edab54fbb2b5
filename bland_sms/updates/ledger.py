"""What was asked: drafts, intents, and the order in which they count."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import connections
from django.db.models import (
    CharField,
    Exists,
    F,
    IntegerField,
    OuterRef,
    Q,
    QuerySet,
    Value,
)
from django.db.models.functions import Cast
from django.utils import timezone

from ..conf import get_settings
from ..database import ROWS_PER_STATEMENT, batches, patient, using, write_transaction
from ..exceptions import BlandInvalidIdError
from ..models import BulkUpdate, BulkUpdateItem, Conversation, PastedLine
from ..payloads import is_conversation_id
from ..people import name_of
from ..reasons import Failure
from .ending import OUTAGE
from .transitions import are_called_back, cancel_items, finish_if_done, note, release_dead_claims

State = BulkUpdateItem.State
Status = BulkUpdate.Status
COUNTED_EACH_TIME = 1000
"""Items of an update that are counted whenever somebody looks."""
DRAFT_LIFE = timedelta(hours=1)


class SelectionError(ValueError):
    """A selection that no update can be made of. ``str()`` is a sentence in the active language."""

    failure = Failure("empty_selection")

    def __str__(self) -> str:
        return str(self.failure)


class EmptySelectionError(SelectionError):
    """Nothing was selected."""


class SelectionTooLargeError(SelectionError):
    """More conversations than ``BULK_LIMIT``; ``limit`` says how many may be."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit
        self.failure = Failure("selection_too_large", {"number": limit})


def prepare(
    selected: QuerySet[Conversation] | Iterable[str],
    is_active: bool,
    requested_by: Any = None,
    reason: str = "",
    source: str = BulkUpdate.Source.COMMAND,
    *,
    selection: str = "",
    undo_of: BulkUpdate | None = None,
    idempotency_key: str | None = None,
    request_sha256: str = "",
    pasted: Sequence[PastedLine] = (),
) -> BulkUpdate:
    """Freeze a selection as the draft of an update. Nothing is asked of Bland yet.

    Args:
        selected: A queryset of conversations, of any size, or ids. An id that is not in the
            mirror is looked up at Bland when it is carried out.
        is_active: What to ask: ``False`` deactivates.
        requested_by: The user who asked for it; ``None``: an operator.
        source: Where the request came from: ``admin``, ``api`` or ``command``.
        selection: The filter in words, without phone numbers.
        idempotency_key: The requester's own name for this request; ``request_sha256`` is the
            hash of its contents.
        pasted: The lines that the ids were read from; they stay with the update. With them an
            empty selection is a draft as well, since it shows what was not found.

    Raises:
        EmptySelectionError, SelectionTooLargeError: nothing is kept.
        BlandInvalidIdError: one of the ids cannot be one; nothing is kept.
        IntegrityError: the requester has an update of that ``idempotency_key`` already.
    """
    if not isinstance(selected, QuerySet):
        selected = list(dict.fromkeys(selected))
        for conversation_id in selected:
            if not is_conversation_id(conversation_id):
                raise BlandInvalidIdError(id=repr(str(conversation_id)[:40]))
    columns = {
        "is_active": is_active,
        "reason": reason,
        "requested_by": requested_by,
        "requested_by_name": name_of(requested_by) if requested_by else "",
        "source": source,
        "selection": selection[:500],
        "undo_of": undo_of,
        "idempotency_key": idempotency_key,
        "request_sha256": request_sha256,
    }
    return _freeze(selected, columns, pasted)


@patient
def _freeze(
    selected: QuerySet[Conversation] | list[str],
    columns: dict[str, Any],
    pasted: Sequence[PastedLine],
) -> BulkUpdate:
    expire_drafts()
    alias, limit = using(BulkUpdate), get_settings().bulk_limit
    with write_transaction(BulkUpdate):
        bulk_update = BulkUpdate.objects.using(alias).create(**columns)
        if isinstance(selected, QuerySet):
            number = _insert_from(selected, bulk_update, limit + 1, alias)
        else:
            number = len(selected)
            if number <= limit:
                add_items(bulk_update, selected, alias)
        if number > limit:
            raise SelectionTooLargeError(limit)
        if number == 0 and not pasted:
            raise EmptySelectionError
        for line in pasted:
            line.bulk_update = bulk_update
        PastedLine.objects.using(alias).bulk_create(pasted, batch_size=ROWS_PER_STATEMENT)
    return bulk_update


def add_items(bulk_update: BulkUpdate, conversation_ids: Iterable[str], alias: str) -> None:
    """Put conversations into a draft."""
    items = (
        BulkUpdateItem(bulk_update=bulk_update, conversation_id=conversation_id)
        for conversation_id in conversation_ids
    )
    BulkUpdateItem.objects.using(alias).bulk_create(items, batch_size=ROWS_PER_STATEMENT)


def _insert_from(
    selected: QuerySet[Conversation], bulk_update: BulkUpdate, limit: int, alias: str
) -> int:
    """Copy the selection's ids into items by one statement; how many there were, up to ``limit``.

    No row comes to us, so 100,000 rows cost no memory. Every column is a typed value, or
    PostgreSQL takes it for text.
    """
    if selected.query.is_sliced:
        # MariaDB allows no LIMIT in a subquery; a caller with a slice passes its length.
        selected = Conversation.objects.filter(pk__in=list(selected.values_list("pk", flat=True)))
    values: dict[str, Any] = {
        "bulk_update": Cast(Value(bulk_update.pk), _column("bulk_update").target_field),
        "conversation": F("pk"),
        "state": Cast(Value(State.WAITING.value), CharField(max_length=16)),
        "attempts": Cast(Value(0), IntegerField()),
        "error_code": Cast(Value(""), CharField(max_length=64)),
        "message": Cast(Value(""), CharField(max_length=500)),
    }
    rows = (
        Conversation.objects.using(alias)
        .filter(pk__in=selected.order_by().values("pk"))
        .order_by()
        .values_list(*values.values())[:limit]
    )
    connection = connections[alias]
    quote = connection.ops.quote_name
    columns = ", ".join(quote(str(_column(name).column)) for name in values)
    try:
        sql, parameters = rows.query.get_compiler(alias).as_sql()
    except EmptyResultSet:  # Django sees that nothing can match, such as with none()
        return 0
    table = quote(BulkUpdateItem._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {table} ({columns}) {sql}", parameters)
        return int(cursor.rowcount)


def _column(name: str) -> Any:
    """A column of the items by its field's name."""
    return BulkUpdateItem._meta.get_field(name)


@patient
def leave_out_hidden(draft: BulkUpdate, visible: QuerySet[Conversation] | None) -> None:
    """Take out of a draft the conversations that its owner does not see, perhaps no longer."""
    if visible is not None:
        seen = visible.order_by().values("pk")
        items = draft.items.filter(bulk_update__status=Status.DRAFT)
        hidden = list(items.exclude(conversation_id__in=seen).values_list("pk", flat=True))
        for some in batches(hidden):
            draft.items.filter(pk__in=some).delete()


def note_preview(draft: BulkUpdate, numbers: dict[str, Any]) -> None:
    """Keep what was counted of a draft's rows, as long as it is one."""
    BulkUpdate.objects.filter(pk=draft.pk, status=Status.DRAFT).update(preview=numbers)


def expire_drafts() -> None:
    """Delete drafts that were not confirmed in time."""
    old = BulkUpdate.objects.filter(status=Status.DRAFT, created_at__lt=timezone.now() - DRAFT_LIFE)
    expired = list(old.values_list("pk", flat=True))
    if expired:
        BulkUpdateItem.objects.filter(bulk_update__in=expired).delete()
        BulkUpdate.objects.filter(pk__in=expired, status=Status.DRAFT).delete()


@patient
def start(bulk_update: BulkUpdate) -> None:
    """Record the intent and queue it. From now on it counts, and it is carried out by ``run``.

    Older waiting items of the opposite verb become ``superseded``; an item whose verb is open in
    another update already becomes ``already_queued``. An update that is no draft is left alone.
    """
    alias = using(BulkUpdate)
    with write_transaction(BulkUpdate):
        now = timezone.now()
        started = (
            BulkUpdate.objects.using(alias)
            .filter(pk=bulk_update.pk, status=Status.DRAFT)
            .update(status=Status.QUEUED, started_at=now, preview=None)
        )
        if started:
            _supersede_older(bulk_update, alias)
            drop_already_queued(bulk_update, alias)
            is_over = finish_if_done(bulk_update.pk)
            if not is_over and bulk_update.items.all()[COUNTED_EACH_TIME:].exists():
                bulk_update.keep_counts()
            if bulk_update.undo_of is not None:
                undone, who = bulk_update.undo_of, bulk_update.requested_by
                note(undone, who, "history_undone", number=bulk_update.pk)
    bulk_update.refresh_from_db()


def _others_items(bulk_update: BulkUpdate, alias: str) -> QuerySet[BulkUpdateItem]:
    """Items of other updates for conversations of this one."""
    mine = BulkUpdateItem.objects.using(alias).filter(bulk_update=bulk_update)
    return (
        BulkUpdateItem.objects.using(alias)
        .filter(conversation_id__in=mine.values("conversation_id"))
        .exclude(bulk_update=bulk_update)
        .exclude(bulk_update__status=Status.DRAFT)
    )


def _supersede_older(bulk_update: BulkUpdate, alias: str) -> None:
    older = _others_items(bulk_update, alias).filter(
        state=State.WAITING, bulk_update__is_active=not bulk_update.is_active
    )
    found: dict[int, list[int]] = {}
    for item_id, update_id in older.values_list("pk", "bulk_update_id"):
        found.setdefault(update_id, []).append(item_id)
    for update_id, item_ids in found.items():
        named = _named(bulk_update.pk, bulk_update.requested_by_name)
        cancel_items(item_ids, "superseded", **named)
        finish_if_done(update_id)


def drop_already_queued(bulk_update: BulkUpdate, alias: str) -> None:
    open_elsewhere = _others_items(bulk_update, alias).filter(
        ~are_called_back(),
        state__in=State.OPEN,
        bulk_update__is_active=bulk_update.is_active,
        bulk_update__status__in=Status.OPEN,
    )
    found: dict[tuple[int, str], list[str]] = {}
    for conversation_id, update_id, name in open_elsewhere.values_list(
        "conversation_id", "bulk_update_id", "bulk_update__requested_by_name"
    ):
        found.setdefault((update_id, name), []).append(conversation_id)
    for (update_id, name), conversation_ids in found.items():
        for some in batches(conversation_ids):
            mine = BulkUpdateItem.objects.using(alias).filter(
                bulk_update=bulk_update, conversation_id__in=some
            )
            item_ids = list(mine.values_list("pk", flat=True))
            cancel_items(item_ids, "already_queued", **_named(update_id, name))


def _named(update_id: int, who: str) -> dict[str, Any]:
    return {"update": update_id, "by": who} if who else {"update": update_id}


def waiting_updates() -> QuerySet[BulkUpdate]:
    """Updates that wait to be carried out, oldest first: none of them has a live lease."""
    release_dead_claims()
    return due_updates().order_by("pk")


def due_updates() -> QuerySet[BulkUpdate]:
    """The same without items whose process has crashed, which wait again for the others to see."""
    now = timezone.now()
    items = BulkUpdateItem.objects.filter(bulk_update=OuterRef("pk"), state__in=State.OPEN)
    due = items.filter(Q(not_before__isnull=True) | Q(not_before__lte=now))
    return BulkUpdate.objects.filter(BulkUpdate.unleased(), can_go_on()).filter(
        Exists(due) | ~Exists(items)
    )


def can_go_on() -> Q:
    """Updates that may be carried out now: queued, running, or tried again after an outage."""
    is_due = Q(not_before__isnull=False, not_before__lte=timezone.now())
    return Q(status__in=Status.OPEN) | (Q(status=Status.STOPPED, stop_code=OUTAGE) & is_due)
