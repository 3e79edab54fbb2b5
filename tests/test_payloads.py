"""Reading Bland's JSON: documented answers, odd values, and anything at all."""

from __future__ import annotations

import json
import time
from dataclasses import fields
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from django.db.models import CharField
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bland_sms.exceptions import BlandPayloadError
from bland_sms.models import Conversation, Message
from bland_sms.payloads import (
    ABSENT,
    EPOCH,
    LEFT_OUT,
    MAX_DEPTH,
    MAX_MESSAGES,
    MAX_STORED_DEPTH,
    MOST_EXTRA,
    ConversationPage,
    ConversationPayload,
    MessagePayload,
    UpdatePayload,
    canonical,
    clean_json,
    describe_error,
    is_conversation_id,
    latest_time,
    parse_body,
    parse_json,
    parse_time,
    read_error,
)
from bland_sms.payloads.values import fingerprint
from bland_sms.words import clean_text

SAMPLES = Path(__file__).parent / "samples"
SENT = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
ANSWERED = SENT + timedelta(seconds=1)
INT64 = 2**63
NEW_YEAR = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def sample(name: str) -> Any:
    return json.loads((SAMPLES / f"{name}.json").read_text("utf-8"))


def read(**data: Any) -> ConversationPayload:
    return ConversationPayload.from_json(
        {"id": "conv_1", **data}, observed_at=SENT, answered_at=ANSWERED
    )


def read_messages(*messages: Any) -> tuple[MessagePayload, ...]:
    found = read(messages=list(messages)).messages
    assert found is not None
    return found


# --- answers to an update ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["update_bare", "update_enveloped"])
def test_update_payload__both_documented_shapes(name: str) -> None:
    payload = UpdatePayload.from_json(sample(name), observed_at=SENT, answered_at=ANSWERED)

    assert payload == UpdatePayload(
        id="conv_0001",
        is_active=False,
        updated_at=datetime(2026, 2, 3, 4, 5, 6, 789_000, tzinfo=timezone.utc),
        observed_at=SENT,
        message="Conversation updated successfully",
    )


@pytest.mark.parametrize("wrap", [False, True], ids=["bare", "enveloped"])
def test_update_payload__conversation_itself_at_the_root(wrap: bool) -> None:
    root = {"id": "conv_1", "is_active": False, "updated_at": "2026-02-03T04:05:06Z"}

    payload = UpdatePayload.from_json({"data": root} if wrap else root, answered_at=ANSWERED)

    assert (payload.id, payload.is_active) == ("conv_1", False)
    assert payload.updated_at == datetime(2026, 2, 3, 4, 5, 6, tzinfo=timezone.utc)


def test_update_payload__payload_beside_an_empty_envelope() -> None:
    body = {"data": None, "errors": None, "conversation": {"id": "conv_1", "is_active": False}}

    assert UpdatePayload.from_json(body).is_active is False


@pytest.mark.parametrize("told", [None, 0, 1, 0.0, "false", "true", "", [], {}, [False]])
def test_update_payload__only_json_booleans_count(told: object) -> None:
    body = {"conversation": {"id": "conv_1", "is_active": told}}

    assert UpdatePayload.from_json(body).is_active is None


@pytest.mark.parametrize(
    "body",
    [
        *({}, {"message": "fine"}, {"conversation": None}, {"conversation": [False]}),
        *({"data": {}}, {"id": "conv_1", "updated_at": "2026-01-02T03:04:05Z"}),
    ],
)
def test_update_payload__no_conversation_confirms_nothing(body: dict[str, Any]) -> None:
    payload = UpdatePayload.from_json(body)

    assert (payload.id, payload.is_active, payload.updated_at) == (None, None, None)


@pytest.mark.parametrize("told", ["other", 7, {}, [], False, ""])
def test_update_payload__an_odd_id_is_not_a_missing_one(told: object) -> None:
    body = {"conversation": {"id": told, "is_active": False}}

    assert UpdatePayload.from_json(body).id not in (None, "conv_1")


# --- ids --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["conv_0001", "3b0a6f4e-0000-4000-8000-000000000001", "0", "A" * 128, "a-_"]
)
def test_is_conversation_id__accepts(value: str) -> None:
    assert is_conversation_id(value)


@pytest.mark.parametrize(
    "value",
    [
        *("", ".", "..", "a.b", "a/b", "a#b", "a?x=1", "a%2e", "a\\b", "a;b", "a:b", "a@b"),
        *("-a", "_a", "a b", "a\n", "\na", "a\x00", "é", "٣", "A" * 129),
        *(None, 7, b"a", ["a"], True),
    ],
)
def test_is_conversation_id__refuses(value: object) -> None:
    assert not is_conversation_id(value)


