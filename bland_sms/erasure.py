"""Forgetting a person: their messages and numbers, wherever we keep them."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from operator import itemgetter
from typing import Any

from django.apps import apps
from django.db.models import CharField, Count, F, Field, JSONField, Model, Q, QuerySet, TextField
from django.utils.translation import gettext_lazy as _

from .conf import get_settings
from .customers import typed_key
from .database import after_commit, batches, by_key, patient, using, write_transaction
from .mirror import erase
from .models import (
    BulkUpdate,
    BulkUpdateItem,
    Conversation,
    DailyTotal,
    Erasure,
    Message,
    MonthlyTotal,
    PastedLine,
    StandingOrder,
    SyncRun,
    UncountedDay,
    UncountedMonth,
    WebhookDelivery,
)
from .models.fields import BlandIdField
from .person import ERASED, NotANumberError, Person
from .standing import forget_orders, orders_of_key

logger = logging.getLogger("bland_sms.erasure")

OUR_SESSION_KEYS = "bland_sms"
"""What the names of ours in a session begin with."""
_NOT_TEXT = {"body_sha256", "request_sha256", "idempotency_key", "requested_by_name"}
"""Columns that hold no words of Bland's or of staff about a customer."""


@dataclass
class Forgotten:
    """How many rows of which kind told of the person."""

    conversations: int = 0
    messages: int = 0
    history: int = 0
    """Entries in the admin's History."""
    items: int = 0
    """Items of updates with Bland's words in them."""
    updates: int = 0
    """Updates whose reason or selection named the number."""
    deliveries: int = 0
    """Webhooks with Bland's words in them."""
    orders: int = 0
    """Standing orders: those in force end, or go on under a fingerprint of the number."""
    lines: int = 0
    """Lines of pasted lists."""


def forget(
    who: str | Person, *, dry_run: bool = False, by: str = "", keep_orders: bool = False
) -> Forgotten:
    """Erase a person, such as one with this number, from all tables, in one transaction.

    The conversations stay as rows without a person: their state is still copied and can still
    be changed, but who it was and what was said never comes back. That a number was forgotten
    is kept nowhere, so a conversation that begins later is copied like any other; how much was
    erased when is kept as an :class:`~bland_sms.models.Erasure`.

    Args:
        who: A number in any notation; a national one gets ``DEFAULT_COUNTRY_CODE`` and no other.
            Or a person who was found already.
        dry_run: Count only.
        by: Who erases, for the record.
        keep_orders: The person's standing orders go on, under a fingerprint of the number that
            cannot be reversed without the site's secret; else they end.

    Raises:
        NotANumberError: nothing is erased.
    """
    person = who if isinstance(who, Person) else Person.of(who)
    forgotten = Forgotten()
    with write_transaction(Conversation):
        ids = list(person.conversations().order_by("pk").values_list("pk", flat=True))
        for some in batches(ids):
            _forget_conversations(some, forgotten, dry_run)
        forgotten.updates = _mask(BulkUpdate, person, dry_run)
        _mask(DailyTotal, person, dry_run)
        _mask(MonthlyTotal, person, dry_run)
        forgotten.items += _mask(BulkUpdateItem, person, dry_run)
        forgotten.deliveries += _mask(WebhookDelivery, person, dry_run)
        others = PastedLine.objects.exclude(conversation_id__in=ids)
        forgotten.lines += _mask(PastedLine, person, dry_run, others)
        _mask(SyncRun, person, dry_run)
        forgotten.history += _mask_history(person, dry_run)
        forgotten.orders = forget_orders(person.key, dry_run=dry_run, keep=keep_orders)
        forgotten.orders += _mask(StandingOrder, person, dry_run)
        if any(asdict(forgotten).values()) and not dry_run:
            Erasure.objects.create(requested_by_name=by[:255], counts=asdict(forgotten))
            logger.info("erased a person: %s", json.dumps(asdict(forgotten)))
    if not dry_run:
        _forget_searches(person)
        after_commit(partial(_forget_what_was_counted, person), DailyTotal)
    return forgotten


@dataclass(frozen=True)
class Affected:
    """A conversation that :func:`forget` would erase."""

    conversation_id: str
    number: str
    """Its last two characters."""
    messages: int


