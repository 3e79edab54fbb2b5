"""The documentation tells all that is public, its links lead somewhere, its examples are Python."""

from __future__ import annotations

import argparse
import importlib.util
import re
import textwrap
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pytest
from django.apps import apps
from django.contrib.admin import site
from django.core.management import get_commands, load_command_class
from django.dispatch import Signal
from django.urls import URLPattern, URLResolver

from bland_sms import checks, exceptions, models, signals, urls
from bland_sms.conf import SETTING_NAMES
from bland_sms.health import Health

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md"))]
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.M | re.S)
DJANGOS_OPTIONS = {
    "--help",
    "--version",
    "--verbosity",
    "--settings",
    "--pythonpath",
    "--traceback",
    "--no-color",
    "--force-color",
    "--skip-checks",
}


def read(name: str) -> str:
    return (DOCS / name).read_text()


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


# --- links ------------------------------------------------------------------------------------


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return BLOCK.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """What may stand behind ``#``: the headings, as the repository's web page names them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_docs__links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?://", link):
            continue
        path, _hash, anchor = unquote(link).partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_readme__stands_alone() -> None:
    """It is the long description on a package index, where links to our files lead nowhere.

    The screenshot is for readers of the repository: pyproject.toml takes it out.
    """
    text = prose(ROOT / "README.md")
    pattern = re.search(r"pattern = '(.+)', replacement", (ROOT / "pyproject.toml").read_text())
    assert pattern is not None
    text, pictures = re.subn(pattern[1], "", text)
    assert pictures == 1
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert [link for link in links if not re.match(r"https://|#", link)] == []
    assert not re.search(r"^\[[^]]+\]: |<(a|img)\b", text, re.M | re.I)
    for path in re.findall(r"`((?:docs/)?[\w.]+\.md)`", text):
        assert (ROOT / path).exists(), path


def test_readme__names_every_page() -> None:
    named = set(re.findall(r"`docs/(\w+\.md)`", (ROOT / "README.md").read_text()))
    assert named == {page.name for page in DOCS.glob("*.md")} - {"index.md"}


def test_docs__install_from_what_exists() -> None:
    """The app is on no package index: no page tells to install it from there."""
    for page in PAGES:
        for line in page.read_text().splitlines():
            assert not re.search(r"pip install (-\S+ )*[\"']?bland[-_]sms(?!.* @ file)", line), line


def test_docs__every_page_is_in_the_index_once() -> None:
    listed = re.findall(r"^- \[[^]]*\]\((\w+\.md)\)", read("index.md"), re.M)
    assert sorted([*listed, "index.md"]) == sorted(page.name for page in DOCS.glob("*.md"))


def test_docs__pages_named_in_the_code_exist() -> None:
    named = {
        name
        for source in (ROOT / "bland_sms").rglob("*.py")
        for name in re.findall(r"docs/(\w+\.md)", source.read_text())
    }
    assert {name for name in named if not (DOCS / name).exists()} == set()


def test_docs__pictures_are_used_and_small() -> None:
    used = {link for page in PAGES for link in re.findall(r"images/(\w+\.png)", page.read_text())}
    pictures = list((DOCS / "images").iterdir())
    assert {picture.name for picture in pictures} == used
    assert max(picture.stat().st_size for picture in pictures) < 150_000


# --- examples ---------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_docs__python_compiles(page: Path) -> None:
    for _indent, language, code in BLOCK.findall(page.read_text()):
        assert language, "a block without a language"
        if language == "python":
            compile(textwrap.dedent(code), name_of(page), "exec", dont_inherit=True)


# --- what is public ---------------------------------------------------------------------------


def settings_table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("settings_table", DOCS / "settings_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_docs__table_of_settings_is_that_of_the_code() -> None:
    table = settings_table()
    text = read("settings.md")
    assert table.page(text) == text, "run python docs/settings_table.py"
    assert set(re.findall(r"^\| `(\w+)` \|", table.table(), re.M)) == SETTING_NAMES


def test_docs__every_check() -> None:
    source = "".join(path.read_text() for path in Path(checks.__file__).parent.glob("*.py"))
    ids = set(re.findall(r'id="(bland_sms\.\w+)"', source))
    assert ids
    assert set(re.findall(r"^\| `(bland_sms\.\w+)` \|", read("checks.md"), re.M)) == ids


def test_docs__every_signal_with_its_arguments() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| `\w+` \| (.*) \|$", read("signals.md"), re.M))
    names = {name for name, value in vars(signals).items() if isinstance(value, Signal)}
    assert set(rows) == names
    told = Path(signals.__file__).read_text()
    for name, row in rows.items():
        [words] = re.findall(rf'^{name} = Signal\(\)\n"""(.*?)"""', told, re.M | re.S)
        arguments = re.findall(r"``(\w+)``", words.partition("Arguments:")[2])
        assert set(arguments) <= set(re.findall(r"`(\w+)`", row))


def test_docs__every_permission() -> None:
    codenames = {
        codename
        for model in apps.get_app_config("bland_sms").get_models()
        for codename in [
            *(f"{verb}_{model._meta.model_name}" for verb in model._meta.default_permissions),
            *(codename for codename, _words in model._meta.permissions),
        ]
    }
    section = read("reference.md").partition("## Permissions")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.M)) == codenames


OUR_COMMANDS = sorted(
    (name, app) for name, app in get_commands().items() if app in ("bland_sms", "project")
)


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """The options and arguments of a command and of its verbs."""
    found = set()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb, child in action.choices.items():
                found |= {verb, *options_of(child)}
        elif action.option_strings:
            found |= {option for option in action.option_strings if option.startswith("--")}
        else:
            found.add(str(action.metavar))
    return found - DJANGOS_OPTIONS


@pytest.mark.parametrize(("name", "app"), OUR_COMMANDS)
def test_docs__every_command_with_its_options(name: str, app: str) -> None:
    page = read("checks.md" if name == "bland_sms_check" else "commands.md")
    section = page.partition(f"## `{name}`\n")[2].partition("\n## ")[0]
    assert section
    wanted = options_of(load_command_class(app, name).create_parser("manage.py", name))
    told = re.findall(r"--?[a-z-]+|\b[A-Z]{2,}\b|\b[a-z]+\b", section)
    assert wanted - set(told) == set()


def test_docs__every_command_is_listed() -> None:
    listed = re.findall(r"^\| \[`(\w+)`\]", read("commands.md"), re.M)
    assert sorted(listed) == [name for name, _app in OUR_COMMANDS]


def paths_of(patterns: list[URLPattern | URLResolver], prefix: str = "") -> set[str]:
    """The addresses below ours, without what is captured in them."""
    found = set()
    for one in patterns:
        path = prefix + str(one.pattern)
        if isinstance(one, URLResolver):
            found |= paths_of(one.url_patterns, path)
        else:
            found.add(re.sub(r"\(\?P<(\w+)>[^)]*\)", r"{\1}", path).replace("^", "").strip("$"))
    return found


def test_docs__every_address() -> None:
    addresses = paths_of(urls.urlpatterns)
    reference, api = read("reference.md"), read("api.md")
    assert {"webhook/", "health/"} <= addresses
    for address in addresses:
        if address.startswith("api/v1/"):
            # The last part is enough: how the page names an id is its own.
            parts = [part for part in address.split("/")[2:] if part and "{" not in part]
            assert all(part in api for part in parts), address
        else:
            assert f"/bland-sms/{address}`" in reference


def test_docs__every_address_of_the_admin() -> None:
    own = {
        pattern.name
        for model in (
            models.Conversation,
            models.BulkUpdate,
            models.StandingOrder,
            models.WebhookDelivery,
        )
        for pattern in site.get_model_admin(model).get_urls()
        if isinstance(pattern, URLPattern) and pattern.name
    }
    stock = re.compile(r"_(changelist|add|history|delete|change)$")
    wanted = {name for name in own if not stock.search(name)}
    assert wanted
    assert set(re.findall(r"`(bland_sms_\w+_\w+)` \|", read("reference.md"))) == wanted


def test_docs__every_exception() -> None:
    names = {
        name
        for name, value in vars(exceptions).items()
        if isinstance(value, type) and issubclass(value, exceptions.BlandError)
    }
    section = read("reference.md").partition("## Exceptions")[2].partition("\n## ")[0]
    assert names - set(re.findall(r"`(\w+)`", section)) == set()


def test_docs__every_logger() -> None:
    sources = [path.read_text() for path in (ROOT / "bland_sms").rglob("*.py")]
    names = {name for text in sources for name in re.findall(r'getLogger\("(\S+)"\)', text)}
    section = read("reference.md").partition("## Loggers")[2]
    assert names - set(re.findall(r"`([\w.]+)`", section)) == set()


def test_docs__every_model_and_state() -> None:
    section = read("reference.md").partition("## Models")[2].partition("\n## ")[0]
    told = set(re.findall(r"`(\w+)`", section))
    assert {model.__name__ for model in apps.get_app_config("bland_sms").get_models()} <= told
    assert {*models.BulkUpdateItem.State.values, *models.BulkUpdate.Status.values} <= told
    assert set(models.WebhookDelivery.State.values) <= set(
        re.findall(r"^\| `(\w+)` \|", read("webhooks.md"), re.M)
    )


def test_docs__every_word_of_health() -> None:
    section = read("operations.md").partition("## Is it well?")[2].partition("\n## ")[0]
    for status in re.findall(r"^\| `(\w+)` \|", section, re.M):
        assert Health(status=status).words  # KeyError: no such status
    assert section.count("\n| `") == 8


def test_docs__every_room() -> None:
    told = re.findall(r"`([\w.]+/?)`", read("design.md").partition("\n## ")[0])
    for path in (ROOT / "bland_sms").iterdir():
        is_package = (path / "__init__.py").exists()
        if path.name in ("migrations", "__init__.py") or not (is_package or path.suffix == ".py"):
            continue
        assert path.name + ("/" if is_package else "") in told