@pytest.mark.parametrize("data", [None, [], "conv_1", 7, {}, {"id": None}, {"id": 7}, {"id": ".."}])
def test_conversation_payload__without_usable_id(data: object) -> None:
    with pytest.raises(BlandPayloadError):
        ConversationPayload.from_json(data)


# --- list and detail --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["list_a", "list_b"])
def test_conversation_page__documented_list(name: str) -> None:
    page = ConversationPage.from_json(sample(name), observed_at=SENT, answered_at=ANSWERED)

    assert page.conversations == (
        ConversationPayload(
            id="3b0a6f4e-0000-4000-8000-000000000001",
            is_active=True,
            updated_at=datetime(2026, 1, 2, 4, tzinfo=timezone.utc),
            observed_at=SENT,
            created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
            user_number="+15550100001",
            agent_number="+15550100002",
            timed_out_at=None,
            ended_by_end_call_node=False,
            message_count=3,
            last_message="ok",
            last_message_at=datetime(2026, 1, 2, 4, tzinfo=timezone.utc),
            channel="sms",
            pathway_id="p1",
            current_node_id="n1",
            summary="",
            disposition_tag="",
            variables={"k": "v"},
            extra={
                "pathway_tags": [{"name": "Intro", "color": "#123456"}],
                "citation_variables": None,
            },
        ),
    )


def test_conversation_page__an_unusable_row_is_counted_and_hides_no_other() -> None:
    body = {"data": [{"id": "conv_1"}, {"id": "../conv_2"}, "junk", {"id": "conv_3"}]}

    page = ConversationPage.from_json(body, observed_at=SENT, answered_at=ANSWERED)

    assert [row.id for row in page.conversations] == ["conv_1", "conv_3"]
    assert (len(page.refused), page.row_count) == (2, 4)


@pytest.mark.parametrize("body", [{}, {"data": None}, {"data": {}}, {"data": "[]"}])
def test_conversation_page__without_a_list(body: dict[str, Any]) -> None:
    with pytest.raises(BlandPayloadError):
        ConversationPage.from_json(body, observed_at=SENT, answered_at=None)


def test_conversation_payload__documented_detail() -> None:
    payload = ConversationPayload.from_json(
        sample("detail_b")["data"], observed_at=SENT, answered_at=ANSWERED
    )

    assert payload.source == "detail"
    assert payload.timed_out_at == datetime(2026, 1, 2, 4, tzinfo=timezone.utc)
    assert payload.human_handoff_at == datetime(2026, 1, 2, 3, 30, tzinfo=timezone.utc)
    assert (payload.channel, payload.pathway_version) == ("whatsapp", "3")
    assert payload.extra.keys() == {
        "user_id",
        "inbound_id",
        "human_handoff_reason",
        "human_handoff_metadata",
        "disposition_logs",
    }


def test_conversation_payload__documented_messages() -> None:
    messages = read(**{**sample("detail_b")["data"], "id": "conv_1"}).messages

    assert messages is not None
    assert messages[2] == MessagePayload(
        bland_id="SM0003",
        sender="HUMAN",
        text="A colleague will call",
        status="undelivered",
        error_code="21610",
        created_at=datetime(2026, 1, 2, 4, tzinfo=timezone.utc),
        attachments=[{"url": "https://example.com/a.png", "type": "image/png"}],
    )


def test_conversation_payload__older_messages_have_integer_ids() -> None:
    messages = read(messages=sample("detail_a")["data"]["messages"]).messages

    assert messages is not None
    assert [message.bland_id for message in messages] == ["101", "102"]


# --- messages ---------------------------------------------------------------------------------


def test_message_payload__sender_in_upper_case() -> None:
    [message] = read_messages({"id": "1", "sender": "human"})

    assert message.sender == "HUMAN"


def test_message_payload__text_under_its_other_name() -> None:
    [message] = read_messages({"id": "1", "text": "hello"})

    assert message.text == "hello"


@pytest.mark.parametrize("told", [{}, {"id": None}, {"id": ""}, {"id": " "}, {"id": {}}])
def test_message_payload__without_id_is_named_by_its_place(told: dict[str, Any]) -> None:
    messages = read_messages({"id": "1"}, told, told)

    assert [message.bland_id for message in messages] == ["1", "no-id-1", "no-id-2"]
    assert [message.occurrence for message in messages] == [0, 0, 0]
    assert messages[1].extra == (told if told == {"id": " "} else {}), "nothing is lost"


def test_message_payload__what_is_no_object_is_kept_as_text() -> None:
    messages = read_messages("hello", None, 7, ["a", "list"], True)

    assert [message.text for message in messages] == ["hello", "", "7", "", ""]
    assert [message.extra for message in messages] == [
        {},
        {},
        {},
        {"value": ["a", "list"]},
        {"value": True},
    ]


