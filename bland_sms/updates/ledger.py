"""What was asked: drafts, intents, and the order in which they count."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, Literal

from django.core.exceptions import EmptyResultSet
from django.db import connections, router, transaction
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
from django.utils.module_loading import import_string

from .. import sentences
from ..conf import get_settings
from ..exceptions import BlandInvalidIdError
from ..models import OPEN_STATES, BulkUpdate, BulkUpdateItem, Conversation
from ..payloads import is_conversation_id
from ..transactions import after_commit
from .driver import run
from .items import ROWS_PER_STATEMENT, cancel_items, finish_if_done, release_dead_claims, slices

logger = logging.getLogger("bland_sms.updates")

State = BulkUpdateItem.State
Status = BulkUpdate.Status
DRAFT_LIFE = timedelta(hours=1)
Driver = Literal["done", "worker", "nobody"]
ABANDONED_AFTER = timedelta(minutes=2)
"""A worker that was asked for so long ago and never came is not waited for any longer."""


class SelectionError(ValueError):
    """A selection that no update can be made of."""


class EmptySelectionError(SelectionError):
    """Nothing was selected."""


class SelectionTooLargeError(SelectionError):
    """More conversations than ``BULK_LIMIT``; ``limit`` says how many may be."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"more than {limit} conversations: narrow the selection")


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
) -> BulkUpdate:
    """Freeze a selection as the draft of an update. Nothing is asked of Bland yet.

    Args:
        selected: A queryset of conversations, of any size, or ids. An id that is not in the
            mirror is looked up at Bland when its turn comes.
        is_active: What to ask: ``False`` deactivates.
        requested_by: The user whose wish it is; ``None``: an operator's.
        source: The door: ``admin``, ``api`` or ``command``.
        selection: The filter in words, without phone numbers.
        idempotency_key: The requester's own name for this wish; ``request_sha256`` says what the
            wish was.

    Raises:
        EmptySelectionError, SelectionTooLargeError: nothing is kept.
        BlandInvalidIdError: one of the ids cannot be one; nothing is kept.
        IntegrityError: the requester has an update of that ``idempotency_key`` already.
    """
    limit = get_settings().bulk_limit
    expire_drafts()
    ids = None if isinstance(selected, QuerySet) else list(dict.fromkeys(selected))
    for conversation_id in ids or ():
        if not is_conversation_id(conversation_id):
            raise BlandInvalidIdError(sentences.NO_ID % {"id": repr(str(conversation_id)[:40])})
    using = router.db_for_write(BulkUpdate)
    with transaction.atomic(using=using):
        bulk_update = BulkUpdate.objects.using(using).create(
            is_active=is_active,
            reason=reason,
            requested_by=requested_by,
            requested_by_name=requested_by.get_username() if requested_by else "",
            source=source,
            selection=selection[:500],
            undo_of=undo_of,
            idempotency_key=idempotency_key,
            request_sha256=request_sha256,
        )
        if isinstance(selected, QuerySet):
            number = _insert_from(selected, bulk_update, limit + 1, using)
        else:
            number = len(ids or ())
            if number <= limit:
                BulkUpdateItem.objects.using(using).bulk_create(
                    (
                        BulkUpdateItem(bulk_update=bulk_update, conversation_id=conversation_id)
                        for conversation_id in ids or ()
                    ),
                    batch_size=ROWS_PER_STATEMENT,
                )
        if number > limit:
            raise SelectionTooLargeError(limit)
        if number == 0:
            raise EmptySelectionError("no conversation was selected")
    return bulk_update


