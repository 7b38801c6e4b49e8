"""The store: every past move, in one SQLite file in the user's state folder.

    $XDG_STATE_HOME/whimbrel/moves.sqlite     (~/.local/state/whimbrel/moves.sqlite)
    folder 0700, file 0600

Safe under several whimbrels at once: every change is one transaction that takes SQLite's
write lock first, and whoever finds it taken waits. The schema's version stands in the file
(`PRAGMA user_version`); an older file is migrated when it is opened, a newer one refused.
What a move was made of is kept as JSON with a schema name and version of its own.
"""

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from whimbrel.errors import ConfigError
from whimbrel.model.memory import Survey
from whimbrel.model.method import Method, Tuning
from whimbrel.model.outcome import Ending
from whimbrel.model.plain import plain, shaped
from whimbrel.model.prediction import Prediction, Verdict
from whimbrel.model.record import MoveFigures, MoveRecord
from whimbrel.model.storage import StorageCopied

T = TypeVar("T")

MIGRATIONS = (
    """
    CREATE TABLE moves (
        number INTEGER PRIMARY KEY,
        began REAL NOT NULL,
        ended REAL NOT NULL,
        source TEXT NOT NULL,
        destination TEXT NOT NULL,
        vm TEXT NOT NULL,
        method TEXT NOT NULL,
        ending TEXT NOT NULL,
        verdict TEXT,
        tuning TEXT NOT NULL,
        survey TEXT,
        prediction TEXT,
        observed TEXT NOT NULL
    )
    """,
    "CREATE INDEX moves_between ON moves (source, destination, ended)",
    """
    CREATE TABLE jobs (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        words TEXT NOT NULL,
        at REAL,
        cron TEXT NOT NULL,
        zone TEXT NOT NULL,
        window REAL NOT NULL,
        folder TEXT NOT NULL,
        added REAL NOT NULL
    )
    """,
    """
    CREATE TABLE runs (
        number INTEGER PRIMARY KEY,
        job INTEGER NOT NULL,
        due REAL NOT NULL,
        state TEXT NOT NULL,
        holder TEXT NOT NULL,
        began REAL NOT NULL,
        ended REAL,
        code INTEGER,
        message TEXT NOT NULL,
        move INTEGER,
        UNIQUE (job, due)
    )
    """,
    "ALTER TABLE moves ADD COLUMN copied TEXT",
)
"""What leads from each version of the schema to the next: one statement each, from version 0."""

DOCUMENTS: dict[str, type[Any]] = {
    "tuning": Tuning,
    "survey": Survey,
    "prediction": Prediction,
    "observed": MoveFigures,
    "copied": StorageCopied,
}
"""The columns that hold JSON; each document names its schema "whimbrel.COLUMN/1"."""

WORDS: dict[str, type[Any]] = {"method": Method, "ending": Ending, "verdict": Verdict}
"""The columns that hold one of an enumeration's words."""

DOCUMENT_VERSION = 1

PATIENCE = 10.0
"""Seconds to wait for another whimbrel that writes."""

LAST = 50
"""Moves that are told for calibration; older ones say little about today's hosts."""


def default_path() -> Path:
    """Return where the store is; a relative $XDG_STATE_HOME does not count (XDG 0.8)."""
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    home = state if state.is_absolute() else Path.home() / ".local" / "state"
    return home / "whimbrel" / "moves.sqlite"