def test_conversation_payload__two_messages_that_share_an_id_stay_two() -> None:
    """``message_sid`` is the caller's own text when a conversation is created."""
    messages = read_messages(
        {"id": 1, "message": "first"}, {"id": "2"}, {"id": "1", "message": "second"}
    )

    assert [(one.bland_id, one.occurrence, one.text) for one in messages] == [
        ("1", 0, "first"),
        ("2", 0, ""),
        ("1", 1, "second"),
    ]


def test_message_payload__what_has_no_column_is_kept() -> None:
    card = {"title": "Pay here", "url": "https://example.com"}
    [message] = read_messages(
        {"id": "1", "message": "x", "app_card": card, "from": "+15550100001", "new": None}
    )

    assert message.extra == {"app_card": card, "from": "+15550100001"}


def test_message_payload__numbers_of_the_conversation_are_not_kept_again() -> None:
    ours, theirs = "+15550100002", "+15550100001"
    told = {"id": "1", "from": theirs, "to": ours}
    payload = read(user_number=theirs, agent_number=ours, messages=[told, {**told, "to": "x"}])

    assert payload.messages is not None
    assert [one.extra for one in payload.messages] == [{}, {"to": "x"}]


@pytest.mark.parametrize(
    ("told", "attachments", "extra"),
    [
        ({"attachments": [{"url": "https://a"}]}, [{"url": "https://a"}], {}),
        ({"attachments": {"url": "https://a"}}, {"url": "https://a"}, {}),
        ({"attachments": "https://a"}, "https://a", {}),
        ({"attachments": None, "media_url": "https://a"}, "https://a", {}),
        ({"media_url": ["https://a"]}, ["https://a"], {}),
        ({"attachments": [1], "media_url": "https://a"}, [1], {"media_url": "https://a"}),
        ({"attachments": None}, None, {}),
    ],
)
def test_message_payload__attachments_of_any_shape_and_name(
    told: dict[str, Any], attachments: Any, extra: Any
) -> None:
    [message] = read_messages({"id": "1", **told})

    assert (message.attachments, message.extra) == (attachments, extra)


@pytest.mark.parametrize(
    ("told", "column", "value"),
    [
        ({"message": None, "text": "hello"}, "text", "hello"),
        ({"message": ["odd"], "text": "hello"}, "text", "hello"),
        ({"message": 7}, "text", "7"),
        ({"created_at": None, "timestamp": "2026-01-02T03:04:05Z"}, "created_at", NEW_YEAR),
        ({"created_at": 1_767_323_045}, "created_at", NEW_YEAR),
        ({"error_code": 21610}, "error_code", "21610"),
        ({"sender": None}, "sender", ""),
        ({"sender": ["USER"]}, "sender", ""),
        ({"sender": "+1 555 010 0001"}, "sender", "[NUMBER]"),
        ({"status": "sent to ann@example.com"}, "status", "sent to [address]"),
    ],
)
def test_message_payload__says_the_same_in_another_way(
    told: dict[str, Any], column: str, value: Any
) -> None:
    [message] = read_messages({"id": "1", **told})

    assert getattr(message, column) == value


@pytest.mark.parametrize("value", [["USER"], {"a": 1}, True])
@pytest.mark.parametrize("name", ["sender", "message", "status", "error_code", "id"])
def test_message_payload__a_structure_is_kept_and_not_guessed(name: str, value: Any) -> None:
    [message] = read_messages({"id": "1", name: value})

    assert message.extra == {name: value}
    assert (message.sender, message.text, message.status, message.error_code) == ("", "", "", "")


def test_conversation_payload__the_newest_messages_of_too_many() -> None:
    told = [
        {"id": "same", "message": str(number), "card": number} for number in range(MAX_MESSAGES + 5)
    ]
    del told[7]["id"]

    messages = read_messages(*told)

    assert len(messages) == MAX_MESSAGES
    assert messages[2].bland_id == "no-id-7", "its place among all of them"
    assert (messages[0].text, messages[0].occurrence) == ("5", 5)
    assert messages[0].extra == {"card": 5, "messages_left_out": 5}
    assert (messages[1].extra, messages[1].occurrence) == ({"card": 6}, 6)
    assert (messages[-1].text, messages[-1].extra) == (str(MAX_MESSAGES + 4), {"card": 10_004})
    assert read_messages(*told[:MAX_MESSAGES])[0].extra == {"card": 0}


def test_conversation_payload__no_messages_yet() -> None:
    assert read(messages=[]).messages == ()


def test_conversation_payload__messages_not_part_of_the_answer() -> None:
    payload = read()

    assert (payload.messages, payload.source) == (None, "list")


