"""The admin: pages and actions for staff.

A host that wants its own registers subclasses of these after ``admin.site.unregister``.
"""

from django.contrib import admin

from ..models import BulkUpdate, Conversation, Erasure, StandingOrder, SyncRun, WebhookDelivery
from .conversations import ConversationAdmin
from .deliveries import WebhookDeliveryAdmin
from .erasures import ErasureAdmin
from .orders import StandingOrderAdmin
from .runs import SyncRunAdmin
from .updates import BulkUpdateAdmin

admin.site.register(Conversation, ConversationAdmin)
admin.site.register(BulkUpdate, BulkUpdateAdmin)
admin.site.register(StandingOrder, StandingOrderAdmin)
admin.site.register(SyncRun, SyncRunAdmin)
admin.site.register(WebhookDelivery, WebhookDeliveryAdmin)
admin.site.register(Erasure, ErasureAdmin)

__all__ = [
    "BulkUpdateAdmin",
    "ConversationAdmin",
    "ErasureAdmin",
    "StandingOrderAdmin",
    "SyncRunAdmin",
    "WebhookDeliveryAdmin",
]
