"""What we keep."""

from .conversation import Conversation, Message
from .ledger import OPEN_STATES, BulkUpdate, BulkUpdateItem
from .sync_run import SyncRun
from .webhook_delivery import WebhookDelivery

__all__ = [
    "OPEN_STATES",
    "BulkUpdate",
    "BulkUpdateItem",
    "Conversation",
    "Message",
    "SyncRun",
    "WebhookDelivery",
]