@pytest.mark.parametrize("told", ["[]", '[{"id": 1}]', {}, {"0": {}}, 7, True])
def test_conversation_payload__messages_that_are_no_list_tell_nothing(told: object) -> None:
    """Taken for "none yet", they would cost the mirror its transcript."""
    assert read(messages=told).messages is None


# --- names and presence -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("newer", "older", "column"),
    [
        ("effective_channel", "channel", "channel"),
        ("curr_pathway_id", "pathway_id", "pathway_id"),
        ("curr_pathway_version", "pathway_version", "pathway_version"),
    ],
)
def test_conversation_payload__renamed_field(newer: str, older: str, column: str) -> None:
    assert getattr(read(**{newer: "new"}), column) == "new"
    assert getattr(read(**{older: "old"}), column) == "old"
    assert getattr(read(**{older: "old", newer: "new"}), column) == "new"


@pytest.mark.parametrize(
    ("newer", "older", "column"),
    [
        ("effective_channel", "channel", "channel"),
        ("curr_pathway_id", "pathway_id", "pathway_id"),
        ("curr_pathway_version", "pathway_version", "pathway_version"),
    ],
)
@pytest.mark.parametrize("nothing", [None, "", ["odd"]])
def test_conversation_payload__null_does_not_hide_the_older_name(
    newer: str, older: str, column: str, nothing: Any
) -> None:
    payload = read(**{newer: nothing, older: "old"})

    assert getattr(payload, column) == "old"
    assert payload.extra == ({newer: nothing} if nothing else {})
    assert getattr(read(**{newer: None, older: None}), column) == ""
    assert getattr(read(**{newer: "", older: None}), column) == ""
    assert getattr(read(**{newer: ["odd"], older: None}), column) is ABSENT


def test_conversation_payload__null_does_not_hide_the_older_time() -> None:
    payload = read(last_message_at=None, last_message_timestamp="2026-01-02T03:04:05Z")

    assert payload.last_message_at == NEW_YEAR
    assert read(last_message_at=None, last_message_timestamp=None).last_message_at is None


def test_conversation_payload__older_name_of_last_message_at() -> None:
    payload = read(last_message_timestamp="2026-01-02T03:04:05Z")

    assert payload.last_message_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def test_conversation_payload__unknown_fields_are_kept() -> None:
    payload = read(user_number="+15550100001", brand_new={"deep": [1]}, other=None)

    assert payload.extra == {"brand_new": {"deep": [1]}, "other": None}


def test_conversation_payload__absent_null_and_empty_differ() -> None:
    assert read().facts() == {"extra": {}}
    assert read(summary=None, variables=None, timed_out_at=None).facts() == {
        "summary": "",
        "variables": None,
        "timed_out_at": None,
        "extra": {},
    }
    assert read(variables={}).variables == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("summary", {"text": "x"}),
        ("user_number", ["+15550100001"]),
        ("disposition_tag", True),
        ("message_count", "three"),
        ("message_count", True),
        ("message_count", -1),
        ("message_count", 2.5),
        ("ended_by_end_call_node", "no"),
        ("ended_by_end_call_node", 2),
        ("ended_by_end_call_node", []),
        ("timed_out_at", "yesterday"),
        ("timed_out_at", 3),
    ],
)
def test_conversation_payload__unusable_value_counts_as_absent(name: str, value: object) -> None:
    payload = read(**{name: value})

    assert getattr(payload, name) is ABSENT
    assert payload.extra == {name: value}


@pytest.mark.parametrize(
    ("told", "kept"),
    [(3, 3), (3.0, 3), ("3", 3), (" 3 ", 3), (2**40, 2**31 - 1), (0, 0), (1e300, 2**31 - 1)],
)
def test_conversation_payload__message_count_fits_its_column(told: object, kept: int) -> None:
    count = read(message_count=told).message_count
    assert (count, type(count)) == (kept, int)


@pytest.mark.parametrize("name", ["message_count", "ended_by_end_call_node"])
def test_conversation_payload__null_is_no_zero(name: str) -> None:
    payload = read(**{name: None})

    assert getattr(payload, name) is ABSENT
    assert payload.extra == {}


@pytest.mark.parametrize(
    ("told", "flag"), [(True, True), ("true", True), (" False ", False), (1, True), ("0", False)]
)
def test_conversation_payload__a_flag_in_another_type(told: object, flag: bool) -> None:
    assert read(ended_by_end_call_node=told).ended_by_end_call_node is flag


@pytest.mark.parametrize("told", [None, 0, 1, "true", "false", [], {}])
def test_conversation_payload__only_json_booleans_count(told: object) -> None:
    assert read(is_active=told).is_active is None


def test_conversation_payload__channel_in_lower_case() -> None:
    assert read(channel="WHATSAPP").channel == "whatsapp"