def _insert_from(
    selected: QuerySet[Conversation], bulk_update: BulkUpdate, limit: int, using: str
) -> int:
    """Copy the selection's ids into items by one statement; how many there were, up to ``limit``.

    No row comes to us, so 100,000 rows cost no memory. Every column is a typed value, or
    PostgreSQL takes it for text.
    """
    if selected.query.is_sliced:
        # MariaDB allows no LIMIT in a subquery; who slices has said how many there are.
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
        Conversation.objects.using(using)
        .filter(pk__in=selected.order_by().values("pk"))
        .order_by()
        .values_list(*values.values())[:limit]
    )
    connection = connections[using]
    quote = connection.ops.quote_name
    columns = ", ".join(quote(str(_column(name).column)) for name in values)
    try:
        sql, parameters = rows.query.get_compiler(using).as_sql()
    except EmptyResultSet:  # Django sees that nothing can match, such as with none()
        return 0
    table = quote(BulkUpdateItem._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {table} ({columns}) {sql}", parameters)
        return int(cursor.rowcount)


def _column(name: str) -> Any:
    """A column of the items by its field's name."""
    return BulkUpdateItem._meta.get_field(name)


def expire_drafts() -> None:
    """Throw drafts away that nobody confirmed in time."""
    old = BulkUpdate.objects.filter(status=Status.DRAFT, created_at__lt=timezone.now() - DRAFT_LIFE)
    expired = list(old.values_list("pk", flat=True))
    if expired:
        BulkUpdateItem.objects.filter(bulk_update__in=expired).delete()
        BulkUpdate.objects.filter(pk__in=expired, status=Status.DRAFT).delete()


def start(bulk_update: BulkUpdate) -> None:
    """Record the intent and queue it. From now on it counts, and it is carried out by ``run``.

    Older waiting items of the opposite verb become ``superseded``; an item whose verb is open in
    another update already becomes ``already_queued``. An update that is no draft is left alone.
    """
    using = router.db_for_write(BulkUpdate)
    with transaction.atomic(using=using):
        now = timezone.now()
        started = (
            BulkUpdate.objects.using(using)
            .filter(pk=bulk_update.pk, status=Status.DRAFT)
            .update(status=Status.QUEUED, started_at=now)
        )
        if started:
            _supersede_older(bulk_update, using)
            drop_already_queued(bulk_update, using)
            finish_if_done(bulk_update.pk)
    bulk_update.refresh_from_db()


def _others_items(bulk_update: BulkUpdate, using: str) -> QuerySet[BulkUpdateItem]:
    """Items of other updates for conversations of this one."""
    mine = BulkUpdateItem.objects.using(using).filter(bulk_update=bulk_update)
    return (
        BulkUpdateItem.objects.using(using)
        .filter(conversation_id__in=mine.values("conversation_id"))
        .exclude(bulk_update=bulk_update)
        .exclude(bulk_update__status=Status.DRAFT)
    )


def _supersede_older(bulk_update: BulkUpdate, using: str) -> None:
    older = _others_items(bulk_update, using).filter(
        state=State.WAITING, bulk_update__is_active=not bulk_update.is_active
    )
    found: dict[int, list[int]] = {}
    for item_id, update_id in older.values_list("pk", "bulk_update_id"):
        found.setdefault(update_id, []).append(item_id)
    for update_id, item_ids in found.items():
        cancel_items(item_ids, "superseded", _named(bulk_update.pk, bulk_update.requested_by_name))
        finish_if_done(update_id)


def drop_already_queued(bulk_update: BulkUpdate, using: str) -> None:
    open_elsewhere = _others_items(bulk_update, using).filter(
        state__in=OPEN_STATES,
        bulk_update__is_active=bulk_update.is_active,
        bulk_update__status__in=(Status.QUEUED, Status.RUNNING),
    )
    found: dict[tuple[int, str], list[str]] = {}
    for conversation_id, update_id, name in open_elsewhere.values_list(
        "conversation_id", "bulk_update_id", "bulk_update__requested_by_name"
    ):
        found.setdefault((update_id, name), []).append(conversation_id)
    for (update_id, name), conversation_ids in found.items():
        for some in slices(conversation_ids):
            mine = BulkUpdateItem.objects.using(using).filter(
                bulk_update=bulk_update, conversation_id__in=some
            )
            item_ids = list(mine.values_list("pk", flat=True))
            cancel_items(item_ids, "already_queued", _named(update_id, name))


def _named(update_id: int, who: str) -> str:
    words = sentences.UPDATE_BY if who else sentences.UPDATE
    return words % {"number": update_id, "who": who}


def carry_out(
    bulk_update: BulkUpdate,
    tell: Callable[[BulkUpdate], None] = lambda bulk_update: None,
    *,
    or_here: bool = False,
) -> None:
    """Bring a queued update on its way and tell how it stands.

    Up to ``INLINE_LIMIT`` open items are carried out here and now, for ``INLINE_SECONDS`` at the
    most; more of them, and what is left over, are handed to ``DISPATCH``. At once, or after
    commit where a transaction is open.

    Args:
        tell: Called with the update as it stands then.
        or_here: Where ``DISPATCH`` finds nobody, begin with a larger one here as well.
    """

    def go() -> None:
        settings = get_settings()
        open_items = bulk_update.items.filter(state__in=OPEN_STATES)
        is_small = open_items[: settings.inline_limit + 1].count() <= settings.inline_limit
        if is_small:
            run(bulk_update, seconds=settings.inline_seconds)
        bulk_update.refresh_from_db()
        if bulk_update.status == Status.QUEUED:
            hand_over(bulk_update)
            if or_here and not is_small and bulk_update.dispatched_at is None:
                run(bulk_update, seconds=settings.inline_seconds)
                bulk_update.refresh_from_db()
        tell(bulk_update)

    after_commit(go)


def hand_over(bulk_update: BulkUpdate) -> None:
    """Ask ``DISPATCH`` for somebody else to carry it out, and remember whether there is anybody."""
    try:
        # A host's function that returns nothing has found somebody.
        is_taken = import_string(get_settings().dispatch)("update", bulk_update.pk) is not False
    except Exception:
        # A queue that is down costs nobody the update: it is in the ledger.
        logger.exception("update %s could not be dispatched", bulk_update.pk)
        is_taken = False
    bulk_update.dispatched_at = timezone.now() if is_taken else None
    BulkUpdate.objects.filter(pk=bulk_update.pk).update(dispatched_at=bulk_update.dispatched_at)


def driver_of(bulk_update: BulkUpdate) -> Driver:
    """Who carries out the rest. A worker that was asked for and never came is nobody."""
    if bulk_update.status in (Status.FINISHED, Status.CANCELLED):
        return "done"
    if bulk_update.has_live_lease:
        return "worker"
    asked_at = bulk_update.dispatched_at
    if asked_at is None or bulk_update.status == Status.STOPPED:
        return "nobody"
    last_seen_at = max(asked_at, bulk_update.lease_until or asked_at)
    return "worker" if timezone.now() - last_seen_at < ABANDONED_AFTER else "nobody"


def waiting_updates() -> QuerySet[BulkUpdate]:
    """Updates that wait for somebody to run them, oldest first: nobody holds a live lease."""
    release_dead_claims()
    now = timezone.now()
    nobody = Q(lease_until__isnull=True) | Q(lease_until__lte=now)
    items = BulkUpdateItem.objects.filter(bulk_update=OuterRef("pk"), state__in=OPEN_STATES)
    due = items.filter(Q(not_before__isnull=True) | Q(not_before__lte=now))
    return (
        BulkUpdate.objects.filter(nobody, status__in=(Status.QUEUED, Status.RUNNING))
        .filter(Exists(due) | ~Exists(items))
        .order_by("pk")
    )
