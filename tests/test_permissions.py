"""Who gets what: every address, method and action, against a table that must name them all."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from html import unescape
from importlib.util import find_spec
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from django.contrib import admin
from django.contrib.auth.models import AbstractUser, Permission
from django.db import connection
from django.test import Client
from django.utils import timezone

from bland_sms import standing
from bland_sms.models import (
    BulkUpdate,
    BulkUpdateItem,
    Conversation,
    Erasure,
    Message,
    StandingOrder,
    SyncRun,
    WebhookDelivery,
)
from bland_sms.sandbox import BlandSandbox
from bland_sms.sync import refresh
from bland_sms.updates import prepare
from tests.addresses import Address, addresses

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.usefixtures("no_waiting"),
    pytest.mark.urls("tests.addresses"),
]

# --- the table --------------------------------------------------------------------------------

Needs = tuple[frozenset[str], ...]
"""Any one of these sets of permissions opens it. None: nobody may."""

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
NOT_POST = tuple(method for method in METHODS if method != "POST")
"""The admin's pages answer any of these as they answer GET; that is Django's way."""
LOOK = ("GET", "HEAD", "OPTIONS")

SEE = "view_conversation"
READ = "view_transcript"
STOP = "deactivate_conversation"
START = "reactivate_conversation"
COPY = "refresh_conversation"
EXPORT = "export_conversation"
LEDGER = "view_bulkupdate"
RUNS = "view_syncrun"
BELL = "view_webhookdelivery"
RING = "reprocess_webhookdelivery"
ERASED = "view_erasure"
ERASE = "add_erasure"
ORDERS = "view_standingorder"
ORDER = "add_standingorder"
LIFT = "lift_standingorder"
PERMISSIONS = (SEE, READ, STOP, START, COPY, EXPORT, LEDGER, RUNS, BELL, RING, ERASED, ERASE)
PERMISSIONS += (ORDERS, ORDER, LIFT)


def of(*alternatives: str) -> Needs:
    """Such as ``of("this+that", "or this alone")``."""
    return tuple(frozenset(one.split("+")) for one in alternatives)


def doors(methods: tuple[str, ...], *alternatives: str) -> dict[str, Needs]:
    return dict.fromkeys(methods, of(*alternatives))


def rows_of(model: str, *to_list: str, page: str) -> dict[str, dict[str, Needs]]:
    """The pages that every admin has. ``<id>/`` leads to the page of one, whoever asks."""
    return {
        f"admin/{model}/": doors(METHODS, *to_list),
        f"admin/{model}/add/": {},
        f"admin/{model}/search/": doors(("GET", "HEAD", "POST"), *to_list),
        f"admin/{model}/<id>/": {},
        f"admin/{model}/<id>/change/": doors(NOT_POST, page),
        f"admin/{model}/<id>/delete/": {},
        f"admin/{model}/<id>/history/": doors(METHODS, page),
    }


OWN_OR_ALL = (LEDGER, STOP, START)
"""Whoever may ask Bland has a list of what they asked for."""
LIKE_API = doors(LOOK, SEE)
LIKE_LEDGER = doors(("OPTIONS",), *OWN_OR_ALL)
OF_ORDERS = (ORDERS, ORDER, LIFT)
LIKE_ORDERS = doors(("OPTIONS",), *OF_ORDERS)
# The rows: a conversation, and updates of somebody else's that deactivate.
OPENED_BY: dict[str, dict[str, Needs]] = {
    **rows_of("conversation", SEE, page=SEE),
    "admin/conversation/summary/": doors(("GET", "HEAD"), SEE),
    "admin/conversation/messages/": doors(("GET", "HEAD"), f"{SEE}+{READ}"),
    "admin/conversation/summary.csv": doors(("GET", "HEAD"), SEE),
    "admin/conversation/sync/": doors(("POST",), f"{SEE}+{COPY}"),
    "admin/conversation/<id>/transcript.txt": doors(("GET", "HEAD"), f"{SEE}+{READ}"),
    "admin/conversation/<id>/deactivate/": doors(("POST",), f"{SEE}+{STOP}"),
    "admin/conversation/<id>/reactivate/": doors(("POST",), f"{SEE}+{START}"),
    "admin/conversation/<id>/deactivate-customer/": doors(("POST",), f"{SEE}+{STOP}"),
    "admin/conversation/<id>/refresh/": doors(("POST",), f"{SEE}+{COPY}"),
    "admin/conversation/<id>/copy/": doors(("POST",), f"{SEE}+{READ}"),
    **rows_of("bulkupdate", *OWN_OR_ALL, page=LEDGER),
    "admin/bulkupdate/paste/": doors(("GET", "HEAD", "POST"), f"{SEE}+{STOP}", f"{SEE}+{START}"),
    "admin/bulkupdate/ledger.csv": doors(("GET", "HEAD"), *OWN_OR_ALL),
    "admin/bulkupdate/<id>/confirm/": {},  # a draft is its owner's alone
    "admin/bulkupdate/<id>/pick/": {},
    "admin/bulkupdate/<id>/lines.csv": doors(("GET", "HEAD"), LEDGER),
    "admin/bulkupdate/<id>/run/": doors(("POST",), f"{LEDGER}+{STOP}"),
    "admin/bulkupdate/<id>/cancel/": doors(("POST",), f"{LEDGER}+{STOP}"),
    "admin/bulkupdate/<id>/retry/": doors(("POST",), f"{LEDGER}+{STOP}"),
    "admin/bulkupdate/<id>/undo/": doors(("POST",), f"{LEDGER}+{START}"),
    "admin/bulkupdate/<id>/progress/": doors(("GET", "HEAD"), LEDGER),
    "admin/bulkupdate/<id>/parts/": doors(("GET", "HEAD"), LEDGER),
    "admin/bulkupdate/<id>/results.csv": doors(("GET", "HEAD"), LEDGER),
    **rows_of("standingorder", ORDERS, page=ORDERS),
    "admin/standingorder/add/": doors(METHODS, f"{SEE}+{ORDER}"),
    **{
        f"admin/standingorder/<id>/{verb}/": doors(("POST",), f"{ORDERS}+{needs}")
        for verb, needs in (("lift", LIFT), ("renew", ORDER), ("again", ORDER), ("review", ORDER))
    },
    **rows_of("erasure", ERASED, page=ERASED),
    "admin/erasure/add/": doors(METHODS, f"{SEE}+{ERASE}"),
    **rows_of("syncrun", RUNS, page=RUNS),
    **rows_of("webhookdelivery", BELL, page=BELL),
    "api/v1/conversations/": LIKE_API,
    "api/v1/conversations/<id>/": {**LIKE_API, **doors(("PATCH",), f"{SEE}+{STOP}")},
    "api/v1/conversations/<id>/messages/": {
        **doors(("GET", "HEAD"), f"{SEE}+{READ}"),
        **doors(("OPTIONS",), SEE),
    },
    "api/v1/conversations/<id>/refresh/": {
        **doors(("POST",), f"{SEE}+{COPY}"),
        **doors(("OPTIONS",), SEE),
    },
    "api/v1/summary/": LIKE_API,
    "api/v1/bulk-updates/": {**doors(LOOK, *OWN_OR_ALL), **doors(("POST",), f"{SEE}+{STOP}")},
    "api/v1/bulk-updates/<id>/": {**doors(("GET", "HEAD"), LEDGER), **LIKE_LEDGER},
    "api/v1/bulk-updates/<id>/items/": {**doors(("GET", "HEAD"), LEDGER), **LIKE_LEDGER},
    "api/v1/bulk-updates/<id>/continue/": {**doors(("POST",), f"{LEDGER}+{STOP}"), **LIKE_LEDGER},
    "api/v1/bulk-updates/<id>/retry/": {**doors(("POST",), f"{LEDGER}+{STOP}"), **LIKE_LEDGER},
    "api/v1/bulk-updates/<id>/cancel/": {**doors(("POST",), f"{LEDGER}+{STOP}"), **LIKE_LEDGER},
    "api/v1/bulk-updates/<id>/undo/": {**doors(("POST",), f"{LEDGER}+{START}"), **LIKE_LEDGER},
    "api/v1/standing-orders/": {**doors(LOOK, *OF_ORDERS), **doors(("POST",), ORDER)},
    "api/v1/standing-orders/<id>/": {**doors(("GET", "HEAD"), ORDERS, LIFT), **LIKE_ORDERS},
    "api/v1/standing-orders/<id>/lift/": {**doors(("POST",), LIFT), **LIKE_ORDERS},
}
if find_spec("drf_spectacular"):
    OPENED_BY["api/v1/schema/"] = doors(LOOK, SEE, LEDGER, ORDERS, STOP, START)

ACTIONS: dict[str, Needs] = {
    "conversation.deactivate_selected": of(f"{SEE}+{STOP}"),
    "conversation.reactivate_selected": of(f"{SEE}+{START}"),
    "conversation.refresh_selected": of(f"{SEE}+{COPY}"),
    "conversation.export_selected": of(f"{SEE}+{EXPORT}"),
    "conversation.stop_selected": of(f"{SEE}+{ORDER}"),
    "standingorder.lift_selected": of(f"{ORDERS}+{LIFT}"),
    "standingorder.renew_selected": of(f"{ORDERS}+{ORDER}"),
    "standingorder.again_selected": of(f"{ORDERS}+{ORDER}"),
    "standingorder.review_selected": of(f"{ORDERS}+{ORDER}"),
    "standingorder.export_selected": of(f"{ORDERS}+{EXPORT}"),
    "webhookdelivery.reprocess_selected": of(f"{BELL}+{RING}"),
}


def opens(needs: Needs, held: frozenset[str]) -> bool:
    return any(alternative <= held for alternative in needs)


ALONE = [frozenset({one}) for one in PERMISSIONS]
TOGETHER = sorted(
    {
        alternative
        for table in (ACTIONS, *OPENED_BY.values())
        for needs in table.values()
        for alternative in needs
        if len(alternative) > 1
    },
    key=sorted,
)


def test_table__names_every_address_and_nothing_else() -> None:
    found = {address.name for address in addresses()}
    assert found == set(OPENED_BY)
    on_sites = {
        mount: {address.name for address in addresses() if address.mount == mount}
        for mount in ("admin", "second")
    }
    assert on_sites["admin"] == on_sites["second"]


def test_table__names_every_permission() -> None:
    ours = Permission.objects.filter(content_type__app_label="bland_sms")
    assert set(ours.values_list("codename", flat=True)) == set(PERMISSIONS)


def test_table__names_every_action() -> None:
    """Django offers an action without permissions to whoever may see the list."""
    found = {}
    for model, model_admin in admin.site._registry.items():
        if model._meta.app_label == "bland_sms":
            for name in model_admin.actions:
                found[f"{model._meta.model_name}.{name}"] = getattr(model_admin, str(name))
    assert set(found) == set(ACTIONS)
    for name, function in found.items():
        assert getattr(function, "allowed_permissions", ()), f"{name} names no permission"


# --- the rows and the people ------------------------------------------------------------------

MARKER = "xyzzy-was-said"
CUSTOMER = "+15550100001"
ID = "conv_1"


class Account:
    """A conversation with all kinds of text, an update in each state that matters, and logs."""

    def __init__(self, sandbox: BlandSandbox, owner: AbstractUser) -> None:
        self.sandbox = sandbox
        for row_id in (ID, "conv_2"):
            sandbox.account.add(
                {
                    "id": row_id,
                    "user_number": CUSTOMER,
                    "last_message": f"{MARKER} last",
                    "summary": f"{MARKER} summary",
                    "variables": {"told": MARKER},
                    "something_new": MARKER,
                    "messages": [
                        {
                            "id": f"m{n}",
                            "sender": sender,
                            "message": f"{MARKER} {n}",
                            "created_at": f"2026-01-02T03:04:0{n}.000Z",
                        }
                        for n, sender in enumerate(("USER", "AGENT"))
                    ],
                }
            )
            refresh(row_id)
        self.say()
        assert Message.objects.filter(text__contains=MARKER).count() == 4
        self.updates = [
            self._update(owner, status, states)
            for status, states in (
                ("finished", ("changed", "failed")),
                ("stopped", ("waiting", "failed")),
            )
        ]
        self.order = standing.make(CUSTOMER, "asked by phone")
        self.draft = prepare([ID], False, requested_by=owner)
        quoted = {"http_status": 422, "words": f"{MARKER} quoted by Bland"}
        nested = {"cause": "", "error": {"code": "X_ODD", "params": quoted}, **quoted}
        BulkUpdateItem.objects.filter(state="failed").update(
            error_code="X_ODD", http_status=422, message=f"{MARKER} quoted by Bland"
        )
        BulkUpdate.objects.filter(status="stopped").update(
            stop_code="http_403", stop_params={**nested, "http_status": 403}
        )
        self.erasure = Erasure.objects.create(requested_by_name="dana", counts={"messages": 2})
        self.run = SyncRun.objects.create(
            status="failed", finished_at=timezone.now(), error_code="X_ODD", error_params=nested
        )
        self.delivery = WebhookDelivery.objects.create(
            body_sha256="0" * 64,
            conversation_id=ID,
            reason=f"{MARKER} why",
            state="failed",
            error="X_ODD",
            error_params=nested,
        )
        sandbox.log.clear()

    def say(self) -> None:
        """Put the text into each column that can hold what people wrote."""
        Conversation.objects.update(
            last_message=f"{MARKER} last",
            summary=f"{MARKER} summary",
            variables={"told": MARKER},
            extra={"something_new": MARKER},
        )

    def _update(self, owner: AbstractUser, status: str, states: tuple[str, ...]) -> BulkUpdate:
        moment = timezone.now() - timedelta(hours=2)
        bulk_update = BulkUpdate.objects.create(
            is_active=False,
            status=status,
            source="admin",
            requested_by=owner,
            requested_by_name="dana",
            started_at=moment,
            finished_at=moment if status == "finished" else None,
        )
        for state, row_id in zip(states, (ID, "conv_2"), strict=True):
            BulkUpdateItem.objects.create(
                bulk_update=bulk_update,
                conversation_id=row_id,
                state=state,
                previous_is_active=True,
                finished_at=moment,
            )
        bulk_update.counts_at_rest = bulk_update.counts()
        bulk_update.save()
        return bulk_update

    def row_for(self, model: str, action: str) -> object:
        """A row that an action of the list changes."""
        WebhookDelivery.objects.update(asked_at=None, state="failed")
        StandingOrder.objects.exclude(pk=self.order.pk).delete()
        is_over = action == "again_selected"
        StandingOrder.objects.update(
            in_force=None if is_over else True,
            lifted_at=timezone.now() if is_over else None,
            suspended_code="order_too_often" if action == "renew_selected" else "",
            needs_review=True,
        )
        rows = {"conversation": ID, "standingorder": self.order.pk}
        return rows.get(model, self.delivery.pk)

    def ids_for(self, address: Address, *, all_of_them: bool = False) -> list[object]:
        """What can stand in an address; with ``all_of_them`` also what only its owner may see."""
        if not address.has_id:
            return [""]
        if "conversation" in address.route:
            return [ID]
        if "bulk" in address.route:
            drafts = [self.draft] if all_of_them else []
            return [row.pk for row in (*self.updates, *drafts)]
        if "standing" in address.route:
            return [self.order.pk]
        if "erasure" in address.route:
            return [self.erasure.pk]
        return [self.run.pk if "syncrun" in address.route else self.delivery.pk]


@pytest.fixture
def account(sandbox: BlandSandbox, staff: AbstractUser) -> Account:
    return Account(sandbox, staff)


@pytest.fixture(autouse=True)
def _quick(settings: Any) -> Iterator[None]:
    """Thousands of refusals, each with its traceback, take longer to log than to check."""
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


Login = Callable[..., Client]


@pytest.fixture
def login(django_user_model: Any) -> Login:
    """A browser of staff with these permissions and no others."""
    number = iter(range(1000))

    def make(*codenames: str, is_staff: bool = True) -> Client:
        user = django_user_model.objects.create_user(f"sam{next(number)}", is_staff=is_staff)
        user.user_permissions.set(
            Permission.objects.filter(codename__in=codenames, content_type__app_label="bland_sms")
        )
        browser = Client(raise_request_exception=False)
        browser.force_login(user)
        return browser

    return make


class Traces:
    """What a request has left behind: rows that were written, and calls of Bland."""

    def __init__(self, sandbox: BlandSandbox) -> None:
        self._sandbox = sandbox
        self._written: list[str] = []

    def __call__(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        text = str(sql)
        if re.match(r"\s*(INSERT|UPDATE|DELETE|REPLACE)\b", text) and "django_session" not in text:
            self._written.append(text[:120])
        return execute(sql, params, many, context)

    def take(self) -> list[str]:
        """Those since the last time."""
        found = self._written + [f"{call}" for call in self._sandbox.log]
        self._written = []
        self._sandbox.log.clear()
        return found


@contextmanager
def traces_of(account: Account) -> Iterator[Traces]:
    traces = Traces(account.sandbox)
    with connection.execute_wrapper(traces):
        yield traces


def body_for(address: Address) -> dict[str, object]:
    if address.name == "api/v1/bulk-updates/":
        return {"is_active": False, "conversation_ids": [ID]}
    return {"is_active": False} if address.name == "api/v1/conversations/<id>/" else {}


def ask(browser: Client, method: str, address: Address, url: str, **headers: str) -> Any:
    if address.mount != "bland-sms":
        data = {"post": "yes", "reason": "because"} if method == "POST" else None
        if method == "POST":
            return browser.post(url, data, headers=headers)
        return browser.generic(method, url, headers=headers)
    body = json.dumps(body_for(address)) if method in ("POST", "PUT", "PATCH") else ""
    return browser.generic(method, url, body, "application/json", headers=headers)


def content_of(response: Any) -> str:
    content = b"".join(response.streaming_content) if response.streaming else response.content
    return str(content.decode())


CLOSED = {403, 404, 405}


def leads_on(address: Address, response: Any) -> bool:
    """Django's short address of a row: it looks at nothing and leads to the page of one."""
    return (
        re.fullmatch("admin/[a-z]+/<id>/", address.name) is not None
        and response.status_code == 302
        and response["Location"].endswith("/change/")
    )


