"""Pasted lists: how lines and files are read, and which customers they are found to mean."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from bland_sms import updates
from bland_sms.models import BulkUpdate, Conversation, PastedLine
from bland_sms.pasting import MAX_FILE_BYTES, MAX_LINES, ListError, match, read_file, read_text
from bland_sms.updates import SelectionTooLargeError, pick, prepare_pasted

NOW = datetime(2026, 5, 1, tzinfo=timezone.utc)


def read(text: str) -> list[tuple[int, str, str]]:
    return [(line.number, line.text, line.code) for line in read_text(text)]


def texts(text: str) -> list[str]:
    return [line.text for line in read_text(text)]


# --- reading ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("tel:+15550001111", "15550001111"),
        ("'+15550001111", "15550001111"),
        ("\u2019+1 555 000 1111", "15550001111"),
        ('="+15550001111"', "15550001111"),
        ('="5550001111"', "15550001111"),
        ('"(555) 000-1111"', "15550001111"),
        ("\u202a+1\u00a0555\u2011000\u20111111\u202c", "15550001111"),
        ("00 49 30 123456789", "4930123456789"),
        ("Dana Smith +1 555 000 1111", "15550001111"),
        ("Dana@Example.com", "dana@example.com"),
    ],
)
def test_read_text__notations(line: str, wanted: str) -> None:
    [read, _other] = read_text(f"{line}\n+15550009999")
    assert read.term is not None
    assert wanted in read.term.keys


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("1.5E+10", "line_scientific"),
        ("1,5E+10", "line_scientific"),
        ("1E10", "line_scientific"),
        ("12", "line_too_short"),
        ("---", "line_without_number"),
        ("x" * 300, "line_too_long"),
    ],
)
def test_read_text__what_is_refused_says_why(line: str, code: str) -> None:
    assert read(f"{line}\n+15550001111")[0][2] == code


def test_read_text__numbers_of_lines_count_empty_ones() -> None:
    assert read("\r\n1111\r\n\r\n2222\r") == [(2, "1111", ""), (4, "2222", "")]


def test_read_text__one_line_is_split_as_the_search_box_does() -> None:
    assert texts("+15550001111, 1234 conv_00001") == ["+15550001111", "1234", "conv_00001"]
    assert texts("Smith, Dana, +15550001111") == ["+15550001111"]


def test_read_text__columns_of_a_spreadsheet() -> None:
    table = (
        "Order\tName\tPhone\tOur number\n"
        "1000000001\tDana Smith\t(555) 000-1111\t+16660000000\n"
        "1000000002\tLee\t+1 555 000 1112\t+16660000000\n"
        "1000000003\tBo\t\t+16660000000\n"
        "1000000004\tKim\t1.5E+10\t+16660000000\n"
    )
    assert read(table) == [
        (1, "Phone", "line_heading"),
        (2, "(555) 000-1111", ""),
        (3, "+1 555 000 1112", ""),
        (4, "", "line_without_number"),
        (5, "1.5E+10", "line_scientific"),
    ]


def test_read_text__names_are_not_kept() -> None:
    assert texts("Smith, Dana, +15550001111\nLee, (555) 000-1112\n") == [
        "+15550001111",
        "(555) 000-1112",
    ]


def test_read_text__quotation_mark_that_is_not_closed() -> None:
    assert texts('"Dana,+15550001111\nLee,+15550001112') == ["+15550001111", "+15550001112"]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_read_file__csv(separator: str, encoding: str) -> None:
    rows = [["Né", "Phone"], ["Dana\nSmith", '="15550001111"'], ["Lee", "'5550001112"]]
    text = "\r\n".join(separator.join(f'"{cell}"' for cell in row) for row in rows)
    text = text.replace('"="15550001111""', '"=""15550001111"""')
    lines = read_file(io.BytesIO(text.encode(encoding)))
    assert [(line.number, line.text) for line in lines[1:]] == [
        (3, "15550001111"),
        (4, "5550001112"),
    ]
    assert lines[0].code == "line_heading"


def test_read_file__our_own_files() -> None:
    ours = "id,user_number,agent_number\nconv_1,+15550001111,+16660000000\n"
    assert [line.text for line in read_file(io.BytesIO(ours.encode()))][1:] == ["conv_1"]


def excel(rows: Sequence[Sequence[object]]) -> io.BytesIO:
    openpyxl = pytest.importorskip("openpyxl")
    workbook = openpyxl.Workbook()
    for row in rows:
        workbook.active.append(row)
    file = io.BytesIO()
    workbook.save(file)
    file.seek(0)
    return file


