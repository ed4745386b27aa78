"""Where trials are kept: a journal file, or a database that several machines reach; and the study in it."""

from __future__ import annotations

import logging
import re
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from bench.errors import UserError
from bench.provenance import without_password
from bench.run_store import cut_torn_line, write_text

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.storages.journal import JournalFileOpenLock
    from optuna.study import Study

    from bench.search.definition import Definition

_SEARCHES = ".searches"
_GRACE = 3  # seconds for which another program, a dashboard, may hold the journal; those of ours wait for each other
_JOURNAL_BEGINS = b'{"op_code":'  # each line of Optuna's JournalFileBackend; the first may be torn
_FOLDER, _FINGERPRINT, _QUESTION = "molgraft:folder", "molgraft:definition", "molgraft:question"
_DIRECTIONS = {"min": "minimize", "max": "maximize"}


class SearchFolder:
    """The folder of a search, beside its runs; all machines that share a search share it.

    Args:
        runs: the folder of run directories.
        name: of the search.
    """

    def __init__(self, runs: Path, name: str) -> None:
        self.path = runs / _SEARCHES / name

    @property
    def journal(self) -> Path:
        """The journal of trials, where no database is used."""
        return self.path / "journal.log"

    @property
    def best_file(self) -> Path:
        """The selected configuration, as a preset."""
        return self.path / "best.yaml"

    def prepare(self) -> None:
        """Makes what is missing."""
        (self.path / "trials").mkdir(parents=True, exist_ok=True)
        with self.claims():
            if not (self.path / "id").exists():
                write_text(self.path / "id", uuid.uuid4().hex + "\n")

    @property
    def identity(self) -> str:
        """Tells this folder from others of the same name: two that know nothing of each other's locks."""
        return (self.path / "id").read_text().strip()

    @contextmanager
    def claims(self) -> Iterator[None]:
        """Held while trials are counted and begun, by one process at a time."""
        with FileLock(self.path / "claims.lock"):
            yield

    def note_storage(self, shown: str) -> None:
        """Writes down that trials are kept elsewhere; without the password."""
        if not (self.path / "storage").exists():
            write_text(self.path / "storage", shown + "\n")

    def begun_elsewhere(self, address: str) -> str | None:
        """Where trials were kept before, if that was not at this address; for a message."""
        if not (self.path / "storage").exists():
            return "the journal in its folder" if self.journal.exists() else None
        noted = (self.path / "storage").read_text().strip()
        return None if _place(noted) == _place(address) else f"--storage {noted}"

    def refuse_to_begin_again(self) -> None:
        """Stops where the storage of a search was forgotten, which would begin it anew.

        Raises:
            UserError: there is no journal here, and trials are kept elsewhere.
        """
        if (self.path / "storage").exists() and not self.journal.exists():
            shown = (self.path / "storage").read_text().strip()
            raise UserError(
                f"search {self.path.name} was begun with --storage {shown}: give it again, or set "
                f"MOLGRAFT_SEARCH_STORAGE; to begin anew, take {self.path} away"
            )

    def trial_lock(self, number: int) -> FileLock:
        """Held by the process that works on a trial; released by the system when it dies."""
        return FileLock(self.path / "trials" / f"{number}.lock")


