"""Fills the tables by the database itself: a million conversations in a minute or two.

Each statement is one ``INSERT ... SELECT`` over a series of numbers. Time goes on with the
number, as in a mirror that was copied in order; ids do not, since Bland's are random. Whatever the
size, the rows lie in the last thirteen months.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone

from django.db import connection, models

from bland_sms.models import (
    BulkUpdate,
    BulkUpdateItem,
    Conversation,
    ConversationEvent,
    Message,
    UncountedDay,
    WebhookDelivery,
)

DAYS = 395
OUR_NUMBERS = 37
OF_AN_UPDATE = 200
"""Conversations from which an update takes every other one."""
MOST_ROWS = 10_000_000
"""Ids have seven digits."""
SCATTER = 7_654_321
"""Prime to ``MOST_ROWS``: multiplied by it, numbers in order become ids in none."""
PER_STATEMENT = 500_000
ITERATIONS = {True: "max_recursive_iterations", False: "cte_max_recursion_depth"}
"""MariaDB's and MySQL's name for how long a series may be."""


def grow(begin: int, end: int, *, others: bool = True) -> None:
    """Add conversations, and with ``others`` 3 messages, 2 events and half an item for each.

    Numbers below ``begin`` are there already, or are left to somebody else.
    """
    span = max(1, end - begin)
    first = int((datetime.now(timezone.utc) - timedelta(days=DAYS)).timestamp())
    at = f"({first} + (n - {begin}) * {DAYS * 86_000} / {span})"
    key = scattered("n")
    filled: list[type[models.Model]] = [Conversation]
    if others:
        filled += [ConversationEvent, Message, BulkUpdateItem]
    indexes = drop_indexes(filled)
    conversations = {
        "id": key,
        "user_number": text("+1555", "n", 7),
        "agent_number": our_number("n"),
        "is_active": f"n % 100 < 20 AND {true()}",
        "created_at": moment(at),
        "updated_at": moment(f"({at} + 900)"),
        "last_activity_at": moment(f"({at} + 900)"),
        "last_message_at": moment(f"({at} + 900)"),
        "observed_at": moment(f"({at} + 960)"),
        "facts_updated_at": moment(f"({at} + 900)"),
        "facts_observed_at": moment(f"({at} + 960)"),
        "transcript_observed_at": moment(f"({at} + 960)"),
        "human_handoff_at": f"CASE WHEN n % 100 < 5 THEN {moment(f'({at} + 600)')} END",
        "timed_out_at": f"CASE WHEN n % 100 >= 60 THEN {moment(f'({at} + 900)')} END",
        "ended_by_end_call_node": f"n % 100 >= 30 AND {true()}",
        "message_count": "3",
        "last_message": text("Thank you, that was all. Number ", "n", 7),
        "customer_key": text("1555", "n", 7),
        "user_digits_reversed": reversed_digits(text("1555", "n", 7)),
    }
    insert(Conversation, conversations, begin, end)
    if others:
        grow_others(begin, end, at)
    for model, index in indexes:
        with connection.schema_editor() as editor:
            editor.add_index(model, index)
    settle()


def grow_others(begin: int, end: int, at: str) -> None:
    """What belongs to the conversations. PostgreSQL only."""
    key = scattered("n")
    words = (
        "'parcel order' || (n % 100)",
        "'yes, word' || (n % 5000)",
        "'thanks for number ' || n",
    )
    for place, words_of_one in enumerate(words):
        message = {
            "conversation_id": key,
            "bland_id": f"'m{place}'",
            "position": str(place),
            "sender": "'USER'" if place % 2 else "'AGENT'",
            "text": words_of_one,
            "created_at": moment(f"({at} + {300 * place})"),
        }
        insert(Message, message, begin, end)
    ended = (
        "CASE WHEN n % 100 >= 60 THEN 'timed_out' "
        "WHEN n % 100 < 5 THEN 'handed_off' ELSE 'completed' END"
    )
    for kind, later, before, after in (
        ("'started'", 0, "''", "'active'"),
        (ended, 900, "'active'", "'completed'"),
    ):
        event = {
            "conversation_id": key,
            "kind": kind,
            "at": moment(f"({at} + {later})"),
            "observed_at": moment(f"({at} + 960)"),
            "source": "1",
            "from_status": before,
            "to_status": after,
        }
        insert(ConversationEvent, event, begin, end)
    delivery = {
        "body_sha256": "lpad(n::text, 64, '0')",
        "conversation_id": key,
        "state": "'processed'",
        "received_at": moment(at),
        "processed_at": moment(at),
    }
    insert(WebhookDelivery, delivery, begin, end, every=10)
    grow_ledger(begin, end, at)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {UncountedDay._meta.db_table} (day) "
            f"SELECT current_date - n FROM generate_series(1, {DAYS}) AS n"
        )


def grow_ledger(begin: int, end: int, at: str) -> None:
    """Updates of 100 conversations each, over every other conversation; all of them finished.

    One of each failed, of a conversation that timed out: with ten thousand conversations there is
    a page of such updates, and of such conversations, as there is with a million.
    """
    last = BulkUpdate.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    first = begin - begin % OF_AN_UPDATE + OF_AN_UPDATE
    update_id = f"({last} + n / {OF_AN_UPDATE} - {begin // OF_AN_UPDATE})"
    failed = f"n % {OF_AN_UPDATE} = 60"
    counts = {**dict.fromkeys(BulkUpdateItem.State.values, 0), "changed": 99, "failed": 1}
    update = {
        "id": update_id,
        "is_active": "false",
        "status": "'finished'",
        "source": "'admin'",
        "requested_by_name": "'dana'",
        "reason": f"'reason ' || (n / {OF_AN_UPDATE} % 20)",
        "counts_at_rest": f"'{json.dumps(counts)}'::jsonb",
        "created_at": moment(at),
        "started_at": moment(at),
        "finished_at": moment(f"({at} + 60)"),
    }
    insert(BulkUpdate, update, first, end, every=OF_AN_UPDATE)
    item = {
        "bulk_update_id": update_id,
        "conversation_id": scattered("n"),
        "state": f"CASE WHEN {failed} THEN 'failed' ELSE 'changed' END",
        "error_code": f"CASE WHEN {failed} THEN 'http_400' ELSE '' END",
        "http_status": f"CASE WHEN {failed} THEN 400 ELSE 200 END",
        "previous_is_active": "true",
        "attempts": "1",
        "finished_at": moment(at),
    }
    insert(BulkUpdateItem, item, first, end, every=2)
    with connection.cursor() as cursor:
        table = BulkUpdate._meta.db_table
        cursor.execute(f"SELECT setval('{table}_id_seq', (SELECT max(id) FROM {table}))")


# --- how a database says it -------------------------------------------------------------------


def insert(
    model: type[models.Model], values: Mapping[str, str], begin: int, end: int, *, every: int = 1
) -> None:
    """One row for each number; a column that is not named has the default of its field."""
    columns, expressions, parameters = [], [], []
    for field in model._meta.concrete_fields:
        if field.generated or (field.primary_key and field.column not in values):
            continue
        columns.append(connection.ops.quote_name(field.column))
        given = values.get(field.column)
        if given is None:
            given, default = "%s", field.get_db_prep_save(field.get_default(), connection)
            parameters.append(default)
            if connection.vendor == "postgresql":
                given = f"CAST(%s AS {field.rel_db_type(connection) or field.db_type(connection)})"
        else:
            given = given.replace("%", "%%")
        expressions.append(given)
    table = connection.ops.quote_name(model._meta.db_table)
    into = f"INSERT INTO {table} ({', '.join(columns)})"
    chosen = f"SELECT {', '.join(expressions)} FROM"
    with connection.cursor() as cursor:
        for lowest in range(begin, end, PER_STATEMENT):
            highest = min(end, lowest + PER_STATEMENT) - 1
            if connection.vendor == "postgresql":
                numbers = f"generate_series({lowest}::bigint, {highest}, {every}) AS n"
                cursor.execute(f"{into} {chosen} {numbers}", parameters)
                continue
            if connection.vendor == "mysql":
                cursor.execute(f"SET SESSION {ITERATIONS[connection.mysql_is_mariadb]} = 1000000")
            numbers = (
                f"WITH RECURSIVE numbers (n) AS (SELECT {lowest} UNION ALL "
                f"SELECT n + {every} FROM numbers WHERE n + {every} <= {highest})"
            )
            cursor.execute(f"{into} {numbers} {chosen} numbers", parameters)


def scattered(number: str) -> str:
    """An id; numbers in order have ids in none."""
    return text("row-", f"({number} * {SCATTER} % {MOST_ROWS})", 7)


def our_number(number: str) -> str:
    return text("+1666000", f"({number} % {OUR_NUMBERS})", 4)


def text(prefix: str, number: str, digits: int) -> str:
    if connection.vendor == "sqlite":
        return f"printf('{prefix}%0{digits}d', {number})"
    if connection.vendor == "mysql":
        return f"concat('{prefix}', lpad({number}, {digits}, '0'))"
    return f"('{prefix}' || lpad(({number})::text, {digits}, '0'))"


def reversed_digits(expression: str) -> str:
    if connection.vendor == "sqlite":  # it has no reverse()
        return " || ".join(f"substr({expression}, {place}, 1)" for place in range(11, 0, -1))
    return f"reverse({expression})"


def moment(seconds: str) -> str:
    if connection.vendor == "sqlite":
        return f"datetime({seconds}, 'unixepoch')"
    if connection.vendor == "mysql":
        return f"('1970-01-01' + INTERVAL floor({seconds}) SECOND)"
    return f"to_timestamp({seconds})"


def true() -> str:
    return "true" if connection.vendor == "postgresql" else "1"


def drop_indexes(
    filled: list[type[models.Model]],
) -> list[tuple[type[models.Model], models.Index]]:
    """Without their indexes tables are filled several times as fast."""
    dropped = []
    with connection.schema_editor() as editor:
        for model in filled:
            for index in model._meta.indexes:
                editor.remove_index(model, index)
                dropped.append((model, index))
    return dropped


def settle() -> None:
    """What autovacuum does in the minutes after."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("VACUUM ANALYZE")
        elif connection.vendor == "sqlite":
            cursor.execute("ANALYZE")
        else:
            cursor.execute(f"ANALYZE TABLE {Conversation._meta.db_table}")
