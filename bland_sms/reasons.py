"""The one table from code to words: a sentence, the next step, and the HTTP status of our API.

Rows and exceptions keep a code and parameters, never a sentence. It is worded when it is shown, in
the reader's language, and the same in admin, API, commands and CSV::

    str(Failure("no_answer", {"cause": "answer_too_long", "number": 1048576}))

A code that is not in the table is Bland's own: its HTTP status decides.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from django.utils.text import capfirst
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from .quantities import number_words

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise as Text


class Reason(NamedTuple):
    """One row of the table."""

    status: int
    """Of our API's answer."""
    sentence: Text
    """Without a full stop, since many are part of another sentence. It names no setting and no
    command: staff cannot change one."""
    next_step: Text | str = ""
    quotes_bland: bool = False
    """Bland's own words say more than we can."""
    for_operators: Text | str = ""
    """Instead of both, for who can change the settings."""


RETRY_LATER = _("Retry in a while.")
REPLACE_KEY = _("Tell an administrator of this site: the key or the account at Bland needs care.")
REPAIR_CONNECTION = _("Tell an administrator of this site: its connection to Bland needs care.")
NOT_CONNECTED = _("This site is not connected to Bland")

REASONS: dict[str, Reason] = {
    # --- Bland's answers, by its code or by its status ------------------------------------------
    "CONVERSATION_NOT_FOUND": Reason(
        404,
        _("Not found under this key (404 CONVERSATION_NOT_FOUND)"),
        _("Deleted at Bland, or another account's. The row is kept; if many, check the key."),
    ),
    "AUTH_FAILURE": Reason(502, _("Bland refused the key"), REPLACE_KEY),
    "UNAUTHORIZED": Reason(502, _("Bland refused the key"), REPLACE_KEY),
    "http_401": Reason(502, _("Bland refused the key (401)"), REPLACE_KEY),
    "http_403": Reason(
        502, _("Bland refuses this account (%(answer)s)"), REPLACE_KEY, quotes_bland=True
    ),
    "http_404": Reason(
        502,
        _("Bland has no such address (404)"),
        REPAIR_CONNECTION,
        for_operators=_("Bland has no such address (404): check BLAND_SMS['BASE_URL']"),
    ),
    "http_429": Reason(503, _("Bland asked us to slow down (429)"), RETRY_LATER),
    "http_4xx": Reason(
        409,
        _("Bland refused it (%(answer)s)"),
        _("Look at the conversation at Bland."),
        quotes_bland=True,
    ),
    "http_5xx": Reason(502, _("Bland reported an internal error (%(answer)s)"), RETRY_LATER),
    "redirected": Reason(
        502,
        _("Bland redirects elsewhere, which is not followed"),
        REPAIR_CONNECTION,
        for_operators=_(
            "Bland redirects elsewhere, which is not followed: check BLAND_SMS['BASE_URL']"
        ),
    ),
    "error": Reason(502, _("Unexpected error (%(code)s)")),
    # --- no answer, or none that can be used ----------------------------------------------------
    "no_connection": Reason(504, _("Bland could not be reached"), RETRY_LATER),
    "no_answer": Reason(504, _("Bland did not answer in time"), RETRY_LATER),
    "broken_off": Reason(
        504, _("the connection to Bland broke before its answer was complete"), RETRY_LATER
    ),
    "answer_too_long": Reason(504, _("Bland's answer is longer than %(number)s bytes")),
    "answer_compressed": Reason(504, _("Bland's answer is compressed, which was not requested")),
    "interrupted": Reason(
        504,
        _("the process that sent the request ended before the answer was stored"),
        RETRY_LATER,
    ),
    "outage": Reason(504, _("Bland does not answer"), RETRY_LATER),
    "rate_limited": Reason(503, _("Bland limits how often it may be asked"), RETRY_LATER),
    "bad_answer": Reason(502, _("Bland's answer could not be understood"), RETRY_LATER),
    "senseless_headers": Reason(
        502, _("Bland's answer has headers that contradict each other"), RETRY_LATER
    ),
    "interim_answer": Reason(
        502, _("Bland sent an interim answer (%(answer)s) and not yet the real one"), RETRY_LATER
    ),
    "not_json": Reason(502, _("Bland's answer is not valid JSON"), RETRY_LATER),
    "nested_too_deeply": Reason(502, _("Bland's answer is nested too deeply")),
    "too_many_values": Reason(
        502, _("Bland's answer holds more than %(number)s values, which is too much")
    ),
    "no_json_value": Reason(502, _("Bland's answer contains %(name)s, which is not JSON")),
    "number_too_large": Reason(502, _("Bland's answer contains a number that is too large")),
    "repeated_key": Reason(502, _("Bland's answer repeats a key within one object")),
    "not_an_object": Reason(502, _("Bland's answer is not a JSON object"), RETRY_LATER),
    "no_conversation": Reason(502, _("Bland answered about no conversation")),
    "another_conversation": Reason(502, _("Bland answered about another conversation")),
    "row_not_an_object": Reason(502, _("a conversation in Bland's answer is not a JSON object")),
    "row_without_id": Reason(502, _("a conversation in Bland's answer has no usable id")),
    "no_list": Reason(502, _("Bland's list of conversations has no list in it")),
    # --- settings -------------------------------------------------------------------------------
    "not_configured": Reason(503, NOT_CONNECTED, REPLACE_KEY),
    "no_key": Reason(
        503,
        NOT_CONNECTED,
        REPLACE_KEY,
        for_operators=_("Bland is not connected yet: set BLAND_SMS['API_KEY']"),
    ),
    "bad_key": Reason(
        503,
        NOT_CONNECTED,
        REPLACE_KEY,
        for_operators=_(
            "BLAND_SMS['API_KEY'] holds white space or characters that no key has: paste it again"
        ),
    ),
    "secret_not_read": Reason(
        503,
        NOT_CONNECTED,
        RETRY_LATER,
        for_operators=_(
            "BLAND_SMS['%(name)s'] could not be read: the callable that returns it failed "
            "(%(error)s)"
        ),
    ),
    "proxy_sees_key": Reason(
        503,
        NOT_CONNECTED,
        REPAIR_CONNECTION,
        for_operators=_(
            "BLAND_SMS['PROXIES'] cannot be used with a BASE_URL of http://: the proxy would see "
            "the key"
        ),
    ),
    "bad_url": Reason(
        503,
        NOT_CONNECTED,
        REPAIR_CONNECTION,
        for_operators=_("BLAND_SMS['BASE_URL'] is not a URL like https://api.bland.ai"),
    ),
    "url_with_extras": Reason(
        503,
        NOT_CONNECTED,
        REPAIR_CONNECTION,
        for_operators=_("BLAND_SMS['BASE_URL'] must not hold a user, password, query or fragment"),
    ),
    "url_not_https": Reason(
        503,
        NOT_CONNECTED,
        REPAIR_CONNECTION,
        for_operators=_(
            "BLAND_SMS['BASE_URL'] must start with https:// unless it is on this machine"
        ),
    ),
    "url_not_usable": Reason(
        503,
        NOT_CONNECTED,
        REPAIR_CONNECTION,
        for_operators=_("BLAND_SMS['BASE_URL'] or ['PROXIES'] is not a usable URL"),
    ),
    "bad_ca_bundle": Reason(
        503,
        NOT_CONNECTED,
        REPAIR_CONNECTION,
        for_operators=_("BLAND_SMS['CA_BUNDLE'] is not a readable file or folder of certificates"),
    ),
    "tls_refused": Reason(
        502,
        _("The server's certificate was refused, or it does not speak TLS"),
        REPAIR_CONNECTION,
        for_operators=_(
            "The server's certificate was refused, or it does not speak TLS: check "
            "BLAND_SMS['BASE_URL'] and BLAND_SMS['CA_BUNDLE']"
        ),
    ),
    "invalid_id": Reason(404, _("%(id)s is not a conversation id: letters, digits, - and _ only")),
    # --- a pasted list, and its lines -----------------------------------------------------------
    "list_empty": Reason(400, _("There is no line in the list")),
    "list_too_long": Reason(
        400, _("The list is longer than %(number)s lines"), _("Paste it in several parts.")
    ),
    "file_too_large": Reason(
        400,
        _("The file is larger than %(number)s MB"),
        _("Save only the column of the numbers, as CSV."),
    ),
    "form_too_large": Reason(
        413,
        _("This is more text than the site accepts at once"),
        _("Save the list as a CSV file and upload the file."),
    ),
    "not_a_spreadsheet": Reason(
        400, _("The file is not a spreadsheet that can be read"), _("Save it as CSV or as .xlsx.")
    ),
    "no_excel": Reason(
        400, _("This site does not read Excel files"), _("Save the sheet as CSV and upload that.")
    ),
    "line_heading": Reason(400, _("the heading of the column")),
    "line_scientific": Reason(
        400,
        _("a spreadsheet has rounded this number"),
        _("Format the column as text, and copy the numbers into it again."),
    ),
    "line_too_short": Reason(400, _("fewer than 4 digits")),
    "line_too_long": Reason(400, _("longer than any number, address or id")),
    "line_without_number": Reason(400, _("no number, address or conversation id")),
    "line_of_many": Reason(
        400, _("the last digits of more than 10 customers"), _("Give more digits.")
    ),
    # --- an update, and its items ---------------------------------------------------------------
    "waiting": Reason(202, _("Accepted, and not carried out yet")),
    "already_queued": Reason(202, _("Another update does the same already")),
    "superseded": Reason(409, _("A newer update asks for the opposite")),
    "cancelled": Reason(409, _("Cancelled before it was sent")),
    "not_attempted": Reason(
        503, _("not sent to Bland: the time limit was reached or the job was stopped")
    ),
    "not_applied": Reason(
        409,
        _("Bland answered, but did not change it"),
        _("Retry, or look at the conversation at Bland."),
    ),
    "not_confirmed": Reason(502, _("Bland's answer did not confirm the change"), RETRY_LATER),
    "not_stored": Reason(
        503, _("Done at Bland, but not stored here"), _("Refresh the conversation.")
    ),
    "wrong_account": Reason(
        502,
        _(
            "Bland knows none of the first %(number)s conversations: this looks like another "
            "account's key"
        ),
    ),
    "not_permitted": Reason(403, _("The requester is no longer allowed to do this")),
    "requester_gone": Reason(403, _("%(who)s no longer has an account")),
    "requester_inactive": Reason(403, _("The account of %(who)s is no longer active")),
    "requester_not_allowed": Reason(403, _("%(who)s lacks the permission %(permission)s")),
    # --- standing orders ------------------------------------------------------------------------
    "lifted": Reason(409, _("The standing order was lifted or had expired")),
    "order_suspended": Reason(409, _("The standing order was suspended")),
    "taken_over": Reason(409, _("A person took it over before it was sent")),
    "order_too_often": Reason(
        409,
        _(
            "Something keeps opening conversations with this customer, perhaps a campaign of "
            "your own: the order was applied %(number)s times within %(hours)s h"
        ),
        _("Find out what writes to this customer, then renew the order."),
    ),
    "orders_too_often": Reason(
        409,
        _("All standing orders were suspended: they deactivated %(number)s conversations in 1 h"),
        _("Find out what opens so many conversations, then renew the orders."),
    ),
    "order_exists": Reason(
        409, _("Standing order %(number)s keeps this customer inactive already")
    ),
    "order_over": Reason(409, _("This standing order was lifted or has expired")),
    "order_not_suspended": Reason(409, _("This standing order is not suspended")),
    "no_customer": Reason(409, _("Not a customer: a whole phone number or address is needed")),
    "customer_not_found": Reason(404, _("Not found")),
    "no_reason": Reason(409, _("A standing order needs a reason")),
    "until_unreadable": Reason(400, _("the end of the order is no time such as 2026-12-31")),
    "until_past": Reason(409, _("The end of a standing order must lie in the future")),
    # --- syncs and webhook deliveries -----------------------------------------------------------
    "sync_running": Reason(409, _("another sync is running")),
    "process_ended": Reason(503, _("its process ended before it was complete")),
    "crashed": Reason(503, _("its process was ended by %(error)s")),
    "not_finished": Reason(503, _("not finished in time: the next sync goes on from here")),
    "list_untrusted": Reason(
        502,
        _("Bland ignored the order or the filter asked for: the list cannot be trusted"),
    ),
    "no_usable_time": Reason(502, _("Bland lists conversations without a usable time")),
    "list_gap": Reason(
        502,
        _(
            "Bland does not answer for a part of its list (%(spans)s): all else was copied, and "
            "the next sync asks for it again"
        ),
    ),
    "too_few_found": Reason(
        502,
        _(
            "Bland no longer lists or finds many of the copied conversations, so none was marked "
            "as missing: is this another account's key?"
        ),
    ),
    "not_looked_at": Reason(
        502,
        _("some conversations that Bland no longer lists could not be checked: %(because)s"),
    ),
    "copy_refused": Reason(503, _("The database refused what Bland answered")),
    "wrong_clock": Reason(
        503, _("The stored copy is dated in the future: a clock is wrong"), RETRY_LATER
    ),
    "copy_crashed": Reason(503, _("The worker crashed repeatedly while copying it")),
    # --- what people ask for --------------------------------------------------------------------
    "empty_selection": Reason(400, _("No conversation was selected")),
    "selection_too_large": Reason(
        400, _("More than %(number)s conversations at once: narrow the selection")
    ),
    "nothing_to_continue": Reason(409, _("Nothing is left to continue in this update")),
    "nothing_to_cancel": Reason(409, _("Nothing is left to cancel in this update")),
    "nothing_to_retry": Reason(409, _("Nothing has failed in this update, or it is still running")),
    "nothing_to_undo": Reason(
        409, _("Nothing can be undone in this update, or it is still running")
    ),
    # --- the API's own --------------------------------------------------------------------------
    "copied_after_commit": Reason(202, _("It is copied as soon as the transaction ends")),
    "idempotency_key_reused": Reason(409, _("This Idempotency-Key was used for another request")),
    "invalid_idempotency_key": Reason(
        400, _("An Idempotency-Key has 1 to 255 printable ASCII characters and no spaces")
    ),
    "invalid_cursor": Reason(400, _("Not a cursor of this list: start again without one")),
    "body_too_long": Reason(413, _("The body is longer than %(number)s bytes")),
    "too_large": Reason(413, _("The body is too long")),
    "database_unavailable": Reason(503, _("The database is not available"), RETRY_LATER),
    # --- health ---------------------------------------------------------------------------------
    "health_ok": Reason(200, _("All is well")),
    "health_database": Reason(503, _("The database is not available or not migrated")),
    "health_not_configured": Reason(503, _("Bland cannot be asked: %(problem)s")),
    "health_never_synced": Reason(
        503, _("The list was never copied as a whole: run `bland_sms_sync`")
    ),
    "health_failing": Reason(
        503, _("The copy is old, and the last sync was not completed: %(problem)s")
    ),
    "health_stale": Reason(
        503, _("The copy is old, and no sync was tried since: is its timer running?")
    ),
    "health_behind": Reason(
        503,
        _(
            "Webhook deliveries or updates are waiting and not being processed: is a worker or "
            "`bland_sms_work` running?"
        ),
    ),
    "health_outage": Reason(
        503,
        _(
            "Bland does not answer, or limits how often it may be asked: updates wait, and are "
            "tried again by themselves"
        ),
    ),
    # --- what bland_sms_check found -------------------------------------------------------------
    "check_ok": Reason(
        200,
        _(
            "All well: Bland answers at %(url)s, accepts the key, and the plan lets it read SMS "
            "conversations"
        ),
    ),
    "check_bad_settings": Reason(
        503,
        _("BLAND_SMS is wrong, so nothing was asked: %(error)s"),
        _("`manage.py check` says more."),
    ),
    "check_no_key": Reason(
        503,
        _("There is no key, so nothing was asked"),
        _(
            "Set BLAND_SMS['API_KEY'] to a key of your Bland account. Until then what was copied "
            "can be read, and nothing can be changed."
        ),
    ),
    "check_bad_key": Reason(
        503,
        _(
            "The key cannot be sent, so nothing was asked: BLAND_SMS['API_KEY'] holds white space "
            "or characters that no key has"
        ),
        _("Copy it again, on one line."),
    ),
    "check_bad_url": Reason(503, _("Bland cannot be asked: %(error)s")),
    "check_key_refused": Reason(
        502,
        _(
            "Bland at %(url)s does not accept the key (%(error)s): it is mistyped, was revoked, or "
            "is of another service"
        ),
        _("Set BLAND_SMS['API_KEY'] to a key of your Bland account."),
    ),
    "check_plan": Reason(
        502,
        _(
            "Bland at %(url)s accepts the key, but the account's plan does not include SMS "
            "conversations (%(error)s)"
        ),
        _("Ask Bland to add them."),
    ),
    "check_forbidden": Reason(
        502,
        _("Bland at %(url)s knows the key but refuses the request (%(error)s)"),
        _("The account may be blocked: ask Bland."),
    ),
    "check_wrong_host": Reason(
        502,
        _("What answers at %(url)s is not Bland's SMS API (%(error)s)"),
        _("Correct BLAND_SMS['BASE_URL'], or leave it out for https://api.bland.ai."),
    ),
    "check_rate_limited": Reason(
        503,
        _("Bland at %(url)s is asked too often with this key, so the rest is not known"),
        _("Try again in a minute; BLAND_SMS['RATE_LIMIT'] slows us down for good."),
    ),
    "check_unavailable": Reason(
        502,
        _("Bland at %(url)s has trouble (%(error)s), so nothing is known about the key"),
        _("Try again later; what waits is not lost."),
    ),
    "check_tls_refused": Reason(
        502,
        _("The certificate of %(url)s is not trusted, or there is none, so the key was not sent"),
        _(
            "Check BLAND_SMS['BASE_URL']; if a proxy of yours answers, BLAND_SMS['CA_BUNDLE'] "
            "names its certificates."
        ),
    ),
    "check_unreachable": Reason(
        504,
        _("Nothing answers at %(url)s: no such host, no network, or a firewall"),
        _("Check BLAND_SMS['BASE_URL'] and ['PROXIES']: proxies of the environment are not used."),
    ),
    "check_no_answer": Reason(
        504,
        _(
            "%(url)s took the request and did not answer it (%(error)s), so nothing is known about "
            "the key"
        ),
        _("Try again; BLAND_SMS['READ_TIMEOUT'] says how long we wait."),
    ),
    "check_undocumented": Reason(
        502,
        _("Bland at %(url)s answered in a way that it does not document (%(error)s)"),
        _("Check BLAND_SMS['BASE_URL'] first."),
    ),
    "check_odd_answer": Reason(
        502,
        _("What answers at %(url)s does not answer as Bland does (%(error)s)"),
        _("Check BLAND_SMS['BASE_URL']."),
    ),
    # --- the admin's History --------------------------------------------------------------------
    "history_deactivated": Reason(200, _("Deactivated at Bland in bulk update %(number)s")),
    "history_reactivated": Reason(200, _("Reactivated at Bland in bulk update %(number)s")),
    "history_cancelled": Reason(200, _("Cancelled the rest")),
    "history_continued": Reason(200, _("Continued")),
    "history_retried": Reason(200, _("Retried %(number)s")),
    "history_undone": Reason(200, _("Undone by update %(number)s")),
    "history_order_made": Reason(200, _("Ordered")),
    "history_order_lifted": Reason(200, _("Lifted")),
    "history_order_replaced": Reason(200, _("Replaced by standing order %(number)s")),
    "history_order_renewed": Reason(200, _("Renewed")),
    "history_order_reviewed": Reason(200, _("Reviewed")),
}

