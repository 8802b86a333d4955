"""An MLflow run and the methods that log into it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl import files, lineage
from mtl.data.store import Dataset
from mtl.tasks.spec import TaskSpec
from mtl.tracking.flavors import save_joint_model, save_model
from mtl.tracking.outbox.calls import Call, flat
from mtl.tracking.outbox.sender import Sender, milliseconds

if TYPE_CHECKING:
    import keras
    import numpy as np
    from matplotlib.figure import Figure

    from mtl.data.shards import ShardedImages


class Run(Sender):
    """An MLflow run; a server that is away delays its calls, and loses none (`Sender`)."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers."""
        now = milliseconds()
        rows = [(name, value, now, step or 0) for name, value in metrics.items()]
        self.send(Call("batch", "metrics", {"metrics": rows}))

    def log_params(self, tree: Mapping[str, Any]) -> None:
        """Log parameters, nested ones under dotted names."""
        self.send(Call("batch", "parameters", {"params": {name: str(value) for name, value in flat(tree)}}))

    def log_epoch(self, row: Mapping[str, float], prefix: str = "") -> None:
        """Log one row of a training's history as `train_*` and `val_*` at its epoch."""
        values = {key if key.startswith("val_") else f"train_{key}": value for key, value in row.items()}
        step = int(values.pop("train_epoch"))
        self.log_metrics({f"{prefix}{key}": value for key, value in values.items()}, step)

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        self.send(Call("batch", "tags", {"tags": {name: str(value) for name, value in tags.items()}}))

    def log_folder(self, folder: Path) -> None:
        """Log the files of a folder as artifacts."""
        self.send(Call("artifacts", folder.name), lambda target: shutil.copytree(folder, target, dirs_exist_ok=True))

    def end_other(self, run_id: str, reason: str) -> None:
        """End another run, whose process was killed, with the tag `reason`."""
        what = "end of a killed run"
        self.send(Call("batch", what, {"tags": {"reason": reason}}, run_id))
        self.send(Call("end", what, {"status": "KILLED", "end_time": milliseconds()}, run_id))

    def log_json(self, content: Any, name: str) -> None:
        """Log JSON as the artifact `name`."""
        self.send(Call("artifacts", name), lambda folder: (folder / name).write_text(json.dumps(content, indent=2)))

    def log_figures(self, figures: Mapping[str, Figure]) -> None:
        """Log each figure as the artifact `<name>.png`."""

        def draw(name: str, figure: Figure, folder: Path) -> None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(folder / f"{name}.png")

        for name, figure in figures.items():
            self.send(Call("artifacts", name), partial(draw, name, figure))

    def log_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log rows as the artifact `<name>.csv`, which MLflow shows as a table."""
        self.send(Call("artifacts", name), lambda folder: files.write_csv(folder / f"{name}.csv", rows))

    def log_history(self, task: str, history: Sequence[Mapping[str, float]]) -> None:
        """Log the history of a training as a table."""
        self.log_table(f"{task}_history", history)

    def log_dataset(self, dataset: Dataset) -> None:
        """Log the data set of the run, with DVC's md5 of data/raw as its digest."""
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.meta_dataset import MetaDataset

        source = CodeDatasetSource({"data.source": dataset.source, "dvc.path": "data/raw"})
        digest = lineage.hashes("load_data", "outs").get("data/raw/images")
        entity = MetaDataset(source, dataset.name, digest)  # type: ignore[abstract]  # MLflow left its `profile` abstract
        self.send(Call("dataset", "data set", {"context": "training", **entity.to_dict()}))
        self.log_tags({"dataset": dataset.name, "dataset_official": str(dataset.is_official).lower()})

    def log_model(
        self, model: keras.Model, task: TaskSpec, imports: Sequence[str], images: np.ndarray | ShardedImages
    ) -> None:
        """Log a task's model with signature and input example; `imports` are the user's modules with its layers."""
        self.log_saved("model", "model", lambda files: save_model(files, model, task, imports, images))

    def log_joint_model(self, folder: Path, images: np.ndarray | ShardedImages) -> None:
        """Log the models of all tasks as one pyfunc; `folder` holds `<task>.keras` and imports.json."""
        self.log_saved("joint", "joint model", lambda files: save_joint_model(files, folder, images))

    def log_saved(self, name: str, what: str, save: Callable[[Path], object]) -> None:
        """Log the model that `save` writes into an empty folder, in MLflow's format, under `name`."""
        from mlflow.tracking.context.registry import resolve_tags

        self.send(Call("model", what, {"name": name, "tags": resolve_tags()}), save)
