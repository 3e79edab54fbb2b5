"""Door for staff.

A host that wants its own registers subclasses of these after ``admin.site.unregister``.
"""

from django.contrib import admin

from ..models import BulkUpdate, Conversation, SyncRun, WebhookDelivery
from .bulk_updates import BulkUpdateAdmin
from .conversations import ConversationAdmin
from .sync_runs import SyncRunAdmin
from .webhook_deliveries import WebhookDeliveryAdmin

admin.site.register(Conversation, ConversationAdmin)
admin.site.register(BulkUpdate, BulkUpdateAdmin)
admin.site.register(SyncRun, SyncRunAdmin)
admin.site.register(WebhookDelivery, WebhookDeliveryAdmin)

__all__ = ["BulkUpdateAdmin", "ConversationAdmin", "SyncRunAdmin", "WebhookDeliveryAdmin"]
