"""Notes of the runs of stages in progress, so that the next stage ends a run whose process was killed.

`.running/<id>/` is one run: `run.json` identifies it, and its process locks `lock`, which the system unlocks when the
process ends, however that happens. Notes of another machine, in a shared or copied folder, are ignored.
"""

from __future__ import annotations

import contextlib
import platform
import shutil
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mtl import files, lineage
from mtl.errors import UserError
from mtl.tracking.outbox import calls
from mtl.tracking.outbox.identity import Identity, find
from mtl.tracking.outbox.locks import try_lock
from mtl.tracking.server import public_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient


def root() -> Path:
    """The folder of all notes."""
    return lineage.root() / ".running"


class Note:
    """The note of a run that is about to begin. Where it cannot be written, the run begins without."""

    def __init__(self, identity: Identity) -> None:
        from filelock import FileLock

        folder = root() / uuid.uuid4().hex
        self._folder, self._lock = folder, FileLock(folder / "lock")
        with contextlib.suppress(OSError, NotImplementedError):
            folder.mkdir(parents=True)
            self._lock.acquire(timeout=0)
            self.write(identity)

    def write(self, identity: Identity) -> None:
        """Write the identity of the run; again once it has an id."""
        with contextlib.suppress(UserError):
            if self._lock.is_locked:
                files.write_json(self._folder / "run.json", {"owner": _owner(), "identity": asdict(identity)})

    def remove(self) -> None:
        """Remove the note of a run that has ended."""
        _remove(self._folder)
        self._lock.release()


def end_killed(client: MlflowClient) -> None:
    """End the runs of this store whose process is gone. Raises the client's error where the server is away."""
    from filelock import FileLock

    for folder in sorted(root().glob("*")):
        with try_lock(FileLock(folder / "lock")) as is_held:
            if not is_held:  # its process is alive
                continue
            try:
                note = files.read_json(folder / "run.json")
                owner, identity = note["owner"], Identity(**note["identity"])
            except (UserError, OSError, TypeError, KeyError):  # the process was killed before it wrote that
                _remove(folder)
                continue
            if owner == _owner() and identity.uri == public_uri():
                _end(client, identity)
                _remove(folder)


def _end(client: MlflowClient, identity: Identity) -> None:
    run_id = identity.run_id or find(client, identity)
    try:
        if run_id is not None and client.get_run(run_id).info.status == "RUNNING":
            client.set_tag(run_id, "reason", "its process was killed")
            client.set_terminated(run_id, "KILLED")
    except Exception as error:  # the run was deleted
        if not calls.refused(error):
            raise


def _owner() -> list[str]:
    return [platform.node(), str(lineage.root())]


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # other notes are in it
        folder.parent.rmdir()
