"""Sharing out the trials of a study between any number of processes and machines.

Exactly `max_trials` trials finish, whoever joins or is killed: a trial begins only where fewer than that many of an
earlier number are not failed, and the storage gives out numbers one by one. A trial whose process is gone is marked
failed and its parameters are queued again.
"""

from __future__ import annotations

import socket
import time
import warnings
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import psutil
from optuna import Study, Trial
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import fail_stale_trials
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from mtl.config.tune import Tune

HOST = socket.gethostname()
POLL_SECONDS = 0.5
HEARTBEAT_SECONDS = 60  # after two of these without a sign a process on another machine counts as gone
CLOCK_STEP_SECONDS = 60  # psutil dates the start of a process by the clock, which may be corrected meanwhile
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
TAKEN = (*FINISHED, TrialState.RUNNING)
ENDED = "ended:"  # study attribute `ended:7`: why trial 7 was ended from outside, and whether it is done again


class Withdrawn(Exception):
    """The trial is one too many: another process was quicker to begin the last one."""


def target(study: Study, tune: Tune) -> int:
    """The number of trials that are to finish: max_trials, or the points of the grid where those are fewer."""
    if tune.algorithm != "grid":
        return tune.max_trials
    trials = study.get_trials(deepcopy=False)
    points = sum(trial.state != TrialState.FAIL and "queued" in trial.user_attrs for trial in trials)
    return min(tune.max_trials, points)


def counts(study: Study) -> dict[TrialState, int]:
    """The number of trials in each state."""
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    return {state: states.count(state) for state in TrialState}


def metric(trial: FrozenTrial) -> float:
    """The metric of a complete trial."""
    assert trial.value is not None
    return trial.value


def ranked(study: Study) -> list[FrozenTrial]:
    """The complete trials, the best first and the earlier of two that are equal."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    sign = -1 if study.direction == StudyDirection.MAXIMIZE else 1
    return sorted(trials, key=lambda trial: (sign * metric(trial), trial.number))


def failures(study: Study) -> list[tuple[FrozenTrial, str]]:
    """The trials that failed by themselves, with the reason, without those queued again or withdrawn."""
    failed = []
    attributes = study.user_attrs
    for trial in study.get_trials(deepcopy=False, states=(TrialState.FAIL,)):
        ended = attributes.get(f"{ENDED}{trial.number}", {"again": False, "reason": trial.user_attrs.get("reason")})
        if not ended["again"] and not trial.user_attrs.get("withdrawn"):
            failed.append((trial, ended["reason"] or "no reason was given; see the log beside its pages"))
    return failed


def is_over(study: Study, tune: Tune) -> bool:
    """Return whether all trials are finished, or too many have failed."""
    return _count(study, FINISHED) >= target(study, tune) or len(failures(study)) > tune.max_failed_trials


def has_room(study: Study, tune: Tune) -> bool:
    """Return whether another trial may be begun."""
    return _count(study, TAKEN) < target(study, tune)


def _count(study: Study, states: Sequence[TrialState]) -> int:
    by_state = counts(study)
    return sum(by_state[state] for state in states)


def work_on(study: Study, tune: Tune, objective: Callable[[Trial], float]) -> None:
    """Do trials of `study`, one after the other, until it is over. Each process of a study runs this."""
    begun = ""

    def claimed(trial: Trial) -> float:
        nonlocal begun
        begun = f"{ENDED}{trial.number}"
        claim(trial, tune)
        return objective(trial)

    while not is_over(study, tune):
        if not has_room(study, tune):
            time.sleep(POLL_SECONDS)  # the last trials run elsewhere, and may yet fail
            continue
        try:
            study.optimize(claimed, n_trials=1, catch=(Exception,))
        except (ValueError, UpdateFinishedTrialError):
            # Optuna cannot finish a trial that another process took for dead (a laptop that slept): it is done again.
            if begun not in study.user_attrs:
                raise


def claim(trial: Trial, tune: Tune) -> None:
    """Record the owner of a trial. Raises Withdrawn where it is one too many."""
    trial.set_user_attr("owner", process())
    study = trial.study
    queued = trial.user_attrs.get("queued")
    before = [other for other in study.get_trials(deepcopy=False) if other.number < trial.number]
    surplus = sum(other.state != TrialState.FAIL for other in before) >= target(study, tune)
    if surplus or (tune.algorithm == "grid" and not queued):
        trial.set_user_attr("withdrawn", True)
        if queued:
            study.enqueue_trial(queued, user_attrs=_inherited(trial, queued))
        raise Withdrawn


def recover(study: Study, but: Collection[int] = ()) -> list[FrozenTrial]:
    """Queue again and return the trials whose process is gone, except those of the processes `but` of this host."""
    running = {trial.number: trial for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        fail_stale_trials(study)
    trials = study.get_trials(deepcopy=False)
    ended = [
        trial
        for trial in trials
        if trial.number in running and trial.state == TrialState.FAIL and f"{ENDED}{trial.number}" in study.user_attrs
    ]
    ours = {(machine(), pid) for pid in but}
    for trial in trials:
        if trial.state == TrialState.RUNNING and owner(trial) not in ours and _is_orphan(trial):
            ended += [trial] if end(study, trial, "its process was gone", again=True) else []
    _queue_lost(study, trials)
    return ended


def _queue_lost(study: Study, trials: Sequence[FrozenTrial]) -> None:
    """Queue the trials that a process was to queue again, and was killed before it did."""
    latest = {first_number(trial): trial for trial in trials}  # the last attempt at each
    for trial in latest.values():
        if trial.state == TrialState.FAIL and _is_long_ago(trial.datetime_complete):
            ended = study.user_attrs.get(f"{ENDED}{trial.number}", {})
            if ended.get("again") and _parameters(trial):
                queue_again(study, trial, ended["reason"])


def process() -> list[Any]:
    """The identity of this process among all: its machine, number and start."""
    own = psutil.Process()
    return [machine(), own.pid, own.create_time()]


@cache
def machine() -> str:
    """The identity of this machine, or of a container with processes of its own, among those of the same name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{HOST} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # no Linux
        return HOST


