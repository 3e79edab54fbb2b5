"""Staff stop a customer for good, see it, lift it, and take that back."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import AbstractUser, Permission
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from bland_sms import standing
from bland_sms.health import look
from bland_sms.models import BulkUpdate, Conversation, StandingOrder, SyncRun, WebhookDelivery
from bland_sms.reasons import history_words
from bland_sms.sandbox import FakeBland
from bland_sms.sync import refresh

pytestmark = pytest.mark.django_db
CUSTOMER, OURS = "+15550107001", "+15550190001"
LIST = reverse("admin:bland_sms_standingorder_changelist")
ADD = reverse("admin:bland_sms_standingorder_add")


@pytest.fixture
def lead(client: Client, staff: AbstractUser) -> Client:
    client.force_login(staff)
    return client


def page_of(order: StandingOrder, name: str = "change") -> str:
    return reverse(f"admin:bland_sms_standingorder_{name}", args=[order.pk])


def act(client: Client, action: str, *orders: StandingOrder) -> Any:
    data = {"action": action, "_selected_action": [order.pk for order in orders]}
    return client.post(LIST, data, follow=True)


def text_of(answer: Any) -> str:
    return str(answer.content.decode())


def test_stop__from_a_conversation(lead: Client, staff: Any, fake_bland: FakeBland) -> None:
    old = fake_bland.customer_texts(CUSTOMER, "hi")
    refresh(old)
    page = reverse("admin:bland_sms_conversation_change", args=[old])
    url = f"{ADD}?conversation={old}"
    assert url in text_of(lead.get(page))
    shown = text_of(lead.get(url))
    assert "1 conversation is active now." in shown
    assert "may have answered once" in shown

    data = {"reason": "by phone", "duration": "7", "spare_handed_off": "on", "now": "on"}
    answer = lead.post(url, {**data, "agent_number": OURS}, follow=True)

    order = StandingOrder.objects.get()
    assert (order.customer, order.agent_number, order.requested_by) == (CUSTOMER, OURS, staff)
    assert (order.source, order.until is None) == ("admin", False)
    assert not fake_bland.is_active(old)
    assert BulkUpdate.objects.get().source == "admin"
    assert "Kept inactive since" in text_of(answer)
    assert page_of(order, "lift") in text_of(answer)
    listed = text_of(lead.get(reverse("admin:bland_sms_conversation_changelist")))
    assert "kept inactive" in listed
    entry = LogEntry.objects.get(content_type__model="standingorder")
    assert history_words(entry.change_message) == "Ordered."
    assert CUSTOMER not in entry.object_repr


@pytest.mark.parametrize(
    ("duration", "days"), [("", None), ("1", 1), ("7", 7), ("30", 30), ("date", 4)]
)
def test_stop__how_long(
    duration: str, days: int | None, lead: Client, fake_bland: FakeBland
) -> None:
    old = fake_bland.customer_texts(CUSTOMER, "hi")
    refresh(old)
    day = timezone.localdate() + timedelta(days=3)

    data = {"reason": "x", "duration": duration, "day": day.isoformat()}
    lead.post(f"{ADD}?conversation={old}", data)

    order = StandingOrder.objects.get()
    if duration == "date":
        midnight = timezone.make_aware(datetime.combine(day + timedelta(days=1), time.min))
        assert order.until == midnight, "the end of that day, here"
    elif days is None:
        assert order.until is None
    else:
        assert order.until is not None
        left = order.until - timezone.now() - timedelta(days=days)
        assert abs(left) < timedelta(minutes=5)


def test_list__line_with_the_way_to_lift(lead: Client, fake_bland: FakeBland) -> None:
    refresh(fake_bland.customer_texts(CUSTOMER, "hi"))
    order = standing.make(CUSTOMER, "by phone", requested_by_name="kim")
    page = reverse("admin:bland_sms_conversation_changelist")

    listed = text_of(lead.get(page))

    assert "by kim, for good: <a href" in listed
    assert f'<a href="{page_of(order)}">Lift</a>' in listed


def test_list__line_for_whom_orders_are_hidden(
    client: Client, django_user_model: Any, fake_bland: FakeBland
) -> None:
    refresh(fake_bland.customer_texts(CUSTOMER, "hi"))
    standing.make(CUSTOMER, "by phone", requested_by_name="kim")
    user = django_user_model.objects.create_user("agent", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_conversation"))
    client.force_login(user)

    listed = text_of(client.get(reverse("admin:bland_sms_conversation_changelist")))

    assert "kept inactive" in listed
    assert "by kim" not in listed
    assert ">Lift</a>" not in listed


def test_stop__without_deactivating_now(lead: Client, fake_bland: FakeBland) -> None:
    old = fake_bland.customer_texts(CUSTOMER, "hi")
    refresh(old)

    lead.post(f"{ADD}?conversation={old}", {"reason": "by phone", "spare_handed_off": "on"})

    assert StandingOrder.objects.get().until is None
    assert fake_bland.is_active(old)


@pytest.mark.parametrize(
    "data", [{"reason": ""}, {"reason": "x", "duration": "date"}, {"reason": "x", "duration": "2"}]
)
def test_stop__refused(lead: Client, fake_bland: FakeBland, data: dict[str, str]) -> None:
    old = fake_bland.customer_texts(CUSTOMER, "hi")
    refresh(old)

    answer = lead.post(f"{ADD}?conversation={old}", data)

    assert "errorlist" in text_of(answer)
    assert not StandingOrder.objects.exists()


def test_stop__selected_conversations(lead: Client, fake_bland: FakeBland) -> None:
    ids = [
        fake_bland.customer_texts(f"+1555010700{n % 2}", "hi", agent_number=f"+1555019000{n}")
        for n in range(4)
    ]
    for one in ids:
        refresh(one)
    url = reverse("admin:bland_sms_conversation_changelist")

    answer = lead.post(url, {"action": "stop_selected", "_selected_action": ids})
    lead.post(answer["Location"], {"reason": "campaign ended"})

    assert StandingOrder.objects.count() == 2, "one for each customer"


def test_stop__pasted(lead: Client) -> None:
    standing.make("+15550107002", "before")
    numbers = "+15550107001\r\n\r\n555 010 7002\r\n7003\r\n"

    answer = lead.post(ADD, {"customers": numbers, "reason": "list"}, follow=True)

    assert StandingOrder.objects.count() == 2
    assert "keeps this customer inactive already" in text_of(answer)
    assert "Not a customer" in text_of(answer)


def test_list__filters_and_search(lead: Client) -> None:
    over = standing.make("+15550107001", "lifted one")
    standing.lift(over)
    standing.make("+15550107002", "current one")

    assert "lifted one" not in text_of(lead.get(LIST, {"state": "in_force"}))
    assert "current one" not in text_of(lead.get(LIST, {"state": "ended"}))
    found = text_of(lead.get(LIST, {"q": "(555) 010-7002"}))
    assert "current one" in found
    assert "lifted one" not in found
    for state in ("suspended", "review"):
        assert "one</td>" not in text_of(lead.get(LIST, {"state": state}))


@pytest.mark.parametrize("customer", ["@", "dana@", "@example.com", "lee and dana@example.com"])
def test_list_of_customers__what_can_name_nobody_is_refused(lead: Client, customer: str) -> None:
    data = {"customers": f"customer,reason\n{customer},by phone", "reason": "x", "duration": ""}
    text = text_of(lead.post(ADD, data, follow=True))

    assert f"{customer}</bdi>: Not a customer: a whole phone number or address is needed" in text
    assert not StandingOrder.objects.exists()


def test_list__search_by_the_name_of_an_order(lead: Client) -> None:
    one = standing.make("+15550107001", "first one")
    standing.make("+15550107002", "second one")

    for name in (f"Order {one.pk}", f"standing order {one.pk}", f"order #{one.pk}", f"#{one.pk}"):
        found = text_of(lead.get(LIST, {"q": name}))
        assert "first one" in found, name
        assert "second one" not in found, name
    assert "one</td>" not in text_of(lead.get(LIST, {"q": f"update {one.pk}"}))


def test_lift__in_bulk_with_undo(lead: Client, staff: AbstractUser) -> None:
    orders = [standing.make(f"+1555010700{n}", "x") for n in range(3)]

    answer = act(lead, "lift_selected", *orders)

    assert "3 orders lifted." in text_of(answer)
    assert not StandingOrder.objects.filter(StandingOrder.acting()).exists()
    assert set(StandingOrder.objects.values_list("lifted_by", flat=True)) == {staff.pk}
    act(lead, "again_selected", *orders)
    assert StandingOrder.objects.filter(StandingOrder.acting()).count() == 3


def test_page__buttons_and_what_it_did(lead: Client, fake_bland: FakeBland) -> None:
    order = standing.make(CUSTOMER, "by phone")
    new = fake_bland.customer_texts(CUSTOMER, "hi")
    refresh(new)
    standing.carry_out_waiting()
    shown = text_of(lead.get(page_of(order)))
    assert new in shown
    assert "by phone" in shown

    lead.post(page_of(order, "lift"))
    assert "Order again" in text_of(lead.get(page_of(order)))
    StandingOrder.objects.update(lifted_at=None, in_force=True, suspended_code="order_too_often")
    assert "Renew" in text_of(lead.get(page_of(order)))
    lead.post(page_of(order, "renew"))
    order.refresh_from_db()
    assert order.state == "in_force"
    assert lead.get(page_of(order, "lift")).status_code == 405


def test_update__leads_to_its_orders(
    lead: Client, staff: AbstractUser, fake_bland: FakeBland
) -> None:
    order = standing.make(CUSTOMER, "by phone")
    refresh(fake_bland.customer_texts(CUSTOMER, "hi"))
    bulk_update = BulkUpdate.objects.get(source="standing")
    page = reverse("admin:bland_sms_bulkupdate_change", args=[bulk_update.pk])
    link = f'<a href="{page_of(order)}">Order {order.pk}</a>'
    assert link in text_of(lead.get(page))

    staff.is_superuser = False
    staff.save()
    staff.user_permissions.set(Permission.objects.filter(codename="view_bulkupdate"))
    shown = lead.get(page)

    assert shown.status_code == 200
    assert link not in text_of(shown)


def test_export(lead: Client) -> None:
    order = standing.make(CUSTOMER, "by phone")

    data = {"action": "export_selected", "_selected_action": [order.pk]}
    body = lead.post(LIST, data).getvalue().decode()

    assert f"{order.pk},{CUSTOMER}," in body


def test_all_suspended__one_banner(lead: Client) -> None:
    order = standing.make(CUSTOMER, "x")
    StandingOrder.objects.update(suspended_code="orders_too_often")

    told = text_of(lead.get(LIST)).count("All standing orders were suspended")
    assert told >= 1
    lead.post(LIST, {"action": "export_selected", "_selected_action": [order.pk]})
    assert text_of(lead.get(LIST)).count("All standing orders were suspended") == told


def test_numbers_need_view_conversation(client: Client, django_user_model: Any) -> None:
    order = standing.make(CUSTOMER, "by phone")
    user = django_user_model.objects.create_user("sam", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_standingorder"))
    client.force_login(user)

    for url in (LIST, page_of(order), f"{LIST}?q={CUSTOMER[1:]}"):
        answer = client.get(url)
        assert answer.status_code == 200
        assert CUSTOMER not in text_of(answer).replace("%2B", "+").replace(f'"{CUSTOMER[1:]}"', "")
    assert client.get(ADD).status_code == 403
    assert client.post(page_of(order, "lift")).status_code == 403


# --- lists ----------------------------------------------------------------------------------------


def upload(client: Client, name: str, content: str, **data: str) -> Any:
    file = SimpleUploadedFile(name, content.encode(), "text/csv")
    return client.post(ADD, {"file": file, **data}, follow=True)


def test_csv__read_back(lead: Client, staff: AbstractUser) -> None:
    in_a_week = timezone.now() + timedelta(days=7)
    orders = [
        standing.make(CUSTOMER, "=by phone", agent_number=OURS, until=in_a_week),
        standing.make("+15550107002", "by letter", spare_handed_off=False),
        standing.make("dana@example.com", "by mail"),
        standing.make("+15550107003", "was over"),
    ]
    standing.lift(orders.pop())
    pks = [*StandingOrder.objects.values_list("pk", flat=True)]
    data = {"action": "export_selected", "_selected_action": pks}
    told = lead.post(LIST, data).getvalue().decode()
    standing.lift_many(orders)

    upload(lead, "orders.csv", told)

    def facts(order: StandingOrder) -> tuple[Any, ...]:
        return order.customer, order.agent_number, order.reason, order.until, order.spare_handed_off

    again = StandingOrder.objects.filter(StandingOrder.acting())
    assert {facts(order) for order in again} == {facts(order) for order in orders}
    assert {order.requested_by for order in again} == {staff}


def test_file__list_of_numbers(lead: Client) -> None:
    told = "Name,Phone\nAda,+15550107001\nLin,555 010 7002\nKim,7003\n"

    answer = upload(lead, "list.csv", told, reason="list of the 3rd")

    assert sorted(order.customer for order in StandingOrder.objects.all()) == [
        "+15550107001",
        "+15550107002",
    ]
    assert "Not a customer" in text_of(answer)
    assert "2 customers are kept inactive." in text_of(answer)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "There is no line in the list"),
        ("customer,until\n+15550107001,soon\n", "is no time such as"),
        ("customer\n", "There is no line in the list"),
        ("customer,until\n+15550107001,2020-01-01\n", "must lie in the future"),
    ],
)
def test_file__refused(lead: Client, content: str, told: str) -> None:
    answer = upload(lead, "list.csv", content or "\n", reason="x")

    assert told in text_of(answer)
    assert not StandingOrder.objects.exists()


def test_make_many__few_statements(lead: Client) -> None:
    standing.make("+15550107000", "before")
    numbers = "\n".join(f"+1555010{number}" for number in range(7000, 7060))

    with CaptureQueriesContext(connection) as queries:
        lead.post(ADD, {"customers": numbers, "reason": "list"})

    assert StandingOrder.objects.count() == 60
    assert len(queries) < 60
    assert LogEntry.objects.filter(content_type__model="standingorder").count() == 59


# --- a pasted list that is to be kept inactive ----------------------------------------------------


PASTE = reverse("admin:bland_sms_bulkupdate_paste")


def paste(client: Client, lines: str, **data: str) -> Any:
    asked = {"lines": lines, "verb": "deactivate", "reason": "ticket 12", "keep": "on", **data}
    return client.post(PASTE, asked)


def test_paste__and_keep_them_inactive(
    lead: Client, staff: AbstractUser, fake_bland: FakeBland
) -> None:
    active = fake_bland.customer_texts(CUSTOMER, "hi")
    over = fake_bland.add(user_number="+15550107002", is_active=False)
    for one in (active, over):
        refresh(one)
    assert "and keep them inactive" in text_of(lead.get(PASTE))

    lines = "+15550107001\n+15550107002\n+15550107003\n7009"
    url = paste(lead, lines)["Location"]
    shown = text_of(lead.get(url))
    assert "each of <strong>2</strong> customers" in shown
    assert "2 lines name nobody in the copy" in shown
    assert not StandingOrder.objects.exists(), "nothing happens yet"
    answer = lead.post(url, {"reason": "ticket 12"}, follow=True)

    orders = StandingOrder.objects.order_by("customer_key")
    assert [order.customer for order in orders] == [f"+1555010700{n}" for n in (1, 2, 3)]
    assert {(order.reason, order.requested_by) for order in orders} == {("ticket 12", staff)}
    assert "3 customers are kept inactive." in text_of(answer)
    assert not fake_bland.is_active(active)
    assert "to be kept inactive" in text_of(answer)
    new = fake_bland.customer_texts(CUSTOMER, "me again")
    refresh(new)
    standing.carry_out_waiting()
    assert not fake_bland.is_active(new)


@pytest.mark.parametrize("door", ["conversation", "paste"])
def test_doors__a_number_told_without_its_country_is_its_customer(
    door: str, lead: Client, fake_bland: FakeBland, settings: Any
) -> None:
    settings.BLAND_SMS = {**settings.BLAND_SMS, "DEFAULT_COUNTRY_CODE": "1"}
    told = fake_bland.customer_texts("5550107001", "hi")
    refresh(told)

    if door == "paste":
        lead.post(paste(lead, told)["Location"], {"reason": "ticket 12"})
    else:
        data = {"reason": "by phone", "duration": "", "now": "on"}
        lead.post(f"{ADD}?conversation={told}", data)

    assert StandingOrder.objects.get().customer_key == Conversation.objects.get().customer_key
    assert not fake_bland.is_active(told)


def test_paste__nobody_to_deactivate_but_to_keep(lead: Client, fake_bland: FakeBland) -> None:
    over = fake_bland.add(user_number=CUSTOMER, is_active=False)
    refresh(over)

    url = paste(lead, CUSTOMER)["Location"]
    assert "Keep 1 customer inactive" in text_of(lead.get(url))
    lead.post(url, {"reason": "ticket 12"})

    assert StandingOrder.objects.get().customer == CUSTOMER
    assert not fake_bland.requests("PATCH")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"verb": "reactivate"}, "Only what is deactivated can be kept inactive."),
        ({"reason": ""}, "A standing order needs a reason"),
    ],
)
def test_paste__keep_refused(lead: Client, data: dict[str, str], told: str) -> None:
    assert told in text_of(paste(lead, CUSTOMER, **data))
    assert not BulkUpdate.objects.exists()


def test_paste__keep_needs_permission(
    client: Client, staff: AbstractUser, fake_bland: FakeBland, django_user_model: Any
) -> None:
    refresh(fake_bland.customer_texts(CUSTOMER, "hi"))
    user = django_user_model.objects.create_user("sam", is_staff=True)
    names = ("view_conversation", "deactivate_conversation", "add_standingorder")
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    client.force_login(user)
    url = paste(client, CUSTOMER)["Location"]
    user.user_permissions.set(Permission.objects.filter(codename__in=names[:2]))

    assert "keep them inactive" not in text_of(client.get(PASTE))
    assert paste(client, CUSTOMER).status_code == 403
    assert client.post(url, {"reason": "ticket 12"}).status_code == 403
    assert not StandingOrder.objects.exists()
    assert not fake_bland.requests("PATCH")


# --- what staff are told --------------------------------------------------------------------------


def test_lift__undo_in_the_message(lead: Client) -> None:
    order = standing.make(CUSTOMER, "x")

    answer = text_of(act(lead, "lift_selected", order))
    assert f'name="_selected_action" value="{order.pk}"' in answer
    act(lead, "again_selected", order)

    assert StandingOrder.objects.filter(StandingOrder.acting()).count() == 1


@pytest.mark.parametrize("way", ["single", "selected", "undo"])
def test_reactivate__order_is_named_first(lead: Client, fake_bland: FakeBland, way: str) -> None:
    order = standing.make(CUSTOMER, "by phone")
    new = fake_bland.customer_texts(CUSTOMER, "hi")
    refresh(new)
    standing.carry_out_waiting()
    url = reverse("admin:bland_sms_conversation_reactivate", args=[new])
    data: dict[str, Any] = {}
    if way == "selected":
        url = reverse("admin:bland_sms_conversation_changelist")
        data = {"action": "reactivate_selected", "_selected_action": [new]}
    elif way == "undo":
        url = reverse("admin:bland_sms_bulkupdate_undo", args=[BulkUpdate.objects.get().pk])

    answer = lead.post(url, data, follow=True)

    shown = text_of(answer)
    assert "This does not last" in shown
    assert page_of(order) in shown
    assert len(fake_bland.requests("PATCH")) == 1, "nothing was asked yet"
    standing.lift(order)
    assert "This does not last" not in text_of(lead.get(answer.redirect_chain[-1][0]))


def test_reactivate__without_an_order_as_ever(lead: Client, fake_bland: FakeBland) -> None:
    old = fake_bland.add(user_number=CUSTOMER, is_active=False)
    refresh(old)
    standing.make(CUSTOMER, "elsewhere", agent_number="+15550190009")

    lead.post(reverse("admin:bland_sms_conversation_reactivate", args=[old]))

    assert fake_bland.is_active(old)


def test_summary__asked_to_stop(lead: Client, fake_bland: FakeBland) -> None:
    for number in ("+15550107001", "+15550107002", "+15550107002"):
        refresh(fake_bland.customer_texts(number, "STOP"))
    refresh(fake_bland.customer_texts("+15550107003", "hello"))
    standing.make("+15550107001", "wrote STOP")

    shown = text_of(lead.get(reverse("admin:bland_sms_conversation_summary")))

    assert "2 customers asked to stop" in shown
    assert "1 of them is not kept inactive" in shown
    assert "?asked_to_stop=yes" in shown


def test_how_long_it_takes_here(lead: Client, settings: Any) -> None:
    assert "Nothing tells of new conversations here" in text_of(lead.get(LIST))
    now = timezone.now()
    for number in reversed(range(4)):
        moment = now - timedelta(seconds=302 * number)
        SyncRun.objects.create(mode="incremental", status="finished", started_at=moment)
    assert "by timer: up to 5 minutes." in text_of(lead.get(LIST))
    settings.BLAND_SMS = {**settings.BLAND_SMS, "WEBHOOK_SECRETS": ["whsec_one"]}
    WebhookDelivery.objects.create(body_sha256="0" * 64)

    for page in (LIST, ADD):
        assert "by webhook: seconds; by timer: up to 5 minutes." in text_of(lead.get(page))
    health = look()
    assert (health.orders_by_webhook, health.orders_timer_seconds) == (True, 302)
    SyncRun.objects.filter(started_at__gt=now - timedelta(minutes=6)).delete()
    assert standing.how_long() == (True, 302), "one run late"
    SyncRun.objects.update(started_at=now - timedelta(hours=2))
    assert standing.how_long() == (True, None), "that timer has stopped"
