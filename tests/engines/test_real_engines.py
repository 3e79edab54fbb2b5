"""Each task engine carries an update out through its time limit and a SIGKILL in the middle."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pytest
from django.db import connection

from bland_sms.models import BulkUpdate
from bland_sms.sandbox import BlandSandbox

from ..conftest import wait_until
from .processes import Programs

pytestmark = pytest.mark.django_db(transaction=True)
ROWS = 200
CONCURRENCY = 2
"""As tests/engine_settings.py says."""
REDIS, RABBITMQ = 6379, 5672
QUEUES = "redis://127.0.0.1:6379/14"


@dataclass(frozen=True)
class Engine:
    """One row of the table in docs/background.md."""

    name: str
    needs: tuple[str, ...]
    worker: list[str]
    """What ``python`` is called with."""
    limit: str = ""
    """The exception that its time limit raises in the task; ``""``: it has none."""
    port: int | None = None
    is_healed_by_itself: bool = False
    """Somebody goes on after a SIGKILL without ``bland_sms_work``."""
    prepare: list[str] = field(default_factory=list)
    """Arguments of a command of ``manage.py`` to run first."""
    tidy: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def app(self) -> str:
        return self.name.partition("-")[0]


QUEUE = f"bland_sms_test_{os.getpid()}"
CELERY = ["-m", "celery", "-A", "tests.engines.celery_app", "worker", "-P", "prefork", "-c", "1"]
CELERY += ["--without-gossip", "--without-mingle", "--without-heartbeat", "-Q", QUEUE]
RQ_WORKER = "import tests.engines.rq_app, rq.cli; rq.cli.main()"
SOFT = "SoftTimeLimitExceeded"
ENGINES = [
    Engine(
        name="celery-redis",
        needs=("celery", "redis"),
        port=REDIS,
        worker=CELERY,
        limit=SOFT,
        environment={"BLAND_SMS_TEST_BROKER": QUEUES},
    ),
    Engine(
        name="celery-rabbitmq",
        needs=("celery",),
        port=RABBITMQ,
        worker=CELERY,
        limit=SOFT,
        is_healed_by_itself=True,
        environment={"BLAND_SMS_TEST_BROKER": "amqp://guest:guest@127.0.0.1:5672//"},
    ),
    Engine(
        name="rq",
        needs=("rq",),
        port=REDIS,
        worker=["-c", RQ_WORKER, "worker", "-u", QUEUES, QUEUE],
        limit="JobTimeoutException",
    ),
    Engine(
        name="dramatiq",
        needs=("dramatiq", "redis"),
        port=REDIS,
        worker=["-m", "dramatiq", "tests.engines.dramatiq_app", "-p", "1", "-t", "1"],
        limit="TimeLimitExceeded",
    ),
    Engine(
        name="huey",
        needs=("huey", "redis"),
        port=REDIS,
        worker=["-m", "huey.bin.huey_consumer", "tests.engines.huey_app.huey"],
    ),
    Engine(
        name="procrastinate",
        needs=("procrastinate", "psycopg"),
        worker=["manage.py", "procrastinate", "worker"],
        prepare=["migrate", "procrastinate", "--database", "queue"],
    ),
    Engine(
        name="django_q2",
        needs=("django_q",),
        worker=["manage.py", "qcluster"],
        limit="TimeoutException",
        is_healed_by_itself=True,
        prepare=["migrate", "django_q"],
        tidy=["migrate", "django_q", "zero"],
    ),
    Engine(
        name="django_tasks_db",
        needs=("django_tasks_db",),
        worker=["manage.py", "db_worker", "--interval", "0.1", "--no-startup-delay"],
        environment={"BLAND_SMS_TEST_TASKS": "django_tasks_db.DatabaseBackend"},
    ),
]


def need(engine: Engine) -> None:
    """Skip where something is missing that only a bigger set-up has; fail there in CI."""
    missing = [name for name in engine.needs if find_spec(name) is None]
    if engine.port is not None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", engine.port)):
                missing.append(f"a server on port {engine.port}")
    if engine.name == "procrastinate" and not missing and not has_postgresql():
        missing.append("PostgreSQL")
    if missing:
        (pytest.fail if os.environ.get("BLAND_SMS_CI") else pytest.skip)(
            f"needs {', '.join(missing)}"
        )


def has_postgresql() -> bool:
    try:
        in_postgresql("SELECT 1")
    except Exception:  # noqa: BLE001
        return False
    return True


def in_postgresql(statement: str) -> None:
    import psycopg

    with psycopg.connect("postgresql:///postgres", autocommit=True) as postgresql:
        postgresql.execute(statement)


@pytest.fixture(params=ENGINES, ids=lambda engine: engine.name)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    chosen: Engine = request.param
    need(chosen)
    if chosen.name == "procrastinate":
        in_postgresql(f"DROP DATABASE IF EXISTS {QUEUE}")
        in_postgresql(f"CREATE DATABASE {QUEUE}")
    yield chosen
    if chosen.name == "procrastinate":
        in_postgresql(f"DROP DATABASE {QUEUE} WITH (FORCE)")
    if chosen.port == REDIS:
        from redis import Redis

        queues = Redis(db=14)
        for key in queues.scan_iter(match=f"*{QUEUE}*"):
            queues.delete(key)


@pytest.fixture
def programs(engine: Engine, sandbox: BlandSandbox, tmp_path: Path) -> Iterator[Programs]:
    started = Programs(
        {
            "DJANGO_SETTINGS_MODULE": "tests.engines.settings",
            "BLAND_SMS_TEST_DATABASE": str(connection.settings_dict["NAME"]),
            "BLAND_SMS_TEST_URL": sandbox.base_url,
            "BLAND_SMS_TEST_ENGINE": engine.app,
            "BLAND_SMS_TEST_QUEUE": QUEUE,
            "BLAND_SMS_TEST_QUEUE_DATABASE": QUEUE,
            "BLAND_SMS_TEST_NOTES": str(tmp_path / "notes"),
            **engine.environment,
        },
        tmp_path / "log",
    )
    (tmp_path / "notes").touch()
    if engine.prepare:
        started.run("manage.py", *engine.prepare)
    yield started
    started.end()
    if engine.tidy:
        started.run("manage.py", *engine.tidy)


def test_engine__limit_and_sigkill(
    engine: Engine,
    programs: Programs,
    sandbox: BlandSandbox,
    copied: Callable[..., list[str]],
    started: Callable[..., BulkUpdate],
    tmp_path: Path,
) -> None:
    sandbox.latency_seconds = 0.1
    bulk_update = started(copied(ROWS))
    programs.run("-m", "tests.engines.hand_over", str(bulk_update.pk))
    worker = programs.start(*engine.worker)
    notes = tmp_path / "notes"

    def asked() -> int:
        return len(sandbox.requests("PATCH"))

    if engine.limit:
        # The task dies of its time limit, and the engine's next task goes on.
        wait_until(lambda: engine.limit in notes.read_text(), 90)
        wait_until(lambda: notes.read_text().count("begun") >= 2, 90)
    before = asked()
    assert before < ROWS * 0.8
    wait_until(lambda: asked() >= before + 20, 90)
    programs.kill(worker)
    killed_at = time.monotonic()
    done = set(bulk_update.items.filter(state="changed").values_list("conversation_id", flat=True))
    seen = {pk: len(sandbox.requests("", pk)) for pk in done}
    left = bulk_update.items.exclude(state="changed").count()
    assert left

    programs.start(*engine.worker)
    if not engine.is_healed_by_itself:
        programs.start("manage.py", "bland_sms_work")

    wait_until(lambda: bulk_update.items.exclude(state="changed").count() < left - CONCURRENCY, 90)
    assert time.monotonic() - killed_at < 60
    wait_until(lambda: BulkUpdate.objects.filter(pk=bulk_update.pk, status="finished").exists(), 90)
    assert bulk_update.counts()["changed"] == ROWS
    assert not any(row["is_active"] for row in sandbox.account.rows.values())
    assert {pk: len(sandbox.requests("", pk)) for pk in done} == seen
    # What was in flight at the SIGKILL is looked at, and asked for again where need be.
    assert asked() <= ROWS + CONCURRENCY
