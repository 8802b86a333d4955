"""One MLflow run: what is logged into it, and what is noted where that fails."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl import lineage
from mtl.store import Dataset
from mtl.tracking.flavors import requirements, signature, without_bars
from mtl.tracking.server import reason, server_answers

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

    from mtl.shards import Images

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
                print(f"MLflow: cannot log {what}: {reason(error)}; the stage goes on without it", file=sys.stderr)
                self.away = not server_answers()
        self.lost.append(what)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers."""
        import mlflow

        self.send("metrics", mlflow.log_metrics, dict(metrics), step=step, synchronous=True)

    def log_params(self, tree: Mapping[str, Any]) -> None:
        """Log parameters, nested ones under dotted names."""
        import mlflow

        self.send("parameters", mlflow.log_params, dict(flat(tree)))

    def log_epoch(self, row: Mapping[str, float], prefix: str = "") -> None:
        """Log one row of a training's history as `train_*` and `val_*` at its epoch."""
        values = {key if key.startswith("val_") else f"train_{key}": value for key, value in row.items()}
        step = int(values.pop("train_epoch"))
        self.log_metrics({f"{prefix}{key}": value for key, value in values.items()}, step)

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        import mlflow

        self.send("tags", mlflow.set_tags, dict(tags))

    def log_folder(self, folder: Path) -> None:
        """Log the files of a folder as artifacts."""
        import mlflow

        self.send(folder.name, mlflow.log_artifacts, str(folder))

    def end(self, status: str) -> None:
        """End the run as FINISHED, FAILED or KILLED."""
        import mlflow

        # Always tried: a run left open would be tried again, at length, when the process exits.
        self.send("end of the run", mlflow.end_run, status, always=True)

    def end_other(self, run_id: str, reason: str) -> None:
        """End the run of a process that was killed."""
        import mlflow

        def finish() -> None:
            mlflow.MlflowClient().set_tag(run_id, "reason", reason)
            mlflow.MlflowClient().set_terminated(run_id, "KILLED")

        self.send("end of a killed run", finish)

    def log_json(self, content: Any, name: str) -> None:
        """Log an artifact that is JSON."""
        import mlflow

        self.send(name, mlflow.log_dict, content, name)

    def log_figures(self, figures: Mapping[str, Figure]) -> None:
        """Log figures as pictures, each under its name with `.png` behind it."""
        import mlflow

        for name, figure in figures.items():
            self.send(name, mlflow.log_figure, figure, f"{name}.png")

    def log_history(self, task: str, history: Sequence[Mapping[str, float]]) -> None:
        """Log a training's learning curves as a picture."""
        from mtl import plots

        self.log_figures({"learning_curves": plots.learning_curves(task, history)})

    def log_dataset(self, dataset: Dataset) -> None:
        """Log which images the run used, with the md5 that DVC gives data/raw as digest."""
        import mlflow
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.meta_dataset import MetaDataset

        source = CodeDatasetSource({"data.source": dataset.source, "dvc.path": "data/raw"})
        digest = lineage.hashes("load_data", "outs").get("data/raw")
        self.send("data set", mlflow.log_input, MetaDataset(source, dataset.name, digest), context="training")
        self.log_tags({"dataset": dataset.name, "dataset_official": str(dataset.official).lower()})

    def log_model(self, model: keras.Model, classes: list[str], images: np.ndarray | Images) -> None:
        """Log a task's model with its signature, an input example and the class names."""
        import mlflow

        self.send(
            "model",
            without_bars(mlflow.tensorflow.log_model),
            model,
            name="model",
            signature=signature(images, len(classes)),
            input_example=np.asarray(images[:INPUT_IMAGES]),
            pip_requirements=requirements("mlflow", "tensorflow", "keras", "numpy"),
            metadata={"classes": classes},
        )

    def log_joint_model(self, folder: Path, images: np.ndarray | Images) -> None:
        """Log the models of all tasks as one pyfunc; `folder` holds `<task>.keras` and classes.json."""
        import mlflow

        self.send(
            "joint model",
            without_bars(mlflow.pyfunc.log_model),
            name="joint",
            python_model=Path(__file__).parents[1] / "joint.py",
            artifacts={"models": str(folder)},
            signature=signature(images, None),
            input_example=np.asarray(images[:INPUT_IMAGES]),
            pip_requirements=requirements("mlflow", "tensorflow", "keras", "numpy", "pandas"),
        )


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a tree by their dotted paths."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
