"""Files of models and runs: found and downloaded from MLflow, and added to runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from mtl.errors import UserError
from mtl.tracking.advice import deleted_advice
from mtl.tracking.registry import CHAMPION, JOINT, REFERENCE, LoggedModel, connection, resolve
from mtl.tracking.server import public_uri, uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

_URI = re.compile(rf"models:/(?:(?P<id>m-[0-9a-f]{{32}})|(?P<reference>{REFERENCE}))")


def logged_model(experiment: str, name: str, tags: Mapping[str, str]) -> LoggedModel | None:
    """The model `name` of the newest finished run of `experiment` with these tags; None where there is none."""
    query = ["attributes.status = 'FINISHED'", *(f"tags.`{key}` = '{value}'" for key, value in tags.items())]
    with connection() as client:
        entity = client.get_experiment_by_name(experiment)
        if entity is None:
            return None
        if entity.lifecycle_stage == "deleted":
            raise UserError(f"{public_uri()}: {deleted_advice('experiment', entity.experiment_id)}")
        ids = [entity.experiment_id]
        for run in client.search_runs(ids, " and ".join(query), order_by=["attributes.start_time DESC"]):
            models = client.search_logged_models(ids, f"source_run_id = '{run.info.run_id}' and name = '{name}'")
            if models:
                return LoggedModel(models[0].model_id, run.info.run_id)
    return None


def download_model(model: str, folder: Path) -> Path:
    """Download the files of a model into `folder`. Nothing in them is run.

    Args:
        model: `models:/name@alias`, `models:/name/version` or `models:/<model id>`.
        folder: destination.

    Returns:
        The folder that holds MLmodel.

    Raises:
        UserError: `model` is none of these, or there is no such model, alias or version.
    """
    import mlflow

    match = _URI.fullmatch(model)
    if match is None:
        raise UserError(f"{model!r}: write models:/{JOINT}@{CHAMPION}, models:/{JOINT}/3 or models:/<model id>")
    with connection() as client:
        if match["id"]:
            location = client.get_logged_model(match["id"]).artifact_location
        else:
            version = resolve(match["reference"])
            location = client.get_model_version_download_uri(version.name, version.number)
        # By location: given the name, MLflow would ask the store that this process is set to.
        with redirect_stderr(StringIO()):  # a progress bar
            files = mlflow.artifacts.download_artifacts(location, dst_path=str(folder), tracking_uri=uri())
        return Path(files)


def log_artifact(run_id: str, file: Path) -> None:
    """Add a file to the artifacts of a run that has ended."""
    with connection() as client:
        _repository(client, run_id).log_artifact(str(file))


def download_artifact(run_id: str, name: str, folder: Path) -> Path | None:
    """Download an artifact of a run into `folder`; None where the run does not have it."""
    with connection() as client:
        repository = _repository(client, run_id)
        if name not in {file.path for file in repository.list_artifacts()}:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        with redirect_stderr(StringIO()):
            return Path(repository.download_artifacts(name, str(folder)))


def _repository(client: MlflowClient, run_id: str) -> ArtifactRepository:
    """The files of a run, in the place that its own store names.

    MLflow's client looks a run's place up once per process. Copies of a project share the ids of their runs, so what
    is written by id may end in another copy.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(client.get_run(run_id).info.artifact_uri, tracking_uri=uri())


def run_metrics(run_id: str) -> dict[str, float]:
    """The last value of each metric of a run."""
    with connection() as client:
        return dict(client.get_run(run_id).data.metrics)
