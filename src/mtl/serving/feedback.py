"""What was answered, and what was right: kept in a file, so that the truth may come days later."""

from __future__ import annotations

import secrets
import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path

from mtl.errors import UserError

KEPT = 100_000  # predictions; older ones make room for new ones
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

    Methods may be called from any thread. Raises UserError where the file cannot be used.
    """

    def __init__(self, path: Path | str, kept: int = KEPT) -> None:
        self._kept, self._lock = kept, threading.Lock()
        try:
            self._database = sqlite3.connect(path, check_same_thread=False, timeout=5)
            self._database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;")
            self._database.executescript(_TABLES)
        except sqlite3.Error as error:
            raise UserError(f"{path}: no file for feedback: {error}; name another one with --feedback") from error

    def remember(self, labels: Mapping[str, str]) -> str:
        """Keep what each task answered; returns the id under which the truth can be told."""
        identity = secrets.token_hex(16)
        with self._lock, self._database:
            number = self._database.execute("INSERT INTO predictions (id) VALUES (?)", [identity]).lastrowid
            rows = [(number, task, label) for task, label in labels.items()]
            self._database.executemany("INSERT INTO answers (number, task, label) VALUES (?, ?, ?)", rows)
            self._database.execute("DELETE FROM predictions WHERE number <= ?", [number - self._kept])
        return identity

    def tell(self, identity: str, truth: Mapping[str, str]) -> dict[str, bool] | None:
        """Note the right label of each task; told again, the last word counts.

        Returns whether each task was right; None where the id is unknown, or too old.
        """
        with self._lock, self._database:
            rows = self._database.execute(
                "SELECT number, task, label FROM answers JOIN predictions USING (number) WHERE id = ?", [identity]
            ).fetchall()
            judged = [(truth[task], number, task) for number, task, _ in rows if task in truth]
            self._database.executemany("UPDATE answers SET truth = ? WHERE number = ? AND task = ?", judged)
        return {task: label == truth[task] for _, task, label in rows if task in truth} if rows else None

    def accuracy(self) -> dict[str, tuple[float, int]]:
        """Per task the fraction of right answers among those whose truth is known, and how many those are."""
        with self._lock:
            rows = self._database.execute(
                "SELECT task, AVG(label = truth), COUNT(*) FROM answers WHERE truth IS NOT NULL GROUP BY task"
            ).fetchall()
        return {task: (accuracy, count) for task, accuracy, count in rows}

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()