def is_nowhere(address: Address, response: Any) -> bool:
    """How the admin tells those who may see the list that there is no such row for them."""
    return response.status_code == 302 and response["Location"] == f"/{address.mount}/"


JUNK = (
    "\0",
    "1\0",
    f"{ID}\0",
    "'",
    '"><script>alert(1)</script>',
    "1' OR '1'='1",
    "x" * 5000,
    "9" * 30,
    "9" * 5000,
    "-1",
    "٣x",
    "\udcff\udcfe",
    "_00",
    "%",
    "../../conversation",
    "é" * 300,
)

# --- nobody -----------------------------------------------------------------------------------


def test_staff_without_permissions__are_refused_everywhere(account: Account, login: Login) -> None:
    browser = login()
    with traces_of(account) as traces:
        for address in addresses():
            for row_id in account.ids_for(address, all_of_them=True):
                for method in METHODS:
                    url = address.url(row_id)
                    response = ask(browser, method, address, url)
                    assert response.status_code in CLOSED or leads_on(address, response), (
                        f"{method} {url}: {response.status_code}"
                    )
                    assert not traces.take(), f"{method} {url}"
                    assert MARKER not in content_of(response)


@pytest.mark.slow
@pytest.mark.parametrize("everything", [False, True], ids=["no permission", "every permission"])
def test_junk_in_an_address__is_refused(everything: bool, account: Account, login: Login) -> None:
    held = PERMISSIONS if everything else ()
    with traces_of(account) as traces:
        for address in addresses():
            if not address.has_id or address.mount == "second":
                continue
            browser = login(*held)
            traces.take()
            methods = {"GET", "POST", *OPENED_BY[address.name]} & {"GET", "POST", "PATCH"}
            for junk in JUNK:
                for method in sorted(methods):
                    url = address.url(junk, is_junk=True)
                    response = ask(browser, method, address, url)
                    is_refused = response.status_code in CLOSED or leads_on(address, response)
                    if everything:
                        is_refused = is_refused or is_nowhere(address, response)
                    assert is_refused, f"{method} {url[:80]}: {response.status_code}"
                    assert not traces.take(), f"{method} {url[:80]}"