def test_read_file__excel() -> None:
    rows = [["Name", "Phone"], ["Dana", 15550001111], [], ["Lee", "+15550001112"], ["Bo", 1.5e17]]
    assert [(line.number, line.text, line.code) for line in read_file(excel(rows))] == [
        (1, "Phone", "line_heading"),
        (2, "15550001111", ""),
        (4, "+15550001112", ""),
        (5, "1.500000E+17", "line_scientific"),
    ]


def test_read_file__excel_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(ListError, match="does not read Excel files"):
        read_file(io.BytesIO(b"PK\x03\x04"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no line"),
        (b"\n \n,,\n", "no line"),
        (b"%PDF-1.7", "not a spreadsheet"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\x00", "not a spreadsheet"),  # Excel 97
        (b"PK\x03\x04 and nothing more", "not a spreadsheet"),
        (b"a," + b"x" * 40_000, "not a spreadsheet"),
        (b"a," + b"x" * 200_000, "not a spreadsheet"),
        (b"1\n" * (MAX_LINES + 1), "longer than 5,000 lines"),
        (b"1" * (MAX_FILE_BYTES + 1), "larger than 5 MB"),
    ],
)
def test_read_file__what_is_wrong_with_it(content: bytes, words: str) -> None:
    if content.startswith(b"PK"):
        pytest.importorskip("openpyxl")
    with pytest.raises(ListError, match=words):
        read_file(io.BytesIO(content))


def test_read_file__small_archive_of_something_large(monkeypatch: pytest.MonkeyPatch) -> None:
    file = excel([["+15550001111"]])
    monkeypatch.setattr("bland_sms.pasting.spreadsheets.MAX_UNPACKED_BYTES", 1000)
    with pytest.raises(ListError, match="larger than"):
        read_file(file)


def test_read_text__limits() -> None:
    assert len(read_text("1234\n" * MAX_LINES)) == MAX_LINES
    for text in ("1234\n" * (MAX_LINES + 1), "1234 " * (MAX_LINES + 1), "", " \n"):
        with pytest.raises(ListError):
            read_text(text)


# --- matching -----------------------------------------------------------------------------------


def make(pk: str, number: str, **values: Any) -> Conversation:
    at = values.pop("at", NOW)
    row = Conversation(pk=pk, user_number=number, created_at=at, updated_at=at, **values)
    row.save()
    return row


@pytest.fixture
def customers(db: None) -> None:
    make("a1", "+15550001111", is_active=True)
    make("a2", "+15550001111", is_active=True, agent_number="+16660000000")
    make("a3", "+15550001111", is_active=False, at=NOW - timedelta(days=1))
    make("b1", "+15550002222", is_active=False)
    make("c1", "+15559902222", is_active=True)
    make("d1", "dana@example.com", is_active=True)


def found(text: str, *, is_active: bool = False, visible: Any = None) -> dict[str, Any]:
    return {
        one.line.text: (str(one.state), *sorted(one.ids))
        for one in match(read_text(text), is_active, visible)
    }


def test_match__states(customers: None) -> None:
    text = "555-000-1111\n+15550002222\n2222\n+15550003333\n1.5E+10\n+1 (555) 000 1111\n"
    text += "Dana@Example.com\na2\nb1"
    assert found(text) == {
        "555-000-1111": ("found", "a1", "a2"),
        "+15550002222": ("already",),
        "2222": ("ambiguous",),
        "+15550003333": ("not_found",),
        "1.5E+10": ("not_read",),
        "+1 (555) 000 1111": ("twice",),
        "Dana@Example.com": ("found", "d1"),
        "a2": ("found", "a2"),
        "b1": ("twice",),
    }


def test_match__reactivation_means_the_newest_with_each_number_of_ours(customers: None) -> None:
    Conversation.objects.update(is_active=False)
    assert found("+15550001111\n+15550002222", is_active=True) == {
        "+15550001111": ("found", "a1", "a2"),
        "+15550002222": ("found", "b1"),
    }


def test_match__last_digits(customers: None) -> None:
    [one, other] = match(read_text("0001111\n902222"), False)
    assert (one.ids, other.ids) == (("a2", "a1"), ("c1",))
    [one, _other] = match(read_text("2222\n1"), False)
    assert one.candidates == [{"customer": "15550002222"}, {"customer": "15559902222"}]


def test_match__digits_that_are_an_id_and_a_number(customers: None) -> None:
    make("5550002222", "+15557777777", is_active=True)
    [one, _other] = match(read_text("5550002222\n1"), False)
    assert one.state == "ambiguous"
    assert one.candidates == [{"customer": "15550002222"}, {"conversation": "5550002222"}]


def test_match__last_digits_of_too_many(customers: None) -> None:
    for number in range(11):
        make(f"m{number}", f"+1555{number:03d}9999", is_active=True)
    [one, _other] = match(read_text("9999\n1"), False)
    assert (one.state, one.code, one.candidates) == ("ambiguous", "line_of_many", [])


def test_match__only_what_may_be_seen(customers: None) -> None:
    visible = Conversation.objects.filter(agent_number="+16660000000")
    text = "+15550001111\n+15550002222\nc1\n2222\n+15550003333"
    assert found(text, visible=visible) == {
        "+15550001111": ("found", "a2"),
        "+15550002222": ("not_allowed",),
        "c1": ("not_allowed",),
        "2222": ("not_found",),
        "+15550003333": ("not_found",),
    }
    assert set(found(text, visible=Conversation.objects.none()).values()) <= {
        ("not_allowed",),
        ("not_found",),
    }


def test_match__fixed_number_of_statements(customers: None) -> None:
    def statements(number: int) -> int:
        lines = [
            (f"+1555{at:07d}", f"(555) {at % 1000:03d}-{at:04d}", f"conv_{at:06d}", f"{at:04d}")[
                at % 4
            ]
            for at in range(number)
        ]
        with CaptureQueriesContext(connection) as captured:
            match(read_text("\n".join(lines)), False, Conversation.objects.filter(is_active=True))
        return len(captured)

    assert statements(1000) <= 15
    assert statements(3000) <= 45


# --- drafts -------------------------------------------------------------------------------------


def drafted(text: str, **values: Any) -> BulkUpdate:
    return prepare_pasted(read_text(text), False, reason="complaints", **values)


def test_prepare_pasted__keeps_every_line(customers: None) -> None:
    draft = drafted("+15550001111\n2222\n+15550003333\n5550001111")
    assert set(draft.items.values_list("conversation_id", flat=True)) == {"a1", "a2"}
    lines = draft.pasted_lines.values_list("number", "state", "conversations", "same_as")
    assert list(lines) == [
        (1, "found", 2, None),
        (2, "ambiguous", 0, None),
        (3, "not_found", 0, None),
        (4, "twice", 0, 1),
    ]


def test_prepare_pasted__nothing_found_is_a_draft_that_says_so(customers: None) -> None:
    draft = drafted("+15550003333")
    assert (draft.items.count(), draft.pasted_lines.get().state) == (0, "not_found")


def test_prepare_pasted__bulk_limit(customers: None, settings: Any) -> None:
    settings.BLAND_SMS = {"BULK_LIMIT": 2}
    with pytest.raises(SelectionTooLargeError):
        drafted("+15550001111\nc1")
    assert not BulkUpdate.objects.exists()
    assert not PastedLine.objects.exists()


def test_prepare_pasted__expires_with_its_lines(customers: None) -> None:
    draft = drafted("+15550001111")
    BulkUpdate.objects.update(created_at=NOW - timedelta(days=400))
    updates.expire_drafts()
    assert not BulkUpdate.objects.filter(pk=draft.pk).exists()
    assert not PastedLine.objects.exists()


def test_pick__adds_the_customer_once(customers: None) -> None:
    draft = drafted("2222\n+15550003333")
    line = draft.pasted_lines.get(state="ambiguous")
    assert not pick(line, 7)
    assert pick(line, 1)
    assert not pick(line, 0)
    assert [item.conversation_id for item in draft.items.all()] == ["c1"]
    line.refresh_from_db()
    assert (line.state, line.conversation_id, line.candidates) == ("found", "c1", [])


def test_pick__customer_who_needs_nothing(customers: None) -> None:
    draft = drafted("2222\n+15550003333")
    assert pick(draft.pasted_lines.get(state="ambiguous"), 0)
    assert not draft.items.exists()
    assert draft.pasted_lines.get(number=1).state == "already"


def test_pick__not_what_may_not_be_seen_any_more(customers: None) -> None:
    draft = drafted("2222\n+15550003333")
    line = draft.pasted_lines.get(state="ambiguous")
    assert not pick(line, 1, visible=Conversation.objects.exclude(pk="c1"))


def test_pick__not_after_the_start(customers: None) -> None:
    draft = drafted("2222\na1")
    line = draft.pasted_lines.get(state="ambiguous")
    updates.start(draft)
    assert not pick(line, 1)
