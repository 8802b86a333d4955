"""The runs that stages of this repository are at, so that one whose process was killed is ended by the next stage.

`.running/<id>/` is one run: `run.json` says which, and its process holds `lock`, which the system takes from a process
that is gone, however it ended. What another machine noted in a shared folder, or a copied one, is let alone.
"""

from __future__ import annotations

import contextlib
import platform
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mtl import files, lineage
from mtl.errors import UserError
from mtl.tracking.outbox import calls
from mtl.tracking.outbox.identity import Identity, find
from mtl.tracking.server import shown

if TYPE_CHECKING:
    from mlflow import MlflowClient


def root() -> Path:
    """Where all of it is."""
    return lineage.root() / ".running"


class Note:
    """The note of a run that is about to begin. A disk that takes none costs no run."""

    def __init__(self, identity: Identity) -> None:
        from filelock import FileLock

        folder = root() / uuid.uuid4().hex
        self._folder, self._lock = folder, FileLock(folder / "lock")
        with contextlib.suppress(OSError, NotImplementedError):
            folder.mkdir(parents=True)
            self._lock.acquire(timeout=0)
            self.write(identity)

    def write(self, identity: Identity) -> None:
        """Write down which run it is, again once it has an id."""
        with contextlib.suppress(UserError):
            if self._lock.is_locked:
                files.write_json(self._folder / "run.json", {"owner": _owner(), "identity": asdict(identity)})

    def remove(self) -> None:
        """Forget a run that has ended."""
        _remove(self._folder)
        self._lock.release()


def end_killed(client: MlflowClient) -> None:
    """End the runs of this store whose process is gone. Raises what the client raises where the server is away."""
    for folder in sorted(root().glob("*")):
        with _held(folder) as free:
            if not free:
                continue
            try:
                noted = files.read_json(folder / "run.json")
                owner, identity = noted["owner"], Identity(**noted["identity"])
            except (UserError, OSError, TypeError, KeyError):  # it was killed before that was written
                _remove(folder)
                continue
            if owner == _owner() and identity.uri == shown():
                _end(client, identity)
                _remove(folder)


def _end(client: MlflowClient, identity: Identity) -> None:
    run_id = identity.run_id or find(client, identity)
    try:
        if run_id is not None and client.get_run(run_id).info.status == "RUNNING":
            client.set_tag(run_id, "reason", "its process was killed")
            client.set_terminated(run_id, "KILLED")
    except Exception as error:  # it was deleted
        if not calls.refused(error):
            raise


def _owner() -> list[str]:
    return [platform.node(), str(lineage.root())]


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Hold a note; yield whether that could be had, which a process that lives prevents."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError, NotImplementedError):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # there are others
        folder.parent.rmdir()