def is_sent_away(address: Address, response: Any) -> bool:
    if address.mount == "bland-sms":
        return response.status_code in (401, 403)
    login_page = f"/{address.mount}/login/?next="
    return response.status_code == 302 and response["Location"].startswith(login_page)


def test_strangers__are_sent_to_the_login(account: Account) -> None:
    stranger = Client(raise_request_exception=False)
    with traces_of(account) as traces:
        for address in addresses():
            for row_id in account.ids_for(address, all_of_them=True)[-1:]:
                for method in METHODS:
                    url = address.url(row_id)
                    response = ask(stranger, method, address, url)
                    assert is_sent_away(address, response), f"{method} {url}"
                    assert not traces.take(), f"{method} {url}"
            for junk in JUNK if address.has_id else ():
                response = ask(stranger, "GET", address, address.url(junk, is_junk=True))
                is_none = response.status_code == 404
                assert is_none or is_sent_away(address, response), f"{address.name} {junk[:80]}"
                assert not traces.take(), f"{address.name} {junk[:80]}"


def test_accounts_that_are_no_staff__are_sent_to_the_login(account: Account, login: Login) -> None:
    """Whatever their permissions. In the API these are all that counts."""
    customer = login(*PERMISSIONS, is_staff=False)
    with traces_of(account) as traces:
        for address in addresses():
            if address.mount == "bland-sms":
                continue
            for row_id in account.ids_for(address, all_of_them=True)[-1:]:
                for method in ("GET", "POST"):
                    url = address.url(row_id)
                    response = ask(customer, method, address, url)
                    assert is_sent_away(address, response), f"{method} {url}"
                    assert not traces.take(), f"{method} {url}"


