"""What the stand-in answers, whatever carries the answer: a socket or the test's own process."""

from __future__ import annotations

import json
import threading
import time
import zlib
from collections import deque
from collections.abc import Mapping
from email.utils import formatdate
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from .account import Account, BadParameterError, now_text
from .faults import Fault, FaultBook, split
from .seeds import seed_account

PREFIX = "/v1/sms/conversations"
SETTINGS = {"api_key", "enveloped", "rate_limit", "latency_seconds"}
SETTINGS |= {"webhook_url", "webhook_secret", "writing_seconds"}
"""These are the server's alone."""
SETTINGS_OF_ACCOUNT = {"dialect", "ignores_filters", "longest_page", "restart_after_end_call"}
NEVER_APPLIED = {"hang_before", "reset_before", "close_before", "not_applied", "echo_key"}


class Answer(NamedTuple):
    """An answer that is ready to be sent."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}


class Request(NamedTuple):
    """A request as it came in."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


class StandIn:
    """Answers as Bland documents, or as badly as it is told to.

    Args:
        api_key: The one key that it accepts.
        enveloped: Answers to updates inside ``data`` (the newer documentation) or bare.
        dialect: Of the list: ``a`` or ``b``.
        rate_limit: Calls a second; more are answered with 429.
        latency_seconds: How long each answer takes.
    """

    base_url = ""

    def __init__(
        self,
        *,
        api_key: str = "sandbox-key",
        enveloped: bool = False,
        dialect: str = "a",
        rate_limit: float | None = None,
        latency_seconds: float = 0,
    ) -> None:
        self.api_key = api_key
        self.enveloped = enveloped
        self.rate_limit = rate_limit
        self.latency_seconds = latency_seconds
        self.account = Account(dialect)
        self.faults = FaultBook()
        self.log: deque[dict[str, Any]] = deque(maxlen=1_000_000)
        """What it saw of Bland's API: method, path, conversation_id, is_active, status, at."""
        self._lock = threading.Lock()
        self._calls = 0
        self._recent: deque[float] = deque()

    @property
    def dialect(self) -> str:
        """Of the list: ``a`` or ``b``."""
        return self.account.dialect

    @dialect.setter
    def dialect(self, dialect: str) -> None:
        self.account.dialect = dialect

    @property
    def settings(self) -> dict[str, Any]:
        """The ``BLAND_SMS`` that leads to it."""
        return {"API_KEY": self.api_key, "BASE_URL": self.base_url}

    def add(self, conversation_id: str = "", **values: Any) -> str:
        """Put a conversation in and return its id.

        Args:
            conversation_id: Without one it gets the next of ``conv_0001``, ``conv_0002``, ...
            values: Fields by Bland's names, such as ``user_number``, ``is_active`` or
                ``messages``, a list of dicts; what is left out gets a plain value.
        """
        if "messages" in values:
            values["messages"] = [
                {"id": f"SM{number:04d}", "created_at": now_text(), "sender": "USER", **message}
                for number, message in enumerate(values["messages"], 1)
            ]
        return str(self.account.add({**values, "id": conversation_id or self._free_id()})["id"])

    def customer_texts(self, number: str, text: str, *, agent_number: str = "+15550190001") -> str:
        """A customer writes, and Bland does what it documents; which conversation that is in.

        An active conversation of theirs is continued. Where the last one is inactive, a new one
        begins, with the agent's answer; with ``account.restart_after_end_call`` false the text is
        stored in the ended one, without an answer. What a person has taken over is not answered.
        """
        with self.account.lock:
            row = self.account.newest_of(number, agent_number)
            is_stored = row is not None and not row["is_active"]
            if row is None or (is_stored and self.account.restart_after_end_call):
                conversation_id = self.add(user_number=number, agent_number=agent_number)
                row, is_stored = self.account.rows[conversation_id], False
            self.account.write(row["id"], "USER", text)
            if not is_stored and row["human_handoff_at"] is None:
                self.account.write(row["id"], "AGENT", "Thank you for your message.")
        self.tell(row, text)
        return str(row["id"])

    def tell(self, row: dict[str, Any], text: str) -> None:
        """Where Bland sends a webhook about a text; the server does, to its ``webhook_url``."""

    def _free_id(self) -> str:
        with self.account.lock:
            number = len(self.account.rows) + 1
            while f"conv_{number:04d}" in self.account.rows:
                number += 1
            return f"conv_{number:04d}"

    def is_active(self, conversation_id: str) -> bool:
        """Whether a conversation is active at Bland. Raises KeyError."""
        return bool(self.account.detail(conversation_id)["is_active"])

    def requests(self, method: str = "", conversation_id: str = "") -> list[dict[str, Any]]:
        """What it saw, filtered."""
        return [
            seen
            for seen in list(self.log)
            if method in ("", seen["method"]) and conversation_id in ("", seen["conversation_id"])
        ]

    # --- answering ----------------------------------------------------------------------------

    def answer(self, request: Request) -> tuple[Answer | None, Fault | None]:
        """The answer to one request, and the fault that it suffers on its way."""
        parts = urlsplit(request.target)
        if parts.path.startswith("/_sandbox/"):
            return self._control(parts.path.removeprefix("/_sandbox/"), request), None
        conversation_id = parts.path.removeprefix(PREFIX).strip("/")
        with self._lock:
            self._calls += 1
            number = self._calls
        fault = self.faults.next(request.method, conversation_id, number)
        asked = _json_object(request.body)
        seen = {
            "method": request.method,
            "path": request.target,
            "conversation_id": conversation_id,
            "is_active": asked.get("is_active"),
            "headers": {k: v for k, v in request.headers.items() if k != "authorization"},
            "at": time.time(),
            "fault": fault,
            "status": None,
        }
        self.log.append(seen)
        if self.latency_seconds:
            time.sleep(self.latency_seconds)
        answer = self._refuse(request) or self._scripted(request, fault)
        if answer is None:
            is_kept = isinstance(fault, str) and split(fault)[0] in NEVER_APPLIED
            answer = self._serve(request, parts.path, parts.query, asked, is_kept)
            if isinstance(fault, str):
                answer = _spoil(answer, *split(fault))
        seen["status"] = answer.status
        return answer, fault

    def _refuse(self, request: Request) -> Answer | None:
        if self.rate_limit is not None and not self._is_within_rate():
            return error(429, "RATE_LIMITED", "Rate limit exceeded")
        if request.headers.get("authorization", "") != self.api_key:
            return error(401, "AUTH_FAILURE", "Unauthorized")
        return None

    def _is_within_rate(self) -> bool:
        assert self.rate_limit is not None
        with self._lock:
            now = time.monotonic()
            while self._recent and self._recent[0] <= now - 1:
                self._recent.popleft()
            if len(self._recent) >= self.rate_limit:
                return False
            self._recent.append(now)
            return True

    def _scripted(self, request: Request, fault: Fault | None) -> Answer | None:
        """An error or redirect that comes instead of an answer, with nothing applied."""
        if isinstance(fault, dict):
            body = fault.get("body", "")
            if not isinstance(body, bytes):
                body = (body if isinstance(body, str) else json.dumps(body)).encode()
            return Answer(fault.get("status", 200), body, fault.get("headers", {}))
        if fault is None:
            return None
        name, argument = split(fault)
        if name == "404_route":
            return Answer(404, b"Cannot PATCH", {"Content-Type": "text/plain"})
        if name == "html502":
            page = "<html><script>x</script><h1>502 Bad Gateway</h1>" + "<p>nginx</p>" * 500
            return Answer(502, page.encode(), {"Content-Type": "text/html"})
        if name == "echo_key":
            return error(400, "BAD_KEY", f"the key {request.headers.get('authorization')} is odd")
        if name.startswith("redirect"):
            return Answer(int(name.removeprefix("redirect")), b"", {"Location": argument})
        if name[:3].isdigit() and name[3:] in ("", "date", "junk"):
            return _status_error(int(name[:3]), name[3:], argument)
        return None

    def _serve(
        self, request: Request, path: str, query: str, asked: Mapping[str, Any], is_kept: bool
    ) -> Answer:
        conversation_id = path.removeprefix(PREFIX).strip("/")
        if path != PREFIX and not path.startswith(PREFIX + "/"):
            return Answer(404, b"Not Found", {"Content-Type": "text/plain"})
        try:
            if request.method == "PATCH":
                return self._update(conversation_id, asked, is_kept)
            if request.method != "GET":
                return Answer(405, b"", {"Allow": "GET, PATCH"})
            if not conversation_id:
                return _ok(self.account.list_page(parse_qs(query)))
            return _ok({"data": self.account.detail(conversation_id), "errors": None})
        except KeyError:
            return error(404, "CONVERSATION_NOT_FOUND", "Conversation not found")
        except BadParameterError as bad:
            return error(400, "INVALID_PARAMETER", str(bad))

    def _update(self, conversation_id: str, asked: Mapping[str, Any], is_kept: bool) -> Answer:
        if not conversation_id:
            return error(400, "CONVERSATION_ID_REQUIRED", "Conversation ID is required")
        is_active = asked.get("is_active")
        if not isinstance(is_active, bool):
            return error(400, "INVALID_IS_ACTIVE_VALUE", "is_active must be a boolean value")
        if is_kept:
            row = self.account.detail(conversation_id)
        else:
            row = self.account.set_active(conversation_id, is_active)
        body = {
            "message": "Conversation updated successfully",
            "conversation": {name: row[name] for name in ("id", "is_active", "updated_at")},
        }
        return _ok({"data": body, "errors": None} if self.enveloped else body)

    # --- for tests ------------------------------------------------------------------------------

    def _control(self, path: str, request: Request) -> Answer:
        asked = _json_object(request.body)
        if path == "state":
            with self.account.lock:
                states = {
                    pk: {"is_active": row["is_active"], "updated_at": row["updated_at"]}
                    for pk, row in self.account.rows.items()
                }
            return _ok({"conversations": states})
        if path == "log":
            return _ok({"requests": list(self.log)})
        if request.method != "POST":
            return Answer(404, b"state, log; POST faults, texts, seed, settings, clear")
        if path == "faults":
            for target, faults in asked.items():
                self.faults.add(target, *(faults if isinstance(faults, list) else [faults]))
        elif path == "texts":
            return _ok({"conversation_id": self.customer_texts(**asked)})
        elif path == "seed":
            seed_account(self.account, int(asked.get("number", 200)))
        elif path == "settings":
            self._set(asked)
        elif path == "clear":
            self.faults.clear()
            self.log.clear()
        else:
            return Answer(404, b"")
        return _ok({})

    def _set(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if name in SETTINGS and hasattr(self, name):
                setattr(self, name, value)
            elif name in SETTINGS_OF_ACCOUNT:
                setattr(self.account, name, value)


def error(status: int, code: str, message: str) -> Answer:
    """An error in the envelope of the SMS routes."""
    body = {"data": None, "errors": [{"message": message, "error": code}]}
    return _json(status, body)


def _ok(body: Any) -> Answer:
    return _json(200, body)


def _json(status: int, body: Any, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(
        status, json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})}
    )


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(body or b"{}")
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _status_error(status: int, kind: str, argument: str) -> Answer:
    codes = {
        400: "INVALID_IS_ACTIVE_VALUE",
        401: "AUTH_FAILURE",
        403: "ENTERPRISE_REQUIRED",
        404: "CONVERSATION_NOT_FOUND",
        500: "ERROR_UPDATING_CONVERSATION",
    }
    answer = error(status, codes.get(status, ""), f"Scripted {status}")
    if kind == "date":
        return answer._replace(
            headers={
                **answer.headers,
                "Retry-After": formatdate(time.time() + float(argument), usegmt=True),
            }
        )
    if kind == "junk":
        return answer._replace(headers={**answer.headers, "Retry-After": "soon; please"})
    if argument:
        return answer._replace(headers={**answer.headers, "Retry-After": argument})
    return answer