def affected(number: str) -> list[Affected]:
    """Which conversations :func:`forget` would erase. Raises NotANumberError."""
    return _affected(_left(Person.of(number)))


@dataclass(frozen=True)
class Foreseen:
    """What :func:`forget` would do, as far as indexes tell it: fast, however large the tables."""

    samples: list[Affected]
    conversations: int
    messages: int
    orders: int
    """Standing orders that are not over, and would end."""


def foresee(person: Person, *, most: int, samples: int = 20) -> Foreseen:
    """For a page that asks first: the words in the ledger and the logs are not looked for.

    Args:
        most: Conversations and messages are counted no further.
    """
    rows = _left(person)
    orders = orders_of_key(person.key)
    return Foreseen(
        samples=_affected(rows[:samples]),
        conversations=rows[:most].count(),
        messages=Message.objects.filter(conversation__in=rows.order_by())[:most].count(),
        orders=orders.filter(StandingOrder.not_over()).count(),
    )


def _left(person: Person) -> QuerySet[Conversation]:
    return person.conversations().filter(erased_at__isnull=True).order_by("pk")


def _affected(rows: QuerySet[Conversation]) -> list[Affected]:
    found = list(rows.only("pk", "user_number"))
    counts: Counter[str] = Counter()
    for some in batches(found):
        messages = Message.objects.filter(conversation__in=[row.pk for row in some]).order_by()
        counts.update(dict(messages.values_list("conversation").annotate(Count("pk"))))
    return [Affected(row.pk, f"…{row.user_number[-2:]}", counts[row.pk]) for row in found]


@dataclass(frozen=True)
class Trace:
    """A place where a person is still named."""

    table: str
    column: str
    pk: str


def traces(number: str) -> Iterator[Trace]:
    """Wherever a number or an address still stands: every text column of every table of ours,
    the admin's History, and sessions in the database.

    Raises:
        NotANumberError: an empty text would be found everywhere.
    """
    key = typed_key(number, get_settings().default_country_code)
    if not key:
        raise NotANumberError(_("not a phone number and not an address"))
    person = Person.with_key(key)
    own = list(apps.get_app_config("bland_sms").get_models())
    for model in [*own, *_models("admin.LogEntry")]:
        columns = _text_columns(model)
        rows = model._default_manager.using(using(model))
        for pk, *values in by_key(rows.values_list("pk", *columns), key=itemgetter(0)):
            for column, value in zip(columns, values, strict=True):
                text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                if person.is_in(text) or (column == "customer_key" and value == key):
                    yield Trace(model._meta.db_table, column, str(pk))
    for model in _models("sessions.Session"):
        for session in by_key(model._default_manager.all()):
            told = json.dumps(session.get_decoded(), ensure_ascii=False, default=str)
            if person.is_in(told):
                yield Trace(model._meta.db_table, "session_data", "…")


def _models(name: str) -> list[type[Model]]:
    app_label = name.split(".", maxsplit=1)[0]
    return [apps.get_model(name)] if apps.is_installed(f"django.contrib.{app_label}") else []


def _text_columns(model: type[Model]) -> list[str]:
    """Columns that may hold text that people wrote; ids and hashes do not."""
    fields: Sequence[Field[Any, Any]] = model._meta.concrete_fields
    return [
        field.attname
        for field in fields
        if isinstance(field, (CharField, TextField, JSONField))
        and not isinstance(field, BlandIdField)
        and not field.choices
        and field.name not in _NOT_TEXT
    ]


# --- conversations ------------------------------------------------------------------------------


def _forget_conversations(ids: Sequence[str], forgotten: Forgotten, dry_run: bool) -> None:
    items = BulkUpdateItem.objects.filter(conversation_id__in=ids).exclude(message="")
    calls = WebhookDelivery.objects.filter(conversation_id__in=ids).exclude(reason="")
    forgotten.items += items.count() if dry_run else items.update(message="")
    forgotten.deliveries += calls.count() if dry_run else calls.update(reason="")
    # Of an ending, such as "0001", only the conversation tells whose it is. What names the whole
    # person is counted where it is masked.
    lines = PastedLine.objects.filter(conversation_id__in=ids).exclude(text=ERASED)
    forgotten.lines += lines.count() if dry_run else lines.update(text=ERASED)
    forgotten.history += _forget_history(ids, dry_run)
    if dry_run:
        forgotten.conversations += len(ids)
        forgotten.messages += Message.objects.filter(conversation__in=ids).count()
    else:
        erased = erase(ids)
        forgotten.conversations += len(erased.conversation_ids)
        forgotten.messages += erased.messages


