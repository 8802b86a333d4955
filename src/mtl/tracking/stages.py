"""The MLflow runs of stages, and of the studies and trials of `mtl tune`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mtl import lineage
from mtl.params import Params
from mtl.tracking.run import Run, flat
from mtl.tracking.server import answers, experiment_id, prepare_client

TUNE = "tune"  # the experiment of all studies


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
    run = Run()
    name = os.environ.get("DVC_EXP_NAME")
    with answers():
        mlflow.start_run(experiment_id=experiment_id(experiment), run_name=name)
    status = "FAILED"
    try:
        stage = stage or experiment
        tags = {"stage": stage, **lineage.git(), **_prefixed("dep", lineage.hashes(stage, "deps", pipeline))}
        run.log_tags(tags | ({"DVC_EXP_NAME": name} if name else {}))
        run.log_params(used_params(experiment, settings))
        yield run
        run.log_tags(_prefixed("out", lineage.hashes(stage, "outs", pipeline)))
        status = "FINISHED"
    finally:
        run.end(status)
    if run.lost:
        print(f"MLflow: not logged: {', '.join(dict.fromkeys(run.lost))}", file=sys.stderr)


@contextmanager
def no_run() -> Iterator[Run]:
    """What stands in for a run in a process that tracks nothing: all that is logged to it is dropped."""
    run = Run()
    run.away = True
    yield run


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
    run = Run()
    with answers():
        experiment = experiment_id(TUNE)
        theirs = {"study": study, "study_id": identity, "kind": "study"}
        where = " and ".join(f"tags.{key} = '{value}'" for key, value in theirs.items())
        found = mlflow.search_runs(
            [experiment], where, max_results=1, order_by=["attributes.start_time"], output_format="list"
        )
        known = found[0].info.run_id if found else None
        active = mlflow.start_run(known, experiment, run_name=None if known else study, tags=theirs | lineage.git())
    status = "FAILED"
    try:
        run.send("parameters", mlflow.log_params, dict(parameters))
        yield run, active.info.run_id
        status = "FINISHED"
    finally:
        run.end(status)
    if run.lost:
        print(f"MLflow: not logged: {', '.join(dict.fromkeys(run.lost))}", file=sys.stderr)


def trial_run(parent: str, name: str, tags: Mapping[str, str]) -> tuple[Run, str | None]:
    """Begin the MLflow run of a trial under that of its study; return it and its id (None: nothing can be logged)."""
    import mlflow

    run = Run()
    run.send("run", lambda: mlflow.start_run(None, experiment_id(TUNE), name, parent_run_id=parent, tags=dict(tags)))
    if run.lost:
        run.away = True  # or the first metric would go to a run of its own, or to another trial's
        return run, None
    return run, mlflow.active_run().info.run_id


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