# --- one permission, and two ------------------------------------------------------------------


def walk(browser: Client, held: frozenset[str], account: Account, *methods: str) -> None:
    """Try the doors of the table; also of an update in whatever state the last try left it."""
    with traces_of(account) as traces:
        for address in addresses():
            if address.mount == "second":
                continue
            needs = OPENED_BY[address.name]
            for method in methods:
                if method not in needs and method in ("HEAD", "PUT", "OPTIONS"):
                    continue  # nobody's: as for staff without permissions
                may = opens(needs.get(method, ()), held)
                ids = account.ids_for(address, all_of_them=not may and method in ("GET", "POST"))
                for row_id in ids[::2] if may or method in needs else ids[-1:]:
                    url = address.url(row_id)
                    response = ask(browser, method, address, url)
                    where = f"{method} {url} with {sorted(held)}: {response.status_code}"
                    is_refused = (
                        response.status_code in CLOSED
                        or leads_on(address, response)
                        or is_nowhere(address, response)
                    )
                    assert response.status_code < 500, where
                    assert is_refused is not may, where
                    left = traces.take()
                    if not may or method not in ("POST", "PATCH"):
                        assert not left, f"{where}: {left}"


@pytest.mark.parametrize("held", ALONE, ids=lambda held: "+".join(sorted(held)))
def test_one_permission__opens_what_it_names(
    held: frozenset[str], account: Account, login: Login
) -> None:
    walk(login(*held), held, account, *METHODS)


