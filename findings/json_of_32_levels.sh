#!/usr/bin/env bash
# A Django JSONField takes a document of 32 nested levels on SQLite, and MariaDB refuses the same row.
#
# Versions: Django 6.1.3, MariaDB 10.11.19 with PyMySQL 1.2.0, and the SQLite of this Python. MariaDB only.
# Expected: what json.dumps() writes and full_clean() accepts can be saved: a JSON text has no limit of depth of its own,
#   SQLite's is 1,000 levels, and where a database has one, the error says so, as MySQL's does at its 100.
# Seen: 31 levels are saved on both. With 32, empty ones too, save() raises IntegrityError "CONSTRAINT `document.data`
#   failed" (4025) on MariaDB: there a JSONField is a text with the constraint JSON_VALID(data), whose parser has a stack of
#   32 places and calls what needs more of them not JSON. Depth is named nowhere, neither in the error nor by JSON_VALID;
#   one such row refuses the whole bulk_create(); and the same text in a plain column is stored without a complaint.
# Matters: payloads of webhooks, of page builders and of syntax trees are kept as they come, tested on SQLite.
# Source: the constant JSON_DEPTH_LIMIT in include/json_lib.h of https://github.com/MariaDB/server
#   https://mariadb.com/kb/en/json_valid/ and https://docs.djangoproject.com/en/6.1/ref/models/fields/#jsonfield, which
#   name no limit.
# Needs: a MariaDB at the socket MYSQL_UNIX_PORT (/run/mysqld/mysqld.sock) or at MYSQL_HOST, for MYSQL_USER (root) with
#   MYSQL_PWD, and its database MYSQL_DATABASE (test); only a temporary table is made there.
# Exit: 0 as stated, 1 if that changed, 2 if it cannot run.
set -u
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
python=$work/env/bin/python
{ "${PYTHON:-python3}" -m venv "$work/env" && "$python" -m pip install --quiet --disable-pip-version-check \
    "django==6.1.3" "pymysql==1.2.0"; } >"$work/pip.log" 2>&1 \
    || { echo "cannot run: the packages could not be installed"; tail -n 2 "$work/pip.log"; exit 2; }
cd "$work" && "$python" -I - <<'PY'
import os
import sys
from itertools import product

import pymysql

pymysql.version_info = (2, 2, 8, "final", 0)  # as mysqlclient's, whose place it takes
pymysql.install_as_MySQLdb()

import django
from django.conf import settings

host = os.environ.get("MYSQL_HOST")
socket = os.environ.get("MYSQL_UNIX_PORT", "/run/mysqld/mysqld.sock")
settings.configure(
    DATABASES={
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
        "maria": {
            "ENGINE": "django.db.backends.mysql",
            "NAME": os.environ.get("MYSQL_DATABASE", "test"),
            "USER": os.environ.get("MYSQL_USER", "root"),
            "PASSWORD": os.environ.get("MYSQL_PWD", ""),
            "HOST": host or "localhost",
            "OPTIONS": {} if host else {"unix_socket": socket},
        },
    },
)
django.setup()

from django.db import IntegrityError, OperationalError, connections, models


class Document(models.Model):
    data = models.JSONField()
    text = models.TextField(blank=True)

    class Meta:
        app_label = "documents"
        db_table = "document"


def nested(kind, levels):
    document = [] if kind is list else {}
    for _ in range(levels - 1):
        document = [document] if kind is list else {"a": document}
    return document


def outcome(alias, document):
    row = Document(data=document)
    row.full_clean()
    try:
        Document.objects.using(alias).bulk_create([Document(data={}), row])
    except IntegrityError as error:
        assert "depth" not in str(error).lower() and "CONSTRAINT" in str(error), error
        return f"refused ({error.args[0]})"
    return "saved"


try:
    connections["maria"].ensure_connection()
except OperationalError as error:
    print(f"cannot run: no MariaDB ({error.args[-1]})")
    sys.exit(2)
if not connections["maria"].mysql_is_mariadb:
    print("cannot run: this is MySQL")
    sys.exit(2)
print("MariaDB", ".".join(map(str, connections["maria"].mysql_version)))
for alias in connections:
    with connections[alias].schema_editor(collect_sql=True) as editor:
        editor.create_model(Document)
    with connections[alias].cursor() as cursor:
        for statement in editor.collected_sql:
            cursor.execute(statement.replace("CREATE TABLE", "CREATE TEMPORARY TABLE").rstrip(";"))
seen = {}
for kind, levels in product((list, dict), (31, 32, 64)):
    seen[kind, levels] = [outcome(alias, nested(kind, levels)) for alias in ("default", "maria")]
    print(f"{kind.__name__} of {levels} levels: SQLite {seen[kind, levels][0]}, MariaDB {seen[kind, levels][1]}")
Document.objects.using("maria").create(data={}, text=str(nested(list, 64)))
as_stated = all(
    both == ["saved", "saved" if levels < 32 else "refused (4025)"] for (_, levels), both in seen.items()
)
print("as stated" if as_stated else "this changed")
sys.exit(0 if as_stated else 1)
PY