def is_gone(identity: Sequence[Any] | None) -> bool:
    """Return whether a `process` was of this machine and runs no more."""
    if not identity or identity[0] != machine():
        return False
    try:
        current = psutil.Process(identity[1])
        another = abs(current.create_time() - identity[2]) > CLOCK_STEP_SECONDS
        return another or current.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def owner(trial: FrozenTrial) -> tuple[str, int] | None:
    """Machine and process that run the trial; None where they have not recorded that yet."""
    identity = trial.user_attrs.get("owner")
    return (identity[0], identity[1]) if identity else None


def _is_orphan(trial: FrozenTrial) -> bool:
    """Return whether the process of the trial is gone: it was of this machine, or never recorded its identity."""
    identity = trial.user_attrs.get("owner")
    return is_gone(identity) if identity else _is_long_ago(trial.datetime_start)


def _is_long_ago(moment: datetime | None) -> bool:
    return moment is not None and datetime.now() - moment > timedelta(seconds=2 * HEARTBEAT_SECONDS)


def end(study: Study, trial: FrozenTrial, reason: str, again: bool) -> bool:
    """Mark a running trial of another process as failed and, if `again`, queue it; False where it ended by itself."""
    study.set_user_attr(f"{ENDED}{trial.number}", {"reason": reason, "again": again})
    try:
        study.tell(trial.number, state=TrialState.FAIL)
    except (UpdateFinishedTrialError, ValueError):
        return False
    if again:
        queue_again(study, trial, reason)
    return True


def queue_again(study: Study, trial: FrozenTrial, reason: str) -> None:
    """Queue the parameters of a trial that was ended from outside, if it had drawn them."""
    study.set_user_attr(f"{ENDED}{trial.number}", {"reason": reason, "again": True})
    if queued := _parameters(trial):
        study.enqueue_trial(queued, user_attrs=_inherited(trial, queued))


def _parameters(trial: FrozenTrial) -> dict[str, Any]:
    """The parameters that were queued for a trial or that it drew."""
    return {**trial.user_attrs.get("queued", {}), **trial.params}


def _inherited(trial: FrozenTrial | Trial, queued: dict[str, Any]) -> dict[str, Any]:
    """Attributes that a trial keeps when it is done again: whether it is the baseline, and its first number."""
    return {"queued": queued, "baseline": trial.user_attrs.get("baseline", False), "first": first_number(trial)}


def first_number(trial: FrozenTrial | Trial) -> int:
    """The number of the first attempt at a trial."""
    return trial.user_attrs.get("first", trial.number)
