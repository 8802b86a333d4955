"""The MLflow runs of stages, and of the studies and trials of `mtl tune`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mtl import lineage
from mtl.config.params import Params
from mtl.tracking import running
from mtl.tracking.outbox.calls import Call, flat
from mtl.tracking.outbox.identity import Identity, begin, identify
from mtl.tracking.outbox.sender import END
from mtl.tracking.run import Run
from mtl.tracking.server import answers, experiment_id, prepare_client

TUNE = "tune"  # the experiment of all studies


class _Dropped(Run):
    """A run that nobody keeps."""

    def __init__(self) -> None:
        pass

    def send(self, call: Call, build: Callable[[Path], object] | None = None) -> None:
        pass


@contextmanager
def stage_run(experiment: str, settings: Params, stage: str | None = None, pipeline: Path = Path()) -> Iterator[Run]:
    """Open the MLflow run of a stage: experiment, parameters and lineage tags.

    Args:
        experiment: name of the experiment, which is that of the stage or of the task.
        settings: parameters; the run holds those that the stage uses.
        stage: name in dvc.yaml where it is not the experiment's.
        pipeline: folder of the dvc.yaml that has it.

    Raises:
        UserError: the tracking server does not answer, or refuses us.
    """
    import mlflow

    prepare_client()
    name = os.environ.get("DVC_EXP_NAME")
    identity = identify(experiment, None, name, _tags())
    with answers():
        running.end_killed(mlflow.MlflowClient())
        note = running.Note(identity)  # before it begins: killed in between, it is known by when it began
        run = _begin(identity)
    status = "FAILED"
    try:
        note.write(run.identity)
        stage = stage or experiment
        tags = {"stage": stage, **lineage.git(), **_prefixed("dep", lineage.hashes(stage, "deps", pipeline))}
        run.log_tags(tags | ({"DVC_EXP_NAME": name} if name else {}))
        run.log_params(used_params(experiment, settings))
        yield run
        run.log_tags(_prefixed("out", lineage.hashes(stage, "outs", pipeline)))
        status = "FINISHED"
    finally:
        run.end(status)
        ended = END not in run.lost  # else the next stage ends it
        if ended:
            note.remove()
        if ended or status == "FINISHED":  # else a full disk has failed the stage too, which says so
            run.report()


@contextmanager
def no_run() -> Iterator[Run]:
    """What stands in for a run in a process that tracks nothing: all that is logged to it is dropped."""
    yield _Dropped()


@contextmanager
def study_run(study: str, identity: str, parameters: Mapping[str, Any]) -> Iterator[tuple[Run, str]]:
    """Open the MLflow run of a study, the one it has already or a new one; yield it and its id.

    Args:
        study: its name, which becomes that of the run.
        identity: what tells it from an earlier study of the same name.
        parameters: what all of its trials share, flat.

    Raises:
        UserError: the tracking server does not answer, or refuses us.
    """
    import mlflow

    prepare_client()
    theirs = {"study": study, "study_id": identity, "kind": "study"}
    with answers():
        client = mlflow.MlflowClient()
        where = " and ".join(f"tags.{key} = '{value}'" for key, value in theirs.items())

        def first() -> str | None:
            order = ["attributes.start_time"]
            found = client.search_runs([experiment_id(TUNE)], where, max_results=1, order_by=order)
            return found[0].info.run_id if found else None

        made = None if first() else _begin(identify(TUNE, None, study, _tags(theirs))).identity.run_id
        known = first() or made
        if made not in (None, known):  # another machine did the same at the same moment
            client.delete_run(made)
        client.update_run(known, "RUNNING")
        run = Run(identify(TUNE, known, study))
    status = "FAILED"
    try:
        run.log_tags(lineage.git())
        run.log_params(parameters)
        yield run, run.identity.run_id
        status = "FINISHED"
    finally:
        run.end(status)
        run.report()


def trial_run(parent: str, name: str, tags: Mapping[str, str]) -> tuple[Run, str | None]:
    """Begin the MLflow run of a trial under that of its study; return it and its id (None: written down for later)."""
    identity = identify(TUNE, None, name, _tags({**tags, "mlflow.parentRunId": parent}))
    try:
        run = _begin(identity)
    except Exception as error:  # the client raises what requests and SQLAlchemy raise
        run = Run(identity)
        run.leave("run", error)
    return run, run.identity.run_id


def _begin(identity: Identity) -> Run:
    import mlflow

    return Run(replace(identity, run_id=begin(mlflow.MlflowClient(), identity)))


def _tags(own: Mapping[str, str] | None = None) -> dict[str, str]:
    """The tags that a run begins with: `own`, and MLflow's: who began it, with what program."""
    from mlflow.tracking.context.registry import resolve_tags

    return resolve_tags(dict(own or {}))


def used_params(experiment: str, settings: Params) -> dict[str, Any]:
    """The parameters that the stage behind `experiment` uses, flat: `recipe.optimizer.learning_rate`, …"""
    everything = settings.model_dump()
    if experiment == "load_data":
        used = {key: everything[key] for key in ("seed", "data")}
    elif experiment in settings.tasks:
        task = settings.task(experiment)
        used = {key: everything[key] for key in ("seed", "data", "hardware")}
        used |= {"task": everything["tasks"][experiment], "recipe": settings.recipes[task.recipe].model_dump()}
    else:
        used = {"tasks": everything["tasks"]}
    return dict(flat(used))


def _prefixed(kind: str, hashes: Mapping[str, str]) -> dict[str, str]:
    return {f"{kind}.{path}": md5 for path, md5 in hashes.items()}
