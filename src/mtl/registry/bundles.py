"""The files of a joint model, or of one task's model, out of MLflow. Nothing in them is run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mtl import store
from mtl.errors import UserError
from mtl.tracking import artifacts


@dataclass(frozen=True)
class Bundle:
    """Models and what their outputs mean.

    Attributes:
        files: the `.keras` file of each task.
        classes: the names of each task's classes in label order.
        of_class: for each task the name that it gives to each class of the data set; None where it was not logged.
    """

    files: dict[str, Path]
    classes: dict[str, list[str]]
    of_class: dict[str, dict[str, str]] | None


def fetch(uri: str, folder: Path) -> Bundle:
    """Download a model, `models:/…`, into `folder`, as `Run.log_joint_model` and `Run.log_model` log them.

    Raises UserError where it cannot be had, or is neither.
    """
    from mlflow.models import Model

    root = artifacts.download(uri, folder)
    logged = Model.load(root)
    parts = logged.flavors.get("python_function", {}).get("artifacts") or {}
    joint = root / parts.get("models", {}).get("path", "artifacts")
    if (joint / "classes.json").is_file():
        classes, of_class = store.read_json(joint / "classes.json"), joint / "of_class.json"
        files = {task: joint / f"{task}.keras" for task in classes}
        return Bundle(files, classes, store.read_json(of_class) if of_class.is_file() else None)
    names, found = (logged.metadata or {}).get("classes"), sorted(root.glob("data/*.keras"))
    if not names or len(found) != 1:
        raise UserError(f"{uri}: neither a joint model nor a task's model of this project")
    task = uri.removeprefix("models:/").partition("@")[0].partition("/")[0]
    return Bundle({task: found[0]}, {task: names}, None)