def open_storage(address: str | None, folder: SearchFolder) -> BaseStorage:
    """The storage of a search.

    Args:
        address: a journal file, or the URL of a database; None for the journal in the folder of the search.
        folder: of the search.

    Raises:
        UserError: it cannot be reached, or the package for it is missing; or none is given, and the search was begun
            in one that was.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    if address is None:
        folder.refuse_to_begin_again()
        return _journal(folder.journal)
    if not _is_url(address):
        journal = _journal(Path(address))
        _refuse_another(journal, address, folder)
        folder.note_storage(address)
        return journal
    driver = address.partition(":")[0]
    shown = without_password(address)
    if driver.startswith("postgresql"):
        _need("psycopg2", "postgres", shown)
    try:
        with folder.claims():  # two processes that make the tables of a fresh database at once fail
            database = optuna.storages.RDBStorage(
                _with_driver(address), engine_kwargs={"pool_pre_ping": True, "pool_size": 2}
            )
    except ImportError as error:
        raise UserError(f"--storage {shown}: {without_password(' '.join(str(error).split()), address)}") from None
    except Exception as error:
        reason = without_password(" ".join(str(error).split()), address)
        raise UserError(f"--storage {shown}: cannot be opened: {reason[:500]}") from None
    _refuse_another(database, shown, folder)
    folder.note_storage(shown)
    return database


def _refuse_another(storage: BaseStorage, shown: str, folder: SearchFolder) -> None:
    """Stops before a search that is kept in one storage is begun anew in another one, beside the same runs.

    Raises:
        UserError: the storage holds nothing of the search, and another one does.
    """
    elsewhere = folder.begun_elsewhere(shown)
    if elsewhere is not None and not storage_holds(storage, folder.path.name):
        raise UserError(
            f"--storage {shown}: holds nothing of search {folder.path.name}, which was begun with {elsewhere}. Go on "
            f"there; or give the search another name; or take {folder.path} away to begin anew"
        )


def open_study(definition: Definition, storage: BaseStorage, folder: SearchFolder) -> Study:
    """The study in the storage, made if it is not there.

    Raises:
        UserError: it was begun as another search, from another folder of runs, or not by a search at all.
    """
    import optuna

    name = definition.search.name
    with folder.claims(), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if not storage_holds(storage, name):
            study = optuna.create_study(
                storage=storage,
                study_name=name,
                directions=[_DIRECTIONS[rule.direction] for rule in definition.rules],
                load_if_exists=True,
            )
        else:
            study = optuna.load_study(study_name=name, storage=storage)
        attributes = study.user_attrs
        if _FINGERPRINT not in attributes and study.get_trials(deepcopy=False):
            raise UserError(f"the storage holds a study {name} that no search has made; give the search another name")
        for key, value in (
            (_FOLDER, folder.identity),
            (_QUESTION, definition.search.question),
            (_FINGERPRINT, definition.fingerprint),  # last: where it is, the others are
        ):
            if _FINGERPRINT not in attributes:
                study.set_user_attr(key, value)
        attributes = study.user_attrs
        if not study.metric_names:
            study.set_metric_names(list(definition.figures))
    if attributes[_FOLDER] != folder.identity:
        raise UserError(
            f"search {name} was begun in this storage from another folder of runs. Give the same --runs, a folder that "
            "all machines share, or give the search another name"
        )
    if attributes[_FINGERPRINT] != definition.fingerprint:
        raise UserError(
            f"search {name} was begun with another preset, space, objective or other seeds, and trials of both cannot "
            f"be compared. Give the search another name, or take {folder.path} (and the study in the storage) away. "
            "Only `trials`, `sampler`, `pruner` and `timeout` may change"
        )
    return study


def storage_holds(storage: BaseStorage, name: str) -> bool:
    """Whether a study of this name is there."""
    return any(study.study_name == name for study in storage.get_all_studies())


def is_storage_error(error: BaseException) -> bool:
    """Whether an error says that the database is lost, and nothing of the work at hand."""
    return type(error).__module__.partition(".")[0] in {"sqlalchemy", "psycopg2"} or (
        type(error).__name__ == "StorageInternalError"
    )


@contextmanager
def loss_is_told(address: str | None) -> Iterator[None]:
    """While it lasts, a storage that goes away is a message to the user.

    Args:
        address: of the storage, whose password the message must not have.

    Raises:
        UserError: it is lost; nothing of the search is.
    """
    try:
        yield
    except Exception as error:
        if is_storage_error(error):
            reason = without_password(" ".join(str(error.__cause__ or error).split()), address)
            raise UserError(f"the storage of the search is lost; the same command goes on: {reason[:300]}") from error
        raise


def _place(address: str) -> str:
    """An address without what does not matter: of a file its whole path, of a database how its driver is called."""
    return without_password(_with_driver(address)) if _is_url(address) else str(Path(address).resolve())


def _is_url(address: str) -> bool:
    return "://" in address


def _with_driver(address: str) -> str:
    """`postgres://`, which hosters hand out, is unknown to SQLAlchemy."""
    return re.sub(r"^postgres(ql)?://", "postgresql+psycopg2://", address)


def _need(package: str, extra: str, shown: str) -> None:
    import importlib.util

    if importlib.util.find_spec(package) is None:
        raise UserError(f"--storage {shown}: needs another package: pip install 'molgraft[{extra}]'")


def _journal(path: Path) -> BaseStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    if path.is_dir():
        raise UserError(f"--storage {path}: is a folder, where a journal file or the URL of a database is expected")
    if path.exists() and not _begins_like_a_journal(path):  # seen before its torn line is cut, if it has one
        raise UserError(f"--storage {path}: is no journal of trials, and is left as it is; name a new file")
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return JournalStorage(JournalFileBackend(str(path), lock_obj=_journal_lock(path)))
        except (
            ValueError,
            TypeError,
            LookupError,
            AssertionError,
        ) as error:  # of lines that it did not write
            raise UserError(f"--storage {path}: is no journal of trials ({type(error).__name__}: {error})") from None


def _begins_like_a_journal(path: Path) -> bool:
    with path.open("rb") as file:
        return _JOURNAL_BEGINS.startswith(file.read(len(_JOURNAL_BEGINS)))


def _journal_lock(path: Path) -> JournalFileOpenLock:
    from optuna.storages.journal import JournalFileOpenLock

    class Lock(JournalFileOpenLock):  # type: ignore[misc]
        """Optuna's lock file within a lock of the system.

        The lock file is what optuna-dashboard and others respect. It outlives a process that is killed, and then holds
        everybody up for its grace period, 30 s; since ours queue for the system's lock, which dies with its holder, a
        lock file that is found there is left over, or another program's, which writes for milliseconds.
        """

        def __init__(self) -> None:
            super().__init__(str(path), grace_period=_GRACE)
            self._queue = FileLock(f"{path}.queue")

        def acquire(self) -> bool:
            self._queue.acquire()
            try:
                super().acquire()
                cut_torn_line(path)  # Optuna would write on in it and never read it again
            except BaseException:
                self._queue.release()
                raise
            return True

        def release(self) -> None:
            try:
                super().release()
            except RuntimeError:  # another program took it away from a process that had stood still
                pass
            finally:
                self._queue.release()

    return Lock()
