"""Every word that somebody reads can be translated; the Spanish catalogue is complete."""

from __future__ import annotations

import gettext
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.contrib.auth.models import AbstractUser
from django.core.checks import run_checks
from django.core.management import call_command
from django.test import Client
from django.utils import translation

from bland_sms.admin import wording
from bland_sms.exceptions import BlandAPIError, BlandConfigurationError
from bland_sms.health import Health
from bland_sms.models import BulkUpdate, BulkUpdateItem, Conversation, StandingOrder, SyncRun
from bland_sms.reasons import REASONS, Failure
from bland_sms.sandbox import BlandSandbox
from bland_sms.sync import refresh
from bland_sms.updates import cancel, prepare, run, start, undo

ROOT = Path(__file__).parent.parent
APP = ROOT / "bland_sms"
CATALOGUE = APP / "locale" / "es" / "LC_MESSAGES" / "django.po"
LIST = "/admin/bland_sms/conversation/"
UPDATES = "/admin/bland_sms/bulkupdate/"
ORDERS = "/admin/bland_sms/standingorder/"
CUSTOMER = "+15550100001"
SPANISH = {"headers": {"accept-language": "es"}}


@pytest.fixture(autouse=True)
def _keep_language() -> Iterator[None]:
    """A request leaves its language behind: the next test has its own."""
    with translation.override(translation.get_language()):
        yield


# --- the catalogue ------------------------------------------------------------------------------


class Entry(NamedTuple):
    """One message of a catalogue."""

    context: str
    text: str
    plural: str
    translations: list[str]
    flags: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.context, self.text, self.plural


def entries(path: Path) -> Iterator[Entry]:
    """What a .po file holds, without its header."""
    for block in path.read_text("utf-8").split("\n\n"):
        values: dict[str, str] = {}
        flags = name = ""
        for line in block.splitlines():
            if line.startswith("#,"):
                flags += line
            elif line.startswith("msg"):
                name, _space, quoted = line.partition(" ")
                values[name] = json.loads(quoted)
            elif line.startswith('"'):
                values[name] += json.loads(line)
        if values.get("msgid"):
            told = [text for name, text in values.items() if name.startswith("msgstr")]
            context, plural = values.get("msgctxt", ""), values.get("msgid_plural", "")
            yield Entry(context, values["msgid"], plural, told, flags)


SPANISH_ENTRIES = list(entries(CATALOGUE))


def holes(text: str) -> list[str]:
    """Placeholders of both kinds, and what stands in code or in markup."""
    return sorted(re.findall(r"%\(\w+\)[.\d]*[a-z]|%[sd]|\{\w+\}|</?\w+>|`[^`]+`|\w+_SMS\b", text))


def test_catalogue__is_complete() -> None:
    assert len(SPANISH_ENTRIES) > 500
    assert [one.text for one in SPANISH_ENTRIES if "fuzzy" in one.flags] == []
    assert [one.text for one in SPANISH_ENTRIES if not all(one.translations)] == []
    assert [one.text for one in SPANISH_ENTRIES if one.plural and len(one.translations) != 3] == []
    assert "#~" not in CATALOGUE.read_text("utf-8")


def test_catalogue__each_hole_is_filled() -> None:
    for entry in SPANISH_ENTRIES:
        assert holes(entry.plural or entry.text) == holes(entry.text)
        for told in entry.translations:
            assert holes(told) == holes(entry.text), entry.text


def test_catalogue__ends_as_the_english_does() -> None:
    for entry in SPANISH_ENTRIES:
        for told in entry.translations:
            assert [told[0] == " ", told[-1] == " "] == [
                entry.text[0] == " ",
                entry.text[-1] == " ",
            ]
            assert told.endswith(".") == entry.text.endswith("."), entry.text
            assert told.endswith(":") == entry.text.endswith(":"), entry.text


