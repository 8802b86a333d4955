"""MLflow: experiments, runs, lineage tags and models. The only room that knows it.

A server that does not answer when a stage starts stops the stage; one that goes away later costs no model.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl import lineage
from mtl.errors import UserError, one_line
from mtl.params import Params
from mtl.store import Dataset

if TYPE_CHECKING:
    import keras
    import numpy as np

SECONDS = 5  # how long a server may take to answer
INPUT_IMAGES = 2  # of the input example that is logged with a model


class Run:
    """One MLflow run. What cannot be logged is noted; once the server is gone, nothing more is sent to it."""

    def __init__(self) -> None:
        self.lost: list[str] = []
        self.away = False

    def send(self, what: str, call: Callable[..., Any], *args: Any, always: bool = False, **kwargs: Any) -> None:
        """Call MLflow; note `what` as lost where that fails, or (unless `always`) where the server is gone."""
        if always or not self.away:
            try:
                call(*args, **kwargs)
                return
            except Exception as error:  # the client raises what requests, SQLAlchemy or the artifact store raise
                print(f"MLflow: cannot log {what}: {_reason(error)}; the stage goes on without it", file=sys.stderr)
                self.away = not _server_answers()
        self.lost.append(what)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers."""
        import mlflow

        self.send("metrics", mlflow.log_metrics, dict(metrics), step=step, synchronous=True)

    def log_epoch(self, row: Mapping[str, float]) -> None:
        """Log one row of a training's history as `train_*` and `val_*` at its epoch."""
        values = {key if key.startswith("val_") else f"train_{key}": value for key, value in row.items()}
        step = int(values.pop("train_epoch"))
        self.log_metrics(values, step)

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        import mlflow

        self.send("tags", mlflow.set_tags, dict(tags))

    def log_json(self, content: Any, name: str) -> None:
        """Log an artifact that is JSON."""
        import mlflow

        self.send(name, mlflow.log_dict, content, name)

    def log_history(self, task: str, history: Sequence[Mapping[str, float]]) -> None:
        """Log a training's learning curves as a picture."""
        import mlflow

        from mtl import plots

        self.send("learning curves", mlflow.log_figure, plots.learning_curves(task, history), "learning_curves.png")

    def log_dataset(self, dataset: Dataset) -> None:
        """Log which images the run used, with the md5 that DVC gives data/raw as digest."""
        import mlflow
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.meta_dataset import MetaDataset

        source = CodeDatasetSource({"data.source": dataset.source, "dvc.path": "data/raw"})
        digest = lineage.hashes("load_data", "outs").get("data/raw")
        self.send("data set", mlflow.log_input, MetaDataset(source, dataset.name, digest), context="training")
        self.log_tags({"dataset": dataset.name, "dataset_official": str(dataset.official).lower()})

    def log_model(self, model: keras.Model, classes: list[str], images: np.ndarray) -> None:
        """Log a task's model with its signature, an input example and the class names."""
        import mlflow

        self.send(
            "model",
            _without_bars(mlflow.tensorflow.log_model),
            model,
            name="model",
            signature=_signature(images, len(classes)),
            input_example=images[:INPUT_IMAGES],
            pip_requirements=_requirements("mlflow", "tensorflow", "keras", "numpy"),
            metadata={"classes": classes},
        )

    def log_joint_model(self, folder: Path, images: np.ndarray) -> None:
        """Log the models of all tasks as one pyfunc; `folder` holds `<task>.keras` and classes.json."""
        import mlflow

        self.send(
            "joint model",
            _without_bars(mlflow.pyfunc.log_model),
            name="joint",
            python_model=Path(__file__).with_name("joint.py"),
            artifacts={"models": str(folder)},
            signature=_signature(images, None),
            input_example=images[:INPUT_IMAGES],
            pip_requirements=_requirements("mlflow", "tensorflow", "keras", "numpy", "pandas"),
        )