# --- times ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "told",
    [
        "2026-01-02T03:04:05.678Z",
        "2026-01-02T03:04:05.678+00:00",
        "2026-01-02T05:04:05.678+02:00",
        "2026-01-02T03:04:05.678",
        "2026-01-02 03:04:05.678Z",
        " 2026-01-02T03:04:05.678Z\n",
    ],
)
def test_parse_time__any_offset_and_none(told: str) -> None:
    parsed = parse_time(told, SENT)

    assert parsed == datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=timezone.utc)
    assert parsed.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "told",
    [
        "1970-01-01T00:00:00.000Z",
        "1969-12-31T23:59:59Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-12:00",
        "9999-12-31T23:59:59Z",
        "2026-13-01T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "2026-01-02T03:04:05+99:00",
        "yesterday",
        "",
        "Z",
        "\ud800",
        "2026-01-02T03:04:05Z" + " " * 60,
        999_999_999,
        "999999999",
        10**300,
        -1_767_323_045,
        float("1e308"),
        0,
        True,
        None,
        [],
        {},
    ],
)
def test_parse_time__unusable(told: object) -> None:
    assert parse_time(told, SENT) is None


@pytest.mark.parametrize(
    "told", [1_767_323_045, 1_767_323_045.0, 1_767_323_045_000, "1767323045", "1767323045000"]
)
def test_parse_time__since_1970(told: object) -> None:
    assert parse_time(told, SENT) == NEW_YEAR


def test_parse_time__without_an_offset_is_utc_wherever_we_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        parsed = parse_time("2026-01-02T03:04:05", SENT)
    time.tzset()

    assert parsed == NEW_YEAR


@pytest.mark.parametrize(
    ("told", "year"),
    [(10**9, 2001), (10**9 - 1, None), (10**12, 2001), (str(10**12), 2001), (10**12 - 1, None)],
)
def test_parse_time__seconds_or_milliseconds(told: object, year: int | None) -> None:
    parsed = parse_time(told, SENT)

    assert (parsed and parsed.year) == year


@pytest.mark.parametrize(("length", "is_read"), [(64, True), (65, False)])
def test_parse_time__of_a_text_that_is_not_too_long(length: int, is_read: bool) -> None:
    parsed = parse_time("2026-01-02T03:04:05Z".center(length), SENT)

    assert parsed == (NEW_YEAR if is_read else None)


def test_parse_time__later_than_the_answer_by_five_minutes() -> None:
    latest = latest_time(ANSWERED)

    assert parse_time((ANSWERED + timedelta(minutes=5)).isoformat(), latest) is not None
    assert parse_time((ANSWERED + timedelta(minutes=5, seconds=1)).isoformat(), latest) is None


def test_latest_time__our_own_clock_may_be_wrong_by_hours() -> None:
    ahead = latest_time(None) - datetime.now(timezone.utc)

    assert timedelta(hours=23) < ahead < timedelta(hours=25)


@pytest.mark.parametrize("name", ["updated_at", "created_at", "timed_out_at", "last_message_at"])
def test_conversation_payload__no_time_is_later_than_the_answer(name: str) -> None:
    payload = read(**{name: (ANSWERED + timedelta(minutes=6)).isoformat()})

    assert getattr(payload, name) in (None, ABSENT)


# --- cleaning ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_text", "kept"),
    [("a\x00b", "ab"), ("a\ud800b", "a\ufffdb"), ("a\udfff", "a\ufffd"), ("é👍\n", "é👍\n")],
)
def test_clean_text__storable_everywhere(given_text: str, kept: str) -> None:
    assert clean_text(given_text) == kept


def test_clean_text__cut_to_length() -> None:
    assert clean_text("x" * 300, 255) == "x" * 255


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (INT64 - 1, INT64 - 1),
        (INT64, str(INT64)),
        (-(2**65), str(-(2**65))),
        (1e300, "1e+300"),
        (1e16, 10**16),
        (0.5, 0.5),
        (True, True),
        ("a\x00", "a"),
        ({"k\x00": ["\ud800"]}, {"k": ["\ufffd"]}),
    ],
)
def test_clean_json__storable_everywhere(value: object, kept: object) -> None:
    cleaned = clean_json(value)

    assert (cleaned, type(cleaned)) == (kept, type(kept))


def test_clean_json__no_negative_zero() -> None:
    assert json.dumps(clean_json(-0.0)) == "0"