def test_catalogue__is_compiled() -> None:
    with CATALOGUE.with_suffix(".mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)
    known: dict[Any, str] = {key: text for key, text in compiled._catalog.items() if key}  # type: ignore[attr-defined]
    told: dict[Any, str] = {}
    for entry in SPANISH_ENTRIES:
        key = f"{entry.context}\x04{entry.text}" if entry.context else entry.text
        if entry.plural:
            told |= {(key, index): text for index, text in enumerate(entry.translations)}
        else:
            told[key] = entry.translations[0]
    assert known == told


def test_catalogue__holds_all_that_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("xgettext") is None:
        if os.environ.get("BLAND_SMS_CI"):
            pytest.fail("there is no program named xgettext")
        pytest.skip("there is no program named xgettext")
    app = tmp_path / "bland_sms"
    shutil.copytree(APP, app, ignore=shutil.ignore_patterns("__pycache__", "locale"))
    (app / "locale").mkdir()
    monkeypatch.chdir(app)
    call_command("makemessages", locale=["es"], verbosity=0)
    found = {entry.key for entry in entries(app / CATALOGUE.relative_to(APP))}
    assert found == {entry.key for entry in SPANISH_ENTRIES}


# --- reasons --------------------------------------------------------------------


@pytest.fixture
def spanish() -> Iterator[None]:
    with translation.override("es"):
        yield


@pytest.mark.usefixtures("spanish")
@pytest.mark.parametrize("code", REASONS)
def test_reasons__each_is_translated(code: str) -> None:
    """Said of the catalogue and not of the words: some are the same in both languages."""
    known = {one.text for one in SPANISH_ENTRIES}
    with translation.override("en"):
        assert str(REASONS[code].sentence) in known
        assert str(REASONS[code].next_step) in known | {""}
        assert str(REASONS[code].for_operators) in known | {""}


@pytest.mark.usefixtures("spanish")
@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (Failure("no_connection"), "No se pudo conectar con Bland."),
        (
            Failure("superseded", {"update": 3, "by": "dana"}),
            "(actualización 3 de dana).",
        ),
        (Failure("cancelled", {"by": "dana"}), "Cancelada antes de que se enviara"),
        (Failure("cancelled", {"by": "dana"}), "(por dana)."),
        (
            Failure(
                "not_permitted",
                {
                    "cause": "requester_not_allowed",
                    "who": "dana",
                    "permission": "bland_sms.deactivate_conversation",
                },
            ),
            "dana no tiene el permiso bland_sms.deactivate_conversation.",
        ),
        (
            Failure("not_looked_at", {"because": Failure("no_answer").as_json()}),
            "No se pudieron comprobar algunas conversaciones que ya no aparecen en la lista de "
            "Bland: Bland no respondió a tiempo.",
        ),
        (
            BlandAPIError(302, "redirected").failure.for_operators,
            "Bland redirige a otro sitio, y no se sigue: compruebe BLAND_SMS['BASE_URL'].",
        ),
        (BlandAPIError(418, "TEAPOT", "short and stout").failure, "(418 TEAPOT): short and stout."),
    ],
)
def test_reasons__are_told_in_the_reader_s_language(failure: Failure, told: str) -> None:
    assert told in failure.as_sentence


@pytest.mark.usefixtures("spanish")
def test_reasons__an_error_is_told_too() -> None:
    error = BlandConfigurationError("bad_url")
    assert str(error).startswith("BLAND_SMS['BASE_URL'] no es una URL")


@pytest.mark.usefixtures("spanish")
def test_checks__in_spanish(settings: Any) -> None:
    settings.BLAND_SMS = {"PAGE_SIZES": 3, "PAGE_SIZE": 0, "BASE_URL": "nowhere"}
    told = {check.id: check.msg for check in run_checks(tags=["bland_sms"])}
    assert told["bland_sms.E002"] == (
        "BLAND_SMS: ajuste desconocido 'PAGE_SIZES', ¿quiso decir 'PAGE_SIZE'?"
    )
    assert told["bland_sms.E003"] == (
        "BLAND_SMS['PAGE_SIZE'] debe ser un número entero de 1 a 1000, no 0."
    )
    assert told["bland_sms.E006"].startswith("BLAND_SMS['BASE_URL'] no es una URL")


@pytest.mark.usefixtures("spanish")
def test_health__in_spanish() -> None:
    health = Health(status="failing", problem=str(Failure("sync_running")))
    assert health.words == (
        "La copia es antigua, y la última sincronización no se completó: "
        "hay otra sincronización en curso."
    )


@pytest.mark.usefixtures("spanish")
def test_counts__in_spanish() -> None:
    counts = {"changed": 31, "failed": 1, "unknown": 2}
    assert wording.counts_words(counts) == "31 cambiadas · 1 fallida · 2 desconocidas"


