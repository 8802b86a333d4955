"""The MLflow store: where it is, whether it answers, and its experiments."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mtl import lineage
from mtl.errors import UserError, one_line
from mtl.tracking.advice import MEND, NO_ANSWER, START, explained
from mtl.tracking.opening import ARTIFACTS, open_store, quieten

if TYPE_CHECKING:
    from mlflow import MlflowClient

SECONDS = 5  # how long a server may take to answer at all
REQUEST_SECONDS = 30  # how long it may take for a request: it has a database and an artifact store to ask


def uri() -> str:
    """`$MLFLOW_TRACKING_URI`, else the SQLite store in the root of the repository."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{lineage.root() / 'mlflow.db'}"


@contextmanager
def client() -> Iterator[MlflowClient]:
    """A client to look up what was logged.

    Raises UserError where nothing was logged yet, or where the tracking server does not answer or refuses us.
    """
    import mlflow

    refuse_absent()
    prepare_client()
    with answers():
        yield mlflow.MlflowClient()


def refuse_absent() -> None:
    """Raises UserError where there is no store yet, and nothing to be looked up in one."""
    root = lineage.root()
    if uri() != f"sqlite:///{root / 'mlflow.db'}" or (root / "mlflow.db").exists():
        return
    server = "set MLFLOW_TRACKING_URI to a server"
    if (root / "dvc.yaml").exists():
        raise UserError(
            f"there is no mlflow.db here: no run was logged in this folder yet; `dvc repro` does it, or {server}"
        )
    raise UserError(f"there is no mlflow.db here, and {root} is no project; go to the root of one, or {server}")


def prepare_client(seconds: int = REQUEST_SECONDS) -> None:
    """Point MLflow at the store, once per process, before its first use; a request may take so many seconds."""
    import mlflow

    # `mlflow run` sets these; they would pull the runs of all stages into one.
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        os.environ.pop(name, None)
    # MLflow's own 120 s and 7 retries would hold a stage for many minutes when a server goes away. What is tried again
    # is decided here (a stage: at its end): a second request could make a second model where the first was slow.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(seconds))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    # It prints the address of each run with the user and password in it.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    quieten()
    mlflow.set_tracking_uri(uri())


@contextmanager
def answers(more: str = "") -> Iterator[None]:
    """Open the store; turn what fails in it into one line that names it (without its password), and ends in `more`."""
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    errors = (MlflowException, SQLAlchemyError, requests.RequestException, ImportError, ValueError)
    name = f"the MLflow {'tracking server' if _is_served() else 'store'} {shown()}"
    try:
        if (why := silence()) is not None:
            raise UserError(f"{name}: {why}{more}")
        open_store(uri(), lineage.root())
    except (*errors, OSError, sqlite3.Error) as error:
        mend = f"; {MEND}" if isinstance(error, OSError) and not explained(error) else ""
        raise UserError(f"{name}: {_told(error)}{mend}{more}") from None
    try:
        yield
    except errors as error:
        raise UserError(f"{name}: {_told(error)}{more}") from None


def _is_served() -> bool:
    return uri().startswith(("http:", "https:"))


def silence() -> str | None:
    """Why a tracking server does not answer at all within SECONDS, and what to do; None where it does.

    A database is not asked. A server is, with the certificates that MLflow's own requests go by.
    """
    import requests
    from mlflow.utils.credentials import get_default_host_creds

    if not _is_served():
        return None
    try:
        by = get_default_host_creds(uri())
        requests.get(uri(), timeout=SECONDS, verify=by.verify, cert=by.client_cert_path)
    except (OSError, ValueError) as error:  # those of requests are among them; a certificate's file may not be there
        known = explained(error)
        return known if known not in (None, NO_ANSWER) else f"{NO_ANSWER}; {START}"
    return None


def shown() -> str:
    """The tracking URI without user and password."""
    scheme, separator, rest = uri().partition("://")
    return scheme + separator + rest.rpartition("@")[2].rstrip("/")


def reason(error: Exception) -> str:
    """What a failed call says and what to do, in one line, without the password that MLflow quotes with the address."""
    said = one_line(error).replace(uri(), shown())
    if status := re.search(r"too many (\d{3}) error responses", said):
        return f"it answers with error {status[1]}; its log says why"
    if known := explained(error):
        return known
    return NO_ANSWER if re.search("Max retries exceeded|timeout exception", said) else said[:300]


def _told(error: Exception) -> str:
    said = reason(error)
    return f"{said}; {START}" if said == NO_ANSWER else said


def experiment_id(name: str) -> str:
    """The id of the experiment `name`, made where it is not there yet."""
    import mlflow
    from mlflow.exceptions import MlflowException

    local = (lineage.root() / ARTIFACTS / name).as_uri() if uri().startswith("sqlite:") else None
    found = mlflow.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    try:
        return mlflow.create_experiment(name, artifact_location=local)
    except MlflowException:  # another client of the same store was first
        found = mlflow.get_experiment_by_name(name)
        if found is None:
            raise
        return found.experiment_id