BLANDS_CODES = ("CONVERSATION_NOT_FOUND", "AUTH_FAILURE", "UNAUTHORIZED")
NAMING_A_ROW = (
    "history_deactivated",
    "history_reactivated",
    "history_undone",
    "history_order_replaced",
    "order_exists",
)
"""Their ``number`` is that of an update or an order; any other is a quantity, in groups of three
digits."""
HOLES_GIVEN_HERE = ("answer", "code")
"""Filled from the code and Bland's HTTP status, not by the code that stores the parameters."""

_HTTP_CODE = re.compile(r"http_([1-5][0-9]{2})", re.ASCII)


@dataclass(frozen=True)
class Failure:
    """What a row keeps of what went wrong; ``str()`` words it in the active language.

    Parameters that have a meaning whatever the code: ``cause`` (a finer code of the table),
    ``http_status`` (Bland's), ``words`` (Bland's own), ``update`` and ``by`` (who decided it:
    a number and a name). A value that is ``{"code": ..., "params": ...}`` is worded too.
    """

    code: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    is_for_operators: bool = field(default=False, compare=False)

    @classmethod
    def of(
        cls,
        code: str,
        params: Mapping[str, Any] | None = None,
        http_status: int | None = None,
        words: str = "",
    ) -> Failure:
        """The same from a row that keeps what Bland said in columns of its own."""
        told = dict(params or {})
        if http_status is not None:
            told["http_status"] = http_status
        if words:
            told["words"] = words
        return cls(code, told)

    def __bool__(self) -> bool:
        return bool(self.code)

    @property
    def reason(self) -> Reason:
        """The row of the table. A refusal by 401 or 403 counts before Bland's code for it."""
        status = self.http_status
        keys = [
            self.params.get("cause"),
            f"http_{status}" if status in (401, 403) else None,
            self.code,
            f"http_{status}",
            "http_5xx" if status is not None and (status >= 500 or status == 408) else None,
            "http_4xx" if status is not None else None,
        ]
        return next((REASONS[key] for key in keys if key in REASONS), REASONS["error"])

    @property
    def http_status(self) -> int | None:
        """Bland's."""
        status = self.params.get("http_status")
        if status is None and (found := _HTTP_CODE.fullmatch(self.code)):
            status = int(found[1])
        return status

    def __str__(self) -> str:
        """The sentence, without a full stop; ``""`` where nothing went wrong."""
        if not self.code:
            return ""
        reason, values = self.reason, _Holes(self.params)
        values["code"] = self.code
        values["answer"] = self._answer()
        number = self.params.get("number")
        if isinstance(number, int) and self.code not in NAMING_A_ROW:
            values["number"] = number_words(number)
        told = str(self._for_operators or reason.sentence) % values
        if reason.quotes_bland and self.params.get("words"):
            told = f"{told}: {str(self.params['words']).rstrip('.')}"
        who = _who(self.params)
        return f"{told} ({who})" if who else told

    @property
    def as_sentence(self) -> str:
        """The same, as a sentence of its own."""
        told = str(self)
        if told and not str(self.reason.sentence).startswith("%("):  # a name stays as it is
            told = capfirst(told)
        return told if not told or told.endswith(("?", "!")) else f"{told}."

    @property
    def next_step(self) -> str:
        """What to do, as a sentence; ``""`` where there is nothing to do."""
        return "" if not self.code or self._for_operators else str(self.reason.next_step)

    @property
    def advice(self) -> str:
        """The sentence and the next step."""
        return f"{self.as_sentence} {self.next_step}".strip()

    def told(self, with_words: bool) -> Failure:
        """The same for one reader: without Bland's own words, which may quote what people wrote.

        Readers without the permission see our sentence and Bland's code.
        """
        return self if with_words else Failure(self.code, _without_words(self.params))

    @property
    def for_operators(self) -> Failure:
        """The same for checks, health, commands and programmers: it names the setting at fault."""
        return replace(self, is_for_operators=True)

    @property
    def _for_operators(self) -> Text | str:
        return self.reason.for_operators if self.is_for_operators else ""

    def _answer(self) -> str:
        status = self.http_status
        if status is None:
            return self.code
        return f"{status} {self.code}" if is_blands_code(self.code) else f"HTTP {status}"

    def as_json(self) -> dict[str, Any]:
        """Itself as a parameter of another one."""
        return {"code": self.code, "params": dict(self.params)}