@pytest.mark.parametrize("held", TOGETHER, ids=lambda held: "+".join(sorted(held)))
def test_two_permissions__open_what_they_name(
    held: frozenset[str], account: Account, login: Login
) -> None:
    walk(login(*held), held, account, "GET", "POST", "PATCH")


def test_actions__are_carried_out_for_those_who_may(account: Account, login: Login) -> None:
    opened: dict[str, int] = dict.fromkeys(ACTIONS, 0)
    with traces_of(account) as traces:
        for held in (frozenset[str](), *ALONE, *TOGETHER):
            browser = login(*held)
            traces.take()
            for mount in ("admin", "second"):
                for name, needs in ACTIONS.items():
                    model, action = name.split(".")
                    row_id = account.row_for(model, action)
                    traces.take()
                    response = browser.post(
                        f"/{mount}/bland_sms/{model}/",
                        {"action": action, "_selected_action": [row_id]},
                    )
                    asks_first = "standingorder/add/" in response.headers.get("Location", "")
                    done = bool(traces.take()) or response.streaming or asks_first
                    assert response.status_code < 500
                    assert done is opens(needs, held), f"{name} at {mount} with {sorted(held)}"
                    opened[name] += done
    assert all(opened.values())


# --- texts ------------------------------------------------------------------------------------

