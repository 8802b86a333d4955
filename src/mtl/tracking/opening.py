"""The store as a process finds it: made by one process at a time, and in the place where its files are now."""

from __future__ import annotations

import functools
import logging
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

ARTIFACTS = "mlartifacts"  # in the root of the repository, beside the SQLite store: the files of runs and models
# The columns that hold places. MLflow writes them as absolute addresses, whatever it is given.
PLACES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
    "trace_tags": ("value",),
}
_KEY = 0x6D6C666C6F77  # "mlflow": the number of PostgreSQL's lock


def open_store(uri: str, root: Path) -> None:
    """Make the store where it is new, before anything else uses it; mend its places where the repository was moved.

    Raises what SQLAlchemy and MLflow raise, and OSError.
    """
    quieten()
    file = database(uri)
    _make(uri, file)
    if file is not None and file == root / "mlflow.db" and not file.is_symlink() and _elsewhere(file, root):
        with _alone(uri, file):
            for old in _move(file, root):
                print(f"MLflow: this project was in {old}; its runs and models are in {root} now", file=sys.stderr)


def quieten() -> None:
    """Keep MLflow's progress and tracebacks off the terminal: what fails is raised too, and said in one line."""
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def database(uri: str) -> Path | None:
    """The file of an SQLite store; None for other stores."""
    if not uri.startswith("sqlite:"):
        return None
    from sqlalchemy.engine import make_url

    name = make_url(uri).database
    return None if not name or name == ":memory:" or name.startswith("file:") else Path(name).absolute()


@functools.cache
def _make(uri: str, file: Path | None) -> None:
    """Let MLflow connect for the first time in this process, when it makes the tables that are missing.

    It does so without regard for others: of two processes one would fail half-way through.
    """
    import mlflow

    if file is not None:
        _reachable(file)
    with _alone(uri, file):
        if file is not None and (not file.exists() or not file.stat().st_size):
            _make_file(file)
        if not uri.startswith(("http:", "https:")):
            mlflow.MlflowClient(uri, uri).search_experiments(max_results=1)


def _reachable(file: Path) -> None:
    """Raise what SQLite says of a file that it cannot open, at once: MLflow would try for minutes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists():
        with _connection(file) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master")


def _make_file(file: Path) -> None:
    """Make an SQLite store beside its place, and rename it: a kill would leave tables that MLflow cannot complete."""
    from mlflow.db import upgrade

    half = file.with_name(f"{file.name}.tmp")
    for left in file.parent.glob(f"{half.name}*"):
        left.unlink()
    try:
        upgrade.main([f"sqlite:///{half}"], standalone_mode=False)
        half.replace(file)
    finally:
        half.unlink(missing_ok=True)


@contextmanager
def _alone(uri: str, file: Path | None) -> Iterator[None]:
    """Hold the lock that all users of a store share: a file beside the database, or a lock in the database."""
    if file is not None:
        from filelock import FileLock

        real = file.resolve()
        lock = FileLock(real.with_name(f".{real.stem}.lock"))
        try:
            lock.acquire()
        except OSError:  # a folder that can only be read: nothing will be made in it
            if not file.exists():
                raise
        try:
            yield
        finally:
            lock.release()
    elif uri.startswith(("postgresql", "mysql", "mssql")):
        import sqlalchemy

        engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
        with engine.begin() as connection:  # fails at once where MLflow would try for minutes
            if engine.dialect.name == "postgresql":  # its lock ends with the transaction
                connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _KEY})
            yield
    else:
        yield


@contextmanager
def _connection(file: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(file, timeout=20, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def _elsewhere(file: Path, root: Path) -> list[str]:
    """The folders other than `root` that the places of a store are in, as URIs."""
    with _connection(file) as connection:
        places = connection.execute("SELECT name, artifact_location FROM experiments").fetchall()
    return sorted({old for name, place in places if (old := _root(name, place)) and not _same(old, root)})


def _move(file: Path, root: Path) -> list[str]:
    """Rewrite the places of a store that are in another folder than `root`; return the folders that they were in."""
    left = _elsewhere(file, root)
    with _connection(file) as connection:
        connection.execute("BEGIN IMMEDIATE")  # closed without COMMIT, nothing has changed
        for old in left:
            _rewrite(connection, f"{old}/", f"{root.as_uri()}/")
            _rewrite(connection, f"{_path(old)}/", f"{root}/")  # MLflow's own experiment, "Default"
        connection.execute("COMMIT")
    return [_path(old) for old in left]


def _root(name: str, place: str | None) -> str | None:
    """The root of the repository in which the experiment `name` was made, as a URI."""
    root, separator, rest = (place or "").rpartition(f"/{ARTIFACTS}/")
    return root if separator and rest == name and root.startswith("file:") else None


def _path(uri: str) -> str:
    return url2pathname(urlsplit(uri).path)


def _same(old: str, root: Path) -> bool:
    """Whether a place is this one, also by another name."""
    if old == root.as_uri():
        return True
    with suppress(OSError):
        return Path(_path(old)).samefile(root)
    return False


def _rewrite(connection: sqlite3.Connection, old: str, new: str) -> None:
    for table, columns in PLACES.items():
        there = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
        for column in there.intersection(columns):
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                (new, len(old) + 1, len(old), old),
            )
