"""Sending the calls of a run: to its server, or into a journal while the server is away."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mtl.tracking.outbox import calls
from mtl.tracking.outbox.calls import Call
from mtl.tracking.outbox.identity import Identity
from mtl.tracking.outbox.journal import Journal
from mtl.tracking.server import reason, unreachable_reason

END = "end of the run"
LATER = "`mtl log --pending` logs it when the server is back"


class Sender:
    """Sends the calls of a run to its server.

    After the first call that the server does not answer, all calls are written down and none is sent, so that a stage
    waits for a server only once. At the end of the run it is tried again.

    Attributes:
        away: whether calls are written down instead of sent.
        lost: names of the calls that the server refused, or that could not be written down.
        pending: names of the calls that were written down.
    """

    def __init__(self, identity: Identity) -> None:
        """Take a run that was begun, or one that could not be (`run_id` None), all of whose calls are written down."""
        import mlflow

        self.identity, self.client = identity, mlflow.MlflowClient()
        self.away = identity.run_id is None
        self.lost: list[str] = []
        self.pending: list[str] = []
        self._journal: Journal | None = None
        self._write_error = ""  # why calls could not be written down

    def send(self, call: Call, build: Callable[[Path], object] | None = None) -> None:
        """Send a call, with the files that `build` writes into a folder; write it down where the server is away."""
        with tempfile.TemporaryDirectory() as folder:
            files = Path(folder)
            try:
                if build is not None:
                    build(files)
            except Exception as error:  # of MLflow, Keras or Matplotlib: the stage's result is as good without
                self._drop(call, error)
                return
            run_id = self.identity.run_id
            if run_id is not None and not self.away:
                try:
                    calls.perform(self.client, run_id, call, files)
                    return
                except Exception as error:  # also of requests, SQLAlchemy or the artifact store
                    if calls.refused(error):
                        self._drop(call, error)
                        return
                    self.away = True
                    if self._write_down(call, files, reason(error)):
                        self.go_offline(call.what, error)
                    return
            self._write_down(call, files)

    def go_offline(self, what: str, error: Exception) -> None:
        """Print that the server is away, and send it nothing more."""
        self.away = True
        print(
            f"MLflow: cannot log {what}: {reason(error)}; the stage goes on, what it logs is written down",
            file=sys.stderr,
        )

    def _write_down(self, call: Call, files: Path, why: str = "") -> bool:
        """Write a call into the journal; return whether that worked. If not, `report` prints the error after `why`."""
        try:
            self._journal = self._journal or Journal.begin(self.identity)
            self._journal.add(call, files)
        except Exception as error:  # a full disk
            reasons = dict.fromkeys(filter(None, (why, reason(error))))
            self._write_error = self._write_error or "; not written down: ".join(reasons)
            self.lost.append(call.what)
            return False
        self.pending.append(call.what)
        return True

    def _drop(self, call: Call, error: Exception) -> None:
        print(f"MLflow: cannot log {call.what}: {reason(error)}; the stage goes on without it", file=sys.stderr)
        self.lost.append(call.what)

    def end(self, status: str) -> None:
        """End the run as FINISHED, FAILED or KILLED; send what was written down if the server is back."""
        self.send(Call("end", END, {"status": status, "end_time": milliseconds()}))
        if self._journal is None:
            return
        try:
            if self.pending and unreachable_reason() is None:
                written, refused = self.pending, self._journal.log(self.client)
                self.pending = [call.what for _, call in self._journal.calls()] if refused else []
                logged = [what for what in dict.fromkeys(written) if what not in self.pending]
                for line in refused:
                    print(f"MLflow: {line}", file=sys.stderr)
                if logged:
                    print(f"MLflow: logged after all: {', '.join(logged)}", file=sys.stderr)
        except Exception as error:  # the server is not back
            print(f"MLflow: still away: {reason(error)}", file=sys.stderr)
        finally:
            self._journal.release()

    def report(self) -> None:
        """Print the calls that were not logged."""
        if self.pending:
            print(f"MLflow: not logged: {', '.join(dict.fromkeys(self.pending))}; {LATER}", file=sys.stderr)
        if self.lost:
            why = f": {self._write_error}" if self._write_error else ""
            print(f"MLflow: not logged: {', '.join(dict.fromkeys(self.lost))}{why}", file=sys.stderr)


def milliseconds() -> int:
    """Milliseconds since the epoch, MLflow's unit of time."""
    return time.time_ns() // 1_000_000
