"""How we ask Bland: one client per process, one method per endpoint."""

from typing import TYPE_CHECKING

from ..on_demand import on_demand

if TYPE_CHECKING:
    from .client import BlandClient, Dialect, ListFilter, conversation_path
    from .clock import by_blands_clock
    from .connecting import check_client
    from .current import get_client, taking_part

__getattr__ = on_demand(
    __name__,
    client="BlandClient Dialect ListFilter conversation_path",
    clock="by_blands_clock",
    connecting="check_client",
    current="get_client taking_part",
)

__all__ = [
    "BlandClient",
    "Dialect",
    "ListFilter",
    "by_blands_clock",
    "check_client",
    "conversation_path",
    "get_client",
    "taking_part",
]