LINK = re.compile(r'(?:href|action)="([^"#][^"]*)"')
MOST_OF_A_KIND = 5
"""Pages at one address that differ in one parameter alone."""
WITHOUT_TEXTS = frozenset(PERMISSIONS) - {READ}


def crawl(browser: Client, account: Account) -> dict[str, str]:
    """Every page that there is for this person: by the URL conf, and then by the links."""
    waiting = [
        address.url(row_id)
        for address in addresses()
        for row_id in account.ids_for(address, all_of_them=True)
    ]
    waiting += ["/admin/", "/admin/bland_sms/", "/bland-sms/health/"]
    pages: dict[str, str] = {}
    kinds: Counter[tuple[str, str]] = Counter()
    while waiting:
        url = waiting.pop()
        parts = urlsplit(url)
        is_here = re.match("/(admin|second|bland-sms)/", parts.path) and not parts.netloc
        if url in pages or not is_here or re.search("logout|/auth/|tasks_data", parts.path):
            continue
        if "&" in parts.query:
            continue  # each filter, order and page by itself, not all that they can be combined to
        kind = parts.path, parts.query.partition("=")[0]
        if parts.query and kinds[kind] == MOST_OF_A_KIND:
            continue  # each day of a summary is a link to the same page
        kinds[kind] += 1
        accepts = ["text/html", "application/json"] if "/api/" in url else ["text/html"]
        for accept in accepts:
            response = browser.get(url, headers={"Accept": accept})
            assert response.status_code < 500 or "/health/" in url, url
            pages[url] = pages.get(url, "") + content_of(response)
            found = [response["Location"]] if response.status_code == 302 else []
            is_page = response.status_code == 200 and "html" in response["Content-Type"]
            if is_page and "/second/" not in url:  # its links are the same
                found += [unescape(link) for link in LINK.findall(pages[url])]
            waiting += [urljoin(url, link) for link in found]
        assert len(pages) < 2000
    return pages


def press_all(browser: Client, account: Account) -> Iterator[tuple[str, str]]:
    """The answer to everything that can be asked for, messages included."""
    for address in addresses():
        if address.mount == "second":
            continue
        for method in ("POST", "PATCH"):
            for row_id in account.ids_for(address):
                for accept in ("application/json", "text/html"):
                    url = address.url(row_id)
                    response = ask(browser, method, address, url, Accept=accept)
                    yield f"{method} {url}", content_of(response)
    for name in ACTIONS:
        model, action = name.split(".")
        row_id = ID if model == "conversation" else account.delivery.pk
        url = f"/admin/bland_sms/{model}/"
        data = {"action": action, "_selected_action": [row_id]}
        yield name, content_of(browser.post(url, data, follow=True))


