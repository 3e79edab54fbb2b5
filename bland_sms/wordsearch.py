"""Finds words in messages through the database's own full-text index, which a command makes.

PostgreSQL and MySQL index the column itself; SQLite keeps a table of its own up to date by
triggers. So messages that are deleted, such as by an erasure, leave the index with their row.
"""

from __future__ import annotations

import re
import string
from contextlib import suppress
from dataclasses import dataclass

from django.db import Error, OperationalError, connections, transaction
from django.db.models import BooleanField, QuerySet, Subquery
from django.db.models.expressions import RawSQL

from .database import using
from .models import Conversation, Message
from .models.conversation import SYNTHETIC_TEXT

INDEX = "bland_sms_message_words"
MOST_FOUND = 50
MOST_TERMS = 10
NEWEST_CONVERSATIONS = 1000
"""Those of the last activity, where PostgreSQL looks first: enough for a frequent word."""
MOST_LOOKED_AT = 10_000
"""Of messages with very frequent words: those that were copied last."""
SECONDS = 1
"""A search that takes longer is ended: too many messages have these words."""
_INDEXED_CHARACTERS = 20_000
"""Of a message, since PostgreSQL refuses to index very long ones."""

_DOCUMENT = "to_tsvector('simple', translate(left({table}.text, {length}), '{signs}', '{spaces}'))"
"""What PostgreSQL indexes. Signs become spaces: its parser takes ``-1234``, ``3.50``, an address
and a URL for one word each, so that no part of them would be found."""
_SIGNS = string.punctuation.replace("%", "").replace("'", "")
"""Without what SQL writes otherwise: PostgreSQL never takes these two for a part of a word."""

_CREATE = {
    "postgresql": (
        "CREATE INDEX {concurrently} IF NOT EXISTS {index} ON {table} USING gin ({document})",
    ),
    "mysql": (
        # Else "the" and "www" are in no message, and a search for them and others finds nothing.
        "SET SESSION innodb_ft_enable_stopword = OFF",
        "ALTER TABLE {table} ADD FULLTEXT INDEX {index} (text)",
        "SET SESSION innodb_ft_enable_stopword = DEFAULT",
    ),
    "sqlite": (
        "CREATE VIRTUAL TABLE {index} USING fts5(text, content='{table}', content_rowid='id')",
        "CREATE TRIGGER {index}_new AFTER INSERT ON {table} BEGIN "
        "INSERT INTO {index} (rowid, text) VALUES (new.id, new.text); END",
        "CREATE TRIGGER {index}_gone AFTER DELETE ON {table} BEGIN "
        "INSERT INTO {index} ({index}, rowid, text) VALUES ('delete', old.id, old.text); END",
        "CREATE TRIGGER {index}_changed AFTER UPDATE ON {table} BEGIN "
        "INSERT INTO {index} ({index}, rowid, text) VALUES ('delete', old.id, old.text); "
        "INSERT INTO {index} (rowid, text) VALUES (new.id, new.text); END",
        "INSERT INTO {index} ({index}) VALUES ('rebuild')",
    ),
}
_DROP = {
    "postgresql": ("DROP INDEX IF EXISTS {index}",),
    "mysql": ("ALTER TABLE {table} DROP INDEX {index}",),
    "sqlite": (
        *(f"DROP TRIGGER IF EXISTS {{index}}_{name}" for name in ("new", "gone", "changed")),
        "DROP TABLE IF EXISTS {index}",
    ),
}
_EXISTS = {
    "postgresql": "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass('{index}') AND indisvalid",
    "mysql": "SELECT 1 FROM information_schema.statistics WHERE table_schema = DATABASE() "
    "AND index_name = '{index}' LIMIT 1",
    "sqlite": "SELECT 1 FROM sqlite_master WHERE name = '{index}'",
}
_MATCHES = {
    "postgresql": "{document} @@ plainto_tsquery('simple', %s)",
    "mysql": "MATCH ({table}.text) AGAINST (%s IN BOOLEAN MODE)",
    "sqlite": "{table}.id IN (SELECT rowid FROM {index} WHERE {index} MATCH %s "
    "ORDER BY rowid DESC LIMIT {most})",
}


@dataclass(frozen=True)
class Found:
    """Messages with all the words, newest first."""

    messages: list[Message]
    is_cut: bool = False
    """Whether there are more of them."""
    is_of_newest: bool = False
    """Whether only those copied last were looked at, since too many have the words."""


def exists() -> bool:
    """Whether there is an index to search in."""
    with connections[using(Message)].cursor() as cursor:
        cursor.execute(_sql(_EXISTS[_vendor()]))
        return cursor.fetchone() is not None


def create() -> None:
    """Make the index. On PostgreSQL writing goes on meanwhile; elsewhere it waits."""
    if exists():
        return
    if _is_postgresql():
        drop()  # one that was being made when the process was killed
    _execute(_CREATE[_vendor()])


