#!/usr/bin/env bash
# An exception that arrives during COMMIT comes out of Django's atomic() as another one, and the connection stays useless.
#
# Versions: Django 5.2.19 (6.1 does the same), psycopg 3.3.9, PostgreSQL 15.
# Expected: when a signal's handler raises in the middle of a COMMIT (a task engine's time limit does), atomic() raises
#   that exception, and the connection is closed, or can be used again.
# Seen: atomic() raises ProgrammingError "can't change 'autocommit' now". The handler's exception is only in the chain
#   below it, so `except TimeLimit` does not catch it, and each later query of the process fails with "another command is
#   already in progress", until somebody closes the connection.
# Matters: a worker that goes on after a time limit, or records the failure, cannot.
# Source: https://github.com/psycopg/psycopg/issues/1293
#   https://github.com/django/django/blob/stable/5.2.x/django/db/transaction.py (Atomic.__exit__)
# Needs: a PostgreSQL that libpq's own variables lead to (PGHOST, PGDATABASE...); only temporary objects are made there.
# Exit: 0 as stated, 1 if that changed, 2 if it cannot run.
set -u
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
python=$work/env/bin/python
{ "${PYTHON:-python3}" -m venv "$work/env" && "$python" -m pip install --quiet --disable-pip-version-check \
    Django==5.2.19 "psycopg[binary]==3.3.9"; } >"$work/pip.log" 2>&1 \
    || { echo "cannot run: the packages could not be installed"; tail -n 2 "$work/pip.log"; exit 2; }
cd "$work" && "$python" -I - <<'PY'
import os
import signal
import sys

import django
from django.conf import settings

database = {"ENGINE": "django.db.backends.postgresql", "NAME": os.environ.get("PGDATABASE", "postgres")}
settings.configure(DATABASES={"default": database})
django.setup()

from django.db import Error, OperationalError, ProgrammingError, connection, transaction


class TimeLimit(Exception):
    """What a task engine raises when a job has had its time."""


def over(*args):
    raise TimeLimit


try:
    connection.ensure_connection()
except OperationalError as error:
    print(f"cannot run: no PostgreSQL ({str(error).strip().splitlines()[-1]})")
    sys.exit(2)
with connection.cursor() as cursor:  # a constraint that is looked at on COMMIT, and takes its time
    cursor.execute("CREATE TEMPORARY TABLE job (id int)")
    cursor.execute('''CREATE FUNCTION pg_temp.slow() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN PERFORM pg_sleep(5); RETURN NULL; END $$''')
    cursor.execute('''CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON job DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION pg_temp.slow()''')

signal.signal(signal.SIGALRM, over)
raised = later = None
try:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO job VALUES (1)")
        signal.setitimer(signal.ITIMER_REAL, 1)
except Exception as error:
    raised = error
print("atomic() raised:", type(raised).__name__, "-", raised)
link = raised
while link is not None and not isinstance(link, TimeLimit):
    link = link.__context__
print("in the chain below it:", type(link).__name__)
try:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
except Error as error:
    later = error
print("the next query:", type(later).__name__, "-", str(later).splitlines()[0] if later else "works")
as_stated = isinstance(raised, ProgrammingError) and link is not None and isinstance(later, OperationalError)
print("as stated" if as_stated else "this changed")
sys.exit(0 if as_stated else 1)
PY
