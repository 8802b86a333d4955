"""A training that is killed goes on from its last whole epoch, and never beside its own orphan."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import filelock

from mtl import files
from mtl.data import paths
from mtl.errors import UserError, one_line

LOCK_SECONDS = 10.0  # an orphan sees within a second that DVC is gone; more than this is another training
DONE = "done.json"  # beside the state of a training that is over: what it wrote

Row = dict[str, Any]  # one epoch: epoch, loss, acc and, with validation images, val_loss, val_acc


class Checkpoint:
    """The state of one training after its last whole epoch, in a folder of its own.

    `epoch` epochs are done and `history` has a row for each. A state that another training left (another `digest`) is
    thrown away. Of a damaged one, which one line names, the epoch before the last counts, or else nothing. `kept` says
    which epoch of a history the training keeps, so that its weights stay.
    """

    def __init__(self, folder: Path, digest: str, kept: Callable[[Sequence[Row]], int] = len) -> None:
        self.folder, self.digest, self._kept = folder, digest, kept
        self._state = folder / "state.json"
        try:
            state = self._read()
        except (ValueError, AttributeError, OSError, RecursionError) as error:
            print(f"{self._state} is damaged: {one_line(error)}; the training begins anew", flush=True)
            state = None
        if state is None or state["digest"] != digest:
            shutil.rmtree(folder, ignore_errors=True)
            state = {"history": [], "weights": {}}
        self._sums: dict[str, str] = state["weights"]
        # JSON is written with sorted keys; the epoch comes first again, as in a row that was not stored.
        self.history: list[Row] = [{"epoch": row["epoch"], **row} for row in state["history"]]
        while self.history and not self._is_whole():
            self.history.pop()
        if state["history"] and not self.history:
            print(f"{folder}: no whole epoch is left; the training begins anew", flush=True)

    def _read(self) -> dict[str, Any] | None:
        """The content of state.json; None where there is none. Raises ValueError or AttributeError of a damaged one."""
        if not self._state.exists():
            return None
        content = json.loads(self._state.read_text(encoding="utf-8"))
        state = {key: content.get(key) for key in ("digest", "history", "weights")}
        if content.get("sum") != _sum_of_state(state):
            raise ValueError("its content is not what was written")
        return state

    def _is_whole(self) -> bool:
        """Tell whether the weights of the last epoch, and of the one that is kept, are as they were written."""
        for epoch in sorted({self.epoch, self._kept(self.history)}):
            path = self.weights(epoch)
            if path.name not in self._sums:  # removed when later epochs were written
                return False
            if fault := self._fault(path):
                print(f"{path} {fault}: epoch {self.epoch} is passed over", flush=True)
                return False
        return True

    def _fault(self, path: Path) -> str | None:
        """The fault of a file of weights; None where it is as it was written."""
        try:
            return None if _sum_of_file(path) == self._sums[path.name] else "is damaged"
        except OSError as error:
            return f"cannot be read ({error.strerror})"

    @property
    def epoch(self) -> int:
        """Number of epochs done."""
        return len(self.history)

    def weights(self, epoch: int) -> Path:
        """The file of the weights and the optimizer's state after `epoch` epochs."""
        return self.folder / f"{epoch:04d}.weights.h5"

    def load(self, model: Any, epoch: int) -> None:
        """Give `model` the state after `epoch` epochs. Raises UserError where that was damaged since it was written."""
        if fault := self._fault(self.weights(epoch)):
            raise UserError(f"{self.weights(epoch)} {fault}; the same command goes on from the epoch before, or anew")
        model.load_weights(self.weights(epoch))

    def save(self, model: Any, row: Row) -> None:
        """Save `model` after one more epoch; of the earlier ones, the last and those that are kept stay."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.history.append(row)
        last = self.weights(self.epoch)
        model.save_weights(last)
        before = self.history[:-1]
        used = {self.epoch, self._kept(self.history)} | ({len(before), self._kept(before)} if before else set())
        needed = {self.weights(epoch).name for epoch in used}
        self._sums = {name: kept for name, kept in self._sums.items() if name in needed}
        self._sums[last.name] = _sum_of_file(last)
        state = {"digest": self.digest, "history": self.history, "weights": self._sums}
        # Written last and renamed into place: what it names is whole.
        files.write_json(self._state, state | {"sum": _sum_of_state(state)})
        for old in self.folder.glob("*.weights.h5"):
            if old.name not in needed:
                old.unlink()


def _sum_of_state(state: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(state, sort_keys=True).encode(), digest_size=16).hexdigest()


def _sum_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16)).hexdigest()


def finish(folder: Path, written: Path, run_id: str, lock: Path = Path("dvc.lock"), **more: Any) -> None:
    """Note that the training of `folder` is over and its outputs are written.

    Under DVC its state stays until DVC has recorded them (`leftovers.clear`): killed before, the stage need
    not train again.

    Args:
        folder: where the state is.
        written: the output to know them by.
        run_id: the MLflow run.
        lock: where DVC records it.
        more: more to note for a second run.
    """
    if "DVC_STAGE" not in os.environ:
        clear(folder)
        return
    known = {
        "lock": str(lock),
        "stage": os.environ["DVC_STAGE"],
        "path": str(written),
        "md5": files.md5(written),
        "run": run_id,
    }
    files.write_json(folder / DONE, known | more)


def finished(folder: Path) -> dict[str, Any] | None:
    """The note of `finish` on the training of `folder`, which DVC did not record; None where it is not over."""
    try:
        return files.read_json(folder / DONE) if (folder / DONE).exists() else None
    except UserError:  # damaged; the state beside it says what is done
        return None


def clear(folder: Path) -> None:
    """Remove the state of a training that is over and whose outputs are written."""
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def exclusive(task: str) -> Iterator[Path]:
    """Hold the lock on a task's checkpoint folder and yield the folder.

    Raises UserError where another training of the task holds it.
    """
    folder = paths.CHECKPOINTS / task
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder.with_suffix(".lock"), timeout=LOCK_SECONDS):
            yield folder
    except filelock.Timeout:
        raise UserError(f"another training of {task} is running here; wait for it or stop it") from None
