"""A training that is killed goes on from its last epoch, and never beside its own orphan."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import psutil

from mtl import store
from mtl.errors import UserError

LOCK_SECONDS = 10.0  # an orphan sees within a second that DVC is gone; more than this is another training


class Checkpoint:
    """The state of one training after its last whole epoch, in a folder of its own.

    `epoch` epochs are done and `history` has a row for each. A state that another training left (another `digest`) is
    thrown away.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        self.folder, self.digest = folder, digest
        self._state = folder / "state.json"
        state = store.read_json(self._state) if self._state.exists() else {"digest": None}
        rows = state["history"] if state["digest"] == digest else []
        if not rows or not self.weights(len(rows)).exists():
            shutil.rmtree(folder, ignore_errors=True)
            rows = []
        # JSON is written with sorted keys; the epoch comes first again, as in a row that was not stored.
        self.history: list[dict[str, Any]] = [{"epoch": row["epoch"], **row} for row in rows]

    @property
    def epoch(self) -> int:
        """Number of epochs done."""
        return len(self.history)

    def weights(self, epoch: int) -> Path:
        """Where the weights and the optimizer's state after `epoch` epochs are."""
        return self.folder / f"{epoch:04d}.weights.h5"

    def save(self, model: Any, row: dict[str, Any], keep: int) -> None:
        """Save `model` after one more epoch; of the earlier ones only epoch number `keep` stays."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.history.append(row)
        model.save_weights(self.weights(self.epoch))
        # Written last and renamed into place: what it names is whole.
        store.write_json(self._state, {"digest": self.digest, "history": self.history})
        for old in set(self.folder.glob("*.weights.h5")) - {self.weights(self.epoch), self.weights(keep)}:
            old.unlink()


def clear(folder: Path) -> None:
    """Remove the state of a training that is over and whose outputs are written."""
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def exclusive(task: str) -> Iterator[Path]:
    """Hold the lock on a task's checkpoint folder and yield the folder.

    Raises UserError where another training of the task holds it.
    """
    folder = store.CHECKPOINTS / task
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder.with_suffix(".lock"), timeout=LOCK_SECONDS):
            yield folder
    except filelock.Timeout:
        raise UserError(f"another training of {task} is running here; wait for it or stop it") from None


def end_with_dvc() -> None:
    """Under DVC, watch the process that started us and end when it is gone: a killed `dvc repro` leaves no orphan."""
    if "DVC_STAGE" not in os.environ:
        return
    ancestors = psutil.Process().parents()
    # DVC starts a stage through a shell (`sh -c …`), which survives DVC; some shells replace themselves.
    through_shell = "-c" in ancestors[0].cmdline()[1:2]
    watched = ancestors[: 2 if through_shell else 1]

    def watch() -> None:
        while all(process.is_running() for process in watched):
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, name="end-with-dvc", daemon=True).start()
