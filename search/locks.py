"""Who works on a search: locks that end with the process, or the connection, that holds them.

No clock decides whether a machine is still there: a killed process has lost its locks at once.
"""

import fcntl
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from sqlalchemy import Engine, text

from common.console import InputError

# The server takes a machine for dead that has answered nothing for about a minute, and a machine
# the server: seconds until the first question, between two, and how many remain unanswered.
KEEPALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
CONNECTION = {"connect_timeout": 10, "tcp_user_timeout": 60_000, **KEEPALIVE}


class Locks(Protocol):
    """What a search needs to know of the others that work on it."""

    def choosing(self) -> AbstractContextManager[None]:
        """Keep every other worker from choosing or ending a trial meanwhile."""

    def is_alive(self, worker: str) -> bool:
        """Return whether another worker is at work."""

    def may_conclude(self) -> bool:
        """Return whether this process alone draws the conclusion of the search; it then does."""


class OneMachine:
    """A search of this clone alone: a second one in it is refused.

    Parameters
    ----------
    path : Path
        The file whose lock the search holds.

    Raises
    ------
    InputError
        If another process holds it.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w")  # closed, and so unlocked, when the process ends
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another `make search` with NAME={path.stem} runs in this clone"
            ) from None
        self._threads = threading.Lock()

    @contextmanager
    def choosing(self) -> Iterator[None]:
        """Keep the other jobs of this search from choosing or ending a trial meanwhile."""
        with self._threads:
            yield

    def is_alive(self, worker: str) -> bool:
        """Return False: whoever worked on this search before has ended."""
        return False

    def may_conclude(self) -> bool:
        """Return True: there is nobody else."""
        return True


class SeveralMachines:
    """A search of several clones: PostgreSQL's advisory locks [1]_, held by a connection.

    Parameters
    ----------
    engine : Engine
        The database.
    search : str
        The name of the search.
    worker : str
        The name of this process, which no other has.

    References
    ----------
    .. [1] https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS
    """

    def __init__(self, engine: Engine, search: str, worker: str) -> None:
        self._connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._threads = threading.Lock()
        self._search = f"search {search}"
        for setting, value in KEEPALIVE.items():
            self._connection.execute(text(f"SET tcp_{setting} = {value}"))
        self._ask("pg_advisory_lock", f"worker {worker}")

    def _ask(self, function: str, name: str) -> object:
        """Call a function on the lock of a name; its number is a hash of the name."""
        statement = text(f"SELECT {function}(hashtextextended(:name, 0))")
        return self._connection.execute(statement, {"name": name}).scalar()

    @contextmanager
    def choosing(self) -> Iterator[None]:
        """Keep every other job, on each machine, from choosing or ending a trial meanwhile."""
        with self._threads:
            self._ask("pg_advisory_lock", self._search)
            try:
                yield
            finally:
                self._ask("pg_advisory_unlock", self._search)

    def is_alive(self, worker: str) -> bool:
        """Return whether the process of that name holds its lock; not to be asked of one's own."""
        if not self._ask("pg_try_advisory_lock", f"worker {worker}"):
            return True
        self._ask("pg_advisory_unlock", f"worker {worker}")
        return False

    def may_conclude(self) -> bool:
        """Return whether no other machine draws the conclusion; this process then does."""
        return bool(self._ask("pg_try_advisory_lock", f"{self._search} conclusion"))