class Store:
    """Past moves; to be used in a `with` block.

    Every method raises `ConfigError` when the file is damaged, locked for longer than
    `PATIENCE`, or written by a newer whimbrel. A failed change leaves the store as it was.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    @classmethod
    def open(cls, path: Path | None = None, *, create: bool = True) -> Self:
        """Open the store, bringing an older one up to date.

        Args:
            path: The file; None for the user's own.
            create: Make folder and file where they are not there. Otherwise a store that is
                not there reads as an empty one, and nothing is written.
        """
        own = path is None
        path = path or default_path()
        with _told(path):
            if create:
                _make(path, own=own)
            name = str(path) if path.exists() else ":memory:"
            connection = sqlite3.connect(name, timeout=PATIENCE, isolation_level=None)
            try:
                connection.row_factory = sqlite3.Row
                migrate(connection, MIGRATIONS, path)
            except BaseException:
                connection.close()
                raise
        return cls(connection, path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    @contextmanager
    def asking(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection to read from; what fails is told as by every method."""
        with _told(self._path):
            yield self._connection

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection for one transaction that has the write lock."""
        with _told(self._path), _transaction(self._connection):
            yield self._connection

    def add(self, record: MoveRecord) -> int:
        """Keep a move for good, and return its number."""
        row = _row(record)
        names = ", ".join(row)
        marks = ", ".join(f":{name}" for name in row)
        with _told(self._path), _transaction(self._connection):
            text = f"INSERT INTO moves ({names}) VALUES ({marks})"  # noqa: S608 - our own names
            return int(self._connection.execute(text, row).lastrowid or 0)

    def moves(
        self,
        limit: int | None = None,
        *,
        host: str | None = None,
        method: Method | None = None,
        vm: str | None = None,
    ) -> tuple[MoveRecord, ...]:
        """Return moves, the latest first.

        Args:
            limit: How many at most; None for all.
            host: Only those that left this host or were to go to it.
            method: Only those by this method.
            vm: Only those of this VM.
        """
        wanted = "(:host IS NULL OR :host IN (source, destination))"
        wanted += " AND (:method IS NULL OR method = :method) AND (:vm IS NULL OR vm = :vm)"
        given = {"host": host, "method": method and method.value, "vm": vm}
        return self._select(wanted, given, limit)

    def records_before(
        self, time: float, source: str, destination: str, limit: int = LAST
    ) -> tuple[MoveRecord, ...]:
        """Return the moves from one host to another that had ended by then, the latest first.

        Args:
            time: Seconds since 1970-01-01 UTC; a move that ended at this very moment is left
                out.
            source: Name of the host they left.
            destination: Name of the host they went to.
            limit: How many at most.
        """
        wanted = "source = :source AND destination = :destination AND ended < :time"
        given = {"source": source, "destination": destination, "time": time}
        return self._select(wanted, given, limit)

    def _select(
        self, wanted: str, given: dict[str, Any], limit: int | None
    ) -> tuple[MoveRecord, ...]:
        text = f"SELECT * FROM moves WHERE {wanted}"  # noqa: S608 - our own words, values bound
        text += " ORDER BY began DESC, number DESC LIMIT :limit"
        with _told(self._path):
            rows = self._connection.execute(text, given | {"limit": -1 if limit is None else limit})
            return tuple(_record(row, self._path) for row in rows)


def migrate(connection: sqlite3.Connection, steps: Sequence[str], path: Path) -> None:
    """Bring a store's schema up to date; when it returns, the version is `len(steps)`.

    Raises:
        ConfigError: A newer whimbrel wrote it; nothing was changed.
    """
    if _version(connection, len(steps), path) == len(steps):
        return
    with _transaction(connection):
        # Another whimbrel may have done it while this one waited for the lock.
        for number in range(_version(connection, len(steps), path), len(steps)):
            connection.execute(steps[number])
            connection.execute(f"PRAGMA user_version = {number + 1}")


def _version(connection: sqlite3.Connection, known: int, path: Path) -> int:
    found = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if found > known:
        raise ConfigError(
            f"The store {path} has schema {found}; this whimbrel knows {known}. "
            "It was left as it is.",
            "Use the newer whimbrel that wrote it, or set XDG_STATE_HOME to another folder.",
        )
    return found


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Hold the write lock; keep everything at the end, or nothing if it is left by an error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn what SQLite and the file system say into words with a remedy."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise ConfigError(
            f"The store {path} cannot be used: {error}.",
            "See that no other whimbrel holds it, that the disk has room, and that it is yours.",
        ) from error
    except sqlite3.DatabaseError as error:
        raise ConfigError(
            f"The store {path} is damaged: {error}. Hosts and guests are not touched by this.",
            f"Move it away, and whimbrel begins a new one: mv '{path}' '{path}.damaged'",
        ) from error
    except OSError as error:
        raise ConfigError(
            f"The store {path} cannot be opened: {error.strerror or error}.",
            "Set XDG_STATE_HOME to a folder that you may write to.",
        ) from error


def _make(path: Path, *, own: bool) -> None:
    """Make folder and file for their owner alone, whatever the umask.

    Only the folder that is whimbrel's own is closed to others where it was open to them.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if own:
        path.parent.chmod(0o700)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(file, 0o600)
    finally:
        os.close(file)


def _row(record: MoveRecord) -> dict[str, Any]:
    """Return a record as the values of its columns; its number is the store's to give."""
    row = {each.name: getattr(record, each.name) for each in fields(record)}
    del row["number"]
    for column in DOCUMENTS:
        row[column] = None if row[column] is None else _document(column, row[column])
    for column in WORDS:
        row[column] = None if row[column] is None else row[column].value
    return row


def _document(column: str, value: object) -> str:
    body = plain(value)
    if not isinstance(body, dict):
        raise TypeError(f"{column} is no document")
    return json.dumps({"schema": f"whimbrel.{column}/{DOCUMENT_VERSION}", **body}, allow_nan=False)


def _record(row: sqlite3.Row, path: Path) -> MoveRecord:
    values: dict[str, Any] = dict(zip(row.keys(), tuple(row), strict=True))
    try:
        for column, kind in DOCUMENTS.items():
            if values[column] is not None:
                values[column] = _read(column, kind, values[column])
        for column, kind in WORDS.items():
            if values[column] is not None:
                values[column] = kind(values[column])
        return MoveRecord(**values)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"Move {values.get('number')} in the store {path} cannot be read: {error}.",
            "A newer whimbrel may have written it. Use that one, or move the file away.",
        ) from error


def _read(column: str, kind: type[T], text: str) -> T:
    data = json.loads(text)
    schema = data.pop("schema", None)
    if schema != f"whimbrel.{column}/{DOCUMENT_VERSION}":
        raise ValueError(f"its {column} has schema {schema}")
    return shaped(kind, data)
