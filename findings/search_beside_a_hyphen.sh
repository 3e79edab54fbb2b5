#!/usr/bin/env bash
# Django's full-text lookup on PostgreSQL does not find the number in "AB-1042", although it finds "date" in "up-to-date".
#
# Versions: Django 5.2.19 (django.contrib.postgres), PostgreSQL 15, psycopg 3.3.9; SQLite's FTS5 beside it.
# Expected: the parts of a text between hyphens, points and signs are words, each of which finds it: so it is for words of
#   letters ("up-to-date"), and so FTS5 does it with all texts.
# Seen: a part of digits behind a hyphen is indexed with the hyphen as its sign ("-1042"), an amount as one decimal number
#   ("19.50"), a phone number with its plus, an address on the web as one host. A search for "1042", "AB 1042", "555 0100"
#   or "19" finds nothing, whatever the search_type, and nothing warns.
# Matters: numbers of orders, phone numbers and amounts are what support staff look for. The configuration "simple" changes
#   nothing, since the parser comes before the dictionaries.
# Source: https://www.postgresql.org/docs/15/textsearch-parsers.html (token types int, float, host)
#   https://docs.djangoproject.com/en/5.2/ref/contrib/postgres/search/#the-search-lookup
# Needs: a PostgreSQL that libpq's own variables lead to (PGHOST, PGDATABASE...); only a temporary table is made there.
# Exit: 0 as stated, 1 if that changed, 2 if it cannot run.
set -u
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
python=$work/env/bin/python
{ "${PYTHON:-python3}" -m venv "$work/env" && "$python" -m pip install --quiet --disable-pip-version-check \
    "django==5.2.19" "psycopg[binary]==3.3.9"; } >"$work/pip.log" 2>&1 \
    || { echo "cannot run: the packages could not be installed"; tail -n 2 "$work/pip.log"; exit 2; }
cd "$work" && "$python" -I - <<'PY'
import os
import sqlite3
import sys

import django
from django.conf import settings

settings.configure(
    INSTALLED_APPS=["django.contrib.postgres"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": os.environ.get("PGDATABASE", "postgres"),
            "HOST": os.environ.get("PGHOST", ""),
        }
    },
)
django.setup()
from django.contrib.postgres.search import SearchQuery, SearchVector
from django.db import OperationalError, connection, models

TEXT = "Order AB-1042 is up-to-date and costs 19.50, see shop.example.com or call 555-0100 or +15550001111"
WANTED = {"date": True, "up date": True, "AB": True, "call": True}
WANTED |= dict.fromkeys(("1042", "AB 1042", "0100", "555 0100", "19", "15550001111", "example"), False)
"""What is searched, and whether PostgreSQL finds it."""
TYPES = ("plain", "phrase", "websearch")


class Line(models.Model):
    text = models.TextField()

    class Meta:
        app_label = "search"


try:
    connection.ensure_connection()
except OperationalError as error:
    print(f"cannot run: no PostgreSQL ({str(error).strip().splitlines()[-1]})")
    sys.exit(2)
print("Django", django.__version__, "PostgreSQL", connection.pg_version // 10000)
with connection.cursor() as cursor:
    cursor.execute("CREATE TEMPORARY TABLE search_line (id serial PRIMARY KEY, text text)")
Line.objects.create(text=TEXT)
lite = sqlite3.connect(":memory:")
lite.execute("CREATE VIRTUAL TABLE line USING fts5(text)")
lite.execute("INSERT INTO line VALUES (?)", [TEXT])
print(TEXT)
as_stated = True
for words, is_expected in WANTED.items():
    vector, rows = SearchVector("text", config="simple"), Line.objects.all()
    found = {"search": rows.filter(text__search=words).exists()}
    for kind in TYPES:
        if kind == "phrase" and words == "up date":
            continue  # not beside each other
        query = SearchQuery(words, config="simple", search_type=kind)
        found[kind] = rows.annotate(words=vector).filter(words=query).exists()
    terms = " ".join(f'"{word}"' for word in words.split())
    by_fts5 = lite.execute("SELECT count(*) FROM line WHERE line MATCH ?", [terms]).fetchone()[0] == 1
    print(f"{words:12} PostgreSQL: {', '.join(k for k, v in found.items() if v) or 'nothing':36} FTS5: {'found' if by_fts5 else 'nothing'}")
    as_stated = as_stated and by_fts5 and set(found.values()) == {is_expected}
print("as stated" if as_stated else "this changed")
sys.exit(0 if as_stated else 1)
PY