def is_blands_code(code: str) -> bool:
    """Whether Bland sent the code itself, and not only a status."""
    is_ours = code in REASONS or _HTTP_CODE.fullmatch(code) is not None
    return not is_ours or code in BLANDS_CODES


class _Holes(dict[str, Any]):
    """The values of a sentence. A row of an older release may lack one that is new."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        super().__init__({name: _worded(value) for name, value in params.items()})

    def __missing__(self, name: str) -> str:
        return "?"


def _worded(value: Any) -> Any:
    if isinstance(value, Mapping) and "code" in value:
        return Failure(str(value["code"]), value.get("params") or {})
    return value


def _without_words(params: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_words(value) if isinstance(value, Mapping) else value
        for name, value in params.items()
        if name != "words"
    }


def _who(params: Mapping[str, Any]) -> str:
    """Whose decision it was: "update 3 by dana", or as much of it as is known."""
    number, who = params.get("update"), params.get("by")
    if number and who:
        return gettext("update %(number)s by %(who)s") % {"number": number, "who": who}
    if number:
        return gettext("update %(number)s") % {"number": number}
    if who:
        return gettext("by %(who)s") % {"who": who}
    return ""


# --- the admin's History --------------------------------------------------------------------------

HISTORY_KEY = "bland_sms"


def history_entry(code: str, **params: Any) -> list[dict[str, Any]]:
    """The ``change_message`` of an entry in the admin's History.

    Django's own JSON, so that any admin says "Changed state for bulk update 17" in any language,
    with our code and parameters beside it; our admin words these.
    """
    changed: dict[str, Any] = {"fields": ["state"]}
    if code != "history_retried" and "number" in params:
        changed |= {"name": "bulk update", "object": str(params["number"])}
    return [{"changed": changed, HISTORY_KEY: {"code": code, "params": params}}]


def history_words(change_message: str) -> str:
    """An entry of ours in the active language; anybody else's as it is."""
    kept = _kept_in_history(change_message)
    if kept is None:
        return change_message
    person = kept.params.get("person")  # "boss as dana", where the entry's user is dana
    return f"{kept.as_sentence} ({person})" if person else kept.as_sentence


def update_in_history(change_message: str) -> int | None:
    """The update that an entry of ours says to have changed the row."""
    kept = _kept_in_history(change_message)
    is_change = kept is not None and kept.code in ("history_deactivated", "history_reactivated")
    number = kept.params.get("number") if kept is not None and is_change else None
    return number if isinstance(number, int) else None


def _kept_in_history(change_message: str) -> Failure | None:
    if HISTORY_KEY not in change_message:
        return None
    try:
        [entry] = json.loads(change_message)
        kept = entry[HISTORY_KEY]
        return Failure(kept["code"], kept["params"])
    except (ValueError, TypeError, KeyError):
        return None
