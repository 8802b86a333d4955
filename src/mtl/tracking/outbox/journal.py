"""What could not be logged: written down beside the repository's data, and logged later, once and only once.

`.pending/<time>-<id>/` is one run: `run.json` says which, `000001`, `000002`, … are its calls in their order, each with
`call.json` and `files/`. A call is removed when the server has it; whoever writes or logs a run holds its `lock`.
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mtl import files, lineage
from mtl.errors import UserError, one_line
from mtl.tracking.outbox import calls
from mtl.tracking.outbox.calls import Call
from mtl.tracking.outbox.identity import Identity, begun, has
from mtl.tracking.server import reason, shown

if TYPE_CHECKING:
    from mlflow import MlflowClient


def root() -> Path:
    """Where all of it is."""
    return lineage.root() / ".pending"


class Journal:
    """The calls of one run that are not logged yet. Not to be used without holding it: `begin` or `held`."""

    def __init__(self, folder: Path) -> None:
        from filelock import FileLock

        self.folder, self._lock = folder, FileLock(folder / "lock")

    @classmethod
    def begin(cls, identity: Identity) -> Journal:
        """A new one, held until `release` or the end of this process. Raises OSError or UserError."""
        folder = root() / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}"
        with _changing():
            folder.mkdir()
            journal = cls(folder)
            journal._lock.acquire(timeout=0)
        try:
            files.write_json(folder / "run.json", asdict(identity))  # last: without it the folder does not count
        except BaseException:  # a full disk
            journal.release()
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return journal

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold it; yield whether that could be had."""
        from filelock import Timeout

        try:
            self._lock.acquire(timeout=0)
        except (Timeout, OSError):  # it is held, or was removed by who held it
            yield False
            return
        try:
            yield True
        finally:
            self.release()

    def release(self) -> None:
        """Let others have it."""
        self._lock.release()

    def exists(self) -> bool:
        """Whether it is there still: a process that logs it removes it."""
        return (self.folder / "run.json").exists()

    @property
    def identity(self) -> Identity:
        """Which run it is of. Raises UserError where run.json is not what was written."""
        try:
            return Identity(**files.read_json(self.folder / "run.json"))
        except (TypeError, UserError) as error:
            raise self._broken("run.json", error) from None

    def add(self, call: Call, files: Path) -> None:
        """Write down a call with a copy of its files, whole or not at all. Raises OSError."""
        last = [int(known.name) for known in self._folders()[-1:]]
        folder = self.folder / f"{sum(last) + 1:06d}"
        half = folder.with_suffix(".tmp")
        shutil.rmtree(half, ignore_errors=True)
        try:
            shutil.copytree(files, half / "files")
            (half / "call.json").write_text(json.dumps(asdict(call), default=float), encoding="utf-8")
            half.rename(folder)
        except BaseException:  # a full disk gets its room back
            shutil.rmtree(half, ignore_errors=True)
            raise

    def calls(self) -> Iterator[tuple[Path, Call]]:
        """The folder of each call, in the order in which they were made. Raises UserError where one cannot be read."""
        for folder in self._folders():
            try:
                call = Call(**json.loads((folder / "call.json").read_text(encoding="utf-8")))
                if call.kind not in calls.KINDS:
                    raise ValueError(f"there is no kind {call.kind!r}")
            except (TypeError, ValueError, OSError) as error:
                if folder.exists():  # else it was logged meanwhile
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
        """Send all that is left, and forget what the server has; return what it refused and why. Hold it before.

        Raises:
            UserError: the server says that it does not have the run.
            Exception: what the client raises where the server is away; what was sent by then is not sent again.
        """
        identity, refused, ended = self.identity, [], True
        run_id = identity.run_id or begun(client, identity)
        if not has(client, run_id):
            raise UserError(
                f"{shown()} has no run {run_id} (another database? deleted?);"
                f" remove {self.folder} to give up what is in it"
            )
        for folder, call in self.calls():
            try:
                calls.perform(client, run_id, call, folder / "files")
            except Exception as error:
                if not calls.refused(error) and not calls.refused_for_now(error):
                    raise
                advice = "remove the folder to give that up" if calls.refused(error) else "it stays written down"
                refused.append(f"the server refuses {call.what}, {folder}: {reason(error)}; {advice}")
                ended &= call.kind != "end"
            else:
                _remove(folder)
        # Else its process was killed before it could say how it ended.
        if ended and client.get_run(run_id).info.status == "RUNNING":
            client.set_terminated(run_id, "KILLED")
        if not refused:
            _remove(self.folder)
        return refused


def _remove(folder: Path) -> None:
    """Remove a folder so that a kill half-way leaves nothing that looks whole."""
    gone = folder.with_name(f".{folder.name}")
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)  # another process may remove it at the same time, as residue


@contextmanager
def _changing() -> Iterator[None]:
    """Hold the right to make and remove folders of journals; what killed processes left of some is gone by then."""
    from filelock import FileLock

    root().mkdir(parents=True, exist_ok=True)
    with FileLock(root() / "begin.lock"):
        _remove_residue()
        yield


def remove_residue() -> None:
    """Remove the folders that killed processes left before their run was written down, or while it was removed."""
    if root().is_dir():
        with _changing():
            pass


def _remove_residue() -> None:
    from filelock import FileLock, Timeout

    for folder in root().iterdir():
        if not folder.is_dir() or ((folder / "run.json").exists() and not folder.name.startswith(".")):
            continue
        try:
            with FileLock(folder / "lock", timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
        except (Timeout, OSError):  # it is being made, or removed
            continue
