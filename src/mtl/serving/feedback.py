"""Storage of joint answers in a file, so that their true labels may be recorded days later."""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from mtl.errors import UserError, one_line
from mtl.serving.refusals import busy

log = logging.getLogger("uvicorn.error")

CAPACITY = 100_000  # stored answers; new ones replace the oldest
MEMORY = Path(":memory:")  # SQLite's name for no file
_TABLES = """
CREATE TABLE IF NOT EXISTS predictions (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL);
CREATE TABLE IF NOT EXISTS answers (
    number INTEGER NOT NULL REFERENCES predictions ON DELETE CASCADE,
    task TEXT NOT NULL, label TEXT NOT NULL, truth TEXT, PRIMARY KEY (number, task)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS judged ON answers (task, label, truth) WHERE truth IS NOT NULL;
"""


class Feedback:
    """The last joint answers by id, and the accuracy of those whose true labels are known.

    Errors of the file never stop an answer: the log reports them once, answers are not stored, and the file is not
    tried again for `pause` seconds. A file that was removed is created again. Methods may be called from any thread.

    Args:
        path: the SQLite file, or MEMORY.
        capacity: number of answers to keep.
        timeout: seconds to wait for a file that another process has locked.
        pause: seconds between a failure and the next try.

    Raises:
        UserError: the file cannot be used at the start.
    """

    def __init__(self, path: Path | str, capacity: int = CAPACITY, timeout: float = 0.5, pause: float = 5.0) -> None:
        self._path, self._capacity, self._timeout, self._pause = Path(path), capacity, timeout, pause
        self._lock, self._failing, self._retry_at, self._unstored = threading.Lock(), False, 0.0, 0
        self._accuracy: dict[str, tuple[float, int]] = {}
        try:
            self._database: sqlite3.Connection | None = self._connect()
        except (sqlite3.Error, OSError) as error:
            raise UserError(f"{path}: no file for feedback: {error}; name another one with --feedback") from error

    def remember(self, labels: Mapping[str, str]) -> str | None:
        """Store the label of each task; returns the id for `record_truth`, or None if the answer cannot be stored."""
        identity = secrets.token_hex(16)
        with self._lock:
            try:
                with self._transaction() as database:
                    database.execute("INSERT INTO predictions (id) VALUES (?)", [identity])
                    ((number,),) = database.execute("SELECT last_insert_rowid()")
                    rows = [(number, task, label) for task, label in labels.items()]
                    database.executemany("INSERT INTO answers (number, task, label) VALUES (?, ?, ?)", rows)
                    database.execute("DELETE FROM predictions WHERE number <= ?", [number - self._capacity])
            except _UnusableError:
                self._unstored += 1
                return None
            if self._failing:
                log.warning("%s: answers are stored again; %d were not", self._path, self._unstored)
                self._failing, self._unstored = False, 0
        return identity

    def record_truth(self, identity: str, truth: Mapping[str, str]) -> dict[str, bool] | None:
        """Record the true label of each task, in place of an earlier one.

        Returns whether each task was right; None if the id is unknown, or too old.
        Raises Refused (503) if the file cannot be used now.
        """
        try:
            with self._lock, self._transaction() as database:
                rows = database.execute(
                    "SELECT number, task, label FROM answers JOIN predictions USING (number) WHERE id = ?", [identity]
                ).fetchall()
                judged = [(truth[task], number, task) for number, task, _ in rows if task in truth]
                database.executemany("UPDATE answers SET truth = ? WHERE number = ? AND task = ?", judged)
        except _UnusableError:
            raise busy("the stored answers cannot be used now; the server's log says why") from None
        return {task: label == truth[task] for _, task, label in rows if task in truth} if rows else None

    def accuracy(self) -> dict[str, tuple[float, int]]:
        """Compute, per task, the fraction of right answers among those whose truth is known, and their number.

        If the file cannot be used now, these are the last known values.
        """
        with self._lock, suppress(_UnusableError), self._transaction() as database:
            rows = database.execute(
                "SELECT task, AVG(label = truth), COUNT(*) FROM answers WHERE truth IS NOT NULL GROUP BY task"
            ).fetchall()
            self._accuracy = {task: (accuracy, count) for task, accuracy, count in rows}
        return self._accuracy

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._disconnect()

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, check_same_thread=False, timeout=self._timeout)
        try:
            database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;")
            database.executescript(_TABLES)
            if self._path != MEMORY:
                self._stat = self._path.stat()
        except BaseException:
            database.close()
            raise
        return database

    def _disconnect(self) -> None:
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
            self._database = None

    def _replaced(self) -> bool:
        """Check if the file was removed, replaced or truncated: SQLite would go on writing to the old one."""
        if self._path == MEMORY:
            return False
        try:
            now = self._path.stat()
        except OSError:
            return True
        before, self._stat = self._stat, now
        return not os.path.samestat(before, now) or now.st_size < before.st_size

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Yield the database in a transaction. An error closes it, is logged once, and raises _UnusableError."""
        if time.monotonic() < self._retry_at:
            raise _UnusableError
        try:
            if self._database is not None and self._replaced():
                log.warning("%s was removed, replaced or truncated: its answers may be lost", self._path)
                self._disconnect()
            if self._database is None:
                self._database = self._connect()
            with self._database:
                yield self._database
        except (sqlite3.Error, OSError) as error:
            self._disconnect()
            if not self._failing:
                log.error(
                    "%s: answers are not stored: %s; free some space, or move it away", self._path, one_line(error)
                )
            self._failing, self._retry_at = True, time.monotonic() + self._pause
            raise _UnusableError from error


class _UnusableError(Exception):
    """The file cannot be used now."""
