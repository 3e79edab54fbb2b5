"""What ``manage.py check`` says about BLAND_SMS and the host project. No database, no network.

The ids are stable and explained in ``docs/checks.md``. A key or secret that is a callable is not
called: it may ask a vault.
"""

from . import connection, host, setting, webhooks

__all__ = ["connection", "host", "setting", "webhooks"]
