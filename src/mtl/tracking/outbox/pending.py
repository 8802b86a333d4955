"""Log what an outage left unlogged: `mtl log --pending`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mtl.errors import UserError
from mtl.tracking.outbox.identity import Identity
from mtl.tracking.outbox.journal import Journal, remove_residue, root
from mtl.tracking.server import answers, prepare_client, shown, uri

PATIENCE = 300  # seconds that a request may take here: nothing waits for it, and a model may be large


@dataclass(frozen=True)
class Pending:
    """A run that is not logged as a whole: which, and what of it is missing, in the order in which it was made."""

    journal: Journal
    identity: Identity
    missing: tuple[str, ...]

    def __str__(self) -> str:
        run = f"run {self.identity.run_id[:8]}" if self.identity.run_id else "a run that could not be begun"
        return f"{self.identity.experiment}: {run} ({', '.join(self.missing) or 'its end'})"


def journals() -> list[Journal]:
    """All that there are, the oldest first."""
    return [Journal(path.parent) for path in sorted(root().glob("[0-9]*/run.json"))]


def everything() -> list[Pending]:
    """What is pending, the oldest first. Raises UserError where it cannot be read."""
    found = []
    for journal in journals():
        try:
            missing = tuple(dict.fromkeys(call.what for _, call in journal.calls()))
            found.append(Pending(journal, journal.identity, missing))
        except (UserError, FileNotFoundError):
            if journal.exists():  # else it was logged meanwhile
                raise
    return found


def advice() -> str:
    """What to do about a run that is not in the store; empty where nothing is pending."""
    count = len(journals())
    if not count:
        return ""
    return f"{count} {'run is' if count == 1 else 'runs are'} not logged as a whole: `mtl log --pending` first"


def log_all() -> Iterator[str]:
    """Log all that is pending for the present server; yield a line for each run.

    It can be stopped at any moment and done again: nothing is logged twice, and nothing is forgotten before the server
    has it.

    Raises:
        UserError: the server is away, refuses something or does not have a run; all is for another server; another
            process does it already.
    """
    with _alone():
        remove_residue()
        found = everything()
        ours = [entry for entry in found if entry.identity.uri == shown()]
        others = sorted({entry.identity.uri for entry in found} - {shown()})
        elsewhere = [f"MLFLOW_TRACKING_URI={other} mtl log --pending" for other in others]
        if elsewhere and not ours:
            raise UserError(f"nothing is pending for {shown()}, but for another server: {'; '.join(elsewhere)}")
        if not found:
            yield "nothing is pending"
        prepare_client(PATIENCE)
        problems: list[str] = []
        for entry in ours:
            with entry.journal.held() as free:
                if not free or not entry.journal.exists():
                    yield f"{entry}: left to its stage, which is still running"
                    continue
                with answers("; nothing is lost"):
                    said = _log(entry.journal)
            problems += said
            yield f"{entry}: {'not all of it was logged' if said else 'logged'}"
        yield from (f"for another server: {command}" for command in elsewhere)
        if problems:
            raise UserError("; ".join(problems))


def _log(journal: Journal) -> list[str]:
    """Log it; return what could not be, in words. Raises what the client raises where the server is away."""
    import mlflow

    try:
        return journal.log(mlflow.MlflowClient(uri(), uri()))
    except UserError as error:  # of this run alone
        return [str(error)]


@contextmanager
def _alone() -> Iterator[None]:
    from filelock import FileLock, Timeout

    if not root().is_dir():
        yield
        return
    try:
        with FileLock(root() / "lock", timeout=0):
            yield
    except Timeout:
        raise UserError("another `mtl log --pending` is at work in this repository; wait for its end") from None