def where_it_was_said(pages: dict[str, str], marker: str = MARKER) -> set[str]:
    return {url for url, text in pages.items() if marker in text}


def refuse_all(account: Account, marker: str) -> None:
    """From now on Bland refuses everything, in words that quote people."""
    error = {"error": "X_ODD", "message": f"{marker} is what they wrote"}
    body = {"data": None, "errors": [error]}
    account.sandbox.faults.add("*", *[{"status": 422, "body": body}] * 1000)


@pytest.mark.slow
def test_texts__are_on_no_page_without_the_permission(account: Account, login: Login) -> None:
    browser = login(*WITHOUT_TEXTS)
    assert where_it_was_said(dict(press_all(browser, account))) == set()
    account.say()
    pages = crawl(browser, account)
    assert len(pages) > 100
    assert where_it_was_said(pages) == set()


@pytest.mark.slow
def test_texts__are_there_with_the_permission(account: Account, login: Login) -> None:
    """Or the test above would find nothing whatever it looked at."""
    browser = login(*PERMISSIONS)
    said = where_it_was_said(crawl(browser, account))
    quoted = ID.replace("_", "_5F")
    delivery = f"/admin/bland_sms/webhookdelivery/{account.delivery.pk}/change/"
    updates = [f"/admin/bland_sms/bulkupdate/{update.pk}/" for update in account.updates]
    assert {
        *(f"{url}{page}" for url in updates for page in ("change/", "results.csv")),
        *(f"/bland-sms/api/v1/bulk-updates/{update.pk}/items/" for update in account.updates),
        f"/bland-sms/api/v1/bulk-updates/{account.updates[1].pk}/",
        "/admin/bland_sms/syncrun/",
        f"/admin/bland_sms/syncrun/{account.run.pk}/change/",
        "/admin/bland_sms/conversation/",
        f"/admin/bland_sms/conversation/{quoted}/change/",
        f"/admin/bland_sms/conversation/{quoted}/transcript.txt",
        "/admin/bland_sms/webhookdelivery/",
        delivery,
        "/bland-sms/api/v1/conversations/",
        f"/bland-sms/api/v1/conversations/{ID}/",
        f"/bland-sms/api/v1/conversations/{ID}/messages/",
    } <= said
    pressed = where_it_was_said(dict(press_all(browser, account)))
    assert "conversation.export_selected" in pressed
    assert f"PATCH /bland-sms/api/v1/conversations/{ID}/" in pressed


@pytest.mark.slow
@pytest.mark.parametrize("may_read", [True, False], ids=["may read", "may not read"])
def test_words_of_bland__only_for_those_who_may_read(
    may_read: bool, account: Account, login: Login
) -> None:
    """What Bland says while something is asked of it: messages, answers and what is kept."""
    refuse_all(account, "zyx-quoted")
    browser = login(*(PERMISSIONS if may_read else WITHOUT_TEXTS))
    pressed = where_it_was_said(dict(press_all(browser, account)), "zyx-quoted")
    kept = where_it_was_said(crawl(browser, account), "zyx-quoted")
    assert bool(pressed) is may_read, pressed
    assert bool(kept) is may_read, kept
    if may_read:
        assert {"conversation.deactivate_selected", "conversation.refresh_selected"} <= pressed
        assert f"PATCH /bland-sms/api/v1/conversations/{ID}/" in pressed
        assert f"POST /bland-sms/api/v1/conversations/{ID}/refresh/" in pressed


# --- numbers ----------------------------------------------------------------------------------

NUMBER = re.compile(r"\+?1?5550100001|0100001|0001\)")
"""The customer's number, and what is left of it in a row's name."""
WITHOUT_NUMBERS = frozenset(PERMISSIONS) - {SEE}


def with_numbers(pages: dict[str, str]) -> set[str]:
    return {url for url, text in pages.items() if NUMBER.search(text)}


@pytest.mark.slow
def test_numbers__are_on_no_page_without_the_permission(account: Account, login: Login) -> None:
    browser = login(*WITHOUT_NUMBERS)
    assert with_numbers(dict(press_all(browser, account))) == set()
    pages = crawl(browser, account)
    assert with_numbers(pages) == set()
    assert f"/admin/bland_sms/bulkupdate/{account.updates[0].pk}/results.csv" in pages


@pytest.mark.slow
def test_numbers__are_there_with_the_permission(account: Account, login: Login) -> None:
    found = with_numbers(crawl(login(*PERMISSIONS), account))
    assert {
        f"/admin/bland_sms/bulkupdate/{account.updates[0].pk}/change/",
        f"/admin/bland_sms/bulkupdate/{account.updates[0].pk}/results.csv",
        "/admin/bland_sms/conversation/",
        "/bland-sms/api/v1/conversations/",
    } <= found


