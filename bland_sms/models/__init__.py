"""What we keep."""

from .account_pace import AccountPace
from .conversation import Conversation, Message
from .erasure import Erasure
from .event import (
    ConversationEvent,
    DailyTotal,
    MonthlyTotal,
    UncountedDay,
    UncountedMonth,
)
from .ledger import BulkUpdate, BulkUpdateItem
from .owed_look import OwedLook
from .pasted_line import PastedLine
from .standing_order import OrderApplication, StandingOrder
from .sync_run import SyncRun
from .webhook_delivery import WebhookDelivery

__all__ = [
    "AccountPace",
    "BulkUpdate",
    "BulkUpdateItem",
    "Conversation",
    "ConversationEvent",
    "DailyTotal",
    "Erasure",
    "Message",
    "MonthlyTotal",
    "OrderApplication",
    "OwedLook",
    "PastedLine",
    "StandingOrder",
    "SyncRun",
    "UncountedDay",
    "UncountedMonth",
    "WebhookDelivery",
]
