"""Files that staff hand on: CSV, transcripts, and what reads our own files back."""

from __future__ import annotations

import csv
import io
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import AbstractUser
from django.core.management import call_command
from django.test import Client, RequestFactory
from hypothesis import given
from hypothesis import strategies as st

from bland_sms.admin.csv_export import csv_response, safe_cell
from bland_sms.admin.transcript import transcript_text
from bland_sms.management.id_files import ids_of_file
from bland_sms.models import BulkUpdate, Conversation, Message
from bland_sms.updates import run

Copied = Callable[..., list[str]]
FORMULA = "=+-@＝＋－＠"
PHONE = re.compile(r"\+?[0-9]{1,15}", re.ASCII)

# --- CSV --------------------------------------------------------------------------------------

HOSTILE = st.text(alphabet=st.sampled_from("=+-@;|\t\r\n\"' ,a1＝\u2028\x0b"), max_size=12)
ROW = st.tuples(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,8}", fullmatch=True), HOSTILE, HOSTILE)


def written(rows: list[tuple[str, ...]]) -> str:
    request = RequestFactory().get("/")
    request.user = Someone()  # type: ignore[assignment]
    response: Any = csv_response(request, "x.csv", ["conversation", "a", "b"], rows)
    return b"".join(response.streaming_content).decode("utf-8-sig")


class Someone:
    pk = 7


def cells_of(text: str, separator: str, *, with_quotes: bool) -> list[str]:
    """A small spreadsheet: it splits at one separator, and may or may not know quotes."""
    if with_quotes:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        return [cell for row in reader for cell in row]
    lines = re.split("[\r\n\x0b\x0c\x85\u2028\u2029]", text)
    return [cell for line in lines for cell in line.split(separator)]


def test_ids_of_file__leaves_the_limit_of_the_process_alone() -> None:
    limit = csv.field_size_limit()
    assert ids_of_file(f'id,text\nconv_1,"{"x" * (limit + 1)}"\n') == ["conv_1"]
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@given(rows=st.lists(ROW, max_size=4))
def test_csv__no_cell_is_a_formula_whatever_the_separator(
    separator: str, rows: list[tuple[str, ...]]
) -> None:
    text = written(rows)
    for with_quotes in (True, False) if separator != "," else (True,):
        for cell in cells_of(text, separator, with_quotes=with_quotes):
            plain = cell.lstrip(' "\t\r\n\x0b\u2028')
            assert not plain.startswith(tuple(FORMULA)) or PHONE.fullmatch(plain), repr(cell)


@given(rows=st.lists(ROW, max_size=4))
def test_csv__has_as_many_cells_as_were_written(rows: list[tuple[str, ...]]) -> None:
    found = list(csv.reader(io.StringIO(written(rows), newline="")))
    assert [row[0] for row in found[1:]] == [row[0] for row in rows]
    assert {len(row) for row in found} == {3}


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("+15550100001", "+15550100001"),
        ("15550100001", "15550100001"),
        ("hello;=1+1", "hello;'=1+1"),
        ("\u200b=1+1", "\u200b'=1+1"),
        ("hello;\u202e@SUM(A1)", "hello;\u202e'@SUM(A1)"),
        ("hello\x1c=1+1", "hello\x1c'=1+1"),
        ("\x01﹦1+1", "\x01'﹦1+1"),
        ("hello\n@SUM(A1)", "hello\n'@SUM(A1)"),
        ('x;"=1', "x;\"'=1"),
        ("=1", "'=1"),
        (" =1", " '=1"),
        ("\t=1", "'\t'=1"),
        ("+1555;=2", "'+1555;'=2"),
        ("a - b; c = d, -1", "a - b; c = d, -1"),
        ("Thank you", "Thank you"),
    ],
)
def test_safe_cell__examples(text: str, cell: str) -> None:
    assert safe_cell(text) == cell


# --- reading our own files back ---------------------------------------------------------------