def _spoil(answer: Answer, name: str, argument: str) -> Answer:
    """A good answer made bad, with everything applied that was asked."""
    bodies = {
        "bad_json": b'{"message": "Conversation updated succ',
        "empty200": b"",
        "html200": b"<html><body>Welcome</body></html>",
        "list_body": b'["Conversation updated successfully"]',
        "nan": b'{"message": NaN}',
        "infinite": b'{"message": 1e999}',
        "deep": b"[" * 100_000 + b"]" * 100_000,
        "duplicate_keys": b'{"conversation": {"is_active": false, "is_active": true}}',
        "errors_body": json.dumps(
            {"data": None, "errors": [{"error": "SOMETHING_ODD", "message": "It did not work"}]}
        ).encode(),
    }
    if name in bodies:
        return answer._replace(body=bodies[name])
    if name == "500_applied":
        return error(500, "ERROR_UPDATING_CONVERSATION", "Error updating conversation")
    if name == "huge":
        padding = b" " * (int(argument or 50) * 1024 * 1024)
        return answer._replace(body=answer.body + padding)
    if name == "gzipbomb":
        packer = zlib.compressobj(wbits=31)
        packed = packer.compress(b" " * (int(argument or 200) * 1024 * 1024)) + packer.flush()
        return answer._replace(body=packed, headers={**answer.headers, "Content-Encoding": "gzip"})
    if name == "cookie":
        return answer._replace(headers={**answer.headers, "Set-Cookie": f"s={time.time()}"})
    return _spoil_conversation(answer, name, argument)


def _spoil_conversation(answer: Answer, name: str, argument: str) -> Answer:
    body = _json_object(answer.body)
    inner = body.get("data") if isinstance(body.get("data"), dict) else body
    assert isinstance(inner, dict)
    conversation = inner.get("conversation", inner)
    changes: dict[str, tuple[str, Any]] = {
        "wrong_id": ("id", "conv_somebody_else"),
        "nulls": ("is_active", None),
        "strings": ("is_active", "false"),
        "numbers": ("is_active", 0),
        "old_ts": ("updated_at", "2001-02-03T04:05:06.789Z"),
        "bad_ts": ("updated_at", argument or "yesterday"),
        "future_ts": ("updated_at", "2099-01-01T00:00:00.000Z"),
    }
    if name in changes:
        key, value = changes[name]
        conversation[key] = value
    elif name == "missing":
        conversation.pop("is_active", None)
    elif name == "no_ts":
        conversation.pop("updated_at", None)
    else:
        return answer
    return answer._replace(body=json.dumps(body).encode())
