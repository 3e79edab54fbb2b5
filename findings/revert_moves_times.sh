#!/usr/bin/env bash
# Going back to an earlier version of a row moves each of its times, those that nobody ever changed too.
#
# Versions: django-reversion 6.4.0, Django 5.2.19.
# Expected: a row that is saved under a revision and reverted at once is what it was.
# Seen: each DateTimeField comes back with its microseconds cut to milliseconds. Versions are kept as JSON by Django's
#   serializers, whose encoder writes three digits, as ECMAScript has them; dumpdata and loaddata lose the same digits,
#   with --format yaml they do not. DRF's encoder writes all six.
# Matters: what compares times (an incremental copy's mark, "has it changed since", a cursor) takes the row for older than
#   it is; and several rows of one millisecond become ties.
# Source: https://github.com/django/django/blob/stable/5.2.x/django/core/serializers/json.py (DjangoJSONEncoder)
#   https://github.com/etianen/django-reversion/issues/599
# Exit: 0 as stated, 1 if that changed, 2 if it cannot run.
set -u
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
python=$work/env/bin/python
{ "${PYTHON:-python3}" -m venv "$work/env" && "$python" -m pip install --quiet --disable-pip-version-check \
    django-reversion==6.4.0 Django==5.2.19 PyYAML==6.0.4; } >"$work/pip.log" 2>&1 \
    || { echo "cannot run: the packages could not be installed"; tail -n 2 "$work/pip.log"; exit 2; }
cd "$work" && "$python" -I - <<'PY'
import sys
from datetime import datetime, timezone

import django
from django.conf import settings

settings.configure(
    USE_TZ=True,
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "reversion"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()

import reversion
from django.contrib.auth.models import User
from django.core import serializers
from django.core.management import call_command
from reversion.models import Version

call_command("migrate", verbosity=0)
reversion.register(User)
JOINED = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=timezone.utc)
with reversion.create_revision():
    user = User.objects.create(username="somebody", date_joined=JOINED)
seen = {"saved": User.objects.get().date_joined}
for format in ("json", "yaml"):
    (copy,) = serializers.deserialize(format, serializers.serialize(format, User.objects.all()))
    seen[format] = copy.object.date_joined
Version.objects.get_for_object(user).get().revision.revert()
seen["reverted"] = User.objects.get().date_joined
for title, time in seen.items():
    print(f"{title:9} {time.isoformat()}")
cut = JOINED.replace(microsecond=123000)
as_stated = seen == {"saved": JOINED, "json": cut, "yaml": JOINED, "reverted": cut}
print("as stated" if as_stated else "this changed")
sys.exit(0 if as_stated else 1)
PY