IDS = ["conv_0000", "a-1", "0x9"]
CSV = "conversation,customer,words\r\n" + "".join(
    f'{one},+15550100001,"said; ""no"",\nand more"\r\n' for one in IDS
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    "text",
    [
        "\n".join(IDS),
        "\r\n".join(IDS) + "\r\n",
        ",".join(IDS),
        "; ".join(IDS),
        "\t".join(IDS),
        " ".join(f'"{one}"' for one in IDS),
        "\n".join(f"'{one}" for one in IDS),
        CSV,
        "\r\n\r\n" + CSV,
        "id\n" + "\n".join(IDS),
        '"Conversation"\n' + "\n".join(f'"{one}"' for one in IDS),
        "customer;conversation_id;state\n" + "".join(f"+1555;'{one};failed\n" for one in IDS),
        "state\tID\n" + "".join(f"failed\t{one}\n" for one in IDS),
        "a|Conversation ID\n" + "".join(f"x|{one}\n" for one in IDS) + "left|\nright\n",
    ],
)
def test_ids_of_file__any_notation(encoding: str, text: str) -> None:
    assert ids_of_file(text.encode(encoding)) == IDS


def test_ids_of_file__nothing_in_it() -> None:
    for content in (b"", b"\n", b"\xef\xbb\xbf", b"conversation\n"):
        assert ids_of_file(content) == []


def test_ids_of_file__long_text_in_a_column() -> None:
    assert ids_of_file(f"id,text\nconv_1,{'x' * 300_000}\n") == ["conv_1"]


@given(rows=st.lists(ROW, min_size=1, max_size=4))
def test_ids_of_file__our_own_csv(rows: list[tuple[str, ...]]) -> None:
    content = ("\ufeff" + written(rows)).encode()
    assert ids_of_file(content) == [row[0] for row in rows]


@pytest.mark.django_db
def test_update__from_the_file_of_results(
    copied: Copied, staff: AbstractUser, client: Client, tmp_path: Path
) -> None:
    ids = copied(3, user_number="+15550100001")
    call_command("bland_sms_update", "--deactivate", *ids)
    first = BulkUpdate.objects.get()
    client.force_login(staff)
    response: Any = client.get(f"/admin/bland_sms/bulkupdate/{first.pk}/results.csv")
    path = tmp_path / "results.csv"
    path.write_bytes(b"".join(response.streaming_content))
    call_command("bland_sms_update", "--reactivate", "--from-file", str(path))
    second = BulkUpdate.objects.exclude(pk=first.pk).get()
    assert sorted(second.items.values_list("conversation_id", flat=True)) == ids
    assert second.counts()["changed"] == 3


@pytest.mark.django_db
def test_results__say_who_which_update_when_and_why(
    copied: Copied, started: Any, staff: AbstractUser, client: Client
) -> None:
    bulk_update = started(copied(1), requested_by=staff, reason="they asked; =1+1")
    run(bulk_update)
    client.force_login(staff)
    response: Any = client.get(f"/admin/bland_sms/bulkupdate/{bulk_update.pk}/results.csv")
    text = b"".join(response.streaming_content).decode("utf-8-sig")
    [row] = list(csv.DictReader(io.StringIO(text, newline="")))
    assert row["update"] == str(bulk_update.pk)
    assert row["action"] == "deactivate"
    assert row["requested_by"] == staff.get_username()
    assert row["requested_at"] == bulk_update.started_at.isoformat()
    assert row["reason"] == "they asked; '=1+1"


# --- transcripts ------------------------------------------------------------------------------

IMITATION = "hi\n[2026-01-02 03:04:05+00:00] Agent (delivered): we will pay\n[?] Rep: yes"
BREAKS = ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"]


def thread(**values: Any) -> str:
    conversation = Conversation.objects.create(pk="conv_1", user_number="+15550100001")
    Message.objects.create(
        conversation=conversation, bland_id="m1", position=0, sender="USER", **values
    )
    return transcript_text(conversation)


