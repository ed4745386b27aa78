"""Addresses of MLflow stores: which may be given, how long one is waited for, and how to be alone in one."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock

from bench.errors import UserError
from bench.provenance import without_password
from bench.runtime import Runtime

_CONNECT = 5  # seconds to reach a server
_ANSWER = 15  # seconds for a statement of a database
_ALONE = 60  # seconds until another process has made a store's tables, which takes a slow disk ten
_ADVISORY_KEY = 0x6D6F6C67726166  # "molgraf"; any number that other programs hardly take
_HTTP = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds, where MLflow would wait for 120
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # where MLflow would try 7 times
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # where programs read what we print
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where MLflow keeps what is mirrored.

    Args:
        uri: as it was given: sqlite, PostgreSQL, or a tracking server.
        runs: the folder of the runs that are mirrored there.
    """

    uri: str
    runs: Path

    @property
    def kind(self) -> str:
        """`sqlite`, `postgresql` or `http`."""
        return re.split(r"[+:]", self.uri, maxsplit=1)[0].removesuffix("s")

    @property
    def is_database(self) -> bool:
        """Whether this process writes to the database itself, and to the folder of artefacts."""
        return self.kind != "http"

    @property
    def timed(self) -> str:
        """The address with limits to what is waited for, where they are a part of it."""
        if self.kind != "postgresql" or "connect_timeout" in self.uri:
            return self._driven
        limits = f"connect_timeout={_CONNECT}&options=-c%20statement_timeout%3D{_ANSWER}s"
        return f"{self._driven}{'&' if '?' in self.uri else '?'}{limits}"

    @property
    def _driven(self) -> str:
        """The address with the driver that is installed: which one is meant where none is named, SQLAlchemy changed."""
        scheme, separator, rest = self.uri.partition("://")
        is_open = scheme == "postgresql" and (find_spec("psycopg2") is not None or find_spec("psycopg") is None)
        return f"{scheme}{'+psycopg2' if is_open else ''}{separator}{rest}"

    def artifacts(self, study: str) -> str | None:
        """The folder of a study's artefacts; None where the tracking server decides."""
        return (self.runs / "mlflow-artifacts" / study).resolve().as_uri() if self.is_database else None

    def without_secrets(self, message: str) -> str:
        """The message without passwords of addresses that it names."""
        return without_password(message, self.uri)

    @contextmanager
    def bounded(self) -> Iterator[None]:
        """Limits to what MLflow waits for a server, and says; it reads them at each request, and only from there.

        What the user has set there stays.
        """
        ours = {name: value for name, value in _HTTP.items() if name not in os.environ} if self.kind == "http" else {}
        os.environ.update(ours)
        try:
            yield
        finally:
            for name in ours:
                os.environ.pop(name, None)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps others out while tables, experiments or runs are looked for and made; all mirrors go through here.

        Of a tracking server, only the processes of this folder of runs are kept out: who makes something there looks
        again afterwards.

        Raises:
            Exception: the database cannot be reached, or another process does not come to an end.
        """
        if self.kind == "postgresql":
            with self._advisory_lock():
                yield
            return
        database = Path(self.uri.partition(":///")[2].partition("?")[0])
        lock = database.with_name(f".{database.name}.lock") if self.is_database else self.runs / ".mlflow.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=_ALONE):
            if self.is_database:  # MLflow would try for a hundred seconds to open one that cannot be opened
                with closing(sqlite3.connect(database)) as connection:
                    connection.execute("PRAGMA schema_version")
            yield

    @contextmanager
    def _advisory_lock(self) -> Iterator[None]:
        """PostgreSQL's own lock, which machines without a common folder see too; it ends with the connection."""
        import sqlalchemy

        options = {"connect_timeout": _CONNECT, "options": f"-c statement_timeout={_ALONE}s"}
        engine = sqlalchemy.create_engine(
            self._driven, connect_args=options, poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT"
        )
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": _ADVISORY_KEY})
            yield


def address_of(runtime: Runtime) -> Address | None:
    """The store of a runtime; None where tracking is off.

    Raises:
        UserError: the address is of no kind that can be used, such as a folder of files, which MLflow 3 no longer
            keeps up.
    """
    if runtime.tracking == "none":
        return None
    uri = runtime.tracking or f"sqlite:///{(runtime.runs / 'mlflow.db').resolve()}"
    if not re.match(r"(sqlite:///[^?]|postgresql(\+\w+)?://.|https?://.)", uri):
        given = Address(uri, runtime.runs).without_secrets(uri)
        raise UserError(f"--tracking {given}: give sqlite:///FILE, postgresql://... or http://..., or `none`")
    return Address(uri, runtime.runs)


def in_one_line(error: Exception) -> str:
    """An error of a store for people."""
    if isinstance(error, ModuleNotFoundError) and "psycopg2" in str(error):
        return 'PostgreSQL needs psycopg2: pip install "molgraft[postgres]"'
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'without a message'}"
