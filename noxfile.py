"""What CI runs, one session for each concern: ``nox -s tests``, and ``nox -l`` for all of them.

None needs root. What stands after ``--`` goes to pytest: ``nox -s tests -- tests/test_sync.py``.
"""

from __future__ import annotations

import os
import pathlib
import shutil

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["tests", "lint", "types", "docs"]
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = True

EXTRAS = nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"]
CELLS = [
    ("3.10", "5.2"),
    ("3.11", "5.2"),
    ("3.12", "5.2"),
    ("3.13", "5.2"),
    ("3.12", "6.0"),
    ("3.13", "6.0"),
    ("3.12", "6.1"),
    ("3.13", "6.1"),
]
"""Each supported Django on each Python that it supports."""
SAME_ON_EVERY_DATABASE = (
    *("checks", "client", "conf", "contract", "docs", "docs_examples", "engines", "files"),
    *("hostile", "hostile_doors", "pacing", "payloads", "permissions", "plugin", "project"),
    *("reasons", "retrying", "sandbox", "shape", "translations", "two_databases", "vault"),
    *("walk", "webhook_background", "webhook_processes", "words", "work"),
)
"""Test files that no database can change: they run in the other sessions."""
WITH_BOUNDS = ("api-schema", "postgresql", "mysql", "tasks", "testing", "xlsx")
"""The extras whose lower bounds are tried; ``dev`` is not what people install."""
NO_BROWSER = "--ignore=tests/e2e"
NO_ENGINES = "--ignore=tests/engines"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATH_OF_CHROMIUM = """
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    print(playwright.chromium.executable_path)
"""


def from_dev(*names: str) -> list[str]:
    """The requirements of these packages, as the extra ``dev`` states them."""
    return [one for one in EXTRAS["dev"] if one.partition(">")[0] in names]


def pytest(session: nox.Session, *arguments: str, **environment: str) -> None:
    session.run("python", "-m", "pytest", "-q", *arguments, *session.posargs, env=environment)


@nox.session
def tests(session: nox.Session) -> None:
    """The README's test command: what needs no server, on SQLite."""
    session.install("-r", "requirements.txt")
    pytest(session)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and formatting."""
    session.install(*from_dev("ruff"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy, strict."""
    session.install("-r", "requirements.txt", "-e", ".[dev,tasks]")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The site without a warning, links, examples, and the description for a package index."""
    # All that the examples import, so that no stand-in takes its place.
    session.install("-r", "requirements.txt", "-e", ".[docs,tasks]", *from_dev("build", "celery"))
    session.install("hatchling", "hatch-fancy-pypi-readme", "twine>=6")
    site, dist = session.create_tmp(), os.path.join(session.create_tmp(), "dist")
    session.run(
        *("python", "-m", "sphinx", "-q", "-W", "--keep-going", "-E", "-b", "html"),
        *("docs", os.path.join(site, "site")),
    )
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "build", "--no-isolation", "--outdir", dist, silent=True)
    archives = [os.path.join(dist, name) for name in os.listdir(dist)]
    session.run("twine", "check", "--strict", *archives)
    pytest(session, "tests/test_docs.py", "tests/test_docs_examples.py")


@nox.session
def e2e(session: nox.Session) -> None:
    """A real browser: the Chromium that is installed, else one that Playwright fetches."""
    session.install("-r", "requirements.txt", "-e", ".[dev,tasks]")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        session.run("playwright", "install", "chromium")
        browser = str(session.run("python", "-c", PATH_OF_CHROMIUM, silent=True)).strip()
    pytest(session, "tests/e2e", BLAND_SMS_CI="1", CHROMIUM=browser)


@nox.session
@nox.parametrize("server", ["postgresql", "mariadb"], ids=["postgresql", "mariadb"])
def databases(session: nox.Session, server: str) -> None:
    """The tests on PostgreSQL and MariaDB: given by URL, else started for the session."""
    extra = {"postgresql": "postgresql", "mariadb": "mysql"}[server]
    session.install("-r", "requirements.txt", "-e", f".[dev,tasks,{extra}]")
    command = ["python", "-m", "pytest", "-q", NO_BROWSER]
    command += [f"--ignore=tests/test_{name}.py" for name in SAME_ON_EVERY_DATABASE]
    command.append(NO_ENGINES)
    url = os.environ.get(f"{server.upper()}_URL")
    if url:
        session.run(*command, *session.posargs, env={"DATABASE_URL": url})
    else:
        session.run("python", ".ci/with_server", server, *command, *session.posargs)


@nox.session
def engines(session: nox.Session) -> None:
    """Real workers of each task queue, with their time limits and SIGKILL."""
    session.install("-r", "requirements.txt", "-e", ".[dev,tasks,postgresql]")
    pytest(session, "tests/engines")


@nox.session
@nox.parametrize("python,django", CELLS, ids=["-".join(cell) for cell in CELLS])
def cell(session: nox.Session, django: str) -> None:
    """One Django on one Python: all that is quick; on the oldest with exactly the lower bounds."""
    extras = "dev,tasks,postgresql,mysql,xlsx"  # the drivers for the servers that tests restart
    bounds = [f"django~={django}.0"]
    if (session.python, django) == CELLS[0]:
        constraints = os.path.join(session.virtualenv.location, "lowest.txt")
        told = session.run("python", ".ci/lowest", *WITH_BOUNDS, silent=True)
        pathlib.Path(constraints).write_text(str(told))
        bounds = ["-c", constraints]
    session.install("-r", "requirements.txt", "-e", f".[{extras}]", *bounds)
    pytest(session, NO_BROWSER, NO_ENGINES, "-m", "not slow")
