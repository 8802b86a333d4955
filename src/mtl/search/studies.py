"""Who does which trial of a study that any number of processes and machines share.

Exactly `max_trials` trials finish, whoever joins or is killed: a trial is taken up only where fewer than that many of
an earlier number are not failed, and numbers are given out by the storage one by one. A trial whose process is gone is
marked failed and its parameters are queued again.
"""

from __future__ import annotations

import socket
import time
import warnings
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any

import psutil
from optuna import Study, Trial
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from mtl.tune_settings import Tune

HOST = socket.gethostname()
POLL_SECONDS = 0.5
HEARTBEAT_SECONDS = 60  # a process on another machine is taken for gone after two of these without a sign
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
TAKEN = (*FINISHED, TrialState.RUNNING)
ENDED = "ended:"  # study attribute `ended:7`: why trial 7 was ended from outside, and whether it is done again


class Withdrawn(Exception):
    """The trial is one too many: another process was quicker to begin the last one."""


def target(study: Study, tune: Tune) -> int:
    """How many trials are to finish: max_trials, or the points of the grid where those are fewer."""
    if tune.algorithm != "grid":
        return tune.max_trials
    trials = study.get_trials(deepcopy=False)
    points = sum(trial.state != TrialState.FAIL and "queued" in trial.user_attrs for trial in trials)
    return min(tune.max_trials, points)


def counts(study: Study) -> dict[TrialState, int]:
    """How many trials are in each state."""
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    return {state: states.count(state) for state in TrialState}


def failures(study: Study) -> list[tuple[FrozenTrial, str]]:
    """The trials that failed by themselves, with the reason; not those that were queued again or withdrawn."""
    found = []
    attributes = study.user_attrs
    for trial in study.get_trials(deepcopy=False, states=(TrialState.FAIL,)):
        ended = attributes.get(f"{ENDED}{trial.number}", {"again": False, "reason": trial.user_attrs.get("reason")})
        if not ended["again"] and not trial.user_attrs.get("withdrawn"):
            found.append((trial, ended["reason"] or "no reason was given; see the log beside its pages"))
    return found


def is_over(study: Study, tune: Tune) -> bool:
    """Whether all trials are finished, or too many have failed."""
    finished = sum(counts(study)[state] for state in FINISHED)
    return finished >= target(study, tune) or len(failures(study)) > tune.max_failed_trials


def has_room(study: Study, tune: Tune) -> bool:
    """Whether another trial may be begun."""
    return sum(counts(study)[state] for state in TAKEN) < target(study, tune)


def work_on(study: Study, tune: Tune, objective: Callable[[Trial], float]) -> None:
    """Do trials of `study`, one after the other, until it is over: what each process of a study does."""

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
    """Say whose trial it is; raises Withdrawn where it is one too many."""
    process = psutil.Process()
    trial.set_user_attr("owner", [HOST, process.pid, process.create_time()])
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
    """Queue again the trials whose process is gone (`but` for those of these processes of this host); return them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        fail_stale_trials(study)
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    orphans = [trial for trial in running if owner(trial) not in {(HOST, pid) for pid in but} and _is_orphan(trial)]
    return [trial for trial in orphans if end(study, trial, "its process was gone", again=True)]


def owner(trial: FrozenTrial) -> tuple[str, int] | None:
    """Host and process that run the trial; None where they have not said so yet."""
    said = trial.user_attrs.get("owner")
    return (said[0], said[1]) if said else None


def _is_orphan(trial: FrozenTrial) -> bool:
    """Whether the process that runs the trial is known to be gone: it was on this host, or never gave its name."""
    said = trial.user_attrs.get("owner")
    if said is None:
        begun = trial.datetime_start or datetime.now()
        return datetime.now() - begun > timedelta(seconds=2 * HEARTBEAT_SECONDS)
    host, pid, started = said
    if host != HOST:
        return False
    try:
        process = psutil.Process(pid)
        return process.create_time() != started or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


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
    if queued := {**trial.user_attrs.get("queued", {}), **trial.params}:
        study.enqueue_trial(queued, user_attrs=_inherited(trial, queued))


def _inherited(trial: FrozenTrial | Trial, queued: dict[str, Any]) -> dict[str, Any]:
    """What a trial that is done again keeps: whether it is the baseline, and the folder of its checkpoint."""
    return {"queued": queued, "baseline": trial.user_attrs.get("baseline", False), "first": first_number(trial)}


def first_number(trial: FrozenTrial | Trial) -> int:
    """The number of the first attempt at a trial."""
    return trial.user_attrs.get("first", trial.number)
