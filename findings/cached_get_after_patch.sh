#!/usr/bin/env bash
# Caches for requests: after a PATCH that succeeded, does a GET of the same address still show the state before it?
#
# Versions: requests-cache 1.3.3, CacheControl 0.14.4, hishel 2.0.0, requests 2.34.2.
# Expected: a cache that follows the response's Cache-Control drops what it holds of an address as soon as a PATCH, PUT,
#   POST or DELETE to it is answered without an error.
# Seen: requests-cache with cache_control=True keeps it, and the GET shows the old state until max-age is over.
#   CacheControl drops it after PATCH and not after POST. hishel drops it after both, with rfc=True only.
# Matters: "ask the API to change it, then read it back" confirms the opposite of what happened.
# Source: https://www.rfc-editor.org/rfc/rfc9111#section-4.4
#   https://requests-cache.readthedocs.io/en/stable/user_guide/headers.html
#   https://github.com/psf/cachecontrol/pull/461
# Exit: 0 as stated, 1 if that changed, 2 if it cannot run.
set -u
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
python=$work/env/bin/python
{ "${PYTHON:-python3}" -m venv "$work/env" && "$python" -m pip install --quiet --disable-pip-version-check \
    requests-cache==1.3.3 CacheControl==0.14.4 hishel==2.0.0 requests==2.34.2; } >"$work/pip.log" 2>&1 \
    || { echo "cannot run: the packages could not be installed"; tail -n 2 "$work/pip.log"; exit 2; }
cd "$work" && "$python" -I - <<'PY'
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests
from cachecontrol import CacheControl
from hishel.requests import CacheAdapter as HishelAdapter
from requests_cache import CachedSession

states = {}


class Api(BaseHTTPRequestHandler):
    """Each path is active until somebody changes it; answers may be cached for a minute."""
    def answer(self):
        body = states.get(self.path, "active").encode()
        self.send_response(200)
        self.send_header("Cache-Control", "max-age=60")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def change(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        states[self.path] = "inactive"
        self.answer()

    do_GET, do_PATCH, do_POST = answer, change, change

    def log_message(self, *args):
        pass


def mounted(adapter):
    session = requests.Session()
    session.mount("http://", adapter)
    return session


server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
threading.Thread(target=server.serve_forever, daemon=True).start()
sessions = {
    "requests-cache": CachedSession(backend="memory", cache_control=True),
    "CacheControl": CacheControl(requests.Session()),
    "hishel": mounted(HishelAdapter()),
    "hishel, rfc=True": mounted(HishelAdapter(rfc=True)),
}
seen = {}
for number, (name, session) in enumerate(sessions.items()):
    for method in ("PATCH", "POST"):
        url = f"http://127.0.0.1:{server.server_port}/{number}/{method}"
        before, answer, after = session.get(url), session.request(method, url, json={}), session.get(url)
        seen[name, method] = after.text
        print(f"{name:17} {before.text}, then {method} answers {answer.text}, then GET shows {after.text}")
stale = {key for key, state in seen.items() if state == "active"}
both = [(name, method) for name in ("requests-cache", "hishel") for method in ("PATCH", "POST")]
as_stated = stale == {*both, ("CacheControl", "POST")}
print("as stated" if as_stated else "this changed")
sys.exit(0 if as_stated else 1)
PY
