"""Every Python block of the README and of docs/ runs in a project that is not this one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^( *)```python\n(.*?)^ *```$", re.M | re.S)
PLACE = re.compile(r"# (settings\.py|urls\.py|manage\.py shell|(?:host|shop)/\w+\.py)(,.*)?\n")
STAND_INS = {
    "celery": "def shared_task(function):\n    function.delay = function\n    return function\n",
    "unfold": "",
}
"""What the examples import from packages of others, for where those are not installed."""


def examples() -> list[dict[str, str]]:
    """Each block: its page and line, the file that its first line names, and its code."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for block in BLOCK.finditer(text):
            code = textwrap.dedent(block[2])
            line = text.count("\n", 0, block.start()) + 1
            place = PLACE.match(code)
            name = f"{page.relative_to(ROOT)}:{line}"
            found.append({"name": name, "place": place[1] if place else "", "code": code})
    return found


EXAMPLES = examples()


def write_project(folder: Path) -> None:
    """What ``startproject`` and ``startapp`` make, the README's lines, and the examples' files."""
    for command in (("startproject", "host", "."), ("startapp", "shop")):
        subprocess.run([sys.executable, "-m", "django", *command], cwd=folder, check=True)
    readme = (ROOT / "README.md").read_text()
    for name in ("settings", "urls"):
        block = re.search(rf"<!-- host {name} -->\n```python\n(.*?)```", readme, re.S)
        assert block is not None
        with (folder / "host" / f"{name}.py").open("a") as source:
            source.write(f"\n{block[1]}")
    with (folder / "host/settings.py").open("a") as source:
        source.write('INSTALLED_APPS += ["shop"]\n')
    for example in EXAMPLES:
        if "/" in example["place"]:
            (folder / example["place"]).write_text(example["code"])
    for package, source_text in STAND_INS.items():
        if not find_spec(package):
            (folder / package).mkdir()
            (folder / package / "__init__.py").write_text(source_text)
    if not find_spec("unfold"):
        text = "from django.contrib.admin import ModelAdmin  # noqa: F401\n"
        (folder / "unfold/admin.py").write_text(text)


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated project with an app ``shop``, in which the examples were executed."""
    folder = tmp_path_factory.mktemp("stranger")
    write_project(folder)
    shutil.copy(ROOT / "tests" / "stranger.py", folder / "run_examples.py")
    run_there = [one for one in EXAMPLES if not is_test(one)]
    (folder / "examples.json").write_text(json.dumps(run_there))
    ran = run(folder, "run_examples.py")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Start Python in the project, without this project's settings."""
    known = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DJANGO_", "BLAND_", "DATABASE_", "PYTEST_"))
    }
    paths = f"{folder}{os.pathsep}{ROOT}"
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**known, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def is_test(example: dict[str, str]) -> bool:
    return example["place"].startswith("shop/test_")


def test_examples__are_found() -> None:
    assert len(EXAMPLES) == sum(page.read_text().count("```python") for page in PAGES)
    assert len(EXAMPLES) > 20


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["name"])
def test_examples__say_where_they_belong(example: dict[str, str]) -> None:
    assert example["place"], "begin the block with a comment: # settings.py, # shop/models.py, ..."


def test_examples__no_file_is_written_twice() -> None:
    places = [example["place"] for example in EXAMPLES if "/" in example["place"]]
    assert len(places) == len(set(places))


@pytest.mark.parametrize(
    "name", [example["name"] for example in EXAMPLES if not is_test(example)], ids=str
)
def test_examples__run(name: str, project: Path) -> None:
    outcomes = json.loads((project / "outcomes.json").read_text())
    assert outcomes[name] == ""


def test_examples__tests_of_testing_pass(project: Path) -> None:
    wanted = [project / example["place"] for example in EXAMPLES if is_test(example)]
    (project / "conftest.py").write_text(
        "from bland_sms.pytest_plugin import bland_sandbox, fake_bland  # noqa: F401\n"
    )
    (project / "pytest.ini").write_text(
        "[pytest]\nDJANGO_SETTINGS_MODULE = host.settings\nfilterwarnings =\n    error\n"
    )
    ran = run(project, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, wanted))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for example in EXAMPLES:
        if is_test(example):
            assert re.search(r"def test_\w+\(", example["code"]), example["name"]
