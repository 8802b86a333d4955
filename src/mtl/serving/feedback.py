"""What was answered, and what was right: kept in a file, so that the truth may come days later."""

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

KEPT = 100_000  # predictions; older ones make room for new ones
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
    """The last KEPT joint answers by id, and the accuracy over those whose true class was told.

    It stands beside the way of an answer: where the file cannot be used, which the log says once, answers are not kept,
    and for `pause` seconds nothing is tried. A file that was removed is begun anew. Methods may be called from any
    thread. Raises UserError where the file cannot be used at the start.
    """

    def __init__(self, path: Path | str, kept: int = KEPT, patience: float = 0.5, pause: float = 5.0) -> None:
        self._path, self._kept, self._patience, self._pause = Path(path), kept, patience, pause
        self._lock, self._failing, self._try_at, self._lost = threading.Lock(), False, 0.0, 0
        self._accuracy: dict[str, tuple[float, int]] = {}
        try:
            self._database: sqlite3.Connection | None = self._open()
        except (sqlite3.Error, OSError) as error:
            raise UserError(f"{path}: no file for feedback: {error}; name another one with --feedback") from error

    def remember(self, labels: Mapping[str, str]) -> str | None:
        """Keep what each task answered; returns the id under which the truth can be told, None where it is not kept."""
        identity = secrets.token_hex(16)
        with self._lock:
            try:
                with self._usable() as database:
                    number = database.execute("INSERT INTO predictions (id) VALUES (?)", [identity]).lastrowid
                    rows = [(number, task, label) for task, label in labels.items()]
                    database.executemany("INSERT INTO answers (number, task, label) VALUES (?, ?, ?)", rows)
                    database.execute("DELETE FROM predictions WHERE number <= ?", [number - self._kept])
            except _Unusable:
                self._lost += 1
                return None
            if self._failing:
                log.warning("%s: answers are kept again; %d were not", self._path, self._lost)
                self._failing, self._lost = False, 0
        return identity

    def tell(self, identity: str, truth: Mapping[str, str]) -> dict[str, bool] | None:
        """Note the right label of each task; told again, the last word counts.

        Returns whether each task was right; None where the id is unknown, or too old.
        Raises Refused (503) where the file cannot be used now.
        """
        try:
            with self._lock, self._usable() as database:
                rows = database.execute(
                    "SELECT number, task, label FROM answers JOIN predictions USING (number) WHERE id = ?", [identity]
                ).fetchall()
                judged = [(truth[task], number, task) for number, task, _ in rows if task in truth]
                database.executemany("UPDATE answers SET truth = ? WHERE number = ? AND task = ?", judged)
        except _Unusable:
            raise busy("what was answered cannot be read or noted now; the server's log says why") from None
        return {task: label == truth[task] for _, task, label in rows if task in truth} if rows else None

    def accuracy(self) -> dict[str, tuple[float, int]]:
        """Per task the fraction of right answers among those whose truth is known, and how many those are.

        What was so the last time, where the file cannot be used now.
        """
        with self._lock, suppress(_Unusable), self._usable() as database:
            rows = database.execute(
                "SELECT task, AVG(label = truth), COUNT(*) FROM answers WHERE truth IS NOT NULL GROUP BY task"
            ).fetchall()
            self._accuracy = {task: (accuracy, count) for task, accuracy, count in rows}
        return self._accuracy

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._shut()

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, check_same_thread=False, timeout=self._patience)
        try:
            database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;")
            database.executescript(_TABLES)
            if self._path != MEMORY:
                self._seen = self._path.stat()
        except BaseException:
            database.close()
            raise
        return database

    def _shut(self) -> None:
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
            self._database = None

    def _changed(self) -> bool:
        """Whether the file was removed, replaced or cut short; SQLite would go on writing where nobody reads."""
        if self._path == MEMORY:
            return False
        try:
            now = self._path.stat()
        except OSError:
            return True
        before, self._seen = self._seen, now
        return not os.path.samestat(before, now) or now.st_size < before.st_size

    @contextmanager
    def _usable(self) -> Iterator[sqlite3.Connection]:
        """The database in a transaction; what goes wrong is logged once, closes it, and is raised as _Unusable."""
        if time.monotonic() < self._try_at:
            raise _Unusable
        try:
            if self._database is not None and self._changed():
                log.warning("%s was removed, replaced or cut short: what it held may be lost", self._path)
                self._shut()
            if self._database is None:
                self._database = self._open()
            with self._database:
                yield self._database
        except (sqlite3.Error, OSError) as error:
            self._shut()
            if not self._failing:
                log.error("%s: answers are not kept: %s; give it room, or move it away", self._path, one_line(error))
            self._failing, self._try_at = True, time.monotonic() + self._pause
            raise _Unusable from error


class _Unusable(Exception):
    """The file cannot be used now."""
