"""How Sphinx makes a site of these pages: ``python -m sphinx -W -b html docs build/docs``.

The pages are plain Markdown, so that they also read well on the repository's web page. What Sphinx
needs beyond that is added here while it reads them.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import bland_sms

project = "bland_sms"
release = version = bland_sms.__version__
extensions = ["myst_parser"]
myst_heading_anchors = 4
html_theme = "furo"
html_show_copyright = False
smartquotes = False
html_title = f"bland_sms {release}"
nitpicky = True


def setup(app: Any) -> None:
    """Sphinx asks for what it should call."""
    app.connect("source-read", read_plain_markdown)


def read_plain_markdown(app: Any, page: str, source: list[str]) -> None:
    """Links to files beside docs become downloads, the lists of the index a table of contents."""
    source[0] = re.sub(r"\]\((\.\./[^)#]+)[^)]*\)", r"](path:\1)", source[0])
    if page == "index":
        source[0] += "".join(map(toctree, source[0].split("\n## ")[1:]))


def toctree(section: str) -> str:
    """The pages that a section of the index lists."""
    caption = section.partition("\n")[0]
    pages = "\n".join(re.findall(r"^- \[[^]]*\]\((\w+)\.md\)", section, re.M))
    return f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{pages}\n```\n"
