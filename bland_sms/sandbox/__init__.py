"""A stateful stand-in for Bland: a local server, and one in the process of a test.

It shares no code with ``client``, ``payloads`` and ``mirror``: a misreading of Bland's
documentation on one side must not hide one on the other.
"""

from .account import Account
from .faults import FaultBook
from .in_process import FakeBland
from .seeds import seed_account
from .server import BlandSandbox
from .stand_in import StandIn

__all__ = ["Account", "BlandSandbox", "FakeBland", "FaultBook", "StandIn", "seed_account"]
