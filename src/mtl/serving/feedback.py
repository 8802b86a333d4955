"""Storage of joint answers in a file, so that their true labels may be recorded days later."""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from mtl.errors import UserError, one_line
from mtl.serving.refusals import Refused, busy

log = logging.getLogger("uvicorn.error")

CAPACITY = 100_000  # stored answers; new ones replace the oldest
MEMORY = Path(":memory:")  # SQLite's name for no file
_TABLES = """
CREATE TABLE IF NOT EXISTS predictions (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL);
CREATE TABLE IF NOT EXISTS answers (
    number INTEGER NOT NULL REFERENCES predictions ON DELETE CASCADE,
    task TEXT NOT NULL, label TEXT NOT NULL, truth TEXT, error REAL, PRIMARY KEY (number, task)
) WITHOUT ROWID;
"""
_INDEX = """
CREATE INDEX IF NOT EXISTS compared ON answers (task, label, truth, error) WHERE truth IS NOT NULL;
DROP INDEX IF EXISTS judged;
"""


class Standing(NamedTuple):
    """The answers so far whose truth is known, by task, each with their number.

    `accuracy`: the fraction of right answers. `absolute_error`: the mean, of answers that are numbers.
    """

    accuracy: dict[str, tuple[float, int]]
    absolute_error: dict[str, tuple[float, int]]


class Feedback:
    """The last joint answers by id, and how good those are whose true labels are known.

    Answers and truths are text, or numbers and lists, which the file holds as JSON.

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
        self._standing = Standing({}, {})
        try:
            self._database: sqlite3.Connection | None = self._connect()
        except (sqlite3.Error, OSError) as error:
            raise UserError(f"{path}: no file for feedback: {error}; name another one with --feedback") from error

    def remember(self, labels: Mapping[str, Any]) -> str | None:
        """Store the answer of each task; returns the id for `record_truth`, or None if the answer cannot be stored."""
        identity = secrets.token_hex(16)
        with self._lock:
            try:
                with self._transaction() as database:
                    database.execute("INSERT INTO predictions (id) VALUES (?)", [identity])
                    ((number,),) = database.execute("SELECT last_insert_rowid()")
                    rows = [(number, task, _text(label)) for task, label in labels.items()]
                    database.executemany("INSERT INTO answers (number, task, label) VALUES (?, ?, ?)", rows)
                    database.execute("DELETE FROM predictions WHERE number <= ?", [number - self._capacity])
            except _UnusableError:
                self._unstored += 1
                return None
            if self._failing:
                log.warning("%s: answers are stored again; %d were not", self._path, self._unstored)
                self._failing, self._unstored = False, 0
        return identity

    def record_truth(self, identity: str, truth: Mapping[str, Any]) -> dict[str, bool | float] | None:
        """Record the true label of each task, in place of an earlier one.

        Returns whether each task was right, and of a number its absolute error; None if the id is unknown, or too old.
        Raises Refused: 503 if the file cannot be used now; 400 for a number where the answer was none.
        """
        try:
            with self._lock, self._transaction() as database:
                rows = database.execute(
                    "SELECT number, task, label FROM answers JOIN predictions USING (number) WHERE id = ?", [identity]
                ).fetchall()
                judged = {task: _compare(task, label, truth[task]) for _, task, label in rows if task in truth}
                changes = [
                    (_text(truth[task]), None if isinstance(judged[task], bool) else judged[task], number, task)
                    for number, task, _ in rows
                    if task in truth
                ]
                database.executemany("UPDATE answers SET truth = ?, error = ? WHERE number = ? AND task = ?", changes)
        except _UnusableError:
            raise busy("the stored answers cannot be used now; the server's log says why") from None
        return judged if rows else None

    def standing(self) -> Standing:
        """Compare all answers with their truths; if the file cannot be used now, the standing is the last known one."""
        with self._lock, suppress(_UnusableError), self._transaction() as database:
            rows = database.execute(
                "SELECT task, AVG(label = truth), AVG(error), COUNT(*) FROM answers WHERE truth IS NOT NULL"
                " GROUP BY task, error IS NULL"
            ).fetchall()
            self._standing = Standing(
                {task: (accuracy, count) for task, accuracy, error, count in rows if error is None},
                {task: (error, count) for task, _, error, count in rows if error is not None},
            )
        return self._standing

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._disconnect()

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, check_same_thread=False, timeout=self._timeout)
        try:
            database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;")
            database.executescript(_TABLES)
            if "error" not in [name for _, name, *_ in database.execute("PRAGMA table_info(answers)")]:
                database.execute("ALTER TABLE answers ADD COLUMN error REAL")  # an earlier version made the file
            database.executescript(_INDEX)
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


def _text(value: Any) -> str:
    """An answer or truth as the file holds it."""
    return value if isinstance(value, str) else json.dumps(value)


def _compare(task: str, stored: str, truth: Any) -> bool | float:
    """Whether a stored answer is right, or where the truth is a number its absolute error. Raises Refused."""
    if isinstance(truth, bool) or not isinstance(truth, int | float):
        return stored == _text(truth)
    try:
        error = abs(float(stored) - truth)
    except ValueError:
        raise Refused(f"{task} was answered with {stored!r:.80} then, and a number cannot be its truth") from None
    return math.inf if math.isnan(error) else error  # NaN would be NULL in the file


class _UnusableError(Exception):
    """The file cannot be used now."""
