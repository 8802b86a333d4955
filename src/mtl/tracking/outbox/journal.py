"""Journals of calls that could not be sent, in the repository; each call is sent later, exactly once.

`.pending/<time>-<id>/` is one run: `run.json` is its identity, `000001`, `000002`, … are its calls in order, each with
`call.json` and `files/`. A call is removed once the server has it. A process that writes or sends a run locks `lock`.
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mtl import files, lineage
from mtl.errors import UserError, one_line
from mtl.tracking.outbox import calls
from mtl.tracking.outbox.calls import Call
from mtl.tracking.outbox.identity import Identity, exists, find_or_begin
from mtl.tracking.outbox.locks import try_lock
from mtl.tracking.server import public_uri, reason

if TYPE_CHECKING:
    from mlflow import MlflowClient


def root() -> Path:
    """The folder of all journals."""
    return lineage.root() / ".pending"


class Journal:
    """The calls of one run that are not sent yet. Hold it while using it: `begin` or `try_hold`."""

    def __init__(self, folder: Path) -> None:
        from filelock import FileLock

        self.folder, self._lock = folder, FileLock(folder / "lock")

    @classmethod
    def begin(cls, identity: Identity) -> Journal:
        """A new journal, held until `release` or the end of this process. Raises OSError or UserError."""
        folder = root() / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}"
        with _locked_root():
            folder.mkdir()
            journal = cls(folder)
            journal._lock.acquire(timeout=0)
        try:
            files.write_json(folder / "run.json", asdict(identity))  # last: without it the folder is no journal
        except BaseException:  # a full disk
            journal.release()
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return journal

    def try_hold(self) -> AbstractContextManager[bool]:
        """Hold the journal; yield False where another process holds it, or held and removed it."""
        return try_lock(self._lock)

    def release(self) -> None:
        """Let other processes hold the journal."""
        self._lock.release()

    def exists(self) -> bool:
        """Tell whether it still exists: the process that sends it removes it."""
        return (self.folder / "run.json").exists()

    @property
    def identity(self) -> Identity:
        """The identity of its run. Raises UserError where run.json is damaged."""
        try:
            return Identity(**files.read_json(self.folder / "run.json"))
        except (TypeError, UserError) as error:
            raise self._broken("run.json", error) from None

    def add(self, call: Call, files: Path) -> None:
        """Write a call with a copy of its files, whole or not at all. Raises OSError."""
        last = [int(folder.name) for folder in self._folders()[-1:]]
        folder = self.folder / f"{sum(last) + 1:06d}"
        temporary = folder.with_suffix(".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            shutil.copytree(files, temporary / "files")
            (temporary / "call.json").write_text(json.dumps(asdict(call), default=float), encoding="utf-8")
            temporary.rename(folder)
        except BaseException:  # free the space on a full disk
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    def calls(self) -> Iterator[tuple[Path, Call]]:
        """Yield the folder of each call and the call, in order. Raises UserError where one cannot be read."""
        for folder in self._folders():
            try:
                call = Call(**json.loads((folder / "call.json").read_text(encoding="utf-8")))
                if call.kind not in calls.KINDS:
                    raise ValueError(f"there is no kind {call.kind!r}")
            except (TypeError, ValueError, OSError) as error:
                if folder.exists():  # otherwise it was sent meanwhile
                    raise self._broken(f"{folder.name}/call.json", error) from None
            else:
                yield folder, call

    def _folders(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.is_dir() and path.name.isdecimal())

    def _broken(self, name: str, error: Exception) -> UserError:
        return UserError(
            f"{self.folder / name} cannot be read: {one_line(error)}; remove {self.folder} to give up what is in it"
        )

    def log(self, client: MlflowClient) -> list[str]:
        """Send all calls, and remove those that the server accepts. The journal must be held.

        Returns:
            A line for each call that the server refused.

        Raises:
            UserError: the server does not have the run.
            Exception: the client's error where the server is away; calls that were sent by then are not sent again.
        """
        identity, refused, ended = self.identity, [], True
        run_id = identity.run_id or find_or_begin(client, identity)
        if not exists(client, run_id):
            raise UserError(
                f"{public_uri()} has no run {run_id} (another database? deleted?);"
                f" remove {self.folder} to give up what is in it"
            )
        for folder, call in self.calls():
            try:
                calls.perform(client, run_id, call, folder / "files")
            except Exception as error:
                if not calls.refused(error) and not calls.refused_temporarily(error):
                    raise
                advice = "remove the folder to give that up" if calls.refused(error) else "it stays written down"
                refused.append(f"the server refuses {call.what}, {folder}: {reason(error)}; {advice}")
                ended &= call.kind != "end"
            else:
                _remove_whole(folder)
        # Otherwise its process was killed before it could end the run.
        if ended and client.get_run(run_id).info.status == "RUNNING":
            client.set_terminated(run_id, "KILLED")
        if not refused:
            _remove_whole(self.folder)
        return refused


def _remove_whole(folder: Path) -> None:
    """Remove a folder so that a kill half-way leaves nothing that looks whole."""
    hidden = folder.with_name(f".{folder.name}")
    folder.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)  # another process may remove it at the same time, as residue


@contextmanager
def _locked_root() -> Iterator[None]:
    """Hold the lock for creating and removing journals, and first remove what killed processes left of some."""
    from filelock import FileLock

    root().mkdir(parents=True, exist_ok=True)
    with FileLock(root() / "begin.lock"):
        _remove_residue()
        yield


def remove_residue() -> None:
    """Remove folders of processes that were killed while they created or removed a journal."""
    if root().is_dir():
        with _locked_root():
            pass


def _remove_residue() -> None:
    from filelock import FileLock

    for folder in root().iterdir():
        if not folder.is_dir() or ((folder / "run.json").exists() and not folder.name.startswith(".")):
            continue
        with try_lock(FileLock(folder / "lock")) as is_held:
            if is_held:  # otherwise another process creates or removes it
                shutil.rmtree(folder, ignore_errors=True)
