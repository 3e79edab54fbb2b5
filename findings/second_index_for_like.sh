#!/usr/bin/env bash
# Django gives a text column with collation "C" a second index for LIKE, which PostgreSQL has no use for.
#
# Versions: Django 6.1.3 (5.2 does the same), psycopg 3.3.9, PostgreSQL 15.
# Expected: a unique CharField with db_collation="C" gets one index. PostgreSQL's manual says that the operator class
#   varchar_pattern_ops is for databases that do not use the C locale; under C the usual index serves LIKE 'abc%' too.
# Seen: it gets two, as under any other collation. Django asks the server whether the collation is deterministic, and
#   makes no second index where it is not; whether the first one would do is not asked. Without the second one the same
#   LIKE is answered from the first. Both are as large.
# Matters: who gives ids and codes the C collation, so that their order is the same everywhere, pays for each of them
#   twice: on disk, in the cache, and with each INSERT.
# Source: https://github.com/django/django/blob/stable/6.1.x/django/db/backends/postgresql/schema.py
#     (_create_like_index_sql)
#   https://www.postgresql.org/docs/15/indexes-opclass.html
# Needs: a PostgreSQL that libpq's own variables lead to (PGHOST, PGDATABASE...); only temporary objects are made there.
# Exit: 0 as stated, 1 if that changed, 2 if it cannot run.
set -u
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
python=$work/env/bin/python
{ "${PYTHON:-python3}" -m venv "$work/env" && "$python" -m pip install --quiet --disable-pip-version-check \
    Django==6.1.3 "psycopg[binary]==3.3.9"; } >"$work/pip.log" 2>&1 \
    || { echo "cannot run: the packages could not be installed"; tail -n 2 "$work/pip.log"; exit 2; }
cd "$work" && "$python" -I - <<'PY'
import os
import sys

import django
from django.conf import settings

database = {"ENGINE": "django.db.backends.postgresql", "NAME": os.environ.get("PGDATABASE", "postgres")}
settings.configure(DATABASES={"default": database})
django.setup()

from django.db import OperationalError, connection, models


class Order(models.Model):
    code = models.CharField(max_length=40, unique=True, db_collation="C")

    class Meta:
        app_label = "shop"
        db_table = "shop_order"


try:
    connection.ensure_connection()
except OperationalError as error:
    print(f"cannot run: no PostgreSQL ({str(error).strip().splitlines()[-1]})")
    sys.exit(2)


def rows(sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []


def plan():
    """How PostgreSQL finds the codes that begin with ORD-0001."""
    return "\n".join(line for (line,) in rows("EXPLAIN SELECT id FROM shop_order WHERE code LIKE 'ORD-0001%'"))


rows("SET search_path TO pg_temp")  # what is made from here on is temporary
with connection.schema_editor() as editor:
    editor.create_model(Order)
rows("INSERT INTO shop_order (code) SELECT 'ORD-' || lpad(n::text, 8, '0') FROM generate_series(1, 100000) n")
rows("ANALYZE shop_order")
found = rows(
    "SELECT indexrelid::regclass::text, pg_relation_size(indexrelid), pg_get_indexdef(indexrelid) "
    "FROM pg_index WHERE indrelid = 'shop_order'::regclass AND NOT indisprimary"
)
for name, size, definition in found:
    print(f"{size // 1024:6} KiB  {definition}")
second = [name for name, _, definition in found if "pattern_ops" in definition]
first = [name for name, _, definition in found if "pattern_ops" not in definition]
for name in second:
    rows(f"DROP INDEX {name}")
alone = plan()
print(f"with the first index alone:\n{alone}")
is_served = bool(first) and first[0].split(".")[-1].strip('"') in alone and "Index Cond" in alone
as_stated = len(found) == 2 and len(second) == 1 and is_served
print("as stated" if as_stated else "this changed")
sys.exit(0 if as_stated else 1)
PY
