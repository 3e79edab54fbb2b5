"""Database servers of a test's own, in a temporary folder, which it may stop and start."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PostgreSQL:
    """A server with one database, which ends by a crash (``immediate``), for a restart by hand
    (``fast``), or which is only ``read-only`` until it is started again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self._is_read_only = False
        folder.mkdir()
        if os.getuid() == 0:
            for above in [*folder.parents][:3]:
                above.chmod(above.stat().st_mode | 0o011)
            shutil.chown(folder, "postgres", "postgres")
        self._run("initdb", "-D", str(folder / "data"), "-A", "trust", "-U", "postgres")

    @staticmethod
    def bin() -> Path | None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        return found[-1].parent if found else None

    def _run(self, program: str, *arguments: str) -> None:
        folder = self.bin()
        assert folder is not None
        command = [str(folder / program), *arguments]
        if os.getuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        subprocess.run(
            command,
            check=True,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=120,
        )

    def _set_read_only(self, value: str) -> None:
        """For all sessions, also those that are open: as a server that became a standby."""
        import psycopg

        options = "-c default_transaction_read_only=off"
        with psycopg.connect(self.url, options=options, autocommit=True) as connection:
            connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
            connection.execute("SELECT pg_reload_conf()")

    def start(self) -> None:
        if self._is_read_only:
            self._set_read_only("off")
            self._is_read_only = False
            return
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        data, log = str(self.folder / "data"), str(self.folder / "log")
        self._run("pg_ctl", "-D", data, "-l", log, "-o", options, "-w", "start")

    def stop(self, mode: str = "immediate") -> None:
        if mode == "read-only":
            self._set_read_only("on")
            self._is_read_only = True
            return
        data = self.folder / "data"
        try:
            self._run("pg_ctl", "-D", str(data), "-m", mode, "-w", "stop")
        except subprocess.CalledProcessError:
            # It says so as well when the server ends between its looks at the file and the process.
            pid = data / "postmaster.pid"
            if pid.exists() and Path(f"/proc/{pid.read_text().split()[0]}").exists():
                raise


class MariaDB:
    """A server with one database."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"mysql://root@127.0.0.1:{self.port}/host"
        self._server: subprocess.Popen[bytes] | None = None
        folder.mkdir()
        subprocess.run(
            [
                "mariadb-install-db",
                "--no-defaults",
                f"--datadir={folder / 'data'}",
                "--auth-root-authentication-method=normal",
                f"--user={getpass.getuser()}",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=120,
        )
        self.start()
        self._ask("CREATE DATABASE host CHARACTER SET utf8mb4")
        self.stop()

    def start(self) -> None:
        program = shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program is not None
        self._server = subprocess.Popen(
            [
                program,
                "--no-defaults",
                f"--datadir={self.folder / 'data'}",
                f"--socket={self.folder / 'socket'}",
                f"--pid-file={self.folder / 'pid'}",
                f"--port={self.port}",
                "--bind-address=127.0.0.1",
                f"--user={getpass.getuser()}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        give_up_at = time.monotonic() + 60
        while not self._answers():
            assert time.monotonic() < give_up_at
            time.sleep(0.1)

    def stop(self, mode: str = "immediate") -> None:
        if self._server is not None:
            (self._server.kill if mode == "immediate" else self._server.terminate)()
            self._server.wait(60)
            self._server = None

    def _ask(self, statement: str) -> None:
        import MySQLdb

        connection = MySQLdb.connect(host="127.0.0.1", port=self.port, user="root")
        connection.cursor().execute(statement)
        connection.close()

    def _answers(self) -> bool:
        try:
            self._ask("SELECT 1")
        except Exception:  # noqa: BLE001  it is not there yet
            return False
        return True
