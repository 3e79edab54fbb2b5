#!/usr/bin/env bash
# "All numbers that start with 9" as a range of text finds none under PostgreSQL's ICU collations.
#
# Versions: PostgreSQL 15 with ICU 72, psycopg 3.3.9.
# Expected: the rows that start with '9' lie between '9' and ':', the character after '9' in ASCII, so a range on an index
#   finds them, as with SQLite, with MariaDB's default and with the collation "C".
# Seen: ICU sorts punctuation ahead of digits: '9' < ':' is false, the range is empty, and nothing warns. A range that
#   ends in a digit ('91' to '92') works, so tests with other digits pass. Equality and LIKE still find the rows.
# Matters: ICU is what the operators of a database choose (initdb --locale-provider), not the application.
# Source: https://www.postgresql.org/docs/15/collation.html
#   https://www.unicode.org/reports/tr10/#Common_Misperceptions (code point order is not collation order)
# Needs: a PostgreSQL that libpq's own variables lead to (PGHOST, PGDATABASE...); only a temporary table is made there.
# Exit: 0 as stated, 1 if that changed, 2 if it cannot run.
set -u
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
python=$work/env/bin/python
{ "${PYTHON:-python3}" -m venv "$work/env" && "$python" -m pip install --quiet --disable-pip-version-check \
    "psycopg[binary]==3.3.9"; } >"$work/pip.log" 2>&1 \
    || { echo "cannot run: the packages could not be installed"; tail -n 2 "$work/pip.log"; exit 2; }
cd "$work" && "$python" -I - <<'PY'
import os
import sys

import psycopg

NUMBERS = ["8999", "9000", "9155", "9999"]
RANGES = {"starts with 9": ("9", ":"), "starts with 91": ("91", "92"), "starts with 99": ("99", "9:")}
COLLATIONS = ("C", "und-x-icu", "en-x-icu")

try:
    connection = psycopg.connect(dbname=os.environ.get("PGDATABASE", "postgres"), autocommit=True)
    known = connection.execute("SELECT collname FROM pg_collation WHERE collname = ANY(%s)", [list(COLLATIONS)]).fetchall()
except psycopg.OperationalError as error:
    print(f"cannot run: no PostgreSQL ({str(error).strip().splitlines()[-1]})")
    sys.exit(2)
if len(known) < len(COLLATIONS):
    print("cannot run: this PostgreSQL was built without ICU")
    sys.exit(2)
print("PostgreSQL", connection.info.server_version // 10000)
connection.execute("CREATE TEMPORARY TABLE line (number text)")
connection.execute("INSERT INTO line SELECT unnest(%s::text[])", [NUMBERS])
seen = {}
for collation in COLLATIONS:
    for title, bounds in RANGES.items():
        query = f"SELECT number FROM (SELECT number COLLATE \"{collation}\" FROM line) AS own"
        query += " WHERE number >= %s AND number < %s"
        rows = connection.execute(query, bounds).fetchall()
        seen[collation, title] = sorted(number for (number,) in rows)
        print(f"{collation:10} {title:15} {bounds}: {seen[collation, title] or 'nothing'}")
as_stated = all(
    seen[collation, "starts with 91"] == ["9155"]
    and seen[collation, "starts with 9"] == (["9000", "9155", "9999"] if collation == "C" else [])
    and seen[collation, "starts with 99"] == (["9999"] if collation == "C" else [])
    for collation in COLLATIONS
)
print("as stated" if as_stated else "this changed")
sys.exit(0 if as_stated else 1)
PY
