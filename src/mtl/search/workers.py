"""The processes of a study on this machine: started, watched, replaced, stopped at the end of the budget."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import NamedTuple

import optuna
from optuna.trial import FrozenTrial, TrialState

from mtl.errors import UserError
from mtl.repro.devices import device_environment, gpu_devices
from mtl.repro.display import tail
from mtl.repro.processes import on_signals
from mtl.search import studies
from mtl.search.worker import Work, work

POLL_SECONDS = 1.0  # each poll reads all trials and takes processor time from the trainings


class Stop(NamedTuple):
    """The reason why a study stopped before it was over, and the exit status for it."""

    reason: str
    status: int


def lead(
    study: optuna.Study,
    assignment: Work,
    jobs: int,
    deadline: float | None,
    on_poll: Callable[[], None],
    on_end: Callable[[FrozenTrial, str], None],
) -> Stop | None:
    """Keep `jobs` processes at work until the study is over.

    Args:
        study: the study.
        assignment: that of each process.
        jobs: number of processes.
        deadline: on time.monotonic()'s clock; then trials are stopped, and begun again by the next `mtl tune`.
        on_poll: called every POLL_SECONDS.
        on_end: called with each trial that was ended from outside, and why.

    Returns:
        None where the study is over, else the reason why it stopped.

    Raises:
        UserError: a process ended before it did any trial.
    """
    tune = assignment.space.tune
    processes: dict[int, SpawnProcess] = {}
    devices = gpu_devices(os.environ)
    signals: list[int] = []
    with on_signals(lambda number, _: signals.append(number)):
        try:
            while not studies.is_over(study, tune):
                if signals:
                    return Stop(signal.Signals(signals[0]).name, 128 + signals[0])
                if deadline is not None and time.monotonic() > deadline:
                    return Stop("the time is up", 0)
                for slot in [slot for slot, process in processes.items() if not process.is_alive()]:
                    gone = processes.pop(slot)
                    if gone.exitcode:
                        assert gone.pid is not None  # it was started
                        bury(study, gone.pid, gone.exitcode, assignment.log, on_end)
                for slot in set(range(jobs)) - set(processes):
                    processes[slot] = _start(replace(assignment, environment=device_environment(slot, devices)))
                for trial in studies.recover(study, but=[process.pid for process in processes.values() if process.pid]):
                    on_end(trial, "its process was gone; it is done again")
                on_poll()
                time.sleep(POLL_SECONDS)
        finally:
            for process in processes.values():
                process.kill()
            for process in processes.values():
                process.join()
            for trial in studies.recover(study):
                on_end(trial, "stopped; the next `mtl tune` does it again")
    return None


def _start(assignment: Work) -> SpawnProcess:
    # Not forked: TensorFlow and MLflow have threads and locks that do not survive it.
    process = multiprocessing.get_context("spawn").Process(target=work, args=(assignment,), daemon=True)
    # Ctrl-C reaches every process of the terminal; this one decides what it means, and the new one inherits the mask.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return process


def bury(study: optuna.Study, pid: int, code: int, log: Path, on_end: Callable[[FrozenTrial, str], None]) -> None:
    """Mark the trial of a process that crashed as failed. Its parameters may be the cause, so it is not done again.

    Args:
        study: the study.
        pid: of the process, on this host.
        code: its exit status, or the number of the signal that ended it with a minus.
        log: the file of its output.
        on_end: called with the trial and the reason.

    Raises:
        UserError: it never came to a trial, so that the next one would not either.
    """
    how = f"{signal.Signals(-code).name}; out of memory?" if code < 0 else f"exit status {code}"
    reason = f"its process ended ({how})"
    theirs = [trial for trial in study.get_trials(deepcopy=False) if studies.owner(trial) == (studies.machine(), pid)]
    for trial in theirs:
        if trial.state == TrialState.RUNNING and studies.end(study, trial, reason, again=False):
            on_end(trial, reason)
    if not theirs:
        last = "".join(tail(log, 1)) if log.exists() else ""
        raise UserError(f"a process of the study ended ({how}): {last or 'nothing was said'}; all of it is in {log}")
