"""Writes the table of docs/settings.md from the code: ``python docs/settings_table.py``."""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE / "settings.md"
BEGIN, END = "<!-- made by settings_table.py -->\n", "<!-- end -->\n"

sys.path.insert(0, str(HERE.parent))

from django.conf import settings  # noqa: E402

from bland_sms import conf  # noqa: E402


def table() -> str:
    """A row for each field of ``BlandSettings``: default, kind, and the text below the field."""
    told = words()
    rows = ["| name | default | type | meaning |", "| --- | --- | --- | --- |"]
    for name in told:
        kind, _convert = conf._KINDS[name]
        rows.append(f"| `{name.upper()}` | `{default(name)}` | {kind} | {told[name]} |")
    return "".join(f"{row}\n" for row in rows)


def words() -> dict[str, str]:
    """The text below each field, in the order of the fields."""
    [cls] = ast.parse(inspect.getsource(conf.BlandSettings)).body
    assert isinstance(cls, ast.ClassDef)
    told = {}
    for line, following in zip(cls.body, [*cls.body[1:], None], strict=True):
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            assert isinstance(following, ast.Expr), f"{line.target.id}: no text below it"
            assert isinstance(following.value, ast.Constant)
            text = " ".join(str(following.value.value).split())
            told[line.target.id] = text.replace("``", "`").replace("|", "\\|")
    return told


def default(name: str) -> str:
    """As one would write it in ``BLAND_SMS``."""
    value = getattr(conf.BlandSettings(), name)
    if isinstance(value, conf.Secret):
        return '""'
    if isinstance(value, tuple):
        return "[]"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def page(text: str) -> str:
    """The page with the table as the code has it now."""
    before, _begin, rest = text.partition(BEGIN)
    _old, _end, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    settings.configure(USE_I18N=False)
    PAGE.write_text(page(PAGE.read_text()))