@pytest.mark.parametrize("kind", [list, dict])
@pytest.mark.parametrize("depth", [1, 27, 28, 29, 31, 32, MAX_DEPTH, 500])
def test_clean_json__what_lies_deep_is_kept_as_text(depth: int, kind: type) -> None:
    deep: Any = "bottom"
    for _ in range(depth):
        deep = [deep] if kind is list else {"in": deep}

    kept = read(variables=deep).variables
    for _ in range(min(depth, MAX_STORED_DEPTH)):
        assert isinstance(kept, kind)
        (kept,) = kept.values() if isinstance(kept, dict) else kept
    if depth > MAX_STORED_DEPTH:
        kept = json.loads(kept)
        for _ in range(depth - MAX_STORED_DEPTH):
            (kept,) = kept.values() if isinstance(kept, dict) else kept
    assert kept == "bottom"


def test_clean_json__so_many_keys_and_no_more() -> None:
    cleaned = clean_json({f"{number:05}": number for number in range(10_000)})

    assert len(cleaned) == 500
    assert cleaned[LEFT_OUT] == 9_501
    assert clean_json(cleaned) == cleaned


def test_conversation_payload__so_many_other_fields_and_no_more() -> None:
    extra = read(**{f"field_{number:04}": number for number in range(MOST_EXTRA + 9)}).extra

    assert list(extra) == [f"field_{number:04}" for number in range(MOST_EXTRA)]


def test_conversation_payload__over_long_text_is_cut() -> None:
    payload = read(user_number="1" * 500, summary="x" * 1_000_000)

    assert payload.user_number == "1" * 64
    assert len(str(payload.summary)) == 100_000


@pytest.mark.parametrize(
    "name",
    [
        *("user_number", "agent_number", "channel", "pathway_id", "pathway_version"),
        *("current_node_id", "disposition_tag"),
    ],
)
def test_conversation_payload__text_fills_its_column_and_no_more(name: str) -> None:
    kept = getattr(read(**{name: "x" * 1000}), name)

    assert kept == "x" * column_length(Conversation, name)


@pytest.mark.parametrize("name", ["sender", "status", "error_code", "id"])
def test_message_payload__text_fills_its_column_and_no_more(name: str) -> None:
    [message] = read_messages({name: "X" * 1000})
    column = "bland_id" if name == "id" else name

    assert getattr(message, column) == "X" * column_length(Message, column)


@pytest.mark.parametrize("letter", ["İ", "x"])
def test_conversation_payload__channel_fits_its_column_in_lower_case(letter: str) -> None:
    """Some letters become two in the other case."""
    channel = read(channel=letter * 40).channel

    assert len(str(channel)) <= column_length(Conversation, "channel")


@pytest.mark.parametrize("letter", ["ß", "ΐ", "x"])
def test_message_payload__sender_fits_its_column_in_upper_case(letter: str) -> None:
    [message] = read_messages({"id": "1", "sender": letter * 40})

    assert len(message.sender) <= column_length(Message, "sender")


def column_length(model: type[Conversation] | type[Message], name: str) -> int:
    column = model._meta.get_field(name)
    assert isinstance(column, CharField)
    assert column.max_length is not None
    return column.max_length


# --- bodies -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": 1, "a": 2}',
        b'{"b": {"a": 1, "a": 1}}',
        b"\xff\xfe",
        b'"\xed\xa0\x80"',
        b"<html></html>",
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    ],
)
def test_parse_json__not_json_in_the_strict_sense(body: bytes) -> None:
    with pytest.raises(BlandPayloadError):
        parse_json(body)


def test_parse_json__error_does_not_quote_the_body() -> None:
    with pytest.raises(BlandPayloadError) as caught:
        parse_json(b'{"message": "call me at +15550100001"')

    assert "+15550100001" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_parse_json__thousands_of_digits() -> None:
    assert parse_json(b"9" * 5000) == "9" * 5000


def test_parse_json__byte_order_mark() -> None:
    assert parse_json(b"\xef\xbb\xbf{}") == {}


nested = st.recursive(
    st.one_of(st.none(), st.integers(0, 99), st.text('a"\\[]{},', max_size=6)),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text('a"\\[]{},'), inner, max_size=4)
    ),
    max_leaves=16,
)


def size_of(value: Any) -> tuple[int, int]:
    """How many values structures hold, an empty one counted as one; and how deep they go."""
    if not isinstance(value, (list, dict)):
        return 0, 0
    inner = [size_of(item) for item in (value.values() if isinstance(value, dict) else value)]
    number = max(1, len(inner)) + sum(number for number, _ in inner)
    return number, 1 + max((depth for _, depth in inner), default=0)


@settings(max_examples=300)
@given(nested, st.booleans())
def test_parse_json__too_deep_or_too_many_values_and_nothing_else_is_refused(
    value: Any, is_indented: bool
) -> None:
    number, depth = size_of(value)
    expected = "too_many_values" if number > 12 else "nested_too_deeply" if depth > 3 else ""
    body = json.dumps(value, indent=1 if is_indented else None).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bland_sms.payloads.values.MAX_ELEMENTS", 12)
        patch.setattr("bland_sms.payloads.values.MAX_DEPTH", 3)
        try:
            assert parse_json(body) == value
            cause = ""
        except BlandPayloadError as error:
            cause = error.failure.params["cause"]
    assert cause == expected


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"7", b"null", b"true"])
def test_parse_body__not_an_object(body: bytes) -> None:
    with pytest.raises(BlandPayloadError):
        parse_body(body)