@pytest.mark.parametrize("held", [(), (STOP,), (LEDGER,), (STOP, START, LEDGER, BELL, RUNS)])
def test_numbers__starter_who_lost_the_right_reads_none(
    held: tuple[str, ...], account: Account, login: Login, django_user_model: Any
) -> None:
    """Neither of their own updates and drafts, nor in "Recent actions"."""
    browser = login(SEE, STOP, START, READ)
    browser.post(
        "/admin/bland_sms/conversation/",
        {"action": "deactivate_selected", "_selected_action": [ID]},
    )
    user = django_user_model.objects.get(pk=browser.session["_auth_user_id"])
    own = BulkUpdate.objects.get(requested_by=user)
    assert own.counts()["changed"] == 1
    draft = prepare([ID], False, requested_by=user)
    ours = Permission.objects.filter(content_type__app_label="bland_sms", codename__in=held)
    user.user_permissions.set(ours)
    account.updates, account.draft = [own], draft
    pages = crawl(browser, account)
    assert with_numbers(pages) == set()
    assert f"/admin/bland_sms/bulkupdate/{own.pk}/change/" in pages
    assert ID in pages["/admin/"]  # in "Recent actions", by its id alone


COLUMNS = {
    "conversation": ("last_message", "summary", "variables", "extra", "older_facts"),
    "webhookdelivery": ("reason",),
}


@pytest.mark.parametrize("permission", [True, False], ids=["may read", "may not read"])
def test_texts__cannot_be_guessed_by_filters(
    permission: bool, account: Account, login: Login
) -> None:
    """``?summary__contains=`` would tell letter by letter what it says, by a scan each."""
    browser = login(*(PERMISSIONS if permission else WITHOUT_TEXTS))
    for model, columns in COLUMNS.items():
        for column in columns:
            for lookup in ("", "__contains", "__startswith", "__regex", "__told"):
                url = f"/admin/bland_sms/{model}/"
                response = browser.get(url, {f"{column}{lookup}": MARKER})
                assert response.status_code == 400, f"{column}{lookup}: {response.status_code}"


def test_texts__cannot_be_guessed_by_relations(account: Account, login: Login) -> None:
    browser = login(*WITHOUT_TEXTS)
    for model, lookup in (
        ("conversation", "messages__text__contains"),
        ("conversation", "update_items__message__contains"),
        ("bulkupdate", "items__conversation__summary__contains"),
        ("bulkupdate", "requested_by__password__startswith"),
        ("syncrun", "requested_by__password__startswith"),
    ):
        response = browser.get(f"/admin/bland_sms/{model}/", {lookup: "x"})
        assert response.status_code == 400, lookup


@pytest.mark.slow
@pytest.mark.parametrize("model", ["conversation", "bulkupdate", "syncrun", "webhookdelivery"])
def test_junk_in_a_query__breaks_no_list(model: str, account: Account, login: Login) -> None:
    browser = login(*PERMISSIONS)
    ours = {
        "conversation": ("status", "activity", "our_number", "change", "all"),
        "bulkupdate": ("whose", "outcome"),
        "syncrun": ("status__exact", "status__in", "status__regex"),
        "webhookdelivery": ("state__exact", "state__isnull", "state__iregex"),
    }[model]
    columns = ("id", "pk__in", "is_active", "requested_by_id", "conversation_id", "user_number")
    columns += ("updated_at__gte", "user_number__regex", "nonsense")
    names = ("q", "p", "o", "_to_field", "_popup", "_changelist_filters", *ours, *columns)
    with traces_of(account) as traces:
        for name in names:
            for junk in ("\0", "'(", "x" * 5000, "9" * 5000, "-1.2"):
                response = browser.get(f"/admin/bland_sms/{model}/", {name: junk})
                assert response.status_code < 500, f"{name}={junk[:20]!r}"
                assert not traces.take()


def test_pop_up_of_a_form__may_limit_the_choices(
    account: Account, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a host's foreign key with ``limit_choices_to`` and ``raw_id_fields`` does."""
    limits = [{"disposition_tag": "sold"}, lambda: {"is_active": True}]
    monkeypatch.setattr(Conversation._meta, "related_fkey_lookups", limits)
    browser, url = login(SEE), "/admin/bland_sms/conversation/"
    assert browser.get(url, {"disposition_tag": "sold"}).status_code == 200
    assert browser.get(url, {"is_active": "1"}).status_code == 200
    assert browser.get(url, {"disposition_tag": "lost"}).status_code == 400
