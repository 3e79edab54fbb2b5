"""Procrastinate, with its queue in a PostgreSQL database."""

from __future__ import annotations

from procrastinate.contrib.django import app

from .task import carry_out as _carry_out


@app.task(name="carry_out")
def carry_out(kind: str, pk: int) -> None:
    _carry_out(kind, pk)


def dispatch(kind: str, pk: int) -> None:
    carry_out.defer(kind=kind, pk=pk)