def drop() -> None:
    """Remove the index and whatever keeps it up to date."""
    if exists() or _is_postgresql():
        _execute(_DROP[_vendor()])


def find(text: str, conversations: QuerySet[Conversation] | None = None) -> Found:
    """The newest messages that contain all of these words.

    Args:
        conversations: Of these only; ``None``: of all.
    """
    terms = re.findall(r"\w+", text.replace("\0", " "))[:MOST_TERMS]
    if _vendor() == "mysql":
        terms = _indexed(terms)
    if not terms:
        return Found([])
    quoted = {
        "postgresql": " ".join(terms),
        "mysql": " ".join(f'+"{term}"' for term in terms),
        "sqlite": " ".join(f'"{term}"' for term in terms),
    }[_vendor()]
    matches = RawSQL(_sql(_MATCHES[_vendor()]), [quoted], output_field=BooleanField())  # noqa: S611
    messages = Message.objects.using(using(Message)).filter(matches).exclude(text=SYNTHETIC_TEXT)
    if conversations is not None:
        messages = messages.filter(conversation__in=conversations.order_by())
    newest = messages.select_related("conversation").order_by("-created_at", "-pk")
    try:
        found = _in_time(_of_the_newest(newest, conversations)) if _is_postgresql() else []
        if len(found) <= MOST_FOUND:
            found = _in_time(newest[: MOST_FOUND + 1])
    except OperationalError as error:
        if not _took_too_long(error):
            raise
        copied = Message.objects.using(messages.db).order_by("-pk").values_list("pk", flat=True)
        before = [*copied[MOST_LOOKED_AT : MOST_LOOKED_AT + 1], 0][0]
        return Found(list(newest.filter(pk__gt=before)[:MOST_FOUND]), is_of_newest=True)
    return Found(found[:MOST_FOUND], is_cut=len(found) > MOST_FOUND)


def _indexed(terms: list[str]) -> list[str]:
    """Those that MySQL and MariaDB index by their length; one more that is required is in none."""
    with connections[using(Message)].cursor() as cursor:
        cursor.execute("SELECT @@innodb_ft_min_token_size, @@innodb_ft_max_token_size")
        shortest, longest = cursor.fetchone()
    return [term for term in terms if shortest <= len(term) <= longest]


def _of_the_newest(
    newest: QuerySet[Message], conversations: QuerySet[Conversation] | None
) -> QuerySet[Message]:
    """The first of them, as long as they are newer than all other conversations.

    A third of a million messages would be read from the index and sorted for the newest fifty.
    """
    rows = Conversation.objects.using(newest.db) if conversations is None else conversations
    rows = rows.order_by("-last_activity_at", "-pk")
    limit = NEWEST_CONVERSATIONS
    others = Subquery(rows.values("last_activity_at")[limit : limit + 1])
    first = newest.filter(conversation__in=rows.values("pk")[:limit], created_at__gt=others)
    return first[: MOST_FOUND + 1]


def _in_time(messages: QuerySet[Message]) -> list[Message]:
    connection = connections[messages.db]
    if connection.vendor == "postgresql":
        with transaction.atomic(using=messages.db):
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL statement_timeout = '{SECONDS}s'")
            return list(messages)
    if connection.vendor != "mysql":
        return list(messages)
    name, limit = "max_execution_time", SECONDS * 1000
    if getattr(connection, "mysql_is_mariadb", False):
        name, limit = "max_statement_time", SECONDS
    with connection.cursor() as cursor:
        cursor.execute(f"SET SESSION {name} = {limit}")
    try:
        return list(messages)
    finally:
        with suppress(Error), connection.cursor() as cursor:
            cursor.execute(f"SET SESSION {name} = DEFAULT")


def _took_too_long(error: OperationalError) -> bool:
    state = getattr(error.__cause__, "sqlstate", "")
    return state == "57014" or bool(error.args and error.args[0] in (1969, 3024))


def _vendor() -> str:
    return str(connections[using(Message)].vendor)


def _is_postgresql() -> bool:
    return _vendor() == "postgresql"


def _execute(statements: tuple[str, ...]) -> None:
    with connections[using(Message)].cursor() as cursor:
        for statement in statements:
            cursor.execute(_sql(statement))


def _sql(statement: str) -> str:
    is_open = connections[using(Message)].in_atomic_block
    table = Message._meta.db_table
    document = _DOCUMENT.format(
        table=table, length=_INDEXED_CHARACTERS, signs=_SIGNS, spaces=" " * len(_SIGNS)
    )
    return statement.format(
        index=INDEX,
        table=table,
        document=document,
        most=MOST_LOOKED_AT,
        concurrently="" if is_open else "CONCURRENTLY",
    )
