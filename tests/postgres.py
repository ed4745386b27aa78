"""A PostgreSQL server for a test: on loopback, by an unprivileged user, in a folder of its own, ended with the test.

It needs Debian's package (`apt-get install postgresql`) or any other that has `initdb` and `postgres`.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_UNPRIVILEGED = ("postgres", "nobody", "daemon")  # PostgreSQL refuses to be run by root
_START = 60  # seconds


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Args:
        url: of its database, for SQLAlchemy and MLflow.
        pid: of its first process.
        binaries: the folder with `psql`.
        port: on 127.0.0.1.
    """

    url: str
    pid: int
    binaries: Path
    port: int

    def database(self, name: str) -> str:
        """Makes another, empty database, and gives its URL."""
        command = [str(self.binaries / "createdb"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "molgraft", name]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        return self.url.rpartition("/")[0] + f"/{name}"


def binaries() -> Path | None:
    """The folder of the newest `initdb`, or None."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: float(p.parts[-3]), reverse=True)
    found = next((path.parent for path in debian), None)
    on_path = shutil.which("initdb")
    return found or (Path(on_path).parent if on_path else None)


def missing() -> str | None:
    """Why there can be no server, or None."""
    if binaries() is None:
        return "no PostgreSQL: neither /usr/lib/postgresql/*/bin/initdb nor `initdb` on the path"
    try:
        import psycopg2  # noqa: F401 - whether it is there
    except ImportError:
        return "no psycopg2: pip install 'molgraft[postgres]'"
    if os.geteuid() == 0 and _account() is None:
        return f"PostgreSQL is not to be run by root, and there is no account {' or '.join(_UNPRIVILEGED)}"
    return None


def needed() -> None:
    """Skips a test where there can be no server; where CI is set, which installs it, the test fails."""
    reason = missing()
    if reason is not None:
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


@contextmanager
def running() -> Iterator[Server]:
    """A server with an empty database `molgraft` and a user of the same name, whom it trusts."""
    where, account = binaries(), _account()
    assert where is not None
    # Not below pytest's folders, which only their owner may enter.
    folder = Path(tempfile.mkdtemp(prefix="molgraft-postgres-"))
    folder.chmod(0o755)
    (folder / "socket").mkdir()
    try:
        if account is not None:
            for path in (folder, folder / "socket"):
                os.chown(path, account.pw_uid, account.pw_gid)
        data, port = folder / "data", _free_port()
        _run(
            [where / "initdb", "-D", data, "-U", "molgraft", "-A", "trust", "-E", "UTF8", "--no-sync"], account, folder
        )
        with (folder / "log.txt").open("wb") as log:
            options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": folder / "socket", "fsync": "off"}
            settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
            process = subprocess.Popen(
                [str(where / "postgres"), "-D", str(data), "-p", str(port), *settings],
                stdout=log,
                stderr=log,
                cwd=folder,
                env=_environment(folder),
                user=account.pw_uid if account else None,
                group=account.pw_gid if account else None,
                extra_groups=[] if account else None,
            )
        try:
            _await(where, port, process, folder)
            server = Server(f"postgresql://molgraft@127.0.0.1:{port}/postgres", process.pid, where, port)
            yield Server(server.database("molgraft"), process.pid, where, port)
        finally:
            process.send_signal(signal.SIGINT)  # "fast": open connections are closed
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGQUIT)
                process.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _account() -> pwd.struct_passwd | None:
    """An account that PostgreSQL may run by, where this process is root; else None, for its own."""
    if os.geteuid() != 0:
        return None
    for name in _UNPRIVILEGED:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "HOME": str(folder), "LC_ALL": "C"}


def _run(command: list[object], account: pwd.struct_passwd | None, folder: Path) -> None:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=_environment(folder),
        user=account.pw_uid if account else None,
        group=account.pw_gid if account else None,
        extra_groups=[] if account else None,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def _await(where: Path, port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline:
        ready = subprocess.run([str(where / "pg_isready"), "-h", "127.0.0.1", "-p", str(port)], capture_output=True)
        if ready.returncode == 0:
            return
        assert process.poll() is None, (folder / "log.txt").read_text()
        time.sleep(0.1)
    raise AssertionError((folder / "log.txt").read_text())
