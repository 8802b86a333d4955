"""What stands between a run and its server: calls are sent, or written down where the server is away."""

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
from mtl.tracking.server import reason, silence

END = "end of the run"
LATER = "`mtl log --pending` logs it when the server is back"


class Sender:
    """Tells a run's server what is logged.

    From the first call on that its server does not take, everything is written down and nothing is sent, so that a
    stage waits for a server once; at the end it is asked once more. What the server refuses is noted in `lost`.
    """

    def __init__(self, identity: Identity) -> None:
        """A run that was begun, or (`run_id` None) could not be: then all of it is written down."""
        import mlflow

        self.identity, self.client = identity, mlflow.MlflowClient()
        self.away = identity.run_id is None
        self.lost: list[str] = []  # for good
        self.pending: list[str] = []  # written down
        self._journal: Journal | None = None
        self._why = ""  # nothing could be written down

    def send(self, call: Call, build: Callable[[Path], object] | None = None) -> None:
        """Send a call, with the files that `build` writes into a folder; write it down where the server is away."""
        with tempfile.TemporaryDirectory() as folder:
            files = Path(folder)
            try:
                if build is not None:
                    build(files)
            except Exception as error:  # MLflow, Keras and Matplotlib write them, and no model is worth less for that
                self._lose(call, error)
                return
            if not self.away:
                try:
                    calls.perform(self.client, self.identity.run_id, call, files)
                    return
                except Exception as error:  # the client raises what requests, SQLAlchemy or the artifact store raise
                    if calls.refused(error):
                        self._lose(call, error)
                        return
                    self.away = True
                    if self._write_down(call, files, reason(error)):
                        self.leave(call.what, error)
                    return
            self._write_down(call, files)

    def leave(self, what: str, error: Exception) -> None:
        """Say that the server is away, and send it nothing more."""
        self.away = True
        print(
            f"MLflow: cannot log {what}: {reason(error)}; the stage goes on, what it logs is written down",
            file=sys.stderr,
        )

    def _write_down(self, call: Call, files: Path, why: str = "") -> bool:
        """Whether it could be; where not, the reason is that and `why`, and is said once, with all that was lost."""
        try:
            self._journal = self._journal or Journal.begin(self.identity)
            self._journal.add(call, files)
        except Exception as error:  # a full disk
            both = (why, reason(error))
            self._why = self._why or "; not written down: ".join(dict.fromkeys(filter(None, both)))
            self.lost.append(call.what)
            return False
        self.pending.append(call.what)
        return True

    def _lose(self, call: Call, error: Exception) -> None:
        print(f"MLflow: cannot log {call.what}: {reason(error)}; the stage goes on without it", file=sys.stderr)
        self.lost.append(call.what)

    def end(self, status: str) -> None:
        """End the run as FINISHED, FAILED or KILLED; log what was written down if the server is back by now."""
        self.send(Call("end", END, {"status": status, "end_time": milliseconds()}))
        if self._journal is None:
            return
        try:
            if self.pending and silence() is None:
                written, refused = self.pending, self._journal.log(self.client)
                self.pending = [call.what for _, call in self._journal.calls()] if refused else []
                logged = [what for what in dict.fromkeys(written) if what not in self.pending]
                for line in refused:
                    print(f"MLflow: {line}", file=sys.stderr)
                if logged:
                    print(f"MLflow: logged after all: {', '.join(logged)}", file=sys.stderr)
        except Exception as error:  # it is not back
            print(f"MLflow: still away: {reason(error)}", file=sys.stderr)
        finally:
            self._journal.release()

    def report(self) -> None:
        """Say what was not logged."""
        if self.pending:
            print(f"MLflow: not logged: {', '.join(dict.fromkeys(self.pending))}; {LATER}", file=sys.stderr)
        if self.lost:
            why = f": {self._why}" if self._why else ""
            print(f"MLflow: not logged: {', '.join(dict.fromkeys(self.lost))}{why}", file=sys.stderr)


def milliseconds() -> int:
    """Since the epoch, as MLflow counts time."""
    return time.time_ns() // 1_000_000
