"""List and send what an outage of the server left in journals: `mtl log --pending`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mtl.errors import UserError
from mtl.tracking.outbox.identity import Identity
from mtl.tracking.outbox.journal import Journal, remove_residue, root
from mtl.tracking.server import prepare_client, public_uri, translating_errors, uri

REQUEST_SECONDS = 300  # timeout of a request here: no stage waits for it, and a model may be large


@dataclass(frozen=True)
class Pending:
    """A run that is not logged completely, and the names of its missing calls in order."""

    journal: Journal
    identity: Identity
    missing: tuple[str, ...]

    def __str__(self) -> str:
        run = f"run {self.identity.run_id[:8]}" if self.identity.run_id else "a run that could not be begun"
        return f"{self.identity.experiment}: {run} ({', '.join(self.missing) or 'its end'})"


def journals() -> list[Journal]:
    """All journals, the oldest first."""
    return [Journal(path.parent) for path in sorted(root().glob("[0-9]*/run.json"))]


def all_pending() -> list[Pending]:
    """All pending runs, the oldest first. Raises UserError where one cannot be read."""
    runs = []
    for journal in journals():
        try:
            missing = tuple(dict.fromkeys(call.what for _, call in journal.calls()))
            runs.append(Pending(journal, journal.identity, missing))
        except (UserError, FileNotFoundError):
            if journal.exists():  # otherwise it was logged meanwhile
                raise
    return runs


def advice() -> str:
    """Advice about a run that is not in the store; empty where nothing is pending."""
    count = len(journals())
    if not count:
        return ""
    return f"{count} {'run is' if count == 1 else 'runs are'} not logged as a whole: `mtl log --pending` first"


def log_all() -> Iterator[str]:
    """Log all pending runs of the current server; yield a line for each.

    It can be stopped at any moment and repeated: nothing is logged twice, and nothing is removed before the server has
    it.

    Raises:
        UserError: the server is away, refuses something or does not have a run; all runs are for another server;
            another process is logging them.
    """
    with _exclusive():
        remove_residue()
        runs = all_pending()
        own = [run for run in runs if run.identity.uri == public_uri()]
        other_uris = sorted({run.identity.uri for run in runs} - {public_uri()})
        commands = [f"MLFLOW_TRACKING_URI={other} mtl log --pending" for other in other_uris]
        if commands and not own:
            raise UserError(f"nothing is pending for {public_uri()}, but for another server: {'; '.join(commands)}")
        if not runs:
            yield "nothing is pending"
        prepare_client(REQUEST_SECONDS)
        problems: list[str] = []
        for run in own:
            with run.journal.try_hold() as is_held:
                if not is_held or not run.journal.exists():
                    yield f"{run}: left to its stage, which is still running"
                    continue
                with translating_errors("; nothing is lost"):
                    failures = _log(run.journal)
            problems += failures
            yield f"{run}: {'not all of it was logged' if failures else 'logged'}"
        yield from (f"for another server: {command}" for command in commands)
        if problems:
            raise UserError("; ".join(problems))


def _log(journal: Journal) -> list[str]:
    """Send a journal; return a line for each failure. Raises the client's error where the server is away."""
    import mlflow

    try:
        return journal.log(mlflow.MlflowClient(uri(), uri()))
    except UserError as error:  # about this run alone
        return [str(error)]


@contextmanager
def _exclusive() -> Iterator[None]:
    from filelock import FileLock, Timeout

    if not root().is_dir():
        yield
        return
    try:
        with FileLock(root() / "lock", timeout=0):
            yield
    except Timeout:
        raise UserError("another `mtl log --pending` is at work in this repository; wait for its end") from None
