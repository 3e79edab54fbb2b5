"""How far ahead items are claimed: as many as are asked in a while, by how fast answers come."""

from __future__ import annotations

CLAIM_SECONDS, MOST_CLAIMED = 2.0, 500
"""Items are claimed for so long ahead, and never more than so many."""
NEWEST_SHARE = 0.1
"""How much the newest answer counts."""


class Window:
    """Of one run.

    Args:
        workers: How many threads ask.
        is_narrow: Only twice as many items as there are threads, however fast they are.
    """

    def __init__(self, workers: int, *, is_narrow: bool = False) -> None:
        self._workers, self._is_narrow = workers, is_narrow
        self.usual_seconds = 0.0
        """How long an answer takes, of late."""

    def note(self, seconds: float) -> None:
        """An answer took that long."""
        newest = NEWEST_SHARE if self.usual_seconds else 1.0
        self.usual_seconds += (seconds - self.usual_seconds) * newest

    def most(self, seconds_left: float | None) -> int:
        """How many items may be claimed and not answered.

        Args:
            seconds_left: What is claimed and not sent by then is given back.
        """
        at_first = 2 * self._workers
        if self._is_narrow or not self.usual_seconds:
            return at_first
        seconds = CLAIM_SECONDS if seconds_left is None else min(CLAIM_SECONDS, seconds_left)
        in_time = int(seconds * self._workers / self.usual_seconds)
        return max(at_first, min(in_time, MOST_CLAIMED))

    def few(self, seconds_left: float | None) -> int:
        """At how few of them more are claimed, so that no thread waits for the database."""
        return max(self._workers, self.most(seconds_left) // 4)