# --- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("error_400", "INVALID_IS_ACTIVE_VALUE", "is_active must be a boolean value"),
        ("error_400_parameter", "INVALID_PARAMETER", "limit must be at most 1000"),
        ("error_401", "AUTH_FAILURE", "Unauthorized"),
        ("error_401_other_name", "UNAUTHORIZED", "Unauthorized"),
        (
            "error_403",
            "ENTERPRISE_REQUIRED",
            "This feature is only available to enterprise customers",
        ),
        ("error_403_flagged", "", "Your account has been flagged"),
        ("error_404", "CONVERSATION_NOT_FOUND", "Conversation not found"),
        ("error_429_prose", "", "Rate Limit Exceeded"),
        ("error_429_speech", "rate_limited", "Too many concurrent requests"),
        ("error_500", "ERROR_UPDATING_CONVERSATION", "Error updating conversation"),
        ("error_of_texts", "", "phone_number is required"),
        ("errors_with_200", "SOMETHING_ODD", "It did not work"),
    ],
)
def test_read_error__documented_envelope(name: str, code: str, message: str) -> None:
    body = (SAMPLES / f"{name}.json").read_bytes()

    assert read_error(body) == (code, message)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"7",
        b"[]",
        b"{}",
        b'{"errors": []}',
        b'{"errors": [null]}',
        b'{"errors": [[]]}',
        b'{"errors": [{"error": 7, "message": {}}]}',
    ],
)
def test_read_error__tells_nothing(body: bytes) -> None:
    assert read_error(body) == ("", "")


def test_read_error__page_without_its_tags_cut_short() -> None:
    page = b"<html><body class='x'><h1>502 Bad Gateway</h1>" + b"<p>nginx</p>" * 500

    code, message = read_error(page)

    assert code == ""
    assert message.startswith("502 Bad Gateway")
    assert "<" not in message
    assert len(message) == 200


def test_read_error__words_on_one_line_without_control_characters() -> None:
    body = json.dumps({"message": "a\r\nb\x1b[31m\u202ec\x00" + "x" * 500}).encode()

    _, message = read_error(body)

    assert message.startswith("a b [31m c")
    assert message.isprintable()
    assert len(message) == 200


# --- anything at all --------------------------------------------------------------------------

quick = settings(max_examples=80)
any_text = st.text(st.characters(exclude_categories=()), max_size=40)  # lone surrogates too
times = st.one_of(
    any_text,
    st.datetimes(timezones=st.timezones() | st.none()).map(datetime.isoformat),
    st.sampled_from(["2026-01-02T03:04:05Z", "9999-12-31T23:59:59-12:00", "1e5", "24:00"]),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    any_text,
    times,
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=12,
)
MESSAGE_KEYS = ["id", "sender", "message", "text", "status", "error_code", "created_at"]
CONVERSATION_KEYS = [
    *(column.name for column in fields(ConversationPayload)),
    *("effective_channel", "curr_pathway_id", "curr_pathway_version", "last_message_timestamp"),
]


