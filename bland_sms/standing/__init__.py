"""Standing orders: the conversations of a customer are kept inactive until the order is lifted."""

from typing import TYPE_CHECKING

from ..on_demand import on_demand

if TYPE_CHECKING:
    from .applying import carry_out_waiting, catch_up, look
    from .delay import Delay, how_long
    from .ending import expire, forget_orders, lift, lift_many, orders_of_key
    from .making import OrderError, as_typed, is_visible, key_of, make, make_many, our_number
    from .orders import (
        APPLIED,
        again,
        orders_of,
        renew,
        review,
        see_words,
        suspended_words,
        tells_what_it_did,
        visible_orders,
        why_suspended,
    )
    from .reading import Wish, is_table, read_customers, read_until
    from .rows import active_conversations, is_about, keeps, names_of, wants
    from .rule import COUNT_CAP, asked_to_stop, look_for_stop_words

__getattr__ = on_demand(
    __name__,
    applying="carry_out_waiting catch_up look",
    delay="Delay how_long",
    ending="expire forget_orders lift lift_many orders_of_key",
    making="OrderError as_typed is_visible key_of make make_many our_number",
    orders="APPLIED again orders_of renew review see_words suspended_words tells_what_it_did "
    "visible_orders why_suspended",
    reading="Wish is_table read_customers read_until",
    rows="active_conversations is_about keeps names_of wants",
    rule="COUNT_CAP asked_to_stop look_for_stop_words",
)

__all__ = [
    "APPLIED",
    "COUNT_CAP",
    "Delay",
    "OrderError",
    "Wish",
    "active_conversations",
    "again",
    "as_typed",
    "asked_to_stop",
    "carry_out_waiting",
    "catch_up",
    "expire",
    "forget_orders",
    "how_long",
    "is_about",
    "is_table",
    "is_visible",
    "keeps",
    "key_of",
    "lift",
    "lift_many",
    "look",
    "look_for_stop_words",
    "make",
    "make_many",
    "names_of",
    "orders_of",
    "orders_of_key",
    "our_number",
    "read_customers",
    "read_until",
    "renew",
    "review",
    "see_words",
    "suspended_words",
    "tells_what_it_did",
    "visible_orders",
    "wants",
    "why_suspended",
]
