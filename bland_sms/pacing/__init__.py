"""How fast we may ask: one rate for the account, of which each process has a share."""

from .account import may_share
from .allowance import MAX_PAUSE_SECONDS, Allowance, back_off_seconds
from .pacer import Pacer
from .tokens import RetryBudget, TokenBucket

__all__ = [
    "MAX_PAUSE_SECONDS",
    "Allowance",
    "Pacer",
    "RetryBudget",
    "TokenBucket",
    "back_off_seconds",
    "may_share",
]
