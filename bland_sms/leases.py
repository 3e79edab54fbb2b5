"""One process at a time: a row is leased for a while, and its holder knows when to stop sending."""

from __future__ import annotations

import time
import uuid
from datetime import datetime, timedelta
from typing import Any, ClassVar

from django.db import connections, models
from django.db.models import Q
from django.utils import timezone

from .database import using, write_transaction

CLOCK_TOLERANCE = timedelta(seconds=15)
"""Maximum difference between the clocks of two machines. A lease that ends later than its length
plus this was written by a wrong clock, and is ignored."""

MARGIN = 3
"""Nothing is sent in the last third of a lease, so that what was sent has arrived when it ends."""


class LostLeaseError(Exception):
    """Another process has taken over, since this lease had ended. It checks what was in flight."""


class Fence:
    """Until when the holder of a lease may send: the monotonic and the wall clock both decide.

    The monotonic clock goes on while a process is stopped, the wall clock while a machine
    sleeps; and neither goes wrong when the other is set. Threads may share one.
    """

    def __init__(self) -> None:
        self._until: tuple[float, datetime] | None = None

    @staticmethod
    def now() -> tuple[float, datetime]:
        """Read both clocks. Do it before the lease is written, so that the fence ends first."""
        return time.monotonic(), timezone.now()

    def extend(self, began: tuple[float, datetime], length: timedelta) -> None:
        """Open it for a lease of that length which was written after ``began``."""
        length -= length / MARGIN
        self._until = began[0] + length.total_seconds(), began[1] + length

    def close(self) -> None:
        """Nothing is sent any more."""
        self._until = None

    def is_open(self) -> bool:
        """Whether something may be sent at this moment."""
        until = self._until
        return until is not None and time.monotonic() < until[0] and timezone.now() < until[1]


class Leased(models.Model):
    """A row that one process at a time works on.

    The lease ends by itself when its holder dies. Every write of the holder names its token, so
    one that was taken for dead and wakes up again changes nothing.
    """

    LEASE: ClassVar[timedelta] = timedelta(seconds=15)

    lease_token = models.UUIDField(null=True, blank=True, editable=False)
    lease_until = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        abstract = True

    @property
    def fence(self) -> Fence:
        """Until when this process may send for this row."""
        fence: Fence = self.__dict__.setdefault("_fence", Fence())
        return fence

    @classmethod
    def unleased(cls, through: str = "") -> Q:
        """Rows without a live lease: no process works on them.

        Args:
            through: From another model: the name of the relation, such as ``"bulk_update__"``.
        """
        now, until = timezone.now(), f"{through}lease_until"
        return (
            Q(**{f"{until}__isnull": True})
            | Q(**{f"{until}__lte": now})
            | Q(**{f"{until}__gt": now + cls.LEASE + CLOCK_TOLERANCE})
        )

    @property
    def has_live_lease(self) -> bool:
        """Whether some process works on it right now."""
        if self.lease_until is None:
            return False
        left = self.lease_until - timezone.now()
        return timedelta(0) < left <= self.LEASE + CLOCK_TOLERANCE

    def take_lease(self, *conditions: Q, **values: Any) -> bool:
        """Take the lease, if it is free; never waits for a lock on the row.

        Args:
            conditions: What else must be true of the row.
            values: Columns to write along with the lease.

        Returns:
            False where another process works on it or locks it, or a condition is not met.
        """
        alias = using(type(self))
        began = Fence.now()
        # Set before it is written: after an interruption in between it can be released.
        before, self.lease_token = self.lease_token, uuid.uuid4()
        rows = type(self)._base_manager.using(alias)
        free = rows.filter(self.unleased(), *conditions, pk=self.pk)
        lease = {"lease_token": self.lease_token, "lease_until": began[1] + self.LEASE}
        if not connections[alias].features.has_select_for_update_skip_locked:
            taken = bool(free.update(**lease, **values))
        else:
            with write_transaction(type(self)):
                locked = free.select_for_update(skip_locked=True)
                taken = bool(locked.values_list("pk", flat=True))
                if taken:
                    rows.filter(pk=self.pk).update(**lease, **values)
        if taken:
            self._holds(began, {**lease, **values})
        else:
            self.lease_token = before
        return taken

    def begin_lease(self) -> None:
        """Give a row that is about to be inserted its lease."""
        began = Fence.now()
        self._holds(began, {"lease_token": uuid.uuid4(), "lease_until": began[1] + self.LEASE})

    def leased_rows(self) -> models.QuerySet[Any]:
        """This row, as long as the lease is ours."""
        rows = type(self)._base_manager.using(using(type(self)))
        return rows.filter(pk=self.pk, lease_token=self.lease_token, lease_token__isnull=False)

    def renew_lease(self, *conditions: Q, **values: Any) -> bool:
        """Keep the lease for another while.

        Returns:
            Whether the conditions were met: else no ``values`` were written, and the lease is
            kept all the same.

        Raises:
            LostLeaseError: another process has taken over.
        """
        began = Fence.now()
        lease = {"lease_until": began[1] + self.LEASE}
        is_met = bool(self.leased_rows().filter(*conditions).update(**lease, **values))
        if not is_met and not (conditions and self.leased_rows().update(**lease)):
            self.fence.close()
            raise LostLeaseError
        self._holds(began, {**lease, **(values if is_met else {})})
        return is_met

    def release_lease(self, *conditions: Q, **values: Any) -> bool:
        """Give the lease back; False where it was lost, or a condition is not met."""
        free = {"lease_token": None, "lease_until": None}
        released = bool(self.leased_rows().filter(*conditions).update(**free, **values))
        if released:
            self.fence.close()
            # The object keeps its token: a release that is rolled back can be repeated.
            for name, value in {"lease_until": None, **values}.items():
                setattr(self, name, value)
        return released

    def _holds(self, began: tuple[float, datetime], values: dict[str, Any]) -> None:
        for name, value in values.items():
            setattr(self, name, value)
        self.fence.extend(began, self.LEASE)
