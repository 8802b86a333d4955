"""Advice for errors of MLflow, its database or its server that do not say what to do."""

from __future__ import annotations

import re

NO_ANSWER = "no answer"
START = "start it, or mend or unset MLFLOW_TRACKING_URI"
MEND = "mend or unset MLFLOW_TRACKING_URI"

# Text in an error -> what is wrong; what would be right. The first match counts. Databases: SQLite, PostgreSQL.
_KNOWN = {
    r"database or disk is full|No space left on device|File too large": "the disk is full; make room",
    r"unable to open database file": f"it cannot be opened; make its folder and give access there, or {MEND}",
    r"database is locked": "another program is writing into it; try again when that has ended",
    r"readonly database|Errno 13|Read-only file system": "it can only be read; give write access to it and its folder",
    r"not a database|malformed": f"it is damaged, or no database; restore a copy or move it away, or {MEND}",
    r"out-of-date database schema": "an older MLflow made it; copy it, then run `mlflow db upgrade`",
    r"Can't locate revision": f"a newer MLflow made it; install that one, or {MEND}",
    r"duplicate column name|table \S+ already exists": "an MLflow that was killed left it incomplete; move it away",
    r"authentication failed|no password supplied": "wrong or no user and password in MLFLOW_TRACKING_URI; mend them",
    r'database "[^"]*" does not exist': f"it has no such database; make it, or {MEND}",
    r"(?i)connection refused|failed to resolve host|could not translate host name|server closed the connection|"
    r"connection timeout|no route to host": NO_ANSWER,
}


def explain(error: Exception) -> str | None:
    """The problem and what to do about it, in one line; None for an error that is not known here."""
    message = str(error)
    if getattr(error, "error_code", "") in {"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}:
        return "wrong or no user and password; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    if deleted := re.search(r"The (experiment|run) (\S+) must be in the 'active' state", message):
        return deleted_advice(*deleted.groups())
    if missing := re.search(r"No module named '([^'.]+)", message):
        return f"{missing[1]} is not installed; install its package, or {MEND}"
    if re.search(r"unsupported URI|Could not find a registered|Can't load plugin|parse SQLAlchemy URL", message):
        return f"no address that MLflow knows; {MEND}"
    if files := re.search(r"No such artifact: '?([^']*)", message):
        name = f"{files[1]}: " if files[1].strip(".") else ""
        return f"{name}the store knows it, but its files are gone; restore them from a copy, or log it again"
    if untrusted := re.search(r"certificate verify failed:? ?([^(\n]*)", message):
        why = untrusted[1].strip() or "it cannot be verified"
        return f"its certificate is not trusted: {why}; set MLFLOW_TRACKING_SERVER_CERT_PATH to a file of trusted ones"
    if re.search("alert (certificate required|bad certificate|unknown ca|handshake failure)", message):
        return "it requires a client certificate; set MLFLOW_TRACKING_CLIENT_CERT_PATH to a file with it and its key"
    if nowhere := re.search(r"TLS [^:]*, invalid path: ([^'\")\n]+)", message):
        return f"{nowhere[1]}: no such file; mend or unset MLFLOW_TRACKING_SERVER_CERT_PATH or …_CLIENT_CERT_PATH"
    if unknown := re.search(r"endpoint (\S+) failed with error code 404", message):
        older = "an MLflow before 3, which logs no models and has none to promote"
        other = "mend MLFLOW_TRACKING_URI, or start what is behind it"
        return f"it does not know {unknown[1]}: {older if 'logged-models' in unknown[1] else other}"
    return next((advice for pattern, advice in _KNOWN.items() if re.search(pattern, message)), None)


def deleted_advice(kind: str, identity: str) -> str:
    """The line about a deleted experiment or run (`kind`), with the commands that restore or remove it."""
    restore = f"`mlflow {kind}s restore --{kind}-id {identity}`"
    return f"the {kind} {identity} was deleted; {restore} restores it, `mlflow gc --{kind}-ids {identity}` removes it"
