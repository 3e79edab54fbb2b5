"""Makes standing orders: one, or many of a list."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.db import IntegrityError
from django.db.models import QuerySet
from django.utils import timezone

from ..conf import get_settings
from ..customers import bare, customer_key, is_address, is_number, may_be_whole, typed_key
from ..database import batches, using, write_transaction
from ..models import Conversation, StandingOrder
from ..people import name_of
from ..reasons import Failure
from ..updates.transitions import note, note_all
from .applying import look_for
from .ending import end_orders, expire
from .rows import fingerprints, locked, names_of, to_milliseconds

if TYPE_CHECKING:
    from .reading import Wish

Source = StandingOrder.Source
WISHES_AT_ONCE = 200
SHORTEST_NUMBER = 8
"""Digits from which on a number of ours is no short code and gets its country."""


class OrderError(ValueError):
    """An order that cannot be made, or not be changed so. ``str()`` is a sentence."""

    def __init__(self, code: str, **params: Any) -> None:
        super().__init__(code)
        self.failure = Failure(code, params)

    @property
    def more(self) -> dict[str, Any]:
        """For programs: the order that is in the way."""
        number = self.failure.params.get("number")
        return {} if number is None else {"standing_order": number}

    @property
    def code(self) -> str:
        return self.failure.code

    def __str__(self) -> str:
        return str(self.failure)


# --- who and where ------------------------------------------------------------------------------


def key_of(customer: str) -> str:
    """The key of a customer, from a number or address in any notation. Raises OrderError."""
    country_code = get_settings().default_country_code
    key = typed_key(customer, country_code)
    identity = bare(customer)
    is_whole = is_number(identity) and may_be_whole(f"+{key}", country_code)
    if key and (is_whole or is_address(identity) or _is_known(key)):
        return key
    raise OrderError("no_customer")


def as_typed(key: str) -> str:
    """A key in a notation that is read as this key: no country is added to what nobody typed."""
    return f"+{key}" if key.isdigit() else key


def _is_known(key: str) -> bool:
    return Conversation.objects.filter(customer_key=key).exists()


def our_number(text: str) -> str:
    """A number of ours in one notation, so that the database can tell whether it is the same."""
    key = customer_key(text)
    if not key.isdigit() or len(key) < SHORTEST_NUMBER:
        return key[:64]
    return f"+{typed_key(text, get_settings().default_country_code)}"[:64]


def is_visible(customer: str, visible: QuerySet[Conversation] | None) -> bool:
    """Whether a person may order something about a customer. Raises OrderError: not a customer."""
    return visible is None or visible.filter(customer_key=key_of(customer)).exists()


# --- making -------------------------------------------------------------------------------------


def make(
    customer: str,
    reason: str,
    *,
    agent_number: str = "",
    until: datetime | None = None,
    spare_handed_off: bool = True,
    requested_by: Any = None,
    requested_by_name: str = "",
    source: str = Source.COMMAND,
    needs_review: bool = False,
    starts_at: datetime | None = None,
    idempotency_key: str | None = None,
    request_sha256: str = "",
) -> StandingOrder:
    """Keep a customer's conversations inactive from now on. What is older is left as it is.

    A suspended order for the same customer and number is replaced.

    Args:
        customer: A number or address in any notation; a national number gets
            ``DEFAULT_COUNTRY_CODE``.
        agent_number: With this number of ours only; ``""``: with all.
        until: Aware; ``None``: for good.
        spare_handed_off: Leave alone what a person has taken over.
        requested_by: The user whose wish it is; ``None``: an operator's, or a rule's.
        starts_at: What is newer than this is deactivated; ``None``: than now.

    Raises:
        OrderError: ``no_customer``, ``no_reason``, ``until_past``, or ``order_exists``.
        IntegrityError: the requester has an order of that ``idempotency_key`` already.
    """
    order = _order_of(customer, reason, agent_number, until, spare_handed_off)
    order.source, order.needs_review = source, needs_review
    order.starts_at = starts_at or order.starts_at
    order.idempotency_key, order.request_sha256 = idempotency_key, request_sha256
    _sign(order, requested_by, requested_by_name)
    return store(order)


def make_many(
    wishes: Sequence[Wish],
    reason: str = "",
    *,
    agent_number: str = "",
    until: datetime | None = None,
    spare_handed_off: bool = True,
    requested_by: Any = None,
    source: str = Source.COMMAND,
    visible: QuerySet[Conversation] | None = None,
) -> list[StandingOrder | OrderError]:
    """Make an order for each wish of a list, by few statements; what became of each.

    Args:
        reason: With ``agent_number``, ``until`` and ``spare_handed_off``: for wishes that do not
            say it themselves. The others are those of :func:`make`.
        visible: The conversations of those who may be ordered; ``None``: anybody.
    """
    outcomes: list[StandingOrder | OrderError] = []
    for some in batches(wishes, WISHES_AT_ONCE):
        asked: list[StandingOrder | OrderError] = []
        for wish in some:
            if wish.failure:
                asked.append(OrderError(wish.failure.code, **wish.failure.params))
                continue
            try:
                order = _order_of(
                    wish.customer,
                    wish.reason or reason,
                    agent_number if wish.agent_number is None else wish.agent_number,
                    wish.until if wish.says_until else until,
                    spare_handed_off if wish.spare_handed_off is None else wish.spare_handed_off,
                )
            except OrderError as error:
                asked.append(error)
                continue
            order.source = source
            _sign(order, requested_by)
            asked.append(order)
        outcomes += _store_many(_only(visible, asked), requested_by)
    return outcomes


def _only(
    visible: QuerySet[Conversation] | None, asked: list[StandingOrder | OrderError]
) -> list[StandingOrder | OrderError]:
    """Refuse orders for customers who may not be seen, as if there were none."""
    if visible is None:
        return asked
    keys = {one.customer_key for one in asked if isinstance(one, StandingOrder)}
    rows = visible.filter(customer_key__in=list(keys)).order_by()
    seen = set(rows.values_list("customer_key", flat=True))
    return [
        OrderError("customer_not_found")
        if isinstance(one, StandingOrder) and one.customer_key not in seen
        else one
        for one in asked
    ]


def _order_of(
    customer: str, reason: str, agent_number: str, until: datetime | None, spare_handed_off: bool
) -> StandingOrder:
    """An order that begins now, and is not kept yet. Raises OrderError."""
    now = to_milliseconds(timezone.now())
    if not reason.strip():
        raise OrderError("no_reason")
    if until is not None and until <= now:
        raise OrderError("until_past")
    return StandingOrder(
        customer_key=key_of(customer),
        agent_number=our_number(agent_number),
        reason=reason.strip()[:200],
        starts_at=now,
        until=until,
        spare_handed_off=spare_handed_off,
    )


def _sign(order: StandingOrder, user: Any, name: str = "") -> None:
    order.requested_by = user
    order.requested_by_name = name_of(user) if user else name


def _store_many(
    asked: Sequence[StandingOrder | OrderError], user: Any
) -> list[StandingOrder | OrderError]:
    """Keep the orders for customers of whom there is none, all at once; the others one by one."""
    orders = [one for one in asked if isinstance(one, StandingOrder)]
    aliases = fingerprints({order.customer_key for order in orders})
    known = StandingOrder.objects.filter(
        in_force=True, customer_key__in=[*aliases.keys(), *aliases.values()]
    ).values_list("customer_key", flat=True)
    taken = {aliases.get(name, name) for name in known}
    free: dict[str, StandingOrder] = {}
    for order in orders:
        if order.customer_key not in taken:
            free.setdefault(order.customer_key, order)
    try:
        with write_transaction(StandingOrder):
            StandingOrder.objects.bulk_create(free.values())
            # MySQL does not tell the keys of many rows that were inserted at once.
            written = StandingOrder.objects.using(using(StandingOrder))
            rows = written.filter(in_force=True, customer_key__in=list(free))
            made = {row.customer_key: row for row in rows}
            note_all(list(made.values()), user, "history_order_made")
    except IntegrityError:  # another process has made one of them meanwhile
        made = {}
    look_for(list(made.values()))
    outcomes: list[StandingOrder | OrderError] = []
    for one in asked:
        if isinstance(one, OrderError):
            outcomes.append(one)
        elif one.customer_key in made and free[one.customer_key] is one:
            outcomes.append(made[one.customer_key])
        else:
            one.pk = None
            outcomes.append(_stored(one))
    return outcomes


def _stored(order: StandingOrder) -> StandingOrder | OrderError:
    try:
        return store(order)
    except OrderError as error:
        return error


def store(order: StandingOrder) -> StandingOrder:
    """Keep an order and look for what it wants. Raises OrderError: there is one in force."""
    with write_transaction(StandingOrder):
        before = locked(
            StandingOrder.objects.filter(
                customer_key__in=names_of(order.customer_key),
                agent_number=order.agent_number,
                in_force=True,
            )
        )
        for other in before:
            if other.state == "in_force":
                raise OrderError("order_exists", number=other.pk)
        replaced = [one for one in before if one.state == "suspended"]
        end_orders(replaced, order.requested_by)
        expire(StandingOrder.objects.filter(pk__in=[one.pk for one in before]))
        try:
            with write_transaction(StandingOrder):
                order.save(force_insert=True)
        except IntegrityError:
            other_pk = (
                StandingOrder.objects.filter(
                    StandingOrder.not_over(),
                    customer_key=order.customer_key,
                    agent_number=order.agent_number,
                )
                .values_list("pk", flat=True)
                .first()
            )
            if other_pk is None:
                raise  # the same Idempotency-Key at once
            raise OrderError("order_exists", number=other_pk) from None
        for one in replaced:
            note(one, order.requested_by, "history_order_replaced", number=order.pk)
        note(order, order.requested_by, "history_order_made")
    look_for([order])
    return order
