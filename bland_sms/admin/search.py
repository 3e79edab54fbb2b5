"""The search of the admin's list is everybody's: see ``bland_sms.search``."""

from ..search import find, parse_search, single_id

__all__ = ["find", "parse_search", "single_id"]
