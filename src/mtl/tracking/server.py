"""The MLflow store: its address, its state and its experiments."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mtl import lineage
from mtl.errors import UserError, one_line
from mtl.tracking.advice import MEND, NO_ANSWER, START, explain
from mtl.tracking.opening import ARTIFACTS, open_store, quieten

if TYPE_CHECKING:
    from mlflow import MlflowClient

SECONDS = 5  # timeout of the first request, which only asks whether a server answers
REQUEST_SECONDS = 30  # timeout of a request, for which the server asks a database and an artifact store


def uri() -> str:
    """`$MLFLOW_TRACKING_URI`, else the SQLite store in the root of the repository."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{lineage.root() / 'mlflow.db'}"


@contextmanager
def client() -> Iterator[MlflowClient]:
    """Yield a client for reading what was logged.

    Raises UserError where nothing was logged yet, or where the tracking server does not answer or denies access.
    """
    import mlflow

    refuse_absent()
    prepare_client()
    with translating_errors():
        yield mlflow.MlflowClient()


def refuse_absent() -> None:
    """Raise UserError where there is no store yet, so that there is nothing to look up."""
    root = lineage.root()
    if uri() != f"sqlite:///{root / 'mlflow.db'}" or (root / "mlflow.db").exists():
        return
    server = "set MLFLOW_TRACKING_URI to a server"
    if (root / "dvc.yaml").exists():
        raise UserError(
            f"there is no mlflow.db here: no run was logged in this folder yet; `dvc repro` logs one, or {server}"
        )
    raise UserError(f"there is no mlflow.db here, and {root} is no project; go to the root of one, or {server}")


def prepare_client(seconds: int = REQUEST_SECONDS) -> None:
    """Point MLflow at the store before its first use in a process; `seconds` is the timeout of a request."""
    import mlflow

    # `mlflow run` sets these; they would pull the runs of all stages into one.
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        os.environ.pop(name, None)
    # MLflow's own 120 s and 7 retries would hold a stage for many minutes when a server goes away. This project decides
    # what is sent again (by a stage: at its end): a retry could create a second model where the first was slow.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(seconds))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    # MLflow prints the address of each run, with user and password.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    quieten()
    mlflow.set_tracking_uri(uri())


@contextmanager
def translating_errors(suffix: str = "") -> Iterator[None]:
    """Open the store, and turn its errors into UserError: one line that names it, without password, plus `suffix`."""
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    errors = (MlflowException, SQLAlchemyError, requests.RequestException, ImportError, ValueError)
    name = f"the MLflow {'tracking server' if _is_served() else 'store'} {public_uri()}"
    try:
        if (why := unreachable_reason()) is not None:
            raise UserError(f"{name}: {why}{suffix}")
        open_store(uri(), lineage.root())
    except (*errors, OSError, sqlite3.Error) as error:
        mend = f"; {MEND}" if isinstance(error, OSError) and not explain(error) else ""
        raise UserError(f"{name}: {_reason_and_advice(error)}{mend}{suffix}") from None
    try:
        yield
    except errors as error:
        raise UserError(f"{name}: {_reason_and_advice(error)}{suffix}") from None


def _is_served() -> bool:
    return uri().startswith(("http:", "https:"))


def unreachable_reason() -> str | None:
    """The reason why a tracking server does not answer within SECONDS, with advice; None where it does.

    The request uses the certificates that MLflow's own requests use. A database is not asked: None.
    """
    import requests
    from mlflow.utils.credentials import get_default_host_creds

    if not _is_served():
        return None
    try:
        credentials = get_default_host_creds(uri())
        requests.get(uri(), timeout=SECONDS, verify=credentials.verify, cert=credentials.client_cert_path)
    except (OSError, ValueError) as error:  # includes those of requests; the file of a certificate may be missing
        known = explain(error)
        return known if known not in (None, NO_ANSWER) else f"{NO_ANSWER}; {START}"
    return None


def public_uri() -> str:
    """The tracking URI without user and password."""
    scheme, separator, rest = uri().partition("://")
    return scheme + separator + rest.rpartition("@")[2].rstrip("/")


def reason(error: Exception) -> str:
    """The message of a failed call, with advice, in one line, without the password that MLflow quotes in addresses."""
    message = one_line(error).replace(uri(), public_uri())
    if status := re.search(r"too many (\d{3}) error responses", message):
        return f"it answers with error {status[1]}; its log says why"
    if known := explain(error):
        return known
    return NO_ANSWER if re.search("Max retries exceeded|timeout exception", message) else message[:300]


def _reason_and_advice(error: Exception) -> str:
    message = reason(error)
    return f"{message}; {START}" if message == NO_ANSWER else message


def experiment_id(name: str) -> str:
    """The id of the experiment `name`, which is created where it does not exist."""
    import mlflow
    from mlflow.exceptions import MlflowException

    local = (lineage.root() / ARTIFACTS / name).as_uri() if uri().startswith("sqlite:") else None
    experiment = mlflow.get_experiment_by_name(name)
    if experiment is not None:
        return experiment.experiment_id
    try:
        return mlflow.create_experiment(name, artifact_location=local)
    except MlflowException:  # another client of the same store was first
        experiment = mlflow.get_experiment_by_name(name)
        if experiment is None:
            raise
        return experiment.experiment_id
