"""Columns that every database must understand in the same way."""

from __future__ import annotations

from typing import Any

from django.db import models, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.fields.related_descriptors import ForwardManyToOneDescriptor


class BytewiseCharField(models.CharField):  # type: ignore[type-arg]
    """Text that every database compares and sorts byte by byte.

    Collations differ: MariaDB and MySQL compare without regard to case, and on ICU, on glibc and
    on MySQL 8 ``:`` sorts before the digits, so that a range over text finds other rows there. A
    ``db_collation`` of one database is an error on another. A foreign key takes it over.
    """

    _collations = {"postgresql": "C", "mysql": "utf8mb4_bin"}

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        """Django gives each unique ``varchar`` a second index for LIKE, of which PostgreSQL has no
        use where text is compared byte by byte. It is not looked for under the type's long name.
        """
        name = super().db_type(connection)
        if connection.vendor != "postgresql" or name is None:
            return name
        return name.replace("varchar", "character varying")

    def db_parameters(self, connection: BaseDatabaseWrapper) -> dict[str, Any]:
        parameters = super().db_parameters(connection)
        if connection.vendor in self._collations:
            parameters["collation"] = self._collations[connection.vendor]
        return parameters


class BlandIdField(BytewiseCharField):
    """Bland's id of a conversation: text in which ``a`` and ``A`` differ on every database."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("max_length", 128)
        super().__init__(*args, **kwargs)


class _UserOfAnyDatabase(ForwardManyToOneDescriptor):  # type: ignore[type-arg]
    """Looks for a user where the host's routers keep users, not where the row is."""

    def get_queryset(self, **hints: Any) -> models.QuerySet[Any]:
        users = self.field.remote_field.model
        return users._base_manager.using(router.db_for_read(users))  # type: ignore[no-any-return]

    def __set__(self, instance: Any, value: Any) -> None:
        # Django's own refuses a user of another database.
        setattr(instance, self.field.attname, None if value is None else value.pk)
        self.field.set_cached_value(instance, value)


class UserKey(models.ForeignKey):  # type: ignore[type-arg]
    """A foreign key to a user who may live in another database: no constraint, no join.

    Read many with ``prefetch_related``. ``users.py`` empties it when a user is deleted.
    """

    forward_related_accessor_class = _UserOfAnyDatabase

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.update(on_delete=models.DO_NOTHING, db_constraint=False)
        super().__init__(*args, **kwargs)


class Group:
    """Several members of an enumeration under one name: ``OPEN = Group("QUEUED", "RUNNING")``."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def __get__(self, instance: object, owner: Any) -> tuple[str, ...]:
        return tuple(owner[name] for name in self._names)