def objects(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with the right keys and whatever values."""
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, values))


message_lists = st.lists(objects(*MESSAGE_KEYS, "attachments") | values, max_size=4)
conversations = st.builds(
    lambda data, **more: {**data, **more},
    objects(*CONVERSATION_KEYS),
    id=st.sampled_from(["conv_1", "a", "..", "", None]),
    messages=message_lists | values,
)
updates = st.one_of(
    objects("conversation", "message", "data", "errors", "is_active", "id", "updated_at"),
    st.builds(lambda inner: {"data": {"conversation": inner}}, conversations),
    st.builds(lambda inner: {"conversation": inner}, conversations),
)
errors = st.one_of(
    values,
    objects("errors", "error", "message", "status", "data"),
    st.builds(lambda inner: {"errors": inner}, st.lists(objects("error", "message"), max_size=2)),
)
HOSTILE_PAGES = [b"<a" * 700, b"<" * 4000, b"<!--" * 1000, b"<a " * 2000, b"&#" * 2000 + b">"]


def is_storable(value: Any) -> bool:
    """Whether every database takes it as it is."""
    if isinstance(value, dict):
        return all(is_storable(key) and is_storable(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(is_storable, value))
    if isinstance(value, str):
        return "\x00" not in value and value.encode("utf-8", "replace").decode() == value
    if isinstance(value, datetime):
        return EPOCH < value <= latest_time(ANSWERED)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return abs(value) < INT64
    if isinstance(value, MessagePayload):
        return all(is_storable(getattr(value, column.name)) for column in fields(value))
    return value is None or value is ABSENT or isinstance(value, bool)


@quick
@given(st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode()))
def test_parse_body__any_bytes(body: bytes) -> None:
    try:
        parsed = parse_body(body)
    except BlandPayloadError:
        return
    assert isinstance(parsed, dict)


@quick
@given(values)
def test_parse_json__reads_what_json_writes(value: Any) -> None:
    assert canonical(clean_json(parse_json(json.dumps(value).encode()))) == canonical(
        clean_json(value)
    )


@pytest.mark.parametrize("page", HOSTILE_PAGES, ids=lambda page: repr(page[:5]))
def test_read_error__hostile_page(page: bytes) -> None:
    code, message = read_error(page)

    assert code == ""
    assert len(message) <= 200


@quick
@given(st.binary(max_size=300) | errors.map(lambda value: json.dumps(value).encode()))
@example(b"\xff<p>\x00")
def test_read_error__any_bytes(body: bytes) -> None:
    code, message = read_error(body)

    assert len(code) <= 64
    assert len(message) <= 200
    assert is_storable(code + message)


@quick
@given(errors)
def test_describe_error__any_json(parsed: Any) -> None:
    code, message = describe_error(parsed)

    assert code.isascii()
    assert message.isprintable()


@quick
@given(conversations | values)
def test_conversation_payload__any_json(data: Any) -> None:
    try:
        payload = ConversationPayload.from_json(data, observed_at=SENT, answered_at=ANSWERED)
    except BlandPayloadError:
        return
    kept = {column.name: getattr(payload, column.name) for column in fields(payload)}
    assert is_storable(kept), kept


@quick
@given(updates | values.filter(lambda value: isinstance(value, dict)))
def test_update_payload__any_object(body: dict[str, Any]) -> None:
    payload = UpdatePayload.from_json(body, observed_at=SENT, answered_at=ANSWERED)

    assert payload.is_active in (None, True, False)
    assert is_storable([payload.id, payload.updated_at, payload.message])


@quick
@given(
    st.builds(lambda rows: {"data": rows}, st.lists(conversations | values, max_size=3)) | updates
)
def test_conversation_page__any_object(body: dict[str, Any]) -> None:
    try:
        page = ConversationPage.from_json(body, observed_at=SENT, answered_at=ANSWERED)
    except BlandPayloadError:
        return
    assert len(page.conversations) + len(page.refused) <= page.row_count == len(body["data"])


@quick
@given(values)
def test_clean_json__cleaning_twice_is_cleaning_once(value: Any) -> None:
    cleaned = clean_json(value)

    assert is_storable(cleaned)
    assert canonical(clean_json(cleaned)) == canonical(cleaned)
    assert canonical(json.loads(json.dumps(cleaned))) == canonical(cleaned)


# --- the finer cause --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (b"NaN", "no_json_value"),
        (b"1e999", "number_too_large"),
        (b'{"a": 1, "a": 2}', "repeated_key"),
    ],
)
def test_parse_json__says_what_is_wrong(body: bytes, cause: str) -> None:
    with pytest.raises(BlandPayloadError) as caught:
        parse_json(body)
    assert caught.value.failure.params["cause"] == cause


def test_parse_json__integers_of_too_many_digits_are_text() -> None:
    assert parse_json(b"[" + b"9" * 20 + b", " + b"9" * 21 + b"]") == [int("9" * 20), "9" * 21]


def test_canonical__one_text_for_one_value() -> None:
    assert canonical({"b": 1, "a": [SENT]}) == canonical({"a": [SENT], "b": 1})
    assert canonical({"b": 1, "a": 2}) == '{"a":2,"b":1}'


def test_page__is_no_list() -> None:
    with pytest.raises(BlandPayloadError) as caught:
        ConversationPage.from_json({"conversations": 3}, observed_at=SENT, answered_at=SENT)
    assert caught.value.failure.params["cause"] == "no_list"


def test_fingerprint__tells_values_apart() -> None:
    values: list[Any] = [{}, [], {"a": 1, "b": 2}, {"a": 2, "b": 1}, {"a": "1", "b": 2}]

    assert len(set(map(fingerprint, values))) == len(values)
    assert fingerprint({"b": 2, "a": 1}) == fingerprint(values[2])
    assert len(fingerprint(values).rstrip("=")) == 16


def test_fingerprint__is_another_in_another_release(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint({"a": 1})
    monkeypatch.setattr("bland_sms.payloads.values._RELEASE", b"0.0.0")

    assert fingerprint({"a": 1}) != before
