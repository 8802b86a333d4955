"""The MLflow store: where it is, whether it answers, and its experiments."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mtl import lineage
from mtl.errors import UserError, one_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

SECONDS = 5  # how long a server may take to answer at all
REQUEST_SECONDS = 30  # how long it may take for a request: it has a database and an artifact store to ask
ADVICE = "start it, or mend or unset MLFLOW_TRACKING_URI"


def uri() -> str:
    """`$MLFLOW_TRACKING_URI`, else the SQLite store in the root of the repository."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{lineage.root() / 'mlflow.db'}"


@contextmanager
def client() -> Iterator[MlflowClient]:
    """A client to look up what was logged.

    Raises UserError where nothing was logged yet, or where the tracking server does not answer or refuses us.
    """
    import mlflow

    database = lineage.root() / "mlflow.db"
    if uri() == f"sqlite:///{database}" and not database.exists():
        raise UserError(f"there is no {database.name} here: no run was logged in this folder yet; `dvc repro` does it")
    prepare_client()
    with answers():
        yield mlflow.MlflowClient()


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
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    mlflow.set_tracking_uri(uri())


@contextmanager
def answers(more: str = "") -> Iterator[None]:
    """Turn what fails in the store into one line that names the server (without its password), and ends in `more`."""
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        if (why := silence()) is not None:
            raise UserError(f"the MLflow tracking server {shown()}: {why}{more}")
        yield
    except (MlflowException, SQLAlchemyError, requests.RequestException, ImportError, ValueError) as error:
        said = _explained(error) or f"{reason(error)}; {ADVICE}"
        raise UserError(f"the MLflow tracking server {shown()}: {said}{more}") from None


def silence() -> str | None:
    """Why a tracking server does not answer at all within SECONDS, and what to do; None where it does.

    A database is not asked. A server is, with the certificates that MLflow's own requests go by.
    """
    import requests
    from mlflow.utils.credentials import get_default_host_creds

    if not uri().startswith(("http:", "https:")):
        return None
    try:
        by = get_default_host_creds(uri())
        requests.get(uri(), timeout=SECONDS, verify=by.verify, cert=by.client_cert_path)
    except (OSError, ValueError) as error:  # those of requests are among them; a certificate's file may not be there
        return _explained(error) or f"no answer; {ADVICE}"
    return None


def shown() -> str:
    """The tracking URI without user and password."""
    scheme, separator, rest = uri().partition("://")
    return scheme + separator + rest.rpartition("@")[2].rstrip("/")


def reason(error: Exception) -> str:
    """What a failed call says, in one line, without the password that MLflow quotes with the address."""
    said = one_line(error).replace(uri(), shown())
    if status := re.search(r"too many (\d{3}) error responses", said):
        return f"it answers with error {status[1]}"
    if explained := _explained(error):
        return explained
    return "no answer" if re.search("Max retries exceeded|timeout exception", said) else said[:300]


def _explained(error: Exception) -> str | None:
    """What a person has to do about a server's answer, where the answer itself does not say it."""
    if getattr(error, "error_code", "") in {"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}:
        return "wrong or no user and password; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    if untrusted := re.search(r"certificate verify failed:? ?([^(\n]*)", str(error)):
        why = untrusted[1].strip() or "it cannot be verified"
        return f"its certificate is not trusted: {why}; MLFLOW_TRACKING_SERVER_CERT_PATH names a file of those that are"
    if re.search("alert (certificate required|bad certificate|unknown ca|handshake failure)", str(error)):
        return "it wants a certificate of ours; MLFLOW_TRACKING_CLIENT_CERT_PATH names a file with it and its key"
    if nowhere := re.search(r"TLS [^:]*, invalid path: ([^'\")\n]+)", str(error)):
        return f"{nowhere[1]}: no such file; mend or unset MLFLOW_TRACKING_SERVER_CERT_PATH or …_CLIENT_CERT_PATH"
    if unknown := re.search(r"endpoint (\S+) failed with error code 404", str(error)):
        older = "an MLflow before 3, which logs no models and has none to promote"
        other = "mend MLFLOW_TRACKING_URI, or start what is behind it"
        return f"it does not know {unknown[1]}: {older if 'logged-models' in unknown[1] else other}"
    return None


def experiment_id(name: str) -> str:
    """The id of the experiment `name`, made where it is not there yet."""
    import filelock
    import mlflow
    from mlflow.exceptions import MlflowException

    local = lineage.root() / "mlartifacts" / name if uri().startswith("sqlite:") else None
    # The first process migrates the database; a second one beside it would fail half-way through.
    with filelock.FileLock(lineage.root() / ".mlflow.lock"):
        found = mlflow.get_experiment_by_name(name)
        if found is not None:
            return found.experiment_id
        try:
            return mlflow.create_experiment(name, artifact_location=local and local.as_uri())
        except MlflowException:  # another client of the same server was first
            found = mlflow.get_experiment_by_name(name)
            if found is None:
                raise
            return found.experiment_id
