"""The file: one SQLite database, one connection, one transaction per batch of writes.

All functions block and belong to the store's writer thread. The connection holds the file's lock for
its whole life (``locking_mode=EXCLUSIVE``): a second daemon on the same file is refused, and SQLite's
write-ahead log is never shared between connections.

An object's row id is the revision at which it was created. It is unique without an index, makes
inserts append, and lets a write find its row by number; that keys are unique is the in-memory
store's business, checked when the file is loaded.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tandem.errors import TandemError, Unavailable
from tandem.store.types import Key

APPLICATION_ID = 0x54414E44  # "TAND", so that file(1) and we know the file for ours
FORMAT = 1

_SCHEMA = """
CREATE TABLE objects (
    id INTEGER PRIMARY KEY,
    resource TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    revision INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE TABLE counter (revision INTEGER NOT NULL);
INSERT INTO counter VALUES (0);
"""

_PUT = (
    "INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (id) DO UPDATE SET revision = excluded.revision, data = excluded.data"
)
_DELETE = "DELETE FROM objects WHERE id = ?"


class StoreUnreadable(TandemError):
    """The file exists and cannot be used: damaged, foreign, or of a newer format. It is left as it
    is; the hint says what to do."""


class Row(NamedTuple):
    """One object as it is stored."""

    id: int
    key: Key
    revision: int
    data: bytes


class Database:
    """The open file. Raises ``StoreUnreadable``, and ``Unavailable`` when somebody else has it."""

    def __init__(self, path: Path | None) -> None:
        self._name = str(path) if path else ":memory:"
        if path:
            _create_private(path)
        try:
            self._connection = sqlite3.connect(self._name, isolation_level=None, timeout=0)
        except sqlite3.Error as error:
            raise self._unreadable(error) from error
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._connection.close()
            raise self._unreadable(error) from error
        except TandemError:
            self._connection.close()
            raise

    def load(self) -> tuple[int, list[Row]]:
        """The current revision and every object. Raises ``StoreUnreadable``."""
        try:
            (revision,) = self._connection.execute("SELECT revision FROM counter").fetchone()
            rows = [
                Row(id_, Key(resource, namespace, name), row_revision, data)
                for id_, resource, namespace, name, row_revision, data in self._connection.execute(
                    "SELECT id, resource, namespace, name, revision, data FROM objects"
                )
            ]
        except (sqlite3.Error, TypeError) as error:
            raise self._unreadable(error) from error
        if len({row.key for row in rows}) != len(rows):
            raise self._unreadable("two rows have the same key")
        return revision, rows

    def commit(self, revision: int, puts: Iterable[Row], deletes: Iterable[int]) -> None:
        """Write all or nothing, on the disk when this returns. Raises ``Unavailable``."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(
                _PUT, ((row.id, *row.key, row.revision, row.data) for row in puts)
            )
            self._connection.executemany(_DELETE, ((id_,) for id_ in deletes))
            self._connection.execute("UPDATE counter SET revision = ?", (revision,))
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            # Some failures (a full disk) roll back by themselves; asking again then is an error.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise Unavailable(
                f"the store {self._name} could not be written: {error}",
                hint="Free space on the disk that holds it, or check the disk; nothing was changed.",
            ) from error

    def close(self) -> None:
        """Fold the log into the file and let go of it."""
        self._connection.close()

    def _prepare(self) -> None:
        run = self._connection.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        run("BEGIN IMMEDIATE")  # takes the lock, and reads the header, before anything is changed
        (application,) = run("PRAGMA application_id").fetchone()
        (version,) = run("PRAGMA user_version").fetchone()
        (objects,) = run("SELECT count(*) FROM sqlite_master").fetchone()
        run("COMMIT")
        if application != APPLICATION_ID and objects:
            raise self._unreadable("it is a database of another program")
        if version > FORMAT:
            raise StoreUnreadable(
                f"the store {self._name} has format {version}, written by a newer Tandem; "
                f"this one knows formats up to {FORMAT}",
                hint="Start the newer version again, or restore a backup made by this one.",
            )
        run("PRAGMA journal_mode = WAL")
        # With FULL a commit waits for the log to reach the disk: what was acknowledged survives a
        # power cut.
        run("PRAGMA synchronous = FULL")
        run("PRAGMA journal_size_limit = 16777216")
        if not objects:
            self._connection.executescript(
                f"BEGIN; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID}; "
                f"PRAGMA user_version = {FORMAT}; COMMIT;"
            )

    def _unreadable(self, problem: sqlite3.Error | TypeError | str) -> TandemError:
        if isinstance(problem, sqlite3.OperationalError) and "no such table" not in str(problem):
            if "locked" in str(problem):
                return Unavailable(
                    f"the store {self._name} could not be opened: another process is using it",
                    hint="Stop the other daemon, or give this one a data directory of its own.",
                )
            return Unavailable(
                f"the store {self._name} could not be opened: {problem}",
                hint="Check the permissions and the free space of its directory.",
            )
        return StoreUnreadable(
            f"the store {self._name} cannot be read: {problem}",
            hint="Nothing was changed in it. Restore a backup, or move the file away to start empty.",
        )


def _create_private(path: Path) -> None:
    """Make the file readable by its owner alone before SQLite fills it: it holds Secrets."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise Unavailable(
            f"the store {path} could not be opened: {error.strerror}",
            hint="Create its directory, or check its permissions.",
        ) from error
