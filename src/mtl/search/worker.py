"""The process that trains trials, one after the other, until the study is over. TensorFlow is imported here alone."""

from __future__ import annotations

import io
import itertools
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError

from mtl import tracking
from mtl.config.params import Params
from mtl.data import backend, paths, store
from mtl.errors import one_line
from mtl.search import studies
from mtl.search.drawing import pruner, sampler, suggest
from mtl.search.space import Space
from mtl.search.storage import load, open_storage
from mtl.tasks.columns import Split
from mtl.training import checkpoint, hardware

Arrays = dict[str, dict[Split, store.Examples]]  # by task and split


@dataclass(frozen=True)
class Work:
    """The assignment of a worker: storage, study, search space, the study's MLflow run and the file of its log.

    `environment` holds the variables that give it a GPU of its own, where there are several.
    """

    storage: str
    study: str
    space: Space
    parent_run: str
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)


def work(assignment: Work) -> None:
    """Do trials until there is none left to do. The whole output goes to `assignment.log`."""
    _end_with_parent()
    with assignment.log.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    os.environ.update(assignment.environment)
    precisions = {assignment.space.settings.recipes[recipe].precision for recipe in assignment.space.recipes}
    backend.import_tensorflow(precisions.pop() if len(precisions) == 1 else None)
    tracking.prepare_client()
    arrays = read_arrays(assignment.space.tasks)
    study = load(open_storage(assignment.storage), assignment.study)
    study.pruner = pruner(assignment.space.tune)
    studies.work_on(study, assignment.space.tune, partial(_objective, assignment, arrays))


def _end_with_parent() -> None:
    """End when the process that started us is gone, however it went."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def read_arrays(tasks: tuple[str, ...]) -> Arrays:
    """The training and the validation images with the labels of each task. The test images are not opened."""
    splits: tuple[Split, ...] = ("train", "validation")
    return {task: {split: store.read_examples(split, task) for split in splits} for task in tasks}


def _objective(assignment: Work, arrays: Arrays, trial: optuna.Trial) -> float:
    """Do one trial: draw, train, judge. Its MLflow run records its epochs and its end."""
    space = assignment.space
    # A sampler of its own makes the draw a function of the trial's number and not of the process.
    trial.study.sampler = sampler(space.tune, space.settings.seed, trial.number)
    values = suggest(trial, space.parameters)
    name = f"{assignment.study} trial {trial.number}"
    run, run_id = tracking.trial_run(
        assignment.parent_run, name, {"study": assignment.study, "trial": str(trial.number)}
    )
    trial.set_user_attr("mlflow_run", run_id)
    run.log_params(values)
    status, state, reason = "FAILED", "failed", ""
    try:
        value = _judge(space, space.changed(values), arrays, trial, run)
        run.log_metrics({space.tune.metric: value})
        status, state = "FINISHED", "complete"
        return value
    except optuna.TrialPruned as stopped:
        status, state, reason = "KILLED", "pruned", str(stopped)
        raise
    except Exception as error:
        reason = one_line(error)[:500]
        raise
    finally:
        run.log_tags({"state": state, "reason": reason})
        run.end(status)
        with suppress(UpdateFinishedTrialError):  # another process took this one for dead, and ended the trial
            trial.set_user_attr("reason", reason)
            trial.set_user_attr("not_logged", sorted({*run.lost, *run.pending}))


def _judge(space: Space, settings: Params, arrays: Arrays, trial: optuna.Trial, run: tracking.Run) -> float:
    """Train the model of each task and return the mean of the metric over them."""
    for task in space.tasks:
        run.log_params({_named(space, task, key): value for key, value in tracking.used_params(task, settings).items()})
    ends = list(itertools.accumulate(settings.recipe(task).epochs for task in space.tasks))
    folder = paths.CHECKPOINTS / "tune" / trial.study.study_name / str(studies.first_number(trial))
    done: list[float] = []

    def on_epoch(row: Mapping[str, Any]) -> None:
        task = space.tasks[len(done)]
        run.log_epoch({key if key == "epoch" else _named(space, task, key): value for key, value in row.items()})
        step = row["epoch"] + ([0, *ends][len(done)])
        # The mean over the tasks so far: trials are compared at the same step, so at the same task.
        value = (sum(done) + row[space.tune.metric]) / (len(done) + 1)
        trial.report(value, step)
        # Asked of the baseline too, so that the others are compared with it.
        if step < ends[-1] and trial.should_prune() and not trial.user_attrs.get("baseline"):
            stopped_by = f"{space.tune.early_stopping}: {space.tune.metric} {value:.4f}"
            raise optuna.TrialPruned(f"{stopped_by} after epoch {step} of {ends[-1]}")

    try:
        for task in space.tasks:
            done.append(fit(task, settings, arrays[task], folder / task, on_epoch)[space.tune.metric])
    finally:
        checkpoint.clear(folder)  # only a killed trial leaves its state, and goes on from it
    return sum(done) / len(done)


def _named(space: Space, task: str, key: str) -> str:
    """The name of a task's metric or parameter, with the task in it where there are several."""
    if len(space.tasks) == 1:
        return key
    return f"val_{task}_{key.removeprefix('val_')}" if key.startswith("val_") else f"{task}_{key}"


def fit(
    task: str,
    settings: Params,
    splits: Mapping[Split, store.Examples],
    folder: Path,
    on_epoch: Callable[[Mapping[str, Any]], None],
) -> dict[str, float]:
    """Train a task's model as the stage `train` does; return the scores `val_…` of the kept model.

    A metric of the study that Keras does not measure is computed on the validation images after each epoch.
    """
    import keras

    from mtl.data import streams
    from mtl.data.feeds import Plan
    from mtl.networks import catalog, inference
    from mtl.tasks import heads, kinds
    from mtl.tasks.answers import Answers
    from mtl.training import finishing, fitting

    recipe, spec = settings.recipe(task), store.read_task(task)
    kind, metric = kinds.find(spec.kind), settings.tune.metric if settings.tune else "val_loss"
    keras.backend.clear_session()
    backend.configure(settings.hardware, recipe.precision, settings.seed)
    train, validation = splits["train"], splits["validation"]

    def scores_of(answers: Answers) -> dict[str, float]:
        scores = {"loss": kind.loss_of(answers), **kind.judge(answers)}
        return {f"val_{name}": value for name, value in scores.items() if value is not None}

    with hardware.strategy(settings.hardware).scope():
        model = catalog.build(recipe, train.images.shape[1:], len(spec.names), train.images, [spec.kind])
        answering = kind.finish(model, spec)  # neither mirrored nor calibrated, which every epoch would pay for
        head = heads.of_task(settings, spec, train.targets, validation.targets)
        first, second = (
            streams.feed(part.images, heads.carried(spec, part.targets, head)) for part in (train, validation)
        )

        def judge() -> dict[str, float]:
            if metric in ("val_acc", "val_loss"):  # Keras measures them
                return {}
            outputs = inference.predict(answering, validation.images)
            answers = Answers(spec, validation.labels, outputs, recipe.loss, validation.known)
            return {metric: scores_of(replace(answers, task=kind.settle(spec, lambda: answers)))[metric]}

        plan = Plan(recipe, settings.seed, (head,))
        fitting.fit(model, plan, first, second, folder, on_epoch, judge=judge)
    finished = finishing.finish(inference.plain(model), spec, recipe, validation)
    return scores_of(finished.validation)