def uri() -> str:
    """`$MLFLOW_TRACKING_URI`, else the SQLite store in the root of the repository."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{lineage.root() / 'mlflow.db'}"


@contextmanager
def stage_run(experiment: str, settings: Params, stage: str | None = None) -> Iterator[Run]:
    """Open the MLflow run of a stage: experiment, parameters and lineage tags.

    Args:
        experiment: name of the experiment, which is that of the stage or of the task.
        settings: parameters; the run holds those that the stage uses.
        stage: name in dvc.yaml where it is not the experiment's.

    Raises:
        UserError: the tracking server does not answer, or refuses us.
    """
    import mlflow

    _prepare_client()
    run = Run()
    name = os.environ.get("DVC_EXP_NAME")
    with _answers():
        mlflow.start_run(experiment_id=_experiment(experiment), run_name=name)
    status = "FAILED"
    try:
        stage = stage or experiment
        tags = {"stage": stage, **lineage.git(), **_prefixed("dep", lineage.hashes(stage, "deps"))}
        run.log_tags(tags | ({"DVC_EXP_NAME": name} if name else {}))
        run.send("parameters", mlflow.log_params, used_params(experiment, settings))
        yield run
        run.log_tags(_prefixed("out", lineage.hashes(stage, "outs")))
        status = "FINISHED"
    finally:
        # Always tried: a run left open would be tried again, at length, when the process exits.
        run.send("end of the run", mlflow.end_run, status, always=True)
    if run.lost:
        print(f"MLflow: not logged: {', '.join(dict.fromkeys(run.lost))}", file=sys.stderr)


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
    return dict(_flat(used))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _prefixed(kind: str, hashes: Mapping[str, str]) -> dict[str, str]:
    return {f"{kind}.{path}": md5 for path, md5 in hashes.items()}


def _prepare_client() -> None:
    """Point MLflow at the store, once per process, before its first use."""
    import mlflow

    # `mlflow run` sets these; they would pull the runs of all stages into one.
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        os.environ.pop(name, None)
    # MLflow's own 120 s and 7 retries would hold a stage for many minutes when a server goes away.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(6 * SECONDS))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    # It prints the address of each run with the user and password in it.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    mlflow.set_tracking_uri(uri())


@contextmanager
def _answers() -> Iterator[None]:
    """Turn what fails while a run is opened into one line that names the server (without its password)."""
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    advice = "start it, or mend or unset MLFLOW_TRACKING_URI"
    try:
        if not _server_answers():
            raise UserError(f"the MLflow tracking server {_shown()}: no answer; {advice}")
        yield
    except (MlflowException, SQLAlchemyError, requests.RequestException, ImportError, ValueError) as error:
        raise UserError(f"the MLflow tracking server {_shown()}: {_reason(error)}; {advice}") from None


def _server_answers() -> bool:
    """Whether a tracking server answers at all, within SECONDS; a database is not asked."""
    import requests

    try:
        if uri().startswith(("http:", "https:")):
            requests.get(uri(), timeout=SECONDS)
    except (requests.RequestException, ValueError):
        return False
    return True


def _shown() -> str:
    """The tracking URI without user and password."""
    scheme, separator, rest = uri().partition("://")
    return scheme + separator + rest.rpartition("@")[2]


def _reason(error: Exception) -> str:
    """What a failed call says, in one line, without the password that MLflow quotes with the address."""
    return one_line(error).replace(uri(), _shown())[:300]


def _experiment(name: str) -> str:
    """The id of the experiment `name`, made where it is not there yet."""
    import filelock
    import mlflow
    from mlflow.exceptions import MlflowException

    local = lineage.root() / "mlartifacts" / name if uri().startswith("sqlite:") else None
    # The first process migrates the database; a second one beside it would fail half-way through.
    with filelock.FileLock(lineage.root() / ".mlflow.lock"):
        found = mlflow.get_experiment_by_name(name)
        if found is not None:
            return found.experiment_id
        try:
            return mlflow.create_experiment(name, artifact_location=local and local.as_uri())
        except MlflowException:  # another client of the same server was first
            found = mlflow.get_experiment_by_name(name)
            if found is None:
                raise
            return found.experiment_id


def _without_bars(call: Callable[..., Any]) -> Callable[..., Any]:
    """`call` without the progress bars that Keras prints while MLflow tries the input example."""

    def quiet(*args: Any, **kwargs: Any) -> Any:
        with redirect_stdout(io.StringIO()):
            return call(*args, **kwargs)

    return quiet


def _signature(images: np.ndarray, classes: int | None) -> Any:
    """uint8 images in; probabilities out, or whatever the joint model's table has."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    inputs = Schema([TensorSpec(np.dtype(np.uint8), (-1, *images.shape[1:]))])
    outputs = Schema([TensorSpec(np.dtype(np.float32), (-1, classes))]) if classes else None
    return ModelSignature(inputs, outputs)


def _requirements(*packages: str) -> list[str]:
    """The installed versions, as a requirements file pins them."""
    return [f"{package}=={version(package)}" for package in packages]
