"""What Bland says: the one place that reads Bland's JSON."""

from typing import TYPE_CHECKING

from ..on_demand import on_demand

if TYPE_CHECKING:
    from .conversation import (
        FACT_COLUMNS,
        MOST_EXTRA,
        ConversationPage,
        ConversationPayload,
        UpdatePayload,
    )
    from .errors import ENVELOPE, describe_error, read_error, unwrap
    from .messages import MAX_MESSAGES, MESSAGES_LEFT_OUT, MessagePayload
    from .values import (
        ABSENT,
        CLOCK_TOLERANCE,
        CONVERSATION_ID,
        EPOCH,
        INT32_MAX,
        INT64_MAX,
        LEFT_OUT,
        MAX_DEPTH,
        MAX_ELEMENTS,
        MAX_STORED_DEPTH,
        Absent,
        canonical,
        clean_json,
        is_conversation_id,
        latest_time,
        parse_body,
        parse_json,
        parse_time,
    )

__getattr__ = on_demand(
    __name__,
    conversation="FACT_COLUMNS MOST_EXTRA ConversationPage ConversationPayload UpdatePayload",
    errors="ENVELOPE describe_error read_error unwrap",
    messages="MAX_MESSAGES MESSAGES_LEFT_OUT MessagePayload",
    values=(
        "ABSENT CLOCK_TOLERANCE CONVERSATION_ID EPOCH INT32_MAX INT64_MAX LEFT_OUT MAX_DEPTH "
        "MAX_ELEMENTS MAX_STORED_DEPTH Absent canonical clean_json "
        "is_conversation_id latest_time parse_body parse_json parse_time"
    ),
)

__all__ = [
    "ABSENT",
    "CLOCK_TOLERANCE",
    "CONVERSATION_ID",
    "ENVELOPE",
    "EPOCH",
    "FACT_COLUMNS",
    "INT32_MAX",
    "INT64_MAX",
    "LEFT_OUT",
    "MAX_DEPTH",
    "MAX_ELEMENTS",
    "MAX_MESSAGES",
    "MAX_STORED_DEPTH",
    "MESSAGES_LEFT_OUT",
    "MOST_EXTRA",
    "Absent",
    "ConversationPage",
    "ConversationPayload",
    "MessagePayload",
    "UpdatePayload",
    "canonical",
    "clean_json",
    "describe_error",
    "is_conversation_id",
    "latest_time",
    "parse_body",
    "parse_json",
    "parse_time",
    "read_error",
    "unwrap",
]
