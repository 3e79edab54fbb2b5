#!/usr/bin/env bash
# An exception raised asynchronously in a thread that is starting another one ends the new thread, and start() never returns.
#
# Versions: CPython 3.10 and 3.11 (3.12 and later behave as expected), Dramatiq 1.17.1.
# Expected: dramatiq.threading.raise_thread_exception, which its time limit calls, raises the exception in the thread whose
#   identity it was given.
# Seen: where that thread is in threading.Thread.start(), the exception may be raised in the new thread: until that runs for
#   the first time it bears the identity of the thread that starts it. It ends before it has told that it began,
#   and start() waits for that without a limit. The time limit is lost, and so is the worker's thread.
# Matters: a task that starts threads (a thread pool does) may hang for good at its time limit.
# Source: https://github.com/python/cpython/blob/3.11/Python/pystate.c (new_threadstate, PyThreadState_SetAsyncExc)
#   https://github.com/python/cpython/blob/3.11/Lib/threading.py (Thread.start)
#   https://github.com/Bogdanp/dramatiq/blob/v1.17.1/dramatiq/threading.py
# Needs: Python 3.10 or 3.11 as PYTHON (default: python3.11, else python3.10).
# Exit: 0 as stated, 1 if that changed, 2 if it cannot run.
set -u
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
python=$work/env/bin/python
for base in "${PYTHON:-python3.11}" python3.10; do
  "$base" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 10), (3, 11)))' 2>/dev/null && break
  base=
done
[ -n "$base" ] || { echo "cannot run: no Python 3.10 or 3.11"; exit 2; }
{ "$base" -m venv "$work/env" && "$python" -m pip install --quiet --disable-pip-version-check \
    dramatiq==1.17.1; } >"$work/pip.log" 2>&1 \
    || { echo "cannot run: the packages could not be installed"; tail -n 2 "$work/pip.log"; exit 2; }
cd "$work" && "$python" -I - <<'PY'
import os
import platform
import sys
import threading
import time

from dramatiq.middleware.threading import raise_thread_exception
from dramatiq.middleware.time_limit import TimeLimitExceeded

SECONDS = 60
print(f"Python {platform.python_version()}")
threading.excepthook = lambda args: ended.append(args.thread)
ended = []
began = time.monotonic()
state = {"round": 0, "target": None}


def task():
    """Starts a thread, as a thread pool does for its first job, until the time limit ends it."""
    state["target"] = threading.get_ident()
    try:
        while True:
            threading.Thread(target=int, daemon=True).start()
    except TimeLimitExceeded:
        return


while time.monotonic() - began < SECONDS:
    state["round"] += 1
    worker = threading.Thread(target=task, daemon=True)
    worker.start()
    time.sleep(0.005)
    raise_thread_exception(state["target"], TimeLimitExceeded)
    worker.join(5)
    if worker.is_alive():
        frame = sys._current_frames()[worker.ident]
        names = []
        while frame:
            names.append(frame.f_code.co_name)
            frame = frame.f_back
        print(f"time limit {state['round']}: five seconds later the task is still in {' < '.join(names[:4])}")
        sys.stdout.flush()
        os._exit(0 if "start" in names else 1)
print(f"{state['round']} time limits, and each ended the task: this has changed")
os._exit(1)
PY
