"""Opening the store: one process at a time creates it, and its paths follow a repository that was moved."""

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
# The columns with locations of files, which MLflow always writes as absolute addresses.
LOCATION_COLUMNS = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
    "trace_tags": ("value",),
}
_KEY = 0x6D6C666C6F77  # "mlflow": the number of PostgreSQL's lock


def open_store(uri: str, root: Path) -> None:
    """Create the store where it is missing, before anything uses it; update its paths where the repository was moved.

    Raises OSError and the errors of SQLAlchemy and MLflow.
    """
    quieten()
    file = database(uri)
    _create_tables(uri, file)
    if file is not None and file == root / "mlflow.db" and not file.is_symlink() and _former_roots(file, root):
        with _store_lock(uri, file):
            for old in _relocate(file, root):
                print(f"MLflow: this project was in {old}; its runs and models are in {root} now", file=sys.stderr)


def quieten() -> None:
    """Keep MLflow's progress and tracebacks off the terminal: errors are raised too, and printed in one line."""
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
def _create_tables(uri: str, file: Path | None) -> None:
    """Let MLflow connect for the first time in this process, which creates the tables that are missing.

    MLflow takes no lock for it: of two processes, one would fail half-way through.
    """
    import mlflow

    if file is not None:
        _check_opens(file)
    with _store_lock(uri, file):
        if file is not None and (not file.exists() or not file.stat().st_size):
            _create_file(file)
        if not uri.startswith(("http:", "https:")):
            mlflow.MlflowClient(uri, uri).search_experiments(max_results=1)


def _check_opens(file: Path) -> None:
    """Raise SQLite's error for a file that it cannot open, at once: MLflow would retry for minutes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists():
        with _connection(file) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master")


def _create_file(file: Path) -> None:
    """Create an SQLite store under another name, then rename it: MLflow cannot complete the tables after a kill."""
    from mlflow.db import upgrade

    temporary = file.with_name(f"{file.name}.tmp")
    for residue in file.parent.glob(f"{temporary.name}*"):
        residue.unlink()
    try:
        upgrade.main([f"sqlite:///{temporary}"], standalone_mode=False)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _store_lock(uri: str, file: Path | None) -> Iterator[None]:
    """Hold the lock of a store: a file beside the SQLite database, or a lock in the database server."""
    if file is not None:
        from filelock import FileLock

        real = file.resolve()
        lock = FileLock(real.with_name(f".{real.stem}.lock"))
        try:
            lock.acquire()
        except OSError:  # a read-only folder: nothing will be created in it
            if not file.exists():
                raise
        try:
            yield
        finally:
            lock.release()
    elif uri.startswith(("postgresql", "mysql", "mssql")):
        import sqlalchemy

        engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
        with engine.begin() as connection:  # fails at once where MLflow would retry for minutes
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


def _former_roots(file: Path, root: Path) -> list[str]:
    """The other roots, as URIs, that locations in a store are below: where the repository was before."""
    with _connection(file) as connection:
        locations = connection.execute("SELECT name, artifact_location FROM experiments").fetchall()
    return sorted(
        {old for name, location in locations if (old := _root(name, location)) and not _is_same_folder(old, root)}
    )


def _relocate(file: Path, root: Path) -> list[str]:
    """Rewrite the locations in a store that are not below `root`; return the former roots."""
    former = _former_roots(file, root)
    with _connection(file) as connection:
        connection.execute("BEGIN IMMEDIATE")  # without COMMIT nothing changes
        for old in former:
            _rewrite(connection, f"{old}/", f"{root.as_uri()}/")
            _rewrite(connection, f"{_path(old)}/", f"{root}/")  # MLflow's own experiment, "Default"
        connection.execute("COMMIT")
    return [_path(old) for old in former]


def _root(name: str, location: str | None) -> str | None:
    """The root, as a URI, of the repository in which the experiment `name` was created; None for other locations."""
    root, separator, rest = (location or "").rpartition(f"/{ARTIFACTS}/")
    return root if separator and rest == name and root.startswith("file:") else None


def _path(uri: str) -> str:
    return url2pathname(urlsplit(uri).path)


def _is_same_folder(old: str, root: Path) -> bool:
    """Tell whether the URI `old` is the folder `root`, also under another name."""
    if old == root.as_uri():
        return True
    with suppress(OSError):
        return Path(_path(old)).samefile(root)
    return False


def _rewrite(connection: sqlite3.Connection, old: str, new: str) -> None:
    for table, columns in LOCATION_COLUMNS.items():
        existing = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
        for column in existing.intersection(columns):
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                (new, len(old) + 1, len(old), old),
            )
