"""Webhook deliveries from Bland, from the request to the copied conversation."""

from typing import TYPE_CHECKING

from ..on_demand import on_demand

if TYPE_CHECKING:
    from .claims import workable
    from .copying import Worked, process, process_waiting, reprocess
    from .inbox import receive
    from .view import webhook

__getattr__ = on_demand(
    __name__,
    claims="workable",
    copying="Worked process process_waiting reprocess",
    inbox="receive",
    view="webhook",
)

__all__ = ["Worked", "process", "process_waiting", "receive", "reprocess", "webhook", "workable"]
