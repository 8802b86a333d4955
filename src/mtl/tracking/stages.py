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
from mtl.tracking.server import experiment_id, prepare_client, translating_errors

TUNE = "tune"  # the experiment of all studies


class _NullRun(Run):
    """A run that is not logged."""

    def __init__(self) -> None:
        pass

    def send(self, call: Call, build: Callable[[Path], object] | None = None) -> None:
        pass


@contextmanager
def stage_run(experiment: str, settings: Params, stage: str | None = None, pipeline: Path = Path()) -> Iterator[Run]:
    """Open the MLflow run of a stage: experiment, parameters and lineage tags.

    Args:
        experiment: name of the experiment, which is that of the stage or of the task.
        settings: parameters, of which those that the stage uses are logged.
        stage: name in dvc.yaml; None where it is that of the experiment.
        pipeline: folder of the dvc.yaml with the stage.

    Raises:
        UserError: the tracking server does not answer, or denies access.
    """
    import mlflow

    prepare_client()
    name = os.environ.get("DVC_EXP_NAME")
    identity = identify(experiment, None, name, _tags())
    with translating_errors():
        running.end_killed(mlflow.MlflowClient())
        note = running.Note(identity)  # first: killed in between, the run is identified by its start time
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
        ended = END not in run.lost  # otherwise the next stage ends it
        if ended:
            note.remove()
        if ended or status == "FINISHED":  # otherwise the stage failed too, with the message of a full disk
            run.report()


@contextmanager
def no_run() -> Iterator[Run]:
    """Yield a stand-in for a run in a process that tracks nothing: what is logged to it is dropped."""
    yield _NullRun()


@contextmanager
def study_run(study: str, identity: str, parameters: Mapping[str, Any]) -> Iterator[tuple[Run, str]]:
    """Open the MLflow run of a study, its earlier one or a new one; yield it and its id.

    Args:
        study: name of the study and of the run.
        identity: id of the study, which differs from that of an earlier study of the same name.
        parameters: parameters that all trials share, flat.

    Raises:
        UserError: the tracking server does not answer, or denies access.
    """
    import mlflow

    prepare_client()
    tags = {"study": study, "study_id": identity, "kind": "study"}
    with translating_errors():
        client = mlflow.MlflowClient()
        query = " and ".join(f"tags.{key} = '{value}'" for key, value in tags.items())

        def find_first() -> str | None:
            order = ["attributes.start_time"]
            runs = client.search_runs([experiment_id(TUNE)], query, max_results=1, order_by=order)
            return runs[0].info.run_id if runs else None

        run_id = find_first()
        if run_id is None:
            new = begin(client, identify(TUNE, None, study, _tags(tags)))
            run_id = find_first() or new
            if run_id != new:  # another machine began one at the same moment
                client.delete_run(new)
        client.update_run(run_id, "RUNNING")
        run = Run(identify(TUNE, run_id, study))
    status = "FAILED"
    try:
        run.log_tags(lineage.git())
        run.log_params(parameters)
        yield run, run_id
        status = "FINISHED"
    finally:
        run.end(status)
        run.report()


def trial_run(parent: str, name: str, tags: Mapping[str, str]) -> tuple[Run, str | None]:
    """Begin the MLflow run of a trial under that of its study; return it and its id (None: logged later)."""
    identity = identify(TUNE, None, name, _tags({**tags, "mlflow.parentRunId": parent}))
    try:
        run = _begin(identity)
    except Exception as error:  # also those of requests and SQLAlchemy
        run = Run(identity)
        run.go_offline("run", error)
    return run, run.identity.run_id


def _begin(identity: Identity) -> Run:
    import mlflow

    return Run(replace(identity, run_id=begin(mlflow.MlflowClient(), identity)))


def _tags(own: Mapping[str, str] | None = None) -> dict[str, str]:
    """The first tags of a run: `own`, and MLflow's, such as the user and the program."""
    from mlflow.tracking.context.registry import resolve_tags

    return resolve_tags(dict(own or {}))


def used_params(experiment: str, settings: Params) -> dict[str, Any]:
    """The parameters that the stage of `experiment` uses, flat: `recipe.optimizer.learning_rate`, …"""
    tree = settings.model_dump() | settings.model_dump(include={"data", "tasks"}, exclude_unset=True)
    if experiment == "load_data":
        used = {key: tree[key] for key in ("seed", "data")}
    elif experiment in settings.tasks:
        task = settings.task(experiment)
        used = {key: tree[key] for key in ("seed", "data", "hardware")}
        used |= {"task": tree["tasks"][experiment], "recipe": settings.recipes[task.recipe].model_dump()}
    else:
        used = {"tasks": tree["tasks"]}
    return dict(flat(used))


def _prefixed(kind: str, hashes: Mapping[str, str]) -> dict[str, str]:
    return {f"{kind}.{path}": md5 for path, md5 in hashes.items()}
