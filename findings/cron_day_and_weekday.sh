#!/usr/bin/env bash
# One line of cron, three different calendars.
#
# Versions: croniter 7.0.0, cronsim 2.8, APScheduler 3.11.3, Celery 5.7.0, Huey 3.5.4.
# Expected: "0 9 13 * 5" names a day of the month and a day of the week, so it is due when either matches, as in
#   crontab(5): each Friday, and each 13th.
# Seen: croniter and cronsim do that. Celery and Huey want both (Friday the 13th). APScheduler wants both as well and
#   counts the weekday from Monday = 0, so that it waits for a Saturday the 13th. None of them says anything.
# Matters: whoever moves a timer from cron to a task engine, or between engines (rq, procrastinate and django-q2 use
#   croniter), runs the job on other days.
# Source: https://man7.org/linux/man-pages/man5/crontab.5.html (the note on the day fields)
#   https://github.com/celery/celery/issues/4307
#   https://github.com/agronholm/apscheduler/issues/286
#   https://github.com/coleifer/huey/blob/master/huey/api.py (crontab)
# Exit: 0 as stated, 1 if that changed, 2 if it cannot run.
set -u
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
python=$work/env/bin/python
{ "${PYTHON:-python3}" -m venv "$work/env" && "$python" -m pip install --quiet --disable-pip-version-check \
    croniter==7.0.0 cronsim==2.8 APScheduler==3.11.3 celery==5.7.0 huey==3.5.4; } >"$work/pip.log" 2>&1 \
    || { echo "cannot run: the packages could not be installed"; tail -n 2 "$work/pip.log"; exit 2; }
cd "$work" && "$python" -I - <<'PY'
import sys
from datetime import datetime, timedelta, timezone

from apscheduler.triggers.cron import CronTrigger
from celery import Celery
from celery.schedules import crontab as celery_crontab
from croniter import croniter
from cronsim import CronSim
from huey import crontab as huey_crontab

LINE = "0 9 13 * 5"
START = datetime(2026, 1, 1, tzinfo=timezone.utc)
END = datetime(2026, 7, 1, tzinfo=timezone.utc)
minute, hour, day, _month, weekday = LINE.split()


def days_of(next_after):
    days, now = [], START
    while (now := next_after(now)) < END:
        days.append(now.strftime("%a %d %b"))
    return days


def by_celery(now):
    fields = {"minute": minute, "hour": hour, "day_of_month": day, "day_of_week": weekday}
    schedule = celery_crontab(**fields, nowfun=lambda: now, app=Celery(set_as_current=False))
    last, wait, _now = schedule.remaining_delta(now)
    return last + wait


def by_huey(now):
    is_due = huey_crontab(minute=minute, hour=hour, day=day, day_of_week=weekday)
    while not is_due((now := now + timedelta(hours=1)).replace(tzinfo=None)):
        pass
    return now


trigger = CronTrigger.from_crontab(LINE, timezone="UTC")
seen = {
    "croniter": days_of(lambda now: croniter(LINE, now).get_next(datetime)),
    "cronsim": days_of(lambda now: next(CronSim(LINE, now))),
    "celery": days_of(by_celery),
    "huey": days_of(by_huey),
    "apscheduler": days_of(lambda now: trigger.get_next_fire_time(None, now + timedelta(seconds=1))),
}
for name, days in seen.items():
    print(f"{name:12} {len(days):2} days in half a year: {', '.join(days[:4])}")
friday_the_13th = ["Fri 13 Feb", "Fri 13 Mar"]
as_stated = (
    seen["croniter"] == seen["cronsim"] and len(seen["croniter"]) == 30 and "Tue 13 Jan" in seen["croniter"]
    and seen["celery"] == seen["huey"] == friday_the_13th
    and seen["apscheduler"] == ["Sat 13 Jun"]
)
print("as stated" if as_stated else "this changed")
sys.exit(0 if as_stated else 1)
PY