# --- pages --------------------------------------------------------------------------------------


class _Texts(HTMLParser):
    """What is read on a page: its texts, and the attributes that are read."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.hidden = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.hidden += tag in ("script", "style")
        for name, value in attributes:
            is_button = name == "value" and tag in ("input", "button")
            if value and (is_button or name in ("title", "aria-label", "placeholder", "alt")):
                self.found.append(" ".join(value.split()))

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if data.strip() and not self.hidden:
            self.found.append(" ".join(data.split()))


SAME = {text for one in SPANISH_ENTRIES for text in one.translations}
ENGLISH = {one.text for one in SPANISH_ENTRIES} - SAME
SENTENCES = [text for text in ENGLISH if len(text) > 12 and not holes(text)]


def texts(response: Any) -> list[str]:
    """The texts of a page, in which there is no English of ours."""
    assert response.status_code == 200
    found = _Texts(response.content.decode()).found
    for text in found:
        assert text not in ENGLISH
        assert text[:1].lower() + text[1:] not in ENGLISH  # as capfirst makes headings of names
        assert [one for one in SENTENCES if one in text] == []
    return found


@pytest.fixture
def desk(client: Client, staff: AbstractUser) -> Client:
    """The browser of a Spanish speaker who may do everything."""
    browser = Client(**SPANISH)  # type: ignore[arg-type]
    browser.force_login(staff)
    return browser


@pytest.fixture
def known(sandbox: BlandSandbox, db: None) -> str:
    """A conversation that was copied with its messages."""
    message = {"sender": "AGENT", "message": "Hola", "status": "delivered"}
    messages = [{"id": "m1", "created_at": "2026-01-02T03:04:05.000Z", **message}]
    row = {"id": "conv1", "user_number": CUSTOMER, "messages": messages}
    sandbox.account.add(row)
    sandbox.account.add({**row, "id": "conv2"})
    refresh("conv1")
    refresh("conv2")
    return "conv1"


def test_list__in_spanish(desk: Client, known: str) -> None:
    found = texts(desk.get(LIST))
    assert {"Conversaciones", "Cliente", "Último mensaje", "Nuestro número", "Activa"} <= {*found}
    assert "Desactivar las conversaciones seleccionadas" in found
    assert "La lista aún no se ha copiado entera de Bland." in " ".join(found)


def test_list__empty_and_not_connected_in_spanish(desk: Client, settings: Any) -> None:
    settings.BLAND_SMS = {}
    found = texts(desk.get(LIST))
    assert any(text.startswith("Este sitio no está conectado con Bland. ") for text in found)
    assert any("Aún no se ha copiado nada de Bland." in text for text in found)


def test_list__a_search_in_vain_in_spanish(desk: Client, known: str) -> None:
    found = texts(desk.get(LIST, {"q": "9999, 12"}))
    assert "Ninguna conversación coincide." in found
    assert "No se encontró:" in found


def test_conversation__in_spanish(desk: Client, known: str) -> None:
    found = texts(desk.get(f"{LIST}{known}/change/"))
    assert {"Conversación", "Desactivar", "Refrescar", "Agente", "Transcripción"} <= {*found}
    assert "Desactivar todas las conversaciones activas de este cliente (2)" in found
    assert any(text.endswith("· entregado") for text in found)
    text = desk.get(f"{LIST}{known}/transcript.txt").content.decode()
    assert f"Cliente: {CUSTOMER}" in text


@pytest.mark.usefixtures("no_waiting")
def test_update__in_spanish(
    desk: Client, known: str, staff: AbstractUser, set_bland: Callable[..., None]
) -> None:
    set_bland(CONFIRM_OVER=0)
    act = {"action": "deactivate_selected", "_selected_action": ["conv1", "conv2"]}
    answer = desk.post(LIST, act, follow=True)
    found = texts(answer)
    assert "Desactivar 2 conversaciones" in found
    assert {"conversaciones de", "Esto no bloquea al cliente:", "Motivo", "Cancelar"} <= {*found}
    found = texts(desk.post(answer.request["PATH_INFO"], {"reason": ""}, follow=True))
    assert "2 conversaciones desactivadas." in found
    bulk_update = BulkUpdate.objects.get()
    found = texts(desk.get(f"{UPDATES}{bulk_update.pk}/change/"))
    assert {"Terminada", "2 cambiadas", "Deshacer", "Resultados en CSV", "Cambiada"} <= {*found}
    found = texts(desk.get(UPDATES))
    assert {"Actualizaciones masivas", "Desactivar", "Por resultado"} <= {*found}
    found = texts(desk.get(f"{LIST}conv1/history/"))
    assert f"Desactivada en Bland en la actualización masiva {bulk_update.pk}." in found
    found = texts(desk.get(f"{LIST}conv1/change/"))
    assert "Desactivada por dana," in found
    opposite = undo(bulk_update, staff)
    start(opposite)
    cancel(opposite, staff)
    found = texts(desk.get(f"{UPDATES}{opposite.pk}/change/"))
    assert "Cancelada antes de que se enviara (por dana)." in found


@pytest.mark.usefixtures("no_waiting")
def test_update__stopped_in_spanish(desk: Client, known: str, staff: AbstractUser) -> None:
    bulk_update = prepare(["conv1"], False, requested_by=staff)
    start(bulk_update)
    staff.is_active = staff.is_superuser = False
    staff.save()
    run(bulk_update)
    staff.is_active = staff.is_superuser = True
    staff.save()
    bulk_update.refresh_from_db()
    assert bulk_update.stop_params == {"cause": "requester_inactive", "who": "dana"}
    found = " ".join(texts(desk.get(f"{UPDATES}{bulk_update.pk}/change/")))
    assert "La cuenta de dana ya no está activa. Hechas: 0; sin intentar: 1." in found


@pytest.mark.usefixtures("no_waiting")
def test_standing_order__in_spanish(desk: Client, known: str) -> None:
    url = f"{ORDERS}add/?conversation={known}"
    found = texts(desk.get(url))
    assert {
        "Detener de forma permanente",
        "Motivo",
        "indefinidamente",
        "todos nuestros números",
    } <= {*found}
    found = texts(desk.post(url, {"reason": "x", "duration": "", "agent_number": ""}, follow=True))
    assert "1 cliente se mantiene inactivo." in found
    found = texts(desk.get(ORDERS))
    assert {"Órdenes permanentes", "En vigor", "Orden 1", "nunca"} <= {*found}
    order = StandingOrder.objects.get()
    found = texts(desk.get(f"{ORDERS}{order.pk}/change/"))
    assert {"Levantar", "Qué hizo", "Nada todavía."} <= {*found}
    assert "Ordenada." in texts(desk.get(f"{ORDERS}{order.pk}/history/"))


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (f"{LIST}summary/", "Tiempo hasta el traspaso"),
        (f"{LIST}messages/", "Buscar en los mensajes"),
        (f"{UPDATES}paste/", "Un cliente por línea"),
    ],
)
def test_page__in_spanish(desk: Client, known: str, url: str, told: str) -> None:
    assert told in " ".join(texts(desk.get(url)))


def test_sync_runs__in_spanish(desk: Client, db: None) -> None:
    run = SyncRun.objects.create(
        status=SyncRun.Status.SKIPPED, trigger="task", error_code="sync_running"
    )
    for url in ("/admin/bland_sms/syncrun/", f"/admin/bland_sms/syncrun/{run.pk}/change/"):
        found = texts(desk.get(url))
        assert {"Omitida", "Tarea programada", "Hay otra sincronización en curso."} <= {*found}


# --- the API ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_waiting")
def test_api__errors_in_spanish(desk: Client, sandbox: BlandSandbox) -> None:
    url = "/bland-sms/api/v1/conversations/"
    answer = desk.get(f"{url}?statuses=active")
    assert answer.status_code == 400
    assert answer.json()["fields"]["statuses"][0]["detail"] == "Desconocido, ¿quiso decir status?"
    Conversation.objects.create(pk="gone")
    answer = desk.patch(f"{url}gone/", {"is_active": False}, content_type="application/json")
    assert answer.status_code == 404
    assert answer.json()["detail"] == "No encontrada con esta clave (404 CONVERSATION_NOT_FOUND)."
    assert answer.json()["code"] == "CONVERSATION_NOT_FOUND"
    assert BulkUpdateItem.objects.get().error_code == "CONVERSATION_NOT_FOUND"