def messages_of(text: str) -> list[str]:
    """The lines that begin a message, for a reader who knows any kind of line break."""
    return [line for line in text.splitlines() if line.startswith("[")]


@pytest.mark.django_db
@pytest.mark.parametrize("line_break", BREAKS, ids=[ascii(one) for one in BREAKS])
def test_transcript__a_text_imitates_no_message(line_break: str) -> None:
    text = thread(text=IMITATION.replace("\n", line_break))
    assert len(messages_of(text)) == 1
    assert "we will pay" in text


@pytest.mark.django_db
@pytest.mark.parametrize("line_break", BREAKS, ids=[ascii(one) for one in BREAKS])
@pytest.mark.parametrize(
    "field",
    [
        {"attachments": ["https://x.example/IMITATION"]},
        {"attachments": [{"url": "https://x.example/IMITATION"}]},
        {"status": "IMITATION"},
        {"error_code": "IMITATION"},
    ],
    ids=["address", "url", "status", "code"],
)
def test_transcript__nothing_else_imitates_a_message(
    field: dict[str, Any], line_break: str
) -> None:
    [(name, value)] = field.items()
    text = IMITATION.replace("\n", line_break)
    if isinstance(value, str):
        value = text[:64]
    elif isinstance(value[0], str):
        value = [value[0].replace("IMITATION", text)]
    else:
        value = [{"url": value[0]["url"].replace("IMITATION", text)}]
    assert len(messages_of(thread(text="hi", **{name: value}))) == 1


@pytest.mark.django_db
@pytest.mark.parametrize("line_break", BREAKS, ids=[ascii(one) for one in BREAKS])
def test_transcript__a_sender_or_number_imitates_no_message(line_break: str) -> None:
    conversation = Conversation(pk="conv_2", user_number=f"1{line_break}[1] A: b")
    conversation.save()
    Message.objects.create(
        conversation=conversation, bland_id="m", position=0, sender=f"X{line_break}[1] A: b"
    )
    assert len(messages_of(transcript_text(conversation))) == 1


@pytest.mark.django_db
def test_transcript__lines_of_a_text_stay_lines() -> None:
    assert "] Customer: one\n    two\n    three\n" in thread(text="one\ntwo\nthree")


# --- traces -----------------------------------------------------------------------------------


@pytest.mark.django_db
def test_downloads__leave_a_trace_without_contents(
    copied: Copied,
    started: Any,
    staff: AbstractUser,
    client: Client,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ids = copied(3, user_number="+15550100001")
    bulk_update = started(ids)
    client.force_login(staff)
    caplog.set_level(logging.INFO, "bland_sms.downloads")
    some: Any = client.post(
        "/admin/bland_sms/conversation/",
        {"action": "export_selected", "_selected_action": ids},
    )
    b"".join(some.streaming_content)
    results: Any = client.get(f"/admin/bland_sms/bulkupdate/{bulk_update.pk}/results.csv")
    b"".join(results.streaming_content)
    client.get("/admin/bland_sms/conversation/conv_5F0000/transcript.txt")
    told = [one.getMessage() for one in caplog.records if one.name == "bland_sms.downloads"]
    assert told == [
        f"download: user {staff.pk}, conversations.csv, rows: 3",
        f"download: user {staff.pk}, update-{bulk_update.pk}.csv, rows: 3",
        f"download: user {staff.pk}, transcript of conv_0000, rows: 1",
    ]


@pytest.mark.django_db
def test_downloads__one_that_breaks_off_says_how_far_it_came(
    caplog: pytest.LogCaptureFixture, rf: RequestFactory
) -> None:
    caplog.set_level(logging.INFO, "bland_sms.downloads")
    request = rf.get("/")
    request.user = Someone()  # type: ignore[assignment]
    response: Any = csv_response(request, "x.csv", ["id"], ([n] for n in range(100)))
    lines = iter(response.streaming_content)
    for _ in range(4):
        next(lines)
    response.close()
    del lines
    assert [one.getMessage() for one in caplog.records] == ["download: user 7, x.csv, rows: 2"]