def _forget_history(ids: Sequence[str], dry_run: bool) -> int:
    if not apps.is_installed("django.contrib.admin"):
        return 0
    from django.contrib.admin.models import LogEntry
    from django.contrib.contenttypes.models import ContentType

    entries = LogEntry.objects.filter(
        content_type=ContentType.objects.get_for_model(Conversation), object_id__in=ids
    )
    # MariaDB finds "CONV_1" as well where "conv_1" is asked for, and that is another person.
    wanted = set(ids)
    found = [pk for pk, object_id in entries.values_list("pk", "object_id") if object_id in wanted]
    if not dry_run:
        for some in batches(found):
            LogEntry.objects.filter(pk__in=some).update(
                object_repr=F("object_id"), change_message=ERASED
            )
    return len(found)


def _mask_history(person: Person, dry_run: bool) -> int:
    """The same for what the History of our other rows says, such as an update's reason."""
    masked = 0
    for model in _models("admin.LogEntry"):
        entries = model._default_manager.filter(
            content_type__app_label=Conversation._meta.app_label
        )
        masked += _mask(model, person, dry_run, entries)
    return masked


@patient
def _forget_what_was_counted(person: Person) -> None:
    """Mask the totals once more: another process may have read a reason before it was masked, and
    have kept it in a total that was not there yet. While it counts it holds the notes of its days,
    so whoever has them all has waited for it; who counts later reads what was masked.
    """
    for model, note in ((DailyTotal, UncountedDay), (MonthlyTotal, UncountedMonth)):
        with write_transaction(model):
            notes = note._default_manager.using(using(note)).order_by("pk")
            list(notes.select_for_update().values_list("pk", flat=True))
            _mask(model, person, dry_run=False)


def _forget_searches(person: Person) -> None:
    """Take the person out of the searches that staff's sessions keep. There may be very many
    sessions, most of them the host's: each by itself, and none is locked for the others."""
    for model in _models("sessions.Session"):
        for session in by_key(model._default_manager.all()):
            told = session.get_decoded()
            ours = {name: told[name] for name in told if name.startswith(OUR_SESSION_KEYS)}
            masked = person.masked(ours)
            if masked != ours:
                data = session.get_session_store_class()().encode({**told, **masked})
                same = model._default_manager.filter(pk=session.pk)
                same.filter(session_data=session.session_data).update(session_data=data)


# --- words that name a person ---------------------------------------------------------------


def _mask(
    model: type[Model], person: Person, dry_run: bool, rows: QuerySet[Any] | None = None
) -> int:
    """Take the person out of all text columns of a table, or of some rows; in how many rows."""
    columns = _text_columns(model)
    is_empty = Q(**{name: "" for name in columns if not _is_json(model, name)})
    is_empty &= Q(**{name: {} for name in columns if _is_json(model, name)})
    rows = model._default_manager.all() if rows is None else rows
    rows = rows.exclude(is_empty)
    masked = 0
    for pk, *told in by_key(rows.values_list("pk", *columns), key=itemgetter(0)):
        values = dict(zip(columns, told, strict=True))
        changed = {
            name: person.masked(value)
            for name, value in values.items()
            if person.masked(value) != value
        }
        if not changed:
            continue
        masked += 1
        if not dry_run:
            for name, value in changed.items():
                length = model._meta.get_field(name).max_length  # type: ignore[union-attr]
                changed[name] = value[:length] if isinstance(value, str) and length else value
            model._default_manager.filter(pk=pk).update(**changed)
    return masked


def _is_json(model: type[Model], name: str) -> bool:
    return isinstance(model._meta.get_field(name), JSONField)
